"""Text to learn from: a file, or one of three texts that have a name."""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path

from tinyrnn.data.datasets import load, path
from tinyrnn.errors import DataError


def read_text(source: str | Path) -> str:
    r"""Read a text. Every line ends in ``\n``, and a byte order mark is dropped.

    Args:
        source: ``"numpy-docs"`` (nothing to fetch), ``"shakespeare"`` or ``"tunes"`` (after ``python -m tinyrnn.data
            fetch shakespeare``), or the path of a UTF-8 file. A ``Path`` is always a file.

    Raises:
        DataError: a file that is missing, unreadable, not UTF-8 or empty; a data set that is not fetched.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from tinyrnn import data
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "two_lines.txt")
    ...     _ = file.write_bytes(b"as Windows\r\nends them")
    ...     data.read_text(file)
    'as Windows\nends them'
    """
    if source == "numpy-docs":
        return numpy_docs()
    if source == "shakespeare":
        return "".join(_read_file(play) for play in sorted(path("shakespeare").rglob("*.txt")))
    if source == "tunes":
        return "\n\n".join(tune for part in load("tunes") for tune in part) + "\n"
    return _read_file(Path(source))


def numpy_docs() -> str:
    """Return NumPy's own docstrings: 1.6 million characters of English and code, with nothing to fetch.

    They come in the order of the files and of the lines in a file, each once, without non-ASCII characters.
    The text depends on which NumPy is installed, so quote its `sha256` beside a result.

    Source: the NumPy developers, BSD-3-Clause.

    >>> from tinyrnn import data
    >>> text = data.numpy_docs()
    >>> len(text) > 1_000_000, text.isascii()
    (True, True)
    """
    package = path("numpy-docs")
    files = [file for file in package.rglob("*.py") if "tests" not in file.relative_to(package).parts]
    files.sort(key=Path.as_posix)  # paths themselves sort differently on Windows
    docs = [doc for file in files for doc in _docstrings(_parse(file))]
    text = "\n\n".join(dict.fromkeys(docs)).encode("ascii", "ignore").decode("ascii")
    return "\n".join(line.rstrip() for line in text.splitlines())


def sha256(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 bytes in hexadecimal, to say exactly which text a result is of.

    >>> from tinyrnn import data
    >>> data.sha256("hello")
    '2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824'
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _read_file(file: Path) -> str:
    """Read one UTF-8 file."""
    if file.is_dir():
        raise DataError(f"{file} is a folder; give the path of one text file")
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        names = "numpy-docs, shakespeare and tunes"
        raise DataError(f"there is no file {file}; give a file's path or one of the names {names}") from None
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}; give a file that you may read") from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        position, byte = error.start, content[error.start]
        raise DataError(
            f"{file} is not UTF-8: the byte 0x{byte:02x} at offset {position} is not ({error.reason}); "
            f"save the file as UTF-8"
        ) from error
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text:
        raise DataError(f"{file} is empty; give a file with text in it")
    return text


def _parse(file: Path) -> ast.Module:
    """Parse a Python file, silently: its warnings are for its authors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(file.read_bytes())


def _docstrings(node: ast.AST) -> Iterator[str]:
    """Yield the docstrings of a module, its classes and its functions in the order of the source."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        doc = ast.get_docstring(node)
        if doc:
            yield doc
    for child in ast.iter_child_nodes(node):
        yield from _docstrings(child)
