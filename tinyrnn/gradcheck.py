"""A check of gradients against numbers: perturb the inputs a little and see what the outputs do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tinyrnn.autograd import changed_mode
from tinyrnn.backends import DType, Generator
from tinyrnn.errors import DTypeError, GradientError, GraphError
from tinyrnn.functions import where
from tinyrnn.primitives import Primitive
from tinyrnn.tensor import Tensor, apply, grad

Function = Callable[..., Sequence[Tensor]]


def gradcheck(
    f: Callable[..., Tensor | Sequence[Tensor]],
    inputs: Tensor | Sequence[Tensor],
    order: int = 2,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    seed: int = 0,
) -> bool:
    """Check the derivatives of f, up to `order`, against central differences.

        ⟨v, (f(x + εu) − f(x − εu)) / 2ε⟩  ≈  ⟨∂⟨v, f⟩/∂x, u⟩      for random directions u, v

    A derivative of order 2 is the first derivative of the gradient.

    Args:
        f: a function of the inputs that returns a tensor or several; called many times, so it must be repeatable.
        inputs: float64 tensors; those that require a gradient are checked. A layer's parameters may be among them,
            though f ignores those arguments: gradcheck(lambda x, *_: lstm(x)[0], [x, *lstm.parameters()]).
        eps, atol, rtol: step and tolerances, |a − n| ≤ atol + rtol |n|.
        seed: where the stream of random directions starts.

    Returns: True.
    Raises: GradientError naming the order, the input that disagrees, both numbers, and the operation whose own rule is
        at fault if there is one; DTypeError for inputs that are not float64, or not in one list; GraphError if none
        requires a gradient.

    >>> import tinyrnn as tr
    >>> x = tr.tensor([0.5, -1.0], dtype="float64", requires_grad=True)
    >>> tr.gradcheck(lambda x: x * tr.tanh(x), x)
    True
    """
    if not isinstance(order, int):
        raise DTypeError(
            f"gradcheck: order is a {type(order).__name__}; expected an int: several inputs are given as one list, "
            "gradcheck(f, [a, b])"
        )
    xs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    for i, x in enumerate(xs):
        if x.dtype != DType.float64:
            raise DTypeError(f"gradcheck: input {i} is {x.dtype}; expected float64, in which 1e-6 is a small step")
    if not any(x.requires_grad for x in xs):
        raise GraphError("gradcheck: no input requires a gradient; make one with requires_grad=True")
    check = _Check(eps, atol, rtol, Generator(seed))
    first: Function = lambda *xs: _differentiable(f(*xs))
    g, at = first, xs
    for k in range(1, order + 1):
        wrong = check.disagreement(g, at)
        if wrong:
            culprit = check.culprit(g, at) or check.culprit(first, xs, k) or "; each operation in it is right by itself"
            raise GradientError(f"gradcheck: order {k}: {wrong}{culprit}")
        g, at = check.gradient(g, at)
    return True


class _Check:
    """One check: its tolerances, and the stream that its random directions come from."""

    def __init__(self, eps: float, atol: float, rtol: float, generator: Generator) -> None:
        self.eps, self.atol, self.rtol, self.generator = eps, atol, rtol, generator

    def direction(self, like: Tensor) -> Tensor:
        return Tensor(like.backend.asarray(self.generator.normal(like.shape, DType.float64)), like.backend)

    def weights(self, y: Tensor) -> Tensor:
        """Return a random direction for a result, 0 where it is infinite, as behind a mask: no number moves there."""
        return where(abs(y.detach()) == math.inf, 0.0, self.direction(y))

    def disagreement(self, f: Function, xs: list[Tensor]) -> str:
        """Describe the first input for which ∂f and its estimate differ; empty if there is none."""
        ys = f(*xs)
        vs = [self.weights(y) for y in ys]
        wrt = [i for i, x in enumerate(xs) if x.requires_grad]
        recorded, gys = _recorded(ys, vs)  # the other ys have no gradient, and should not change
        for i, gx in zip(wrt, grad(recorded, [xs[i] for i in wrt], gys), strict=True):
            u = self.direction(xs[i])
            given = float((gx * u).sum())
            plus, minus = (self.moved(f, xs, i, u, step) for step in (self.eps, -self.eps))
            change = sum(float((v * _difference(a, b)).sum()) for v, a, b in zip(vs, plus, minus, strict=True))
            expected = change / (2 * self.eps)
            if not abs(given - expected) <= self.atol + self.rtol * abs(expected):
                return f"for input {i}, of shape {xs[i].shape}, the gradient gives {given:.8g}, numbers {expected:.8g}"
        return ""

    def moved(self, f: Function, xs: list[Tensor], i: int, u: Tensor, step: float) -> list[Tensor]:
        """Compute f with input i moved by step · u, in place, so that a layer's own parameters may be inputs."""
        x, before = xs[i], xs[i].array
        x.array = (x.detach() + step * u).array
        try:
            return [y.detach() for y in f(*xs)]
        finally:
            x.array = before

    def gradient(self, f: Function, xs: list[Tensor]) -> tuple[Function, list[Tensor]]:
        """Return the function (x, v) -> ∂⟨v, f(x)⟩/∂x and a place to check it at."""
        vs = [self.weights(y) for y in f(*xs)]
        for v in vs:
            v.requires_grad = True
        wrt = [i for i, x in enumerate(xs) if x.requires_grad]

        def gradient_of_f(*xs_and_vs: Tensor) -> Sequence[Tensor]:
            at, vs = xs_and_vs[: len(xs)], xs_and_vs[len(xs) :]
            ys, gys = _recorded(f(*at), vs)
            return grad(ys, [at[i] for i in wrt], gys, create_graph=True)

        return gradient_of_f, [*xs, *vs]

    def culprit(self, f: Function, xs: list[Tensor], order: int = 1) -> str:
        """Check each operation that f uses on its own, and name the first whose rule is wrong; empty if none is."""
        calls: list[tuple[Primitive, tuple[Any, ...], dict[str, Any]]] = []
        with changed_mode(listener=lambda op, operands, params, result: calls.append((op, operands, params))):
            f(*xs)
        for op, operands, params in calls:
            if op.vjp is None:
                continue
            places = [i for i, x in enumerate(operands) if isinstance(x, Tensor) and x.requires_grad]

            def alone(
                *leaves: Tensor, op: Any = op, params: Any = params, operands: Any = operands, places: Any = places
            ) -> list[Tensor]:
                filled = list(operands)
                for i, leaf in zip(places, leaves, strict=True):
                    filled[i] = leaf
                return _differentiable(apply(op, *filled, **params))

            g: Function = alone
            at = [_leaf(operands[i]) for i in places]
            for _ in range(order if at else 0):
                wrong = self.disagreement(g, at)
                if wrong:
                    return f"; the rule of {op.name!r} is at fault: {wrong.replace('input', 'operand')}"
                g, at = self.gradient(g, at)
        return ""


def _differentiable(ys: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [y for y in ([ys] if isinstance(ys, Tensor) else ys) if y.requires_grad]


def _recorded(ys: Sequence[Tensor], vs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    pairs = [(y, v) for y, v in zip(ys, vs, strict=True) if y.requires_grad]
    return [y for y, _ in pairs], [v for _, v in pairs]


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """Return a − b, 0 where they are the same infinity."""
    same = a == b
    return where(same, 0.0, a) - where(same, 0.0, b)


def _leaf(x: Tensor) -> Tensor:
    leaf = x.detach()
    leaf.requires_grad = True
    return leaf
