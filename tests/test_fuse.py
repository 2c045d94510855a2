"""Fused functions: as kernels they give what they give primitive by primitive, in value and every derivative."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyrnn as tr
from tests.test_floors import PACKAGE
from tinyrnn import backends, functions, nn, optim
from tinyrnn.backends import kernel_cuda, kernel_numpy
from tinyrnn.errors import FusionError, ShapeError
from tinyrnn.fuse import Plan, fused
from tinyrnn.nn import cells
from tinyrnn.optim import optimizers

HAS_NUMBA = importlib.util.find_spec("numba") is not None
B, H = st.integers(1, 5), st.integers(1, 7)


@fused
def swish(x, beta):
    return x / (1 + tr.exp(-beta * x))


@fused
def mixed(x, mask, row, column):
    """Use everything that is elementwise, with a mask and operands that are the same for every row or column."""
    a, b = tr.split(x, 2)
    y = tr.where(mask, tr.maximum(a, row), tr.minimum(b, 0.5)) + tr.relu(a) - tr.abs(b) ** 3
    z = tr.log(1.5 + tr.sqrt(a * a + b * b + 0.1)) * tr.clip(a, -1, 1) / (2 + tr.sigmoid(row))
    return y * column, z, tr.tanh(z) ** 2


CASES = {  # a fused function, and the shapes of its operands for B rows and H columns
    "lstm_step": (cells.lstm_step, lambda b, h: [(b, 4 * h), (b, 4 * h), (b, h)], ()),
    "lstm_step with peepholes": (cells.lstm_step, lambda b, h: [(b, 4 * h), (b, 4 * h), (b, h), (h,), (h,), (h,)], ()),
    "lstm_memory": (cells.lstm_memory, lambda b, h: [(b, 4 * h), (b, 4 * h), (b, h)], ()),
    "gru_step": (cells.gru_step, lambda b, h: [(b, 3 * h), (b, 3 * h), (b, h), (h,)], ()),
    "gru_step without b_hn": (cells.gru_step, lambda b, h: [(b, 3 * h), (b, 3 * h), (b, h)], ()),
    "gru_gates": (cells.gru_gates, lambda b, h: [(b, 3 * h), (b, 2 * h), (b, h)], ()),
    "gru_update": (cells.gru_update, lambda b, h: [(b, 3 * h), (b, h), (b, h), (b, h)], ()),
    "rnn_step": (cells.rnn_step, lambda b, h: [(b, h), (b, h)], ("tanh",)),
    "rnn_step with relu": (cells.rnn_step, lambda b, h: [(b, h), (b, h)], ("relu",)),
    "gelu": (functions._gelu, lambda b, h: [(2, b, h)], ()),
    "swish": (swish, lambda b, h: [(b, h)], (1.5,)),
    "sgd_update": (optimizers.sgd_update, lambda b, h: [(b, h)] * 2, (0.1, 0.01)),
    "momentum_update": (optimizers.momentum_update, lambda b, h: [(b, h)] * 3, (0.1, 0.9, 0.01, True)),
    "adagrad_update": (optimizers.adagrad_update, lambda b, h: [(h,)] * 2 + [(h,)], (0.1, 1e-3)),
    "rmsprop_update": (optimizers.rmsprop_update, lambda b, h: [(b, h)] * 3, (0.1, 0.9, 1e-3)),
    "adam_update": (optimizers.adam_update, lambda b, h: [(b, h)] * 4, (0.1, 0.3, 0.9, 0.99, 1e-3, 0.01, 0.98)),
}


def operands_of(case, b, h, dtype, seed=0):
    function, shapes, constants = CASES[case]
    generator = tr.Generator(seed)
    positive = {"adagrad_update": 2, "rmsprop_update": 2, "adam_update": 3}.get(case)  # a mean of squares
    operands = []
    for k, shape in enumerate(shapes(b, h)):
        x = tr.randn(*shape, dtype=dtype, generator=generator)
        x = tr.abs(x) + 0.5 if k == positive else x
        x.requires_grad = True
        operands.append(x)
    return function, operands, constants


def derivatives(function, operands, constants, order=2):
    """Return the results, and the gradients up to an order, of a sum that weighs every element differently."""
    results = function(*operands, *constants)
    ys = results if isinstance(results, tuple) else (results,)
    found = [y.numpy() for y in ys]
    for _ in range(order):
        leaving = [y for y in ys if y.requires_grad]
        if not leaving:
            break
        loss = sum(
            ((y * y + y) * tr.arange(1.0, y.size + 1, dtype=y.dtype).reshape(y.shape) / y.size).sum() for y in leaving
        )
        ys = tr.grad(loss, operands, create_graph=True)
        found += [y.numpy() for y in ys]
    return found


def compare(fused_values, plain_values, dtype):
    assert len(fused_values) == len(plain_values)
    rtol = 1e-9 if dtype == "float64" else 2e-3
    for a, b in zip(fused_values, plain_values, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        scale = max(1.0, float(np.abs(b).max(initial=0)))
        np.testing.assert_allclose(a / scale, b / scale, rtol=rtol, atol=rtol / 10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
@settings(max_examples=8, deadline=None)
@given(b=B, h=H, seed=st.integers(0, 100))
def test_fused_equals_unfused_in_value_gradient_and_second_order(case, dtype, b, h, seed):
    function, operands, constants = operands_of(case, b, h, dtype, seed)
    assert Plan.of(function.function, [*operands, *constants], backends.get("numpy")) is not None
    found = derivatives(function, operands, constants)
    with tr.fusion(False):
        compare(found, derivatives(function, operands, constants), dtype)


@pytest.mark.parametrize("case", CASES)
def test_fused_equals_unfused_on_every_backend(case, backend):
    function, operands, constants = operands_of(case, 3, 4, "float64")
    found = derivatives(function, operands, constants)
    with tr.fusion(False):
        compare(found, derivatives(function, operands, constants), "float64")


@pytest.mark.parametrize("case", CASES)
def test_the_third_derivative_too(case):
    function, operands, constants = operands_of(case, 2, 3, "float64")
    found = derivatives(function, operands, constants, order=3)
    with tr.fusion(False):
        compare(found, derivatives(function, operands, constants, order=3), "float64")


def mixed_operands(dtype="float64"):
    leaf = {"dtype": dtype, "requires_grad": True}
    return [tr.randn(3, 8, **leaf), tr.randn(3, 4) > 0, tr.randn(4, **leaf), tr.randn(3, 1, dtype=dtype)]


def test_masks_rows_and_columns(backend):
    x, mask, row, column = mixed_operands()
    found = derivatives(lambda x, row: mixed(x, mask, row, column), [x, row], ())
    assert mixed.latest is not None
    with tr.fusion(False):
        compare(found, derivatives(lambda x, row: mixed(x, mask, row, column), [x, row], ()), "float64")


def test_a_column_that_needs_a_gradient_runs_primitive_by_primitive():
    @fused
    def scaled(x, column):
        return tr.tanh(x) * column

    x, column = tr.randn(3, 4, requires_grad=True), tr.randn(3, 1, requires_grad=True)
    y = scaled(x, column)
    assert y.node.op.name == "multiply"
    y.sum().backward()
    np.testing.assert_allclose(column.grad.numpy(), np.tanh(x.numpy()).sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("shapes", [[(2, 1, 4), (1, 3, 4)], [(0, 4), (0, 4)], [(), (2, 2)], [(4,), (2, 3, 4)]])
def test_any_shapes_that_broadcast_are_right(shapes):
    @fused
    def f(a, b):
        return tr.sigmoid(a) * b + a

    operands = [tr.randn(*shape, dtype="float64", requires_grad=True) for shape in shapes]
    found = derivatives(f, operands, ())
    with tr.fusion(False):
        compare(found, derivatives(f, operands, ()), "float64")


def test_a_user_s_own_primitive_keeps_its_own_rule_inside_a_fused_function():
    straight = tr.primitive(
        "straight_through",
        forward=lambda xp, x: xp.where(x > 0, 1.0, 0.0) + 0 * x,
        vjp=(lambda ops, gy, y, x: gy,),
        saves=("",),
    )

    @fused
    def f(x):
        return 2 * tr.apply(straight, x)

    x = tr.tensor([[-1.0, 2.0]], requires_grad=True)
    y = f(x)
    y.sum().backward()
    assert f.latest is not None
    assert y.tolist() == [[0.0, 2.0]]
    assert x.grad.tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30, 0.0, 100.0, -100.0])
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
def test_nan_infinity_and_the_ends_come_through_as_without_fusing(dtype, value):
    z = tr.full((2, 8), value, dtype=dtype)
    z.requires_grad = True
    c = tr.ones(2, 2, dtype=dtype, requires_grad=True)

    def run():
        h, c2 = cells.lstm_step(z, z * 0 if np.isfinite(value) else z.detach() * 0 + 0.0, c)
        x = functions._gelu(z)
        return [y.numpy() for y in (h, c2, x, *tr.grad((h + c2).sum(), [z, c]))]

    found = run()
    with tr.fusion(False):
        for a, b in zip(found, run(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_and_or_and_not_of_masks_and_of_integers():
    @fused
    def f(a, b):
        return (a & ~b) | (b & 1)

    @fused
    def g(x, y):
        return tr.where((x > 0) & ~(y > 0) | (x < -1), x, y)

    a, b = tr.tensor([[5, 6, 7]]), tr.tensor([[3, 4, 5]])
    x, y = tr.randn(3, 4), tr.randn(3, 4)
    found = f(a, b), g(x, y)
    assert f.latest is not None
    assert g.latest is not None
    with tr.fusion(False):
        for one, other in zip(found, (f(a, b), g(x, y)), strict=True):
            assert (one.dtype, one.tolist()) == (other.dtype, other.tolist())


def test_half_precision():
    x = tr.randn(3, 4).astype("float16")
    found = functions._gelu(x)
    assert found.dtype == "float16"
    with tr.fusion(False):
        np.testing.assert_allclose(found.numpy(), functions._gelu(x).numpy(), rtol=1e-2, atol=1e-3)


# ---------------------------------------------------------------- what it costs, and what it leaves alone


def nodes_behind(*tensors):
    seen, waiting = {}, [t.node for t in tensors if t.node]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen[node] = node
            waiting += [parent[0] for parent in node.parents if parent]
    return list(seen)


def test_a_step_of_a_cell_is_one_node_and_a_product():
    lstm = nn.LSTM(3, 4)
    out, _ = lstm(tr.randn(5, 2, 3))
    names = [node.op.name for node in nodes_behind(out) if node.op]
    assert sorted(names) == sorted([*["matmul"] * 5, "linear", "unstack", *["lstm_step"] * 5, "stack"])


def test_with_fusion_off_the_graph_shows_every_operation():
    lstm = nn.LSTM(3, 4)
    with tr.fusion(False):
        out, _ = lstm(tr.randn(1, 2, 3))
    names = [node.op.name for node in nodes_behind(out) if node.op]
    assert names.count("sigmoid") == 3
    assert names.count("tanh") == 2
    assert names.count("split") == 1
    assert "lstm_step" not in names


def test_gradients_of_the_inputs_land_side_by_side():
    """The gradient of z is one block of memory, written by the kernels; nothing is copied on the way."""
    z = tr.randn(6, 2, 8, requires_grad=True)
    seen = []
    h = c = tr.zeros(2, 2)
    for z_t in tr.unstack(z):
        h, c = cells.lstm_step(z_t, tr.zeros(2, 8), c)
        z_t.register_hook(lambda g: seen.append(g.array))
    h.sum().backward()
    assert len(seen) == 6
    assert all(g.base is seen[0].base for g in seen)
    assert seen[0].base.size == z.size
    plain = tr.tensor(z.numpy(), requires_grad=True)
    with tr.fusion(False):
        h = c = tr.zeros(2, 2)
        for t in range(6):
            h, c = cells.lstm_step(plain[t], tr.zeros(2, 8), c)
        h.sum().backward()
    np.testing.assert_allclose(z.grad.numpy(), plain.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_a_step_used_twice_counts_twice():
    z = tr.randn(3, 2, 8, dtype="float64", requires_grad=True)

    def run():
        parts = tr.unstack(z)
        h = c = tr.zeros(2, 2, dtype="float64")
        for part in (parts[0], parts[1], parts[1], parts[0]):  # parts[2] never
            h, c = cells.lstm_step(part, tr.concatenate([h, h, h, h], axis=-1), c)
        return tr.grad((h * h).sum(), z).numpy()

    found = run()
    assert not found[2].any()
    with tr.fusion(False):
        np.testing.assert_allclose(found, run(), rtol=1e-10)


def test_nothing_is_kept_that_no_rule_reads():
    c = tr.randn(3, 4, requires_grad=True)
    cells.lstm_step(tr.randn(3, 16), tr.randn(3, 16, requires_grad=True), c)
    plan = cells.lstm_step.latest
    assert len(plan.stack) == 4  # σ(i), σ(f), tanh(g), σ(o); tanh(c') is computed again
    assert plan.whole == {2}  # of the operands c alone
    assert plan.results == [1]  # c'
    cells.gru_step(tr.randn(3, 12), tr.randn(3, 12, requires_grad=True), c, tr.randn(4))
    plan = cells.gru_step.latest
    assert len(plan.stack) == 4  # r, z, n, and one lane of h W_h
    assert plan.whole == {2, 3}


def test_kernels_are_shared_between_shapes_and_a_float_is_no_constant(monkeypatch):
    @fused
    def f(x, rate):
        return x * rate

    home = backends.get("numpy")
    before = len(home.compiled)
    for n, rate in ((3, 0.1), (3, 0.2), (5, 0.3)):
        assert f(tr.ones(2, n), rate).tolist() == [[pytest.approx(rate)] * n] * 2
    assert len(home.compiled) == before + 1


def test_without_a_graph_nothing_is_kept_for_one():
    @fused
    def f(x, y):
        return tr.tanh(x) * tr.tanh(y)

    with tr.no_grad():
        f(tr.randn(2, 3, requires_grad=True), tr.randn(2, 3))
    assert len(f.latest.plain.kernel.outputs) == 1
    assert "run" not in vars(f.latest.recorded)  # was never asked for


def test_source_shows_both_kernels():
    @fused
    def f(x):
        return tr.tanh(x) * x

    assert "call it once" in f.source
    f(tr.randn(2, 3, requires_grad=True))
    assert "def f(" in f.source
    assert "def f_backward(" in f.source
    assert "tanh" in f.source


def test_an_optimizer_updates_as_without_fusing():
    for make in (optim.SGD, optim.Adagrad, optim.RMSProp, optim.Adam, optim.AdamW):
        found = []
        for enabled in (True, False):
            tr.manual_seed(1)
            w = tr.randn(3, 4, dtype="float64", requires_grad=True)
            optimizer = make([w], lr=0.1)
            with tr.fusion(enabled):
                for _ in range(3):
                    optimizer.zero_grad()
                    (w * w * w).sum().backward()
                    optimizer.step()
            found.append(w.numpy().copy())
        np.testing.assert_allclose(*found, rtol=1e-12)


def test_arguments_by_name():
    operands = [tr.randn(2, 6), tr.randn(2, 6), tr.randn(2, 2), tr.randn(2)]
    named = cells.gru_step(*operands[:2], b_hn=operands[3], h=operands[2])
    assert named.tolist() == cells.gru_step(*operands).tolist()

    @fused
    def f(x, *, n):
        return x * n

    with pytest.raises(FusionError, match="n can be given by name only"):
        f(tr.ones(2), n=2)


@pytest.mark.parametrize("k", [np.float64(0.5), np.float32(0.5), np.int64(2)])
def test_a_number_of_numpys_is_a_number(k):
    @fused
    def f(x, k):
        return k * x

    x = tr.ones(2, 3)
    assert f(x, k).dtype == (k * x).dtype == "float32"
    assert f(x, k).tolist() == (k * x).tolist()
    assert f([[1.0]], k).tolist() == [[k]]


# ---------------------------------------------------------------- what cannot be fused


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x if x.sum() > 0 else -x, "'sum' is not elementwise"),
        (lambda x: x if tr.split(x, 4)[0] > 0 else -x, "tr.where"),
        (lambda x: x * float(tr.split(x, 4)[0]), "tr.where"),
        (lambda x: x @ x.T, "not elementwise"),
        (lambda x: x.reshape(2, 2), "'reshape' is not elementwise"),
        (lambda x: x + tr.tensor([1.0, 2.0]), "pass it as one|argument"),
        (lambda x: x * tr.dropout(x, 0.5), "random numbers"),
        (lambda x: x * tr.randn(1, 4), "pass it as one"),
        (lambda x: x * np.asarray(x), "np.asarray"),
        (lambda x: 3.0, "returned float"),
    ],
)
def test_what_cannot_be_fused_is_refused(function, message):
    function.__name__ = "mine"
    with pytest.raises(FusionError, match=f"(?s)@fused mine.*({message})"):
        fused(function)(tr.ones(1, 4))


def test_shapes_are_checked_at_every_call():
    c = tr.zeros(2, 3)
    cells.lstm_step(tr.zeros(2, 12), tr.zeros(2, 12), c)
    with pytest.raises(ShapeError, match=r"\(2, 12\).*\(2, 8\)|add"):
        cells.lstm_step(tr.zeros(2, 12), tr.zeros(2, 8), c)
    with pytest.raises(ShapeError, match="split"):
        cells.lstm_step(tr.zeros(2, 10), tr.zeros(2, 10), c)


def test_a_mistake_in_a_step_names_the_time_step():
    class Odd(nn.Cell):
        gates = ("h",)

        def step(self, z, state):
            return nn.RNNState(cells.rnn_step(z, tr.zeros(2, 9), "tanh"))

    with pytest.raises(ShapeError, match=r"Recurrent\.cells\.0, step t=0"):
        nn.Recurrent(Odd, 3, 4)(tr.ones(5, 2, 3))


# ---------------------------------------------------------------- printers


def kernels():
    found = {}
    for case in CASES:
        function, operands, constants = operands_of(case, 2, 3, "float32")
        plan = Plan.of(function.function, [*operands, *constants], backends.get("numpy"))
        found |= {(case, kernel.name): kernel for kernel in plan.kernels}
    plan = Plan.of(mixed.function, mixed_operands("float32"), backends.get("numpy"))
    return found | {("mixed", kernel.name): kernel for kernel in plan.kernels}


@pytest.mark.parametrize("case", [*CASES, "mixed"])
@pytest.mark.skipif(not HAS_NUMBA, reason="Numba is not installed: pip install 'tinyrnn[fast]'")
def test_numba_and_numpy_compute_the_same(case):
    from tinyrnn.backends import kernel_numba

    for (name, _), kernel in kernels().items():
        if name != case:
            continue
        rng = np.random.default_rng(0)
        shapes = {
            "rows": lambda n: (3, n * 4),
            "row": lambda n: (n * 4,),
            "column": lambda n: (3,),
            "stack": lambda n: (n, 3, 4),
        }
        inputs = [
            0.7
            if x.layout == "number"
            else np.abs(rng.standard_normal(shapes[x.layout](x.lanes))).astype(x.dtype.value)
            for x in kernel.inputs
        ]
        runs = [kernel_numpy.runner(kernel, m.build(kernel)) for m in (kernel_numpy, kernel_numba)]
        for a, b in zip(*(run(3, 4, inputs, (None,) * len(kernel.outputs)) for run in runs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_cuda_source_computes_in_the_working_type():
    text = kernel_cuda.source(kernels()["lstm_step", "lstm_step"])
    assert 'extern "C" __global__ void lstm_step(' in text
    assert "tanhf(" in text
    assert "0.5f" in text
    assert "double" not in text
    assert text.count("{") == text.count("}")


def test_rows_that_do_not_fit_one_block():
    x = tr.randn(4 * kernel_numpy.BLOCK // 8 + 3, 8, dtype="float64")
    with tr.fusion(False):
        expected = functions._gelu(x).numpy()
    np.testing.assert_allclose(functions._gelu(x).numpy(), expected, rtol=1e-9)


@pytest.mark.skipif(not HAS_NUMBA, reason="Numba is not installed: pip install 'tinyrnn[fast]'")
def test_kernels_are_compiled_once_for_all_processes(tmp_path):
    code = """
import time, numba.core.compiler as compiler, tinyrnn as tr
compiled = []
wrapped = compiler.compile_extra
compiler.compile_extra = lambda *args, **kwargs: compiled.append(args[2].__name__) or wrapped(*args, **kwargs)
print(tr.relu(tr.fused(lambda x: tr.tanh(x) * 2)(tr.ones(1, 3))).tolist(), len(compiled))
"""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "TINYRNN_FAST": ""}
    runs = [
        subprocess.run(
            [sys.executable, "-c", code.replace("lambda x: tr", "lambda x: tr")],
            env=environment,
            cwd=PACKAGE.parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1].replace(" 0\n", runs[0][runs[0].rindex(" ") :])
    assert runs[1].endswith(" 0\n")
    assert not runs[0].endswith(" 0\n")
    assert list((tmp_path / "tinyrnn" / "kernels").glob("*.py"))


def test_numba_can_be_left_out():
    code = "import sys, tinyrnn as tr; tr.nn.LSTM(2, 3)(tr.ones(2, 1, 2)); print('numba' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TINYRNN_FAST": "0"},
        cwd=Path(PACKAGE).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "False\n"
