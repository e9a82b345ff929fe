"""Incremental energies: swaps update the first layer's pre-activations, which the walk stores.

For a dense first layer with inputs x, kernel w and mask m, the pre-activation of unit u,

    z[u] = sum_i  m[i, u] w[i, u] x[i],

changes by `± w[i, u] x[i]` for each weight (i, u) that a swap switches. A swap of k pairs adds 2 k
rows instead of multiplying all inputs by all units. The rest of the net is evaluated from these
sums; it is cut out of the net's own jaxpr, so that no architecture is written twice.

Rounding errors accumulate in the stored sums. `Moves.refresh` recomputes the sums and reports their
largest error. A rejected proposal restores the previous sums bit for bit.
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
"""The cost of a multiply-add of an update, in multiply-adds of a matrix product; on CPUs."""


class Layer(NamedTuple):
    """A net's dense first layer, cut out of the net.

    Attributes:
      path: the path of the kernel, `[inputs, units]`.
      inputs, units: the shape of the kernel.
      columns: `columns(params, stats, images) -> float[inputs, n]`: the layer's inputs, which
        depend only on the images.
      rest: `rest(params, stats, images, sums[n, units]) -> logits[n, classes]`: the rest of the net
        in evaluation mode, from the kernel's products on, starting with the layer's bias.
    """

    path: str
    inputs: int
    units: int
    columns: Callable[[Params, Stats, Array], Array]
    rest: Callable[[Params, Stats, Array, Array], Array]

    @property
    def weights(self) -> int:
        """The number of weights in the kernel."""
        return self.inputs * self.units

    @property
    def limit(self) -> int:
        """The most changed weights for which an update is no slower than the whole product."""
        return self.weights // ADDITION


class Walk(NamedTuple):
    """A walk of swaps with its stored sums.

    Attributes:
      swapped: the walk of `swaps.moves`.
      sums: float`[units, n]`, the first layer's sums at the current point, like the kernel's dtype.
    """

    swapped: swaps.Walk
    sums: Array

    @property
    def bits(self) -> Array:
        """bool`[n]`, the current point."""
        return self.swapped.bits


def first_layer(model: Model, params: Params, stats: Stats, images: Array) -> Layer | None:
    """The dense layer that reads inputs no parameter has affected; None if the net has none.

    The layer is a product of a matrix `[n, inputs]` that depends only on the images with a kernel
    that is read nowhere else; both are float32 or both float64.

    Args:
      model: the net as functions.
      params, stats, images: arrays of the shapes and dtypes that `Layer` will receive; values are
        not read.

    >>> from jaxtickets.nets import functional_plain
    >>> params = {"w1": np.ones((3, 2), np.float32), "w2": np.ones((2, 1), np.float32)}
    >>> net = functional_plain(lambda p, images: jnp.tanh(images @ p["w1"]) @ p["w2"], params)
    >>> layer = first_layer(net, params, {}, np.ones((5, 3), np.float32))
    >>> layer.path, layer.inputs, layer.units
    ('w1', 3, 2)
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
    """The layer whose product is equation `at` of the jaxpr."""
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
    """Whether a walk with stored sums is faster than one without.

    A swap of more than `Layer.limit` weights recomputes the sums, so that large swaps cost hardly
    more than plain evaluation; the smallest swaps decide. Storing and selecting sums is counted as
    one addition per unit.

    Args:
      layer: the layer.
      smallest: the smallest swap of the walk.
      steps: the number of steps between two refreshes, each of which costs a product.

    >>> layer = Layer("w", inputs=784, units=300, columns=None, rest=None)
    >>> pays(layer, smallest=100, steps=20), pays(layer, smallest=20000, steps=20)
    (True, False)
    """
    step = min((2 * smallest + layer.units) * ADDITION, layer.weights)
    return step + layer.weights / steps < layer.weights


def moves(inner: Moves, space: Space, layer: Layer, kernel: Array, columns: Array) -> Moves:
    """Adds stored sums to the moves of `swaps.moves`.

    Args:
      inner: the result of `swaps.moves(space, ...)`.
      space: a space of weights; the layer's kernel is one of its segments.
      layer: the first layer.
      kernel: float`[inputs, units]`, the dense kernel, before any rescaling.
      columns: float`[inputs, n]`, see `Layer`.

    >>> from jaxtickets.search.space import weights
    >>> kernel, images = jnp.array([[2.0], [3.0]]), jnp.array([[1.0, 10.0]])
    >>> space = weights({"w": kernel}, ("w",))
    >>> layer = Layer("w", inputs=2, units=1, columns=None, rest=None)
    >>> stored = moves(swaps.moves(space, most=1), space, layer, kernel, columns=images.T)
    >>> walk = stored.init(jax.random.key(0), jnp.array([True, False]))
    >>> proposal = stored.propose(jax.random.key(1), 1, walk)
    >>> walk.sums.tolist(), proposal.walk.sums.tolist()  # 2 times 1, and 3 times 10
    ([[2.0]], [[30.0]])
    """
    start = space.starts[space.names.index(layer.path)]
    most = int(inner.most)
    flat = kernel.reshape(-1)

    def exact(bits: Array) -> Array:
        kept = lax.slice(bits, (start,), (start + layer.weights,)).reshape(kernel.shape)
        masked = jnp.where(kept, kernel, 0.0)
        return lax.dot_general(masked, columns, (((0,), (0,)), ((), ())))

    def entries(index: Array) -> tuple[Array, Array, Array]:
        """Input, unit and weight of each bit index; the weight is 0 for a bit of another layer."""
        place = index - start
        inside = (place >= 0) & (place < layer.weights)
        place = jnp.clip(place, 0, layer.weights - 1)
        return place // layer.units, place % layer.units, jnp.where(inside, flat[place], 0.0)

    def change(sums: Array, off: Array, on: Array, live: Array) -> Array:
        """Switches the weights `off` and `on`, one pair after another: pairs may share units."""
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
    """The energy of `energies.fixed` as `energy(walk) -> scalar`, from the sums in the walk.

    Args:
      layer, space: as in `moves`.
      params, stats, images, labels, measure, effective: as in `energies.fixed`.
      scale: `scale(mask) -> scalar`: the factor that `effective` applies to the layer's kernel
        beside masking it.

    >>> from jaxtickets.nets import functional_plain
    >>> from jaxtickets.search.space import weights
    >>> params, images = {"w": jnp.array([[2.0], [3.0]])}, jnp.array([[1.0, 10.0]])
    >>> net = functional_plain(lambda params, images: images @ params["w"], params)
    >>> space, layer = weights(params, ("w",)), first_layer(net, params, {}, images)
    >>> total = lambda logits, labels: jnp.sum(logits)
    >>> energy = fixed(layer, space, params, {}, images, jnp.array([0]), total)
    >>> walk = swaps.init(jax.random.key(0), space, jnp.array([True, False]))
    >>> float(energy(Walk(walk, sums=jnp.array([[2.0]]))))
    2.0
    """

    def energy(walk: Walk) -> Array:
        mask = space.mask(walk.bits)
        sums = (scale(mask) * walk.sums).T
        return measure(layer.rest(effective(mask, params), stats, images, sums), labels)

    return energy
