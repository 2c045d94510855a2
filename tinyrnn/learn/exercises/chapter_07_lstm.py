"""The step of an LSTM, from its equations.

    i, f, g, o = the four blocks of  x W_x + b + h W_h,  in this order, each H wide
    c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
    h' = σ(o) ⊙ tanh(c')

c is the memory: σ(f) says what stays of it, σ(i) what comes in, and σ(o) what of it is shown. Along c the gradient is
multiplied by σ(f) and by nothing else, which is why it lasts. Write the step; the gradient comes by itself.

Shapes: x (B, I); h and c (B, H); W_x (I, 4H); W_h (H, 4H); b (4H,).
Source: Hochreiter & Schmidhuber 1997, "Long Short-Term Memory"; Gers et al. 2000 (the forget gate f).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

import tinyrnn as tr
from tinyrnn import nn
from tinyrnn.learn.checking import Array, agree, array_of, check_derivatives, parts_of


def step(
    x: tr.Tensor, h: tr.Tensor, c: tr.Tensor, W_x: tr.Tensor, W_h: tr.Tensor, b: tr.Tensor
) -> tuple[tr.Tensor, tr.Tensor]:
    """Return h' and c', each (B, H). tr.split(z, 4) cuts z along its last axis into four equal blocks."""
    i, f, g, o = tr.split(x @ W_x + b + h @ W_h, 4)
    c = tr.sigmoid(f) * c + tr.sigmoid(i) * tr.tanh(g)
    return tr.sigmoid(o) * tr.tanh(c), c


# ---------------------------------------------------------------- checks

HINTS = (
    "One product for all four gates: z = x @ W_x + b + h @ W_h is (B, 4H). Then i, f, g, o = tr.split(z, 4).",
    "Three of them are gates, from 0 to 1: σ. g is what may come in, from −1 to 1: tanh.",
    "h' is made of the new c, not of the old one, and comes first of the two results.",
)


def _example() -> tuple[list[tr.Tensor], nn.LSTMCell]:
    cell = nn.LSTMCell(3, 4, dtype="float64")
    x, h, c = (tr.randn(2, n, dtype="float64", requires_grad=True) for n in (3, 4, 4))
    assert cell.b is not None
    return [x, h, c, cell.W_x, cell.W_h, cell.b], cell


def _results(answer: Any) -> tuple[list[tr.Tensor], Any, Any, Any]:
    """Return operands, what the answer made of them, and what it should have."""
    operands, cell = _example()
    given = parts_of("step", answer.step(*operands), "h'", "c'")
    return operands, *given, cell(operands[0], (operands[1], operands[2]))


def _σ(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def _memory_mistakes(operands: list[tr.Tensor]) -> dict[str, Any]:
    """Return c' as it is with each mistake."""
    x, h, c, W_x, W_h, b = (operand.numpy() for operand in operands)
    block = dict(zip("ifgo", np.split(x @ W_x + b + h @ W_h, 4, axis=-1), strict=True))
    i, f, g, o = block.values()

    def made_of(z: Array) -> Array:
        i, f, g, _ = np.split(z, 4, axis=-1)
        return _σ(f) * c + _σ(i) * np.tanh(g)

    in_another_order = {}
    for p, q, r in itertools.permutations("ifgo", 3):
        words = (
            f"the blocks are in another order: {p} stands where i belongs, {q} where f and {r} where g; it is i f g o"
        )
        in_another_order[words] = _σ(block[q]) * c + _σ(block[p]) * np.tanh(block[r])
    return {
        "g goes through σ; it is no gate, and goes through tanh": _σ(f) * c + _σ(i) * _σ(g),
        "g goes through nothing; it goes through tanh": _σ(f) * c + _σ(i) * g,
        "the gates go through tanh; a gate is between 0 and 1, by σ": np.tanh(f) * c + np.tanh(i) * np.tanh(g),
        "the old memory is missing: σ(f) ⊙ c": _σ(i) * np.tanh(g),
        "all of the old memory stays: c has to be multiplied by σ(f)": c + _σ(i) * np.tanh(g),
        "h stands where the memory belongs: σ(f) ⊙ c": _σ(f) * h + _σ(i) * np.tanh(g),
        "the two gates are not σ of anything": f * c + i * np.tanh(g),
        "σ and tanh are missing: σ(f) ⊙ c + σ(i) ⊙ tanh(g)": f * c + i * g,
        "g goes through σ and then through tanh; it goes through tanh alone": _σ(f) * c + _σ(i) * np.tanh(_σ(g)),
        "1 − σ(f) stands where σ(i) belongs; the input gate has a block of its own": _σ(f) * c
        + (1 - _σ(f)) * np.tanh(g),
        "the two parts are multiplied; they are added": _σ(f) * c * _σ(i) * np.tanh(g),
        "σ(i) is added to tanh(g); it multiplies it": _σ(f) * c + _σ(i) + np.tanh(g),
        "b is missing in the blocks: x W_x + b + h W_h": made_of(x @ W_x + h @ W_h),
        "h W_h is missing in the blocks: x W_x + b + h W_h": made_of(x @ W_x + b),
        "x W_x is missing in the blocks: x W_x + b + h W_h": made_of(b + h @ W_h),
        "c stands where h belongs in the blocks: x W_x + b + h W_h": made_of(x @ W_x + b + c @ W_h),
        "that is h'; the results are exchanged: return h', c'": _σ(o) * np.tanh(_σ(f) * c + _σ(i) * np.tanh(g)),
        **in_another_order,
    }


def check_shapes(answer: Any) -> None:
    """Two results, each (B, H)."""
    _, h, c, true = _results(answer)
    for name, given, wanted in (("h'", h, true.h), ("c'", c, true.c)):
        if array_of(name, given).shape != wanted.shape:
            agree(name, given, wanted.numpy())


def check_memory(answer: Any) -> None:
    """The memory is c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g)."""
    operands, _, c, true = _results(answer)
    agree("c'", c, true.c.numpy(), _memory_mistakes(operands))


def check_output(answer: Any) -> None:
    """The output is h' = σ(o) ⊙ tanh(c')."""
    operands, h, _, true = _results(answer)
    x, h_before, c, W_x, W_h, b = operands
    o = tr.split(x @ W_x + b + h_before @ W_h, 4)[3]
    mistakes = {
        "tanh is missing: σ(o) ⊙ tanh(c')": tr.sigmoid(o) * true.c,
        "it is made of the old memory: σ(o) ⊙ tanh(c'), with the new one": tr.sigmoid(o) * tr.tanh(c),
        "the output gate is missing: σ(o) ⊙ tanh(c')": tr.tanh(true.c),
        "c' goes through σ; it goes through tanh": tr.sigmoid(o) * tr.sigmoid(true.c),
        "the tanh is of the product; it is of c' alone": tr.tanh(tr.sigmoid(o) * true.c),
        "o goes through tanh; a gate is between 0 and 1, by σ": tr.tanh(o) * tr.tanh(true.c),
        "o goes through nothing; a gate is between 0 and 1, by σ": o * tr.tanh(true.c),
    }
    agree("h'", h, true.h.numpy(), {words: value.numpy() for words, value in mistakes.items()})


def check_sequence(answer: Any) -> None:
    """Twenty steps are those of nn.LSTM."""
    layer, x = nn.LSTM(3, 4, dtype="float64"), tr.randn(20, 2, 3, dtype="float64")
    cell, state = layer.cells[0], (tr.zeros(2, 4, dtype="float64"), tr.zeros(2, 4, dtype="float64"))
    for x_t in tr.unstack(x):
        state = answer.step(x_t, *state, cell.W_x, cell.W_h, cell.b)
    agree("h after 20 steps", state[0], layer(x)[1].h[0].numpy())


def check_numbers(answer: Any) -> None:
    """The first and the second derivative agree with numbers."""
    operands, _ = _example()
    check_derivatives(lambda *operands: answer.step(*operands)[0], *operands)
