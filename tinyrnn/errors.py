"""Errors: each names what was given, what was expected and what to do.

Every one is also the built-in exception that a Python reader would expect there, so that `except ValueError`
works as it does with NumPy.
"""

from __future__ import annotations


class TinyRNNError(Exception):
    """The base of every error that tinyrnn raises on purpose."""


class ShapeError(TinyRNNError, ValueError):
    """Sizes or ranks that do not fit together."""


class DTypeError(TinyRNNError, TypeError):
    """An element type that an operation cannot take."""


class IndexRangeError(TinyRNNError, IndexError):
    """An index, class number or token outside the range it counts in."""


class BackendError(TinyRNNError, RuntimeError):
    """A backend that is missing, unknown, or not the one the other operand is on."""


class GraphError(TinyRNNError, RuntimeError):
    """A backward pass that cannot be: freed, changed in place, or never recorded."""


class FusionError(TinyRNNError, TypeError):
    """A function that cannot be fused: it does more than elementwise operations, or looks at values."""


class CaptureError(TinyRNNError, TypeError):
    """A function that cannot be captured: it looks at values, or uses tensors that it was not given."""


class GradientError(TinyRNNError, AssertionError):
    """A gradient that disagrees with its numerical estimate."""


class StateDictError(TinyRNNError, KeyError):
    """A state dict whose entries are not those of the module or optimiser it is loaded into."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""  # KeyError would print the repr


class CheckpointError(TinyRNNError, ValueError):
    """A file that is not a checkpoint of ours, or not a whole one."""


class InteropError(TinyRNNError, ValueError):
    """A model that another library's format cannot express, or a file of its that we cannot."""


class DataError(TinyRNNError, ValueError):
    """A text, vocabulary or data set that cannot be used as it is."""


class NonFiniteError(TinyRNNError, ArithmeticError):
    """A loss or gradient that became NaN or infinite."""


class RenderError(TinyRNNError, ValueError):
    """A picture could not be made: no program to draw with, or a file of a kind that is not known."""
