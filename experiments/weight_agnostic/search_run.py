"""The evolution of one seed: generations in chunks, with metrics, checkpoints and resume."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness.chunked_run import run_in_chunks
from experiments.harness.progress import Progress
from experiments.weight_agnostic.images import Images
from experiments.weight_agnostic.settings import EvolutionSettings, evolution_settings
from jaxtickets import runs
from jaxtickets.data import batches
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream
from jaxtickets.runs import Axis, Blocks
from jaxtickets.search.graphs import evaluation, evolution, genome
from jaxtickets.search.graphs.evolution import SHARED_WEIGHTS
from jaxtickets.search.graphs.genome import Capacity, Genome, Sizes
from jaxtickets.types import Array

LEAST_ROOM = Capacity(hidden=32, connections=256)
"""Generations are computed with little padding, these times powers of two: a program for each."""


class SearchSession(NamedTuple):
    """What the parts of a run need.

    Attributes:
      folder: the run's folder.
      axis: how graphs are batched.
      checkpoint_seconds: seconds between two checkpoints.
      images: the data.
      sizes: of all graphs.
    """

    folder: Path
    axis: Axis
    checkpoint_seconds: float
    images: Images
    sizes: Sizes


def check(settings: EvolutionSettings, sizes: Sizes, images: int) -> None:
    """Refuses what can't be evolved, before work starts.

    Args:
      settings: of the evolution.
      sizes: of the graphs.
      images: how many there are for training.

    Raises:
      UserError: the message names the flag.
    """
    if settings.images > images:
        raise UserError(f"--images={settings.images}: there are only {images} training images")
    if settings.generations % settings.eval_every:
        raise UserError(
            f"--eval_every={settings.eval_every}: must divide --generations={settings.generations}"
        )
    try:
        evolution_settings(settings)
        genome.check(sizes, capacity_of(settings), settings.population, settings.share)
    except ValueError as error:
        raise UserError(f"--{error}") from error


def check_alive(alive: int, number: int, seed: int) -> None:
    """Stops the run if nobody survives.

    Args:
      alive: how many graphs of the generation have finite rewards.
      number, seed: of the generation.

    Raises:
      UserError: none has.
    """
    if not alive:
        raise UserError(
            f"generation {number} of seed {seed}: no graph survives, none has a finite reward:"
            " lower --hidden or --share; the records until then are kept"
        )


def capacity_of(settings: EvolutionSettings) -> Capacity:
    """The room of all genomes."""
    return Capacity(settings.hidden, settings.connections)


def phase_of(seed: int) -> str:
    """The phase of a seed's evolution in records and checkpoints."""
    return f"evolution-seed{seed}"


def evolve(session: SearchSession, settings: EvolutionSettings, seed: int) -> Genome:
    """The last population of a seed. A resumed run goes on where its last checkpoint is."""
    following = evolution_settings(settings)
    one = runs.axis("map", 1, session.axis.devices[:1])  # the seed's state is a single row
    train = session.images.train
    score = scorer(session.sizes, session.axis)
    step = jax.jit(evolution.generation, static_argnames=("sizes", "settings"))
    judge = judge_of(session)
    resize = jax.jit(genome.resized, static_argnames=("sizes", "capacity"))

    def begin() -> Genome:
        made = genome.first_population(
            stream(seed, "first_graphs"),
            session.sizes,
            capacity_of(settings),
            settings.population,
            settings.share,
        )
        first: Genome = runs.stack([made])
        return first

    def advance(state: Blocks, chunk: int) -> tuple[Blocks, Any]:
        population = runs.take(runs.join(state), 0)
        for number in range(chunk * settings.eval_every, (chunk + 1) * settings.eval_every):
            key = stream(seed, "generation_images")
            ((shown),) = batches.stream(key, number, 1, len(train.labels), settings.images)
            before = population = resize(population, session.sizes, room_of(population, settings))
            rewards, accuracies = runs.join(
                score(
                    runs.split(population, session.axis),
                    runs.share(train.images[shown], session.axis),
                    runs.share(train.labels[shown], session.axis),
                )
            )
            population, info = step(
                key=stream(seed, "generation", number),
                population=population,
                rewards=rewards,
                sizes=session.sizes,
                settings=following,
            )
            check_alive(int(info.alive), number, seed)
        best = runs.take(before, info.order[jnp.argmax(info.mean[info.order])])
        seen = {"mean": info.mean, "connections": info.connections, "accuracies": accuracies}
        population = resize(population, session.sizes, capacity_of(settings))
        seen |= {"hidden": before.hidden, "judged": judge(best), "size": genome.complexity(best)}
        return runs.split(runs.stack([population]), one), runs.split(runs.stack([seen]), one)

    def report(chunk: int, info: Any) -> tuple[list[dict[str, Any]], Mapping[str, float | str]]:
        seen = jax.tree.map(lambda leaf: leaf[0], info)
        row = chunk_row((chunk + 1) * settings.eval_every, seed, seen)
        shown = {
            "val mean": row["validation_mean"],
            "val best": row["validation_best"],
            "connections": str(row["champion_connections"]),
        }
        return [row], shown

    chunks = settings.generations // settings.eval_every
    state = run_in_chunks(
        session._replace(axis=one),
        phase_of(seed),
        begin,
        [(i + 1) * settings.eval_every for i in range(chunks)],
        advance,
        report,
        Progress(
            f"seed {seed}",
            settings.generations,
            {"val mean": ".1%", "val best": ".1%"},
            unit="generations",
        ),
        shapes=lambda: jax.eval_shape(begin),
    )
    last: Genome = runs.take(state, 0)
    return last


def scorer(sizes: Sizes, axis: Axis) -> Any:
    """The program `(graphs, images, labels) -> (rewards, accuracies)` of blocks of graphs."""
    weights = jnp.array(SHARED_WEIGHTS)

    def score_graph(row: Genome, images: Array, labels: Array) -> tuple[Array, Array]:
        return evaluation.score(row, images, labels, weights, sizes)

    return runs.batch(score_graph, axis)


def room_of(population: Genome, settings: EvolutionSettings) -> Capacity:
    """The room in which a population and its children fit, with little to spare."""

    def enough(size: Array, least: int, most: int) -> int:
        return min(most, least * 2 ** max(0, math.ceil(math.log2(int(jnp.max(size)) / least))))

    return Capacity(
        enough(population.hidden + 1, LEAST_ROOM.hidden, settings.hidden),
        enough(population.connections + 2, LEAST_ROOM.connections, settings.connections),
    )


def judge_of(session: SearchSession) -> Any:
    """The program that gives a graph's validation accuracy with each shared weight."""
    weights, (images, labels) = jnp.array(SHARED_WEIGHTS), session.images.validation
    return jax.jit(lambda one: evaluation.score(one, images, labels, weights, session.sizes)[1])


def chunk_row(step: int, seed: int, seen: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """A row of metrics: the generation's graph of the highest mean reward, and its front.

    `front` holds connections and mean accuracy over the shared weights, on the generation's images,
    of the graphs that no smaller graph beats.
    """
    means = seen["accuracies"].mean(1)
    order = np.lexsort((-means, seen["connections"]))
    earlier = np.maximum.accumulate(np.concatenate([[-1.0], means[order][:-1]]))
    best = order[means[order] > earlier]
    return {
        "seed": seed,
        "step": step,
        "reward": float(seen["mean"].max()),
        "validation_mean": float(seen["judged"].mean()),
        "validation_best": float(seen["judged"].max()),
        "champion_connections": int(seen["size"]),
        "connections": float(np.median(seen["connections"])),
        "hidden": float(np.median(seen["hidden"])),
        "most_hidden": int(seen["hidden"].max()),
        "front": [[int(seen["connections"][i]), round(float(means[i]), 4)] for i in best],
    }
