"""``python -m tinyrnn.data list`` and ``python -m tinyrnn.data fetch NAME``."""

from __future__ import annotations

import argparse
import sys

from tinyrnn.data.datasets import DATASETS, fetch, is_fetched
from tinyrnn.errors import DataError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after ``python -m tinyrnn.data``; None reads them from ``sys.argv``.

    Returns:
        The exit status: 0, or 1 after an error, which is printed as one line to standard error.
    """
    parser = argparse.ArgumentParser(prog="python -m tinyrnn.data", description="The data sets of tinyrnn.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show the data sets")
    commands.add_parser("fetch", help="fetch one data set into the cache folder").add_argument("name")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "list":
            print_list()
        else:
            print(fetch(chosen.name))
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def print_list() -> None:
    """Print one line for each data set: name, size, whether it is fetched, what it holds, whose it is."""
    for dataset in DATASETS.values():
        fetched = "fetched" if is_fetched(dataset.name) else "not fetched"
        size = f"{dataset.megabytes:.1f} MB"
        print(f"{dataset.name:<14} {size:>8}  {fetched:<12} {dataset.description} ({dataset.source})")


if __name__ == "__main__":
    sys.exit(main())
