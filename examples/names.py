"""Where is a name from? And which names are there? One file of names, two networks that read it in opposite ways.

    python examples/names.py                    # learn 21,434 names, and judge 2,709 others
    python examples/names.py --quick            # see it run
    python examples/names.py --hidden 128 --seconds 120

Many to one: a name goes in letter by letter, one of 18 nationalities comes out. A GRU reads the letters in both
directions. Its two last states decide, for the ends of names say most, -son, -ović, -ski, together with the largest
output of each unit over time, for what matters may stand anywhere.

One to many: a nationality goes in, a name comes out. A character model begins with a state of its own for each
nationality, and writes letter after letter, each drawn from what it expects after those before. While it learns, it is
given the letters as they should be (teacher forcing).

Who can write can judge, by Bayes' rule: p(nation | name) ∝ p(name | nation) p(nation). The classifier is the better
judge, but the two err in different ways, and the figure is of both: p of the classifier · √p of the writer. The root
was chosen on the validation names.

The baseline is naive Bayes on n-grams: how often each nation's names have each sequence of one to five letters. The
split is by name, so none that is tested has been learned. A name that several nations have, such as Anna, is there once
for each, and can only be right for one of them: that is the ceiling which is printed, of any method.

Data: first names and surnames (the Faker contributors, MIT): python -m tinyrnn.data fetch names
The picture needs Matplotlib: pip install 'tinyrnn[plot]'
Source: Graves 2013, "Generating Sequences With Recurrent Neural Networks"; Cavnar & Trenkle 1994, "N-Gram-Based Text
    Categorization".
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import command
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

import tinyrnn as tr
from tinyrnn import data, nn, optim
from tinyrnn.data import BEGIN, END, PADDING, SPECIAL, UNKNOWN, Vocabulary
from tinyrnn.errors import TinyRNNError
from tinyrnn.fit import fit
from tinyrnn.generate import sample

NEIGHBOURS = [
    ["Icelandic", "Swedish", "Danish", "Finnish", "Dutch", "German", "English", "Irish"],
    ["French", "Italian", "Spanish", "Portuguese", "Romanian"],
    ["Croatian", "Czech", "Polish", "Hungarian", "Turkish"],
]
NATIONS = Vocabulary([nation for group in NEIGHBOURS for nation in group])
BATCH, LONGEST_GRAM, SMOOTHING = 128, 5, 0.1
QUICK_EPOCHS, WRITERS_SHARE = 2, 0.5
UNKNOWN_SHARE = 0.1  # of the letters that are learned from: those that are left have to do

Array = npt.NDArray[Any]
Batch = tuple[Array, Array, Array]  # x (T, B), lengths (B,), nations (B,)


class Classifier(nn.Module):
    """Many to one: letters x (T, B), lengths (B,) -> logits of nations (B, 18)."""

    def __init__(self, letters: int, hidden: int) -> None:
        self.embedding = nn.Embedding(letters, 64)
        self.recurrent = nn.GRU(64, hidden, bidirectional=True)
        self.embedding_dropout, self.dropout = nn.Dropout(0.1), nn.Dropout(0.5)
        self.output = nn.Linear(4 * hidden, len(NATIONS))

    def forward(self, x: Array, lengths: Array) -> tr.Tensor:
        """Return a logit for each nation."""
        out, state = self.recurrent(self.embedding_dropout(self.embedding(x)), lengths=lengths)  # out: from −1 to 1
        there = tr.tensor(data.mask(lengths, len(x))[..., None])
        largest = tr.where(there, out, -1.0).max(axis=0)
        return self.output(self.dropout(tr.concatenate([state.h[0], state.h[1], largest], axis=-1)))


class Writer(nn.Module):
    """One to many: a state for each nation, and from there letter after letter: x (T, B) -> logits (T, B, letters)."""

    def __init__(self, letters: int, hidden: int) -> None:
        self.nations = nn.Embedding(len(NATIONS), hidden)
        self.embedding = nn.Embedding(letters, 64)
        self.recurrent = nn.GRU(64, hidden)
        self.dropout = nn.Dropout(0.3)
        self.output = nn.Linear(hidden, letters)

    def first(self, nations: Array) -> tr.Tensor:
        """Return the state that names of these nations (B,) begin with: (1, B, H)."""
        return tr.tanh(self.nations(nations[None]))

    def forward(self, x: Any, state: Any) -> tuple[tr.Tensor, Any]:
        """Return the logits of the letter that follows each letter of x, and the state after the last."""
        out, state = self.recurrent(self.embedding(x), state)
        return self.output(self.dropout(out)), state


# ---------------------------------------------------------------- names


class Names:
    """Names as letters' numbers, from BEGIN to END, and their nations."""

    def __init__(self, part: list[tuple[str, str]], letters: Vocabulary) -> None:
        self.names, nations = zip(*part, strict=True)
        self.ids = [letters.encode(name.lower(), begin=True, end=True) for name in self.names]
        self.nations, self.letters = NATIONS.encode(nations), letters

    def batches(self, generator: tr.Generator | None = None) -> Iterator[Batch]:
        """Yield padded batches of names of similar length."""
        for chosen in data.buckets([len(ids) for ids in self.ids], BATCH, generator):
            x, lengths = data.pad([self.ids[i] for i in chosen], self.letters.id(PADDING))
            yield x, lengths, self.nations[chosen]

    def spoiled(self, generator: tr.Generator) -> Iterator[Batch]:
        """Yield batches in which some letters are unknown."""
        for x, lengths, nations in self.batches(generator):
            lost = (generator.host.random(x.shape) < UNKNOWN_SHARE) & (x >= len(SPECIAL))
            yield np.where(lost, self.letters.id(UNKNOWN), x), lengths, nations


def naive_bayes(train: Names, test: Names) -> Array:
    """Return log p(nation) + Σ log p(n-gram | nation), (N, 18)."""

    def grams(name: str) -> list[str]:
        text = f"^{name.lower()}$"
        return [text[i : i + n] for n in range(1, LONGEST_GRAM + 1) for i in range(len(text) - n + 1)]

    lists = [grams(name) for name in train.names]
    known = Vocabulary.of((gram for gram_list in lists for gram in gram_list), special=[UNKNOWN])
    counts = np.full((len(known), len(NATIONS)), SMOOTHING)
    for gram_list, nation in zip(lists, train.nations, strict=True):
        np.add.at(counts[:, nation], known.encode(gram_list), 1)
    log_p = np.log(counts / counts.sum(axis=0))
    log_p[known.id(UNKNOWN)] = 0  # what no nation's names have had says nothing
    prior = np.log(np.bincount(train.nations, minlength=len(NATIONS)) + 1)
    return np.array([prior + log_p[known.encode(grams(name))].sum(axis=0) for name in test.names])


# ---------------------------------------------------------------- learning and judging


def classified(model: Classifier, names: Names) -> Array:
    """Return log p(nation | name), (N, 18): what the classifier thinks."""
    log_p = np.zeros((len(names.ids), len(NATIONS)))
    model.eval()
    with tr.no_grad():
        for chosen in data.buckets([len(ids) for ids in names.ids], 256):
            log_p[chosen] = tr.log_softmax(model(*data.pad([names.ids[i] for i in chosen]))).numpy()
    return log_p


def judged(model: Writer, names: Names, log_prior: Array) -> Array:
    """Return log p(name | nation) + log p(nation), (N, 18): what the writer thinks, but for a constant."""
    log_p = np.zeros((len(names.ids), len(NATIONS)))
    model.eval()
    with tr.no_grad():
        for chosen in data.buckets([len(ids) for ids in names.ids], 256):
            x, lengths = data.pad([names.ids[i] for i in chosen])
            for nation in range(len(NATIONS)):
                logits, _ = model(x[:-1], model.first(np.full(len(chosen), nation)))
                nats = tr.cross_entropy(logits, x[1:], reduction="none", mask=data.mask(lengths - 1))
                log_p[chosen, nation] = log_prior[nation] - nats.sum(axis=0).numpy()
    return log_p


def accuracy(log_p: Array, names: Names) -> float:
    """Return the share of names whose likeliest nation is the right one."""
    return float(np.mean(log_p.argmax(axis=-1) == names.nations))


def write(model: Writer, letters: Vocabulary, nations: Array, generator: tr.Generator) -> list[str]:
    """Return a new name for each of these nations."""
    begin = np.full((1, len(nations)), letters.id(BEGIN))
    with tr.no_grad():
        written = sample(
            model, begin, 25, state=model.first(nations), stop=letters.id(END), generator=generator, temperature=0.8
        )
    return [letters.decode(ids).title() for ids in written]


def learn(
    name: str,
    model: nn.Module,
    loss_of: Callable[[Batch], tr.Tensor],
    batches: Callable[[tr.Generator], Iterator[Batch]],
    validate: Callable[[], float],
    epochs: int,
    seconds: float,
    options: argparse.Namespace,
) -> None:
    """Train a model for some epochs, while the learning rate falls to 0."""
    print(f"{name}: {sum(parameter.size for parameter in model.parameters()):,} parameters")
    epochs = QUICK_EPOCHS if options.quick else epochs
    steps = epochs * sum(1 for _ in batches(tr.Generator(0)))
    history = fit(
        model,
        loss_of,
        batches,
        optimizer=optim.AdamW(model.parameters(), lr=optim.Cosine(4e-3, steps), weight_decay=0.01),
        validate=validate,
        epochs=epochs,
        seconds=None if options.quick else seconds,
        clip=1.0,
        seed=options.seed,
        folder=options.out / name,
    )
    if history.best is None:
        raise TinyRNNError(command.too_early(history, options))
    line = history.best
    print(
        f"{name}: {validate.__name__} {line['validation']:.3f} in epoch {line['epoch']}, {history.seconds:.0f} s in all"
    )


def draw(named: Array, nations: Array, path: Path) -> None:
    """Draw the confusion matrix: a row for each nation, and what its names are taken for."""
    counts = np.zeros((len(NATIONS), len(NATIONS)))
    np.add.at(counts, (nations, named), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(9, 8), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(shares, cmap="viridis", vmin=0, vmax=1)
    figure.colorbar(image, ax=ax, label="share of the nation's names")
    for i, j in np.argwhere(shares >= 0.05):
        ink = "black" if shares[i, j] > 0.6 else "white"
        ax.text(j, i, f"{100 * shares[i, j]:.0f}", ha="center", va="center", fontsize=8, color=ink)
    ax.set_xticks(range(len(NATIONS)), NATIONS.symbols, rotation=90)
    ax.set_yticks(range(len(NATIONS)), NATIONS.symbols)
    ax.set(xlabel="taken for", ylabel="is", title=f"{len(named):,} names that were not learned, in per cent of a row")
    figure.savefig(path, dpi=110)
    print(f"drawn: {path}")


def main() -> None:
    """Learn to classify and to write, compare, draw, and tell what was reached."""
    options = command.arguments(__doc__, 600, ("--hidden", int, 256, "H, width of each direction"))
    split = data.load("names")
    if options.quick:
        split = data.Split(*(part[:: len(part) // 600] for part in split))
        options.hidden = min(options.hidden, 16)
    letters = Vocabulary.of("".join(name.lower() for name, _ in split.train), special=SPECIAL)
    train, validation, test = (Names(part, letters) for part in split)

    classifier = Classifier(len(letters), options.hidden)

    def loss_of_name(batch: Batch) -> tr.Tensor:
        x, lengths, nations = batch
        return tr.cross_entropy(classifier(x, lengths), nations)

    def error() -> float:
        return 1 - accuracy(classified(classifier, validation), validation)

    learn("classifier", classifier, loss_of_name, train.spoiled, error, 16, options.seconds * 2 / 3, options)

    writer = Writer(len(letters), options.hidden)

    def loss_of_letters(batch: Batch) -> tr.Tensor:
        x, lengths, nations = batch  # each letter but the last is read, each but the first is to be foretold
        logits, _ = writer(x[:-1], writer.first(nations))
        return tr.cross_entropy(logits, x[1:], mask=data.mask(lengths - 1))

    def bits() -> float:
        batches = list(validation.batches())
        nats = [loss_of_letters(batch).item() for batch in batches]
        return float(np.average(nats, weights=[(lengths - 1).sum() for _, lengths, _ in batches])) / math.log(2)

    learn("writer", writer, loss_of_letters, train.batches, bits, 16, options.seconds / 3, options)

    nations = np.repeat(np.arange(len(NATIONS)), 50)
    written = write(writer, letters, nations, tr.Generator(options.seed))
    learned = {name.lower() for name in train.names}
    for k, nation in enumerate(NATIONS.symbols):
        print(f"{nation:>10}: {', '.join(written[50 * k : 50 * k + 6])}")
    new = np.mean([name.lower() not in learned for name in written])
    pairs = [(name, NATIONS.symbols[nation]) for name, nation in zip(written, nations, strict=True)]
    written_names = Names(pairs, letters)
    meant = accuracy(classified(classifier, written_names), written_names)
    print(f"of {len(written)} that were written, {new:.0%} are new; {meant:.0%} are classified as what they should be")

    log_prior = np.log(np.bincount(train.nations, minlength=len(NATIONS)) + 1)
    by_classifier, by_writer = classified(classifier, test), judged(writer, test, log_prior)
    both = by_classifier + WRITERS_SHARE * by_writer
    print(f"ceiling: {len(set(test.names)) / len(test.names):.4f}")
    print(f"classifier: {accuracy(by_classifier, test):.4f}, writer: {accuracy(by_writer, test):.4f}")
    draw(both.argmax(axis=-1), test.nations, options.out / "confusion.png")
    command.reached("accuracy", accuracy(both, test), "n-grams", accuracy(naive_bayes(train, test), test))


if __name__ == "__main__":
    command.run(main)
