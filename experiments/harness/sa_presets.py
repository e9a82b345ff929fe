"""Settings of walks: of rewired masks, of plain annealing, of the annealing thesis (2020).

Rewired masks are `rewired` of `harness.search_presets`. The thesis' net for MNIST is `lenet300_100`
without biases, its bits weights; that for CIFAR-10 is `cnn960`, its bits filters. Deviations from
it: validation images are cut from the training data, and its memory of masks compares them exactly
(it turned down masks nearer than the swap size, which differ from exact matches only where swaps
are single).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.harness import annealed_settings
from experiments.harness.search_presets import FINDERS
from experiments.harness.sparse_runs import GRANET
from jaxtickets.io.errors import UserError, choose

WALK = "walk"
SEARCHES = GRANET, WALK
"""Ways to a ticket: a mask evolves in one sparse training, or a chain walks from mask to mask."""
REWIRED: dict[str, Any] = FINDERS["rewired"] | {"steps": 40, "chunk": 10, "train_steps": 20}
"""Of the walk alone: what its flags are by default."""
LENGTHS = ("steps", "chunk", "train_steps", "size", "size_end", "images")
"""Flags that say how long or how far rewired masks are searched, and not how."""
WALKS: dict[str, Any] = {"search": WALK, "chains": 2, "density": (0.5,)}
ANNEALING: dict[str, Any] = (
    WALKS | {"chains": 4} | {name: getattr(annealed_settings.Settings(), name) for name in REWIRED}
)
"""Random swaps by Metropolis' rule at a falling temperature, of an untrained net's loss."""
SMOKE: dict[str, Any] = ANNEALING | {
    "model": "lenet300_100",
    "seeds": 1,
    "chains": 2,
    "steps": 20,
    "chunk": 10,
    "images": 50,
    "burn_in": 5,
    "epochs": 2,
    "batch_size": 250,
}
THESIS: dict[str, Any] = ANNEALING | {
    "chains": 1,
    "scope": "global",
    "allocation": "global",
    "rescale": False,
    "floor": 0,
    "measure": "error_rate",
    "accept": "running_mean",
    "running_start": 0.95,
    "sizes": "sawtooth",
    "size": 0,
    "temperatures": "levels",
    "initializer": "kaiming_normal",
    "compare": (
        "ticket", "ticket_last", "snip", "magnitude", "random", "random_layerwise", "dense"
    ),
}  # fmt: skip
THESIS_NETS: dict[str, dict[str, Any]] = {
    "lenet300_100": {
        "dataset": "mnist",
        "use_bias": False,
        "density": (0.2,),
        "steps": 42_700,
        "chunk": 427,
        "images": 2000,
        "temperature": 0.006,
        "cooling": 0.999,
        "level_first": 1.0,
        "level_growth": 1.005,
        "level_most": 50.0,
        "tabu": 50,
        "tries": 50,
        "optimizer": "adadelta",
        "learning_rate": 1.0,
        "learning_rates": "constant",
        "batch_size": 64,
        "epochs": 50,
    },
    "cnn960": {
        "dataset": "cifar10",
        "granularity": "units",
        "density": (0.5,),
        "steps": 8200,
        "chunk": 82,
        "images": 1024,
        "temperature": 0.005,
        "cooling": 0.995,
        "level_first": 2.0,
        "level_growth": 1.005,
        "level_most": 10.0,
        "tabu": 60,
        "tries": 30,
        "optimizer": "momentum",
        "learning_rate": 0.1,
        "learning_rates": "steps",
        "drops": "0.3333,0.6667",
        "weight_decay": 1e-4,
        "batch_size": 256,
        "epochs": 90,
    },
}


def thesis_search(model: str) -> dict[str, Any]:
    """The thesis' settings of the annealing alone, for `annealed_settings.Settings`."""
    known = {field.name for field in dataclasses.fields(annealed_settings.Settings)}
    return {k: v for k, v in (THESIS | THESIS_NETS[model]).items() if k in known}


def preset(name: str, model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Flag -> value of a preset; of a walk where flags say how to walk without one.

    Args:
      name: the preset, or empty.
      model: the net.
      given: the flags that are set, and their values.

    Raises:
      UserError: there is no such preset, or none for the model, or the flags of a walk are set for
        masks that evolve, or theirs for a walk.
    """
    fixed = {"": {}, "rewired": WALKS, "annealing": ANNEALING, "smoke": SMOKE}
    choose("preset", name, (*fixed, "thesis"))
    known = {field.name for field in dataclasses.fields(annealed_settings.Settings)}
    of_walks = sorted(set(given) & known - {"floor"})
    if given.get("search") == GRANET and (name not in ("", "smoke") or of_walks):
        which = f"--{of_walks[0]}" if of_walks else f"--preset={name}"
        raise UserError(f"{which}: is of --search=walk, and not of --search=granet")
    walks = name not in ("", "smoke") or given.get("search") == WALK or of_walks
    of_granet = sorted(set(given) & {"budget", "granet_from", "regrown"})
    if of_granet and (walks or (name == "smoke" and given.get("search") != GRANET)):
        raise UserError(f"--{of_granet[0]}: is of --search=granet, and not of a walk")
    if not name and (of_walks or given.get("search") == WALK):
        plain = set(of_walks) - set(LENGTHS) and given.get("proposal") != REWIRED["proposal"]
        name = "annealing" if plain else "rewired"
    if name in fixed:
        return fixed[name]
    if model not in THESIS_NETS:
        raise UserError(f"--preset=thesis is for {' and '.join(THESIS_NETS)}, not {model}")
    return THESIS | THESIS_NETS[model]
