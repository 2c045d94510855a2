"""Convolution over time: each output is made of a few steps of the input, with the same weights everywhere.

`nn.TCN` is used as an `nn.LSTM` is: out, state = layer(x, state). Its state is the inputs that later steps still need.

Letters: T time, B batch, I input, O output, H hidden, L layers.
"""

from __future__ import annotations

from typing import Any

from tinyrnn import backends
from tinyrnn import functions as F
from tinyrnn.errors import DTypeError, ShapeError
from tinyrnn.functions import concatenate, dropout, relu
from tinyrnn.nn import init
from tinyrnn.nn.layers import Linear
from tinyrnn.nn.module import Module, ModuleList, Parameter, check_input, check_sizes
from tinyrnn.tensor import Tensor


class Conv1d(Module):
    """A weighted sum of `width` steps of the input, `dilation` steps apart, for every place that they fit in.

        y[t] = b + Σₖ x[t · stride + k · dilation] W[k],   k = 0 … width − 1

    Args:
        input_size I; output_size O; width; bias, whether there is a b; dtype.
        dilation: how far apart the steps are that are summed.
        stride: how far apart the places are.
        causal: put (width − 1) · dilation zeros before the sequence, so that y[t] is made of x up to x[t · stride], and
            with a stride of 1 is as long as x. Otherwise nothing is put around it; `tr.pad` does that.

    Parameters: W (width, I, O), He uniform; b (O,), zero.
    Shapes: x (T, B, I) -> y (T', B, O); T' = (T − 1) // stride + 1 if causal, with T − (width − 1) · dilation for T if
        not.
    Source: LeCun et al. 1989, "Backpropagation Applied to Handwritten Zip Code Recognition"; causal and dilated:
        van den Oord et al. 2016, "WaveNet".
    Raises: ShapeError for x of another width, or too short for one place.

    >>> import tinyrnn as tr
    >>> tr.nn.Conv1d(3, 4, width=2, dilation=2)(tr.zeros(7, 1, 3)).shape
    (5, 1, 4)
    >>> tr.nn.Conv1d(3, 4, width=2, dilation=2, causal=True)(tr.zeros(7, 1, 3)).shape
    (7, 1, 4)
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        width: int,
        *,
        dilation: int = 1,
        causal: bool = False,
        stride: int = 1,
        bias: bool = True,
        dtype: str = "float32",
    ) -> None:
        self.input_size, self.output_size = check_sizes(self, input_size=input_size, output_size=output_size)
        self.width, self.dilation, self.stride = check_sizes(self, width=width, dilation=dilation, stride=stride)
        self.causal = causal
        W = init.he_uniform(width * input_size, output_size, dtype=dtype)
        self.W = Parameter(W.reshape(width, input_size, output_size), ("width", "I", "O"))
        self.b = Parameter(F.zeros(output_size, dtype=dtype), ("O",)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x with W, plus b."""
        check_input(self, x, ("T", "B", "I"), self.input_size, "input_size")
        before = (self.width - 1) * self.dilation
        places = len(x) if self.causal else len(x) - before  # but for the stride
        if places < 1:
            raise ShapeError(
                f"{type(self).__name__}: x is {x.shape}, T={len(x)} steps; expected {len(x) - places + 1} or more, for "
                f"width={self.width} and dilation={self.dilation}"
            )
        if self.causal:
            x = F.pad(x, ((before, 0), (0, 0), (0, 0)))
        starts = range(0, before + 1, self.dilation)
        seen = concatenate([x[start : start + places : self.stride] for start in starts], axis=-1)  # (T', B, width · I)
        return F.linear(seen, self.W.reshape(self.width * self.input_size, self.output_size), self.b)

    def describe(self) -> str:
        """State the sizes."""
        options = f", dilation={self.dilation}" if self.dilation > 1 else ""
        options += f", stride={self.stride}" if self.stride > 1 else ""
        options += ", causal" if self.causal else ""
        return f"I={self.input_size} -> O={self.output_size}, width={self.width}{options}"


class TCNBlock(Module):
    """Two causal convolutions, added to what goes into them.

        h = dropout(relu(conv₁(x)));   out = relu(x W + dropout(relu(conv₂(h))))

    x W is x itself where the widths are the same.

    Args: input_size I; hidden_size H; width and dilation of both convolutions; dropout; dtype.
    Shapes: x (T, B, I); state, the last (width − 1) · dilation steps of x and of h, a tuple of two tensors, each
        ((width − 1) · dilation, B, I or H); None for zeros. Returns out (T, B, H) and the state after the last step.
    Source: Bai, Kolter & Koltun 2018, "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for
        Sequence Modeling"; here with no weight normalisation.
    Raises: ShapeError or DTypeError naming what was given and what was expected; ValueError for a dropout outside
        [0, 1).

    >>> import tinyrnn as tr
    >>> block = tr.nn.TCNBlock(input_size=3, hidden_size=4, width=2, dilation=2)
    >>> out, state = block(tr.zeros(7, 1, 3))
    >>> out.shape, [part.shape for part in state]
    ((7, 1, 4), [(2, 1, 3), (2, 1, 4)])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        width: int = 3,
        *,
        dilation: int = 1,
        dropout: float = 0.0,
        dtype: str = "float32",
    ) -> None:
        if not 0 <= dropout < 1:
            raise ValueError(f"{type(self).__name__}: dropout is {dropout}; expected a probability in [0, 1)")
        self.dropout = dropout
        self.conv1 = Conv1d(input_size, hidden_size, width, dilation=dilation, dtype=dtype)
        self.conv2 = Conv1d(hidden_size, hidden_size, width, dilation=dilation, dtype=dtype)
        same = input_size == hidden_size
        self.residual = None if same else Linear(input_size, hidden_size, bias=False, dtype=dtype)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the outputs, and the inputs that the next steps still need."""
        check_sequence(self, x, self.conv1.input_size)
        x_before, h_before = self.initial_state(x.shape[1]) if state is None else checked_state(self, state, x.shape[1])
        h, x_after = self._convolved(self.conv1, x, x_before)
        y, h_after = self._convolved(self.conv2, h, h_before)
        return relu((x if self.residual is None else self.residual(x)) + y), (x_after, h_after)

    def _convolved(self, conv: Conv1d, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve x with what came before it in place of zeros, and return its last steps beside it."""
        whole = concatenate([before, x])
        return dropout(relu(conv(whole)), self.dropout, self.training), whole[len(whole) - len(before) :]

    def state_shapes(self, batch: int) -> list[tuple[int, ...]]:
        """Return the shapes of the state's tensors."""
        convolutions = (self.conv1, self.conv2)
        return [((conv.width - 1) * conv.dilation, batch, conv.input_size) for conv in convolutions]

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """Return the state before the first step: zeros."""
        return zeros_like_weights(self.conv1.W, self.state_shapes(batch))

    def describe(self) -> str:
        """State the dropout."""
        return f"dropout={self.dropout}" if self.dropout else ""


class TCN(Module):
    """A temporal convolutional network: blocks of causal convolutions that reach twice as far from layer to layer.

        x ← blockₗ(x) for l = 0 … L − 1, with dilation 2ˡ

    Args: input_size I; hidden_size H; num_layers L; width; dropout; dtype.
    Shapes: x (T, B, I); state, a tuple of 2L tensors (time, B, I or H), None for zeros. Returns out (T, B, H) and the
        state after the last step. A sequence given in pieces, each with the state after the one before, has the
        outputs that it has as a whole.
    Attributes: reach, how many steps before its own an output depends on: 2 (width − 1) (2ᴸ − 1).
    Source: Bai, Kolter & Koltun 2018, "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for
        Sequence Modeling"; here with no weight normalisation.
    Raises: ShapeError or DTypeError naming what was given and what was expected.

    It stands where a recurrent layer stands, in training by windows and in `tinyrnn.generate`. It takes no lengths: no
    step sees what comes after it, so a mask for the loss is enough.

    >>> import tinyrnn as tr
    >>> layer = tr.nn.TCN(input_size=3, hidden_size=4, num_layers=3)
    >>> out, state = layer(tr.zeros(5, 2, 3))
    >>> out.shape, len(state), state[0].shape, layer.reach
    ((5, 2, 4), 6, (2, 2, 3), 28)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        width: int = 3,
        dropout: float = 0.0,
        dtype: str = "float32",
    ) -> None:
        (self.num_layers,) = check_sizes(self, num_layers=num_layers)
        self.blocks = ModuleList()
        for layer in range(num_layers):
            size = input_size if layer == 0 else hidden_size
            self.blocks.append(TCNBlock(size, hidden_size, width, dilation=2**layer, dropout=dropout, dtype=dtype))
        self.input_size, self.hidden_size = input_size, hidden_size
        self.reach = 2 * (width - 1) * (2**num_layers - 1)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the sequences x through all layers."""
        check_sequence(self, x, self.input_size)
        before = self.initial_state(x.shape[1]) if state is None else checked_state(self, state, x.shape[1])
        after: list[Tensor] = []
        for layer, block in enumerate(self.blocks):
            x, its_state = block(x, before[2 * layer : 2 * layer + 2])
            after += its_state
        return x, tuple(after)

    def state_shapes(self, batch: int) -> list[tuple[int, ...]]:
        """Return the shapes of the state's tensors."""
        return [shape for block in self.blocks for shape in block.state_shapes(batch)]

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """Return the state before the first step: zeros."""
        return zeros_like_weights(self.blocks[0].conv1.W, self.state_shapes(batch))

    def describe(self) -> str:
        """State the sizes and the reach."""
        return f"I={self.input_size} -> H={self.hidden_size}, L={self.num_layers}, reaches {self.reach} steps back"


def check_sequence(layer: TCNBlock | TCN, x: Any, input_size: int) -> None:
    """See that x is (T, B, I), with at least one step."""
    check_input(layer, x, ("T", "B", "I"), input_size, "input_size")
    if len(x) == 0:
        raise ShapeError(f"{type(layer).__name__}: x is {x.shape}; expected at least one time step")


def zeros_like_weights(W: Tensor, shapes: list[tuple[int, ...]]) -> tuple[Tensor, ...]:
    """Return zeros of these shapes where the weights are, in their type."""
    with backends.use_backend(W.backend):
        return tuple([F.zeros(shape, dtype=W.dtype) for shape in shapes])


def checked_state(layer: TCNBlock | TCN, state: Any, batch: int) -> tuple[Tensor, ...]:
    """Return a state, having seen that it is a tuple of tensors of the layer's shapes.

    Raises: DTypeError or ShapeError in the name of `layer`.
    """
    name, shapes = type(layer).__name__, layer.state_shapes(batch)
    if not isinstance(state, tuple | list) or len(state) != len(shapes):
        given = f"{len(state)} parts" if isinstance(state, tuple | list) else type(state).__name__
        raise DTypeError(f"{name}: the state is {given}; expected {len(shapes)} tensors, as the layer returns them")
    for k, (part, shape) in enumerate(zip(state, shapes, strict=True)):
        if not isinstance(part, Tensor) or not part.dtype.is_floating:
            given = part.dtype if isinstance(part, Tensor) else type(part).__name__
            raise DTypeError(f"{name}: part {k} of the state is {given}; expected a tensor of floats, {shape}")
        if part.shape != shape:
            raise ShapeError(f"{name}: part {k} of the state is {part.shape}; expected (time, B, width) = {shape}")
    return tuple(state)
