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
from tinyrnn.viz.route import GAP, ROW, Crowd, Curve, Rectangle, direct, route
from tinyrnn.viz.words import box_title

Item = Part | GraphNode
MARGIN, TITLE = 10.0, 16.0  # in a box, above it for its name


@dataclass
class Layout:
    """Rectangles for nodes and for the boxes around them, and a curve for each edge."""

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
    layout, crowd = Layout(block.nodes, block.boxes), Crowd(block.nodes.values())
    for edge in graph.edges:
        pair = edge.source, edge.target
        aside = 8.0 * (beside[pair] - (several[pair] - 1) / 2)
        beside[pair] += 1
        ends = layout.nodes[edge.source], layout.nodes[edge.target]
        near, shared = edge.source.place == edge.target.place, edge.source.kind == "parameter"
        curve = direct(*ends, aside, near, shared)
        layout.curves[edge] = curve if shared else route(*ends, curve, crowd)
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
            above = [item for item in short if long and not self.reads[item]]  # what reads it is in the next row
            below = [item for item in short if item not in above]
            lines += [below] if below else []
            lines += [[item] for item in long]
            lines += [above] if above else []
            lines += [[item] for item in bars]
        sides = [self._side([x for x, user in aside.items() if user in line], line) for line in lines]
        left = max((block.width + GAP for block, at_end in sides if block.nodes and not at_end), default=0.0)
        right = max((block.width + GAP for block, at_end in sides if block.nodes and at_end), default=0.0)
        blocks = [[self._arrange(item) for item in line] for line in lines]
        width = max([wide - left - right, *(_width(row) for row in blocks)], default=0.0)
        if self.has_loop[part] or wide > 0:
            blocks = [self._widened(line, row, width) for line, row in zip(lines, blocks, strict=True)]
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

    def _widened(self, line: list[Item], row: list[_Block], width: float) -> list[_Block]:
        """Return the blocks of a row with sequences as wide as there is room for."""
        long = [item for item in line if len(line) == 1 or self._has_sequence(item)]
        more = (width - _width(row)) / (len(long) or 1)
        return [
            self._arrange(item, block.width + more) if item in long and more > 0 else block
            for item, block in zip(line, row, strict=True)
        ]

    def _has_sequence(self, item: Item) -> bool:
        """Tell whether an item is a sequence, or holds one or a loop."""
        if isinstance(item, GraphNode):
            return _is_sequence(item, self.lengths)
        return self.has_loop[item] or any(self._has_sequence(x) for x in item.items)

    def _aside(self, part: Part) -> dict[Item, Item]:
        """Return what stands at the side of another item, and which one that is."""
        kinds = ("parameter", "constant", "input")
        leaves = [x for x in part.items if isinstance(x, GraphNode) and x.kind in kinds and not self.reads[x]]
        if part.place is None:  # there inputs stand below, but for a state that one step starts from
            when = {x: {tuple(node.steps) for node, read in self.sources.items() if x in read} for x in leaves}
            leaves = [x for x in leaves if x.kind != "input" or (len(when[x]) == 1 and when[x] != {()})]
        users = {x: [item for item in part.items if x in self.reads[item]] for x in leaves}
        return {x: found[0] for x, found in users.items() if found and self._has_sequence(found[0])}

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
        """Return where in its row an item would stand best: above the middle of what it reads, next to another step."""
        below = [at[x] for x in self.reads[item] if x in at]
        if below or isinstance(item, Part):
            return fmean(below) if below else last
        others = [x.steps for x in self.sources[item] if x.kind != "parameter"]  # other steps, or a state before them
        return 0.0 if others and max(others) < item.steps else last

    def _shift(self, line: list[Item], whole: _Block, left: float, free: float, width: float) -> float:
        """Return how far to the right a line stands, of the room that is free: above what it reads, if anything."""
        read = [source for x in line if isinstance(x, GraphNode) for source in self.sources[x] if source in whole.nodes]
        if not read:
            return free / 2
        middle = fmean(whole.nodes[source].x for source in read)
        return min(max(middle - left - (width - free) / 2, 0.0), free)

    def _row_of(self, items: list[Item]) -> dict[Item, int]:
        """Return the row of each item: above the highest that it reads; what reads nothing long just below its use.

        What a backward pass hands to the steps of a loop comes from above, where the loss is.
        """
        rows: dict[Item, int] = {}
        users: dict[Item, list[Item]] = defaultdict(list)
        order = _sorted(items, self.reads)
        for item in order:
            rows[item] = max((rows[x] + 1 for x in self.reads[item] if x in rows), default=0)
            for x in self.reads[item]:
                users[x].append(item)
        late: dict[GraphNode, None] = {}
        for item in order:
            if isinstance(item, GraphNode) and users[item] and self.reads[item] & rows.keys() <= late.keys():
                late[item] = None
        for item in reversed(late):
            rows[item] = min(rows[user] for user in users[item]) - 1
        for item in late:
            handed = item.back and self.sources[item] and not self.reads[item]
            if handed and any(isinstance(user, Part) and self.has_loop[user] for user in users[item]):
                rows[item] = max(rows.values()) + 1
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
