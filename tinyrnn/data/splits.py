"""A data set in three parts, which share nothing that could be remembered from one to the next."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from tinyrnn.errors import DataError

Part = TypeVar("Part")
Item = TypeVar("Item")


class Split(NamedTuple, Generic[Part]):
    """A data set in three parts: to learn from, to choose by, and to report on at the very end.

        train, validation, test = data.load("names")
        for name, nationality in train:
            ...

    >>> from tinyrnn import data
    >>> data.Split(train=["a", "b", "c"], validation=["d"], test=["e"])
    Split(train: 3, validation: 1, test: 1)
    """

    train: Part
    """What gradients come from."""
    validation: Part
    """What decides when to stop and which settings to take."""
    test: Part
    """What is looked at once."""

    def __repr__(self) -> str:
        sizes = (f"{name}: {len(part):,}" for name, part in zip(self._fields, self, strict=True))  # type: ignore[arg-type]
        return f"Split({', '.join(sizes)})"


def split_by_key(
    items: Iterable[Item],
    key: Callable[[Item], object],
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Split[list[Item]]:
    """Split items so that those with the same key (a word, a voice, a speaker) are in the same part.

    The distinct keys are put in the order of the SHA-256 of seed and key, and that order is cut. So the parts do not
    depend on the order of the items, and are the same on every machine. Within a part the items keep their order.

    Args:
        items: what to split.
        key: gives the key of an item; keys are compared as text, `str(key(item))`.
        fractions: how many of the keys go to train, validation and test; they add up to 1, and one may be 0.
        seed: another seed gives other parts.

    Raises:
        DataError: fractions that are not three, negative or do not add up to 1; too few keys, so that a part would be
            empty.

    >>> from tinyrnn import data
    >>> names = [("Anna", "Polish"), ("Anna", "German"), ("Jan", "Polish")]
    >>> parts = data.split_by_key(names, lambda item: item[0], fractions=(0.5, 0.5, 0))
    >>> parts
    Split(train: 2, validation: 1, test: 0)
    >>> parts.train
    [('Anna', 'Polish'), ('Anna', 'German')]
    """
    if len(fractions) != 3 or min(fractions) < 0 or not abs(sum(fractions) - 1) <= 1e-9:
        raise DataError(
            f"split_by_key: the fractions are {tuple(fractions)}; give three of 0 or more, for train, validation and "
            "test, that add up to 1"
        )
    items = list(items)
    keys = [str(key(item)) for item in items]
    order = sorted(set(keys), key=lambda key: hashlib.sha256(f"{seed} {key}".encode("utf-8", "surrogatepass")).digest())
    ends = [round(len(order) * sum(fractions[:count])) for count in range(4)]
    for fraction, start, end in zip(fractions, ends, ends[1:], strict=False):
        if fraction > 0 and start == end:
            raise DataError(
                f"split_by_key: {len(order)} different keys among {len(items)} items are too few to split by "
                f"{tuple(fractions)}: a part would be empty; give more, or a fraction of 0"
            )
    part_of = {key: part for part in range(3) for key in order[ends[part] : ends[part + 1]]}
    parts: tuple[list[Item], ...] = ([], [], [])
    for item, its_key in zip(items, keys, strict=True):
        parts[part_of[its_key]].append(item)
    return Split(*parts)
