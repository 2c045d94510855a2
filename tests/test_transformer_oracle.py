"""Multi-head attention and transformers against PyTorch's, in value and every gradient."""

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[test,oracle]'")
pytestmark = pytest.mark.oracle

TQ, TK, B, H, HEADS, L = 4, 6, 3, 8, 2, 2
LENGTHS = [6, 1, 3]
KEYS = np.arange(TK)[:, None] < LENGTHS  # (Tk, B)
EACH = np.tri(TQ, TK, 1, dtype=bool)[..., None] & KEYS  # (Tq, Tk, B)
each_precision = pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 5e-5)])


def compare(ours, theirs, tolerance):
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=tolerance, atol=tolerance)


def twin(x):
    return torch.tensor(x.numpy(), requires_grad=True)


def take_weights(attention, theirs):
    """Give our attention PyTorch's weights, which stand transposed and on top of each other."""
    W_q, W_k, W_v = (part.T for part in theirs.in_proj_weight.detach().numpy().reshape(3, H, H))
    weights = {"W_q": W_q, "W_k": W_k, "W_v": W_v, "W_o": theirs.out_proj.weight.detach().numpy().T}
    attention.load_state_dict({name: np.array(value) for name, value in weights.items()})


def compare_gradients(attention, theirs, tolerance):
    parts = zip((attention.W_q, attention.W_k, attention.W_v), theirs.in_proj_weight.grad.reshape(3, H, H), strict=True)
    for W, gradient in (*parts, (attention.W_o, theirs.out_proj.weight.grad)):
        compare(W.grad, gradient.T, tolerance)


@each_precision
@pytest.mark.parametrize("mask", [None, KEYS, EACH], ids=["no mask", "keys", "each"])
def test_multi_head_attention(mask, dtype, tolerance):
    theirs = torch.nn.MultiheadAttention(H, HEADS, bias=False, dtype=getattr(torch, dtype))
    attention = nn.MultiHeadAttention(H, HEADS, dtype=dtype)
    take_weights(attention, theirs)
    x = [tr.randn(T, B, H, dtype=dtype, requires_grad=True) for T in (TQ, TK, TK)]
    x_t = [twin(part) for part in x]
    mask_t = None  # for each head of each sequence, True where a query may not look
    if mask is not None:
        hidden = ~np.broadcast_to(mask, (TQ, TK, B)).transpose(2, 0, 1)
        mask_t = torch.tensor(np.repeat(hidden, HEADS, axis=0))
    context, weights = attention(*x, mask=mask)
    context_t, weights_t = theirs(*x_t, attn_mask=mask_t, average_attn_weights=False)
    compare(context, context_t, tolerance)
    compare(weights, weights_t.permute(2, 3, 0, 1), tolerance)
    gy, gw = tr.randn(*context.shape, dtype=dtype), tr.randn(*weights.shape, dtype=dtype)
    ((context * gy).sum() + (weights * gw).sum()).backward()
    ((context_t * twin(gy)).sum() + (weights_t.permute(2, 3, 0, 1) * twin(gw)).sum()).backward()
    for part, part_t in zip(x, x_t, strict=True):
        compare(part.grad, part_t.grad, tolerance)
    compare_gradients(attention, theirs, tolerance)


@each_precision
@pytest.mark.parametrize("causal", [False, True])
def test_transformer(causal, dtype, tolerance):
    """PyTorch's encoder with the norm first, GELU in its tanh form, and no bias in its attention."""
    layer = torch.nn.TransformerEncoderLayer(
        H, HEADS, 4 * H, 0.0, lambda x: torch.nn.functional.gelu(x, approximate="tanh"), norm_first=True
    )
    theirs = torch.nn.TransformerEncoder(layer, L, torch.nn.LayerNorm(H), enable_nested_tensor=False)
    theirs = theirs.to(getattr(torch, dtype))
    ours = nn.Transformer(H, HEADS, L, context=TK if causal else None, rotary=False, dtype=dtype)
    pairs = [(ours.norm, theirs.norm)]
    for block, block_t in zip(ours.blocks, theirs.layers, strict=True):
        take_weights(block.attention, block_t.self_attn)
        pairs += [(block.norm_attention, block_t.norm1), (block.norm_feed_forward, block_t.norm2)]
        pairs += [(block.feed_forward[0], block_t.linear1), (block.feed_forward[2], block_t.linear2)]
    for part, part_t in pairs:
        with torch.no_grad():  # so that no weight is 1 and no bias 0
            part_t.weight += 0.1 * torch.randn_like(part_t.weight)
            part_t.bias += 0.1 * torch.randn_like(part_t.bias)
        values = [part_t.weight.detach().numpy().T, part_t.bias.detach().numpy()]
        part.load_state_dict(dict(zip(part.state_dict(), map(np.array, values), strict=True)))

    x = tr.randn(TK, B, H, dtype=dtype, requires_grad=True)
    x_t = twin(x)
    if causal:
        out, _ = ours(x)
        out_t = theirs(x_t, torch.tensor(~np.tri(TK, dtype=bool)))
    else:
        out, _ = ours(x, lengths=LENGTHS)
        out_t = theirs(x_t, src_key_padding_mask=torch.tensor(~KEYS.T))
        out_t = out_t * torch.tensor(KEYS[..., None])  # ours is 0 where a sequence has ended
    compare(out, out_t, tolerance)
    gy = tr.randn(*out.shape, dtype=dtype)
    out.backward(gy)
    out_t.backward(twin(gy))
    compare(x.grad, x_t.grad, 10 * tolerance)
    for block, block_t in zip(ours.blocks, theirs.layers, strict=True):
        compare_gradients(block.attention, block_t.self_attn, 10 * tolerance)
    for part, part_t in pairs:
        weight, bias = part.parameters()
        compare(weight.grad, part_t.weight.grad.t(), 10 * tolerance)
        compare(bias.grad, part_t.bias.grad, 10 * tolerance)
