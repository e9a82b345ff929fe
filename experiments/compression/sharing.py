"""Shares the weights of pruned nets, and trains the values, all in one batch. Resumable."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.compression import pruning
from experiments.compression.settings import CompressSettings
from experiments.harness import memory_batches
from experiments.harness.chunked_run import seconds
from experiments.harness.problem import Problem, shorter
from experiments.harness.rows import Row
from experiments.harness.seeds import Seed, training_key
from experiments.harness.session import Session
from experiments.harness.training_runs import Start, train_all
from experiments.harness.training_settings import TrainSettings
from jaxtickets import masks, runs
from jaxtickets.compress import weight_sharing
from jaxtickets.compress.weight_sharing import QUANTISERS, Shared, Sharing
from jaxtickets.types import Array, Key, Mask, Params, Split, Stats, Ticket

SHARE_ORDER = 100
"""The order of the data in which shared values are trained; prunings have lower numbers."""


class SharedStats(NamedTuple):
    """What differs between nets whose shared values train; passed as their batch statistics.

    Attributes:
      net: the net's own batch statistics.
      sharing: path -> the shared leaf; its codebook is not read.
      mask: like the parameters, bool.
    """

    net: Stats
    sharing: Sharing
    mask: Mask


def shared(ticket: Ticket, levels: int, settings: CompressSettings) -> dict[str, Shared]:
    """Path -> the shared leaf, for all leaves, biases too; the values are rounded."""
    found = weight_sharing.share(
        ticket.params,
        ticket.mask,
        levels,
        masks.paths(ticket.params),
        QUANTISERS[settings.quantiser],
    )
    return weight_sharing.rounded(found, jnp.dtype(settings.codebook))


def as_found(ticket: Ticket) -> dict[str, Shared]:
    """The sharing of a ticket whose weights already share values: exact, with the values in use."""
    leaves = masks.paths(ticket.params)
    pairs = zip(leaves, jax.tree.leaves(ticket.params), jax.tree.leaves(ticket.mask), strict=True)
    numbers = {
        path: max(1, len(np.unique(np.asarray(leaf)[np.asarray(kept)])))
        for path, leaf, kept in pairs
    }
    return weight_sharing.share(ticket.params, ticket.mask, numbers, leaves)


def restored(ticket: Ticket, sharing: Sharing) -> Ticket:
    """The ticket with the shared values."""
    here = jax.tree.map(np.asarray, sharing)  # NumPy compiles nothing
    return ticket._replace(params=weight_sharing.restore(here, ticket.mask, ticket.params))


def share(
    session: Session,
    rows: Sequence[Row],
    levels: int,
    settings: CompressSettings,
    train: TrainSettings,
) -> list[Row]:
    """Shares the weights of pruned nets among `levels` values a leaf, and trains these.

    Args:
      session: the run.
      rows: of pruned nets.
      levels: the most values of a leaf.
      settings, train: the settings.

    Returns:
      A row of each net for the stage `shared`, and, with `--share_epochs`, for `values_trained`;
      with `levels`, the `ticket`, and `seconds`. Their tickets have the same masks.
    """
    phase = f"share-{levels}"
    problem = problem_of(session.problem, settings, train)
    found, missing = memory_batches.batches_left(
        session.folder, phase, session.axis, rows, session.seeds[0].params
    )
    made = [row for pair in found for row in pair["stages"]]
    for name, mine in missing:
        done = _share(session, problem, name, mine, levels, settings)
        memory_batches.finish(session.folder, name, [{"stages": pair} for pair in done])
        made += [row for pair in done for row in pair]
    return made


def _share(
    session: Session,
    problem: Problem,
    phase: str,
    rows: Sequence[Row],
    levels: int,
    settings: CompressSettings,
) -> list[list[Row]]:
    """The rows of one part's nets, each with its stages."""
    made: list[list[Row]] = []
    starts = []
    seeds = {one.number: one for one in session.seeds}
    for row in rows:
        ticket = pruning.load(session, row["ticket"])
        started = time.monotonic()
        sharing = shared(ticket, levels, settings)
        mine = row | {
            "stage": "shared",
            "levels": levels,
            "ticket": f"{row['ticket']}-shared{levels}",
            "seconds": round(time.monotonic() - started, 3),
        }
        pruning.save_ticket(session, mine, restored(ticket, sharing))
        made.append([mine])
        starts.append(_start(problem, seeds[row["seed"]], ticket, sharing, levels))
    if not settings.share_epochs:
        return made
    names = [
        {key: pair[0][key] for key in ("method", "density", "seed", "levels")} for pair in made
    ]
    changed = session._replace(problem=problem)
    state = train_all(changed, phase, runs.stack(starts), names, end=problem.steps).state
    spent = round(seconds(session.folder, phase) / len(rows), 3)
    for i, (row, pair) in enumerate(zip(rows, made, strict=True)):
        trained, stats = runs.take((state.params, state.stats), i)
        ticket = pruning.load(session, row["ticket"])._replace(stats=stats.net)
        sharing, others = weight_sharing.with_trained(stats.sharing, ticket.params, trained)
        sharing = weight_sharing.rounded(sharing, jnp.dtype(settings.codebook))
        ticket = restored(ticket._replace(params=others), sharing)
        mine = pair[0] | {
            "stage": "values_trained",
            "ticket": f"{pair[0]['ticket']}-trained",
            "seconds": spent,
        }
        pruning.save_ticket(session, mine, ticket)
        pair.append(mine)
    return made


def _start(problem: Problem, one: Seed, ticket: Ticket, sharing: Sharing, levels: int) -> Start:
    """The start of a training; codebooks are filled up to `levels` values, so that nets stack."""
    filled = {
        path: one._replace(codebook=jnp.pad(one.codebook, (0, levels - len(one.codebook))))
        for path, one in sharing.items()
    }
    params = weight_sharing.trainable(filled, ticket.params)
    stats = SharedStats(ticket.stats, filled, ticket.mask)
    key = training_key(one, SHARE_ORDER)
    return Start(key, problem.hyper, params, stats, masks.ones(params))


def problem_of(problem: Problem, settings: CompressSettings, train: TrainSettings) -> Problem:
    """The problem whose parameters are codebooks and whose statistics are `SharedStats`."""
    model, loss, shapes = problem.recipe.model, problem.recipe.loss, problem.param_shapes

    def weights(params: Params, stats: SharedStats) -> Params:
        now, others = weight_sharing.with_trained(stats.sharing, shapes, params)
        return weight_sharing.restore(now, stats.mask, others)

    def shared_loss(params: Params, stats: SharedStats, batch: Split, key: Key) -> Any:
        value, (net, metrics) = loss(weights(params, stats), stats.net, batch, key)
        return value, (stats._replace(net=net), metrics)

    def apply(
        params: Params,
        stats: SharedStats,
        images: Array,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, SharedStats]:
        logits, net = model.apply(weights(params, stats), stats.net, images, key, train)
        return logits, stats._replace(net=net)

    adam = dataclasses.replace(
        train, optimizer="adam", learning_rate=settings.share_rate, weight_decay=0.0
    )
    changed = shorter(problem, adam, max(1, settings.share_epochs), 1.0)
    changed = changed.with_recipe(model=model._replace(apply=apply), loss=shared_loss)
    return changed._replace(hyper=changed.hyper._replace(rate=jnp.float32(settings.share_rate)))
