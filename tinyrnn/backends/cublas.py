"""Matrix products by a cuBLAS handle of our own: CuPy refuses the use of its own while a stream is being recorded.

cuBLAS has its matrices column by column. The memory of a row-major C, read like that, is Cᵀ, and Cᵀ = Bᵀ Aᵀ: the two
operands change places, and nothing is transposed.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from typing import Any

from tinyrnn.backends.base import Array
from tinyrnn.errors import BackendError

AS_IT_IS, TRANSPOSED = 0, 1  # cuBLAS's numbers for them, and those below
KINDS = {"float16": 2, "float32": 0, "float64": 1}
COMPUTE_32F, COMPUTE_64F, COMPUTE_TF32 = 68, 70, 77
DEFAULT_ALGORITHM = -1
HOPPER = 90  # the first device, by its compute capability, for which NVIDIA advises a large workspace


class Blas:
    """A handle, and its workspace, for one stream. Each product is that of `cupy.matmul`; float16 adds up in float32.

    Args: cupy, the module; stream, that the products are queued on.
    Raises: BackendError where nvmath-python, by which cuBLAS is called, is not installed.
    """

    def __init__(self, cupy: Any, stream: Any) -> None:
        try:
            from nvmath.bindings import cublas
        except ImportError as error:
            raise BackendError(
                f"a CUDA graph's matrix products need nvmath-python, which cannot be imported ({error}): "
                "pip install nvmath-python"
            ) from error
        self.cupy, self.cublas = cupy, cublas
        hopper = int(cupy.cuda.Device().compute_capability) >= HOPPER
        self.workspace = cupy.empty((32 if hopper else 4) << 20, "uint8")  # kept as long as a graph may write there
        self.handle = cublas.create()
        cublas.set_stream(self.handle, stream.ptr)  # before the workspace, which it would take away again
        cublas.set_workspace(self.handle, self.workspace.data.ptr, self.workspace.nbytes)

    def close(self) -> None:
        """Give the handle back; what was recorded does not need it."""
        self.cublas.destroy(self.handle)

    def matmul(self, a: Array, b: Array) -> Array:
        """The matrix product a b, for matrices (n, k) and (k, m), or stacks of them that broadcast."""
        if a.dtype != b.dtype or str(a.dtype) not in KINDS:
            return self.cupy.matmul(a, b)  # integers, whose products are not cuBLAS's
        (n, k), m = a.shape[-2:], b.shape[-1]
        stacked = _broadcast(a.shape[:-2], b.shape[:-2])
        if not (a.size and b.size):
            return self.cupy.zeros((*stacked, n, m), a.dtype)
        y = self.cupy.empty((*stacked, n, m), a.dtype)
        a, as_a, leading_a, stride_a = self._operand(a, stacked)
        b, as_b, leading_b, stride_b = self._operand(b, stacked)
        kind, (compute, number) = KINDS[str(a.dtype)], self._computed(str(a.dtype))
        one, zero = number(1), number(0)  # read when the call is made
        alpha, beta = ctypes.addressof(one), ctypes.addressof(zero)
        sizes, how = (as_b, as_a, m, n, k), (compute, DEFAULT_ALGORITHM)
        if not stacked:
            operands = (b.data.ptr, kind, leading_b, a.data.ptr, kind, leading_a, beta, y.data.ptr, kind, m)
            self.cublas.gemm_ex(self.handle, *sizes, alpha, *operands, *how)
        else:
            left, right = (b.data.ptr, kind, leading_b, stride_b), (a.data.ptr, kind, leading_a, stride_a)
            result = (y.data.ptr, kind, m, n * m, math.prod(stacked))
            self.cublas.gemm_strided_batched_ex(self.handle, *sizes, alpha, *left, *right, beta, *result, *how)
        return y

    def _computed(self, dtype: str) -> tuple[int, Any]:
        """Return the type that a product is added up in, as CuPy is set to do it, and that of a number beside it."""
        if dtype == "float64":
            return COMPUTE_64F, ctypes.c_double
        core = self.cupy._core  # where CUPY_TF32=1 is kept
        tf32 = dtype == "float32" and core.get_compute_type(dtype) == core._routines_linalg.COMPUTE_TYPE_TF32
        return COMPUTE_TF32 if tf32 else COMPUTE_32F, ctypes.c_float

    def _operand(self, x: Array, stacked: tuple[int, ...]) -> tuple[Array, int, int, int]:
        """Return an operand that cuBLAS can read, how, its leading dimension, and the way from a matrix to the next."""
        if stacked:
            x = self.cupy.broadcast_to(x, (*stacked, *x.shape[-2:]))
            x = x if len(stacked) == 1 else self.cupy.ascontiguousarray(x).reshape(-1, *x.shape[-2:])
        if _read(x) is None:
            x = self.cupy.ascontiguousarray(x)
        read = _read(x)
        assert read is not None
        return x, *read, x.strides[0] // x.dtype.itemsize if stacked else 0


def _read(x: Array) -> tuple[int, int] | None:
    """Return how cuBLAS reads the matrices that are the last two axes, and their leading dimension; None if it cannot.

    By rows, each after the other with a constant distance, or by columns.
    """
    (rows, columns), (down, across) = x.shape[-2:], (step // x.dtype.itemsize for step in x.strides[-2:])
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return AS_IT_IS, max(down if rows > 1 else columns, 1)
    if (down == 1 or rows == 1) and (across >= rows or columns == 1):
        return TRANSPOSED, max(across if columns > 1 else rows, 1)
    return None


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    pairs = itertools.zip_longest(reversed(a), reversed(b), fillvalue=1)
    return tuple(reversed([q if p == 1 else p for p, q in pairs]))
