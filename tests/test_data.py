"""Text, vocabularies, streams and splits."""

import ast
import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyrnn as tr
from tinyrnn import data
from tinyrnn.data import BEGIN, END, PADDING, SPECIAL, UNKNOWN, Streams, Vocabulary, split, split_by_key, text
from tinyrnn.errors import DataError, IndexRangeError

# Text


def test_numpy_docs_are_plain_and_the_same_every_time():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        docs = data.numpy_docs()
    assert not caught
    assert docs == data.read_text("numpy-docs")
    assert 1_000_000 < len(docs) < 4_000_000
    assert set(docs) <= {"\n", *map(chr, range(32, 127))}
    assert not any(line.endswith(" ") for line in docs.split("\n"))
    assert "Return evenly spaced numbers over a specified interval." in docs


def test_docstrings_come_in_the_order_of_the_source():
    source = "'module'\nclass A:\n  'A'\n  def f(self):\n    'f'\nasync def g():\n  'g'\ndef h():\n  pass\n"
    assert list(text._docstrings(ast.parse(source))) == ["module", "A", "f", "g"]


def test_a_file_is_read_without_mark_and_with_plain_line_endings(tmp_path):
    file = tmp_path / "text.txt"
    file.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n\xc3\xa9")
    assert data.read_text(file) == data.read_text(str(file)) == "a\nb\nc\né"


def test_a_path_is_always_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("shakespeare").write_text("mine", encoding="utf-8")
    assert data.read_text(Path("shakespeare")) == "mine"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"abc\xff\xfe", "is not UTF-8: the byte 0xff at offset 3"),
        (b"\xef\xbb\xbfabc\xff", "offset 6"),
        (b"ab\xc3", "offset 2 .*unexpected end of data"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path, content, message):
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"text\.txt.*{message}"):
        data.read_text(file)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*nowhere.*numpy-docs, shakespeare and tunes"):
        data.read_text(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is a folder"):
        data.read_text(tmp_path)


def test_sha256_is_that_of_utf_8():
    assert data.sha256("é") == hashlib.sha256(b"\xc3\xa9").hexdigest()
    assert data.sha256("\ud800") == hashlib.sha256(b"\xed\xa0\x80").hexdigest()  # which no file has, but a str may


# Vocabulary


@given(st.text(min_size=1))
def test_vocabulary_round_trip(text):
    vocabulary = Vocabulary.of(text)
    ids = vocabulary.encode(text)
    assert vocabulary.symbols == tuple(sorted(set(text)))
    assert ids.dtype == np.int64
    assert ids.tolist() == [vocabulary.symbols.index(character) for character in text]
    assert vocabulary.decode(ids) == text
    assert vocabulary.decode(ids.tolist()) == text
    assert Vocabulary(vocabulary.symbols).encode(text).tolist() == ids.tolist()


def test_vocabulary_of_nothing_encoded():
    vocabulary = Vocabulary("ab")
    assert vocabulary.encode("").shape == (0,)
    assert vocabulary.decode([]) == ""


def test_vocabulary_keeps_the_order_it_is_given():
    assert Vocabulary("ba").encode("ab").tolist() == [1, 0]


@pytest.mark.parametrize(("unknown", "code"), [("c", "0063"), ("é", "00E9"), ("😀", "1F600"), ("\0", "0000")])
def test_an_unknown_character_is_named(unknown, code):
    with pytest.raises(DataError, match=rf"\(U\+{code}\) at position 2 .* 2 characters 'ab'"):
        Vocabulary("ab").encode("ba" + unknown + "b")


@pytest.mark.parametrize("bad", [-1, 2])
def test_an_id_out_of_range_is_refused(bad):
    with pytest.raises(DataError, match=rf"the id {bad} at position 1 is outside 0 ... 1"):
        Vocabulary("ab").decode([0, bad])


@pytest.mark.parametrize("bad", [[0.0, 1.0], [[0, 1]], 1, [True]])
def test_ids_of_another_kind_are_refused(bad):
    with pytest.raises(DataError, match="whole numbers in one dimension"):
        Vocabulary("ab").decode(bad)


@pytest.mark.parametrize(
    ("symbols", "message"),
    [("", "no symbols"), ([1], "1 is not a text"), (["a", ""], "'' is not a text"), ("aba", "'a' is given")],
)
def test_symbols_that_make_no_vocabulary_are_refused(symbols, message):
    with pytest.raises(DataError, match=message):
        Vocabulary(symbols)


def test_the_repr_of_a_large_vocabulary_is_short():
    vocabulary = Vocabulary(map(chr, range(32, 1000)))
    assert len(vocabulary) == 968
    assert repr(vocabulary).startswith("Vocabulary of 968 characters ' !")
    assert len(repr(vocabulary)) < 90


SENTENCES = [["the", "cat", "sat"], ["the", "dog", "sat"], ["a", "cat"]]
WORDS = [word for sentence in SENTENCES for word in sentence]


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1))
def test_a_vocabulary_of_words_round_trip(words):
    vocabulary = Vocabulary.of(words, separator="\t")
    ids = vocabulary.encode(words)
    assert ids.dtype == np.int64
    assert [vocabulary.symbols[i] for i in ids] == words
    special = Vocabulary.of(words, special=SPECIAL)
    assert special.symbols[:4] == SPECIAL
    plain = [word for word in words if word not in SPECIAL]
    np.testing.assert_array_equal(special.encode(plain), Vocabulary(special.symbols).encode(plain))


def test_words_come_as_a_list_or_as_text():
    vocabulary = Vocabulary.of(WORDS)
    assert vocabulary.symbols == ("a", "cat", "dog", "sat", "the")
    assert vocabulary.encode("the  cat\nsat").tolist() == vocabulary.encode(["the", "cat", "sat"]).tolist() == [4, 1, 3]
    assert vocabulary.decode([4, 1, 3]) == "the cat sat"
    assert vocabulary.encode("").shape == vocabulary.encode([]).shape == (0,)
    assert repr(vocabulary) == "Vocabulary of 5 symbols 'a cat dog sat the'"


def test_unknown_symbols_have_a_symbol_of_their_own():
    words = Vocabulary.of(WORDS, special=(PADDING, UNKNOWN), at_least=2)
    assert words.symbols == (PADDING, UNKNOWN, "cat", "sat", "the")
    assert words.encode("the dog sat").tolist() == [4, 1, 3]
    assert words.decode([4, 1, 3]) == "the <unknown> sat"
    letters = Vocabulary.of("abc", special=[UNKNOWN])
    assert letters.encode("a😀c").tolist() == [1, 0, 3]
    assert letters.encode(["a", "?"]).tolist() == [1, 0]


def test_begin_and_end_enclose_a_sequence():
    letters = Vocabulary.of("0123", special=SPECIAL)
    ids = letters.encode("31", begin=True, end=True)
    assert ids.tolist() == [letters.id(BEGIN), 7, 5, letters.id(END)]
    assert ids.dtype == np.int64
    assert letters.decode(ids) == "31"
    assert letters.decode([7, letters.id(END), 5, letters.id(PADDING)]) == "3"
    assert letters.decode([letters.id(PADDING)]) == ""


@pytest.mark.parametrize("separator", ["", " ", ",", "\t"])
def test_a_text_of_nothing_has_no_symbols(separator):
    symbols = "ab" if separator == "" else ["ab", "c"]
    for special in ([], [UNKNOWN]):
        assert Vocabulary.of(symbols, special=special, separator=separator).encode("").shape == (0,)


def test_a_missing_special_symbol_is_told():
    with pytest.raises(DataError, match=r"'<end>' is not in the Vocabulary of 2 .*special=\[\.\.\., '<end>'\]"):
        Vocabulary("ab").encode("a", end=True)
    with pytest.raises(DataError, match=r"'c' is not in the Vocabulary of 2 characters 'ab'$"):
        Vocabulary("ab").id("c")
    with pytest.raises(DataError, match="'<pad>' is no special symbol; there are <padding>, <unknown>, <begin>, <end>"):
        Vocabulary.of("ab", special=["<pad>"])
    with pytest.raises(DataError, match="at_least=2, rare symbols are unknown; add UNKNOWN"):
        Vocabulary.of("ab", at_least=2)
    with pytest.raises(DataError, match=r"the symbol 'bird' at position 1 is not in the Vocabulary of 5 symbols"):
        Vocabulary.of(WORDS).encode("the bird")


# Streams


def test_the_example_of_the_docstring():
    vocabulary = Vocabulary.of("abcdefghijklmn")
    streams = Streams(vocabulary.encode("abcdefghijklmn"), batch=2, time=3)
    words = [[vocabulary.decode(column) for column in part.T] for window in streams for part in window]
    assert words == [["abc", "ghi"], ["bcd", "hij"], ["def", "jkl"], ["efg", "klm"]]


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 300))
def test_streams(batch, time, extra):
    ids = np.arange(batch * time + extra)
    streams = Streams(ids, batch, time)
    windows = list(streams)
    assert len(windows) == len(streams) >= 1
    for x, y in windows:
        assert x.shape == y.shape == (time, batch)
        assert x.dtype == y.dtype == np.int64
        assert x.flags.c_contiguous
        np.testing.assert_array_equal(y, x + 1)
    # End to end, the streams are the text, and less than one more window is left over.
    text = np.concatenate([x for x, _ in windows]).T.ravel()
    np.testing.assert_array_equal(text, ids[: len(text)])
    assert 0 <= len(ids) - 1 - len(text) < batch * time


def test_a_window_is_a_copy():
    ids = np.arange(10)
    Streams(ids, batch=1, time=3)[0][0][:] = 99
    np.testing.assert_array_equal(ids, np.arange(10))


def test_a_window_outside_is_refused():
    streams = Streams(np.arange(10), batch=1, time=3)
    assert repr(streams) == "Streams(batch=1, time=3, windows=3)"
    for window in (-1, 3):
        with pytest.raises(IndexRangeError, match=rf"window {window} is outside 0 ... 2"):
            streams[window]


def test_a_short_text_is_refused():
    assert len(Streams(np.arange(7), batch=2, time=3)) == 1
    with pytest.raises(DataError, match=r"of 6 characters .* batch 2 and time 3, .* = 7; use a longer"):
        Streams(np.arange(6), batch=2, time=3)


@pytest.mark.parametrize(("batch", "time"), [(0, 3), (3, 0), (-1, -1)])
def test_sizes_below_one_are_refused(batch, time):
    with pytest.raises(DataError, match=f"batch is {batch} and time is {time}"):
        Streams(np.arange(10), batch, time)


@pytest.mark.parametrize("ids", [np.zeros((2, 9), int), np.zeros(9), "abcdefghi"])
def test_streams_of_another_kind_are_refused(ids):
    with pytest.raises(DataError, match="whole numbers in one dimension"):
        Streams(ids, 1, 1)


def test_split_holds_out_the_last_part():
    train, validation = split(np.arange(100))
    assert train.tolist() == list(range(95))
    assert validation.tolist() == list(range(95, 100))


@pytest.mark.parametrize(("size", "held_out"), [(9, 0.05), (9, 0.0), (9, 1.0), (9, 2.0), (3, 0.9), (0, 0.5)])
def test_split_leaves_no_part_empty(size, held_out):
    with pytest.raises(DataError, match=f"held_out={held_out} of {size} characters"):
        split(np.arange(size), held_out)


# Splits


@given(st.lists(st.integers(0, 40), min_size=1), st.integers(0, 3))
def test_a_key_is_in_one_part(items, seed):
    keys = len(set(items))
    if keys < 10:
        with pytest.raises(DataError, match=rf"{keys} different keys among {len(items)} items are too few"):
            split_by_key(items, key=int, fractions=(0.9, 0.05, 0.05), seed=seed)
        return
    parts = split_by_key(items, key=int, seed=seed)
    distinct = [set(part) for part in parts]
    assert sum(map(len, distinct)) == keys
    assert set.union(*distinct) == set(items)
    assert [len(part) for part in distinct[1:]] == pytest.approx([keys / 10, keys / 10], abs=1)
    assert [sum(item in part for part in distinct) for item in items] == [1] * len(items)
    for part, its_keys in zip(parts, distinct, strict=True):
        assert part == [item for item in items if item in its_keys]  # in their order, none lost
    again = split_by_key(reversed(items), key=str, seed=seed)
    assert [set(part) for part in again] == distinct


def test_parts_are_the_same_on_every_machine_and_others_with_another_seed():
    assert split_by_key(range(10), key=int).test == [3]
    assert len({tuple(split_by_key(range(10), key=int, seed=seed).test) for seed in range(8)}) > 3


def test_a_fraction_may_be_0():
    parts = split_by_key("abcd", key=str, fractions=(0.5, 0, 0.5))
    assert [len(part) for part in parts] == [2, 0, 2]
    assert repr(parts) == "Split(train: 2, validation: 0, test: 2)"


def test_keys_may_be_no_utf_8():
    names = [f"caf\udce9 {n}" for n in range(10)]  # as a file of another encoding has them
    assert sorted(name for part in split_by_key(names, key=str) for name in part) == names


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.9, 0.2, -0.1), (0.5, 0.1, 0.1), (np.nan, 0.5, 0.5)])
def test_fractions_that_do_not_add_up_are_refused(fractions):
    with pytest.raises(DataError, match=r"give three of 0 or more, .* that add up to 1"):
        split_by_key("abcd", key=str, fractions=fractions)


# Batches


@given(st.integers(1, 50), st.integers(1, 60))
def test_batches_hold_every_position_once(count, batch):
    cut = data.batches(count, batch, tr.Generator(0))
    assert sorted(np.concatenate(cut)) == list(range(count))
    assert all(len(chosen) == batch for chosen in cut[:-1])
    assert [chosen.tolist() for chosen in cut] == [c.tolist() for c in data.batches(count, batch, tr.Generator(0))]
    np.testing.assert_array_equal(np.concatenate(data.batches(count, batch)), np.arange(count))


def test_batches_are_shuffled_anew_each_time():
    generator = tr.Generator(0)
    first, second = (np.concatenate(data.batches(100, 10, generator)) for _ in range(2))
    assert (first != second).any()


@pytest.mark.parametrize(("count", "batch"), [(0, 1), (1, 0)])
def test_batches_of_nothing_are_refused(count, batch):
    with pytest.raises(DataError, match=f"count is {count} and batch is {batch}"):
        data.batches(count, batch)
