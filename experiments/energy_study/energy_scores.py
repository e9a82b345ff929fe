"""Energies that may predict, at the initialisation, the accuracy to which a mask trains."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import candidate_masks, memory, memory_batches
from experiments.harness.flags import whole_numbers
from experiments.harness.problem import Problem, optimizer_of
from experiments.harness.progress import Progress
from experiments.harness.seeds import evidence, mask_key
from experiments.harness.session import Session
from experiments.harness.settings import MOST_RUNS, MOST_STEPS, option
from experiments.harness.trained_masks import Entry
from experiments.harness.training_settings import TrainSettings
from jaxtickets import losses, masks, runs
from jaxtickets.criteria import find
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream
from jaxtickets.search import energies
from jaxtickets.search.energies import Energy
from jaxtickets.types import Array, Key, Mask, Params, Scores, Split, Stats

DRAWS = 4
"""The number of random orders of the training data."""
FLOW = 4
"""The number of batches for the gradient's norm."""
PART = 16
"""The number of masks between two progress lines, rounded to whole turns of the axis."""


@dataclass(frozen=True)
class EnergySettings:
    """The energies, and the number of random masks. Each field is also a flag of the same name."""

    fields: int = option(
        20, "masks of random fields for each seed and density", least=0, most=MOST_RUNS
    )
    train_steps: tuple = option(
        (10, 25, 50, 100),
        "numbers of training steps after which energies evaluate the net",
        least=1,
        most=MOST_STEPS,
    )
    held_out: int = option(
        500, "training images that are held out to evaluate energies", least=1, most=10**9
    )


class EnergyInputs(NamedTuple):
    """The inputs of a mask's energies; stacked, they have a leading axis of masks.

    Attributes:
      key: scalar key array for dropout, the same for all masks of a seed and density.
      params, stats: the initial parameters and statistics.
      mask: the mask, like `params`, bool.
      snip, synflow: like `params`, float: the scores of these criteria on the dense net.
    """

    key: Key
    params: Params
    stats: Stats
    mask: Mask
    snip: Scores
    synflow: Scores


class EvaluationData(NamedTuple):
    """The data of the energies, from the training images only; the same for all masks.

    Attributes:
      held_out: the normalised images and labels on which energies are evaluated, `[n, ...]`.
      training: the raw images and labels of training steps, `[draws, steps, batch, ...]`.
    """

    held_out: Split
    training: Split


def check_train_steps(settings: EnergySettings, problem: Problem) -> tuple[int, ...]:
    """Checks the settings and returns the numbers of training steps, ascending.

    Raises:
      UserError: a number isn't whole, `held_out` leaves no training image, or the memory is too
        small.
    """
    steps = tuple(sorted(set(whole_numbers("train_steps", settings.train_steps))))
    total = len(problem.dataset.train.labels)
    if settings.held_out >= total:
        raise UserError(f"--held_out={settings.held_out}: there are only {total} training images")
    batch = problem.recipe.batch_size * math.prod(problem.image_shape)
    memory.check_memory(f"--train_steps={steps[-1]}", steps[-1], DRAWS * batch, "steps' images")
    bits = masks.size(problem.param_shapes, problem.prunable)
    memory.check_memory(f"--fields={settings.fields}", settings.fields, bits, "masks of a seed")
    return steps


def evaluation_data(
    settings: EnergySettings, problem: Problem, steps: int, first: int
) -> EvaluationData:
    """Holds out the first training images; the rest gives batches in `DRAWS` random orders.

    Args:
      settings, problem: of the run.
      steps: the largest number of training steps.
      first: the run's first seed. All masks share its orders, since the batches take much memory.
    """
    train, size = problem.dataset.train, problem.recipe.batch_size
    n = settings.held_out
    rest = len(train.labels) - n

    def order(key: jax.Array) -> Array:
        epochs = -(-steps * size // rest)
        keys = jax.random.split(key, epochs)
        index = jnp.concatenate([jax.random.permutation(k, rest) for k in keys])
        return n + index[: steps * size].reshape(steps, size)

    keys = [stream(first, "energy_data", draw) for draw in range(DRAWS)]
    index = jax.vmap(order)(jnp.stack(keys))
    scored = problem.recipe.prepare(jnp.asarray(train.images[:n]))
    return EvaluationData(
        Split(scored, jnp.asarray(train.labels[:n])),
        Split(jnp.asarray(train.images)[index], jnp.asarray(train.labels)[index]),
    )


def both(logits: Array, labels: Array) -> Array:
    """float`[2]`: cross-entropy and error rate."""
    return jnp.stack([losses.cross_entropy(logits, labels), losses.error_rate(logits, labels)])


def energies_of_mask(
    problem: Problem,
    train: TrainSettings,
    steps: tuple[int, ...],
    row: EnergyInputs,
    look: EvaluationData,
) -> dict[str, Array]:
    """Name -> energy of the row's mask. Lower is better for all; see `costs` for their costs."""
    found: dict[str, Array] = {}
    for name, energy in _energies(problem, train, steps, row, look).items():
        value = energy.evaluate(row.key, row.mask)
        found |= _named(name, value) if value.ndim else {name: value}
    return found


def energies_of_masks(
    session: Session,
    train: TrainSettings,
    steps: tuple[int, ...],
    entries: Sequence[Entry],
    scored: dict[int, tuple[Scores, Scores]],
    look: EvaluationData,
) -> list[dict[str, float]]:
    """`energies_of_mask` for all entries, in parts; a resumed run loads the finished parts.

    Args:
      session: the net, the run axis, and the run's folder.
      train, steps, look: see `energies_of_mask`.
      entries: the entries whose masks are evaluated.
      scored: see `criteria_of`.

    Raises:
      UserError: an energy isn't finite.
    """
    problem, axis, folder = session.problem, session.axis, session.folder
    params = entries[0].start.params
    done, missing = memory_batches.batches_left(folder, "energies", axis, entries, params, PART)
    found = [known["energies"] for known in done]

    def of_one(row: EnergyInputs, look: EvaluationData) -> dict[str, Array]:
        return energies_of_mask(problem, train, steps, row, look)

    evaluate, shared = runs.batch(of_one, axis), runs.share(look, axis)
    progress = Progress("energies", len(entries), unit="masks")
    with progress:
        progress.announce()
        for part, mine in missing:
            names = [", ".join(f"{k} {v}" for k, v in entry.name.items()) for entry in mine]
            given = runs.split(runs.stack([energy_inputs(entry, scored) for entry in mine]), axis)
            energies_of = runs.join(evaluate(given, shared))
            for energy, values in energies_of.items():
                for at in np.flatnonzero(~np.isfinite(values))[:1]:
                    raise UserError(
                        f'the energy "{energy}" is not finite for the mask of {names[at]}: lower '
                        "--learning_rate or choose other masks; the records until then are kept"
                    )
            made = [{k: float(v[i]) for k, v in energies_of.items()} for i in range(len(mine))]
            pairs = zip(mine, made, strict=True)
            memory_batches.finish(
                folder, part, [entry.name | {"energies": of} for entry, of in pairs]
            )
            found += made
            progress.update(len(found))
    return found


def costs(
    problem: Problem,
    train: TrainSettings,
    steps: tuple[int, ...],
    row: EnergyInputs,
    look: EvaluationData,
) -> dict[str, int]:
    """Name -> cost of one evaluation, in forward passes of one example."""
    made: dict[str, int] = {}
    for name, energy in _energies(problem, train, steps, row, look).items():
        said = _named(name, (name, name)) if name.startswith("loss") else (name,)
        made |= dict.fromkeys(said, energy.cost)
    return made


def _named(name: str, pair: Any) -> dict[str, Any]:
    return {name: pair[0], name.replace("loss", "error", 1): pair[1]}


def _energies(
    problem: Problem,
    train: TrainSettings,
    steps: tuple[int, ...],
    row: EnergyInputs,
    look: EvaluationData,
) -> dict[str, Energy]:
    """Name -> energy. Those whose names begin with `loss` also give the error rate."""
    recipe, key = problem.recipe, row.key
    images, labels = look.held_out

    def after(count: int, shape: str, draw: int) -> Energy:
        batches = Split(*(array[draw, :count] for array in look.training))
        steps_training = dataclasses.replace(train, learning_rates=shape)
        optimizer = optimizer_of(steps_training, count)(problem.hyper)
        return energies.trainability(
            recipe.model,
            recipe.loss,
            optimizer,
            row.params,
            row.stats,
            batches,
            images,
            labels,
            measure=both,
            noise_key=key,
        )

    flow = Split(*(array[0, :FLOW].reshape(-1, *array.shape[3:]) for array in look.training))
    made = {
        "loss": energies.fixed(recipe.model, row.params, row.stats, images, labels, both),
        "gradient flow": energies.gradient_flow(recipe.loss, row.params, row.stats, flow, key),
        "SNIP lost": energies.saliency(row.snip, problem.prunable),
        "SynFlow lost": energies.saliency(row.synflow, problem.prunable),
        "orthogonality": energies.orthogonality(row.params, problem.prunable),
    }
    for count in steps:
        made[f"loss, {count} steps"] = after(count, "constant", 0)
        made[f"loss, {count} steps to rate 0"] = after(count, "cosine", 0)
    middle = steps[len(steps) // 2]
    draws = [after(middle, "cosine", draw) for draw in range(DRAWS)]
    made[f"loss, {middle} steps to rate 0, mean of {DRAWS}"] = energies.mixture(
        draws, [1 / DRAWS] * DRAWS
    )
    return made


def criteria_of(
    problem: Problem, made: candidate_masks.Candidates
) -> dict[int, tuple[Scores, Scores]]:
    """Seed -> SNIP's and SynFlow's scores of the dense net at initialisation."""
    found: dict[int, tuple[Scores, Scores]] = {}
    for one in made.session.seeds:
        about = evidence(problem, one, None, made.session.data)
        snip, synflow = (
            find(name).score(mask_key(one, name, 1.0), about) for name in ("snip", "synflow")
        )
        found[one.number] = snip, synflow
    return found


def energy_inputs(entry: Entry, scored: dict[int, tuple[Scores, Scores]]) -> EnergyInputs:
    """The inputs of the energies of an entry's mask."""
    start, name = entry.start, entry.name
    key = stream(name["seed"], "energy", "study", name["density"])
    return EnergyInputs(key, start.params, start.stats, start.mask, *scored[name["seed"]])
