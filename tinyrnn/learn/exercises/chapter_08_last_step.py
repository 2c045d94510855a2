"""Many to one: the loss at the right step.

To tell the language of a name, a network reads all its letters and answers once, at the end. Names of unequal length
stand side by side in one array, and behind the end of a shorter one is padding: there the network goes on reading
what means nothing. The answer is in the output of each sequence's own last step.

Write `last_valid`, which takes that output, and `loss`, the mean cross-entropy of what a linear layer makes of it.

Shapes: out (T, B, H), what the recurrent layer gave at each step; lengths (B,), from 1 to T; classes (B,).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import tinyrnn as tr
from tinyrnn import nn
from tinyrnn.learn.checking import Mistake, agree, array_of

Array = npt.NDArray[Any]


def last_valid(out: tr.Tensor, lengths: Array) -> tr.Tensor:
    """Return the output of each sequence at its last step, (B, H)."""
    return out[lengths - 1, np.arange(len(lengths))]


def loss(out: tr.Tensor, lengths: Array, linear: nn.Linear, classes: Array) -> tr.Tensor:
    """Return the cross-entropy of linear(last output) with the classes, the mean over the batch: one number."""
    return tr.cross_entropy(linear(last_valid(out, lengths)), classes)


# ---------------------------------------------------------------- checks

HINTS = (
    "Steps count from 0: a sequence that is 3 long has the steps 0, 1 and 2.",
    "Tensors take the indices that arrays do: out[t, b] is one vector (H,), and two arrays, out[ts, bs], take one for "
    "each pair.",
    "The b of the pairs are 0, 1, … B − 1: np.arange(len(lengths)).",
    "tr.cross_entropy(logits, classes) is the mean over the batch already.",
)

LENGTHS = np.array([2, 5, 1, 4])


def _out() -> tr.Tensor:
    return tr.randn(5, 4, 3, dtype="float64", requires_grad=True)


def _check_axes(answer: Any) -> None:
    """Tell of indices in the wrong order, by as many sequences as steps, where they are all in range."""
    out, lengths, b = tr.randn(6, 6, 3, dtype="float64"), np.array([2, 5, 1, 4, 3, 2]), np.arange(6)
    given = np.asarray(array_of("last_valid", answer.last_valid(out, lengths)))
    if np.array_equal(given, out.numpy()[b, lengths - 1]):
        raise Mistake("the indices are exchanged: time comes first, out[t, b]")


def check_last_valid(answer: Any) -> None:
    """The outputs are those of each sequence's own last step."""
    out = _out()
    every, b = out.numpy(), np.arange(4)
    mask = (np.arange(5)[:, None] < LENGTHS)[:, :, None]
    mistakes = {
        "that is step T − 1 for all, which for shorter sequences is padding": every[-1],
        "that is one step too early": every[LENGTHS - 2, b],
        "that is one step too late: a sequence of length n ends at step n − 1": every[np.minimum(LENGTHS, 4), b],
        "that is the first step": every[0],
        "that is the mean over all steps; the last one is wanted": every.mean(0),
        "that is the mean over the steps; the last one is wanted": (every * mask).sum(0) / LENGTHS[:, None],
        "that is whole steps, one for each length: give the sequence too, as a second index": every[LENGTHS - 1],
        "that is the largest over the steps; the last one is wanted": every.max(0),
        "that is the sum over all steps; the last one is wanted": every.sum(0),
        "those are all of sequence 0; each sequence has its own": every[LENGTHS - 1, 0],
    }
    try:
        given = answer.last_valid(out, LENGTHS)
    except tr.errors.IndexRangeError as error:
        _check_axes(answer)
        raise Mistake("one step too far: a sequence of length n ends at step n − 1") from error
    agree("last_valid(out, lengths)", given, every[LENGTHS - 1, b], mistakes)


def check_padding(answer: Any) -> None:
    """What stands in the padding changes nothing, not even NaN."""
    out = _out().numpy().copy()
    before = array_of("last_valid", answer.last_valid(tr.tensor(out), LENGTHS)).copy()
    out[np.arange(5)[:, None] >= LENGTHS] = np.nan
    if not np.array_equal(before, array_of("last_valid", answer.last_valid(tr.tensor(out), LENGTHS))):
        raise Mistake("it changes with the padding. Multiplying by a mask does not help: NaN · 0 is NaN; take by index")


def check_loss(answer: Any) -> None:
    """The loss is the mean cross-entropy of the batch."""
    out, linear, classes = _out(), nn.Linear(3, 6, dtype="float64"), np.array([0, 5, 2, 2])
    logits = linear(tr.tensor(out.numpy()[LENGTHS - 1, np.arange(4)]))
    wanted = tr.cross_entropy(logits, classes).item()
    mistakes = {
        "that is the sum over the batch; the mean does not grow with the batch": wanted * 4,
        "that is the loss of the last step of the array, padding included": tr.cross_entropy(linear(out[-1]), classes),
        "there is one loss for each sequence; one number is wanted, their mean": tr.cross_entropy(
            logits, classes, reduction="none"
        ),
        "it was divided by B once more: tr.cross_entropy is the mean already": wanted / 4,
        "the sign is wrong: the surprise is −log p, which is positive": -wanted,
        "that is 1 − p; the loss is −log p": 1
        - np.exp(-tr.cross_entropy(logits, classes, reduction="none").numpy()).mean(),
        "that is how many answers were wrong; the loss is −log p": (logits.numpy().argmax(-1) != classes).mean(),
        "softmax was taken twice: cross_entropy takes the logits as they are": tr.cross_entropy(
            tr.softmax(logits), classes
        ),
        "that is the loss at all steps; there is one answer, at the end": tr.cross_entropy(
            linear(out), np.broadcast_to(classes, (5, 4))
        ),
    }
    told = {words: value.numpy() if isinstance(value, tr.Tensor) else value for words, value in mistakes.items()}
    agree("the loss", answer.loss(out, LENGTHS, linear, classes), wanted, told)


def check_gradient(answer: Any) -> None:
    """Its gradient reaches each sequence at its last step, and nowhere else."""
    out = _out()
    loss = answer.loss(out, LENGTHS, nn.Linear(3, 6, dtype="float64"), np.array([0, 5, 2, 2]))
    if not isinstance(loss, tr.Tensor) or not loss.requires_grad:
        raise Mistake("the loss has no history: index the tensor itself, not out.numpy(), and return no .item()")
    reached = np.abs(tr.grad(loss, out).numpy()).sum(-1) > 0
    for b, n in enumerate(LENGTHS):
        steps = np.flatnonzero(reached[:, b]).tolist()
        if steps != [n - 1]:
            told = "" if steps else ". Is there a detach(), or out.numpy()?"
            raise Mistake(
                f"for sequence {b}, which is {n} long, the gradient reaches the steps {steps}; expected [{n - 1}]{told}"
            )
