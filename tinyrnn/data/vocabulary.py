"""A vocabulary of characters: from text to whole numbers and back."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tinyrnn.errors import DataError


class Vocabulary:
    """The characters that a model knows. The id of a character is its place among them.

        vocabulary = Vocabulary.of("hello")     # the symbols e h l o
        vocabulary.encode("hole")               # array([1, 3, 2, 0])
        vocabulary.decode([1, 3, 2, 0])         # 'hole'

    Args:
        symbols: the characters in the order of their ids, each once. A vocabulary is restored from the
            `symbols` of the old one.

    Raises:
        DataError: no symbols, a symbol that is not one character, or one that occurs twice.
    """

    def __init__(self, symbols: Iterable[str]) -> None:
        self.symbols = tuple(symbols)
        _check_symbols(self.symbols)
        codes = _code_points("".join(self.symbols))
        # From code point to id, -1 for unknown ones. The last entry is for all that lie above the table.
        self._ids = np.full(int(codes.max()) + 2, -1, dtype=np.int64)
        self._ids[codes] = np.arange(len(self.symbols))

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """Return the vocabulary of the distinct characters of a text, sorted."""
        return cls(sorted(set(text)))

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """Return the ids of the characters of a text, an int64 array of shape (len(text),).

        Raises:
            DataError: a character that is not in the vocabulary; its position is named.
        """
        ids = self._ids[np.minimum(_code_points(text), len(self._ids) - 1)]
        unknown = ids < 0
        if unknown.any():
            position = int(unknown.argmax())
            character = text[position]
            raise DataError(
                f"encode: the character {character!r} (U+{ord(character):04X}) at position {position} is not "
                f"in the {self!r}; make the vocabulary of a text that has it, or leave it out of this text"
            )
        return ids

    def decode(self, ids: npt.ArrayLike) -> str:
        """Return the text that these ids spell.

        Args:
            ids: whole numbers in one dimension, as an array or a list.

        Raises:
            DataError: ids of another type or rank, or an id outside 0 ... len(self) - 1.
        """
        array = np.asarray(ids)
        if array.shape == (0,):
            return ""
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise DataError(
                f"decode: the ids have shape {array.shape} and dtype {array.dtype}; give whole numbers in one dimension"
            )
        outside = (array < 0) | (array >= len(self))
        if outside.any():
            position = int(outside.argmax())
            raise DataError(
                f"decode: the id {array[position]} at position {position} is outside 0 ... {len(self) - 1}, "
                f"the ids of the {self!r}"
            )
        return "".join(self.symbols[i] for i in array.tolist())

    def __len__(self) -> int:
        return len(self.symbols)

    def __repr__(self) -> str:
        text = "".join(self.symbols)
        shown = text if len(text) <= 40 else f"{text[:20]}…{text[-19:]}"
        return f"Vocabulary of {len(self)} characters {shown!r}"


def _check_symbols(symbols: tuple[str, ...]) -> None:
    """Refuse symbols that cannot make a vocabulary."""
    if not symbols:
        raise DataError("Vocabulary: there are no symbols; give at least one character")
    seen = set()
    for symbol in symbols:
        if len(symbol) != 1:
            raise DataError(f"Vocabulary: the symbol {symbol!r} is not one character; give single characters")
        if symbol in seen:
            raise DataError(f"Vocabulary: the symbol {symbol!r} is given twice; give each once")
        seen.add(symbol)


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    """Return the Unicode code point of each character. UTF-32 is just that."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
