"""The graph, and the one walk back through it.

Every recorded operation leaves a `Node`. Nodes point from results to inputs only, so there are no cycles and reference
counting frees a graph; and a node is always younger than its inputs, so that serial numbers, descending, are an order
in which a gradient is complete when its turn comes. `walk` does no more than that, with no recursion. Backpropagation
through time is this walk, on the graph that a loop over time left behind.
"""

from __future__ import annotations

import functools
import heapq
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

from tinyrnn import primitives
from tinyrnn.backends import Backend, DType
from tinyrnn.errors import BackendError, DTypeError, GraphError, IndexRangeError, ShapeError, TinyRNNError
from tinyrnn.primitives import Outer, Primitive, Slice, Spread

# ---------------------------------------------------------------- where and when


class Scope:
    """Where and when an operation happened: a module, or a step in time, inside another scope.

    Fields: parent; module; step, with `loop`, which is one and the same object for all steps of one loop; back, whether
        it is the way back through what happened in the parent, in a backward pass that is recorded.
    """

    __slots__ = ("back", "loop", "module", "parent", "step")

    def __init__(
        self,
        parent: Scope | None,
        module: Any = None,
        step: int | None = None,
        loop: Any = None,
        back: bool = False,
    ) -> None:
        self.parent, self.module, self.step, self.loop, self.back = parent, module, step, loop, back

    def __str__(self) -> str:
        """Read like `CharRNN.lstm.cells.0, step t=3`: attribute names below the outermost module's type."""
        chain = list(reversed(list(self.outward())))
        modules = [scope.module for scope in chain if scope.module is not None]
        path = [type(modules[0]).__name__] if modules else []
        for parent, child in itertools.pairwise(modules):
            path.append(parent.name_of(child) or type(child).__name__)
        steps = [f"step t={scope.step}" for scope in chain if scope.step is not None]
        return ", ".join([".".join(path), *steps] if path else steps)

    def outward(self) -> Iterator[Scope]:
        """Yield this scope, the one around it, and so on."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent


def inside(scope: Scope | None) -> str:
    """Return ` in LSTM, step t=3`, or nothing where there is nothing to say."""
    where = str(scope) if scope else ""
    return f" in {where}" if where else ""


class Mode(NamedTuple):
    """What holds for the operations of this thread or task: is a graph recorded, are kernels run, who listens.

    Fields:
        fused: whether fused functions run as kernels.
        products: the type that matrix products of float32 compute in, None for float32 itself.
        listener: called after each operation with (op, operands, params, result).
        back_listener: called as gradients flow back, with (node, gys, what flows on, the edge it flows to) for each
            operand and (node, parts, their sum, None) where what flowed in has been added up.
        timer: runs each computation, and returns its result: (direction, op, scope, computation) with "forward",
            "backward" for a rule, or "sum" for adding up what flowed into one tensor (op is then the node's).
    """

    grad: bool = True
    fused: bool = True
    products: DType | None = None
    listener: Callable[[Primitive, tuple[Any, ...], dict[str, Any], Any], None] | None = None
    back_listener: Callable[[Node, list[Any], Any, Edge | None], None] | None = None
    timer: Callable[[str, Primitive | None, Scope | None, Callable[[], Any]], Any] | None = None


_mode: ContextVar[Mode] = ContextVar("tinyrnn.mode", default=Mode())  # noqa: B039  # a NamedTuple cannot be changed
current_mode = _mode.get

_scope: ContextVar[Scope | None] = ContextVar("tinyrnn.scope", default=None)
current_scope = _scope.get


F = TypeVar("F", bound=Callable[..., Any])


class changed_mode:
    """Change fields of the mode inside a `with` block, or for the calls of a decorated function."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields
        self.before: list[Mode] = []  # a stack, since one object may be entered again inside its own block

    def __enter__(self) -> None:
        self.before.append(_mode.get())
        _mode.set(self.before[-1]._replace(**self.fields))

    def __exit__(self, *exc: object) -> None:
        _mode.set(self.before.pop())

    def __call__(self, function: F) -> F:
        """Run each call of `function` in such a block."""
        if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
            raise DTypeError(
                f"{function.__name__} is suspended and goes on later, in between it would change the mode of others; "
                "write `with tr.no_grad():` inside it, around lines that neither yield nor await"
            )

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with changed_mode(**self.fields):
                return function(*args, **kwargs)

        return cast("F", call)


def no_grad() -> changed_mode:
    """Record no graph: `with tr.no_grad(): ...`, or `@tr.no_grad()` above a function. Local to the thread or task.

    >>> import tinyrnn as tr
    >>> w = tr.tensor(1.0, requires_grad=True)
    >>> with tr.no_grad():
    ...     w -= 0.25  # in place; outside this block it is an error
    >>> w.item(), w.requires_grad
    (0.75, True)
    """
    return changed_mode(grad=False)


def enable_grad() -> changed_mode:
    """Record a graph again inside a `no_grad` block.

    >>> import tinyrnn as tr
    >>> w = tr.tensor(3.0, requires_grad=True)
    >>> with tr.no_grad(), tr.enable_grad():
    ...     slope = tr.grad(w * w, w)
    >>> slope.item()
    6.0
    """
    return changed_mode(grad=True)


def mixed_precision(dtype: Any = "float16") -> changed_mode:
    """Compute matrix products in half precision: `with tr.mixed_precision(): ...`, or `@tr.mixed_precision()`.

        a b = float32(float16(a) float16(b))

    The float32 operands of `@`, `matmul` and `linear` are rounded, and the product is float32 again. The casts are
    operations of the graph, so the products of the backward pass are in half precision too. All else is as it was:
    parameters and their gradients, the states of a cell, softmax, losses, norms and optimisers are float32. Operands of
    other types are left alone. It is for devices with matrix units (tensor cores); NumPy computes such products slowly.

    float16 ends at 65,504 and loses what is under 6e-8, where gradients often are: `optim.LossScaler` lifts them.

    Args: dtype, "float16"; "float32" computes products as usual, inside a block that does not.
    Source: Micikevicius et al. 2018, "Mixed Precision Training".
    Raises: DTypeError for another dtype.

    >>> import tinyrnn as tr
    >>> with tr.mixed_precision():
    ...     y = tr.tensor([[1.0, 1.0]]) @ tr.tensor([[2048.0], [1.0]])
    >>> y.item(), y.dtype  # float16 has no 2049
    (2048.0, tinyrnn.float32)
    """
    kind = DType.of(dtype)
    if kind not in (DType.float16, DType.float32):
        raise DTypeError(f"mixed_precision: dtype is {kind}; expected 'float16', or 'float32' for products as usual")
    return changed_mode(products=None if kind is DType.float32 else kind)


def is_grad_enabled() -> bool:
    """Tell whether operations on tensors that require a gradient are recorded.

    >>> import tinyrnn as tr
    >>> with tr.no_grad():
    ...     print(tr.is_grad_enabled())
    False
    """
    return _mode.get().grad


class in_module:
    """Mark what happens inside the block as the work of `module`."""

    __slots__ = ("around", "module")

    def __init__(self, module: Any) -> None:
        self.module = module

    def __enter__(self) -> None:
        self.around = _scope.get()
        _scope.set(Scope(self.around, self.module))

    def __exit__(self, *exc: object) -> None:
        _scope.set(self.around)


def steps(T: int | Iterable[int]) -> Iterator[int]:
    """Count time: `for t in tr.steps(T)` is `for t in range(T)`, and each operation in it knows its t.

    Errors, pictures and gradient flow read it. Loops nest; `break` ends one as usual. A range or any other iterable of
    ints counts as it says: `tr.steps(reversed(range(T)))`.

    >>> import tinyrnn as tr
    >>> h = tr.tensor(0.0)
    >>> for t in tr.steps(3):
    ...     h = 0.5 * h + 1.0
    >>> h.item()
    1.75
    """
    return _counted(range(T) if isinstance(T, int) else T, _scope.get())


def _counted(times: Iterable[int], around: Scope | None) -> Iterator[int]:
    """Yield the times, each in a scope inside `around`: where the loop began, so that two loops may go side by side."""
    now, loop = around, object()
    try:
        for t in times:
            now = Scope(around, None, t, loop)
            _scope.set(now)
            yield t
    finally:
        here = _scope.get()  # somewhere else, if a loop was left unfinished and is let go of later
        if here is not None and any(scope is now for scope in here.outward()):
            _scope.set(around)


# ---------------------------------------------------------------- the graph


class Meta:
    """A tensor's shape, dtype and backend, without its values."""

    __slots__ = ("backend", "dtype", "shape")

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("the rule reads values that `saves` of the primitive does not name; name them there")

    __array__ = __array_ufunc__ = __bool__ = __eq__ = __neg__ = __abs__ = _refuse  # whatever a rule computes with it
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __pow__ = __rpow__ = __lt__ = __le__ = __gt__ = __ge__ = __getitem__ = _refuse
    __hash__ = object.__hash__

    version = 0  # no values, so none that could change

    def __init__(self, shape: tuple[int, ...], dtype: DType, backend: Backend) -> None:
        self.shape, self.dtype, self.backend = shape, dtype, backend

    def __repr__(self) -> str:
        return f"{self.dtype.value}{list(self.shape)} (values not saved)"


_serial = itertools.count().__next__


class Clock:
    """Counts changes in place, so that a node can tell whether an operand was changed after it had been used."""

    now = 0

    def tick(self) -> int:
        """Return the time of a change that happens now."""
        self.now += 1
        return self.now


changes = Clock()


class Node:
    """One operation that happened, or a leaf: a tensor that the user made and wants a gradient for.

    Fields:
        op: the primitive, None for a leaf; params: its parameters.
        parents: for each operand the (node, output index) it came from, None if no gradient goes there.
        operands: each as its rule will read it: a saved Tensor, a Python scalar, or a Meta. None once freed.
        saved: the arrays it returned, where a rule reads them.
        outputs: a Meta for each tensor it returned; several: as a tuple. serial: when. scope: where.
        born: the time on the clock of changes in place when it was made.
        grads, hooks: by output index: gradients that `backward` leaves here, and functions that see them pass.
    """

    __slots__ = (
        "born",
        "grads",
        "hooks",
        "op",
        "operands",
        "outputs",
        "params",
        "parents",
        "saved",
        "scope",
        "serial",
        "several",
    )

    def __init__(
        self,
        op: Primitive | None,
        outputs: tuple[Meta, ...],
        operands: tuple[Any, ...] = (),
        parents: tuple[tuple[Node, int] | None, ...] = (),
        saved: tuple[Any, ...] | None = None,
        params: dict[str, Any] | None = None,
        scope: Scope | None = None,
        several: bool = False,
    ) -> None:
        self.op = op
        self.outputs = outputs
        self.operands: tuple[Any, ...] | None = operands
        self.parents = parents
        self.saved = saved
        self.params = params or {}
        self.scope = scope
        self.several = several
        self.serial = _serial()
        self.born = changes.now
        self.hooks: dict[int, list[Callable[[Any], Any]]] | None = None
        self.grads: dict[int, Any] | None = {0: None} if op is None else None

    def __repr__(self) -> str:
        name = self.op.name if self.op else "leaf"
        return f"<node {self.serial} {name}{inside(self.scope)}>"

    def free(self) -> None:
        """Let go of everything that the backward pass needed."""
        self.operands, self.parents, self.saved = None, (), None

    def pull_back(self, ops: Any, gys: list[Any], needs: tuple[bool, ...], rooms: Rooms) -> tuple[Any, ...]:
        """Return what each operand receives when `gys` flow into the outputs, None where nothing did."""
        assert self.op is not None
        if self.operands is None:
            raise GraphError(_freed(self))
        if changes.now != self.born and any([getattr(x, "version", 0) > self.born for x in self.operands]):
            raise GraphError(
                f"backward: an operand of {told(self.op, self.operands, self.scope)} was changed in place (by an "
                "optimiser step, perhaps) after the forward pass had used it, so its gradient can no longer be "
                "computed; run the forward pass again"
            )
        timer = _mode.get().timer
        try:
            if timer is None:
                return self.op.pull_back(ops, self, gys, needs, rooms)
            run = functools.partial(self.op.pull_back, ops, self, gys, needs, rooms)
            return timer("backward", self.op, self.scope, run)
        except Exception as error:
            explain(error, "the gradient of ", self.op, self.operands, self.scope, self.outputs[0].backend)


def _freed(node: Node) -> str:
    where = f"{node.op.name if node.op else 'leaf'!r}{inside(node.scope)}"
    return (
        f"backward: the way back leads through {where}, whose graph an earlier "
        "backward() has used and freed. A tensor computed in an earlier batch, most often a recurrent state such as h "
        "or c, was used again: cut it off with `state = tr.detach(state)` before the next batch. (Only to walk one "
        "and the same graph twice: call the first backward(retain_graph=True).)"
    )


def told(op: Primitive, operands: Iterable[Any], scope: Scope | None) -> str:
    """Describe a call: `matmul(float32[3, 4], float32[5, 6]) in LSTM, step t=3`."""
    shown = ", ".join(f"{x.dtype!s}{list(x.shape)}" if hasattr(x, "shape") else repr(x) for x in operands)
    return f"{op.name}({shown}){inside(scope)}"


_KINDS: dict[type[Exception], type[TinyRNNError]] = {
    ValueError: ShapeError,
    TypeError: DTypeError,
    IndexError: IndexRangeError,
}

_HINTS = {  # words of NumPy's, and what to do
    "broadcast": "counted from the last axis, lengths must be equal or 1",
    "__array_ufunc__": "NumPy's functions take arrays: `forward` has `xp` for others, and a rule has `ops`",
}


def explain(
    error: Exception, what: str, op: Primitive, operands: Iterable[Any], scope: Scope | None, backend: Backend
) -> NoReturn:
    """Raise `error` again as one of ours that names the operation, its operands, the module and the time step."""
    call = f"{what}{told(op, operands, scope)}"
    see_device(error, call, backend)
    for kind, ours in _KINDS.items():
        if isinstance(error, kind) and not isinstance(error, TinyRNNError):
            hints = [hint for words, hint in _HINTS.items() if words in str(error)]
            raise ours("; ".join([f"{call}: {str(error).strip()}", *hints])) from error
    error.add_note(f"while computing {call}")
    try:
        raise error
    finally:
        del error  # it holds this frame by its traceback: a cycle, in which the graph would stay alive


def see_device(error: Exception, what: str, backend: Backend) -> None:
    """Raise a BackendError that says what to do, if `error` tells of a device that is full or lost."""
    advice = backend.failure(error)
    if advice:
        raise BackendError(f"{what}: {advice}") from error


# ---------------------------------------------------------------- the walk

Edge = tuple[Node, int]


class ArrayOps:
    """The primitives on raw arrays of one backend: `ops.exp(x)`; what an ordinary backward pass computes with."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.turned: dict[int, tuple[Any, Any, int]] = {}

    defers = True
    """Whether the sum over rows that undoes broadcasting may wait until all that is to be added has arrived."""

    computes = True
    """Whether values are computed here, by kernels where there are some; not recorded, operation by operation."""

    def transposed(self, x: Any) -> Any:
        """Return x with its last two axes exchanged; a matrix that is asked for again, laid out like that.

        A weight that was used T times is read T times, transposed, on the way back: in its own order, from then on.
        """
        n = len(x.shape)
        if n > 2:
            return self.backend.permute_dims(x, (*range(n - 2), n - 1, n - 2))
        _, y, uses = self.turned.get(id(x), (x, None, 0))
        y = self.backend.permute_dims(x, (1, 0)) if uses == 0 else self.backend.copy(y) if uses == 1 else y
        self.turned[id(x)] = x, y, uses + 1
        return y

    def __getattr__(self, name: str) -> Any:
        try:
            forward = primitives.registry[name].forward
        except KeyError:
            raise AttributeError(f"no primitive is called {name!r}") from None
        compute = functools.partial(forward, self.backend)
        if name in primitives.BUILT_IN:  # found once, an attribute from then on
            setattr(self, name, compute)
        return compute

    def operand(self, saved: Any) -> Any:
        """Return a saved operand as the rules read it: here, its array."""
        return getattr(saved, "array", saved)

    def result(self, node: Node, index: int) -> Any:
        """Return what `node` computed as the rules read it; its Meta if no rule does."""
        return node.outputs[index] if node.saved is None else node.saved[index]

    def zeros(self, meta: Meta) -> Any:
        """Return a zero gradient for a tensor like `meta`."""
        return self.backend.full(meta.shape, 0, meta.dtype)

    def own(self, g: Any) -> Any:
        """Return a gradient that shares no memory with any other."""
        return self.backend.copy(g)

    def dtype(self, g: Any) -> DType:
        """Return the element type of a gradient."""
        return self.backend.dtype(g)


def walk(
    roots: dict[Edge, Any],
    ops_on: Callable[[Backend], Any],
    *,
    wanted: set[Edge] | None = None,
    free: bool = False,
) -> dict[Edge, Any]:
    """Carry gradients from `roots` back through the graph and return those that arrive where they are wanted.

        ∂L/∂x = Σ over the uses of x of ∂L/∂y · ∂y/∂x

    Args:
        roots: the gradient that enters at each (node, output index).
        ops_on: gives the `ops` for a backend: arrays for values, Tensors for a gradient that can be differentiated.
        wanted: where gradients are asked for; None stands for every leaf and every tensor that retains its gradient.
        free: let go of each node when it is done.

    Raises: GraphError for a graph that was freed, or whose operands were changed in place.
    """
    useful = None if wanted is None else _leading_to(wanted, roots)
    ops_on = cast("Callable[[Backend], Any]", functools.cache(ops_on))  # one for this walk: it keeps what it lays out
    arriving: dict[Node, Arrived] = {}
    rooms = Rooms(arriving)
    queue: list[tuple[int, Node]] = []
    found: dict[Edge, Any] = {}

    def arrive(edge: Edge, contribution: Any) -> None:
        node, index = edge
        arrived = arriving.get(node)
        if arrived is None:
            arriving[node] = {index: [contribution]}
            heapq.heappush(queue, (-node.serial, node))
        elif index in arrived:
            arrived[index].append(contribution)
        else:
            arrived[index] = [contribution]

    for edge, gy in roots.items():
        arrive(edge, gy)
    around = _scope.get()
    try:
        while queue:
            _, node = heapq.heappop(queue)  # the youngest: all that will flow into it has arrived
            home = node.outputs[0].backend
            home.enter()
            ops = ops_on(home)
            if not ops.computes:
                _scope.set(Scope(node.scope, back=True))
            arrived = arriving.pop(node)
            try:
                gys = _complete(ops, node, arrived, rooms)
            except Exception as error:
                see_device(error, f"the gradients that flow into {node!r}", home)
                raise
            for i, gy in gys.items() if wanted is not None or node.grads else ():
                if (node, i) in wanted if wanted is not None else i in (node.grads or ()):
                    found[node, i] = ops.own(gy) if gy is arrived[i][0] or node.hooks else gy
            needs = tuple([parent is not None and (useful is None or parent[0] in useful) for parent in node.parents])
            if True in needs or node.operands is None:  # a freed node explains itself
                for edge, contribution in _sent_on(ops_on, node, gys, needs, rooms):
                    arrive(edge, contribution)
            if free and node.op is not None:
                node.free()
    finally:
        _scope.set(around)
    return found


Arrived = dict[int, list[Any]]
"""What has flowed into a node so far, by output index."""


def _complete(ops: Any, node: Node, arrived: Arrived, rooms: Rooms) -> dict[int, Any]:
    """Return the gradient of each output that has one, added up, and as the hooks would have it."""
    mode = _mode.get()
    if mode.timer is None:
        gys = {i: combine(ops, parts, node.outputs[i], rooms) for i, parts in arrived.items()}
    else:
        run = functools.partial(functools.partial, combine, ops)
        gys = {
            i: mode.timer("sum", node.op, node.scope, run(parts, node.outputs[i], rooms))
            for i, parts in arrived.items()
        }
    if mode.back_listener is not None:
        for i, parts in arrived.items():
            mode.back_listener(node, parts, gys[i], None)
    for i, hooks in (node.hooks or {}).items():
        for hook in tuple(hooks) if i in gys else ():
            gys[i] = hook(gys[i])
    return gys


class Rooms:
    """Memory for the gradients of tensors that were unstacked: all T of them side by side, as the whole one needs them.

    A rule that can write where it is told to (a fused kernel) puts ∂L/∂zₜ at its place t at once, and ∂L/∂z is there
    when the walk comes to it, with nothing to copy.
    """

    def __init__(self, arriving: dict[Node, Arrived]) -> None:
        self.arriving = arriving
        self.rooms: dict[Node, tuple[Any, list[Any]]] = {}
        self.places: dict[int, tuple[Any, int, Any]] = {}

    def landing(self, edge: Edge | None) -> Any:
        """Return the place for what flows to `edge`; None if it has none, or something else has arrived there."""
        if edge is None or edge[0].op is not primitives.unstack:
            return None
        parent, index = edge
        if parent not in self.rooms:
            if parent.params.get("axis", 0) != 0 or not parent.operands:
                return None
            whole = parent.operands[0]
            self.rooms[parent] = whole.backend.empty(whole.shape, whole.dtype), [None] * len(parent.outputs)
        room, given = self.rooms[parent]
        if given[index] is not None or index in self.arriving.get(parent, ()):
            return None
        given[index] = place = room[index]
        self.places[id(place)] = room, index, place
        return place

    def joined(self, arrays: list[Any]) -> Any:
        """Return the room that arrays are all the places of, in order; None if they are not."""
        room = None
        for k, x in enumerate(arrays):
            found, index, place = self.places.get(id(x), (None, 0, None))
            if found is None or index != k or place is not x or (room is not None and found is not room):
                return None
            room = found
        return room if room is not None and room.shape[0] == len(arrays) else None


def _sent_on(
    ops_on: Callable[[Backend], Any], node: Node, gys: dict[int, Any], needs: tuple[bool, ...], rooms: Rooms
) -> list[tuple[Edge, Any]]:
    """Return what each operand in need receives, and where it goes."""
    home, listener = node.outputs[0].backend, _mode.get().back_listener
    ops = ops_on(home)
    entering = [gys.get(i) for i in range(len(node.outputs))]
    sent: list[tuple[Edge, Any]] = []
    for parent, contribution, need in zip(
        node.parents, node.pull_back(ops, entering, needs, rooms), needs, strict=True
    ):
        if need and contribution is not None:
            assert parent is not None
            meta = parent[0].outputs[parent[1]]
            there = ops if meta.backend is home else ops_on(meta.backend)  # behind a `to`
            fitted = _fitted(there, contribution, meta, node)
            if listener is not None:
                full = [ops.zeros(node.outputs[i]) if gy is None else gy for i, gy in enumerate(entering)]
                listener(node, full, fitted, parent)
            sent.append((parent, fitted))
    return sent


def _leading_to(wanted: set[Edge], roots: Iterable[Edge]) -> set[Node]:
    """Return the nodes between `roots` and `wanted`: all others need no gradient."""
    targets = {node for node, _ in wanted}
    oldest = min((node.serial for node in targets), default=0)
    reached: set[Node] = set()
    frontier = [node for node, _ in roots]
    while frontier:
        node = frontier.pop()
        if node not in reached and node.serial >= oldest:
            reached.add(node)
            frontier.extend(parent[0] for parent in node.parents if parent is not None)
    useful: set[Node] = set()
    for node in sorted(reached, key=lambda node: node.serial):
        freed = node.operands is None  # kept, so that the walk comes to it and explains
        if node in targets or freed or any(p is not None and p[0] in useful for p in node.parents):
            useful.add(node)
    return useful


_UNFINISHED = (Slice, Outer, Spread)


def combine(ops: Any, parts: list[Any], meta: Meta, rooms: Rooms | None = None) -> Any:
    """Add up what flowed into one tensor. Never writes into an array that a rule returned or a user holds."""
    if len(parts) == 1 and not isinstance(parts[0], _UNFINISHED):
        return parts[0]
    dense = [part for part in parts if not isinstance(part, _UNFINISHED)]
    slices = [part for part in parts if isinstance(part, Slice)]
    outers = [part for part in parts if isinstance(part, Outer)]
    spreads = [part for part in parts if isinstance(part, Spread)]
    if slices:
        indices = tuple(part.index for part in slices)
        dense.append(ops.scatter(*(part.gradient for part in slices), indices=indices, shape=meta.shape))
    if outers:  # Σₜ aₜᵀ gₜ is one product of all the rows
        outers.reverse()  # the walk met the last first; in order of time, neighbours in memory are neighbours here
        a = _rows(ops, [part.a for part in outers], rooms)
        g = _rows(ops, [part.gradient for part in outers], rooms)
        dense.append(ops.matmul(ops.transpose(a, axes=(1, 0)), g))
    if spreads:
        spreads.reverse()
        g = ops.sum(_rows(ops, [part.gradient for part in spreads], rooms), axis=0)
        dense.append(g if ops.dtype(g) is meta.dtype else ops.astype(g, dtype=meta.dtype))
    return dense[0] if len(dense) == 1 else ops.accumulate(*dense)


def _rows(ops: Any, blocks: list[Any], rooms: Rooms | None) -> Any:
    joined = rooms.joined(blocks) if rooms is not None and len(blocks) > 1 else None
    if joined is not None:
        return ops.reshape(joined, shape=(math.prod(joined.shape[:-1]), joined.shape[-1]))
    flat = [x if len(x.shape) == 2 else ops.reshape(x, shape=(math.prod(x.shape[:-1]), x.shape[-1])) for x in blocks]
    return flat[0] if len(flat) == 1 else ops.concatenate(*flat, axis=0)


def _fitted(ops: Any, g: Any, meta: Meta, node: Node) -> Any:
    """Give a gradient the shape and dtype of its tensor: undo broadcasting and promotion."""
    if isinstance(g, _UNFINISHED):
        return g
    if not hasattr(g, "shape"):
        raise DTypeError(f"the gradient of {node!r} is {type(g).__name__}; expected an array, a Slice or an Outer")
    if g.shape != meta.shape and tuple(g.shape) != meta.shape:
        if ops.defers and len(meta.shape) == 1 < len(g.shape) and g.shape[-1:] == meta.shape:
            return Spread(g)
        extra = len(g.shape) - len(meta.shape)
        padded = (1,) * extra + meta.shape
        stretched = tuple(i for i, (n, m) in enumerate(zip(g.shape, padded, strict=False)) if m == 1 and n != 1)
        if extra < 0 or any(n != m for i, (n, m) in enumerate(zip(g.shape, padded, strict=True)) if i not in stretched):
            raise ShapeError(
                f"the gradient of {node!r} has shape {tuple(g.shape)} for an operand of shape {meta.shape}; "
                "expected that shape, or one that it broadcasts to"
            )
        g = ops.reshape(ops.sum(g, axis=stretched, keepdims=True), shape=meta.shape)
    return g if ops.dtype(g) is meta.dtype else ops.astype(g, dtype=meta.dtype)
