"""Models that came from PyTorch or ONNX, or went there, compute the same."""

from __future__ import annotations

import copy
import itertools
from typing import NamedTuple

import numpy as np
import pytest

import tinyrnn as tr
from examples.char_rnn import CharRNN
from tests.test_interop import OwnCell, shuffled
from tinyrnn import nn
from tinyrnn.errors import InteropError, ShapeError
from tinyrnn.interop import export_onnx, from_torch, gates, layer_from_onnx, to_torch

reason = "pip install -e '.[test,oracle]'"
torch = pytest.importorskip("torch", reason=reason)
onnx = pytest.importorskip("onnx", reason=reason)
onnxruntime = pytest.importorskip("onnxruntime", reason=reason)

from onnx.backend.test.case.node import _NodeTestCases, gru, lstm, rnn  # noqa: E402, F401  # which adds their cases
from onnx.reference import ReferenceEvaluator  # noqa: E402

pytestmark = pytest.mark.oracle

T, B, I, H = 6, 3, 4, 5


def draw(*shape):
    return tr.randn(*shape).numpy().copy()


def orders(library, kind):
    """Every order of a kind's gates but the right one."""
    right = gates.ORDERS[library][kind]
    return [order for order in itertools.permutations(right) if order != right]


# ---------------------------------------------------------------- PyTorch

LAYERS = {
    "rnn": (nn.RNN, torch.nn.RNN, {}),
    "relu": (nn.RNN, torch.nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, torch.nn.LSTM, {}),
    "projected": (nn.LSTM, torch.nn.LSTM, {"proj_size": 2}),
    "gru": (nn.GRU, torch.nn.GRU, {}),
}


def as_torch(state):
    return {name: torch.from_numpy(x) for name, x in state.items()}


def arrays(y):
    """The values of all tensors, ours or PyTorch's, in (nested) tuples, lists and dicts."""
    if isinstance(y, dict | tuple | list):
        return [x for part in (y.values() if isinstance(y, dict) else y) for x in arrays(part)]
    return [y.detach().numpy()] if hasattr(y, "detach") else []


def assert_close(given, expected, atol=1e-5):
    for a, b in zip(arrays(given), arrays(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    ("layers", "bidirectional", "bias"), [*itertools.product([1, 3], [False, True], [False, True])]
)
def test_recurrent_layers_both_ways(name, layers, bidirectional, bias):
    make, make_theirs, options = LAYERS[name]
    options = options | {"num_layers": layers, "bidirectional": bidirectional, "bias": bias}
    x = draw(T, B, I)
    theirs, ours = make_theirs(I, H, **options), make(I, H, **options)
    from_torch(ours, theirs.state_dict())
    assert_close(ours(tr.tensor(x)), theirs(torch.tensor(x)))

    shuffled(ours)
    theirs.load_state_dict(as_torch(to_torch(ours)), strict=True)
    assert list(theirs.state_dict()) == list(to_torch(ours))
    assert_close(ours(tr.tensor(x)), theirs(torch.tensor(x)))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_permuted_gates_of_pytorch_are_noticed(kind, monkeypatch):
    ours = shuffled(getattr(nn, kind)(I, H))
    theirs, x = getattr(torch.nn, kind)(I, H), draw(T, B, I)
    for order in orders("pytorch", kind):
        monkeypatch.setitem(gates.ORDERS["pytorch"], kind, order)
        theirs.load_state_dict(as_torch(to_torch(ours)))
        assert np.abs(ours(tr.tensor(x))[0].numpy() - theirs(torch.tensor(x))[0].detach().numpy()).max() > 0.01


class Tagger(nn.Module):
    def __init__(self):
        self.embedding = nn.Embedding(7, I)
        self.encoder = nn.GRU(I, H, 2, bidirectional=True)
        self.head = nn.Sequential(nn.LayerNorm(2 * H), tr.tanh, nn.Linear(2 * H, 3))

    def forward(self, x):
        return self.head(self.encoder(self.embedding(x))[0])


class TorchTagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(7, I)
        self.encoder = torch.nn.GRU(I, H, 2, bidirectional=True)
        self.head = torch.nn.Sequential(torch.nn.LayerNorm(2 * H), torch.nn.Tanh(), torch.nn.Linear(2 * H, 3))

    def forward(self, x):
        return self.head(self.encoder(self.embedding(x))[0])


def test_modules_of_modules_both_ways(tmp_path):
    x = np.random.default_rng(0).integers(0, 7, (T, B))
    theirs, ours = TorchTagger(), Tagger()
    from_torch(ours, theirs.state_dict())
    assert_close(ours(tr.tensor(x)), theirs(torch.tensor(x)))
    to_torch(shuffled(ours), tmp_path / "tagger.safetensors")
    theirs.load_state_dict(as_torch(to_torch(ours)), strict=True)
    assert_close(ours(tr.tensor(x)), theirs(torch.tensor(x)))


class TorchAttention(torch.nn.Module):
    """Additive attention, as it is written in PyTorch: three linear layers without a bias."""

    def __init__(self, query_size, key_size, hidden_size):
        super().__init__()
        self.W_q = torch.nn.Linear(query_size, hidden_size, bias=False)
        self.W_k = torch.nn.Linear(key_size, hidden_size, bias=False)
        self.v = torch.nn.Linear(hidden_size, 1, bias=False)

    def forward(self, query, keys):  # (B, Q), (Tk, B, K)
        weights = self.v(torch.tanh(self.W_q(query) + self.W_k(keys))).softmax(0)
        return (weights * keys).sum(0), weights.squeeze(-1)


def test_attention_both_ways():
    theirs, ours = TorchAttention(I, H, 7), nn.Attention(I, H, 7)
    query, keys = draw(B, I), draw(T, B, H)
    from_torch(ours, theirs.state_dict())
    assert_close(ours(tr.tensor(query), tr.tensor(keys)), theirs(torch.tensor(query), torch.tensor(keys)))
    theirs.load_state_dict(as_torch(to_torch(shuffled(ours))), strict=True)
    assert_close(ours(tr.tensor(query), tr.tensor(keys)), theirs(torch.tensor(query), torch.tensor(keys)))


@pytest.mark.parametrize("bias", [True, False])
def test_convolution_both_ways(bias):
    theirs = torch.nn.Conv1d(I, H, kernel_size=2, dilation=2, bias=bias)
    ours, x = nn.Conv1d(I, H, width=2, dilation=2, bias=bias), draw(T, B, I)
    for _ in range(2):
        from_torch(ours, theirs.state_dict())
        assert_close(ours(tr.tensor(x)), theirs(torch.tensor(x).permute(1, 2, 0)).permute(2, 0, 1))
        theirs.load_state_dict(as_torch(to_torch(shuffled(ours))), strict=True)


def test_heads_both_ways():
    theirs, ours = torch.nn.MultiheadAttention(2 * H, 2, bias=False), nn.MultiHeadAttention(2 * H, 2)
    query, keys, values = draw(T, B, 2 * H), draw(T + 1, B, 2 * H), draw(T + 1, B, 2 * H)
    for _ in range(2):
        from_torch(ours, theirs.state_dict())
        context, _ = ours(tr.tensor(query), tr.tensor(keys), tr.tensor(values))
        assert_close(context, theirs(torch.tensor(query), torch.tensor(keys), torch.tensor(values))[0])
        theirs.load_state_dict(as_torch(to_torch(shuffled(ours))), strict=True)


def test_float64_and_files_of_pytorchs(tmp_path):
    from safetensors.torch import save_file

    theirs, ours = torch.nn.LSTM(I, H, dtype=torch.float64), nn.LSTM(I, H, dtype="float64")
    save_file(theirs.state_dict(), tmp_path / "lstm.safetensors")
    x = tr.randn(T, B, I, dtype="float64")
    from_torch(ours, tmp_path / "lstm.safetensors")
    np.testing.assert_allclose(ours(x)[0].numpy(), theirs(torch.tensor(x.numpy()))[0].detach().numpy(), atol=1e-14)
    with pytest.raises(tr.errors.DTypeError, match=r"is torch\.bfloat16.*x\.float\(\)"):
        from_torch(ours, theirs.bfloat16().state_dict())


# ---------------------------------------------------------------- ONNX nodes

CASES = {case.name: case for case in _NodeTestCases if case.model.graph.node[0].op_type in ("RNN", "LSTM", "GRU")}
CONSTANT = ("W", "R", "B", "P")


def run_ours(node, values):
    """Run a node with values for its inputs by name, as a layer of ours; return what it returns by name."""
    constants = {name: x for name, x in values.items() if name in CONSTANT}
    inputs = {name: x for name, x in values.items() if name not in CONSTANT}
    y = layer_from_onnx(node, constants)(**inputs)
    return {name: x.numpy() for name, x in zip(node.output, y, strict=False) if name}


def run_theirs(node, values):
    """Run it as the reference or, since that ignores sequence_lens, as onnxruntime does, which knows layout 0 alone."""
    make = onnx.helper
    described = [make.make_tensor_value_info(name, _type(x), x.shape) for name, x in values.items()]
    results = [make.make_tensor_value_info(name, _type(values["X"]), None) for name in node.output]
    graph = make.make_graph([node], "one node", described, results)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=8)
    if "sequence_lens" in values:
        return dict(zip(node.output, session(model.SerializeToString()).run(None, values), strict=True))
    return dict(zip(node.output, ReferenceEvaluator(model).run(None, values), strict=True))


def _type(x):
    return onnx.helper.np_dtype_to_tensor_dtype(x.dtype)


def session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 2  # a warning is one about a model of ours
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def test_there_are_18_cases():
    assert len(CASES) == 18


@pytest.mark.parametrize("name", CASES)
def test_node(name):
    case = CASES[name]
    (node,), (data,) = case.model.graph.node, case.data_sets
    inputs = dict(zip((x.name for x in case.model.graph.input), data[0], strict=True))
    for fused, atol in ((False, case.atol), (True, 1e-6)):  # a kernel's tanh: the last digit of 1 − z, of a shut gate
        with tr.fusion(fused):
            given = run_ours(node, inputs)
        for result, expected in zip(case.model.graph.output, data[1], strict=True):
            np.testing.assert_allclose(given[result.name], expected, rtol=case.rtol, atol=atol)


class Twin(NamedTuple):
    """A case's node with an output for everything, and random values for every input that its type has."""

    node: object
    values: dict


def twin_of(case):
    node = copy.deepcopy(case.model.graph.node[0])
    options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    T, B, I, H, D = 4, 3, 2, options["hidden_size"], 2 if options.get("direction") == b"bidirectional" else 1
    n, batch_first = len(gates.ORDERS["onnx"][node.op_type]), options.get("layout") == 1
    sequences, states = ((B, T, I), (B, D, H)) if batch_first else ((T, B, I), (D, B, H))
    shapes = {"X": sequences, "W": (D, n * H, I), "R": (D, n * H, H), "B": (D, 2 * n * H), "initial_h": states}
    if node.op_type == "LSTM":
        shapes |= {"initial_c": states, "P": (D, 3 * H)}
    values = {name: draw(*shape) for name, shape in shapes.items()}
    if "sequence_lens" in node.input:
        values["sequence_lens"] = np.array([4, 1, 2], np.int32)
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"][: 8 if node.op_type == "LSTM" else 6]
    node.ClearField("input")
    node.input.extend(name if name in values else "" for name in names)
    node.ClearField("output")
    node.output.extend(["Y", "Y_h", "Y_c"][: 3 if node.op_type == "LSTM" else 2])
    return Twin(node, values)


TWINS = [(name, reset) for name in CASES for reset in ((0, 1) if "gru" in name else (0,))]


@pytest.mark.parametrize(("name", "linear_before_reset"), TWINS)
def test_random_twin_of_a_node_and_its_mutants(name, linear_before_reset, monkeypatch):
    """The weights of most of ONNX's cases are constant, so that a permutation of the gates would go unnoticed."""
    node, values = twin_of(CASES[name])
    if node.op_type == "GRU":
        node.attribute.append(onnx.helper.make_attribute("linear_before_reset", linear_before_reset))
    expected = run_theirs(node, values)
    given = run_ours(node, values)
    for result in expected:
        np.testing.assert_allclose(given[result], expected[result], rtol=1e-5, atol=1e-5)
    for order in orders("onnx", node.op_type):
        monkeypatch.setitem(gates.ORDERS["onnx"], node.op_type, order)
        mutant = run_ours(node, values)
        assert np.abs(mutant["Y"] - expected["Y"]).max() > 0.01


def test_permuted_peepholes_are_noticed(monkeypatch):
    node, values = twin_of(CASES["test_lstm_with_peepholes"])
    expected = run_theirs(node, values)["Y"]
    for order in itertools.permutations("iof"):
        monkeypatch.setitem(gates.PEEPHOLES, "onnx", order)
        assert (np.abs(run_ours(node, values)["Y"] - expected).max() < 1e-5) == (order == ("i", "o", "f"))


def test_what_the_graph_holds_is_the_default():
    node, values = twin_of(CASES["test_lstm_with_peepholes"])
    expected = run_ours(node, values)
    given = layer_from_onnx(node, {name: x for name, x in values.items() if name != "X"})(values["X"])
    for x, name in zip(given, ("Y", "Y_h", "Y_c"), strict=True):
        np.testing.assert_array_equal(x.numpy(), expected[name])


def changed(name, **attributes):
    node, values = twin_of(CASES[name])
    kept = [a for a in node.attribute if a.name not in attributes]
    node.ClearField("attribute")
    node.attribute.extend([*kept, *(onnx.helper.make_attribute(key, value) for key, value in attributes.items())])
    return node, values


@pytest.mark.parametrize(
    ("case", "attributes", "message"),
    [
        (
            "lstm",
            {"activations": ["Sigmoid", "Tanh", "Relu"]},
            "LSTM has the activations Sigmoid, Tanh, Relu; expected S",
        ),
        (
            "gru",
            {"activations": ["HardSigmoid", "Tanh"]},
            "GRU has the activations Hardsigmoid, Tanh; expected Sigmoid",
        ),
        (
            "simple_rnn",
            {"activations": ["Elu"]},
            "RNN has the activations Elu; expected Tanh or Relu in each direction",
        ),
        ("gru", {"clip": 2.0}, r"GRU has clip=2\.0, which our cells do not have"),
        ("lstm", {"input_forget": 1}, "LSTM has input_forget=1"),
        ("gru", {"hidden_size": 7}, r"hidden_size is 7 and R \(1, 15, 5\); expected 5"),
    ],
)
def test_nodes_that_our_cells_are_not(case, attributes, message):
    node, values = changed(f"test_{case}_defaults", **attributes)
    with pytest.raises(InteropError, match=message):
        layer_from_onnx(node, values)
    node.op_type = "Conv"
    with pytest.raises(InteropError, match="the node is a 'Conv'; expected RNN, LSTM, GRU"):
        layer_from_onnx(node, values)


def test_weights_that_are_missing_or_misshaped():
    node, values = twin_of(CASES["test_gru_defaults"])
    with pytest.raises(InteropError, match=r"R of the GRU is 'R', which is not among the initializers \(W\)"):
        layer_from_onnx(node, {"W": values["W"]})
    with pytest.raises(InteropError, match=r"B of the GRU is \(1, 3\); expected \(1, 30\)"):
        layer_from_onnx(node, values | {"B": np.zeros((1, 3), "float32")})


@pytest.mark.parametrize("activation", ["Tanh", "relu"])
def test_activations_of_an_rnn(activation):
    node, values = changed("test_simple_rnn_bidirectional", activations=[activation] * 2)
    layer = layer_from_onnx(node, values).layer
    assert {cell.nonlinearity for cell in layer.cells} == {activation.lower()}


# ---------------------------------------------------------------- export

EACH = {
    "rnn": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, {}),
    "peephole": (nn.LSTM, {"peephole": True}),
    "gru": (nn.GRU, {}),
    "gru, reset before": (nn.GRU, {"reset_after": False}),
    "no bias": (nn.GRU, {"bias": False}),
    "learned initial state": (nn.LSTM, {"learn_initial_state": True}),
    # which ONNX has no node for:
    "projected": (nn.LSTM, {"proj_size": 2}),
    "layer norm": (nn.GRU, {"layer_norm": True}),
    "zoneout": (nn.LSTM, {"zoneout": 0.2}),
    "float64": (nn.RNN, {"dtype": "float64"}),
    "own cell": (lambda *args, **options: nn.Recurrent(OwnCell, *args, **options), {}),
}


class Exported:
    """A model exported and loaded by onnxruntime."""

    def __init__(self, model, path, example, **options):
        export_onnx(model, path, example, **options)
        self.proto = onnx.load(path)
        self.model, self.session = model, session(str(path))
        self.inputs = {x.name: x.shape for x in self.session.get_inputs()}
        self.outputs = {x.name: x.shape for x in self.session.get_outputs()}

    @property
    def ops(self):
        return [node.op_type for node in self.proto.graph.node]

    def check(self, *args):
        """See that it computes what the model in eval mode does."""
        feed = dict(zip(self.inputs, arrays(args), strict=True))
        given = self.session.run(None, feed)
        training = self.model.training
        expected = arrays(self.model.eval()(*args))
        self.model.train(training)
        assert len(given) == len(self.outputs)
        for a, b in zip(given, expected, strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def random_state(layer, batch):
    state = layer.initial_state(batch)
    return type(state)(*(tr.randn(*field.shape, dtype=field.dtype) for field in state))


@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (3, True)])
@pytest.mark.parametrize("name", EACH)
def test_recurrent_layers_for_every_length(name, layers, bidirectional, path):
    make, options = EACH[name]
    layer = shuffled(make(I, H, layers, bidirectional=bidirectional, **options))
    D, dtype = 2 if bidirectional else 1, options.get("dtype", "float32")
    x = lambda *shape: tr.randn(*shape, I, dtype=dtype)
    exported = Exported(layer, path, x(T, B))
    P = options.get("proj_size", H)
    assert exported.inputs == {"x": ["T", "B", I]}
    assert exported.outputs["y.0"] == ["T", "B", D * P]
    assert exported.outputs["y.1.h"] == [layers * D, "B", P]
    for shape in [(T, B), (9, 2), (1, 1), (2, 7)]:
        exported.check(x(*shape))
    loop = {"projected", "layer norm", "zoneout", "float64", "own cell"}
    kind = "Scan" if name in loop else type(layer).__name__
    assert exported.ops.count(kind) == layers * D

    exported = Exported(layer, path, (x(T, B), random_state(layer, B), tr.tensor([T, 1, 2])))
    assert list(exported.inputs)[:2] == ["x", "state.h"]
    exported.check(x(T, B), random_state(layer, B), tr.tensor([1, 0, T]))
    exported.check(x(8, 4), random_state(layer, 4), tr.tensor([8, 3, 0, 1]))
    exported = Exported(layer, path, (x(T, B), None, [1, 2, T]), axes={"x": ("T",)})  # lengths that stay the same
    assert exported.inputs == {"x": ["T", B, I]}
    exported.check(x(9, B), None, [1, 2, T])


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_char_rnn(cell, path):
    model = shuffled(CharRNN(11, cell, hidden=8, layers=2, dropout=0.5))
    ids = lambda *shape: tr.tensor(np.random.default_rng(0).integers(0, 11, shape))
    exported = Exported(model, path, ids(T, B))
    assert model.training
    assert all(module.training for _, module in model.named_modules())
    assert exported.inputs == {"x": ["T", "B"]}
    fields = ("h", "c") if cell == "lstm" else ("h",)
    states = {f"y.1.{field}": [2, "B", 8] for field in fields}
    assert exported.outputs == {"y.0": ["T", "B", 11]} | states
    assert exported.ops.count(cell.upper()) == 2
    for shape in [(T, B), (20, 1), (1, 5)]:
        exported.check(ids(*shape))

    exported = Exported(model, path, (ids(T, B), model.recurrent.initial_state(B)))  # for one character at a time
    assert exported.inputs == {"x": ["T", "B"]} | {f"state.{field}": [2, "B", 8] for field in fields}
    exported.check(ids(1, 4), random_state(model.recurrent, 4))


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_what_is_exported_can_be_read_again(kind, path):
    layer = shuffled(getattr(nn, kind)(I, H))
    proto = Exported(layer, path, tr.zeros(T, B, I)).proto
    (node,) = (node for node in proto.graph.node if node.op_type == kind)
    x = tr.randn(T, B, I)
    again = layer_from_onnx(node, proto.graph.initializer)
    assert type(again.layer) is type(layer)
    assert_close(again.layer(x), layer(x))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_permuted_gates_of_an_export_are_noticed(kind, path, monkeypatch):
    layer = shuffled(getattr(nn, kind)(I, H))
    monkeypatch.setitem(gates.ORDERS["onnx"], kind, gates.ORDERS["onnx"][kind][::-1])
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        Exported(layer, path, tr.zeros(T, B, I)).check(tr.randn(T, B, I))


class Forward(nn.Module):
    """A module that is one function."""

    def __init__(self, function):
        self.function, self.weight = function, nn.Parameter(tr.randn(I, I))

    def forward(self, x):
        return self.function(x)


def unrolled(x):
    h = x[0] * 0
    for t in tr.steps(len(x)):
        h = tr.tanh(h + x[t])
    return h


FUNCTIONS = {
    "arithmetic": lambda x: (1 - x) * 2 / (x * x + 1) + 2**x + x**3 - x / 3 + abs(-x),
    "functions": lambda x: tr.exp(tr.log(tr.sqrt(x * x + 1))) + tr.sigmoid(x) + tr.relu(x) + tr.gelu(x),
    "softmax": lambda x: (tr.softmax(x), tr.log_softmax(x, axis=0), tr.logsumexp(x, axis=(0, 2)), tr.logsumexp(x)),
    "softmax of nothing": lambda x: tr.softmax(
        tr.where(tr.broadcast_to(x[..., :1] > 0, x.shape), -tr.exp(x), float("-inf"))
    ),
    "comparisons": lambda x: ((x > 0) & ~(x >= 1)) | (x < -1) | (x <= -2) | (x == 0) | tr.isfinite(x) & (x != 3),
    "bounds": lambda x: tr.clip(x, -0.5, 0.5) + tr.clip(x, low=0.0) + tr.maximum(x, 0.3) + tr.minimum(0.1, x),
    "sums": lambda x: (x.sum(), x.mean(), x.mean(0), x.var((0, 1)), x.max(-1), x.min(1, keepdims=True), (x > 0).sum(0)),
    "argmax": lambda x: (x.argmax(), x.argmax(-1), x.argmax(0, keepdims=True)),
    "axes": lambda x: (x.T, x.swapaxes(0, 1), tr.expand_dims(x, 1), x[:1].squeeze(0), tr.flip(x), tr.flip(x, 0)),
    "shapes": lambda x: (x.reshape(-1, I), x.reshape(x.shape[0] * x.shape[1], I), x.reshape(*x.shape[:2], 2, 2)),
    "slices": lambda x: (x[0], x[-1], x[1:], x[:, :-1], x[::2, :, ::-1], x[..., 1], x[:, None, :, 1:3, None]),
    "gathers": lambda x: (x[:, :, [0, 2, 2]], x[[1, 0]], x[:, None, :, tr.tensor([[0, 1], [3, -1]])]),
    "joined": lambda x: (tr.concatenate([x, 2 * x], axis=0), tr.stack([x, x], axis=-1), tr.pad(x, (1, 2), 0.5)),
    "split": lambda x: (*tr.split(x, 2), *tr.split(x, [1, 2])),
    "products": lambda x: (x @ x.swapaxes(1, 2), x @ np.ones(I, "float32"), tr.ones(5, I) @ x.swapaxes(1, 2)),
    "casts": lambda x: (x.astype("float64").sum(0), (x * 9).astype("int32"), (x > 0).astype("float32").mean()),
    "made of lengths": lambda x: x + tr.zeros(*x.shape[1:]) + tr.arange(len(x)).reshape(-1, 1, 1) + tr.arange(I),
    "normalised": lambda x: tr.layer_norm(x, tr.ones(I), tr.zeros(I)),
    "itself": lambda x: (x, x, tr.ones(2)),
    "dict": lambda x: {"a": x + 1, "b": [x, (x * 2,)]},
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_for_every_length(name, path):
    exported = Exported(Forward(FUNCTIONS[name]), path, tr.randn(T, B, I))
    for shape in [(T, B), (9, 2), (4, 8)]:
        exported.check(tr.randn(*shape, I))
    assert exported.inputs == {"x": ["T", "B", I]}
    assert not [x.name for x in exported.proto.graph.initializer if x.name == "weight"]  # it is not read


def test_names_of_outputs(path):
    assert Exported(Forward(FUNCTIONS["dict"]), path, tr.randn(T, B, I)).outputs == {
        "y.a": ["T", "B", I],
        "y.b.0": ["T", "B", I],
        "y.b.1.0": ["T", "B", I],
    }
    assert Exported(Forward(lambda x: x[1:]), path, tr.randn(T, B, I)).outputs == {"y": [None, "B", I]}


class Y(nn.Module):
    def __init__(self):
        self.x, self.y_ = nn.Parameter([2.0]), nn.Parameter([3.0])

    def forward(self, y, x):
        return x * self.x + y * self.y_


def test_names_that_are_taken(path):
    exported = Exported(Y(), path, (tr.zeros(B, I), tr.zeros(B, I)), axes={"x": ("B",)})
    assert exported.outputs == {"y__": ["B", I]}
    exported.check(tr.randn(2, I), tr.randn(2, I))


def test_sequential(path):
    model = nn.Sequential(
        *(nn.Linear(I, 8), tr.tanh, nn.Dropout(0.5), nn.LayerNorm(8), tr.relu, nn.Linear(8, 3), tr.softmax)
    )
    exported = Exported(shuffled(model), path, draw(T, B, I))  # an array will do
    assert exported.outputs == {"y": ["T", "B", 3]}
    exported.check(tr.randn(2, 9, I))
    names = {x.name for x in exported.proto.graph.initializer}
    assert {"0.W", "0.b", "3.weight", "3.bias", "5.W", "5.b"} <= names
    exported = Exported(model, path, tr.zeros(B, I))
    assert exported.inputs == {"x": ["B", I]}
    exported.check(tr.randn(1, I))


class Translator(nn.Module):
    """Both directions of an encoder, attention with lengths, classes in and out."""

    def __init__(self, score):
        self.embedding, self.encoder = nn.Embedding(9, I), nn.LSTM(I, 4, bidirectional=True)
        self.query, self.attention = nn.Linear(I, 8), nn.Attention(8, score=score)
        self.output = nn.Linear(8, 9)

    def forward(self, x, words, lengths):
        encoded, _ = self.encoder(self.embedding(x), lengths=lengths)
        context, weights = self.attention(self.query(self.embedding(words)), encoded, lengths=lengths)
        return self.output(context).argmax(-1), weights, tr.one_hot(x, 9).mean((0, 1))


@pytest.mark.parametrize("score", ["additive", "dot"])
def test_attention(score, path):
    model, random = shuffled(Translator(score)), np.random.default_rng(0)
    ids = lambda *shape: tr.tensor(random.integers(0, 9, shape))
    axes = {"words": ("Tq", "B")}
    exported = Exported(model, path, (ids(T, B), ids(4, B), tr.tensor([T, 1, 2])), axes=axes)
    assert exported.inputs == {"x": ["T", "B"], "words": ["Tq", "B"], "lengths": ["B"]}
    assert exported.outputs == {"y.0": ["Tq", "B"], "y.1": ["Tq", "T", "B"], "y.2": [9]}
    exported.check(ids(9, 2), ids(7, 2), tr.tensor([9, 0]))
    exported.check(ids(1, 1), ids(1, 1), tr.tensor([1]))


def test_a_loop_of_ones_own_needs_a_fixed_length(path):
    loop = Forward(unrolled)
    with pytest.raises(InteropError, match=r"something else when T is 12 than when it is 6") as error:
        export_onnx(loop, path, tr.zeros(T, B, I))
    assert "axes={'x': (None, 'B')}" in str(error.value)
    assert not path.exists()
    exported = Exported(loop, path, tr.zeros(T, B, I), axes={"x": (None, "B")})
    assert exported.inputs == {"x": [T, "B", I]}
    exported.check(tr.randn(T, 7, I))


twice = tr.primitive("twice", forward=lambda xp, x: x + x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x[len(x) - 1], r"Forward computes with numbers that are neither .* length of T; .*x\[-1\] for x\[T"),
        (lambda x: x[: len(x) // 4], "neither constant nor a multiple of the length of T"),
        (
            lambda x: x.reshape(T * B // 2, 2, I),
            "with T=12, twice the example's, the model fails: .* fix the length at the",
        ),
        (
            lambda x: x + tr.randn(*x.shape),
            "does something else for other values: it draws random numbers, or it reads",
        ),
        (lambda x: x * float(x.sum()), "at Forward/constant_2 the model does something else for other values"),
        (lambda x: x if x.sum().item() == 0 else -x, r"it reads a tensor's values in Python\..* use tr\.where"),
        (lambda x: x[x > 0], r"an index in Forward picks with a mask.*Use tr\.where for a mask"),
        (lambda x: x[0, [0, 1]], "several arrays or ints at once"),
        (lambda x: tr.apply(twice, x), "'twice' in Forward has no ONNX node here; .*with operations that have: abs, a"),
        (
            lambda x: x + x[: T // 2].sum(0) * tr.ones(T, 1, 1),
            r"with T=12, twice the example's, the model fails: .*axes=\{'x': \(None, 'B'\)\}",
        ),
        (lambda x: x.shape, "forward returned tuple; expected a tensor, or several"),
    ],
)
def test_what_cannot_be_exported_is_told(function, message, path):
    with pytest.raises(InteropError, match=message):
        export_onnx(Forward(function), path, tr.zeros(T, B, I))
    assert not path.exists()


def test_wrong_arguments_are_told(path):
    layer = nn.LSTM(I, H)
    with pytest.raises(InteropError, match="the model is function; expected a Module"):
        export_onnx(tr.tanh, path, tr.zeros(1))
    with pytest.raises(InteropError, match=r"example_input is \[\[0\.0\]\]; expected a tensor or array, or several"):
        export_onnx(layer, path, [[0.0]])
    with pytest.raises(InteropError, match="example_input has 4 arguments for forward: too many"):
        export_onnx(layer, path, (tr.zeros(T, B, I), None, None, None))
    with pytest.raises(InteropError, match=r"axes are given for z; the inputs are x, state\.h, state\.c"):
        export_onnx(layer, path, (tr.zeros(T, B, I), layer.initial_state(B)), axes={"z": ("T",)})
    with pytest.raises(InteropError, match=r"axes \('T', 'B', 'I', 'J'\) for x, which is \(6, 3, 4\)"):
        export_onnx(layer, path, tr.zeros(T, B, I), axes={"x": ("T", "B", "I", "J")})
    with pytest.raises(InteropError, match=r"axis B has the lengths \[2, 3\]"):
        export_onnx(layer, path, (tr.zeros(T, B, I), layer.initial_state(2)))
    with pytest.raises(ShapeError, match="input_size is 4"):
        export_onnx(layer, path, tr.zeros(T, B, I + 1))
    with pytest.raises(tr.errors.CheckpointError, match="cannot write"):
        export_onnx(layer, path.parent / "none" / "m.onnx", tr.zeros(T, B, I))
    assert "forward" not in vars(layer)
    assert layer.training


class Mine(nn.LSTM):
    """A layer whose forward does something else."""

    def forward(self, x):
        return super().forward(x * 2)[0]


def test_a_layer_with_a_forward_of_its_own_is_written_step_by_step(path):
    exported = Exported(shuffled(Mine(I, H)), path, tr.zeros(T, B, I), axes={"x": (None, "B")})
    assert "LSTM" not in exported.ops
    exported.check(tr.randn(T, 5, I))
