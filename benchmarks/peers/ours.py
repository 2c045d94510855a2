"""tinyrnn, by its public names: captured steps, or with NOT_CAPTURED=1 in the environment each of them in Python.

With TINYRNN_FAST=0 it does without Numba.
"""

from __future__ import annotations

import os
from importlib import metadata
from typing import Any

import tinyrnn as tr
from tinyrnn import nn, optim
from tinyrnn.generate import generate

from .work import CLIP, LR, Array, Size, V

KINDS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Network(nn.Module):
    """Embedding, recurrent layers, linear: x (T, B) -> logits (T, B, V), and the state."""

    def __init__(self, cell: str, size: Size) -> None:
        self.embedding = nn.Embedding(V, size.H)
        self.recurrent = KINDS[cell](size.H, size.H, size.L)
        self.output = nn.Linear(size.H, V)

    def forward(self, x: tr.Tensor, state: Any = None) -> tuple[tr.Tensor, Any]:
        """Return the logits and the state."""
        h, state = self.recurrent(self.embedding(x), state)
        return self.output(h), state


class Model:
    """The character model and its optimiser."""

    def __init__(self, cell: str, size: Size, weights: dict[str, Array]) -> None:
        self.network = Network(cell, size).load_state_dict(weights)
        self.optimizer = optim.Adam(self.network.parameters(), lr=LR)
        self.captured = os.environ.get("NOT_CAPTURED") != "1"
        self.loss_of = tr.capture(self.gradients, self.network) if self.captured else self.gradients

    def gradients(self, x: Array, y: Array) -> tr.Tensor:
        """Return the loss, and leave its gradients in the parameters."""
        logits, _ = self.network(x)
        loss = tr.cross_entropy(logits, y)
        loss.backward()
        return loss

    def step(self, x: Array, y: Array) -> float:
        """Do one training step and return its loss."""
        self.optimizer.zero_grad()
        loss = self.loss_of(x, y)
        optim.clip_grad_norm(self.network.parameters(), CLIP)
        self.optimizer.step()
        return loss.item()

    def generate(self, length: int) -> None:
        """Write with the library's own loop."""
        for _ in generate(self.network, [0], length, captured=self.captured):
            pass


def version() -> str:
    """Return tinyrnn's version, and Numba's where it is in use."""
    if os.environ.get("TINYRNN_FAST") == "0":
        return f"{tr.__version__}, captured, TINYRNN_FAST=0"
    if os.environ.get("NOT_CAPTURED") == "1":
        return f"{tr.__version__}, not captured, Numba {metadata.version('numba')}"
    try:
        return f"{tr.__version__}, captured, Numba {metadata.version('numba')}"
    except metadata.PackageNotFoundError:
        return f"{tr.__version__}, Numba not installed"
