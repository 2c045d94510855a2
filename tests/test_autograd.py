"""The walk: gradients, accumulation, freeing, hooks, modes, scopes, messages, and primitives of one's own."""

from __future__ import annotations

import asyncio
import copy
import itertools
import pickle
import threading

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import autograd, nn, optim, primitives
from tinyrnn.errors import BackendError, DTypeError, GradientError, GraphError, ShapeError


def leaf(*values, dtype="float64"):
    return tr.tensor(values if len(values) > 1 else values[0], dtype, requires_grad=True)


def scope():
    return str(autograd.current_scope() or "")


# ---------------------------------------------------------------- grad: a pure function


def test_grad_of_a_single_x_is_a_tensor_and_of_several_a_tuple(backend):
    x, w = leaf(1.0, 2.0), leaf(3.0, 5.0)
    y = (x * x * w).sum()
    gx = tr.grad(y, x)
    assert gx.backend is backend
    assert gx.dtype == "float64"
    assert gx.tolist() == [6.0, 20.0]
    gw, gx = tr.grad(y, (w, x))
    assert (gw.tolist(), gx.tolist()) == ([1.0, 4.0], [6.0, 20.0])
    assert tr.grad(y, []) == ()
    assert [g.tolist() for g in tr.grad(y, [x, x])] == [[6.0, 20.0]] * 2


def test_grad_changes_nothing_and_frees_nothing(backend):
    x, w = leaf(1.0, 2.0), leaf(3.0, 5.0)
    z = x * w
    z.retain_grad()
    y = (z * z).sum()
    first = tr.grad(y, [x, w, z])
    second = tr.grad(y, [x, w, z])
    assert [g.tolist() for g in first] == [g.tolist() for g in second]
    assert x.grad is w.grad is z.grad is None
    assert not any(g.requires_grad for g in first)
    y.backward()
    assert z.grad.tolist() == first[2].tolist()


def test_grad_of_what_is_not_on_the_way_is_zero(backend):
    x, other = leaf(1.0, 2.0), tr.zeros(2, 3, requires_grad=True)
    gx, zero = tr.grad((x * 2).sum(), [x, other])
    assert gx.tolist() == [2.0, 2.0]
    assert (zero.shape, zero.dtype, zero.backend) == ((2, 3), "float32", backend)
    assert zero.tolist() == [[0.0] * 3] * 2
    assert tr.grad((x * 2).sum(), other, create_graph=True).tolist() == [[0.0] * 3] * 2


def test_grad_of_results_and_of_y_itself(backend):
    x = leaf(2.0)
    h = x * 3
    y = h * h
    assert [g.item() for g in tr.grad(y, [x, h, y])] == [36.0, 12.0, 1.0]
    assert tr.grad(x, x).item() == 1.0


def test_grad_of_several_ys_is_their_sum(backend):
    x = leaf(1.0, 2.0)
    y, z = x * 2, (x * x).sum()
    assert tr.grad([y, z], x, [tr.tensor([1.0, 10.0]), None]).tolist() == [2 + 2.0, 20 + 4.0]
    assert tr.grad([z, z], x).tolist() == [4.0, 8.0]
    assert tr.grad([z, z], x, create_graph=True).tolist() == [4.0, 8.0]


@pytest.mark.parametrize("create_graph", [False, True])
def test_gy_weighs_y(backend, create_graph):
    x = leaf(1.0, 2.0)
    y = x * x
    for gy in (tr.tensor([1.0, -1.0]), tr.tensor([1, -1]), [1.0, -1.0], tr.tensor([1.0, -1.0], "float64")):
        g = tr.grad(y, x, gy, create_graph)
        assert (g.tolist(), g.dtype) == ([2.0, -4.0], "float64")


@pytest.mark.parametrize(
    ("gy", "error", "message"),
    [
        (lambda: None, ShapeError, r"shape \(2,\); expected a single number.*mean\(\) or sum\(\)"),
        (lambda: tr.ones(3), ShapeError, r"gy has shape \(3,\); expected y's own, \(2,\)"),
        (lambda: [1.0], ShapeError, "given 1 gy for 2 y"),
        (lambda: "ones", DTypeError, "str"),
    ],
)
def test_a_gy_that_does_not_fit_is_refused(gy, error, message):
    y = leaf(1.0, 2.0) * 2
    several = isinstance(gy(), list)
    with pytest.raises(error, match=message):
        tr.grad([y, y] if several else y, y, gy())


def test_a_gy_on_another_backend_is_refused():
    y = leaf(1.0, 2.0) * 2
    with tr.use_backend("strict"):
        gy = tr.ones(2)
    with pytest.raises(BackendError, match="numpy and strict"):
        y.backward(gy)


def test_what_was_not_recorded_has_no_gradient(backend):
    x, constant = leaf(1.0), tr.tensor(1.0)
    with tr.no_grad():
        unrecorded = x * 2
    for y in (constant, unrecorded, (x * 2).detach(), x > 0):
        with pytest.raises(GraphError, match="nothing was recorded"):
            y.backward()
    with pytest.raises(GraphError, match="an x requires no gradient"):
        tr.grad(x * constant, [x, constant])


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_every_order_of_derivative(backend, order):
    x = leaf(0.5)
    y = tr.exp(2 * x)
    for _ in range(order):
        y = tr.grad(y, x, create_graph=True)
    assert y.item() == pytest.approx(2**order * np.exp(1.0), rel=1e-12)


def test_create_graph_makes_gradients_that_backward_can_use(backend):
    x = leaf(3.0)
    slope = tr.grad(x**3, x, create_graph=True)
    (slope * slope).backward()
    assert x.grad.item() == pytest.approx(2 * 27 * 18)
    v = leaf(1.0, 1.0)
    g = tr.grad(leaf(1.0, 2.0) * 2, [], gy=v, create_graph=True)
    assert g == ()
    z = x * tr.ones(2, dtype="float64")
    assert tr.grad(tr.grad(z, x, gy=v, create_graph=True), v).tolist() == [1.0, 1.0]


# ---------------------------------------------------------------- backward: into .grad


def test_backward_adds_into_grad(backend):
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    (3 * x).sum().backward()
    assert x.grad.tolist() == [5.0, 7.0]
    assert x.grad.backend is backend
    x.grad = None
    (3 * x).backward(tr.tensor([1.0, 0.0]))
    assert x.grad.tolist() == [3.0, 0.0]


def test_a_leaf_is_its_own_graph(backend):
    x = leaf(4.0)
    x.backward()
    x.backward()
    assert x.grad.item() == 2.0


def test_gradients_have_the_dtype_of_their_tensor(backend):
    w, x = leaf(1.0, dtype="float32"), leaf(1.0, 2.0)
    (w * x).sum().backward()
    assert (w.grad.dtype, x.grad.dtype) == ("float32", "float64")
    assert w.grad.item() == 3.0


def test_only_floats_require_a_gradient(backend):
    with pytest.raises(DTypeError, match="int64"):
        tr.tensor([1, 2], requires_grad=True)
    x = leaf(1.5, 2.5)
    assert not x.astype("int64").requires_grad
    assert not tr.argmax(x).requires_grad
    assert not (x > 2).requires_grad
    with pytest.raises(GraphError, match="not a leaf"):
        (x * 2).requires_grad = True


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.ones(2), DTypeError, "given ndarray; expected a tensor of float64"),
        (tr.ones(2), DTypeError, "given a tensor of float32"),
        (tr.ones(3, dtype="float64"), ShapeError, r"shape \(3,\); expected the tensor's own, \(2,\)"),
    ],
)
def test_a_grad_that_does_not_fit_is_refused(value, error, message):
    x = leaf(1.0, 2.0)
    with pytest.raises(error, match=message):
        x.grad = value
    assert x.grad is None


def test_a_frozen_tensor_takes_no_grad_but_may_be_cleared():
    x = leaf(1.0, 2.0)
    x.requires_grad = False
    x.grad = None
    with pytest.raises(GraphError, match="keeps no gradient"):
        x.grad = tr.ones(2, dtype="float64")


def test_retain_grad_keeps_the_gradient_of_a_result(backend):
    x = leaf(2.0)
    h, unused = tr.split(x * tr.tensor([3.0, 1.0]), 2)
    y = h * h
    assert h.grad is None
    h.retain_grad()
    unused.retain_grad()
    y.backward(retain_graph=True)
    y.backward()
    assert h.grad.tolist() == [24.0]
    assert unused.grad is None
    assert x.grad.item() == 72.0
    with pytest.raises(GraphError, match="requires no gradient"):
        tr.ones(2).retain_grad()


# ---------------------------------------------------------------- what flows together


def _diamond(x):
    a = x * 2
    b, c = a * a, a + 1
    return (b * c).sum()


def _shared_interior_weight(x):
    w2, h = x * 2, tr.ones(2, dtype="float64")
    for _ in tr.steps(3):
        h = h * w2
    return h.sum()


FLOWS = {
    "x used twice": (lambda x: (x * x + x).sum(), lambda x: 2 * x + 1),
    "x on both sides": (lambda x: (x / x + x - x).sum(), lambda x: 0 * x),
    "a diamond": (_diamond, lambda x: 24 * x**2 + 8 * x),
    "a shared interior weight": (_shared_interior_weight, lambda x: 24 * x**2),
    "unused z[t]": (lambda x: [x[t] for t in range(2)][1] * 3, lambda x: np.array([0.0, 3.0])),
    "z[t] used twice": (lambda x: x[0] * 3 + x[0] * 4 + x[1], lambda x: np.array([7.0, 1.0])),
    "slices that overlap": (lambda x: x[:].sum() + x[1:].sum() + x[::-1][0] + x[-1], lambda x: np.array([1.0, 4.0])),
    "rows named twice": (lambda x: (x[tr.tensor([1, 1, 0])] * tr.tensor([1.0, 2.0, 4.0])).sum(), lambda x: [4.0, 3.0]),
    "a mask": (lambda x: (x[x > 1.0] * 5).sum(), lambda x: np.where(x > 1, 5.0, 0.0)),
    "slices and the whole": (lambda x: x[0] * 2 + (x * 3).sum(), lambda x: np.array([5.0, 3.0])),
    "some parts of a split": (lambda x: tr.split(x, 2)[1].sum() * 2, lambda x: np.array([0.0, 2.0])),
    "a part of a split twice": (lambda x: (tr.split(x, 2)[0] * tr.split(x, 2)[0]).sum(), lambda x: [2 * x[0], 0.0]),
    "broadcast twice": (lambda x: (x[:, None] * x[None, :]).sum(), lambda x: 2 * x.sum() + 0 * x),
    "a matrix used again and again": (
        lambda x: (tr.tensor([[1.0, 2.0]]) @ x[:, None] @ x[None, :] @ x[:, None]).sum(),
        lambda x: np.array([1.0, 2.0]) * (x @ x) + 2 * x * (x @ [1.0, 2.0]),
    ),
    "stacked with itself": (lambda x: (tr.stack([x, x, x * 2]) * 2).sum(), lambda x: np.array([8.0, 8.0])),
    "no use at all": (lambda x: (x * 0).sum(), lambda x: 0 * x),
}


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("create_graph", [False, True])
def test_contributions_add_up(backend, name, create_graph):
    f, expected = FLOWS[name]
    values = np.array([0.75, 1.5])
    x = tr.tensor(values, requires_grad=True)
    np.testing.assert_allclose(tr.grad(f(x), x, create_graph=create_graph).numpy(), expected(values), rtol=1e-12)
    f(x).backward()
    np.testing.assert_allclose(x.grad.numpy(), expected(values), rtol=1e-12)


def test_a_weight_used_at_every_step_receives_one_product(backend):
    w, x = tr.randn(3, 4, dtype="float64", requires_grad=True), tr.randn(5, 2, 3, dtype="float64")
    (tr.stack([x[t] @ w for t in range(5)]) ** 2).sum().backward()
    flat = x.numpy().reshape(10, 3)
    np.testing.assert_allclose(w.grad.numpy(), 2 * flat.T @ flat @ w.numpy(), rtol=1e-12)


def test_gradients_travel_between_backends():
    for here, there in (("numpy", "strict"), ("strict", "numpy")):
        with tr.use_backend(here):
            x = leaf(1.0, 2.0)
        (x.to(there) ** 3).sum().backward()
        assert (x.grad.tolist(), x.grad.backend.name) == ([3.0, 12.0], here)
        slope = tr.grad((x.to(there) ** 3).sum(), x, create_graph=True)
        assert (tr.grad(slope.sum(), x).tolist(), slope.backend.name) == ([6.0, 12.0], here)


@pytest.mark.parametrize("shape", [(2, 3, 0), (2, 0, 3), (0, 3), (2, 0)])
def test_a_vector_that_meets_nothing_has_a_gradient_of_zeros(backend, shape):
    x, b, W = tr.zeros(shape, requires_grad=True), tr.zeros(shape[-1], requires_grad=True), tr.ones(shape[-1], 2)
    W.requires_grad = True
    for y in ((x + b).sum() + (x * b).sum(), tr.linear(x + b, W).sum()):
        for w, g in zip((x, b, W), tr.grad(y + W.sum(), (x, b, W)), strict=True):
            assert g.shape == w.shape
        assert not tr.grad(y, b).numpy().any()


# ---------------------------------------------------------------- no aliasing


def _no_two_share(arrays):
    return not any(np.shares_memory(a, b) for a, b in itertools.combinations(arrays, 2))


@pytest.mark.parametrize(
    "f",
    [
        lambda a, b: a + b,
        lambda a, b: a - b + 0,
        lambda a, b: (a + b).reshape(2, 2).T,
        lambda a, b: tr.concatenate([a, b]).reshape(2, 4),
        lambda a, b: tr.stack([a, b]),
        lambda a, b: tr.broadcast_to(a, (2, 4)) + b,
        lambda a, b: tr.flip(a)[::-1] + b[:],
        lambda a, b: sum(tr.split(a, 2)) + sum(tr.split(b, 2)),
    ],
)
def test_no_gradient_shares_memory(f):
    a, b = tr.randn(4, requires_grad=True), tr.randn(4, requires_grad=True)
    y = f(a, b)
    y.retain_grad()
    gy = tr.randn(*y.shape)
    given = tr.grad(y, [a, b, y], gy)
    y.backward(gy, retain_graph=True)
    once = [x.grad for x in (a, b, y)]
    y.backward(gy)
    twice = [x.grad for x in (a, b, y)]
    assert _no_two_share([t.array for t in (a, b, y, gy, *given, *once, *twice)])
    assert once[2].tolist() == gy.tolist()


def test_interior_gradients_share_nothing_either():
    x = tr.randn(4, requires_grad=True)
    h = x + 0
    z = h.reshape(2, 2)
    for t in (h, z):
        t.retain_grad()
    (z.sum() + z.sum()).backward()
    assert _no_two_share([x.grad.array, h.grad.array, z.grad.array, x.array])


def test_arrays_that_the_user_changes_later_do_not_reach_the_graph():
    x, a = leaf(1.0, 2.0), np.array([3.0, 4.0])
    y = (x * a).sum()
    w = nn.Parameter(np.zeros(2)).assign(a)
    a[:] = 0
    y.backward()
    assert x.grad.tolist() == [3.0, 4.0]
    assert w.tolist() == [3.0, 4.0]


# ---------------------------------------------------------------- graphs that are used up


def test_a_state_carried_over_without_detach_is_explained(backend):
    lstm, state = nn.LSTM(3, 4, 2), None
    x = tr.randn(5, 2, 3)

    def batch(state):
        out, state = lstm(x, state)
        (out * out).mean().backward()
        return state

    state = batch(state)
    with pytest.raises(GraphError) as caught:
        batch(state)
    message = str(caught.value)
    assert "state = tr.detach(state)" in message
    assert "earlier batch" in message
    assert "LSTM.cells." in message
    assert "step t=4" in message
    assert any(repr(op) in message for op in [*primitives.registry, "lstm_step"])
    assert message.index("detach") < message.index("retain_graph")
    batch(tr.detach(state))


def test_a_graph_is_freed_unless_it_is_retained(backend):
    x = leaf(2.0)
    y = tr.exp(x)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == pytest.approx(2 * np.exp(2.0))
    for again in (y.backward, lambda: tr.grad(y, x), lambda: tr.grad(y * 2, x, create_graph=True)):
        with pytest.raises(GraphError, match=r"'exp'.*detach"):
            again()


def test_a_freed_part_that_is_not_asked_for_does_not_matter(backend):
    x = leaf(2.0)
    h = x * 3
    h.backward()
    w = leaf(5.0)
    assert tr.grad(h * w, w).item() == 6.0


def test_detach_cuts_every_part_of_a_state():
    x = leaf(1.0)
    state = nn.LSTMState(x * 1, x * 2)
    cut = tr.detach({"lstm": state, "more": [x * 3, (x * 4,)], "none": None})
    assert type(cut["lstm"]) is nn.LSTMState
    parts = [*cut["lstm"], cut["more"][0], cut["more"][1][0]]
    assert [part.item() for part in parts] == [1.0, 2.0, 3.0, 4.0]
    assert not any(part.requires_grad for part in parts)
    assert cut["none"] is None
    assert state.h.requires_grad
    with pytest.raises(DTypeError, match="given str"):
        tr.detach("h")


# ---------------------------------------------------------------- changes in place


def _no_grad_update(w):
    with tr.no_grad():
        w -= 0.1


def _step(w):
    w.grad = tr.ones(*w.shape, dtype=w.dtype)
    optim.SGD([w], lr=0.1).step()


def _load(w):
    module = nn.Module()
    module.w = w
    module.load_state_dict({"w": np.zeros(w.shape)})


CHANGES = {"update": _no_grad_update, "optimizer": _step, "load": _load, "assign": lambda w: w.assign(0.0)}


@pytest.mark.parametrize("change", CHANGES)
def test_a_needed_operand_that_changed_in_place_is_detected(backend, change):
    w = nn.Parameter([1.0, 2.0])
    with autograd.in_module(nn.Module()):
        y = (w * w).sum()
    y.backward(retain_graph=True)
    CHANGES[change](w)
    for again in (lambda: y.backward(retain_graph=True), lambda: tr.grad(y, w, create_graph=True)):
        with pytest.raises(GraphError, match=r"multiply\(float32\[2\], float32\[2\]\) in Module was changed in place"):
            again()


def test_a_parameter_that_moved_to_another_backend_is_detected():
    layer = nn.Linear(2, 2)
    y = layer(tr.ones(1, 2, requires_grad=True)).sum()
    layer.to("strict")
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


def test_an_operand_without_gradient_that_changed_in_place_is_detected_too(backend):
    w, x = leaf(1.0, 2.0), tr.tensor([3.0, 4.0], "float64")
    y = (w * x).sum()
    x.assign(tr.zeros(2))
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("f", "gradient"),
    [
        (lambda w: w + 1.0, [1.0, 1.0]),
        (lambda w: w * 3.0, [3.0, 3.0]),
        (lambda w: tr.tanh(w * 0.0), [0.0, 0.0]),
        (lambda w: tr.tensor([[2.0, 5.0]]) @ w[:, None], [2.0, 5.0]),
        (lambda w: tr.flip(w)[:1], [0.0, 1.0]),
    ],
)
def test_a_change_of_values_that_no_rule_reads_is_harmless(backend, change, f, gradient):
    w = nn.Parameter([1.0, 2.0])
    y = f(w).sum()
    CHANGES[change](w)
    w.grad = None
    y.backward()
    assert w.grad.tolist() == gradient


def test_an_update_under_no_grad_is_in_place(backend):
    layer = nn.Linear(2, 2)
    before, weight = layer.W.numpy().copy(), layer.W
    with tr.no_grad():
        layer.W -= 0.5 * tr.ones(2, 2)
        layer.W *= 2.0
        layer.W /= 4.0
        layer.W += tr.ones(2, 2, dtype="float64")
    assert layer.W is weight
    assert isinstance(weight, nn.Parameter)
    assert (weight.dtype, weight.requires_grad) == ("float32", True)
    np.testing.assert_allclose(weight.numpy(), (before - 0.5) / 2 + 1, rtol=1e-6)


def test_an_update_of_the_wrong_shape_is_refused():
    w = nn.Parameter([1.0, 2.0])
    with tr.no_grad(), pytest.raises(ShapeError, match=r"assign: given shape \(3, 2\)"):
        w -= tr.ones(3, 2)
    assert w.tolist() == [1.0, 2.0]
    with pytest.raises(GraphError, match="result of an operation"):
        (w * 2).assign(0.0)


def test_changing_a_recorded_tensor_is_refused_with_advice():
    x = leaf(1.0, 2.0)
    for recorded in (x, x * 2):
        with pytest.raises(GraphError, match=r"tr\.where"):
            recorded[0] = 1.0
        with pytest.raises(GraphError, match=r"x = x \+ y.*with tr\.no_grad\(\)"):
            recorded += 1.0
    plain = before = tr.tensor([1.0, 2.0])
    plain += 1
    assert (plain.tolist(), before.tolist()) == ([2.0, 3.0], [1.0, 2.0])


def test_bool_of_several_elements_is_refused_with_advice():
    x = leaf(1.0, 2.0)
    with pytest.raises(ShapeError, match=r"bool\(\) of a tensor of shape \(2,\).*tr\.where.*mask\.min\(\)"):
        bool(x > 1)
    assert bool((x > 0).min())
    assert not tr.tensor([0.0])


# ---------------------------------------------------------------- no_grad and enable_grad


def test_modes_nest(backend):
    x, seen = leaf(1.0), []
    with tr.no_grad():
        seen.append((x * 2).requires_grad)
        with tr.enable_grad():
            seen.append((x * 2).requires_grad)
            with tr.no_grad():
                seen.append((x * 2).requires_grad)
            seen.append((x * 2).requires_grad)
        seen.append(tr.grad(leaf(1.0), [], create_graph=True) == () and tr.is_grad_enabled())
    assert seen == [False, True, False, True, False]
    assert tr.is_grad_enabled()


def test_a_mode_ends_with_an_exception_and_can_be_entered_again():
    mode = tr.no_grad()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), mode, mode:
            _ = 1 / 0
        assert tr.is_grad_enabled()


def test_grad_works_under_no_grad(backend):
    x = leaf(3.0)
    y = x * x
    with tr.no_grad():
        slope = tr.grad(y, x, create_graph=True)
        assert not tr.is_grad_enabled()
    assert tr.grad(slope, x).item() == 2.0


def test_modes_decorate_recursive_functions():
    @tr.no_grad()
    def down(n):
        """Count."""
        inside = tr.is_grad_enabled()
        return [inside, *(down(n - 1) if n else []), tr.is_grad_enabled()]

    @tr.enable_grad()
    def up(f):
        return [tr.is_grad_enabled(), *f(), tr.is_grad_enabled()]

    assert down(3) == [False] * 8
    assert (down.__name__, down.__doc__) == ("down", "Count.")
    assert up(lambda: down(0)) == [True, False, False, True]
    assert tr.is_grad_enabled()


def test_modes_refuse_to_decorate_what_is_suspended():
    def generator():
        yield

    async def coroutine():
        pass

    for function in (generator, coroutine):
        with pytest.raises(tr.errors.DTypeError, match=r"write `with tr.no_grad\(\):` inside it"):
            tr.no_grad()(function)


def test_modes_do_not_leak_between_threads():
    inside, first_left, seen = threading.Barrier(3), threading.Event(), {}

    @tr.no_grad()
    def work(name):
        inside.wait(10)
        assert name == "first" or first_left.wait(10)
        seen[name, "inside"] = tr.is_grad_enabled()

    def run(name, around):
        with around:
            work(name)
            seen[name, "after"] = tr.is_grad_enabled()
        seen[name, "outside"] = tr.is_grad_enabled()
        first_left.set()

    threads = [threading.Thread(target=run, args=a) for a in (("first", tr.enable_grad()), ("second", tr.no_grad()))]
    with tr.no_grad():
        for thread in threads:
            thread.start()
        inside.wait(10)
        for thread in threads:
            thread.join(10)
        assert not tr.is_grad_enabled()
    assert tr.is_grad_enabled()
    assert seen == {
        ("first", "inside"): False,
        ("second", "inside"): False,
        ("first", "after"): True,
        ("second", "after"): False,
        ("first", "outside"): True,  # a thread begins with the default mode
        ("second", "outside"): True,
    }


def test_modes_do_not_leak_between_tasks():
    seen = []

    async def without(name):
        with tr.no_grad():
            for _ in tr.steps(3):
                await asyncio.sleep(0)
                seen.append((name, tr.is_grad_enabled(), scope()))

    async def within():
        for t in tr.steps(range(10, 13)):
            await asyncio.sleep(0)
            seen.append((t, tr.is_grad_enabled(), scope()))

    async def main():
        await asyncio.gather(without("a"), within(), without("b"))

    asyncio.run(main())
    expected = {(name, False, f"step t={t}") for name in "ab" for t in range(3)}
    assert set(seen) == expected | {(t, True, f"step t={t}") for t in range(10, 13)}
    assert [name for name, *_ in seen[:3]] == ["a", 10, "b"]  # they took turns
    assert (tr.is_grad_enabled(), scope()) == (True, "")


# ---------------------------------------------------------------- time


def test_steps_nest_and_end():
    seen = []
    for t in tr.steps(3):
        for _ in tr.steps(reversed(range(2))):
            seen.append(scope())
            if t == 1:
                break
        seen.append(scope())
        if t == 1:
            break
    inner = ["step t=0, step t=1", "step t=0, step t=0", "step t=0", "step t=1, step t=1", "step t=1"]
    assert seen == inner
    assert scope() == ""
    assert list(tr.steps(3)) == [0, 1, 2]
    assert list(tr.steps([5, 2])) == [5, 2]
    assert scope() == ""


def test_steps_end_with_an_exception():
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  # the loop is what must be left by the error
        for _ in tr.steps(2):
            for _ in tr.steps(2):
                _ = 1 / 0
    assert scope() == ""


def test_steps_leave_the_mode_alone():
    loop = tr.steps(3)
    next(loop)
    with tr.no_grad():
        next(loop)
        assert not tr.is_grad_enabled()
    assert scope() == "step t=1"
    loop.close()
    assert scope() == ""


@pytest.mark.parametrize("lengths", [(2, 3), (3, 2), (2, 2)])
def test_steps_go_side_by_side(lengths):
    seen = [scope() for _ in zip(*map(tr.steps, lengths), strict=False)]
    assert seen == ["step t=0", "step t=1"]
    assert scope() == ""


def test_a_loop_that_is_left_unfinished_ends_with_the_one_around_it():
    for t in tr.steps(2):
        inner = tr.steps(3)
        next(inner)
        assert scope() == f"step t={t}, step t=0"
    assert scope() == ""
    with autograd.in_module(nn.Dropout()):
        inner.close()  # elsewhere: it must not change what holds there
        assert scope() == "Dropout"
    assert scope() == ""


# ---------------------------------------------------------------- messages


class WrongCell(nn.Cell):
    gates = ("h",)

    def __init__(self, input_size, hidden_size, mistake):
        super().__init__(input_size, hidden_size)
        self.mistake, self.calls = mistake, 0

    def step(self, z, state):
        self.calls += 1
        h = tr.tanh(z + state.h @ self.W_h)
        return self.State(self.mistake(h) if self.calls == 3 else h)


class Tagger(nn.Module):
    def __init__(self, mistake):
        self.layer = nn.Recurrent(WrongCell, 3, 4, mistake=mistake)

    def forward(self, x):
        return self.layer(x)[0]


MISTAKES = {
    "add": (lambda h: h + tr.ones(3), ShapeError, r"add\(float32\[2, 4\], float32\[3\]\) in {where}: operands could"),
    "matmul": (lambda h: h @ tr.ones(3, 4), ShapeError, r"matmul: \(2, 4\) @ \(3, 4\) in {where}.*expected 3"),
    "getitem": (lambda h: h[5], IndexError, r"getitem\(float32\[2, 4\]\) in {where}: "),
    "concatenate": (lambda h: tr.concatenate([h, tr.ones(4)]), ShapeError, r"float32\[4\]\) in {where}: "),
    "reshape": (lambda h: h.reshape(3, 3), ValueError, r"reshape\(float32\[2, 4\]\) in {where}: "),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_an_error_in_an_operation_says_where_and_when(backend, name):
    mistake, error, message = MISTAKES[name]
    model = Tagger(mistake)
    with pytest.raises(error, match=message.format(where=r"Tagger\.layer\.cells\.0, step t=2")) as caught:
        model(tr.randn(4, 2, 3))
    assert isinstance(caught.value, tr.errors.TinyRNNError)
    assert scope() == ""


@pytest.fixture
def own(monkeypatch):
    """A copy of the registry, so that primitives made here are gone afterwards."""
    monkeypatch.setattr(primitives, "registry", dict(primitives.registry))
    return tr.primitive


def test_an_error_of_another_kind_keeps_its_type_and_gets_a_note(own):
    boom = own("boom", forward=lambda xp, x: 1 / 0, vjp=(lambda ops, gy, y, x: gy,), saves=("",))
    with pytest.raises(ZeroDivisionError) as caught:
        Tagger(lambda h: tr.apply(boom, h))(tr.randn(4, 2, 3))
    assert caught.value.__notes__ == ["while computing boom(float32[2, 4]) in Tagger.layer.cells.0, step t=2"]


def test_an_error_in_a_rule_says_where_and_when(backend, own):
    boom = own("boom", forward=lambda xp, x: x * 1, vjp=(lambda ops, gy, y, x: ops.matmul(gy, gy),), saves=("",))
    out = Tagger(lambda h: tr.apply(boom, h))(tr.randn(4, 2, 3))
    where = r"the gradient of boom\(float32\[2, 4\]\) in Tagger\.layer\.cells\.0, step t=2"
    with pytest.raises(ShapeError, match=where):
        out.sum().backward()


def test_a_module_that_its_parent_does_not_own_is_named_by_its_type():
    stranger = nn.Linear(2, 2)

    class Host(nn.Module):
        def forward(self, x):
            return stranger(x)

    with pytest.raises(ShapeError, match=r"^Linear: x is \(2, 3\)"):
        Host()(tr.ones(2, 3))
    y = Host()(tr.ones(2, 2))
    assert str(y.node.scope) == "Host.Linear"
    assert repr(y.node).endswith("linear in Host.Linear>")


# ---------------------------------------------------------------- hooks


def test_hooks_see_replace_and_end(backend):
    x = leaf(1.0, 2.0)
    h = x * 3
    seen = []
    watch = h.register_hook(lambda g: seen.append(g.tolist()))
    double = h.register_hook(lambda g: g * 2)
    after = h.register_hook(lambda g: seen.append(g.tolist()))
    (h.sum() + h[0]).backward(retain_graph=True)
    assert seen == [[2.0, 1.0], [4.0, 2.0]]  # complete, and in the order of registration
    assert x.grad.tolist() == [12.0, 6.0]
    for hook in (watch, double, after, double):
        hook.remove()
    x.grad = None
    h.sum().backward()
    assert (len(seen), x.grad.tolist()) == (2, [3.0, 3.0])


def test_a_hook_on_a_leaf_changes_what_arrives(backend):
    x = leaf(3.0)
    x.register_hook(lambda g: tr.clip(g, -1.0, 1.0))
    (x * x).backward()
    assert x.grad.item() == 1.0
    assert tr.grad(x * x, x).item() == 1.0


def test_hooks_work_in_a_gradient_that_is_differentiated(backend):
    x = leaf(3.0)
    y = x * x
    y.register_hook(lambda g: g * x)
    slope = tr.grad(y, x, create_graph=True)
    assert (slope.item(), tr.grad(slope, x).item()) == (18.0, 12.0)


def test_a_hook_may_remove_itself():
    x, seen = leaf(1.0), []
    y = x * 2

    def once(g):
        seen.append("once")
        handle.remove()

    handle = y.register_hook(once)
    y.register_hook(lambda g: seen.append("always"))
    y.backward(retain_graph=True)
    y.backward()
    assert seen == ["once", "always", "always"]


def test_a_gradient_that_a_hook_keeps_is_not_the_one_in_grad():
    x, kept = tr.randn(3, requires_grad=True), []
    h = x * 2
    h.retain_grad()
    for t in (x, h):
        t.register_hook(kept.append)
    (h.sum() + h.sum()).backward()
    assert _no_two_share([x.grad.array, h.grad.array, *(g.array for g in kept)])


def test_a_hook_that_changes_the_shape_is_refused():
    x = leaf(1.0, 2.0)
    y = x * 2
    y.register_hook(lambda g: g[:1])
    with pytest.raises(ShapeError, match=r"hook: returned shape \(1,\); expected the gradient's own, \(2,\)"):
        y.sum().backward()
    with pytest.raises(GraphError, match="requires no gradient"):
        tr.ones(2).register_hook(print)


@pytest.mark.parametrize(("answer", "given"), [(2.0, "float"), (np.ones(2), "ndarray")])
def test_a_hook_that_returns_no_tensor_is_refused(answer, given):
    x = leaf(1.0, 2.0)
    x.register_hook(lambda g: answer)
    with pytest.raises(DTypeError, match=f"hook: returned a {given}; expected the new gradient, a tensor, or None"):
        (x * 2).sum().backward()


# ---------------------------------------------------------------- copies


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_leaves_can_be_copied(backend, twin):
    x = nn.Parameter([1.0, 2.0], axes=("I",))
    (x * x).sum().backward()
    y = twin(x)
    assert type(y) is nn.Parameter
    assert (y.tolist(), y.dtype, y.backend, y.requires_grad) == ([1.0, 2.0], "float32", backend, True)
    assert (y.describe(), y.grad) == ("(I=2)", None)
    y.assign(0.0)
    (y * x).sum().backward()
    assert (x.tolist(), y.grad.tolist()) == ([1.0, 2.0], [1.0, 2.0])
    assert not twin(x.detach()).requires_grad


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_modules_can_be_copied(backend, twin):
    model = nn.Sequential(nn.LSTM(2, 3, 2), nn.Dropout(0.5)).eval()
    model.tied = model[0].cells[0].b
    other = twin(model)
    assert repr(other) == repr(model)
    assert not other[1].training
    assert other.tied is other[0].cells[0].b
    assert all(np.array_equal(v.numpy(), model.state_dict()[k].numpy()) for k, v in other.state_dict().items())
    other.tied.assign(0.0)
    assert float(model.tied.sum()) > 0


@tr.fused
def doubled(x):
    return 2 * x


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_fused_function_is_copied_as_a_function_is(twin):
    model = nn.Sequential(nn.Linear(2, 3), doubled)
    x = tr.ones(4, 2)
    model(x).sum().backward()  # there are kernels now
    other = twin(model)
    assert other[1].function is doubled
    assert other(x).tolist() == model(x).tolist()


def test_a_recorded_result_cannot_be_copied():
    y = leaf(1.0) * 2
    for twin in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(GraphError, match=r"x\.detach\(\) can"):
            twin(y)
    assert copy.deepcopy(y.detach()).item() == 2.0


# ---------------------------------------------------------------- primitives of one's own


def test_a_primitive_with_parameters(backend, own):
    shifted = own(
        "shifted_power",
        forward=lambda xp, x, *, n, shift=0.0: (x + shift) ** n,
        vjp=(lambda ops, gy, y, x, *, n, shift=0.0: gy * n * (x + shift) ** (n - 1),),
        saves=("x",),
    )
    x = leaf(1.0, 2.0)
    assert repr(shifted) == "<primitive shifted_power(x)>"
    assert tr.grad(tr.apply(shifted, x, n=3, shift=1.0).sum(), x).tolist() == [12.0, 27.0]
    assert tr.gradcheck(lambda x: tr.apply(shifted, x, n=3, shift=1.0), x)


def test_a_primitive_with_several_results_and_one_rule(backend, own):
    both = own(
        "product_and_sum",
        forward=lambda xp, a, b: (a * b, a + b),
        vjp=lambda ops, gys, ys, a, b: (gys[0] * b + gys[1], gys[0] * a + gys[1]),
        saves=("a", "b"),
    )
    a, b = leaf(2.0, 3.0), leaf(5.0, 7.0)
    product, total = tr.apply(both, a, b)
    assert (product.tolist(), total.tolist()) == ([10.0, 21.0], [7.0, 10.0])
    assert [g.tolist() for g in tr.grad(product.sum(), [a, b])] == [[5.0, 7.0], [2.0, 3.0]]
    assert [g.tolist() for g in tr.grad(total.sum(), [a, b])] == [[1.0, 1.0]] * 2
    assert tr.gradcheck(lambda a, b: tr.apply(both, a, b), [a, b])
    assert tr.gradcheck(lambda a, b: tr.apply(both, a, b)[0], [a, b])
    assert tr.gradcheck(lambda a: tr.apply(both, a, 3.0), a)


def test_a_result_of_integers_has_no_gradient_whatever_its_place(backend, own):
    top = own(
        "place_and_double",
        forward=lambda xp, x: (xp.argmax(x), 2 * x),
        vjp=lambda ops, gys, ys, x: (2 * gys[1],),
    )
    place, double = tr.apply(top, leaf(1.0, 3.0))
    assert (place.item(), place.requires_grad, double.requires_grad) == (1, False, True)
    x = leaf(1.0, 3.0)
    tr.apply(top, x)[1].sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_a_rule_that_uses_another_primitive_of_ones_own(backend, own):
    square = own("my_square", forward=lambda xp, x: x * x, vjp=(lambda ops, gy, y, x: 2 * x * gy,), saves=("x",))
    cube = own(
        "my_cube", forward=lambda xp, x: x * x * x, vjp=(lambda ops, gy, y, x: 3 * gy * ops.my_square(x),), saves=("x",)
    )
    x = leaf(1.0, 2.0)
    assert tr.gradcheck(lambda x: tr.apply(cube, x) + tr.apply(square, x), x, order=3)


def test_a_rule_may_answer_with_slices_and_products(backend, own):
    first = own("first", forward=lambda xp, x: x[0, :], vjp=(lambda ops, gy, y, x: tr.Slice((0,), gy),), saves=("",))
    linear = own(
        "product",
        forward=lambda xp, a, w: xp.matmul(a, w),
        vjp=(
            lambda ops, gy, y, a, w: ops.matmul(gy, ops.transpose(w, axes=(1, 0))),
            lambda ops, gy, y, a, w: tr.Outer(a, gy),
        ),
        saves=("w", "a"),
    )
    x, w = tr.randn(3, 2, dtype="float64", requires_grad=True), tr.randn(2, 2, dtype="float64", requires_grad=True)
    assert tr.gradcheck(lambda x, w: tr.apply(first, x) * tr.apply(first, tr.apply(linear, x, w)), [x, w])


RULE = (lambda ops, gy, y, a, b: gy, lambda ops, gy, y, a, b: gy)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"vjp": RULE[:1], "saves": ("", "")}, r"operands \('a', 'b'\).*rules in vjp \(given 1\).*saves \(given 2\)"),
        ({"vjp": RULE, "saves": ("",)}, r"given 2\).*given 1\)"),
        ({"vjp": RULE, "saves": "ab"}, r"saves is 'ab'; expected a tuple with a string for each operand"),
        ({"vjp": RULE, "saves": (("a", "b"), "y")}, r"saves is \(\('a', 'b'\), 'y'\); expected a tuple"),
        ({"vjp": RULE, "saves": ("a", "c")}, r"saves names \{'c'\}; expected some of \('a', 'b', 'y'\)"),
    ],
)
def test_parts_that_do_not_fit_are_refused(own, parts, message):
    with pytest.raises(ValueError, match=message):
        own("misfit", forward=lambda xp, a, b: a + b, **parts)
    assert "misfit" not in primitives.registry


def test_a_primitive_can_be_defined_again_but_not_a_built_in(own):
    make = lambda factor: own(
        "scaled", forward=lambda xp, x: factor * x, vjp=(lambda ops, gy, y, x: factor * gy,), saves=("",)
    )
    old, new = make(2.0), make(3.0)
    x = leaf(1.0)
    assert [tr.grad(tr.apply(op, x), x).item() for op in (old, new)] == [2.0, 3.0]
    with pytest.raises(ValueError, match="'tanh' is built in"):
        own("tanh", forward=lambda xp, x: x)
    with pytest.raises(AttributeError, match="no primitive is called 'nonsense'"):
        autograd.ArrayOps(x.backend).nonsense  # noqa: B018  # looking it up is what fails


WRONG_ANSWERS = {
    "reads what it did not save": ((lambda ops, gy, y, x: gy * x,), ("",), r"gradient of wrong\(float64\[2\]\).*saves"),
    "a number less what it did not save": ((lambda ops, gy, y, x: 1 - x,), ("",), r"wrong\(float64\[2\]\).*saves"),
    "a function of what it did not save": ((lambda ops, gy, y, x: ops.abs(x),), ("",), r"wrong\(float64\[2\]\).*saves"),
    "a part of what it did not save": ((lambda ops, gy, y, x: gy * x[0],), ("",), r"wrong\(float64\[2\]\).*saves"),
    "a comparison with what it did not save": (
        (lambda ops, gy, y, x: gy if x > 0 else -gy,),
        ("",),
        r"gradient of wrong\(float64\[2\]\).*saves",
    ),
    "a mask that it did not save": (
        (lambda ops, gy, y, x: ops.where(x, gy, 0.0),),
        ("",),
        r"gradient of wrong\(float64\[2\]\).*saves",
    ),
    "one entry too many": (lambda ops, gy, y, x: (gy, gy), (), r"wrong\(float64\[2\]\).*2 entries; expected .* 1"),
    "no tuple": (lambda ops, gy, y, x: gy, (), r"wrong\(float64\[2\]\).*ndarray; expected a tuple with 1"),
    "a number": ((lambda ops, gy, y, x: 0.0,), ("",), r"wrong.* is float; expected an array"),
    "a tensor": ((lambda ops, gy, y, x: tr.tanh(tr.tensor(gy)),), ("",), r"a Tensor of .*float64.*a rule with .*`ops`"),
    "another shape": (
        (lambda ops, gy, y, x: gy[:1],),
        ("",),
        r"wrong.* has shape \(1,\) for an operand of shape \(2,\)",
    ),
}


@pytest.mark.parametrize("name", WRONG_ANSWERS)
def test_a_rule_with_an_impossible_answer_is_refused(own, name):
    vjp, saves, message = WRONG_ANSWERS[name]
    wrong = own("wrong", forward=lambda xp, x: x * x, vjp=vjp, saves=saves)
    with pytest.raises(tr.errors.TinyRNNError, match=message):
        tr.apply(wrong, leaf(1.0, 2.0)).sum().backward()


def test_a_forward_that_computes_with_tensors_is_refused(own):
    wrong = own("wrong", forward=lambda xp, x: tr.tanh(x), vjp=(lambda ops, gy, y, x: gy,), saves=("",))
    with pytest.raises(tr.errors.DTypeError, match=r"gave a Tensor of .*float64; expected .*`forward` .* `xp` has"):
        tr.apply(wrong, leaf(1.0, 2.0))


@pytest.mark.parametrize("part", ["forward", "rule"])
def test_numpy_in_a_primitive_that_is_fused_is_told_what_to_write(own, part):
    forward = (lambda xp, x: np.abs(x)) if part == "forward" else (lambda xp, x: xp.abs(x))
    rule = (lambda ops, gy, y, x: gy * np.abs(y)) if part == "rule" else (lambda ops, gy, y, x: gy * ops.abs(y))
    op = own("wrong", forward=forward, vjp=(rule,), saves=("y",))
    with pytest.raises(tr.errors.DTypeError, match=r"wrong.*`forward` has `xp`.* and a rule has `ops`"):
        tr.fused(lambda x: tr.apply(op, 2 * x))(leaf(1.0, 2.0))


# ---------------------------------------------------------------- gradcheck


def test_gradcheck_names_the_operation_and_the_input(backend, own):
    wrong = own(
        "scaled_product",
        forward=lambda xp, a, b: 2 * a * b,
        vjp=(lambda ops, gy, y, a, b: 2 * gy * b, lambda ops, gy, y, a, b: gy * a),
        saves=("b", "a"),
    )
    x, w = tr.randn(3, dtype="float64", requires_grad=True), tr.randn(4, 3, dtype="float64", requires_grad=True)
    f = lambda x, w: tr.tanh(tr.apply(wrong, tr.exp(x), w)).sum(axis=0)
    with pytest.raises(GradientError) as caught:
        tr.gradcheck(f, [x, w])
    message = str(caught.value)
    assert "order 1: for input 1, of shape (4, 3), the gradient gives" in message
    assert "the rule of 'scaled_product' is at fault: for operand 1, of shape (4, 3)" in message


@pytest.mark.parametrize(
    "rule",
    [
        lambda ops, gy, y, x: 2 * gy * ops.frozen(x),
        lambda ops, gy, y, x: ops.frozen(2 * gy * x),
    ],
)
def test_gradcheck_finds_what_is_wrong_at_order_2_only(backend, own, rule):
    own("frozen", forward=lambda xp, x: x * 1)
    square = own("my_square", forward=lambda xp, x: x * x, vjp=(rule,), saves=("x",))
    x = tr.randn(3, dtype="float64", requires_grad=True)
    f = lambda x: tr.sigmoid(tr.apply(square, tr.tanh(x)))
    assert tr.gradcheck(f, x, order=1)
    with pytest.raises(GradientError, match=r"order 2: for input 0.*the rule of 'my_square' is at fault: for operand"):
        tr.gradcheck(f, x)


def test_gradcheck_finds_a_value_detached_in_f(backend):
    x = tr.randn(3, dtype="float64", requires_grad=True)
    with pytest.raises(GradientError, match=r"order 1.*each operation in it is right by itself"):
        tr.gradcheck(lambda x: x * x.detach(), x)


def test_gradcheck_leaves_its_inputs_as_they_were(backend):
    x = tr.randn(3, dtype="float64", requires_grad=True)
    before = x.tolist()
    assert tr.gradcheck(lambda x: (x**3, tr.argmax(x), 2 * x), x)
    assert (x.tolist(), x.grad) == (before, None)
    assert tr.gradcheck(lambda x: tr.ones(2), x)  # a constant


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (lambda: [tr.ones(2, dtype="float64", requires_grad=True), tr.ones(2)], DTypeError, "input 1 is float32"),
        (lambda: tr.ones(2, dtype="float64"), GraphError, "no input requires a gradient"),
    ],
)
def test_gradcheck_refuses_inputs_that_it_cannot_check(inputs, error, message):
    with pytest.raises(error, match=message):
        tr.gradcheck(lambda *xs: xs[0] * 2, inputs())


def test_gradcheck_tells_that_several_inputs_are_one_list():
    a, b = tr.ones(2, dtype="float64", requires_grad=True), tr.ones(2, dtype="float64", requires_grad=True)
    with pytest.raises(DTypeError, match=r"order is a Tensor; expected an int: .* gradcheck\(f, \[a, b\]\)"):
        tr.gradcheck(lambda a, b: a * b, a, b)


@pytest.mark.parametrize("f", [lambda x: x, tr.log_softmax, tr.softmax, lambda x: tr.logsumexp(x, axis=-1)])
def test_gradcheck_passes_by_what_a_mask_made_infinite(backend, f):
    x, mask = tr.randn(2, 3, dtype="float64", requires_grad=True), tr.tensor([True, False, True])
    assert tr.gradcheck(lambda x: f(tr.where(mask, x, -np.inf)), x)
    with pytest.raises(GradientError):
        tr.gradcheck(lambda x: tr.where(mask, x * x.detach(), -np.inf), x)
