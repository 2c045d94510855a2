"""Weights from and to other libraries, as far as it can be tested without them."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file

import tinyrnn as tr
from tinyrnn import nn
from tinyrnn.errors import CheckpointError, DTypeError, InteropError, ShapeError, StateDictError
from tinyrnn.interop import export_onnx, from_torch, gates, layer_from_onnx, to_torch

KINDS = {
    "rnn": (nn.RNN, {}),
    "lstm": (nn.LSTM, {}),
    "lstm with a projection": (nn.LSTM, {"proj_size": 2}),
    "gru": (nn.GRU, {}),
}
each_layer = [pytest.param(*KINDS[name], id=name) for name in KINDS]


class Reader(nn.Module):
    """A module like a user's: a bit of everything, nested."""

    def __init__(self, **options):
        self.embedding = nn.Embedding(7, 3)
        self.encoder = nn.LSTM(3, 4, 2, bidirectional=True, **options)
        self.attention = nn.Attention(8, 8, 5)
        self.head = nn.Sequential(nn.LayerNorm(8), tr.relu, nn.Dropout(), nn.Linear(8, 7))
        self.cell = nn.GRUCell(3, 4)
        self.scale = nn.Parameter([1.0, 2.0], ("2",))


def shuffled(module):
    """Give every parameter random values, biases and scales too."""
    for p in module.parameters():
        p.assign(tr.randn(*p.shape, dtype=p.dtype) * 0.5)
    return module


def values(module):
    return {name: p.numpy().copy() for name, p in module.state_dict().items()}


def assert_same(a, b):
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name, strict=True)


# ---------------------------------------------------------------- gate orders


def test_our_orders_are_those_of_our_cells():
    for cell, kind in gates.KINDS.items():
        assert gates.ORDERS["tinyrnn"][kind] == cell.gates
    for kinds in gates.ORDERS.values():
        assert {kind: set(order) for kind, order in kinds.items()} == {
            kind: set(order) for kind, order in gates.ORDERS["tinyrnn"].items()
        }


@pytest.mark.parametrize(
    ("kind", "library", "expected"),
    [
        ("LSTM", "pytorch", "ifgo"),
        ("LSTM", "keras", "ifgo"),
        ("LSTM", "onnx", "iofg"),
        ("GRU", "pytorch", "rzn"),
        ("GRU", "keras", "zrn"),
        ("GRU", "onnx", "zrn"),
        ("RNN", "onnx", "h"),
    ],
)
def test_reorder(kind, library, expected):
    ours = np.repeat(np.array(gates.ORDERS["tinyrnn"][kind]), 2)  # blocks of two
    theirs = gates.reorder(ours, kind, "tinyrnn", library)
    assert "".join(theirs[::2]) == "".join(theirs[1::2]) == expected
    assert_same({"": gates.reorder(theirs, kind, library, "tinyrnn")}, {"": ours})


def test_reorder_refuses_what_it_cannot_know():
    with pytest.raises(ShapeError, match=r"axis 0 of \(6, 2\) has length 6; expected a multiple of 4, for the gates i"):
        gates.reorder(np.zeros((6, 2)), "LSTM", "onnx", "tinyrnn", axis=0)
    with pytest.raises(ValueError, match=r"no order for 'LSTM' of 'jax'; expected .* tinyrnn, pytorch, keras, onnx"):
        gates.reorder(np.zeros(4), "LSTM", "jax", "tinyrnn")
    with pytest.raises(ValueError, match="no order for 'lstm' of 'onnx'"):
        gates.reorder(np.zeros(4), "lstm", "onnx", "tinyrnn")


# ---------------------------------------------------------------- PyTorch's names


@pytest.mark.parametrize(("make", "options"), each_layer)
@pytest.mark.parametrize(
    ("layers", "bidirectional", "bias"), [*itertools.product([1, 3], [False, True], [False, True])]
)
def test_a_round_trip_is_exact(make, options, layers, bidirectional, bias, backend):
    options = options | {"num_layers": layers, "bidirectional": bidirectional, "bias": bias}
    module = shuffled(make(3, 4, **options))
    state = to_torch(module)
    other = shuffled(make(3, 4, **options))
    assert from_torch(other, state) is other
    assert_same(values(other), values(module))
    assert_same(to_torch(other), state)
    assert {p.backend for p in other.parameters()} == {backend}


def test_names_and_shapes_are_pytorchs():
    state = to_torch(nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2))
    assert list(state)[:10] == [
        *("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_hr_l0"),
        *(f"{name}_l0_reverse" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")),
    ]
    assert len(state) == 20
    assert state["weight_ih_l0"].shape == (16, 3)
    assert state["weight_ih_l1"].shape == (16, 4)  # two directions of P=2
    assert state["weight_hh_l1_reverse"].shape == (16, 2)
    assert state["weight_hr_l1"].shape == (2, 4)
    assert to_torch(nn.Linear(3, 4))["weight"].shape == (4, 3)
    assert list(to_torch(nn.LSTMCell(3, 4))) == ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    assert list(to_torch(nn.LayerNorm(3))) == ["weight", "bias"]
    assert {name: x.shape for name, x in to_torch(nn.Conv1d(3, 4, width=2)).items()} == {
        "weight": (4, 3, 2),
        "bias": (4,),
    }
    assert {name: x.shape for name, x in to_torch(nn.MultiHeadAttention(6, heads=2)).items()} == {
        "in_proj_weight": (18, 6),
        "out_proj.weight": (6, 6),
    }


@pytest.mark.parametrize(
    "make", [lambda: nn.Conv1d(3, 4, width=2), lambda: nn.TCN(3, 4), lambda: nn.MultiHeadAttention(6, 2)]
)
def test_a_round_trip_of_other_layers_is_exact(make, backend):
    module = shuffled(make())
    assert_same(values(from_torch(shuffled(make()), to_torch(module))), values(module))


def test_modules_of_modules(backend):
    reader = shuffled(Reader())
    state = to_torch(reader)
    shapes = {name: x.shape for name, x in state.items() if not name.startswith("encoder")}
    assert shapes == {
        "scale": (2,),
        "embedding.weight": (7, 3),
        "attention.W_q.weight": (5, 8),
        "attention.W_k.weight": (5, 8),
        "attention.v.weight": (1, 5),
        "head.0.weight": (8,),
        "head.0.bias": (8,),
        "head.3.weight": (7, 8),
        "head.3.bias": (7,),
        "cell.weight_ih": (12, 3),
        "cell.weight_hh": (12, 4),
        "cell.bias_ih": (12,),
        "cell.bias_hh": (12,),
    }
    assert "encoder.weight_ih_l1_reverse" in state
    assert_same(values(from_torch(shuffled(Reader()), state)), values(reader))


def test_what_is_returned_is_a_copy():
    layer = nn.Linear(2, 2)
    before = values(layer)
    to_torch(layer)["weight"][:] = 7
    assert_same(values(layer), before)


def test_two_biases_become_one():
    state = {name: np.random.default_rng(0).normal(size=x.shape) for name, x in to_torch(nn.GRU(2, 3)).items()}
    cell = from_torch(nn.GRU(2, 3, dtype="float64"), state).cells[0]
    b_W, b_R = state["bias_ih_l0"], state["bias_hh_l0"]
    np.testing.assert_array_equal(cell.b.numpy(), np.concatenate([(b_W + b_R)[:6], b_W[6:]]))
    np.testing.assert_array_equal(cell.b_hn.numpy(), b_R[6:])
    lstm = from_torch(nn.LSTM(2, 3), {name: np.ones(x.shape) for name, x in to_torch(nn.LSTM(2, 3)).items()})
    assert (lstm.cells[0].b.numpy() == 2).all()


def test_safetensors(tmp_path):
    reader, path = shuffled(Reader()), tmp_path / "reader.safetensors"
    state = to_torch(reader, path)
    assert_same({name: load_file(path)[name] for name in state}, state)
    assert_same(values(from_torch(shuffled(Reader()), path)), values(reader))
    assert_same(values(from_torch(shuffled(Reader()), str(path))), values(reader))


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 a pickle in a zip, as torch.save makes it"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "weights.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot read .*weights\.pt as safetensors: .*give its state_dict\(\)"):
        from_torch(nn.Linear(1, 1), path)


class FakeTensor:
    """What a PyTorch tensor looks like from outside."""

    dtype = "torch.bfloat16"
    steps: tuple[str, ...] = ()

    def __init__(self, x):
        self.x = x

    def detach(self):
        self.steps += ("detach",)
        return self

    def cpu(self):
        self.steps += ("cpu",)
        return self

    def numpy(self):
        assert self.steps == ("detach", "cpu")
        if self.x is None:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.x


def test_tensors_of_any_kind():
    state = to_torch(shuffled(nn.Linear(2, 3)))
    for wrap in (FakeTensor, tr.tensor, lambda x: x.tolist()):
        layer = from_torch(nn.Linear(2, 3), {name: wrap(x) for name, x in state.items()})
        assert_same(to_torch(layer), state)
    with pytest.raises(DTypeError, match=r"weight is torch\.bfloat16: Got unsupported .*; convert it first: x\.float"):
        from_torch(nn.Linear(2, 3), {"weight": FakeTensor(None), "bias": np.zeros(3)})


def test_what_does_not_fit_is_refused_and_changes_nothing():
    layer = nn.LSTM(2, 3)
    before, state = values(layer), to_torch(shuffled(nn.LSTM(2, 3)))
    state["weight_hh_l1"] = state.pop("weight_hh_l0")
    state["bias_hh_l0"] = np.zeros(3)
    with pytest.raises(StateDictError) as error:
        from_torch(layer, state)
    assert str(error.value) == (
        "from_torch into LSTM: unknown: weight_hh_l1; missing: weight_hh_l0 (12, 3); "
        "misshaped: bias_hh_l0 is (3,), expected (12,); make the module with the sizes and options of the one there"
    )
    assert_same(values(layer), before)
    with pytest.raises(StateDictError, match="from_torch into LSTM: no floats: bias_hh_l0 is <U1"):
        from_torch(layer, to_torch(nn.LSTM(2, 3)) | {"bias_hh_l0": np.full(12, "a")})
    assert_same(values(layer), before)


class OwnCell(nn.Cell):
    gates = ("h",)

    def step(self, z, state):
        return nn.RNNState(tr.tanh(z + self.recur(state.h)))


@pytest.mark.parametrize(
    ("module", "what"),
    [
        (nn.LSTM(2, 3, peephole=True), "LSTMCell has p_f, p_i, p_o; PyTorch's recurrent layers have nothing like it"),
        (nn.LSTM(2, 3, layer_norm=True), "norm_c.bias, norm_c.weight, norm_h.weight, norm_x.weight"),
        (nn.LSTM(2, 3, learn_initial_state=True), "c_0, h_0"),
        (nn.RNN(2, 3, zoneout=0.1), "RNNCell has zoneout"),
        (nn.GRU(2, 3, reset_after=False), "GRUCell has reset_after=False"),
        (nn.Recurrent(OwnCell, 2, 3), "OwnCell has a step of its own"),
        (nn.Sequential(nn.LSTMCell(2, 3, peephole=True)), "LSTMCell has p_f"),
        (nn.Transformer(4, heads=2, context=8), "MultiHeadAttention has rotary=True; PyTorch's MultiheadAttention has"),
    ],
)
def test_layers_that_pytorch_does_not_have_are_refused(module, what):
    with pytest.raises(InteropError, match=r"checkpoint\.save\(path, module\.state_dict\(\)\)") as error:
        to_torch(module)
    assert what in str(error.value)
    with pytest.raises(InteropError, match="nothing like it"):
        from_torch(module, {})


def test_what_acts_in_training_alone_does_not_matter():
    module = nn.LSTM(2, 3, 2, recurrent_dropout=0.1, weight_drop=0.1, dropout=0.1)
    assert_same(values(from_torch(nn.LSTM(2, 3, 2), to_torch(module))), values(module))


# ---------------------------------------------------------------- ONNX, where it is not installed


class NodeProto(NamedTuple):
    op_type: str = "LSTM"


def test_onnx_is_imported_only_where_used(monkeypatch, tmp_path):
    heavy = "onnx onnxruntime torch safetensors"
    command = f"import sys, tinyrnn.interop; print(*set({heavy.split()}) & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []

    monkeypatch.setitem(sys.modules, "onnx", None)  # as if it were not installed
    advice = r"the package onnx is not installed: pip install 'tinyrnn\[onnx\]'"
    with pytest.raises(InteropError, match=advice):
        export_onnx(nn.Linear(1, 1), tmp_path / "model.onnx", tr.zeros(1, 1))
    with pytest.raises(InteropError, match=advice):
        layer_from_onnx(NodeProto(), {})
    assert not list(tmp_path.iterdir())
