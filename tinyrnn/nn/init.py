"""First values of parameters: drawn on the host from the seeded stream, so one seed gives the same on every backend."""

from __future__ import annotations

import math

from tinyrnn import backends
from tinyrnn.functions import concatenate, default_generator, uniform
from tinyrnn.tensor import Tensor, tensor


def xavier_uniform(fan_in: int, fan_out: int, gates: int = 1, dtype: str = "float32") -> Tensor:
    """Draw `gates` blocks (fan_in, fan_out) side by side from U(−a, a), a = √(6 / (fan_in + fan_out)).

    The variance of a signal stays about the same forwards and backwards through a tanh or sigmoid layer.
    Source: Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks".

    >>> import tinyrnn as tr
    >>> W = tr.nn.init.xavier_uniform(fan_in=2, fan_out=4)  # from U(−1, 1)
    >>> W.shape, bool(tr.abs(W).max() <= 1)
    ((2, 4), True)
    """
    a = math.sqrt(6 / (fan_in + fan_out))
    return uniform(fan_in, gates * fan_out, low=-a, high=a, dtype=dtype)


def he_uniform(fan_in: int, fan_out: int, gates: int = 1, dtype: str = "float32") -> Tensor:
    """Draw `gates` blocks (fan_in, fan_out) side by side from U(−a, a), a = √(6 / fan_in), for layers with relu.

    Relu halves the variance of a signal; this makes up for it.
    Source: He et al. 2015, "Delving Deep into Rectifiers".

    >>> import tinyrnn as tr
    >>> W = tr.nn.init.he_uniform(fan_in=6, fan_out=4)  # from U(−1, 1)
    >>> W.shape, bool(tr.abs(W).max() <= 1)
    ((6, 4), True)
    """
    a = math.sqrt(6 / fan_in)
    return uniform(fan_in, gates * fan_out, low=-a, high=a, dtype=dtype)


def orthogonal(rows: int, columns: int, gates: int = 1, dtype: str = "float32") -> Tensor:
    """Draw `gates` blocks (rows, columns) side by side, each with orthonormal columns (or rows, if there are fewer).

    A product of orthogonal matrices neither grows nor shrinks what passes through it, T times over.
    Source: Saxe, McClelland & Ganguli 2014, "Exact solutions to the nonlinear dynamics of learning".

    >>> import tinyrnn as tr
    >>> W = tr.nn.init.orthogonal(rows=2, columns=2)
    >>> tr.abs(W.T @ W).numpy().round(3).tolist()  # the identity
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return concatenate([_orthogonal(rows, columns, dtype) for _ in range(gates)], axis=1)


def _orthogonal(rows: int, columns: int, dtype: str) -> Tensor:
    host = backends.get("numpy")
    a = default_generator.normal((max(rows, columns), min(rows, columns)), backends.DType.float64)
    q, r = host.linalg.qr(a)
    q = q * host.sign(host.diagonal(r))  # without this, q would not be uniform over all such matrices
    return tensor(q if rows >= columns else q.T, dtype)
