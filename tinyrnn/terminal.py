"""What the commands have in common: how they get on with the terminal that they run in.

if __name__ == "__main__":
    terminal.run(main)
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from tinyrnn.errors import TinyRNNError

CTRL_C, UNREAD = 130, 141  # how shells count what Ctrl-C has ended, and what had nobody left to read it


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a command, and end Python with the status that it returns; None is 0.

    What a terminal cannot show, σ for example, is printed as a question mark, rather than end what took an hour.
    Ctrl-C, a reader who has had enough, as in ``| head -1``, and errors that say in words what is wrong, a full disk's
    too, end the command with no traceback.

    Args:
        main: the command.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        try:
            status = main()
        finally:
            sys.stdout.flush()  # what is written later, at exit, would be past the except below
    except KeyboardInterrupt:
        status = CTRL_C
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left to be written
        status = UNREAD
    except (TinyRNNError, OSError) as error:
        print(f"error: {in_words(error)}", file=sys.stderr)
        status = 1
    sys.exit(status)


def in_words(error: Exception) -> str:
    """Return what an error says; what the operating system refuses, with its file, if that is known, and advice."""
    if not isinstance(error, OSError):
        return str(error)
    file = "" if error.filename is None else f"{error.filename}: "
    return f"{file}{error.strerror}; choose a place where there is room, and that you may write to"
