"""The settings of a search over masks that have no effect beside certain others."""

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
    """The names of the parts whose factories take the setting `name`."""
    return tuple(part for part, make in makers.items() if name in takes(make))


ENERGY_MAKERS = {name: energy.make for name, energy in ENERGIES.items()}
PROPOSAL_MAKERS = {name: proposal.make for name, proposal in PROPOSALS.items()}
INFORMED = takers(PROPOSAL_MAKERS, "candidates")
"""The proposals that use the temperature, even if the rule of acceptance does not."""
COLD: Choice = {"accept": ("greedy", "always"), "proposal": Except(INFORMED)}
"""The settings under which nothing uses the temperature."""
SIZE_MAKERS = {name: sizes.make for name, sizes in SIZES.items()}
NO_SIZE_LEVELS: Choice = {"sizes": Except(takers(SIZE_MAKERS, "levels"))}
"""The settings under which only the temperature can use levels."""
NO_TEMPERATURE_LEVELS = Except(takers(TEMPERATURES, "levels"))
"""The temperature schedules without levels."""
BITS: Choice = {"granularity": Except(POTENTIALS)}
"""The settings under which points are bits, not potentials."""

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
    "cooling": (COLD, {"temperatures": NO_TEMPERATURE_LEVELS}),
    "level_first": (
        COLD | NO_SIZE_LEVELS,
        {"temperatures": NO_TEMPERATURE_LEVELS} | NO_SIZE_LEVELS,
    ),
    "level_growth": (
        COLD | NO_SIZE_LEVELS,
        {"temperatures": NO_TEMPERATURE_LEVELS} | NO_SIZE_LEVELS,
    ),
    "level_most": (COLD | NO_SIZE_LEVELS, {"temperatures": NO_TEMPERATURE_LEVELS} | NO_SIZE_LEVELS),
    "reheat": (COLD | NO_SIZE_LEVELS, {"temperatures": ("constant",)} | NO_SIZE_LEVELS),
    "burn_in": (COLD, {"temperature": Except((0,))}),
    "burn_in_accept": (COLD, {"temperature": Except((0,))}),
    "tries": ({"tabu": (0,)},),
    "ladder": ({"interaction": Except(takers(INTERACTIONS, "ladder"))},),
    "replaced": ({"interaction": Except(takers(INTERACTIONS, "replaced"))},),
}
"""Setting -> the choices of other settings under which it has no effect.

Settings that are not listed always have an effect.
"""
