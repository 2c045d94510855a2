"""Rolling: a graph that was unrolled in time, folded back into one copy of each step.

Operations stand in a tree of modules, loops and steps, the loops being those that `tr.steps` marked. Steps of a loop
are alike if they hold the same operations in the same order, and these read the same things: of the same step, of a
fixed number of steps before (a delay), or of what lies outside. The first steps may read a state from outside where
later ones read the step before. Steps that are alike are drawn once; those that are not are drawn apart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tinyrnn.viz.graph import Graph, GraphEdge, GraphNode, Place

Key = tuple[Any, ...]
ANYTHING = "anything"


@dataclass(eq=False)
class Part:
    """What happened in one place: operations, and the parts inside, in order. The outermost one has no place."""

    place: Place | None
    items: list[Part | GraphNode] = field(default_factory=list)

    def parts(self) -> Iterator[Part]:
        """Yield the parts directly inside."""
        return (item for item in self.items if isinstance(item, Part))

    def everywhere(self) -> Iterator[Part]:
        """Yield this part and all inside it."""
        frontier = [self]
        while frontier:
            part = frontier.pop()
            yield part
            frontier.extend(part.parts())


def tree(nodes: Iterable[GraphNode]) -> Part:
    """Return nodes in the places where they happened."""
    root = Part(None)
    known: dict[Place, Part] = {}
    for node in nodes:
        part = root
        for place in node.place:
            if place not in known:
                known[place] = Part(place)
                part.items.append(known[place])
            part = known[place]
        part.items.append(node)
    return root


def settled(graph: Graph) -> Graph:
    """Put each tensor that no operation made where it belongs: around all that use it, a parameter outside of loops."""
    used: dict[GraphNode, tuple[Place, ...]] = {}
    user: dict[GraphNode, tuple[str, str]] = {}
    for edge in graph.edges:
        if edge.source.kind != "operation":
            place = edge.target.place
            used[edge.source] = _common(used.get(edge.source, place), place)
            user.setdefault(edge.source, (edge.target.name, edge.operand))
    many: Counter[Any] = Counter()
    for node, place in used.items():
        node.place = _outside_loops(place) if node.kind == "parameter" else place
        many.update((p, node.name, user[node]) for p in place if p.kind == "loop")
    for node in used:
        while any(p.kind == "loop" for p in node.place):  # what a few steps have is of no step: an initial state
            n = max(k for k, p in enumerate(node.place) if p.kind == "loop")
            loop = node.place[n]
            if n + 1 < len(node.place) and 2 * many[loop, node.name, user[node]] > len(loop.steps):
                break
            node.place = node.place[:n]
        if node.kind == "input" and not node.steps:
            node.place = ()
    return graph


def _common(a: tuple[Place, ...], b: tuple[Place, ...]) -> tuple[Place, ...]:
    n = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x is not y), min(len(a), len(b)))
    return a[:n]


def _outside_loops(place: tuple[Place, ...]) -> tuple[Place, ...]:
    n = next((k for k, p in enumerate(place) if p.kind == "loop"), len(place))
    return place[:n]


# ---------------------------------------------------------------- which steps are alike


def roll(graph: Graph) -> Graph:
    """Return a graph with one copy of all steps that are alike; as large for T = 1,000 as for T = 3."""
    return _Rolled(graph).graph


class _Rolled:
    """The work of `roll`.

    Fields:
        step_of: for each node the steps it is in, outermost first: (loop, which step of it).
        alike: a key for each node and part; what has the same key is drawn once. differs: what a step reads that is
            not like others.
    """

    def __init__(self, old: Graph) -> None:
        self.old, self.root = old, tree(node for node in old.nodes if node.kind == "operation")
        self.loops: dict[Place, dict[Place, int]] = defaultdict(dict)
        self.step_of = {node: self._steps_of(node) for node in old.nodes}
        self.steps = {
            part.place: list(part.parts())
            for part in self.root.everywhere()
            if part.place is not None and part.place.kind == "loop"
        }
        self.shapes: dict[Part, Any] = {}
        self.differs: dict[Part, Any] = {}
        self.alike: dict[GraphNode | Part, Key] = {}
        self._assign([self.root], ())
        while self._split():
            self.alike.clear()
            self._assign([self.root], ())
        self._gather_leaves()
        self.graph = self._built()

    def _steps_of(self, node: GraphNode) -> dict[Place, int]:
        """Return the loops around a node, each with the number of the step, counted in the order they were taken."""
        return {
            loop: self.loops[loop].setdefault(step, len(self.loops[loop]))
            for loop, step in zip(node.place, node.place[1:], strict=False)
            if loop.kind == "loop"
        }

    def _shape(self, item: Part | GraphNode) -> Any:
        """Return what is inside an item, whatever it reads, so that what looks alike is equal."""
        if isinstance(item, GraphNode):
            params = tuple((name, repr(x)) for name, x in item.params.items() if name in ("axis", "axes", "dtype"))
            return item.name, params, len(item.outputs) if item.name != "unstack" else 0
        if item not in self.shapes:
            place = item.place
            inside = [self._shape(x) for x in item.items]
            if place is not None and place.kind == "loop":
                inside = list(dict.fromkeys(inside))  # however many steps
            name = (place.kind, place.name, place.title) if place is not None else ()
            self.shapes[item] = (name, tuple(inside))
        return self.shapes[item]

    def _assign(self, parts: list[Part], key: Key) -> None:
        """Give all that is inside of parts that look alike the same keys, item by item."""
        for part in parts:
            self.alike[part] = key
        for n, items in enumerate(zip(*(part.items for part in parts), strict=True)):
            if isinstance(items[0], GraphNode):
                for item in items:
                    self.alike[item] = (*key, n)
            elif items[0].place is not None and items[0].place.kind == "loop":
                for item in items:
                    self.alike[item] = (*key, n)
                groups: dict[Any, list[Part]] = {}
                for loop in items:
                    for step in loop.parts():
                        groups.setdefault((self._shape(step), self.differs.get(step)), []).append(step)
                for k, group in enumerate(groups.values()):
                    self._assign(group, (*key, n, f"steps {k}"))
            else:
                self._assign(list(items), (*key, n))

    def _split(self) -> bool:
        """See whether steps that look alike read alike; mark those that do not, and tell whether there are any."""
        reads: dict[tuple[Place, int], dict[Key, set[Any]]] = defaultdict(lambda: defaultdict(set))
        for edge in self.old.edges:
            for loop, n in self.step_of[edge.target].items():
                before = self.step_of[edge.source].get(loop)
                here = (self.alike.get(edge.target, ()), edge.operand)
                reads[loop, n][here].add((None if before is None else n - before, self._origin(edge, loop, n, before)))
        groups: dict[Key, list[tuple[Part, dict[Key, set[Any]], int, int]]] = defaultdict(list)
        for part in self.root.everywhere():
            if part.place is not None and part.place.kind == "loop":
                for n, step in enumerate(part.parts()):
                    groups[self.alike[step]].append((step, reads[part.place, n], n, len(part.items)))
        found = False
        for group in groups.values():
            usual = _usual([read for _, read, _, _ in group])
            for step, read, n, T in group:
                if not _as_usual(read, usual, n, T):
                    self.differs[step] = _frozen(read)
                    found = True
        return found

    def _origin(self, edge: GraphEdge, loop: Place, n: int, before: int | None) -> Any:
        """Say what an operand is, so that it is the same for steps that read alike."""
        source = edge.source
        if source.kind != "operation":
            return "a leaf of its own" if before is not None else id(source)
        if before is not None and before != n and self._looks(loop, before) != self._looks(loop, n):
            return ANYTHING  # of a step that is not like this one: its operations stand at other places
        return self._place_in(loop, source), edge.output if source.name != "unstack" else "its own"

    def _looks(self, loop: Place, n: int) -> Any:
        """Return what step n of a loop looks like."""
        return self._shape(self.steps[loop][n])

    def _place_in(self, loop: Place, node: GraphNode) -> Key:
        """Return the key of a node, or for one in the loop what of it stands behind the step's."""
        key = self.alike[node]
        if loop in self.step_of[node]:
            return key[len(self.alike[self.steps[loop][self.step_of[node][loop]]]) :]
        return key

    def _gather_leaves(self) -> None:
        """Give inputs of which each step has its own a key in common."""
        for edge in self.old.edges:
            if edge.source.kind != "operation" and self.step_of[edge.source]:
                self.alike.setdefault(edge.source, ("leaf", self.alike[edge.target], edge.operand))

    # ------------------------------------------------ the new graph

    def _built(self) -> Graph:
        new, places = Graph(notes=list(self.old.notes)), self._places()
        made: dict[Any, GraphNode] = {}
        for node in self.old.nodes:
            key = self.alike.get(node, id(node))
            if key in made:
                made[key].count += 1
                _merge_outputs(made[key], node)
                if "index" in node.params:
                    made[key].params["index"] = _varying(made[key].params.get("index"), node.params["index"])
            else:
                place = tuple(places.get(p, p) for p in node.place)
                outputs = [replace(y, parts=[y]) for y in node.outputs]
                made[key] = replace(node, place=place, outputs=outputs, params=dict(node.params))
                new.nodes.append(made[key])
        edges: dict[Any, GraphEdge] = {}
        for edge in self.old.edges:
            source, target = (made[self.alike.get(node, id(node))] for node in (edge.source, edge.target))
            output = -1 if edge.source.name == "unstack" else edge.output
            which = (source, output, target, edge.operand, self._delay(edge), edge.cut)
            if which in edges:
                edges[which].times += 1
                edges[which].parts.append(edge)
                edges[which].gradient = larger(edges[which].gradient, edge.gradient)
            else:
                edges[which] = replace(
                    edge,
                    source=source,
                    output=max(output, 0),
                    target=target,
                    delay=self._delay(edge),
                    times=1,
                    parts=[edge],
                )
                edges[which].label = edge.label or self._when(edge)
        new.edges = list(edges.values())
        initial = {
            (edge.target, edge.operand): edge.source.name
            for edge in new.edges
            if edge.source.kind in ("input", "constant") and edge.source.name != edge.source.kind
        }
        for edge in new.edges:
            if edge.delay:
                edge.label = initial.get((edge.target, edge.operand), "")
            elif edge.times > 1 and edge.label.startswith("t = "):
                edge.label = ""
        return new

    def _delay(self, edge: GraphEdge) -> int:
        """Return how many steps lie between, of the innermost loop that both ends are in."""
        before = self.step_of[edge.source]
        shared = [n - before[loop] for loop, n in self.step_of[edge.target].items() if loop in before]
        return shared[-1] if shared else 0

    def _when(self, edge: GraphEdge) -> str:
        """Return at which step something enters a loop or leaves it, for an edge that is there once."""
        inside = self.step_of[edge.source].keys() ^ self.step_of[edge.target].keys()
        ends = [end for end in (edge.source, edge.target) for loop in self.step_of[end] if loop in inside]
        if not ends or not ends[0].steps:
            return ""
        loop = next(loop for loop in self.step_of[ends[0]] if loop in inside)
        return f"t = {ends[0].steps[0]}" if len(self.loops[loop]) > 1 else ""

    def _places(self) -> dict[Place, Place]:
        """Return the place that each old one becomes a part of, with all its steps."""
        groups: dict[Key, list[Place]] = defaultdict(list)
        for part in self.root.everywhere():
            if part.place is not None:
                groups[self.alike[part]].append(part.place)
        new: dict[Place, Place] = {}
        for group in groups.values():
            steps: Iterable[int] = ()
            if group[0].kind == "loop":
                steps = (t for loop in group for t in loop.steps)
            elif group[0].kind == "step":
                steps = (step.steps[0] for step in group)
            place = replace(group[0], steps=sorted(set(steps)))
            new |= dict.fromkeys(group, place)
        return new


def _usual(reads: list[dict[Key, set[Any]]]) -> dict[Key, set[Any]]:
    """Return what most steps read; of two that are as frequent, what the later one reads."""
    frequent = Counter(_frozen(read) for read in reversed(reads))
    most = frequent.most_common(1)[0][0]
    return next(read for read in reads if _frozen(read) == most)


def _frozen(read: dict[Key, set[Any]]) -> Any:
    return frozenset((key, frozenset(origins)) for key, origins in read.items())


def _as_usual(read: dict[Key, set[Any]], usual: dict[Key, set[Any]], n: int, T: int) -> bool:
    """Tell whether step n of T reads what most do, but for what would be before the first or after the last."""
    if not read.keys() <= usual.keys():
        return False
    for key, origins in usual.items():
        outside = any([delay is not None and not 0 <= n - delay < T for delay, _ in origins])
        given = read.get(key, set())
        if not outside and not _alike(given, origins):
            return False
    return True


def _alike(given: set[Any], usual: set[Any]) -> bool:
    """Tell whether two sets of (delay, origin) are equal, where an origin may be anything."""
    free = {delay for delay, origin in given | usual if origin == ANYTHING}
    return {x if x[0] not in free else x[0] for x in given} == {x if x[0] not in free else x[0] for x in usual}


def _merge_outputs(node: GraphNode, other: GraphNode) -> None:
    """Let one node stand for another too: an axis of no fixed length is -1 long, and values belong to neither."""
    for y, also in zip(node.outputs, other.outputs, strict=False):
        y.values = y.gradient = None
        y.parts.append(also)
        if y.shape != also.shape and len(y.shape) == len(also.shape):
            y.shape = tuple(n if n == m else -1 for n, m in zip(y.shape, also.shape, strict=True))


def _varying(index: Any, other: Any) -> Any:
    """Return an index with "t" where it is not the same at each step."""
    if isinstance(index, tuple) and isinstance(other, tuple) and len(index) == len(other):
        return tuple(_varying(a, b) for a, b in zip(index, other, strict=True))
    if isinstance(index, slice) and isinstance(other, slice) and index.start != other.start:
        counted = isinstance(index.start, int) and isinstance(index.stop, int)
        return f"t:t+{index.stop - index.start}" if counted else "t:…"
    if isinstance(index, slice) and isinstance(other, slice) and index.stop != other.stop:
        return f"{'' if index.start is None else index.start}:…"
    return "t" if isinstance(index, int) and isinstance(other, int) and index != other else index


def larger(a: float | None, b: float | None) -> float | None:
    """Return the larger of two numbers that may be unknown."""
    return max((x for x in (a, b) if x is not None), default=None)
