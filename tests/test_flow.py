"""Where gradients go in time: against products of Jacobians by hand, numbers, and PyTorch."""

import copy
import gc
from typing import NamedTuple

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import nn
from tinyrnn.autograd import Node
from tinyrnn.viz import gradient_flow
from tinyrnn.viz.flow import jacobian

T, B, I, H = 6, 3, 4, 5


def squares(out, y):
    """L_t = ½ ‖out_t‖² for each sequence: (T, B)."""
    return 0.5 * tr.sum(out * out, axis=-1)


def by_hand(layer, x):
    """Return h (T, B, H), the Jacobians ∂h_t/∂h_{t−1} (T, B, H, H) of a tanh RNN, and ∂L_t/∂h_k (T, T, B, H)."""
    cell = layer.cells[0]
    W_x, W_h, b = cell.W_x.numpy(), cell.W_h.numpy(), cell.b.numpy()
    h, hs, Js = np.zeros((x.shape[1], W_h.shape[0])), [], []
    for x_t in x.numpy():
        h = np.tanh(x_t @ W_x + b + h @ W_h)
        hs.append(h)
        Js.append((1 - h**2)[:, :, None] * W_h.T)  # diag(1 − h²) W_hᵀ
    g = np.full((len(hs), len(hs), *h.shape), np.nan)
    for t in range(len(hs)):
        row = hs[t]  # ∂L_t/∂h_t = h_t
        for k in reversed(range(t + 1)):
            g[t, k] = row
            row = np.einsum("bi,bij->bj", row, Js[k])
    return np.array(hs), np.array(Js), g


def test_norms_are_those_of_the_product_of_jacobians():
    layer, x = nn.RNN(I, H, dtype="float64"), tr.randn(T, B, I, dtype="float64")
    flow = gradient_flow(layer, (x, None), squares)
    _, Js, g = by_hand(layer, x)
    norms = np.linalg.norm(g, axis=-1)
    np.testing.assert_allclose(flow.per_sample, norms, atol=1e-10)
    np.testing.assert_allclose(flow.norms, norms.mean(-1), atol=1e-10)
    assert np.isnan(flow.norms[np.triu_indices(T, 1)]).all()
    assert not np.isnan(flow.norms[np.tril_indices(T)]).any()
    sigma = np.linalg.svd(Js, compute_uv=False)[..., 0]
    np.testing.assert_allclose(flow["cells.0"].jacobian_norms_per_sample, sigma, atol=1e-10)
    np.testing.assert_allclose(flow.jacobian_norms, sigma.mean(-1), atol=1e-10)


def test_the_shares_of_the_weight_are_what_each_step_adds():
    layer, x = nn.RNN(I, H, dtype="float64"), tr.randn(T, B, I, dtype="float64")
    flow = gradient_flow(layer, (x, None), squares)
    h, _, g = by_hand(layer, x)
    before = np.concatenate([np.zeros_like(h[:1]), h[:-1]])
    through = np.nansum(g, axis=0) * (1 - h**2) / B  # Σ_t ∂L_t/∂a_k, averaged over the batch
    pieces = np.einsum("kbi,kbj->kij", before, through)
    np.testing.assert_allclose(flow.weight_shares, np.sqrt((pieces**2).sum((1, 2))), atol=1e-10)
    np.testing.assert_allclose(flow.only.weight_gradient, pieces.sum(0), atol=1e-10)


OPTIONS = {
    "rnn": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, {}),
    "lstm peephole, projection": (nn.LSTM, {"peephole": True, "proj_size": 2}),
    "gru": (nn.GRU, {}),
    "gru before": (nn.GRU, {"reset_after": False}),
    "norm": (nn.LSTM, {"layer_norm": True}),
    "dropped": (nn.GRU, {"recurrent_dropout": 0.3, "learn_initial_state": True}),
    "two layers": (nn.LSTM, {"num_layers": 2}),
    "both ways": (nn.GRU, {"bidirectional": True, "num_layers": 2}),
}


CHANCE = {  # what is drawn anew at each step, or for each sequence
    "zoneout": (nn.LSTM, {"zoneout": 0.4}),
    "weight drop": (nn.GRU, {"weight_drop": 0.4, "reset_after": False}),
}


@pytest.mark.parametrize("name", [*OPTIONS, *CHANCE])
def test_the_pieces_add_up_to_the_gradient_of_the_weight(name):
    kind, options = (OPTIONS | CHANCE)[name]
    layer, x = kind(I, H, dtype="float64", **options), tr.randn(T, B, I, dtype="float64")
    flow = gradient_flow(layer, (x, None), squares)
    runs = []
    for cell in layer.cells:
        vars(cell)["begin"] = lambda batch, begin=cell.begin: runs.append(begin(batch)) or runs[-1]
    loss = squares(layer(x)[0], None).mean(axis=1).sum()  # the flow has given the random numbers back
    W_hs = [run.W_h for run in runs]  # with weight_drop, with its elements dropped
    random = tr.functions.default_generator.state
    for found, g in zip(flow, tr.grad(loss, W_hs), strict=True):
        np.testing.assert_allclose(found.weight_gradient, g.numpy(), atol=1e-12)
        assert (found.weight_shares > 0).any()
    assert tr.functions.default_generator.state == random
    assert not any(module.training for found in flow for _, module in found.taken[0].cell.named_modules())


def test_shares_under_mixed_precision_are_read_afterwards():
    layer, x = nn.LSTM(I, H, proj_size=2), tr.randn(T, B, I)
    with tr.mixed_precision():
        flow = gradient_flow(layer, (x, None), squares)
        loss = squares(layer(x)[0], None).mean(axis=1).sum()
    loss.backward()
    np.testing.assert_allclose(flow.only.weight_gradient, layer.cells[0].W_h.grad.numpy(), rtol=2e-2, atol=2e-3)
    assert flow.only.taken[0].cell.W_h.dtype is tr.float16


class Perturbed(nn.Cell):
    """A cell whose state after step k is moved by a little: what a derivative by numbers needs."""

    def __init__(self, cell, k, field, move):
        self.cell, self.k, self.field, self.move = cell, k, field, move

    def begin(self, batch):
        run = copy.copy(self.cell.begin(batch))
        count, advance = iter(range(100)), run.advance

        def moved(z, state):
            new = advance(z, state)
            return new if next(count) != self.k else new._replace(**{self.field: getattr(new, self.field) + self.move})

        vars(run)["advance"] = moved
        return run


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "dropped"])
def test_norms_equal_those_by_numbers(name):
    kind, options = OPTIONS[name]
    layer, x = kind(2, 3, dtype="float64", **options), tr.randn(4, 2, 2, dtype="float64")
    flow, eps = gradient_flow(layer, (x, None), squares), 1e-6
    for n, cell in enumerate(list(layer.cells)):
        for field, size in zip(cell.State._fields, cell.state_sizes, strict=True):
            for k in range(4):
                squared = np.zeros((4, 2))
                for i in range(size):
                    move = np.zeros((2, size))
                    move[:, i] = eps
                    losses = []
                    for sign in (1, -1):
                        moved = Perturbed(cell, k, field, tr.tensor(sign * move))
                        vars(cell)["begin"] = moved.begin
                        moved.cell = copy.copy(cell)
                        del moved.cell.begin
                        losses.append(squares(layer(x)[0], None).numpy())
                        del cell.begin
                    squared += ((losses[0] - losses[1]) / (2 * eps)) ** 2
                found = flow[f"cells.{n}"].norms_of(field)[:, k]
                np.testing.assert_allclose(np.nan_to_num(found), np.sqrt(squared).mean(-1), atol=1e-8)


def test_the_jacobian_of_an_lstm_is_that_of_h_and_c():
    layer = nn.LSTM(2, 3, dtype="float64")
    cell, z = layer.cells[0], tr.randn(B, 12, dtype="float64")
    state = cell.State(tr.randn(B, 3, dtype="float64"), tr.randn(B, 3, dtype="float64"))
    J, eps = jacobian(cell, z, state), 1e-6
    s = np.concatenate([state.h.numpy(), state.c.numpy()], axis=1)
    for j in range(6):
        up, down = s.copy(), s.copy()
        up[:, j] += eps
        down[:, j] -= eps
        states = [cell.step(z, cell.State(tr.tensor(v[:, :3]), tr.tensor(v[:, 3:]))) for v in (up, down)]
        after = [np.concatenate([field.numpy() for field in state], axis=1) for state in states]
        np.testing.assert_allclose(J[:, :, j], (after[0] - after[1]) / (2 * eps), atol=1e-8)


def scaled_rnn(scale, **options):
    layer = nn.RNN(1, 16, dtype="float64", **options)  # W_h is orthogonal: all its singular values are 1
    layer.cells[0].W_h.assign(layer.cells[0].W_h.detach() * scale)
    return layer


def test_a_state_that_is_not_finite_has_no_singular_value():
    layer, x = nn.RNN(I, H), tr.randn(T, B, I)
    flow = gradient_flow(layer, (tr.where(tr.arange(B).reshape(B, 1) == 1, float("nan"), x), None), squares)
    assert np.isnan(flow.only.jacobian_norms_per_sample[:, 1]).all()
    assert (flow.only.jacobian_norms_per_sample[:, [0, 2]] > 0).all()


def test_small_weights_vanish_and_large_ones_explode():
    x = tr.randn(40, 2, 1, dtype="float64") * 0.1
    small = gradient_flow(scaled_rnn(0.5), (x, None), squares, at=-1).norms[-1]
    large = gradient_flow(scaled_rnn(1.5, nonlinearity="relu"), (x, None), squares, at=-1)
    assert small[0] < 1e-11 * small[-1]
    assert (large.jacobian_norms <= 1.5 + 1e-9).all()
    linear = gradient_flow(Linear(1, 16, 1.5), (x, None), squares, at=-1).norms[-1]
    np.testing.assert_allclose(linear[0] / linear[-1], 1.5**39, rtol=1e-6)
    np.testing.assert_allclose(gradient_flow(Linear(1, 16, 1.0), (x, None), squares).jacobian_norms, 1, atol=1e-12)


def test_clipping_shortens_the_gradient_and_leaves_the_flow():
    layer, x = Linear(1, 16, 1.5), tr.randn(40, 2, 1, dtype="float64")
    flow = gradient_flow(layer, (x, None), squares, at=-1)
    squares(layer(x)[0], None)[-1].mean().backward()
    W_h, explodes = layer.cells[0].W_h, np.linalg.norm(flow.only.weight_gradient)
    np.testing.assert_allclose(np.linalg.norm(W_h.grad.numpy()), explodes, rtol=1e-10)
    assert tr.optim.clip_grad_norm([W_h], 1.0).item() == pytest.approx(explodes)
    assert explodes > 1e6
    np.testing.assert_allclose(np.linalg.norm(W_h.grad.numpy()), 1, rtol=1e-6)
    np.testing.assert_array_equal(gradient_flow(layer, (x, None), squares, at=-1).norms, flow.norms)


class State(NamedTuple):
    h: tr.Tensor


class LinearCell(nn.Cell):
    gates = ("h",)

    def step(self, z, state):
        return State(z + state.h @ self.W_h)


def Linear(I, H, scale):
    layer = nn.Recurrent(LinearCell, I, H, dtype="float64")
    layer.cells[0].W_h.assign(layer.cells[0].W_h.detach() * scale)
    return layer


def test_an_lstm_with_an_open_forget_gate_keeps_the_gradient_of_its_memory():
    layer = nn.LSTM(1, 8, dtype="float64")
    cell = layer.cells[0]
    cell.b.assign(np.repeat([0.0, 40.0, 0.0, 0.0], 8))
    cell.W_h.assign(np.zeros((8, 32)))
    cell.W_x.assign(np.where(np.arange(32) // 8 == 1, 0, cell.W_x.numpy()))
    flow = gradient_flow(layer, (tr.randn(30, 2, 1, dtype="float64"), None), squares, at=29)
    c = flow.only.norms_of("c")[29]
    np.testing.assert_allclose(c[:-1], c[0], rtol=1e-12)  # the constant error carousel
    np.testing.assert_allclose(flow.only.norms[29, :-1], 0, atol=1e-15)


def test_a_chosen_step_gives_its_row_and_no_other(backend):
    layer, x = nn.GRU(I, H), tr.randn(T, B, I)
    every = gradient_flow(layer, (x, None), squares)
    some = gradient_flow(layer, (x, None), squares, at=[1, -2])
    one = gradient_flow(layer, (x, None), squares, at=4)
    np.testing.assert_allclose(some.norms[[1, 4]], every.norms[[1, 4]], rtol=1e-6)
    np.testing.assert_allclose(one.norms[4], every.norms[4], rtol=1e-6)
    assert np.isnan(some.norms[[0, 2, 3, 5]]).all()
    assert one.norms.shape == (T, T)
    assert one.per_sample.shape == (T, T, B)
    out, _ = layer(x)
    g = tr.grad(squares(out, None)[4].mean(), layer.cells[0].W_h)
    np.testing.assert_allclose(one.only.weight_gradient, g.numpy(), atol=1e-6)
    np.testing.assert_allclose(one.jacobian_norms, every.jacobian_norms, rtol=1e-5)


def test_losses_averaged_over_the_batch_divide_each_sample_by_it():
    layer, x = nn.RNN(I, H, dtype="float64"), tr.randn(T, B, I, dtype="float64")
    apart = gradient_flow(layer, (x, None), squares)
    together = gradient_flow(layer, (x, None), lambda out, y: squares(out, y).mean(axis=1))
    np.testing.assert_allclose(together.per_sample * B, apart.per_sample, rtol=1e-12)
    np.testing.assert_allclose(together.weight_shares, apart.weight_shares, rtol=1e-12)


def test_a_backward_direction_counts_its_own_steps():
    layer, x = nn.RNN(I, H, bidirectional=True, dtype="float64"), tr.randn(T, B, I, dtype="float64")
    forward, backward = gradient_flow(layer, (x, None), squares)
    assert (forward.name, backward.name) == ("cells.0", "cells.1")
    assert list(backward.times) == [5, 4, 3, 2, 1, 0]
    assert np.array_equal(np.isnan(backward.norms), np.array([[T - 1 - k < t for k in range(T)] for t in range(T)]))
    twin = nn.RNN(I, H, dtype="float64")
    twin.cells[0].load_state_dict(layer.cells[1].state_dict())
    alone = gradient_flow(twin, (tr.flip(x, 0), None), squares)
    np.testing.assert_allclose(backward.norms, alone.norms[::-1], atol=1e-12)
    np.testing.assert_allclose(backward.by_distance(), alone.only.by_distance(), atol=1e-12)


def test_a_layer_below_a_backward_one_hears_from_the_past_too():
    layer, x = nn.RNN(I, H, num_layers=2, bidirectional=True), tr.randn(T, B, I)
    flow = gradient_flow(layer, (x, None), squares)
    assert (flow["cells.0"].norms > 0).all()
    assert np.isnan(flow["cells.2"].norms[0, 1:]).all()


class Seq2Seq(nn.Module):
    """An encoder, and a decoder that is called step by step."""

    def __init__(self):
        self.encoder, self.decoder = nn.GRU(I, H), nn.GRUCell(I, H)

    def forward(self, x):
        _, state = self.encoder(x)
        state, out = tr.nn.cells.GRUState(state.h[0]), []
        for _ in tr.steps(4):
            state = self.decoder(tr.zeros(B, I), state)
            out.append(state.h)
        return tr.stack(out)


def test_an_encoder_and_a_decoder_each_in_their_own_steps():
    flow = gradient_flow(Seq2Seq(), (tr.randn(T, B, I), None), squares)
    assert list(flow.layers) == ["encoder.cells.0", "decoder"]
    assert flow["encoder.cells.0"].norms.shape == (4, T)
    assert (flow["encoder.cells.0"].norms > 0).all()
    assert np.isnan(flow["decoder"].norms[0, 1:]).all()
    with pytest.raises(IndexError, match=r"there are 2 layers; choose one: flow\['encoder.cells.0'\]"):
        _ = flow.norms
    assert "decoder          d=0: " in repr(flow)


class Truncated(nn.Module):
    """Two windows, with no gradient from the second to the first."""

    def __init__(self):
        self.rnn = nn.RNN(I, H)

    def forward(self, x):
        first, state = self.rnn(x[:3])
        second, _ = self.rnn(x[3:], tr.detach(state))
        return tr.concatenate([first, second])


def test_truncation_is_seen():
    norms = gradient_flow(Truncated(), (tr.randn(T, B, I), None), squares).norms
    assert norms.shape == (T, T)
    assert not norms[3:, :3].any()
    assert (norms[3:, 3][:] > 0).all()
    assert (norms[2, :3] > 0).all()


class Padded(nn.Module):
    """A layer that is told the lengths."""

    def __init__(self):
        self.gru = nn.GRU(I, H, dtype="float64")

    def forward(self, x):
        return self.gru(x, lengths=[2, T, 4])


def test_a_sequence_that_has_ended_receives_nothing_more():
    model, x = Padded(), tr.randn(T, B, I, dtype="float64")
    flow = gradient_flow(model, (x, None), squares)
    alone = gradient_flow(model.gru, (x[:2, :1], None), squares)
    np.testing.assert_allclose(flow.per_sample[:2, :2, 0], alone.per_sample[:, :, 0], atol=1e-12)
    assert not np.nansum(flow.per_sample[2:, :, 0])
    assert (flow.per_sample[5, :, 1] > 0).all()


def test_fused_or_not_the_fields_of_a_state_count_as_independent():
    layer, x = nn.LSTM(I, H, dtype="float64"), tr.randn(T, B, I, dtype="float64")
    fused = gradient_flow(layer, (x, None), squares).only
    with tr.fusion(False):
        unfused = gradient_flow(layer, (x, None), squares).only
    for name in "hc":
        np.testing.assert_allclose(fused.norms_of(name), unfused.norms_of(name), rtol=1e-10, atol=1e-14)
    assert not np.diag(fused.norms_of("c")).any()  # Lₜ reads hₜ


def test_a_state_to_start_from_and_a_frozen_layer():
    layer, x = nn.LSTM(I, H), tr.randn(T, B, I)
    state = layer(x)[1].detach()
    given = gradient_flow(layer, (x, None), squares, state=state)
    assert not np.allclose(given.norms[0, 0], gradient_flow(layer, (x, None), squares).norms[0, 0])
    for parameter in layer.parameters():
        parameter.requires_grad = False
    with tr.no_grad():
        np.testing.assert_allclose(gradient_flow(layer, (x, None), squares, state=state).norms, given.norms)


def count_nodes():
    return sum(type(x) is Node for x in gc.get_objects())  # isinstance asks x, and some of PyTorch's objects then warn


def test_measuring_changes_nothing_and_keeps_nothing():
    layer, x = nn.LSTM(I, H, num_layers=2, dropout=0.5, zoneout=0.2, weight_drop=0.3), tr.randn(T, B, I)
    before = [(name, list(vars(module))) for name, module in layer.named_modules()]
    gradient_flow(layer, (x, None), squares)  # traces its fused steps, which are kept
    random = tr.functions.default_generator.state
    gc.collect()
    gc.disable()
    try:
        nodes = count_nodes()
        flow = gradient_flow(layer, (x, None), squares)
        assert count_nodes() - nodes <= len(layer.parameters())  # the leaves of the copies that Jacobians are made of
    finally:
        gc.enable()
    assert tr.functions.default_generator.state == random
    assert [(name, list(vars(module))) for name, module in layer.named_modules()] == before
    assert all(p.grad is None for p in layer.parameters())
    first = flow["cells.0"].jacobian_norms
    layer.load_state_dict({name: p * 0 for name, p in layer.state_dict().items()})
    later = gradient_flow(layer, (x, None), squares)
    shares = flow["cells.0"].weight_shares
    assert (shares[1:] > 0).all()  # h_0 is zero
    assert not later["cells.0"].weight_shares.any()
    assert (first > 0).all()
    assert (flow["cells.1"].jacobian_norms > 0).all()  # of the weights that were
    assert not np.allclose(flow["cells.1"].jacobian_norms, later["cells.1"].jacobian_norms)


class Itself(LinearCell):
    """A cell that makes no copy of itself for a sequence."""

    def begin(self, batch):
        return self


def test_a_cell_that_begins_as_itself_is_as_it_was():
    layer, x = nn.Recurrent(Itself, I, H), tr.randn(T, B, I)
    cell = layer.cells[0]
    before = dict(vars(cell))
    layer.forward = lambda x: layer.__class__.forward(layer, layer.__class__.forward(layer, x)[0][:, :, :I])
    gradient_flow(layer, (x, None), squares)
    assert vars(cell) == before


def test_an_error_on_the_way_leaves_the_model_whole():
    layer, x = nn.RNN(I, H), tr.randn(T, B, I)
    with pytest.raises(tr.errors.ShapeError, match=r"losses \(\); expected one for each step, \(T,\), or .* B=3\)"):
        gradient_flow(layer, (x, None), lambda out, y: out.sum())
    with pytest.raises(ZeroDivisionError):
        gradient_flow(layer, (x, None), lambda out, y: 1 // 0)
    assert "begin" not in vars(layer.cells[0])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"batch": 3}, TypeError, r"batch is int; expected a pair \(x, y\)"),
        ({"model": nn.Linear(I, H)}, tr.errors.GraphError, "no cell took a step in Linear; expected an nn.Recurrent"),
        ({"loss_fn": lambda out, y: 1.0}, TypeError, "loss_fn returned float; expected a tensor of losses"),
        ({"loss_fn": lambda out, y: out}, ValueError, r"losses \(6, 3, 5\); .*reduction='none'"),
        ({"loss_fn": lambda out, y: out[:, :, 0].detach()}, tr.errors.GraphError, "was out detached in loss_fn"),
        ({"at": 6}, IndexError, "at is 6; expected steps of the losses, from -6 to 5"),
        ({"at": []}, IndexError, r"at is \[\]"),
    ],
)
def test_errors_say_what_to_do(change, error, message):
    call = {"model": nn.RNN(I, H), "batch": (tr.randn(T, B, I), None), "loss_fn": squares} | change
    with pytest.raises(error, match=message):
        gradient_flow(**call)


def test_a_layer_or_a_field_that_is_not_there():
    flow = gradient_flow(nn.RNN(I, H), (tr.randn(T, B, I), None), squares)
    with pytest.raises(IndexError, match=r"no layer 'rnn'; there are cells.0"):
        flow["rnn"]
    with pytest.raises(IndexError, match=r"no field 'c'; the state has h"):
        flow.only.norms_of("c")


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_norms_are_pytorchs(kind):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[test,oracle]'")
    from tinyrnn.interop import from_torch

    torch.manual_seed(0)
    theirs = getattr(torch.nn, f"{kind}Cell")(I, H, dtype=torch.float64)
    layer = getattr(nn, kind)(I, H, dtype="float64")
    whole = getattr(torch.nn, kind)(I, H, dtype=torch.float64)
    whole.load_state_dict({f"{name}_l0": value for name, value in theirs.state_dict().items()})
    from_torch(layer, whole.state_dict())
    x = tr.randn(T, B, I, dtype="float64")
    flow = gradient_flow(layer, (x, None), squares)
    zeros = torch.zeros(B, H, dtype=torch.float64)
    state, states = ((zeros, zeros) if kind == "LSTM" else zeros), []
    for x_t in torch.tensor(x.numpy()):
        state = theirs(x_t, state)
        # views of their own: PyTorch's h and c of one step would otherwise share a path
        state = tuple(f * 1 for f in state) if kind == "LSTM" else state * 1
        states.append(state)
    hs = [s[0] if kind == "LSTM" else s for s in states]
    cs = [s[1] for s in states] if kind == "LSTM" else []
    for t in range(T):
        loss = 0.5 * (hs[t] ** 2).sum()
        found = torch.autograd.grad(loss, hs[: t + 1], retain_graph=True)
        np.testing.assert_allclose(
            flow.norms[t, : t + 1], [g.norm(dim=-1).mean().item() for g in found], rtol=1e-10, atol=1e-14
        )
        if cs and t:
            found = torch.autograd.grad(loss, cs[:t], retain_graph=True)
            expected = [g.norm(dim=-1).mean().item() for g in found]
            np.testing.assert_allclose(flow.only.norms_of("c")[t, :t], expected, rtol=1e-10, atol=1e-14)
