"""PyTorch on the CPU, as its documentation writes the model. Its layers have a second bias, which is trained too."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .work import BETAS, CLIP, EPS, LR, Array, Size, V, layer

KINDS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Model(nn.Module):
    """The character model and its optimiser."""

    def __init__(self, cell: str, size: Size, weights: dict[str, Array]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(V, size.H)
        self.recurrent = KINDS[cell](size.H, size.H, size.L)
        self.output = nn.Linear(size.H, V)
        self.load_state_dict({name: torch.from_numpy(w) for name, w in theirs(weights, size).items()})
        self.optimizer = torch.optim.Adam(self.parameters(), lr=LR, betas=BETAS, eps=EPS)

    def step(self, x: Array, y: Array) -> float:
        """Do one training step and return its loss."""
        h, _ = self.recurrent(self.embedding(torch.from_numpy(x)))
        loss = F.cross_entropy(self.output(h).flatten(0, 1), torch.from_numpy(y).flatten())
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters(), CLIP)
        self.optimizer.step()
        return loss.item()

    @torch.inference_mode()
    def generate(self, length: int, temperature: float = 1.0) -> list[int]:
        """Write character by character, the state carried along."""
        x, state, written = torch.zeros(1, 1, dtype=torch.int64), None, []
        for _ in range(length):
            h, state = self.recurrent(self.embedding(x), state)
            p = torch.softmax(self.output(h[0]) / temperature, -1)
            x = torch.multinomial(p, 1)
            written.append(int(x.item()))
        return written


def theirs(weights: dict[str, Array], size: Size) -> dict[str, Array]:
    """Return the weights as PyTorch has them: transposed, and with two biases where one does."""
    named = {
        "embedding.weight": weights["embedding.W"],
        "output.weight": weights["output.W"].T,
        "output.bias": weights["output.b"],
    }
    for k in range(size.L):
        w = layer(weights, k)
        second = np.zeros_like(w["b"])
        if "b_hn" in w:
            second[-size.H :] = w["b_hn"]
        named |= {f"recurrent.weight_ih_l{k}": w["W_x"].T, f"recurrent.weight_hh_l{k}": w["W_h"].T}
        named |= {f"recurrent.bias_ih_l{k}": w["b"], f"recurrent.bias_hh_l{k}": second}
    return named


def version() -> str:
    """Return PyTorch's version."""
    return torch.__version__
