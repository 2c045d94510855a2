"""The graph as plain data: nodes, edges, and where and when each operation happened. Every picture reads this.

There are two ways to come by one. `trace(y)` reads what a tensor still remembers: the nodes that a backward pass would
walk, a fused function opened up into the operations it was traced from. `recording()` listens while something runs, and
knows more: values, constants, the line of source behind each operation, and where a state was cut off.
"""

from __future__ import annotations

import functools
import linecache
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from tinyrnn import backends
from tinyrnn.autograd import ArrayOps, Edge, Meta, Node, Scope, changed_mode, combine, current_scope, walk
from tinyrnn.errors import DTypeError, GraphError
from tinyrnn.fuse import FusedOp
from tinyrnn.nn.cells import Cell
from tinyrnn.nn.module import Parameter
from tinyrnn.primitives import Primitive
from tinyrnn.tensor import Tensor

# ---------------------------------------------------------------- the data


@dataclass(eq=False, slots=True)
class Place:
    """One of the boxes around an operation: a call of a module, a loop over time, or steps of a loop.

    Fields:
        kind: "module", "loop" or "step".
        name: the module's attribute name, as in "lstm" or "cells.0".
        title: the module's type.
        about: what the module's repr says of it.
        parameters: how many numbers the module learns.
        gates: the names of a cell's gates.
        owns: whether the module has parameters itself, not in parts of it alone.
        whole: whether the module has no parts: no modules inside.
        again: whether the module, or one around it, was called before in the same place.
        steps: for steps, which ones: one t where time is unrolled, all that are alike where it is rolled. For a loop,
            all of them.

    >>> import tinyrnn as tr
    >>> h = tr.tensor(0.5, requires_grad=True)
    >>> for t in tr.steps(3):
    ...     h = tr.tanh(h)
    >>> [(place.kind, place.steps) for place in tr.trace(h).nodes[-1].place]
    [('loop', [0, 1, 2]), ('step', [2])]
    """

    kind: str
    name: str = ""
    title: str = ""
    about: str = ""
    parameters: int = 0
    gates: tuple[str, ...] = ()
    owns: bool = False
    whole: bool = False
    again: bool = False
    steps: list[int] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Output:
    """A tensor that a node stands for.

    Fields:
        shape, dtype: its own; −1 for an axis whose length is not always the same.
        values, gradient: NumPy arrays, where they were kept.
        name: what `names` called the result of an operation.
        parts: the tensors that it stands for, in a graph that was rolled; none if it is one itself.

    >>> import tinyrnn as tr
    >>> x = tr.tensor([1.0, 2.0], requires_grad=True)
    >>> (y,) = tr.trace(x * 3, names={"x": x}, values=True, gradients=True).nodes[-1].outputs
    >>> y.shape, y.values.tolist(), y.gradient.tolist(), y.nbytes
    ((2,), [3.0, 6.0], [1.0, 1.0], 8)
    """

    shape: tuple[int, ...]
    dtype: str
    values: Any = None
    gradient: Any = None
    name: str = ""
    parts: list[Output] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """How many bytes its values take."""
        bits = int("".join(filter(str.isdecimal, self.dtype)) or 8)  # a bool takes a byte
        return math.prod(self.shape) * bits // 8


@dataclass(eq=False, slots=True)
class GraphNode:
    """An operation, or a tensor that no operation made.

    Fields:
        kind: "operation", "parameter", "input" (a leaf that is no parameter, or data), "constant"; and in pictures
            "output" for a result with a name, "module" or "step" for one that stands for all inside of it, "gap" for
            what a picture leaves out.
        name: the primitive's name, the parameter's or the input's.
        place: the boxes around it, outermost first.
        outputs: the tensors it made, or is.
        params: the parameters of the operation.
        numbers: its operands that are plain numbers, by name.
        source: the file, line and text of the code behind it, where it was recorded.
        count: how many nodes it stands for, in a graph that was rolled or summarised.
        about: what else there is to say.
        result: whether it is what was asked to be drawn.
        back: whether it is part of a backward pass.

    >>> import tinyrnn as tr
    >>> x = tr.tensor([1.0, 2.0], requires_grad=True)
    >>> node = tr.trace(x * 2).nodes[-1]
    >>> node, node.numbers
    (<operation multiply float32[2]>, {'b': 2})
    """

    kind: str
    name: str
    place: tuple[Place, ...] = ()
    outputs: list[Output] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    count: int = 1
    about: str = ""
    result: bool = False
    back: bool = False

    @property
    def steps(self) -> list[int]:
        """The steps of the innermost loop around it; empty outside of loops."""
        return next((place.steps for place in reversed(self.place) if place.kind == "step"), [])

    def __repr__(self) -> str:
        shapes = ", ".join(f"{y.dtype}{list(y.shape)}" for y in self.outputs)
        return f"<{self.kind} {self.name} {shapes}{f' ×{self.count:,}' if self.count > 1 else ''}>"


@dataclass(eq=False, slots=True)
class GraphEdge:
    """The way of a tensor from where it is made to where it is used.

    Fields:
        source, output: the node where it is made, and which of its outputs.
        target, operand: the node where it is used, and the name of its operand.
        delay: how many steps of a loop lie between, in a rolled graph.
        cut: whether no gradient flows back, since the tensor was detached.
        times: how many edges it stands for.
        gradient: the norm of the gradient that flows back along it, where gradients were asked for.
        label: what a picture writes beside it.
        parts: the edges that it stands for, in a graph that was rolled or summarised; none if it is one itself.

    >>> import tinyrnn as tr
    >>> x = tr.tensor(3.0, requires_grad=True)
    >>> tr.trace(x * x, names={"x": x}).edges
    [<edge x -> multiply.a>, <edge x -> multiply.b>]
    """

    source: GraphNode
    output: int
    target: GraphNode
    operand: str
    delay: int = 0
    cut: bool = False
    times: int = 1
    gradient: float | None = None
    label: str = ""
    parts: list[GraphEdge] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<edge {self.source.name} -> {self.target.name}.{self.operand}{f' z-{self.delay}' * bool(self.delay)}>"


@dataclass(eq=False, slots=True)
class Graph:
    """A computation as data: what `trace` returns and `recording` fills, and `draw` draws.

    Fields:
        nodes: operations and what they began with, each after those that it depends on.
        edges: the ways of tensors between them.
        notes: what a picture should say in words.

    >>> import tinyrnn as tr
    >>> x = tr.tensor(3.0, requires_grad=True)
    >>> graph = tr.trace(x * x, names={"x": x})
    >>> graph, graph.nodes
    (<graph of 2 nodes and 2 edges>, [<input x float32[]>, <operation multiply float32[]>])
    """

    nodes: list[GraphNode] = field(default_factory=list)
    edges: list[GraphEdge] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<graph of {len(self.nodes):,} nodes and {len(self.edges):,} edges>"


# ---------------------------------------------------------------- where


class _Places:
    """Makes places of scopes, the same one for the same scope."""

    def __init__(self) -> None:
        self.known: dict[Scope | None, tuple[Place, ...]] = {None: ()}
        self.loops: dict[Any, Place] = {}
        self.called: set[tuple[Scope | None, int]] = set()  # which modules, from where

    def of(self, scope: Scope | None) -> tuple[Place, ...]:
        """Return the places that a scope stands for, outermost first."""
        if scope not in self.known:
            assert scope is not None
            around = self.of(scope.parent)
            if scope.back:
                self.known[scope] = around
            elif scope.module is not None:
                call = scope.parent, id(scope.module)
                again = call in self.called or any(place.again for place in around)
                self.known[scope] = *around, _module_place(scope, again)
                self.called.add(call)
            else:
                loop = self.loops.setdefault((scope.parent, scope.loop), Place("loop"))
                loop.steps.append(scope.step or 0)
                self.known[scope] = *around, loop, Place("step", steps=[scope.step or 0])
        return self.known[scope]


def _module_place(scope: Scope, again: bool) -> Place:
    module = scope.module
    above = next((s.module for s in scope.outward() if s is not scope and s.module is not None), None)
    return Place(
        "module",
        name=(above.name_of(module) or "") if above is not None else "",
        title=type(module).__name__,
        about=module.describe(),
        parameters=sum(p.size for p in module.parameters()),
        gates=module.gates if isinstance(module, Cell) else (),
        owns=any(isinstance(value, Parameter) for value in vars(module).values()),
        whole=len(list(module.named_modules())) == 1,
        again=again,
    )


def _parameter(scope: Scope | None, is_it: Callable[[Parameter], bool]) -> tuple[str, Parameter | None]:
    """Return a parameter of the modules around, or of a module inside of these, with its attribute name."""
    around = [s.module for s in scope.outward() if s.module is not None] if scope else []
    inside = (module for outer in around for _, module in outer.named_modules())
    for module in (*around, *inside):
        for name, value in vars(module).items():
            if isinstance(value, Parameter) and is_it(value):
                return name, value
    return "", None


# ---------------------------------------------------------------- building


class _Builder:
    """Puts a graph together from tensors and operations, whoever tells of them.

    Fields: at, where each tensor is made, as (node, output), by whatever key identifies it.
    """

    def __init__(self, names: Mapping[str, Tensor] | None, values: bool) -> None:
        for name, x in (names or {}).items():
            if not isinstance(x, Tensor):
                raise DTypeError(f"names: {name!r} is {type(x).__name__}; expected a tensor for each name")
        self.names = {id(x): name for name, x in (names or {}).items()}
        self.graph, self.places, self.values = Graph(), _Places(), values
        self.at: dict[Any, tuple[GraphNode, int]] = {}

    def output(self, x: Tensor | Meta) -> Output:
        """Return the output that a tensor is, with its values where they are wanted and known."""
        values = x.numpy().copy() if self.values and isinstance(x, Tensor) else None
        return Output(tuple(x.shape), x.dtype.value, values)

    def operation(self, op: Primitive, scope: Scope | None, params: dict[str, Any], outputs: list[Output]) -> GraphNode:
        """Add an operation."""
        node = GraphNode("operation", op.name, self.places.of(scope), outputs, dict(params))
        node.back = scope is not None and scope.back
        self.graph.nodes.append(node)
        return node

    def leaf(self, key: Any, x: Tensor | Meta, scope: Scope | None, kind: str, name: str) -> tuple[GraphNode, int]:
        """Return the node of a tensor that no operation made."""
        if key not in self.at:
            node = GraphNode(kind, name, self.places.of(scope), [self.output(x)])
            node.about = x.describe() if isinstance(x, Parameter) else ""
            self.graph.nodes.append(node)
            self.at[key] = node, 0
        return self.at[key]

    def connect(self, found: tuple[GraphNode, int], target: GraphNode, operand: str, cut: bool = False) -> None:
        """Add an edge; from a cell's gates side by side, with the name of the gate."""
        source, output = found
        edge = GraphEdge(source, output, target, operand, cut=cut)
        if source.name == "split":
            gates: tuple[str, ...] = next((p.gates for p in reversed(source.place) if p.gates), ())
            edge.label = gates[output] if len(gates) == len(source.outputs) else ""
        self.graph.edges.append(edge)


def _operand_names(op: Primitive, count: int) -> list[str]:
    """Return a name for each operand; those of `*xs` are all called xs."""
    return list(op.operands) if len(op.operands) == count else list(op.operands) * count


def _results(name: str, y: Any) -> list[Tensor]:
    """Return the tensors of a (nested) result."""
    if isinstance(y, Tensor):
        return [y]
    parts = y.values() if isinstance(y, dict) else y if isinstance(y, tuple | list) else None
    if parts is None:
        raise DTypeError(f"{name}: given {type(y).__name__}; expected a tensor, or a tuple, list or dict of tensors")
    return [x for part in parts if part is not None for x in _results(name, part)]


# ---------------------------------------------------------------- what a tensor remembers


def trace(y: Any, *, names: Mapping[str, Tensor] | None = None, values: bool = False, gradients: bool = False) -> Graph:
    """Return the graph that a tensor, or several, remember: all that a backward pass would walk.

    A fused function is opened up into the operations that it was traced from. What needs no gradient has left no trace;
    `recording` sees that too. A gradient that was computed with create_graph=True is a tensor like any other: its graph
    holds the backward pass.

    Args:
        y: a tensor that requires a gradient, or several in a tuple, list or dict.
        names: what tensors that no operation made are called, as {"x": x}.
        values: keep the values that are still known: those of leaves that have a name or that backward rules read, and
            what comes of them.
        gradients: compute ∂(sum of y)/∂(each tensor) where a rule tells of it: not inside of fused functions.

    Raises: GraphError if nothing was recorded, or backward() has used the graph up; DTypeError for what is no tensor.

    >>> import tinyrnn as tr
    >>> x = tr.tensor(3.0, requires_grad=True)
    >>> [node.name for node in tr.trace(x * x + 1, names={"x": x}).nodes]
    ['x', 'multiply', 'add']
    """
    roots = _results("trace", y)
    for root in roots:
        if root.node is None:
            raise GraphError(
                "trace: the tensor remembers no operation, since nothing in it requires a gradient; give a tensor that "
                "does, or draw a model together with its input: tr.draw(model, x)"
            )
    build = _Builder(names, values)
    named = {(x.node, x.index): (name, x) for name, x in (names or {}).items() if x.node}
    reached: set[Node] = set()
    frontier = [root.node for root in roots if root.node]
    while frontier:
        node = frontier.pop()
        if node not in reached:
            reached.add(node)
            frontier.extend(parent[0] for parent in node.parents if parent is not None)
    for node in sorted(reached, key=lambda node: node.serial):
        if node.op is not None and node.operands is None:
            raise GraphError(
                f"trace: backward() has used and freed the graph at {node!r}; draw before it, or call it with "
                "backward(retain_graph=True)"
            )
        if node.op is not None:
            _remembered(build, node, named)
    for root in roots:
        assert root.node
        if root.node.op is None:
            build.leaf((root.node, 0), root, None, "input", named.get((root.node, 0), ("input",))[0])
        build.at[root.node, root.index][0].result = True
    if gradients:
        _add_gradients(build.graph, roots, build.at)
    return build.graph


def _remembered(build: _Builder, node: Node, named: Mapping[Edge, tuple[str, Tensor]]) -> None:
    """Add what a node remembers of its operation and its operands."""
    assert node.op is not None
    assert node.operands is not None
    found: list[Any] = []
    for x, parent in zip(node.operands, node.parents, strict=True):
        if parent is None:
            given = x if not hasattr(x, "shape") else None
            found.append(
                given if given is not None else build.leaf(id(x), x, node.scope, "constant", _called(build, x))
            )
        elif parent[0].op is None and parent not in build.at:
            name, parameter = _parameter(node.scope, lambda p, leaf=parent[0]: p.node is leaf)  # type: ignore[misc]
            called, known = named.get(parent, (name, x if parameter is None else parameter))
            kind = "parameter" if isinstance(known, Parameter) else "input"
            found.append(build.leaf(parent, known, node.scope, kind, called or kind))
        else:
            found.append(build.at[parent])
            _known(build, build.at[parent], x)
    if isinstance(node.op, FusedOp) and all(y.node for y in node.op.plan.traced.tensors):
        _opened(build, node, node.op, found)
    else:
        _plain(build, node, node.op, found)
    for k in range(len(node.outputs)):
        if (node, k) in named:
            made, j = build.at[node, k]
            made.outputs[j].name, y = named[node, k]
            _known(build, (made, j), y)


def _known(build: _Builder, at: tuple[GraphNode, int], x: Any) -> None:
    """Note the values of a tensor that is still there, where they are wanted and were not known."""
    y = at[0].outputs[at[1]]
    if build.values and y.values is None and isinstance(x, Tensor):
        y.values = x.numpy().copy()


def _plain(build: _Builder, node: Node, op: Primitive, found: list[Any]) -> None:
    """Add an operation as it is."""
    outputs = [Output(meta.shape, meta.dtype.value, _saved(build, node, k)) for k, meta in enumerate(node.outputs)]
    made = build.operation(op, node.scope, node.params, outputs)
    _connect(build, made, op, found)
    _compute(build, made, op, found)
    build.at |= {(node, k): (made, k) for k in range(len(node.outputs))}


def _called(build: _Builder, x: Any) -> str:
    return build.names.get(id(x), "constant")


def _saved(build: _Builder, node: Node, k: int) -> Any:
    """Return the values of a result, if they are wanted and the node has kept them."""
    if not build.values or node.saved is None or node.saved[k] is None:
        return None
    return node.outputs[k].backend.to_host(node.saved[k]).copy()


def _connect(build: _Builder, made: GraphNode, op: Primitive, found: list[Any]) -> None:
    """Connect an operation with what its operands were found to be: (node, output), or a number."""
    for name, x in zip(_operand_names(op, len(found)), found, strict=True):
        if isinstance(x, tuple):
            build.connect(x, made, name)
        else:
            made.numbers[name] = x


def _compute(build: _Builder, made: GraphNode, op: Primitive, found: list[Any]) -> None:
    """Compute values that a node has not kept from those of its operands, where they are wanted and all known."""
    given = [x[0].outputs[x[1]].values if isinstance(x, tuple) else x for x in found]
    kept = all(y.values is not None for y in made.outputs)
    if not build.values or kept or any(x is None for x in given):
        return
    host = backends.get("numpy")
    computed = op.forward(host, *given, **on_host(made.params))
    for y, values in zip(made.outputs, computed if isinstance(computed, tuple) else (computed,), strict=False):
        y.values = host.asarray(values)


def on_host(x: Any) -> Any:
    """Return parameters of an operation such that it computes on the host: with its index there."""
    if isinstance(x, dict):
        return {name: backends.get("numpy") if name in ("source", "target") else on_host(y) for name, y in x.items()}
    if isinstance(x, tuple):
        return tuple(map(on_host, x))
    home = backends.of(x) if hasattr(x, "shape") else None
    return x if home is None else home.to_host(x)


def _opened(build: _Builder, node: Node, op: FusedOp, found: list[Any]) -> None:
    """Add the operations that a fused one was traced from, in its place."""
    traced = op.plan.traced
    inside: dict[Edge, Any] = {}
    for k, x in zip(op.plan.read, found, strict=True):
        leaf = traced.leaves[k]
        if leaf is not None:
            inside[leaf] = x
    frontier, reached = [y.node for y in traced.tensors], set()
    while frontier:
        part = frontier.pop()
        if part not in reached and part.op is not None:
            reached.add(part)
            frontier.extend(parent[0] for parent in part.parents if parent is not None)
    by_symbol = {id(s): x for s, x in zip((traced.inputs[k] for k in op.plan.read), found, strict=True)}
    for part in sorted(reached, key=lambda part: part.serial):
        operands = [
            inside[parent] if parent is not None else by_symbol.get(id(getattr(x, "array", x)), x)
            for x, parent in zip(part.operands, part.parents, strict=True)
        ]
        operands = [
            build.leaf((node, id(x)), x, node.scope, "constant", "constant") if hasattr(x, "shape") else x
            for x in operands
        ]
        outputs = [Output(meta.shape, meta.dtype.value) for meta in part.outputs]
        made = build.operation(part.op, node.scope, part.params, outputs)
        _connect(build, made, part.op, operands)
        _compute(build, made, part.op, operands)
        inside |= {(part, k): (made, k) for k in range(len(part.outputs))}
    for k, y in enumerate(traced.tensors):
        build.at[node, k] = inside[y.node, y.index]


# ---------------------------------------------------------------- what is seen while something runs


class recording:
    """Listen to all that happens in a `with` block, and make a graph of it.

        with tr.recording() as recorded:
            loss = loss_of(model(x), y)
        tr.draw(recorded.graph)

    It sees what `trace` cannot: operations that need no gradient, the line of source behind each one, and where a
    tensor was cut off from its history. Fused functions run primitive by primitive meanwhile. All results are kept
    alive until the block ends; it is local to the thread or task.

    Args:
        names: what tensors that no operation made are called, as {"x": x}.
        values: keep the values of all tensors.

    Attributes: graph, a `Graph`.
    Raises: DTypeError for a name of something that is no tensor.

    >>> import tinyrnn as tr
    >>> with tr.recording() as recorded:
    ...     y = tr.tensor([1.0, 2.0]) * 2
    >>> recorded.graph.nodes
    [<input input float32[2]>, <operation multiply float32[2]>]
    """

    def __init__(self, names: Mapping[str, Tensor] | None = None, values: bool = False) -> None:
        self._build, self._named = _Builder(names, values), list((names or {}).values())
        self._alive: list[Any] = []
        self._arrays: dict[int, tuple[GraphNode, int]] = {}
        self.graph = self._build.graph

    def __enter__(self) -> recording:
        self._mode = changed_mode(listener=self._note)
        self._mode.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._mode.__exit__(*exc)
        del self._mode  # which knows us: a cycle
        self._let_go()

    def _note(self, op: Primitive, operands: tuple[Any, ...], params: dict[str, Any], result: Any) -> None:
        """Add an operation that has just been done."""
        build, scope, results = self._build, current_scope(), result if isinstance(result, tuple) else (result,)
        frame = _behind()
        found = [self._found(x, scope, frame) if isinstance(x, Tensor) else (x, False) for x in operands]
        indices = [self._index(array, scope) for array in _arrays_in(params.get("index"))]
        node = build.operation(op, scope, params, [build.output(y) for y in results])
        node.source = _line(frame)
        for index in indices:
            build.connect(index, node, "index")
        for name, (x, cut) in zip(_operand_names(op, len(found)), found, strict=True):
            if isinstance(x, tuple):
                build.connect(x, node, name, cut)
            else:
                node.numbers[name] = x
        for k, y in enumerate(results):
            self._keep(y, (node, k))

    def _index(self, array: Any, scope: Scope | None) -> tuple[GraphNode, int]:
        """Return where the numbers of an index came from."""
        if id(array) not in self._arrays:
            x = next((x for x in self._named if x.array is array), None)
            made = Tensor(array, backends.of(array) or backends.current()) if x is None else x
            name = self._build.names.get(id(made), "index")
            self._keep(made, self._build.leaf(id(made), made, scope, "input", name))
        return self._arrays[id(array)]

    def _found(self, x: Tensor, scope: Scope | None, frame: FrameType | None) -> tuple[tuple[GraphNode, int], bool]:
        """Return where an operand was made, and whether its history was cut off since."""
        build = self._build
        known = build.at.get(id(x)) or build.at.get((x.node, x.index))
        if known is not None:
            return known, False
        if id(x.array) in self._arrays:  # the same memory under another name: detached
            return self._arrays[id(x.array)], True
        name = build.names.get(id(x), "")
        if isinstance(x, Parameter):
            kind, name = "parameter", name or _parameter(scope, lambda p: p is x)[0] or "parameter"
        elif _is_drawn(x):
            kind, name = "constant", name or "random"
        else:
            field = _field(x, frame)  # of a state that nobody has given: zeros, before the first step
            kind = "input" if name or x.node or not (field or _is_ours(frame)) else "constant"
            name = name or ("gy" if scope is not None and scope.back else _variable(x, frame) or field)
        found = build.leaf(id(x), x, scope, kind, name or kind)
        self._keep(x, found)
        return found, False

    def _keep(self, x: Tensor, at: tuple[GraphNode, int]) -> None:
        """Remember a tensor, alive, so that nothing else can take its identity."""
        self._build.at[id(x)] = at
        self._arrays[id(x.array)] = at
        self._alive += (x, x.array)
        if x.node:
            self._build.at[x.node, x.index] = at

    def finish(self, y: Any, gradients: bool = False) -> Graph:
        """Add a node for each tensor of a (nested) result, and compute gradients if wanted; inside of the block."""
        results = named_parts(y)
        for name, x in results:
            found, cut = self._found(x, None, None)
            node = GraphNode("output", name, (), [self._build.output(x)], result=True)
            self.graph.nodes.append(node)
            self._build.connect(found, node, "", cut)
        if gradients:
            _add_gradients(self.graph, [x for _, x in results if x.node], self._build.at)
        return self.graph

    def _let_go(self) -> None:
        """Forget all tensors; the graph stays."""
        self._build.at.clear()
        self._alive.clear()
        self._arrays.clear()


def _arrays_in(index: Any) -> list[Any]:
    """Return the arrays in an index."""
    return [part for part in (index if isinstance(index, tuple) else (index,)) if getattr(part, "shape", ())]


def named_parts(y: Any, name: str = "out") -> list[tuple[str, Tensor]]:
    """Return the tensors of a (nested) value with names: fields of a NamedTuple, keys of a dict, else numbers."""
    if isinstance(y, Tensor):
        return [(name, y)]
    if isinstance(y, dict):
        parts = [(str(key), part) for key, part in y.items()]
    elif hasattr(y, "_fields"):
        parts = list(zip(y._fields, y, strict=True))
    elif isinstance(y, tuple | list):
        tensors = sum([isinstance(part, Tensor) for part in y])
        other = "state" if tensors == 1 else name  # (out, state), as layers return it
        parts = [
            (f"{name} {k}" if tensors > 1 else name if isinstance(part, Tensor) else other, part)
            for k, part in enumerate(y)
        ]
    else:
        return []
    return [found for key, part in parts for found in named_parts(part, key)]


_PACKAGE = Path(__file__).parents[1]
_ENGINE = {str(_PACKAGE / name) for name in ("tensor.py", "functions.py", "fuse.py", "autograd.py", "nn/module.py")}


def _behind() -> FrameType | None:
    """Return the frame whose code asked for an operation: the first one outside of the engine."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename in _ENGINE:
        frame = frame.f_back
    return frame


def _is_drawn(x: Tensor) -> bool:
    """Tell whether a tensor is of random numbers that a function of the engine, such as dropout, has just drawn."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename in {*_ENGINE, __file__}:
        if frame.f_locals.get("draw") is x.array:
            return True
        frame = frame.f_back
    return False


def _is_ours(frame: FrameType | None) -> bool:
    """Tell whether a frame runs code of this library."""
    return frame is not None and frame.f_code.co_filename.startswith(str(_PACKAGE))


def _line(frame: FrameType | None) -> str:
    """Return file, line number and text of the line that a frame is at."""
    return _line_of(frame.f_code.co_filename, frame.f_lineno) if frame is not None else ""


@functools.cache
def _line_of(file: str, number: int) -> str:
    return f"{Path(file).name}:{number}  {linecache.getline(file, number).strip()}"


def _variable(x: Tensor, frame: FrameType | None) -> str:
    """Return the name of a variable in a frame's code that holds a tensor."""
    if frame is None:
        return ""
    known = {name: frame.f_globals.get(name) for name in frame.f_code.co_names} | frame.f_locals
    return next((name for name, value in known.items() if value is x), "")


def _field(x: Tensor, frame: FrameType | None) -> str:
    """Return the name of a field that holds a tensor, of a state that is a variable in a frame's code: h of state."""
    states = [value for value in frame.f_locals.values() if hasattr(value, "_fields")] if frame is not None else []
    return next((name for state in states for name, y in zip(state._fields, state, strict=True) if y is x), "")


# ---------------------------------------------------------------- gradients


def _add_gradients(graph: Graph, roots: list[Tensor], at: Mapping[Any, tuple[GraphNode, int]]) -> None:
    """Give each output its gradient, and each edge the norm of what flows back along it: one backward pass."""
    if not roots:
        raise GraphError("draw: gradients were asked for, and no result requires one; are the parameters learned?")
    parts: dict[tuple[Any, Any, Any], list[Any]] = {}

    def listen(node: Node, _: list[Any], made: Any, to: Edge | None) -> None:
        if to is not None and (node, 0) in at and to in at:
            parts.setdefault((at[node, 0][0], *at[to]), []).append(_dense(made, to))

    edges = {key for key in at if isinstance(key, tuple)}
    gys = {(y.node, y.index): y.backend.full(y.shape, 1, y.dtype) for y in roots if y.node}
    with changed_mode(grad=False, listener=None, back_listener=listen):
        found = walk(gys, ArrayOps, wanted=edges)
    for (node, index), g in found.items():
        made, k = at[node, index]
        made.outputs[k].gradient = node.outputs[index].backend.to_host(g).copy()
    for edge in graph.edges:
        flowed = parts.get((edge.target, edge.source, edge.output))
        if flowed:
            edge.gradient = math.sqrt(sum(float((part.astype("float64") ** 2).sum()) for part in flowed))


def _dense(part: Any, to: Edge) -> Any:
    """Return what flows to a tensor as an array on the host."""
    meta = to[0].outputs[to[1]]
    return meta.backend.to_host(combine(ArrayOps(meta.backend), [part], meta))
