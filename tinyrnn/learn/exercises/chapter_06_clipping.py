"""Gradient clipping by norm.

Where a gradient goes through time, it may grow with each step: it explodes, and one update throws away what was
learned. So it is made shorter where it is too long, and keeps its direction:

    norm = √(Σ g²), over all elements of all gradients;     g ← g · min(1, max_norm / norm)

Write that for a list of arrays, one for each parameter.

Source: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

import tinyrnn as tr
from tinyrnn import optim
from tinyrnn.learn.checking import Mistake, agree, parts_of

Array = npt.NDArray[Any]


def clip(gradients: list[Array], max_norm: float) -> tuple[list[Array], float]:
    """Return the gradients, clipped, as new arrays; and their norm before."""
    norm = math.sqrt(sum((g * g).sum() for g in gradients))
    scale = 1.0 if norm <= max_norm else max_norm / norm
    return [g * scale for g in gradients], norm


# ---------------------------------------------------------------- checks

HINTS = (
    "There is one norm, of all gradients together, as if they stood in one long vector.",
    "Sum the squares of all elements of all arrays, then take one root.",
    "All arrays are multiplied by the same number: 1 if the norm is small enough, else max_norm / norm.",
)

GRADIENTS = [np.array([[3.0, -1.0], [0.5, 2.0]]), np.array([4.0, -2.0, 0.1])]
NORM = math.sqrt(sum((g * g).sum() for g in GRADIENTS))


def _flat(what: str, given: Any, gradients: list[Array]) -> tuple[Array, Any]:
    """Return the clipped gradients as one vector, and the norm."""
    clipped, norm = parts_of(what, given, "the list of clipped gradients", "the norm")
    if isinstance(norm, list | tuple) and not isinstance(clipped, list | tuple):
        raise Mistake(f"{what}: the results are exchanged: return the list of clipped gradients, then the norm")
    if not isinstance(clipped, list | tuple) or [np.shape(g) for g in clipped] != [g.shape for g in gradients]:
        raise Mistake(f"{what}: the first result should be a list of arrays, with the shapes that were given")
    return np.concatenate([np.ravel(g) for g in clipped]), norm


def check_norm(answer: Any) -> None:
    """The norm is that of all gradients together, before they are clipped."""
    _, norm = _flat("clip(gradients, 1.0)", answer.clip([g.copy() for g in GRADIENTS], 1.0), GRADIENTS)
    mistakes = {
        "the root is missing": NORM**2,
        "those are the norms of the arrays, added up; add up the squares, then take one root": sum(
            np.linalg.norm(g) for g in GRADIENTS
        ),
        "there is one norm for each array; all of them together have one": [np.linalg.norm(g) for g in GRADIENTS],
        "that is the norm after clipping; it is wanted from before, to see how far they were off": 1.0,
        "that is the norm of the last array alone": np.linalg.norm(GRADIENTS[-1]),
        "those are absolute values, added up; add up the squares, then take the root": sum(
            np.abs(g).sum() for g in GRADIENTS
        ),
        "the elements are not squared before they are added up": math.sqrt(sum(np.abs(g).sum() for g in GRADIENTS)),
        "that is the largest element; the norm is the root of the sum of all squares": max(
            np.abs(g).max() for g in GRADIENTS
        ),
        "the squares were averaged; they are added up": math.sqrt(sum((g * g).mean() for g in GRADIENTS)),
    }
    agree("the norm", norm, NORM, mistakes)


def check_long(answer: Any) -> None:
    """Gradients that are too long get the norm max_norm, and keep their direction."""
    clipped, _ = _flat("clip(gradients, 2.0)", answer.clip([g.copy() for g in GRADIENTS], 2.0), GRADIENTS)
    flat = np.concatenate([g.ravel() for g in GRADIENTS])
    each = np.concatenate([(g * min(1, 2 / np.linalg.norm(g))).ravel() for g in GRADIENTS])
    mistakes = {
        "nothing was clipped": flat,
        "each array was clipped by a norm of its own, which changes their direction: one scale for all": each,
        "each element was cut at ±max_norm, which changes the direction: multiply all by one number": flat.clip(-2, 2),
        "they were scaled to norm 1, and not to max_norm": flat / NORM,
        "they were divided by max_norm": flat / 2,
        "the scale is upside down: it is max_norm / norm": flat * NORM / 2,
        "something was subtracted, which changes the direction: multiply all by max_norm / norm": flat - (NORM - 2),
    }
    agree("the clipped gradients, one after the other", clipped, flat * 2 / NORM, mistakes)


def check_short(answer: Any) -> None:
    """Gradients that are short enough stay as they are."""
    clipped, _ = _flat("clip(gradients, 100.0)", answer.clip([g.copy() for g in GRADIENTS], 100.0), GRADIENTS)
    flat = np.concatenate([g.ravel() for g in GRADIENTS])
    mistakes = {"they were made longer: the scale is at most 1": flat * 100 / NORM}
    agree("short gradients, one after the other", clipped, flat, mistakes)


def check_zero(answer: Any) -> None:
    """Gradients of zero give no NaN."""
    zeros = [np.zeros(3), np.zeros((2, 2))]
    nothing = "where the norm is 0 there is nothing to divide by: 0 / 0 is NaN, or an error"
    try:
        clipped, norm = _flat("clip(zeros, 1.0)", answer.clip(zeros, 1.0), zeros)
    except ZeroDivisionError as error:
        raise Mistake(nothing) from error
    if not np.isfinite(clipped).all():
        raise Mistake(nothing)
    agree("zeros, clipped", clipped, np.zeros(7))
    agree("their norm", norm, 0.0)


def check_copies(answer: Any) -> None:
    """The arrays that were given stay as they are."""
    given = [g.copy() for g in GRADIENTS]
    answer.clip(given, 1.0)
    if any((a != b).any() for a, b in zip(given, GRADIENTS, strict=True)):
        raise Mistake("they have changed: g *= scale writes into the array that was given; write g * scale")


def check_library(answer: Any) -> None:
    """It does what tr.optim.clip_grad_norm does to a model."""
    model = tr.nn.Linear(3, 4, dtype="float64")
    (model(tr.randn(5, 3, dtype="float64")) ** 2).sum().backward()
    gradients = [w.grad.numpy().copy() for w in model.parameters() if w.grad is not None]
    clipped, _ = _flat("clip", answer.clip(gradients, 0.5), gradients)
    optim.clip_grad_norm(model.parameters(), 0.5)
    library = np.concatenate([w.grad.numpy().ravel() for w in model.parameters() if w.grad is not None])
    if not np.allclose(clipped, library, rtol=1e-4):
        raise Mistake("the gradients of a model are not those of tr.optim.clip_grad_norm")
