"""The check of a shrunk net: its outputs must equal the masked net's, up to rounding."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, Jaxpr

from jaxtickets import masks, nets
from jaxtickets.compress.graph import Graph
from jaxtickets.nets.convolution import lax_form
from jaxtickets.nets.element_moves import opened
from jaxtickets.types import Array, Ticket, UnitMask


def output_gap(
    net: nn.Module,
    ticket: Ticket,
    units: UnitMask,
    graph: Graph,
    small_net: nn.Module,
    small_ticket: Ticket,
) -> float:
    """The largest difference between the outputs of the masked net and the small net.

    Over two random examples, one at a time, in evaluation mode, as a share of the masked net's
    largest output.

    Args:
      net, ticket, units, graph: as in `shrink`.
      small_net, small_ticket: the result of `shrink`.
    """
    return gap_and_rounding(net, ticket, units, graph, small_net, small_ticket)[0]


def gap_and_rounding(
    net: nn.Module,
    ticket: Ticket,
    units: UnitMask,
    graph: Graph,
    small_net: nn.Module,
    small_ticket: Ticket,
) -> tuple[float, float]:
    """`output_gap`, and how much of it may be rounding: the square root of the coarsest epsilon."""
    wholes, epsilon = _outputs(net, graph, ticket, units)
    others, _ = _outputs(small_net, graph, small_ticket, None)
    gap = 0.0
    for whole, other in zip(wholes, others, strict=True):
        if whole.shape != other.shape:
            return math.inf, 0.0
        same = (whole == other) | (np.isnan(whole) & np.isnan(other))
        if not same.all():
            largest = np.abs(whole[np.isfinite(whole)]).max(initial=0)
            gap = max(gap, np.abs(whole - other)[~same].max() / largest if largest else math.inf)
    return gap, math.sqrt(epsilon)


def _outputs(
    net: nn.Module, graph: Graph, ticket: Ticket, units: UnitMask | None
) -> tuple[list[np.ndarray], float]:
    """A masked net's outputs for two random examples, and the coarsest epsilon of its floats."""
    draw = np.random.default_rng(0)

    def inputs(one: jax.ShapeDtypeStruct) -> np.ndarray:
        floats = jnp.issubdtype(one.dtype, jnp.floating)
        drawn = draw.normal(size=one.shape) if floats else draw.integers(0, 2, one.shape)
        return np.asarray(drawn, one.dtype)

    examples = [tuple(map(inputs, nets.example_inputs(graph.image))) for _ in range(2)]
    model = nets.functional(lax_form(net), graph.image)

    def apply(ticket: Ticket, images: Array) -> Array:
        params = masks.apply(ticket.mask, ticket.params)
        if units is not None:
            params = masks.apply(masks.expand(units, graph.wiring, params), params)
        return model.apply(params, ticket.stats, images)[0]

    with jax.default_matmul_precision("highest"):
        traced = jax.jit(apply).trace(ticket, examples[0])
        quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
        compiled = traced.lower().compile(quick)
    outputs = [compiled(ticket, example) for example in examples]
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(outputs)]
    floats = [a.astype(np.float64) for a in arrays if jnp.issubdtype(a.dtype, jnp.floating)]
    return floats, coarsest(traced.jaxpr.jaxpr)


def coarsest(jaxpr: Jaxpr) -> float:
    """The largest epsilon of the float types that a jaxpr computes with; at least float32's."""
    epsilon = float(jnp.finfo(jnp.float32).eps)
    for eqn in jaxpr.eqns:
        types = [getattr(var.aval, "dtype", None) for var in eqn.outvars]
        floats = [one for one in types if one is not None and jnp.issubdtype(one, jnp.floating)]
        bodies = [
            part
            for part in jax.tree.leaves(
                list(eqn.params.values()),
                is_leaf=lambda part: isinstance(part, (Jaxpr, ClosedJaxpr)),
            )
            if isinstance(part, (Jaxpr, ClosedJaxpr))
        ]
        epsilon = max(
            [
                epsilon,
                *(float(jnp.finfo(one).eps) for one in floats),
                *(coarsest(opened(body)) for body in bodies),
            ]
        )
    return epsilon
