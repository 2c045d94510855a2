"""Layers without a memory: linear, embedding, dropout, layer normalisation."""

from __future__ import annotations

from typing import Any

from tinyrnn import functions as F
from tinyrnn.nn import init
from tinyrnn.nn.module import Module, Parameter, check_input, check_sizes
from tinyrnn.tensor import Tensor, tensor


class Linear(Module):
    """y = x W + b.

    Args: input_size I; output_size O; bias, whether there is a b; dtype.
    Parameters: W (I, O), Xavier uniform; b (O,), zero.
    Shapes: x (…, I) -> y (…, O).
    Raises: ShapeError if the last axis of x is not I.
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
    """

    def __init__(self, vocabulary_size: int, embedding_size: int, dtype: str = "float32") -> None:
        sizes = check_sizes(self, vocabulary_size=vocabulary_size, embedding_size=embedding_size)
        self.vocabulary_size, self.embedding_size = sizes
        self.W = Parameter(F.randn(vocabulary_size, embedding_size, dtype=dtype), ("V", "E"))

    def forward(self, index: Any) -> Tensor:
        """Return the rows of W that `index` names."""
        index = index if isinstance(index, Tensor) else tensor(index)
        F.check_range(type(self).__name__, index, self.vocabulary_size)
        return self.W[index]

    def describe(self) -> str:
        """State the sizes."""
        return f"V={self.vocabulary_size} -> E={self.embedding_size}"


class Dropout(Module):
    """Set elements to 0 with probability p while training and scale the rest by 1/(1 − p); x itself in eval mode.

    Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".
    Raises: ValueError for p outside [0, 1).
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
