"""Random graphs against a naive engine that goes forward; graphs that are long; memory that is freed."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinyrnn as tr
from tinyrnn import autograd, nn, optim
from tinyrnn.errors import ShapeError

# ---------------------------------------------------------------- the naive engine


@dataclass
class Jet:
    """A value v with all its first and second derivatives, J[i] and H[i, j], by the N numbers that went in.

    Nothing goes backward here and nothing is shared with the engine: every operation carries v, J and H forward.
    """

    v: Any
    J: Any
    H: Any

    @property
    def shape(self):
        return self.v.shape

    def through(self, f, d1, d2):
        """Apply a function of single numbers, given as its value and two derivatives."""
        return Jet(f, d1 * self.J, d1 * self.H + d2 * self.J[:, None] * self.J[None, :])


def linear(f, *xs):
    """Apply a linear function of arrays."""
    n = range(len(xs[0].J))
    J = [f(*(x.J[i] for x in xs)) for i in n]
    H = [[f(*(x.H[i, j] for x in xs)) for j in n] for i in n]
    return Jet(np.asarray(f(*(x.v for x in xs))), np.array(J), np.array(H))


def bilinear(f, a, b):
    """Apply a product of arrays, whichever it is."""
    n = range(len(a.J))
    J = [f(a.J[i], b.v) + f(a.v, b.J[i]) for i in n]
    H = [[f(a.H[i, j], b.v) + f(a.J[i], b.J[j]) + f(a.J[j], b.J[i]) + f(a.v, b.H[i, j]) for j in n] for i in n]
    return Jet(np.asarray(f(a.v, b.v)), np.array(J), np.array(H))


def inputs(arrays):
    """Return the jets of the numbers that go in."""
    n, start, jets = sum(a.size for a in arrays), 0, []
    for a in arrays:
        J = np.zeros((n, a.size))
        J[start : start + a.size] = np.eye(a.size)
        start += a.size
        jets.append(Jet(a, J.reshape(n, *a.shape), np.zeros((n, n, *a.shape))))
    return jets


# ---------------------------------------------------------------- random programs


@dataclass
class Program:
    """Operations on a growing pool of values: first the inputs, then a constant, then each result."""

    arrays: list[Any]
    jets: list[Jet]
    steps: list[tuple[Any, tuple[int, ...]]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    weights: dict[int, Any] = field(default_factory=dict)

    def run(self, leaves):
        """Run it on tensors and return the loss."""
        pool = list(leaves)
        for f, operands in self.steps:
            result = f(*(pool[i] for i in operands))
            pool.extend(result if isinstance(result, tuple) else [result])
        return sum((pool[i] * tr.tensor(w)).sum() for i, w in self.weights.items())

    def loss(self):
        """Run it on jets."""
        weigh = lambda w: lambda x: (x * w).sum()
        parts = [linear(weigh(w), self.jets[i]) for i, w in self.weights.items()]
        return linear(lambda *xs: sum(xs), *parts)


def away(*bounds):
    """Tell whether no value is so near to a kink that a rounding error decides on which side it is."""
    return lambda v: all((abs(v - bound) > 1e-3).all() for bound in bounds)


anywhere = away()
positive = lambda v: (v > 0.1).all()
small = lambda v: (v < 3).all()


def sigmoid(v):
    s = 1 / (1 + np.exp(-v))
    return s, s * (1 - s), s * (1 - s) * (1 - 2 * s)


def tanh(v):
    t = np.tanh(v)
    return t, 1 - t * t, -2 * t * (1 - t * t)


def of_power(n):
    return lambda v: (v**n, n * v ** (n - 1), n * (n - 1) * v ** (n - 2))


def straight(f, slope):
    return lambda v: (f(v), slope(v), 0 * v)


ELEMENTWISE = {  # the function; its value and two derivatives; where it has them
    "tanh": (tr.tanh, tanh, anywhere),
    "sigmoid": (tr.sigmoid, sigmoid, anywhere),
    "exp": (tr.exp, lambda v: (np.exp(v),) * 3, small),
    "log": (tr.log, lambda v: (np.log(v), 1 / v, -1 / v**2), positive),
    "sqrt": (tr.sqrt, of_power(0.5), positive),
    "abs": (tr.abs, straight(np.abs, np.sign), away(0)),
    "relu": (tr.relu, straight(lambda v: v * (v > 0), lambda v: 1.0 * (v > 0)), away(0)),
    "clip": (
        lambda x: tr.clip(x, -0.5, 1),
        straight(lambda v: np.clip(v, -0.5, 1), lambda v: 1.0 * ((v > -0.5) & (v < 1))),
        away(-0.5, 1),
    ),
    "negative": (lambda x: -x, straight(np.negative, lambda v: 0 * v - 1), anywhere),
    "square": (lambda x: x**2, of_power(2), anywhere),
    "cube": (lambda x: x**3, lambda v: (v**3, 3 * v**2, 6 * v), anywhere),
    "1/x": (lambda x: 1 / x, of_power(-1.0), away(0, 0.1, -0.1)),
    "x^1.5": (lambda x: x**1.5, of_power(1.5), positive),
    "2^x": (lambda x: 2.0**x, lambda v: tuple(2.0**v * np.log(2) ** k for k in range(3)), small),
    "2 x + 1": (lambda x: 2 * x + 1, straight(lambda v: 2 * v + 1, lambda v: 0 * v + 2), anywhere),
}


def log(x):
    return x.through(*ELEMENTWISE["log"][1](x.v))


def inverse(x):
    return x.through(*of_power(-1.0)(x.v))


def choose(a, b, better):
    mask = better(a.v, b.v)
    return linear(lambda x, y: np.where(mask, x, y), a, b)


def to_the_power(a, b):
    return (product := bilinear(np.multiply, b, log(a))).through(*(np.exp(product.v),) * 3)


BINARY = {
    "+": (lambda a, b: a + b, lambda a, b: linear(np.add, a, b), lambda a, b: True),
    "-": (lambda a, b: a - b, lambda a, b: linear(np.subtract, a, b), lambda a, b: True),
    "*": (lambda a, b: a * b, lambda a, b: bilinear(np.multiply, a, b), lambda a, b: True),
    "/": (lambda a, b: a / b, lambda a, b: bilinear(np.multiply, a, inverse(b)), lambda a, b: (abs(b) > 0.1).all()),
    "**": (lambda a, b: a**b, to_the_power, lambda a, b: positive(a) and (abs(b) < 3).all()),
    "maximum": (tr.maximum, lambda a, b: choose(a, b, np.greater), lambda a, b: away(0)(a - b)),
    "minimum": (tr.minimum, lambda a, b: choose(a, b, np.less), lambda a, b: away(0)(a - b)),
    "where": (
        lambda a, b: tr.where(a > 0, a, b),
        lambda a, b: linear(lambda x, y: np.where(a.v > 0, x, y), a, b),
        lambda a, b: away(0)(a),
    ),
}


def elementwise(draw, pool, i):
    name = draw(st.sampled_from(sorted(ELEMENTWISE)))
    f, derivatives, domain = ELEMENTWISE[name]
    return (name, f, [i], [pool[i].through(*derivatives(pool[i].v))]) if domain(pool[i].v) else None


def binary(draw, pool, i):
    together = lambda a, b: all(n == m or 1 in (n, m) for n, m in zip(a[::-1], b[::-1], strict=False))
    fitting = [j for j, x in enumerate(pool) if together(x.shape, pool[i].shape)]
    j = draw(st.sampled_from(fitting))
    name = draw(st.sampled_from(sorted(BINARY)))
    f, on_jets, domain = BINARY[name]
    return (name, f, [i, j], [on_jets(pool[i], pool[j])]) if domain(pool[i].v, pool[j].v) else None


def matrix_product(draw, pool, i):
    def product(a, b):
        try:
            return np.matmul(a, b)
        except ValueError:
            return None

    fitting = [j for j, x in enumerate(pool) if product(pool[i].v, x.v) is not None]
    if not fitting:
        return None
    j = draw(st.sampled_from(fitting))
    return "@", lambda a, b: a @ b, [i, j], [bilinear(np.matmul, pool[i], pool[j])]


def reduction(draw, pool, i):
    x = pool[i]
    axes = [None, *range(-len(x.shape), len(x.shape)), *itertools.combinations(range(len(x.shape)), 2)]
    axis, keep = draw(st.sampled_from(axes)), draw(st.booleans())
    name = draw(st.sampled_from(["sum", "mean", "max", "min", "logsumexp"]))
    options = {"axis": axis, "keepdims": keep}
    f = lambda t: getattr(tr, name)(t, **options)
    if name in ("sum", "mean"):
        return f"{name}{options}", f, [i], [linear(lambda v: getattr(v, name)(**options), x)]
    if name == "logsumexp":
        exponentials = x.through(*(np.exp(x.v),) * 3) if small(x.v) else None
        return exponentials and (f"{name}{options}", f, [i], [log(linear(lambda v: v.sum(**options), exponentials))])
    best = x.v == getattr(x.v, name)(axis=axis, keepdims=True)
    if len(np.unique(np.round(x.v, 3))) < x.v.size:
        return None  # a tie, or nearly
    return f"{name}{options}", f, [i], [linear(lambda v: (v * best).sum(**options), x)]


def rearrangement(draw, pool, i):
    x = pool[i]
    order = draw(st.permutations(range(len(x.shape))))
    axis = draw(st.sampled_from([None, *range(len(x.shape))]))
    at = draw(st.integers(-len(x.shape) - 1, len(x.shape)))
    widths = [draw(st.tuples(st.integers(0, 1), st.integers(0, 1))) for _ in x.shape]
    wide = (draw(st.integers(1, 2)), *x.shape)
    if not x.shape:
        return (
            f"broadcast to {wide}",
            lambda t: tr.broadcast_to(t, wide),
            [i],
            [linear(lambda v: np.broadcast_to(v, wide), x)],
        )
    moves = {
        f"transpose {order}": (lambda t: tr.transpose(t, order), lambda v: v.transpose(order)),
        "reversed shape": (lambda t: t.reshape(t.shape[::-1]), lambda v: v.reshape(v.shape[::-1])),
        "flat": (lambda t: t.reshape(-1), np.ravel),
        f"flip {axis}": (lambda t: tr.flip(t, axis), lambda v: np.flip(v, axis)),
        f"pad {widths}": (lambda t: tr.pad(t, widths), lambda v: np.pad(v, widths)),
        f"expand {at}": (lambda t: tr.expand_dims(t, at), lambda v: np.expand_dims(v, at)),
        "squeeze": (tr.squeeze, np.squeeze),
        f"broadcast to {wide}": (lambda t: tr.broadcast_to(t, wide), lambda v: np.broadcast_to(v, wide)),
    }
    name = draw(st.sampled_from(sorted(moves)))
    on_tensors, on_arrays = moves[name]
    return name, on_tensors, [i], [linear(on_arrays, x)]


def indexing(draw, pool, i):
    x, parts = pool[i], []
    for n in x.shape[: draw(st.integers(0, len(x.shape)))]:
        places, rest = st.integers(-n, n - 1), st.lists(st.booleans(), min_size=n - 1, max_size=n - 1)
        kinds = {
            "all": st.just(slice(None)),
            "from": st.builds(lambda start: slice(start, None), st.integers(0, n - 1)),
            "step": st.builds(lambda step: slice(None, None, step), st.sampled_from([-1, 2, -2])),
            "place": places,
            "places": st.lists(places, min_size=1, max_size=4).map(np.array),
            "mask": rest.map(lambda rest: np.array([True, *rest])),
        }
        arrays = any(isinstance(part, np.ndarray) for part in parts)
        integers = any(isinstance(part, int) for part in parts)
        taken = ["places", "mask"] * (arrays or integers) + ["place"] * arrays  # one array, or integers
        parts.append(draw(kinds[draw(st.sampled_from(sorted(set(kinds) - set(taken))))]))
    if not any(isinstance(part, np.ndarray) for part in parts):
        parts.insert(draw(st.integers(0, len(parts))), None)
        parts += draw(st.sampled_from([[], [...]]))
    index = tuple(parts)
    on_tensors = lambda t: t[tuple(tr.tensor(part) if isinstance(part, np.ndarray) else part for part in index)]
    return f"{index}", on_tensors, [i], [linear(lambda v: v[index], x)]


def joining(draw, pool, i):
    x = pool[i]
    axis = draw(st.integers(0, max(len(x.shape) - 1, 0)))
    same = [j for j, y in enumerate(pool) if y.shape == x.shape]
    operands = [i, *draw(st.lists(st.sampled_from(same), max_size=2))]
    name = draw(st.sampled_from(["stack", "concatenate"])) if x.shape else "stack"
    on_tensors = lambda *ts: getattr(tr, name)(ts, axis)
    return (
        f"{name} {axis}",
        on_tensors,
        operands,
        [linear(lambda *vs: getattr(np, name)(vs, axis), *(pool[j] for j in operands))],
    )


def splitting(draw, pool, i):
    x = pool[i]
    axes = [axis for axis in range(-len(x.shape), len(x.shape)) if x.shape[axis] > 1]
    if not axes:
        return None
    axis = draw(st.sampled_from(axes))
    at = [draw(st.integers(1, x.shape[axis] - 1))]
    parts = [linear(lambda v, k=k: np.split(v, at, axis)[k], x) for k in range(2)]
    return f"split {at} {axis}", lambda t: tr.split(t, at, axis), [i], parts


KINDS = [
    elementwise,
    elementwise,
    binary,
    binary,
    matrix_product,
    reduction,
    rearrangement,
    indexing,
    joining,
    splitting,
]
SHAPES = [(), (1,), (2,), (3,), (2, 1), (2, 2), (2, 3), (3, 2), (1, 2, 2), (2, 1, 3)]


@st.composite
def programs(draw):
    """Draw one to three inputs, a constant, up to twelve operations and a loss."""
    numbers = np.random.default_rng(draw(st.integers(0, 2**16)))
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
    while sum(int(np.prod(shape)) for shape in shapes) > 10:
        shapes.pop()
    arrays = [numbers.uniform(-2, 2, shape) for shape in shapes]
    program = Program(arrays, inputs(arrays))
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(KINDS))
        step = kind(draw, program.jets, draw(st.integers(0, len(program.jets) - 1)))
        if step and all(0 < jet.v.size <= 36 and abs(jet.H).max() < 1e4 for jet in step[3]):
            name, f, operands, results = step
            program.steps.append((f, tuple(operands)))
            program.names.append(f"{name} of {operands}")
            program.jets.extend(results)
    outputs = draw(st.lists(st.integers(0, len(program.jets) - 1), max_size=2, unique=True))
    for i in {*outputs, len(program.jets) - 1}:
        program.weights[i] = numbers.uniform(-1, 1, program.jets[i].shape)
    return program


def check(program):
    """Compare loss, gradient and Hessian (times a random vector)."""
    expected = program.loss()
    leaves = [tr.tensor(a, requires_grad=True) for a in program.arrays]
    flat = lambda ts: np.concatenate([t.numpy().ravel() for t in ts])
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10 * max(1, abs(expected.H).max()))

    loss = program.run(leaves)
    close(loss.item(), expected.v)
    close(flat(tr.grad(loss, leaves)), expected.J)
    loss.backward()
    close(flat([x.grad if x.grad is not None else x * 0 for x in leaves]), expected.J)

    slopes = tr.grad(program.run(leaves), leaves, create_graph=True)
    close(flat(slopes), expected.J)
    u = np.random.default_rng(0).standard_normal(len(expected.J))
    split = np.split(u, np.cumsum([x.size for x in leaves])[:-1])
    along = sum((g * tr.tensor(part.reshape(x.shape))).sum() for g, part, x in zip(slopes, split, leaves, strict=True))
    bend = tr.grad(along, leaves) if along.requires_grad else [x * 0 for x in leaves]
    close(flat(bend), expected.H @ u)


quiet = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}


@settings(max_examples=500, **quiet)
@given(programs())
def test_random_graphs_agree_with_the_naive_engine(program):
    check(program)


@settings(max_examples=150, **quiet)
@given(programs())
def test_random_graphs_agree_on_the_strict_backend(program):
    with tr.use_backend("strict"):
        check(program)


# ---------------------------------------------------------------- long chains


@pytest.fixture
def no_collector():
    """Switch the garbage collector off, so that only what reference counts free is freed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def nodes():
    return sum(type(thing) is autograd.Node for thing in gc.get_objects())


def chain(x, w, n):
    for _ in tr.steps(n):
        x = x * w
    return x


@pytest.mark.usefixtures("no_collector")
def test_a_chain_of_150_000_operations_runs_backward_and_is_freed():
    x, w, n = tr.tensor(2.0, "float64", True), tr.tensor(1 + 1e-5, "float64", True), 150_000
    before = nodes()
    y = chain(x, w, n)
    assert nodes() == before + n
    y.backward()
    assert x.grad.item() == pytest.approx(y.item() / 2)
    assert w.grad.item() == pytest.approx(n * y.item() / w.item())
    assert nodes() == before + 1  # y's own, with nothing behind it
    del y
    assert nodes() == before


@pytest.mark.usefixtures("no_collector")
def test_a_chain_of_150_000_operations_is_freed_when_it_is_dropped():
    x, w = tr.tensor([1.0, 2.0], requires_grad=True), tr.ones(2, requires_grad=True)
    before = nodes()
    y = chain(x, w, 150_000)
    assert y.tolist() == [1.0, 2.0]
    del y
    assert nodes() == before


@pytest.mark.usefixtures("no_collector")
def test_the_gradient_of_a_chain_can_be_differentiated_and_is_freed():
    x, w, n = tr.tensor(2.0, "float64", True), tr.tensor(1 + 1e-5, "float64", True), 20_000
    before = nodes()
    y = chain(x, w, n)
    slope = tr.grad(y, w, create_graph=True)
    bend, mixed = tr.grad(slope, [w, x])
    assert slope.item() == pytest.approx(n * y.item() / w.item())
    assert bend.item() == pytest.approx(n * (n - 1) * y.item() / w.item() ** 2)
    assert mixed.item() == pytest.approx(slope.item() / 2)
    slope.backward()
    assert w.grad.item() == pytest.approx(bend.item())
    del y, slope
    assert nodes() == before


# ---------------------------------------------------------------- memory


class Model(nn.Module):
    def __init__(self):
        self.embedding = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 16, 2, dropout=0.1)
        self.out = nn.Linear(16, 20)

    def forward(self, tokens, state):
        x, state = self.lstm(self.embedding(tokens), state)
        return self.out(x), state


def train(model, optimizer, text, state):
    logits, state = model(text[:-1], state)
    loss = tr.cross_entropy(logits, text[1:])
    optimizer.zero_grad()
    loss.backward()
    optim.clip_grad_norm(model.parameters(), 1.0)
    optimizer.step()
    return tr.detach(state)


def train_with_a_penalty_on_the_gradient(model, optimizer, text, state):
    logits, state = model(text[:-1], state)
    loss = tr.cross_entropy(logits, text[1:])
    slopes = tr.grad(loss, model.parameters(), create_graph=True)
    optimizer.zero_grad()
    (loss + sum((g * g).sum() for g in slopes)).backward()
    optimizer.step()
    return tr.detach(state)


def fail_in_the_forward_pass(model, optimizer, text, state):
    logits, state = model(text[:-1], state)
    with pytest.raises(ShapeError):
        _ = logits + tr.ones(3)
    with pytest.raises(ShapeError):
        _ = logits @ tr.ones(3)
    return tr.detach(state)


def fail_with_an_error_of_another_kind(model, optimizer, text, state):
    boom = tr.Primitive("boom", lambda xp, x: 1 / 0, (lambda ops, gy, y, x: gy,), ("",), None)
    logits, state = model(text[:-1], state)
    with pytest.raises(ZeroDivisionError):
        tr.apply(boom, logits)
    return tr.detach(state)


def fail_in_the_backward_pass(model, optimizer, text, state):
    boom = tr.Primitive("boom", lambda xp, x: x * 1, (lambda ops, gy, y, x: 1 / 0,), ("",), None)
    logits, state = model(text[:-1], state)
    loss = tr.apply(boom, logits).sum()
    with pytest.raises(ZeroDivisionError):
        loss.backward()
    return tr.detach(state)


def carry_the_state_without_detach(model, optimizer, text, state):
    logits, state = model(text[:-1], state)
    logits.sum().backward()
    with pytest.raises(tr.errors.GraphError):
        model(text[:-1], state)[0].sum().backward()
    return tr.detach(state)


@pytest.mark.parametrize(
    ("step", "times"),
    [
        (train, 100),
        (train_with_a_penalty_on_the_gradient, 30),
        (fail_in_the_forward_pass, 30),
        (fail_with_an_error_of_another_kind, 30),
        (fail_in_the_backward_pass, 30),
        (carry_the_state_without_detach, 30),
    ],
)
@pytest.mark.usefixtures("no_collector")
def test_no_step_leaves_anything_behind(step, times):
    model, state = Model(), None
    optimizer = optim.Adam(model.parameters())
    text = tr.tensor(np.random.default_rng(0).integers(0, 20, (9, 4)))
    train(model, optimizer, tr.tensor(np.zeros((200, 4), int)), None)  # fills the interpreter's lists of free tuples
    tracemalloc.start()
    try:
        for k in range(times):
            state = step(model, optimizer, text, state)
            if k == 9:
                at_10, graph_at_10 = tracemalloc.get_traced_memory()[0], nodes()
        grown = tracemalloc.get_traced_memory()[0] - at_10
    finally:
        tracemalloc.stop()
    assert nodes() == graph_at_10
    assert abs(grown) < 1_000_000  # the graph of one step takes about 150 kB
