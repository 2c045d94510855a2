"""An operation and its gradient.

tinyrnn knows a few dozen operations. Each is a record of two things: how y is computed from x, and how ∂L/∂x is
computed from ∂L/∂y, where L is any number that was made from y. All else is made of them. Give tinyrnn one more:

    softplus(x) = log(1 + eˣ)

which is near 0 for x far below 0, near x for x far above 0, and smooth in between. Write `forward`, which computes it,
and `rule`, which computes its gradient. x is an array of any shape, and everything is done element by element.

Source: Dugas et al. 2001, "Incorporating Second-Order Functional Knowledge for Better Option Pricing".
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tinyrnn as tr
from tinyrnn.learn.checking import agree, check_derivatives


def forward(xp: Any, x: Any) -> Any:
    """Return y = log(1 + eˣ), also where eˣ is too large for a number: softplus(1000) is 1000.

    Args: xp, the library that x is an array of: xp.exp, xp.log, xp.abs, xp.maximum, … do as NumPy's do.
    """
    return xp.maximum(x, 0) + xp.log(1 + xp.exp(-xp.abs(x)))  # log(1 + eˣ) = x + log(1 + e⁻ˣ)


def rule(ops: Any, gy: Any, y: Any, x: Any) -> Any:
    """Return ∂L/∂x, given gy = ∂L/∂y, y and x.

    Args: ops, the operations of tinyrnn: ops.sigmoid, ops.exp, … They are used in place of NumPy's functions, so that
    what is written here has a gradient too.
    """
    return gy * ops.sigmoid(x)


# An operation made of the two; saves="x y" says that the rule may read x and y.
softplus = tr.primitive("softplus", forward=forward, vjp=(rule,), saves=("x y",), dtype="float")


# ---------------------------------------------------------------- checks

HINTS = (
    "The derivative of log u is u'/u, where u' is the derivative of u. What is u here? That of eˣ is eˣ again.",
    "eˣ / (1 + eˣ) has a name of its own, and tinyrnn has it: the sigmoid.",
    "A rule returns ∂L/∂x = ∂L/∂y · dy/dx: gy times the derivative.",
    "To keep e from overflowing, take the x out: log(1 + eˣ) = x + log(1 + e⁻ˣ). One form is for x > 0, the other for "
    "x < 0; max(x, 0) and e^(−|x|) put them into one line.",
)


def check_values(answer: Any) -> None:
    """The values are log(1 + eˣ)."""
    x = np.linspace(-3, 3, 7)
    mistakes = {
        "that is x itself: in log(1 + eˣ) the 1 is missing": x,
        "that is 1 + eˣ: the logarithm is missing": 1 + np.exp(x),
        "that is relu(x), to which softplus comes close only far from 0": np.maximum(x, 0),
    }
    agree("forward(np, x)", answer.forward(np, x), np.logaddexp(0, x), mistakes)


def check_large_values(answer: Any) -> None:
    """Nothing overflows at x = −1000 and x = 1000."""
    given = tr.apply(answer.softplus, tr.tensor([-1000.0, 1000.0]))
    overflow = "at x = 1000 eˣ overflows; take e only to powers that are not positive, as in e^(−|x|)"
    agree("softplus(x)", given, [0, 1000], {overflow: [0, np.inf]})


def check_gradient(answer: Any) -> None:
    """The gradient is gy times the derivative."""
    x, gy = tr.randn(5, dtype="float64", requires_grad=True), tr.randn(5, dtype="float64")
    given = tr.grad(tr.apply(answer.softplus, x), x, gy)
    s, y, gy = tr.sigmoid(x).numpy(), np.logaddexp(0, x.numpy()), gy.numpy()
    mistakes = {
        "gy is missing: by the chain rule ∂L/∂x = ∂L/∂y · dy/dx, and gy is the ∂L/∂y": s,
        "that is gy · σ(1 − σ), with the derivative of σ; but σ is itself the derivative of softplus": gy * s * (1 - s),
        "that is gy · eˣ: the derivative of log u is u'/u, and the 1/u is missing": gy * np.exp(x.numpy()),
        "that is gy / (1 + eˣ): the derivative of log u is u'/u, and the u' = eˣ is missing": gy * (1 - s),
        "that is gy itself, as if softplus(x) were x": gy,
        "that is gy · (1 − y²), with the derivative of tanh; that of softplus is another one": gy * (1 - y**2),
    }
    agree("∂L/∂x", given, gy * s, mistakes)


def check_numbers(answer: Any) -> None:
    """The derivative, and the derivative of the derivative, agree with nudging."""
    check_derivatives(lambda x: tr.apply(answer.softplus, x), tr.randn(5, dtype="float64", requires_grad=True))
