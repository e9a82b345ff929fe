"""Soft weight sharing: a mixture of Gaussians draws the weights to few values, most of them zero.

The prior of a weight is `p(w) = Σ_j π_j N(w | μ_j, 1 / λ_j)`. Component 0 has mean 0 and a fixed
mixing proportion near 1, so that most weights go there; the means, precisions and proportions of
the others train with the weights. The loss is the mean cross-entropy plus

    τ / N · (-Σ_w log p(w) - Σ_j log Gamma(λ_j)),

N the number of training examples, and a Gamma prior on each precision that keeps variances from
collapsing. Afterwards, components that have become the same are merged, and each weight is set to
the mean of the component that most likely made it. Training starts from a trained net. Ullrich et
al., "Soft weight-sharing for neural network compression", 2017, with τ = 0.003, and 16 components.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxtickets import masks
from jaxtickets.gates.base import Gate, Optimizer, Setting
from jaxtickets.types import Array, Keep, Key, Mask, Params, Prunable, PyTree

COMPONENTS, ZERO, REACH, SIGMA, MERGE = 16, 0.99, 0.6, 0.25, 1e-10
ZERO_PRIOR, PRIOR = (5e3, 2.0), (250.0, 0.1)
"""Shape and rate of the Gamma priors of the precisions: of component 0, and of each other one."""


class Mixture(NamedTuple):
    """What trains of a mixture with components 0 to m.

    Attributes:
      means: float`[m]`, of components 1 to m; the mean of component 0 is 0.
      log_precisions: float`[m + 1]`, log λ of all components.
      logits: float`[m]`, of the proportions of components 1 to m among themselves.
    """

    means: Array
    log_precisions: Array
    logits: Array


class Components(NamedTuple):
    """Gaussians and their proportions, component 0 first.

    Attributes:
      means, log_precisions: float`[m + 1]`.
      log_proportions: float`[m + 1]`; -inf for a component that was merged into another.
    """

    means: Array
    log_precisions: Array
    log_proportions: Array


def gate(
    prunable: Prunable,
    keep: Keep | None,
    floor: Keep,
    setting: Setting,
    components: int = COMPONENTS,
    zero: float = ZERO,
    reach: float | None = REACH,
    sigma: float = SIGMA,
    merge_below: float = MERGE,
) -> Gate:
    """Trains a mixture with the weights, which training steps use as they are.

    The strength is τ. After training, `weights` sets each weight to the mean of its likeliest
    component besides 0. Unlike the paper, the prior is on the leaves `prunable` alone, not on
    biases. The Gamma priors are divided by their largest values, which does not change gradients.

    Args:
      prunable: the leaves that share weights and are masked.
      keep, floor: how many weights the hard mask keeps, see `masks.select`: those with the highest
        odds of another component against component 0; `keep` None: those whose odds are above 1.
      setting: the number of training examples.
      components: the number of components, 2 or more.
      zero: the fixed proportion of component 0.
      reach: the first means are spread evenly from `-reach` to `reach`; None: to the largest
        magnitude among the weights.
      sigma: the first standard deviation of all components.
      merge_below: components are merged while the divergence of one from another is below this, in
        nats, see `merged`.

    Raises:
      ValueError: there are fewer than two components or no examples, `zero` is not between 0 and 1,
        or `reach` or `sigma` is not above 0.

    >>> made = gate(("w",), None, 0, Setting(10, 100), components=3, reach=0.5, sigma=0.125)
    >>> params = {"w": jnp.array([0.05, 0.55, -0.7])}
    >>> g = made.init(jax.random.key(0), params)
    >>> g.means.tolist()
    [-0.5, 0.5]
    >>> made.harden(g, params)["w"].tolist(), made.weights(g, params)["w"].tolist()
    ([False, True, True], [0.5, 0.5, -0.5])
    """
    if components < 2:
        raise ValueError(f"components={components}: must be 2 or more")
    if setting.examples < 1:
        raise ValueError(f"examples={setting.examples}: must be 1 or more")
    if not 0 < zero < 1:
        raise ValueError(f"zero={zero}: must be between 0 and 1")
    if reach is not None and not reach > 0:
        raise ValueError(f"reach={reach}: must be above 0")
    if not sigma > 0:
        raise ValueError(f"sigma={sigma}: must be above 0")

    def init(key: Key, params: Params) -> Mixture:
        del key
        most = jnp.max(jnp.abs(masks.flatten(params, prunable))) if reach is None else reach
        others = components - 1
        means = most * jnp.linspace(-1, 1, others) if others > 1 else jnp.full(1, most)
        return Mixture(
            means.astype(float),
            jnp.full(components, -2 * jnp.log(sigma), float),
            jnp.zeros(others, float),
        )

    def apply(
        key: Key, step: Array, g: Mixture, params: Params, strength: Array
    ) -> tuple[Params, Array]:
        del key, step
        prior = components_of(g, zero)
        likelihood = log_likelihood(prior, masks.flatten(params, prunable))
        return params, strength / setting.examples * (precision_penalty(g) - likelihood)

    def final(g: Mixture) -> Components:
        return merged(components_of(g, zero), merge_below)

    def harden(g: Mixture, params: Params) -> Mask:
        odds = [log_odds(final(g), leaf) for leaf in masks.pick(params, prunable)]
        if keep is None:
            return masks.put(masks.ones(params), prunable, [leaf > 0 for leaf in odds])
        return masks.select(masks.put(masks.zeros(params), prunable, odds), prunable, keep, floor)

    def weights(g: Mixture, params: Params) -> Params:
        leaves = [_quantised(final(g), leaf) for leaf in masks.pick(params, prunable)]
        return masks.put(params, prunable, leaves)

    return Gate(init, apply, harden, weights=weights, trains_weights=True)


def gate_optimizer(means: float = 1e-4, others: float = 3e-3) -> Optimizer:
    """Adam for the mixture, for `gates.recipe`: other rates for the means than for all else.

    The weights have their own optimiser, in the paper Adam at a rate of 5e-4.

    Args:
      means: the learning rate of the means.
      others: that of the logarithms of the precisions, and of the logits.

    >>> mixture = Mixture(*(np.ones(1, np.float32) for _ in range(3)))
    >>> optimizer = gate_optimizer(means=0.5, others=0.25)(())
    >>> updates, _ = optimizer.update(mixture, optimizer.init(mixture))
    >>> [round(float(update[0]), 3) for update in updates]  # Adam's first step is the rate
    [-0.5, -0.25, -0.25]
    """

    def optimizer(hyper: PyTree) -> optax.GradientTransformation:
        del hyper
        return optax.partition({"means": optax.adam(means), "others": optax.adam(others)}, labels)

    def labels(params: PyTree) -> PyTree:
        names = (path.rpartition("/")[2] for path in masks.paths(params))
        each = ["means" if name == "means" else "others" for name in names]
        return jax.tree.unflatten(jax.tree.structure(params), each)

    return optimizer


def components_of(g: Mixture, zero: float) -> Components:
    """The mixture with component 0, of proportion `zero`.

    >>> g = Mixture(means=jnp.array([3.0, 4.0]), log_precisions=jnp.zeros(3), logits=jnp.zeros(2))
    >>> prior = components_of(g, zero=0.5)
    >>> prior.means.tolist(), jnp.exp(prior.log_proportions).round(3).tolist()
    ([0.0, 3.0, 4.0], [0.5, 0.25, 0.25])
    """
    others = jnp.log1p(-zero) + jax.nn.log_softmax(g.logits)
    return Components(
        jnp.pad(g.means, (1, 0)),
        g.log_precisions,
        jnp.pad(others, (1, 0), constant_values=jnp.log(zero)),
    )


def log_joint(prior: Components, weights: Array) -> jax.Array:
    """`[..., m + 1]`: `log π_j N(w | μ_j, 1 / λ_j)` of weights of any shape and all components.

    >>> prior = Components(*np.array([[0.0, 3.0], [0.0, 0.0], [0.0, 0.0]], "f"))
    >>> joint = log_joint(prior, np.array([1.0], "f"))
    >>> joint.shape, round(float(joint[0, 0] - joint[0, 1]), 3)  # (2² - 1²) / 2
    ((1, 2), 1.5)
    """
    means, log_precisions, log_proportions = (
        jnp.expand_dims(leaf, tuple(range(jnp.ndim(weights)))) for leaf in prior
    )
    squares = jnp.exp(log_precisions) * (weights[..., None] - means) ** 2
    return log_proportions + (log_precisions - jnp.log(2 * jnp.pi) - squares) / 2


@jax.custom_vjp
def log_likelihood(prior: Components, weights: Array) -> jax.Array:
    """`Σ_w log p(w)` of the weights `[n]`: scalar.

    All sums over components and over weights are products of matrices, and the derivatives come
    from the same probabilities `r` of components. With `S_k = Σ_w r w^k` they are S_0 by log π,
    `λ (S_1 - μ S_0)` by μ, and `(S_0 - λ (S_2 - 2 μ S_1 + μ² S_0)) / 2` by log λ. On a CPU this is
    seven times as fast as `logsumexp(log_joint)` and its derivative, which it equals.

    >>> prior = Components(*np.array([[0.0, 0.0], [0.0, 0.0], np.log([0.5, 0.5])], "f"))
    >>> round(float(log_likelihood(prior, np.zeros(2, "f"))), 3)  # two of -log(2 π) / 2
    -1.838
    """
    return _likelihood(prior, weights)[0]


def _likelihood(prior: Components, weights: Array) -> tuple[jax.Array, tuple[Components, Array]]:
    """The log-likelihood, and its derivatives."""
    w = weights[None].astype(prior.means.dtype)
    precisions = jnp.exp(prior.log_precisions)
    means, ones = prior.means, jnp.ones_like(prior.means)
    constants = prior.log_proportions + (prior.log_precisions - jnp.log(2 * jnp.pi)) / 2
    joint = constants[:, None] - precisions[:, None] / 2 * (w - means[:, None]) ** 2
    highest = jnp.max(joint, 0, keepdims=True)
    shares = jnp.exp(joint - highest)
    rows = jnp.stack([ones, precisions, precisions * means])
    total, curve, pull = jnp.matmul(rows, shares, precision=lax.Precision.HIGHEST)
    powers = jnp.stack([1 / total, w[0] / total, w[0] ** 2 / total], 1)
    s0, s1, s2 = jnp.matmul(shares, powers, precision=lax.Precision.HIGHEST).T
    of_prior = Components(
        precisions * (s1 - means * s0),
        (s0 - precisions * (s2 - 2 * means * s1 + means**2 * s0)) / 2,
        s0,
    )
    of_weights = ((pull - curve * w[0]) / total).astype(weights.dtype)
    return jnp.sum(highest[0] + jnp.log(total)), (of_prior, of_weights)


def _likelihood_pulled(
    derivatives: tuple[Components, Array], cotangent: Array
) -> tuple[Components, Array]:
    return jax.tree.map(lambda leaf: (cotangent * leaf).astype(leaf.dtype), derivatives)


log_likelihood.defvjp(_likelihood, _likelihood_pulled)


def precision_penalty(g: Mixture) -> jax.Array:
    """`Σ_j (a - 1) (r_j - 1 - log r_j)`, `r_j = λ_j b / (a - 1)`: scalar, 0 at its minimum.

    This is `-Σ_j log Gamma(λ_j | a, b)` but for a constant, with a and b from `ZERO_PRIOR` for
    component 0 and from `PRIOR` for all others.

    >>> modes = np.log([(ZERO_PRIOR[0] - 1) / ZERO_PRIOR[1], (PRIOR[0] - 1) / PRIOR[1]])
    >>> g = Mixture(means=np.ones(1), log_precisions=modes.astype("f"), logits=np.zeros(1))
    >>> more = g._replace(log_precisions=g.log_precisions + np.array([0, 1], "f"))
    >>> [abs(round(float(precision_penalty(each)))) for each in (g, more)]  # 249 (e - 2)
    [0, 179]
    """

    def of(log_precision: Array, prior: tuple[float, float]) -> Array:
        shape, rate = prior
        log_ratio = log_precision - jnp.log((shape - 1) / rate)
        return (shape - 1) * jnp.sum(jnp.expm1(log_ratio) - log_ratio)

    return of(g.log_precisions[0], ZERO_PRIOR) + of(g.log_precisions[1:], PRIOR)


def divergences(prior: Components) -> jax.Array:
    """`[m + 1, m + 1]`: `KL(N_i | N_j)`, in nats; infinite for i = j and for merged components.

    >>> prior = Components(*np.array([[0.0, 2.0], [0.0, 0.0], [-1.0, -1.0]], "f"))
    >>> divergences(prior).tolist()  # (0 - 2)² / 2
    [[inf, 2.0], [2.0, inf]]
    """
    means, log_precisions, log_proportions = prior
    log_ratio = log_precisions[None, :] - log_precisions[:, None]
    distance = jnp.exp(log_precisions)[None, :] * (means[:, None] - means[None, :]) ** 2
    # expm1 keeps divergences of 1e-10 precise in 32 bits
    found = (jnp.expm1(log_ratio) - log_ratio + distance) / 2
    there = log_proportions > -jnp.inf
    others = ~jnp.eye(len(means), dtype=bool) & there[:, None] & there[None, :]
    return jnp.where(others, found, jnp.inf)


def merged(prior: Components, below: float) -> Components:
    """Merges the two components of least divergence for as long as it is below `below`, in nats.

    The merged component has the sum of both proportions, and the means of both means and of both
    variances, weighted by proportion. It takes the place of the first of the two; what is merged
    with component 0 takes its mean, 0.

    >>> proportions = np.log([0.5, 0.25, 0.25])
    >>> prior = Components(*np.array([[0, 3, 3], [0, 0, 0], proportions], "f"))
    >>> after = merged(prior, below=1e-3)
    >>> jnp.exp(after.log_proportions).round(3).tolist(), after.means.tolist()
    ([0.5, 0.5, 0.0], [0.0, 3.0, 3.0])
    """

    def closest(prior: Components) -> tuple[Array, Array]:
        found = divergences(prior)
        return jnp.min(found), jnp.argmin(found)

    def unsettled(prior: Components) -> Array:
        return closest(prior)[0] < below

    def merge(prior: Components) -> Components:
        pair = jnp.stack(jnp.divmod(closest(prior)[1], len(prior.means)))
        into, gone = jnp.min(pair), jnp.max(pair)
        total = jnp.logaddexp(prior.log_proportions[into], prior.log_proportions[gone])
        shares = jnp.exp(prior.log_proportions[pair] - total)
        mean = jnp.where(into == 0, 0.0, shares @ prior.means[pair])
        variance = shares @ jnp.exp(-prior.log_precisions[pair])
        return Components(
            prior.means.at[into].set(mean),
            prior.log_precisions.at[into].set(-jnp.log(variance)),
            prior.log_proportions.at[into].set(total).at[gone].set(-jnp.inf),
        )

    return lax.while_loop(unsettled, merge, prior)


def log_odds(prior: Components, weights: Array) -> jax.Array:
    """The log odds of a weight's likeliest other component against component 0, like the weights.

    It is -inf if all components are merged with component 0.

    >>> prior = Components(*np.array([[0.0, 2.0], [0.0, 0.0], [-1.0, -1.0]], "f"))
    >>> log_odds(prior, np.array([0.0, 1.0, 2.0], "f")).tolist()
    [-2.0, 0.0, 2.0]
    """
    joint = log_joint(prior, weights)
    return jnp.max(joint[..., 1:], -1) - joint[..., 0]


def _quantised(prior: Components, weights: Array) -> jax.Array:
    """Each weight at the mean of its likeliest component besides 0; the mask has the zeros."""
    others = jnp.argmax(log_joint(prior, weights)[..., 1:], -1)
    return prior.means[1:][others].astype(weights.dtype)
