"""The walk through backpropagation in time: by hand and by the engine the same, and its pictures show what it says."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.viz.draw import graph_of
from tinyrnn.viz.roll import roll

SCRIPT = Path(__file__).parents[1] / "examples" / "bptt_graph.py"
PICTURES = {"rolled", "unrolled", "backward", "truncated"}


def load_example():
    spec = spec_from_file_location("bptt_graph", SCRIPT)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bptt_graph = load_example()


def weights():
    W_x, W_h, b = (tr.randn(*shape, dtype="float64", requires_grad=True) for shape in ((2, 2), (2, 2), (2,)))
    return bptt_graph.Weights(W_x, W_h, b, tr.randn(1, 2, dtype="float64"))


@pytest.mark.parametrize("since", [0, 1, 3])
def test_shares_by_hand_add_up_to_the_gradient(since):
    w, x = weights(), tr.randn(4, 1, 2, dtype="float64")
    ghs, shares = bptt_graph.by_hand(x.numpy(), *(part.numpy() for part in w))
    engine = tr.grad(bptt_graph.network(x, w, cut=since), w.W_h).numpy()
    np.testing.assert_allclose(np.sum(shares[since:], axis=0), engine, rtol=1e-12)
    assert len(ghs) == len(shares) == 4
    assert all(np.abs(share).max() > 0 for share in shares)


def test_it_runs_as_its_user_runs_it(tmp_path, capsys):
    bptt_graph.main(["--steps", "4", "--out", str(tmp_path / "new")])
    printed = capsys.readouterr().out
    differences = [float(line.rsplit(" ", 1)[1]) for line in printed.splitlines() if "largest difference" in line]
    assert len(differences) == 2
    assert max(differences) < 1e-13
    assert "cut before t=2: the shares of t=2 to t=3" in printed
    assert "∂L/∂w, the sum over 2 uses:" in printed
    assert {path.stem for path in (tmp_path / "new").iterdir()} == PICTURES
    for path in (tmp_path / "new").iterdir():
        assert str(path) in printed
        assert "W" in path.read_text(encoding="utf-8")


def test_the_backward_pass_rolls_up_with_a_delay_the_other_way():
    w = weights()

    def backward(x):
        loss = bptt_graph.network(x, w)
        return {"L": loss, "gradient": tr.grad(loss, w.W_h, create_graph=True)}

    drawn = [roll(graph_of(backward, tr.randn(T, 1, 2, dtype="float64"))) for T in (6, 30)]
    assert len(drawn[0].nodes) == len(drawn[1].nodes)
    delays = {(edge.delay, edge.source.back) for edge in drawn[0].edges if edge.delay}
    assert delays == {(1, False), (-1, True)}


def test_the_cut_is_in_the_picture():
    w, x = weights(), tr.randn(4, 1, 2, dtype="float64")
    graph = graph_of(lambda x: bptt_graph.network(x, w, cut=2), x, gradients=True)
    (cut,) = [edge for edge in graph.edges if edge.cut]
    assert (cut.source.steps, cut.target.steps) == ([1], [2])
    before = [node for node in graph.nodes if node.steps and node.steps[0] < 2]
    assert all(y.gradient is None for node in before for y in node.outputs if node.name == "tanh")


@pytest.mark.parametrize("steps", ["1", "51"])
def test_steps_that_cannot_be_looked_at(steps, capsys):
    with pytest.raises(SystemExit):
        bptt_graph.main(["--steps", steps])
    assert f"--steps {steps}; expected 2 to 50" in capsys.readouterr().err
