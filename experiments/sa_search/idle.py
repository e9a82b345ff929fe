"""Which settings of a search over masks have no effect, and beside which others."""

from collections.abc import Callable, Mapping
from typing import Any

from experiments.harness.annealed_settings import DIFFERENCE
from experiments.harness.named_parts import takes
from experiments.harness.settings import Choice, Except, Idle
from jaxtickets.recipes.search_domain import POTENTIALS
from jaxtickets.recipes.search_energies import ENERGIES
from jaxtickets.recipes.search_proposals import PROPOSALS
from jaxtickets.recipes.search_schedules import SIZES, TEMPERATURES
from jaxtickets.search.interacting_chains import INTERACTIONS
from jaxtickets.search.space import PATTERN


def takers(makers: Mapping[str, Callable[..., Any] | None], name: str) -> tuple[str, ...]:
    """Which of the parts are made from the named setting."""
    return tuple(part for part, make in makers.items() if name in takes(make))


ENERGY_MAKERS = {name: energy.make for name, energy in ENERGIES.items()}
PROPOSAL_MAKERS = {name: proposal.make for name, proposal in PROPOSALS.items()}
INFORMED = takers(PROPOSAL_MAKERS, "candidates")
"""Proposals that look at the temperature, whatever the rule of acceptance does."""
COLD: Choice = {"accept": ("greedy", "always"), "proposal": Except(INFORMED)}
"""What has no use for a temperature."""
SIZE_MAKERS = {name: sizes.make for name, sizes in SIZES.items()}
TOOTHLESS: Choice = {"sizes": Except(takers(SIZE_MAKERS, "levels"))}
"""What has no use for levels but that the temperature falls with them."""
LEVELLESS = Except(takers(TEMPERATURES, "levels"))
"""Temperatures that have no levels."""
BITS: Choice = {"granularity": Except(POTENTIALS)}
"""Where points are bits, and not potentials."""

IDLE: Idle = {
    "scope": ({"granularity": POTENTIALS},),
    "group": ({"scope": Except((PATTERN,))},),
    "features": (BITS,),
    "mix": (BITS,),
    "pooled": (BITS,),
    "sides": ({"granularity": Except(("fields",))},),
    "candidates": ({"proposal": Except(INFORMED)},),
    "size": ({"proposal": ("anew",)},),
    "sizes": ({"proposal": ("anew",)},),
    "size_end": ({"sizes": Except(takers(SIZE_MAKERS, "last"))}, {"proposal": ("anew",)}),
    "target": ({"sizes": tuple(n for n, sizes in SIZES.items() if not sizes.adapts)},),
    "images": ({"energy": tuple(n for n, energy in ENERGIES.items() if not energy.sees_images)},),
    "measure": ({"energy": Except(takers(ENERGY_MAKERS, "measure"))},),
    "evaluation": tuple({other: Except(values)} for other, values in DIFFERENCE.items()),
    "train_steps": ({"energy": Except(takers(ENERGY_MAKERS, "train_steps"))},),
    "running_start": ({"accept": Except(("running_mean",))},),
    "temperature": (COLD,),
    "temperature_ratio": (COLD, {"temperatures": ("constant", "levels")}),
    "temperatures": (COLD,),
    "cooling": (COLD, {"temperatures": LEVELLESS}),
    "level_first": (COLD | TOOTHLESS, {"temperatures": LEVELLESS} | TOOTHLESS),
    "level_growth": (COLD | TOOTHLESS, {"temperatures": LEVELLESS} | TOOTHLESS),
    "level_most": (COLD | TOOTHLESS, {"temperatures": LEVELLESS} | TOOTHLESS),
    "reheat": (COLD | TOOTHLESS, {"temperatures": ("constant",)} | TOOTHLESS),
    "burn_in": (COLD, {"temperature": Except((0,))}),
    "burn_in_accept": (COLD, {"temperature": Except((0,))}),
    "tries": ({"tabu": (0,)},),
    "ladder": ({"interaction": Except(takers(INTERACTIONS, "ladder"))},),
    "replaced": ({"interaction": Except(takers(INTERACTIONS, "replaced"))},),
}
"""All other settings always have an effect, be it that some of their values are refused."""
