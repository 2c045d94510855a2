"""Pictures: graphs of computations, where gradients go in time, and plots of what a recurrent network does.

    tr.draw(model, x).save("model.svg")
    tr.viz.plot_loss(steps, losses).figure.savefig("loss.png")

Graphviz draws graphs; a notebook shows them as they are. Matplotlib draws plots, into an Axes, which is returned; a
notebook shows them too, and elsewhere plt.show() does.
"""

from tinyrnn.viz.beam import draw_beam
from tinyrnn.viz.draw import draw
from tinyrnn.viz.explain import Explanation, explain
from tinyrnn.viz.flow import GradientFlow, LayerFlow, gradient_flow
from tinyrnn.viz.graph import Graph, GraphEdge, GraphNode, Output, Place, recording, trace
from tinyrnn.viz.picture import Drawing, Picture
from tinyrnn.viz.plots import (
    plot_activations,
    plot_attention,
    plot_distribution,
    plot_gradient_flow,
    plot_hidden,
    plot_loss,
    plot_padding,
)

__all__ = [
    "Drawing",
    "Explanation",
    "GradientFlow",
    "Graph",
    "GraphEdge",
    "GraphNode",
    "LayerFlow",
    "Output",
    "Picture",
    "Place",
    "draw",
    "draw_beam",
    "explain",
    "gradient_flow",
    "plot_activations",
    "plot_attention",
    "plot_distribution",
    "plot_gradient_flow",
    "plot_hidden",
    "plot_loss",
    "plot_padding",
    "recording",
    "trace",
]
