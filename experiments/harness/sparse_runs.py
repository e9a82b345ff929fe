"""Masks that evolve while the net trains sparse, for all seeds of a density: resumable."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax

from experiments.harness import chain_runs
from experiments.harness.budgeted_search import FoundMask, Task, dense_cost
from experiments.harness.cached_trainings import keep as keep_rows
from experiments.harness.chunked_run import check_finite, made_once, seconds
from experiments.harness.problem import Problem, TrainSettings, optimizer_of
from experiments.harness.seeds import evidence, examples, mask_key
from experiments.harness.session import Session
from experiments.harness.settings import option
from experiments.harness.training_runs import start_of, train_all
from jaxtickets import allocation, masks, runs, training
from jaxtickets.criteria import CRITERIA
from jaxtickets.data import batches
from jaxtickets.dynamic import granet
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream
from jaxtickets.recipes import imp
from jaxtickets.search.energies import training_cost
from jaxtickets.training import Moves
from jaxtickets.types import Array, Mask, Params, PyTree, Split, TrainState

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


class SparseTrainingPlan(NamedTuple):
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


def check_sparse_training(
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
    optimizer_of(train, plan_sparse_training(problem, budget).steps)


def plan_sparse_training(problem: Problem, budget: float) -> SparseTrainingPlan:
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
    images = math.prod(batches.whole(images, batch))
    every = (rest // training_cost(1) // rounds - images) // batch
    if every < 1:
        least = fixed + training_cost(LOOKS * 2 * batch)
        said = f"{1.01 * least / dense_cost(problem):.3g} at least, or train for longer"
        raise UserError(f"--budget={budget:g}: too little for {GRANET}, give {said}")
    return SparseTrainingPlan(
        rounds, every, images, fixed + rounds * training_cost(every * batch + images)
    )


def train_sparse(
    task: Task, settings: EvolveSettings, train: TrainSettings, budget: float, chains: int = 1
) -> list[FoundMask]:
    """The mask that each seed's net ends with when it is trained by `dynamic.granet`.

    It begins with SNIP's mask of `settings.granet_from` of the weights, or of the density where
    that is more, and is trained as the dense net is, for as long as the budget lasts. What the net
    has learnt is left behind: a mask is for the first weights. Of a seed's chains, which see the
    data in orders of their own, that with the least validation loss at the end gives the mask.

    Metrics rows, one a chain and look, hold what those of a training do, and the `kept` weights.
    Those of the phase `LABEL-schedule` hold the share of the weights that is `left` from each
    `step` on. `search_seconds` leave out the first masks.

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
    problem, seeds = session.problem, session.seeds
    planned, prunable = plan_sparse_training(problem, budget), problem.prunable
    shapes = masks.shapes(seeds[0].params, prunable)
    last = allocation.global_(shapes, density, floor)
    first = max(last, allocation.global_(shapes, settings.granet_from, floor))
    least = sum(masks.floor_of(floor, shapes).values())
    rounds = granet.schedule(planned.rounds, first, last, least, settings.regrown)

    size = masks.size(seeds[0].params, prunable)
    schedule = [
        {"density": density, "step": i * planned.every, "left": int(kept) / size}
        for i, kept in enumerate([first, *rounds.ones])
    ]
    keep_rows(session.folder, f"{label}-schedule", schedule)

    def sparsify(
        inner: optax.GradientTransformation, mask: Mask, fill: Params | None
    ) -> optax.GradientTransformationExtraArgs:
        del fill
        return granet.granet(inner, mask, prunable, rounds, planned.every, floor)

    def record(state: TrainState) -> dict[str, Array]:
        return {"kept": masks.count(state.mask, prunable)}

    evolving = session._replace(
        problem=problem.with_recipe(
            optimizer=optimizer_of(train, planned.steps),
            every=planned.steps // LOOKS,
            test_looks=0,
            sparsify=sparsify,
            moves=Moves(planned.every, planned.images),
            record=record,
        )
    )

    def first_masks() -> PyTree:
        """SNIP's, stacked over seeds."""
        found = []
        for one in seeds:
            seen = evidence(problem, one, None, session.data)
            key = mask_key(one, GRANET, density)
            try:
                found.append(imp.prune(key, CRITERIA["snip"], seen, prunable, first, floor))
            except ValueError as error:
                raise UserError(f"{GRANET}, seed {one.number}: {error}") from error
        return runs.stack(found)

    mask_shapes = runs.stack([masks.ones(seeds[0].params)] * len(seeds))
    begun = made_once(session, f"{label}-first", first_masks, mask_shapes)
    starts, names = [], []
    for i, one in enumerate(seeds):
        start = start_of(problem, one._replace(step=0), runs.take(begun, i))
        for chain in range(chains):
            key = stream(one.number, "moving_mask", label, density, chain)
            starts.append(start._replace(key=key))
            names.append({"density": density, "seed": one.number, "chain": chain})
    state = train_all(evolving, label, runs.stack(starts), names, end=planned.steps).state
    losses = _losses(evolving, state)
    labels = [" ".join(f"{k} {v}" for k, v in name.items()) for name in names]
    check_finite(
        losses["search_validation_loss"][:, None], labels, planned.steps, "validation loss"
    )
    spent = round(seconds(session.folder, label) / len(seeds), 3)
    once = training_cost(examples(problem.dataset))  # SNIP's, for all chains of a seed
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
    task: Task,
    densities: Sequence[float],
    settings: EvolveSettings,
    train: TrainSettings,
    budget: float,
    chains: int = 1,
) -> list[chain_runs.FoundTicket]:
    """What `search` finds at each density and for each seed, as bits over all prunable weights.

    Args:
      task: what is looked for; its density isn't used, and phases are `LABEL-DENSITY`.
      densities: kept fractions.
      settings, train, budget, chains: see `search`.
    """
    found = []
    for density in densities:
        one = task._replace(density=density, label=f"{task.label}-{density:g}")
        made = train_sparse(one, settings, train, budget, chains)
        for seed, (mask, _, said) in zip(task.session.seeds, made, strict=True):
            bits = masks.flatten(mask, task.session.problem.prunable)
            found.append(chain_runs.FoundTicket(density, seed, bits, bits, said))
    return found


def _losses(session: Session, state: TrainState) -> dict[str, np.ndarray]:
    """float`[chains]`: of the nets that chains end with, on the data they saw and on others.

    On as many training images as there are for validation.
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
