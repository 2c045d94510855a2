"""The work that is the same for all: the sizes, the first weights and the batches of the character model.

    embedding (V -> H), L recurrent layers, linear (H -> V), mean cross entropy, gradients through all T steps, their
    norm clipped at CLIP, Adam; all float32, from a state of zeros.

Weights are (in, out), so that x W is a row times a matrix; gates i f g o of an LSTM and r z n of a GRU, side by side:

    RNN     h' = tanh(x W_x + b + h W_h)
    LSTM    i, f, g, o = split(x W_x + b + h W_h);  c' = σ(f)⊙c + σ(i)⊙tanh(g);  h' = σ(o)⊙tanh(c')
    GRU     r, z = σ(…);  n = tanh(x W_xn + b_n + r⊙(h W_hn + b_hn));  h' = (1 − z)⊙n + z⊙h
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

V = 65  # different characters
CLIP, LR, BETAS, EPS = 5.0, 2e-3, (0.9, 0.999), 1e-8
GATES = {"rnn": 1, "lstm": 4, "gru": 3}


class Size(NamedTuple):
    """Batch, time steps, hidden width, layers."""

    B: int
    T: int
    H: int
    L: int


def weights(cell: str, size: Size) -> dict[str, Array]:
    """Return the first weights, by tinyrnn's names, the same in every process."""
    random, H, n = np.random.Generator(np.random.PCG64(0)), size.H, GATES[cell]

    def uniform(*shape: int) -> Array:
        return (2 * random.random(shape, np.float32) - 1) / np.float32(np.sqrt(H))

    named = {"embedding.W": random.standard_normal((V, H), np.float32)}
    for layer in range(size.L):
        own = {"W_x": uniform(H, n * H), "W_h": uniform(H, n * H), "b": uniform(n * H)}
        own |= {"b_hn": uniform(H)} if cell == "gru" else {}
        named |= {f"recurrent.cells.{layer}.{name}": values for name, values in own.items()}
    return named | {"output.W": 8 * uniform(H, V), "output.b": uniform(V)}  # 8: the loss shall depend on all before it


def layer(named: Any, k: int) -> dict[str, Any]:
    """Return the parameters of layer k by their last names: W_x, W_h, b, and a GRU's b_hn."""
    prefix = f"recurrent.cells.{k}."
    return {name.removeprefix(prefix): named[name] for name in named if name.startswith(prefix)}


def batches(size: Size, count: int = 8) -> list[tuple[Array, Array]]:
    """Return inputs and targets, (T, B) each, the same in every process."""
    characters = np.random.Generator(np.random.PCG64(1)).integers(0, V, (count, size.T + 1, size.B))
    return [(text[:-1], text[1:]) for text in characters]
