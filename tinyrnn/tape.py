"""A tape: a backend that does what another one does, and writes down each call, to be made again on other values."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

from tinyrnn.backends import Backend, DType, Kernel, Run
from tinyrnn.errors import CaptureError


class Recorded:
    """An array on a tape: its values in the run that is recorded, and the name that the calls know it by."""

    __slots__ = ("name", "tape", "value")
    __array_ufunc__ = None

    def __init__(self, tape: Tape, value: Any, name: str) -> None:
        self.tape, self.value, self.name = tape, value, name

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self.value.shape

    @property
    def dtype(self) -> Any:
        """The element type, as the real backend has it."""
        return self.value.dtype

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.tape.to_host(self)

    def __getattr__(self, name: str) -> Any:
        """Return a method, whose call is recorded, or what another attribute holds."""
        found = getattr(self.value, name)
        if name.startswith("__"):
            raise AttributeError(f"an array on a tape has no {name}")
        if callable(found):
            return functools.partial(self.tape.record, getattr(type(self.value), name), self)
        return found if isinstance(found, int | tuple) else self.tape.record(getattr, self, name)

    def __getitem__(self, index: Any) -> Any:
        return self.tape.record(operator.getitem, self, index)


def _operator(name: str, swapped: bool = False) -> Any:
    function = getattr(operator, name)

    def method(self: Recorded, *others: Any) -> Any:
        operands = (*others, self) if swapped else (self, *others)
        return self.tape.record(function, *operands)

    return method


for _name in ("add", "sub", "mul", "truediv", "pow", "and", "or"):
    setattr(Recorded, f"__{_name}__", _operator(f"__{_name}__"))
    setattr(Recorded, f"__r{_name}__", _operator(f"__{_name}__", swapped=True))
for _name in ("neg", "invert", "eq", "ne", "lt", "le", "gt", "ge", "iadd", "abs"):
    setattr(Recorded, f"__{_name}__", _operator(f"__{_name}__"))
Recorded.__hash__ = object.__hash__  # type: ignore[method-assign]  # == compares elements


class Tape(Backend):
    """A backend that does what another one does, and writes down each call as a line of Python."""

    name = "a tape"

    def __init__(self, home: Backend) -> None:
        self._home = home
        self.inputs: list[str] = []
        self.lines: list[tuple[list[str], str, list[str]]] = []  # what is made, the call, what it reads
        self.names: dict[str, Any] = {}
        self.known: dict[int, str] = {}
        self.compiled: dict[Kernel, Run | None] = {}

    @property
    def home(self) -> Backend:
        return self._home

    def given(self, array: Any) -> Recorded:
        """Return an input."""
        self.inputs.append(f"a{len(self.inputs)}")
        return Recorded(self, array, self.inputs[-1])

    def lifted(self, array: Any) -> Recorded:
        """Return an array as one of the tape's; what was made elsewhere is a constant."""
        return array if isinstance(array, Recorded) else Recorded(self, array, self.constant(array))

    def constant(self, value: Any) -> str:
        """Return the name of a value that stays as it is; a function's is its own, and a number."""
        if id(value) not in self.known:
            name = getattr(getattr(value, "func", value), "__name__", "") if callable(value) else ""
            self.known[id(value)] = f"{name}_{len(self.names)}" if name.isidentifier() else f"c{len(self.names)}"
            self.names[self.known[id(value)]] = value  # and so is alive, and keeps its id
        return self.known[id(value)]

    def record(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make a call, and write it down."""
        read: list[str] = []
        written = [self.written(x, read) for x in args]
        written += [f"{name}={self.written(x, read)}" for name, x in kwargs.items()]
        result = function(*[real(x) for x in args], **{name: real(x) for name, x in kwargs.items()})
        call = f"{self.constant(function)}({', '.join(written)})"
        if isinstance(result, tuple | list):
            made = [Recorded(self, x, f"v{len(self.lines)}_{k}") for k, x in enumerate(result)]
            self.lines.append(([x.name for x in made], f"{', '.join(x.name for x in made)}, = {call}", read))
            return type(result)(made)
        if result is None:
            self.lines.append(([], call, read))
            return None
        one = Recorded(self, result, f"v{len(self.lines)}")
        self.lines.append(([one.name], f"{one.name} = {call}", read))
        return one

    def written(self, x: Any, read: list[str]) -> str:
        """Return how an argument is written, and note the arrays in it."""
        if isinstance(x, Recorded):
            read.append(x.name)
            return x.name
        if isinstance(x, tuple | list):
            parts = "".join(f"{self.written(part, read)}, " for part in x)
            return f"({parts})" if isinstance(x, tuple) else f"[{parts}]"
        if isinstance(x, slice):
            return f"slice({', '.join(self.written(part, read) for part in (x.start, x.stop, x.step))})"
        return repr(x) if x is None or isinstance(x, bool | int) else self.constant(x)

    def text_of(self, outputs: Sequence[Recorded]) -> str:
        """Return the calls as Python: from the inputs to the outputs, letting go of each array after its last use."""
        returned = {y.name for y in outputs}
        last = {name: n for n, (made, _, read) in enumerate(self.lines) for name in (*made, *read)}
        body = []
        for n, (made, line, read) in enumerate(self.lines):
            done = sorted(
                name for name in {*made, *read} if last[name] == n and name[0] == "v" and name not in returned
            )
            body.append(line if not done else f"{line}; del {', '.join(done)}")
        body.append(f"return [{', '.join(y.name for y in outputs)}]")
        return f"def calls({', '.join(self.inputs)}):\n    " + "\n    ".join(body) + "\n"

    def function(self, text: str) -> Callable[..., list[Any]]:
        """Return a function made of the text, which is its docstring."""
        names = dict(self.names)
        exec(compile(text, "<captured>", "exec"), names)
        calls: Callable[..., list[Any]] = names["calls"]
        calls.__doc__ = text
        return calls

    # ------------------------------------------------ what the engine asks of a backend

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.home, name)
        if not callable(found):
            return found
        call = functools.partial(self.record, found)
        setattr(self, name, call)
        return call

    def owns(self, array: object) -> bool:
        return isinstance(array, Recorded) and array.tape is self

    def asarray(self, data: Any, dtype: DType | None = None) -> Any:
        if isinstance(data, Recorded):
            return data if dtype is None else self.astype(data, dtype)
        return self.lifted(self.home.asarray(data, dtype))

    def to_host(self, array: Any) -> Any:
        raise CaptureError(
            "capture: the function looks at a value, as `if`, item(), float() and numpy() do; its Python runs once, "
            "for all values: look at what it returns, or choose with tr.where(mask, a, b)"
        )

    def check(self, see: Callable[[Any], None], array: Any) -> None:
        self.record(functools.partial(self.home.check, see), array)

    def copy(self, array: Any) -> Any:
        return self.record(self.home.copy, array)

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Any:
        return self.record(self.home.empty, shape, dtype)

    def dtype(self, array: Any) -> DType:
        return self.home.dtype(array.value)

    def astype(self, array: Any, dtype: DType) -> Any:
        return array if self.dtype(array) is dtype else self.record(self.home.astype, array, dtype)

    def full(self, shape: tuple[int, ...], value: float, dtype: DType) -> Any:
        return self.record(self.home.full, shape, value, dtype)

    def getitem(self, array: Any, index: Any) -> Any:
        return self.record(self.home.getitem, array, index)

    def scatter_add(self, buffer: Any, index: Any, values: Any) -> None:
        self.record(self.home.scatter_add, buffer, index, values)

    def pad(self, array: Any, widths: Any, value: float) -> Any:
        return self.record(self.home.pad, array, tuple(map(tuple, widths)), value)

    def uniform(self, generator: Any, shape: tuple[int, ...], dtype: DType) -> Any:
        return self.record(self.home.uniform, generator, shape, dtype)

    def drawn(self, draw: Any, shape: tuple[int, ...], dtype: DType) -> Any:
        return self.record(self.home.drawn, draw, shape, dtype)

    def compile(self, kernel: Kernel) -> Run | None:
        run = self.home.compile(kernel)
        return None if run is None else functools.partial(self._run, run)

    def _run(self, run: Run, R: int, C: int, inputs: Sequence[Any], out: Sequence[Any]) -> list[Any]:
        """Run a kernel; an output that was given its memory is that memory, by its name."""
        written: list[Any] = self.record(run, R, C, list(inputs), list(out))
        return [new if place is None else place for new, place in zip(written, out, strict=True)]

    def source(self, kernel: Kernel) -> str:
        return self.home.source(kernel)

    def synchronize(self) -> None:
        pass

    def enter(self) -> None:
        self.home.enter()

    def failure(self, error: Exception) -> str:
        return self.home.failure(error)


def real(x: Any) -> Any:
    """Return an argument with values in place of recorded arrays."""
    if isinstance(x, Recorded):
        return x.value
    if isinstance(x, tuple | list):
        return type(x)(map(real, x))
    return x
