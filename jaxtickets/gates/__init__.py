"""Gates: mask or weights as a function of trained parameters. One file for each gate.

`gates.recipe` trains a gate with `training`. A net, a loss and an optax loop of one's own need no
recipe: `start`, `loss` and `optimizer` have all that a gate asks for. Here L0 gates train with the
weights of a Flax net, whose label is the sign of the first of three inputs.

>>> from flax import linen as nn
>>> from jaxtickets import gates, masks, nets
>>> class Net(nn.Module):
...     @nn.compact
...     def __call__(self, x):
...         return nn.Dense(2)(nn.tanh(nn.Dense(8)(x)))
>>> model = nets.functional(Net(), (3,))
>>> params, stats = model.init(jax.random.key(0))
>>> points = jax.random.normal(jax.random.key(1), (200, 3))
>>> labels = (points[:, 0] > 0).astype(int)
>>> def loss(params, stats, batch, key):
...     logits, stats = model.apply(params, stats, batch[0], key, True)
...     nats = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch[1])
...     return nats.mean(), (stats, {})

>>> kernels = masks.prunable(params)
>>> setting = gates.Setting(steps=300, examples=200)
>>> gate = gates.l0.gate(kernels, keep=None, floor=0, setting=setting)
>>> of_gate = jax.value_and_grad(gates.loss(gate, loss), has_aux=True)
>>> optimizer = gates.optimizer(gate, optax.adam(0.01), optax.adam(0.1))
>>> @jax.jit
... def step(key, trained, gated_stats, state):
...     batch = points, labels
...     (value, (gated_stats, _)), gradient = of_gate(trained, gated_stats, batch, key)
...     updates, state = optimizer.update(gradient, state, trained)
...     return optax.apply_updates(trained, updates), gated_stats, state
>>> trained, gated_stats = gates.start(gate, jax.random.key(2), params, stats, strength=0.3)
>>> state = optimizer.init(trained)
>>> for key in jax.random.split(jax.random.key(3), setting.steps):
...     trained, gated_stats, state = step(key, trained, gated_stats, state)

The ticket, in evaluation:

>>> mask, weights = gates.ticket(gate, trained, gated_stats)
>>> logits, _ = model.apply(masks.apply(mask, weights), gated_stats.net, points)
>>> bool(masks.density(mask, kernels) < 0.7), bool((logits.argmax(1) == labels).mean() > 0.95)
(True, True)
"""

from jaxtickets.gates import (
    bayes_by_backprop,
    bernoulli,
    concrete,
    continuous_sparsification,
    edge_popup,
    gradual,
    l0,
    l0_groups,
    moped,
    normal_jeffreys,
    soft_weight_sharing,
    targeted_dropout,
    variational_dropout,
)
from jaxtickets.gates.base import (
    Constructor,
    Gate,
    GatedStats,
    Joint,
    JointConstructor,
    Scale,
    Setting,
    hardened,
    loss,
    model,
    optimizer,
    parts,
    recipe,
    start,
    straight_through,
    ticket,
    unscaled,
)

GATES: dict[str, Constructor] = {
    "edge_popup": edge_popup.gate,
    "gradual_edge_popup": gradual.gate,
    "bernoulli": bernoulli.gate,
    "concrete": concrete.gate,
}
"""Gates over weights that stay fixed."""
JOINT_GATES: dict[str, JointConstructor] = {
    "continuous_sparsification": continuous_sparsification.gate,
    "soft_weight_sharing": soft_weight_sharing.gate,
    "targeted_dropout": targeted_dropout.gate,
    "targeted_unit_dropout": targeted_dropout.unit_gate,
    "bayes_by_backprop": bayes_by_backprop.gate,
    "moped": moped.gate,
    "l0": l0.gate,
    "l0_groups": l0_groups.gate,
    "variational_dropout": variational_dropout.gate,
    "normal_jeffreys": normal_jeffreys.gate,
}
"""Gates whose weights train with them."""

__all__ = [
    "GATES",
    "JOINT_GATES",
    "Constructor",
    "Gate",
    "GatedStats",
    "Joint",
    "JointConstructor",
    "Scale",
    "Setting",
    "hardened",
    "loss",
    "model",
    "optimizer",
    "parts",
    "recipe",
    "start",
    "straight_through",
    "ticket",
    "unscaled",
]
