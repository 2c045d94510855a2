"""The examples that classify: each as its user runs it, on few data, and the parts that its figure rests on."""

import importlib
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import data

pytest.importorskip("matplotlib", reason="the examples draw: pip install 'tinyrnn[plot]'")

EXAMPLES = Path(__file__).parents[1] / "examples"
PICTURES = {"digits": "wrong", "names": "confusion", "sentiment": "opinions", "speakers": "certainty"}
SETS = {"digits": "digits", "names": "names", "sentiment": "tweets", "speakers": "speakers"}


def needs(name):
    if not data.is_fetched(name):
        pytest.skip(f"the data set is not there; fetch it with: python -m tinyrnn.data fetch {name}")


def run(name, *options, **environment):
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *map(str, options)]
    environment = os.environ | {"TQDM_DISABLE": "1"} | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=300)


@pytest.fixture(scope="module")
def example():
    """Import an example, which finds `command` beside it as it does when it is run."""
    sys.path.insert(0, str(EXAMPLES))
    yield importlib.import_module
    sys.path.remove(str(EXAMPLES))


# ---------------------------------------------------------------- as their user runs them


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Run an example with --quick, once; return the folder of what it has made, and what it has printed."""

    @cache
    def run_once(name):
        needs(SETS[name])
        folder = tmp_path_factory.mktemp(name) / "new"
        done = run(name, "--quick", "--out", folder)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return folder, done.stdout

    return run_once


@pytest.mark.parametrize("name", PICTURES)
def test_it_says_last_what_it_has_reached_and_draws(name, quick):
    folder, printed = quick(name)
    accuracy, baseline = map(float, re.search(r"\naccuracy: (\S+) \([^()]* (\S+)\)\n\Z", printed).groups())
    assert 0 < accuracy < 1
    assert 0 < baseline < 1
    picture = folder / f"{PICTURES[name]}.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in printed


def test_names_are_written_for_every_nation(quick, example):
    printed = quick("names")[1]
    for nation in example("names").NATIONS.symbols:
        assert re.search(rf"^ *{nation}: .*(, .*){{5}}$", printed, re.MULTILINE)


def test_a_seed_repeats_a_run(quick):
    folder, printed = quick("digits")
    assert run("digits", "--quick", "--out", folder).stdout == printed
    assert run("digits", "--quick", "--out", folder, "--seed", 1).stdout != printed


# ---------------------------------------------------------------- what goes wrong is told


def test_a_set_that_is_not_there(tmp_path):
    done = run("sentiment", "--data", "movies", "--out", tmp_path, TINYRNN_DATA=str(tmp_path / "empty"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: the data set movies")
    assert done.stderr.endswith("fetch it with: python -m tinyrnn.data fetch movies\n")


def test_seconds_that_are_too_few(tmp_path):
    needs("digits")
    done = run("digits", "--seconds", 0, "--out", tmp_path)
    assert (done.returncode, done.stderr) == (1, "error: --seconds 0 ended before the first epoch did; give more\n")


def test_options_that_there_are_not(tmp_path):
    done = run("sentiment", "--data", "books", "--out", tmp_path)
    assert (done.returncode, done.stderr) == (1, "error: --data is books; expected tweets or movies\n")
    done = run("digits", "--backend", "abacus", "--out", tmp_path)
    assert done.returncode == 2
    assert "abacus" in done.stderr
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------- what is tested has not been learned


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("digits", lambda example: example[0].tobytes()),
        ("names", lambda example: example[0]),
        ("tweets", lambda example: example[0].lower()),
        ("movies", lambda example: example[0].lower()),
        ("speakers", lambda example: example[0].tobytes()),
    ],
)
def test_the_parts_share_nothing(name, key):
    needs(name)
    train, validation, test = ({key(example) for example in part} for part in data.load(name))
    assert not train & validation
    assert not (train | validation) & test


# ---------------------------------------------------------------- the models


def test_shapes(example):
    digits, names, sentiment, speakers = map(example, PICTURES)
    lengths = np.array([3, 5])
    assert digits.FeedForward(7)(tr.zeros(4, 64)).shape == (4, 10)
    assert names.Classifier(9, 6)(np.zeros((5, 2), int), lengths).shape == (2, 18)
    writer = names.Writer(9, 6)
    logits, state = writer(np.zeros((5, 2), int), writer.first(np.array([0, 17])))
    assert logits.shape == (5, 2, 9)
    assert state.h.shape == (1, 2, 6)
    assert sentiment.Reader(9, 6, 3)(np.zeros((5, 2), int), lengths).shape == (2, 3)
    assert sentiment.Bag(9, 3)(np.zeros((5, 2), int), lengths).shape == (2, 3)
    assert speakers.Listener(6)(tr.zeros(5, 2, 12), lengths).shape == (2, 9)


@pytest.mark.parametrize("which", ["Classifier", "Reader", "Bag", "Listener"])
def test_padding_changes_no_answer(which, example):
    names, sentiment, speakers = map(example, ["names", "sentiment", "speakers"])
    model = {
        "Classifier": lambda: names.Classifier(9, 6),
        "Reader": lambda: sentiment.Reader(9, 6, 3),
        "Bag": lambda: sentiment.Bag(9, 3),
        "Listener": lambda: speakers.Listener(6),
    }[which]().eval()
    for parameter in model.parameters():
        parameter.assign(tr.randn(*parameter.shape))  # a bag's are 0 at first
    random = np.random.default_rng(0)
    x = random.standard_normal((5, 1, 12)).astype(np.float32) if which == "Listener" else random.integers(0, 9, (5, 1))
    more = np.concatenate([x, x[:3]])
    given = (lambda x: tr.tensor(x)) if which == "Listener" else (lambda x: x)
    alone, padded = model(given(x), np.array([5])).numpy(), model(given(more), np.array([5])).numpy()
    np.testing.assert_allclose(padded, alone, rtol=1e-5, atol=1e-6)
    assert not np.allclose(model(given(more), np.array([8])).numpy(), alone)


def test_the_writer_begins_with_the_nation(example):
    names = example("names")
    writer = names.Writer(9, 6).eval()
    x = np.zeros((4, 2), int)
    logits, _ = writer(x, writer.first(np.array([2, 3])))
    assert not np.allclose(logits.numpy()[:, 0], logits.numpy()[:, 1])


# ---------------------------------------------------------------- the baselines


def test_nearest_neighbour(example):
    learned = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([3, 8])
    found = example("digits").nearest_neighbour(learned, np.array([[0.9, 0.6], [0.1, 0.2]]))
    assert found.tolist() == [8, 3]


def test_nearest_means_hear_no_more_than_there_is(example):
    speakers = example("speakers")
    centres = np.arange(9, dtype=np.float32)[:, None] * np.ones(12, np.float32)
    train = speakers.prepare([(centres[k, None], k) for k in range(9)], 0.0, 1.0)
    heard = speakers.prepare([(centres[[2, 4, 6]], 4), (centres[[7]], 7)], 0.0, 1.0)
    assert speakers.nearest_means(train, heard).T.tolist() == [[2, 3, 4], [7, 7, 7]]


def test_opinions_at_the_end_are_the_answer(example):
    speakers = example("speakers")
    model, random = speakers.Listener(6).eval(), np.random.default_rng(0)
    heard = speakers.prepare([(random.standard_normal((T, 12), np.float32), 0) for T in (2, 4)], 0.0, 1.0)
    p = speakers.opinions(model, heard)
    assert p.shape == (4, 2, 9)
    answer = tr.softmax(model(tr.tensor(heard.x), heard.lengths)).numpy()
    np.testing.assert_allclose(p[-1], answer, rtol=1e-5)
    np.testing.assert_allclose(p[1:, 0], np.broadcast_to(answer[0], (3, 9)), rtol=1e-5)  # it has ended


def test_naive_bayes_by_hand(example, monkeypatch):
    names = example("names")
    monkeypatch.setattr(names, "LONGEST_GRAM", 1)
    letters = data.Vocabulary.of("ab", special=data.SPECIAL)
    train = names.Names([("a", "Irish"), ("a", "Irish"), ("b", "Dutch")], letters)
    test = names.Names([("aaa", "Irish"), ("bb", "Dutch"), ("cc", "Irish")], letters)
    found = [names.NATIONS.symbols[k] for k in names.naive_bayes(train, test).argmax(axis=-1)]
    assert found == ["Irish", "Dutch", "Irish"]  # what is unknown says nothing, and more names are Irish


def test_words_and_features(example):
    sentiment = example("sentiment")
    words = sentiment.words_of("@united I can't WAIT!! https://t.co/1x #fun")
    assert words == ["@united", "i", "can't", "wait", "!!", "http", "#fun"]
    assert sentiment.words_of(" ") == [data.UNKNOWN]
    assert sentiment.features_of(["so", "so"]) == ["< so", "so", "so >", "so so"]


def test_the_last_opinion_is_of_the_whole_text(example):
    sentiment = example("sentiment")
    vocabulary = data.Vocabulary([data.PADDING, data.UNKNOWN, "a", "b"])
    texts = sentiment.Texts([["a", "b", "b"], ["b"]], np.array([0, 1]), vocabulary, 0.1)
    model = sentiment.Reader(4, 6, 3).eval()
    found = sentiment.opinion(model, texts, 0)
    p = tr.softmax(model(*data.pad([texts.ids[0]]))).numpy()[0]
    assert found.shape == (3, 3)
    np.testing.assert_allclose(found[-1], p, rtol=1e-5)


def test_words_are_unknown_in_training_alone(example):
    sentiment = example("sentiment")
    vocabulary = data.Vocabulary([data.PADDING, data.UNKNOWN, "a"])
    texts = sentiment.Texts([["a"] * 50] * 4, np.zeros(4, int), vocabulary, 0.5)
    ((x, _, _),) = texts.batches(tr.Generator(0))
    ((same, _, _),) = texts.batches()
    assert 0.3 < np.mean(x == 1) < 0.7
    assert (same == 2).all()
