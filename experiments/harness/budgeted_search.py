"""Runs budgeted searches for all seeds of a density; a search can be resumed at each phase."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.harness import annealed, annealed_start, memory, search_presets
from experiments.harness.chain_runs import lowest, run_chains, winners
from experiments.harness.chain_starts import ChainName, first_rows, walk_key
from experiments.harness.chunked_run import seconds
from experiments.harness.problem import Problem, optimizer_of
from experiments.harness.search_presets import Phase
from experiments.harness.seeds import evidence, examples, mask_key
from experiments.harness.session import Session
from experiments.harness.settings import MOST_RUNS, MOST_STEPS, option
from experiments.harness.training_settings import TrainSettings
from jaxtickets import allocation, criteria, masks, runs
from jaxtickets.io.errors import UserError
from jaxtickets.recipes.search_domain import ChainInputs, mask_at
from jaxtickets.search.annealing import StepPlan
from jaxtickets.search.chains import Chain
from jaxtickets.search.energies import training_cost
from jaxtickets.types import Key, Mask, Params


@dataclasses.dataclass(frozen=True)
class FindSettings:
    """The settings that divide a search's budget."""

    chains: int = option(
        8,
        "chains of each seed in the first phase; each later phase has half as many",
        least=1,
        most=MOST_RUNS,
    )
    phases: int = option(
        3, "parts of a search, each with twice the training steps", least=1, most=25
    )
    train_steps: int = option(
        25, "training steps of the energy in the first phase", least=1, most=MOST_STEPS
    )
    rewire_steps: int = option(
        200, "training steps before each swap of rewired masks", least=1, most=MOST_STEPS
    )
    shape: str = option(
        "cosine", "shape of the learning rate of the energy's trainings", ("cosine", "constant")
    )
    held_out: int = option(
        700, "training images that trained nets are scored on", least=1, most=10**9
    )


class Task(NamedTuple):
    """A search for masks of one density, one for each seed.

    Attributes:
      session: the net, its data and training, the seeds, and the run's folder.
      label: the search's name; the names of its phases begin with it.
      density: the kept fraction of the weights.
      floor: the least number of weights kept in each layer.
    """

    session: Session
    label: str
    density: float
    floor: int


class FoundMask(NamedTuple):
    """The mask that a method found for a seed.

    Attributes:
      mask: the mask.
      params: the weights that the mask selects from.
      columns: of the mask's summary row: `forward_passes`, the search's cost in forward passes of
        one example; for searches also `search_seconds`, and `search_loss` and
        `search_validation_loss`, the energy on training and on validation data.
    """

    mask: Mask
    params: Params
    columns: dict[str, Any]


def dense_cost(problem: Problem) -> int:
    """The cost of training the dense net, in forward passes of one example."""
    return training_cost(problem.steps * problem.recipe.batch_size)


def check_held_out(settings: FindSettings, problem: Problem) -> None:
    """Raises UserError if too few training images are left to train the nets of energies."""
    total = len(problem.dataset.train.labels)
    if settings.held_out + problem.recipe.batch_size > total:
        raise UserError(f"--held_out={settings.held_out}: there are {total} training images")


def plan_phases(
    settings: FindSettings, problem: Problem, preset: str, budget: float
) -> list[Phase]:
    """The phases of a search whose cost is `budget` dense trainings for each seed.

    Raises:
      UserError: the budget is too small, or there are too few training images.
    """
    data, size = problem.dataset, problem.recipe.batch_size
    check_held_out(settings, problem)
    each = memory.MASKS * masks.size(problem.param_shapes, problem.prunable)
    memory.check_memory(f"--chains={settings.chains}", settings.chains, each, "chains of a seed")
    single = search_presets.single_chain(preset)
    replaced = search_presets.replaced_share(preset)
    if replaced and settings.chains < 2:  # a population
        raise UserError(f"--chains={settings.chains}: {preset} takes 2 or more")
    dense = dense_cost(problem)
    try:
        return search_presets.phases(
            int(budget * dense),
            count=1 if single or replaced else settings.phases,
            most=1 if single else settings.chains,
            train_steps=settings.rewire_steps if single else settings.train_steps,
            batch=size,
            held_out=settings.held_out,
            validation=len(data.validation.labels),
            begin=search_presets.start_cost(preset, examples(data), data.classes),
            graded=single,
            replaced=replaced,
        )
    except ValueError as error:
        raise UserError(
            f"--budget={budget:g}, where a dense training takes {dense} forward passes: {error}"
        ) from error


def search_by_phases(
    task: Task, preset: str, settings: FindSettings, train: TrainSettings, budget: float
) -> list[FoundMask]:
    """Searches for a mask for each seed, phase by phase, and returns the best by validation.

    The phases are recorded as `LABEL-1`, `LABEL-2` and so on.

    Args:
      task: the search's density, seeds and folder.
      preset: the search's name in `search_presets.SEARCH_PRESETS`.
      settings, budget: see `plan_phases`.
      train: how the energy trains nets.

    Returns:
      A mask for each seed, in the order of the session's seeds.

    Raises:
      UserError: as in `plan_phases`.
    """
    session, label, density, floor = task
    problem, seeds, axis = session.problem, session.seeds, session.axis
    planned = plan_phases(settings, problem, preset, budget)
    energy_training = dataclasses.replace(train, learning_rates=settings.shape)
    image = problem.image_shape
    phases = [search_presets.settings(preset, phase, settings.held_out, floor) for phase in planned]
    where = annealed.domain_of(phases[0], seeds[0].params, problem.prunable, problem.wiring, image)
    chains = [ChainName(density, one, i) for one in seeds for i in range(planned[0].chains)]
    rows, most = first_rows(
        label, phases[0], where, chains, lambda one: evidence(problem, one, None, session.data)
    )
    ones = allocation.total(masks.shapes(seeds[0].params, problem.prunable), density)
    spent = 0.0
    for i, (phase, named) in enumerate(zip(planned, phases, strict=True)):
        sight = annealed.search_data(
            named, problem.recipe.prepare, problem.dataset.train, problem.dataset.validation
        )
        optimizer = optimizer_of(energy_training, phase.train_steps)(problem.hyper)
        search = annealed.build(named, problem.recipe, optimizer, where, problem.prunable, most)
        names = [{"density": density, "seed": c.seed.number, "chain": c.chain} for c in chains]
        part = f"{label}-{i + 1}"
        ends = run_chains(
            session,
            part,
            phase.steps,
            phase.chunk,
            search,
            chains=rows,
            names=names,
            sight=runs.share(sight, axis),
            group=phase.chains,
        )
        spent += seconds(session.folder, part)
        if i + 1 < len(planned):
            groups = np.array([name["seed"] for name in names])
            scores = np.asarray(ends.state.best_energy)
            chosen = search_presets.survivors(scores, groups, planned[i + 1].chains)
            chains = [chains[at] for at in chosen]
            keys = [walk_key(label, chain, i + 1) for chain in chains]
            ticks = annealed_start.step_plans(phases[i + 1], ones, most)
            rows = _go_on(rows, ends, chosen, keys, ticks)
    cost = sum(phase.cost for phase in planned)
    costs = {"forward_passes": cost, "search_seconds": round(spent / len(seeds), 3)}
    found = []
    for at in winners(chains, ends):
        row, point = runs.take((rows, ends.chosen), at)
        mask = mask_at(where, floor, row, point)
        found.append(FoundMask(mask, row.params, costs | lowest(ends, at)))
    return found


def _go_on(
    rows: ChainInputs, ends: Chain, chosen: np.ndarray, keys: Sequence[Key], ticks: StepPlan
) -> ChainInputs:
    """The inputs of the chains at `chosen`, with new keys and plans; they start at their best."""
    survivors = runs.take(rows, chosen)
    best = runs.take(ends.state.best, chosen)
    return survivors._replace(
        key=runs.stack(keys), start=best, ticks=runs.stack([ticks] * len(chosen))
    )


def random(task: Task, allocate: str) -> list[FoundMask]:
    """A random mask for each seed, with the layer counts of an allocation; it costs nothing.

    Args:
      task: the density, the seeds and the floor.
      allocate: a name in `allocation.ALLOCATIONS`.
    """
    problem, seeds = task.session.problem, task.session.seeds
    shapes = masks.shapes(seeds[0].params, problem.prunable)
    keep = allocation.ALLOCATIONS[allocate](shapes, task.density, task.floor)
    keys = [mask_key(one, f"random_{allocate}", task.density) for one in seeds]
    columns = {"forward_passes": 0}
    return [
        FoundMask(masks.random(key, one.params, problem.prunable, keep), one.params, columns)
        for key, one in zip(keys, seeds, strict=True)
    ]


def price(problem: Problem, criterion: str) -> int:
    """The cost of a criterion's mask in forward passes of one example.

    It is the cost of the scores; for a criterion of trained weights, that of a dense training.
    """
    record = criteria.find(criterion)
    if record.looks_at == "trained":
        return dense_cost(problem)
    data = problem.dataset
    return record.rounds * criteria.forward_passes(record, examples(data), data.classes)
