"""The chain rule as text: its gradients are those of grad, its formulas those of the rules, its sums complete."""

import re

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import nn
from tinyrnn.autograd import ArrayOps
from tinyrnn.backends import get
from tinyrnn.primitives import BUILT_IN, registry
from tinyrnn.viz.explain import FORMULAS, MOST_NODES


def leaf(values):
    return tr.tensor(values, dtype="float64", requires_grad=True)


def agree(explanation, y, **leaves):
    """See that the gradients that were told are those of `grad`."""
    assert leaves
    for name, x in leaves.items():
        expected = tr.grad(y, x).numpy()
        np.testing.assert_allclose(explanation.gradients[name], expected, rtol=1e-12, atol=1e-14, err_msg=name)


# ---------------------------------------------------------------- what is told


def test_a_scalar_example_can_be_followed_on_paper():
    x, w, b = 2.0, leaf(-3.0), leaf(7.0)
    a = x * w
    y = tr.tanh(a + b)
    assert str(tr.explain(y)).split("\n") == [
        "y from 2 leaves, by 3 operations",
        "",
        "forward",
        "  w = −3",
        "  a = 2 ⊙ w = 2 · −3 = −6",
        "  b = 7",
        "  v1 = a + b = −6 + 7 = 1",
        "  y = tanh(v1) = tanh(1) = 0.7616",
        "",
        "backward",
        "  ∂y/∂y = 1",
        "  ∂y/∂v1 = ∂y/∂y · (1 − y²) = 1 · 0.42 = 0.42",
        "  ∂y/∂a = ∂y/∂v1 = 0.42",
        "  ∂y/∂w = ∂y/∂a · 2 = 0.42 · 2 = 0.8399",
        "  ∂y/∂b = ∂y/∂v1 = 0.42",
    ]


def test_a_tensor_used_twice_receives_a_sum():
    w = leaf(3.0)
    y = w * w + tr.exp(w)
    explanation = tr.explain(y)
    agree(explanation, y, w=w)
    told = str(explanation)
    assert "∂y/∂w, the sum over 3 uses:" in told
    assert told.count("from v1: ∂y/∂v1 · w = 1 · 3 = 3") == 2
    assert "from v2: ∂y/∂v2 · v2 = 1 · 20.09 = 20.09" in told
    assert told.endswith("together = 26.09")


def test_three_steps_by_hand():
    W_h, h, inputs = leaf(0.5), tr.tensor(0.1, dtype="float64"), [1.0, -1.0, 2.0]
    hs = [0.1]
    for t in tr.steps(3):
        h = tr.tanh(inputs[t] + W_h * h)
        hs.append(np.tanh(inputs[t] + 0.5 * hs[-1]))
    loss = h * 1.0
    told = str(tr.explain(loss))
    g, shares = 1.0, []
    for t in (3, 2, 1):  # ∂L/∂a_t = ∂L/∂h_t (1 − h_t²), and W_h receives h_(t−1) of it
        g *= 1 - hs[t] ** 2
        shares.append(g * hs[t - 1])
        g *= 0.5
    uses = re.search(r"∂loss/∂W_h, the sum over 3 uses:\n(.*\n)(.*\n)(.*\n) +together = (.*)$", told)
    for t, line, share in zip((2, 1, 0), uses.groups(), shares, strict=False):
        assert f", t = {t}: " in line
        assert line.rstrip().endswith(f"= {share:.4g}".replace("-", "−"))
    assert uses.group(4) == f"{sum(shares):.4g}".replace("-", "−")
    assert told.index(" t = 2:", told.index("backward")) < told.index(" t = 0:", told.index("backward"))


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_layers_are_told_step_by_step(kind, backend):
    layer, x = kind(1, 2, dtype="float64"), tr.randn(3 if kind is nn.RNN else 2, 1, 1, dtype="float64")
    _, state = layer(x)
    loss = tr.sum(state.h**2)
    explanation = tr.explain(loss)
    cell = layer.cells[0]
    agree(explanation, loss, W_x=cell.W_x, W_h=cell.W_h, b=cell.b)
    told = str(explanation)
    assert f" t = 1 in {kind.__name__}.cells.0:" in told
    assert f"∂loss/∂W_h, the sum over {len(x)} uses:" in told
    if kind is nn.LSTM:
        assert "v1[0] (1×8)" in told
        assert "∂loss/∂f_1 = " in told


def test_broadcasting_is_a_sum(backend):
    x, b, s = leaf([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), leaf([1.0, -1.0]), leaf(2.0)
    y = tr.sum((x + b) * s)
    explanation = tr.explain(y)
    agree(explanation, y, x=x, b=b, s=s)
    assert "∂y/∂b = ∂y/∂v1, summed to 2 (2) = [6, 6]" in str(explanation)
    assert "∂y/∂s = ∂y/∂v2 ⊙ v1, summed to scalar = 21" in str(explanation)


def test_matrices_of_few_numbers_are_shown_and_of_many_their_norm():
    W, x = leaf([[1.0, 0.0], [0.0, 2.0]]), tr.ones(1, 2, dtype="float64")
    y = tr.sum(x @ W)
    told = str(tr.explain(y))
    assert "v1 = x @ W (1×2) = [[1, 2]]" in told
    assert "∂y/∂W = xᵀ @ ∂y/∂v1 (2×2) = [[1, 1], [1, 1]]" in told
    W = leaf(np.eye(3))
    y = tr.sum(tr.ones(1, 3, dtype="float64") @ W)
    assert "W (3×3), norm 1.732" in str(tr.explain(y))


def test_every_kind_of_operation(backend):
    x, z = leaf([[0.5, -1.0, 2.0]]), leaf([[1.5, 0.25, 2.0]])
    a, b = tr.unstack(tr.stack([tr.maximum(x, z), tr.clip(x, -0.7, 0.7)]))
    c, _, e = tr.split(tr.concatenate([a, b / z, tr.flip(x, 1)], axis=1), 3, axis=1)
    d = tr.where(x > 0, tr.logsumexp(tr.pad(c, ((0, 0), (1, 0))), axis=1, keepdims=True), tr.abs(x)) - e
    picked = d[tr.tensor([0, 0]), tr.tensor([2, 2])]  # twice the same
    y = tr.sum(picked) + tr.max(d) + tr.sum(tr.relu(d).transpose() ** 2) + tr.sum(d.reshape(3).astype("float32"))
    explanation = tr.explain(y)
    agree(explanation, y, x=x, z=z)
    assert "None" not in str(explanation)


def test_one_of_several_results():
    x = leaf([1.0, 2.0, 3.0])
    parts = tr.unstack(x * x)
    explanation = tr.explain(parts[1])
    np.testing.assert_allclose(explanation.gradients["x"], [0, 4, 0])
    assert str(explanation).startswith("y from 1 leaf, by 2 operations")


def test_a_rule_of_ones_own():
    tr.primitive("cube", forward=lambda xp, x: x * x * x, vjp=(lambda ops, gy, y, x: gy * 3 * x * x,), saves=("x",))
    x = leaf(2.0)
    y = tr.apply(registry["cube"], x) * 5
    told = tr.explain(y)
    agree(told, y, x=x)
    assert "v1 = cube(x) = cube(2) = 8" in str(told)
    assert "∂y/∂x = the rule of 'cube' for ∂y/∂v1 = 5 · 12 = 60" in str(told)


def test_across_backends():
    with tr.use_backend("strict"):
        x = leaf([1.0, 2.0])
    y = tr.sum(x.to("numpy") ** 2)
    agree(tr.explain(y), y, x=x)


# ---------------------------------------------------------------- names


def test_names_are_those_of_variables_or_as_given():
    x = leaf(2.0)
    told = str(tr.explain(x * x * 3, names={"speed": x}))
    assert "∂y/∂speed, the sum over 2 uses" in told
    h = x * x
    y = h * 2  # another variable is called y than what is explained below
    assert "∂y′/∂y = " in str(tr.explain(y * h))
    first, second = leaf(1.0), leaf(2.0)
    pair = [first * second]
    del first, second
    explanation = tr.explain(pair[0])
    assert sorted(explanation.gradients) == ["input", "input′"]


def test_a_notebook_shows_it_as_it_is():
    x = leaf(2.0)
    explanation = tr.explain(x * x)
    assert explanation._repr_markdown_() == f"```text\n{explanation}\n```"
    assert repr(explanation) == str(explanation)


def test_a_leaf_alone():
    x = leaf(2.0)
    explanation = tr.explain(x)
    assert explanation.gradients == {"x": 1}


# ---------------------------------------------------------------- at the door


def test_what_is_explained_changes_nothing():
    x = leaf(2.0)
    y = x * x
    tr.explain(y)
    tr.explain(y)
    assert x.grad is None
    y.backward()
    assert x.grad.item() == 4
    with pytest.raises(tr.errors.GraphError, match="used and freed"):
        tr.explain(y)


def test_large_graphs_are_for_draw():
    layer = nn.RNN(1, 2)
    loss = tr.sum(layer(tr.zeros(100, 1, 1))[0])
    with pytest.raises(tr.errors.GraphError, match=rf"more than {MOST_NODES} is not read; .*tr\.draw\(y\)"):
        tr.explain(loss)


def test_what_cannot_be_explained():
    with pytest.raises(tr.errors.DTypeError, match="given float; expected a tensor"):
        tr.explain(1.0)
    with pytest.raises(tr.errors.ShapeError, match=r"shape \(2,\); expected a single number.*mean\(\) or sum\(\)"):
        tr.explain(leaf([1.0, 2.0]) * 2)
    with pytest.raises(tr.errors.GraphError, match="remembers no operation"):
        tr.explain(tr.tensor(1.0))


@tr.fused
def activated(x, w):
    return tr.sigmoid(x + w) * tr.tanh(x)


def test_values_that_are_gone():
    x = leaf(2.0)
    assert "input, values not kept" in str(tr.explain(x + leaf(3.0)))  # and no rule reads them
    leaves = [leaf([1.0, 3.0]), leaf([2.0, 4.0])]
    y = tr.sum(activated(*leaves))
    with pytest.raises(tr.errors.GraphError, match=r"sigmoid reads values that were computed from input′, .*names=\{"):
        tr.explain(y)
    agree(tr.explain(y, names={"x": leaves[0], "w": leaves[1]}), y, x=leaves[0], w=leaves[1])


# ---------------------------------------------------------------- the formulas


def test_every_operation_with_a_gradient_has_its_formula():
    assert FORMULAS.keys() == {name for name in BUILT_IN if registry[name].vjp is not None}
    for name, formulas in FORMULAS.items():
        rules = registry[name].vjp
        assert len(formulas) == (len(rules) if isinstance(rules, tuple) else 1), name


def computed(formula, **values):
    """Read a formula as Python: what a learner reads must be what the rule does."""
    python = formula.replace("²", "**2").replace("^", "**").replace("·", "*").replace("−", "-")
    python = python.replace(" = ", " == ").replace("[", "np.asarray(").replace("]", ").astype(float)")
    known = {"np": np, "log": np.log, "exp": np.exp, "sign": np.sign}
    return eval(python.format_map({name: name for name in values}), known | values)


ELEMENTWISE = ["add", "subtract", "multiply", "divide", "negative", "power", "exp", "log", "sqrt", "tanh", "sigmoid"]
ELEMENTWISE += ["relu", "abs", "maximum", "minimum", "clip", "where", "astype", "logsumexp"]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_formula_is_what_the_rule_computes(name):
    ops, op = ArrayOps(get("numpy")), registry[name]
    a, b, g = np.array([0.5, 2.0, 1.5, 0.3]), np.array([0.7, 2.0, 0.25, 3.0]), np.array([1.0, -2.0, 0.5, 3.0])
    params = {"clip": {"low": 0.4, "high": 1.6}, "astype": {"dtype": tr.float64}, "logsumexp": {"axis": 0}}.get(
        name, {}
    )
    given = {"x": a, "a": a, "b": b, "mask": np.array([True, False, True, False])}
    operands = [given[operand] for operand in op.operands]
    y = op.forward(ops.backend, *operands, **params)
    g = g[:1].reshape(()) if name == "logsumexp" else g
    for rule, formula in zip(op.vjp, FORMULAS[name], strict=True):
        if formula is not None:
            expected = rule(ops, g, y, *operands, **params)
            found = computed(formula, g=g, y=y, **dict(zip(op.operands, operands, strict=True)))
            np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=formula)


def test_a_variable_that_was_overwritten_is_no_constant():
    w, h = leaf(3.0), tr.tensor(2.0, dtype="float64")
    y = w * h
    h = None
    assert "  v1 = 2\n  y = w ⊙ v1 = 3 · 2 = 6" in str(tr.explain(y))
    assert h is None
