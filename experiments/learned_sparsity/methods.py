"""The methods of the comparison, and the facts about each that its training needs."""

from collections.abc import Callable
from typing import NamedTuple

from experiments.learned_sparsity import penalty_gates
from jaxtickets.dynamic import methods as dynamic
from jaxtickets.gates import JOINT_GATES, Gate

DENSE = "dense"
"""The net that every method is compared with; it is always trained."""


class Learned(NamedTuple):
    """A method that finds a density by itself: how much it prunes follows from its strength.

    Attributes:
      make: the gate. It takes by name, of these: `prunable`, `keep` (None for the method's own
        threshold), `floor`, `setting`, `graph` (of channels), `output` (the output layer) and
        `shapes` (of the parameters).
      strengths: the strengths that are tried unless others are asked for, in the gate's own unit.
      warm: whether training starts from trained dense nets.
      rate, gate_rate: the learning rates of the weights and of the gate's parameters, in
        `--learning_rate`.
      has_threshold: whether the method says by itself what is removed; if not, it is hardened at
        the densities of controls.
      by_units: whether it removes whole units, so that the net can be cut.
      products: the multiply-adds of a training step, in those of the plain net.
    """

    make: Callable[..., Gate]
    strengths: tuple[float, ...]
    warm: bool = False
    rate: float = 1.0
    gate_rate: float = 1.0
    has_threshold: bool = True
    by_units: bool = False
    products: float = 1.0


class Control(NamedTuple):
    """A method that is told a density.

    Attributes:
      dynamic: how the mask moves while the net trains.
      warm: whether training starts from trained dense nets, whose largest weights the first mask
        keeps; else that is random with ERK's counts, or dense, as `dynamic` says.
    """

    dynamic: dynamic.Method
    warm: bool = False


FACTS: dict[str, Learned] = {
    "continuous_sparsification": Learned(
        JOINT_GATES["continuous_sparsification"], (1e-7, 1e-6, 1e-5, 1e-4)
    ),
}
"""Gate of `jaxtickets.gates.JOINT_GATES` -> its facts."""
PENALTIES: dict[str, Learned] = {
    "group_lasso": Learned(penalty_gates.group_lasso, (1e-5, 1e-4, 1e-3), by_units=True),
    "scales": Learned(penalty_gates.scales, (1e-3, 1e-2, 1e-1), by_units=True),
}
LEARNED: dict[str, Learned] = FACTS | PENALTIES
CONTROLS: dict[str, Control] = {
    "gradual": Control(dynamic.METHODS["gradual"]),
    "granet": Control(dynamic.METHODS["granet"]),
    "magnitude": Control(dynamic.METHODS["static"], warm=True),
    "random": Control(dynamic.METHODS["static"]),
}
NAMES = (*LEARNED, *CONTROLS)
