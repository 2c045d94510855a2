"""Speech to digits, and the comparison of networks: as their user runs them, and what their figures rest on."""

import os
import re
import subprocess
import sys
from argparse import Namespace
from itertools import count, islice

import numpy as np
import pytest

import tinyrnn as tr
from tests.example_files import EXAMPLES, load_example
from tinyrnn import data
from tinyrnn.generate import generate

pytest.importorskip("matplotlib", reason="the examples draw: pip install 'tinyrnn[plot]'")

speech, versus = map(load_example, ("speech", "versus"))

needs_speech = pytest.mark.skipif(
    not data.is_fetched("speech"), reason="the data set is not there; python -m tinyrnn.data fetch speech"
)


def run(name, *options, **environment):
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *map(str, options)]
    environment = os.environ | {"TQDM_DISABLE": "1"} | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=300)


# ---------------------------------------------------------------- as their users run them


@pytest.mark.parametrize(("name", "metric", "baseline", "picture"), [
    pytest.param("speech", "digit error rate", "templates", "spikes.png", marks=needs_speech),
    pytest.param("versus", r"bits per character, \w+", "bigram", "versus.png"),
])  # fmt: skip
def test_it_runs_and_says_last_what_it_has_reached(name, metric, baseline, picture, tmp_path):
    done = run(name, "--quick", "--out", tmp_path / "new")
    assert (done.returncode, done.stderr) == (0, "")
    reached, simple = re.search(rf"\n{metric}: (\S+) \({baseline} (\S+)\)\n\Z", done.stdout).groups()
    assert min(float(reached), float(simple)) > 0
    assert (tmp_path / "new" / picture).read_bytes().startswith(b"\x89PNG")
    assert picture in done.stdout
    if name == "speech":
        assert "synthetic" in speech.__doc__
        assert done.stdout.startswith("synthetic speech")


def test_what_is_wrong_is_told_in_a_line(tmp_path):
    done = run("speech", "--out", tmp_path, TINYRNN_DATA=str(tmp_path / "empty"))
    assert done.returncode == 1
    assert done.stderr.endswith("fetch it with: python -m tinyrnn.data fetch speech\n")
    done = run("versus", "--seconds", 0, "--out", tmp_path)
    assert (done.returncode, done.stderr) == (1, "error: --seconds is 0; expected 1 or more\n")
    done = run("versus", "--text", tmp_path / "none.txt", "--out", tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"error: there is no file \S+; .*\n", done.stderr)
    done = run("versus", "--backend", "abacus", "--out", tmp_path)
    assert done.returncode == 2
    assert "abacus" in done.stderr
    assert "Traceback" not in done.stderr


@needs_speech
def test_seconds_that_are_too_few(tmp_path):
    done = run("speech", "--seconds", 0, "--out", tmp_path)
    assert (done.returncode, done.stderr) == (1, "error: --seconds 0 ended before the first epoch did; give more\n")


# ---------------------------------------------------------------- speech


@needs_speech
def test_no_voice_and_no_clip_is_in_two_parts():
    with np.load(next(data.path("speech").rglob("speech.npz")), allow_pickle=False) as stored:
        voices, ends = stored["voices"].tolist(), stored["ends"]
    lengths = np.diff(ends, prepend=0).tolist()
    parts = data.load("speech")
    voice_of = dict(zip(zip(lengths, range(len(voices)), strict=True), voices, strict=True))
    assert sum(map(len, parts)) == len(voices)
    split = data.split_by_key(voice_of.items(), key=lambda item: item[1])
    found = [{voice for _, voice in part} for part in split]
    for part, expected in zip(parts, split, strict=True):  # clips are in the order of the file: by their lengths
        assert [len(samples) for samples, _ in part] == [length for (length, _), _ in expected]
    assert sum(map(len, found)) == len(set().union(*found))
    clips = [{samples.tobytes() for samples, _ in part} for part in parts]
    assert sum(map(len, clips)) == len(set().union(*clips))


def test_logits_come_for_every_third_frame_and_padding_changes_nothing():
    tr.manual_seed(0)
    model = speech.Listener(8).eval()
    sounds = [np.random.default_rng(0).standard_normal((T, 40)).astype(np.float32) for T in (20, 31)]
    logits, steps = model(*speech.batch_of(sounds))
    assert logits.shape == (9, 2, 11)
    assert steps.tolist() == [6, 9]
    alone, _ = model(*speech.batch_of(sounds[:1]))
    np.testing.assert_allclose(logits.numpy()[:6, 0], alone.numpy()[:, 0], atol=1e-6)


def test_frames_do_not_depend_on_loudness():
    sound = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    np.testing.assert_allclose(speech.frames(sound), speech.frames(3 * sound), atol=1e-3)


def test_a_spoiled_sound_has_its_shape_and_a_seed_repeats_it():
    x = np.random.default_rng(0).standard_normal((30, 40)).astype(np.float32)
    one, again = (speech.spoiled(x, tr.Generator(3)) for _ in range(2))
    assert one.shape == x.shape
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, x)


def test_error_rate_counts_what_is_wrong_missing_and_too_many():
    clips = [(None, "123"), (None, "45"), (None, "6")]
    assert speech.error_rate(["123", "45", "6"], clips) == 0
    assert speech.error_rate(["13", "456", "7"], clips) == 3 / 6


def test_the_baseline_finds_chains_of_templates_that_are_stretched():
    random = np.random.default_rng(0)
    steps = {str(digit): random.standard_normal((4 + digit % 3, 40)) for digit in range(10)}
    learned = [(np.repeat(x, speech.STRIDE, axis=0), digit) for digit, x in steps.items()]

    def said(digits, times):
        return np.concatenate([np.repeat(steps[digit], times * speech.STRIDE, axis=0) for digit in digits]), digits

    clips = [said("3", 1), said("3141", 2), said("00", 1), said("98765", 3)]
    noisy = [(x + 0.3 * random.standard_normal(x.shape), digits) for x, digits in clips]
    assert speech.by_templates(learned, clips) == [digits for _, digits in clips]
    assert speech.by_templates([*learned, (clips[1][0], "31")], noisy) == [digits for _, digits in noisy]


# ---------------------------------------------------------------- the comparison of networks


@pytest.fixture(params=versus.KINDS)
def kind(request):
    return request.param


def new(kind, parameters=3_000, reach=24, symbols=10):
    return versus.maker_of(kind, symbols, reach, Namespace(parameters=parameters, seed=0))()


def test_all_are_of_the_size_that_is_asked_for(kind):
    for symbols, reach in ((96, versus.TIME), (10, 512 + 2 * versus.COPIED)):
        assert abs(versus.size_of(new(kind, 100_000, reach, symbols)) / 100_000 - 1) < 0.1


def test_all_begin_with_the_same_parameters_each_time(kind):
    make = versus.maker_of(kind, 10, 24, Namespace(parameters=3_000, seed=0))
    for one, again in zip(make().parameters(), make().parameters(), strict=True):
        np.testing.assert_array_equal(one.numpy(), again.numpy())


def test_all_carry_a_state_from_window_to_window(kind):
    model, x = new(kind), np.random.default_rng(0).integers(0, 10, (20, 3))
    whole, _ = model(x)
    first, state = model(x[:7])
    last, _ = model(x[7:], state)
    np.testing.assert_allclose(tr.concatenate([first, last]).numpy(), whole.numpy(), atol=1e-4)
    assert len(list(generate(model, [1], 5))) == 5


def test_all_can_see_the_first_symbol_across_the_longest_gap(kind):
    model = new(kind, reach=24 + 2 * versus.COPIED)
    x, _, goes_on = versus.copies(24, tr.Generator(0))
    changed = x.copy()
    changed[0] = (x[0] + 1) % versus.SYMBOLS
    (a, _), (b, _) = model(x), model(changed)
    assert not goes_on
    assert np.abs(a.numpy()[-1] - b.numpy()[-1]).max() > 0


def test_a_copy_is_asked_for_after_the_signal():
    gap = 7
    x, y, _ = versus.copies(gap, tr.Generator(0))
    np.testing.assert_array_equal(x[: versus.COPIED], y)
    assert len(x) == 2 * versus.COPIED + gap
    assert (x[versus.COPIED + gap - 1] == versus.SIGNAL).all()
    assert (x[-versus.COPIED :] == versus.SILENCE).all()
    assert x.max(initial=0) < versus.SYMBOLS + 2


def test_every_rate_has_the_same_time_and_all_of_it_is_used():
    runs = []

    def run(rate, seconds):
        runs.append((rate, seconds))
        return versus.Course(None, rate, abs(rate - 2.0), [seconds], [0.0])

    assert versus.tuned(run, 8.0, (1.0, 2.0, 3.0)).rate == 2.0
    assert runs == [(1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (2.0, 5.0)]
    runs.clear()
    assert versus.best_of(run, 6.0, (1.0, 2.0, 3.0)).rate == 2.0
    assert runs == [(1.0, 2.0), (2.0, 2.0), (3.0, 2.0)]


def test_a_step_learns_from_the_last_answers_and_the_state_goes_on():
    model = new("GRU")
    x = np.tile(np.arange(10), 4)[:, None] % 10
    batches = ((x[k % 3 : k % 3 + 20], x[k % 3 + 16 : k % 3 + 21][-5:], k % 3 > 0) for k in count())
    # so long a time has but begun: the rate is a hundredth of what is given
    losses = [loss for _, loss in islice(versus.learn(model, batches, 1.0, 1e6), 150)]
    assert losses[-1] < 0.5 * losses[0]


def test_bigrams_know_what_follows():
    text = np.tile([0, 1, 2], 1000)
    assert versus.bigram_bits(text, text[:300], 3) < 0.01
    random = np.random.default_rng(0).integers(0, 4, 40_000)
    assert versus.bigram_bits(random[:30_000], random[30_000:], 4) == pytest.approx(2, abs=0.01)


def test_a_network_that_is_lost_is_worse_than_any():
    model, text = new("RNN"), np.random.default_rng(0).integers(0, 10, 2 * versus.BATCH * versus.TIME + 1)
    assert versus.bits(model, text) > 2
    model.output.b.assign(model.output.b.detach() * np.nan)
    assert versus.bits(model, text) == np.inf
