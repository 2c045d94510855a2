"""What an array library must offer so that the engine runs on it: the `Backend` protocol, and dtypes by name."""

from __future__ import annotations

import builtins
import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from tinyrnn.errors import DTypeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyrnn.backends.kernel import Kernel
    from tinyrnn.backends.numpy_backend import Generator

Array = Any
"""An array of whichever library the backend wraps."""

Run = Callable[[int, int, "Sequence[Any]", "Sequence[Array | None]"], "list[Array]"]
"""A kernel that runs: (R, C, inputs, out), where `out` has the memory for each output, or None; returns the outputs."""


class DType(enum.StrEnum):
    """An element type, the same on every backend; equal to its name and to the types of NumPy and its kin.

    Its members are attributes of `tr` too: `tr.float32`, `tr.int64`, and `tr.bool_`, which leaves Python's bool alone.

    >>> import tinyrnn as tr
    >>> tr.zeros(2).dtype, tr.float32 == "float32", tr.float32.is_floating
    (tinyrnn.float32, True, True)
    """

    bool = "bool"
    int8 = "int8"
    int16 = "int16"
    int32 = "int32"
    int64 = "int64"
    uint8 = "uint8"
    uint16 = "uint16"
    uint32 = "uint32"
    uint64 = "uint64"
    float16 = "float16"
    float32 = "float32"
    float64 = "float64"

    @classmethod
    def of(cls, spec: Any) -> DType:
        """Read a dtype however it was given: a DType, a name, NumPy's, PyTorch's, or Python's own types.

        Python's `float` is float32, tinyrnn's default; `int` is int64.

        Raises: DTypeError for anything else, complex numbers included.
        """
        if isinstance(spec, cls):
            return spec
        if spec is float:
            return cls.float32
        if spec is int:
            return cls.int64
        name = spec if isinstance(spec, str) else getattr(spec, "name", None) or getattr(spec, "__name__", None)
        try:
            return cls(str(name or spec).rpartition(".")[2].rstrip("_"))
        except ValueError:
            raise DTypeError(f"dtype is {spec!r}; expected one of {', '.join(cls)}") from None

    @property
    def is_floating(self) -> builtins.bool:
        """Whether a tensor of this type can have a gradient."""
        return self in _FLOATING

    def __eq__(self, other: object) -> builtins.bool:
        if isinstance(other, str):
            return str.__eq__(self, other)
        try:
            return self is DType.of(other)
        except DTypeError:
            return False

    def __ne__(self, other: object) -> builtins.bool:
        return not self == other

    __hash__ = str.__hash__

    def __repr__(self) -> str:
        return f"tinyrnn.{self.value}"


_FLOATING = frozenset({DType.float16, DType.float32, DType.float64})


def is_basic(index: Any) -> builtins.bool:
    """Tell whether an index has only ints, slices, None and ... in it, so that it names no element twice."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is ... or isinstance(part, int | slice) for part in parts)


def cuda_device(array: Any) -> int | None:
    """Return the number of the CUDA device that an array is on, as DLPack tells it; None if it tells of none."""
    place = getattr(type(array), "__dlpack_device__", None)
    kind, number = (0, 0) if place is None else place(array)
    return int(number) if kind in (2, 13) else None  # CUDA's own and its managed memory, as DLPack numbers them


class Backend(Protocol):
    """An array namespace (`backend.exp`, `backend.where`, … as the array API standard names them) and what it lacks.

    Everything that differs between devices is here; nothing above this floor asks which device it runs on.

    >>> from tinyrnn import backends
    >>> xp = backends.get("numpy")
    >>> x = xp.asarray([0.0, 4.0])
    >>> xp.sqrt(x), xp.dtype(x)
    (array([0., 2.], dtype=float32), tinyrnn.float32)
    """

    name: str
    """What `use_backend` takes: "numpy", "cupy", "cupy:1"."""

    @property
    def home(self) -> Backend:
        """The backend that computes: itself, if it does not pass everything on to another one."""
        return self

    def __getattr__(self, name: str) -> Any:
        """Return the function of the array namespace called `name`."""

    def owns(self, array: object) -> bool:
        """Tell whether `array` is one of this backend's."""

    def asarray(self, data: Any, dtype: DType | None = None) -> Array:
        """Bring host data, or an array of this backend's, here; copy only where needed. Python floats: float32."""

    def to_host(self, array: Array) -> Any:
        """Return a NumPy array with the values of `array`: read-only where it shares memory with it."""

    def check(self, see: Callable[[Any], None], array: Array) -> None:
        """Show the values of `array`, on the host, to a function that raises an error if they are not as expected."""
        see(self.to_host(array))

    def copy(self, array: Array) -> Array:
        """Return a new array with the same elements, laid out row by row."""

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """Return a new array whose elements are whatever was there."""

    def dtype(self, array: Array) -> DType:
        """Return the element type of `array`."""

    def astype(self, array: Array, dtype: DType) -> Array:
        """Return `array` with elements of another type."""

    def full(self, shape: tuple[int, ...], value: float, dtype: DType) -> Array:
        """Return a new array with `value` everywhere."""

    def getitem(self, array: Array, index: Any) -> Array:
        """`array[index]`, with NumPy's meaning for every kind of index."""

    def scatter_add(self, buffer: Array, index: Any, values: Array) -> None:
        """`buffer[index] += values`, in place, where an element that is named twice counts twice."""

    def pad(self, array: Array, widths: Sequence[tuple[int, int]], value: float) -> Array:
        """Put `value` around `array`, (before, after) for each axis."""

    def uniform(self, generator: Generator, shape: tuple[int, ...], dtype: DType) -> Array:
        """Draw from [0, 1): `generator` alone says which numbers, and it moves on."""

    def drawn(self, draw: Callable[[tuple[int, ...], DType], Any], shape: tuple[int, ...], dtype: DType) -> Array:
        """Bring here what a generator's `draw(shape, dtype)` gives on the host: the same numbers on every backend."""
        return self.asarray(draw(shape, dtype), dtype)

    def compile(self, kernel: Kernel) -> Run | None:
        """Make a fused kernel run; None if this backend computes operation by operation only."""
        return None

    def source(self, kernel: Kernel) -> str:
        """Return the text of a fused kernel as this backend runs it."""
        return f"{kernel.name}: {self.name} computes operation by operation\n"

    def replayed(self, calls: Callable[..., list[Array]]) -> Callable[..., list[Array]]:
        """Return what does the same as `calls`, which will be made again and again for arrays of the same shapes."""
        return calls

    def synchronize(self) -> None:
        """Wait until the device has done all that it was asked for."""

    def enter(self) -> None:
        """Make the arrays' device the one that their operators compute on, where a thread has a current device."""
        return

    def failure(self, error: Exception) -> str:
        """Say what to do about an error that tells of a device that is full or lost; "" for any other."""
        return ""
