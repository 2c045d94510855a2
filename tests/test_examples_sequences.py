"""The examples that label, forecast and rewrite sequences: run as their users run them, and what they hold out."""

import argparse
import itertools
import os
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest

import tinyrnn as tr
from tests.example_files import EXAMPLES, load_example
from tinyrnn import data
from tinyrnn.fit import History
from tinyrnn.generate import sample

command, entities, forecast, number_words, tagging = map(
    load_example, ("command", "entities", "forecast", "number_words", "tagging")
)


def needs(*names):
    """Skip a test where a set is not fetched; the reason has the command that fetches it."""
    missing = [name for name in names if not data.is_fetched(name)]
    commands = "; ".join(f"python -m tinyrnn.data fetch {name}" for name in missing)
    return pytest.mark.skipif(bool(missing), reason=commands)


def run(name, *arguments):
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
    environment = os.environ | {"TQDM_DISABLE": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


# ---------------------------------------------------------------- as their users run them


@pytest.mark.parametrize(("name", "more", "metric", "baseline", "picture"), [
    pytest.param("tagging", [], "accuracy", "most frequent tag", "confusion", marks=needs("tagging")),
    pytest.param("entities", [], "F1", "capital letters", "names", marks=needs("entities")),
    pytest.param(
        "forecast", [], "mean error, °C a day ahead", "persistence", "two_weeks", marks=needs("weather", "temperatures")
    ),
    pytest.param("number_words", [], "exact", "nearest training example", "attention", marks=needs("numbers")),
    pytest.param(
        "number_words", ["--data", "dates"], "exact", "nearest training example", "attention", marks=needs("dates")
    ),
])  # fmt: skip
def test_it_runs_and_says_last_what_it_has_reached(name, more, metric, baseline, picture, tmp_path):
    done = run(name, "--quick", "--seconds", 1, "--out", tmp_path, *more)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    found = re.fullmatch(rf"{re.escape(metric)}: (\S+) \({baseline} (\S+)\)", last)
    assert found, last
    assert all(np.isfinite(float(figure)) for figure in found.groups())
    assert (tmp_path / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.rglob("checkpoint.safetensors"))


def run_here(monkeypatch, name, *arguments):
    """Run a script in this process, and return what it ends in."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return end.value.code


@pytest.mark.parametrize(
    ("name", "missing"),
    [("tagging", "tagging"), ("entities", "entities"), ("forecast", "temperatures"), ("number_words", "numbers")],
)
def test_a_set_that_is_not_there_is_told_with_the_command_that_fetches_it(name, missing, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYRNN_DATA", str(tmp_path / "empty"))
    told = run_here(monkeypatch, name, "--out", tmp_path)
    assert told.endswith(f"fetch it with: python -m tinyrnn.data fetch {missing}")


@pytest.mark.parametrize(("arguments", "message"), [
    (["--data", "names"], "error: --data is 'names'; expected numbers or dates"),
    (["--width", 0], "error: --width is 0; expected 1 or more"),
])  # fmt: skip
def test_wrong_options_end_in_a_line(arguments, message, tmp_path, monkeypatch):
    assert message in run_here(monkeypatch, "number_words", "--quick", "--out", tmp_path, *arguments)


def test_seconds_below_zero_are_told(tmp_path, monkeypatch, capsys):
    assert run_here(monkeypatch, "tagging", "--seconds", "-1", "--out", tmp_path) == 2
    assert "--seconds is -1; expected 0 or more" in capsys.readouterr().err


def test_a_folder_that_cannot_be_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("dear to somebody", encoding="utf-8")
    assert run_here(monkeypatch, "tagging", "--out", tmp_path / "file") == 2
    assert f"--out {tmp_path / 'file'}: File exists; expected a folder that can be" in capsys.readouterr().err


def test_ctrl_c_is_not_taken_for_too_few_seconds():
    options = argparse.Namespace(seconds=20.0)
    assert command.too_early(History(ended="Ctrl-C"), options) == "Ctrl-C came before the first epoch had ended"
    assert command.too_early(History(ended="seconds"), options).startswith("--seconds 20 ended before the first epoch")


def test_a_backend_that_is_not_there_is_told(tmp_path, monkeypatch, capsys):
    assert run_here(monkeypatch, "tagging", "--backend", "abacus", "--out", tmp_path) == 2
    assert "abacus" in capsys.readouterr().err


@needs("tagging")
def test_too_few_seconds_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tagging.py", "--quick", "--seconds", "0", "--out", str(tmp_path)])
    tagging.main()
    assert "--seconds 0 ended before the first epoch did; give more" in capsys.readouterr().out


# ---------------------------------------------------------------- what is held out


def assert_shared_by_none(parts, keys):
    """See that no key is in two parts, and that each part has some."""
    found = [{key for example in part for key in keys(example)} for part in parts]
    assert all(found)
    for i, a in enumerate(found):
        for b in found[:i]:
            assert not a & b


@needs("tagging")
def test_no_sentence_is_in_two_parts():
    assert_shared_by_none(data.load("tagging"), lambda example: [" ".join(example[0]).lower()])


@needs("entities")
def test_no_name_and_no_template_is_in_two_parts():
    parts = data.load("entities")

    def names(example):
        words, labels = example
        return {(words[i:j], kind) for i, j, kind in entities.names_in(labels)}

    def parts_of_persons(example):
        return {word for name, kind in names(example) if kind == "PER" for word in enumerate(name)}

    def template(example):
        words = ("" if label[0] == "I" else label[2:] or word for word, label in zip(*example, strict=True))
        return [" ".join(filter(None, words))]

    assert_shared_by_none(parts, names)
    assert_shared_by_none(parts, parts_of_persons)
    assert_shared_by_none(parts, template)
    assert {"PER was born in LOC ."} < {template(example)[0] for example in parts.test}


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in ("numbers", "dates")])
def test_neither_an_input_nor_an_answer_is_in_two_parts(name):
    parts = data.load(name)
    assert_shared_by_none(parts, lambda pair: [pair[0]])
    assert_shared_by_none(parts, lambda pair: [pair[1]])
    assert number_words.scores(parts.test, [x for x, _ in parts.test])[0] == 0  # copying is no answer


@pytest.mark.parametrize("problem", [forecast.WEATHER, forecast.TEMPERATURES])
def test_no_time_is_forecast_in_two_parts_and_none_beyond_the_end(problem):
    parts = data.Split(*(np.zeros((n, 4), np.float32) for n in (800, 200, 300)))
    now = forecast.now_of_parts(problem, parts)
    ahead = np.array(problem.horizons)
    forecasts = [(part[:, None] + ahead).ravel() for part in now]
    assert [(f.min(), f.max()) for f in forecasts[1:]] == [(800, 999), (1000, 1299)]
    assert now[0].min() - problem.window + 1 >= (problem.season if problem.start == "seasonal" else 1)
    assert forecasts[0].max() == 799


@pytest.mark.parametrize("problem", [forecast.WEATHER, forecast.TEMPERATURES])
def test_a_forecast_depends_on_nothing_that_comes_later(problem):
    x = np.random.default_rng(0).random((900, 4)).astype(np.float32)
    later = x.copy()
    later[600:] += 1
    now = np.arange(500, 600)
    before, after = (forecast.features(series, problem, 400) for series in (x, later))
    np.testing.assert_array_equal(before[:600], after[:600])
    assert (before[600:] != after[600:]).any()
    for name in forecast.SIMPLE:
        a, b = (forecast.simple_forecast(name, series[:, 0], now, problem) for series in (x, later))
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------- baselines and figures


def test_simple_forecasts_are_what_their_names_say():
    y, now = np.arange(1000.0), np.array([500, 600])
    persistence, seasonal = (forecast.simple_forecast(name, y, now, forecast.TEMPERATURES) for name in forecast.SIMPLE)
    assert persistence.tolist() == [[500, 500], [600, 600]]
    assert seasonal.tolist() == [[477, 500], [577, 600]]  # an hour ahead is 23 hours after that time yesterday


@pytest.mark.parametrize(("labels", "names"), [
    ("O B-PER I-PER O", {(1, 3, "PER")}),
    ("B-LOC B-LOC I-LOC", {(0, 1, "LOC"), (1, 3, "LOC")}),
    ("I-ORG I-ORG O I-PER", {(0, 2, "ORG"), (3, 4, "PER")}),
    ("B-PER I-LOC", {(0, 1, "PER"), (1, 2, "LOC")}),
    ("O O", set()),
])  # fmt: skip
def test_names_are_found_in_labels(labels, names):
    assert entities.names_in(labels.split()) == names


def test_f1_counts_whole_names():
    test = [(("Mary", "Smith", "left", "Rome"), ("B-PER", "I-PER", "O", "B-LOC"))]
    assert entities.f1(test, [entities.names_in(test[0][1])]) == 1
    assert entities.f1(test, [{(0, 2, "PER")}]) == pytest.approx(2 / 3)
    assert entities.f1(test, [{(0, 1, "PER"), (3, 4, "PER")}]) == 0
    assert entities.f1(test, [set()]) == 0


def test_the_baselines_of_entities_know_names_and_capitals():
    train = [
        (("In", "New", "York", "it", "rained"), ("O", "B-LOC", "I-LOC", "O", "O")),
        (("Ann", "Lee", "likes", "Lee", "Ltd"), ("B-PER", "I-PER", "O", "B-ORG", "I-ORG")),
    ]
    words = ("In", "New", "York", "Bob", "met", "Roe", "Ltd")
    assert entities.by_dictionary(train, [(words, ())]) == [{(1, 3, "LOC")}]
    assert entities.by_capitals(train, [(words[3:], ())]) == [{(2, 4, "ORG")}]
    assert entities.by_capitals(train, [(("In", "Old", "York"), ())]) == [{(1, 3, "LOC")}]


def test_the_likeliest_labels_are_the_best_of_all_that_are_allowed():
    symbols = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
    for seed in range(20):
        logits = np.random.default_rng(seed).normal(size=(4, 5))
        allowed = [
            k
            for k in itertools.product(range(5), repeat=4)
            if all(symbols[b][0] != "I" or symbols[a][1:] == symbols[b][1:] for a, b in itertools.pairwise((4, *k)))
        ]
        best = max(allowed, key=lambda k: logits[range(4), k].sum())
        assert entities.likeliest(logits, symbols) == [symbols[k] for k in best]


def test_words_beside_names_are_exchanged_and_names_are_not():
    train = [(("In", "Rome", "it", "rained"), ("O", "B-LOC", "O", "O")), (("Ann", "left"), ("B-PER", "O"))]
    others = entities.words_beside_names(train)
    assert others == ["In", "it", "rained", "left"]
    sentence = (("Ask", "Bob", "Roe", "now"), ("O", "B-PER", "I-PER", "O"))
    made = [entities.exchanged(sentence, others, np.random.default_rng(seed)) for seed in range(200)]
    assert {labels for _, labels in made} == {sentence[1]}
    assert {words[1:3] for words, _ in made} == {("Bob", "Roe")}
    invented = {words[3] for words, _ in made} - {"now"}
    assert {"".join(sorted(word)) for word in invented} == {"".join(sorted(word.lower())) for word in others}
    assert "ni" in invented
    assert all(words[0][0].isupper() for words, _ in made)


def test_the_baseline_of_tagging_knows_each_words_most_frequent_tag():
    train = [(("su", "Su", "al"), ("NOUN", "NOUN", "VERB")), (("su", "al"), ("ADJ", "NOUN"))]
    test = [(("SU", "al", "gel"), ("NOUN", "VERB", "VERB"))]
    found = tagging.most_frequent_tags(train, test)
    assert found == [("NOUN", "VERB", "NOUN")]
    assert tagging.accuracy(test, found) == pytest.approx(2 / 3)
    assert tagging.spellings("Evde") == ["evde", "e", "de", "vde", "evde"]


def test_answers_are_scored_by_exactness_and_by_letters():
    assert command.edits("elf", "zwölf") == 3
    assert command.edits("", "drei") == command.edits("drei", "") == 4
    pairs = [("11", "elf"), ("12", "zwölf")]
    assert number_words.scores(pairs, ["elf", "zwolf"]) == (0.5, 0.875)
    train = [("123", "a"), ("40", "b"), ("23", "c")]
    assert number_words.nearest_answers(train, [("24", "?"), ("173", "?"), ("41", "?")]) == ["c", "a", "b"]


# ---------------------------------------------------------------- the networks


def test_tagger_labels_every_word_and_does_not_read_the_padding(backend):
    model = tagging.Tagger([20, 9], tags=5)
    model.eval()
    x = np.random.default_rng(0).integers(0, 9, (6, 3, 2))
    logits = model(x, np.array([6, 2, 4]))
    assert logits.shape == (6, 3, 5)
    np.testing.assert_allclose(logits.numpy()[:2, 1], model(x[:2, 1:2], np.array([2])).numpy()[:, 0], atol=1e-6)


def test_entity_tagger_labels_a_word_by_its_letters(backend):
    model = entities.EntityTagger(letters=10, labels=7)
    model.eval()
    letters, lengths = data.pad([[1, 2, 3, 4], [5, 6], [7, 7, 7]])
    words, ends = data.pad([[0, 1, 2, 1], [2, 0]])
    logits = model(letters, lengths, words, ends).numpy()
    assert logits.shape == (4, 2, 7)
    alone = model(letters[:, [0, 2]], lengths[[0, 2]], np.array([[1], [0]]), np.array([2])).numpy()
    np.testing.assert_allclose(logits[:2, 1], alone[:, 0], atol=1e-6)


def test_forecaster_answers_once_for_each_horizon(backend):
    model = forecast.Forecaster(inputs=4, hidden=8, horizons=2)
    assert model(tr.zeros(10, 3, 4)).shape == (3, 2)


@pytest.fixture
def translator(backend):
    model = number_words.Translator(source=8, target=6)
    model.eval()
    return model


INPUTS = np.array([[3, 4], [5, 2], [7, 0]]), np.array([3, 2])  # x (T, B) and lengths


def test_translator_step_by_step_says_what_it_says_at_once(translator):
    y = np.array([[1, 1], [3, 5], [4, 2], [2, 2]])
    at_once, by_step = translator(*INPUTS, y), translator(*INPUTS, y, p=1e-12)
    assert at_once.shape == (4, 2, 6)
    np.testing.assert_allclose(at_once.numpy(), by_step.numpy(), atol=1e-5)
    _, weights, _ = translator.look(y, translator.encode(*INPUTS))
    assert weights.shape == (4, 3, 2)
    assert weights.numpy()[:, 2, 1].max() == 0  # it does not look at padding


def test_translator_may_be_given_its_own_letters_alone(translator):
    y = np.array([[1, 1], [3, 5], [4, 2]])
    others = np.array([[1, 1], [5, 3], [2, 4]])
    np.testing.assert_array_equal(translator(*INPUTS, y, p=1).numpy(), translator(*INPUTS, others, p=1).numpy())
    assert (translator(*INPUTS, y).numpy() != translator(*INPUTS, others).numpy()).any()
    own = translator(*INPUTS, y, p=1).numpy().argmax(-1)
    written = sample(translator.decode, y[:1], 3, state=translator.encode(*INPUTS), temperature=0)
    assert own.T.tolist() == written


def test_seeds_make_the_same_first_network():
    def weights(seed):
        tr.manual_seed(seed)
        return tagging.Tagger([20, 9], tags=5).output.W.tolist()

    assert weights(1) == weights(1) != weights(2)
