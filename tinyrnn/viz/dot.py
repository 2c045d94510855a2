"""A graph as a `graphviz.Digraph`: how nodes, edges and boxes look, and what is written on them.

Colours are those of Okabe & Ito 2008, "Color Universal Design", which colour-blind readers tell apart, and light enough
to be printed; kinds differ in shape as well. In a dark page the same classes take other colours (see `picture`).
"""

from __future__ import annotations

import html
import math
import re
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from tinyrnn.viz.graph import Graph, GraphEdge, GraphNode, Place
from tinyrnn.viz.layout import Layout, unrolled
from tinyrnn.viz.roll import Part, tree
from tinyrnn.viz.route import GAP, Curve, Rectangle
from tinyrnn.viz.words import about, about_edge, box_title, edge_label, shape_of, steps_of, title_of, told

if TYPE_CHECKING:
    import graphviz

FONT = "Helvetica,Arial,sans-serif"
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#B87400", "#007A5A", "#D55E00"
GREY, CHARCOAL, INK = "#777777", "#444444", "#222222"


class Look(NamedTuple):
    """How a kind of node is drawn, and what the legend says of it."""

    shape: str
    style: str
    fill: str
    line: str
    dark_fill: str
    dark_line: str
    meaning: str


LOOKS = {
    "operation": Look("box", "rounded,filled", "#FFFFFF", CHARCOAL, "#26282C", "#9A9A9A", "operation"),
    "back": Look("box", "rounded,filled", "#FBE4D8", VERMILION, "#4A2818", "#F08A4B", "operation of a backward pass"),
    "parameter": Look("box", "filled", "#FCE9C8", ORANGE, "#4A3A14", "#E0A53A", "parameter: learned, drawn once"),
    "input": Look("box", "rounded,filled", "#DCEBF7", BLUE, "#123A57", "#56B4E9", "input"),
    "constant": Look("box", "rounded,filled,dashed", "#F2F2F2", GREY, "#303236", "#9A9A9A", "constant"),
    "output": Look("box", "rounded,filled,bold", "#D9F0E6", GREEN, "#0E4030", "#4CC9A0", "result"),
    "module": Look("box", "rounded,filled", "#EFE6F5", "#7A4B94", "#3B2A4A", "#B58BD0", "module"),
    "step": Look("box", "rounded,filled", "#EFE6F5", "#7A4B94", "#3B2A4A", "#B58BD0", "one step of a cell"),
    "gap": Look("plaintext", "", "none", GREY, "none", "#9A9A9A", "steps left out"),
}

LEVELS = 8  # of the size of a gradient


def _between(small: tuple[int, int, int], large: tuple[int, int, int]) -> list[str]:
    """Return colours for all levels, from one to another."""
    mixed = ((round(a + (b - a) * k / LEVELS) for a, b in zip(small, large, strict=True)) for k in range(LEVELS + 1))
    return ["#" + "".join(f"{part:02X}" for part in parts) for parts in mixed]


FLOWS = _between((0xB8, 0xC9, 0xDD), (0x7A, 0x10, 0x10))  # light and dark go with small and large
DARK_FLOWS = _between((0x3E, 0x4A, 0x5A), (0xFF, 0x8A, 0x70))  # and in a dark page dark and light

LINE = '<tr><td align="left">{}</td></tr>'
SPACE = "&#160;"  # which browsers keep
SMALL = '<br/><font point-size="8.5">{}</font>'


def digraph(
    graph: Graph,
    *,
    direction: str = "LR",
    in_time: bool = False,
    shapes: bool = True,
    values: bool = False,
    gradients: bool = False,
    legend: bool = True,
) -> graphviz.Digraph:
    """Return a graph as a Digraph, to be restyled or rendered.

    Args:
        direction: "LR" or "TB". in_time: place everything here, steps side by side, for `neato -n2`; else `dot` does.
        shapes, values, gradients: what is written on the nodes. legend: explain kinds of nodes and edges below.
    """
    import graphviz

    drawing = graphviz.Digraph("tinyrnn", graph_attr={"bgcolor": "transparent", "tooltip": " "})
    drawing.attr("graph", fontname=FONT, fontsize="11", rankdir=direction, nodesep="0.16", ranksep="0.28")
    drawing.attr("node", fontname=FONT, fontsize="11", margin="0.08,0.04", height="0.3", width="0.3")
    drawing.attr("edge", fontname=FONT, fontsize="9", arrowsize="0.6", color=INK)
    writer = _Writer(graph, shapes, values, gradients)
    rows = [[f"<i>{escaped(note)}</i>"] for note in graph.notes] + (writer.legend() if legend else [])
    if rows:
        drawing.attr("graph", label=f"<{_table(rows)}>", labeljust="l")
    layout = unrolled(graph, writer.size, direction) if in_time else None
    if in_time:
        drawing.attr("graph", outputorder="edgesfirst")
    writer.boxes(drawing, layout)
    for edge in graph.edges:
        drawing.edge(writer.names[edge.source], writer.names[edge.target], **writer.edge(edge, layout))
    return drawing


def ids(graph: Graph) -> dict[GraphNode | GraphEdge | Place, str]:
    """Return the id that each node, edge and box has in a picture."""
    places = dict.fromkeys(place for node in graph.nodes for place in node.place)
    found: dict[GraphNode | GraphEdge | Place, str] = {node: f"n{k}" for k, node in enumerate(graph.nodes)}
    found |= {edge: f"e{k}" for k, edge in enumerate(graph.edges)}
    return found | {place: f"p{k}" for k, place in enumerate(places)}


class _Writer:
    """The work of `digraph`: a name, a label and attributes for everything."""

    def __init__(self, graph: Graph, shapes: bool, values: bool, gradients: bool) -> None:
        self.graph, self.shapes, self.values, self.gradients = graph, shapes, values, gradients
        self.names = ids(graph)
        self.around: dict[GraphNode, list[GraphEdge]] = defaultdict(list)  # edges that come back, the outermost last
        for edge in graph.edges:
            if edge.source is edge.target:
                self.around[edge.source].append(edge)
        norms = [edge.gradient for edge in graph.edges if edge.gradient and math.isfinite(edge.gradient)]
        self.least, self.greatest = (min(norms), max(norms)) if norms else (0.0, 0.0)

    # ------------------------------------------------ nodes

    def lines(self, node: GraphNode) -> list[str]:
        """Return what is written on a node: its name, and in smaller letters what is known of it."""
        lines = [title_of(node)]
        if node.kind == "step" and node.steps:
            lines.append(steps_of(node.steps))
        elif node.kind in ("module", "parameter"):
            lines += [line for line in node.about.split("\n") if line]
        elif self.shapes and node.outputs:
            lines.append(" ".join(dict.fromkeys(shape_of(y) for y in node.outputs)))
        for y in node.outputs if len(node.outputs) == 1 else ():
            if self.values and y.values is not None:
                lines.append(f"value {told(y.values)}")
            if self.gradients and y.gradient is not None:
                lines.append(f"grad {told(y.gradient)}")
        if node.kind in ("module", "operation") and node.count > 1 and not node.steps:
            lines.append(f"×{node.count:,}")
        return lines

    def size(self, node: GraphNode) -> tuple[float, float]:
        """Return the width and height of a node in points."""
        first, *rest = self.lines(node)
        width = max(6.6 * len(first), max((5.0 * len(line) for line in rest), default=0.0)) + 14
        return max(width, 24.0), 20.0 + 11.0 * len(rest)

    def node(self, node: GraphNode, at: Rectangle | None) -> dict[str, str]:
        """Return the attributes of a node."""
        look = LOOKS["back" if node.back and node.kind == "operation" else node.kind]
        first, *rest = (escaped(" ".join(line.split())) for line in self.lines(node))
        label = f"<{first}{''.join(map(SMALL.format, rest))}>"
        attributes = {
            "label": label,
            "shape": look.shape,
            "tooltip": _plain(about(node)),
            "class": "back" if node.back else node.kind,
            "id": self.names[node],
        }
        attributes |= {"style": look.style, "fillcolor": look.fill, "color": look.line} if look.style else {}
        if node.result:
            attributes["penwidth"] = "2.2"
        if at is not None:
            attributes |= {"pos": f"{at.x:.1f},{at.y:.1f}!", "fixedsize": "true"}
            attributes |= {"width": f"{at.width / 72:.3f}", "height": f"{at.height / 72:.3f}"}
        return attributes

    # ------------------------------------------------ boxes

    def boxes(self, drawing: graphviz.Digraph, layout: Layout | None) -> None:
        """Add nodes, and boxes around them as deep as their places go."""
        self._inside(drawing, tree(self.graph.nodes), layout)

    def _inside(self, drawing: graphviz.Digraph, part: Part, layout: Layout | None) -> None:
        alone = sum([item.place is not None and item.place.kind == "step" for item in part.parts()]) == 1
        for item in part.items:
            if isinstance(item, GraphNode):
                drawing.node(self.names[item], **self.node(item, layout.nodes[item] if layout else None))
            elif item.place not in layout.boxes if layout else alone and item.place and item.place.kind == "step":
                self._inside(drawing, item, layout)  # which needs no box of its own
            else:
                assert item.place is not None
                with drawing.subgraph(name=f"cluster_{self._number()}") as box:
                    box.attr(**self._box(item.place, layout))
                    self._inside(box, item, layout)

    def _number(self) -> int:
        self.boxes_made = getattr(self, "boxes_made", 0) + 1
        return self.boxes_made

    def _box(self, place: Place, layout: Layout | None) -> dict[str, str]:
        """Return the attributes of the box for a place."""
        attributes = {"label": box_title(place), "tooltip": place.about or " ", "class": place.kind, "labeljust": "l"}
        attributes["id"] = self.names[place]
        attributes["label"] = _plain(attributes["label"])
        attributes["tooltip"] = _plain(attributes["tooltip"])
        attributes |= {"style": "rounded,filled", "fontsize": "10", "penwidth": "1"}
        if place.kind == "module":
            attributes |= {"color": "#BBBBBB", "fillcolor": "#8888880D", "fontcolor": "#555555"}
        else:
            attributes |= {"color": BLUE, "fillcolor": "#0072B20D", "fontcolor": BLUE}
            attributes["style"] = "rounded,filled,dashed" if place.kind == "loop" else "rounded,dotted"
        if layout is not None:
            r = layout.boxes[place]
            attributes["bb"] = f"{r.left:.1f},{r.bottom:.1f},{r.right:.1f},{r.top:.1f}"
            attributes["lp"] = f"{r.left + 2.5 * len(box_title(place)) + 8:.1f},{r.top - 10:.1f}"
        return attributes

    # ------------------------------------------------ edges

    def edge(self, edge: GraphEdge, layout: Layout | None) -> dict[str, str]:
        """Return the attributes of an edge."""
        label = edge_label(edge)
        if (
            edge.source is edge.target and layout is None
        ):  # else the outer one would run through what the inner one says
            rings = self.around[edge.source]
            label = "\n".join(dict.fromkeys(map(edge_label, reversed(rings)))) if edge is rings[-1] else ""
        attributes = {"tooltip": _plain(about_edge(edge)), "id": self.names[edge]}
        kinds = []
        if layout is None and edge.source.kind == "input" and not edge.source.place and edge.target.place:
            attributes["minlen"] = "2"  # so that it stands before the boxes that it goes into, not above them
        if edge.source.kind == "parameter":
            kinds.append("shared")
            attributes |= {"color": ORANGE, "penwidth": "0.6", "arrowsize": "0.45"}
        if edge.delay:
            kinds.append("delay")
            attributes |= {
                "style": "dashed",
                "color": BLUE,
                "fontcolor": BLUE,
                "constraint": "false",
                "penwidth": "1.4",
            }
        if edge.cut:
            kinds.append("cut")
            attributes |= {"style": "dotted", "color": VERMILION, "fontcolor": VERMILION, "arrowhead": "teenormal"}
            attributes["penwidth"] = "1.4"
        if self.gradients and edge.gradient is not None:
            level = round(LEVELS * self._share(edge.gradient))
            kinds.append(f"flow{level}")
            attributes |= {"color": FLOWS[level], "penwidth": f"{0.6 + 2.6 * level / LEVELS:.2f}"}
        if label:
            attributes["label"] = _plain(label)
        if kinds:
            attributes["class"] = " ".join(kinds)
        if layout is not None:
            attributes |= _curved(layout.curves[edge], label)
        return attributes

    def _share(self, norm: float) -> float:
        """Return where a norm stands between the least and the greatest one, by its logarithm: from 0 to 1."""
        if norm <= self.least or not math.isfinite(norm) or self.least == self.greatest:
            return 0.0 if norm <= self.least else 1.0
        return math.log(norm / self.least) / math.log(self.greatest / self.least)

    # ------------------------------------------------ legend

    def legend(self) -> list[list[str]]:
        """Return a line for what there is of nodes, and one for what there is of edges."""
        kinds = {"back" if node.back else node.kind for node in self.graph.nodes}
        looks = [look for kind, look in LOOKS.items() if kind in kinds]
        told_nodes = [f'<font color="{look.line}">■</font>{SPACE}{escaped(look.meaning)}' for look in looks]
        lines = []
        if any(edge.delay > 0 for edge in self.graph.edges):
            lines.append(f'<font color="{BLUE}">╌▸ z⁻¹</font>{SPACE}to the next step')
        if any(edge.delay < 0 for edge in self.graph.edges):
            lines.append(f'<font color="{BLUE}">╌▸ z⁺¹</font>{SPACE}to the step before')
        if any(edge.cut for edge in self.graph.edges):
            lines.append(f'<font color="{VERMILION}">┈▸| cut</font>{SPACE}no gradient flows back')
        if self.gradients and self.greatest:
            ends = {FLOWS[0]: self.least} if self.least < self.greatest else {}
            ends[FLOWS[LEVELS]] = self.greatest
            told = [f'<font color="{color}">▬</font>{SPACE}{norm:.2g}' for color, norm in ends.items()]
            lines.append(f"{f'{SPACE}…{SPACE}'.join(told)}, the size of the gradient that flows back")
        return [told_nodes, lines] if lines else [told_nodes]


# ---------------------------------------------------------------- form


def _table(rows: list[list[str]]) -> str:
    """Return lines of several parts as an HTML-like label."""
    lines = ((3 * SPACE).join(row) for row in rows if row)
    return f'<table border="0" cellspacing="1">{"".join(map(LINE.format, lines))}</table>'


def escaped(text: str) -> str:
    """Return a text that an HTML-like label is to take as it is."""
    return html.escape(_UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", text), quote=True)


def _plain(text: str) -> str:
    """Return a text that a plain label is to take as it is."""
    from graphviz import escape

    return escape(_UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", text))


_UNWRITABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]")  # in XML, or in UTF-8


def _curved(points: Curve, label: str) -> dict[str, str]:
    """Return the attributes that give an edge its course, and its label a place beside the arrow."""
    *before, (x2, y2), (x3, y3) = points
    length = math.hypot(x3 - x2, y3 - y2) or 1.0
    tip = 5.0  # the arrow's, which the curve ends before
    end = x3 - (x3 - x2) / length * tip, y3 - (y3 - y2) / length * tip
    course = " ".join(f"{x:.1f},{y:.1f}" for x, y in (*before, (x2, y2), end))
    attributes = {"pos": f"e,{x3:.1f},{y3:.1f} {course}"}
    if label:
        across = abs(x3 - x2) > abs(y3 - y2)
        x = x3 - math.copysign(GAP / 2, x3 - x2) if across else x3 + 4.5 + 2.5 * len(label)
        attributes["lp"] = f"{x:.1f},{y3 + 8 if across else y3 - math.copysign(9, y3 - y2):.1f}"
    return attributes
