"""Masks and lengths: a padded batch is as good as its sequences.

Sequences of unequal length are padded to the longest, T, and run side by side. Nothing of the padding may reach a
result. Where a sequence has ended, its state stays as it was, its output is 0, and its losses do not count:

    mask[t, b] = t < lengths[b]
    h_t = where(mask_t, step(x_t, h_{t−1}), h_{t−1});     out_t = where(mask_t, h_t, 0)

Write the mask, the loop over time, and the mean of the losses that count.

Shapes: x (T, B, I); lengths (B,), from 0 to T; mask (T, B); h (B, H); out (T, B, H).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import tinyrnn as tr
from tinyrnn import nn
from tinyrnn.learn.checking import Mistake, agree, array_of, parts_of

Array = npt.NDArray[Any]


def mask(lengths: Array, T: int) -> Array:
    """Return bool (T, B): True where sequence b has not ended at step t."""
    return np.arange(T)[:, None] < lengths


def run(cell: nn.RNNCell, x: tr.Tensor, lengths: Array) -> tuple[tr.Tensor, tr.Tensor]:
    """Return out (T, B, H), and the last state of each sequence, h (B, H).

    cell(x[t], state) is the next state, an nn.RNNState(h), and cell.initial_state(B) the one before the first step.
    """
    going, out = mask(lengths, len(x))[:, :, None], []  # (T, B, 1): for all H elements alike
    h = cell.initial_state(x.shape[1]).h
    for t in range(len(x)):
        h = tr.where(going[t], cell(x[t], nn.RNNState(h)).h, h)
        out.append(tr.where(going[t], h, 0.0))
    return tr.stack(out), h


def masked_mean(losses: tr.Tensor, going: Array) -> tr.Tensor:
    """Return the mean of the losses (T, B) for which the mask `going` (T, B) is True."""
    return tr.where(going, losses, 0.0).sum() / going.sum()


# ---------------------------------------------------------------- checks

HINTS = (
    "np.arange(T)[:, None] is a column of steps, (T, 1). Compared with lengths (B,), it makes an array (T, B).",
    "mask[t] is (B,), and a state (B, H): mask[t][:, None] says the same for all H elements.",
    "tr.where(mask, new, old) takes elements of the one or of the other. A product with the mask does not: NaN · 0 is "
    "NaN, and a state times 0 is 0, not what it was.",
    "The mean divides by the number of losses that count, which is the sum of the mask, not by T · B.",
)

T, LENGTHS = 5, np.array([2, 5, 0, 3])


def check_mask(answer: Any) -> None:
    """The mask is True for t < length."""
    t = np.arange(T)[:, None]
    mistakes = {
        "it is one step too long, t <= length: steps count from 0, so the last is length − 1": t <= LENGTHS,
        "it is True where the padding is: the other way round": t >= LENGTHS,
        "its axes are (B, T); time is first here, (T, B)": (t < LENGTHS).T,
        "it is one step too short": t < LENGTHS - 1,
    }
    given = array_of("mask(lengths, T)", answer.mask(LENGTHS, T))
    agree("mask(lengths, T)", given, t < LENGTHS, mistakes)
    if given.dtype != bool:
        raise Mistake(f"mask(lengths, T) holds {given.dtype}; expected bool, as a comparison gives")
    longer, shorter = np.arange(T + 2)[:, None] < LENGTHS, t < LENGTHS
    words = "it is as long as the longest sequence, and not T"
    agree("mask(lengths, T)", answer.mask(LENGTHS, T + 2), longer, {words: shorter})


def _example() -> tuple[nn.RNNCell, Array]:
    return nn.RNNCell(2, 3, dtype="float64"), tr.randn(T, len(LENGTHS), 2, dtype="float64").numpy()


def _run(answer: Any, cell: nn.RNNCell, x: Array) -> tuple[Array, Array]:
    out, h = parts_of("run", answer.run(cell, tr.tensor(x), LENGTHS), "out", "h")
    return array_of("out", out), array_of("h", h)


def check_shapes(answer: Any) -> None:
    """The shapes are out (T, B, H) and h (B, H)."""
    out, h = _run(answer, *_example())
    for name, given, shape in (("out", out, (T, 4, 3)), ("h", h, (4, 3))):
        if given.shape != shape:
            raise Mistake(f"{name} has shape {given.shape}; expected {shape}")


def check_leaks(answer: Any) -> None:
    """Nothing of the padding reaches out or h."""
    cell, x = _example()
    out, h = _run(answer, cell, x)
    changed = x.copy()
    changed[np.arange(T)[:, None] >= LENGTHS] += 10
    out_changed, h_changed = _run(answer, cell, changed)
    for b, n in enumerate(LENGTHS):
        if not np.array_equal(h[b], h_changed[b]):
            raise Mistake(f"your mask leaks: the last state of sequence {b}, which is {n} long, depends on the padding")
        for t in range(T):
            if not np.array_equal(out[t, b], out_changed[t, b]):
                told = f"sequence {b} is {n} long, and ends at t={n - 1}" if n else f"sequence {b} has no step at all"
                raise Mistake(f"your mask leaks: out at t={t} depends on the padding; {told}")
    changed[np.arange(T)[:, None] >= LENGTHS] = np.nan
    if not all(np.isfinite(result).all() for result in _run(answer, cell, changed)):
        raise Mistake("NaN in the padding comes through: NaN · 0 is NaN. Choose with tr.where, do not multiply")


def check_single(answer: Any) -> None:
    """Each sequence has the result that it has by itself."""
    cell, x = _example()
    out, h = _run(answer, cell, x)
    for b, n in enumerate(LENGTHS):
        state, alone = cell.initial_state(1), np.zeros((T, 3))
        for t in range(n):
            state = cell(tr.tensor(x[t, b : b + 1]), state)
            alone[t] = state.h.numpy()[0]
        mistakes = {}
        if n:
            from_zero = cell(tr.tensor(x[n - 1, b : b + 1]), cell.initial_state(1))
            mistakes = {
                "it is 0: where a sequence has ended, the state stays as it was": np.zeros(3),
                "each step begins from zeros: give the cell the state of the step before": from_zero.h.numpy()[0],
            }
        agree(f"the last state of sequence {b} (length {n})", h[b], state.h.numpy()[0], mistakes)
        repeated = alone.copy()
        repeated[n:] = state.h.numpy()[0]
        mistakes = {
            "the last state goes on past the end; the output is 0 there": repeated,
            "it is one step late: out[t] is the state after step t": np.concatenate([np.zeros((1, 3)), alone[:-1]])
            * (np.arange(T) < n)[:, None],
        }
        agree(f"out of sequence {b} (length {n})", out[:, b], alone, mistakes)


def check_mean(answer: Any) -> None:
    """The mean of the losses is over those that count."""
    losses = tr.uniform(T, 4, dtype="float64").numpy().copy()
    going = np.arange(T)[:, None] < LENGTHS
    mistakes = {
        "it divides by T · B; divide by the number of losses that count": losses[going].sum() / losses.size,
        "that is the mean of all losses, padding included": losses.mean(),
        "that is their sum; divide by how many there are": losses[going].sum(),
        "it divides by B": losses[going].sum() / 4,
        "it divides by T": losses[going].sum() / T,
        "that is the mean of the losses of the padding: the other way round": losses[~going].mean(),
        "sequence 2 has no losses, and 0 / 0 is NaN; divide once, by the sum of the whole mask": np.nan,
        "that is the mean of the means of the sequences; each loss counts the same, so divide once": (
            (losses * going).sum(0) / np.maximum(LENGTHS, 1)
        ).mean(),
    }
    agree("masked_mean", answer.masked_mean(tr.tensor(losses), going), losses[going].mean(), mistakes)
    nan = np.where(going, losses, np.nan)
    if not np.isfinite(array_of("masked_mean", answer.masked_mean(tr.tensor(nan), going))).all():
        raise Mistake("NaN in the padding comes through: NaN · 0 is NaN. Choose with tr.where, do not multiply")
