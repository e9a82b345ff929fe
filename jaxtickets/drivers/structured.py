"""Nets cut for real and trained, from records to records: each distinct small net a part of a run.

Nets of different widths can't be one batch. Those of the same widths are, over methods and seeds,
in a folder of their own, `nets/DIGEST of the widths`, which also knows how fast the net is.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median_low
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxtickets import losses, masks, nets, runs
from jaxtickets.compress import report
from jaxtickets.compress.graph import Graph, trace
from jaxtickets.compress.report import Report
from jaxtickets.compress.shrink import shrink
from jaxtickets.criteria import Evidence, UnitCriterion
from jaxtickets.data import shape as image_shape
from jaxtickets.drivers import comparison, inference
from jaxtickets.drivers.comparison import Entry, save_entry, train_entries
from jaxtickets.drivers.dense import Dense
from jaxtickets.drivers.gallery import control_key
from jaxtickets.drivers.levels import order_key
from jaxtickets.drivers.problem import Problem, TrainSettings, optimizer_of
from jaxtickets.drivers.seeds import Seed, evidence
from jaxtickets.drivers.training_loop import Start, accuracies
from jaxtickets.io import rows
from jaxtickets.io.errors import UserError, choose
from jaxtickets.io.files import digest
from jaxtickets.io.flags import numbers
from jaxtickets.optimizers import Hyper
from jaxtickets.protocols import structured
from jaxtickets.protocols.structured import AFTERS, Cut, Lengths, Small
from jaxtickets.runs import Axis
from jaxtickets.settings import option
from jaxtickets.types import Array, Dataset, Key, Params, Split, Stats, Ticket, Wiring

LEADING = ("method", "after", "rate", "seed", "dense_accuracy", "cut_accuracy", "trained_accuracy")
"""The first columns of a summary."""
BATCHES = (1, 128)
"""How many images a call gets whose latency is measured."""
COLUMNS = {
    "parameters": "parameters",
    "multiply_adds": "multiply_adds",
    "bytes": "bytes",
    "bytes on disk": "bytes_on_disk",
    **{f"ms a batch of {batch}": f"milliseconds_{batch}" for batch in BATCHES},
}
"""The columns of a summary for what is measured of a net."""
SPEED_UPS = tuple(f"speed_up_{batch}" for batch in BATCHES)
LEARNT = (
    *("untrained_accuracy", "trained_accuracy", "validation_accuracy", "early_stop_accuracy"),
    *("train_steps", "seconds"),
)
"""What a summary has of a training; `train_entries` knows more."""


@dataclasses.dataclass(frozen=True)
class CutSettings:
    """Which units stay; each field is also a flag of the same name."""

    methods: tuple = option(
        ("random", "l1", "fpgm"),
        f"what scores units: {', '.join(structured.METHODS)}; inverted_ before a name turns it",
    )
    rates: tuple = option((0.5, 0.3), "shares of the units kept")
    budget: tuple = option((), "shares of the multiply-adds kept, in place of --rates")
    ranking: str = option(
        "by_layer", "where units are held against each other", tuple(structured.RANKINGS)
    )
    floor: int = option(1, "the least units that a layer keeps", least=0)
    multiple: int = option(1, "layers keep multiples of so many units", least=1)
    norm_keep: float = option(0.9, "of fpgm_norm: the share of filters that a cut by norm leaves")


@dataclasses.dataclass(frozen=True)
class AfterSettings:
    """What becomes of the small nets; each field is also a flag of the same name."""

    after: tuple = option(tuple(AFTERS), f"how they are trained: {', '.join(AFTERS)}")
    finetune_epochs: int = option(2, "passes over the training data of fine-tuning", least=1)
    finetune_rate: float = option(
        0.1, "learning rate of fine-tuning, constant, a factor of the first one"
    )
    longest: float = option(2.0, "the most dense trainings that scratch_b takes", least=1)
    repeats: int = option(100, "calls whose median is a net's latency", least=1)


Row = dict[str, Any]


class Plan(NamedTuple):
    """A run's pipeline, before any net is trained.

    Attributes:
      cut, after, train: the settings.
      criteria: method -> its criterion.
      shares: of the units or of the multiply-adds, falling.
      how: how units are chosen.
      graph: the net's.
      lengths: of trainings.
    """

    cut: CutSettings
    after: AfterSettings
    train: TrainSettings
    criteria: dict[str, UnitCriterion]
    shares: tuple[float, ...]
    how: Cut
    graph: Graph
    lengths: Lengths


def plan(cut: CutSettings, after: AfterSettings, train: TrainSettings, problem: Problem) -> Plan:
    """Checks all that can be checked before work starts.

    Raises:
      UserError: a method, a share or a training that can't be, a share that empties a layer or a
        budget that can't be kept, or a net whose units can't be traced; the message names it.
    """
    for name in cut.methods:
        choose("method", name.removeprefix(structured.INVERTED), structured.METHODS)
    for name in after.after:
        choose("training after the cut", name, tuple(AFTERS))
    if not 0 < cut.norm_keep <= 1:
        raise UserError(f"--norm_keep={cut.norm_keep:g}: must be above 0 and at most 1")
    if after.finetune_rate <= 0:
        raise UserError(f"--finetune_rate={after.finetune_rate:g}: must be above 0")
    asked = "budget" if cut.budget else "rates"
    shares = sorted(numbers(asked, cut.budget or cut.rates), reverse=True)
    for share in shares:
        if not 0 < share <= 1:
            raise UserError(f"--{asked}={share:g}: must be above 0 and at most 1")
    if cut.ranking == "over_layers" and cut.floor == 0:
        raise UserError("--ranking=over_layers --floor=0: a layer may be emptied, give a floor")
    shape = image_shape(problem.dataset.name)
    costs = nets.multiply_adds(problem.net, shape) if cut.budget else {}
    how = Cut(structured.RANKINGS[cut.ranking], cut.floor, cut.multiple, costs)
    found = {name: structured.find(name, cut.norm_keep) for name in cut.methods}
    epoch = len(problem.dataset.train.labels) // problem.recipe.batch_size
    unit = problem.recipe.every * max(problem.recipe.test_looks, 1)
    lengths = Lengths(problem.steps, unit, epoch * after.finetune_epochs, after.longest)
    flag = ""
    try:
        graph = trace(problem.net, shape)
        for name, criterion in found.items():
            flag = f"--methods={name}: "
            _check_scores(criterion, problem, graph.wiring)
        for share in shares:  # what is kept of each layer by any scores, or at the least
            flag = f"--{asked}={share:g}: "
            equal = {group.name: np.zeros(group.size, "f") for group in graph.wiring}
            structured.chosen(how, graph, equal, share)
    except ValueError as error:
        raise UserError(f"{flag}{error}") from error
    return Plan(cut, after, train, found, tuple(shares), how, graph, lengths)


def _check_scores(criterion: UnitCriterion, problem: Problem, wiring: Wiring) -> None:
    """Raises ValueError if the net lacks what the criterion looks at; by shapes alone."""
    params, stats = jax.eval_shape(problem.recipe.model.init, jax.random.key(0))
    size = len(problem.dataset.train.labels) // 10
    batches = jax.eval_shape(
        lambda split: jax.tree.map(lambda a: a[: 10 * size].reshape(10, size, *a.shape[1:]), split),
        problem.dataset.train,
    )
    jax.eval_shape(
        lambda *seen: _scores(criterion, problem, wiring, *seen),
        *(jax.random.key(0), params, params, stats, batches),
    )


def _scores(
    criterion: UnitCriterion,
    problem: Problem,
    wiring: Wiring,
    key: Key,
    first: Params,
    params: Params,
    stats: Stats,
    batches: Split,
) -> dict[str, Array]:
    recipe, whole = problem.recipe, masks.ones(first)
    seen = Evidence(first, params, stats, whole, batches, recipe.loss, recipe.model, recipe.prepare)
    return criterion(key, seen, wiring)


# --- the cut -------------------------------------------------------------------------------------


class Member(NamedTuple):
    """A cut of one seed's net.

    Attributes:
      name: method, rate (the share that was asked for) and seed.
      seed: its seed.
      net: the small net.
      small: its tickets, and its functions.
      gain: what was saved.
    """

    name: Row
    seed: Seed
    net: nn.Module
    small: Small
    gain: Report


def cut_nets(
    plan: Plan, problem: Problem, seeds: Sequence[Seed], dense: Dense, data: Dataset
) -> dict[str, list[Member]]:
    """Every seed's net cut by every method to every share, by a digest of the small net's widths.

    A net is scored once by each method, for all shares.

    Raises:
      UserError: NaN among the scores, or a net that can't be shrunk.
    """
    batches = evidence(problem, seeds[0], None, data).batches
    groups: dict[str, list[Member]] = {}
    for method, criterion in plan.criteria.items():

        @jax.jit
        def score(*seen: Any, criterion: UnitCriterion = criterion) -> dict[str, Array]:
            return _scores(criterion, problem, plan.graph.wiring, *seen)

        for i, one in enumerate(seeds):
            params, stats = runs.take((dense.params, dense.stats), i)
            key = control_key(one, method, 1.0)
            scores = score(key, one.params, params, stats, batches)
            whole = masks.ones(params)
            first = Ticket(one.params, one.stats, whole, np.int32(0))
            trained = Ticket(params, stats, whole, np.int32(problem.steps))
            for share in plan.shares:
                name = {"method": method, "rate": share, "seed": one.number}
                try:
                    units = structured.chosen(plan.how, plan.graph, scores, share)
                    net, ends, gain = shrink(problem.net, trained, units, plan.graph)
                    begins = shrink(problem.net, first, units, plan.graph)[1]
                except ValueError as error:
                    raise UserError(f"{method} at {share:g}, seed {one.number}: {error}") from error
                small = Small(nets.functional(net, plan.graph.image), begins, ends)
                member = Member(name, one, net, small, gain)
                groups.setdefault(_digest(net), []).append(member)
    return groups


def _digest(net: nn.Module) -> str:
    return digest(nets.to_json(net)["widths"])[:12]


# --- what is left is trained ---------------------------------------------------------------------


def train_net(
    folder: Path,
    place: str,
    plan: Plan,
    problem: Problem,
    axis: Axis,
    members: Sequence[Member],
    dense: Dense,
    data: Dataset,
    every: float,
) -> list[Row]:
    """The summary rows of all trainings of one small net: a row each member and `after`.

    What has nothing of the dense net but its widths is trained once a seed, and stands in the rows
    of all methods. The tickets at the end of training are saved in `folder/tickets`; the net's
    size and speed are measured once, and kept.

    Args:
      folder: the run's; `dense.json` in it says where the dense nets are.
      place: the net's folder in `folder/nets`, from `cut_nets`.
      plan: what is done.
      problem: the dense net and its training.
      axis: the run axis.
      members: the cuts to the net's widths.
      dense: the dense nets, trained.
      data: on the device.
      every: see `train_all`.
    """
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
        found |= _train(folder, part, "-".join(afters), mine, axis, entries, data, every)
    cut = _cut_accuracies(problem, axis, members, data)
    sizes = _sizes(folder, place, plan, problem, members[0], dense)
    before = {row["seed"]: row["trained_accuracy"] for row in dense.summary}
    return [
        {
            **{"method": member.name["method"], "after": after},
            **{"rate": member.name["rate"], "seed": member.seed.number},
            **{"dense_accuracy": before[member.seed.number], "cut_accuracy": accuracy},
            **{name: found[ticket][name] for name in LEARNT},
            **_columns(sizes, "after"),
            **_speed_ups(sizes),
            **{f"units/{name}": stay for name, (stay, _) in member.gain.units.items()},
            **{"net": place, "ticket": ticket},
        }
        for member, accuracy in zip(members, cut, strict=True)
        for after in plan.after.after
        if (ticket := _ticket(place, member, after))
    ]


def dense_rows(folder: Path, places: Sequence[str], dense: Dense, gain: Report) -> list[Row]:
    """A row of each dense net in the columns of `train_net`; latencies are medians.

    Args:
      folder: the run's.
      places: of the small nets, beside which it was measured.
      dense: the dense nets.
      gain: any member's.
    """
    beside = [_columns(_known(folder / "nets" / place, SIZES), "before") for place in places]
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
    """What was measured of each small net beside the dense one: a row a net and quantity."""
    return [
        {"net": place, "widths": "-".join(map(str, net.widths)), **row}
        for place, net in places.items()
        for row in _known(folder / "nets" / place, SIZES)
    ]


def _batches(plan: Plan, gain: Report) -> list[tuple[str, ...]]:
    """The trainings asked for; those of the same length and rate are together, in one batch."""
    batches: dict[tuple[int, bool], tuple[str, ...]] = {}
    for after in plan.after.after:
        key = _steps(plan, after, gain), AFTERS[after].tunes
        batches[key] = (*batches.get(key, ()), after)
    return list(batches.values())


def _steps(plan: Plan, after: str, gain: Report) -> int:
    costs = gain.before.multiply_adds, gain.after.multiply_adds
    return AFTERS[after].steps(plan.lengths, *costs)


def _smaller(problem: Problem, member: Member, plan: Plan, after: str) -> Problem:
    """The problem with the small net, trained as `after` says."""
    steps, recipe, train = _steps(plan, after, member.gain), problem.recipe, plan.train
    hyper, every, test_looks = problem.hyper, recipe.every, recipe.test_looks
    if AFTERS[after].tunes:
        train = dataclasses.replace(train, learning_rates="constant")
        hyper = Hyper(hyper.rate * plan.after.finetune_rate, jnp.int32(0))
        every, test_looks = steps // plan.after.finetune_epochs, 0
    recipe = recipe._replace(
        model=member.small.model,
        loss=losses.classification(member.small.model, recipe.prepare),
        optimizer=optimizer_of(train, steps),
        every=every,
        test_looks=test_looks,
    )
    return problem._replace(net=member.net, recipe=recipe, hyper=hyper, wiring=(), steps=steps)


def _entry(problem: Problem, member: Member, after: str) -> Entry:
    """The training of a member; of its seed alone, if it has but the widths of the dense net."""
    one, how = member.seed, AFTERS[after]
    params, stats = how.begin(jax.random.fold_in(one.control, NEW), member.small)
    mask = member.small.first.mask if how.inherits else masks.ones(params)
    key = order_key(one, int(how.tunes))
    name = {"after": after, **(member.name if how.inherits else {"seed": one.number})}
    return Entry(name, Start(key, problem.hyper, params, stats, mask))


NEW = (1 << 20) - 1
"""What a seed's control key is folded with for new weights."""


def _ticket(place: str, member: Member, after: str) -> str:
    """The folder of a trained ticket, which says all that its training depends on."""
    seed = f"{after}-seed{member.seed.number}"
    if not AFTERS[after].inherits:
        return f"{place}-{seed}"
    return f"{member.name['method']}-rate{member.name['rate']:g}-{seed}"


def _train(
    folder: Path,
    part: Path,
    phase: str,
    problem: Problem,
    axis: Axis,
    entries: Mapping[str, Entry],
    data: Dataset,
    every: float,
) -> dict[str, Row]:
    """Ticket -> row of `train_entries`: trained and saved once and for all, as many as fit."""
    names, start = list(entries), next(iter(entries.values())).start
    size = comparison.COPIES * sum(leaf.nbytes for leaf in jax.tree.leaves(start.params))
    unit = axis.width * len(axis.devices)
    most = unit * max(1, int(comparison.PART_BYTES / size) // unit)
    found: dict[str, Row] = {}
    for at in range(0, len(names), most):
        mine, step = names[at : at + most], f"{phase}-{at // most:02d}"
        done = _known(part, f"{step}-rows")
        if len(done) < len(mine):
            some = [entries[name] for name in mine]
            ends, done = train_entries(part, step, problem, axis, some, data, every)
            for i, (name, entry) in enumerate(zip(mine, some, strict=True)):
                params, stats = runs.take((ends.state.params, ends.state.stats), i)
                end = Entry(entry.name, entry.start._replace(params=params, stats=stats))
                save_entry(folder, problem, end, problem.steps, name)
            _keep(part, f"{step}-rows", done)
        shutil.rmtree(part / "checkpoints" / step, ignore_errors=True)
        found |= dict(zip(mine, done, strict=True))
    return found


def _keep(part: Path, phase: str, made: Sequence[Row]) -> None:
    """Writes rows into a net's metrics, in place of those that a kill left there."""
    rows.keep_metrics(part, lambda row: row["phase"] != phase)
    rows.append_metrics(part, *({"phase": phase, **row} for row in made))


def _known(part: Path, phase: str) -> list[Row]:
    """The rows of `_keep`, none if there are none yet."""
    found = [row for row in rows.read_metrics(part) if row["phase"] == phase]
    return [{name: value for name, value in row.items() if name != "phase"} for row in found]


# --- what is measured ----------------------------------------------------------------------------


def _cut_accuracies(
    problem: Problem, axis: Axis, members: Sequence[Member], data: Dataset
) -> list[float]:
    """Test accuracy right after the cut, with the trained weights that are left."""
    small = problem._replace(recipe=problem.recipe._replace(model=members[0].small.model))
    ends = runs.stack([member.small.trained for member in members])
    found = accuracies(small, axis, ends.params, ends.stats, data.test)
    return [round(float(accuracy), 6) for accuracy in found]


def _sizes(
    folder: Path, place: str, plan: Plan, problem: Problem, member: Member, dense: Dense
) -> list[Row]:
    """Rows of `quantity`, `before`, `after`, `ratio`: of the first member, measured once."""
    part = folder / "nets" / place
    if known := _known(part, SIZES):
        return known
    params, stats = runs.take((dense.params, dense.stats), 0)
    whole = problem.net, Ticket(params, stats, masks.ones(params), np.int32(problem.steps))
    cut = member.net, member.small.trained
    shape, repeats = plan.graph.image, plan.after.repeats
    home = json.loads((folder / "dense.json").read_text("utf-8"))[str(member.seed.number)]
    ticket = folder / "tickets" / _ticket(place, member, plan.after.after[0])
    made = [
        *report.rows(member.gain),
        *inference.compare(whole, cut, shape, BATCHES, repeats),
        inference.on_disk(Path(home), ticket),
    ]
    _keep(part, SIZES, made)
    return made


SIZES = "sizes"
"""The phase of the metrics rows that hold a net's size and speed."""


def _columns(sizes: Sequence[Row], when: str) -> dict[str, float]:
    """Columns of a summary from rows of quantities, `before` or `after`."""
    found = {row["quantity"]: row[when] for row in sizes}
    return {column: round(found[quantity], 4) for quantity, column in COLUMNS.items()}


def _speed_ups(sizes: Sequence[Row]) -> dict[str, float]:
    found = {row["quantity"]: row["ratio"] for row in sizes}
    times = (f"ms a batch of {batch}" for batch in BATCHES)
    return {name: round(found[time], 4) for name, time in zip(SPEED_UPS, times, strict=True)}


# --- the order of rows ---------------------------------------------------------------------------


def in_order(plan: Plan, summary: Sequence[Row]) -> list[Row]:
    """The rows of all nets by method, share and training, in the order in which they were given."""

    def place(row: Row) -> tuple[int, int, int, int]:
        method, share = plan.cut.methods.index(row["method"]), plan.shares.index(row["rate"])
        return method, share, plan.after.after.index(row["after"]), row["seed"]

    return sorted(summary, key=place)
