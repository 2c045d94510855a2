"""What autograd and MyGrad share: the loop over time and Adam, neither of which they have."""

from __future__ import annotations

from typing import Any

import numpy as np

from .equations import Functions, next_state, zeros
from .work import BETAS, CLIP, EPS, LR, Array, Size, layer


def logits(cell: str, size: Size, F: Functions, concatenate: Any, named: Any, x: Array) -> Any:
    """Return the logits (T·B, V) for x (T, B), step by step: taking steps out of an array of all would cost T²."""
    outputs = [named["embedding.W"][x_t] for x_t in x]
    for k in range(size.L):
        w, state = layer(named, k), zeros(cell, np, size.B, size.H)
        for t, x_t in enumerate(outputs):
            state = next_state(cell, F, w, x_t @ w["W_x"] + w["b"], state)
            outputs[t] = state[0]
    return concatenate(outputs) @ named["output.W"] + named["output.b"]


class Adam:
    """Clipping and Adam on NumPy arrays, in place."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self.m, self.v = ({name: np.zeros_like(w) for name, w in weights.items()} for _ in range(2))
        self.t = 0

    def update(self, weights: dict[str, Array], g: dict[str, Array]) -> None:
        """Change the weights by their gradients."""
        norm = float(np.sqrt(sum(float(np.vdot(gw, gw)) for gw in g.values())))
        scale, (beta1, beta2) = min(1.0, CLIP / (norm + 1e-6)), BETAS
        self.t += 1
        lr, root = LR / (1 - beta1**self.t), float(np.sqrt(1 - beta2**self.t))
        for name, w in weights.items():
            gw, m, v = g[name] * scale, self.m[name], self.v[name]
            m += (1 - beta1) * (gw - m)
            v += (1 - beta2) * (gw * gw - v)
            w -= lr * m / (np.sqrt(v) / root + EPS)
