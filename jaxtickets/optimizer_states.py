"""Edits of the state of any optax optimiser: setting its step count, resetting single weights."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.schedules._inject import WrappedScheduleState  # of an injected schedule

from jaxtickets import masks
from jaxtickets.types import Array, Mask, Params, PyTree

INJECTED = (optax.InjectHyperparamsState, optax.InjectStatefulHyperparamsState)
STEPS: dict[type, str] = {
    optax.ScaleByScheduleState: "count",
    WrappedScheduleState: "count",
    **dict.fromkeys(INJECTED, "count"),
    optax.AddNoiseState: "count",
    optax.ConditionallyMaskState: "step",
    optax.ConditionallyTransformState: "step",
    optax.contrib.ScheduleFreeState: "step_count",
}
"""State type -> its field that counts training steps, as opposed to updates of its moments."""


def at_step(
    optimizer: optax.GradientTransformation, state: PyTree, params: Params, step: Array | int
) -> PyTree:
    """Sets the step of the schedules in a fresh state to `step`; the moments stay reset.

    Counts that belong to moments, such as that of Adam's bias correction, do not change.

    Args:
      optimizer: the optimiser of the state.
      state: the result of `optimizer.init(params)`.
      params: the parameters.
      step: a whole number, may be traced; at a concrete 0 the state is returned unchanged.

    Raises:
      ValueError: a count cannot be set: that of optax.MultiSteps, or of a state that is not
        optax's.

    >>> optimizer = optax.sgd(optax.linear_schedule(1.0, 0.0, transition_steps=10))
    >>> params = {"w": jnp.ones(2)}
    >>> state = at_step(optimizer, optimizer.init(params), params, step=5)
    >>> optimizer.update({"w": jnp.ones(2)}, state)[0]["w"].tolist()
    [-0.5, -0.5]
    """
    if not isinstance(step, jax.core.Tracer) and int(step) == 0:
        return state
    found = _set(state, step)
    if not any(isinstance(part, INJECTED) for part in _nodes(found)):
        return found
    _, after = optimizer.update(jax.tree.map(jnp.zeros_like, params), found, params)
    return _with_hyperparams(found, after)


def reset_moments(
    optimizer: optax.GradientTransformation, state: PyTree, params: Params, keep: Mask
) -> PyTree:
    """Resets the parts of the state that belong to weights that `keep` leaves out.

    A leaf of the state belongs to a parameter as `map_moments` says. This also covers optimisers
    that treat leaves separately, such as `optax.masked` and `optax.partition`.

    Args:
      optimizer: the optimiser of the state.
      state: any state of that optimiser.
      params: the parameters, with grown weights at their initial values.
      keep: bool, like `params`; False resets a weight's moments.

    Raises:
      ValueError: a moment does not have the shape of its parameter, as in Adafactor and L-BFGS.

    >>> optimizer, params = optax.trace(0.9), {"w": jnp.ones(2)}
    >>> _, state = optimizer.update({"w": jnp.array([3.0, 4.0])}, optimizer.init(params))
    >>> keep = {"w": np.array([True, False])}
    >>> reset_moments(optimizer, state, params, keep).trace["w"].tolist()
    [3.0, 0.0]
    """
    kept = dict(zip(masks.paths(keep), jax.tree.leaves(keep), strict=True))

    def reset(path: str, now: Array, fresh: Array) -> Array:
        return jnp.where(kept[path], now, fresh)

    return map_moments(reset, keep, state, optimizer.init(params))


def map_moments(
    change: Callable[..., Array], params: Params, state: PyTree, *others: PyTree
) -> PyTree:
    """Changes each moment of an optimiser's state; the other leaves stay.

    A leaf of the state is a parameter's moment if its path ends with the parameter's path.

    Args:
      change: `change(path, moment, *others) -> moment`, where `path` is the parameter's path, such
        as `fc1/kernel`.
      params: the parameters that the state belongs to, or anything with their paths and shapes.
      state: any state of the optimiser.
      others: trees like the state, whose leaves are passed on.

    Raises:
      ValueError: a moment does not have the shape of its parameter, as in Adafactor and L-BFGS.

    >>> params = {"fc1": {"kernel": jnp.ones(2)}}
    >>> state = optax.scale_by_adam().init(params)
    >>> state = map_moments(lambda path, moment: moment + len(path), params, state)
    >>> state.mu["fc1"]["kernel"].tolist(), int(state.count)  # the path is fc1/kernel
    ([10.0, 10.0], 0)
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    shapes = {tuple(path): jnp.shape(leaf) for path, leaf in flat}

    def leaf(path: tuple[Any, ...], now: Array, *others: Array) -> Array:
        ends = (path[start:] for start in range(len(path) + 1))  # the longest first
        name = next((end for end in ends if end in shapes), None)
        if name is None or jnp.size(now) <= 1 < math.prod(shapes[name]):
            return now
        called = jax.tree_util.keystr(name, simple=True, separator="/")
        if jnp.shape(now) != shapes[name]:
            found = [list(jnp.shape(now)), list(shapes[name])]
            raise ValueError(
                f"the optimiser keeps {found[0]} numbers for the {found[1]} weights of {called}: "
                "a moving mask needs one number for each weight, as SGD and Adam keep"
            )
        return change(called, now, *others)

    return jax.tree_util.tree_map_with_path(leaf, state, *others)


def _children(node: PyTree) -> tuple[list[Any], Any]:
    """The direct children of a node, and its tree structure; a leaf is its own only child."""
    return jax.tree.flatten(node, is_leaf=lambda part: part is not node)


def _nodes(node: PyTree) -> list[Any]:
    children, _ = _children(node)
    below = [part for part in children if part is not node]
    return [node, *(found for part in below for found in _nodes(part))]


def _set(node: PyTree, step: Array) -> PyTree:
    """Adds `step` to every count of training steps in the node."""
    children, treedef = _children(node)
    if children and children[0] is node:
        return node
    if isinstance(node, optax.MultiStepsState):
        raise ValueError(
            "a rewound training can't resume within optax.MultiSteps, whose state doesn't say how "
            "many steps make one update: take larger batches, or rewind to step 0"
        )
    if isinstance(node, INJECTED):
        parts = {name: getattr(node, name) for name in node._fields if name != "hyperparams"}
        node = node._replace(**{name: _set(part, step) for name, part in parts.items()})
    else:
        if not type(node).__module__.startswith("optax"):
            _check_no_count(node, children)
        node = treedef.unflatten([_set(part, step) for part in children])
    field = STEPS.get(type(node))
    if field is None:
        return node
    count = getattr(node, field)
    return node._replace(**{field: count + jnp.asarray(step, jnp.result_type(count))})


def _check_no_count(node: PyTree, children: list[Any]) -> None:
    """Raises ValueError if a state that is not optax's holds only integer scalars."""
    leaves = [part for part in children if jax.tree_util.all_leaves([part])]
    whole = [
        jnp.size(part) == 1 and jnp.issubdtype(jnp.result_type(part), jnp.integer)
        for part in leaves
    ]
    if any(whole) and len(leaves) == len(children) and all(whole):
        raise ValueError(
            "a rewound training can't resume: nothing says whether the optimiser's "
            f"{type(node).__name__} counts steps; use optax.scale_by_schedule, or rewind to step 0"
        )


def _with_hyperparams(node: PyTree, after: PyTree) -> PyTree:
    """The node with the hyperparameters that the update leading to `after` used."""
    children, treedef = _children(node)
    if children and children[0] is node:
        return node
    pairs = zip(children, _children(after)[0], strict=True)
    whole = treedef.unflatten([_with_hyperparams(part, then) for part, then in pairs])
    return whole._replace(hyperparams=after.hyperparams) if isinstance(node, INJECTED) else whole
