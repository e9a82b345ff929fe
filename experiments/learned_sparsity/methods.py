"""The methods of the comparison, and the facts about each that its training needs."""

from collections.abc import Callable
from typing import NamedTuple

from experiments.learned_sparsity import penalty_gates
from jaxtickets.dynamic import methods as dynamic
from jaxtickets.gates import JOINT_GATES, Gate, soft_weight_sharing
from jaxtickets.gates.base import Optimizer

DENSE = "dense"
"""The net that every method is compared with; it is always trained."""


class Facts(NamedTuple):
    """What the comparison must know of a method that finds its density while it trains.

    Attributes:
      strengths: the strengths that are tried unless others are asked for, in the gate's own unit.
      published: those of the paper, whose trainings are long.
      usual: whether the method is trained unless others are asked for: on any net, and in some
        hundred steps.
      warm: whether training starts from trained dense nets.
      rate, gate_rate: the learning rates of the weights and of the gate's parameters, in
        `--learning_rate`.
      gate_optimizer: the optimiser of the gate's parameters, see `gates.recipe`, if it is one of
        their own, which has its own rates; else None.
      gradient_steps: whether the gate's parameters take plain gradient steps, at the weights' rate
        and on its schedule.
      has_threshold: whether the method says by itself what is removed; if not, it is hardened at
        the densities of controls.
      spares_output: whether the output layer has no gate, since whole units of it would go.
      by_units: whether it removes whole units, so that the net can be cut.
    """

    strengths: tuple[float, ...]
    published: tuple[float, ...]
    usual: bool = True
    warm: bool = False
    rate: float = 1.0
    gate_rate: float = 1.0
    gate_optimizer: Optimizer | None = None
    gradient_steps: bool = False
    has_threshold: bool = True
    spares_output: bool = False
    by_units: bool = False


class Learned(NamedTuple):
    """A method that finds a density while it trains: how low it is follows from its strength.

    Attributes:
      make: the gate. It takes by name, of these: `prunable`, `keep` (None for the method's own
        threshold), `floor`, `setting`, `graph` (of channels), `output` (the output layer),
        `shapes` (of the parameters) and `inputs` (dense kernels that read the images).
      facts: see `Facts`.
    """

    make: Callable[..., Gate]
    facts: Facts


class Control(NamedTuple):
    """A method that is told a density.

    Attributes:
      dynamic: how the mask moves while the net trains.
      warm: whether training starts from trained dense nets, whose largest weights the first mask
        keeps; else that is random with ERK's counts, or dense, as `dynamic` says.
      iterative: whether the densities are levels, each pruned from the trained ticket before and
        rewound, see `iterative`.
    """

    dynamic: dynamic.Method
    warm: bool = False
    iterative: bool = False


FACTS: dict[str, Facts] = {
    "continuous_sparsification": Facts((1e-6, 1e-5, 3e-5, 1e-4), (1e-5,)),
    "l0": Facts((0.1, 0.3, 1.0, 2.0), (1.0,), gate_rate=20.0),
    "l0_groups": Facts((0.01, 0.03, 0.1, 0.2), (0.1,), gate_rate=20.0, by_units=True),
    "variational_dropout": Facts((0.03, 0.1, 0.3, 1.0), (1.0,), gate_rate=20.0),
    "normal_jeffreys": Facts((0.003, 0.01, 0.03, 0.1), (1.0,), gate_rate=20.0, by_units=True),
    "targeted_dropout": Facts((0.5, 0.8, 0.9), (0.95, 0.98)),
    "targeted_unit_dropout": Facts((0.5, 0.8, 0.9), (0.75,), spares_output=True, by_units=True),
    "soft_weight_sharing": Facts(
        (1e-3, 3e-3, 1e-2),
        (3e-3,),
        usual=False,
        warm=True,
        rate=0.5,
        gate_optimizer=soft_weight_sharing.gate_optimizer(),
    ),
    "bayes_by_backprop": Facts((1.0,), (1.0,), gate_rate=10.0, has_threshold=False),
    "moped": Facts((1.0,), (1.0,), warm=True, has_threshold=False),
}
"""Gate of `gates.JOINT_GATES` -> its facts. Rates are those of trainings of some hundred steps. For
these nets no strength of continuous sparsification, targeted units, group lasso and Hoyer-square is
published: theirs are our own."""
UNITS = Facts((1e-4, 3e-4, 1e-3, 2e-3), (1e-4,), by_units=True)
PENALTIES = {
    "group_lasso": Learned(penalty_gates.group_lasso, UNITS),
    "group_lasso_proximal": Learned(
        penalty_gates.group_lasso_proximal,
        UNITS._replace(
            strengths=(0.2, 0.25, 0.3, 0.4),
            published=(0.3,),
            usual=False,
            gradient_steps=True,
        ),
    ),
    "hoyer_square": Learned(
        penalty_gates.hoyer_square, Facts((1e-6, 1e-5, 1e-4, 1e-3), (1e-4,), usual=False)
    ),
    "scales": Learned(
        penalty_gates.scales,
        UNITS._replace(strengths=(1e-3, 1e-2, 1e-1), published=(1e-2,), usual=False),
    ),
}
LEARNED: dict[str, Learned] = {
    **{name: Learned(make, FACTS[name]) for name, make in JOINT_GATES.items()},
    **PENALTIES,
}
CONTROLS: dict[str, Control] = {
    "gradual": Control(dynamic.METHODS["gradual"]),
    "granet": Control(dynamic.METHODS["granet"]),
    "magnitude": Control(dynamic.METHODS["static"], warm=True),
    "imp": Control(dynamic.METHODS["static"], warm=True, iterative=True),
    "random": Control(dynamic.METHODS["static"]),
}
NAMES = (*LEARNED, *CONTROLS)
USUAL = (*(name for name, one in LEARNED.items() if one.facts.usual), *CONTROLS)
"""The methods that are trained unless others are asked for."""
