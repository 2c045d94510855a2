"""Attention: the equations in plain NumPy, masks and lengths, gradients, and what a decoder does with it."""

import fnmatch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import tinyrnn as tr
from tinyrnn import nn
from tinyrnn.autograd import changed_mode
from tinyrnn.errors import DTypeError, IndexRangeError, ShapeError

TQ, TK, B, Q, K, V, H = 3, 5, 2, 4, 6, 7, 8
MASK = np.array([[1, 0], [0, 1], [1, 1], [1, 0], [0, 0]], bool)  # (Tk, B)
CAUSAL = np.tri(TQ, TK, dtype=bool)[..., None] & np.ones(B, bool)  # (Tq, Tk, B)
kinds = pytest.mark.parametrize("kind", ["additive", "dot"])


def made(kind, dtype="float64"):
    attention = nn.Attention(Q, K, H, dtype=dtype) if kind == "additive" else nn.Attention(K, score="dot")
    for parameter in attention.parameters():
        parameter.assign(tr.randn(*parameter.shape, dtype=dtype))
    return attention


def inputs(attention, requires_grad=False):
    """Return random query, keys and values."""
    shapes = (TQ, B, attention.query_size), (TK, B, K), (TK, B, V)
    return [tr.randn(*shape, dtype="float64", requires_grad=requires_grad) for shape in shapes]


def by_hand(attention, query, keys, values, mask):
    """Compute each weight and context by itself, as the textbook has it."""
    query, keys, values = (x.numpy() for x in (query, keys, values))
    context, weights = np.zeros((TQ, B, V)), np.zeros((TQ, TK, B))
    for t in range(TQ):
        for b in range(B):
            q, k = query[t, b], keys[:, b]
            if attention.score == "additive":
                W_q, W_k, v = (p.numpy() for p in (attention.W_q, attention.W_k, attention.v))
                scores = np.tanh(q @ W_q + k @ W_k) @ v
            else:
                scores = k @ q / np.sqrt(len(q))
            e = np.where(np.broadcast_to(mask, (TQ, TK, B))[t, :, b], np.exp(scores), 0)
            weights[t, :, b] = e / max(e.sum(), 1e-300)
            context[t, b] = weights[t, :, b] @ values[:, b]
    return context, weights


def close(ours, expected):
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- the equations


@kinds
@pytest.mark.parametrize("mask", [None, MASK, CAUSAL, CAUSAL & MASK], ids=["no mask", "keys", "causal", "both"])
def test_the_textbooks_equations(backend, kind, mask):
    attention = made(kind)
    x = inputs(attention)
    context, weights = attention(*x, mask=mask)
    assert (context.shape, weights.shape) == ((TQ, B, V), (TQ, TK, B))
    expected = by_hand(attention, *x, True if mask is None else mask)
    close(context, expected[0])
    close(weights, expected[1])


@kinds
def test_one_step_is_a_row_of_many(backend, kind):
    attention = made(kind)
    query, keys, values = inputs(attention)
    context, weights = attention(query, keys, values, MASK)
    for t in range(TQ):
        one, its_weights = attention(query[t], keys, values, MASK)
        assert (one.shape, its_weights.shape) == ((B, V), (TK, B))
        close(one, context[t].numpy())
        close(its_weights, weights[t].numpy())


@kinds
def test_the_keys_are_the_values_unless_others_are_given(backend, kind):
    attention = made(kind)
    query, keys, _ = inputs(attention)
    close(attention(query, keys)[0], attention(query, keys, keys)[0].numpy())


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_weights_are_a_distribution_over_the_keys_that_may_be_looked_at(data):
    lengths = [data.draw(st.integers(1, 4), label=name) for name in ("Tq", "Tk", "B")]
    mask = data.draw(arrays.arrays(bool, lengths), label="mask")
    query, keys = (tr.randn(T, lengths[2], 3, dtype="float64") * 10 for T in lengths[:2])
    for score in ("additive", "dot"):
        _, weights = nn.Attention(3, score=score, dtype="float64")(query, keys, mask=mask)
        p = weights.numpy()
        assert (p >= 0).all()
        assert (p[~mask] == 0).all()
        np.testing.assert_allclose(p.sum(1), mask.any(1), atol=1e-12)


# ---------------------------------------------------------------- masks and lengths


@kinds
def test_lengths_are_a_mask_of_the_keys(backend, kind):
    attention = made(kind)
    x, lengths = inputs(attention), [2, 5]
    within = np.arange(TK)[:, None] < np.array(lengths)
    close(attention(*x, lengths=lengths)[0], attention(*x, mask=within)[0].numpy())
    both = attention(*x, mask=tr.tensor(CAUSAL), lengths=tr.tensor(lengths))
    close(both[1], attention(*x, mask=CAUSAL & within)[1].numpy())


@kinds
def test_a_padded_batch_equals_its_sequences_one_by_one(backend, kind):
    attention, lengths = made(kind), [2, 5]
    x, parameters = inputs(attention, requires_grad=True), attention.parameters()
    gy = tr.randn(TQ, B, V, dtype="float64")
    context, _ = attention(*x, lengths=lengths)
    gx = [np.zeros(part.shape) for part in x]
    gp = [np.zeros(part.shape) for part in parameters]
    for b, n in enumerate(lengths):
        own = [(slice(0, end), slice(b, b + 1)) for end in (TQ, n, n)]  # of query, keys and values
        alone = [part.detach()[at] for part, at in zip(x, own, strict=True)]
        for part in alone:
            part.requires_grad = True
        one, _ = attention(*alone)
        close(context[:, b : b + 1], one.numpy())
        for whole, at, g in zip(gx, own, tr.grad(one, alone, gy[:, b : b + 1]), strict=True):
            whole[at] = g.numpy()
        for whole, g in zip(gp, tr.grad(one, parameters, gy[:, b : b + 1]), strict=True):
            whole += g.numpy()
    for g, expected in zip(tr.grad(context, [*x, *parameters], gy), [*gx, *gp], strict=True):
        close(g, expected)


@kinds
@pytest.mark.parametrize("garbage", [0.0, 1e30, -1e30])
def test_what_may_not_be_looked_at_does_not_matter(backend, kind, garbage):
    attention = made(kind)
    query, keys, values = inputs(attention, requires_grad=True)
    hidden = tr.tensor(~MASK[..., None])
    context, _ = attention(query, tr.where(hidden, garbage, keys), tr.where(hidden, garbage, values), MASK)
    close(context, attention(query, keys, values, MASK)[0].numpy())
    for g in tr.grad(context.sum(), [keys, values]):
        assert not g.numpy()[~MASK].any()


@kinds
def test_who_may_look_nowhere_gets_zeros_with_gradient_zero(backend, kind):
    attention = made(kind)
    x = inputs(attention, requires_grad=True)
    nobody = MASK & [True, False]
    context, weights = attention(*x, mask=nobody)
    assert not context.numpy()[:, 1].any()
    assert not weights.numpy()[..., 1].any()
    close(weights.sum(1)[:, 0], np.ones(TQ))
    gradients = tr.grad((context * context).sum(), [*x, *attention.parameters()], create_graph=True)
    assert all(np.isfinite(g.numpy()).all() for g in gradients)
    assert not any(g.numpy()[:, 1].any() for g in gradients[:3])
    again = tr.grad(sum((g * g).sum() for g in gradients), x)
    assert not any(np.isnan(g.numpy()).any() or g.numpy()[:, 1].any() for g in again)
    none = attention(*x, lengths=[0, 0])
    assert not none[0].numpy().any()
    assert not any(g.numpy().any() for g in tr.grad(none[0].sum(), [*x, *attention.parameters()]))


# ---------------------------------------------------------------- gradients


@kinds
@pytest.mark.parametrize(
    "mask", [None, MASK, CAUSAL & MASK & [True, False]], ids=["no mask", "mask", "one sees nothing"]
)
def test_gradients_of_two_orders(backend, kind, mask):
    attention = made(kind)
    x = inputs(attention, requires_grad=True)
    assert tr.gradcheck(lambda q, k, v, *_: attention(q, k, v, mask), [*x, *attention.parameters()])
    assert tr.gradcheck(lambda q, k, v, *_: attention(q[0], k, v, lengths=[3, 0]), [*x, *attention.parameters()])


# ---------------------------------------------------------------- a decoder


class Decoder(nn.Module):
    """Each step asks the encoded sequence with the state before it (Bahdanau et al. 2015)."""

    def __init__(self, kind):
        self.attention = nn.Attention(H, K, score=kind) if kind == "additive" else nn.Attention(K, score=kind)
        self.cell = nn.GRUCell(K, self.attention.query_size)

    def forward(self, encoded, T, lengths=None, prepared=True):
        state, weights = self.cell.initial_state(encoded.shape[1]), []
        memory = self.attention.memory(encoded, lengths=lengths)
        for _ in tr.steps(T):
            asked = (memory,) if prepared else (encoded, None, None, lengths)
            context, weight = self.attention(state.h, *asked)
            state = self.cell(context, state)
            weights.append(weight)
        return state.h, tr.stack(weights)


@kinds
def test_a_memory_gives_what_its_keys_give(backend, kind):
    decoder = Decoder(kind)
    encoded = tr.randn(TK, B, K, requires_grad=True)
    results = [decoder(encoded, 4, [5, 2], prepared) for prepared in (True, False)]
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_allclose(ours.numpy(), expected.numpy(), rtol=1e-6)
    leaves = [encoded, *decoder.parameters()]
    for ours, expected in zip(*(tr.grad(h.sum(), leaves) for h, _ in results), strict=True):
        np.testing.assert_allclose(ours.numpy(), expected.numpy(), rtol=1e-4, atol=1e-6)
    assert not results[0][1].numpy()[:, 2:, 1].any()


def test_a_memory_computes_the_keys_product_once():
    decoder, products = Decoder("additive"), []
    W_k = decoder.attention.W_k
    with changed_mode(listener=lambda op, operands, *_: products.append(op.name == "matmul" and operands[1] is W_k)):
        decoder(tr.randn(TK, B, K), T=6)
    assert sum(products) == 1


def test_a_memory_may_be_cut_off_from_its_history():
    attention = nn.Attention(K)
    memory = tr.detach(attention.memory(tr.randn(TK, B, K, requires_grad=True)))
    assert isinstance(memory, nn.Memory)
    assert not memory.keys.requires_grad
    assert attention(tr.zeros(B, K), memory)[0].shape == (B, K)


def test_operations_know_that_they_happened_in_the_attention():
    decoder = Decoder("additive")
    h, _ = decoder(tr.randn(TK, B, K), T=2)
    found, nodes = set(), [h.node]
    while nodes:
        node = nodes.pop()
        found |= {str(node.scope)} if node.op and node.op.name == "matmul" else set()
        nodes += [parent[0] for parent in node.parents if parent]
    assert {"Decoder.attention", "Decoder.attention, step t=1"} < found


def test_parameters_and_sizes_are_told():
    attention = nn.Attention(Q, K, H)
    assert {name: p.shape for name, p in attention.named_parameters()} == {"W_q": (Q, H), "W_k": (K, H), "v": (H,)}
    assert repr(attention) == (
        "Attention(additive, Q=4, K=6 -> H=8): 88 parameters\n  W_q (Q=4, H=8), W_k (K=6, H=8), v (H=8)"
    )
    assert repr(nn.Attention(K, score="dot")) == "Attention(dot, Q=6, K=6): 0 parameters"
    assert {p.shape for p in nn.Attention(5).parameters()} == {(5, 5), (5,)}
    assert {p.dtype for p in nn.Attention(5, dtype="float64").parameters()} == {tr.float64}


# ---------------------------------------------------------------- bad input


def call(*args, **kwargs):
    return lambda: nn.Attention(Q, K, H)(*args, **kwargs)


q, k, v = tr.zeros(TQ, B, Q), tr.zeros(TK, B, K), tr.zeros(TK, B, V)
BAD = [
    (lambda: nn.Attention(0), ShapeError, "Attention: query_size is 0; expected an int of 1 or more"),
    (lambda: nn.Attention(4, 2.5), ShapeError, "Attention: key_size is 2.5; expected an int of 1 or more"),
    (lambda: nn.Attention(4, 4, -1), ShapeError, "Attention: hidden_size is -1; expected an int of 1 or more"),
    (lambda: nn.Attention(4, score="cosine"), ValueError, "score is 'cosine'; expected 'additive' or 'dot'"),
    (lambda: nn.Attention(4, hidden_size=8, score="dot"), ValueError, "hidden_size=8 is for * 'dot' has no parameters"),
    (lambda: nn.Attention(4, 6, score="dot"), ShapeError, "query_size is 4 and key_size 6; * nn.Linear(4, 6)"),
    (call([1.0], k), DTypeError, "query is list; expected a tensor (Tq, B, Q=4): tr.tensor(query) makes one"),
    (call(tr.zeros(B, Q, dtype="int64"), k), DTypeError, "query is int64; expected floating numbers (B, Q=4)"),
    (call(tr.zeros(Q), k), ShapeError, "query is (4,); expected (Tq, B, Q=4)"),
    (call(tr.zeros(TQ, B, 5), k), ShapeError, "query is (3, 2, 5) = (Tq=3, B=2, Q=5) but query_size is 4;"),
    (call(tr.zeros(TQ, 3, Q), k), ShapeError, "query is (3, 3, 4), of B=3, and the keys have B=2"),
    (call(q, tr.zeros(B, K)), ShapeError, "keys is (2, 6); expected (Tk, B, K=6)"),
    (call(q, tr.zeros(TK, B, 5)), ShapeError, "keys is (5, 2, 5) = (Tk=5, B=2, K=5) but key_size is 6;"),
    (call(q, tr.zeros(0, B, K)), ShapeError, "keys are (0, 2, 6); expected at least one to look at"),
    (call(q, k, tr.zeros(4, B, V)), ShapeError, "values are (4, 2, 7); expected a tensor (Tk=5, B=2, V), one"),
    (call(q, k, 3.0), ShapeError, "values are float; expected a tensor (Tk=5, B=2, V), one for each key"),
    (call(q, k, v, MASK.astype("int64")), DTypeError, "the mask is int64; expected bool, True where *: mask > 0"),
    (call(q, k, v, MASK.T), ShapeError, "the mask is (2, 5); expected (Tk=5, B=2) or (Tq, Tk=5, B=2)"),
    (call(q, k, v, CAUSAL[:2]), ShapeError, "the mask is (2, 5, 2) and query (3, 2, 4); * or (Tq=3, Tk=5, B=2)"),
    (call(q[0], k, v, CAUSAL), ShapeError, "the mask is (3, 5, 2) and query (2, 4); expected (Tk=5, B=2)"),
    (call(q, k, lengths=[5, 6]), IndexRangeError, "lengths are [5, 6]; expected integers from 0 to"),
    (call(q, k, lengths=[5]), ShapeError, "lengths have shape (1,); expected (2,)"),
    (
        lambda: nn.Attention(K)(tr.zeros(B, K), nn.Attention(K).memory(k), lengths=[1, 1]),
        DTypeError,
        "values, mask or lengths stand beside a memory; give them to memory(...)",
    ),
]


@pytest.mark.parametrize(("run", "error", "message"), BAD)
def test_bad_input_is_told_what_was_given_and_expected(run, error, message):
    with pytest.raises(error) as caught:
        run()
    assert fnmatch.fnmatchcase(str(caught.value), f"*{message.replace('[', '[[]')}*")
