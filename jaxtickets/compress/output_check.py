"""Checks that a small net computes what the masked net computes, up to rounding."""

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
from jaxtickets.types import Array, Model, Ticket, UnitMask


def output_difference(
    net: nn.Module | Model,
    ticket: Ticket,
    units: UnitMask,
    graph: Graph,
    small_net: nn.Module | Model,
    small_ticket: Ticket,
) -> float:
    """The largest difference between the outputs of the masked net and those of the small net.

    The nets run in evaluation mode on two random examples, one at a time. The difference is
    relative to the masked net's largest output; it is infinite if the outputs' shapes differ, or if
    only one of two outputs is a number.

    Args:
      net, ticket, units, graph: as in `shrink`.
      small_net, small_ticket: the result of `shrink`.

    >>> linear = Model(None, lambda params, stats, images, *_: (images @ params["w"], stats))
    >>> graph = Graph((), {}, {}, frozenset(), image=(2,))
    >>> one = Ticket({"w": jnp.ones((2, 1))}, {}, {"w": jnp.ones((2, 1), bool)}, 0)
    >>> larger = one._replace(params={"w": jnp.full((2, 1), 1.5)})
    >>> round(output_difference(linear, one, {}, graph, linear, larger), 3)
    0.5
    """
    return difference_and_rounding(net, ticket, units, graph, small_net, small_ticket)[0]


def difference_and_rounding(
    net: nn.Module | Model,
    ticket: Ticket,
    units: UnitMask,
    graph: Graph,
    small_net: nn.Module | Model,
    small_ticket: Ticket,
) -> tuple[float, float]:
    """`output_difference`, and the largest difference that rounding can explain.

    The second is the square root of the machine epsilon of the net's least precise float type.

    >>> linear = Model(None, lambda params, stats, images, *_: (images @ params["w"], stats))
    >>> graph = Graph((), {}, {}, frozenset(), image=(2,))
    >>> one = Ticket({"w": jnp.ones((2, 1))}, {}, {"w": jnp.ones((2, 1), bool)}, 0)
    >>> difference, allowed = difference_and_rounding(linear, one, {}, graph, linear, one)
    >>> difference, round(allowed, 5)  # the root of float32's 1.2e-7
    (0.0, 0.00035)
    """
    masked_outputs, epsilon = _outputs(net, graph, ticket, units)
    small_outputs, _ = _outputs(small_net, graph, small_ticket, None)
    difference = 0.0
    for masked, small in zip(masked_outputs, small_outputs, strict=True):
        if masked.shape != small.shape:
            return math.inf, 0.0
        same = (masked == small) | (np.isnan(masked) & np.isnan(small))
        if not same.all():
            scale = float(np.abs(masked[np.isfinite(masked)]).max(initial=0))
            gaps = np.abs(masked - small)[~same]
            largest = math.inf if np.isnan(gaps).any() else float(gaps.max())
            difference = max(difference, largest / scale if scale else math.inf)
    return difference, math.sqrt(epsilon)


def _outputs(
    net: nn.Module | Model, graph: Graph, ticket: Ticket, units: UnitMask | None
) -> tuple[list[np.ndarray], float]:
    """A masked net's outputs on two random examples, and the largest epsilon of its float types."""
    draw = np.random.default_rng(0)

    def random_input(spec: jax.ShapeDtypeStruct) -> np.ndarray:
        floats = jnp.issubdtype(spec.dtype, jnp.floating)
        values = draw.normal(size=spec.shape) if floats else draw.integers(0, 2, spec.shape)
        return np.asarray(values, spec.dtype)

    examples = [tuple(map(random_input, nets.example_inputs(graph.image))) for _ in range(2)]
    model = nets.as_model(lax_form(net), graph.image)

    def apply(ticket: Ticket, images: Array) -> Array:
        params = masks.apply(ticket.mask, ticket.params)
        if units is not None:
            params = masks.apply(masks.expand(units, graph.wiring, params), params)
        return model.apply(params, ticket.stats, images if len(images) > 1 else images[0])[0]

    with jax.default_matmul_precision("highest"):
        traced = jax.jit(apply).trace(ticket, examples[0])
        fast_compile = (
            {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
        )
        compiled = traced.lower().compile(fast_compile)
    outputs = [compiled(ticket, example) for example in examples]
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(outputs)]
    floats = [a.astype(np.float64) for a in arrays if jnp.issubdtype(a.dtype, jnp.floating)]
    return floats, _largest_epsilon(traced.jaxpr.jaxpr)


def _largest_epsilon(jaxpr: Jaxpr) -> float:
    """The largest epsilon of the float types that a jaxpr computes with; at least float32's."""
    epsilon = float(jnp.finfo(jnp.float32).eps)
    for eqn in jaxpr.eqns:
        dtypes = [getattr(var.aval, "dtype", None) for var in eqn.outvars]
        floats = [t for t in dtypes if t is not None and jnp.issubdtype(t, jnp.floating)]
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
                *(float(jnp.finfo(dtype).eps) for dtype in floats),
                *(_largest_epsilon(opened(body)) for body in bodies),
            ]
        )
    return epsilon
