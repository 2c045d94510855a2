"""A picture: a graph that can be looked at, in a notebook or in a file."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyrnn.errors import RenderError
from tinyrnn.viz.dot import CHARCOAL, DARK_FLOWS, FLOWS, INK, LOOKS, escaped
from tinyrnn.viz.graph import Graph

if TYPE_CHECKING:
    import graphviz

_LEGEND = {look.line: look.dark_line for look in LOOKS.values()} | {FLOWS[k]: DARK_FLOWS[k] for k in (0, -1)}
DARK = "\n".join(  # what a browser draws an SVG with where the page is dark
    [
        "<style>@media (prefers-color-scheme: dark) {",
        ".graph text { fill: #E8E8E8 }",
        *(f'.graph text[fill="{light.lower()}"] {{ fill: {dark} }}' for light, dark in _LEGEND.items()),
        *(
            f".node.{kind} :is(path, polygon) {{ fill: {look.dark_fill}; stroke: {look.dark_line} }}"
            for kind, look in LOOKS.items()
        ),
        *(
            f".edge.flow{level} path, .edge.flow{level} polygon {{ stroke: {colour} }}"
            for level, colour in enumerate(DARK_FLOWS)
        ),
        f'.edge [stroke="{INK}"] {{ stroke: #B0B0B0 }} .edge [fill="{INK}"] {{ fill: #B0B0B0 }}',
        f'.node [fill="white"] {{ fill: #1C1C1C }} .kept [stroke="{CHARCOAL}"] {{ stroke: #D0D0D0 }}',  # a beam's tree
        ".dropped text { fill: #808080 } .dropped [stroke] { stroke: #606060 }",
        "}</style>",
    ]
)

HINT = (
    "install Graphviz (https://graphviz.org/download/, its program `dot`), or a version of it that pip can: "
    "pip install 'tinyrnn[viz]'"
)


class Drawing:
    """What Graphviz draws: it shows itself in a notebook, and saves itself to a file.

    Args:
        digraph: a `graphviz.Digraph`, which may be restyled: `drawing.digraph.attr("node", fontname="serif")`.
        in_time: whether everything in it has its place already.

    >>> import tinyrnn as tr
    >>> from graphviz import Digraph
    >>> drawing = tr.viz.Drawing(Digraph(body=["h -> h"]))
    >>> drawing.kinds  # drawing.save("loop.svg") writes one
    ('svg', 'png', 'pdf', 'dot')
    """

    kinds: tuple[str, ...] = ("svg", "png", "pdf", "dot")

    def __init__(self, digraph: graphviz.Digraph, in_time: bool = False) -> None:
        self.digraph, self._in_time = digraph, in_time

    def render(self, format: str) -> bytes:
        """Return the picture as "svg", "png" or "pdf", made by Graphviz.

        Raises: RenderError if there is no Graphviz, or it cannot make the picture.
        """
        arguments = ["-Kneato", "-n2", f"-T{format}"] if self._in_time else ["-Kdot", f"-T{format}"]
        if format == "png":
            arguments += ["-Gdpi=144", "-Gbgcolor=white"]
        made = _run(arguments, self.digraph.source)
        if format == "svg":
            head, mark, rest = made.partition(b"<g id=")
            told = f'<svg role="img" aria-label="{escaped(self._label())}"'  # for who hears a page
            return head.replace(b"<svg", told.encode(), 1) + DARK.encode() + mark + rest
        return made

    def save(self, path: str | Path) -> Path:
        """Write the picture to a file: .svg, .png, .pdf or .dot; a `Picture` knows .html too, where all is drawn anew
        and nothing of what was done to `digraph` is seen.

        Where there is no Graphviz, what it should have made is written as .dot, and a line says what to install.

        Returns: the path of the file that was written.
        Raises: RenderError for another ending.
        """
        path = Path(path)
        kind = path.suffix.lstrip(".").lower()
        if kind not in self.kinds:
            known = ", ".join(f".{kind}" for kind in self.kinds[:-1])
            raise RenderError(f"save: {path.name!r} ends in {path.suffix!r}; expected {known} or .{self.kinds[-1]}")
        try:
            path.write_bytes(self._made(kind))
        except NoGraphviz as error:
            path = path.with_suffix(".dot")
            path.write_text(self.digraph.source, encoding="utf-8")
            print(f"wrote {path}: {error}", file=sys.stderr)
        return path

    def _made(self, kind: str) -> bytes:
        """Return what a file of a kind holds."""
        return self.digraph.source.encode() if kind == "dot" else self.render(kind)

    def _repr_svg_(self) -> str | None:
        try:
            return self.render("svg").decode()
        except NoGraphviz:
            return None

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        svg = self._repr_svg_()
        return {"text/plain": repr(self)} | ({"image/svg+xml": svg} if svg is not None else {})

    def __repr__(self) -> str:
        hint = "" if _program() else f"; to see it, {HINT}"
        return f"<{self._told()}{hint}>"

    def _told(self) -> str:
        return "drawing"

    def _label(self) -> str:
        """Return what there is to see, in words."""
        return " of ".join(filter(None, [self._told(), self.digraph.name]))


class Picture(Drawing):
    """A graph as a picture: what `draw` returns.

    `save` writes .html too, one page that opens offline: it has all views and details, and nothing of what was done to
    `digraph`.

    Args:
        graph: what is drawn, as data: rolled if the picture is, and with as much detail.
        digraph: the same as a `graphviz.Digraph`, which may be restyled.
        in_time: whether everything in it has its place already.
        make_page: makes the text of the page when it is asked for.

    >>> import tinyrnn as tr
    >>> x = tr.tensor(3.0, requires_grad=True)
    >>> picture = tr.draw(x * x)
    >>> picture.graph
    <graph of 2 nodes and 2 edges>
    >>> picture.digraph.attr("node", fontname="serif")
    """

    kinds = ("svg", "png", "pdf", "dot", "html")

    def __init__(self, graph: Graph, digraph: graphviz.Digraph, in_time: bool, make_page: Callable[[], str]) -> None:
        super().__init__(digraph, in_time)
        self.graph, self._make_page = graph, make_page

    def _made(self, kind: str) -> bytes:
        return self._make_page().encode() if kind == "html" else super()._made(kind)

    def _told(self) -> str:
        return f"picture of {len(self.graph.nodes):,} nodes and {len(self.graph.edges):,} edges"

    def _label(self) -> str:
        names = {
            word: ", ".join(dict.fromkeys(node.name for node in self.graph.nodes if node.kind == kind))
            for word, kind in (("from", "input"), ("to", "output"))
        }
        return " ".join([self._told(), *(f"{word} {told[:200]}" for word, told in names.items() if told)])


class NoGraphviz(RenderError):
    """There is no program that could draw."""


def _program() -> str | None:
    """Return the program that draws: Graphviz's, else graphviz-pure's, which pip installs beside Python."""
    scripts = sysconfig.get_path("scripts")
    return shutil.which("dot") or shutil.which("graphviz-pure") or shutil.which("graphviz-pure", path=scripts)


def _run(arguments: list[str], source: str) -> bytes:
    """Run Graphviz on DOT text, with no shell in between."""
    program = _program()
    if program is None:
        raise NoGraphviz(f"there is no Graphviz to draw with; {HINT}")
    done = subprocess.run([program, *arguments], input=source.encode(), capture_output=True, check=False)
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip() or f"it ended with {done.returncode}"
        raise RenderError(f"{Path(program).name} {' '.join(arguments)} could not draw: {said[:500]}")
    return done.stdout
