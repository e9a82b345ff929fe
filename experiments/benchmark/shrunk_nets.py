"""Nets without half of their units: whether their outputs are right, and how fast they are.

This is a group of the benchmark: `python -m experiments.benchmark --only=shrunk`.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.measured import Row, compared
from experiments.harness import latency
from jaxtickets import masks, nets
from jaxtickets.compress import graph, output_check, shrink, unit_selection
from jaxtickets.keys import stream
from jaxtickets.types import Params, Stats, Ticket

BATCH, SHARE = 128, 0.5
BARS = {"cnn960": 2.5, "vgg16": 2.5}
"""The speed-ups over the whole net to reach."""
TOLERANCE = 1e-4
"""The largest difference of outputs that can be rounding, relative to the largest output."""


def rows() -> Iterator[Row]:
    """Two rows for each net, see `compare`."""
    for name in nets.names():
        yield from compare(name, nets.image_shape(name), repeats=5)


def compare(name: str, shape: tuple[int, ...], repeats: int) -> Iterator[Row]:
    """A net with a random half of each layer's units, compared with the whole net.

    The first row is its latency. The second is the difference of its outputs from the masked net's.
    """
    net = nets.make(name, shape=shape)
    traced = graph.trace(net, shape)
    params, stats = _with_no_unit_alike(
        *jax.jit(nets.functional(net, shape).init)(stream(0, "init"))
    )
    whole = Ticket(params, stats, masks.ones(params), jnp.int32(0))
    scores = {
        g.name: jax.random.uniform(stream(0, "benchmark", f"units of {g.name}"), (g.size,))
        for g in traced.wiring
    }
    units = unit_selection.by_layer(traced, scores, SHARE)
    small_net, small, found = shrink.shrink(net, whole, units, traced)
    apart = output_check.output_difference(net, whole, units, traced, small_net, small)
    time, _ = latency.compare((net, whole), (small_net, small), shape, (BATCH,), repeats)
    left = found.after.multiply_adds / found.before.multiply_adds
    label = f"{name} with half its units"
    row = Row(f"{label}, {BATCH} images", time["after"], "ms")
    said = f"times as fast as the whole net, {left:.2f} of its multiply-adds"
    yield compared(row, time["ratio"], said, BARS.get(name))
    row = Row(f"{label}, outputs", apart, "of the largest")
    yield compared(row, TOLERANCE / apart if apart else np.inf, "difference allowed over seen", 1.0)


def _with_no_unit_alike(params: Params, stats: Stats) -> tuple[Params, Stats]:
    """Draws biases, scales and statistics from [0.5, 1.5), so that each has an effect."""
    draw = np.random.default_rng(0)

    def leaf(a: jax.Array) -> jax.Array:
        return jnp.asarray(draw.uniform(0.5, 1.5, a.shape), a.dtype) if a.ndim == 1 else a

    return jax.tree.map(leaf, (params, stats))
