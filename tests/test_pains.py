"""Fifteen things that learners of recurrent networks trip over elsewhere, each with what tinyrnn answers."""

import inspect
import warnings

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import nn

T, B, I, H = 5, 3, 4, 6


@pytest.fixture
def x():
    return tr.randn(T, B, I)


def test_1_which_tensor_is_the_last_state(x):
    out, state = nn.LSTM(I, H, num_layers=2)(x)
    assert state._fields == ("h", "c")
    np.testing.assert_array_equal(state.h.numpy()[-1], out.numpy()[-1])


def test_2_batch_first_is_not_guessed(x):
    with pytest.raises(tr.errors.DTypeError, match=r"one layout, \(T, B, I\): x.swapaxes\(0, 1\)"):
        nn.LSTM(I, H, batch_first=True)
    with pytest.raises(
        tr.errors.ShapeError, match=r"\(T=5, B=4, I=3\) but input_size is 4; the last axis of x must be 4"
    ):
        nn.LSTM(I, H)(x.swapaxes(1, 2))


def test_3_a_state_that_was_not_detached_is_told_so(x):
    lstm = nn.LSTM(I, H)
    out, state = lstm(x)
    out.sum().backward()
    out, state = lstm(x, state)
    with pytest.raises(tr.errors.GraphError, match=r"computed in an earlier batch.*state = tr.detach\(state\)"):
        out.sum().backward()


def test_4_lengths_are_plain_and_in_any_order(x):
    out, state = nn.GRU(I, H)(x, lengths=[2, 5, 3])
    np.testing.assert_array_equal(state.h.numpy()[0], [out.numpy()[n - 1, b] for b, n in enumerate([2, 5, 3])])


def test_5_padding_does_not_leak_into_the_last_state(x):
    gru = nn.GRU(I, H, bidirectional=True)
    padded = gru(x, lengths=[2, 5, 3])[1].h.numpy()[:, :1]
    np.testing.assert_allclose(padded, gru(x[:2, :1])[1].h.numpy(), atol=1e-6)


def test_6_masks_count_and_a_fully_masked_row_is_defined(x):
    logits = tr.randn(4, 7, requires_grad=True)
    loss = tr.cross_entropy(logits, tr.tensor([9] * 4), ignore_index=9)
    assert loss.item() == 0
    loss.backward()
    assert not logits.grad.numpy().any()
    context, weights = nn.Attention(H, H)(tr.randn(B, H), tr.randn(T, B, H), lengths=[0, 5, 2])
    assert not context.numpy()[0].any()
    assert not weights.numpy()[2:, 2].any()


def test_7_the_state_is_a_value_and_the_layer_keeps_none(x):
    lstm = nn.LSTM(I, H)
    first = lstm(x)[0].numpy()
    lstm(tr.randn(T, B, I))
    np.testing.assert_array_equal(lstm(x)[0].numpy(), first)


def test_8_no_warning_without_a_cause(x):
    lstm = nn.LSTM(I, H)
    lstm.cells[0].W_h.assign(tr.tensor(lstm.cells[0].W_h.numpy().T.copy()).T)  # laid out column by column
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lstm(x)[0].sum().backward()


def test_9_dropout_with_one_layer_is_refused():
    with pytest.raises(ValueError, match="acts between layers, and there is one; use num_layers=2"):
        nn.LSTM(I, H, dropout=0.5)


def test_10_the_sequence_and_the_last_state_both_come_back(x):
    with pytest.raises(tr.errors.DTypeError, match="out has every step, and state what stands after the last"):
        nn.LSTM(I, H, return_sequences=True)
    out, state = nn.RNN(I, H)(x)
    assert (out.shape, state.h.shape) == ((T, B, H), (1, B, H))


def test_11_the_forget_bias_is_1_and_there_is_one_bias():
    lstm = nn.LSTM(I, H)
    assert [name for name, p in lstm.named_parameters() if p.ndim == 1] == ["cells.0.b"]
    assert lstm.cells[0].b.numpy().reshape(4, H)[1].tolist() == [1.0] * H
    assert "forget bias 1" in repr(lstm)


def test_12_a_cell_is_a_few_lines_of_python(x):
    class Residual(nn.Cell):
        gates = ("h",)

        def step(self, z, state):
            return self.State(state.h + tr.tanh(z + state.h @ self.W_h))

    layer = nn.Recurrent(Residual, I, H, 2, bidirectional=True, dropout=0.1, zoneout=0.1)
    out, _ = layer(x, lengths=[1, 5, 3])
    assert out.shape == (T, B, 2 * H)


def test_13_there_are_two_grus_and_each_says_which_it_is(x):
    after, before = nn.GRU(I, H), nn.GRU(I, H, reset_after=False)
    assert "reset after" in repr(after)
    assert "reset before" in repr(before)
    assert all(equation in inspect.getdoc(nn.GRU) for equation in ("r⊙(hₜ₋₁ W_hn + b_hn)", "(r⊙hₜ₋₁) W_hn"))


@pytest.mark.parametrize("layer_type", [nn.RNN, nn.LSTM, nn.GRU])
def test_14_second_derivatives_are_there(layer_type):
    x = tr.randn(3, 1, 2, dtype="float64", requires_grad=True)
    layer = layer_type(2, 2, dtype="float64")
    (slope,) = tr.grad((layer(x)[0] ** 2).sum(), [x], create_graph=True)
    assert tr.grad((slope**2).sum(), x).numpy().any()


def test_15_the_first_number_that_is_none_is_named_and_runs_repeat(x):
    rnn = nn.RNN(I, H, nonlinearity="relu")
    rnn.cells[0].W_h.assign(rnn.cells[0].W_h * 1e20)
    with (
        tr.detect_anomaly(),
        pytest.raises(tr.errors.NonFiniteError, match=r"RNN\.cells\.0, step t=\d"),
        np.errstate(all="ignore"),
    ):
        rnn(x)
    drawn = []
    for _ in range(2):
        tr.manual_seed(7)
        drawn.append(nn.LSTM(I, H)(tr.randn(T, B, I))[0].numpy())
    np.testing.assert_array_equal(*drawn)


def test_also_targets_of_the_wrong_shape_where_t_happens_to_equal_v():
    with pytest.raises(tr.errors.ShapeError, match=r"expected logits \(…, V\) with the classes last"):
        tr.cross_entropy(tr.randn(2, 5, 5), tr.zeros(2, dtype="int64"))


def test_also_h_alone_for_an_lstm(x):
    with pytest.raises(tr.errors.DTypeError, match=r"a tensor alone; expected LSTMState\(h, c\), each \(L, B, H\)"):
        nn.LSTM(I, H)(x, tr.zeros(1, B, H))


@pytest.mark.parametrize(
    ("compute", "words"),
    [
        (lambda a, x: np.tanh(x), r"np\.tanh of a tensor: .* tr\.tanh takes tensors"),
        (lambda a, x: np.abs(x), r"np\.absolute of a tensor: .* tr\.abs takes tensors"),
        (lambda a, x: np.sin(x), r"np\.sin of a tensor: .* tr\.primitive makes an operation of yours"),
        (lambda a, x: np.add(a, x, out=a), r"in place of `array \+= tensor` write `array = array \+ tensor`"),
        (lambda a, x: tr.fused(lambda x: np.exp(x))(x), r"tr\.exp takes tensors"),
    ],
)
def test_also_a_function_of_numpy_which_would_keep_no_graph(compute, words):
    with pytest.raises(tr.errors.DTypeError, match=words):
        compute(np.ones(3, "float32"), tr.randn(3, requires_grad=True))


def test_also_an_array_on_the_left_which_is_welcome():
    a, x = np.array([2.0, 3.0]), tr.tensor([4.0, 5.0], dtype="float64", requires_grad=True)
    for ours, plain in (
        (a + x, a + x.numpy()),
        (a - x, a - x.numpy()),
        (a * x, a * x.numpy()),
        (a / x, a / x.numpy()),
        (a**x, a ** x.numpy()),
        (a @ x, a @ x.numpy()),
        (np.float64(2) * x, 2 * x.numpy()),
    ):
        assert isinstance(ours, tr.Tensor)
        assert ours.requires_grad
        np.testing.assert_array_equal(ours.numpy(), plain)
    for ours, plain in ((a < x, a < x.numpy()), (a == x, a == x.numpy()), ((a > 2) & (x > 4), [False, True])):
        assert isinstance(ours, tr.Tensor)
        np.testing.assert_array_equal(ours.numpy(), plain)


@pytest.mark.parametrize(
    "compute", [lambda h, W: h @ W, lambda h, W: W @ h, lambda h, W: h + W, lambda h, W: tr.tanh(h)]
)
def test_also_a_state_in_the_place_of_its_h(compute):
    with pytest.raises(tr.errors.DTypeError, match=r"RNNState\(h\); take the tensor that is meant: state\.h"):
        compute(nn.RNNState(tr.randn(2, 3)), tr.randn(3, 3, requires_grad=True))


def test_also_a_list_of_tensors_which_would_lose_their_gradients():
    x = tr.randn(3, requires_grad=True)
    with pytest.raises(tr.errors.DTypeError, match=r"multiply: an operand is a list of tensors; tr\.stack"):
        x * [tr.sum(x), tr.sum(x), tr.sum(x)]


def test_also_an_if_on_values_in_a_fused_function():
    with pytest.raises(tr.errors.FusionError, match=r"looks at a value.*tr\.where\(mask, a, b\)"):
        tr.fused(lambda x: x if x > 0 else -x)(tr.randn(3))
