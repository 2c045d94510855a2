"""A stand-in for CuPy on the host: as much of it as tinyrnn uses, so that the CuPy backend runs where there is no GPU.

Arrays are NumPy's inside a wrapper that refuses to be one. Kernels are the same CUDA C++, compiled by the C++ compiler
and run thread by thread. There may be several devices, which do not share memory. It is as strict as CuPy: mixed
devices, a NumPy array among its own, a kernel's argument of another type than its parameter are errors. What only CuPy
and a GPU can tell is left to the tests that are marked `gpu`.

A stream that is recorded computes nothing: results are NaN until its graph is launched, which makes the calls again on
the same memory. Refused meanwhile is what CuPy 14 refuses (its cuBLAS) or CUDA (to wait for the device), and copies
from the host ask the allocator of pinned memory, as CuPy's do. cuBLAS itself, by nvmath's names, reads addresses.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import operator
import re
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
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
IN_PLACE = (operator.setitem, operator.iadd, operator.isub, operator.imul)
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
        self.device, self.used, self.limit, self.reads, self.held, self.launches = 0, 0, 0, 0, 0, 0
        self.roots: dict[int, int] = {}
        self.pool: MemoryPool | None = None  # the allocator in use, None for the default pool
        self.stream = Stream(null=True)
        self.recorded: list[Stream] = []
        self.pinned: Any = self.from_pinned_pool

    @property
    def tape(self) -> list[Any] | None:
        """The calls of the current stream, if it is being recorded."""
        return self.stream.tape

    def from_pinned_pool(self, size: int) -> None:
        """Give memory on the host, from which a copy to the device is made."""

    def set_pinned(self, allocator: Any) -> None:
        """Ask another allocator for it."""
        self.pinned = allocator

    def see_not_recorded(self) -> None:
        """Refuse to wait for the device while its stream is recorded, by which the record is spoilt."""
        if self.tape is not None:
            self.stream.spoilt = True
            raise CUDARuntimeError(900)

    def take(self, host: np.ndarray[Any, Any]) -> None:
        """Count the memory of an array, once for all views of it, until nobody has one."""
        root: Any = host
        while isinstance(root.base, np.ndarray):
            root = root.base
        if id(root) in self.roots:
            return
        size = -(-root.nbytes // 512) * 512
        if self.pool is not None:
            if id(root) not in self.pool.roots:
                self.pool.roots[id(root)] = root  # kept: nobody else gets this memory
                self.pool.size += size
            return
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


class MemoryPool:
    """Memory that is not given back."""

    def __init__(self) -> None:
        self.roots: dict[int, Any] = {}
        self.size = 0

    def malloc(self, size: int) -> None:
        """What an allocator is named by."""

    def total_bytes(self) -> int:
        return self.size


@contextlib.contextmanager
def using_allocator(malloc: Any) -> Iterator[None]:
    """Take memory from another pool."""
    before, memory.pool = memory.pool, malloc.__self__
    try:
        yield
    finally:
        memory.pool = before


class Event:
    """A moment in a stream."""

    def __init__(self, disable_timing: bool = False) -> None:
        assert disable_timing

    def record(self, stream: Any = None) -> None:
        assert stream is memory.stream


class Stream:
    """A stream, and a block in which it is the current one."""

    numbers = itertools.count(7)

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.ptr = 0 if null else next(self.numbers)
        self.tape: list[Any] | None = None
        self.non_blocking, self.spoilt = non_blocking, False
        self.before: list[Stream] = []

    def __enter__(self) -> Stream:
        self.before.append(memory.stream)
        memory.stream = self
        return self

    def __exit__(self, *_: object) -> None:
        memory.stream = self.before.pop()

    def record(self) -> Event:
        return Event(disable_timing=True)

    def wait_event(self, event: Event) -> None:
        assert isinstance(event, Event)

    def synchronize(self) -> None:
        memory.see_not_recorded()

    def begin_capture(self) -> None:
        assert self.ptr
        assert self.non_blocking
        assert self.tape is None
        self.tape, self.spoilt = [], False
        memory.recorded.append(self)

    def end_capture(self) -> Graph:
        assert self.tape is not None
        graph, self.tape = Graph(self.tape), None
        memory.recorded.remove(self)
        if self.spoilt:
            raise CUDARuntimeError(901)
        return graph


class Graph:
    """Calls that are made at each launch."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    def launch(self) -> None:
        assert memory.tape is None
        memory.launches += 1
        for call in self.calls:
            call()


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

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.host.ctypes.data)

    def get(self) -> Any:
        memory.see_not_recorded()
        memory.reads += 1
        return self.host.copy()

    def __len__(self) -> int:
        return len(self.host)

    def __getitem__(self, index: Any) -> Any:
        return _call(_taken, self, index)

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


def _taken(x: Any, index: Any) -> Any:
    """Return x[index], whose numbers go round, as CuPy's do, where NumPy says that they are out of range."""
    parts = list(index if isinstance(index, tuple) else (index,))
    ahead = list(x.shape)  # the axes that are still to be indexed
    for k, part in enumerate(parts):
        is_array = isinstance(part, np.ndarray)
        if is_array and part.dtype.kind in "iu":
            parts[k] = part % ahead[0]
        if is_array and part.dtype.kind == "b":
            memory.see_not_recorded()  # its Trues are counted
        if part is ...:
            rest = [
                x.ndim if isinstance(x, np.ndarray) and x.dtype.kind == "b" else x is not None for x in parts[k + 1 :]
            ]
            del ahead[: len(ahead) - sum(rest)]
        elif part is not None:
            del ahead[: part.ndim if is_array and part.dtype.kind == "b" else 1]
    return x[tuple(parts) if isinstance(index, tuple) else parts[0]]


def _call(function: Any, *args: Any, **kwargs: Any) -> Any:
    given, named = [_given(x) for x in args], {name: _given(x) for name, x in kwargs.items()}

    def compute() -> Any:
        with np.errstate(all="ignore"):
            return function(*given, **named)

    if memory.tape is not None and function in IN_PLACE:
        memory.tape.append(compute)
        return args[0]
    result = compute()
    if not isinstance(result, np.ndarray | np.generic):
        return result
    return args[0] if isinstance(args[0], ndarray) and result is args[0].host else _result(result, compute, given)


def _result(result: Any, compute: Callable[[], Any], given: Any = ()) -> ndarray:
    """Return what was computed or, of a stream that is recorded, what will be at each launch."""
    made = ndarray(result)
    if memory.tape is None:
        return made
    host, parts = made.host, [part for x in given for part in (x if isinstance(x, tuple | list) else (x,))]
    if not any(isinstance(x, np.ndarray) and np.may_share_memory(host, x) for x in parts):  # else it is a view
        host[...] = np.nan if host.dtype.kind == "f" else 1
        memory.tape.append(lambda: operator.setitem(host, ..., compute()))
    return made


def _made(function: Any, *args: Any) -> ndarray:
    return _result(function(*args), lambda: function(*args))


def _sent(x: Any) -> ndarray:
    """Copy from the host; one number is a kernel's argument."""
    host = np.array(x)
    if host.ndim:
        memory.pinned(host.nbytes)
    return _result(host, lambda: host)


def _joined(function: Any, arrays: Any, axis: int = 0) -> Any:
    """Join arrays; more than 8 by one kernel, to which their addresses are sent."""
    if len(arrays) > 8:
        memory.pinned(8 * len(arrays))
    return _call(function, arrays, axis=axis)


def _multiplied(a: ndarray, b: ndarray) -> Any:
    if memory.tape is not None and a.dtype.kind == "f":
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
    return _call(np.matmul, a, b)


def _sorted(x: ndarray) -> Any:
    memory.see_not_recorded()  # Thrust waits until it has sorted
    return _call(np.argsort, x, kind="stable")  # as CuPy's always is


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

    compute_capability = "90"

    def __init__(self, device: int | None = None) -> None:
        self.id = memory.device if device is None else device

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
        if memory.tape is None:
            self.run(grid[0], block[0], addresses)
        else:
            memory.tape.append(lambda: self.run(grid[0], block[0], addresses, values))


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
    return lambda grid, block, addresses, kept=None: launch(grid, block, addresses)


# ---------------------------------------------------------------- cuBLAS, as nvmath.bindings.cublas calls it

REAL_TYPES = {0: np.dtype("float32"), 1: np.dtype("float64"), 2: np.dtype("float16")}


class Cublas(ModuleType):
    """Matrices are column by column; a handle is made for a stream, and given back once."""

    def __init__(self) -> None:
        super().__init__("nvmath.bindings.cublas")
        self.handles: dict[int, list[int]] = {}
        self.products = 0

    def create(self) -> int:
        memory.see_not_recorded()
        self.handles[len(self.handles) + 1] = []
        return len(self.handles)

    def destroy(self, handle: int) -> None:
        assert self.handles[handle]
        self.handles[handle] = []

    def set_stream(self, handle: int, stream: int) -> None:
        self.handles[handle] = [stream]

    def set_workspace(self, handle: int, address: int, size: int) -> None:
        assert address
        assert size >= 4 << 20
        self.handles[handle].append(address)

    def gemm_ex(self, handle: int, *given: Any) -> None:
        """C = alpha op(A) op(B) + beta C."""
        as_a, as_b, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc, compute, algorithm = given
        strided = (a, a_type, lda, 0, b, b_type, ldb, 0, beta, c, c_type, ldc, 0, 1, compute, algorithm)
        self.gemm_strided_batched_ex(handle, as_a, as_b, m, n, k, alpha, *strided)

    def gemm_strided_batched_ex(self, handle: int, *given: Any) -> None:
        as_a, as_b, m, n, k, alpha, a, a_type, lda, step_a, b, b_type, ldb, step_b, *rest = given
        beta, c, c_type, ldc, step_c, count, compute, algorithm = rest
        assert self.handles[handle][0] == memory.stream.ptr
        assert len(self.handles[handle]) == 2, "no workspace"
        number = ctypes.c_double if compute == 70 else ctypes.c_float
        assert (number.from_address(alpha).value, number.from_address(beta).value, algorithm) == (1, 0, -1)
        assert compute == (70 if a_type == 1 else 68)
        left = _matrices(a, a_type, (m, k), lda, step_a, count, as_a)
        right = _matrices(b, b_type, (k, n), ldb, step_b, count, as_b)
        out = _matrices(c, c_type, (m, n), ldc, step_c, count, 0)
        wide = np.float32 if a_type == 2 else None

        def product() -> None:
            for x, y, z in zip(left, right, out, strict=True):
                z[...] = np.matmul(x, y, dtype=wide)

        self.products += 1
        if memory.tape is None:
            product()
        else:
            memory.tape.append(product)


def _matrices(address: int, kind: int, shape: Any, leading: int, step: int, count: int, turned: int) -> list[Any]:
    """Return the matrices that lie at an address, each as it is to be multiplied."""
    rows, columns = reversed(shape) if turned else shape
    assert leading >= max(rows, 1)
    dtype, found = REAL_TYPES[kind], []
    for i in range(count):
        size = ((columns - 1) * leading + rows) * dtype.itemsize if rows and columns else 0
        there = (ctypes.c_char * size).from_address(address + i * step * dtype.itemsize)
        strides = (dtype.itemsize, leading * dtype.itemsize)
        x = np.lib.stride_tricks.as_strided(np.frombuffer(there, dtype), (rows, columns), strides)
        found.append(x.T if turned else x)
    return found


# ---------------------------------------------------------------- the module


def _add_at(a: ndarray, index: Any, b: ndarray) -> None:
    given = _given(a), _given(index), _given(b)
    if memory.tape is None:
        np.add.at(*given)
    else:
        memory.tape.append(lambda: np.add.at(*given))


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
    module.asarray = lambda x: x if isinstance(x, ndarray) else _sent(x)
    module.asnumpy = lambda x: x.get()
    module.argsort, module.matmul = _sorted, _multiplied
    module.concat, module.stack = (functools.partial(_joined, function) for function in (np.concatenate, np.stack))
    module.add = SimpleNamespace(at=_add_at)
    module.from_dlpack = lambda x: ndarray(np.from_dlpack(_Exported(x)))
    pool = SimpleNamespace(
        used_bytes=lambda: memory.used, total_bytes=lambda: memory.held, set_limit=memory.set_limit, free_all_blocks=int
    )
    module.get_default_memory_pool = lambda: pool
    core = SimpleNamespace(get_compute_type=lambda dtype: 1, _routines_linalg=SimpleNamespace(COMPUTE_TYPE_TF32=7))
    module._core, module.cublas_of_nvmath = core, Cublas()
    module.get_default_pinned_memory_pool = lambda: SimpleNamespace(malloc=memory.from_pinned_pool)
    module.cuda = SimpleNamespace(
        Device=Device,
        Stream=Stream,
        Event=Event,
        MemoryPool=MemoryPool,
        using_allocator=using_allocator,
        get_current_stream=lambda: memory.stream,
        set_pinned_memory_allocator=memory.set_pinned,
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
        self.nvmath: Any = self.cupy.cublas_of_nvmath  # None where it is not installed

    def replayed(self, calls: Any) -> Any:
        repeat = super().replayed(calls)
        modules = {"nvmath": ModuleType("nvmath"), "nvmath.bindings": ModuleType("nvmath.bindings")}
        if self.nvmath is None:
            modules = dict.fromkeys(modules)
        else:
            modules["nvmath.bindings"].cublas = self.nvmath

        def call(*arrays: Any) -> Any:
            with mock.patch.dict(sys.modules, modules):
                return repeat(*arrays)

        return call
