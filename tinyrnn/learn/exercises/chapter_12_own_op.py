"""An operation of your own, with derivatives of every order.

    swish(x, β) = x σ(βx)

is x/2 for β = 0 and close to relu(x) for a large β, which can be learned. Make a primitive of it: a forward function on
arrays, and a rule for each operand. Rules are read by arrays, by tensors (for second derivatives) and by symbols (for
kernels), so they use `ops` and operators, and no `if` on values. What you write is then an operation like any other: it
has derivatives of every order, and may stand in a @tr.fused function, of which one kernel is made.

Shapes: x and β may be of any shapes that fit together; the engine undoes the broadcasting.
Source: Ramachandran, Zoph & Le 2017, "Searching for Activation Functions".
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tinyrnn as tr
from tinyrnn.learn.checking import Mistake, agree, check_derivatives


def forward(xp: Any, x: Any, beta: Any) -> Any:
    """Return y = x σ(βx); xp has the functions of NumPy, and 0.5 tanh(a/2) + 0.5 is σ(a), with no overflow."""
    return x * (0.5 * xp.tanh(0.5 * beta * x) + 0.5)


def x_rule(ops: Any, gy: Any, y: Any, x: Any, beta: Any) -> Any:
    """Return ∂L/∂x, given gy = ∂L/∂y; ops has ops.sigmoid and all other operations of tinyrnn."""
    s = ops.sigmoid(beta * x)
    return gy * (s + beta * x * s * (1 - s))


def beta_rule(ops: Any, gy: Any, y: Any, x: Any, beta: Any) -> Any:
    """Return ∂L/∂β, given gy = ∂L/∂y."""
    s = ops.sigmoid(beta * x)
    return gy * x * x * s * (1 - s)


def make() -> tr.Primitive:
    """Return tr.primitive("swish", forward=forward, vjp=(x_rule, beta_rule), saves=(…, …), dtype="common").

    saves: what is kept for each rule, the names of what it reads in one string: "x beta y" would be everything.
    """
    saves = ("x beta", "x beta")
    return tr.primitive("swish", forward=forward, vjp=(x_rule, beta_rule), saves=saves, dtype="common")


# ---------------------------------------------------------------- checks

HINTS = (
    "σ'(a) = σ(a)(1 − σ(a)), and a = βx: the inner derivative is β by x, and x by β.",
    "∂y/∂x is a product's derivative: σ(βx) + x · β σ(1 − σ). ∂y/∂β = x · x σ(1 − σ).",
    "Each rule starts with gy, which is ∂L/∂y.",
    'Both rules read x and β, so saves=("x beta", "x beta"). What is not saved arrives without its values.',
)


def _operands() -> list[tr.Tensor]:
    return [tr.randn(2, 3, dtype="float64", requires_grad=True) for _ in range(2)]


def check_values(answer: Any) -> None:
    """The values are x σ(βx)."""
    op, (x, beta) = answer.make(), _operands()
    if not isinstance(op, tr.Primitive):
        raise Mistake(f"make() returns {type(op).__name__}; expected what tr.primitive(…) returns")
    s = tr.sigmoid(beta * x)
    mistakes = {
        "that is σ(βx): the x in front is missing": s.numpy(),
        "that is x σ(x): β is missing": (x * tr.sigmoid(x)).numpy(),
        "that is βx σ(βx)": (beta * x * s).numpy(),
    }
    agree("swish(x, β)", tr.apply(op, x, beta), (x * s).numpy(), mistakes)


def _gradient(answer: Any, n: int) -> Any:
    operands, gy = _operands(), tr.randn(2, 3, dtype="float64")
    operands[1 - n] = operands[1 - n].detach()  # so that no more is kept than this rule's own saves
    op = answer.make()
    y = tr.apply(op, *operands)
    try:
        given = tr.grad(y, operands[n], gy)
    except TypeError as error:
        if not any(word in str(error) for word in ("Meta", "saves")):  # what stands for values that are not saved
            raise
        raise Mistake(
            f"a rule reads what is not saved for it: name it in saves. Now saves is {op.saves!r}, for "
            f"{' and '.join(op.operands)}"
        ) from error
    x, beta = (operand.numpy() for operand in operands)
    return given, x, beta, 1 / (1 + np.exp(-beta * x)), gy.numpy()


def check_x(answer: Any) -> None:
    """The gradient of x."""
    given, x, beta, s, gy = _gradient(answer, 0)
    wanted = s + beta * x * s * (1 - s)
    mistakes = {
        "gy is missing: ∂L/∂x = ∂L/∂y · ∂y/∂x": wanted,
        "x stands twice in x σ(βx); that is the share of the first alone": gy * s,
        "x stands twice in x σ(βx); that is the share of the second alone": gy * beta * x * s * (1 - s),
        "the inner derivative is missing: of βx by x it is β": gy * (s + x * s * (1 - s)),
        "that is gy · σ(1 − σ): x σ(βx) is a product, and that is the derivative of σ alone": gy * s * (1 - s),
        "that is ∂L/∂β: the two rules are exchanged": gy * x * x * s * (1 - s),
    }
    agree("∂L/∂x", given, gy * wanted, mistakes)


def check_beta(answer: Any) -> None:
    """The gradient of β."""
    given, x, beta, s, gy = _gradient(answer, 1)
    wanted = x * x * s * (1 - s)
    mistakes = {
        "gy is missing: ∂L/∂β = ∂L/∂y · ∂y/∂β": wanted,
        "an x is missing: one stands in front of σ, and the inner derivative of βx by β is another": gy
        * x
        * s
        * (1 - s),
        "the inner derivative of βx by β is x, not β": gy * x * beta * s * (1 - s),
        "that is gy · σ(1 − σ): x stands in front of σ, and the inner derivative of βx by β is x too": gy * s * (1 - s),
    }
    agree("∂L/∂β", given, gy * wanted, mistakes)


def check_numbers(answer: Any) -> None:
    """The first and the second derivative agree with numbers."""
    op = answer.make()
    check_derivatives(lambda x, beta: tr.apply(op, x, beta), *_operands())


def check_broadcasting(answer: Any) -> None:
    """One β serves all x."""
    op, (x, _) = answer.make(), _operands()
    beta = tr.tensor(1.5, dtype="float64", requires_grad=True)
    check_derivatives(lambda x, beta: tr.apply(op, x, beta), x, beta)


def check_kernel(answer: Any) -> None:
    """A fused function makes one kernel of it and what is around it."""
    op, (x, beta) = answer.make(), _operands()
    gate = tr.fused(lambda x, beta: tr.tanh(tr.apply(op, x, beta)))
    given = tr.grad(gate(x, beta).sum(), x)
    if gate.latest is None:
        raise Mistake("no kernel could be made of it, so it ran operation by operation")
    with tr.fusion(False):
        agree("∂L/∂x through the kernel", given, tr.grad(gate(x, beta).sum(), x).numpy())
