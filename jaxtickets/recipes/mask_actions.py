"""What becomes of kept and of pruned weights: mask-1 and mask-0 actions.

Zhou et al., "Deconstructing lottery tickets", 2019, sections 3 and 4: a mask-1 action gives the
weights that stay their first value for the next training, a mask-0 action the weights that go their
value from then on, at which they stay.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxtickets import masks, nets
from jaxtickets.recipes import ticket_controls
from jaxtickets.recipes.ticket_controls import Control, ControlInputs, ControlStart
from jaxtickets.types import Array, Key, Params


def reshuffle(key: Key, given: ControlInputs) -> ControlStart:
    """The survivors' weights in another order within each layer; the key is consumed."""
    leaves = masks.pick(given.params, given.prunable)
    kept = masks.pick(given.mask, given.prunable)
    keys = jax.random.split(key, len(leaves))
    moved = [_permute(*three) for three in zip(keys, leaves, kept, strict=True)]
    return ControlStart(masks.put(given.params, given.prunable, moved), given.stats, given.mask)


def signed_constant(key: Key, given: ControlInputs) -> ControlStart:
    """`sign(w) · std(layer)`: the signs of the weights alone, see `nets.signed_constant`."""
    del key
    return ControlStart(nets.signed_constant(given.params), given.stats, given.mask)


ONES: dict[str, Control] = {
    "rewind": ticket_controls.ticket,
    "reinit": ticket_controls.reinit,
    "reshuffle": reshuffle,
    "signed_constant": signed_constant,
}
"""Mask-1 actions, on the weights at initialisation."""

Fill = Callable[[Params, Params], Params]
"""`fill(init_params, params) -> params`: what stands where the mask is False."""


def zero(init: Params, final: Params) -> Params:
    """Pruned in the usual sense."""
    del final
    return jax.tree.map(jnp.zeros_like, init)


def freeze(init: Params, final: Params) -> Params:
    """Frozen at initialisation."""
    del final
    return init


def freeze_unless_toward_zero(init: Params, final: Params) -> Params:
    """Zero for weights that training moved towards zero, `|w_f| < |w_i|`; the rest frozen.

    Frozen weights, which don't move, so stay at what they are.
    """

    def leaf(i: Array, f: Array) -> Array:
        return jnp.where(jnp.abs(f) < jnp.abs(i), jnp.zeros_like(i), i)

    return jax.tree.map(leaf, init, final)


ZEROS: dict[str, Fill] = {
    "zero": zero,
    "freeze": freeze,
    "freeze_unless_toward_zero": freeze_unless_toward_zero,
}
"""Mask-0 actions."""


def _permute(key: Key, leaf: Array, kept: Array) -> Array:
    """`leaf` with the values under `kept` in a random order."""
    flat, there = jnp.ravel(leaf), jnp.ravel(kept)
    draws = jax.random.uniform(key, flat.shape)
    order = jnp.argsort(jnp.where(there, draws, 2.0))  # the survivors first, in any order
    places = jnp.argsort(~there)  # and in their own
    return flat.at[places].set(flat[order]).reshape(leaf.shape)
