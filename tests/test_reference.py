"""The reference: everything public is told: what it takes and raises, its equation, and an example that runs."""

import ast
import enum
import inspect
import itertools
import re
import sys
import textwrap
import typing
from importlib import import_module
from pathlib import Path

import pytest

import tinyrnn as tr

MODULES = ["tinyrnn"] + [
    f"tinyrnn.{name}"
    for name in (
        *("nn", "nn.ctc", "optim", "data", "viz", "backends"),
        *("interop", "generate", "fit", "checkpoint", "errors"),
    )
]


def public():
    """Yield name and thing: what `__all__` lists, or where there is none what the module defines; each thing once."""
    seen = set()
    for module in map(import_module, MODULES):
        here = [name for name, thing in vars(module).items() if getattr(thing, "__module__", "") == module.__name__]
        for name in getattr(module, "__all__", None) or [name for name in here if not name.startswith("_")]:
            thing = inspect.unwrap(getattr(module, name))
            if not inspect.ismodule(thing) and id(thing) not in seen:
                seen.add(id(thing))
                yield f"{module.__name__}.{name}", thing


EVERYTHING = dict(public())
CODE = {
    name: thing
    for name, thing in EVERYTHING.items()
    if (inspect.isfunction(thing) or inspect.isclass(thing)) and thing is not typing.Any
}
CONSTANTS = sorted(EVERYTHING.keys() - CODE.keys())
code = pytest.mark.parametrize("name", CODE)


def docstring(thing):
    return inspect.getdoc(thing) or ""


def tree_of(thing):
    return ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]


def described_below(body):
    """Return the names in a body that a string below tells of."""
    found = set()
    for node, after in itertools.pairwise(body):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@code
def test_has_an_example(name):
    assert ">>> " in docstring(CODE[name]), f"the docstring of {name} has no example"


@code
def test_every_parameter_is_told(name):
    thing = CODE[name]
    if (inspect.isclass(thing) and issubclass(thing, enum.Enum | BaseException)) or typing.is_typeddict(thing):
        return
    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    told = described_below(tree_of(thing).body) if inspect.isclass(thing) else set()
    prose = "\n".join(line for line in docstring(thing).splitlines() if not line.strip().startswith((">>>", "...")))
    words = set(re.findall(r"\w+", prose)) | told
    untold = [p.name for p in inspect.signature(thing).parameters.values() if p.kind not in kinds]
    assert [p for p in untold if p not in words and p not in ("self", "cls")] == []


def raised(node):
    """Return the names of the errors that a function raises itself."""
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Raise) and isinstance(part.exc, ast.Call):
            called = part.exc.func
            found.add(called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", ""))
    return {one for one in found if one and one[0].isupper() and one != "NotImplementedError"}


@code
def test_every_error_is_told(name):
    thing = CODE[name]
    if inspect.isfunction(thing):
        told, functions = docstring(thing), [tree_of(thing)]
    else:
        told, functions = docstring(thing), [f for f in tree_of(thing).body if isinstance(f, ast.FunctionDef)]
    for function in functions:
        if function.name.startswith("_") and not function.name.endswith("__"):
            continue
        untold = raised(function) - set(re.findall(r"\w+", told + (ast.get_docstring(function) or "")))
        assert untold == set(), f"{name} ({function.name})"


@pytest.mark.parametrize("name", CONSTANTS)
def test_constant_is_told(name):
    module, _, short = name.rpartition(".")
    if isinstance(EVERYTHING[name], tr.DType):
        return  # members of an enum that is told as a whole
    files = [sys.modules[module], *(m for n, m in sys.modules.items() if n.startswith(f"{module}."))]
    told = set().union(*(described_below(ast.parse(inspect.getsource(file)).body) for file in files))
    assert short in told, f"nothing says what {name} is: a string below its line does"


def section(title):
    """Return the functions that docs/api/tinyrnn.md lists under a title."""
    page = (PAGES / "tinyrnn.md").read_text(encoding="utf-8")
    return re.findall(r"autofunction:: (\w+)", page.split(f"\n## {title}\n")[1].split("\n## ")[0])


PAGES = Path(__file__).parents[1] / "docs/api"
LAYERS = [
    name for name, thing in CODE.items() if inspect.isclass(thing) and issubclass(thing, tr.nn.Module | tr.nn.Cell)
]
WITHOUT_EQUATION = {f"tinyrnn.nn.{name}" for name in ("Module", "ModuleList", "Sequential", "Cell", "Recurrent")} | {
    "tinyrnn.interop.OnnxLayer"
}
OPTIMIZERS = [f"tinyrnn.optim.{name}" for name in ("SGD", "Adagrad", "RMSProp", "Adam", "AdamW", "clip_grad_norm")]
SCHEDULES = [f"tinyrnn.optim.{name}" for name in ("Constant", "Cosine", "StepDecay", "WarmUp")]
FUNCTIONS = [
    f"tinyrnn.{name}"
    for title in ("Functions of each element", "Sums, products and the like", "Losses")
    for name in section(title)
]


@pytest.mark.parametrize("name", [*FUNCTIONS, *OPTIMIZERS, *SCHEDULES, *sorted(set(LAYERS) - WITHOUT_EQUATION)])
def test_mathematics_has_its_equation(name):
    text = docstring(CODE.get(name) or EVERYTHING[name]).partition(">>>")[0]
    assert re.search(r" = |[√Σ∂σ⊙·≤≥]|eˣ|\|x\|", text), f"the docstring of {name} has no equation"


@pytest.mark.parametrize("name", [*section("Sums, products and the like"), *section("Shapes"), *section("Losses")])
def test_function_has_its_shapes(name):
    thing = getattr(tr, name)
    assert re.search(r"shape|axis|axes|\([A-Z…][\w, …]*\)", docstring(thing)), f"tr.{name} says nothing of shapes"


@pytest.mark.parametrize("name", sorted(set(LAYERS) - WITHOUT_EQUATION))
def test_layer_has_its_shapes(name):
    assert re.search(r"\((?:[A-Z…]\w*, )*[A-Z…]\w*,?\)", docstring(CODE[name])), f"{name} says nothing of shapes"


@pytest.mark.parametrize("name", [*OPTIMIZERS[1:], *sorted(set(LAYERS) - WITHOUT_EQUATION)])
def test_what_was_published_has_its_source(name):
    if name.rpartition(".")[2] not in {"Linear", "Embedding"}:  # older than any paper of theirs
        assert re.search(r"Sources?\b", docstring(CODE[name])), f"{name} does not say where it is from"
