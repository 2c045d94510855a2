"""Fused kernels by Numba: one loop over the grid, which LLVM turns into vector instructions.

The text of a kernel is a file in the cache folder, named by its hash, since Numba keeps compiled code beside the file
that it came from: a kernel is compiled once for a machine, not once for a process.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from tinyrnn.backends.base import DType
from tinyrnn.backends.kernel import OPERATORS, Input, Instruction, Kernel, Output

TEMPLATES = OPERATORS | {
    "power": "{0} ** {1}",
    "exp": "np.exp({0})",
    "log": "np.log({0})",
    "sqrt": "np.sqrt({0})",
    "tanh": "np.tanh({0})",
    "abs": "abs({0})",
    "sign": "{t}(1) if {0} > 0 else {t}(-1) if {0} < 0 else {0}",
    "maximum": "{0} if {0} >= {1} or {0} != {0} else {1}",  # a NaN on either side comes through
    "minimum": "{0} if {0} <= {1} or {0} != {0} else {1}",
    "where": "{1} if {0} else {2}",
    "isfinite": "np.isfinite({0})",
    "astype": "{t}({0})",
}

HEAD = '''"""A kernel that tinyrnn fused; it may be deleted, and is written again when it is needed."""

import numba
import numpy as np
from math import inf, nan

'''

# tanh(x) = x P(x²) / Q(x²) for |x| ≤ 9, and ±1 beyond: at most 4e-7 from the truth, and LLVM makes vectors of it.
# The coefficients were fitted for the least relative error, 2e-8 before rounding (Lawson's iteration).
TANH = """
@numba.njit(error_model="numpy", inline="always")
def tanh(x):
    one, nine = np.float32(1), np.float32(9)
    near = nine if x > nine else -nine if x < -nine else x
    s = near * near
    p = np.float32(1.3354397e-08) * s + np.float32(2.0608886e-05)
    p = (p * s + np.float32(3.4955762e-03)) * s + np.float32(1.3381015e-01)
    p = near * (p * s + np.float32(9.9999998e-01))
    q = np.float32(7.7764483e-07) * s + np.float32(3.2856152e-04)
    q = ((q * s + np.float32(2.5876936e-02)) * s + np.float32(4.6714332e-01)) * s + one
    y = p / q
    y = one if (x > nine) | (y > one) else y
    return -one if (x < -nine) | (y < -one) else y

"""


def supports(kernel: Kernel) -> bool:
    """Tell whether Numba can compile the kernel: it knows no half precision."""
    dtypes = {part.dtype for parts in (kernel.inputs, kernel.code, kernel.outputs) for part in parts}
    return DType.float16 not in dtypes


def source(kernel: Kernel) -> str:
    """Return the kernel as a function (R, C, *inputs, *outputs), without what stands around it in its module."""
    return f"# {kernel.legend}\n{_function(kernel)}"


def _module(kernel: Kernel) -> str:
    """Return the text of the module that the kernel is compiled in; kernels that compute alike have the same."""
    fast_tanh = any(step.op == "tanh" and step.dtype is DType.float32 for step in kernel.code)
    return f"{HEAD}{TANH if fast_tanh else ''}\n{_function(kernel)}"


def _function(kernel: Kernel) -> str:
    arrays = [f"x{k}" for k in range(len(kernel.inputs))] + [f"y{k}" for k in range(len(kernel.outputs))]
    types = ["int64", "int64", *map(_type, kernel.inputs), *map(_type, kernel.outputs)]
    options = 'error_model="numpy", fastmath={"contract"}, nogil=True, cache=True'  # contract: a b + c, rounded once
    lines = [f'@numba.njit("void({", ".join(types)})", {options})']
    lines += [f"def {kernel.name}({', '.join(['R', 'C', *arrays])}):"]
    lines += ["    for i in range(R):"]
    for k, output in enumerate(kernel.outputs):  # lanes side by side, each by itself: LLVM cannot see them apart
        packed = range(len(output.values)) if _is_packed(output) else ()
        lines += [f"        y{k}_{lane} = y{k}[i, {lane} * C : {lane + 1} * C]" for lane in packed]
    lines += ["        for j in range(C):"]
    for n, step in enumerate(kernel.code):
        lines += [f"            v{n} = {_expression(kernel, step)}"]
        lines += [f"            {_place(kernel, *place)} = v{n}" for place in kernel.stored.get(n, ())]
    return "\n".join(lines) + "\n"


def build(kernel: Kernel) -> Callable[..., None]:
    """Compile the kernel, or load what an earlier process has compiled."""
    text = _module(kernel)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = _folder() / f"{kernel.name}_{digest}.py"
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
            file.write(text)
        os.replace(file.name, path)  # whole or not at all, also beside another process that does the same
    spec = importlib.util.spec_from_file_location(f"tinyrnn_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where Numba's cache looks for it
    spec.loader.exec_module(module)
    function: Callable[..., None] = getattr(module, kernel.name)
    return function


def _folder() -> Path:
    """Return the folder for kernels, in the user's cache, or a temporary one where that cannot be written."""
    folder = platformdirs.user_cache_path("tinyrnn") / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="tinyrnn-kernels-"))


def _type(array: Input | Output) -> str:
    if array.layout == "number":
        return "float64"  # Python's; the kernel takes it down to the working type
    axes = {"rows": ":,::1", "row": "::1", "column": "::1", "stack": ":,:,::1"}[array.layout]
    return f"{'boolean' if array.dtype is DType.bool else array.dtype.value}[{axes}]"


def _lane(lane: int) -> str:
    return "j" if lane == 0 else f"j + {lane} * C"


def _is_packed(output: Output) -> bool:
    return output.layout == "rows" and len(output.values) > 1


def _place(kernel: Kernel, k: int, lane: int) -> str:
    if _is_packed(kernel.outputs[k]):
        return f"y{k}_{lane}[j]"
    return f"y{k}[{lane}, i, j]" if kernel.outputs[k].layout == "stack" else f"y{k}[i, j]"


def _expression(kernel: Kernel, step: Instruction) -> str:
    kind = "np.bool_" if step.dtype is DType.bool else f"np.{step.dtype.value}"
    if step.op == "literal":  # in the working type: 0.5 alone is a double, and would make doubles of all
        return f"{kind}({step.arguments[0]!r})"
    if step.op == "load":
        k, lane = step.arguments
        return {
            "rows": f"x{k}[i, {_lane(lane)}]",
            "row": f"x{k}[{_lane(lane)}]",
            "column": f"x{k}[i]",
            "stack": f"x{k}[{lane}, i, j]",
            "number": f"{kind}(x{k})",
        }[kernel.inputs[k].layout]
    arguments = [f"v{value}" for value in step.arguments]
    if step.op == "logical_not":
        return f"not {arguments[0]}" if step.dtype is DType.bool else f"~{arguments[0]}"
    if step.op == "tanh" and step.dtype is DType.float32:
        return f"tanh({arguments[0]})"
    return TEMPLATES[step.op].format(*arguments, t=kind)
