"""Random graphs against a naive engine that goes forward in dense numbers; graphs that are long; memory that is freed."""

from __future__ import annotations

import gc
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinyrnn as tr
from tinyrnn import autograd, nn, optim

# ---------------------------------------------------------------- the naive engine


class Jet:
    """A value with its first and second derivatives with respect to all N inputs, each in one dense array.

    Nothing here goes backward: the chain rule of two orders is applied at every operation, f(x) to
    J ← f' J and H ← f' H + f'' J Jᵀ.
    """

    __array_ufunc__ = None

    def __init__(self, v, J, H):
        self.v, self.J, self.H = v, J, H  # (*shape), (*shape, N), (*shape, N, N)

    @staticmethod
    def constant(v, n):
        v = np.asarray(v, dtype=float)
        return Jet(v, np.zeros((*v.shape, n)), np.zeros((*v.shape, n, n)))

    @property
    def shape(self):
        return self.v.shape

    def through(self, f, d1, d2):
        """Apply an elementwise function, given its value and its two derivatives."""
        outer = self.J[..., :, None] * self.J[..., None, :]
        return Jet(f, d1[..., None] * self.J, d1[..., None, None] * self.H + d2[..., None, None] * outer)

    def move(self, f):
        """Apply a linear function of the axes of the value, one that leaves axes behind them alone."""
        return Jet(f(self.v), f(self.J), f(self.H))

    def __add__(self, other):
        n = np.broadcast_shapes(self.shape, other.shape)
        a, b = self.spread(n), other.spread(n)
        return Jet(a.v + b.v, a.J + b.J, a.H + b.H)

    def __mul__(self, other):
        n = np.broadcast_shapes(self.shape, other.shape)
        return self.spread(n).bilinear(other.spread(n), np.multiply)

    def __matmul__(self, other):
        if len(other.shape) == 1:
            return (self @ other.move(lambda a: a[:, None])).move(lambda a: a[..., 0, :] if a is None else a).drop(-1)
        spread = np.broadcast_shapes(self.shape[:-2], other.shape[:-2])
        n, k, m = *self.shape[-2:], other.shape[-1]
        a = self.spread((*spread, n, k)).move(lambda x: x[(..., *TAIL[x.ndim - len(spread) - 2])])
        raise NotImplementedError(a, m)
