"""Single kernels, by pytest-benchmark: `pytest benchmarks/test_kernels.py`. Not among the tests, which see no clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import tinyrnn as tr
from tinyrnn import nn, optim

pytest.importorskip("pytest_benchmark")

B, T, H, V = 50, 50, 128, 65
CELLS = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}

Benchmark = Callable[..., Any]


@pytest.mark.parametrize("kind", list(CELLS))
def test_cell_forward(benchmark: Benchmark, kind: str) -> None:
    cell, x = CELLS[kind](H, H), tr.randn(B, H)
    state = cell(x)
    with tr.no_grad():
        benchmark(cell, x, state)


@pytest.mark.parametrize("kind", list(CELLS))
def test_cell_forward_and_backward(benchmark: Benchmark, kind: str) -> None:
    cell, x = CELLS[kind](H, H), tr.randn(B, H, requires_grad=True)
    state, gy = cell(x).detach(), tr.ones(B, H)

    benchmark(lambda: tr.grad(tr.sum(cell(x, state)[0] * gy), [x, *cell.parameters()]))


@pytest.mark.parametrize("recorded", [False, True], ids=["value", "recorded"])
def test_matmul_of_tiny_tensors(benchmark: Benchmark, recorded: bool) -> None:
    a, b = tr.randn(2, 2, requires_grad=recorded), tr.randn(2, 2)
    benchmark(tr.matmul, a, b)


def test_node_there_and_back(benchmark: Benchmark) -> None:
    square = tr.primitive(
        "square", forward=lambda xp, x: x * x, vjp=(lambda ops, gy, y, x: gy * x * 2.0,), saves=("x",)
    )
    x = tr.tensor(3.0, requires_grad=True)
    benchmark(lambda: tr.grad(tr.apply(square, x), x))


def test_cross_entropy(benchmark: Benchmark) -> None:
    logits, y = tr.randn(T, B, V, requires_grad=True), classes()
    benchmark(lambda: tr.grad(tr.cross_entropy(logits, y), logits))


def test_embedding_gradient(benchmark: Benchmark) -> None:
    embedding, index, gy = nn.Embedding(V, H), classes(), tr.ones(T, B, H)
    benchmark(lambda: tr.grad(tr.sum(embedding(index) * gy), embedding.W))


def test_adam_step(benchmark: Benchmark) -> None:
    parameters = with_gradients()
    benchmark(optim.Adam(parameters).step)


def test_clip_grad_norm(benchmark: Benchmark) -> None:
    parameters = with_gradients()
    benchmark(optim.clip_grad_norm, parameters, 5.0)


def classes() -> tr.Tensor:
    """Return class numbers (T, B)."""
    return tr.tensor([[(7 * t + 3 * b) % V for b in range(B)] for t in range(T)])


def with_gradients() -> list[nn.Parameter]:
    """Return the parameters of a layer, with gradients as large as they are."""
    parameters = list(nn.LSTM(H, H).parameters())
    tr.sum(tr.stack([tr.sum(w * w) for w in parameters])).backward()
    return parameters
