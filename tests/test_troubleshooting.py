"""The pages to look things up in: each message is raised as the page says, each term is where it can be found."""

import builtins
import contextlib
import importlib.util
import inspect
import io
import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import tinyrnn as tr

DOCS = Path(__file__).parents[1] / "docs"
CHAPTERS = sorted((DOCS / "course").glob("*.md"))
PAGE, GLOSSARY = ((DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("troubleshooting", "glossary"))
SILENT = "No error, and still wrong"


def notebooks():
    spec = importlib.util.spec_from_file_location("docs_notebooks_for_pages", DOCS / "notebooks.py")
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CELLS = notebooks().cells


def prose(text):
    """Return a page without code, formulas and what stands between backticks."""
    text = re.sub(r"^```\{code-cell\}.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^```(?!\{glossary\}).*?^```$|\$\$.*?\$\$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"(?<!\})`[^`]*`|\$[^$]*\$", "", text)


def slug(heading):
    """Return the anchor of a heading, as the site makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(text):
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [slug(heading.replace("`", "")) for heading in re.findall(r"^##+ (.*)$", text, re.MULTILINE)]


def broken_links(text):
    """Return the links of a page of docs/ that lead to no file or no heading."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        file = DOCS / path if path else None
        there = text if file is None else file.read_text(encoding="utf-8") if file.is_file() else None
        if there is None or (anchor and anchor not in anchors(there)):
            broken.append(target)
    return broken


# ---------------------------------------------------------------- troubleshooting


class Entry(NamedTuple):
    """An entry of the page: its group and heading; the text; code, whether it raises, what was printed and raised."""

    group: str
    heading: str
    text: str
    cells: list


def entries():
    """Return the entries of the page, with the cells as (code, tags)."""
    found, group, heading = [Entry("", "", "", [])], "", ""
    for cell in CELLS(PAGE):
        if cell.kind == "code":
            found[-1].cells.append((cell.text, cell.tags))
            continue
        for part in re.split(r"^(?=##)", cell.text, flags=re.MULTILINE):
            if part.startswith("##"):
                marks, _, heading = part.partition("\n")[0].partition(" ")
                group = heading if marks == "##" else group
                found.append(Entry(group, heading if marks == "###" else "", part, []))
            else:
                found[-1] = found[-1]._replace(text=f"{found[-1].text}\n\n{part}")
    return found


ENTRIES = entries()
ERRORS = [e for e in ENTRIES if e.heading and e.group != SILENT]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Run the page from top to bottom, and return for each heading what was raised and what was printed."""
    pytest.importorskip("matplotlib.pyplot").switch_backend("Agg")
    variables, found = {"__name__": "page"}, {}
    with pytest.MonkeyPatch.context() as patch, np.errstate(), tr.use_backend("numpy"):
        patch.chdir(tmp_path_factory.mktemp("page"))
        patch.setenv("TINYRNN_DATA", "")
        patch.setenv("TQDM_DISABLE", "1")
        patch.setattr("tempfile.mkdtemp", lambda: ".")
        for entry in ENTRIES:
            for code, tags in entry.cells:
                printed, raised = io.StringIO(), None
                with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                    if "raises-exception" in tags:
                        with pytest.raises(Exception) as raised:  # noqa: PT011  # which one, the tests see to
                            exec(code, variables)
                    else:
                        exec(code, variables)
                found.setdefault(entry.heading, []).append((raised and raised.value, printed.getvalue()))
    sys.modules["matplotlib.pyplot"].close("all")
    return found


def messages(told, entry):
    """Return the messages of an entry with their classes: those that were raised, and those that were quoted."""
    for error, printed in told.get(entry.heading, []):
        if error is not None:
            yield type(error).__name__, str(error)
        yield from re.findall(r"^(\w+): (.*)$", printed, re.MULTILINE)


def test_each_heading_has_the_words_of_its_message(told):
    for entry in ERRORS:
        words = [re.escape(part.strip()) for part in re.split(r"(?<!\() ?… ?", entry.heading)]
        texts = [text for _, text in messages(told, entry)] + ([] if entry.cells else [entry.text.partition("\n")[2]])
        texts = [" ".join(text.split()) for text in texts]
        assert any(re.search(".*".join(words), text) for text in texts), (entry.heading, texts)


def test_each_message_says_more_than_that_something_is_wrong(told):
    for entry in ERRORS:
        for name, text in messages(told, entry):
            if name in vars(tr.errors):
                assert re.search("expected|;|, |: ", text), text
                assert len(text) > 30, text


def test_each_entry_says_what_to_do():
    for entry in ENTRIES:
        if entry.heading:
            assert len(re.findall(r"^\*What to do:\* \S", entry.text, re.MULTILINE)) == 1, entry.heading


def test_each_silent_mistake_has_a_check(told):
    silent = [entry for entry in ENTRIES if entry.group == SILENT and entry.heading]
    assert len(silent) >= 15
    for entry in silent:
        assert "".join(printed for _, printed in told[entry.heading]).strip(), entry.heading
        assert not any("raises-exception" in tags for _, tags in entry.cells), entry.heading


def test_every_class_of_error_is_on_the_page_and_in_its_index(told):
    ours = {
        name
        for name, thing in vars(tr.errors).items()
        if inspect.isclass(thing) and issubclass(thing, tr.errors.TinyRNNError)
    }
    expected = {}
    for entry in ERRORS:
        for name, _ in messages(told, entry):
            known = name if name in ours or hasattr(builtins, name) else "RenderError"  # a class of a module of its own
            expected.setdefault(known, set()).add(slug(entry.heading))
    listed = {}
    for name, links in re.findall(r"^- `(\w+)`[^:]*:((?:.|\n  )*)", PAGE, re.MULTILINE):
        listed[name] = re.findall(r"\]\(#([^)]+)\)", links)
    assert ours - {"TinyRNNError"} == expected.keys() & ours
    assert list(listed) == sorted(expected)
    for name, links in listed.items():
        assert set(links) == expected[name], name
        assert len(links) == len(set(links)), name


def test_headings_differ():
    made = anchors(PAGE)
    assert len(made) == len(set(made))


@pytest.mark.parametrize("text", [PAGE, GLOSSARY], ids=["troubleshooting", "glossary"])
def test_links_lead_somewhere(text):
    assert broken_links(text) == []


def test_a_broken_link_is_found():
    text = "## A b\n[1](#a-b) [2](#c) [3](course/01_tensor.md#arrays) [4](course/01_tensor.md#there) [5](none.md)"
    assert broken_links(text) == ["#c", "course/01_tensor.md#there", "none.md"]


# ---------------------------------------------------------------- glossary

EMPHASIS = {"every layer has the same weights", "reverse order", "start here", "sum"}  # bold, and no term
FORMS = {  # as chapters write a term where it first comes
    "biase": "bias",
    "explode": "exploding gradient",
    "greedily": "greedy",
    "held out": "held-out data",
    "hidden": "hidden state",
    "largest singular value": "singular value",
    "orthogonal weight": "orthogonal",
    "transposed": "transpose",
    "vanishe": "vanishing gradient",
}


def terms():
    """Return the terms of the glossary with their definitions, in its order."""
    blocks = re.findall(r"^```\{glossary\}\n(.*?)^```$", GLOSSARY, re.DOTALL | re.MULTILINE)
    return re.findall(r"^(\S.*)\n((?:  .*\n)+)", "\n".join(blocks), re.MULTILINE)


TERMS = terms()
NAMES = [term for term, _ in TERMS]


def letters(term):
    return re.sub(r"[^a-z]", "", term.lower())


def test_glossary_is_sorted_and_has_no_double_entries():
    assert [letters(term) for term in NAMES] == sorted({letters(term) for term in NAMES})


def test_glossary_is_cut_by_first_letters():
    for first, block in re.findall(r"^## (\w)\n\n```\{glossary\}\n(.*?)^```$", GLOSSARY, re.DOTALL | re.MULTILINE):
        assert {letters(term)[0].upper() for term in re.findall(r"^(\S.*)$", block, re.MULTILINE)} == {first}
    assert GLOSSARY.count("{glossary}") == len(re.findall(r"^## \w$", GLOSSARY, re.MULTILINE))


def test_each_term_is_told_in_a_few_words_and_leads_to_where_it_is_shown():
    for term, definition in TERMS:
        assert re.search(r"\]\(|\{py:|^\s+See \{term\}", definition), f"{term} leads nowhere"
        assert len(definition) < 600, f"{term} is told in too many words"
        assert len(re.findall(r"[.)]\s", definition)) <= 5, f"{term} is told in too many sentences"


def test_terms_and_names_that_pages_refer_to_are_there():
    known = {term.lower() for term in NAMES}
    for page in (PAGE, GLOSSARY):
        for shown, named in re.findall(r"\{term\}`([^`<]+?)(?:\s<([^>]+)>)?`", page):
            assert re.sub(r"\s+", " ", named or shown).lower() in known, shown
        for name in re.findall(r"\{py:\w+\}`[^`]*<([\w.]+)>`", page):
            module, _, thing = name.rpartition(".")
            importlib.import_module(module)
            assert hasattr(sys.modules[module], thing), name
            page_of = (DOCS / "api" / f"{(module + '.tinyrnn').split('.')[1]}.md").read_text(encoding="utf-8")
            assert f"automodule:: {module}" in page_of or re.search(rf"auto\w+:: {thing}\b", page_of), name


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_terms_of_chapters_are_in_the_glossary(page):
    known = {term.lower() for term in NAMES}
    for bold in re.findall(r"\*\*([^*]+)\*\*", prose(page.read_text(encoding="utf-8"))):
        term = re.sub(r"\s+", " ", bold.lower())
        if term in EMPHASIS or term[-1] in ".?:":  # emphasis, or a heading at the beginning of a paragraph
            continue
        single = term.removesuffix("s")
        assert {term, single, FORMS.get(single), FORMS.get(term)} & known, (
            f"{bold} is not in docs/glossary.md; add it there, or write it in *italics* if it is no term"
        )
