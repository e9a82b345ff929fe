"""Trains all tickets, and their controls, on one target."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax

from experiments.harness.problem import Problem
from experiments.harness.rows import Row
from experiments.harness.seeds import Seed, training_key
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry, train_in_parts
from experiments.harness.training_runs import Start
from experiments.ticket_transfer.settings import Condition
from experiments.ticket_transfer.sources import Source
from jaxtickets import masks, nets
from jaxtickets.analysis import matching
from jaxtickets.analysis.matching import Permutations
from jaxtickets.compress.unit_outputs import unit_outputs
from jaxtickets.keys import stream
from jaxtickets.recipes.ticket_controls import CONTROLS, ControlInputs, apply_control
from jaxtickets.recipes.transfer import new_head, signed
from jaxtickets.types import Params, Stats, Ticket

SHARED = (
    *("untrained_accuracy", "trained_accuracy", "validation_accuracy", "early_stop_step"),
    *("early_stop_accuracy", "train_steps", "seconds"),
)
"""The columns that the row of a dense net shares with the others."""


class Target(NamedTuple):
    """Where a seed's tickets are trained.

    Attributes:
      problem: the net, the data and the training.
      label: the condition's label.
      seed: the seed.
      head: parameters of the net, of which the output layer is taken.
    """

    problem: Problem
    label: str
    seed: Seed
    head: Params


def dense_rows(target: str, sources: Sequence[Source]) -> list[Row]:
    """The rows of a condition's dense nets, which keep the output layer of their initialisation."""
    return [
        {"method": "dense", "source": "", "target": target, "density": 1.0}
        | {"seed": source.row["seed"]}
        | {name: source.row[name] for name in SHARED}
        for source in sources
    ]


def train_all_tickets(
    session: Session,
    condition: Condition,
    sources: Mapping[str, Sequence[Source]],
    match_images: int,
) -> list[Row]:
    """A summary row of each training of a target, with a new output layer.

    The methods are `ticket` and `shuffled` of each source, `random`, which has the counts of the
    target's own ticket, and with `match_images` those of `_across`.

    Args:
      session: the target's folder, problem and seeds.
      condition: the target.
      sources: label -> its tickets, one a seed.
      match_images: training images on which units are matched; 0: no ticket goes to another
        initialisation.
    """
    problem, own = session.problem, sources[condition.label]
    init = jax.jit(problem.recipe.model.init)
    heads = [init(stream(one.number, "new_head"))[0] for one in session.seeds]
    images = session.data.train.images[:match_images]
    outputs = _dense_outputs(condition, own, images) if match_images else []
    entries = []
    for i, (one, head) in enumerate(zip(session.seeds, heads, strict=True)):
        target = Target(problem, condition.label, one, head)
        for label, found in sources.items():
            entries.append(_entry(target, "ticket", label, found[i].ticket))
            entries.append(_control(target, "shuffled", label, found[i].ticket))
        entries.append(_control(target, "random", condition.label, own[i].ticket))
        if match_images:
            j = (i + 1) % len(own)
            orders = matching.match(outputs[j], outputs[i])
            for name, ticket in _across(condition, own[i], own[j], orders).items():
                entries.append(_entry(target, name, condition.label, ticket))
    return train_in_parts(session, "transfer", entries)


def _entry(target: Target, method: str, source: str, ticket: Ticket) -> Entry:
    """The training of a ticket with the seed's new output layer."""
    problem, one = target.problem, target.seed
    made = new_head(ticket, target.head, nets.output_layer(problem.net))
    density = round(float(masks.density(made.mask, problem.prunable)), 6)
    name = {"method": method, "source": source, "target": target.label, "density": density}
    start = Start(training_key(one), problem.hyper, made.params, made.stats, made.mask)
    return Entry({**name, "seed": one.number}, start)


def _control(target: Target, method: str, source: str, ticket: Ticket) -> Entry:
    """The training of a control of a ticket, with the same output layer."""
    problem = target.problem
    made = new_head(ticket, target.head, nets.output_layer(problem.net))
    given = ControlInputs(
        problem.recipe.model, problem.prunable, made.params, made.stats, made.mask
    )
    key = stream(target.seed.number, "transfer", source, method)
    changed = Ticket(*apply_control(CONTROLS[method], key, given), ticket.rewind_step)
    return _entry(target, method, source, changed)


def _dense_outputs(
    condition: Condition, sources: Sequence[Source], images: jax.Array
) -> list[dict[str, jax.Array]]:
    """The outputs of the units of each seed's trained dense net, see `unit_outputs`."""
    problem, groups = condition.problem, matching.matchable(condition.graph)

    @jax.jit
    def outputs(params: Params, stats: Stats, images: jax.Array) -> dict[str, jax.Array]:
        return unit_outputs(
            problem.net,
            params,
            stats,
            groups=groups,
            shape=problem.image_shape,
            images=images,
            prepare=problem.recipe.prepare,
        )

    return [outputs(*source.dense, images) for source in sources]


def _across(
    condition: Condition, own: Source, donor: Source, orders: Permutations
) -> dict[str, Ticket]:
    """The mask of another seed on a seed's own rewound weights.

    `naive` is the mask as it is, `permuted` the mask whose units are brought to the places of
    those of this seed's dense net that they match. `signed` and `permuted_signed` carry over the
    signs of the trained ticket's weights too.
    """
    prunable = condition.problem.prunable
    given = donor.ticket._replace(params=donor.trained)
    moved = matching.permute(given, orders, condition.graph)
    found = {}
    for plain, with_signs, one in (
        ("naive", "signed", given),
        ("permuted", "permuted_signed", moved),
    ):
        found[plain] = own.ticket._replace(mask=one.mask)
        turned = _signed(own.ticket.params, one.params, one.mask, prunable)
        found[with_signs] = own.ticket._replace(params=turned, mask=one.mask)
    return found


_signed = jax.jit(signed, static_argnums=3)
