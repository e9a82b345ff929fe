"""The group lasso as a proximal step after each step of an optimiser: whole groups become zero.

After the optimiser's step, every group of weights g is shrunk:

    w_g <- w_g · max(0, 1 - η λ sqrt(|g|) / ‖w_g‖₂),

the minimum over x of `½ ‖x - w_g‖² + η λ sqrt(|g|) ‖x‖₂`. A group whose norm is no more than
η λ sqrt(|g|) becomes exactly zero, where the gradient of `penalties.group_lasso` would have its
weights oscillate around it. It combines with every sparse optimiser, as its inner one:

    static.masked(proximal.group_lasso(optax.sgd(0.1), 0.1, strength, prunable), mask)

The penalty is that of Wen et al., "Learning structured sparsity in deep neural networks", 2016. The
factor sqrt(|g|) and the shrinkage are those of Yuan and Lin, "Model selection and estimation in
regression with grouped variables", 2006.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks
from jaxtickets.penalties import GROUPS, group_squares
from jaxtickets.types import Array, Params, Prunable


class ProximalState(NamedTuple):
    """The state of `group_lasso`.

    Attributes:
      inner: the state of the inner optimiser.
      schedule: the number of steps so far, as optax counts them for a schedule, so that a rewound
        training resumes the rate, see `optimizer_states.at_step`.
    """

    inner: optax.OptState
    schedule: optax.ScaleByScheduleState


def group_lasso(
    inner: optax.GradientTransformation,
    rate: float | Array | Callable[[Array], Array],
    strength: float | Array,
    prunable: Prunable,
    groups: str = "filters",
) -> optax.GradientTransformationExtraArgs:
    """`inner` with the proximal step of the group lasso after each of its steps.

    The size |g| counts pruned weights, too. The step is the plain one for adaptive optimisers such
    as Adam as well, although their own steps have another metric. Groups of two kinds, as with
    `group_lasso(group_lasso(inner, ...), ...)`, are shrunk one after the other; where they overlap,
    as filters and channels do, this approximates the minimum for their sum.

    Args:
      inner: any optax optimiser.
      rate: η, the learning rate of the inner optimiser: a number, or step -> number.
      strength: λ, 0 or more; may be traced.
      prunable: the kernels whose groups are shrunk, such as `masks.prunable(params, ("out",))`.
        Those that have no groups of this kind do not change.
      groups: which weights form a group, a name in `penalties.GROUPS`.

    Raises:
      ValueError: an unknown name, or a strength below 0 that isn't traced; at `init`, no kernel has
        such groups.

    >>> params = {"kernel": jnp.array([[3.0, 0.1], [4.0, 0.1]])}  # two neurons; ‖w‖ is 5 and 0.14
    >>> zero, strength = {"kernel": jnp.zeros((2, 2))}, 2.5 / 2**0.5
    >>> optimizer = group_lasso(optax.sgd(1.0), 1.0, strength, ("kernel",))
    >>> updates, _ = optimizer.update(zero, optimizer.init(params), params)
    >>> after = optax.apply_updates(params, updates)["kernel"].T
    >>> [round(float(jnp.linalg.norm(weights)), 3) for weights in after]
    [2.5, 0.0]
    """
    if groups not in GROUPS:
        raise ValueError(f"unknown groups '{groups}'; there are {', '.join(GROUPS)}")
    if not isinstance(strength, jax.core.Tracer) and not float(strength) >= 0:
        raise ValueError(f"strength={float(strength):g}: must be 0 or more")
    inner = optax.with_extra_args_support(inner)

    def grouped(params: Params) -> Prunable:
        leaves = zip(prunable, masks.pick(params, prunable), strict=True)
        return tuple(path for path, leaf in leaves if GROUPS[groups](jnp.ndim(leaf)))

    def init(params: Params) -> ProximalState:
        if not grouped(params):
            raise ValueError(f"no kernel has groups of {groups} among {', '.join(prunable)}")
        return ProximalState(inner.init(params), optax.ScaleByScheduleState(jnp.int32(0)))

    def update(
        gradient: Params, state: ProximalState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, ProximalState]:
        if params is None:
            raise ValueError("group_lasso's update needs the parameters")
        updates, inner_state = inner.update(gradient, state.inner, params, **extra)
        eta = rate(state.schedule.count) if callable(rate) else rate

        def leaf(w: Array, u: Array) -> Array:
            reached = w + u
            squares, size = group_squares(reached, groups)
            least = eta * strength * size**0.5
            stays = squares > least**2
            factor = 1 - least / jnp.sqrt(jnp.where(stays, squares, 1.0))
            shrunk = jnp.where(stays, factor * reached, 0.0).astype(reached.dtype)
            return shrunk - w  # -w where the group is zero: w + (-w) is 0

        paths = grouped(params)
        leaves = zip(masks.pick(params, paths), masks.pick(updates, paths), strict=True)
        updates = masks.put(updates, paths, [leaf(w, u) for w, u in leaves])
        count = optax.safe_increment(state.schedule.count)
        return updates, ProximalState(inner_state, optax.ScaleByScheduleState(count))

    return optax.GradientTransformationExtraArgs(init, update)
