"""A replayed step is the model's own, and a model that cannot be replayed is not."""

from __future__ import annotations

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import nn
from tinyrnn.generate import generate
from tinyrnn.replay import TRIALS, Replay

STEPS = TRIALS + 4


class Writer(nn.Module):
    """A language model; `calls` counts the runs of its Python."""

    def __init__(self, layer=nn.LSTM):
        self.embedding = nn.Embedding(5, 4)
        self.recurrent = layer(4, 6, 2, dropout=0.5)
        self.output = nn.Linear(6, 5)
        self.calls = 0

    def forward(self, x, state=None):
        self.calls += 1
        out, state = self.recurrent(self.embedding(x), state)
        return self.output(out), state


def run(step, steps=STEPS, state=None, batch=1):
    found = []
    for t in range(steps):
        y, state = step(tr.tensor([[t % 5] * batch]), state)
        found.append(y.numpy().copy())
    return found, state


@pytest.mark.parametrize("layer", [nn.RNN, nn.LSTM, nn.GRU])
def test_it_does_what_the_model_does(backend, layer):
    model = Writer(layer).eval()
    with tr.no_grad():
        expected, last = run(model)
    model.calls = 0
    found, state = run(Replay(model))
    np.testing.assert_array_equal(found, expected)
    assert type(state) is type(last)
    np.testing.assert_array_equal(state.h.numpy(), last.h.numpy())
    assert model.calls == 2 + TRIALS  # once with no state, once watched with one, and the trials


def test_generation_is_the_same_with_and_without():
    model = Writer()
    texts = [list(generate(model, [1, 2], 40, generator=tr.Generator(3), replay=replay)) for replay in (True, False)]
    assert texts[0] == texts[1]
    assert model.training
    assert model.recurrent.training


def test_no_graph_is_recorded():
    step = Replay(Writer().eval())
    _, state = run(step)
    assert not state.h.requires_grad


def test_other_weights_and_other_shapes_are_watched_anew():
    model = Writer().eval()
    step = Replay(model)
    _, state = run(step)
    with tr.no_grad():
        model.output.b.assign(np.arange(5.0, dtype="float32"))
    y, _ = step(tr.tensor([[2]]), state)
    np.testing.assert_array_equal(y.numpy(), model(tr.tensor([[2]]), state)[0].numpy())
    found, _ = run(step, batch=3)
    assert found[-1].shape == (1, 3, 5)


def test_a_model_that_draws_or_counts_is_never_replayed():
    class Noisy(Writer):
        def forward(self, x, state=None):
            y, state = super().forward(x, state)
            return y + tr.randn(1), state

    class Counting(Writer):
        def forward(self, x, state=None):
            y, state = super().forward(x, state)
            return y + self.calls, state

    for kind in (Noisy, Counting):
        model = kind().eval()
        step = Replay(model)
        run(step)
        assert step.differs
        assert model.calls == STEPS
    found, _ = run(Replay(Counting().eval()))
    assert found[-1].mean() > found[0].mean() + STEPS - 2


def test_a_state_of_any_nesting():
    class Odd(nn.Module):
        def __init__(self):
            self.W = nn.Parameter(tr.ones(1, 1))

        def forward(self, x, state):
            (a, b), note = state["pair"], state["note"]
            h = (x.astype("float32") @ self.W) + a + b
            return h, {"pair": [h, b * 2], "note": note}

    start = {"pair": [tr.ones(1, 1), tr.ones(1, 1)], "note": "x"}
    with tr.no_grad():
        expected, last = run(Odd(), state=start)
    step = Replay(Odd())
    found, state = run(step, state=start)
    np.testing.assert_array_equal(found, expected)
    assert state["note"] == "x"
    assert state["pair"][1].item() == last["pair"][1].item()
    assert step.trials == TRIALS


def test_a_profile_sees_the_operations():
    step = Replay(Writer().eval())
    _, state = run(step)
    with tr.profile() as report:
        step(tr.tensor([[1]]), state)
    assert any(row.op == "lstm_step" for row in report.rows)
