"""How edges run in an unrolled picture: upwards where there is room, and around the nodes that stand in between.

An edge that led through a node would look as if it ended there and another began. So an edge is first drawn as directly
as it can be; if that meets a node, detours are tried beside each that was met, and the shortest of those that meet the
fewest is taken.

Units: points, 72 to an inch; y points up.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

Point = tuple[float, float]
Curve = list[Point]  # Bézier curves in a row: the end of each is the beginning of the next one
GAP, ROW = 14.0, 22.0  # between neighbours, between rows
ROUNDS = 4  # of detours: what is met in one is known in the next
NEAR = 6.0  # between two places on a curve where it is looked whether they are inside of a node
CELL = 64.0  # of the grid in which nodes are looked up


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

    def holds(self, x: float, y: float) -> bool:
        """Tell whether a point is inside."""
        return self.left < x < self.right and self.bottom < y < self.top


class Crowd:
    """All nodes of a picture, in a grid, so that a curve looks only at those nearby."""

    def __init__(self, nodes: Iterable[Rectangle]) -> None:
        self.grid: dict[tuple[int, int], list[Rectangle]] = defaultdict(list)
        for r in nodes:
            for i in range(_cell(r.left), _cell(r.right) + 1):
                for j in range(_cell(r.bottom), _cell(r.top) + 1):
                    self.grid[i, j].append(r)

    def met(self, curve: Curve, *ends: Rectangle) -> list[Rectangle]:
        """Return the nodes that a curve leads through, but for those at its ends."""
        found: dict[int, Rectangle] = {}
        for x, y in _places(curve):
            for r in self.grid.get((_cell(x), _cell(y)), ()):
                if r.holds(x, y) and not any(r is end for end in ends):
                    found[id(r)] = r
        return list(found.values())


def _cell(x: float) -> int:
    return math.floor(x / CELL)


def _places(curve: Curve) -> Iterator[Point]:
    """Yield points along a curve."""
    for n in range(0, len(curve) - 1, 3):
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = curve[n : n + 4]
        parts = math.ceil(_length(curve[n : n + 4]) / NEAR) or 1
        for k in range(parts + 1):
            t = k / parts
            a, b, c, d = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
            yield a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3


def _length(curve: Curve) -> float:
    """Return how long a curve is, nearly."""
    return sum([math.dist(p, q) for p, q in pairwise(curve)])


def route(a: Rectangle, b: Rectangle, direct: Curve, crowd: Crowd) -> Curve:
    """Return a curve from one node to another that leads through no third one, if one is found.

    Args: direct, what is taken where nothing is in the way; crowd, all nodes.
    """
    best, met = direct, crowd.met(direct, a, b)
    known, new = list[Rectangle](), met
    for _ in range(ROUNDS):
        known, new = known + new, []
        for curve in sorted(_detours(a, b, known), key=lambda curve: _length(curve) + _awkward(curve, a)):
            if not met:
                return best
            blocked = crowd.met(curve, a, b)
            new += [r for r in blocked if not any(r is other for other in known + new)]
            if len(blocked) < len(met):
                best, met = curve, blocked
    return best


def _detours(a: Rectangle, b: Rectangle, known: list[Rectangle]) -> Iterator[Curve]:
    """Yield ways from a to b beside each of the nodes that are known to be in the way."""
    up = b.bottom > a.top
    if up or b.top < a.bottom:
        start, end = (a.top, b.bottom) if up else (a.bottom, b.top)
        turn = min(ROW, abs(end - start) / 3) * (1 if up else -1)
        levels = sorted([y for r in known for y in (r.bottom, r.top)], reverse=not up)
        for x in [x for r in known for x in (r.right + GAP / 2, r.left - GAP / 2)]:
            for low in {start + turn, *levels[:1]}:
                for high in {end - turn, *levels[-1:]}:
                    way = _through((_touch(a, x), start), (x, low), (x, high), (_touch(b, x), end))
                    yield way
                    if not up:
                        way = (_from_side(a, x, low) or way[:4]) + way[4:]
                        yield way
                        yield way[:-4] + (_from_side(b, x, high)[::-1] or way[-4:])
    for r in [a, b, *known]:  # over it and under it, from side to side
        for y, leave, enter in ((r.top + GAP, a.top, b.top), (r.bottom - GAP, a.bottom, b.bottom)):
            side = a.right if b.x > a.x else a.left
            yield [(side, a.y), ((side + b.x) / 2, a.y), (b.x, y), (b.x, enter)]
            yield [(a.x, leave), (a.x, y), (b.x, y), (b.x, enter)]


def _awkward(curve: Curve, a: Rectangle) -> float:
    """Return how many points longer a way may be than this one: it should not leave a node where others come in."""
    return 10 * ROW if curve[0][1] == a.bottom and a.width < 10 * ROW else 0.0


def _touch(node: Rectangle, x: float) -> float:
    """Return where a way that comes along x touches a node: as near as can be, not at its corners."""
    inside = min(GAP, node.width / 2)
    return min(max(x, node.left + inside), node.right - inside)


def _from_side(node: Rectangle, x: float, y: float) -> Curve:
    """Return a curve from the side of a node to (x, y), where it goes straight up or down; none if x is not beside."""
    if node.left <= x <= node.right:
        return []
    return [(node.right if x > node.x else node.left, node.y), (x, node.y), (x, node.y), (x, y)]


def _through(*points: Point) -> Curve:
    """Return a curve through points that leaves each one straight up or down."""
    curve = [points[0]]
    for (x0, y0), (x1, y1) in pairwise(points):
        half = (y1 - y0) / 2
        curve += [(x0, y0 + half), (x1, y1 - half), (x1, y1)]
    return curve


# ---------------------------------------------------------------- where nothing is in the way


def direct(a: Rectangle, b: Rectangle, aside: float, near: bool, shared: bool) -> Curve:
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
