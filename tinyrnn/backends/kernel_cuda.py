"""Fused kernels in CUDA C++: one thread for each place of the grid, in turns where there are more places."""

from __future__ import annotations

import math
import re

from tinyrnn.backends.base import DType
from tinyrnn.backends.kernel import OPERATORS, Input, Instruction, Kernel, Output

C_TYPES = {
    DType.bool: "bool",
    DType.int8: "signed char",
    DType.int16: "short",
    DType.int32: "int",
    DType.int64: "long long",
    DType.uint8: "unsigned char",
    DType.uint16: "unsigned short",
    DType.uint32: "unsigned int",
    DType.uint64: "unsigned long long",
    DType.float16: "__half",
    DType.float32: "float",
    DType.float64: "double",
}

TEMPLATES = OPERATORS | {
    "power": "pow{f}({0}, {1})",
    "exp": "exp{f}({0})",
    "log": "log{f}({0})",
    "sqrt": "sqrt{f}({0})",
    "tanh": "tanh{f}({0})",
    "abs": "{0} < ({t})0 ? -{0} : {0}",
    "sign": "{0} > ({t})0 ? ({t})1 : {0} < ({t})0 ? ({t})-1 : {0}",
    "maximum": "({0} >= {1} || {0} != {0}) ? {0} : {1}",
    "minimum": "({0} <= {1} || {0} != {0}) ? {0} : {1}",
    "where": "{0} ? {1} : {2}",
    "isfinite": "isfinite({0})",
    "astype": "({t})({0})",
}


def source(kernel: Kernel) -> str:
    """Return the kernel as CUDA C++: (R, C, *inputs, *outputs). Half precision is stored, and computed in float."""
    half = DType.float16 in {x.dtype for x in kernel.inputs} | {y.dtype for y in kernel.outputs}
    parameters = ["const long long R", "const long long C"]
    parameters += [_parameter(f"x{k}", array) for k, array in enumerate(kernel.inputs)]
    parameters += [f"{C_TYPES[array.dtype]}* __restrict__ y{k}" for k, array in enumerate(kernel.outputs)]
    lines = ["#include <cuda_fp16.h>"] if half else []
    lines += [f"// {kernel.legend}"]
    lines += [f'extern "C" __global__ void {kernel.name}(']
    lines += [f"    {parameter}," for parameter in parameters[:-1]]
    lines += [f"    {parameters[-1]}) {{"]
    lines += ["    const long long stride = (long long)gridDim.x * blockDim.x;"]
    lines += ["    for (long long n = (long long)blockIdx.x * blockDim.x + threadIdx.x; n < R * C; n += stride) {"]
    body: list[str] = []
    for n, step in enumerate(kernel.code):
        body += [f"const {_working(step.dtype)} v{n} = {_expression(kernel, step)};"]
        body += [f"{_place(kernel, *place)} = v{n};" for place in kernel.stored.get(n, ())]
    places = {"i": "n / C", "j": "n % C"}  # row and column, of which a kernel may need none
    needed = [name for name in places if re.search(rf"\b{name}\b", "\n".join(body))]
    body = [f"const long long {name} = {places[name]};" for name in needed] + body
    lines += [f"        {line}" for line in body]
    return "\n".join([*lines, "    }", "}"]) + "\n"


def _working(dtype: DType) -> str:
    return "float" if dtype is DType.float16 else C_TYPES[dtype]


def _parameter(name: str, array: Input) -> str:
    kind = C_TYPES[array.dtype]
    return f"const {kind} {name}" if array.layout == "number" else f"const {kind}* __restrict__ {name}"


def _place(kernel: Kernel, k: int, lane: int) -> str:
    output: Output = kernel.outputs[k]
    return f"y{k}[{_beyond(lane, 'R * C', 'n') if output.layout == 'stack' else _lane(len(output.values), lane)}]"


def _lane(lanes: int, lane: int) -> str:
    """Return where row i and column j are in one of several lanes that lie side by side."""
    return "n" if lanes == 1 else f"(i * {lanes} + {lane}) * C + j"


def _beyond(lane: int, length: str, place: str) -> str:
    """Return where a place is in one of several lanes that lie one behind the other."""
    return place if lane == 0 else f"{lane} * {length} + {place}"


def _expression(kernel: Kernel, step: Instruction) -> str:
    kind = _working(step.dtype)
    if step.op == "literal":
        return _literal(step.arguments[0], kind)
    if step.op == "load":
        k, lane = step.arguments
        return {
            "rows": f"x{k}[{_lane(kernel.inputs[k].lanes, lane)}]",
            "row": f"x{k}[{_beyond(lane, 'C', 'j')}]",
            "column": f"x{k}[i]",
            "stack": f"x{k}[{_beyond(lane, 'R * C', 'n')}]",
            "number": f"({kind})x{k}",
        }[kernel.inputs[k].layout]
    arguments = [f"v{value}" for value in step.arguments]
    if step.op == "logical_not":
        return f"!{arguments[0]}" if step.dtype is DType.bool else f"~{arguments[0]}"
    return TEMPLATES[step.op].format(*arguments, t=kind, f="f" if kind == "float" else "")


def _literal(value: float, kind: str) -> str:
    """Write a number in the working type: 0.5 alone is a double, and would make doubles of all."""
    if math.isfinite(value):
        number = int(value) if isinstance(value, bool) else value
        return f"{float(value)!r}f" if kind == "float" else f"({kind})({number!r})"
    infinity = f"({kind})(1.0 / 0.0)" if kind == "double" else "__int_as_float(0x7f800000)"
    if math.isnan(value):
        return f"({infinity} - {infinity})"
    return infinity if value > 0 else f"-{infinity}"
