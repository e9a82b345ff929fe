"""Masks to be compared: made by criteria, or taken from the tickets of other runs."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtickets import allocation, criteria, masks, nets, runs
from jaxtickets.io import tickets
from jaxtickets.io.comparison import Entry
from jaxtickets.io.dense import Dense
from jaxtickets.io.errors import UserError
from jaxtickets.io.flags import numbers
from jaxtickets.io.problem import Problem
from jaxtickets.io.seeds import Seed, evidence, seed
from jaxtickets.io.training_loop import Start
from jaxtickets.protocols import rounds
from jaxtickets.settings import option
from jaxtickets.types import Dataset, Keep, Key, Mask, Params, PyTree, Split, Stats, Ticket

AT_INIT = ("snip", "grasp", "synflow")
"""Criteria that score the weights at initialisation; the others look at trained ones too."""

OF_INIT = ("random", "large_init", "small_init")
"""Criteria that are given trained weights and don't look at them."""


@dataclass(frozen=True)
class GallerySettings:
    """Which masks; each field is also a flag of the same name."""

    criteria: tuple = option(
        ("random", "magnitude", "magnitude_same_sign", "snip", "grasp", "synflow"),
        "what prunes; inverted_ or normalised_ before a name change its scores",
    )
    density: tuple = option((0.2,), "kept fractions of the prunable weights")
    allocation: str = option(
        "global", "how layers share the weights kept", tuple(allocation.ALLOCATIONS)
    )
    floor: int = option(0, "the least that a layer keeps", least=0)
    synflow_rounds: int = option(100, "rounds of synflow; the others have one", least=1)
    tickets: tuple = option((), "folders of saved tickets, or patterns, LABEL= before one names it")


class Saved(NamedTuple):
    """A ticket of another run, and what is said of it: method, density, seed."""

    name: dict[str, Any]
    ticket: Ticket


class Plan(NamedTuple):
    """The masks of a run, before any is made.

    Attributes:
      settings: which.
      keep: density -> what is kept.
      saved: tickets of other runs.
    """

    settings: GallerySettings
    keep: dict[float, Keep]
    saved: list[Saved]


def plan(settings: GallerySettings, problem: Problem) -> Plan:
    """Checks all that can be checked before work starts.

    Raises:
      UserError: a criterion, a density or a ticket that can't be; the message names it.
    """
    params = jax.eval_shape(problem.recipe.model.init, jax.random.key(0))[0]
    shapes = masks.shapes(params, problem.prunable)
    allocate = allocation.ALLOCATIONS[settings.allocation]
    try:
        for name in settings.criteria:
            criteria.find(name)
        densities = sorted(set(numbers("density", settings.density)), reverse=True)
        keep = {density: allocate(shapes, density, settings.floor) for density in densities}
    except ValueError as error:
        raise UserError(str(error)) from error
    return Plan(settings, keep, _saved(settings, problem))


def looks_at_trained(settings: GallerySettings) -> bool:
    """Whether any criterion looks at trained weights."""
    return any(_plain(name) not in (*AT_INIT, *OF_INIT) for name in settings.criteria)


def entries_of(
    plan: Plan, problem: Problem, seeds: Sequence[Seed], dense: Dense | None, data: Dataset
) -> list[Entry]:
    """An entry for each criterion, density and seed, and one for each saved ticket.

    A criterion's mask lies over the weights of its seed; a saved ticket keeps its own, and is
    trained in the order of data of its own seed. Without dense nets, no criterion may look at
    trained weights.
    """
    settings, entries = plan.settings, []
    shapes = masks.shapes(seeds[0].params, problem.prunable)
    sizes = {path: int(np.prod(shape)) for path, shape in shapes.items()}
    batches = evidence(problem, seeds[0], None, data).batches
    for name in settings.criteria:
        plain = _plain(name)
        count = settings.synflow_rounds if plain == "synflow" else 1
        draw = _drawer(problem, name, settings.floor)
        for density, kept in plan.keep.items():
            wanted = rounds.counts(sizes, kept, count)
            for i, one in enumerate(seeds):
                scored = one.params, one.stats
                if dense is not None and plain not in AT_INIT:
                    scored = runs.take((dense.params, dense.stats), i)
                key = jax.random.fold_in(one.control, tuple(criteria.CRITERIA).index(plain))
                mask = draw(key, one.params, *scored, batches, wanted)
                where = one.params, one.stats, mask, one.step
                said = {"method": name, "density": density, "seed": one.number}
                entries.append(Entry(said, Start(one.train, problem.hyper, *where)))
    for name, ticket in plan.saved:
        where = ticket.params, ticket.stats, ticket.mask, ticket.rewind_step
        order = seed(problem, name["seed"]).train
        entries.append(Entry(name, Start(order, problem.hyper, *where)))
    return entries


def _saved(settings: GallerySettings, problem: Problem) -> list[Saved]:
    """The tickets that `--tickets` names."""
    found = []
    for words in settings.tickets:
        label, _, pattern = words.rpartition("=")
        folders = sorted(glob.glob(pattern))
        if not folders:
            raise UserError(f"--tickets={words}: there is no such folder")
        for folder in folders:
            ticket, provenance = tickets.load_ticket(Path(folder))
            net = nets.to_json(problem.net)
            if provenance.get("net") != net:
                raise UserError(f"{folder} is a ticket of {provenance.get('net')}, not of {net}")
            method = label or provenance.get("method", "ticket")
            density = round(float(masks.density(ticket.mask, problem.prunable)), 4)
            name = {"method": method, "density": density, "seed": provenance.get("seed", 0)}
            found.append(Saved(name, ticket))
    return found


def _plain(name: str) -> str:
    """The criterion of the table that a name with variants ends in."""
    return max((known for known in criteria.CRITERIA if name.endswith(known)), key=len)


def _drawer(problem: Problem, name: str, floor: int) -> Any:
    """What makes a criterion's mask, compiled once for all densities and seeds."""
    criterion, recipe = criteria.find(name), problem.recipe

    @jax.jit
    def draw(
        key: Key, init: Params, params: Params, stats: Stats, batches: Split, wanted: PyTree
    ) -> Mask:
        seen = init, params, stats, masks.ones(init), batches
        given = criteria.Evidence(*seen, recipe.loss, recipe.model, recipe.prepare)
        return rounds.prune_to(key, criterion, given, problem.prunable, wanted, floor)

    return draw
