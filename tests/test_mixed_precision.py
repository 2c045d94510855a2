"""Products in float16, everything else in float32; and the loss scaling that goes with it."""

from __future__ import annotations

import itertools
import math
import sys

import array_api_strict as strict
import numpy as np
import pytest
from array_api_strict import _dtypes
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyrnn as tr
from tests.strict_backend import StrictBackend
from tests.test_char_rnn import char_rnn
from tinyrnn import checkpoint, data, nn, optim
from tinyrnn.autograd import changed_mode
from tinyrnn.backends import kernel_numba
from tinyrnn.errors import BackendError, DTypeError, GraphError, ShapeError, StateDictError
from tinyrnn.nn import cells

HALF = 2.0**-11  # float16's relative rounding error


@pytest.fixture(autouse=True)
def _half_precision_for_the_strict_backend(monkeypatch):
    """Add float16, which the standard does not have, to array-api-strict: to be cast and multiplied, and no more."""
    half = type(strict.float32)("float16")
    monkeypatch.setattr(strict, "float16", half, raising=False)
    monkeypatch.setitem(_dtypes._promotion_table, (half, half), half)  # it meets no other type
    modules = [module for name, module in sys.modules.items() if name.startswith("array_api_strict.")]
    for module, table in itertools.product(modules, ("_all_dtypes", "_numeric_dtypes")):
        if hasattr(module, table):
            monkeypatch.setattr(module, table, (*getattr(module, table), half))
    for category in ("all", "numeric"):
        monkeypatch.setitem(_dtypes._dtype_categories, category, (*_dtypes._dtype_categories[category], half))


class Attending(nn.Module):
    def __init__(self, score):
        self.attention = nn.Attention(6, score=score)
        self.output = nn.Linear(6, 3)

    def forward(self, x):
        return self.output(self.attention(x, tr.tanh(x), lengths=[7, 5, 1])[0])


LAYERS = {
    "Linear": lambda: nn.Linear(6, 5),
    "Linear, no bias": lambda: nn.Linear(6, 5, bias=False),
    "RNN": lambda: nn.RNN(6, 5),
    "RNN, relu": lambda: nn.RNN(6, 5, nonlinearity="relu", bidirectional=True),
    "LSTM": lambda: nn.LSTM(6, 5, 2),
    "LSTM, peephole": lambda: nn.LSTM(6, 5, bidirectional=True, peephole=True, proj_size=3),
    "LSTM, layer_norm": lambda: nn.LSTM(6, 5, layer_norm=True, learn_initial_state=True),
    "GRU": lambda: nn.GRU(6, 5, 2, bidirectional=True),
    "GRU, reset before": lambda: nn.GRU(6, 5, reset_after=False),
    "GRU, no bias": lambda: nn.GRU(6, 5, bias=False),
    "additive": lambda: Attending("additive"),
    "dot": lambda: Attending("dot"),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    return LAYERS[request.param]()


def run(layer, x, **options):
    """Return what a layer computes, its state included, and the gradients of x and the parameters."""
    with tr.enable_grad():
        x = x.detach()
        x.requires_grad = True
        for w in layer.parameters():
            w.grad = None
        y = layer(x, **options)
        out, state = y if isinstance(y, tuple) else (y, ())
        (out * out + tr.sigmoid(out)).mean().backward()
        return [out, *state], [w.grad for w in (x, *layer.parameters())]


def watched():
    """Return a list that fills with (name, dtypes of the operands, of the results), and the mode that fills it."""
    seen = []

    def listen(op, operands, params, result):
        results = result if isinstance(result, tuple) else (result,)
        dtypes = tuple(x.dtype for x in operands if isinstance(x, tr.Tensor))
        seen.append((op.name, dtypes, tuple(y.dtype for y in results)))

    return seen, changed_mode(listener=listen)


def close(found, expected, tolerance=16 * HALF):
    """See that arrays agree to within half precision's error, against the largest element."""
    for a, b in zip(found, expected, strict=True):
        a, b = a.numpy(), b.numpy()
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1e-3))


# ---------------------------------------------------------------- products in float16


def test_products_are_half_and_everything_else_is_not(backend, layer):
    seen, watching = watched()
    with tr.mixed_precision(), watching:
        outs, gradients = run(layer, tr.randn(7, 3, 6))
    assert {dtypes for name, *both in seen if name in ("matmul", "linear") for dtypes in both} == {
        ("float16", "float16"),
        ("float16",),
    }
    arranging = {"matmul", "astype", "split", "reshape", "transpose"}  # of weights, before they are multiplied
    assert {name for name, dtypes, results in seen if "float16" in (*dtypes, *results)} <= arranging
    assert {x.dtype for x in (*outs, *gradients, *layer.parameters())} == {"float32"}


def test_values_and_gradients_are_those_of_float32(backend, layer):
    x = tr.randn(7, 3, 6)
    expected = run(layer, x)
    with tr.mixed_precision():
        found = run(layer, x)
    for a, b in zip(found, expected, strict=True):
        close(a, b)
    assert found[0][0].tolist() != expected[0][0].tolist()


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "LSTM, peephole", "GRU", "GRU, reset before"])
def test_sequences_of_unequal_length(backend, kind):
    layer, x = LAYERS[kind](), tr.randn(7, 3, 6)
    expected = run(layer, x, lengths=[7, 4, 0])
    with tr.mixed_precision():
        found = run(layer, x, lengths=[7, 4, 0])
    for a, b in zip(found, expected, strict=True):
        close(a, b)


def test_it_may_begin_and_end(backend, layer):
    x = tr.randn(7, 3, 6)

    def numbers():
        return [y.tolist() for part in run(layer, x) for y in part]

    before = numbers()
    with tr.mixed_precision():
        half = numbers()
        with tr.mixed_precision("float32"):
            assert numbers() == before
        assert numbers() == half != before
        assert tr.mixed_precision("float32")(numbers)() == before
    assert numbers() == before
    assert tr.mixed_precision()(numbers)() == half


def test_backward_may_be_outside(backend):
    layer, x = nn.LSTM(6, 5), tr.randn(7, 3, 6)
    with tr.mixed_precision():
        inside = run(layer, x)[1][1:]
        y = layer(x)[0]
    for w in layer.parameters():
        w.grad = None
    (y * y + tr.sigmoid(y)).mean().backward()
    assert [w.grad.tolist() for w in layer.parameters()] == [g.tolist() for g in inside]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("float64", "float64", "float64"),
        ("float64", "float32", "float64"),
        ("float16", "float64", "float64"),
        ("float16", "float16", "float16"),
        ("int64", "int64", "int64"),
        ("int64", "float32", "float64"),
    ],
)
def test_other_types_are_left_alone(backend, a, b, expected):
    a, b = (tr.randn(3, 3) * 5).astype(a), (tr.randn(3, 3) * 5).astype(b)
    plain = [a @ b, tr.linear(a, b, b[0])]
    with tr.mixed_precision():
        mixed = [a @ b, tr.linear(a, b, b[0])]
    assert [y.dtype for y in mixed] == [expected] * 2
    assert [y.tolist() for y in mixed] == [y.tolist() for y in plain]


@pytest.mark.parametrize(
    ("a", "b"), [((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((4, 2, 3), (3, 5)), ((4, 2, 3), (4, 3, 5))]
)
def test_vectors_and_stacks(backend, a, b):
    a, b = tr.randn(*a, requires_grad=True), tr.randn(*b, requires_grad=True)
    with tr.mixed_precision():
        y = a @ b
        y.sum().backward()
    expected = tr.matmul(*(x.detach().astype("float16") for x in (a, b))).astype("float32")
    assert y.dtype == a.grad.dtype == b.grad.dtype == "float32"
    assert y.tolist() == expected.tolist()


def test_a_tensor_meets_plain_numbers_as_ever(backend):
    with tr.mixed_precision():
        assert (tr.ones(2, 2) @ [[1.0], [1.0]]).tolist() == [[2.0], [2.0]]
        with pytest.raises(ShapeError, match="single number; expected matrices"):
            tr.ones(2, 2) @ 3.0
        with pytest.raises(ShapeError, match=r"matmul: \(2, 3\) @ \(2, 2\)"):
            tr.ones(2, 3) @ tr.ones(2, 2)
        with pytest.raises(ShapeError, match=r"b \(1,\); expected b \(2,\)"):
            tr.linear(tr.ones(2, 3), tr.ones(3, 2), tr.ones(1))


def test_b_is_not_rounded(backend):
    W, b = tr.ones(2, 1, requires_grad=True), tr.full(1, 2049.0, requires_grad=True)  # float16 has 2048 and 2050
    with tr.mixed_precision():
        y = tr.linear(tr.zeros(3000, 2), W, b)
    assert y[0].item() == 2049
    y.sum().backward()
    assert b.grad.item() == 3000  # and float16 would have stopped counting at 2048


@pytest.mark.parametrize(
    ("make", "casts"),
    [
        (lambda: nn.LSTM(6, 5), 2 * 50 + 4),  # hₜ and hₜ W_h at each step; x, W_x, x W_x and W_h once
        (lambda: nn.LSTM(6, 5, weight_drop=0.5), 2 * 50 + 5),  # and the mask
        (lambda: nn.LSTM(6, 5, proj_size=3), 4 * 50 + 5),
        (lambda: nn.GRU(6, 5, reset_after=False), 4 * 50 + 4),
    ],
)
def test_a_weight_is_rounded_once_for_a_sequence(make, casts):
    seen, watching = watched()
    with tr.mixed_precision(), watching:
        make()(tr.randn(50, 3, 6))
    assert [name for name, *_ in seen].count("astype") == casts


def test_a_cell_of_ones_own(backend):
    class MyCell(nn.Cell):
        gates = ("h",)

        def step(self, z, state):
            return nn.RNNState(tr.tanh(z + state.h @ self.W_h))

    layer, x = nn.Recurrent(MyCell, 6, 5), tr.randn(7, 3, 6)
    expected = run(layer, x)
    with tr.mixed_precision():
        found = run(layer, x)
        assert isinstance(layer.cells[0].W_h, nn.Parameter)
        assert layer.cells[0].W_h.dtype == "float32"
    assert {y.dtype for part in found for y in part} == {"float32"}
    for a, b in zip(found, expected, strict=True):
        close(a, b)


@pytest.mark.parametrize("fusion", [True, False])
@pytest.mark.parametrize("make", [lambda: nn.LSTM(6, 5, bidirectional=True), lambda: nn.GRU(6, 5)])
def test_second_derivatives(backend, make, fusion):
    layer, x = make(), tr.randn(5, 3, 6, requires_grad=True)

    def steepness():
        y = tr.sum(layer(x, lengths=[5, 2, 4])[0] ** 2)
        slope = tr.grad(y, x, create_graph=True)
        return tr.grad((slope**2).sum(), [x, *layer.parameters()])

    expected = steepness()
    with tr.mixed_precision(), tr.fusion(fusion):
        found = steepness()
    assert {g.dtype for g in found} == {"float32"}
    close(found, expected)


def test_captured(backend):
    layer, x = nn.LSTM(6, 5, 2, bidirectional=True), tr.randn(7, 3, 6)

    def gradients(x):
        y, state = layer(x)
        (y * y).mean().backward()
        return y, state.c

    step = tr.capture(gradients, layer)

    def numbers(function):
        for w in layer.parameters():
            w.grad = None
        return [y.tolist() for y in (*function(x), *(w.grad for w in layer.parameters()))]

    plain = numbers(gradients)
    with tr.mixed_precision():
        mixed = numbers(gradients)
    for _ in range(2):  # each mode has a program of its own
        assert numbers(step) == plain
        with tr.mixed_precision():
            assert numbers(step) == mixed
    assert len(step.programs) == 2


@pytest.mark.parametrize("dtype", ["float64", "int8", "bool"])
def test_a_type_that_is_no_help_is_refused(dtype):
    with pytest.raises(DTypeError, match=f"mixed_precision: dtype is {dtype}; expected 'float16', or 'float32'"):
        tr.mixed_precision(dtype)


@pytest.mark.parametrize(
    ("step", "dtypes", "widths", "results"),
    [
        (lambda z, r: cells.rnn_step(z, r, "tanh"), "hh", (5, 5), "h"),
        (lambda z, r: cells.rnn_step(z, r, "relu"), "fh", (5, 5), "f"),
        (cells.lstm_step, "hhf", (20, 20, 5), "ff"),
        (cells.lstm_step, "fhf", (20, 20, 5), "ff"),
        (cells.lstm_step, "hhfff", (20, 20, 5, 0, 0, 0), "ff"),
        (cells.gru_step, "hhf", (15, 15, 5), "f"),
        (cells.gru_step, "fhff", (15, 15, 5, 0), "f"),
    ],
)
def test_kernels_of_half_and_single_operands(step, dtypes, widths, results):
    """No layer gives its step float16, but someone's own code may: then the kernel promotes as the operations do."""
    names = {"h": "float16", "f": "float32"}
    dtypes = (dtypes + "fff")[: len(widths)]
    operands = [
        tr.randn(*((4, n) if n else (5,)), requires_grad=True).detach().astype(names[d])
        for n, d in zip(widths, dtypes, strict=True)
    ]
    found = []
    for fusion in (True, False):
        for x in operands:
            x.requires_grad = False
            x.requires_grad = True
        with tr.fusion(fusion):
            ys = step(*operands)
            ys = ys if isinstance(ys, tuple) else (ys,)
            assert [y.dtype for y in ys] == [names[d] for d in results]
            sum((y * y).astype("float32").sum() for y in ys).backward()
        assert [x.grad.dtype for x in operands] == [names[d] for d in dtypes]
        found.append([*ys, *(x.grad for x in operands)])
    close(*found)


def test_numba_leaves_half_precision_to_numpy():
    z, r, c = tr.randn(4, 20).astype("float16"), tr.randn(4, 20).astype("float16"), tr.randn(4, 5)
    cells.lstm_step(z, r, c)
    kernels = cells.lstm_step.latest.kernels
    assert len(kernels) == 2
    assert not any(kernel_numba.supports(kernel) for kernel in kernels)


# ---------------------------------------------------------------- the scale of the loss


OPTIMISERS = {
    "SGD": lambda ws: optim.SGD(ws, 0.1),
    "momentum": lambda ws: optim.SGD(ws, 0.1, momentum=0.9),
    "Adagrad": lambda ws: optim.Adagrad(ws, 0.1),
    "RMSProp": lambda ws: optim.RMSProp(ws, 0.1),
    "Adam": lambda ws: optim.Adam(ws, 0.1),
    "AdamW": lambda ws: optim.AdamW(ws, optim.Cosine(0.1, 50)),
}


def parameters():
    return [tr.randn(3, requires_grad=True), nn.Parameter(tr.randn(2, 2))]


def descend(scaler, poison=None):
    """Do one step down a bowl; `poison` is put into one element of the scaled gradient."""
    scaler.optimizer.zero_grad()
    for w in scaler.optimizer.parameters:
        scaler.scale((w * w * w + w * w).sum()).backward()
    if poison is not None:
        w = scaler.optimizer.parameters[-1]
        w.grad = w.grad * tr.tensor([[1.0, 1.0], [1.0, 0.0]]) + tr.tensor([[0.0, 0.0], [0.0, poison]])
    scaler.step()


def held(optimizer):
    """Return the bits of all that an optimiser may change."""
    tensors = [*optimizer.parameters, *itertools.chain(*optimizer.memory.values())]
    return [x.numpy().tobytes() for x in tensors]


@pytest.fixture(params=OPTIMISERS)
def make(request):
    return OPTIMISERS[request.param]


def test_with_finite_gradients_it_is_the_optimiser_alone(backend, make):
    ws = parameters()
    plain, scaler = make([nn.Parameter(w) for w in ws]), optim.LossScaler(make(ws))
    for _ in range(5):
        descend(scaler)
        plain.zero_grad()
        for w in plain.parameters:
            (w * w * w + w * w).sum().backward()
        plain.step()
        assert held(plain) == held(scaler.optimizer)  # a power of two costs no digit
    assert repr(scaler) == "LossScaler(loss_scale=65536.0, good=5, skipped=0)"
    assert all(isinstance(w, tr.Tensor) and w.requires_grad and w.node.op is None for w in ws)


@pytest.mark.parametrize("poison", [math.inf, -math.inf, math.nan])
def test_a_step_that_is_not_finite_changes_nothing(backend, make, poison):
    scaler = optim.LossScaler(make(parameters()), initial=1024.0)
    optimizer = scaler.optimizer
    for skipped in (0, 1):  # at the very first step, and later
        before = held(optimizer)
        descend(scaler, poison)
        assert held(optimizer) == before
        assert [x.item() for x in scaler.state_dict().values()] == [1024.0 / 2 ** (skipped + 1), 0, skipped + 1]
        assert not math.isfinite(optimizer.parameters[-1].grad.numpy()[1, 1])  # for whoever wants to look
        descend(scaler)
        assert held(optimizer) != before
        assert scaler.good.item() == 1
    assert optimizer.steps == 4


def test_a_scale_that_is_too_large_makes_infinite_gradients(backend):
    layer, x = nn.LSTM(6, 5), tr.randn(4, 3, 6)
    scaler = optim.LossScaler(optim.Adam(layer.parameters(), 0.1), initial=2.0**40)
    before, scales = held(scaler.optimizer), []
    with np.errstate(over="ignore", invalid="ignore"):  # NumPy tells of each overflow; a device does not
        while scaler.good.item() == 0:
            assert held(scaler.optimizer) == before
            scales.append(scaler.loss_scale.item())
            scaler.optimizer.zero_grad()
            with tr.mixed_precision():
                loss = (layer(x)[0] ** 2).sum()
            scaler.scale(loss).backward()
            scaler.step()
    assert scales == [2.0 ** (40 - n) for n in range(len(scales))]
    assert 10 < len(scales) < 40
    assert held(scaler.optimizer) != before


def test_gradients_that_half_precision_loses_survive(backend):
    x, W = tr.randn(8, 4), nn.Parameter(tr.randn(4, 2))
    scaler = optim.LossScaler(optim.SGD([W], 1.0))

    def loss():
        with tr.mixed_precision():
            return 1e-9 * (x @ W).sum()

    loss().backward()
    assert not W.grad.numpy().any()  # 1e-9 is 0 in float16
    scaler.optimizer.zero_grad()
    scaler.scale(loss()).backward()
    scaler.unscale()
    expected = 1e-9 * np.broadcast_to(x.numpy().sum(0)[:, None], (4, 2))
    np.testing.assert_allclose(W.grad.numpy(), expected, rtol=1e-2, atol=1e-12)


def test_the_scale_grows_after_good_steps_in_a_row(backend):
    scaler = optim.LossScaler(optim.SGD(parameters(), 1e-3), initial=8.0, interval=3)
    scales = []
    for k in range(14):
        descend(scaler, math.inf if k == 4 else None)
        scales.append(scaler.loss_scale.item())
    assert scales == [8, 8, 16, 16, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64]
    assert all(math.frexp(s)[0] == 0.5 for s in scales)  # powers of 2
    assert (scaler.good.item(), scaler.skipped.item()) == (0, 1)


def test_the_scale_stays_in_the_range_of_float32(backend):
    scaler = optim.LossScaler(optim.SGD([tr.zeros(2, requires_grad=True)]), initial=2.0**126, interval=1)
    for _ in range(3):
        scaler.optimizer.parameters[0].grad = tr.zeros(2)
        with np.errstate(over="ignore"):
            scaler.step()
    assert scaler.loss_scale.item() == 2.0**127


def test_clipping_between_unscaling_and_the_step(backend):
    ws = parameters()
    plain, scaler = optim.SGD([nn.Parameter(w) for w in ws], 1.0), optim.LossScaler(optim.SGD(ws, 1.0))
    for w, v in zip(plain.parameters, ws, strict=True):
        (w * w).sum().backward()
        scaler.scale((v * v).sum()).backward()
    scaler.unscale()
    norms = [optim.clip_grad_norm(parameters, 0.5).item() for parameters in (plain.parameters, ws)]
    scaler.unscale()  # a second call changes nothing
    plain.step()
    scaler.step()
    assert norms[0] == norms[1] > 0.5
    assert held(plain) == held(scaler.optimizer)


def test_a_gradient_that_clipping_has_spoiled_is_passed_over(backend):
    scaler = optim.LossScaler(optim.Adam(parameters()))
    before = held(scaler.optimizer)
    for w in scaler.optimizer.parameters:
        scaler.scale((w * w).sum()).backward()
    w.grad = w.grad * math.inf
    scaler.unscale()
    with np.errstate(invalid="ignore"):
        assert optim.clip_grad_norm(scaler.optimizer.parameters, 1.0).item() == math.inf
    scaler.step()
    assert held(scaler.optimizer) == before


def test_a_step_that_is_passed_over_computes_nothing_strange(backend):
    scaler = optim.LossScaler(optim.Adam(parameters()))
    with tr.detect_anomaly():
        descend(scaler, math.nan)
        descend(scaler)
    assert scaler.skipped.item() == 1


def test_a_parameter_without_a_gradient_is_passed_over(backend):
    used, unused = parameters()
    scaler = optim.LossScaler(optim.Adam([used, unused]))
    before, version = unused.tolist(), unused.version
    scaler.scale((used * used).sum()).backward()
    scaler.step()
    assert (unused.tolist(), unused.version, unused.grad) == (before, version, None)


def test_float64_parameters(backend):
    w = tr.tensor([1.0, 2.0], "float64", requires_grad=True)
    scaler = optim.LossScaler(optim.SGD([w], 0.1))
    scaler.scale((w * w).sum()).backward()
    scaler.step()
    assert w.dtype == w.grad.dtype == "float64"
    np.testing.assert_allclose(w.numpy(), [0.8, 1.6], rtol=1e-15)


def test_nothing_is_read_by_the_host(monkeypatch):
    reads = []
    to_host = StrictBackend.to_host
    monkeypatch.setattr(StrictBackend, "to_host", lambda self, array: reads.append(array) or to_host(self, array))
    with tr.use_backend("strict"):
        layer, x = nn.GRU(6, 5), tr.randn(4, 3, 6)
        scaler = optim.LossScaler(optim.AdamW(layer.parameters()), interval=1)
        reads.clear()
        for poison in (1.0, math.inf, 1.0):
            scaler.optimizer.zero_grad()
            with tr.mixed_precision(), np.errstate(all="ignore"):
                scaler.scale((layer(x)[0] ** 2).mean() * poison).backward()
                scaler.unscale()
                optim.clip_grad_norm(layer.parameters(), 1.0)
                scaler.step()
        assert not reads
        assert (scaler.loss_scale.item(), scaler.skipped.item()) == (2.0**17, 1)
        assert len(reads) == 2


def test_a_captured_step_reads_the_scale(backend):
    layer, x = nn.Linear(3, 2), tr.randn(4, 3)
    scaler = optim.LossScaler(optim.SGD(layer.parameters(), 0.1), initial=4.0, interval=1)

    def gradients(x):
        with tr.mixed_precision():
            loss = (layer(x) ** 2).sum()
        scaler.scale(loss).backward()
        return loss

    step = tr.capture(gradients, layer, scaler.loss_scale)
    for k in range(4):
        found = []
        for function in (gradients, step):
            scaler.optimizer.zero_grad()
            function(x)
            found.append(layer.W.grad.tolist())
        assert found[0] == found[1]
        scaler.step()
        assert scaler.loss_scale.item() == 4.0 * 2 ** (k + 1)
        scaler.load_state_dict(scaler.state_dict())  # it stays the tensor that the program knows
    assert len(step.programs) == 1


# ---------------------------------------------------------------- state


def test_a_state_goes_through_a_checkpoint(backend, tmp_path):
    scaler = optim.LossScaler(optim.Adam(parameters()), interval=3)
    for k in range(5):
        descend(scaler, math.inf if k == 1 else None)
    state = scaler.state_dict()
    checkpoint.save(tmp_path / "run.safetensors", {"scaler": state, "optimizer": scaler.optimizer.state_dict()})
    saved = checkpoint.load(tmp_path / "run.safetensors")
    again = optim.LossScaler(
        optim.Adam([nn.Parameter(w.detach()) for w in scaler.optimizer.parameters]), interval=3, initial=1.0
    )
    again.optimizer.load_state_dict(saved["optimizer"])
    again.load_state_dict(saved["scaler"])
    for k in range(5):
        for one in (scaler, again):
            descend(one, math.nan if k == 3 else None)
        assert held(one.optimizer) == held(scaler.optimizer)
        assert repr(one) == repr(scaler)
    assert {name: x.item() for name, x in state.items()} == {"loss_scale": 65536.0, "good": 0, "skipped": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, r"has \['extra', 'good', 'loss_scale', 'skipped'\]; expected loss_scale, good, skipped"),
        ({"loss_scale": 0.0}, "expected a positive loss_scale, and counts"),
        ({"loss_scale": math.nan}, "nan"),
        ({"loss_scale": "large"}, "large"),
        ({"good": -1}, "-1"),
        ({"skipped": None}, "None"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change, message):
    scaler = optim.LossScaler(optim.SGD(parameters()))
    with pytest.raises(StateDictError, match=message):
        scaler.load_state_dict(scaler.state_dict() | change)
    assert repr(scaler) == "LossScaler(loss_scale=65536.0, good=0, skipped=0)"


def test_a_model_that_moved_meets_a_scale_that_did_not():
    layer = nn.Linear(3, 2)
    scaler = optim.LossScaler(optim.SGD(layer.parameters()))
    layer.to("strict")
    with tr.use_backend("strict"):
        loss = layer(tr.ones(1, 3)).sum()
        with pytest.raises(BackendError, match="numpy and strict"):
            scaler.scale(loss)
        scaler.load_state_dict(scaler.state_dict())
        scaler.scale(loss).backward()
        scaler.step()


# ---------------------------------------------------------------- mistakes


def test_scaled_gradients_are_not_added_to_unscaled_ones(backend):
    ws = parameters()
    scaler = optim.LossScaler(optim.SGD(ws))
    for _ in range(2):  # two parts of a batch, one step
        scaler.scale(ws[0].sum()).backward()
    scaler.unscale()
    assert ws[0].grad.tolist() == [2.0] * 3
    with pytest.raises(GraphError, match=r"call step\(\), or optimizer\.zero_grad\(\)"):
        scaler.scale(ws[0].sum())
    scaler.optimizer.zero_grad()  # the step is given up
    scaler.scale(ws[0].sum()).backward()
    scaler.unscale()
    assert ws[0].grad.tolist() == [1.0] * 3


def test_a_step_without_gradients_is_refused():
    scaler = optim.LossScaler(optim.SGD(parameters()))
    with pytest.raises(ValueError, match=r"call scaler\.scale\(loss\)\.backward\(\) first"):
        scaler.step()
    assert scaler.optimizer.steps == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial": 0}, "initial is 0; expected a number over 0 and under inf"),
        ({"initial": math.inf}, "initial is inf"),
        ({"initial": "large"}, "initial is 'large'"),
        ({"growth": 1}, "growth is 1; expected a number over 1"),
        ({"backoff": 1.0}, r"backoff is 1\.0; expected a number over 0 and under 1"),
        ({"backoff": math.nan}, "backoff is nan"),
        ({"interval": 0}, "interval is 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^LossScaler: {message}"):
        optim.LossScaler(optim.SGD(parameters()), **options)


def test_what_is_no_optimiser_of_float32_is_refused():
    with pytest.raises(DTypeError, match="given Linear; expected an optimiser"):
        optim.LossScaler(nn.Linear(1, 1))
    with pytest.raises(DTypeError, match=r"a parameter is float16, too coarse .* expected float32"):
        optim.LossScaler(optim.SGD([tr.zeros(2, dtype="float16", requires_grad=True)]))


# ---------------------------------------------------------------- PyTorch, and a whole run


@pytest.mark.oracle
@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.sampled_from([1.0, 1.0, 1.0, math.inf, math.nan]), min_size=1, max_size=40),
    initial=st.sampled_from([1.0, 65536.0, 1000.0, 2.0**126]),
    growth=st.sampled_from([2.0, 1.5]),
    backoff=st.sampled_from([0.5, 0.25]),
    interval=st.integers(1, 5),
)
def test_the_scales_are_pytorchs(steps, initial, growth, backoff, interval):
    torch = pytest.importorskip("torch")
    theirs = torch.amp.GradScaler(
        "cpu", init_scale=initial, growth_factor=growth, backoff_factor=backoff, growth_interval=interval
    )
    v = torch.zeros(2, requires_grad=True)
    sgd = torch.optim.SGD([v], lr=0.1)
    w = tr.zeros(2, requires_grad=True)
    ours = optim.LossScaler(optim.SGD([w], 0.1), initial, growth, backoff, interval)
    for g in steps:
        theirs.scale(torch.zeros(1))  # which makes its scale
        v.grad = torch.tensor([1.0, g])
        theirs.step(sgd)
        theirs.update()
        w.grad = tr.tensor([1.0, g])
        with np.errstate(over="ignore"):
            ours.step()
        assert ours.loss_scale.item() == theirs.get_scale()
    np.testing.assert_allclose(w.numpy(), v.detach().numpy(), rtol=1e-6)


def test_the_character_model_learns_as_in_float32():
    text = data.numpy_docs()[:20_000]
    vocabulary = data.Vocabulary.of(text)
    windows = data.Streams(vocabulary.encode(text), 8, 16)
    losses = []
    for dtype in ("float32", "float16"):
        tr.manual_seed(0)
        model = char_rnn.CharRNN(len(vocabulary), "lstm", 24, 2, 0.0)
        scaler, state, run = optim.LossScaler(optim.Adam(model.parameters(), 1e-2)), None, []

        def gradients(x, y, state, model=model, scaler=scaler, dtype=dtype):
            with tr.mixed_precision(dtype):
                logits, state = model(x, state)
                loss = tr.cross_entropy(logits, y)
            scaler.scale(loss).backward()
            return loss, tr.detach(state)

        learn = tr.capture(gradients, model, scaler.loss_scale)
        for x, y in itertools.islice(windows, 30):
            scaler.optimizer.zero_grad()
            loss, state = learn(x, y, state)
            scaler.unscale()
            optim.clip_grad_norm(model.parameters(), 5.0)
            scaler.step()
            run.append(loss.item())
        assert scaler.skipped.item() == 0
        losses.append(run)
    single, half = losses
    assert half[-1] < 0.85 * half[0]
    np.testing.assert_allclose(half, single, rtol=2e-2)
    assert half != single
