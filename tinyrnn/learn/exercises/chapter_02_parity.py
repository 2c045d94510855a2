"""A layer, and why it cannot count.

    y = tanh(x W + b)

is a layer. One layer cannot tell whether the number of ones among the bits is odd or even, not even among two bits.
Two layers, one after the other, can. But W has a row for each bit, so for one bit more there is no weight. What is to
read any number of bits has to remember something, and do the same at each step. Here it remembers one number: h, which
is 1 if the number of ones so far is odd, else 0.

Write the layer; weights, found by thought and not by training, for two layers that answer for two bits; and the step
that goes on for ever.

Source: Minsky & Papert 1969, "Perceptrons" (what one layer cannot tell).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tinyrnn.learn.checking import Mistake, agree, array_of, parts_of

Array = npt.NDArray[Any]


def layer(x: Array, W: Array, b: Array) -> Array:
    """Return tanh(x W + b): x (B, I), W (I, O) and b (O,) to (B, O)."""
    return np.tanh(x @ W + b)


def weights() -> tuple[Array, Array, Array, Array]:
    """Return W_1 (2, 2), b_1 (2,), W_2 (2, 1) and b_2 (1,).

    layer(layer(x, W_1, b_1), W_2, b_2) is above 0 for the bits 0 1 and 1 0, and below 0 for 0 0 and 1 1.
    """
    W_1 = np.array([[10.0, 10.0], [10.0, 10.0]])
    b_1 = np.array([-5.0, -15.0])  # near 1 if one bit is 1 or both; near 1 if both are
    W_2 = np.array([[1.0], [-1.0]])  # the one, and not the other
    b_2 = np.array([-1.0])
    return W_1, b_1, W_2, b_2


def step(h: float, x: float) -> float:
    """Return the next h: 1 if the number of ones, now with the bit x, is odd, else 0. The h before did not count x."""
    return h + x - 2 * h * x


# ---------------------------------------------------------------- checks

HINTS = (
    "In a layer the bits are a row vector, on the left: x @ W.",
    "Of two hidden elements let one say 'one bit at least', the other 'both bits'. Large weights make tanh near ±1.",
    "10 · (x_1 + x_2) − 5 is above 0 for one bit at least, 10 · (x_1 + x_2) − 15 for both. The answer is the first and "
    "not the second; mind that 'no' is −1 after a tanh, not 0.",
    "A 0 leaves h as it is, a 1 turns it over: make a formula of 0 and 1 that does that.",
)

BITS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])


def check_layer(answer: Any) -> None:
    """The layer is tanh(x W + b)."""
    x, W, b = np.array([[1.0, -2.0], [0.5, 0.25], [2.0, 1.0]]), np.array([[0.5, -1.0], [0.25, 2.0]]), np.array([0.5, 1])
    mistakes = {
        "the tanh is missing": x @ W + b,
        "b is missing": np.tanh(x @ W),
        "that is tanh(x Wᵀ + b): W is (I, O), so x @ W does without a transpose": np.tanh(x @ W.T + b),
        "b has to be added before the tanh": np.tanh(x @ W) + b,
    }
    agree("layer(x, W, b)", answer.layer(x, W, b), np.tanh(x @ W + b), mistakes)


def check_weights(answer: Any) -> None:
    """Two layers with your weights tell 0 1 and 1 0 from 0 0 and 1 1."""
    parts = parts_of("weights()", answer.weights(), "W_1", "b_1", "W_2", "b_2")
    shapes = {"W_1": (2, 2), "b_1": (2,), "W_2": (2, 1), "b_2": (1,)}
    for (name, shape), part in zip(shapes.items(), parts, strict=True):
        if array_of(name, part).shape != shape:
            raise Mistake(f"{name} has shape {np.shape(part)}; expected {shape}")
    W_1, b_1, W_2, b_2 = map(np.asarray, parts)
    y = np.tanh(np.tanh(BITS @ W_1 + b_1) @ W_2 + b_2)[:, 0]
    odd = BITS.sum(1) == 1
    if np.array_equal(y > 0, BITS.sum(1) >= 1):
        raise Mistake(
            "1 1 counts as 0 1 does: that is 'or'. The second hidden element should say 'both', and be subtracted"
        )
    if np.array_equal(y > 0, ~odd) and (y != 0).all():
        raise Mistake("it is the other way round: above 0 where the number of ones is even")
    for bits, number, wanted in zip(BITS, y, odd, strict=True):
        if not (number > 0 if wanted else number < 0):
            side = "above" if wanted else "below"
            raise Mistake(
                f"for the bits {bits[0]} {bits[1]} the second layer gives {number:.3g}; it should be {side} 0"
            )


def check_step(answer: Any) -> None:
    """The step turns h over for a 1, and leaves it for a 0."""
    given = [answer.step(h, x) for h, x in BITS.tolist()]
    mistakes = {
        "it counts the ones, and 1 + 1 is 2; h should say odd or even": [0, 1, 1, 2],
        "it remembers that there was a 1, and not how many: for h = 1 and x = 1 it should give 0": [0, 1, 1, 1],
        "it forgets h: the answer depends on x alone": [0, 1, 0, 1],
        "it does not look at x": [0, 0, 1, 1],
        "it turns h over for a 0, and leaves it for a 1": [1, 0, 0, 1],
        "that is 'both', and not 'one of the two'": [0, 0, 0, 1],
    }
    agree("step(h, x) for (0, 0), (0, 1), (1, 0), (1, 1)", given, [0, 1, 1, 0], mistakes)


def check_long(answer: Any) -> None:
    """The same step is right for sequences of 0 to 100 bits."""
    for T in range(101):
        bits, h = np.random.default_rng(T).integers(0, 2, T).tolist(), 0
        for x in bits:
            h = answer.step(h, x)
        if h != sum(bits) % 2:
            raise Mistake(f"after {T} bits, {sum(bits)} of them ones, h is {h}")
