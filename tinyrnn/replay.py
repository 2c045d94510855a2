"""One step of a model, done once in Python and from then on repeated: the same operations, on arrays alone.

A step at batch 1 is mostly Python: modules that call modules, tensors that wrap arrays, checks of shapes that never
change. `Replay` watches a step, writes down the operations and what each of them reads, and makes a function of that.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from tinyrnn.autograd import Scope, changed_mode, current_mode, no_grad
from tinyrnn.nn import Module
from tinyrnn.primitives import Primitive
from tinyrnn.tensor import Tensor

TRIALS = 2  # how many steps are done both ways, and compared, before a replay is trusted


class Replay:
    """Calls a model without recording a graph: from the third time on by repeating the operations of the first.

    Args: model, (x, state) -> (y, state); it must do the same operations at every step, with nothing but x and the
        state that changes. The first replays are compared with the model itself; one that differs (a model that counts
        its calls, or draws random numbers) is never replayed. A step of other shapes, or with other parameters, is
        watched anew, and so is every step while a profile or a listener is at work.
    """

    def __init__(self, model: Module) -> None:
        self.model = model
        self.parameters = model.parameters()
        self.key: Any = None
        self.trials = 0
        self.differs = False
        self.repeat: Callable[..., tuple[Any, ...]] | None = None

    @no_grad()
    def __call__(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Do a step."""
        mode = current_mode()
        if self.differs or mode.listener is not None or mode.timer is not None:
            return self.model(x, state)  # type: ignore[no-any-return]
        given = [x, *leaves(state)]
        key = (
            [
                (leaf.array.shape, leaf.array.dtype, leaf.backend) if isinstance(leaf, Tensor) else leaf
                for leaf in given
            ],
            sum([parameter.version for parameter in self.parameters]),
        )
        if self.repeat is None or key != self.key:
            return self.watched(key, given, x, state)
        arrays = self.repeat(*[leaf.array for leaf in given if isinstance(leaf, Tensor)])
        if self.trials < TRIALS:
            return self.compared(arrays, x, state)
        return self.wrapped(arrays)

    def watched(self, key: Any, given: list[Any], x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Do a step in Python, and write down its operations."""
        tape = Tape([leaf.array for leaf in given if isinstance(leaf, Tensor)])
        with changed_mode(timer=tape.watch):
            results = self.model(x, state)
        self.like = results
        self.backends = [leaf.backend for leaf in leaves(results) if isinstance(leaf, Tensor)]
        self.repeat = tape.function([leaf.array for leaf in leaves(results) if isinstance(leaf, Tensor)])
        self.key, self.trials = key, 0
        return results  # type: ignore[no-any-return]

    def compared(self, arrays: tuple[Any, ...], x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Do a step in Python, and see that the replay has come to the same."""
        results = self.model(x, state)
        expected = [leaf for leaf in leaves(results) if isinstance(leaf, Tensor)]
        constants = [leaf for leaf in leaves(results) if not isinstance(leaf, Tensor)]
        same = constants == [leaf for leaf in leaves(self.like) if not isinstance(leaf, Tensor)]
        same = same and len(expected) == len(arrays)
        self.differs = not same or not all(_equal(y, array) for y, array in zip(expected, arrays, strict=True))
        self.trials += 1
        return results  # type: ignore[no-any-return]

    def wrapped(self, arrays: tuple[Any, ...]) -> tuple[Tensor, Any]:
        """Return arrays as the model would."""
        tensors = map(Tensor, arrays, self.backends)
        return filled(self.like, tensors)  # type: ignore[no-any-return]


class Tape:
    """The operations of a step, as lines of Python.

    Args: inputs, the arrays that a step is given.
    """

    def __init__(self, inputs: list[Any]) -> None:
        self.count = len(inputs)
        self.held = list(inputs)  # so that no other array gets the id of one of these
        self.names = {id(array): f"a{k}" for k, array in enumerate(inputs)}
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self.fresh = map("v{}".format, itertools.count())

    def watch(self, direction: str, op: Primitive | None, scope: Scope | None, computation: Any) -> Any:
        """Do an operation, and write it down."""
        computed = computation()
        arguments = [self.text(argument) for argument in computation.args]
        arguments += [f"{name}={self.text(value)}" for name, value in computation.keywords.items()]
        call = f"{self.text(computation.func)}({', '.join(arguments)})"
        results = computed if isinstance(computed, tuple) else (computed,)
        names = [next(self.fresh) for _ in results]
        self.held += results
        self.names |= {id(array): name for array, name in zip(results, names, strict=True)}
        self.lines.append(f"{', '.join(names)}{',' if isinstance(computed, tuple) else ''} = {call}")
        return computed

    def text(self, value: Any) -> str:
        """Return how a value is written: by its name, where an input or an operation gave it."""
        if id(value) in self.names:
            return self.names[id(value)]
        if isinstance(value, tuple):
            return f"({''.join(f'{self.text(part)}, ' for part in value)})"
        if isinstance(value, slice):
            return f"slice({self.text(value.start)}, {self.text(value.stop)}, {self.text(value.step)})"
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        self.names[id(value)] = name
        return name

    def function(self, outputs: list[Any]) -> Callable[..., tuple[Any, ...]]:
        """Return a function from the inputs to the outputs."""
        arguments = ", ".join(f"a{k}" for k in range(self.count))
        returned = "".join(f"{self.text(array)}, " for array in outputs)
        body = "\n    ".join([*self.lines, f"return ({returned})"])
        names = dict(self.constants)
        exec(compile(f"def step({arguments}):\n    {body}\n", "<replay>", "exec"), names)
        function: Callable[..., tuple[Any, ...]] = names["step"]
        return function


def leaves(state: Any) -> Iterator[Any]:
    """Yield what a (nested) tuple, list or dict holds."""
    if isinstance(state, tuple | list):
        for part in state:
            yield from leaves(part)
    elif isinstance(state, dict):
        for part in state.values():
            yield from leaves(part)
    else:
        yield state


def filled(like: Any, tensors: Iterator[Tensor]) -> Any:
    """Return a copy of a nested state with other tensors in it."""
    if isinstance(like, Tensor):
        return next(tensors)
    if isinstance(like, dict):
        return {name: filled(part, tensors) for name, part in like.items()}
    if isinstance(like, tuple | list):
        parts = [filled(part, tensors) for part in like]
        return type(like)(*parts) if hasattr(like, "_fields") else type(like)(parts)
    return like


def _equal(y: Tensor, array: Any) -> bool:
    same = y.array.shape == array.shape and (y.array == array)
    return bool(same if isinstance(same, bool) else y.backend.to_host(same).all())
