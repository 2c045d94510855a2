"""CuPy: the same arrays on a CUDA device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinyrnn.backends import kernel_cuda
from tinyrnn.backends.base import Array, Backend, DType, Run, is_basic
from tinyrnn.backends.kernel import Kernel
from tinyrnn.backends.numpy_backend import Generator, host_array
from tinyrnn.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence


def import_cupy() -> Any:
    """Import CuPy and see that it has a device.

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
    return cupy


class CuPyBackend(Backend):
    """Arrays are `cupy.ndarray`s on one CUDA device.

    Args: device, its number: "cupy:1" is device 1.
    """

    def __init__(self, device: str = "") -> None:
        self.cupy = import_cupy()
        count = self.cupy.cuda.runtime.getDeviceCount()
        if device and not (device.isdecimal() and int(device) < count):
            raise BackendError(f"backend 'cupy:{device}': expected a device number from 0 to {count - 1}")
        self.device = int(device or 0)
        self.compiled: dict[Kernel, Run] = {}
        self.name = f"cupy:{self.device}" if self.device else "cupy"
        self.dtypes = {self.cupy.dtype(name.value): name for name in DType}

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.cupy, name)
        setattr(self, name, function)  # found once, an attribute from then on
        return function

    def __repr__(self) -> str:
        return f"<backend {self.name}>"

    def owns(self, array: object) -> bool:
        return isinstance(array, self.cupy.ndarray) and array.device.id == self.device

    def asarray(self, data: Any, dtype: DType | None = None) -> Array:
        with self.cupy.cuda.Device(self.device):
            if isinstance(data, self.cupy.ndarray):
                return self.cupy.asarray(data, dtype)
            return self.cupy.asarray(host_array(data, dtype))

    def to_host(self, array: Array) -> Any:
        return self.cupy.asnumpy(array)

    def copy(self, array: Array) -> Array:
        return self.cupy.copy(array)

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        with self.cupy.cuda.Device(self.device):
            return self.cupy.empty(shape, dtype.value)

    def dtype(self, array: Array) -> DType:
        return self.dtypes[array.dtype]

    def astype(self, array: Array, dtype: DType) -> Array:
        return array.astype(dtype.value, copy=False)

    def full(self, shape: tuple[int, ...], value: float, dtype: DType) -> Array:
        with self.cupy.cuda.Device(self.device):
            return self.cupy.full(shape, value, dtype.value)

    def getitem(self, array: Array, index: Any) -> Array:
        return array[index]

    def scatter_add(self, buffer: Array, index: Any, values: Array) -> None:
        if is_basic(index):
            buffer[index] += values
        else:
            self.cupy.add.at(buffer, index, values)

    def pad(self, array: Array, widths: Sequence[tuple[int, int]], value: float) -> Array:
        return self.cupy.pad(array, widths, constant_values=value)

    def uniform(self, generator: Generator, shape: tuple[int, ...], dtype: DType) -> Array:
        return self.asarray(generator.uniform(shape, dtype))

    def compile(self, kernel: Kernel) -> Run | None:
        if kernel not in self.compiled:
            self.compiled[kernel] = self._runner(kernel)
        return self.compiled[kernel]

    def source(self, kernel: Kernel) -> str:
        return kernel_cuda.source(kernel)

    def _runner(self, kernel: Kernel) -> Run:
        """Compile a kernel at its first call, and see that its inputs are laid out as it expects."""
        cupy, threads = self.cupy, 256
        function = cupy.RawKernel(kernel_cuda.source(kernel), kernel.name)
        rooms = [(y.dtype.value, y.layout == "stack", len(y.values)) for y in kernel.outputs]

        def run(R: int, C: int, inputs: Sequence[Any], out: Sequence[Array | None]) -> list[Array]:
            with cupy.cuda.Device(self.device):
                arguments = [
                    cupy.dtype(array.dtype.value).type(x) if array.layout == "number" else cupy.ascontiguousarray(x)
                    for x, array in zip(inputs, kernel.inputs, strict=True)
                ]
                results = [
                    cupy.empty((n, R, C) if stack else (R, n * C), dtype) if room is None else room
                    for room, (dtype, stack, n) in zip(out, rooms, strict=True)
                ]
                blocks = min((R * C + threads - 1) // threads, 65_535)
                function((blocks,), (threads,), (cupy.int64(R), cupy.int64(C), *arguments, *results))
            return results

        return run

    def synchronize(self) -> None:
        self.cupy.cuda.Device(self.device).synchronize()
