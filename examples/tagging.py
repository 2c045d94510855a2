"""Part-of-speech tagging: for every word of a Turkish sentence, whether it is a noun, a verb, an adjective, ...

    python examples/tagging.py                # two minutes; runs/tagging has the network and a picture
    python examples/tagging.py --quick        # see it run, on few sentences

Many to many, equal: a word comes in and a tag goes out at every step. The network reads in both directions, because
what follows a word says as much about it as what came before. Turkish says with suffixes what English says with words,
and puts one after another, so most words are rare: every sixth of the held-out ones is not in the training sentences.
Beside the word itself the network is therefore given its last one to four letters. A word that occurs once in training
is unknown to it, so that it learns what to make of the letters alone.

Data: 4,851 sentences that people tagged, Google's Turkish web and Wikipedia treebanks, Apache-2.0:
python -m tinyrnn.data fetch tagging. No sentence is in two parts.
The picture needs Matplotlib: pip install 'tinyrnn[plot]'
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import command
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

import tinyrnn as tr
from tinyrnn import data, nn, optim
from tinyrnn.fit import fit

EMBEDDING, HIDDEN, DROPOUT = 32, 64, 0.4
SUFFIXES = (1, 2, 3, 4)  # letters of each

Sentence = tuple[tuple[str, ...], tuple[str, ...]]  # words, and a tag for each
Ints = npt.NDArray[np.int64]


class Tagger(nn.Module):
    """Vectors of the word and of its suffixes, side by side, an LSTM in both directions, and a logit for each tag.

    Shapes: x (T, B, F) of class numbers, for F vocabularies -> logits (T, B, V).
    """

    def __init__(self, vocabulary_sizes: list[int], tags: int) -> None:
        self.embeddings = nn.ModuleList([nn.Embedding(size, EMBEDDING) for size in vocabulary_sizes])
        self.dropout = nn.Dropout(DROPOUT)
        self.lstm = nn.LSTM(EMBEDDING * len(vocabulary_sizes), HIDDEN, bidirectional=True)
        self.output = nn.Linear(2 * HIDDEN, tags)

    def forward(self, x: Ints, lengths: Ints) -> tr.Tensor:
        """Return the logits of each word's tag."""
        vectors = [embedding(x[:, :, k]) for k, embedding in enumerate(self.embeddings)]
        h, _ = self.lstm(self.dropout(tr.concatenate(vectors, axis=-1)), lengths=lengths)
        return self.output(self.dropout(h))


def spellings(word: str) -> list[str]:
    """Return what the network is given of a word: the word, and its last letters."""
    word = word.lower()
    return [word, *(word[-n:] for n in SUFFIXES)]


def numbered(words: tuple[str, ...], known: list[data.Vocabulary]) -> Ints:
    """Return the class numbers of the words and of their suffixes: (T, F), for F vocabularies."""
    columns = zip(*map(spellings, words), strict=True)
    return np.stack([vocabulary.encode(column) for vocabulary, column in zip(known, columns, strict=True)], axis=-1)


def most_frequent_tags(train: list[Sentence], test: list[Sentence]) -> list[tuple[str, ...]]:
    """The baseline: each word has the tag that it most often has in training, and an unknown one that of most words."""
    counts: dict[str, Counter[str]] = {}
    for words, tags in train:
        for word, tag in zip(words, tags, strict=True):
            counts.setdefault(word.lower(), Counter())[tag] += 1
    usual = sum(counts.values(), Counter()).most_common(1)
    return [tuple((counts.get(w.lower()) or Counter(dict(usual))).most_common(1)[0][0] for w in s) for s, _ in test]


def accuracy(sentences: list[Sentence], found: Iterable[Iterable[str]]) -> float:
    """Return the share of words with the right tag."""
    pairs = [pair for (_, tags), own in zip(sentences, found, strict=True) for pair in zip(tags, own, strict=True)]
    return sum(tag == its_own for tag, its_own in pairs) / len(pairs)


def draw(test: list[Sentence], found: list[list[str]], path: Path) -> None:
    """Draw the confusion matrix: which tags are taken for which."""
    pairs = Counter(pair for (_, tags), own in zip(test, found, strict=True) for pair in zip(tags, own, strict=True))
    names = [tag for tag, _ in Counter(tag for _, tags in test for tag in tags).most_common()]
    counts = np.array([[pairs[tag, own] for own in names] for tag in names])
    figure = Figure(figsize=(8, 7), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(counts / counts.sum(axis=1, keepdims=True), cmap="viridis", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            bright = count > 0.5 * counts[row].sum()
            ax.text(column, row, str(count), ha="center", va="center", size=8, color="black" if bright else "white")
    figure.colorbar(image, ax=ax, label="share of the words with this tag")
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="what the network says", ylabel="what it is", title="Parts of speech: held-out words, counted")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Train the tagger, and measure it on held-out sentences."""
    options = command.arguments(__doc__, seconds=120)
    train, validation, test = data.load("tagging")
    if options.quick:
        train, validation, test = train[:200], validation[:50], test[:50]

    columns = zip(*(spellings(word) for words, _ in train for word in words), strict=True)
    special = [data.PADDING, data.UNKNOWN]
    known = [data.Vocabulary.of(column, special, at_least=2) for column in columns]
    names = data.Vocabulary.of([tag for _, tags in train for tag in tags])
    model = Tagger([len(vocabulary) for vocabulary in known], len(names))
    print(f"{len(train):,} sentences\n{model!r}")

    def encoded(sentences: list[Sentence]) -> tuple[Ints, Ints]:
        """Return x (T, B, F), and how long the sentences are."""
        return data.pad([numbered(words, known) for words, _ in sentences])

    def loss_of(chosen: Ints) -> tr.Tensor:
        sentences = [train[i] for i in chosen]
        x, lengths = encoded(sentences)
        y, _ = data.pad([names.encode(tags) for _, tags in sentences])
        return tr.cross_entropy(model(x, lengths), y, mask=data.mask(lengths))

    def tagged(sentences: list[Sentence]) -> list[list[str]]:
        """Return the likeliest tags."""
        x, lengths = encoded(sentences)
        best = model(x, lengths).argmax(-1).numpy()
        return [[names.symbols[k] for k in best[:n, b]] for b, n in enumerate(lengths)]

    history = fit(
        model,
        loss_of,
        batches=lambda generator: data.buckets([len(words) for words, _ in train], 32, generator),
        optimizer=optim.Adam(model.parameters(), lr=2e-3),
        validate=lambda: {"error": 1 - accuracy(validation, tagged(validation))},
        seconds=options.seconds,
        patience=4,
        clip=5.0,
        seed=options.seed,
        folder=options.out,
    )
    if history.best is None:
        print(command.too_early(history, options))

    model.eval()
    with tr.no_grad():
        found = tagged(test)
    draw(test, found, options.out / "confusion.png")
    print(f"{len(history.epochs)} epochs in {history.seconds:.0f} s; drawn: {options.out / 'confusion.png'}")
    usual = most_frequent_tags(train, test)
    command.reached("accuracy", accuracy(test, found), "most frequent tag", accuracy(test, usual))


if __name__ == "__main__":
    command.run(main)
