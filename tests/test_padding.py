"""Padding, masks, batches of similar length, and losses in which padding counts nothing."""

import fnmatch
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import tinyrnn as tr
from tinyrnn import data, nn
from tinyrnn.errors import DataError, DTypeError, IndexRangeError, ShapeError

# ---------------------------------------------------------------- pad and mask


def test_sequences_stand_side_by_side_with_time_first():
    x, lengths = data.pad([[5, 3], [7, 1, 4], []])
    assert x.tolist() == [[5, 7, 0], [3, 1, 0], [0, 4, 0]]
    assert lengths.tolist() == [2, 3, 0]
    assert (x.dtype, lengths.dtype) == (np.int64, np.int64)
    assert data.mask(lengths).tolist() == [[True, True, False], [True, True, False], [False, True, False]]
    assert data.pad([[5, 3], [7, 1, 4]], value=-1)[0].tolist() == [[5, 7], [3, 1], [-1, 4]]


@given(st.data())
@settings(deadline=None)
def test_what_was_padded_can_be_cut_out_again(draws):
    trailing = tuple(draws.draw(st.lists(st.integers(0, 3), max_size=2), label="trailing"))
    dtype = draws.draw(st.sampled_from(["bool", "uint8", "int64", "float32", "float64"]), label="dtype")
    lengths = draws.draw(st.lists(st.integers(0, 5), min_size=1, max_size=6), label="lengths")
    sequences = [draws.draw(arrays.arrays(dtype, (n, *trailing))) for n in lengths]
    value = draws.draw(st.integers(0, 1), label="value")
    x, ends = data.pad(sequences, value)
    assert (x.shape, x.dtype) == ((max(lengths), len(lengths), *trailing), dtype)
    assert ends.tolist() == lengths
    for b, sequence in enumerate(sequences):
        np.testing.assert_array_equal(x[: ends[b], b], sequence)
    running = data.mask(ends)
    assert running.shape == x.shape[:2]
    assert running.sum(0).tolist() == lengths
    assert (x[~running] == value).all()


@pytest.mark.parametrize(
    ("sequences", "dtype"),
    [
        ([[1], [2, 3]], "int64"),
        ([[1.0], [2, 3]], "float32"),
        ([[True], []], "bool"),
        ([[], []], "float32"),
        ([[], [1]], "int64"),
        ([[[0.5, 1]], [[1, 2], [3, 4]]], "float32"),
        ([np.ones(2), [1, 2, 3]], "float64"),
        ([np.ones(2, "float32"), np.ones(3, "float64")], "float64"),
        ([np.ones(2, "uint8"), np.ones(3, "uint8")], "uint8"),
        ([tr.ones(2), tr.ones(1)], "float32"),
    ],
)
def test_python_numbers_are_int64_and_float32_and_arrays_keep_their_dtype(sequences, dtype):
    assert data.pad(sequences)[0].dtype == dtype


def test_a_mask_may_be_longer_than_every_sequence():
    assert data.mask([1, 2], T=3).tolist() == [[True, True], [False, True], [False, False]]
    assert data.mask(np.array([0, 0], "uint8")).shape == (0, 2)
    assert data.mask([0], 2).dtype == bool


# ---------------------------------------------------------------- buckets


@given(st.lists(st.integers(0, 20), min_size=1, max_size=40), st.integers(1, 50), st.none() | st.integers(0, 5))
def test_every_sequence_is_in_one_batch_with_others_like_it(lengths, batch, seed):
    batches = data.buckets(lengths, batch, None if seed is None else tr.Generator(seed))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    sizes = sorted(len(part) for part in batches)
    assert sizes[1:] == [batch] * (len(sizes) - 1) or len(sizes) == 1
    assert 1 <= sizes[0] <= batch
    spans = sorted((min(lengths[i] for i in part), max(lengths[i] for i in part)) for part in batches)
    assert all(longest <= shortest for (_, longest), (shortest, _) in itertools.pairwise(spans))


def test_without_a_generator_batches_are_the_same_and_the_shortest_come_first():
    lengths = [3, 1, 2, 3, 1]
    assert [part.tolist() for part in data.buckets(lengths, 2)] == [[1, 4], [2, 0], [3]]
    assert data.buckets(lengths, 2)[0].dtype == np.int64


def test_a_generator_shuffles_batches_and_equal_lengths_and_can_be_repeated():
    lengths = np.repeat([4, 7], 20)
    runs = [[part.tolist() for part in data.buckets(lengths, 5, tr.Generator(seed))] for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert any(part != sorted(part) for part in runs[0])
    longest = [lengths[part].max() for part in runs[0]]
    assert longest != sorted(longest)
    generator = tr.Generator(1)
    assert str(data.buckets(lengths, 5, generator)) != str(data.buckets(lengths, 5, generator))  # each epoch anew


# ---------------------------------------------------------------- bad input

BAD_DATA = [
    (lambda: data.pad([]), "pad: there are no sequences; give at least one"),
    (lambda: data.pad([[1], 2]), "pad: sequence 1 has shape () and dtype int64; give numbers, with time as first axis"),
    (lambda: data.pad([["a"]]), "pad: sequence 0 has shape (1,) and dtype <U1; *"),
    (lambda: data.pad([[1], [[1], [2, 3]]]), "pad: sequence 1 is not a regular block of numbers *"),
    (
        lambda: data.pad([np.ones((2, 3)), np.ones((4, 5))]),
        "pad: the sequences are (2, 3) and (4, 5); they may differ *",
    ),
    (lambda: data.pad([[1], [[1]]]), "pad: the sequences are (1,) and (1, 1); they may differ in length alone, *"),
    (lambda: data.pad([[1], [2, 3]], value=0.5), "pad: the value is 0.5 and the sequences are int64; give an int, *"),
    (lambda: data.pad([[1.0], [2.0, 3.0]], value=None), "pad: the value is None; give a number"),
    (
        lambda: data.pad([np.array([1, 2], np.uint8)], 300),
        "pad: the value is 300 and the sequences are uint8; *",
    ),
    (lambda: data.mask([1, 2], T=2.5), "mask: T is 2.5; give a whole number of steps"),
    (lambda: data.mask([]), "mask: the lengths have shape (0,) *"),
    (lambda: data.mask([1.0]), "mask: the lengths have shape (1,) and dtype float64; give whole numbers *"),
    (lambda: data.mask([True]), "mask: the lengths have shape (1,) and dtype bool; *"),
    (lambda: data.mask(3), "mask: the lengths have shape () and dtype int64; *"),
    (lambda: data.mask([[1]]), "mask: the lengths have shape (1, 1) *"),
    (lambda: data.mask([1, -2]), "mask: the length of sequence 1 is -2; give 0 or more"),
    (lambda: data.mask([1, 5], T=4), "mask: lengths are up to 5 and T is 4; give T of at least 5"),
    (lambda: data.buckets([1, 2], 0), "buckets: batch is 0; it must be at least 1"),
    (lambda: data.buckets([], 2), "buckets: the lengths have shape (0,) *"),
    (lambda: data.buckets([2, -1], 2), "buckets: the length of sequence 1 is -1; give 0 or more"),
]


@pytest.mark.parametrize(("run", "message"), BAD_DATA)
def test_bad_sequences_and_lengths_are_told(run, message):
    with pytest.raises(DataError) as caught:
        run()
    assert fnmatch.fnmatchcase(str(caught.value), message)


# ---------------------------------------------------------------- masks in the losses

T, B, V = 4, 3, 5
MASK = data.mask([4, 0, 2])
CLASSES = np.arange(T * B).reshape(T, B) % V
UNITS = (CLASSES % 2).astype("float64")
LOSSES = {  # the shape of its input; f(input, targets, **options); targets; targets that may stand where nothing counts
    "cross_entropy": ((T, B, V), tr.cross_entropy, CLASSES, np.where(MASK, CLASSES, -7)),
    "binary_cross_entropy": ((T, B), tr.binary_cross_entropy, UNITS, np.where(MASK, UNITS, math.nan)),
    "mse_loss": ((T, B), tr.mse_loss, UNITS, np.where(MASK, UNITS, math.inf)),
}
losses = pytest.mark.parametrize("name", LOSSES)
reductions = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def close(ours, expected):
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12, atol=1e-14)


@losses
@reductions
@pytest.mark.parametrize("garbage", [0.0, 1e300, math.inf, math.nan])
def test_only_what_counts_counts(backend, name, reduction, garbage):
    shape, f, targets, wild = LOSSES[name]
    x = tr.randn(*shape, dtype="float64", requires_grad=True)
    spoiled = x.numpy().copy()
    spoiled[~MASK] = garbage
    spoiled = tr.tensor(spoiled, requires_grad=True)
    loss = f(spoiled, tr.tensor(wild), reduction=reduction, mask=MASK)
    kept = f(x[MASK], tr.tensor(targets[MASK]), reduction=reduction)
    gy = tr.randn(*loss.shape, dtype="float64")
    if reduction == "none":
        assert not loss.numpy()[~MASK].any()
        close(loss[MASK], kept.numpy())
        expected = tr.grad(kept, x, gy[MASK])
    else:
        close(loss, kept.numpy())
        expected = tr.grad(kept, x, gy)
    gradient = tr.grad(loss, spoiled, gy)
    close(gradient, expected.numpy())
    assert not gradient.numpy()[~MASK].any()
    again = tr.grad(tr.grad(loss, spoiled, gy, create_graph=True).sum(), spoiled)
    assert np.isfinite(again.numpy()).all()


@losses
@reductions
def test_where_nothing_counts_the_loss_is_0_and_so_is_the_gradient(backend, name, reduction):
    shape, f, _, _ = LOSSES[name]
    x = tr.full(shape, math.nan, requires_grad=True)
    targets = tr.full((T, B), 99, dtype="int64" if name == "cross_entropy" else "float32")
    loss = f(x, targets, reduction=reduction, mask=np.zeros((T, B), bool))
    assert loss.dtype == "float32"
    assert not loss.numpy().any()
    assert not tr.grad(loss.sum(), x).numpy().any()


@losses
@reductions
def test_a_mask_of_everything_changes_nothing(backend, name, reduction):
    shape, f, targets, _ = LOSSES[name]
    x, targets = tr.randn(*shape, requires_grad=True), tr.tensor(targets)
    for mask in (np.ones((T, B), bool), tr.ones(T, B, dtype="bool"), [[True] * B] * T):
        np.testing.assert_allclose(
            f(x, targets, reduction=reduction, mask=mask).numpy(), f(x, targets, reduction=reduction).numpy(), rtol=1e-6
        )


@losses
@reductions
def test_gradients_of_two_orders(backend, name, reduction):
    shape, f, _, wild = LOSSES[name]
    x = tr.randn(*shape, dtype="float64", requires_grad=True)
    assert tr.gradcheck(lambda x: f(x, tr.tensor(wild), reduction=reduction, mask=MASK), x)
    if name != "cross_entropy":
        t = tr.uniform(T, B, dtype="float64", requires_grad=True)
        assert tr.gradcheck(lambda x, t: f(x, t, reduction=reduction, mask=MASK), [x, t])


def test_a_mask_and_an_ignored_class_both_hold(backend):
    x = tr.randn(T, B, V, dtype="float64", requires_grad=True)
    counted = MASK & (CLASSES != 2)
    loss = tr.cross_entropy(x, np.where(MASK, CLASSES, -7), ignore_index=2, mask=MASK)
    close(loss, tr.cross_entropy(x[counted], CLASSES[counted]).numpy())
    assert not tr.grad(loss, x).numpy()[~counted].any()


@losses
def test_a_mask_that_does_not_fit_is_told(name):
    shape, f, targets, _ = LOSSES[name]
    x, targets = tr.zeros(*shape), tr.tensor(targets)
    bad = [
        (MASK.T, ShapeError, f"{name}: the mask has shape (3, 4); expected (4, 3), one entry for each loss"),
        (True, ShapeError, f"{name}: the mask has shape (); expected (4, 3), one entry for each loss"),
        (
            MASK.astype("float32"),
            DTypeError,
            f"{name}: the mask is float32; expected bool, True for what counts: mask > 0",
        ),
    ]
    for mask, error, message in bad:
        with pytest.raises(error) as caught:
            f(x, targets, mask=mask)
        assert str(caught.value) == message


def test_a_wrong_class_where_it_counts_is_still_refused():
    with pytest.raises(IndexRangeError, match="targets holds 9; expected integers from 0 to 4"):
        tr.cross_entropy(tr.zeros(2, V), [9, 1], mask=[True, False])


# ---------------------------------------------------------------- all of it together


def test_a_padded_batch_learns_what_its_sequences_teach_one_by_one(backend):
    """The loss over a padded batch, and its gradients, are those of all symbols of all sequences."""
    texts = [[1, 4, 2, 0], [3], [2, 2, 1]]
    embedding, lstm, out = (
        nn.Embedding(V, 3, dtype="float64"),
        nn.LSTM(3, 4, dtype="float64"),
        nn.Linear(4, V, dtype="float64"),
    )
    parameters = nn.Sequential(embedding, lstm, out).parameters()
    x, lengths = data.pad([text[:-1] for text in texts], value=0)
    y, _ = data.pad([text[1:] for text in texts], value=-1)
    assert lengths.tolist() == [3, 0, 2]
    h, _ = lstm(embedding(x), lengths=lengths)
    loss = tr.cross_entropy(out(h), y, mask=data.mask(lengths))

    alone, count = tr.zeros((), dtype="float64"), 0
    for text in texts:
        for t in range(len(text) - 1):
            h, _ = lstm(embedding(np.array(text[: t + 1])[:, None]))
            alone, count = alone + tr.cross_entropy(out(h)[-1], [text[t + 1]]), count + 1
    close(loss, (alone / count).numpy())
    for ours, expected in zip(tr.grad(loss, parameters), tr.grad(alone / count, parameters), strict=True):
        close(ours, expected.numpy())
