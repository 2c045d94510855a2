"""How the time of a training step grows with T: it must be linear, since BPTT visits each step once.

python benchmarks/growth.py [--cell lstm] [--hidden 128] [--batch 50] [--repeat 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import tinyrnn as tr
from tinyrnn import nn

LENGTHS = (25, 50, 100, 200, 400, 800, 1600)


def seconds_of_a_step(layer: nn.Recurrent, T: int, batch: int) -> float:
    """Time one forward and backward pass over a sequence of length T."""
    x = tr.randn(T, batch, layer.input_size, requires_grad=True)
    started = time.perf_counter()
    out, _ = layer(x)
    (out * out).mean().backward()
    return time.perf_counter() - started


def main() -> None:
    """Print the median time for each T, and how it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", choices=["rnn", "lstm", "gru"], default="lstm")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the seconds of each run")
    options = parser.parse_args()
    kind = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[options.cell]
    layer = kind(options.hidden, options.hidden)
    seconds_of_a_step(layer, 25, options.batch)  # the first run finds caches cold
    times: dict[int, list[float]] = {T: [] for T in LENGTHS}
    for _ in range(options.repeat):  # in turn, so that a slow moment of the machine meets all lengths
        for T in LENGTHS:
            times[T].append(seconds_of_a_step(layer, T, options.batch))
    if options.json:
        options.json.write_text(json.dumps(times), encoding="utf-8")
    print(f"{options.cell}, H={options.hidden}, B={options.batch}, forward and backward, {options.repeat} runs\n")
    print("| T | median ms | min | max | µs per time step |\n|---|---|---|---|---|")
    medians = {T: statistics.median(runs) for T, runs in times.items()}
    for T, runs in times.items():
        ms = (f"{1e3 * t:.1f}" for t in (medians[T], min(runs), max(runs)))
        print(f"| {T} | {' | '.join(ms)} | {1e6 * medians[T] / T:.0f} |")
    print(f"\nT=800 takes {medians[800] / medians[200]:.2f} times as long as T=200 (linear: 4; at most 5)")


if __name__ == "__main__":
    main()
