"""The picture of a beam search: what is in it, how it looks, and that every symbol arrives as it is."""

import re
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import tinyrnn as tr
from tests.test_generate import Table
from tinyrnn.generate import beam_search
from tinyrnn.viz.beam import draw_beam

P = np.array([[0.1, 0.5, 0.4], [0.4, 0.3, 0.3], [0.8, 0.15, 0.05]])  # P[a, b]: b follows a; 0 is the end
WORDS = ["end", "one", "two"]


def searched(tree=3, **options):
    options = {"length": 4, "width": 2, "stop": 0, "n_best": 2} | options
    return beam_search(Table(np.log(P)), [[0]], tree=tree, **options)[0]


def statements(drawing):
    """Return the nodes and edges of a drawing, as label and attributes."""
    nodes, edges = {}, {}
    for line in drawing.body:
        if found := re.match(r"\t(-?\d+)(?: -> (\d+))? \[(.*)\]", line):
            source, target, attributes = found.groups()
            fields = dict(re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|[^\s"\]]+)', attributes))
            fields = {name: value.strip('"') for name, value in fields.items()}
            (edges if target else nodes)[(source, target) if target else source] = fields
    return nodes, edges


def test_everything_that_was_weighed_is_drawn():
    beam = searched()
    nodes, edges = statements(draw_beam(beam, WORDS).digraph)
    assert len(nodes) == 1 + len(beam.tree)
    assert len(edges) == len(beam.tree)
    for place, node in enumerate(beam.tree):
        edge = edges[str(node.parent), str(place)]
        assert edge["label"] == f"{node.log_probability:.2f}".replace("-", "−")
        first, second, *_ = nodes[str(place)]["label"].split("\\n")
        assert (first, second) == (WORDS[node.symbol], f"{node.total:.2f}".replace("-", "−"))
        assert nodes[str(place)]["class"] == edge["class"] == ("kept" if node.kept else "dropped")


def test_the_best_is_strong_what_is_kept_is_dark_and_what_is_dropped_is_pale():
    beam = searched()
    assert [hypothesis.symbols for hypothesis in beam.hypotheses] == [(2,), (1,)]
    nodes, edges = statements(draw_beam(beam, WORDS).digraph)
    looks = {}
    for place, node in enumerate(beam.tree):
        words, at = [], place
        while at >= 0:
            words.append(WORDS[beam.tree[at].symbol])
            at = beam.tree[at].parent
        looks[" ".join(reversed(words))] = nodes[str(place)]
        assert edges[str(node.parent), str(place)]["color"] == nodes[str(place)]["color"]
    best, kept, dropped = looks["two end"], looks["one end"], looks["two one"]
    assert looks["two"]["color"] == best["color"]
    assert len({best["color"], kept["color"], dropped["color"]}) == 3
    assert float(best["penwidth"]) > float(kept["penwidth"]) > float(dropped["penwidth"])
    assert [look["peripheries"] for look in (best, kept, dropped)] == ["2", "2", "1"]
    assert best["label"].endswith("1. score −1.14")
    assert kept["label"].endswith("2. score −1.61")


def test_hypotheses_that_the_length_cuts_are_marked_too():
    nodes, _ = statements(draw_beam(searched(stop=None, length=2), WORDS).digraph)
    assert sum("score" in node.get("label", "") for node in nodes.values()) == 2


STRANGE = ['"', "\\", '\\"', "a\\", "{x|y}", "<b>bold</b>", "&lt;", "&", "é中", "\x00", "\n", "  ", "", "\ud800", "\\n"]
SHOWN = [*STRANGE[:9], "\\x00", "↵", "␣␣", "∅", "\\ud800", "\\n"]


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs graphviz: apt install graphviz")
def test_symbols_arrive_as_they_are():
    V = len(STRANGE)
    (beam,) = beam_search(Table(np.zeros((V, V))), [[0]], 1, width=V, tree=V)
    svg = draw_beam(beam, STRANGE).digraph.pipe(format="svg", encoding="utf-8")
    texts = [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    for shown in SHOWN:
        assert shown in texts


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs graphviz: apt install graphviz")
@pytest.mark.parametrize(("direction", "wide"), [("LR", True), ("TB", False)])
def test_time_has_a_direction(direction, wide):
    beam = beam_search(Table(np.log(P)), [[0]], 8, width=1, tree=1)[0]
    svg = ET.fromstring(draw_beam(beam, WORDS, direction).digraph.pipe(format="svg", encoding="utf-8"))
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    assert (width > height) == wide


def test_what_cannot_be_drawn_is_named():
    with pytest.raises(ValueError, match=r"the beam has no tree; ask for one: beam_search\(…, tree=2\)"):
        draw_beam(searched(tree=0), WORDS)
    with pytest.raises(tr.errors.IndexRangeError, match="the tree has symbol 2 and there are 2 names"):
        draw_beam(searched(), WORDS[:2])
