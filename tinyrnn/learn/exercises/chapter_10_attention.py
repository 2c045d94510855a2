"""Attention with a mask, and a step of beam search.

A decoder looks back at all that the encoder has seen, and takes from it what fits its question:

    score_k = q · key_k / √K;     weight = softmax of the scores over the keys;     context = Σ_k weight_k value_k

where a key that the mask forbids has the weight 0. And of all symbols that could follow, it keeps more than one: a beam
of hypotheses. In each step every hypothesis is extended by every symbol, and of all extensions the likeliest go on.

Write both.

Shapes: query (B, K); keys (Tk, B, K); values (Tk, B, V); mask (Tk, B), True where it may look.
Source: Vaswani et al. 2017, "Attention Is All You Need"; Graves 2012, "Sequence Transduction with Recurrent Neural
    Networks".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

import tinyrnn as tr
from tinyrnn import nn
from tinyrnn.learn.checking import Mistake, agree, array_of, parts_of

Array = npt.NDArray[Any]


def attention(query: tr.Tensor, keys: tr.Tensor, values: tr.Tensor, mask: Array) -> tuple[tr.Tensor, tr.Tensor]:
    """Return the context (B, V) and the weights (Tk, B), which sum to 1 over the keys of each sequence."""
    scores = tr.sum(query * keys, axis=-1) / math.sqrt(query.shape[-1])
    weights = tr.softmax(tr.where(mask, scores, -math.inf), axis=0)
    return tr.sum(tr.expand_dims(weights, -1) * values, axis=0), weights


def beam_step(totals: Array, log_p: Array, width: int) -> list[tuple[int, int]]:
    """Return the extensions that go on, likeliest first: at most `width` pairs (hypothesis, symbol).

    Args: totals (n,), log P of each hypothesis; log_p (n, V), log P of each symbol after each hypothesis.
    """
    extended = totals[:, None] + log_p
    best = np.argsort(-extended, axis=None, kind="stable")[:width]
    return [(int(k) // log_p.shape[1], int(k) % log_p.shape[1]) for k in best]


# ---------------------------------------------------------------- checks

HINTS = (
    "query * keys is (Tk, B, K): the query stands beside each key. Summed over the last axis, that is the dot product.",
    "e^−∞ is 0. Where the mask is False, put −math.inf for the score before the softmax, with tr.where.",
    "The softmax is over the keys, axis 0. For the context, give weights a last axis: tr.expand_dims(weights, -1).",
    "Probabilities are multiplied, so their logarithms are added: totals[:, None] + log_p is (n, V). Sort all of it at "
    "once; divmod(position, V) says which hypothesis and which symbol.",
)


def _example() -> tuple[tr.Tensor, tr.Tensor, tr.Tensor, Array]:
    query, keys, values = (tr.randn(*shape, dtype="float64") for shape in ((3, 4), (5, 3, 4), (5, 3, 2)))
    return query, keys, values, np.arange(5)[:, None] < np.array([5, 2, 3])


def _softmax(scores: Array, axis: int = 0) -> Array:
    e = np.exp(scores - scores.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def check_weights(answer: Any) -> None:
    """The weights are the softmax of the scores over the keys that may be looked at."""
    query, keys, values, mask = _example()
    _, weights = parts_of("attention", answer.attention(query, keys, values, mask), "context", "weights")
    _, wanted = nn.Attention(4, score="dot")(query, keys, values, mask=mask)
    scores = (query * keys).sum(-1).numpy() / 2
    masked = np.where(mask, scores, -np.inf)
    everywhere, elsewhere = _softmax(scores), tr.softmax(tr.where(mask, -np.inf, scores), 0).numpy()
    mistakes = {
        "the mask is not used: they look at the padding": everywhere,
        "the mask comes after the softmax, so they do not sum to 1; put −∞ for the scores before it": everywhere * mask,
        "the scores were set to 0 where it may not look, and e⁰ is 1; set them to −∞": _softmax(scores * mask),
        "it looks where the mask is False: the other way round": elsewhere,
        "the scores are not divided by √K": _softmax(masked * 2),
        "the scores are divided by K, and not by √K": _softmax(masked / 2),
        "the scores are divided by √B: K is the last axis of the query": _softmax(masked * 2 / math.sqrt(3)),
        "the scores are divided by √Tk: K is the last axis of the query": _softmax(masked * 2 / math.sqrt(5)),
        "the softmax is over the batch: the keys are axis 0": _softmax(masked, 1),
        "they do not sum to 1: e^score is not divided by the sum over the keys": np.exp(masked),
        "that is the context; the results are exchanged": nn.Attention(4, score="dot")(query, keys, values, mask=mask)[
            0
        ].numpy(),
        "those are the scores; the softmax is missing": masked,
    }
    agree("weights", weights, wanted.numpy(), mistakes)


def check_context(answer: Any) -> None:
    """The context is the weighted sum of the values."""
    query, keys, values, mask = _example()
    context, _ = parts_of("attention", answer.attention(query, keys, values, mask), "context", "weights")
    wanted, weights = nn.Attention(4, score="dot")(query, keys, values, mask=mask)
    weighted = tr.expand_dims(weights, -1) * values
    mistakes = {
        "the keys stand in the place of the values": (tr.expand_dims(weights, -1) * keys).sum(0).numpy(),
        "that is the mean over Tk; the weights sum to 1 already, so it is the sum": weighted.mean(0).numpy(),
        "the values are weighted, and not summed over the keys": weighted.numpy(),
    }
    agree("context", context, wanted.numpy(), mistakes)


def check_padding(answer: Any) -> None:
    """Keys that are masked change nothing."""
    query, keys, values, mask = _example()
    before = answer.attention(query, keys, values, mask)[0]
    noise = np.where(mask, 0, 7)[:, :, None]
    after = answer.attention(query, keys + noise, values + noise, mask)[0]
    if not np.allclose(array_of("context", before), array_of("context", after)):
        raise Mistake("your mask leaks: the context depends on keys and values that it forbids")


def _beams() -> tuple[Array, Array]:
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.4, 0.35, 0.25]])
    return np.log([0.2, 0.5, 0.3]), np.log(p)


def check_beam(answer: Any) -> None:
    """A step of beam search keeps the likeliest of all extensions."""
    totals, log_p = _beams()
    given = answer.beam_step(totals.copy(), log_p.copy(), 4)
    if not isinstance(given, list) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in given):
        raise Mistake(f"beam_step gives {given!r}; expected a list of pairs (hypothesis, symbol)")
    mistakes = {
        "what each hypothesis has come to is left out: add totals to log_p": [(1, 2), (0, 0), (2, 0), (2, 1)],
        "those are the least likely: the largest log P come first": [(0, 2), (1, 0), (1, 1), (0, 1)],
        "that is `width` for each hypothesis; of all extensions together, `width` go on": [
            (n, int(k)) for n in range(3) for k in np.argsort(-log_p[n], kind="stable")
        ],
        "only the best hypothesis was extended; extend all": [(1, 2), (1, 0), (1, 1)],
        "the position was divided by the width; divide it by V, the number of symbols": [
            divmod(k, 4) for k in (5, 6, 7, 0)
        ],
        "that is the best symbol of each hypothesis; two extensions of one may both be better than another's best": [
            (1, 2),
            (2, 0),
            (0, 0),
        ],
        "logarithms are added; multiplied they make a different order": _order(totals[:, None] * log_p),
        "totals were added to the columns; each belongs to a row: totals[:, None]": _order(totals + log_p),
        "they come least likely first": [(0, 0), (2, 1), (2, 0), (1, 2)],
        "the pairs are (symbol, hypothesis)": [(2, 1), (0, 2), (1, 2), (0, 0)],
    }
    agree("beam_step(totals, log_p, 4)", given, [(1, 2), (2, 0), (2, 1), (0, 0)], mistakes)


def _order(extended: Array) -> list[tuple[int, ...]]:
    return [divmod(int(k), 3) for k in np.argsort(-extended, axis=None, kind="stable")[:4]]


def check_widths(answer: Any) -> None:
    """Width 1 is greedy, a wide beam keeps them all, and there may be fewer hypotheses than symbols."""
    totals, log_p = _beams()
    agree("beam_step(totals, log_p, 1)", answer.beam_step(totals, log_p, 1), [(1, 2)])
    if len(answer.beam_step(totals, log_p, 100)) != 9:
        raise Mistake("there are 9 extensions of 3 hypotheses by 3 symbols; a width of 100 should keep all of them")
    mistakes = {"the position was divided by n; divide it by V, the number of symbols": [(2, 1), (0, 0)]}
    agree("beam_step with n=2, V=3", answer.beam_step(totals[:2], log_p[:2], 2), [(1, 2), (0, 0)], mistakes)
