"""MyGrad: tensors with a graph on NumPy."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import mygrad as mg
import numpy as np
from mygrad.nnet.activations import sigmoid
from mygrad.nnet.losses import softmax_crossentropy

from .by_hand import Adam, logits
from .equations import Functions
from .work import Array, Size

mg.turn_memory_guarding_off()  # its own advice, for speed


def split(x: Any, n: int) -> list[Any]:
    H = x.shape[-1] // n
    return [x[:, k * H : (k + 1) * H] for k in range(n)]


F = Functions(mg.tanh, sigmoid, split)


class Model:
    """The character model and its optimiser."""

    def __init__(self, cell: str, size: Size, weights: dict[str, Array]) -> None:
        self.cell, self.size = cell, size
        self.weights, self.adam = weights, Adam(weights)

    def step(self, x: Array, y: Array) -> float:
        """Do one training step and return its loss."""
        named = {name: mg.tensor(w, copy=False) for name, w in self.weights.items()}
        loss = softmax_crossentropy(logits(self.cell, self.size, F, mg.concatenate, named, x), y.ravel())
        loss.backward()
        self.adam.update(self.weights, {name: np.asarray(w.grad) for name, w in named.items()})
        return float(loss)


def version() -> str:
    """Return MyGrad's version."""
    return metadata.version("mygrad")
