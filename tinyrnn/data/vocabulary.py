"""A vocabulary: from characters, words or labels to whole numbers and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from tinyrnn.errors import DataError

PADDING = "<padding>"
"""What fills the shorter sequences of a batch up: `pad(sequences, vocabulary.id(PADDING))`."""
UNKNOWN = "<unknown>"
"""What stands for every symbol that a vocabulary does not have."""
BEGIN = "<begin>"
"""What stands before a sequence that is to be written: the first thing that a decoder reads."""
END = "<end>"
"""What stands behind a sequence that is to be written: where a decoder stops."""
SPECIAL = (PADDING, UNKNOWN, BEGIN, END)
"""The four special symbols; `Vocabulary.of(symbols, special=SPECIAL)` gives them the ids 0 to 3."""


class Vocabulary:
    """The symbols that a model knows: characters, words, labels. The id of a symbol is its place among them.

        vocabulary = Vocabulary.of("hello")     # the symbols e h l o
        vocabulary.encode("hole")               # array([1, 3, 2, 0])
        vocabulary.decode([1, 3, 2, 0])         # 'hole'

    Words come as lists of them, or as text to be split at spaces. Four special symbols have a meaning where they are
    among the symbols: `UNKNOWN` stands for every symbol that is not, `BEGIN` and `END` enclose a sequence that is to be
    written, and `PADDING` fills batches up.

    Args:
        symbols: the symbols in the order of their ids, each once. A vocabulary is restored from the `symbols` of the
            old one.
        separator: what stands between symbols in a text. None: nothing if all but the special ones are characters,
            otherwise a space.

    Raises:
        DataError: no symbols, one that is no text or empty, or one that occurs twice.

    >>> from tinyrnn import data
    >>> sentences = ["the cat sat", "the dog"]
    >>> words = data.Vocabulary.of(" ".join(sentences).split(), special=data.SPECIAL)
    >>> words.symbols
    ('<padding>', '<unknown>', '<begin>', '<end>', 'cat', 'dog', 'sat', 'the')
    >>> words.encode("the bird sat", end=True)
    array([7, 1, 6, 3])
    >>> words.decode([2, 7, 4, 6, 3, 0, 0])
    'the cat sat'
    """

    def __init__(self, symbols: Iterable[str], separator: str | None = None) -> None:
        self.symbols = tuple(symbols)
        _check_symbols(self.symbols)
        self._id_of = {symbol: i for i, symbol in enumerate(self.symbols)}
        self._unknown = self._id_of.get(UNKNOWN, -1)
        characters = [symbol for symbol in self.symbols if len(symbol) == 1]
        if separator is None:
            words = [symbol for symbol in self.symbols if len(symbol) > 1 and symbol not in SPECIAL]
            separator = " " if words else ""
        self.separator = separator
        # From code point to id, -1 for unknown ones. The last entry is for all that lie above the table.
        codes = _code_points("".join(characters))
        self._id_of_code = np.full(int(codes.max(initial=0)) + 2, self._unknown, dtype=np.int64)
        self._id_of_code[codes] = [self._id_of[character] for character in characters]

    @classmethod
    def of(
        cls, symbols: Iterable[str], special: Sequence[str] = (), at_least: int = 1, separator: str | None = None
    ) -> Vocabulary:
        """Return the vocabulary of the distinct characters of a text, or of the distinct words of a list, sorted.

        Args:
            symbols: a text, or an iterable of symbols.
            special: the special symbols to put before them, from id 0.
            at_least: how often a symbol must occur to be known; those that occur less often need `UNKNOWN`.
            separator: what stands between symbols in a text, see `Vocabulary`.

        Raises:
            DataError: special symbols other than the four; `at_least` without `UNKNOWN`; no symbols.
        """
        for symbol in special:
            if symbol not in SPECIAL:
                raise DataError(f"Vocabulary: {symbol!r} is no special symbol; there are {', '.join(SPECIAL)}")
        if at_least > 1 and UNKNOWN not in special:
            raise DataError(
                f"Vocabulary: with at_least={at_least}, rare symbols are unknown; add UNKNOWN to the special ones"
            )
        counts = Counter(symbols)
        known = sorted(symbol for symbol, count in counts.items() if count >= at_least and symbol not in special)
        return cls((*special, *known), separator)

    def encode(self, symbols: str | Iterable[str], begin: bool = False, end: bool = False) -> npt.NDArray[np.int64]:
        """Return the ids of the symbols of a text, or of a list: an int64 array, one for each.

        Args:
            symbols: a text, which is cut into characters or at `separator`, or an iterable of symbols.
            begin: put `BEGIN` before them.
            end: put `END` after them.

        Raises:
            DataError: a symbol that is not in the vocabulary, which has no `UNKNOWN`; its position is named. `begin` or
                `end` in a vocabulary that does not have them.
        """
        if isinstance(symbols, str) and self.separator == "":
            ids = self._id_of_code[np.minimum(_code_points(symbols), len(self._id_of_code) - 1)]
        else:
            if isinstance(symbols, str):
                symbols = symbols.split(None if self.separator == " " else self.separator) if symbols else []
            symbols = list(symbols)
            ids = np.array([self._id_of.get(symbol, self._unknown) for symbol in symbols], np.int64)
        if ids.size and ids.min() < 0:
            raise self._unknown_symbol(symbols, int(ids.argmin()))
        before, after = [self.id(BEGIN)] if begin else [], [self.id(END)] if end else []
        return np.concatenate([np.array(before, np.int64), ids, np.array(after, np.int64)]) if begin or end else ids

    def id(self, symbol: str) -> int:
        """Return the id of one symbol.

        Raises:
            DataError: a symbol that is not in the vocabulary.
        """
        if symbol not in self._id_of:
            advice = f"; make the vocabulary with special=[..., {symbol!r}]" if symbol in SPECIAL else ""
            raise DataError(f"id: the symbol {symbol!r} is not in the {self!r}{advice}")
        return self._id_of[symbol]

    def decode(self, ids: npt.ArrayLike) -> str:
        """Return the text that these ids spell: up to the first `END`, without `BEGIN` and `PADDING`.

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
        symbols = [self.symbols[i] for i in array.tolist()]
        if END in symbols:
            symbols = symbols[: symbols.index(END)]
        return self.separator.join(symbol for symbol in symbols if symbol not in (BEGIN, PADDING))

    def __len__(self) -> int:
        return len(self.symbols)

    def __repr__(self) -> str:
        text = self.separator.join(self.symbols)
        shown = text if len(text) <= 40 else f"{text[:20]}…{text[-19:]}"
        return f"Vocabulary of {len(self)} {'symbols' if self.separator else 'characters'} {shown!r}"

    def _unknown_symbol(self, symbols: Iterable[str], position: int) -> DataError:
        """Return the error of a symbol that is not in the vocabulary."""
        symbol = list(symbols)[position]
        shown = f"character {symbol!r} (U+{ord(symbol):04X})" if len(symbol) == 1 else f"symbol {symbol!r}"
        return DataError(
            f"encode: the {shown} at position {position} is not in the {self!r}; make the vocabulary of a text that "
            "has it or with the special symbol UNKNOWN, or leave it out of this text"
        )


def _check_symbols(symbols: tuple[str, ...]) -> None:
    """Refuse symbols that cannot make a vocabulary."""
    if not symbols:
        raise DataError("Vocabulary: there are no symbols; give at least one")
    seen = set()
    for symbol in symbols:
        if not isinstance(symbol, str) or not symbol:
            raise DataError(f"Vocabulary: the symbol {symbol!r} is not a text of one character or more; give such")
        if symbol in seen:
            raise DataError(f"Vocabulary: the symbol {symbol!r} is given twice; give each once")
        seen.add(symbol)


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    """Return the Unicode code point of each character. UTF-32 is just that."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
