"""NumPy: the backend that is always there, the host of every other one, and the source of random numbers."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyrnn.backends import kernel_numpy
from tinyrnn.backends.base import Array, Backend, DType, Run, is_basic
from tinyrnn.backends.kernel import Kernel
from tinyrnn.errors import DTypeError

if TYPE_CHECKING:
    from collections.abc import Sequence


class NumPyBackend(Backend):
    """Arrays are `numpy.ndarray`s in the machine's memory."""

    name = "numpy"

    def __init__(self) -> None:
        self.compiled: dict[Kernel, Run] = {}
        if os.environ.get("TINYRNN_KEEP_MEMORY") != "0":
            keep_freed_memory()

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name)
        setattr(self, name, function)  # found once, an attribute from then on
        return function

    def __repr__(self) -> str:
        return "<backend numpy>"

    def owns(self, array: object) -> bool:
        return isinstance(array, np.ndarray | np.generic)

    def asarray(self, data: Any, dtype: DType | None = None) -> Array:
        return host_array(data, dtype)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        view = np.asarray(array).view()
        view.flags.writeable = False
        return view

    def copy(self, array: Array) -> Array:
        return np.array(array, order="C")

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        return np.empty(shape, dtype)

    def dtype(self, array: Array) -> DType:
        try:
            return _DTYPES[array.dtype]
        except KeyError:
            raise DTypeError(
                f"an operation gave a {type(array).__name__} of {array.dtype}; expected an array of numbers: a "
                "primitive's `forward` computes with what `xp` has and a rule with what `ops` has, not with tr"
            ) from None

    def astype(self, array: Array, dtype: DType) -> Array:
        return array.astype(dtype, copy=False)

    def full(self, shape: tuple[int, ...], value: float, dtype: DType) -> Array:
        return np.zeros(shape, dtype) if value == 0 else np.full(shape, value, dtype)

    def matmul(self, a: Array, b: Array) -> Array:
        if a.dtype is _HALF and b.dtype is _HALF:  # BLAS has no half precision: as matrix units do, add up in float32
            return np.matmul(a, b, dtype=np.float32).astype(np.float16)
        return np.matmul(a, b)

    def stack(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        return arrays[0][None] if len(arrays) == 1 and axis == 0 else np.stack(arrays, axis)

    def getitem(self, array: Array, index: Any) -> Array:
        return array[index]

    def scatter_add(self, buffer: Array, index: Any, values: Array) -> None:
        if is_basic(index):
            buffer[index] += values
        elif isinstance(index, np.ndarray) and index.dtype.kind in "iu" and buffer.ndim == 2:
            _add_rows(buffer, index.ravel(), values.reshape(index.size, buffer.shape[1]))
        else:
            np.add.at(buffer, index, values)

    def pad(self, array: Array, widths: Sequence[tuple[int, int]], value: float) -> Array:
        return np.pad(array, widths, constant_values=value)

    def uniform(self, generator: Generator, shape: tuple[int, ...], dtype: DType) -> Array:
        return generator.uniform(shape, dtype)

    def compile(self, kernel: Kernel) -> Run | None:
        if kernel not in self.compiled:
            self.compiled[kernel] = kernel_numpy.runner(kernel, _printer(kernel).build(kernel))
        return self.compiled[kernel]

    def source(self, kernel: Kernel) -> str:
        text: str = _printer(kernel).source(kernel)
        return text

    def synchronize(self) -> None:
        pass


def _printer(kernel: Kernel) -> Any:
    """Return the module that writes kernels for this machine: Numba's where it is installed, else NumPy's own."""
    if os.environ.get("TINYRNN_FAST") == "0" or importlib.util.find_spec("numba") is None:
        return kernel_numpy
    from tinyrnn.backends import kernel_numba

    return kernel_numba if kernel_numba.supports(kernel) else kernel_numpy


def keep_freed_memory() -> None:
    """Have the C library keep the memory of freed arrays for the next ones, in the whole process; glibc only.

    A training step frees what the next one needs again. Given back to the system in between, every page of it would be
    faulted in anew, which takes a third of the time of a long sequence. TINYRNN_KEEP_MEMORY=0 in the environment leaves
    the C library as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3  # as in malloc.h
        mallopt(m_mmap_threshold, 1 << 30)
        mallopt(m_trim_threshold, (1 << 31) - 1)


_HALF = np.dtype(np.float16)
_DTYPES = {np.dtype(name.value): name for name in DType}


def host_array(data: Any, dtype: DType | None = None) -> np.ndarray[Any, Any]:
    """Make a NumPy array of host data: arrays keep their dtype, Python floats become float32 and ints int64.

    Raises: DTypeError for data that is not numbers (ragged lists, text, complex numbers, objects).
    """
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise DTypeError(f"tensor: the data is not a regular block of numbers ({error}); pad it first") from error
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype not in _DTYPES:
        raise DTypeError(
            f"tensor: the data is {type(data).__name__} of dtype {array.dtype}; expected numbers ({', '.join(DType)})"
        )
    if dtype is None and array.dtype == np.float64 and not hasattr(data, "dtype"):
        dtype = DType.float32
    return array if dtype is None else array.astype(dtype, copy=False)


@functools.cache
def promote(*operands: DType | type) -> DType:
    """Return NumPy's common type of dtypes and of Python scalars given by their type, which are weak.

    >>> from tinyrnn.backends import DType, promote
    >>> promote(DType.float32, float), promote(DType.float32, DType.int64)
    (tinyrnn.float32, tinyrnn.float64)
    """
    return DType.of(np.result_type(*(np.dtype(x) if isinstance(x, DType) else x(1) for x in operands)))


FEW_ROWS = 256


def _add_rows(buffer: Array, rows: Array, values: Array) -> None:
    """Add values[k] to buffer[rows[k]], 5 to 20 times as fast as `np.add.at`.

    A product with one-hot rows, where there are few; else, sorted by row, each run of equal rows is one sum.
    """
    if not rows.size:
        return
    rows = rows.astype(np.intp, copy=False) % buffer.shape[0]  # -1 and n-1 are one row
    if buffer.shape[0] <= FEW_ROWS and buffer.dtype.kind == "f":
        one_hot = np.zeros((buffer.shape[0], rows.size), buffer.dtype)
        one_hot[rows, np.arange(rows.size)] = 1
        with np.errstate(invalid="ignore"):
            sums = one_hot @ values
        if np.isfinite(sums).all():  # 0 · ∞ would spoil the other rows
            buffer += sums
            return
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
    buffer[rows[starts]] += np.add.reduceat(values[order], starts, axis=0)


class Generator:
    """A seeded stream of random numbers (PCG64), drawn on the host: one seed, the same numbers on every backend.

    Only the masks of dropout differ: a GPU draws them itself, by keys (`words`) that come from this stream. So a run
    repeats there too, and goes on from a checkpoint.

    Args: seed, a non-negative int; None takes one from the operating system.
    Source: O'Neill 2014, "PCG: A family of simple fast space-efficient statistically good algorithms".
    Raises: DTypeError for any other seed.

    >>> import tinyrnn as tr
    >>> a, b = tr.Generator(1), tr.Generator(1)
    >>> (tr.randn(3, generator=a) == tr.randn(3, generator=b)).tolist()
    [True, True, True]
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed(seed)

    def seed(self, seed: int | None) -> None:
        """Start the stream again from `seed`.

        Raises: DTypeError for a seed that is neither a non-negative int nor None.
        """
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
            raise DTypeError(f"seed is {seed!r}; expected a non-negative int, or None for a seed by chance")
        self.host = np.random.Generator(np.random.PCG64(seed))

    @property
    def state(self) -> dict[str, Any]:
        """Where the stream is: a dict that JSON can hold; assign it to go back there."""
        return dict(self.host.bit_generator.state)

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.host.bit_generator.state = state

    def normal(self, shape: tuple[int, ...], dtype: DType) -> np.ndarray[Any, Any]:
        """Draw from the normal distribution with mean 0 and variance 1."""
        return np.asarray(self.host.standard_normal(shape), dtype=dtype)

    def uniform(self, shape: tuple[int, ...], dtype: DType) -> np.ndarray[Any, Any]:
        """Draw from [0, 1)."""
        if dtype == DType.float32:
            return np.asarray(self.host.random(shape, dtype=np.float32))
        return np.asarray(self.host.random(shape), dtype=dtype)

    def words(self, n: int) -> np.ndarray[Any, Any]:
        """Draw n random words of 64 bits: the keys by which a device draws numbers of its own."""
        return self.host.bit_generator.random_raw(n)

    def permutation(self, n: int) -> np.ndarray[Any, Any]:
        """Return 0 … n-1 in random order."""
        return self.host.permutation(n)
