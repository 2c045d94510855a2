"""Scheduled sampling: who is drawn, how often, what gradients do, and a decoder that is taught by it."""

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import nn, optim
from tinyrnn.errors import ShapeError

TARGET, OWN = np.arange(1000), -1 - np.arange(1000)


def drawn(p, **options):
    """Return for which of 1000 sequences the decoder's own was chosen."""
    chosen = tr.scheduled_sampling(TARGET, OWN, p, **options).numpy()
    assert (np.where(chosen < 0, OWN, TARGET) == chosen).all()
    return chosen < 0


@pytest.mark.parametrize("p", [0.0, 0.25, 0.9, 1.0])
def test_each_sequence_is_drawn_for_with_probability_p(backend, p):
    assert abs(drawn(p).mean() - p) < 0.05
    assert (drawn(p, generator=tr.Generator(3)) == drawn(p, generator=tr.Generator(3))).all()
    assert p in (0, 1) or (drawn(p) != drawn(p)).any()


def test_vectors_are_chosen_whole_and_gradients_follow(backend):
    target, own = (tr.full((40, 2, 3), value, requires_grad=True) for value in (1.0, 2.0))
    chosen = tr.scheduled_sampling(target, own, 0.5)
    rows = chosen.numpy().reshape(40, 6)
    assert (rows == rows[:, :1]).all()
    chosen.sum().backward()
    np.testing.assert_array_equal(own.grad.numpy(), chosen.numpy() - 1)
    np.testing.assert_array_equal(target.grad.numpy(), 2 - chosen.numpy())


def test_captured_it_draws_anew_and_p_may_change():
    own, target = tr.ones(200), tr.zeros(200)
    step = tr.capture(lambda target, own, p: tr.scheduled_sampling(target, own, p))
    draws = [step(target, own, tr.tensor(p)).numpy() for p in (0.5, 0.5, 0.5, 0.0, 1.0)]
    assert (draws[1] != draws[2]).any()
    assert [draws[3].mean(), draws[4].mean()] == [0, 1]
    assert len(step.programs) == 1


def test_a_decoder_learns_from_its_own_words():
    """Repeat a class number 6 times: the decoder gets it once, and then more and more often what it said itself."""
    embedding, cell, output = nn.Embedding(5, 8), nn.GRUCell(8, 16), nn.Linear(16, 5)
    parts = nn.ModuleList([embedding, cell, output])
    optimizer = optim.Adam(parts.parameters(), lr=0.02)

    def run(first, y, p):
        x, state, losses, said = first, cell.initial_state(len(first)), [], []
        for t in tr.steps(6):
            state = cell(embedding(x), state)
            logits = output(state.h)
            losses.append(tr.cross_entropy(logits, y[t]))
            said.append(logits.argmax(-1))
            x = tr.scheduled_sampling(y[t], said[-1], p)
        return tr.stack(losses).mean(), tr.stack(said)

    classes = tr.tensor(np.arange(5))
    y = tr.stack([classes] * 6)
    for epoch in range(60):
        optimizer.zero_grad()
        loss, _ = run(classes, y, p=epoch / 60)
        loss.backward()
        optimizer.step()
    _, said = run(classes, y, p=1)
    assert said.tolist() == y.tolist()


@pytest.mark.parametrize(("arguments", "error", "message"), [
    (([1, 2], [1], 0.5), ShapeError, r"target has shape \(2,\) and own \(1,\); expected the same"),
    ((1, 2, 0.5), ShapeError, r"target is a single number; expected \(B, …\), one for each sequence"),
    (([1], [2], 1.5), ValueError, "p is 1.5; expected a probability from 0 to 1"),
    (([1], [2], float("nan")), ValueError, "p is nan; expected a probability from 0 to 1"),
])  # fmt: skip
def test_bad_input_is_told_what_was_given_and_expected(arguments, error, message):
    with pytest.raises(error, match=f"scheduled_sampling: {message}"):
        tr.scheduled_sampling(*arguments)
