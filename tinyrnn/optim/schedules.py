"""Learning-rate schedules: the rate as a function of the number of steps done, t = 0, 1, 2, …

A schedule remembers nothing, so that an optimiser that is resumed at step t goes on with the rate of step t.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tinyrnn.errors import StateDictError


@dataclass(frozen=True)
class Schedule:
    """The base of the schedules; `schedule(t)` is the learning rate of step t.

    A subclass is a frozen dataclass of numbers, by which a checkpoint knows it, and writes `__call__`.

    Raises: ValueError for a number of steps, a field named every, total or steps, that is not an int of 1 or more.

    >>> from dataclasses import dataclass
    >>> import tinyrnn as tr
    >>> @dataclass(frozen=True)
    ... class InverseRoot(tr.optim.Schedule):
    ...     lr: float
    ...     def __call__(self, t):
    ...         return self.lr / (t + 1) ** 0.5
    >>> schedule = InverseRoot(lr=0.1)
    >>> schedule(0), schedule(3)
    (0.1, 0.05)
    """

    kinds: ClassVar[dict[str, type[Schedule]]] = {}

    def __init_subclass__(cls) -> None:
        Schedule.kinds[cls.__name__] = cls

    def __post_init__(self) -> None:
        for name in {"every", "total", "steps"} & set(vars(self)):
            n = getattr(self, name)
            if isinstance(n, bool) or not isinstance(n, int) or n < 1:
                raise ValueError(
                    f"{type(self).__name__}: {name} is {n!r}; expected a number of steps, an int of 1 or more"
                )

    def __call__(self, t: int) -> float:
        """Return the learning rate of step t."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(t); a Schedule's subclass writes it")

    def state(self) -> dict[str, Any]:
        """Return a dict that `schedule_of` makes an equal schedule of, and that JSON can hold."""
        return {"kind": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class Constant(Schedule):
    """The same rate at every step.

        lr(t) = lr

    Args: lr.

    >>> import tinyrnn as tr
    >>> schedule = tr.optim.Constant(lr=0.1)
    >>> [schedule(t) for t in range(3)]
    [0.1, 0.1, 0.1]
    """

    lr: float

    def __call__(self, t: int) -> float:
        """Return lr."""
        return self.lr


@dataclass(frozen=True)
class StepDecay(Schedule):
    """A rate that falls by a factor now and then.

        lr(t) = lr · factor^⌊t / every⌋

    Args: lr; every, in steps; factor.
    Raises: ValueError for an `every` that is not an int of 1 or more.

    >>> import tinyrnn as tr
    >>> schedule = tr.optim.StepDecay(lr=0.4, every=2, factor=0.5)
    >>> [schedule(t) for t in range(6)]
    [0.4, 0.4, 0.2, 0.2, 0.1, 0.1]
    """

    lr: float
    every: int
    factor: float = 0.1

    def __call__(self, t: int) -> float:
        """Return lr · factor^⌊t / every⌋."""
        return self.lr * self.factor ** (t // self.every)


@dataclass(frozen=True)
class Cosine(Schedule):
    """A rate that falls from lr to final along half a cosine, and stays there.

        lr(t) = final + (lr − final) (1 + cos(π min(t, total) / total)) / 2

    Args: lr; total, in steps; final.
    Source: Loshchilov & Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts".
    Raises: ValueError for a `total` that is not an int of 1 or more.

    >>> import tinyrnn as tr
    >>> schedule = tr.optim.Cosine(lr=0.1, total=4)
    >>> [round(schedule(t), 3) for t in range(6)]
    [0.1, 0.085, 0.05, 0.015, 0.0, 0.0]
    """

    lr: float
    total: int
    final: float = 0.0

    def __call__(self, t: int) -> float:
        """Return the point on the half cosine."""
        return self.final + (self.lr - self.final) * (1 + math.cos(math.pi * min(t, self.total) / self.total)) / 2


@dataclass(frozen=True)
class WarmUp(Schedule):
    """A rate that rises in a straight line for `steps` steps and then follows another schedule.

        lr(t) = then(t) · min(1, (t + 1) / steps)

    Args: steps; then, a schedule, or a number for a constant one.
    Source: Goyal et al. 2017, "Accurate, Large Minibatch SGD".
    Raises: ValueError for `steps` that is not an int of 1 or more.

    >>> import tinyrnn as tr
    >>> then = tr.optim.StepDecay(lr=0.4, every=5, factor=0.5)
    >>> schedule = tr.optim.WarmUp(steps=4, then=then)
    >>> [round(schedule(t), 3) for t in range(6)]
    [0.1, 0.2, 0.3, 0.4, 0.4, 0.2]
    """

    steps: int
    then: Schedule | float

    def __call__(self, t: int) -> float:
        """Return then(t), reduced during the first steps."""
        then = self.then(t) if isinstance(self.then, Schedule) else self.then
        return then * min(1.0, (t + 1) / self.steps)

    def state(self) -> dict[str, Any]:
        """Return a dict that `schedule_of` makes an equal schedule of."""
        then = self.then.state() if isinstance(self.then, Schedule) else self.then
        return {"kind": "WarmUp", "steps": self.steps, "then": then}


def schedule_of(state: Any) -> Any:
    """Make the schedule that `state()` was called on; a number stays one.

    Raises: StateDictError for a kind that is unknown or misses a field.
    """
    if not isinstance(state, dict):
        return state
    fields = {name: schedule_of(value) for name, value in state.items() if name != "kind"}
    try:
        return Schedule.kinds[state["kind"]](**fields)
    except (KeyError, TypeError) as error:
        known = ", ".join(Schedule.kinds)
        raise StateDictError(f"learning-rate schedule is {state}; expected the state of one of {known}") from error
