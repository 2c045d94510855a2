"""A fused kernel as data: one elementwise computation on a grid of R rows and C columns, which each backend prints.

The arrays are as wide as C, or several times as wide: an LSTM's z (B, 4H) is one row of four *lanes* for each sequence
of the batch, and the kernel reads lane k of it at z[i, k C + j]. `fuse` writes kernels, a backend's `compile` makes
them run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tinyrnn.backends.base import DType

OPERATORS = {  # as Python and C write them alike
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "negative": "-{0}",
    "equal": "{0} == {1}",
    "not_equal": "{0} != {1}",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "logical_and": "{0} & {1}",
    "logical_or": "{0} | {1}",
}


@dataclass(frozen=True)
class Input:
    """An array that a kernel reads, or a number.

    Fields:
        dtype: of its elements.
        layout: "rows" (R, lanes·C); "row" (lanes·C,), the same for every row; "column" (R,), the same for every column;
            "stack" (lanes, R, C); "number", a Python number given at each call.
        lanes: how many times it is as wide as the grid.
        meaning: what the function that was fused calls it; two kernels that differ in this alone are equal.

    >>> from tinyrnn.backends import DType, Input
    >>> z = Input(DType.float32, "rows", lanes=4, meaning="z")
    >>> z.lanes  # (B, 4H): the gates i, f, g and o of an LSTM, side by side
    4
    """

    dtype: DType
    layout: str
    lanes: int = 1
    meaning: str = field(default="", compare=False)


@dataclass(frozen=True)
class Output:
    """An array that a kernel writes.

    Fields: dtype, of its elements; layout, "rows" or "stack", as for an Input; values, one for each lane, by their
        place in the code; meaning, for people.

    >>> from tinyrnn.backends import DType, Output
    >>> h = Output(DType.float32, "rows", values=(9,), meaning="result 0")
    >>> h.values  # (B, H): one lane, whose value is at place 9 of the code
    (9,)
    """

    dtype: DType
    layout: str
    values: tuple[int, ...]
    meaning: str = field(default="", compare=False)


@dataclass(frozen=True)
class Instruction:
    """One value: op applied to earlier values.

    Fields: op, that of a primitive, or "load", "literal" or "astype"; arguments, the places in the code of those
        values, for "load" an (input, lane), for "literal" a number; dtype, of the value.

    >>> from tinyrnn.backends import DType, Instruction
    >>> load = Instruction("load", (0, 2), DType.float32)  # g: lane 2 of input 0
    >>> tanh = Instruction("tanh", (0,), DType.float32)  # of place 0 of the code
    >>> [instruction.op for instruction in (load, tanh)]
    ['load', 'tanh']
    """

    op: str
    arguments: tuple[Any, ...]
    dtype: DType


@dataclass(frozen=True)
class Kernel:
    """What is computed at each place (i, j) of the grid: `code`, from `inputs` into `outputs`; `name` is for people.

    >>> import numpy as np
    >>> from tinyrnn.backends import DType, Input, Instruction, Kernel, Output, get
    >>> f = DType.float32
    >>> code = Instruction("load", (0, 0), f), Instruction("add", (0, 0), f)
    >>> double = Kernel("double", (Input(f, "rows"),), code, (Output(f, "rows", (1,)),))
    >>> run = get("numpy").compile(double)
    >>> run(1, 2, [np.array([[3.0, 4.0]], "float32")], [None])
    [array([[6., 8.]], dtype=float32)]
    """

    name: str
    inputs: tuple[Input, ...]
    code: tuple[Instruction, ...]
    outputs: tuple[Output, ...]

    @property
    def legend(self) -> str:
        """What its arrays are: `x0: z, x1: r; y0: result 0`."""
        inputs = [f"x{k}: {x.meaning}" for k, x in enumerate(self.inputs)]
        outputs = [f"y{k}: {y.meaning}" for k, y in enumerate(self.outputs)]
        return f"{', '.join(inputs)}; {', '.join(outputs)}"

    @property
    def stored(self) -> dict[int, list[tuple[int, int]]]:
        """Where each value goes that is an output: its place in the code to (output, lane)s."""
        places: dict[int, list[tuple[int, int]]] = {}
        for k, output in enumerate(self.outputs):
            for lane, value in enumerate(output.values):
                places.setdefault(value, []).append((k, lane))
        return places
