"""Early-bird tickets: which are drawn from a search, how they are cut, and what each has cost."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.early_bird.drawing import ANNEALED, DrawPlan
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
    """Tickets of one net: a batch."""

    problem: Problem
    entries: list[Entry]


class DrawnTicket(NamedTuple):
    """A ticket before it is cut.

    Attributes:
      method: what it is called.
      weights: its parameters and statistics.
      bits: its mask.
      epoch: the epoch of its weights.
      looks: masks that had to be made for it.
      anew: whether its training begins anew.
    """

    method: str
    weights: tuple[Params, Stats]
    bits: Array
    epoch: int
    looks: int
    anew: bool


def tickets(
    plan: DrawPlan, problem: Problem, seeds: Sequence[Seed], ends: Watched
) -> list[TicketBatch]:
    """All that is trained after the search, cut, in groups of the same net.

    Of each density and seed:

    - `early_bird`: drawn by the rule; there is none where it was drawn at the last epoch or never.
    - `random_layerwise`: a random mask with its counts in each layer, on the same weights.
    - `late_mask`: the mask of the last epoch, also on these weights: is it a better one?
    - `drawn_at_E`: drawn at the epoch E of `plan.draw_at`.
    - `late`: drawn at the last epoch and trained anew: dense training, pruning, retraining.

    The others begin anew too where `after` is `retrain`, on the weights that they were drawn with,
    in another order of the data; else they go on at their epoch.

    Names hold the `drawn_epoch` of the weights, the share of `multiply_adds` that is left, and
    `dense_trainings`, see `cost`.
    """
    groups: dict[str, TicketBatch] = {}
    for row, density in enumerate(plan.keep):
        for i, one in enumerate(seeds):
            for ware in _wares(plan, one, runs.take(ends, i), row, density):
                start = 0 if ware.anew else ware.epoch * plan.epoch
                spent = plan.epochs if ware.method.startswith("late") else ware.epoch
                net, ticket, share = _cut(plan, problem, ware)
                label = json.dumps(nets.to_json(net))
                if label not in groups:
                    wiring = nets.wiring(net, problem.image_shape)
                    groups[label] = TicketBatch(problem.with_net(net, None, wiring), [])
                name = {
                    "method": ware.method,
                    "density": density,
                    "seed": one.number,
                    "drawn_epoch": ware.epoch,
                    "multiply_adds": round(share, 6),
                    "dense_trainings": round(
                        cost(plan, problem, spent, start, share, ware.looks), 6
                    ),
                }
                key = training_key(one, int(ware.anew))
                begin = Start(key, problem.hyper, ticket.params, ticket.stats, ticket.mask)
                groups[label].entries.append(Entry(name, begin._replace(step=start)))
    return list(groups.values())


def cost(
    plan: DrawPlan, problem: Problem, epochs: int, start: int, share: float, looks: int
) -> float:
    """What a ticket has cost in the end, in dense trainings.

    A dense training to the epoch that its mask comes from, the annealing of so many masks where
    they are annealed, and its own training from the step `start`, whose passes take `share` of a
    dense one's multiply-adds. For weights that is an upper bound of what could be saved: few
    machines are faster for zeros that lie anywhere.

    Args:
      plan, problem: of the run.
      epochs: of the dense training.
      start: the step that the ticket's own training begins at.
      share: of the multiply-adds that its net has.
      looks: masks that had to be made.
    """
    size, settings = problem.recipe.batch_size, plan.settings
    dense = training_cost(epochs * plan.epoch * size)
    own = training_cost((problem.steps - start) * size)
    if settings.criterion == ANNEALED:
        dense += looks * (settings.anneal_steps + 1) * examples(problem.dataset)
    return (dense + share * own) / training_cost(problem.steps * size)


def _wares(plan: DrawPlan, one: Seed, end: Watched, row: int, density: float) -> list[DrawnTicket]:
    bird: DrawState = end.state.method_state
    queue, *early = runs.take(bird, row)
    anew = plan.settings.after == "retrain"

    def bits(epoch: int) -> Array:
        return early_bird.mask_at(queue, epoch, plan.space.size)

    last, drawn = bits(plan.epochs), int(queue.drawn)
    late = DrawnTicket("late", (end.state.params, end.state.stats), last, plan.epochs, 1, True)
    made = []
    if 0 < drawn < plan.epochs:
        weights = early[0], early[1]
        about = Evidence(one.params, early[0], early[1], end.state.mask, None, None)
        key = mask_key(one, "random_layerwise", density)
        chance = random_layerwise(key, about, plan.space, bits(drawn), plan.settings.floor)
        made = [
            DrawnTicket("early_bird", weights, bits(drawn), drawn, drawn, anew),
            DrawnTicket("random_layerwise", weights, chance, drawn, drawn, anew),
            DrawnTicket("late_mask", weights, last, drawn, drawn + 1, anew),
        ]
    for at, epoch in enumerate(plan.draw_at):
        ware = DrawnTicket(
            f"drawn_at_{epoch}", runs.take(end.kept, at), bits(epoch), epoch, 1, anew
        )
        made.append(ware)
    return [*made, late]


def _cut(plan: DrawPlan, problem: Problem, ware: DrawnTicket) -> tuple[Any, Ticket, float]:
    """The net, its ticket, and the share of multiply-adds that is left.

    Units go for real, weights by a mask.
    """
    params, stats = ware.weights
    if plan.graph is not None:
        whole = Ticket(params, stats, masks.ones(params), ware.epoch * plan.epoch)
        units = early_bird.units_of(plan.graph, ware.bits)
        net, ticket, found = shrink(problem.net, whole, units, plan.graph)
        return net, ticket, found.after.multiply_adds / found.before.multiply_adds
    mask = plan.space.mask(ware.bits)
    uses = nets.positions(problem.net, problem.image_shape)
    kernels = masks.pick(mask, tuple(uses))
    left = sum(n * int(np.sum(k)) for n, k in zip(uses.values(), kernels, strict=True))
    total = sum(n * k.size for n, k in zip(uses.values(), kernels, strict=True))
    return problem.net, Ticket(params, stats, mask, ware.epoch * plan.epoch), left / total
