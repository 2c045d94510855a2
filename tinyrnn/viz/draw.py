"""Drawing: from a model and its input, or a tensor and its history, to a picture."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tinyrnn.autograd import enable_grad
from tinyrnn.errors import DTypeError, GraphError
from tinyrnn.functions import default_generator
from tinyrnn.nn.module import Module
from tinyrnn.tensor import Tensor, tensor
from tinyrnn.viz.detail import DETAILS, at_detail, overview, some_steps
from tinyrnn.viz.dot import digraph
from tinyrnn.viz.graph import Graph, named_parts, recording, trace
from tinyrnn.viz.html import MOST_NODES, View, page
from tinyrnn.viz.picture import Picture
from tinyrnn.viz.roll import roll, settled

VIEWS = ("rolled", "unrolled")
MOST_COLUMNS = 128  # steps side by side; of more, the first and the last ones are drawn
FIRST, LAST = 3, 2


def draw(
    what: Any,
    *inputs: Any,
    view: str = "rolled",
    detail: str | None = None,
    values: bool = False,
    gradients: bool = False,
    shapes: bool = True,
    direction: str = "LR",
    steps: Iterable[int] = (),
    max_nodes: int = 2_000,
    names: Mapping[str, Tensor] | None = None,
    legend: bool = True,
) -> Picture:
    """Draw a model at work, or how a tensor came about.

        tr.draw(model, x)                     rolled: one copy of the step, however long x is
        tr.draw(model, x, view="unrolled")    time across, layers up
        tr.draw(loss)                         what the tensor remembers

    Args:
        what: a module or a function, which is run once on the inputs; a tensor that requires a gradient, or several in
            a tuple, list or dict; a Graph, or a `recording`.
        inputs: what the model takes; arrays become tensors.
        view: "rolled" draws steps once that are alike, with the way from one to the next dashed, z⁻¹; "unrolled" draws
            each. Time is what `nn.Recurrent` or a loop `for t in tr.steps(T)` marked as such.
        detail: "layer", a node for each module that has parameters or no modules inside; "cell", for each step of a
            cell; "op", each operation. Left out: "op" for a rolled picture or a tensor, "cell" for an unrolled one.
        values: write them on the nodes.
        gradients: write them on the nodes, and colour edges by the gradient that flows back, of the sum of all results.
        shapes: write them on the nodes.
        direction: "LR" or "TB"; unrolled, time goes that way.
        steps: the time steps to draw of a long loop besides the first and last ones.
        max_nodes: of more than that, some steps are left out or, at last, each kind of operation is drawn once.
        names: what tensors are called that no operation made, as {"h_0": h}.
        legend: explain what is what.

    Returns: a Picture, which shows itself in a notebook; .save("lstm.svg") writes it to a file, and .save("lstm.html")
        a page with all views and details, values step by step, and the gradient on its way back.
    The model, its parameters, gradients and the default random numbers are as they were, and no graph is kept.

    Raises: GraphError for a tensor that remembers nothing, or if nothing was computed; DTypeError or ValueError for an
        argument that does not fit.

    >>> import tinyrnn as tr
    >>> for T in (3, 30):  # rolled, a picture is as large for 30 steps as for 3
    ...     tr.draw(tr.nn.RNN(3, 4), tr.zeros(T, 1, 3)).graph
    <graph of 14 nodes and 14 edges>
    <graph of 14 nodes and 14 edges>
    """
    if view not in VIEWS:
        raise ValueError(f"draw: view is {view!r}; expected 'rolled' or 'unrolled'")
    if detail is not None and detail not in DETAILS:
        raise ValueError(f"draw: detail is {detail!r}; expected {', '.join(map(repr, DETAILS))}")
    if direction not in ("LR", "TB"):
        raise ValueError(f"draw: direction is {direction!r}; expected 'LR' or 'TB'")
    if not isinstance(steps, Iterable):
        raise DTypeError(f"draw: steps is {steps!r}; expected time steps, such as [{steps!r}]")
    with _no_collection():
        whole, chosen = graph_of(what, *inputs, values=values, gradients=gradients, names=names), tuple(steps)
    if not whole.nodes:
        raise GraphError(
            "draw: there is nothing to draw: no operation was recorded, and no tensor was given or returned"
        )
    detail = detail or ("cell" if view == "unrolled" and not isinstance(what, Tensor) else "op")
    title = _title(what)  # the picture must not keep the model

    def picture(view: str, detail: str, most: int, **written: bool) -> Picture:
        with _no_collection():
            graph = shown(whole, view, detail, most, chosen)
        in_time = view == "unrolled" and any(p.kind == "loop" for node in graph.nodes for p in node.place)
        drawing = digraph(graph, direction=direction, in_time=in_time, shapes=shapes, **written)
        return Picture(graph, drawing, in_time, make_page)

    def make_page() -> str:
        pictures = {(v, d): picture(v, d, min(max_nodes, MOST_NODES), legend=False) for v in VIEWS for d in DETAILS}
        views = [View(v, d, drawn.graph, drawn.render("svg")) for (v, d), drawn in pictures.items()]
        return page(title, whole, views, (view, detail))

    return picture(view, detail, max_nodes, values=values, gradients=gradients, legend=legend)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the garbage collector: nothing of a graph is garbage while it is made, and to look takes half the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _title(what: Any) -> str:
    """Return what a page about something is called: a model by its class, a function by its name."""
    return what.__name__ if inspect.isroutine(what) else type(what).__name__


def graph_of(
    what: Any,
    *inputs: Any,
    values: bool = False,
    gradients: bool = False,
    names: Mapping[str, Tensor] | None = None,
) -> Graph:
    """Return the graph of a model run on inputs, or of what a tensor remembers; see `draw`."""
    if isinstance(what, Graph):
        return settled(what)
    if isinstance(what, recording):
        return settled(what.graph)
    if not callable(what) or isinstance(what, Tensor):
        if inputs:
            raise DTypeError(
                f"draw: given {type(what).__name__} and {len(inputs)} inputs; expected a model before its inputs, or a "
                "tensor alone"
            )
        if not isinstance(what, Tensor | tuple | list | dict):
            raise DTypeError(
                f"draw: given {type(what).__name__}; expected a model and its input, a tensor, or several in a tuple, "
                "list or dict, a Graph or a recording"
            )
        return settled(trace(what, names=names, values=values, gradients=gradients))
    given = [tensor(x) if hasattr(x, "__array__") and not isinstance(x, Tensor) else x for x in inputs]
    random = default_generator.state
    try:
        with enable_grad(), recording(_input_names(what, given) | dict(names or {}), values) as recorded:
            return settled(recorded.finish(what(*given), gradients))
    finally:
        default_generator.state = random


def _input_names(model: Callable[..., Any], inputs: list[Any]) -> dict[str, Tensor]:
    """Return the tensors of a model's inputs by the names that its `forward` has for them."""
    function = model.forward if isinstance(model, Module) else model
    signature = inspect.signature(function)
    try:
        signature.bind(*inputs)
    except TypeError as error:
        name = type(model).__name__ if isinstance(model, Module) else getattr(function, "__name__", "the function")
        raise DTypeError(
            f"draw: given {len(inputs)} inputs for {name}{signature}: {error}; expected them behind the model: "
            "tr.draw(model, x)"
        ) from None
    names = [p.name for p in signature.parameters.values()]
    names += [f"input {k}" for k in range(len(names), len(inputs))]
    return {name: x for given, part in zip(names, inputs, strict=False) for name, x in named_parts(part, given)}


def shown(graph: Graph, view: str, detail: str, max_nodes: int, steps: tuple[int, ...] = ()) -> Graph:
    """Return as much of a graph as a picture shows: see `draw`."""
    if view == "rolled":
        rolled = at_detail(roll(graph), detail, rolled=True)
        rolled.notes += differing(rolled)
        return rolled if len(rolled.nodes) <= max_nodes else overview(rolled)
    graph = at_detail(graph, detail, rolled=False)

    def few(taken: tuple[int, ...]) -> Iterable[int]:
        if len(taken) <= (FIRST + LAST + 1 if len(graph.nodes) > max_nodes else MOST_COLUMNS):
            return taken
        return [*sorted(taken)[:FIRST], *sorted(taken)[-LAST:], *steps]

    fewer = some_steps(graph, few)
    return fewer if len(fewer.nodes) <= max_nodes else overview(graph)


def differing(rolled: Graph) -> list[str]:
    """Say of which loops the steps are not all alike."""
    found: dict[Any, dict[Any, None]] = {}
    for node in rolled.nodes:
        for loop, step in zip(node.place, node.place[1:], strict=False):
            if loop.kind == "loop":
                found.setdefault(loop, {})[step] = None
    return [
        f"not all {len(loop.steps):,} steps are alike: {len(steps)} kinds are drawn apart"
        for loop, steps in found.items()
        if len(steps) > 1
    ]
