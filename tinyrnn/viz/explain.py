"""The chain rule of a small graph as text: what each operation computed, and what it sends back, with the numbers.

    print(tr.explain(loss))

The operations come from `trace`, a fused function opened up. They are put together once more as a graph of primitives,
and the engine's own walk goes back through it, so every number here is one that `grad` has computed on its way.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from tinyrnn import backends
from tinyrnn.autograd import ArrayOps, Edge, Meta, Node, Rooms, changed_mode, combine, walk
from tinyrnn.backends import DType
from tinyrnn.errors import DTypeError, GraphError, ShapeError
from tinyrnn.primitives import BUILT_IN, Primitive, registry
from tinyrnn.tensor import Tensor
from tinyrnn.viz.graph import Graph, GraphEdge, GraphNode, Output, on_host, trace
from tinyrnn.viz.words import SYMBOLS, shape_of, title_of

MOST_NODES = 60  # a text of more is not read
MOST_NUMBERS = 6  # of a tensor of more, the norm is shown

FORMULAS: dict[str, tuple[str | None, ...]] = {
    # what each operand receives: {g} is what flows into the result {y}, [x > 0] is 1 where that is so and 0 elsewhere
    "add": ("{g}", "{g}"),
    "subtract": ("{g}", "−{g}"),
    "multiply": ("{g} · {b}", "{g} · {a}"),
    "divide": ("{g} / {b}", "−{g} · {y} / {b}"),
    "negative": ("−{g}",),
    "power": ("{g} · {b} · {a}^({b} − 1)", "{g} · {y} · log({a})"),
    "exp": ("{g} · {y}",),
    "log": ("{g} / {x}",),
    "sqrt": ("{g} / (2 · {y})",),
    "tanh": ("{g} · (1 − {y}²)",),
    "sigmoid": ("{g} · {y} · (1 − {y})",),
    "relu": ("{g} · [{x} > 0]",),
    "abs": ("{g} · sign({x})",),
    "maximum": ("{g} · ([{a} > {b}] + [{a} = {b}] / 2)", "{g} · ([{b} > {a}] + [{a} = {b}] / 2)"),
    "minimum": ("{g} · ([{a} < {b}] + [{a} = {b}] / 2)", "{g} · ([{b} < {a}] + [{a} = {b}] / 2)"),
    "clip": ("{g} · [{x} = {y}]",),
    "where": (None, "{g} · [{mask}]", "{g} · (1 − [{mask}])"),
    "astype": ("{g}",),
    "to": ("{g}",),
    "sum": ("{g}, the same for all that were added up",),
    "max": ("{g} · [{x} = {y}], shared if there are several",),
    "min": ("{g} · [{x} = {y}], shared if there are several",),
    "logsumexp": ("{g} · exp({x} − {y})",),
    "matmul": ("{g} @ {b}ᵀ", "{a}ᵀ @ {g}"),
    "linear": ("{g} @ {W}ᵀ", "{x}ᵀ @ {g}", "{g}"),
    "reshape": ("{g}, in the old shape",),
    "transpose": ("{g}, with the axes back in their order",),
    "broadcast_to": ("{g}",),
    "flip": ("{g}, flipped back",),
    "pad": ("{g}, without the margin",),
    "concatenate": ("its part of {g}",),
    "stack": ("its part of {g}",),
    "split": ("{g}, joined",),
    "unstack": ("{g}, stacked",),
    "getitem": ("{g} where it was taken, 0 elsewhere",),
    "scatter": ("{g} where it was put",),
    "accumulate": ("{g}",),
}


def explain(y: Tensor, names: Mapping[str, Tensor] | None = None) -> Explanation:
    """Write out the chain rule for a single number y, operation by operation, so that it can be followed on paper.

        ∂y/∂x = Σ over the uses of x of ∂y/∂(what it was used for) · ∂(what it was used for)/∂x

    First all values, in the order in which they were computed; then all gradients, from y back. A tensor that was used
    several times, such as W_h in each step of a recurrent network, receives a sum, and it is told from where.

    Args:
        y: the result of up to 60 operations and leaves; for more, `tr.draw` is better.
        names: what tensors are called, as {"W_h": cell.W_h}. Those that are variables where `explain` is called have
            that name, parameters of modules their own, other leaves "input", and all else v1, v2, …

    Returns: an Explanation; print it, or have a notebook show it. Nothing is changed, the graph can still be used.
    Raises: DTypeError if y is no tensor; ShapeError if it is no single number; GraphError if it remembers nothing, its
        graph is too large or has been used up, or the values of a tensor are needed that has been let go.
    Source: Wengert 1964, "A Simple Automatic Derivative Evaluation Program" (the list of results v1, v2, …).

    >>> import tinyrnn as tr
    >>> w, b = tr.tensor(-3.0, requires_grad=True), tr.tensor(7.0, requires_grad=True)
    >>> y = tr.tanh(2 * w + b)
    >>> print(tr.explain(y))
    y from 2 leaves, by 3 operations
    <BLANKLINE>
    forward
      w = −3
      v1 = 2 ⊙ w = 2 · −3 = −6
      b = 7
      v2 = v1 + b = −6 + 7 = 1
      y = tanh(v2) = tanh(1) = 0.7616
    <BLANKLINE>
    backward
      ∂y/∂y = 1
      ∂y/∂v2 = ∂y/∂y · (1 − y²) = 1 · 0.42 = 0.42
      ∂y/∂v1 = ∂y/∂v2 = 0.42
      ∂y/∂w = ∂y/∂v1 · 2 = 0.42 · 2 = 0.8399
      ∂y/∂b = ∂y/∂v2 = 0.42
    """
    if not isinstance(y, Tensor):
        raise DTypeError(f"explain: given {type(y).__name__}; expected a tensor, such as a loss")
    if y.size != 1:
        raise ShapeError(
            f"explain: the tensor has shape {y.shape}; expected a single number, such as a loss: take its mean() or "
            "sum()"
        )
    known = _variables(sys._getframe(1)) | dict(names or {})
    name = next((name for name, x in known.items() if x is y), "y")
    while known.get(name, y) is not y:
        name += "′"
    known = {other: x for other, x in known.items() if x is not y} | {name: y}
    count = len(trace(y, names=known).nodes)
    if count > MOST_NODES:
        raise GraphError(
            f"explain: the graph has {count:,} operations and leaves, and a text of more than {MOST_NODES} is not "
            "read; explain the same with fewer time steps or layers, or look at a picture: tr.draw(y)"
        )
    return _Chain(trace(y, names=known, values=True), name, known).explained()


@dataclass
class Explanation:
    """The chain rule of a graph: a text, which `print` and a notebook show.

    Fields:
        text: all of it.
        gradients: ∂y/∂x of each leaf x by its name, in NumPy.

    >>> import tinyrnn as tr
    >>> w = tr.tensor([1.0, 2.0], requires_grad=True)
    >>> tr.explain(tr.sum(w * w)).gradients["w"]
    array([2., 4.], dtype=float32)
    """

    text: str
    gradients: dict[str, Any]

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return f"```text\n{self.text}\n```"


def _variables(frame: FrameType) -> dict[str, Tensor]:
    """Return the tensors that are variables in a frame, by name."""
    known = frame.f_globals | frame.f_locals
    return {name: x for name, x in known.items() if isinstance(x, Tensor) and name.isidentifier() and name[0] != "_"}


# ---------------------------------------------------------------- the graph, and the walk back


@dataclass(eq=False)
class _Use:
    """What one use of a tensor adds to its gradient: by operand number k of a node."""

    node: GraphNode
    k: int
    gradient: Any


class _Chain:
    """A traced graph, walked back through once more, and told line by line; `y` is the name of its result."""

    def __init__(self, graph: Graph, y: str, known: Collection[str]) -> None:
        self.graph, self.y, self.known, self.lines = graph, y, known, list[str]()
        self.operands = _operands(graph)
        self.ops = ArrayOps(backends.get("numpy"))
        self.made: dict[GraphNode, Node] = {}
        for node in graph.nodes:
            self.made[node] = self._primitive(node)
        self.names = self._names()
        self._see_that_all_is_known()
        self.gradients, self.uses = self._walked()

    # ------------------------------------------------ putting it together once more

    def _primitive(self, node: GraphNode) -> Node:
        """Return a node of the engine for one of the traced graph."""
        host = self.ops.backend
        metas = tuple(Meta(y.shape, DType.of(y.dtype), host) for y in node.outputs)
        if node.kind != "operation":
            return Node(None, metas)
        parents = [self._parent(x) if isinstance(x, GraphEdge) else None for x in self.operands[node]]
        operands = [self._operand(x) if isinstance(x, GraphEdge) else x for x in self.operands[node]]
        results = tuple(meta if y.values is None else y.values for y, meta in zip(node.outputs, metas, strict=True))
        several = len(metas) > 1 or node.name in ("split", "unstack")
        return Node(
            registry[node.name], metas, tuple(operands), tuple(parents), results, on_host(node.params), None, several
        )

    def _parent(self, edge: GraphEdge) -> Edge | None:
        """Return where the gradient of an operand goes, None if it needs none."""
        source = self.made[edge.source]
        if edge.source.kind == "constant" or not source.outputs[edge.output].dtype.is_floating:
            return None
        if source.op is not None and (source.op.vjp is None or not any(source.parents)):
            return None
        return source, edge.output

    def _operand(self, edge: GraphEdge) -> Any:
        values = edge.source.outputs[edge.output].values
        return self.made[edge.source].outputs[edge.output] if values is None else Tensor(values, self.ops.backend)

    def _see_that_all_is_known(self) -> None:
        """Refuse a graph with rules that read values which nobody has kept."""
        for node, made in self.made.items():
            if made.op is None or made.op.vjp is None:
                continue
            read = made.op.reads(tuple(parent is not None for parent in made.parents))
            operands = zip(_operand_names(made.op, made.operands), made.operands or (), strict=True)
            missing = [name for name, x in operands if isinstance(x, Meta)]
            missing += ["y"] if any(y.values is None for y in node.outputs) else []
            if read & set(missing):
                leaves = (leaf for leaf in self.graph.nodes if leaf.kind != "operation")
                gone = [self.names[leaf, 0] for leaf in leaves if leaf.outputs[0].values is None]
                raise GraphError(
                    f"explain: {node.name} reads values that were computed from {', '.join(gone)}, and the graph has "
                    'not kept them; give the tensors that it came from: explain(y, names={"x": x})'
                )

    def _walked(self) -> tuple[dict[tuple[GraphNode, int], Any], dict[tuple[GraphNode, int], list[_Use]]]:
        """Walk back, and return the gradient of each tensor and what it is the sum of."""
        of = {made: node for node, made in self.made.items()}
        uses: dict[tuple[GraphNode, int], list[_Use]] = defaultdict(list)
        asked: dict[Node, int] = defaultdict(int)

        def listen(made: Node, _: list[Any], flowed: Any, to: Edge | None) -> None:
            if to is None:
                return
            k = made.parents.index(to, asked[made])
            asked[made] = k + 1
            dense = combine(self.ops, [flowed], to[0].outputs[to[1]])
            uses[of[to[0]], to[1]].append(_Use(of[made], k, dense))

        root, n = next((self.made[node], k) for (node, k), name in self.names.items() if name == self.y)
        edges = {(made, k) for made in of for k in range(len(made.outputs))}
        one = self.ops.backend.full(root.outputs[n].shape, 1, root.outputs[n].dtype)
        with changed_mode(grad=False, listener=None, timer=None, back_listener=listen):
            found = walk({(root, n): one}, lambda _: self.ops, wanted=edges)
        return {(of[made], k): g for (made, k), g in found.items()}, uses

    # ------------------------------------------------ names

    def _names(self) -> dict[tuple[GraphNode, int], str]:
        """Return a name for each tensor, no two the same: its own, or v1, v2, … in the order of computation."""
        names: dict[tuple[GraphNode, int], str] = {}
        taken, count = set[str](), 0
        for node in self.graph.nodes:
            for k, y in enumerate(node.outputs):
                name = y.name or (self._part(node, k, names) if node.kind == "operation" else self._given(node))
                if not name:
                    count += 1
                    name = f"v{count}"
                while name in taken:
                    name += "′"
                names[node, k] = name
                taken.add(name)
        return names

    def _given(self, node: GraphNode) -> str:
        """Return the name of a leaf; of a tensor that needs no gradient, only if it is still a variable."""
        return "" if node.kind == "constant" and node.name not in self.known else node.name

    def _part(self, node: GraphNode, k: int, names: dict[tuple[GraphNode, int], str]) -> str:
        """Return the name of a step of a sequence, z[1], or of a gate at that step, i_1; of nothing else."""
        if node.name == "unstack" and node.params.get("axis", 0) == 0:
            (x,) = self.operands[node]
            return f"{names[x.source, x.output]}[{k}]"
        gates: tuple[str, ...] = next((p.gates for p in reversed(node.place) if p.gates), ())
        if node.name == "split" and len(gates) == len(node.outputs):
            return "_".join([gates[k], *map(str, node.steps)])
        return ""

    def _name(self, x: Any) -> str:
        """Return what an operand is called: a tensor, or a plain number."""
        return self.names[x.source, x.output] if isinstance(x, GraphEdge) else _number(x)

    def _gradient_name(self, node: GraphNode, k: int) -> str:
        return f"∂{self.y}/∂{self.names[node, k]}"

    # ------------------------------------------------ telling

    def explained(self) -> Explanation:
        """Tell all of it."""
        self._forward()
        self._backward()
        leaves = [node for node in self.graph.nodes if node.kind in ("parameter", "input")]
        gradients = {self.names[leaf, 0]: self.gradients[leaf, 0] for leaf in leaves}
        operations = sum(node.kind == "operation" for node in self.graph.nodes)
        head = (
            f"{self.y} from {_count(len(leaves), 'leaf', 'leaves')}, by {_count(operations, 'operation', 'operations')}"
        )
        return Explanation("\n".join([head, *self.lines]), gradients)

    def _forward(self) -> None:
        """Tell the values, in the order in which they were computed."""
        self.lines += ["", "forward"]
        where = ""
        for node in self.graph.nodes:
            where = self._heading(node, where)
            made = ", ".join(self.names[node, k] for k in range(len(node.outputs)))
            if node.kind == "operation":
                expression, plugged = self._expression(node, self._name), self._plugged(node)
                made += f" = {expression}{f' = {plugged}' if plugged not in ('', expression) else ''}"
            values = [_value(y, y.values) for y in node.outputs]
            self.lines.append(f"  {made}{values[0] if len(values) == 1 else ''}")
            if len(values) > 1:
                self.lines += [f"    {self.names[node, k]}{value}" for k, value in enumerate(values)]

    def _backward(self) -> None:
        """Tell the gradients, in the order in which the walk completes them."""
        self.lines += ["", "backward"]
        where = ""
        leaves = [node for node in self.graph.nodes if node.kind in ("parameter", "input")]
        operations = [node for node in reversed(self.graph.nodes) if node.kind == "operation"]
        for node in (*operations, *leaves):
            for k in range(len(node.outputs)):
                if (node, k) in self.gradients:
                    where = self._heading(node, where)
                    self._gradient(node, k)

    def _heading(self, node: GraphNode, where: str) -> str:
        """Begin a paragraph where another step or module begins."""
        here = _where(node) if node.kind == "operation" else where
        if here != where:
            self.lines.append(f" {here or 'outside'}:")
        return here

    def _gradient(self, node: GraphNode, k: int) -> None:
        """Tell how the gradient of one tensor comes about."""
        y, uses = self._gradient_name(node, k), self.uses[node, k]
        total = _value(node.outputs[k], self.gradients[node, k])
        if not uses:
            self.lines.append(f"  {y}{total}")
        elif len(uses) == 1:
            self.lines.append(f"  {y} = {self._contribution(uses[0])}{total}")
        else:
            self.lines.append(f"  {y}, the sum over {len(uses)} uses:")
            for use in uses:
                through = [self.names[use.node, j] for j in range(len(use.node.outputs))]
                through = [f"from {', '.join(through[:4])}", *([_where(use.node)] if _where(use.node) else [])]
                value = _value(node.outputs[k], use.gradient)
                self.lines.append(f"    {', '.join(through)}: {self._contribution(use)}{value}")
            self.lines.append(f"    together{total}")

    def _contribution(self, use: _Use) -> str:
        """Return ∂y/∂(what a tensor was used for) · the derivative of that, in letters and, of scalars, in numbers."""
        node, k = use.node, use.k
        flowing = [self._gradient_name(node, j) for j in range(len(node.outputs)) if (node, j) in self.gradients]
        op = registry[node.name]
        names = dict(zip(_operand_names(op, self.operands[node]), map(self._name, self.operands[node]), strict=True))
        rules = FORMULAS.get(node.name, ()) if node.name in BUILT_IN else ()
        formula = (rules[k] if k < len(rules) else rules[-1]) if rules else f"the rule of {node.name!r} for {{g}}"
        assert formula is not None
        scalar = _is_scalar(node) and all(x.source.outputs[x.output].shape == () for x in self._tensors(node))
        told = formula if scalar else formula.replace("·", "⊙")
        told = told.format_map(names | {"y": self.names[node, 0], "g": ", ".join(flowing)})
        target = self.operands[node][k]
        stretched = use.gradient.shape != node.outputs[0].shape and "@" not in formula
        if stretched and (node.name in _ELEMENTWISE or (node.name, k) == ("linear", 2)):
            told += f", summed to {shape_of(target.source.outputs[target.output])}"
        if scalar and formula not in ("{g}", "−{g}"):
            g, local = self.gradients[node, 0], self._local(node, k)
            told += f" = {_number(g)} · {_number(local)}"
        return told

    def _local(self, node: GraphNode, k: int) -> Any:
        """Return the derivative of an operation on scalars: what its rule makes of 1."""
        made = self.made[node]
        one = self.ops.backend.full((), 1, made.outputs[0].dtype)
        needs = tuple(parent is not None for parent in made.parents)
        return made.pull_back(self.ops, [one], needs, Rooms({}))[k]

    def _tensors(self, node: GraphNode) -> list[GraphEdge]:
        return [x for x in self.operands[node] if isinstance(x, GraphEdge)]

    def _expression(self, node: GraphNode, told: Any) -> str:
        """Return what was computed, in the signs of mathematics: `x ⊙ w`, `tanh(v2)`."""
        operands, sign = [told(x) for x in self.operands[node]], SYMBOLS.get(node.name, "")
        if node.name == "linear":
            return "{} @ {} + {}".format(*operands)
        if node.name == "negative":
            return f"−{operands[0]}"
        if node.name == "getitem":
            return operands[0] + title_of(node).removeprefix("x")
        if sign and len(operands) == 2:
            left = f"({operands[0]})" if node.name == "power" and operands[0].startswith("−") else operands[0]
            return f"{left} {sign} {operands[1]}"
        axis = node.params.get("axis")
        over = f" over axis {axis}" if axis is not None and node.name in ("sum", "max", "min", "logsumexp") else ""
        return f"Σ {operands[0]}{over}" if node.name == "sum" else f"{sign or node.name}({', '.join(operands)}{over})"

    def _plugged(self, node: GraphNode) -> str:
        """Return what was computed with the numbers in place of the letters; for scalars alone."""
        known = [x.source.outputs[x.output] for x in self._tensors(node)]
        if not _is_scalar(node) or any(y.shape != () or y.values is None for y in known):
            return ""

        def number(x: Any) -> str:
            return _number(x.source.outputs[x.output].values if isinstance(x, GraphEdge) else x)

        return self._expression(node, number).replace("⊙", "·")


_ELEMENTWISE = {name for name, rules in FORMULAS.items() if len(rules) > 1} - {"matmul", "linear"} | {"broadcast_to"}


def _operands(graph: Graph) -> dict[GraphNode, list[Any]]:
    """Return the operands of each operation in their order: edges, and plain numbers."""
    entering: dict[GraphNode, list[GraphEdge]] = defaultdict(list)
    for edge in graph.edges:
        entering[edge.target].append(edge)
    operands: dict[GraphNode, list[Any]] = {}
    for node in graph.nodes:
        if node.numbers:
            rest, names = iter(entering[node]), registry[node.name].operands
            operands[node] = [node.numbers[name] if name in node.numbers else next(rest) for name in names]
        else:
            operands[node] = entering[node]
    return operands


def _operand_names(op: Primitive, operands: Any) -> list[str]:
    """Return a name for each operand; those of `*xs` are all called xs."""
    return list(op.operands) if len(op.operands) == len(operands) else list(op.operands) * len(operands)


# ---------------------------------------------------------------- words and numbers


def _where(node: GraphNode) -> str:
    """Return where an operation happened: `t = 2 in RNN.cells.0`."""
    path = ".".join(p.name or p.title for p in node.place if p.kind == "module")
    when = ", ".join(f"t = {p.steps[0]}" for p in node.place if p.kind == "step")
    return " in ".join(filter(None, [when, path]))


def _is_scalar(node: GraphNode) -> bool:
    return len(node.outputs) == 1 and node.outputs[0].shape == ()


def _value(y: Output, values: Any) -> str:
    """Return what stands behind a name: ` = −6`, ` (2×2) = [[1, 2], [3, 4]]`, or the norm of many numbers."""
    told = f" ({shape_of(y)})" if y.shape else ""
    if values is None:
        return f"{told}, values not kept"
    if values.size > MOST_NUMBERS:
        norm = math.sqrt(float((abs(values.astype("float64")) ** 2).sum()))
        return f"{told}, norm {_number(norm)}"
    return f"{told} = {_nested(values.tolist())}"


def _nested(values: Any) -> str:
    return f"[{', '.join(map(_nested, values))}]" if isinstance(values, list) else _number(values)


def _number(x: Any) -> str:
    """Return a number to four digits, with a true minus sign."""
    x = x.item() if hasattr(x, "item") else x
    return str(x) if isinstance(x, bool) else f"{x or 0:.4g}".replace("-", "−")  # and 0 for −0


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"
