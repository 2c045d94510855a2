"""From logits to the next symbol: cuts, draws, one symbol after another, many sequences at once, and beam search."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyrnn as tr
from tinyrnn import nn
from tinyrnn.generate import beam_search, draw, generate, next_distribution, sample, take_batch

LOGITS = [2.0, 1.0, 0.0, -1.0]
P = np.exp(LOGITS) / np.exp(LOGITS).sum()  # 0.644 0.237 0.087 0.032


def distribution(**options):
    return next_distribution(tr.tensor(LOGITS, dtype="float64"), **options)


def test_without_a_cut_it_is_the_softmax(backend):
    np.testing.assert_allclose(distribution(), P)


def test_temperature_divides_the_logits():
    np.testing.assert_allclose(distribution(temperature=0.5), P**2 / (P**2).sum())


def test_temperature_0_is_greedy():
    assert distribution(temperature=0).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(("options", "kept"), [
    ({"top_k": 1}, 1), ({"top_k": 3}, 3), ({"top_k": 9}, 4),
    ({"top_p": 0.64}, 1), ({"top_p": 0.65}, 2), ({"top_p": 0.88}, 2), ({"top_p": 0.89}, 3), ({"top_p": 1.0}, 4),
    ({"top_k": 2, "top_p": 0.7}, 1), ({"top_k": 2, "top_p": 0.8}, 2),
])  # fmt: skip
def test_cuts_keep_the_likeliest_and_sum_to_1(options, kept):
    expected = np.where(np.arange(4) < kept, P, 0)
    np.testing.assert_allclose(distribution(**options), expected / expected.sum())


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=12), st.floats(0.01, 1))
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(logits, top_p):
    x = tr.tensor(np.array(logits))
    p = next_distribution(x)
    kept = p[next_distribution(x, top_p=top_p) > 0]
    assert kept.sum() >= top_p - 1e-9
    assert kept.sum() - kept.min() < top_p + 1e-9


def cut_directly(logits, top_k, top_p):
    """Return the distribution as the definition says it, one symbol after the other."""
    p = np.exp(logits - logits.max())
    p = (p / p.sum()).tolist()
    order = sorted(range(len(p)), key=lambda symbol: (-logits[symbol], symbol))
    kept, mass = [], 0.0
    within = order[: top_k or len(p)]
    for symbol in within:
        if top_p is not None and mass >= top_p * math.fsum(p[s] for s in within):
            break
        kept.append(symbol)
        mass += p[symbol]
    return np.array([p[symbol] / mass if symbol in kept else 0.0 for symbol in range(len(p))])


@given(
    st.lists(st.integers(-30, 30), min_size=1, max_size=10),  # tenths, so that there are ties
    st.none() | st.integers(1, 12),
    st.none() | st.floats(0.013, 1),
)
def test_cuts_agree_with_a_direct_computation(tenths, top_k, top_p):
    logits = np.array(tenths) / 10
    found = next_distribution(tr.tensor(logits), top_k=top_k, top_p=top_p)
    np.testing.assert_allclose(found, cut_directly(logits, top_k, top_p), rtol=1e-9, atol=1e-12)


def test_of_equally_likely_symbols_the_first_is_greedys_choice():
    assert next_distribution(tr.tensor([0.0, 2.0, 2.0]), temperature=0).tolist() == [0, 1, 0]
    assert next_distribution(tr.tensor([1.0, 2.0, 2.0, 2.0]), top_k=2).tolist() == [0, 0.5, 0.5, 0]


def test_a_temperature_close_to_0_is_greedy():
    assert distribution(temperature=1e-310).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(("logits", "named"), [
    ([-np.inf, -np.inf], "-inf"), ([0.0, np.nan], "nan"), ([np.inf, 0.0], "inf"),
])  # fmt: skip
def test_logits_that_mean_nothing_are_refused(logits, named):
    with pytest.raises(tr.errors.NonFiniteError, match=f"the largest logit is {named}; expected a finite one"):
        next_distribution(tr.tensor([[0.0, 0.0], logits]))


def test_batches_are_cut_row_by_row():
    rows = tr.tensor([LOGITS, LOGITS[::-1]], dtype="float64")
    both = next_distribution(rows, top_k=2)
    np.testing.assert_allclose(both[0], both[1][::-1])


def test_ruled_out_symbols_are_never_drawn():
    p = next_distribution(tr.tensor([0.0, -np.inf, 0.0]))
    symbols = draw(np.tile(p, (1000, 1)), tr.Generator(0))
    assert set(symbols.tolist()) == {0, 2}


def test_draws_come_as_often_as_they_should():
    symbols = draw(np.tile(P, (20_000, 1)), tr.Generator(0))
    np.testing.assert_allclose(np.bincount(symbols) / 20_000, P, atol=0.01)


@pytest.mark.parametrize("options", [
    {"temperature": -1}, {"temperature": math.inf}, {"temperature": math.nan},
    {"top_k": 0}, {"top_k": 2.5}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_p": math.nan},
])  # fmt: skip
def test_options_out_of_range_are_named(options):
    with pytest.raises(ValueError, match=f"next_distribution: {next(iter(options))} is .*; expected"):
        distribution(**options)


class Counter(tr.nn.Module):
    """Expects the symbol after the last one, of 5, and counts what it was shown in its state."""

    def forward(self, x, state=None):
        assert not self.training
        return tr.one_hot((x + 1).numpy() % 5, 5) * 50.0, (state or 0) + len(x)


def test_each_symbol_is_fed_back():
    model = Counter()
    assert list(generate(model, [2, 3], 6, generator=tr.Generator(0))) == [4, 0, 1, 2, 3, 4]
    assert model.training


def test_the_callers_mode_and_stream_are_left_alone(backend):
    before = tr.manual_seed(3).state
    symbols = generate(Counter(), [0], 3, generator=tr.Generator(0))
    next(symbols)
    assert tr.is_grad_enabled()
    assert tr.manual_seed(3).state == before


def test_an_empty_prompt_is_refused():
    with pytest.raises(tr.errors.ShapeError, match="prompt is empty"):
        next(generate(Counter(), [], 1))


@pytest.mark.parametrize(("prompt", "given"), [
    ([1.7], r"\(1,\) of float64"),
    (["1"], r"\(1,\) of <U1"),
    ("12", r"\(\) of <U2"),
    ([[1], [2]], r"\(2, 1\) of int64"),
])  # fmt: skip
def test_a_prompt_is_whole_numbers_of_one_sequence(prompt, given):
    with pytest.raises(tr.errors.ShapeError, match=f"generate: the prompt is {given}; expected whole numbers"):
        next(generate(Counter(), prompt, 1))


@pytest.mark.parametrize("write", [lambda n: next(generate(Counter(), [1], n)), lambda n: sample(Counter(), [[1]], n)])
def test_a_length_below_0_is_refused(write):
    with pytest.raises(ValueError, match="length is -1; expected an int of 0 or more"):
        write(-1)


# ---------------------------------------------------------------- many sequences at once


class Writer(nn.Module):
    """A small language model with a dropout that must be off, and logits far enough apart to matter."""

    def __init__(self, V=5, H=6, layer=nn.LSTM):
        self.embedding = nn.Embedding(V, H)
        self.recurrent = layer(H, H, 2)
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(H, V)
        self.output.W.assign(tr.randn(H, V) * 3)

    def forward(self, x, state=None):
        h, state = self.recurrent(self.embedding(x), state)
        return self.output(self.dropout(h)), state


class Memory(NamedTuple):
    keys: tr.Tensor
    mask: tr.Tensor | None


class Decoder(Writer):
    """Looks at an encoder's memory, which its state carries, and has `decode` for a method."""

    def __init__(self, V=5, H=6):
        super().__init__(V, H, nn.GRU)
        self.attention = nn.Attention(H, score="dot")

    def encode(self, keys, lengths=None):
        mask = None if lengths is None else tr.arange(len(keys)).reshape(-1, 1) < tr.tensor(lengths)
        return {"memory": Memory(keys, mask), "h": None, "name": "encoder"}

    def decode(self, x, state):
        h, after = self.recurrent(self.embedding(x), state["h"])
        context, _ = self.attention(h, state["memory"].keys, mask=state["memory"].mask)
        return self.output(self.dropout(h) + context), {**state, "h": after}


def test_many_are_sampled_as_each_by_itself(backend):
    model = Writer()
    prompts = np.array([[1, 2, 3, 4], [0, 4, 2, 1]])
    found = sample(model, prompts, 8, temperature=0)
    assert found == [list(generate(model, prompts[:, b], 8, temperature=0)) for b in range(4)]
    assert model.training
    assert model.dropout.training


def test_one_alone_is_drawn_as_generate_draws_it():
    model = Writer()
    drawn = sample(model, [[1]], 30, generator=tr.Generator(5), top_k=3)
    assert drawn == [list(generate(model, [1], 30, generator=tr.Generator(5), top_k=3))]
    assert len(set(drawn[0])) > 2


def test_each_sequence_ends_on_its_own(backend):
    assert sample(Counter(), [[2, 4, 0, 3]], 3, stop=0, temperature=0) == [[3, 4], [], [1, 2, 3], [4]]
    assert sample(Counter(), [[2, 4, 0, 3]], 9, stop={0, 3}, temperature=0) == [[], [], [1, 2], [4]]
    assert list(generate(Counter(), [1], 9, stop=4, temperature=0)) == [2, 3]


def test_a_stop_symbol_that_never_comes_leaves_it_to_the_length():
    never = Table([[0.0, 1.0, -np.inf], [1.0, 0.0, -np.inf], [0.0, 0.0, 0.0]])
    assert sample(never, [[0, 1]], 5, stop=2, temperature=0) == [[1, 0, 1, 0, 1], [0, 1, 0, 1, 0]]
    assert sample(never, [[0, 1]], 0) == [[], []]


def test_what_has_ended_is_not_looked_at():
    ends_in_nan = Table([[0.0, 9.0, 0.0], [np.nan] * 3, [0.0, 0.0, 9.0]])
    assert sample(ends_in_nan, [[0, 2]], 4, stop=1, temperature=0) == [[], [2, 2, 2, 2]]


def test_a_method_is_run_in_evaluation_mode(backend):
    model = Decoder()
    keys = tr.randn(4, 3, 6)
    state = model.encode(keys, [4, 2, 3])
    found = sample(model.decode, [[1, 1, 1]], 6, state=state, temperature=0)
    alone = [
        sample(model.decode, [[1]], 6, state=model.encode(keys[:, b : b + 1], [n]), temperature=0)[0]
        for b, n in enumerate([4, 2, 3])
    ]
    assert found == alone
    assert model.training


class Growing(nn.Module):
    """Keeps all that it has read, as a Transformer does: its state has another shape at every step."""

    recorded = 0

    def __init__(self):
        self.embedding = nn.Embedding(5, 5)

    def forward(self, x, state=None):
        self.recorded += x.backend.name == "a tape"
        read = self.embedding(x)
        read = read if state is None else tr.concatenate([state, read])
        return read.mean(0, keepdims=True) * 9, read


def test_a_state_that_grows_is_not_captured_again_and_again():
    model = Growing()
    found = sample(model, [[1, 2, 3]], 12, temperature=0)
    assert model.recorded == 3
    assert found == sample(model, [[1, 2, 3]], 12, temperature=0, captured=False)


@pytest.mark.parametrize(("prompts", "given"), [
    ([1, 2], r"\(2,\) of int64"), ([[]], r"\(1, 0\) of float64"), ([[0.5]], r"\(1, 1\) of float64"),
])  # fmt: skip
def test_prompts_of_another_shape_are_refused(prompts, given):
    for search in (lambda: sample(Counter(), prompts, 3), lambda: beam_search(Counter(), prompts, 3, 2)):
        with pytest.raises(tr.errors.ShapeError, match=rf"the prompts are {given}; expected whole numbers \(T, B\)"):
            search()


@pytest.mark.parametrize("stop", [5, -1, [0, 5]])
def test_a_stop_symbol_that_there_is_not_is_refused(stop):
    with pytest.raises(tr.errors.IndexRangeError, match=r"stop is .*; expected symbols from 0 to 4"):
        list(generate(Counter(), [1], 3, stop=stop))


@pytest.mark.parametrize("stop", [1.5, "a", [0, 1.5], True])
def test_a_stop_symbol_is_a_whole_number(stop):
    for search in (
        lambda: list(generate(Counter(), [1], 3, stop=stop)),
        lambda: beam_search(Counter(), [[1]], 3, 2, stop=stop),
    ):
        with pytest.raises(tr.errors.DTypeError, match=r"stop is .*; expected a symbol, which is a whole number"):
            search()


@pytest.mark.parametrize("stop", [[], (), np.zeros(0, int)])
def test_no_stop_symbols_stop_nothing(stop):
    assert list(generate(Counter(), [1], 3, stop=stop, temperature=0)) == [2, 3, 4]


@pytest.mark.parametrize(("model", "made"), [
    (lambda x, state: (tr.zeros(2, 5), state), r"a tensor \(2, 5\) and a state"),
    (lambda x, state: (tr.zeros(1, 3, 5), state), r"a tensor \(1, 3, 5\) and a state"),
    (lambda x, state: tr.zeros(2, 2, 5), r"a tensor \(2, 2, 5\)"),
    (lambda x, state: None, "NoneType"),
    (lambda x, state: (1.0, state), "float and a state"),
])  # fmt: skip
def test_what_are_no_logits_is_refused(model, made):
    expected = rf"the model made {made} of x \(1, 2\); expected logits \(T, B, V\) with B=2, and a state"
    with pytest.raises(tr.errors.ShapeError, match=expected):
        sample(model, [[0, 0]], 3)


# ---------------------------------------------------------------- beam search


class Table(nn.Module):
    """Logits of b after a, as a table says: a Markov chain, which has no state."""

    def __init__(self, logits):
        self.logits = nn.Parameter(tr.tensor(logits, dtype="float64"))

    def forward(self, x, state=None):
        return self.logits[x], state


def log_p(model, prompt, symbols, state=None):
    """Return log P(symbols | prompt), all read at once."""
    x = np.array([*prompt, *symbols])[:, None]
    model.eval()
    with tr.no_grad():
        logits = model(tr.tensor(x[:-1]), state)[0].numpy()[len(prompt) - 1 :, 0].astype(float)
    model.train()
    logits -= logits.max(-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return logits[np.arange(len(symbols)), list(symbols)].sum()


def lp(n, alpha):
    return float(n) if alpha == "mean" else ((5 + n) / 6) ** alpha


def searched_exhaustively(model, prompt, V, length, stop, alpha):
    """Return (symbols, log probability, score) of all sequences that end, best first, then of all that are cut."""
    going_on = [symbol for symbol in range(V) if symbol != stop]
    ended, cut = [], []
    for n in range(length):
        for symbols in itertools.product(going_on, repeat=n):
            p = log_p(model, prompt, (*symbols, stop))
            ended.append((symbols, p, p / lp(n + 1, alpha)))
    for symbols in itertools.product(going_on, repeat=length):
        p = log_p(model, prompt, symbols)
        cut.append((symbols, p, p / lp(length, alpha)))
    return [*sorted(ended, key=lambda row: -row[2]), *sorted(cut, key=lambda row: -row[2])], len(ended)


@pytest.mark.parametrize("alpha", [0.0, 0.7, "mean"])
@pytest.mark.parametrize("layer", [nn.LSTM, nn.RNN])
def test_wide_enough_it_is_an_exhaustive_search(layer, alpha):
    model = Writer(V=3, layer=layer)
    prompt = [1, 2]
    expected, ended = searched_exhaustively(model, prompt, 3, 4, stop=0, alpha=alpha)
    (beam,) = beam_search(
        model, np.array(prompt)[:, None], 4, width=40, stop=0, length_penalty=alpha, n_best=len(expected)
    )
    assert [hypothesis.symbols for hypothesis in beam.hypotheses] == [row[0] for row in expected]
    numbers = [(hypothesis.log_probability, hypothesis.score) for hypothesis in beam.hypotheses]
    np.testing.assert_allclose(numbers, [row[1:] for row in expected], rtol=1e-4, atol=1e-5)
    assert [hypothesis.finished for hypothesis in beam.hypotheses] == [True] * ended + [False] * (len(expected) - ended)


@pytest.mark.parametrize("stops", [0, 1, 2])
def test_a_width_of_1_is_greedy(stops):
    model = Writer(V=7)
    prompts = np.arange(14).reshape(2, 7) % 7
    stop = sample(model, prompts, 9, temperature=0)[0][3 : 3 + stops]
    beams = beam_search(model, prompts, 9, width=1, stop=stop)
    greedy = sample(model, prompts, 9, stop=stop, temperature=0)
    assert [list(beam.best.symbols) for beam in beams] == greedy
    assert [beam.best.finished for beam in beams] == [len(symbols) < 9 for symbols in greedy]
    assert beams[0].best.finished == (stops > 0)


@pytest.mark.parametrize("captured", [True, False])
def test_a_batch_is_searched_as_each_input_by_itself(backend, captured):
    model = Decoder(V=6)
    keys = tr.randn(4, 5, 6)
    lengths = [4, 1, 3, 2, 4]
    options = {"stop": 0, "length_penalty": 0.8, "n_best": 3, "captured": captured}
    together = beam_search(model.decode, np.ones((1, 5), int), 7, width=4, state=model.encode(keys, lengths), **options)
    for b, n in enumerate(lengths):
        state = model.encode(keys[:, b : b + 1], [n])
        (alone,) = beam_search(model.decode, [[1]], 7, width=4, state=state, **options)
        assert [h.symbols for h in together[b].hypotheses] == [h.symbols for h in alone.hypotheses]
        np.testing.assert_allclose(
            [h.score for h in together[b].hypotheses], [h.score for h in alone.hypotheses], rtol=1e-4
        )
    assert len({beam.best.symbols for beam in together}) > 1
    assert model.training


def test_states_follow_their_hypotheses():
    model = Writer(V=6)
    beams = beam_search(model, [[1, 2, 3]], 6, width=5, n_best=5)
    for prompt, beam in zip([1, 2, 3], beams, strict=True):
        for hypothesis in beam.hypotheses:
            assert math.isclose(log_p(model, [prompt], hypothesis.symbols), hypothesis.log_probability, rel_tol=1e-4)


@given(st.integers(0, 2**32), st.integers(1, 4), st.sampled_from([0.0, 1.0, "mean"]))
def test_a_search_that_ends_early_finds_the_same(seed, n_best, alpha):
    table = Table(tr.Generator(seed).host.normal(size=(5, 5)) * 2)
    options = {"width": 4, "stop": 0, "length_penalty": alpha}
    (few,) = beam_search(table, [[1]], 8, n_best=n_best, captured=False, **options)
    (all_of_them,) = beam_search(table, [[1]], 8, n_best=4, captured=False, **options)
    assert few.hypotheses == all_of_them.hypotheses[:n_best]


def test_a_search_ends_early():
    seen = []

    def model(x, state):
        seen.append(len(x))
        return tr.log(tr.tensor([0.9, 0.05, 0.05])) + tr.zeros(*x.shape, 3), state

    assert beam_search(model, [[1]], 50, width=3, stop=0)[0].best.symbols == ()
    assert len(seen) < 5


def test_a_wider_beam_sees_past_a_bad_start():
    table = Table(np.log([[0.1, 0.5, 0.4], [0.4, 0.3, 0.3], [0.8, 0.1, 0.1]]))
    assert beam_search(table, [[0]], 9, width=1, stop=0)[0].best.symbols == (1,)
    best = beam_search(table, [[0]], 9, width=2, stop=0)[0].best
    assert best.symbols == (2,)
    assert math.isclose(best.log_probability, math.log(0.4 * 0.8))


def test_length_normalisation_lets_longer_sequences_win():
    table = Table(np.log([[1e-9, 1.0, 1e-9], [0.5, 1e-9, 0.5], [0.95, 0.05, 1e-9]]))
    short, long = ((1,), math.log(0.5)), ((1, 2), math.log(0.5 * 0.95))
    for alpha, (symbols, p), n in ((0.0, short, 2), (1.0, long, 3), ("mean", long, 3)):
        best = beam_search(table, [[0]], 9, width=5, stop=0, length_penalty=alpha)[0].best
        assert best.symbols == symbols
        assert math.isclose(best.score, p / lp(n, alpha), abs_tol=1e-6)


def test_of_equal_hypotheses_the_lower_symbols_come_first():
    (beam,) = beam_search(Table(np.zeros((3, 3))), [[0]], 2, width=4, n_best=4)
    assert [hypothesis.symbols for hypothesis in beam.hypotheses] == [(0, 0), (0, 1), (0, 2), (1, 0)]


def test_ruled_out_symbols_are_never_taken():
    no = -np.inf
    table = Table([[no, 0.0, no], [0.0, no, 0.0], [no, 0.0, no]])
    (beam,) = beam_search(table, [[0]], 3, width=8, n_best=8)
    assert [hypothesis.symbols for hypothesis in beam.hypotheses] == [(1, 0, 1), (1, 2, 1)]


@pytest.mark.parametrize("bad", [-np.inf, np.nan])
def test_a_hypothesis_that_nothing_can_follow_is_an_error(bad):
    table = Table([[0.0, 1.0], [bad, bad]])
    with pytest.raises(tr.errors.NonFiniteError, match="beam_search: the largest logit is"):
        beam_search(table, [[0]], 3, width=2)
    assert beam_search(table, [[0]], 3, width=2, stop=1)[0].best.symbols == ()  # nobody asks what follows the end


def test_at_the_length_what_has_finished_comes_first():
    table = Table(np.log([[0.01, 0.99], [0.01, 0.99]]))
    (beam,) = beam_search(table, [[1]], 3, width=3, stop=0, n_best=2)
    assert [(h.symbols, h.finished) for h in beam.hypotheses] == [((), True), ((1,), True)]
    (beam,) = beam_search(table, [[1]], 3, width=1, stop=0)
    assert beam.hypotheses == [((1, 1, 1), beam.best.log_probability, beam.best.score, False)]


@pytest.mark.parametrize(("options", "message"), [
    ({"width": 0}, "width is 0; expected an int of 1 or more"),
    ({"length": 0}, "length is 0; expected an int of 1 or more"),
    ({"n_best": 3}, "n_best is 3 and width 2; expected a width of 3 or more"),
    ({"tree": -1}, "tree is -1; expected an int of 0 or more"),
    ({"length_penalty": -1.0}, "length_penalty is -1.0; expected a number of 0 or more, or 'mean'"),
    ({"length_penalty": "wu"}, "length_penalty is 'wu'; expected a number of 0 or more, or 'mean'"),
])  # fmt: skip
def test_options_that_cannot_be_are_named(options, message):
    with pytest.raises(ValueError, match=f"beam_search: {message}"):
        beam_search(Counter(), [[0]], **{"length": 3, "width": 2} | options)


def test_the_tree_holds_what_was_weighed():
    model = Writer(V=4)
    (beam,) = beam_search(model, [[1]], 5, width=3, stop=0, n_best=3, tree=4)
    tree = beam.tree
    assert sum(node.parent == -1 for node in tree) == 4
    for place, node in enumerate(tree):
        before = tree[node.parent].total if node.parent >= 0 else 0.0
        assert node.parent < place
        assert math.isclose(node.total, before + node.log_probability, abs_tol=1e-9)
        after = [other for other in tree if other.parent == place]
        assert not after or (node.kept and node.symbol != 0)
        assert not after or math.isclose(sum(math.exp(other.log_probability) for other in after), 1.0)
    steps = [1] * len(tree)
    for place, node in enumerate(tree):
        steps[place] = 1 + (steps[node.parent] if node.parent >= 0 else 0)
    for step in range(1, 6):  # what has finished takes its place in the beam for good
        finished = sum(node.kept and node.finishes and at < step for node, at in zip(tree, steps, strict=True))
        assert sum(node.kept and at == step for node, at in zip(tree, steps, strict=True)) <= 3 - finished
    for hypothesis in beam.hypotheses:
        place = -1
        for symbol in (*hypothesis.symbols, *([0] if hypothesis.finished else [])):
            (place,) = (p for p, node in enumerate(tree) if (node.parent, node.symbol) == (place, symbol))
            assert tree[place].kept
        assert tree[place].total == hypothesis.log_probability


def test_the_tree_is_as_large_as_asked_for():
    (beam,) = beam_search(Writer(V=5), [[1]], 5, width=2, tree=1)
    for parent in {node.parent for node in beam.tree}:
        after = [node for node in beam.tree if node.parent == parent]
        assert [node.total for node in after] == sorted((node.total for node in after), reverse=True)
        assert len(after) == max(1, sum(node.kept for node in after))
    assert beam_search(Writer(V=5), [[1]], 5, width=2)[0].tree == []


# ---------------------------------------------------------------- the batch of a state


def test_sequences_are_taken_out_of_a_nested_state(backend):
    x = tr.tensor(np.arange(12.0).reshape(2, 3, 2))
    state = {"h": (Memory(x, None), [x > 3]), "count": tr.tensor(7), "step": 4}
    taken = take_batch(state, [2, 0, 0, 1])
    memory, (mask,) = taken["h"]
    assert isinstance(memory, Memory)
    np.testing.assert_array_equal(memory.keys.numpy(), x.numpy()[:, [2, 0, 0, 1]])
    np.testing.assert_array_equal(mask.numpy(), x.numpy()[:, [2, 0, 0, 1]] > 3)
    assert (memory.mask, taken["count"].item(), taken["step"]) == (None, 7, 4)
    assert take_batch(None, [0]) is None
    np.testing.assert_array_equal(take_batch(x, [1], axis=0).numpy(), x.numpy()[[1]])


def test_gradients_go_through_it():
    x = tr.tensor(np.arange(3.0)[None], requires_grad=True)
    take_batch(x, [2, 2, 0]).sum().backward()
    assert x.grad.tolist() == [[1, 0, 2]]


@pytest.mark.parametrize(("state", "options", "message"), [
    ([tr.zeros(2, 3), tr.zeros(3)], {}, "expected the same length at axis 1, the batch's"),
    ([tr.zeros(2, 3), tr.zeros(2, 4)], {}, "expected the same length at axis 1, the batch's"),
    ([tr.zeros(2, 3)], {"batch": 4}, "expected B=4 at axis 1"),
])  # fmt: skip
def test_a_state_with_the_batch_elsewhere_is_refused(state, options, message):
    with pytest.raises(tr.errors.ShapeError, match=message):
        take_batch(state, [0], **options)


@pytest.mark.parametrize("index", [[True, False, True], [0.5], 0, [[0, 1]]])
def test_an_index_is_positions(index):
    with pytest.raises(tr.errors.DTypeError, match=r"the index is \(.*; expected positions, whole numbers \(B',\)"):
        take_batch(tr.zeros(1, 3, 2), index)


def test_no_positions_leave_nothing():
    assert take_batch(tr.zeros(1, 3, 2), []).shape == (1, 0, 2)


def test_a_state_of_unknown_parts_is_refused():
    with pytest.raises(tr.errors.DTypeError, match="take_batch: the state holds ndarray; expected tensors"):
        take_batch([np.zeros((1, 2))], [0])


def test_a_state_of_another_batch_than_the_prompts_is_refused():
    batch_first = lambda x, state: (tr.zeros(1, 2, 5), tr.zeros(2, 7))
    with pytest.raises(tr.errors.ShapeError, match=r"holds tensors \(2, 7\); expected B=2 at axis 1"):
        beam_search(batch_first, [[1, 2]], 3, width=2)
    with pytest.raises(tr.errors.ShapeError, match=r"made a tensor \(1, 2, 5\) and a state of x \(1, 4\)"):
        beam_search(batch_first, [[1, 2]], 3, width=2, batch_axis=0)
