"""Plots of what a recurrent network does, with Matplotlib: one function each, which draws into an Axes and returns it.

Each takes plain numbers (arrays or tensors) and an optional `ax`; without one it makes a figure of a size that fits.
To see it, `plt.show()`; to keep it, `ax.figure.savefig("flow.png")`. Inside `plt.style.context("dark_background")` they
are as readable as on white. Colours: viridis for amounts, PuOr for what has a sign, and those of Okabe and Ito.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyrnn.errors import BackendError, ShapeError
from tinyrnn.generate import next_distribution
from tinyrnn.tensor import Tensor, tensor
from tinyrnn.viz.flow import GradientFlow, LayerFlow

Floats = npt.NDArray[np.float64]
Axes = Any  # matplotlib.axes.Axes: imported where it is used

AMOUNTS, SIGNED = "viridis", "PuOr"
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#B0B0B0"  # Okabe & Ito 2008, "Color Universal Design"
FAINTEST = 16.0  # decades below the largest norm: float64 cannot tell less from 0 beside it


def plot_gradient_flow(
    flow: GradientFlow | LayerFlow,
    layer: str | None = None,
    limits: tuple[float, float] | None = None,
    ax: Axes = None,
) -> Axes:
    """Draw log₁₀ ‖∂L_t/∂h_k‖: a row for each loss L_t, a column for each step k that its gradient comes to.

    The diagonal is where a loss arises; leftwards its gradient goes back in time, and rightwards in a cell that reads
    the sequence backward. Hatched is where there is no number: the cell takes step k after L_t, or L_t was not asked
    for. A gradient of 0 has the darkest colour.

    Args:
        flow: what `gradient_flow` returned.
        layer: the name of the cell, where there are several.
        limits: log₁₀ of what the darkest and the brightest colour stand for, to compare pictures; if left out, as far
            as the norms reach, but no more than 16 decades.
        ax: where to draw, a Matplotlib Axes, which is returned; that of a new figure if left out.

    Raises: IndexRangeError for a layer that there is not, or if there are several and none is named.

    >>> import tinyrnn as tr
    >>> from matplotlib.figure import Figure
    >>> def squares(out, y):
    ...     return tr.sum(out**2, axis=-1)
    >>> flow = tr.gradient_flow(tr.nn.RNN(3, 4), (tr.randn(6, 2, 3), None), squares)
    >>> tr.viz.plot_gradient_flow(flow, ax=Figure().subplots()).get_title()
    'Gradient flow, cells.0'
    """
    found = flow if isinstance(flow, LayerFlow) else flow.only if layer is None else flow[layer]
    norms = found.norms[:, np.argsort(found.times, kind="stable")]  # in order of time
    with np.errstate(divide="ignore"):
        decades = np.log10(norms)
    seen = decades[np.isfinite(decades)]
    high = float(seen.max(initial=-np.inf)) if seen.size else 0.0
    low = max(float(seen.min()), high - FAINTEST) if seen.size else high
    low, high = limits or (low if low < high else high - 1, high)
    below = bool((decades < low).any())
    decades[np.isneginf(decades)] = low
    ax = _axes(ax, (6.4, 4.8))
    ax.patch.set(hatch="////", edgecolor=GREY, linewidth=0)
    image = _image(ax, decades, AMOUNTS, low, high)
    _bar(ax, image, "log₁₀ ‖∂Lₜ/∂hₖ‖", extend="min" if below else "neither")
    ax.set(xlabel="k, step whose state receives it", ylabel="t, step of the loss", title=f"Gradient flow, {found.name}")
    return ax


def plot_activations(
    text: str | Sequence[str],
    values: Any,
    name: str = "activation",
    width: int = 60,
    limits: tuple[float, float] | None = None,
    ax: Axes = None,
) -> Axes:
    """Draw a text with each character on the colour of a value: a gate's, or a neuron's, while that character was read.

    Args:
        text: T characters.
        values: (T,), in the same order.
        name: what the values are, for the colour bar.
        width: characters in a line; a line break in the text is shown as ↵ and ends its line.
        limits: the values of the first and the last colour; ±1 (orange, white, violet) if any value is negative, else 0
            and 1, or as far as the values reach beyond.
        ax: where to draw, a Matplotlib Axes, which is returned; that of a new figure if left out.

    The gates of an LSTM are those of its equation, step by step:

        for x_t in x:  # (T, B, I)
            i, f, g, o = tr.split(cell.project(x_t) + cell.recur(state.h), 4)
            forget.append(tr.sigmoid(f)[0, unit].item())
            state = cell(x_t, state)

    Raises: ShapeError if there is not one value for each character.
    Source: Karpathy, Johnson & Fei-Fei 2015, "Visualizing and Understanding Recurrent Networks".

    >>> import tinyrnn as tr
    >>> from matplotlib.figure import Figure
    >>> forget = [0.9, 0.1, 0.8]
    >>> ax = tr.viz.plot_activations("a b", forget, ax=Figure().subplots())
    >>> [letter.get_text() for letter in ax.texts]
    ['a', ' ', 'b']
    """
    x = _numbers(values)
    if x.shape != (len(text),):
        raise ShapeError(f"plot_activations: values are {x.shape}; expected ({len(text)},), one for each character")
    signed, far = bool((x < 0).any()), max(1.0, _reach(x))
    low, high = limits or (-far if signed else 0.0, far)
    row = column = 0
    places: list[tuple[int, int]] = []
    for symbol in text:
        if column == width:
            row, column = row + 1, 0
        places.append((row, column))
        row, column = (row + 1, 0) if symbol == "\n" else (row, column + 1)
    lines, longest = (places[-1][0] + 1, max(c for _, c in places) + 1) if places else (1, 1)
    grid = np.full((lines, longest), np.nan)
    for place, value in zip(places, x, strict=True):
        grid[place] = value
    ax = _axes(ax, (max(4.0, 0.16 * longest + 1.6), max(1.6, 0.27 * lines + 0.9)))
    image = _image(ax, grid, SIGNED if signed else AMOUNTS, low, high)
    for (line, column), symbol, rgba in zip(places, text, image.to_rgba(x), strict=True):
        shown = {"\n": "↵", "\t": "⇥"}.get(symbol, symbol)
        ax.text(column, line, shown, ha="center", va="center", color=_ink(rgba), family="monospace", size=9)
    _bar(ax, image, name)
    ax.set(xticks=[], yticks=[], title=f"{name}, character by character")
    return ax


def plot_hidden(h: Any, name: str = "h", limits: tuple[float, float] | None = None, ax: Axes = None) -> Axes:
    """Draw a hidden state over time: a row for each unit, a column for each step.

    Args:
        h: (T, H), such as out[:, 0] of a layer.
        name: what it is.
        limits: the values of the first and the last colour, to compare pictures; if left out, as far as the values
            reach to either side of 0.
        ax: where to draw, a Matplotlib Axes, which is returned; that of a new figure if left out.

    Raises: ShapeError for another shape.

    >>> import tinyrnn as tr
    >>> from matplotlib.figure import Figure
    >>> out, state = tr.nn.RNN(3, 4)(tr.randn(6, 2, 3))
    >>> tr.viz.plot_hidden(out[:, 0], ax=Figure().subplots()).get_title()
    'h over time'
    """
    x = _numbers(h)
    if x.ndim != 2:
        raise ShapeError(f"plot_hidden: h is {x.shape}; expected (T, H), one sequence: out[:, b] takes it of (T, B, H)")
    far = max(_reach(x), 1e-12)
    low, high = limits or (-far, far)
    ax = _axes(ax, (7.2, 4.0))
    image = _image(ax, x.T, SIGNED, low, high)
    _bar(ax, image, name)
    ax.set(xlabel="time, steps", ylabel="unit", title=f"{name} over time")
    return ax


def plot_attention(
    weights: Any, rows: Sequence[str] | None = None, columns: Sequence[str] | None = None, ax: Axes = None
) -> Axes:
    """Draw where each query looks: a row for each query, a column for each key, and its weight as colour.

    Args:
        weights: (Tq, Tk), such as weights[:, :, b] of nn.Attention.
        rows: names of the queries.
        columns: names of the keys.
        ax: where to draw, a Matplotlib Axes, which is returned; that of a new figure if left out.

    Raises: ShapeError for another shape, or names that are not one for each.

    >>> import tinyrnn as tr
    >>> from matplotlib.figure import Figure
    >>> weights, words = [[0.9, 0.1], [0.2, 0.8]], ["the", "cat"]
    >>> ax = tr.viz.plot_attention(weights, columns=words, ax=Figure().subplots())
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['the', 'cat']
    """
    w = _numbers(weights)
    if w.ndim != 2:
        raise ShapeError(f"plot_attention: weights are {w.shape}; expected (Tq, Tk), of one sequence: weights[:, :, b]")
    for names, n, what in ((rows, w.shape[0], "rows"), (columns, w.shape[1], "columns")):
        if names is not None and len(names) != n:
            raise ShapeError(f"plot_attention: given {len(names)} {what} for weights {w.shape}; expected {n}")
    ax = _axes(ax, (min(12.0, 2.4 + 0.34 * w.shape[1]), min(10.0, 1.6 + 0.34 * w.shape[0])))
    image = _image(ax, w, AMOUNTS, 0, 1)
    _bar(ax, image, "weight")
    ax.set(xlabel="key, what is looked at", ylabel="query, step of the decoder", title="Attention")
    if columns is not None:
        turned = any(len(_shown(name)) > 2 for name in columns)
        ax.set_xticks(range(len(columns)), map(_shown, columns), rotation=90 if turned else 0)
    if rows is not None:
        ax.set_yticks(range(len(rows)), map(_shown, rows))
    return ax


def plot_distribution(
    logits: Any,
    symbols: Sequence[str],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    most: int = 25,
    ax: Axes = None,
) -> Axes:
    """Draw the probabilities of the next character, before and after temperature, top-k and top-p.

    Args:
        logits: (V,).
        symbols: V names.
        temperature, top_k, top_p: as for `generate.next_distribution`, which computes both.
        most: how many of the likeliest symbols are shown.
        ax: where to draw, a Matplotlib Axes, which is returned; that of a new figure if left out.

    Raises: ShapeError if there is not one symbol for each logit; what `next_distribution` raises.

    >>> import tinyrnn as tr
    >>> from matplotlib.figure import Figure
    >>> logits = [2.0, 1.0, 0.0]
    >>> ax = tr.viz.plot_distribution(logits, "abc", top_k=2, ax=Figure().subplots())
    >>> ax.get_title()
    'Next symbol: 2 of 3 symbols can be drawn'
    """
    logits = logits if isinstance(logits, Tensor) else tensor(np.asarray(logits, np.float64))
    if logits.shape != (len(symbols),):
        raise ShapeError(
            f"plot_distribution: logits are {logits.shape} and there are {len(symbols)} symbols; expected (V,) and V: "
            "logits[t, b] takes one step of (T, B, V)"
        )
    before, after = next_distribution(logits), next_distribution(logits, temperature, top_k, top_p)
    order = np.argsort(-before, kind="stable")[:most]
    place = np.arange(len(order))
    ax = _axes(ax, (max(4.8, 0.3 * len(order) + 1.6), 3.6))
    rule = [f"temperature {temperature:g}"] if temperature != 1 else []
    rule += [f"{name} {value:g}" for name, value in (("top-k", top_k), ("top-p", top_p)) if value is not None]
    if rule:
        ax.bar(place - 0.21, before[order], 0.42, color=GREY, label="model")
        ax.bar(place + 0.21, after[order], 0.42, color=BLUE, label=", ".join(rule))
    else:  # both would be the same
        ax.bar(place, before[order], 0.84, color=GREY, label="model")
    ax.set_xticks(place, [_shown(symbols[i]) for i in order], family="monospace")
    rest = len(symbols) - len(order)
    kept = f"{int((after > 0).sum())} of {len(symbols)} symbols can be drawn"
    ax.set(xlabel=f"next symbol, likeliest first{f' ({rest} more not shown)' if rest else ''}", ylabel="probability")
    ax.set_title(f"Next symbol: {kept}")
    ax.legend(frameon=False)
    return ax


def plot_padding(lengths: Any, ax: Axes = None) -> Axes:
    """Draw a padded batch: a row for each sequence, filled as long as it is, hatched where padding follows.

    Args:
        lengths: (B,), as `data.pad` returns them.
        ax: where to draw, a Matplotlib Axes, which is returned; that of a new figure if left out.

    Raises: ShapeError for another shape.

    >>> import tinyrnn as tr
    >>> from matplotlib.figure import Figure
    >>> tr.viz.plot_padding([4, 2, 3], ax=Figure().subplots()).get_title()
    'Padded batch, T=4, B=3: 25% is padding'
    """
    n = _numbers(lengths)
    if n.ndim != 1 or not n.size:
        raise ShapeError(f"plot_padding: lengths are {n.shape}; expected (B,), one for each sequence")
    T, place = n.max(), np.arange(len(n))
    padded = 1 - n.sum() / (T * len(n)) if T else 0.0
    ax = _axes(ax, (6.4, min(10.0, 1.5 + 0.22 * len(n))))
    ax.barh(place, n, 0.8, color=BLUE, label="sequence")
    ax.barh(place, T - n, 0.8, left=n, color="none", ec=GREY, hatch="////", lw=0.5, label="padding")
    ax.set(xlim=(0, T), ylim=(len(n) - 0.5, -0.5), xlabel="time, steps", ylabel="sequence of the batch")
    ax.yaxis.get_major_locator().set_params(integer=True)
    ax.set_title(f"Padded batch, T={T:g}, B={len(n)}: {padded:.0%} is padding")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def plot_loss(
    steps: Any, losses: Any, held_out: tuple[Any, Any] | None = None, unit: str = "nats", ax: Axes = None
) -> Axes:
    """Draw the loss over the steps of training.

    Args:
        steps: (n,), when each loss was measured.
        losses: (n,).
        held_out: the same pair for data that is not learned from.
        unit: that of the loss.
        ax: where to draw, a Matplotlib Axes, which is returned; that of a new figure if left out.

    Raises: ShapeError for steps and losses of different lengths.

    >>> import tinyrnn as tr
    >>> from matplotlib.figure import Figure
    >>> steps, losses, held_out = [1, 2, 3], [4.0, 2.5, 2.0], ([1, 3], [4.1, 2.6])
    >>> ax = tr.viz.plot_loss(steps, losses, held_out, ax=Figure().subplots())
    >>> ax.get_legend_handles_labels()[1]
    ['training', 'held out']
    """
    given = {"training": (steps, losses)} | ({} if held_out is None else {"held out": held_out})
    curves = {name: (_numbers(x), _numbers(y)) for name, (x, y) in given.items()}
    for name, (x, y) in curves.items():
        if x.shape != y.shape or x.ndim != 1:
            raise ShapeError(f"plot_loss: {name}: steps are {x.shape} and losses {y.shape}; expected (n,) both")
    ax = _axes(ax, (7.0, 4.0))
    for (name, (x, y)), style in zip(curves.items(), ({"color": BLUE, "lw": 1.2}, _HELD_OUT), strict=False):
        ax.plot(x, y, label=name, **style)
    ax.set(xlabel="step of training", ylabel=f"loss, {unit}", title="Loss")
    ax.legend(frameon=False)
    return ax


_HELD_OUT = {"color": ORANGE, "marker": "o", "ms": 5, "ls": "--", "lw": 1.5}


# ---------------------------------------------------------------- what they share


def _axes(ax: Axes, size: tuple[float, float]) -> Axes:
    """Return `ax`, or that of a new figure."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise BackendError("matplotlib is not installed, which draws the plots: pip install 'tinyrnn[plot]'") from error
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def _image(ax: Axes, values: Floats, colours: str, low: float, high: float) -> Any:
    """Draw a matrix, the first row on top; nothing where it is NaN."""
    shown = np.ma.masked_where(np.isnan(values), values)
    image = ax.imshow(shown, cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_major_locator().set_params(integer=True)
    return image


def _bar(ax: Axes, image: Any, label: str, **options: Any) -> None:
    ax.figure.colorbar(image, ax=ax, label=label, **options)


def _numbers(x: Any) -> Floats:
    """Return an array, list or tensor of any backend as NumPy's float64."""
    return np.asarray(x.numpy() if isinstance(x, Tensor) else x, np.float64)


def _reach(x: Floats) -> float:
    """Return how far values are from 0 at most, but for those that are not finite."""
    return float(np.abs(x[np.isfinite(x)]).max(initial=0))


def _ink(rgba: Any) -> str:
    """Return the colour of letters that are readable on a colour, by its luminance."""
    return "black" if np.dot(rgba[:3], (0.2126, 0.7152, 0.0722)) > 0.45 else "white"


def _shown(symbol: str) -> str:
    """Return a symbol as something visible."""
    return {"\n": "↵", "\t": "⇥", " ": "␣"}.get(symbol, symbol)
