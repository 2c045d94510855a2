"""The cheat sheet: every line of it runs, in both libraries, and what both compute is the same."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import tinyrnn as tr
from tests.test_docs import CHAPTERS, code_of
from tinyrnn import checkpoint, data, generate, interop, nn, optim, viz

PAGE = Path(__file__).parents[1] / "docs/cheat_sheet.md"
TEXT = PAGE.read_text(encoding="utf-8")
MODULES = {
    "tr": tr,
    "nn": nn,
    "optim": optim,
    "data": data,
    "viz": viz,
    "interop": interop,
    "generate": generate,
    "checkpoint": checkpoint,
}
CELLS = {nn.RNN: nn.RNNCell, nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell, nn.Recurrent: nn.Cell}
ELSEWHERE = ("cuda", "cupy", "torch.compile", "torch.onnx")  # lines that are not run here


class Row(NamedTuple):
    """Lines of code in a row of a table, by the head of their column: PyTorch's and ours."""

    section: str
    theirs: list[str]
    ours: list[str]


def rows():
    section, head, found = "", [], []
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if line.startswith("## "):
            section = line[3:]
        elif not cells:
            head = []
        elif not head:
            head = cells
        elif head[0] in ("PyTorch", "tinyrnn") and not set(line) <= set("|-"):
            row = {name: re.findall(r"`([^`]+)`", cell) for name, cell in zip(head, cells, strict=True)}
            found.append(Row(section, row.get("PyTorch", []), row["tinyrnn"]))
    return found


ROWS = rows()
lines = pytest.mark.parametrize("row", ROWS, ids=lambda row: "; ".join(row.theirs or row.ours))


def test_the_tables_are_found():
    assert len(ROWS) > 130
    assert sum(len(row.ours) for row in ROWS) > 160


# ---------------------------------------------------------------- names and keyword arguments


def resolved(node, roots):
    """Return what a name such as nn.init.orthogonal stands for; None if it is a variable or a method of one."""
    if isinstance(node, ast.Name):
        return roots.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = resolved(node.value, roots)
        return None if owner is None else getattr(owner, node.attr)
    return None


def takes(function, keyword):
    """Tell whether a function has a keyword argument, also among the options that a layer hands on to its cells."""
    functions = [function]
    if inspect.isclass(function):
        kinds = [*function.__mro__, *CELLS.get(function, object).__mro__]
        functions = [kind.__init__ for kind in kinds if kind is not object]
    return any(keyword in inspect.signature(f).parameters for f in functions)


def see_names(code, roots):
    for node in ast.walk(ast.parse(code)):
        resolved(node, roots)
        if isinstance(node, ast.Call) and (function := resolved(node.func, roots)) is not None:
            for keyword in node.keywords:
                assert takes(function, keyword.arg), f"{code}: no {keyword.arg}"


@lines
def test_names_and_arguments_of_ours_exist(row):
    for code in row.ours:
        see_names(code, MODULES)


def test_names_in_the_text_exist():
    text = re.sub(r"^(```.*?^```|\|[^\n]*)$", "", TEXT, flags=re.DOTALL | re.MULTILINE)
    spans = [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", text)]
    ours_alone = [
        span for span in spans if span.partition(".")[0] in MODULES and not span.startswith(("nn.", "optim."))
    ]
    assert len(ours_alone) >= 6
    for code in ours_alone:
        see_names(code, MODULES)


@pytest.mark.parametrize("code", ["tr.zeroes(3)", "nn.init.glorot(3, 4)", "nn.LSTM(3, 4, gates=2)", "tr.sum(x, dim=0)"])
def test_a_name_that_does_not_exist_is_noticed(code):
    with pytest.raises((AttributeError, AssertionError)):
        see_names(code, MODULES)


# ---------------------------------------------------------------- every line runs


class OwnCell(nn.Cell):
    gates = ("h",)

    def step(self, z, state):
        return nn.RNNState(tr.tanh(z + state.h @ self.W_h))


class Reader(nn.Module):
    def __init__(self):
        self.embedding, self.gru, self.output = nn.Embedding(7, 3), nn.GRU(3, 4), nn.Linear(4, 7)

    def forward(self, x, state=None):
        out, state = self.gru(self.embedding(x), state)
        return self.output(out), state


def shared(folder):
    """The arrays and other values that the lines of both sides compute with."""
    random = np.random.default_rng(0)
    floats = lambda *shape: random.standard_normal(shape).astype("float32")
    logits = floats(5, 2, 7)
    arrays = {
        "a": np.ones(3),
        "x": floats(5, 2, 3),
        "y": floats(5, 2, 3),
        "t": random.uniform(0, 1, (5, 2, 3)).astype("float32"),
        "W": floats(3, 4),
        "b": floats(4),
        "v": floats(3),
        "i": random.integers(0, 5, (5, 2)),
        "logits": logits,
        "log_p": logits - np.log(np.exp(logits).sum(-1, keepdims=True)),
        "labels": np.array([[3, 1], [2, 4]]),
        "mask": np.arange(5)[:, None] < [5, 3],
    }
    return arrays, {"path": folder / "weights", "dataset": list(range(40))}


def ours(folder):
    tr.manual_seed(0)
    arrays, values = shared(folder)
    tensors = {name: tr.tensor(x) for name, x in arrays.items()}
    x, w = tensors["x"], tr.ones(3, requires_grad=True)
    model = nn.Linear(3, 4)
    optimizer = optim.Adam([w, *model.parameters()])
    state = nn.LSTMState(tr.zeros(1, 2, 4), tr.zeros(1, 2, 4))
    names = {
        "a": arrays["a"],
        "w": w,
        "z": tr.tensor([1.0, 2.0], dtype="float64", requires_grad=True),
        "loss": tr.sum((x * w) ** 2),
        "f": lambda z: tr.sum(z**3),
        "model": model,
        "optimizer": optimizer,
        "lstm": nn.LSTM(3, 4),
        "gru": nn.GRU(3, 4),
        "reader": Reader(),
        "OwnCell": OwnCell,
        "scaler": optim.LossScaler(optimizer),
        "state": state,
        "h": state.h,
        "c": state.c,
        "sequences": [np.ones(3), np.ones(2)],
        "loss_of": lambda out, y: tr.sum(out**2, axis=-1),
        "forward": lambda xp, x: x * x * x,
        "rule": lambda ops, gy, y, x: 3 * x * x * gy,
    }
    tr.sum(model(x) ** 2).backward()
    return MODULES | tensors | values | names


def theirs(folder):
    torch = pytest.importorskip("torch", reason="pip install -e '.[test,oracle]'")
    torch.manual_seed(0)
    arrays, values = shared(folder)
    tensors = {name: torch.tensor(x) for name, x in arrays.items()}
    x, w = tensors["x"], torch.ones(3, requires_grad=True)
    model = torch.nn.Linear(3, 4)
    names = {
        "torch": torch,
        "F": torch.nn.functional,
        "nn": torch.nn,
        "optim": torch.optim,
        "a": arrays["a"],
        "w": w,
        "z": torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True),
        "loss": ((x * w) ** 2).sum(),
        "f": lambda z: (z**3).sum(),
        "model": model,
        "optimizer": torch.optim.Adam([w, *model.parameters()]),
        "lstm": torch.nn.LSTM(3, 4),
        "gru": torch.nn.GRU(3, 4),
        "scaler": torch.amp.GradScaler("cpu"),
        "h": torch.zeros(1, 2, 4),
        "c": torch.zeros(1, 2, 4),
        "sequences": [torch.ones(3), torch.ones(2)],
    }
    (model(x) ** 2).sum().backward()
    return tensors | values | names


def result_of(codes, names):
    """Run lines one after the other, and return what the last one is, if it is an expression."""
    result = None
    with contextlib.redirect_stdout(io.StringIO()):
        for code in codes:
            result = None
            if not any(word in code for word in ELSEWHERE):
                try:
                    result = eval(code, names)
                except SyntaxError:
                    exec(code, names)
    return result


@lines
def test_lines_of_ours_run(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "export_onnx" in str(row.ours):
        pytest.importorskip("onnx", reason="pip install -e '.[onnx]'")
    if "checkpoint.load" in str(row.ours):
        checkpoint.save(tmp_path / "weights", nn.Linear(3, 4).state_dict())
    threads = tr.get_num_threads()
    result_of(row.ours, ours(tmp_path))
    tr.set_num_threads(threads)


def arrays_in(value):
    """The arrays in what a line gave, in (nested) tuples and lists; None if it gave something else."""
    if isinstance(value, tuple | list):
        parts = [arrays_in(part) for part in value]
        return None if None in parts else [array for part in parts for array in part]
    if hasattr(value, "detach"):
        return [value.detach().numpy()]
    return [np.asarray(value)] if isinstance(value, np.ndarray | float | int) else None


@pytest.mark.oracle
@pytest.mark.parametrize("row", [row for row in ROWS if row.theirs], ids=lambda row: "; ".join(row.theirs))
def test_both_sides_give_the_same(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = theirs(tmp_path)
    for code in row.theirs:
        for node in ast.walk(ast.parse(code)):
            resolved(node, {name: names[name] for name in ("torch", "F", "nn", "optim")})
    if "load(path)" in str(row):
        names["torch"].save(names["model"].state_dict(), names["path"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = arrays_in(result_of(row.theirs, names))
    if row.section not in ("Tensors", "Shapes and reductions", "Functions and losses", "Gradients"):
        return  # weights are random
    given = arrays_in(result_of(row.ours, ours(tmp_path)))
    if expected is None or given is None:
        return
    assert len(given) == len(expected)
    for a, b in zip(given, expected, strict=True):
        assert a.shape == b.shape
        if not re.search("rand|dropout", str(row)):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- the rest of the page, and chapter 14


def test_cells_run_from_top_to_bottom():
    names = {"__name__": "page"}
    for code, fails in code_of(PAGE):
        if fails:
            with pytest.raises(tr.errors.TinyRNNError):
                exec(code, names)
        else:
            exec(code, names)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["cheat_sheet", "14_pytorch"])
def test_boxes_that_need_pytorch_print_what_the_page_says(name):
    for package in ("torch", "onnx", "onnxruntime"):
        pytest.importorskip(package, reason="pip install -e '.[test,oracle]'")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    (page,) = (page for page in [PAGE, *CHAPTERS] if page.stem == name)
    boxes = re.findall(
        r"^```(\{code-cell\} ipython3|python|text)\n(.*?)^```\n",
        page.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    names, torch_names, printed = {"__name__": "page"}, {"__name__": "page"}, io.StringIO()
    for kind, code in boxes:
        if kind == "text":
            assert printed.getvalue() == code
            continue
        apart = kind == "python" and name == "cheat_sheet"  # there the sides share names, in chapter 14 the story
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if ":tags: [raises-exception]" not in code:
                exec(code, torch_names if apart else names)
    pyplot.close("all")
    assert sum(kind == "text" for kind, _ in boxes) >= 1


def test_packages_are_not_needed_for_the_cells():
    for page in (PAGE, *(page for page in CHAPTERS if page.stem == "14_pytorch")):
        for code, _ in code_of(page):
            assert not re.search(r"^(import|from) (torch|onnx|onnxruntime)\b", code, re.MULTILINE)
