"""Layers over sequences: unequal lengths, both directions, and the options of the cells."""

import itertools
import math

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import nn

T, B, I, H = 6, 4, 3, 5
LENGTHS = [3, 6, 1, 4]
F64 = {"dtype": "float64"}
KINDS = {
    "rnn tanh": (nn.RNN, {}),
    "rnn relu": (nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, {}),
    "lstm peephole": (nn.LSTM, {"peephole": True}),
    "lstm projected": (nn.LSTM, {"proj_size": 2}),
    "gru": (nn.GRU, {}),
    "gru before": (nn.GRU, {"reset_after": False}),
    "lstm norm": (nn.LSTM, {"layer_norm": True}),
    "gru norm": (nn.GRU, {"layer_norm": True}),
    "rnn learned": (nn.RNN, {"learn_initial_state": True}),
    "lstm without bias": (nn.LSTM, {"bias": False}),
}


def made(kind, layers=1, **options):
    """Return a layer whose parameters are all at random places."""
    layer_type, more = KINDS[kind]
    layer = layer_type(I, H, layers, **more, **options, **F64)
    for parameter in layer.parameters():
        parameter.assign(tr.randn(*parameter.shape, **F64) * 0.5)
    return layer


def random_state(layer, batch):
    return type(layer.initial_state(1))(*(tr.randn(*f.shape, **F64) for f in layer.initial_state(batch)))


# ---------------------------------------------------------------- unequal lengths


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("initial", [False, True])
def test_a_padded_batch_equals_the_sequences_one_by_one(backend, kind, bidirectional, layers, initial):
    layer = made(kind, layers, bidirectional=bidirectional)
    x = tr.randn(T, B, I, requires_grad=True, **F64)
    state = random_state(layer, B) if initial else None
    out, final = layer(x, state, lengths=LENGTHS)
    weights = tr.randn(*out.shape, **F64)
    goals = [tr.randn(*field.shape, **F64) for field in final]
    together = (out * weights).sum() + sum((f * g).sum() for f, g in zip(final, goals, strict=True))
    wrt = [x, *layer.parameters()]
    g_together = tr.grad(together, wrt)

    alone = tr.zeros((), **F64)
    for b, n in enumerate(LENGTHS):
        own = None if state is None else type(state)(*(field[:, b : b + 1] for field in state))
        out_b, final_b = layer(x[:n, b : b + 1], own)
        np.testing.assert_allclose(out.numpy()[:n, b], out_b.numpy()[:, 0], atol=1e-12)
        assert not out.numpy()[n:, b].any()
        for field, field_b in zip(final, final_b, strict=True):
            np.testing.assert_allclose(field.numpy()[:, b], field_b.numpy()[:, 0], atol=1e-12)
        alone = alone + (out_b * weights[:n, b : b + 1]).sum()
        alone = alone + sum((f * g[:, b : b + 1]).sum() for f, g in zip(final_b, goals, strict=True))
    for g, g_alone in zip(g_together, tr.grad(alone, wrt), strict=True):
        np.testing.assert_allclose(g.numpy(), g_alone.numpy(), atol=1e-10)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn tanh"])
def test_length_0_keeps_the_initial_state(backend, kind):
    layer = made(kind, bidirectional=True)
    state = random_state(layer, B)
    x = tr.randn(T, B, I, requires_grad=True, **F64)
    out, final = layer(x, state, lengths=[0, 2, 0, T])
    assert not out.numpy()[:, [0, 2]].any()
    for before, after in zip(state, final, strict=True):
        np.testing.assert_array_equal(before.numpy()[:, [0, 2]], after.numpy()[:, [0, 2]])
    out.sum().backward()
    assert not x.grad.numpy()[:, [0, 2]].any()
    assert x.grad.numpy()[:2, 1].any()


def test_full_lengths_change_nothing(backend):
    layer = made("lstm", 2, bidirectional=True)
    x = tr.randn(T, B, I, **F64)
    out, state = layer(x)
    out_2, state_2 = layer(x, lengths=tr.tensor([T] * B))
    for y, y_2 in zip((out, *state), (out_2, *state_2), strict=True):
        np.testing.assert_array_equal(y.numpy(), y_2.numpy())


def test_what_stands_in_the_padding_does_not_matter(backend):
    layer = made("gru", 2, bidirectional=True)
    x = tr.randn(T, B, I, **F64).numpy().copy()
    before = layer(tr.tensor(x), lengths=LENGTHS)
    for b, n in enumerate(LENGTHS):
        x[n:, b] = 1e6
    after = layer(tr.tensor(x), lengths=LENGTHS)
    np.testing.assert_array_equal(before[0].numpy(), after[0].numpy())
    np.testing.assert_array_equal(before[1].h.numpy(), after[1].h.numpy())


@pytest.mark.parametrize(("lengths", "error", "told"), [
    ([3, 6, 1], tr.errors.ShapeError, r"^LSTM: lengths have shape \(3,\); expected \(4,\), integers from 0 to T=6"),
    ([[3, 6, 1, 4]], tr.errors.ShapeError, r"^LSTM: lengths have shape \(1, 4\); expected \(4,\)"),
    (5, tr.errors.ShapeError, r"^LSTM: lengths have shape \(\)"),
    ([3, 6, -1, 4], tr.errors.IndexRangeError, r"^LSTM: lengths are \[3, 6, -1, 4\]; expected integers from 0 to T=6"),
    ([3, 7, 1, 4], tr.errors.IndexRangeError, "expected integers from 0 to T=6, one for each of the B=4 sequences"),
    ([3.0, 6.0, 1.0, 4.0], tr.errors.DTypeError, "^LSTM: lengths are float32; expected integers"),
    ([True, True, False, True], tr.errors.DTypeError, "^LSTM: lengths are bool"),
])  # fmt: skip
def test_lengths_that_do_not_fit(lengths, error, told):
    with pytest.raises(error, match=told):
        made("lstm")(tr.randn(T, B, I, **F64), lengths=lengths)


# ---------------------------------------------------------------- directions


def test_the_backward_direction_is_the_forward_one_on_the_reversed_sequence(backend):
    both = made("lstm", bidirectional=True)
    one = nn.LSTM(I, H, **F64)
    names = ("W_x", "W_h", "b")
    one.load_state_dict({f"cells.0.{name}": getattr(both.cells[1], name).detach() for name in names})
    x = tr.randn(T, B, I, **F64)
    out, state = both(x)
    out_1, state_1 = one(tr.flip(x, 0))
    np.testing.assert_allclose(out.numpy()[..., H:], out_1.numpy()[::-1], atol=1e-14)
    np.testing.assert_allclose(state.c.numpy()[1], state_1.c.numpy()[0], atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_a_deep_bidirectional_layer(backend, kind):
    layer = made(kind, 2, bidirectional=True)
    x = tr.randn(3, 2, I, requires_grad=True, **F64)
    f = lambda x, *_: (lambda out, state: (out, *state))(*layer(x, lengths=[3, 2]))
    assert tr.gradcheck(f, [x, *layer.parameters()], order=2 if "relu" not in kind else 1)


@pytest.mark.parametrize("kind", ["rnn tanh", "rnn relu", "lstm", "lstm projected", "gru"])
@pytest.mark.parametrize(
    ("layers", "bias", "bidirectional", "initial", "lengths"),
    list(itertools.product([1, 3], [True, False], [False, True], [False, True], [None, LENGTHS])),
)
def test_backends_agree(kind, layers, bias, bidirectional, initial, lengths):
    layer = made(kind, layers, bias=bias, bidirectional=bidirectional)
    x = tr.randn(T, B, I, requires_grad=True, **F64)
    state = random_state(layer, B) if initial else None
    results = []
    for home in ("numpy", "strict"):
        layer.to(home)
        begin = state and type(state)(*(field.to(home) for field in state))
        out, final = layer(x.to(home), begin, lengths)
        x.grad = None
        ((out * out).sum() + sum(f.sum() for f in final)).backward()
        results.append([y.numpy() for y in (out, *final, x.grad, *(p.grad for p in layer.parameters()))])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-10)


# ---------------------------------------------------------------- options of the cells


def ln(x, g):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * g


def sig(x):
    return 1 / (1 + np.exp(-x))


def values(cell):
    return {name: p.numpy() for name, p in cell.named_parameters()}


def test_peepholes_by_hand():
    cell = made("lstm peephole").cells[0]
    x, h, c = (tr.randn(2, n, **F64) for n in (I, H, H))
    p = values(cell)
    i, f, g, o = np.split(x.numpy() @ p["W_x"] + p["b"] + h.numpy() @ p["W_h"], 4, axis=1)
    c_0 = c.numpy()
    c_1 = sig(f + p["p_f"] * c_0) * c_0 + sig(i + p["p_i"] * c_0) * np.tanh(g)
    h_1 = sig(o + p["p_o"] * c_1) * np.tanh(c_1)
    new = cell(x, (h, c))
    np.testing.assert_allclose(new.c.numpy(), c_1, atol=1e-12)
    np.testing.assert_allclose(new.h.numpy(), h_1, atol=1e-12)


def test_layer_norm_by_hand():
    cell = made("lstm norm").cells[0]
    x, h, c = (tr.randn(2, n, **F64) for n in (I, H, H))
    p = values(cell)
    z = ln(x.numpy() @ p["W_x"], p["norm_x.weight"]) + p["b"] + ln(h.numpy() @ p["W_h"], p["norm_h.weight"])
    i, f, g, o = np.split(z, 4, axis=1)
    c_1 = sig(f) * c.numpy() + sig(i) * np.tanh(g)
    h_1 = sig(o) * np.tanh(ln(c_1, p["norm_c.weight"]) + p["norm_c.bias"])
    np.testing.assert_allclose(cell(x, (h, c)).h.numpy(), h_1, atol=1e-12)


def test_the_published_gru_by_hand():
    cell = made("gru before").cells[0]
    x, h = tr.randn(2, I, **F64), tr.randn(2, H, **F64)
    p = values(cell)
    x_r, x_z, x_n = np.split(x.numpy() @ p["W_x"] + p["b"], 3, axis=1)
    W_r, W_z, W_n = np.split(p["W_h"], 3, axis=1)
    h_0 = h.numpy()
    r, z = sig(x_r + h_0 @ W_r), sig(x_z + h_0 @ W_z)
    n = np.tanh(x_n + (r * h_0) @ W_n)
    np.testing.assert_allclose(cell(x, h).h.numpy(), (1 - z) * n + z * h_0, atol=1e-12)


def test_a_learned_initial_state_is_learned():
    layer = nn.LSTM(I, H, 2, bidirectional=True, learn_initial_state=True)
    assert [name for name, _ in layer.cells[0].named_parameters()][-2:] == ["h_0", "c_0"]
    layer.cells[3].c_0.assign(tr.ones(H))
    assert layer.initial_state(B).c.numpy()[3].tolist() == [[1.0] * H] * B
    layer(tr.randn(T, B, I))[0].sum().backward()
    assert all(getattr(cell, name).grad.numpy().any() for cell in layer.cells for name in ("h_0", "c_0"))


def test_recurrent_dropout_keeps_its_mask_through_a_sequence():
    layer = nn.RNN(I, 100, recurrent_dropout=0.4)
    run = layer.cells[0].begin(B)
    np.testing.assert_allclose(np.unique(run.h_mask.numpy()), [0, 1 / 0.6])
    assert np.mean(run.h_mask.numpy() == 0) == pytest.approx(0.4, abs=0.1)
    masked = []
    run.recur = lambda h: masked.append(run.dropped(h).numpy() == 0) or nn.Cell.recur(run, h)
    state = run.State(tr.ones(B, 100))
    for _ in range(3):
        state = run.step(tr.zeros(B, 100), state)
    assert masked[0].any()
    assert (masked[0] == masked[1]).all()
    assert (masked[1] == masked[2]).all()


def test_weight_drop_keeps_its_weights_through_a_sequence():
    cell = nn.LSTM(I, H, weight_drop=0.5).cells[0]
    run, other = cell.begin(B), cell.begin(B)
    kept = run.W_h.numpy() != 0
    np.testing.assert_allclose(run.W_h.numpy()[kept], 2 * cell.W_h.numpy()[kept], rtol=1e-6)
    assert 0.2 < kept.mean() < 0.8
    assert (kept != (other.W_h.numpy() != 0)).any()
    run.step(tr.zeros(B, 4 * H), nn.LSTMState(tr.ones(B, H), tr.ones(B, H))).h.sum().backward()
    assert not cell.W_h.grad.numpy()[~kept].any()


def test_zoneout_leaves_elements_as_they_were():
    layer = nn.GRU(I, 200, zoneout=0.3)
    cell, h = layer.cells[0], tr.randn(1, 200)
    z = cell.project(tr.randn(1, I))
    new = cell.begin(1).step(z, nn.GRUState(h)).h.numpy()
    zoned = cell.begin(1).advance(z, nn.GRUState(h)).h.numpy()
    same = np.isclose(zoned, h.numpy(), atol=1e-6)
    np.testing.assert_allclose(zoned[~same], new[~same], atol=1e-6)
    assert same.mean() == pytest.approx(0.3, abs=0.12)
    layer.eval()
    expected = 0.3 * h.numpy() + 0.7 * new
    np.testing.assert_allclose(cell.begin(1).advance(z, nn.GRUState(h)).h.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("option", ["recurrent_dropout", "weight_drop", "zoneout"])
@pytest.mark.parametrize("layer_type", [nn.RNN, nn.LSTM, nn.GRU])
def test_what_is_random_is_so_only_while_training(layer_type, option):
    layer, x = layer_type(I, H, 2, bidirectional=True, **{option: 0.5}), tr.randn(T, B, I)
    assert (layer(x)[0].numpy() != layer(x)[0].numpy()).any()
    assert f"{option}=0.5" in repr(layer)
    layer.eval()
    np.testing.assert_array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())


class Leaky(nn.Cell):
    """A cell of one's own that knows nothing of the options."""

    gates = ("h",)

    def step(self, z, state):
        return self.State(0.5 * state.h + 0.5 * tr.tanh(z + state.h @ self.W_h))


def test_a_cell_of_ones_own_gets_layers_directions_lengths_and_options(backend):
    layer = nn.Recurrent(Leaky, I, H, 2, bidirectional=True, dropout=0.2, zoneout=0.1, weight_drop=0.1, **F64)
    x = tr.randn(T, B, I, **F64)
    out, state = layer(x, lengths=LENGTHS)
    assert (out.shape, state.h.shape) == ((T, B, 2 * H), (4, B, H))
    layer.eval()
    alone, _ = layer(x[:3, :1])
    np.testing.assert_allclose(layer(x, lengths=LENGTHS)[0].numpy()[:3, 0], alone.numpy()[:, 0], atol=1e-12)


def test_states_detach():
    _, state = nn.LSTM(I, H)(tr.randn(T, B, I))
    assert state.h.requires_grad
    cut = state.detach()
    assert isinstance(cut, nn.LSTMState)
    assert not any(field.requires_grad for field in cut)
    assert isinstance(nn.GRU(I, H)(tr.randn(T, B, I))[1].detach(), nn.GRUState)


@pytest.mark.parametrize(("make", "error", "told"), [
    (lambda: nn.LSTM(I, H, proj_size=H), tr.errors.ShapeError, "proj_size is 5; expected an int under hidden_size=5"),
    (lambda: nn.LSTM(I, H, proj_size=-1), tr.errors.ShapeError, "proj_size is -1"),
    (lambda: nn.GRU(I, H, zoneout=1.0), ValueError, r"GRUCell: zoneout is 1.0; expected a probability in \[0, 1\)"),
    (lambda: nn.GRU(I, H, reset_after=False, layer_norm=True), ValueError, "leave out one"),
    (lambda: nn.RNN(I, H, peephole=True), tr.errors.DTypeError, "^RNN: unknown option 'peephole'; help"),
    (lambda: nn.LSTM(I, H, batch_first=True), tr.errors.DTypeError, "^LSTM: unknown option 'batch_first'"),
])  # fmt: skip
def test_options_that_do_not_fit(make, error, told):
    with pytest.raises(error, match=told):
        make()


def test_a_projected_state_of_the_wrong_width():
    layer = made("lstm projected")
    h, c = tr.zeros(1, B, H), tr.zeros(1, B, H)
    with pytest.raises(
        tr.errors.ShapeError, match=r"h of the state is \(1, 4, 5\); expected \(L, B, P\) = \(1, 4, 2\)"
    ):
        layer(tr.randn(T, B, I, **F64), (h, c))
    assert "W_h (P=2, 4H=20)" in str(layer.cells[0])


def test_bits_of_information_survive_the_gap():
    """An LSTM carries what it saw first over a gap of blanks: the first class of each sequence, told at its end."""
    layer, read = nn.LSTM(3, 12), nn.Linear(12, 2)
    optimizer = tr.optim.Adam([*layer.parameters(), *read.parameters()], lr=2e-2)
    lengths = [5, 8, 6, 7] * 4
    classes = tr.tensor([k % 2 for k in range(16)])
    x = np.zeros((8, 16, 3), np.float32)
    x[0, np.arange(16), classes.numpy()] = 1
    for _ in range(60):
        _, state = layer(tr.tensor(x), lengths=lengths)
        loss = tr.cross_entropy(read(state.h[0]), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * math.log(2)


def test_the_outputs_of_the_steps_are_kept_once():
    """The graph reads each hₜ again; it is then a view of out, not an array beside it, except for the state."""
    layer = nn.LSTM(3, 4)
    out, state = layer(tr.randn(5, 2, 3))
    steps = [x for x in layer_operands(out.node) if x.shape == (2, 4) and x.array.base is out.array]
    assert len(steps) == 4
    assert state.h.array.base is not out.array


def layer_operands(node):
    """Return the tensors that the nodes behind a node keep."""
    seen, waiting, found = set(), [node], []
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += [parent[0] for parent in node.parents if parent]
            if node.op and node.op.name == "matmul":
                found += [x for x in node.operands if isinstance(x, tr.Tensor)]
    return found
