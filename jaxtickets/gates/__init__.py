"""Gates: the mask as a function of trained parameters. One file for each gate."""

from jaxtickets.gates import bernoulli, edge_popup, gradual
from jaxtickets.gates.base import (
    Constructor,
    Gate,
    GatedStats,
    Scale,
    begin,
    hardened,
    loss,
    model,
    recipe,
    straight_through,
    unscaled,
)

GATES: dict[str, Constructor] = {
    "edge_popup": edge_popup.gate,
    "gradual_edge_popup": gradual.gate,
    "bernoulli": bernoulli.gate,
}

__all__ = [
    "GATES",
    "Constructor",
    "Gate",
    "GatedStats",
    "Scale",
    "begin",
    "hardened",
    "loss",
    "model",
    "recipe",
    "straight_through",
    "unscaled",
]
