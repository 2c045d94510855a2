"""Values and gradients of the operations in the table of test_primitives.py are PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tinyrnn as tr
from tests.test_primitives import TABLE, Row, named, tiny

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = pytest.mark.oracle

INF = float("inf")

# ---------------------------------------------------------------- PyTorch, under the names of the table


def _reduction(f: Callable[..., Any], **fixed: Any) -> Callable[..., Any]:
    """Give a reduction of PyTorch NumPy's arguments."""
    return lambda x, axis=None, keepdims=False: f(
        x, dim=tuple(range(x.ndim)) if axis is None else axis, keepdim=keepdims, **fixed
    )


def _cross_entropy(x: Any, t: Any, ignore_index: int | None = None, reduction: str = "mean") -> Any:
    t = torch.as_tensor(t)
    ignored = {} if ignore_index is None else {"ignore_index": ignore_index}
    losses = F.cross_entropy(x.reshape(-1, x.shape[-1]), t.reshape(-1), reduction=reduction, **ignored)
    return losses.reshape(t.shape) if reduction == "none" else losses


def _pad(x: Any, width: Any, value: float = 0.0) -> Any:
    pairs = np.broadcast_to(np.asarray(width), (x.ndim, 2))
    return F.pad(x, tuple(pairs[::-1].ravel().tolist()), value=value)


torchlike = SimpleNamespace(
    abs=torch.abs,
    binary_cross_entropy=F.binary_cross_entropy_with_logits,
    broadcast_to=lambda x, shape: torch.broadcast_to(x, shape if isinstance(shape, tuple) else (shape,)),
    clip=torch.clip,
    concatenate=lambda xs, axis=0: torch.cat(xs, dim=axis),
    cross_entropy=_cross_entropy,
    exp=torch.exp,
    expand_dims=torch.unsqueeze,
    flip=lambda x, axis=None: torch.flip(x, tuple(range(x.ndim)) if axis is None else np.atleast_1d(axis).tolist()),
    gelu=lambda x: F.gelu(x, approximate="tanh"),
    layer_norm=lambda x, weight=None, bias=None, eps=1e-5: F.layer_norm(x, x.shape[-1:], weight, bias, eps),
    log=torch.log,
    log_softmax=lambda x, axis=-1: torch.log_softmax(x, axis),
    logsumexp=_reduction(torch.logsumexp),
    matmul=torch.matmul,
    max=_reduction(torch.amax),  # torch.max over an axis gives all of the gradient to one of several that tie
    maximum=lambda a, b: torch.maximum(torch.as_tensor(a), torch.as_tensor(b, dtype=a.dtype)),
    mean=_reduction(torch.mean),
    min=_reduction(torch.amin),
    minimum=lambda a, b: torch.minimum(torch.as_tensor(a, dtype=b.dtype), b),
    mse_loss=F.mse_loss,
    pad=_pad,
    relu=torch.relu,
    reshape=torch.reshape,
    sigmoid=torch.sigmoid,
    softmax=lambda x, axis=-1: torch.softmax(x, axis),
    split=lambda x, sections, axis=-1: torch.tensor_split(x, sections, dim=axis),
    sqrt=torch.sqrt,
    squeeze=lambda x, axis=None: torch.squeeze(x) if axis is None else torch.squeeze(x, axis),
    stack=lambda xs, axis=0: torch.stack(xs, dim=axis),
    sum=_reduction(torch.sum),
    swapaxes=torch.swapaxes,
    linear=lambda x, W, b: x @ W + b,
    unstack=lambda x, axis=0: torch.unbind(x, axis),
    tanh=torch.tanh,
    tensor=torch.as_tensor,
    transpose=lambda x, axes=None: x.permute(axes or tuple(reversed(range(x.ndim)))),
    var=_reduction(torch.var, correction=0),  # torch.var divides by n - 1
    where=torch.where,
)

# ---------------------------------------------------------------- the comparison


def _compare(f: Callable[..., Any], arrays: list[Any], rtol: float) -> None:
    """Compare f(m, *arrays) and its gradients, for gradients of random numbers that enter at the results."""
    ours = [tr.tensor(x, requires_grad=True) for x in arrays]
    theirs = [torch.tensor(x, requires_grad=True) for x in arrays]
    ys, expected = f(tiny, *ours), f(torchlike, *theirs)
    ys, expected = (list(y) if isinstance(y, tuple | list) else [y] for y in (ys, expected))
    gys = [tr.randn(*y.shape, dtype=y.dtype) for y in ys]
    gxs = tr.grad(ys, ours, gys)
    expected_gxs = torch.autograd.grad(expected, theirs, [torch.from_dlpack(gy) for gy in gys])
    for given, wanted in zip([*ys, *gxs], [*expected, *expected_gxs], strict=True):
        assert given.dtype == wanted.dtype
        np.testing.assert_allclose(given.numpy(), wanted.detach().numpy(), rtol, atol=rtol / 10)


each_precision = pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-10)])


OURS_ALONE = {"accumulate", "astype", "dropout", "scatter", "scheduled_sampling", "to"}  # or random in a way of our own
ROWS = [row for row in TABLE if row.order > 0 and row.torch and row.name not in OURS_ALONE]


@each_precision
@pytest.mark.parametrize("row", named(ROWS))
def test_table(row: Row, dtype: str, rtol: float) -> None:
    _compare(row.f, row.arrays(dtype), rtol)


SPECIAL: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "relu at 0": (lambda m, x: m.relu(x), [-1, 0, 2]),
    "abs at 0": (lambda m, x: m.abs(x), [-2, 0, 3]),
    "clip at its bounds": (lambda m, x: m.clip(x, -1, 1), [-2, -1, 0, 1, 2]),
    "maximum in a tie": (lambda m, x: m.maximum(x, 1.0), [0, 1, 2]),
    "minimum in a tie": (lambda m, x: m.minimum(1.0, x), [0, 1, 2]),
    "max with ties": (lambda m, x: m.max(x), [[2, 2, 1], [2, 0, 1]]),
    "max over an axis with ties": (lambda m, x: m.max(x, axis=0), [[2, 2, 1], [2, 0, 1]]),
    "min over an axis with ties": (lambda m, x: m.min(x, axis=1), [[2, 1, 1], [0, 0, 0]]),
    "sigmoid far out": (lambda m, x: m.sigmoid(x), [-1e4, -20, 0, 20, 1e4]),
    "tanh far out": (lambda m, x: m.tanh(x), [-1e4, -5, 0, 5, 1e4]),
    "gelu far out": (lambda m, x: m.gelu(x), [-1e4, -3, 0, 3, 1e4]),
    "softmax far out": (lambda m, x: m.softmax(x), [[-1e4, 1e4, 0], [1e4, 1e4, 9999]]),
    "log_softmax far out": (lambda m, x: m.log_softmax(x), [[-1e4, 1e4, 0], [1e4, 1e4, 9999]]),
    "softmax of some -inf": (lambda m, x: m.softmax(x), [[-INF, 1, 2], [-INF, -INF, 0]]),
    "log_softmax of some -inf": (lambda m, x: m.log_softmax(x), [[-INF, 1, 2], [-INF, -INF, 0]]),
    "logsumexp of -inf": (lambda m, x: m.logsumexp(x, axis=-1), [[-INF, 1, 2], [-INF, -INF, 0]]),
    "cross_entropy far out": (lambda m, x: m.cross_entropy(x, np.array([0, 2])), [[1e4, -1e4, 0], [1e4, 1, 0]]),
    "binary_cross_entropy far out": (
        lambda m, x: m.binary_cross_entropy(x, m.tensor(np.array([0, 1, 0.5, 0, 1], str(x.dtype)[-7:]))),
        [-1e4, -1e4, 0, 1e4, 1e4],
    ),
    "plain powers of 0": (lambda m, x: x**0 + x**1 + x**2 + x**3, [0, -2, 3]),
    "powers of 0": (lambda m, x, y: x**y, [0, 0, 0, 2], [0, 1, 2, 0]),
    "0 to a power": (lambda m, x: 0**x, [0, 1, 2.5]),
    "var of one": (lambda m, x: m.var(x), [7]),
    "layer_norm of a constant": (lambda m, x: m.layer_norm(x), [[4, 4, 4], [0, 0, 1e-4]]),
}


@each_precision
@pytest.mark.parametrize("name", SPECIAL)
def test_special_points(name: str, dtype: str, rtol: float) -> None:
    f, *inputs = SPECIAL[name]
    _compare(f, [np.array(x, dtype) for x in inputs], rtol)


# ---------------------------------------------------------------- where we differ, on purpose

NAN = float("nan")
DIFFERENCES: dict[str, tuple[Any, ...]] = {  # f and PyTorch's, x, value and gradient, PyTorch's value and gradient
    # The norm of a zero vector has a gradient, 0: penalties and optimisers take square roots of zero.
    "sqrt at 0": (tr.sqrt, torch.sqrt, [0.0], [0], [0], [0], [INF]),
    # The order of the elements must not decide: those that tie share the gradient.
    "max over an axis": (lambda x: x.max(axis=0), lambda x: x.max(dim=0)[0], [2.0, 2.0], 2, [0.5, 0.5], 2, [1, 0]),
    # A row that is masked completely takes no part, rather than spreading NaN.
    "softmax of -inf": (tr.softmax, lambda x: x.softmax(-1), [-INF, -INF], [0, 0], [0, 0], [NAN, NAN], [NAN, NAN]),
    "logsumexp of -inf": (tr.logsumexp, lambda x: x.logsumexp(-1), [-INF, -INF], -INF, [0, 0], -INF, [NAN, NAN]),
    # A batch in which nothing counts has no loss.
    "cross_entropy, all ignored": (
        lambda x: tr.cross_entropy(x, [-100], ignore_index=-100),
        lambda x: F.cross_entropy(x, torch.tensor([-100])),
        [[1.0, 2.0]],
        0,
        [[0, 0]],
        NAN,
        [[0, 0]],
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_deliberate_differences(name: str) -> None:
    f, g, data, *expected = DIFFERENCES[name]
    x, z = tr.tensor(data, requires_grad=True), torch.tensor(data, requires_grad=True)
    y, w = f(x), g(z)
    gx, gz = tr.grad(y.sum(), x), torch.autograd.grad(w.sum(), z)[0]
    for given, wanted in zip((y, gx, w.detach(), gz), expected, strict=True):
        np.testing.assert_array_equal(given.numpy(), wanted)
