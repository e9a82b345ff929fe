"""What is trained at each level: the ticket, and the nets that it is held against.

A treatment takes the ticket and changes one thing: its weights, or where its mask lies. The count
in each layer stays.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.types import Array, Key, Mask, Model, Params, Prunable, Stats


class ControlInputs(NamedTuple):
    """A ticket as treatments see it.

    Attributes:
      model: for a new initialisation.
      prunable: the leaves with masks.
      params, stats: the weights that the ticket's mask selects from: rewound, as a rule.
      mask: the ticket's.
    """

    model: Model
    prunable: Prunable
    params: Params
    stats: Stats
    mask: Mask


class ControlStart(NamedTuple):
    """Where a treatment's training begins."""

    params: Params
    stats: Stats
    mask: Mask


Control = Callable[[Key, ControlInputs], ControlStart]
"""`treatment(key, given) -> treated`; the key is consumed."""


def ticket(key: Key, given: ControlInputs) -> ControlStart:
    """The ticket itself."""
    del key
    return ControlStart(given.params, given.stats, given.mask)


def reinit(key: Key, given: ControlInputs) -> ControlStart:
    """The ticket's mask on a new initialisation: is it the structure alone?"""
    return ControlStart(*given.model.init(key), given.mask)


def random(key: Key, given: ControlInputs) -> ControlStart:
    """A randomly sampled sparse net: a new initialisation under a random mask."""
    init_key, mask_key = jax.random.split(key)
    mask = masks.shuffle(mask_key, given.mask, given.prunable)
    return ControlStart(*given.model.init(init_key), mask)


def shuffled(key: Key, given: ControlInputs) -> ControlStart:
    """The ticket's weights under its mask shuffled within layers: does its place matter?

    Differs from `random` in the weights, which are the ticket's, rewound ones included.
    """
    return ControlStart(given.params, given.stats, masks.shuffle(key, given.mask, given.prunable))


def resampled(key: Key, given: ControlInputs) -> ControlStart:
    """The ticket's mask, each weight drawn anew from its layer's surviving weights.

    Drawn with replacement: is it the distribution of the survivors that helps?
    """
    leaves = masks.pick(given.params, given.prunable)
    kept = masks.pick(given.mask, given.prunable)
    keys = jax.random.split(key, len(leaves))
    drawn = [_resample(*three) for three in zip(keys, leaves, kept, strict=True)]
    return ControlStart(masks.put(given.params, given.prunable, drawn), given.stats, given.mask)


CONTROLS: dict[str, Control] = {
    "ticket": ticket,
    "reinit": reinit,
    "random": random,
    "shuffled": shuffled,
    "resampled": resampled,
}


def apply_control(treatment: Control, key: Key, given: ControlInputs) -> ControlStart:
    """What the treatment gives, as one compiled program for each net."""
    return _compiled(
        treatment, given.model, given.prunable, key, given.params, given.stats, given.mask
    )


@partial(jax.jit, static_argnums=(0, 1, 2))
def _compiled(
    treatment: Control,
    model: Model,
    prunable: Prunable,
    key: Key,
    params: Params,
    stats: Stats,
    mask: Mask,
) -> ControlStart:
    return treatment(key, ControlInputs(model, prunable, params, stats, mask))


def _resample(key: Key, leaf: Array, kept: Array) -> jax.Array:
    """`leaf` with every value drawn from those under `kept`."""
    survivors = jnp.argsort(~jnp.ravel(kept))  # their places first
    count = jnp.sum(kept, dtype=jnp.int32)
    place = jax.random.randint(key, jnp.shape(leaf), 0, count)
    return jnp.ravel(leaf)[survivors[place]]
