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

    Layouts: "rows" (R, lanes·C); "row" (lanes·C,), the same for every row; "column" (R,), the same for every column;
    "stack" (lanes, R, C); "number", a Python number given at each call.
    """

    dtype: DType
    layout: str
    lanes: int = 1
    meaning: str = field(default="", compare=False)


@dataclass(frozen=True)
class Output:
    """An array that a kernel writes: the values of its lanes, by their place in the code; "rows" or "stack"."""

    dtype: DType
    layout: str
    values: tuple[int, ...]
    meaning: str = field(default="", compare=False)


@dataclass(frozen=True)
class Instruction:
    """One value: op applied to earlier values.

    The op is that of a primitive; or "load", of (input, lane); or "literal", of a number; or "astype".
    """

    op: str
    arguments: tuple[Any, ...]
    dtype: DType


@dataclass(frozen=True)
class Kernel:
    """What is computed at each place (i, j) of the grid: `code`, from `inputs` into `outputs`."""

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
