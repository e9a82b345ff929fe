"""A flax module as two pure functions."""

import inspect
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxtickets.types import Key, Model, Params, Stats

COLLECTIONS = {"params", "batch_stats"}


def functional(module: nn.Module, shape: Sequence[int]) -> Model:
    """`init` and `apply` of any flax module that maps images to logits.

    A module whose `__call__` has an argument named `train` is told the mode; one without, such as
    the user's own `__call__(self, x)`, acts the same in both. `init` gives the parameters that
    `module.init(key, images)` gives, in evaluation mode. Given a key, `apply` consumes it for
    'dropout'. Only training mode changes the statistics.

    Args:
      module: the flax module, unbound.
      shape: `(h, w, c)` of the images.

    Raises:
      ValueError: from `init`, if the module has variables beside parameters and 'batch_stats'.
    """

    def init(key: Key) -> tuple[Params, Stats]:
        variables = module.init(key, jnp.zeros((1, *shape)), **mode(module, False))
        if unknown := sorted(set(variables) - COLLECTIONS):
            raise ValueError(f"{type(module).__name__} has other kinds of variables: {unknown}")
        return variables["params"], variables.get("batch_stats", {})

    def apply(
        params: Params, stats: Stats, images: jax.Array, key: Key | None = None, train: bool = False
    ) -> tuple[jax.Array, Stats]:
        logits, moved = module.apply(
            {"params": params, "batch_stats": stats},
            images,
            rngs={} if key is None else {"dropout": key},
            mutable=["batch_stats"] if train else [],
            **mode(module, train),
        )
        return logits, moved.get("batch_stats", {}) if train else stats

    return Model(init, apply)


def mode(module: nn.Module, train: bool) -> dict[str, Any]:
    """The argument that tells the module its mode, if it has one."""
    return {"train": train} if "train" in inspect.signature(module.__call__).parameters else {}
