"""The floor: the matrix products of a step and nothing else, in plain NumPy, in the process as tinyrnn sets it up."""

from __future__ import annotations

import tinyrnn  # before NumPy is: it may have a say in how its BLAS starts

# isort: split
import numpy as np

from .work import GATES, Array, Size, V, layer


class Model:
    """The operands of the products, and room for what comes out."""

    def __init__(self, cell: str, size: Size, weights: dict[str, Array]) -> None:
        B, T, H, L = size
        wide, random = GATES[cell] * H, np.random.default_rng(0)

        def filled(*shape: int) -> Array:
            return random.standard_normal(shape, np.float32)

        self.h = [filled(T, B, H) for _ in range(L + 1)]  # the outputs of each layer, those of the embedding first
        self.gh = filled(T, B, H)
        self.dz = [filled(T, B, wide) for _ in range(L)]
        self.logits = filled(T, B, V)
        self.layers = [layer(weights, k) for k in range(L)]
        self.W, self.gW = weights["output.W"], filled(H, V)
        self.z, self.gW_x, self.gW_h = filled(T, B, wide), filled(H, wide), filled(H, wide)
        self.zt, self.ght = filled(B, wide), filled(B, H)

    def step(self, x: Array, y: Array) -> None:
        """Do the products of one training step, forward and backward."""

        def product(a: Array, b: Array, out: Array) -> None:
            np.matmul(a.reshape(-1, a.shape[-1]), b, out=out.reshape(-1, out.shape[-1]))

        def weight_gradient(a: Array, g: Array, out: Array) -> None:
            np.matmul(a.reshape(-1, a.shape[-1]).T, g.reshape(-1, g.shape[-1]), out=out)

        for k, w in enumerate(self.layers):
            product(self.h[k], w["W_x"], self.z)
            for h in self.h[k + 1]:
                np.matmul(h, w["W_h"], out=self.zt)
        product(self.h[-1], self.W, self.logits)
        product(self.logits, self.W.T, self.gh)
        weight_gradient(self.h[-1], self.logits, self.gW)
        for k, w in reversed(list(enumerate(self.layers))):
            for dz in self.dz[k]:
                np.matmul(dz, w["W_h"].T, out=self.ght)
            product(self.dz[k], w["W_x"].T, self.gh)
            weight_gradient(self.h[k], self.dz[k], self.gW_x)
            weight_gradient(self.h[k + 1], self.dz[k], self.gW_h)


def version() -> str:
    """Say in whose process."""
    return f"beside tinyrnn {tinyrnn.__version__}"
