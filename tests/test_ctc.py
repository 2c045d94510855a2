"""CTC against the sum over all paths that there are, its edges and gradients; and decoding against all labellings."""

import fnmatch
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyrnn as tr
from tinyrnn import data, nn, optim
from tinyrnn.errors import DTypeError, IndexRangeError, NonFiniteError, ShapeError

F64 = {"dtype": "float64"}


def spelled(path, blank=0):
    """Return what a path spells: merge repeats, then drop blanks."""
    return [c for c, _ in itertools.groupby(path) if c != blank]


def probabilities(logits, blank=0):
    """Return the probability of everything that logits (T, V) can spell, by going through all paths."""
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    found = {}
    for path in itertools.product(range(p.shape[1]), repeat=len(p)):
        labels = tuple(spelled(path, blank))
        found[labels] = found.get(labels, 0) + math.prod(p[t, c] for t, c in enumerate(path))
    return found


def losses(logits, targets, **options):
    """Return the loss of each target, given as lists of labels."""
    padded, lengths = data.pad([np.array(target, np.int64) for target in targets], value=-7)
    return tr.ctc_loss(logits, padded, target_lengths=lengths, reduction="none", **options)


# ---------------------------------------------------------------- the sum over all paths


@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize("T", [1, 2, 3, 5])
def test_every_target_has_the_probability_of_its_paths(backend, T, blank):
    logits = tr.randn(T, 1, 3, **F64) * 2
    expected = probabilities(logits.numpy()[:, 0], blank)
    assert sum(expected.values()) == pytest.approx(1)
    targets = list(expected)  # also the empty one, and those with repeated labels
    found = losses(tr.broadcast_to(logits, (T, len(targets), 3)), targets, blank=blank)
    np.testing.assert_allclose(found.numpy(), [-math.log(expected[target]) for target in targets], rtol=1e-12)


def test_unequal_lengths_are_each_sequence_by_itself(backend):
    logits, lengths = tr.randn(6, 4, 4, requires_grad=True, **F64), [6, 3, 5, 4]
    targets = [[1, 1, 2], [3], [], [2, 3, 1, 2]]
    together = losses(logits, targets, input_lengths=lengths)
    gradient = tr.grad(together.sum(), logits).numpy()
    for b, (target, n) in enumerate(zip(targets, lengths, strict=True)):
        alone = logits.detach()[:n, b : b + 1]
        alone.requires_grad = True
        one = losses(alone, [target])
        assert together[b].item() == pytest.approx(one.item(), rel=1e-12)
        np.testing.assert_allclose(gradient[:n, b : b + 1], tr.grad(one.sum(), alone).numpy(), atol=1e-12)
        assert not gradient[n:, b].any()


def test_what_stands_behind_an_input_does_not_matter(backend):
    logits = tr.randn(5, 2, 3, requires_grad=True)
    behind = np.arange(5)[:, None, None] >= np.array([5, 3])[:, None]
    expected = losses(logits, [[1], [2, 1]], input_lengths=[5, 3])
    for garbage in (math.nan, math.inf, -math.inf, 1e30):
        found = losses(tr.where(tr.tensor(behind), garbage, logits), [[1], [2, 1]], input_lengths=[5, 3])
        assert found.tolist() == expected.tolist()
        g = tr.grad(found.sum(), logits).numpy()
        np.testing.assert_allclose(g, tr.grad(expected.sum(), logits).numpy())
        assert not g[3:, 1].any()


def test_no_steps_spell_the_empty_target_alone(backend):
    found = losses(tr.randn(3, 2, 3), [[], [1]], input_lengths=[0, 0])
    assert found.tolist() == [0, math.inf]


def test_log_probabilities_will_do_as_well(backend):
    logits = tr.randn(5, 2, 4, **F64)
    given = [tr.ctc_loss(x, [[1, 2], [3, 2]]).item() for x in (logits, tr.log_softmax(logits), logits + 7)]
    np.testing.assert_allclose(given, given[0], rtol=1e-12)


def test_reductions():
    logits, targets = tr.randn(7, 3, 4, **F64), [[1, 2, 3], [2], []]
    each = losses(logits, targets).numpy()
    padded, lengths = data.pad([np.array(target, np.int64) for target in targets])
    for dtype in (tr.float32, tr.float64):
        assert {
            tr.ctc_loss(logits.astype(dtype), padded, None, lengths, reduction=name).dtype for name in ("sum", "mean")
        } == {dtype}
    found = [tr.ctc_loss(logits, padded, None, lengths, reduction=name).item() for name in ("sum", "mean")]
    np.testing.assert_allclose(found, [each.sum(), (each / [3, 1, 1]).mean()])


# ---------------------------------------------------------------- what no path can spell


IMPOSSIBLE = [[1, 2, 1, 2], [1, 1], [1]]  # too long for 3 steps; 1 1 needs a blank between, so 3 steps, of 2; possible


@pytest.mark.parametrize("zero_infinity", [False, True])
def test_an_impossible_target_has_an_infinite_loss_and_no_gradient(backend, zero_infinity):
    logits = tr.randn(3, 3, 3, requires_grad=True, **F64)
    found = losses(logits, IMPOSSIBLE, input_lengths=[3, 2, 3], zero_infinity=zero_infinity)
    assert found[:2].tolist() == ([0, 0] if zero_infinity else [math.inf] * 2)
    assert np.isfinite(found[2].item())
    gradient = tr.grad(found.sum(), logits, create_graph=True)
    assert not gradient.numpy()[:, :2].any()
    assert gradient.numpy()[:, 2].any()
    assert np.isfinite(tr.grad((gradient * gradient).sum(), logits).numpy()).all()


def test_classes_ruled_out_by_minus_infinity(backend):
    values = np.random.default_rng(0).normal(size=(4, 3))
    values[1, 2] = values[2, 0] = values[3, 1] = -np.inf
    logits = tr.tensor(values[:, None], requires_grad=True, **F64)
    expected = probabilities(values)
    for target in ([1], [1, 2], [2, 1], [2, 2], [1, 1, 1]):
        loss = losses(logits, [target])
        p = expected.get(tuple(target), 0)
        assert loss.item() == pytest.approx(-math.log(p) if p else math.inf)
        assert np.isfinite(tr.grad(loss.sum(), logits).numpy()).all()


def test_long_sequences_do_not_underflow():
    logits = tr.randn(1000, 1, 5, requires_grad=True)
    loss = tr.ctc_loss(logits * 10, [[1], [2], [2], [4]], reduction="sum")
    assert 1000 < loss.item() < 1e5
    loss.backward()
    g = logits.grad.numpy()
    assert np.isfinite(g).all()
    np.testing.assert_allclose(g.sum(-1), 0, atol=1e-3)  # what softmax brings along


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("targets", [[[1, 1], [2]], [[], [1, 2]], [[2, 1], [1, 2, 1, 2, 1]]], ids=str)
def test_gradients_of_two_orders(backend, targets):
    logits = tr.randn(4, 2, 3, requires_grad=True, **F64)
    assert tr.gradcheck(lambda x: losses(x, targets, input_lengths=[4, 3], zero_infinity=True), logits)


def test_it_can_be_captured():
    layer, x = nn.Linear(4, 3), tr.randn(5, 2, 4)

    def gradients(x, y, lengths):
        loss = tr.ctc_loss(layer(x), y, target_lengths=lengths)
        loss.backward()
        return loss

    step = tr.capture(gradients, layer)
    for y, lengths in (([[1, 2], [2, 1]], [2, 1]), ([[2, 2], [1, 1]], [1, 2])):
        given = [np.array(part) for part in (y, lengths)]
        layer.W.grad = None
        found, gradient = step(x, *given).item(), layer.W.grad
        layer.W.grad = None
        assert gradients(x, *given).item() == pytest.approx(found, rel=1e-6)
        np.testing.assert_allclose(gradient.numpy(), layer.W.grad.numpy(), atol=1e-6)
    assert len(step.programs) == 1


def test_a_network_learns_where_the_labels_are():
    """Each label sounds for three steps, with silence of any length between; nobody says where."""
    random, V = np.random.default_rng(0), 4
    targets = [random.integers(1, V, 3) for _ in range(8)]
    sounds = []
    for target in targets:
        steps = [np.zeros(random.integers(1, 4), int)]
        for label in target:
            steps += [np.full(3, label), np.zeros(random.integers(1, 4), int)]
        sounds.append(np.concatenate(steps))
    x, lengths = data.pad(sounds)
    y, target_lengths = data.pad(targets)
    gru, output = nn.GRU(V, 16), nn.Linear(16, V)
    optimizer = optim.Adam(gru.parameters() + output.parameters(), lr=0.02)
    for _ in range(60):
        logits = output(gru(tr.one_hot(x, V), lengths=lengths)[0])
        optimizer.zero_grad()
        tr.ctc_loss(logits, y, lengths, target_lengths).backward()
        optimizer.step()
    assert tr.ctc_decode(logits, lengths) == [target.tolist() for target in targets]
    assert tr.ctc_decode(logits, lengths, beam_width=5) == [target.tolist() for target in targets]


# ---------------------------------------------------------------- decoding


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 3), st.integers(0, 1))
@settings(max_examples=40, deadline=None)
def test_a_wide_beam_finds_the_likeliest_labelling(seed, T, V, blank):
    logits = np.random.default_rng(seed).normal(size=(T, V)) * 2
    expected = probabilities(logits, blank)
    [found] = tr.ctc_decode(logits[:, None], beam_width=len(expected), blank=blank)
    assert expected[tuple(found)] == pytest.approx(max(expected.values()))
    [best] = tr.ctc_decode(logits[:, None], blank=blank)
    assert best == spelled(logits.argmax(-1), blank)


def test_a_wider_beam_is_no_worse(backend):
    logits = tr.randn(12, 6, 4, **F64)
    for narrow, wide in itertools.pairwise([1, 3, 200]):
        p = [losses(logits, tr.ctc_decode(logits, beam_width=width)).numpy() for width in (narrow, wide)]
        assert (p[1] <= p[0] + 1e-12).all()


def test_decoding_ends_where_a_sequence_ends(backend):
    classes = [[1, 1, 0, 1], [2, 2, 2, 2], [0, 1, 2, 1]]
    logits = tr.one_hot(np.array(classes).T, 3) * 20
    for beam_width in (None, 4):
        assert tr.ctc_decode(logits, beam_width=beam_width) == [[1, 1], [2], [1, 2, 1]]
        assert tr.ctc_decode(logits, [3, 0, 2], beam_width=beam_width) == [[1], [], [1]]


def test_a_beam_adds_up_what_the_best_path_overlooks():
    p = tr.tensor([[[0.4, 0.35, 0.25]], [[0.4, 0.35, 0.25]]])
    assert tr.ctc_decode(tr.log(p)) == [[]]
    assert tr.ctc_decode(tr.log(p), beam_width=3) == [[1]]  # 1 1, 1 -, - 1: 0.4025, and nothing: 0.16


def test_decoding_records_nothing_and_takes_no_gradient():
    logits = tr.randn(3, 1, 3, requires_grad=True)
    assert tr.ctc_decode(logits) == tr.ctc_decode(logits.detach())


# ---------------------------------------------------------------- bad input

x, y = tr.zeros(4, 2, 3), [[1, 2], [2, 2], [1, 1]]
BAD = [
    (lambda: tr.ctc_loss(x[0], y), ShapeError, "ctc_loss: logits are (2, 3); expected (T, B, V), at least (1, 1, 2)"),
    (lambda: tr.ctc_loss(x[..., :1], y), ShapeError, "logits are (4, 2, 1); expected (T, B, V), at least (1, 1, 2)"),
    (lambda: tr.ctc_loss(x.astype("int64"), y), DTypeError, "logits are int64; expected floating numbers (T, B, V)"),
    (lambda: tr.ctc_loss(x, [[1, 2, 1]]), ShapeError, "targets are (1, 3); expected (L, B=2), time first, as data.pad"),
    (lambda: tr.ctc_loss(x, [1, 2]), ShapeError, "targets are (2,); expected (L, B=2)"),
    (lambda: tr.ctc_loss(x, [[1.0, 2.0]]), DTypeError, "targets are float32; expected integers (L, B=2)"),
    (lambda: tr.ctc_loss(x, [[1, 3]]), IndexRangeError, "ctc_loss: targets holds 3; expected integers from 0 to 2"),
    (lambda: tr.ctc_loss(x, [[1, 0]]), IndexRangeError, "a target holds 0, which is the blank; it stands between"),
    (
        lambda: tr.ctc_loss(x, y, [5, 2]),
        IndexRangeError,
        "ctc_loss, inputs: lengths are [5, 2]; expected integers from",
    ),
    (lambda: tr.ctc_loss(x, y, None, [4, 2]), IndexRangeError, "ctc_loss, targets: lengths are [4, 2]; expected"),
    (lambda: tr.ctc_loss(x, y, [4]), ShapeError, "ctc_loss, inputs: lengths have shape (1,); expected (2,)"),
    (lambda: tr.ctc_loss(x, y, blank=3), IndexRangeError, "blank is 3; expected one of the classes 0 … 2"),
    (lambda: tr.ctc_loss(x, y, reduction="max"), ValueError, "reduction is 'max'; expected 'mean', 'sum' or 'none'"),
    (lambda: tr.ctc_decode(x[0]), ShapeError, "ctc_decode: logits are (2, 3); expected (T, B, V)"),
    (lambda: tr.ctc_decode(x, [5, 5]), IndexRangeError, "ctc_decode: lengths are [5, 5]; expected integers from 0 to"),
    (lambda: tr.ctc_decode(x, beam_width=0), ValueError, "beam_width is 0; expected an int of 1 or more, or None"),
    (lambda: tr.ctc_decode(x * math.nan), NonFiniteError, "the logits hold NaN; expected numbers: tr.detect_anomaly"),
]


@pytest.mark.parametrize(("run", "error", "message"), BAD)
def test_bad_input_is_told_what_was_given_and_expected(run, error, message):
    with pytest.raises(error) as caught:
        run()
    assert fnmatch.fnmatchcase(str(caught.value), f"*{message.replace('[', '[[]')}*")
