"""Trains the Bayesian nets of one problem, prunes them and trains them again. Resumable.

The dense nets come first, since MOPED starts from them, and since their largest weights are the
tickets that are transplanted.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.classification import trainers
from experiments.classification.measures import Classifier
from experiments.classification.methods import DENSE, METHODS, BayesSettings, score_of
from experiments.classification.settings import ClassifySettings, kept
from experiments.classification.trainers import Net, Trainer
from experiments.harness.chunked_run import seconds
from experiments.harness.dense_store import Dense
from experiments.harness.problem import Problem, shorter
from experiments.harness.rows import Row
from experiments.harness.seeds import training_key
from experiments.harness.session import Session
from experiments.harness.trained_masks import before_trainings
from experiments.harness.training_runs import Start, train_all
from experiments.harness.training_settings import TrainSettings
from jaxtickets import runs
from jaxtickets.gates.mean_field import Score
from jaxtickets.keys import stream
from jaxtickets.recipes import bayesian
from jaxtickets.types import Array, Gaussian, Key, Mask, Params, Prunable, Stats

WHOLE, PRUNED, RETRAINED, TRANSPLANTED = "whole", "pruned", "retrained", "transplanted"
"""What is measured of a method: its net; that pruned after training, and trained again; and a net
that is trained from its start under the mask of the dense net's largest weights."""
AGAIN = 2
"""The order of the data of a second training, after those of first trainings."""


class Batch(NamedTuple):
    """Nets that are measured together.

    Attributes:
      fields: method, net, density and seed of each.
      classifiers: stacked.
      samples: the number of nets that a prediction draws.
      seconds: float`[nets]`, from nothing to each net.
    """

    fields: list[Row]
    classifiers: Classifier
    samples: int
    seconds: np.ndarray


class Setting(NamedTuple):
    """The arguments of all trainings of a problem.

    Attributes:
      session: the problem's session.
      settings, bayes, train: see there.
      dense: the trained dense nets.
      keep: density -> the number of weights that are kept.
    """

    session: Session
    settings: ClassifySettings
    bayes: BayesSettings
    train: TrainSettings
    dense: Dense
    keep: dict[float, int]


def batches(
    session: Session,
    settings: ClassifySettings,
    bayes: BayesSettings,
    train: TrainSettings,
    dense: Dense,
) -> Iterator[Batch]:
    """All nets of a problem, trained one batch after another.

    Args:
      session: the problem's session.
      settings, bayes, train: see there.
      dense: the trained dense nets.
    """
    setting = Setting(session, settings, bayes, train, dense, kept(settings, session.problem))
    names = (DENSE, *bayes.methods)
    each = [_trainings(setting, name) for name in names]
    for i, name in enumerate(names):
        yield from _of_method(setting, name, sum(map(sum, each[i + 1 :])))


def _trainings(setting: Setting, name: str) -> tuple[float, float]:
    """The first and the second trainings of a method, in whole trainings of a net."""
    session, settings = setting.session, setting.settings
    n, densities = len(session.seeds), len(settings.density)
    first = n * (1 + settings.transplant * densities) if name in METHODS else 0
    if not settings.retrain_epochs:
        return first, 0.0
    again = shorter(session.problem, setting.train, settings.retrain_epochs, settings.retrain_rate)
    return first, n * densities * again.steps / session.problem.steps


def _of_method(setting: Setting, name: str, later: float) -> Iterator[Batch]:
    """Whole and transplanted nets, then pruned ones, then these trained again.

    Args:
      setting: the problem.
      name: the method.
      later: the trainings of the methods after it, in whole trainings.
    """
    session, settings = setting.session, setting.settings
    last = setting._replace(session=before_trainings(session, later))
    own = before_trainings(session, later + _trainings(setting, name)[1])
    setting = setting._replace(session=own)
    n, densities = len(session.seeds), settings.density
    trainer = _trainer(setting, name, session.problem)
    first = [(WHOLE, 1.0)]
    if name in METHODS and settings.transplant:
        first += [(TRANSPLANTED, density) for density in densities]
    nets, spent = _first_trainings(setting, name, trainer, first)
    batch = _batch(setting, name, trainer, first, nets, spent)
    yield batch
    if not densities:
        return
    several = np.tile(np.arange(n), len(densities))  # the whole nets, once a density
    whole = runs.take(batch.classifiers, several)
    pruned = _largest(setting, score_of(METHODS.get(name)), whole.posterior, densities)
    left = whole._replace(posterior=_masked(pruned, whole.posterior))
    kinds = [(PRUNED, density) for density in densities]
    yield Batch(_fields(setting, name, kinds), left, trainer.samples, spent[several])
    if settings.retrain_epochs:
        kinds = [(RETRAINED, density) for density in densities]
        again = shorter(
            session.problem, setting.train, settings.retrain_epochs, settings.retrain_rate
        )
        trainer = _trainer(setting, name, again)
        begun = runs.take(nets, several)
        nets, more = _retrained(last, name, trainer, kinds, nets=begun, masks=pruned)
        yield _batch(setting, name, trainer, kinds, nets, spent[several] + more)


def _trainer(setting: Setting, name: str, problem: Problem) -> Trainer:
    if name not in METHODS:
        return trainers.deterministic(problem)
    return trainers.of_method(name, problem, setting.train, setting.bayes, setting.settings.samples)


Kind = tuple[str, float]
"""What a net is, such as `PRUNED`, and the density of its weights."""


def _fields(setting: Setting, name: str, kinds: Sequence[Kind]) -> list[Row]:
    """The fields of nets in rows: all seeds of one kind after another."""
    return [
        {"method": name, "net": kind, "density": density, "seed": one.number}
        for kind, density in kinds
        for one in setting.session.seeds
    ]


def _largest(
    setting: Setting, score: Score, posterior: Gaussian, densities: Sequence[float]
) -> Mask:
    """The masks of the weights with the highest scores: all seeds of one density after another.

    Args:
      setting: the problem.
      score: of a weight.
      posterior: of each seed, once a density.
      densities: of the masks.
    """
    keep = [setting.keep[density] for density in densities]
    each = jnp.repeat(jnp.asarray(keep, jnp.int32), len(setting.session.seeds))
    prunable, floor = setting.session.problem.prunable, setting.settings.floor
    return _selected(posterior, each, prunable, floor, score)


_masked = jax.jit(jax.vmap(bayesian.masked))


@partial(jax.jit, static_argnums=(2, 3, 4))
def _selected(
    posterior: Gaussian, keep: Array, prunable: Prunable, floor: int, score: Score
) -> Mask:
    def one(posterior: Gaussian, keep: Array) -> Mask:
        return bayesian.prune(posterior, prunable, keep, floor, score)

    return jax.vmap(one)(posterior, keep)


def _first_trainings(
    setting: Setting, name: str, trainer: Trainer, kinds: Sequence[Kind]
) -> tuple[Net, np.ndarray]:
    """Nets, stacked, and their seconds: of a method all in one batch; dense ones are there."""
    session, dense = setting.session, setting.dense
    before = np.array([row["seconds"] for row in dense.summary])
    if name not in METHODS:
        return Net(dense.params, dense.stats), before
    warm = METHODS[name].warm
    once_a_kind = np.tile(np.arange(len(before)), len(kinds))
    trained = runs.take((dense.params, dense.stats), once_a_kind)
    fixed = Gaussian(trained[0], jax.tree.map(jnp.zeros_like, trained[0]))
    masks = _largest(setting, score_of(None), fixed, [density for _, density in kinds])
    params, stats = trained
    if not warm:
        first = runs.stack([(one.params, one.stats) for one in session.seeds])
        params, stats = runs.take(first, once_a_kind)
    fields = _fields(setting, name, kinds)
    keys = [
        (stream(row["seed"], "gate", name, row["density"]), training_key(one, int(warm)))
        for row, one in zip(fields, [*session.seeds] * len(kinds), strict=True)
    ]

    def begin(row: tuple[tuple[Key, Key], Params, Stats, Mask]) -> Start:
        (gate_key, key), params, stats, mask = row
        net = trainer.begin(gate_key, params, stats)
        return trainer.start(key, trainer.problem.hyper, net, mask)

    starts = runs.over_runs(begin, session.axis, (runs.stack(keys), params, stats, masks))
    nets, share = _train(session, trainer.problem, f"train-{name}", starts, fields)
    needed = [warm or kind == TRANSPLANTED for kind, _ in kinds]
    return nets, np.concatenate([share + before * is_needed for is_needed in needed])


def _retrained(
    setting: Setting, name: str, trainer: Trainer, kinds: Sequence[Kind], nets: Net, masks: Mask
) -> tuple[Net, float]:
    """Nets trained again under their masks, in one batch, and the seconds of each."""
    session = setting.session
    keys = [training_key(one, AGAIN) for one in session.seeds] * len(kinds)

    def begin(row: tuple[Key, Net, Mask]) -> Start:
        key, net, mask = row
        return trainer.start(key, trainer.problem.hyper, net, mask)

    starts = runs.over_runs(begin, session.axis, (runs.stack(keys), nets, masks))
    fields = _fields(setting, name, kinds)
    return _train(session, trainer.problem, f"retrain-{name}", starts, fields)


def _train(
    session: Session, problem: Problem, phase: str, starts: Start, fields: list[Row]
) -> tuple[Net, float]:
    trained = session._replace(problem=problem)
    state = train_all(trained, phase, starts, fields, end=problem.steps).state
    return Net(state.params, state.stats), seconds(session.folder, phase) / len(fields)


def _batch(
    setting: Setting,
    name: str,
    trainer: Trainer,
    kinds: Sequence[Kind],
    nets: Net,
    spent: np.ndarray,
) -> Batch:
    posterior, stats = jax.jit(jax.vmap(trainer.posterior))(nets)
    fields = _fields(setting, name, kinds)
    keys = runs.stack([stream(row["seed"], "prediction", name, 1.0) for row in fields])
    return Batch(fields, Classifier(posterior, stats, keys), trainer.samples, spent)
