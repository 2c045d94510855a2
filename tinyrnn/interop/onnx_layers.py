"""A cell as ONNX's RNN, LSTM or GRU node, and such a node as layers of ours.

ONNX keeps a node's weights direction by direction: W (D, nH, I), R (D, nH, H), B (D, 2nH), two biases end to end, and
an LSTM's peepholes P (D, 3H). Sequences are (T, B, I), with layout=1 (B, T, I).

Source: the ONNX operators RNN-14, LSTM-14 and GRU-14, https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tinyrnn import functions as F
from tinyrnn import nn
from tinyrnn.errors import InteropError
from tinyrnn.interop.gates import KINDS, ORDERS, PEEPHOLES, Array, from_rows, to_rows
from tinyrnn.tensor import Tensor, tensor

# ---------------------------------------------------------------- a cell as a node

PARAMETERS = {"W_x", "W_h", "b", "b_hn", "p_i", "p_f", "p_o", "h_0", "c_0"}  # what such a node has room for


def has_node(cell: nn.Cell) -> bool:
    """Tell whether onnxruntime has a node for a cell: float32, and none of the options that ONNX does not know."""
    parameters = {name for name, _ in cell.named_parameters()}
    return type(cell) in KINDS and parameters <= PARAMETERS and not cell.zoneout and cell.W_x.dtype == "float32"


def to_node(cell: nn.Cell, reverse: bool) -> tuple[str, dict[str, Array], dict[str, Any]]:
    """Return a cell as a node of one direction: its type, weights W, R, B and P by name, and attributes."""
    rows = to_rows(cell, "onnx")
    weights = {"W": rows["W"], "R": rows["R"]}
    if "b_W" in rows:
        weights["B"] = np.concatenate([rows["b_W"], rows["b_R"]])
    attributes: dict[str, Any] = {"hidden_size": cell.hidden_size, "direction": "reverse" if reverse else "forward"}
    if isinstance(cell, nn.RNNCell):
        attributes["activations"] = [cell.nonlinearity.capitalize()]
    if isinstance(cell, nn.GRUCell):
        attributes["linear_before_reset"] = int(cell.reset_after)
    if isinstance(cell, nn.LSTMCell) and cell.p_i is not None:
        peepholes = [getattr(cell, f"p_{gate}") for gate in PEEPHOLES["onnx"]]
        weights["P"] = np.concatenate([p.detach().numpy() for p in peepholes])
    return KINDS[type(cell)], {name: block[None] for name, block in weights.items()}, attributes


# ---------------------------------------------------------------- a node as a layer

LAYERS: dict[str, type[nn.Recurrent]] = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")  # the last two an LSTM's alone
WEIGHTS, DEFAULTS = ("W", "R", "B", "P"), ("sequence_lens", "initial_h", "initial_c")
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}  # run backwards?
ACTIVATIONS = {"RNN": [["Tanh"], ["Relu"]], "LSTM": [["Sigmoid", "Tanh", "Tanh"]], "GRU": [["Sigmoid", "Tanh"]]}


def layer_from_onnx(node: Any, initializers: Mapping[str, Any] | Iterable[Any]) -> OnnxLayer:
    """Make a layer of an ONNX node, with its weights.

    Args:
        node: a NodeProto of type RNN, LSTM or GRU, out of model.graph.node.
        initializers: the constants of its graph: model.graph.initializer, or names to arrays.

    Returns: a module that is called as the node is (see OnnxLayer), and whose `.layer` is an nn.RNN, nn.LSTM or nn.GRU.
    Raises: InteropError for a node of another type; activations, a clip or coupled gates, which our cells do not have;
        a weight that is not among the initializers, or whose shape does not fit.

    >>> from tinyrnn.interop import layer_from_onnx
    >>> def lstms(path):
    ...     import onnx
    ...     graph = onnx.load(path).graph
    ...     found = [node for node in graph.node if node.op_type == "LSTM"]
    ...     return [layer_from_onnx(node, graph.initializer) for node in found]
    >>> lstms("model.onnx")[0].layer.hidden_size  # doctest: +SKIP
    4
    """
    if node.op_type not in LAYERS:
        raise InteropError(f"layer_from_onnx: the node is a {node.op_type!r}; expected {', '.join(LAYERS)}")
    constants = _constants(initializers)
    attributes = _attributes(node)
    inputs = {name: given for name, given in zip(INPUTS, node.input, strict=False) if given}
    weights = {name: _weight(node, name, inputs[name], constants) for name in WEIGHTS if name in inputs}
    defaults = {name: tensor(constants[inputs[name]]) for name in DEFAULTS if inputs.get(name) in constants}
    layer = _layer(node.op_type, weights, attributes)
    return OnnxLayer(layer, attributes["direction"], attributes["layout"], defaults)


class OnnxLayer(nn.Module):
    """A layer that is called as an ONNX node is.

    Args:
        layer: an nn.RNN, nn.LSTM or nn.GRU, to be used by itself if one likes; for the direction "reverse", which our
            layers do not have alone, on a flipped input.
        direction: "forward", "reverse" or "bidirectional".
        layout: 0, or 1 for sequences with B as their first axis.
        defaults: sequence_lens, initial_h and initial_c, as far as the node's graph holds them.

    Shapes: X (T, B, I); sequence_lens (B,); initial_h, initial_c (D, B, H). Returns Y (T, D, B, H), Y_h (D, B, H), and
        for an LSTM Y_c (D, B, H). With layout=1 B is the first axis of each.

    >>> import tinyrnn as tr
    >>> from tinyrnn.interop import OnnxLayer
    >>> layer = OnnxLayer(tr.nn.GRU(3, 4), direction="forward", layout=0, defaults={})
    >>> Y, Y_h = layer(tr.zeros(5, 2, 3))
    >>> Y.shape, Y_h.shape
    ((5, 1, 2, 4), (1, 2, 4))
    """

    def __init__(self, layer: nn.Recurrent, direction: str, layout: int, defaults: dict[str, Tensor]) -> None:
        self.layer, self.direction, self.layout, self.defaults = layer, direction, layout, defaults

    def forward(self, X: Any, sequence_lens: Any = None, initial_h: Any = None, initial_c: Any = None) -> Any:
        """Return Y, Y_h, and for an LSTM Y_c."""
        given = {"sequence_lens": sequence_lens, "initial_h": initial_h, "initial_c": initial_c}
        given = self.defaults | {name: _tensor(x) for name, x in given.items() if x is not None}
        lengths = given.pop("sequence_lens", None)
        x, batch_first = _tensor(X), self.layout == 1
        if batch_first:
            x, given = x.swapaxes(0, 1), {name: field.swapaxes(0, 1) for name, field in given.items()}
        outs, finals = [], []
        for d, (cell, reverse) in enumerate(zip(self.layer.cells, DIRECTIONS[self.direction], strict=True)):
            state = cell.initial_state(x.shape[1])
            state = state._replace(**{name.removeprefix("initial_"): field[d] for name, field in given.items()})
            out, final = nn.unroll(cell, cell.project(x), state, lengths, reverse)
            outs.append(out)
            finals.append(final)
        Y, fields = F.stack(outs, axis=1), [F.stack(parts) for parts in zip(*finals, strict=True)]
        if batch_first:
            Y, fields = Y.transpose(2, 0, 1, 3), [field.swapaxes(0, 1) for field in fields]
        return Y, *fields

    def describe(self) -> str:
        """State the direction and the layout."""
        return f"{self.direction}, layout={self.layout}"


def _layer(kind: str, weights: dict[str, Array], attributes: dict[str, Any]) -> nn.Recurrent:
    """Make a layer and fill its cells."""
    W, R = weights["W"], weights["R"]
    D, n, I, H = len(DIRECTIONS[attributes["direction"]]), len(ORDERS["onnx"][kind]), W.shape[-1], R.shape[-1]
    expected = {"W": (D, n * H, I), "R": (D, n * H, H), "B": (D, 2 * n * H), "P": (D, len(PEEPHOLES["onnx"]) * H)}
    for name, block in weights.items():
        if block.shape != expected[name]:
            raise InteropError(f"layer_from_onnx: {name} of the {kind} is {block.shape}; expected {expected[name]}")
    if attributes["hidden_size"] not in (None, H):
        raise InteropError(f"layer_from_onnx: hidden_size is {attributes['hidden_size']} and R {R.shape}; expected {H}")
    options: dict[str, Any] = {"bias": "B" in weights, "bidirectional": D == 2, "dtype": W.dtype.name}
    if kind == "RNN":
        options["nonlinearity"] = attributes["activations"][0].lower()
    if kind == "GRU":
        options["reset_after"] = bool(attributes["linear_before_reset"])
    if kind == "LSTM":
        options["peephole"] = "P" in weights
    layer = LAYERS[kind](I, H, **options)
    for d, cell in enumerate(layer.cells):
        for name, values in _parameters(cell, {name: block[d] for name, block in weights.items()}).items():
            getattr(cell, name).assign(tensor(values))
    return layer


def _parameters(cell: nn.Cell, weights: dict[str, Array]) -> dict[str, Array]:
    """Return the parameters of a cell, given the weights of one direction of a node: the inverse of `to_node`."""
    rows = {"W": weights["W"], "R": weights["R"]}
    if "B" in weights:
        rows["b_W"], rows["b_R"] = np.split(weights["B"], 2)
    blocks = np.split(weights["P"], len(PEEPHOLES["onnx"])) if "P" in weights else []
    return from_rows(cell, "onnx", rows) | {f"p_{gate}": p for gate, p in zip(PEEPHOLES["onnx"], blocks, strict=False)}


# ---------------------------------------------------------------- reading protocol buffers


def import_onnx() -> Any:
    """Return the package onnx.

    Raises: InteropError that says how to install it.
    """
    try:
        import onnx
    except ImportError as error:
        raise InteropError("the package onnx is not installed: pip install 'tinyrnn[onnx]'") from error
    return onnx


def _constants(initializers: Mapping[str, Any] | Iterable[Any]) -> dict[str, Any]:
    """Return names to arrays, given such or TensorProtos."""
    if isinstance(initializers, Mapping):
        return dict(initializers)
    protos: Iterable[Any] = initializers
    to_array = import_onnx().numpy_helper.to_array
    return {proto.name: to_array(proto) for proto in protos}


def _weight(node: Any, name: str, given: str, constants: dict[str, Any]) -> Array:
    """Return a weight that must be there when the layer is made."""
    if given not in constants:
        raise InteropError(
            f"layer_from_onnx: {name} of the {node.op_type} is {given!r}, which is not among the initializers "
            f"({', '.join(constants) or 'none'}); give its values there"
        )
    return np.asarray(constants[given])


def _attributes(node: Any) -> dict[str, Any]:
    """Return a node's attributes, with their defaults, having seen that our cells can do what they ask for."""
    kind, value = node.op_type, import_onnx().helper.get_attribute_value
    found: dict[str, Any] = {"direction": b"forward", "hidden_size": None, "layout": 0, "linear_before_reset": 0}
    found |= {attribute.name: value(attribute) for attribute in node.attribute}
    found["direction"] = found["direction"].decode()
    directions, possible = DIRECTIONS[found["direction"]], ACTIVATIONS[kind]
    activations = [name.decode().capitalize() for name in found.get("activations", [])]
    found["activations"] = activations or possible[0] * len(directions)
    if found["activations"] not in [names * len(directions) for names in possible]:
        raise InteropError(
            f"layer_from_onnx: the {kind} has the activations {', '.join(activations)}; expected "
            f"{' or '.join(', '.join(names) for names in possible)} in each direction: write a cell of your own"
        )
    for name in ("clip", "input_forget"):
        if found.get(name):
            raise InteropError(
                f"layer_from_onnx: the {kind} has {name}={found[name]}, which our cells do not have: write one of your "
                "own"
            )
    return found


def _tensor(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else tensor(x)
