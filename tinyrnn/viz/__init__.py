"""Pictures: where gradients go in time, and plots of what a recurrent network does."""

from tinyrnn.viz.flow import GradientFlow, LayerFlow, gradient_flow
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
    "GradientFlow",
    "LayerFlow",
    "gradient_flow",
    "plot_activations",
    "plot_attention",
    "plot_distribution",
    "plot_gradient_flow",
    "plot_hidden",
    "plot_loss",
    "plot_padding",
]
