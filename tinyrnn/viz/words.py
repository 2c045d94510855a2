"""What pictures say: the names of nodes, boxes and edges, and what is told of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tinyrnn.viz.graph import GraphEdge, GraphNode, Output, Place

SYMBOLS = {
    "add": "+",
    "subtract": "−",
    "multiply": "⊙",
    "divide": "÷",
    "power": "^",
    "matmul": "@",
    "negative": "−x",
    "sigmoid": "σ",
    "sum": "Σ",
    "linear": "x W + b",
    "getitem": "x[…]",
    "less": "<",
    "less_equal": "≤",
    "greater": ">",
    "greater_equal": "≥",
    "equal": "=",
    "not_equal": "≠",
}


def title_of(node: GraphNode) -> str:
    """Return what a node is called in a picture: for an operation its sign, with the numbers that it is applied to."""
    if node.kind != "operation":
        letter, mark, below = node.name.partition("_")
        if mark and len(letter) == 1 and below and set(below) <= _SUBSCRIPT.keys():
            return letter + "".join(_SUBSCRIPT[c] for c in below)  # W_x as the textbook has it
        return node.name
    sign = SYMBOLS.get(node.name, node.name)
    if len(node.numbers) == 1 and sign in "+−⊙÷^<≤>≥=≠":
        ((operand, x),) = node.numbers.items()
        number = f"{x:g}"
        if node.name == "power" and operand == "b":
            return "x" + number.translate(_SUPERSCRIPT) if set(number) <= set("0123456789-") else f"x ^ {number}"
        return f"{number} {sign} x" if operand == "a" else f"x {sign} {number}"
    if node.name == "getitem":
        return f"x[{_index(node.params.get('index'))}]"
    return sign


_SUBSCRIPT = dict(zip("0123456789aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ", strict=True))
_SUPERSCRIPT = str.maketrans("+-0123456789", "⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _index(index: Any) -> str:
    if isinstance(index, tuple):
        return ", ".join(map(_index, index))
    if isinstance(index, slice):
        parts = ["" if x is None else str(x) for x in (index.start, index.stop)]
        return ":".join(parts) + (f":{index.step}" if index.step is not None else "")
    return str(index) if isinstance(index, int | str) else "…"


def shape_of(y: Output) -> str:
    """Return a shape in words: `2×4`; `…` for an axis whose length is not always the same."""
    return "×".join("…" if n < 0 else str(n) for n in y.shape) or "scalar"


def _kind_of(y: Output) -> str:
    """Return dtype, shape and size in words; no size where an axis has not always the same length."""
    if -1 in y.shape:
        return f"{y.dtype} [{', '.join('…' if n < 0 else str(n) for n in y.shape)}]"
    return f"{y.dtype} {list(y.shape)}, {y.nbytes:,} bytes"


def told(values: Any) -> str:
    """Return a few numbers, or of many the norm."""
    if values.size <= 3:
        return ", ".join(f"{x:.4g}" for x in values.ravel().tolist())
    if values.dtype.kind != "f":
        return f"{values.min()} … {values.max()}"
    return f"norm {float((values.astype('float64') ** 2).sum()) ** 0.5:.3g}"


def path_of(node: GraphNode) -> str:
    """Return the modules around a node, as `LSTM.cells.0`."""
    return ".".join(p.name or p.title for p in node.place if p.kind == "module")


def about(node: GraphNode) -> str:
    """Return all that is known of a node, for a tooltip."""
    path = path_of(node)
    lines = [node.name + (f" in {path}" if path else "")]
    if node.steps:
        lines[0] += f", {steps_of(node.steps)}"
    made = Counter(map(_kind_of, node.outputs))
    lines += [told_once if n == 1 else f"{n:,} × {told_once}" for told_once, n in made.items()][:8]
    for y in node.outputs[:8]:
        lines += [f"value {told(y.values)}"] if y.values is not None and y.values.size else []
        lines += [f"gradient {told(y.gradient)}"] if y.gradient is not None and y.gradient.size else []
    lines += [f"{name} = {x}" for name, x in {**node.params, **node.numbers}.items() if name != "first"]
    lines += [line for line in (node.about, node.source) if line]
    return "\n".join(line[:200] for line in lines)


def steps_of(steps: list[int]) -> str:
    """Return steps in words: `t = 0`, `t = 1 … 9`, `t = 0, 2, 4, …`."""
    if len(steps) == 1:
        return f"t = {steps[0]}"
    steps = sorted(steps)
    if steps == list(range(steps[0], steps[-1] + 1)):
        return f"t = {steps[0]} … {steps[-1]}"
    return f"t = {', '.join(map(str, steps[:4]))}{', …' if len(steps) > 4 else ''}"


def box_title(place: Place) -> str:
    """Return what is written on a box."""
    if place.kind == "module":
        return f"{place.name}: {place.title}" if place.name else place.title
    if place.kind == "loop":
        return f"{steps_of(place.steps)}  (×{len(place.steps):,})" if place.steps else "steps"
    return steps_of(place.steps)


def edge_label(edge: GraphEdge) -> str:
    """Return what is written beside an edge."""
    words = [edge.label] if edge.label else []
    if edge.delay:
        words.append("z" + f"{-edge.delay:+}".translate(_SUPERSCRIPT))  # z⁻¹ as in signal processing: one step before
    if edge.cut:
        words.append("cut")
    return " ".join(words)


def about_edge(edge: GraphEdge) -> str:
    """Return all that is known of an edge, for a tooltip."""
    y = edge.source.outputs[edge.output] if edge.output < len(edge.source.outputs) else None
    lines = [f"{edge.source.name} → {edge.target.name}{f', operand {edge.operand}' if edge.operand else ''}"]
    lines += [f"{y.dtype} {list(y.shape)}".replace("-1", "…")] if y is not None else []
    lines += [f"×{edge.times:,}"] if edge.times > 1 else []
    lines += ["the tensor was detached: no gradient flows back here"] if edge.cut else []
    lines += [f"gradient, norm {edge.gradient:.3g}"] if edge.gradient is not None else []
    return "\n".join(lines)
