"""A captured function becomes a CUDA graph: what it launches and draws, and what happens where it cannot be one."""

from __future__ import annotations

import contextlib
import gc
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyrnn as tr
from tests.gpu.host_cupy import COMPILER, HostCuPy, memory
from tests.gpu.test_parity import V, Writer, compare, trained
from tests.gpu.test_step import held, stepping
from tinyrnn import checkpoint, nn
from tinyrnn.backends import cublas
from tinyrnn.backends.cupy_graph import Graph, current_graph
from tinyrnn.errors import BackendError, CaptureError, IndexRangeError
from tinyrnn.functions import default_generator

on_the_host = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler; install g++")


def graphs_of(device: Any) -> list[Graph]:
    return [graph for graph in device.graphs if graph.repeat == graph._launch]


@pytest.fixture
def ours() -> HostCuPy:
    """The stand-in, where its counters are to be read."""
    if COMPILER is None:
        pytest.skip("no C++ compiler for the kernels of the stand-in; install g++")
    return HostCuPy()


# ---------------------------------------------------------------- what is launched


def test_the_third_call_is_one_launch_and_no_call_of_python_s(ours: HostCuPy) -> None:
    calls = []
    with tr.use_backend(ours):
        model = Writer(nn.LSTM)

        def gradients(x: tr.Tensor) -> tr.Tensor:
            calls.append(x)
            loss = tr.cross_entropy(model(x, None)[0], x)
            loss.backward()
            return loss

        step, found = tr.capture(gradients, model), []
        for n in range(6):
            for w in model.parameters():
                w.grad = None
                w.assign(w * 1.1)  # another array, and other values
            before = memory.launches
            x = tr.tensor(np.full((4, 3), n % V))
            loss = step(x)
            assert memory.launches - before == (n >= 2)
            plain = [w.grad.numpy() for w in model.parameters()]
            for w in model.parameters():
                w.grad = None
            expected = gradients(x)
            found.append((loss.item(), expected.item()))
            compare(plain, [w.grad.numpy() for w in model.parameters()], atol=1e-6)
        np.testing.assert_allclose(*zip(*found, strict=True), rtol=1e-6)
        assert len(calls) == 1 + 6
        assert ours.nvmath.products > 0
        assert not any(ours.nvmath.handles.values())  # all were given back
    assert (memory.pool, memory.stream.ptr, current_graph.get()) == (None, 0, None)
    assert memory.pinned == memory.from_pinned_pool


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_training_by_a_graph_is_training(cupy_device: Any, kind: Any) -> None:
    compare(trained(cupy_device, kind, 8, captured=True), trained(cupy_device, kind, 8), atol=1e-5)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_there_is_a_graph_for_every_layer(cupy_device: Any, kind: Any) -> None:
    """And it is told if there is none: the next test that the device is held in would not notice."""
    options = {"dropout": 0.5, "recurrent_dropout": 0.2, "zoneout": 0.1, "weight_drop": 0.1, "layer_norm": True}
    with tr.use_backend(cupy_device):
        for given_options in ({}, options):
            step = stepping(True, kind, **given_options)
            for _ in range(3):
                step()
            assert len(graphs_of(cupy_device)) == 1
            cupy_device.synchronize()
            with held(cupy_device):
                loss, _ = step()
            assert np.isfinite(loss.item())
            del step
            gc.collect()


@pytest.mark.parametrize("T", [9, 150])
def test_a_long_sequence_is_one_graph_too(cupy_device: Any, T: int) -> None:
    """More than 8 steps are joined, and more than one kernel can join; along other axes, and of unequal length."""
    with tr.use_backend(cupy_device):
        lstm = nn.LSTM(3, 4, bidirectional=True)

        def f(x: tr.Tensor) -> tuple[tr.Tensor, ...]:
            out, _ = lstm(x)
            out.sum().backward()
            rows = tr.unstack(x)
            parts = [x[: 1 + t % 3] for t in range(T)]
            return out, tr.stack(rows, axis=1), tr.concatenate(rows, axis=-1), tr.concatenate(parts)

        step, found = tr.capture(f, lstm), []
        for run in (f, step, step, step):
            tr.manual_seed(0)
            for w in lstm.parameters():
                w.grad = None
            found.append([*run(tr.randn(T, 2, 3)), *(w.grad for w in lstm.parameters())])
        assert len(graphs_of(cupy_device)) == 1
        for ys in found[1:]:
            compare([y.numpy() for y in ys], [y.numpy() for y in found[0]], atol=1e-5)


def test_results_are_not_overwritten_by_the_next_call(cupy_device: Any) -> None:
    with tr.use_backend(cupy_device):
        step = tr.capture(lambda x: (x, x * 2, x[0]))
        found = [step(tr.tensor([float(n), 1.0])) for n in range(5)]
        assert len(graphs_of(cupy_device)) == 1
        assert [[y.tolist() for y in ys] for ys in found] == [[[n, 1], [2 * n, 2], n] for n in range(5)]


def test_arguments_may_lie_in_any_way(cupy_device: Any) -> None:
    with tr.use_backend(cupy_device):
        step = tr.capture(lambda x, y: x @ y + x.sum())
        x, y = tr.randn(5, 5), tr.randn(6, 5)
        for _ in range(4):
            np.testing.assert_allclose(step(x.T, y[:5].T).numpy(), (x.T @ y[:5].T + x.sum()).numpy(), atol=1e-5)


def test_gradients_add_up_until_they_are_forgotten(cupy_device: Any) -> None:
    with tr.use_backend(cupy_device):
        layer = nn.Linear(2, 1)
        step = tr.capture(lambda x: layer(x).sum().backward(), layer)
        for n in (1, 2, 3, 4):
            assert step(tr.tensor([[1.0, 2.0]])) is None
            assert layer.W.grad.tolist() == [[n * 1.0], [n * 2.0]]


def test_its_memory_is_counted_and_given_back(cupy_device: Any) -> None:
    with tr.use_backend(cupy_device):
        step = tr.capture(lambda x: (tr.exp(x) * 2).sum())
        x = tr.zeros(1 << 18)
        gc.collect()
        before = cupy_device.memory()[0]
        for _ in range(3):
            step(x)
        assert cupy_device.memory()[0] - before > (1 << 20)  # the workspace of the products, and exp(x)
        del step
        gc.collect()
        assert cupy_device.memory()[0] == before


def test_threads_take_turns(cupy_device: Any) -> None:
    with tr.use_backend(cupy_device):
        step, wrong = tr.capture(lambda x: tr.exp(x).sum() * 0 + x.sum()), []
        for _ in range(3):
            step(tr.zeros(64))

        def work(n: int) -> None:
            sums = [step(tr.full((64,), float(n)).to(cupy_device)).item() for _ in range(50)]
            wrong.extend(total for total in sums if total != 64 * n)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        if isinstance(cupy_device, HostCuPy):
            threads = threads[:1]  # it has one current stream for all
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


# ---------------------------------------------------------------- random numbers


def test_every_launch_draws_what_the_calls_would(cupy_device: Any) -> None:
    found, states = [], []
    other = tr.Generator(7)
    with tr.use_backend(cupy_device):
        x = tr.ones(300)

        def f(x: tr.Tensor) -> tuple[tr.Tensor, ...]:
            first = tr.dropout(x, 0.5), tr.dropout(x, 0.5)
            return *first, tr.dropout(x, 0.5, generator=other), tr.dropout(x, 0.5)

        for step in (f, tr.capture(f)):
            tr.manual_seed(3)
            other.seed(7)
            found.append([y.numpy() for _ in range(5) for y in step(x)])
            states.append([default_generator.state, other.state])
    np.testing.assert_array_equal(*found)
    assert states[0] == states[1]  # so that a checkpoint says all, whichever way it was computed
    assert len({y.tobytes() for y in found[0]}) == 20


def test_numbers_that_are_drawn_on_the_host_are_drawn_anew_without_a_graph(cupy_device: Any) -> None:
    with tr.use_backend(cupy_device):
        found = []
        for f in (draw := lambda x: (x + tr.randn(3), tr.uniform(3)), tr.capture(draw)):
            tr.manual_seed(3)
            with contextlib.nullcontext() if f is draw else pytest.warns(RuntimeWarning, match="on the host.*drawn"):
                found.append([y.tolist() for _ in range(4) for y in f(tr.ones(3))])
    assert found[0] == found[1]


def test_other_calls_may_draw_in_between(cupy_device: Any) -> None:
    with tr.use_backend(cupy_device):
        step, found = tr.capture(lambda x: tr.dropout(x, 0.5)), []
        for captured in (True, False):
            tr.manual_seed(0)
            for _ in range(4):
                found.append((step if captured else step.function)(tr.ones(50)).tolist())
                tr.randn(3)
    assert found[:4] == found[4:]


def test_a_captured_run_with_dropout_goes_on_from_a_checkpoint(cupy_device: Any, tmp_path: Path) -> None:
    def run(steps: int, saved: dict[str, Any] | None = None) -> tuple[list[float], dict[str, Any]]:
        tr.manual_seed(5)
        model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        optimizer = tr.optim.Adam(model.parameters(), lr=0.1)
        if saved is not None:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            default_generator.state = saved["generator"]

        def gradients(x: tr.Tensor) -> tr.Tensor:
            loss = ((model(x) - 1) ** 2).mean()
            loss.backward()
            return loss

        step, losses = tr.capture(gradients, model), []
        for _ in range(steps):
            optimizer.zero_grad()
            losses.append(step(tr.ones(4, 3)).item())
            optimizer.step()
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        return losses, states | {"generator": default_generator.state}

    with tr.use_backend(cupy_device):
        whole, _ = run(9)
        first, states = run(4)
        checkpoint.save(tmp_path / "run", states)
        rest, _ = run(5, checkpoint.load(tmp_path / "run"))
    np.testing.assert_allclose(first + rest, whole, rtol=0 if isinstance(cupy_device, HostCuPy) else 1e-4)


# ---------------------------------------------------------------- what cannot be recorded


def masked(x: tr.Tensor) -> tr.Tensor:
    return x[x > 0].sum()


def taken_in_order(x: tr.Tensor) -> tr.Tensor:
    table = x * 1
    table.requires_grad = True
    return tr.grad(table[tr.tensor([1, 1, 0])].sum(), table)


UNRECORDED: dict[str, tuple[Callable[[tr.Tensor], Any], str]] = {
    "a mask counts its Trues": (masked, r"in `v\d+ = getitem_\d+"),
    "a sum in order sorts": (taken_in_order, r"in `scatter_add_\d+"),
}


@pytest.mark.parametrize("name", UNRECORDED)
def test_what_cannot_be_recorded_is_told_once_and_repeated(
    cupy_device: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, place = UNRECORDED[name]
    monkeypatch.setattr(cupy_device, "deterministic", True)
    with tr.use_backend(cupy_device):
        step = tr.capture(function)
        inputs = [tr.tensor([1.0 + n, -1.0, 2.0]) for n in range(4)]
        found = [step(inputs[0])]
        with pytest.warns(RuntimeWarning, match=f"repeated one by one, since no CUDA graph .*{place}"):
            found.append(step(inputs[1]))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found += [step(x) for x in inputs[2:]]
        for y, x in zip(found, inputs, strict=True):
            assert y.tolist() == function(x).tolist()
        assert (graphs_of(cupy_device), memory.recorded) == ([], [])
        assert cupy_device.cupy.asarray(np.ones(3)).get().sum() == 3  # copies from the host are allowed again
        after = tr.capture(lambda x: x * 2)
        assert [after(x).tolist()[0] for x in inputs] == [2, 4, 6, 8]
        assert len(graphs_of(cupy_device)) == 1


def test_a_copy_from_the_host_is_refused(cupy_device: Any) -> None:
    rows = np.arange(3)
    graph = cupy_device.replayed(lambda x: [x + cupy_device.asarray(rows)])
    x = cupy_device.asarray(np.ones(3))
    with pytest.warns(RuntimeWarning, match="CaptureError: 24 bytes would be copied from the host at each launch"):
        assert cupy_device.to_host(graph(x)[0]).tolist() == [1, 2, 3]
    rows += 1
    assert cupy_device.to_host(graph(x)[0]).tolist() == [2, 3, 4]


def test_without_nvmath_the_calls_are_repeated(ours: HostCuPy) -> None:
    ours.nvmath = None
    with tr.use_backend(ours):
        step = tr.capture(lambda x: x @ x)
        x = tr.ones(2, 2)
        step(x)
        with pytest.warns(RuntimeWarning, match=r"BackendError: .* need nvmath-python.*pip install nvmath-python"):
            step(x)
        assert step(x).tolist() == [[2, 2], [2, 2]]


def test_an_error_of_the_calls_themselves_is_theirs(ours: HostCuPy, monkeypatch: pytest.MonkeyPatch) -> None:
    with tr.use_backend(ours):
        step, x = tr.capture(lambda x: tr.exp(x)), tr.ones(3)
        step(x)

        def full(*_: Any) -> None:
            raise ours.cupy.cuda.memory.OutOfMemoryError("Out of memory")

        with monkeypatch.context() as patch:
            patch.setattr(ours.cupy.cuda, "MemoryPool", full)
            with pytest.raises(BackendError, match="captured: host-cupy: the device's memory is full"):
                step(x)
        for _ in range(3):
            np.testing.assert_allclose(step(x).numpy(), np.exp(np.ones(3)), rtol=1e-6)
        assert len(graphs_of(ours)) == 1


def test_checks_at_once_need_the_calls_themselves(cupy_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_device, "checks_at_once", True)
    with tr.use_backend(cupy_device):
        embedding = nn.Embedding(V, 2)
        step = tr.capture(embedding, embedding)
        for _ in range(3):
            step(tr.tensor([1]))
        with pytest.raises(IndexRangeError, match="Embedding: index holds 8"):
            step(tr.tensor([8]))
    assert graphs_of(cupy_device) == []


# ---------------------------------------------------------------- indices are looked at in a graph too


def test_a_graph_keeps_its_checks_apart(cupy_device: Any) -> None:
    with tr.use_backend(cupy_device):
        embedding = nn.Embedding(V, 2)
        step = tr.capture(embedding, embedding)
        for good in ([1, 2], [6, 0], [3, 3]):
            step(tr.tensor(good))
        for n in range(2, 1_100):  # so many others that the table of those outside begins again
            tr.one_hot(tr.tensor([1]), n)
        cupy_device.synchronize()
        step(tr.tensor([1, 7]))
        with pytest.raises(IndexRangeError, match="Embedding: index holds 7"):
            cupy_device.synchronize()
        step(tr.tensor([1, 2])).numpy()


def test_the_run_that_warms_up_is_checked_whatever_becomes_of_it(cupy_device: Any) -> None:
    with tr.use_backend(cupy_device):
        embedding = nn.Embedding(V, 2)
        step = tr.capture(lambda x: masked(embedding(x)), embedding)
        step(tr.tensor([1]))
        with pytest.warns(RuntimeWarning, match="one by one"):
            step(tr.tensor([9]))
        with pytest.raises(IndexRangeError, match="Embedding: index holds 9"):
            cupy_device.synchronize()


# ---------------------------------------------------------------- optimisers


def test_an_optimizer_s_step_is_refused_and_nothing_is_changed(device: Any) -> None:
    with tr.use_backend(device):
        layer = nn.Linear(2, 1)
        optimizer = tr.optim.Adam(layer.parameters())
        before = [w.numpy() for w in layer.parameters()]

        def step(x: tr.Tensor) -> None:
            layer(x).sum().backward()
            optimizer.step()

        with pytest.raises(CaptureError, match=r"Adam.step\(\) inside a captured function.*call it after"):
            tr.capture(step, layer)(tr.ones(3, 2))
        assert optimizer.steps == 0
        for w, old in zip(layer.parameters(), before, strict=True):
            np.testing.assert_array_equal(w.numpy(), old)
        step(tr.ones(3, 2))  # on it goes, plain


# ---------------------------------------------------------------- cuBLAS reads by columns


@st.composite
def _products(draw: Any) -> tuple[Any, Any]:
    """Two operands of a product: matrices or stacks of them, turned, cut out of larger ones, repeated."""
    n, k, m = (draw(st.integers(1, 4)) for _ in range(3))
    dtype = draw(st.sampled_from(["float32", "float64", "float16"]))
    leading = draw(
        st.sampled_from([((), ()), ((3,), (3,)), ((3,), (1,)), ((2, 3), (3,)), ((), (2,)), ((2, 1), (1, 3))])
    )
    rng, found = np.random.default_rng(draw(st.integers(0, 9))), []
    for shape in ((*leading[0], n, k), (*leading[1], k, m)):
        x = rng.integers(-4, 5, shape).astype(dtype)
        how = draw(st.sampled_from(["", "turned", "cut", "spread", "back", "repeated"]))
        if how == "turned":
            x = np.swapaxes(np.ascontiguousarray(np.swapaxes(x, -1, -2)), -1, -2)
        elif how == "cut":
            x = np.pad(x, 1)[tuple(slice(1, 1 + length) for length in shape)]
        elif how == "spread":
            x = np.repeat(np.repeat(x, 2, -1), 3, -2)[..., ::3, ::2]
        elif how == "back":
            x = np.ascontiguousarray(x[..., ::-1])[..., ::-1]
        elif how == "repeated":
            x = np.broadcast_to(x[..., :1, :], shape)
        found.append(x)
    return found[0], found[1]


@on_the_host
@settings(deadline=None, max_examples=300)
@given(_products())
def test_products_are_matmul_s(case: Any) -> None:
    ours, (a, b) = HostCuPy(), case
    blas = cublas.Blas.__new__(cublas.Blas)
    blas.cupy, blas.cublas, blas.handle = ours.cupy, ours.nvmath, ours.nvmath.create()
    ours.nvmath.set_stream(blas.handle, 0)
    ours.nvmath.set_workspace(blas.handle, 1, 4 << 20)
    array = type(ours.asarray(np.ones(1)))
    y = blas.matmul(array(a), array(b))
    assert ours.nvmath.products == 1
    np.testing.assert_array_equal(y.get(), np.matmul(a, b))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_products_on_a_gpu_are_cupy_s(gpu: Any, dtype: str) -> None:
    cupy = gpu.cupy
    rng = np.random.default_rng(0)
    blas = cublas.Blas(cupy, cupy.cuda.get_current_stream())
    for left, right in (((50, 128), (128, 512)), ((3, 5, 7), (3, 7, 2)), ((2, 3, 5, 7), (3, 7, 2)), ((0, 3), (3, 4))):
        a, b = (cupy.asarray(rng.standard_normal(shape).astype(dtype)) for shape in (left, right))
        for x in (a, cupy.ascontiguousarray(cupy.swapaxes(a, -1, -2)).swapaxes(-1, -2)):
            np.testing.assert_allclose(
                blas.matmul(x, b).get().astype("float64"),
                cupy.matmul(a, b).get().astype("float64"),
                rtol=0,
                atol={"float16": 0.05, "float32": 1e-4, "float64": 1e-10}[dtype],
            )
    blas.close()
