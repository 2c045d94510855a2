"""The CUDA C++ that is written for kernels compiles, and computes what NumPy computes."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import tinyrnn as tr
from tests.gpu.host_cupy import COMPILER, FUNCTIONS, METHODS, HostCuPy
from tests.gpu.test_step import HOLD
from tests.test_backends import _scatters
from tests.test_fuse import CASES, mixed, mixed_operands, operands_of
from tinyrnn import backends
from tinyrnn.backends import DType, Kernel, kernel_cuda, philox
from tinyrnn.backends.cupy_backend import MOST_JOINED, add_rows_source, bounds_source, join_source, named
from tinyrnn.fuse import Plan
from tinyrnn.nn.cells import gru_step

FLOATS = ("float32", "float64", "float16")
NVCC = shutil.which("nvcc")


def kernels(dtype: str) -> dict[tuple[str, str], Kernel]:
    """Return the kernels of every fused function, forward and backward, for operands of a dtype."""
    home, found = backends.get("numpy"), {}
    for case in CASES:
        function, operands, constants = operands_of(case, 2, 3, dtype)
        plan = Plan.of(function.function, [*operands, *constants], home)
        found |= {(case, kernel.name): kernel for kernel in plan.kernels}
    plan = Plan.of(mixed.function, mixed_operands(dtype), home)
    return found | {("mixed", kernel.name): kernel for kernel in plan.kernels}


def whole_text() -> tuple[str, int]:
    """Return all kernels as one text, each under a name of its own, and how many there are."""
    texts = []
    for dtype in FLOATS:
        for kernel in kernels(dtype).values():
            texts.append(kernel_cuda.source(dataclasses.replace(kernel, name=f"{named(kernel).name}_{len(texts)}")))
        kind = kernel_cuda.C_TYPES[DType(dtype)]
        texts.append(philox.source(DType(dtype), kind).replace("philox_uniform(", f"philox_{dtype}("))
        texts.append(add_rows_source(DType(dtype)).replace("add_rows(", f"add_rows_{dtype}("))
        joins = {f"join_{dtype}_{n}(": join_source(DType(dtype), n) for n in (1, MOST_JOINED)}
        texts += [text.replace("join(", name) for name, text in joins.items()]
    texts.append(HOLD)
    texts += [bounds_source(dtype).replace("bounds(", f"bounds_{dtype}(") for dtype in DType if "int" in dtype]
    return "\n".join(texts), len(texts)


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed; the CUDA toolkit brings it")
def test_every_kernel_compiles(tmp_path: Path) -> None:
    text, count = whole_text()
    (tmp_path / "kernels.cu").write_text(text)
    command = f"{NVCC} -std=c++17 -Werror all-warnings -Xptxas -v -cubin -o kernels.cubin kernels.cu".split()
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert made.stderr.count("Compiling entry function") == count
    assert "spill" not in made.stderr.replace("0 bytes spill stores, 0 bytes spill loads", "")


def test_every_kernel_compiles_as_cupy_compiles_it() -> None:
    """By NVRTC, with CuPy's own options, among them where cuda_fp16.h is; for this no device is needed."""
    cupy = pytest.importorskip("cupy")
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:
        pytest.skip(f"CuPy finds no NVRTC ({str(error).splitlines()[0]}); pip install 'cupy-cuda12x[ctk]'")
    text, count = whole_text()
    options = (*cupy._core.core.assemble_cupy_compiler_options(()), "-arch=sm_80", "-ftz=true")
    nvrtc = cupy.cuda.nvrtc
    program = nvrtc.createProgram(text, "kernels.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
    except Exception as error:
        raise AssertionError(nvrtc.getProgramLog(program)) from error
    assert nvrtc.getPTX(program).count(b".entry") == count


def test_cupy_has_what_is_asked_of_it() -> None:
    """Where CuPy is installed: every function by its name, with the parameters that the engine names."""
    cupy = pytest.importorskip("cupy")
    asked = dict.fromkeys(FUNCTIONS, "") | dict.fromkeys(("flip", "concat", "stack"), "axis")
    asked |= dict.fromkeys(("sum", "max", "min", "argmax"), "axis keepdims")
    for name, parameters in asked.items():
        function = getattr(cupy, name)
        assert isinstance(function, cupy.ufunc) or {*parameters.split()} <= {*inspect.signature(function).parameters}
    assert {"order", "copy"} & set(inspect.signature(cupy.asarray).parameters)
    for owner, names in {
        cupy: "argsort arange empty full zeros asarray asnumpy from_dlpack add dtype int64 uint64 ndarray RawKernel",
        cupy.add: "at",
        cupy.ndarray: f"{' '.join(METHODS)} flags device get data __dlpack__ __dlpack_device__",
        cupy.cuda: "Device alloc_pinned_memory get_elapsed_time Event Stream MemoryPool using_allocator",
        cupy.cuda.stream: "get_current_stream",
        cupy.cuda.Stream: "begin_capture end_capture record wait_event synchronize __enter__",
        cupy.cuda.Event: "record synchronize",
        cupy.cuda.Graph: "launch",
        cupy.cuda.MemoryPool: "malloc total_bytes",
        cupy.cuda.Device: "use synchronize __enter__ compute_capability",
        cupy.cuda.memory: "OutOfMemoryError",
        cupy.cuda.MemoryHook: "malloc_postprocess free_postprocess",
        cupy.get_default_memory_pool(): "used_bytes total_bytes set_limit free_all_blocks",
    }.items():
        assert [name for name in names.split() if not hasattr(owner, name)] == []
    cupy.cuda.set_pinned_memory_allocator(cupy.get_default_pinned_memory_pool().malloc)
    assert cupy._core.get_compute_type("float32") != cupy._core._routines_linalg.COMPUTE_TYPE_TF32
    assert cupy.cuda.runtime.CUDARuntimeError(719).status == 719
    assert issubclass(cupy.cuda.driver.CUDADriverError, RuntimeError)


def test_nvmath_has_what_is_asked_of_it() -> None:
    """Where nvmath-python is installed: the functions with as many arguments, and the numbers that stand for words."""
    cublas = pytest.importorskip("nvmath.bindings.cublas")
    counts = {"create": 0, "destroy": 1, "set_stream": 2, "set_workspace": 3, "gemm_ex": 19}
    for name, count in (counts | {"gemm_strided_batched_ex": 23}).items():
        parameters = getattr(cublas, name).__doc__.partition("(")[2].partition(")")[0]
        assert len([text for text in parameters.split(",") if text]) == count, name
    kinds = cublas.ComputeType
    assert (kinds.COMPUTE_32F, kinds.COMPUTE_64F, kinds.COMPUTE_32F_FAST_TF32) == (68, 70, 77)
    assert (cublas.Operation.N, cublas.Operation.T, min(cublas.GemmAlgo)) == (0, 1, -1)


# ---------------------------------------------------------------- and they run, thread by thread, on the host

on_the_host = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler; install g++")


@on_the_host
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", [*CASES, "mixed"])
def test_a_kernel_computes_what_numpy_does(case: str, dtype: str) -> None:
    R, C, rng = 5, 70, np.random.default_rng(0)  # more than one block
    shapes: dict[str, Any] = {
        "rows": lambda n: (R, n * C),
        "row": lambda n: (n * C,),
        "column": lambda n: (R,),
        "stack": lambda n: (n, R, C),
    }
    ours, numpy = HostCuPy(), backends.get("numpy")
    for (of, _), kernel in kernels(dtype).items():
        if of != case:
            continue
        inputs = [
            0.7
            if x.layout == "number"
            else np.abs(rng.standard_normal(shapes[x.layout](x.lanes))).astype(x.dtype.value)
            for x in kernel.inputs
        ]
        out = (None,) * len(kernel.outputs)
        on_device = [x if isinstance(x, float) else ours.asarray(x) for x in inputs]
        with np.errstate(all="ignore"):
            expected = numpy.compile(kernel)(R, C, inputs, out)
        for a, b in zip(ours.compile(kernel)(R, C, on_device, out), expected, strict=True):
            atol = 2e-2 if dtype == "float16" else 1e-5
            np.testing.assert_allclose(a.get().astype("float64"), b.astype("float64"), rtol=10 * atol, atol=atol)


@on_the_host
def test_a_result_is_written_where_it_is_wanted_and_nowhere_else() -> None:
    kernel = kernels("float32")["lstm_step", "lstm_step_backward"]
    ours, rng = HostCuPy(), np.random.default_rng(0)
    shapes = {"rows": lambda n: (2, n * 3), "stack": lambda n: (n, 2, 3)}
    inputs = [ours.asarray(rng.standard_normal(shapes[x.layout](x.lanes)).astype("float32")) for x in kernel.inputs]
    run = ours.compile(kernel)
    expected = run(2, 3, inputs, (None, None))
    room = ours.full((3, 2, 12), 7.0, tr.float32)
    written = run(2, 3, inputs, (room[1], None))
    assert np.shares_memory(written[0].host, room.host)
    np.testing.assert_array_equal(room.get()[1], expected[0].get())
    assert (room.get()[[0, 2]] == 7.0).all()
    turned = [ours.asarray(np.asfortranarray(x.get())) for x in inputs]
    assert not turned[0].flags.c_contiguous
    np.testing.assert_array_equal(run(2, 3, turned, (None, None))[0].get(), expected[0].get())
    for wrong in (ours.full((2, 11), 0.0, tr.float32), ours.full((2, 12), 0.0, tr.float64), room[:, :, 0]):
        with pytest.raises(ValueError, match="the memory for a result is not that of 24 float32"):
            run(2, 3, inputs, (wrong, None))


@on_the_host
@pytest.mark.parametrize("name", ["norm", "new", "σ", "exp"])
def test_a_function_may_be_called_as_something_in_c(name: str) -> None:
    def f(x: Any) -> Any:
        return tr.tanh(x) * 2

    f.__name__ = name
    with tr.use_backend(HostCuPy()):
        function = tr.fused(f)
        np.testing.assert_allclose(function(tr.ones(2, 3)).numpy(), 2 * np.tanh(np.ones((2, 3))), rtol=1e-6)
        assert 'extern "C" __global__ void fused_' in function.source


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30])
@pytest.mark.parametrize("dtype", FLOATS)
def test_numbers_that_are_none_come_through(cupy_device: Any, dtype: str, value: float) -> None:
    @tr.fused
    def f(x: Any) -> Any:
        return tr.where(x > 0, tr.maximum(x, 1.0), np.nan) + tr.where(tr.isfinite(x), 0.0, -np.inf)

    x = np.array([[value, 1.0, -1.0]]).astype(dtype) if dtype != "float16" else np.array([[value, 1, -1]], "float32")
    found = []
    for backend in ("numpy", cupy_device):
        with tr.use_backend(backend), tr.fusion(backend != "numpy"), np.errstate(all="ignore"):
            found.append(f(tr.tensor(x).astype(dtype)).numpy())
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("name", ["abs", "sign", "truth"])
@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8"])
def test_integers_and_truths(cupy_device: Any, dtype: str, name: str) -> None:
    functions = {
        "abs": lambda x: tr.abs(x) * 2,
        "sign": lambda x: tr.apply(tr.primitives.sign, x),
        "truth": lambda x: (x > 1) == True,  # noqa: E712
    }
    x, found = np.arange(6).reshape(2, 3) - (0 if dtype == "uint8" else 3), []
    for backend in ("numpy", cupy_device):
        with tr.use_backend(backend), tr.fusion(backend != "numpy"):
            found.append(tr.fused(functions[name])(tr.tensor(x.astype(dtype))).numpy())
    np.testing.assert_array_equal(*found)


def test_a_gru_step_of_half_and_single_operands_has_kernels() -> None:
    """What is kept of r alone, which is half, does not go on the stack, which is single."""
    operands = [tr.zeros(4, n).astype(dtype) for n, dtype in ((15, "float32"), (15, "float16"), (5, "float32"))]
    plan = Plan.of(gru_step.function, operands, backends.get("numpy"))
    assert plan is not None
    assert [kernel.name for kernel in plan.kernels] == ["gru_step", "gru_step_backward"]
    assert {s.dtype.value for s in plan.stack} == {"float32"}


# ---------------------------------------------------------------- random numbers


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_answers(counter: Any, key: Any, expected: str) -> None:
    """Those that Random123, by the authors of the paper, brings with it (kat_vectors)."""
    assert " ".join(f"{word:08x}" for word in philox.words(counter, key)) == expected
    arrays = tuple(np.full(3, word, "uint64") for word in counter)
    for word, number in zip(philox.words(arrays, key), expected.split(), strict=True):
        assert (word == int(number, 16)).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_philox_draws_what_it_should(dtype: str) -> None:
    u = philox.uniform(np, 1, 0, 40_000, DType(dtype)).astype("float64")
    assert 0 <= u.min() < 1e-3
    assert 1 - 1e-3 < u.max() < 1
    np.testing.assert_allclose([u.mean(), u.var(), np.corrcoef(u[1:], u[:-1])[0, 1]], [1 / 2, 1 / 12, 0], atol=0.01)
    first = philox.uniform(np, 1, 0, 12, DType(dtype))
    assert (first == philox.uniform(np, 1, 0, 40_000, DType(dtype))[:12]).all()
    later = philox.uniform(np, 1, philox.blocks(8, DType(dtype)), 4, DType(dtype))
    assert (later == first[8:]).all()  # a stream goes on at the next block
    assert (philox.uniform(np, 2, 0, 12, DType(dtype)) != first).any()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("seed", "first"), [(0, 0), (7, 5), (2**64 - 1, 2**32 - 2), (3 * 2**40 + 1, 2**63)])
def test_philox_is_the_same_on_the_device(cupy_device: Any, dtype: str, seed: int, first: int) -> None:
    key = cupy_device.asarray(np.array([seed & (1 << 64) - 1], "uint64"))
    for n in (0, 1, 4, 1_001):
        expected = philox.uniform(np, seed, first, n, DType(dtype))
        found = cupy_device.to_host(cupy_device.philox(key, first, (n,), DType(dtype)))
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)


# ---------------------------------------------------------------- scatter_add


@on_the_host
@pytest.mark.parametrize("deterministic", [True, False])
@settings(deadline=None, max_examples=150)
@given(_scatters())
def test_scatter_add_is_add_at(deterministic: bool, case: Any) -> None:
    ours, (buffer, index, values) = HostCuPy(), case
    ours.deterministic = deterministic
    expected = buffer.copy()
    np.add.at(expected, index, values)
    parts = index if isinstance(index, tuple) else (index,)
    there = tuple(ours.asarray(part) if isinstance(part, np.ndarray) else part for part in parts)
    array = ours.asarray(buffer.copy())
    ours.scatter_add(array, there if isinstance(index, tuple) else there[0], ours.asarray(values))
    np.testing.assert_array_equal(array.get(), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_deterministic_is_first_to_last(cupy_device: Any, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_device, "deterministic", True)
    rng = np.random.default_rng(0)
    rows, values = rng.integers(0, 5, 3_000), rng.standard_normal((3_000, 7)).astype(dtype)
    expected = np.zeros((5, 7), dtype)
    for row, value in zip(rows, values, strict=True):
        expected[row] += value
    for _ in range(3):
        buffer = cupy_device.full((5, 7), 0, DType(dtype))
        cupy_device.scatter_add(buffer, cupy_device.asarray(rows), cupy_device.asarray(values))
        np.testing.assert_array_equal(cupy_device.to_host(buffer), expected)
