"""A backend on array-api-strict's second device: what NumPy allows and the standard does not, fails here.

It stands in for a GPU where there is none. Its arrays refuse to become NumPy arrays behind one's back, so code that
passes here asks for every transfer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import array_api_strict as strict
import numpy as np

from tinyrnn.backends import Array, Backend, DType, Generator
from tinyrnn.backends.base import is_basic
from tinyrnn.backends.numpy_backend import host_array
from tinyrnn.errors import BackendError

Strict = type(strict.asarray(0))


class StrictBackend(Backend):
    def __init__(self, device: str = "") -> None:
        self.device = strict.Device(device or "device1")
        self.name = f"strict:{device}" if device else "strict"

    def __getattr__(self, name: str) -> Any:
        return getattr(strict, name)

    def owns(self, array: object) -> bool:
        return isinstance(array, Strict) and array.device == self.device

    def asarray(self, data: Any, dtype: DType | None = None) -> Array:
        if isinstance(data, Strict):
            if data.device != self.device:
                raise BackendError(f"array on {data.device} given to backend {self.name!r}")
            return data if dtype is None else self.astype(data, dtype)
        return strict.asarray(host_array(data, dtype), device=self.device)

    def to_host(self, array: Array) -> Any:
        return self._values(array)

    def copy(self, array: Array) -> Array:
        return strict.asarray(array, copy=True)

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        return self.full(shape, 0, dtype)

    def dtype(self, array: Array) -> DType:
        return DType.of(array.dtype)

    def astype(self, array: Array, dtype: DType) -> Array:
        return strict.astype(array, getattr(strict, DType.of(dtype)))

    def full(self, shape: tuple[int, ...], value: float, dtype: DType) -> Array:
        return strict.full(shape, value, dtype=getattr(strict, dtype), device=self.device)

    def getitem(self, array: Array, index: Any) -> Array:
        if is_basic(index):
            parts = index if isinstance(index, tuple) else (index,)
            shown = sum(part is not None and part is not ... for part in parts)
            return array[parts if ... in parts or shown == len(array.shape) else (*parts, ...)]
        positions, shape = self._positions(array.shape, index)
        return strict.reshape(strict.take(strict.reshape(array, (-1,)), positions), shape)

    def scatter_add(self, buffer: Array, index: Any, values: Array) -> None:
        """Add in place with the standard's own operations: a one-hot product, where an index is an array."""
        parts = index if isinstance(index, tuple) else (index,)
        if is_basic(index) and not any(part is None for part in parts):  # which the standard only reads
            at = parts if ... in parts or len(parts) == len(buffer.shape) else (*parts, ...)
            buffer[at] += values
            return
        positions, _ = self._positions(buffer.shape, index)
        size = strict.reshape(buffer, (-1,)).shape[0]
        hits = strict.expand_dims(positions, axis=1) == strict.arange(size, device=self.device)
        added = strict.matmul(strict.reshape(values, (1, -1)), strict.astype(hits, buffer.dtype))
        buffer[...] = buffer + strict.reshape(added, buffer.shape)

    def pad(self, array: Array, widths: Sequence[tuple[int, int]], value: float) -> Array:
        shape = tuple(n + before + after for n, (before, after) in zip(array.shape, widths, strict=True))
        padded = strict.full(shape, value, dtype=array.dtype, device=self.device)
        padded[tuple(slice(b, b + n) for n, (b, _) in zip(array.shape, widths, strict=True))] = array
        return padded

    def uniform(self, generator: Generator, shape: tuple[int, ...], dtype: DType) -> Array:
        return self.asarray(generator.uniform(shape, dtype))

    def synchronize(self) -> None:
        pass

    def _values(self, array: Array) -> Any:
        """Return the values on the host; what a device would do by itself does not count as a transfer."""
        return np.from_dlpack(array.to_device(strict.Device("CPU_DEVICE"))).copy()

    def _positions(self, shape: tuple[int, ...], index: Any) -> tuple[Array, tuple[int, ...]]:
        """Return the flat positions that an index with arrays names, and their shape, as NumPy understands it."""
        parts = index if isinstance(index, tuple) else (index,)
        host = tuple(self._values(part) if isinstance(part, Strict) else part for part in parts)
        positions = np.arange(int(np.prod(shape))).reshape(shape)[host]
        return strict.asarray(positions.ravel(), device=self.device), positions.shape
