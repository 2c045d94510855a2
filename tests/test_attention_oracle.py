"""Attention against PyTorch: its scaled dot product, and the additive equation written with its operations."""

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[test,oracle]'")
pytestmark = pytest.mark.oracle

TQ, TK, B, K, V, H = 4, 6, 3, 5, 7, 8
KEYS = np.arange(TK)[:, None] < [6, 1, 3]
MASKS = {
    "no mask": None,
    "keys": KEYS,
    "causal": np.tri(TQ, TK, dtype=bool)[..., None] & np.ones(B, bool),
    "a row that sees nothing": KEYS & (np.arange(TQ) != 2)[:, None, None],
}


def additive(attention, query, keys, values, mask):
    """Compute softmax(vᵀ tanh(q W_q + k W_k)) values, batch first."""
    W_q, W_k, v = (torch.tensor(p.numpy(), requires_grad=True) for p in attention.parameters())
    scores = torch.tanh((query @ W_q)[:, :, None] + (keys @ W_k)[:, None]) @ v
    if mask is None:
        return torch.softmax(scores, -1) @ values, [W_q, W_k, v]
    low = torch.finfo(scores.dtype).min  # not -inf: a row of those would be NaN in PyTorch
    weights = torch.softmax(scores.masked_fill(~mask, low), -1) * mask
    return weights @ values, [W_q, W_k, v]


def dot(attention, query, keys, values, mask):
    return torch.nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask), []


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("theirs", [additive, dot])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 2e-5)])
def test_values_and_gradients(theirs, mask, dtype, tolerance):
    options = {"hidden_size": H} if theirs is additive else {}
    attention = nn.Attention(K, K, score=theirs.__name__, dtype=dtype, **options)
    x = [tr.randn(T, B, size, dtype=dtype, requires_grad=True) for T, size in ((TQ, K), (TK, K), (TK, V))]
    x_t = [torch.tensor(part.numpy().swapaxes(0, 1).copy(), requires_grad=True) for part in x]
    mask_t = None
    if mask is not None:
        mask_t = torch.tensor(np.broadcast_to(mask, (TQ, TK, B)).transpose(2, 0, 1).copy())

    context, _ = attention(*x, mask)
    context_t, parameters_t = theirs(attention, *x_t, mask_t)
    gy = tr.randn(*context.shape, dtype=dtype)
    context.backward(gy)
    context_t.backward(torch.tensor(gy.numpy().swapaxes(0, 1).copy()))

    def compare(ours, expected):
        np.testing.assert_allclose(ours.numpy(), expected, rtol=tolerance, atol=tolerance)

    compare(context, context_t.detach().numpy().swapaxes(0, 1))
    for part, part_t in zip(x, x_t, strict=True):
        compare(part.grad, part_t.grad.numpy().swapaxes(0, 1))
    for p, p_t in zip(attention.parameters(), parameters_t, strict=True):
        compare(p.grad, p_t.grad.numpy())
