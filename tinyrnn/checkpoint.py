"""Checkpoints: the whole state of a training run in one safetensors file, never a pickle.

A safetensors file is a JSON header, which says where each array lies, followed by the arrays. Arrays of the
state become entries with readable names ("model.lstm.W_h"). The rest of the state is kept as JSON in the
header, where ``{"$array": "model.lstm.W_h"}`` stands for an array. So any safetensors reader can open the
arrays, and loading never executes anything.

Source: the safetensors format, https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyrnn.errors import CheckpointError

Array = npt.NDArray[Any]

FORMAT = "tinyrnn checkpoint"
VERSION = 1
JSON_LIMIT = 40_000_000  # characters; a safetensors header has at most 100 MB, where each quote takes two
ARRAY = "$array"  # the key of a reference; a key of the state that begins with "$" itself gets one more "$"


def save(path: str | Path, state: object) -> None:
    """Write a state to a file, which holds a whole checkpoint at every moment.

    The state is written to a temporary file beside it, which then takes its place. Whatever happens on the
    way, a full disk or a kill, the checkpoint that was there before is still there. One process at a time may
    save to a path.

    Args:
        path: the file, in a folder that exists; ``.safetensors`` is the usual ending.
        state: dicts with string keys, lists and tuples, in any nesting, of: NumPy arrays and scalars, and
            whatever has a ``numpy()`` method, such as a Tensor (bools, integers and floats of up to 64 bits);
            strings, ints (beyond 64 bits too), floats (nan and the infinities too), bools and None.

    Raises:
        CheckpointError: something in the state that a checkpoint cannot hold, found before anything is
            written; or a file that cannot be written.

    >>> import pathlib, tempfile
    >>> import tinyrnn as tr
    >>> from tinyrnn import checkpoint
    >>> model = tr.nn.Linear(2, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "run.safetensors")
    ...     checkpoint.save(path, {"step": 7, "model": model.state_dict()})
    ...     state = checkpoint.load(path)
    >>> state["step"], list(state["model"])
    (7, ['W', 'b'])
    >>> model = tr.nn.Linear(2, 1).load_state_dict(state["model"])
    """
    from safetensors.numpy import save as to_safetensors

    arrays: dict[str, Array] = {}
    packed = json.dumps(_pack(state, (), arrays))
    if len(packed) > JSON_LIMIT:
        raise CheckpointError(
            f"the state has {len(packed) / 1e6:.0f} MB beside its arrays and at most {JSON_LIMIT / 1e6:.0f} "
            f"MB fit into a checkpoint; keep long lists of numbers as arrays"
        )
    metadata = {"format": FORMAT, "version": str(VERSION), "state": packed}
    replace_file(Path(path).resolve(), to_safetensors(arrays, metadata))


def load(path: str | Path) -> Any:
    """Read a state that `save` wrote.

    Args:
        path: the file.

    Returns:
        The state. Each array, Tensor and NumPy scalar comes back as a writable NumPy array of the same shape,
        dtype and bits; a tuple comes back as a list.

    Raises:
        CheckpointError: a file that is missing, cut short, damaged, of a newer format, or no checkpoint.

    >>> import pathlib, tempfile
    >>> import tinyrnn as tr
    >>> from tinyrnn import checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "run.safetensors")
    ...     checkpoint.save(path, {"h": tr.tensor([0.5, 2.0]), "sizes": (3, 4)})
    ...     checkpoint.load(path)
    {'h': array([0.5, 2. ], dtype=float32), 'sizes': [3, 4]}
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    _check_is_safetensors(path)
    try:
        # Opening checks the header. It refuses an array that would reach beyond the end of the file.
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            _check_format(path, metadata)
            return _unpack(json.loads(metadata["state"]), file.get_tensor)
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path} is cut short or damaged: {error}; load an earlier one") from error


def _pack(value: object, where: tuple[str, ...], arrays: dict[str, Array]) -> object:
    """Return a value as JSON values. Each array moves to `arrays` and leaves a reference behind."""
    if isinstance(value, dict):
        return {_pack_key(key, where): _pack(item, (*where, key), arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(item, (*where, str(index)), arrays) for index, item in enumerate(value)]
    if isinstance(value, np.ndarray | np.generic):
        return _pack_array(np.asarray(value), where, arrays)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if callable(to_numpy := getattr(value, "numpy", None)):
        return _pack_array(np.asarray(to_numpy()), where, arrays)
    raise CheckpointError(
        f"{_name(where)} is a {type(value).__name__}, which a checkpoint cannot hold; it holds arrays, "
        f"Tensors, strings, numbers, bools and None, and dicts, lists and tuples of these"
    )


def _pack_key(key: object, where: tuple[str, ...]) -> str:
    """Return a key of a dict in the state, changed if it might be taken for `ARRAY`."""
    if not isinstance(key, str):
        raise CheckpointError(f"{_name(where)} has the {type(key).__name__} {key!r} for a key; use strings")
    return "$" + key if key.startswith("$") else key


def _pack_array(array: Array, where: tuple[str, ...], arrays: dict[str, Array]) -> dict[str, str]:
    """Add an array to `arrays` under a readable name that is not taken, and return a reference to it."""
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise CheckpointError(
            f"{_name(where)} is an array of {array.dtype}, which a checkpoint cannot hold; "
            f"convert it to bools, integers, or floats of at most 64 bits"
        )
    name = _name(where)
    while name in arrays or name == "__metadata__":  # {"a.b": x, "a": {"b": y}}; the header's own key
        name += "'"
    arrays[name] = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
    return {ARRAY: name}


def _unpack(value: Any, get_array: Callable[[str], Array]) -> Any:
    """Undo `_pack`."""
    if isinstance(value, list):
        return [_unpack(item, get_array) for item in value]
    if not isinstance(value, dict):
        return value
    if ARRAY in value:
        return get_array(value[ARRAY])
    return {key.removeprefix("$"): _unpack(item, get_array) for key, item in value.items()}


def _name(where: tuple[str, ...]) -> str:
    """Return the name of a place in the state: its keys, with dots between them."""
    return ".".join(where) or "state"


def replace_file(target: Path, content: bytes) -> None:
    """Replace a file in one step: whoever opens it, at any moment, finds the old content or the new.

    Args:
        target: the file, in a folder that exists.
        content: its new bytes.

    Raises:
        CheckpointError: a file that cannot be written; the old one is still there.

    >>> import pathlib, tempfile
    >>> from tinyrnn.checkpoint import replace_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "notes.txt")
    ...     for content in (b"old", b"new"):
    ...         replace_file(path, content)
    ...     path.read_bytes()
    b'new'
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    left_by_a_kill = f".{glob.escape(target.name)}.{'[0-9a-f]' * 8}.tmp"
    try:
        for stale in target.parent.glob(left_by_a_kill):
            stale.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # without this the new name could reach the disk before the content
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and target.parent.is_dir():  # the temporary file was there
            raise CheckpointError(f"cannot write {target}: another run writes it too; give each its folder") from error
        raise CheckpointError(
            f"cannot write {target}: {error.strerror}; {target.parent} must be a folder you can write to "
            f"with {len(content) / 1e6:.1f} MB free. A checkpoint that was there before is still there"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()  # still there only if something went wrong


def _sync_folder(folder: Path) -> None:
    """Bring a folder's list of names to the disk, on systems where a folder can be opened (not Windows)."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check_is_safetensors(path: Path) -> None:
    """Refuse what is no safetensors file: that begins with eight bytes of length, then "{"."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}; give a checkpoint's path") from error
    if len(start) < 9:
        raise CheckpointError(f"{path} is empty or cut short ({len(start)} bytes); load an earlier one")
    if not start.endswith(b"{"):
        raise CheckpointError(f"{path} is no safetensors file; give one that tinyrnn.checkpoint.save wrote")


def _check_format(path: Path, metadata: dict[str, str]) -> None:
    """Refuse a safetensors file that is not ours, or of a newer tinyrnn."""
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file but no checkpoint; give one that tinyrnn.checkpoint.save wrote"
        )
    if int(metadata["version"]) > VERSION:
        raise CheckpointError(
            f"{path} has the format {metadata['version']}, and this tinyrnn reads up to {VERSION}; "
            f"install a newer tinyrnn"
        )
