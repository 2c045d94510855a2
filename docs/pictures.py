"""Make the pictures of the README and the documentation: python docs/pictures.py

They need Graphviz, or `pip install 'tinyrnn[viz]'`, and `pip install 'tinyrnn[plot]'`; images/ is where they go.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

import tinyrnn as tr
from tinyrnn import nn, viz

IMAGES = Path(__file__).parent / "images"


class CharRNN(nn.Module):
    """The model of examples/char_rnn.py, small enough to be read in a picture."""

    def __init__(self) -> None:
        self.embedding, self.lstm, self.output = nn.Embedding(65, 16), nn.LSTM(16, 16, 2), nn.Linear(16, 65)

    def forward(self, x: tr.Tensor) -> tr.Tensor:
        """Return the logits of the character that follows each one of x."""
        out, _ = self.lstm(self.embedding(x))
        return self.output(out)


def lstm_rolled() -> viz.Picture:
    """One copy of the step, however long the sequence."""
    return tr.draw(nn.LSTM(3, 4), tr.randn(100, 2, 3))


def lstm_unrolled() -> viz.Picture:
    """Time across, layers up."""
    return tr.draw(CharRNN(), tr.tensor([[1, 2]] * 5), view="unrolled", detail="layer")


def truncation() -> viz.Picture:
    """A recurrence written from primitives, whose state is detached every 25 steps: the edge that is cut."""
    W_x, W_h = nn.Parameter(tr.randn(3, 4), ("I", "H")), nn.Parameter(tr.randn(4, 4), ("H", "H"))

    def truncated(x: tr.Tensor) -> tr.Tensor:
        h = tr.zeros(x.shape[1], 4)
        for t in tr.steps(len(x)):
            h = tr.tanh(x[t] @ W_x + h @ W_h)
            if t % 25 == 24:
                h = tr.detach(h)
        return h

    return tr.draw(truncated, tr.randn(100, 2, 3), names={"W_x": W_x, "W_h": W_h})


def backward() -> viz.Picture:
    """The backward pass of a plain RNN as a graph of its own: gradients go from each step to the one before."""
    layer = nn.RNN(3, 4)

    def gradient(x: tr.Tensor) -> dict[str, tr.Tensor]:
        out, _ = layer(x)
        loss = tr.sum(out**2)
        return {"loss": loss, "∂L/∂W_h": tr.grad(loss, layer.cells[0].W_h, create_graph=True)}

    return tr.draw(gradient, tr.randn(100, 2, 3), legend=True)


def gradient_flow() -> Figure:
    """‖∂L_t/∂h_k‖ of an RNN and an LSTM."""
    x = tr.randn(40, 8, 3)
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for ax, (name, layer) in zip(axes, {"RNN": nn.RNN(3, 16), "LSTM": nn.LSTM(3, 16)}.items(), strict=True):
        flow = tr.gradient_flow(layer, (x, None), lambda out, y: tr.sum(out**2, axis=-1))
        viz.plot_gradient_flow(flow, limits=(-4.2, 0.6), ax=ax)
        ax.set_title(name)
    return figure


def main() -> None:
    """Make them all, each with the same random numbers every time."""
    for make in (lstm_rolled, lstm_unrolled, truncation, backward):
        tr.manual_seed(0)
        print(make().save(IMAGES / f"{make.__name__}.svg"))
    tr.manual_seed(0)
    gradient_flow().savefig(IMAGES / "gradient_flow.png", dpi=150)
    print(IMAGES / "gradient_flow.png")


if __name__ == "__main__":
    main()
