"""What an exercise is: one file in `exercises/`, from which the learner's file, the hints and the checks are made."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tinyrnn.learn import exercises

CUT = f"# {'-' * 64} checks\n"


@dataclass(frozen=True)
class Exercise:
    """An exercise.

    Args:
        chapter, name: of the course; its name on the command line.
        title: in one line.
        solution: the file as it is when everything is written.
        hints: one after the other.
        checks: functions of the learner's module, which raise a Mistake; their docstrings say what is checked.
    """

    chapter: int
    name: str
    title: str
    solution: str
    hints: tuple[str, ...]
    checks: tuple[Callable[[Any], None], ...]

    @property
    def file_name(self) -> str:
        """What the learner's file is called; a name that nothing can import by accident."""
        return f"{self.chapter:02}_{self.name}.py"

    @property
    def skeleton(self) -> str:
        """The solution without what its functions do."""
        lines = self.solution.splitlines()
        for function in reversed(list(_functions(ast.parse(self.solution)))):  # the last first: lines keep their number
            docstring = function.body[0]
            indent = " " * docstring.col_offset
            lines[docstring.end_lineno : function.end_lineno] = [f'{indent}raise NotImplementedError("yours to write")']
        return "\n".join([*lines, "", "", f"# is it right?  python -m tinyrnn.learn check {self.name}", ""])

    @property
    def names(self) -> list[str]:
        """The functions and classes that a learner's file must have."""
        return [part.name for part in ast.parse(self.solution).body if isinstance(part, ast.FunctionDef | ast.ClassDef)]


@functools.cache
def exercises_by_name() -> dict[str, Exercise]:
    """Return all exercises, by name, in the order of the course."""
    names = sorted(module.name for module in pkgutil.iter_modules(exercises.__path__))
    found = [_exercise(importlib.import_module(f"{exercises.__name__}.{name}")) for name in names]
    return {exercise.name: exercise for exercise in found}


def _exercise(module: ModuleType) -> Exercise:
    _, chapter, name = module.__name__.rpartition(".")[2].split("_", 2)
    above, _, _ = inspect.getsource(module).partition(CUT)
    checks = [value for key, value in vars(module).items() if key.startswith("check_") and inspect.isfunction(value)]
    title = (module.__doc__ or "").partition("\n")[0].rstrip(".")
    own = tuple(check for check in checks if check.__module__ == module.__name__)
    return Exercise(int(chapter), name, title, _without_unused_imports(above), module.HINTS, own)


def _without_unused_imports(source: str) -> str:
    """Leave out the imports that only the checks below use."""
    lines, (docstring, *body) = source.splitlines(), ast.parse(source).body
    imports = [part for part in body if isinstance(part, ast.Import | ast.ImportFrom)]
    used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    kept = [
        line
        for part in imports
        if used & {alias.asname or alias.name for alias in part.names}
        for line in lines[part.lineno - 1 : part.end_lineno]
    ]
    return "\n".join([*lines[: docstring.end_lineno], "", *kept, *lines[imports[-1].end_lineno :]]).strip() + "\n"


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """Yield the functions and methods of a file, in their order."""
    for part in tree.body:
        inside = part.body if isinstance(part, ast.ClassDef) else [part]
        yield from [one for one in inside if isinstance(one, ast.FunctionDef)]
