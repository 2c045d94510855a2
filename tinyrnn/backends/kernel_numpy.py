"""Fused kernels on NumPy: one ufunc for each instruction, on blocks of rows that stay in the cache, into memory kept.

There is no compiler here; what is saved is memory. Values that nobody asked for live in a few scratch blocks, which
are used again and again, and an output is computed where it belongs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyrnn.backends.base import Run
from tinyrnn.backends.kernel import Input, Instruction, Kernel

BLOCK = 32_768  # elements of a scratch block: fewer cost Python, more leave the caches (benchmarks/blocks.py)
UFUNCS = {  # the others are called like their instructions
    "divide": np.true_divide,
    "abs": np.absolute,
    "logical_and": np.bitwise_and,  # of masks and of ints, as & is
    "logical_or": np.bitwise_or,
    "logical_not": np.invert,
}


def source(kernel: Kernel) -> str:
    """Return the kernel as the text of a Python function (R, C, *inputs, *outputs)."""
    arrays = [f"x{k}" for k in range(len(kernel.inputs))] + [f"y{k}" for k in range(len(kernel.outputs))]
    body, scratch = _body(kernel)
    lines = [f"# {kernel.legend}", f"def {kernel.name}({', '.join(['R', 'C', *arrays])}):"]
    lines += ["    height = max(1, BLOCK // C)"]
    lines += [f"    s{n} = scratch({n}, {dtype!r}, height, C)" for n, dtype in enumerate(scratch)]
    lines += ["    for top in range(0, R, height):", "        rows = slice(top, min(top + height, R))"]
    lines += ["        n = rows.stop - top"] if scratch else []
    return "\n".join([*lines, *(f"        {line}" for line in body)]) + "\n"


def build(kernel: Kernel) -> Callable[..., None]:
    """Make a function of the kernel."""
    names: dict[str, Any] = {"BLOCK": BLOCK, "scratch": _scratch, "copyto": np.copyto, "inf": np.inf, "nan": np.nan}
    names |= {step.op: UFUNCS.get(step.op) or getattr(np, step.op, None) for step in kernel.code}
    exec(compile(source(kernel), f"<fused {kernel.name}>", "exec"), names)
    function: Callable[..., None] = names[kernel.name]
    return function


def runner(kernel: Kernel, function: Callable[..., None]) -> Run:
    """Wrap a compiled kernel: see that its inputs are laid out as it expects, and make room for its outputs."""
    axes = {"rows": 2, "row": 1, "column": 1, "stack": 3}
    expected = [(k, axes[x.layout], x) for k, x in enumerate(kernel.inputs) if x.layout != "number"]
    rooms = [(np.dtype(y.dtype.value), y.layout == "stack", len(y.values)) for y in kernel.outputs]

    def laid_out(x: Any, array: Input, R: int, C: int) -> Any:
        n = array.lanes
        shape = {"rows": (R, n * C), "row": (n * C,), "column": (R,), "stack": (n, R, C)}[array.layout]
        return np.require(x.reshape(shape), requirements=["C", "A", "W"])

    def run(R: int, C: int, inputs: Sequence[Any], out: Sequence[Any]) -> list[Any]:
        arrays = list(inputs)
        for k, ndim, array in expected:
            x = arrays[k]
            if x.ndim != ndim or not x.flags.carray:
                arrays[k] = laid_out(x, array, R, C)
        results = list(out)
        for k, (dtype, stack, n) in enumerate(rooms):
            if results[k] is None:
                results[k] = np.empty((n, R, C) if stack else (R, n * C), dtype)
            elif results[k].ndim != 2:
                results[k] = results[k].reshape(R, n * C)
        function(R, C, *arrays, *results)
        return results

    return run


def _body(kernel: Kernel) -> tuple[list[str], list[str]]:
    """Return the statements for one block of rows, and the dtypes of the scratch blocks that they need."""
    stored = kernel.stored
    last = {value: n for n, step in enumerate(kernel.code) if step.op not in _READS for value in step.arguments}
    where: dict[int, str] = {}  # the text that stands for each value
    scratch: list[str] = []
    holds: dict[int, int] = {}  # scratch block: the value in it
    lines = []
    for n, step in enumerate(kernel.code):
        places = [_place(kernel, *place) for place in stored.get(n, ())]
        if step.op in _READS:
            where[n] = _read(kernel, step)
        else:
            arguments = [where[value] for value in step.arguments]
            holds = {slot: value for slot, value in holds.items() if last.get(value, -1) > n}
            if step.op == "where":  # written in two strokes, so not over what it still reads
                holds = {int(a[1:-4]): n for a in arguments if a.startswith("s")} | holds
            if places:
                where[n] = places.pop(0)
            else:
                slot = _vacant(scratch, holds, step.dtype.value)
                holds[slot], where[n] = n, f"s{slot}[:n]"
            lines += _statements(step, arguments, where[n])
        lines += [f"copyto({place}, {where[n]})" for place in places]
    return lines, scratch


_READS = ("load", "literal")


def _vacant(scratch: list[str], holds: dict[int, int], dtype: str) -> int:
    """Return a scratch block of the dtype that holds nothing, a new one if there is none."""
    for slot, other in enumerate(scratch):
        if other == dtype and slot not in holds:
            return slot
    scratch.append(dtype)
    return len(scratch) - 1


def _lane(lane: int, lanes: int) -> str:
    return ":" if lanes == 1 else f"{lane} * C:{lane + 1} * C"


def _place(kernel: Kernel, k: int, lane: int) -> str:
    output = kernel.outputs[k]
    return f"y{k}[{lane}, rows]" if output.layout == "stack" else f"y{k}[rows, {_lane(lane, len(output.values))}]"


def _read(kernel: Kernel, step: Instruction) -> str:
    if step.op == "literal":
        return repr(step.arguments[0])
    k, lane = step.arguments
    lanes = _lane(lane, kernel.inputs[k].lanes)
    return {
        "rows": f"x{k}[rows, {lanes}]",
        "row": f"x{k}[{lanes}]",
        "column": f"x{k}[rows, None]",
        "stack": f"x{k}[{lane}, rows]",
        "number": f"x{k}",
    }[kernel.inputs[k].layout]


def _statements(step: Instruction, arguments: list[str], out: str) -> list[str]:
    if step.op == "astype":
        return [f"copyto({out}, {arguments[0]}, casting='unsafe')"]
    if step.op == "where":
        mask, a, b = arguments
        return [f"copyto({out}, {b})", f"copyto({out}, {a}, where={mask})"]
    return [f"{step.op}({', '.join(arguments)}, out={out})"]


_local = threading.local()


def _scratch(slot: int, dtype: str, height: int, width: int) -> Any:
    """Return this thread's scratch block of that number, dtype and size."""
    blocks = _local.__dict__.setdefault("blocks", {})
    block = blocks.get((slot, dtype))
    if block is None or block.size < height * width:
        block = blocks[slot, dtype] = np.empty(height * width, dtype)
    return block[: height * width].reshape(height, width)
