"""How Sphinx makes the site: `python docs/build.py`.

Nothing on a page comes from elsewhere: equations are MathML, which browsers draw themselves, with a font that is served
beside the pages; pictures are part of the page; the source has pages of its own.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import html
import inspect
import os
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from docutils import nodes
from fontTools import subset
from latex2mathml.converter import convert
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

import tinyrnn
from tinyrnn.viz.picture import DARK

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

from notebooks import notebook  # noqa: E402  # the file beside this one

project = "tinyrnn"
author = "The tinyrnn developers"
copyright = author
release = tinyrnn.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.linkcode", "sphinx_copybutton"]
exclude_patterns = ["decisions.md"]
html_theme = "furo"
html_title = "tinyrnn"
html_static_path = ["_static"]
html_css_files = ["site.css", "pictures.css"]
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"
smartquotes = False  # most quotes here are those of code
pygments_style, pygments_dark_style = "a11y-light", "github-dark"  # letters are readable on both, by WCAG

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True
copybutton_selector = "div:not(.output) > div.highlight > pre"
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = ">>> "

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_type_aliases = {"npt.ArrayLike": "ArrayLike", "Floats": "ndarray", "Ints": "ndarray"}
add_module_names = False
maximum_signature_line_length = 104  # counted with the modules of types, which are not shown
toc_object_entries_show_parents = "hide"

# ---------------------------------------------------------------- what cells run with

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
_kernel = tempfile.TemporaryDirectory()
os.environ["IPYTHONDIR"] = _kernel.name
_profile = Path(_kernel.name, "profile_default")
_profile.mkdir()
(_profile / "ipython_kernel_config.py").write_text(
    'c.InlineBackend.figure_formats = {"svg"}\n'
    'c.InteractiveShell.xmode = "Minimal"  # an error is its message\n'
    "c.IPKernelApp.log_level = 40\n"
    # MyST joins pieces of output as lines, so a line that was sent in two pieces would be broken
    'c.IPKernelApp.exec_lines = ["import sys; sys.stdout.flush_interval = 60"]\n'
)


# ---------------------------------------------------------------- equations


def _math(writer: Any, node: nodes.Element, display: str) -> None:
    """Write an equation as MathML."""
    made = convert(node.astext(), display=display)
    made = re.sub(r"(<mi>(?:log|max)</mi>)(?!<mo)", r'\1<mspace width="0.17em"/>', made)  # log V, not logV
    made = made.replace("<mo>&#x02016;</mo>", '<mo stretchy="false">&#x02016;</mo>')
    made = re.sub(r"<mo>(/|&#x0002F;|∂|&#x02202;)</mo>", r'<mo lspace="0" rspace="0">\1</mo>', made)
    made = made.replace("<mo>&#x0007C;</mo>", '<mo stretchy="false" lspace="0" rspace="0">&#x0007C;</mo>')  # |x|
    writer.body.append(f'<div class="equation">{made}</div>' if display == "block" else made)
    raise nodes.SkipNode


MATH_CHARACTERS = [*range(0x20, 0x250), *range(0x370, 0x400), *range(0x2000, 0x2300), *range(0x27C0, 0x2B00)]
MATH_CHARACTERS += [*range(0x1D434, 0x1D7CC)]  # letters of mathematics


def _write_font(folder: Path) -> None:
    """Write STIX Two Math, cut to what equations use; its licence (OFL 1.1) is told inside the file."""
    options = subset.Options(flavor="woff", name_IDs=["*"], layout_features=["*"])
    with files("ziamath").joinpath("fonts", "STIXTwoMath-Regular.ttf").open("rb") as file:
        font = subset.load_font(file, options)
        cut = subset.Subsetter(options)
        cut.populate(unicodes=MATH_CHARACTERS)
        cut.subset(font)
        subset.save_font(font, str(folder / "stix-two-math.woff"), options)


# ---------------------------------------------------------------- docstrings

_NAMES = "Args|Attributes|Class attributes|Fields|Parameters|Raises|Returns|Shapes|Source|Source and errors"
_SECTION = re.compile(rf"({_NAMES}):(?: (.*))?$")
_NAME = r"\*{0,2}\w+(?:\.\w+)*(?: [A-Z])?"  # x, **options, norm_x.weight, size H
_ENTRY = re.compile(rf"({_NAME}(?:, {_NAME})*): (.*)$")


def _prose(text: str) -> str:
    """Return text as reStructuredText: what stands between backticks is code, and nothing else has a meaning."""
    parts = re.split(r"(`+)(.+?)\1", text)
    plain, code = parts[0::3], [*(f"``{c}``" for c in parts[2::3]), ""]
    return "".join(re.sub(r"([\\*|_])", r"\\\1", p) + c for p, c in zip(plain, code, strict=True))


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Yield the parts of a docstring: a section with all that is indented below it, indented lines, a paragraph."""
    block: list[str] = []
    for line in lines:
        goes_on = not line or line.startswith(" ")
        deep = bool(block) and (block[0].startswith("    ") or _SECTION.match(block[0]) is not None)
        if block and (not goes_on if deep else not line or _SECTION.match(line)):
            yield block
            block = []
        if line or deep:
            block.append(line)
    if block:
        yield block


def _indented(text: list[str]) -> list[str]:
    return ["    " + line if line else "" for line in text]


def _section(block: list[str]) -> list[str]:
    """Return a section as a field: a paragraph, or a list where there is an entry for each name."""
    name, first = _SECTION.match(block[0]).groups()
    entries: list[tuple[str, list[str]]] = [("", [first])] if first else []
    for line in textwrap.dedent("\n".join(block[1:])).splitlines():
        if m := _ENTRY.match(line):
            entries.append((m[1], [m[2]]))
        elif not entries:
            entries.append(("", [line]))
        else:
            entries[-1][1].append(line.strip())
    made = [f":{name}:"]
    for entry, text in entries:
        told = _prose(" ".join(text).strip())
        made += ["", f"    * ``{entry}``: {told}" if entry else f"    {told}"]
    return [*made, ""]


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    code = re.sub(r'"[^"]*"|#.*', "", text)  # only in strings and comments does it have letters that an equation has
    return bool(re.search(r"\w\(| = |^with |^for ", code)) and code.isascii()


def _table(block: list[str]) -> list[str]:
    """Return the rows of a table, | like | this |, as a table."""
    rows = [line.strip().strip("|").split("|") for line in block if not re.fullmatch(r"[|\s:-]+", line)]
    made = [".. list-table::", "    :header-rows: 1", ""]
    for row in rows:
        made += [f"    {'*' if k == 0 else ' '} - {_prose(text.strip())}" for k, text in enumerate(row)]
    return [*made, ""]


def _docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring, which is written to be read in a terminal, into reStructuredText."""
    given = obj.__doc__.splitlines() if what == "module" else list(lines)  # a module's is not indented as a whole
    made: list[str] = []
    for block in _blocks(given):
        text = textwrap.dedent("\n".join(block))
        if _SECTION.match(block[0]):
            made += _section(block)
        elif text.startswith(">>>"):
            made += [*text.splitlines(), ""]
        elif block[0].startswith("    "):
            language = "python" if _is_python(text) else "text"
            made += [f".. code-block:: {language}", "    :class: equation" if language == "text" else "", ""]
            made += [*_indented(text.splitlines()), ""]
        elif all((line.startswith("| ") and line.endswith(" |")) or set(line) <= set("|-") for line in block):
            made += _table(block)
        elif block[0].startswith("- "):
            made += [("- " + _prose(line[2:]) if line.startswith("- ") else _prose(line)) for line in block] + [""]
        else:
            made += [_prose(" ".join(line.strip() for line in block)), ""]
    lines[:] = made


def _members(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """List the members of an enum."""
    if inspect.isclass(obj) and issubclass(obj, enum.Enum):
        lines += [":Members:", "", "    " + ", ".join(f"``{member}``" for member in obj.__members__), ""]


def _plain_types(text: str | None) -> str | None:
    """Return a signature with arrays as ndarray, whatever is in them: the docstring says that."""
    if text is None:
        return None
    text = re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text)
    inside = r"tuple\[~typing\.Any, \.\.\.\], ~?numpy\.dtype\[[^\]]*\]|~typing\.Any, ~typing\.Any"
    text = re.sub(rf"~?numpy\.ndarray\[(?:{inside})\]|npt\.NDArray\[[^\]]*\]", "ndarray", text)
    return text.replace("npt.ArrayLike", "ArrayLike")


def _signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Show what a field of a dataclass is at first, and no arguments where none are given by hand."""
    signature, returned = _plain_types(signature), _plain_types(returned)
    if not inspect.isclass(obj) or signature is None:
        return signature, returned
    if issubclass(obj, enum.Enum) or getattr(obj, "_is_protocol", False):
        return "", returned
    for field in dataclasses.fields(obj) if dataclasses.is_dataclass(obj) else ():
        if field.default_factory is not dataclasses.MISSING:
            signature = signature.replace("<factory>", repr(field.default_factory()), 1)
    return signature, returned


def _without_object(app: Sphinx, doctree: nodes.document) -> None:
    """Leave out of what a class is derived where that is nothing."""
    for line in list(doctree.findall(nodes.paragraph)):
        if line.astext() == "Bases: object":
            line.parent.remove(line)


# ---------------------------------------------------------------- pages of the source


def _sources() -> list[Path]:
    return sorted(p for folder in ("tinyrnn", "examples") for p in (ROOT / folder).rglob("*.py"))


def _source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a page for each file, whose lines can be linked to: source/tinyrnn/autograd.py.html#L12."""
    formatter = HtmlFormatter(nowrap=True)
    for path in _sources():
        name = path.relative_to(ROOT).as_posix()
        lines = highlight(path.read_text(encoding="utf-8"), PythonLexer(stripnl=False), formatter).splitlines()
        numbered = "\n".join(f'<span class="line" id="L{n}">{line}</span>' for n, line in enumerate(lines, 1))
        body = f'<h1>{name}</h1><div class="highlight source"><pre>{numbered}</pre></div>'
        yield f"source/{name}", {"title": name, "body": body}, "page.html"


@functools.cache
def _lines(path: Path) -> dict[str, int]:
    """Return the line of each function, class, method and variable of a file."""
    found: dict[str, int] = {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                found.setdefault(prefix + node.name, first)
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Name):
                        found.setdefault(prefix + target.id, node.lineno)

    visit(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found


class SourceRole(SphinxRole):
    """Link to the source: {source}`tinyrnn/autograd.py:walk`, or to a whole file: {source}`tinyrnn/primitives.py`."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return a link to the page of the file, at the line where the thing is defined."""
        name, _, thing = self.text.partition(":")
        path = ROOT / name
        if path not in _sources() or (thing and thing not in _lines(path)):
            message = self.inliner.reporter.error(f"source: there is no {self.text}", line=self.lineno)
            return [], [message]
        up = "../" * self.env.docname.count("/")
        line = f"#L{_lines(path)[thing]}" if thing else ""
        link = nodes.reference("", "", refuri=f"{up}source/{name}.html{line}", classes=["source-link"])
        link += [nodes.literal(text=thing), nodes.Text(" in ")] if thing else []
        link += nodes.literal(text=name)
        return [link], []


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Return where the source of something in the API reference is; its pages are all in one folder."""
    obj: Any = sys.modules.get(info["module"])
    for part in info["fullname"].split("."):
        obj = inspect.getattr_static(obj, part, None) if inspect.isclass(obj) else getattr(obj, part, None)
    obj = inspect.unwrap(getattr(obj, "fget", None) or getattr(obj, "__func__", None) or obj)
    try:
        path = Path(inspect.getsourcefile(obj) or "").resolve()
        line = inspect.getsourcelines(obj)[1]
    except (TypeError, OSError):
        return None
    return f"../source/{path.relative_to(ROOT).as_posix()}.html#L{line}" if path.is_relative_to(ROOT) else None


# ---------------------------------------------------------------- pictures and notebooks


def _pictures_css() -> str:
    """Return the dark colours of pictures for pages, whose theme may be another than the system's."""
    rules = DARK.partition("{")[2].rpartition("}")[0]
    return (
        f'body[data-theme="dark"] .picture {{ {rules} }}\n'
        f'@media (prefers-color-scheme: dark) {{ body:not([data-theme="light"]) .picture {{ {rules} }} }}\n'
    )


def _words_of(plot: Path) -> str:
    """Return what is written in a plot by Matplotlib, its numbers left out: what a screen reader says."""
    written = dict.fromkeys(re.findall(r"<!-- (.+?) -->", plot.read_text("utf-8")))
    return "plot: " + "; ".join(html.unescape(text) for text in written if not re.fullmatch(r"[−\d.]+|\$.*\$", text))


def _inline_pictures(app: Sphinx, doctree: nodes.document) -> None:
    """Put pictures of graphs into the page itself, where its theme reaches them, each in a box that scrolls."""
    for image in list(doctree.findall(nodes.image)):
        path = Path(app.srcdir, image["uri"])
        if path.suffix != ".svg" or not path.exists() or 'class="graph"' not in (svg := path.read_text("utf-8")):
            image["classes"] = [*image.get("classes", []), "plot"]
            image["alt"] = _words_of(path) if path.suffix == ".svg" and path.exists() else image.get("alt", "")
            image.replace_self(nodes.container("", image.deepcopy(), classes=["picture"]))
            continue
        svg = re.sub(r"<style>.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
        points = int(re.search(r'width="(\d+)pt"', svg)[1])
        size = f'style="width: {1.6 * points:.0f}px; min-width: {1.05 * points:.0f}px"'  # letters of 9 to 14 pixels
        svg = re.sub(r'width="\d+pt" height="\d+pt"', size, svg, count=1)
        svg = re.sub(r' id="[^"]*"', "", svg)
        image.replace_self(nodes.raw("", f'<div class="picture" tabindex="0">{svg}</div>', format="html"))


def _link_notebook(app: Sphinx, doctree: nodes.document) -> None:
    """Say on each chapter where its notebook is."""
    if app.env.docname.startswith("course/"):
        name = Path(app.env.docname).name
        link = f'<p class="notebook"><a href="../notebooks/{name}.ipynb" download>This chapter as a notebook</a></p>'
        doctree.next_node(nodes.title).parent.insert(1, nodes.raw("", link, format="html"))


def _write_files(app: Sphinx) -> None:
    """Write what pages refer to."""
    static, books = Path(app.outdir, "_static"), Path(app.outdir, "notebooks")
    for folder in (static, books):
        folder.mkdir(parents=True, exist_ok=True)
    for page in (HERE / "course").glob("*.md"):
        (books / f"{page.stem}.ipynb").write_text(notebook(page.read_text(encoding="utf-8")), encoding="utf-8")


def _write_static(app: Sphinx, error: Exception | None) -> None:
    if error is None:
        _write_font(Path(app.outdir, "_static"))
        Path(app.outdir, "_static", "pictures.css").write_text(_pictures_css(), encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Tell Sphinx of all this."""
    app.add_html_math_renderer(
        "mathml",
        (lambda writer, node: _math(writer, node, "inline"), None),
        (lambda writer, node: _math(writer, node, "block"), None),
    )
    app.add_role("source", SourceRole())
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-docstring", _members)
    app.connect("autodoc-process-signature", _signature)
    app.connect("doctree-read", _without_object)
    app.connect("html-collect-pages", _source_pages)
    app.connect("doctree-read", _inline_pictures)
    app.connect("doctree-read", _link_notebook)
    app.connect("builder-inited", _write_files)
    app.connect("build-finished", _write_static)
