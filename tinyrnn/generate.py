"""Writing with a model: from logits to the next symbol, one symbol after another, and the search for the best sequence.

Everything here takes the same kind of model, a language model or a decoder:

    logits, state = model(x, state)      # x (T, B) of ints -> logits (T, B, V), of the symbols that follow

    generate      one sequence, symbol by symbol as it is drawn
    sample        many at once, each until its own stop symbol
    beam_search   the sequences of the highest probability, among those that a beam of hypotheses comes by
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinyrnn.autograd import no_grad
from tinyrnn.backends import Generator
from tinyrnn.capture import capture, leaves, mapped
from tinyrnn.errors import CaptureError, DTypeError, IndexRangeError, NonFiniteError, ShapeError
from tinyrnn.functions import default_generator
from tinyrnn.nn import Module
from tinyrnn.tensor import Tensor, tensor

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Model = Callable[[Tensor, Any], tuple[Tensor, Any]]
Stop = int | Collection[int] | None


# ---------------------------------------------------------------- the next symbol


def next_distribution(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Floats:
    """Return the probabilities to draw the next symbol from.

        p = softmax(logits / temperature), cut to the likeliest symbols and scaled to sum to 1 again

    Args:
        logits: (…, V); −∞ rules a symbol out.
        temperature: under 1 sharpens, over 1 flattens, 0 leaves only the likeliest symbol (greedy).
        top_k: keep the k likeliest symbols.
        top_p: then keep the fewest likeliest symbols whose probabilities sum to at least top_p.

    Of symbols that are equally likely the first counts as the likelier.

    Returns: a NumPy array (…, V).
    Source: Fan, Lewis & Dauphin 2018 (top-k); Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration"
        (top-p, the nucleus).
    Raises: ValueError for an option out of range; ShapeError for logits with no last axis; NonFiniteError if all are
        −∞, or one is NaN or ∞.

    >>> import tinyrnn as tr
    >>> from tinyrnn.generate import next_distribution
    >>> logits = tr.log(tr.tensor([0.4, 0.1, 0.5]))
    >>> for options in ({}, {"temperature": 0.5}, {"top_k": 2}, {"temperature": 0}):
    ...     print(next_distribution(logits, **options).round(2).tolist())
    [0.4, 0.1, 0.5]
    [0.38, 0.02, 0.6]
    [0.44, 0.0, 0.56]
    [0.0, 0.0, 1.0]
    """
    if not logits.shape or logits.shape[-1] == 0:
        raise ShapeError(f"next_distribution: logits are {logits.shape}; expected (…, V)")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"next_distribution: temperature is {temperature}; expected a number of 0 or more")
    if top_k is not None and (not isinstance(top_k, int | np.integer) or top_k < 1):
        raise ValueError(f"next_distribution: top_k is {top_k!r}; expected an int of 1 or more")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"next_distribution: top_p is {top_p}; expected a number above 0, up to 1")
    if temperature == 0:
        temperature, top_k = 1.0, 1
    x = _below_the_largest("next_distribution", logits.numpy())
    with np.errstate(over="ignore"):  # to −∞, at a temperature close to 0
        p = np.exp(x / temperature)
    p /= p.sum(axis=-1, keepdims=True)
    if top_k is None and top_p is None:
        return p
    order = np.argsort(-x, axis=-1, kind="stable")
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


def _below_the_largest(name: str, logits: Any) -> Floats:
    """Return logits minus the largest of their row, having seen that it is finite."""
    x = logits.astype(np.float64)
    top = x.max(axis=-1, keepdims=True)
    if not np.isfinite(top).all():
        wrong = top[~np.isfinite(top)][0]
        raise NonFiniteError(f"{name}: the largest logit is {wrong}; expected a finite one: see detect_anomaly")
    return x - top


def draw(p: Floats, generator: Generator | None = None) -> Ints:
    """Draw a symbol from each distribution, by the inverse of the cumulative distribution.

    Args: p (…, V), as `next_distribution` returns them; generator, the default one if left out.
    Returns: symbols (…).

    >>> import numpy as np
    >>> from tinyrnn.generate import draw
    >>> draw(np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    array([1, 2])
    """
    edges = p.cumsum(axis=-1)
    u = (generator or default_generator).host.random((*p.shape[:-1], 1)) * edges[..., -1:]
    return (edges <= u).sum(axis=-1)


# ---------------------------------------------------------------- one symbol after another


def generate(
    model: Model,
    prompt: Sequence[int] | Ints,
    length: int,
    *,
    state: Any = None,
    stop: Stop = None,
    generator: Generator | None = None,
    captured: bool = True,
    **options: Any,
) -> Iterator[int]:
    """Yield up to `length` symbols, each drawn from what the model expects after the prompt and the symbols before it.

    Args:
        model: (x (T, 1) of ints, state) -> (logits (T, 1, V), state): a Module, or a method of one such as
            `model.decode`, which are run in evaluation mode; or any function.
        prompt: one symbol or more.
        state: what the model remembers before the prompt.
        stop: a symbol, or several, that ends the sequence and is not part of it.
        generator: the stream of random numbers, the default one if left out.
        captured: repeat the operations of a step (see `capture`) rather than run the model's Python for each; False for
            a model that does other things after a while.
        options: temperature, top_k and top_p of `next_distribution`; temperature=0 is greedy.

    Raises: ShapeError for a prompt that is empty or not whole numbers in one dimension, or logits of another shape;
        DTypeError and IndexRangeError for a stop symbol that is no whole number, or that the model does not have;
        ValueError for an option out of range.

    >>> import tinyrnn as tr
    >>> from tinyrnn.generate import generate
    >>> count_to_4 = lambda x, state: (tr.one_hot((x + 1).numpy() % 5, 5) * 100, state)
    >>> for symbol in generate(count_to_4, [1], length=9, stop=0, temperature=0):
    ...     print(symbol)
    2
    3
    4
    """
    if len(prompt) == 0:
        raise ShapeError("generate: the prompt is empty; expected one symbol or more")
    given = np.asarray(prompt)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise ShapeError(
            f"generate: the prompt is {given.shape} of {given.dtype}; expected whole numbers (T,), those of one "
            "sequence; sample takes several"
        )
    read = _Reader("generate", model, stop, captured)
    for _, symbols in _drawn(read, given[:, None].astype(np.int64), length, state, generator, options):
        yield int(symbols[0])


def sample(
    model: Model,
    prompts: Sequence[Sequence[int]] | Ints,
    length: int,
    *,
    state: Any = None,
    stop: Stop = None,
    generator: Generator | None = None,
    captured: bool = True,
    **options: Any,
) -> list[list[int]]:
    """Return up to `length` symbols for each of B prompts, drawn side by side.

    Args:
        model: (x (T, B) of ints, state) -> (logits (T, B, V), state), as for `generate`.
        prompts: (T, B), one symbol or more for each sequence: np.full((1, B), begin) for a decoder.
        state: what the model remembers before the prompts: nothing, or what an encoder found out about B inputs.
        stop: a symbol, or several, that ends a sequence and is not part of it. The others go on until they end too.
        generator, captured, options: as for `generate`.

    Returns: B lists. One that is shorter than `length` was ended by a stop symbol; the others by the length.
    Raises: as `generate`.

    >>> import tinyrnn as tr
    >>> from tinyrnn.generate import sample
    >>> count_to_4 = lambda x, state: (tr.one_hot((x + 1).numpy() % 5, 5) * 100, state)
    >>> sample(count_to_4, [[1, 3, 4]], length=3, stop=0, temperature=0)
    [[2, 3, 4], [4], []]
    """
    x = _prompts("sample", prompts)
    written: list[list[int]] = [[] for _ in range(x.shape[1])]
    read = _Reader("sample", model, stop, captured)
    for running, symbols in _drawn(read, x, length, state, generator, options):
        for b, symbol in zip(running, symbols.tolist(), strict=True):
            written[b].append(symbol)
    return written


def _drawn(
    read: _Reader, x: Ints, length: int, state: Any, generator: Generator | None, options: dict[str, Any]
) -> Iterator[tuple[Ints, Ints]]:
    """Yield at each step which sequences have not ended, and a symbol for each of them."""
    if length < 0:
        raise ValueError(f"{read.name}: length is {length}; expected an int of 0 or more")
    running = np.arange(x.shape[1])
    for _ in range(length):
        logits, state = read(x, state)
        logits = logits if len(running) == len(logits) else logits[running]
        symbols = draw(next_distribution(logits, **options), generator)
        if len(read.stop):
            goes_on = ~np.isin(symbols, read.stop)
            running, symbols = running[goes_on], symbols[goes_on]
        if not len(running):
            return
        yield running, symbols
        x = x[-1:].copy()  # what has ended reads its last symbol again: the batch keeps its shape
        x[0, running] = symbols


# ---------------------------------------------------------------- beam search


class Hypothesis(NamedTuple):
    """A sequence that a beam search has found.

    >>> import math
    >>> import tinyrnn as tr
    >>> from tinyrnn.generate import beam_search
    >>> p = tr.tensor([[0.1, 0.5, 0.4], [0.4, 0.3, 0.3], [0.8, 0.1, 0.1]])
    >>> model = lambda x, state: (tr.log(p[x]), state)  # p[a, b]: b follows a; 0 ends
    >>> best = beam_search(model, [[0]], length=9, width=2, stop=0)[0].best
    >>> best.symbols, round(math.exp(best.log_probability), 2)  # p[0, 2] · p[2, 0]
    ((2,), 0.32)
    """

    symbols: tuple[int, ...]
    """Without the prompt and the stop symbol."""
    log_probability: float
    """log P(symbols | prompt), in nats; of the stop symbol too, if it is finished."""
    score: float
    """What hypotheses are ranked by: the log probability over the length penalty."""
    finished: bool
    """Whether a stop symbol has ended it; else the length has."""


class Expansion(NamedTuple):
    """A symbol that a beam search has weighed after one of its hypotheses: a node of its tree.

    >>> import math
    >>> import tinyrnn as tr
    >>> from tinyrnn.generate import beam_search
    >>> p = tr.tensor([[0.1, 0.5, 0.4], [0.4, 0.3, 0.3], [0.8, 0.1, 0.1]])
    >>> model = lambda x, state: (tr.log(p[x]), state)  # p[a, b]: b follows a; 0 ends
    >>> (beam,) = beam_search(model, [[0]], length=9, width=1, stop=0, tree=2)
    >>> for node in beam.tree:
    ...     probability = round(math.exp(node.log_probability), 2)
    ...     print(node.parent, node.symbol, probability, node.kept)
    -1 1 0.5 True
    -1 2 0.4 False
    0 0 0.4 True
    0 1 0.3 False
    """

    parent: int
    """The place in the tree of the symbol before; −1 after the prompt."""
    symbol: int
    """Its number."""
    log_probability: float
    """log P(symbol | prompt and the symbols before)."""
    total: float
    """The sum of these on the way from the prompt."""
    kept: bool
    """Whether it found a place in the beam."""
    finishes: bool
    """Whether it is a stop symbol."""


class Beam(NamedTuple):
    """What a beam search has found for one input.

    >>> import tinyrnn as tr
    >>> from tinyrnn.generate import beam_search
    >>> p = tr.tensor([[0.1, 0.5, 0.4], [0.4, 0.3, 0.3], [0.8, 0.1, 0.1]])
    >>> model = lambda x, state: (tr.log(p[x]), state)  # p[a, b]: b follows a; 0 ends
    >>> (beam,) = beam_search(model, [[0]], length=9, width=2, stop=0, n_best=2)
    >>> [hypothesis.symbols for hypothesis in beam.hypotheses], beam.best.symbols
    ([(2,), (1,)], (2,))
    """

    hypotheses: list[Hypothesis]
    """The best n_best, best first."""
    tree: list[Expansion]
    """What the search has weighed, each symbol after its parent; empty unless it was asked for. See `viz.draw_beam`."""

    @property
    def best(self) -> Hypothesis:
        """The hypothesis with the highest score."""
        return self.hypotheses[0]


def beam_search(
    model: Model,
    prompts: Sequence[Sequence[int]] | Ints,
    length: int,
    width: int,
    *,
    state: Any = None,
    stop: Stop = None,
    length_penalty: float | str = 0.0,
    n_best: int = 1,
    batch_axis: int = 1,
    captured: bool = True,
    tree: int = 0,
) -> list[Beam]:
    """Look for the most probable continuations of B prompts.

    The beam holds `width` hypotheses. At each step every one that has not finished is extended by every symbol, and the
    likeliest of all extensions fill the places that finished ones do not take. So width=1 is greedy, and a width that
    is never exceeded is exhaustive. A search ends when all hypotheses have finished, at the length, or when nothing
    that goes on can still come among the n_best. All B·width hypotheses are one batch of the model.

        score = log P(Y) / lp(Y);   lp(Y) = ((5 + |Y|) / 6)^α,  or |Y| for length_penalty="mean"

    where |Y| counts the stop symbol. Finished hypotheses come first, each by its score; then those that the length has
    cut. Of equal ones the earlier finished comes first, then the one with the better beginning, then the lower symbol.

    Args:
        model: (x (T, B) of ints, state) -> (logits (T, B, V), state): a Module, or a method of one such as
            `model.decode`, which are run in evaluation mode; or any function.
        prompts: (T, B), one symbol or more for each input: np.full((1, B), begin) for a decoder.
        length: the most symbols of a hypothesis, its stop symbol among them.
        width: hypotheses for each input.
        state: what the model remembers before the prompts, such as its memory of B encoded inputs: tensors with B at
            `batch_axis`, in any nesting; what else is in there goes with every hypothesis alike.
        stop: a symbol, or several, that finishes a hypothesis.
        length_penalty: α, 0 or more (0: none; long sequences win with 0.6 to 1 that would lose with 0), or "mean".
        n_best: hypotheses to return for each input; fewer, if there are not so many sequences.
        captured: as for `generate`.
        tree: how many of each hypothesis' likeliest extensions to note, beside those that are kept, for a picture.

    Returns: B beams.
    Source: Graves 2012, "Sequence Transduction with Recurrent Neural Networks"; Sutskever, Vinyals & Le 2014 (finished
        hypotheses leave the beam); Wu et al. 2016, "Google's Neural Machine Translation System" (the length penalty).
    Raises: ValueError for an option out of range; ShapeError for prompts, logits or a state of another shape;
        DTypeError and IndexRangeError for a stop symbol that is no whole number, or that the model does not have;
        NonFiniteError if all logits are −∞, or one is NaN or ∞.

    >>> import math
    >>> import tinyrnn as tr
    >>> from tinyrnn.generate import beam_search
    >>> p = tr.tensor([[0.1, 0.5, 0.4], [0.4, 0.3, 0.3], [0.8, 0.1, 0.1]])
    >>> model = lambda x, state: (tr.log(p[x]), state)  # p[a, b]: b follows a; 0 ends
    >>> for width in (1, 2):
    ...     best = beam_search(model, [[0]], length=9, width=width, stop=0)[0].best
    ...     print(best.symbols, round(math.exp(best.log_probability), 2))
    (1,) 0.2
    (2,) 0.32
    """
    x = _prompts("beam_search", prompts)
    _check_options(length, width, n_best, tree)
    penalty, B = _penalty(length_penalty), x.shape[1]
    read = _Reader("beam_search", model, stop, captured)
    logits, state = read(x, state)
    searches = [_Search(length, width, n_best, tree, read.stop, penalty) for _ in range(B)]
    repeated, in_place = np.repeat(np.arange(B), width), np.arange(B * width)
    state, logits = take_batch(state, repeated, batch_axis, B), logits[repeated]
    while True:
        places = [b * width + place for b, search in enumerate(searches) for place in range(len(search.live))]
        below = _below_the_largest("beam_search", logits.numpy()[places])
        log_p = below - np.log(np.exp(below).sum(axis=-1, keepdims=True))
        ends = np.cumsum([len(search.live) for search in searches])[:-1]
        for search, of_its_own in zip(searches, np.split(log_p, ends), strict=True):
            search.extend(of_its_own)
        if not any([search.live for search in searches]):
            return [Beam([*search.finished, *search.cut][:n_best], search.tree) for search in searches]
        rows, x = in_place.copy(), np.zeros((1, B * width), np.int64)  # a free place goes on with anything
        for b, search in enumerate(searches):
            for place, hypothesis in enumerate(search.live, start=b * width):
                rows[place], x[0, place] = b * width + hypothesis.parent, hypothesis.symbols[-1]
        if not np.array_equal(rows, in_place):
            state = take_batch(state, rows, batch_axis)
        logits, state = read(x, state)


class _Live(NamedTuple):
    """A hypothesis that goes on."""

    symbols: tuple[int, ...]
    total: float
    parent: int  # the place of the hypothesis that it extends, among those that lived one symbol earlier
    node: int  # its own place in the tree


class _Search:
    """The beam of one input: hypotheses that go on, those that have finished, and the tree."""

    def __init__(
        self, length: int, width: int, n_best: int, tree: int, stop: Ints, penalty: Callable[[int], float]
    ) -> None:
        self.length, self.width, self.n_best, self.shown = length, width, n_best, tree
        self.stop, self.penalty = set(stop.tolist()), penalty
        self.live = [_Live((), 0.0, 0, -1)]
        self.finished: list[Hypothesis] = []
        self.cut: list[Hypothesis] = []
        self.tree: list[Expansion] = []

    def extend(self, log_p: Floats) -> None:
        """Go one symbol on, given log P (n, V) of what follows each of the n hypotheses that live."""
        if not self.live:
            return
        V = log_p.shape[1]
        totals = log_p + np.array([parent.total for parent in self.live])[:, None]
        kept = [divmod(position, V) for position in _largest(totals.reshape(-1), self.width - len(self.finished))]
        nodes = self._noted(log_p, totals, kept)
        parents, self.live = self.live, []
        for place, symbol in kept:
            symbols, total = parents[place].symbols, float(totals[place, symbol])
            if symbol in self.stop:
                self.finished.append(self._hypothesis(symbols, total, 1))
            else:
                self.live.append(_Live((*symbols, symbol), total, place, nodes.get((place, symbol), -1)))
        self.finished.sort(key=lambda hypothesis: -hypothesis.score)
        if self._is_over():
            self.cut = [self._hypothesis(hypothesis.symbols, hypothesis.total, 0) for hypothesis in self.live]
            self.live = []

    def _hypothesis(self, symbols: tuple[int, ...], total: float, stops: int) -> Hypothesis:
        return Hypothesis(symbols, total, total / self.penalty(len(symbols) + stops), stops == 1)

    def _is_over(self) -> bool:
        """Tell whether the length is reached, or nothing that goes on can still come among the n_best."""
        if not self.live or len(self.live[0].symbols) == self.length:
            return True
        if len(self.finished) < self.n_best:
            return False
        attainable = self.live[0].total / self.penalty(self.length)  # if all that follows were certain
        return self.finished[self.n_best - 1].score >= attainable

    def _noted(self, log_p: Floats, totals: Floats, kept: list[tuple[int, int]]) -> dict[tuple[int, int], int]:
        """Write the likeliest extensions of each hypothesis into the tree, and return where each one is."""
        nodes: dict[tuple[int, int], int] = {}
        for place, parent in enumerate(self.live if self.shown else []):
            weighed = {*_largest(totals[place], self.shown), *(symbol for at, symbol in kept if at == place)}
            for symbol in sorted(weighed, key=lambda symbol: (-totals[place, symbol], symbol)):
                nodes[place, symbol] = len(self.tree)
                p, total = float(log_p[place, symbol]), float(totals[place, symbol])
                self.tree.append(Expansion(parent.node, symbol, p, total, (place, symbol) in kept, symbol in self.stop))
        return nodes


def _largest(values: Floats, n: int) -> list[int]:
    """Return where the n largest values are, the first of equal ones first, and none that is −∞."""
    least = np.partition(values, -n)[-n] if n < len(values) else -np.inf
    found = np.flatnonzero((values >= least) & (values > -np.inf))
    return found[np.argsort(-values[found], kind="stable")][:n].tolist()


def _penalty(given: float | str) -> Callable[[int], float]:
    """Return the length penalty lp(|Y|)."""
    if given == "mean":
        return float
    if isinstance(given, str) or not 0 <= given < math.inf:
        raise ValueError(f"beam_search: length_penalty is {given!r}; expected a number of 0 or more, or 'mean'")
    return lambda n: ((5 + n) / 6) ** given


def _check_options(length: int, width: int, n_best: int, tree: int) -> None:
    for name, value, least in (("length", length, 1), ("width", width, 1), ("n_best", n_best, 1), ("tree", tree, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"beam_search: {name} is {value!r}; expected an int of {least} or more")
    if n_best > width:
        raise ValueError(f"beam_search: n_best is {n_best} and width {width}; expected a width of {n_best} or more")


# ---------------------------------------------------------------- what they share


def take_batch(state: Any, index: npt.ArrayLike, axis: int = 1, batch: int | None = None) -> Any:
    """Return a state with other sequences of its batch: left out, repeated, or in another order.

        state' [:, i] = state[:, index[i]]

    Args:
        state: a tensor, or a (nested) tuple, NamedTuple, list or dict of them: what a model remembers of B sequences.
        index: (B',) positions in the batch.
        axis: the batch's axis in every tensor.
        batch: B, if it is known, to be checked.

    Tensors of no axes, numbers, text and None belong to no sequence, and stay.

    Raises: ShapeError for tensors that have no such axis, or another length there; DTypeError for an index of anything
        but whole numbers in one dimension, or anything else in the state; IndexRangeError for a position outside the
        batch.

    >>> import tinyrnn as tr
    >>> from tinyrnn.generate import take_batch
    >>> take_batch({"h": tr.tensor([[1, 2, 3]]), "step": 7}, [2, 2, 0])
    {'h': tensor([[3, 3, 1]], shape=(1, 3), dtype=int64), 'step': 7}
    """
    chosen = np.asarray(index)
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise DTypeError(
            f"take_batch: the index is {chosen.shape} of {chosen.dtype}; expected positions, whole numbers (B',): "
            "np.flatnonzero(mask) gives those of a mask"
        )
    where = (slice(None),) * axis + (chosen.astype(np.int64),)
    sizes = {part.shape[axis : axis + 1] for part in leaves(state) if isinstance(part, Tensor) and part.shape}
    if () in sizes or len(sizes) > 1 or (batch is not None and sizes - {(batch,)}):
        shapes = ", ".join(str(part.shape) for part in leaves(state) if isinstance(part, Tensor))
        expected = "the same length" if batch is None else f"B={batch}"
        raise ShapeError(
            f"take_batch: the state holds tensors {shapes}; expected {expected} at axis {axis}, the batch's"
        )

    def taken(part: Any) -> Any:
        if isinstance(part, Tensor):
            return part[where] if part.shape else part
        if part is None or isinstance(part, bool | int | float | str):
            return part
        raise DTypeError(f"take_batch: the state holds {type(part).__name__}; expected tensors, numbers, text and None")

    return mapped(state, taken)


def _prompts(name: str, prompts: Any) -> Ints:
    """Return prompts as an array, having seen that they are whole numbers (T, B)."""
    x = np.asarray(prompts)
    if x.ndim != 2 or x.size == 0 or x.dtype.kind not in "iu":
        raise ShapeError(
            f"{name}: the prompts are {x.shape} of {x.dtype}; expected whole numbers (T, B), a column of one "
            "symbol or more for each sequence: np.full((1, B), begin)"
        )
    return x.astype(np.int64, copy=False)


def _stops(name: str, stop: Stop) -> Ints:
    """Return the stop symbols, from the lowest to the highest."""
    if stop is None:
        return np.zeros(0, np.int64)
    symbols = np.array(list(stop) if isinstance(stop, Collection) else [stop])
    if symbols.size and (symbols.ndim != 1 or symbols.dtype.kind not in "iu"):
        raise DTypeError(f"{name}: stop is {stop!r}; expected a symbol, which is a whole number, or several")
    return np.sort(symbols).astype(np.int64)


class _Reader:
    """A model that is read from: in evaluation mode, with no graph, and captured if it can be."""

    def __init__(self, name: str, model: Model, stop: Stop, captured: bool) -> None:
        owner = getattr(model, "__self__", model)  # of a method
        self.name = name
        self.modules = [module for _, module in owner.named_modules()] if isinstance(owner, Module) else []
        self.step = _Step(model, owner) if captured and isinstance(owner, Module) else model
        self.stop = _stops(name, stop)

    def __call__(self, x: Ints, state: Any) -> tuple[Tensor, Any]:
        """Return the logits (B, V) of the symbols that follow x (T, B), and the state."""
        training = [module.training for module in self.modules]
        try:
            with no_grad():  # not around a caller's loop: what stands between two symbols is the caller's
                for module in self.modules:
                    module.training = False
                logits, state = self._checked(self.step(tensor(x), state), x)
                if len(self.stop) and not 0 <= self.stop[0] <= self.stop[-1] < logits.shape[2]:
                    raise IndexRangeError(
                        f"{self.name}: stop is {self.stop.tolist()}; expected symbols from 0 to {logits.shape[2] - 1}, "
                        "which the model has logits for"
                    )
                return logits[-1], state
        finally:
            for module, mode in zip(self.modules, training, strict=True):
                module.training = mode

    def _checked(self, found: Any, x: Ints) -> tuple[Tensor, Any]:
        """Return what the model made of x, having seen that it is logits and a state."""
        two = isinstance(found, tuple) and len(found) == 2
        logits = found[0] if two else found
        fits = isinstance(logits, Tensor) and logits.ndim == 3 and logits.shape[1] == x.shape[1] and logits.size > 0
        if not two or not fits:
            given = f"a tensor {logits.shape}" if isinstance(logits, Tensor) else type(logits).__name__
            raise ShapeError(
                f"{self.name}: the model made {given}{' and a state' if two else ''} of x {x.shape}; expected logits "
                f"(T, B, V) with B={x.shape[1]}, and a state, which may be None: return logits, state"
            )
        return logits, found[1]


class _Step:
    """A model's step, captured once its first repetitions have come to what the model itself does."""

    def __init__(self, model: Model, owner: Module) -> None:
        self.model, self.captured = model, capture(model, owner)
        self.trials = 4  # of which two are repetitions: the first has no state, and the second is recorded anew

    def __call__(self, x: Tensor, state: Any) -> Any:
        if self.trials < 0:  # a model that looks at values, or counts, or draws, or whose state grows
            return self.model(x, state)
        try:
            found = self.captured(x, state)
        except CaptureError:
            self.trials = -1
            return self.model(x, state)
        if self.trials > 0:
            expected = self.model(x, state)
            same = all(map(_equal, leaves(found), leaves(expected)))
            self.trials = self.trials - 1 if same and len(self.captured.programs) <= 2 else -1
            return expected
        return found


def _equal(a: Any, b: Any) -> bool:
    """Tell whether two results are the same; on another device than the CPU the last digits may differ."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return bool(a == b)
    if a.backend.name == "numpy" or not a.dtype.is_floating:
        return bool(np.array_equal(a.numpy(), b.numpy()))
    return a.shape == b.shape and bool(np.allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-4))
