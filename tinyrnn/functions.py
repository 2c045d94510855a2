"""The functions of `tr.`: primitives under their public names, and composites written from them.

A composite needs no gradient of its own: it is built of what has one. Names, `axis` and `keepdims` are NumPy's.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
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

    Args: seed, a non-negative int; None takes one from the operating system.
    Returns: the default generator. `Generator(seed)` makes one of your own, for the `generator=` of any function.
    Raises: DTypeError for any other seed.

    >>> import tinyrnn as tr
    >>> generator = tr.manual_seed(7)
    >>> x = tr.randn(2)
    >>> generator = tr.manual_seed(7)
    >>> (tr.randn(2) == x).tolist()
    [True, True]
    """
    default_generator.seed(seed)
    return default_generator


def zeros(*shape: Any, dtype: Any = "float32", requires_grad: bool = False) -> Tensor:
    """Return a tensor of zeros.

    Args: shape, ints or a tuple of them, zeros(2, 3) or zeros((2, 3)); dtype and requires_grad, as for `tr.tensor`.
    Raises: ShapeError for a shape that is not ints of 0 or more.

    >>> import tinyrnn as tr
    >>> tr.zeros(2, 3).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    return full(_shape(shape), 0, dtype, requires_grad)


def ones(*shape: Any, dtype: Any = "float32", requires_grad: bool = False) -> Tensor:
    """Return a tensor of ones.

    Args: shape, ints or a tuple of them, ones(2, 3) or ones((2, 3)); dtype and requires_grad, as for `tr.tensor`.
    Raises: ShapeError for a shape that is not ints of 0 or more.

    >>> import tinyrnn as tr
    >>> tr.ones(2, dtype="int64").tolist()
    [1, 1]
    """
    return full(_shape(shape), 1, dtype, requires_grad)


def full(shape: int | Sequence[int], value: float, dtype: Any = "float32", requires_grad: bool = False) -> Tensor:
    """Return a tensor with `value` everywhere.

    Args: shape, an int or a tuple of them; value, a number; dtype and requires_grad, as for `tr.tensor`.
    Raises: ShapeError for a shape that is not ints of 0 or more.

    >>> import tinyrnn as tr
    >>> tr.full((2, 2), 0.5).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    backend = backends.current()
    return _leaf(backend.full(_shape((shape,)), value, DType.of(dtype)), requires_grad)


def arange(start: float, stop: float | None = None, step: float = 1, dtype: Any = None) -> Tensor:
    """Return start, start + step, … below stop (0, 1, … below start if that alone is given).

    Args: start, stop and step, numbers; dtype, by default int64 for ints and float32 where one of them is a float.

    >>> import tinyrnn as tr
    >>> tr.arange(3).tolist(), tr.arange(0.0, 1.0, 0.25).tolist()
    ([0, 1, 2], [0.0, 0.25, 0.5, 0.75])
    """
    numbers = backends.get("numpy").arange(*((0, start) if stop is None else (start, stop)), step)
    return tensor(numbers, dtype or ("float32" if numbers.dtype.kind == "f" else "int64"))


def randn(
    *shape: Any, dtype: Any = "float32", requires_grad: bool = False, generator: Generator | None = None
) -> Tensor:
    """Draw from the normal distribution N(0, 1). The same numbers on every backend.

    Args:
        shape: ints or a tuple of them, randn(2, 3) or randn((2, 3)).
        dtype: a floating type.
        requires_grad: as for `tr.tensor`.
        generator: the stream of random numbers, the default one if left out.

    Raises: ShapeError for a shape that is not ints of 0 or more; DTypeError for a dtype that is not a floating one.

    >>> import tinyrnn as tr
    >>> W = 0.1 * tr.randn(3, 4, generator=tr.Generator(0))
    >>> W.shape
    (3, 4)
    """
    draw, kind = (generator or default_generator).normal, _floating("randn", dtype)
    return _leaf(backends.current().drawn(draw, _shape(shape), kind), requires_grad)


def uniform(
    *shape: Any,
    low: float = 0.0,
    high: float = 1.0,
    dtype: Any = "float32",
    requires_grad: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Draw from the uniform distribution on [low, high). The same numbers on every backend.

    Args:
        shape: ints or a tuple of them, uniform(2, 3) or uniform((2, 3)).
        low, high: the bounds.
        dtype: a floating type.
        requires_grad: as for `tr.tensor`.
        generator: the stream of random numbers, the default one if left out.

    Raises: ShapeError for a shape that is not ints of 0 or more; DTypeError for a dtype that is not a floating one.

    >>> import tinyrnn as tr
    >>> x = tr.uniform(2, 3, low=-1.0)
    >>> x.shape, bool((tr.abs(x) <= 1).min())
    ((2, 3), True)
    """
    kind = _floating("uniform", dtype)
    draw = functools.partial(_between, generator or default_generator, low, high)
    return _leaf(backends.current().drawn(draw, _shape(shape), kind), requires_grad)


def _between(generator: Generator, low: float, high: float, shape: tuple[int, ...], dtype: DType) -> Any:
    """Draw from [low, high), on the host."""
    return generator.uniform(shape, dtype) * (high - low) + low


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


def _floating(name: str, dtype: Any) -> DType:
    kind = DType.of(dtype)
    if not kind.is_floating:
        raise DTypeError(f"{name}: dtype is {kind}; expected float32 or float64: round with .astype({kind}) afterwards")
    return kind


def one_hot(index: Any, n: int, dtype: Any = "float32") -> Tensor:
    """Return 1 at each class number and 0 elsewhere.

    Args: index, (…) of ints 0 … n-1, such as tokens (T, B); n, how many classes there are; dtype, of the result.
    Returns: (…, n).
    Raises: IndexRangeError for a number outside 0 … n-1; DTypeError if they are not integers; ShapeError for an n that
        is not an int of 0 or more.

    >>> import tinyrnn as tr
    >>> tr.one_hot([1, 0], 3).tolist()
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
        raise DTypeError(
            f"{name}: {what} is {index.dtype}{list(index.shape)}; expected integers 0 … {n - 1}: .astype(tr.int64)"
        )
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
    """eˣ for each element of x; its derivative is eˣ too.

    >>> import tinyrnn as tr
    >>> round(tr.exp(1.0).item(), 3)
    2.718
    """
    return apply(p.exp, x)


def log(x: Any) -> Tensor:
    """log x, the natural logarithm: the y with eʸ = x; its derivative is 1 / x. It is −∞ at 0, and NaN below.

    >>> import tinyrnn as tr
    >>> round(tr.log(2.0).item(), 3)
    0.693
    """
    return apply(p.log, x)


def sqrt(x: Any) -> Tensor:
    """√x; its derivative is 1 / (2 √x), which at 0 is taken as 0. It is NaN below 0.

    >>> import tinyrnn as tr
    >>> tr.sqrt([4.0, 9.0]).tolist()
    [2.0, 3.0]
    """
    return apply(p.sqrt, x)


def tanh(x: Any) -> Tensor:
    """tanh x = (eˣ − e⁻ˣ) / (eˣ + e⁻ˣ), from −1 to 1; its derivative is 1 − tanh² x.

    >>> import tinyrnn as tr
    >>> round(tr.tanh(1.0).item(), 3)
    0.762
    """
    return apply(p.tanh, x)


def sigmoid(x: Any) -> Tensor:
    """σ(x) = 1 / (1 + e⁻ˣ), from 0 to 1; its derivative is σ(1 − σ).

    >>> import tinyrnn as tr
    >>> tr.sigmoid(0.0).item()
    0.5
    """
    return apply(p.sigmoid, x)


def relu(x: Any) -> Tensor:
    """relu x = max(x, 0); its derivative is 1 where x > 0, else 0, also at 0.

    >>> import tinyrnn as tr
    >>> tr.relu([-1.0, 2.0]).tolist()
    [0.0, 2.0]
    """
    return apply(p.relu, x)


def gelu(x: Any) -> Tensor:
    """x Φ(x) in the tanh form: 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))).

    Source: Hendrycks & Gimpel 2016, "Gaussian Error Linear Units".

    >>> import tinyrnn as tr
    >>> round(tr.gelu(1.0).item(), 3)
    0.841
    """
    return _gelu(_as_tensor(x))


@fused
def _gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def abs(x: Any) -> Tensor:
    """|x|; its derivative is the sign of x, 0 at 0.

    >>> import tinyrnn as tr
    >>> tr.abs([-2.0, 3.0]).tolist()
    [2.0, 3.0]
    """
    return apply(p.abs, x)


def maximum(a: Any, b: Any) -> Tensor:
    """a where a ≥ b, else b, element by element, broadcast; in a tie each receives half the gradient.

    >>> import tinyrnn as tr
    >>> tr.maximum([1.0, 5.0], [4.0, 2.0]).tolist()
    [4.0, 5.0]
    """
    return apply(p.maximum, a, b)


def minimum(a: Any, b: Any) -> Tensor:
    """a where a ≤ b, else b, element by element, broadcast; in a tie each receives half the gradient.

    >>> import tinyrnn as tr
    >>> tr.minimum([1.0, 5.0], [4.0, 2.0]).tolist()
    [1.0, 2.0]
    """
    return apply(p.minimum, a, b)


def clip(x: Any, low: float | None = None, high: float | None = None) -> Tensor:
    """min(max(x, low), high): x where low ≤ x ≤ high, else the bound; the gradient passes inside and at the bounds.

    Args: low and high, numbers, None for no bound.
    Raises: DTypeError for a bound that is an array.

    >>> import tinyrnn as tr
    >>> tr.clip([-3.0, 0.5, 3.0], -1.0, 1.0).tolist()
    [-1.0, 0.5, 1.0]
    """
    return _as_tensor(x).clip(low, high)


def where(mask: Any, a: Any, b: Any) -> Tensor:
    """y = a where the mask is true, b elsewhere, broadcast; each receives the gradient of its own elements.

    Raises: DTypeError for a mask that is not boolean.

    >>> import tinyrnn as tr
    >>> x = tr.tensor([1.0, -2.0])
    >>> tr.where(x > 0, x, 0.0).tolist()
    [1.0, 0.0]
    """
    mask = _as_tensor(mask)
    if mask.dtype != DType.bool:
        raise DTypeError(f"where: the mask is {mask.dtype}; expected bool, as a comparison gives: where(x > 0, a, b)")
    with backends.use_backend(mask.backend):  # where two plain numbers go
        return apply(p.where, mask, *promoted("where", a, b))


def isfinite(x: Any) -> Tensor:
    """Return a mask: true where |x| < ∞, so that x is neither NaN nor infinite; no gradient.

    >>> import tinyrnn as tr
    >>> tr.isfinite([1.0, float("nan"), float("inf")]).tolist()
    [True, False, False]
    """
    return apply(p.isfinite, x)


# ---------------------------------------------------------------- reductions


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Σ x over `axis`. In a mask, True counts as 1.

    Args: axis, one, a tuple of several, or None for all; keepdims, whether they stay, with length 1.
    Raises: ShapeError for an axis that x does not have.

    >>> import tinyrnn as tr
    >>> tr.sum([[1.0, 2.0], [3.0, 4.0]], axis=0).tolist()
    [4.0, 6.0]
    """
    return _as_tensor(x).sum(axis, keepdims)


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Σ x / n over `axis`, of n elements. In a mask, True counts as 1.

    Args: axis, one, a tuple of several, or None for all; keepdims, whether they stay, with length 1.
    Raises: ShapeError for an axis that x does not have.

    >>> import tinyrnn as tr
    >>> tr.mean([[1.0, 2.0], [3.0, 4.0]], axis=1).tolist()
    [1.5, 3.5]
    """
    return _as_tensor(x).mean(axis, keepdims)


def var(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Σ (x − mean)² / n over `axis`, of n elements: the variance, divided by n (ddof 0).

    Args: axis, one, a tuple of several, or None for all; keepdims, whether they stay, with length 1.
    Raises: ShapeError for an axis that x does not have.

    >>> import tinyrnn as tr
    >>> tr.var([[1.0, 3.0], [2.0, 6.0]], axis=1).tolist()
    [1.0, 4.0]
    """
    return _as_tensor(x).var(axis, keepdims)


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = max x over `axis`, the largest element; the gradient goes to it, in equal shares where several tie.

    Args: axis, one, a tuple of several, or None for all; keepdims, whether they stay, with length 1.
    Raises: ShapeError for an axis that x does not have, or where there is no element.

    >>> import tinyrnn as tr
    >>> tr.max([[1.0, 5.0], [4.0, 2.0]], axis=1).tolist()
    [5.0, 4.0]
    """
    return _as_tensor(x).max(axis, keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = min x over `axis`, the smallest element; the gradient goes to it, in equal shares where several tie.

    Args: axis, one, a tuple of several, or None for all; keepdims, whether they stay, with length 1.
    Raises: ShapeError for an axis that x does not have, or where there is no element.

    >>> import tinyrnn as tr
    >>> tr.min([[1.0, 5.0], [4.0, 2.0]], axis=1).tolist()
    [1.0, 2.0]
    """
    return _as_tensor(x).min(axis, keepdims)


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the first i along `axis` with x[i] = max x: where the largest element stands, int64; no gradient.

    Args: axis, one, or None for the place in x laid out in one row; keepdims, whether it stays, with length 1.
    Raises: ShapeError for an axis that x does not have, or where there is no element.

    >>> import tinyrnn as tr
    >>> tr.argmax([[1.0, 5.0], [4.0, 2.0]], axis=1).tolist()
    [1, 0]
    """
    return _as_tensor(x).argmax(axis, keepdims)


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log Σ eˣ over `axis`, with no overflow; −∞ where every x is −∞, with gradient 0.

    Args: axis, one, a tuple of several, or None for all; keepdims, whether they stay, with length 1.
    Raises: ShapeError for an axis that x does not have, or where there is no element.

    >>> import tinyrnn as tr
    >>> tr.logsumexp([1000.0, 0.0]).item()
    1000.0
    """
    return apply(p.logsumexp, x, axis=axis, keepdims=keepdims)


# ---------------------------------------------------------------- shape


def reshape(x: Any, shape: int | Sequence[int]) -> Tensor:
    """Return the same elements in another shape.

    Args: x; shape, an int or several, of which one may be -1 and is computed.
    Raises: ShapeError for a shape of another number of elements.

    >>> import tinyrnn as tr
    >>> tr.reshape([1, 2, 3, 4, 5, 6], (2, -1)).tolist()
    [[1, 2, 3], [4, 5, 6]]
    """
    return _as_tensor(x).reshape(shape)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Tensor:
    """Return x with its axes in the order of `axes`, reversed if None is given.

    Raises: ShapeError unless each axis of x is named once.

    >>> import tinyrnn as tr
    >>> tr.transpose(tr.zeros(5, 2, 3), (1, 0, 2)).shape  # (T, B, I) to (B, T, I)
    (2, 5, 3)
    """
    return _as_tensor(x).transpose(*(() if axes is None else (tuple(axes),)))


def swapaxes(x: Any, axis1: int, axis2: int) -> Tensor:
    """Return x with two axes, `axis1` and `axis2`, exchanged.

    Raises: ShapeError for an axis that x does not have; DTypeError for one that is not an int.

    >>> import tinyrnn as tr
    >>> tr.swapaxes(tr.zeros(5, 2, 3), 0, 1).shape
    (2, 5, 3)
    """
    return _as_tensor(x).swapaxes(axis1, axis2)


def broadcast_to(x: Any, shape: int | Sequence[int]) -> Tensor:
    """Repeat x along new axes and axes of length 1 until it has `shape`; its gradient is summed over the copies.

    Raises: ShapeError for a shape that x cannot be repeated to.

    >>> import tinyrnn as tr
    >>> tr.broadcast_to([1, 2], (3, 2)).tolist()
    [[1, 2], [1, 2], [1, 2]]
    """
    return apply(p.broadcast_to, x, shape=_shape((shape,)))


def squeeze(x: Any, axis: Axis = None) -> Tensor:
    """Return x without axes of length 1: one `axis`, a tuple of several, or (None) all of them.

    Raises: ShapeError for an axis that x does not have, or of another length; DTypeError for one that is not an int.

    >>> import tinyrnn as tr
    >>> tr.squeeze(tr.zeros(5, 1, 3), axis=1).shape
    (5, 3)
    """
    return _as_tensor(x).squeeze(axis)


def expand_dims(x: Any, axis: int) -> Tensor:
    """Return x with a new axis of length 1 that stands at `axis` in the result.

    Raises: ShapeError for an axis that the result would not have.

    >>> import tinyrnn as tr
    >>> tr.expand_dims(tr.zeros(5, 3), 1).shape
    (5, 1, 3)
    """
    x = _as_tensor(x)
    if not isinstance(axis, int) or not -x.ndim - 1 <= axis <= x.ndim:
        raise ShapeError(f"expand_dims: axis {axis}; expected one from {-x.ndim - 1} to {x.ndim}")
    at = axis % (x.ndim + 1)
    return x.reshape((*x.shape[:at], 1, *x.shape[at:]))


def concatenate(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """Join tensors `xs` along an `axis` that they have; every other axis must agree.

    Raises: ShapeError for shapes that do not fit, or no tensor at all; DTypeError for plain numbers.

    >>> import tinyrnn as tr
    >>> tr.concatenate([[1, 2], [3]]).tolist()
    [1, 2, 3]
    """
    return apply(p.concatenate, *_several("concatenate", xs), axis=axis)


def stack(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """Join tensors `xs` of one shape along a new axis, which stands at `axis` in the result.

    Raises: ShapeError for shapes that differ, or no tensor at all; DTypeError for plain numbers.

    >>> import tinyrnn as tr
    >>> h = [tr.zeros(2, 4), tr.ones(2, 4), tr.ones(2, 4)]  # T = 3 steps of (B, H)
    >>> tr.stack(h).shape
    (3, 2, 4)
    """
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

    Raises: ShapeError for an axis that x does not have.

    >>> import tinyrnn as tr
    >>> [x_t.tolist() for x_t in tr.unstack([[1, 2], [3, 4]])]
    [[1, 2], [3, 4]]
    """
    x = _as_tensor(x)
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"unstack: axis {axis} of shape {x.shape}; expected one from {-x.ndim} to {x.ndim - 1}")
    return apply(p.unstack, x, axis=axis % x.ndim) if x.shape[axis] else ()


def split(x: Any, sections: int | Sequence[int], axis: int = -1) -> tuple[Tensor, ...]:
    """Cut x along `axis` into `sections` equal parts, or, given several, at those positions, as NumPy does.

    Raises: ShapeError for an axis that x does not have, parts that would not be equal, or positions that do not rise;
        DTypeError for sections that are neither an int nor ints.

    >>> import tinyrnn as tr
    >>> i, f = tr.split([1, 2, 3, 4], 2)
    >>> i.tolist(), f.tolist()
    ([1, 2], [3, 4])
    """
    x = _as_tensor(x)
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"split: axis {axis} of shape {x.shape}; expected one from {-x.ndim} to {x.ndim - 1}")
    n = x.shape[axis]
    if isinstance(sections, Integral):
        parts = int(sections)
        if parts < 1 or n % parts:
            raise ShapeError(f"split: axis {axis} of {x.shape} has length {n}; expected a multiple of {parts}")
        bounds = [k * (n // parts) for k in range(parts + 1)]
    else:
        positions: Any = sections
        try:
            bounds = [0, *map(operator.index, positions), n]
        except TypeError:
            raise DTypeError(f"split: sections is {sections!r}; expected an int, or several positions") from None
        if sorted(bounds) != bounds:
            raise ShapeError(f"split: positions {bounds[1:-1]}; expected increasing numbers from 0 to {n}")
    return apply(p.split, x, bounds=tuple(itertools.pairwise(bounds)), axis=axis)


def flip(x: Any, axis: Axis = None) -> Tensor:
    """Return x with the elements along `axis`, one, a tuple of several, or (None) every axis, in reverse order.

    Raises: ShapeError for an axis that x does not have.

    >>> import tinyrnn as tr
    >>> tr.flip([[1, 2], [3, 4]], axis=0).tolist()
    [[3, 4], [1, 2]]
    """
    return apply(p.flip, x, axis=axis)


def pad(x: Any, width: Any, value: float = 0.0) -> Tensor:
    """Put `value` around x: `width` is one number, a (before, after) for every axis, or one such pair for each axis.

    Raises: ShapeError for a width that is none of these, or negative.

    >>> import tinyrnn as tr
    >>> tr.pad([1, 2], (0, 2)).tolist()
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
    if isinstance(width, Integral):
        return ((int(width), int(width)),) * ndim
    if not isinstance(width, tuple | list):
        return None
    if len(width) == 2 and all(isinstance(n, Integral) for n in width):
        return ((width[0], width[1]),) * ndim
    if len(width) == ndim and all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in width):
        return tuple((before, after) for before, after in width)
    return None


# ---------------------------------------------------------------- networks


def linear(x: Any, W: Any, b: Any = None) -> Tensor:
    """y = x W + b: (…, I) and (I, O) to (…, O); b (O,), left out for none.

    Raises: ShapeError for shapes that do not fit.

    >>> import tinyrnn as tr
    >>> tr.linear([[1.0, 2.0]], [[3.0], [4.0]], [0.5]).tolist()
    [[11.5]]
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
    """eˣ / Σ eˣ along `axis`: probabilities, whose sum is 1. They are 0 where every x is −∞, with gradient 0.

    Raises: ShapeError for an axis that x does not have, or of length 0.

    >>> import tinyrnn as tr
    >>> [round(p, 3) for p in tr.softmax([1.0, 2.0]).tolist()]
    [0.269, 0.731]
    """
    return exp(log_softmax(x, axis))


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """x − log Σ eˣ along `axis`, exact at both ends; −∞ where every x is −∞, with gradient 0.

    Raises: ShapeError for an axis that x does not have, or of length 0.

    >>> import tinyrnn as tr
    >>> tr.log_softmax([0.0, -1000.0]).tolist()  # where log(softmax(x)) would be log(0)
    [0.0, -1000.0]
    """
    x = _as_tensor(x)
    top = x.detach().max(axis, keepdims=True)  # a shift changes nothing but the digits that are left
    x = x - where(top == -math.inf, 0.0, top)
    total = logsumexp(x, axis, keepdims=True)
    empty = total == -math.inf
    return where(empty, -math.inf, x - where(empty, 0.0, total))


def cross_entropy(
    logits: Any, targets: Any, ignore_index: int | None = None, reduction: str = "mean", mask: Any = None
) -> Tensor:
    """How surprised the model is by the right class, in nats: 0 if it was certain of it, log V if it knows nothing.

        L = −log softmax(logits)[target]

    Args:
        logits: (…, V), any number of leading axes, such as (T, B, V).
        targets: (…) class numbers from 0 to V-1, of the leading shape, such as (T, B).
        ignore_index: a class number that stands for "no target here" and counts nothing.
        reduction: "mean" over the targets that count (0 if none does), "sum", or "none" for one loss each.
        mask: bool, of the targets' shape, such as `data.mask(lengths)`; where it is False, logits and targets may be
            anything: the loss there is 0, and so is its gradient.

    Raises: ShapeError if the shapes do not fit, also where T happens to equal V; IndexRangeError for a class number
        outside 0 … V-1; DTypeError for targets that are not integers, or a mask that is not boolean; ValueError for an
        unknown reduction.

    >>> import tinyrnn as tr
    >>> logits = tr.zeros(3, 4)  # T = 3 steps, V = 4 classes, all alike
    >>> round(tr.cross_entropy(logits, [0, 3, 1]).item(), 3)  # log 4
    1.386
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
        flat = index.reshape(-1).astype(DType.int64) + arange(index.size) * V
    return x.reshape(-1)[flat].reshape(index.shape)


def binary_cross_entropy(logits: Any, targets: Any, reduction: str = "mean", mask: Any = None) -> Tensor:
    """−t log σ(x) − (1 − t) log(1 − σ(x)) of logits x and targets t, computed as log(1 + eˣ) − x t.

    Args:
        logits: any shape, before the sigmoid.
        targets: of the same shape, from 0 to 1.
        reduction: "mean" over the losses that count (0 if none does), "sum", or "none" for one loss each.
        mask: bool, of the same shape; where it is False, the loss is 0 whatever stands there, and so is its gradient.

    Raises: ShapeError if the shapes differ; DTypeError for a mask that is not boolean; ValueError for an unknown
        reduction.

    >>> import tinyrnn as tr
    >>> round(tr.binary_cross_entropy([0.0, 0.0], [1.0, 0.0]).item(), 3)  # log 2
    0.693
    """
    x, t = _as_tensor(logits), _as_tensor(targets)
    _same_shape("binary_cross_entropy", "logits", x, "targets", t)
    counted = _mask("binary_cross_entropy", mask, x.shape)
    if counted is not None:
        x, t = where(counted, x, 0), where(counted, t, 0)
    softplus = logsumexp(stack([x, x * 0]), axis=0)
    return _reduced("binary_cross_entropy", softplus - x * t, reduction, counted)


def mse_loss(prediction: Any, target: Any, reduction: str = "mean", mask: Any = None) -> Tensor:
    """The mean squared error.

        L = (prediction − target)²

    Args:
        prediction, target: of one shape, any.
        reduction: "mean" over the losses that count (0 if none does), "sum", or "none" for one loss each.
        mask: bool, of the same shape; where it is False, the loss is 0 whatever stands there, and so is its gradient.

    Raises: ShapeError if the shapes differ: they are not broadcast, which here is nearly always a mistake; DTypeError
        for a mask that is not boolean; ValueError for an unknown reduction.

    >>> import tinyrnn as tr
    >>> tr.mse_loss([1.0, 4.0], [1.0, 2.0]).item()
    2.0
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

    Args: x, floats of any shape; p; training; generator, the stream of random numbers, the default one if left out.
    Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".
    Raises: ValueError for p outside [0, 1); DTypeError for an x that is not floats.

    >>> import tinyrnn as tr
    >>> sorted(set(tr.dropout(tr.ones(1000), p=0.5).tolist()))
    [0.0, 2.0]
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
    Raises: ShapeError if the two differ in shape, or are single numbers; ValueError for p outside [0, 1].

    >>> import tinyrnn as tr
    >>> generator = tr.Generator(0)
    >>> tr.scheduled_sampling([1, 2, 3, 4], [5, 6, 7, 8], 0.5, generator).tolist()
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

    Args: x (…, H); weight and bias (H,), 1 and 0 if left out; eps, which keeps an x of equal elements from 0/0.
    Source: Ba, Kiros & Hinton 2016, "Layer Normalization".
    Raises: ShapeError for a weight or bias of another shape.

    >>> import tinyrnn as tr
    >>> tr.layer_norm([[1.0, 3.0], [0.0, 8.0]], eps=0.0).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
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
