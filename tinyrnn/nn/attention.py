"""Attention: look at a whole sequence, and take from it what fits the query.

`nn.Attention` is here, and what `nn.MultiHeadAttention` has in common with it: the scaled dot product, the weighted
mean, and what may be given.

Letters: Tq and Tk, the time of queries and of keys; B batch; Q query, K key, V value, H hidden.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tinyrnn import backends
from tinyrnn.autograd import in_module
from tinyrnn.errors import DTypeError, ShapeError
from tinyrnn.functions import expand_dims, softmax, tanh, where
from tinyrnn.nn import init
from tinyrnn.nn.module import Module, Parameter, check_input, check_sizes
from tinyrnn.nn.recurrent import running
from tinyrnn.tensor import Tensor, tensor


class Memory(NamedTuple):
    """What there is to look at, ready for any number of queries; the `memory` of an attention makes one.

    >>> import tinyrnn as tr
    >>> attention = tr.nn.Attention(query_size=4, key_size=6, hidden_size=5)
    >>> memory = attention.memory(tr.randn(7, 2, 6), lengths=[7, 3])
    >>> memory.keys.shape, memory.values.shape, memory.mask.shape
    ((7, 2, 5), (7, 2, 6), (7, 2))
    >>> context, weights = attention(tr.randn(2, 4), memory)
    """

    keys: Tensor
    """(Tk, B, …), as this attention compares them: k W_k, or, in Attention's scaled dot product, as given."""
    values: Tensor
    """(Tk, B, V): for MultiHeadAttention v W_v, for Attention as given."""
    mask: Tensor | None
    """Where a query may look, (Tk, B) or (Tq, Tk, B), made of mask and lengths; None: everywhere."""


def scaled_dot_product(query: Tensor, keys: Tensor) -> Tensor:
    """score(q, k) = qᵀ k / √K, of each query with each key: (Tq, …, K) and (Tk, …, K) to (Tq, Tk, …)."""
    query = query / math.sqrt(query.shape[-1])  # here it is T · K numbers, of the products Tq · Tk
    products = _time_inside(query) @ _time_inside(keys).swapaxes(-2, -1)  # (…, Tq, K) @ (…, K, Tk)
    *between, q, k = range(products.ndim)
    return products.transpose(q, k, *between)


def weighted_mean(scores: Tensor, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """weight = softmax of the scores over the keys that the mask allows;   context = Σ weight · value.

    Args: scores (Tq, Tk, …); values (Tk, …, V); mask, bool, that broadcasts to the scores, True where a query may look.
    Returns: context (Tq, …, V) and weights (Tq, Tk, …), both 0 where a query may look nowhere.
    """
    if mask is not None:
        scores = where(mask, scores, -math.inf)
    weights = softmax(scores, axis=1)
    context = weights.transpose(*range(2, weights.ndim), 0, 1) @ _time_inside(values)  # (…, Tq, Tk) @ (…, Tk, V)
    *between, q, V = range(context.ndim)
    return context.transpose(q, *between, V), weights


def _time_inside(x: Tensor) -> Tensor:
    """Return (T, …, K) as (…, T, K)."""
    return x.transpose(*range(1, x.ndim - 1), 0, x.ndim - 1)


class Attention(Module):
    """A weighted mean of values, in which each value counts as much as its key fits the query.

        weight = softmax over the keys of score(query, key);   context = Σ weight · value

        additive:  score(q, k) = vᵀ tanh(q W_q + k W_k)
        dot:       score(q, k) = qᵀ k / √K

    Args:
        query_size Q; key_size K, the same if left out; dtype.
        hidden_size H: the width of q W_q and k W_k in additive attention; K if left out.
        score: "additive" (Bahdanau), or "dot", the scaled dot product (Vaswani), which has no parameters and needs
            queries as wide as the keys: an nn.Linear makes them so.

    Parameters, additive only: W_q (Q, H), W_k (K, H), v (H,), Xavier uniform.

    Shapes:
        query (Tq, B, Q), or (B, Q) for one step.
        keys (Tk, B, K); values (Tk, B, V), the keys themselves if left out.
        mask: bool, (Tk, B) or (Tq, Tk, B), True where a query may look.
        lengths: (B,) integers from 0 to Tk: a query may look at the keys before its sequence's length.

    Returns: context (Tq, B, V) and weights (Tq, Tk, B), or (B, V) and (Tk, B) for one step. The weights sum to 1 over
        the keys. Where a query may look nowhere, context and weights are 0, and so is the gradient.

    A decoder asks about the same keys at every step. What does not depend on the query is then computed once:

        memory = attention.memory(encoded, lengths=lengths)
        for t in tr.steps(T):
            context, weights = attention(state.h, memory)
            ...

    Source: Bahdanau, Cho & Bengio 2015, "Neural Machine Translation by Jointly Learning to Align and Translate";
        Vaswani et al. 2017, "Attention Is All You Need".
    Raises: ShapeError, DTypeError or IndexRangeError naming what was given and what was expected; ValueError for
        another score, or a hidden_size with "dot".

    >>> import tinyrnn as tr
    >>> attention = tr.nn.Attention(query_size=4, key_size=6)
    >>> context, weights = attention(tr.zeros(2, 4), tr.zeros(5, 2, 6), lengths=[5, 3])
    >>> context.shape, weights.shape
    ((2, 6), (5, 2))
    """

    def __init__(
        self,
        query_size: int,
        key_size: int | None = None,
        hidden_size: int | None = None,
        *,
        score: str = "additive",
        dtype: str = "float32",
    ) -> None:
        key_size = query_size if key_size is None else key_size
        self.query_size, self.key_size = check_sizes(self, query_size=query_size, key_size=key_size)
        self.score = score
        if score == "additive":
            (H,) = check_sizes(self, hidden_size=key_size if hidden_size is None else hidden_size)
            self.W_q = Parameter(init.xavier_uniform(query_size, H, dtype=dtype), ("Q", "H"))
            self.W_k = Parameter(init.xavier_uniform(key_size, H, dtype=dtype), ("K", "H"))
            self.v = Parameter(init.xavier_uniform(H, 1, dtype=dtype).squeeze(1), ("H",))
        elif score != "dot":
            raise ValueError(f"Attention: score is {score!r}; expected 'additive' or 'dot'")
        elif hidden_size is not None:
            raise ValueError(f"Attention: hidden_size={hidden_size} is for score='additive'; 'dot' has no parameters")
        elif key_size != query_size:
            raise ShapeError(
                f"Attention: query_size is {query_size} and key_size {key_size}; 'dot' needs them equal: send the "
                f"queries through an nn.Linear({query_size}, {key_size}), or use score='additive'"
            )

    def memory(self, keys: Tensor, values: Tensor | None = None, mask: Any = None, lengths: Any = None) -> Memory:
        """Prepare keys, values and mask for any number of queries, which then share one product k W_k."""
        with in_module(self):
            return self._memory(keys, values, mask, lengths)

    def forward(
        self, query: Tensor, keys: Tensor | Memory, values: Tensor | None = None, mask: Any = None, lengths: Any = None
    ) -> tuple[Tensor, Tensor]:
        """Return context and weights, for keys or for a memory of them."""
        memory = one_memory(self, keys, values, mask, lengths)
        check_query(self, query, memory, self.query_size, "query_size")
        if query.ndim == 3:
            return self._attend(query, memory)
        context, weights = self._attend(expand_dims(query, 0), memory)  # one step is a sequence of one
        return context.squeeze(0), weights.squeeze(0)

    def _attend(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        score = self._additive if self.score == "additive" else scaled_dot_product
        return weighted_mean(score(query, memory.keys), memory.values, memory.mask)

    def _additive(self, query: Tensor, k_W_k: Tensor) -> Tensor:
        q_W_q = expand_dims(query @ self.W_q, 1)  # (Tq, 1, B, H), beside (Tk, B, H)
        return tanh(q_W_q + k_W_k) @ self.v

    def _memory(self, keys: Tensor, values: Tensor | None, mask: Any, lengths: Any) -> Memory:
        keys, values, mask = check_keys(self, keys, values, mask, lengths, self.key_size, "key_size")
        return Memory(keys @ self.W_k if self.score == "additive" else keys, values, mask)

    def describe(self) -> str:
        """State the kind and the sizes."""
        wide = f" -> H={len(self.v)}" if self.score == "additive" else ""
        return f"{self.score}, Q={self.query_size}, K={self.key_size}{wide}"


# ---------------------------------------------------------------- what is given to an attention of either kind


def one_memory(layer: Any, keys: Any, values: Any, mask: Any, lengths: Any) -> Memory:
    """Return the memory that stands in the place of keys, or make one of keys, values, mask and lengths."""
    if not isinstance(keys, Memory):
        return layer._memory(keys, values, mask, lengths)
    if values is None and mask is None and lengths is None:
        return keys
    name = type(layer).__name__
    raise DTypeError(f"{name}: values, mask or lengths stand beside a memory; give them to memory(...)")


def check_keys(
    layer: Module, keys: Any, values: Any, mask: Any, lengths: Any, size: int, option: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return keys, values and one mask of mask and lengths, having seen that they fit together."""
    name = type(layer).__name__
    check_input(layer, keys, ("Tk", "B", "K"), size, option, "keys")
    Tk, B, _ = keys.shape
    if Tk == 0:
        raise ShapeError(f"{name}: keys are {keys.shape}; expected at least one to look at")
    values = keys if values is None else values
    if not isinstance(values, Tensor) or values.ndim != 3 or values.shape[:2] != (Tk, B):
        given = values.shape if isinstance(values, Tensor) else type(values).__name__
        raise ShapeError(f"{name}: values are {given}; expected a tensor (Tk={Tk}, B={B}, V), one for each key")
    looking = None if mask is None else _checked_mask(name, mask, keys)
    if lengths is not None:
        within = running(name, lengths, keys)
        looking = within if looking is None else looking & within
    return keys, values, looking


def check_query(layer: Module, query: Any, memory: Memory, size: int, option: str) -> None:
    """See that queries (Tq, B, Q), or one for each sequence (B, Q), fit a memory."""
    name = type(layer).__name__
    axes = ("B", "Q") if isinstance(query, Tensor) and query.ndim == 2 else ("Tq", "B", "Q")
    check_input(layer, query, axes, size, option, "query")
    Tk, B = memory.keys.shape[:2]
    if query.shape[-2] != B:
        raise ShapeError(f"{name}: query is {query.shape}, of B={query.shape[-2]}, and the keys have B={B}")
    if memory.mask is not None and memory.mask.ndim == 3 and memory.mask.shape[:-2] != query.shape[:-2]:
        expected = f"(Tk={Tk}, B={B})" + (f" or (Tq={len(query)}, Tk={Tk}, B={B})" if query.ndim == 3 else "")
        raise ShapeError(f"{name}: the mask is {memory.mask.shape} and query {query.shape}; expected {expected}")


def _checked_mask(name: str, mask: Any, keys: Tensor) -> Tensor:
    """Return a mask as a tensor, having seen that it is boolean and that its last axes are (Tk, B)."""
    with backends.use_backend(keys.backend):
        mask = mask if isinstance(mask, Tensor) else tensor(mask)
    Tk, B, _ = keys.shape
    if mask.dtype != "bool":
        raise DTypeError(f"{name}: the mask is {mask.dtype}; expected bool, True where a query may look: mask > 0")
    if mask.ndim not in (2, 3) or mask.shape[-2:] != (Tk, B):
        raise ShapeError(f"{name}: the mask is {mask.shape}; expected (Tk={Tk}, B={B}) or (Tq, Tk={Tk}, B={B})")
    return mask
