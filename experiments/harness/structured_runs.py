"""Trains the small nets of a run of structured pruning and measures their size and speed.

Nets of different widths can't be in one batch. All nets of the same widths, over methods and seeds,
share a folder `nets/DIGEST of the widths`, which also holds the net's size and speed.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median_low

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from experiments.harness import cached_trainings, latency, rows
from experiments.harness.cached_trainings import Row
from experiments.harness.dense_store import Dense
from experiments.harness.filter_cuts import CutPlan, Member
from experiments.harness.problem import Problem, optimizer_of, penalty_of
from experiments.harness.seeds import training_key
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import Start, accuracies
from jaxtickets import masks, runs
from jaxtickets.compress import report
from jaxtickets.compress.report import Report
from jaxtickets.keys import stream
from jaxtickets.optimizers import Hyper
from jaxtickets.recipes.structured import AFTERS
from jaxtickets.types import Ticket

LEADING = ("method", "after", "rate", "seed", "dense_accuracy", "cut_accuracy", "trained_accuracy")
"""The first columns of a summary."""
BATCHES = (1, 128)
"""The batch sizes at which latency is measured."""
COLUMNS = {
    "parameters": "parameters",
    "multiply_adds": "multiply_adds",
    "bytes": "bytes",
    "bytes on disk": "bytes_on_disk",
    **{f"ms a batch of {batch}": f"milliseconds_{batch}" for batch in BATCHES},
}
"""Measured quantity -> column of the summary."""
SPEED_UPS = tuple(f"speed_up_{batch}" for batch in BATCHES)
LEARNT = (
    *("untrained_accuracy", "trained_accuracy", "validation_accuracy", "early_stop_accuracy"),
    *("train_steps", "seconds"),
)
"""The columns of `train_entries` that the summary keeps."""


# --- training the small nets ---------------------------------------------------------------------


def train_net(
    session: Session, place: str, plan: CutPlan, members: Sequence[Member], dense: Dense
) -> list[Row]:
    """Trains one small net in all ways; returns a summary row for each member and `after`.

    A training from scratch depends only on the widths and the seed. It is done once for each seed
    and appears in the rows of all methods. The trained tickets are saved in `folder/tickets`. The
    net's size and speed are measured once.

    Args:
      session: the dense net and its training. Its folder holds `nets` and `tickets`.
      place: the net's folder in `nets`, from `filter_cuts.cut`.
      plan: the plan of cuts and trainings.
      members: the cuts that give this net, all of the same widths.
      dense: the trained dense nets.
    """
    folder, problem = session.folder, session.problem
    part = folder / "nets" / place
    part.mkdir(parents=True, exist_ok=True)
    found: dict[str, Row] = {}  # ticket -> the row of its training
    for afters in _batches(plan, members[0].gain):
        mine = _smaller(problem, members[0], plan, afters[0])
        entries = {
            _ticket(place, member, after): _entry(mine, member, after)
            for after in afters
            for member in members
        }
        smaller = session._replace(folder=part, problem=mine)
        found |= cached_trainings.train(smaller, folder, "-".join(afters), entries)
    cut = _cut_accuracies(session, members)
    sizes = _sizes(folder, place, plan, problem, members[0], dense)
    before = {row["seed"]: row["trained_accuracy"] for row in dense.summary}
    return [
        {
            **{"method": member.name["method"], "after": after},
            **{"rate": member.name["rate"], "seed": member.seed.number},
            **{"dense_accuracy": before[member.seed.number], "cut_accuracy": accuracy},
            **{name: found[ticket][name] for name in LEARNT},
            **member.columns,
            **_columns(sizes, "after"),
            **_speed_ups(sizes),
            **{f"units/{name}": stay for name, (stay, _) in member.gain.units.items()},
            **{"net": place, "ticket": ticket},
        }
        for member, accuracy in zip(members, cut, strict=True)
        for after in plan.after.after
        if (ticket := _ticket(place, member, after))
    ]


def train_nets(
    session: Session, plan: CutPlan, groups: Mapping[str, Sequence[Member]], dense: Dense
) -> list[Row]:
    """Trains all small nets, writes `summary.csv` and `sizes.csv`, and returns the summary.

    Args:
      session, plan, dense: see `train_net`.
      groups: small net -> its members, from `filter_cuts.cut`.
    """
    folder, summary = session.folder, list[Row]()
    for number, (net, members) in enumerate(groups.items(), start=1):
        widths = "-".join(map(str, members[0].net.widths))
        print(f"net {number} of {len(groups)}, widths {widths}: nets/{net}")
        summary += train_net(session, net, plan, members, dense)
    first = dense_rows(folder, list(groups), dense, members[0].gain)
    summary = [*first, *in_order(plan, groups, summary)]
    rows.write_summary(folder, summary, *LEADING)
    nets_of = {net: members[0].net for net, members in groups.items()}
    rows.write_csv(folder / "sizes.csv", size_rows(folder, nets_of))
    return summary


def dense_rows(folder: Path, places: Sequence[str], dense: Dense, gain: Report) -> list[Row]:
    """A row of each dense net, in the columns of `train_net`.

    Its latency is measured beside each small net; the row holds the median.

    Args:
      folder: the run's folder.
      places: the folders of the small nets in `nets`.
      dense: the trained dense nets.
      gain: the report of any member, for the number of units.
    """
    beside = [
        _columns(cached_trainings.known(folder / "nets" / place, SIZES), "before")
        for place in places
    ]
    sizes = {name: median_low(one[name] for one in beside) for name in COLUMNS.values()}
    return [
        {
            **{"method": "dense", "after": "", "rate": 1.0, "seed": row["seed"]},
            **{f"{when}_accuracy": row["trained_accuracy"] for when in ("dense", "cut")},
            **{name: row[name] for name in LEARNT},
            **sizes,
            **dict.fromkeys(SPEED_UPS, 1.0),
            **{f"units/{name}": whole for name, (_, whole) in gain.units.items()},
        }
        for row in dense.summary
    ]


def size_rows(folder: Path, places: Mapping[str, nn.Module]) -> list[Row]:
    """A row for each small net and measured quantity, beside the dense net's value."""
    return [
        {"net": place, "widths": "-".join(map(str, net.widths)), **row}
        for place, net in places.items()
        for row in cached_trainings.known(folder / "nets" / place, SIZES)
    ]


def _batches(plan: CutPlan, gain: Report) -> list[tuple[str, ...]]:
    """The trainings asked for, in batches of the same length and learning rate."""
    batches: dict[tuple[int, bool], tuple[str, ...]] = {}
    for after in plan.after.after:
        key = _steps(plan, after, gain), AFTERS[after].tunes
        batches[key] = (*batches.get(key, ()), after)
    return list(batches.values())


def _steps(plan: CutPlan, after: str, gain: Report) -> int:
    before, left = gain.before.multiply_adds, gain.after.multiply_adds
    return AFTERS[after].steps(plan.lengths, before, left)


def _smaller(problem: Problem, member: Member, plan: CutPlan, after: str) -> Problem:
    """The problem of training the small net in the way `after`.

    The loss keeps the penalty of the dense training, except in fine-tuning.
    """
    steps, train, hyper = _steps(plan, after, member.gain), plan.train, problem.hyper
    every, per_test = problem.recipe.every, problem.recipe.evaluations_per_test
    if AFTERS[after].tunes:
        penalty = None
        train = dataclasses.replace(train, learning_rates="constant")
        hyper = Hyper(hyper.rate * plan.after.finetune_rate, jnp.int32(0))
        every, per_test = steps // plan.after.finetune_epochs, 0
    else:
        penalty = penalty_of(train, member.net, member.small.first.params)
    small = problem.with_net(member.net, penalty).with_recipe(
        optimizer=optimizer_of(train, steps), every=every, evaluations_per_test=per_test
    )
    return small._replace(hyper=hyper, steps=steps)


def _entry(problem: Problem, member: Member, after: str) -> Entry:
    """The training of a member. A training from scratch is named by its seed alone."""
    seed, training = member.seed, AFTERS[after]
    params, stats = training.begin(stream(seed.number, "new_weights", seed.stage), member.small)
    mask = member.small.first.mask if training.inherits else masks.ones(params)
    key = training_key(seed, int(training.tunes))
    name = {"after": after, **(member.name if training.inherits else {"seed": seed.number})}
    return Entry(name, Start(key, problem.hyper, params, stats, mask))


def _ticket(place: str, member: Member, after: str) -> str:
    """The folder of a trained ticket, which names everything that its training depends on."""
    seed = f"{after}-seed{member.seed.number}"
    if not AFTERS[after].inherits:
        return f"{place}-{seed}"
    return f"{member.name['method']}-rate{member.name['rate']:g}-{seed}"


# --- measurements --------------------------------------------------------------------------------


def _cut_accuracies(session: Session, members: Sequence[Member]) -> list[float]:
    """Test accuracy right after the cut, with the remaining trained weights.

    A unit that is kept because one group needs it is masked in the groups that don't.
    """
    problem = session.problem
    small = session._replace(problem=problem.with_recipe(model=members[0].small.model))
    ends = runs.stack([member.small.trained for member in members])
    left = _masked(ends.mask, ends.params)
    found = accuracies(small, left, ends.stats, "test")
    return [round(float(accuracy), 6) for accuracy in found]


_masked = jax.jit(masks.apply)


def _sizes(
    folder: Path, place: str, plan: CutPlan, problem: Problem, member: Member, dense: Dense
) -> list[Row]:
    """Rows of `quantity`, `before`, `after`, `ratio`, measured once on the first member."""
    part = folder / "nets" / place
    if known := cached_trainings.known(part, SIZES):
        return known
    params, stats = runs.take((dense.params, dense.stats), 0)
    whole = problem.net, Ticket(params, stats, masks.ones(params), np.int32(problem.steps))
    cut = member.net, member.small.trained
    shape, repeats = problem.image_shape, plan.after.repeats
    ticket = folder / "tickets" / _ticket(place, member, plan.after.after[0])
    made = [
        *report.rows(member.gain),
        *latency.compare(whole, cut, shape, BATCHES, repeats),
        latency.on_disk(dense.places[member.seed.number], ticket),
    ]
    cached_trainings.keep(part, SIZES, made)
    return made


SIZES = "sizes"
"""The phase of the metrics rows that hold a net's size and speed."""


def _columns(sizes: Sequence[Row], when: str) -> dict[str, float]:
    """The columns of a summary from rows of quantities. `when` is `before` or `after`."""
    found = {row["quantity"]: row[when] for row in sizes}
    return {column: round(found[quantity], 4) for quantity, column in COLUMNS.items()}


def _speed_ups(sizes: Sequence[Row]) -> dict[str, float]:
    found = {row["quantity"]: row["ratio"] for row in sizes}
    times = (f"ms a batch of {batch}" for batch in BATCHES)
    return {name: round(found[time], 4) for name, time in zip(SPEED_UPS, times, strict=True)}


# --- the order of rows ---------------------------------------------------------------------------


def in_order(
    plan: CutPlan, groups: Mapping[str, Sequence[Member]], summary: Sequence[Row]
) -> list[Row]:
    """The rows sorted by method, share and training, in the order of the flags, and by seed."""
    methods = [*plan.cut.methods]
    methods += [m.name["method"] for members in groups.values() for m in members]
    order = {name: at for at, name in reversed([*enumerate(methods)])}

    def place(row: Row) -> tuple[int, int, int, int]:
        share, after = plan.shares.index(row["rate"]), plan.after.after.index(row["after"])
        return order[row["method"]], share, after, row["seed"]

    return sorted(summary, key=place)
