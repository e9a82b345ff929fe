"""Errors on the line between two trainings that differ in the order of their data."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry
from jaxtickets import runs
from jaxtickets.analysis import interpolation
from jaxtickets.training import Watched
from jaxtickets.types import Array, Split


def lines(
    session: Session, entries: Sequence[Entry], ends: Watched, alphas: np.ndarray
) -> list[tuple[dict[str, Any], tuple[np.ndarray, np.ndarray]]]:
    """The errors on the line of each pair of trainings.

    Training error is evaluated on as many training images as there are test images, at most.

    Args:
      session: the net, its data, and the run axis.
      entries: the trainings; there are two of each, in two orders of the data.
      ends: their final states, stacked.
      alphas: float`[points]`, positions on the line from 0 to 1.

    Returns:
      For each pair its name, and its training and test errors, float`[points]` each.
    """
    recipe, data = session.problem.recipe, session.data
    pairs: dict[tuple, list[int]] = {}
    for i, entry in enumerate(entries):
        pairs.setdefault(pair(entry.name), []).append(i)
    state = ends.state
    places = np.array(list(pairs.values()))  # [pairs, 2]
    sides = [runs.take((state.params, state.stats), at) for at in places.T]

    def one(row: tuple[Any, Any], train: Split, test: Split) -> tuple[Array, Array]:
        def errors(split: Split) -> Array:
            left, right = row
            places = jnp.asarray(alphas)
            return interpolation.errors(recipe.model, recipe.prepare, left, right, split, places)

        return errors(train), errors(test)

    size = min(len(data.train.labels), len(data.test.labels))
    some = Split(data.train.images[:size], data.train.labels[:size])
    found = jax.tree.map(
        np.asarray, runs.over_runs(one, session.axis, tuple(sides), some, data.test)
    )
    names = [entries[two[0]].name for two in pairs.values()]
    return [(name, (found[0][i], found[1][i])) for i, name in enumerate(names)]


def pair(name: dict[str, Any]) -> tuple:
    """The fields that the two trainings of a pair share: all but the order of the data."""
    return tuple((key, value) for key, value in name.items() if key != "order")
