"""Which digit is it? A network of two layers looks at a picture of 8 by 8 points, and names the digit.

    python examples/digits.py                   # learn 1,438 digits, and name 180 others
    python examples/digits.py --quick           # see it run
    python examples/digits.py --hidden 64 --seconds 10

One to one: one picture goes in, one class comes out. There is no time here, and so nothing to remember: a picture says
all there is to know about its digit, and the one before it says nothing. The network is the plain feed-forward one,

    h = relu(x W + b);   logits = h W + b

a function of x alone, without a state: name the digits in whatever order, and each gets the same answer. In all other
examples the order matters, and what came before is carried along in a state h; that is all that "recurrent" adds.

To learn more from few pictures, each is spoiled by other noise whenever it is looked at. There are two baselines: a
linear model, the same network without its hidden layer, which learns best without noise; and the class of the nearest
of the learned pictures (Euclid's distance), which has to keep all of them.

Data: handwritten digits (E. Alpaydin and C. Kaynak 1998, UCI; BSD-3-Clause): python -m tinyrnn.data fetch digits
The picture needs Matplotlib: pip install 'tinyrnn[plot]'
"""

from __future__ import annotations

import argparse
from typing import Any

import command
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

import tinyrnn as tr
from tinyrnn import data, nn, optim
from tinyrnn.errors import TinyRNNError
from tinyrnn.fit import fit

SIDE, CLASSES, BATCH = 8, 10, 32
EPOCHS, QUICK_EPOCHS = 60, 30
NOISE = 0.3  # its standard deviation; a point is from 0, white, to 1

Array = npt.NDArray[Any]


class FeedForward(nn.Module):
    """A hidden layer and an output layer, and no state: x (B, 64) -> logits (B, 10)."""

    def __init__(self, hidden: int) -> None:
        self.hidden = nn.Linear(SIDE * SIDE, hidden)
        self.dropout = nn.Dropout(0.3)
        self.output = nn.Linear(hidden, CLASSES)

    def forward(self, x: tr.Tensor) -> tr.Tensor:
        """Return a logit for each class."""
        return self.output(self.dropout(tr.relu(self.hidden(x))))


def flat(examples: list[tuple[Array, int]]) -> tuple[Array, Array]:
    """Return pictures (N, 64), row after row, and their digits (N,)."""
    images, digits = zip(*examples, strict=True)
    return np.stack(images).reshape(len(images), -1), np.array(digits)


def learn(model: nn.Module, train: Any, validation: Any, options: argparse.Namespace, noise: float) -> None:
    """Train a model until its loss on the pictures that it does not learn from has fallen."""
    x, y = train
    epochs = QUICK_EPOCHS if options.quick else EPOCHS
    steps = epochs * len(data.batches(len(y), BATCH))

    def batches(generator: tr.Generator) -> list[tuple[Array, Array]]:
        noisy = x + noise * generator.host.standard_normal(x.shape, np.float32)
        chosen = data.batches(len(y), BATCH, generator)
        return [(noisy[rows], y[rows]) for rows in chosen]

    history = fit(
        model,
        loss_of=lambda batch: tr.cross_entropy(model(tr.tensor(batch[0])), batch[1]),
        batches=batches,
        optimizer=optim.AdamW(model.parameters(), lr=optim.Cosine(3e-3, steps), weight_decay=0.01),
        validate=lambda: tr.cross_entropy(model(tr.tensor(validation[0])), validation[1]).item(),
        epochs=epochs,
        seconds=None if options.quick else options.seconds,
        seed=options.seed,
        captured=True,
        folder=options.out / type(model).__name__,
    )
    if history.best is None:
        raise TinyRNNError(command.too_early(history, options))


def logits_of(model: nn.Module, x: Array) -> Array:
    """Return the logits of pictures, as an array."""
    model.eval()
    with tr.no_grad():
        return np.asarray(model(tr.tensor(x)).numpy())


def nearest_neighbour(train: tuple[Array, Array], x: Array) -> Array:
    """Return for each picture the digit of that learned picture which is nearest."""
    learned, digits = train
    squares = ((x[:, None] - learned[None]) ** 2).sum(axis=-1)
    return digits[squares.argmin(axis=1)]


def draw(x: Array, y: Array, named: Array, options: argparse.Namespace) -> None:
    """Draw the pictures that were named wrongly, with what they are and what they were taken for."""
    wrong = np.flatnonzero(named != y)[:24]
    rows = max(1, -(-len(wrong) // 6))
    figure = Figure(figsize=(8, 0.6 + 1.75 * rows), layout="constrained")
    for ax in figure.subplots(rows, 6, squeeze=False).flat:
        ax.set_axis_off()
    for ax, i in zip(figure.axes, wrong, strict=False):
        ax.imshow(x[i].reshape(SIDE, SIDE), cmap="Greys", vmin=0, vmax=1)
        ax.set_title(f"a {y[i]}, taken for {named[i]}", fontsize=9)
    figure.suptitle(f"{np.count_nonzero(named != y)} of {len(y)} digits are named wrongly")
    figure.savefig(options.out / "wrong.png", dpi=120)
    print(f"drawn: {options.out / 'wrong.png'}")


def main() -> None:
    """Learn, compare, draw, and tell what was reached."""
    options = command.arguments(__doc__, 60, ("--hidden", int, 256, "H, width of the hidden layer"))
    train, validation, (x, y) = map(flat, data.load("digits"))
    if options.quick:
        train, validation = (train[0][:200], train[1][:200]), (validation[0][:50], validation[1][:50])
        options.hidden = min(options.hidden, 32)

    linear = nn.Linear(SIDE * SIDE, CLASSES)
    learn(linear, train, validation, options, noise=0.0)
    model = FeedForward(options.hidden)
    print(model)
    learn(model, train, validation, options, noise=NOISE)

    named = logits_of(model, x).argmax(axis=1)
    backwards = logits_of(model, x[::-1])[::-1].argmax(axis=1)
    print(f"named in the opposite order, {np.count_nonzero(backwards == named)} of {len(y)} answers are the same")
    draw(x, y, named, options)
    print(f"nearest neighbour: {np.mean(nearest_neighbour(train, x) == y):.4f}")
    by_linear = np.mean(logits_of(linear, x).argmax(axis=1) == y)
    command.reached("accuracy", float(np.mean(named == y)), "linear model", float(by_linear))


if __name__ == "__main__":
    command.run(main)
