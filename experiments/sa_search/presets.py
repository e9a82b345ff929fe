"""The presets of this experiment, and the flags that are refused beside others."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from experiments.harness import searched_tickets, training_settings
from experiments.harness.annealed_settings import AnnealingSettings
from experiments.harness.annealed_variants import ANNEALED
from experiments.harness.search_presets import SEARCH_PRESETS
from experiments.harness.settings import Except, Idle, Without, choose
from experiments.harness.sparse_runs import GRANET
from experiments.harness.thesis_annealing import THESIS, THESIS_NETS
from experiments.sa_search import idle
from experiments.sa_search.rivals import RIVALS
from jaxtickets.io.errors import UserError
from jaxtickets.recipes.baseline_masks import BASELINES
from jaxtickets.search.space import PATTERN

METHODS = (*searched_tickets.METHODS, *RIVALS)
"""The names of the masks that can be trained and compared."""
DEFAULT = "annealed_training"
MASKS = "masks"
"""The search that walks over masks of weights which don't train; the others are of `ANNEALED`."""
SEARCHES = (MASKS, *ANNEALED)
ANNEALED_TRAINING: dict[str, Any] = {
    "search": "granet_heat",
    "granet_budget": 4.0,
    "compare": ("ticket", *BASELINES, GRANET),
}
"""Sampled drops and growth while the weights train: GraNet with heat that falls."""
REWIRED: dict[str, Any] = {
    **SEARCH_PRESETS["rewired"],
    "density": (0.5,),
    "chains": 2,
    "steps": 40,
    "chunk": 10,
}
"""Swaps by the gradient after a short training, all of them accepted."""
ANNEALED_REWIRING: dict[str, Any] = {
    **SEARCH_PRESETS["rewired"],
    "compare": ("ticket", *BASELINES, GRANET),
    "start": "initial_fisher",
    "accept": "metropolis",
    "temperature": 0.03,
    "temperature_ratio": 0.1,
    "size": 0.5,
    "size_end": 0.05,
    "steps": 10,
    "chunk": 2,
    "train_steps": 40,
    "images": 500,
}
"""The same swaps, accepted by Metropolis' rule at a falling temperature."""
ANNEALING: dict[str, Any] = {"density": (0.5,), "chains": 4}
"""Random swaps, accepted by Metropolis' rule; the energy is the untrained net's loss."""
SMOKE: dict[str, Any] = {
    **ANNEALED_REWIRING,
    "model": "lenet300_100",
    "widths": "30,20",
    "density": (0.5,),
    "seeds": 1,
    "chains": 2,
    "steps": 20,
    "chunk": 10,
    "train_steps": 2,
    "images": 50,
    "epochs": 2,
    "batch_size": 250,
}
PRESETS: dict[str, dict[str, Any]] = {
    DEFAULT: ANNEALED_TRAINING,
    "annealed_rewiring": ANNEALED_REWIRING,
    "rewired": REWIRED,
    "annealing": ANNEALING,
    "smoke": SMOKE,
}
"""Name -> the values that differ from the settings' defaults, which are plain annealing."""
OF_WALKS = {f.name for f in dataclasses.fields(AnnealingSettings)} - {"floor"} | {"chains"}
"""The settings that only a walk over masks has."""
NAMES = (*PRESETS, "thesis")
IDLE: Idle = {
    **training_settings.IDLE,
    **{name: ({"search": tuple(ANNEALED)}, *idle.IDLE.get(name, ())) for name in OF_WALKS},
    "weights_steps": ({"weights": Except(("trained",))},),
    "granet_budget": ({"search": (MASKS,), "compare": Without(RIVALS)},),
}
"""Flag -> the choices of other flags under which it has no effect."""


def preset(name: str, model: str) -> dict[str, Any]:
    """The values of a preset, by flag.

    Args:
      name: the preset, one of `NAMES`.
      model: the net.

    Raises:
      UserError: there is no such preset, or none for the model.
    """
    if choose("preset", name, NAMES) in PRESETS:
        return PRESETS[name]
    if model not in THESIS_NETS:
        raise UserError(f"--preset=thesis is for {' and '.join(THESIS_NETS)}, not {model}")
    return THESIS | THESIS_NETS[model]


def check_compared(compare: Sequence[str], settings: AnnealingSettings) -> None:
    """Raises UserError if a method has no place beside the search."""
    if settings.interaction == "exchange" and "ticket_last" in compare:
        raise UserError(
            "--compare=ticket_last: with --interaction=exchange the last mask may be a hot chain's"
        )
    whole = settings.granularity in ("units", "unit_fields") or settings.scope == PATTERN
    for name in RIVALS:
        if whole and name in compare:
            raise UserError(f"--compare={name}: it prunes single weights, not units or patterns")
