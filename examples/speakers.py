"""Who is speaking? A network listens to two vowels, step by step, and names one of nine speakers.

    python examples/speakers.py                 # learn 243 utterances, and name the speakers of 370 others
    python examples/speakers.py --quick         # see it run
    python examples/speakers.py --hidden 32 --seconds 20

Many to one: an utterance is a sequence of 7 to 29 steps, each of 12 numbers (cepstrum coefficients, the shape of the
vocal tract at that moment); one class comes out. Utterances of unequal length are padded into one batch, and `lengths=`
says where each of them ends: what follows does not change its outputs, its state or its gradient.

A GRU reads forward, so that its opinion can be asked for at any moment: the logits are a linear map of the mean of its
outputs up to there. In training only the opinion at the end counts. The picture shows how it becomes sure in time.

Everybody said the same two vowels, /ae/, and the split is the standard one. The baseline is the mean of an utterance's
steps: the speaker whose own mean is nearest. It does not know what came when.

Data: Japanese Vowels (M. Kudo, J. Toyama and M. Shimbo 1999, UCI): python -m tinyrnn.data fetch speakers
The picture needs Matplotlib: pip install 'tinyrnn[plot]'
Source: Kudo, Toyama & Shimbo 1999, "Multidimensional Curve Classification Using Passing-Through Regions".
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import command
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

import tinyrnn as tr
from tinyrnn import data, nn, optim
from tinyrnn.errors import TinyRNNError
from tinyrnn.fit import fit

FEATURES, SPEAKERS, BATCH = 12, 9, 27
EPOCHS, QUICK_EPOCHS = 60, 5
NOISE = 0.2  # in standard deviations, added to what is learned from: there are few utterances

Array = npt.NDArray[Any]


class Utterances(NamedTuple):
    """A padded batch: x (T, B, 12), where each utterance ends (B,), and who spoke (B,)."""

    x: Array
    lengths: Array
    speakers: Array


class Listener(nn.Module):
    """A GRU, and a linear map of the mean of its outputs: x (T, B, 12), lengths (B,) -> logits (B, 9)."""

    def __init__(self, hidden: int) -> None:
        self.recurrent = nn.GRU(FEATURES, hidden)
        self.dropout = nn.Dropout(0.3)
        self.output = nn.Linear(hidden, SPEAKERS)

    def forward(self, x: tr.Tensor, lengths: Array) -> tr.Tensor:
        """Return a logit for each speaker, after the last step of each utterance."""
        out, _ = self.recurrent(x, lengths=lengths)  # 0 where an utterance has ended
        mean = out.sum(axis=0) / tr.tensor(lengths[:, None].astype(np.float32))
        return self.output(self.dropout(mean))


def prepare(examples: list[tuple[Array, int]], mean: Array, deviation: Array) -> Utterances:
    """Return utterances padded into one batch, in standard deviations from the mean of what is learned."""
    series, speakers = zip(*examples, strict=True)
    return Utterances(*data.pad([(x - mean) / deviation for x in series]), np.array(speakers))


def learn(model: Listener, train: Utterances, validation: Utterances, options: argparse.Namespace) -> None:
    """Train until the seconds or the epochs are used up; keep what is best on utterances not learned from."""

    def batches(generator: tr.Generator) -> list[tuple[Array, Array, Array]]:
        noisy = train.x + NOISE * generator.host.standard_normal(train.x.shape, np.float32)
        chosen = data.batches(len(train.speakers), BATCH, generator)
        return [(noisy[:, rows], train.lengths[rows], train.speakers[rows]) for rows in chosen]

    def loss_of(batch: tuple[Array, Array, Array]) -> tr.Tensor:
        x, lengths, speakers = batch
        return tr.cross_entropy(model(tr.tensor(x), lengths), speakers)

    epochs = QUICK_EPOCHS if options.quick else EPOCHS
    steps = epochs * -(-len(train.speakers) // BATCH)
    history = fit(
        model,
        loss_of=loss_of,
        batches=batches,
        optimizer=optim.Adam(model.parameters(), lr=optim.Cosine(5e-3, steps)),
        validate=lambda: loss_of(validation).item(),
        epochs=epochs,
        seconds=None if options.quick else options.seconds,
        clip=1.0,
        seed=options.seed,
        folder=options.out,
    )
    if history.best is None:
        raise TinyRNNError(command.too_early(history, options))


def opinions(model: Listener, heard: Utterances) -> Array:
    """Return p (T, B, 9): what the model thinks after each step, of what it has heard until then."""
    model.eval()
    with tr.no_grad():
        p = [
            tr.softmax(model(tr.tensor(heard.x[: t + 1]), np.minimum(heard.lengths, t + 1))).numpy()
            for t in range(len(heard.x))
        ]
    return np.stack(p)


def nearest_means(train: Utterances, heard: Utterances) -> Array:
    """Return what the baseline names after each step (T, B): the speaker with the nearest mean."""

    def means(x: Array, lengths: Array) -> Array:
        return np.asarray(x[: lengths.max()].sum(axis=0) / lengths[:, None])

    learned = means(train.x, train.lengths)
    centres = np.stack([learned[train.speakers == k].mean(axis=0) for k in range(SPEAKERS)])
    named = []
    for t in range(len(heard.x)):
        so_far = np.where(data.mask(np.minimum(heard.lengths, t + 1), len(heard.x))[..., None], heard.x, 0)
        distances = means(so_far, np.minimum(heard.lengths, t + 1))[:, None] - centres
        named.append((distances**2).sum(axis=-1).argmin(axis=-1))
    return np.stack(named)


def draw(p: Array, by_means: Array, heard: Utterances, options: argparse.Namespace) -> None:
    """Draw how p of the right speaker grows in one utterance of each, and how many are named rightly after t steps."""
    T, (first, speakers) = len(p), (np.unique(heard.speakers, return_index=True)[1], heard.speakers)
    right = np.where(data.mask(heard.lengths), p[:, np.arange(p.shape[1]), speakers], np.nan)  # (T, B)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    one, all_of_them = figure.subplots(1, 2)
    image = one.imshow(right[:, first].T, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(image, ax=one, label="p(the right speaker)")
    one.set(xlabel="steps heard", ylabel="speaker, one utterance each", title="How sure it is, step by step")
    one.set_yticks(range(len(first)), [str(speakers[i]) for i in first])
    steps = np.arange(1, T + 1)
    one.set_xticks(range(4, T, 5), [str(t + 1) for t in range(4, T, 5)])
    all_of_them.plot(steps, (p.argmax(axis=-1) == speakers).mean(axis=1), label="GRU", color="#0072B2")
    all_of_them.plot(steps, (by_means == speakers).mean(axis=1), "--", label="nearest mean", color="#E69F00")
    all_of_them.set(xlabel="steps heard", ylabel="accuracy", ylim=(0, 1.02), title="All held-out utterances")
    all_of_them.legend(frameon=False)
    figure.savefig(options.out / "certainty.png", dpi=120)
    print(f"drawn: {options.out / 'certainty.png'}")


def main() -> None:
    """Learn, compare, draw, and tell what was reached."""
    options = command.arguments(__doc__, 120, ("--hidden", int, 128, "H, width of the recurrent layer"))
    split = data.load("speakers")
    steps = np.concatenate([x for x, _ in split.train])
    train, validation, test = (prepare(part, steps.mean(axis=0), steps.std(axis=0)) for part in split)
    if options.quick:
        options.hidden = min(options.hidden, 16)

    model = Listener(options.hidden)
    print(model)
    learn(model, train, validation, options)

    p, by_means = opinions(model, test), nearest_means(train, test)
    draw(p, by_means, test, options)
    accuracy, baseline = (float(np.mean(named == test.speakers)) for named in (p[-1].argmax(axis=-1), by_means[-1]))
    command.reached("accuracy", accuracy, "nearest mean", baseline)


if __name__ == "__main__":
    command.run(main)
