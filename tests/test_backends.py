"""Backends: which there are, where tensors go, that they do not mix, and how arrays come in and out."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyrnn as tr
from tests.strict_backend import StrictBackend
from tinyrnn import backends
from tinyrnn.errors import BackendError

# ---------------------------------------------------------------- the registry


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test register and load backends that are forgotten afterwards."""
    monkeypatch.setattr(backends, "_factories", dict(backends._factories))
    monkeypatch.setattr(backends, "_loaded", dict(backends._loaded))


def test_a_backend_is_made_once_and_known_by_name() -> None:
    numpy, strict = backends.get("numpy"), backends.get("strict")
    assert (numpy.name, strict.name) == ("numpy", "strict")
    assert backends.get("numpy") is numpy is backends.get(numpy)
    assert tr.ones(2).backend is numpy
    assert tr.ones(2).to("strict").backend is strict


@pytest.mark.parametrize(
    ("name", "words"),
    [("tpu", "backend 'tpu' is unknown; there are cupy, numpy, strict"), ("numpy:1", "NumPy has no devices")],
)
def test_an_unknown_backend_is_an_error_that_lists_the_known(name: str, words: str) -> None:
    for ask in (tr.use_backend, backends.get, tr.ones(2).to):
        with pytest.raises(BackendError, match=words):
            ask(name)
    assert backends.current().name == "numpy"


def test_register_makes_a_backend_known_with_its_devices(registry: None) -> None:
    asked = []

    def factory(device: str) -> StrictBackend:
        asked.append(device)
        return StrictBackend(device)

    backends.register("mine", factory)
    assert asked == []
    with tr.use_backend("mine:device2"), tr.use_backend("mine:device2"):
        assert tr.ones(2).backend.name == "strict:device2"
    assert asked == ["device2"]


def test_an_installed_package_can_bring_a_backend(registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = SimpleNamespace(name="plugin", load=lambda: lambda device: StrictBackend(device or "device2"))
    groups = {"tinyrnn.backends": [plugin]}
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: groups[group])
    with pytest.raises(BackendError, match="'tpu' is unknown; there are cupy, numpy, plugin, strict"):
        backends.get("tpu")
    with tr.use_backend("plugin") as backend:
        assert tr.ones(2).backend is backend is backends.get("plugin")


def test_use_backend_as_a_call_as_a_block_and_nested() -> None:
    assert backends.current().name == "numpy"
    with tr.use_backend("numpy"):
        used = tr.use_backend("strict")
        assert (tr.ones(2).backend.name, repr(used)) == ("strict", "use_backend('strict')")
        with tr.use_backend("numpy") as numpy:
            assert tr.tensor([1]).backend is numpy
            with tr.use_backend("strict"):
                assert tr.arange(2).backend.name == "strict"
            assert tr.randn(2).backend is numpy
        assert tr.zeros(2).backend.name == "strict"
    assert backends.current().name == "numpy"


def test_use_backend_is_undone_when_its_block_raises() -> None:
    with pytest.raises(ZeroDivisionError), tr.use_backend("strict"):
        _ = 1 / 0
    assert backends.current().name == "numpy"


def test_a_block_made_beforehand_and_entered_again_still_switches() -> None:
    with tr.use_backend("numpy"):
        block = tr.use_backend("strict")
        tr.use_backend("numpy")
        for _ in range(2):
            with block:
                assert backends.current().name == "strict"
            assert backends.current().name == "numpy"


def test_use_backend_is_local_to_its_thread() -> None:
    seen = []

    def other() -> None:
        seen.append(backends.current().name)
        tr.use_backend("numpy")
        seen.append(backends.current().name)

    with tr.use_backend("strict"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert backends.current().name == "strict"
    assert seen == ["numpy", "numpy"]


def _python(code: str, backend: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[1]
    environment = {**os.environ, "TINYRNN_BACKEND": backend, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", f"import tinyrnn as tr\n{code}"]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def test_the_environment_chooses_the_backend() -> None:
    run = _python("import tests.conftest; print(tr.ones(2).backend.name, tr.tensor([1]).backend.name)", "strict")
    assert run.stdout.split() == ["strict", "strict"], run.stderr
    run = _python("tr.ones(2)", "tpu")
    assert "BackendError: backend 'tpu' is unknown; there are cupy, numpy" in run.stderr
    assert _python("print(tr.ones(2).backend.name)", "").stdout.split() == ["numpy"]


# ---------------------------------------------------------------- CuPy, where there is none


def _cupy(devices: Callable[[], int]) -> ModuleType:
    """A stand-in for the module: as many devices as `devices` says, and arrays on device 1."""
    cupy = ModuleType("cupy")
    cupy.__version__ = "14.0"
    runtime, nvrtc = SimpleNamespace(getDeviceCount=devices), SimpleNamespace(getVersion=lambda: (13, 0))
    cupy.cuda = SimpleNamespace(runtime=runtime, nvrtc=nvrtc, cublas=None)
    cupy.dtype = np.dtype
    place = {"__dlpack_device__": lambda self: (2, 1), "device": SimpleNamespace(id=1)}
    cupy.ndarray = type("ndarray", (), place)
    return cupy


def _driver_missing() -> int:
    raise RuntimeError("cudaErrorInsufficientDriver")


def _without_toolkit() -> ModuleType:
    """A stand-in that has a device, as a wheel of CuPy by itself has: the libraries are another package's."""
    cupy = _cupy(lambda: 1)
    del cupy.cuda.cublas
    return cupy


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (None, r"needs CuPy.*pip install 'tinyrnn\[cuda12\]' \(CUDA 12\) or 'tinyrnn\[cuda13\]'"),
        (_cupy(_driver_missing), r"CuPy 14.0 is installed, but .* \(cudaErrorInsufficientDriver\).*nvidia-smi"),
        (_cupy(lambda: 0), r"no CUDA device.*use_backend\('numpy'\)"),
        (_without_toolkit(), r"not the CUDA toolkit \(.*cublas.*pip install 'cupy-cuda12x\[ctk\]'"),
    ],
    ids=["no CuPy", "no driver", "no device", "no toolkit"],
)
def test_asking_for_cupy_in_vain_says_what_to_do(
    registry: None, monkeypatch: pytest.MonkeyPatch, module: ModuleType | None, words: str
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", module)
    backends._loaded.pop("cupy", None)
    for ask in (tr.use_backend, tr.ones(2).to):
        with pytest.raises(BackendError, match=words):
            ask("cupy")
    assert backends.current().name == "numpy"


def test_cupy_devices_are_numbered(registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", module := _cupy(lambda: 2))
    backends._loaded.pop("cupy", None)
    assert [backends.get(name).name for name in ("cupy", "cupy:0", "cupy:1")] == ["cupy", "cupy", "cupy:1"]
    assert backends.get("cupy") is backends.get("cupy:0")
    assert backends.of(module.ndarray()) is backends.get("cupy:1")
    for name in ("cupy:2", "cupy:-1", "cupy:a"):
        with pytest.raises(BackendError, match=f"backend '{name}': expected a device number from 0 to 1"):
            backends.get(name)


def test_without_a_gpu_its_benchmark_says_so_in_one_line(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(root)}
    command = [sys.executable, "benchmarks/gpu.py", "--out", str(tmp_path / "results.md")]
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (1, "", 1)
    assert run.stderr.startswith("no GPU to measure: backend 'cupy'")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- a training step reads nothing


@pytest.mark.parametrize("captured", [True, False], ids=["captured", "plain"])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "not fused"])
def test_a_training_step_reads_no_values_but_for_the_checks_of_indices(
    monkeypatch: pytest.MonkeyPatch, fused: bool, captured: bool
) -> None:
    """Embedding and cross_entropy look at their indices by `check`, and a device need not do that at once."""
    reads: list[Any] = []
    checks: list[Any] = []
    read = StrictBackend.to_host
    monkeypatch.setattr(StrictBackend, "to_host", lambda self, array: reads.append(array) or read(self, array))
    monkeypatch.setattr(StrictBackend, "check", lambda self, see, array: checks.append(see))
    with tr.use_backend("strict"), tr.fusion(fused):
        model = tr.nn.Sequential(tr.nn.Embedding(7, 5), tr.nn.LSTM(5, 6, 2), tr.nn.Linear(6, 7))
        optimizer = tr.optim.Adam(model.parameters(), lr=tr.optim.Cosine(0.1, total=9))

        def gradients(x: tr.Tensor, y: tr.Tensor, state: Any) -> tuple[tr.Tensor, Any]:
            embedding, lstm, output = model
            h, state = lstm(embedding(x), state)
            loss = tr.cross_entropy(output(h), y)
            loss.backward()
            return loss, tr.detach(state)

        step, state = tr.capture(gradients, model) if captured else gradients, None
        for _ in range(4):
            reads.clear()
            checks.clear()
            optimizer.zero_grad()
            loss, state = step(tr.tensor([[1, 6], [0, 2]]), tr.tensor([[6, 1], [2, 3]]), state)
            norm = tr.optim.clip_grad_norm(model.parameters(), 1.0)
            optimizer.step()
            assert (len(reads), len(checks)) == (0, 2)
        assert np.isfinite([loss.item(), norm.item()]).all()
        assert len(reads) == 2


# ---------------------------------------------------------------- backends do not mix, but `to` goes between them

MIXED: dict[str, Callable[[tr.Tensor, tr.Tensor], Any]] = {
    "x + y": lambda x, y: x + y,
    "x - y": lambda x, y: x - y,
    "x / y": lambda x, y: x / y,
    "x ** y": lambda x, y: x**y,
    "x @ y": lambda x, y: x @ y,
    "x == y": lambda x, y: x == y,
    "x < y": lambda x, y: x < y,
    "x[y]": lambda x, y: x[y > 0],
    "x.assign": lambda x, y: x.assign(y),
    "x.backward": lambda x, y: (x * 2).backward(y),
    "grad": lambda x, y: tr.grad(x * 2, x, y),
    "maximum": lambda x, y: tr.maximum(x, y),
    "where": lambda x, y: tr.where(x > 0, x, y),
    "where the mask": lambda x, y: tr.where(y > 0, x, x),
    "concatenate": lambda x, y: tr.concatenate([x, x, y]),
    "stack": lambda x, y: tr.stack([x, y]),
    "cross_entropy": lambda x, y: tr.cross_entropy(x, y.argmax()),
    "binary_cross_entropy": lambda x, y: tr.binary_cross_entropy(x, y),
    "mse_loss": lambda x, y: tr.mse_loss(x, y),
    "layer_norm": lambda x, y: tr.layer_norm(x, weight=y),
    "x + array": lambda x, y: (x if x.backend.name == "strict" else y) + np.ones(2),
    "array * x": lambda x, y: np.ones(2) * (x if x.backend.name == "strict" else y),
}


@pytest.mark.parametrize("name", MIXED)
def test_mixed_backends_are_an_error_that_names_both(name: str) -> None:
    x = tr.ones(2, requires_grad=True)
    y = tr.ones(2).to("strict")
    y.requires_grad = True
    for a, b in ((x, y), (y, x)):
        with pytest.raises(BackendError) as error:
            MIXED[name](a, b)
        assert "numpy" in str(error.value)
        assert "strict" in str(error.value)


@pytest.mark.parametrize(("here", "there"), [("numpy", "strict"), ("strict", "numpy")])
def test_to_is_differentiable(here: str, there: str) -> None:
    with tr.use_backend(here):
        x = tr.tensor([1.0, 2.0], requires_grad=True)
    y = x.to(there) ** 3
    assert (y.backend.name, y.dtype, y.tolist()) == (there, "float32", [1, 8])
    assert x.to(here) is x
    (y.to(here) * x).sum().backward(retain_graph=True)
    assert (x.grad.backend.name, x.grad.tolist()) == (here, [4, 32])
    slope = tr.grad(y.sum(), x, create_graph=True)
    assert tr.grad(slope.sum(), x).tolist() == [6, 12]
    mask = (x > 1).to(there)
    assert (mask.dtype, mask.tolist(), mask.requires_grad) == ("bool", [False, True], False)


def test_where_two_numbers_meet_a_mask_they_follow_it() -> None:
    mask = tr.ones(2).to("strict") > 0
    assert tr.where(mask, 1.0, 0.0).backend.name == "strict"
    assert tr.one_hot(mask.astype("int64"), 2).backend.name == "strict"


# ---------------------------------------------------------------- arrays in and out


def test_reading_a_tensor_works_everywhere(backend: backends.Backend) -> None:
    x = tr.tensor([[1.5, 2.0]])
    assert (x.tolist(), x[0, 0].item(), float(x[0, 1]), int(x[0, 1])) == ([[1.5, 2.0]], 1.5, 2.0, 2)
    assert [1, 2, 3][tr.tensor(1)] == 2
    assert (len(x), x.shape, x.ndim, x.size, [row.tolist() for row in x]) == (1, (1, 2), 2, 2, [[1.5, 2.0]])
    where = "" if backend.name == "numpy" else f", backend={backend.name}"
    assert repr(x) == f"tensor([[1.5, 2. ]], shape=(1, 2), dtype=float32{where})"
    values = x.numpy()
    assert isinstance(values, np.ndarray)
    assert (values.dtype, values.tolist()) == (np.float32, [[1.5, 2.0]])


def test_numpy_is_a_read_only_view_on_numpy_and_a_copy_elsewhere() -> None:
    x = tr.ones(2, 3)
    view = x.numpy()
    assert np.shares_memory(view, x.array)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 5
    copy = x.to("strict").numpy()
    copy[0] = 5
    assert x.tolist() == x.to("strict").tolist() == np.ones((2, 3)).tolist()


def test_numpy_reads_a_tensor_on_numpy_and_no_other() -> None:
    x = tr.tensor([1.0, 2.0], requires_grad=True)
    assert not np.asarray(x).flags.writeable
    assert np.shares_memory(np.asarray(x), x.array)
    assert np.array(x).flags.writeable
    assert np.asarray(x, "int32").tolist() == [1, 2]
    assert np.from_dlpack(x.detach() * 2).tolist() == [2, 4]
    for read in (np.asarray, np.array):
        with pytest.raises(BackendError, match=r"'strict' is not copied to NumPy behind your back: say x.numpy\(\)"):
            read(x.to("strict"))


@pytest.mark.parametrize(
    "f",
    [
        lambda a, b: a + b,
        lambda a, b: a - b,
        lambda a, b: a * b,
        lambda a, b: a / b,
        lambda a, b: a**b,
        lambda a, b: a @ b,
        lambda a, b: a < b,
        lambda a, b: a >= b,
        lambda a, b: a == b,
        lambda a, b: a != b,
    ],
)
@pytest.mark.parametrize("array", [np.array([2.0, 3.0]), np.array([2, 3])], ids=["floats", "ints"])
def test_an_array_on_the_left_asks_the_tensor(array: Any, f: Callable[[Any, Any], Any]) -> None:
    values = np.array([3.0, 3.0])
    x = tr.tensor(values)
    for y, expected in ((f(array, x), f(array, values)), (f(x, array), f(values, array))):
        assert isinstance(y, tr.Tensor)
        np.testing.assert_array_equal(y.numpy(), expected)
    assert isinstance(np.float64(2) * x, tr.Tensor)
    assert isinstance(np.float32(2) < x, tr.Tensor)


@pytest.mark.oracle
def test_torch_and_tinyrnn_exchange_arrays() -> None:
    torch = pytest.importorskip("torch")
    x = tr.ones(2, 3)
    shared = torch.from_dlpack(x)
    assert (shared.dtype, tuple(shared.shape)) == (torch.float32, (2, 3))
    assert shared.data_ptr() == x.array.ctypes.data
    assert torch.from_dlpack(tr.flip(tr.arange(3))).tolist() == [2, 1, 0]
    back = tr.tensor(torch.arange(3, dtype=torch.float64))
    assert (back.dtype, back.tolist()) == ("float64", [0, 1, 2])
    assert tr.zeros(2, dtype=torch.float64).dtype is tr.float64


# ---------------------------------------------------------------- scatter_add


@st.composite
def _scatters(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], Any, np.ndarray[Any, Any]]:
    """A buffer, an index into it, and values for what it names: small whole numbers, so that sums are exact."""
    shape = tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=3)))
    n = shape[0]
    kinds = ["slice", "mask"] + (["int", "rows", "grid", "uint8"] if n else []) + (["pairs"] if n and shape[-1] else [])
    kind = draw(st.sampled_from(kinds))
    some = st.lists(st.integers(-n, n - 1), max_size=6)
    index: Any
    if kind == "slice":
        index = slice(draw(st.integers(-5, 5)), None, draw(st.sampled_from([1, -1, 2, -3])))
    elif kind == "mask":
        index = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    elif kind == "int":
        index = draw(st.integers(-n, n - 1))
    elif kind == "rows":
        index = np.array(draw(some), draw(st.sampled_from(["int64", "int32", "int8"])))
    elif kind == "grid":
        index = np.array(draw(st.lists(st.integers(-n, n - 1), min_size=4, max_size=4))).reshape(2, 2)
    elif kind == "uint8":
        index = np.array(draw(st.lists(st.integers(0, n - 1), max_size=6)), "uint8")
    else:
        rows = np.array(draw(some), int)
        index = (rows, ..., rows % shape[-1]) if len(shape) > 1 else (rows,)
    buffer = np.arange(np.prod(shape, dtype=int), dtype="float64").reshape(shape)
    size = buffer[index].size
    values = np.array(draw(st.lists(st.integers(-9, 9), min_size=size, max_size=size)), "float64")
    return buffer, index, values.reshape(buffer[index].shape)


@settings(deadline=None, max_examples=300)
@given(_scatters())
def test_scatter_add_is_add_at(case: tuple[np.ndarray[Any, Any], Any, np.ndarray[Any, Any]]) -> None:
    buffer, index, values = case
    expected = buffer.copy()
    np.add.at(expected, index, values)
    backends.get("numpy").scatter_add(buffer, index, values)
    np.testing.assert_array_equal(buffer, expected)


@pytest.mark.parametrize("V", [5, 300])
def test_scatter_add_keeps_infinity_and_nan_to_their_rows(V: int) -> None:
    buffer = np.zeros((V, 2))
    values = np.array([[1.0, 1.0], [np.inf, 1.0], [1.0, np.nan], [1.0, 1.0]])
    backends.get("numpy").scatter_add(buffer, np.array([0, 1, 2, 0]), values)
    np.testing.assert_array_equal(buffer[:4], [[2.0, 2.0], [np.inf, 1.0], [1.0, np.nan], [0.0, 0.0]])


def test_scatter_add_takes_bytes_as_indices_of_a_long_table() -> None:
    table = tr.zeros(300, 2, requires_grad=True)
    rows = tr.tensor([0, 255, 255], "uint8")
    g = tr.grad(table[rows].sum(), table)
    assert (g[0].tolist(), g[255].tolist(), g.sum().item()) == ([1, 1], [2, 2], 6)


def test_from_dlpack_shares_where_tensor_copies() -> None:
    theirs = np.arange(3.0)
    shared, copied = tr.from_dlpack(theirs), tr.tensor(theirs)
    theirs[0] = 9
    assert (shared.tolist(), copied.tolist(), shared.dtype) == ([9, 1, 2], [0, 1, 2], "float64")
    assert tr.from_dlpack(shared).array is shared.array
    with tr.use_backend("strict"):
        assert tr.from_dlpack(theirs).backend.name == "numpy"  # where it is, not where new tensors go
    for wrong, words in (
        ([1.0], "given list; expected an array that offers DLPack"),
        (np.ones(2, "complex64"), "complex"),
    ):
        with pytest.raises(tr.errors.DTypeError, match=words):
            tr.from_dlpack(wrong)
