"""Contiguous streams of text for truncated backpropagation through time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tinyrnn.errors import DataError, IndexRangeError

Ids = npt.NDArray[np.int64]


class Streams:
    """A text cut into `batch` contiguous streams, read side by side in windows of `time` characters.

    With batch 2 and time 3, the 14 characters ``abcdefghijklmn`` make two windows:

        stream 0   a b c | d e f        window 0   x[:, 0] = a b c   y[:, 0] = b c d
        stream 1   g h i | j k l                   x[:, 1] = g h i   y[:, 1] = h i j

    The target y is x moved on by one character. In each stream a window goes on where the one before it
    ended, so the recurrent state can be carried from window to window (detached: gradients stop there). An
    epoch is one pass over all windows; reset the state where the next one begins. Every window is full, and
    fewer than batch·time characters are left over at the end of the text.

        for x, y in Streams(ids, batch=50, time=50):        # x and y: int64, (T, B)
            ...

    Args:
        ids: the text as whole numbers in one dimension.
        batch: the number of streams, B.
        time: the number of characters of each stream in a window, T.

    Raises:
        DataError: ids of another type or rank, sizes below 1, or a text too short for one window.
        IndexRangeError: streams[window] of a window that there is not.

    >>> from tinyrnn import data
    >>> streams = data.Streams(range(14), batch=2, time=3)
    >>> x, y = streams[0]
    >>> x  # (T, B): each column is a stream
    array([[0, 6],
           [1, 7],
           [2, 8]])
    >>> y[-1]
    array([3, 9])
    """

    def __init__(self, ids: npt.ArrayLike, batch: int, time: int) -> None:
        array = np.asarray(ids)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise DataError(
                f"Streams: the ids have shape {array.shape} and dtype {array.dtype}; "
                f"give whole numbers in one dimension"
            )
        if batch < 1 or time < 1:
            raise DataError(f"Streams: batch is {batch} and time is {time}; both must be at least 1")
        needed = batch * time + 1  # one more, for the last target
        if len(array) < needed:
            raise DataError(
                f"Streams: a text of {len(array)} characters is too short for batch {batch} and time {time}, "
                f"which need batch·time + 1 = {needed}; use a longer text, or a smaller batch or time"
            )
        self.ids: Ids = array.astype(np.int64, copy=False)
        self.batch = batch
        self.time = time

    def __len__(self) -> int:
        """Return the number of windows in an epoch."""
        return (len(self.ids) - 1) // (self.batch * self.time)

    def __getitem__(self, window: int) -> tuple[Ids, Ids]:
        """Return x and y of one window, counted from 0, each an int64 array (T, B)."""
        if not 0 <= window < len(self):
            raise IndexRangeError(f"Streams: window {window} is outside 0 ... {len(self) - 1}")
        stream_starts = np.arange(self.batch) * len(self) * self.time
        steps = np.arange(self.time) + window * self.time
        positions = steps[:, None] + stream_starts  # (T, B)
        return self.ids[positions], self.ids[positions + 1]

    def __iter__(self) -> Iterator[tuple[Ids, Ids]]:
        return (self[window] for window in range(len(self)))

    def __repr__(self) -> str:
        return f"Streams(batch={self.batch}, time={self.time}, windows={len(self)})"


def split(ids: Ids, held_out: float = 0.05) -> tuple[Ids, Ids]:
    """Split a text into the part to train on and the last part, which is held out for validation.

    Args:
        ids: the text as whole numbers in one dimension.
        held_out: the fraction to hold out, between 0 and 1.

    Returns:
        The two parts, as views of ids.

    Raises:
        DataError: a fraction that leaves one of the parts empty.

    >>> import numpy as np
    >>> from tinyrnn import data
    >>> data.split(np.arange(10), held_out=0.2)
    (array([0, 1, 2, 3, 4, 5, 6, 7]), array([8, 9]))
    """
    size = round(len(ids) * held_out) if 0 < held_out < 1 else 0
    if not 0 < size < len(ids):
        raise DataError(
            f"split: held_out={held_out} of {len(ids)} characters leaves one of the parts empty; "
            f"give a fraction between 0 and 1, and a text that is long enough for it"
        )
    return ids[:-size], ids[-size:]
