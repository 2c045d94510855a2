"""Recurrent layers, written down as nodes that have the loop over time inside them.

Each cell of a layer becomes one RNN, LSTM or GRU node of one direction; and a cell that ONNX has no node for, such as
one of your own, a Scan node, whose body is the cell's step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tinyrnn import functions as F
from tinyrnn import nn
from tinyrnn.autograd import changed_mode, in_module
from tinyrnn.interop.onnx_layers import has_node, to_node
from tinyrnn.interop.onnx_trace import Body, Trace
from tinyrnn.nn.module import check_input
from tinyrnn.nn.recurrent import running
from tinyrnn.tensor import Tensor, tensor


@contextmanager
def layers_as_nodes(model: nn.Module, trace: Trace) -> Iterator[None]:
    """Have the recurrent layers of a model write one node for each cell inside the `with` block."""
    modules = [module for _, module in model.named_modules() if isinstance(module, nn.Recurrent)]
    layers = [layer for layer in modules if type(layer).forward is nn.Recurrent.forward]  # not one of your own
    for layer in layers:
        vars(layer)["forward"] = lambda *args, layer=layer, **kwargs: _layer(trace, layer, *args, **kwargs)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]  # and the class's is back


def _layer(trace: Trace, layer: nn.Recurrent, x: Tensor, state: Any = None, lengths: Any = None) -> Any:
    """Do what `Recurrent.forward` does in eval mode, cell by cell."""
    check_input(layer, x, ("T", "B", "I"), layer.input_size, "input_size")
    lengths = lengths if lengths is None or isinstance(lengths, Tensor) else tensor(lengths)
    before, after = layer._cell_states(x.shape[1], state), []
    for k in range(0, len(layer.cells), layer.directions):
        outputs = []
        for direction in range(layer.directions):
            cell = layer.cells[k + direction]
            with in_module(cell):
                zero = state is None and not hasattr(cell, "h_0")
                run = Unrolled(cell, x, before[k + direction], lengths, reverse=direction == 1)
                after.append(_cell_node(trace, run, zero) if has_node(cell) else _scan(trace, run))
            outputs.append(run.out)
        x = outputs[0] if len(outputs) == 1 else F.concatenate(outputs, axis=-1)
    return x, type(after[0])(*(F.stack(fields) for fields in zip(*after, strict=True)))


class Unrolled:
    """A cell that has been unrolled, with nobody listening: what it was given, and what came out."""

    def __init__(self, cell: nn.Cell, x: Tensor, state: Any, lengths: Tensor | None, reverse: bool) -> None:
        self.cell, self.x, self.state, self.lengths, self.reverse = cell, x, state, lengths, reverse
        with changed_mode(listener=None):
            self.out, self.final = nn.unroll(cell, cell.project(x), state, lengths, reverse)


def _cell_node(trace: Trace, run: Unrolled, zero: bool) -> Any:
    """Write an RNN, LSTM or GRU node, and return the final state.

    Args: zero, whether the initial state is 0: then it is left out.
    """
    op, weights, attributes = to_node(run.cell, run.reverse)
    names = {name: trace.constant(block, block.dtype.name, name) for name, block in weights.items()}
    lengths = "" if run.lengths is None else trace.node("Cast", trace.name(run.lengths), to="int32")
    first = trace.numbers(0)  # the axis of directions, of which the node has one
    before = [] if zero else [trace.node("Unsqueeze", trace.name(field), first) for field in run.state]
    inputs = [trace.name(run.x), names["W"], names["R"], names.get("B", ""), lengths, *before]
    if "P" in names:
        inputs += [""] * (7 - len(inputs)) + [names["P"]]
    Y, *finals = trace.node_with(1 + len(run.final), op, inputs, **attributes)
    trace.bind(run.out, trace.node("Squeeze", Y, trace.numbers(1)))  # (T, D, B, H)
    for field, name in zip(run.final, finals, strict=True):
        trace.bind(field, trace.node("Squeeze", name, first))  # (D, B, H)
    if zero or run.lengths is None:
        return run.final
    some = run.lengths.reshape(-1, 1) > 0  # onnxruntime forgets the initial state of a sequence of length 0
    return type(run.final)(*(F.where(some, new, old) for new, old in zip(run.final, run.state, strict=True)))


def _scan(trace: Trace, run: Unrolled) -> Any:
    """Write a Scan node, whose body does what `nn.unroll` does at each step, and return the final state."""
    z, cell = run.cell.project(run.x), run.cell.begin(run.x.shape[1])
    sequences = [z]
    if run.lengths is not None:
        sequences.append(F.expand_dims(running(type(cell).__name__, run.lengths, z), -1))
    with changed_mode(listener=None):
        state = type(run.state)(*map(_copy, run.state))
        z_t, *masks = [_copy(sequence[0]) for sequence in sequences]
    with trace.body() as nodes:
        inputs = [trace.input(x) for x in (*state, z_t, *masks)]
        new = cell.advance(z_t, state)
        out = new[0]
        for mask in masks:
            new = type(new)(*(F.where(mask, now, old) for now, old in zip(new, state, strict=True)))
            out = F.where(mask, out, 0.0)
        outputs = [(trace.node("Identity", trace.name(y)), y.dtype.value) for y in (*new, out)]
    *finals, outs = trace.node_with(
        len(outputs),
        "Scan",
        [*map(trace.name, run.state), *map(trace.name, sequences)],
        body=Body(inputs, nodes, outputs),
        num_scan_inputs=len(sequences),
        scan_input_directions=[int(run.reverse)] * len(sequences),
        scan_output_directions=[int(run.reverse)],
    )
    trace.bind(run.out, outs)
    for field, name in zip(run.final, finals, strict=True):
        trace.bind(field, name)
    return run.final


def _copy(x: Tensor) -> Tensor:
    return Tensor(x.backend.copy(x.array), x.backend)
