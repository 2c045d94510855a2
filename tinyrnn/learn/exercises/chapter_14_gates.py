"""Weights of a GRU, from PyTorch to Keras.

Two libraries compute the same GRU, and keep its weights differently. The weights of all gates stand side by side in one
array, in blocks, H wide each. Which block is which is a convention; a wrong one fits all the same, and nobody notices.

    PyTorch's nn.GRUCell:  weight_ih (3H, I), weight_hh (3H, H), bias_ih (3H,), bias_hh (3H,)      gates r, z, n
    Keras' GRUCell:        kernel (I, 3H), recurrent_kernel (H, 3H), bias (2, 3H)                  gates z, r, n

PyTorch multiplies from the left, W x, and Keras from the right, x W. Keras' bias has the input's in its first row, and
the state's in its second; they cannot be added up, since r multiplies the state's part of n. (Keras calls n "h".)

Write `reorder`, which brings the blocks of any array into another order, and `to_keras`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyrnn.interop import gates
from tinyrnn.learn.checking import Mistake, agree, array_of, parts_of

Array = npt.NDArray[Any]


def reorder(weights: Array, source: Sequence[str], target: Sequence[str], axis: int) -> Array:
    """Return the weights with the blocks along an axis in another order.

    Args: source, the names of the blocks in their order, such as ("r", "z", "n"); target, the same names in the order
        that is wanted. The axis is len(source) blocks of equal width long.
    """
    blocks = dict(zip(source, np.split(weights, len(source), axis), strict=True))
    return np.concatenate([blocks[gate] for gate in target], axis)


def to_keras(weight_ih: Array, weight_hh: Array, bias_ih: Array, bias_hh: Array) -> tuple[Array, Array, Array]:
    """Return kernel (I, 3H), recurrent_kernel (H, 3H) and bias (2, 3H)."""
    pytorch, keras = ("r", "z", "n"), ("z", "r", "n")
    kernel = reorder(weight_ih.T, pytorch, keras, 1)
    recurrent_kernel = reorder(weight_hh.T, pytorch, keras, 1)
    bias = reorder(np.stack([bias_ih, bias_hh]), pytorch, keras, 1)
    return kernel, recurrent_kernel, bias


# ---------------------------------------------------------------- checks

HINTS = (
    "np.split(weights, n, axis) cuts an array into n equal blocks, and np.concatenate(blocks, axis) joins them.",
    "Give each block its name: a dict from the names of source to the blocks. Then take them in the order of target.",
    "x W is what W x is with W transposed: .T, not reshape, which reads the same numbers in rows of another length.",
    "np.stack([bias_ih, bias_hh]) has two rows, (2, 3H).",
)

PYTORCH, KERAS = ("r", "z", "n"), ("z", "r", "n")


def check_reorder(answer: Any) -> None:
    """Blocks are brought into another order."""
    for source, target, axis in ((PYTORCH, KERAS, 0), (("i", "f", "g", "o"), ("i", "o", "f", "g"), 1)):
        n = len(source)
        weights = np.arange(4.0 * n * n).reshape(2 * n, 2 * n)
        blocks = np.split(weights, n, axis)
        wanted = np.concatenate([blocks[source.index(gate)] for gate in target], axis)
        places = [source.index(gate) for gate in target]
        rows = np.take(weights, [n * k + p for k in range(2) for p in places], axis)
        mistakes = {
            "nothing has moved": weights,
            "it goes from target to source: the other way round": np.concatenate(
                [blocks[target.index(gate)] for gate in source], axis
            ),
            "single rows or columns were exchanged; a block is 2 of them here, one for each element of the gate": rows,
            "that is one row or column of each block; a block is 2 of them here": np.take(weights, places, axis),
            "np.stack makes a new axis; np.concatenate joins the blocks along the one that there is": np.stack(
                [blocks[place] for place in places], axis
            ),
        }
        if axis == 1:
            along_0 = np.split(weights, n)
            mistakes["it went along axis 0; cut and join along the axis that is given"] = np.concatenate(
                [along_0[place] for place in places]
            )
        given = answer.reorder(weights.copy(), source, target, axis)
        agree(f"reorder of {' '.join(source)} to {' '.join(target)} along axis {axis}", given, wanted, mistakes)


def _pytorch() -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in ((9, 2), (9, 3), (9,), (9,))]


def _keras(answer: Any) -> tuple[Any, Any, Any]:
    given = answer.to_keras(*[w.copy() for w in _pytorch()])
    return parts_of("to_keras", given, "kernel", "recurrent_kernel", "bias")


def _other_orders(w: Array) -> dict[str, Any]:
    """Return the weights (…, 3H) in each wrong order of gates."""
    r, z, n = np.split(w, 3, -1)
    orders = {"z n r": (z, n, r), "n r z": (n, r, z), "n z r": (n, z, r), "r n z": (r, n, z)}
    return {
        f"the gates are in the order {order}; Keras has z r n": np.concatenate(blocks, -1)
        for order, blocks in orders.items()
    }


def _kernel_mistakes(w: Array) -> dict[str, Any]:
    return _other_orders(w.T) | {
        "the gates are still in PyTorch's order, r z n": w.T,
        "the gates are in Keras' order, but it is not transposed": gates.reorder(w, "GRU", "pytorch", "keras", 0),
        "it is PyTorch's as it was": w,
        "reshape does not transpose: it reads the same numbers in rows of another length. Write .T": gates.reorder(
            w.reshape(w.shape[::-1]), "GRU", "pytorch", "keras"
        ),
    }


def check_kernels(answer: Any) -> None:
    """The kernels are transposed, and their gates are in the order z, r, n."""
    kernel, recurrent, _ = _keras(answer)
    W, R = (gates.reorder(w.T, "GRU", "pytorch", "keras") for w in _pytorch()[:2])
    exchanged = "the kernel and the recurrent kernel are exchanged"
    agree("kernel", kernel, W, _kernel_mistakes(_pytorch()[0]) | {exchanged: R})
    agree("recurrent_kernel", recurrent, R, _kernel_mistakes(_pytorch()[1]))


def check_bias(answer: Any) -> None:
    """The bias has two rows, the input's and the state's."""
    _, _, bias = _keras(answer)
    both = np.stack(_pytorch()[2:])
    wanted = gates.reorder(both, "GRU", "pytorch", "keras")
    mistakes = _other_orders(both) | {
        "its gates are still in PyTorch's order, r z n": both,
        "the two biases were added up. r multiplies the state's part of n and not the input's: keep both": wanted.sum(
            0
        ),
        "that is the sum of both, and zeros: r multiplies the state's part of n and not the input's, so keep both": (
            np.stack([wanted.sum(0), np.zeros(9)])
        ),
        "its rows are exchanged: the input's is first": wanted[::-1],
        "it is one long row; stack the two": np.concatenate(list(wanted)),
        "it is one long row, and its gates are still in PyTorch's order; reorder each, and stack the two": both.ravel(),
        "it is (9, 2): stack the two as rows": wanted.T,
    }
    agree("bias", bias, wanted, mistakes)


def _σ(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def check_step(answer: Any) -> None:
    """A step of Keras' GRU with them is that of PyTorch's."""
    weight_ih, weight_hh, bias_ih, bias_hh = _pytorch()
    kernel, recurrent, bias = (array_of("weights", w) for w in _keras(answer))
    x, h = np.array([0.5, -1.0]), np.array([0.25, -0.5, 1.0])
    x_r, x_z, x_n = np.split(weight_ih @ x + bias_ih, 3)
    h_r, h_z, h_n = np.split(weight_hh @ h + bias_hh, 3)
    z = _σ(x_z + h_z)
    pytorch = (1 - z) * np.tanh(x_n + _σ(x_r + h_r) * h_n) + z * h
    x_z, x_r, x_n = np.split(x @ kernel + bias[0], 3)
    h_z, h_r, h_n = np.split(h @ recurrent + bias[1], 3)
    z = _σ(x_z + h_z)
    keras = (1 - z) * np.tanh(x_n + _σ(x_r + h_r) * h_n) + z * h
    if not np.allclose(pytorch, keras):
        raise Mistake(f"from the same state, PyTorch's step gives {pytorch.round(3)} and Keras' {keras.round(3)}")
