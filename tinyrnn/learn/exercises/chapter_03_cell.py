"""A recurrent cell: one step in time.

A recurrent network is one step, done again and again: the next state is made from the input and the state before.
Write that step, in a subclass of nn.Cell, and the loop, layers, two directions and gradients come by themselves. Let
the state change slowly. Such a cell is called a leaky integrator:

    h' = ¾ h + ¼ tanh(x W_x + b + h W_h)        h, the state before; h', the next one

Shapes: x (B, I); h (B, H); W_x (I, H); W_h (H, H); b (H,).
Source: Jaeger et al. 2007, "Optimization and applications of echo state networks with leaky-integrator neurons".
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tinyrnn as tr
from tinyrnn import nn
from tinyrnn.learn.checking import Mistake, agree, check_derivatives


class LeakyCell(nn.Cell):
    """One step of a leaky integrator. Its parameters are there already: self.W_x, self.W_h and self.b."""

    gates = ("h",)

    def step(self, z: tr.Tensor, state: nn.RNNState) -> nn.RNNState:
        """Return the next state, nn.RNNState(h').

        Args: z = x W_x + b (B, H), which has been computed already; state, the one before, a tuple: state.h is h.
        """
        return nn.RNNState(0.75 * state.h + 0.25 * tr.tanh(z + state.h @ self.W_h))


# ---------------------------------------------------------------- checks

HINTS = (
    "z has x W_x + b in it. Of the equation only h W_h, tanh and the two shares are left.",
    "state.h is h, and state.h @ self.W_h is h W_h.",
    "A state is a NamedTuple: return nn.RNNState(…), not the tensor alone.",
)


def check_step(answer: Any) -> None:
    """One step is ¾ h + ¼ tanh(z + h W_h)."""
    cell = answer.LeakyCell(3, 4, dtype="float64")
    z, h = tr.randn(2, 4, dtype="float64"), tr.randn(2, 4, dtype="float64")
    new, r = cell.step(z, nn.RNNState(h)), h @ cell.W_h.detach()
    if not isinstance(new, nn.RNNState):
        raise Mistake(f"step returns {type(new).__name__}; expected the state, nn.RNNState(h)")
    tanh = tr.tanh(z + r)
    mistakes = {
        "it keeps nothing of the state: ¾ h is missing": tanh,
        "¼ of the tanh, but ¾ h is missing": 0.25 * tanh,
        "the two shares are exchanged: ¾ of the old state stays": 0.25 * h + 0.75 * tanh,
        "the new part counts whole: tanh(…) has to be taken by ¼": 0.75 * h + tanh,
        "h W_h is missing: the step looks at the state only to keep it": 0.75 * h + 0.25 * tr.tanh(z),
        "the tanh is missing": 0.75 * h + 0.25 * (z + r),
        "h stands in the place of h W_h": 0.75 * h + 0.25 * tr.tanh(z + h),
        "W_h is transposed: h is a row, so it is h @ W_h": 0.75 * h + 0.25 * tr.tanh(z + h @ cell.W_h.detach().T),
    }
    agree("h'", new.h, 0.75 * h + 0.25 * tanh, {words: value.numpy() for words, value in mistakes.items()})


def check_layer(answer: Any) -> None:
    """A layer of it goes through a sequence."""
    layer, x = nn.Recurrent(answer.LeakyCell, 3, 4), tr.randn(6, 2, 3)
    out, state = layer(x)
    cell, h = layer.cells[0], np.zeros((2, 4))
    for x_t in x.numpy():
        h = 0.75 * h + 0.25 * np.tanh(x_t @ cell.W_x.numpy() + cell.b.numpy() + h @ cell.W_h.numpy())
    if not np.allclose(state.h.numpy()[0], h, atol=1e-5):
        raise Mistake("after 6 steps h is not what the equation gives; does a step keep something besides the state?")
    agree("the last output", out[-1], state.h[0].numpy())


def check_history(answer: Any) -> None:
    """The gradient of the last state reaches W_h and the first input."""
    layer, x = nn.Recurrent(answer.LeakyCell, 3, 4), tr.randn(6, 2, 3, requires_grad=True)
    _, state = layer(x)
    if not state.h.requires_grad:
        raise Mistake("the state has no history: compute it with tr's functions on tensors, not with NumPy's")
    if "W_h" not in {node.name for node in tr.trace(state.h).nodes}:
        raise Mistake("no step reads the tensor self.W_h; what is made anew of its numbers has no history")
    for name, w in {"W_h": layer.cells[0].W_h, "x_0": x}.items():
        g = tr.grad(state.h.sum(), w)
        if not (g if name == "W_h" else g[0]).numpy().any():
            raise Mistake(
                f"{name} gets no gradient from the last state: the history ends on the way. Is there a detach(), or a "
                "tensor made anew of numbers?"
            )


def check_numbers(answer: Any) -> None:
    """The derivative, and the derivative of the derivative, agree with nudging."""
    layer = nn.Recurrent(answer.LeakyCell, 2, 3, dtype="float64")
    x = tr.randn(3, 2, 2, dtype="float64", requires_grad=True)
    check_derivatives(lambda x, *_: layer(x)[0], x, *layer.parameters())
