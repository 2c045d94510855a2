"""The house: each file imports from floors below its own or from an earlier file of its floor, and nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tinyrnn"
ENGINE = [  # floors 0 to 4
    [
        "errors",
        "backends.base",
        "backends.kernel",
        "backends.kernel_numpy",
        "backends.kernel_numba",
        "backends.kernel_cuda",
        "backends.philox",
        "backends.numpy_backend",
        "backends.cublas",
        "backends.cupy_graph",
        "backends.cupy_backend",
        "backends",
    ],
    ["primitives", "autograd"],
    ["tensor"],
    ["symbols", "traced", "lowering", "fuse", "functions", "gradcheck", "anomaly", "profile"],
    [
        "nn.init",
        "nn.module",
        "nn.layers",
        "nn.conv",
        "nn.cells",
        "nn.recurrent",
        "nn.attention",
        "nn.transformer",
        "nn.ctc",
        "nn",
        "optim.schedules",
        "optim.optimizers",
        "optim.scaling",
        "optim",
    ],
]
FLOORS = [
    *ENGINE,
    [
        "terminal",
        "data.fetching",
        "data.splits",
        "data.images",
        "data.music",
        "data.people",
        "data.sentences",
        "data.words",
        "data.sound",
        "data.recipes",
        "data.measurements",
        "data.datasets",
        "data.text",
        "data.streams",
        "data.padding",
        "data.vocabulary",
        "data",
        "data.__main__",
        "checkpoint",
        "tape",
        "capture",
        "generate",
        "fit",
        "config",
        "interop.gates",
        "interop.pytorch",
        "interop.onnx_layers",
        "interop.onnx_trace",
        "interop.onnx_recurrent",
        "interop.onnx_write",
        "interop.onnx_export",
        "interop",
        "viz.graph",
        "viz.roll",
        "viz.detail",
        "viz.words",
        "viz.route",
        "viz.layout",
        "viz.dot",
        "viz.html",
        "viz.picture",
        "viz.draw",
        "viz.explain",
        "viz.flow",
        "viz.plots",
        "viz.beam",
        "viz",
    ],
]
COURSE = [  # above `import tinyrnn` itself, which these files begin with as any program does
    "learn.checking",
    "learn.exercises.chapter_01_gradient",
    "learn.exercises.chapter_02_parity",
    "learn.exercises.chapter_03_cell",
    "learn.exercises.chapter_04_bptt",
    "learn.exercises.chapter_05_sampler",
    "learn.exercises.chapter_06_clipping",
    "learn.exercises.chapter_07_lstm",
    "learn.exercises.chapter_08_last_step",
    "learn.exercises.chapter_09_masks",
    "learn.exercises.chapter_10_attention",
    "learn.exercises.chapter_11_convolution",
    "learn.exercises.chapter_12_own_op",
    "learn.exercises.chapter_13_fused",
    "learn.exercises.chapter_14_gates",
    "learn.exercises",
    "learn.exercise",
    "learn.grading",
    "learn",
    "learn.__main__",
]
ORDER = [*("tinyrnn." + name for floor in FLOORS for name in floor), "tinyrnn", *("tinyrnn." + name for name in COURSE)]
MAY_IMPORT = {
    "tinyrnn.backends.numpy_backend": {"numpy"},
    "tinyrnn.backends.kernel_numpy": {"numpy"},
    "tinyrnn.backends.kernel_numba": {"platformdirs"},
    "tinyrnn.backends.cupy_backend": {"cupy"},
    "tinyrnn.backends.cublas": {"nvmath"},
}


def _file(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield everything that runs: what stands under `if TYPE_CHECKING` does not."""
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from _statements(child)


def _imports(module: str) -> set[str]:
    """Return the modules that a file imports, wherever in it the statement stands."""
    found = set()
    for statement in _statements(ast.parse(_file(module).read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, f"{module}: write imports in full"
            base = statement.module or ""
            names = (f"{base}.{alias.name}" for alias in statement.names)
            found |= {name if name in ORDER else base for name in names}
    return found


def test_every_file_has_a_floor() -> None:
    files = {path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py")}
    assert {_file(module).relative_to(PACKAGE.parent) for module in ORDER} == files


@pytest.mark.parametrize("module", ORDER)
def test_a_file_imports_from_below(module: str) -> None:
    ours = {name for name in _imports(module) if name.partition(".")[0] == "tinyrnn"}
    assert ours <= set(ORDER[: ORDER.index(module)])


def test_the_calculus_imports_nothing_of_ours() -> None:
    assert not {name for name in _imports("tinyrnn.primitives") if name.startswith("tinyrnn")}


@pytest.mark.parametrize("module", ["tinyrnn." + name for floor in ENGINE for name in floor])
def test_the_engine_imports_the_standard_library_alone_and_each_backend_its_own(module: str) -> None:
    packages = {name.partition(".")[0] for name in _imports(module)} - {"tinyrnn"}
    assert packages - sys.stdlib_module_names == MAY_IMPORT.get(module, set())


def test_importing_tinyrnn_imports_nothing_heavy() -> None:
    heavy = "cupy graphviz matplotlib numba onnx onnxruntime platformdirs safetensors threadpoolctl torch tqdm"
    code = f"import sys, tinyrnn; print(*set({heavy.split()}) & set(sys.modules), 'numpy' in sys.modules)"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True"]
