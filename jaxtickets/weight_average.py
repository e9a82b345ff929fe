"""Moving averages of weights and statistics, which a training evaluates and keeps in their place.

    a_(t+1) = d a_t + (1 - d) w_(t+1),    d = min(decay, (1 + t) / (10 + t))

`w_t` are the weights after t training steps, and the average starts at the initial ones. The small
first `d` lets it forget them. The batch statistics are averaged in the same way.

A training state with an average holds it as `params` and `stats`, and what the optimiser trains as
`trained`. So whoever evaluates, scores, prunes or keeps the state's weights sees the average, while
gradients and updates are those of the trained weights. Pruned weights are those of the trained
ones, bit for bit: zero, or their fill.

Source: Polyak and Juditsky 1992; the exponential form and the small first `d` are TensorFlow's, in
which MobileNetV2 (Sandler et al. 2018) was trained.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.types import Array, Params, PyTree, Stats, TrainState


class Trained(NamedTuple):
    """What is trained, in a state whose `params` and `stats` are averages.

    Attributes:
      params, stats: the weights and statistics after the last step.
      decay: float scalar in (0, 1).
    """

    params: Params
    stats: Stats
    decay: Array


def begin(params: Params, stats: Stats, decay: float) -> Trained | tuple[()]:
    """`TrainState.trained` at the start; `()` if the decay is 0, for no average.

    Raises:
      ValueError: the decay is not in [0, 1).

    >>> begin({"w": np.ones(2)}, {}, decay=0.0)
    ()
    >>> float(begin({"w": np.ones(2)}, {}, decay=0.5).decay)
    0.5
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay {decay} of the weights' average: must be 0 or more and below 1")
    return Trained(params, stats, jnp.float32(decay)) if decay else ()


def trained(state: TrainState) -> tuple[Params, Stats]:
    """The weights and statistics that are trained: the state's own if it has no average.

    >>> state = TrainState({"w": 1.0}, {}, opt_state=(), method_state=(), step=0)
    >>> trained(state)
    ({'w': 1.0}, {})
    >>> trained(state._replace(trained=Trained({"w": 5.0}, {}, decay=0.9)))
    ({'w': 5.0}, {})
    """
    held = state.trained or state
    return held.params, held.stats


def after(state: TrainState, params: Params, stats: Stats) -> TrainState:
    """The state with new trained weights and statistics, which its average follows.

    Args:
      state: its mask is that of the new weights, its `step` the number of steps before this one.
      params, stats: the new ones, which obey the mask.

    >>> from jaxtickets import training
    >>> from jaxtickets.dynamic.static import masked
    >>> optimizer = masked(optax.sgd(0.1), {"w": np.array([True, False])})
    >>> state = training.init({"w": jnp.ones(2)}, {}, optimizer, average=0.999)
    >>> after(state, {"w": jnp.array([11.0, 0.0])}, {}).params["w"].tolist()  # 0.1 + 0.9 * 11
    [10.0, 0.0]
    """
    if not state.trained:
        return state._replace(params=params, stats=stats)
    ramp = (1.0 + state.step) / (10.0 + state.step)
    decay = jnp.minimum(state.trained.decay, ramp)

    def mixed(old: Array, new: Array) -> Array:
        if not jnp.issubdtype(jnp.result_type(new), jnp.floating):
            return new
        return (old + (1 - decay) * (new - old)).astype(jnp.result_type(new))

    def kept(keep: Array, old: Array, new: Array) -> Array:
        return jnp.where(keep, mixed(old, new), new)

    return state._replace(
        params=jax.tree.map(kept, state.mask, state.params, params),
        stats=jax.tree.map(mixed, state.stats, stats),
        trained=state.trained._replace(params=params, stats=stats),
    )


def moved(state: TrainState, params: Params) -> TrainState:
    """The state after a move of its mask to the trained weights `params`, without averaging.

    >>> from jaxtickets import training
    >>> from jaxtickets.dynamic.static import masked
    >>> optimizer = masked(optax.sgd(0.1), {"w": np.array([True, False])})
    >>> state = training.init({"w": jnp.ones(2)}, {}, optimizer, average=0.999)
    >>> moved(state, {"w": jnp.array([11.0, 0.0])}).params["w"].tolist()
    [1.0, 0.0]
    """
    if not state.trained:
        return state._replace(params=params)
    return state._replace(
        params=jax.tree.map(jnp.where, state.mask, state.params, params),
        trained=state.trained._replace(params=params),
    )


def changed(state: TrainState, change: Callable[[Params], PyTree]) -> TrainState:
    """The state with its weights changed: those that are trained, and their average if any.

    >>> state = TrainState({"w": 1.0}, {}, opt_state=(), method_state=(), step=0)
    >>> state = state._replace(trained=Trained({"w": 5.0}, {}, decay=0.9))
    >>> state = changed(state, lambda params: {"w": 2 * params["w"]})
    >>> state.params, state.trained.params
    ({'w': 2.0}, {'w': 10.0})
    """
    state = state._replace(params=change(state.params))
    if not state.trained:
        return state
    return state._replace(trained=state.trained._replace(params=change(state.trained.params)))
