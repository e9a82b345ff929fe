"""Measures batches of classifiers; a summary row of each net, and the rows of its curves."""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.classification import measures
from experiments.classification.classifiers import WHOLE, Batch
from experiments.classification.measures import Classifier
from experiments.classification.settings import ClassifySettings
from experiments.harness.rows import Row
from experiments.harness.session import Session
from jaxtickets import nets, runs
from jaxtickets.types import Array, PyTree, Split

LEADING = ("model", "dataset", "method", "net", "density", "seed", "trained_accuracy")
"""The first columns of a summary."""
SCALARS = ("nll", "ece", "brier", "entropy", "mutual_information", "other_entropy", "auroc")


def measure(
    session: Session, settings: ClassifySettings, batches: Iterable[Batch], other: Array
) -> tuple[list[Row], list[Row]]:
    """Measures all nets of a problem.

    Args:
      session: the problem's session.
      settings: what is measured.
      batches: the nets.
      other: other images, see `measures.other_images`.

    Returns:
      Summary rows, a net each, and the rows of the figures' curves, with `curve`, `x` and `y`.
    """
    problem, axis, test = session.problem, session.axis, session.data.test
    recipe = problem.recipe
    few = jax.tree.map(lambda a: a[: settings.shift_images], test)
    angles, noises = (jnp.asarray(x, jnp.float32) for x in (settings.angles, settings.noises))

    @cache
    def tested(samples: int) -> Any:
        def one(classifier: Classifier, test: Split, other: Array) -> PyTree:
            return measures.tested(recipe, samples, classifier, test, other)

        return runs.batch(one, axis)

    @cache
    def shifted(samples: int) -> Any:
        def one(classifier: Classifier, test: Split) -> PyTree:
            return measures.shifted(recipe, samples, classifier, test, angles, noises)

        return runs.batch(one, axis)

    placed = [runs.share(tree, axis) for tree in (test, other, few)]
    named = {"model": nets.name_of(problem.net), "dataset": problem.dataset.name}
    summary, curves = [], []
    for batch in batches:
        blocks = runs.split(batch.classifiers, axis)
        found = _arrays(tested(batch.samples)(blocks, placed[0], placed[1]))
        for i, fields in enumerate(batch.fields):
            mine = _row(found, i)
            summary.append({**named, **fields, **_scalars(mine, batch.seconds[i])})
            curves += [{**named, **fields, **row} for row in _curves(mine)]
        whole = [i for i, fields in enumerate(batch.fields) if fields["net"] == WHOLE]
        if whole:
            blocks = runs.split(runs.take(batch.classifiers, np.array(whole)), axis)
            moved = _arrays(shifted(batch.samples)(blocks, placed[2]))
            for at, i in enumerate(whole):
                points = _shifts(_row(moved, at), settings)
                curves += [{**named, **batch.fields[i], **row} for row in points]
    return summary, curves


def _arrays(blocks: runs.Blocks) -> PyTree:
    return jax.tree.map(np.asarray, runs.join(blocks))


def _row(tree: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda a: a[i], tree)


def _scalars(mine: measures.Tested, spent: float) -> Row:
    fields = mine._asdict()
    values = {"trained_accuracy": mine.accuracy, **{name: fields[name] for name in SCALARS}}
    made = {name: round(float(value), 6) for name, value in values.items()}
    return {**made, "seconds": round(float(spent), 3)}


def _curves(mine: measures.Tested) -> Iterator[Row]:
    edges = np.linspace(0, 1, len(mine.reliability.count), endpoint=False)
    for x, count, confidence, accuracy in zip(edges, *mine.reliability, strict=True):
        if count:
            yield _point("bin", x, count)
            yield _point("confidence", x, confidence)
            yield _point("accuracy", x, accuracy)
    for x, y in zip(measures.REJECTED, mine.rejection, strict=True):
        yield _point("rejection", x, y)
    for name, shares in (("inside", mine.inside), ("outside", mine.outside)):
        for i, y in enumerate(shares):
            yield _point(name, i / measures.BINS, y)


def _shifts(moved: measures.Shifted, settings: ClassifySettings) -> Iterator[Row]:
    amounts = {"rotated": settings.angles, "noisy": settings.noises}
    for name, values in moved._asdict().items():
        for x, y in zip(amounts[name.partition("_")[0]], values, strict=True):
            yield _point(name, x, y)


def _point(curve: str, x: Any, y: Any) -> Row:
    return {"curve": curve, "x": round(float(x), 6), "y": round(float(y), 6)}
