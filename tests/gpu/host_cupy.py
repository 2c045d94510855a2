"""A stand-in for CuPy on the host: as much of it as tinyrnn uses, so that the CuPy backend runs where there is no GPU.

Arrays are NumPy's inside a wrapper that refuses to be one. Kernels are the same CUDA C++, compiled by the C++ compiler
and run thread by thread. There may be several devices, which do not share memory. It is as strict as CuPy: mixed
devices, a NumPy array among its own, a kernel's argument of another type than its parameter are errors. What only CuPy
and a GPU can tell is left to the tests that are marked `gpu`.
"""

from __future__ import annotations

import ctypes
import functools
import operator
import re
import shutil
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from tinyrnn.backends.cupy_backend import CuPyBackend
from tinyrnn.backends.kernel_cuda import C_TYPES

COMPILER = shutil.which("g++") or shutil.which("c++")
FUNCTIONS = (  # the same in NumPy and CuPy, in name, parameters and result
    *("exp", "log", "sqrt", "tanh", "abs", "sign", "maximum", "minimum", "where", "isfinite", "sum", "max", "min"),
    *("argmax", "matmul", "reshape", "permute_dims", "broadcast_to", "flip", "pad", "concat", "stack"),
    *("ascontiguousarray",),
)
METHODS = ("astype", "copy", "reshape", "ravel", "sum", "min", "max")
OPERATORS = ("add", "sub", "mul", "truediv", "mod", "pow", "and", "or", "matmul")
OTHERS = ("neg", "invert", "abs", "eq", "ne", "lt", "le", "gt", "ge", "iadd", "isub", "imul")


class OutOfMemoryError(MemoryError):
    """CuPy's."""


class CUDARuntimeError(RuntimeError):
    """CuPy's."""

    def __init__(self, status: int) -> None:
        super().__init__(f"cudaError{status}")
        self.status = status


class CUDADriverError(CUDARuntimeError):
    """CuPy's."""


class Memory:
    """What the devices hold, and which of them is the current one."""

    def __init__(self) -> None:
        self.device, self.used, self.limit, self.reads, self.held = 0, 0, 0, 0, 0
        self.roots: dict[int, int] = {}

    def take(self, host: np.ndarray[Any, Any]) -> None:
        """Count the memory of an array, once for all views of it, until nobody has one."""
        root: Any = host
        while isinstance(root.base, np.ndarray):
            root = root.base
        if id(root) in self.roots:
            return
        size = -(-root.nbytes // 512) * 512
        if self.limit and self.used + size > self.limit:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes (allocated so far: {self.used:,} bytes).")
        self.roots[id(root)] = size
        self.used += size
        self.held = max(self.held, self.used)
        weakref.finalize(root, self.give, id(root))

    def give(self, root: int) -> None:
        """Forget the memory of an array that is gone."""
        self.used -= self.roots.pop(root)

    def set_limit(self, size: int = 0) -> None:
        """Raise an error where more would be used; 0 for no limit."""
        self.limit = size


memory = Memory()


class ndarray:
    """An array on a device."""

    __array_ufunc__ = None

    def __init__(self, host: Any) -> None:
        self.host = np.asarray(host)
        self.device = SimpleNamespace(id=memory.device)
        memory.take(self.host)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "dtype", "ndim", "size", "nbytes", "strides", "flags"):
            return getattr(self.host, name)
        if name in METHODS:
            return functools.partial(_call, getattr(np.ndarray, name), self)
        raise AttributeError(name)

    def get(self) -> Any:
        memory.reads += 1
        return self.host.copy()

    def __len__(self) -> int:
        return len(self.host)

    def __getitem__(self, index: Any) -> Any:
        return _call(operator.getitem, self, _round(index, self.shape))

    def __setitem__(self, index: Any, value: Any) -> None:
        _call(operator.setitem, self, index, value)

    __hash__ = object.__hash__


def _given(x: Any) -> Any:
    """Return what stands for an argument on the host, of those that CuPy takes."""
    if isinstance(x, ndarray):
        if x.device.id != memory.device:
            raise ValueError(f"The device where the array resides ({x.device.id}) is different from the current device")
        return x.host
    if isinstance(x, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return type(x)(map(_given, x)) if isinstance(x, tuple | list) else x


def _round(index: Any, shape: tuple[int, ...]) -> Any:
    """Return an index whose numbers go round, as CuPy's do, where NumPy says that they are out of range."""
    parts = list(index if isinstance(index, tuple) else (index,))
    ahead = list(shape)  # the axes that are still to be indexed
    for k, part in enumerate(parts):
        is_array = isinstance(part, ndarray)
        if is_array and part.dtype.kind in "iu":
            parts[k] = ndarray(part.host % ahead[0])
        if part is ...:
            rest = [x.ndim if isinstance(x, ndarray) and x.dtype.kind == "b" else x is not None for x in parts[k + 1 :]]
            del ahead[: len(ahead) - sum(rest)]
        elif part is not None:
            del ahead[: part.ndim if is_array and part.dtype.kind == "b" else 1]
    return tuple(parts) if isinstance(index, tuple) else parts[0]


def _call(function: Any, *args: Any, **kwargs: Any) -> Any:
    with np.errstate(all="ignore"):
        result = function(*map(_given, args), **{name: _given(x) for name, x in kwargs.items()})
    if isinstance(result, np.ndarray | np.generic):
        return args[0] if isinstance(args[0], ndarray) and result is args[0].host else ndarray(result)
    return result


def _made(function: Any, *args: Any) -> ndarray:
    return ndarray(function(*args))


def _method(name: str, swapped: bool = False) -> Any:
    function = getattr(operator, name)
    if swapped:
        return lambda self, other: _call(function, other, self)
    return lambda self, *other: _call(function, self, *other)


for _name in (*OPERATORS, *OTHERS):
    setattr(ndarray, f"__{_name}__", _method(f"__{_name}__"))
for _name in OPERATORS:
    setattr(ndarray, f"__r{_name}__", _method(f"__{_name}__", swapped=True))


class Device:
    """A device, and a block in which it is the current one."""

    def __init__(self, device: int) -> None:
        self.id = device

    def __enter__(self) -> Device:
        self.before, memory.device = memory.device, self.id
        return self

    def __exit__(self, *_: object) -> None:
        memory.device = self.before

    def use(self) -> None:
        memory.device = self.id

    def synchronize(self) -> None:
        pass


# ---------------------------------------------------------------- kernels

PRELUDE = """
static struct { unsigned x, y, z; } gridDim, blockDim, blockIdx, threadIdx;
#define __global__
#define isfinite __builtin_isfinite
extern "C" {
float expf(float); float logf(float); float sqrtf(float); float tanhf(float); float powf(float, float);
double exp(double); double log(double); double sqrt(double); double tanh(double); double pow(double, double);
}
static float __int_as_float(int x) { union { int i; float f; } both = {x}; return both.f; }
static void atomicMin(long long* p, long long x) { *p = x < *p ? x : *p; }
static void atomicMax(long long* p, long long x) { *p = x > *p ? x : *p; }
"""
DTYPES = {kind: np.dtype(dtype.value) for dtype, kind in C_TYPES.items()}


class RawKernel:
    """A kernel that the C++ compiler has compiled, for one thread after the other."""

    def __init__(self, code: str, name: str) -> None:
        self.name, found = name, re.search(rf"void {name}\((.*?)\) {{", code, re.DOTALL)
        assert found, f"no kernel {name} in {code}"
        self.parameters = []
        for text in found[1].split(","):
            kind = re.sub(r"\bconst\b|__restrict__", "", text).rsplit(None, 1)[0]
            self.parameters.append((kind.replace("*", "").strip(), "*" in kind))
        self.run = compiled(code, name, tuple(self.parameters))

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
        assert len(grid) == len(block) == 1
        assert 0 < grid[0] < 1 << 31
        assert 0 < block[0] <= 1024
        assert len(args) == len(self.parameters), self.name
        values = []
        for k, (x, (kind, pointer)) in enumerate(zip(args, self.parameters, strict=True)):
            assert isinstance(x, ndarray if pointer else np.generic), f"{self.name}: argument {k} is {type(x)}"
            assert x.dtype == DTYPES[kind], f"{self.name}: argument {k} is {x.dtype}, the parameter {kind}"
            assert not pointer or x.flags.c_contiguous, f"{self.name}: argument {k} is not row-major"
            values.append(np.asarray(_given(x)))
        addresses = (ctypes.c_void_p * len(values))(*(x.ctypes.data for x in values))
        self.run(grid[0], block[0], addresses)


@functools.cache
def compiled(code: str, name: str, parameters: tuple[tuple[str, bool], ...]) -> Any:
    """Compile a kernel, and a function that calls it for every thread of every block."""
    passed = [f"({kind}*)a[{k}]" if at else f"*({kind}*)a[{k}]" for k, (kind, at) in enumerate(parameters)]
    text = PRELUDE + code.replace("#include <cuda_fp16.h>", "typedef _Float16 __half;")
    text += f"""extern "C" void launch(unsigned grid, unsigned block, void** a) {{
    gridDim.x = grid; blockDim.x = block;
    for (blockIdx.x = 0; blockIdx.x < grid; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < block; ++threadIdx.x) {name}({", ".join(passed)});
}}
"""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "kernel.so"
        command = f"{COMPILER} -x c++ -O1 -ffp-contract=off -shared -fPIC -o kernel.so -".split()
        made = subprocess.run(command, cwd=folder, input=text, text=True, capture_output=True, check=False)
        assert made.returncode == 0, f"{made.stderr}\n{text}"
        launch = ctypes.CDLL(str(library)).launch
    launch.argtypes = (ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p)
    return launch


# ---------------------------------------------------------------- the module


def _add_at(a: ndarray, index: Any, b: ndarray) -> None:
    np.add.at(_given(a), _given(index), _given(b))


class _Exported:
    """Another library's array by DLPack, as the host sees it."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **_: Any) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


def cupy(devices: int = 1) -> ModuleType:
    """Return the module, with as many devices."""
    module: Any = ModuleType("cupy")
    module.__version__ = "14.0"
    module.ndarray, module.dtype, module.RawKernel = ndarray, np.dtype, RawKernel
    module.int64, module.uint64 = np.int64, np.uint64
    for name in FUNCTIONS:
        setattr(module, name, functools.partial(_call, getattr(np, name)))
    for name in ("empty", "full", "zeros", "arange"):
        setattr(module, name, functools.partial(_made, getattr(np, name)))
    module.asarray = lambda x: x if isinstance(x, ndarray) else ndarray(np.array(x))
    module.asnumpy = lambda x: x.get()
    module.argsort = lambda x: _call(np.argsort, x, kind="stable")  # as CuPy's always is
    module.add = SimpleNamespace(at=_add_at)
    module.from_dlpack = lambda x: ndarray(np.from_dlpack(_Exported(x)))
    pool = SimpleNamespace(
        used_bytes=lambda: memory.used, total_bytes=lambda: memory.held, set_limit=memory.set_limit, free_all_blocks=int
    )
    module.get_default_memory_pool = lambda: pool
    module.cuda = SimpleNamespace(
        Device=Device,
        runtime=SimpleNamespace(getDeviceCount=lambda: devices, CUDARuntimeError=CUDARuntimeError),
        driver=SimpleNamespace(CUDADriverError=CUDADriverError),
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
        cublas=None,
    )
    return module


class HostCuPy(CuPyBackend):
    """The CuPy backend on the stand-in; `host-cupy:1` is the second of two devices."""

    def __init__(self, device: str = "") -> None:
        with mock.patch.dict(sys.modules, cupy=cupy(2 if device else 1)):
            super().__init__(device)
        self.name = f"host-{self.name}"
