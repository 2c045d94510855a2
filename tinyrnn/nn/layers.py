"""Layers without a memory: linear, embedding, dropout, layer normalisation."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, Self

from tinyrnn import backends
from tinyrnn import functions as F
from tinyrnn.errors import DataError
from tinyrnn.nn import init
from tinyrnn.nn.module import Module, Parameter, check_input, check_sizes
from tinyrnn.tensor import Tensor, tensor


class Linear(Module):
    """y = x W + b.

    Args: input_size I; output_size O; bias, whether there is a b; dtype.
    Parameters: W (I, O), Xavier uniform; b (O,), zero.
    Shapes: x (…, I) -> y (…, O).
    Raises: ShapeError if the last axis of x is not I.

    >>> import tinyrnn as tr
    >>> layer = tr.nn.Linear(input_size=2, output_size=1)
    >>> _ = layer.load_state_dict({"W": [[1.0], [2.0]], "b": [0.5]})
    >>> layer(tr.tensor([3.0, 4.0])).tolist()  # 3 · 1 + 4 · 2 + 0.5
    [11.5]
    """

    def __init__(self, input_size: int, output_size: int, bias: bool = True, dtype: str = "float32") -> None:
        self.input_size, self.output_size = check_sizes(self, input_size=input_size, output_size=output_size)
        self.W = Parameter(init.xavier_uniform(input_size, output_size, dtype=dtype), ("I", "O"))
        self.b = Parameter(F.zeros(output_size, dtype=dtype), ("O",)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Return x W + b."""
        check_input(self, x, ("…", "I"), self.input_size, "input_size")
        return F.linear(x, self.W, self.b)

    def describe(self) -> str:
        """State the sizes."""
        return f"I={self.input_size} -> O={self.output_size}"


class Embedding(Module):
    """y = W[index]: a learned vector for each of V symbols, the same as one_hot(index, V) W.

    Args: vocabulary_size V; embedding_size E; dtype.
    Parameters: W (V, E), from N(0, 1).
    Shapes: index (…) of integers 0 … V-1 -> y (…, E).
    Raises: IndexRangeError for a number outside; DTypeError if they are not integers.

    A row learns only from the places where its symbol occurs. That of a rare word stays close to where it started, and
    from N(0, 1) that is a random vector about √E long, as long as one that means something: to the network it is noise,
    as loud as any other word. Make one symbol of the rare ones, `Vocabulary.of(words, special=[UNKNOWN], at_least=2)`,
    or let all rows start small: `embedding.W.assign(0.1 * embedding.W.detach())`.

    >>> import tinyrnn as tr
    >>> embedding = tr.nn.Embedding(vocabulary_size=3, embedding_size=2)
    >>> embedding([2, 0, 2]).sum().backward()
    >>> embedding.W.grad.tolist()  # symbol 1 has not occurred, and symbol 2 twice
    [[1.0, 1.0], [0.0, 0.0], [2.0, 2.0]]
    """

    def __init__(self, vocabulary_size: int, embedding_size: int, dtype: str = "float32") -> None:
        sizes = check_sizes(self, vocabulary_size=vocabulary_size, embedding_size=embedding_size)
        self.vocabulary_size, self.embedding_size = sizes
        self.W = Parameter(F.randn(vocabulary_size, embedding_size, dtype=dtype), ("V", "E"))

    @classmethod
    def from_text(
        cls, path: str | os.PathLike[str], vocabulary: Any, dtype: str = "float32"
    ) -> tuple[Self, tuple[str, ...]]:
        """Make an embedding of the word vectors in a text file, as GloVe's and word2vec's are.

        Each line is a word and its numbers, with spaces between; a first line of two whole numbers, how many words and
        how many numbers each, is passed over. A word that occurs twice has its first vector.

        Args: path; vocabulary, the words in the order of their class numbers, or what has them as its `symbols`.
        Returns: the layer, and the words of the vocabulary that the file does not have. Those start as zeros, and learn
            like any other: len(missing) / len(embedding.W) is their share.
        Raises: DataError naming the file and the line for what is no such file, and for an empty or ambiguous
            vocabulary.

        >>> import pathlib, tempfile
        >>> import tinyrnn as tr
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "vectors.txt")
        ...     _ = path.write_text("the 0.1 0.2\\ncat 0.3 0.4\\n")
        ...     embedding, missing = tr.nn.Embedding.from_text(path, ["cat", "sat"])
        >>> embedding, missing
        (Embedding(V=2 -> E=2): 4 parameters
          W (V=2, E=2), ('sat',))
        >>> embedding([0, 1])
        tensor([[0.3, 0.4],
                [0. , 0. ]], shape=(2, 2), dtype=float32, op=getitem)
        """
        words = tuple(getattr(vocabulary, "symbols", vocabulary))
        rows = {word: k for k, word in enumerate(words)}
        if not words or len(rows) < len(words):
            raise DataError(
                f"{cls.__name__}.from_text: the vocabulary has {len(words)} words, {len(rows)} of them different; "
                "expected each once, and at least one"
            )
        vectors, found = _read_vectors(path, rows)
        layer = cls(len(words), vectors.shape[1], dtype)
        layer.W.assign(tensor(vectors, dtype=dtype))
        return layer, tuple(word for word in words if word not in found)

    def forward(self, index: Any) -> Tensor:
        """Return the rows of W that `index` names."""
        index = index if isinstance(index, Tensor) else tensor(index)
        F.check_range(type(self).__name__, index, self.vocabulary_size)
        return self.W[index]

    def describe(self) -> str:
        """State the sizes."""
        return f"V={self.vocabulary_size} -> E={self.embedding_size}"


def _read_vectors(path: str | os.PathLike[str], rows: Mapping[str, int]) -> tuple[Any, set[str]]:
    """Return an array (V, E) on the host, each word's vector in its row, zeros elsewhere; and the words found."""
    vectors, found = None, set()
    for where, word, numbers in _vector_lines(path):
        if vectors is None:
            vectors = backends.get("numpy").zeros((len(rows), len(numbers)))
        if word in rows and word not in found:
            vectors[rows[word]] = _finite(where, numbers)
            found.add(word)
    if not found:
        some = ", ".join(map(repr, itertools.islice(rows, 3)))
        raise DataError(f"{os.fspath(path)}: none of the {len(rows)} words is in it; expected words such as {some}")
    return vectors, found


def _vector_lines(path: str | os.PathLike[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield where a line of word vectors stands, its word, and its numbers, as they are written."""
    size = 0
    try:
        with open(path, "rb") as file:
            for n, line in enumerate(file, 1):
                where = f"{os.fspath(path)}, line {n}"
                fields = _text(where, line).rstrip(" \r\n").split(" ")
                if n == 1 and len(fields) == 2 and all(field.isdecimal() for field in fields):
                    size = int(fields[1])  # word2vec's first line: how many words, of how many numbers
                elif fields != [""]:
                    size = size or len(fields) - 1
                    end = max(len(fields) - size, 1)  # of the word; a few have spaces in them
                    if size == 0 or len(fields) - end != size or any(map(_is_number, fields[1:end])):
                        expected = f"{size}, as before" if size else "a word and then numbers"
                        given = f"{len(fields) - 1} numbers behind {fields[0]!r}"
                        raise DataError(f"{where}: {given}; expected {expected}, with spaces between")
                    yield where, " ".join(fields[:end]), fields[end:]
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot be read: {error.strerror}; give a text file's path") from error


def _text(where: str, line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8") from error


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _finite(where: str, fields: list[str]) -> list[float]:
    for field in fields:
        if not _is_number(field) or not math.isfinite(float(field)):
            raise DataError(f"{where}: {field!r} stands among the numbers; expected finite ones, with spaces between")
    return [float(field) for field in fields]


class Dropout(Module):
    """Set elements to 0 by chance while training, so that none can rely on another one; in eval mode all stay.

        y = x⊙m / (1 − p),   where mᵢ is 0 with probability p and 1 otherwise

    So the mean of y is x. In eval mode y = x.

    Args: p, the probability.
    Shapes: x (…) -> y (…).
    Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".
    Raises: ValueError for p outside [0, 1).

    >>> import tinyrnn as tr
    >>> dropout = tr.nn.Dropout(p=0.5)
    >>> sorted(set(dropout(tr.ones(1000)).tolist())), dropout.eval()(tr.ones(3)).tolist()
    ([0.0, 2.0], [1.0, 1.0, 1.0])
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p is {p}; expected a probability from 0 up to, not including, 1")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return x with elements dropped, if the module is in training mode."""
        return F.dropout(x, self.p, self.training)

    def describe(self) -> str:
        """State the probability."""
        return f"p={self.p}"


class LayerNorm(Module):
    """y = (x − mean) / √(var + eps) · weight + bias, over the last axis.

    Args: size H; eps; bias, whether there is one; dtype.
    Parameters: weight (H,), one; bias (H,), zero.
    Shapes: x (…, H) -> y (…, H).
    Source: Ba, Kiros & Hinton 2016, "Layer Normalization".
    Raises: ShapeError if the last axis of x is not H.

    >>> import tinyrnn as tr
    >>> y = tr.nn.LayerNorm(size=2)(tr.tensor([[1.0, 3.0], [30.0, 10.0]]))
    >>> y.numpy().round(3).tolist()
    [[-1.0, 1.0], [1.0, -1.0]]
    """

    def __init__(self, size: int, eps: float = 1e-5, bias: bool = True, dtype: str = "float32") -> None:
        (self.size,) = check_sizes(self, size=size)
        self.eps = eps
        self.weight = Parameter(F.ones(size, dtype=dtype), ("H",))
        self.bias = Parameter(F.zeros(size, dtype=dtype), ("H",)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalised over its last axis."""
        check_input(self, x, ("…", "H"), self.size, "size")
        return F.layer_norm(x, self.weight, self.bias, self.eps)

    def describe(self) -> str:
        """State the size."""
        return f"H={self.size}"
