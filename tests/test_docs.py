"""The course: every line of it runs, in a notebook as well as on its page, and what it names is there."""

import importlib.util
import inspect
import json
import os
import re
import sys
from pathlib import Path

import pytest

import tinyrnn as tr

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "docs/course").glob("*.md"))
PAGES = [ROOT / "docs/index.md", *CHAPTERS, *sorted((ROOT / "docs/api").glob("*.md"))]


def module_of(name):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / f"docs/{name}.py")
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build, notebooks = module_of("build"), module_of("notebooks")
chapter = pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)


def code_of(page):
    made = json.loads(notebooks.notebook(page.read_text(encoding="utf-8")))
    cells = [cell for cell in made["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    return [("".join(cell["source"]), "raises-exception" in cell["metadata"].get("tags", [])) for cell in cells]


@chapter
def test_notebook_runs_from_top_to_bottom(page):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    variables, messages = {"__name__": "chapter"}, []
    for code, fails in code_of(page):
        code = re.sub(r"\b[3-6]00\b", "3", code)  # steps of training: the page itself takes all of them
        if fails:
            with pytest.raises((tr.errors.TinyRNNError, ValueError)) as raised:
                exec(code, variables)
            messages.append(str(raised.value))
        else:
            exec(code, variables)
    pyplot.close("all")
    assert messages
    assert all(len(message) > 20 for message in messages)


@chapter
def test_chapter_has_what_a_chapter_has(page):
    text = page.read_text(encoding="utf-8")
    for part in ("\n## What to notice\n", "\n## What goes wrong\n", "\n## Try it\n", "$$", "{source}`"):
        assert part in text, f"{page.name} has no {part.strip()}"
    assert re.search(r"tr\.draw\(|viz\.plot_", text), f"{page.name} has no picture"
    assert text.count("```{code-cell}") == len(code_of(page)), "a cell that is not read as one"


def test_notebook_has_no_marks_of_the_site():
    page = "---\na: b\n---\n# 1. T\n\nSee {source}`tinyrnn/autograd.py:walk` and [two](02_state.md).\n\n"
    page += "```{code-cell} ipython3\n1 + 1\n```\n"
    first, text, code = json.loads(notebooks.notebook(page))["cells"]
    assert "pip install" in "".join(first["source"])
    assert "".join(text["source"]) == "# 1. T\n\nSee `tinyrnn/autograd.py:walk` and [two](02_state.ipynb)."
    assert code["source"] == ["1 + 1"]


def test_notebooks_are_valid():
    nbformat = pytest.importorskip("nbformat")
    for page in CHAPTERS:
        nbformat.validate(nbformat.reads(notebooks.notebook(page.read_text(encoding="utf-8")), as_version=4))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_source_that_a_page_links_to_exists(page):
    for file, thing in re.findall(r"\{source\}`([\w/.]+)(?::([\w.]+))?`", page.read_text(encoding="utf-8")):
        source = (ROOT / file).read_text(encoding="utf-8")
        assert not thing or re.search(rf"^(def|class) {thing}\b|^{thing}\b.* = ", source, re.MULTILINE), (file, thing)


def test_every_public_name_is_in_the_reference():
    listed = set(re.findall(r"\.\. auto(?:function|class):: (\w+)", (ROOT / "docs/api/tinyrnn.md").read_text("utf-8")))
    modules = [sys.modules[f"tinyrnn.{name}"] for name in ("nn", "nn.ctc", "optim", "data", "viz", "backends")]
    elsewhere = {name for module in modules for name in getattr(module, "__all__", ())}
    types = {name for name in tr.__all__ if isinstance(getattr(tr, name), tr.DType)}
    assert set(tr.__all__) - listed - elsewhere - types == {"errors", "nn", "optim"}  # which have a page or a section


@pytest.fixture(scope="module")
def conf():
    pytest.importorskip("furo", reason="needs the extra docs, which CI installs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.environ", dict(os.environ))
        patch.setattr("sys.path", [*sys.path])
        made = module_of("conf")
        yield made
        made._kernel.cleanup()


def test_a_section_has_an_entry_for_each_name(conf):
    told = [
        "Parameters:",
        "    W_x, W_h: (I, nH).",
        "    norm_x.weight: (nH,), one,",
        "        at first.",
        "    *args: all.",
    ]
    made = conf._section(told)
    assert [line.strip() for line in made if line] == [
        ":Parameters:",
        "* ``W_x, W_h``: (I, nH).",
        "* ``norm_x.weight``: (nH,), one, at first.",
        "* ``*args``: all.",
    ]


def test_signatures_are_readable(conf):
    def shown(thing, signature, returned=None):
        return conf._signature(None, "class", "", thing, None, signature, returned)

    graph = shown(tr.viz.Graph, "(nodes: list = <factory>, notes: dict[str, ~typing.Any] = <factory>)")
    assert graph == ("(nodes: list = [], notes: dict[str, ~typing.Any] = [])", None)
    arrays = (
        "~numpy.ndarray[tuple[~typing.Any, ...], ~numpy.dtype[~numpy.float64]]",
        "list[TypeAliasForwardRef('ndarray')]",
    )
    assert shown(tr.grad, *arrays) == ("ndarray", "list[ndarray]")
    assert shown(tr.DType, "(value)") == shown(tr.backends.Backend, "(*args, **kwargs)") == ("", None)


def test_the_members_of_an_enum_are_listed(conf):
    lines = ["An element type."]
    conf._members(None, "class", "DType", tr.DType, None, lines)
    assert ":Members:" in lines
    assert all(f"``{dtype}``" in lines[-2] for dtype in ("float16", "int64", "bool"))


def test_a_plot_is_told_in_words(conf, tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    ax = tr.viz.plot_loss([1, 2, 3], [3.0, 2.0, 1.0])
    ax.figure.savefig(tmp_path / "loss.svg")
    pyplot.close("all")
    assert conf._words_of(tmp_path / "loss.svg") == "plot: step of training; loss, nats; Loss; training"


def test_no_word_of_a_docstring_is_lost(conf):
    objects = {f"{module.__name__}.{name}": getattr(module, name) for module in (tr, tr.nn) for name in module.__all__}
    for name, thing in objects.items():
        given = inspect.getdoc(thing) or ""
        lines = given.splitlines()
        conf._docstring(None, "function", name, thing, None, lines)
        written = re.sub(r"\.\. code-block:: \w+|:class:.*|\\", "", "\n".join(lines))
        assert re.findall(r"\w+", written) == re.findall(r"\w+", given.replace("\\", "")), name


def test_a_link_to_nowhere_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#there">b</a><a href="https://x.org">x</a><p id="here">')
    (tmp_path / "b.html").write_text(
        '<p id="there"><a href="#gone">1</a><a href="c.html">2</a><a href="a.html#here">3</a>'
    )
    assert sorted(build.problems(tmp_path)) == [
        "b.html: #gone: that page has no such place",
        "b.html: c.html is not there",
    ]


@pytest.mark.parametrize(
    "element",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/y.css">',
        '<img src="http://example.org/z.png">',
    ],
)
def test_a_page_that_needs_the_network_is_found(tmp_path, element):
    (tmp_path / "a.html").write_text(element)
    (problem,) = build.problems(tmp_path)
    assert "everything that a page needs" in problem
