"""A plain function of parameters and inputs as a model."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxtickets.types import Array, Key, Model, Params, Stats


def functional_plain(
    function: Callable[[Params, Any], Any], params: Params | Callable[[Key], Params]
) -> Model:
    """A model of `function(params, inputs) -> outputs`, the same in both modes, without statistics.

    Args:
      function: pure; the outputs are arrays in any PyTree. If the net takes several inputs,
        `inputs` is their tuple.
      params: a PyTree of arrays, which `init` returns whatever the key; or `params(key)`, which
        draws them and consumes the key.

    Raises:
      ValueError: in one line: `function` is not callable; or, from `init`, the parameters have a
        leaf that is no array of numbers, or no leaf with two axes, which could be a kernel.

    >>> model = functional_plain(lambda params, x: x @ params["w"], {"w": np.array([[3.0], [4.0]])})
    >>> params, stats = model.init(jax.random.key(0))
    >>> model.apply(params, stats, np.array([[1.0, 2.0]]))[0].tolist()
    [[11.0]]
    """
    if not callable(function):
        raise ValueError(f"an object of type {type(function).__name__} is no function")

    def init(key: Key) -> tuple[Params, Stats]:
        drawn = params(key) if callable(params) else params
        for path, leaf in jax.tree.leaves_with_path(drawn):
            if not hasattr(leaf, "dtype"):
                where = jax.tree_util.keystr(path, simple=True, separator="/")
                raise ValueError(f"the parameter {where} is no array, but {type(leaf).__name__}")
        if all(jnp.ndim(leaf) < 2 for leaf in jax.tree.leaves(drawn)):
            raise ValueError("the parameters have no kernel: no leaf has two axes")
        return drawn, {}

    def apply(
        params: Params, stats: Stats, images: Array, key: Key | None = None, train: bool = False
    ) -> tuple[Any, Stats]:
        return function(params, images), stats

    return Model(init, apply)
