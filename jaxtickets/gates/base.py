"""The interface of gates, and how `training` trains a gate.

A gate makes the weights that a net uses a function of parameters g, so that gradients can train g.
Either the net's own weights stay fixed, as in edge-popup, or they train with g (`trains_weights`),
as in L0 regularisation. `loss`, `optimizer`, `model` and `recipe` turn a loss, an optimiser, a net
and a recipe over weights into the same over what trains: g, or `Joint(weights, g)`. `training` then
takes that in the place of the weights, with a mask of ones; so does any loop, see `gates`.

    gated = gates.recipe(gate, problem.recipe)
    trained, gated_stats = gates.start(gate, gate_key, params, stats)
    training.train(gated, key, hyper, trained, gated_stats, masks.ones(trained), data, steps)
    mask, weights = gates.ticket(gate, state.params, state.stats)
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxtickets import losses, masks
from jaxtickets.losses import Outputs
from jaxtickets.nets import gaussian
from jaxtickets.training import Recipe
from jaxtickets.types import (
    Array,
    Keep,
    Key,
    Loss,
    Mask,
    Model,
    Params,
    Prunable,
    PyTree,
    Scores,
    Split,
    Stats,
)

Scale = Callable[[Mask, Params], Params]
"""`scale(mask, params) -> params`: rescales the dense weights before the mask selects from them.

`unscaled`, or `search.energies.rescale` or `bernoulli.dynamic_rescale` with their leaves bound.
"""


def unscaled(mask: Mask, params: Params) -> Params:
    """The unchanged weights.

    >>> unscaled({"w": np.array([True, False])}, {"w": np.array([3.0, 4.0])})["w"].tolist()
    [3.0, 4.0]
    """
    del mask
    return params


def _unchanged(g: PyTree, params: Params) -> Params:
    del g
    return params


def _unpruned(mask: Mask, params: Params, strength: Array) -> Mask:
    del params, strength
    return mask


Objective = Callable[[Any, Params, Stats, Split, Key], tuple[Array, tuple[Stats, dict[str, Array]]]]
"""`objective(effective, params, stats, batch, key) -> (scalar, (stats, metrics))`: a loss of the
weights that a gate made of the net's weights `params`."""


def _of_effective(of_weights: Loss, outputs: Outputs | None) -> Objective:
    del outputs
    return lambda effective, params, stats, batch, key: of_weights(effective, stats, batch, key)


def _as_it_is(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    return optimizer


class Gate(NamedTuple):
    """The weights that a net uses, as a function of trained parameters g.

    Attributes:
      init: `init(key, params) -> g`, a PyTree of float; the key is consumed.
      apply: `apply(key, step, g, params, strength) -> (effective params, penalty)`: the weights
        that the net uses in a training step, differentiable in g and in the weights `params`, and a
        scalar that is added to the loss. The weights may be a `Gaussian`, sampled where the net
        uses them, see `nets.gaussian`. The key feeds whatever is random and is consumed.
        `strength` is a scalar that may differ between the runs of a batch: how strongly the gate
        asks for sparsity, in the gate's own unit, see its constructor.
      harden: `harden(g, params) -> mask`: the mask after training.
      scale: rescales the weights under the hard mask: `scale(mask, params)` and the mask form a
        ticket.
      weights: `weights(g, params) -> params`: the weights after training, before `scale` and the
        hard mask; `params` themselves by default.
      trains_weights: whether the net's weights train with g, see `Joint`.
      prune: `prune(mask, params, strength) -> mask`: the hard mask without what the strength itself
        says to remove, for a gate whose strength is a share of the weights; `mask` by default.
      optimizer: `optimizer(inner) -> optimiser` of what trains, for a gate that needs another one
        than is asked for, such as a projection after each step; see `optimizer`.
      objective: `objective(of_weights, outputs) -> objective`: the loss of the effective weights,
        which is `of_weights` by default; `outputs` may be None; see `loss`.
      extra_passes: forward passes of one example in a training step, beside those that training the
        net takes.
      most: the largest strength that means something.
    """

    init: Callable[[Key, Params], PyTree]
    apply: Callable[[Key, Array, PyTree, Params, Array], tuple[Any, Array]]
    harden: Callable[[PyTree, Params], Mask]
    scale: Scale = unscaled
    weights: Callable[[PyTree, Params], Params] = _unchanged
    trains_weights: bool = False
    prune: Callable[[Mask, Params, Array], Mask] = _unpruned
    optimizer: Callable[[optax.GradientTransformation], optax.GradientTransformation] = _as_it_is
    objective: Callable[[Loss, Outputs | None], Objective] = _of_effective
    extra_passes: int = 0
    most: float = math.inf


class Constructor(Protocol):
    """`constructor(prunable, keep, scale, floor, steps) -> gate`: gates over fixed weights."""

    def __call__(
        self,
        prunable: Prunable,
        keep: Keep,
        scale: Scale = unscaled,
        floor: Keep = 0,
        steps: int = 0,
    ) -> Gate:
        """A gate whose hard mask keeps `keep` of the leaves `prunable`, see `masks.select`.

        `steps` is the number of training steps; gates whose mask does not depend on it ignore it.
        `scale` rescales the weights under the mask, unless the method rules this out.
        """
        ...


class Setting(NamedTuple):
    """What a gate whose weights train with it may ask about its training.

    Attributes:
      steps: the number of training steps.
      examples: the number of training examples, by which a divergence that counts once for all of
        them is divided.
    """

    steps: int
    examples: int


class JointConstructor(Protocol):
    """`constructor(prunable, keep, floor, setting) -> gate`: gates that train with the weights."""

    def __call__(
        self, prunable: Prunable, keep: Keep | None, floor: Keep, setting: Setting
    ) -> Gate:
        """A gate over the leaves `prunable`; its docstring has the unit of its strength.

        The hard mask keeps exactly `keep` weights, see `masks.select`; `keep` None has the method's
        own threshold decide.
        """
        ...


class Joint(NamedTuple):
    """What trains where the weights train with the gate.

    Attributes:
      weights: the net's weights.
      gate: the gate's parameters g.
    """

    weights: Params
    gate: PyTree


def equal_scores(prunable: Prunable, value: Array | float) -> Callable[[Key, Params], Scores]:
    """The `init` of a gate whose parameters are `value` for each weight of the leaves `prunable`.

    They are shaped like the weights, and zero in all other leaves. The key is not used.

    >>> params = {"kernel": np.ones(3), "bias": np.ones(2)}
    >>> scores = equal_scores(("kernel",), 0.5)(jax.random.key(0), params)
    >>> scores["kernel"].tolist(), scores["bias"].tolist()
    ([0.5, 0.5, 0.5], [0.0, 0.0])
    """

    def init(key: Key, params: Params) -> Scores:
        del key
        zero = masks.zeros(params)
        leaves = [jnp.full_like(leaf, value) for leaf in masks.pick(zero, prunable)]
        return masks.put(zero, prunable, leaves)

    return init


class GatedStats(NamedTuple):
    """The statistics of a gated net.

    Attributes:
      net: the net's own batch statistics.
      weights: the net's weights where training does not change them, `()` where they train. They
        are stored here because a run carries nothing else beside what trains.
      step: int32 scalar, the number of steps taken, which gates receive.
      strength: float scalar, which gates receive; 1 for a gate that has none.
    """

    net: Stats
    weights: Params
    step: Array
    strength: Array


def start(
    gate: Gate,
    key: Key,
    params: Params,
    stats: Stats,
    step: Array | int = 0,
    strength: Array | float = 1.0,
) -> tuple[PyTree, GatedStats]:
    """What trains, and its statistics, at the start of a gate's training; the key is consumed.

    Args:
      gate: the gate.
      key: for the gate's parameters.
      params, stats: the net's weights and statistics.
      step: the training step that `params` come from, see `training.init`.
      strength: see `Gate.apply`; from 0 to `gate.most`; may be traced.

    Raises:
      ValueError: the strength is out of range, where it isn't traced.

    >>> from jaxtickets.gates import bernoulli
    >>> gate = bernoulli.gate(("w",), keep=1)
    >>> trained, stats = start(gate, jax.random.key(0), {"w": jnp.array([3.0, 4.0])}, ())
    >>> trained["w"].tolist(), stats.weights["w"].tolist(), int(stats.step)
    ([0.0, 0.0], [3.0, 4.0], 0)
    """
    if not isinstance(strength, jax.core.Tracer) and not 0 <= float(strength) <= gate.most:
        span = "0 or more" if gate.most == math.inf else f"from 0 to {gate.most:g}"
        raise ValueError(f"strength={float(strength):g}: must be {span}")
    g = gate.init(key, params)
    fixed = () if gate.trains_weights else params
    step, strength = jnp.asarray(step, jnp.int32), jnp.asarray(strength, float)
    gated = GatedStats(stats, fixed, step, strength)
    return (Joint(params, g) if gate.trains_weights else g), gated


def parts(gate: Gate, trained: PyTree, stats: GatedStats) -> tuple[PyTree, Params]:
    """The gate's parameters and the net's weights.

    >>> gate = Gate(init=None, apply=None, harden=None, trains_weights=True)
    >>> parts(gate, Joint(weights="w", gate="g"), GatedStats((), (), 0, 1.0))
    ('g', 'w')
    >>> parts(gate._replace(trains_weights=False), "g", GatedStats((), "w", 0, 1.0))
    ('g', 'w')
    """
    if gate.trains_weights:
        return trained.gate, trained.weights
    return trained, stats.weights


def ticket(gate: Gate, trained: PyTree, stats: GatedStats) -> tuple[Mask, Params]:
    """The hard mask, and the weights that it selects from, with the gate's values and `scale`.

    >>> from jaxtickets.gates import bernoulli
    >>> gate = bernoulli.gate(("w",), keep=1)
    >>> stats = GatedStats((), {"w": jnp.array([3.0, 4.0])}, step=0, strength=1.0)
    >>> mask, weights = ticket(gate, {"w": jnp.array([-1.0, 2.0])}, stats)
    >>> mask["w"].tolist(), weights["w"].tolist()
    ([False, True], [3.0, 4.0])
    """
    g, params = parts(gate, trained, stats)
    mask = gate.prune(gate.harden(g, params), params, stats.strength)
    return mask, gate.scale(mask, gate.weights(g, params))


def hardened(gate: Gate, trained: PyTree, stats: GatedStats) -> Params:
    """The weights under the hard mask, see `ticket`.

    >>> from jaxtickets.gates import bernoulli
    >>> gate = bernoulli.gate(("w",), keep=1)
    >>> stats = GatedStats((), {"w": jnp.array([3.0, 4.0])}, step=0, strength=1.0)
    >>> hardened(gate, {"w": jnp.array([-1.0, 2.0])}, stats)["w"].tolist()
    [0.0, 4.0]
    """
    return masks.apply(*ticket(gate, trained, stats))


def loss(gate: Gate, of_weights: Loss, outputs: Outputs | None = None) -> Loss:
    """The loss of what trains: the loss of the effective weights plus the gate's penalty.

    Args:
      gate: the gate.
      of_weights: the loss of the net's weights; it receives the net's statistics and a dropout key.
        Any function of them serves for gates whose weights are a `Gaussian`, too.
      outputs: see `losses.outputs`; for a gate whose loss needs them, such as `concrete`.

    Returns:
      `loss(trained, stats, batch, key)` with `GatedStats`. Its metrics are those of `of_weights`,
      with the penalty added to `"loss"`, and `"penalty"`. The key is consumed.

    Raises:
      ValueError: the gate needs `outputs`.

    >>> from jaxtickets.gates import continuous_sparsification as soft
    >>> gate = soft.gate(("w",), None, 0, Setting(steps=10, examples=1))  # uses w / 2 at first
    >>> params = {"w": jnp.array([3.0, 5.0])}
    >>> trained, stats = start(gate, jax.random.key(0), params, (), strength=0.5)
    >>> sum_of_weights = lambda params, stats, batch, key: (params["w"].sum(), (stats, {}))
    >>> value, (_, metrics) = loss(gate, sum_of_weights)(trained, stats, (), jax.random.key(1))
    >>> float(value), float(metrics["penalty"])
    (4.5, 0.5)
    """
    objective = gate.objective(gaussian.local_loss(of_weights), outputs)

    def of_gate(
        params: PyTree, stats: GatedStats, batch: Split, key: Key
    ) -> tuple[jax.Array, tuple[GatedStats, dict[str, jax.Array]]]:
        gate_key, net_key = jax.random.split(key)
        g, weights = parts(gate, params, stats)
        effective, penalty = gate.apply(gate_key, stats.step, g, weights, stats.strength)
        value, (net, metrics) = objective(effective, weights, stats.net, batch, net_key)
        value = value + penalty
        metrics = metrics | {"loss": value, "penalty": penalty}
        return value, (stats._replace(net=net, step=stats.step + 1), metrics)

    return of_gate


def model(gate: Gate, of_weights: Model) -> Model:
    """The net as functions of what trains: hardened in evaluation, `gate.apply` in training mode.

    Args:
      gate: the gate.
      of_weights: the net as functions of its weights.

    >>> from jaxtickets.gates import bernoulli
    >>> linear = Model(
    ...     lambda key: ({"w": jnp.array([3.0, 4.0])}, ()),
    ...     lambda params, stats, images: (images * params["w"], stats),
    ... )
    >>> gated = model(bernoulli.gate(("w",), keep=1), linear)  # of equal scores, the first stays
    >>> trained, stats = gated.init(jax.random.key(0))
    >>> gated.apply(trained, stats, jnp.array([10.0, 10.0]))[0].tolist()
    [30.0, 0.0]
    """

    net = gaussian.local(of_weights)

    def init(key: Key) -> tuple[PyTree, GatedStats]:
        gate_key, net_key = jax.random.split(key)
        weights, stats = of_weights.init(net_key)
        return start(gate, gate_key, weights, stats)

    def apply(
        trained: PyTree, stats: GatedStats, images: Array, key: Any = None, train: bool = False
    ) -> tuple[jax.Array, GatedStats]:
        if not train:
            effective = hardened(gate, trained, stats)
            return of_weights.apply(effective, stats.net, images)[0], stats
        gate_key, net_key = jax.random.split(key)
        g, weights = parts(gate, trained, stats)
        effective, _ = gate.apply(gate_key, stats.step, g, weights, stats.strength)
        logits, after = net.apply(effective, stats.net, images, net_key, True)
        return logits, stats._replace(net=after, step=stats.step + 1)

    return Model(init, apply)


def optimizer(
    gate: Gate,
    weights_optimizer: optax.GradientTransformation,
    gate_optimizer: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """The optimiser of what trains, with what the gate itself needs, such as the clamp of L0 gates.

    Args:
      gate: the gate.
      weights_optimizer: any optax optimiser; that of g where the weights don't train.
      gate_optimizer: that of g where the weights train too, such as one with another rate and no
        weight decay; None for that of the weights.

    >>> gate = Gate(init=None, apply=None, harden=None, trains_weights=True)
    >>> one = Joint(weights=np.float32(1), gate=np.float32(1))
    >>> both = optimizer(gate, optax.sgd(0.125), optax.sgd(1.25))
    >>> updates, _ = both.update(one, both.init(one))
    >>> float(updates.weights), float(updates.gate)
    (-0.125, -1.25)
    """
    if gate_optimizer is None or not gate.trains_weights:
        return gate.optimizer(weights_optimizer)
    each = {"weights": weights_optimizer, "gate": gate_optimizer}
    return gate.optimizer(optax.partition(each, Joint("weights", "gate")))


Optimizer = Callable[[PyTree], optax.GradientTransformation]


def recipe(gate: Gate, of_weights: Recipe, gate_optimizer: Optimizer | None = None) -> Recipe:
    """The recipe that trains a gate, and its weights if they train, and evaluates the hard mask.

    It is `of_weights` with `model`, `loss` and `optimizer` of the gate.

    Args:
      gate: the gate.
      of_weights: the recipe of the net's weights.
      gate_optimizer: `gate_optimizer(hyper) -> optax optimiser` of g, see `optimizer`.

    >>> gate = Gate(init=None, apply=None, harden=None, trains_weights=True)
    >>> of_weights = Recipe(Model(None, None), None, optax.sgd, None, None, batch_size=1, every=1)
    >>> faster = recipe(gate, of_weights, gate_optimizer=lambda rate: optax.sgd(10 * rate))
    >>> one, both = Joint(weights=np.float32(1), gate=np.float32(1)), faster.optimizer(0.125)
    >>> updates, _ = both.update(one, both.init(one))
    >>> float(updates.weights), float(updates.gate)
    (-0.125, -1.25)
    """
    net = of_weights.model
    outputs = losses.outputs(of_weights.task, net, of_weights.prepare)

    def optimizer_of(hyper: PyTree) -> optax.GradientTransformation:
        of_gate = None if gate_optimizer is None else gate_optimizer(hyper)
        return optimizer(gate, of_weights.optimizer(hyper), of_gate)

    return of_weights._replace(
        model=model(gate, net),
        loss=loss(gate, of_weights.loss, outputs),
        optimizer=optimizer_of,
    )


def straight_through(mask: Mask, soft: Scores, params: Params, prunable: Prunable) -> Params:
    """`where(mask, params, 0)` on the leaves `prunable`, with the gradient of `soft · params`.

    The gradient treats the hard mask as if it were the soft one (Bengio et al., "Estimating or
    propagating gradients through stochastic neurons", 2013). With result W and weights w, `dL/dsoft
    = w · dL/dW`, for pruned weights too, and `dL/dw = where(mask, dL/dW, 0)`. Other leaves do not
    change.

    Raises:
      ValueError: a mask is not like the parameters.

    >>> mask, params = {"w": np.array([True, False])}, {"w": np.array([3.0, 4.0])}
    >>> used = lambda soft: straight_through(mask, soft, params, ("w",))["w"]
    >>> soft = {"w": np.array([0.9, 0.1])}
    >>> used(soft).tolist(), jax.grad(lambda soft: used(soft).sum())(soft)["w"].tolist()
    ([3.0, 0.0], [3.0, 4.0])
    """
    masks.check_mask(mask, params)
    masks.check_like(soft, params, "the soft mask", "the parameters")
    trees = (masks.pick(tree, prunable) for tree in (mask, soft, params))
    return masks.put(params, prunable, [_through(*leaf) for leaf in zip(*trees, strict=True)])


@jax.custom_jvp
def _through(mask: Array, soft: Array, weights: Array) -> jax.Array:
    del soft
    return jnp.where(mask, weights, jnp.zeros_like(weights))


@_through.defjvp
def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[jax.Array, jax.Array]:
    mask, soft, weights = primals
    _, along_soft, along_weights = tangents
    kept = jnp.where(mask, along_weights, jnp.zeros_like(along_weights))
    tangent = kept + weights * along_soft  # scores may have more precision
    return _through(mask, soft, weights), tangent.astype(weights.dtype)
