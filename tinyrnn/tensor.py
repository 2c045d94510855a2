"""The tensor: an array that knows where it came from."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any, Self

from tinyrnn import backends
from tinyrnn import primitives as p
from tinyrnn.autograd import (
    ArrayOps,
    Meta,
    Node,
    changed_mode,
    changes,
    current_mode,
    current_scope,
    explain,
    is_grad_enabled,
    walk,
)
from tinyrnn.backends import Array, Backend, DType
from tinyrnn.errors import BackendError, CaptureError, DTypeError, GraphError, ShapeError

Axis = int | tuple[int, ...] | None


class Tensor:
    """An n-dimensional array, the backend it lives on, and the node of the graph that made it.

    Make one with `tr.tensor`. Arithmetic, indexing and methods are NumPy's; they never change a tensor, they make a new
    one. One that was made from tensors that require a gradient remembers how, and so can be differentiated.

    Args: array, one of the backend's; backend; node, None where nothing was recorded, and index, which of its results
        it is. An operation gives them; `tr.tensor` is for you.
    Raises: BackendError where tensors of two backends meet, or NumPy asks for what is elsewhere; ShapeError, DTypeError
        or IndexRangeError that name an operation and its operands; ShapeError where one number is needed, as for `if`
        and float(), and there are several; DTypeError for len() of a single number, and for a function of NumPy's;
        GraphError for x[i] = value, for += where a graph needs the old values, and for a copy of what operations
        recorded; CaptureError for x.grad = None inside a captured function that has made none yet.

    >>> import tinyrnn as tr
    >>> x = tr.tensor([1.0, 2.0], requires_grad=True)
    >>> y = (x * x).sum()
    >>> y.backward()
    >>> y.item(), x.grad.tolist()
    (5.0, [2.0, 4.0])
    """

    __slots__ = ("__weakref__", "array", "backend", "index", "node", "version")

    def __init__(self, array: Array, backend: Backend, node: Node | None = None, index: int = 0) -> None:
        self.array, self.backend, self.node, self.index = array, backend, node, index
        self.version = 0  # when it was last changed in place

    # ------------------------------------------------ what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self.array.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.array.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return functools.reduce(operator.mul, self.shape, 1)

    @property
    def dtype(self) -> DType:
        """The element type, `tr.float32` and so on."""
        return self.backend.dtype(self.array)

    @property
    def meta(self) -> Meta:
        """Shape, dtype and backend, without the values."""
        return self.node.outputs[self.index] if self.node else Meta(self.shape, self.dtype, self.backend)

    def __len__(self) -> int:
        if not self.shape:
            raise DTypeError("len() of a tensor of shape (): it is a single number; .item() gives it")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        values = backends.get("numpy").array2string(self.numpy(), separator=", ", prefix="tensor(", threshold=200)
        facts = [f"shape={self.shape}"] if self.ndim > 1 else []
        facts.append(f"dtype={self.dtype}")
        if self.backend.name != "numpy":
            facts.append(f"backend={self.backend.name}")
        if self.node:
            facts.append(f"op={self.node.op.name}" if self.node.op else "requires_grad=True")
        return f"tensor({values}, {', '.join(facts)})"

    def __hash__(self) -> int:
        return id(self)  # == compares elements, so identity is what a dict can go by

    def __bool__(self) -> bool:
        value = self.backend.to_host(self.array)  # first, as a tensor that has no values yet says so itself
        if value.size != 1:
            raise ShapeError(
                f"bool() of a tensor of shape {self.shape}: true or false for which element? Choose element by element "
                "with tr.where(mask, a, b), or ask for all: bool(mask.min()), or for any: bool(mask.max())"
            )
        return bool(value.item())

    # ------------------------------------------------ in and out

    def item(self) -> Any:
        """Return the only element as a Python number; it waits for the device.

        Raises: ShapeError for a tensor of several elements, or none.
        """
        if self.size != 1:
            raise ShapeError(f"item() of a tensor of shape {self.shape}; expected a single element: index it first")
        return self.backend.to_host(self.array).item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return operator.index(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def numpy(self) -> Any:
        """Return the values as a NumPy array: on the NumPy backend a read-only view, elsewhere a copy on the host."""
        return self.backend.to_host(self.array)

    def tolist(self) -> Any:
        """Return the values as nested lists of Python numbers."""
        return self.numpy().tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        values = self.numpy()  # first, as a tensor that has no values yet says so itself
        if self.backend.name != "numpy":
            raise BackendError(
                f"a tensor on {self.backend.name!r} is not copied to NumPy behind your back: say x.numpy()"
            )
        return backends.get("numpy").array(values, dtype=dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        backwards = any(step < 0 for step in getattr(self.array, "strides", ()))  # PyTorch aborts on such an array
        return (self.backend.copy(self.array) if backwards else self.array).__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    def __reduce__(self) -> Any:
        if self.node and self.node.op:
            raise GraphError("a tensor that operations recorded cannot be copied or pickled; x.detach() can")
        return _rebuild, (type(self), self.numpy().copy(), self.backend.name, self.requires_grad)

    def astype(self, dtype: Any) -> Tensor:
        """Return it with elements of another type; an integer result has no gradient.

        Raises: DTypeError for a dtype that there is not.
        """
        dtype = DType.of(dtype)
        return self if dtype is self.dtype else apply(p.astype, self, dtype=dtype)

    def to(self, backend: str | Backend) -> Tensor:
        """Return it on another backend, itself if it is there already; gradients travel back.

        Raises: BackendError if there is no such backend, or it cannot run here.
        """
        target = backends.get(backend)
        if target is self.backend:
            return self
        return apply(p.to, self, source=self.backend, target=target)

    # ------------------------------------------------ gradients

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded; assign True to a tensor you made to make it a leaf.

        Raises: GraphError when assigned to the result of an operation; DTypeError for True where the elements are no
            floats.
        """
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if self.node and self.node.op:
            raise GraphError("requires_grad: this tensor is a result, not a leaf; detach() gives one that you can set")
        if value and not self.dtype.is_floating:
            raise DTypeError(f"requires_grad: a tensor of {self.dtype} has no gradient; use x.astype(tr.float32)")
        if value and not self.node:
            self.node = Node(None, (self.meta,))
        elif not value:
            self.node = None

    @property
    def grad(self) -> Tensor | None:
        """∂L/∂(this tensor), summed over the calls of L.backward(); None before, and for what does not retain it.

        Raises: GraphError when assigned to a tensor that keeps none; DTypeError or ShapeError for one that does not
            fit; CaptureError for None inside a captured function, before that has made one.
        """
        return self.node.grads.get(self.index) if self.node and self.node.grads else None

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is None and self.grad is None:
            if self.node and self.backend is not self.backend.home:
                raise CaptureError(
                    "grad: forgotten inside a captured function, before it has made one: what earlier calls have left "
                    "is not seen there, and would be added to; call optimizer.zero_grad() before the captured function"
                )
            return
        if not self.node or self.node.grads is None:
            raise GraphError("grad: this tensor keeps no gradient; a leaf with requires_grad=True does")
        if value is not None and (not isinstance(value, Tensor) or value.dtype != self.dtype):
            given = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise DTypeError(f"grad: given {given}; expected a tensor of {self.dtype}")
        if value is not None and value.shape != self.shape:
            raise ShapeError(f"grad: given shape {value.shape}; expected the tensor's own, {self.shape}")
        self.node.grads[self.index] = value

    def backward(self, gy: Tensor | None = None, retain_graph: bool = False) -> None:
        """Add ∂(this tensor)/∂w into w.grad for every leaf w it was made from, and let go of the graph.

        Args:
            gy: ∂L/∂(this tensor), of its shape; may be left out for a single number, where it is 1.
            retain_graph: keep the graph, so that it can be walked again.

        Raises: GraphError if nothing was recorded, the graph has been used up, or an operand was changed in place;
            ShapeError for a gy of another shape, or none where there are several elements.
        """
        found = walk(_roots([self], [gy]), ArrayOps, free=not retain_graph)
        for (node, index), g in found.items():
            assert node.grads is not None
            new, old = _tensor(g, node.outputs[index].backend), node.grads[index]
            node.grads[index] = new if old is None else _tensor(old.array + new.array, new.backend)

    def detach(self) -> Tensor:
        """Return the same values with no history: a gradient that flows back stops here."""
        return Tensor(self.array, self.backend)

    def retain_grad(self) -> None:
        """Keep the gradient of this result too when backward() passes through it, as `.grad`.

        Raises: GraphError if it requires no gradient.
        """
        if not self.node:
            raise GraphError("retain_grad: this tensor requires no gradient; first make what it comes from require one")
        self.node.grads = self.node.grads or {}
        self.node.grads.setdefault(self.index, None)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Hook:
        """Have `hook(gradient)` called when the gradient of this tensor is complete; what it returns replaces it.

        Returns: a handle; `handle.remove()` ends it.
        Raises: GraphError if it requires no gradient.
        """
        if not self.node:
            raise GraphError("register_hook: this tensor requires no gradient; first set requires_grad=True")
        return Hook(self.node, self.index, hook)

    def assign(self, value: Any) -> Self:
        """Give a leaf new values, as an optimiser does; a graph that has used the old ones will say so.

        Raises: GraphError for the result of an operation; ShapeError for values of another shape; BackendError for
            values on another backend.
        """
        if self.node and self.node.op:
            raise GraphError("assign: this tensor is the result of an operation; only a leaf takes new values")
        _, (_, new) = _together("assign", (self, value))
        array = new.array if isinstance(new, Tensor) else self.backend.full(self.shape, new, self.dtype)
        if tuple(array.shape) != self.shape:
            raise ShapeError(f"assign: given shape {tuple(array.shape)}; expected the tensor's own, {self.shape}")
        self.array = self.backend.astype(array, self.dtype)
        self.version = changes.tick()
        return self

    # ------------------------------------------------ operators

    def __array_ufunc__(self, ufunc: Any, method: str, *operands: Any, **options: Any) -> Tensor:
        """`array * tensor`, which NumPy asks the tensor for; its functions are refused, as they would keep no graph."""
        if method == "__call__" and ufunc.__name__ in _OPERATORS and not options:
            return _OPERATORS[ufunc.__name__](*operands)
        name = {"absolute": "abs"}.get(ufunc.__name__, ufunc.__name__)
        if name in _OPERATORS:
            advice = "in place of `array += tensor` write `array = array + tensor`, which makes a tensor"
        else:
            advice = f"tr.{name} takes tensors" if name in p.registry else "tr.primitive makes an operation of yours"
        raise DTypeError(
            f"np.{ufunc.__name__} of a tensor: it computes with arrays, and would keep nothing for a gradient; "
            f"{advice}. (x.numpy() is the array of a tensor x.)"
        )

    def __add__(self, other: Any) -> Tensor:
        return apply(p.add, self, other)

    def __radd__(self, other: Any) -> Tensor:
        return apply(p.add, other, self)

    def __sub__(self, other: Any) -> Tensor:
        return apply(p.subtract, self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return apply(p.subtract, other, self)

    def __mul__(self, other: Any) -> Tensor:
        return apply(p.multiply, self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return apply(p.multiply, other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return apply(p.divide, self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return apply(p.divide, other, self)

    def __pow__(self, other: Any) -> Tensor:
        return apply(p.power, self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return apply(p.power, other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return matmul(other, self)

    def __neg__(self) -> Tensor:
        return apply(p.negative, self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return apply(p.abs, self)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]  # elementwise, as in NumPy
        return NotImplemented if other is None or isinstance(other, str) else apply(p.equal, self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]  # elementwise, as in NumPy
        return NotImplemented if other is None or isinstance(other, str) else apply(p.not_equal, self, other)

    def __lt__(self, other: Any) -> Tensor:
        return apply(p.less, self, other)

    def __le__(self, other: Any) -> Tensor:
        return apply(p.less_equal, self, other)

    def __gt__(self, other: Any) -> Tensor:
        return apply(p.greater, self, other)

    def __ge__(self, other: Any) -> Tensor:
        return apply(p.greater_equal, self, other)

    def __and__(self, other: Any) -> Tensor:
        return apply(p.logical_and, self, other)

    def __rand__(self, other: Any) -> Tensor:
        return apply(p.logical_and, other, self)

    def __or__(self, other: Any) -> Tensor:
        return apply(p.logical_or, self, other)

    def __ror__(self, other: Any) -> Tensor:
        return apply(p.logical_or, other, self)

    def __invert__(self) -> Tensor:
        return apply(p.logical_not, self)

    def __getitem__(self, index: Any) -> Tensor:
        return apply(p.getitem, self, index=_index(index, self.backend))

    def __setitem__(self, index: Any, value: Any) -> None:
        raise GraphError(
            "x[...] = value: a tensor is not changed element by element, since a graph may still need its old values. "
            "Choose with tr.where(mask, value, x), join pieces with tr.concatenate or tr.stack, or fill a NumPy array "
            "first and make a tensor of it"
        )

    def __iadd__(self, other: Any) -> Tensor:
        return self._update("+", self.__add__, other)

    def __isub__(self, other: Any) -> Tensor:
        return self._update("-", self.__sub__, other)

    def __imul__(self, other: Any) -> Tensor:
        return self._update("*", self.__mul__, other)

    def __itruediv__(self, other: Any) -> Tensor:
        return self._update("/", self.__truediv__, other)

    def _update(self, symbol: str, compute: Callable[[Any], Tensor], other: Any) -> Tensor:
        """Run `x op= other`: a leaf under no_grad is updated in place, a plain tensor becomes a new one."""
        if self.node and is_grad_enabled():
            raise GraphError(
                f"x {symbol}= y: x is part of a recorded graph, which needs its old values. Write x = x {symbol} y to "
                f"go on computing, or, to update a parameter, put x {symbol}= y inside `with tr.no_grad():`"
            )
        return self.assign(compute(other)) if self.node and not self.node.op else compute(other)

    # ------------------------------------------------ methods, as NumPy's

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Σ x over `axis`, one, several or (None) all; `keepdims` keeps them, with length 1. See `tr.sum`."""
        return apply(p.sum, self._numbers(), axis=axis, keepdims=keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Σ x / n over `axis`, one, several or (None) all; `keepdims` keeps them, with length 1. See `tr.mean`."""
        if self.dtype is DType.float16:  # whose sum would leave its range, as the mean does not
            return self.astype(DType.float32).mean(axis, keepdims).astype(DType.float16)
        total = self.sum(axis, keepdims)
        return total / (self.size / total.size if total.size else float("nan"))

    def var(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Σ (x − mean)² / n over `axis`: the variance, divided by n (ddof 0). See `tr.var`."""
        deviation = self - self.mean(axis, keepdims=True)
        return (deviation * deviation).mean(axis, keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Return the largest element along `axis`; the gradient goes to it. See `tr.max`."""
        return apply(p.max, self._numbers(), axis=axis, keepdims=keepdims).astype(self.dtype)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Return the smallest element along `axis`; the gradient goes to it. See `tr.min`."""
        return apply(p.min, self._numbers(), axis=axis, keepdims=keepdims).astype(self.dtype)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Return the position of the (first) largest element along `axis`, int64; no gradient. See `tr.argmax`."""
        return apply(p.argmax, self._numbers(), axis=axis, keepdims=keepdims)

    def _numbers(self) -> Tensor:
        """Return a mask as the numbers 0 and 1, anything else as it is: masks can be counted and compared."""
        return self.astype(DType.int64) if self.dtype is DType.bool else self

    def clip(self, low: float | None = None, high: float | None = None) -> Tensor:
        """min(max(x, low), high); the gradient passes inside and at the bounds. See `tr.clip`.

        Raises: DTypeError for a bound that is an array.
        """
        bounds = {"low": low, "high": high}
        plain = {name: _together("clip", (self, x))[1][1] for name, x in bounds.items() if x is not None}
        if not all(isinstance(x, int | float) for x in plain.values()):
            raise DTypeError("clip: a bound is an array; expected a number: tr.maximum and tr.minimum take arrays")
        return apply(p.clip, self.astype(backends.promote(self.dtype, *map(type, plain.values()))), **plain)

    def reshape(self, *shape: Any) -> Tensor:
        """Return the same elements in another shape, x.reshape(2, -1) or x.reshape((2, -1)). See `tr.reshape`.

        Raises: ShapeError for a shape of another number of elements.
        """
        return apply(p.reshape, self, shape=_flat(shape, "reshape"))

    def transpose(self, *axes: Any) -> Tensor:
        """Return it with its axes in the given order, reversed if none is given. See `tr.transpose`.

        Raises: ShapeError unless each axis is named once.
        """
        order = _axes(_flat(axes, "transpose"), self.ndim, "transpose") if axes else tuple(reversed(range(self.ndim)))
        if sorted(order) != list(range(self.ndim)):
            raise ShapeError(f"transpose: axes {order}; expected each of the {self.ndim} axes of {self.shape} once")
        return apply(p.transpose, self, axes=order)

    @property
    def T(self) -> Tensor:
        """The transpose: the axes in reverse order."""
        return self.transpose()

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        """Return it with two axes exchanged. See `tr.swapaxes`.

        Raises: ShapeError for an axis that it does not have.
        """
        a, b = _axes((axis1, axis2), self.ndim, "swapaxes")
        order = list(range(self.ndim))
        order[a], order[b] = b, a
        return self.transpose(order)

    def squeeze(self, axis: Axis = None) -> Tensor:
        """Return it without axes of length 1: the given ones, or all. See `tr.squeeze`.

        Raises: ShapeError for an axis that it does not have, or of another length.
        """
        axes = range(self.ndim) if axis is None else _axes(axis, self.ndim, "squeeze")
        if axis is not None and any(self.shape[a] != 1 for a in axes):
            raise ShapeError(f"squeeze: axis {axis} of shape {self.shape}; expected axes of length 1")
        return self.reshape(tuple(n for a, n in enumerate(self.shape) if not (a in axes and n == 1)))


class Hook:
    """A function that sees a gradient pass; `remove()` ends it."""

    def __init__(self, node: Node, index: int, function: Callable[[Tensor], Tensor | None]) -> None:
        node.hooks = node.hooks or {}
        self.registered = node.hooks.setdefault(index, [])
        self.backend = node.outputs[index].backend
        self.function = function
        self.registered.append(self)

    def __call__(self, g: Any) -> Any:
        """Show a gradient, an array or a tensor, to the function, and return what is to flow on."""
        tensor = g if isinstance(g, Tensor) else _tensor(g, self.backend)
        result: Any = self.function(tensor)
        if result is None:
            return g
        if not isinstance(result, Tensor):
            given = type(result).__name__
            raise DTypeError(f"hook: returned a {given}; expected the new gradient, a tensor, or None to leave it")
        if result.shape != tensor.shape:
            raise ShapeError(f"hook: returned shape {result.shape}; expected the gradient's own, {tensor.shape}")
        return result if isinstance(g, Tensor) else result.astype(tensor.dtype).array

    def remove(self) -> None:
        """See no further gradients; a second call does nothing."""
        if self in self.registered:
            self.registered.remove(self)


# ---------------------------------------------------------------- making tensors


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Make a tensor of numbers, nested lists, a NumPy array or any other array, on the current backend.

    Args:
        data: copied. Python floats become float32 and ints int64; arrays keep their dtype, and those on a GPU, CuPy's
            or another library's, their device. `from_dlpack` shares memory instead.
        dtype: `tr.float32` or "float32".
        requires_grad: record what is computed with it, so that it can receive a gradient. Floats only.

    Raises: DTypeError for data that is no regular block of numbers, a list of tensors (`tr.stack` joins them), a dtype
        that there is not, or requires_grad where the elements are no floats.

    >>> import tinyrnn as tr
    >>> tr.tensor([[1, 2], [3, 4]], dtype="float32")
    tensor([[1., 2.],
            [3., 4.]], shape=(2, 2), dtype=float32)
    """
    if isinstance(data, Tensor):
        data = data.array
    _see_no_tensors("tensor: the data", data)
    backend = backends.of(data) or backends.current()
    if backend.name == "numpy":
        backend = backends.current()  # host data goes where new tensors go
    array = backend.asarray(data, None if dtype is None else DType.of(dtype))
    python = isinstance(data, bool | int | float | list | tuple)
    result = Tensor(array if python else backend.copy(array), backend)
    result.requires_grad = requires_grad
    return result


def from_dlpack(array: Any) -> Tensor:
    """Return a tensor that is another library's array: it stays where it is, and nothing is copied.

    What is written into the array is seen by the tensor, so write only between two steps: a graph that has used the old
    values does not notice. The other way, `torch.from_dlpack(x)` and its like take a tensor as it is.

    Args: array, one that offers DLPack: NumPy's, CuPy's, PyTorch's, JAX's.
    Raises: DTypeError for anything else, or an array of a dtype or on a device that no tensor is.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> theirs = np.zeros(2)
    >>> x = tr.from_dlpack(theirs)
    >>> theirs[:] = 3
    >>> x.tolist()
    [3.0, 3.0]
    """
    if isinstance(array, Tensor):
        return array.detach()
    backend = backends.of(array) or backends.get("numpy")
    if not (backend.owns(array) or hasattr(array, "__dlpack__")):
        given = type(array).__name__
        raise DTypeError(
            f"from_dlpack: given {given}; expected an array that offers DLPack: tr.tensor takes other data"
        )
    try:
        shared = array if backend.owns(array) else backend.from_dlpack(array)
        return Tensor(backend.asarray(shared), backend)
    except (BufferError, TypeError, RuntimeError, NotImplementedError) as error:
        kind = f"{type(array).__name__} of dtype {getattr(array, 'dtype', 'unknown')}"
        raise DTypeError(f"from_dlpack: the array is a {kind}, which cannot be shared: {error}") from error


def detach(state: Any) -> Any:
    """Cut a tensor, or every tensor of a (nested) tuple, NamedTuple, list or dict, off from its history.

    Truncated backpropagation through time: `state = tr.detach(state)` between two windows of a text.

    Args: state, such a thing, or None, which stays None.
    Raises: DTypeError for anything else.

    >>> import tinyrnn as tr
    >>> w = tr.tensor(2.0, requires_grad=True)
    >>> state = w * w, w + 1
    >>> [part.requires_grad for part in tr.detach(state)]
    [False, False]
    """
    if state is None:
        return None
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, dict):
        return {name: detach(part) for name, part in state.items()}
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return type(state)(*map(detach, state))
    if isinstance(state, tuple | list):
        return type(state)(map(detach, state))
    raise DTypeError(f"detach: given {type(state).__name__}; expected a tensor, or a tuple, list or dict of tensors")


def _rebuild(kind: type[Tensor], values: Any, backend: str, requires_grad: bool) -> Tensor:
    """Undo `__reduce__`: what copy and pickle call."""
    home = backends.get(backend)
    result = kind.__new__(kind)
    Tensor.__init__(result, home.asarray(values), home)
    result.requires_grad = requires_grad
    return result


def _tensor(array: Array, backend: Backend, node: Node | None = None, index: int = 0) -> Tensor:
    """Wrap what an operation returned; NumPy's return scalars where other libraries return 0-d arrays."""
    return Tensor(array if array.shape else backend.asarray(array), backend, node, index)


# ---------------------------------------------------------------- running a primitive


def apply(op: p.Primitive, *operands: Any, **params: Any) -> Any:
    """Run a primitive, and record a node if one of its operands requires a gradient.

    Args:
        op: the primitive.
        *operands: tensors, Python numbers, or anything that `tr.tensor` takes.
        **params: its own.

    Returns: a Tensor, or a tuple of them if the primitive has several results.
    Raises: BackendError if the operands are on different backends; ShapeError, DTypeError or IndexRangeError that name
        the operation, its operands, the module and the time step.

    >>> import tinyrnn as tr
    >>> square = tr.primitive("square", forward=lambda xp, x: x * x,
    ...                       vjp=(lambda ops, gy, y, x: 2 * x * gy,), saves=("x",))
    >>> x = tr.tensor(3.0, requires_grad=True)
    >>> y = tr.apply(square, x)
    >>> y.item(), tr.grad(y, x).item()
    (9.0, 6.0)
    """
    backend = _shared(operands)
    if backend is None:
        backend, operands = _together(op.name, operands)
        if op.dtype is not None:
            operands = _promoted(op.dtype, operands)
    return execute(op, backend, operands, params)


def execute(op: p.Primitive, backend: Backend, operands: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """Do what `apply` does, for operands that are tensors of this backend, or plain numbers, of fitting types."""
    mode = current_mode()
    backend.enter()
    arguments = [x.array if isinstance(x, Tensor) else x for x in operands]
    try:
        if mode.timer is None:
            computed = op.forward(backend, *arguments, **params)
        else:
            run = functools.partial(op.forward, backend, *arguments, **params)
            computed = mode.timer("forward", op, current_scope(), run)
    except Exception as error:
        explain(error, "", op, operands, current_scope(), backend)
    home = params["target"] if op is p.to else backend
    several = isinstance(computed, tuple)
    arrays = computed if several else (computed,)
    node = _recorded(op, operands, params, arrays, home, several) if mode.grad and op.vjp else None
    if several:
        shown = arrays[: len(arrays) - op.hidden]
        made = [node if node and node.outputs[i].dtype.is_floating else None for i in range(len(shown))]
        result: Any = tuple([_tensor(array, home, made[i], i) for i, array in enumerate(shown)])
    else:
        result = _tensor(computed, home, node)
    if mode.listener is not None:
        mode.listener(op, operands, params, result)
    return result


def _recorded(
    op: p.Primitive,
    operands: tuple[Any, ...],
    params: dict[str, Any],
    arrays: tuple[Array, ...],
    home: Backend,
    several: bool,
) -> Node | None:
    """Return a node for what happened, None if no operand requires a gradient or the result can have none."""
    nodes = [x.node if isinstance(x, Tensor) else None for x in operands]
    needs = tuple([node is not None for node in nodes])
    if True not in needs:
        return None
    outputs = tuple([Meta(array.shape, home.dtype(array), home) for array in arrays])
    if not any([meta.dtype.is_floating for meta in outputs]):
        return None
    keep, keep_results = _plan(op, needs)
    saved = tuple([x if kept or not isinstance(x, Tensor) else x.meta for x, kept in zip(operands, keep, strict=True)])
    parents = tuple([None if node is None else (node, x.index) for node, x in zip(nodes, operands, strict=True)])
    kept_results = None
    if keep_results:
        kept_results = tuple([None if i in op.unread else array for i, array in enumerate(arrays)])
    return Node(op, outputs, saved, parents, kept_results, params, current_scope(), several)


@functools.cache
def _plan(op: p.Primitive, needs: tuple[bool, ...]) -> tuple[tuple[bool, ...], bool]:
    """Tell which operands, and whether the results, must be kept for the rules of the operands in need."""
    reads = op.reads(needs)
    names = op.operands if len(op.operands) == len(needs) else op.operands * len(needs)  # *xs
    return tuple(name in reads for name in names), "y" in reads


def _shared(operands: tuple[Any, ...]) -> Backend | None:
    """Return the backend of operands that are tensors on it, all of one floating dtype, and plain numbers beside them.

    That is so nearly always, and then there is nothing to convert; None where there may be.
    """
    backend = first = kind = None
    for x in operands:
        if type(x) is float or type(x) is int:
            continue
        if not isinstance(x, Tensor):
            return None
        if backend is None:
            backend, first = x.backend, x.array
            kind = first.dtype
        elif x.backend is not backend or x.array.dtype is not kind:
            return None
    return backend if backend is not None and backend.dtype(first).is_floating else None


def _together(name: str, operands: tuple[Any, ...]) -> tuple[Backend, tuple[Any, ...]]:
    """Make tensors and plain numbers of the operands, and see that they are on one backend."""
    homes = [x.backend for x in operands if isinstance(x, Tensor)]
    if not homes:
        operands = _tensors(operands)
        homes = [x.backend for x in operands if isinstance(x, Tensor)]
    backend = homes[0]
    if homes.count(backend) < len(homes):
        names = sorted({home.name for home in homes})
        raise BackendError(
            f"{name}: operands are on {' and '.join(names)}; move one of them, as with x.to({names[0]!r})"
        )
    if len(homes) < len(operands):
        operands = tuple([x if isinstance(x, Tensor) else _operand(name, x, backend) for x in operands])
    return backend, operands


def _tensors(operands: tuple[Any, ...]) -> tuple[Any, ...]:
    """Make tensors of operands none of which is one yet; of plain numbers only where there is nothing else."""
    if any([not isinstance(x, bool | Real) for x in operands]):
        return tuple([x if isinstance(x, bool | Real) else tensor(x) for x in operands])
    dtype = DType.float32 if any([type(x) is float for x in operands]) else None
    return tuple([tensor(x, dtype) for x in operands])


def _operand(name: str, x: Any, backend: Backend) -> Any:
    """Make a tensor or a plain Python number of an operand; a plain number never decides the dtype."""
    if isinstance(x, Real):
        return plain(x)
    _see_no_tensors(f"{name}: an operand", x)
    owner = backends.of(x)
    if owner is not None and owner is not backend:
        raise BackendError(
            f"{name}: an array on {owner.name!r} meets a tensor on {backend.name!r}; move it: "
            f"tr.tensor(array).to({backend.name!r})"
        )
    try:
        return Tensor(backend.copy(backend.asarray(x)), backend)  # the graph must not see what becomes of x
    except DTypeError as error:
        raise DTypeError(f"{name}: {error}") from None


def plain(x: Any) -> bool | int | float:
    """Return a number, NumPy's too, as Python's own: it decides no dtype, and is at home on every backend."""
    if isinstance(x, bool):
        return x
    return int(x) if isinstance(x, Integral) else float(x)


def operand(x: Any) -> Any:
    """Return data, a list or an array, as a tensor, a number of NumPy's as Python's own, anything else as it is."""
    if isinstance(x, list):
        return tensor(x)
    if isinstance(x, Tensor) or not (hasattr(x, "shape") or hasattr(x, "__array__")):
        return x
    return plain(x) if isinstance(x, Real) else tensor(x)


def _see_no_tensors(what: str, data: Any) -> None:
    """Refuse a list or a state of tensors, of which NumPy would make an array without gradients."""
    if isinstance(data, list | tuple) and any(isinstance(part, Tensor) for part in data):
        if fields := getattr(data, "_fields", ()):
            told = f"{type(data).__name__}({', '.join(fields)}); take the tensor that is meant: state.{fields[0]}"
            raise DTypeError(f"{what} is {told}")
        raise DTypeError(f"{what} is a list of tensors; tr.stack(list) joins them and keeps their gradients")


def promoted(name: str, *operands: Any) -> tuple[Any, ...]:
    """Make tensors of the operands of `name`, on one backend and of one dtype; a plain number beside them stays one."""
    return _promoted("common", _together(name, operands)[1])


def _promoted(kind: str, operands: tuple[Any, ...]) -> tuple[Any, ...]:
    """Cast the operands to their common dtype, as NumPy would; each cast is an operation of the graph."""
    dtypes = {x.dtype for x in operands if isinstance(x, Tensor)}
    floating = any([dtype.is_floating for dtype in dtypes])
    if floating and len(dtypes) == 1:
        return operands
    scalars: set[Any] = {type(x) for x in operands if not isinstance(x, Tensor)}
    common = backends.promote(*dtypes, *scalars, *([] if floating or kind == "common" else [float]))
    return tuple([x.astype(common) if isinstance(x, Tensor) else x for x in operands])


def matmul(a: Any, b: Any) -> Tensor:
    """The matrix product a b: (…, n, k) @ (…, k, m) -> (…, n, m); a vector (k,) counts as one row or one column.

        yᵢⱼ = Σₖ aᵢₖ bₖⱼ

    Raises: ShapeError for a single number, or shapes that do not fit; BackendError for operands on two backends.

    >>> import tinyrnn as tr
    >>> a, b = tr.tensor([[1.0, 2.0]]), tr.tensor([[3.0], [4.0]])
    >>> (a @ b).tolist(), tr.matmul(b, a).shape
    ([[11.0]], (2, 2))
    """
    half = current_mode().products
    if half is not None:
        _, (a, b) = _together("matmul", (a, b))
        kinds = {getattr(x, "dtype", None) for x in (a, b)}
        if DType.float32 in kinds and kinds <= {DType.float32, half}:
            return matmul(a.astype(half), b.astype(half)).astype(DType.float32)
    backend = _shared((a, b))
    if backend is None:
        backend, (a, b) = _together("matmul", (a, b))
        a, b = _promoted("common", (a, b))
    if not (isinstance(a, Tensor) and isinstance(b, Tensor) and a.ndim and b.ndim):
        raise ShapeError("matmul: an operand is a single number; expected matrices or vectors: use * to scale")
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        where = current_scope()
        raise ShapeError(
            f"matmul: {a.shape} @ {b.shape}{f' in {where}' if where else ''}: the last axis of the left operand has "
            f"length {a.shape[-1]}; expected {b.shape[-2 if b.ndim > 1 else 0]}, that of the right one's rows"
        )
    if a.ndim > 1 and b.ndim > 1:
        product: Tensor = execute(p.matmul, backend, (a, b), {})
        return product
    left = a.reshape(1, -1) if a.ndim == 1 else a
    right = b.reshape(-1, 1) if b.ndim == 1 else b
    y = apply(p.matmul, left, right)
    return y.squeeze(tuple(axis for axis, x in ((-2, a), (-1, b)) if x.ndim == 1))


_OPERATORS: dict[str, Callable[..., Tensor]] = {  # what Python's operators are called in NumPy
    name: functools.partial(apply, p.registry[name])
    for name in (
        *("add", "subtract", "multiply", "divide", "power"),
        *("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"),
    )
} | {
    "matmul": matmul,
    "bitwise_and": functools.partial(apply, p.logical_and),
    "bitwise_or": functools.partial(apply, p.logical_or),
}


def rounded(x: Tensor) -> Tensor:
    """Return x as matrix products take it under `mixed_precision`: cast once, where it goes into many of them."""
    half = current_mode().products
    return x if half is None or x.dtype is not DType.float32 else x.astype(half)


class TensorOps:
    """The primitives on tensors, recorded: what a backward pass computes with if it is to be differentiated."""

    def __getattr__(self, name: str) -> Any:
        try:
            return functools.partial(apply, p.registry[name])
        except KeyError:
            raise AttributeError(f"no primitive is called {name!r}") from None

    computes, defers = False, True

    def transposed(self, x: Tensor) -> Tensor:
        """Return x with its last two axes exchanged."""
        return x.swapaxes(-2, -1)

    def operand(self, saved: Any) -> Any:
        """Return a saved operand as the rules read it: here, the tensor with its history."""
        return saved

    def result(self, node: Node, index: int) -> Any:
        """Return what `node` computed, as a tensor with its history; its Meta if no rule reads it."""
        meta = node.outputs[index]
        return meta if node.saved is None else _tensor(node.saved[index], meta.backend, node, index)

    def zeros(self, meta: Meta) -> Tensor:
        """Return a zero gradient for a tensor like `meta`."""
        return Tensor(meta.backend.full(meta.shape, 0, meta.dtype), meta.backend)

    def own(self, g: Tensor) -> Tensor:
        """Return a gradient that nobody will change in place: any tensor is one."""
        return g

    def dtype(self, g: Tensor) -> DType:
        """Return the element type of a gradient."""
        return g.dtype


_tensor_ops = TensorOps()

# ---------------------------------------------------------------- gradients


def grad(
    y: Tensor | Sequence[Tensor], xs: Tensor | Sequence[Tensor], gy: Any = None, create_graph: bool = False
) -> Any:
    """∂y/∂x for each x, as a value: changes no `.grad`, frees nothing.

        gx = gyᵀ ∂y/∂x

    Args:
        y: a tensor, or several, whose gradients are added up.
        xs: a tensor or several, leaves or results; one that y does not depend on gets zeros.
        gy: ∂L/∂y, of y's shape (for several y, one each); may be left out for a single number, where it is 1.
        create_graph: record the backward pass too, so that the result can be differentiated again.

    Returns: a tensor if xs is one, a tuple otherwise; each of its x's shape and dtype.
    Raises: GraphError if y or an x requires no gradient, the graph has been used up, or an operand was changed in
        place; ShapeError for a gy of another shape, or none where y has several elements.

    >>> import tinyrnn as tr
    >>> x = tr.tensor(3.0, requires_grad=True)
    >>> slope = tr.grad(x**2, x, create_graph=True)
    >>> slope.item(), tr.grad(slope, x).item()
    (6.0, 2.0)
    """
    ys, gys = ([y], [gy]) if isinstance(y, Tensor) else (list(y), [None] * len(y) if gy is None else list(gy))
    wrt = [xs] if isinstance(xs, Tensor) else list(xs)
    edges = [(x.node, x.index) for x in wrt if x.node]
    if len(edges) < len(wrt):
        raise GraphError("grad: an x requires no gradient; set requires_grad=True on it before computing y")
    with changed_mode(grad=create_graph):
        found = walk(_roots(ys, gys, create_graph), _on_tensors if create_graph else ArrayOps, wanted=set(edges))
    gxs = (found.get(edge, ArrayOps(x.backend).zeros(x.meta)) for x, edge in zip(wrt, edges, strict=True))
    results = tuple(g if isinstance(g, Tensor) else _tensor(g, x.backend) for g, x in zip(gxs, wrt, strict=True))
    return results[0] if isinstance(xs, Tensor) else results


def _on_tensors(_: Backend) -> TensorOps:
    return _tensor_ops


def _roots(ys: Sequence[Tensor], gys: Sequence[Any], create_graph: bool = False) -> dict[tuple[Node, int], Any]:
    """Return the gradient that enters the graph at each y."""
    roots: dict[tuple[Node, int], Any] = {}
    if len(ys) != len(gys):
        raise ShapeError(f"grad: given {len(gys)} gy for {len(ys)} y; expected one for each")
    for y, gy in zip(ys, gys, strict=True):
        if not y.node:
            raise GraphError(
                "backward: nothing was recorded for this tensor: it was made from tensors none of which had "
                "requires_grad=True, or under no_grad(), or by detach()"
            )
        if gy is None and y.size != 1:
            raise ShapeError(
                f"backward: the tensor has shape {y.shape}; expected a single number, such as a loss: take its "
                "mean() or sum(), or give ∂L/∂y as gy"
            )
        _, (_, gy) = _together("backward", (y, 1.0 if gy is None else gy))
        if not isinstance(gy, Tensor):
            gy = Tensor(y.backend.full(y.shape, gy, y.dtype), y.backend)
        if gy.shape != y.shape:
            raise ShapeError(f"backward: gy has shape {gy.shape}; expected y's own, {y.shape}")
        gy = gy.astype(y.dtype)
        edge = (y.node, y.index)
        entering = gy if create_graph else gy.array
        roots[edge] = roots[edge] + entering if edge in roots else entering
    return roots


# ---------------------------------------------------------------- reading shapes and indices


def _flat(numbers: tuple[Any, ...], name: str) -> tuple[int, ...]:
    """Read f(2, 3), f((2, 3)) and f([2, 3]) alike."""
    given = numbers[0] if len(numbers) == 1 and isinstance(numbers[0], tuple | list) else numbers
    try:
        return tuple(operator.index(n) for n in given)
    except TypeError:
        raise DTypeError(f"{name}: given {given!r}; expected ints") from None


def _axes(axis: int | tuple[int, ...] | list[int], ndim: int, name: str) -> tuple[int, ...]:
    """Return axis numbers from 0 to ndim - 1, as given from either end."""
    try:
        axes = tuple(operator.index(a) for a in (axis if isinstance(axis, tuple | list) else (axis,)))
    except TypeError:
        raise DTypeError(f"{name}: axis {axis!r}; expected an int or a tuple of ints") from None
    if any(not -ndim <= a < ndim for a in axes):
        raise ShapeError(f"{name}: axis {axis}; expected axes from {-ndim} to {ndim - 1}, for a tensor of {ndim} axes")
    return tuple(a % ndim for a in axes)


def _index(index: Any, backend: Backend) -> Any:
    """Return an index with arrays where it has tensors or lists."""
    if isinstance(index, tuple):
        return tuple(_index(part, backend) for part in index)
    if index is None or index is ... or isinstance(index, int | slice):
        return index
    dtype = DType.int64 if isinstance(index, list) and not index else None  # [] has no type, but means integers
    array = index if isinstance(index, Tensor) else Tensor(backend.copy(backend.asarray(index, dtype)), backend)
    if array.backend is not backend:
        raise BackendError(
            f"getitem: the index is on {array.backend.name!r} and the tensor on {backend.name!r}; move one of them"
        )
    if array.dtype.is_floating:
        raise DTypeError(f"getitem: the index is a tensor of {array.dtype}; expected integers or booleans")
    return array.array
