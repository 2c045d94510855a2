"""``python -m tinyrnn.learn list``, ``start``, ``check``, ``hint`` and ``solution``."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from tinyrnn import terminal
from tinyrnn.learn.exercise import Exercise, exercises_by_name
from tinyrnn.learn.grading import grade_apart

FOLDER = Path("exercises")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after ``python -m tinyrnn.learn``; None reads them from ``sys.argv``.

    Returns:
        The exit status: 0, or 1 if a check fails, a file is missing, or one is there already.
    """
    parser = argparse.ArgumentParser(prog="python -m tinyrnn.learn", description="The exercises of the course.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, does in COMMANDS.items():
        one = commands.add_parser(command, help=does)
        if command != "list":
            one.add_argument("name", choices=exercises_by_name(), metavar="NAME", help="as `list` has it")
        if command == "solution":
            one.add_argument("--yes", action="store_true", help="do not ask")
        else:
            one.add_argument("--folder", type=Path, default=FOLDER, help=f"where your files are (default: {FOLDER})")
    chosen = parser.parse_args(arguments)
    if chosen.command == "list":
        return print_list(chosen.folder)
    exercise = exercises_by_name()[chosen.name]
    if chosen.command == "check":
        return check(exercise, chosen.folder)
    if chosen.command == "solution":
        return solution(exercise, chosen.yes)
    try:
        return (start if chosen.command == "start" else hint)(exercise, chosen.folder)
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"error: cannot write to {chosen.folder}: {error.strerror}; choose another --folder", file=sys.stderr)
        return 1


COMMANDS = {
    "list": "show the exercises",
    "start": "put the file of an exercise into your folder",
    "check": "see whether what you wrote is right",
    "hint": "get one more hint",
    "solution": "show the solution",
}


def print_list(folder: Path) -> int:
    """Print one line for each exercise: chapter, name, title, whether it is started."""
    for exercise in exercises_by_name().values():
        started = "started" if (folder / exercise.file_name).exists() else ""
        print(f"{exercise.chapter:>2}  {exercise.name:<12} {exercise.title:<60} {started}".rstrip())
    return 0


def start(exercise: Exercise, folder: Path) -> int:
    """Write the skeleton of an exercise into a folder; a file that is there already stays as it is."""
    path = folder / exercise.file_name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(exercise.skeleton)
    except FileExistsError:
        print(f"{path} is there already and stays as it is. To begin anew, give it another name first.")
        return 1
    except OSError:  # a full disk
        path.unlink(missing_ok=True)  # half a file would stay as it is, the next time
        raise
    print(f"{path} says what to write. Then:  {_command('check', exercise, folder)}")
    return 0


def check(exercise: Exercise, folder: Path) -> int:
    """Grade what a learner has written."""
    path = folder / exercise.file_name
    if not path.is_file():
        print(f"There is no {path} in {Path.cwd()}. It begins with:  {_command('start', exercise, folder)}")
        return 1
    print(f"{path}: {exercise.title}\n", flush=True)
    status = grade_apart(exercise, path)
    if status:
        print(f"If you are stuck:  {_command('hint', exercise, folder)}")
    else:
        print(f"Well done. How we wrote it:  python -m tinyrnn.learn solution {exercise.name}")
    return status


def hint(exercise: Exercise, folder: Path) -> int:
    """Print the hints that were given before, and one more."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".hints.json"
    seen = _seen(path)
    count = min(seen.get(exercise.name, 0) + 1, len(exercise.hints))
    for k, words in enumerate(exercise.hints[:count], 1):
        print(f"{k} of {len(exercise.hints)}: {words}")
    if seen.get(exercise.name, 0) == len(exercise.hints):
        print(f"That was all.  python -m tinyrnn.learn solution {exercise.name}")
    path.write_text(json.dumps(seen | {exercise.name: count}), encoding="utf-8")
    return 0


def _seen(path: Path) -> dict[str, int]:
    """Return how many hints of each exercise were given; none, where the file is missing or not ours."""
    try:
        seen = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {name: n for name, n in seen.items() if isinstance(n, int)} if isinstance(seen, dict) else {}


def solution(exercise: Exercise, yes: bool) -> int:
    """Print the solution, after having asked."""
    if not yes:
        try:
            yes = input(f"Show the solution of {exercise.name}? [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            print("\nNobody answers; --yes shows it without a question.")
    if yes:
        print(exercise.solution, end="")
    return 0 if yes else 1


def _command(command: str, exercise: Exercise, folder: Path) -> str:
    where = "" if folder == FOLDER else f" --folder {shlex.quote(str(folder))}"
    return f"python -m tinyrnn.learn {command} {exercise.name}{where}"


if __name__ == "__main__":
    terminal.run(main)
