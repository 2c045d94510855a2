"""What a function leaves that ran on symbols: expressions for its results and gradients, and how to compute them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tinyrnn import backends
from tinyrnn.autograd import ArrayOps, Edge, Meta, changed_mode, walk
from tinyrnn.backends import Backend, DType
from tinyrnn.errors import BackendError, DTypeError, FusionError, ShapeError
from tinyrnn.primitives import Primitive, registry
from tinyrnn.symbols import Symbol, Trace
from tinyrnn.tensor import Tensor


class Traced:
    """A function that ran on symbols: its results, and their gradients.

    Fields:
        inputs: the symbol of each operand, None for a constant. results: the symbols it returned; single: as one.
        columns: the operands, by number, that have no gradient here: (…, 1), whose gradient would be a sum; and masks.
        gys: symbols for the gradients that enter at the results. edges: where each symbol stands in the graph.
    """

    def __init__(self, function: Callable[..., Any], operands: Sequence[Any]) -> None:
        self.trace = Trace(function.__name__)
        floating = [x.dtype for x in operands if isinstance(x, Tensor) and x.dtype.is_floating]
        self.working = floating[0] if floating else DType.float32
        self.floats = {k for k, x in enumerate(operands) if type(x) is float}
        self.inputs: list[Symbol | None] = [self._input(k, x) for k, x in enumerate(operands)]
        self.edges: dict[Symbol, Edge] = {}
        arguments: list[Any] = []
        widest = max(x.shape[-1] for x in operands if isinstance(x, Tensor) and x.shape)
        for x, symbol in zip(operands, self.inputs, strict=True):
            arguments.append(x if symbol is None else Tensor(symbol, self.trace))
            if isinstance(x, Tensor) and x.dtype.is_floating:
                arguments[-1].requires_grad = not (x.shape and x.shape[-1] == 1 < widest)
        self.columns = [k for k, x in enumerate(operands) if isinstance(x, Tensor) and not arguments[k].requires_grad]
        self.leaves = [(x.node, 0) if isinstance(x, Tensor) and x.node else None for x in arguments]
        try:
            with changed_mode(grad=True, listener=self._note, back_listener=None, timer=None):
                returned = function(*arguments)
        except (ShapeError, DTypeError) as error:
            given = (f"{x.dtype}{list(x.shape)}" if isinstance(x, Tensor) else repr(x) for x in operands)
            error.add_note(f"in the fused function {function.__name__}({', '.join(given)})")
            raise
        except BackendError as error:
            raise FusionError(
                f"@fused {function.__name__}: it computes with a tensor that is not one of its arguments "
                f"({str(error).partition(';')[0]}); "
                "pass it as one"
            ) from error
        self.single = not isinstance(returned, tuple)
        self.tensors = (returned,) if self.single else returned
        for y in self.tensors:
            if not isinstance(y, Tensor) or y.backend is not self.trace:
                raise FusionError(
                    f"@fused {function.__name__}: it returned {type(y).__name__}; expected tensors made of its operands"
                )
        self.results: list[Symbol] = [y.array for y in self.tensors]
        self.gys = [self.trace.symbol("input", (f"gy{i}",), y.shape, y.dtype) for i, y in enumerate(self.results)]

    def _input(self, k: int, x: Any) -> Symbol | None:
        if isinstance(x, Tensor):
            return self.trace.symbol("input", (k,), x.shape, x.dtype)
        return self.trace.symbol("input", (k,), (), self.working) if type(x) is float else None

    def _note(self, op: Primitive, operands: Any, params: Any, result: Any) -> None:
        for y in result if isinstance(result, tuple) else (result,):
            if y.node:
                self.edges.setdefault(y.array, (y.node, y.index))

    def gradients(self, stack: Iterable[tuple[Symbol, Symbol]] = ()) -> list[Symbol | None]:
        """Carry `gys`, and the gradients of symbols on the stack, given with them, back to the inputs."""
        roots: dict[Edge, Symbol] = {}
        entering = [((y.node, y.index), gy) for y, gy in zip(self.tensors, self.gys, strict=True) if y.node]
        for edge, gy in [*entering, *((self.edges[s], g) for s, g in stack)]:
            roots[edge] = roots[edge] + gy if edge in roots else gy
        ops = ArrayOps(self.trace)
        ops.defers = False
        with changed_mode(grad=False, listener=None, back_listener=None, timer=None):
            found = walk(roots, lambda _: ops, wanted={leaf for leaf in self.leaves if leaf})
        return [found.get(leaf) if leaf else None for leaf in self.leaves]


class Replay:
    """Computes symbols from known ones, operation by operation, on whatever `ops` computes with."""

    def __init__(self, ops: Any, home: Backend, known: dict[Symbol, Any]) -> None:
        self.ops, self.home, self.known = ops, home, known

    def whole(self, s: Symbol, shape: tuple[int, ...] | None = None) -> Any:
        """Return the values of a symbol, repeated until they have its shape, or a larger one."""
        x, shape = self.value(s), s.shape if shape is None else shape
        if isinstance(x, bool | int | float):
            return self.ops.zeros(Meta(shape, s.dtype, self.home)) + x
        return x if tuple(x.shape) == shape else self.ops.broadcast_to(x, shape=shape)

    def value(self, s: Any) -> Any:
        """Return what stands for a symbol, or a number itself."""
        if not isinstance(s, Symbol):
            return s
        if s not in self.known:
            self.known[s] = self.computed(s)
        return self.known[s]

    def computed(self, s: Symbol) -> Any:
        """Do the operation."""
        if s.op == "literal":
            return s.arguments[0]
        if s.op == "part":
            x, start = s.arguments
            return self.ops.getitem(self.value(x), index=(..., slice(start, start + s.shape[-1])))
        if s.op == "join":
            parts = [self.whole(part, (*s.shape[:-1], part.shape[-1])) for part in s.arguments]
            return self.ops.concatenate(*parts, axis=-1)
        if s.op == "astype":
            return self.ops.astype(self.value(s.arguments[0]), dtype=s.dtype)
        values = [self.value(a) for a in s.arguments]
        if all([isinstance(x, int | float) for x in values]):  # numbers alone stay numbers, with all their digits
            return registry[s.op].forward(backends.get("numpy"), *values)
        result = getattr(self.ops, s.op)(*values)
        return self.ops.astype(result, dtype=s.dtype) if s.op == "where" else result  # which may choose of two numbers
