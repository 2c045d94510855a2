"""Sequences of unequal length: padded into one array, with lengths and masks, and batched with others like them.

    pad([[5, 3], [7, 1, 4]])    ->  x = 5 7   lengths = 2 3    mask(lengths)  ->  True  True
                                        3 1                                       True  True
                                        0 4                                       False True

    out, state = lstm(embedding(x), lengths=lengths)
    loss = tr.cross_entropy(linear(out), y, mask=mask(lengths))

The arrays are NumPy's: an Embedding, `lengths=`, targets and `mask=` take them as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyrnn.backends import Generator
from tinyrnn.errors import DataError

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


def pad(sequences: Sequence[npt.ArrayLike], value: float = 0) -> tuple[Array, Ints]:
    """Put sequences side by side, time first, and `value` where one has ended.

    Args:
        sequences: B arrays or lists, each (Tᵢ, …), equal but for their lengths, which may be 0.
        value: what the padding holds; an int, if the sequences hold integers.

    Returns:
        x (T, B, …), where T is the longest length, and the lengths (B,), int64. Arrays keep their common dtype;
        Python's ints become int64 and its floats float32.

    Raises:
        DataError: no sequences, one that is not an array of numbers with a time axis, shapes that differ beyond it, or
            integers that are to be padded with something else.

    >>> from tinyrnn import data
    >>> x, lengths = data.pad([[5, 3], [7, 1, 4]])
    >>> x
    array([[5, 7],
           [3, 1],
           [0, 4]])
    >>> lengths
    array([2, 3])
    """
    if len(sequences) == 0:
        raise DataError("pad: there are no sequences; give at least one")
    arrays = [_sequence(i, sequence) for i, sequence in enumerate(sequences)]
    lengths = np.array([len(array) for array in arrays], np.int64)
    filled = [array for array in arrays if len(array)] or arrays  # [] does not say what it would hold
    trailing = filled[0].shape[1:]
    for array in filled:
        if array.shape[1:] != trailing:
            raise DataError(
                f"pad: the sequences are {filled[0].shape} and {array.shape}; they may differ in length alone, their "
                "first axis"
            )
    dtype = np.result_type(*filled)
    if dtype == np.float64 and not any(hasattr(sequence, "dtype") for sequence in sequences):
        dtype = np.dtype(np.float32)  # as everywhere, Python's floats are
    if dtype.kind != "f" and not isinstance(value, int | np.integer):
        raise DataError(f"pad: the value is {value!r} and the sequences are {dtype}; give an int, or floats to pad")
    if not isinstance(value, int | float | np.number):
        raise DataError(f"pad: the value is {value!r}; give a number")
    try:
        x = np.full((lengths.max(), len(arrays), *trailing), value, dtype)
    except OverflowError as error:
        raise DataError(f"pad: the value is {value} and the sequences are {dtype}; give one that fits") from error
    for i, array in enumerate(arrays):
        if len(array):
            x[: len(array), i] = array
    return x, lengths


def _sequence(i: int, sequence: npt.ArrayLike) -> Array:
    """Return sequence i as an array with a time axis."""
    try:
        array = np.asarray(sequence)
    except ValueError as error:
        raise DataError(f"pad: sequence {i} is not a regular block of numbers ({error}); pad it by itself") from error
    if array.ndim == 0 or array.dtype.kind not in "biuf":
        raise DataError(
            f"pad: sequence {i} has shape {array.shape} and dtype {array.dtype}; give numbers, with time as first axis"
        )
    return array


def mask(lengths: npt.ArrayLike, T: int | None = None) -> npt.NDArray[np.bool_]:
    """Return where sequences of these lengths have not ended: bool (T, B), True for t < length.

    Args:
        lengths: (B,) integers of 0 or more.
        T: the number of steps; the longest length, if left out.

    Raises:
        DataError: lengths that are not such integers, or exceed T; a T that is no integer.

    >>> from tinyrnn import data
    >>> data.mask([2, 3])
    array([[ True,  True],
           [ True,  True],
           [False,  True]])
    """
    ends = _lengths("mask", lengths)
    longest = int(ends.max())
    if T is not None and not isinstance(T, int | np.integer):
        raise DataError(f"mask: T is {T!r}; give a whole number of steps")
    if T is not None and longest > T:
        raise DataError(f"mask: lengths are up to {longest} and T is {T}; give T of at least {longest}")
    return np.arange(longest if T is None else T)[:, None] < ends


def buckets(lengths: npt.ArrayLike, batch: int, generator: Generator | None = None) -> list[Ints]:
    """Group sequences of similar length into batches, in which little is padding.

    The sequences are sorted by length and cut into runs: every one is in exactly one batch, and the last run, of the
    longest, may be a smaller one.

    Args:
        lengths: (B,) integers of 0 or more.
        batch: the number of sequences in a batch.
        generator: shuffles the batches, and sequences of the same length among them. None: the same batches every
            time, the shortest sequences first.

    Returns:
        For each batch the positions of its sequences: int64, (batch,).

    Raises:
        DataError: lengths that are not such integers, or a batch below 1.

    >>> from tinyrnn import data
    >>> data.buckets([5, 1, 6, 2], batch=2)
    [array([1, 3]), array([0, 2])]
    """
    if batch < 1:
        raise DataError(f"buckets: batch is {batch}; it must be at least 1")
    ends = _lengths("buckets", lengths)
    order = np.arange(len(ends)) if generator is None else generator.permutation(len(ends))
    order = order[np.argsort(ends[order], kind="stable")]
    cut = [order[start : start + batch] for start in range(0, len(order), batch)]
    return cut if generator is None else [cut[k] for k in generator.permutation(len(cut))]


def batches(count: int, batch: int, generator: Generator | None = None) -> list[Ints]:
    """Cut the positions 0 … count - 1 into batches; the last one may be smaller.

        for chosen in batches(len(train), 32, tr.Generator(seed)):
            x, y = images[chosen], classes[chosen]

    Args:
        count: the number of examples.
        batch: the number of examples in a batch.
        generator: shuffles the examples. None: in order.

    Returns:
        For each batch the positions of its examples: int64, (batch,).

    Raises:
        DataError: a count or a batch below 1.

    >>> from tinyrnn import data
    >>> data.batches(5, batch=2)
    [array([0, 1]), array([2, 3]), array([4])]
    """
    if count < 1 or batch < 1:
        raise DataError(f"batches: count is {count} and batch is {batch}; both must be at least 1")
    order = np.arange(count) if generator is None else generator.permutation(count)
    return [order[start : start + batch] for start in range(0, count, batch)]


def _lengths(name: str, lengths: npt.ArrayLike) -> Array:
    """Return lengths as an array, having seen that they are whole numbers of 0 or more."""
    array = np.asarray(lengths)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise DataError(
            f"{name}: the lengths have shape {array.shape} and dtype {array.dtype}; give whole numbers in one "
            "dimension, one for each sequence"
        )
    if array.min() < 0:
        raise DataError(f"{name}: the length of sequence {int(array.argmin())} is {array.min()}; give 0 or more")
    return array
