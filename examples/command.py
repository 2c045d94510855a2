"""What the examples' commands have in common: their options, and how they say what they have reached.

options = arguments(__doc__, seconds=120)       # --seconds, --seed, --backend, --out, --quick
...
reached("accuracy", 0.97, "nearest neighbour", 0.95)
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import tinyrnn as tr
from tinyrnn import terminal
from tinyrnn.errors import TinyRNNError
from tinyrnn.fit import History

if importlib.util.find_spec("matplotlib") is None:  # said here, before an example imports it
    sys.exit("error: the examples draw with matplotlib, which is not installed: pip install 'tinyrnn[examples]'")

QUICK = 3.0  # seconds of training with --quick


def arguments(description: str, seconds: float, *more: tuple[str, type, object, str]) -> argparse.Namespace:
    """Read the command line, seed the random numbers, and choose the backend.

    Args:
        description: what `--help` says: the module's docstring.
        seconds: of training, if the command does not say.
        more: options of one's own, as (name, type, default, help): ("--width", int, 5, "of the beam").

    Returns: options with seconds, seed, backend, out (a folder that exists) and quick.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=seconds, help=f"of training ({seconds:g})")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")
    parser.add_argument("--backend", default="numpy", help="numpy (default) or cupy")
    folder = Path("runs") / Path(sys.argv[0]).stem
    parser.add_argument("--out", type=Path, default=folder, help="folder for what is made")
    parser.add_argument("--quick", action="store_true", help="see it run, on few data, in a few seconds")
    for name, kind, default, told in more:
        parser.add_argument(name, type=kind, default=default, help=f"{told} ({default})")
    options = parser.parse_args()
    if not options.seconds >= 0:
        parser.error(f"--seconds is {options.seconds:g}; expected 0 or more")
    if options.quick:
        options.seconds = min(options.seconds, QUICK)
    try:
        tr.use_backend(options.backend)
        options.out.mkdir(parents=True, exist_ok=True)
    except TinyRNNError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"--out {options.out}: {error.strerror}; expected a folder that can be written to")
    tr.manual_seed(options.seed)
    return options


def run(main: Callable[[], None]) -> None:
    """Run an example; what goes wrong for a reason that it names ends in a line, not in a traceback."""

    def told() -> None:
        try:
            main()
        except ValueError as error:
            sys.exit(f"error: {error}")

    terminal.run(told)


def too_early(history: History, options: argparse.Namespace) -> str:
    """Return what to say of a training that ended before its first epoch did."""
    if history.ended == "Ctrl-C":
        return "Ctrl-C came before the first epoch had ended"
    return f"--seconds {options.seconds:g} ended before the first epoch did; give more"


def reached(metric: str, value: float, baseline: str, by_baseline: float) -> None:
    """Print the figure that an example ends in, beside what a simple method reaches."""
    print(f"{metric}: {value:.4g} ({baseline} {by_baseline:.4g})")


def edits(a: Sequence[object], b: Sequence[object]) -> int:
    """Return how many insertions, deletions and replacements make b of a (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
