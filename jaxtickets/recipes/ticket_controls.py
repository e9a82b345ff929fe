"""The ticket of a level and its controls: copies of the ticket with one thing changed.

A control changes the weights of the ticket or the places of its mask. The count of each layer
stays.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.types import Array, Key, Mask, Model, Params, Prunable, Stats


class ControlInputs(NamedTuple):
    """A ticket as controls receive it.

    Attributes:
      model: the net as functions, for a new initialisation.
      prunable: the leaves that are masked.
      params, stats: the ticket's weights, usually rewound, and its batch statistics.
      mask: the ticket's mask, bool like `params`.
    """

    model: Model
    prunable: Prunable
    params: Params
    stats: Stats
    mask: Mask


class ControlStart(NamedTuple):
    """The initial parameters, statistics and mask of a control's training.

    Attributes:
      params, stats: like those of the net.
      mask: bool like `params`.
    """

    params: Params
    stats: Stats
    mask: Mask


Control = Callable[[Key, ControlInputs], ControlStart]
"""`control(key, inputs) -> start`; the key is consumed."""


def ticket(key: Key, given: ControlInputs) -> ControlStart:
    """The unchanged ticket.

    >>> params, mask = {"w": jnp.array([[1.0, 2.0]])}, {"w": jnp.array([[True, False]])}
    >>> model = Model(lambda key: ({"w": jnp.full((1, 2), 9.0)}, {}), apply=None)
    >>> start = ticket(jax.random.key(0), ControlInputs(model, ("w",), params, {}, mask))
    >>> start.params["w"].tolist(), start.mask["w"].tolist()
    ([[1.0, 2.0]], [[True, False]])
    """
    del key
    return ControlStart(given.params, given.stats, given.mask)


def reinit(key: Key, given: ControlInputs) -> ControlStart:
    """The ticket's mask with a new initialisation: does the structure alone suffice?

    >>> params, mask = {"w": jnp.array([[1.0, 2.0]])}, {"w": jnp.array([[True, False]])}
    >>> model = Model(lambda key: ({"w": jnp.full((1, 2), 9.0)}, {}), apply=None)
    >>> start = reinit(jax.random.key(0), ControlInputs(model, ("w",), params, {}, mask))
    >>> start.params["w"].tolist(), start.mask["w"].tolist()
    ([[9.0, 9.0]], [[True, False]])
    """
    return ControlStart(*given.model.init(key), given.mask)


def random(key: Key, given: ControlInputs) -> ControlStart:
    """A new initialisation under a random mask with the ticket's count in each layer.

    >>> params, mask = {"w": jnp.array([[1.0, 2.0]])}, {"w": jnp.array([[True, False]])}
    >>> model = Model(lambda key: ({"w": jnp.full((1, 2), 9.0)}, {}), apply=None)
    >>> start = random(jax.random.key(0), ControlInputs(model, ("w",), params, {}, mask))
    >>> start.params["w"].tolist(), int(start.mask["w"].sum())
    ([[9.0, 9.0]], 1)
    """
    init_key, mask_key = jax.random.split(key)
    mask = masks.shuffle(mask_key, given.mask, given.prunable)
    return ControlStart(*given.model.init(init_key), mask)


def shuffled(key: Key, given: ControlInputs) -> ControlStart:
    """The ticket's weights under its mask shuffled within layers: do the mask's places matter?

    Unlike `random`, it keeps the ticket's weights, including rewound ones.

    >>> params, mask = {"w": jnp.array([[1.0, 2.0]])}, {"w": jnp.array([[True, False]])}
    >>> model = Model(lambda key: ({"w": jnp.full((1, 2), 9.0)}, {}), apply=None)
    >>> start = shuffled(jax.random.key(0), ControlInputs(model, ("w",), params, {}, mask))
    >>> start.params["w"].tolist(), int(start.mask["w"].sum())
    ([[1.0, 2.0]], 1)
    """
    return ControlStart(given.params, given.stats, masks.shuffle(key, given.mask, given.prunable))


def resampled(key: Key, given: ControlInputs) -> ControlStart:
    """The ticket's mask with each weight redrawn from the kept weights of its layer.

    Drawn with replacement: does the distribution of the kept weights suffice?

    >>> params, mask = {"w": jnp.array([[1.0, 2.0]])}, {"w": jnp.array([[True, False]])}
    >>> model = Model(lambda key: ({"w": jnp.full((1, 2), 9.0)}, {}), apply=None)
    >>> start = resampled(jax.random.key(0), ControlInputs(model, ("w",), params, {}, mask))
    >>> start.params["w"].tolist()  # 1 is the only value that the mask keeps
    [[1.0, 1.0]]
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
    """The result of the control, as one compiled program for each net.

    >>> params, mask = {"w": jnp.array([[1.0, 2.0]])}, {"w": jnp.array([[True, False]])}
    >>> model = Model(lambda key: ({"w": jnp.full((1, 2), 9.0)}, {}), apply=None)
    >>> given = ControlInputs(model, ("w",), params, {}, mask)
    >>> apply_control(CONTROLS["reinit"], jax.random.key(0), given).params["w"].tolist()
    [[9.0, 9.0]]
    """
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
    """Replaces every value of `leaf` by a random one of those under `kept`."""
    survivors = jnp.argsort(~jnp.ravel(kept))  # the places of kept weights first
    count = jnp.sum(kept, dtype=jnp.int32)
    place = jax.random.randint(key, jnp.shape(leaf), 0, count)
    return jnp.ravel(leaf)[survivors[place]]
