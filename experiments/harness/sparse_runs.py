"""Sparse training (GraNet): the mask evolves while the net trains. Resumable."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax

from experiments.harness import chain_runs
from experiments.harness.budgeted_search import FoundMask, Task, dense_cost
from experiments.harness.cached_trainings import keep as keep_rows
from experiments.harness.chunked_run import check_finite, made_once, seconds
from experiments.harness.problem import Problem, optimizer_of
from experiments.harness.seeds import evidence, examples, mask_key
from experiments.harness.session import Session
from experiments.harness.settings import option
from experiments.harness.training_runs import start_of, train_all
from experiments.harness.training_settings import TrainSettings
from jaxtickets import allocation, masks, runs, training
from jaxtickets.criteria import CRITERIA
from jaxtickets.data import batches
from jaxtickets.dynamic import granet
from jaxtickets.dynamic.drop_and_grow import MovePlan
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream
from jaxtickets.recipes import imp
from jaxtickets.search.energies import training_cost
from jaxtickets.training import Moves
from jaxtickets.types import Array, Mask, Params, PyTree, Split, TrainState

GRANET = "granet"
"""The method's name."""
EVALUATIONS = 8
"""Evaluations on validation data, for the record; the last is at the end."""
IMAGES = 1000
"""The most training images on which a round's gradient is computed."""
MOST = 1_000_000_000
"""More training steps than anybody needs."""
LONGEST = 100
"""The approximate number of steps in a round of a long training."""
LEAST = 4
"""In short trainings: the target for rounds between evaluations, and for steps in a round."""


@dataclasses.dataclass(frozen=True)
class EvolveSettings:
    """How the mask evolves in GraNet."""

    granet_from: float = option(
        0.5,
        "initial density of granet, or --density if that is higher",
        above=0,
        most=1,
    )
    regrown: float = option(
        granet.REPLACED,
        "initial regeneration ratio of granet; 0: gradual pruning only",
        least=0,
        below=1,
    )


class SparseTrainingPlan(NamedTuple):
    """The length of a sparse training, planned from its budget.

    Attributes:
      rounds: the number of rounds, a multiple of `EVALUATIONS`. The mask changes after each round.
      every: training steps in a round.
      images: training images for the gradient after a round; they make whole batches.
      cost: the forward passes of one example that a chain takes.
    """

    rounds: int
    every: int
    images: int
    cost: int

    @property
    def steps(self) -> int:
        """The total number of training steps."""
        return self.rounds * self.every


def check_sparse_training(
    settings: EvolveSettings,
    problem: Problem,
    train: TrainSettings,
    densities: Sequence[float],
    floor: int,
    budget: float,
) -> None:
    """Raises UserError if `train_sparse` can't be done with these settings."""
    check_densities(problem, densities, floor)
    optimizer_of(train, plan_sparse_training(problem, budget).steps)


def check_densities(problem: Problem, densities: Sequence[float], floor: int) -> None:
    """Raises UserError if a density is outside (0, 1), or out of reach of the floors."""
    params = problem.param_shapes
    for density in densities:
        if not 0 < density < 1:
            raise UserError(f"density {density:g} is outside (0, 1)")
        try:
            allocation.global_(masks.shapes(params, problem.prunable), density, floor)
        except ValueError as error:
            raise UserError(str(error)) from error


def plan_sparse_training(problem: Problem, budget: float) -> SparseTrainingPlan:
    """The longest sparse training that costs no more than `budget` dense trainings.

    Raises:
      UserError: the budget is too small for a step in each of eight rounds, or pays for more than
        `MOST` steps.
    """
    data, batch = problem.dataset, problem.recipe.batch_size
    if not budget * problem.steps < MOST:
        raise UserError(f"--budget={budget:g}: more than {MOST} training steps")
    fixed = training_cost(examples(data)) + EVALUATIONS * len(data.validation.labels)
    rest = int(budget * dense_cost(problem)) - fixed
    most = max(rest, 0) // training_cost(batch)
    rounds = EVALUATIONS * max(
        1, most // (EVALUATIONS * LONGEST), min(LEAST, most // EVALUATIONS // LEAST)
    )
    images = max(batch, min(IMAGES, most * batch // rounds // 8))
    images = math.prod(batches.whole(images, batch))
    every = (rest // training_cost(1) // rounds - images) // batch
    if every < 1:
        least = fixed + training_cost(EVALUATIONS * 2 * batch)
        enough = f"{1.01 * least / dense_cost(problem):.3g} or more, or train for longer"
        raise UserError(f"--budget={budget:g}: too little for {GRANET}, give {enough}")
    return SparseTrainingPlan(
        rounds, every, images, fixed + rounds * training_cost(every * batch + images)
    )


def train_sparse(
    task: Task, settings: EvolveSettings, train: TrainSettings, budget: float, chains: int = 1
) -> list[FoundMask]:
    """Trains each seed's net by `dynamic.granet` and returns the final mask of each seed.

    The first mask is SNIP's at density `settings.granet_from` (or the target density, if higher).
    The net is trained like the dense net, for as long as the budget lasts. Only the mask is kept:
    it is later applied to the initial weights. A seed has several chains, which differ in the order
    of the data. The chain with the lowest final validation loss gives the mask.

    There is a metrics row for each chain and evaluation. It holds the metrics of a training and the
    number `kept` of weights. The rows of the phase `LABEL-schedule` hold the fraction `left` of the
    weights from each `step` on. `search_seconds` excludes the first masks.

    Args:
      task: the density and the seeds. Its label is the phase's name.
      settings: how the mask evolves.
      train: how the net is trained.
      budget: the cost of a chain in dense trainings, see `plan_sparse_training`.
      chains: the number of chains of each seed.

    Raises:
      UserError: SNIP's scores or a loss aren't finite.
    """
    session, label, density, floor = task
    problem, seeds = session.problem, session.seeds
    planned, prunable = plan_sparse_training(problem, budget), problem.prunable
    counts = counts_of(task, settings)
    moves = plan_moves(planned.rounds, counts, settings)

    size = masks.size(seeds[0].params, prunable)
    schedule = [
        {"density": density, "step": i * planned.every, "left": int(kept) / size}
        for i, kept in enumerate([counts.begin, *moves.ones])
    ]
    keep_rows(session.folder, f"{label}-schedule", schedule)

    def sparsify(
        inner: optax.GradientTransformation, mask: Mask, fill: Params | None, hyper: PyTree
    ) -> optax.GradientTransformationExtraArgs:
        del fill, hyper
        return granet.granet(inner, mask, prunable, moves, planned.every, floor, "global")

    def record(state: TrainState) -> dict[str, Array]:
        return {"kept": masks.count(state.mask, prunable)}

    evolving = session._replace(
        problem=problem.with_recipe(
            optimizer=optimizer_of(train, planned.steps),
            every=planned.steps // EVALUATIONS,
            evaluations_per_test=0,
            sparsify=sparsify,
            moves=Moves(planned.every, planned.images),
            record=record,
        )
    )

    begun = first_masks(task, settings)
    starts, names = [], []
    for i, one in enumerate(seeds):
        start = start_of(problem, one._replace(step=0), runs.take(begun, i))
        for chain in range(chains):
            key = stream(one.number, "moving_mask", label, density, chain)
            starts.append(start._replace(key=key))
            names.append({"density": density, "seed": one.number, "chain": chain})
    state = train_all(evolving, label, runs.stack(starts), names, end=planned.steps).state
    losses = losses_of(evolving, state)
    labels = [" ".join(f"{k} {v}" for k, v in name.items()) for name in names]
    check_finite(
        losses["search_validation_loss"][:, None], labels, planned.steps, "validation loss"
    )
    spent = round(seconds(session.folder, label) / len(seeds), 3)
    once = training_cost(examples(problem.dataset))  # SNIP's cost, once for all chains of a seed
    cost = chains * (planned.cost - once) + once
    found = []
    for i, one in enumerate(seeds):
        mine = slice(i * chains, (i + 1) * chains)
        best = mine.start + int(np.argmin(losses["search_validation_loss"][mine]))
        values = {name: round(float(each[best]), 6) for name, each in losses.items()}
        costs = {"forward_passes": cost, "search_seconds": spent}
        found.append(FoundMask(runs.take(state.mask, best), one.params, costs | values))
    return found


def tickets(
    task: Task, densities: Sequence[float], find: Callable[[Task], Sequence[FoundMask]]
) -> list[chain_runs.FoundTicket]:
    """The masks of a search at each density and seed, as bits over all prunable weights.

    Args:
      task: the seeds and the label. Its density is ignored; phases are named `LABEL-DENSITY`.
      densities: kept fractions.
      find: the search: a mask for each seed of a task.
    """
    found = []
    for density in densities:
        made = find(task._replace(density=density, label=f"{task.label}-{density:g}"))
        for seed, (mask, _, columns) in zip(task.session.seeds, made, strict=True):
            bits = masks.flatten(mask, task.session.problem.prunable)
            found.append(chain_runs.FoundTicket(density, seed, bits, bits, columns))
    return found


class Counts(NamedTuple):
    """The kept weights at first and in the end, and the fewest that the floors need."""

    begin: int
    end: int
    floor: int


def plan_moves(rounds: int, counts: Counts, settings: EvolveSettings) -> MovePlan:
    """The counts after each round."""
    begin, end, floor = counts
    return granet.plan(rounds, begin, end, fraction=settings.regrown, floor=floor)


def counts_of(task: Task, settings: EvolveSettings) -> Counts:
    """The counts of a search."""
    problem = task.session.problem
    shapes = masks.shapes(problem.param_shapes, problem.prunable)
    end = allocation.global_(shapes, task.density, task.floor)
    begin = max(end, allocation.global_(shapes, settings.granet_from, task.floor))
    least = sum(masks.floor_of(task.floor, shapes).values())
    return Counts(begin, end, least)


def first_masks(task: Task, settings: EvolveSettings) -> PyTree:
    """SNIP's masks with the first count, stacked over seeds; a resumed run loads them.

    Raises:
      UserError: a score isn't finite.
    """
    session, problem, seeds = task.session, task.session.problem, task.session.seeds
    first = counts_of(task, settings).begin

    def make() -> PyTree:
        found = []
        for one in seeds:
            seen = evidence(problem, one, None, session.data)
            key = mask_key(one, GRANET, task.density)
            try:
                mask = imp.prune(key, CRITERIA["snip"], seen, problem.prunable, first, task.floor)
            except ValueError as error:
                raise UserError(f"{GRANET}, seed {one.number}: {error}") from error
            found.append(mask)
        return runs.stack(found)

    shapes = runs.stack([masks.ones(seeds[0].params)] * len(seeds))
    return made_once(session, f"{task.label}-first", make, shapes)


def losses_of(session: Session, state: TrainState) -> dict[str, np.ndarray]:
    """float`[chains]`: the losses of the final nets on training and on validation data.

    As many training images are used as there are validation images.
    """
    recipe, data = session.problem.recipe, session.data
    many = len(data.validation.labels)
    seen = jax.tree.map(lambda a: a[:many], data.train)

    def one(row: tuple[PyTree, PyTree], seen: Split, others: Split) -> tuple[Array, Array]:
        def loss(split: Split) -> Array:
            return training.evaluate(recipe.model, recipe.prepare, row[0], row[1], split)["loss"]

        return loss(seen), loss(others)

    weights = state.params, state.stats
    on_seen, on_others = runs.over_runs(one, session.axis, weights, seen, data.validation)
    return {
        "search_loss": np.asarray(on_seen),
        "search_validation_loss": np.asarray(on_others),
    }
