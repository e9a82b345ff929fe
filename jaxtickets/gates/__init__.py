"""Gates: mask or weights as a function of trained parameters. One file for each gate."""

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
