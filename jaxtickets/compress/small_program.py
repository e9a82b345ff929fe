"""The program of a net with fewer units: the equations of the large net on smaller arrays.

A module with other widths is another net, which must be known by its class. The equations of any
net, on the other hand, are at hand: each is run on arrays without the removed units, as the table
of `primitives` says. The result computes what the masked net computes, numbers that the net took
from its sizes included: a layer norm divides by the number of units that the large net had.

Derivatives are those of the equations; where a call with a rule of its own lost units, such as
ReLU, whose derivative at zero is zero, they are those of its body (for `max(x, 0)`, a half).
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from jaxtickets import masks
from jaxtickets.compress.graph import Graph, along, kept
from jaxtickets.compress.primitives import NO_RULE, PRIMITIVES
from jaxtickets.compress.primitives.base import Body, bind, fitted
from jaxtickets.compress.unit_labels import (
    FIXED,
    FREE,
    Axis,
    Seen,
    UntraceableError,
    Value,
    fixed,
    free,
)
from jaxtickets.compress.unit_tracing import constant, traced_outputs, walk
from jaxtickets.nets.element_moves import called_by, module_of, opened, shape_of
from jaxtickets.nets.functional import init_shapes
from jaxtickets.types import Array, Key, Model, Params, PyTree, Stats, UnitMask

REMATS = ("checkpoint", "remat", "remat2")


def small_model(model: Model, graph: Graph, units: UnitMask) -> Model:
    """The model with only the units that are kept.

    `init` draws the large net's parameters and drops those of the other units.

    Args:
      model: the large model.
      graph: its channel graph.
      units: `{group: bool[units]}`; an absent group stays whole.

    Raises:
      ValueError: as in `graph.kept`; from `apply`, an operation cannot run without the units.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> model = nets.functional(net, (2, 2, 1))
    >>> traced = graph.trace(model, (2, 2, 1))
    >>> units = {"fc1": np.array([True, True, False, False])}
    >>> small = small_model(model, traced, units)
    >>> params, stats = small.init(jax.random.key(0))
    >>> params["fc1"]["kernel"].shape, small.apply(params, stats, np.ones((5, 2, 2, 1)))[0].shape
    ((4, 2), (5, 2))
    """
    stays = kept(graph, units)
    shapes = init_shapes(model)

    def init(key: Key) -> tuple[Params, Stats]:
        params, stats = model.init(key)
        return cut_tree("params", params, graph, stays), cut_tree(
            "batch_stats", stats, graph, stays
        )

    def apply(
        params: Params, stats: Stats, images: Array, key: Key | None = None, train: bool = False
    ) -> tuple[Any, Stats]:
        given, random = (params, stats), () if key is None else (key,)
        large = jax.tree.map(
            lambda like, leaf: jax.ShapeDtypeStruct(like.shape, leaf.dtype), shapes, given
        )

        def whole(given: Any, images: Array, *random: Key) -> tuple[Any, Stats]:
            return model.apply(*given, images, *(random or (None,)), train)

        closed, outputs = jax.make_jaxpr(whole, return_shape=True)(large, images, *random)
        seen = Seen(itertools.count(len(stays)), [], {}, {}, {}, set(graph.depthwise), [])
        values = [*_leaves("params", shapes[0], graph, seen)]
        values += _leaves("batch_stats", shapes[1], graph, seen)
        values += [fixed(np.shape(leaf)) for leaf in jax.tree.leaves((images, random))]
        body = _body(stays, seen)
        arrays = jax.tree.leaves((given, images, random))
        try:
            made, found = body.run(closed, values, arrays)
            wants = [free(leaf.shape) for leaf in jax.tree.leaves(outputs[0])]
            wants += _leaves("batch_stats", outputs[1], graph, seen)
            found = [
                fitted(array, *([body.keep(axis) for axis in one.axes] for one in pair))
                for array, *pair in zip(found, made, wants, strict=True)
            ]
        except UntraceableError as error:
            raise ValueError(f"the net can't run without these units: {error}") from None
        return jax.tree.unflatten(jax.tree.structure(outputs), found)

    return Model(init, apply)


def cut_tree(kind: str, tree: PyTree, graph: Graph, stays: np.ndarray) -> PyTree:
    """The leaves with the positions whose units are kept.

    Args:
      kind: 'params' or 'batch_stats'.
      tree: the leaves.
      graph: the channel graph.
      stays: bool`[units]` (`graph.kept`).

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> model = nets.functional(net, (2, 2, 1))
    >>> traced = graph.trace(model, (2, 2, 1))
    >>> units = {"fc1": np.array([True, True, False, False])}
    >>> params, _ = model.init(jax.random.key(0))
    >>> small = cut_tree("params", params, traced, kept(traced, units))
    >>> small["fc1"]["kernel"].shape, small["fc2"]["kernel"].shape
    ((4, 2), (2, 3))
    """
    leaves = []
    for path, leaf in zip(masks.paths(tree), jax.tree.leaves(tree), strict=True):
        for axis, places in graph.axes[f"{kind}/{path}"].items():
            here = along(stays, places)
            if not here.all():
                leaf = leaf.take(np.flatnonzero(here), axis)
        leaves.append(leaf)
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _leaves(kind: str, tree: PyTree, graph: Graph, seen: Seen) -> list[Value]:
    """The leaves with the units of the graph as labels."""
    found = []
    for path, leaf in zip(masks.paths(tree), jax.tree.leaves(tree), strict=True):
        name, axes = f"{kind}/{path}", list[Axis]()
        for axis in range(-len(leaf.shape), 0):
            units = graph.axes[name].get(axis, np.full(leaf.shape[axis], FIXED))
            if units.ndim > 1:
                units = np.array([seen.composite(row) for row in units])
            axes.append((units,))
        masked = kind == "params"
        found.append(Value(tuple(axes), (masked,) * len(axes), FREE, name))
    return found


def _needed(jaxpr: Any) -> list[JaxprEqn]:
    """The equations that an output depends on.

    A causal mask, for one, reads the shape of its input by way of a single unit.
    """
    wanted = {var for var in jaxpr.outvars if not isinstance(var, Literal)}
    found = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or not wanted.isdisjoint(eqn.outvars):
            wanted.update(atom for atom in eqn.invars if not isinstance(atom, Literal))
            found.append(eqn)
    return found[::-1]


def _body(stays: np.ndarray, seen: Seen) -> Body:
    """How to run a jaxpr with the units that are kept."""
    known: dict[int, bool] = {}

    def stands(label: int) -> bool:
        if label < len(stays):
            return label <= FIXED or bool(stays[label])
        if label not in known:
            known[label] = all(map(stands, seen.parts.get(label, ())))
        return known[label]

    def keep(axis: Axis) -> np.ndarray:
        here = np.ones(1, bool)
        for factor in axis:
            mine = np.array([stands(int(label)) for label in factor], bool)
            here = np.logical_and.outer(here, mine).reshape(-1)
        return here

    def cut(values: Sequence[Value]) -> bool:
        return any(not keep(axis).all() for value in values for axis in value.axes)

    def run(
        closed: ClosedJaxpr | Any, values: Sequence[Value], arrays: Sequence[Array], where: str = ""
    ) -> tuple[list[Value], list[Array]]:
        jaxpr = opened(closed)
        consts = getattr(closed, "consts", ())
        labels: dict[Any, Value] = dict(zip(jaxpr.invars, values, strict=True))
        labels |= {var: free(shape_of(var)) for var in jaxpr.constvars}
        there: dict[Any, Array] = dict(zip(jaxpr.invars, arrays, strict=True))
        there |= dict(zip(jaxpr.constvars, consts, strict=True))

        def read(atom: Any) -> tuple[Value, Array]:
            if isinstance(atom, Literal):
                return constant(atom), atom.val
            return labels[atom], there[atom]

        for eqn in _needed(jaxpr):
            pairs = [read(atom) for atom in eqn.invars]
            mine, given = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            module, called = module_of(eqn, where), called_by(eqn)
            if called is None:
                made = traced_outputs(eqn, mine, seen, module)
            else:
                made = walk(opened(called), mine, seen, module)
            if any(not stands(value.whole) for value in made):
                raise UntraceableError(
                    f"'{eqn.primitive.name}' in {module} reads one of them alone"
                )
            if not cut(mine) and not cut(made):
                found = bind(eqn, given)
            elif called is not None:
                found = _called(eqn, called, mine, given, module)
            else:
                rule = PRIMITIVES.get(eqn.primitive.name, NO_RULE)
                found = rule.cut(eqn, given, mine, made, body._replace(module=module))
            labels.update(zip(eqn.outvars, made, strict=True))
            there.update(zip(eqn.outvars, found, strict=True))
        ends = [read(atom) for atom in jaxpr.outvars]
        return [value for value, _ in ends], [array for _, array in ends]

    def _called(
        eqn: JaxprEqn, called: Any, values: Sequence[Value], arrays: Sequence[Array], module: str
    ) -> list[Array]:
        def inside(*given: Array) -> list[Array]:
            return run(called, values, given, module)[1]

        if eqn.primitive.name in REMATS:
            again: Callable[..., list[Array]] = jax.checkpoint(
                inside, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"]
            )
            return again(*arrays)
        return inside(*arrays)

    body = Body(keep, run, walk, seen, "")
    return body
