"""Backpropagation through time, step by step: by hand, by the engine, and in pictures.

    python examples/bptt_graph.py
    python examples/bptt_graph.py --steps 5 --out runs/five_steps

A recurrent network of three steps is written from primitives. Its gradient is computed by the formulas of the textbook
in NumPy, and by `tr.grad`, which knows nothing of time: it walks back through the graph that the loop has left. The
numbers are the same. Then the graph is drawn: rolled, unrolled, with the backward pass as a graph of its own, and cut
off, as truncated backpropagation does it.

Source: Werbos 1990, "Backpropagation Through Time: What It Does and How to Do It"; Williams & Peng 1990, "An Efficient
    Gradient-Based Algorithm for On-Line Training of Recurrent Network Trajectories" (truncated).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import tinyrnn as tr
from tinyrnn import terminal

Floats = npt.NDArray[np.float64]
I, H = 2, 2  # small enough to read every number


class Weights(NamedTuple):
    """What the network computes with: W_x (I, H), W_h (H, H), b (H,), and the state h_0 (1, H) that it begins with."""

    W_x: tr.Tensor
    W_h: tr.Tensor
    b: tr.Tensor
    h_0: tr.Tensor


def network(x: tr.Tensor, weights: Weights, cut: int = 0) -> tr.Tensor:
    """Return L = ‖h_T‖², of the state after the last step of x (T, 1, I).

        z = x W_x + b;   h_t = tanh(h_(t−1) W_h + z_t)

    Args: cut, the step before which the state is detached, so that no gradient flows further back.
    """
    W_x, W_h, b, h = weights
    z = tr.linear(x, W_x, b)  # of all steps at once
    for t in tr.steps(len(x)):
        if cut and t == cut:
            h = h.detach()
        h = tr.tanh(h @ W_h + z[t])
    return tr.sum(h**2)


def by_hand(x: Floats, W_x: Floats, W_h: Floats, b: Floats, h_0: Floats) -> tuple[list[Floats], list[Floats]]:
    """Return ∂L/∂h_t for each t, and what each step adds to ∂L/∂W_h: the formulas of the textbook.

    ∂L/∂h_T = 2 h_T;   a_t = h_(t−1) W_h + z_t;   ∂L/∂a_t = ∂L/∂h_t ⊙ (1 − h_t²);   ∂L/∂h_(t−1) = ∂L/∂a_t W_hᵀ
    ∂L/∂W_h = Σ_t h_(t−1)ᵀ ∂L/∂a_t
    """
    T, h = len(x), [h_0]
    for z_t in x @ W_x + b:
        h.append(np.tanh(h[-1] @ W_h + z_t))  # h[t + 1] is the state after step t
    gh, ghs, shares = 2 * h[-1], [], []
    for t in reversed(range(T)):
        ga = gh * (1 - h[t + 1] ** 2)
        ghs.append(gh)
        shares.append(h[t].T @ ga)
        gh = ga @ W_h.T
    return ghs[::-1], shares[::-1]


def compare(x: tr.Tensor, weights: Weights, cut: int) -> None:
    """Print the gradient of W_h by hand beside that of the engine, whole and truncated."""
    ghs, shares = by_hand(x.numpy(), *(w.numpy() for w in weights))
    print("∂L/∂W_h is a sum: W_h was used at every step, and each use adds its share.\n")
    print(" t   ‖∂L/∂h_t‖   ‖share of ∂L/∂W_h‖")
    for t in reversed(range(len(x))):
        print(f"{t:2}   {np.linalg.norm(ghs[t]):9.6f}   {np.linalg.norm(shares[t]):9.6f}")
    print()
    for name, since in (("whole", 0), (f"cut before t={cut}", cut)):
        hand = np.sum(shares[since:], axis=0)
        engine = tr.grad(network(x, weights, cut=since), weights.W_h).numpy()
        print(f"∂L/∂W_h, {name}: the shares of t={since} to t={len(x) - 1}")
        print(f"  by hand   {told(hand)}")
        print(f"  tr.grad   {told(engine)}   largest difference {abs(hand - engine).max():.0e}")


def told(x: Floats) -> str:
    """Return a matrix in one line."""
    return "[" + ", ".join("[" + ", ".join(f"{n:9.6f}" for n in row) + "]" for row in x) + "]"


def draw(x: tr.Tensor, weights: Weights, cut: int, folder: Path) -> None:
    """Save the pictures, and say what to look at."""
    names = {"W_x": weights.W_x, "W_h": weights.W_h, "b": weights.b, "h": weights.h_0}
    folder.mkdir(parents=True, exist_ok=True)

    def whole(x: tr.Tensor) -> dict[str, tr.Tensor]:
        return {"L": network(x, weights)}

    def truncated(x: tr.Tensor) -> dict[str, tr.Tensor]:
        return {"L": network(x, weights, cut)}

    def backward(x: tr.Tensor) -> dict[str, tr.Tensor]:
        loss = network(x, weights)
        return {"L": loss, "∂L/∂W_h": tr.grad(loss, weights.W_h, create_graph=True)}

    def save(name: str, picture: Any, notice: str) -> None:
        print(f"{picture.save(folder / f'{name}.svg')}: {notice}")

    save(
        "rolled",
        tr.draw(whole, x, names=names),
        "the loop as it was written: one step, and a dashed edge z⁻¹ that hands h on to the next. It looks the same "
        "for a thousand steps.",
    )
    save(
        "unrolled",
        tr.draw(whole, x, view="unrolled", detail="op", gradients=True, names=names),
        "the same in time. Every step reads the same W_h, so every step sends something back to it: the colour says "
        "how much.",
    )
    longer = tr.concatenate([x] * -(-6 // len(x)))  # at least 6 steps, so that most are in the middle
    save(
        "backward",
        tr.draw(backward, longer, names=names),
        "the backward pass is a graph too, of operations with a colour of their own. Where h goes forward along z⁻¹, "
        "its gradient comes back along z⁺¹; the shares of W_h end in one product.",
    )
    save(
        "truncated",
        tr.draw(truncated, x, view="unrolled", gradients=True, names=names),
        f"h was detached before t={cut}: its values go on, and no gradient crosses the cut. What lies before it has "
        "none.",
    )


def explain() -> None:
    """Print the chain rule of a network of one number and two steps, to be followed on paper."""
    x, w = [1.0, -1.0], tr.tensor(0.5, dtype="float64", requires_grad=True)
    h = tr.tensor(0.2, dtype="float64")
    for t in tr.steps(2):
        h = tr.tanh(w * h + x[t])
    L = h**2
    print(tr.explain(L))


def arguments(given: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, metavar="T", help="steps of the network (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the input (default: 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bptt_graph"), metavar="DIR", help="for the pictures (runs/bptt_graph)"
    )
    options = parser.parse_args(given)
    if not 2 <= options.steps <= 50:
        parser.error(f"--steps {options.steps}; expected 2 to 50, which can be looked at")
    return options


def main(given: list[str]) -> None:
    """Compute, compare, draw and explain."""
    options = arguments(given)
    tr.manual_seed(options.seed)
    x = tr.randn(options.steps, 1, I, dtype="float64")
    W_x, W_h, b = (tr.randn(*shape, dtype="float64", requires_grad=True) for shape in ((I, H), (H, H), (H,)))
    weights = Weights(W_x, W_h, b, h_0=tr.randn(1, H, dtype="float64"))
    cut = options.steps // 2
    compare(x, weights, cut)
    print("\nPictures:\n")
    draw(x, weights, cut, options.out)
    print("\nThe chain rule of two steps, tanh(w h + x), with every number:\n")
    explain()


if __name__ == "__main__":
    terminal.run(lambda: main(sys.argv[1:]))
