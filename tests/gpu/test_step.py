"""A training step does not wait for the device and keeps no memory; what goes wrong there is told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tinyrnn as tr
from tests.gpu.host_cupy import HostCuPy, memory
from tests.gpu.test_parity import B, V, Writer, trained
from tinyrnn import backends, checkpoint, nn, optim
from tinyrnn.errors import BackendError, DTypeError, IndexRangeError

HOLD = """
extern "C" __global__ void hold(const unsigned long long flag, long long* given_up) {
    const long long started = clock64();
    while (*(volatile long long*)flag == 0) {
        if (clock64() - started > 30000000000LL) { *given_up = 1; return; }
    }
}
"""


@contextlib.contextmanager
def held(device: Any) -> Iterator[None]:
    """Have the device do nothing until the block has ended: code that waits for it does not get through.

    It gives up after 30e9 clock cycles, some 15 s, and the test fails. The stand-in counts what is read.
    """
    if isinstance(device, HostCuPy):
        before = memory.reads
        yield
        assert memory.reads == before, "values were read"
        return
    cupy = device.cupy
    kernel, given_up = cupy.RawKernel(HOLD, "hold"), cupy.zeros(1, "int64")
    page = cupy.cuda.alloc_pinned_memory(8)  # the host's, which the device can read
    flag = np.frombuffer(page, np.int64, 1)
    flag[0] = 1
    kernel((1,), (1,), (cupy.uint64(page.ptr), given_up))  # the first launch compiles, and may wait
    cupy.cuda.Device().synchronize()
    flag[0] = 0
    kernel((1,), (1,), (cupy.uint64(page.ptr), given_up))
    try:
        yield
    finally:
        flag[0] = 1
        cupy.cuda.Device().synchronize()
    assert given_up.get()[0] == 0, "something waited for the device"


def stepping(captured: bool, kind: Any = nn.LSTM, **options: Any) -> Callable[[], tuple[tr.Tensor, tr.Tensor]]:
    """Return a function that does one training step of a character model, from host data to new parameters.

    It is short, T=2: of more than a thousand calls that wait for a device which is held, CUDA lets the last ones wait.
    """
    model = Writer(lambda *sizes: kind(*sizes, **options))
    optimizer = optim.Adam(model.parameters(), lr=optim.Cosine(0.01, total=100))
    rng, state = np.random.default_rng(0), [None]

    def gradients(x: tr.Tensor, y: tr.Tensor, state: Any) -> tuple[tr.Tensor, Any]:
        logits, state = model(x, state)
        loss = tr.cross_entropy(logits, y)
        loss.backward()
        return loss, tr.detach(state)

    learn = tr.capture(gradients, model) if captured else gradients

    def step() -> tuple[tr.Tensor, tr.Tensor]:
        x, y = (tr.tensor(rng.integers(0, V, (2, B))) for _ in range(2))
        optimizer.zero_grad()
        loss, state[0] = learn(x, y, state[0])
        norm = optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        return loss, norm

    return step


@pytest.mark.parametrize("captured", [True, False], ids=["captured", "plain"])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "not fused"])
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_a_training_step_does_not_wait_for_the_device(cupy_device: Any, kind: Any, fused: bool, captured: bool) -> None:
    with tr.use_backend(cupy_device), tr.fusion(fused):
        step = stepping(captured, kind)
        for _ in range(3):
            step()  # compiles, and fills the memory pool
        with contextlib.suppress(AssertionError), held(cupy_device):
            step()  # fills the pool of host memory, from which nothing is given back while the device is held
        cupy_device.synchronize()
        with held(cupy_device):
            loss, norm = step()
        assert np.isfinite([loss.item(), norm.item()]).all()


def test_held_notices_a_step_that_reads(cupy_device: Any) -> None:
    x = cupy_device.full((3,), 1.0, tr.float32)
    cupy_device.to_host(x)
    with pytest.raises(AssertionError, match=r"waited|read"), held(cupy_device):
        cupy_device.to_host(x)


@pytest.mark.parametrize("captured", [True, False], ids=["captured", "plain"])
def test_many_steps_take_no_more_memory_than_a_few(cupy_device: Any, captured: bool) -> None:
    with tr.use_backend(cupy_device):
        step = stepping(captured, dropout=0.5)
        for _ in range(20):
            step()
        before = cupy_device.memory()
        for _ in range(50 if isinstance(cupy_device, HostCuPy) else 1000):
            step()
        assert cupy_device.memory() == before
        assert 0 < before[0] <= before[1]


# ---------------------------------------------------------------- indices are looked at on the device


def test_an_index_out_of_range_is_told_when_values_are_next_read(cupy_device: Any) -> None:
    with tr.use_backend(cupy_device):
        embedding = nn.Embedding(V, 2)
        for wrong, named in (([0, 9, 3], 9), ([2, -1, 6], -1)):
            with held(cupy_device):
                y = embedding(tr.tensor(wrong))
            with pytest.raises(IndexRangeError, match=f"Embedding: index holds {named}; expected .* 0 to 6") as caught:
                y.numpy()
            assert "TINYRNN_CHECK=1" in caught.value.__notes__[0]
            assert y.numpy().shape == (3, 2)  # it has been told
        tr.cross_entropy(tr.zeros(2, V), tr.tensor([0, V]))
        with pytest.raises(IndexRangeError, match="cross_entropy: targets holds 7"):
            cupy_device.synchronize()
        nn.LSTM(2, 2)(tr.zeros(3, 2, 2), lengths=[4, 0])
        with pytest.raises(IndexRangeError, match=r"LSTM.*from 0 to T=3"):
            cupy_device.synchronize()
        assert embedding(tr.tensor(np.array([], "int32"))).numpy().shape == (0, 2)
        x, nine, mask = tr.zeros(2, 3, 4), tr.tensor([[1, 0], [0, 9]]), tr.ones(2, 3) > 0
        indices = (nine, 0, 2), ((0, nine), 1, 3), ((..., nine), 2, 4), ((slice(1), None, nine), 1, 3)
        for index, axis, n in (*indices, ((mask, nine[1, 1:]), 2, 4), ((nine[1], ..., nine[0]), 0, 2)):
            y = x[index]
            with pytest.raises(IndexRangeError, match=f"index 9 is out of bounds for axis {axis} with size {n}"):
                y.numpy()
        assert x[tr.tensor([-2, 1])].numpy().shape == (2, 3, 4)


def test_in_a_captured_step_too(cupy_device: Any) -> None:
    with tr.use_backend(cupy_device):
        embedding = nn.Embedding(V, 2)
        step = tr.capture(embedding, embedding)
        for good in ([1, 2], [6, 0]):
            step(tr.tensor(good)).numpy()
        y = step(tr.tensor([1, 7]))
        with pytest.raises(IndexRangeError, match="Embedding: index holds 7"):
            y.numpy()


def test_asked_for_it_is_told_at_once(cupy_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_device, "checks_at_once", True)
    with tr.use_backend(cupy_device), pytest.raises(IndexRangeError, match="Embedding: index holds 8"):
        nn.Embedding(V, 2)(tr.tensor([8]))


def test_more_checks_than_there_is_room_for_are_looked_at_in_between(cupy_device: Any) -> None:
    with tr.use_backend(cupy_device):
        for _ in range(1_030):
            y = tr.one_hot(tr.tensor([1]), 3)
        y.numpy()
        with pytest.raises(IndexRangeError, match="one_hot: index holds 3"):  # noqa: PT012
            tr.one_hot(tr.tensor([3]), 3)
            for _ in range(1_030):
                tr.one_hot(tr.tensor([1]), 3)
            cupy_device.synchronize()


def test_a_check_that_is_made_again_is_the_same_one(cupy_device: Any) -> None:
    with tr.use_backend(cupy_device):
        step, lstm = stepping(captured=False), nn.LSTM(2, 2)
        for n in range(40):
            step()
            lstm(tr.zeros(3, 2, 2), lengths=[3, n % 3])
        assert len(cupy_device.checks.rows) <= 8
        cupy_device.synchronize()


# ---------------------------------------------------------------- a device that is full, or lost


def test_a_device_that_is_full_is_told_and_the_checkpoint_is_whole(cupy_device: Any, tmp_path: Path) -> None:
    with tr.use_backend(cupy_device):
        step, model = stepping(captured=False), nn.LSTM(3, 4)
        step()
        checkpoint.save(tmp_path / "run", {"model": model.state_dict()})
        advice = r"memory is full.*a smaller batch.*is whole"
        with little_memory(cupy_device), pytest.raises(BackendError, match=advice):
            tr.zeros(4_000_000)
        saved = checkpoint.load(tmp_path / "run")["model"]
        for name, w in model.named_parameters():
            np.testing.assert_array_equal(saved[name], w.numpy())
        assert np.isfinite(step()[0].item())  # and it goes on


@pytest.mark.parametrize("captured", [True, False], ids=["captured", "plain"])
def test_in_a_step_the_operation_is_named(cupy_device: Any, captured: bool) -> None:
    with tr.use_backend(cupy_device):
        layer, x = nn.Linear(4, 1_000_000), tr.randn(2, 4)
        forward = tr.capture(layer, layer) if captured else layer
        for _ in range(3):  # what a capture keeps of its first run is let go at its second
            forward(x)
        with little_memory(cupy_device), pytest.raises(BackendError, match=r"memory is full.*a smaller batch"):
            forward(x)


def test_in_a_backward_pass_it_is_named_too(cupy_device: Any) -> None:
    def full(*_: Any) -> Any:
        raise cupy_device.cupy.cuda.memory.OutOfMemoryError(1_000, 0, 0)

    rules = (lambda ops, gy, y, x: full(),)
    filling = tr.Primitive("filling", lambda xp, x: x * 2, rules, saves=("",), dtype=None)
    with tr.use_backend(cupy_device):
        x = tr.ones(3, requires_grad=True)
        with pytest.raises(BackendError, match=r"the gradient of filling\(float32\[3\]\): .*memory is full"):
            tr.apply(filling, x).sum().backward()
        y = x * 2
        y.register_hook(full)
        with pytest.raises(BackendError, match=r"the gradients that flow into <node \d+ multiply>: .*memory is full"):
            y.sum().backward()


@contextlib.contextmanager
def little_memory(device: Any) -> Iterator[None]:
    """Leave a megabyte beside what is in use."""
    pool = device.cupy.get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=pool.used_bytes() + 1_000_000)
    try:
        yield
    finally:
        pool.set_limit(size=0)


def test_a_device_that_is_lost_is_told(cupy_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: Any) -> None:
        raise cupy_device.cupy.cuda.runtime.CUDARuntimeError(719)

    with tr.use_backend(cupy_device):
        x = tr.ones(2)
        monkeypatch.setattr(cupy_device.cupy, "asnumpy", lost)
        with pytest.raises(BackendError, match=r"the device is lost.*last checkpoint"):
            x.numpy()


def test_other_errors_stay_what_they_are(cupy_device: Any) -> None:
    for error in (ValueError("x"), cupy_device.cupy.cuda.runtime.CUDARuntimeError(1)):
        assert cupy_device.failure(error) == ""


# ---------------------------------------------------------------- what comes in and goes out


class Foreign:
    """Another library's array, on the device."""

    def __init__(self, array: Any, device: int = 0) -> None:
        self.array, self.place = array, (2, device)

    def __dlpack__(self, **_: Any) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.place


class Refusing(Foreign):
    """One that cannot be shared."""

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("not this one")


def test_arrays_of_other_libraries_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = np.arange(6, dtype="float32").reshape(2, 3)
    backend = HostCuPy()
    array = backend.asarray(Foreign(theirs))
    assert np.shares_memory(array.host, theirs)
    assert backend.asarray(Foreign(theirs), tr.float64).dtype == "float64"
    numba = SimpleNamespace(__cuda_array_interface__={})  # which has this in place of DLPack
    monkeypatch.setattr(backend.cupy, "asarray", lambda data: backend.asarray(Foreign(theirs)))
    assert np.shares_memory(backend.asarray(numba).host, theirs)
    monkeypatch.undo()
    monkeypatch.setitem(backends._loaded, "cupy:0", backend)
    with tr.use_backend(backend):
        x = tr.tensor(Foreign(theirs))
        with pytest.raises(DTypeError, match="a Refusing of dtype unknown, which CuPy does not take: not this one"):
            tr.tensor(Refusing(theirs))
    theirs[:] = 0
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]  # a tensor has its own


def test_from_dlpack_shares_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, theirs = HostCuPy(), np.arange(6, dtype="float32").reshape(2, 3)
    monkeypatch.setitem(backends._loaded, "cupy:0", backend)
    x = tr.from_dlpack(Foreign(theirs))
    assert x.backend is backend
    assert np.shares_memory(x.array.host, theirs)
    assert tr.from_dlpack(x.array).array is x.array
    with pytest.raises(
        DTypeError, match="from_dlpack: the array is a Refusing of dtype unknown, which cannot be shared"
    ):
        tr.from_dlpack(Refusing(theirs))


def test_pytorch_s_tensors_come_in_and_go_out_without_a_copy(gpu: Any) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch was built without CUDA")
    theirs = torch.arange(6.0, device=f"cuda:{gpu.device}").reshape(2, 3)
    array = gpu.asarray(theirs)
    assert array.data.ptr == theirs.data_ptr()
    with tr.use_backend(gpu):
        x = tr.tensor(theirs)
        assert tr.from_dlpack(theirs).array.data.ptr == theirs.data_ptr()
        back = torch.from_dlpack(x)
        assert (x.backend, x.tolist()) == (gpu, theirs.tolist())
        assert (back.data_ptr(), back.device) == (x.array.data.ptr, theirs.device)
        assert torch.from_dlpack(tr.flip(x)).tolist() == theirs.flip(0, 1).tolist()
        for wrong, words in ((theirs.bfloat16(), "bfloat16"), (theirs.requires_grad_(), "detach")):
            with pytest.raises(DTypeError, match=words):
                tr.tensor(wrong)


def test_jax_s_arrays_come_in_and_go_out(gpu: Any) -> None:
    jax = pytest.importorskip("jax")
    try:
        there = jax.devices("cuda")[gpu.device]
    except RuntimeError:
        pytest.skip("JAX was built without CUDA")
    theirs = jax.device_put(np.arange(6, dtype="float32"), there)
    with tr.use_backend(gpu):
        x = tr.tensor(theirs)
        assert (x.backend, x.tolist()) == (gpu, [0, 1, 2, 3, 4, 5])
        assert np.asarray(jax.dlpack.from_dlpack(x * 2)).tolist() == [0, 2, 4, 6, 8, 10]


def test_dtypes_that_no_tensor_has_are_told(cupy_device: Any) -> None:
    for wrong in (np.zeros(2, "complex64"), ["a"]):
        with pytest.raises(DTypeError, match="expected numbers"):
            cupy_device.asarray(wrong)
    array = cupy_device.cupy.zeros(2, "complex64")
    for ask in (cupy_device.asarray, cupy_device.dtype):
        with pytest.raises(DTypeError, match=r"complex64; expected numbers .*float32"):
            ask(array)


def test_a_copy_is_laid_out_row_by_row(cupy_device: Any) -> None:
    x = cupy_device.asarray(np.arange(6).reshape(2, 3))
    turned = cupy_device.permute_dims(x, (1, 0))
    copy = cupy_device.copy(turned)
    assert (copy.flags.c_contiguous, cupy_device.to_host(copy).tolist()) == (True, [[0, 3], [1, 4], [2, 5]])


# ---------------------------------------------------------------- several devices


def test_everything_happens_on_the_device_that_was_asked_for() -> None:
    second = HostCuPy("1")
    x = second.asarray(np.ones((2, 3)))
    made = [
        *(x, second.full((2,), 3.0, tr.float32), second.empty((2,), tr.int64), second.copy(x), second.exp(x)),
        *(second.astype(x, tr.float32), second.getitem(x, 0), second.pad(x, ((1, 1), (0, 0)), 0.0)),
        second.philox(second.asarray(np.zeros(1, "uint64")), 0, (5,), tr.float32),
        second.uniform(tr.Generator(0), (2,), tr.float32),
    ]
    assert [array.device.id for array in made] == [1] * len(made)
    assert memory.device == 0
    with pytest.raises(ValueError, match="different from the current device"):
        _ = x + x  # operators compute on the current device
    second.enter()
    assert len(trained(second, nn.LSTM, 3, captured=True)) > 3
    memory.device = 0
    with pytest.raises(BackendError, match="on CUDA device 1 given to backend 'host-cupy'; move it"):
        HostCuPy().asarray(x)
    with pytest.raises(BackendError, match="expected a device number from 0 to 1"):
        HostCuPy("2")


def test_two_devices_take_turns() -> None:
    with tr.use_backend(first := HostCuPy("0")):
        x = tr.tensor([1.0, 2.0], requires_grad=True)
    y = x.to(second := HostCuPy("1")) * 3 + 1
    z = (y * y).to(first) * x
    z.sum().backward()
    assert [t.array.device.id for t in (x, y, z, x.grad)] == [0, 1, 0, 0]
    assert (second.name, x.grad.tolist()) == ("host-cupy:1", [40.0, 133.0])  # (3x + 1)² + 6x (3x + 1)
    memory.device = 0
