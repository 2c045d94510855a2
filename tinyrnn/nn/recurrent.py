"""Recurrent networks: cells, the one loop over time, and layers.

A cell is the textbook's equations for one step. `unroll` applies it T times. Nothing here says how gradients go back
through time: the loop leaves a graph behind, and `autograd.walk` walks it.

Letters: T time, B batch, I input, H hidden, L layers. Everything is time-major: x (T, B, I), out (T, B, H). Weights are
(in, out), so that x W_x reads as printed.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from tinyrnn import backends
from tinyrnn import functions as F
from tinyrnn.autograd import in_module, steps
from tinyrnn.errors import DTypeError, ShapeError
from tinyrnn.functions import relu, sigmoid, split, tanh
from tinyrnn.nn import init
from tinyrnn.nn.module import Module, ModuleList, Parameter, check_input, check_sizes
from tinyrnn.tensor import Tensor


class RNNState(NamedTuple):
    """What a plain RNN remembers: h, (B, H) for a cell, (L, B, H) for a layer."""

    h: Tensor


class GRUState(NamedTuple):
    """What a GRU remembers: h, (B, H) for a cell, (L, B, H) for a layer."""

    h: Tensor


class LSTMState(NamedTuple):
    """What an LSTM remembers: its output h and its memory c, each (B, H) for a cell, (L, B, H) for a layer."""

    h: Tensor
    c: Tensor


# ---------------------------------------------------------------- cells


class Cell(Module):
    """One step of a recurrent network; a subclass names its gates and writes `step`.

        z = x W_x + b;   state' = step(z, state)

    Class attributes:
        gates: the names of the blocks of z, each H wide.
        State: the NamedTuple of the state; its first field is the output. One field h unless set.

    Args: input_size I; hidden_size H; bias, whether there is a b; dtype.
    Parameters: W_x (I, nH), Xavier uniform; W_h (H, nH), orthogonal blocks; b (nH,), zero; n gates.
    """

    gates: ClassVar[tuple[str, ...]] = ()
    State: ClassVar[Any] = RNNState

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True, dtype: str = "float32") -> None:
        n, name = len(self.gates), type(self).__name__
        if n == 0:
            raise ShapeError(f"{name}: gates is empty; expected names for the blocks of z, such as ('h',)")
        self.input_size, self.hidden_size = check_sizes(self, input_size=input_size, hidden_size=hidden_size)
        wide = f"{n}H" if n > 1 else "H"
        self.W_x = Parameter(init.xavier_uniform(input_size, hidden_size, n, dtype), ("I", wide))
        self.W_h = Parameter(init.orthogonal(hidden_size, hidden_size, n, dtype), ("H", wide))
        self.b = Parameter(F.zeros(n * hidden_size, dtype=dtype), (wide,)) if bias else None

    def project(self, x: Tensor) -> Tensor:
        """Return z = x W_x + b, for one step or, in one product, for all: (…, I) -> (…, nH)."""
        z = x @ self.W_x
        return z if self.b is None else z + self.b

    def step(self, z: Tensor, state: Any) -> Any:
        """Return the next state; z (B, nH); state, a NamedTuple of tensors (B, H)."""
        raise NotImplementedError(f"{type(self).__name__} has no step(z, state); a Cell's subclass writes it")

    def initial_state(self, batch: int) -> Any:
        """Return the state before the first step: zeros (B, H)."""
        with backends.use_backend(self.W_h.backend):
            return self.State(*(F.zeros(batch, self.hidden_size, dtype=self.W_h.dtype) for _ in self.State._fields))

    def forward(self, x: Tensor, state: Any = None) -> Any:
        """Do one step by itself: x (B, I) and a state -> the next state."""
        check_input(self, x, ("B", "I"), self.input_size, "input_size")
        if state is None:
            return self.step(self.project(x), self.initial_state(len(x)))
        return self.step(self.project(x), _state(self, self.State, state, ("B", "H"), (len(x), self.hidden_size)))

    def describe(self) -> str:
        """State the sizes, the gates and the first values."""
        return f"I={self.input_size} -> H={self.hidden_size}, gates {' '.join(self.gates)}"


class RNNCell(Cell):
    """One step of the plain recurrent network.

        h' = tanh(x W_x + b + h W_h)

    Args: input_size I; hidden_size H; nonlinearity, "tanh" or "relu"; bias; dtype.
    Shapes: x (B, I); state RNNState(h), h (B, H). Returns RNNState(h').
    Source: Elman 1990, "Finding Structure in Time".
    """

    gates = ("h",)

    def __init__(self, input_size: int, hidden_size: int, *, nonlinearity: str = "tanh", **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNN: nonlinearity is {nonlinearity!r}; expected 'tanh' or 'relu'")
        self.nonlinearity = nonlinearity

    def step(self, z: Tensor, state: Any) -> RNNState:
        """Return f(z + h W_h)."""
        f = tanh if self.nonlinearity == "tanh" else relu
        return RNNState(f(z + state.h @ self.W_h))

    def describe(self) -> str:
        """State the sizes and the nonlinearity."""
        return f"{super().describe()}, {self.nonlinearity}; W_h orthogonal"


class LSTMCell(Cell):
    """One step of the long short-term memory.

        i, f, g, o = split(x W_x + b + h W_h)
        c' = σ(f)⊙c + σ(i)⊙tanh(g);   h' = σ(o)⊙tanh(c')

    Args: input_size I; hidden_size H; bias; dtype. The forget gate's part of b starts at 1: remember, to begin with.
    Shapes: x (B, I); state LSTMState(h, c), each (B, H). Returns LSTMState(h', c').
    Source: Hochreiter & Schmidhuber 1997; Gers et al. 2000 (forget gate); Jozefowicz et al. 2015 (its bias).
    """

    gates = ("i", "f", "g", "o")
    State = LSTMState

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        if self.b is not None:
            i, f, g, o = split(self.b.detach(), 4)
            self.b.assign(F.concatenate([i, f + 1, g, o]))

    def step(self, z: Tensor, state: Any) -> LSTMState:
        """Return the next h and c."""
        h, c = state
        i, f, g, o = split(z + h @ self.W_h, 4)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return LSTMState(sigmoid(o) * tanh(c), c)

    def describe(self) -> str:
        """State the sizes, the gates and the first values."""
        return f"{super().describe()}; W_h orthogonal{'' if self.b is None else ', forget bias 1'}"


class GRUCell(Cell):
    """One step of the gated recurrent unit, with the reset gate after the product.

        r = σ(x W_xr + b_r + h W_hr);   z = σ(x W_xz + b_z + h W_hz)
        n = tanh(x W_xn + b_n + r⊙(h W_hn + b_hn))
        h' = (1 − z)⊙n + z⊙h

    Args: input_size I; hidden_size H; bias; dtype. Beside b there is b_hn (H,), inside the reset gate.
    Shapes: x (B, I); state GRUState(h), h (B, H). Returns GRUState(h').
    Source: Cho et al. 2014; this order of reset gate and product is cuDNN's and PyTorch's.
    """

    gates = ("r", "z", "n")
    State = GRUState

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.b_hn = None if self.b is None else Parameter(F.zeros(hidden_size, dtype=self.W_h.dtype), ("H",))

    def step(self, z: Tensor, state: Any) -> GRUState:
        """Return the next h."""
        (h,) = state
        x_r, x_z, x_n = split(z, 3)
        h_r, h_z, h_n = split(h @ self.W_h, 3)
        r = sigmoid(x_r + h_r)
        z = sigmoid(x_z + h_z)
        n = tanh(x_n + r * (h_n if self.b_hn is None else h_n + self.b_hn))
        return GRUState((1 - z) * n + z * h)

    def describe(self) -> str:
        """State the sizes, the gates and the first values."""
        return f"{super().describe()}, reset after; W_h orthogonal"


def _state(layer: Module, kind: Any, state: Any, axes: tuple[str, ...], shape: tuple[int, ...]) -> Any:
    """Return a state given as a NamedTuple, a plain tuple or a tensor alone as a `kind` of tensors of `shape`."""
    name, expected = type(layer).__name__, f"({', '.join(axes)}) = {shape}"
    fields = (state,) if isinstance(state, Tensor) else state
    if not isinstance(fields, tuple | list) or len(fields) != len(kind._fields):
        parts = f"{len(fields)} tensors" if isinstance(fields, tuple | list) else type(state).__name__
        given = "a tensor alone" if isinstance(state, Tensor) else parts
        wanted = f"{kind.__name__}({', '.join(kind._fields)})"
        raise DTypeError(f"{name}: the state is {given}; expected {wanted}, each {expected}")
    for field, value in zip(kind._fields, fields, strict=True):
        if not isinstance(value, Tensor) or not value.dtype.is_floating:
            given = f"{value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise DTypeError(f"{name}: {field} of the state is {given}; expected a tensor of floats, {expected}")
        if value.shape != shape:
            raise ShapeError(f"{name}: {field} of the state is {value.shape}; expected {expected}")
    return kind(*fields)


# ---------------------------------------------------------------- the loop over time


def unroll(cell: Cell, z: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Apply a cell to every step of a sequence, each with the state of the one before.

        stateₜ = step(zₜ, stateₜ₋₁);   outₜ = the first field of stateₜ

    Args: z (T, B, nH), the projected inputs; state, before the first step.
    Returns: out (T, B, H), and the state after the last step.
    """
    outputs = []
    for t in steps(len(z)):
        state = cell.step(z[t], state)
        outputs.append(state[0])
    return F.stack(outputs), state


# ---------------------------------------------------------------- layers


class Recurrent(Module):
    """A cell of any kind, unrolled over time, in one layer or several on top of each other.

    Args:
        cell: a subclass of Cell.
        input_size I; hidden_size H; num_layers L.
        dropout: probability with which the output of each layer but the last is dropped while training.
        options: what the cell takes besides, such as bias and dtype.

    Shapes: x (T, B, I); state, a NamedTuple whose fields are (L, B, H), None for the cell's initial state; a plain
    tuple of its fields will do, and for a state of one field the tensor alone.
    Returns: out (T, B, H), the last layer's outputs, and the state after the last step, a NamedTuple like that.
    Raises: ShapeError or DTypeError naming what was given and what was expected.
    """

    def __init__(
        self,
        cell: type[Cell],
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        (self.num_layers,) = check_sizes(self, num_layers=num_layers)
        if not 0 <= dropout < 1:
            raise ValueError(f"{type(self).__name__}: dropout is {dropout}; expected a probability in [0, 1)")
        if dropout and num_layers == 1:
            raise ValueError(
                f"{type(self).__name__}: dropout={dropout} acts between layers, and there is one; use num_layers=2 or "
                "more, or an nn.Dropout on the output"
            )
        sizes = [input_size] + [hidden_size] * (num_layers - 1)
        self.input_size, self.hidden_size, self.dropout = input_size, hidden_size, dropout
        self.cells = ModuleList(cell(size, hidden_size, **options) for size in sizes)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Run the sequence x through all layers."""
        check_input(self, x, ("T", "B", "I"), self.input_size, "input_size")
        if len(x) == 0:
            raise ShapeError(f"{type(self).__name__}: x is {x.shape}; expected at least one time step")
        before = self._layer_states(x.shape[1], state)
        after = []
        for layer, (cell, layer_state) in enumerate(zip(self.cells, before, strict=True)):
            if layer > 0:
                x = F.dropout(x, self.dropout, self.training)
            with in_module(cell):
                x, final = unroll(cell, cell.project(x), layer_state)
            after.append(final)
        return x, type(after[0])(*(F.stack(fields) for fields in zip(*after, strict=True)))

    def initial_state(self, batch: int) -> Any:
        """Return the state before the first step, each field (L, B, H)."""
        states = [cell.initial_state(batch) for cell in self.cells]
        return type(states[0])(*(F.stack(fields) for fields in zip(*states, strict=True)))

    def _layer_states(self, batch: int, state: Any) -> list[Any]:
        """Cut a state into one for each layer."""
        if state is None:
            return [cell.initial_state(batch) for cell in self.cells]
        kind, shape = self.cells[0].State, (self.num_layers, batch, self.hidden_size)
        fields = _state(self, kind, state, ("L", "B", "H"), shape)
        return [kind(*(field[layer] for field in fields)) for layer in range(self.num_layers)]

    def describe(self) -> str:
        """State the sizes."""
        dropout = f", dropout={self.dropout}" if self.dropout else ""
        return f"I={self.input_size} -> H={self.hidden_size}, L={self.num_layers}{dropout}"


class RNN(Recurrent):
    """The plain recurrent network: layers of `RNNCell`.

        hₜ = tanh(xₜ W_x + b + hₜ₋₁ W_h)

    Args: input_size I; hidden_size H; num_layers L; nonlinearity, "tanh" or "relu"; bias; dropout, between
        layers; dtype.
    Shapes: x (T, B, I); state RNNState(h), h (L, B, H), or h alone. Returns out (T, B, H) and RNNState(h).

    >>> import tinyrnn as tr
    >>> out, state = RNN(input_size=3, hidden_size=4)(tr.zeros(5, 2, 3))
    >>> out.shape, state.h.shape
    ((5, 2, 4), (1, 2, 4))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, **options: Any) -> None:
        super().__init__(RNNCell, input_size, hidden_size, num_layers, **options)


class LSTM(Recurrent):
    """The long short-term memory: layers of `LSTMCell`.

        i, f, g, o = split(xₜ W_x + b + hₜ₋₁ W_h)
        cₜ = σ(f)⊙cₜ₋₁ + σ(i)⊙tanh(g);   hₜ = σ(o)⊙tanh(cₜ)

    Args: input_size I; hidden_size H; num_layers L; bias; dropout between layers; dtype.
    Shapes: x (T, B, I); state LSTMState(h, c), each (L, B, H), or a pair. Returns out (T, B, H) and LSTMState(h, c).

    >>> import tinyrnn as tr
    >>> out, state = LSTM(input_size=3, hidden_size=4, num_layers=2)(tr.zeros(5, 1, 3))
    >>> out.shape, state.h.shape, state.c.shape
    ((5, 1, 4), (2, 1, 4), (2, 1, 4))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, **options: Any) -> None:
        super().__init__(LSTMCell, input_size, hidden_size, num_layers, **options)


class GRU(Recurrent):
    """The gated recurrent unit, with the reset gate after the product: layers of `GRUCell`.

        r = σ(xₜ W_xr + b_r + hₜ₋₁ W_hr);   z = σ(xₜ W_xz + b_z + hₜ₋₁ W_hz)
        n = tanh(xₜ W_xn + b_n + r⊙(hₜ₋₁ W_hn + b_hn))
        hₜ = (1 − z)⊙n + z⊙hₜ₋₁

    Args: input_size I; hidden_size H; num_layers L; bias; dropout between layers; dtype.
    Shapes: x (T, B, I); state GRUState(h), h (L, B, H), or h alone. Returns out (T, B, H) and GRUState(h).

    >>> import tinyrnn as tr
    >>> out, state = GRU(input_size=3, hidden_size=4)(tr.zeros(5, 2, 3))
    >>> out.shape, state.h.shape
    ((5, 2, 4), (1, 2, 4))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, **options: Any) -> None:
        super().__init__(GRUCell, input_size, hidden_size, num_layers, **options)
