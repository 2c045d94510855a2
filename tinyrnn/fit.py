"""A training loop: epochs, validation, the best parameters, and runs that go on where they were stopped, to the bit.

    history = fit(model, loss_of, batches, optimizer, validate=validate, epochs=20, patience=3, folder="runs/names")

It is for models whose batches stand each for itself. One that carries a state from batch to batch, as in truncated
backpropagation through time, has a loop of its own, which is as short: examples/char_rnn.py.
"""

from __future__ import annotations

import csv
import io
import math
import signal
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from statistics import fmean
from time import monotonic
from typing import Any

import numpy as np

from tinyrnn import checkpoint
from tinyrnn.autograd import no_grad
from tinyrnn.backends import Generator
from tinyrnn.capture import capture
from tinyrnn.errors import CheckpointError, DataError, NonFiniteError, ShapeError
from tinyrnn.functions import default_generator
from tinyrnn.nn import Module
from tinyrnn.optim import Optimizer, clip_grad_norm
from tinyrnn.tensor import Tensor

CHECKPOINT, LOG = "checkpoint.safetensors", "log.csv"
SAVE_SECONDS = 10.0

Figures = float | Mapping[str, float]


@dataclass
class History:
    """What happened while a model was trained.

    Fields:
        losses, norms: of every step the loss, and the norm of its gradient before it was clipped.
        epochs: of every epoch its number, the steps and seconds until then, the mean loss and norm of its steps, the
            learning rate, and what `validate` found. These are the lines of log.csv.
        best: the one of the best epoch, whose parameters the model has in the end; None without `validate`.
        seconds: of training, validation included.
        ended: by what: "epochs", "patience", "seconds" or "Ctrl-C".

    >>> import tinyrnn as tr
    >>> from tinyrnn.fit import fit
    >>> line = tr.nn.Linear(1, 1)
    >>> history = fit(
    ...     line,
    ...     loss_of=lambda x: tr.mse_loss(line(x), x),
    ...     batches=lambda generator: [tr.ones(4, 1)] * 3,
    ...     optimizer=tr.optim.SGD(line.parameters(), lr=0.1),
    ...     epochs=2,
    ... )
    >>> len(history.losses), [epoch["steps"] for epoch in history.epochs]
    (6, [3, 6])
    >>> history.losses[-1] < history.losses[0], history.ended
    (True, 'epochs')
    """

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] | None = None
    seconds: float = 0.0
    ended: str = ""


def fit(
    model: Module,
    loss_of: Callable[[Any], Tensor],
    batches: Callable[[Generator], Iterable[Any]],
    optimizer: Optimizer,
    *,
    validate: Callable[[], Figures] | None = None,
    report: Callable[[dict[str, float]], object] | None = None,
    epochs: int | None = None,
    seconds: float | None = None,
    patience: int | None = None,
    clip: float = math.inf,
    seed: int = 0,
    captured: bool = False,
    folder: str | Path | None = None,
    resume: bool = False,
) -> History:
    """Train a model until epochs, seconds or patience are used up, or Ctrl-C asks it to stop.

    A bar tells how far it is; with TQDM_DISABLE=1 in the environment there is none.

    Args:
        model: it is in training mode while it learns, in evaluation mode for `validate` and `report`, and afterwards in
            the mode that it came in.
        loss_of: a batch -> its loss, a tensor of one number.
        batches: a generator of random numbers -> the batches of one epoch. Called once for each epoch; what is random
            about their order and content comes from that generator.
        optimizer: of the model's parameters; its lr may be a schedule.
        validate: () -> a number that falls as the model gets better, or several by name, of which the first one
            decides. Called after each epoch, without a graph. In the end the model has the parameters of the best
            epoch, however the run ended.
        report: a line of `History.epochs` -> anything. Called after each epoch, to print it or to show a sample.
        epochs, seconds: when to stop, counted from the beginning of a run that is resumed.
        patience: stop after so many epochs in a row that were not better than the best one.
        clip: the largest norm of the gradient.
        seed: of the order of the batches. First parameters and dropout have `tr.manual_seed`.
        captured: repeat the operations of a step (see `capture`), for batches of a few shapes.
        folder: where to keep checkpoint.safetensors, written about every 10 s and in the end, and log.csv; both are
            whole at every moment. What an earlier run has left there is renamed to previous-…
        resume: go on from the folder's checkpoint, optimiser, learning rate and random numbers included. What comes of
            it is what would have come of a run that was never stopped, on the CPU to the last bit.

    Returns: the history of the whole run.
    Raises: NonFiniteError for a loss or gradient that is NaN or infinite, before any parameter is changed by it;
        ValueError for options that do not go together; ShapeError for a loss of several numbers; DataError for an epoch
        without a batch; CheckpointError for a folder that cannot be written, or whose checkpoint
        is missing or damaged.

    >>> import tinyrnn as tr
    >>> from tinyrnn.fit import fit
    >>> line, x = tr.nn.Linear(1, 1), tr.tensor([[0.0], [1.0], [2.0]])
    >>> history = fit(
    ...     line,
    ...     loss_of=lambda batch: tr.mse_loss(line(batch), 2 * batch + 1),
    ...     batches=lambda generator: [x[generator.permutation(3)]],
    ...     optimizer=tr.optim.Adam(line.parameters(), lr=0.1),
    ...     epochs=200,
    ... )
    >>> f"{line(x)[2].item():.2f}", len(history.losses), history.ended
    ('5.00', 200, 'epochs')
    """
    _check_options(batches, epochs, seconds, patience, validate, folder, resume)
    history, order, best, seen = History(), Generator(seed), None, 0  # best parameters; batches seen of this epoch
    if resume:
        saved = _loaded(Path(str(folder)) / CHECKPOINT)
        optimizer.load_state_dict(saved["optimizer"])
        model.load_state_dict(saved["model"])
        history, best, seen = saved["history"], saved["best"], saved["seen"]
        order.state, default_generator.state = saved["order"], saved["random"]
    elif folder is not None:
        _make_room(Path(folder))
    begun = order.state  # where the random numbers of this epoch's batches begin
    training, started = model.training, monotonic() - history.seconds
    saved_at, saved_step = monotonic(), len(history.losses)

    def gradients(batch: Any) -> Tensor:
        """Return the loss of a batch, and leave the gradients in the parameters."""
        loss = _checked(loss_of(batch))
        loss.backward()
        return loss.detach()

    learn = capture(gradients, model) if captured else gradients

    def ended() -> str:
        """Return what ends the run now, or nothing."""
        history.seconds = monotonic() - started
        if epochs is not None and len(history.epochs) >= epochs:
            return "epochs"
        if patience is not None and history.best and len(history.epochs) - history.best["epoch"] >= patience:
            return "patience"
        if seconds is not None and history.seconds >= seconds:
            return "seconds"
        return "Ctrl-C" if interrupt.asked else ""

    def save() -> None:
        """Write everything that the run would need to go on from here."""
        nonlocal saved_at, saved_step
        saved_at, saved_step = monotonic(), len(history.losses)
        if folder is not None:
            run = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "best": best, "seen": seen}
            run |= {"history": _packed(history), "order": begun, "random": default_generator.state}
            checkpoint.save(Path(folder) / CHECKPOINT, run)
            checkpoint.replace_file(Path(folder).resolve() / LOG, _table(history.epochs))

    with Interrupt() as interrupt, _progress_bar(history, over=bool(ended())) as bar:
        while not ended():
            model.train()
            for batch in islice(batches(order), seen, None):
                if ended():  # with batches left: an epoch whose last step was the last one is an epoch
                    break
                optimizer.zero_grad()
                loss = learn(batch).item()
                norm = clip_grad_norm(optimizer.parameters, clip).item()
                _check_finite(loss, norm, len(history.losses) + 1, saved_step if folder else 0)
                optimizer.step()

                seen += 1
                history.losses.append(loss)
                history.norms.append(norm)
                _advance(bar, history, epochs)
                if monotonic() - saved_at > SAVE_SECONDS:
                    save()
            else:
                if seen == 0:
                    raise DataError("fit: batches(generator) gave no batch; expected at least one for each epoch")
                model.eval()
                line = _line(history, seen, optimizer.rate())
                if validate is not None:
                    line |= _validated(validate)
                    if _is_better(line, history.best):
                        history.best, best = line, model.state_dict()
                history.epochs.append(line)
                seen, begun = 0, order.state
                if report is not None:
                    with bar.external_write_mode():
                        report(line)
        history.ended = ended()
    save()
    if best is not None:
        model.load_state_dict(best)
    model.train(training)
    return history


# ---------------------------------------------------------------- around the loop


class Interrupt:
    """Ctrl-C asks a loop to stop after its step, so that what it saves is whole; a second one stops at once.

    Attributes: asked, whether that has happened.

    >>> import signal
    >>> from tinyrnn.fit import Interrupt
    >>> with Interrupt() as interrupt:
    ...     for step in range(1000):
    ...         if step == 3:
    ...             signal.raise_signal(signal.SIGINT)  # as Ctrl-C does
    ...         if interrupt.asked:
    ...             break
    >>> step
    3
    """

    asked = False

    def __enter__(self) -> Interrupt:
        self.listens = threading.current_thread() is threading.main_thread()  # others receive no signals
        if self.listens:
            self.before = signal.signal(signal.SIGINT, self.ask)
        return self

    def ask(self, *_: Any) -> None:
        """Note the wish."""
        self.asked = True
        signal.signal(signal.SIGINT, self.before)

    def __exit__(self, *_: Any) -> None:
        if self.listens:
            signal.signal(signal.SIGINT, self.before)


def _checked(loss: Any) -> Tensor:
    """Return a loss, having seen that it is one number."""
    if not isinstance(loss, Tensor) or loss.size != 1:
        given = f"a tensor {loss.shape}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ShapeError(f"fit: loss_of returned {given}; expected a tensor of one number, such as the mean of several")
    return loss


def _check_finite(loss: float, norm: float, step: int, saved_step: int) -> None:
    """See that a step can be taken."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise NonFiniteError(
            f"fit: at step {step} the loss is {loss} and the norm of its gradient {norm}; the parameters are those "
            "before that step"
            + (f", and the checkpoint is of step {saved_step}" if saved_step else "")
            + ". Try a smaller learning rate, or clip=1.0; tr.detect_anomaly() tells where it comes from"
        )


def _line(history: History, steps: int, lr: float) -> dict[str, float]:
    """Return what is to be said of the epoch that has just ended, of so many steps."""
    done = {"epoch": len(history.epochs) + 1, "steps": len(history.losses), "seconds": round(history.seconds, 3)}
    return done | {"loss": fmean(history.losses[-steps:]), "norm": fmean(history.norms[-steps:]), "lr": lr}


@no_grad()
def _validated(validate: Callable[[], Figures]) -> dict[str, float]:
    """Return what `validate` finds, under names of its own."""
    found = validate()
    figures = found if isinstance(found, Mapping) else {"": found}
    try:
        line = {f"validation_{name}".rstrip("_"): float(figure) for name, figure in figures.items()}
    except (TypeError, ValueError):
        line = {}
    if not line:
        raise ValueError(f"fit: validate returned {found!r}; expected a number, or several by name")
    return line


def _is_better(line: dict[str, float], best: dict[str, float] | None) -> bool:
    """Tell whether the figure that decides is lower than the best one; NaN is higher than any."""
    name = next(name for name in line if name.startswith("validation"))
    before = math.nan if best is None else best.get(name, math.nan)
    return math.isnan(before) or line[name] < before


def _progress_bar(history: History, over: bool) -> Any:
    """Return a bar that counts steps; none that is seen, if there will be no step."""
    from tqdm import tqdm

    if over:
        return tqdm(disable=True)
    return tqdm(initial=len(history.losses), unit="step", dynamic_ncols=True)


def _advance(bar: Any, history: History, epochs: int | None) -> None:
    """Move the bar by a step; how many there will be is known after the first epoch."""
    last = history.epochs[-1] if history.epochs else {}
    figures = {"loss": history.losses[-1]} | {name: x for name, x in last.items() if name.startswith("validation")}
    words = [f"epoch {len(history.epochs) + 1}", *(f"{name} {figure:.4g}" for name, figure in figures.items())]
    bar.set_postfix_str(", ".join(words), refresh=False)
    if epochs is not None and last:
        bar.total = round(last["steps"] / last["epoch"] * epochs)
    bar.update()


def _check_options(
    batches: Any, epochs: Any, seconds: Any, patience: Any, validate: Any, folder: Any, resume: bool
) -> None:
    """See that the options go together."""
    if not callable(batches):
        raise ValueError(
            f"fit: batches is a {type(batches).__name__}; expected a function of a generator that returns the batches "
            "of an epoch: lambda generator: batches"
        )
    for name, value in (("epochs", epochs), ("patience", patience)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"fit: {name} is {value!r}; expected an int of 1 or more")
    if seconds is not None and not seconds >= 0:
        raise ValueError(f"fit: seconds is {seconds!r}; expected a number of 0 or more")
    if epochs is None and seconds is None and patience is None:
        raise ValueError("fit: nothing would end the run; give epochs, seconds, or patience with validate")
    if patience is not None and validate is None:
        raise ValueError(f"fit: patience is {patience} and there is no validate to say whether the model gets better")
    if resume and folder is None:
        raise ValueError("fit: resume=True needs the folder of the run that is to go on")


# ---------------------------------------------------------------- the folder


def _make_room(folder: Path) -> None:
    """Make a folder, and rename what an earlier run has left there, which may be dear to somebody."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (CHECKPOINT, LOG):
            if (folder / name).exists():
                (folder / name).replace(folder / f"previous-{name}")
    except OSError as error:
        raise CheckpointError(f"fit: cannot write to {folder}: {error.strerror}; choose another folder") from error


def _packed(history: History) -> dict[str, Any]:
    """Return a history for a checkpoint: its long lists are arrays."""
    return asdict(history) | {"losses": np.array(history.losses), "norms": np.array(history.norms)}


def _loaded(path: Path) -> dict[str, Any]:
    """Read the checkpoint of a run.

    Raises: CheckpointError if there is none, or not one of `fit`, or it is damaged.
    """
    saved = checkpoint.load(path)
    if not isinstance(saved, dict) or not {"model", "optimizer", "best", "seen", "history", "order", "random"} <= set(
        saved
    ):
        raise CheckpointError(f"{path} is a checkpoint, but not one of fit; give the folder of a run of it")
    try:
        lists = {name: saved["history"][name].tolist() for name in ("losses", "norms")}
        saved["history"] = History(**saved["history"] | lists)
        for state in (saved["order"], saved["random"]):
            Generator().state = state  # which refuses what is none, before anything is changed
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error!r}; go on from an earlier one") from error
    return saved


def _table(epochs: list[dict[str, float]]) -> bytes:
    """Return the lines of the epochs as a table of comma-separated values."""
    names = list(dict.fromkeys(name for line in epochs for name in line))
    text = io.StringIO()
    table = csv.DictWriter(text, names)
    table.writeheader()
    table.writerows(epochs)
    return text.getvalue().encode()
