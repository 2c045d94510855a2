"""Grading: import a learner's file, run the checks on it, and say kindly whatever happens.

`check` does it in a process of its own, so that nothing a learner writes can hang or end the one that tells of it:

    python -m tinyrnn.learn.grading NAME FILE
"""

from __future__ import annotations

import _thread
import linecache
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import tinyrnn as tr
from tinyrnn import terminal
from tinyrnn.learn.checking import Mistake
from tinyrnn.learn.exercise import Exercise, exercises_by_name

SECONDS = 10.0  # for each check; the longest of ours takes a tenth of one


class Verdict(NamedTuple):
    """What came of one check."""

    title: str
    outcome: str
    """"right", "wrong", "to write" where NotImplementedError still stands, or "stopped" by an error or by the clock."""
    words: str = ""
    """What is wrong, if something is."""


class OutOfTime(BaseException):
    """Raised in the learner's code when its time is over; no `except Exception` of its own stops it."""


def grade(exercise: Exercise, path: Path, seconds: float = SECONDS) -> Iterator[Verdict]:
    """Import a learner's file and yield a verdict for each check of the exercise.

    Nothing comes after a file that cannot be imported, or a check that took more than `seconds`.
    """
    title, path = "your file can be imported", path.absolute()  # as tracebacks have it
    try:
        with _limited(seconds):
            answer = _imported(path)
    except BaseException as error:
        yield _verdict(title, error, path, seconds)
        return
    missing = [name for name in exercise.names if not hasattr(answer, name)]
    if missing:
        yield Verdict(title, "wrong", f"it has no {' and no '.join(missing)}; was the name changed?")
        return
    for check in exercise.checks:
        title = (check.__doc__ or "").partition("\n")[0].rstrip(".")
        tr.manual_seed(0)
        try:
            with _limited(seconds), tr.use_backend("numpy"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an overflow, say: a check tells it in its own words
                check(answer)
        except BaseException as error:
            yield _verdict(title, error, path, seconds)
            if isinstance(error, OutOfTime):
                return
        else:
            yield Verdict(title, "right")


def _imported(path: Path) -> ModuleType:
    """Run a learner's file as a module; compiled anew each time, since a .pyc may be that of a moment ago."""
    sys.modules["answer"] = module = ModuleType("answer")
    linecache.checkcache(str(path))
    exec(compile(path.read_bytes(), path, "exec"), vars(module))
    return module


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block, if it takes longer; by the way of Ctrl-C, which reaches a loop without end."""
    over = threading.Event()

    def ring() -> None:
        over.set()
        _thread.interrupt_main()

    def interrupted(*_: Any) -> None:
        raise OutOfTime if over.is_set() else KeyboardInterrupt

    before, timer = signal.signal(signal.SIGINT, interrupted), threading.Timer(seconds, ring)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)


# ---------------------------------------------------------------- what went wrong, in words


def _verdict(title: str, error: BaseException, path: Path, seconds: float) -> Verdict:
    frames = _frames(error, path)
    if isinstance(error, KeyboardInterrupt):  # by the learner, not by the clock
        raise error
    if isinstance(error, OutOfTime):
        where = _place(frames[-1]) if frames else ""
        return Verdict(title, "stopped", f"not done after {seconds:g} seconds; is there a loop without end?{where}")
    if isinstance(error, Mistake | tr.errors.GradientError):
        return Verdict(title, "wrong", str(error) + "".join(_place(frame) for frame in frames[-1:]))
    if isinstance(error, NotImplementedError) and frames and "NotImplementedError" in (frames[-1].line or ""):
        return Verdict(title, "to write", f"line {frames[-1].lineno}: {frames[-1].name} is yet to be written")
    if isinstance(error, SyntaxError) and error.filename == str(path):
        line = (error.text or "").strip()
        return Verdict(title, "stopped", f"Python cannot read line {error.lineno}: {error.msg}\n    {line}")
    if isinstance(error, SystemExit):
        told = "your code ends Python by exit(); leave that out"
    else:
        told = "".join(traceback.format_exception_only(error)).strip()
    outside = "\nraised outside of your file, by how it was called or by what it returned"
    return Verdict(title, "stopped", told + ("".join(_place(frame) for frame in frames[-3:]) or outside))


def _frames(error: BaseException | None, path: Path) -> list[traceback.FrameSummary]:
    """Return what of an error's traceback is in the learner's file; where nothing is, of what it was raised from."""
    frames: list[traceback.FrameSummary] = []
    while error is not None and not frames:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        error = error.__cause__
    return frames


def _place(frame: traceback.FrameSummary) -> str:
    """Show the line of the learner's file where something happened."""
    function = "" if frame.name == "<module>" else f", in {frame.name}"
    return f"\nline {frame.lineno}{function}:\n    {frame.line}"


# ---------------------------------------------------------------- in a process of its own


def grade_apart(exercise: Exercise, path: Path, seconds: float = SECONDS) -> int:
    """Grade a file in another process, which prints the verdicts; return 0 if all checks pass, else 1."""
    command = [sys.executable, "-m", __name__, exercise.name, str(path), str(seconds)]
    most = seconds * (len(exercise.checks) + 1) + 30
    try:
        status = subprocess.run(command, timeout=most, check=False).returncode
    except KeyboardInterrupt:
        print("  stopped   by you")
        return 1
    except subprocess.TimeoutExpired:
        print(f"  stopped   not even Ctrl-C could stop it, after {most:g} seconds; is there an array without end?")
        return 1
    if status not in (0, 1):
        print(f"  stopped   Python itself ended, with the status {status}; did it run out of memory?")
    return 0 if status == 0 else 1


def show(verdicts: Iterator[Verdict], total: int) -> int:
    """Print verdicts as they come, and what the first that is not right says; return 0 if `total` are right, else 1."""
    right, told = 0, False
    for title, outcome, words in verdicts:
        print(f"  {outcome:<10}{title}", flush=True)
        right += outcome == "right"
        if words and not told:  # what follows may follow from it
            print(_indented(words), flush=True)
            told = True
    print(f"\n{right} of {total} checks are right.", flush=True)
    return 0 if right == total else 1


def _indented(words: str) -> str:
    lines: list[str] = []
    for line in words.splitlines():
        text = line.lstrip()
        inside = " " * (12 + len(line) - len(text))  # code keeps its margin
        lines += textwrap.wrap(text, 110, initial_indent=inside, subsequent_indent=inside)
    return "\n".join(lines)


def main() -> int:
    """Grade the file that the command line names, for `grade_apart`."""
    name, file, limit = sys.argv[1:]
    exercise = exercises_by_name()[name]
    return show(grade(exercise, Path(file), float(limit)), len(exercise.checks))


if __name__ == "__main__":
    terminal.run(main)
