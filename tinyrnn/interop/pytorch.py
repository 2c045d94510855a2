"""Weights from PyTorch and to PyTorch, by its names: "lstm.weight_ih_l0" is our "lstm.cells.0.W_x", transposed.

    from_torch(model, torch_model.state_dict())
    torch_model.load_state_dict({name: torch.tensor(x) for name, x in to_torch(model).items()})

PyTorch itself is not needed. A module with parts of the same names as the PyTorch one has keys of the same names: that
is all that is asked of it. What differs is inside the layers:

    ours                          PyTorch's
    W (I, O), x W                 weight (O, I), x weightᵀ      Linear; Embedding and LayerNorm are alike
    W_x (I, nH), W_h (H, nH)      weight_ih_l0, weight_hh_l0    transposed; "_reverse" for the backward direction
    b (nH,)                       bias_ih_l0 + bias_hh_l0       two where their sum is all that counts
    b_hn (H,)                     the n of bias_hh_l0           in a GRU, where it does not
    W_hr (H, P)                   weight_hr_l0                  transposed
    W_q, W_k, v of Attention      W_q.weight, W_k.weight, …     as if each were a torch.nn.Linear without bias
    W_q, W_k, W_v, W_o            in_proj_weight (3H, H), …     MultiHeadAttention: one below the other, W_o apart
    W (width, I, O) of Conv1d     weight (O, I, width)          the axes the other way round
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tinyrnn import checkpoint, nn
from tinyrnn.errors import CheckpointError, DTypeError, InteropError, StateDictError
from tinyrnn.interop.gates import KINDS, Array, from_rows, to_rows
from tinyrnn.tensor import tensor

M = TypeVar("M", bound=nn.Module)

ROWS = {"W": "weight_ih", "R": "weight_hh", "b_W": "bias_ih", "b_R": "bias_hh"}  # of a cell: see gates.to_rows


class Rename(NamedTuple):
    """PyTorch's name of a parameter of ours, and how to reshape it for PyTorch and back."""

    name: str
    there: Callable[[Array], Array] = np.asarray
    back: Callable[[Array], Array] = np.asarray


RENAMED: dict[type[nn.Module], dict[str, Rename]] = {
    nn.Linear: {"W": Rename("weight", np.transpose, np.transpose), "b": Rename("bias")},
    nn.Embedding: {"W": Rename("weight")},
    nn.Conv1d: {"W": Rename("weight", np.transpose, np.transpose), "b": Rename("bias")},
    nn.Attention: {
        "W_q": Rename("W_q.weight", np.transpose, np.transpose),
        "W_k": Rename("W_k.weight", np.transpose, np.transpose),
        "v": Rename("v.weight", lambda v: v[None], lambda row: row[0]),
    },
}


def to_torch(module: nn.Module, path: str | Path | None = None) -> dict[str, Array]:
    """Return a module's weights as PyTorch has them: its names, shapes and order of gates.

    Args:
        module: any; parameters of its own that are in no layer of ours keep their names and shapes.
        path: a safetensors file to write besides, whole at every moment.

    Returns: names to NumPy arrays, copies; a bias that PyTorch has twice is the first, and the second is zero.
    Raises: InteropError for a layer that PyTorch does not have, such as an LSTM with peepholes, or a Transformer, which
        rotates what it compares; CheckpointError for a file that cannot be written.

    >>> import tinyrnn as tr
    >>> from tinyrnn.interop import to_torch
    >>> for name, x in to_torch(tr.nn.LSTM(input_size=3, hidden_size=4)).items():
    ...     print(name, x.shape)
    weight_ih_l0 (16, 3)
    weight_hh_l0 (16, 4)
    bias_ih_l0 (16,)
    bias_hh_l0 (16,)
    """
    state = {part.key(name): np.array(x, order="C") for part in _parts(module) for name, x in _theirs(part).items()}
    if path is not None:
        from safetensors.numpy import save

        checkpoint.replace_file(Path(path).resolve(), save(state))
    return state


def from_torch(module: M, state: Mapping[str, Any] | str | Path) -> M:
    """Fill a module with PyTorch's weights, in place; nothing is changed if anything does not fit.

    Args:
        module: any; its parts have the names that they have in PyTorch.
        state: what state_dict() of a torch.nn.Module returns, or any names to tensors or arrays; or a safetensors file.

    Returns: the module. Where PyTorch has two biases, ours is their sum.
    Raises: StateDictError that names all unknown, missing and unfit entries; InteropError for a layer that
        PyTorch does not have; CheckpointError for a file that is not safetensors; DTypeError for a tensor of a
        type that NumPy does not have.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> from tinyrnn.interop import from_torch
    >>> theirs = {"weight": np.array([[1.0, 2.0]]), "bias": np.array([0.5])}
    >>> layer = from_torch(tr.nn.Linear(2, 1), theirs)  # or state_dict() of one of PyTorch
    >>> layer(tr.tensor([3.0, 4.0])).tolist()
    [11.5]
    """
    given = {name: _array(name, x) for name, x in _entries(state)}
    _check_fits(module, given)
    new = [
        (getattr(part.module, name), tensor(x))
        for part in _parts(module)
        for name, x in _ours(part, {own: given[part.key(own)] for own in _theirs(part)}).items()
    ]
    for parameter, value in new:
        parameter.assign(value.to(parameter.backend))
    return module


class Part(NamedTuple):
    """A module whose own parameters are translated, and what stands around their names in PyTorch."""

    module: Any
    prefix: str
    suffix: str = ""

    def key(self, name: str) -> str:
        """Return PyTorch's full name: "encoder.weight_ih_l0" for "weight_ih"."""
        return f"{self.prefix}{name}{self.suffix}"


def _parts(module: nn.Module, prefix: str = "") -> Iterator[Part]:
    """Yield the modules that own parameters: cells, linear layers, and so on."""
    yield Part(module, prefix)
    if isinstance(module, nn.Cell):
        return
    for name, child in module.named_children():
        if isinstance(module, nn.Recurrent) and child is module.cells:
            for k, cell in enumerate(module.cells):
                layer, backward = divmod(k, module.directions)
                yield Part(cell, prefix, f"_l{layer}{'_reverse' if backward else ''}")
        else:
            yield from _parts(child, f"{prefix}{name}.")


def _theirs(part: Part) -> dict[str, Array]:
    """Return a part's own parameters by PyTorch's names."""
    module = part.module
    if isinstance(module, nn.Cell):
        _check_pytorch_has(module)
        rows = to_rows(module, "pytorch")
        theirs = {ROWS[name]: block for name, block in rows.items()}
        W_hr = getattr(module, "W_hr", None)
        return theirs if W_hr is None else theirs | {"weight_hr": W_hr.detach().numpy().T}
    if isinstance(module, nn.MultiHeadAttention):
        _check_not_rotary(module)
        W_q, W_k, W_v, W_o = (W.detach().numpy().T for W in (module.W_q, module.W_k, module.W_v, module.W_o))
        return {"in_proj_weight": np.concatenate([W_q, W_k, W_v]), "out_proj.weight": W_o}
    renames = _renames(module)
    return {rename.name: rename.there(getattr(module, own).detach().numpy()) for own, rename in renames.items()}


def _ours(part: Part, theirs: dict[str, Array]) -> dict[str, Array]:
    """Return a part's own parameters by our names: the inverse of `_theirs`."""
    module = part.module
    if isinstance(module, nn.Cell):
        rows = {name: theirs[key] for name, key in ROWS.items() if key in theirs}
        ours = from_rows(module, "pytorch", rows)
        return ours | {"W_hr": theirs["weight_hr"].T} if "weight_hr" in theirs else ours
    if isinstance(module, nn.MultiHeadAttention):
        W_q, W_k, W_v = np.split(theirs["in_proj_weight"], 3)
        return {"W_q": W_q.T, "W_k": W_k.T, "W_v": W_v.T, "W_o": theirs["out_proj.weight"].T}
    return {own: rename.back(theirs[rename.name]) for own, rename in _renames(module).items()}


def _renames(module: nn.Module) -> dict[str, Rename]:
    """Return what a module's own parameters are called in PyTorch: the same, if nothing else is known."""
    known = next((names for kind, names in RENAMED.items() if isinstance(module, kind)), {})
    own = [name for name, value in vars(module).items() if isinstance(value, nn.Parameter)]
    return {name: known.get(name, Rename(name)) for name in own}


def _check_pytorch_has(cell: nn.Cell) -> None:
    """See that a cell is nothing that PyTorch does not have."""
    parameters = {name for name, _ in cell.named_parameters()}
    beyond = sorted(parameters - {"W_x", "W_h", "b", "b_hn", "W_hr"})
    beyond += ["zoneout"] if cell.zoneout else []  # which scales the state in eval mode too
    beyond += ["reset_after=False"] if not getattr(cell, "reset_after", True) else []
    beyond = beyond if type(cell) in KINDS else ["a step of its own"]
    if beyond:
        raise _unknown_there(cell, ", ".join(beyond), "recurrent layers have")


def _check_not_rotary(attention: nn.MultiHeadAttention) -> None:
    """See that attention does not rotate what it compares, as that of `nn.Transformer` does."""
    if attention.rotary:
        raise _unknown_there(attention, "rotary=True", "MultiheadAttention has")


def _unknown_there(module: nn.Module, what: str, who: str) -> InteropError:
    return InteropError(
        f"{type(module).__name__} has {what}; PyTorch's {who} nothing like it, so that the weights would not mean the "
        "same there. To keep them for tinyrnn: checkpoint.save(path, module.state_dict())"
    )


def _entries(state: Mapping[str, Any] | str | os.PathLike[str]) -> Iterator[tuple[str, Any]]:
    if isinstance(state, Mapping):
        yield from state.items()
        return
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(state, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118  # not a dict
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError, TypeError) as error:
        raise CheckpointError(
            f"cannot read {state} as safetensors: {error}; PyTorch's own .pt files are pickles: load such a one there, "
            "and give its state_dict()"
        ) from error


def _array(name: str, x: Any) -> Array:
    """Return a tensor of PyTorch's, one of ours, or an array as a NumPy array."""
    for step in ("detach", "cpu", "numpy"):  # whichever it has
        try:
            x = getattr(x, step, lambda x=x: x)()
        except TypeError as error:
            raise DTypeError(f"from_torch: {name} is {x.dtype}: {error}; convert it first: x.float()") from error
    return np.asarray(x)


def _check_fits(module: nn.Module, given: dict[str, Array]) -> None:
    expected = to_torch(module)
    problems = [f"unknown: {name}" for name in given if name not in expected]
    problems += [f"missing: {name} {x.shape}" for name, x in expected.items() if name not in given]
    problems += [
        f"misshaped: {name} is {given[name].shape}, expected {x.shape}"
        for name, x in expected.items()
        if name in given and given[name].shape != x.shape
    ]
    problems += [
        f"no floats: {name} is {given[name].dtype}"
        for name in expected
        if name in given and given[name].dtype.kind != "f"
    ]
    if problems:
        advice = "; make the module with the sizes and options of the one there"
        raise StateDictError(f"from_torch into {type(module).__name__}: " + "; ".join(problems) + advice)
