"""From logits to the next symbol: cuts, draws, and one symbol after another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyrnn as tr
from tinyrnn.generate import draw, generate, next_distribution

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


@pytest.mark.parametrize("options", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
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
