"""Runs of a model as one ONNX graph, good for every length of its free axes.

In each run but the first, one axis is twice as long. Where their constants differ, the graph computes them: a number
that doubled, such as the T·B of a reshape; 0, 1, … up to such a number, as `tr.arange(T)` makes; and an array that has
the same number everywhere, as `tr.zeros(B, H)` makes.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from tinyrnn.errors import InteropError
from tinyrnn.interop.gates import Array
from tinyrnn.interop.onnx_trace import Body, Node
from tinyrnn.tensor import Tensor

OPSET, IR_VERSION = 18, 8  # of 2022: new enough for all that is written here, old enough for every runtime


class Axis(NamedTuple):
    """An axis whose length may differ: its name, its length in the example, and which axis of which input it is."""

    name: str
    length: int
    places: tuple[tuple[str, int], ...]


class Run(NamedTuple):
    """What happened in one run."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    nodes: list[Node]
    constants: dict[str, Array]


Number = int | float
Proportion = tuple[Number, tuple[Axis, ...]]
"""A factor and axes, which stand for factor · length · length …"""


def proportion(n: Number, others: dict[Axis, Number]) -> Proportion | None:
    """Tell how a number depends on lengths.

    Args: n, what it is for the example; others, what it is when that axis is twice as long.
    Returns: a factor and the axes whose lengths it is multiplied by; None if it is no such product.
    """
    axes = tuple(axis for axis, other in others.items() if other != n)
    factor = n / math.prod(axis.length for axis in axes)
    if any(others[axis] != 2 * n for axis in axes) or (isinstance(n, int) and not factor.is_integer()):
        return None
    return type(n)(factor), axes


def same(a: Array, b: Array | None) -> bool:
    """Tell whether two constants are the same; a NaN is one."""
    return b is not None and np.array_equal(a, b, equal_nan=True)


class Writer:
    """Makes protocol buffers.

    Args: onnx, the package; run, of the example; longer, for each free axis the run in which it was twice as long.
    """

    def __init__(self, onnx: Any, run: Run, longer: dict[Axis, Run]) -> None:
        self.onnx, self.make, self.run, self.longer = onnx, onnx.helper, run, longer
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.lengths: dict[Axis, str] = {}
        self.count = 0

    def model(self, name: str) -> Any:
        """Return the ModelProto."""
        for constant in self.run.constants:
            self._constant(constant)
        self.nodes += [self._node(node) for node in self.run.nodes]
        inputs = [self._described(key, [run.inputs[key] for run in self._runs()]) for key in self.run.inputs]
        outputs = [self._described(key, [run.outputs[key] for run in self._runs()]) for key in self.run.outputs]
        graph = self.make.make_graph(self.nodes, name, inputs, outputs, self.initializers)
        opset = self.make.make_opsetid("", OPSET)
        return self.make.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="tinyrnn")

    def _runs(self) -> list[Run]:
        return [self.run, *self.longer.values()]

    def _described(self, name: str, versions: list[Tensor]) -> Any:
        """Return the dtype and the lengths of an input or output: each a number, the name of an axis, or unknown."""
        lengths = []
        for n, *others in zip(*(x.shape for x in versions), strict=True):
            found = proportion(n, dict(zip(self.longer, others, strict=True)))
            factor, axes = found or (0, ())
            lengths.append(factor if not axes and found else axes[0].name if (factor, len(axes)) == (1, 1) else None)
        return self.make.make_tensor_value_info(name, self._type(versions[0].dtype.value), lengths)

    def _type(self, dtype: str) -> int:
        return self.make.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def _node(self, node: Node) -> Any:
        """Return a NodeProto."""
        attributes = dict(node.attributes)
        if "to" in attributes:
            attributes["to"] = self._type(attributes["to"])
        if "body" in attributes:
            attributes["body"] = self._body(node.name, attributes["body"])
        return self.make.make_node(node.op, node.inputs, node.outputs, node.name, **attributes)

    def _body(self, name: str, body: Body) -> Any:
        """Return the GraphProto inside a Scan node; its shapes are left to be inferred."""
        inputs, outputs = (
            [self.make.make_tensor_value_info(key, self._type(dtype), None) for key, dtype in described]
            for described in (body.inputs, body.outputs)
        )
        return self.make.make_graph([self._node(node) for node in body.nodes], name, inputs, outputs)

    # ------------------------------------------------ constants

    def _constant(self, name: str) -> None:
        """Write a constant, or nodes that compute it, if it depends on the length of an axis."""
        value = self.run.constants[name]
        others = {axis: run.constants[name] for axis, run in self.longer.items()}
        shapes = {axis: other.shape for axis, other in others.items()}
        versions = [value, *others.values()]
        if all(same(value, other) for other in versions):
            self._fixed(value, name)
        elif value.ndim < 2 and all(shape == value.shape for shape in shapes.values()):
            lists = {axis: other.reshape(-1).tolist() for axis, other in others.items()}
            numbers = self._numbers(name, value.reshape(-1).tolist(), lists, value.dtype.name)
            self._add("Reshape", numbers, self._fixed(np.array(value.shape, "int64")), output=name)
        elif value.ndim == 1 and all(np.array_equal(x, np.arange(len(x))) for x in versions):
            end = self._numbers(name, list(value.shape), shapes)
            zero, one = (self._fixed(np.array(k, "int64")) for k in (0, 1))
            numbers = self._add("Range", zero, self._add("Squeeze", end), one)
            self._add("Cast", numbers, output=name, to=self._type(value.dtype.name))
        elif value.size and all((x == value.flat[0]).all() for x in versions):
            shape = self._numbers(name, list(value.shape), shapes)
            self._add("Expand", self._fixed(value.reshape(-1)[:1]), shape, output=name)
        else:
            raise self._refusal(name, others)

    def _numbers(self, name: str, values: list[Number], others: dict[Axis, Any], dtype: str = "int64") -> str:
        """Write a list of numbers, each in proportion to lengths."""
        parts = []
        for k, n in enumerate(values):
            found = proportion(n, {axis: other[k] for axis, other in others.items()})
            if found is None:
                raise self._refusal(name, {axis: other[k] for axis, other in others.items() if other[k] != n})
            parts.append(self._product(*found, dtype))
        return parts[0] if len(parts) == 1 else self._add("Concat", *parts, axis=0)

    def _product(self, factor: Number, axes: tuple[Axis, ...], dtype: str) -> str:
        """Write factor · length · length …, as a list of one number."""
        factors = [self._length(axis) for axis in axes]
        if dtype != "int64":
            factors = [self._add("Cast", length, to=self._type(dtype)) for length in factors]
        if factor != 1 or not factors:
            factors.append(self._fixed(np.array([factor], dtype)))
        return functools.reduce(lambda a, b: self._add("Mul", a, b), factors)

    def _length(self, axis: Axis) -> str:
        """Write the length of an axis, once."""
        if axis not in self.lengths:
            name, k = axis.places[0]
            self.lengths[axis] = self._add("Shape", name, output=f"length of {axis.name}", start=k, end=k + 1)
        return self.lengths[axis]

    def _add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or self._fresh(op)
        self.nodes.append(self.make.make_node(op, inputs, [output], output, **attributes))
        return output

    def _fixed(self, value: Array, name: str = "") -> str:
        name = name or self._fresh("constant")
        self.initializers.append(self.onnx.numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def _fresh(self, what: str) -> str:
        self.count += 1
        return f"lengths/{what}_{self.count}"

    def _refusal(self, name: str, others: dict[Axis, Any]) -> InteropError:
        axes = " and ".join(axis.name for axis in others)
        return InteropError(
            f"export_onnx: {name.rpartition('/')[0]} computes with numbers that are neither constant nor a multiple of "
            f"the length of {axes}; only such can be written. Count from the end, as in x[-1] for x[T - 1]; or fix "
            "the length: see axes= of export_onnx"
        )
