"""Checkpoints: every bit comes back, a file is always whole, and what is no checkpoint is refused."""

import collections
import contextlib
import errno
import json
import math
import os
import pickle
import random
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinyrnn import checkpoint
from tinyrnn.errors import CheckpointError

DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def as_loaded(value):
    """What `load` should return for a value: lists for tuples, arrays for scalars."""
    if isinstance(value, dict):
        return {key: as_loaded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_loaded(item) for item in value]
    return np.asarray(value) if isinstance(value, np.generic) else value


def assert_identical(a, b):
    """Same structure, types, shapes, dtypes and bits."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_identical(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_identical(x, y)
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()
    elif isinstance(a, float):
        assert a == b or (math.isnan(a) and math.isnan(b))
        assert math.copysign(1, a) == math.copysign(1, b) or math.isnan(a)
    else:
        assert a == b


# Round trips

odd_keys = ["$array", "$$array", "a.b", "a", "b", "0", "__metadata__", "state", ""]
keys = st.text(max_size=4) | st.sampled_from(odd_keys)
arrays = hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
scalars = st.sampled_from([np.float32(1.5), np.int64(-3), np.bool_(True), np.float64(math.nan)])
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | arrays | scalars
states = st.recursive(leaves, lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(keys, inner))


@given(state=states)
def test_round_trip(tmp_path_factory, state):
    path = tmp_path_factory.getbasetemp() / "round_trip.safetensors"
    checkpoint.save(path, state)
    assert_identical(as_loaded(state), checkpoint.load(path))


def test_a_real_state(path):
    generator = np.random.Generator(np.random.PCG64(7))
    state = {
        "model": {"lstm.W_h": np.eye(3, dtype="f4"), "b": np.zeros(0)},
        "optimizer": {"m": [np.ones((2, 2)), np.ones(2, "f2")], "step": 12, "rate": 1e-3},
        "loss": [math.nan, math.inf, -math.inf, 0.1, -0.0, 5e-324],
        "generator": generator.bit_generator.state,
        "best": None,
        "done": False,
    }
    checkpoint.save(path, state)
    loaded = checkpoint.load(path)
    assert_identical(state, loaded)
    again = np.random.Generator(np.random.PCG64(0))
    again.bit_generator.state = loaded["generator"]
    assert again.random() == generator.random()


def test_another_reader_finds_readable_names(path):
    from safetensors.numpy import load_file

    checkpoint.save(path, {"model": {"lstm": {"W_h": np.ones(3)}}, "optimizer": {"m": [np.zeros(2)]}})
    entries = load_file(path)
    assert set(entries) == {"model.lstm.W_h", "optimizer.m.0"}
    np.testing.assert_array_equal(entries["model.lstm.W_h"], np.ones(3))


def test_names_that_clash(path):
    state = {"a.b": np.array(1), "a": {"b": np.array(2)}, "__metadata__": np.array(3), "": {"": np.array(4)}}
    checkpoint.save(path, state)
    assert_identical(state, checkpoint.load(path))


def test_whatever_has_a_numpy_method(path):
    class Tensor:
        def numpy(self):
            return np.arange(3.0)

    checkpoint.save(path, {"x": Tensor()})
    assert_identical({"x": np.arange(3.0)}, checkpoint.load(path))


@pytest.mark.parametrize("make", [np.transpose, np.flip, lambda a: a[::2, ::3], lambda a: a.astype(">f4")])
def test_any_layout(path, make):
    array = make(np.arange(12, dtype="f4").reshape(3, 4))
    checkpoint.save(path, array)
    assert_identical(np.array(array, dtype="f4", order="C"), checkpoint.load(path))


def test_every_nan_keeps_its_bits(path):
    array = np.array([0x7FC00001, 0xFFC00002, 0x7F800001], dtype="u4").view("f4")
    checkpoint.save(path, array)
    assert_identical(array, checkpoint.load(path))


def test_loaded_arrays_are_writable_and_free_of_the_file(path):
    checkpoint.save(path, [np.zeros(3), np.zeros(())])
    first, second = checkpoint.load(path)
    path.write_bytes(b"")
    first[0] = 1
    second[()] = 1
    assert first.tolist() == [1, 0, 0]


def test_tuples_come_back_as_lists(path):
    State = collections.namedtuple("State", "h c")
    checkpoint.save(path, State(np.zeros(1), (1, 2)))
    assert_identical([np.zeros(1), [1, 2]], checkpoint.load(path))


# What cannot be held


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (object(), "is a object"),
        ({1, 2}, "is a set"),
        (b"bytes", "is a bytes"),
        (1j, "is a complex"),
        (len, "is a builtin_function_or_method"),
        (np.ones(1, complex), "array of complex128"),
        (np.array(["a"]), "array of <U1"),
        (np.array([None]), "array of object"),
        (np.array([0], "M8[s]"), "array of datetime64"),
        (np.str_("a"), "array of <U1"),
        ({3: 1}, "the int 3 for a key"),
    ],
)
def test_an_unsupported_leaf_is_named_and_nothing_is_written(path, leaf, message):
    with pytest.raises(CheckpointError, match=rf"^optimizer\.m\.1 .*{message}"):
        checkpoint.save(path, {"optimizer": {"m": [np.ones(3), leaf]}})
    assert not list(path.parent.iterdir())


def test_the_state_itself_may_be_wrong(path):
    with pytest.raises(CheckpointError, match=r"^state is a set"):
        checkpoint.save(path, set())


def test_a_header_that_no_reader_would_take(path):
    with pytest.raises(CheckpointError, match=r"41 MB beside its arrays and at most 40 MB fit .* as arrays"):
        checkpoint.save(path, "x" * 41_000_000)
    assert not list(path.parent.iterdir())


def test_the_largest_header_is_read_again(path):
    state = '"' * (checkpoint.JSON_LIMIT // 2 - 1)
    checkpoint.save(path, state)
    assert checkpoint.load(path) == state


# Files that are no checkpoint


def safetensors(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def ours(state, version="1", **entries):
    metadata = {"format": checkpoint.FORMAT, "version": version, "state": state}
    return {"__metadata__": metadata, **entries}


TERABYTE = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty or cut short \(0 bytes\)"),
        (b"\x10\0\0", "cut short"),
        (pickle.dumps({"a": np.ones(3)}), "is no safetensors file"),
        (b"just some text, and a little more of it", "is no safetensors file"),
        (random.Random(0).randbytes(1000), "is no safetensors file"),
        (safetensors({}), "is a safetensors file but no checkpoint"),
        (safetensors({"__metadata__": {"format": "pt"}}), "is a safetensors file but no checkpoint"),
        (safetensors(ours("{}", version="2")), "format 2, and this tinyrnn reads up to 1; install"),
        (safetensors(ours("{}", a=TERABYTE), b"1234"), "cut short or damaged"),
        (struct.pack("<Q", 2**62) + b"{}", "cut short or damaged"),
        (safetensors(b"{" * 1000), "cut short or damaged"),
        (safetensors(ours("{}", version="one")), "cut short or damaged"),
        (safetensors(ours("not JSON")), "cut short or damaged"),
        (safetensors(ours("[" * 100_000)), "cut short or damaged"),
        (safetensors(ours('{"$array": "missing"}')), "cut short or damaged"),
        (safetensors(ours('{"$array": ["missing"]}')), "cut short or damaged"),
        (safetensors({"__metadata__": {"format": checkpoint.FORMAT}}), "cut short or damaged"),
    ],
)
def test_what_is_no_checkpoint_is_refused(path, content, message):
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"run\.safetensors.*{message}"):
        checkpoint.load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*nowhere"):
        checkpoint.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="cannot read"):
        checkpoint.load(tmp_path)


def test_every_cut_is_noticed(path):
    checkpoint.save(path, {"a": np.arange(5), "b": "text"})
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"cut short"):
            checkpoint.load(path)


@given(position=st.integers(0, 399), value=st.integers(0, 255))
def test_a_damaged_header_never_ends_in_another_error(tmp_path_factory, position, value):
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    checkpoint.save(path, {"model": {"W": np.arange(6.0).reshape(2, 3)}, "list": [1, {"x": np.ones(2, "?")}]})
    content = bytearray(path.read_bytes())
    content[position % len(content)] = value
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        checkpoint.load(path)


# A file is always whole


def test_a_failure_leaves_the_checkpoint_before_it(path, monkeypatch):
    checkpoint.save(path, {"step": 1})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"No space left on device; .* MB free.*is still there"):
        checkpoint.save(path, {"step": 2})
    assert checkpoint.load(path) == {"step": 1}
    assert list(path.parent.iterdir()) == [path]


def test_two_runs_in_one_folder_are_told(path, monkeypatch):
    checkpoint.save(path, {"step": 1})

    def another_run_saves(_):
        monkeypatch.undo()
        checkpoint.save(path, {"step": 2})

    monkeypatch.setattr(os, "fsync", another_run_saves)
    with pytest.raises(CheckpointError, match="another run writes it too; give each its folder"):
        checkpoint.save(path, {"step": 3})
    assert checkpoint.load(path) == {"step": 2}
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_missing_or_no_folder(path):
    for folder in (path.parent / "missing", path):
        path.write_bytes(b"")
        with pytest.raises(CheckpointError, match=rf"cannot write .*{folder.name}.*must be a folder"):
            checkpoint.save(folder / "run.safetensors", {})


@pytest.mark.skipif(sys.platform == "win32", reason="folders have other permissions on Windows")
def test_a_folder_that_cannot_be_written_to(path):
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind the root user")
    path.parent.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="Permission denied"):
            checkpoint.save(path, {})
    finally:
        path.parent.chmod(0o700)


def test_what_a_kill_left_is_removed_and_nothing_else(path):
    stale = path.with_name(".run.safetensors.0123abcd.tmp")
    others = [path.with_name(name) for name in (".run.safetensors.x.0123abcd.tmp", "run.safetensors.tmp")]
    for file in (stale, *others):
        file.write_bytes(b"half of a checkpoint")
    checkpoint.save(path, {})
    assert sorted(path.parent.iterdir()) == sorted([path, *others])


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_link_stays_a_link(path):
    link = path.with_name("latest")
    link.symlink_to(path)
    checkpoint.save(link, {"step": 1})
    assert link.is_symlink()
    assert checkpoint.load(path) == {"step": 1}


SAVE_FOR_EVER = """
import itertools, sys
import numpy as np
from tinyrnn import checkpoint

for count in itertools.count():
    arrays = [np.full(size, count) for size in (1, 1000, 100_000)]
    checkpoint.save(sys.argv[1], {"count": count, "arrays": arrays})
    if count == 0:
        print("started", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_a_kill_at_any_moment_leaves_a_whole_file(path):
    moments = random.Random(0)
    counts = []
    for _ in range(20):
        command = [sys.executable, "-c", SAVE_FOR_EVER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "started\n"
            time.sleep(moments.uniform(0, 0.03))
            process.kill()
        state = checkpoint.load(path)
        assert all((array == state["count"]).all() for array in state["arrays"])
        counts.append(state["count"])
    assert max(counts) > 0  # some kills hit a save that replaces a checkpoint
    checkpoint.save(path, {})
    assert list(path.parent.iterdir()) == [path]
