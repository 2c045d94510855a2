"""A captured function does what the function does: in value, in the gradients it leaves, on every backend."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import nn, optim
from tinyrnn.errors import CaptureError, IndexRangeError
from tinyrnn.generate import generate

V = 5


class Writer(nn.Module):
    """A language model; `calls` counts the runs of its Python."""

    def __init__(self, layer=nn.LSTM, dropout=0.0, **options):
        self.embedding = nn.Embedding(V, 4)
        self.recurrent = layer(4, 6, 2, dropout=dropout, **options)
        self.output = nn.Linear(6, V)
        self.calls = 0

    def forward(self, x, state=None):
        self.calls += 1
        out, state = self.recurrent(self.embedding(x), state)
        return self.output(out), state


def gradients_of(model):
    def gradients(x, y, state):
        logits, state = model(x, state)
        loss = tr.cross_entropy(logits, y)
        loss.backward()
        return loss, tr.detach(state)

    return gradients


def train(model, step, steps=5, seed=0):
    """Return the losses of a few steps, and the last gradients."""
    rng = np.random.default_rng(seed)
    optimizer, state, losses = optim.Adam(model.parameters(), lr=0.05), None, []
    for _ in range(steps):
        x, y = tr.tensor(rng.integers(0, V, (6, 3))), tr.tensor(rng.integers(0, V, (6, 3)))
        optimizer.zero_grad()
        loss, state = step(x, y, state)
        losses.append(loss.item())
        optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
    return losses, [p.grad.numpy() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Writer(nn.RNN),
        lambda: Writer(nn.LSTM, learn_initial_state=True, peephole=True),
        lambda: Writer(nn.GRU),
        lambda: Writer(nn.GRU, reset_after=False),
        lambda: Writer(nn.LSTM, dropout=0.5, layer_norm=True, zoneout=0.1, recurrent_dropout=0.2),
    ],
)
@pytest.mark.parametrize("fusion", [True, False])
def test_training_is_the_same(backend, make, fusion):
    found = []
    for captured in (False, True):
        tr.manual_seed(1)
        model = make()
        step = gradients_of(model)
        with tr.fusion(fusion):
            found.append(train(model, tr.capture(step, model) if captured else step))
        assert model.calls == (2 if captured else 5)  # without a state, and with one
    (losses, gradients), (captured_losses, captured_gradients) = found
    digits = 1e-5 if backend.name == "cupy" else 0  # which adds up an embedding's gradients in any order
    np.testing.assert_allclose(losses, captured_losses, rtol=digits, atol=0)
    for g, h in zip(gradients, captured_gradients, strict=True):
        np.testing.assert_allclose(g, h, rtol=digits, atol=digits)


def test_gradients_add_up_until_they_are_forgotten():
    layer = nn.Linear(2, 1)
    step = tr.capture(lambda x: layer(x).sum().backward(), layer)
    x = tr.tensor([[1.0, 2.0]])
    for n in (1, 2, 3):
        assert step(x) is None
        assert layer.W.grad.tolist() == [[n * 1.0], [n * 2.0]]


def test_clipping_may_be_captured_too(backend):
    layer = nn.Linear(2, 1)

    def clipped(x):
        layer(x).sum().backward()
        return optim.clip_grad_norm(layer.parameters(), 0.5)

    step, found = tr.capture(clipped, layer), []
    for run in (clipped, step, step, step):
        for w in layer.parameters():
            w.grad = None
        found.append([run(tr.tensor([[3.0, 4.0]])).item(), *(w.grad.tolist() for w in layer.parameters())])
    assert found == [found[0]] * 4
    assert found[0][0] == pytest.approx(26**0.5)


def test_second_derivatives():
    x = tr.tensor([2.0, 3.0], requires_grad=True)
    step = tr.capture(lambda: tr.grad(tr.grad((x**3).sum(), x, create_graph=True).sum(), x), x)
    assert step().tolist() == step().tolist() == [12.0, 18.0]
    x.assign([1.0, 1.0])
    assert step().tolist() == [6.0, 6.0]


def test_shapes_constants_modes_and_structures_have_programs_of_their_own():
    model = Writer(dropout=0.5)

    def f(x, factor, more):
        return model(x)[0] * factor + more.get("a", 0)

    step = tr.capture(f, model)
    x = tr.tensor([[1, 2]])
    for n, arguments in enumerate([(x, 1.0, {}), (x, 2.0, {}), (x, 2.0, {"a": 3.0}), (tr.tensor([[1]]), 2.0, {})]):
        for _ in range(2):
            np.testing.assert_allclose(step(*arguments).shape, f(*arguments).shape)
            assert len(step.programs) == n + 1
    model.eval()
    with tr.no_grad():
        for _ in range(2):
            np.testing.assert_array_equal(step(x, 2.0, {"a": 3.0}).numpy(), f(x, 2.0, {"a": 3.0}).numpy())
    assert len(step.programs) == 5


def test_numpy_arrays_come_in_and_named_tuples_come_out():
    model = Writer()
    step = tr.capture(model, model)
    for _ in range(3):
        y, state = step(np.array([[1], [2]]))
    assert isinstance(state, nn.LSTMState)
    np.testing.assert_array_equal(y.numpy(), model(np.array([[1], [2]]))[0].numpy())
    assert not y.requires_grad


def test_a_token_out_of_range_is_told_in_a_repetition_too(backend):
    model = Writer()
    step = tr.capture(model, model)
    step(tr.tensor([[1]]))
    step(tr.tensor([[1]]))
    with pytest.raises(IndexRangeError, match="Embedding: index holds 7"):
        step(tr.tensor([[7]]))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x if x.sum() > 0 else -x, "looks at a value"),
        (lambda x: x * float(x.sum()), "tr.where"),
        (lambda x: x.numpy(), "looks at a value"),
    ],
)
def test_what_cannot_be_captured_is_refused(function, message):
    step = tr.capture(function)
    with pytest.raises(CaptureError, match=message):
        step(tr.ones(2))


def test_a_tensor_that_was_not_given_is_told():
    W = tr.randn(2, 2, requires_grad=True)
    with pytest.raises(CaptureError, match=r"pass it as an argument, or name the module"):
        tr.capture(lambda x: x @ W)(tr.ones(1, 2))
    assert W.backend.name == "numpy"


def test_new_values_for_a_parameter_are_refused():
    layer = nn.Linear(2, 1)
    before = layer.W.numpy().copy()

    def descend(x):
        layer(x).sum().backward()
        with tr.no_grad():
            layer.W -= 0.1 * layer.W.grad

    with pytest.raises(CaptureError, match=r"gives a parameter new values.*assign them after the call"):
        tr.capture(descend, layer)(tr.ones(1, 2))
    np.testing.assert_array_equal(layer.W.numpy(), before)
    assert layer.W.backend.name == "numpy"


def test_an_optimizer_and_a_scaler_are_refused_before_they_change_anything():
    layer = nn.Linear(2, 1)
    optimizer = optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    scaler = optim.LossScaler(optimizer)

    def step(x, last):
        scaler.scale(layer(x).sum()).backward()
        last()

    for last, name in ((optimizer.step, r"SGD\.step\(\)"), (scaler.unscale, "unscale"), (scaler.step, "unscale")):
        with pytest.raises(CaptureError, match=f"{name}.* inside a captured function"):
            tr.capture(step, layer, scaler.loss_scale)(tr.ones(1, 2), last)
        assert (optimizer.steps, scaler.finite) == (0, None)
    step(tr.ones(1, 2), scaler.step)
    assert optimizer.steps == 1


def test_the_text_of_a_program_names_what_it_calls():
    step = tr.capture(lambda x: tr.tanh(x) * 2)
    step(tr.ones(2))
    (program,) = step.programs.values()
    assert "= tanh_0(a0)" in program.text
    assert "v1 = mul_1(v0, 2" in program.text


def test_an_error_leaves_the_parameters_as_they_were():
    layer = nn.Linear(2, 2)
    node = layer.W.node
    with pytest.raises(tr.errors.ShapeError):
        tr.capture(layer, layer)(tr.ones(1, 3))
    assert layer.W.backend.name == "numpy"
    assert layer.W.node is node


def test_arrays_are_let_go_of_after_their_last_use():
    seen = []

    class Watched(np.ndarray):
        pass

    step = tr.capture(lambda x: tr.tanh(tr.exp(x) * 2).sum())
    step(tr.ones(3))
    (program,) = step.programs.values()
    assert "del v0" in program.text
    assert program.first == [] or len(program.first) == 1
    x = np.ones(3, "float32").view(Watched)
    seen.append(weakref.ref(x))
    step(tr.tensor(x))
    del x
    gc.collect()
    assert seen[0]() is None


def test_a_profile_sees_the_operations():
    model = Writer()
    step = tr.capture(model, model)
    step(tr.tensor([[1]]))
    with tr.profile() as report:
        step(tr.tensor([[1]]))
    assert any(row.op == "lstm_step" for row in report.rows)


def test_random_numbers_are_drawn_anew(backend):
    def draw(x, generator):
        return x + tr.randn(3), tr.uniform(3, low=1, high=2, generator=generator), tr.dropout(x, 0.5)

    def found(f):
        tr.manual_seed(5)
        generator = tr.Generator(1)
        return [[y.tolist() for y in f(tr.ones(3), generator)] for _ in range(4)]

    if backend.name != "cupy":
        assert found(tr.capture(draw)) == found(draw)
    step = tr.capture(draw)
    assert len({str(y) for y in found(step)}) == 4


@pytest.mark.parametrize("k", [np.float64(0.5), np.float32(0.5), np.int64(2)])
def test_a_number_of_numpys_is_a_constant(k):
    step = tr.capture(lambda x, k: k * x)
    assert [step(tr.ones(2), k).dtype for _ in range(2)] == ["float32"] * 2


def test_hooks_of_parameters_are_run(backend):
    layer = nn.Linear(1, 1)

    def found(f):
        layer.W.grad = None
        f(tr.ones(1, 1))
        return layer.W.grad.item()

    def gradients(x):
        layer(x).sum().backward()

    step = tr.capture(gradients, layer)
    assert found(step) == 1
    hook = layer.W.register_hook(lambda g: 10 * g)
    assert [found(f) for f in (gradients, step, step)] == [10] * 3
    hook.remove()
    assert found(step) == 1


def test_gradients_are_not_forgotten_inside():
    layer = nn.Linear(1, 1)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)

    def gradients(x):
        optimizer.zero_grad()
        layer(x).sum().backward()

    with pytest.raises(CaptureError, match=r"forgotten inside a captured function.*zero_grad\(\) before"):
        tr.capture(gradients, layer)(tr.ones(1, 1))
    assert layer.W.backend.name == "numpy"


def test_an_argument_that_requires_a_gradient_is_refused():
    layer, x = nn.Linear(1, 1), tr.ones(1, 1, requires_grad=True)
    step = tr.capture(layer, layer)
    with pytest.raises(CaptureError, match=r"an argument requires a gradient.*name it.*tr\.detach\(state\)"):
        step(x)
    with tr.no_grad():
        assert step(x).shape == (1, 1)
    named = tr.capture(lambda: layer(x).sum().backward(), layer, x)
    named()
    named()
    assert x.grad.item() == pytest.approx(2 * layer.W.item())


@pytest.mark.parametrize("convert", [np.asarray, lambda x: np.concatenate([x, x])])
def test_a_copy_to_numpy_is_told(convert):
    with pytest.raises(CaptureError, match="looks at a value"):
        tr.capture(lambda x: x * convert(x))(tr.ones(2))


# ---------------------------------------------------------------- generation


@pytest.mark.parametrize("layer", [nn.RNN, nn.LSTM, nn.GRU])
def test_generation_is_the_same_captured(backend, layer):
    model = Writer(layer, dropout=0.5)
    texts = [list(generate(model, [1, 2], 20, generator=tr.Generator(3), captured=c)) for c in (True, False)]
    assert texts[0] == texts[1]
    assert model.training
    assert model.recurrent.training
    calls = model.calls
    list(generate(model, [1, 2], 50))
    assert model.calls - calls < 10


def test_a_model_that_counts_or_looks_is_run_itself():
    class Counting(Writer):
        def forward(self, x, state=None):
            y, state = super().forward(x, state)
            return y + self.calls, state

    class Looking(Writer):
        def forward(self, x, state=None):
            y, state = super().forward(x, state)
            return (y if y.sum() > 0 else -y), state

    for kind in (Counting, Looking):
        model = kind()
        assert len(list(generate(model, [1], 10))) == 10
        assert model.calls >= 10


def test_weights_that_change_between_two_symbols_count():
    model = Writer()
    written = generate(model, [1], 20, temperature=0)
    for _ in range(10):
        next(written)
    with tr.no_grad():
        model.output.W.assign(0.0)
        model.output.b.assign([0.0, 0.0, 9.0, 0.0, 0.0])
    assert list(written) == [2] * 10
