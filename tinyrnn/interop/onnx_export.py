"""A model as an ONNX file.

The model is run on an example and what happens is written down (onnx_trace.py). Does that hold for other inputs too? So
it is run again: once with other values, where all must be the same; and once for each axis that may have another
length, twice as long there. What is the same holds for every length, and a number that doubled, such as the T·B of a
reshape, is computed from the length when the file is run (onnx_write.py). Anything else is refused.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tinyrnn import checkpoint, nn
from tinyrnn import functions as F
from tinyrnn.autograd import changed_mode
from tinyrnn.errors import InteropError, TinyRNNError
from tinyrnn.interop.onnx_layers import import_onnx
from tinyrnn.interop.onnx_recurrent import layers_as_nodes
from tinyrnn.interop.onnx_trace import Node, Trace
from tinyrnn.interop.onnx_write import Axis, Run, Writer, same
from tinyrnn.tensor import Tensor, tensor


def export_onnx(
    model: nn.Module,
    path: str | Path,
    example_input: Any,
    axes: Mapping[str, Sequence[str | None]] | None = None,
) -> None:
    """Write a model in eval mode as an ONNX file, which onnxruntime and others run.

    Layers, functions of `tr.` and whatever a `forward` of your own does with them are written as operations; each cell
    of a recurrent layer as one RNN, LSTM or GRU node. A cell that ONNX has none for (of your own, with layer_norm,
    proj_size or zoneout, or of float64) becomes a Scan node, which runs its step once for each t. A loop of your own
    over time is written step by step, as many as the example has, so that T must be fixed (see axes). What Python
    reads from a tensor of integers, as `if x[0, 0].item() == 3` does, is written as it went with the example; with
    floats that is noticed and refused.

    Args:
        model: any Module.
        path: the file, conventionally *.onnx.
        example_input: what the model is called with: a tensor or array, or a tuple of several arguments, which may be
            states (tuples of tensors). Only its shapes and dtypes matter.
        axes: for each input by name, names of those axes that may have another length than the example's; axes of one
            name have one length. By default ("T", "B") or ("B",) for all but the last axis, or for integers all, of
            the first argument, and (None, "B", None) for a state. {"x": (None, "B")} fixes T.

    The file's inputs have the names of forward's arguments, "x" and, for a state, "state.h"; its outputs are "y", or
    "y.0" and, for a state, "y.1.h" where forward returns several.

    Raises: InteropError that names the operation or axis that cannot be written, and what to do; or if the package onnx
        is missing. CheckpointError if the file cannot be written.

    >>> import tinyrnn as tr
    >>> from tinyrnn.interop import export_onnx
    >>> model = tr.nn.Sequential(tr.nn.Linear(3, 4), tr.tanh)
    >>> x = tr.zeros(5, 2, 3)
    >>> model(x).shape
    (5, 2, 4)
    >>> export_onnx(model, "model.onnx", x)  # doctest: +SKIP
    >>> import onnxruntime  # doctest: +SKIP
    >>> session = onnxruntime.InferenceSession("model.onnx")  # doctest: +SKIP
    >>> session.run(["y"], {"x": tr.zeros(7, 1, 3).numpy()})[0].shape  # doctest: +SKIP
    (7, 1, 4)
    """
    onnx = import_onnx()
    if not isinstance(model, nn.Module):
        raise InteropError(f"export_onnx: the model is {type(model).__name__}; expected a Module: nn.Sequential(...)")
    call = _call(model, example_input)
    free = _free_axes(_tensors(call.arguments), axes or {})
    run = _run(model, call)
    _check_values(run, _run(model, _changed(call, _other_values)))
    longer = {axis: _run_longer(model, call, run, axis, free) for axis in free}
    proto = Writer(onnx, run, longer).model(type(model).__name__)
    onnx.checker.check_model(proto, full_check=True)
    checkpoint.replace_file(Path(path).resolve(), proto.SerializeToString())


# ---------------------------------------------------------------- the example, and others like it


def _call(model: nn.Module, example_input: Any) -> inspect.BoundArguments:
    """Return the call that the example stands for, with tensors where it has arrays."""
    arguments = example_input if type(example_input) is tuple else (example_input,)
    try:
        call = inspect.signature(model.forward).bind(*arguments)
    except TypeError as error:
        raise InteropError(
            f"export_onnx: example_input has {len(arguments)} arguments for forward: {error}; give a tuple of as many "
            "as the model is called with"
        ) from None
    call = _changed(call, lambda _, x: x if isinstance(x, Tensor) else tensor(x))
    if not _tensors(call.arguments):
        raise InteropError(f"export_onnx: example_input is {example_input!r}; expected a tensor or array, or several")
    return call


def _changed(call: inspect.BoundArguments, change: Callable[[str, Any], Any]) -> inspect.BoundArguments:
    """Return a call with change(name, x) in place of each tensor x."""
    changed = inspect.BoundArguments(call.signature, dict(call.arguments))
    changed.arguments.update({name: _mapped(value, name, change) for name, value in call.arguments.items()})
    return changed


def _mapped(value: Any, name: str, change: Callable[[str, Any], Any]) -> Any:
    """Return tuples, lists and dicts as they are, with change(name, x) in place of each tensor or array x."""
    if isinstance(value, Tensor | np.ndarray):
        return change(name, value)
    if isinstance(value, dict):
        return {key: _mapped(part, f"{name}.{key}", change) for key, part in value.items()}
    if not isinstance(value, tuple | list):
        return value
    fields = getattr(value, "_fields", range(len(value)))
    parts = [_mapped(part, f"{name}.{field}", change) for field, part in zip(fields, value, strict=True)]
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)


def _tensors(values: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors in (nested) tuples, lists and dicts by their full names."""
    found: dict[str, Tensor] = {}
    for name, value in values.items():
        _mapped(value, name, found.__setitem__)
    return found


def _free_axes(inputs: dict[str, Tensor], axes: Mapping[str, Sequence[str | None]]) -> list[Axis]:
    """Return the axes of which the length may differ."""
    if unknown := set(axes) - set(inputs):
        raise InteropError(f"export_onnx: axes are given for {', '.join(unknown)}; the inputs are {', '.join(inputs)}")
    places: dict[str, list[tuple[str, int]]] = {}
    for name, x in inputs.items():
        first = name.partition(".")[0] == next(iter(inputs)).partition(".")[0]
        names = axes.get(name, _conventional(x, first))
        if len(names) > x.ndim:
            raise InteropError(f"export_onnx: axes {tuple(names)} for {name}, which is {x.shape}; expected a name each")
        for k, axis in enumerate(names):
            if axis is not None:
                places.setdefault(axis, []).append((name, k))
    lengths = {axis: {inputs[name].shape[k] for name, k in where} for axis, where in places.items()}
    for axis, found in lengths.items():
        if len(found) > 1:
            raise InteropError(
                f"export_onnx: axis {axis} has the lengths {sorted(found)} in {places[axis]}; expected one: see axes="
            )
    return [Axis(axis, lengths[axis].pop(), tuple(where)) for axis, where in places.items()]


def _conventional(x: Tensor, first: bool) -> tuple[str | None, ...]:
    """Name the axes of an input as tinyrnn has them: (T, B, I), class numbers (T, B), states (L·D, B, H), lengths (B,).

    Args: first, whether it is the first argument.
    """
    leading = x.ndim - x.dtype.is_floating
    if first:
        return {1: ("B",), 2: ("T", "B")}.get(leading, ())
    return {(1, False): ("B",), (3, True): (None, "B")}.get((x.ndim, x.dtype.is_floating), ())


def _other_values(_: str, x: Tensor) -> Tensor:
    """Return an input like x: other floats, and the same integers, which may be class numbers, in another order."""
    return x * 0.75 + 0.125 if x.dtype.is_floating else F.flip(x)


def _doubled(call: inspect.BoundArguments, axis: Axis) -> inspect.BoundArguments:
    """Return the call with the axis twice as long: all that stands there, twice."""

    def change(name: str, x: Tensor) -> Tensor:
        for k in (k for place, k in axis.places if place == name):
            x = F.concatenate([x, x], axis=k)
        return x

    return _changed(call, change)


# ---------------------------------------------------------------- running the model


def _run(model: nn.Module, call: inspect.BoundArguments) -> Run:
    """Run the model and write down what happens."""
    inputs = _tensors(call.arguments)
    trace = Trace(inputs, dict(model.named_parameters()))
    with _eval_mode(model), layers_as_nodes(model, trace), changed_mode(grad=False, listener=trace):
        result = model(*call.args, **call.kwargs)
    root = "y"
    while root in call.arguments or hasattr(model, root):
        root += "_"  # a name that is still free
    outputs = _tensors({root: result})
    if not outputs:
        raise InteropError(f"export_onnx: forward returned {type(result).__name__}; expected a tensor, or several")
    for name, y in outputs.items():
        trace.nodes.append(Node("Identity", (trace.name(y),), (name,), {}, name))
    nodes = _needed(trace.nodes, set(outputs))
    read = _read(nodes)
    return Run(inputs, outputs, nodes, {name: value for name, value in trace.constants.items() if name in read})


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    before = [(module, module.training) for _, module in model.named_modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def _needed(nodes: list[Node], wanted: set[str]) -> list[Node]:
    """Return the nodes that lead to the wanted names."""
    kept: list[Node] = []
    for node in reversed(nodes):
        if wanted & set(node.outputs):
            body = node.attributes.get("body")
            if body:
                body = body._replace(nodes=_needed(body.nodes, {name for name, _ in body.outputs}))
                node = node._replace(attributes=node.attributes | {"body": body})
            wanted |= _read([node])
            kept.append(node)
    return kept[::-1]


def _read(nodes: list[Node]) -> set[str]:
    """Return the names that nodes, and the bodies inside them, read."""
    bodies = [node.attributes["body"] for node in nodes if "body" in node.attributes]
    return {name for node in nodes for name in node.inputs}.union(*(_read(body.nodes) for body in bodies))


def _check_values(run: Run, other: Run) -> None:
    """See that a run with other values was the same."""
    changed = (name for name, x in run.constants.items() if not same(x, other.constants.get(name)))
    where = _first_difference(run, other) or next(changed, None)
    if where:
        raise InteropError(
            f"export_onnx: at {where} the model does something else for other values: it draws random numbers, or it "
            "reads a tensor's values in Python. That cannot be written; to decide by values, use tr.where"
        )


def _run_longer(model: nn.Module, call: inspect.BoundArguments, run: Run, axis: Axis, free: list[Axis]) -> Run:
    """Run the model with one axis twice as long, and see that it did the same as in `run`."""
    advice = f"the length at the example's: axes={_fixed(axis, free)}"
    try:
        other = _run(model, _doubled(call, axis))
    except TinyRNNError as error:
        raise InteropError(
            f"export_onnx: with {axis.name}={2 * axis.length}, twice the example's, the model fails: {error}. If it "
            f"must, fix {advice}"
        ) from error
    where = _first_difference(run, other)
    if where:
        raise InteropError(
            f"export_onnx: at {where} the model does something else when {axis.name} is {2 * axis.length} than when it "
            f"is {axis.length}: a loop of your own over time does so, since each step is written by itself. Fix "
            f"{advice}; or make the loop an nn.Recurrent of a cell"
        )
    return other


def _first_difference(run: Run, other: Run) -> str | None:
    """Return where two runs first did something else."""
    pairs = itertools.zip_longest(run.nodes, other.nodes)
    return next(((a or b).name for a, b in pairs if a != b), None)


def _fixed(axis: Axis, free: list[Axis]) -> dict[str, tuple[str | None, ...]]:
    """Return what to give as `axes` so that one axis is no longer free."""
    names = {place: other.name for other in free if other is not axis for place in other.places}
    ranks = {x: 1 + max(k for y, k in names.keys() | set(axis.places) if x == y) for x, _ in axis.places}
    return {x: tuple(names.get((x, k)) for k in range(rank)) for x, rank in ranks.items()}
