"""Which network for sequences? RNN, LSTM, GRU, causal convolutions and a transformer, with the same means.

    python examples/versus.py                               # both problems, five networks; ten minutes
    python examples/versus.py --text shakespeare            # or the path of a text; with --seconds 3600 more is learned
    python examples/versus.py --quick                       # see it run

All are used in the same way, logits, state = model(x, state), and have the same number of parameters, the same loop of
training, optimiser and batches, and the same time: not the same number of steps, of which a fast network makes more.
None is tuned by hand. Each tries the same four learning rates, for an equal time. A text is then learned anew with the
one that was best on held-out text, in the time that is left; of the runs that copy the one that came farthest counts.

Text: what character comes next? In bits per character of text that was neither learned from nor tuned on. "learned" is
how many characters a second it reads in training, "written" how many it writes, one after the other. "MB" is what the
operations forward make in a step of training, most of which the way back needs; "state" is all that it keeps of what it
has read, in numbers: an RNN's is as wide as its layer, a transformer's is the last 64 steps in full.

Copy: a few symbols come, then silence, then a signal to write them down. Whenever a network knows how to, the silence
becomes twice as long, and it learns on. "gap" is the longest across which it has remembered, "after" tells when that
was. Convolutions and attention are built so that they see across the longest; nothing but learning lets a recurrent
network do so.

It is a comparison of small networks that learn for a minute, here and now: more time, more parameters or another
machine, such as a GPU (--backend cupy), may give another order.

The picture needs Matplotlib: pip install 'tinyrnn[plot]'
Source: Bai, Kolter & Koltun 2018, "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence
    Modeling"; Arjovsky, Shah & Bengio 2016, "Unitary Evolution Recurrent Neural Networks" (copy, in this form).
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import command
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from tqdm import tqdm

import tinyrnn as tr
from tinyrnn import data, nn, optim
from tinyrnn.capture import leaves
from tinyrnn.generate import generate

KINDS = ("RNN", "LSTM", "GRU", "TCN", "transformer")
RATES: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2)
TUNING = 3 / 8  # of the time for the text, all rates together
BATCH, TIME, CLIP = 32, 64, 1.0
COPY_BATCH = 16
BAR = "{desc}: |{bar}| {n:.0f} of {total:.0f} s{postfix}"
HELD_OUT = 0.03  # of the text, to choose a rate by, and as much again to be tested
SYMBOLS, COPIED = 8, 5  # what is to be copied: 5 symbols, each one of 8
SILENCE, SIGNAL = SYMBOLS, SYMBOLS + 1
READING = 0.5  # the part of the time that goes to the text
COLOURS = dict(zip(KINDS, ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"), strict=True))  # Okabe & Ito

Array = npt.NDArray[Any]
Batch = tuple[Array, Array, bool]  # x (T, B); y, what is to be said at its last steps; whether a state goes on


class Network(nn.Module):
    """A vector for each symbol, a network of some kind, and a linear map to a logit for each symbol.

    Args: kind; vocabulary V; hidden H; reach, how many steps back it is to see, where that depends on how it is built.
    Shapes: x (T, B) of class numbers, state -> logits (T, B, V), state.
    """

    def __init__(self, kind: str, vocabulary: int, hidden: int, reach: int) -> None:
        self.kind, self.hidden = kind, hidden
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.body: nn.Module
        if kind == "TCN":
            layers = math.ceil(math.log2(reach / 4 + 1))  # with a width of 3 it reaches 4 (2^layers − 1) steps back
            self.body = nn.TCN(hidden, hidden, layers)
        elif kind == "transformer":
            self.body = nn.Transformer(hidden, heads=2, num_layers=2, context=reach)  # rotary
        else:
            self.body = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}[kind](hidden, hidden)
        self.output = nn.Linear(hidden, vocabulary)

    def forward(self, x: Any, state: Any = None) -> tuple[tr.Tensor, Any]:
        """Return the logits after each step, and the state after the last."""
        h, state = self.body(self.embedding(x), state)
        return self.output(h), state


def maker_of(kind: str, vocabulary: int, reach: int, options: argparse.Namespace) -> Callable[[], Network]:
    """Return a function that makes networks of a kind, all with the same first parameters.

    They are as wide as brings them closest to the number of parameters.
    """

    def off(hidden: int) -> float:
        return abs(math.log(size_of(Network(kind, vocabulary, hidden, reach)) / options.parameters))

    widths = itertools.count(4, 4)  # a transformer's is a multiple of 4: two heads, and pairs to be rotated
    best = next(hidden for hidden in widths if off(hidden) < off(hidden + 4))

    def new() -> Network:
        tr.manual_seed(options.seed)
        return Network(kind, vocabulary, best, reach)

    return new


def size_of(model: nn.Module) -> int:
    """Return how many parameters a model has."""
    return sum(p.size for p in model.parameters())


# ---------------------------------------------------------------- learning, the same for all


def learn(model: Network, batches: Iterator[Batch], rate: float, seconds: float) -> Iterator[tuple[float, float]]:
    """Train for some seconds; yield after each step how many of them have passed, and the loss.

    The learning rate rises for a twentieth of the time, and then falls to nothing, as half a cosine.
    """

    def gradients(x: tr.Tensor, y: tr.Tensor, state: Any) -> tuple[tr.Tensor, Any]:
        logits, state = model(x, state)
        loss = tr.cross_entropy(logits[len(logits) - len(y) :], y)
        loss.backward()
        return loss, tr.detach(state)

    step, optimizer = tr.capture(gradients, model), optim.Adam(model.parameters(), lr=rate)
    started, passed, state = monotonic(), 0.0, None
    with tqdm(desc=f"{model.kind}, learning rate {rate:g}", total=seconds, bar_format=BAR, leave=False) as bar:
        for x, y, goes_on in batches:
            optimizer.lr = rate * min(20 * passed / seconds + 0.01, (1 + math.cos(math.pi * passed / seconds)) / 2)
            optimizer.zero_grad()
            loss, state = step(x, y, state if goes_on else None)
            optim.clip_grad_norm(model.parameters(), CLIP)
            optimizer.step()
            value, passed = loss.item(), monotonic() - started
            bar.set_postfix_str(f"loss {value:.3f}", refresh=False)
            bar.update(passed - bar.n)
            yield passed, value
            if passed >= seconds:
                return


class Course(NamedTuple):
    """How a training went: the lower the score, the better; and the figures, with the seconds that had passed."""

    model: Network
    rate: float
    score: float
    seconds: list[float]
    figures: list[float]


Results = dict[str, tuple[Course, dict[str, float]]]  # of each kind its training, and what it reaches


def best_of(run: Callable[[float, float], Course], seconds: float, rates: tuple[float, ...]) -> Course:
    """Run with each of the learning rates for as long, and return the best."""
    return min((run(rate, seconds / len(rates)) for rate in rates), key=lambda course: course.score)


def tuned(run: Callable[[float, float], Course], seconds: float, rates: tuple[float, ...]) -> Course:
    """Run with the learning rate that is the best of several, each tried for a part of the time."""
    if len(rates) == 1:
        return run(rates[0], seconds)
    return run(best_of(run, TUNING * seconds, rates).rate, (1 - TUNING) * seconds)


# ---------------------------------------------------------------- text


def windows_of(text: Array) -> Iterator[Batch]:
    """Return the windows of a text, again and again; a state goes on from each to the next."""
    windows = data.Streams(text, BATCH, TIME)
    return ((*windows[k], k > 0) for _ in itertools.count() for k in range(len(windows)))


@tr.no_grad()
def bits(model: Network, text: Array) -> float:
    """Return the loss in bits per character, with the state carried through the text."""
    model.eval()
    state, losses = None, []
    for x, y in data.Streams(text, BATCH, TIME):
        logits, state = model(x, state)
        losses.append(tr.cross_entropy(logits, y).item())
    model.train()
    mean = float(np.mean(losses)) / math.log(2)
    return math.inf if math.isnan(mean) else mean  # NaN is no worse than anything; a rate that leads to it is


def bigram_bits(learned: Array, text: Array, vocabulary: int) -> float:
    """Return the bits per character of a table of which character follows which: the baseline."""
    counts = np.ones((vocabulary, vocabulary))
    np.add.at(counts, (learned[:-1], learned[1:]), 1)
    p = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.log2(p[text[:-1], text[1:]]).mean())


def read(new: Callable[[], Network], learned: Array, held_out: Array, rate: float, seconds: float) -> Course:
    """Let a new network learn a text; the figures are bits per character of the windows that it learns from."""
    model = new()
    moments, losses = zip(*learn(model, windows_of(learned), rate, seconds), strict=True)
    return Course(model, rate, bits(model, held_out), list(moments), [loss / math.log(2) for loss in losses])


def written_per_second(model: Network, begin: int, length: int) -> float:
    """Return how many characters a second it writes."""
    symbols = generate(model, [begin], length + 2, generator=tr.Generator(0))
    next(symbols), next(symbols)  # the first two are captured
    started = monotonic()
    return sum(1 for _ in symbols) / (monotonic() - started)


def costs(model: Network, text: Array) -> tuple[float, int]:
    """Return the MB that the operations forward of a step of training make, and the numbers in a sequence's state."""
    x, y = data.Streams(text, BATCH, TIME)[0]
    with tr.profile() as report:
        logits, state = model(x)
        tr.cross_entropy(logits, y).backward()
    made = sum(row.bytes for row in report.rows if row.direction == "forward")
    return made / 1e6, sum(part.size for part in leaves(state)) // BATCH


# ---------------------------------------------------------------- copying across a gap


def copies(gap: int, generator: tr.Generator) -> Batch:
    """Return x, symbols, silence for a gap, a signal and silence; and y, the symbols, to be said at the end."""
    symbols = generator.host.integers(0, SYMBOLS, (COPIED, COPY_BATCH))
    silence = np.full((gap + COPIED, COPY_BATCH), SILENCE)
    silence[gap - 1] = SIGNAL
    return np.concatenate([symbols, silence]), symbols, False


def remember(new: Callable[[], Network], longest: int, seed: int, rate: float, seconds: float) -> Course:
    """Let a new network learn to copy across gaps that grow; the figures are the gaps learned."""
    model, gap, learned, shown = new(), 2, 0, tr.Generator(seed)
    moments, figures = [0.0], [0.0]
    for passed, loss in learn(model, (copies(gap, shown) for _ in itertools.count()), rate, seconds):
        if loss < 0.1 and right(model, *copies(gap, tr.Generator(seed + 1))) > 0.99:
            moments, figures, learned = [*moments, passed], [*figures, gap], gap
            if gap == longest:
                break
            gap = min(2 * gap, longest)
    return Course(model, rate, moments[-1] - 1e6 * learned, moments, figures)


@tr.no_grad()
def right(model: Network, x: Array, y: Array, _: bool) -> float:
    """Return the share of symbols that are copied rightly."""
    logits, _state = model(x)
    return float(np.mean(logits[-len(y) :].numpy().argmax(axis=-1) == y))


# ---------------------------------------------------------------- the comparison


def compare_reading(text: str, rates: tuple[float, ...], options: argparse.Namespace) -> tuple[Results, float]:
    """Let all kinds learn a text, and print a table; return what came of it, and the bits of a bigram."""
    vocabulary = data.Vocabulary.of(text)
    ids = vocabulary.encode(text)
    learned, tested = data.split(ids, max(HELD_OUT, 1.1 * BATCH * TIME / len(ids)))
    learned, held_out = data.split(learned, len(tested) / len(learned))
    seconds, results = READING * options.seconds / len(KINDS), {}
    print(f"{options.text}: {len(learned):,} characters to learn from, {len(tested):,} to be tested")
    print(f"{seconds:.3g} s for each network, the tries with {len(rates)} learning rates included\n")
    print_row("", "bits", "learned/s", "written/s", "MB", "state", "parameters", "H", "rate")
    for kind in KINDS:
        new = maker_of(kind, len(vocabulary), TIME, options)
        course = tuned(partial(read, new, learned, held_out), seconds, rates)
        made, state = costs(course.model, learned)
        figures = {
            "bits": bits(course.model, tested),
            "learned": BATCH * TIME / float(np.median(np.diff([0.0, *course.seconds]))),
            "written": written_per_second(course.model, int(tested[0]), 20 if options.quick else 500),
        }
        results[kind] = course, figures
        cells = f"{figures['bits']:.3f}", f"{figures['learned']:,.0f}", f"{figures['written']:,.0f}"
        size = f"{size_of(course.model):,}"
        print_row(kind, *cells, f"{made:.1f}", f"{state:,}", size, f"{course.model.hidden}", f"{course.rate:g}")
    return results, bigram_bits(learned, tested, len(vocabulary))


def compare_copying(longest: int, rates: tuple[float, ...], options: argparse.Namespace) -> Results:
    """Let all kinds copy across gaps that grow, and print a table; return what came of it."""
    seconds, results = (1 - READING) * options.seconds / len(KINDS), {}
    print(f"\ncopying across gaps of up to {longest} steps, {seconds / len(rates):.3g} s at each learning rate\n")
    print_row("", "gap", "after, s", "parameters", "H", "rate")
    for kind in KINDS:
        new = maker_of(kind, SYMBOLS + 2, longest + 2 * COPIED, options)
        course = best_of(partial(remember, new, longest, options.seed), seconds, rates)
        results[kind] = course, {"gap": course.figures[-1]}
        cells = f"{course.figures[-1]:g}", f"{course.seconds[-1]:.1f}", f"{size_of(course.model):,}"
        print_row(kind, *cells, f"{course.model.hidden}", f"{course.rate:g}")
    return results


def print_row(name: str, *cells: str) -> None:
    """Print a row of a table, at once."""
    print(f"{name:11}" + "".join(f"{cell:>11}" for cell in cells), flush=True)


def draw(reading: Results, copying: Results, bigram: float, path: Path) -> None:
    """Draw what was learned in the same time, in both problems, and how fast each reads and writes."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, last = figure.subplots(1, 3)
    for kind, (course, _) in reading.items():
        size = max(1, len(course.figures) // 20)
        mean = np.convolve(course.figures, np.ones(size) / size, mode="valid")
        left.plot(course.seconds[size - 1 :], mean, color=COLOURS[kind], lw=1.6, label=kind)
    left.axhline(bigram, color="black", ls=":", lw=1, label="bigram")
    left.set(xlabel="seconds of training", ylabel="bits per character", title="Text: what is left to be learned")
    left.set_ylim(None, 5)
    for kind, (course, _) in copying.items():
        middle.step(course.seconds, course.figures, where="post", color=COLOURS[kind], lw=1.6, label=kind)
        middle.plot(course.seconds[-1], course.figures[-1], "o", color=COLOURS[kind])
    middle.set_yscale("symlog", base=2, linthresh=2)
    middle.set(xlabel="seconds of training", ylabel="steps of silence", title="Copy: the gap that it remembers across")
    place, colours = np.arange(len(reading)), [COLOURS[kind] for kind in reading]
    for name, up, opacity in (("learned", -0.2, 0.5), ("written", 0.2, 1.0)):
        speeds = [figures[name] for _, figures in reading.values()]
        bars = last.barh(place + up, speeds, 0.38, color=colours, alpha=opacity, log=True)
        last.bar_label(bars, [f"{speed:,.0f} {name}" for speed in speeds], padding=3, fontsize=8)
    last.set_yticks(place, list(reading))
    last.invert_yaxis()
    last.set_xlim(right=10 * max(figures["learned"] for _, figures in reading.values()))  # room for the labels
    last.set(xlabel="characters a second", title="Speed")
    for ax in (left, middle):
        ax.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    print(f"\ndrawn: {path}")


def main() -> None:
    """Let each network learn both problems, and say what came of it."""
    options = command.arguments(
        __doc__,
        600,
        ("--text", str, "numpy-docs", "to be learned: numpy-docs, shakespeare, tunes, or the path of a file"),
        ("--parameters", int, 100_000, "of each network"),
        ("--longest", int, 512, "gap of the copy problem"),
    )
    for name, least in (("seconds", 1), ("parameters", 1_000), ("longest", 2)):
        if vars(options)[name] < least:
            raise ValueError(f"--{name} is {vars(options)[name]:g}; expected {least:,} or more")
    text, longest, rates = data.read_text(options.text), options.longest, RATES
    if options.quick:
        text, longest, rates, options.parameters = text[: 40 * BATCH * TIME], 4, RATES[1:2], 4_000

    reading, bigram = compare_reading(text, rates, options)
    copying = compare_copying(longest, rates, options)
    draw(reading, copying, bigram, options.out / "versus.png")
    farthest = max(figures["gap"] for _, figures in copying.values())
    who = ", ".join(kind for kind, (_, figures) in copying.items() if figures["gap"] == farthest)
    print(f"the longest gap: {farthest:g} ({who})")
    best = min(KINDS, key=lambda kind: reading[kind][1]["bits"])
    command.reached(f"bits per character, {best}", reading[best][1]["bits"], "bigram", bigram)


if __name__ == "__main__":
    command.run(main)
