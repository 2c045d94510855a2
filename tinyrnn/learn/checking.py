"""What the checks of an exercise are written with: `agree`, which knows mistakes by what they lead to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import tinyrnn as tr

Array = npt.NDArray[Any]


class Mistake(Exception):
    """What is wrong with an answer, in words for the one who wrote it."""


def agree(what: str, given: Any, expected: Any, mistakes: Mapping[str, Any] | None = None) -> None:
    """See that an answer gave what was expected; if not, say which mistake it looks like.

    Args:
        what: a name for what was given, as in "∂L/∂W_h".
        given: what the answer returned, which may be anything.
        expected: a tensor, an array or a number, exact to 1e-6.
        mistakes: words, and what an answer gives that has made this mistake. The first that fits is told.

    Raises: Mistake, with the fitting words, or else where the two differ.

    >>> agree("y", 2.0, 4.0, {"the square is missing": 2.0})
    Traceback (most recent call last):
    ...
    tinyrnn.learn.checking.Mistake: y: the square is missing
    """
    found, wanted = array_of(what, given), np.asarray(expected)
    if _same(found, wanted):
        return
    for words, value in (mistakes or {}).items():
        if _same(found, np.asarray(value)):
            raise Mistake(f"{what}: {words}")
    if found.shape != wanted.shape:
        raise Mistake(f"{what} has shape {found.shape}; expected {wanted.shape}")
    wrong = ~np.isclose(found, wanted, 1e-6, 1e-6)
    place = tuple(np.argwhere(wrong)[0].tolist())
    where = f" at {list(place)}" if place else ""
    count = f"; {wrong.sum()} of {wrong.size} elements are wrong" if wrong.size > 1 else ""
    raise Mistake(f"{what}{where} is {found[place]:.6g}; expected {wanted[place]:.6g}{count}")


def array_of(what: str, given: Any) -> Array:
    """Return what an answer gave as an array of numbers.

    Raises: Mistake if it is none.
    """
    if given is None:
        raise Mistake(f"{what} is None: does your function end with `return`?")
    try:
        array = np.asarray(given.numpy() if isinstance(given, tr.Tensor) else given)
    except ValueError:  # rows of unequal lengths
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise Mistake(f"{what} is {type(given).__name__}; expected numbers: an array or a tensor")
    return array


def parts_of(what: str, given: Any, *names: str) -> tuple[Any, ...]:
    """Return the parts of what an answer gave, one for each name.

    Raises: Mistake if there are not as many.
    """
    if not isinstance(given, tuple | list) or len(given) != len(names):
        told = f"a tuple of {len(given)}" if isinstance(given, tuple | list) else type(given).__name__
        raise Mistake(f"{what} returns {told}; expected a tuple of {len(names)}: {', '.join(names)}")
    return tuple(given)


def check_derivatives(f: Callable[..., Any], *inputs: tr.Tensor) -> None:
    """Check the first and the second derivative of f against numbers, by `tr.gradcheck`.

    Raises: GradientError where one is wrong, Mistake where one cannot be taken.
    """
    if not f(*inputs).requires_grad:
        raise Mistake(
            "the result has no history, so nothing can flow back: compute with tr.tanh, tr.where, @ and + on tensors, "
            "not with NumPy, and do not detach"
        )
    try:
        tr.gradcheck(f, inputs)
    except tr.errors.GradientError as error:
        if "right by itself" not in str(error):
            raise
        cut = "so a part of the history is cut off: by a detach(), or by taking numbers out of a tensor"
        raise Mistake(f"{error}, {cut}") from error
    except TypeError as error:
        raise Mistake(
            "the derivative of the derivative stops. It is taken of tensors, and not of arrays: use what `ops` and "
            "`tr` have, and operators, not NumPy's functions; and let `saves` name all that is read"
        ) from error


def _same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and np.allclose(a, b, 1e-6, 1e-6, equal_nan=True)
