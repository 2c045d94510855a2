"""Named entities: where in a sentence a person, a place or a company is named, by a network that reads letters.

    python examples/entities.py               # a minute; runs/entities has the network and a picture
    python examples/entities.py --quick       # see it run, on few sentences

Many to many, equal: a word comes in at every step and a label goes out. B begins a name, I goes on with it, O is none:

    Mary   Smith  left  Baker  Group  in  New    York   .
    B-PER  I-PER  O     B-ORG  I-ORG  O   B-LOC  I-LOC  O

Names are what no list has all of: half of the held-out words do not occur in training. So this network has no list of
words. One LSTM reads the letters of a word, in both directions, and what it remembers in the end is the word's vector;
a second one reads these vectors, in both directions too, and tells how likely each label is. The answer is the
likeliest sequence of labels in which each I goes on with a name of its kind: the algorithm of Viterbi finds it.

There are only thirty templates to learn from. A network would soon know them by heart, and take each word that is new
to it for a name. So while it learns, some words that are no name are exchanged for invented ones.

Data: 5,000 generated sentences: templates of ours, filled with names from Faker, MIT. They are much more regular than
what people write, and the figure says nothing about newspapers. The parts share no template, no name and no place.
python -m tinyrnn.data fetch entities
The picture needs Matplotlib: pip install 'tinyrnn[plot]'
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import command
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

import tinyrnn as tr
from tinyrnn import data, nn, optim
from tinyrnn.fit import fit

LETTERS, SPELLED, HIDDEN = 24, 32, 48  # widths: a letter's vector, and the two LSTMs in each direction
DROPOUT, EXCHANGED = 0.5, 0.4  # shares: of a vector that is dropped, of the words beside names that are exchanged
COLOURS = {"PER": "#0072B2", "LOC": "#009E73", "ORG": "#D55E00"}  # Okabe & Ito 2008

Sentence = tuple[tuple[str, ...], tuple[str, ...]]  # words, and a label for each
Names = set[tuple[int, int, str]]  # of a sentence: from which word, up to which one, of which kind
Ints = npt.NDArray[np.int64]


class EntityTagger(nn.Module):
    """Letters become words, words become labels, each time by an LSTM in both directions.

    Shapes: letters (N, W) and their lengths (W,), for W different words; words (T, B), which of these stands where, and
        their lengths (B,) -> logits (T, B, V).
    """

    def __init__(self, letters: int, labels: int) -> None:
        self.embedding = nn.Embedding(letters, LETTERS)
        self.spelling = nn.LSTM(LETTERS, SPELLED, bidirectional=True)
        self.sentence = nn.LSTM(2 * SPELLED, HIDDEN, bidirectional=True)
        self.dropout = nn.Dropout(DROPOUT)
        self.output = nn.Linear(2 * HIDDEN, labels)

    def forward(self, letters: Ints, letters_lengths: Ints, words: Ints, lengths: Ints) -> tr.Tensor:
        """Return the logits of each word's label."""
        _, read = self.spelling(self.embedding(letters), lengths=letters_lengths)
        vectors = tr.concatenate(tr.unstack(read.h), axis=-1)  # the last state of both directions: (W, 2 · SPELLED)
        h, _ = self.sentence(self.dropout(vectors)[tr.tensor(words)], lengths=lengths)
        return self.output(self.dropout(h))


def words_beside_names(sentences: list[Sentence]) -> list[str]:
    """Return the words that are no name, as often as they occur."""
    return [word for words, labels in sentences for word, label in zip(words, labels, strict=True) if label == "O"]


def exchanged(sentence: Sentence, others: list[str], random: np.random.Generator) -> Sentence:
    """Return a sentence in which some words that are no name are invented ones: another's letters, in another order."""
    words, labels = list(sentence[0]), sentence[1]
    for i in np.flatnonzero(random.random(len(words)) < EXCHANGED):
        if labels[i] == "O":
            letters = list(others[random.integers(len(others))].lower())
            invented = "".join(letters[k] for k in random.permutation(len(letters)))
            words[i] = invented.capitalize() if i == 0 else invented
    return tuple(words), labels


def names_in(labels: tuple[str, ...] | list[str]) -> Names:
    """Return the names that labels tell; an I that goes on with nothing begins one."""
    found, start, kind = set(), -1, "O"
    for i, label in enumerate([*labels, "O"]):
        if kind != "O" and label != f"I-{kind}":
            found.add((start, i, kind))
            kind = "O"
        if label != "O" and kind == "O":
            start, kind = i, label[2:]
    return found


def likeliest(logits: npt.NDArray[Any], symbols: tuple[str, ...]) -> list[str]:
    """Return the likeliest labels of logits (T, V) in which an I goes on with a name of its kind (Viterbi 1967)."""
    follows = [[label[0] != "I" or before[1:] == label[1:] for label in symbols] for before in symbols]
    forbidden = np.where(follows, 0, -np.inf)  # (V, V), what comes before and what follows
    score, back = logits[0] + forbidden[symbols.index("O")], []
    for step in logits[1:]:
        scores = score[:, None] + forbidden
        back.append(scores.argmax(axis=0))
        score = scores.max(axis=0) + step
    best = [int(score.argmax())]
    for before in reversed(back):
        best.append(int(before[best[-1]]))
    return [symbols[k] for k in reversed(best)]


def f1(test: list[Sentence], found: list[Names]) -> float:
    """Return 2 · precision · recall / (precision + recall) of whole names: each word of it and its kind are right."""
    true = [names_in(labels) for _, labels in test]
    right = sum(len(a & b) for a, b in zip(true, found, strict=True))
    return 2 * right / max(1, sum(map(len, true)) + sum(map(len, found)))


def by_dictionary(train: list[Sentence], test: list[Sentence]) -> list[Names]:
    """The baseline: what was a name in training is a name, the longest one that begins at a word."""
    known = {words[i:j]: kind for words, labels in train for i, j, kind in names_in(labels)}
    return [longest_first(words, lambda part: known.get(part, "")) for words, _ in test]


def by_capitals(train: list[Sentence], test: list[Sentence]) -> list[Names]:
    """A stronger one: words with capitals are a name, of the kind that most such names of that length and end had."""
    kinds: dict[Any, Counter[str]] = {}
    for words, labels in train:
        for i, j, kind in names_in(labels):
            for key in (words[j - 1], j - i):
                kinds.setdefault(key, Counter())[kind] += 1
    small = {word for words, labels in train for word, label in zip(words, labels, strict=True) if label == "O"}

    def kind_of(part: tuple[str, ...]) -> str:
        named = all(word[0].isupper() and word not in small for word in part)
        counts = kinds.get(part[-1]) or kinds.get(len(part))
        return counts.most_common(1)[0][0] if named and counts else ""

    return [longest_first(words, kind_of) for words, _ in test]


def longest_first(words: tuple[str, ...], kind_of: Any) -> Names:
    """Return the names of a sentence, from left to right, given what tells the kind of some words, or nothing."""
    found, i = set(), 0
    while i < len(words):
        ends = [j for j in range(len(words), i, -1) if kind_of(words[i:j])]
        if ends:
            found.add((i, ends[0], kind_of(words[i : ends[0]])))
        i = ends[0] if ends else i + 1
    return found


def draw(test: list[Sentence], found: list[Names], path: Path) -> None:
    """Draw sentences of each template, one with a mistake, if there is one, and one without; names are in colour."""
    first: dict[tuple[str, bool], int] = {}  # of each template, all right or not
    for k, (words, labels) in enumerate(test):
        template = " ".join(
            word if label == "O" else label for word, label in zip(words, labels, strict=True) if label[0] != "I"
        )
        first.setdefault((template, found[k] == names_in(labels)), k)
    shown = [first[key] for key in sorted(first)]
    wide = max(len(" ".join(test[k][0])) for k in shown) + 2
    figure = Figure(figsize=(0.094 * wide, 0.42 * len(shown) + 0.8))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(-1, wide), ylim=(len(shown) + 0.2, -1.4))
    ax.axis("off")
    for column, (kind, colour) in enumerate(COLOURS.items()):
        ax.text(12 * column, -0.9, kind, color="white", backgroundcolor=colour, size=9, va="center")
    ax.text(36, -0.9, "framed: wrong; beneath: what there is", size=9, va="center")
    for row, k in enumerate(shown):
        words, labels = test[k]
        starts = np.cumsum([0, *(len(word) + 1 for word in words)])
        for i, word in enumerate(words):
            ax.text(starts[i], row, word, family="monospace", size=11, va="center")
        for i, j, kind in found[k]:
            colour, edge = COLOURS[kind] + "50", "none" if (i, j, kind) in names_in(labels) else "black"
            ends = [starts[i] - 0.3, starts[j] - 0.7]
            ax.fill_between(ends, row - 0.35, row + 0.35, facecolor=colour, edgecolor=edge)
        for i, _, kind in names_in(labels) - found[k]:
            ax.text(starts[i], row + 0.5, kind, size=7, va="center", color=COLOURS[kind])
    figure.savefig(path, dpi=120)


def main() -> None:
    """Train the network, and measure it on sentences whose templates and names it has not seen."""
    options = command.arguments(__doc__, seconds=60)
    train, validation, test = data.load("entities")
    if options.quick:
        train, validation, test = train[:200], validation[:50], test[:100]

    letters = data.Vocabulary.of("".join(word for words, _ in train for word in words), [data.PADDING, data.UNKNOWN])
    labels = data.Vocabulary.of([label for _, labels in train for label in labels])
    model = EntityTagger(len(letters), len(labels))
    print(f"{len(train):,} sentences\n{model!r}")

    def encoded(sentences: list[Sentence]) -> tuple[Ints, Ints, Ints, Ints]:
        """Return what the network reads: each different word once, and which one stands where."""
        spelled = sorted({word for words, _ in sentences for word in words})
        number = {word: i for i, word in enumerate(spelled)}
        rows = [[number[word] for word in words] for words, _ in sentences]
        return *data.pad([letters.encode(word) for word in spelled]), *data.pad(rows)

    others = words_beside_names(train)

    def batches(generator: tr.Generator) -> Iterator[list[Sentence]]:
        for chosen in data.buckets([len(words) for words, _ in train], 32, generator):
            yield [exchanged(train[i], others, generator.host) for i in chosen]

    def loss_of(sentences: list[Sentence]) -> tr.Tensor:
        x = encoded(sentences)
        y, lengths = data.pad([labels.encode(its_labels) for _, its_labels in sentences])
        return tr.cross_entropy(model(*x), y, mask=data.mask(lengths))

    def found_in(sentences: list[Sentence]) -> list[Names]:
        """Return the names that the network finds."""
        x = encoded(sentences)
        logits = model(*x).numpy()
        return [names_in(likeliest(logits[:n, b], labels.symbols)) for b, n in enumerate(x[-1])]

    history = fit(
        model,
        loss_of,
        batches,
        optimizer=optim.Adam(model.parameters(), lr=2e-3),
        validate=lambda: {"error": 1 - f1(validation, found_in(validation))},
        seconds=options.seconds,
        patience=6,
        clip=5.0,
        seed=options.seed,
        folder=options.out,
    )
    if history.best is None:
        print(command.too_early(history, options))

    model.eval()
    with tr.no_grad():
        found = found_in(test)
    draw(test, found, options.out / "names.png")
    print(f"{len(history.epochs)} epochs in {history.seconds:.0f} s; drawn: {options.out / 'names.png'}")
    for name, answer in (("dictionary of training names", by_dictionary), ("capital letters", by_capitals)):
        print(f"{name}: {f1(test, answer(train, test)):.4g}")
    command.reached("F1", f1(test, found), "capital letters", f1(test, by_capitals(train, test)))


if __name__ == "__main__":
    command.run(main)
