"""CuPy: the same arrays on a CUDA device.

The device works through what it was asked for while Python goes on. Only reading values waits for it: item(), numpy(),
printing. So nothing in a training step reads: what an index points at is looked at on the device (`check`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tinyrnn.backends import kernel_cuda, philox
from tinyrnn.backends.base import Array, Backend, DType, Run, cuda_device, is_basic
from tinyrnn.backends.cupy_graph import Graph, current_graph
from tinyrnn.backends.kernel import Kernel
from tinyrnn.backends.numpy_backend import Generator, host_array
from tinyrnn.errors import BackendError, CaptureError, DTypeError, IndexRangeError

if TYPE_CHECKING:
    from collections.abc import Sequence

THREADS, MOST_BLOCKS = 256, 65_535  # a kernel's threads take turns where there are more places than this
MOST_JOINED = 64  # arrays that one kernel joins; each is a parameter
CHECKS = 1_024  # different checks that are remembered until values are read
LEAST, GREATEST = -(1 << 63), (1 << 63) - 1
FULL, LOST = {2}, {46, 214, 700, 702, 710, 714, 715, 716, 717, 718, 719, 999}  # statuses of CUDA, which names them
FULL_BLAS = ("CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")  # what it says of too little memory
ANYWHERE = contextlib.nullcontext()


def import_cupy() -> Any:
    """Import CuPy and see that it has a device, a compiler and matrix products.

    Raises: BackendError that names the extra to install, or what the CUDA runtime answered.
    """
    extras = "pip install 'tinyrnn[cuda12]' (CUDA 12) or 'tinyrnn[cuda13]' (CUDA 13)"
    try:
        import cupy
    except ImportError as error:
        raise BackendError(f"backend 'cupy' needs CuPy, which cannot be imported ({error}): {extras}") from error
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise BackendError(
            f"backend 'cupy': CuPy {cupy.__version__} is installed, but finds no CUDA device ({error}); "
            "check the driver with nvidia-smi, or go on with tr.use_backend('numpy')"
        ) from error
    if devices == 0:
        raise BackendError("backend 'cupy': this machine has no CUDA device; go on with tr.use_backend('numpy')")
    try:
        cupy.cuda.nvrtc.getVersion()
        _ = cupy.cuda.cublas
    except Exception as error:
        missing = " ".join(str(error).split())  # in one line
        raise BackendError(
            f"backend 'cupy': CuPy {cupy.__version__} finds the device, but not the CUDA toolkit ({missing}); "
            "pip install 'cupy-cuda12x[ctk]' (CUDA 12) or 'cupy-cuda13x[ctk]' (CUDA 13) brings it"
        ) from error
    return cupy


F = TypeVar("F", bound=Callable[..., Any])


def told(method: F) -> F:
    """Let a method raise a BackendError that says what to do where the device is full or lost."""

    @functools.wraps(method)
    def call(self: CuPyBackend, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            advice = self.failure(error)
            if not advice:
                raise
            raise BackendError(advice) from error

    return cast("F", call)


class CuPyBackend(Backend):
    """Arrays are `cupy.ndarray`s on one CUDA device; work is queued on CuPy's current stream.

    Args: device, its number: "cupy:1" is device 1.
    Attributes:
        checks_at_once: tell an index out of range where it is used, which waits for the device each time, not when
            values are next read. TINYRNN_CHECK=1 in the environment sets it.
        deterministic: add up what flows into one row in the order in which it was indexed, not as it comes, so that a
            run repeats to the last bit; embeddings then take longer. TINYRNN_DETERMINISTIC=1 sets it.
    """

    def __init__(self, device: str = "") -> None:
        self.cupy = import_cupy()
        count = self.cupy.cuda.runtime.getDeviceCount()
        if device and not (device.isdecimal() and int(device) < count):
            raise BackendError(f"backend 'cupy:{device}': expected a device number from 0 to {count - 1}")
        self.device, self.several = int(device or 0), count > 1
        self.name = f"cupy:{self.device}" if self.device else "cupy"
        self.dtypes = {self.cupy.dtype(name.value): name for name in DType}
        self.checks_at_once = os.environ.get("TINYRNN_CHECK") == "1"
        self.deterministic = os.environ.get("TINYRNN_DETERMINISTIC") == "1"
        self.compiled: dict[Kernel, Run] = {}
        self.checks = Checks(self)
        self.graphs: weakref.WeakSet[Graph] = weakref.WeakSet()  # those that can be launched

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.cupy, name)
        if self.several and callable(function):
            function = self._on_the_device(function)
        setattr(self, name, function)  # found once, an attribute from then on
        return function

    def __repr__(self) -> str:
        return f"<backend {self.name}>"

    # ------------------------------------------------ the device

    @property
    def here(self) -> contextlib.AbstractContextManager[Any]:
        """A block in which this device is CUDA's current one, where there are several: there, arrays are made."""
        return self.cupy.cuda.Device(self.device) if self.several else ANYWHERE

    def enter(self) -> None:
        """Make this device the thread's current one, from here on: where the arrays' own operators compute."""
        if self.several:
            self.cupy.cuda.Device(self.device).use()

    def _on_the_device(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.here:
                return function(*args, **kwargs)

        return call

    @told
    def synchronize(self) -> None:
        self.cupy.cuda.Device(self.device).synchronize()
        self.look()

    def memory(self) -> tuple[int, int]:
        """Return the bytes that arrays use, and those that CuPy holds: for them, and free for the next ones.

        Of the memory of a captured graph, all is in use.
        """
        pool = self.cupy.get_default_memory_pool()
        with self.here:
            graphs = sum(graph.held for graph in self.graphs)
            return pool.used_bytes() + graphs, pool.total_bytes() + graphs

    def failure(self, error: BaseException) -> str:
        """Say what an error of CuPy's means for the device and what to do; "" where it is none of that kind."""
        cuda, status = self.cupy.cuda, None
        if isinstance(error, cuda.runtime.CUDARuntimeError | cuda.driver.CUDADriverError):
            status = error.status
        full = isinstance(error, cuda.memory.OutOfMemoryError) or any(word in str(error) for word in FULL_BLAS)
        if full or status in FULL:
            used, held = (f"{size / 1e6:,.0f} MB" for size in self.memory())
            return (
                f"{self.name}: the device's memory is full ({error}). Arrays use {used} of the {held} that CuPy holds; "
                "take a smaller batch or shorter windows, or see with nvidia-smi what else runs there. A checkpoint "
                "that was saved before is whole"
            )
        if status in LOST:
            return (
                f"{self.name}: the device is lost to this process ({error}), and with it every array there. Start "
                "again from the last checkpoint, which is whole; if it happens again, CUDA_LAUNCH_BLOCKING=1 shows "
                "where, and nvidia-smi whether the device is well"
            )
        return ""

    # ------------------------------------------------ arrays

    def owns(self, array: object) -> bool:
        return isinstance(array, self.cupy.ndarray) and array.device.id == self.device

    @told
    def asarray(self, data: Any, dtype: DType | None = None) -> Array:
        """Bring host data here; take arrays that are on the device already, anybody's, without a copy."""
        with self.here:
            if not isinstance(data, self.cupy.ndarray):
                if not _on_a_gpu(data):
                    return self.cupy.asarray(host_array(data, dtype))
                data = self._shared(data)
            if data.device.id != self.device:
                raise BackendError(
                    f"an array on CUDA device {data.device.id} given to backend {self.name!r}; move it: "
                    f"tr.tensor(array).to({self.name!r})"
                )
            self.dtype(data)
            return data if dtype is None else self.astype(data, dtype)

    def _shared(self, data: Any) -> Array:
        """Return another library's array: by DLPack, which sees to it that what was asked for there is done first."""
        try:
            return self.cupy.from_dlpack(data) if hasattr(data, "__dlpack__") else self.cupy.asarray(data)
        except (BufferError, TypeError, NotImplementedError, ImportError) as error:
            kind = f"{type(data).__name__} of dtype {getattr(data, 'dtype', 'unknown')}"
            raise DTypeError(f"tensor: the data is a {kind}, which CuPy does not take: {error}") from error

    @told
    def to_host(self, array: Array) -> Any:
        with self.here:
            values = self.cupy.asnumpy(array)
        self.look()  # the device has been waited for in any case
        return values

    @told
    def copy(self, array: Array) -> Array:
        with self.here:
            return array.copy(order="C")

    @told
    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        with self.here:
            return self.cupy.empty(shape, dtype.value)

    def dtype(self, array: Array) -> DType:
        try:
            return self.dtypes[array.dtype]
        except KeyError:
            raise DTypeError(
                f"tensor: the data is an array of dtype {array.dtype}; expected numbers ({', '.join(DType)})"
            ) from None

    def astype(self, array: Array, dtype: DType) -> Array:
        with self.here:
            return array.astype(DType.of(dtype).value, copy=False)  # a rule may give CuPy's own

    @told
    def full(self, shape: tuple[int, ...], value: float, dtype: DType) -> Array:
        with self.here:
            return self.cupy.full(shape, value, dtype.value) if value else self.cupy.zeros(shape, dtype.value)

    def getitem(self, array: Array, index: Any) -> Array:
        """`array[index]`; a mask waits for the device, which has to count its Trues: `where` does not."""
        with self.here:
            for axis, numbers in () if is_basic(index) else numbers_in(index, array.ndim):
                self.check(Within(array.shape[axis], axis), numbers)
            return array[index]

    def pad(self, array: Array, widths: Sequence[tuple[int, int]], value: float) -> Array:
        with self.here:
            return self.cupy.pad(array, widths, constant_values=value)

    @told
    def uniform(self, generator: Generator, shape: tuple[int, ...], dtype: DType) -> Array:
        """Draw on the device, by a key that the generator gives: other numbers than NumPy draws from it."""
        graph = current_graph.get()
        with self.here:
            key = self.cupy.asarray(generator.words(1)) if graph is None else graph.key(generator)
        return self.philox(key, 0, shape, dtype)

    def drawn(self, draw: Any, shape: tuple[int, ...], dtype: DType) -> Array:
        graph = current_graph.get()
        if graph is not None and graph.words is not None:  # it is being recorded
            raise CaptureError("these random numbers are drawn on the host; give them to the function as an argument")
        return super().drawn(draw, shape, dtype)

    def philox(self, key: Array, first: int, shape: tuple[int, ...], dtype: DType) -> Array:
        """Draw the numbers of `philox.uniform` on the device, where the key is, uint64 (1,)."""
        y = self.empty(shape, dtype)
        kernel = self._raw(philox.source(dtype, kernel_cuda.C_TYPES[dtype]), "philox_uniform")
        with self.here:
            numbers = self.cupy.uint64(first), self.cupy.int64(y.size)
            self._launch(kernel, philox.blocks(y.size, dtype), (key, *numbers, y))
        return y

    # ------------------------------------------------ what CuPy does by ways that a graph cannot record

    def replayed(self, calls: Callable[..., list[Array]]) -> Callable[..., list[Array]]:
        """Return the calls as a CUDA graph: one launch, and no wait; see `Graph` for what cannot be one."""
        return Graph(self, calls)

    def matmul(self, a: Array, b: Array) -> Array:
        graph = current_graph.get()
        with self.here:
            return self.cupy.matmul(a, b) if graph is None else graph.blas.matmul(a, b)

    def stack(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        with self.here:
            if current_graph.get() is None:
                return self.cupy.stack(arrays, axis=axis)
            shape = arrays[0].shape
            at = axis % (len(shape) + 1)
            return self._joined([x.reshape(*shape[:at], 1, *shape[at:]) for x in arrays], at)

    def concat(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        with self.here:
            if current_graph.get() is None:
                return self.cupy.concat(arrays, axis=axis)
            return self._joined(list(arrays), axis % arrays[0].ndim)

    def _joined(self, arrays: list[Array], axis: int) -> Array:
        """Join arrays along an axis. CuPy itself would, for more than 8, copy their addresses from the host."""
        shape = arrays[0].shape
        y = self.cupy.empty((*shape[:axis], sum(x.shape[axis] for x in arrays), *shape[axis + 1 :]), arrays[0].dtype)
        if math.prod(shape[:axis]) == 1 and {x.shape for x in arrays} == {shape}:  # they lie one after the other
            blocks = y.reshape(len(arrays), -1)
            for first in range(0, len(arrays), MOST_JOINED):
                few = [self.cupy.ascontiguousarray(x) for x in arrays[first : first + MOST_JOINED]]
                kernel = self._raw(join_source(self.dtype(y), len(few)), "join")
                room = blocks[first : first + len(few)]
                self._launch(kernel, room.size, (self.cupy.int64(few[0].size), *few, room))
            return y
        start = 0
        for x in arrays:
            stop = start + x.shape[axis]
            y[(slice(None),) * axis + (slice(start, stop),)] = x
            start = stop
        return y

    # ------------------------------------------------ adding where an index says

    def scatter_add(self, buffer: Array, index: Any, values: Array) -> None:
        with self.here:
            if is_basic(index):
                buffer[index] += values
            elif self.deterministic:
                self._add_in_order(buffer, index, values)
            else:
                self.cupy.add.at(buffer, index, values)

    def _add_in_order(self, buffer: Array, index: Any, values: Array) -> None:
        """Add row by row: sorted by where they go, each run of equal ones is added up by one thread, first to last."""
        cupy = self.cupy
        if isinstance(index, cupy.ndarray) and index.dtype.kind in "iu":
            rows, height = index.ravel().astype("int64") % buffer.shape[0], buffer.shape[0]  # -1 and n-1 are one row
        else:
            rows, height = cupy.arange(buffer.size).reshape(buffer.shape)[index].ravel(), buffer.size
        if not rows.size:
            return
        order = cupy.argsort(rows)  # a stable one: equal rows stay in order
        width, target = buffer.size // height, cupy.ascontiguousarray(buffer)
        kernel = self._raw(add_rows_source(self.dtype(buffer)), "add_rows")
        numbers = cupy.int64(rows.size), cupy.int64(width)
        added = cupy.ascontiguousarray(values.astype(buffer.dtype, copy=False))
        self._launch(kernel, rows.size * width, (*numbers, rows[order], order, added, target))
        if target is not buffer:
            buffer[...] = target

    # ------------------------------------------------ looking at indices without waiting

    def check(self, see: Callable[[Any], None], array: Array) -> None:
        """Note the least and the greatest integer on the device; `see` is shown them when values are next read.

        To show them at once would mean to wait for the device in the middle of every training step.
        """
        if self.checks_at_once or array.dtype.kind not in "iu":
            super().check(see, array)
        elif array.size:
            graph = current_graph.get()
            with self.here:
                (self.checks if graph is None else graph.checks).note(see, array)

    def new_checks(self) -> Checks:
        """Return an empty table of checks: a graph has its own, since it goes on writing to the rows it knows."""
        checks = Checks(self)
        checks.forget()
        return checks

    def look(self) -> None:
        """Show the checks what there has been; the device is waited for.

        Raises: IndexRangeError; all that there has been is then forgotten.
        """
        tables = [self.checks, *(graph.checks for graph in self.graphs)]
        try:
            for checks in tables:
                checks.look()
        except IndexRangeError:
            for checks in tables:
                checks.forget()
            raise

    # ------------------------------------------------ kernels

    def compile(self, kernel: Kernel) -> Run | None:
        if kernel not in self.compiled:
            self.compiled[kernel] = self._runner(kernel)
        return self.compiled[kernel]

    def source(self, kernel: Kernel) -> str:
        return kernel_cuda.source(named(kernel))

    def _runner(self, kernel: Kernel) -> Run:
        """Make a kernel run on arrays, laid out as it expects; it is compiled at its first call."""
        cupy = self.cupy
        function = self._raw(self.source(kernel), named(kernel).name)
        numbers = [cupy.dtype(x.dtype.value).type if x.layout == "number" else None for x in kernel.inputs]
        rooms = [(cupy.dtype(y.dtype.value), y.layout == "stack", len(y.values)) for y in kernel.outputs]

        def run(R: int, C: int, inputs: Sequence[Any], out: Sequence[Array | None]) -> list[Array]:
            with self.here:
                arguments = [
                    cupy.ascontiguousarray(x) if number is None else number(x)
                    for x, number in zip(inputs, numbers, strict=True)
                ]
                results = []
                for room, (dtype, stack, n) in zip(out, rooms, strict=True):
                    if room is None:
                        room = cupy.empty((n, R, C) if stack else (R, n * C), dtype)
                    elif not (room.flags.c_contiguous and room.dtype == dtype and room.size == n * R * C):
                        raise ValueError(f"{kernel.name}: the memory for a result is not that of {n * R * C} {dtype}")
                    results.append(room)
                self._launch(function, R * C, (cupy.int64(R), cupy.int64(C), *arguments, *results))
            return results

        return run

    def _raw(self, source: str, name: str) -> Any:
        return _raw_kernel(self.cupy, source, name)

    def _launch(self, kernel: Any, n: int, arguments: tuple[Any, ...]) -> None:
        """Start a kernel with a thread for each of n places, as far as there are threads."""
        if n:
            kernel((min(-(-n // THREADS), MOST_BLOCKS),), (THREADS,), arguments)


class Checks:
    """What there has been on the device, for each check: the least and the greatest value.

    Fields: rows, who is to be shown which row of `seen`; seen, on the device.
    """

    def __init__(self, backend: CuPyBackend) -> None:
        self.backend = backend
        self.rows: dict[Callable[[Any], None], int] = {}
        self.seen: Array = None

    def note(self, see: Callable[[Any], None], array: Array) -> None:
        """Take the values of an array into account, on the device."""
        backend = self.backend
        if see not in self.rows and len(self.rows) == CHECKS:
            backend.look()
            self.rows.clear()
        if self.seen is None or not self.rows:
            self.forget()
        row = self.seen[self.rows.setdefault(see, len(self.rows))]
        kernel = backend._raw(bounds_source(backend.dtype(array)), "bounds")
        one_block = ((1,), (1_024,))  # its threads agree among few
        kernel(*one_block, (backend.cupy.int64(array.size), backend.cupy.ascontiguousarray(array), row))

    def look(self) -> None:
        """Show the checks what there has been.

        Raises: IndexRangeError.
        """
        if not self.rows:
            return
        with self.backend.here:
            found = self.backend.cupy.asnumpy(self.seen[: len(self.rows)])
        for see, values in zip(tuple(self.rows), found, strict=True):
            try:
                if values[0] <= values[1]:
                    see(values)
            except IndexError as error:
                ours = error if isinstance(error, IndexRangeError) else IndexRangeError(str(error))
                ours.add_note(
                    "found when values were next read from the device; what was computed since that index was used is "
                    "wrong. The error names the least or the greatest; TINYRNN_CHECK=1 stops where it is used"
                )
                raise ours from None

    def forget(self) -> None:
        """Begin again with nothing seen, in the same memory: a graph writes there."""
        with self.backend.here:
            if self.seen is None:
                self.seen = self.backend.cupy.empty((CHECKS, 2), "int64")
            self.seen[:, 0], self.seen[:, 1] = GREATEST, LEAST


@functools.cache
def _raw_kernel(cupy: Any, source: str, name: str) -> Any:
    return cupy.RawKernel(source, name)


def _on_a_gpu(data: Any) -> bool:
    """Tell whether an array says that it is on a CUDA device, by DLPack or, as Numba's do, without it."""
    if hasattr(type(data), "__dlpack_device__"):
        return cuda_device(data) is not None
    return hasattr(data, "__cuda_array_interface__")


@dataclasses.dataclass(frozen=True)
class Within:
    """What the numbers of an index may be: CuPy itself begins again at 0 where NumPy has an error."""

    n: int
    axis: int

    def __call__(self, values: Any) -> None:
        for value in (values.min(), values.max()) if values.size else ():
            if not -self.n <= value < self.n:
                raise IndexError(f"index {value} is out of bounds for axis {self.axis} with size {self.n}")


def numbers_in(index: Any, ndim: int) -> Iterator[tuple[int, Array]]:
    """Yield the arrays of integers in an index of an array with `ndim` axes, each with the axis that it is for."""
    parts = index if isinstance(index, tuple) else (index,)
    widths = [
        0 if part is None or part is ... else part.ndim if getattr(part, "dtype", None) == "bool" else 1
        for part in parts
    ]
    axis = 0
    for part, width in zip(parts, widths, strict=True):
        if width == 1 and getattr(part, "dtype", "bool") != "bool":
            yield axis, part
        axis += ndim - sum(widths) if part is ... else width


def named(kernel: Kernel) -> Kernel:
    """Return a kernel with a name that C++ knows and has no other use for, as it has for `norm` and `new`."""
    return dataclasses.replace(kernel, name="fused_" + "".join(c if c.isascii() else "_" for c in kernel.name))


@functools.cache
def bounds_source(dtype: DType) -> str:
    """Return a kernel (n, x, seen): seen[0] becomes the least of it and of n integers, seen[1] the greatest."""
    return f"""extern "C" __global__ void bounds(
    const long long n, const {kernel_cuda.C_TYPES[dtype]}* __restrict__ x, long long* __restrict__ seen) {{
    const long long stride = (long long)gridDim.x * blockDim.x;
    long long least = {GREATEST}LL, greatest = -{GREATEST}LL - 1;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {{
        const long long v = (long long)x[i];
        least = v < least ? v : least;
        greatest = v > greatest ? v : greatest;
    }}
    if (least < seen[0]) atomicMin(seen, least);
    if (greatest > seen[1]) atomicMax(seen + 1, greatest);
}}
"""


@functools.cache
def join_source(dtype: DType, count: int) -> str:
    """Return a kernel (n, x0, x1, …, y): count arrays of n elements, one after the other."""
    kind = kernel_cuda.C_TYPES[dtype]
    parameters = "".join(f"    const {kind}* __restrict__ x{k},\n" for k in range(count))
    cases = "".join(f"            case {k}: y[i] = x{k}[j]; break;\n" for k in range(count))
    return f"""{"#include <cuda_fp16.h>" if dtype is DType.float16 else ""}
extern "C" __global__ void join(
    const long long n,
{parameters}    {kind}* __restrict__ y) {{
    const long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < {count} * n; i += stride) {{
        const long long k = i / n, j = i - k * n;
        switch (k) {{
{cases}        }}
    }}
}}
"""


@functools.cache
def add_rows_source(dtype: DType) -> str:
    """Return a kernel (n, width, rows, order, values, y): y[rows[k]] += values[order[k]], for rows that are sorted."""
    kind, half = kernel_cuda.C_TYPES[dtype], dtype is DType.float16
    return f"""{"#include <cuda_fp16.h>" if half else ""}
extern "C" __global__ void add_rows(
    const long long n, const long long width, const long long* __restrict__ rows, const long long* __restrict__ order,
    const {kind}* __restrict__ values, {kind}* __restrict__ y) {{
    const long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n * width; i += stride) {{
        const long long first = i / width, j = i - first * width, row = rows[first];
        if (first > 0 && rows[first - 1] == row) continue;
        {"float" if half else kind} total = y[row * width + j];
        for (long long k = first; k < n && rows[k] == row; ++k) {{
            total += {"(float)" if half else ""}values[order[k] * width + j];
        }}
        y[row * width + j] = total;
    }}
}}
"""
