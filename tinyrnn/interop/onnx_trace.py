"""One run of a model, written down as ONNX nodes.

A `Trace` listens to every primitive that runs and writes the node, or the few, that ONNX has for it: `WRITERS` says
which. It knows each array by its identity, so what it has not seen before, parameters above all, are constants.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from tinyrnn.autograd import current_scope
from tinyrnn.errors import InteropError
from tinyrnn.interop.gates import Array
from tinyrnn.primitives import Primitive
from tinyrnn.tensor import Tensor

FIRST, LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max  # what x[:] means to a Slice node, in either direction


class Node(NamedTuple):
    """A node to be: what ONNX calls it, the names of its inputs and outputs, its attributes, and where it happened."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    name: str


class Body(NamedTuple):
    """The graph inside a Scan node. Inputs and outputs are (name, dtype)."""

    inputs: list[tuple[str, str]]
    nodes: list[Node]
    outputs: list[tuple[str, str]]


class Trace:
    """What happened in one run: nodes in order, and the constants that they read.

    Args: inputs and parameters, by name. Of the parameters those become constants that are read.
    """

    def __init__(self, inputs: dict[str, Tensor], parameters: dict[str, Tensor]) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}
        self.seen: dict[int, tuple[str, Any]] = {}  # by identity: an array's name, and the array, so that it lives on
        self.parameters = {id(p.array): name for name, p in parameters.items() if name not in inputs}
        self.count = 0
        for name, tensor in inputs.items():
            self.bind(tensor, name)

    # ------------------------------------------------ names

    def bind(self, tensor: Tensor, name: str) -> None:
        """Call a tensor's array `name` from now on."""
        self.seen[id(tensor.array)] = name, tensor.array

    def name(self, x: Tensor) -> str:
        """Return the name of a tensor; one not seen before is a constant."""
        array = x.array
        if id(array) not in self.seen:
            name = self.parameters.get(id(array)) or self._fresh("constant")
            self.constants[name] = x.numpy()
            self.bind(x, name)
        return self.seen[id(array)][0]

    def operand(self, x: Any, like: Tensor) -> str:
        """Return the name of a tensor or, as a constant of the dtype of `like`, a Python number."""
        return self.name(x) if isinstance(x, Tensor) else self.constant(x, like.dtype.value)

    def constant(self, value: Any, dtype: str, what: str = "constant") -> str:
        """Add a constant and return its name."""
        name = self._fresh(what)
        self.constants[name] = np.array(value, dtype)
        return name

    def input(self, tensor: Tensor) -> tuple[str, str]:
        """Give a tensor that a body will be handed a name, and return that and the dtype."""
        self.bind(tensor, self._fresh("input"))
        return self.name(tensor), tensor.dtype.value

    def numbers(self, *values: int) -> str:
        """Add a list of integers, which ONNX takes for shapes and axes, and return its name."""
        return self.constant(values, "int64")

    def _fresh(self, what: str) -> str:
        self.count += 1
        scope = current_scope()
        return f"{f'{scope}/' if scope else ''}{what}_{self.count}"

    # ------------------------------------------------ nodes

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        return self.node_with(1, op, inputs, **attributes)[0]

    def node_with(self, n: int, op: str, inputs: Sequence[str], **attributes: Any) -> tuple[str, ...]:
        """Add a node with n outputs and return their names."""
        name = self._fresh(op)
        outputs = (name,) if n == 1 else tuple(f"{name}.{k}" for k in range(n))
        self.nodes.append(Node(op, tuple(inputs), outputs, attributes, name))
        return outputs

    def __call__(self, op: Primitive, operands: tuple[Any, ...], params: dict[str, Any], result: Any) -> None:
        """Write a primitive that has run: what the mode's listener is called with."""
        if op.name not in WRITERS:
            raise InteropError(
                f"export_onnx: {op.name!r} in {current_scope()} has no ONNX node here; write that part of the "
                "model with operations that have: " + ", ".join(sorted(WRITERS))
            )
        outputs = WRITERS[op.name](self, result, *operands, **params)
        results = result if isinstance(result, tuple) else (result,)
        for tensor, name in zip(results, (outputs,) if isinstance(outputs, str) else outputs, strict=True):
            self.bind(tensor, name)

    @contextmanager
    def body(self) -> Iterator[list[Node]]:
        """Collect the nodes of the `with` block apart, for the graph inside a Scan node."""
        outer, self.nodes = self.nodes, []
        try:
            yield self.nodes
        finally:
            self.nodes = outer


# ---------------------------------------------------------------- each primitive

Writer = Callable[..., str | tuple[str, ...]]
WRITERS: dict[str, Writer] = {}
"""By primitive: (trace, result, *operands, **parameters) -> the name of the result, or names."""


def writes(name: str) -> Callable[[Writer], Writer]:
    """Put a function into WRITERS."""

    def put(writer: Writer) -> Writer:
        WRITERS[name] = writer
        return writer

    return put


def _elementwise(op: str) -> Writer:
    """Return a writer of one node with the primitive's operands, of which plain numbers take on the others' dtype."""

    def write(trace: Trace, y: Any, *operands: Any) -> str:
        like = next(x for x in reversed(operands) if isinstance(x, Tensor))  # in where(mask, a, b): not the mask
        return trace.node(op, *(trace.operand(x, like) for x in operands))

    return write


WRITERS |= {
    name: _elementwise(op)
    for name, op in {
        "abs": "Abs",
        "accumulate": "Sum",
        "add": "Add",
        "divide": "Div",
        "equal": "Equal",
        "exp": "Exp",
        "greater": "Greater",
        "greater_equal": "GreaterOrEqual",
        "less": "Less",
        "less_equal": "LessOrEqual",
        "log": "Log",
        "logical_and": "And",
        "logical_not": "Not",
        "logical_or": "Or",
        "matmul": "MatMul",
        "maximum": "Max",
        "minimum": "Min",
        "multiply": "Mul",
        "negative": "Neg",
        "power": "Pow",
        "relu": "Relu",
        "sigmoid": "Sigmoid",
        "sign": "Sign",
        "sqrt": "Sqrt",
        "subtract": "Sub",
        "tanh": "Tanh",
        "to": "Identity",
        "where": "Where",
    }.items()
}


@writes("not_equal")
def _not_equal(trace: Trace, y: Tensor, a: Any, b: Any) -> str:
    return trace.node("Not", str(WRITERS["equal"](trace, y, a, b)))


@writes("linear")
def _linear(trace: Trace, y: Tensor, x: Tensor, W: Tensor, b: Tensor) -> str:
    return trace.node("Add", trace.node("MatMul", trace.name(x), trace.name(W)), trace.name(b))


@writes("isfinite")
def _isfinite(trace: Trace, y: Tensor, x: Tensor) -> str:
    bad = (trace.node(op, trace.name(x)) for op in ("IsNaN", "IsInf"))
    return trace.node("Not", trace.node("Or", *bad))


@writes("clip")
def _clip(trace: Trace, y: Tensor, x: Tensor, *, low: Any = None, high: Any = None) -> str:
    bounds = ("" if bound is None else trace.operand(bound, x) for bound in (low, high))
    return trace.node("Clip", trace.name(x), *bounds)


@writes("astype")
def _astype(trace: Trace, y: Tensor, x: Tensor, *, dtype: Any) -> str:
    return trace.node("Cast", trace.name(x), to=y.dtype.value)


def _reduction(op: str) -> Writer:
    def write(trace: Trace, y: Tensor, x: Tensor, *, axis: Any = None, keepdims: bool = False) -> str:
        name = trace.name(x)
        if x.dtype != y.dtype:  # NumPy adds up small integers in int64
            name = trace.node("Cast", name, to=y.dtype.value)
        if axis is None:
            return trace.node(op, name, keepdims=int(keepdims))
        axes = trace.numbers(*(axis if isinstance(axis, tuple) else (axis,)))
        return trace.node(op, name, axes, keepdims=int(keepdims), noop_with_empty_axes=1)

    return write


WRITERS |= {
    name: _reduction(op)
    for name, op in {"sum": "ReduceSum", "max": "ReduceMax", "min": "ReduceMin", "logsumexp": "ReduceLogSumExp"}.items()
}


@writes("argmax")
def _argmax(trace: Trace, y: Tensor, x: Tensor, *, axis: int | None = None, keepdims: bool = False) -> str:
    if axis is not None:
        return trace.node("ArgMax", trace.name(x), axis=axis, keepdims=int(keepdims))
    first = trace.node("ArgMax", trace.node("Reshape", trace.name(x), trace.numbers(-1)), axis=0, keepdims=0)
    return trace.node("Reshape", first, trace.numbers(*y.shape))


@writes("reshape")
def _reshape(trace: Trace, y: Tensor, x: Tensor, *, shape: tuple[int, ...]) -> str:
    return trace.node("Reshape", trace.name(x), trace.numbers(*shape))


@writes("transpose")
def _transpose(trace: Trace, y: Tensor, x: Tensor, *, axes: tuple[int, ...]) -> str:
    return trace.node("Transpose", trace.name(x), perm=list(axes))


@writes("broadcast_to")
def _broadcast_to(trace: Trace, y: Tensor, x: Tensor, *, shape: tuple[int, ...]) -> str:
    return trace.node("Expand", trace.name(x), trace.numbers(*shape))


@writes("flip")
def _flip(trace: Trace, y: Tensor, x: Tensor, *, axis: Any = None) -> str:
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return _sliced(trace, trace.name(x), {a: slice(None, None, -1) for a in axes})


@writes("pad")
def _pad(trace: Trace, y: Tensor, x: Tensor, *, widths: Any, value: float = 0.0) -> str:
    before, after = zip(*widths, strict=True)
    return trace.node("Pad", trace.name(x), trace.numbers(*before, *after), trace.constant(value, x.dtype.value))


@writes("concatenate")
def _concatenate(trace: Trace, y: Tensor, *xs: Any, axis: int = 0) -> str:
    return trace.node("Concat", *map(trace.name, xs), axis=axis)


@writes("stack")
def _stack(trace: Trace, y: Tensor, *xs: Any, axis: int = 0) -> str:
    return trace.node("Concat", *(trace.node("Unsqueeze", trace.name(x), trace.numbers(axis)) for x in xs), axis=axis)


@writes("unstack")
def _unstack(trace: Trace, y: Any, x: Tensor, *, axis: int = 0) -> tuple[str, ...]:
    n = x.shape[axis]
    parts = trace.node_with(n, "Split", (trace.name(x), trace.numbers(*[1] * n)), axis=axis)
    return tuple(trace.node("Squeeze", part, trace.numbers(axis)) for part in parts)


@writes("split")
def _split(trace: Trace, y: Any, x: Tensor, *, bounds: Any, axis: int) -> tuple[str, ...]:
    lengths = trace.numbers(*(stop - start for start, stop in bounds))
    return trace.node_with(len(bounds), "Split", (trace.name(x), lengths), axis=axis)


@writes("getitem")
def _getitem(trace: Trace, y: Tensor, x: Tensor, *, index: Any) -> str:
    """x[index]: slices make a Slice, an int or an array of ints a Gather, and None an Unsqueeze."""
    parts = list(index) if isinstance(index, tuple) else [index]
    shown = sum(part is not None and part is not ... for part in parts)
    hole = next((k for k, part in enumerate(parts) if part is ...), len(parts))
    parts[hole : hole + 1] = [slice(None)] * (x.ndim - shown)
    axes = [part for part in parts if part is not None]
    arrays = [part for part in axes if not isinstance(part, int | slice)]
    mixed = len(arrays) > 1 or (arrays and any(isinstance(part, int) for part in axes))
    if mixed or any("int" not in str(array.dtype) for array in arrays):
        raise InteropError(
            f"export_onnx: an index in {current_scope()} picks with a mask, or with several arrays or ints at "
            "once, which is no single ONNX node. Use tr.where for a mask, and index one axis at a time"
        )
    slices = {a: part for a, part in enumerate(axes) if isinstance(part, slice) and part != slice(None)}
    name = _sliced(trace, trace.name(x), slices)
    for a in reversed(range(len(axes))):  # from the back, since an int takes its axis away
        if not isinstance(axes[a], slice):
            name = trace.node("Gather", name, _positions(trace, x, axes[a]), axis=a)
    new = [sum(map(_axes_of, parts[:k])) for k, part in enumerate(parts) if part is None]
    return trace.node("Unsqueeze", name, trace.numbers(*new)) if new else name


def _axes_of(part: Any) -> int:
    """Return how many axes one part of an index leaves in the result."""
    if isinstance(part, int):
        return 0
    return 1 if part is None or isinstance(part, slice) else len(part.shape)


def _positions(trace: Trace, x: Tensor, part: Any) -> str:
    """Return the name of what a Gather node picks: an int, or an array of them."""
    if isinstance(part, int):
        return trace.constant(part, "int64")
    array = Tensor(part, x.backend)
    name = trace.name(array)
    return name if array.dtype in ("int32", "int64") else trace.node("Cast", name, to="int64")


def _sliced(trace: Trace, name: str, slices: dict[int, slice]) -> str:
    """Write x[slice] for some axes."""
    if not slices:
        return name
    steps = [1 if s.step is None else s.step for s in slices.values()]
    ends = [(0, LAST) if step > 0 else (LAST, FIRST) for step in steps]
    starts = [start if s.start is None else s.start for s, (start, _) in zip(slices.values(), ends, strict=True)]
    stops = [stop if s.stop is None else s.stop for s, (_, stop) in zip(slices.values(), ends, strict=True)]
    lists = (trace.numbers(*map(operator.index, ints)) for ints in (starts, stops, slices, steps))
    return trace.node("Slice", name, *lists)
