"""From expressions to kernels: the grid of rows and columns, what is kept for the way back, and the code itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from tinyrnn.backends import DType, Input, Instruction, Kernel, Output
from tinyrnn.symbols import Symbol, broadcast
from tinyrnn.traced import Traced

DEAR = {"exp", "log", "tanh", "power"}  # kept for the backward kernel rather than computed again
MOST_LANES = 16


class Grid:
    """The rows and columns that a kernel runs over, and how each operand lies on them.

    Results are (…, lanes·C), and so are the operands, but for those that are the same for every row, (lanes·C,), or for
    every column, (…, 1). The leading axes together are the R rows.

    Raises: NoKernel where the shapes are not like that.
    """

    def __init__(self, traced: Traced, gradients: Iterable[Symbol | None]) -> None:
        inputs = [s for s in traced.inputs if s is not None and s.shape]
        self.leading = broadcast(*(s.shape[:-1] for s in inputs))
        self.R = math.prod(self.leading)
        written = [*traced.results, *(g for g in gradients if g is not None)]
        widths = {part.shape[-1] if part.shape else 0 for s in written for part in lanes_of(s)}
        self.C = math.gcd(*widths)
        fitting = all(s.shape and s.shape == (*self.leading, s.shape[-1]) for s in traced.results)
        fitting = fitting and not any(s.op == "literal" for s in written)
        if self.R * self.C == 0 or not fitting or any(s.shape[-1] > MOST_LANES * self.C for s in written):
            raise NoKernel
        self.layouts = [None if s is None else self.layout(traced, s) for s in traced.inputs]

    def layout(self, traced: Traced, s: Symbol) -> Input:
        """Return how an operand lies on the grid."""
        if not s.shape:
            if s.arguments[0] in traced.floats:
                return Input(s.dtype, "number")
            raise NoKernel
        leading, width = s.shape[:-1], s.shape[-1]
        if width == 1 < self.C and leading == self.leading:
            return Input(s.dtype, "column")
        if width % self.C or width > MOST_LANES * self.C:
            raise NoKernel
        if len(s.shape) == 1 and self.leading:
            return Input(s.dtype, "row", width // self.C)
        if leading != self.leading:
            raise NoKernel
        return Input(s.dtype, "rows", width // self.C)

    def lanes(self, s: Symbol) -> list[Symbol]:
        """Cut a symbol into lanes, each C wide."""
        return [s.trace.part(s, k, k + self.C) for k in range(0, s.shape[-1], self.C)] if s.shape[-1] > 1 else [s]


class NoKernel(Exception):
    """The shapes are not rows and columns; the function runs primitive by primitive."""


def lanes_of(s: Symbol) -> tuple[Symbol, ...]:
    """Return the parts that a symbol is joined of, itself if it is not."""
    return s.arguments if s.op == "join" else (s,)


def kept(traced: Traced, grid: Grid, gradients: Iterable[Symbol | None]) -> tuple[set[int], set[int], list[Symbol]]:
    """Choose what the forward kernel keeps for the backward kernel: operands and results by number, and the stack.

    Kept are an operand that the gradients read whole, a result that they read, and on the stack whatever is dear to
    compute again, and single lanes of an operand that is otherwise not needed any more.
    """
    operands: dict[int, set[int]] = {}
    results: set[int] = set()
    stack: list[Symbol] = []
    sources: dict[Symbol, tuple[set[int], int]] = {}
    for k, s in enumerate(traced.inputs):
        for lane, part in enumerate(grid.lanes(s) if s is not None and s.shape else ()):
            sources[part] = operands.setdefault(k, set()), lane
    for k, s in enumerate(traced.results):
        sources |= {part: (results, k) for part in grid.lanes(s) if part not in sources}
    dear = dear_ones(traced)

    def at_hand(s: Symbol) -> bool:
        """Tell whether s is one operation away from what is there anyway, as tanh(c') is: then time saves memory."""
        return s.op in DEAR and all([a in sources for a in s.arguments if isinstance(a, Symbol)])

    seen: set[Symbol] = set()
    waiting = [part for g in gradients if g is not None for part in grid.lanes(g)]
    while waiting:
        s = waiting.pop()
        if s in seen:
            continue
        seen.add(s)
        if s in sources:
            uses, number = sources[s]
            uses.add(number)
        elif s in traced.edges and s in dear and not at_hand(s):
            stack.append(s)
        elif s.op not in ("input", "part"):
            waiting += [a for a in s.arguments if isinstance(a, Symbol)]
    whole = set()
    for k, lanes in operands.items():
        s = traced.inputs[k]
        assert s is not None
        parts = grid.lanes(s)
        few = [parts[lane] for lane in sorted(lanes)]
        alike = not stack or all(part.dtype is stack[0].dtype for part in few)  # the stack is one array
        if len(few) < len(parts) and alike and all(part in traced.edges for part in few):
            stack += few
        elif few:
            whole.add(k)
    return whole, results, stack


def dear_ones(traced: Traced) -> set[Symbol]:
    """Return the symbols that a dear operation stands behind, without one in between that could be kept itself."""
    dear: set[Symbol] = set()
    for s in traced.trace.made.values():  # in the order they were made: arguments before results
        inner = [a for a in s.arguments if isinstance(a, Symbol) and a not in traced.edges]
        if s.op in DEAR or any([a in dear for a in inner]):
            dear.add(s)
    return dear


class Writer:
    """Writes a kernel: values that can be read, then outputs, each with all that it takes to compute it."""

    def __init__(self, name: str, grid: Grid) -> None:
        self.name, self.grid = name, grid
        self.inputs: list[Input] = []
        self.outputs: list[Output] = []
        self.code: list[Instruction] = []
        self.known: dict[Any, int] = {}
        self.readable: dict[Symbol, tuple[int, int]] = {}

    def read(self, array: Input, lanes: Iterable[Symbol]) -> None:
        """Add an input, whose lanes are these symbols."""
        self.readable |= {s: (len(self.inputs), lane) for lane, s in enumerate(lanes)}
        self.inputs.append(array)

    def write(self, layout: str, lanes: Sequence[Symbol], meaning: str) -> None:
        """Add an output with these lanes."""
        self.outputs.append(Output(lanes[0].dtype, layout, tuple([self.value(s, s.dtype) for s in lanes]), meaning))

    def value(self, s: Any, dtype: DType) -> int:
        """Return the place in the code of a symbol, or of a number that meets values of `dtype`."""
        number = s if not isinstance(s, Symbol) else s.arguments[0] if s.op == "literal" else None
        key = s if number is None else (type(number), repr(number), dtype)
        if key not in self.known:
            if number is not None:
                step = Instruction("literal", (number,), dtype)
            elif s in self.readable:
                step = Instruction("load", self.readable[s], s.dtype)
            else:
                inner = [a.dtype for a in s.arguments if isinstance(a, Symbol)]
                meeting = s.dtype if s.op in ("where", "astype") or s.dtype is not DType.bool else inner[0]
                step = Instruction(s.op, tuple([self.value(a, meeting) for a in s.arguments]), s.dtype)
            self.known[key] = len(self.code)
            self.code.append(step)
        return self.known[key]

    def kernel(self) -> Kernel:
        """Return what was written."""
        return Kernel(self.name, tuple(self.inputs), tuple(self.code), tuple(self.outputs))
