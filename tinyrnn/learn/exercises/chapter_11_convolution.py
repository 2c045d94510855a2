"""A causal convolution: no look ahead.

Instead of a state, a network may look at the last few steps themselves, with the same weights at each place:

    y[t] = b + Σ_k x[t − (width − 1 − k) · dilation] W[k],     k = 0 … width − 1

The last of the weights, W[width − 1], meets x[t]; no weight meets anything later, so that the network can be asked what
comes next. Before the first step there are zeros, and y is as long as x. With a dilation of d the steps are d apart.

Write it. tr.pad(x, ((before, after), (0, 0), (0, 0))) puts zeros around the first axis.

Shapes: x (T, B, I); W (width, I, O); b (O,); y (T, B, O).
Source: van den Oord et al. 2016, "WaveNet: A Generative Model for Raw Audio".
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tinyrnn as tr
from tinyrnn import nn
from tinyrnn.learn.checking import Mistake, agree, array_of, check_derivatives


def convolution(x: tr.Tensor, W: tr.Tensor, b: tr.Tensor, dilation: int = 1) -> tr.Tensor:
    """Return y (T, B, O)."""
    width, T = len(W), len(x)
    x = tr.pad(x, (((width - 1) * dilation, 0), (0, 0), (0, 0)))
    y = b
    for k in range(width):
        y = y + x[k * dilation : k * dilation + T] @ W[k]
    return y


# ---------------------------------------------------------------- checks

HINTS = (
    "How many zeros does the first output need before x[0]? The farthest weight is (width − 1) · dilation steps back.",
    "For one k, what all outputs read is one slice of the padded x, T long: where does it begin?",
    "The slice of k begins at k · dilation of the padded x. Multiply it by W[k], (I, O), and add up over k.",
)


def _example(dilation: int) -> tuple[nn.Conv1d, tr.Tensor]:
    layer = nn.Conv1d(2, 3, width=3, dilation=dilation, causal=True, dtype="float64")
    assert layer.b is not None
    layer.b.assign(tr.tensor([0.5, -1.0, 2.0], dtype="float64"))
    return layer, tr.randn(7, 2, 2, dtype="float64", requires_grad=True)


def _by_hand(layer: nn.Conv1d, x: tr.Tensor, before: int, W: Any = None, bias: bool = True) -> Any:
    """Return the convolution with `before` of its zeros before x and the rest after it."""
    rest = (layer.width - 1) * layer.dilation - before
    padded, W = np.pad(x.numpy(), ((before, rest), (0, 0), (0, 0))), layer.W.numpy() if W is None else W
    starts = range(0, layer.width * layer.dilation, layer.dilation)
    y = sum(padded[start : start + len(x)] @ W[k] for k, start in enumerate(starts))
    return y + layer.b.numpy() if bias and layer.b is not None else y


def _late(layer: nn.Conv1d, x: tr.Tensor) -> Any:
    """Return the convolution of x moved on by one step."""
    return _by_hand(layer, tr.pad(x[:-1], ((1, 0), (0, 0), (0, 0))), (layer.width - 1) * layer.dilation)


def check_ahead(answer: Any) -> None:
    """No output looks ahead."""
    layer, x = _example(1)
    y = answer.convolution(x, layer.W, layer.b)
    if array_of("y", y).shape[0] < len(x):
        raise Mistake(f"y has {y.shape[0]} steps and x {len(x)}: put (width − 1) · dilation zeros before x")
    if not y.requires_grad:
        raise Mistake("y has no history: compute with tr's functions on tensors, not with NumPy's")
    for t in range(len(x)):
        reached = np.flatnonzero(np.abs(tr.grad(y[t].sum(), x).numpy()).sum((1, 2))).tolist()
        if reached and max(reached) > t:
            raise Mistake(
                f"it looks ahead: y[{t}] depends on x[{max(reached)}]. All zeros stand before x, none after it; and an "
                "index below 0 would count from the end"
            )


def check_values(answer: Any) -> None:
    """The values are those of the equation."""
    layer, x = _example(1)
    W = layer.W.numpy()
    mistakes = {
        "b is missing": _by_hand(layer, x, 2, bias=False),
        "b was added once for each k; it is added once": _by_hand(layer, x, 2) + 2 * layer.b.numpy(),  # type: ignore[union-attr]
        "the weights are the wrong way round: W[width − 1] meets x[t], and W[0] the earliest step": _by_hand(
            layer, x, 2, W[::-1]
        ),
        "it is one step late: there is one zero too many before x": _late(layer, x),
        "only k = 0 is in it; is the `return` inside the loop?": _by_hand(layer, x, 2, W * [[[1]], [[0]], [[0]]]),
        "the last term, with W[width − 1], is missing": _by_hand(layer, x, 2, W * [[[1]], [[1]], [[0]]]),
        "the first term, with W[0], is missing": _by_hand(layer, x, 2, W * [[[0]], [[1]], [[1]]]),
        "only the last k is in it; add up over k, and begin with b": _by_hand(
            layer, x, 2, W * [[[0]], [[0]], [[1]]], bias=False
        ),
    }
    agree("y", answer.convolution(x, layer.W, layer.b), _by_hand(layer, x, 2), mistakes)


def check_dilation(answer: Any) -> None:
    """With a dilation of 2 the steps are 2 apart."""
    layer, x = _example(2)
    close, _ = _example(1)
    not_dilated = _by_hand(close, x, 2, layer.W.numpy())
    mistakes = {
        "the dilation is not used": not_dilated,
        "there are too few zeros before x: (width − 1) · dilation": _by_hand(layer, x, 4)[2:],
        "it looks ahead: all zeros stand before x, none after it": _by_hand(layer, x, 2),
        "the zeros know of the dilation, the steps do not: the slice of k begins at k · dilation": _by_hand(
            close, tr.pad(x, ((2, 0), (0, 0), (0, 0))), 2, layer.W.numpy()
        )[: len(x)],
        "it is one step late: there is one zero too many before x": _late(layer, x),
    }
    agree("y with dilation=2", answer.convolution(x, layer.W, layer.b, 2), layer(x).numpy(), mistakes)


def check_widths(answer: Any) -> None:
    """It is nn.Conv1d(causal=True) for other widths too, and for a single step."""
    for width, dilation, T in ((1, 1, 4), (2, 3, 5), (5, 1, 1)):
        layer = nn.Conv1d(2, 3, width, dilation=dilation, causal=True, dtype="float64")
        x = tr.randn(T, 2, 2, dtype="float64")
        given = answer.convolution(x, layer.W, layer.b, dilation)
        agree(f"y for width={width}, dilation={dilation}, T={T}", given, layer(x).numpy())


def check_numbers(answer: Any) -> None:
    """The first and the second derivative agree with numbers."""
    layer, x = _example(1)
    assert layer.b is not None
    check_derivatives(answer.convolution, x, layer.W, layer.b)
