"""Recurrent layers, optimisers and clipping against PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinyrnn as tr
from tests.test_optim import CASES
from tinyrnn import nn, optim

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[test,oracle]'")
pytestmark = pytest.mark.oracle

T, B, I, H = 6, 3, 4, 5
KINDS = {
    "rnn tanh": (nn.RNN, torch.nn.RNN, {"nonlinearity": "tanh"}),
    "rnn relu": (nn.RNN, torch.nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, torch.nn.LSTM, {}),
    "gru": (nn.GRU, torch.nn.GRU, {}),
}


def copied(ours, theirs):
    """Give PyTorch's layer our weights, transposed; its second bias is zero but for the GRU's b_hn."""
    with torch.no_grad():
        for k, cell in enumerate(ours.cells):
            getattr(theirs, f"weight_ih_l{k}").copy_(torch.tensor(cell.W_x.numpy().T))
            getattr(theirs, f"weight_hh_l{k}").copy_(torch.tensor(cell.W_h.numpy().T))
            getattr(theirs, f"bias_ih_l{k}").copy_(torch.tensor(cell.b.numpy()))
            second = getattr(theirs, f"bias_hh_l{k}").zero_()
            if isinstance(cell, nn.GRUCell):
                second[2 * H :] = torch.tensor(cell.b_hn.numpy())
    return theirs


def pairs(ours, theirs):
    """Yield our parameters beside PyTorch's gradients for them."""
    for k, cell in enumerate(ours.cells):
        yield cell.W_x, getattr(theirs, f"weight_ih_l{k}").grad.T
        yield cell.W_h, getattr(theirs, f"weight_hh_l{k}").grad.T
        yield cell.b, getattr(theirs, f"bias_ih_l{k}").grad
        if isinstance(cell, nn.GRUCell):
            yield cell.b_hn, getattr(theirs, f"bias_hh_l{k}").grad[2 * H :]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-7), ("float32", 5e-5)])
def test_recurrent_layers(kind, layers, initial, dtype, tolerance):
    make, make_theirs, options = KINDS[kind]
    ours = make(I, H, layers, dtype=dtype, **options)
    for p in ours.parameters():
        p.assign(tr.randn(*p.shape, dtype=dtype) * 0.5)
    theirs = copied(ours, make_theirs(I, H, layers, dtype=getattr(torch, dtype), **options))
    leaf = lambda *shape: tr.randn(*shape, dtype=dtype, requires_grad=True)
    twin = lambda x: torch.tensor(x.numpy(), requires_grad=x.requires_grad)

    x = leaf(T, B, I)
    state = [leaf(layers, B, H) for _ in ours.initial_state(B)] if initial else None
    x_t, state_t = twin(x), [twin(field) for field in state] if initial else None
    out, after = ours(x, state)
    out_t, after_t = theirs(x_t, (state_t if len(state_t) > 1 else state_t[0]) if initial else None)
    results, results_t = [out, *after], [out_t, *(after_t if isinstance(after_t, tuple) else (after_t,))]

    weights = [tr.randn(*y.shape, dtype=dtype) for y in results]
    sum((y * w).sum() for y, w in zip(results, weights, strict=True)).backward()
    sum((y * twin(w)).sum() for y, w in zip(results_t, weights, strict=True)).backward()
    values = zip(results, results_t, strict=True)
    leaves = zip([x, *(state or [])], [x_t, *(state_t or [])], strict=True)
    slopes = [*pairs(ours, theirs), *((a, b.grad) for a, b in leaves)]
    for y, y_t in [*values, *((a.grad, g) for a, g in slopes)]:
        scale = max(1.0, y_t.abs().max().item())
        np.testing.assert_allclose(y.numpy(), y_t.detach().numpy(), rtol=tolerance, atol=tolerance * scale)


THEIRS = {
    "SGD": torch.optim.SGD,
    "momentum": torch.optim.SGD,
    "Nesterov": torch.optim.SGD,
    "Adagrad": torch.optim.Adagrad,
    "RMSProp": torch.optim.RMSprop,
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_optimisers(case, dtype, tolerance):
    make, _, options = CASES[case]
    ours = [tr.randn(*shape, dtype=dtype, requires_grad=True) for shape in [(3,), (2, 2)]]
    theirs = [torch.tensor(w.numpy(), requires_grad=True) for w in ours]
    steppers = make(ours, **options), THEIRS[case.split(",")[0]](theirs, **options)
    for k in range(8):
        for stepper, ws in zip(steppers, (ours, theirs), strict=True):
            stepper.zero_grad()
            sum((w**3 + w**2).sum() for w in ws).backward()
            stepper.step()
        for w, w_t in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(w.numpy(), w_t.detach().numpy(), rtol=tolerance, atol=tolerance, err_msg=f"{k=}")


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSProp", "Adam", "AdamW"])
def test_defaults_are_the_same(name):
    ours, theirs = nn.Parameter([1.0]), torch.tensor([1.0], requires_grad=True)
    optimizer = getattr(optim, name)([ours])
    defaults = THEIRS[name]([theirs]).defaults
    shared = set(defaults) & set(vars(optimizer))
    assert {"lr", "eps", "betas"} & set(defaults) <= shared
    assert {option: getattr(optimizer, option) for option in shared} == {option: defaults[option] for option in shared}


@pytest.mark.parametrize(
    "gradients",
    [
        ([3.0, -4.0], [12.0]),
        ([0.1, 0.2], [0.3]),
        ([0.0, 0.0], [0.0]),
        ([math.nan, 1.0], [2.0]),
        ([math.inf, 1.0], [2.0]),
    ],
)
@pytest.mark.parametrize("max_norm", [0.5, 5.0])
def test_clipping(gradients, max_norm):
    ours = [tr.zeros(len(g), dtype="float64", requires_grad=True) for g in gradients]
    theirs = [torch.zeros(len(g), dtype=torch.float64, requires_grad=True) for g in gradients]
    for w, w_t, g in zip(ours, theirs, gradients, strict=True):
        w.grad, w_t.grad = tr.tensor(g, "float64"), torch.tensor(g, dtype=torch.float64)
    with np.errstate(invalid="ignore"):
        norm = optim.clip_grad_norm(ours, max_norm)
    norm_t = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    np.testing.assert_allclose(norm.item(), norm_t.item(), rtol=1e-12)
    for w, w_t in zip(ours, theirs, strict=True):  # theirs divides by norm + 1e-6
        np.testing.assert_allclose(w.grad.numpy(), w_t.grad.numpy(), rtol=1e-5)
