"""Modules, layers and recurrent networks, against their equations in plain NumPy."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import nn
from tinyrnn.errors import BackendError, DTypeError, IndexRangeError, ShapeError, StateDictError

F64 = {"dtype": "float64"}


def close(tensor, expected, rtol=1e-10):
    np.testing.assert_allclose(tensor.numpy(), expected, rtol=rtol, atol=rtol)


def arrays(module):
    """Return a module's parameters by name as NumPy arrays."""
    return {name: value.numpy() for name, value in module.state_dict().items()}


# ---------------------------------------------------------------- modules


class Pair(nn.Module):
    def __init__(self):
        self.second = nn.Linear(2, 3, **F64)
        self.scale = nn.Parameter([1.0, 2.0])
        self.first = nn.Sequential(nn.Linear(3, 3), tr.tanh, nn.Dropout(0.5))
        self.tied = self.second.W
        self.note = "no module"

    def forward(self, x):
        return self.first(self.second(x))


def test_parameters_have_names_in_order_and_shared_ones_come_once():
    model = Pair()
    names = ["scale", "second.W", "second.b", "first.0.W", "first.0.b"]
    assert sorted(dict(model.named_parameters())) == sorted(set(names) - {"second.W"} | {"tied"})
    del model.tied
    assert [name for name, _ in model.named_parameters()] == names
    assert list(model.state_dict()) == names
    assert model.parameters()[1] is model.second.W
    assert [name for name, _ in model.named_modules()] == ["", "second", "first", "first.0", "first.1", "first.2"]
    assert model.name_of(model.first[2]) == "first.2"
    assert model.name_of(nn.Module()) is None


def test_a_module_shared_by_two_others_counts_once():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, shared)
    assert [name for name, _ in model.named_parameters()] == ["0.W", "0.b"]
    assert repr(model).startswith("Sequential: 6 parameters")
    x = tr.ones(1, 2)
    model(x).sum().backward()
    h = x.numpy() @ shared.W.numpy()
    close(shared.b.grad, 1 + shared.W.numpy().sum(1), 1e-6)
    close(shared.W.grad, np.outer(x.numpy(), shared.W.numpy().sum(1)) + h.T @ np.ones((1, 2)), 1e-6)


@pytest.mark.parametrize("held", [lambda m: [m], lambda m: (1, m), lambda m: {"a": m}])
@pytest.mark.parametrize("part", [lambda: nn.Linear(1, 1), lambda: nn.Parameter([1.0])])
@pytest.mark.parametrize("use", [nn.Module.parameters, nn.Module.state_dict, nn.Module.eval, repr])
def test_modules_in_a_plain_container_are_refused(held, part, use):
    model = nn.Module()
    model.layers = held(part())
    with pytest.raises(DTypeError, match=r"Module\.layers is a plain (list|tuple|dict).*nn\.ModuleList"):
        use(model)


def test_a_state_dict_is_a_snapshot(backend):
    model = nn.Linear(2, 2)
    state = model.state_dict()
    before = {name: value.tolist() for name, value in state.items()}
    with tr.no_grad():
        model.W -= 1.0
    assert {name: value.tolist() for name, value in state.items()} == before
    assert not any(value.requires_grad for value in state.values())
    assert model.load_state_dict(state) is model
    assert model.W.tolist() == before["W"]
    assert model.W.requires_grad


def test_a_state_dict_may_hold_arrays_and_other_float_types(backend):
    model = nn.Linear(2, 1)
    model.load_state_dict({"W": np.array([[1.0], [2.0]]), "b": [3]})
    assert (model.W.tolist(), model.b.tolist()) == ([[1.0], [2.0]], [3.0])
    assert (model.W.dtype, model.W.backend) == ("float32", backend)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("b"), "missing: b (O=3)"),
        (lambda s: s.update(c=tr.ones(1), d=1), "unknown: c; unknown: d"),
        (lambda s: s.update(b=tr.ones(2)), "misshaped: b is (2,), expected (O=3)"),
        (
            lambda s: (s.update(c=1, W=tr.ones(3, 2)), s.pop("b")),
            "unknown: c; missing: b (O=3); misshaped: W is (3, 2), expected (I=2, O=3)",
        ),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused_and_changes_nothing(change, message):
    model, state = nn.Linear(2, 3), nn.Linear(2, 3).state_dict()
    before = model.W.tolist()
    change(state)
    with pytest.raises(StateDictError, match=re.escape(f"Linear.load_state_dict: {message}")):
        model.load_state_dict(state)
    assert model.W.tolist() == before


def test_train_and_eval_reach_every_module():
    model = Pair()
    assert [m.training for _, m in model.eval().named_modules()] == [False] * 6
    assert [m.training for _, m in model.train().named_modules()] == [True] * 6
    assert nn.Module.training


def test_repr_shows_shapes_sizes_and_counts():
    model = nn.Sequential(nn.Embedding(1000, 8), nn.LSTM(8, 16), nn.Linear(16, 3, bias=False), tr.tanh)
    assert repr(model).splitlines() == [
        "Sequential: 9,648 parameters",
        "  0: Embedding(V=1000 -> E=8): 8,000 parameters",
        "    W (V=1000, E=8)",
        "  1: LSTM(I=8 -> H=16, L=1): 1,600 parameters",
        "    cells: ModuleList: 1,600 parameters",
        "      0: LSTMCell(I=8 -> H=16, gates i f g o; W_x Xavier, W_h orthogonal; forget bias 1): 1,600 parameters",
        "        W_x (I=8, 4H=64), W_h (H=16, 4H=64), b (4H=64)",
        "  2: Linear(I=16 -> O=3): 48 parameters",
        "    W (I=16, O=3)",
        "  3: Function(tanh): 0 parameters",
    ]


@pytest.mark.parametrize("there", ["numpy", "strict"])
def test_a_module_moves_to_another_backend(backend, there):
    model = nn.Sequential(nn.Linear(2, 2), nn.GRU(2, 3))
    model[0].b.requires_grad = False
    before = arrays(model)
    assert model.to(there) is model
    with tr.use_backend(there):
        x = tr.ones(4, 1, 2)
    out, state = model(x)
    out.sum().backward()
    assert {p.backend.name for p in (*model.parameters(), out, state.h, model[0].W.grad)} == {there}
    assert [p.requires_grad for p in model[0].parameters()] == [True, False]
    assert all(np.array_equal(before[name], value) for name, value in arrays(model).items())


def test_a_model_and_its_input_must_be_on_one_backend():
    with tr.use_backend("strict"):
        x = tr.ones(4, 1, 2)
    with pytest.raises(BackendError, match="numpy and strict"):
        nn.RNN(2, 3)(x)


def test_what_a_subclass_must_write_is_said():
    with pytest.raises(NotImplementedError, match=r"ModuleList has no forward\(\)"):
        nn.ModuleList()(1)

    class Silent(nn.Cell):
        gates = ("h",)

    with pytest.raises(NotImplementedError, match=r"Silent has no step\(z, state\)"):
        Silent(2, 3)(tr.ones(1, 2))


# ---------------------------------------------------------------- layers


@pytest.mark.parametrize("leading", [(), (4,), (5, 4)])
def test_linear(backend, leading):
    layer, x = nn.Linear(3, 2, **F64), tr.randn(*leading, 3, **F64)
    layer.b.assign([1.0, -1.0])
    close(layer(x), x.numpy() @ layer.W.numpy() + [1.0, -1.0])
    plain = nn.Linear(3, 2, bias=False, **F64)
    assert [name for name, _ in plain.named_parameters()] == ["W"]
    close(plain(x), x.numpy() @ plain.W.numpy())
    assert tr.gradcheck(lambda x, *_: layer(x), [tr.randn(*leading, 3, requires_grad=True, **F64), *layer.parameters()])


def test_embedding_is_a_product_with_one_hot(backend):
    layer, index = nn.Embedding(5, 3, **F64), tr.tensor([[0, 4], [4, 4]])
    y = layer(index)
    close(y, layer.W.numpy()[index.numpy()])
    close(layer([2]), layer.W.numpy()[[2]])
    weight = tr.randn(*y.shape, **F64)
    (y * weight).sum().backward()
    close(layer.W.grad, tr.one_hot(index, 5).numpy().reshape(4, 5).T @ weight.numpy().reshape(4, 3))
    assert tr.gradcheck(lambda W: layer(index), layer.W)


def test_dropout_drops_and_scales_while_training(backend):
    x, layer = tr.ones(100, 100, requires_grad=True), nn.Dropout(0.25)
    y = layer(x)
    dropped = y.numpy() == 0
    assert dropped.mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_allclose(y.numpy()[~dropped], 1 / 0.75, rtol=1e-6)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())
    assert not np.array_equal(layer(x).numpy(), y.numpy())
    tr.manual_seed(0)
    np.testing.assert_array_equal(nn.Dropout(0.25)(x).numpy(), y.numpy())
    assert layer.eval()(x) is x
    assert nn.Dropout(0.0)(x) is x


def test_layer_norm(backend):
    x, layer = tr.randn(3, 4, requires_grad=True, **F64), nn.LayerNorm(4, eps=1e-3, **F64)
    v = x.numpy()
    normal = (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-3)
    close(layer(x), normal)
    layer.weight.assign([1.0, 2.0, 3.0, 4.0])
    layer.bias.assign([0.0, 1.0, 0.0, -1.0])
    close(layer(x), normal * [1.0, 2.0, 3.0, 4.0] + [0.0, 1.0, 0.0, -1.0])
    assert tr.gradcheck(lambda x, *_: layer(x), [x, *layer.parameters()])


def test_sequential_and_module_list():
    model = nn.Sequential(nn.Linear(2, 3), tr.relu, lambda x: x * 2)
    x = tr.randn(4, 2)
    close(model(x), 2 * np.maximum(x.numpy() @ model[0].W.numpy(), 0), 1e-6)
    layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(11)).append(nn.Dropout())
    assert (len(layers), type(layers[-1]), [name for name, _ in layers.named_children()][-2:]) == (
        12,
        nn.Dropout,
        ["10", "11"],
    )
    assert [type(layer) for layer in layers[10:]] == [nn.Linear, nn.Dropout]


# ---------------------------------------------------------------- recurrent networks: the equations, in NumPy


def logistic(x):
    return 1 / (1 + np.exp(-x))


def rnn_step(p, x, h, f=np.tanh):
    return (f(x @ p["W_x"] + p.get("b", 0) + h @ p["W_h"]),)


def relu_step(p, x, h):
    return rnn_step(p, x, h, lambda a: np.maximum(a, 0))


def lstm_step(p, x, h, c):
    i, f, g, o = np.split(x @ p["W_x"] + p.get("b", 0) + h @ p["W_h"], 4, axis=-1)
    c = logistic(f) * c + logistic(i) * np.tanh(g)
    return logistic(o) * np.tanh(c), c


def gru_step(p, x, h):
    x_r, x_z, x_n = np.split(x @ p["W_x"] + p.get("b", 0), 3, axis=-1)
    h_r, h_z, h_n = np.split(h @ p["W_h"], 3, axis=-1)
    r, z = logistic(x_r + h_r), logistic(x_z + h_z)
    n = np.tanh(x_n + r * (h_n + p.get("b_hn", 0)))
    return ((1 - z) * n + z * h,)


KINDS = {
    "rnn": (nn.RNN, nn.RNNCell, {}, rnn_step),
    "rnn relu": (nn.RNN, nn.RNNCell, {"nonlinearity": "relu"}, relu_step),
    "lstm": (nn.LSTM, nn.LSTMCell, {}, lstm_step),
    "gru": (nn.GRU, nn.GRUCell, {}, gru_step),
}
T, B, I, H = 4, 2, 3, 5


def loop(step, parameters, x, state):
    """Run a sequence through all layers; state, a list of fields (L, B, H)."""
    finals = []
    for layer, own in enumerate(parameters):
        now, outs = [field[layer] for field in state], []
        for x_t in x:
            now = step(own, x_t, *now)
            outs.append(now[0])
        x = np.stack(outs)
        finals.append(now)
    return x, [np.stack(fields) for fields in zip(*finals, strict=True)]


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def scattered(layer):
    """Give every parameter a random value: biases too."""
    for p in layer.parameters():
        p.assign(tr.randn(*p.shape, **F64) * 0.7)
    return layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_recurrent_layer_is_the_loop_of_its_equations(backend, kind, layers, bias):
    layer_type, _, options, step = kind
    layer = scattered(layer_type(I, H, layers, bias=bias, **options, **F64))
    x = tr.randn(T, B, I, **F64)
    state = [tr.randn(layers, B, H, **F64) for _ in layer.initial_state(B)]
    parameters = [arrays(cell) for cell in layer.cells]
    for given, begin in ((None, [np.zeros((layers, B, H))] * len(state)), (state, [s.numpy() for s in state])):
        out, after = layer(x, given and tuple(given))
        expected, finals = loop(step, parameters, x.numpy(), begin)
        close(out, expected)
        assert type(after) is type(layer.initial_state(B))
        for field, final in zip(after, finals, strict=True):
            close(field, final)
        close(after[0][-1], expected[-1])


@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_through_time(backend, kind, layers):
    layer_type, _, options, _ = kind
    layer = scattered(layer_type(2, 2, layers, **options, **F64))
    state = [tr.randn(layers, 1, 2, requires_grad=True, **F64) for _ in layer.initial_state(1)]
    inputs = [tr.randn(3, 1, 2, requires_grad=True, **F64), *state, *layer.parameters()]

    def f(x, *rest):
        out, after = layer(x, rest[: len(state)])
        return [out, *after]

    assert tr.gradcheck(f, inputs)


def test_backpropagation_through_time_by_hand(backend):
    layer, x = scattered(nn.RNN(I, H, **F64)), tr.randn(T, B, I, requires_grad=True, **F64)
    h0, gy = tr.randn(1, B, H, requires_grad=True, **F64), tr.randn(T, B, H, **F64)
    layer(x, h0)[0].backward(gy)

    p, h = arrays(layer.cells[0]), [h0.numpy()[0]]
    for t in range(T):
        h.append(*rnn_step(p, x.numpy()[t], h[t]))
    W_x, W_h, b, gx, gh = 0, 0, 0, [None] * T, 0
    for t in reversed(range(T)):
        gz = (gy.numpy()[t] + gh) * (1 - h[t + 1] ** 2)
        W_x, W_h, b = W_x + x.numpy()[t].T @ gz, W_h + h[t].T @ gz, b + gz.sum(0)
        gx[t], gh = gz @ p["W_x"].T, gz @ p["W_h"].T
    cell = layer.cells[0]
    for tensor, expected in ((cell.W_x, W_x), (cell.W_h, W_h), (cell.b, b), (x, np.stack(gx)), (h0, gh[None])):
        close(tensor.grad, expected)


def test_a_cell_does_one_step(backend, kind):
    layer_type, _, options, _ = kind
    layer = scattered(layer_type(I, H, **options, **F64))
    cell, x = layer.cells[0], tr.randn(B, I, **F64)
    state = [tr.randn(B, H, **F64) for _ in cell.initial_state(B)]
    for given in (None, state):
        out, after = layer(x.reshape(1, B, I), given and [field.reshape(1, B, H) for field in given])
        step = cell(x, given)
        assert type(step) is type(after)
        close(step[0], out.numpy()[0])
        for field, expected in zip(step, after, strict=True):
            close(field, expected.numpy()[0])
    unrolled, last = nn.unroll(cell, cell.project(x.reshape(1, B, I)), cell.State(*state))
    close(unrolled, out.numpy())
    close(last[0], step[0].numpy())


def test_a_state_is_taken_in_every_plain_form(backend):
    x, h = tr.randn(T, B, I), tr.randn(2, B, H)
    for layer in (nn.RNN(I, H, 2), nn.GRU(I, H, 2)):
        expected = layer(x, layer.cells[0].State(h))[0].tolist()
        assert all(layer(x, state)[0].tolist() == expected for state in (h, (h,), [h]))
        cell = layer.cells[0]
        assert cell(x[0], h[0]).h.tolist() == cell(x[0], (h[0],)).h.tolist() == cell(x[0], cell.State(h[0])).h.tolist()
    lstm = nn.LSTM(I, H, 2)
    expected = lstm(x, nn.LSTMState(h, 2 * h))[0].tolist()
    assert all(lstm(x, state)[0].tolist() == expected for state in ((h, 2 * h), [h, 2 * h]))


def test_a_sequence_in_two_windows_is_the_whole_sequence(backend, kind):
    layer_type, _, options, _ = kind
    layer, x = scattered(layer_type(I, H, 2, **options, **F64)), tr.randn(6, B, I, **F64)
    whole, last = layer(x)
    first, state = layer(x[:2])
    second, state = layer(x[2:], state)
    close(first, whole.numpy()[:2])
    close(second, whole.numpy()[2:])
    close(state[0], last[0].numpy())


def test_detach_truncates_backpropagation_to_the_window(backend, kind):
    layer_type, _, options, _ = kind
    layer = scattered(layer_type(I, H, 2, **options, **F64))
    x, weights = tr.randn(6, B, I, requires_grad=True, **F64), layer.parameters()
    _, state = layer(x[:3])
    alone = layer(x[3:].detach(), tuple(tr.tensor(field.numpy()) for field in state))[0]
    window, onward = layer(x[3:], tr.detach(state))[0], layer(x[3:], state)[0]
    expected = tr.grad((alone**2).sum(), weights)
    *truncated, gx = tr.grad((window**2).sum(), [*weights, x])
    for g, e in zip(truncated, expected, strict=True):
        close(g, e.numpy())
    assert np.array_equal(abs(gx.numpy()).max((1, 2)) > 0, [False] * 3 + [True] * 3)
    *longer, gx = tr.grad((onward**2).sum(), [*weights, x])
    assert abs(gx.numpy()).max((1, 2)).min() > 0
    assert not np.allclose(longer[1].numpy(), expected[1].numpy())


# ---------------------------------------------------------------- recurrent networks: more


class MinimalGRUCell(nn.Cell):
    """One gate that forgets and lets in."""

    gates = ("f", "n")

    def __init__(self, input_size, hidden_size, temperature=1.0, **options):
        super().__init__(input_size, hidden_size, **options)
        self.temperature = temperature

    def step(self, z, state):
        z_f, z_n = tr.split(z, 2)
        h_f, h_n = tr.split(state.h @ self.W_h, 2)
        f = tr.sigmoid((z_f + h_f) / self.temperature)
        return self.State((1 - f) * state.h + f * tr.tanh(z_n + f * h_n))


class LeakyState(NamedTuple):
    h: tr.Tensor
    mean: tr.Tensor


class LeakyCell(nn.Cell):
    gates = ("h",)
    State = LeakyState

    def step(self, z, state):
        h = tr.tanh(z + state.h @ self.W_h)
        return LeakyState(h, 0.9 * state.mean + 0.1 * h)


def test_a_cell_of_ones_own_in_two_layers(backend):
    layer = nn.Recurrent(MinimalGRUCell, I, H, 2, temperature=2.0, **F64)
    x, p = tr.randn(T, B, I, **F64), [arrays(cell) for cell in layer.cells]

    def step(p, x, h):
        z_f, z_n = np.split(x @ p["W_x"] + p["b"], 2, axis=-1)
        h_f, h_n = np.split(h @ p["W_h"], 2, axis=-1)
        f = logistic((z_f + h_f) / 2)
        return ((1 - f) * h + f * np.tanh(z_n + f * h_n),)

    out, state = layer(x)
    expected, (final,) = loop(step, p, x.numpy(), [np.zeros((2, B, H))])
    close(out, expected)
    close(state.h, final)
    assert "MinimalGRUCell(I=3 -> H=5, gates f n; W_x Xavier, W_h orthogonal)" in repr(layer)
    assert "W_x (I=3, 2H=10), W_h (H=5, 2H=10), b (2H=10)" in repr(layer)
    assert tr.gradcheck(lambda *_: layer(x)[0], layer.parameters(), order=1)


def test_a_state_of_ones_own(backend):
    layer = nn.Recurrent(LeakyCell, I, H, 2)
    x = tr.randn(T, B, I)
    out, state = layer(x)
    assert type(state) is LeakyState
    assert state.mean.shape == (2, B, H)
    mean = sum(0.1 * 0.9 ** (T - 1 - t) * out.numpy()[t] for t in range(T))
    close(state.mean[1], mean, 1e-5)
    with pytest.raises(DTypeError, match=r"a tensor alone; expected LeakyState\(h, mean\), each \(L, B, H\)"):
        layer(x, state.h)


def test_dropout_acts_between_layers_and_only_while_training():
    x = tr.randn(T, B, I)
    plain, dropping = nn.LSTM(I, H, 2), nn.LSTM(I, H, 2, dropout=0.5)
    dropping.load_state_dict(plain.state_dict())
    (out, state), (out_d, state_d) = plain(x), dropping(x)
    assert state_d.h[0].tolist() == state.h[0].tolist()
    assert out_d.tolist() != out.tolist()
    assert (out_d.numpy() != 0).all()
    assert dropping.eval()(x)[0].tolist() == out.tolist()
    assert "dropout=0.5" in repr(dropping)


def test_one_seed_one_network_on_every_backend(kind):
    layer_type, _, options, _ = kind

    def drawn(seed, backend):
        tr.manual_seed(seed)
        with tr.use_backend(backend):
            return arrays(nn.Sequential(nn.Embedding(7, I), layer_type(I, H, 2, **options), nn.Linear(H, 7)))

    first, same, other = drawn(1, "numpy"), drawn(1, "strict"), drawn(2, "numpy")
    assert all(np.array_equal(value, same[name]) for name, value in first.items())
    assert not any(np.array_equal(value, other[name]) for name, value in first.items() if "W" in name)


def test_first_values(backend, kind):
    layer_type, _, options, _ = kind
    n = len(layer_type(I, H, **options).cells[0].gates)
    for cell in layer_type(I, H, 2, **options, **F64).cells:
        for block in np.split(cell.W_h.numpy(), n, axis=1):
            np.testing.assert_allclose(block.T @ block, np.eye(H), atol=1e-12)
        relu = options.get("nonlinearity") == "relu"
        bound = np.sqrt(6 / (cell.input_size if relu else cell.input_size + H))  # He's rule, or Xavier's
        assert bound / 2 < abs(cell.W_x.numpy()).max() <= bound
        bias = cell.b.numpy().reshape(n, H)
        expected = np.zeros((n, H))
        if isinstance(cell, nn.LSTMCell):
            expected[cell.gates.index("f")] = 1
        np.testing.assert_array_equal(bias, expected)


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (6, 3), (3, 6)])
def test_orthogonal_values(rows, columns):
    a, b = np.split(nn.init.orthogonal(rows, columns, gates=2, **F64).numpy(), 2, axis=1)
    for block in (a, b):
        small = block.T @ block if rows >= columns else block @ block.T
        np.testing.assert_allclose(small, np.eye(min(rows, columns)), atol=1e-12)
    assert not np.allclose(a, b)


def test_he_and_xavier_values():
    he, xavier = nn.init.he_uniform(200, 100).numpy(), nn.init.xavier_uniform(200, 100, gates=2).numpy()
    assert (he.shape, xavier.shape) == ((200, 100), (200, 200))
    assert he.std() == pytest.approx(np.sqrt(2 / 200), rel=0.02)
    assert xavier.std() == pytest.approx(np.sqrt(2 / 300), rel=0.02)


# ---------------------------------------------------------------- mistakes


def zeros(*shape, **options):
    return lambda: tr.zeros(*shape, **options)


X = zeros(T, B, I)
STATE = r"expected LSTMState\(h, c\), each \(L, B, H\) = \(2, 2, 5\)"
CALLS = [  # a layer, its arguments, the error, and what it says
    ("lstm", [zeros(T, I)], ShapeError, r"^LSTM: x is \(4, 3\); expected \(T, B, I=3\)"),
    ("lstm", [zeros(T, B, I, 1)], ShapeError, r"^LSTM: x is \(4, 2, 3, 1\); expected \(T, B, I=3\)"),
    (
        "lstm",
        [zeros(T, B, 4)],
        ShapeError,
        r"^LSTM: x is \(4, 2, 4\) = \(T=4, B=2, I=4\) but input_size is 3; the last axis of x must be 3",
    ),
    ("lstm", [zeros(0, B, I)], ShapeError, r"^LSTM: x is \(0, 2, 3\); expected at least one time step"),
    ("lstm", [zeros(T, B, I, dtype="int64")], DTypeError, r"^LSTM: x is int64; expected floating.*astype"),
    ("lstm", [lambda: np.zeros((T, B, I))], DTypeError, r"^LSTM: x is ndarray; expected a tensor \(T, B, I=3\)"),
    ("lstm", [X, zeros(2, B, H)], DTypeError, "^LSTM: the state is a tensor alone; " + STATE),
    ("lstm", [X, lambda: (tr.zeros(2, B, H),)], DTypeError, "^LSTM: the state is 1 tensors; " + STATE),
    ("lstm", [X, lambda: nn.GRUState(tr.zeros(2, B, H))], DTypeError, "^LSTM: the state is 1 tensors; " + STATE),
    ("lstm", [X, lambda: 0], DTypeError, "^LSTM: the state is int; " + STATE),
    ("lstm", [X, lambda: "hc"], DTypeError, "^LSTM: the state is str; " + STATE),
    ("lstm", [X, lambda: (tr.zeros(2, B, H), None)], DTypeError, r"c of the state is NoneType; expected a tensor"),
    ("lstm", [X, lambda: (tr.zeros(2, B, H, dtype="int64"),) * 2], DTypeError, r"h of the state is int64"),
    (
        "lstm",
        [X, lambda: (tr.zeros(2, B, H), tr.zeros(1, B, H))],
        ShapeError,
        r"^LSTM: c of the state is \(1, 2, 5\); expected \(L, B, H\) = \(2, 2, 5\)",
    ),
    ("gru", [X, zeros(B, H)], ShapeError, r"^GRU: h of the state is \(2, 5\); expected \(L, B, H\) = \(1, 2, 5\)"),
    ("gru", [X, lambda: (tr.zeros(1, B, H),) * 2], DTypeError, r"^GRU: the state is 2 tensors; expected GRUState\(h\)"),
    ("rnn cell", [X], ShapeError, r"^RNNCell: x is \(4, 2, 3\); expected \(B, I=3\)"),
    ("rnn cell", [zeros(B, 4)], ShapeError, r"^RNNCell: x is \(2, 4\) = \(B=2, I=4\) but input_size is 3"),
    ("rnn cell", [zeros(B, I), zeros(B, 4)], ShapeError, r"^RNNCell: h .* is \(2, 4\); expected \(B, H\) = \(2, 5\)"),
    (
        "lstm cell",
        [zeros(B, I), zeros(B, H)],
        DTypeError,
        r"^LSTMCell: the state is a tensor alone; expected LSTMState",
    ),
    ("linear", [zeros(B, 4)], ShapeError, r"^Linear: x is \(2, 4\) but input_size is 3; the last axis of x must be 3"),
    ("linear", [zeros()], ShapeError, r"^Linear: x is \(\); expected \(…, I=3\)"),
    ("linear", [lambda: [1.0, 2.0, 3.0]], DTypeError, r"^Linear: x is list; expected a tensor"),
    ("embedding", [lambda: tr.tensor([0, 7])], IndexRangeError, r"^Embedding: index holds 7; .* from 0 to 6"),
    ("embedding", [lambda: tr.tensor([0, -1])], IndexRangeError, r"^Embedding: index holds -1"),
    (
        "embedding",
        [lambda: tr.tensor([0.0])],
        DTypeError,
        r"^Embedding: index is float32\[1\]; expected integers 0 … 6",
    ),
    ("embedding", [lambda: tr.tensor([True])], DTypeError, r"^Embedding: index is bool\[1\]"),
    ("norm", [zeros(B, 4)], ShapeError, r"^LayerNorm: x is \(2, 4\) but size is 3"),
]
LAYERS = {
    "lstm": lambda: nn.LSTM(I, H, 2),
    "gru": lambda: nn.GRU(I, H),
    "rnn cell": lambda: nn.RNNCell(I, H),
    "lstm cell": lambda: nn.LSTMCell(I, H),
    "linear": lambda: nn.Linear(I, H),
    "embedding": lambda: nn.Embedding(7, H),
    "norm": lambda: nn.LayerNorm(I),
}


@pytest.mark.parametrize(("layer", "arguments", "error", "message"), CALLS)
def test_bad_input_is_refused(backend, layer, arguments, error, message):
    with pytest.raises(error, match=message):
        LAYERS[layer]()(*(make() for make in arguments))


class Gateless(nn.Cell):
    pass


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.LSTM(0, H), ShapeError, "^LSTMCell: input_size is 0; expected an int of 1 or more"),
        (lambda: nn.LSTM(I, "5"), ShapeError, "^LSTMCell: hidden_size is '5'"),
        (lambda: nn.GRU(I, 2.0), ShapeError, r"^GRUCell: hidden_size is 2\.0"),
        (lambda: nn.RNN(I, H, 0), ShapeError, "^RNN: num_layers is 0"),
        (lambda: nn.RNN(I, H, True), ShapeError, "^RNN: num_layers is True"),
        (
            lambda: nn.LSTM(I, H, 2, dropout=1.0),
            ValueError,
            r"^LSTM: dropout is 1\.0; expected a probability in \[0, 1\)",
        ),
        (lambda: nn.LSTM(I, H, dropout=0.5), ValueError, r"^LSTM: dropout=0\.5 acts between layers.*num_layers=2"),
        (lambda: nn.RNN(I, H, nonlinearity="sin"), ValueError, "nonlinearity is 'sin'; expected 'tanh' or 'relu'"),
        (lambda: nn.LSTM(I, H, nonlinearity="relu"), TypeError, "nonlinearity"),
        (lambda: nn.GRU(I, H, biass=False), TypeError, "biass"),
        (lambda: nn.GRU(I, H, dtype="int64"), DTypeError, "int64"),
        (lambda: nn.GRU(I, H, dtype="float33"), DTypeError, "float33"),
        (lambda: nn.Recurrent(Gateless, I, H), ShapeError, "^Gateless: gates is empty"),
        (lambda: nn.Linear(I, 0), ShapeError, "^Linear: output_size is 0"),
        (lambda: nn.Embedding(-1, H), ShapeError, "^Embedding: vocabulary_size is -1"),
        (lambda: nn.LayerNorm(0), ShapeError, "^LayerNorm: size is 0"),
        (lambda: nn.Dropout(1.0), ValueError, r"^Dropout: p is 1\.0"),
        (lambda: nn.Dropout(-0.1), ValueError, r"^Dropout: p is -0\.1"),
        (lambda: nn.Sequential(nn.Linear(1, 1), 3), DTypeError, "^Sequential: given int"),
        (lambda: nn.ModuleList([tr.tanh]), DTypeError, "^ModuleList: given function; expected a Module"),
    ],
)
def test_bad_options_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
