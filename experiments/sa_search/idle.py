"""Which settings of a search over masks have no effect, and beside which others."""

from experiments.harness.annealed_settings import UNMEASURED
from experiments.harness.settings import Choice, Except, Idle
from jaxtickets.recipes.search_domain import POTENTIALS
from jaxtickets.search.space import PATTERN

INFORMED = ("informed", "informed_corrected")
"""Proposals that look at the temperature, whatever the rule of acceptance does."""
COLD: Choice = {"accept": ("greedy", "always"), "proposal": Except(INFORMED)}
"""What has no use for a temperature."""
TOOTHLESS: Choice = {"sizes": Except(("sawtooth",))}
"""What has no use for levels but that the temperature falls with them."""
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
    "size_end": ({"sizes": Except(("geometric",))}, {"proposal": ("anew",)}),
    "target": ({"sizes": Except(("adaptive",))},),
    "images": ({"energy": ("orthogonality",)},),
    "measure": ({"energy": UNMEASURED},),
    "evaluation": (
        {"granularity": Except(("weights",))},
        {"energy": Except(("fixed",))},
        {"proposal": Except(("swaps",))},
        {"scope": (PATTERN,)},
    ),
    "train_steps": ({"energy": Except(("trainability",))},),
    "running_start": ({"accept": Except(("running_mean",))},),
    "temperature": (COLD,),
    "temperature_ratio": (COLD, {"temperatures": ("constant", "levels")}),
    "temperatures": (COLD,),
    "cooling": (COLD, {"temperatures": Except(("levels",))}),
    "level_first": (COLD | TOOTHLESS, {"temperatures": Except(("levels",))} | TOOTHLESS),
    "level_growth": (COLD | TOOTHLESS, {"temperatures": Except(("levels",))} | TOOTHLESS),
    "level_most": (COLD | TOOTHLESS, {"temperatures": Except(("levels",))} | TOOTHLESS),
    "reheat": (COLD | TOOTHLESS, {"temperatures": ("constant",)} | TOOTHLESS),
    "burn_in": (COLD, {"temperature": Except((0,))}),
    "burn_in_accept": (COLD, {"temperature": Except((0,))}),
    "tries": ({"tabu": (0,)},),
    "ladder": ({"interaction": Except(("exchange",))},),
    "replaced": ({"interaction": Except(("crossover", "restart"))},),
}
"""All other settings always have an effect, be it that some of their values are refused."""
