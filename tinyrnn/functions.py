"""The functions of `tr.`: primitives under their public names, and composites written from them.

A composite needs no gradient of its own: it is built of what has one. Names, `axis` and `keepdims` are NumPy's.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinyrnn import backends
from tinyrnn import primitives as p
from tinyrnn.autograd import current_mode
from tinyrnn.backends import DType, Generator
from tinyrnn.errors import DTypeError, IndexRangeError, ShapeError
from tinyrnn.fuse import fused
from tinyrnn.tensor import Axis, Tensor, apply, promoted, tensor

# ---------------------------------------------------------------- new tensors

default_generator = Generator(0)


def manual_seed(seed: int | None) -> Generator:
    """Start the default stream of random numbers again from `seed`; it starts from 0, so that a run can be repeated.

    Returns: the default generator. `Generator(seed)` makes one of your own, for the `generator=` of any function.
    """
    default_generator.seed(seed)
    return default_generator


def zeros(*shape: Any, dtype: Any = "float32", requires_grad: bool = False) -> Tensor:
    """Return a tensor of zeros: zeros(2, 3) or zeros((2, 3))."""
    return full(_shape(shape), 0, dtype, requires_grad)


def ones(*shape: Any, dtype: Any = "float32", requires_grad: bool = False) -> Tensor:
    """Return a tensor of ones: ones(2, 3) or ones((2, 3))."""
    return full(_shape(shape), 1, dtype, requires_grad)


def full(shape: int | Sequence[int], value: float, dtype: Any = "float32", requires_grad: bool = False) -> Tensor:
    """Return a tensor with `value` everywhere."""
    backend = backends.current()
    return _leaf(backend.full(_shape((shape,)), value, DType.of(dtype)), requires_grad)


def arange(start: float, stop: float | None = None, step: float = 1, dtype: Any = None) -> Tensor:
    """Return start, start + step, … below stop (0, 1, … below start if that alone is given); ints make int64."""
    numbers = backends.get("numpy").arange(*((0, start) if stop is None else (start, stop)), step)
    floating = any(isinstance(x, float) for x in (start, stop, step))
    return tensor(numbers, dtype or ("float32" if floating else "int64"))


def randn(
    *shape: Any, dtype: Any = "float32", requires_grad: bool = False, generator: Generator | None = None
) -> Tensor:
    """Draw from the normal distribution N(0, 1): randn(2, 3). The same numbers on every backend."""
    draw = (generator or default_generator).normal(_shape(shape), DType.of(dtype))
    return _leaf(backends.current().asarray(draw), requires_grad)


def uniform(
    *shape: Any,
    low: float = 0.0,
    high: float = 1.0,
    dtype: Any = "float32",
    requires_grad: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Draw from the uniform distribution on [low, high): uniform(2, 3). The same numbers on every backend."""
    draw = (generator or default_generator).uniform(_shape(shape), DType.of(dtype)) * (high - low) + low
    return _leaf(backends.current().asarray(draw, DType.of(dtype)), requires_grad)


def _leaf(array: Any, requires_grad: bool) -> Tensor:
    result = Tensor(array, backends.current())
    result.requires_grad = requires_grad
    return result


def _shape(given: tuple[Any, ...]) -> tuple[int, ...]:
    """Read f(2, 3), f((2, 3)) and f(2) alike."""
    lengths = given[0] if len(given) == 1 and isinstance(given[0], tuple | list) else given
    try:
        shape = tuple(operator.index(n) for n in lengths)
    except TypeError:
        raise ShapeError(f"shape is {lengths!r}; expected ints, as in zeros(2, 3)") from None
    if any(n < 0 for n in shape):
        raise ShapeError(f"shape is {shape}; expected lengths of 0 or more")
    return shape


def one_hot(index: Any, n: int, dtype: Any = "float32") -> Tensor:
    """Return 1 at each class number and 0 elsewhere: (…) of ints 0 … n-1 to (…, n).

    Raises: IndexRangeError for a number outside 0 … n-1; DTypeError if they are not integers.

    >>> one_hot(tensor([1, 0]), 3).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    index, (n,) = _as_tensor(index), _shape((n,))
    check_range("one_hot", index, n)
    return _one_hot_mask(index, n).astype(dtype)


def _one_hot_mask(index: Tensor, n: int) -> Tensor:
    with backends.use_backend(index.backend):
        return expand_dims(index, -1) == arange(n)


def check_range(name: str, index: Tensor, n: int, what: str = "index") -> None:
    """See that every element of `index` is an integer from 0 to n-1.

    Raises: DTypeError, or IndexRangeError that names the first one outside.
    """
    if index.dtype.is_floating or index.dtype == DType.bool:
        raise DTypeError(f"{name}: {what} is {index.dtype}{list(index.shape)}; expected integers 0 … {n - 1}")
    index.backend.check(_InRange(name, what, n), index.array)


@dataclass(frozen=True)
class _InRange:
    """What `check_range` expects; a value, so that a device knows one that it has been given before."""

    name: str
    what: str
    n: int

    def __call__(self, values: Any) -> None:
        if values.size and not 0 <= values.min() <= values.max() < self.n:
            wrong = values[(values < 0) | (values >= self.n)].flat[0]
            raise IndexRangeError(f"{self.name}: {self.what} holds {wrong}; expected integers from 0 to {self.n - 1}")


def _as_tensor(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else tensor(x)


# ---------------------------------------------------------------- elementwise


def exp(x: Any) -> Tensor:
    """eˣ."""
    return apply(p.exp, x)


def log(x: Any) -> Tensor:
    """The natural logarithm of x."""
    return apply(p.log, x)


def sqrt(x: Any) -> Tensor:
    """√x; its derivative at 0 is taken as 0."""
    return apply(p.sqrt, x)


def tanh(x: Any) -> Tensor:
    """(eˣ − e⁻ˣ) / (eˣ + e⁻ˣ), from −1 to 1; its derivative is 1 − tanh²x."""
    return apply(p.tanh, x)


def sigmoid(x: Any) -> Tensor:
    """σ(x) = 1 / (1 + e⁻ˣ), from 0 to 1; its derivative is σ(1 − σ)."""
    return apply(p.sigmoid, x)


def relu(x: Any) -> Tensor:
    """max(x, 0); its derivative at 0 is taken as 0."""
    return apply(p.relu, x)


def gelu(x: Any) -> Tensor:
    """x Φ(x) in the tanh form: 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))).

    Source: Hendrycks & Gimpel 2016, "Gaussian Error Linear Units".
    """
    return _gelu(_as_tensor(x))


@fused
def _gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def abs(x: Any) -> Tensor:
    """|x|; its derivative at 0 is taken as 0."""
    return apply(p.abs, x)


def maximum(a: Any, b: Any) -> Tensor:
    """The larger of a and b, element by element; in a tie each receives half the gradient."""
    return apply(p.maximum, a, b)


def minimum(a: Any, b: Any) -> Tensor:
    """The smaller of a and b, element by element; in a tie each receives half the gradient."""
    return apply(p.minimum, a, b)


def clip(x: Any, low: float | None = None, high: float | None = None) -> Tensor:
    """min(max(x, low), high); the gradient passes inside and at the bounds."""
    return _as_tensor(x).clip(low, high)


def where(mask: Any, a: Any, b: Any) -> Tensor:
    """Return a where the mask is true and b elsewhere; each receives the gradient of its own elements.

    Raises: DTypeError for a mask that is not boolean.
    """
    mask = _as_tensor(mask)
    if mask.dtype != DType.bool:
        raise DTypeError(f"where: the mask is {mask.dtype}; expected bool, as a comparison gives: where(x > 0, a, b)")
    with backends.use_backend(mask.backend):  # where two plain numbers go
        return apply(p.where, mask, *promoted("where", a, b))


def isfinite(x: Any) -> Tensor:
    """Return a mask: true where x is neither NaN nor infinite."""
    return apply(p.isfinite, x)


# ---------------------------------------------------------------- reductions


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Σ x over `axis`, one, several or (None) all."""
    return _as_tensor(x).sum(axis, keepdims)


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Σ x / n over `axis`, one, several or (None) all."""
    return _as_tensor(x).mean(axis, keepdims)


def var(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Σ (x − mean)² / n over `axis`: the variance, divided by n (ddof 0)."""
    return _as_tensor(x).var(axis, keepdims)


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the largest element along `axis`; the gradient goes to it, in equal shares where several tie."""
    return _as_tensor(x).max(axis, keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the smallest element along `axis`; the gradient goes to it, in equal shares where several tie."""
    return _as_tensor(x).min(axis, keepdims)


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the position of the (first) largest element along `axis`, int64; no gradient."""
    return _as_tensor(x).argmax(axis, keepdims)


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log Σ eˣ over `axis`, with no overflow; −∞ where every x is −∞, with gradient 0."""
    return apply(p.logsumexp, x, axis=axis, keepdims=keepdims)


# ---------------------------------------------------------------- shape


def reshape(x: Any, shape: int | Sequence[int]) -> Tensor:
    """Return the same elements in another shape; one length may be -1 and is computed."""
    return _as_tensor(x).reshape(shape)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Tensor:
    """Return x with its axes in the given order, reversed if none is given."""
    return _as_tensor(x).transpose(*(() if axes is None else (tuple(axes),)))


def swapaxes(x: Any, axis1: int, axis2: int) -> Tensor:
    """Return x with two axes exchanged."""
    return _as_tensor(x).swapaxes(axis1, axis2)


def broadcast_to(x: Any, shape: int | Sequence[int]) -> Tensor:
    """Repeat x along new axes and axes of length 1 until it has `shape`; its gradient is summed over the copies."""
    return apply(p.broadcast_to, x, shape=_shape((shape,)))


def squeeze(x: Any, axis: Axis = None) -> Tensor:
    """Return x without axes of length 1: the given ones, or all."""
    return _as_tensor(x).squeeze(axis)


def expand_dims(x: Any, axis: int) -> Tensor:
    """Return x with a new axis of length 1 that stands at `axis` in the result."""
    x = _as_tensor(x)
    if not isinstance(axis, int) or not -x.ndim - 1 <= axis <= x.ndim:
        raise ShapeError(f"expand_dims: axis {axis}; expected one from {-x.ndim - 1} to {x.ndim}")
    at = axis % (x.ndim + 1)
    return x.reshape((*x.shape[:at], 1, *x.shape[at:]))


def concatenate(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """Join tensors along an axis that they have; every other axis must agree."""
    return apply(p.concatenate, *_several("concatenate", xs), axis=axis)


def stack(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis."""
    return apply(p.stack, *_several("stack", xs), axis=axis)


def _several(name: str, xs: Sequence[Any]) -> list[Any]:
    parts = list(xs)
    if not parts:
        raise ShapeError(f"{name}: given no tensor; expected a list of one or more")
    for part in parts:
        if isinstance(part, bool | int | float):
            raise DTypeError(f"{name}: given {part!r}; expected tensors or arrays: tr.tensor({part!r}) makes one")
    return parts


def unstack(x: Any, axis: int = 0) -> tuple[Tensor, ...]:
    """Return x[0], x[1], … along `axis`: what `stack` would join to x again.

    >>> [row.tolist() for row in unstack(tensor([[1, 2], [3, 4]]))]
    [[1, 2], [3, 4]]
    """
    x = _as_tensor(x)
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"unstack: axis {axis} of shape {x.shape}; expected one from {-x.ndim} to {x.ndim - 1}")
    return apply(p.unstack, x, axis=axis % x.ndim) if x.shape[axis] else ()


def split(x: Any, sections: int | Sequence[int], axis: int = -1) -> tuple[Tensor, ...]:
    """Cut x along `axis` into `sections` equal parts, or at the given positions, as NumPy does.

    Raises: ShapeError if the parts would not be equal.

    >>> [part.tolist() for part in split(tensor([1, 2, 3, 4]), 2)]
    [[1, 2], [3, 4]]
    """
    x = _as_tensor(x)
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"split: axis {axis} of shape {x.shape}; expected one from {-x.ndim} to {x.ndim - 1}")
    n = x.shape[axis]
    if isinstance(sections, Sequence):
        bounds = [0, *sections, n]
        if sorted(bounds) != bounds:
            raise ShapeError(f"split: positions {list(sections)}; expected increasing numbers from 0 to {n}")
    else:
        parts = operator.index(sections)
        if parts < 1 or n % parts:
            raise ShapeError(f"split: axis {axis} of {x.shape} has length {n}; expected a multiple of {parts}")
        bounds = [k * (n // parts) for k in range(parts + 1)]
    return apply(p.split, x, bounds=tuple(itertools.pairwise(bounds)), axis=axis)


def flip(x: Any, axis: Axis = None) -> Tensor:
    """Return x with the elements along `axis` (None: every axis) in reverse order."""
    return apply(p.flip, x, axis=axis)


def pad(x: Any, width: Any, value: float = 0.0) -> Tensor:
    """Put `value` around x: `width` is one number, a (before, after) for every axis, or one such pair for each axis.

    >>> pad(tensor([1, 2]), (0, 2)).tolist()
    [1, 2, 0, 0]
    """
    x = _as_tensor(x)
    pairs = _pairs(width, x.ndim)
    if not pairs or any(n < 0 for pair in pairs for n in pair):
        raise ShapeError(
            f"pad: width {width!r} for a tensor of {x.ndim} axes; expected a number of 0 or more, (before, after), "
            "or such a pair for each axis"
        )
    return apply(p.pad, x, widths=pairs, value=value)


def _pairs(width: Any, ndim: int) -> tuple[tuple[int, int], ...] | None:
    if isinstance(width, int):
        return ((width, width),) * ndim
    if not isinstance(width, tuple | list):
        return None
    if len(width) == 2 and all(isinstance(n, int) for n in width):
        return ((width[0], width[1]),) * ndim
    if len(width) == ndim and all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in width):
        return tuple((before, after) for before, after in width)
    return None


# ---------------------------------------------------------------- networks


def linear(x: Any, W: Any, b: Any = None) -> Tensor:
    """x W + b: (…, I) and (I, O) to (…, O); b (O,).

    Raises: ShapeError for shapes that do not fit.
    """
    x, W = _as_tensor(x), _as_tensor(W)
    if b is None or x.ndim < 2 or W.ndim != 2 or x.shape[-1] != len(W):
        y = x @ W
        return y if b is None else y + b
    b = _as_tensor(b)
    if b.shape != W.shape[1:]:
        raise ShapeError(
            f"linear: W has shape {W.shape} and b {b.shape}; expected b {W.shape[1:]}, one for each column"
        )
    if current_mode().products is not None:
        return x @ W + b  # b, and the sum that its gradient is, are not rounded with the product
    return apply(p.linear, x, W, b)


def softmax(x: Any, axis: int = -1) -> Tensor:
    """eˣ / Σ eˣ along `axis`; 0 where every x is −∞, with gradient 0."""
    return exp(log_softmax(x, axis))


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """x − log Σ eˣ along `axis`, exact at both ends; −∞ where every x is −∞, with gradient 0."""
    x = _as_tensor(x)
    top = x.detach().max(axis, keepdims=True)  # a shift changes nothing but the digits that are left
    x = x - where(top == -math.inf, 0.0, top)
    total = logsumexp(x, axis, keepdims=True)
    empty = total == -math.inf
    return where(empty, -math.inf, x - where(empty, 0.0, total))


def cross_entropy(
    logits: Any, targets: Any, ignore_index: int | None = None, reduction: str = "mean", mask: Any = None
) -> Tensor:
    """−log softmax(logits)[target]: how surprised the model is by the right class, in nats.

    Args:
        logits: (…, V), any number of leading axes, such as (T, B, V).
        targets: (…) class numbers from 0 to V-1, of the leading shape, such as (T, B).
        ignore_index: a class number that stands for "no target here" and counts nothing.
        reduction: "mean" over the targets that count (0 if none does), "sum", or "none" for one loss each.
        mask: bool, of the targets' shape, such as `data.mask(lengths)`; where it is False, logits and targets may be
            anything: the loss there is 0, and so is its gradient.

    Raises: ShapeError if the shapes do not fit, also where T happens to equal V; IndexRangeError for a class number
        outside 0 … V-1; DTypeError for targets that are not integers, or a mask that is not boolean.
    """
    logits, targets = _as_tensor(logits), _as_tensor(targets)
    if not logits.ndim or targets.shape != logits.shape[:-1]:
        raise ShapeError(
            f"cross_entropy: logits are {logits.shape} and targets {targets.shape}; expected logits (…, V) with the "
            f"classes last and targets of the leading shape, here {logits.shape[:-1]}"
        )
    counted = _mask("cross_entropy", mask, targets.shape)
    if ignore_index is not None:
        named = targets != ignore_index
        counted = named if counted is None else counted & named
    if counted is not None:
        logits, targets = where(expand_dims(counted, -1), logits, 0), where(counted, targets, 0)
    check_range("cross_entropy", targets, logits.shape[-1], "targets")
    total = logsumexp(logits, axis=-1)
    empty = total == -math.inf  # a row of −∞: an infinite loss, with gradient 0
    losses = where(empty, 0.0, total) - where(empty, -math.inf, _picked(logits, targets))
    return _reduced("cross_entropy", losses, reduction, counted)


def _picked(x: Tensor, index: Tensor) -> Tensor:
    """Return x[…, index], the one element of the last axis that each index names."""
    V = x.shape[-1]
    with backends.use_backend(x.backend):
        flat = index.reshape(-1) + arange(index.size) * V
    return x.reshape(-1)[flat].reshape(index.shape)


def binary_cross_entropy(logits: Any, targets: Any, reduction: str = "mean", mask: Any = None) -> Tensor:
    """−t log σ(x) − (1 − t) log(1 − σ(x)) of logits x and targets t, computed as log(1 + eˣ) − x t.

    Args:
        logits: any shape, before the sigmoid; targets: of the same shape, from 0 to 1.
        reduction: "mean", "sum", or "none" for one loss each.
        mask: bool, of the same shape; where it is False, the loss is 0 whatever stands there, and so is its gradient.

    Raises: ShapeError if the shapes differ; DTypeError for a mask that is not boolean.
    """
    x, t = _as_tensor(logits), _as_tensor(targets)
    _same_shape("binary_cross_entropy", "logits", x, "targets", t)
    counted = _mask("binary_cross_entropy", mask, x.shape)
    if counted is not None:
        x, t = where(counted, x, 0), where(counted, t, 0)
    softplus = logsumexp(stack([x, x * 0]), axis=0)
    return _reduced("binary_cross_entropy", softplus - x * t, reduction, counted)


def mse_loss(prediction: Any, target: Any, reduction: str = "mean", mask: Any = None) -> Tensor:
    """(prediction − target)², averaged ("mean"), summed ("sum") or one each ("none").

    Args: mask, bool, of the same shape; where it is False, the loss is 0 whatever stands there, and so is its gradient.
    Raises: ShapeError if the shapes differ: they are not broadcast, which here is nearly always a mistake; DTypeError
        for a mask that is not boolean.
    """
    prediction, target = _as_tensor(prediction), _as_tensor(target)
    _same_shape("mse_loss", "prediction", prediction, "target", target)
    counted = _mask("mse_loss", mask, prediction.shape)
    if counted is not None:
        prediction, target = where(counted, prediction, 0), where(counted, target, 0)
    error = prediction - target
    return _reduced("mse_loss", error * error, reduction, counted)


def _same_shape(name: str, a: str, x: Tensor, b: str, y: Tensor) -> None:
    if x.shape != y.shape:
        raise ShapeError(f"{name}: {a} has shape {x.shape} and {b} {y.shape}; expected the same: reshape one of them")


def _mask(name: str, mask: Any, shape: tuple[int, ...]) -> Tensor | None:
    """Return a mask as a tensor, having seen that it is boolean and has the shape of the losses."""
    if mask is None:
        return None
    mask = _as_tensor(mask)
    if mask.dtype != DType.bool:
        raise DTypeError(f"{name}: the mask is {mask.dtype}; expected bool, True for what counts: mask > 0")
    if mask.shape != shape:
        raise ShapeError(f"{name}: the mask has shape {mask.shape}; expected {shape}, one entry for each loss")
    return mask


def _reduced(name: str, losses: Tensor, reduction: str, counted: Tensor | None = None) -> Tensor:
    """Average the losses that count (0 if none does), add them up, or leave one each."""
    if counted is not None:
        losses = where(counted, losses, 0.0)
        if reduction == "mean":
            return losses.sum() / maximum(counted.sum(), 1).astype(losses.dtype)
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise ValueError(f"{name}: reduction is {reduction!r}; expected 'mean', 'sum' or 'none'")


def dropout(x: Any, p: float, training: bool = True, generator: Generator | None = None) -> Tensor:
    """Set each element to 0 with probability p and scale the others by 1/(1 − p); x itself when not training.

    Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".
    Raises: ValueError for p outside [0, 1).
    """
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p is {p}; expected a probability from 0 up to, not including, 1")
    x = _as_tensor(x)
    if not x.dtype.is_floating:
        raise DTypeError(f"dropout: x is {x.dtype}; expected floating numbers: x.astype(tr.float32)")
    if not training or p == 0:
        return x
    draw = x.backend.uniform(generator or default_generator, x.shape, x.dtype)
    keep = Tensor(draw, x.backend) >= p
    return x * (keep.astype(x.dtype) / (1 - p))


def scheduled_sampling(target: Any, own: Any, p: Any, generator: Generator | None = None) -> Tensor:
    """What a decoder is given next: with probability p what it said itself, otherwise what it should have said.

    Taught with targets alone, a decoder never meets its own mistakes; p rises from 0 while it learns.

        for t in tr.steps(T):
            logits, state = decoder(x, state)
            losses.append(tr.cross_entropy(logits, y[t]))
            x = tr.scheduled_sampling(y[t], logits.argmax(-1), p)

    Args:
        target, own: (B, …), one for each sequence, such as class numbers (B,) or vectors (B, H); each sequence is drawn
            for by itself.
        p: from 0 to 1; a tensor of shape () where it changes from call to call of a function that is captured.
        generator: the stream of random numbers, the default one if left out.

    Returns: (B, …). A gradient flows to what was chosen.
    Source: Bengio et al. 2015, "Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks"; its ε is
        1 − p.
    Raises: ShapeError if the two differ; ValueError for p outside [0, 1].

    >>> scheduled_sampling(tensor([1, 2, 3, 4]), tensor([5, 6, 7, 8]), p=0.5, generator=Generator(0)).tolist()
    [1, 2, 3, 8]
    """
    target, own = _as_tensor(target), _as_tensor(own)
    _same_shape("scheduled_sampling", "target", target, "own", own)
    if not target.ndim:
        raise ShapeError("scheduled_sampling: target is a single number; expected (B, …), one for each sequence")
    if not isinstance(p, Tensor) and not 0 <= p <= 1:
        raise ValueError(f"scheduled_sampling: p is {p}; expected a probability from 0 to 1")
    shape = (len(target), *(1,) * (target.ndim - 1))
    draw = target.backend.uniform(generator or default_generator, shape, DType.float32)
    return where(Tensor(draw, target.backend) < p, own, target)


def layer_norm(x: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """(x − mean) / √(var + eps) · weight + bias, over the last axis.

    Args: x (…, H); weight and bias (H,), 1 and 0 if left out.
    Source: Ba, Kiros & Hinton 2016, "Layer Normalization".
    """
    x = _as_tensor(x)
    weight, bias = (part if part is None else _as_tensor(part) for part in (weight, bias))
    for name, part in (("weight", weight), ("bias", bias)):
        if part is not None and part.shape != x.shape[-1:]:
            raise ShapeError(f"layer_norm: {name} has shape {part.shape} and x {x.shape}; expected {x.shape[-1:]}")
    deviation = x - x.mean(-1, keepdims=True)
    y = deviation / sqrt((deviation * deviation).mean(-1, keepdims=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias
