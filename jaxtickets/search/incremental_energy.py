"""Energies by difference: the first layer's sums are kept along a walk, and swaps change them.

Before its first non-linearity a net is linear. For a first layer that is dense, with inputs x, a
kernel w and a mask m, the sums of unit u over all examples,

    z[u] = sum_i  m[i, u] w[i, u] x[i],

change by `± w[i, u] x[i]` for each weight (i, u) that a swap switches: 2 k rows of additions, in
place of a product of all inputs with all units. The rest of the net is evaluated from the sums. It
is cut out of the net's own jaxpr, so that no architecture is written twice.

Sums that are changed over and over drift from those of the mask by rounding. They are found anew
by `Moves.refresh`, which tells how far they were off. A refused proposal leaves them as they were,
bit by bit.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from jaxtickets import masks
from jaxtickets.search import swaps
from jaxtickets.search.energies import Measure
from jaxtickets.search.moves import Moves, Proposal
from jaxtickets.search.space import Space
from jaxtickets.types import Array, Key, Mask, Model, Params, Stats

ADDITION = 10
"""What a multiply-add of an update costs, in multiply-adds of a matrix product; on CPUs."""


class Layer(NamedTuple):
    """A net's first layer, dense, cut out of it.

    Attributes:
      path: of the kernel, `[inputs, units]`.
      inputs, units: its shape.
      columns: `columns(params, stats, images) -> float32[inputs, n]`: what the layer reads, which
        depends on the images alone.
      rest: `rest(params, stats, images, sums[n, units]) -> logits[n, classes]`: the net in
        evaluation mode from the kernel's products on, the layer's bias included.
    """

    path: str
    inputs: int
    units: int
    columns: Callable[[Params, Stats, Array], Array]
    rest: Callable[[Params, Stats, Array, Array], Array]

    @property
    def weights(self) -> int:
        """The number of the kernel's weights."""
        return self.inputs * self.units

    @property
    def limit(self) -> int:
        """So many weights that change at once cost no more than the whole product."""
        return self.weights // ADDITION


class Walk(NamedTuple):
    """A walk of swaps, and the sums where it stands.

    Attributes:
      swapped: the walk of `swaps.moves`.
      sums: float32`[units, n]`.
    """

    swapped: swaps.Walk
    sums: Array

    @property
    def bits(self) -> Array:
        """bool`[n]`, the current point."""
        return self.swapped.bits


def first_layer(model: Model, params: Params, stats: Stats, images: Array) -> Layer | None:
    """The dense layer that reads what no parameter has changed; None if the net has none.

    That is a product of a matrix of examples that depends on the images alone and a kernel that
    nothing else reads, both float32 or both float64.

    Args:
      model: the net as functions.
      params, stats, images: of the shapes and types to come; values don't matter.
    """

    def logits(params: Params, stats: Stats, images: Array) -> Array:
        return model.apply(params, stats, images)[0]

    closed = jax.make_jaxpr(logits)(params, stats, images)
    jaxpr = closed.jaxpr
    paths = dict(zip(jaxpr.invars, masks.paths(params), strict=False))  # parameters come first
    learnt = {var for var in jaxpr.invars[:-1]}
    reads = [var for eqn in jaxpr.eqns for var in eqn.invars if not isinstance(var, Literal)]
    for at, eqn in enumerate(jaxpr.eqns):
        inputs = {var for var in eqn.invars if not isinstance(var, Literal)}
        if eqn.primitive.name == "dot_general" and len(inputs) == 2:
            examples, kernel = eqn.invars
            if (
                kernel in paths
                and examples not in learnt
                and reads.count(kernel) == 1
                and kernel not in jaxpr.outvars
                and eqn.params["dimension_numbers"] == (((1,), (0,)), ((), ()))
                and examples.aval.ndim == kernel.aval.ndim == 2
                and examples.aval.shape[0] == images.shape[0]
                and examples.aval.dtype == kernel.aval.dtype == eqn.outvars[0].aval.dtype
                and kernel.aval.dtype in (jnp.float32, jnp.float64)
            ):
                return _cut(closed, at, paths[kernel])
        if inputs & learnt:
            learnt |= set(eqn.outvars)
    return None


def _cut(closed: ClosedJaxpr, at: int, path: str) -> Layer:
    """The layer whose product is equation `at`."""
    jaxpr = closed.jaxpr
    product = jaxpr.eqns[at]
    examples, kernel = product.invars
    head = jaxpr.replace(eqns=jaxpr.eqns[:at], outvars=[examples])
    tail = jaxpr.replace(
        eqns=[*jaxpr.eqns[:at], *jaxpr.eqns[at + 1 :]], invars=[*jaxpr.invars, *product.outvars]
    )

    def call(part: Jaxpr, *values: Any) -> Array:
        return jaxpr_as_fun(ClosedJaxpr(part, closed.consts))(*jax.tree.leaves(values))[0]

    return Layer(
        path,
        inputs=kernel.aval.shape[0],
        units=kernel.aval.shape[1],
        columns=lambda *values: call(head, *values).T,
        rest=lambda *values: call(tail, *values),
    )


def pays(layer: Layer, smallest: int, steps: int) -> bool:
    """Whether a walk is faster with sums that are kept than without.

    A step with a swap of more than `Layer.limit` weights finds the sums anew, so that differences
    cost hardly more than plain evaluation even then: it is the smallest swaps that decide. Keeping
    and choosing sums is worth an addition of each unit's.

    Args:
      layer: the layer.
      smallest: the smallest swap of the walk.
      steps: between two refreshments, each a product.
    """
    step = min((2 * smallest + layer.units) * ADDITION, layer.weights)
    return step + layer.weights / steps < layer.weights


def moves(inner: Moves, space: Space, layer: Layer, kernel: Array, columns: Array) -> Moves:
    """The moves of `swaps.moves`, with the sums kept beside the walk.

    Args:
      inner: what `swaps.moves(space, ...)` gives.
      space: of weights; the layer's kernel is one of its segments.
      layer: the first layer.
      kernel: float32`[inputs, units]`, dense and as it is before any scaling.
      columns: float32`[inputs, n]`, see `Layer`.
    """
    start = space.starts[space.names.index(layer.path)]
    most = int(inner.most)
    flat = kernel.reshape(-1)

    def exact(bits: Array) -> Array:
        kept = lax.slice(bits, (start,), (start + layer.weights,)).reshape(kernel.shape)
        masked = jnp.where(kept, kernel, 0.0)
        return lax.dot_general(masked, columns, (((0,), (0,)), ((), ())))

    def entries(index: Array) -> tuple[Array, Array, Array]:
        """Input, unit and weight of bits; the weight of another layer's is none to this one."""
        place = index - start
        inside = (place >= 0) & (place < layer.weights)
        place = jnp.clip(place, 0, layer.weights - 1)
        return place // layer.units, place % layer.units, jnp.where(inside, flat[place], 0.0)

    def change(sums: Array, off: Array, on: Array, live: Array) -> Array:
        """The sums with some weights off and as many on, one after another: they share units."""
        gone, come = entries(off), entries(on)

        def pair(i: Array, sums: Array) -> Array:
            for (rows, units, weights), sign in ((gone, -1), (come, 1)):
                row = lax.dynamic_slice_in_dim(columns, rows[i], 1)
                now = lax.dynamic_slice_in_dim(sums, units[i], 1) + sign * weights[i] * row
                sums = lax.dynamic_update_slice_in_dim(sums, now, units[i], 0)
            return sums

        return lax.fori_loop(0, jnp.sum(live, dtype=jnp.int32), pair, sums)

    def after(proposal: Proposal, sums: Array) -> Array:
        def by_difference() -> Array:
            return swaps.over_changes(space, proposal, most, change, sums)

        if 2 * most <= layer.limit:
            return by_difference()
        whole = 2 * proposal.size > layer.limit
        return lax.cond(whole, lambda: exact(proposal.walk.bits), by_difference)

    def init(key: Key, bits: Array) -> Walk:
        return Walk(inner.init(key, bits), exact(bits))

    def propose(key: Key, size: Array, walk: Walk) -> Proposal:
        proposal = inner.propose(key, size, walk.swapped)
        there = Walk(proposal.walk, after(proposal, walk.sums))
        return proposal._replace(walk=there, undo=(proposal.undo, walk.sums))

    def settle(proposal: Proposal, accepted: Array) -> Walk:
        there, (undo, sums) = proposal.walk, proposal.undo
        swapped = inner.settle(proposal._replace(walk=there.swapped, undo=undo), accepted)
        return Walk(swapped, jnp.where(accepted, there.sums, sums))

    def heat(walk: Walk, temperature: Array) -> Walk:
        return walk._replace(swapped=inner.heat(walk.swapped, temperature))

    def refresh(walk: Walk) -> tuple[Walk, Array]:
        sums = exact(walk.bits)
        return walk._replace(sums=sums), jnp.max(jnp.abs(sums - walk.sums))

    return inner._replace(
        init=init,
        propose=propose,
        settle=settle,
        point=lambda walk: walk.bits,
        heat=heat,
        refresh=refresh,
    )


def fixed(
    layer: Layer,
    space: Space,
    params: Params,
    stats: Stats,
    images: Array,
    labels: Array,
    measure: Measure,
    effective: Callable[[Mask, Params], Params] = masks.apply,
    scale: Callable[[Mask], Array] = lambda mask: jnp.float32(1),
) -> Callable[[Walk], Array]:
    """The energy of `energies.fixed` at a walk of `moves`, from its sums: `energy(walk) -> scalar`.

    Args:
      layer, space: as in `moves`.
      params, stats, images, labels, measure, effective: as in `energies.fixed`.
      scale: what `effective` multiplies the layer's kernel by, beside masking it; a scalar.
    """

    def energy(walk: Walk) -> Array:
        mask = space.mask(walk.bits)
        sums = (scale(mask) * walk.sums).T
        return measure(layer.rest(effective(mask, params), stats, images, sums), labels)

    return energy
