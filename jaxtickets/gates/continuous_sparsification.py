"""Continuous sparsification: a soft mask that hardens while the weights train.

With s a score for each weight and β a temperature that grows from 1 to `BETA` over the training,
each weight is used as `w · σ(β s)`. The penalty is `strength · Σ σ(β s)`, the soft count of
weights; what is left has s > 0. Savarese et al., "Winning the lottery with continuous
sparsification", 2020, with one round of training.
"""

import jax
import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.gates.base import Gate, Setting, equal_scores
from jaxtickets.gates.bernoulli import threshold
from jaxtickets.types import Array, Keep, Key, Mask, Params, Prunable, Scores

BETA = 200.0
"""β at the end of the training."""


def gate(
    prunable: Prunable,
    keep: Keep | None,
    floor: Keep,
    setting: Setting,
    begin: float = 0.0,
    beta: float = BETA,
) -> Gate:
    """Trains s with the weights, which are used as `w · σ(β s)`, `β = beta^(step / steps)`.

    After training, the kept weights are w themselves: σ(β s) is 1 or 0 by then.

    Args:
      prunable: the leaves that are masked.
      keep, floor: how many weights the hard mask keeps, those with the highest s, see
        `masks.select`; `keep` None: those with s > 0.
      setting: the number of training steps.
      begin: the first score of every weight; the paper tries -0.3 to 0.3.
      beta: β at the end, above 1.

    The strength is the penalty of one kept weight, in nats; the paper has 1e-8.

    Raises:
      ValueError: `beta` is not above 1, or there is no training step.

    >>> made = gate(("w",), None, 0, Setting(steps=10, examples=1))
    >>> params, scores = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([-0.1, 0.1])}
    >>> made.apply(jax.random.key(0), 0, {"w": jnp.zeros(2)}, params, 1.0)[0]["w"].tolist()
    [1.5, 2.0]
    >>> last, _ = made.apply(jax.random.key(0), 10, scores, params, 1.0)
    >>> last["w"].round(3).tolist(), made.harden(scores, params)["w"].tolist()
    ([0.0, 4.0], [False, True])
    """
    if not beta > 1:
        raise ValueError(f"beta={beta}: must be above 1")
    if setting.steps < 1:
        raise ValueError(f"steps={setting.steps}: must be 1 or more")

    def apply(
        key: Key, step: Array, scores: Scores, params: Params, strength: Array
    ) -> tuple[Params, Array]:
        del key
        now = beta ** (step / setting.steps)
        soft = [jax.nn.sigmoid(now * s) for s in masks.pick(scores, prunable)]
        leaves = zip(masks.pick(params, prunable), soft, strict=True)
        effective = masks.put(params, prunable, [(w * z).astype(w.dtype) for w, z in leaves])
        return effective, strength * sum((jnp.sum(z) for z in soft), jnp.float32(0))

    def harden(scores: Scores, params: Params) -> Mask:
        del params
        if keep is None:
            return threshold(scores, prunable)
        return masks.select(scores, prunable, keep, floor)

    return Gate(equal_scores(prunable, begin), apply, harden, trains_weights=True)
