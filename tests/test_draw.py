"""Pictures of graphs: what is drawn, rolled and unrolled, and that it is drawn without changing anything."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import weakref
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import errors, nn, viz
from tinyrnn.nn.cells import Cell, GRUState, RNNState
from tinyrnn.viz import picture
from tinyrnn.viz.dot import _Writer, digraph
from tinyrnn.viz.draw import graph_of
from tinyrnn.viz.graph import Graph, GraphNode
from tinyrnn.viz.layout import Layout, unrolled
from tinyrnn.viz.roll import roll
from tinyrnn.viz.words import about, title_of

GOLDEN = Path(__file__).parent / "golden"


class Leaky(Cell):
    """A cell that a user wrote."""

    gates = ("h",)

    def step(self, z: tr.Tensor, state: Any) -> RNNState:
        return RNNState(0.5 * state.h + 0.5 * tr.tanh(z + self.recur(state.h)))


class Minimal(nn.Module):
    """A recurrence from primitives alone, with no cell."""

    def __init__(self) -> None:
        self.W_x, self.W_h = nn.Parameter(tr.randn(3, 4)), nn.Parameter(tr.randn(4, 4))

    def forward(self, x: tr.Tensor, cut: int = 0) -> tr.Tensor:
        h = tr.zeros(x.shape[1], 4)
        for t in tr.steps(len(x)):
            h = tr.tanh(x[t] @ self.W_x + h @ self.W_h)
            if cut and t % cut == cut - 1:
                h = h.detach()
        return h


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self) -> None:
        self.rnn, self.head = nn.GRU(3, 4), nn.Linear(8, 1)

    def forward(self, a: tr.Tensor, b: tr.Tensor) -> tr.Tensor:
        states = self.rnn(a)[1].h[0], self.rnn(b)[1].h[0]
        return self.head(tr.concatenate(states, axis=-1))


class Seq2Seq(nn.Module):
    """Two loops, one after the other, with attention."""

    def __init__(self) -> None:
        self.encoder, self.cell = nn.GRU(3, 4), nn.GRUCell(3, 4)
        self.attention, self.head = nn.Attention(4), nn.Linear(8, 3)

    def forward(self, x: tr.Tensor, T: int) -> tr.Tensor:
        encoded, state = self.encoder(x)
        memory, state, y, ys = self.attention.memory(encoded), GRUState(state.h[0]), tr.zeros(x.shape[1], 3), []
        for _ in tr.steps(T):
            state = self.cell(y, state)
            context, _ = self.attention(state.h, memory)
            y = self.head(tr.concatenate([state.h, context], axis=-1))
            ys.append(y)
        return tr.stack(ys)


MODELS: dict[str, Callable[[], Any]] = {
    "rnn": lambda: nn.RNN(3, 4),
    "lstm": lambda: nn.LSTM(3, 4),
    "gru": lambda: nn.GRU(3, 4),
    "layers, both directions": lambda: nn.LSTM(3, 4, 2, bidirectional=True),
    "options": lambda: nn.LSTM(3, 4, peephole=True, layer_norm=True, learn_initial_state=True),
    "a cell of one's own": lambda: nn.Recurrent(Leaky, 3, 4),
    "no cell at all": Minimal,
}


def x_of(T: int) -> tr.Tensor:
    return tr.randn(T, 2, 3)


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes]


def the(graph: Graph, name: str) -> GraphNode:
    (found,) = [node for node in graph.nodes if node.name == name]
    return found


# ---------------------------------------------------------------- the graph as data


def test_trace_of_a_scalar() -> None:
    x, w, b = (tr.tensor(v, requires_grad=True) for v in (2.0, -3.0, 6.8))
    graph = tr.trace(tr.tanh(x * w + b), names={"x": x, "w": w, "b": b}, values=True, gradients=True)
    assert [(node.kind, node.name) for node in graph.nodes] == [
        *(("input", name) for name in ("x", "w")),
        ("operation", "multiply"),
        ("input", "b"),
        ("operation", "add"),
        ("operation", "tanh"),
    ]
    assert [(edge.source.name, edge.target.name, edge.operand) for edge in graph.edges] == [
        ("x", "multiply", "a"),
        ("w", "multiply", "b"),
        ("multiply", "add", "a"),
        ("b", "add", "b"),
        ("add", "tanh", "x"),
    ]
    y = np.tanh(0.8)
    for name, value, gradient in [
        ("x", 2.0, -3 * (1 - y**2)),
        ("w", -3.0, 2 * (1 - y**2)),
        ("b", 6.8, 1 - y**2),
        ("multiply", -6.0, 1 - y**2),
        ("add", 0.8, 1 - y**2),
        ("tanh", y, 1.0),
    ]:
        (output,) = the(graph, name).outputs
        np.testing.assert_allclose(output.values, value, rtol=1e-5)
        np.testing.assert_allclose(output.gradient, gradient, rtol=1e-5)
    assert [node.result for node in graph.nodes] == [False] * 5 + [True]


def test_trace_knows_a_parameter_that_is_named_and_in_no_module() -> None:
    w, x = tr.Parameter(tr.randn(3)), tr.randn(3, requires_grad=True)
    graph = tr.trace((w + x).sum(), names={"w": w, "x": x})
    assert (the(graph, "w").kind, the(graph, "x").kind) == ("parameter", "input")


def test_trace_opens_fused_functions() -> None:
    cell = nn.LSTMCell(3, 4)
    fused = tr.trace(cell(x_of(1)[0]).h)
    with tr.fusion(False):
        plain = tr.trace(cell(x_of(1)[0]).h)
    assert sorted(names(fused)) == sorted(names(plain))
    assert "sigmoid" in names(fused)
    assert {edge.label for edge in fused.edges} == {"", "i", "f", "g", "o"}
    assert the(fused, "W_h").place[-1].title == "LSTMCell"


def test_trace_refuses_what_remembers_nothing() -> None:
    with pytest.raises(errors.GraphError, match=r"remembers no operation.*tr\.draw\(model, x\)"):
        tr.trace(tr.ones(3))
    w = tr.tensor(2.0, requires_grad=True)
    y = w * w * w
    y.backward()
    with pytest.raises(errors.GraphError, match=r"used and freed.*retain_graph=True"):
        tr.trace(y)
    with pytest.raises(errors.DTypeError, match="given str; expected a tensor"):
        tr.trace("y")


def test_trace_of_a_long_chain() -> None:
    x = tr.tensor(1.0, requires_grad=True)
    y = x
    for _ in range(50_000):
        y = y + 1
    assert len(tr.trace(y).nodes) == 50_001
    drawn = tr.draw(y)
    assert len(drawn.graph.nodes) == 2
    assert "50,001 nodes are too many to draw" in drawn.graph.notes[0]
    assert "×50,000" in drawn.digraph.source
    assert drawn.render("svg").startswith(b"<?xml")


def test_recording_sees_everything() -> None:
    x, table = tr.ones(2, 3), nn.Embedding(5, 3)
    with tr.recording(names={"x": x}, values=True) as recorded, tr.no_grad():
        index = tr.tensor([1, 4])
        y = tr.maximum(x, 0.5) + table(index)
        z = y.detach() * 2
    graph = recorded.graph
    assert names(graph) == ["x", "maximum", "W", "index", "getitem", "add", "multiply"]
    assert the(graph, "maximum").numbers == {"b": 0.5}
    assert [edge.cut for edge in graph.edges if edge.target.name == "multiply"] == [True]
    assert "test_draw.py" in the(graph, "maximum").source
    assert "y = tr.maximum(x, 0.5)" in the(graph, "maximum").source
    np.testing.assert_array_equal(the(graph, "multiply").outputs[0].values, z.numpy())
    assert recorded._alive == []


@pytest.mark.parametrize(("given", "kind", "shape"), [(False, "constant", (2, 4)), (True, "input", (1, 2, 4))])
def test_a_state_that_nobody_gave_is_no_input(given: bool, kind: str, shape: tuple[int, ...]) -> None:
    layer = nn.Recurrent(Leaky, 3, 4)
    state = (RNNState(tr.zeros(1, 2, 4)),) if given else ()
    drawn = tr.draw(layer, x_of(3), *state)
    (h,) = [node for node in drawn.graph.nodes if node.name == "h" and node.kind in ("input", "constant")]
    assert (h.kind, h.outputs[0].shape) == (kind, shape)


def test_random_numbers_are_no_input() -> None:
    def random(x: tr.Tensor) -> tr.Tensor:
        dropped = tr.dropout(x, 0.5)
        return tr.scheduled_sampling(dropped[0], dropped[1], 0.5)

    leaves = [(n.kind, n.name) for n in tr.draw(random, x_of(3)).graph.nodes if n.kind in ("input", "constant")]
    assert leaves == [("constant", "random"), ("input", "x"), ("constant", "random")]
    graph = tr.draw(nn.LSTM(3, 4, zoneout=0.1, recurrent_dropout=0.1), x_of(3)).graph
    assert {n.name for n in graph.nodes if n.kind == "constant"} == {"h", "c", "random", "constant"}  # and ones


def test_parameters_of_inner_modules_have_their_names() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            self.inner, self.lstm = nn.Linear(3, 3), nn.LSTM(3, 4, learn_initial_state=True)

        def forward(self, x: tr.Tensor) -> tr.Tensor:
            return self.lstm(x @ self.inner.W)[0]

    graph = tr.draw(Outer(), x_of(3)).graph
    assert [n.name for n in graph.nodes if n.kind == "parameter"] == ["W", "h_0", "c_0", "W_x", "b", "W_h"]


def test_a_state_is_called_a_state() -> None:
    graph = tr.draw(nn.TCN(3, 4), x_of(5)).graph
    assert [n.name for n in graph.nodes if n.kind == "output"] == ["out", "state 0", "state 1"]


def test_recording_names_places() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LSTM(4, 5))
    with tr.recording() as recorded:
        model[1](model[0](x_of(3)))
    (linear, *_), matmuls = (
        [node for node in recorded.graph.nodes if node.name == name] for name in ("linear", "matmul")
    )
    assert [p.title for p in linear.place] == ["Linear"]
    assert [[p.kind for p in node.place] for node in matmuls] == [["module", "module", "loop", "step"]] * 3
    assert [node.steps for node in matmuls] == [[0], [1], [2]]
    assert matmuls[0].place[2] is matmuls[1].place[2]
    assert [p.name for p in matmuls[0].place[:2]] == ["", "cells.0"]


@pytest.mark.parametrize("model", MODELS)
def test_values_and_gradients_are_those_of_the_model(model: str) -> None:
    tr.manual_seed(0)
    made, x = MODELS[model](), x_of(3)
    graph = graph_of(made, x, values=True, gradients=True)
    out = made(x)
    results = [y for _, y in viz.graph.named_parts(out)]
    drawn = [node for node in graph.nodes if node.kind == "output"]
    for node, y in zip(drawn, results, strict=True):
        np.testing.assert_allclose(node.outputs[0].values, y.numpy(), rtol=1e-5, atol=1e-6)
    parameters = dict(made.named_parameters())
    total = sum((y.sum() for y in results), tr.tensor(0.0))
    for p, g in zip(parameters.values(), tr.grad(total, list(parameters.values())), strict=True):
        found = [n for n in graph.nodes if n.kind == "parameter" and np.array_equal(n.outputs[0].values, p.numpy())]
        assert any(np.allclose(n.outputs[0].gradient, g.numpy(), rtol=1e-4, atol=1e-5) for n in found)


def test_edges_know_the_gradient_that_flows_back() -> None:
    x = tr.tensor([1.0, 2.0], requires_grad=True)
    graph = tr.trace((x * 3 + x**2).sum(), gradients=True)
    flows = {edge.target.name: edge.gradient for edge in graph.edges if edge.source.name == "input"}
    assert flows == {"multiply": pytest.approx(np.hypot(3, 3)), "power": pytest.approx(np.hypot(2, 4))}


def test_edges_of_single_steps_know_the_gradient_of_their_step() -> None:
    tr.manual_seed(0)
    below, above, x = nn.RNN(3, 4), nn.RNN(4, 4), x_of(6)

    def last(x: tr.Tensor) -> tr.Tensor:
        return above(below(x)[0])[1].h

    hidden = below(x)[0].detach()
    hidden.requires_grad = True
    g = tr.grad(above(hidden)[1].h.sum(), hidden)
    norms = np.linalg.norm(g.numpy(), axis=(1, 2))
    graph = tr.draw(last, x, view="unrolled", detail="cell", gradients=True).graph
    between = [e for e in graph.edges if e.source.kind == "step" and e.target.name == "linear"]
    np.testing.assert_allclose([e.gradient for e in between], norms, rtol=1e-4)
    (rolled,) = [
        e
        for e in tr.draw(last, x, detail="cell", gradients=True).graph.edges
        if e.source.kind == "step" and e.target.name == "linear"
    ]
    np.testing.assert_allclose([part.gradient for part in rolled.parts], norms, rtol=1e-4)
    assert rolled.gradient == pytest.approx(norms.max(), rel=1e-4)


# ---------------------------------------------------------------- rolled


@pytest.mark.parametrize("detail", ["layer", "cell", "op"])
@pytest.mark.parametrize("model", MODELS)
def test_rolled_is_as_large_for_any_length(model: str, detail: str) -> None:
    made = MODELS[model]()
    small, large = (tr.draw(made, x_of(T), detail=detail).graph for T in (3, 30))
    assert [(n.kind, n.name, len(n.place)) for n in small.nodes] == [
        (n.kind, n.name, len(n.place)) for n in large.nodes
    ]
    assert [(e.source.name, e.target.name, e.operand, e.delay, e.cut) for e in small.edges] == [
        (e.source.name, e.target.name, e.operand, e.delay, e.cut) for e in large.edges
    ]
    assert small.notes == large.notes == []


@pytest.mark.parametrize("model", ["lstm", "no cell at all"])
def test_rolled_is_as_large_for_a_thousand_steps(model: str) -> None:
    made = MODELS[model]()
    assert len(tr.draw(made, x_of(3)).graph.nodes) == len(tr.draw(made, x_of(1000)).graph.nodes)


def test_rolled_lstm() -> None:
    graph = tr.draw(nn.LSTM(3, 4), x_of(7)).graph
    matmul = the(graph, "matmul")
    assert (matmul.count, matmul.steps) == (7, list(range(7)))
    assert [(e.source.name, e.label, e.times) for e in graph.edges if e.delay] == [
        ("multiply", "h", 6),
        ("add", "c", 6),
    ]
    assert {e.delay for e in graph.edges} == {0, 1}
    assert [(e.source.kind, e.source.name, e.label) for e in graph.edges if e.label == "t = 0"] == [
        ("constant", "h", "t = 0"),
        ("constant", "c", "t = 0"),
    ]
    assert names(graph).count("W_h") == 1
    assert [node.name for node in graph.nodes if node.kind == "output"] == ["out", "h", "c"]


def test_rolled_truncation_is_a_cut() -> None:
    graph = tr.draw(Minimal(), x_of(12), 4).graph
    delays = {edge.cut: edge.times for edge in graph.edges if edge.delay}
    assert delays == {False: 9, True: 2}
    assert any(edge.cut for edge in graph.edges if edge.target.kind == "output")  # after the last step too


def test_rolled_backward_direction() -> None:
    graph = tr.draw(nn.RNN(3, 4, bidirectional=True), x_of(5)).graph
    ahead, back = [node for node in graph.nodes if node.name == "matmul"]
    assert [p.name for p in (ahead.place[1], back.place[1])] == ["cells.0", "cells.1"]
    assert [e.delay for e in graph.edges if e.delay] == [1, 1]
    assert sorted(e.label for e in graph.edges if e.target.name == "stack" and e.label) == ["t = 0", "t = 4"]


def test_rolled_loops_in_a_row_and_inside_each_other() -> None:
    graph = tr.draw(Seq2Seq(), x_of(5), 4, detail="cell").graph
    loops = {place: None for node in graph.nodes for place in node.place if place.kind == "loop"}
    assert [place.steps for place in loops] == [list(range(5)), list(range(4))]

    def nested(x: tr.Tensor) -> tr.Tensor:
        h = tr.zeros(2, 3)
        for w in tr.steps(len(x) // 2):
            for k in tr.steps(2):
                h = tr.tanh(h + x[2 * w + k])
            h = h * 0.5
        return h

    small, large = (tr.draw(nested, x_of(T)).graph for T in (6, 20))
    assert len(small.nodes) == len(large.nodes) == 7
    tanh = the(large, "tanh")
    assert [place.kind for place in tanh.place] == ["loop", "step", "loop", "step"]
    assert tanh.count == 20
    assert {(e.source.name, e.target.name, e.delay, e.times) for e in large.edges if e.delay} == {
        ("tanh", "add", 1, 10),  # to the next step of the inner loop
        ("multiply", "add", 1, 9),  # to the next round of the outer one
    }


def test_rolled_steps_that_differ_are_drawn_apart() -> None:
    def odd(x: tr.Tensor) -> tr.Tensor:
        h = tr.zeros(2, 3)
        for t in tr.steps(len(x)):
            h = tr.tanh(h + x[t])
            if t == 4:
                h = tr.relu(h)
        return h

    drawn = tr.draw(odd, x_of(10))
    assert drawn.graph.notes == ["not all 10 steps are alike: 2 kinds are drawn apart"]
    assert sorted(node.steps for node in drawn.graph.nodes if node.name == "tanh") == [
        [0, 1, 2, 3, 5, 6, 7, 8, 9],
        [4],
    ]
    assert "not all 10 steps are alike" in drawn.digraph.source


def test_rolled_steps_that_read_something_else_are_drawn_apart() -> None:
    a, b = tr.ones(2, 3), tr.ones(2, 3)

    def other(x: tr.Tensor) -> tr.Tensor:
        h = tr.zeros(2, 3)
        for t in tr.steps(len(x)):
            h = h * (a if t != 3 else b) + x[t]
        return h

    assert len([n for n in tr.draw(other, x_of(9)).graph.nodes if n.name == "add"]) == 2


def test_rolled_slices_that_grow_are_told_as_such() -> None:
    def growing(x: tr.Tensor) -> tr.Tensor:
        h = tr.zeros(2, 3)
        for t in tr.steps(len(x)):
            h = tr.tanh(h + x[: t + 1].sum(axis=0))
        return h

    drawn = tr.draw(growing, x_of(5))
    (node,) = [node for node in drawn.graph.nodes if node.name == "getitem"]
    assert (title_of(node), node.outputs[0].shape) == ("x[:…]", (-1, 2, 3))
    assert "float32 […, 2, 3]" in about(node)
    assert "bytes" not in about(node)


def test_rolled_skip_connections_have_their_delay() -> None:
    def skip(x: tr.Tensor) -> tr.Tensor:
        h = [tr.zeros(2, 3), tr.zeros(2, 3)]
        for t in tr.steps(len(x)):
            h.append(tr.tanh(h[-1] + h[-2] + x[t]))
        return h[-1]

    graph = tr.draw(skip, x_of(9)).graph
    assert sorted(e.delay for e in graph.edges if e.delay) == [1, 2]
    assert "z⁻²" in tr.draw(skip, x_of(9)).digraph.source


def test_rolled_backward_graph() -> None:
    layer = nn.RNN(3, 4)
    W_h = layer.cells[0].W_h

    def backward(x: tr.Tensor) -> dict[str, tr.Tensor]:
        out, _ = layer(x)
        loss = (out**2).sum()
        return {"loss": loss, "∂L/∂W_h": tr.grad(loss, W_h, create_graph=True)}

    small, large = (tr.draw(backward, x_of(T)).graph for T in (8, 40))
    assert len(small.nodes) == len(large.nodes)
    assert {e.delay for e in large.edges} == {-1, 0, 1}  # gradients go from a step to the one before
    assert {n.name for n in large.nodes if n.back} >= {"multiply", "matmul", "concatenate"}
    assert not any(n.back for n in large.nodes if n.name == "tanh")
    assert not any(e.cut for e in large.edges)


# ---------------------------------------------------------------- unrolled


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("model", MODELS)
def test_unrolled_nodes_stand_apart_in_order_of_time(model: str, direction: str) -> None:
    graph = tr.draw(MODELS[model](), x_of(4), view="unrolled", detail="op").graph
    layout = unrolled(graph, lambda node: (30.0, 20.0), direction)
    for a, b in combinations(layout.nodes.values(), 2):
        assert a.right <= b.left or b.right <= a.left or a.top <= b.bottom or b.top <= a.bottom
    for node, r in layout.nodes.items():
        for place in node.place:
            box = layout.boxes.get(place)
            assert box is None or (box.left < r.left < r.right < box.right and box.bottom < r.bottom < r.top < box.top)
    when = {(node.place[-2], node.steps[0]): layout.nodes[node] for node in graph.nodes if node.steps}
    for (loop, t), r in when.items():
        for (other, u), s in when.items():
            if loop is other and t < u:
                assert (r.x < s.x) if direction == "LR" else (r.y > s.y)


def places(curve: list[tuple[float, float]]) -> np.ndarray:
    """Return points along a curve: (n, 2)."""
    t = np.linspace(0, 1, 200)[:, None]
    weights = np.concatenate([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3], axis=1)
    return np.concatenate([weights @ np.array(curve[n : n + 4]) for n in range(0, len(curve) - 1, 3)])


def unrolled_layout(drawn: viz.Picture, direction: str = "LR") -> Layout:
    return unrolled(drawn.graph, _Writer(drawn.graph, shapes=True, values=False, gradients=False).size, direction)


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("detail", ["layer", "cell", "op"])
@pytest.mark.parametrize("model", [*MODELS, "encoder, decoder", "shared"])
def test_unrolled_edges_go_around_nodes(model: str, detail: str, direction: str) -> None:
    """An edge behind a node looks as if it began there: x of both directions as if one read the other's result."""
    made = ({"encoder, decoder": Seq2Seq, "shared": Twice} | MODELS)[model]()
    inputs = {"encoder, decoder": (x_of(5), 4), "shared": (x_of(5), x_of(5))}.get(model, (x_of(5),))
    layout = unrolled_layout(tr.draw(made, *inputs, view="unrolled", detail=detail), direction)
    for edge, curve in layout.curves.items():
        x, y = places(curve).T
        for node, r in layout.nodes.items():
            if node is not edge.source and node is not edge.target and edge.source.kind != "parameter":
                inside = (r.left + 1 < x) & (x < r.right - 1) & (r.bottom + 1 < y) & (y < r.top - 1)
                assert not inside.any(), f"{edge} leads through {node}"


def test_unrolled_sequences_are_bars_beside_what_is_none() -> None:
    drawn = tr.draw(Minimal(), x_of(5), view="unrolled", detail="op")
    layout = unrolled_layout(drawn)
    x, h = (layout.nodes[the(drawn.graph, name)] for name in ("x", "h"))
    steps = [layout.nodes[node] for node in drawn.graph.nodes if node.kind == "operation"]
    assert (x.left, x.right) < (min(r.left for r in steps), max(r.right for r in steps) + 50)
    assert x.width > 300
    assert h.right < min(r.left for r in steps)  # at the side where the loop begins


def test_unrolled_gradients_come_from_above() -> None:
    layer = nn.RNN(3, 4)

    def gradient(x: tr.Tensor) -> tr.Tensor:
        out, _ = layer(x)
        return tr.grad((out**2).sum(), layer.cells[0].W_h, create_graph=True)

    drawn = tr.draw(gradient, x_of(5), view="unrolled", detail="op")
    layout = unrolled_layout(drawn)
    ahead, back = (
        next(r for node, r in layout.nodes.items() if node.name == "unstack" and node.back is is_back)
        for is_back in (False, True)
    )
    (loop,) = [r for place, r in layout.boxes.items() if place.kind == "loop"]
    assert ahead.top < loop.bottom < loop.top < back.bottom


def test_unrolled_words_beside_edges_are_on_no_node() -> None:
    drawn = tr.draw(Minimal(), x_of(6), 2, view="unrolled", detail="cell")
    layout = unrolled_layout(drawn)
    words = re.findall(r'label=cut .*? lp="([-\d.]+),([-\d.]+)"', drawn.digraph.source)
    assert len(words) == 3
    for x, y in words:
        for r in layout.nodes.values():
            assert not (r.left < float(x) < r.right and r.bottom < float(y) < r.top)


def test_unrolled_draws_every_step() -> None:
    graph = tr.draw(nn.LSTM(3, 4), x_of(100), view="unrolled", detail="op").graph
    assert names(graph).count("tanh") == 200
    assert names(graph).count("W_h") == 1
    cells = tr.draw(nn.LSTM(3, 4, 2), x_of(6), view="unrolled").graph
    assert [node.steps for node in cells.nodes if node.kind == "step"] == [[t] for _ in range(2) for t in range(6)]


def test_unrolled_leaves_out_steps_of_a_long_loop() -> None:
    drawn = tr.draw(nn.LSTM(3, 4), x_of(1000), view="unrolled", steps=[500])
    shown = [node.steps[0] for node in drawn.graph.nodes if node.kind == "step"]
    gaps = [node.name for node in drawn.graph.nodes if node.kind == "gap"]
    assert shown == [0, 1, 2, 500, 998, 999]
    assert gaps == ["… 497 more …", "… 497 more …"]
    assert drawn.render("svg").count(b"997") == 0
    by_size = tr.draw(nn.LSTM(3, 4), x_of(60), view="unrolled", detail="op", max_nodes=200)
    assert [node.name for node in by_size.graph.nodes if node.kind == "gap"] == ["… 55 more …"]


def test_without_loops_both_views_are_the_same() -> None:
    model = nn.Sequential(nn.Linear(3, 4), tr.tanh, nn.Linear(4, 1))
    rolled, flat = (tr.draw(model, tr.ones(2, 3), view=view, detail="op") for view in ("rolled", "unrolled"))
    assert rolled.digraph.source == flat.digraph.source


# ---------------------------------------------------------------- detail


def test_layers_are_single_nodes() -> None:
    class CharRNN(nn.Module):
        def __init__(self) -> None:
            self.embedding, self.lstm, self.head = nn.Embedding(9, 3), nn.LSTM(3, 4, 2), nn.Linear(4, 9)

        def forward(self, x: tr.Tensor) -> Any:
            out, state = self.lstm(self.embedding(x))
            return self.head(out), state

    graph = tr.draw(CharRNN(), tr.tensor([[1], [2], [3]]), detail="layer").graph
    assert names(graph) == [
        *("x", "embedding: Embedding", "cells.0: LSTMCell", "cells.1: LSTMCell", "head: Linear"),
        *("out", "h", "c"),
    ]
    flow = [(e.source.name.partition(":")[0], e.target.name.partition(":")[0]) for e in graph.edges if not e.delay]
    assert set(flow) == {
        *(("x", "embedding"), ("embedding", "cells.0"), ("cells.0", "cells.1"), ("cells.1", "head"), ("head", "out")),
        *((cell, field) for cell in ("cells.0", "cells.1") for field in ("h", "c")),
    }
    assert sorted(e.label for e in graph.edges if e.delay) == ["c", "c", "h", "h"]
    assert "27 parameters" in the(graph, "embedding: Embedding").about


def test_layers_without_parameters_are_single_nodes() -> None:
    model = nn.Sequential(nn.Linear(3, 4), tr.tanh, nn.Dropout(0.5), nn.Linear(4, 1))
    graph = tr.draw(model, tr.ones(2, 3), detail="layer").graph
    assert names(graph) == ["x", "0: Linear", "1: Function", "2: Dropout", "3: Linear", "out"]
    assert [node.about for node in graph.nodes if node.kind == "module"][1:3] == ["tanh", "p=0.5"]


def test_a_layer_that_is_called_again_says_so() -> None:
    graph = tr.draw(Twice(), x_of(3), x_of(3), detail="layer").graph
    first, second = (n.about.splitlines()[-1] for n in graph.nodes if n.name == "cells.0: GRUCell")
    assert (first, second) == ("100 parameters", "the same 100 parameters")


# ---------------------------------------------------------------- pictures


def test_inputs_stand_before_the_boxes_that_they_go_into() -> None:
    drawn = tr.draw(nn.LSTM(3, 4), x_of(3))
    found = {x["name"]: x for x in json.loads(picture._run(["-Kdot", "-Tjson"], drawn.digraph.source))["objects"]}
    left = float(found["cluster_1"]["bb"].split(",")[0])
    x = found[f"n{names(drawn.graph).index('x')}"]
    assert float(x["pos"].split(",")[0]) + 36 * float(x["width"]) < left


def test_rings_around_a_node_say_what_they_are_outside_of_all() -> None:
    source = tr.draw(nn.LSTM(3, 4), x_of(3), detail="layer").digraph.source
    assert re.findall(r"n1 -> n1 \[(label=[^=]*class|class)", source) == ["class", 'label="h z⁻¹\nc z⁻¹" class']


GOLDENS: dict[str, Callable[[], viz.Picture]] = {
    "perceptron": lambda: tr.draw(nn.Sequential(nn.Linear(3, 1), tr.sigmoid), tr.ones(2, 3)),
    "rnn": lambda: tr.draw(nn.RNN(3, 4), x_of(3), view="unrolled", detail="op"),
    "lstm_step": lambda: tr.draw(nn.LSTMCell(3, 4), x_of(1)[0], direction="TB"),
    "bidirectional": lambda: tr.draw(nn.GRU(3, 4, bidirectional=True), x_of(3), detail="cell"),
    "encoder_decoder": lambda: tr.draw(Seq2Seq(), x_of(3), 2, detail="cell"),
}


def golden(name: str) -> str:
    """Return the DOT text of a picture without tooltips, which quote lines of source."""
    return re.sub(r'tooltip="(?:[^"\\]|\\.)*"', "tooltip", GOLDENS[name]().digraph.source)


@pytest.mark.parametrize("name", GOLDENS)
def test_dot_is_as_it_was(name: str) -> None:
    """`python -m tests.test_draw` writes these files anew: look at what has changed."""
    assert golden(name) == (GOLDEN / f"{name}.dot").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", GOLDENS)
def test_dot_is_read_back(name: str) -> None:
    drawn = GOLDENS[name]()
    read = picture._run(["-Kdot", "-Tdot_json"], drawn.digraph.source)
    graph = json.loads(read)
    nodes = [x for x in graph["objects"] if x["name"].startswith("n") and "nodes" not in x]
    assert len(nodes) == len(drawn.graph.nodes)
    assert len(graph["edges"]) == len(drawn.graph.edges)


STRANGE = [
    'say "x"',
    "{a|b}",
    "<b>bold</b>",
    "</script>&amp;",
    "back\\slash\\n",
    "Größe ∂L/∂h 漢字",
    "<",
    "a\nb",
    "%s {0}",
]


UNWRITABLE = ["\x00", "\ud800", "a\x1bb"]


def test_names_are_escaped() -> None:
    xs = {name: tr.tensor(1.0, requires_grad=True) for name in STRANGE + UNWRITABLE}
    strange = tr.primitive(
        '<i>"odd"\\op</i>', forward=lambda xp, x: x + 0, vjp=(lambda ops, gy, y, x: gy,), saves=("",)
    )
    y = tr.apply(strange, sum(xs.values(), tr.tensor(0.0)))
    drawn = tr.draw(y, names=xs)
    assert set(names(drawn.graph)) >= set(STRANGE)
    root = ET.fromstring(drawn.render("svg"))
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    for name in STRANGE:
        assert " ".join(name.split()) in [text.replace("\xa0", " ").strip() for text in texts]
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))


def test_save_writes_what_the_name_says(tmp_path: Path) -> None:
    drawn = tr.draw(nn.RNN(3, 4), x_of(3))
    assert drawn.save(tmp_path / "a.svg").read_bytes().startswith(b"<?xml")
    assert drawn.save(str(tmp_path / "a.png")).read_bytes().startswith(b"\x89PNG")
    assert drawn.save(tmp_path / "a.dot").read_text(encoding="utf-8") == drawn.digraph.source
    with pytest.raises(errors.RenderError, match=r"ends in '.bmp'; expected .svg, .png, .pdf, .dot or .html"):
        drawn.save(tmp_path / "a.bmp")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dot", "a.png", "a.svg"]


def test_pictures_say_in_words_what_they_show() -> None:
    root = ET.fromstring(tr.draw(nn.LSTM(3, 4), x_of(3)).render("svg"))
    told = "picture of 26 nodes and 30 edges from x to out, h, c"
    assert (root.get("role"), root.get("aria-label")) == ("img", told)


def test_pictures_show_themselves_in_a_notebook() -> None:
    drawn = tr.draw(nn.RNN(3, 4), x_of(3))
    assert drawn._repr_svg_().startswith("<?xml")
    assert set(drawn._repr_mimebundle_()) == {"text/plain", "image/svg+xml"}
    assert "prefers-color-scheme: dark" in drawn._repr_svg_()
    drawn.digraph.attr("node", fontname="serif")
    assert "serif" in drawn._repr_svg_()


def test_no_shell_is_invoked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    run = subprocess.run

    def noted(arguments: Any, **options: Any) -> Any:
        calls.append((arguments, options))
        return run(arguments, **options)

    monkeypatch.setattr(subprocess, "run", noted)
    tr.draw(nn.RNN(3, 4), x_of(3)).render("svg")
    ((arguments, options),) = calls
    assert isinstance(arguments, list)
    assert not options.get("shell")


@pytest.mark.parametrize("view", ["rolled", "unrolled"])
def test_graphviz_from_pip_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, view: str) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if picture._program() is None:
        pytest.skip("graphviz-pure is not installed: pip install 'tinyrnn[viz]'")
    drawn = tr.draw(nn.RNN(3, 4), x_of(3), view=view)
    assert drawn.render("svg").startswith(b"<?xml")
    with pytest.raises(errors.RenderError, match=r"graphviz-pure .* could not draw.*pdf"):
        drawn.render("pdf")


def test_without_graphviz_a_dot_file_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(picture, "_program", lambda: None)
    drawn = tr.draw(nn.RNN(3, 4), x_of(3))
    assert drawn.save(tmp_path / "a.svg") == tmp_path / "a.dot"
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "pip install 'tinyrnn[viz]'" in said
    assert [path.name for path in tmp_path.iterdir()] == ["a.dot"]
    assert drawn._repr_svg_() is None
    assert "pip install" in drawn._repr_mimebundle_()["text/plain"]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"view": "3d"}, ValueError, "view is '3d'; expected 'rolled' or 'unrolled'"),
        ({"detail": "fine"}, ValueError, "detail is 'fine'; expected 'layer', 'cell', 'op'"),
        ({"direction": "BT"}, ValueError, "direction is 'BT'; expected 'LR' or 'TB'"),
        ({"names": {"x": 3}}, errors.DTypeError, "'x' is int; expected a tensor"),
        ({"steps": 5}, errors.DTypeError, "steps is 5; expected time steps, such as [5]"),
    ],
)
def test_wrong_arguments(options: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=re.escape(said)):
        tr.draw(nn.RNN(3, 4), x_of(3), **options)


def test_what_cannot_be_drawn_is_told() -> None:
    with pytest.raises(errors.DTypeError, match=r"draw: given str; expected a model and its input, a tensor"):
        tr.draw("x")
    with pytest.raises(errors.DTypeError, match=r"given 0 inputs for RNN\(x: .*missing a required argument: 'x'"):
        tr.draw(nn.RNN(3, 4))


@pytest.mark.parametrize("what", [([],), (lambda x: 3, 1.0), (Graph(),)])
def test_nothing_is_not_drawn(what: tuple[Any, ...]) -> None:
    with pytest.raises(errors.GraphError, match="nothing to draw: no operation was recorded"):
        tr.draw(*what)


def test_a_tensor_takes_no_inputs() -> None:
    with pytest.raises(errors.DTypeError, match="given Tensor and 1 inputs; expected a model before its inputs"):
        tr.draw(tr.tensor(1.0, requires_grad=True) * 2, x_of(3))


# ---------------------------------------------------------------- nothing changes, nothing stays


def losses(draw: bool) -> list[float]:
    tr.manual_seed(7)
    model, x = nn.LSTM(3, 4, 2, dropout=0.5), tr.randn(5, 2, 3)
    optimizer, found = tr.optim.Adam(model.parameters(), 0.01), []
    for _ in range(4):
        out, _ = model(x)
        loss = (out**2).mean()
        if draw:
            tr.draw(loss, gradients=True, values=True)
            tr.draw(model, x, view="unrolled", values=True, gradients=True)
        loss.backward()
        if draw:
            tr.draw(model, x)
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def test_drawing_never_changes_training() -> None:
    assert losses(draw=True) == losses(draw=False)


def test_nothing_is_kept_alive() -> None:
    gc.disable()
    try:
        model, x = nn.LSTM(3, 4), x_of(5)
        drawn = tr.draw(model, x, values=True, gradients=True)
        kept = weakref.ref(x), weakref.ref(model.cells[0].W_h)
        del x, model
        assert [ref() for ref in kept] == [None, None]
        assert drawn.graph.nodes
    finally:
        gc.enable()


def test_an_error_while_recording_is_the_models_own() -> None:
    with pytest.raises(errors.ShapeError, match="LSTM"):
        tr.draw(nn.LSTM(3, 4), tr.ones(5, 2, 7))
    assert tr.autograd.current_mode().listener is None


@pytest.mark.usefixtures("backend")
def test_every_backend_is_drawn() -> None:
    graph = tr.draw(nn.GRU(3, 4), x_of(4), values=True, gradients=True).graph
    assert isinstance(the(graph, "W_h").outputs[0].gradient, np.ndarray)


def test_rolling_and_drawing_leave_the_graph_as_it_was() -> None:
    graph = graph_of(nn.GRU(3, 4), x_of(4))
    before = [(node.kind, node.name, node.place, node.count) for node in graph.nodes], list(graph.edges)
    roll(graph)
    digraph(graph, in_time=True)
    tr.draw(graph, view="unrolled", detail="layer")
    assert ([(node.kind, node.name, node.place, node.count) for node in graph.nodes], list(graph.edges)) == before


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in GOLDENS:
        (GOLDEN / f"{name}.dot").write_text(golden(name), encoding="utf-8")
