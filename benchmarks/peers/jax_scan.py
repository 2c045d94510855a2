"""JAX on the CPU: one compiled function for the whole step, a scan over time for each layer."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .equations import Functions, next_state, zeros
from .work import BETAS, CLIP, EPS, LR, Array, Size, layer

F = Functions(jnp.tanh, jax.nn.sigmoid, functools.partial(jnp.split, axis=-1))


class Model:
    """The character model, its optimiser, and both compiled."""

    def __init__(self, cell: str, size: Size, weights: dict[str, Array]) -> None:
        self.cell, self.size = cell, size
        params = {name: jnp.array(w) for name, w in weights.items()}
        m, v = ({name: jnp.zeros_like(w) for name, w in params.items()} for _ in range(2))
        self.trained = (params, m, v, jnp.zeros((), jnp.float32))
        self.compiled_step = jax.jit(self.pure_step, donate_argnums=0)
        self.compiled_write = jax.jit(self.pure_write, donate_argnums=1)

    def step(self, x: Array, y: Array) -> float:
        """Do one training step and return its loss."""
        self.trained, loss = jax.block_until_ready(self.compiled_step(self.trained, x, y))
        return float(loss)

    def generate(self, length: int) -> list[int]:
        """Write character by character; the draw is compiled too."""
        states = [zeros(self.cell, jnp, 1, self.size.H) for _ in range(self.size.L)]
        carried = jax.tree.map(jnp.copy, (states, jnp.zeros(1, jnp.int32), jax.random.key(0)))
        written = []
        for _ in range(length):
            carried, symbol = self.compiled_write(self.trained[0], carried)
            written.append(int(symbol))
        return written

    def pure_step(self, trained: Any, x: Any, y: Any) -> tuple[Any, Any]:
        """Return what is trained after a step, and the loss before it."""
        params, m, v, t = trained
        loss, g = jax.value_and_grad(self.loss)(params, x, y)
        norm = jnp.sqrt(sum(jnp.sum(gw * gw) for gw in g.values()))
        scale, t, (beta1, beta2) = jnp.minimum(1, CLIP / (norm + 1e-6)), t + 1, BETAS
        g = {name: gw * scale for name, gw in g.items()}
        m = {name: beta1 * m[name] + (1 - beta1) * gw for name, gw in g.items()}
        v = {name: beta2 * v[name] + (1 - beta2) * gw * gw for name, gw in g.items()}
        lr, root = LR / (1 - beta1**t), jnp.sqrt(1 - beta2**t)
        params = {name: w - lr * m[name] / (jnp.sqrt(v[name]) / root + EPS) for name, w in params.items()}
        return (params, m, v, t), loss

    def loss(self, params: Any, x: Any, y: Any) -> Any:
        """Return the mean cross entropy of a batch."""
        h = params["embedding.W"][x]
        for k in range(self.size.L):
            w = layer(params, k)

            def advance(state: Any, z: Any, w: Any = w) -> Any:
                state = next_state(self.cell, F, w, z, state)
                return state, state[0]

            start = zeros(self.cell, jnp, self.size.B, self.size.H)
            _, h = lax.scan(advance, start, h @ w["W_x"] + w["b"])  # one product for all T
        log_p = jax.nn.log_softmax(h @ params["output.W"] + params["output.b"])
        return -jnp.mean(jnp.take_along_axis(log_p, y[..., None], -1))

    def pure_write(self, params: Any, carried: Any) -> tuple[Any, Any]:
        """Return what is carried on after one character, and that character."""
        states, x, key = carried
        h = params["embedding.W"][x]
        for k in range(self.size.L):
            w = layer(params, k)
            states[k] = next_state(self.cell, F, w, h @ w["W_x"] + w["b"], states[k])
            h = states[k][0]
        key, now = jax.random.split(key)
        x = jax.random.categorical(now, h @ params["output.W"] + params["output.b"]).astype(jnp.int32)
        return (states, x, key), x[0]


def version() -> str:
    """Return JAX' version."""
    return jax.__version__
