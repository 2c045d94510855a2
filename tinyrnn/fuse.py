"""Fusing: a function written in the textbook's equations, run as one kernel forward and one backward.

    @fused
    def lstm_step(z, r, c):
        i, f, g, o = split(z + r, 4)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c

Nothing is derived twice. For each new combination of shapes and dtypes the function runs once on symbols
(`symbols.py`, `traced.py`); the graph that this leaves is an ordinary one, and the ordinary walk carries symbols back
through it by the primitives' own rules. What both compute is an expression for each element, and the backend of the
operands makes one loop of it (`lowering.py`, `backends/kernel.py`).

The forward kernel keeps what the backward kernel reads and is dear to compute again (σ, tanh), in one array, the
*stack*. It is a result like any other, and has a gradient. So every order of derivative exists: where the backward pass
is recorded, the expressions are replayed on tensors, operation by operation.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tinyrnn.autograd import ArrayOps, Node, Rooms, changed_mode, current_mode
from tinyrnn.backends import Backend, Input, Kernel
from tinyrnn.errors import FusionError
from tinyrnn.lowering import Grid, NoKernel, Writer, kept
from tinyrnn.primitives import Primitive
from tinyrnn.symbols import Symbol, Trace
from tinyrnn.tensor import Tensor, execute, operand
from tinyrnn.traced import Replay, Traced


def fusion(enabled: bool) -> changed_mode:
    """Run fused functions as kernels, or, with `enabled` False, primitive by primitive: `with tr.fusion(False): ...`.

    Each operation is then one of its own: in graphs, in profiles and in errors.

    >>> import tinyrnn as tr
    >>> with tr.fusion(False), tr.profile() as report:
    ...     y = tr.gelu(tr.ones(2, 3))
    >>> sorted(row.op for row in report.by_operation())  # as a kernel it is one
    ['add', 'multiply', 'tanh']
    """
    return changed_mode(fused=enabled)


class fused:
    """Run an elementwise function of tensors as one kernel forward and one backward.

    The function may use elementwise operations and `split(x, n)` along the last axis, and is given everything else,
    such as matrix products, as arguments: tensors; floats, which may change from call to call; and other Python values,
    which are constants of the kernel. It returns a tensor or a tuple of them. It may not look at values: not `if x > 0`
    but `tr.where(x > 0, a, b)`.

    It runs primitive by primitive, with the same result, where a kernel cannot be made: on a backend that compiles
    none, for shapes that are not rows and columns (see `Kernel`), under `tr.fusion(False)`, and while somebody watches
    each operation (anomaly mode, a gradient check, an export).

    Attributes: source, the kernels of the last call, as text.
    Raises: FusionError for a function that does more than that, at its first call.

    >>> import tinyrnn as tr
    >>> @tr.fused
    ... def leaky_relu(x, slope):
    ...     return tr.where(x > 0, x, slope * x)
    >>> leaky_relu(tr.tensor([-2.0, 3.0]), 0.5).tolist()
    [-1.0, 3.0]
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.plans: dict[Any, Plan | None] = {}
        self.latest: Plan | None = None

    def __call__(self, *operands: Any, **named: Any) -> Any:
        """Call the function."""
        if named:
            bound = inspect.signature(self.function).bind(*operands, **named)
            if bound.kwargs:
                raise FusionError(
                    f"@fused {self.function.__name__}: {', '.join(bound.kwargs)} can be given by name only; take "
                    "the * out of its parameters, since operands have places"
                )
            return self(*bound.args)
        mode = current_mode()
        if not mode.fused or mode.listener is not None:
            return self.function(*operands)
        key: list[Any] = []
        backend, recorded = None, False
        for x in operands:
            if isinstance(x, Tensor):
                array, backend = x.array, backend or x.backend
                if x.backend is not backend:
                    return self.function(*operands)  # which says so
                key += (array.shape, array.dtype)
                recorded = recorded or x.node is not None
            elif type(x) is float:
                key.append(float)  # one is like another
            elif isinstance(x, list) or hasattr(x, "shape"):  # data, or a number of NumPy's
                return self(*[operand(x) for x in operands])
            else:
                key += (type(x), x)
        if backend is None or isinstance(backend, Trace):
            return self.function(*operands)
        key.append(backend.home)
        try:
            plan = self.plans[tuple(key)]
        except KeyError:
            plan = self._planned(tuple(key), operands, backend.home)
        if plan is None or (recorded and any([operands[k].node for k in plan.traced.columns])):
            return self.function(*operands)
        self.latest = plan
        op = plan.recorded if recorded and mode.grad else plan.plain
        results = execute(op, backend, tuple([operands[k] for k in plan.read]), {})
        return results[0] if plan.single else results

    def _planned(self, key: Any, operands: tuple[Any, ...], home: Backend) -> Plan | None:
        """Trace the function for new operands; None where it is to run primitive by primitive."""
        plan = Plan.of(self.function, operands, home)
        if len(self.plans) > 256:  # shapes without end: forget, the compiled kernels are kept elsewhere
            self.plans.clear()
        self.plans[key] = plan
        return plan

    @property
    def source(self) -> str:
        """The kernels of the last call, forward and backward, as its backend runs them."""
        if self.latest is None:
            return f"{self.function.__name__}: not traced yet; call it once"
        return "\n".join(self.latest.home.source(kernel) for kernel in self.latest.kernels)

    def __reduce__(self) -> str:
        return self.function.__qualname__  # copied and pickled as a plain function is: not, and by its name

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self if instance is None else functools.partial(self, instance)


# ---------------------------------------------------------------- a function for operands of certain shapes


class Plan:
    """The kernels of a function, for operands of certain shapes and dtypes on a certain backend.

    Fields:
        names: of the operands, as the function calls them.
        plain, recorded: the operation as it is run where no graph, and where a graph is recorded.
        read: the operands that are not constants. stack: the symbols on the stack.
        backward: the kernel that computes `gradients`, each different one once: `written`, which `users` receive.
    """

    def __init__(self, function: Callable[..., Any], operands: Sequence[Any], home: Backend) -> None:
        self.home, self.name = home, function.__name__ if function.__name__.isidentifier() else "fused"
        self.traced = traced = Traced(function, operands)
        self.single = traced.single
        self.names = names_of(function, len(operands))
        self.read = [k for k, s in enumerate(traced.inputs) if s is not None]
        try:
            gradients = traced.gradients()
        except FusionError as error:  # a sum over columns, where a lane of width 1 was repeated
            raise NoKernel from error
        self.gradients = [gradients[k] for k in self.read]
        self.grid = Grid(traced, self.gradients)
        self.whole, results, self.stack = kept(traced, self.grid, self.gradients)
        self.results = sorted(results)
        if any(s.dtype is not self.stack[0].dtype for s in self.stack):
            raise NoKernel
        self.plain, self.recorded = FusedOp(self, False), FusedOp(self, True)
        self.written = list(dict.fromkeys(g for g in self.gradients if g is not None))
        self.users = [[k for k, other in enumerate(self.gradients) if other is g] for g in self.written]
        at = {g: n for n, g in enumerate(self.written)}
        self.found = [(None, ()) if g is None else (at[g], g.shape) for g in self.gradients]
        self.backward = self._backward() if self.written else None

    @staticmethod
    def of(function: Callable[..., Any], operands: Sequence[Any], home: Backend) -> Plan | None:
        """Return a plan, None where no kernel can be made for these shapes."""
        if any(isinstance(x, Tensor) and not x.shape for x in operands):  # the gradient of a single number is a sum
            return None
        try:
            return Plan(function, operands, home)
        except NoKernel:
            return None

    @property
    def kernels(self) -> list[Kernel]:
        """The kernels, forward and backward."""
        return [self.recorded.kernel, *([self.backward] if self.backward else [])]

    def _backward(self) -> Kernel:
        traced, grid, write = self.traced, self.grid, Writer(f"{self.name}_backward", self.grid)
        for k in self.operands_read:
            write.read(*_operand(self, k))
        for k in self.results:
            y = traced.results[k]
            write.read(Input(y.dtype, "rows", y.shape[-1] // grid.C, f"result {k}"), grid.lanes(y))
        if self.stack:
            write.read(Input(self.stack[0].dtype, "stack", len(self.stack), "the stack"), self.stack)
        for n, gy in enumerate(traced.gys):
            write.read(Input(gy.dtype, "rows", gy.shape[-1] // grid.C, f"gradient of result {n}"), grid.lanes(gy))
        for g, users in zip(self.written, self.users, strict=True):
            names = " and ".join(self.names[self.read[k]] for k in users)
            write.write("rows", grid.lanes(g), f"gradient of {names}")
        return write.kernel()

    @functools.cached_property
    def run_backward(self) -> Any:
        """The backward kernel, ready to run; None if the backend has none."""
        return None if self.backward is None else self.home.compile(self.backward)

    @functools.cached_property
    def symbols(self) -> dict[int, Symbol]:
        """The symbol of each operand that is not a constant."""
        return {k: s for k, s in enumerate(self.traced.inputs) if s is not None}

    @functools.cached_property
    def operands_read(self) -> list[int]:
        """The operands, by number, that the backward kernel reads."""
        return sorted(self.whole | self.traced.floats)

    @functools.cached_property
    def places_read(self) -> list[int]:
        """Where these stand among the operands of the node."""
        return [self.read.index(k) for k in self.operands_read]

    @functools.cached_property
    def stack_gys(self) -> list[Symbol]:
        """A symbol for the gradient that flows into each place of the stack."""
        shape = (*self.grid.leading, self.grid.C)
        return [self.traced.trace.symbol("input", (f"gs{n}",), shape, s.dtype) for n, s in enumerate(self.stack)]

    @functools.cached_property
    def all_gradients(self) -> list[Symbol | None]:
        """The gradients, where one flows into the stack too: in a second derivative."""
        gradients = self.traced.gradients(zip(self.stack, self.stack_gys, strict=True))
        return [gradients[k] for k in self.read]


def names_of(function: Callable[..., Any], count: int) -> list[str]:
    """Return the names of a function's first operands; those of *args are numbered."""
    parameters = list(inspect.signature(function).parameters.values())
    several = parameters[-1].name if parameters and parameters[-1].kind is inspect.Parameter.VAR_POSITIONAL else ""
    names = [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_POSITIONAL]
    return [names[k] if k < len(names) else f"{several}{k - len(names)}" for k in range(count)]


def _operand(plan: Plan, k: int) -> tuple[Input, list[Symbol]]:
    """Return how a kernel reads an operand, and the symbols that it reads."""
    s, layout = plan.symbols[k], plan.grid.layouts[k]
    assert layout is not None
    return replace(layout, meaning=plan.names[k]), plan.grid.lanes(s) if s.shape else [s]


class FusedOp(Primitive):
    """A fused function as an operation of the graph: a primitive whose rules are kernels.

    Where it is recorded, it returns the stack too, behind its results; nobody but its own rule sees it.
    """

    def __init__(self, plan: Plan, recorded: bool) -> None:
        stack = plan.stack if recorded else []
        reads = {plan.names[k] for k in plan.whole} | ({"y"} if plan.results or stack else set())
        fields: dict[str, Any] = {
            "name": plan.name,
            "operands": tuple(plan.names[k] for k in plan.read),
            "vjp": self.pull_back if recorded else None,
            "saves": tuple(reads),
            "dtype": None,
            "hidden": 1 if stack else 0,
            "unread": frozenset(range(len(plan.traced.results))) - frozenset(plan.results),
            "plan": plan,
            "stack": stack,
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self._lay_out()

    plan: Plan
    stack: list[Symbol]
    kernel: Kernel
    shapes: list[tuple[int, ...]]
    nothing: tuple[None, ...]

    def _lay_out(self) -> None:
        """Write the kernel, and note the shapes of what it writes: each result by itself, so that it may be let go."""
        traced, grid = self.plan.traced, self.plan.grid
        write = Writer(self.name, grid)
        for k in self.plan.read:
            write.read(*_operand(self.plan, k))
        for k, y in enumerate(traced.results):
            write.write("rows", grid.lanes(y), f"result {k}")
        shapes = [y.shape for y in traced.results]
        if self.stack:
            write.write("stack", self.stack, "the stack")
            shapes.append((len(self.stack), *grid.leading, grid.C))
        object.__setattr__(self, "kernel", write.kernel())
        object.__setattr__(self, "nothing", (None,) * len(write.outputs))
        object.__setattr__(self, "shapes", shapes)

    def forward(self, xp: Any, *arrays: Any) -> tuple[Any, ...]:
        """Compute the results and, recorded, the stack: by the kernel or, without one, by replay."""
        run = self.run if xp is self.plan.home else xp.compile(self.kernel)
        if run is None:
            return self._replayed(xp, *arrays)
        written = run(self.plan.grid.R, self.plan.grid.C, arrays, self.nothing)
        return tuple([_shaped(y, shape) for y, shape in zip(written, self.shapes, strict=True)])

    @functools.cached_property
    def run(self) -> Any:
        """The kernel, ready to run; None if the backend has none."""
        return self.plan.home.compile(self.kernel)

    def _replayed(self, xp: Any, *arrays: Any) -> tuple[Any, ...]:
        plan = self.plan
        run = Replay(ArrayOps(xp), xp, {plan.symbols[k]: x for k, x in zip(plan.read, arrays, strict=True)})
        results = [run.whole(s) for s in plan.traced.results]
        if self.stack:
            shape = (*plan.grid.leading, plan.grid.C)
            results.append(run.ops.stack(*[run.whole(s, shape) for s in self.stack]))
        return tuple(results)

    def reads(self, needs: tuple[bool, ...]) -> set[str]:
        """Name what the rule reads: it computes all gradients at once."""
        return set(self.saves)

    def pull_back(self, ops: Any, node: Node, gys: list[Any], needs: tuple[bool, ...], rooms: Rooms) -> tuple[Any, ...]:
        """Return the gradient of each operand: by the kernel on arrays, by replay on tensors."""
        plan, count = self.plan, len(self.plan.traced.results)
        into_stack = gys[count] if self.stack else None
        gys = [ops.zeros(node.outputs[i]) if gys[i] is None else gys[i] for i in range(count)]
        run = self._run_backward(ops) if ops.computes and into_stack is None else None
        if run is None:
            return self._replayed_back(ops, node, gys, into_stack)
        assert node.operands is not None
        inputs = [ops.operand(node.operands[n]) for n in plan.places_read]
        if node.saved is not None:
            inputs += [node.saved[k] for k in plan.results]
            inputs += node.saved[count:]  # the stack
        out = [self._slot(users, node, rooms) for users in plan.users]
        written = run(plan.grid.R, plan.grid.C, [*inputs, *gys], out)
        return tuple([None if n is None else _shaped(written[n], shape) for n, shape in plan.found])

    def _run_backward(self, ops: Any) -> Any:
        plan = self.plan
        if ops.backend is plan.home or plan.backward is None:
            return plan.run_backward
        return ops.backend.compile(plan.backward)

    def _slot(self, users: list[int], node: Node, rooms: Rooms) -> Any:
        """Return the memory that a gradient should be written to, where it has a place that is free."""
        for k in users:
            slot = rooms.landing(node.parents[k])
            if slot is not None:
                return slot
        return None

    def _replayed_back(self, ops: Any, node: Node, gys: list[Any], into_stack: Any) -> tuple[Any, ...]:
        plan, traced = self.plan, self.plan.traced
        assert node.operands is not None
        known: dict[Symbol, Any] = dict(zip(traced.gys, gys, strict=True))
        operands = dict(zip(plan.read, node.operands, strict=True))
        for k in plan.operands_read:
            known[plan.symbols[k]] = ops.operand(operands[k])
        for k in plan.results:
            known[traced.results[k]] = y = ops.result(node, k)
            for n, lane in enumerate(plan.grid.lanes(traced.results[k])):
                known.setdefault(lane, y if lane is traced.results[k] else _cut(ops, y, n, plan.grid.C))
        if self.stack:
            stack = ops.result(node, len(traced.results))
            known |= {s: ops.getitem(stack, index=n) for n, s in enumerate(self.stack)}
        if into_stack is not None:
            known |= {s: ops.getitem(into_stack, index=n) for n, s in enumerate(plan.stack_gys)}
        gradients = plan.gradients if into_stack is None else plan.all_gradients
        run = Replay(ops, node.outputs[0].backend, known)
        return tuple([None if g is None else run.whole(g) for g in gradients])


def _shaped(array: Any, shape: tuple[int, ...]) -> Any:
    return array if array.shape == shape else array.reshape(shape)


def _cut(ops: Any, y: Any, lane: int, C: int) -> Any:
    return ops.getitem(y, index=(..., slice(lane * C, (lane + 1) * C)))
