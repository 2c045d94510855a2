"""Multi-head attention, positions, and transformers that go on from a state: in plain NumPy, and by properties."""

import fnmatch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyrnn as tr
from tinyrnn import nn, optim
from tinyrnn.autograd import changed_mode
from tinyrnn.errors import DTypeError, IndexRangeError, ShapeError
from tinyrnn.generate import generate, take_batch

TQ, TK, B, H, HEADS = 3, 5, 2, 8, 2
F64 = {"dtype": "float64"}
MASK = np.array([[1, 0], [0, 1], [1, 1], [1, 0], [0, 0]], bool)  # (Tk, B)
EACH = np.array([1, 0, 1], bool)[:, None, None] & MASK  # (Tq, Tk, B): the query at t=1 sees nothing
turning = pytest.mark.parametrize("rotary", [False, True])


def close(ours, expected, tolerance=1e-9):
    expected = expected.numpy() if isinstance(expected, tr.Tensor) else expected
    np.testing.assert_allclose(ours.numpy(), expected, rtol=tolerance, atol=tolerance)


def randn(*shape, requires_grad=False):
    return tr.randn(*shape, requires_grad=requires_grad, **F64)


def by_hand(attention, query, keys, values, mask, causal):
    """Compute each head's weights and context by themselves, as the textbook has it."""
    query, keys, values, W_q, W_k, W_v, W_o = (x.numpy() for x in (query, keys, values, *attention.parameters()))
    (tq, b, _), tk, k = query.shape, len(keys), H // HEADS
    context, weights = np.zeros((tq, b, H)), np.zeros((tq, tk, b, HEADS))
    for t, n, i in np.ndindex(tq, b, HEADS):
        part = slice(i * k, (i + 1) * k)
        q_t, k_t, distance = (query[t, n] @ W_q)[part], (keys[:, n] @ W_k)[:, part], tk - tq + t - np.arange(tk)
        if attention.rotary:  # as complex numbers, each turned by its step, of which the distance is left
            pairs = [x[..., : k // 2] + 1j * x[..., k // 2 :] for x in (q_t, k_t)]
            turns = np.exp(1j * distance[:, None] / 10000 ** (2 * np.arange(k // 2) / k))
            scores = (pairs[0] * turns * pairs[1].conj()).sum(-1).real / np.sqrt(k)
        else:
            scores = k_t @ q_t / np.sqrt(k)
        may = np.broadcast_to(mask, (tq, tk, b))[t, :, n] & (distance >= 0 if causal else True)
        e = np.where(may, np.exp(scores), 0)
        weights[t, :, n, i] = e / max(e.sum(), 1e-300)
        context[t, n, part] = weights[t, :, n, i] @ (values[:, n] @ W_v)[:, part]
    return context @ W_o, weights


# ---------------------------------------------------------------- multi-head attention: the equations


@turning
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, MASK, EACH], ids=["no mask", "keys", "each"])
def test_the_textbooks_equations(backend, mask, causal, rotary):
    attention = nn.MultiHeadAttention(H, HEADS, rotary=rotary, **F64)
    x = randn(TQ, B, H), randn(TK, B, H), randn(TK, B, H)
    context, weights = attention(*x, mask=mask, causal=causal)
    assert (context.shape, weights.shape) == ((TQ, B, H), (TQ, TK, B, HEADS))
    expected = by_hand(attention, *x, True if mask is None else mask, causal)
    close(context, expected[0])
    close(weights, expected[1])


def test_queries_alone_are_keys_and_values_too(backend):
    attention, x = nn.MultiHeadAttention(H, HEADS, **F64), randn(TK, B, H)
    for ours, expected in zip(attention(x), attention(x, x, x), strict=True):
        close(ours, expected)
    close(attention(x, randn(TK, B, H) * 0 + x)[0], attention(x)[0])


def test_one_head_is_the_scaled_dot_product_of_attention(backend):
    attention, dot = nn.MultiHeadAttention(H, 1, **F64), nn.Attention(H, score="dot")
    query, keys = randn(TQ, B, H), randn(TK, B, H)
    context, weights = dot(query @ attention.W_q, keys @ attention.W_k, keys @ attention.W_v, MASK)
    ours = attention(query, keys, mask=MASK)
    close(ours[0], context @ attention.W_o)
    close(ours[1].squeeze(-1), weights)


@turning
def test_one_step_is_the_last_row_of_many(backend, rotary):
    attention = nn.MultiHeadAttention(H, HEADS, rotary=rotary, **F64)
    query, keys = randn(TQ, B, H), randn(TK, B, H)
    context, weights = attention(query, keys, mask=MASK, causal=True)
    one, its_weights = attention(query[-1], keys, mask=MASK, causal=True)
    assert (one.shape, its_weights.shape) == ((B, H), (TK, B, HEADS))
    close(one, context[-1])
    close(its_weights, weights[-1])


def test_lengths_are_a_mask_of_the_keys(backend):
    attention, x, lengths = nn.MultiHeadAttention(H, HEADS, **F64), randn(TK, B, H), [2, 5]
    within = np.arange(TK)[:, None] < np.array(lengths)
    close(attention(x, lengths=lengths)[0], attention(x, mask=within)[0])
    both = attention(x, mask=MASK, lengths=tr.tensor(lengths), causal=True)
    close(both[1], attention(x, mask=MASK & within, causal=True)[1])


def test_who_may_look_nowhere_gets_zeros_with_gradient_zero(backend):
    attention = nn.MultiHeadAttention(H, HEADS, **F64)
    x = [randn(T, B, H, requires_grad=True) for T in (TQ, TK, TK)]
    context, weights = attention(*x, mask=EACH)
    assert not context.numpy()[1].any()
    assert not weights.numpy()[1].any()
    gradients = tr.grad((context * context).sum(), [*x, *attention.parameters()], create_graph=True)
    assert all(np.isfinite(g.numpy()).all() for g in gradients)
    assert not gradients[0].numpy()[1].any()
    assert not any(g.numpy()[~MASK].any() for g in gradients[1:3])
    again = tr.grad(sum((g * g).sum() for g in gradients), x)
    assert not any(np.isnan(g.numpy()).any() for g in again)


@turning
@pytest.mark.parametrize("mask", [None, EACH], ids=["no mask", "one sees nothing"])
def test_gradients_of_two_orders(backend, mask, rotary):
    attention = nn.MultiHeadAttention(H, HEADS, rotary=rotary, **F64)
    x = [randn(T, B, H, requires_grad=True) for T in (TQ, TK, TK)]
    assert tr.gradcheck(lambda q, k, v, *_: attention(q, k, v, mask), [*x, *attention.parameters()])
    assert tr.gradcheck(lambda x, *_: attention(x, causal=True), [x[1], *attention.parameters()])


def test_a_memory_gives_what_its_keys_give_and_projects_them_once(backend):
    attention, products = nn.MultiHeadAttention(H, HEADS, **F64), []
    query, keys = randn(TQ, B, H), randn(TK, B, H)
    expected = attention(query, keys, mask=MASK)
    weights = {id(attention.W_k): "k", id(attention.W_v): "v"}

    def listen(op, operands, *_):
        products.extend(weights[id(x)] for x in operands if op.name == "matmul" and id(x) in weights)

    with changed_mode(listener=listen):
        memory = attention.memory(keys, mask=MASK)
        for t in range(TQ):
            context, weight = attention(query[t], memory)
            close(context, expected[0][t])
            close(weight, expected[1][t])
    assert sorted(products) == ["k", "v"]


# ---------------------------------------------------------------- positions


@pytest.mark.parametrize("size", [6, 5, 1])
def test_sinusoids_are_the_papers(backend, size):
    y = nn.PositionalEncoding(size)(tr.zeros(40, B, size, **F64)).numpy()
    for t, b, j in np.ndindex(40, B, size):
        angle = t / 10000 ** (2 * (j // 2) / size)
        assert y[t, b, j] == pytest.approx(np.cos(angle) if j % 2 else np.sin(angle), abs=1e-12)


def test_positions_are_added_and_learned(backend):
    encoding, x = nn.PositionalEncoding(H, maximum=4, **F64), randn(3, B, H, requires_grad=True)
    close(encoding(x), x.numpy() + encoding.W.numpy()[:3, None])
    encoding(x).sum().backward()
    close(encoding.W.grad, [[B] * H] * 3 + [[0] * H])
    assert encoding(randn(4, B, H)).shape == (4, B, H)
    assert not nn.PositionalEncoding(H).parameters()
    assert tr.gradcheck(lambda x, W: encoding(x * x), [x, encoding.W])


def test_without_positions_attention_cannot_tell_the_order(backend):
    block, x, order = nn.TransformerBlock(H, HEADS, rotary=False, **F64), randn(TK, B, H), [3, 0, 4, 1, 2]
    close(block(x[order])[0], block(x)[0][order])
    encoding = nn.PositionalEncoding(H)
    assert np.abs((block(encoding(x[order]))[0] - block(encoding(x))[0][order]).numpy()).max() > 0.1


# ---------------------------------------------------------------- blocks and their state


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def test_a_block_is_its_equations(backend):
    block, x = nn.TransformerBlock(H, HEADS, context=2, **F64), randn(TK, B, H)
    distance = np.arange(TK)[:, None, None] - np.arange(TK)[:, None]
    normed = tr.tensor(norm(x.numpy()))
    attended, _ = by_hand(block.attention, normed, normed, normed, distance <= 2, causal=True)
    h = x.numpy() + attended
    W_1, b_1, W_2, b_2 = (p.numpy() for p in block.feed_forward.parameters())
    assert (W_1.shape, W_2.shape) == ((H, 4 * H), (4 * H, H))
    close(block(x)[0], h + gelu(norm(h) @ W_1 + b_1) @ W_2 + b_2)


def in_pieces(layer, x, cuts):
    """Run a sequence in pieces, each with the state after the one before."""
    outputs, state = [], None
    for start, stop in zip([0, *cuts], [*cuts, len(x)], strict=True):
        out, state = layer(x[start:stop], state)
        outputs.append(out)
    return tr.concatenate(outputs), state


@pytest.mark.parametrize("context", [1, 3, 20])
@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5, 6], [3], [5, 6]])
def test_a_sequence_in_pieces_is_the_whole(backend, context, cuts):
    layer = nn.Transformer(H, HEADS, num_layers=2, context=context, **F64)
    x = randn(7, B, H, requires_grad=True)
    (whole, after), (pieces, its_after) = layer(x), in_pieces(layer, x, cuts)
    close(pieces, whole)
    for part, its_part in zip(after, its_after, strict=True):
        close(its_part, part)
    gy, leaves = randn(7, B, H), [x, *layer.parameters()]
    for ours, expected in zip(tr.grad(pieces, leaves, gy), tr.grad(whole, leaves, gy), strict=True):
        close(ours, expected)


@given(st.lists(st.integers(1, 11), max_size=5, unique=True), st.integers(1, 14), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_pieces_of_any_length_are_the_whole(cuts, context, layers):
    layer, x = nn.Transformer(4, 2, layers, context=context, **F64), randn(12, 1, 4)
    close(in_pieces(layer, x, sorted(cuts))[0], layer(x)[0])


def test_a_step_sees_its_context_and_nothing_later(backend):
    layer, x = nn.Transformer(H, HEADS, num_layers=2, context=3, **F64), randn(12, 1, H, requires_grad=True)
    gy = randn(1, H)
    reached = np.array([np.abs(tr.grad(layer(x)[0][t], x, gy).numpy()).max((1, 2)) > 0 for t in range(12)])
    distance = np.arange(12)[:, None] - np.arange(12)
    assert (reached == ((distance >= 0) & (distance <= 2 * 3))).all()  # two layers, three steps each


def test_a_context_as_long_as_the_sequence_leaves_nothing_out(backend):
    x, layers = randn(6, B, H), [nn.Transformer(H, HEADS, context=context, **F64) for context in (5, 50)]
    layers[1].load_state_dict(layers[0].state_dict())
    close(layers[0](x)[0], layers[1](x)[0])


def test_the_state_before_the_first_step_is_none_at_all(backend):
    layer, x = nn.Transformer(H, HEADS, num_layers=2, context=4, **F64), randn(3, B, H)
    state = layer.initial_state(B)
    assert [part.shape for part in state] == [(2, B, 4, H), (2, B, 4, H), (2, B, 4)]
    assert not state.filled.numpy().any()
    close(layer(x, state)[0], layer(x)[0])
    assert layer(x)[1].filled.tolist() == [[[False, True, True, True]] * B] * 2


def test_a_state_is_a_value(backend):
    layer, x = nn.Transformer(H, HEADS, num_layers=2, context=4, **F64), randn(5, B, H, requires_grad=True)
    _, state = layer(x[:3])
    expected, _ = layer(x[3:], state)
    assert isinstance(tr.detach(state), nn.TransformerState)
    cut, _ = layer(x[3:], tuple(state.detach()))
    close(cut, expected)
    gy = randn(2, B, H)
    assert np.abs(tr.grad(expected, x, gy)[:3].numpy()).max() > 0.01
    assert not tr.grad(cut, x, gy)[:3].numpy().any()
    swapped, _ = layer(x[3:][:, [1, 0]], take_batch(state, [1, 0]))  # as a beam search does
    close(swapped, expected.numpy()[:, [1, 0]])


def test_a_padded_batch_equals_its_sequences_one_by_one(backend):
    layer, x = nn.Transformer(H, HEADS, num_layers=2, **F64), randn(5, 3, H)
    out, state = layer(x, lengths=[2, 5, 0])
    assert state is None
    assert layer.initial_state(3) is None
    for b, n in enumerate([2, 5]):
        close(out[:n, b : b + 1], layer(x[:n, b : b + 1])[0])
        assert not out[n:, b].numpy().any()
    assert not out[:, 2].numpy().any()


@pytest.mark.parametrize("context", [None, 2])
def test_gradients_of_blocks_of_two_orders(backend, context):
    block = nn.TransformerBlock(4, 2, context=context, **F64)
    for parameter in block.parameters():
        parameter.assign(parameter + 0.1 * randn(*parameter.shape))
    x = randn(4, 1, 4, requires_grad=True)
    state = tr.detach(block(randn(1, 1, 4))[1])  # with a place that is not filled yet
    assert tr.gradcheck(lambda x, *_: block(x, state)[0], [x, *block.parameters()])


def test_dropout_drops_while_training_alone():
    layer, x = nn.Transformer(8, 2, num_layers=2, dropout=0.5), tr.randn(4, B, 8)
    assert (layer(x)[0].numpy() != layer(x)[0].numpy()).any()
    layer.eval()
    assert layer(x)[0].tolist() == layer(x)[0].tolist()


# ---------------------------------------------------------------- a language model


class Model(nn.Module):
    """What a character model with a recurrent layer is, with another layer."""

    def __init__(self, layer, vocabulary_size, size):
        self.embedding = nn.Embedding(vocabulary_size, size)
        self.layer = layer
        self.output = nn.Linear(size, vocabulary_size)

    def forward(self, x, state=None):
        h, state = self.layer(self.embedding(x), state)
        return self.output(h), state


LAYERS = {
    "transformer": lambda: nn.Transformer(16, 2, context=8),
    "tcn": lambda: nn.TCN(16, 16, num_layers=2),
    "lstm": lambda: nn.LSTM(16, 16),
}
each_layer = pytest.mark.parametrize("layer", LAYERS)


@each_layer
def test_a_layer_stands_where_a_recurrent_one_stands(layer):
    """Train by windows with the state carried, captured, on a text whose next symbol hangs on the one before last."""
    text, model = [0, 1, 0, 2] * 60, Model(LAYERS[layer](), 3, 16)
    optimizer = optim.Adam(model.parameters(), lr=0.02)

    def gradients(x, y, state):
        logits, state = model(x, state)
        loss = tr.cross_entropy(logits, y)
        loss.backward()
        return loss, tr.detach(state)

    learn = tr.capture(gradients, model)
    x, y = (np.array(part).reshape(-1, 12, 1) for part in (text, text[1:] + text[:1]))
    for _ in range(3):
        state = None
        for now, then in zip(x, y, strict=True):
            optimizer.zero_grad()
            loss, state = learn(now, then, state)
            optimizer.step()
    assert loss.item() < 0.1
    assert len(learn.programs) == 2  # without a state and with one
    assert list(generate(model, [0, 1], 40, temperature=0)) == ([0, 2, 0, 1] * 10)


@each_layer
def test_generating_step_by_step_is_reading_the_whole(layer, backend):
    model = Model(LAYERS[layer](), 5, 16)
    prompt = [3, 1]
    written = list(generate(model, prompt, 20, temperature=0))
    assert written == list(generate(model, prompt, 20, temperature=0, captured=False))
    logits, _ = model(tr.tensor([prompt + written]).T)
    assert written == logits[1:-1, 0].argmax(-1).tolist()


# ---------------------------------------------------------------- what is told


def test_sizes_are_told():
    assert repr(nn.MultiHeadAttention(8, 2, rotary=True)).splitlines() == [
        "MultiHeadAttention(H=8, heads=2, rotary): 256 parameters",
        "  W_q (H=8, H=8), W_k (H=8, H=8), W_v (H=8, H=8), W_o (H=8, H=8)",
    ]
    assert repr(nn.PositionalEncoding(6)) == "PositionalEncoding(sinusoids, H=6): 0 parameters"
    assert repr(nn.PositionalEncoding(6, 4)) == "PositionalEncoding(learned, H=6): 24 parameters\n  W (M=4, H=6)"
    layer = nn.Transformer(8, 2, num_layers=3, context=9)
    assert repr(layer).startswith("Transformer(H=8, heads=2, L=3, C=9): 2,536 parameters")
    assert {p.dtype for p in nn.Transformer(8, 2, **F64).parameters()} == {tr.float64}
    names = [name for name, _ in layer.named_parameters()]
    assert names[:3] == ["blocks.0.norm_attention.weight", "blocks.0.norm_attention.bias", "blocks.0.attention.W_q"]


x = tr.zeros(TK, B, H)
plain, causal = nn.Transformer(H, HEADS), nn.Transformer(H, HEADS, context=4)
block, attention = causal.blocks[0], nn.MultiHeadAttention(H, HEADS)
state = causal.initial_state(B)
BAD = [
    (lambda: nn.MultiHeadAttention(0, 1), ShapeError, "MultiHeadAttention: size is 0; expected an int of 1 or more"),
    (lambda: nn.MultiHeadAttention(6, 4), ShapeError, "MultiHeadAttention: size is 6 and heads 4; expected a multiple"),
    (lambda: attention([1.0]), DTypeError, "query is list; expected a tensor (T, B, H=8): tr.tensor(query) makes one"),
    (lambda: attention(x[0]), ShapeError, "MultiHeadAttention: query is (2, 8); expected (T, B, H=8)"),
    (lambda: attention(x, x[..., :5]), ShapeError, "keys is (5, 2, 5) = (Tk=5, B=2, K=5) but size is 8;"),
    (lambda: attention(x, x, x[..., :5]), ShapeError, "values is (5, 2, 5) = (Tk=5, B=2, H=5) but size is 8;"),
    (lambda: attention(x, x, x[:4]), ShapeError, "values are (4, 2, 8); expected a tensor (Tk=5, B=2, V), one"),
    (lambda: attention(x, x[:, :1]), ShapeError, "query is (5, 2, 8), of B=2, and the keys have B=1"),
    (lambda: attention(x, mask=MASK.T), ShapeError, "MultiHeadAttention: the mask is (2, 5); expected (Tk=5, B=2) or"),
    (lambda: attention(x, mask=MASK * 1), DTypeError, "the mask is int64; expected bool, True where"),
    (
        lambda: attention(x, lengths=[5, 6]),
        IndexRangeError,
        "MultiHeadAttention: lengths are [5, 6]; expected integers",
    ),
    (
        lambda: attention(x, x[:2], causal=True),
        ShapeError,
        "there are Tq=5 queries and Tk=2 keys; expected at least as",
    ),
    (lambda: attention(x, attention.memory(x), mask=MASK), DTypeError, "MultiHeadAttention: values, mask or lengths"),
    (lambda: nn.PositionalEncoding(H)(x[..., :5]), ShapeError, "x is (5, 2, 5) = (T=5, B=2, H=5) but size is 8;"),
    (lambda: nn.PositionalEncoding(H, 4)(x), ShapeError, "x is (5, 2, 8), T=5 steps, and maximum is 4; give shorter"),
    (lambda: nn.PositionalEncoding(H, 0), ShapeError, "PositionalEncoding: maximum is 0; expected an int of 1 or more"),
    (lambda: nn.TransformerBlock(6, 2), ShapeError, "size is 6 and heads 2; expected a multiple of 4, since rotary"),
    (
        lambda: nn.Transformer(H, 2, context=0),
        ShapeError,
        "TransformerBlock: context is 0; expected an int of 1 or more",
    ),
    (lambda: nn.Transformer(H, 2, num_layers=0), ShapeError, "Transformer: num_layers is 0; expected an int of 1 or"),
    (lambda: nn.Transformer(H, 2, dropout=1), ValueError, "p is 1; expected a probability from 0 up to"),
    (lambda: plain(x[:0]), ShapeError, "Transformer: x is (0, 2, 8); expected at least one time step"),
    (lambda: plain(x, state), DTypeError, "Transformer: a state is given, and there is no context; leave it out, or"),
    (
        lambda: causal(x, lengths=[5, 2]),
        DTypeError,
        "lengths are given and context is 4; leave them out, since no step",
    ),
    (lambda: causal(x, state[0]), DTypeError, "Transformer: the state is Tensor; expected TransformerState(keys, "),
    (lambda: causal(x[:, :1], state), ShapeError, "keys of the state is (1, 2, 4, 8); expected (1, 1, 4, 8)"),
    (lambda: causal(x, (*state[:2], state[0][..., 0])), DTypeError, "filled of the state is float32; expected bool"),
    (lambda: block(x, state), ShapeError, "TransformerBlock: keys of the state is (1, 2, 4, 8); expected (2, 4, 8)"),
]


@pytest.mark.parametrize(("run", "error", "message"), BAD)
def test_bad_input_is_told_what_was_given_and_expected(run, error, message):
    with pytest.raises(error) as caught:
        run()
    assert fnmatch.fnmatchcase(str(caught.value), f"*{message.replace('[', '[[]')}*")
