"""The example as its user meets it: it learns, resumes bit for bit, survives kills, and says what is wrong."""

import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import tinyrnn as tr
from tinyrnn import checkpoint, data

SCRIPT = Path(__file__).parents[1] / "examples" / "char_rnn.py"
SMALL = ["--hidden", "12", "--layers", "2", "--batch", "8", "--time", "10", "--dropout", "0.1"]


def load_example():
    spec = spec_from_file_location("char_rnn", SCRIPT)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


char_rnn = load_example()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(data.numpy_docs()[:6000], encoding="utf-8")
    return path


def run(*arguments):
    return char_rnn.main([str(argument) for argument in arguments])


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


# ---------------------------------------------------------------- learning and writing


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_it_learns_and_writes(cell, tmp_path, capsys):
    assert run("--cell", cell, "--hidden", 64, "--layers", 1, "--steps", 150, "--lr", 5e-3, "--out", tmp_path) == 0
    printed = capsys.readouterr().out
    assert "bits/character" in printed
    lines = log_of(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 151))
    symbols = len(data.Vocabulary.of(data.numpy_docs()))
    assert lines[-1]["val_loss"] < 0.6 * math.log(symbols)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert run("sample", "--checkpoint", tmp_path, "--prompt", "Return", "--length", 80, "--seed", 1) == 0
    written = capsys.readouterr()
    assert written.out.startswith("Return")
    assert len(written.out) == len("Return") + 80 + 1
    assert "a second" in written.err


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    assert run("--text", text, *SMALL, "--steps", 40, "--out", folder) == 0
    return folder


def sampled(capsys, folder, *options):
    assert run("sample", "--checkpoint", folder, "--length", 60, *options) == 0
    return capsys.readouterr().out


def test_a_seed_repeats_a_sample(trained, capsys):
    assert sampled(capsys, trained, "--seed", 3) == sampled(capsys, trained, "--seed", 3)
    assert sampled(capsys, trained, "--seed", 3) != sampled(capsys, trained, "--seed", 4)


def test_greedy_ways_agree(trained, capsys):
    greedy = sampled(capsys, trained, "--temperature", 0)
    assert greedy == sampled(capsys, trained, "--top-k", 1) == sampled(capsys, trained, "--top-p", 1e-6)


def test_a_checkpoint_file_may_be_named(trained, capsys):
    assert run("sample", "--checkpoint", trained / "checkpoint.safetensors", "--length", 5) == 0


def test_seconds_end_a_run_too(text, tmp_path):
    assert run("--text", text, *SMALL, "--seconds", 0.3, "--out", tmp_path) == 0
    assert log_of(tmp_path)[-1]["step"] == checkpoint.load(tmp_path / "checkpoint.safetensors")["step"] > 0


def test_a_new_run_keeps_the_earlier_one(text, tmp_path):
    for _ in range(2):
        assert run("--text", text, *SMALL, "--steps", 2, "--out", tmp_path) == 0
    assert {"previous-checkpoint.safetensors", "previous-log.jsonl"} <= {file.name for file in tmp_path.iterdir()}


# ---------------------------------------------------------------- looking at what was learned


@pytest.mark.parametrize(("options", "told"), [
    ([], ["(×8)", "LSTMCell", "embedding", "z⁻¹"]),
    (["--prompt", "Return", "--view", "unrolled"], ["t = 5", "LSTMCell"]),
    (["--detail", "layer"], ["Linear", "parameters"]),
])  # fmt: skip
def test_it_draws_itself(options, told, trained, tmp_path, capsys):
    path = tmp_path / "graph.dot"
    assert run("graph", "--checkpoint", trained, "--out", path, *options) == 0
    assert f"drawn: {path}, <picture of " in capsys.readouterr().out
    drawn = path.read_text(encoding="utf-8")
    assert all(word in drawn for word in told)


def test_it_shows_how_far_back_gradients_reach(trained, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install -e '.[test]'")
    path = tmp_path / "flow.png"
    assert run("flow", "--checkpoint", trained, "--time", 12, "--out", path) == 0
    printed = capsys.readouterr().out
    head, *rows = [line.split() for line in printed.split("\n\n")[1].splitlines()[:-1]]
    assert head[-2:] == ["recurrent.cells.0", "recurrent.cells.1"]
    assert [int(row[0]) for row in rows] == [0, 1, 2, 4, 8, 11]
    shares = [float(row[2]) for row in rows]
    assert shares[0] == 1
    assert min(shares) > 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_pictures_are_beside_the_checkpoint_if_nothing_else_is_said(trained, capsys):
    assert run("graph", "--checkpoint", trained / "checkpoint.safetensors", "--detail", "layer") == 0
    (drawn,) = trained.glob("graph.*")  # .dot where there is no Graphviz
    assert str(drawn) in capsys.readouterr().out


# ---------------------------------------------------------------- resuming


def losses(folder):
    return [line["loss"] for line in log_of(folder)]


@pytest.fixture(scope="module")
def uninterrupted(text, tmp_path_factory):
    """A run of 200 steps, which is more than an epoch."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run("--text", text, *SMALL, "--steps", 200, "--out", folder) == 0
    return folder


@pytest.mark.parametrize("stop", [1, 33, 70, 199])
def test_a_resumed_run_equals_an_uninterrupted_one(stop, text, uninterrupted, tmp_path):
    assert run("--text", text, *SMALL, "--steps", stop, "--out", tmp_path) == 0
    assert run("--resume", "--steps", 200, "--out", tmp_path) == 0
    assert losses(tmp_path) == losses(uninterrupted)
    assert log_of(tmp_path)[-1] == log_of(uninterrupted)[-1]
    whole, resumed = (checkpoint.load(folder / "checkpoint.safetensors") for folder in (uninterrupted, tmp_path))
    for name, values in whole["model"].items():
        assert (values == resumed["model"][name]).all(), name
    assert whole["random"] == resumed["random"]


def started(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def test_kills_at_random_moments_lose_nothing(text, uninterrupted, tmp_path):
    moments = random.Random(0)
    file = tmp_path / "checkpoint.safetensors"
    for kill in range(20):
        fresh = ["--text", text, *SMALL] if kill == 0 else ["--resume"]
        before = file.stat().st_mtime_ns if kill else 0
        process = started(*fresh, "--steps", 100_000, "--save-every", 1, "--out", tmp_path)
        wait_for(lambda before=before: file.exists() and file.stat().st_mtime_ns > before, process)
        time.sleep(moments.uniform(0, 0.05))  # a step takes about 10 ms, and so does its save
        process.kill()
        process.communicate()
        saved = checkpoint.load(file)
        assert saved["step"] > kill
    steps = max(200, saved["step"])
    assert run("--resume", "--steps", steps, "--out", tmp_path) == 0
    assert losses(tmp_path)[:200] == losses(uninterrupted)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_saves_and_ends(text, tmp_path):
    process = started("--text", text, *SMALL, "--steps", 100_000, "--out", tmp_path)
    log = tmp_path / "log.jsonl"
    wait_for(lambda: log.exists() and log.stat().st_size > 0, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert checkpoint.load(tmp_path / "checkpoint.safetensors")["step"] == log_of(tmp_path)[-1]["step"]


# ---------------------------------------------------------------- what goes wrong


def error_of(capsys, *arguments):
    assert run(*arguments) == 1
    message = capsys.readouterr().err.splitlines()[-1]  # before it there may be a progress bar
    assert message.startswith("error: ")
    return message


@pytest.mark.parametrize(("content", "told"), [
    ("", "is empty"),
    ("a", "held_out=0.05 of 1 characters leaves one of the parts empty"),
    ("abc" * 20, "a text of 57 characters is too short for batch 50 and time 50, which need batch·time + 1 = 2501"),
])  # fmt: skip
def test_texts_that_are_too_short(content, told, tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text(content, encoding="utf-8")
    assert told in error_of(capsys, "--text", path, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_shortest_text_that_will_do(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("ab" * 20, encoding="utf-8")
    assert run("--text", path, "--batch", 1, "--time", 30, "--hidden", 4, "--steps", 3, "--out", tmp_path) == 0


@pytest.mark.parametrize(("arguments", "told"), [
    (["--text", "no-such-file"], "there is no file no-such-file"),
    (["--resume", "--out", "no-such-folder"], "cannot read no-such-folder"),
    (["sample", "--checkpoint", "no-such-folder"], "cannot read no-such-folder"),
    (["sample", "--checkpoint", str(SCRIPT)], "is no safetensors file"),
    (["--out", str(SCRIPT)], "cannot write to"),
    (["graph", "--checkpoint", "no-such-folder"], "cannot read no-such-folder"),
    (["flow", "--checkpoint", "no-such-folder"], "cannot read no-such-folder"),
    (["--backend", "abacus"], "backend 'abacus' is unknown; there are"),
])  # fmt: skip
def test_mistakes_are_told_in_one_line(arguments, told, capsys):
    assert told in error_of(capsys, *arguments)


@pytest.mark.parametrize(
    "arguments", [["--cell", "tree"], ["--hidden", "0"], ["--dropout", "1.5"], ["sample", "--top-k", "0"]]
)
def test_options_out_of_range_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        run(*arguments)
    assert f"argument {arguments[-2]}" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--hidden", "many"], "a whole number of 1 or more"),
    (["--hidden", "2.5"], "a whole number of 1 or more"),
    (["--lr", "inf"], "a number of 0 or more"),
    (["--seconds", "inf"], "a number of 0.001 or more"),
    (["--seconds", "0"], "a number of 0.001 or more"),  # which once was for ever
    (["--dropout", "nan"], "a number from 0 to 0.99"),
    (["sample", "--temperature", "inf"], "a number of 0 or more"),
])  # fmt: skip
def test_what_is_expected_of_a_number_is_said(arguments, expected, capsys):
    with pytest.raises(SystemExit):
        run(*arguments)
    assert f"argument {arguments[-2]}: {arguments[-1]}; expected {expected}\n" in capsys.readouterr().err


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_loses_no_log(text, tmp_path, capsys, monkeypatch):
    assert run("--text", text, *SMALL, "--steps", 5, "--out", tmp_path) == 0
    monkeypatch.setattr(os, "fsync", full_disk)
    assert "No space left" in error_of(capsys, "--resume", "--steps", 10, "--out", tmp_path)
    assert [line["step"] for line in log_of(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_disk_that_fills_up_is_told_with_its_folder(text, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(char_rnn.Log, "flush", full_disk)
    message = error_of(capsys, "--text", text, *SMALL, "--steps", 5, "--out", tmp_path)
    assert message == f"error: cannot write {tmp_path}: No space left on device; make room, or choose another --out"


def test_a_run_that_never_saved_pushes_out_no_earlier_one(text, tmp_path, monkeypatch):
    assert run("--text", text, *SMALL, "--steps", 5, "--out", tmp_path) == 0
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full_disk)
        for _ in range(2):
            assert run("--text", text, *SMALL, "--steps", 1, "--out", tmp_path) == 1
    assert checkpoint.load(tmp_path / "previous-checkpoint.safetensors")["step"] == 5
    lines = (tmp_path / "previous-log.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["step"] == 5


def test_pictures_that_cannot_be_written(trained, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install -e '.[test]'")
    for command in ("graph", "flow"):
        nowhere, odd = (trained / "nowhere" / "x.svg", trained / "x.odd")
        assert "x.svg: No such file" in error_of(capsys, command, "--checkpoint", trained, "--out", nowhere)
        assert "odd" in error_of(capsys, command, "--checkpoint", trained, "--out", odd)


def test_an_unknown_character_in_the_prompt(trained, capsys):
    message = error_of(capsys, "sample", "--checkpoint", trained, "--prompt", "naïve")
    assert "'ï' (U+00EF) at position 2" in message


def test_a_resumed_run_cannot_change(trained, text, capsys, tmp_path):
    before = (trained / "checkpoint.safetensors").read_bytes()
    assert "--hidden is 64, but the run" in error_of(capsys, "--resume", "--hidden", 64, "--out", trained)
    assert "--text is" in error_of(capsys, "--resume", "--text", "numpy-docs", "--out", trained)
    assert (trained / "checkpoint.safetensors").read_bytes() == before


def test_a_text_that_has_changed(text, tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_bytes(text.read_bytes())
    assert run("--text", path, *SMALL, "--steps", 2, "--out", tmp_path) == 0
    path.write_text(text.read_text(encoding="utf-8") + "!", encoding="utf-8")
    assert "is not the one that" in error_of(capsys, "--resume", "--out", tmp_path)
    assert "is not the one that" in error_of(capsys, "flow", "--checkpoint", tmp_path)


def test_a_cut_or_foreign_checkpoint(trained, tmp_path, capsys):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((trained / "checkpoint.safetensors").read_bytes()[:-100])
    assert "cut short or damaged" in error_of(capsys, "sample", "--checkpoint", cut)
    foreign = tmp_path / "foreign.safetensors"
    checkpoint.save(foreign, {"weights": [1, 2]})
    assert "not one of this program" in error_of(capsys, "sample", "--checkpoint", foreign)


def test_a_loss_that_is_not_a_number(text, tmp_path, capsys, monkeypatch):
    real, calls = tr.cross_entropy, iter(range(1, 1000))
    monkeypatch.setattr(tr, "capture", lambda function, *_: function)  # so that the loss below is asked each time
    monkeypatch.setattr(tr, "cross_entropy", lambda *args: real(*args) * (math.nan if next(calls) >= 8 else 1))
    arguments = ["--text", text, *SMALL, "--steps", 50, "--save-every", 3, "--out", tmp_path]
    message = error_of(capsys, *arguments).removeprefix("error: ")
    assert message.startswith("at step 8 the loss is nan")
    assert "is of step 6" in message
    saved = checkpoint.load(tmp_path / "checkpoint.safetensors")
    assert saved["step"] == 6
    assert all(math.isfinite(values.sum()) for values in saved["model"].values())
    assert log_of(tmp_path)[-1]["step"] == 7
