"""A flax module as two pure functions."""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxtickets.types import Array, Key, Model, Params, Stats

COLLECTIONS = {"params", "batch_stats"}
SOWN = {"intermediates"}
"""Variables that a module only writes."""

MODES = {"train": True, "training": True, "is_training": True, "deterministic": False,
         "use_running_average": False}  # fmt: skip
"""Argument of `__call__` that sets the mode -> its value in training."""

Example = Sequence[int] | jax.ShapeDtypeStruct | Sequence[jax.ShapeDtypeStruct]
"""The input of a net for one example, without the batch axis.

The shape of a float array, such as `(h, w, c)`; a shape and dtype, such as
`jax.ShapeDtypeStruct((t,), "int32")` for tokens; or a sequence of these for several inputs.
"""


def example_inputs(shape: Example) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The inputs of a net for a batch of one example, as shapes and dtypes.

    >>> (images,) = example_inputs((28, 28, 1))
    >>> images.shape, str(images.dtype)
    ((1, 28, 28, 1), 'float32')
    """
    several = (shape,) if isinstance(shape, jax.ShapeDtypeStruct) else tuple(shape)
    arrays = [one for one in several if isinstance(one, jax.ShapeDtypeStruct)]
    if arrays and len(arrays) == len(several):
        return tuple(jax.ShapeDtypeStruct((1, *one.shape), one.dtype) for one in arrays)
    return (jax.ShapeDtypeStruct((1, *several), jnp.result_type(float)),)


def functional(module: nn.Module, shape: Example) -> Model:
    """`init` and `apply` of any Flax Linen module, which may return arrays in any PyTree.

    If the module's `__call__` has an argument of `MODES`, such as `train` or `deterministic`, it
    receives the mode; a module without one, such as `__call__(self, x)`, behaves the same in both
    modes. `init` returns the parameters of `module.init(key, images)` in evaluation mode. If
    `apply` is given a key, it consumes it for 'dropout'. Only training mode changes the statistics.
    If the module takes several inputs, `images` is their tuple. What it sows is dropped.

    Args:
      module: the flax module, unbound.
      shape: the input for one example, such as `(h, w, c)` of an image.

    Raises:
      ValueError: it is no Linen module; or, from `init`, the module has variables other than
        parameters and 'batch_stats'.

    >>> model = functional(nn.Dense(3), (2,))
    >>> params, stats = model.init(jax.random.key(0))
    >>> outputs, _ = model.apply(params, stats, np.ones((5, 2), np.float32))
    >>> params["kernel"].shape, outputs.shape
    ((2, 3), (5, 3))
    """
    if not isinstance(module, nn.Module):
        raise ValueError(f"{_described(module)} is no Linen module, but a net must be one here")
    inputs = example_inputs(shape)
    try:
        return _functions_of_equals(module, inputs)
    except TypeError:  # an attribute of the module, such as a list, can't be hashed
        return _functions(module, inputs)


def _functions(module: nn.Module, inputs: tuple[jax.ShapeDtypeStruct, ...]) -> Model:
    """See `functional`."""

    def init(key: Key) -> tuple[Params, Stats]:
        zeros = [jnp.zeros(one.shape, one.dtype) for one in inputs]
        variables = module.init(key, *zeros, **_mode(module, False))
        if unknown := sorted(set(variables) - COLLECTIONS - SOWN):
            raise ValueError(f"{type(module).__name__} has other kinds of variables: {unknown}")
        return variables.get("params", {}), variables.get("batch_stats", {})

    def apply(
        params: Params, stats: Stats, images: Array, key: Key | None = None, train: bool = False
    ) -> tuple[jax.Array, Stats]:
        logits, moved = module.apply(
            {"params": params, "batch_stats": stats},
            *(images if isinstance(images, tuple) else (images,)),
            rngs={} if key is None else {"dropout": key},
            mutable=["batch_stats"] if train else [],
            **_mode(module, train),
        )
        return logits, moved.get("batch_stats", {}) if train else stats

    return Model(init, apply)


_functions_of_equals = functools.lru_cache(maxsize=64)(_functions)
"""Equal modules have the same functions, whose shapes JAX then traces once."""


def init_shapes(model: Model) -> tuple[Params, Stats]:
    """What `model.init` returns, as shapes and types; nothing is computed, on no device.

    >>> params, _ = init_shapes(functional(nn.Dense(3), (2,)))
    >>> params["kernel"].shape
    (2, 3)
    """
    return jax.eval_shape(model.init, jax.eval_shape(jax.random.key, 0))


def _mode(module: nn.Module, train: bool) -> dict[str, Any]:
    """The keyword arguments that set the module's mode, if it has any."""
    names = inspect.signature(module.__call__).parameters
    return {name: train == on for name, on in MODES.items() if name in names}


def as_model(net: nn.Module | Model, shape: Example) -> Model:
    """The functions of a Linen module; a model is returned as it is.

    Raises:
      ValueError: `net` is neither.

    >>> model = as_model(nn.Dense(3), (2,))
    >>> as_model(model, (2,)) is model
    True
    """
    return net if isinstance(net, Model) else functional(net, shape)


def _described(value: Any) -> str:
    """What something is that should have been a module."""
    kind = value.__name__ if isinstance(value, type) else type(value).__name__
    return f"the class {kind}" if isinstance(value, type) else f"an object of type {kind}"
