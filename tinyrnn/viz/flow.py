"""Gradient flow: how much of the gradient arrives where, on its way back through time.

Nothing is derived here. The model runs as it always does, while every cell that takes a step notes its state, and
`grad` asks the graph for ∂L_t/∂h_k: the same walk that trains the model.

Letters: T losses, one for each step t; K steps k of a cell, where their gradients arrive; B batch, H hidden.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinyrnn import primitives
from tinyrnn.autograd import Mode, changed_mode, current_mode, current_scope, enable_grad
from tinyrnn.backends import Array
from tinyrnn.errors import DTypeError, GraphError, IndexRangeError, ShapeError
from tinyrnn.functions import default_generator
from tinyrnn.nn.cells import Cell
from tinyrnn.nn.module import Module
from tinyrnn.tensor import Tensor, apply, grad

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def gradient_flow(
    model: Module,
    batch: Any,
    loss_fn: Callable[[Any, Any], Tensor],
    at: int | Sequence[int] | None = None,
    state: Any = None,
) -> GradientFlow:
    """Measure where the gradient of each step's loss goes in time, in every recurrent layer of a model.

        norms[t, k] = ‖∂L_t/∂h_k‖;   ∂h_t/∂h_k = Π ∂h_j/∂h_{j−1} over k < j ≤ t

    Args:
        model: an nn.Recurrent such as nn.LSTM, or any Module with cells in it, called as model(x), or model(x, state);
            it returns out, or out and a state.
        batch: (x, y), what the model takes and what loss_fn takes.
        loss_fn: (out, y) -> one loss for each step, (T,), or for each step and sequence, (T, B), as a loss with
            reduction="none" gives it. With (T,) a mean over the batch divides every sample's gradient by B.
        at: the step or steps t whose losses are followed; None: all, which takes T backward passes. Negative ones count
            from the end.
        state: what the recurrent layers start from, if it is not their initial state.

    Returns: a GradientFlow: `flow["cells.0"]` is what was measured in the cell of that name; where there is one cell,
        `flow.norms` and the rest are its own. Nothing of the graph stays alive, and the model, its gradients and the
        default random numbers are as they were.
    Raises: ShapeError or DTypeError for a batch or losses of another form; IndexRangeError for a t outside the losses;
        GraphError if no cell took a step, or the losses do not depend on any.
    Source: Bengio, Simard & Frasconi 1994, "Learning Long-Term Dependencies with Gradient Descent is Difficult";
        Pascanu, Mikolov & Bengio 2013, "On the Difficulty of Training Recurrent Neural Networks".

    >>> import tinyrnn as tr
    >>> def squares(out, y):
    ...     return tr.sum(out**2, axis=-1)
    >>> flow = tr.gradient_flow(tr.nn.RNN(3, 4), (tr.randn(6, 2, 3), None), squares)
    >>> flow.norms.shape, bool(flow.norms[5, 0] < flow.norms[5, 5])
    ((6, 6), True)
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        given = f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__
        raise DTypeError(f"gradient_flow: batch is {given}; expected a pair (x, y): what the model and loss_fn take")
    x, y = batch
    with enable_grad(), _Watch(model) as watch:
        result = model(x) if state is None else model(x, state)
        losses = loss_fn(result[0] if isinstance(result, tuple) else result, y)
    watches = [cell for cell in watch.cells if cell.steps]
    if not watches:
        raise GraphError(
            f"gradient_flow: no cell took a step in {type(model).__name__}; expected an nn.Recurrent, or a Module that "
            "has one or an nn.Cell as an attribute, and calls it"
        )
    _check_losses(losses, watches[0].batch)
    chosen = _chosen(at, len(losses))
    gradients = _gradients(losses, watches, chosen)
    layers = [watch.flow(len(losses), chosen, *of) for watch, of in zip(watches, gradients, strict=True)]
    return GradientFlow({layer.name: layer for layer in layers}, np.array(losses.numpy(), np.float64))


# ---------------------------------------------------------------- what was measured


@dataclass
class LayerFlow:
    """How gradients flow through one cell: one layer, in one direction.

    Fields:
        name: the cell's dotted name in the model.
        T: the number of losses.
        at: those t that were followed.
        times: (K,), the position in the sequence of each step k, which for a backward direction falls: k counts the
            steps in the order in which the cell takes them.
        gradients: by field of the state (h; h and c for an LSTM), ‖∂L_t/∂field_k‖ of each sequence, a row for each t in
            `at`: (len(at), K, B). The fields count as independent: ∂L_t/∂c_k leaves out that h_k is made of c_k.
        taken: what each step was given, with ∂L/∂field_k, for what is computed when it is first asked for;
            L = Σ_t L_t over `at`, averaged over the batch if the losses are (T, B).

    >>> import tinyrnn as tr
    >>> def squares(out, y):
    ...     return tr.sum(out**2, axis=-1)
    >>> layer = tr.gradient_flow(tr.nn.LSTM(3, 4), (tr.randn(6, 2, 3), None), squares).only
    >>> layer.norms_of("c").shape, layer.weight_shares.shape, layer.jacobian_norms.shape
    ((6, 6), (6,), (6,))
    """

    name: str
    T: int
    at: tuple[int, ...]
    times: Ints
    gradients: dict[str, Floats]
    taken: list[_Taken] = field(repr=False)

    @property
    def norms(self) -> Floats:
        """‖∂L_t/∂h_k‖, averaged over the batch: (T, K); NaN where L_t comes before h_k, or was not asked for."""
        return self.norms_of(next(iter(self.gradients)))

    @property
    def per_sample(self) -> Floats:
        """‖∂L_t/∂h_k‖ of each sequence: (T, K, B); NaN as in `norms`."""
        return self._whole(next(iter(self.gradients.values())))

    def norms_of(self, name: str) -> Floats:
        """Return `norms` for a field of the state, such as an LSTM's "c".

        Raises: IndexRangeError for a name that no field has.
        """
        if name not in self.gradients:
            raise IndexRangeError(
                f"gradient flow of {self.name}: no field {name!r}; the state has {', '.join(self.gradients)}"
            )
        return self._whole(self.gradients[name].mean(axis=-1))

    def by_distance(self, name: str | None = None) -> Floats:
        """Return the mean of ‖∂L_t/∂h_k‖ over all t and k with |t − k| = d, for each distance d; NaN if there are none.

        Args: name, the field of the state, its first if left out.
        """
        norms = self.norms if name is None else self.norms_of(name)
        distance = np.abs(np.arange(self.T)[:, None] - self.times)
        known = ~np.isnan(norms)
        count = np.bincount(distance[known], minlength=int(distance.max()) + 1)
        total = np.bincount(distance[known], norms[known], minlength=len(count))
        return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)

    @property
    def weight_shares(self) -> Floats:
        """‖∂L/∂W_h through step k alone‖: (K,). With weight_drop, of the weight with its elements dropped."""
        return self._through_weight[0]

    @property
    def weight_gradient(self) -> Floats:
        """∂L/∂W_h (H, nH), the sum over the steps of what `weight_shares` are the norms of."""
        return self._through_weight[1]

    @cached_property
    def _through_weight(self) -> tuple[Floats, Floats]:
        shares, total = [], np.zeros(())
        for taken in self.taken:
            g = through_weight(taken)
            shares.append(np.linalg.norm(g))
            total = total + g
        return np.array(shares), total

    @cached_property
    def jacobian_norms_per_sample(self) -> Floats:
        """The largest singular value of ∂s_t/∂s_{t−1} for each sequence: (K, B); s is all of the state, (h, c) or h.

        Computed when first asked for, from the states and weights of the run: for each step as many backward passes
        through it as s has elements, and a decomposition for each sequence. Zoneout counts with its expectation.
        NaN where the state is not finite.
        """
        return np.stack([_largest_singular_value(jacobian(taken.cell, *taken.given())) for taken in self.taken])

    @property
    def jacobian_norms(self) -> Floats:
        """The largest singular value of ∂s_t/∂s_{t−1}, averaged over the batch: (K,); t counts the cell's steps."""
        return self.jacobian_norms_per_sample.mean(axis=-1)

    def _whole(self, rows: Floats) -> Floats:
        """Put rows for `at` at their places t, and NaN elsewhere."""
        whole = np.full((self.T, *rows.shape[1:]), np.nan)
        whole[list(self.at)] = rows
        return whole


@dataclass
class GradientFlow:
    """What `gradient_flow` found, by the dotted name of the cell: flow["lstm.cells.0"], or flow.layers.

    Where there is one cell only, its `norms`, `per_sample`, `weight_shares` and `jacobian_norms` are the flow's too.

    Fields:
        layers: what was measured in each cell, a LayerFlow by its name.
        losses: what loss_fn returned, (T,) or (T, B).

    Raises: IndexRangeError for a name that no cell has, or if there are several and none is named.

    >>> import tinyrnn as tr
    >>> def squares(out, y):
    ...     return tr.sum(out**2, axis=-1)
    >>> model = tr.nn.LSTM(3, 4, num_layers=2)
    >>> flow = tr.gradient_flow(model, (tr.randn(6, 2, 3), None), squares)
    >>> list(flow.layers)
    ['cells.0', 'cells.1']
    >>> flow["cells.1"].norms.shape
    (6, 6)
    """

    layers: dict[str, LayerFlow]
    losses: Floats

    def __getitem__(self, name: str) -> LayerFlow:
        if name not in self.layers:
            raise IndexRangeError(f"gradient flow: no layer {name!r}; there are {', '.join(self.layers)}")
        return self.layers[name]

    def __iter__(self) -> Iterator[LayerFlow]:
        return iter(self.layers.values())

    @property
    def only(self) -> LayerFlow:
        """The one layer that there is."""
        if len(self.layers) > 1:
            raise IndexRangeError(
                f"gradient flow: there are {len(self.layers)} layers; choose one: flow[{next(iter(self.layers))!r}], "
                f"of {', '.join(self.layers)}"
            )
        return next(iter(self))

    @property
    def norms(self) -> Floats:
        """‖∂L_t/∂h_k‖ of the only layer: (T, K)."""
        return self.only.norms

    @property
    def per_sample(self) -> Floats:
        """‖∂L_t/∂h_k‖ of the only layer, for each sequence: (T, K, B)."""
        return self.only.per_sample

    @property
    def weight_shares(self) -> Floats:
        """‖∂L/∂W_h through step k alone‖ of the only layer: (K,)."""
        return self.only.weight_shares

    @property
    def jacobian_norms(self) -> Floats:
        """The largest singular value of ∂s_t/∂s_{t−1} of the only layer: (K,)."""
        return self.only.jacobian_norms

    def __repr__(self) -> str:
        lines = ["gradient flow: mean of ‖∂L_t/∂h_k‖ by the distance d = |t − k|"]
        width = max(map(len, self.layers))
        for layer in self:
            norms = layer.by_distance()
            distances = sorted({0, 1, *(2**n for n in range(1, 12) if 2**n < len(norms)), len(norms) - 1})
            told = "  ".join(f"d={d}: {norms[d]:.2g}" for d in distances if d < len(norms))
            lines.append(f"  {layer.name:{width}}  {told}")
        return "\n".join(lines)


# ---------------------------------------------------------------- watching cells at work


class _Taken(NamedTuple):
    """A step that a cell took, without its history, and all that it takes to take it again.

    Fields: the cell as it was, in eval mode; z and the state before, as arrays; whether it was training, with which
        random numbers to come, in which mode; the names of its recurrent weights; ∂L/∂s for each field of the state
        after.
    """

    cell: Cell
    z: Array
    before: Any
    training: bool
    random: Any
    mode: Mode
    weights: tuple[str, ...]
    gradients: tuple[Floats, ...] = ()

    def given(self) -> tuple[Tensor, Any]:
        """Return z and the state before as tensors."""
        home = self.cell.W_x.backend
        return Tensor(self.z, home), type(self.before)(*(Tensor(x, home) for x in self.before))


class _Step(NamedTuple):
    """A step in the graph: its place in time, and the state after it."""

    t: int | None
    state: Any


class _Watch:
    """Let every cell of a model note its steps inside a `with` block; then cells and random numbers are as before.

    A cell's `begin`, and `advance` of the copy that it returns, are wrapped as attributes of these two objects alone.
    """

    def __init__(self, model: Module) -> None:
        self.cells: list[_CellWatch] = []
        for name, module in model.named_modules():
            if isinstance(module, Cell) and not any(module is watch.cell for watch in self.cells):  # a shared one once
                self.cells.append(_CellWatch(name or type(module).__name__, module))

    def __enter__(self) -> _Watch:
        self.random = default_generator.state
        for watch in self.cells:
            vars(watch.cell)["begin"] = watch.begin
        return self

    def __exit__(self, *exc: object) -> None:
        default_generator.state = self.random
        for watch in self.cells:
            del watch.cell.begin
            for run in watch.runs:
                vars(run).pop("advance", None)  # which holds the run: a cycle
            watch.runs.clear()


class _CellWatch:
    """The steps of one cell."""

    def __init__(self, name: str, cell: Cell) -> None:
        self.name, self.cell, self.batch = name, cell, 0
        self.frozen: Cell | None = None
        self.random: Any = None
        self.runs: list[Cell] = []
        self.steps: list[_Step] = []
        self.taken: list[_Taken] = []

    def begin(self, batch: int) -> Cell:
        """Begin a sequence as the cell does, and note what its steps do."""
        if self.frozen is None:
            self.frozen = copy.deepcopy(_without_begin(self.cell)).eval()
        self.batch, own = batch, vars(self.cell)
        run = type(self.cell).begin(self.cell, batch)
        fixed = {name: value for name, value in vars(run).items() if value is not own.get(name)}  # for this sequence
        frozen = _without_begin(self.frozen)
        vars(frozen).update({name: v.detach() if isinstance(v, Tensor) else v for name, v in fixed.items()})
        parts = tuple(name for name in fixed if name.startswith("W_h") and name not in own)  # W_h cut up, as in a GRU
        vars(run)["advance"] = partial(self.advance, run, frozen, parts or ("W_h",))
        self.runs.append(run)
        return run

    def advance(self, run: Cell, frozen: Cell, weights: tuple[str, ...], z: Tensor, state: Any) -> Any:
        """Take a step, note it, and return a state whose fields nothing but what follows has read."""
        random = default_generator.state if run.training else None
        self.random = self.random if random == self.random else random  # one and the same as long as none is drawn
        new = type(run).advance(run, z, state)
        if len({id(x.node) for x in new}) > 1 or any(x.node is None for x in new):  # not results of one operation
            new = type(new)(*map(_apart, new))
        scope = current_scope()
        t = next((s.step for s in scope.outward() if s.step is not None), None) if scope else None
        self.steps.append(_Step(t, new))
        before = type(state)(*(x.array for x in state))
        self.taken.append(_Taken(frozen, z.array, before, run.training, self.random, current_mode(), weights))
        return new

    def flow(self, T: int, at: tuple[int, ...], norms: list[Floats], totals: list[Floats]) -> LayerFlow:
        """Return what was measured, with NaN where a loss comes before the step."""
        times = np.array([-1 if step.t is None else step.t for step in self.steps])
        turns = np.diff(times)
        if not ((turns > 0).all() or (turns < 0).all()):
            times = np.arange(len(times))  # not one loop over the sequence: count the steps
        behind = bool(len(turns) and turns[0] < 0)
        t = np.array(at)[:, None]
        early = (times < t) if behind else (times > t)
        if not any(values[early].any() for values in norms):  # else the layers above read the future
            for values in norms:
                values[early] = np.nan
        fields = dict(zip(self.steps[0].state._fields, norms, strict=True))
        taken = [step._replace(gradients=of) for step, *of in zip(self.taken, *totals, strict=True)]
        return LayerFlow(self.name, T, at, times, fields, taken)


def _without_begin(cell: Cell) -> Cell:
    plain = copy.copy(cell)
    vars(plain).pop("begin", None)
    return plain


def _apart(x: Tensor) -> Tensor:
    """Return the same values as a tensor of its own in the graph, so that gradients through it can be told apart."""
    y: Tensor = apply(primitives.reshape, x, shape=x.shape)
    if y.node is None:  # nothing behind it is learned
        y.requires_grad = True
    return y


# ---------------------------------------------------------------- asking the graph


def _gradients(
    losses: Tensor, watches: list[_CellWatch], at: tuple[int, ...]
) -> list[tuple[list[Floats], list[Floats]]]:
    """Return for each cell and field of its state ‖∂L_t/∂field_k‖ (len(at), K, B), and ∂L/∂field_k (K, B, H).

    Each t is one walk back, L is the sum of all.
    """
    groups = [fields for watch in watches for fields in zip(*(step.state for step in watch.steps), strict=True)]
    states = [x for group in groups for x in group]
    rows: list[list[Floats]] = [[] for _ in groups]
    totals = [np.zeros(()) for _ in groups]
    for t in at:
        found = iter(grad(losses, states, _ones(losses, (t,))))
        for n, group in enumerate(groups):
            g = _numbers(islice(found, len(group)))
            rows[n].append(np.linalg.norm(g, axis=-1))
            totals[n] = totals[n] + g
    scale = 1 / losses.shape[1] if losses.ndim == 2 else 1.0
    norms, sums = iter(rows), iter(totals)
    return [
        ([np.stack(next(norms)) for _ in watch.steps[0].state], [next(sums) * scale for _ in watch.steps[0].state])
        for watch in watches
    ]


def _numbers(gs: Iterable[Tensor]) -> Floats:
    """Return gradients side by side in float64, in which the square of a vanishing float32 is not yet 0."""
    return np.stack([g.numpy() for g in gs]).astype(np.float64)


def _beside(gs: Iterable[Tensor]) -> Floats:
    """Return the gradients of the parts of one weight as one matrix, as wide as the parts together."""
    return np.concatenate([g.numpy().astype(np.float64) for g in gs], axis=-1)


def through_weight(taken: _Taken) -> Floats:
    """Return ∂L/∂W_h (H, nH) through one step alone: it is taken again, and what flowed into its state flows back."""
    cell, around = copy.copy(taken.cell), default_generator.state
    weights = [getattr(cell, name).detach() for name in taken.weights]
    for name, W in zip(taken.weights, weights, strict=True):
        W.requires_grad = True
        vars(cell)[name] = W
    try:
        if taken.training:
            cell.train()
            default_generator.state = taken.random
        with changed_mode(grad=True, fused=taken.mode.fused, products=taken.mode.products):
            after = cell.advance(*taken.given())
    finally:
        cell.eval()
        default_generator.state = around
    ys = [(x, g) for x, g in zip(after, taken.gradients, strict=True) if x.node]
    gys = [Tensor(x.backend.asarray(g, x.dtype), x.backend) for x, g in ys]
    return _beside(grad([x for x, _ in ys], weights, gys) if ys else [W * 0 for W in weights])


def _ones(losses: Tensor, at: Sequence[int]) -> Tensor:
    """Return the gradient of Σ L_t over `at` with respect to the losses."""
    ones = np.zeros(losses.shape)
    ones[list(at)] = 1
    return Tensor(losses.backend.asarray(ones, losses.dtype), losses.backend)


def _largest_singular_value(J: Floats) -> Floats:
    """Return the largest singular value of each matrix (B, S, S); NaN for one that is not finite."""
    finite = np.isfinite(np.abs(J).max(axis=(1, 2), keepdims=True))
    return np.where(finite[:, 0, 0], np.linalg.norm(np.where(finite, J, 0), ord=2, axis=(1, 2)), np.nan)


def jacobian(cell: Cell, z: Tensor, before: Any) -> Floats:
    """Return ∂s'/∂s of one step, for each sequence of the batch: (B, S, S), the fields of the state side by side.

    Row by row: row i is what flows back when 1 flows into element i of s'.
    """
    state = type(before)(*(x.detach() for x in before))
    for x in state:
        x.requires_grad = True
    with enable_grad():
        after = cell.advance(z, state)
    rows = []
    for x in after:
        for i in range(x.shape[-1]):
            one = np.zeros(x.shape)
            one[:, i] = 1
            gy = Tensor(x.backend.asarray(one, x.dtype), x.backend)
            gs = grad(x, list(state), gy) if x.node else [s * 0 for s in state]
            rows.append(np.concatenate([g.numpy().astype(np.float64) for g in gs], axis=-1))
    return np.stack(rows, axis=1)


# ---------------------------------------------------------------- at the door


def _check_losses(losses: Any, batch: int) -> None:
    expected = f"one for each step, (T,), or for each step and sequence, (T, B={batch})"
    if not isinstance(losses, Tensor):
        raise DTypeError(
            f"gradient_flow: loss_fn returned {type(losses).__name__}; expected a tensor of losses, {expected}"
        )
    if losses.ndim not in (1, 2) or losses.size == 0 or losses.shape[1:] not in ((), (batch,)):
        raise ShapeError(
            f"gradient_flow: loss_fn returned losses {losses.shape}; expected {expected}: give the loss "
            "reduction='none' and take no mean over time"
        )
    if losses.node is None:
        raise GraphError("gradient_flow: the losses depend on no state or parameter; was out detached in loss_fn?")


def _chosen(at: Any, T: int) -> tuple[int, ...]:
    """Return the t that are asked for, counted from the start, in order and each once."""
    given = range(T) if at is None else [at] if isinstance(at, int | np.integer) else list(at)
    if not given or not all(isinstance(t, int | np.integer) and -T <= t < T for t in given):
        raise IndexRangeError(f"gradient_flow: at is {at}; expected steps of the losses, from {-T} to {T - 1}, T={T}")
    return tuple(sorted({int(t) % T for t in given}))
