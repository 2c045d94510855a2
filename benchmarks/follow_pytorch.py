"""Train a model and its PyTorch twin from the same weights on the same text, and compare their losses step by step.

    python benchmarks/follow_pytorch.py --text PATH/tinyshakespeare.txt [--cell lstm] [--steps 200]

PyTorch's layers have two biases where one does, and train both, which doubles its steps: here its second one is frozen,
for the GRU the r and z blocks of it. Everything is float64.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

import tinyrnn as tr
from tinyrnn import data, nn, optim
from tinyrnn.interop import from_torch

LAYERS = {"rnn": (nn.RNN, torch.nn.RNN), "lstm": (nn.LSTM, torch.nn.LSTM), "gru": (nn.GRU, torch.nn.GRU)}


class Ours(nn.Module):
    """Embedding, recurrent layers, linear."""

    def __init__(self, V: int, H: int, L: int, cell: str) -> None:
        self.embedding = nn.Embedding(V, H, dtype="float64")
        self.recurrent = LAYERS[cell][0](H, H, L, dtype="float64")
        self.output = nn.Linear(H, V, dtype="float64")

    def forward(self, x: Any, state: Any) -> Any:
        """Return the logits and the state."""
        h, state = self.recurrent(self.embedding(x), state)
        return self.output(h), state


class Theirs(torch.nn.Module):
    """The same of PyTorch's parts, under the same names."""

    def __init__(self, V: int, H: int, L: int, cell: str) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(V, H, dtype=torch.float64)
        self.recurrent = LAYERS[cell][1](H, H, L, dtype=torch.float64)
        self.output = torch.nn.Linear(H, V, dtype=torch.float64)
        for name, parameter in self.recurrent.named_parameters():
            if name.startswith("bias_hh"):
                if cell == "gru":
                    keep = torch.arange(3 * H) >= 2 * H
                    parameter.register_hook(lambda g, keep=keep: g * keep)
                else:
                    parameter.requires_grad = False

    def forward(self, x: Any, state: Any) -> Any:
        """Return the logits and the state."""
        h, state = self.recurrent(self.embedding(x), state)
        return self.output(h), state


def follow(
    text: str, cell: str, steps: int, H: int = 128, L: int = 2, B: int = 50, T: int = 50
) -> list[tuple[float, float]]:
    """Return (our loss, PyTorch's loss) for each step."""
    torch.manual_seed(0)
    vocabulary = data.Vocabulary.of(text)
    windows = data.Streams(vocabulary.encode(text), B, T)
    theirs = Theirs(len(vocabulary), H, L, cell)
    ours = from_torch(Ours(len(vocabulary), H, L, cell), theirs.state_dict())
    learned = [p for p in theirs.parameters() if p.requires_grad]
    optimizer, optimizer_t = optim.Adam(ours.parameters(), lr=2e-3), torch.optim.Adam(learned, lr=2e-3)
    state = state_t = None
    losses = []
    for step in range(steps):
        x, y = windows[step % len(windows)]

        logits, state = ours(tr.tensor(x), tr.detach(state))
        loss = tr.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_norm(ours.parameters(), 5.0)
        optimizer.step()

        logits_t, state_t = theirs(torch.from_numpy(x), state_t)
        state_t = tuple(s.detach() for s in state_t) if cell == "lstm" else state_t.detach()
        loss_t = torch.nn.functional.cross_entropy(logits_t.flatten(0, 1), torch.from_numpy(y).flatten())
        optimizer_t.zero_grad()
        loss_t.backward()
        torch.nn.utils.clip_grad_norm_(learned, 5.0)
        optimizer_t.step()
        losses.append((loss.item(), loss_t.item()))
    return losses


def main() -> None:
    """Print the largest difference for each cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--cell", choices=list(LAYERS), action="append", help="(default: all three)")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    print("| cell | steps | last loss | PyTorch's | largest difference |\n|---|---|---|---|---|", flush=True)
    for cell in options.cell or LAYERS:
        losses = follow(data.read_text(options.text), cell, options.steps)
        largest = max(abs(a - b) for a, b in losses)
        print(f"| {cell} | {options.steps} | {losses[-1][0]:.9f} | {losses[-1][1]:.9f} | {largest:.1e} |", flush=True)


if __name__ == "__main__":
    main()
