"""GraNet: gradual pruning with regeneration, within one training that is sparse from its start.

After every round of training steps, the kept weights with the smallest |w| are dropped, and the
pruned weights with the largest |dL/dw| are grown, at zero. More are dropped than grown: the count
falls by the cubic of Zhu and Gupta ("To prune, or not to prune", 2017), and the share that is
replaced by the cosine of RigL (Evci et al., 2020), see `drop_and_grow.plan`. Liu et al., "Sparse
training via boosting pruning plasticity with neuroregeneration", 2021, section 4.

With `shares="leaf"`, as in the paper, all leaves are pruned together, and each then replaces its
part. With `shares="global"`, regeneration ranks all leaves together, too, which is better for a
mask that is rewound than for the trained net.

Deviations from the paper's code: its last cut comes one interval early, so that it ends above its
target; here the count is exact. The cosine ends before training does, so that the mask settles. The
first mask is the caller's choice; the paper's is random with ERK's counts.
"""

from functools import partial

import optax

from jaxtickets.dynamic.drop_and_grow import MovePlan, Shares, drop_and_grow
from jaxtickets.dynamic.drop_and_grow import plan as plan_moves
from jaxtickets.types import Mask, Prunable

REPLACED, PRUNED_BY, SETTLED_BY = 0.3, 0.6, 0.75

plan = partial(plan_moves, fraction=REPLACED, pruned_by=PRUNED_BY, settled_by=SETTLED_BY)
"""The counts of each move, see `drop_and_grow.plan`."""


def granet(
    inner: optax.GradientTransformation,
    mask: Mask,
    prunable: Prunable,
    moves: MovePlan,
    every: int,
    floor: int = 0,
    shares: Shares = "leaf",
) -> optax.GradientTransformationExtraArgs:
    """The sparse optimiser that prunes its mask gradually and regenerates it; see `drop_and_grow`.

    Raises:
      ValueError: see `drop_and_grow`.

    >>> params, gradient = {"w": jnp.array([1.0, 2.0, 3.0, 0.0])}, {"w": jnp.arange(4.0)}
    >>> mask, moves = {"w": params["w"] != 0}, MovePlan(ones=np.array([2]), replaced=np.array([1]))
    >>> optimizer = granet(optax.sgd(0.1), mask, ("w",), moves, every=100)
    >>> _, state = optimizer.update(gradient, optimizer.init(params), params, move=True)
    >>> state.mask["w"].tolist()  # 1.0 is pruned, 2.0 dropped, and the last one grown
    [False, False, True, True]
    """
    return drop_and_grow(inner, mask, prunable, moves, every, shares=shares, floor=floor)
