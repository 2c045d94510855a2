"""How is it said? A network reads English spellings, and writes how they are pronounced, phone by phone.

    python examples/pronounce.py                            # learn 100,000 words, and say 12,605 others
    python examples/pronounce.py --quick                    # see it run
    python examples/pronounce.py --words "sphinx though thorough" --seconds 60

Many to many, unequal: there are more letters than phones in "though", and fewer in "sphinx", and nobody has noted which
letter makes which phone. An encoder reads the letters in both directions. A decoder writes the phones; before each of
them it looks at the letters that matter, which nn.Attention learns by itself: see attention.png. While it learns, the
decoder is given the phones as they should be (teacher forcing), so that all steps are computed side by side.

The words are split by spelling: none that is tested has been learned. The figure is the phone error rate: how many
phones are wrong, missing or too many, per phone of the pronunciation in the dictionary that comes closest, if there are
several. The baseline says a word like the one of the learned words that is spelled most like it.

Data: the Carnegie Mellon pronouncing dictionary (BSD-2-Clause): python -m tinyrnn.data fetch pronounce
Source: Yao & Zweig 2015, "Sequence-to-Sequence Neural Net Models for Grapheme-to-Phoneme Conversion"; Luong, Pham &
    Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation" (attention after the decoder).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import command
import numpy as np

import tinyrnn as tr
from tinyrnn import data, nn, optim, viz
from tinyrnn.data import BEGIN, END, PADDING, UNKNOWN, Vocabulary
from tinyrnn.fit import fit
from tinyrnn.generate import Beam, beam_search
from tinyrnn.viz.beam import draw_beam

HIDDEN, BATCH, LONGEST = 128, 128, 30
SIZES = [(5, 6), (6, 7), (8, 8), (10, 10), (13, 13), (28, 29)]  # letters, phones: few shapes, which can be captured

Word = tuple[str, list[tuple[str, ...]]]


class Speaker(nn.Module):
    """An encoder of letters and a decoder of phones, which looks at what was encoded.

        keys = GRU⇄(letters) W;   hₜ = GRU(phoneₜ₋₁, hₜ₋₁);   logitsₜ = tanh([hₜ, attention(hₜ, keys)] W) W

    Shapes: letters (Tx, B) and where each word ends (B,); phones (T, B) of class numbers -> logits (T, B, V).
    """

    def __init__(self, letters: int, phones: int, hidden: int) -> None:
        self.letters, self.phones = nn.Embedding(letters, hidden), nn.Embedding(phones, hidden)
        self.encoder = nn.GRU(hidden, hidden, bidirectional=True)
        self.keys, self.first = nn.Linear(2 * hidden, hidden), nn.Linear(2 * hidden, hidden)
        self.decoder = nn.GRU(hidden, hidden)
        self.attention = nn.Attention(hidden, score="dot")
        self.combine, self.output = nn.Linear(2 * hidden, hidden), nn.Linear(hidden, phones)
        self.dropout = nn.Dropout(0.1)

    def encode(self, letters: Any, lengths: Any) -> tuple[tr.Tensor, nn.Memory]:
        """Return what the decoder starts from: its first state, and what there is to look at."""
        encoded, state = self.encoder(self.dropout(self.letters(letters)), lengths=lengths)
        forward_and_back = tr.concatenate([state.h[0], state.h[1]], axis=-1)
        h = tr.tanh(self.first(forward_and_back)).reshape(1, *state.h.shape[1:])
        return h, self.attention.memory(self.keys(encoded), lengths=lengths)

    def decode(self, phones: Any, state: tuple[tr.Tensor, nn.Memory]) -> tuple[tr.Tensor, tuple[tr.Tensor, nn.Memory]]:
        """Return the logits of the phone that follows each of these, and the state after the last."""
        logits, state, _ = self.look(phones, state)
        return logits, state

    def look(self, phones: Any, state: tuple[tr.Tensor, nn.Memory]) -> tuple[tr.Tensor, Any, tr.Tensor]:
        """Do what `decode` does, and return besides where it has looked: weights (T, Tx, B)."""
        h, memory = state
        outputs, after = self.decoder(self.dropout(self.phones(phones)), h)
        context, weights = self.attention(outputs, memory)
        combined = tr.tanh(self.combine(tr.concatenate([outputs, context], axis=-1)))
        return self.output(self.dropout(combined)), (after.h, memory), weights


# ---------------------------------------------------------------- how wrong it is


def error_rates(said: list[tuple[str, ...]], words: list[Word]) -> tuple[float, float]:
    """Return errors per phone, and the share of words that are not exactly right."""
    errors = phones = wrong = 0
    for own, (_, right) in zip(said, words, strict=True):
        nearest = min(right, key=lambda pronunciation: command.edits(own, pronunciation) / len(pronunciation))
        errors, phones, wrong = errors + command.edits(own, nearest), phones + len(nearest), wrong + (own != nearest)
    return errors / phones, wrong / len(words)


def nearest_spelling(learned: list[Word], words: list[Word]) -> list[tuple[str, ...]]:
    """Return the pronunciation of the learned word that shares most threes of letters with each word (Dice)."""

    def threes(word: str) -> set[str]:
        return {f"^{word}$"[k : k + 3] for k in range(len(word))}

    places: dict[str, list[int]] = defaultdict(list)  # in which of the learned words each three is
    sizes = np.zeros(len(learned))
    for i, (spelling, _) in enumerate(learned):
        sizes[i] = len(threes(spelling))
        for three in threes(spelling):
            places[three].append(i)
    arrays = {three: np.array(found) for three, found in places.items()}
    said = []
    for spelling, _ in words:
        wanted = threes(spelling)
        found = np.concatenate([arrays.get(three, np.zeros(0, np.int64)) for three in sorted(wanted)])
        shared = np.bincount(found, minlength=len(learned))
        said.append(learned[int((2 * shared / (sizes + len(wanted))).argmax())][1][0])
    return said


# ---------------------------------------------------------------- batches, and saying words


def batches_of(words: list[Word], letters: Vocabulary, phones: Vocabulary) -> Any:
    """Return a function that makes the batches of an epoch: letters, lengths, phones before and phones to be said.

    Words go to the smallest of the SIZES that holds them; what does not fill a batch there waits for another epoch.
    """
    groups: dict[tuple[int, int], list[Word]] = defaultdict(list)
    for word, ways in words:
        size = next(size for size in SIZES if len(word) <= size[0] and len(ways[0]) < size[1])
        groups[size].append((word, ways))
    arrays = []
    for (Tx, Ty), group in groups.items():
        x, lengths = data.pad([letters.encode(word) for word, _ in group])
        y, _ = data.pad([phones.encode(ways[0], begin=True, end=True) for _, ways in group])  # PADDING is 0
        x, y = (np.pad(z, ((0, T - len(z)), (0, 0))) for z, T in ((x, Tx), (y, Ty + 1)))
        arrays.append((x, lengths, y[:-1], y[1:]))

    def batches(generator: tr.Generator) -> list[tuple[Any, ...]]:
        cut = [
            (k, chosen)
            for k, (_, ends, *_) in enumerate(arrays)
            for chosen in data.batches(len(ends), BATCH, generator)
        ]
        full = [(k, chosen) for k, chosen in cut if len(chosen) == BATCH]
        return [tuple(part[..., full[i][1]] for part in arrays[full[i][0]]) for i in generator.permutation(len(full))]

    return batches


@tr.no_grad()
def say(model: Speaker, words: Sequence[str], letters: Vocabulary, phones: Vocabulary, width: int = 1) -> list[Any]:
    """Return what a beam search finds for each word."""
    model.eval()
    found: list[Any] = [None] * len(words)
    for chosen in data.buckets([len(word) for word in words], 256):
        x, lengths = data.pad([letters.encode(words[i]) for i in chosen], letters.id(PADDING))
        beams = beam_search(
            model.decode,
            np.full((1, len(chosen)), phones.id(BEGIN)),
            LONGEST,
            width,
            state=model.encode(x, lengths),
            stop=phones.id(END),
            tree=2 if len(words) == 1 else 0,
        )
        for i, beam in zip(chosen, beams, strict=True):
            found[i] = beam
    return found


def main() -> None:
    """Learn to say English words, and say what has come of it."""
    options = command.arguments(
        __doc__,
        600,
        ("--epochs", int, 6, "at most"),
        ("--width", int, 5, "of the beam"),
        ("--words", str, "tomato sphinx though thorough", "to be said at the end"),
    )
    if options.width < 1:
        raise ValueError(f"--width {options.width}; expected 1 or more")
    train, validation, test = data.load("pronounce")
    if options.quick:
        train, validation, test = train[::40], validation[::100], test[::50]
    letters = Vocabulary.of("".join(word for word, _ in train), special=[PADDING, UNKNOWN])
    phones = Vocabulary.of([p for _, ways in train for p in ways[0]], special=[PADDING, BEGIN, END], separator=" ")
    model = Speaker(len(letters), len(phones), 32 if options.quick else HIDDEN)
    print(f"{len(train):,} words to learn, {len(test):,} to be tested")
    print(f"{sum(p.size for p in model.parameters()):,} parameters")

    def spoken(words: list[Word], width: int) -> list[tuple[str, ...]]:
        beams = say(model, [word for word, _ in words], letters, phones, width)
        return [tuple(phones.symbols[p] for p in beam.best.symbols) for beam in beams]

    def loss_of(batch: tuple[Any, ...]) -> tr.Tensor:
        x, lengths, before, y = batch
        logits, _ = model.decode(before, model.encode(x, lengths))
        return tr.cross_entropy(logits, y, ignore_index=phones.id(PADDING))

    batches = batches_of(train, letters, phones)
    steps = options.epochs * len(batches(tr.Generator(0)))
    history = fit(
        model,
        loss_of,
        batches,
        optim.Adam(model.parameters(), lr=optim.Cosine(3e-3, total=steps, final=1e-4)),
        validate=lambda: error_rates(spoken(validation[:2000], 1), validation[:2000])[0],
        epochs=options.epochs,
        seconds=options.seconds,
        clip=1.0,
        seed=options.seed,
        captured=True,
        folder=options.out,
    )
    if not history.epochs:
        print(f"{command.too_early(history, options)}: these are the words of a beginner")
    baseline, without_beam, said = nearest_spelling(train, test), spoken(test, 1), spoken(test, options.width)
    rates = [error_rates(own, test) for own in (baseline, without_beam, said)]
    names = ("the most similar spelling", "network, greedy", f"network, beam of {options.width}")
    for name, (phone_errors, word_errors) in zip(names, rates, strict=True):
        print(f"{name:26} {phone_errors:6.1%} of phones wrong, {1 - word_errors:6.1%} of words exact")
    for (word, ways), own in list(zip(test, said, strict=True))[:: len(test) // 8]:
        print(f"  {word:16} {' '.join(own):32} {'' if own in ways else 'not ' + ' '.join(ways[0])}")
    learned = {word for word, _ in train}
    for word in options.words.lower().split():
        (beam,) = say(model, [word], letters, phones, options.width)
        print(f"  {word:16} {phones.decode(beam.best.symbols):32} {'(learned)' if word in learned else '(new)'}")
        save_beam(beam, phones, options.out / f"beam-{word}.svg")
    right = [(word, own) for (word, ways), own in zip(test, said, strict=True) if own in ways]
    save_attention(model, sorted(right, key=lambda pair: len(pair[1]) - len(pair[0]))[:4], letters, phones, options.out)
    command.reached("phone error rate", rates[2][0], names[0], rates[0][0])


# ---------------------------------------------------------------- pictures


@tr.no_grad()
def save_attention(model: Speaker, pairs: list[Any], letters: Vocabulary, phones: Vocabulary, folder: Path) -> None:
    """Draw for a few words which letters were looked at for each phone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9), layout="constrained")
    for ax, (word, said) in zip(figure.subplots(2, 2).flat, pairs, strict=False):
        state = model.encode(letters.encode(word)[:, None], [len(word)])
        _, _, weights = model.look(phones.encode(said, begin=True)[:, None], state)
        viz.plot_attention(weights[:, :, 0], [*said, "end"], list(word), ax=ax).set_title(word)
    figure.savefig(folder / "attention.png", dpi=100)
    print(f"drawn: {folder / 'attention.png'}")


def save_beam(beam: Beam, phones: Vocabulary, path: Path) -> None:
    """Draw what a beam search has weighed; what graphviz would draw, where there is none."""
    path = draw_beam(beam, phones.symbols).save(path)
    print(f"drawn: {path}")


if __name__ == "__main__":
    command.run(main)
