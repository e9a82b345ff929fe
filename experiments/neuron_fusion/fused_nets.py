"""Fuses the units of trained nets, and makes the nets smaller."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from experiments.harness import cached_trainings
from experiments.harness.dense_store import Dense
from experiments.harness.problem import Problem, optimizer_of
from experiments.harness.rows import Row
from experiments.harness.seeds import Seed, mask_key, training_key
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import Start
from experiments.harness.training_settings import TrainSettings
from experiments.neuron_fusion.settings import (
    RETRAININGS,
    Amount,
    FuseSettings,
    RetrainSettings,
    amounts_of,
    tuning_steps,
)
from jaxtickets import allocation, masks, nets, runs
from jaxtickets.compress import fusion
from jaxtickets.compress.fusion import HOW, WHICH, Fused, Partners
from jaxtickets.compress.graph import Graph, trace
from jaxtickets.compress.report import Report
from jaxtickets.compress.shrink import shrink_alike
from jaxtickets.io import tickets
from jaxtickets.io.errors import UserError
from jaxtickets.optimizers import Hyper
from jaxtickets.types import Array, Mask, Params, Ticket

TUNING = 3
"""The order of the data in trainings of sparse nets, before fusion."""
BATCH = 100
"""Images in a batch of those whose outputs are compared."""


class Source(NamedTuple):
    """A trained net whose units are fused.

    Attributes:
      seed: its seed.
      density: the fraction of its weights that was kept before.
      ticket: its weights and mask.
    """

    seed: Seed
    density: float
    ticket: Ticket


class Member(NamedTuple):
    """A small net.

    Attributes:
      name: the fields that name it in rows.
      seed: its seed.
      ticket: its weights and mask.
    """

    name: Row
    seed: Seed
    ticket: Ticket


class Group(NamedTuple):
    """Small nets of the same widths.

    Attributes:
      net: the flax module.
      report: its size, beside that of the dense net.
      members: the nets.
    """

    net: nn.Module
    report: Report
    members: list[Member]


class Plan(NamedTuple):
    """What is to be fused.

    Attributes:
      settings, retrain: the settings.
      graph: the net's channel graph.
      amounts: how many units are fused.
    """

    settings: FuseSettings
    retrain: RetrainSettings
    graph: Graph
    amounts: Sequence[Amount]


def plan_fusion(settings: FuseSettings, retrain: RetrainSettings, problem: Problem) -> Plan:
    """Checks the settings and makes the plan.

    Raises:
      UserError: the net has no units that can be fused, an amount is out of reach, there are too
        few images, or there are no batch-norm statistics to estimate.
    """
    if settings.counts and settings.cosines:
        raise UserError("--counts and --cosines: give one of them")
    try:
        graph = trace(problem.net, problem.image_shape)
        fusion.fusible(graph)
    except ValueError as error:
        raise UserError(f"--model={nets.name_of(problem.net)}: {error}") from error
    amounts = amounts_of(settings, graph)
    for amount in [] if settings.cosines else amounts:
        amount.keep(params=None, stats=None)
    stats = nets.init_shapes(problem.recipe.model)[1]
    for name in retrain.retrain:
        if RETRAININGS[name].statistics and not jax.tree.leaves(stats):
            net = nets.name_of(problem.net)
            raise UserError(f"--retrain={name} with {net}: there is no batch norm")
    there = len(problem.dataset.train.labels)
    if settings.data_images > there:
        raise UserError(f"--data_images={settings.data_images}: the data set has {there}")
    for density in settings.before_density:
        _keep_before(problem, density)
    return Plan(settings, retrain, graph, amounts)


def tuning(problem: Problem, train: TrainSettings, steps: int, rate: float) -> Problem:
    """The problem of training for `steps` steps at a constant fraction of the rate, no penalty."""
    train = dataclasses.replace(train, learning_rates="constant", penalty="")
    small = problem.with_net(problem.net, None, problem.wiring).with_recipe(
        optimizer=optimizer_of(train, steps), every=problem.epoch_steps, evaluations_per_test=0
    )
    return small._replace(hyper=Hyper(problem.hyper.rate * rate, jnp.int32(0)), steps=steps)


def sources(session: Session, plan: Plan, train: TrainSettings, dense: Dense) -> list[Source]:
    """The dense nets, and for each density below 1 nets pruned by magnitude and trained again.

    The latter are kept as the tickets `before-densityD-seedN` in the run's folder.
    """
    problem, made = session.problem, list[Source]()
    ends = [runs.take((dense.params, dense.stats), i) for i in range(len(session.seeds))]
    entries = {}
    for density in plan.settings.before_density:
        keep = _keep_before(problem, density)
        for one, (params, stats) in zip(session.seeds, ends, strict=True):
            mask = _by_magnitude(params, problem, keep)
            if density == 1:
                made.append(Source(one, density, Ticket(params, stats, mask, np.int32(0))))
                continue
            name = {"before_density": density, "seed": one.number}
            start = Start(training_key(one, TUNING), problem.hyper, params, stats, mask)
            entries[f"before-density{density:g}-seed{one.number}"] = Entry(name, start)
    steps = tuning_steps(plan.retrain, problem)
    small = tuning(problem, train, steps, plan.retrain.finetune_rate)
    entries = {
        place: entry._replace(start=entry.start._replace(hyper=small.hyper))
        for place, entry in entries.items()
    }
    cached_trainings.train(session._replace(problem=small), session.folder, "before", entries)
    seeds = {one.number: one for one in session.seeds}
    for place, entry in entries.items():
        ticket, _ = tickets.load_ticket(session.folder / "tickets" / place)
        seed = seeds[entry.name["seed"]]
        made.append(Source(seed, entry.name["before_density"], ticket))
    return made


def fuse_all(
    session: Session, plan: Plan, found: Sequence[Source]
) -> tuple[list[Group], dict[str, Partners]]:
    """Fuses each net by all rules and amounts, and makes it smaller.

    Returns:
      The small nets by their widths; and for each rule of `which`, where the units of the first
      layer went, for the first net and the first amount.
    """
    settings, graph = plan.settings, plan.graph
    fused: dict[tuple[int, ...], list[tuple[Row, Seed, Fused]]] = {}
    partners: dict[str, Partners] = {}
    batches = images_of(session, settings.data_images)
    prepare, net = session.problem.recipe.prepare, session.problem.net

    @jax.jit
    def grams_of(params: Params, stats: Any, batches: Array) -> Any:
        return fusion.grams(net, params, stats, graph, batches, prepare)

    for source in found:
        grams = grams_of(source.ticket.params, source.ticket.stats, batches)
        for amount in plan.amounts:
            keep = amount.keep(params=source.ticket.params, stats=source.ticket.stats)
            for which in settings.which:
                key = mask_key(source.seed, which, source.density)
                same: dict[str, Partners] | None = None
                for how in settings.how:
                    one = fusion.fuse(
                        key,
                        source.ticket,
                        graph,
                        keep,
                        WHICH[which],
                        HOW[how],
                        least_cosine=settings.least_cosine,
                        grams=grams,
                        partners=same,
                    )
                    same = one.partners
                    for name in [*one.partners][:1]:
                        partners.setdefault(which, one.partners[name])
                    row = name_of(which, how, amount.word, source)
                    fused.setdefault(tuple(keep.values()), []).append((row, source.seed, one))
    return [_smaller(session.problem, graph, mine) for mine in fused.values()], partners


def name_of(which: str, how: str, asked: str, source: Source) -> Row:
    """The fields that name a fused net in rows."""
    return {
        "which": which,
        "how": how,
        "asked": asked,
        "before_density": source.density,
        "seed": source.seed.number,
    }


def images_of(session: Session, number: int) -> Array:
    """uint8`[batches, 100, h, w, c]`: the first training images; a last part of a batch is left."""
    images = session.data.train.images[: number // BATCH * BATCH]
    return images.reshape(-1, BATCH, *images.shape[1:])


def _smaller(problem: Problem, graph: Graph, fused: Sequence[tuple[Row, Seed, Fused]]) -> Group:
    units = [one.units for _, _, one in fused]
    net, small, report = shrink_alike(
        problem.net, [one.ticket for _, _, one in fused], units, graph
    )
    members = [
        Member(name, seed, ticket) for (name, seed, _), ticket in zip(fused, small, strict=True)
    ]
    return Group(net, report, members)


def _keep_before(problem: Problem, density: float) -> int:
    shapes: Mapping[str, tuple[int, ...]] = masks.shapes(problem.param_shapes, problem.prunable)
    try:
        return allocation.global_(shapes, density, 1)
    except ValueError as error:
        raise UserError(f"--before_density={density:g}: {error}") from error


def _by_magnitude(params: Params, problem: Problem, keep: int) -> Mask:
    return masks.select(jax.tree.map(jnp.abs, params), problem.prunable, keep, 1)
