"""Bayesian nets and their tickets: samples, Monte-Carlo predictions, pruning, transplanted masks.

A Bayesian ticket is a mask over a mean-field Gaussian posterior: a pruned weight has mean 0 and
variance 0. The mask comes from the posterior itself (`prune`), or from a deterministic net
(`transplant`). Everything works on PyTrees of parameters. From dense weights to a pruned Bayesian
net, by MOPED; `bayes_by_backprop.gate` is for weights that aren't trained yet:

>>> from flax import linen as nn
>>> from jaxtickets import gates, nets
>>> from jaxtickets.analysis import uncertainty
>>> points = jax.random.normal(jax.random.key(0), (200, 3))
>>> labels = (points[:, 0] > 0).astype(int)
>>> dense = {"kernel": jnp.array([[-2.0, 2.0], [0.0, 0.1], [0.1, 0.0]]), "bias": jnp.zeros(2)}
>>> net = nets.functional(nn.Dense(2), (3,))
>>> def loss(params, stats, batch, key):
...     logits, stats = net.apply(params, stats, batch[0], key, True)
...     nats = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch[1])
...     return nats.mean(), (stats, {})

>>> setting = gates.Setting(steps=200, examples=200)
>>> gate = gates.moped.gate(("kernel",), keep=None, floor=0, setting=setting, sampling="local")
>>> of_gate = jax.value_and_grad(gates.loss(gate, loss), has_aux=True)
>>> optimizer = gates.optimizer(gate, optax.adam(0.01), optax.adam(0.1))
>>> @jax.jit
... def step(key, trained, gated_stats, state):
...     (_, (gated_stats, _)), gradient = of_gate(trained, gated_stats, (points, labels), key)
...     updates, state = optimizer.update(gradient, state, trained)
...     return optax.apply_updates(trained, updates), gated_stats, state
>>> trained, gated_stats = gates.start(gate, jax.random.key(1), dense, stats={})
>>> state = optimizer.init(trained)
>>> for key in jax.random.split(jax.random.key(2), setting.steps):
...     trained, gated_stats, state = step(key, trained, gated_stats, state)

Predictions, the entropy of what is hard to tell, and the net of the third with most signal to
noise:

>>> weights, near = posterior(trained), jnp.array([[3.0, 0.0, 0.0], [0.01, 0.0, 0.0]])
>>> probabilities = predict(net.apply, weights, {}, near, jax.random.key(3), samples=50)
>>> probabilities.shape, probabilities.mean(0).argmax(1).tolist()[0]
((50, 2, 2), 1)
>>> clear, unclear = uncertainty.predictive_entropy(probabilities).tolist()
>>> clear < 0.1 < 0.6 < unclear
True
>>> mask = prune(weights, ("kernel",), keep=2)
>>> mask["kernel"].tolist()
[[True, True], [False, False], [False, False]]
>>> pruned = predict(net.apply, masked(mask, weights), {}, points, jax.random.key(4), samples=50)
>>> bool((pruned.mean(0).argmax(1) == labels).mean() > 0.95)
True

Lottery tickets of Bayesian nets, and transplanted ones, are the subject of arXiv 2602.18825 (2026).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.gates import Joint, mean_field
from jaxtickets.gates.mean_field import MeanField, Score
from jaxtickets.types import Array, Gaussian, Keep, Key, Mask, Params, Prunable, Stats


def posterior(trained: Joint) -> Gaussian:
    """The posterior of a net that was trained with a mean-field gate.

    Args:
      trained: the means, and the `MeanField` of the gate.

    >>> means = {"w": jnp.array([[1.0, 2.0]])}
    >>> rho = {"w": jnp.array([[0.0, mean_field.FIXED]])}  # a deviation of log 2, and of 0
    >>> [round(v, 3) for v in posterior(Joint(means, MeanField(rho, ()))).variance["w"][0].tolist()]
    [0.48, 0.0]
    """
    return mean_field.posterior(trained.weights, trained.gate)


def draw(key: Key, posterior: Gaussian) -> Params:
    """Weights from the posterior; the mean where the variance is 0. The key is consumed.

    >>> means = {"w": jnp.array([[1.0, 2.0]])}
    >>> certain = Gaussian(means, variance={"w": jnp.zeros((1, 2))})
    >>> draw(jax.random.key(0), certain)["w"].tolist()
    [[1.0, 2.0]]
    """

    def leaf(mean: Array, variance: Array, drawn: Array) -> jax.Array:
        return (mean + jnp.sqrt(variance) * drawn).astype(jnp.result_type(mean))

    drawn = mean_field.noise(key, posterior.mean)
    return jax.tree.map(leaf, posterior.mean, posterior.variance, drawn)


def predict(
    apply: Callable[..., tuple[jax.Array, Stats]],
    posterior: Gaussian,
    stats: Stats,
    images: Array,
    key: Key,
    samples: int,
) -> jax.Array:
    """float`[samples, n, classes]`: the class probabilities of nets drawn from the posterior.

    Every sample is one net for all images, and all of them run at once. The key is consumed.

    Args:
      apply: that of the net's `Model`, used in evaluation mode.
      posterior: the weights.
      stats: the net's statistics, the same for all samples.
      images: float`[n, ...]`, normalised.
      key: for the weights.
      samples: the number of nets.

    Raises:
      ValueError: there is no sample.

    >>> from jaxtickets.nets import functional_plain
    >>> means = {"w": jnp.zeros((3, 2))}
    >>> net = functional_plain(lambda params, images: images @ params["w"], means)
    >>> certain, key = Gaussian(means, variance=means), jax.random.key(0)
    >>> predict(net.apply, certain, {}, jnp.ones((1, 3)), key, samples=2).tolist()
    [[[0.5, 0.5]], [[0.5, 0.5]]]
    """
    if samples < 1:
        raise ValueError(f"samples={samples}: must be 1 or more")

    def one(key: Key) -> jax.Array:
        logits, _ = apply(draw(key, posterior), stats, images)
        return jax.nn.softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))

    return jax.vmap(one)(jax.random.split(key, samples))


def prune(
    posterior: Gaussian,
    prunable: Prunable,
    keep: Keep,
    floor: Keep = 0,
    score: Score = mean_field.signal_to_noise,
) -> Mask:
    """The mask of the weights with the highest score of mean and deviation.

    Args:
      posterior: the weights.
      prunable: the leaves that are pruned.
      keep, floor: how many weights are kept, see `masks.select`; may be traced, so that densities
        can be a batch axis.
      score: see `mean_field.SCORES`; signal to noise as in Blundell et al., "Weight uncertainty in
        neural networks", 2015, section 5.1.

    >>> weights = Gaussian({"w": jnp.array([[2.0, 3.0]])}, {"w": jnp.array([[0.25, 9.0]])})
    >>> prune(weights, ("w",), keep=1)["w"].tolist()  # signal to noise: 4 and 1
    [[True, False]]
    """
    return masks.select(mean_field.scores(score, posterior), prunable, keep, floor)


def masked(mask: Mask, posterior: Gaussian) -> Gaussian:
    """The posterior with mean 0 and variance 0 where the mask is False.

    Raises:
      ValueError: the mask is not like the parameters, see `masks.check_mask`.

    >>> weights = Gaussian({"w": jnp.array([[2.0, 3.0]])}, {"w": jnp.array([[0.25, 9.0]])})
    >>> pruned = masked({"w": np.array([[True, False]])}, weights)
    >>> pruned.mean["w"].tolist(), pruned.variance["w"].tolist()
    ([[2.0, 0.0]], [[0.25, 0.0]])
    """
    return Gaussian(masks.apply(mask, posterior.mean), masks.apply(mask, posterior.variance))


class Transplant(NamedTuple):
    """A ticket's mask over what a mean-field gate trains.

    Attributes:
      mask: bool, like what trains: the ticket's mask for the means, for ρ and for the centre of the
        prior.
      fill: the values where the mask is False: mean 0, and ρ with a deviation of exactly 0.
    """

    mask: Any
    fill: Any


def transplant(mask: Mask, trained: Joint) -> Transplant:
    """Carries a deterministic net's mask over to a Bayesian net, for `training.train`.

    After every training step, a pruned weight then has mean 0 and variance 0 exactly, and adds
    nothing to the divergence from the prior.

    Args:
      mask: like the net's parameters.
      trained: the means and the `MeanField` of the gate, see `gates.start`.

    Raises:
      ValueError: the mask is not like the parameters, see `masks.check_mask`.

    >>> trained = Joint({"w": jnp.array([[2.0, 3.0]])}, MeanField({"w": jnp.zeros((1, 2))}, ()))
    >>> over, fill = transplant({"w": jnp.array([[True, False]])}, trained)
    >>> over.gate.rho["w"].tolist(), fill.gate.rho["w"].tolist()
    ([[True, False]], [[-1000.0, -1000.0]])
    """
    masks.check_mask(mask, trained.weights)
    has_centre = bool(jax.tree.leaves(trained.gate.centre))
    over = Joint(mask, MeanField(mask, mask if has_centre else ()))
    rho = jax.tree.map(lambda leaf: jnp.full_like(leaf, mean_field.FIXED), trained.gate.rho)
    zero = jax.tree.map(jnp.zeros_like, trained.weights)
    centre = jax.tree.map(jnp.zeros_like, trained.gate.centre)
    return Transplant(over, Joint(zero, MeanField(rho, centre)))
