"""Candidate masks: made by criteria, or loaded from the saved tickets of other runs."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.harness import saved_tickets
from experiments.harness.dense_store import Dense, StoreSettings, dense_nets
from experiments.harness.flags import BatchSettings, RunSettings, numbers
from experiments.harness.problem import Problem
from experiments.harness.seeds import evidence, mask_key
from experiments.harness.session import Session, start_run
from experiments.harness.settings import option
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import Start, chunk_plan, start_of
from experiments.harness.training_settings import NetSettings, TrainSettings
from jaxtickets import allocation, criteria, masks, runs
from jaxtickets.criteria import Criterion
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream
from jaxtickets.recipes import iterative_pruning
from jaxtickets.runs import Axis
from jaxtickets.types import Array, Keep, Key, Mask, Params, PyTree, Split, Stats


@dataclass(frozen=True)
class GallerySettings:
    """The candidate masks. Each field is also a flag of the same name."""

    criteria: tuple = option(
        ("random", "magnitude", "magnitude_same_sign", "snip", "grasp", "synflow"),
        "pruning criteria; the prefixes inverted_, normalised_ and initial_ make variants",
        empty=True,
    )
    density: tuple = option((0.2,), "kept fractions of the prunable weights", above=0, most=1)
    allocation: str = option(
        "global", "how the kept weights are shared among layers", tuple(allocation.ALLOCATIONS)
    )
    floor: int = option(0, "minimum number of weights that a layer keeps", least=0, most=10**9)
    rounds: int = option(
        0,
        "pruning rounds of criteria that prune iteratively; 0: each criterion's own number",
        least=0,
        most=10**4,
    )
    tickets: tuple = option(
        (), "folders of saved tickets, or glob patterns; LABEL=PATTERN names their method"
    )


GROUPS = (
    GallerySettings(),
    NetSettings(model="lenet300_100"),
    TrainSettings(),
    BatchSettings(),
)
"""The last settings of every experiment on candidate masks, with their shared defaults."""


class MaskPlan(NamedTuple):
    """The plan of a run's candidate masks.

    Attributes:
      settings: the settings, with the folder and a digest of each ticket in place of patterns.
      keep: density -> how many weights are kept, in all or in each leaf.
      saved: the tickets of other runs.
    """

    settings: GallerySettings
    keep: dict[float, Keep]
    saved: list[saved_tickets.Saved]


class Candidates(NamedTuple):
    """A started run with its candidate masks.

    Attributes:
      session: the run.
      plan: the plan of the masks.
      dense: the trained dense nets; None if nothing needs them.
      summary: a row of each dense net; empty if there are none.
      entries: an entry for each mask, see `entries_of`.
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
    """Checks the settings of the masks, starts the run, and makes the masks.

    Args:
      experiment, place, axis, problem: see `start_run`.
      store: the store of dense nets.
      parts: the settings; the last four are those of `GROUPS`. The spec contains the plan's
        settings in place of the first of these four.
      trained: whether the experiment trains the masks and compares them with dense nets. If not,
        dense nets are trained only if a criterion needs trained weights.
      others: whether the experiment has other masks too. If so, there may be no candidates.

    Raises:
      UserError: see `plan_masks` and `check_starts`; or a criterion's scores contain NaN.
    """
    *own, settings, net, train, batch = parts
    planned = plan_masks(settings, problem)
    if not (settings.criteria or planned.saved or others):
        raise UserError("--criteria is empty: give one or more, or --tickets")
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
    """Checks the settings of the candidate masks and loads the saved tickets.

    Raises:
      UserError: a criterion, a density or a ticket is invalid; the message names it.
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
    """Raises UserError if a saved ticket can't be trained from the step of its weights."""
    for name, ticket in plan.saved:
        try:
            chunk_plan(problem, [int(ticket.rewind_step)], problem.steps)
        except ValueError as error:
            raise UserError(f"the ticket {saved_tickets.words(name)}: {error}") from error


def looks_at_trained(settings: GallerySettings) -> bool:
    """Whether any criterion scores trained weights."""
    return any(criteria.find(name).looks_at == "trained" for name in settings.criteria)


def entries_of(session: Session, plan: MaskPlan, dense: Dense | None) -> list[Entry]:
    """An entry for each criterion, density and seed, and one for each saved ticket.

    A criterion's mask is applied to the weights of its seed. A saved ticket keeps its own weights
    and is trained in its own seed's order of the data. If `dense` is None, no criterion may score
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
            params, stats = one.params, one.stats
            if dense is not None and criterion.looks_at == "trained":
                params, stats = runs.take((dense.params, dense.stats), i)
            drawn_of = partial(
                draw, init=one.params, params=params, stats=stats, whole=whole, batches=batches
            )
            keys = [mask_key(one, name, density) for density in plan.keep]
            if count == 1 and not criterion.draws:  # one score serves all densities
                found = drawn_of(keys, wanted=wanted)
            else:
                found = [drawn_of([k], wanted=[w])[0] for k, w in zip(keys, wanted, strict=True)]
            if any(unknown for _, unknown in found):
                raise UserError(f"--criteria={name}: its scores contain NaN, seed {one.number}")
            drawn.append([mask for mask, _ in found])
        for at, density in enumerate(plan.keep):
            for one, made in zip(seeds, drawn, strict=True):
                fields = {"method": name, "density": density, "seed": one.number}
                entries.append(Entry(fields, start_of(problem, one, made[at])))
    for name, ticket in plan.saved:
        start = Start(
            key=stream(name["seed"], "training", 0, 0),
            hyper=problem.hyper,
            params=ticket.params,
            stats=ticket.stats,
            mask=ticket.mask,
            step=ticket.rewind_step,
        )
        entries.append(Entry(name, start))
    return entries


def _drawer(problem: Problem, criterion: Criterion, floor: int) -> Any:
    """Returns a compiled function that makes a criterion's masks, the same for all seeds.

    The function takes a list of keys and a list of counts, one for each density. The first round
    scores the dense net once for all densities, with the first key.
    """

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
        given = problem.evidence(init, params, stats, whole, batches)
        one = criterion
        if len(keys) > 1:
            scores = criterion.score(keys[0], given)
            one = criterion._replace(score=lambda key, evidence: scores)
        return [
            iterative_pruning.prune_to(k, one, given, problem.prunable, w, floor)
            for k, w in zip(keys, wanted, strict=True)
        ]

    return draw
