"""L0 regularisation of single weights: hard concrete gates that train with the weights.

Each weight is used as `w · z` with z a hard concrete gate of its own log α, drawn anew in every
step. With P = P(z ≠ 0), N training examples and λ the strength, the penalty is

    (1 / N) Σ P (λ + wd / 2 · w²).

Louizos et al., "Learning sparse neural networks through L0 regularization", 2018, equations 9 to
13, with the published settings: Adam with rate 0.001 for weights and gates, batches of 100 and 200
epochs. See `l0_groups` for the gates of neurons and filters, which the paper's results are of.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks
from jaxtickets.gates import hard_concrete
from jaxtickets.gates.base import Gate, Joint, Setting
from jaxtickets.types import Array, Keep, Key, Mask, Params, Prunable, PyTree, Scores

WEIGHT_DECAY = 5e-4
"""wd of the authors' script for LeNet-5, whose penalty divides it by N as above."""
DROPPED, DROPPED_INPUTS = 0.5, 0.2
"""The first probability of a closed gate, and that in layers that read the net's input."""


def gate(
    prunable: Prunable,
    keep: Keep | None,
    floor: Keep,
    setting: Setting,
    weight_decay: float = WEIGHT_DECAY,
    inputs: Prunable = (),
) -> Gate:
    """Trains log α with the weights, which are used as `w · z`.

    After training, the weights are `w · z` with the gates of `hard_concrete.at_test_time`.

    Deviations: the authors' code evaluates a moving average of w and log α (decay 0.999), and
    penalises biases without gates by wd too; its script for the multilayer perceptron multiplies wd
    by N. Its λ is 1, the paper's is 0.1. Its published errors are the best on test data.

    Args:
      prunable: the leaves that have gates.
      keep, floor: how many weights the hard mask keeps, those with the highest log α, see
        `masks.select`; `keep` None: those whose gate is open at test time, log α > -log 11.
      setting: the number of training examples N.
      weight_decay: wd, 0 or more.
      inputs: those of `prunable` in layers that read the net's input, where gates are first closed
        with probability 0.2 in place of 0.5, as in the authors' multilayer perceptron.

    The strength is λ, the penalty of one weight that is surely kept, in nats over all N examples.

    Raises:
      ValueError: `weight_decay` is negative, there is no training example, or `inputs` are not
        among `prunable`.

    >>> made = gate(("w",), None, 0, Setting(steps=10, examples=100))
    >>> params, log_alpha = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([-3.0, 100.0])}
    >>> made.harden(log_alpha, params)["w"].tolist(), made.weights(log_alpha, params)["w"].tolist()
    ([False, True], [0.0, 4.0])
    >>> _, penalty = made.apply(jax.random.key(0), 0, log_alpha, params, 2.0)
    >>> 0.02 < float(penalty) < 0.03  # one weight surely kept, the other seldom; λ / N is 0.02
    True
    """
    check(prunable, setting, weight_decay, inputs)

    def init(key: Key, params: Params) -> Scores:
        zero = masks.zeros(params)
        return masks.put(zero, prunable, first(key, prunable, masks.pick(zero, prunable), inputs))

    def apply(
        key: Key, step: Array, log_alpha: Scores, params: Params, strength: Array
    ) -> tuple[Params, Array]:
        del step
        weights, alphas = masks.pick(params, prunable), masks.pick(log_alpha, prunable)
        keys = jax.random.split(key, len(alphas))
        z = [hard_concrete.sample(k, a) for k, a in zip(keys, alphas, strict=True)]
        pairs = zip(weights, alphas, strict=True)
        costs = [strength + weight_decay / 2 * w.astype(a.dtype) ** 2 for w, a in pairs]
        return _gated(params, z), expected_cost(alphas, costs) / setting.examples

    def _gated(params: Params, z: list[Array]) -> Params:
        pairs = zip(masks.pick(params, prunable), z, strict=True)
        return masks.put(params, prunable, [(w * open_).astype(w.dtype) for w, open_ in pairs])

    def weights(log_alpha: Scores, params: Params) -> Params:
        alphas = masks.pick(log_alpha, prunable)
        return _gated(params, [hard_concrete.at_test_time(a) for a in alphas])

    def harden(log_alpha: Scores, params: Params) -> Mask:
        if keep is not None:
            return masks.select(log_alpha, prunable, keep, floor)
        open_ = [hard_concrete.at_test_time(a) > 0 for a in masks.pick(log_alpha, prunable)]
        return masks.put(masks.ones(params), prunable, open_)

    return Gate(init, apply, harden, weights=weights, trains_weights=True, optimizer=clamped)


def check(prunable: Prunable, setting: Setting, weight_decay: float, inputs: Prunable) -> None:
    """Raises ValueError if an argument of `gate` is out of range.

    >>> check(("w",), Setting(steps=10, examples=100), weight_decay=5e-4, inputs=("w",))
    >>> check(("w",), Setting(steps=10, examples=0), weight_decay=5e-4, inputs=())
    Traceback (most recent call last):
    ValueError: examples=0: must be 1 or more
    """
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay={weight_decay}: must be 0 or more")
    if setting.examples < 1:
        raise ValueError(f"examples={setting.examples}: must be 1 or more")
    for path in inputs:
        if path not in prunable:
            raise ValueError(f"inputs: '{path}' has no gates; there are {', '.join(prunable)}")


def first(key: Key, prunable: Prunable, zeros: list[Array], inputs: Prunable) -> list[jax.Array]:
    """The first log α of each leaf, shaped like `zeros`; the key is consumed.

    >>> (log_alpha,) = first(jax.random.key(0), ("w",), [np.zeros(3)], inputs=("w",))
    >>> [round(float(p), 1) for p in jax.nn.sigmoid(log_alpha)]
    [0.8, 0.8, 0.8]
    """
    keys = jax.random.split(key, len(zeros))
    dropped = [DROPPED_INPUTS if path in inputs else DROPPED for path in prunable]
    leaves = zip(keys, zeros, dropped, strict=True)
    return [hard_concrete.initial(k, zero, p) for k, zero, p in leaves]


def expected_cost(log_alphas: list[Array], costs: list[Array]) -> jax.Array:
    """`Σ P(z ≠ 0) · cost` over all gates; each leaf's costs have the shape of its log α.

    >>> float(expected_cost([np.array([-100.0, 100.0])], [np.array([3.0, 5.0])]))
    5.0
    """
    leaves = zip(log_alphas, costs, strict=True)
    return sum((jnp.sum(hard_concrete.expected_l0(a) * cost) for a, cost in leaves), jnp.float32(0))


def clamped(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The optimiser `inner`, with all log α clamped to `±hard_concrete.MOST` after each step.

    The clamp is that of the authors' code: gates beyond it would hardly have a gradient.

    >>> optimizer = clamped(optax.sgd(1.0))
    >>> params, gradient = (Joint(weights=jnp.array(x), gate=jnp.array(x)) for x in (0.0, -9.0))
    >>> updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    >>> float(updates.weights), round(float(updates.gate), 3)  # log 100
    (9.0, 4.605)
    """
    inner = optax.with_extra_args_support(inner)

    def update(
        gradient: Joint, state: PyTree, params: Joint | None = None, **extra: Any
    ) -> tuple[Joint, PyTree]:
        if params is None:
            raise ValueError("the optimiser of L0 gates needs the parameters")
        updates, state = inner.update(gradient, state, params, **extra)

        def leaf(a: Array, u: Array) -> jax.Array:
            return jnp.clip(a + u, -hard_concrete.MOST, hard_concrete.MOST) - a

        return updates._replace(gate=jax.tree.map(leaf, params.gate, updates.gate)), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
