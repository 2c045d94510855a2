"""Modules: parts of a network that own parameters, and find them by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from tinyrnn import backends
from tinyrnn.autograd import changes, in_module
from tinyrnn.errors import DTypeError, IndexRangeError, ShapeError, StateDictError
from tinyrnn.tensor import Tensor, tensor


class Parameter(Tensor):
    """A tensor that is learned: a leaf that requires a gradient.

    Args:
        data: its first values, anything that `tr.tensor` takes.
        axes: what its axes are, as in ("I", "4H"), for `repr` and errors.

    >>> import tinyrnn as tr
    >>> w = tr.Parameter([[1.0, 2.0]], axes=("I", "O"))
    >>> w.describe(), w.requires_grad
    ('(I=1, O=2)', True)
    """

    __slots__ = ("axes",)

    def __init__(self, data: Any, axes: tuple[str, ...] = ()) -> None:
        first = tensor(data)
        super().__init__(first.array, first.backend)
        self.axes = axes
        self.requires_grad = True

    def __reduce__(self) -> Any:
        return (*super().__reduce__(), (None, {"axes": self.axes}))

    def describe(self) -> str:
        """Return its shape in words: `(I=65, 4H=512)`."""
        names = [f"{axis}=" for axis in self.axes] if len(self.axes) == self.ndim else [""] * self.ndim
        return f"({', '.join(f'{name}{n}' for name, n in zip(names, self.shape, strict=True))})"


class Module:
    """A part of a network: assign Parameters and Modules as attributes, write `forward`, and call it.

    Parameters are found by attribute name in the order of assignment: "lstm.cells.0.W_x". `training` tells layers such
    as Dropout what to do; `train()` and `eval()` set it for the whole tree.

    >>> import tinyrnn as tr
    >>> class Line(tr.nn.Module):
    ...     def __init__(self):
    ...         self.w, self.b = tr.Parameter(2.0), tr.Parameter(1.0)
    ...     def forward(self, x):
    ...         return self.w * x + self.b
    >>> line = Line()
    >>> line(3.0).item(), list(line.state_dict())
    (7.0, ['w', 'b'])
    """

    training = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what calling the module returns; written by each subclass."""
        raise NotImplementedError(f"{type(self).__name__} has no forward(); a Module's subclass writes it")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward`; errors and pictures of what happens inside name this module."""
        with in_module(self):
            return self.forward(*args, **kwargs)

    # ------------------------------------------------ the tree

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the modules that are attributes of this one, with their names.

        Raises: DTypeError for modules or parameters in a plain list, tuple or dict, which would go unnoticed.
        """
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list | tuple | dict):
                parts = value.values() if isinstance(value, dict) else value
                if any(isinstance(part, Module | Parameter) for part in parts):
                    raise DTypeError(
                        f"{type(self).__name__}.{name} is a plain {type(value).__name__} that holds modules or "
                        "parameters, which would not be learned; put modules into nn.ModuleList"
                    )

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield this module and all below it, with their dotted names; this one's is `prefix`."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield all parameters with their dotted names, in the order of assignment; a shared one once."""
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    def parameters(self) -> list[Parameter]:
        """Return all parameters, in the order of assignment; a shared one once."""
        return [parameter for _, parameter in self.named_parameters()]

    def name_of(self, child: Module) -> str | None:
        """Return the dotted name of a module below this one, None if it is not there."""
        return next((name for name, module in self.named_modules() if module is child), None)

    # ------------------------------------------------ the whole tree at once

    def train(self, mode: bool = True) -> Self:
        """Put the whole tree into training mode, in which Dropout drops."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Put the whole tree into evaluation mode."""
        return self.train(False)

    def to(self, backend: str | backends.Backend) -> Self:
        """Move all parameters to another backend; their gradients are dropped."""
        for parameter in self.parameters():
            moved, needed = parameter.detach().to(backend), parameter.requires_grad
            parameter.requires_grad = False
            parameter.array, parameter.backend = moved.array, moved.backend
            parameter.version = changes.tick()
            parameter.requires_grad = needed
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Return the values of all parameters by name, as they are now: learning on does not change them."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Give every parameter the values under its name; nothing is changed if anything does not fit.

        Args: state, names to tensors or arrays, as `state_dict` returns it.
        Raises: StateDictError that names all unknown, missing and misshaped entries.
        """
        parameters = dict(self.named_parameters())
        problems = [f"unknown: {name}" for name in state if name not in parameters]
        problems += [f"missing: {name} {p.describe()}" for name, p in parameters.items() if name not in state]
        values = {name: state[name] for name in parameters if name in state}
        values = {name: v if isinstance(v, Tensor) else tensor(v) for name, v in values.items()}
        problems += [
            f"misshaped: {name} is {v.shape}, expected {parameters[name].describe()}"
            for name, v in values.items()
            if v.shape != parameters[name].shape
        ]
        if problems:
            advice = "; make the module with the sizes and options of the one that was saved"
            raise StateDictError(f"{type(self).__name__}.load_state_dict: " + "; ".join(problems) + advice)
        for name, value in values.items():
            parameters[name].assign(value.detach().to(parameters[name].backend))
        return self

    # ------------------------------------------------ repr

    def describe(self) -> str:
        """Return what `repr` says of this module alone, such as its sizes; empty by default."""
        return ""

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        own = [(name, p) for name, p in vars(self).items() if isinstance(p, Parameter)]
        n = sum(p.size for p in self.parameters())
        count = f"{n:,} parameter{'' if n == 1 else 's'}"
        about = self.describe()
        lines = [f"{type(self).__name__}{f'({about})' if about else ''}: {count}"]
        if own:
            lines.append("  " + ", ".join(f"{name} {p.describe()}" for name, p in own))
        for name, child in self.named_children():
            first, *rest = child._lines()
            lines += [f"  {name}: {first}", *(f"  {line}" for line in rest)]
        return lines


class ModuleList(Module):
    """A list of modules whose parameters are found, under "0", "1", …

    Args: modules, in their order.
    Raises: DTypeError for something else than a Module; IndexRangeError for a place that there is not.

    >>> import tinyrnn as tr
    >>> layers = tr.nn.ModuleList(tr.nn.Linear(n, n + 1) for n in (2, 3))
    >>> len(layers), list(layers.state_dict())
    (2, ['0.W', '0.b', '1.W', '1.b'])
    """

    def __init__(self, modules: Any = ()) -> None:
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> Self:
        """Add a module at the end."""
        if not isinstance(module, Module):
            raise DTypeError(f"ModuleList: given {type(module).__name__}; expected a Module")
        setattr(self, str(len(self)), module)
        return self

    def __len__(self) -> int:
        return sum([name.isdecimal() for name in vars(self)])

    def __iter__(self) -> Iterator[Any]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return list(self)[index]
        n = len(self)
        if not -n <= index < n:
            raise IndexRangeError(f"ModuleList: index {index}; expected one from {-n} to {n - 1}")
        return vars(self)[str(index % n)]


class Sequential(ModuleList):
    """Modules or functions one after the other, each called with what the one before returns.

    Args: modules, and functions of a tensor.
    Raises: DTypeError for something that is neither.

    >>> import tinyrnn as tr
    >>> model = tr.nn.Sequential(tr.nn.Linear(2, 8), tr.tanh, tr.nn.Linear(8, 1))
    >>> model(tr.zeros(5, 2)).shape
    (5, 1)
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__(module if isinstance(module, Module) else Function(module) for module in modules)

    def forward(self, x: Any) -> Any:
        """Send x through all modules in turn."""
        for module in self:
            x = module(x)
        return x


class Function(Module):
    """A plain function as a module of a Sequential."""

    def __init__(self, function: Any) -> None:
        if not callable(function):
            raise DTypeError(f"Sequential: given {type(function).__name__}; expected modules or functions of a tensor")
        self.function = function

    def forward(self, x: Any) -> Any:
        """Call the function."""
        return self.function(x)

    def describe(self) -> str:
        """Name the function."""
        return getattr(self.function, "__name__", repr(self.function))


def check_sizes(layer: Module, **sizes: int) -> tuple[int, ...]:
    """Return the sizes, having seen that they are positive ints."""
    for name, n in sizes.items():
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ShapeError(f"{type(layer).__name__}: {name} is {n!r}; expected an int of 1 or more")
    return tuple(sizes.values())


def check_input(layer: Module, x: Any, axes: tuple[str, ...], last: int, option: str, what: str = "x") -> None:
    """See that x is a floating tensor with the given axes, the last of length `last`.

    Args: axes, their names, the first "…" for any number; option, the name of the argument that `last` came from; what,
        the name of x.
    Raises: ShapeError or DTypeError with the layer's name, what was given and what was expected.
    """
    name = type(layer).__name__
    wanted = f"({', '.join((*axes[:-1], f'{axes[-1]}={last}'))})"
    if not isinstance(x, Tensor):
        advice = "a layer gave (out, state): pass out on" if isinstance(x, tuple) else f"tr.tensor({what}) makes one"
        raise DTypeError(f"{name}: {what} is {type(x).__name__}; expected a tensor {wanted}: {advice}")
    if not x.dtype.is_floating:
        raise DTypeError(f"{name}: {what} is {x.dtype}; expected floating numbers {wanted}: {what}.astype(tr.float32)")
    if x.ndim != len(axes) if axes[0] != "…" else x.ndim == 0:
        raise ShapeError(f"{name}: {what} is {x.shape}; expected {wanted}")
    if x.shape[-1] != last:
        lengths = f" = ({', '.join(f'{a}={n}' for a, n in zip(axes, x.shape, strict=True))})" if axes[0] != "…" else ""
        raise ShapeError(
            f"{name}: {what} is {x.shape}{lengths} but {option} is {last}; the last axis of {what} must be {last}"
        )
