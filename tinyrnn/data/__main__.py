"""``python -m tinyrnn.data list`` and ``python -m tinyrnn.data fetch NAME ...``."""

from __future__ import annotations

import argparse
import sys

from tinyrnn import terminal
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
    fetching = commands.add_parser("fetch", help="fetch data sets into the cache folder")
    fetching.add_argument("names", nargs="+", metavar="NAME", help="the name of a data set; all: every one")
    chosen = parser.parse_args(arguments)
    if chosen.command == "list":
        print_list()
        return 0
    return fetch_all(list(DATASETS) if chosen.names == ["all"] else chosen.names)


def fetch_all(names: list[str]) -> int:
    """Fetch sets and print the folder of each. One that fails does not keep the others from being fetched.

    Returns:
        The exit status: 0, or 1 if one failed.
    """
    status = 0
    for name in names:
        try:
            print(fetch(name), flush=True)
        except DataError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 1
    return status


def print_list() -> None:
    """Print one line for each data set: name, size, whether it is fetched, what it holds, whose it is."""
    for one in DATASETS.values():
        fetched = "fetched" if is_fetched(one.name) else "not fetched"
        size = f"{one.megabytes:.1f} MB"
        print(f"{one.name:<14} {size:>8}  {fetched:<12} {one.description} ({one.source})")


if __name__ == "__main__":
    terminal.run(main)
