"""The transformer: each step looks at others directly, and all of them at once, in a few matrix products.

`nn.Transformer` with a `context` is used as an `nn.LSTM` is: out, state = layer(x, state). Its state is what the steps
before have left to be looked at.

Letters: T time, Tq and Tk that of queries and of keys; B batch; H the width of the model, K that of a head; C context;
L layers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tinyrnn import backends
from tinyrnn import functions as F
from tinyrnn.autograd import in_module
from tinyrnn.errors import DTypeError, ShapeError
from tinyrnn.functions import arange, concatenate, expand_dims, gelu, where
from tinyrnn.nn import init
from tinyrnn.nn.attention import Memory, check_keys, check_query, one_memory, scaled_dot_product, weighted_mean
from tinyrnn.nn.layers import Dropout, LayerNorm, Linear
from tinyrnn.nn.module import Module, ModuleList, Parameter, Sequential, check_input, check_sizes
from tinyrnn.nn.recurrent import running
from tinyrnn.tensor import Tensor, detach, tensor


class MultiHeadAttention(Module):
    """Several scaled dot products side by side, each with its own view of queries, keys and values.

        headᵢ = softmax(qᵢ kᵢᵀ / √K) vᵢ;   q = query W_q, k = keys W_k, v = values W_v, each cut into heads, K wide
        context = concatenate(head₁, head₂, …) W_o

    Args:
        size H; heads, of which H is a multiple, K = H/heads; dtype.
        rotary: rotate each pair of elements of qᵢ and kᵢ by an angle that grows with the step, at a rate of its own. A
            product of the two then depends on how many steps lie between them, which attention by itself cannot tell
            (Su et al. 2021). K must be even.

    Parameters: W_q, W_k, W_v, W_o (H, H), Xavier uniform. There is no bias, as in the paper.

    Shapes:
        query (Tq, B, H), or (B, H) for one step.
        keys (Tk, B, H), the queries if left out: self-attention; or a memory. values (Tk, B, H), the keys if left out.
        mask: bool, (Tk, B) or (Tq, Tk, B), True where a query may look.
        lengths: (B,) integers from 0 to Tk: a query may look at the keys before its sequence's length.
        causal: let no query look at a key of a later step.
        With causal or rotary, the last query is of the same step as the last key, so Tq is at most Tk.

    Returns: context (Tq, B, H) and weights (Tq, Tk, B, heads), or (B, H) and (Tk, B, heads) for one step. Where a query
        may look nowhere, context and weights are 0, and so is the gradient.

    As with `nn.Attention`, `memory` computes once what does not depend on the query: k W_k and v W_v.

    Source: Vaswani et al. 2017, "Attention Is All You Need"; Su et al. 2021, "RoFormer: Enhanced Transformer with
        Rotary Position Embedding".
    Raises: ShapeError, DTypeError or IndexRangeError naming what was given and what was expected.

    >>> import tinyrnn as tr
    >>> attention = tr.nn.MultiHeadAttention(size=8, heads=2)
    >>> context, weights = attention(tr.randn(5, 3, 8), causal=True)
    >>> context.shape, weights.shape
    ((5, 3, 8), (5, 5, 3, 2))
    >>> weights[1, 2:].max().item()  # at t=1 nothing later is looked at
    0.0
    """

    def __init__(self, size: int, heads: int, *, rotary: bool = False, dtype: str = "float32") -> None:
        self.size, self.heads = check_sizes(self, size=size, heads=heads)
        if size % heads or (rotary and size // heads % 2):
            expected = f"a multiple of {2 * heads}, since rotary turns pairs" if rotary else "a multiple of heads"
            raise ShapeError(f"{type(self).__name__}: size is {size} and heads {heads}; expected {expected}")
        self.rotary = rotary
        self.W_q, self.W_k, self.W_v, self.W_o = (
            Parameter(init.xavier_uniform(size, size, dtype=dtype), ("H", "H")) for _ in range(4)
        )

    def memory(self, keys: Tensor, values: Tensor | None = None, mask: Any = None, lengths: Any = None) -> Memory:
        """Prepare keys, values and mask for any number of queries, which then share the products k W_k and v W_v."""
        with in_module(self):
            return self._memory(keys, values, mask, lengths)

    def forward(
        self,
        query: Tensor,
        keys: Tensor | Memory | None = None,
        values: Tensor | None = None,
        mask: Any = None,
        lengths: Any = None,
        *,
        causal: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return context and weights, for keys, for a memory of them, or for the queries themselves."""
        if keys is None:
            check_input(self, query, ("T", "B", "H"), self.size, "size", "query")
        memory = one_memory(self, query if keys is None else keys, values, mask, lengths)
        check_query(self, query, memory, self.size, "size")
        if query.ndim == 3:
            return self._attend(query, memory, causal)
        context, weights = self._attend(expand_dims(query, 0), memory, causal)  # one step is a sequence of one
        return context.squeeze(0), weights.squeeze(0)

    def _memory(self, keys: Tensor, values: Tensor | None, mask: Any, lengths: Any) -> Memory:
        keys, values, mask = check_keys(self, keys, values, mask, lengths, self.size, "size")
        check_input(self, values, ("Tk", "B", "H"), self.size, "size", "values")
        return Memory(keys @ self.W_k, values @ self.W_v, mask)

    def _attend(self, query: Tensor, memory: Memory, causal: bool) -> tuple[Tensor, Tensor]:
        q, k, v = (self._cut(x) for x in (query @ self.W_q, memory.keys, memory.values))
        mask = memory.mask
        if causal:
            past = distances(self, query, k) >= 0
            mask = past if mask is None else past & mask
        if self.rotary:
            q, k = rotated(q, check_aligned(self, query, k)), rotated(k)
        scores = scaled_dot_product(q, k)  # (Tq, Tk, B, heads)
        heads, weights = weighted_mean(scores, v, None if mask is None else expand_dims(mask, -1))
        return heads.reshape(query.shape) @ self.W_o, weights

    def _cut(self, x: Tensor) -> Tensor:
        """Cut the width into heads: (T, B, H) to (T, B, heads, H/heads)."""
        return x.reshape(*x.shape[:-1], self.heads, self.size // self.heads)

    def describe(self) -> str:
        """State the sizes."""
        return f"H={self.size}, heads={self.heads}{', rotary' if self.rotary else ''}"


def check_aligned(layer: Module, query: Tensor, keys: Tensor) -> int:
    """Return the step of the first query, when the last one is of the same step as the last key.

    Raises: ShapeError if there are more queries than keys.
    """
    Tq, Tk = len(query), len(keys)
    if Tq > Tk:
        raise ShapeError(
            f"{type(layer).__name__}: there are Tq={Tq} queries and Tk={Tk} keys; expected at least as many keys, "
            "since the last query is of the same step as the last key"
        )
    return Tk - Tq


def distances(layer: Module, query: Tensor, keys: Tensor) -> Tensor:
    """Return how many steps before a query's own a key is, (Tq, Tk, 1)."""
    first = check_aligned(layer, query, keys)
    with backends.use_backend(query.backend):
        steps = arange(len(keys))
    return expand_dims(expand_dims(steps[first:], 1) - steps, -1)


def rotated(x: Tensor, start: int = 0) -> Tensor:
    """Rotate x[t] by the angles φ of step start + t, each pair of elements (a, b), K/2 apart, by one of them.

        (a + ib) e^(iφ) = (a cos φ − b sin φ) + i (a sin φ + b cos φ)

    Shapes: x (T, …, K) to the same.
    """
    a, b = F.split(x, 2)
    T, K = len(x), x.shape[-1]
    phi = angles(start + T, K)[start:].reshape(T, *(1,) * (x.ndim - 2), K // 2)
    np = backends.get("numpy")
    with backends.use_backend(x.backend):
        cos, sin = tensor(np.cos(phi), dtype=x.dtype), tensor(np.sin(phi), dtype=x.dtype)
    return concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def angles(T: int, size: int) -> Any:
    """Return t / 10000^(2i/size) for t = 0 … T − 1 and each pair i of `size` elements, as an array on the host."""
    np = backends.get("numpy")
    return np.arange(T)[:, None] / 10000 ** (2 * np.arange((size + 1) // 2) / size)


class PositionalEncoding(Module):
    """y = x + P: a vector for each place in the sequence, which attention by itself cannot tell apart.

        P[t, 2i] = sin(t / 10000^(2i/H));   P[t, 2i + 1] = cos(t / 10000^(2i/H))

    Args:
        size H; dtype.
        maximum M: learn P instead, W (M, H), from N(0, 1) as an `nn.Embedding`; sequences may then be up to M long.
            The sinusoids, which are not learned, have no end.

    Shapes: x (T, B, H) -> y (T, B, H).
    Source: Vaswani et al. 2017, "Attention Is All You Need"; learned positions: Gehring et al. 2017, "Convolutional
        Sequence to Sequence Learning".
    Raises: ShapeError for x of another width, or longer than there are learned positions.

    >>> import tinyrnn as tr
    >>> y = tr.nn.PositionalEncoding(size=4)(tr.zeros(2, 1, 4))
    >>> y[1, 0]  # sin 1, cos 1, sin 0.01, cos 0.01
    tensor([0.84147096, 0.5403023 , 0.00999983, 0.99995   ], dtype=float32)
    """

    def __init__(self, size: int, maximum: int | None = None, *, dtype: str = "float32") -> None:
        (self.size,) = check_sizes(self, size=size)
        self.W = None
        if maximum is not None:
            check_sizes(self, maximum=maximum)
            self.W = Parameter(F.randn(maximum, size, dtype=dtype), ("M", "H"))

    def forward(self, x: Tensor) -> Tensor:
        """Return x with its positions added."""
        check_input(self, x, ("T", "B", "H"), self.size, "size")
        T = len(x)
        if self.W is None:
            with backends.use_backend(x.backend):
                return x + expand_dims(tensor(sinusoids(T, self.size), dtype=x.dtype), 1)
        maximum = len(self.W)
        if maximum < T:
            raise ShapeError(
                f"{type(self).__name__}: x is {x.shape}, T={T} steps, and maximum is {maximum}; give shorter "
                "sequences or a larger maximum, or leave maximum out for sinusoids, which have no end"
            )
        return x + expand_dims(self.W[:T], 1)

    def describe(self) -> str:
        """State the kind and the size."""
        return f"{'sinusoids' if self.W is None else 'learned'}, H={self.size}"


def sinusoids(T: int, size: int) -> Any:
    """Return P of `PositionalEncoding`, (T, H), as an array on the host."""
    np, phi = backends.get("numpy"), angles(T, size)
    return np.stack([np.sin(phi), np.cos(phi)], axis=-1).reshape(T, -1)[:, :size]


class TransformerState(NamedTuple):
    """What the last C steps have left to be looked at: (B, …) for a block, (L, B, …) for a Transformer.

    >>> import tinyrnn as tr
    >>> block = tr.nn.TransformerBlock(size=8, heads=2, context=4)
    >>> out, state = block(tr.randn(3, 1, 8))
    >>> state.keys.shape, state.filled.tolist()  # three steps so far
    ((1, 4, 8), [[False, True, True, True]])
    """

    keys: Tensor
    """(B, C, H), k W_k of those steps, the last one last."""
    values: Tensor
    """(B, C, H), their v W_v."""
    filled: Tensor
    """(B, C), bool: False for steps before the first."""

    def detach(self) -> TransformerState:
        """Return the state with no history."""
        return TransformerState(*detach(tuple(self)))


class TransformerBlock(Module):
    """Self-attention and a feed-forward network, each added to what goes into it.

        h = x + dropout(attention(norm(x)));   out = h + dropout(gelu(norm(h) W₁ + b₁) W₂ + b₂)

    Args:
        size H; heads, of which H is a multiple; dtype.
        context C: how many steps before its own a step may look at; it then sees nothing of later ones. None: every
            step looks at all.
        rotary: let attention know how many steps lie between two, as in MultiHeadAttention. False: it does not, unless
            x tells, to which `nn.PositionalEncoding` has been added.
        dropout: probability with which an element that is added to x is dropped while training.

    Parameters: attention, W₁ (H, 4H), b₁, W₂ (4H, H), b₂, and a weight and bias for each norm.

    Shapes:
        x (T, B, H); lengths (B,) integers from 0 to T, only without a context, in which no step sees what comes later.
        state: TransformerState(keys (B, C, H), values (B, C, H), filled (B, C)); None before the first step.

    Returns: out (T, B, H), and the state after the last step, None without a context. A sequence given in pieces, each
        with the state after the one before, has the outputs that it has as a whole.

    Source: Vaswani et al. 2017; Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (the norms
        before, and GELU); Dai et al. 2019, "Transformer-XL" (the state).
    Raises: ShapeError, DTypeError or IndexRangeError naming what was given and what was expected; ValueError for a
        dropout outside [0, 1).

    >>> import tinyrnn as tr
    >>> block = tr.nn.TransformerBlock(size=8, heads=2, context=4)
    >>> out, state = block(tr.randn(6, 3, 8))
    >>> out.shape, state.keys.shape, state.filled.shape
    ((6, 3, 8), (3, 4, 8), (3, 4))
    """

    def __init__(
        self,
        size: int,
        heads: int,
        *,
        context: int | None = None,
        rotary: bool = True,
        dropout: float = 0.0,
        dtype: str = "float32",
    ) -> None:
        (self.size,) = check_sizes(self, size=size)
        if context is not None:
            check_sizes(self, context=context)
        self.context = context
        self.norm_attention = LayerNorm(size, dtype=dtype)
        self.attention = MultiHeadAttention(size, heads, rotary=rotary, dtype=dtype)
        self.norm_feed_forward = LayerNorm(size, dtype=dtype)
        W_1, W_2 = Linear(size, 4 * size, dtype=dtype), Linear(4 * size, size, dtype=dtype)
        self.feed_forward = Sequential(W_1, gelu, W_2)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Tensor, state: TransformerState | None = None, lengths: Any = None
    ) -> tuple[Tensor, TransformerState | None]:
        """Return the outputs, and the state after the last step."""
        check_sequence(self, x)
        h = self.norm_attention(x)
        if state is not None:
            state = checked_state(self, state, x.shape[1])
        if self.context is None:
            memory = self.attention.memory(h, lengths=lengths)
        elif lengths is None:
            memory, state = self._remember(self.attention.memory(h), state, self.context)
        else:
            raise DTypeError(
                f"{type(self).__name__}: lengths are given and context is {self.context}; leave them out, since no "
                "step sees what comes after it, and give the loss a mask"
            )
        x = x + self.dropout(self.attention(h, memory)[0])
        return x + self.dropout(self.feed_forward(self.norm_feed_forward(x))), state

    def _remember(self, new: Memory, state: TransformerState | None, C: int) -> tuple[Memory, TransformerState]:
        """Put what the state holds before the new keys and values: what there is to look at, and the next state."""
        T, B = new.keys.shape[:2]
        with backends.use_backend(new.keys.backend):
            now = TransformerState(new.keys, new.values, F.full((T, B), True, dtype="bool"))
        before = empty_state(self, B) if state is None else state
        joined = [concatenate([old.swapaxes(0, 1), last]) for old, last in zip(before, now, strict=True)]
        after = TransformerState(*(x[-C:].swapaxes(0, 1) for x in joined))
        keys, values, filled = now if state is None else joined
        distance = distances(self, new.keys, keys)
        return Memory(keys, values, (distance >= 0) & (distance <= C) & filled), after

    def initial_state(self, batch: int) -> TransformerState | None:
        """Return the state before the first step, in which nothing is filled; None without a context."""
        return None if self.context is None else empty_state(self, batch)

    def describe(self) -> str:
        """State the context."""
        return "every step looks at all" if self.context is None else f"C={self.context}"


class Transformer(Module):
    """Transformer blocks on top of each other, and a norm at the end.

        x ← blockₗ(x) for every layer l;   out = norm(x)

    Args: size H; heads; num_layers L; context C, rotary, dropout and dtype as for TransformerBlock.

    Shapes:
        x (T, B, H); lengths (B,) integers from 0 to T, only without a context.
        state: TransformerState(keys (L, B, C, H), values (L, B, C, H), filled (L, B, C)), or a plain tuple of its
            fields; None before the first step.

    Returns: out (T, B, H), 0 where a sequence has ended; and the state after the last step, None without a context.
    Source and errors: as for TransformerBlock.

    With a context it stands where a recurrent layer stands, in training by windows and in `tinyrnn.generate`:

        h, state = self.transformer(self.embedding(x), state)
        return self.output(h), state

    A layer has 12H² parameters and a few; an LSTM's has 8H². Step t of layer l depends on at most l · C steps before.

    >>> import tinyrnn as tr
    >>> layer = tr.nn.Transformer(size=8, heads=2, num_layers=3, context=4)
    >>> x = tr.randn(6, 1, 8)
    >>> whole, _ = layer(x)
    >>> first, state = layer(x[:5])
    >>> last, state = layer(x[5:], state)
    >>> bool(tr.max(tr.abs(last - whole[5:])) < 1e-5), state.keys.shape
    (True, (3, 1, 4, 8))
    """

    def __init__(
        self,
        size: int,
        heads: int,
        num_layers: int = 1,
        *,
        context: int | None = None,
        rotary: bool = True,
        dropout: float = 0.0,
        dtype: str = "float32",
    ) -> None:
        self.size, self.num_layers = check_sizes(self, size=size, num_layers=num_layers)
        options: dict[str, Any] = {"context": context, "rotary": rotary, "dropout": dropout, "dtype": dtype}
        self.context = context
        self.blocks = ModuleList(TransformerBlock(size, heads, **options) for _ in range(num_layers))
        self.norm = LayerNorm(size, dtype=dtype)

    def forward(self, x: Tensor, state: Any = None, lengths: Any = None) -> tuple[Tensor, TransformerState | None]:
        """Run the sequences x through all layers."""
        check_sequence(self, x)
        L, B = self.num_layers, x.shape[1]
        before: list[Any] = [None] * L
        if state is not None:
            fields = map(F.unstack, checked_state(self, state, L, B))
            before = [TransformerState(*parts) for parts in zip(*fields, strict=True)]
        after = []
        for block, its_state in zip(self.blocks, before, strict=True):
            x, its_state = block(x, its_state, lengths)
            after.append(its_state)
        out = self.norm(x)
        if lengths is not None:
            out = where(expand_dims(running(type(self).__name__, lengths, out), -1), out, 0.0)
        return out, None if self.context is None else _stacked(after)

    def initial_state(self, batch: int) -> TransformerState | None:
        """Return the state before the first step, in which nothing is filled; None without a context."""
        return None if self.context is None else empty_state(self, self.num_layers, batch)

    def describe(self) -> str:
        """State the sizes."""
        heads = self.blocks[0].attention.heads
        return f"H={self.size}, heads={heads}, L={self.num_layers}, {self.blocks[0].describe()}"


def _stacked(states: list[Any]) -> TransformerState:
    return TransformerState(*(F.stack(fields) for fields in zip(*states, strict=True)))


def check_sequence(layer: TransformerBlock | Transformer, x: Any) -> None:
    """See that x is (T, B, H), with at least one step."""
    check_input(layer, x, ("T", "B", "H"), layer.size, "size")
    if len(x) == 0:
        raise ShapeError(f"{type(layer).__name__}: x is {x.shape}; expected at least one time step")


def empty_state(layer: TransformerBlock | Transformer, *leading: int) -> TransformerState:
    """Return the state before the first step, for these leading axes."""
    like, shape = layer.parameters()[0], (*leading, layer.context, layer.size)
    with backends.use_backend(like.backend):
        keys, values = (F.zeros(shape, dtype=like.dtype) for _ in range(2))
        return TransformerState(keys, values, F.full(keys.shape[:-1], False, dtype="bool"))


def checked_state(layer: TransformerBlock | Transformer, state: Any, *leading: int) -> TransformerState:
    """Return a state, given as such or as a plain tuple, having seen that it fits.

    Raises: DTypeError or ShapeError in the name of `layer`.
    """
    name, told = type(layer).__name__, "TransformerState(keys, values, filled)"
    if layer.context is None:
        raise DTypeError(
            f"{name}: a state is given, and there is no context; leave it out, or make the layer with context=, how "
            "many steps before its own a step may look at"
        )
    if not isinstance(state, tuple | list) or len(state) != 3 or not all(isinstance(x, Tensor) for x in state):
        raise DTypeError(f"{name}: the state is {type(state).__name__}; expected {told}, as the layer returns it")
    shape = (*leading, layer.context, layer.size)
    for field, value in zip(TransformerState._fields, state, strict=True):
        expected, kind = (shape[:-1], "bool") if field == "filled" else (shape, "floating numbers")
        if value.shape != expected:
            raise ShapeError(f"{name}: {field} of the state is {value.shape}; expected {expected}")
        if value.dtype.is_floating != (field != "filled"):
            raise DTypeError(f"{name}: {field} of the state is {value.dtype}; expected {kind}")
    return TransformerState(*state)
