"""From what was measured to Markdown: absolute figures, ratios, and which bars hold."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from workers import PEERS, SUBJECTS

Rounds = list[list[float]]  # for each round what was measured, in seconds or bytes
Case = dict[str, Rounds]  # for each peer
Results = dict[str, dict[str, Case]]  # for each part, for each case: "lstm, char-rnn"

UNITS = {  # of each part: what it is called, how many there are to a second or byte, and how it is written
    "training": ("ms of a training step", 1e3, ".1f"),
    "generation": ("µs of a character", 1e6, ".0f"),
    "growth": ("µs of a time step, forward and backward, of one layer", 1e6, ".0f"),
    "memory": ("MiB at the peak, net of imports", 2**-20, ".0f"),
}


class Spread(NamedTuple):
    """A median and what it lies between."""

    median: float
    low: float
    high: float


def spread(rounds: Rounds) -> Spread:
    """Return the spread of all that was measured."""
    flat = [value for values in rounds for value in values]
    return Spread(statistics.median(flat), min(flat), max(flat))


def ratio(case: Case, subject: str, peer: str) -> Spread:
    """Return the ratio of the medians, and the least and the greatest of the rounds'."""
    pairs = zip(case[subject], case[peer], strict=True)
    each = [statistics.median(ours) / statistics.median(theirs) for ours, theirs in pairs]
    return Spread(spread(case[subject]).median / spread(case[peer]).median, min(each), max(each))


def shown(value: Spread, scale: float = 1.0, style: str = ".2f") -> str:
    """Write a spread: median (minimum to maximum)."""
    median, low, high = (f"{scale * x:{style}}" for x in value)
    return f"{median} ({low} to {high})"


def table(title: str, head: list[str], rows: Iterable[list[str]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join([f"\n**{title}**\n", *(f"| {' | '.join(line)} |" for line in lines)])


def report(part: str, cases: dict[str, Case]) -> Iterator[str]:
    """Yield a table of a part's absolute figures, and one of ratios for each of the SUBJECTS."""
    what, scale, style = UNITS[part]
    present = [name for name in PEERS if any(name in case for case in cases.values())]
    rows = [
        [key, *(shown(spread(case[name]), scale, style) if name in case else "–" for name in present)]
        for key, case in cases.items()
    ]
    labels = [PEERS[name].label for name in present]
    yield table(f"{part.capitalize()}: {what}, on this machine: median (min to max)", ["", *labels], rows)
    others = [name for name in present if name not in SUBJECTS]
    for subject in SUBJECTS:
        if subject not in present or not others:
            continue
        rows = [
            [key, *(shown(ratio(case, subject, name)) if {name, subject} <= set(case) else "–" for name in others)]
            for key, case in cases.items()
        ]
        labels = [PEERS[name].label for name in others]
        title = f"{part.capitalize()}: {PEERS[subject].label} / …, median (min to max of the rounds)"
        yield table(title, ["", *labels], rows)


class Bar(NamedTuple):
    """The most that the median of subject / peer may be, in cases of a part; other cases have no bar."""

    part: str
    peer: str
    cells: tuple[str, ...]
    at_most: dict[str, float]
    subject: str = "tinyrnn"


ALL, SIZES = ("lstm", "gru", "rnn"), ("char-rnn", "h256", "h512")
FASTER = dict.fromkeys(("library", "example"), 1 / 1.5)  # 1.5 times as many characters
BARS = [
    Bar("training", "pytorch", ("lstm",), {"char-rnn": 1.35, "h256": 1.1, "h512": 1.1}),
    Bar("training", "pytorch", ("gru",), dict.fromkeys(SIZES, 0.9)),
    Bar("training", "pytorch", ("rnn",), dict.fromkeys(SIZES, 0.95)),
    Bar("training", "jax", ("lstm",), dict.fromkeys(SIZES, 0.7)),
    Bar("training", "jax", ("gru",), dict.fromkeys(SIZES, 0.8)),
    Bar("training", "jax", ("rnn",), dict.fromkeys(SIZES, 0.9)),
    Bar("training", "autograd", ALL, dict.fromkeys(SIZES, 0.25)),
    Bar("training", "mygrad", ALL, dict.fromkeys(SIZES, 0.25)),
    Bar("training", "products", ALL, {"char-rnn": 1.5, "h512": 1.2}),
    Bar("training", "jax", ("lstm",), dict.fromkeys(SIZES, 1.0), subject="tinyrnn-plain"),
    Bar("generation", "pytorch", ALL, FASTER),
    Bar("generation", "pytorch-cells", ALL, FASTER),
    Bar("memory", "pytorch", ALL, {"h512": 1.0}),
]


def bars(results: Results) -> Iterator[list[str]]:
    """Yield a row for each bar of which both sides were measured."""
    for bar in BARS:
        for cell in bar.cells:
            for name, most in bar.at_most.items():
                case = results.get(bar.part, {}).get(f"{cell}, {name}", {})
                if {bar.subject, bar.peer} <= set(case):
                    measured = ratio(case, bar.subject, bar.peer)
                    what = f"{bar.part}, {cell}, {name}: {PEERS[bar.subject].label} / {PEERS[bar.peer].label}"
                    yield [what, f"{most:.2f}", shown(measured), "yes" if measured.median <= most else "**no**"]
