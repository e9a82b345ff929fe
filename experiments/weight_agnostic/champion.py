"""The best graph of a last population, measured: one random or tuned weight, several, trained ones.

All choices are made on validation images; the test images give the final numbers alone.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness.chunked_run import made_once, seconds
from experiments.weight_agnostic.search_run import SearchSession, phase_of, room_of, scorer
from experiments.weight_agnostic.settings import ChampionSettings, EvolutionSettings
from jaxtickets import runs
from jaxtickets.data import batches
from jaxtickets.io import trees
from jaxtickets.keys import stream
from jaxtickets.search.graphs import evaluation, genome, layered
from jaxtickets.search.graphs.evolution import SHARED_WEIGHTS
from jaxtickets.search.graphs.genome import Genome
from jaxtickets.search.graphs.layered import Structure
from jaxtickets.types import Array, Split

GRID = np.linspace(-2, 2, 81).astype(np.float32)
"""The shared weights among which the best is chosen, and over which accuracy is drawn."""
IMAGES = 1000
"""The most images that a graph is evaluated on at once."""


class Measured(NamedTuple):
    """A champion and its measurements.

    Attributes:
      graph: its genome.
      summary: its row of the summary.
      curve: a row of metrics: validation and test accuracy at each weight of `GRID`.
    """

    graph: Genome
    summary: dict[str, Any]
    curve: dict[str, Any]


def choose(session: SearchSession, settings: EvolutionSettings, population: Genome) -> Genome:
    """The graph of the highest validation accuracy, as a mean over the shared weights."""
    score = scorer(session.sizes, session.axis)
    small = genome.resized(population, session.sizes, room_of(population, settings))
    images, labels = (runs.share(array, session.axis) for array in session.images.validation)
    _, accuracies = runs.join(score(runs.split(small, session.axis), images, labels))
    best: Genome = runs.take(population, jnp.argmax(jnp.mean(accuracies, axis=1)))
    return best


def measure(
    session: SearchSession,
    settings: EvolutionSettings,
    training: ChampionSettings,
    seed: int,
    graph: Genome,
) -> Measured:
    """The accuracies of a graph on test images, and the size of what reaches an output."""
    validation, test = session.images.validation, session.images.test
    weights = jax.random.uniform(
        stream(seed, "shared_weights"), (training.draws,), minval=-2, maxval=2
    )
    chances = hits(logits_of(session, graph, weights, test.images), test)
    on_validation, on_test = (
        hits(logits_of(session, graph, GRID, part.images), part) for part in (validation, test)
    )
    tuned = int(np.argmax(on_validation))
    several = logits_of(session, graph, np.array(SHARED_WEIGHTS, np.float32), test.images)
    voted = np.asarray(jax.nn.softmax(several, axis=2)).mean(0, keepdims=True)
    structure = layered.structure(graph, session.sizes)
    trained = train(session, training, seed, structure, float(GRID[tuned]))
    spent = seconds(session.folder, phase_of(seed))
    generations, images = settings.generations, settings.images
    row = {
        "seed": seed,
        "population": settings.population,
        "generations": generations,
        "images": images,
        "random_accuracy": round(float(chances.mean()), 6),
        "random_deviation": round(float(chances.std(ddof=1)), 6),
        "tuned_accuracy": round(float(on_test[tuned]), 6),
        "tuned_weight": round(float(GRID[tuned]), 4),
        "ensemble_accuracy": round(float(hits(voted, test)[0]), 6),
        "trained_accuracy": round(trained["test"], 6),
        "tuned_validation": round(float(on_validation[tuned]), 6),
        "trained_validation": round(trained["validation"], 6),
        "connections": structure.source.size,
        "hidden": int((structure.layer[session.sizes.outputs :] > 0).sum()),
        "seconds": round(spent, 1),
        "generations_per_second": round(generations / spent, 3) if spent else None,
    }
    curve = {
        "phase": "shared_weights",
        "seed": seed,
        "step": generations,
        "weights": [round(float(w), 4) for w in GRID],
        "validation": [round(float(x), 4) for x in on_validation],
        "test": [round(float(x), 4) for x in on_test],
    }
    place = session.folder / "graphs" / f"seed{seed}"
    if not place.exists():
        trees.write(place, graph, {**session.sizes._asdict(), "tuned_weight": row["tuned_weight"]})
    return Measured(graph, row, curve)


def logits_of(session: SearchSession, graph: Genome, weights: Array, images: Array) -> np.ndarray:
    """float32`[weights, n, classes]`: outputs, a few weights and images at a time."""
    few = len(SHARED_WEIGHTS)
    padded = np.resize(np.asarray(weights), -(-len(weights) // few) * few)
    size = -(-len(images) // -(-len(images) // IMAGES))
    program = jax.jit(evaluation.outputs, static_argnames="sizes")

    def block(start: int) -> np.ndarray:
        shown = images[start : start + size]
        rows = [
            np.asarray(program(graph, shown, jnp.asarray(padded[i : i + few]), session.sizes))
            for i in range(0, len(padded), few)
        ]
        return np.concatenate(rows)[: len(weights)]

    return np.concatenate([block(i) for i in range(0, len(images), size)], axis=1)


def hits(logits: np.ndarray, part: Split) -> np.ndarray:
    """float`[weights]`: the accuracy of outputs `[weights, n, classes]`."""
    shares: np.ndarray = (logits.argmax(2) == np.asarray(part.labels)[None]).mean(1)
    return shares


def train(
    session: SearchSession,
    settings: ChampionSettings,
    seed: int,
    structure: Structure,
    weight: float,
) -> Mapping[str, float]:
    """Accuracies after a weight of its own is trained for each connection, from the shared one.

    Adam on the cross-entropy; its rate falls to zero by a cosine. The last weights count.
    """
    net = layered.apply(structure)
    images = session.images
    n = len(images.train.labels)
    size = min(settings.batch_size, n)
    steps = settings.epochs * (n // size)
    optimizer = optax.adam(optax.cosine_decay_schedule(settings.learning_rate, steps))

    def loss(weights: Array, batch: Split) -> Array:
        logits = net(weights, batch.images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()

    @jax.jit
    def epoch(state: Any, shown: Array, train: Split) -> Any:
        def step(state: Any, index: Array) -> tuple[Any, None]:
            weights, inner = state
            slope = jax.grad(loss)(weights, jax.tree.map(lambda leaf: leaf[index], train))
            updates, inner = optimizer.update(slope, inner, weights)
            return (optax.apply_updates(weights, updates), inner), None

        return jax.lax.scan(step, state, shown)[0]

    def make() -> Array:
        weights = jnp.full(structure.source.size, weight, jnp.float32)
        state = weights, optimizer.init(weights)
        key, per_epoch = stream(seed, "training", 0, 0), n // size
        for number in range(settings.epochs):
            shown = batches.stream(key, number * per_epoch, per_epoch, n, size)
            state = epoch(state, shown, images.train)
        return state[0]

    blank = jax.ShapeDtypeStruct((structure.source.size,), jnp.float32)
    weights = made_once(session, f"trained-seed{seed}", make, blank)
    return {
        name: float(hits(np.asarray(net(weights, part.images))[None], part)[0])
        for name, part in (("validation", images.validation), ("test", images.test))
    }
