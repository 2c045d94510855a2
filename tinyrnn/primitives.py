"""The calculus: every operation that has a gradient of its own, forward and gradient side by side.

A primitive is a record:

    tanh = primitive(
        "tanh",
        forward=lambda xp, x: xp.tanh(x),
        vjp=(lambda ops, gy, y, x: gy * (1 - y * y),),
        saves=("y",),
    )

`forward` computes on arrays; `xp` is the backend, which has the functions of the array API standard. `vjp` (the
vector-Jacobian product) has one rule for each operand: given gy = ∂L/∂y it returns ∂L/∂x. Both take what stands
before the `*` as operands and what stands behind it as parameters. Where one rule serves all operands at once
(`concatenate`), `vjp` is that one function and returns a tuple. `saves` names what the rules read, so that everything
else can be let go; the rest arrives as `Meta`: a shape and a dtype with no values.

A rule is read by arrays (an ordinary backward pass), by Tensors (every higher derivative), and by whoever else brings
an `ops`. So it uses `ops`, which has every primitive under its name with the same parameters, and operators; no array
methods, and no `if` on values: masks go through `ops.where`. Rules do not undo broadcasting, the walk does.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

Rule = Callable[..., Any]


class Slice:
    """A gradient for x[index] alone, zero elsewhere: what flows into a tensor that was indexed.

    A rule returns one where the rest would be zeros; those of one tensor are added up in place, at the end.

    Args: index, as x[index] takes it; gradient, of the shape of x[index].

    >>> import tinyrnn as tr
    >>> first = tr.primitive("first", forward=lambda xp, x: xp.getitem(x, 0),
    ...                      vjp=(lambda ops, gy, y, x: tr.Slice(0, gy),), saves=("",))
    >>> x = tr.tensor([5.0, 6.0, 7.0], requires_grad=True)
    >>> tr.grad(tr.apply(first, x), x).tolist()
    [1.0, 0.0, 0.0]
    """

    __slots__ = ("gradient", "index")

    def __init__(self, index: Any, gradient: Any) -> None:
        self.index, self.gradient = index, gradient


class Outer:
    """The product aᵀ g, not multiplied yet: a weight used T times makes one large product of T small ones.

    Args: a (…, I) and gradient g (…, O), whose rows belong together; the product is (I, O).

    >>> import tinyrnn as tr
    >>> rules = (lambda ops, gy, y, x, W: ops.matmul(gy, ops.transposed(W)),
    ...          lambda ops, gy, y, x, W: tr.Outer(x, gy))
    >>> times = tr.primitive("times", forward=lambda xp, x, W: x @ W, vjp=rules,
    ...                      saves=("W", "x"))
    >>> W = tr.ones(2, 1, requires_grad=True)
    >>> tr.grad(tr.apply(times, [[3.0, 4.0]], W), W).tolist()
    [[3.0], [4.0]]
    """

    __slots__ = ("a", "gradient")

    def __init__(self, a: Any, gradient: Any) -> None:
        self.a, self.gradient = a, gradient


class Spread:
    """The gradient of a vector that was repeated over rows, not added up over them yet: T small sums make one large."""

    __slots__ = ("gradient",)

    def __init__(self, gradient: Any) -> None:
        self.gradient = gradient


@dataclass(frozen=True, eq=False, repr=False)
class Primitive:
    """An operation and its gradient: see the top of this module, and `primitive`, which makes one.

    Args: name, forward, vjp, saves and dtype, as for `primitive`.
    Attributes: operands, the names of what `forward` takes before the `*`.
    Raises: ValueError where the parts do not fit together, or where a rule for all operands does not return one
        gradient for each.

    >>> from tinyrnn.primitives import multiply
    >>> multiply, multiply.saves  # the rule for a reads b, and the rule for b reads a
    (<primitive multiply(a, b)>, ('b', 'a'))
    """

    name: str
    forward: Rule
    vjp: tuple[Rule, ...] | Rule | None
    saves: tuple[str, ...]
    dtype: str | None
    operands: tuple[str, ...] = field(init=False)
    hidden: ClassVar[int] = 0  # how many results, the last ones, are for its own rules alone
    unread: ClassVar[frozenset[int]] = frozenset()  # the results, by number, that no rule reads though it reads others

    def __post_init__(self) -> None:
        parameters = list(inspect.signature(self.forward).parameters.values())[1:]
        names = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
        object.__setattr__(self, "operands", names)
        saves: Any = self.saves
        if isinstance(saves, str) or not all(isinstance(names, str) for names in saves):
            raise ValueError(
                f"primitive {self.name!r}: saves is {saves!r}; expected a tuple with a string for each operand, "
                "which names what its rule reads, such as ('a b', 'y')"
            )
        rules = len(self.vjp) if isinstance(self.vjp, tuple) else None
        if rules is not None and not rules == len(self.saves) == len(names):
            raise ValueError(
                f"primitive {self.name!r}: forward has the operands {names}; expected as many rules in vjp (given "
                f"{rules}) and as many entries in saves (given {len(self.saves)}), one for each operand"
            )
        unknown = set(" ".join(self.saves).split()) - {*names, "y"}
        if unknown:
            raise ValueError(f"primitive {self.name!r}: saves names {unknown}; expected some of {(*names, 'y')}")

    def __repr__(self) -> str:
        return f"<primitive {self.name}({', '.join(self.operands)})>"

    def reads(self, needs: tuple[bool, ...]) -> set[str]:
        """Name what the rules read for the operands that need a gradient."""
        if not isinstance(self.vjp, tuple):
            return set(" ".join(self.saves).split())
        return set(" ".join(s for s, need in zip(self.saves, needs, strict=True) if need).split())

    def pull_back(self, ops: Any, node: Any, gys: list[Any], needs: tuple[bool, ...], rooms: Any) -> tuple[Any, ...]:
        """Apply the rules to what `node` kept: ∂L/∂x for each operand that needs one, None for the others.

        Args:
            gys: ∂L/∂y for each result, None where nothing flowed in.
            rooms: the memory of this walk, for a rule that can write a gradient where it is wanted.

        Raises: ValueError if one rule for all operands returned something else than a gradient for each.
        """
        operands = tuple([ops.operand(x) for x in node.operands])
        results = tuple([ops.result(node, i) for i in range(len(gys))])
        gys = [ops.zeros(node.outputs[i]) if gy is None else gy for i, gy in enumerate(gys)]
        gy, y = (gys, results) if node.several else (gys[0], results[0])
        if isinstance(self.vjp, tuple):
            rules = zip(self.vjp, needs, strict=True)
            return tuple([rule(ops, gy, y, *operands, **node.params) if need else None for rule, need in rules])
        given = self.vjp(ops, gy, y, *operands, **node.params)  # type: ignore[misc]  # never None here
        if not isinstance(given, tuple) or len(given) != len(operands):
            told = f"{len(given)} entries" if isinstance(given, tuple) else type(given).__name__
            raise ValueError(f"the rule returned {told}; expected a tuple with {len(operands)}, one for each operand")
        return given


registry: dict[str, Primitive] = {}


def primitive(
    name: str,
    *,
    forward: Rule,
    vjp: tuple[Rule, ...] | Rule | None = None,
    saves: tuple[str, ...] = (),
    dtype: str | None = None,
) -> Primitive:
    """Define an operation and put it into the registry, where every `ops` finds it.

    Args:
        name: what `ops`, errors and pictures call it; one of your own may be defined again, a built-in may not.
        forward: (xp, *operands, *, **parameters) -> array, or a tuple of arrays.
        vjp: a tuple with one rule for each operand, or one function that returns a tuple; a rule is (ops, gy, y,
            *operands, *, **parameters) -> ∂L/∂operand, an array, a `Slice` or an `Outer`. None: no gradient.
        saves: what each rule reads, by operand name, "y" for the result: ("b", "a") for a product.
        dtype: "common" promotes the operands to their common type, "float" makes integers floats besides.

    Raises: ValueError where the parts do not fit together, or a built-in has that name.

    >>> import tinyrnn as tr
    >>> cube = tr.primitive("cube", forward=lambda xp, x: x * x * x,
    ...                     vjp=(lambda ops, gy, y, x: 3 * x * x * gy,), saves=("x",))
    >>> x = tr.tensor(2.0, dtype="float64", requires_grad=True)
    >>> tr.apply(cube, x).item(), tr.gradcheck(lambda x: tr.apply(cube, x), x)
    (8.0, True)
    """
    if name in BUILT_IN:
        raise ValueError(f"primitive {name!r} is built in; choose another name")
    registry[name] = record = Primitive(name, forward, vjp, saves, dtype)
    return record


BUILT_IN: frozenset[str] = frozenset()

# ---------------------------------------------------------------- arithmetic

add = primitive(
    "add",
    forward=lambda xp, a, b: a + b,
    vjp=(lambda ops, gy, y, a, b: gy, lambda ops, gy, y, a, b: gy),
    saves=("", ""),
    dtype="common",
)

subtract = primitive(
    "subtract",
    forward=lambda xp, a, b: a - b,
    vjp=(lambda ops, gy, y, a, b: gy, lambda ops, gy, y, a, b: -gy),
    saves=("", ""),
    dtype="common",
)

multiply = primitive(
    "multiply",
    forward=lambda xp, a, b: a * b,
    vjp=(lambda ops, gy, y, a, b: gy * b, lambda ops, gy, y, a, b: gy * a),
    saves=("b", "a"),
    dtype="common",
)

divide = primitive(
    "divide",
    forward=lambda xp, a, b: a / b,
    vjp=(lambda ops, gy, y, a, b: gy / b, lambda ops, gy, y, a, b: -gy * y / b),
    saves=("b", "b y"),
    dtype="float",
)

negative = primitive(
    "negative",
    forward=lambda xp, x: -x,
    vjp=(lambda ops, gy, y, x: -gy,),
    saves=("",),
)


def _power_base(ops: Any, gy: Any, y: Any, a: Any, b: Any) -> Any:
    if isinstance(b, int | float):
        return gy * (b * a ** (b - 1)) if b != 0 else ops.multiply(gy, 0)
    zero = ops.logical_and(ops.equal(a, 0), ops.equal(b, 0))  # a⁰ is constant, also at a = 0
    return gy * b * ops.power(a, ops.where(zero, b, b - 1))


def _power_exponent(ops: Any, gy: Any, y: Any, a: Any, b: Any) -> Any:
    if isinstance(a, int | float):
        return gy * y * (math.log(a) if a > 0 else 0.0 if a == 0 else math.nan)
    zero = ops.equal(a, 0)  # 0ᵇ is constant for b > 0
    return gy * y * ops.log(ops.where(zero, a + 1, a))


power = primitive(
    "power",
    forward=lambda xp, a, b: a**b,
    vjp=(_power_base, _power_exponent),
    saves=("a b", "a y"),
    dtype="common",
)

# ---------------------------------------------------------------- elementwise functions

exp = primitive(
    "exp",
    forward=lambda xp, x: xp.exp(x),
    vjp=(lambda ops, gy, y, x: gy * y,),
    saves=("y",),
    dtype="float",
)

log = primitive(
    "log",
    forward=lambda xp, x: xp.log(x),
    vjp=(lambda ops, gy, y, x: gy / x,),
    saves=("x",),
    dtype="float",
)


def _sqrt_rule(ops: Any, gy: Any, y: Any, x: Any) -> Any:
    zero = ops.equal(y, 0)  # sqrt'(0) = 0, so that the norm of a zero vector has a gradient
    return ops.where(zero, 0.0, gy / (2 * ops.where(zero, y + 1, y)))


sqrt = primitive(
    "sqrt",
    forward=lambda xp, x: xp.sqrt(x),
    vjp=(_sqrt_rule,),
    saves=("y",),
    dtype="float",
)

tanh = primitive(
    "tanh",
    forward=lambda xp, x: xp.tanh(x),
    vjp=(lambda ops, gy, y, x: gy * (1 - y * y),),
    saves=("y",),
    dtype="float",
)

sigmoid = primitive(
    "sigmoid",
    forward=lambda xp, x: 0.5 * xp.tanh(0.5 * x) + 0.5,  # 1 / (1 + e⁻ˣ), with no overflow at either end
    vjp=(lambda ops, gy, y, x: gy * y * (1 - y),),
    saves=("y",),
    dtype="float",
)

relu = primitive(
    "relu",
    forward=lambda xp, x: xp.maximum(x, 0),
    vjp=(lambda ops, gy, y, x: ops.where(ops.greater(y, 0), gy, 0.0),),  # relu'(0) = 0
    saves=("y",),
)

abs = primitive(
    "abs",
    forward=lambda xp, x: xp.abs(x),
    vjp=(lambda ops, gy, y, x: gy * ops.sign(x),),
    saves=("x",),
)

sign = primitive("sign", forward=lambda xp, x: xp.sign(x))


def _share(ops: Any, gy: Any, winner: Any, loser: Any) -> Any:
    """Give gy to the operand that won, half of it in a tie."""
    return ops.where(ops.equal(winner, loser), 0.5 * gy, ops.where(ops.greater(winner, loser), gy, 0.0))


maximum = primitive(
    "maximum",
    forward=lambda xp, a, b: xp.maximum(a, b),
    vjp=(lambda ops, gy, y, a, b: _share(ops, gy, a, b), lambda ops, gy, y, a, b: _share(ops, gy, b, a)),
    saves=("a b", "a b"),
    dtype="common",
)

minimum = primitive(
    "minimum",
    forward=lambda xp, a, b: xp.minimum(a, b),
    vjp=(lambda ops, gy, y, a, b: _share(ops, gy, b, a), lambda ops, gy, y, a, b: _share(ops, gy, a, b)),
    saves=("a b", "a b"),
    dtype="common",
)


def _clip(xp: Any, x: Any, *, low: float | None = None, high: float | None = None) -> Any:
    x = x if low is None else xp.maximum(x, low)
    return x if high is None else xp.minimum(x, high)


def _clip_rule(ops: Any, gy: Any, y: Any, x: Any, *, low: float | None = None, high: float | None = None) -> Any:
    return ops.where(ops.equal(x, y), gy, 0.0)  # unchanged inside and at the bounds


clip = primitive("clip", forward=_clip, vjp=(_clip_rule,), saves=("x y",))

where = primitive(
    "where",
    forward=lambda xp, mask, a, b: xp.where(mask, a, b),
    vjp=(
        lambda ops, gy, y, mask, a, b: None,
        lambda ops, gy, y, mask, a, b: ops.where(mask, gy, 0.0),
        lambda ops, gy, y, mask, a, b: ops.where(mask, 0.0, gy),
    ),
    saves=("", "mask", "mask"),
)

astype = primitive(
    "astype",
    forward=lambda xp, x, *, dtype: xp.astype(x, dtype),
    vjp=(lambda ops, gy, y, x, *, dtype: gy,),  # the walk gives every gradient its tensor's own type
    saves=("",),
)

# ---------------------------------------------------------------- comparisons and masks: no gradient

equal = primitive("equal", forward=lambda xp, a, b: a == b, dtype="common")
not_equal = primitive("not_equal", forward=lambda xp, a, b: a != b, dtype="common")
less = primitive("less", forward=lambda xp, a, b: a < b, dtype="common")
less_equal = primitive("less_equal", forward=lambda xp, a, b: a <= b, dtype="common")
greater = primitive("greater", forward=lambda xp, a, b: a > b, dtype="common")
greater_equal = primitive("greater_equal", forward=lambda xp, a, b: a >= b, dtype="common")
logical_and = primitive("logical_and", forward=lambda xp, a, b: a & b)
logical_or = primitive("logical_or", forward=lambda xp, a, b: a | b)
logical_not = primitive("logical_not", forward=lambda xp, x: ~x)
isfinite = primitive("isfinite", forward=lambda xp, x: xp.isfinite(x))

# ---------------------------------------------------------------- reductions

Axis = int | tuple[int, ...] | None


def _keep(ops: Any, reduced: Any, x: Any, axis: Axis, keepdims: bool) -> Any:
    """Put the axes that a reduction of x removed back, with length 1."""
    if keepdims:
        return reduced
    axes = range(len(x.shape)) if axis is None else [a % len(x.shape) for a in _tuple(axis)]
    return ops.reshape(reduced, shape=tuple(1 if i in axes else n for i, n in enumerate(x.shape)))


def _tuple(axis: int | tuple[int, ...]) -> tuple[int, ...]:
    return axis if isinstance(axis, tuple) else (axis,)


def _sum_rule(ops: Any, gy: Any, y: Any, x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:
    return ops.broadcast_to(_keep(ops, gy, x, axis, keepdims), shape=x.shape)


sum = primitive(
    "sum",
    forward=lambda xp, x, *, axis=None, keepdims=False: xp.sum(x, axis=axis, keepdims=keepdims),
    vjp=(_sum_rule,),
    saves=("",),
)


def _extremum_rule(ops: Any, gy: Any, y: Any, x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:
    hit = ops.equal(x, _keep(ops, y, x, axis, keepdims))
    share = ops.where(hit, ops.broadcast_to(_keep(ops, gy, x, axis, keepdims), shape=x.shape), 0.0)
    count = ops.sum(ops.astype(hit, dtype=x.dtype), axis=axis, keepdims=True)  # ties share equally
    return share / count


max = primitive(
    "max",
    forward=lambda xp, x, *, axis=None, keepdims=False: xp.max(x, axis=axis, keepdims=keepdims),
    vjp=(_extremum_rule,),
    saves=("x y",),
)

min = primitive(
    "min",
    forward=lambda xp, x, *, axis=None, keepdims=False: xp.min(x, axis=axis, keepdims=keepdims),
    vjp=(_extremum_rule,),
    saves=("x y",),
)

argmax = primitive(
    "argmax",
    forward=lambda xp, x, *, axis=None, keepdims=False: xp.argmax(x, axis=axis, keepdims=keepdims),
)


def _logsumexp(xp: Any, x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:
    top = xp.max(x, axis=axis, keepdims=True)
    shift = xp.where(xp.isfinite(top), top, 0.0)
    total = xp.sum(xp.exp(x - shift), axis=axis, keepdims=True)
    empty = total == 0  # every element was −∞: so is the result, with no log(0) on the way
    y = xp.where(empty, -math.inf, xp.log(xp.where(empty, 1.0, total)) + shift)
    return y if keepdims else xp.sum(y, axis=axis)  # its axes have length 1


def _logsumexp_rule(ops: Any, gy: Any, y: Any, x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:
    y, gy = _keep(ops, y, x, axis, keepdims), _keep(ops, gy, x, axis, keepdims)
    finite = ops.where(ops.equal(y, -math.inf), 0.0, y)
    return gy * ops.exp(x - finite)  # softmax(x), and 0 where all is −∞


logsumexp = primitive("logsumexp", forward=_logsumexp, vjp=(_logsumexp_rule,), saves=("x y",), dtype="float")

# ---------------------------------------------------------------- matrix product


def _matmul(xp: Any, a: Any, b: Any) -> Any:
    if len(a.shape) > 2 and len(b.shape) == 2:  # one product of all the rows, not one for each matrix
        rows = xp.reshape(a, (math.prod(a.shape[:-1]), a.shape[-1]))
        return xp.reshape(xp.matmul(rows, b), (*a.shape[:-1], b.shape[-1]))
    return xp.matmul(a, b)


def _matmul_right(ops: Any, gy: Any, y: Any, a: Any, b: Any) -> Any:
    return Outer(a, gy) if len(b.shape) == 2 else ops.matmul(ops.transposed(a), gy)


matmul = primitive(
    "matmul",
    forward=_matmul,
    vjp=(lambda ops, gy, y, a, b: ops.matmul(gy, ops.transposed(b)), _matmul_right),
    saves=("b", "a"),
    dtype="common",
)


def _linear(xp: Any, x: Any, W: Any, b: Any) -> Any:
    y = _matmul(xp, x, W)
    y += b  # in place, in an array that this function made
    return y


linear = primitive(
    "linear",
    forward=_linear,
    vjp=(
        lambda ops, gy, y, x, W, b: ops.matmul(gy, ops.transposed(W)),
        lambda ops, gy, y, x, W, b: Outer(x, gy),
        lambda ops, gy, y, x, W, b: gy,
    ),
    saves=("W", "x", ""),
    dtype="common",
)

# ---------------------------------------------------------------- shape

reshape = primitive(
    "reshape",
    forward=lambda xp, x, *, shape: xp.reshape(x, shape),
    vjp=(lambda ops, gy, y, x, *, shape: ops.reshape(gy, shape=x.shape),),
    saves=("",),
)

transpose = primitive(
    "transpose",
    forward=lambda xp, x, *, axes: xp.permute_dims(x, axes),
    vjp=(lambda ops, gy, y, x, *, axes: ops.transpose(gy, axes=tuple(sorted(range(len(axes)), key=axes.__getitem__))),),
    saves=("",),
)

broadcast_to = primitive(
    "broadcast_to",
    forward=lambda xp, x, *, shape: xp.broadcast_to(x, shape),
    vjp=(lambda ops, gy, y, x, *, shape: gy,),  # the walk undoes broadcasting
    saves=("",),
)

flip = primitive(
    "flip",
    forward=lambda xp, x, *, axis=None: xp.flip(x, axis=axis),
    vjp=(lambda ops, gy, y, x, *, axis=None: ops.flip(gy, axis=axis),),
    saves=("",),
)

pad = primitive(
    "pad",
    forward=lambda xp, x, *, widths, value=0.0: xp.pad(x, widths, value),
    vjp=(
        lambda ops, gy, y, x, *, widths, value=0.0: ops.getitem(
            gy, index=tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape, strict=True))
        ),
    ),
    saves=("",),
)


def _along(axis: int, n: int, index: Any) -> tuple[Any, ...]:
    """Write x[..., index, ...] for an axis of a tensor of rank n."""
    return (*(slice(None),) * (axis % n), index)


def _concatenate_rule(ops: Any, gy: Any, y: Any, *xs: Any, axis: int = 0) -> Any:
    n, stop, parts = len(gy.shape), 0, []
    for x in xs:
        start, stop = stop, stop + x.shape[axis]
        parts.append(ops.getitem(gy, index=_along(axis, n, slice(start, stop))))
    return tuple(parts)


concatenate = primitive(
    "concatenate",
    forward=lambda xp, *xs, axis=0: xp.concat(xs, axis=axis),
    vjp=_concatenate_rule,
    dtype="common",
)

stack = primitive(
    "stack",
    forward=lambda xp, *xs, axis=0: xp.stack(xs, axis=axis),
    vjp=lambda ops, gy, y, *xs, axis=0: ops.unstack(gy, axis=axis),
    dtype="common",
)

split = primitive(
    "split",
    forward=lambda xp, x, *, bounds, axis: tuple(
        xp.getitem(x, _along(axis, len(x.shape), slice(start, stop))) for start, stop in bounds
    ),
    vjp=lambda ops, gys, ys, x, *, bounds, axis: (ops.concatenate(*gys, axis=axis),),
)


class Unstack(Primitive):
    """x[0], x[1], … in one operation, such as the steps of a sequence; their gradients may lie in one room already."""

    def pull_back(self, ops: Any, node: Any, gys: list[Any], needs: tuple[bool, ...], rooms: Any) -> tuple[Any, ...]:
        """Return the room that the gradients were written to, or else stack them."""
        joined = rooms.joined(gys)
        return super().pull_back(ops, node, gys, needs, rooms) if joined is None else (joined,)


unstack = Unstack(
    "unstack",
    forward=lambda xp, x, *, axis=0: tuple(
        [xp.getitem(x, _along(axis, len(x.shape), k)) for k in range(x.shape[axis])]
    ),
    vjp=lambda ops, gys, ys, x, *, axis=0: (ops.stack(*gys, axis=axis),),
    saves=(),
    dtype=None,
)
registry["unstack"] = unstack

# ---------------------------------------------------------------- indexing, and what flows back through it

getitem = primitive(
    "getitem",
    forward=lambda xp, x, *, index: xp.getitem(x, index),
    vjp=(lambda ops, gy, y, x, *, index: Slice(index, gy),),
    saves=("",),
)


def _scatter(xp: Any, *gs: Any, indices: tuple[Any, ...], shape: tuple[int, ...]) -> Any:
    buffer = xp.full(shape, 0, xp.dtype(gs[0]))
    for g, index in zip(gs, indices, strict=True):
        xp.scatter_add(buffer, index, g)
    return buffer


scatter = primitive(  # the sum of several Slices: zeros, with every g added where its index says
    "scatter",
    forward=_scatter,
    vjp=lambda ops, gy, y, *gs, indices, shape: tuple(ops.getitem(gy, index=index) for index in indices),
)


def _accumulate(xp: Any, *xs: Any) -> Any:
    total = xs[0] + xs[1]
    for x in xs[2:]:
        total += x  # in place, in an array that this function made
    return total


accumulate = primitive(  # what a tensor that was used several times receives
    "accumulate",
    forward=_accumulate,
    vjp=lambda ops, gy, y, *xs: (gy,) * len(xs),
)

to = primitive(
    "to",
    forward=lambda xp, x, *, source, target: target.asarray(source.to_host(x)),
    vjp=(lambda ops, gy, y, x, *, source, target: ops.to(gy, source=target, target=source),),
    saves=("",),
)

BUILT_IN = frozenset(registry)
