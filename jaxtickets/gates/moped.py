"""MOPED: Bayes by Backprop with prior and first posterior taken from a trained dense net.

Krishnan et al., "Specifying weight priors in Bayesian deep neural networks with empirical Bayes",
2020.
"""

import jax
import jax.numpy as jnp

from jaxtickets.gates import mean_field, priors
from jaxtickets.gates.base import Gate, Setting
from jaxtickets.gates.mean_field import MeanField, Score
from jaxtickets.types import Array, Keep, Params, Prunable

LEAST = 1e-6
"""The smallest first deviation, so that a weight that is 0 in the dense net is random too."""


def gate(
    prunable: Prunable,
    keep: Keep | None,
    floor: Keep,
    setting: Setting,
    delta: float = 0.1,
    width: float = 1.0,
    sampling: str = mean_field.WEIGHTS,
    score: Score = mean_field.magnitude,
    threshold: float = 0.0,
) -> Gate:
    """The prior of each weight is N(w, width²) and its first posterior N(w, (δ |w|)²).

    w are the weights of the dense net, from which the gate starts: those that `init` receives. They
    are stored in the gate's parameters as `MeanField.centre`, with no gradient, so that runs of
    different dense nets can be batched. The first ρ is `log(expm1(δ |w|))`.

    Args:
      prunable, keep, floor, setting, sampling, score, threshold: see `mean_field.gate`. With the
        default threshold, `keep` None keeps every weight whose mean is not 0.
      delta: δ; the paper has 0.1 to 0.5.
      width: the width of the prior.

    The hard mask is that of |μ| by default, because |μ| / σ starts at 1 / δ for every weight and
    says little until σ has moved far from δ |w|.

    The strength is the weight of the divergence: 1 for Bayes' rule, less for a tempered posterior.
    The divergence is summed over weights; the authors' code takes its mean over a tensor. The
    optimiser of g must not decay it: that would move both ρ and the prior's centre.

    Raises:
      ValueError: `delta` or the width is not above 0; or see `mean_field.gate`.

    >>> made = gate(("w",), 1, 0, Setting(steps=10, examples=100), delta=0.5)
    >>> params = {"w": jnp.array([2.0, -4.0])}
    >>> g = made.init(jax.random.key(0), params)
    >>> [round(float(x), 3) for x in mean_field.deviation(g.rho["w"])]
    [1.0, 2.0]
    >>> g.centre["w"].tolist(), made.harden(g, params)["w"].tolist()
    ([2.0, -4.0], [False, True])
    """
    if not delta > 0:
        raise ValueError(f"delta={delta}: must be above 0")

    def first(params: Params) -> MeanField:
        def leaf(w: Array) -> jax.Array:
            return mean_field.rho_of(jnp.maximum(delta * jnp.abs(w), LEAST))

        return MeanField(jax.tree.map(leaf, params), jax.tree.map(jnp.asarray, params))

    return mean_field.gate(
        first=first,
        prior=priors.gaussian(width),
        prunable=prunable,
        keep=keep,
        floor=floor,
        setting=setting,
        sampling=sampling,
        score=score,
        threshold=threshold,
    )
