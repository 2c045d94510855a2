"""Optimisers: w, its gradient g and the learning rate lr to the next w. Every letter is a tensor of w's shape."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, ClassVar

from tinyrnn import backends
from tinyrnn.autograd import no_grad
from tinyrnn.errors import CaptureError, DTypeError, GraphError, StateDictError
from tinyrnn.functions import full, minimum, sqrt
from tinyrnn.fuse import fused
from tinyrnn.optim.schedules import Schedule, schedule_of
from tinyrnn.tensor import Tensor, tensor


class Optimizer:
    """The base of the optimisers: a subclass names what it remembers and writes `update`.

    Class attributes:
        remembers: names of the tensors kept for each parameter, zero at first.

    Args: parameters, tensors that require a gradient; lr, a number or a schedule.
    Attributes: lr, which may be assigned; steps, the number of steps done; updates, how many of them each parameter had
        a gradient in, and t, inside `update`, which of these it is for the parameter at hand: 1 at first.
    Raises: GraphError for something that does not require a gradient; DTypeError for a module itself; ValueError for no
        parameter, or for one given twice, or an option out of range.

    >>> import tinyrnn as tr
    >>> class HeavyBall(tr.optim.Optimizer):
    ...     remembers = ("v",)
    ...     def update(self, w, g, lr, memory):
    ...         memory["v"] = 0.9 * memory["v"] + g
    ...         return w - lr * memory["v"]
    >>> w = tr.Parameter(1.0)
    >>> optimizer = HeavyBall([w], lr=0.1)
    >>> (w**2).backward()
    >>> optimizer.step()
    >>> round(w.item(), 4), optimizer.memory["v"][0].item(), optimizer.steps
    (0.8, 2.0, 1)
    """

    remembers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, parameters: Iterable[Tensor], lr: float | Schedule) -> None:
        name = type(self).__name__
        if not isinstance(parameters, Iterable):
            raise DTypeError(f"{name}: given {type(parameters).__name__}; expected parameters: model.parameters()")
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError(f"{name}: given no parameters; expected those of a model, model.parameters()")
        for w in self.parameters:
            if not isinstance(w, Tensor) or not w.requires_grad:
                raise GraphError(f"{name}: given {type(w).__name__}; expected tensors with requires_grad=True")
            if w.node and w.node.op:
                raise GraphError(
                    f"{name}: given the result of {w.node.op.name!r}; expected leaves, [w] and not [w * 2]"
                )
        if len({id(w) for w in self.parameters}) < len(self.parameters):
            raise ValueError(f"{name}: a parameter is given twice and would be updated twice; give each once")
        self.lr = lr
        self.steps = self.t = 0
        self.updates = [0] * len(self.parameters)
        self.memory = {name: [_like(w, self.initial(name)) for w in self.parameters] for name in self.remembers}
        self.check(lr=self.rate())

    def check(self, **options: Any) -> None:
        """See that options are finite and not negative."""
        for option, value in options.items():
            if not isinstance(value, Real) or not 0 <= float(value) < math.inf:
                raise ValueError(f"{type(self).__name__}: {option} is {value!r}; expected a finite number of 0 or more")

    def initial(self, name: str) -> float:
        """Return the first value of what is remembered under `name`."""
        return 0.0

    def rate(self) -> float:
        """Return the learning rate of the next step."""
        return self.lr(self.steps) if isinstance(self.lr, Schedule) else self.lr

    def zero_grad(self) -> None:
        """Forget all gradients, so that the next backward() does not add to them."""
        for w in self.parameters:
            w.grad = None

    @no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient.

        Raises: CaptureError inside a captured function, which would go on with this step's rate and count for ever;
            ValueError for a rate that is not a finite number of 0 or more.
        """
        see_not_captured(f"{type(self).__name__}.step()", self.parameters)
        lr = self.rate()
        self.check(lr=lr)
        self.steps += 1
        for i, w in enumerate(self.parameters):
            if w.grad is None:
                continue
            memory = {name: tensors[i] for name, tensors in self.memory.items()}
            self.t = self.updates[i] + 1
            w.assign(self.update(w, w.grad, lr, memory))
            self.updates[i] = self.t
            for name, value in memory.items():
                self.memory[name][i] = value

    def update(self, w: Tensor, g: Tensor, lr: float, memory: dict[str, Tensor]) -> Tensor:
        """Return the next w, and put what is to be remembered into `memory`."""
        raise NotImplementedError(f"{type(self).__name__} has no update(); an Optimizer's subclass writes it")

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps, the learning rate or schedule, and what is remembered, in parameter order.

        Where a parameter had no gradient in some of the steps, `updates` is there too.
        """
        lr = self.lr.state() if isinstance(self.lr, Schedule) else self.lr
        state = {"steps": self.steps, "lr": lr, "memory": {name: list(ts) for name, ts in self.memory.items()}}
        passed_over = any(n != self.steps for n in self.updates)
        return {**state, "updates": list(self.updates)} if passed_over else state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the optimiser stood that `state_dict` was called on; nothing is changed if it does not fit.

        Raises: StateDictError that says what does not fit.
        """
        name = type(self).__name__
        if not isinstance(state, Mapping) or not isinstance(state.get("memory", {}), Mapping):
            raise StateDictError(f"{name}: the state is {state!r}; expected what state_dict() returns")
        if set(state) - {"updates"} != {"steps", "lr", "memory"} or set(state["memory"]) != set(self.remembers):
            given = f"{sorted(state)}, memory of {sorted(state.get('memory', {}))}"
            raise StateDictError(f"{name}: the state has {given}; expected steps, lr, memory of {self.remembers}")
        steps, lr = state["steps"], schedule_of(state["lr"])
        fits = isinstance(steps, int) and steps >= 0 and isinstance(lr, Real | Schedule)
        if not fits:
            raise StateDictError(
                f"{name}: steps is {steps!r} and lr {lr!r}; expected a count, and a number or schedule"
            )
        updates = state.get("updates", [steps] * len(self.parameters))
        if len(updates) != len(self.parameters) or not all(isinstance(n, int) and 0 <= n <= steps for n in updates):
            raise StateDictError(
                f"{name}: updates are {updates!r}; expected {len(self.parameters)} counts from 0 to {steps}"
            )
        memory: dict[str, list[Tensor]] = {}
        for kind, values in state["memory"].items():
            if len(values) != len(self.parameters):
                raise StateDictError(f"{name}: {kind} is for {len(values)} parameters, expected {len(self.parameters)}")
            memory[kind] = []
            for i, (v, w) in enumerate(zip(values, self.parameters, strict=True)):
                v = v if isinstance(v, Tensor) else tensor(v, w.dtype)
                if v.shape != w.shape:
                    raise StateDictError(f"{name}: {kind} of parameter {i} is {v.shape}, expected {w.shape}")
                memory[kind].append(v.to(w.backend).astype(w.dtype))
        self.lr, self.steps, self.updates, self.memory = lr, steps, list(updates), memory

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.parameters)} parameters, lr={self.lr}, steps={self.steps})"


def see_not_captured(call: str, parameters: Iterable[Tensor]) -> None:
    """See that parameters are where they live, and not on the tape of a captured function.

    Raises: CaptureError that says where the call belongs.
    """
    if any(w.backend is not w.backend.home for w in parameters):
        raise CaptureError(
            f"{call} inside a captured function: its rate, count and memory are Python's, and would not be read again; "
            "call it after the captured function, on the gradients that this leaves"
        )


def _like(w: Tensor, value: float) -> Tensor:
    with backends.use_backend(w.backend):
        return full(w.shape, value, w.dtype)


@fused
def sgd_update(w: Tensor, g: Tensor, lr: float, weight_decay: float) -> Tensor:
    """Return the next w."""
    return w - lr * (g + weight_decay * w)


@fused
def momentum_update(
    w: Tensor, g: Tensor, v: Tensor, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> tuple[Tensor, Tensor]:
    """Return the next w and v."""
    g = g + weight_decay * w
    v = momentum * v + g
    return w - lr * (g + momentum * v if nesterov else v), v


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for.

        v ← momentum · v + g
        w ← w − lr · v                      (Nesterov: w − lr (g + momentum · v))

    Args: parameters; lr, in units of w per unit of g; momentum, 0 to 1; nesterov; weight_decay, adds weight_decay · w
        to g.
    Source: Robbins & Monro 1951; Polyak 1964 (momentum); Sutskever et al. 2013 (Nesterov's form).
    Raises: as Optimizer; ValueError for nesterov without momentum.

    >>> import tinyrnn as tr
    >>> w = tr.Parameter(1.0)
    >>> optimizer = tr.optim.SGD([w], lr=0.1)
    >>> (w**2).backward()
    >>> optimizer.step()
    >>> round(w.item(), 4)  # g = 2; 1 − 0.1 · 2
    0.8
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float | Schedule = 1e-3,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay
        if nesterov and momentum == 0:
            raise ValueError("SGD: nesterov=True is a form of momentum; give momentum too, such as 0.9")
        self.remembers = ("v",) if momentum else ()  # type: ignore[misc]  # without momentum there is nothing to keep
        super().__init__(parameters, lr)
        self.check(momentum=momentum, weight_decay=weight_decay)

    def update(self, w: Tensor, g: Tensor, lr: float, memory: dict[str, Tensor]) -> Tensor:
        """Return the next w."""
        if not self.momentum:
            return sgd_update(w, g, float(lr), float(self.weight_decay))
        numbers = map(float, (lr, self.momentum, self.weight_decay))
        w, memory["v"] = momentum_update(w, g, memory["v"], *numbers, self.nesterov)
        return w


@fused
def adagrad_update(w: Tensor, g: Tensor, s: Tensor, lr: float, eps: float) -> tuple[Tensor, Tensor]:
    """Return the next w and s."""
    s = s + g * g
    return w - lr * g / (sqrt(s) + eps), s


class Adagrad(Optimizer):
    """A rate for each element that falls with the gradients it has seen.

        s ← s + g²
        w ← w − lr · g / (√s + eps)

    Args: parameters; lr, in units of w; lr_decay, divides lr by 1 + t · lr_decay, with t = 0 at w's first gradient;
        initial_accumulator_value, the first s; eps.
    Source: Duchi, Hazan & Singer 2011, "Adaptive Subgradient Methods".

    >>> import tinyrnn as tr
    >>> w = tr.Parameter(1.0)
    >>> optimizer = tr.optim.Adagrad([w], lr=0.1)
    >>> (w**2).backward()
    >>> optimizer.step()
    >>> round(w.item(), 4)  # g = 2; s = 4; 1 − 0.1 · 2 / √4
    0.9
    """

    remembers = ("s",)

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float | Schedule = 1e-2,
        lr_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        self.lr_decay, self.first, self.eps = lr_decay, initial_accumulator_value, eps
        super().__init__(parameters, lr)
        self.check(lr_decay=lr_decay, initial_accumulator_value=initial_accumulator_value, eps=eps)

    def initial(self, name: str) -> float:
        """Return initial_accumulator_value."""
        return self.first

    def update(self, w: Tensor, g: Tensor, lr: float, memory: dict[str, Tensor]) -> Tensor:
        """Return the next w."""
        rate = lr / (1 + (self.t - 1) * self.lr_decay)
        w, memory["s"] = adagrad_update(w, g, memory["s"], float(rate), float(self.eps))
        return w


@fused
def rmsprop_update(w: Tensor, g: Tensor, s: Tensor, lr: float, alpha: float, eps: float) -> tuple[Tensor, Tensor]:
    """Return the next w and s."""
    s = alpha * s + (1 - alpha) * g * g
    return w - lr * g / (sqrt(s) + eps), s


class RMSProp(Optimizer):
    """A rate for each element, by a running mean of its squared gradients.

        s ← alpha · s + (1 − alpha) g²
        w ← w − lr · g / (√s + eps)

    Args: parameters; lr, in units of w; alpha, 0 to 1; eps.
    Source: Tieleman & Hinton 2012, lecture 6.5 of "Neural Networks for Machine Learning".

    >>> import tinyrnn as tr
    >>> w = tr.Parameter(1.0)
    >>> optimizer = tr.optim.RMSProp([w], lr=0.1, alpha=0.75)
    >>> (w**2).backward()
    >>> optimizer.step()
    >>> round(w.item(), 4)  # g = 2; s = 0.25 · 4; 1 − 0.1 · 2 / √1
    0.8
    """

    remembers = ("s",)

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float | Schedule = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
    ) -> None:
        self.alpha, self.eps = alpha, eps
        super().__init__(parameters, lr)
        self.check(alpha=alpha, eps=eps)

    def update(self, w: Tensor, g: Tensor, lr: float, memory: dict[str, Tensor]) -> Tensor:
        """Return the next w."""
        w, memory["s"] = rmsprop_update(w, g, memory["s"], float(lr), float(self.alpha), float(self.eps))
        return w


@fused
def adam_update(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    rate: float,
    scale: float,
    beta1: float,
    beta2: float,
    eps: float,
    added: float,
    kept: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the next w, m and v; rate = lr / (1 − β₁ᵗ), scale = √(1 − β₂ᵗ), and what weight decay adds and keeps."""
    g = g + added * w
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * (g * g)
    return kept * w - rate * m / (sqrt(v) / scale + eps), m, v


class Adam(Optimizer):
    """Momentum, and a rate for each element, both corrected for starting at zero.

        m ← β₁ m + (1 − β₁) g;      v ← β₂ v + (1 − β₂) g²
        w ← w − lr · m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + eps)

    t counts the steps in which w had a gradient, so that one that is frozen at first begins as any other.

    Args: parameters; lr, in units of w; betas (β₁, β₂); eps; weight_decay, adds weight_decay · w to g.
    Source: Kingma & Ba 2015, "Adam: A Method for Stochastic Optimization".
    Raises: as Optimizer; ValueError for betas that are not two numbers from 0 up to, not including, 1.

    >>> import tinyrnn as tr
    >>> w = tr.Parameter(1.0)
    >>> optimizer = tr.optim.Adam([w], lr=0.1)
    >>> (w**2).backward()
    >>> optimizer.step()
    >>> round(w.item(), 4)  # g = 2; the first step is of lr: 1 − 0.1 · 2 / √4
    0.9
    """

    remembers = ("m", "v")

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        super().__init__(parameters, lr)
        self.check(eps=eps, weight_decay=weight_decay)
        if not isinstance(betas, tuple | list) or len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"{type(self).__name__}: betas are {betas}; expected two numbers from 0 up to 1")

    def update(self, w: Tensor, g: Tensor, lr: float, memory: dict[str, Tensor]) -> Tensor:
        """Return the next w."""
        return self.adapted(w, g, lr, memory, added=self.weight_decay)

    def adapted(
        self, w: Tensor, g: Tensor, lr: float, memory: dict[str, Tensor], added: float = 0.0, kept: float = 1.0
    ) -> Tensor:
        """Return w after the adaptive step: of kept · w, by g + added · w."""
        (beta1, beta2), t = self.betas, self.t
        rate, scale = lr / (1 - beta1**t), math.sqrt(1 - beta2**t)
        numbers = map(float, (rate, scale, beta1, beta2, self.eps, added, kept))
        w, memory["m"], memory["v"] = adam_update(w, g, memory["m"], memory["v"], *numbers)
        return w


class AdamW(Adam):
    """Adam whose weight decay acts on w itself, not through the adaptive step.

        w ← (1 − lr · weight_decay) · w − lr · m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + eps),   m and v as in Adam

    Args: parameters, lr, betas and eps as for Adam; weight_decay, per unit of lr.
    Source: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization".

    >>> import tinyrnn as tr
    >>> w = tr.Parameter(1.0)
    >>> optimizer = tr.optim.AdamW([w], lr=0.1, weight_decay=0.5)
    >>> (w**2).backward()
    >>> optimizer.step()
    >>> round(w.item(), 4)  # g = 2; 1 − 0.1 · 0.5 · 1 − 0.1 · 2 / √4
    0.85
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay)

    def update(self, w: Tensor, g: Tensor, lr: float, memory: dict[str, Tensor]) -> Tensor:
        """Return the next w."""
        return self.adapted(w, g, lr, memory, kept=1 - lr * self.weight_decay)


@no_grad()
def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients down so that their common norm is at most `max_norm`, and return the norm before.

        norm = √(Σ g²);   g ← g · min(1, max_norm / (norm + 1e-6))

    Args: parameters, those without a gradient are passed over; max_norm, in units of the gradient.
    Returns: the norm, a tensor on the device; reading it (float) waits for the device.
    Source: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks".
    Raises: ValueError for a max_norm that is not positive, or if no parameter has a gradient; DTypeError for a module
        or a tensor alone.

    >>> import tinyrnn as tr
    >>> w = tr.Parameter([3.0, 4.0])
    >>> (w**2).sum().backward()  # g = (6, 8)
    >>> tr.optim.clip_grad_norm([w], max_norm=1.0).item()
    10.0
    >>> [round(g, 3) for g in w.grad.tolist()]
    [0.6, 0.8]
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm: max_norm is {max_norm}; expected a positive number")
    if isinstance(parameters, Tensor) or not isinstance(parameters, Iterable):
        given = type(parameters).__name__
        raise DTypeError(f"clip_grad_norm: given a {given}; expected parameters: model.parameters(), or [w]")
    clipped = [(w, w.grad) for w in parameters if w.grad is not None]
    if not clipped:
        raise ValueError("clip_grad_norm: no parameter has a gradient; call loss.backward() first")
    with backends.get("numpy").errstate(over="ignore", invalid="ignore"):  # the norm that is returned tells
        norm = sqrt(_total([(g * g).sum() for _, g in clipped]))
        scale = minimum(max_norm / (norm + 1e-6), 1.0)  # the 1e-6 is PyTorch's
        for w, g in clipped:
            w.grad = (g * scale).astype(w.dtype)
    return norm


def _total(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
