"""What is it called? A network looks at a letter, 24 by 24 pixels, and writes its name in Unicode, word by word.

    python examples/captions.py                             # learn the names of 1,334 characters, and name 167 others
    python examples/captions.py --quick                     # see it run

One to many: one picture goes in, and a sentence comes out, such as "latin small letter o with tilde and macron". Three
convolutions see what is in the picture. Their result is the first state of a recurrent decoder, which besides may look
at 36 places of the picture for each word (attention).

The split is by character, so all names that are asked for are new, and the network has to put them together: this is
an o, there is a tilde. What is in the way is habit: no o with that sign has been learned, so after "o with" other words
have always come. Therefore half of the words that the decoder reads while it learns are blotted out (word dropout): it
has to look. To give the name of the learned glyph that looks most alike (the nearest neighbour) is by this split never
exactly right; but most of its words are, so the word error rate, which counts words that are wrong, missing or too
many, is the harder comparison. 100 % cannot be reached: a Latin, a Greek and a Cyrillic o are the same picture, as 647
pictures have several names, and of more than a third of the names the letter or its sign is new.

Data: the letters of the DejaVu fonts in six faces (Bitstream Vera's free licence) and their names in Unicode:
    python -m tinyrnn.data fetch glyphs
Source: Vinyals et al. 2015, "Show and Tell: A Neural Image Caption Generator"; Xu et al. 2015, "Show, Attend and Tell";
    Bowman et al. 2016, "Generating Sentences from a Continuous Space" (word dropout).
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import command
import numpy as np

import tinyrnn as tr
from tinyrnn import data, nn, optim
from tinyrnn.data import BEGIN, END, PADDING, Vocabulary
from tinyrnn.fit import fit
from tinyrnn.generate import beam_search, sample

HIDDEN, BATCH, LONGEST = 160, 64, 16
SHIFT = 1  # pixels by which a picture may be moved in each direction while learning
LENGTH_PENALTY = 1.0  # for long names, which have many words to be wrong in
BLOTTED = 0.5  # the part of the words that the decoder does not get to read while learning

Glyph = tuple[Any, str]


class Convolution(nn.Module):
    """relu of a linear map of each 3 by 3 patch, with the same weights everywhere, at every second place.

    Shapes: x (height, width, B, I) -> (height / 2, width / 2, B, O).
    """

    def __init__(self, input_size: int, output_size: int) -> None:
        self.linear = nn.Linear(9 * input_size, output_size)

    def forward(self, x: tr.Tensor) -> tr.Tensor:
        """Return what is seen at every second place."""
        height, width = x.shape[:2]
        x = tr.pad(x, ((1, 1), (1, 1), (0, 0), (0, 0)))
        patches = [x[i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)]
        return tr.relu(self.linear(tr.concatenate(patches, axis=-1)))


class Captioner(nn.Module):
    """Three convolutions, and a decoder that begins with what they see, and looks at where they see it.

        h₀ = tanh(seen W);   hₜ = GRU(wordₜ₋₁, hₜ₋₁);   logitsₜ = tanh([hₜ, attention(hₜ, places)] W) W

    Shapes: pictures (24, 24, B); words (T, B) of class numbers -> logits (T, B, V) of the words that follow.
    """

    def __init__(self, words: int, hidden: int) -> None:
        self.convolutions = nn.ModuleList([Convolution(1, 48), Convolution(48, 96), Convolution(96, 96)])
        self.first = nn.Linear(3 * 3 * 96, hidden)
        self.places, self.positions = nn.Linear(96, hidden), nn.Parameter(tr.zeros(6 * 6, 1, hidden))
        self.words, self.decoder = nn.Embedding(words, hidden), nn.GRU(hidden, hidden)
        self.attention = nn.Attention(hidden, score="dot")
        self.combine, self.output = nn.Linear(2 * hidden, hidden), nn.Linear(hidden, words)
        self.dropout = nn.Dropout(0.2)

    def encode(self, pictures: Any) -> tuple[tr.Tensor, nn.Memory]:
        """Return the decoder's first state (1, B, H), and the places to look at (36, B, H)."""
        x = tr.expand_dims(pictures if isinstance(pictures, tr.Tensor) else tr.tensor(pictures), -1)
        B, (wide, middle, last) = x.shape[2], self.convolutions
        seen = middle(wide(2 * x))  # (6, 6, B, 96); 2, since most of a picture is 0
        places = tr.relu(self.places(seen.reshape(36, B, 96)) + self.positions)
        whole = last(seen).transpose(2, 0, 1, 3).reshape(1, B, 3 * 3 * 96)
        return tr.tanh(self.first(self.dropout(whole))), self.attention.memory(self.dropout(places))

    def decode(self, words: Any, state: tuple[tr.Tensor, nn.Memory]) -> tuple[tr.Tensor, tuple[tr.Tensor, nn.Memory]]:
        """Return the logits of the word that follows each of these, and the state after the last."""
        h, places = state
        x = self.words(words)
        if self.training:
            x = x * (tr.uniform(*x.shape[:2], 1) >= BLOTTED).astype(x.dtype)
        outputs, after = self.decoder(self.dropout(x), h)
        context, _ = self.attention(outputs, places)
        combined = tr.tanh(self.combine(tr.concatenate([outputs, context], axis=-1)))
        return self.output(self.dropout(combined)), (after.h, places)


# ---------------------------------------------------------------- batches, names and how wrong they are


def batches_of(glyphs: list[Glyph], words: Vocabulary) -> Any:
    """Return a function that makes the batches of an epoch: pictures, moved a little, and words before and after."""
    pictures = np.pad(np.stack([picture for picture, _ in glyphs]), ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    y, _ = data.pad([words.encode(caption, begin=True, end=True) for _, caption in glyphs], words.id(PADDING))
    whole = np.arange(24)[:, None]

    def batches(generator: tr.Generator) -> Any:
        for chosen in data.batches(len(glyphs), BATCH, generator):
            if len(chosen) == BATCH:  # what does not fill a batch waits for another epoch
                down, right = generator.host.integers(0, 2 * SHIFT + 1, (2, 1, BATCH))
                rows, columns = (whole + down)[:, None], (whole + right)[None]  # (24, 1, B) and (1, 24, B)
                yield pictures[chosen, rows, columns], y[:-1, chosen], y[1:, chosen]

    return batches


@tr.no_grad()
def name(model: Captioner, glyphs: list[Glyph], words: Vocabulary, width: int = 1) -> list[str]:
    """Return the network's name for each picture."""
    model.eval()
    names: list[str] = []
    for chosen in data.batches(len(glyphs), 256):
        state = model.encode(np.stack([glyphs[i][0] for i in chosen], axis=-1))
        begin, end = np.full((1, len(chosen)), words.id(BEGIN)), words.id(END)
        if width == 1:
            names += map(words.decode, sample(model.decode, begin, LONGEST, state=state, stop=end, temperature=0))
        else:
            beams = beam_search(
                model.decode, begin, LONGEST, width, state=state, stop=end, length_penalty=LENGTH_PENALTY
            )
            names += [words.decode(beam.best.symbols) for beam in beams]
    return names


def nearest_names(learned: list[Glyph], glyphs: list[Glyph]) -> list[str]:
    """Return the name of the learned picture that differs least from each, by the sum of squares."""
    a, b = (np.stack([picture.reshape(-1) for picture, _ in part]) for part in (learned, glyphs))
    return [learned[i][1] for i in ((a**2).sum(axis=1) - 2 * b @ a.T).argmin(axis=1)]


def measured(names: list[str], glyphs: list[Glyph]) -> tuple[float, float]:
    """Return the share of names that are exactly right, and wrong words per word."""
    pairs = [(own.split(), caption.split()) for own, (_, caption) in zip(names, glyphs, strict=True)]
    exact = sum(own == caption for own, caption in pairs) / len(pairs)
    return exact, sum(command.edits(*pair) for pair in pairs) / sum(len(caption) for _, caption in pairs)


def main() -> None:
    """Learn to name letters, and name those that have been held back."""
    options = command.arguments(__doc__, 400, ("--epochs", int, 40, "at most"), ("--width", int, 5, "of the beam"))
    if options.width < 1:
        raise ValueError(f"--width {options.width}; expected 1 or more")
    train, validation, test = data.load("glyphs")
    meanings = defaultdict(set)
    for picture, caption in [*train, *validation, *test]:
        meanings[picture.tobytes()].add(caption)
    shared = sum(len(captions) > 1 for captions in meanings.values())
    if options.quick:
        train, validation, test = train[::10], validation[::10], test[::10]
    words = Vocabulary.of(
        [word for _, caption in train for word in caption.split()], special=[PADDING, BEGIN, END], separator=" "
    )
    model = Captioner(len(words), 32 if options.quick else HIDDEN)
    print(f"{len(train):,} pictures to learn, {len(test):,} to be tested; {shared} pictures have several names")
    print(f"{len(words)} words; {sum(p.size for p in model.parameters()):,} parameters")

    parts = {part for _, caption in train for part in caption.split(" with ")}
    known = sum(parts.issuperset(caption.split(" with ")) for _, caption in test) / len(test)
    print(f"{known:.0%} of the names to be tested consist of a letter and a sign that are both to be learned")

    def loss_of(batch: tuple[Any, ...]) -> tr.Tensor:
        pictures, before, y = batch
        logits, _ = model.decode(before, model.encode(pictures))
        return tr.cross_entropy(logits, y, ignore_index=words.id(PADDING))

    history = fit(
        model,
        loss_of,
        batches_of(train, words),
        optim.Adam(model.parameters(), lr=optim.Cosine(2e-3, total=options.epochs * (len(train) // BATCH), final=1e-5)),
        validate=lambda: measured(name(model, validation, words), validation)[1],
        epochs=options.epochs,
        seconds=options.seconds,
        clip=1.0,
        seed=options.seed,
        captured=True,
        folder=options.out,
    )
    if not history.epochs:
        print(f"{command.too_early(history, options)}: these are the names of a beginner")
    methods = {
        "nearest glyph's name": nearest_names(train, test),
        "network, greedy": name(model, test, words),
        f"network, beam of {options.width}": name(model, test, words, options.width),
    }
    results = {method: measured(names, test) for method, names in methods.items()}
    for method, (exact, errors) in results.items():
        print(f"{method:22} {exact:6.1%} of names exact, {errors:6.1%} of words wrong")
    beam = list(methods)[-1]
    save_sheet(test, methods[beam], options.out / "captions.png")
    command.reached("names exact", results[beam][0], "nearest glyph's name", results["nearest glyph's name"][0])


def save_sheet(glyphs: list[Glyph], names: list[str], path: Path, rows: int = 12, columns: int = 3) -> None:
    """Draw some pictures with the names that they were given: right ones blue, wrong ones orange."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * columns, 0.75 * rows), layout="constrained")
    figure.suptitle("blue: named rightly;  orange: named wrongly, and in grey the right name", size=10, color="#777777")
    shown = np.linspace(0, len(glyphs) - 1, rows * columns).astype(int)
    for ax, i in zip(figure.subplots(rows, columns, squeeze=False).T.flat, shown, strict=True):
        (picture, caption), own = glyphs[i], names[i]
        ax.imshow(picture, cmap="Greys")
        ax.set_anchor("W")
        ax.set_axis_off()
        ax.text(26, 8, own[:60], color="#0072B2" if own == caption else "#D55E00", va="center")
        ax.text(26, 18, "" if own == caption else caption, color="#777777", va="center")
    figure.savefig(path, dpi=100)
    print(f"drawn: {path}")


if __name__ == "__main__":
    command.run(main)
