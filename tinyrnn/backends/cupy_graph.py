"""A list of calls on CuPy as one CUDA graph: the device gets thousands of kernels by one launch.

Recording a stream writes down what would be queued there, with its addresses and numbers, and runs nothing. So all that
a graph reads, writes and computes with lies in memory that is the graph's alone, and what changes from one launch to
the next is copied there before. The device is not waited for.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tinyrnn.backends.base import Array
from tinyrnn.backends.cublas import Blas
from tinyrnn.errors import CaptureError

if TYPE_CHECKING:
    from tinyrnn.backends.cupy_backend import CuPyBackend
    from tinyrnn.backends.numpy_backend import Generator

current_graph: ContextVar[Graph | None] = ContextVar("tinyrnn.graph", default=None)
"""The graph that the calls of this thread are made for: warming up, or being recorded."""


class Graph:
    """Calls on arrays of certain shapes and dtypes, repeated by a CUDA graph.

    The first time the calls are made twice: once on a stream of their own, for their results, by which kernels are
    compiled and the pool of memory grows; and once to be recorded. From then on arguments are copied to where the graph
    reads, it is launched, and copies of its results are returned. Random numbers are drawn on the device by a key that
    the generator gives for each launch (`philox.py`), so that they are those of the calls themselves.

    Not all can be recorded: what reads values, counts the Trues of a mask, or sorts, waits for the device; and what
    copies from the host would copy at each launch whatever is there by then. Then the calls are repeated one by one,
    after a warning that names the one.

    This has been run on the stand-in for CuPy in the tests, and not on a GPU yet.

    Args: backend, CuPy's; calls, from arrays to a list of arrays.
    """

    def __init__(self, backend: CuPyBackend, calls: Callable[..., list[Array]]) -> None:
        self.backend, self.calls = backend, calls
        self.lock = threading.Lock()  # two threads must not fill the same memory
        self.repeat: Callable[[tuple[Array, ...]], list[Array]] = self._first
        self.generators: list[Generator] = []  # who gives the key, for each call that draws
        self.pool: Any = None
        self.stream: Any = None
        self.blas: Any = None
        self.inputs: Any = None
        self.outputs: Any = None
        self.words: Array = None  # the keys, on the device

    def __call__(self, *arrays: Array) -> list[Array]:
        """Return what the calls make of the arrays."""
        if self.backend.checks_at_once:  # they wait for the device
            return self.calls(*arrays)
        with self.backend.here, self.lock:
            return self.repeat(arrays)

    def _first(self, arrays: tuple[Array, ...]) -> list[Array]:
        cupy = self.backend.cupy
        here = cupy.cuda.get_current_stream()
        self.checks = self.backend.new_checks()
        self.backend.graphs.add(self)
        self.pool, self.stream = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
        self.stream.wait_event(here.record())
        try:
            with self._aside():
                blas = self.blas = Blas(cupy, self.stream)
        except Exception as error:
            self._give_up(error)
            return self.calls(*arrays)
        try:
            self.generators, self.words = [], None
            with self._aside():
                self.inputs = [x.copy(order="C") for x in arrays]
                made = self.calls(*self.inputs)
            here.wait_event(self.stream.record())
            results = [y.copy(order="C") for y in made]
            here.synchronize()  # this once, so that what the calls have used may be used again
            del made
            try:
                with self._aside():
                    self.words = cupy.zeros(len(self.generators), "uint64")
                    self._record()
            except Exception as error:
                self._give_up(error)
            else:
                here.wait_event(self.stream.record())
                self.done, self.repeat = cupy.cuda.Event(disable_timing=True), self._launch
                cupy.get_default_memory_pool().free_all_blocks()  # what runs without the graph have left behind
            return results
        finally:
            blas.close()

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """Make calls for this graph: on its stream, in its memory."""
        token = current_graph.set(self)
        try:
            with self.stream, self.backend.cupy.cuda.using_allocator(self.pool.malloc):
                yield
        finally:
            current_graph.reset(token)

    def _record(self) -> None:
        self.turn = iter(range(len(self.generators)))
        with no_copies_from_the_host(self.backend.cupy):
            self.stream.begin_capture()
            try:
                self.outputs = self.calls(*self.inputs)
            except BaseException:
                with contextlib.suppress(Exception):  # of what was recorded so far nothing can be made
                    self.stream.end_capture()
                raise
            self.graph = self.stream.end_capture()

    def _launch(self, arrays: tuple[Array, ...]) -> list[Array]:
        cupy = self.backend.cupy
        stream = cupy.cuda.get_current_stream()
        stream.wait_event(self.done)  # that of the launch before, which may be on another stream
        for room, x in zip(self.inputs, arrays, strict=True):
            room[...] = x
        first = 0
        for generator, several in itertools.groupby(self.generators):
            last = first + len(list(several))
            self.words[first:last] = cupy.asarray(generator.words(last - first))
            first = last
        self.graph.launch()
        results = [y.copy(order="C") for y in self.outputs]
        self.done.record(stream)
        return results

    def key(self, generator: Generator) -> Array:
        """Return the random word, on the device, that a call draws by: at each launch another."""
        if self.words is None:
            self.generators.append(generator)
            return self.backend.cupy.asarray(generator.words(1))
        k = next(self.turn)
        return self.words[k : k + 1]

    def _give_up(self, error: Exception) -> None:
        """Repeat the calls without a graph from now on, and say why."""
        self.repeat = self._one_by_one
        self.pool = self.stream = self.blas = None
        self.inputs = self.outputs = self.words = None
        warnings.warn(
            "capture: the calls are repeated one by one, since no CUDA graph can be made of them: "
            f"{type(error).__name__}: {error}{self._place_of(error)}",
            RuntimeWarning,
            stacklevel=5,
        )

    def _one_by_one(self, arrays: tuple[Array, ...]) -> list[Array]:
        return self.calls(*arrays)

    @property
    def held(self) -> int:
        """The bytes of its memory."""
        return self.pool.total_bytes() if self.pool is not None else 0

    def _place_of(self, error: Exception) -> str:
        """Return the call that an error came from, as it is written on the tape."""
        lines = (getattr(self.calls, "__doc__", None) or "").splitlines()
        for frame, n in traceback.walk_tb(error.__traceback__):
            if frame.f_code is getattr(self.calls, "__code__", None) and n <= len(lines):
                return f", in `{lines[n - 1].split(';')[0].strip()}`"
        return ""


@contextlib.contextmanager
def no_copies_from_the_host(cupy: Any) -> Iterator[None]:
    """Refuse copies from the host in this thread: CuPy makes each from pinned memory that it asks its allocator for.

    A graph would copy again at each launch, from memory that has long been given to others.
    """
    thread, pool = threading.get_ident(), cupy.get_default_pinned_memory_pool()

    def refuse(size: int) -> Any:
        if threading.get_ident() != thread:
            return pool.malloc(size)
        raise CaptureError(f"{size} bytes would be copied from the host at each launch")

    cupy.cuda.set_pinned_memory_allocator(refuse)
    try:
        yield
    finally:
        cupy.cuda.set_pinned_memory_allocator(pool.malloc)  # CuPy's own choice; it does not tell what was set before
