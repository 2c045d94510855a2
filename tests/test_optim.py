"""Optimisers, clipping and schedules, against their equations in plain NumPy."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import nn, optim
from tinyrnn.errors import BackendError, DTypeError, GraphError, StateDictError
from tinyrnn.optim.schedules import schedule_of

# ---------------------------------------------------------------- the equations, in NumPy: w, then each next w


def sgd(w, slope, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    v = np.zeros_like(w)
    while True:
        g = slope(w) + weight_decay * w
        v = momentum * v + g
        w = w - lr * (g + momentum * v if nesterov else v)
        yield w


def adagrad(w, slope, lr=1e-2, lr_decay=0.0, initial_accumulator_value=0.0, eps=1e-10):
    s = np.full_like(w, initial_accumulator_value)
    for t in itertools.count():
        g = slope(w)
        s = s + g**2
        w = w - lr / (1 + t * lr_decay) * g / (np.sqrt(s) + eps)
        yield w


def rmsprop(w, slope, lr=1e-2, alpha=0.99, eps=1e-8):
    s = np.zeros_like(w)
    while True:
        g = slope(w)
        s = alpha * s + (1 - alpha) * g**2
        w = w - lr * g / (np.sqrt(s) + eps)
        yield w


def adam(w, slope, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in itertools.count(1):
        g = slope(w) + (0 if decoupled else weight_decay * w)
        w = w - (lr * weight_decay * w if decoupled else 0)
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        w = w - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
        yield w


def adamw(w, slope, weight_decay=0.01, **options):
    return adam(w, slope, weight_decay=weight_decay, decoupled=True, **options)


CASES = {
    "SGD": (optim.SGD, sgd, {"lr": 0.1}),
    "SGD, weight decay": (optim.SGD, sgd, {"lr": 0.1, "weight_decay": 0.3}),
    "momentum": (optim.SGD, sgd, {"lr": 0.05, "momentum": 0.9}),
    "Nesterov": (optim.SGD, sgd, {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    "Adagrad": (optim.Adagrad, adagrad, {}),
    "Adagrad, options": (
        optim.Adagrad,
        adagrad,
        {"lr": 0.2, "lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3},
    ),
    "RMSProp": (optim.RMSProp, rmsprop, {}),
    "RMSProp, options": (optim.RMSProp, rmsprop, {"lr": 0.1, "alpha": 0.7, "eps": 1e-2}),
    "Adam": (optim.Adam, adam, {}),
    "Adam, options": (optim.Adam, adam, {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-2, "weight_decay": 0.2}),
    "AdamW": (optim.AdamW, adamw, {}),
    "AdamW, options": (optim.AdamW, adamw, {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.5}),
}


def bowl(w):
    """Return Σ w³ + w² with slope 3 w² + 2 w."""
    return (w * w * w + w * w).sum()


def descend(optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        for w in optimizer.parameters:
            bowl(w).backward()
        optimizer.step()


def parameters(dtype="float64"):
    return [tr.randn(3, dtype=dtype, requires_grad=True), nn.Parameter(tr.randn(2, 2, dtype=dtype))]


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def test_five_steps_of_every_optimiser(backend, case):
    make, equations, options = case
    ws = parameters()
    expected = [equations(w.numpy(), lambda w: 3 * w**2 + 2 * w, **options) for w in ws]
    optimizer = make(ws, **options)
    for step in range(1, 6):
        descend(optimizer, 1)
        for w, values in zip(ws, expected, strict=True):
            np.testing.assert_allclose(w.numpy(), next(values), rtol=1e-12)
        assert optimizer.steps == step
    assert all(w.requires_grad and w.backend is backend and w.node.op is None for w in ws)


def test_float32_stays_float32(backend, case):
    make, equations, options = case
    ws = parameters("float32")
    start, optimizer = ws[0].numpy().astype("float64"), make(ws, **options)
    descend(optimizer, 5)
    expected = list(itertools.islice(equations(start, lambda w: 3 * w**2 + 2 * w, **options), 5))[-1]
    np.testing.assert_allclose(ws[0].numpy(), expected, rtol=1e-4, atol=1e-6)
    assert {t.dtype for t in (*ws, *itertools.chain(*optimizer.memory.values()))} == {"float32"}


def test_a_parameter_without_gradient_is_passed_over(backend, case):
    make, _, options = case
    w, unused = parameters()
    before, optimizer = unused.tolist(), make([w, unused], **options)
    bowl(w).backward()
    w_before = w.tolist()
    optimizer.step()
    assert unused.tolist() == before
    assert w.tolist() != w_before


def test_a_parameter_that_is_frozen_at_first_then_begins_as_any_other(backend, case):
    make, equations, options = case
    w, late = parameters()
    expected = equations(late.numpy(), lambda w: 3 * w**2 + 2 * w, **options)
    optimizer = make([w, late], **options)
    for step in range(6):
        optimizer.zero_grad()
        for x in (w, late) if step > 2 else (w,):
            bowl(x).backward()
        optimizer.step()
        if step > 2:
            np.testing.assert_allclose(late.numpy(), next(expected), rtol=1e-12)
        if step == 4:  # it can be resumed
            state, optimizer = optimizer.state_dict(), make([w, late], **options)
            optimizer.load_state_dict(json.loads(json.dumps(state, default=lambda x: x.tolist())))
            assert optimizer.updates == [5, 2]
    assert (optimizer.steps, optimizer.updates) == (6, [6, 3])


@pytest.mark.parametrize("lr", [math.nan, -0.1, "fast"])
def test_a_rate_that_is_assigned_is_looked_at(lr):
    (w,) = with_gradients([1.0])
    optimizer = optim.SGD([w], lr=0.1)
    optimizer.lr = lr
    with pytest.raises(ValueError, match=r"SGD: lr is .*; expected a finite number of 0 or more"):
        optimizer.step()
    assert (w.tolist(), optimizer.steps) == ([0.0], 0)


def test_zero_grad_forgets(backend):
    w, frozen = parameters()
    optimizer = optim.SGD([w, frozen], lr=1.0)
    bowl(w).backward()
    frozen.requires_grad = False
    optimizer.zero_grad()
    assert w.grad is None
    before = frozen.tolist()
    descend(optim.SGD([w]), 1)
    optimizer.step()
    assert frozen.tolist() == before


def test_the_rate_is_a_number_that_may_change_or_a_schedule(backend):
    w, _ = parameters()
    start, optimizer = w.detach(), optim.SGD([w], lr=0.5)
    for lr in (0.5, 0.25):
        optimizer.lr = lr
        w.assign(start)
        w.grad = tr.ones(3, dtype="float64")
        optimizer.step()
        np.testing.assert_allclose(w.numpy(), start.numpy() - lr)
    optimizer.lr = optim.StepDecay(0.5, every=1, factor=0.5)  # two steps are done
    w.assign(start)
    optimizer.step()
    np.testing.assert_allclose(w.numpy(), start.numpy() - 0.125)
    assert repr(optimizer) == "SGD(1 parameters, lr=StepDecay(lr=0.5, every=1, factor=0.5), steps=3)"


def test_an_optimiser_learns_a_network(backend):
    model = nn.Sequential(nn.Linear(2, 8), tr.tanh, nn.Linear(8, 1))
    x, y = tr.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), tr.tensor([[0.0], [1.0], [1.0], [0.0]])
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    for _ in range(60):
        loss = tr.binary_cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


# ---------------------------------------------------------------- state


def test_a_state_continues_bit_for_bit(backend, case):
    make, _, options = case
    options = {**options, "lr": optim.WarmUp(4, optim.Cosine(options.get("lr", 0.01), 10))}
    ws = parameters()
    optimizer = make(ws, **options)
    descend(optimizer, 3)
    state, values = optimizer.state_dict(), [w.detach() for w in ws]
    frozen = {kind: [t.tolist() for t in ts] for kind, ts in state["memory"].items()}
    descend(optimizer, 3)
    assert {kind: [t.tolist() for t in ts] for kind, ts in state["memory"].items()} == frozen

    again = [tr.tensor(v.numpy(), requires_grad=True) for v in values]
    resumed = make(again, **{**options, "lr": 1.0})
    resumed.load_state_dict({**state, "memory": {k: [t.numpy() for t in ts] for k, ts in state["memory"].items()}})
    assert (resumed.steps, resumed.lr) == (3, options["lr"])
    descend(resumed, 3)
    assert [w.tolist() for w in again] == [w.tolist() for w in ws]
    assert resumed.steps == 6


def misfit(**changes):
    return lambda state: state.update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("steps"), r"has \['lr', 'memory'\].*expected steps, lr, memory of \('m', 'v'\)"),
        (misfit(extra=1), r"\['extra', 'lr', 'memory', 'steps'\]"),
        (lambda s: s["memory"].pop("v"), r"memory of \['m'\]; expected"),
        (lambda s: s["memory"]["v"].pop(), "v is for 1 parameters, expected 2"),
        (lambda s: s["memory"]["v"].reverse(), r"v of parameter 0 is \(2, 2\), expected \(3,\)"),
        (misfit(lr="fast"), "lr 'fast'"),
        (misfit(lr=None), "lr None"),
        (misfit(lr={"kind": "Sudden"}), "learning-rate schedule is .*Sudden.*one of Constant, StepDecay"),
        (misfit(lr={"kind": "Cosine"}), "learning-rate schedule"),
        (misfit(steps="3"), "steps is '3'"),
        (misfit(steps=-1), "steps is -1"),
        (misfit(updates=[1]), r"updates are \[1\]; expected 2 counts from 0 to 2"),
        (misfit(updates=[1, 3]), r"updates are \[1, 3\]"),
        (misfit(memory=None), "expected what state_dict"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change, message):
    optimizer = optim.Adam(parameters())
    descend(optimizer, 2)
    before, state = optimizer.state_dict(), optimizer.state_dict()
    change(state)
    with pytest.raises(StateDictError, match=message):
        optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert (after["steps"], after["lr"]) == (before["steps"], before["lr"])
    assert all(a is b for k in "mv" for a, b in zip(after["memory"][k], before["memory"][k], strict=True))


def test_a_state_from_another_optimiser_is_refused():
    ws = parameters()
    with pytest.raises(StateDictError, match=r"memory of \[\]"):
        optim.SGD(ws, momentum=0.9).load_state_dict(optim.SGD(ws).state_dict())


def test_parameters_that_moved_meet_memory_that_did_not():
    model = nn.Linear(2, 2)
    optimizer = optim.Adam(model.parameters())
    model.to("strict")
    for w in model.parameters():
        bowl(w).backward()
    with pytest.raises(BackendError, match="numpy and strict"):
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict() | {"steps": 0})
    optimizer.step()


# ---------------------------------------------------------------- clipping


def with_gradients(*values, dtype="float64"):
    ws = [tr.zeros(len(v), dtype=dtype, requires_grad=True) for v in values]
    for w, v in zip(ws, values, strict=True):
        w.grad = tr.tensor(v, dtype)
    return ws


@pytest.mark.parametrize(("max_norm", "scale"), [(26.0, 1.0), (13.0, 1.0), (6.5, 0.5), (1e-3, 1e-3 / 13)])
def test_gradients_are_scaled_to_the_norm(backend, max_norm, scale):
    ws = [*with_gradients([3.0, -4.0], [12.0]), tr.zeros(2, requires_grad=True)]
    before = ws[0].grad
    norm = optim.clip_grad_norm(iter(ws), max_norm)
    assert norm.item() == pytest.approx(13.0)
    assert not norm.requires_grad
    np.testing.assert_allclose(np.concatenate([w.grad.numpy() for w in ws[:2]]), np.array([3, -4, 12]) * scale)
    assert ws[2].grad is None
    assert before.tolist() == [3.0, -4.0]


def test_zero_gradients_stay_zero(backend):
    (w,) = with_gradients([0.0, 0.0])
    assert optim.clip_grad_norm([w], 1.0).item() == 0
    assert w.grad.tolist() == [0.0, 0.0]


def test_clipping_keeps_each_dtype(backend):
    ws = [*with_gradients([3.0], dtype="float32"), *with_gradients([4.0])]
    assert optim.clip_grad_norm(ws, 1.0).item() == pytest.approx(5.0)
    assert [w.grad.dtype for w in ws] == ["float32", "float64"]


def test_nan_and_infinity_show_in_the_norm_and_spread_to_all_gradients(backend):
    ws = with_gradients([1.0, math.nan], [2.0])
    assert math.isnan(optim.clip_grad_norm(ws, 1.0).item())
    assert np.isnan(np.concatenate([w.grad.numpy() for w in ws])).all()
    ws = with_gradients([1.0, 2.0], [5.0])
    ws[0].grad = tr.tensor([1.0, math.inf], "float64")
    assert optim.clip_grad_norm(ws, 1.0).item() == math.inf  # and NumPy does not warn
    np.testing.assert_array_equal(ws[0].grad.numpy(), [0.0, math.nan])
    assert ws[1].grad.tolist() == [0.0]


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan])
def test_a_norm_that_is_not_positive_is_refused(max_norm):
    with pytest.raises(ValueError, match=r"max_norm is .*; expected a positive number"):
        optim.clip_grad_norm(with_gradients([1.0]), max_norm)


@pytest.mark.parametrize("given", [nn.Parameter([1.0]), nn.Linear(1, 1)])
def test_clipping_takes_parameters(given):
    with pytest.raises(DTypeError, match=rf"given a {type(given).__name__}; expected parameters: model\.parameters"):
        optim.clip_grad_norm(given, 1.0)


def test_clipping_before_backward_is_refused():
    with pytest.raises(ValueError, match=r"call loss\.backward\(\) first"):
        optim.clip_grad_norm(parameters(), 1.0)


# ---------------------------------------------------------------- schedules


SCHEDULES = [
    (optim.Constant(0.3), {0: 0.3, 1000: 0.3}),
    (optim.StepDecay(1.0, every=10), {0: 1.0, 9: 1.0, 10: 0.1, 25: 0.01}),
    (optim.StepDecay(1.0, every=1, factor=0.5), {0: 1.0, 3: 0.125}),
    (optim.Cosine(2.0, total=100), {0: 2.0, 25: 1 + math.sqrt(0.5), 50: 1.0, 100: 0.0, 500: 0.0}),
    (optim.Cosine(2.0, total=4, final=1.0), {0: 2.0, 2: 1.5, 4: 1.0, 9: 1.0}),
    (optim.WarmUp(4, 2.0), {0: 0.5, 1: 1.0, 3: 2.0, 4: 2.0}),
    (optim.WarmUp(5, optim.Cosine(1.0, 10)), {0: 0.2, 4: (1 + math.cos(0.4 * math.pi)) / 2, 10: 0.0}),
    (optim.WarmUp(2, optim.WarmUp(4, optim.StepDecay(8.0, 2, 0.5))), {0: 1.0, 1: 4.0, 2: 3.0, 4: 2.0}),
]


@pytest.mark.parametrize(("schedule", "rates"), SCHEDULES)
def test_schedules(schedule, rates):
    assert {t: schedule(t) for t in rates} == pytest.approx(rates, abs=1e-15)
    assert schedule_of(json.loads(json.dumps(schedule.state()))) == schedule


def test_a_schedule_of_ones_own(monkeypatch):
    monkeypatch.setattr(optim.Schedule, "kinds", dict(optim.Schedule.kinds))

    class InverseRoot(optim.Schedule):
        def __call__(self, t):
            return 1 / math.sqrt(t + 1)

    w = nn.Parameter([1.0])
    optimizer = optim.SGD([w], lr=InverseRoot())
    for rate in (1.0, 0.5**0.5):
        before, w.grad = w.item(), tr.ones(1)
        optimizer.step()
        assert before - w.item() == pytest.approx(rate, rel=1e-6)
    optimizer.load_state_dict(optimizer.state_dict())
    assert isinstance(optimizer.lr, InverseRoot)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda w: optim.SGD([]), ValueError, "^SGD: given no parameters"),
        (lambda w: optim.SGD([w, w]), ValueError, "given twice"),
        (lambda w: optim.SGD([w.detach()]), GraphError, "given Tensor; expected tensors with requires_grad=True"),
        (lambda w: optim.SGD(["w"]), GraphError, "given str"),
        (lambda w: optim.SGD([w * 2]), GraphError, "result of 'multiply'; expected leaves"),
        (lambda w: optim.SGD(w), GraphError, "result of 'getitem'; expected leaves"),
        (lambda w: optim.SGD([w], lr=-1.0), ValueError, r"^SGD: lr is -1\.0; expected a finite number of 0 or more"),
        (lambda w: optim.Adam([w], lr=math.nan), ValueError, "^Adam: lr is nan"),
        (lambda w: optim.Adam([w], lr=math.inf), ValueError, "^Adam: lr is inf"),
        (lambda w: optim.Adam([w], lr="fast"), ValueError, "^Adam: lr is 'fast'"),
        (lambda w: optim.SGD([w], lr=optim.Constant(-1.0)), ValueError, r"lr is -1\.0"),
        (lambda w: optim.SGD([w], momentum=-0.1), ValueError, r"momentum is -0\.1"),
        (lambda w: optim.SGD([w], weight_decay=-0.1), ValueError, r"weight_decay is -0\.1"),
        (lambda w: optim.SGD([w], nesterov=True), ValueError, r"nesterov=True .* give momentum"),
        (lambda w: optim.Adagrad([w], lr_decay=-1), ValueError, "^Adagrad: lr_decay is -1"),
        (lambda w: optim.Adagrad([w], initial_accumulator_value=-1), ValueError, "initial_accumulator_value is -1"),
        (lambda w: optim.RMSProp([w], alpha=-1), ValueError, "^RMSProp: alpha is -1"),
        (lambda w: optim.Adam([w], eps=-1), ValueError, "eps is -1"),
        (lambda w: optim.Adam([w], betas=(0.9, 1.0)), ValueError, r"^Adam: betas are \(0\.9, 1\.0\)"),
        (lambda w: optim.AdamW([w], betas=(0.9,)), ValueError, r"^AdamW: betas are \(0\.9,\)"),
        (lambda w: optim.AdamW([w], betas=0.9), ValueError, r"^AdamW: betas are 0\.9"),
        (lambda w: optim.Cosine(1.0, total=0), ValueError, "^Cosine: total is 0; expected a number of steps"),
        (lambda w: optim.StepDecay(1.0, every=0), ValueError, "^StepDecay: every is 0"),
        (lambda w: optim.WarmUp(0, 1.0), ValueError, "^WarmUp: steps is 0"),
        (lambda w: optim.WarmUp(2.5, 1.0), ValueError, r"^WarmUp: steps is 2\.5"),
        (lambda w: optim.Schedule()(0), NotImplementedError, r"Schedule has no __call__\(t\)"),
        (lambda w: bare(w).step(), NotImplementedError, r"Optimizer has no update\(\)"),
    ],
)
def test_bad_options_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make(nn.Parameter([1.0, 2.0]))


def bare(w):
    w.grad = tr.ones(2)
    return optim.Optimizer([w], lr=0.1)
