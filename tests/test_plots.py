"""Plots: what is drawn, and what is said where it cannot be."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import nn, viz
from tinyrnn.generate import next_distribution

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install -e '.[test]'")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")
SCRIPT = Path(__file__).parents[1] / "examples" / "gradient_flow.py"


@pytest.fixture(autouse=True, params=["default", "dark_background"])
def _style(request):
    with plt.style.context(request.param):
        yield
    plt.close("all")


def squares(out, y):
    return tr.sum(out * out, axis=-1)


def drawn(ax):
    """Return the image's values, with NaN where nothing is drawn, and its limits; having drawn the figure."""
    ax.figure.canvas.draw()
    (image,) = ax.images
    return image.get_array().filled(np.nan), image.get_clim()


def labels(ax):
    return ax.get_xlabel(), ax.get_ylabel()


@pytest.fixture
def flow():
    return viz.gradient_flow(nn.LSTM(2, 3, num_layers=2), (tr.randn(7, 2, 2), None), squares)


def test_gradient_flow_is_drawn_in_decades(flow):
    ax = viz.plot_gradient_flow(flow, "cells.1")
    values, (low, high) = drawn(ax)
    norms = flow["cells.1"].norms
    np.testing.assert_allclose(values, np.log10(norms), rtol=1e-12)
    np.testing.assert_allclose([low, high], [np.log10(np.nanmin(norms)), np.log10(np.nanmax(norms))])
    assert labels(ax) == ("k, step whose state receives it", "t, step of the loss")
    assert ax.get_title() == "Gradient flow, cells.1"
    assert ax.figure.axes[1].get_ylabel() == "log₁₀ ‖∂Lₜ/∂hₖ‖"
    assert ax.patch.get_hatch()


def test_gradient_flow_of_a_backward_direction_is_drawn_in_order_of_time():
    flow = viz.gradient_flow(nn.RNN(2, 3, bidirectional=True), (tr.randn(7, 2, 2), None), squares)
    values, _ = drawn(viz.plot_gradient_flow(flow, "cells.1"))
    np.testing.assert_allclose(values, np.log10(flow["cells.1"].norms[:, ::-1]), rtol=1e-12)
    np.testing.assert_array_equal(np.isnan(values), np.tri(7, k=-1, dtype=bool))


def test_gradient_flow_of_a_layer_on_axes_of_ones_own(flow):
    _, ax = plt.subplots()
    assert viz.plot_gradient_flow(flow["cells.0"], limits=(-3, 1), ax=ax) is ax
    assert drawn(ax)[1] == (-3, 1)
    with pytest.raises(IndexError, match=r"there are 2 layers; choose one: flow\['cells.0'\]"):
        viz.plot_gradient_flow(flow)


def test_a_gradient_of_nothing_is_darkest_and_the_scale_ends_after_16_decades(flow):
    layer = flow["cells.0"]
    layer.gradients["h"][:] = np.nan
    layer.gradients["h"][6] = np.array([0, 1e-40, 1e-16, 1e-10, 1e-5, 0.1, 1.0])[:, None]
    values, (low, high) = drawn(viz.plot_gradient_flow(layer))
    np.testing.assert_allclose(values[6], [-16, -40, -16, -10, -5, -1, 0])
    assert (low, high) == (-16, 0)
    layer.gradients["h"][:] = 0
    values, (low, high) = drawn(viz.plot_gradient_flow(layer))
    assert low < high
    assert (values == low).all()


def test_two_hidden_states_are_drawn_on_one_scale():
    _, axes = plt.subplots(1, 2)
    for ax, h in zip(axes, (np.eye(3), 5 * np.eye(3)), strict=True):
        assert drawn(viz.plot_hidden(h, limits=(-2, 2), ax=ax))[1] == (-2, 2)
    assert drawn(viz.plot_hidden(5 * np.eye(3)))[1] == (-5, 5)


def test_what_is_not_finite_does_not_bend_the_scale():
    x = np.array([[0.5, np.nan], [-3.0, np.inf]])
    assert drawn(viz.plot_hidden(x))[1] == (-3, 3)
    assert drawn(viz.plot_activations("abc", [np.nan, -2.0, 0.5]))[1] == (-2, 2)


def test_activations_colour_each_character():
    text, values = "ab\tc\nde", np.array([-1, -0.5, 0, 0.5, 1, 0.2, 0.3])
    ax = viz.plot_activations(text, values, "tanh(c), unit 3", width=3)
    grid, limits = drawn(ax)
    np.testing.assert_array_equal(grid[:3], [[-1, -0.5, 0], [0.5, 1, np.nan], [0.2, 0.3, np.nan]])
    assert limits == (-1, 1)
    assert [(t.get_text(), t.get_position()) for t in ax.texts][2:5] == [("⇥", (2, 0)), ("c", (0, 1)), ("↵", (1, 1))]
    assert ax.texts[0].get_color() == "white"  # on brown
    assert ax.texts[2].get_color() == "black"  # on white
    assert ax.figure.axes[1].get_ylabel() == "tanh(c), unit 3"


def test_activations_of_a_gate_start_at_0():
    assert drawn(viz.plot_activations("abc", tr.tensor([0.1, 0.5, 0.9])))[1] == (0, 1)
    assert drawn(viz.plot_activations("abc", [0, 2, 5]))[1] == (0, 5)
    assert drawn(viz.plot_activations("abc", [0, 2, 5], limits=(-2, 2)))[1] == (-2, 2)


def test_hidden_has_a_row_for_each_unit():
    h = tr.randn(8, 3)
    ax = viz.plot_hidden(h)
    values, (low, high) = drawn(ax)
    np.testing.assert_allclose(values, h.numpy().T)
    assert low == -high == -np.abs(values).max()
    assert labels(ax) == ("time, steps", "unit")
    drawn(viz.plot_hidden(np.zeros((4, 2))))


def test_attention_names_rows_and_columns():
    weights = np.array([[0.7, 0.2, 0.1], [0, 0, 1]])
    ax = viz.plot_attention(weights, ["le", "chat"], ["the", "cat", "\n"])
    values, limits = drawn(ax)
    np.testing.assert_array_equal(values, weights)
    assert limits == (0, 1)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["the", "cat", "↵"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["le", "chat"]
    assert labels(viz.plot_attention(weights)) == ("key, what is looked at", "query, step of the decoder")


def test_distribution_before_and_after():
    logits, symbols = tr.tensor([1.0, 3.0, 0.0, 2.0]), ["a", " ", "\n", "d"]
    assert len(viz.plot_distribution(logits, symbols).patches) == len(symbols)  # nothing changed, so it is drawn once
    ax = viz.plot_distribution(logits, symbols, temperature=0.5, top_k=2, most=3)
    ax.figure.canvas.draw()
    order = [1, 3, 0]
    before, after = ([bar.get_height() for bar in bars] for bars in ax.containers)
    np.testing.assert_allclose(before, next_distribution(logits)[order])
    np.testing.assert_allclose(after, next_distribution(logits, 0.5, 2)[order])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["␣", "d", "a"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["model", "temperature 0.5, top-k 2"]
    assert ax.get_title() == "Next symbol: 2 of 4 symbols can be drawn"
    assert ax.get_xlabel() == "next symbol, likeliest first (1 more not shown)"


def test_padding_fills_each_row_to_its_length():
    ax = viz.plot_padding([3, 1, 4])
    filled, padding = ([bar.get_width() for bar in bars] for bars in ax.containers)
    assert (filled, padding) == ([3, 1, 4], [1, 3, 0])
    assert ax.get_title() == "Padded batch, T=4, B=3: 33% is padding"
    assert ax.get_ylim() == (2.5, -0.5)  # the first sequence on top


def test_loss_has_a_curve_for_each_text():
    ax = viz.plot_loss([0, 1, 2], [3.0, 2.0, 1.0], held_out=([0, 2], [3.1, 1.2]), unit="nats per character")
    training, held_out = ax.lines
    np.testing.assert_array_equal(training.get_ydata(), [3, 2, 1])
    np.testing.assert_array_equal(held_out.get_xdata(), [0, 2])
    assert labels(ax) == ("step of training", "loss, nats per character")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["training", "held out"]
    assert len(viz.plot_loss([0], [1.0]).lines) == 1


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: viz.plot_activations("abc", [1, 2]), r"values are \(2,\); expected \(3,\), one for each character"),
        (
            lambda: viz.plot_hidden(np.zeros((2, 3, 4))),
            r"h is \(2, 3, 4\); expected \(T, H\), one sequence: out\[:, b\]",
        ),
        (lambda: viz.plot_attention(np.zeros(3)), r"expected \(Tq, Tk\), of one sequence"),
        (lambda: viz.plot_attention(np.zeros((2, 3)), rows="abc"), r"given 3 rows for weights \(2, 3\); expected 2"),
        (lambda: viz.plot_distribution([1.0, 2.0], "abc"), r"logits are \(2,\) and there are 3 symbols"),
        (lambda: viz.plot_padding(3), r"lengths are \(\); expected \(B,\)"),
        (lambda: viz.plot_loss([1, 2], [1]), r"training: steps are \(2,\) and losses \(1,\); expected \(n,\) both"),
    ],
)
def test_errors_say_what_was_expected(draw, message):
    with pytest.raises(tr.errors.ShapeError, match=message):
        draw()
    assert not plt.get_fignums()  # nothing half drawn is left


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(tr.errors.BackendError, match=r"pip install 'tinyrnn\[plot\]'"):
        viz.plot_loss([0], [1])


def test_the_example_prints_its_table_and_draws(tmp_path, monkeypatch, capsys):
    spec = spec_from_file_location("gradient_flow", SCRIPT)
    example = module_from_spec(spec)
    spec.loader.exec_module(example)
    sizes = ["--time", "12", "--hidden", "6", "--batch", "4", "--steps", "3"]
    monkeypatch.setattr(sys, "argv", ["gradient_flow.py", *sizes, "--out", str(tmp_path)])
    example.main()
    told = capsys.readouterr().out
    assert told.count("vanishes") == told.count("explodes") == 2
    assert told.count("3 steps later") == 14
    assert told.count("none clipped") == 2
    pictures = {path.stem for path in tmp_path.iterdir() if path.stat().st_size > 10_000}
    shown = ("vanishing", "exploding", "clipped", "cured")
    assert pictures == {f"{problem}_{what}" for problem in ("copy", "adding") for what in shown}
