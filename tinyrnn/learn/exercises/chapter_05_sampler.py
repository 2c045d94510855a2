"""A sampler: temperature and top-k.

A network that writes text gives a logit for each symbol of its vocabulary. To write with it, make probabilities of
them, and draw:

    p = softmax(logits / temperature),  cut to the k likeliest symbols, and scaled to sum to 1 again

A symbol is drawn by a number u, uniform on [0, 1): lay the probabilities side by side on a line from 0 to 1, and see on
which of them u falls. For p = 0.2, 0.5, 0.3 the first has all u < 0.2, the second 0.2 ≤ u < 0.7, the third the rest.

Source: Fan, Lewis & Dauphin 2018, "Hierarchical Neural Story Generation" (top-k).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import tinyrnn as tr
from tinyrnn.generate import next_distribution
from tinyrnn.learn.checking import Mistake, agree, array_of

Array = npt.NDArray[Any]


def probabilities(logits: Array, temperature: float = 1.0, top_k: int | None = None) -> Array:
    """Return the probabilities (V,) for logits (V,), which may be as large as 1000; top_k=None keeps all symbols."""
    p = np.exp((logits - logits.max()) / temperature)
    if top_k is not None:
        p[np.argsort(p)[:-top_k]] = 0
    return p / p.sum()


def draw(p: Array, u: float) -> int:
    """Return the symbol, 0 … V − 1, that u falls on; u is in [0, 1)."""
    return int((np.cumsum(p) <= u).sum())


# ---------------------------------------------------------------- checks

HINTS = (
    "e¹⁰⁰⁰ is too large for a number. Softmax does not change if the same is taken from all logits: take the largest.",
    "np.argsort(p) lists the symbols from the least likely to the likeliest: all but its last k get 0.",
    "What is left after the cut does not sum to 1: divide by the sum at the very end.",
    "np.cumsum(p) says where each symbol ends on the line. How many end at u or before it?",
)

LOGITS = np.array([0.5, 2.0, -1.0, 1.0, 0.0])


def _softmax(x: Array) -> Array:
    return np.exp(x) / np.exp(x).sum()


def check_softmax(answer: Any) -> None:
    """At temperature 1 it is the softmax."""
    p = array_of("probabilities(logits)", answer.probabilities(LOGITS.copy()))
    if not np.isclose(p.sum(), 1):
        raise Mistake(f"the probabilities sum to {p.sum():.3g}, and not to 1: divide by their sum")
    mistakes = {"those are the logits over their sum: take e to them first": LOGITS / LOGITS.sum()}
    agree("probabilities(logits)", p, _softmax(LOGITS), mistakes)


def check_temperature(answer: Any) -> None:
    """A temperature under 1 sharpens, and one over 1 flattens."""
    for temperature in (0.5, 2.0):
        mistakes = {
            "it is the other way round: logits are divided by the temperature": _softmax(LOGITS * temperature),
            "the temperature changes nothing. It divides the logits, before the exponential": _softmax(LOGITS),
            "the temperature divides the probabilities; it has to divide the logits": _softmax(LOGITS) / temperature,
            "they do not sum to 1: the temperature has to be in the sum below as well": np.exp(LOGITS / temperature)
            / np.exp(LOGITS).sum(),
        }
        given = answer.probabilities(LOGITS.copy(), temperature)
        agree(f"probabilities at temperature {temperature}", given, _softmax(LOGITS / temperature), mistakes)


def check_top_k(answer: Any) -> None:
    """Of the k likeliest symbols, and of no others."""
    whole = answer.probabilities(LOGITS.copy())
    for k in (1, 2, 5):
        p, rising = np.asarray(whole), np.sort(whole)
        least = np.where(p <= rising[k - 1], p, 0)
        mistakes = {
            "what is left does not sum to 1: divide by the sum after the cut": np.where(p >= rising[-k], p, 0),
            "those are the k least likely": least / least.sum(),
            "the symbols have lost their places: all V stay where they are, and those that are cut get 0": (
                rising[::-1][:k] / rising[-k:].sum()
            ),
            "a logit of 0 is no probability of 0, since e⁰ is 1: cut the probabilities": _softmax(
                np.where(p >= rising[-k], LOGITS, 0)
            ),
            "top_k changes nothing": p,
        }
        if k == 5:
            mistakes = {}
        expected = next_distribution(tr.tensor(LOGITS), top_k=k)
        agree(f"probabilities with top_k={k}", answer.probabilities(LOGITS.copy(), top_k=k), expected, mistakes)
    both = answer.probabilities(LOGITS.copy(), 0.5, 3)
    agree("with temperature=0.5 and top_k=3", both, next_distribution(tr.tensor(LOGITS), 0.5, 3))


def check_large_logits(answer: Any) -> None:
    """Logits of 1000 are no trouble, and the logits stay as they are."""
    logits = np.array([1000.0, 999.0, -1000.0])
    p = array_of("probabilities", answer.probabilities(logits))
    if not np.isfinite(p).all():
        raise Mistake("e¹⁰⁰⁰ overflows: take the largest logit from all of them before the exponential")
    agree("probabilities of [1000, 999, −1000]", p, next_distribution(tr.tensor(logits)))
    if logits.tolist() != [1000, 999, -1000]:
        raise Mistake("the logits that were given have changed: make a new array, or copy them first")


def check_draw(answer: Any) -> None:
    """A symbol is drawn by where u falls."""
    p, us = np.array([0.0, 0.25, 0.5, 0.0, 0.25]), [0.0, 0.1, 0.25, 0.5, 0.75, 0.99]
    mistakes = {
        "it is always the likeliest: u has to choose": [2] * 6,
        "symbols count from 0, and yours from 1": [2, 2, 3, 3, 5, 5],
        "each is one too low": [0, 0, 1, 1, 3, 3],
        "where one symbol ends the next one begins, or else u = 0 draws a symbol with p = 0: ask for cumsum(p) <= u": [
            0,
            1,
            1,
            2,
            2,
            4,
        ],
        "that is the first symbol whose own p is above u; add them up on the way": [1, 1, 2, 0, 0, 0],
    }
    given = [answer.draw(p.copy(), u) for u in us]
    for u, symbol in zip(us, given, strict=True):
        if symbol is None:
            raise Mistake(f"draw({p.tolist()}, {u}) is None: does it end with `return` whatever u is?")
    if any(not np.array_equal(answer.draw(p.copy(), u), symbol) for u, symbol in zip(us * 5, given * 5, strict=True)):
        raise Mistake("the same p and u give now one symbol, now another: u is the random number, so draw no other")
    agree(f"draw({p.tolist()}, u) for u = {us}", given, [1, 1, 2, 2, 4, 4], mistakes)


def check_shares(answer: Any) -> None:
    """Of many draws each symbol gets its share."""
    p = np.array([0.1, 0.6, 0.3])
    drawn = [answer.draw(p.copy(), (k + 0.5) / 1000) for k in range(1000)]
    agree("the counts in 1000 draws", np.bincount(drawn, minlength=3), [100, 600, 300])
