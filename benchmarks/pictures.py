"""How long pictures take: python benchmarks/pictures.py

Each row is the median of five runs of `tr.draw(model, x)` and of what Graphviz then takes for an SVG, in seconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import tinyrnn as tr
from tinyrnn import nn

RUNS = 5


def chain(n: int) -> tr.Tensor:
    """Return a tensor that remembers n operations, in no loop that anybody marked."""
    y = tr.tensor(1.0, requires_grad=True)
    for _ in range(n):
        y = y + 1
    return y


def recurrence(x: tr.Tensor) -> tr.Tensor:
    """A recurrence written from primitives."""
    h, W = tr.zeros(2, 3), tr.ones(3, 3)
    for t in tr.steps(len(x)):
        h = tr.tanh(x[t] + h @ W)
    return h


LONG = chain(50_000)
ROWS: dict[str, Callable[[], Any]] = {
    **{
        f"rolled, {name}, T={T:,}": lambda model=model, T=T: tr.draw(model, tr.randn(T, 2, 3))
        for name, model in {
            "RNN": nn.RNN(3, 4),
            "LSTM": nn.LSTM(3, 4),
            "GRU": nn.GRU(3, 4),
            "from primitives": recurrence,
        }.items()
        for T in (3, 1_000)
    },
    "unrolled, LSTM, T=100, every operation": lambda: tr.draw(
        nn.LSTM(3, 4), tr.randn(100, 2, 3), view="unrolled", detail="op"
    ),
    "unrolled, LSTM, T=1,000, summarised": lambda: tr.draw(nn.LSTM(3, 4), tr.randn(1_000, 2, 3), view="unrolled"),
    "a tensor with 50,000 operations": lambda: tr.draw(LONG),
}


def main() -> None:
    """Print a table."""
    print("| picture | nodes | draw | Graphviz |\n|---|---|---|---|")
    for name, make in ROWS.items():
        drawing, rendering, picture = [], [], make()
        for _ in range(RUNS):
            began = time.perf_counter()
            picture = make()
            drawn = time.perf_counter()
            picture.render("svg")
            drawing.append(drawn - began)
            rendering.append(time.perf_counter() - drawn)
        nodes = len(picture.graph.nodes)
        print(f"| {name} | {nodes:,} | {statistics.median(drawing):.2f} | {statistics.median(rendering):.2f} |")


if __name__ == "__main__":
    main()
