"""Floor 0: which array libraries there are, and which one new tensors go to.

    backend = backends.get("numpy")     # imported at first use
    backends.current()                  # where new tensors go: TINYRNN_BACKEND, or NumPy

A package adds a backend of its own with `register`, or with an entry point in the group "tinyrnn.backends" whose
name is the backend's and whose value is a function (device: str) -> Backend.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar

from tinyrnn.backends.base import Array, Backend, DType, Run, cuda_device
from tinyrnn.backends.kernel import Input, Instruction, Kernel, Output
from tinyrnn.backends.numpy_backend import Generator, NumPyBackend, promote
from tinyrnn.errors import BackendError

__all__ = [
    "Array",
    "Backend",
    "DType",
    "Generator",
    "Input",
    "Instruction",
    "Kernel",
    "Output",
    "Run",
    "current",
    "get",
    "of",
    "promote",
    "register",
    "use_backend",
]

Factory = Callable[[str], Backend]


def _numpy(device: str) -> Backend:
    if device:
        raise BackendError(f"backend 'numpy:{device}': NumPy has no devices; say 'numpy'")
    return NumPyBackend()


def _cupy(device: str) -> Backend:
    from tinyrnn.backends.cupy_backend import CuPyBackend

    return CuPyBackend(device)


_factories: dict[str, Factory] = {"numpy": _numpy, "cupy": _cupy}
_loaded: dict[str, Backend] = {"numpy": NumPyBackend()}
_current: ContextVar[Backend | None] = ContextVar("tinyrnn.backend", default=None)


def register(name: str, factory: Factory) -> None:
    """Make `factory(device)` known as the backend `name`; it is called at the first use of each device.

    Args: name, what `use_backend` takes; factory, a function of the text behind "name:", "" where there is none, that
        returns a Backend.

    >>> import tinyrnn as tr
    >>> from tinyrnn import backends
    >>> from tinyrnn.backends.numpy_backend import NumPyBackend
    >>> class Traced(NumPyBackend):
    ...     name = "traced"
    >>> backends.register("traced", lambda device: Traced())
    >>> tr.tensor([1.0, 2.0]).to("traced")
    tensor([1., 2.], dtype=float32, backend=traced)
    """
    _factories[name] = factory


def get(name: str | Backend) -> Backend:
    """Return the backend called `name`, "cupy" or with a device "cupy:1"; given a Backend, return that.

    Raises: BackendError that lists what there is, or says what to install.

    >>> from tinyrnn import backends
    >>> backends.get("numpy")
    <backend numpy>
    """
    if not isinstance(name, str):
        return name
    if name not in _loaded:
        family, _, device = name.partition(":")
        backend = _factory(family)(device)
        _loaded[name] = _loaded.setdefault(backend.name, backend)  # "cupy:0" is "cupy"
    return _loaded[name]


def _factory(family: str) -> Factory:
    if family not in _factories:
        from importlib.metadata import entry_points  # costs 20 ms, which most programs need not pay

        plugins = {entry.name: entry for entry in entry_points(group="tinyrnn.backends")}
        if family not in plugins:
            known = ", ".join(sorted(_factories | plugins))
            raise BackendError(f"backend {family!r} is unknown; there are {known}")
        register(family, plugins[family].load())
    return _factories[family]


def of(array: object) -> Backend | None:
    """Return the backend that `array` belongs to, None for host data that is nobody's.

    >>> import numpy as np
    >>> from tinyrnn import backends
    >>> backends.of(np.zeros(2)), backends.of([0.0, 0.0])
    (<backend numpy>, None)
    """
    for backend in _loaded.values():
        if backend.owns(array):
            return backend
    number = cuda_device(array)
    return None if number is None else get(f"cupy:{number}")


def current() -> Backend:
    """Return the backend that new tensors go to.

    Raises: BackendError if TINYRNN_BACKEND, in the environment, names one that there is not, or that cannot run here.

    >>> from tinyrnn import backends
    >>> with backends.use_backend("numpy"):
    ...     backends.current()
    <backend numpy>
    """
    return _current.get() or get(os.environ.get("TINYRNN_BACKEND") or "numpy")


class use_backend:
    """Send new tensors to a backend, from here on or inside a `with` block; local to the thread or task.

        tr.use_backend("cupy")            # from here on
        with tr.use_backend("numpy"):     # for these lines
            ...

    Tensors that exist stay where they are: `x.to("cupy")` moves one.

    Args: name, "numpy", "cupy", "cupy:1", one that was registered, or a Backend.
    Raises: BackendError if there is no such backend, or it cannot run here.

    >>> import tinyrnn as tr
    >>> with tr.use_backend("numpy"):
    ...     x = tr.zeros(2)
    >>> x.backend
    <backend numpy>
    """

    def __init__(self, name: str | Backend) -> None:
        self.backend = get(name)
        self.before = _current.get()
        _current.set(self.backend)

    def __enter__(self) -> Backend:
        _current.set(self.backend)  # again, for one that was made before its block
        return self.backend

    def __exit__(self, *exc: object) -> None:
        _current.set(self.before)

    def __repr__(self) -> str:
        return f"use_backend({self.backend.name!r})"
