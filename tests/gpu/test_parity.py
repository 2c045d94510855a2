"""The device computes what NumPy does: outputs, states, every gradient, every update; fused or not, captured or not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyrnn as tr
from tests.test_fuse import CASES as FUSED
from tests.test_fuse import derivatives, operands_of
from tinyrnn import backends, nn, optim
from tinyrnn.backends import DType, philox
from tinyrnn.backends.numpy_backend import NumPyBackend
from tinyrnn.capture import leaves

B, T, I, H, V = 3, 4, 5, 6, 7
ATOL = 5e-5
Array = np.ndarray[Any, Any]
Case = Callable[[], tuple[list[tr.Tensor], Any]]  # -> what gradients are wanted for, and what was computed


def layer(make: Callable[[], nn.Module], lengths: list[int] | None = None) -> Case:
    """A recurrent layer, its parameters and its input."""

    def case() -> tuple[list[tr.Tensor], Any]:
        module, x = make(), tr.randn(T, B, I, requires_grad=True)
        return [x, *module.parameters()], module(x, lengths=lengths)

    return case


def from_a_state() -> tuple[list[tr.Tensor], Any]:
    lstm, x = nn.LSTM(I, H), tr.randn(T, B, I)
    h, c = (tr.randn(1, B, H, requires_grad=True) for _ in range(2))
    return [h, c], lstm(x, (h, c))


def attention(score: str, masked: bool) -> Case:
    def case() -> tuple[list[tr.Tensor], Any]:
        module = nn.Attention(H, score=score)
        query, keys = (tr.randn(n, B, H, requires_grad=True) for n in (2, T))
        mask = tr.randn(T, B) > 0 if masked else None
        return [query, keys, *module.parameters()], module(query, keys, lengths=[T, 1, 0], mask=mask)

    return case


def characters() -> tuple[list[tr.Tensor], Any]:
    embedding, output = nn.Embedding(V, H), nn.Linear(H, V)
    index = tr.tensor([[0, 6, 6], [1, 6, 3]])
    logits = output(tr.tanh(embedding(index)))
    return [*embedding.parameters(), *output.parameters()], (logits, tr.cross_entropy(logits, index))


def losses() -> tuple[list[tr.Tensor], Any]:
    x, y = (tr.randn(B, V, requires_grad=True) for _ in range(2))
    targets, mask = tr.tensor([1, 0, 6]), tr.tensor([True, False, True])
    return [x, y], [
        tr.cross_entropy(x, targets, reduction="none"),
        tr.cross_entropy(x, targets, mask=mask),
        tr.cross_entropy(x, targets, ignore_index=6),
        tr.binary_cross_entropy(x, tr.sigmoid(y.detach())),
        tr.mse_loss(x, y, reduction="sum"),
        tr.mse_loss(x[:, 0], y[:, 1], mask=mask),
    ]


def functions() -> tuple[list[tr.Tensor], Any]:
    x, w = tr.randn(B, V, requires_grad=True), tr.randn(V, requires_grad=True)
    rows = tr.tensor([[2, 0], [2, -1]])
    return [x, w], [
        *(tr.softmax(x), tr.log_softmax(x), tr.logsumexp(x, axis=0), tr.gelu(x), tr.layer_norm(x, w), tr.relu(x)),
        *(x.max(1), x.min(0), x.mean(), x.var(1), tr.clip(x, -0.5, 0.5), tr.maximum(x, w), tr.minimum(x, 0.0)),
        *(tr.pad(x, (0, 2)), tr.flip(x), tr.concatenate([x, x * 2], axis=1), tr.stack([x, x]), x.T @ x),
        *(x[rows], x[:, rows[0]], x[tr.tensor([True, False, True])], x[..., None, ::2], x[1], tr.where(x > 0, x, w)),
        *(tr.exp(x) ** 0.5, tr.abs(x), tr.sqrt(tr.exp(w)), 2.0**x, x.T.reshape(-1), tr.broadcast_to(w, (2, V))),
    ]


DROPPED = {"dropout": 0.5, "zoneout": 0.2, "recurrent_dropout": 0.3, "weight_drop": 0.1}
PARITY: dict[str, Case] = {
    "rnn": layer(lambda: nn.RNN(I, H, 2)),
    "rnn with relu": layer(lambda: nn.RNN(I, H, nonlinearity="relu")),
    "lstm": layer(lambda: nn.LSTM(I, H, 2)),
    "lstm with lengths": layer(lambda: nn.LSTM(I, H), lengths=[2, 0, 4]),
    "lstm with peepholes": layer(lambda: nn.LSTM(I, H, peephole=True)),
    "lstm with a projection": layer(lambda: nn.LSTM(I, H, 2, proj_size=3)),
    "lstm with layer norm": layer(lambda: nn.LSTM(I, H, layer_norm=True)),
    "lstm, all of it": layer(
        lambda: nn.LSTM(
            I, H, 2, peephole=True, proj_size=3, layer_norm=True, learn_initial_state=True, bidirectional=True
        ),
        lengths=[1, 4, 3],
    ),
    "lstm with dropout": layer(lambda: nn.LSTM(I, H, 2, **DROPPED)),
    "lstm from a state": from_a_state,
    "gru": layer(lambda: nn.GRU(I, H, 2)),
    "gru, reset before": layer(lambda: nn.GRU(I, H, reset_after=False)),
    "gru both ways": layer(lambda: nn.GRU(I, H, 2, bidirectional=True), lengths=[4, 1, 2]),
    "additive attention": attention("additive", masked=False),
    "dot attention": attention("dot", masked=True),
    "characters": characters,
    "losses": losses,
    "functions": functions,
}


def measured(case: Case, backend: Any, fused: bool = True) -> list[Array]:
    """Return what a case computes, and the gradients of a sum that weighs every element differently."""
    with tr.use_backend(backend), tr.fusion(fused):
        tr.manual_seed(0)
        wanted, computed = case()
        ys = [y for y in leaves(computed) if y.requires_grad]
        total = sum((y * tr.arange(1.0, y.size + 1).reshape(y.shape)).sum() / y.size for y in ys)
        total.backward()
        assert all(y.backend is backends.get(backend) for y in ys)
        return [y.numpy() for y in (*ys, *(w.grad for w in wanted if w.grad is not None))]


def compare(found: list[Array], expected: list[Array], atol: float = ATOL) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        largest = np.abs(b).max(initial=1.0)  # some gradients are in the thousands: layer norm of a state of zeros
        np.testing.assert_allclose(a, b, rtol=0, atol=atol * largest)


def drawn_like_a_gpu(self: Any, generator: tr.Generator, shape: tuple[int, ...], dtype: DType) -> Array:
    """Draw on the host what `CuPyBackend.uniform` draws on the device."""
    (key,) = generator.words(1)
    return philox.uniform(np, int(key), 0, math.prod(shape), dtype).reshape(shape)


@pytest.mark.parametrize("name", PARITY)
def test_the_device_computes_what_numpy_does(
    device: backends.Backend, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device.name != "strict":
        monkeypatch.setattr(NumPyBackend, "uniform", drawn_like_a_gpu)
    expected = measured(PARITY[name], "numpy")
    assert len(expected) > 1
    compare(measured(PARITY[name], device), expected)


@pytest.mark.parametrize("name", [name for name in PARITY if "lstm" in name or "gru" in name or "rnn" in name])
def test_the_device_computes_the_same_fused_or_not(device: backends.Backend, name: str) -> None:
    compare(measured(PARITY[name], device), measured(PARITY[name], device, fused=False))


@pytest.mark.parametrize("case", FUSED)
def test_second_derivatives_of_every_fused_function(device: backends.Backend, case: str) -> None:
    found = []
    for backend in ("numpy", device):
        with tr.use_backend(backend):
            found.append(derivatives(*operands_of(case, 3, 4, "float64")))
    compare(*found, atol=1e-8)


@pytest.mark.parametrize(("dtype", "atol"), [("float64", 1e-10), ("float16", 2e-2)])
def test_other_floats(device: backends.Backend, dtype: str, atol: float) -> None:
    if dtype == "float16" and device.name == "strict":
        pytest.skip("the standard, and so the strict backend, has no float16")

    def case() -> tuple[list[tr.Tensor], Any]:
        x, w = (tr.randn(B, n, dtype=dtype, requires_grad=True) for n in (V, 1))
        out, _ = nn.LSTM(V, H, dtype=dtype)(tr.stack([x, x])) if dtype == "float64" else (tr.gelu(x), None)
        return [x, w], (out, tr.sigmoid(x) * w)

    compare(*(measured_as(dtype, case, backend) for backend in ("numpy", device)), atol=atol)


def measured_as(dtype: str, case: Case, backend: Any) -> list[Array]:
    found = measured(case, backend)
    assert all(x.dtype == dtype for x in found)
    return found


# ---------------------------------------------------------------- training

OPTIMIZERS: dict[str, Callable[[list[tr.Tensor]], optim.Optimizer]] = {
    "sgd": lambda ws: optim.SGD(ws, lr=0.1, weight_decay=0.01),
    "momentum": lambda ws: optim.SGD(ws, lr=0.1, momentum=0.9, nesterov=True),
    "adagrad": lambda ws: optim.Adagrad(ws, lr=0.1),
    "rmsprop": lambda ws: optim.RMSProp(ws, lr=0.01),
    "adam": lambda ws: optim.Adam(ws, lr=optim.Cosine(0.05, total=5), weight_decay=0.01),
    "adamw": lambda ws: optim.AdamW(ws, lr=0.05),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_takes_the_same_steps(device: backends.Backend, name: str) -> None:
    found = []
    for backend in ("numpy", device):
        with tr.use_backend(backend):
            tr.manual_seed(0)
            ws = [tr.randn(*shape, requires_grad=True) for shape in ((4, 6), (6,), (1,))]
            optimizer, norms = OPTIMIZERS[name](ws), []
            for _ in range(4):
                optimizer.zero_grad()
                sum((w**4).sum() for w in ws).backward()
                norms.append(optim.clip_grad_norm(ws, 1.0))
                optimizer.step()
            found.append([x.numpy() for x in (*ws, *norms)])
    compare(*found)


class Writer(nn.Module):
    """A small language model."""

    def __init__(self, kind: Any) -> None:
        self.embedding, self.recurrent, self.output = nn.Embedding(V, H), kind(H, H, 2), nn.Linear(H, V)

    def forward(self, x: tr.Tensor, state: Any) -> tuple[tr.Tensor, Any]:
        h, state = self.recurrent(self.embedding(x), state)
        return self.output(h), state


def trained(backend: Any, kind: Any, steps: int, captured: bool = False) -> list[Array]:
    """Return the losses of a few training steps, the state after them and the parameters."""
    with tr.use_backend(backend):
        tr.manual_seed(0)
        model, state, curve = Writer(kind), None, []
        optimizer, rng = optim.Adam(model.parameters(), lr=0.05), np.random.default_rng(0)

        def gradients(x: tr.Tensor, y: tr.Tensor, state: Any) -> tuple[tr.Tensor, Any]:
            logits, state = model(x, state)
            loss = tr.cross_entropy(logits, y)
            loss.backward()
            return loss, tr.detach(state)

        step = tr.capture(gradients, model) if captured else gradients
        for _ in range(steps):
            text = (np.arange(T + 1)[:, None] + rng.integers(0, V, B)) % V  # each character is the one after the last
            optimizer.zero_grad()
            loss, state = step(tr.tensor(text[:-1]), tr.tensor(text[1:]), state)
            optim.clip_grad_norm(model.parameters(), 1.0)
            optimizer.step()
            curve.append(loss)
        return [x.numpy() for x in (tr.stack(curve), *state, *model.parameters())]


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_the_training_curve_is_numpy_s(device: backends.Backend, kind: Any) -> None:
    expected = trained("numpy", kind, 20)
    assert expected[0][-1] < 0.9 * expected[0][0]  # it learns
    compare(trained(device, kind, 20)[:1], expected[:1], atol=1e-4)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_captured_it_trains_as_it_does_plain(device: backends.Backend, kind: Any) -> None:
    compare(trained(device, kind, 5, captured=True), trained(device, kind, 5), atol=1e-5)
