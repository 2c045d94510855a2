"""Defined answers at the edges, dtypes, new tensors and their seeds, and what bad input is told."""

from __future__ import annotations

import itertools
import json
import math
import operator
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.backends import Backend, DType
from tinyrnn.errors import DTypeError, GraphError, IndexRangeError, ShapeError, TinyRNNError

INF = math.inf
LOG2 = math.log(2)
FAR = [-1e4, 1e4]

# ---------------------------------------------------------------- defined answers: f, x, f(x), gx, gy (1 unless given)

ANSWERS: dict[str, tuple[Any, ...]] = {
    "softmax of a row of -inf": (
        tr.softmax,
        [[-INF, -INF], [0, 0]],
        [[0, 0], [0.5, 0.5]],
        [[0, 0], [-0.25, 0.25]],
        [1, 2],
    ),
    "softmax of some -inf": (tr.softmax, [-INF, 0, 0], [0, 0.5, 0.5], [0, -0.25, 0.25], [1, 2, 3]),
    "softmax far out": (tr.softmax, FAR, [0, 1], [0, 0], [1, 2]),
    "log_softmax of a row of -inf": (
        tr.log_softmax,
        [[-INF, -INF], [0, 0]],
        [[-INF, -INF], [-LOG2, -LOG2]],
        [[0, 0], [-0.5, 0.5]],
        [1, 2],
    ),
    "log_softmax of some -inf": (tr.log_softmax, [-INF, 0, 0], [-INF, -LOG2, -LOG2], [1, -1, 0], [1, 2, 3]),
    "log_softmax far out": (tr.log_softmax, FAR, [-2e4, 0], [1, -1], [1, 2]),
    "log_softmax far out keeps its digits": (tr.log_softmax, [1e4, 1e4], [-LOG2, -LOG2], [-0.5, 0.5], [1, 2]),
    "logsumexp of a row of -inf": (
        lambda x: tr.logsumexp(x, axis=1),
        [[-INF, -INF], [0, 0]],
        [-INF, LOG2],
        [[0, 0], [0.5, 0.5]],
    ),
    "logsumexp of -inf alone": (tr.logsumexp, [-INF, -INF], -INF, [0, 0]),
    "logsumexp of some -inf": (tr.logsumexp, [-INF, 3], 3, [0, 1]),
    "logsumexp far out": (tr.logsumexp, [1e4, -1e4], 1e4, [1, 0]),
    "sqrt at 0": (tr.sqrt, [0, 4], [0, 2], [0, 0.25]),
    "norm of zero": (lambda x: tr.sqrt((x * x).sum()), [0, 0], 0, [0, 0]),
    "abs at 0": (tr.abs, [-2, 0, 3], [2, 0, 3], [-1, 0, 1]),
    "relu at 0": (tr.relu, [-1, 0, 2], [0, 0, 2], [0, 0, 1]),
    "clip at its bounds": (lambda x: x.clip(-1, 1), [-2, -1, 0, 1, 2], [-1, -1, 0, 1, 1], [0, 1, 1, 1, 0]),
    "max of three that tie": (tr.max, [2, 2, 1, 2], 2, [1 / 3, 1 / 3, 0, 1 / 3]),
    "max over an axis with ties": (lambda x: x.max(axis=0), [[1, 4], [1, 3]], [1, 4], [[0.5, 1], [0.5, 0]]),
    "min of all equal": (tr.min, [[5, 5], [5, 5]], 5, [[0.25, 0.25], [0.25, 0.25]]),
    "max of -inf": (tr.max, [-INF, -INF], -INF, [0.5, 0.5]),
    "maximum in a tie": (lambda x: tr.maximum(x, 1.0), [0, 1, 2], [1, 1, 2], [0, 0.5, 1]),
    "maximum with itself": (lambda x: tr.maximum(x, x), [3], [3], [1]),
    "minimum in a tie": (lambda x: tr.minimum(1.0, x), [0, 1, 2], [0, 1, 1], [1, 0.5, 0]),
    "sigmoid far out": (tr.sigmoid, [-1e4, -1e3, 0, 1e3, 1e4], [0, 0, 0.5, 1, 1], [0, 0, 0.25, 0, 0]),
    "tanh far out": (tr.tanh, [-1e4, 0, 1e4], [-1, 0, 1], [0, 1, 0]),
    "gelu in the tanh form": (tr.gelu, [-1e4, 0, 1, 1e4], [0, 0, 0.8411919906, 1e4], [0, 0.5, 1.0829640838, 1]),
    "0 to a power": (lambda x: 0**x, [0, 1, 2.5], [1, 0, 0], [0, 0, 0]),
    "tensor of 0 to a power": (lambda x: tr.zeros(3) ** x, [0, 1, 2.5], [1, 0, 0], [0, 0, 0]),
    "0 base, plain exponents": (lambda x: x**0 + x**1 + x**2, [0, 2], [1, 7], [1, 5]),
    "0 base, tensor exponents": (lambda x: x ** tr.tensor([0.0, 1, 2]), [0, 0, 0], [1, 0, 0], [0, 1, 0]),
    "negative base": (lambda x: x**3, [-2], [-8], [12]),
    "var has ddof 0": (tr.var, [1, 3], 1, [-1, 1]),
    "var of one": (tr.var, [7], 0, [0]),
    "layer_norm of a constant": (tr.layer_norm, [4, 4], [0, 0], [0, 0], [1, 1]),
    "cross_entropy far out": (lambda x: tr.cross_entropy(x, [0, 1]), [FAR, FAR], 1e4, [[-0.5, 0.5], [0, 0]]),
    "cross_entropy beside -inf": (lambda x: tr.cross_entropy(x, [1]), [[-INF, 0, 0]], LOG2, [[0, -0.5, 0.5]]),
    "cross_entropy of one class": (lambda x: tr.cross_entropy(x, [0]), [[3]], 0, [[0]]),
    **{
        f"cross_entropy with all ignored, {reduction}": (
            lambda x, reduction=reduction: tr.cross_entropy(x, [-1, -1], ignore_index=-1, reduction=reduction),
            [[1, 2], [3, 4]],
            [0, 0] if reduction == "none" else 0,
            [[0, 0], [0, 0]],
        )
        for reduction in ("mean", "sum", "none")
    },
    "binary_cross_entropy at 0 and far out": (
        lambda x: tr.binary_cross_entropy(x, tr.tensor([0.5, 1.0, 0.0, 0.0, 1.0]), reduction="none"),
        [0, 1e4, -1e4, 1e4, -1e4],
        [LOG2, 0, 0, 1e4, 1e4],
        [0, 0, 0, 1, -1],
    ),
    "mse_loss of equals": (lambda x: tr.mse_loss(x, tr.ones(2)), [1, 1], 0, [0, 0]),
    "dropout in evaluation": (lambda x: tr.dropout(x, 0.9, training=False), [1, 2], [1, 2], [1, 1]),
    "dropout of nothing": (lambda x: tr.dropout(x, 0.0), [1, 2], [1, 2], [1, 1]),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ANSWERS)
def test_defined_answer(backend: Backend, name: str, dtype: str) -> None:
    """Value and gradient are as defined, every higher derivative is a number, and nothing warns."""
    f, data, value, gradient, *gy = ANSWERS[name]
    x = tr.tensor(data, dtype, requires_grad=True)
    y = f(x)
    gy = tr.broadcast_to(tr.tensor(gy[0] if gy else 1.0, dtype), y.shape)
    np.testing.assert_allclose(y.numpy(), value, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(tr.grad(y, x, gy).numpy(), gradient, rtol=1e-6, atol=1e-6)
    gx = tr.grad(y, x, gy, create_graph=True)
    np.testing.assert_allclose(gx.numpy(), gradient, rtol=1e-6, atol=1e-6)
    if gx.requires_grad:
        assert np.isfinite(tr.grad(gx.sum(), x).numpy()).all()


def test_a_hidden_nan_does_not_reach_the_gradient_of_where(backend: Backend) -> None:
    x = tr.tensor([0.0, 4.0], requires_grad=True)
    y = tr.where(x > 0, tr.sqrt(tr.where(x > 0, x, 1.0)), 0.0)
    assert tr.grad(y.sum(), x).tolist() == [0.0, 0.25]


def test_dropout_drops_and_scales(backend: Backend) -> None:
    x = tr.ones(100, 100, requires_grad=True)
    y = tr.dropout(x, 0.25)
    assert set(np.unique(y.numpy()).tolist()) == {0.0, np.float32(1 / 0.75).item()}
    assert 0.7 < (y.numpy() != 0).mean() < 0.8
    np.testing.assert_array_equal(tr.grad(y.sum(), x).numpy(), y.numpy())


# ---------------------------------------------------------------- dtypes


def _dtypes(backend: Backend) -> list[DType]:
    """The dtypes that a backend has: the array standard knows no float16."""
    return [dtype for dtype in DType if dtype != "float16" or backend.name == "numpy"]


@pytest.mark.parametrize(
    "name", ["add", "subtract", "multiply", "maximum", "where", "concatenate", "stack", "less", "divide"]
)
def test_two_dtypes_promote_as_in_numpy(backend: Backend, name: str) -> None:
    calls: dict[str, Callable[..., Any]] = {
        "add": lambda m, a, b: a + b,
        "subtract": lambda m, a, b: a - b,
        "multiply": lambda m, a, b: a * b,
        "maximum": lambda m, a, b: m.maximum(a, b),
        "where": lambda m, a, b: m.where(a == a, a, b),
        "concatenate": lambda m, a, b: m.concatenate([a, b]),
        "stack": lambda m, a, b: m.stack([a, b]),
        "less": lambda m, a, b: a < b,
        "divide": lambda m, a, b: a / b,
    }
    arithmetic = name not in ("where", "concatenate", "stack")
    for a, b in itertools.product(_dtypes(backend), repeat=2):
        if arithmetic and a == b == "bool":
            continue  # NumPy and the standard have their own opinions of true + true
        y = calls[name](tr, tr.ones(2, dtype=a), tr.ones(2, dtype=b))
        expected = calls[name](np, np.ones(2, a), np.ones(2, b))
        assert (y.dtype, y.tolist()) == (expected.dtype, expected.tolist()), (a, b)


SCALARS = [2, 0.5, np.float64(0.5), np.float32(0.5), np.int64(2)]
WITH_SCALAR: list[Callable[[Any, Any], Any]] = [
    lambda x, s: x + s,
    lambda x, s: s - x,
    lambda x, s: x * s,
    lambda x, s: s / x,
    lambda x, s: x**s,
    lambda x, s: s**x,
    lambda x, s: tr.maximum(s, x),
    lambda x, s: tr.clip(x, s, None),
    lambda x, s: tr.where(x > 0, x, s),
]


@pytest.mark.parametrize("scalar", SCALARS, ids=repr)
def test_a_plain_number_never_changes_a_floating_dtype(backend: Backend, scalar: Any) -> None:
    for dtype in _dtypes(backend):
        if dtype.is_floating:
            for i, f in enumerate(WITH_SCALAR):
                x = tr.ones(2, dtype=dtype, requires_grad=True)
                y = f(x, scalar)
                assert (y.dtype, tr.grad(y.sum(), x).dtype) == (dtype, dtype), (dtype, i)


@pytest.mark.parametrize("scalar", [2, 0.5], ids=repr)
def test_a_plain_number_beside_integers_counts_as_in_numpy(backend: Backend, scalar: float) -> None:
    for dtype in _dtypes(backend):
        x, a = tr.ones(2, dtype=dtype), np.ones(2, dtype)
        for f in (lambda x: x + scalar, lambda x: scalar * x, lambda x: x / scalar):
            assert (f(x).dtype, f(x).tolist()) == (f(a).dtype, f(a).tolist()), dtype
        assert tr.maximum(x, scalar).dtype == np.maximum(a, scalar).dtype, dtype
        assert tr.where(x == 1, x, scalar).dtype == np.where(a == 1, a, scalar).dtype, dtype


@pytest.mark.parametrize("name", ["sum", "mean", "var", "max", "min", "argmax"])
def test_reductions_have_numpys_dtype(backend: Backend, name: str) -> None:
    for dtype in _dtypes(backend):
        if name == "var" and dtype == "bool":
            continue  # which NumPy refuses
        y, expected = getattr(tr.ones(3, dtype=dtype), name)(), getattr(np.ones(3, dtype), name)()
        assert (y.dtype, y.item()) == (expected.dtype, expected), dtype


@pytest.mark.parametrize("f", [tr.exp, tr.log, tr.sqrt, tr.tanh, tr.sigmoid, tr.softmax, tr.logsumexp, tr.mean])
def test_functions_of_integers_are_float64(backend: Backend, f: Callable[[Any], Any]) -> None:
    assert {f(tr.ones(2, dtype=dtype)).dtype for dtype in DType if not dtype.is_floating} == {tr.float64}


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.0, "float32"),
        ([1.0, 2], "float32"),
        ([[1.5], [2.5]], "float32"),
        (((1.0,),), "float32"),
        ([], "float32"),
        (1, "int64"),
        ([1, 2], "int64"),
        (range(3), "int64"),
        (True, "bool"),
        ([True, False], "bool"),
        (np.float64(1), "float64"),
        *[(np.ones(2, dtype), dtype) for dtype in DType if dtype != "float16"],
        (np.ones(2, ">f8"), "float64"),
    ],
    ids=repr,
)
def test_python_data_is_float32_or_int64_and_arrays_keep_their_dtype(backend: Backend, data: Any, dtype: str) -> None:
    x = tr.tensor(data)
    assert (x.dtype, x.backend) == (dtype, backend)
    assert x.tolist() == np.asarray(data).tolist()


def test_functions_take_python_data(backend: Backend) -> None:
    for y in (
        tr.exp(1.0),
        tr.tanh([0.5]),
        tr.maximum(1.0, 2),
        tr.sum([1.0, 2.0]),
        tr.where([True], 1.0, 0),
        tr.sqrt(2.0),
    ):
        assert (y.dtype, y.backend) == ("float32", backend)
    assert tr.exp(np.ones(2)).dtype == "float64"
    assert tr.exp(np.ones(2)).backend is backend
    assert tr.layer_norm([1.0, 3.0], [2.0, 2.0]).dtype == "float32"


@pytest.mark.parametrize("spec", [tr.float64, "float64", np.float64, np.dtype("float64"), np.ones(1).dtype], ids=repr)
def test_a_dtype_can_be_given_in_any_spelling(backend: Backend, spec: Any) -> None:
    made = [
        tr.tensor([1], spec),
        tr.zeros(2, dtype=spec),
        tr.ones(2, dtype=spec),
        tr.full(2, 3, spec),
        tr.arange(3, dtype=spec),
        tr.randn(2, dtype=spec),
        tr.uniform(2, dtype=spec),
        tr.one_hot([1], 2, dtype=spec),
        tr.ones(2).astype(spec),
    ]
    assert all(x.dtype is tr.float64 for x in made)
    assert (operator.eq(tr.float64, spec), operator.ne(tr.float64, spec)) == (True, False)
    assert (operator.eq(tr.float32, spec), operator.ne(tr.float32, spec)) == (False, True)


def test_dtypes_compare_and_print() -> None:
    assert {tr.float32: 1}["float32"] == 1
    assert tr.float32 not in (3, "abc", None, "float64")
    assert tr.bool_ in (bool, "bool", np.bool_, np.dtype("bool"))
    assert (str(tr.bool_), repr(tr.bool_)) == ("bool", "tinyrnn.bool")
    assert [dtype for dtype in DType if dtype.is_floating] == [tr.float16, tr.float32, tr.float64]


def test_integers_and_masks_never_require_a_gradient(backend: Backend) -> None:
    x = tr.ones(2, requires_grad=True)
    assert not any(y.requires_grad for y in (x > 0, x.argmax(), x.astype("int64"), tr.isfinite(x), tr.arange(2)))
    for dtype in DType:
        if not dtype.is_floating:
            with pytest.raises(DTypeError, match=f"{dtype} has no gradient"):
                tr.tensor([1], dtype, requires_grad=True)
            y = x * tr.ones(2, dtype=dtype)
            assert tr.grad(y.sum(), x).dtype == "float32"


def test_data_is_copied(backend: Backend) -> None:
    data, index = np.ones(2, "float32"), np.array([0])
    x = tr.tensor(data, requires_grad=True)
    y, z = x * data.tolist(), x[index]
    data[:], index[:] = 5, 1
    assert x.tolist() == [1, 1]
    assert tr.grad(z.sum(), x).tolist() == [1, 0]
    assert tr.grad(y.sum(), x).tolist() == [1, 1]


# ---------------------------------------------------------------- new tensors, and their seeds


def test_new_tensors_hold_what_they_say(backend: Backend) -> None:
    for shape in ((), (3,), (2, 0), (2, 3)):
        assert tr.zeros(*shape).numpy().tolist() == tr.zeros(shape).tolist() == np.zeros(shape).tolist()
        assert tr.ones(list(shape)).tolist() == np.ones(shape).tolist()
        assert tr.full(shape, -2.5).tolist() == np.full(shape, -2.5).tolist()
        assert tr.randn(*shape).shape == tr.uniform(shape).shape == shape
    assert tr.full(2, 7, dtype="int32").tolist() == [7, 7]
    for make in (tr.zeros, tr.ones, tr.randn, tr.uniform):
        x = make(2, requires_grad=True)
        assert (x.requires_grad, x.dtype, x.backend) == (True, "float32", backend)


@pytest.mark.parametrize("arguments", [(3,), (1, 4), (0, 10, 3), (5, 0, -2), (0.0, 1.0, 0.25), (3, 3), (2.5,)])
def test_arange_is_numpys(backend: Backend, arguments: tuple[float, ...]) -> None:
    y, expected = tr.arange(*arguments), np.arange(*arguments)
    assert y.tolist() == expected.tolist()
    assert y.dtype == ("int64" if expected.dtype == np.int64 else "float32")


def test_arange_takes_numbers_of_numpys(backend: Backend) -> None:
    assert tr.arange(np.float32(0.5), 3).tolist() == [0.5, 1.5, 2.5]
    assert tr.arange(np.float64(0), 1, 0.5).dtype == "float32"
    assert tr.arange(np.int32(2)).dtype == "int64"


def test_positions_and_widths_may_be_numpys(backend: Backend) -> None:
    x = tr.arange(5)
    assert [part.tolist() for part in tr.split(x, np.array([2]))] == [[0, 1], [2, 3, 4]]
    assert [part.tolist() for part in tr.split(x, np.int64(5))] == [[0], [1], [2], [3], [4]]
    assert tr.pad(x, np.int64(1)).tolist() == tr.pad(x, (np.int64(1), 1)).tolist() == [0, 0, 1, 2, 3, 4, 0]


def test_class_numbers_may_be_of_any_integer_type(backend: Backend) -> None:
    logits = tr.randn(2, 3)
    expected = tr.cross_entropy(logits, [2, 1]).item()
    for dtype in ("uint8", "int32", "uint64"):
        assert tr.cross_entropy(logits, tr.tensor([2, 1], dtype)).item() == expected


def test_a_mean_in_half_precision_does_not_overflow() -> None:
    x = tr.full((70_000,), 2.0, dtype="float16", requires_grad=True)
    y = x.mean()
    assert (y.item(), y.dtype, tr.grad(y, x).dtype) == (2.0, "float16", "float16")


def test_a_plain_mask_may_stand_first() -> None:
    mask = tr.tensor([True, False])
    assert (True & mask).tolist() == [True, False]
    assert (True | mask).tolist() == [True, True]


def _draws() -> list[Any]:
    x = [tr.randn(2, 3), tr.uniform(4, low=-1, high=3), tr.randn(2, dtype="float64"), tr.dropout(tr.ones(20), 0.5)]
    return [y.tolist() for y in x]


def test_one_seed_gives_the_same_numbers_on_every_backend(backend: Backend) -> None:
    assert tr.manual_seed(7) is tr.manual_seed(7)
    here = _draws()
    tr.manual_seed(7)
    assert _draws() == here
    tr.manual_seed(7)
    with tr.use_backend("numpy"):
        there = _draws()
    assert there[:-1] == here[:-1]  # dropout alone draws on the device
    if backend.name == "strict":
        assert there == here
    tr.manual_seed(8)
    assert _draws() != here


def test_random_numbers_are_distributed_as_they_say(backend: Backend) -> None:
    normal, flat = tr.randn(10_000).numpy(), tr.uniform(10_000, low=-1, high=3).numpy()
    assert abs(normal.mean()) < 0.05
    assert abs(normal.std() - 1) < 0.05
    assert -1 <= flat.min() < -0.99
    assert 2.99 < flat.max() < 3
    assert abs(flat.mean() - 1) < 0.05


def test_a_generator_of_ones_own_leaves_the_default_stream_alone(backend: Backend) -> None:
    tr.manual_seed(7)
    expected = tr.randn(3).tolist()
    tr.manual_seed(7)
    own = tr.Generator(1)
    drawn = [
        tr.randn(3, generator=own).tolist(),
        tr.uniform(3, generator=own).tolist(),
        tr.dropout(tr.ones(9), 0.5, generator=own).tolist(),
    ]
    assert tr.randn(3).tolist() == expected
    own = tr.Generator(1)
    assert tr.randn(3, generator=own).tolist() == drawn[0]
    assert tr.uniform(3, generator=own).tolist() == drawn[1]


def test_the_state_of_a_generator_survives_json() -> None:
    generator = tr.Generator(3)
    tr.randn(5, generator=generator)
    state = json.loads(json.dumps(generator.state))
    expected = [tr.randn(4, generator=generator).tolist(), tr.uniform(4, generator=generator).tolist()]
    other = tr.Generator(99)
    other.state = state
    assert [tr.randn(4, generator=other).tolist(), tr.uniform(4, generator=other).tolist()] == expected
    assert generator.state != state


def test_a_generator_without_a_seed_starts_by_chance() -> None:
    assert tr.randn(8, generator=tr.Generator()).tolist() != tr.randn(8, generator=tr.Generator()).tolist()


# ---------------------------------------------------------------- bad input: f, the error, words of its message

x23 = lambda: tr.ones(2, 3)
BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    # losses
    (lambda: tr.cross_entropy(tr.ones(()), tr.tensor(0)), ShapeError, "cross_entropy: logits are () * (…, V)"),
    (
        lambda: tr.cross_entropy(tr.ones(5, 5), tr.zeros(5, 5, dtype="int64")),
        ShapeError,
        "(5, 5) and targets (5, 5) * (5,)",
    ),
    (lambda: tr.cross_entropy(tr.ones(5, 2, 5), [0] * 5), ShapeError, "(5, 2, 5) and targets (5,) * here (5, 2)"),
    (lambda: tr.cross_entropy(tr.ones(5, 5), [[0]] * 5), ShapeError, "(5, 5) and targets (5, 1) * here (5,)"),
    (lambda: tr.cross_entropy(tr.ones(4, 4), [[0] * 4]), ShapeError, "(4, 4) and targets (1, 4) * here (4,)"),
    (lambda: tr.cross_entropy(x23(), [0, 3]), IndexRangeError, "targets holds 3; expected integers from 0 to 2"),
    (lambda: tr.cross_entropy(x23(), [0, -1]), IndexRangeError, "targets holds -1; expected integers from 0 to 2"),
    (lambda: tr.cross_entropy(x23(), [-1, 7], ignore_index=-1), IndexRangeError, "holds 7; expected * 0 to 2"),
    (lambda: tr.cross_entropy(x23(), [0.0, 1.0]), DTypeError, "targets is float32[2]; expected integers"),
    (lambda: tr.cross_entropy(x23(), [True, False]), DTypeError, "targets is bool[2]; expected integers"),
    (lambda: tr.cross_entropy(x23(), [0, 1], reduction="avg"), ValueError, "'avg'; expected 'mean', 'sum' or 'none'"),
    (lambda: tr.cross_entropy(x23(), [0, 1], 0, "avg"), ValueError, "'avg'; expected 'mean', 'sum' or 'none'"),
    (
        lambda: tr.binary_cross_entropy(tr.ones(3, 1), tr.ones(3)),
        ShapeError,
        "logits has shape (3, 1) and targets (3,)",
    ),
    (lambda: tr.binary_cross_entropy(tr.ones(3), tr.ones(3), "avg"), ValueError, "binary_cross_entropy: * 'avg'"),
    (
        lambda: tr.mse_loss(tr.ones(3, 1), tr.ones(3)),
        ShapeError,
        "mse_loss: prediction has shape (3, 1) and target (3,)",
    ),
    (lambda: tr.mse_loss(tr.ones(3), tr.ones(3), "avg"), ValueError, "mse_loss: reduction is 'avg'"),
    (lambda: tr.one_hot([0, 4], 4), IndexRangeError, "one_hot: index holds 4; expected integers from 0 to 3"),
    (lambda: tr.one_hot([-1], 4), IndexRangeError, "one_hot: index holds -1; expected integers from 0 to 3"),
    (lambda: tr.one_hot([1.0], 4), DTypeError, "one_hot: index is float32[1]; expected integers"),
    (lambda: tr.one_hot([1], 2.5), ShapeError, "2.5"),
    (lambda: tr.dropout(x23(), 1.0), ValueError, "dropout: p is 1.0; expected a probability"),
    (lambda: tr.dropout(x23(), -0.1), ValueError, "dropout: p is -0.1; expected a probability"),
    (lambda: tr.dropout(x23(), math.nan), ValueError, "dropout: p is nan; expected a probability"),
    (lambda: tr.dropout(tr.arange(3), 0.5), DTypeError, "dropout: x is int64; expected floating"),
    (
        lambda: tr.layer_norm(x23(), tr.ones(2)),
        ShapeError,
        "layer_norm: weight has shape (2,) and x (2, 3); expected (3,)",
    ),
    (lambda: tr.layer_norm(x23(), None, tr.ones(1)), ShapeError, "layer_norm: bias has shape (1,) * expected (3,)"),
    # shapes
    (lambda: tr.split(tr.ones(2, 5), 2), ShapeError, "split: axis -1 of (2, 5) has length 5; expected a multiple of 2"),
    (lambda: tr.split(x23(), 0), ShapeError, "split: * (2, 3)"),
    (lambda: tr.split(x23(), 2, axis=2), ShapeError, "split: axis 2 of shape (2, 3); expected one from -2 to 1"),
    (lambda: tr.split(tr.ones(()), 1), ShapeError, "split: axis -1 of shape ()"),
    (lambda: tr.split(x23(), [2, 1]), ShapeError, "split: positions [2, 1]; expected increasing numbers from 0 to 3"),
    (lambda: tr.split(x23(), [4]), ShapeError, "split: positions [4]; expected increasing numbers from 0 to 3"),
    (lambda: tr.split(x23(), [-1]), ShapeError, "split: positions [-1]; expected"),
    (lambda: tr.split(x23(), 2.0), DTypeError, "split: sections is 2.0; expected an int, or several positions"),
    (lambda: tr.pad(x23(), -1), ShapeError, "pad: width -1 for a tensor of 2 axes; expected"),
    (lambda: tr.pad(x23(), 1.5), ShapeError, "pad: width 1.5 for a tensor of 2 axes; expected"),
    (lambda: tr.pad(x23(), ((1, 1),)), ShapeError, "pad: width ((1, 1),) for a tensor of 2 axes; expected"),
    (lambda: tr.pad(x23(), (1, 2, 3)), ShapeError, "pad: width (1, 2, 3) for a tensor of 2 axes; expected"),
    (lambda: tr.squeeze(x23(), 0), ShapeError, "squeeze: axis 0 of shape (2, 3); expected axes of length 1"),
    (lambda: tr.squeeze(x23(), 2), ShapeError, "squeeze: axis 2; expected axes from -2 to 1"),
    (lambda: tr.squeeze(x23(), 0.5), DTypeError, "squeeze: axis 0.5; expected an int"),
    (lambda: tr.expand_dims(x23(), 3), ShapeError, "expand_dims: axis 3; expected one from -3 to 2"),
    (lambda: tr.expand_dims(x23(), -4), ShapeError, "expand_dims: axis -4; expected one from -3 to 2"),
    (lambda: tr.expand_dims(x23(), (0, 1)), ShapeError, "expand_dims: axis (0, 1); expected one from -3 to 2"),
    (
        lambda: tr.transpose(x23(), (0, 0)),
        ShapeError,
        "transpose: axes (0, 0); expected each of the 2 axes of (2, 3) once",
    ),
    (lambda: tr.transpose(x23(), (0,)), ShapeError, "transpose: axes (0,); expected each of the 2 axes"),
    (lambda: tr.transpose(x23(), (0, 2)), ShapeError, "transpose: axis (0, 2); expected axes from -2 to 1"),
    (lambda: tr.swapaxes(x23(), 0, 2), ShapeError, "swapaxes: axis (0, 2); expected axes from -2 to 1"),
    (lambda: tr.reshape(x23(), (4,)), ShapeError, "reshape(float32[2, 3]): * (4,)"),
    (lambda: tr.broadcast_to(x23(), (3, 2)), ShapeError, "broadcast_to(float32[2, 3]): * (3,2)"),
    (lambda: tr.broadcast_to(x23(), (-1, 3)), ShapeError, "shape is (-1, 3); expected lengths of 0 or more"),
    (lambda: tr.concatenate([]), ShapeError, "concatenate: given no tensor; expected a list"),
    (lambda: tr.stack([]), ShapeError, "stack: given no tensor; expected a list"),
    (lambda: tr.stack([tr.ones(()), 1.0]), DTypeError, "stack: given 1.0; expected tensors"),
    (lambda: tr.concatenate([x23(), tr.ones(3, 2)]), ShapeError, "concatenate(float32[2, 3], float32[3, 2])"),
    (lambda: tr.concatenate([x23()], axis=2), ShapeError, "concatenate(float32[2, 3]): axis 2"),
    (lambda: tr.stack([x23(), tr.ones(3)]), ShapeError, "stack(float32[2, 3], float32[3])"),
    (lambda: tr.flip(x23(), axis=2), ShapeError, "flip(float32[2, 3]): axis 2"),
    (lambda: x23().sum(axis=2), ShapeError, "sum(float32[2, 3]): axis 2"),
    (lambda: x23().sum(axis="a"), DTypeError, "sum(float32[2, 3])"),
    (lambda: tr.ones(0).max(), ShapeError, "max(float32[0])"),
    (lambda: tr.softmax(x23(), axis=2), ShapeError, "(float32[2, 3]): axis 2"),
    (lambda: tr.zeros(2, -1), ShapeError, "shape is (2, -1); expected lengths of 0 or more"),
    (lambda: tr.zeros(2.5), ShapeError, "shape is (2.5,); expected ints"),
    # operators
    (lambda: x23() @ x23(), ShapeError, "matmul: (2, 3) @ (2, 3): * has length 3; expected 2"),
    (lambda: x23() @ tr.ones(2), ShapeError, "matmul: (2, 3) @ (2,): * has length 3; expected 2"),
    (lambda: x23() @ 2, ShapeError, "matmul: an operand is a single number; expected matrices or vectors"),
    (lambda: tr.ones(2, 2, 3) @ tr.ones(3, 3, 4), ShapeError, "matmul(float32[2, 2, 3], float32[3, 3, 4])"),
    (lambda: x23() + tr.ones(2), ShapeError, "add(float32[2, 3], float32[2])"),
    (lambda: x23() + None, DTypeError, "add: * NoneType * expected numbers"),
    (lambda: x23() * "a", DTypeError, "multiply: * str * expected numbers"),
    (lambda: x23() & x23(), DTypeError, "logical_and(float32[2, 3], float32[2, 3])"),
    (lambda: tr.where(x23(), 1.0, 2.0), DTypeError, "where: the mask is float32; expected bool"),
    (lambda: tr.where(x23() > 0, tr.ones(2), 1.0), ShapeError, "where(bool[2, 3], float32[2], 1.0)"),
    (lambda: tr.clip(x23(), tr.ones(3), None), DTypeError, "clip: a bound is an array; expected a number"),
    (lambda: x23()[2], IndexRangeError, "getitem(float32[2, 3]): index 2 is out of bounds for axis 0 with size 2"),
    (lambda: x23()[[0, 5]], IndexRangeError, "getitem(float32[2, 3]): index 5"),
    (lambda: x23()[0, 0, 0], IndexRangeError, "getitem(float32[2, 3]): too many indices"),
    (lambda: x23()[1.5], DTypeError, "getitem: the index is a tensor of float32; expected integers or booleans"),
    (lambda: x23()[np.ones(3, bool)], IndexRangeError, "getitem(float32[2, 3]): boolean index did not match"),
    (lambda: bool(x23()), ShapeError, "bool() of a tensor of shape (2, 3)"),
    (lambda: x23().item(), ShapeError, "item() of a tensor of shape (2, 3); expected a single element"),
    (lambda: len(tr.ones(())), DTypeError, "len() of a tensor of shape ()"),
    (lambda: x23().__setitem__(0, 1.0), GraphError, "tr.where"),
    # making tensors
    (lambda: tr.tensor([[1], [1, 2]]), DTypeError, "not a regular block of numbers * pad it"),
    (lambda: tr.tensor("abc"), DTypeError, "the data is str * expected numbers"),
    (lambda: tr.tensor([1j]), DTypeError, "complex128; expected numbers"),
    (lambda: tr.tensor([x23(), x23()]), DTypeError, "the data is a list of tensors; tr.stack"),
    (lambda: tr.zeros(2, dtype="complex64"), DTypeError, "dtype is 'complex64'; expected one of bool, int8"),
    (lambda: x23().astype(3), DTypeError, "dtype is 3; expected one of bool, int8"),
    (lambda: tr.manual_seed(-1), DTypeError, "seed is -1; expected a non-negative int"),
    (lambda: tr.manual_seed(1.5), DTypeError, "seed is 1.5; expected a non-negative int"),
    (lambda: tr.Generator("a"), DTypeError, "seed is 'a'; expected a non-negative int"),
]


@pytest.mark.parametrize(("f", "error", "words"), BAD, ids=[words for *_, words in BAD])
def test_bad_input_is_told_what_was_given_and_expected(
    backend: Backend, f: Callable[[], Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=".*".join(map(re.escape, words.split(" * ")))):
        f()


def test_errors_are_also_the_built_in_ones() -> None:
    for ours, builtin in ((ShapeError, ValueError), (DTypeError, TypeError), (IndexRangeError, IndexError)):
        assert issubclass(ours, TinyRNNError)
        assert issubclass(ours, builtin)


@pytest.mark.parametrize("make", [tr.randn, tr.uniform])
def test_random_numbers_are_not_cut_to_integers(make):
    with pytest.raises(tr.errors.DTypeError, match="dtype is int64; expected float32 or float64"):
        make(3, dtype="int64")


@pytest.mark.parametrize(
    "change", [lambda x: x.reshape(2.5), lambda x: x.reshape("a", 3), lambda x: x.transpose(0.5, 1)]
)
def test_shapes_and_axes_are_ints(change):
    with pytest.raises(tr.errors.DTypeError, match=r"given \(.*\); expected ints"):
        change(tr.zeros(2, 3))
