"""Settings of the evolution of weight-agnostic nets; each field is also a flag of the same name."""

import dataclasses
from typing import Any

from experiments.harness.settings import MOST_EPOCHS, MOST_FACTOR, MOST_RUNS, MOST_SEED, option
from jaxtickets import data
from jaxtickets.search.graphs import evolution
from jaxtickets.search.graphs.evolution import Settings
from jaxtickets.search.graphs.mutations import Probabilities

MOST_INDIVIDUALS, MOST_GENERATIONS = 10**5, 10**6
MOST_NODES, MOST_CONNECTIONS = 10**4, 10**5
DEFAULTS = Settings()


@dataclasses.dataclass(frozen=True)
class ImageSettings:
    """The images that are classified."""

    dataset: str = option("mnist", "data set, of grey images", data.NAMES)
    side: int = option(
        16, "pixels of a side that images are made smaller to; 0: as they are", least=0, most=10**4
    )
    deskew: bool = option(
        True, "shear images until they stand upright, before they are made smaller"
    )


@dataclasses.dataclass(frozen=True)
class EvolutionSettings:
    """How graphs are evolved."""

    population: int = option(480, "graphs of a generation", least=2, most=MOST_INDIVIDUALS)
    generations: int = option(2000, "generations", least=1, most=MOST_GENERATIONS)
    images: int = option(
        250, "training images of a generation, others in each", least=1, most=10**9
    )
    share: float = option(
        0.05, "probability of each input-output connection at first", above=0, most=1
    )
    mutations: tuple[float, ...] = option(
        tuple(DEFAULTS.mutations),
        f"probabilities of {', '.join(Probabilities._fields)}",
        least=0,
        most=1,
        repeats=True,
    )
    cull: float = option(DEFAULTS.cull, "share without children", least=0, below=1)
    elite: float = option(DEFAULTS.elite, "share that stays as it is", least=0, below=1)
    tournament: int = option(16, "graphs of a tournament", least=1, most=MOST_INDIVIDUALS)
    simplicity: float = option(
        DEFAULTS.simplicity,
        "probability that connections count beside the mean reward; else it is the best reward",
        least=0,
        most=1,
    )
    hidden: int = option(256, "the most hidden nodes of a graph", least=1, most=MOST_NODES)
    connections: int = option(
        2048, "the most connections of a graph", least=1, most=MOST_CONNECTIONS
    )
    eval_every: int = option(
        10, "generations between two rows of metrics", least=1, most=MOST_GENERATIONS
    )
    seed: int = option(0, "first seed; a seed fixes the evolution", least=0, most=MOST_SEED)
    seeds: int = option(1, "number of seeds, one after another", least=1, most=MOST_RUNS)


@dataclasses.dataclass(frozen=True)
class ChampionSettings:
    """How the best graph is measured."""

    draws: int = option(100, "random shared weights, from -2 to 2", least=2, most=10**5)
    epochs: int = option(20, "epochs of training its weights", least=1, most=MOST_EPOCHS)
    batch_size: int = option(100, "images of a training step", least=1, most=10**6)
    learning_rate: float = option(0.01, "peak learning rate of Adam", above=0, most=MOST_FACTOR)


def evolution_settings(settings: EvolutionSettings) -> Settings:
    """The library's settings of a generation.

    Raises:
      ValueError: no generation could follow another.
    """
    if len(settings.mutations) != len(Probabilities._fields):
        raise ValueError(
            f"mutations: {len(settings.mutations)} probabilities are given, must be"
            f" {len(Probabilities._fields)}: {', '.join(Probabilities._fields)}"
        )
    made = Settings(
        mutations=Probabilities(*settings.mutations),
        cull=settings.cull,
        elite=settings.elite,
        tournament=settings.tournament,
        simplicity=settings.simplicity,
    )
    evolution.check(settings.population, made)
    return made


DEFAULT = "mnist"
PRESETS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "published": {"population": 960, "generations": 4096, "images": 1000, "tournament": 32},
    "digits": {
        "dataset": "digits",
        "side": 0,
        "deskew": False,
        "generations": 1000,
        "epochs": 100,
    },
    "smoke": {
        "dataset": "digits",
        "side": 0,
        "deskew": False,
        "population": 24,
        "generations": 12,
        "images": 100,
        "hidden": 24,
        "connections": 256,
        "eval_every": 4,
        "draws": 5,
        "epochs": 3,
        "width": 8,
    },
}
"""Preset -> settings."""
