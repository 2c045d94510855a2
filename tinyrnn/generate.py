"""Generating text: from logits to the distribution of the next symbol, and from there to one symbol after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyrnn.autograd import no_grad
from tinyrnn.backends import Generator
from tinyrnn.capture import capture, leaves
from tinyrnn.errors import CaptureError, NonFiniteError, ShapeError
from tinyrnn.functions import default_generator
from tinyrnn.nn import Module
from tinyrnn.tensor import Tensor, tensor

Probabilities = npt.NDArray[np.float64]


def next_distribution(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Probabilities:
    """Return the probabilities to draw the next symbol from.

        p = softmax(logits / temperature), cut to the likeliest symbols and scaled to sum to 1 again

    Args:
        logits: (…, V).
        temperature: under 1 sharpens, over 1 flattens, 0 leaves only the likeliest symbol (greedy).
        top_k: keep the k likeliest symbols.
        top_p: then keep the fewest likeliest symbols whose probabilities sum to at least top_p.

    Returns: a NumPy array (…, V).
    Source: Fan, Lewis & Dauphin 2018 (top-k); Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration"
        (top-p, the nucleus).
    Raises: ValueError for an option out of range; ShapeError for logits with no last axis; NonFiniteError if all are
        −∞, or one is NaN or ∞.
    """
    if not logits.shape or logits.shape[-1] == 0:
        raise ShapeError(f"next_distribution: logits are {logits.shape}; expected (…, V)")
    if not temperature >= 0:
        raise ValueError(f"next_distribution: temperature is {temperature}; expected a number of 0 or more")
    if top_k is not None and top_k < 1:
        raise ValueError(f"next_distribution: top_k is {top_k}; expected 1 or more")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"next_distribution: top_p is {top_p}; expected a number above 0, up to 1")
    if temperature == 0:
        temperature, top_k = 1.0, 1
    x = logits.numpy().astype(np.float64) / temperature
    top = x.max(axis=-1, keepdims=True)
    if not np.isfinite(top).all():
        raise NonFiniteError(
            f"next_distribution: the largest logit is {top.max()}; expected a finite one: see the loss"
        )
    p = np.exp(x - top)
    p /= p.sum(axis=-1, keepdims=True)
    if top_k is None and top_p is None:
        return p
    order = np.argsort(-p, axis=-1, kind="stable")
    ranked = np.take_along_axis(p, order, axis=-1)
    if top_k is not None:
        ranked[..., top_k:] = 0
    if top_p is not None:
        total = ranked.sum(axis=-1, keepdims=True)
        before = ranked.cumsum(axis=-1) - ranked  # of the likelier ones
        ranked[before >= top_p * total] = 0
    kept = np.zeros_like(p)
    np.put_along_axis(kept, order, ranked, axis=-1)
    return kept / kept.sum(axis=-1, keepdims=True)


def draw(p: Probabilities, generator: Generator | None = None) -> npt.NDArray[np.int64]:
    """Draw a symbol from each distribution: (…, V) to (…), by the inverse of the cumulative distribution."""
    edges = p.cumsum(axis=-1)
    u = (generator or default_generator).host.random((*p.shape[:-1], 1)) * edges[..., -1:]
    return (edges <= u).sum(axis=-1)


def generate(
    model: Module,
    prompt: Sequence[int] | npt.NDArray[np.int64],
    length: int,
    *,
    state: Any = None,
    generator: Generator | None = None,
    captured: bool = True,
    **options: Any,
) -> Iterator[int]:
    """Yield `length` symbols, each drawn from what the model expects after the prompt and the symbols before it.

    Args:
        model: (x (T, 1) of ints, state) -> (logits (T, 1, V), state). It is run in evaluation mode.
        prompt: one symbol or more.
        state: what the model remembers before the prompt.
        generator: the stream of random numbers, the default one if left out.
        captured: repeat the operations of a step (see `capture`) rather than run the model's Python for each; False for
            a model that does other things after a while.
        options: temperature, top_k and top_p of `next_distribution`.

    Raises: ShapeError for an empty prompt.
    """
    if len(prompt) == 0:
        raise ShapeError("generate: the prompt is empty; expected one symbol or more")
    x = np.asarray(prompt, np.int64)[:, None]
    modules = [module for _, module in model.named_modules()]
    step = _Step(model) if captured else model
    for _ in range(length):
        training = [module.training for module in modules]
        try:
            with no_grad():  # not around the loop: what stands between two symbols is the caller's
                for module in modules:
                    module.training = False
                logits, state = step(tensor(x), state)
                p = next_distribution(logits[-1, 0], **options)
        finally:
            for module, mode in zip(modules, training, strict=True):
                module.training = mode
        symbol = int(draw(p, generator))
        yield symbol
        x = np.array([[symbol]])


class _Step:
    """A model's step, captured once its first repetitions have come to what the model itself does."""

    def __init__(self, model: Module) -> None:
        self.model, self.captured = model, capture(model, model)
        self.trials = 4  # of which two are repetitions: the first has no state, and the second is recorded anew

    def __call__(self, x: Tensor, state: Any) -> Any:
        if self.trials < 0:  # a model that looks at values, or counts, or draws
            return self.model(x, state)
        try:
            found = self.captured(x, state)
        except CaptureError:
            self.trials = -1
            return self.model(x, state)
        if self.trials > 0:
            expected = self.model(x, state)
            same = all(map(_equal, leaves(found), leaves(expected)))
            self.trials = self.trials - 1 if same else -1
            return expected
        return found


def _equal(a: Any, b: Any) -> bool:
    return bool(np.array_equal(a.numpy(), b.numpy()) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b)
