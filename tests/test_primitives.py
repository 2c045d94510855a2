"""One table of everything that can be differentiated: against finite differences, against NumPy, and complete."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import backends
from tinyrnn import primitives as p
from tinyrnn.autograd import changed_mode
from tinyrnn.backends import Backend
from tinyrnn.tensor import Tensor

# ---------------------------------------------------------------- what the rows of the table are read with

INTERNAL = {"sign", "scatter", "accumulate"}  # called by rules and by the walk alone
NOT_OPERATIONS = {
    "apply",
    "arange",
    "detach",
    "from_dlpack",
    "full",
    "grad",
    "manual_seed",
    "ones",
    "randn",
    "tensor",
    "uniform",
    "zeros",
}
OPERATIONS = {
    name
    for name in tr.__all__
    if inspect.isfunction(f := getattr(tr, name)) and f.__module__ in ("tinyrnn.functions", "tinyrnn.tensor")
} - NOT_OPERATIONS


def _other(backend: Backend) -> Backend:
    """Return where `to` goes from a backend: away from that of the test, and back."""
    here = backends.current()
    return here if backend is not here else backends.get("strict" if here.name == "numpy" else "numpy")


tiny = SimpleNamespace(
    **{name: getattr(tr, name) for name in OPERATIONS | {"tensor"}},
    **{name: partial(tr.apply, p.registry[name]) for name in INTERNAL},
    recast=partial(tr.apply, p.astype),  # to the dtype it has, for which x.astype does nothing
    to=lambda x: x.to(_other(x.backend)),
)


def _logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims))


def _log_softmax(x: Any, axis: int = -1) -> Any:
    return x - _logsumexp(x, axis, keepdims=True)


def _reduced(losses: Any, reduction: str, count: int) -> Any:
    return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / count}[reduction]


def _cross_entropy(x: Any, t: Any, ignore_index: int | None = None, reduction: str = "mean") -> Any:
    counted = np.ones(t.shape, bool) if ignore_index is None else t != ignore_index
    picked = np.take_along_axis(_log_softmax(x), np.where(counted, t, 0)[..., None], -1)[..., 0]
    return _reduced(np.where(counted, -picked, 0), reduction, int(counted.sum()))


def _scatter(*gs: Any, indices: Any, shape: Any) -> Any:
    y = np.zeros(shape, gs[0].dtype)
    for g, index in zip(gs, indices, strict=True):
        np.add.at(y, index, g)
    return y


def _dropout(x: Any, p: float, training: bool = True, generator: Any = None) -> Any:
    return x * (generator.uniform(x.shape, tr.DType.of(x.dtype)) >= p) / (1 - p) if training else x


def _scheduled_sampling(target: Any, own: Any, p: float, generator: Any) -> Any:
    draw = generator.uniform((len(target),), tr.float32)
    return np.stack([own[b] if draw[b] < p else target[b] for b in range(len(target))])


def _layer_norm(x: Any, weight: Any = 1, bias: Any = 0, eps: float = 1e-5) -> Any:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


numpy = SimpleNamespace(
    **{name: getattr(np, name) for name in sorted(OPERATIONS | {"sign"}) if hasattr(np, name)},
    accumulate=lambda *xs: sum(xs),
    binary_cross_entropy=lambda x, t, reduction="mean": _reduced(np.logaddexp(0, x) - x * t, reduction, x.size),
    cross_entropy=_cross_entropy,
    dropout=_dropout,
    gelu=lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    layer_norm=_layer_norm,
    linear=lambda x, W, b: x @ W + b,
    log_softmax=_log_softmax,
    logsumexp=_logsumexp,
    mse_loss=lambda x, t, reduction="mean": _reduced((x - t) ** 2, reduction, x.size),
    one_hot=lambda index, n: np.eye(n, dtype="float32")[index],
    recast=lambda x, dtype: x.astype(dtype),
    relu=lambda x: x * (x > 0),
    scatter=_scatter,
    scheduled_sampling=_scheduled_sampling,
    sigmoid=lambda x: 1 / (1 + np.exp(-x)),
    softmax=lambda x, axis=-1: np.exp(_log_softmax(x, axis)),
    tensor=np.asarray,
    to=lambda x: x,
)
numpy.unstack = lambda x, axis=0: list(np.moveaxis(x, axis, 0))  # NumPy's own is younger than 2.0
numpy.pad = lambda x, width, value=0.0: np.pad(x, width, constant_values=value)


# ---------------------------------------------------------------- the table


class Positive(tuple[int, ...]):
    """A shape whose elements are to be positive."""


@dataclass(frozen=True)
class Row:
    """A call f(m, *inputs), where m stands for tinyrnn, NumPy or PyTorch."""

    name: str
    f: Callable[..., Any]
    inputs: tuple[Any, ...]  # shapes to fill with numbers, or arrays
    order: int  # of the derivatives to check; 0 for none
    torch: bool  # whether PyTorch reads the call as NumPy does

    def arrays(self, *dtypes: str) -> list[Any]:
        """The inputs as NumPy arrays, whose dtypes are the given ones in turn."""
        drawn = []
        for i, x in enumerate(self.inputs):
            if isinstance(x, tuple):
                values = np.random.default_rng(i).normal(size=x)
                x = np.abs(values) + 0.5 if isinstance(x, Positive) else values
            drawn.append(np.asarray(x, dtypes[i % len(dtypes)]))
        return drawn

    def tensors(self, *dtypes: str) -> list[Tensor]:
        return [tr.tensor(x, requires_grad=True) for x in self.arrays(*dtypes)]

    def __call__(self, m: Any, xs: Any) -> list[Any]:
        """Return the results as a list, also of a single one."""
        y = self.f(m, *xs)
        return list(y) if isinstance(y, tuple | list) else [y]


def row(name: str, f: Callable[..., Any], *inputs: Any, order: int = 2, torch: bool = True) -> Row:
    return Row(name, f, inputs, order, torch)


MASK = np.array([[True, False, True], [False, False, True]])
ROWS = np.array([0, 2, 2, -1, 0])  # repeated, and counted from the end
CLASSES = np.array([[0, 3], [1, 1], [2, 0]])
TIES = [[1.0, 3.0, 3.0], [2.0, 2.0, 0.0]]  # two by two: there the central difference is the mean of both sides
INDICES = [
    1,
    -1,
    (1, -2),
    np.int64(2),
    ...,
    None,
    (..., 0),
    (None, slice(1, 3), ..., None),
    (0, ..., None, -1),
    ROWS,
    [2, 0, 2],
    [],
    ROWS.reshape(5, 1),
    (ROWS, ROWS % 2),
    (slice(None), [3, 0, 3]),
    ([1, 2, 1], None, [0, 0, -1]),
    (..., [0, 1, 0]),
    (np.array([[0], [2]]), [1, 3]),
    np.arange(24).reshape(3, 4, 2) % 5 == 0,
    np.array([True, False, True]),
    (slice(None), np.array([True, False, True, True]), 0),
    ([0, 2], np.arange(8).reshape(4, 2) == 3),
]
NUMPYS_INDICES = [  # PyTorch has no negative steps, and puts the array's axis in the last one second
    slice(None, None, -1),
    (slice(1, None), slice(None, None, -2)),
    (slice(None), [3, 0], slice(None, None, -1)),
    (0, slice(None), [1, 0, 1]),
]

TABLE = [
    # ------------------------------------------------ operators
    row("add", lambda m, a, b: a + b, (2, 3), (2, 3)),
    row("add", lambda m, a, b: a + b, (4, 1, 3), (2, 1)),
    row("add", lambda m, a, b: a + b, (), (2,)),
    row("add", lambda m, x: 2 + x + 0.5, (3,)),
    row("subtract", lambda m, a, b: a - b, (2, 3), (3,)),
    row("subtract", lambda m, a, b: a - b, (1, 1), (2, 3)),
    row("subtract", lambda m, x: (1 - x) - 2, (3,)),
    row("multiply", lambda m, a, b: a * b, (2, 3), (2, 3)),
    row("multiply", lambda m, a, b: a * b, (2, 1, 3), (4, 1)),
    row("multiply", lambda m, x: 3 * x * x, ()),
    row("divide", lambda m, a, b: a / b, (2, 3), Positive((3,))),
    row("divide", lambda m, a, b: a / b, (), Positive((2, 1))),
    row("divide", lambda m, x: 1 / x / 2, Positive((3,))),
    row("negative", lambda m, x: -x, (2, 3)),
    row("power", lambda m, a, b: a**b, Positive((2, 3)), (3,)),
    row("power", lambda m, a, b: a**b, Positive((2, 1)), (3,)),
    row("power", lambda m, x: x**3, (3,)),
    row("power", lambda m, x: x**2 + x**1 + x**0, [-1.0, 0.0, 2.0]),
    row("power", lambda m, x: x**-1.5, Positive((3,))),
    row("power", lambda m, x: 2**x + 0.5**x, (2, 3)),
    row("linear", lambda m, x, W, b: m.linear(x, W, b), (2, 3), (3, 4), (4,)),
    row("linear", lambda m, x, W, b: m.linear(x, W, b), (5, 2, 3), (3, 4), (4,)),
    row("matmul", lambda m, a, b: a @ b, (2, 3), (3, 4)),
    row("matmul", lambda m, a, b: m.matmul(a, b), (5, 2, 3), (3, 4)),
    row("matmul", lambda m, a, b: a @ b, (2, 3), (5, 3, 4)),
    row("matmul", lambda m, a, b: a @ b, (2, 1, 2, 3), (5, 3, 1)),
    row("matmul", lambda m, a, b: a @ b, (3,), (3,)),
    row("matmul", lambda m, a, b: a @ b, (3,), (3, 2)),
    row("matmul", lambda m, a, b: a @ b, (2, 3), (3,)),
    row("matmul", lambda m, a, b: a @ b, (3,), (2, 3, 1)),
    row("matmul", lambda m, a, b: a @ b, (2, 4, 3), (3,)),
    row("equal", lambda m, a, b: a == b, [1.0, 2.0], [1.0, 3.0], order=0),
    row("not_equal", lambda m, a, b: a != b, [1.0, 2.0], [1.0, 3.0], order=0),
    row("less", lambda m, a, b: a < b, (2, 3), (3,), order=0),
    row("less_equal", lambda m, a, b: a <= b, [1.0, 2.0, 3.0], [2.0], order=0),
    row("greater", lambda m, a, b: a > b, (2, 1), (3,), order=0),
    row("greater_equal", lambda m, x: x >= 2, [1.0, 2.0, 3.0], order=0),
    row("logical_and", lambda m, x: (x > -1) & (x < 1), (2, 3), order=0),
    row("logical_or", lambda m, x: (x < -1) | (x > 1), (2, 3), order=0),
    row("logical_not", lambda m, x: ~(x > 0), (2, 3), order=0),
    *[row("getitem", lambda m, x, index=index: x[index], (3, 4, 2)) for index in INDICES],
    *[row("getitem", lambda m, x, index=index: x[index], (3, 4, 2), torch=False) for index in NUMPYS_INDICES],
    row("getitem", lambda m, x: x[m.tensor([1, 0, 1])], (2, 3)),
    row("getitem", lambda m, x: x[()], ()),
    row("getitem", lambda m, x: x[1] * x[::2] + x[0], (3, 2)),
    # ------------------------------------------------ elementwise
    row("exp", lambda m, x: m.exp(x), (2, 3)),
    row("log", lambda m, x: m.log(x), Positive((2, 3))),
    row("sqrt", lambda m, x: m.sqrt(x), Positive((2, 3))),
    row("tanh", lambda m, x: m.tanh(x), (2, 3)),
    row("sigmoid", lambda m, x: m.sigmoid(x), (2, 3)),
    row("sigmoid", lambda m, x: m.sigmoid(x), ()),
    row("relu", lambda m, x: m.relu(x), (2, 3)),
    row("gelu", lambda m, x: m.gelu(x), (2, 3)),
    row("abs", lambda m, x: m.abs(x) * abs(x), (2, 3)),
    row("sign", lambda m, x: m.sign(x), [-2.0, 0.0, 3.0], order=0),
    row("maximum", lambda m, a, b: m.maximum(a, b), (2, 3), (2, 3)),
    row("maximum", lambda m, a, b: m.maximum(a, b), (2, 1), (3,)),
    row("maximum", lambda m, x: m.maximum(x, 0.1), (2, 3)),
    row("maximum", lambda m, a, b: m.maximum(a, b), [1.0, 2.0], [1.0, 3.0], order=1),
    row("minimum", lambda m, a, b: m.minimum(a, b), (2, 3), (3,)),
    row("minimum", lambda m, x: m.minimum(0, x), (2, 3)),
    row("minimum", lambda m, a, b: m.minimum(a, b), [1.0, 2.0], [1.0, 3.0], order=1),
    row("clip", lambda m, x: m.clip(x, -0.5, 0.5), (2, 3)),
    row("clip", lambda m, x: m.clip(x, 0, None), (2, 3)),
    row("clip", lambda m, x: x.clip(None, 0.1), (2, 3)),
    row("where", lambda m, a, b: m.where(m.tensor(MASK), a, b), (2, 3), (2, 3)),
    row("where", lambda m, a, b: m.where(m.tensor(MASK), a, b), (2, 1), (1, 3)),
    row("where", lambda m, a, b: m.where(m.tensor(True), a, b), (2, 1), (3,)),
    row("where", lambda m, x: m.where(x > 0, x * x, 2.0), (2, 3)),
    row("where", lambda m, x: m.where(x > 0, 1, x * x), (2, 3)),
    row("astype", lambda m, x: m.recast(x, dtype=tr.float64), (2, 3)),
    row("astype", lambda m, x: x.astype("float32"), (2, 3), order=0),  # in which 1e-6 is no step
    row("astype", lambda m, x: x.astype("int64"), (2, 3), order=0),
    row("to", lambda m, x: m.to(m.to(x * x) * 2) * x, (2, 3)),
    row("isfinite", lambda m, x: m.isfinite(x), [1.0, math.inf, math.nan], order=0),
    row("dropout", lambda m, x: m.dropout(x, 0.4, generator=tr.Generator(1)), (4, 5)),
    row("dropout", lambda m, x: m.dropout(x, 0.4, training=False), (2, 3)),
    row("scheduled_sampling", lambda m, x, y: m.scheduled_sampling(x, y, 0.5, tr.Generator(1)), (4, 3), (4, 3)),
    row("scheduled_sampling", lambda m, x, y: m.scheduled_sampling(x, y, 0.3, tr.Generator(1)), (6,), (6,)),
    # ------------------------------------------------ reductions
    *[
        row(name, lambda m, x, name=name, options=options: getattr(m, name)(x, **options), shape)
        for name in ("sum", "mean", "var", "max", "min", "logsumexp")
        for shape, options in (
            ((2, 3), {}),
            ((), {}),
            ((1,), {"axis": 0}),
            ((2, 1, 3), {"axis": 1}),
            ((2, 3), {"axis": -1, "keepdims": True}),
            ((2, 3), {"keepdims": True}),
            ((2, 3, 2), {"axis": (0, -1)}),
            ((2, 3, 2), {"axis": (-1, 1), "keepdims": True}),
        )
    ],
    row("max", lambda m, x: m.max(x, axis=1), TIES, order=1),
    row("min", lambda m, x: m.min(-x, axis=-1, keepdims=True), TIES, order=1),
    row("argmax", lambda m, x: m.argmax(x), (2, 3), order=0),
    row("argmax", lambda m, x: m.argmax(x, axis=-1, keepdims=True), TIES, order=0),
    row("argmax", lambda m, x: x.argmax(0), (3, 1), order=0),
    # ------------------------------------------------ shape
    row("reshape", lambda m, x: m.reshape(x, (3, -1)), (2, 3)),
    row("reshape", lambda m, x: x.reshape(6) * x.reshape((2, 3, 1)), (2, 3, 1)),
    row("reshape", lambda m, x: m.reshape(x, ()), (1, 1)),
    row("transpose", lambda m, x: m.transpose(x), (2, 3)),
    row("transpose", lambda m, x: m.transpose(x, (2, 0, 1)) * 2, (2, 3, 4)),
    row("transpose", lambda m, x: x.transpose(-1, 0, 1), (2, 3, 4), torch=False),  # there it swaps two axes
    row("transpose", lambda m, x: x.T, (2, 3)),
    row("swapaxes", lambda m, x: m.swapaxes(x, 0, -1), (2, 3, 4)),
    row("broadcast_to", lambda m, x: m.broadcast_to(x, (2, 3, 4)), (3, 1)),
    row("broadcast_to", lambda m, x: m.broadcast_to(x, (2, 1)), ()),
    row("broadcast_to", lambda m, x: m.broadcast_to(x, 3), (1,)),
    row("squeeze", lambda m, x: m.squeeze(x), (1, 2, 1)),
    row("squeeze", lambda m, x: m.squeeze(x, axis=(0, -1)), (1, 2, 1, 1)),
    row("squeeze", lambda m, x: x.squeeze(1), (2, 1)),
    row("expand_dims", lambda m, x: m.expand_dims(x, 1), (2, 3)),
    row("expand_dims", lambda m, x: m.expand_dims(x, -1), ()),
    row("concatenate", lambda m, a, b: m.concatenate([a, b, a]), (2, 3), (1, 3)),
    row("concatenate", lambda m, a, b: m.concatenate([a, b], axis=-1), (2, 1), (2, 3)),
    row("stack", lambda m, a, b: m.stack([a, b, a]), (), ()),
    row("stack", lambda m, a, b: m.stack([a, b], axis=-2), (2, 3), (2, 3)),
    row("unstack", lambda m, x: m.stack(m.unstack(x)[::-1]), (3, 2)),
    row("unstack", lambda m, x: m.unstack(x, axis=-1)[1], (2, 3)),
    row("unstack", lambda m, x: m.unstack(x, axis=1)[0], (2, 1)),
    row("split", lambda m, x: m.split(x, 3, axis=-1), (2, 6)),
    row("split", lambda m, x: m.split(x, [1, 1, 4], axis=0), (5, 2)),
    row("split", lambda m, x: m.split(x, 2, axis=1)[1], (2, 4)),
    row("flip", lambda m, x: m.flip(x), (2, 3)),
    row("flip", lambda m, x: m.flip(x, axis=-1), (2, 3)),
    row("flip", lambda m, x: m.flip(x, axis=(0, 2)), (2, 1, 3)),
    row("pad", lambda m, x: m.pad(x, 1), (2, 3)),
    row("pad", lambda m, x: m.pad(x, (0, 2), value=-1.5), (2, 3)),
    row("pad", lambda m, x: m.pad(x, ((1, 0), (0, 2))), (2, 1)),
    row("scatter", lambda m, g, h: m.scatter(g, h, indices=(ROWS, slice(1, 3)), shape=(4, 2)), (5, 2), (2, 2)),
    row("accumulate", lambda m, a, b, c: m.accumulate(a, b, c), (2, 3), (2, 3), (2, 3)),
    # ------------------------------------------------ networks
    row("softmax", lambda m, x: m.softmax(x), (2, 3)),
    row("softmax", lambda m, x: m.softmax(x, axis=0), (3, 1)),
    row("log_softmax", lambda m, x: m.log_softmax(x), (2, 3)),
    row("log_softmax", lambda m, x: m.log_softmax(x, axis=-2), (2, 3, 1)),
    row("cross_entropy", lambda m, x: m.cross_entropy(x, CLASSES), (3, 2, 4)),
    row("cross_entropy", lambda m, x: m.cross_entropy(x, CLASSES, ignore_index=1), (3, 2, 4)),
    row("cross_entropy", lambda m, x: m.cross_entropy(x, CLASSES[0], reduction="sum"), (2, 4)),
    row("cross_entropy", lambda m, x: m.cross_entropy(x, CLASSES, ignore_index=0, reduction="none"), (3, 2, 4)),
    row("cross_entropy", lambda m, x: m.cross_entropy(x, np.array(2)), (4,)),
    row("binary_cross_entropy", lambda m, x, t: m.binary_cross_entropy(x, t), (2, 3), Positive((2, 3))),
    row("binary_cross_entropy", lambda m, x: m.binary_cross_entropy(x, x * 0 + 1, reduction="none"), (3,)),
    row("mse_loss", lambda m, x, t: m.mse_loss(x, t), (2, 3), (2, 3)),
    row("mse_loss", lambda m, x, t: m.mse_loss(x, t, reduction="sum"), (2, 3), (2, 3)),
    row("layer_norm", lambda m, x: m.layer_norm(x), (2, 4)),
    row("layer_norm", lambda m, x, w, b: m.layer_norm(x, w, b, eps=0.1), (2, 3, 4), (4,), (4,)),
    row("one_hot", lambda m: m.one_hot(CLASSES, 5), order=0),
]


def named(rows: list[Row]) -> list[Any]:
    """Give each row its name and a number as the test's id."""
    seen: Counter[str] = Counter()
    params = []
    for r in rows:
        seen[r.name] += 1
        params.append(pytest.param(r, id=f"{r.name}-{seen[r.name]}"))
    return params


each_row = pytest.mark.parametrize("row", named(TABLE))
each_differentiable_row = pytest.mark.parametrize("row", named([r for r in TABLE if r.order > 0]))

# ---------------------------------------------------------------- values and gradients


@each_differentiable_row
def test_gradient_agrees_with_numbers(backend: Backend, row: Row) -> None:
    xs = row.tensors("float64")
    assert all(y.requires_grad for y in row(tiny, xs))
    assert tr.gradcheck(lambda *xs: row(tiny, xs), xs, row.order)


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-12)])
@each_row
def test_value_is_numpys(backend: Backend, row: Row, dtype: str, rtol: float) -> None:
    expected = row(numpy, row.arrays(dtype))
    for y, wanted in zip(row(tiny, row.tensors(dtype)), expected, strict=True):
        assert (y.shape, y.dtype) == (wanted.shape, wanted.dtype)
        np.testing.assert_allclose(y.numpy(), wanted, rtol, atol=rtol / 10)


@each_differentiable_row
def test_gradient_is_like_its_input_whoever_reads_the_rule(backend: Backend, row: Row) -> None:
    _compare_readers(row, row.tensors("float32"))
    if len(row.inputs) > 1 and row.name not in INTERNAL:
        _compare_readers(row, row.tensors("float32", "float64"))
        _compare_readers(row, row.tensors("float64", "float32"))


def _compare_readers(row: Row, xs: list[Tensor]) -> None:
    ys = row(tiny, xs)
    gys = [tr.randn(*y.shape, dtype=y.dtype).to(y.backend) for y in ys]
    of_arrays, of_tensors = tr.grad(ys, xs, gys), tr.grad(ys, xs, gys, create_graph=True)
    for x, g, h in zip(xs, of_arrays, of_tensors, strict=True):
        for gradient in (g, h):
            assert (gradient.shape, gradient.dtype, gradient.backend) == (x.shape, x.dtype, x.backend)
        np.testing.assert_allclose(g.numpy(), h.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("row", named([r for r in TABLE if r.order == 0]))
def test_masks_and_positions_have_no_gradient(backend: Backend, row: Row) -> None:
    (y,) = row(tiny, row.tensors("float64"))
    assert y.requires_grad == (y.dtype.is_floating and row.name == "astype")


# ---------------------------------------------------------------- the table is complete


def _calls(row: Row) -> list[tuple[p.Primitive, tuple[Any, ...], dict[str, Any]]]:
    """Return the primitives that a row runs, with operands and parameters."""
    calls: list[tuple[p.Primitive, tuple[Any, ...], dict[str, Any]]] = []
    with changed_mode(listener=lambda op, operands, params, result: calls.append((op, operands, params))):
        row(tiny, row.tensors("float64"))
    return calls


def test_primitives_public_names_and_rows_agree() -> None:
    assert {r.name for r in TABLE} == p.BUILT_IN | OPERATIONS
    assert INTERNAL.isdisjoint(dir(tr))
    for name in p.BUILT_IN:
        rows = [r for r in TABLE if r.name == name]
        assert all(name in {op.name for op, *_ in _calls(r)} for r in rows), name
        assert (p.registry[name].vjp is None) == (max(r.order for r in rows) == 0), name


def test_operations_that_ndarray_has_as_methods_are_methods() -> None:
    methods = {name for name in OPERATIONS if hasattr(np.ndarray, name)}
    assert methods >= {"sum", "mean", "var", "max", "min", "argmax", "clip", "reshape", "transpose", "squeeze"}
    assert methods <= set(dir(Tensor))


SAVED = [
    pytest.param(p.registry[name], i, saved, id=f"{name}-{p.registry[name].operands[i]}-{saved}")
    for name in sorted(p.BUILT_IN)
    for i, names in enumerate(p.registry[name].saves)
    for saved in names.split()
]


@pytest.mark.parametrize(("op", "i", "saved"), SAVED)
def test_each_saved_value_is_needed(op: p.Primitive, i: int, saved: str) -> None:
    """Leave one name out of `saves`: for some row the rule must notice that the values are missing."""
    fewer = list(op.saves)
    fewer[i] = " ".join(name for name in op.saves[i].split() if name != saved)
    without = p.Primitive(op.name, op.forward, op.vjp, tuple(fewer), op.dtype)
    noticed = False
    for row in TABLE:
        for called, operands, params in _calls(row) if row.name == op.name else ():
            if called is not op or not isinstance(operands[i], Tensor):
                continue
            alone = [x.detach() if isinstance(x, Tensor) else x for x in operands]
            alone[i].requires_grad = True
            y = tr.apply(without, *alone, **params)
            try:
                tr.grad(y, alone[i], tr.ones(y.shape, dtype="float64"))
            except TypeError:
                noticed = True
    assert noticed


def test_a_graph_lets_go_of_what_no_rule_reads() -> None:
    x = tr.ones(3, requires_grad=True)
    for y, kept in ((x + x, []), (tr.exp(x), []), (tr.log(x), [x]), (x * tr.zeros(3), [tr.Tensor])):
        operands = [operand for operand in y.node.operands if isinstance(operand, Tensor)]
        assert len(operands) == len(kept), y
    assert (x + x).node.saved is None
    assert tr.exp(x).node.saved is not None
