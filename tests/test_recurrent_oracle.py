"""Recurrent layers over the whole matrix of their options, against PyTorch on the CPU; and training that follows it."""

import copy
import itertools
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import data, nn
from tinyrnn.interop import from_torch

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[test,oracle]'")
pytestmark = pytest.mark.oracle

T, B, I, H = 5, 3, 4, 6
LENGTHS = [2, 5, 3]
KINDS = {
    "rnn tanh": (nn.RNN, torch.nn.RNN, {"nonlinearity": "tanh"}),
    "rnn relu": (nn.RNN, torch.nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, torch.nn.LSTM, {}),
    "gru": (nn.GRU, torch.nn.GRU, {}),
}
DTYPES = {"float64": 1e-7, "float32": 5e-5}


def twins(kind, layers, dtype, **options):
    """Return a layer of ours and PyTorch's, with PyTorch's first weights."""
    make, make_theirs, more = KINDS[kind]
    torch.manual_seed(0)
    theirs = make_theirs(I, H, layers, dtype=getattr(torch, dtype), **more, **options)
    ours = from_torch(make(I, H, layers, dtype=dtype, **more, **options), theirs.state_dict())
    return ours, theirs


def gradients_of(theirs, ours):
    """Return PyTorch's gradients under our names: its second bias has the first one's, but for the GRU's n."""
    grads = {}
    for name, parameter in theirs.named_parameters():
        grads[name] = parameter.grad.clone()
        if "bias_hh" in name:
            grads[name][: 2 * H if isinstance(ours, nn.GRU) else None] = 0
    return dict(from_torch(copy.deepcopy(ours), grads).named_parameters())


def run_theirs(theirs, x, state, lengths):
    """Run PyTorch's layer, packed if there are lengths, with the state in its own form."""
    state = state if state is None or len(state) > 1 else state[0]
    if lengths is None:
        return theirs(x, state)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    out, after = theirs(packed, state)
    return torch.nn.utils.rnn.pad_packed_sequence(out, total_length=T)[0], after


def check_equal(ours, theirs, dtype, initial, lengths, run_theirs=run_theirs):
    """Compare outputs, final states and every gradient."""
    x = tr.randn(T, B, I, dtype=dtype, requires_grad=True)
    begin = [tr.randn(*f.shape, dtype=dtype, requires_grad=True) for f in ours.initial_state(B)] if initial else None
    twin = lambda t: torch.tensor(t.numpy(), requires_grad=t.requires_grad)
    x_t, begin_t = twin(x), [twin(f) for f in begin] if initial else None
    out, after = ours(x, begin, lengths)
    out_t, after_t = run_theirs(theirs, x_t, begin_t, lengths)
    results, results_t = [out, *after], [out_t, *(after_t if isinstance(after_t, tuple) else (after_t,))]
    weights = [tr.randn(*y.shape, dtype=dtype) for y in results]
    sum((y * w).sum() for y, w in zip(results, weights, strict=True)).backward()
    sum((y * twin(w)).sum() for y, w in zip(results_t, weights, strict=True)).backward()

    pairs = list(zip(results, (y.detach().numpy() for y in results_t), strict=True))
    pairs += [(x.grad, x_t.grad.numpy())]
    pairs += [(f.grad, f_t.grad.numpy()) for f, f_t in zip(begin or (), begin_t or (), strict=True)]
    named = gradients_of(theirs, ours)
    pairs += [(p.grad, named[name].numpy()) for name, p in ours.named_parameters()]
    for y, expected in pairs:
        scale = max(1.0, abs(expected).max())
        np.testing.assert_allclose(y.numpy(), expected, rtol=DTYPES[dtype], atol=DTYPES[dtype] * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("layers", "bias", "bidirectional", "initial", "lengths"),
    list(itertools.product([1, 3], [True, False], [False, True], [False, True], [None, LENGTHS])),
)
def test_outputs_states_and_gradients(kind, layers, bias, bidirectional, initial, lengths, dtype):
    ours, theirs = twins(kind, layers, dtype, bias=bias, bidirectional=bidirectional)
    check_equal(ours, theirs, dtype, initial, lengths)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")  # PyTorch is then slower
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("layers", "bidirectional", "initial", "lengths"),
    list(itertools.product([1, 3], [False, True], [False, True], [None, LENGTHS])),
)
def test_projections(layers, bidirectional, initial, lengths, dtype):
    ours, theirs = twins("lstm", layers, dtype, proj_size=2, bidirectional=bidirectional)
    check_equal(ours, theirs, dtype, initial, lengths)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_dropout_between_layers_by_fixed_masks(kind, bidirectional, monkeypatch):
    ours, theirs = twins(kind, 3, "float64", bidirectional=bidirectional, dropout=0.5)
    theirs.dropout = 0.0
    wide = H * ours.directions
    masks = [tr.where(tr.uniform(T, B, wide) < 0.5, 0.0, tr.full((T, B, wide), 2, "float64")) for _ in range(2)]
    waiting = iter(masks)
    monkeypatch.setattr("tinyrnn.functions.dropout", lambda x, p, training: x * next(waiting))

    def layer_by_layer(theirs, x, state, lengths):
        """Run PyTorch's layers one at a time, with our masks between them."""
        finals = []
        for k in range(3):
            one = type(theirs)(x.shape[-1], H, bidirectional=bidirectional, dtype=torch.float64)
            if hasattr(theirs, "nonlinearity"):
                one = type(theirs)(
                    x.shape[-1], H, nonlinearity=theirs.nonlinearity, bidirectional=bidirectional, dtype=torch.float64
                )
            names = [n for n, _ in theirs.named_parameters() if f"_l{k}" in n]
            for name in names:  # the parameters themselves, so that they receive the gradients
                delattr(one, own := name.replace(f"_l{k}", "_l0"))
                setattr(one, own, getattr(theirs, name))
            x, after = one(x)
            finals.append(after if isinstance(after, tuple) else (after,))
            if k < 2:
                x = x * torch.tensor(masks[k].numpy())
        joined = tuple(torch.cat(fields) for fields in zip(*finals, strict=True))
        return x, joined if len(joined) > 1 else joined[0]

    check_equal(ours, theirs, "float64", False, None, layer_by_layer)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_training_follows_pytorch(cell):
    path = Path(__file__).parents[1] / "benchmarks" / "follow_pytorch.py"
    spec = spec_from_file_location("follow_pytorch", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    losses = module.follow(data.numpy_docs()[:100_000], cell, steps=200, H=24, L=2, B=8, T=12)
    np.testing.assert_allclose([ours for ours, _ in losses], [theirs for _, theirs in losses], rtol=0, atol=1e-6)
    assert losses[-1][0] < 0.8 * losses[0][0]
