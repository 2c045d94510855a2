"""The one loop over time, and layers of cells.

`unroll` applies a cell T times. Nothing here says how gradients go back through time: the loop leaves a graph behind,
and `autograd.walk` walks it.

Letters: T time, B batch, I input, H hidden, L layers, D directions. Everything is time-major: x (T, B, I), out
(T, B, H·D).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinyrnn import backends
from tinyrnn import functions as F
from tinyrnn.autograd import in_module, steps
from tinyrnn.errors import DTypeError, IndexRangeError, ShapeError
from tinyrnn.nn.cells import Cell, GRUCell, LSTMCell, RNNCell, check_state
from tinyrnn.nn.module import Module, ModuleList, check_input, check_sizes
from tinyrnn.tensor import Tensor, tensor


def unroll(cell: Cell, z: Tensor, state: Any, lengths: Any = None, reverse: bool = False) -> tuple[Tensor, Any]:
    """Apply a cell to every step of a sequence, each with the state of the one before.

        stateₜ = step(zₜ, stateₜ₋₁);   outₜ = the first field of stateₜ

    Args:
        cell: a Cell.
        z: (T, B, nH), the projected inputs, cell.project(x).
        state: the state before the first step.
        lengths: (B,) integers from 0 to T, in any order; a sequence's state stays as it is where the sequence has
            ended, and its outputs there are 0. One of length 0 keeps the initial state. None: all are T long.
        reverse: go from the last step to the first; each sequence then begins at its own last step.

    Returns: out (T, B, H), outₜ in its place t in either direction, and the state after the last step taken.
    Raises: ShapeError, DTypeError or IndexRangeError for lengths that do not fit.

    >>> import tinyrnn as tr
    >>> cell, x = tr.nn.RNNCell(input_size=3, hidden_size=4), tr.randn(5, 2, 3)
    >>> out, state = tr.nn.unroll(cell, cell.project(x), cell.initial_state(batch=2))
    >>> out.shape, out[-1].tolist() == state.h.tolist()
    ((5, 2, 4), True)
    """
    T, B = z.shape[:2]
    mask = None if lengths is None else F.unstack(F.expand_dims(running(type(cell).__name__, lengths, z), -1))  # (B, 1)
    run, zs = cell.begin(B), F.unstack(z)
    out: list[Any] = [None] * T
    for t in steps(reversed(range(T)) if reverse else T):
        new = run.advance(zs[t], state)
        if mask is None:
            state, out[t] = new, new[0]
        else:
            state = type(new)(*(F.where(mask[t], now, old) for now, old in zip(new, state, strict=True)))
            out[t] = F.where(mask[t], new[0], 0.0)
    del zs
    whole = F.stack(out)
    for t, h in enumerate(out):  # from here on its place in the whole: the graph keeps it once
        if h is not state[0]:  # which may be kept for longer than the whole is
            h.array = whole.backend.getitem(whole.array, t)
    return whole, state


def running(name: str, lengths: Any, x: Tensor) -> Tensor:
    """Return a mask (T, B) for x (T, B, …): whether a sequence has not ended at t."""
    lengths = check_lengths(name, lengths, x)
    with backends.use_backend(x.backend):
        return F.expand_dims(F.arange(len(x)), 1) < lengths


def check_lengths(name: str, lengths: Any, x: Tensor) -> Tensor:
    """Return lengths as a tensor, having seen that they are (B,) integers from 0 to T, for x (T, B, …).

    Raises: ShapeError, DTypeError or IndexRangeError in the name of `name`.
    """
    T, B = x.shape[:2]
    with backends.use_backend(x.backend):
        lengths = lengths if isinstance(lengths, Tensor) else tensor(lengths)
    expected = f"integers from 0 to T={T}, one for each of the B={B} sequences"
    if lengths.dtype.is_floating or lengths.dtype == "bool":
        raise DTypeError(f"{name}: lengths are {lengths.dtype}; expected {expected}")
    if lengths.shape != (B,):
        raise ShapeError(f"{name}: lengths have shape {lengths.shape}; expected ({B},), {expected}")

    lengths.backend.check(_Lengths(name, T, expected), lengths.array)
    return lengths


@dataclass(frozen=True)
class _Lengths:
    """What `check_lengths` expects; a value, so that a device knows one that it has been given before."""

    name: str
    T: int
    expected: str

    def __call__(self, values: Any) -> None:
        if values.size and not 0 <= values.min() <= values.max() <= self.T:
            raise IndexRangeError(f"{self.name}: lengths are {values.tolist()}; expected {self.expected}")


class Recurrent(Module):
    """A cell of any kind, unrolled over time, in layers on top of each other and in one direction or both.

    Args:
        input_size I; hidden_size H; num_layers L.
        cell: a subclass of Cell.
        bidirectional: let a second cell read each layer's input backwards; D = 2 outputs stand side by side.
        dropout: probability with which an element of a layer's output, but for the last layer's, is dropped while
            training.
        options: what the cell takes besides, such as bias, dtype, layer_norm, zoneout.

    Parameters: those of L·D cells. cells.k, k = l·D + d, is that of layer l and direction d, 0 forward and 1 backward.
        The first layer's cells read x, I wide; the others what the layer below puts out, H·D wide.

    Shapes:
        x (T, B, I); lengths (B,) integers from 0 to T, in any order, None if all sequences are T long.
        state: a NamedTuple whose fields are (L·D, B, H), in the order of the cells; None for the cells' initial state;
            a plain tuple of its fields will do, and for a state of one field the tensor alone.

    Returns: out (T, B, H·D), the last layer's outputs at every step, the forward ones before the backward ones, 0 where
        a sequence has ended; and the state of every layer after the last step of each sequence, a NamedTuple like that.
        The last step of a backward cell is t = 0. An output is as wide as the state's first field: P, not H, where an
        LSTM has a projection.
    Raises: ShapeError, DTypeError or IndexRangeError naming what was given and what was expected; ValueError for a
        dropout outside [0, 1), or with nothing to act on.

    >>> import tinyrnn as tr
    >>> layer = tr.nn.Recurrent(tr.nn.RNNCell, 3, 4, num_layers=2, bidirectional=True)
    >>> out, state = layer(tr.randn(5, 2, 3), lengths=[5, 3])
    >>> out.shape, state.h.shape
    ((5, 2, 8), (4, 2, 4))
    >>> tr.abs(out[3:, 1]).max().item()  # the second sequence has ended
    0.0
    """

    def __init__(
        self,
        cell: type[Cell],
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        name = type(self).__name__
        (self.num_layers,) = check_sizes(self, num_layers=num_layers)
        if not 0 <= dropout < 1:
            raise ValueError(f"{name}: dropout is {dropout}; expected a probability in [0, 1)")
        if dropout and num_layers == 1:
            raise ValueError(
                f"{name}: dropout={dropout} acts between layers, and there is one; use num_layers=2 or more, or an "
                "nn.Dropout on the output"
            )
        self.input_size, self.hidden_size, self.dropout = input_size, hidden_size, dropout
        self.bidirectional, self.directions = bidirectional, 2 if bidirectional else 1
        self.cells = ModuleList()
        for layer in range(num_layers):
            size = input_size if layer == 0 else self.directions * self.cells[0].state_sizes[0]
            for _ in range(self.directions):
                self.cells.append(_made(name, cell, size, hidden_size, options))

    def forward(self, x: Tensor, state: Any = None, lengths: Any = None) -> tuple[Tensor, Any]:
        """Run the sequences x through all layers."""
        check_input(self, x, ("T", "B", "I"), self.input_size, "input_size")
        if len(x) == 0:
            raise ShapeError(f"{type(self).__name__}: x is {x.shape}; expected at least one time step")
        if lengths is not None:
            lengths = check_lengths(type(self).__name__, lengths, x)
        before, after = self._cell_states(x.shape[1], state), []
        for layer in range(self.num_layers):
            if layer > 0:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for direction in range(self.directions):
                k = layer * self.directions + direction
                cell = self.cells[k]
                with in_module(cell):
                    out, final = unroll(cell, cell.project(x), before[k], lengths, reverse=direction == 1)
                outputs.append(out)
                after.append(final)
            x = outputs[0] if len(outputs) == 1 else F.concatenate(outputs, axis=-1)
        return x, _stacked(after)

    def initial_state(self, batch: int) -> Any:
        """Return the state before the first step, each field (L·D, B, H)."""
        return _stacked([cell.initial_state(batch) for cell in self.cells])

    def _cell_states(self, batch: int, state: Any) -> list[Any]:
        """Cut a state into one for each cell."""
        if state is None:
            return [cell.initial_state(batch) for cell in self.cells]
        n = len(self.cells)
        state = check_state(self, self.cells[0], state, ("L·D" if self.bidirectional else "L", "B"), (n, batch))
        return [type(state)(*fields) for fields in zip(*map(F.unstack, state), strict=True)]

    def describe(self) -> str:
        """State the sizes."""
        options = ", bidirectional" if self.bidirectional else ""
        options += f", dropout={self.dropout}" if self.dropout else ""
        return f"I={self.input_size} -> H={self.hidden_size}, L={self.num_layers}{options}"


def _stacked(states: list[Any]) -> Any:
    return type(states[0])(*(F.stack(fields) for fields in zip(*states, strict=True)))


def _made(name: str, cell: type[Cell], input_size: int, hidden_size: int, options: dict[str, Any]) -> Cell:
    """Make a cell, and tell an option that it does not have by name."""
    try:
        return cell(input_size, hidden_size, **options)
    except TypeError as error:
        option = str(error).partition("unexpected keyword argument ")[2].strip("'")
        if not option:
            raise
        advice = _ELSEWHERE.get(option, f"help({cell.__name__}) lists what it takes")
        raise DTypeError(f"{name}: unknown option {option!r}; {advice}") from None


_ELSEWHERE = {  # options of other libraries
    "batch_first": "there is one layout, (T, B, I): x.swapaxes(0, 1) makes it of (B, T, I)",
    "return_sequences": "out has every step, and state what stands after the last",
    "return_state": "out has every step, and state what stands after the last",
    "stateful": "the state is a value that you keep: out, state = layer(x, state)",
}


class RNN(Recurrent):
    """The plain recurrent network: layers of `RNNCell`.

        hₜ = tanh(xₜ W_x + b + hₜ₋₁ W_h)

    Args: input_size I; hidden_size H; num_layers L; nonlinearity, "tanh" or "relu"; bidirectional, for D = 2 directions
        and not 1, dropout and the rest as for Recurrent and Cell.
    Shapes: x (T, B, I); state RNNState(h), h (L·D, B, H), or h alone. Returns out (T, B, H·D) and RNNState(h).
    Source: Elman 1990, "Finding Structure in Time"; Schuster & Paliwal 1997, "Bidirectional Recurrent Neural Networks".

    >>> import tinyrnn as tr
    >>> layer = tr.nn.RNN(input_size=3, hidden_size=4)
    >>> out, state = layer(tr.zeros(5, 2, 3))
    >>> out.shape, state.h.shape
    ((5, 2, 4), (1, 2, 4))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, **options: Any) -> None:
        super().__init__(RNNCell, input_size, hidden_size, num_layers, **options)


class LSTM(Recurrent):
    """The long short-term memory: layers of `LSTMCell`.

        i, f, g, o = split(xₜ W_x + b + hₜ₋₁ W_h)
        cₜ = σ(f)⊙cₜ₋₁ + σ(i)⊙tanh(g);   hₜ = σ(o)⊙tanh(cₜ)

    Args: input_size I; hidden_size H; num_layers L; peephole; proj_size P; bidirectional, for D = 2 directions and not
        1, dropout and the rest as for Recurrent, LSTMCell and Cell.
    Shapes: x (T, B, I); state LSTMState(h, c), each (L·D, B, H), or a pair. Returns out (T, B, H·D) and
        LSTMState(h, c). With a projection h is (L·D, B, P) and out (T, B, P·D).
    Source: Hochreiter & Schmidhuber 1997, "Long Short-Term Memory"; of its parts: LSTMCell.

    >>> import tinyrnn as tr
    >>> layer = tr.nn.LSTM(input_size=3, hidden_size=4, num_layers=2)
    >>> out, state = layer(tr.zeros(5, 2, 3))
    >>> out.shape, state.h.shape, state.c.shape
    ((5, 2, 4), (2, 2, 4), (2, 2, 4))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, **options: Any) -> None:
        super().__init__(LSTMCell, input_size, hidden_size, num_layers, **options)
        self.proj_size = self.cells[0].proj_size


class GRU(Recurrent):
    """The gated recurrent unit: layers of `GRUCell`.

        r = σ(xₜ W_xr + b_r + hₜ₋₁ W_hr);   z = σ(xₜ W_xz + b_z + hₜ₋₁ W_hz)
        reset_after=True:   n = tanh(xₜ W_xn + b_n + r⊙(hₜ₋₁ W_hn + b_hn))
        reset_after=False:  n = tanh(xₜ W_xn + b_n + (r⊙hₜ₋₁) W_hn)
        hₜ = (1 − z)⊙n + z⊙hₜ₋₁

    Args: input_size I; hidden_size H; num_layers L; reset_after, True as in PyTorch; bidirectional, for D = 2
        directions and not 1, dropout and the rest as for Recurrent and Cell.
    Shapes: x (T, B, I); state GRUState(h), h (L·D, B, H), or h alone. Returns out (T, B, H·D) and GRUState(h).
    Source: Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder".

    >>> import tinyrnn as tr
    >>> layer = tr.nn.GRU(input_size=3, hidden_size=4, bidirectional=True)
    >>> out, state = layer(tr.zeros(5, 2, 3))
    >>> out.shape, state.h.shape
    ((5, 2, 8), (2, 2, 4))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, **options: Any) -> None:
        super().__init__(GRUCell, input_size, hidden_size, num_layers, **options)
        self.reset_after = self.cells[0].reset_after
