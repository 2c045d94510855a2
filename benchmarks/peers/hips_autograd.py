"""HIPS autograd: NumPy code that is recorded as it runs."""

from __future__ import annotations

import functools
from importlib import metadata

import autograd.numpy as anp
from autograd import value_and_grad

from .by_hand import Adam, logits
from .equations import Functions
from .work import Array, Size

F = Functions(anp.tanh, lambda x: 0.5 * (anp.tanh(0.5 * x) + 1), functools.partial(anp.split, axis=-1))


class Model:
    """The character model and its optimiser."""

    def __init__(self, cell: str, size: Size, weights: dict[str, Array]) -> None:
        self.weights, self.adam = weights, Adam(weights)

        def loss(weights: dict[str, Array], x: Array, y: Array) -> Array:
            z = logits(cell, size, F, anp.concatenate, weights, x)
            z = z - anp.max(z, axis=-1, keepdims=True)
            return anp.mean(anp.log(anp.sum(anp.exp(z), axis=-1)) - z[anp.arange(y.size), y.ravel()])

        self.loss = value_and_grad(loss)

    def step(self, x: Array, y: Array) -> float:
        """Do one training step and return its loss."""
        loss, g = self.loss(self.weights, x, y)
        self.adam.update(self.weights, g)
        return float(loss)


def version() -> str:
    """Return autograd's version."""
    return metadata.version("autograd")
