"""Trains gates for all seeds of a density, and improves their masks by annealing (polishing)."""

from functools import partial

import jax
import numpy as np

from experiments.harness import annealed, annealed_start, search_presets
from experiments.harness.budgeted_search import FoundMask, Task, dense_cost
from experiments.harness.chain_runs import lowest, run_chains
from experiments.harness.chain_starts import ChainName, chain_inputs
from experiments.harness.chunked_run import seconds
from experiments.harness.problem import Problem
from experiments.harness.seeds import training_key
from experiments.harness.training_runs import Start, train_all
from jaxtickets import allocation, gates, masks, runs
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream
from jaxtickets.search import energies
from jaxtickets.types import Key, Mask, Params, PyTree, Split, Stats


def gated(task: Task, name: str) -> list[FoundMask]:
    """Trains a gate on frozen weights for as long as the dense net; returns its masks.

    Every layer has the same density, as in edge-popup's paper. The weights are rescaled for it
    (`energies.rescale`); without this edge-popup learns far more slowly.

    Args:
      task: the density and the seeds, whose weights are frozen.
      name: the gate, one of `gates.GATES`.
    """
    session, label, density, floor = task
    problem, seeds, axis = session.problem, session.seeds, session.axis
    shapes = masks.shapes(seeds[0].params, problem.prunable)
    scale = partial(energies.rescale, prunable=problem.prunable)
    counts = allocation.uniform(shapes, density, floor)
    gate = gates.GATES[name](problem.prunable, counts, scale, steps=problem.steps)

    def begin(row: tuple[Key, Key, Params, Stats]) -> Start:
        gate_key, key, params, stats = row
        trained, gated_stats = gates.start(gate, gate_key, params, stats)
        return Start(key, problem.hyper, trained, gated_stats, masks.ones(trained))

    def end(row: tuple[PyTree, gates.GatedStats]) -> tuple[Mask, Params]:
        trained, frozen = row
        return gates.ticket(gate, trained, frozen)

    recipe = gates.recipe(gate, problem.recipe._replace(evaluations_per_test=0))
    names = [{"method": name, "density": density, "seed": one.number} for one in seeds]
    rows = [
        (stream(one.number, "gate", name, density), training_key(one), one.params, one.stats)
        for one in seeds
    ]
    starts = runs.over_runs(begin, axis, runs.stack(rows))
    gated_session = session._replace(problem=problem._replace(recipe=recipe))
    state = train_all(gated_session, label, starts, names).state
    found = runs.over_runs(end, axis, (state.params, state.stats))
    more = gate.extra_passes * problem.steps * problem.recipe.batch_size
    said = {
        "forward_passes": dense_cost(problem) + more,
        "search_seconds": round(seconds(session.folder, label) / len(seeds), 3),
    }
    each = (runs.take(found, i) for i in range(len(seeds)))
    return [FoundMask(mask, params, said) for mask, params in each]


def polish_plan(problem: Problem, budget: float) -> search_presets.Polish:
    """The annealing that improves a gate's mask, see `polished`.

    Raises:
      UserError: the gate uses up the budget, or too few images are left to train it.
    """
    rest, data = int((budget - 1) * dense_cost(problem)), problem.dataset
    images, size = len(data.train.labels), problem.recipe.batch_size
    try:
        planned = search_presets.polish(rest, images, len(data.validation.labels))
    except ValueError as error:
        raise UserError(f"--budget={budget:g}, of which a gate takes 1: {error}") from error
    left = images - planned.settings.images
    if left < size:
        raise UserError(
            f"--batch_size={size}: only {left} images are left for the gate, the others polish it"
        )
    return planned


def parted(split: Split, last: int) -> tuple[Split, Split]:
    """The split without its last `last` examples, and these."""
    return jax.tree.map(lambda x: x[:-last], split), jax.tree.map(lambda x: x[-last:], split)


def polished(task: Task, gate: str, budget: float) -> list[FoundMask]:
    """Improves a gate's masks by annealing with informed swaps; returns the best by validation.

    The layer counts don't change. The energy is the loss of the untrained net on training images
    that the gate hasn't seen, since the loss on the gate's own images is already close to zero.

    Args:
      task: see `gated`. Its label is the phase of the annealing.
      gate: the gate, one of `gates.GATES`.
      budget: the cost of both in dense trainings; the gate costs one.
    """
    session, label, density, _ = task
    folder, problem, seeds, data = session.folder, session.problem, session.seeds, session.data
    settings, price = polish_plan(problem, budget)
    seen, unseen = parted(data.train, settings.images)
    apart = session._replace(data=data._replace(train=seen))
    before = task._replace(session=apart, label=f"{label}-gate")
    begun = gated(before, gate)
    where = annealed.domain_of(settings, begun[0].params, problem.prunable, problem.wiring)
    bits = [where.space.bits(one.mask) for one in begun]
    most = annealed_start.largest_swap(settings, where.space, np.stack(bits))
    rows = [
        chain_inputs(
            label,
            ChainName(density, one, 0),
            found.params,
            b,
            annealed_start.step_plans(settings, int(b.sum()), most),
        )
        for one, found, b in zip(seeds, begun, bits, strict=True)
    ]
    scored = annealed.search_data(settings, problem.recipe.prepare, unseen, data.validation)
    optimizer = problem.recipe.optimizer(problem.hyper)
    made = annealed.build(settings, problem.recipe, optimizer, where, problem.prunable, most)
    names = [{"density": density, "seed": one.number, "chain": 0} for one in seeds]
    ends = run_chains(
        session,
        label,
        settings.steps,
        settings.chunk,
        made,
        chains=runs.stack(rows),
        names=names,
        sight=runs.share(scored, session.axis),
    )
    said = {
        "forward_passes": dense_cost(problem) + price,
        "search_seconds": round(
            (seconds(folder, before.label) + seconds(folder, label)) / len(seeds), 3
        ),
    }
    found = []
    for i, one in enumerate(begun):
        mask = where.space.mask(runs.take(ends.chosen, i))
        found.append(FoundMask(mask, one.params, said | lowest(ends, i)))
    return found
