"""The order in which each library keeps the gates of a cell, written down here and nowhere else.

The weights of all gates of a cell lie side by side in one matrix, block by block. Which block is which is a convention,
every library has its own, and a wrong one is not noticed: the shapes are the same and the numbers merely wrong.

What they agree on: a GRU's update gate is z in h' = (1 − z)⊙n + z⊙h, for PyTorch, Keras, ONNX and tinyrnn, as it is
for Cho et al. 2014. (Chung et al. 2014 exchange z and 1 − z.) What tinyrnn calls g and n, Keras and ONNX call c and h.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tinyrnn import nn
from tinyrnn.errors import ShapeError

Array = npt.NDArray[Any]

ORDERS = {
    "tinyrnn": {"RNN": ("h",), "LSTM": ("i", "f", "g", "o"), "GRU": ("r", "z", "n")},
    "pytorch": {"RNN": ("h",), "LSTM": ("i", "f", "g", "o"), "GRU": ("r", "z", "n")},
    "keras": {"RNN": ("h",), "LSTM": ("i", "f", "g", "o"), "GRU": ("z", "r", "n")},
    "onnx": {"RNN": ("h",), "LSTM": ("i", "o", "f", "g"), "GRU": ("z", "r", "n")},
}
PEEPHOLES = {"onnx": ("i", "o", "f")}  # the blocks of its P; tinyrnn has p_i, p_f and p_o apart

KINDS: dict[type[nn.Cell], str] = {nn.RNNCell: "RNN", nn.LSTMCell: "LSTM", nn.GRUCell: "GRU"}


def reorder(weights: Array, kind: str, source: str, target: str, axis: int = -1) -> Array:
    """Bring the blocks of one library's gates into the order of another's.

    Args:
        weights: an array that is n blocks long on `axis`, one for each gate.
        kind: "RNN", "LSTM" or "GRU".
        source, target: "tinyrnn", "pytorch", "keras" or "onnx".

    Raises: ValueError for a kind or library that is not in ORDERS; ShapeError if the axis is not n blocks long.

    >>> import numpy as np
    >>> from tinyrnn.interop.gates import reorder
    >>> reorder(np.array([1, 2, 3, 4]), "LSTM", "tinyrnn", "onnx")  # i f g o -> i o f g
    array([1, 4, 2, 3])
    """
    given, wanted = (_order(kind, library) for library in (source, target))
    if weights.shape[axis] % len(given):
        raise ShapeError(
            f"reorder: axis {axis} of {weights.shape} has length {weights.shape[axis]}; expected a multiple of "
            f"{len(given)}, for the gates {' '.join(given)} of the {kind}"
        )
    blocks = dict(zip(given, np.split(weights, len(given), axis), strict=True))
    return np.concatenate([blocks[gate] for gate in wanted], axis)


def _order(kind: str, library: str) -> tuple[str, ...]:
    if library not in ORDERS or kind not in ORDERS[library]:
        raise ValueError(
            f"reorder: no order for {kind!r} of {library!r}; expected one of {', '.join(ORDERS['onnx'])} of one of "
            f"{', '.join(ORDERS)}"
        )
    return ORDERS[library][kind]


# ---------------------------------------------------------------- the weights of a cell, as PyTorch and ONNX have them


def to_rows(cell: nn.Cell, library: str) -> dict[str, Array]:
    """Return a cell's weights by rows, one for each element of a gate, with two biases: as PyTorch and ONNX have them.

        x Wᵀ + b_W  +  h Rᵀ + b_R

    Returns: W (nH, I), R (nH, H), and unless the cell has no bias b_W (nH,) and b_R (nH,). b_R is zero where one bias
        is enough, which is everywhere but in the n of a GRU with reset_after=True.
    """
    rows = {"W": _host(cell.W_x).T, "R": _host(cell.W_h).T}
    if cell.b is not None:
        rows["b_W"], rows["b_R"] = _host(cell.b), np.zeros_like(_host(cell.b))
        b_hn = getattr(cell, "b_hn", None)
        if b_hn is not None:
            rows["b_R"][-cell.hidden_size :] = _host(b_hn)
    return {name: reorder(block, KINDS[type(cell)], "tinyrnn", library, axis=0) for name, block in rows.items()}


def from_rows(cell: nn.Cell, library: str, rows: dict[str, Array]) -> dict[str, Array]:
    """Return the cell's own parameters by name, given what `to_rows` returns: its inverse."""
    rows = {name: reorder(block, KINDS[type(cell)], library, "tinyrnn", axis=0) for name, block in rows.items()}
    own = {"W_x": rows["W"].T, "W_h": rows["R"].T}
    if cell.b is not None:
        own["b"] = rows["b_W"] + rows["b_R"]
        if getattr(cell, "b_hn", None) is not None:  # the reset gate scales this part: it cannot be in b
            n = slice(-cell.hidden_size, None)
            own["b"][n], own["b_hn"] = rows["b_W"][n], rows["b_R"][n]
    return own


def _host(x: Any) -> Array:
    return x.detach().numpy()
