"""Convolution over time: the sum in plain NumPy, what an output depends on, and sequences in pieces."""

import fnmatch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyrnn as tr
from tinyrnn import nn
from tinyrnn.errors import DTypeError, ShapeError

T, B, I, O = 9, 2, 3, 4
F64 = {"dtype": "float64"}
OPTIONS = [
    {},
    {"stride": 2},
    {"dilation": 3},
    {"dilation": 2, "stride": 3},
    {"causal": True},
    {"causal": True, "dilation": 3},
    {"causal": True, "dilation": 2, "stride": 2},
]
each_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


def close(ours, expected, tolerance=1e-10):
    expected = expected.numpy() if isinstance(expected, tr.Tensor) else expected
    np.testing.assert_allclose(ours.numpy(), expected, rtol=tolerance, atol=tolerance)


def randn(*shape, requires_grad=False):
    return tr.randn(*shape, requires_grad=requires_grad, **F64)


def by_hand(conv, x):
    """Sum over every place and every step by itself; before the sequence there are zeros."""
    x, W, b = x.numpy(), conv.W.numpy(), 0 if conv.b is None else conv.b.numpy()
    first = -(conv.width - 1) * conv.dilation if conv.causal else 0
    last = len(x) - (conv.width - 1) * conv.dilation
    y = []
    for start in range(first, last, conv.stride):
        steps = [start + k * conv.dilation for k in range(conv.width)]
        y.append(b + sum(x[t] @ W[k] for k, t in enumerate(steps) if t >= 0))
    return np.stack(y)


# ---------------------------------------------------------------- one convolution


@each_option
@pytest.mark.parametrize("width", [1, 2, 3])
def test_the_textbooks_sum(backend, options, width):
    conv, x = nn.Conv1d(I, O, width, **options, **F64), randn(T, B, I)
    conv.b.assign(randn(O))
    close(conv(x), by_hand(conv, x))


@each_option
def test_gradients_of_two_orders(backend, options):
    conv, x = nn.Conv1d(I, O, 3, **options, **F64), randn(T, B, I, requires_grad=True)
    assert tr.gradcheck(lambda x, *_: conv(x * x), [x, *conv.parameters()])


def test_causal_outputs_see_nothing_later(backend):
    conv, x = nn.Conv1d(I, O, 3, dilation=2, causal=True, **F64), randn(T, B, I, requires_grad=True)
    assert conv(x).shape == (T, B, O)
    for t in range(T):
        seen = np.abs(tr.grad(conv(x)[t].sum(), x).numpy()).max((1, 2)) > 0
        assert set(np.flatnonzero(seen)) == {s for s in (t - 4, t - 2, t) if s >= 0}


def test_a_convolution_as_wide_as_the_sequence_has_one_place(backend):
    conv, x = nn.Conv1d(I, O, T, bias=False, **F64), randn(T, B, I)
    assert conv.b is None
    close(conv(x), np.einsum("tbi,tio->bo", x.numpy(), conv.W.numpy())[None])


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 12), st.booleans())
@settings(max_examples=60, deadline=None)
def test_length_of_the_output(width, dilation, stride, length, causal):
    conv = nn.Conv1d(1, 1, width, dilation=dilation, stride=stride, causal=causal)
    places = length if causal else length - (width - 1) * dilation
    if places < 1:
        with pytest.raises(ShapeError, match=f"T={length} steps; expected {(width - 1) * dilation + 1} or more"):
            conv(tr.zeros(length, 1, 1))
    else:
        assert conv(tr.zeros(length, 1, 1)).shape == ((places - 1) // stride + 1, 1, 1)


# ---------------------------------------------------------------- a network of them


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize("size", [I, O])
def test_a_block_is_its_equations(backend, size):
    block, x = nn.TCNBlock(size, O, 2, dilation=3, **F64), randn(T, B, size)
    block.conv1.causal = block.conv2.causal = True  # for by_hand: zeros before the sequence
    h = tr.tensor(relu(by_hand(block.conv1, x)))
    y = relu(by_hand(block.conv2, h))
    block.conv1.causal = block.conv2.causal = False
    across = x.numpy() if size == O else x.numpy() @ block.residual.W.numpy()
    assert (block.residual is None) == (size == O)
    close(block(x)[0], relu(across + y))


def in_pieces(layer, x, cuts):
    """Run a sequence in pieces, each with the state after the one before."""
    outputs, state = [], None
    for start, stop in zip([0, *cuts], [*cuts, len(x)], strict=True):
        out, state = layer(x[start:stop], state)
        outputs.append(out)
    return tr.concatenate(outputs), state


@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5, 6, 7, 8], [5], [1, 8]])
def test_a_sequence_in_pieces_is_the_whole(backend, cuts):
    layer, x = nn.TCN(I, O, num_layers=3, **F64), randn(T, B, I, requires_grad=True)
    (whole, after), (pieces, its_after) = layer(x), in_pieces(layer, x, cuts)
    close(pieces, whole)
    for part, its_part in zip(after, its_after, strict=True):
        close(its_part, part)
    gy, leaves = randn(T, B, O), [x, *layer.parameters()]
    for ours, expected in zip(tr.grad(pieces, leaves, gy), tr.grad(whole, leaves, gy), strict=True):
        close(ours, expected)


@given(st.lists(st.integers(1, 11), max_size=5, unique=True), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_pieces_of_any_length_are_the_whole(cuts, width, layers):
    layer, x = nn.TCN(2, 3, layers, width=width, **F64), randn(12, 1, 2)
    close(in_pieces(layer, x, sorted(cuts))[0], layer(x)[0])


def test_an_output_depends_on_what_it_reaches(backend):
    layer, x = nn.TCN(I, 8, num_layers=2, **F64), randn(20, 1, I, requires_grad=True)
    assert layer.reach == 2 * 2 * (1 + 2)
    reached = [np.abs(tr.grad(layer(x)[0][t].sum(), x).numpy()).max((1, 2)) > 0 for t in range(20)]
    distance = np.arange(20)[:, None] - np.arange(20)
    assert not (np.array(reached) & ((distance < 0) | (distance > layer.reach))).any()
    assert reached[19][19 - layer.reach]


def test_the_state_is_a_value(backend):
    layer, x = nn.TCN(I, O, num_layers=2, **F64), randn(T, B, I, requires_grad=True)
    close(layer(x, layer.initial_state(B))[0], layer(x)[0])
    _, state = layer(x[:4])
    assert [part.shape for part in state] == [(2, B, I), (2, B, O), (4, B, O), (4, B, O)]
    expected, _ = layer(x[4:], state)
    cut, _ = layer(x[4:], list(tr.detach(state)))
    close(cut, expected)
    assert tr.grad(expected.sum(), x)[:4].numpy().any()
    assert not tr.grad(cut.sum(), x)[:4].numpy().any()


def test_gradients_of_a_block_of_two_orders(backend):
    block, x = nn.TCNBlock(I, O, 2, dilation=2, **F64), randn(5, 1, I, requires_grad=True)
    state = [randn(*part.shape) for part in block.initial_state(1)]
    assert tr.gradcheck(lambda x, *_: block(x, state)[0], [x, *block.parameters()])


def test_dropout_drops_while_training_alone():
    layer, x = nn.TCN(8, 8, num_layers=2, dropout=0.5), tr.randn(4, B, 8)
    assert (layer(x)[0].numpy() != layer(x)[0].numpy()).any()
    layer.eval()
    assert layer(x)[0].tolist() == layer(x)[0].tolist()


# ---------------------------------------------------------------- what is told


def test_sizes_are_told():
    assert repr(nn.Conv1d(3, 4, 2)) == "Conv1d(I=3 -> O=4, width=2): 28 parameters\n  W (width=2, I=3, O=4), b (O=4)"
    assert repr(nn.Conv1d(3, 4, 2, dilation=2, stride=3, causal=True, bias=False)).startswith(
        "Conv1d(I=3 -> O=4, width=2, dilation=2, stride=3, causal): 24 parameters"
    )
    layer = nn.TCN(3, 4, num_layers=2, dropout=0.1)
    assert repr(layer).startswith("TCN(I=3 -> H=4, L=2, reaches 12 steps back): 208 parameters")
    assert "0: TCNBlock(dropout=0.1)" in repr(layer)
    assert {p.dtype for p in nn.TCN(3, 4, **F64).parameters()} == {tr.float64}


x, state = tr.zeros(T, B, I), nn.TCN(I, O).initial_state(B)
BAD = [
    (lambda: nn.Conv1d(0, 1, 1), ShapeError, "Conv1d: input_size is 0; expected an int of 1 or more"),
    (lambda: nn.Conv1d(1, 1, 0), ShapeError, "Conv1d: width is 0; expected an int of 1 or more"),
    (lambda: nn.Conv1d(1, 1, 1, stride=0), ShapeError, "Conv1d: stride is 0; expected an int of 1 or more"),
    (lambda: nn.Conv1d(1, 1, 1, dilation=0.5), ShapeError, "Conv1d: dilation is 0.5; expected an int of 1 or more"),
    (lambda: nn.Conv1d(I, O, 2)(x[0]), ShapeError, "Conv1d: x is (2, 3); expected (T, B, I=3)"),
    (lambda: nn.Conv1d(5, O, 2)(x), ShapeError, "Conv1d: x is (9, 2, 3) = (T=9, B=2, I=3) but input_size is 5;"),
    (
        lambda: nn.Conv1d(I, O, 5, dilation=3)(x),
        ShapeError,
        "x is (9, 2, 3), T=9 steps; expected 13 or more, for",
    ),
    (lambda: nn.Conv1d(I, O, 2)(x.astype("int64")), DTypeError, "Conv1d: x is int64; expected floating numbers"),
    (lambda: nn.TCN(I, O, 0), ShapeError, "TCN: num_layers is 0; expected an int of 1 or more"),
    (lambda: nn.TCN(I, O, dropout=1.0), ValueError, "dropout is 1.0; expected a probability in [0, 1)"),
    (lambda: nn.TCN(I, O)(x[:0]), ShapeError, "TCN: x is (0, 2, 3); expected at least one time step"),
    (lambda: nn.TCN(I, O)(x, x), DTypeError, "TCN: the state is Tensor; expected 2 tensors, as the layer returns them"),
    (lambda: nn.TCN(I, O)(x, state[:1]), DTypeError, "TCN: the state is 1 parts; expected 2 tensors, as the layer"),
    (
        lambda: nn.TCN(I, O)(x, (1, 2)),
        DTypeError,
        "TCN: part 0 of the state is int; expected a tensor of floats, (2, 2,",
    ),
    (
        lambda: nn.TCN(I, O)(x[:, :1], state),
        ShapeError,
        "part 0 of the state is (2, 2, 3); expected (time, B, width) =",
    ),
]


@pytest.mark.parametrize(("run", "error", "message"), BAD)
def test_bad_input_is_told_what_was_given_and_expected(run, error, message):
    with pytest.raises(error) as caught:
        run()
    assert fnmatch.fnmatchcase(str(caught.value), f"*{message.replace('[', '[[]')}*")
