"""PyTorch's other way to write: nn.LSTMCell in place of nn.LSTM, whose one step goes a long way round.

Whether that is faster depends on the cell and the processor, so both are measured.
"""

from __future__ import annotations

from typing import Any

import torch

from . import pytorch
from .work import Array, Size

KINDS = {"rnn": torch.nn.RNNCell, "lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}

version = pytorch.version


class Model(pytorch.Model):
    """The character model, with its layers' weights in cells too."""

    def __init__(self, cell: str, size: Size, weights: dict[str, Array]) -> None:
        super().__init__(cell, size, weights)
        self.pairs = cell == "lstm"  # h and c
        self.cells = torch.nn.ModuleList()
        for k in range(size.L):
            one = KINDS[cell](size.H, size.H)
            one.load_state_dict({name: getattr(self.recurrent, f"{name}_l{k}") for name in one.state_dict()})
            self.cells.append(one)

    @torch.inference_mode()
    def generate(self, length: int, temperature: float = 1.0) -> list[int]:
        """Write character by character, the states carried along."""
        x, written = torch.zeros(1, dtype=torch.int64), []
        states: list[Any] = [None] * len(self.cells)
        for _ in range(length):
            h: Any = self.embedding(x)
            for k, cell in enumerate(self.cells):
                states[k] = cell(h, states[k])
                h = states[k][0] if self.pairs else states[k]
            p = torch.softmax(self.output(h) / temperature, -1)
            x = torch.multinomial(p, 1)[0]
            written.append(int(x.item()))
        return written
