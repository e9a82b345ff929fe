"""Trains the dense and the Bayesian nets of one problem, pruned too, and measures them. Resumable.

The dense nets come first, since MOPED starts from them, and since their magnitudes are the tickets
that are transplanted.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.classification import measures, trainers
from experiments.classification.measures import Classifier
from experiments.classification.methods import (
    DENSE,
    METHODS,
    BayesSettings,
    prior_of,
    score_of,
)
from experiments.classification.trainers import Net, Trainer
from experiments.harness import memory
from experiments.harness.chunked_run import seconds
from experiments.harness.dense_store import Dense
from experiments.harness.problem import Problem
from experiments.harness.rows import Row
from experiments.harness.seeds import Seed, training_key
from experiments.harness.session import Session
from experiments.harness.settings import MOST_EPOCHS, MOST_FACTOR, MOST_RUNS, MOST_UNITS, option
from experiments.harness.training_runs import Start, train_all
from experiments.harness.training_settings import TrainSettings
from jaxtickets import allocation, data, masks, nets, runs
from jaxtickets.data import shape as image_shape
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream
from jaxtickets.optimizers import Hyper
from jaxtickets.recipes import bayesian
from jaxtickets.types import Array, Gaussian, Key, Mask, Params, PyTree, Split, Stats

WHOLE, PRUNED, RETRAINED, TRANSPLANTED = "whole", "pruned", "retrained", "transplanted"
"""What is measured of a method: its net; that pruned after training, and trained again; and a net
that is trained under the mask of the dense net's largest weights from its start."""
LEADING = ("model", "dataset", "method", "net", "density", "seed", "trained_accuracy")
"""The first columns of a summary."""
AGAIN = 2
"""The order of the data of a second training, after those of first trainings."""


@dataclasses.dataclass(frozen=True)
class ClassifySettings:
    """Which nets are measured, and on what. Each field is also a flag of the same name."""

    models: tuple = option((), "several nets in place of --model; empty: --model only")
    datasets: tuple = option((), "several data sets in place of --dataset", empty=True)
    density: tuple = option(
        (0.05, 0.02),
        "kept fractions of the weights of pruned nets; empty: no net is pruned",
        above=0,
        below=1,
        empty=True,
    )
    floor: int = option(1, "minimum number of weights that a layer keeps", least=0, most=MOST_UNITS)
    retrain_epochs: int = option(
        5, "epochs in which pruned nets are trained again; 0: not", least=0, most=MOST_EPOCHS
    )
    retrain_rate: float = option(
        0.1,
        "learning rate of this training, as a fraction of --learning_rate",
        above=0,
        most=MOST_FACTOR,
    )
    transplant: bool = option(True, "train Bayesian nets under the masks of dense nets too")
    samples: int = option(
        10, "number of nets that a prediction of a Bayesian net draws", least=1, most=MOST_RUNS
    )
    other_dataset: str = option(
        measures.INVERTED, "images that the nets have not seen the like of", measures.OTHERS
    )
    angles: tuple = option(
        (0.0, 15.0, 30.0, 45.0, 60.0, 75.0, 90.0),
        "degrees by which test images are rotated",
        least=-360,
        most=360,
    )
    noises: tuple = option(
        (0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
        "standard deviations of the noise on test images, in units of white",
        least=0,
        most=100,
    )
    shift_images: int = option(
        1000, "rotate and disturb the first N test images only", least=1, most=10**9
    )


class Batch(NamedTuple):
    """Nets of one method, all seeds, that are measured together.

    Attributes:
      fields: method, net and density, of their rows.
      nets: stacked.
      spent: float`[seeds]`, the seconds from nothing to each net.
    """

    fields: Row
    nets: Classifier
    spent: np.ndarray


class Kit(NamedTuple):
    """The arguments that all parts of a problem's work need.

    Attributes:
      session: the problem's session.
      settings: see `ClassifySettings`.
      train: the training.
      bayes: see `BayesSettings`.
      dense: the dense nets.
      keep: density -> the number of weights that are kept.
    """

    session: Session
    settings: ClassifySettings
    train: TrainSettings
    bayes: BayesSettings
    dense: Dense
    keep: dict[float, int]


def check(
    settings: ClassifySettings, bayes: BayesSettings, problem: Problem, seeds: int, data_dir: str
) -> jax.Array:
    """The other images. Raises UserError if something can't be done, before any work."""
    try:
        prior_of(bayes)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    shapes = masks.shapes(problem.param_shapes, problem.prunable)
    for density in settings.density:
        try:
            allocation.global_(shapes, density, settings.floor)
        except ValueError as error:
            raise UserError(f"--density={density:g}: {error}") from error
    other = settings.other_dataset
    if other in data.NAMES:
        theirs = image_shape(other)
        if theirs != problem.image_shape:
            raise UserError(
                f"--other_dataset={other}: its images are {theirs}, those of "
                f"{problem.dataset.name} {problem.image_shape}"
            )
        if other == problem.dataset.name:
            raise UserError(f"--other_dataset={other}: the net is trained on it, choose another")
    size = 3 * memory.training(problem.param_shapes)
    number = seeds * (1 + 2 * len(settings.density))
    memory.check_memory(f"--seeds={seeds}", number, size, "Bayesian trainings")
    per_image = problem.dataset.classes * 4
    count = settings.samples * len(problem.dataset.test.labels)
    memory.check_memory(f"--samples={settings.samples}", count, per_image, "predictions")
    key = stream(0, "prediction", other, 1.0)
    return measures.other_images(other, problem.dataset, key, data_dir)


def classify(
    session: Session,
    settings: ClassifySettings,
    train: TrainSettings,
    bayes: BayesSettings,
    dense: Dense,
    other: Array,
) -> tuple[list[Row], list[Row]]:
    """Trains and measures all nets of a problem.

    Args:
      session: the problem's session.
      settings, train, bayes: see there.
      dense: the trained dense nets.
      other: other images, see `measures.other_images`.

    Returns:
      Summary rows, a net each, and the rows of the figures' curves: `curve`, `x` and `y`.
    """
    problem = session.problem
    shapes = masks.shapes(problem.param_shapes, problem.prunable)

    keep = {
        density: allocation.global_(shapes, density, settings.floor)
        for density in settings.density
    }
    kit = Kit(session, settings, train, bayes, dense, keep)
    named = {"model": nets.name_of(problem.net), "dataset": problem.dataset.name}
    summary, curves = [], []
    for name in (DENSE, *bayes.methods):
        trainer = trainer_of(kit, name, problem)
        measure = _measuring(kit, trainer, other)
        for batch in _batches(kit, name, trainer):
            made, drawn = measure(batch)
            summary += [{**named, **row} for row in made]
            curves += [{**named, **row} for row in drawn]
    return summary, curves


def trainer_of(kit: Kit, name: str, problem: Problem) -> Trainer:
    """The trainer of the dense net or a method."""
    if name not in METHODS:
        return trainers.deterministic(problem)
    return trainers.of_method(name, problem, kit.train, kit.bayes, kit.settings.samples)


# --- trainings -----------------------------------------------------------------------------------


def _batches(kit: Kit, name: str, trainer: Trainer) -> Iterator[Batch]:
    """All nets of a method: whole, pruned, retrained, transplanted, at all densities."""
    nets, spent, transplanted = _first_trainings(kit, name, trainer)
    whole = _batch(kit, name, trainer, WHOLE, 1.0, nets, spent)
    yield whole
    score = score_of(METHODS.get(name))
    pruned = {}
    for density, keep in kit.keep.items():
        pruned[density] = _pruned(kit, score, whole.nets.posterior, keep)
        posterior = jax.jit(jax.vmap(bayesian.masked))(pruned[density], whole.nets.posterior)
        fields = {"method": name, "net": PRUNED, "density": density}
        yield Batch(fields, whole.nets._replace(posterior=posterior), spent)
    if pruned and kit.settings.retrain_epochs:
        yield from _retrained(kit, name, nets, spent, pruned)
    yield from transplanted


def _pruned(kit: Kit, score: Callable[..., Array], posterior: Gaussian, keep: int) -> Mask:
    prunable, floor = kit.session.problem.prunable, kit.settings.floor

    def one(posterior: Gaussian) -> Mask:
        return bayesian.prune(posterior, prunable, keep, floor, score)

    return jax.jit(jax.vmap(one))(posterior)


def _first_trainings(
    kit: Kit, name: str, trainer: Trainer
) -> tuple[Net, np.ndarray, list[Batch]]:
    """The whole nets of a method, and the transplanted ones, trained in one batch.

    The whole dense nets are trained already.
    """
    session, dense = kit.session, kit.dense
    before = np.array([row["seconds"] for row in dense.summary])
    if name not in METHODS:
        return Net(dense.params, dense.stats), before, []
    warm = METHODS[name].warm
    seeds = range(len(session.seeds))
    ones = masks.ones(session.seeds[0].params)
    jobs = [(WHOLE, 1.0, i, ones) for i in seeds]
    if kit.settings.transplant:
        fixed = Gaussian(dense.params, jax.tree.map(jnp.zeros_like, dense.params))
        for density, keep in kit.keep.items():
            mask = _pruned(kit, score_of(None), fixed, keep)
            jobs += [(TRANSPLANTED, density, i, runs.take(mask, i)) for i in seeds]
    rows, names = [], []
    for kind, density, i, mask in jobs:
        one = session.seeds[i]
        params, stats = one.params, one.stats
        if warm:
            params, stats = runs.take((dense.params, dense.stats), i)
        key = stream(one.number, "gate", name, density)
        rows.append((key, training_key(one, int(warm)), params, stats, mask))
        names.append({"method": name, "net": kind, "density": density, "seed": one.number})

    def begin(row: tuple[Key, Key, Params, Stats, Mask]) -> Start:
        gate_key, key, params, stats, mask = row
        net = trainer.begin(gate_key, params, stats)
        return trainer.start(key, trainer.problem.hyper, net, mask)

    starts = runs.over_runs(begin, session.axis, runs.stack(rows))
    phase = f"train-{name}"
    state = _train(session, trainer.problem, phase, starts, names)
    share = seconds(session.folder, phase) / len(jobs)
    n = len(seeds)
    parts = [jax.tree.map(lambda a, at=at: a[at : at + n], state) for at in range(0, len(jobs), n)]
    transplanted = [
        _batch(kit, name, trainer, kind, density, part, before + share)
        for part, (kind, density, _, _) in zip(parts[1:], jobs[n::n], strict=True)
    ]
    return parts[0], share + (before if warm else 0 * before), transplanted


def _retrained(
    kit: Kit, name: str, nets: Net, spent: np.ndarray, pruned: dict[float, Mask]
) -> Iterator[Batch]:
    """What is left of pruned nets, trained again, all densities and seeds in one batch."""
    session, settings = kit.session, kit.settings
    epochs, rate = settings.retrain_epochs, settings.retrain_rate
    trainer = trainer_of(kit, name, trainers.shorter(session.problem, kit.train, epochs, rate))
    rows, names = [], []
    for density, mask in pruned.items():
        for i, one in enumerate(session.seeds):
            rows.append((training_key(one, AGAIN), *runs.take((nets, mask), i)))
            names.append({"method": name, "net": RETRAINED, "density": density, "seed": one.number})

    def begin(row: tuple[Key, Net, Mask]) -> Start:
        key, net, mask = row
        return trainer.start(key, trainer.problem.hyper, net, mask)

    starts = runs.over_runs(begin, session.axis, runs.stack(rows))
    phase = f"retrain-{name}"
    state = _train(session, trainer.problem, phase, starts, names)
    share, n = seconds(session.folder, phase) / len(names), len(session.seeds)
    for at, density in enumerate(pruned):
        part = jax.tree.map(lambda a, at=at: a[at * n : (at + 1) * n], state)
        yield _batch(kit, name, trainer, RETRAINED, density, part, spent + share)


def _train(
    session: Session, problem: Problem, phase: str, starts: Start, names: list[Row]
) -> Net:
    trained = session._replace(problem=problem)
    state = train_all(trained, phase, starts, names, end=problem.steps).state
    return Net(state.params, state.stats)


def _batch(
    kit: Kit,
    name: str,
    trainer: Trainer,
    kind: str,
    density: float,
    nets: Net,
    spent: np.ndarray,
) -> Batch:
    posterior, stats = jax.jit(jax.vmap(trainer.posterior))(nets)
    keys = [stream(one.number, "prediction", name, 1.0) for one in kit.session.seeds]
    fields = {"method": name, "net": kind, "density": density}
    return Batch(fields, Classifier(posterior, stats, runs.stack(keys)), spent)


# --- measures ------------------------------------------------------------------------------------


def _measuring(
    kit: Kit, trainer: Trainer, other: Array
) -> Callable[[Batch], tuple[list[Row], list[Row]]]:
    """Measures batches of a method by one program: `batch -> (summary rows, curve rows)`."""
    session, settings = kit.session, kit.settings
    recipe, axis, samples = session.problem.recipe, session.axis, trainer.samples
    test = session.data.test
    few = jax.tree.map(lambda a: a[: settings.shift_images], test)
    angles, noises = (jnp.asarray(x, jnp.float32) for x in (settings.angles, settings.noises))

    def one(classifier: Classifier, test: Split, other: Array) -> PyTree:
        return measures.tested(recipe, samples, classifier, test, other)

    def shift(classifier: Classifier, test: Split) -> PyTree:
        return measures.shifted(recipe, samples, classifier, test, angles, noises)

    tested = runs.batch(one, axis)
    shared = runs.share(test, axis), runs.share(other, axis)

    def measure(batch: Batch) -> tuple[list[Row], list[Row]]:
        found = jax.tree.map(np.asarray, runs.join(tested(runs.split(batch.nets, axis), *shared)))
        moved = None
        if batch.fields["net"] == WHOLE:
            moved = jax.tree.map(np.asarray, runs.over_runs(shift, axis, batch.nets, few))
        summary, curves = [], []
        for i, seed in enumerate(session.seeds):
            fields = {**batch.fields, "seed": seed.number}
            mine = runs.take(found, i)
            summary.append(fields | _measured(mine, batch.spent[i]))
            curves += [fields | row for row in _curves(mine)]
            if moved is not None:
                curves += [fields | row for row in _shifts(runs.take(moved, i), settings)]
        return summary, curves

    return measure


def _measured(mine: measures.Tested, spent: float) -> Row:
    fields = mine._asdict()
    named = {"trained_accuracy": mine.accuracy, **{name: fields[name] for name in SCALARS}}
    return {field: round(float(value), 6) for field, value in named.items()} | {
        "seconds": round(float(spent), 3)
    }


SCALARS = ("nll", "ece", "brier", "entropy", "mutual_information", "other_entropy", "auroc")


def _curves(mine: measures.Tested) -> Iterator[Row]:
    edges = np.linspace(0, 1, len(mine.reliability.count), endpoint=False)
    for x, count, confidence, accuracy in zip(edges, *mine.reliability, strict=True):
        if count:
            yield _point("bin", x, count)
            yield _point("confidence", x, confidence)
            yield _point("accuracy", x, accuracy)
    for x, y in zip(measures.REJECTED, mine.rejection, strict=True):
        yield _point("rejection", x, y)
    for name in ("inside", "outside"):
        for x, y in enumerate(mine._asdict()[name]):
            yield _point(name, x / measures.BINS, y)


def _shifts(moved: measures.Shifted, settings: ClassifySettings) -> Iterator[Row]:
    amounts = {"rotated": settings.angles, "noisy": settings.noises}
    for name, values in moved._asdict().items():
        for x, y in zip(amounts[name.partition("_")[0]], values, strict=True):
            yield _point(name, x, y)


def _point(curve: str, x: Any, y: Any) -> Row:
    return {"curve": curve, "x": round(float(x), 6), "y": round(float(y), 6)}
