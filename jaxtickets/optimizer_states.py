"""What the state of any optax optimiser holds of steps and of weights: to be set, to begin anew."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.schedules._inject import WrappedScheduleState  # of a schedule that is injected

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
"""State -> its field that counts the steps of the training, and not those of its own moments."""


def at_step(
    optimizer: optax.GradientTransformation, state: PyTree, params: Params, step: Array | int
) -> PyTree:
    """A fresh state of `optimizer` whose schedules go on from `step`, its moments begun anew.

    Counts that belong to moments, such as that of Adam's bias correction, stay.

    Args:
      optimizer: the state's.
      state: of `optimizer.init(params)`.
      params: the parameters.
      step: whole number, may be traced; at a concrete 0 the state is returned as it is.

    Raises:
      ValueError: a count can't be set: optax.MultiSteps', or one of a state that isn't optax's.
    """
    if not isinstance(step, jax.core.Tracer) and int(step) == 0:
        return state
    found = _set(state, step)
    if not any(isinstance(part, INJECTED) for part in _nodes(found)):
        return found
    _, after = optimizer.update(jax.tree.map(jnp.zeros_like, params), found, params)
    return _with_hyperparams(found, after)


def anew(
    optimizer: optax.GradientTransformation, state: PyTree, params: Params, keep: Mask
) -> PyTree:
    """The state with what it holds of the weights that `keep` leaves out as `init` makes it.

    A leaf of the state is a parameter's if the end of its path is the parameter's path, so that
    optimisers which treat leaves apart, as `optax.masked` and `optax.partition` do, are reached.

    Args:
      optimizer: the state's.
      state: any state of it.
      params: the parameters, with new weights at their first values.
      keep: bool like `params`.

    Raises:
      ValueError: a moment isn't of the shape of its parameter, as in Adafactor and L-BFGS.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(keep)
    kept = {tuple(path): leaf for path, leaf in flat}

    def leaf(path: tuple[Any, ...], now: Array, fresh: Array) -> Array:
        ends = (path[start:] for start in range(len(path) + 1))  # the longest first
        name = next((end for end in ends if end in kept), None)
        if name is None or jnp.size(now) <= 1 < jnp.size(kept[name]):
            return now
        if jnp.shape(now) != jnp.shape(kept[name]):
            shapes = [list(jnp.shape(a)) for a in (now, kept[name])]
            called = jax.tree_util.keystr(name, simple=True, separator="/")
            raise ValueError(
                f"the optimiser keeps {shapes[0]} numbers for the {shapes[1]} weights of {called}: "
                "masks that move need one that keeps a number a weight, such as SGD or Adam"
            )
        return jnp.where(kept[name], now, fresh)

    return jax.tree_util.tree_map_with_path(leaf, state, optimizer.init(params))


def _children(node: PyTree) -> tuple[list[Any], Any]:
    """What is directly below a node, and how it is put together; a leaf has only itself."""
    return jax.tree.flatten(node, is_leaf=lambda part: part is not node)


def _nodes(node: PyTree) -> list[Any]:
    children, _ = _children(node)
    below = [part for part in children if part is not node]
    return [node, *(found for part in below for found in _nodes(part))]


def _set(node: PyTree, step: Array) -> PyTree:
    """The node with all counts of steps beyond their start by `step`."""
    children, treedef = _children(node)
    if children and children[0] is node:
        return node
    if isinstance(node, optax.MultiStepsState):
        raise ValueError(
            "a training that is rewound can't go on in the middle of optax.MultiSteps: its state "
            "doesn't tell how many steps make one; take larger batches, or rewind to step 0"
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
    """Raises ValueError for whole numbers of a state that isn't optax's and has no moments."""
    leaves = [part for part in children if jax.tree_util.all_leaves([part])]
    whole = [
        jnp.size(part) == 1 and jnp.issubdtype(jnp.result_type(part), jnp.integer)
        for part in leaves
    ]
    if any(whole) and len(leaves) == len(children) and all(whole):
        raise ValueError(
            f"a training that is rewound can't tell whether {type(node).__name__} of the optimiser "
            "counts steps: take optax.scale_by_schedule, or rewind to step 0"
        )


def _with_hyperparams(node: PyTree, after: PyTree) -> PyTree:
    """The node with the hyperparameters that the next step, which led to `after`, has used."""
    children, treedef = _children(node)
    if children and children[0] is node:
        return node
    pairs = zip(children, _children(after)[0], strict=True)
    whole = treedef.unflatten([_with_hyperparams(part, then) for part, then in pairs])
    return whole._replace(hyperparams=after.hyperparams) if isinstance(node, INJECTED) else whole
