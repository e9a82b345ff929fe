"""Masks to be compared: made by criteria, or taken from the tickets of other runs."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.harness import saved_tickets
from experiments.harness.dense_store import Dense, StoreSettings, dense_nets
from experiments.harness.flags import BatchSettings, RunSettings, numbers
from experiments.harness.problem import NetSettings, Problem, TrainSettings
from experiments.harness.seeds import evidence, mask_key, training_key
from experiments.harness.session import Session, start_run
from experiments.harness.settings import option
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import Start, chunk_plan
from jaxtickets import allocation, criteria, masks, runs
from jaxtickets.criteria import Criterion
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream
from jaxtickets.recipes import iterative_pruning
from jaxtickets.runs import Axis
from jaxtickets.types import Array, Keep, Key, Mask, Params, PyTree, Split, Stats


@dataclass(frozen=True)
class GallerySettings:
    """Which masks; each field is also a flag of the same name."""

    criteria: tuple = option(
        ("random", "magnitude", "magnitude_same_sign", "snip", "grasp", "synflow"),
        "what prunes; inverted_, normalised_ or initial_ before a name change its scores",
        empty=True,
    )
    density: tuple = option((0.2,), "kept fractions of the prunable weights", above=0, most=1)
    allocation: str = option(
        "global", "how layers share the weights kept", tuple(allocation.ALLOCATIONS)
    )
    floor: int = option(0, "the least that a layer keeps", least=0, most=10**9)
    rounds: int = option(
        0,
        "of criteria that take several rounds to a mask; 0: as many as each asks for",
        least=0,
        most=10**4,
    )
    tickets: tuple = option((), "folders of saved tickets, or patterns; LABEL=PATTERN names them")


GROUPS = (
    GallerySettings(),
    NetSettings(model="lenet300_100"),
    TrainSettings(),
    BatchSettings(),
)
"""The last settings of an experiment on a gallery, with the defaults that they share."""


class MaskPlan(NamedTuple):
    """The masks of a run, before any is made.

    Attributes:
      settings: which, with the folder and a digest of each ticket in place of patterns.
      keep: density -> what is kept.
      saved: tickets of other runs.
    """

    settings: GallerySettings
    keep: dict[float, Keep]
    saved: list[saved_tickets.Saved]


class Candidates(NamedTuple):
    """A run that has begun, with its masks.

    Attributes:
      session: the run.
      plan: what was asked for.
      dense: their dense nets, trained; None where nothing needs them.
      summary: a row of each dense net; empty where there are none.
      entries: see `entries_of`.
    """

    session: Session
    plan: MaskPlan
    dense: Dense | None
    summary: list[dict[str, Any]]
    entries: list[Entry]


def start_candidates(
    experiment: str,
    place: RunSettings,
    store: StoreSettings,
    parts: Sequence[Any],
    axis: Axis,
    problem: Problem,
    trained: bool,
    others: bool = False,
) -> Candidates:
    """Checks what is left to check, opens the run, and makes the masks.

    Args:
      experiment, place, axis, problem: see `start_run`.
      store: where dense nets are.
      parts: settings, the last four those of `GROUPS`; the spec has the plan's settings in place
        of the gallery's.
      trained: whether masks are trained as dense nets are, from the step that they are of, beside
        these; else dense nets are there only if a criterion looks at them.
      others: whether the experiment has masks beside the gallery's, which then may be empty.

    Raises:
      UserError: see `plan` and `check_starts`; NaN among a criterion's scores.
    """
    *own, settings, net, train, batch = parts
    planned = plan_masks(settings, problem)
    if not (settings.criteria or planned.saved or others):
        raise UserError("--criteria is empty: give one, or --tickets to look at")
    if trained:
        check_starts(planned, problem)
    spec = [*own, planned.settings, net, train, batch]
    session = start_run(experiment, place, spec, axis, problem)
    dense = None
    if trained or looks_at_trained(settings):
        dense = dense_nets(session, train, store)
    summary = dense.summary if dense else []
    entries = entries_of(session, planned, dense)
    return Candidates(session, planned, dense, summary, entries)


def plan_masks(settings: GallerySettings, problem: Problem) -> MaskPlan:
    """Checks all that can be checked before work starts.

    Raises:
      UserError: a criterion, a density or a ticket that can't be; the message names it.
    """
    params = problem.param_shapes
    shapes = masks.shapes(params, problem.prunable)
    allocate = allocation.ALLOCATIONS[settings.allocation]
    try:
        for name in settings.criteria:
            criteria.find(name)
        densities = sorted(set(numbers("density", settings.density)), reverse=True)
        keep = {density: allocate(shapes, density, settings.floor) for density in densities}
    except ValueError as error:
        raise UserError(str(error)) from error
    places, saved = saved_tickets.find_saved(settings.tickets, problem)
    return MaskPlan(dataclasses.replace(settings, tickets=places), keep, saved)


def check_starts(plan: MaskPlan, problem: Problem) -> None:
    """Raises UserError for a saved ticket that can't be trained from the step that it is of."""
    for name, ticket in plan.saved:
        try:
            chunk_plan(problem, [int(ticket.rewind_step)], problem.steps)
        except ValueError as error:
            raise UserError(f"the ticket {saved_tickets.words(name)}: {error}") from error


def looks_at_trained(settings: GallerySettings) -> bool:
    """Whether any criterion looks at trained weights."""
    return any(criteria.find(name).looks_at == "trained" for name in settings.criteria)


def entries_of(session: Session, plan: MaskPlan, dense: Dense | None) -> list[Entry]:
    """An entry for each criterion, density and seed, and one for each saved ticket.

    A criterion's mask lies over the weights of its seed; a saved ticket keeps its own, and is
    trained in the order of data of its own seed. Without dense nets, no criterion may look at
    trained weights.
    """
    settings, entries = plan.settings, []
    problem, seeds = session.problem, session.seeds
    shapes = masks.shapes(seeds[0].params, problem.prunable)
    sizes = {path: int(np.prod(shape)) for path, shape in shapes.items()}
    whole, batches = (
        masks.ones(seeds[0].params),
        evidence(problem, seeds[0], None, session.data).batches,
    )
    for name in settings.criteria:
        criterion = criteria.find(name)
        count = criterion.rounds
        if count > 1 and settings.rounds:
            count = settings.rounds
        draw = _drawer(problem, criterion, settings.floor)
        wanted = [iterative_pruning.counts(sizes, kept, count) for kept in plan.keep.values()]
        drawn = []
        for i, one in enumerate(seeds):
            scored = one.params, one.stats
            if dense is not None and criterion.looks_at == "trained":
                scored = runs.take((dense.params, dense.stats), i)
            where = one.params, *scored, whole, batches
            keys = [mask_key(one, name, density) for density in plan.keep]
            if count == 1 and not criterion.draws:  # scored once for all densities
                found = draw(keys, *where, wanted)
            else:
                found = [draw([k], *where, [w])[0] for k, w in zip(keys, wanted, strict=True)]
            if any(unknown for _, unknown in found):
                raise UserError(f"--criteria={name}: NaN among its scores, seed {one.number}")
            drawn.append([mask for mask, _ in found])
        for at, density in enumerate(plan.keep):
            for one, made in zip(seeds, drawn, strict=True):
                said = {"method": name, "density": density, "seed": one.number}
                start = one.params, one.stats, made[at], one.step
                entries.append(Entry(said, Start(training_key(one), problem.hyper, *start)))
    for name, ticket in plan.saved:
        own = ticket.params, ticket.stats, ticket.mask, ticket.rewind_step
        order = stream(name["seed"], "training", 0, 0)
        entries.append(Entry(name, Start(order, problem.hyper, *own)))
    return entries


def _drawer(problem: Problem, criterion: Criterion, floor: int) -> Any:
    """What makes a criterion's masks, compiled once for all seeds.

    It takes a key and what is wanted for each of several densities; the first round scores the
    dense net once for all of them, with the first key.
    """
    recipe = problem.recipe

    @jax.jit
    def draw(
        keys: list[Key],
        init: Params,
        params: Params,
        stats: Stats,
        whole: Mask,
        batches: Split,
        wanted: list[PyTree],
    ) -> list[tuple[Mask, Array]]:
        seen = init, params, stats, whole, batches
        given = criteria.Evidence(*seen, recipe.loss, recipe.model, recipe.prepare)
        given = given._replace(prunable=problem.prunable)
        one = criterion
        if len(keys) > 1:
            scores = criterion.score(keys[0], given)
            one = criterion._replace(score=lambda key, evidence: scores)
        return [
            iterative_pruning.prune_to(k, one, given, problem.prunable, w, floor)
            for k, w in zip(keys, wanted, strict=True)
        ]

    return draw
