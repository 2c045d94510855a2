"""Examples that write: words as they are said, names of letters, chorales. They run, and what they say of it is so."""

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import data

EXAMPLES = Path(__file__).parents[1] / "examples"
SETS = {"pronounce": "pronounce", "captions": "glyphs", "music": "chorales"}
PICTURES = {
    "pronounce": ["attention.png", "beam-sphinx.svg"],
    "captions": ["captions.png"],
    "music": ["chorale.png"],
}
FIGURE = r"{} ?: \d[\d.e-]* \({} \d[\d.e-]*\)"
FIGURES = {
    "pronounce": FIGURE.format("phone error rate", "the most similar spelling"),
    "captions": FIGURE.format("names exact", "nearest glyph's name"),
    "music": FIGURE.format("bits per step", "bigrams"),
}


def needs(name):
    """Return a set, or skip."""
    if not data.is_fetched(name):
        pytest.skip(f"needs a data set: python -m tinyrnn.data fetch {name}")
    return data.load(name)


@pytest.fixture(scope="module", autouse=True)
def _examples():
    """Let the examples find what they share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield


def run(name, *arguments, **environment):
    command = [sys.executable, EXAMPLES / f"{name}.py", *map(str, arguments)]
    environment = os.environ | {"MPLBACKEND": "agg"} | environment
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


# ---------------------------------------------------------------- as a user runs them


@pytest.fixture(scope="module", params=SETS)
def quick(request, tmp_path_factory):
    needs(SETS[request.param])
    out = tmp_path_factory.mktemp(request.param)
    own = ("--words", "sphinx") if request.param == "pronounce" else ()
    return request.param, run(request.param, "--quick", *own, "--out", out), out


def test_it_runs_and_ends_in_its_figure(quick):
    name, done, out = quick
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(FIGURES[name], done.stdout.splitlines()[-1])
    assert "Warning" not in done.stderr
    for picture in PICTURES[name]:
        path = out / picture
        if path.suffix == ".svg" and not path.exists():
            path = path.with_suffix(".dot")  # where there is no Graphviz
        assert path.stat().st_size > 1000
        assert str(path) in done.stdout
    assert (out / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(("name", "arguments", "message"), [
    *((name, ["--backend", "abacus"], "backend 'abacus' is unknown") for name in SETS),
    ("captions", ["--seconds", "-1"], "seconds is -1"),
    ("pronounce", ["--width", "0"], "--width 0; expected 1 or more"),
    ("music", ["--piece", "45"], "--piece 45; expected 0 to 14"),
])  # fmt: skip
def test_wrong_options_are_told_in_a_line(name, arguments, message, tmp_path):
    needs(SETS[name])
    done = run(name, "--quick", *arguments, "--out", tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", SETS)
def test_a_set_that_is_missing_is_named_with_what_to_do(name, tmp_path):
    done = run(name, "--quick", "--out", tmp_path, TINYRNN_DATA=str(tmp_path / "empty"))
    assert done.returncode == 1
    assert f"python -m tinyrnn.data fetch {SETS[name]}" in done.stderr
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------- pronounce


def test_no_word_is_learned_and_tested():
    train, validation, test = ({word for word, _ in part} for part in needs("pronounce"))
    assert not (train & test) | (train & validation) | (validation & test)


def test_error_rates():
    import command
    import pronounce

    assert command.edits("kitten", "sitting") == 3
    assert command.edits("", "abc") == command.edits("abc", "") == 3
    words = [("a", [("AH",), ("EY",)]), ("cat", [("K", "AE", "T")])]
    assert pronounce.error_rates([("EY",), ("K", "T")], words) == (1 / 4, 1 / 2)  # the second way of saying a is right
    assert pronounce.error_rates([("EY",), ("K", "AE", "T")], words) == (0, 0)


def test_the_baseline_says_a_word_like_the_most_similar_one():
    import pronounce

    learned = [("dog", [("D", "AO", "G")]), ("hat", [("HH", "AE", "T")]), ("that", [("DH", "AE", "T")])]
    said = pronounce.nearest_spelling(learned, [("hats", []), ("dogs", []), ("xyz", [])])
    assert said[:2] == [("HH", "AE", "T"), ("D", "AO", "G")]
    assert len(said) == 3


def test_batches_hold_words_as_they_are():
    import pronounce

    words = [("cat", [("K", "AE", "T")]), ("though", [("DH", "OW")])] * pronounce.BATCH
    letters = data.Vocabulary.of("catough", special=[data.PADDING, data.UNKNOWN])
    phones = data.Vocabulary.of(["K", "AE", "T", "DH", "OW"], [data.PADDING, data.BEGIN, data.END], separator=" ")
    batches = pronounce.batches_of(words, letters, phones)(tr.Generator(0))
    assert len(batches) == 2
    assert {x.shape for x, *_ in batches} <= {(Tx, pronounce.BATCH) for Tx, _ in pronounce.SIZES}
    pairs = set()
    for x, lengths, before, y in batches:
        assert (before[0] == phones.id(data.BEGIN)).all()
        for b in range(pronounce.BATCH):
            assert phones.decode(before[:, b]) == phones.decode(y[:, b])
            pairs.add((letters.decode(x[: lengths[b], b]), phones.decode(y[:, b])))
    assert pairs == {("cat", "K AE T"), ("though", "DH OW")}


def test_padding_changes_nothing_and_steps_are_what_the_whole_is(backend):
    import pronounce

    model = pronounce.Speaker(9, 7, 6).eval()
    x, phones = np.array([[3, 4, 5, 8, 8]]).T, np.array([[1, 2, 3, 4]]).T
    alone, _, weights = model.look(phones, model.encode(x[:3], [3]))
    padded, _, padded_weights = model.look(phones, model.encode(x, [3]))
    assert alone.shape == (4, 1, 7)
    np.testing.assert_allclose(alone.numpy(), padded.numpy(), atol=1e-6)
    np.testing.assert_allclose(weights.numpy()[:, :, 0].sum(axis=1), 1, atol=1e-6)
    assert (padded_weights.numpy()[:, 3:] == 0).all()
    state, logits = model.encode(x, [3]), []
    for t in range(4):
        one, state = model.decode(phones[t : t + 1], state)
        logits.append(one.numpy()[0])
    np.testing.assert_allclose(np.stack(logits), padded.numpy(), atol=1e-6)


# ---------------------------------------------------------------- captions


def test_no_character_is_learned_and_tested():
    train, validation, test = ({caption for _, caption in part} for part in needs("glyphs"))
    assert not (train & test) | (train & validation) | (validation & test)


def test_captions_are_measured_and_copied():
    import captions

    pictures = [np.full((24, 24), grey, np.float32) for grey in (0, 0.5, 1)]
    learned = list(zip(pictures, ("small a", "small b", "small c"), strict=True))
    tested = [(pictures[2] * 0.9, "small c with tilde"), (pictures[0] + 0.1, "small a")]
    names = captions.nearest_names(learned, tested)
    assert names == ["small c", "small a"]
    assert captions.measured(names, tested) == (1 / 2, 2 / 6)


def test_a_picture_is_moved_and_otherwise_as_it_was():
    import captions

    picture = np.zeros((24, 24), np.float32)
    picture[10:13, 8:12] = np.arange(1, 13).reshape(3, 4)
    words = data.Vocabulary.of(["small", "a"], [data.PADDING, data.BEGIN, data.END], separator=" ")
    ((moved, before, y),) = captions.batches_of([(picture, "small a")] * captions.BATCH, words)(tr.Generator(0))
    assert moved.shape == (24, 24, captions.BATCH)
    places = set()
    for b in range(captions.BATCH):
        rows, columns = np.nonzero(moved[:, :, b])
        places.add((int(rows[0] - 10), int(columns[0] - 8)))
        np.testing.assert_array_equal(
            moved[rows[0] : rows[0] + 3, columns[0] : columns[0] + 4, b], picture[10:13, 8:12]
        )
        assert words.decode(y[:, b]) == words.decode(before[:, b]) == "small a"
    assert max(max(map(abs, place)) for place in places) == captions.SHIFT
    assert len(places) == (2 * captions.SHIFT + 1) ** 2


def test_a_convolution_sees_each_second_patch(backend):
    import captions

    layer = captions.Convolution(2, 3)
    x = tr.randn(6, 4, 5, 2)
    W, around = layer.linear.W.numpy().reshape(3, 3, 2, 3), np.pad(x.numpy(), ((1, 1), (1, 1), (0, 0), (0, 0)))
    y = layer(x).numpy()
    assert y.shape == (3, 2, 5, 3)
    for i, j in np.ndindex(3, 2):
        expected = np.einsum("hwbi,hwio->bo", around[2 * i : 2 * i + 3, 2 * j : 2 * j + 3], W)
        np.testing.assert_allclose(y[i, j], np.maximum(expected, 0), atol=1e-5)
    model = captions.Captioner(7, 8)
    logits, _ = model.decode(np.zeros((4, 5), np.int64), model.encode(tr.randn(24, 24, 5)))
    assert logits.shape == (4, 5, 7)


# ---------------------------------------------------------------- music


def melody(chorale):
    """Return how a soprano begins, in any key."""
    moves = np.diff(chorale[:, 0][chorale[:, 0] > 0])
    return tuple(moves[moves != 0][:12])


def test_no_melody_is_learned_and_tested():
    train, validation, test = (set(map(melody, part)) for part in needs("chorales"))
    assert not (train & test) | (train & validation) | (validation & test)


def test_the_table_of_bigrams_is_a_distribution():
    import music

    soprano = np.array([60, 62, 60, 64] * 9)
    piece = np.stack([soprano, *np.full((3, 36), 50)], axis=1)  # the others are certain
    assert music.bigram_bits([piece], [piece], 0.01) < 0.01  # it has seen just that
    assert music.bigram_bits([piece], [piece], 10) > 0.5  # and here it reckons with other things
    for before in (60, 70):  # what it has seen, and what it has not
        ends = [[[before, 50, 50, 50], [pitch, 50, 50, 50]] for pitch in (0, *range(music.LOWEST, music.HIGHEST + 1))]
        bits = [music.bigram_bits([piece], [np.array(end)], 1e-3) for end in ends]
        assert np.isfinite(bits).all()
        assert sum(2.0**-bit for bit in bits) == pytest.approx(1, abs=1e-2)


def test_a_network_of_voices(backend):
    """No voice knows itself or those below it; what is masked counts nothing."""
    import music

    tr.manual_seed(0)
    model = music.Composer(12, 8).eval()
    before, clock = np.zeros((3, 2, 4), np.int64), np.zeros((3, 2), np.int64)
    after = np.arange(24).reshape(3, 2, 4) % 12
    h, _ = model.remember(before, clock)
    for voice in range(4):
        assert model.voice(voice, h, after[:, :, :voice]).shape == (3, 2, 12)
    whole = model.surprise(before, clock, after).item()
    losses = [
        tr.cross_entropy(model.voice(voice, h, after[:, :, :voice]), after[:, :, voice]).item() for voice in range(4)
    ]
    assert whole == pytest.approx(sum(losses), rel=1e-5)
    mask = np.array([[True, True], [True, False], [True, False]])
    shorter = after.copy()
    shorter[1:, 1] = 5
    kept = [model.surprise(before, clock, y, mask).item() for y in (after, shorter)]
    assert kept[0] == pytest.approx(kept[1], rel=1e-6)


def test_what_it_writes_begins_as_it_was_told_and_repeats_by_its_seed():
    import music

    tr.manual_seed(0)
    model = music.Composer(music.HIGHEST - music.LOWEST + 2, 8)
    start = np.array([[72, 67, 0, 48], [72, 65, 64, 48]])
    first, again, other = (music.compose(model, start, 20, 1.0, tr.Generator(seed)) for seed in (1, 1, 2))
    assert first.shape == (20, 4)
    np.testing.assert_array_equal(first[:2], start)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    sung = first[first != music.REST]
    assert music.LOWEST <= sung.min() <= sung.max() <= music.HIGHEST


def test_windows_are_of_the_piece_and_know_the_clock():
    import music

    piece = np.stack([np.arange(200) % 40 + 40] * 4, axis=1)
    found = 0
    for before, clock, after, mask in music.batches_of([piece] * 30)(tr.Generator(0)):
        assert before.shape == after.shape == (music.WINDOW, music.BATCH, 4)
        assert clock.shape == mask.shape == (music.WINDOW, music.BATCH)
        np.testing.assert_array_equal(before[1:][mask[1:]], after[:-1][mask[1:]])
        key = before[0, :, 0] - (clock[0] % 8)  # the piece rises by one in each step, from a multiple of 8
        assert ((key - key[0]) % 8 <= 7).all()
        found += mask.sum()
    assert found > 4000


def parsed(content):
    """Read a standard MIDI file: its steps in a quarter, and for each track notes as (start, end, pitch)."""
    head, size, kind, count, division = struct.unpack(">4sIHHH", content[:14])
    assert (head, size, kind) == (b"MThd", 6, 1)
    tracks, at = [], 14
    while at < len(content):
        name, size = struct.unpack(">4sI", content[at : at + 8])
        assert name == b"MTrk"
        events, at = content[at + 8 : at + 8 + size], at + 8 + size
        tracks.append(read_track(events))
    assert len(tracks) == count
    return division, tracks


def read_track(events):
    notes, sounding, time, k = [], {}, 0, 0
    while k < len(events):
        delta = 0
        while True:
            byte, k = events[k], k + 1
            delta = delta << 7 | byte & 0x7F
            if byte < 0x80:
                break
        time, kind, k = time + delta, events[k] >> 4, k + 1
        if kind == 0xF:
            meta, length = events[k], events[k + 1]
            k += 2 + length
            if meta == 0x2F:
                assert k == len(events)
        elif kind == 0xC:
            k += 1
        else:
            pitch, k = events[k], k + 2
            if kind == 9:
                assert pitch not in sounding
                sounding[pitch] = time
            else:
                assert kind == 8
                notes.append((sounding.pop(pitch), time, pitch))
    assert not sounding
    return notes


def test_a_midi_file_holds_the_notes_that_were_written(tmp_path):
    import music

    piece = np.array([[72, 0, 60, 48]] * 3 + [[71, 67, 60, 48]] * 200 + [[0, 67, 0, 50]] * 2)
    music.write_midi(tmp_path / "piece.mid", piece)
    division, (tempo, *voices) = parsed((tmp_path / "piece.mid").read_bytes())
    assert (division, tempo) == (4, [])
    assert voices == [
        [(0, 3, 72), (3, 203, 71)],
        [(3, 205, 67)],
        [(0, 203, 60)],
        [(0, 203, 48), (203, 205, 50)],
    ]
    assert music.longest_note(piece) == 203


def test_what_the_example_wrote_can_be_read_back(quick):
    name, done, out = quick
    if name != "music":
        pytest.skip("of music")
    chorale, longest = (out / "chorale.mid").read_bytes(), int(re.search(r"longest note: (\d+)", done.stdout)[1])
    _, (_, *voices) = parsed(chorale)
    assert len(voices) == 4
    assert max(end - start for voice in voices for start, end, _ in voice) == longest
    _, (_, *bach) = parsed((out / "bach.mid").read_bytes())
    test = needs("chorales").test[0]
    for voice, column in zip(bach, test.T, strict=True):
        sung = np.zeros(len(test), np.int64)
        for start, end, pitch in voice:
            sung[start:end] = pitch
        np.testing.assert_array_equal(sung, column)


def test_tunes_are_learned_as_text(tmp_path):
    """The commands in music's docstring, but shorter."""
    needs("tunes")
    learned = run("char_rnn", "--text", "tunes", "--steps", 3, "--hidden", 16, "--out", tmp_path)
    assert learned.returncode == 0, learned.stderr
    options = ("--checkpoint", tmp_path, "--prompt", "T:", "--temperature", 0.7, "--length", 30)
    written = run("char_rnn", "sample", *options)
    assert written.returncode == 0, written.stderr
    assert written.stdout.startswith("T:")
