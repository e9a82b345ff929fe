"""What a structure loses and keeps: a random half of its units is cut from its program."""

import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.any_model.structures import Structure
from experiments.harness.timing import median_times
from jaxtickets import masks, nets
from jaxtickets.compress import graph
from jaxtickets.compress.output_check import output_difference
from jaxtickets.compress.shrink import shrink_model
from jaxtickets.nets.functional import Example
from jaxtickets.types import Array, Model, Ticket

Row = dict[str, Any]

DOCUMENTED: Mapping[str, str] = {
    "concatenation": "operator",
    "inception": "operator",
    "two inputs, two outputs": "operator",
    "depthwise, two filters": "convolution",
    "grouped convolution": "convolution",
    "layer norm": "normalization",
    "RMS norm": "parameter",
    "group norm": "normalization",
    "instance norm, transposed": "normalization",
    "U-net": "operator",
    "convolution, one axis": "convolution",
    "convolution, three axes": "convolution",
    "channels first": "operator",
    "transformer": "attention",
    "vision transformer": "attention",
    "LSTM": "one layer",
}
"""Structure -> as what Torch-Pruning documents that it cuts it; it was not run."""


def measure(name: str, structure: Structure, share: float, batch: int, seed: int) -> Row:
    """The row of a structure.

    Args:
      name: the structure's name.
      structure: the net.
      share: of the units of each group that stay.
      batch: the number of examples of a timed forward pass.
      seed: of weights, units and inputs.

    Returns:
      `structure`, `kind`; `groups`, `units`, `left`, their numbers before and after; `difference`,
      the largest difference of outputs, relative to the largest output; `parameters`, `adds` and
      `ms` before, and `small_parameters`, `small_adds` and `small_ms` after; `trace_ms`; `stays`,
      what can't be cut and why; and `documented`.
    """
    model, example = structure.model, structure.example
    start = time.perf_counter()
    found = graph.trace(model, example, refuse=False)
    trace_ms = 1e3 * (time.perf_counter() - start)
    draw = np.random.default_rng(seed)
    ticket = random_ticket(model, draw)
    units = {
        group.name: draw.permutation(group.size) < max(1, round(share * group.size))
        for group in found.wiring
    }
    small, cut, report = shrink_model(model, ticket, units, found)
    given = inputs(example, batch, draw)
    calls = [_call(*pair, given) for pair in ((model, ticket), (small, cut))]
    before, after = median_times(calls, repeats=9)
    return {
        "structure": name,
        "kind": structure.kind,
        "groups": len(found.wiring),
        "units": sum(group.size for group in found.wiring),
        "left": sum(count for count, _ in report.units.values()),
        "difference": output_difference(model, ticket, units, found, small, cut),
        "parameters": report.before.parameters,
        "small_parameters": report.after.parameters,
        "adds": report.before.multiply_adds,
        "small_adds": report.after.multiply_adds,
        "trace_ms": trace_ms,
        "ms": 1e3 * before,
        "small_ms": 1e3 * after,
        "stays": "; ".join(f"{why}" for why in found.reasons.values()),
        "documented": DOCUMENTED.get(name, ""),
    }


def random_ticket(model: Model, draw: np.random.Generator) -> Ticket:
    """A ticket none of whose numbers is zero or trivial, under a full mask."""

    def leaf(like: jax.ShapeDtypeStruct) -> Array:
        if len(like.shape) < 2:
            return draw.uniform(0.5, 1.5, like.shape).astype(like.dtype)
        scale = (2 / np.prod(like.shape[:-1])) ** 0.5
        return (scale * draw.normal(size=like.shape)).astype(like.dtype)

    params, stats = jax.tree.map(leaf, nets.init_shapes(model))
    return Ticket(params, stats, masks.ones(params), np.int32(0))


def inputs(example: Example, batch: int, draw: np.random.Generator) -> Array:
    """Random inputs of a net, or their tuple; integers are words from 0 to 6."""
    found = []
    for one in nets.example_inputs(example):
        shape = (batch, *one.shape[1:])
        whole = jnp.issubdtype(one.dtype, jnp.integer)
        values = draw.integers(0, 7, shape) if whole else draw.normal(size=shape)
        found.append(jnp.asarray(values, one.dtype))
    return tuple(found) if len(found) > 1 else found[0]


def _call(model: Model, ticket: Ticket, given: Array) -> Any:
    """A call of the compiled forward pass."""
    compiled = jax.jit(lambda params, stats, given: model.apply(params, stats, given)[0])
    return lambda: jax.block_until_ready(compiled(ticket.params, ticket.stats, given))
