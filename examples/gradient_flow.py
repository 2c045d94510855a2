"""Where the gradient goes in time: it vanishes in an RNN, explodes, is clipped, and is kept by an LSTM and a GRU.

    python examples/gradient_flow.py                     # both problems, three networks, a table each
    python examples/gradient_flow.py --problem copy --time 60 --steps 300 --out runs/flow     # and pictures

Two problems that need a long memory. Copy: four symbols come, then a long silence, then they are to be written down.
Adding: of a sequence of numbers two are marked, and their sum is asked for at the end. Only the losses at the end speak
of the beginning, so what they can teach it is ‖∂L_T/∂h_0‖: the table shows how much of it arrives.

Source: Hochreiter & Schmidhuber 1997, "Long Short-Term Memory" (adding); Arjovsky, Shah & Bengio 2016, "Unitary
    Evolution Recurrent Neural Networks" (copy, in this form); Pascanu, Mikolov & Bengio 2013 (clipping).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tinyrnn as tr
from tinyrnn import nn, optim
from tinyrnn.viz import GradientFlow, gradient_flow

SYMBOLS, COPIED = 4, 4  # what is to be remembered: 4 symbols, each one of 4
CLIP = 1.0  # the largest norm of the gradient
LAYERS = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}


class Network(nn.Module):
    """A recurrent layer, and a linear map of its output at every step: x (T, B, I) -> (T, B, O)."""

    def __init__(self, kind: str, input_size: int, hidden: int, output_size: int) -> None:
        self.recurrent = LAYERS[kind](input_size, hidden)
        self.output = nn.Linear(hidden, output_size)

    def forward(self, x: tr.Tensor) -> tr.Tensor:
        """Return what the network answers at every step."""
        h, _ = self.recurrent(x)
        return self.output(h)


# ---------------------------------------------------------------- the problems


def copy_batch(T: int, B: int, random: np.random.Generator) -> tuple[tr.Tensor, tr.Tensor]:
    """Return x (T, B, SYMBOLS + 2), one-hot, and y (T, B).

    x is symbols, silence, a signal, silence; y is silence until after the signal, and then the symbols.
    """
    symbols = random.integers(0, SYMBOLS, (COPIED, B))
    seen, y = np.full((T, B), SYMBOLS), np.full((T, B), SYMBOLS)
    seen[:COPIED], y[-COPIED:] = symbols, symbols
    seen[-COPIED - 1] = SYMBOLS + 1
    return tr.one_hot(tr.tensor(seen), SYMBOLS + 2), tr.tensor(y)


def copy_loss(out: tr.Tensor, y: tr.Tensor) -> tr.Tensor:
    """−log p(symbol), in nats, for each step and sequence: (T, B)."""
    return tr.cross_entropy(out, y, reduction="none")


def adding_batch(T: int, B: int, random: np.random.Generator) -> tuple[tr.Tensor, tr.Tensor]:
    """Return x (T, B, 2), numbers from 0 to 1 and marks, one in each half; and y (B,), the sum of those marked."""
    numbers, marks, b = random.random((T, B)), np.zeros((T, B)), np.arange(B)
    marks[random.integers(0, T // 2, B), b] = marks[random.integers(T // 2, T, B), b] = 1
    x = np.stack([numbers, marks], axis=-1).astype(np.float32)
    return tr.tensor(x), tr.tensor((numbers * marks).sum(0).astype(np.float32))


def adding_loss(out: tr.Tensor, y: tr.Tensor) -> tr.Tensor:
    """(sum − answer)² for each step and sequence: (T, B); it counts at the last step alone."""
    return (out.squeeze(2) - y) ** 2


Problem = tuple[Callable[..., Any], Callable[..., Any], int, int, int]
PROBLEMS: dict[str, Problem] = {  # batch, loss, input_size, output_size, how many steps at the end count
    "copy": (copy_batch, copy_loss, SYMBOLS + 2, SYMBOLS + 1, COPIED),
    "adding": (adding_batch, adding_loss, 2, 1, 1),
}

# ---------------------------------------------------------------- training, and what it does to the flow


def learn(model: Network, problem: str, options: argparse.Namespace, random: np.random.Generator) -> list[float]:
    """Train for a while, and return the norm of each step's gradient, before it was clipped."""
    make, loss_fn, _, _, last = PROBLEMS[problem]
    optimizer = optim.Adam(model.parameters(), lr=options.lr)

    def gradients(x: tr.Tensor, y: tr.Tensor) -> tr.Tensor:
        loss = tr.mean(loss_fn(model(x), y)[-last:])
        loss.backward()
        return loss

    step, norms = tr.capture(gradients, model), []
    for _ in range(options.steps):
        optimizer.zero_grad()
        step(*make(options.time, options.batch, random))
        norms.append(optim.clip_grad_norm(model.parameters(), CLIP).item())
        optimizer.step()
    return norms


def scaled(model: Network, factor: float) -> Network:
    """Multiply W_h, whose singular values are all 1 at first, by a factor."""
    W_h = model.recurrent.cells[0].W_h
    W_h.assign(W_h.detach() * factor)
    return model


def measure(model: Network, problem: str, options: argparse.Namespace) -> tuple[GradientFlow, float]:
    """Return the flow of the last step's loss, or of all for a picture; and the loss of what counts."""
    make, loss_fn, _, _, last = PROBLEMS[problem]
    batch = make(options.time, 16, np.random.default_rng(1))
    flow = gradient_flow(model, batch, loss_fn, at=None if options.out else -1)
    return flow, float(flow.losses[-last:].mean())


def row(name: str, flow: GradientFlow, loss: float) -> None:
    """Print what arrives at the beginning, of what sets out at the end."""
    norms = flow.norms[-1]
    shown = [f"{norms[k]:9.1e}" for k in (-1, len(norms) // 2, 0)]
    print(f"{name:31}{loss:8.3f}  {'  '.join(shown)}  {norms[0] / norms[-1]:9.1e}  {flow.jacobian_norms.mean():7.2f}")


def run(problem: str, options: argparse.Namespace) -> None:
    """Print one problem's table, and draw its pictures if there is a folder for them."""
    _, _, input_size, output_size, _ = PROBLEMS[problem]
    T = options.time
    print(f"\n{problem}, T={T}: ‖∂L_T/∂h_k‖, and σ, the largest singular value of ∂s_t/∂s_(t−1)")
    print(f"{'':31}{'loss':>8}  {f'k={T - 1}':>9}  {f'k={T // 2}':>9}  {'k=0':>9}  {'arrives':>9}  {'σ':>7}")
    pictures: list[tuple[str, GradientFlow]] = []

    def show(name: str, model: Network) -> None:
        flow, loss = measure(model, problem, options)
        row(name, flow, loss)
        pictures.append((name, flow))

    def train(name: str, model: Network) -> None:
        norms = learn(model, problem, options, np.random.default_rng(options.seed))
        show(f"{name}, {options.steps} steps later", model)
        clipped = sum(norm > CLIP for norm in norms)
        print(f"{'':31}largest gradient {max(norms):,.1f}; {clipped} of {len(norms)} steps clipped to {CLIP:g}")

    def network(kind: str) -> Network:
        tr.manual_seed(options.seed)
        return Network(kind, input_size, options.hidden, output_size)

    show("RNN, W_h × 0.5: vanishes", scaled(network("RNN"), 0.5))
    exploding = scaled(network("RNN"), 2.0)
    show("RNN, W_h × 2: explodes", exploding)
    train("RNN, W_h × 2", exploding)
    models = {kind: network(kind) for kind in LAYERS}
    for kind, model in models.items():
        show(f"{kind} at first", model)
    for kind, model in models.items():
        train(kind, model)
    if options.out:
        draw(problem, pictures, options.out)


def draw(problem: str, pictures: list[tuple[str, GradientFlow]], folder: Path) -> None:
    """Save all heat maps on one page."""
    from matplotlib.figure import Figure

    from tinyrnn.viz import plot_gradient_flow

    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(15, 11), layout="constrained")
    largest = max(np.nanmax(flow.norms) for _, flow in pictures)
    limits = (-6.0, float(np.ceil(np.log10(largest))))  # one scale for all
    for ax, (name, flow) in zip(figure.subplots(3, 3).flat, pictures, strict=True):
        plot_gradient_flow(flow, limits=limits, ax=ax).set_title(name)
    path = folder / f"{problem}.png"
    figure.savefig(path, dpi=100)
    print(f"drawn: {path}")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Where the gradient goes in time: RNN, LSTM and GRU.")
    parser.add_argument("--problem", choices=[*PROBLEMS, "both"], default="both")
    parser.add_argument("--time", type=int, default=40, help="T, steps of a sequence (40)")
    parser.add_argument("--hidden", type=int, default=32, help="H, width of the layer (32)")
    parser.add_argument("--batch", type=int, default=32, help="B, sequences in a batch (32)")
    parser.add_argument("--steps", type=int, default=200, help="steps of training (200)")
    parser.add_argument("--lr", type=float, default=0.01, help="Adam's step size (0.01)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a folder for pictures (needs matplotlib)")
    options = parser.parse_args()
    if options.time < 2 * COPIED + 2:
        parser.error(f"--time {options.time} is too short; expected {2 * COPIED + 2} or more")
    return options


def main() -> None:
    """Run the problems that were chosen."""
    options = arguments()
    for problem in PROBLEMS if options.problem == "both" else [options.problem]:
        run(problem, options)


if __name__ == "__main__":
    main()
