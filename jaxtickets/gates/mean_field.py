"""Mean-field Gaussian posteriors: every weight is random, with its own mean and deviation.

Each weight w is N(μ, σ²) with `σ = softplus(ρ)`. The means are the weights that train with the
gate, and ρ, for every leaf, is the gate's parameter. The loss gets the divergence from the prior,
summed over all weights and divided by the number of training examples, so that the mean loss of a
batch plus the penalty is the negative evidence lower bound of one example. Bayes by Backprop and
MOPED differ in their priors and in the first ρ.
"""

from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.gates.base import Gate, Setting
from jaxtickets.gates.priors import Prior
from jaxtickets.nets import gaussian
from jaxtickets.types import Array, Gaussian, Keep, Key, Mask, Params, Prunable, Scores

FIXED = -1000.0
"""The rho of a weight that is not random: its deviation is exactly 0, and it adds nothing to the
divergence. Pruned weights have it, see `recipes.bayesian.transplant`."""

WEIGHTS, LOCAL = "weights", "local"
SAMPLING = (WEIGHTS, LOCAL)
"""What a training step uses: weights drawn once for the whole batch, or a `Gaussian`."""


class MeanField(NamedTuple):
    """The parameters of the gate.

    Attributes:
      rho: float, like the net's parameters; the deviation is softplus(ρ).
      centre: the means of the prior, which do not train; `()` where they are zero.
    """

    rho: Params
    centre: Params


def deviation(rho: Array) -> jax.Array:
    """σ = softplus(ρ) = log(1 + exp ρ); exactly 0 at `FIXED`.

    >>> [round(float(sigma), 3) for sigma in deviation(np.array([FIXED, 0.0, 100.0]))]
    [0.0, 0.693, 100.0]
    """
    return jax.nn.softplus(rho)


def log_deviation(rho: Array) -> jax.Array:
    """log softplus(ρ), finite where softplus(ρ) itself is rounded to 0.

    >>> [round(float(log), 3) for log in log_deviation(np.array([-100.0, 100.0]))]  # ρ and log ρ
    [-100.0, 4.605]
    """
    low = rho < -20
    return jnp.where(low, rho - jnp.exp(rho) / 2, jnp.log(deviation(jnp.where(low, 0.0, rho))))


def rho_of(deviation: Array) -> jax.Array:
    """The inverse of `deviation`: `log(expm1(σ))`; `FIXED` where σ is 0.

    >>> rho_of(np.array([0.0, 100.0])).tolist()
    [-1000.0, 100.0]
    >>> [round(float(deviation(rho_of(sigma))), 3) for sigma in (np.float32(0.01), np.float32(2))]
    [0.01, 2.0]
    """
    there = deviation > 0
    sigma = jnp.where(there, deviation, 1.0)
    return jnp.where(there, sigma + jnp.log(-jnp.expm1(-sigma)), FIXED)


def posterior(mean: Params, g: MeanField) -> Gaussian:
    """The posterior of the weights, from their means and the gate's parameters.

    >>> g = MeanField(rho={"w": np.array([FIXED, 100.0])}, centre=())
    >>> posterior({"w": np.array([3.0, 4.0])}, g).variance["w"].tolist()
    [0.0, 10000.0]
    """
    return Gaussian(mean, jax.tree.map(lambda leaf: deviation(leaf) ** 2, g.rho))


def noise(key: Key, params: Params) -> Params:
    """Independent standard normal numbers like the parameters; the key is consumed.

    >>> drawn = noise(jax.random.key(0), {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)})
    >>> drawn["kernel"].shape, drawn["bias"].shape
    ((2, 3), (3,))
    """
    leaves, treedef = jax.tree.flatten(params)
    sizes = [jnp.size(leaf) for leaf in leaves]
    kind = jnp.result_type(*leaves)
    # one draw for all leaves: a draw for each takes a large net seconds longer to compile
    parts = jnp.split(jax.random.normal(key, (sum(sizes),), kind), list(accumulate(sizes))[:-1])
    shaped = [
        part.reshape(jnp.shape(leaf)).astype(jnp.result_type(leaf))
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, shaped)


def divergence(prior: Prior, mean: Params, g: MeanField, drawn: Params) -> jax.Array:
    """KL(posterior ‖ prior) in nats, a scalar summed over all weights that are random.

    Args:
      prior: the prior of one weight, see `priors`.
      mean: the means, like the net's parameters.
      g: the gate's parameters.
      drawn: standard normal numbers like the parameters, see `Prior`.

    >>> from jaxtickets.gates import priors
    >>> mean, one = {"w": np.array([2.0, 5.0], "f")}, np.log(np.e - 1)  # softplus(one) is 1
    >>> g = MeanField(rho={"w": np.array([one, FIXED], "f")}, centre=())
    >>> nats = divergence(priors.gaussian(1.0), mean, g, drawn={"w": np.zeros(2, "f")})
    >>> round(float(nats), 3)  # μ² / 2 of the first
    2.0
    """

    def leaf(mean: Array, rho: Array, drawn: Array, centre: Array | float) -> jax.Array:
        away = mean - jax.lax.stop_gradient(centre)
        nats = prior(away, log_deviation(rho), drawn)
        return jnp.sum(jnp.where(rho > FIXED, nats, 0.0))

    centre = jax.tree.map(lambda m: 0.0, mean) if g.centre == () else g.centre
    each = jax.tree.leaves(jax.tree.map(leaf, mean, g.rho, drawn, centre))
    return sum(each, jnp.float32(0))


Score = Callable[[Array, Array], Array]
"""`score(mean, deviation) -> score`, elementwise; weights with a higher score are kept first."""


def signal_to_noise(mean: Array, deviation: Array) -> jax.Array:
    """|μ| / σ; 0 where the mean is 0. Blundell et al., 2015, section 5.1, in place of decibels.

    >>> signal_to_noise(np.array([0.0, -3.0]), np.array([0.5, 0.5])).tolist()
    [0.0, 6.0]
    """
    return jnp.abs(mean) / jnp.maximum(deviation, jnp.finfo(jnp.result_type(deviation)).tiny)


def magnitude(mean: Array, deviation: Array) -> jax.Array:
    """|μ|.

    >>> magnitude(np.array([0.0, -3.0]), np.array([0.5, 0.5])).tolist()
    [0.0, 3.0]
    """
    del deviation
    return jnp.abs(mean)


def root_mean_square(mean: Array, deviation: Array) -> jax.Array:
    """`sqrt(μ² + σ²)`: the root of the mean square of a random weight.

    >>> root_mean_square(np.array([0.0, -3.0]), np.array([0.5, 4.0])).tolist()
    [0.5, 5.0]
    """
    return jnp.sqrt(mean**2 + deviation**2)


SCORES: dict[str, Score] = {
    "signal_to_noise": signal_to_noise,
    "magnitude": magnitude,
    "root_mean_square": root_mean_square,
}


def scores(score: Score, posterior: Gaussian) -> Scores:
    """The score of each weight, like the parameters.

    >>> weights = Gaussian(mean={"w": np.array([1.0, -6.0])}, variance={"w": np.array([0.25, 9.0])})
    >>> scores(signal_to_noise, weights)["w"].tolist()
    [2.0, 2.0]
    """
    return jax.tree.map(lambda m, v: score(m, jnp.sqrt(v)), posterior.mean, posterior.variance)


def gate(
    first: Callable[[Params], MeanField],
    prior: Prior,
    prunable: Prunable,
    keep: Keep | None,
    floor: Keep,
    setting: Setting,
    sampling: str,
    score: Score,
    threshold: float,
) -> Gate:
    """Random weights N(μ, σ²), with the penalty `strength · KL(posterior ‖ prior) / examples`.

    Args:
      first: `first(params) -> g`: the gate's parameters at the start.
      prior: the prior of one weight, around `MeanField.centre`.
      prunable: the leaves that the hard mask prunes; all leaves are random.
      keep, floor: how many weights the hard mask keeps, those with the highest score, see
        `masks.select`; `keep` None: those with a score above `threshold`.
      setting: the number of training examples.
      sampling: one of `SAMPLING`. With `local`, every product of weights is drawn where it is
        used, see `nets.gaussian`.
      score: see `SCORES`.
      threshold: in the unit of the score.

    Raises:
      ValueError: an unknown sampling, or there is no training example.

    >>> from jaxtickets.gates import priors
    >>> made = gate(
    ...     first=lambda params: MeanField({"w": jnp.full(2, FIXED)}, ()),  # no deviation
    ...     prior=priors.gaussian(1.0),
    ...     prunable=("w",),
    ...     keep=1,
    ...     floor=0,
    ...     setting=Setting(steps=10, examples=100),
    ...     sampling=WEIGHTS,
    ...     score=magnitude,
    ...     threshold=0.0,
    ... )
    >>> params = {"w": jnp.array([3.0, -4.0])}
    >>> g = made.init(jax.random.key(0), params)
    >>> drawn, penalty = made.apply(jax.random.key(1), 0, g, params, 1.0)
    >>> drawn["w"].tolist(), float(penalty), made.harden(g, params)["w"].tolist()
    ([3.0, -4.0], 0.0, [False, True])
    """
    if sampling not in SAMPLING:
        raise ValueError(f"unknown sampling '{sampling}': one of {', '.join(SAMPLING)}")
    if setting.examples < 1:
        raise ValueError(f"examples={setting.examples}: must be 1 or more")

    def init(key: Key, params: Params) -> MeanField:
        del key
        return first(params)

    def apply(
        key: Key, step: Array, g: MeanField, params: Params, strength: Array
    ) -> tuple[Params | Gaussian, Array]:
        del step
        drawn = noise(key, params)
        penalty = strength * divergence(prior, params, g, drawn) / setting.examples
        if sampling == LOCAL:
            return posterior(params, g), penalty

        def leaf(mean: Array, rho: Array, drawn: Array) -> jax.Array:
            return (mean + deviation(rho) * drawn).astype(mean.dtype)

        return jax.tree.map(leaf, params, g.rho, drawn), penalty

    def harden(g: MeanField, params: Params) -> Mask:
        each = scores(score, posterior(params, g))
        if keep is None:
            above = [leaf > threshold for leaf in masks.pick(each, prunable)]
            return masks.put(masks.ones(params), prunable, above)
        return masks.select(each, prunable, keep, floor)

    passes = gaussian.PASSES if sampling == LOCAL else 0
    return Gate(init, apply, harden, trains_weights=True, extra_passes=passes)
