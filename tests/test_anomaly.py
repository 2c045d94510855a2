"""detect_anomaly: it names the first operation that makes a NaN or an infinity, and nothing that is meant to be one."""

import math
import re
import threading

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import nn
from tinyrnn.autograd import current_mode
from tinyrnn.errors import NonFiniteError, TinyRNNError

INF, NAN = math.inf, math.nan


@pytest.fixture(autouse=True)
def _numpy_is_silent():
    with np.errstate(all="ignore"):
        yield


def leaf(*data, dtype="float32"):
    return tr.tensor(data, dtype, requires_grad=True)


def anomaly(run):
    """Return what the error says."""
    with pytest.raises(NonFiniteError) as caught, tr.detect_anomaly():
        run()
    return str(caught.value)


# ---------------------------------------------------------------- forward

FORWARD = {
    "log of a negative number": (
        lambda: tr.log(tr.tensor([4.0, 1.0, -1.0])),
        "log(float32[3]) made the first NaN, in 1 of 3 elements, such as [2], for x from -1 to 4; "
        "keep these where log is finite",
    ),
    "0 / 0": (
        lambda: tr.zeros(2, 1) / tr.zeros(2, 1),
        "divide(float32[2, 1], float32[2, 1]) made the first NaN, in 2 of 2 elements, such as [0, 0], "
        "for a from 0 to 0, b from 0 to 0; keep these where divide is finite",
    ),
    "1 / 0": (lambda: 1 / tr.tensor([1.0, 0.0]), "divide(1, float32[2]) made the first infinity, in 1 of 2 elements"),
    "log of 0": (lambda: tr.log(tr.zeros(1)), "log(float32[1]) made the first infinity"),
    "exp overflows": (
        lambda: tr.exp(tr.tensor([[1.0, 100.0]])),
        "exp(float32[1, 2]) made the first infinity, in 1 of 2 elements, such as [0, 1], for x from 1 to 100;",
    ),
    "a single number": (lambda: tr.sqrt(tr.tensor(-1.0)), "sqrt(float32[]) made the first NaN, for x from -1 to -1;"),
    "a sum overflows": (lambda: tr.full(9, 1e38).sum(), "sum(float32[9]) made the first infinity"),
    "a cast overflows": (
        lambda: tr.tensor([1e300], "float64").astype("float32"),
        "astype(float64[1]) made the first infinity",
    ),
    "∞ − ∞": (
        lambda: tr.tensor([1.0, INF]) - INF,
        "subtract(float32[2], inf) made the first NaN, in 1 of 2 elements, such as [1], for a from 1 to inf",
    ),
    "0 · ∞": (lambda: tr.where([True, False], tr.ones(2), -INF) * 0.0, "multiply(float32[2], 0.0) made the first NaN"),
    "softmax by hand, of a row that is masked completely": (
        lambda: (lambda x: tr.exp(x - x.max()))(tr.where([False, False], tr.ones(2), -INF)),
        "subtract(float32[2], float32[]) made the first NaN",
    ),
}


@pytest.mark.parametrize("name", FORWARD)
@pytest.mark.parametrize("around", [tr.enable_grad, tr.no_grad])
def test_the_operation_that_made_it_is_named(backend, name, around):
    run, message = FORWARD[name]
    with around():
        assert anomaly(run).startswith(message)


def test_it_is_the_first_one_that_is_named(backend):
    assert anomaly(lambda: tr.tanh(tr.log(tr.exp(tr.tensor([100.0])) - 1) * 0)).startswith("exp(")


class Model(nn.Module):
    def __init__(self, layer):
        self.rnn = layer

    def forward(self, x):
        return self.rnn(x)[0]


def test_an_exploding_network_names_layer_and_step(backend):
    model = Model(nn.RNN(2, 2, num_layers=2, nonlinearity="relu"))
    for cell, growth in zip(model.rnn.cells, (1.0, 1e10), strict=True):
        cell.W_x.assign(tr.tensor(np.eye(2)))
        cell.W_h.assign(tr.tensor(np.eye(2) * growth))
    # the first layer's h is 1 2 3 4 5, the second one's 1, 10¹⁰, 10²⁰, 10³⁰ and no more
    message = anomaly(lambda: model(tr.ones(5, 1, 2)))
    assert "matmul(float32[1, 2], float32[2, 2]) in Model.rnn.cells.1, step t=4 made the first infinity" in message


def test_nested_loops_and_modules_are_named():
    class Inner(nn.Module):
        def forward(self, x):
            return tr.log(x)

    class Outer(nn.Module):
        def __init__(self):
            self.part = Inner()

        def forward(self, x):
            for _ in tr.steps(3):
                for k in tr.steps([7, 8]):
                    x = self.part(x - 1) if k == 8 else x
            return x

    assert "log(float32[1]) in Outer.part, step t=1, step t=8 made" in anomaly(lambda: Outer()(tr.tensor([1.5])))


# ---------------------------------------------------------------- gates


def overflowing(layer, *gates):
    """Give the columns of W_x that belong to some gates weights with which x W_x overflows."""
    cell = layer.cells[0]
    W = cell.W_x.numpy().copy()
    for gate in gates:
        k = cell.gates.index(gate)
        W[:, k * cell.hidden_size : (k + 1) * cell.hidden_size] = 3e38
    cell.W_x.assign(tr.tensor(W))
    return layer


@pytest.mark.parametrize(
    ("make", "gates", "told"),
    [
        (nn.LSTM, "f", ", in gate f, for"),
        (nn.LSTM, "io", ", in gates i and o, for"),
        (nn.GRU, "n", ", in gate n, for"),
        (nn.RNN, "h", "elements, such as [0, 0, 0], for"),  # there is but one
    ],
)
def test_the_gates_concerned_are_named(backend, make, gates, told):
    layer = overflowing(make(2, 3), *gates)
    assert told in anomaly(lambda: layer(tr.full((4, 2, 2), 5.0)))


def test_no_gate_is_named_where_it_could_be_something_else():
    layer = overflowing(nn.LSTM(12, 3), "f")  # x is as wide as z
    assert "gate" not in anomaly(lambda: layer(tr.full((4, 2, 12), 5.0)))


class Exponential(nn.Cell):
    gates = ("i", "g")

    def step(self, z, state):
        i, g = tr.split(z + state.h @ self.W_h, 2)
        return nn.RNNState(state.h + tr.exp(i) * tr.tanh(g))


def test_one_part_of_a_split_is_that_gate(backend):
    layer = nn.Recurrent(Exponential, 2, 3)
    layer.cells[0].W_h.assign(tr.zeros(3, 6))
    layer.cells[0].W_x.assign(tr.ones(2, 6))
    x = np.ones((4, 1, 2), "float32")
    x[2] = 50  # e¹⁰⁰ at t = 2
    message = anomaly(lambda: layer(tr.tensor(x)))
    assert message.startswith("exp(float32[1, 3]) in Recurrent.cells.0, step t=2 made the first infinity")
    assert ", in gate i, for x from 100 to 100;" in message
    with tr.no_grad():  # what nobody records cannot be traced to the split
        assert "gate" not in anomaly(lambda: layer(tr.tensor(x)))


# ---------------------------------------------------------------- backward


def test_a_gradient_that_overflows_is_named(backend):
    x = leaf(1e-30, 1.0)
    y = (1 / x).sum()
    assert anomaly(y.backward) == (
        "the gradient of divide(1, float32[2]) for b made the first infinity, in 1 of 2 elements, such as [0], for "
        "gy from 1 to 1, b from 1e-30 to 1, y from 1 to 1e+30; keep these where the gradient of divide is finite"
    )


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda x: x**0.5, "the gradient of power(float32[1], 0.5) for a made the first infinity"),
        (lambda x: x * 3e38 + x * 3e38, "the sum of the gradients that flow into a leaf of shape (1,) made"),
        (
            lambda x: (lambda y: y * 3e38 + y * 3e38)(x * 0.5),
            "the sum of the gradients that flow into multiply(float32[1], 0.5) made the first infinity",
        ),
        (lambda x: x.astype("float64") * 1e300, "the gradient of astype(float32[1]) for x made"),
        (lambda x: tr.broadcast_to(x, 9) * 1e38, "the gradient of broadcast_to(float32[1]) for x made"),
        (lambda x: x[0] * 3e38 * 3e38, "the gradient of multiply(float32[], 3e+38) for a made the first infinity, for"),
        (lambda x: tr.full((2, 1), 1e20) @ (x * 1e-20).reshape(1, 1) * 1e20, "the gradient of matmul(float32[2, 1], "),
    ],
)
def test_every_way_back_is_watched(backend, run, message):
    y = run(leaf(0.0))
    assert anomaly(lambda: y.sum().backward()).startswith(message)


def test_a_gradient_that_explodes_through_time_names_layer_and_step(backend):
    model = Model(nn.RNN(2, 2))
    model.rnn.cells[0].W_h.assign(tr.tensor(np.eye(2) * 1e10))
    loss = model(tr.zeros(9, 1, 2))[-1].sum()  # every h is 0, and each step back multiplies the gradient by 10¹⁰
    message = anomaly(loss.backward)
    assert message.startswith(
        "the gradient of matmul(float32[1, 2], float32[2, 2]) in Model.rnn.cells.0, step t=5 for a"
    )
    assert "gy from 1e+30 to 1e+30" in message


class Steep(nn.Cell):
    gates = ("i", "g")

    def __init__(self, input_size, hidden_size, f):
        super().__init__(input_size, hidden_size)
        self.f = f

    def step(self, z, state):
        i, g = tr.split(z, 2)
        return nn.RNNState(self.f(i) + g)


def test_the_gate_that_a_gradient_flows_to_is_named(backend):
    layer = nn.Recurrent(Steep, 2, 3, f=lambda i: tr.exp(i) * 1e-30)
    layer.cells[0].W_x.assign(tr.full((2, 6), 40.0))
    out, _ = layer(tr.ones(2, 1, 2))
    message = anomaly(lambda: out.backward(tr.full(out.shape, 1e35)))  # e⁸⁰ is 10³⁵, times 10³⁵ times 10⁻³⁰
    assert message.startswith("the gradient of exp(float32[1, 3]) in Recurrent.cells.0, step t=1")
    assert "in gate i, for gy from" in message


def test_the_gate_that_a_weights_gradient_is_of_is_named(backend):
    layer = nn.Recurrent(Steep, 2, 3, f=lambda i: i * 1e20)
    layer.cells[0].W_x.assign(tr.full((2, 6), 1e-20))
    loss = layer(tr.full((1, 1, 2), 1e20))[0].sum()
    message = anomaly(loss.backward)
    call = "linear(float32[1, 1, 2], float32[2, 6], float32[6]) in Recurrent.cells.0"
    assert message.startswith(f"the gradient of {call} for W made")
    assert "in 6 of 12 elements, such as [0, 0], in gate i, for" in message


def test_in_a_recorded_backward_pass_the_inner_operation_is_named_too(backend):
    x = leaf(1e-30)
    y = (1 / x).sum()
    with pytest.raises(NonFiniteError) as caught, tr.detect_anomaly():
        tr.grad(y, x, create_graph=True)
    assert str(caught.value).startswith("divide(float32[1], float32[1]) made the first infinity")
    assert caught.value.__notes__ == ["while computing the gradient of divide(1, float32[1])"]


# ---------------------------------------------------------------- what is meant to be

MASKED = [True, False]
INTENDED = {
    "where": lambda x: tr.where(MASKED, x, -INF),
    "where twice": lambda x: tr.where(MASKED, tr.where(MASKED, x, -INF) + 1, 0.0),
    "softmax": lambda x: tr.softmax(tr.where(MASKED, x, -INF)),
    "softmax of nothing": lambda x: tr.softmax(tr.where([False, False], x, -INF)),
    "log_softmax": lambda x: tr.log_softmax(tr.where(MASKED, x, -INF)),
    "log_softmax of nothing": lambda x: tr.log_softmax(tr.where([False, False], x, -INF)),
    "logsumexp of nothing": lambda x: tr.logsumexp(tr.where([False, False], x, -INF)),
    "cross_entropy": lambda x: tr.cross_entropy(tr.where(MASKED, x, -INF), 0),
    "cross_entropy of the impossible": lambda x: tr.cross_entropy(tr.where(MASKED, x, -INF), 1),
    "pad": lambda x: tr.pad(x, (0, 1), -INF).max(),
    "maximum": lambda x: tr.maximum(x, -INF),
    "clip": lambda x: tr.clip(x, -INF, INF),
    "1 / ∞": lambda x: 1 / (x + INF),
    "an infinite tensor": lambda x: x + tr.tensor([INF, 1.0]),
    "NaN in the data": lambda x: tr.tanh(x * tr.tensor([NAN, 1.0])),
    "NaN in the data, masked": lambda x: tr.where(MASKED, x, 0.0) * tr.where(MASKED, x, tr.tensor([1.0, NAN])),
    "sqrt of 0": lambda x: tr.sqrt(x - x),
    "sigmoid far out": lambda x: tr.sigmoid(x * 1e30) + tr.tanh(x * 1e30),
    "integers and masks": lambda x: x * (x > 0) + x.argmax() + tr.arange(2),
    "attention": lambda x: nn.Attention(2)(x.reshape(1, 1, 2), tr.ones(3, 1, 2), mask=[[True], [False], [True]])[0],
    "attention to nothing": lambda x: nn.Attention(2)(x.reshape(1, 1, 2), tr.ones(3, 1, 2), lengths=[0])[0],
    "attention by products": lambda x: nn.Attention(2, score="dot")(x.reshape(1, 2), tr.ones(3, 1, 2), lengths=[0])[0],
    "masked loss": lambda x: tr.mse_loss(x, tr.tensor([1.0, NAN]), mask=MASKED),
}


@pytest.mark.parametrize("name", INTENDED)
def test_infinities_that_are_meant_and_what_only_passes_on_do_not_raise(backend, name):
    f = INTENDED[name]
    x = leaf(0.5, 1.5)
    with tr.detect_anomaly():
        y = f(x).sum()
        tr.grad(y, x, create_graph=True)
        y.backward()


def test_a_gradient_that_is_given_infinite_does_not_raise(backend):
    x = leaf(1.0, 2.0)
    with tr.detect_anomaly():
        (x * 2).backward(tr.tensor([INF, NAN]))
    assert np.isnan(x.grad.numpy()[1])


# ---------------------------------------------------------------- on, off, and beside others


def test_nothing_is_raised_when_it_is_off(backend):
    x = leaf(-1.0)
    with tr.detect_anomaly():
        pass
    y = tr.log(x)
    y.backward()
    assert np.isnan(y.item())
    assert current_mode() == type(current_mode())()


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.RNN(3, 4),
        lambda: nn.LSTM(3, 4, 2, bidirectional=True, dropout=0.5, peephole=True, layer_norm=True),
        lambda: nn.GRU(3, 4, zoneout=0.2, recurrent_dropout=0.2),
    ],
)
def test_values_and_gradients_are_the_same_when_it_is_on(backend, make):
    results = []
    for around in (tr.fusion(False), tr.detect_anomaly()):  # it watches each operation, so there are no kernels
        tr.manual_seed(3)
        layer = make()
        with around:
            out, _ = layer(tr.randn(5, 2, 3), lengths=[5, 3])
            (out * out).sum().backward()
        results.append([out.tolist(), *(p.grad.tolist() for p in layer.parameters())])
    assert results[0] == results[1]


def test_the_mode_is_as_before_after_an_error():
    before = current_mode()
    for _ in range(2):
        anomaly(lambda: tr.log(tr.tensor([-1.0])))
        assert current_mode() == before


def test_it_may_stand_above_a_function():
    @tr.detect_anomaly()
    def f(x):
        return tr.log(x)

    assert f(tr.ones(1)).item() == 0
    with pytest.raises(NonFiniteError):
        f(-tr.ones(1))


def test_it_does_not_reach_other_threads():
    found = []

    def work():
        with np.errstate(divide="ignore"):
            found.append(tr.log(tr.tensor(0.0)).item())

    with tr.detect_anomaly():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(10)
    assert found == [-INF]


def test_gradients_can_be_checked_under_it(backend):
    with tr.detect_anomaly():
        assert tr.gradcheck(lambda x: tr.softmax(x * x), tr.randn(3, dtype="float64", requires_grad=True))


def test_a_primitive_of_ones_own_is_watched():
    blow = tr.primitive("blow", forward=lambda xp, *xs: xs[0] / 0.0)
    assert anomaly(lambda: tr.apply(blow, tr.ones(2), tr.zeros(2))).startswith(
        "blow(float32[2], float32[2]) made the first infinity, in 2 of 2 elements, such as [0], for xs from 0 to 1;"
    )


def test_the_error_is_ours_and_an_arithmetic_one():
    assert issubclass(NonFiniteError, TinyRNNError)
    with pytest.raises(ArithmeticError, match=re.escape("log(float32[1]) made")), tr.detect_anomaly():
        tr.log(tr.tensor([-2.0]))
