"""Symbols: arrays without values, on a backend that only remembers; what a function leaves that is run on them.

A function of tensors does not know which backend computes. Run on a `Trace`, it leaves an expression for each of its
results, made of elementwise operations, and an ordinary graph of nodes, through which the ordinary walk carries more
symbols back: expressions for the gradients. `fuse` makes kernels of them.
"""

from __future__ import annotations

import functools
import itertools
from numbers import Real
from typing import Any

from tinyrnn.backends import Backend, DType, promote
from tinyrnn.errors import FusionError, ShapeError


class Symbol:
    """An array without values: an operation and what it is applied to, a shape and a dtype.

    Ops are those of primitives, and "input", "part" (of an input, along the last axis), "join", "literal".
    Two that were made alike in one trace are one and the same object.
    """

    __slots__ = ("arguments", "dtype", "op", "shape", "trace")
    __array_ufunc__ = None

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.trace.to_host(self)

    def __init__(self, trace: Trace, op: str, arguments: tuple[Any, ...], shape: tuple[int, ...], dtype: DType) -> None:
        self.trace, self.op, self.arguments, self.shape, self.dtype = trace, op, arguments, shape, dtype

    def __repr__(self) -> str:
        return f"<symbol {self.op} {self.dtype.value}{list(self.shape)}>"

    def __add__(self, other: Any) -> Symbol:
        return self.trace.make("add", self, other)

    def __radd__(self, other: Any) -> Symbol:
        return self.trace.make("add", other, self)

    def __sub__(self, other: Any) -> Symbol:
        return self.trace.make("subtract", self, other)

    def __rsub__(self, other: Any) -> Symbol:
        return self.trace.make("subtract", other, self)

    def __mul__(self, other: Any) -> Symbol:
        return self.trace.make("multiply", self, other)

    def __rmul__(self, other: Any) -> Symbol:
        return self.trace.make("multiply", other, self)

    def __truediv__(self, other: Any) -> Symbol:
        return self.trace.make("divide", self, other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return self.trace.make("divide", other, self)

    def __pow__(self, other: Any) -> Symbol:
        if isinstance(other, int | float) and other in (1, 2, 3, 4):  # a product is far cheaper
            return functools.reduce(lambda product, _: product * self, range(int(other) - 1), self)
        return self.trace.make("power", self, other)

    def __rpow__(self, other: Any) -> Symbol:
        return self.trace.make("power", other, self)

    def __neg__(self) -> Symbol:
        return self.trace.make("negative", self)

    def __eq__(self, other: object) -> Symbol:  # type: ignore[override]  # elementwise, as in NumPy
        return self.trace.make("equal", self, other)

    def __ne__(self, other: object) -> Symbol:  # type: ignore[override]  # elementwise, as in NumPy
        return self.trace.make("not_equal", self, other)

    def __lt__(self, other: Any) -> Symbol:
        return self.trace.make("less", self, other)

    def __le__(self, other: Any) -> Symbol:
        return self.trace.make("less_equal", self, other)

    def __gt__(self, other: Any) -> Symbol:
        return self.trace.make("greater", self, other)

    def __ge__(self, other: Any) -> Symbol:
        return self.trace.make("greater_equal", self, other)

    def __and__(self, other: Any) -> Symbol:
        return self.trace.make("logical_and", self, other)

    def __or__(self, other: Any) -> Symbol:
        return self.trace.make("logical_or", self, other)

    def __invert__(self) -> Symbol:
        return self.trace.make("logical_not", self)

    __hash__ = object.__hash__


ELEMENTWISE = frozenset({"exp", "log", "sqrt", "tanh", "abs", "sign", "maximum", "minimum", "isfinite", "where"})
MASKS = {"equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "isfinite"}


class Trace(Backend):
    """The backend that symbols live on: it computes nothing, and remembers everything, for one run of a function."""

    name = "fuse"

    def __init__(self, function: str) -> None:
        self.function = function
        self.made: dict[Any, Symbol] = {}

    def __getattr__(self, name: str) -> Any:
        if name in ELEMENTWISE:
            return functools.partial(self.make, name)
        raise FusionError(
            f"@fused {self.function}: {name!r} is not elementwise; a fused function has elementwise operations and "
            "split(x, n), and is given the results of all others, such as matrix products and sums, as arguments"
        )

    # ------------------------------------------------ making symbols

    def symbol(self, op: str, arguments: tuple[Any, ...], shape: tuple[int, ...], dtype: DType) -> Symbol:
        """Return the symbol made so, the one there is if it was made before."""
        key = (op, *((type(a), repr(a)) if isinstance(a, int | float) else id(a) for a in arguments), shape, dtype)
        if key not in self.made:
            self.made[key] = Symbol(self, op, arguments, shape, dtype)
        return self.made[key]

    def make(self, op: str, *arguments: Any) -> Symbol:
        """Apply an elementwise operation, lane by lane where an argument is joined of lanes."""
        arguments = tuple([a if isinstance(a, Symbol | bool | int | float) else self._number(a) for a in arguments])
        joined = next((a for a in arguments if isinstance(a, Symbol) and a.op == "join"), None)
        if joined is not None:
            bounds = bounds_of(joined)
            parts = [[self.part(a, *bound) for a in arguments] for bound in bounds]
            return self.join([self.make(op, *part) for part in parts])
        symbols = [a for a in arguments if isinstance(a, Symbol)]
        shape = broadcast(*(a.shape for a in symbols))
        chosen = arguments[1:] if op == "where" else arguments  # where's first is the mask
        dtypes = [a.dtype for a in chosen if isinstance(a, Symbol)]
        dtype = DType.bool if op in MASKS else promote(*dtypes) if dtypes else DType.float32
        return self.symbol(op, arguments, shape, dtype)

    def _number(self, x: Any) -> float:
        """Return a number of NumPy's as Python's.

        Raises: FusionError for anything else, such as an array that a rule was written with.
        """
        if isinstance(x, Real):
            return float(x)
        raise FusionError(
            f"@fused {self.function}: it, or the rule of an operation in it, computes with {type(x).__name__} data "
            "that is not one of its arguments; pass it as one, a tensor"
        )

    def part(self, x: Any, start: int, stop: int) -> Any:
        """Return x[..., start:stop], of an operation by way of its arguments: only inputs are ever cut."""
        if not isinstance(x, Symbol) or not x.shape or x.shape[-1] == 1 or (start, stop) == (0, x.shape[-1]):
            return x
        shape = (*x.shape[:-1], stop - start)
        if x.op == "join":
            parts = zip(x.arguments, bounds_of(x), strict=True)
            return self.join(
                [
                    self.part(a, max(start, b) - b, min(stop, e) - b)
                    for a, (b, e) in parts
                    if max(start, b) < min(stop, e)
                ]
            )
        if x.op == "literal":
            return self.symbol("literal", x.arguments, shape, x.dtype)
        if x.op == "part":
            (whole, before) = x.arguments
            return self.symbol("part", (whole, before + start), shape, x.dtype)
        if x.op == "input":
            return self.symbol("part", (x, start), shape, x.dtype)
        arguments = tuple(self.part(a, start, stop) for a in x.arguments)
        return self.astype(arguments[0], x.dtype) if x.op == "astype" else self.make(x.op, *arguments)

    def join(self, parts: list[Symbol]) -> Symbol:
        """Put parts side by side along the last axis."""
        flat = [a for part in parts for a in (part.arguments if part.op == "join" else (part,))]
        if len(flat) == 1:
            return flat[0]
        leading = broadcast(*(a.shape[:-1] for a in flat))
        width = sum(a.shape[-1] for a in flat)
        return self.symbol("join", tuple(flat), (*leading, width), flat[0].dtype)

    # ------------------------------------------------ what the engine asks of a backend

    def owns(self, array: object) -> bool:
        return isinstance(array, Symbol)

    def asarray(self, data: Any, dtype: DType | None = None) -> Symbol:
        if isinstance(data, Symbol):
            return data
        if isinstance(data, bool | int | float):
            kind = dtype or (DType.float32 if isinstance(data, float) else DType.of(type(data)))
            return self.symbol("literal", (data,), (), kind)
        raise FusionError(
            f"@fused {self.function}: it computes with {type(data).__name__} data that is not one of its arguments; "
            "pass it as one"
        )

    def to_host(self, array: Symbol) -> Any:
        raise FusionError(
            f"@fused {self.function}: it looks at a value, as `if`, float() and item() do; it is traced once, for all "
            "values: choose element by element with tr.where(mask, a, b), and make no NumPy array, as np.asarray does"
        )

    def copy(self, array: Symbol) -> Symbol:
        return array

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Symbol:
        return self.full(shape, 0, dtype)

    def dtype(self, array: Symbol) -> DType:
        return array.dtype

    def astype(self, array: Symbol, dtype: DType) -> Symbol:
        if array.dtype is dtype:
            return array
        if array.op == "join":
            return self.join([self.astype(part, dtype) for part in array.arguments])
        return self.symbol("astype", (array,), array.shape, dtype)

    def full(self, shape: tuple[int, ...], value: float, dtype: DType) -> Symbol:
        return self.symbol("literal", (value,), shape, dtype)

    def getitem(self, array: Symbol, index: Any) -> Symbol:
        cut = index[-1] if isinstance(index, tuple) else None
        if not isinstance(cut, slice) or len(index) != len(array.shape) or cut.step not in (None, 1):
            raise FusionError(f"@fused {self.function}: it indexes x[{index!r}]; cut with split(x, n), the last axis")
        if any(part != slice(None) for part in index[:-1]):
            raise FusionError(f"@fused {self.function}: it cuts another axis than the last; give it what it needs")
        start, stop, _ = cut.indices(array.shape[-1])
        part: Symbol = self.part(array, start, stop)
        return part

    def concat(self, arrays: tuple[Symbol, ...], axis: int) -> Symbol:
        if axis % len(arrays[0].shape) != len(arrays[0].shape) - 1:
            raise FusionError(f"@fused {self.function}: it joins along axis {axis}; expected the last one")
        return self.join(list(arrays))

    def broadcast_to(self, array: Symbol, shape: tuple[int, ...]) -> Symbol:
        return array + self.symbol("literal", (0,), shape, array.dtype) if array.shape != shape else array

    def sum(self, array: Symbol, axis: Any, keepdims: bool) -> Symbol:
        """Leave the sum over rows, by which a walk undoes broadcasting, to the walk that the kernel is part of."""
        if not isinstance(axis, tuple) or len(array.shape) - 1 in axis or not keepdims:
            return self.__getattr__("sum")
        return array

    def reshape(self, array: Symbol, shape: tuple[int, ...]) -> Symbol:
        if array.shape[-1:] == shape[-1:]:  # what follows `sum` where a walk undoes broadcasting
            return array
        return self.__getattr__("reshape")

    def scatter_add(self, buffer: Any, index: Any, values: Any) -> None:
        self.__getattr__("indexing")

    def pad(self, array: Any, widths: Any, value: float) -> Any:
        return self.__getattr__("pad")

    def uniform(self, generator: Any, shape: Any, dtype: Any) -> Any:
        raise FusionError(f"@fused {self.function}: it draws random numbers; draw them outside and pass them in")

    def synchronize(self) -> None:
        pass


def bounds_of(joined: Symbol) -> list[tuple[int, int]]:
    """Return where each part of a joined symbol starts and stops."""
    edges = itertools.accumulate((part.shape[-1] for part in joined.arguments), initial=0)
    return list(itertools.pairwise(edges))


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that the shapes broadcast to.

    Raises: ShapeError if they do not.
    """
    if len(set(shapes)) == 1:
        return shapes[0]
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    lengths = []
    for axis in zip(*padded, strict=True):
        others = {n for n in axis if n != 1}
        if len(others) > 1:
            raise ShapeError(
                f"shapes {' and '.join(map(str, shapes))} do not fit together: they differ where none is 1; reshape one"
            )
        lengths.append(others.pop() if others else 1)
    return tuple(lengths)
