"""Commands in a terminal: one whose reader has had enough, one with few letters, Ctrl-C, and what cannot be written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes and signals")


def command(*words, **environment):
    """Return what `subprocess` needs to run Python on some words."""
    return {"args": [sys.executable, *map(str, words)], "env": os.environ | environment, "text": True}


def script(body):
    """Return the words for Python that run some lines as a command."""
    lines = ["import os, sys, time", "import tinyrnn as tr", "from tinyrnn import terminal", "def main():"]
    return "-c", "\n".join([*lines, *(f"    {line}" for line in body.splitlines()), "terminal.run(main)"])


def ended(*words, **environment):
    return subprocess.run(**command(*words, **environment), capture_output=True, check=False)


@pytest.mark.parametrize(("body", "status", "told"), [
    ("pass", 0, ""),
    ("return 3", 3, ""),
    ("sys.exit('error: no')", 1, "error: no\n"),
    ("tr.zeros(2) + tr.zeros(3)", 1, "error: add("),
    ("open('no-such-file')", 1, "error: no-such-file: No such file or directory; choose a place where there is room"),
    ("raise OSError(28, 'No space left on device')", 1, "error: No space left on device; choose a place"),
    ("raise KeyboardInterrupt", 130, ""),
])  # fmt: skip
def test_how_a_command_ends(body, status, told):
    done = ended(*script(body))
    assert done.returncode == status
    assert done.stderr.startswith(told)
    assert "Traceback" not in done.stderr


def test_a_mistake_of_our_own_has_its_traceback():
    done = ended(*script("{}['key']"))
    assert done.returncode == 1
    assert "KeyError: 'key'" in done.stderr


@posix
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [
    ("-m", "tinyrnn.data", "list"),
    ("-m", "tinyrnn.data", "--help"),
    ("-m", "tinyrnn.learn", "list"),
    ("-m", "tinyrnn.learn", "solution", "bptt", "--yes"),
    ("-m", "tinyrnn.learn", "hint", "bptt"),
    (EXAMPLES / "bptt_graph.py", "--out", "pictures"),
], ids=str)  # fmt: skip
def test_a_reader_may_have_had_enough(words, unbuffered, tmp_path):
    with subprocess.Popen(
        **command(*words, PYTHONUNBUFFERED=unbuffered),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    ) as process:
        process.stdout.close()  # as `head -0` does
        assert process.stderr.read() == ""


@posix
def test_ctrl_c_ends_it_with_no_traceback(tmp_path):
    begun = tmp_path / "begun"
    words = script(f"open({str(begun)!r}, 'w')\ntime.sleep(60)")
    with subprocess.Popen(**command(*words), stderr=subprocess.PIPE) as process:
        while not begun.exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == ""
    assert process.returncode == 130


def test_a_terminal_with_few_letters_gets_question_marks():
    done = ended(*script("print('∂L/∂h = σ')"), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "?L/?h = ?\n")


def test_an_example_ends_in_such_a_terminal_too(tmp_path):
    done = ended(EXAMPLES / "bptt_graph.py", "--out", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "?L/?W_h is a sum" in done.stdout
