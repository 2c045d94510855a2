"""A function of tensors, run once in Python and from then on repeated: the same calls of the backend, nothing else.

A training step is thousands of small operations, and around each of them Python looks up a backend, wraps an array,
records a node. What comes of all that is, for the same shapes, the same calls on the same backend in the same order.
`capture` runs the function once on a `Tape`, a backend that does what the real one does and writes down each call, and
makes of the list a function of arrays. Nothing here knows what a gradient is: a backward pass is calls like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tinyrnn import backends
from tinyrnn.autograd import current_mode, see_device
from tinyrnn.errors import BackendError, CaptureError
from tinyrnn.nn import Module
from tinyrnn.tape import Tape
from tinyrnn.tensor import Hook, Tensor, operand

MOST_PROGRAMS = 8  # combinations of shapes whose calls are kept


class capture:
    """Run a function of tensors as the list of calls that it comes down to: what `jit` is elsewhere.

        def gradients(x, y, state):
            logits, state = model(x, state)
            loss = tr.cross_entropy(logits, y)
            loss.backward()
            return loss, state

        step = tr.capture(gradients, model)
        loss, state = step(x, y, state)          # the second call repeats the calls of the first

    Args:
        function: of tensors (NumPy arrays will do), alone or in tuples, lists and dicts, and of other values, which are
            constants. It returns the like, and may call backward(). Its Python runs once for each combination of shapes
            and constants, so it may not look at values (`if`, item()), and what else it reads is not read again.
        parameters: modules, or tensors, that it computes with: their values, and whether a module is training, are read
            at each call, and their `.grad` receives what a backward() gives them.

    The results have no history. Random numbers are drawn anew at each call. An optimiser's zero_grad and step stay
    outside, since its gradients of earlier calls, learning rate and count are; there is an error where one does not. A
    parameter's hooks are run with the function.

    On a GPU the calls become a CUDA graph at the second call: one launch, whatever their number, with which the host
    never waits for the device. It keeps the memory of a whole step. What cannot be in a graph (an index that is a mask;
    `randn` and `uniform`, which draw on the host; a sum in order, TINYRNN_DETERMINISTIC=1) is told once, by a warning
    that names the call, and all calls are then repeated one by one, as they are where indices are checked at once
    (TINYRNN_CHECK=1).

    Raises: CaptureError for a function that looks at values, uses a tensor that it was not given, forgets gradients, or
        gives a parameter new values; for arguments that are neither tensors nor can be hashed, that require a gradient,
        or are on two backends.

    >>> import tinyrnn as tr
    >>> layer = tr.nn.Linear(2, 1)
    >>> def loss_of(x):
    ...     loss = (layer(x) ** 2).mean()
    ...     loss.backward()
    ...     return loss
    >>> step = tr.capture(loss_of, layer)
    >>> losses = [step(tr.tensor([[1.0, 2.0]])), step(tr.tensor([[3.0, 4.0]]))]
    >>> layer.W.grad.shape, len(step.programs)
    ((2, 1), 1)
    """

    def __init__(self, function: Callable[..., Any], *parameters: Module | Tensor) -> None:
        self.function = function
        modules = [part for part in parameters if isinstance(part, Module)]
        self.modules = [module for part in modules for _, module in part.named_modules()]
        owned = [p for part in parameters for p in (part.parameters() if isinstance(part, Module) else [part])]
        self.parameters: list[Tensor] = list(dict.fromkeys(owned))
        self.programs: dict[Any, Program] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        mode = current_mode()
        if mode.listener is not None or mode.timer is not None:  # somebody wants to see each operation
            return self.function(*arguments)
        given = [operand(x) for x in leaves(arguments)]
        tensors = [x for x in given if isinstance(x, Tensor)]
        if mode.grad and any([x.node is not None for x in tensors]):
            raise CaptureError(
                "capture: an argument requires a gradient, and would get none; name it, as a parameter is, and let the "
                "function use it, tr.capture(function, model, x); or, as for a state, cut it off: tr.detach(state)"
            )
        key: list[Any] = [mode.grad, mode.fused, mode.products, structure(arguments)]
        for x in given:
            key += (x.array.shape, x.array.dtype, x.backend) if isinstance(x, Tensor) else (type(x), x)
        key += [module.training for module in self.modules]
        key += [None if p.node is None else tuple((p.node.hooks or {}).get(0, ())) for p in self.parameters]
        try:
            program = self.programs.get(tuple(key))
        except TypeError as error:
            kinds = ", ".join(sorted({type(x).__name__ for x in given}))
            raise CaptureError(
                f"capture: the arguments hold {kinds}; expected tensors, arrays, and beside them values that can be "
                f"compared and hashed, such as numbers, text and None ({error})"
            ) from error
        if program is None:
            if len(self.programs) >= MOST_PROGRAMS:
                self.programs.clear()
            program = Program(self.function, filled(arguments, iter(given)), tensors, self.parameters)
            self.programs[tuple(key)] = program
            return program.returned(program.first)
        program.first = []
        program.home.enter()
        try:
            made = program.calls(*[x.array for x in tensors], *[p.array for p in self.parameters])
        except Exception as error:
            see_device(error, f"{getattr(self.function, '__name__', 'a function')}, captured", program.home)
            raise
        return program.returned(made)


class Program:
    """The calls that a function comes down to, for inputs of certain shapes.

    Args: function; arguments, for it; inputs, the tensors among them; parameters, that it computes with.
    Fields:
        text: the calls, as Python.
        calls: a function of it, from the arrays of inputs and parameters to those of results, then of gradients.
        first: what came of the run that was recorded.
    """

    def __init__(
        self, function: Callable[..., Any], arguments: Any, inputs: list[Tensor], parameters: list[Tensor]
    ) -> None:
        homes = {x.backend for x in [*inputs, *parameters]}
        if len(homes) != 1:
            names = " and ".join(sorted(home.name for home in homes)) or "none"
            raise CaptureError(f"capture: the inputs and parameters are on {names}; expected all on one: x.to(name)")
        self.home = homes.pop()
        tape = Tape(self.home)
        traced = [tape.given(x.array) for x in inputs]
        on_tape = {id(x): Tensor(array, tape) for x, array in zip(inputs, traced, strict=True)}
        before = [(p.array, p.backend, p.node, p.version) for p in parameters]
        given = [tape.given(p.array) for p in parameters]
        try:
            for p, array in zip(parameters, given, strict=True):
                p.array, p.backend, needed = array, tape, p.requires_grad
                p.node = None
                p.requires_grad = needed
            for p, (_, _, node, _) in zip(parameters, before, strict=True):
                for hook in (node.hooks or {}).get(0, ()) if node else ():
                    assert isinstance(hook, Hook)
                    p.register_hook(hook.function)
            with backends.use_backend(tape):
                self.like = function(*mapped(arguments, lambda x: on_tape[id(x)] if isinstance(x, Tensor) else x))
            grads = [p.grad for p in parameters]
            if any(p.array is not array for p, array in zip(parameters, given, strict=True)):
                raise CaptureError(
                    "capture: the function gives a parameter new values, as an optimiser's step does; what is captured "
                    "only computes: let it return them, and assign them after the call"
                )
        except BackendError as error:
            raise CaptureError(
                f"capture: the function uses a tensor that it was not given ({str(error).partition(';')[0]}); pass "
                "it as an argument, or name the module it belongs to: tr.capture(function, model)"
            ) from error
        finally:
            for p, fields in zip(parameters, before, strict=True):
                p.array, p.backend, p.node, p.version = fields
        self.learned = [p for p, g in zip(parameters, grads, strict=True) if g is not None]
        results = [x for x in leaves(self.like) if isinstance(x, Tensor)]
        self.count = len(results)
        outputs = [*results, *(g for g in grads if g is not None)]
        self.like = mapped(self.like, lambda x: None if isinstance(x, Tensor) else Constant(x))
        recorded = [tape.lifted(y.array) for y in outputs]
        self.text = tape.text_of(recorded)
        self.calls = self.home.replayed(tape.function(self.text))
        self.first = [y.value for y in recorded]

    def returned(self, arrays: list[Any]) -> Any:
        """Return what the calls have made as the function would, and give the parameters their gradients."""
        made = (Tensor(array if array.shape else self.home.asarray(array), self.home) for array in arrays)
        tensors = iter([next(made) for _ in range(self.count)])
        for p, g in zip(self.learned, made, strict=True):
            p.grad = g if p.grad is None else Tensor(p.grad.array + g.array, self.home)
        return mapped(self.like, lambda x: x.value if isinstance(x, Constant) else next(tensors))


class Constant:
    """A value that a function returned which is not a tensor."""

    def __init__(self, value: Any) -> None:
        self.value = value


# ---------------------------------------------------------------- nested values


def leaves(nested: Any) -> Iterator[Any]:
    """Yield what a (nested) tuple, list or dict holds."""
    if isinstance(nested, tuple | list):
        for part in nested:
            yield from leaves(part)
    elif isinstance(nested, dict):
        for part in nested.values():
            yield from leaves(part)
    else:
        yield nested


def mapped(nested: Any, function: Callable[[Any], Any]) -> Any:
    """Return a nested value with the function applied to each leaf."""
    if isinstance(nested, dict):
        return {name: mapped(part, function) for name, part in nested.items()}
    if isinstance(nested, tuple | list):
        parts = [mapped(part, function) for part in nested]
        return type(nested)(*parts) if hasattr(nested, "_fields") else type(nested)(parts)
    return function(nested)


def filled(nested: Any, values: Iterator[Any]) -> Any:
    """Return a nested value with other leaves."""
    return mapped(nested, lambda _: next(values))


def structure(nested: Any) -> Any:
    """Return what two nested values have in common that differ in their leaves alone."""
    if isinstance(nested, dict):
        return (dict, *((name, structure(part)) for name, part in nested.items()))
    if isinstance(nested, tuple | list):
        return (type(nested), *map(structure, nested))
    return None
