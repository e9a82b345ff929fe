"""Masks that evolve while the net trains sparse, for all seeds of a density: resumable."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import chain_runs
from experiments.harness.budgeted_search import Found, Task, dense_cost
from experiments.harness.chunked_run import check_finite, run_in_chunks, seconds
from experiments.harness.problem import Problem, TrainSettings, optimizer_of
from experiments.harness.progress import Progress
from experiments.harness.seeds import Seed, evidence, examples, mask_key
from jaxtickets import allocation, masks, runs, training
from jaxtickets.criteria import CRITERIA
from jaxtickets.dynamic import granet
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream
from jaxtickets.recipes import imp
from jaxtickets.runs import Axis, Blocks
from jaxtickets.search.energies import training_cost
from jaxtickets.settings import option
from jaxtickets.training import Recipe
from jaxtickets.types import Array, Dataset, Key, PyTree, Split, TrainState

GRANET = "granet"
"""What this way to a mask is called."""
LOOKS = 8
"""Looks at the validation data, for the record, the last at the end."""
IMAGES = 1000
"""The most training images that the gradient of a round is of."""
MOST = 1_000_000_000
"""More training steps than anybody means."""
LONGEST = 100
"""Steps of a round, about, of long evolutions."""
LEAST = 4
"""Rounds between two looks, and steps of a round, that short evolutions aim at."""


@dataclasses.dataclass(frozen=True)
class EvolveSettings:
    """How masks evolve."""

    granet_from: float = option(
        0.5,
        "granet's initial density; where the density asked for is higher, that",
        above=0,
        most=1,
    )
    regrown: float = option(
        granet.REGROWN,
        "granet's regeneration ratio at first; 0: gradual pruning alone",
        least=0,
        below=1,
    )


class Plan(NamedTuple):
    """An evolution, planned from its budget.

    Attributes:
      rounds: after each of which the mask changes; a multiple of `LOOKS`.
      every: training steps of a round.
      images: that the gradient after a round is of; they make whole batches.
      cost: forward passes of one example that it takes.
    """

    rounds: int
    every: int
    images: int
    cost: int

    @property
    def steps(self) -> int:
        """Training steps in all."""
        return self.rounds * self.every


def check(
    settings: EvolveSettings,
    problem: Problem,
    train: TrainSettings,
    densities: Sequence[float],
    floor: int,
    budget: float,
) -> None:
    """Raises UserError for an evolution that can't be; see `search`."""
    params = problem.param_shapes
    for density in densities:
        if not 0 < density < 1:
            raise UserError(f"density {density:g} is outside (0, 1)")
        try:
            allocation.global_(masks.shapes(params, problem.prunable), density, floor)
        except ValueError as error:
            raise UserError(str(error)) from error
    optimizer_of(train, plan(problem, budget).steps)


def plan(problem: Problem, budget: float) -> Plan:
    """The longest evolution that costs no more than `budget` dense trainings.

    Raises:
      UserError: not even eight steps are paid for, or more than a computer counts.
    """
    data, batch = problem.dataset, problem.recipe.batch_size
    if not budget * problem.steps < MOST:
        raise UserError(f"--budget={budget:g}: more than {MOST} training steps")
    fixed = training_cost(examples(data)) + LOOKS * len(data.validation.labels)
    rest = int(budget * dense_cost(problem)) - fixed
    most = max(rest, 0) // training_cost(batch)
    rounds = LOOKS * max(1, most // (LOOKS * LONGEST), min(LEAST, most // LOOKS // LEAST))
    images = max(batch, min(IMAGES, most * batch // rounds // 8))
    images = math.prod(granet.gradient_batches(images, batch))
    every = (rest // training_cost(1) // rounds - images) // batch
    if every < 1:
        least = fixed + training_cost(LOOKS * 2 * batch)
        said = f"{1.01 * least / dense_cost(problem):.3g} at least, or train for longer"
        raise UserError(f"--budget={budget:g}: too little for {GRANET}, give {said}")
    return Plan(rounds, every, images, fixed + rounds * training_cost(every * batch + images))


def _chunk(planned: Plan, problem: Problem) -> int:
    """Rounds of a chunk: as many as divide those between two looks and last an epoch at most."""
    length = planned.rounds // LOOKS
    epoch = problem.epoch_steps
    fit = (m for m in range(length, 0, -1) if length % m == 0 and m * planned.every <= epoch)
    return next(fit, 1)


class _Row(NamedTuple):
    """What one evolution is given."""

    key: Key
    hyper: PyTree


def search(
    task: Task, settings: EvolveSettings, train: TrainSettings, budget: float, chains: int = 1
) -> list[Found]:
    """The mask that each seed's net ends with when it is trained by `dynamic.granet`.

    It begins with SNIP's mask of `settings.granet_from` of the weights, or of the density where
    that is more, and is trained as the dense net is, for as long as the budget lasts. What the net
    has learnt is left behind: a mask is for the first weights. Of a seed's chains, which see the
    data in orders of their own, that with the least validation loss at the end gives the mask.

    Metrics rows, one a chain and chunk, hold `step`, `kept` weights and the share `left`,
    `train_loss`, and eight times, the last at the end, of the validation data `loss` and
    `accuracy`. `search_seconds` leave out the first masks.

    Args:
      task: what is looked for; its label is the phase's.
      settings: how the mask evolves.
      train: how the net is trained.
      budget: dense trainings that a chain may cost, see `plan`.
      chains: of each seed.

    Raises:
      UserError: SNIP's scores are not numbers, or a loss isn't.
    """
    session, label, density, floor = task
    folder, problem, axis = session.folder, session.problem, session.axis
    data, seeds = session.data, session.seeds
    planned, prunable = plan(problem, budget), problem.prunable
    optimizer = optimizer_of(train, planned.steps)
    recipe = problem.recipe._replace(optimizer=optimizer, test_looks=0)
    shapes = masks.shapes(seeds[0].params, prunable)
    size = masks.size(seeds[0].params, prunable)
    last = allocation.global_(shapes, density, floor)
    first = max(last, allocation.global_(shapes, settings.granet_from, floor))
    least = sum(masks.floor_of(floor, shapes).values())
    to = granet.plan(planned.rounds, first, last, least, settings.regrown)
    length = _chunk(planned, problem)
    looks = planned.rounds // LOOKS // length
    shared = runs.share(training.Splits(data.train, data.validation), axis)

    def begun(one: Seed) -> TrainState:
        seen = evidence(problem, one, None, data)
        key = mask_key(one, GRANET, density)
        try:
            mask = imp.prune(key, CRITERIA["snip"], seen, prunable, first, floor)
        except ValueError as error:
            raise UserError(f"{GRANET}, seed {one.number}: {error}") from error
        return training.init(one.params, one.stats, mask, optimizer(problem.hyper))

    def begin() -> tuple[_Row, TrainState]:
        keys = [
            stream(one.number, "moving_mask", label, density, i)
            for one in seeds
            for i in range(chains)
        ]
        given = [_Row(key, problem.hyper) for key in keys]
        states = [begun(one) for one in seeds]
        return runs.stack(given), runs.stack([state for state in states for _ in range(chains)])

    def advance_one(
        pair: tuple[_Row, TrainState], now: tuple[granet.Round, Array], splits: training.Splits
    ) -> tuple[tuple[_Row, TrainState], dict[str, Array]]:
        (row, state), (to, due) = pair, now
        how = planned.every, planned.images, prunable, floor
        state, seen = granet.piece(recipe, row.key, row.hyper, state, splits.train, to, *how)

        def look() -> dict[str, Array]:
            weights = state.params, state.stats
            return training.evaluate(recipe.model, recipe.prepare, *weights, splits.validation)

        nothing = {"loss": jnp.float32(0), "accuracy": jnp.float32(0)}
        looked = jax.lax.cond(due, look, lambda: nothing)
        ones = masks.count(state.mask, prunable)
        return (row, state), {"kept": ones, "train_loss": jnp.ravel(seen["loss"]), **looked}

    advance = runs.batch(advance_one, axis)
    names = [
        {"density": density, "seed": one.number, "chain": i} for one in seeds for i in range(chains)
    ]

    def is_look(i: int) -> bool:
        return (i + 1) % looks == 0

    def step(blocks: Blocks, i: int) -> tuple[Blocks, Blocks]:
        mine = jax.tree.map(lambda a: a[i * length : (i + 1) * length], to)
        return runs.unzip(advance(blocks, runs.share((mine, np.bool_(is_look(i))), axis), shared))

    validated: dict[str, str | float] = {}

    def report(i: int, seen: dict[str, np.ndarray]) -> tuple[list[dict[str, Any]], dict]:
        at = (i + 1) * length * planned.every
        labels = [" ".join(f"{k} {v}" for k, v in name.items()) for name in names]
        losses = seen["train_loss"]
        check_finite(losses, labels, at - length * planned.every, "training loss")
        seen |= {"train_loss": losses.mean(1), "left": seen["kept"] / size}
        looked = {name: seen.pop(name) for name in ("loss", "accuracy")}
        if is_look(i):
            check_finite(looked["loss"][:, None], labels, at, "validation loss")
            seen |= looked
            validated["validation"] = looked["accuracy"].mean()
        made = [
            {**name, "step": at, **{field: values[j] for field, values in seen.items()}}
            for j, name in enumerate(names)
        ]
        return made, {"weights": seen["left"].mean(), "loss": losses.mean(), **validated}

    images = problem.recipe.batch_size * len(names)
    formats = {"validation": ".2%", "weights": ".2%"}
    progress = Progress(f"{label}, {len(names)} chains", planned.steps, formats, "images", images)
    ends = range(length * planned.every, planned.steps + 1, length * planned.every)
    state = run_in_chunks(session, label, begin, ends, step, report, progress)[1]
    losses = _losses(recipe, axis, state, data)
    spent = round(seconds(folder, label) / len(seeds), 3)
    once = training_cost(examples(problem.dataset))  # SNIP's, for all chains of a seed
    cost = chains * (planned.cost - once) + once
    said = {"forward_passes": cost, "search_seconds": spent}
    found = []
    for i, one in enumerate(seeds):
        best = i * chains + int(np.argmin(losses["search_validation_loss"][i * chains :][:chains]))
        mine = {name: round(float(values[best]), 6) for name, values in losses.items()}
        found.append(Found(runs.take(state.mask, best), one.params, said | mine))
    return found


def tickets(
    task: Task,
    densities: Sequence[float],
    settings: EvolveSettings,
    train: TrainSettings,
    budget: float,
    chains: int = 1,
) -> list[chain_runs.Found]:
    """What `search` finds at each density and for each seed, as bits over all prunable weights.

    Args:
      task: what is looked for; its density isn't used, and phases are `LABEL-DENSITY`.
      densities: kept fractions.
      settings, train, budget, chains: see `search`.
    """
    found = []
    for density in densities:
        one = task._replace(density=density, label=f"{task.label}-{density:g}")
        made = search(one, settings, train, budget, chains)
        for seed, (mask, _, said) in zip(task.session.seeds, made, strict=True):
            bits = masks.flatten(mask, task.session.problem.prunable)
            found.append(chain_runs.Found(density, seed, bits, bits, said))
    return found


def _losses(recipe: Recipe, axis: Axis, state: TrainState, data: Dataset) -> dict[str, np.ndarray]:
    """float`[chains]`: of the nets that chains end with, on the data they saw and on others.

    On as many training images as there are for validation.
    """
    many = len(data.validation.labels)
    seen = jax.tree.map(lambda a: a[:many], data.train)

    def one(row: tuple[PyTree, PyTree], *splits: Split) -> tuple[Array, ...]:
        how = recipe.model, recipe.prepare, *row
        return tuple(training.evaluate(*how, split)["loss"] for split in splits)

    both = runs.over_runs(one, axis, (state.params, state.stats), seen, data.validation)
    return dict(zip(("search_loss", "search_validation_loss"), map(np.asarray, both), strict=True))
