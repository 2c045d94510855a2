"""A picture of a beam search: what it weighed, what it kept, and what it found."""

from __future__ import annotations

from collections.abc import Sequence

from tinyrnn.errors import IndexRangeError
from tinyrnn.generate import Beam
from tinyrnn.viz.dot import BLUE, CHARCOAL, FONT, GREY
from tinyrnn.viz.picture import Drawing

FOUND, KEPT, DROPPED = BLUE, CHARCOAL, "#AAAAAA"
LEGEND = "thick blue: the best;  dark: kept;  pale: dropped;  double: finished.  On an edge log P(symbol | before it), "
LEGEND += "in a box the sum, in nats"


def draw_beam(beam: Beam, symbols: Sequence[str], direction: str = "LR") -> Drawing:
    """Draw the tree of a beam search: a box for each symbol that was weighed, time from left to right.

        (beam,) = beam_search(model, [[begin]], length=20, width=3, stop=end, tree=2)
        draw_beam(beam, vocabulary.symbols).save("beam.svg")

    Args:
        beam: with a tree, one of those that `beam_search` returns for tree=1 or more.
        symbols: V names; white space and what cannot be printed is shown as something visible.
        direction: "LR", or "TB" for time from top to bottom.

    Returns: a Drawing, which shows itself in a notebook; .digraph is what is drawn.
    Raises: ValueError for a beam without a tree; IndexRangeError for too few names.

    >>> import tinyrnn as tr
    >>> from tinyrnn.generate import beam_search
    >>> p = tr.tensor([[0.1, 0.5, 0.4], [0.4, 0.3, 0.3], [0.8, 0.1, 0.1]])  # p[a, b]
    >>> def model(x, state):
    ...     return tr.log(p[x]), state
    >>> (beam,) = beam_search(model, [[0]], length=9, width=2, stop=0, tree=2)
    >>> drawing = tr.viz.draw_beam(beam, ["end", "one", "two"])
    >>> drawing.digraph.source.count("->")  # symbols that were weighed
    6
    """
    import graphviz

    tree = beam.tree
    if not tree:
        raise ValueError("draw_beam: the beam has no tree; ask for one: beam_search(…, tree=2)")
    largest = max(node.symbol for node in tree)
    if largest >= len(symbols):
        raise IndexRangeError(
            f"draw_beam: the tree has symbol {largest} and there are {len(symbols)} names; give {largest + 1}"
        )
    drawing = graphviz.Digraph(
        "a beam search", graph_attr={"rankdir": direction, "ordering": "out", "bgcolor": "transparent"}
    )
    drawing.attr("graph", label=LEGEND, fontname=FONT, fontsize="9", fontcolor=GREY, nodesep="0.08", ranksep="0.35")
    drawing.attr("node", shape="box", style="rounded,filled", fillcolor="white", fontname=FONT, fontsize="11")
    drawing.attr("node", margin="0.08,0.03", height="0.3", width="0.3")
    drawing.attr("edge", fontname=FONT, fontsize="9", arrowsize="0.5")
    drawing.node("-1", "", shape="point", width="0.12", color=FOUND)
    paths = [_path(beam, rank) for rank in range(len(beam.hypotheses))]
    ranks = {path[-1]: rank for rank, path in enumerate(paths)}
    for place, node in enumerate(tree):
        colour = FOUND if place in paths[0] else KEPT if node.kept else DROPPED
        look = {"color": colour, "fontcolor": colour, "class": "kept" if node.kept else "dropped"}
        look["penwidth"] = "2.4" if place in paths[0] else "1.2" if node.kept else "0.7"
        lines = [_visible(symbols[node.symbol]), _number(node.total)]
        if place in ranks:
            lines.append(f"{ranks[place] + 1}. score {_number(beam.hypotheses[ranks[place]].score)}")
        look["peripheries"] = "2" if node.finishes and node.kept else "1"
        drawing.node(str(place), _label(lines), **look)
        drawing.edge(str(node.parent), str(place), label=_number(node.log_probability), **look)
    return Drawing(drawing)


def _path(beam: Beam, rank: int) -> list[int]:
    """Return the places in the tree of a hypothesis' symbols, its stop symbol included."""
    hypothesis, after = beam.hypotheses[rank], {(node.parent, node.symbol): p for p, node in enumerate(beam.tree)}
    path = [-1]
    for symbol in hypothesis.symbols:
        path.append(after[path[-1], symbol])
    if hypothesis.finished:
        ends = [p for (parent, _), p in after.items() if parent == path[-1] and beam.tree[p].finishes]
        path += [p for p in ends if beam.tree[p].total == hypothesis.log_probability][:1]
    return path


def _number(x: float) -> str:
    return f"{x:.2f}".replace("-", "−")


def _visible(symbol: str) -> str:
    """Return a symbol as something that can be seen."""
    shown = {"\n": "↵", "\t": "⇥"}
    if symbol.isspace() or not symbol:
        return "".join(shown.get(letter, "␣") for letter in symbol) or "∅"
    return "".join(x if x.isprintable() else shown.get(x) or x.encode("unicode_escape").decode() for x in symbol)


def _label(lines: list[str]) -> str:
    """Return lines as a label, with what graphviz would read as something else: backslashes and entities."""
    return "\\n".join(line.replace("\\", "\\\\").replace("&", "&amp;") for line in lines)
