"""The variants of annealed training, by name; `granet` is the one without heat."""

from typing import NamedTuple

from experiments.harness.sparse_runs import GRANET
from jaxtickets.dynamic import rules

ALWAYS = "always"
DROPS = {"magnitude": rules.magnitude, "taylor": rules.taylor}
"""Scores of kept weights, of which the least are dropped."""


class Variant(NamedTuple):
    """An annealing; the defaults are GraNet's.

    Attributes:
      drop_heat, grow_heat: see `dynamic.annealed_granet`.
      noise: the temperature of noise on the weights in training, see `dynamic.langevin`.
      drop: the score of what stays, a name of `DROPS`.
      accept: a rule of `acceptance.ACCEPTANCES`.
      temperature: the first temperature of the acceptance and of exchanges, in nats.
      chains: chains of a seed; they share the budget.
      interaction: a name of `trained_interactions.INTERACTIONS`.
      ladder: the hottest rung's heat, in that of the coldest, with `exchange`.
      replaced: the share of chains that is replaced, with `copies` and `crossover`.
      consensus: whether the mask is what most rounds of most chains keep, not that of a chain.
      rewound: whether each chain's last mask is judged by a short training from the first weights,
        not by the net that trained under it.
      cycles: trainings one after another, each from the first weights with its learning rate begun
        again. The counts after them fall by equal factors.
    """

    drop_heat: float = 0.0
    grow_heat: float = 0.0
    noise: float = 0.0
    drop: str = "magnitude"
    accept: str = ALWAYS
    temperature: float = 0.01
    chains: int = 1
    interaction: str = "none"
    ladder: float = 4.0
    replaced: float = 0.5
    consensus: bool = False
    rewound: bool = False
    cycles: int = 1


HOT = Variant(drop_heat=0.3, grow_heat=0.3)
VARIANTS: dict[str, Variant] = {
    GRANET: Variant(),
    "drop_heat": Variant(drop_heat=0.3),
    "grow_heat": Variant(grow_heat=0.5),
    "heat": HOT,
    "taylor": HOT._replace(drop="taylor"),
    "noise": Variant(noise=1e-7),
    "cycles": Variant(cycles=3),
    "hot_cycles": HOT._replace(cycles=3),
    "metropolis": HOT._replace(accept="metropolis"),
    "averaged": HOT._replace(consensus=True),
    "chains": HOT._replace(chains=4),
    "rewound_chains": HOT._replace(chains=4, rewound=True),
    "consensus": HOT._replace(chains=4, consensus=True),
    "exchange": HOT._replace(chains=4, interaction="exchange"),
    "population": HOT._replace(chains=4, interaction="population"),
    "copies": HOT._replace(chains=4, interaction="copies"),
    "crossover": HOT._replace(chains=4, interaction="crossover"),
}
ANNEALED = {f"{GRANET}_{name}": one for name, one in VARIANTS.items() if name != GRANET}
"""The variants with heat, by the names that they have among other searches."""
