"""The cells: the textbook's equations for one step in time, a few lines each.

Letters: B batch, I input, H hidden, P projected; n gates. Weights are (in, out), so that x W_x reads as printed.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, NamedTuple, Self

from tinyrnn import backends
from tinyrnn import functions as F
from tinyrnn.errors import DTypeError, ShapeError
from tinyrnn.functions import relu, sigmoid, split, tanh
from tinyrnn.fuse import fused
from tinyrnn.nn import init
from tinyrnn.nn.layers import LayerNorm
from tinyrnn.nn.module import Module, Parameter, check_input, check_sizes
from tinyrnn.tensor import Tensor, detach, rounded


class RNNState(NamedTuple):
    """What a plain RNN remembers: h, (B, H) for a cell, (L·D, B, H) for a layer.

    >>> import tinyrnn as tr
    >>> out, state = tr.nn.RNN(input_size=3, hidden_size=4)(tr.randn(5, 2, 3))
    >>> state.h.shape
    (1, 2, 4)
    >>> state.h.requires_grad, state.detach().h.requires_grad
    (True, False)
    """

    h: Tensor
    """The last output."""

    def detach(self) -> RNNState:
        """Return the state with no history."""
        return RNNState(*detach(tuple(self)))


class GRUState(NamedTuple):
    """What a GRU remembers: h, (B, H) for a cell, (L·D, B, H) for a layer.

    >>> import tinyrnn as tr
    >>> out, state = tr.nn.GRU(input_size=3, hidden_size=4)(tr.randn(5, 2, 3))
    >>> state.h.shape
    (1, 2, 4)
    >>> state.h.requires_grad, state.detach().h.requires_grad
    (True, False)
    """

    h: Tensor
    """The last output."""

    def detach(self) -> GRUState:
        """Return the state with no history."""
        return GRUState(*detach(tuple(self)))


class LSTMState(NamedTuple):
    """What an LSTM remembers: its output h and its memory c, (B, H) for a cell, (L·D, B, H) for a layer.

    With a projection h is P wide.

    >>> import tinyrnn as tr
    >>> out, state = tr.nn.LSTM(input_size=3, hidden_size=4)(tr.randn(5, 2, 3))
    >>> state.h.shape, state.c.shape
    ((1, 2, 4), (1, 2, 4))
    >>> state.c.requires_grad, state.detach().c.requires_grad
    (True, False)
    """

    h: Tensor
    """The last output."""
    c: Tensor
    """The memory."""

    def detach(self) -> LSTMState:
        """Return the state with no history."""
        return LSTMState(*detach(tuple(self)))


class Cell(Module):
    """One step of a recurrent network; a subclass names its gates and writes `step`.

        z = x W_x + b;   state' = step(z, state)

    Class attributes:
        gates: the names of the blocks of z, each H wide.
        State: the NamedTuple of the state; its first field is the output. One field h unless set.

    Args:
        input_size I; hidden_size H; dtype.
        bias: whether there is a b.
        layer_norm: normalise x W_x and h W_h, each over its nH elements, with a learned scale (Ba et al. 2016).
        recurrent_dropout: p of dropping an element of h on its way into h W_h, the same ones for a whole sequence
            (variational dropout: Gal & Ghahramani 2016).
        zoneout: p of leaving an element of the state as it was; its expectation in eval mode (Krueger et al. 2017).
        weight_drop: p of dropping an element of W_h, for a whole sequence (Merity, Keskar & Socher 2018).
        learn_initial_state: make the state before the first step a parameter, h_0 (H,) and so on, zero at first.

    A step of your own may use `self.W_h` itself, then weight_drop, zoneout and learn_initial_state work on it; for
    layer_norm and recurrent_dropout too, write `self.recur(h)` for h W_h.

    Parameters:
        W_x: (I, nH), Xavier uniform.
        W_h: (H, nH), orthogonal blocks.
        b: (nH,), zero.
        norm_x, norm_h: each a weight (nH,), one; with layer_norm.

    Shapes: x (B, I); state, a NamedTuple of tensors (B, H), or None for the initial one. Returns the next state.
    Raises: ShapeError for no gates, a size that is no positive int, or an input or a state of another shape; DTypeError
        for either of another type, or a step that returns no state; ValueError for a probability outside [0, 1).

    >>> import tinyrnn as tr
    >>> class LeakyCell(tr.nn.Cell):  # h' = ½ h + ½ tanh(x W_x + b + h W_h)
    ...     gates = ("h",)
    ...     def step(self, z, state):
    ...         new = tr.tanh(z + self.recur(state.h))
    ...         return tr.nn.RNNState(0.5 * state.h + 0.5 * new)
    >>> layer = tr.nn.Recurrent(LeakyCell, input_size=3, hidden_size=4)
    >>> out, state = layer(tr.zeros(5, 2, 3))
    >>> out.shape
    (5, 2, 4)
    """

    gates: ClassVar[tuple[str, ...]] = ()
    State: ClassVar[Any] = RNNState
    first_values = "W_x Xavier, W_h orthogonal"
    h_mask: Tensor | None = None  # set by `begin`, for one sequence

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        layer_norm: bool = False,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        weight_drop: float = 0.0,
        learn_initial_state: bool = False,
        dtype: str = "float32",
    ) -> None:
        n, name = len(self.gates), type(self).__name__
        if n == 0:
            raise ShapeError(f"{name}: gates is empty; expected names for the blocks of z, such as ('h',)")
        for option, p in {
            "recurrent_dropout": recurrent_dropout,
            "zoneout": zoneout,
            "weight_drop": weight_drop,
        }.items():
            if not 0 <= p < 1:
                raise ValueError(f"{name}: {option} is {p}; expected a probability in [0, 1)")
        self.input_size, self.hidden_size = check_sizes(self, input_size=input_size, hidden_size=hidden_size)
        self.recurrent_dropout, self.zoneout, self.weight_drop = recurrent_dropout, zoneout, weight_drop
        wide, output_size = f"{n}H" if n > 1 else "H", self.state_sizes[0]
        self.W_x = Parameter(init.xavier_uniform(input_size, hidden_size, n, dtype), ("I", wide))
        self.W_h: Tensor = Parameter(
            init.orthogonal(output_size, hidden_size, n, dtype), (self.letter(output_size), wide)
        )
        self.b = Parameter(F.zeros(n * hidden_size, dtype=dtype), (wide,)) if bias else None
        self.norm_x = LayerNorm(n * hidden_size, bias=False, dtype=dtype) if layer_norm else None
        self.norm_h = LayerNorm(n * hidden_size, bias=False, dtype=dtype) if layer_norm else None
        if learn_initial_state:
            for field, size in zip(self.State._fields, self.state_sizes, strict=True):
                setattr(self, f"{field}_0", Parameter(F.zeros(size, dtype=dtype), (self.letter(size),)))

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The width of each field of the state; the first one is the output's."""
        return (self.hidden_size,) * len(self.State._fields)

    def letter(self, size: int) -> str:
        """Return what a width is called: H, or P if it is another one, such as that of a projection."""
        return "H" if size == self.hidden_size else "P"

    def project(self, x: Tensor) -> Tensor:
        """Return z = x W_x + b, for one step or, in one product, for all: (…, I) -> (…, nH)."""
        if self.norm_x is None:
            return F.linear(x, self.W_x, self.b)
        z = self.norm_x(x @ self.W_x)
        return z if self.b is None else z + self.b

    def recur(self, h: Tensor) -> Tensor:
        """Return h W_h, with the options that act on it: (B, H) -> (B, nH)."""
        r = self.dropped(h) @ self.W_h
        return r if self.norm_h is None else self.norm_h(r)

    def dropped(self, h: Tensor) -> Tensor:
        """Return h with the elements dropped that recurrent_dropout has chosen for this sequence."""
        return h if self.h_mask is None else h * self.h_mask

    def begin(self, batch: int) -> Self:
        """Return the cell as it is for one sequence: a copy, on which what a sequence fixes once may be set.

        Under `mixed_precision` its W_h is float16: rounded once, not at every step.
        """
        run = copy.copy(self)
        if self.weight_drop:
            run.W_h = F.dropout(self.W_h, self.weight_drop, self.training)
        run.W_h = rounded(run.W_h)
        if self.recurrent_dropout:
            run.h_mask = F.dropout(self._full(batch, self.state_sizes[0], 1), self.recurrent_dropout, self.training)
        return run

    def step(self, z: Tensor, state: Any) -> Any:
        """Return the next state; z (B, nH); state, a NamedTuple of tensors (B, H)."""
        raise NotImplementedError(f"{type(self).__name__} has no step(z, state); a Cell's subclass writes it")

    def advance(self, z: Tensor, state: Any) -> Any:
        """Return the next state, with zoneout: each element stays as it was with probability p."""
        new, p = self.step(z, state), self.zoneout
        if not isinstance(new, tuple):
            raise DTypeError(
                f"{type(self).__name__}: step returned a {type(new).__name__}; expected the next state, such as "
                f"{self.State.__name__}({', '.join(self.State._fields)})"
            )
        if not p:
            return new
        fields = zip(state, new, strict=True)
        return type(new)(*(old + (1 - p) * F.dropout(now - old, p, self.training) for old, now in fields))

    def initial_state(self, batch: int) -> Any:
        """Return the state before the first step: zeros (B, H), or what was learned, for each sequence of the batch."""
        learned = [getattr(self, f"{field}_0", None) for field in self.State._fields]
        return self.State(
            *(
                self._full(batch, size, 0) if h_0 is None else F.broadcast_to(h_0, (batch, size))
                for h_0, size in zip(learned, self.state_sizes, strict=True)
            )
        )

    def _full(self, batch: int, size: int, value: float) -> Tensor:
        with backends.use_backend(self.W_x.backend):
            return F.full((batch, size), value, dtype=self.W_x.dtype)

    def forward(self, x: Tensor, state: Any = None) -> Any:
        """Do one step by itself: x (B, I) and a state -> the next state."""
        check_input(self, x, ("B", "I"), self.input_size, "input_size")
        before = self.initial_state(len(x)) if state is None else check_state(self, self, state, ("B",), (len(x),))
        return self.begin(len(x)).advance(self.project(x), before)

    def describe(self) -> str:
        """State the sizes, the gates, the options and the first values."""
        names = ("recurrent_dropout", "zoneout", "weight_drop")
        options = [f"{name}={getattr(self, name)}" for name in names if getattr(self, name)]
        options += ["layer_norm"] if self.norm_x else []
        return "; ".join(
            [f"I={self.input_size} -> H={self.hidden_size}, gates {' '.join(self.gates)}", self.first_values, *options]
        )


@fused
def rnn_step(z: Tensor, r: Tensor, nonlinearity: str) -> Tensor:
    """Return f(z + r); z = x W_x + b and r = h W_h, each (B, H)."""
    return (tanh if nonlinearity == "tanh" else relu)(z + r)


class RNNCell(Cell):
    """One step of the plain recurrent network.

        h' = tanh(x W_x + b + h W_h)

    Args: input_size I; hidden_size H; nonlinearity, "tanh", or "relu" in its place; and Cell's.
    Parameters:
        W_x: (I, H), Xavier uniform, for relu He uniform.
        W_h: (H, H), orthogonal.
        b: (H,), zero.

    Shapes: x (B, I); state RNNState(h), h (B, H), or h alone. Returns RNNState(h').
    Source: Elman 1990, "Finding Structure in Time"; Le, Jaitly & Hinton 2015, "A Simple Way to Initialize Recurrent
        Networks of Rectified Linear Units".
    Raises: as Cell; ValueError for another nonlinearity.

    One step by hand, with I = H = 1, x = 0.5 and h = 2:

    >>> import tinyrnn as tr
    >>> cell = tr.nn.RNNCell(input_size=1, hidden_size=1)
    >>> _ = cell.load_state_dict({"W_x": [[2.0]], "W_h": [[0.5]], "b": [-1.0]})
    >>> after = cell(tr.tensor([[0.5]]), tr.tensor([[2.0]]))
    >>> round(after.h.item(), 4)  # tanh(0.5 · 2 − 1 + 2 · 0.5) = tanh(1)
    0.7616
    """

    gates = ("h",)

    def __init__(self, input_size: int, hidden_size: int, *, nonlinearity: str = "tanh", **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNN: nonlinearity is {nonlinearity!r}; expected 'tanh' or 'relu'")
        self.nonlinearity = nonlinearity
        if nonlinearity == "relu":
            self.W_x.assign(init.he_uniform(input_size, hidden_size, dtype=self.W_x.dtype))
            self.first_values = "W_x He, W_h orthogonal"

    def step(self, z: Tensor, state: Any) -> RNNState:
        """Return f(z + h W_h)."""
        return RNNState(rnn_step(z, self.recur(state.h), self.nonlinearity))

    def describe(self) -> str:
        """Add the nonlinearity."""
        return f"{super().describe()}; {self.nonlinearity}"


@fused
def lstm_memory(z: Tensor, r: Tensor, c: Tensor, *peepholes: Tensor) -> tuple[Tensor, Tensor]:
    """Return o, before its sigmoid, and the next c; z = x W_x + b and r = h W_h, each (B, 4H)."""
    i, f, g, o = split(z + r, 4)
    if peepholes:
        p_i, p_f, p_o = peepholes
        i, f = i + p_i * c, f + p_f * c
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return o + p_o * c if peepholes else o, c


@fused
def lstm_step(z: Tensor, r: Tensor, c: Tensor, *peepholes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the next h and c."""
    o, c = lstm_memory(z, r, c, *peepholes)
    return sigmoid(o) * tanh(c), c


class LSTMCell(Cell):
    """One step of the long short-term memory.

        i, f, g, o = split(x W_x + b + h W_h)
        c' = σ(f)⊙c + σ(i)⊙tanh(g);   h' = σ(o)⊙tanh(c')

    The gates, between 0 and 1 for each element: f keeps what the memory c holds, i lets the new content tanh(g) in, and
    o lets out what is shown of it.

    Args:
        input_size I; hidden_size H; and Cell's.
        peephole: let the gates see the memory: i + p_i⊙c, f + p_f⊙c, o + p_o⊙c' (Gers & Schmidhuber 2000).
        proj_size P: make the output narrower than the memory, h' = (σ(o)⊙tanh(c')) W_hr (Sak, Senior & Beaufays 2014).
        layer_norm: normalise c' too, where h' is made of it.

    Parameters:
        W_x: (I, 4H), Xavier uniform, the columns of i, then those of f, g and o.
        W_h: (H, 4H), orthogonal blocks; (P, 4H) with a projection.
        b: (4H,), zero, and one where it is f's: remember, to begin with.
        p_i, p_f, p_o: (H,), zero; with a peephole.
        W_hr: (H, P), Xavier uniform; with a projection.
        norm_c: weight (H,), one, and bias (H,), zero; with layer_norm.

    Shapes: x (B, I); state LSTMState(h, c), each (B, H), with a projection h (B, P), or a pair. Returns
        LSTMState(h', c').
    Source: Hochreiter & Schmidhuber 1997, "Long Short-Term Memory"; Gers, Schmidhuber & Cummins 2000, "Learning to
        Forget" (forget gate); Jozefowicz, Zaremba & Sutskever 2015 (its bias).
    Raises: as Cell; ShapeError for a proj_size that is not under hidden_size.

    One step by hand, with I = H = 1, x = 1, h = 0 and c = 2. Only g sees x, and every gate is half open, σ(0) = ½:

    >>> import tinyrnn as tr
    >>> cell = tr.nn.LSTMCell(input_size=1, hidden_size=1)
    >>> i, f, g, o = 0, 0, 1, 0
    >>> zero = [0, 0, 0, 0]
    >>> _ = cell.load_state_dict({"W_x": [[i, f, g, o]], "W_h": [zero], "b": zero})
    >>> h, c = cell(tr.tensor([[1.0]]), (tr.tensor([[0.0]]), tr.tensor([[2.0]])))
    >>> round(c.item(), 4)  # ½ · 2 + ½ · tanh(1)
    1.3808
    >>> round(h.item(), 4)  # ½ · tanh(1.3808)
    0.4406
    """

    gates = ("i", "f", "g", "o")
    State = LSTMState

    def __init__(
        self, input_size: int, hidden_size: int, *, peephole: bool = False, proj_size: int = 0, **options: Any
    ) -> None:
        check_sizes(self, hidden_size=hidden_size)
        if isinstance(proj_size, bool) or not isinstance(proj_size, int) or not 0 <= proj_size < hidden_size:
            raise ShapeError(f"LSTM: proj_size is {proj_size!r}; expected an int under hidden_size={hidden_size}, or 0")
        self.proj_size = proj_size
        super().__init__(input_size, hidden_size, **options)
        H, dtype = hidden_size, self.W_x.dtype
        if self.b is not None:
            i, f, g, o = split(self.b.detach(), 4)
            self.b.assign(F.concatenate([i, f + 1, g, o]))
        self.W_hr: Tensor | None = None
        if proj_size:
            self.W_hr = Parameter(init.xavier_uniform(H, proj_size, dtype=dtype), ("H", "P"))
        self.norm_c = LayerNorm(H, dtype=dtype) if self.norm_h else None
        self.p_i, self.p_f, self.p_o = (
            Parameter(F.zeros(H, dtype=dtype), ("H",)) if peephole else None for _ in range(3)
        )

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The widths of h and c."""
        return (self.proj_size or self.hidden_size, self.hidden_size)

    def begin(self, batch: int) -> Self:
        """Fix the projection too."""
        run = super().begin(batch)
        if self.W_hr is not None:
            run.W_hr = rounded(self.W_hr)
        return run

    def step(self, z: Tensor, state: Any) -> LSTMState:
        """Return the next h and c."""
        h, c = state
        peepholes = () if self.p_i is None else (self.p_i, self.p_f, self.p_o)
        if self.norm_c is None:
            h, c = lstm_step(z, self.recur(h), c, *peepholes)
        else:
            o, c = lstm_memory(z, self.recur(h), c, *peepholes)
            h = sigmoid(o) * tanh(self.norm_c(c))
        return LSTMState(h if self.W_hr is None else h @ self.W_hr, c)

    def describe(self) -> str:
        """Add the projection, the peepholes and the forget bias."""
        options = [f"proj_size={self.proj_size}"] if self.proj_size else []
        options += ["peephole"] if self.p_i is not None else []
        options += ["forget bias 1"] if self.b is not None else []
        return "; ".join([super().describe(), *options])


@fused
def gru_step(z: Tensor, r: Tensor, h: Tensor, b_hn: Tensor | None = None) -> Tensor:
    """Return the next h; z = x W_x + b and r = h W_h, each (B, 3H)."""
    x_r, x_z, x_n = split(z, 3)
    h_r, h_z, h_n = split(r, 3)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = tanh(x_n + r * (h_n if b_hn is None else h_n + b_hn))
    return (1 - z) * n + z * h


@fused
def gru_gates(z: Tensor, r: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Return the update gate z and the reset state r⊙h; z = x W_x + b, (B, 3H), and r = h W_hrz, (B, 2H)."""
    x_r, x_z, _ = split(z, 3)
    h_r, h_z = split(r, 2)
    return sigmoid(x_z + h_z), sigmoid(x_r + h_r) * h


@fused
def gru_update(z: Tensor, r: Tensor, update: Tensor, h: Tensor) -> Tensor:
    """Return the next h of the update gate; z as above, and r = (r⊙h) W_hn, (B, H)."""
    _, _, x_n = split(z, 3)
    return (1 - update) * tanh(x_n + r) + update * h


class GRUCell(Cell):
    """One step of the gated recurrent unit. There are two, which differ in where the reset gate stands.

        r = σ(x W_xr + b_r + h W_hr);   z = σ(x W_xz + b_z + h W_hz)
        reset_after=True:   n = tanh(x W_xn + b_n + r⊙(h W_hn + b_hn))
        reset_after=False:  n = tanh(x W_xn + b_n + (r⊙h) W_hn)
        h' = (1 − z)⊙n + z⊙h

    The gates, between 0 and 1 for each element: r lets the old state into the new content n, and z keeps the old state
    in place of it.

    Args:
        input_size I; hidden_size H; and Cell's.
        reset_after: True is cuDNN's, PyTorch's and Keras' (one product for all gates), False the one that was
            published.

    Parameters:
        W_x: (I, 3H), Xavier uniform, W_xr, W_xz and W_xn side by side.
        W_h: (H, 3H), orthogonal blocks, W_hr, W_hz and W_hn.
        b: (3H,), zero, b_r, b_z and b_n.
        b_hn: (H,), zero; with reset_after.

    Shapes: x (B, I); state GRUState(h), h (B, H), or h alone. Returns GRUState(h').
    Source: Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder".
    Raises: as Cell; ValueError for layer_norm with reset_after=False.

    One step by hand, with I = H = 1, x = 0.5 and h = 0.5. Only n sees them, and both gates are half open, σ(0) = ½:

    >>> import tinyrnn as tr
    >>> cell = tr.nn.GRUCell(input_size=1, hidden_size=1)
    >>> weights = {"W_x": [[0, 0, 1]], "W_h": [[0, 0, 2]], "b": [0, 0, 0], "b_hn": [0]}
    >>> _ = cell.load_state_dict(weights)
    >>> after = cell(tr.tensor([[0.5]]), tr.tensor([[0.5]]))
    >>> round(after.h.item(), 4)  # n = tanh(0.5 + ½ · 0.5 · 2); ½ · n + ½ · 0.5
    0.6308
    """

    gates = ("r", "z", "n")
    State = GRUState

    def __init__(self, input_size: int, hidden_size: int, *, reset_after: bool = True, **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        if self.norm_h and not reset_after:
            raise ValueError(
                "GRU: layer_norm normalises h W_h, which is not one product with reset_after=False; leave out one"
            )
        self.reset_after = reset_after
        inside = self.b is not None and reset_after
        self.b_hn = Parameter(F.zeros(hidden_size, dtype=self.W_x.dtype), ("H",)) if inside else None

    def begin(self, batch: int) -> Self:
        """Fix W_h's two parts too, where the reset gate stands between them."""
        run = super().begin(batch)
        if not self.reset_after:
            run.W_hrz, run.W_hn = split(run.W_h, [2 * self.hidden_size])
        return run

    def step(self, z: Tensor, state: Any) -> GRUState:
        """Return the next h."""
        (h,) = state
        if self.reset_after:
            return GRUState(gru_step(z, self.recur(h), h, self.b_hn))
        dropped = self.dropped(h)
        update, reset = gru_gates(z, dropped @ self.W_hrz, dropped)
        return GRUState(gru_update(z, reset @ self.W_hn, update, h))

    def describe(self) -> str:
        """Add where the reset gate stands."""
        return f"{super().describe()}; reset {'after' if self.reset_after else 'before'}"

    W_hrz: Tensor  # set by `begin`
    W_hn: Tensor


def check_state(layer: Module, cell: Cell, state: Any, axes: tuple[str, ...], leading: tuple[int, ...]) -> Any:
    """Return a state given as a NamedTuple, a plain tuple or a tensor alone as the cell's NamedTuple.

    Args: axes, the names of the leading axes, and their lengths, that every field must have before its own width.
    Raises: DTypeError or ShapeError in the name of `layer`.
    """
    kind, name = cell.State, type(layer).__name__
    shapes = [(*leading, size) for size in cell.state_sizes]
    expected = [f"({', '.join((*axes, cell.letter(shape[-1])))}) = {shape}" for shape in shapes]
    fields = (state,) if isinstance(state, Tensor) else state
    if not isinstance(fields, tuple | list) or len(fields) != len(kind._fields):
        parts = f"{len(fields)} tensors" if isinstance(fields, tuple | list) else type(state).__name__
        given = "a tensor alone" if isinstance(state, Tensor) else parts
        each = f"each {expected[0]}" if len(set(expected)) == 1 else " and ".join(expected)
        raise DTypeError(f"{name}: the state is {given}; expected {kind.__name__}({', '.join(kind._fields)}), {each}")
    for field, value, shape, told in zip(kind._fields, fields, shapes, expected, strict=True):
        if not isinstance(value, Tensor) or not value.dtype.is_floating:
            given = f"{value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise DTypeError(f"{name}: {field} of the state is {given}; expected a tensor of floats, {told}")
        if value.shape != shape:
            raise ShapeError(f"{name}: {field} of the state is {value.shape}; expected {told}")
    return kind(*fields)
