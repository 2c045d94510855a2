"""Where the gradient goes in time: it vanishes in an RNN, explodes, is clipped; and what keeps it.

    python examples/gradient_flow.py                     # both problems, a table each
    python examples/gradient_flow.py --problem copy --time 60 --steps 300 --out runs/flow     # and pictures

Two problems that need a long memory. Copy: four symbols come, then a long silence, then they are to be written down.
Adding: of a sequence of numbers two are marked, and their sum is asked for at the end. Only the losses at the end speak
of the beginning, so what they can teach it is ‖∂L_T/∂h_0‖: the table shows how much of it arrives. What helps, to begin
with: an orthogonal W_h, which neither shrinks nor stretches; an LSTM, whose memory c is multiplied by its forget gate
alone, the more so the larger that gate's bias; to go on with: clipping.

Source: Hochreiter & Schmidhuber 1997, "Long Short-Term Memory" (adding); Arjovsky, Shah & Bengio 2016, "Unitary
    Evolution Recurrent Neural Networks" (copy, in this form); Pascanu, Mikolov & Bengio 2013 (clipping); Jozefowicz,
    Zaremba & Sutskever 2015 (forget bias).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tinyrnn as tr
from tinyrnn import nn, optim, terminal, viz
from tinyrnn.viz import GradientFlow, gradient_flow

SYMBOLS, COPIED = 4, 4  # what is to be remembered: 4 symbols, each one of 4
CLIP = 1.0  # the largest norm of the gradient
LOST = 1e8  # a gradient of such a norm leaves nothing of what was learned
LAYERS = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}


class Network(nn.Module):
    """A recurrent layer, and a linear map of its output at every step: x (T, B, I) -> (T, B, O)."""

    def __init__(self, kind: str, input_size: int, hidden: int, output_size: int) -> None:
        self.recurrent = LAYERS[kind](input_size, hidden)
        self.output = nn.Linear(hidden, output_size)

    def forward(self, x: tr.Tensor) -> tr.Tensor:
        """Return what the network answers at every step."""
        h, _ = self.recurrent(x)
        return self.output(h)


# ---------------------------------------------------------------- the problems


def copy_batch(T: int, B: int, random: np.random.Generator) -> tuple[tr.Tensor, tr.Tensor]:
    """Return x (T, B, SYMBOLS + 2), one-hot, and y (T, B).

    x is symbols, silence, a signal, silence; y is silence until after the signal, and then the symbols.
    """
    symbols = random.integers(0, SYMBOLS, (COPIED, B))
    seen, y = np.full((T, B), SYMBOLS), np.full((T, B), SYMBOLS)
    seen[:COPIED], y[-COPIED:] = symbols, symbols
    seen[-COPIED - 1] = SYMBOLS + 1
    return tr.one_hot(tr.tensor(seen), SYMBOLS + 2), tr.tensor(y)


def copy_loss(out: tr.Tensor, y: tr.Tensor) -> tr.Tensor:
    """−log p(symbol), in nats, for each step and sequence: (T, B)."""
    return tr.cross_entropy(out, y, reduction="none")


def adding_batch(T: int, B: int, random: np.random.Generator) -> tuple[tr.Tensor, tr.Tensor]:
    """Return x (T, B, 2), numbers from 0 to 1 and marks, one in each half; and y (B,), the sum of those marked."""
    numbers, marks, b = random.random((T, B)), np.zeros((T, B)), np.arange(B)
    marks[random.integers(0, T // 2, B), b] = marks[random.integers(T // 2, T, B), b] = 1
    x = np.stack([numbers, marks], axis=-1).astype(np.float32)
    return tr.tensor(x), tr.tensor((numbers * marks).sum(0).astype(np.float32))


def adding_loss(out: tr.Tensor, y: tr.Tensor) -> tr.Tensor:
    """(sum − answer)² for each step and sequence: (T, B); it counts at the last step alone."""
    return (out.squeeze(2) - y) ** 2


Problem = tuple[Callable[..., Any], Callable[..., Any], int, int, int]
PROBLEMS: dict[str, Problem] = {  # batch, loss, input_size, output_size, how many steps at the end count
    "copy": (copy_batch, copy_loss, SYMBOLS + 2, SYMBOLS + 1, COPIED),
    "adding": (adding_batch, adding_loss, 2, 1, 1),
}

# ---------------------------------------------------------------- training, and what it does to the flow


class Course(NamedTuple):
    """A training: the norm of each step's gradient, before it was clipped, and the loss."""

    norms: list[float]
    losses: list[float]


def learn(model: Network, optimizer: Any, problem: str, options: argparse.Namespace, clip: float = CLIP) -> Course:
    """Train for a while, or until the gradient is past all bounds."""
    make, loss_fn, _, _, last = PROBLEMS[problem]
    random = np.random.default_rng(options.seed)

    def gradients(x: tr.Tensor, y: tr.Tensor) -> tr.Tensor:
        loss = tr.mean(loss_fn(model(x), y)[-last:])
        loss.backward()
        return loss

    step, course = tr.capture(gradients, model), Course([], [])
    for _ in range(options.steps):
        optimizer.zero_grad()
        with np.errstate(over="ignore", invalid="ignore"):
            loss = step(*make(options.time, options.batch, random)).item()
            norm = optim.clip_grad_norm(model.parameters(), clip).item()
        course.losses.append(loss)
        course.norms.append(norm)
        if not norm < LOST:
            break
        optimizer.step()
    return course


def scaled(model: Network, factor: float) -> Network:
    """Multiply W_h, whose singular values are all 1 at first, by a factor."""
    W_h = model.recurrent.cells[0].W_h
    W_h.assign(W_h.detach() * factor)
    return model


def remembering(model: Network, bias: float) -> Network:
    """Set the forget gate's bias of an LSTM: σ(bias) of its memory stays at each step, to begin with."""
    cell = model.recurrent.cells[0]
    i, _, g, o = tr.split(cell.b.detach(), 4)
    cell.b.assign(tr.concatenate([i, tr.full(i.shape, bias), g, o]))
    return model


def measure(model: Network, problem: str, options: argparse.Namespace) -> tuple[GradientFlow, float]:
    """Return the flow of the last step's loss, or of all for a picture; and the loss of what counts."""
    make, loss_fn, _, _, last = PROBLEMS[problem]
    batch = make(options.time, 16, np.random.default_rng(1))
    flow = gradient_flow(model, batch, loss_fn, at=None if options.out else -1)
    return flow, float(flow.losses[-last:].mean())


def last_row(flow: GradientFlow) -> Any:
    """Return ‖∂L_T/∂h_k‖, of an LSTM ‖∂L_T/∂c_k‖, for each k before the last."""
    return flow.only.norms_of(list(flow.only.gradients)[-1])[-1, :-1]


def row(name: str, flow: GradientFlow, loss: float) -> None:
    """Print what arrives at the beginning, of what sets out at the end."""
    norms = last_row(flow)
    shown = [f"{norms[k]:9.1e}" for k in (-1, len(norms) // 2, 0)]
    arrives = norms[0] / norms[-1] if norms[-1] else math.nan
    print(f"{name:36} {loss:8.3g}  {'  '.join(shown)}  {arrives:9.1e}  {flow.jacobian_norms.mean():7.2f}")


def run(problem: str, options: argparse.Namespace) -> None:
    """Print one problem's table, and draw its pictures if there is a folder for them."""
    _, _, input_size, output_size, _ = PROBLEMS[problem]
    T = options.time
    print(f"\n{problem}, T={T}: ‖∂L_T/∂h_k‖, for LSTMs ‖∂L_T/∂c_k‖; and σ, the largest singular value of ∂s_t/∂s_(t−1)")
    print(f"{'':36} {'loss':>8}  {f'k={T - 2}':>9}  {f'k={(T - 1) // 2}':>9}  {'k=0':>9}  {'arrives':>9}  {'σ':>7}")
    flows: dict[str, GradientFlow] = {}

    def network(kind: str) -> Network:
        tr.manual_seed(options.seed)
        return Network(kind, input_size, options.hidden, output_size)

    def show(name: str, model: Network, title: str = "") -> None:
        flows[name], loss = measure(model, problem, options)
        row(title or name, flows[name], loss)

    def train(name: str, model: Network, optimizer: Any, clip: float = CLIP) -> Course:
        course = learn(model, optimizer, problem, options, clip)
        told = f"{sum(norm > clip for norm in course.norms)} clipped" if clip < math.inf else "none clipped"
        lost = "" if course.norms[-1] < LOST else ": lost"
        show(name, model, f"  {len(course.norms)} steps later, {told}{lost}")
        return course

    show("RNN, W_h × 0.5: vanishes", scaled(network("RNN"), 0.5))
    courses: dict[str, Course] = {}
    for name, clip in ((f"clipped to {CLIP:g}", CLIP), ("not clipped", math.inf)):  # by plain gradient descent, which
        exploding = scaled(network("RNN"), 2.0)  # makes steps as large as the gradient
        if not courses:
            show("RNN, W_h × 2: explodes", exploding)
        descent = optim.SGD(exploding.parameters(), lr=options.sgd_lr)
        courses[name] = train(f"RNN, W_h × 2, {name}, later", exploding, descent, clip)
    cured = {"RNN, W_h orthogonal": network("RNN")}
    cured |= {f"LSTM, forget bias {bias}": remembering(network("LSTM"), bias) for bias in (0, 1, 3)}
    cured["GRU"] = network("GRU")
    for name, model in cured.items():
        show(name, model)
        train(f"{name}, later", model, optim.Adam(model.parameters(), lr=options.lr))
    if options.out:
        draw(problem, flows, courses, [*list(flows)[:1], *cured], options.out)


# ---------------------------------------------------------------- pictures


def draw(
    problem: str, flows: dict[str, GradientFlow], courses: dict[str, Course], compared: list[str], folder: Path
) -> None:
    """Save a picture each of what vanishes, what explodes, what clipping does, and what helps."""
    from matplotlib.figure import Figure

    def save(name: str, figure: Figure) -> None:
        figure.savefig(folder / f"{problem}_{name}.png", dpi=100)
        print(f"drawn: {folder / f'{problem}_{name}.png'}")

    for name, chosen in (
        ("vanishing", ["RNN, W_h × 0.5: vanishes", "RNN, W_h orthogonal"]),
        ("exploding", ["RNN, W_h × 2: explodes", f"RNN, W_h × 2, {next(iter(courses))}, later"]),
    ):
        figure = Figure(figsize=(11, 4.4), layout="constrained")
        limits = (
            -6.0,
            max(float(np.ceil(np.log10(np.nanmax(flows[of].norms)))) for of in chosen),
        )  # one scale for both
        for ax, of in zip(figure.subplots(1, 2), chosen, strict=True):
            viz.plot_gradient_flow(flows[of], limits=limits, ax=ax).set_title(of)
        save(name, figure)
    save("clipped", courses_drawn(courses, Figure(figsize=(7, 6), layout="constrained")))
    save("cured", rows_drawn({name: flows[name] for name in compared}, Figure(figsize=(8, 5), layout="constrained")))


def courses_drawn(courses: dict[str, Course], figure: Any) -> Any:
    """Draw trainings one over the other: the norm of the gradient, and the loss."""
    above, below = figure.subplots(2, 1, sharex=True)
    for name, course in courses.items():
        above.semilogy(course.norms, lw=1, label=name)
        below.semilogy(course.losses, lw=1, label=name)
    above.axhline(CLIP, color="black", ls=":", lw=1)
    above.set(ylabel="‖gradient‖, before clipping", title="RNN with W_h × 2: what clipping does")
    below.set(xlabel="step of training", ylabel="loss")
    above.legend(frameon=False)
    return figure


def rows_drawn(flows: dict[str, GradientFlow], figure: Any) -> Any:
    """Draw how much of the last loss' gradient arrives at each step before it."""
    ax = figure.subplots()
    for name, flow in flows.items():
        ax.semilogy(last_row(flow), lw=1.5, label=name)
    ax.set(
        xlabel="k, step that receives it", ylabel="‖∂L_T/∂h_k‖, of an LSTM ‖∂L_T/∂c_k‖", title="What helps, at first"
    )
    ax.legend(frameon=False)
    return figure


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Where the gradient goes in time: RNN, LSTM and GRU.")
    parser.add_argument("--problem", choices=[*PROBLEMS, "both"], default="both")
    parser.add_argument("--time", type=int, default=40, help="T, steps of a sequence (40)")
    parser.add_argument("--hidden", type=int, default=32, help="H, width of the layer (32)")
    parser.add_argument("--batch", type=int, default=32, help="B, sequences in a batch (32)")
    parser.add_argument("--steps", type=int, default=200, help="steps of training (200)")
    parser.add_argument("--lr", type=float, default=0.01, help="Adam's step size (0.01)")
    parser.add_argument("--sgd-lr", type=float, default=0.05, help="of the RNN that explodes, by descent (0.05)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a folder for pictures (needs matplotlib)")
    options = parser.parse_args()
    if options.time < 2 * COPIED + 2:
        parser.error(f"--time {options.time} is too short; expected {2 * COPIED + 2} or more")
    for name in ("hidden", "batch", "steps"):
        if vars(options)[name] < 1:
            parser.error(f"--{name} is {vars(options)[name]}; expected 1 or more")
    return options


def main() -> None:
    """Run the problems that were chosen."""
    options = arguments()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)  # where it cannot be, this is told before all the work
    for problem in PROBLEMS if options.problem == "both" else [options.problem]:
        run(problem, options)


if __name__ == "__main__":
    terminal.run(main)
