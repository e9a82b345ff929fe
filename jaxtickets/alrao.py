"""Alrao: each output feature of a net trains at a learning rate of its own, drawn at random.

The updates of an inner optimiser are multiplied by a factor for each feature, log-uniform in an
interval:

    Δw <- factor(feature of w) · Δw,  log factor ~ U(log low, log high).

Blier, Wolinski and Ollivier, "Learning with random learning rates", 2018 (All Learning Rates At
Once), whose interval of learning rates is from 1e-5 to 10. The factors are drawn once and stay.

Deviation: the paper trains several copies of the output layer, each at one learning rate, and
averages their predictions. Here there is one output layer, at the learning rate of the inner
optimiser. In the paper a feature's batch norm shares its rate; here each layer draws its own.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks
from jaxtickets.types import Array, Key, Params, PyTree


def alrao(
    inner: optax.GradientTransformation, key: Key, low: Array, high: Array, output: str = ""
) -> optax.GradientTransformationExtraArgs:
    """The inner optimiser with a random learning rate for each output feature.

    The state is the inner optimiser's.

    Args:
      inner: an optimiser; its learning rate is multiplied.
      key: draws the factors; the same key gives the same factors at each update.
      low, high: the interval of the factors, positive scalars; may be traced.
      output: the layer that keeps the inner optimiser's rate, such as `out`; empty: none.

    Raises:
      ValueError: `low` or `high` is out of range; in an update, the net has no layer `output`.

    >>> optimizer = alrao(optax.sgd(1.0), jax.random.key(0), low=0.1, high=10.0, output="out")
    >>> params = {"fc1": {"bias": jnp.ones(2)}, "out": {"bias": jnp.ones(2)}}
    >>> updates, _ = optimizer.update(params, optimizer.init(params))
    >>> updates["out"]["bias"].tolist(), len(set(updates["fc1"]["bias"].tolist()))
    ([-1.0, -1.0], 2)
    """
    if not any(isinstance(end, jax.core.Tracer) for end in (low, high)) and not 0 < low <= high:
        raise ValueError(f"low={low}, high={high}: must be 0 < low <= high")
    inner = optax.with_extra_args_support(inner)

    def update(
        gradient: Params, state: optax.OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, optax.OptState]:
        updates, state = inner.update(gradient, state, params, **extra)
        scale = factors(key, updates, low, high, output)
        return jax.tree.map(lambda change, f: change * f, updates, scale), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def factors(key: Key, params: Params, low: Array, high: Array, output: str = "") -> PyTree:
    """The factor of each parameter, in the shape of the parameters.

    A feature is an index of the last axis of a layer's kernel, bias, scale, ...: the leaves of a
    layer, whose paths differ in the last part alone, share the factors of their features.

    Args:
      key: draws the factors; is consumed.
      params: the parameters.
      low, high, output: see `alrao`.

    Raises:
      ValueError: the net has no layer `output`.

    >>> params = {"fc1": {"bias": np.ones(2, "float32"), "kernel": np.ones((3, 2), "float32")}}
    >>> fc1 = factors(jax.random.key(0), params, low=0.1, high=10.0)["fc1"]
    >>> fc1["kernel"].tolist() == [fc1["bias"].tolist()] * 3
    True
    """
    layers = [path.rpartition("/")[0] for path in masks.paths(params)]
    if output and output not in layers:
        raise ValueError(f"no layer '{output}'; there are {', '.join(dict.fromkeys(layers))}")
    number = {layer: i for i, layer in enumerate(dict.fromkeys(layers))}
    ends = jnp.log(jnp.asarray(low, float)), jnp.log(jnp.asarray(high, float))

    def leaf(layer: str, w: Array) -> Array:
        if layer == output and output:
            return jnp.ones(jnp.shape(w), w.dtype)
        drawn = jax.random.uniform(jax.random.fold_in(key, number[layer]), jnp.shape(w)[-1:])
        drawn = jnp.exp(ends[0] + (ends[1] - ends[0]) * drawn).astype(w.dtype)
        return jnp.broadcast_to(drawn, jnp.shape(w))

    found = [leaf(*pair) for pair in zip(layers, jax.tree.leaves(params), strict=True)]
    return jax.tree.unflatten(jax.tree.structure(params), found)
