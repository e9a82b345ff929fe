"""Mask-1 and mask-0 actions: the values of kept and of pruned weights.

Zhou et al., "Deconstructing lottery tickets", 2019, sections 3 and 4. A mask-1 action sets the
initial values of the kept weights for the next training; a mask-0 action sets the constant values
of the pruned weights.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxtickets import masks, nets
from jaxtickets.recipes import ticket_controls
from jaxtickets.recipes.ticket_controls import Control, ControlInputs, ControlStart
from jaxtickets.types import Array, Key, Params


def _reshuffle(key: Key, given: ControlInputs) -> ControlStart:
    """Permutes the kept weights within each layer; the key is consumed."""
    leaves = masks.pick(given.params, given.prunable)
    kept = masks.pick(given.mask, given.prunable)
    keys = jax.random.split(key, len(leaves))
    moved = [_permute(*three) for three in zip(keys, leaves, kept, strict=True)]
    return ControlStart(masks.put(given.params, given.prunable, moved), given.stats, given.mask)


def _signed_constant(key: Key, given: ControlInputs) -> ControlStart:
    """`sign(w) · std(layer)`: keeps only the signs of the weights, see `nets.signed_constant`."""
    del key
    return ControlStart(nets.signed_constant(given.params), given.stats, given.mask)


ONES: dict[str, Control] = {
    "rewind": ticket_controls.ticket,
    "reinit": ticket_controls.reinit,
    "reshuffle": _reshuffle,
    "signed_constant": _signed_constant,
}
"""Mask-1 actions, applied to the weights at initialisation."""

Fill = Callable[[Params, Params], Params]
"""`fill(init_params, params) -> params`: the values where the mask is False."""


def _zero(init: Params, final: Params) -> Params:
    """Zeros: pruning in the usual sense."""
    del final
    return jax.tree.map(jnp.zeros_like, init)


def _freeze(init: Params, final: Params) -> Params:
    """The initial values: pruned weights are frozen at initialisation."""
    del final
    return init


def _freeze_unless_toward_zero(init: Params, final: Params) -> Params:
    """Zero for weights that training moved towards zero, `|w_f| < |w_i|`; the others are frozen.

    A weight that is frozen already does not move, and keeps its value.
    """

    def leaf(i: Array, f: Array) -> Array:
        return jnp.where(jnp.abs(f) < jnp.abs(i), jnp.zeros_like(i), i)

    return jax.tree.map(leaf, init, final)


ZEROS: dict[str, Fill] = {
    "zero": _zero,
    "freeze": _freeze,
    "freeze_unless_toward_zero": _freeze_unless_toward_zero,
}
"""Mask-0 actions."""


def _permute(key: Key, leaf: Array, kept: Array) -> Array:
    """`leaf` with the values under `kept` in random order."""
    flat, there = jnp.ravel(leaf), jnp.ravel(kept)
    draws = jax.random.uniform(key, flat.shape)
    order = jnp.argsort(jnp.where(there, draws, 2.0))  # kept weights first, in random order
    places = jnp.argsort(~there)  # the same in their own order
    return flat.at[places].set(flat[order]).reshape(leaf.shape)
