"""A fused function: no `if` on values.

@tr.fused runs a function once, on symbols that have a shape and no values, and makes one kernel of all its operations,
and another one of their gradient. So it may not ask which values there are: an `if` would choose for all elements at
once. Write

    elu(x, α) = x  where x > 0,   α (eˣ − 1)  elsewhere

for every element by itself: tr.where(mask, a, b). And mind what is computed and then not chosen: where x is 1000, eˣ is
infinite, and the gradient of what was not chosen is 0 · ∞, which is NaN.

Shapes: x (B, H), and the result; α, a number.
Source: Clevert, Unterthiner & Hochreiter 2016, "Fast and Accurate Deep Network Learning by Exponential Linear Units".
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tinyrnn as tr
from tinyrnn.learn.checking import Mistake, agree, check_derivatives


@tr.fused
def elu(x: tr.Tensor, alpha: float) -> tr.Tensor:
    """Return x where it is above 0, and α (eˣ − 1) elsewhere, with a gradient that is finite for every x."""
    return tr.where(x > 0, x, alpha * (tr.exp(tr.minimum(x, 0.0)) - 1))


# ---------------------------------------------------------------- checks

HINTS = (
    "x > 0 on a tensor gives a mask, an array of True and False. tr.where(x > 0, a, b) chooses by it.",
    "Both a and b are computed for all elements. Which x may be given to exp, so that it never overflows?",
    "Where x > 0, what stands in the other branch does not matter, only that it is finite: tr.exp(tr.minimum(x, 0.0)).",
)

X = np.array([[-3.0, -0.5, 0.25], [2.0, -1.0, 4.0]])


def _elu(answer: Any, x: tr.Tensor, alpha: float) -> Any:
    """Call the answer, and say what an `if` on values is."""
    try:
        return answer.elu(x, alpha)
    except (tr.errors.FusionError, tr.errors.ShapeError) as error:
        if not any(word in str(error) for word in ("value", "bool", "item()")):
            raise
        raise Mistake(
            "it looks at values, and while it is traced there are none. An if on x, or its item(), would choose once "
            "for all elements; tr.where(x > 0, a, b) chooses for each"
        ) from error


def check_values(answer: Any) -> None:
    """The values are x above 0 and α (eˣ − 1) below."""
    below = np.exp(X) - 1
    mistakes = {
        "α is missing": np.where(X > 0, X, below),
        "the two branches are exchanged": np.where(X > 0, 1.5 * below, X),
        "the −1 is missing: at x = 0 the two branches should meet": np.where(X > 0, X, 1.5 * np.exp(X)),
        "the −1 stands outside of the brackets: α (eˣ − 1)": np.where(X > 0, X, 1.5 * np.exp(X) - 1),
        "α multiplies both branches": 1.5 * np.where(X > 0, X, below),
        "the sign is wrong below 0: eˣ − 1, not 1 − eˣ": np.where(X > 0, X, -1.5 * below),
        "that is the larger of the two branches; choose by x > 0": np.maximum(X, 1.5 * below),
        "that is relu(x)": np.maximum(X, 0),
        "all elements went through α (eˣ − 1); each has to choose by itself": 1.5 * below,
        "that is x itself": X,
    }
    agree("elu(x, 1.5)", _elu(answer, tr.tensor(X), 1.5), np.where(X > 0, X, 1.5 * below), mistakes)


def check_kernel(answer: Any) -> None:
    """It runs as one kernel."""
    if not isinstance(answer.elu, tr.fused):
        raise Mistake("elu is an ordinary function: the line @tr.fused above it is missing")
    _elu(answer, tr.tensor(X, requires_grad=True), 1.5)
    if answer.elu.latest is None:
        raise Mistake(
            "no kernel could be made of it, so it ran operation by operation; use elementwise operations only"
        )


def check_large_values(answer: Any) -> None:
    """Values and gradient are finite at x = ±1000."""
    x = tr.tensor([[-1000.0, 1000.0]], dtype="float64", requires_grad=True)
    y = _elu(answer, x, 1.5)
    agree(
        "elu([−1000, 1000], 1.5)",
        y,
        [[-1.5, 1000]],
        {
            "0 · ∞ is NaN: do not multiply by a mask, choose with tr.where": [[-1.5, np.nan]],
        },
    )
    mistakes = {
        "at x = 1000 the branch that is not chosen overflows, and its gradient is 0 · ∞ = NaN. Keep what goes into exp "
        "from being above 0": [[0, np.nan]],
    }
    agree("∂L/∂x at x = −1000 and 1000", tr.grad(y.sum(), x), [[0, 1]], mistakes)


def check_numbers(answer: Any) -> None:
    """The first and the second derivative agree with numbers, fused and not."""
    x = tr.tensor(X, requires_grad=True)
    check_derivatives(lambda x: answer.elu(x, 1.5), x)
    fused = tr.grad(answer.elu(x, 1.5).sum(), x)
    with tr.fusion(False):
        agree("∂L/∂x of the kernel", fused, tr.grad(answer.elu(x, 1.5).sum(), x).numpy())
