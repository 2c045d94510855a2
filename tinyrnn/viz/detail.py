"""How much of a graph a picture shows: what is drawn as one node, and what is left out and said in words.

layer   a node for each module that has parameters, or no modules inside; of a cell, unrolled, one for each step
cell    a node for each step of a cell; around it the operations on whole sequences, and the parameters
op      every operation
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import Any

from tinyrnn.viz.graph import Graph, GraphEdge, GraphNode, Place
from tinyrnn.viz.roll import larger

DETAILS = ("layer", "cell", "op")
WIRING = ("unstack", "stack")  # only take sequences apart and put them together


def at_detail(graph: Graph, detail: str, rolled: bool) -> Graph:
    """Return the graph with as much of it as a level of detail shows."""
    if detail == "op":
        return graph
    graph = without_wiring(graph)
    bare = _bare_loops(graph)

    def unit(node: GraphNode) -> Hashable:
        if node.kind == "output":
            return node
        end = _layer_end(node.place, rolled) if detail == "layer" else None
        end = _cell_end(node.place, bare) if end is None else end
        if end is None:
            return node
        return node.place[:end] if node.kind in ("operation", "constant") else node

    graph = merged(graph, unit)
    readers: dict[GraphNode, set[str]] = defaultdict(set)
    for edge in graph.edges:
        readers[edge.source].add(edge.target.kind)
    graph = _without(graph, lambda n: n.kind == "parameter" and readers[n] == {"module"})  # which says how many it has
    if detail == "layer":
        graph = _without(graph, lambda n: n.kind == "parameter" and any(p.kind == "module" for p in n.place))
        used = {edge.source for edge in graph.edges} | {edge.target for edge in graph.edges}
        graph = _without(graph, lambda n: n.kind == "constant" or (n.kind == "operation" and n not in used))
    return graph


def _layer_end(place: tuple[Place, ...], rolled: bool) -> int | None:
    """Return how much of a place names a module to be drawn as one node, None if it is in none."""
    for n, p in enumerate(place):
        if p.kind == "module" and (p.owns or p.whole or p.gates) and (n > 0 or p.gates):
            if not p.gates or rolled:
                return n + 1
            return next((m + 1 for m in range(n, len(place)) if place[m].kind == "step"), None)
    return None


def _cell_end(place: tuple[Place, ...], bare: set[Place]) -> int | None:
    """Return how much of a place names a step to be drawn as one node, None if it is in none."""
    inside = False
    for n, p in enumerate(place):
        inside = inside or p.kind == "step"
        if p.kind == "module" and inside and (p.owns or p.gates):
            return n + 1
        if p.kind == "step" and place[n - 1] in bare:
            return n + 1
    return None


def _bare_loops(graph: Graph) -> set[Place]:
    """Return the loops whose steps are operations alone: no module of theirs is drawn, and no loop is inside."""
    loops: set[Place] = set()
    busy: set[Place] = set()
    for node in graph.nodes:
        if node.kind == "operation":
            for n, p in enumerate(node.place):
                if p.kind == "loop":
                    loops.add(p)
                    if any(
                        q.kind == "loop" or (q.kind == "module" and (q.owns or q.gates)) for q in node.place[n + 1 :]
                    ):
                        busy.add(p)
    return loops - busy


# ---------------------------------------------------------------- merging nodes


def merged(graph: Graph, unit: Callable[[GraphNode], Hashable]) -> Graph:
    """Return the graph with one node for all that have the same unit: a node is its own, a place stands for a box."""
    new = Graph(notes=list(graph.notes))
    made: dict[Hashable, GraphNode] = {}
    of: dict[GraphNode, GraphNode] = {}
    for node in graph.nodes:
        key = unit(node)
        if key not in made:
            made[key] = node if isinstance(key, GraphNode) else _box(key)
            new.nodes.append(made[key])
        of[node] = made[key]
    edges: dict[Any, GraphEdge] = {}
    for edge in graph.edges:
        source, target = of[edge.source], of[edge.target]
        if source is not target or edge.delay:
            if source is not edge.source:
                _has(source, edge)
            operand = edge.operand if target is edge.target else ""
            which = (source, _place_of(source, edge), target, operand, edge.delay, edge.cut)
            if which not in edges:
                parts = list(edge.parts or [edge])
                edges[which] = replace(
                    edge, source=source, output=which[1], target=target, operand=operand, parts=parts
                )
            else:
                edges[which].times += edge.times
                edges[which].parts += edge.parts or [edge]
                edges[which].gradient = larger(edges[which].gradient, edge.gradient)
                edges[which].label = edges[which].label if edges[which].label == edge.label else ""
    new.edges = list(edges.values())
    return new


def _box(place: Any) -> GraphNode:
    """Return a node that stands for a place."""
    last: Place = place[-1]
    if last.kind == "module":
        name = f"{last.name}: {last.title}" if last.name else last.title
        about, same = last.about.partition(";")[0], "the same " if last.again else ""
        about += f"\n{same}{last.parameters:,} parameters" if last.parameters else ""
        return GraphNode("module", name, place[:-1], about=about)
    cell = next((p for p in reversed(place) if p.kind == "module"), None)
    return GraphNode("step", cell.title if cell is not None and cell.gates else "step", place, count=len(last.steps))


def _has(box: GraphNode, edge: GraphEdge) -> None:
    """Let a box show what leaves it."""
    y = edge.source.outputs[edge.output]
    if not any(y is known for known in box.outputs):
        box.outputs.append(y)


def _place_of(source: GraphNode, edge: GraphEdge) -> int:
    if source is edge.source:
        return edge.output
    y = edge.source.outputs[edge.output]
    return next(k for k, known in enumerate(source.outputs) if known is y)


def without_wiring(graph: Graph) -> Graph:
    """Return the graph with sequences joined to what is done with their steps, and nothing in between.

    A sequence that several operations read stays a node: otherwise each of its steps would lead to each of them.
    """
    wiring = {node for node in graph.nodes if node.kind == "operation" and node.name in WIRING}
    users = Counter(edge.source for edge in graph.edges)
    wiring = {node for node in wiring if not node.result and (node.name == "unstack" or users[node] <= 1)}
    entering: dict[GraphNode, list[GraphEdge]] = defaultdict(list)
    edges: list[GraphEdge] = []
    leaving = sorted(graph.edges, key=_order(graph))
    for edge in leaving:
        came = [edge] if edge.source not in wiring else [_joined(before, edge) for before in entering[edge.source]]
        (entering[edge.target] if edge.target in wiring else edges).extend(came)
    return Graph([node for node in graph.nodes if node not in wiring], edges, list(graph.notes))


def _joined(before: GraphEdge, after: GraphEdge) -> GraphEdge:
    """Return one edge for two in a row: what flows along it is what flows to one step, not to all side by side."""
    step = before if after.source.name == "stack" and before.gradient is not None else after
    return replace(
        before,
        target=after.target,
        operand=after.operand,
        delay=before.delay + after.delay,
        cut=before.cut or after.cut,
        times=max(before.times, after.times),
        gradient=step.gradient,
        label=before.label or after.label,
        parts=step.parts or [step],
    )


def _order(graph: Graph) -> Callable[[GraphEdge], int]:
    """Return a key that sorts edges by where they start, in the order in which nodes were made."""
    at = {node: n for n, node in enumerate(graph.nodes)}
    return lambda edge: at[edge.source]


def _without(graph: Graph, is_out: Callable[[GraphNode], bool]) -> Graph:
    """Return the graph without some of its nodes and their edges."""
    out = {node for node in graph.nodes if is_out(node)}
    if len(out) == len(graph.nodes):
        return graph
    edges = [edge for edge in graph.edges if edge.source not in out and edge.target not in out]
    return Graph([node for node in graph.nodes if node not in out], edges, list(graph.notes))


# ---------------------------------------------------------------- fewer steps, and fewer nodes


def some_steps(graph: Graph, chosen: Callable[[tuple[int, ...]], Iterable[int]]) -> Graph:
    """Return the graph with some steps of each loop, and a node for each run of steps in between: "… 94 more …".

    Args: chosen, the steps to be kept of those that a loop has, in the order in which they were taken.
    """
    loops: dict[Place, dict[Place, int]] = defaultdict(dict)
    for node in graph.nodes:
        for loop, step in zip(node.place, node.place[1:], strict=False):
            if loop.kind == "loop":
                loops[loop].setdefault(step, len(loops[loop]))
    gone: dict[Place, tuple[Place, int]] = {}  # a step, and the run of steps that it is left out with
    runs: Counter[tuple[Place, int]] = Counter()
    for loop, steps in loops.items():
        keep = set(chosen(tuple(step.steps[0] for step in steps)))
        run, before = 0, True
        for step in steps:
            kept = step.steps[0] in keep
            run += before and not kept
            before = kept
            if not kept:
                gone[step] = loop, run
                runs[loop, run] += 1
    if not gone:
        return graph

    def unit(node: GraphNode) -> Any:
        n = next((n for n, p in enumerate(node.place) if p in gone), None)
        return node if n is None else (gone[node.place[n]], node.place[:n], node.place[n].steps[0])

    return _with_gaps(graph, unit, runs)


def _with_gaps(graph: Graph, unit: Callable[[GraphNode], Any], runs: Counter[tuple[Place, int]]) -> Graph:
    gaps: dict[Any, GraphNode] = {}
    new, of = Graph(notes=list(graph.notes)), {}
    for node in graph.nodes:
        key = unit(node)
        if isinstance(key, GraphNode):
            of[node] = node
            new.nodes.append(node)
            continue
        run, place, t = key
        if run not in gaps:
            gaps[run] = GraphNode("gap", f"… {runs[run]:,} more …", place, params={"first": t}, count=0)
            new.nodes.append(gaps[run])
        gaps[run].count += 1
        gaps[run].params["first"] = min(gaps[run].params["first"], t)
        of[node] = gaps[run]
    edges: dict[Any, GraphEdge] = {}
    for edge in graph.edges:
        source, target = of[edge.source], of[edge.target]
        if source is target:
            continue
        moved = source is not edge.source or target is not edge.target
        which = (source, target, edge.cut) if moved else edge
        if which in edges:
            edges[which].times += edge.times
            edges[which].parts += edge.parts or [edge]
        else:
            output, operand = (0, "") if moved else (edge.output, edge.operand)
            parts = list(edge.parts or [edge])
            edges[which] = replace(edge, source=source, target=target, output=output, operand=operand, parts=parts)
    new.edges = list(edges.values())
    return new


def overview(graph: Graph) -> Graph:
    """Return one node for each kind of operation in each module: what is left to draw where there is too much."""

    def unit(node: GraphNode) -> Hashable:
        return (
            node.kind,
            node.name if node.kind != "constant" else "",
            tuple(p for p in node.place if p.kind == "module"),
        )

    kinds: dict[Hashable, GraphNode] = {}
    of: dict[GraphNode, GraphNode] = {}
    for node in graph.nodes:
        key = unit(node)
        if key not in kinds:
            place = tuple(p for p in node.place if p.kind == "module")
            kinds[key] = replace(
                node, place=place, outputs=[replace(y, values=None, gradient=None) for y in node.outputs]
            )
        else:
            kinds[key].count += node.count
        of[node] = kinds[key]
    edges: dict[Any, GraphEdge] = {}
    for edge in graph.edges:
        which = of[edge.source], of[edge.target]
        if which in edges:
            edges[which].times += edge.times
        elif which[0] is not which[1]:
            edges[which] = GraphEdge(which[0], 0, which[1], "", times=edge.times)
    note = f"{len(graph.nodes):,} nodes are too many to draw: here is each kind of operation in each module, once"
    return Graph(list(kinds.values()), list(edges.values()), [*graph.notes, note])
