"""A graph as one page for a browser: its views, a card for each node, search, time, and the walk back step by step.

Python puts three things into the template `page.html`: Graphviz's SVGs without their colours, the data of the cards as
JSON, and the palette as CSS. The rest is in the template, and needs no network. No text of a graph is ever taken for
markup: SVG is parsed and written anew, JSON holds no `<`, and the page's policy lets no other script run than its own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
import xml.etree.ElementTree as ET
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyrnn.errors import RenderError
from tinyrnn.viz.detail import DETAILS
from tinyrnn.viz.dot import BLUE, GREY, INK, LOOKS, ORANGE, VERMILION, ids
from tinyrnn.viz.graph import Graph, GraphEdge, GraphNode, Output, Place
from tinyrnn.viz.words import box_title, path_of, title_of

MOST_NODES = 1_000  # in each view of a page: a browser draws as many at once without a pause
MOST_TENSORS = 3_000  # in all steps: of more, some steps are left out
MOST_DATA = 800_000  # characters of values and gradients
IN_FULL = 24  # numbers; a tensor of more is told by its least and greatest number, mean, norm and a histogram
BARS = 16

Names = dict[GraphNode | GraphEdge | Place, str]  # the ids that they have in the drawing


class View(NamedTuple):
    """One of the pictures in a page: "rolled" or "unrolled", its detail, and what Graphviz made of its graph."""

    view: str
    detail: str
    graph: Graph
    svg: bytes


def page(title: str, whole: Graph, views: Iterable[View], first: tuple[str, str]) -> str:
    """Return the page.

    Args: whole, the graph that all views show, unrolled and with all its operations; views, from coarse to fine; first,
        the view and the detail that the page opens with.
    """
    views, data = _distinct(views), _Data(whole)
    as_fine = [view for view in views if DETAILS.index(view.detail) >= DETAILS.index(first[1])]
    opens = next((view for view in as_fine if view.view == first[0]), as_fine[0])
    told = {
        "title": title,
        "views": {f"{view.view} {view.detail}": data.view(view) for view in views},
        "first": f"{opens.view} {opens.detail}",
        "tensors": data.tensors,
        "steps": sorted(data.kept),
        "gradients": [_number(data.least), _number(data.greatest)] if data.greatest else None,
        "meanings": {kind: look.meaning for kind, look in LOOKS.items()},
        "left_out": data.left_out(),
    }
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    script = template.rpartition("<script>")[2].partition("</script>")[0]
    parts = {
        "title": html.escape(title),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "palette": _palette(),
        "drawings": "\n".join(
            f'<template id="{view.view} {view.detail}">{_shapes(view.svg)}</template>' for view in views
        ),
        "data": json.dumps(told, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _distinct(views: Iterable[View]) -> list[View]:
    """Return views without those that look like another: one with more detail or, where there is no time, rolled."""
    found = {}
    for view in views:
        in_time = any(place.kind == "loop" for node in view.graph.nodes for place in node.place)
        if view.view == "rolled" or in_time:
            found[view.view, len(view.graph.nodes), len(view.graph.edges)] = view
    return list(found.values())


def _palette() -> str:
    """Return the colours of `dot` as CSS, each with the one that it has in the dark."""
    lines = [
        f"{name}: light-dark({light}, {dark});"
        for name, light, dark in (
            ("--ink", INK, "#B8BCC2"),
            ("--blue", BLUE, "#56B4E9"),
            ("--orange", ORANGE, "#E0A53A"),
            ("--vermilion", VERMILION, "#F08A4B"),
            ("--grey", GREY, "#9A9A9A"),
        )
    ]
    kinds = [
        f".node.{kind}, .swatch.{kind} {{ --fill: light-dark({look.fill}, {look.dark_fill}); "
        f"--line: light-dark({look.line}, {look.dark_line}); }}".replace("light-dark(none, none)", "none")
        for kind, look in LOOKS.items()
    ]
    return "\n".join([":root {", *lines, "}", *kinds])


# ---------------------------------------------------------------- shapes

SHAPES = {"svg", "g", "path", "polygon", "polyline", "ellipse", "text"}
KEPT = {"id", "class", "viewBox", "transform", "d", "points", "cx", "cy", "rx", "ry", "x", "y", "text-anchor"}
KEPT |= {"font-size", "stroke-width", "stroke-dasharray"}


def _shapes(svg: bytes) -> str:
    """Return Graphviz's SVG with shapes and texts alone: the page has colours and letters for them itself."""
    try:
        root = ET.fromstring(svg)
    except ET.ParseError as error:
        raise RenderError(f"save: Graphviz has made an SVG that is not well-formed ({error})") from None
    made = _element(root)
    for group in made.iter("g"):
        _straightened(group)
    return ET.tostring(made, encoding="unicode", short_empty_elements=True)


def _element(old: ET.Element) -> ET.Element:
    """Return an element with what the page needs of it and what is inside."""
    new = ET.Element(_tag(old), {name: _rounded(x) for name, x in old.attrib.items() if name in KEPT})
    new.text = old.text if new.tag == "text" else None
    inside = list(old)
    while inside:
        child = inside.pop(0)
        if _tag(child) == "a" or child.get("id", "").startswith("a_"):  # links, which hold the tooltips
            inside = [*child, *inside]
        elif _tag(child) in SHAPES and not (old.get("class") == "graph" and _tag(child) != "g"):
            new.append(_element(child))
    return new


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _rounded(text: str) -> str:
    return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), text)


def _straightened(group: ET.Element) -> None:
    """Place a node's texts at its middle and a box's at its left, however wide the browser's letters are."""
    kind = group.get("class", "").partition(" ")[0]
    shape = next((child for child in group if child.tag in ("path", "polygon")), None)
    if shape is None or kind not in ("node", "cluster"):
        return
    across = [float(x) for x in re.findall(r"(-?[\d.]+),-?[\d.]+", shape.get("d", "") + shape.get("points", ""))]
    for text in group.iter("text"):
        at_left = kind == "cluster"
        text.set("text-anchor", "start" if at_left else "middle")
        text.set("x", f"{min(across) + 8 if at_left else (min(across) + max(across)) / 2:.1f}")


# ---------------------------------------------------------------- data


class _Data:
    """What the cards say: tensors once for all views, and nodes, edges, boxes and the walk back for each.

    Attributes:
        tensors: shape, dtype, bytes, values and gradient of each tensor that a view shows.
        kept: the steps that there are values of; least, greatest: of the norms of gradients.
    """

    def __init__(self, whole: Graph) -> None:
        self.at = {node: n for n, node in enumerate(whole.nodes)}
        self.owner = {y: node for node in whole.nodes for y in node.outputs}
        self.begins = {  # results that a gradient comes from: each is that of itself
            edge.target
            for edge in whole.edges
            if edge.target.kind == "output" and edge.source.outputs[edge.output].gradient is not None
        }
        self.tensors: list[dict[str, Any]] = []
        self.places: dict[Output, int] = {}
        self.room, self.untold = MOST_DATA, 0
        self.all_steps = sorted({t for node in whole.nodes for t in node.steps})
        inside = sum(len(node.outputs) for node in whole.nodes if node.steps)
        stride = math.ceil(inside / MOST_TENSORS) or 1
        self.kept = {*self.all_steps[::stride], *self.all_steps[-1:]}
        norms = [edge.gradient for edge in whole.edges if edge.gradient is not None]
        norms += [_norm(y.gradient) for y in self.owner if y.gradient is not None]
        norms = [x for x in norms if x > 0 and math.isfinite(x)]
        self.least, self.greatest = min(norms, default=0.0), max(norms, default=0.0)

    def left_out(self) -> list[str]:
        """Say what of the data is not in the page."""
        said = []
        if len(self.kept) < len(self.all_steps):
            few, of = f"{len(self.kept):,}", f"{len(self.all_steps):,}"
            said.append(f"Cards tell of {few} steps, evenly spread, out of {of}: the page would be too large.")
        if self.untold:
            said.append(f"Values and gradients of {self.untold:,} tensors are left out: the page would be too large.")
        return said

    def view(self, view: View) -> dict[str, Any]:
        """Return the data of one view."""
        graph, names = view.graph, ids(view.graph)
        boxes = {place: names[place] for node in graph.nodes for place in node.place}
        return {
            "view": view.view,
            "detail": view.detail,
            "notes": graph.notes,
            "nodes": {names[node]: self._node(node, names) for node in graph.nodes},
            "edges": {names[edge]: _edge(edge, names) for edge in graph.edges},
            "boxes": {
                name: {"title": box_title(p), "kind": p.kind, "about": p.about, "parameters": p.parameters}
                for p, name in boxes.items()
            },
            "walk": self._walk(graph, names),
        }

    def _node(self, node: GraphNode, names: Names) -> dict[str, Any]:
        """Return what the card of a node says; its outputs as pairs of a step and the place of a tensor."""
        told = {
            "title": title_of(node),
            "name": node.name if node.name != title_of(node) else "",
            "kind": "back" if node.back and node.kind == "operation" else node.kind,
            "module": path_of(node),
            "about": node.about,
            "source": node.source,
            "count": node.count if node.count > 1 else 0,
            "params": [f"{key} = {x}"[:200] for key, x in {**node.params, **node.numbers}.items() if key != "first"],
        }
        return {key: x for key, x in told.items() if x} | {
            "boxes": [names[place] for place in node.place],
            "steps": node.steps,
            "outputs": [self._output(y) for y in node.outputs],
        }

    def _output(self, y: Output) -> list[tuple[int | None, int]]:
        found = [(part, self.owner.get(part)) for part in y.parts or [y]]
        return [(_step(owner), self._tensor(part)) for part, owner in found if self._is_kept(owner)]

    def _is_kept(self, node: GraphNode | None) -> bool:
        return node is None or not node.steps or node.steps[0] in self.kept

    def _tensor(self, y: Output) -> int:
        """Return the place of a tensor."""
        if y in self.places:
            return self.places[y]
        told: dict[str, Any] = {"shape": list(y.shape), "dtype": y.dtype, "bytes": y.nbytes}
        numbers = {"values": y.values, "gradient": y.gradient}
        more = {key: _numbers(x) for key, x in numbers.items() if x is not None}
        size = len(json.dumps(more))
        if size <= self.room:
            told, self.room = told | more, self.room - size
        else:
            self.untold += 1
        self.places[y] = len(self.tensors)
        self.tensors.append(told)
        return self.places[y]

    def _walk(self, graph: Graph, names: Names) -> list[list[Any]]:
        """Return the steps of the walk back: (node, time step, norm of its gradient, the norms that flow on by edge).

        A node that stands for several comes once for each time step, when all that it gave to others has its gradient.
        """
        whens: dict[tuple[GraphNode, tuple[int, ...]], tuple[int, int | None, float | None]] = {}
        for node in graph.nodes:
            for y in (part for output in node.outputs for part in output.parts or [output]):
                owner = self.owner.get(y)
                if owner is None or not self._is_kept(owner) or (y.gradient is None and owner not in self.begins):
                    continue
                key = node, tuple(p.steps[0] for p in owner.place if p.kind == "step")
                at, _, norm = whens.get(key, (0, None, None))
                found = _norm(y.gradient) if y.gradient is not None else None
                whens[key] = max(at, self.at[owner]), _step(owner), max((x for x in (norm, found) if x), default=found)
        visits: dict[GraphNode, list[tuple[int, dict[str, float | None]]]] = defaultdict(list)
        walk = []
        for (node, _), (at, t, norm) in sorted(whens.items(), key=lambda visit: visit[1][0]):
            flows: dict[str, float | None] = {}
            visits[node].append((at, flows))
            walk.append([names[node], t, _number(norm), flows])
        for edge in graph.edges:
            for part in edge.parts or [edge]:
                begins = part.target in self.begins
                if (part.gradient is not None or begins) and self._is_kept(part.target):
                    k = bisect_left(visits[edge.target], self.at.get(part.target, 0), key=lambda visit: visit[0])
                    if k < len(visits[edge.target]):
                        flows = visits[edge.target][k][1]
                        flows[names[edge]] = _larger(flows.get(names[edge]), _number(part.gradient))
        return walk[::-1]


def _edge(edge: GraphEdge, names: Names) -> dict[str, Any]:
    norms = [part.gradient for part in edge.parts or [edge] if part.gradient is not None]
    told = {
        "from": names[edge.source],
        "to": names[edge.target],
        "operand": edge.operand,
        "times": edge.times if edge.times > 1 else 0,
        "delay": edge.delay,
        "cut": edge.cut,
        "gradient": _number(max(norms)) if norms else "",
    }
    return {key: x for key, x in told.items() if x or (x == 0.0 and key == "gradient")}


def _step(node: GraphNode | None) -> int | None:
    return node.steps[0] if node is not None and node.steps else None


# ---------------------------------------------------------------- numbers


def _norm(values: Any) -> float:
    with np.errstate(over="ignore"):  # it is infinite then, and said to be
        return float(np.sqrt((values.astype("float64") ** 2).sum()))


def _larger(a: Any, b: Any) -> Any:
    return max((x for x in (a, b) if isinstance(x, float)), default=b)


def _number(x: float | None) -> float | str | None:
    """Return a number with four digits; as text if JSON has none like it."""
    if x is None:
        return None
    rounded = float(f"{x:.4g}")  # the largest floats become infinite
    return rounded if math.isfinite(rounded) else str(x)


def _numbers(values: Any) -> dict[str, Any]:
    """Return all of a few numbers, and of many what they are like."""
    told: dict[str, Any] = {}
    if values.size <= IN_FULL:
        told["all"] = [_number(x) if isinstance(x, float) else int(x) for x in values.ravel().tolist()]
    else:
        flat = values.ravel().astype("float64")
        finite = flat[np.isfinite(flat)]
        if finite.size < flat.size:
            told["not_finite"] = flat.size - finite.size
        if finite.size:
            scale = float(abs(finite).max()) or 1.0  # so that no difference or sum is too large for a float
            scaled = finite / scale
            least, greatest, mean = float(scaled.min()), float(scaled.max()), float(scaled.mean())
            told |= {
                "least": _number(least * scale),
                "greatest": _number(greatest * scale),
                "mean": _number(mean * scale),
            }
            bar = (scaled - least) / ((greatest - least) or 1.0) * BARS
            told["bars"] = np.bincount(np.minimum(bar.astype(int), BARS - 1), minlength=BARS).tolist()
    return told | ({"norm": _number(_norm(values))} if values.dtype.kind == "f" else {})
