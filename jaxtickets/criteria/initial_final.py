"""Criteria from the initial and the final value of a weight.

Zhou et al., "Deconstructing lottery tickets", 2019, section 2: a criterion is a function on the
plane of `w_i`, a weight at initialisation, and `w_f`, the same weight after training.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.criteria.base import Criterion, Evidence, Weights, in_single
from jaxtickets.types import Array, Key, Scores


class Function(NamedTuple):
    """A function on the plane.

    Attributes:
      of: `of(w_i, w_f, alpha) -> scores`, elementwise; alpha scales `|w_f|` to `|w_i|`.
      equation: the same in symbols.
      looks_at: `initial` if `of` does not read `w_f`.
    """

    of: Callable[[Array, Array, Array], Array]
    equation: str
    looks_at: Weights = "trained"


FUNCTIONS: dict[str, Function] = {
    "magnitude": Function(lambda i, f, alpha: jnp.abs(f), "|w_f|"),
    "small_final": Function(lambda i, f, alpha: -jnp.abs(f), "-|w_f|"),
    "large_init": Function(lambda i, f, alpha: jnp.abs(i), "|w_i|", looks_at="initial"),
    "small_init": Function(lambda i, f, alpha: -jnp.abs(i), "-|w_i|", looks_at="initial"),
    "large_init_large_final": Function(
        lambda i, f, alpha: jnp.minimum(alpha * jnp.abs(f), jnp.abs(i)), "min(alpha |w_f|, |w_i|)"
    ),
    "small_init_small_final": Function(
        lambda i, f, alpha: -jnp.maximum(alpha * jnp.abs(f), jnp.abs(i)), "-max(alpha |w_f|, |w_i|)"
    ),
    "magnitude_increase": Function(lambda i, f, alpha: jnp.abs(f) - jnp.abs(i), "|w_f| - |w_i|"),
    "movement": Function(lambda i, f, alpha: jnp.abs(f - i), "|w_f - w_i|"),
}
"""`magnitude` is the paper's large final, which Han et al., "Learning both weights and
connections", 2015, and the lottery ticket papers use."""

SAME_SIGN = "_same_sign"


def criterion(function: Function, same_sign: bool = False) -> Criterion:
    """The criterion of a function on the plane; its score does not use the key.

    `alpha = mean |w_i| / mean |w_f|` over the kept weights of each leaf, where the paper aligns
    percentiles.

    Args:
      function: the function.
      same_sign: whether weights whose sign training changed rank below all others, in reverse
        order. With s the scores minus their minimum, the score is then `s · sign(w_i w_f)`, which
        ranks `magnitude` like `sign(w_i) · w_f`, the paper's large final, same sign. The paper sets
        the scores of such weights to 0, without an order and above negative scores of same-sign
        weights.

    >>> movement = criterion(FUNCTIONS["movement"])
    >>> first, last = {"w": np.array([1.0, -1.0])}, {"w": np.array([1.5, 2.0])}
    >>> evidence = Evidence(first, last, {}, masks.ones(last), None, None)
    >>> movement.score(jax.random.key(0), evidence)["w"].tolist(), movement.looks_at
    ([0.5, 3.0], 'trained')
    """

    def score(key: Key, evidence: Evidence) -> Scores:
        del key
        masks.check_mask(evidence.mask, evidence.params)
        masks.check_like(
            evidence.init_params, evidence.params, "the first parameters", "the parameters"
        )
        evidence = in_single(evidence)

        def leaf(i: Array, f: Array, kept: Array) -> Array:
            first, last = (jnp.sum(jnp.where(kept, jnp.abs(w), 0.0)) for w in (i, f))
            alpha = first / jnp.where(last > 0, last, 1.0)
            return function.of(i, f, alpha)

        scores = jax.tree.map(leaf, evidence.init_params, evidence.params, evidence.mask)
        if not same_sign:
            return scores
        lowest = jnp.stack([jnp.min(s) for s in jax.tree.leaves(scores)]).min()

        def signed(s: Array, i: Array, f: Array) -> Array:
            return jnp.where(i * f >= 0, s - lowest, lowest - s)

        return jax.tree.map(signed, scores, evidence.init_params, evidence.params)

    return Criterion(score, "trained" if same_sign else function.looks_at)


CRITERIA: dict[str, Criterion] = {name: criterion(f) for name, f in FUNCTIONS.items()} | {
    name + SAME_SIGN: criterion(f, same_sign=True) for name, f in FUNCTIONS.items()
}
