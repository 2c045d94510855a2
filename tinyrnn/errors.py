"""Errors: each names what was given, what was expected and what to do.

Every one is also the built-in exception that a Python reader would expect there, so that `except ValueError`
works as it does with NumPy.
"""

from __future__ import annotations


class TinyRNNError(Exception):
    """The base of every error that tinyrnn raises on purpose: what `except` catches them all by.

    >>> import tinyrnn as tr
    >>> try:
    ...     tr.zeros(2, -3)
    ... except tr.errors.TinyRNNError as error:
    ...     print(f"{type(error).__name__}: {error}")
    ShapeError: shape is (2, -3); expected lengths of 0 or more
    """


class ShapeError(TinyRNNError, ValueError):
    """Sizes or ranks that do not fit together: of operands, of a layer and what it is given, of values and their mask.

    The message names each shape and what was expected. It says where, too: in which layer, and at which step of a loop
    over `tr.steps`. Look at the letters: (T, B, I) given as (B, T, I) is the usual mistake, and `swapaxes` mends it.

    >>> import tinyrnn as tr
    >>> try:
    ...     tr.nn.Linear(2, 1)(tr.ones(4, 3))
    ... except tr.errors.ShapeError as error:
    ...     print(error)
    Linear: x is (4, 3) but input_size is 2; the last axis of x must be 2
    """


class DTypeError(TinyRNNError, TypeError):
    """An element type, or a type of Python's, that something cannot take.

    Such are ints that are to have a gradient, floats as class numbers, numbers as a mask, text as data. Convert them:
    `x.astype(tr.float32)`, `x.astype(tr.int64)`, `x > 0`, a `data.Vocabulary`.

    >>> import tinyrnn as tr
    >>> try:
    ...     tr.tensor([1, 2], requires_grad=True)
    ... except tr.errors.DTypeError as error:
    ...     print(error)
    requires_grad: a tensor of int64 has no gradient; use x.astype(tr.float32)
    """


class IndexRangeError(TinyRNNError, IndexError):
    """An index, class number or token outside the range it counts in.

    Usually the data was encoded with a larger vocabulary than the layer was made for. On a GPU it is told when values
    are next read, or with TINYRNN_CHECK=1 in the environment where it is used.

    >>> import tinyrnn as tr
    >>> try:
    ...     tr.one_hot([0, 3], 3)
    ... except tr.errors.IndexRangeError as error:
    ...     print(error)
    one_hot: index holds 3; expected integers from 0 to 2
    """


class BackendError(TinyRNNError, RuntimeError):
    """A backend that is missing, unknown, or not the one the other operand is on; or a device that is full or lost.

    Install what the message names, or bring the tensors together: `x.to("cupy")`.

    >>> import tinyrnn as tr
    >>> try:
    ...     tr.tensor([1.0, 2.0]).to("numpy:1")
    ... except tr.errors.BackendError as error:
    ...     print(error)
    backend 'numpy:1': NumPy has no devices; say 'numpy'
    """


class GraphError(TinyRNNError, RuntimeError):
    """A backward pass that cannot be: freed, changed in place, or never recorded.

    Freed: a state of an earlier batch went into this one; cut it off with `state = tr.detach(state)`. Changed in
    place: the optimiser stepped between a forward pass and its backward pass; run the forward pass again. Never
    recorded: nothing that it was made from has requires_grad=True, or it was made under `no_grad`.

    >>> import tinyrnn as tr
    >>> x = tr.tensor(2.0)
    >>> try:
    ...     tr.grad(x * x, x)
    ... except tr.errors.GraphError as error:
    ...     print(error)
    grad: an x requires no gradient; set requires_grad=True on it before computing y
    """


class FusionError(TinyRNNError, TypeError):
    """A function that cannot be fused: it does more than elementwise operations, or looks at values.

    Give it what is left as an argument, computed outside; or leave `@tr.fused` away, which changes nothing but the
    time.

    >>> import tinyrnn as tr
    >>> @tr.fused
    ... def centred(x):
    ...     return x - x.mean()
    >>> try:  # doctest: +NORMALIZE_WHITESPACE
    ...     centred(tr.ones(2, 3))
    ... except tr.errors.FusionError as error:
    ...     print(error)
    @fused centred: 'sum' is not elementwise; a fused function has elementwise
    operations and split(x, n), and is given the results of all others, such as matrix
    products and sums, as arguments
    """


class CaptureError(TinyRNNError, TypeError):
    """A function that cannot be captured: it looks at values, uses tensors that it was not given, or gives them new
    values.

    Return what is to be looked at, give `tr.capture` the module that it computes with, and step the optimiser outside.

    >>> import tinyrnn as tr
    >>> step = tr.capture(lambda x: x / x.sum().item())
    >>> try:  # doctest: +NORMALIZE_WHITESPACE
    ...     step(tr.ones(2))
    ... except tr.errors.CaptureError as error:
    ...     print(error)
    capture: the function looks at a value, as `if`, item(), float() and numpy() do; its
    Python runs once, for all values: look at what it returns, or choose with
    tr.where(mask, a, b)
    """


class GradientError(TinyRNNError, AssertionError):
    """A gradient that disagrees with its numerical estimate, which `tr.gradcheck` computes.

    The message names the order, the input, both numbers, and the primitive whose rule is wrong. If each is right by
    itself, the gradient was lost between them: by detach(), or by a value that left the graph as a number.

    >>> import tinyrnn as tr
    >>> x = tr.tensor(3.0, dtype="float64", requires_grad=True)
    >>> try:  # doctest: +ELLIPSIS, +NORMALIZE_WHITESPACE
    ...     tr.gradcheck(lambda x: x * x.detach(), x)
    ... except tr.errors.GradientError as error:
    ...     print(error)
    gradcheck: order 1: for input 0, of shape (), the gradient gives ..., numbers ...;
    each operation in it is right by itself
    """


class StateDictError(TinyRNNError, KeyError):
    """A state dict whose entries are not those of the module or optimiser it is loaded into; nothing has been loaded.

    Make the module as it was when it was saved: the message has every entry that is unknown, missing or of another
    size.

    >>> import tinyrnn as tr
    >>> try:  # doctest: +NORMALIZE_WHITESPACE
    ...     tr.nn.Linear(2, 1).load_state_dict({"W": tr.zeros(2, 1)})
    ... except tr.errors.StateDictError as error:
    ...     print(error)
    Linear.load_state_dict: missing: b (O=1); make the module with the sizes and options
    of the one that was saved
    """

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""  # KeyError would print the repr


class CheckpointError(TinyRNNError, ValueError):
    """A file that is not a checkpoint of ours, or not a whole one; or something that a checkpoint cannot hold.

    Give another path, or an earlier checkpoint: one is replaced only when the next is whole.

    >>> import tinyrnn as tr
    >>> from tinyrnn import checkpoint
    >>> try:
    ...     checkpoint.load("nowhere")
    ... except tr.errors.CheckpointError as error:
    ...     print(error)
    cannot read nowhere: No such file or directory; give a checkpoint's path
    """


class InteropError(TinyRNNError, ValueError):
    """A model that another library's format cannot express, or a file of its that we cannot; or that library is
    missing.

    >>> import tinyrnn as tr
    >>> from tinyrnn import interop
    >>> try:  # doctest: +NORMALIZE_WHITESPACE
    ...     interop.to_torch(tr.nn.GRU(2, 3, reset_after=False))
    ... except tr.errors.InteropError as error:
    ...     print(error)
    GRUCell has reset_after=False; PyTorch's recurrent layers have nothing like it, so
    that the weights would not mean the same there. To keep them for tinyrnn:
    checkpoint.save(path, module.state_dict())
    """


class DataError(TinyRNNError, ValueError):
    """A text, vocabulary or data set that cannot be used as it is; the message says what to change, or where to get it.

    >>> import tinyrnn as tr
    >>> from tinyrnn import data
    >>> try:
    ...     data.Vocabulary([])
    ... except tr.errors.DataError as error:
    ...     print(error)
    Vocabulary: there are no symbols; give at least one
    """


class NonFiniteError(TinyRNNError, ArithmeticError):
    """A loss, gradient or logit that became NaN or infinite.

    `tr.detect_anomaly` finds the operation that made the first. In training the usual cure is a smaller learning rate
    or `optim.clip_grad_norm`.

    >>> import tinyrnn as tr
    >>> from tinyrnn.generate import next_distribution
    >>> try:  # doctest: +NORMALIZE_WHITESPACE
    ...     next_distribution(tr.tensor([float("nan"), 0.0]))
    ... except tr.errors.NonFiniteError as error:
    ...     print(error)
    next_distribution: the largest logit is nan; expected a finite one: see detect_anomaly
    """


class RenderError(TinyRNNError, ValueError):
    """A picture could not be made: no program to draw with, or a file of a kind that is not known.

    >>> import tinyrnn as tr
    >>> x = tr.tensor(1.0, requires_grad=True)
    >>> try:
    ...     tr.draw(2 * x).save("graph.gif")
    ... except tr.errors.RenderError as error:
    ...     print(error)
    save: 'graph.gif' ends in '.gif'; expected .svg, .png, .pdf, .dot or .html
    """
