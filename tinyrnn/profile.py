"""Where time and memory go: by operation, by layer, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, NamedTuple, Self

from tinyrnn import backends
from tinyrnn.autograd import Node, Scope, changed_mode, current_mode
from tinyrnn.backends import Backend
from tinyrnn.primitives import Outer, Primitive, Slice, Spread
from tinyrnn.tensor import Tensor


def profile(top: int = 15) -> Report:
    """Measure what the operations inside a `with` block cost, for tables that can be printed.

        with tr.profile() as report:
            loss = tr.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        print(report)

    Measure a later step rather than the first, which also warms up memory and threads.

    - "forward" is every operation as it is called, an optimiser's too; "backward" is an operation's rules; "sum" is
      adding up what flowed into a tensor, under the operation that made the tensor. A weight was made by none: its
      gradient, out of all the time steps, is added up under "(weights)", as is that of any other leaf.
    - A layer is the innermost module, under its path, with all its time steps; "(no module)" is what ran in none.
    - MB (10⁶ bytes) count the new arrays that an operation returned; a view of an old one costs nothing.
    - What an operation computes inside is its own, also where the backward pass is recorded (create_graph=True).
    - The rest of the block's time is a line of its own: Python, the graph, and work on arrays that is no operation.
      What measuring takes is left out, but for a few microseconds of each call, which are in that line.
    - A device that computes on its own, such as a GPU, is waited for after every operation: that alone takes time.

    The block may stand inside that of another profile, which then counts it too, and a report may be entered again
    (`with report:`) to add to what it has. Both are local to the thread or task. After an error the report holds what
    was measured before.

    Args: top, the most lines of a table; what is left is added up in one more.
    Returns: a `Report`.
    Raises: ValueError for a top that is not an int of 1 or more.

    >>> import tinyrnn as tr
    >>> with tr.profile() as report:
    ...     y = tr.ones(2, 3) @ tr.ones(3, 4)
    >>> [(row.op, row.calls, row.bytes) for row in report.by_operation()]
    [('matmul', 1, 32)]
    """
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise ValueError(f"profile: top is {top!r}; expected an int of 1 or more, the most lines of a table")
    return Report(top)


class Row(NamedTuple):
    """What an operation cost in one direction and layer: the seconds and the bytes are those of all its calls."""

    direction: str
    op: str
    layer: str
    calls: int
    seconds: float
    bytes: int


DIRECTIONS = {"forward": "forward", "backward": "backward", "sum": "sum (gradients that meet)"}
WEIGHTS, NO_MODULE = "(weights)", "(no module)"
Names = tuple[str, str, str]
Group = tuple[tuple[str, ...], list[Row]]


class Report:
    """What a profile has measured, as tables for `print` and as numbers for programs; `profile` makes one."""

    def __init__(self, top: int) -> None:
        self.top = top
        self._costs: dict[Names, tuple[int, float, int]] = {}
        self._measured = self._own = 0.0
        self._entered: list[tuple[_Timer, changed_mode, float | None]] = []

    # ------------------------------------------------ measuring

    def __enter__(self) -> Self:
        around = current_mode().timer
        reports = around.reports if isinstance(around, _Timer) else ()
        known = self in reports  # entered again inside its own block, where it counts already
        timer = _Timer(reports if known else (*reports, self))
        change = changed_mode(timer=timer)
        change.__enter__()
        self._entered.append((timer, change, None if known else perf_counter()))
        return self

    def __exit__(self, *exc: object) -> None:
        timer, change, started = self._entered.pop()
        change.__exit__(*exc)
        timer.wait()
        if started is not None:
            self._measured += perf_counter() - started

    def add(self, names: Names, seconds: float, memory: int) -> None:
        """Add the cost of a call, under (direction, op, layer)."""
        calls, before, bytes_before = self._costs.get(names, (0, 0.0, 0))
        self._costs[names] = calls + 1, before + seconds, bytes_before + memory

    def exclude(self, seconds: float) -> None:
        """Leave out of the block's time what measuring took."""
        self._own += seconds

    # ------------------------------------------------ reading

    @property
    def rows(self) -> list[Row]:
        """A Row for each operation, direction and layer; the longest first, as in the other lists."""
        return _merged(Row(*names, *cost) for names, cost in self._costs.items())

    @property
    def seconds(self) -> float:
        """The time that the block took, or has taken so far, without that of measuring."""
        running = sum(perf_counter() - started for _, _, started in self._entered if started is not None)
        return self._measured + running - self._own

    @property
    def outside(self) -> float:
        """The part of `seconds` that was spent outside of operations."""
        return self.seconds - _total(self.rows).seconds

    def by_operation(self) -> list[Row]:
        """Return a Row for each operation and direction; its layer is ""."""
        return _merged(row._replace(layer="") for row in self.rows)

    def by_layer(self) -> list[Row]:
        """Return a Row for each layer and direction; its op is ""."""
        return _merged(row._replace(op="") for row in self.rows)

    def __repr__(self) -> str:
        return f"<profile of {_total(self.rows).calls:,} calls in {1e3 * self.seconds:.1f} ms: print shows it>"

    def __str__(self) -> str:
        rows, seconds = self.rows, self.seconds
        if not rows:
            return "no operation was measured; run some inside `with tr.profile() as report:`, and print it after that"
        cells = ["ms", "share", "calls", "µs/call", "MB"]
        return "\n\n".join(
            [
                _table(["", *cells], _whole(rows, seconds)),
                _table(["by operation", "", *cells], self._operations(rows, seconds), left=2),
                _table(["by layer", *cells[:2], *DIRECTIONS, *cells[2:]], self._layers(rows, seconds)),
            ]
        )

    def _operations(self, rows: list[Row], seconds: float) -> list[list[str]]:
        merged = _merged(row._replace(layer="") for row in rows)
        groups: list[Group] = [((row.op, row.direction), [row]) for row in merged]
        return [[*names, *_cells(_total(group), seconds)] for names, group in self._shown(groups)]

    def _layers(self, rows: list[Row], seconds: float) -> list[list[str]]:
        layers = [row.layer for row in _merged(row._replace(direction="", op="") for row in rows)]
        groups: list[Group] = [((layer,), [row for row in rows if row.layer == layer]) for layer in layers]
        lines = []
        for names, group in self._shown(groups):
            ms, share, *others = _cells(_total(group), seconds)
            lines.append([*names, ms, share, *(_ms(_only(d, group)) for d in DIRECTIONS), *others])
        return lines

    def _shown(self, groups: list[Group]) -> list[Group]:
        """Return the first groups, and one for all others if they are several."""
        shown, others = groups[: self.top], groups[self.top :]
        if len(others) < 2:
            return groups
        names = (f"… {len(others)} more", *[""] * (len(groups[0][0]) - 1))
        return [*shown, (names, [row for _, group in others for row in group])]


class _Timer:
    """What the mode calls for each computation: it runs it, and tells the reports around what it cost."""

    def __init__(self, reports: tuple[Report, ...]) -> None:
        self.reports = reports
        self.device: Backend | None = None
        self.scope: Scope | None = None
        self.layer = NO_MODULE
        self.layers: dict[tuple[int, ...], tuple[str, list[Any]]] = {}

    def __call__(
        self, direction: str, op: Primitive | None, scope: Scope | None, computation: Callable[[], Any]
    ) -> Any:
        self.wait()  # for what was asked of the device since the last operation: not this one's
        entered = perf_counter()
        with changed_mode(timer=None):
            started = perf_counter()
            result = computation()
            seconds = perf_counter() - started
        made = [x for x in _parts(result) if backends.of(x)]
        self.device = backends.of(made[0]) if made else None
        started = perf_counter()
        self.wait()
        seconds += perf_counter() - started
        memory = _new_bytes(made, _parts(getattr(computation, "args", ())))
        names = (direction, op.name, self.layer_of(scope)) if op else (direction, WEIGHTS, WEIGHTS)
        for report in self.reports:
            report.add(names, seconds, memory)
        own = perf_counter() - entered - seconds
        for report in self.reports:
            report.exclude(own)
        return result

    def wait(self) -> None:
        """Wait for the device that computed last."""
        if self.device is not None:
            self.device.synchronize()

    def layer_of(self, scope: Scope | None) -> str:
        """Return the path of the innermost module, made once for each: a loop makes new scopes at every step."""
        if scope is not self.scope:
            modules = [around.module for around in scope.outward() if around.module is not None] if scope else []
            key = tuple(map(id, modules))
            if key not in self.layers:
                self.layers[key] = _path(modules), modules  # kept, so that no other module gets its id
            self.scope, self.layer = scope, self.layers[key][0]
        return self.layer


def _path(modules: list[Any]) -> str:
    """Return what a Scope calls the first of the modules, each of which is inside the next."""
    scope = None
    for module in reversed(modules):
        scope = Scope(scope, module=module)
    return str(scope) if scope else NO_MODULE


# ---------------------------------------------------------------- memory


def _parts(x: Any) -> list[Any]:
    """Return what went into a computation, or came out of it, one by one."""
    if isinstance(x, tuple | list):
        return [part for several in x for part in _parts(several)]
    if isinstance(x, Outer):
        return [x.a, x.gradient]
    if isinstance(x, Slice | Spread):
        return [x.gradient]
    if isinstance(x, Node):
        return _parts((x.operands, x.saved))
    return [x.array if isinstance(x, Tensor) else x]


def _new_bytes(made: list[Any], given: list[Any]) -> int:
    """Return the size of what was made, without views of what was given; several of one memory are at most that."""
    old = {id(_owner(x)) for x in given}
    sizes: dict[int, int] = {}
    for x in made:
        owner = _owner(x)
        if id(owner) not in old:
            sizes[id(owner)] = min(sizes.get(id(owner), 0) + _size(x), _size(owner))
    return sum(sizes.values())


def _owner(array: Any) -> Any:
    """Return the array whose memory `array` is a view of; itself where it owns it, or its library does not tell."""
    while hasattr(base := getattr(array, "base", None), "nbytes"):
        array = base
    return array


def _size(array: Any) -> int:
    if hasattr(array, "nbytes"):
        return int(array.nbytes)
    home = backends.of(array)  # the array API standard has no nbytes
    bits = "".join(filter(str.isdigit, home.dtype(array).value)) if home else ""
    return int(array.size) * int(bits or "8") // 8  # float32 has 32; bool has no number


# ---------------------------------------------------------------- tables


def _total(rows: Iterable[Row], names: Names = ("", "", "")) -> Row:
    """Add rows up, under other names."""
    rows = list(rows)
    return Row(*names, sum(r.calls for r in rows), sum(r.seconds for r in rows), sum(r.bytes for r in rows))


def _whole(rows: list[Row], seconds: float) -> list[list[str]]:
    total = _total(rows)
    outside = Row("", "", "", 0, seconds - total.seconds, 0)
    return [
        *([what, *_cells(_only(direction, rows), seconds)] for direction, what in DIRECTIONS.items()),
        ["outside of operations (Python, the graph)", *_cells(outside, seconds)],
        ["together", _ms(total._replace(seconds=seconds)), "", f"{total.calls:,}", "", f"{total.bytes / 1e6:,.1f}"],
    ]


def _only(direction: str, rows: list[Row]) -> Row:
    return _total(row for row in rows if row.direction == direction)


def _merged(rows: Iterable[Row]) -> list[Row]:
    """Add up the rows that have the same names; the longest first."""
    groups: dict[Names, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[:3], []).append(row)
    return sorted((_total(group, names) for names, group in groups.items()), key=lambda row: -row.seconds)


def _cells(row: Row, seconds: float) -> list[str]:
    """Write ms, share of `seconds`, calls, µs per call, and MB."""
    share = f"{row.seconds / seconds:.0%}" if row.seconds and seconds else ""
    if not row.calls:
        return [_ms(row), share, "", "", ""]
    return [_ms(row), share, f"{row.calls:,}", f"{1e6 * row.seconds / row.calls:,.1f}", f"{row.bytes / 1e6:,.1f}"]


def _ms(row: Row) -> str:
    return f"{1e3 * row.seconds:,.2f}" if row.seconds else ""


def _table(head: list[str], lines: list[list[str]], left: int = 1) -> str:
    """Align the columns, the first `left` of them to the left."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    layout = "  ".join(f"{{:{'<' if i < left else '>'}{width}}}" for i, width in enumerate(widths))
    return "\n".join(layout.format(*line).rstrip() for line in [head, *lines])
