"""How long pictures and gradient flow take: python benchmarks/pictures.py

Each row of the first table is the median of five runs of `tr.draw(model, x)`, and of what Graphviz then takes for an
SVG, in seconds. The second compares `tr.gradient_flow` for one loss with a plain backward pass, and with forward and
backward pass, in turns; medians of 25.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import tinyrnn as tr
from tinyrnn import nn

RUNS = 5
FLOW_RUNS = 25


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


def flow_row(name: str, layer: nn.Recurrent) -> str:
    """Return a line of the second table: T=100, B=16, I=32, H=64."""
    x, times = tr.randn(100, 16, 32), {name: list[float]() for name in ("flow", "backward", "both")}

    def losses(out: tr.Tensor, _: Any) -> tr.Tensor:
        return tr.sum(out**2, axis=-1)

    for n in range(FLOW_RUNS + 1):
        began = time.perf_counter()
        _ = tr.gradient_flow(layer, (x, None), losses, at=99).norms
        measured = time.perf_counter()
        loss = losses(layer(x)[0], None).mean(1)[99]
        forward = time.perf_counter()
        loss.backward()
        ended = time.perf_counter()
        if n > 0:  # the first finds nothing compiled
            times["flow"].append(measured - began)
            times["backward"].append(ended - forward)
            times["both"].append(ended - measured)
    flow, backward, both = (statistics.median(runs) for runs in times.values())
    return f"| {name} | {1e3 * flow:.1f} | {flow / backward:.2f} | {flow / both:.2f} |"


def main() -> None:
    """Print two tables."""
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
    print("\n| gradient flow, one loss | ms | / backward | / forward and backward |\n|---|---|---|---|")
    for name, layer in {"RNN": nn.RNN(32, 64), "LSTM": nn.LSTM(32, 64), "GRU": nn.GRU(32, 64)}.items():
        print(flow_row(name, layer))


if __name__ == "__main__":
    main()
