"""Chapters as Jupyter notebooks: from a page of Markdown with code cells to cells, and to an .ipynb file."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

_CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(?::tags: \[(.*?)\]\n)?\n?(.*?)^```\n", re.DOTALL | re.MULTILINE)
_HEADER = re.compile(r"\A---\n.*?^---\n", re.DOTALL | re.MULTILINE)
_ROLE = re.compile(r"\{[\w:]+\}`(?:([^`<]+?) <[^`]*>|~?([^`]+))`")
_LINK = re.compile(r"\]\((?:course/)?(\d\d_\w+)\.md\)")
_SETUP = (
    "This notebook is a chapter of tinyrnn's course. It needs tinyrnn with what draws: in the folder of its source, "
    '`pip install -e ".[plot,viz]"`.'
)


class Cell(NamedTuple):
    """A piece of a page: kind, "markdown" or "code"; its text; the tags of a code cell."""

    kind: str
    text: str
    tags: tuple[str, ...] = ()


def cells(page: str) -> list[Cell]:
    """Return the cells of a page: its text, cut where there is code."""
    page, found, end = _HEADER.sub("", page), [], 0
    for match in _CELL.finditer(page):
        found.append(Cell("markdown", page[end : match.start()].strip()))
        found.append(Cell("code", match[2].strip(), tuple((match[1] or "").replace(",", " ").split())))
        end = match.end()
    found.append(Cell("markdown", page[end:].strip()))
    return [cell for cell in found if cell.text]


def plain(text: str) -> str:
    """Return Markdown without what only the site knows: roles become code, links to chapters lead to notebooks."""
    text = _ROLE.sub(lambda m: m[1] or f"`{m[2]}`", text)
    return _LINK.sub(r"](\1.ipynb)", text)


def notebook(page: str) -> str:
    """Return the notebook of a page, as JSON, with nothing computed yet."""
    made = []
    for k, cell in enumerate([Cell("markdown", _SETUP), *cells(page)]):
        text = plain(cell.text) if cell.kind == "markdown" else cell.text
        one = {"id": f"cell-{k}", "cell_type": cell.kind, "source": text.splitlines(keepends=True)}
        code = {"execution_count": None, "outputs": []} if cell.kind == "code" else {}
        made.append(one | {"metadata": {"tags": list(cell.tags)} if cell.tags else {}} | code)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return json.dumps({"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}, indent=1)
