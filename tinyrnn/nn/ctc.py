"""Connectionist temporal classification: learn labels in their order, without being told at which steps they are.

The network gives, at each of T steps, a distribution over V classes, of which one is the blank: "nothing new". A path
is one class for each step; it spells what is left when repeats are merged and then blanks are dropped:

    - c c - a a t t -   and   c c c a - - - t t   both spell   c a t          (- is the blank)

Letters: T time, B batch, V classes, L labels of a target, S = 2L + 1 its labels with blanks around them.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from tinyrnn import backends
from tinyrnn import functions as F
from tinyrnn.autograd import no_grad, steps
from tinyrnn.errors import DTypeError, IndexRangeError, NonFiniteError, ShapeError
from tinyrnn.functions import arange, concatenate, expand_dims, log_softmax, logsumexp, stack, unstack, where
from tinyrnn.nn.recurrent import check_lengths, running
from tinyrnn.tensor import Tensor, tensor


def ctc_loss(
    logits: Any,
    targets: Any,
    input_lengths: Any = None,
    target_lengths: Any = None,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """−log p(target), where p sums over all paths that spell the target.

        p(path) = Πₜ softmax(logitsₜ)[pathₜ]

    The sum is taken by the forward algorithm. With blanks around the labels the target is s = 0 … S − 1, and αₜ(s) is
    what the paths up to step t have together that stand at s:

        αₜ(s) = softmax(logitsₜ)[label(s)] · (αₜ₋₁(s) + αₜ₋₁(s − 1) + αₜ₋₁(s − 2))

    where s − 2 counts only if label(s) is neither a blank nor label(s − 2). All of it in logarithms, and the gradient,
    for which others have a backward algorithm, is what the graph gives.

    Args:
        logits: (T, B, V); logarithms of probabilities do as well, of which log_softmax makes themselves. Behind the
            length of an input there may be anything.
        targets: (L, B) class numbers from 0 to V-1, without blanks, as `data.pad` makes them of label sequences; behind
            a target's length there may be anything.
        input_lengths: (B,) integers from 0 to T; target_lengths: (B,) integers from 0 to L. None: all are T or L long.
        blank: the class that stands for "nothing new".
        reduction: "mean" divides each loss by its target's length (an empty one's by 1) and averages over the batch,
            "sum" adds them up, "none" leaves one each, (B,).
        zero_infinity: count a target that no path can spell, since it is too long for its input, as 0. Otherwise its
            loss is ∞. Its gradient is 0 in either case, so it cannot spoil a step, and ∞ tells that it is there.

    Raises: ShapeError, DTypeError or IndexRangeError naming what was given and what was expected; ValueError for an
        unknown reduction.
    Source: Graves et al. 2006, "Connectionist Temporal Classification: Labelling Unsegmented Sequence Data with
        Recurrent Neural Networks".

    >>> import tinyrnn as tr
    >>> logits = tr.zeros(2, 1, 3)  # 3 of the 9 paths spell "1": 1 1, 1 -, - 1
    >>> round(9 * tr.exp(-tr.ctc_loss(logits, [[1]])).item(), 3)
    3.0
    """
    logits = _checked_logits("ctc_loss", logits, blank)
    T, B, V = logits.shape
    with backends.use_backend(logits.backend):
        targets = targets if isinstance(targets, Tensor) else tensor(targets)
        targets, ends = _checked_targets(targets, target_lengths, B, V, blank)
        L = len(targets)
        S = 2 * L + 1
        blanks = F.full((L + 1, B), blank, dtype="int64")
        labels = concatenate([blanks[:1], stack([targets, blanks[1:]], 1).reshape(2 * L, B)])
        two_before = concatenate([F.full((2, B), blank, dtype="int64"), labels])[:-2]
        may_skip = (labels != blank) & (labels != two_before)
        place = expand_dims(arange(S), 1)
        wall = F.full((2, B), -math.inf, dtype=logits.dtype)  # s = −2 and −1
        alpha = where(place == 0, F.zeros(S, B, dtype=logits.dtype), -math.inf)  # as if a blank had been
        classes = (arange(B) * V + labels).reshape(-1)

    going_on = None
    if input_lengths is not None:
        mask = running("ctc_loss, inputs", input_lengths, logits)
        logits, going_on = where(expand_dims(mask, -1), logits, 0.0), unstack(expand_dims(mask, 1))
    by_class = log_softmax(logits).transpose(1, 2, 0).reshape(B * V, T)
    emissions = unstack(by_class[classes].T.reshape(T, S, B))  # log softmax(logitsₜ)[label(s)]
    for t in steps(T):
        before = concatenate([wall, alpha])
        ways = stack([alpha, before[1:-1], where(may_skip, before[:-2], -math.inf)])
        now = logsumexp(ways, axis=0) + emissions[t]
        alpha = now if going_on is None else where(going_on[t], now, alpha)
    at_end = (place == 2 * ends) | (place == 2 * ends - 1)  # behind the last label, or on it
    losses = -logsumexp(where(at_end, alpha, -math.inf), axis=0)
    if zero_infinity:
        losses = where(losses == math.inf, 0.0, losses)
    if reduction == "mean":
        return (losses / F.maximum(ends, 1).astype(losses.dtype)).mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise ValueError(f"ctc_loss: reduction is {reduction!r}; expected 'mean', 'sum' or 'none'")


def ctc_decode(logits: Any, lengths: Any = None, *, beam_width: int | None = None, blank: int = 0) -> list[list[int]]:
    """Return the labels that a network's outputs spell, on the host.

        labels = argmax_l P(l),   P(l) = Σ over the paths that spell l of Πₜ p_t(path_t)

    The best path takes the likeliest class of each step. It need not spell the likeliest labels, which many paths may
    share; a beam search adds up the paths of each beginning and keeps the likeliest ones.

    Args:
        logits: (T, B, V), or logarithms of probabilities; lengths: (B,) integers from 0 to T, None if all are T long.
        beam_width: how many beginnings are kept at each step; None: the best path.
        blank: the class that stands for "nothing new".

    Returns: for each of the B sequences a list of class numbers.
    Source: Graves et al. 2006 (best path); Graves 2012, "Supervised Sequence Labelling with Recurrent Neural Networks",
        chapter 7 (prefix search), with a beam as in Hannun et al. 2014, "First-Pass Large Vocabulary Continuous Speech
        Recognition using Bi-Directional Recurrent DNNs".
    Raises: ShapeError, DTypeError or IndexRangeError naming what was given and what was expected; ValueError for a
        beam_width under 1; NonFiniteError if the logits hold NaN.

    >>> import tinyrnn as tr
    >>> p = tr.tensor([[[0.6, 0.4]], [[0.6, 0.4]]])  # "- -" has 0.36, "1" 0.64: 3 paths
    >>> tr.ctc_decode(tr.log(p)), tr.ctc_decode(tr.log(p), beam_width=2)
    ([[]], [[1]])
    """
    logits = _checked_logits("ctc_decode", logits, blank)
    if beam_width is not None and (not isinstance(beam_width, int) or beam_width < 1):
        raise ValueError(f"ctc_decode: beam_width is {beam_width!r}; expected an int of 1 or more, or None")
    T, B, _ = logits.shape
    ends = [T] * B if lengths is None else check_lengths("ctc_decode", lengths, logits).tolist()
    with no_grad():
        by_sequence = log_softmax(logits).swapaxes(0, 1).tolist()
    if any(math.isnan(x) for sequence in by_sequence for step in sequence for x in step):
        raise NonFiniteError(
            "ctc_decode: the logits hold NaN; expected numbers: tr.detect_anomaly finds where it began"
        )
    given = [sequence[:end] for sequence, end in zip(by_sequence, ends, strict=True)]
    if beam_width is None:
        return [_best_path(log_p, blank) for log_p in given]
    return [_beam_search(log_p, beam_width, blank) for log_p in given]


def _best_path(log_p: list[list[float]], blank: int) -> list[int]:
    """Return what the path of the likeliest classes spells."""
    path = [step.index(max(step)) for step in log_p]
    return [label for label, _ in itertools.groupby(path) if label != blank]


def _beam_search(log_p: list[list[float]], beam_width: int, blank: int) -> list[int]:
    """Return the likeliest of the beginnings that are left after the last step.

    What the paths of a beginning have together is kept apart for those that end in a blank and those that end in its
    last label: after a blank the same label again is a new one.
    """
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    for step in log_p:
        found: dict[tuple[int, ...], tuple[float, float]] = defaultdict(lambda: (-math.inf, -math.inf))
        for labels, (in_blank, in_label) in beams.items():
            both = _log_add(in_blank, in_label)
            for c, p in enumerate(step):
                again = bool(labels) and c == labels[-1]
                if c == blank:
                    a, b = found[labels]
                    found[labels] = _log_add(a, both + p), b
                    continue
                if again:
                    a, b = found[labels]
                    found[labels] = a, _log_add(b, in_label + p)
                a, b = found[*labels, c]
                found[*labels, c] = a, _log_add(b, (in_blank if again else both) + p)
        likeliest = sorted(found, key=lambda labels: _log_add(*found[labels]), reverse=True)[:beam_width]
        beams = {labels: found[labels] for labels in likeliest}
    return list(next(iter(beams)))  # the likeliest stands first


def _log_add(a: float, b: float) -> float:
    """log(eᵃ + eᵇ)."""
    low, high = sorted((a, b))
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def _checked_logits(name: str, logits: Any, blank: int) -> Tensor:
    """Return logits as a tensor, having seen that they are (T, B, V) floats and the blank is one of the V classes."""
    logits = logits if isinstance(logits, Tensor) else tensor(logits)
    if not logits.dtype.is_floating:
        raise DTypeError(f"{name}: logits are {logits.dtype}; expected floating numbers (T, B, V)")
    if logits.ndim != 3 or 0 in logits.shape or logits.shape[-1] == 1:
        raise ShapeError(f"{name}: logits are {logits.shape}; expected (T, B, V), at least (1, 1, 2)")
    V = logits.shape[-1]
    if not isinstance(blank, int) or not 0 <= blank < V:
        raise IndexRangeError(f"{name}: blank is {blank!r}; expected one of the classes 0 … {V - 1}")
    return logits


def _checked_targets(targets: Tensor, lengths: Any, B: int, V: int, blank: int) -> tuple[Tensor, Tensor]:
    """Return targets with a class behind their ends too, and where they end, having seen that they fit the logits."""
    expected = f"(L, B={B}), time first, as data.pad makes them of label sequences"
    if targets.ndim != 2 or targets.shape[1] != B:
        raise ShapeError(f"ctc_loss: targets are {targets.shape}; expected {expected}")
    if targets.dtype.is_floating or targets.dtype == "bool":
        raise DTypeError(f"ctc_loss: targets are {targets.dtype}; expected integers {expected}")
    L = len(targets)
    ends = tensor([L if lengths is None else 0] * B)
    if lengths is not None:
        ends = check_lengths("ctc_loss, targets", lengths, targets)
        targets = where(expand_dims(arange(L), 1) < ends, targets, 1 if blank == 0 else 0)
    F.check_range("ctc_loss", targets, V, "targets")
    targets.backend.check(_NoBlank(blank), (targets == blank).astype("int64").array)
    return targets.astype("int64"), ends


@dataclass(frozen=True)
class _NoBlank:
    """What targets are expected to be free of, seen as 1 where a target is it."""

    blank: int

    def __call__(self, values: Any) -> None:
        if values.size and values.max() > 0:
            raise IndexRangeError(
                f"ctc_loss: a target holds {self.blank}, which is the blank; it stands between labels, and is none"
            )
