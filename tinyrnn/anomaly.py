"""Where the first NaN came from: a watch over every operation and every gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tinyrnn import backends
from tinyrnn import primitives as p
from tinyrnn.autograd import ArrayOps, Edge, Node, Scope, changed_mode, combine, current_scope, told
from tinyrnn.errors import NonFiniteError
from tinyrnn.primitives import Outer, Primitive, Slice, Spread
from tinyrnn.tensor import Tensor


def detect_anomaly() -> changed_mode:
    """Raise an error at the first operation that makes a NaN or an infinity, or whose gradient does.

        with tr.detect_anomaly():
            loss = tr.cross_entropy(model(x), y)
            loss.backward()

    The error names the operation, the shapes and ranges of its operands, the module, the time step and, where it is
    certain, the gates of the cell. Every result is brought to the host and looked at: this is for finding a mistake,
    not for training. It is local to the thread or task, and may stand above a function: `@tr.detect_anomaly()`.

    An operation makes a NaN if its result holds one and nothing that went in does; it makes an infinity if its result
    holds one and all that went in is finite. So

    - an infinity put in on purpose is fine, as in where(mask, scores, -inf), and so is a softmax or logsumexp over it;
      but a NaN that comes of it, as ∞ − ∞ or 0 · ∞, is not;
    - log(0) is not fine, even where a later `where` drops it: its gradient would be 0 · ∞;
    - what only passes a NaN on is not the first; one that is in the data or in a parameter is not found here.

    Raises: NonFiniteError.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> p = tr.tensor([0.5, 0.0])
    >>> with np.errstate(divide="ignore"), tr.detect_anomaly():  # doctest: +NORMALIZE_WHITESPACE
    ...     entropy = -(p * tr.log(p)).sum()
    Traceback (most recent call last):
    tinyrnn.errors.NonFiniteError: log(float32[2]) made the first infinity, in 1 of 2
    elements, such as [1], for x from 0 to 0.5; keep these where log is finite
    """
    return changed_mode(listener=_after_operation, back_listener=_after_gradient)


Named = list[tuple[str, Any]]


def _after_operation(op: Primitive, operands: tuple[Any, ...], params: dict[str, Any], result: Any) -> None:
    """Look at what an operation returned."""
    scope, given = current_scope(), _named(op, operands)
    sources = [(x.node, x.index) for x in operands if isinstance(x, Tensor) and x.node]
    for y in result if isinstance(result, tuple) else (result,):
        kind = _made(y, [*given, *params.items()])
        if kind:
            raise _error(told(op, operands, scope), op.name, kind, y, given, _gates(kind, y, sources, scope))


def _after_gradient(node: Node, given: list[Any], made: Any, to: Edge | None) -> None:
    """Look at what a rule returned for one operand or, where `to` is None, at the sum of what flows into a node."""
    op, gradient = node.op, _dense(made, node)
    call = told(op, node.operands or (), node.scope) if op else f"a leaf of shape {node.outputs[0].shape}"
    if op is None or to is None:
        given = [("gy", x) for part in given for x in _factors(part)]
        what, rule, sources = f"the sum of the gradients that flow into {call}", "their sum", []
    else:
        operands = _named(op, node.operands or ())
        given = [*(("gy", gy) for gy in given), *operands, *(("y", y) for y in node.saved or ())]
        what, rule, sources = f"the gradient of {call}", f"the gradient of {op.name}", [to]
        what += f" for {operands[node.parents.index(to)][0]}"
    kind = _made(gradient, given)
    if kind:
        raise _error(what, rule, kind, gradient, given, _gates(kind, gradient, sources, node.scope))


def _named(op: Primitive, operands: tuple[Any, ...]) -> Named:
    """Return the operands with their names; those of `*xs` are all called so."""
    names = op.operands if len(op.operands) == len(operands) else op.operands * len(operands)
    return list(zip(names, operands, strict=True))


def _dense(part: Any, node: Node) -> Any:
    """Return what a rule of `node` returned as a tensor or array."""
    if isinstance(part, Outer):  # multiplied at the end of the walk, but looked at where it was made
        a, gradient = (getattr(x, "array", x) for x in _factors(part))
        meta = node.outputs[0]
        return combine(ArrayOps(meta.backend), [Outer(a, gradient)], meta)
    return _factors(part)[0]


def _factors(part: Any) -> list[Any]:
    """Return the tensors or arrays that a part of a gradient is made of."""
    if isinstance(part, Outer):
        return [part.a, part.gradient]
    return [part.gradient if isinstance(part, Slice | Spread) else part]


# ---------------------------------------------------------------- looking

_host = backends.get("numpy")
_TESTS = {"NaN": _host.isnan, "infinity": _host.isinf}


def _made(y: Any, given: Iterable[tuple[str, Any]]) -> str:
    """Name what y holds and nothing that was given accounts for: "NaN", "infinity", or "" for neither."""
    kinds = _kinds(y)
    if not kinds:
        return ""
    before = {kind for _, x in given for kind in _kinds(x)}
    if "NaN" in kinds - before:
        return "NaN"
    return "" if before else "infinity"


def _kinds(x: Any) -> set[str]:
    values = _floats(x)
    return {kind for kind, test in _TESTS.items() if test(values).any()}


def _floats(x: Any) -> Any:
    """Return the floats that a tensor, array or number holds, on the host; an empty array where there are none."""
    array = getattr(x, "array", x)
    home = backends.of(array)
    if home is not None and home.dtype(array).is_floating:
        return home.to_host(array)
    return _host.array([x] if isinstance(x, float) else [])


# ---------------------------------------------------------------- telling


def _error(what: str, rule: str, kind: str, y: Any, given: Named, gates: str) -> NonFiniteError:
    mask = _TESTS[kind](_floats(y))
    place = ", ".join(str(i) for i in _host.argwhere(mask)[0])
    count = f", in {mask.sum()} of {mask.size} elements, such as [{place}]" if place else ""
    return NonFiniteError(
        f"{what} made the first {kind}{count}{gates}, for {_ranges(given)}; keep these where {rule} is finite"
    )


def _ranges(given: Named) -> str:
    """Describe values: `a from -1 to 2, b from 0 to 0.5`."""
    ranges: dict[str, tuple[float, float]] = {}
    for name, x in given:
        values = _floats(x)
        if values.size:
            low, high = ranges.get(name, (math.inf, -math.inf))
            ranges[name] = min(low, float(values.min())), max(high, float(values.max()))
    return ", ".join(f"{name} from {low:.4g} to {high:.4g}" for name, (low, high) in ranges.items())


def _gates(kind: str, y: Any, sources: list[Edge], scope: Scope | None) -> str:
    """Name the gates whose NaNs or infinities y holds: `, in gate f`; empty where that is not certain.

    It is certain inside a cell with several gates, each H wide: where the last axis of y has all of them side by side,
    or y comes from, or flows to, one of the parts that `split` cut them into.
    """
    modules = [around.module for around in scope.outward() if around.module is not None] if scope else []
    cell: Any = modules[0] if modules else None
    names = getattr(cell, "gates", ())
    if len(names) < 2:
        return ""
    n, H, mask = len(names), cell.hidden_size, _TESTS[kind](_floats(y))
    if mask.shape[-1:] == (n * H,) and cell.input_size != n * H:
        hit = mask.reshape(-1, n, H).any(axis=(0, 2))
    else:
        parts = {k for node, k in sources if node.op is p.split and len(node.outputs) == n}
        hit = [k in parts and mask.shape[-1:] == (H,) for k in range(n)]
    found = [name for name, concerned in zip(names, hit, strict=True) if concerned]
    return f", in gate{'s' if len(found) > 1 else ''} {' and '.join(found)}" if found else ""
