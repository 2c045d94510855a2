"""The README's code runs and prints what the README says it prints."""

import contextlib
import io
import re
import tomllib
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"<!-- run -->\n```python\n(.*?)```\n\n<!-- output -->\n```text\n(.*?)```", README, re.DOTALL)


def test_every_example_has_its_output():
    assert len(EXAMPLES) == README.count("<!-- run -->") == README.count("```python") > 0


@pytest.mark.parametrize(("code", "output"), EXAMPLES)
def test_example(code, output):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert printed.getvalue() == output


def test_what_it_links_to_is_in_the_sdist():
    root = Path(__file__).parents[1]
    config = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    included = {name.removeprefix("/") for name in config["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]}
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert len(links) > 5
    for link in links:
        assert (root / link).exists()
        assert link.partition("/")[0] in included


@pytest.mark.parametrize("path", re.findall(r"`((?:tinyrnn|examples)/[\w/.]+)`", README))
def test_files_that_it_names_exist(path):
    assert (Path(__file__).parents[1] / path).exists()
