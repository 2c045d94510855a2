"""Loss scaling: gradients that half precision would lose are lifted into its range, and lowered again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from tinyrnn.autograd import no_grad
from tinyrnn.errors import DTypeError, GraphError, StateDictError
from tinyrnn.functions import abs, full, isfinite, stack, where
from tinyrnn.optim.optimizers import Optimizer, see_not_captured
from tinyrnn.tensor import Tensor


class LossScaler:
    """Scale the loss, unscale its gradients, and pass over a step whose gradients are not finite: dynamic loss scaling.

        g = ∂(s · L)/∂w / s
        all g finite:  the optimiser's step;  s ← growth · s after `interval` such steps in a row
        otherwise:     no step;               s ← backoff · s

    float16 has 0 for what is under 6e-8 and ∞ for what is over 65,504. Under `mixed_precision` gradients pass through
    it; the scale s is kept as large as they bear. With the factors as they are it is a power of 2, and costs no digit.

        scaler = optim.LossScaler(optim.Adam(model.parameters()))
        ...
        optimizer.zero_grad()
        with tr.mixed_precision():
            loss = tr.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale()                                     # only needed by what looks at gradients before the step
        optim.clip_grad_norm(model.parameters(), 5.0)
        scaler.step()

    Nothing waits for the device: whether a step counts is a tensor, by which the new values or the old ones are chosen,
    of the parameters and of what the optimiser remembers, bit for bit. So Python cannot know how many did, and
    `optimizer.steps` and `updates`, which schedules and Adam's correction for starting at zero go by, count a step that
    was passed over too; if the very first one was, Adam's next is 0.74 times as long as it would be.

    A captured function reads the scale at each call if it is named: `tr.capture(function, model, scaler.loss_scale)`.

    Args: optimizer; initial, the first s; growth, over 1; backoff, between 0 and 1; interval, the number of good steps.
    Attributes: loss_scale, s, a tensor of one number; good, the steps in a row that counted; skipped, all that did not.
    Source: Micikevicius et al. 2018, "Mixed Precision Training"; factors and interval are PyTorch's.
    Raises: ValueError for an option out of range; DTypeError for parameters in half precision themselves.

    >>> import tinyrnn as tr
    >>> w = tr.Parameter(1.0)
    >>> scaler = tr.optim.LossScaler(tr.optim.SGD([w], lr=0.1))
    >>> scaler.scale(w**2).backward()
    >>> w.grad.item()  # 2 · 2¹⁶
    131072.0
    >>> scaler.step()
    >>> round(w.item(), 4)
    0.8
    >>> w.grad = None
    >>> scaler.scale(w * float("inf")).backward()  # as after an overflow
    >>> scaler.step()
    >>> round(w.item(), 4), scaler
    (0.8, LossScaler(loss_scale=32768.0, good=0, skipped=1))
    """

    def __init__(
        self,
        optimizer: Optimizer,
        initial: float = 2.0**16,
        growth: float = 2.0,
        backoff: float = 0.5,
        interval: int = 2000,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise DTypeError(f"LossScaler: given {type(optimizer).__name__}; expected an optimiser, such as optim.Adam")
        options: dict[str, tuple[Any, float, float]] = {
            "initial": (initial, 0, math.inf),
            "growth": (growth, 1, math.inf),
            "backoff": (backoff, 0, 1),
            "interval": (interval, 0, math.inf),
        }
        for option, (value, low, high) in options.items():
            if not isinstance(value, Real) or not low < float(value) < high:
                raise ValueError(f"LossScaler: {option} is {value!r}; expected a number over {low} and under {high}")
        for w in optimizer.parameters:
            if w.dtype == "float16":
                raise DTypeError(
                    "LossScaler: a parameter is float16, too coarse for small updates; expected float32: leave the "
                    "model as it is, `with tr.mixed_precision():` rounds its weights where they are multiplied"
                )
        self.optimizer, self.growth, self.backoff, self.interval = optimizer, growth, backoff, interval
        self.finite: Tensor | None = None  # from `unscale` to `step`: whether all gradients are
        self.loss_scale, self.good, self.skipped = full((), 0.0), full((), 0, "int64"), full((), 0, "int64")
        self._set(initial, 0, 0)

    def _set(self, *values: float) -> None:
        """Give s and the counts new values, where the parameters are; a captured function knows these very tensors."""
        home = self.optimizer.parameters[0].backend
        for name, value in zip(_STATE, values, strict=True):
            x = getattr(self, name)
            x.array, x.backend = home.full((), value, x.dtype), home

    def scale(self, loss: Tensor) -> Tensor:
        """Return s · loss, to call backward() on.

        Raises: GraphError where gradients are left that were unscaled already, and others would be added to them.
        """
        if self.finite is not None and any(w.grad is not None for w in self.optimizer.parameters):
            raise GraphError(
                "LossScaler: unscale() was called and step() was not, so scaled gradients would be added to unscaled "
                "ones; call step(), or optimizer.zero_grad() to drop them"
            )
        self.finite = None
        return loss * self.loss_scale

    @no_grad()
    def unscale(self) -> None:
        """Divide all gradients by s, once: until the step a second call changes nothing.

        Raises: ValueError if no parameter has a gradient; CaptureError inside a captured function.
        """
        see_not_captured("LossScaler.unscale()", self.optimizer.parameters)
        if self.finite is not None:
            return
        given = [(w, w.grad) for w in self.optimizer.parameters if w.grad is not None]
        if not given:
            raise ValueError("LossScaler: no parameter has a gradient; call scaler.scale(loss).backward() first")
        largest = []
        for w, g in given:
            w.grad = g = (g / self.loss_scale).astype(w.dtype)
            largest.append(abs(g).max())
        self.finite = isfinite(stack(largest).max())  # a NaN is passed on by max

    @no_grad()
    def step(self) -> None:
        """Unscale the gradients if that has not been done, do the optimiser's step if they are finite, and adapt s."""
        self.unscale()
        finite, optimizer = self.finite, self.optimizer
        memory = {name: list(values) for name, values in optimizer.memory.items()}
        before = [(w, w.detach(), w.grad) for w in optimizer.parameters]
        for w, _, g in before:
            w.grad = None if g is None else where(finite, g, 0.0)  # so that no NaN is computed that nobody will see
        optimizer.step()
        for i, (w, old, g) in enumerate(before):
            if g is not None:
                w.assign(where(finite, w, old))
                w.grad = g
                for name, values in optimizer.memory.items():
                    values[i] = where(finite, values[i], memory[name][i])
        self._adapt(finite)
        self.finite = None

    def _adapt(self, finite: Any) -> None:
        s, good = self.loss_scale, where(finite, self.good + 1, 0)
        due, larger = good >= self.interval, s * self.growth
        s = where(finite, where(due & isfinite(larger), larger, s), s * self.backoff)
        self.loss_scale.assign(s)
        self.good.assign(where(due, 0, good))
        self.skipped.assign(where(finite, self.skipped, self.skipped + 1))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the scale and the counts; the optimiser's state is its own."""
        return {name: getattr(self, name).detach() for name in _STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the scaler stood that `state_dict` was called on; nothing is changed if it does not fit.

        Raises: StateDictError that says what does not fit.
        """
        if set(state) != set(_STATE):
            raise StateDictError(f"LossScaler: the state has {sorted(state)}; expected {', '.join(_STATE)}")
        try:
            s, good, skipped = float(state["loss_scale"]), int(state["good"]), int(state["skipped"])
            fits = 0 < s < math.inf and good >= 0 and skipped >= 0
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise StateDictError(f"LossScaler: the state is {dict(state)}; expected a positive loss_scale, and counts")
        self._set(s, good, skipped)

    def __repr__(self) -> str:
        return f"LossScaler({', '.join(f'{name}={getattr(self, name).item()}' for name in _STATE)})"


_STATE = ("loss_scale", "good", "skipped")
