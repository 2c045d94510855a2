"""The equations of one step in time, for the libraries in which one writes them oneself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Functions(NamedTuple):
    """What a library calls them; `split` cuts the last axis into n blocks."""

    tanh: Callable[[Any], Any]
    sigmoid: Callable[[Any], Any]
    split: Callable[[Any, int], Any]


def next_state(cell: str, F: Functions, w: dict[str, Any], z: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the state after a step, its output first; z = x W_x + b (B, nH), w the parameters of the layer."""
    tanh, σ, split = F
    h = state[0]
    a = h @ w["W_h"]
    if cell == "rnn":
        return (tanh(z + a),)
    if cell == "lstm":
        i, f, g, o = split(z + a, 4)
        c = σ(f) * state[1] + σ(i) * tanh(g)
        return σ(o) * tanh(c), c
    x_r, x_z, x_n = split(z, 3)
    h_r, h_z, h_n = split(a, 3)
    z = σ(x_z + h_z)
    n = tanh(x_n + σ(x_r + h_r) * (h_n + w["b_hn"]))
    return ((1 - z) * n + z * h,)


def zeros(cell: str, xp: Any, B: int, H: int) -> tuple[Any, ...]:
    """Return the state before the first step."""
    return (xp.zeros((B, H), xp.float32),) * (2 if cell == "lstm" else 1)
