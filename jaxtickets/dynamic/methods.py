"""The table of the methods of dynamic sparse training, and of what changes their inner optimiser.

A new method is a file with its sparse optimiser, see `base`, a line in `METHODS`, and a row in the
tests' table. Most are `drop_and_grow` with their own rules.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import optax

from jaxtickets.dynamic import (
    acdc,
    annealed_granet,
    chts,
    deep_rewiring,
    flipout,
    gradual,
    granet,
    gsm,
    ham,
    langevin,
    powerpropagation,
    rigl,
    sparse_evolution,
    sparse_momentum,
    static,
)
from jaxtickets.dynamic.drop_and_grow import MovePlan


class Method(NamedTuple):
    """The facts about a method that a loop needs.

    Attributes:
      make: the sparse optimiser. It takes by name, of these: `inner`, `mask`, `prunable`, `moves`
        (the plan), `every`, `floor`, `key`, `steps` (of the training), and `signs` (the first
        parameters).
      plan: `plan(moves, begin, end, floor) -> MovePlan`, with the settings of its paper; None: the
        method makes no moves.
      begin: the first mask: `sparse`, as dense as the last; `dense`, all weights; `between`.
      counts: `leaf` if the plan has the counts of each leaf, `global` if it has one for all.
      dense_gradient: when it needs the gradient of pruned weights: `never`, in `moves`, or in all
        `steps`. It decides what could be saved where zeros are skipped.
      own_steps: whether it does more in training steps than to mask them.
    """

    make: Callable[..., optax.GradientTransformationExtraArgs]
    plan: Callable[..., MovePlan] | None
    begin: Literal["sparse", "between", "dense"] = "sparse"
    counts: Literal["leaf", "global"] = "leaf"
    dense_gradient: Literal["never", "moves", "steps"] = "never"
    own_steps: bool = False


METHODS: dict[str, Method] = {
    "static": Method(static.masked, None),
    "set": Method(sparse_evolution.sparse_evolution, sparse_evolution.plan),
    "rigl": Method(rigl.rigl, rigl.plan, dense_gradient="moves"),
    "sparse_momentum": Method(
        sparse_momentum.sparse_momentum,
        sparse_momentum.plan,
        counts="global",
        dense_gradient="steps",
        own_steps=True,
    ),
    "chts": Method(chts.chts, chts.plan),
    "deep_rewiring": Method(deep_rewiring.deep_rewiring, None, own_steps=True),
    "granet": Method(
        granet.granet, granet.plan, begin="between", counts="global", dense_gradient="moves"
    ),
    "annealed_granet": Method(
        annealed_granet.annealed_granet,
        annealed_granet.plan,
        begin="between",
        counts="global",
        dense_gradient="moves",
    ),
    "gradual": Method(gradual.gradual, gradual.plan, begin="dense", counts="global"),
    "flipout": Method(
        flipout.flipout, flipout.plan, begin="dense", counts="global", own_steps=True
    ),
    "gsm": Method(
        gsm.gsm,
        gsm.plan,
        begin="dense",
        counts="global",
        dense_gradient="steps",
        own_steps=True,
    ),
    "acdc": Method(acdc.acdc, acdc.plan, begin="dense", counts="global"),
}

INNERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "ham": ham.ham,
    "langevin": langevin.langevin,
    "powerpropagation": powerpropagation.powerpropagation,
}
"""What makes another inner optimiser of one, for any method. It takes by name, of these: `inner`,
`rate` (step -> learning rate), `prunable`, and `key`."""
