"""Backpropagation through time, by hand.

Once in your life, write what `tr.grad` does by itself. A plain recurrent network reads T inputs, and at each step its
state is to come close to a target y_t. Steps are counted from 1 here, so that h_0 is the state before the first:

    h_t = tanh(x_t W_x + h_{t−1} W_h + b),  h_0 = 0;      L = ½ Σ_t |h_t − y_t|²,  t = 1 … T

With a_t for what stands in the tanh, the chain rule goes backwards:

    ∂L/∂h_t = (h_t − y_t) + ∂L/∂a_{t+1} W_hᵀ       what L sees of h_t itself, and what comes from the step after
    ∂L/∂a_t = ∂L/∂h_t ⊙ (1 − h_t²)

and each step adds its share to the gradients of W_x, W_h and b, which all steps use. Write both ways, in NumPy alone.

Shapes: x (T, I); y (T, H); W_x (I, H); W_h (H, H); b (H,). There is no batch: x_t is (I,) and h_t is (H,), where .T
changes nothing.
Source: Werbos 1990, "Backpropagation through time: what it does and how to do it".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import tinyrnn as tr
from tinyrnn.learn.checking import agree, parts_of

Array = npt.NDArray[Any]


def forward(x: Array, W_x: Array, W_h: Array, b: Array) -> Array:
    """Return the states h (T + 1, H): h[0] is zero, and h[t + 1] what was made from x[t]."""
    h = np.zeros((len(x) + 1, len(b)))
    for t in range(len(x)):
        h[t + 1] = np.tanh(x[t] @ W_x + h[t] @ W_h + b)
    return h


def backward(x: Array, y: Array, h: Array, W_h: Array) -> tuple[Array, Array, Array]:
    """Return ∂L/∂W_x (I, H), ∂L/∂W_h (H, H) and ∂L/∂b (H,), where y[t] is the target of h[t + 1].

    Args: h, what `forward` has returned.
    """
    H = len(W_h)
    gW_x, gW_h, gb = np.zeros((x.shape[1], H)), np.zeros((H, H)), np.zeros(H)
    from_after = np.zeros(H)
    for t in reversed(range(len(x))):
        gh = h[t + 1] - y[t] + from_after
        ga = gh * (1 - h[t + 1] ** 2)
        gW_x += np.outer(x[t], ga)
        gW_h += np.outer(h[t], ga)
        gb += ga
        from_after = ga @ W_h.T
    return gW_x, gW_h, gb


# ---------------------------------------------------------------- checks

HINTS = (
    "Go through the steps in reverse, and carry one vector: what the step after sends back to h_t. It is 0 at the end.",
    "In step t: first gh, then ga = gh · (1 − h²), then the three shares. The share of W_h is np.outer(h_{t−1}, ga): "
    "all products of a number of h_{t−1} and one of ga.",
    "All steps use the same W_h: its gradient is a sum over the steps, so write +=.",
    "What step t sends to h_{t−1} is ga @ W_h.T.",
)


def _reference(
    x: Array,
    y: Array,
    h: Array,
    W_h: Array,
    *,
    back: Array | None = None,
    slope: bool = True,
    shift: int = 0,
    made: int = 1,
    losses: slice = slice(None),
    shares: slice = slice(None),
) -> tuple[Array, Array, Array]:
    """Return the gradients, or what they are with a mistake.

    Args: back, what stands in the place of W_hᵀ; slope, whether 1 − h² is there; shift, by how much h is late in the
        share of W_h; made, which h is taken for the one that step t made, t + made; losses and shares, the steps that
        count.
    """
    T = len(x)
    gh, ga = np.zeros_like(y), np.zeros_like(y)
    gh[losses] = (h[made : T + made] - y)[losses]
    for t in reversed(range(T)):
        ga[t] = gh[t] * (1 - h[t + made] ** 2 if slope else 1)
        if t > 0:
            gh[t - 1] += ga[t] @ (W_h.T if back is None else back)
    before = h[shift : T + shift]
    return x[shares].T @ ga[shares], before[shares].T @ ga[shares], ga[shares].sum(0)


def _forwards(x: Array, y: Array, h: Array, W_h: Array) -> tuple[Array, Array, Array]:
    """Return what the gradients are if the steps are gone through in the wrong order."""
    ga, after = np.zeros_like(y), np.zeros_like(y[0])
    for t in range(len(x)):
        ga[t] = (h[t + 1] - y[t] + after) * (1 - h[t + 1] ** 2)
        after = ga[t] @ W_h.T
    return x.T @ ga, h[:-1].T @ ga, ga.sum(0)


def _example() -> tuple[Array, Array, Array, Array, Array]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape) for shape in ((3, 2), (3, 4), (2, 4), (4, 4), (4,)))  # type: ignore[return-value]


def _states(x: Array, W_x: Array, W_h: Array, b: Array) -> Array:
    out = [tr.zeros(1, len(b), dtype="float64")]
    for x_t in x:
        out.append(tr.tanh(tr.tensor(x_t[None]) @ W_x + out[-1] @ W_h + b))
    return np.concatenate([h.numpy() for h in out])


def check_forward(answer: Any) -> None:
    """The states are h_t = tanh(x_t W_x + h_{t−1} W_h + b)."""
    x, _, W_x, W_h, b = _example()
    h = _states(x, W_x, W_h, b)
    alone = np.concatenate([h[:1], np.tanh(x @ W_x + b)])
    mistakes = {
        "h_0 is missing: h has T + 1 rows, and h[0] is zero": h[1:],
        "each step is alone: h_{t−1} W_h is missing, or always that of h_0": alone,
        "W_h is transposed: h is a row, so it is h @ W_h": _states(x, W_x, W_h.T, b),
        "b is missing": _states(x, W_x, W_h, 0 * b),
    }
    agree("h", answer.forward(x, W_x, W_h, b), h, mistakes)


def _gradients(answer: Any, n: int) -> tuple[Any, Any, dict[str, Any]]:
    """Return one of the three gradients as it is given, as it should be, and as it is with each mistake."""
    x, y, W_x, W_h, b = _example()
    h = _states(x, W_x, W_h, b)
    given = parts_of("backward", answer.backward(x, y, h.copy(), W_h), "∂L/∂W_x", "∂L/∂W_h", "∂L/∂b")
    true = _reference(x, y, h, W_h)
    mistakes = {
        "it misses the contribution of the steps before each loss: what flows into h_t has to go on to h_{t−1}, by "
        "∂L/∂a_t W_hᵀ": _reference(x, y, h, W_h, back=0 * W_h),
        "it has the contribution of the first step alone. All steps use this parameter: add up their shares, with += "
        "and not =": _reference(x, y, h, W_h, shares=slice(0, 1)),
        "it has the contribution of the last step alone, and misses those of the steps before. All of them use this "
        "parameter: go on to t = 0, and add up": _reference(x, y, h, W_h, shares=slice(2, 3)),
        "the last loss alone goes back: there is one at each step, so h_t − y_t is added in each": _reference(
            x, y, h, W_h, losses=slice(2, 3)
        ),
        "the tanh is missing on the way back: ∂L/∂a = ∂L/∂h ⊙ (1 − h²)": _reference(x, y, h, W_h, slope=False),
        "W_h stands in the place of W_hᵀ on the way back": _reference(x, y, h, W_h, back=W_h),
        "the sign is wrong: the derivative of ½(h − y)² is h − y": [-g for g in true],
        "it is twice as large: the ½ in L takes the 2 of the square away": [2 * g for g in true],
        "step t has made h[t + 1], and that is what y[t] is the target of; h[t] was there before": _reference(
            x, y, h, W_h, made=0
        ),
        "the steps are gone through forwards, and what comes from the step after is known only on the way back: take "
        "reversed(range(T))": _forwards(x, y, h, W_h),
        "in the share of a step stands h_t, which that step has made; W_h was multiplied by h_{t−1}": _reference(
            x, y, h, W_h, shift=1
        ),
        "it is transposed": [g.T for g in true],
        "that is ∂L/∂W_h; the order is ∂L/∂W_x, ∂L/∂W_h, ∂L/∂b": [true[1]] * 3,
        "that is ∂L/∂W_x; the order is ∂L/∂W_x, ∂L/∂W_h, ∂L/∂b": [true[0]] * 3,
        "that is ∂L/∂b; the order is ∂L/∂W_x, ∂L/∂W_h, ∂L/∂b": [true[2]] * 3,
    }
    return given[n], true[n], {words: gradients[n] for words, gradients in mistakes.items()}


def check_b(answer: Any) -> None:
    """The gradient of b."""
    agree("∂L/∂b", *_gradients(answer, 2))


def check_W_h(answer: Any) -> None:
    """The gradient of W_h."""
    agree("∂L/∂W_h", *_gradients(answer, 1))


def check_W_x(answer: Any) -> None:
    """The gradient of W_x."""
    agree("∂L/∂W_x", *_gradients(answer, 0))


def check_numbers(answer: Any) -> None:
    """All three agree with nudging."""
    x, y, *parameters = _example()

    def loss(xp: Any, W_x: Array, W_h: Array, b: Array) -> Any:
        return np.asarray(0.5 * ((answer.forward(x, W_x, W_h, b)[1:] - y) ** 2).sum())

    def rules(ops: Any, gy: Any, L: Any, W_x: Array, W_h: Array, b: Array) -> Any:
        return tuple(gy * g for g in answer.backward(x, y, answer.forward(x, W_x, W_h, b), W_h))

    by_hand = tr.primitive("bptt_by_hand", forward=loss, vjp=rules, saves=("W_x", "W_h", "b"))
    tensors = [tr.tensor(w, requires_grad=True) for w in parameters]
    tr.gradcheck(lambda *ws: tr.apply(by_hand, *ws), tensors, order=1)


def check_long(answer: Any) -> None:
    """They are right for 30 steps too."""
    rng = np.random.default_rng(1)
    x, y, (_, _, W_x, W_h, b) = rng.standard_normal((30, 2)), rng.standard_normal((30, 4)), _example()
    h = _states(x, W_x, W_h, b)
    for name, given, true in zip(
        ("∂L/∂W_x", "∂L/∂W_h", "∂L/∂b"), answer.backward(x, y, h, W_h), _reference(x, y, h, W_h), strict=True
    ):
        agree(name, given, true)
