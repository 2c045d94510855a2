"""Backpropagation through time by hand, in plain NumPy, beside what the graph gives.

Each function runs a cell forward over x (T, B, I), and then walks back: `gh` is what flows into hₜ, from the loss at t
and from the step after. The loss is L = Σₜ ⟨vₜ, hₜ⟩. All gradients are derived here; nothing of tinyrnn is used.
"""

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import nn

T, B, I, H = 5, 3, 4, 6


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rnn(x, h0, v, W_x, W_h, b):
    """h' = tanh(x W_x + b + h W_h)."""
    h = [h0]
    for x_t in x:
        h.append(np.tanh(x_t @ W_x + b + h[-1] @ W_h))

    gW_x, gW_h, gb, gx = np.zeros_like(W_x), np.zeros_like(W_h), np.zeros_like(b), np.zeros_like(x)
    gh = np.zeros_like(h0)
    for t in reversed(range(len(x))):
        gh = gh + v[t]
        ga = gh * (1 - h[t + 1] ** 2)  # a = x W_x + b + h W_h
        gW_x += x[t].T @ ga
        gW_h += h[t].T @ ga
        gb += ga.sum(0)
        gx[t] = ga @ W_x.T
        gh = ga @ W_h.T  # to the step before
    return np.stack(h[1:]), {"x": gx, "h": gh, "W_x": gW_x, "W_h": gW_h, "b": gb}


def lstm(x, h0, c0, v, W_x, W_h, b):
    """i, f, g, o = split(x W_x + b + h W_h);  c' = σ(f) c + σ(i) tanh(g);  h' = σ(o) tanh(c')."""
    h, c, gates = [h0], [c0], []
    for x_t in x:
        i, f, g, o = np.split(x_t @ W_x + b + h[-1] @ W_h, 4, axis=1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c.append(f * c[-1] + i * g)
        h.append(o * np.tanh(c[-1]))
        gates.append((i, f, g, o))

    gW_x, gW_h, gb, gx = np.zeros_like(W_x), np.zeros_like(W_h), np.zeros_like(b), np.zeros_like(x)
    gh, gc = np.zeros_like(h0), np.zeros_like(c0)
    for t in reversed(range(len(x))):
        i, f, g, o = gates[t]
        gh = gh + v[t]
        tanh_c = np.tanh(c[t + 1])
        gc = gc + gh * o * (1 - tanh_c**2)  # the memory receives from h' and from the step after
        ga = np.concatenate(
            [
                gc * g * i * (1 - i),
                gc * c[t] * f * (1 - f),
                gc * i * (1 - g**2),
                gh * tanh_c * o * (1 - o),
            ],
            axis=1,
        )
        gW_x += x[t].T @ ga
        gW_h += h[t].T @ ga
        gb += ga.sum(0)
        gx[t] = ga @ W_x.T
        gh = ga @ W_h.T
        gc = gc * f  # the road with no matrix on it
    return np.stack(h[1:]), {"x": gx, "h": gh, "c": gc, "W_x": gW_x, "W_h": gW_h, "b": gb}


def gru(x, h0, v, W_x, W_h, b, b_hn):
    """The GRU with the reset gate after the product: n = tanh(x_n + r (h W_hn + b_hn)), h' = (1 − z) n + z h."""
    h, gates = [h0], []
    for x_t in x:
        x_r, x_z, x_n = np.split(x_t @ W_x + b, 3, axis=1)
        h_r, h_z, h_n = np.split(h[-1] @ W_h, 3, axis=1)
        r, z, s = sigmoid(x_r + h_r), sigmoid(x_z + h_z), h_n + b_hn
        n = np.tanh(x_n + r * s)
        h.append((1 - z) * n + z * h[-1])
        gates.append((r, z, n, s))

    gW_x, gW_h, gb, gb_hn = np.zeros_like(W_x), np.zeros_like(W_h), np.zeros_like(b), np.zeros_like(b_hn)
    gx, gh = np.zeros_like(x), np.zeros_like(h0)
    for t in reversed(range(len(x))):
        r, z, n, s = gates[t]
        gh = gh + v[t]
        ga_n = gh * (1 - z) * (1 - n**2)
        ga_z = gh * (h[t] - n) * z * (1 - z)
        ga_r = ga_n * s * r * (1 - r)
        ga_x = np.concatenate([ga_r, ga_z, ga_n], axis=1)
        ga_h = np.concatenate([ga_r, ga_z, ga_n * r], axis=1)
        gW_x += x[t].T @ ga_x
        gW_h += h[t].T @ ga_h
        gb += ga_x.sum(0)
        gb_hn += (ga_n * r).sum(0)
        gx[t] = ga_x @ W_x.T
        gh = gh * z + ga_h @ W_h.T
    return np.stack(h[1:]), {"x": gx, "h": gh, "W_x": gW_x, "W_h": gW_h, "b": gb, "b_hn": gb_hn}


@pytest.mark.parametrize(("layer_type", "by_hand"), [(nn.RNN, rnn), (nn.LSTM, lstm), (nn.GRU, gru)])
def test_the_graph_gives_what_is_derived_by_hand(backend, layer_type, by_hand):
    layer = layer_type(I, H, dtype="float64")
    (cell,) = layer.cells
    for parameter in cell.parameters():
        parameter.assign(tr.randn(*parameter.shape, dtype="float64"))
    x, v = (tr.randn(T, B, n, dtype="float64", requires_grad=True) for n in (I, H))
    state = [tr.randn(1, B, H, dtype="float64", requires_grad=True) for _ in cell.State._fields]
    out, _ = layer(x, state)
    (out * v).sum().backward()

    parameters = dict(cell.named_parameters())
    arrays = {name: parameter.numpy() for name, parameter in parameters.items()}
    expected, gradients = by_hand(x.numpy(), *(s.numpy()[0] for s in state), v.numpy(), **arrays)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-12)
    leaves = {"x": x, **dict(zip(cell.State._fields, state, strict=True)), **parameters}
    assert leaves.keys() == gradients.keys()
    for name, g in gradients.items():
        ours = leaves[name].grad.numpy()
        np.testing.assert_allclose(ours.reshape(g.shape), g, atol=1e-11, err_msg=name)
