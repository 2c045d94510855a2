"""Where things stand in an unrolled picture: time goes across, and what is computed of something stands above it.

Graphviz's own layout takes minutes for a network of a hundred steps, and knows nothing of time. Here each part (a
module, a step) is a block of rows: an item stands in a row above those of all items that it reads; a loop is a row of
blocks, one for each step, in order of time. An operation on the whole sequence is a bar, as wide as the sequence.

Units: points, 72 to an inch; y points up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean

from tinyrnn.viz.graph import Graph, GraphEdge, GraphNode, Place
from tinyrnn.viz.roll import Part, tree
from tinyrnn.viz.words import box_title

Item = Part | GraphNode
Curve = list[tuple[float, float]]
GAP, ROW, MARGIN, TITLE = 14.0, 22.0, 10.0, 16.0  # between neighbours, between rows, in a box, above it for its name


@dataclass
class Rectangle:
    """A rectangle by its centre (x, y), width and height."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> float:
        """Its left edge."""
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y - self.height / 2

    @property
    def top(self) -> float:
        """Its upper edge."""
        return self.y + self.height / 2

    def turned(self) -> Rectangle:
        """Return it with the axes exchanged, time going down."""
        return Rectangle(self.y, -self.x, self.height, self.width)


@dataclass
class Layout:
    """Rectangles for nodes and for the boxes around them, and the four points of a Bézier curve for each edge."""

    nodes: dict[GraphNode, Rectangle] = field(default_factory=dict)
    boxes: dict[Place, Rectangle] = field(default_factory=dict)
    curves: dict[GraphEdge, Curve] = field(default_factory=dict)


@dataclass
class _Block:
    """Rectangles relative to the lower left corner of a block."""

    width: float = 0.0
    height: float = 0.0
    nodes: dict[GraphNode, Rectangle] = field(default_factory=dict)
    boxes: dict[Place, Rectangle] = field(default_factory=dict)

    def put(self, other: _Block, x: float, y: float) -> None:
        """Place another block with its lower left corner at (x, y)."""
        for mine, its in ((self.nodes, other.nodes), (self.boxes, other.boxes)):
            for key, r in its.items():
                mine[key] = Rectangle(r.x + x, r.y + y, r.width, r.height)  # type: ignore[index]  # keys of a kind


def unrolled(graph: Graph, size: Callable[[GraphNode], tuple[float, float]], direction: str = "LR") -> Layout:
    """Return where everything stands.

    Args: size, the width and height of a node's text; direction, "LR" for time going across, "TB" for down.
    """
    turned = direction == "TB"
    beside: Counter[tuple[GraphNode, GraphNode]] = Counter()
    several = Counter((edge.source, edge.target) for edge in graph.edges)

    def wide(node: GraphNode) -> tuple[float, float]:
        width, height = size(node)
        return (height, width) if turned else (width, height)

    block = _Arranged(graph, wide).block
    layout = Layout(block.nodes, block.boxes)
    for edge in graph.edges:
        pair = edge.source, edge.target
        aside = 8.0 * (beside[pair] - (several[pair] - 1) / 2)
        beside[pair] += 1
        ends = layout.nodes[edge.source], layout.nodes[edge.target]
        near, shared = edge.source.place == edge.target.place, edge.source.kind == "parameter"
        layout.curves[edge] = _curve(*ends, aside, near, shared)
    if turned:
        layout.nodes = {node: r.turned() for node, r in layout.nodes.items()}
        layout.boxes = {place: r.turned() for place, r in layout.boxes.items()}
        layout.curves = {edge: [(y, -x) for x, y in points] for edge, points in layout.curves.items()}
    return layout


class _Arranged:
    """The work of `unrolled`."""

    def __init__(self, graph: Graph, size: Callable[[GraphNode], tuple[float, float]]) -> None:
        self.size, self.root = size, tree(graph.nodes)
        self.lengths = {len(p.steps) for node in graph.nodes for p in node.place if p.kind == "loop"}
        self.has_loop = {
            part: any(p.place is not None and p.place.kind == "loop" for p in part.everywhere())
            for part in self.root.everywhere()
        }
        self.path: dict[Item, tuple[Item, ...]] = {}
        self._note_paths(self.root, ())
        self.reads: dict[Item, set[Item]] = defaultdict(
            set
        )  # of the items beside one, those that something in it reads
        for edge in graph.edges:
            for a, b in zip(self.path[edge.source], self.path[edge.target], strict=False):
                if a is not b:
                    self.reads[b].add(a)
                    break
        self.sources: dict[GraphNode, list[GraphNode]] = defaultdict(list)
        for edge in graph.edges:
            self.sources[edge.target].append(edge.source)
        self.columns: dict[tuple[float, ...], float] = defaultdict(float)
        self._arrange(self.root)  # once to learn how wide the steps are, of all loops that go over the same steps
        self.block = self._arrange(self.root)

    def _note_paths(self, part: Part, path: tuple[Item, ...]) -> None:
        for item in part.items:
            self.path[item] = (*path, item)
            if isinstance(item, Part):
                self._note_paths(item, (*path, item))

    def _arrange(self, item: Item, wide: float = 0.0) -> _Block:
        """Return the block of an item, a part with a box around it; a sequence as wide as it should be."""
        if isinstance(item, GraphNode):
            width, height = self.size(item)
            width = max(width, wide) if _is_sequence(item, self.lengths) else width
            return _Block(width, height, {item: Rectangle(width / 2, height / 2, width, height)})
        place = item.place
        if place is None:
            return self._in_rows(item, 0.0)
        block = self._in_time(item) if place.kind == "loop" else self._in_rows(item, wide - 2 * MARGIN)
        if place.kind == "step" and len(block.nodes) == 1:
            return block
        width = max(block.width, 5.2 * len(box_title(place)))
        boxed = _Block(width + 2 * MARGIN, block.height + 2 * MARGIN + TITLE)
        boxed.put(block, MARGIN + (width - block.width) / 2, MARGIN)
        boxed.boxes[place] = Rectangle(boxed.width / 2, boxed.height / 2, boxed.width, boxed.height)
        return boxed

    def _in_time(self, loop: Part) -> _Block:
        """Return the steps of a loop side by side, in order of time."""
        distinct = len({_time(item) for item in loop.items}) == len(loop.items)
        items = sorted(loop.items, key=_time) if distinct else loop.items
        blocks = [self._arrange(item) for item in items]
        key = tuple(_time(item) for item in items)
        self.columns[key] = width = max([self.columns[key], *(block.width for block in blocks)])
        whole = _Block(len(blocks) * (width + GAP) - GAP, max(block.height for block in blocks))
        for n, (item, block) in enumerate(zip(items, blocks, strict=True)):
            y = (whole.height - block.height) / 2 if isinstance(item, GraphNode) else 0.0
            whole.put(block, n * (width + GAP) + (width - block.width) / 2, y)
        return whole

    def _in_rows(self, part: Part, wide: float) -> _Block:
        """Return the items of a part in rows, each above what it reads; a sequence is as wide as the widest loop.

        What no operation made stands at the side of the first loop or sequence that reads it, the state that a loop
        starts from at the end where it starts.
        """
        aside = self._aside(part) if self.has_loop[part] or wide > 0 else {}
        rows: dict[int, list[Item]] = defaultdict(list)
        for item, number in self._row_of([item for item in part.items if item not in aside]).items():
            rows[number].append(item)
        lines: list[list[Item]] = []
        for _, items in sorted(rows.items()):
            long = [item for item in items if isinstance(item, Part) and self.has_loop[item]]
            results = [item for item in items if isinstance(item, GraphNode) and item.kind == "output"]
            bars = [item for item in results if _is_sequence(item, self.lengths) and self.has_loop[part]]
            short = [item for item in items if item not in long and item not in bars]
            lines += [short] if short else []
            lines += [[item] for item in long + bars]
        sides = [self._side([x for x, user in aside.items() if user in line], line) for line in lines]
        left = max((block.width + GAP for block, at_end in sides if block.nodes and not at_end), default=0.0)
        right = max((block.width + GAP for block, at_end in sides if block.nodes and at_end), default=0.0)
        blocks = [[self._arrange(item) for item in line] for line in lines]
        width = max([wide - left - right, *(_width(row) for row in blocks)], default=0.0)
        if self.has_loop[part] or wide > 0:
            blocks = [
                [self._arrange(line[0], width)] if len(line) == 1 and row[0].width < width else row
                for line, row in zip(lines, blocks, strict=True)
            ]
        whole, y, at = _Block(left + width + right), 0.0, dict[Item, float]()
        for line, row, (side, at_end) in zip(lines, blocks, sides, strict=True):
            pairs = sorted(zip(line, row, strict=True), key=lambda pair: self._wish(pair[0], at, whole.width))
            height = max([side.height, *(block.height for block in row)])
            free = width - _width(row)
            x = left + (self._shift(line, whole, left, free, width) if self.has_loop[part] else free / 2)
            for item, block in pairs:
                whole.put(block, x, y + (height - block.height) / 2)
                at[item] = x + block.width / 2
                x += block.width + GAP
            whole.put(side, left + width + GAP if at_end else left - GAP - side.width, y)
            y += height + ROW
        whole.height = max(y - ROW, 0.0)
        return whole

    def _aside(self, part: Part) -> dict[Item, Item]:
        """Return what stands at the side of another item, and which one that is."""
        kinds = ("parameter", "constant") if part.place is None else ("parameter", "constant", "input")
        leaves = [x for x in part.items if isinstance(x, GraphNode) and x.kind in kinds and not self.reads[x]]
        users = {x: [item for item in part.items if x in self.reads[item]] for x in leaves}
        return {x: found[0] for x, found in users.items() if found}

    def _side(self, leaves: list[Item], line: list[Item]) -> tuple[_Block, bool]:
        """Return what stands at the side of a line, one above the other, and whether that is at its end."""
        block, ends = _Block(), [_runs_back(item) for item in line]
        for single in map(self._arrange, leaves):
            block.width = max(block.width, single.width)
        for single in map(self._arrange, leaves):
            block.put(single, (block.width - single.width) / 2, block.height + (GAP / 2 if block.nodes else 0.0))
            block.height += single.height + (GAP / 2 if len(block.nodes) > 1 else 0.0)
        return block, any(ends)

    def _wish(self, item: Item, at: dict[Item, float], last: float) -> float:
        """Return where in its row an item would stand best: above the middle of what it reads."""
        below = [at[x] for x in self.reads[item] if x in at]
        return sum(below) / len(below) if below else last

    def _shift(self, line: list[Item], whole: _Block, left: float, free: float, width: float) -> float:
        """Return how far to the right a line stands, of the room that is free: above what it reads, if anything."""
        read = [source for x in line if isinstance(x, GraphNode) for source in self.sources[x] if source in whole.nodes]
        if not read:
            return free / 2
        middle = fmean(whole.nodes[source].x for source in read)
        return min(max(middle - left - (width - free) / 2, 0.0), free)

    def _row_of(self, items: list[Item]) -> dict[Item, int]:
        """Return the row of each item: above the highest that it reads; what reads nothing just below its first use."""
        rows: dict[Item, int] = {}
        users: dict[Item, list[int]] = defaultdict(list)
        for item in _sorted(items, self.reads):
            rows[item] = max((rows[x] + 1 for x in self.reads[item] if x in rows), default=0)
            for x in self.reads[item]:
                users[x].append(rows[item])
        for item in items:
            if not self.reads[item] and users[item] and isinstance(item, GraphNode):
                rows[item] = min(users[item]) - 1
        return rows


def _width(blocks: list[_Block]) -> float:
    """Return the width of blocks side by side."""
    return sum([block.width + GAP for block in blocks]) - GAP


def _runs_back(item: Item) -> bool:
    """Tell whether an item is a loop that begins with the last step."""
    steps = item.place.steps if isinstance(item, Part) and item.place is not None and item.place.kind == "loop" else []
    return len(steps) > 1 and steps[0] > steps[-1]


def _sorted(items: list[Item], reads: dict[Item, set[Item]]) -> list[Item]:
    """Return items so that each comes after what it reads; where they read each other, in the order given."""
    waiting, done, found = list(items), set[Item](), list[Item]()
    while waiting:
        ready = [item for item in waiting if not any(x in reads[item] for x in waiting)] or waiting[:1]
        found += ready
        done |= set(ready)
        waiting = [item for item in waiting if item not in done]
    return found


def _time(item: Item) -> float:
    """Return the step that a part of a loop is, or that a gap begins with."""
    if isinstance(item, GraphNode):
        return float(item.params.get("first", 0))
    return item.place.steps[0] if item.place is not None and item.place.steps else 0


def _is_sequence(node: GraphNode, lengths: set[int]) -> bool:
    """Tell whether a node stands for values at every step: it is drawn as a bar below or above all of them."""
    if node.kind in ("parameter", "constant"):
        return False
    return node.name == "unstack" or any(len(y.shape) > 1 and y.shape[0] in lengths for y in node.outputs)


def _curve(a: Rectangle, b: Rectangle, aside: float, near: bool, shared: bool) -> Curve:
    """Return a Bézier curve from one rectangle to another: upwards where there is room, else from side to side.

    Args: aside, how far to the side, next to other curves between the same two; near, whether both are in one place;
        shared, whether it comes from a parameter that many steps read, and goes along below them.
    """
    if b.bottom > a.top:
        (x0, x1), d = _meet(a, b, aside), b.bottom - a.top
        if near and d > 2 * ROW and abs(x1 - x0) > b.width:  # past what stands in between, and in at the side
            x1 = b.right if x0 > x1 else b.left
            return [(x0, a.top), (x0, a.top + 0.8 * d), (x0, b.y), (x1, b.y)]
        if near and d > 2 * ROW:  # around it
            side = max(a.right, b.right) + 3 * GAP
            return [(a.right, a.y), (side, a.y), (side, b.y), (b.right, b.y)]
        return [(x0, a.top), (x0, a.top + 0.5 * d), (x1, b.bottom - 0.4 * d), (x1, b.bottom)]
    if b.left > a.right or b.right < a.left:
        forward = b.left > a.right
        x0, x1 = (a.right, b.left) if forward else (a.left, b.right)
        if shared and b.width < 2 * a.width:
            low = min(a.y, b.bottom - ROW)
            return [(x0, a.y), (x0 + ROW, low), (b.x - ROW, low), (b.x - ROW / 2, b.bottom)]
        bend = (x1 - x0) / 2
        return [(x0, a.y + aside), (x0 + bend, a.y + aside), (x1 - bend, b.y + aside), (x1, b.y + aside)]
    (x0, x1), d = _meet(a, b, aside), a.bottom - b.top
    return [(x0, a.bottom), (x0, a.bottom - 0.5 * d), (x1, b.top + 0.5 * d), (x1, b.top)]


def _meet(a: Rectangle, b: Rectangle, aside: float) -> tuple[float, float]:
    """Return where a curve leaves one and enters the other: of a bar, right where the other one stands."""
    if a.width > 2 * b.width:
        return min(max(b.x, a.left), a.right) + aside, b.x + aside
    if b.width > 2 * a.width:
        return a.x + aside, min(max(a.x, b.left), b.right) + aside
    return a.x + aside, b.x + aside
