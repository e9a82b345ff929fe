"""The tickets that are drawn from a dense training: their masks, small nets and costs."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.early_bird.draw_plan import ANNEALED, DrawPlan
from experiments.harness.problem import Problem
from experiments.harness.seeds import Seed, examples, mask_key, training_key
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import Start
from jaxtickets import masks, nets, runs
from jaxtickets.compress.shrink import shrink
from jaxtickets.criteria import Evidence
from jaxtickets.recipes import early_bird
from jaxtickets.recipes.baseline_masks import random_layerwise
from jaxtickets.recipes.early_bird import DrawState
from jaxtickets.search.energies import training_cost
from jaxtickets.training import Watched
from jaxtickets.types import Array, Params, Stats, Ticket


class TicketBatch(NamedTuple):
    """The tickets of one net, which are trained in one batch.

    Attributes:
      problem: the net, its data and its training.
      entries: the trainings.
    """

    problem: Problem
    entries: list[Entry]


class DrawnTicket(NamedTuple):
    """A ticket before it is pruned.

    Attributes:
      method: its name in the table.
      weights: parameters and statistics at the epoch of the draw.
      bits: bool`[n]`, its mask as bits of the space.
      epoch: the epoch of its weights.
      masks_made: the number of masks that the draw needed.
      restarts: whether its training restarts at step 0.
    """

    method: str
    weights: tuple[Params, Stats]
    bits: Array
    epoch: int
    masks_made: int
    restarts: bool


def tickets(
    plan: DrawPlan, problem: Problem, seeds: Sequence[Seed], ends: Watched
) -> list[TicketBatch]:
    """The pruned tickets of all densities and seeds, in batches of the same net.

    For each density and seed there are

    - `early_bird`: drawn by the rule; missing if the rule drew none before the last epoch.
    - `random_layerwise`: a random mask with the same layer counts, on the same weights.
    - `late_mask`: the mask of the last epoch, on the same weights.
    - `drawn_at_E`: drawn at epoch E of `plan.draw_at`.
    - `late`: drawn at the last epoch and retrained: dense training, pruning, retraining.

    If `after` is `retrain`, the others are retrained from step 0 too, from the weights with which
    they were drawn and in another order of the data. Otherwise they continue at their epoch.

    Names hold the `drawn_epoch` of the weights, the remaining fraction of `multiply_adds`, and the
    cost in `dense_trainings`, see `cost`.
    """
    groups: dict[str, TicketBatch] = {}
    for row, density in enumerate(plan.keep):
        for i, one in enumerate(seeds):
            for candidate in _candidates(plan, one, runs.take(ends, i), row, density):
                start = 0 if candidate.restarts else candidate.epoch * plan.epoch
                spent = plan.epochs if candidate.method.startswith("late") else candidate.epoch
                net, ticket, share = _cut(plan, problem, candidate)
                label = json.dumps(nets.to_json(net))
                if label not in groups:
                    wiring = nets.wiring(net, problem.image_shape)
                    groups[label] = TicketBatch(problem.with_net(net, None, wiring), [])
                name = {
                    "method": candidate.method,
                    "density": density,
                    "seed": one.number,
                    "drawn_epoch": candidate.epoch,
                    "multiply_adds": round(share, 6),
                    "dense_trainings": round(
                        cost(plan, problem, spent, start, share, candidate.masks_made), 6
                    ),
                }
                key = training_key(one, int(candidate.restarts))
                begin = Start(key, problem.hyper, ticket.params, ticket.stats, ticket.mask)
                groups[label].entries.append(Entry(name, begin._replace(step=start)))
    return list(groups.values())


def cost(
    plan: DrawPlan, problem: Problem, epochs: int, start: int, share: float, masks_made: int
) -> float:
    """The total cost of a ticket, in dense trainings.

    It is the sum of three costs: the dense training up to the epoch of the mask; the annealing of
    the masks, if they are annealed; and the ticket's own training, whose passes take the fraction
    `share` of the dense multiply-adds. If weights are pruned, the saving is an upper bound, since
    few machines compute faster with unstructured zeros.

    Args:
      plan, problem: of the run.
      epochs: epochs of the dense training.
      start: the first step of the ticket's own training.
      share: the fraction of the dense net's multiply-adds.
      masks_made: the number of masks that the draw needed.
    """
    size, settings = problem.recipe.batch_size, plan.settings
    dense = training_cost(epochs * plan.epoch * size)
    own = training_cost((problem.steps - start) * size)
    if settings.criterion == ANNEALED:
        dense += masks_made * (settings.anneal_steps + 1) * examples(problem.dataset)
    return (dense + share * own) / training_cost(problem.steps * size)


def _candidates(
    plan: DrawPlan, one: Seed, end: Watched, row: int, density: float
) -> list[DrawnTicket]:
    """The unpruned tickets of a seed at a density: see `tickets`."""
    bird: DrawState = end.state.method_state
    queue, *early = runs.take(bird, row)
    restarts = plan.settings.after == "retrain"

    def bits(epoch: int) -> Array:
        return early_bird.mask_at(queue, epoch, plan.space.size)

    last, drawn = bits(plan.epochs), int(queue.drawn)
    late = DrawnTicket("late", (end.state.params, end.state.stats), last, plan.epochs, 1, True)
    candidates = []
    if 0 < drawn < plan.epochs:
        weights = early[0], early[1]
        about = Evidence(one.params, early[0], early[1], end.state.mask, None, None)
        key = mask_key(one, "random_layerwise", density)
        chance = random_layerwise(key, about, plan.space, bits(drawn), plan.settings.floor)
        candidates = [
            DrawnTicket("early_bird", weights, bits(drawn), drawn, drawn, restarts),
            DrawnTicket("random_layerwise", weights, chance, drawn, drawn, restarts),
            DrawnTicket("late_mask", weights, last, drawn, drawn + 1, restarts),
        ]
    for at, epoch in enumerate(plan.draw_at):
        candidate = DrawnTicket(
            f"drawn_at_{epoch}", runs.take(end.kept, at), bits(epoch), epoch, 1, restarts
        )
        candidates.append(candidate)
    return [*candidates, late]


def _cut(plan: DrawPlan, problem: Problem, candidate: DrawnTicket) -> tuple[Any, Ticket, float]:
    """The pruned net, its ticket, and the remaining fraction of the multiply-adds.

    Pruned units are removed from the net. Pruned weights are masked.
    """
    params, stats = candidate.weights
    if plan.graph is not None:
        whole = Ticket(params, stats, masks.ones(params), candidate.epoch * plan.epoch)
        units = early_bird.units_of(plan.graph, candidate.bits)
        net, ticket, found = shrink(problem.net, whole, units, plan.graph)
        return net, ticket, found.after.multiply_adds / found.before.multiply_adds
    mask = plan.space.mask(candidate.bits)
    uses = nets.positions(problem.net, problem.image_shape)
    kernels = masks.pick(mask, tuple(uses))
    left = sum(n * int(np.sum(k)) for n, k in zip(uses.values(), kernels, strict=True))
    total = sum(n * k.size for n, k in zip(uses.values(), kernels, strict=True))
    return problem.net, Ticket(params, stats, mask, candidate.epoch * plan.epoch), left / total
