"""Character-level text generation: a recurrent network learns a text letter by letter, and then writes its own.

    python examples/char_rnn.py                                      # learn NumPy's docstrings for a minute
    python examples/char_rnn.py train --text PATH --cell gru --steps 2000
    python examples/char_rnn.py train --resume --steps 4000          # go on from where it stopped
    python examples/char_rnn.py sample --prompt "Return " --length 500 --temperature 0.7
    python examples/char_rnn.py graph --view unrolled                # draw what it has become
    python examples/char_rnn.py flow                                 # how far back its gradients reach

The text is cut into streams that are read side by side, a window of `--time` characters at a time. The state is carried
from window to window and gradients stop at the seam: truncated backpropagation through time.

Source: Karpathy 2015, "The Unreasonable Effectiveness of Recurrent Neural Networks".
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

import tinyrnn as tr
from tinyrnn import checkpoint, data, nn, optim, terminal, viz
from tinyrnn.generate import generate
from tinyrnn.viz.detail import DETAILS

CHECKPOINT, LOG, CURVE = "checkpoint.safetensors", "log.jsonl", "loss.png"
GRAPH, FLOW = "graph.svg", "flow.png"
CLIP = 5.0  # the largest norm of the gradient
HELD_OUT = 0.05  # the part of the text, its end, that is not learned from
PRINT_STEPS, SAVE_SECONDS, REPORT_SECONDS = 10, 10.0, 20.0
FLOW_BATCH = 8  # sequences that gradient flow is averaged over


class CharRNN(nn.Module):
    """A vector for each character, recurrent layers, and a linear map to one logit for each character.

    Shapes: x (T, B) of class numbers -> logits (T, B, V), and the recurrent state.
    """

    def __init__(self, vocabulary_size: int, cell: str, hidden: int, layers: int, dropout: float) -> None:
        layer = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.embedding = nn.Embedding(vocabulary_size, hidden)
        self.recurrent = layer(hidden, hidden, layers, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, vocabulary_size)

    def forward(self, x: tr.Tensor, state: Any = None) -> tuple[tr.Tensor, Any]:
        """Return the logits of the character that follows each character of x, and the state after the last."""
        h, state = self.recurrent(self.embedding(x), state)
        return self.output(self.dropout(h)), state


def train(options: argparse.Namespace) -> None:
    """Learn a text until the steps or the seconds are used up."""
    saved = load_run(options.out) if options.resume else None
    config = settle(options, saved)
    text = text_of(config, saved, options.out)
    random = tr.manual_seed(config["seed"])
    vocabulary = data.Vocabulary.of(text)
    learned, held_out = data.split(vocabulary.encode(text), HELD_OUT)
    windows = data.Streams(learned, config["batch"], config["time"])
    validation = held_out_windows(held_out, config["batch"], config["time"])
    model = CharRNN(len(vocabulary), *(config[name] for name in ("cell", "hidden", "layers", "dropout")))
    optimizer = optim.Adam(model.parameters(), lr=config["lr"])
    state, step, elapsed = None, 0, 0.0
    if saved:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"] and tuple(map(tr.tensor, saved["state"]))
        step, elapsed = saved["step"], saved["elapsed"]
        random.state = saved["random"]
    log = Log(options.out, step, fresh=not saved)

    def gradients(x: tr.Tensor, y: tr.Tensor, state: Any) -> tuple[tr.Tensor, Any]:
        """Return the loss of a window and the state after it, and leave the gradients in the parameters."""
        logits, state = model(x, state)
        loss = tr.cross_entropy(logits, y)
        loss.backward()  # through all the time steps of the window
        return loss, tr.detach(state)  # and no further: the next window does not reach back into this one

    learn = tr.capture(gradients, model)  # runs its Python once, and from then on the operations alone
    print(f"{config['text']}: {len(text):,} characters, {len(vocabulary)} different\n{model!r}")

    def save() -> None:
        log.flush()  # sees to it that no run is saved that has gone wrong
        run = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "state": state, "step": step}
        run |= {"elapsed": elapsed + clock(), "random": random.state, "config": config}
        run |= {"vocabulary": "".join(vocabulary.symbols), "text_sha256": data.sha256(text)}
        checkpoint.save(options.out / CHECKPOINT, run)
        log.saved_step = step

    def report() -> None:
        """Measure the loss on held-out text, and show a sample."""
        val_loss = evaluate(model, validation)
        log.measured(val_loss)
        written = generate(model, opening(vocabulary), 200, generator=tr.Generator(config["seed"]))
        bits = val_loss / math.log(2)
        bar.write(f"\nstep {step:,}: validation loss {val_loss:.3f} nats = {bits:.3f} bits/character")
        bar.write(f"{vocabulary.decode(list(written))}\n")

    started = time.monotonic()

    def clock() -> float:
        """Return the seconds of this run so far."""
        return time.monotonic() - started

    last_save = last_report = 0.0
    steps, seconds = options.steps or math.inf, options.seconds or math.inf
    done = step >= steps or elapsed >= seconds
    with progress_bar(step, elapsed, options) as bar, Interrupt() as interrupt:
        while not done:
            x, y = windows[step % len(windows)]
            if step % len(windows) == 0:
                state = None  # every stream begins again

            optimizer.zero_grad()
            loss, state = learn(x, y, state)
            norm = optim.clip_grad_norm(model.parameters(), CLIP)
            optimizer.step()

            step += 1
            log.add(step, loss, norm)
            done = step >= steps or elapsed + clock() >= seconds or interrupt.asked
            if done or clock() - last_report > REPORT_SECONDS:
                report()
                last_report = clock()
            if done or step % PRINT_STEPS == 0:
                log.flush()
                advance(bar, step, elapsed + clock(), log.loss, step * x.size)
            if done or (step % options.save_every == 0 if options.save_every else clock() - last_save > SAVE_SECONDS):
                save()
                last_save = clock()
    log.draw()
    print(f"saved in {options.out}; let it write with: python {sys.argv[0]} sample --checkpoint {options.out}")


def evaluate(model: CharRNN, windows: data.Streams) -> float:
    """Return the mean loss in nats per character over a text, with the state carried all the way through it."""
    state, losses = None, []
    model.eval()
    with tr.no_grad():
        for x, y in windows:
            logits, state = model(tr.tensor(x), state)
            losses.append(tr.cross_entropy(logits, y))
    model.train()
    return tr.stack(losses).mean().item()


def sample(options: argparse.Namespace) -> None:
    """Write text that continues a prompt, character by character as it comes."""
    model, vocabulary = restored(load_run(options.checkpoint))
    prompt = vocabulary.encode(options.prompt) if options.prompt else opening(vocabulary)
    cut = {"temperature": options.temperature, "top_k": options.top_k, "top_p": options.top_p}
    symbols = generate(model, prompt, options.length, generator=tr.Generator(options.seed), **cut)
    print(options.prompt, end="", flush=True)
    started = time.monotonic()
    for symbol in symbols:
        print(vocabulary.symbols[symbol], end="", flush=True)
    seconds = time.monotonic() - started
    print()
    print(f"{options.length} characters in {seconds:.2f} s: {options.length / seconds:,.0f} a second", file=sys.stderr)


def graph(options: argparse.Namespace) -> None:
    """Draw the trained model, while it reads a few characters."""
    model, vocabulary = restored(load_run(options.checkpoint))
    model.eval()
    x = vocabulary.encode(options.prompt or "".join(vocabulary.symbols[:8]))
    picture = tr.draw(model, tr.tensor(x).reshape(-1, 1), view=options.view, detail=options.detail)
    print(f"drawn: {picture.save(options.out or folder_of(options.checkpoint) / GRAPH)}, {picture!r}")


def flow(options: argparse.Namespace) -> None:
    """Measure on held-out text how much of each character's loss arrives at the states before it."""
    saved = load_run(options.checkpoint)
    model, vocabulary = restored(saved)
    model.eval()
    _, held_out = data.split(vocabulary.encode(text_of(saved["config"], saved, options.checkpoint)), HELD_OUT)
    x, y = held_out_windows(held_out, FLOW_BATCH, options.time)[0]

    def loss_fn(logits: tr.Tensor, y: Any) -> tr.Tensor:
        return tr.cross_entropy(logits, y, reduction="none")

    found = tr.gradient_flow(model, (tr.tensor(x), y), loss_fn)
    print(f"{len(x)} characters of held-out text: ‖∂L_t/∂h_k‖ by the distance t − k, and its part of that at 0\n")
    print(f"{'t − k':>5}" + "".join(f"  {layer.name:>27}" for layer in found))
    norms = [layer.by_distance() for layer in found]
    for d in sorted({0, *(2**n for n in range(12) if 2**n < len(x)), len(x) - 1}):
        print(f"{d:5}" + "".join(f"  {of[d]:16.1e} {of[d] / of[0]:10.4f}" for of in norms))
    draw_flow(found, options.out or folder_of(options.checkpoint) / FLOW)


# ---------------------------------------------------------------- around the loop


class Log:
    """What happened at each step, as JSON lines; the losses stay on the device until they are printed."""

    def __init__(self, folder: Path, step: int, fresh: bool) -> None:
        self.folder, self.loss = folder, math.nan
        self.saved_step = None if fresh else step
        self.waiting: list[dict[str, Any]] = []
        lines = [] if fresh else [line for line in self.lines() if line["step"] <= step]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if fresh and (folder / CHECKPOINT).exists():  # an earlier run's, which may be dear to somebody
                for name in (CHECKPOINT, LOG):
                    if (folder / name).exists():
                        (folder / name).replace(folder / f"previous-{name}")
            text = "".join(json.dumps(line) + "\n" for line in lines)
            checkpoint.replace_file(folder.resolve() / LOG, text.encode())
        except OSError as error:
            raise tr.errors.CheckpointError(
                f"cannot write to {folder}: {error.strerror}; choose another --out"
            ) from error

    def lines(self) -> list[dict[str, Any]]:
        """Read the log back; a line that a kill has cut short is left out."""
        path = self.folder / LOG
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("}\n")]

    def add(self, step: int, loss: tr.Tensor, norm: tr.Tensor) -> None:
        """Note the loss of a step, and the norm of its gradient, with no waiting for the device."""
        self.waiting.append({"step": step, "loss": loss.detach(), "norm": norm})

    def measured(self, val_loss: float) -> None:
        """Note the loss on held-out text after the step that was added last."""
        self.waiting[-1]["val_loss"] = val_loss

    def flush(self) -> None:
        """Read what is waiting, write it, and see that it is finite."""
        lines, self.waiting = self.waiting, []
        for line in lines:
            line["loss"], norm = line["loss"].item(), line.pop("norm").item()
            if not (math.isfinite(line["loss"]) and math.isfinite(norm)):
                good = f"the checkpoint in {self.folder} is of step {self.saved_step}, before that; "
                raise tr.errors.NonFiniteError(
                    f"at step {line['step']} the loss is {line['loss']} and the norm of its gradient {norm}: "
                    f"{good if self.saved_step is not None else ''}start again with a smaller --lr"
                )
            with (self.folder / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self.loss = line["loss"]

    def draw(self) -> None:
        """Draw the loss over the steps, if matplotlib is installed."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            return
        lines, figure = self.lines(), Figure(figsize=(7, 4), layout="constrained")
        measured = [line for line in lines if "val_loss" in line]
        held_out = [line["step"] for line in measured], [line["val_loss"] for line in measured]
        steps, losses = [line["step"] for line in lines], [line["loss"] for line in lines]
        viz.plot_loss(steps, losses, held_out, unit="nats per character", ax=figure.subplots())
        figure.savefig(self.folder / CURVE, dpi=150)


class Interrupt:
    """Ctrl-C asks the loop to stop after its step, so that what it saves is whole; a second one stops at once."""

    asked = False

    def __enter__(self) -> Interrupt:
        self.before = signal.signal(signal.SIGINT, self.ask)
        return self

    def ask(self, *_: Any) -> None:
        """Note the wish."""
        self.asked = True
        signal.signal(signal.SIGINT, self.before)

    def __exit__(self, *_: Any) -> None:
        signal.signal(signal.SIGINT, self.before)


def load_run(path: Path) -> Any:
    """Read the checkpoint of a training from its folder, or from the file itself."""
    file = path / CHECKPOINT if path.is_dir() else path
    saved = checkpoint.load(file)
    if not isinstance(saved, dict) or not {"model", "optimizer", "vocabulary", "config", "step"} <= set(saved):
        raise tr.errors.CheckpointError(f"{file} is a checkpoint, but not one of this program; give a training's --out")
    return saved


def restored(saved: Any) -> tuple[CharRNN, data.Vocabulary]:
    """Return the model of a checkpoint, and its vocabulary."""
    vocabulary, config = data.Vocabulary(saved["vocabulary"]), saved["config"]
    model = CharRNN(len(vocabulary), *(config[name] for name in ("cell", "hidden", "layers", "dropout")))
    model.load_state_dict(saved["model"])
    return model, vocabulary


def text_of(config: dict[str, Any], saved: Any, where: Path) -> str:
    """Return the text that is learned from: for a run that was saved, the same one as then."""
    text = data.read_text(config["text"])
    if saved and saved["text_sha256"] != data.sha256(text):
        raise tr.errors.DataError(f"the text {config['text']} is not the one that {where} was trained on")
    return text


def folder_of(path: Path) -> Path:
    """Return the folder of a checkpoint that is given as such, or as the file."""
    return path if path.is_dir() else path.parent


def draw_flow(found: viz.GradientFlow, path: Path) -> None:
    """Draw a heat map for each layer, if matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture, since matplotlib is not installed: pip install 'tinyrnn[plot]'", file=sys.stderr)
        return
    layers = list(found)
    figure = Figure(figsize=(6.4 * len(layers), 4.8), layout="constrained")
    for layer, ax in zip(layers, figure.subplots(1, len(layers), squeeze=False).flat, strict=True):
        viz.plot_gradient_flow(layer, ax=ax)
    try:
        figure.savefig(path, dpi=150)
    except ValueError as error:  # an ending that Matplotlib does not know
        raise tr.errors.RenderError(f"--out {path}: {error}") from error
    print(f"drawn: {path}")


def held_out_windows(ids: Any, batch: int, time: int) -> data.Streams:
    """Cut the held-out text into windows like those of training, smaller ones if it is short."""
    if len(ids) < 2:
        raise tr.errors.DataError(f"{HELD_OUT:.0%} of the text are {len(ids)} characters; give a longer text")
    time = min(time, len(ids) - 1)
    return data.Streams(ids, min(batch, (len(ids) - 1) // time), time)


def opening(vocabulary: data.Vocabulary) -> Any:
    """Return what a sample begins with when nothing is asked for: a new line, or the first symbol."""
    return vocabulary.encode("\n" if "\n" in vocabulary.symbols else vocabulary.symbols[0])


def progress_bar(step: int, elapsed: float, options: argparse.Namespace) -> tqdm[Any]:
    """Return a bar that counts steps, or seconds where only those are limited."""
    if options.steps:
        return tqdm(total=options.steps, initial=step, unit="step", dynamic_ncols=True)
    layout = "{l_bar}{bar}| {n:.0f}/{total:.0f} s, {remaining} left{postfix}"
    return tqdm(total=options.seconds, initial=min(elapsed, options.seconds), bar_format=layout, dynamic_ncols=True)


def advance(bar: tqdm[Any], step: int, elapsed: float, loss: float, characters: int) -> None:
    """Move the bar to where training is."""
    bar.set_postfix_str(f"step {step:,}, loss {loss:.3f}, {characters / elapsed:,.0f} characters/s", refresh=False)
    if not bar.disable:
        bar.update((step if bar.unit == "step" else min(elapsed, bar.total)) - bar.n)


def settle(options: argparse.Namespace, saved: Any) -> dict[str, Any]:
    """Return what makes the run: as asked for, or as it was saved, which it cannot depart from."""
    asked = {name: getattr(options, name) for name in DEFAULTS if getattr(options, name) is not None}
    if not saved:
        return DEFAULTS | asked
    for name, value in asked.items():
        if value != saved["config"][name]:
            raise tr.errors.DataError(
                f"--{name} is {value}, but the run in {options.out} has {saved['config'][name]}; "
                "leave it out, or start another run without --resume"
            )
    return saved["config"]


DEFAULTS = {
    "text": "numpy-docs",
    "cell": "lstm",
    "hidden": 128,
    "layers": 2,
    "batch": 50,
    "time": 50,
    "lr": 2e-3,
    "dropout": 0.0,
    "seed": 0,
}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; `train` is understood when no sub-command is given."""

    def number(kind: Any, low: float, high: float = math.inf) -> Any:
        expected = f"{'a whole' if kind is int else 'a'} number"
        expected += f" of {low} or more" if high == math.inf else f" from {low} to {high}"

        def read(word: str) -> Any:
            try:
                value = kind(word)
            except ValueError:
                value = math.nan
            if not (low <= value <= high and math.isfinite(value)):
                raise argparse.ArgumentTypeError(f"{word}; expected {expected}")
            return value

        return read

    def default(name: str) -> str:
        return f"(default: {DEFAULTS[name]})"

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    learn = commands.add_parser("train", help="learn a text")
    learn.add_argument("--text", metavar="PATH|numpy-docs|shakespeare", help=f"what to learn {default('text')}")
    learn.add_argument("--cell", choices=["rnn", "lstm", "gru"], help=f"kind of layer {default('cell')}")
    learn.add_argument("--hidden", type=number(int, 1), help=f"width of each layer {default('hidden')}")
    learn.add_argument("--layers", type=number(int, 1), help=f"layers on top of each other {default('layers')}")
    learn.add_argument("--batch", type=number(int, 1), help=f"streams read side by side {default('batch')}")
    learn.add_argument("--time", type=number(int, 1), help=f"characters in a window {default('time')}")
    learn.add_argument("--lr", type=number(float, 0), help=f"Adam's learning rate {default('lr')}")
    learn.add_argument(
        "--dropout", type=number(float, 0, 0.99), help=f"between layers and at the end {default('dropout')}"
    )
    learn.add_argument("--seed", type=number(int, 0), help=f"of all that is random {default('seed')}")
    learn.add_argument("--steps", type=number(int, 1), help="stop after so many steps in all")
    learn.add_argument(
        "--seconds", type=number(float, 0.001), help="stop after so many seconds (default: 60 without --steps)"
    )
    learn.add_argument(
        "--save-every",
        type=number(int, 1),
        metavar="STEPS",
        help="steps between checkpoints (default: about every 10 s)",
    )
    learn.add_argument("--out", type=Path, default=Path("runs/char_rnn"), help="folder (default: runs/char_rnn)")
    learn.add_argument("--resume", action="store_true", help="go on with the run in --out")
    write = commands.add_parser("sample", help="write text")
    write.add_argument("--prompt", default="", metavar="TEXT", help="what the text begins with (default: a new line)")
    write.add_argument("--length", type=number(int, 1), default=500, metavar="N", help="characters (default: 500)")
    write.add_argument(
        "--temperature", type=number(float, 0), default=1.0, metavar="F", help="0 is greedy (default: 1)"
    )
    write.add_argument("--top-k", type=number(int, 1), metavar="K", help="draw from the K likeliest characters")
    write.add_argument(
        "--top-p", type=number(float, 1e-9, 1), metavar="P", help="draw from the likeliest that sum to P"
    )
    write.add_argument("--seed", type=number(int, 0), help="repeats a text (default: another one every time)")
    look = commands.add_parser("graph", help="draw the model")
    look.add_argument("--prompt", default="", metavar="TEXT", help="what it reads (default: 8 characters)")
    look.add_argument("--view", choices=["rolled", "unrolled"], default="rolled", help="of time (default: rolled)")
    look.add_argument("--detail", choices=DETAILS, help="(default: op, unrolled cell)")
    look.add_argument(
        "--out", type=Path, metavar="FILE", help=f".svg, .png, … (default: {GRAPH} beside the checkpoint)"
    )
    measure = commands.add_parser("flow", help="measure how far back gradients reach")
    measure.add_argument("--time", type=number(int, 2), default=50, metavar="T", help="characters (default: 50)")
    measure.add_argument("--out", type=Path, metavar="FILE", help=f"picture (default: {FLOW} beside the checkpoint)")
    for command in (write, look, measure):
        command.add_argument(
            "--checkpoint", type=Path, default=Path("runs/char_rnn"), metavar="DIR", help="a training's --out"
        )
    for command in (learn, write, look, measure):
        command.add_argument("--backend", help="numpy or cupy (default: $TINYRNN_BACKEND, or numpy)")
    if not arguments or arguments[0] not in (*COMMANDS, "-h", "--help"):
        arguments = ["train", *arguments]
    options = parser.parse_args(arguments)
    if options.command == "train" and options.steps is None and options.seconds is None:
        options.seconds = 60.0
    return options


COMMANDS = {"train": train, "sample": sample, "graph": graph, "flow": flow}


def main(arguments: list[str]) -> int:
    """Run a command; a mistake in what was given is told in one line."""
    options = parse(arguments)
    try:
        if options.backend:
            tr.use_backend(options.backend)
        COMMANDS[options.command](options)
    except tr.errors.TinyRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the text has had enough, which `terminal.run` knows about
        raise
    except OSError as error:
        place = error.filename or getattr(options, "out", None) or "what was made"
        print(f"error: cannot write {place}: {error.strerror}; make room, or choose another --out", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    terminal.run(lambda: main(sys.argv[1:]))
