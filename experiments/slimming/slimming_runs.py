"""Network slimming in passes: trained with a penalty on scales, cut by them, fine-tuned, again.

A strength of the penalty has a folder `strength-S` and in it one for each pass, `pass-N`, with the
parts of `structured_runs.train_net`; `pass-N/sparse` has the trainings with the penalty from the
second pass on, those of the first are dense nets in the store.
"""

import dataclasses
import itertools
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import linen as nn

from experiments.harness import cached_trainings, filter_cuts, structured_runs
from experiments.harness.cached_trainings import Row
from experiments.harness.dense_store import Dense, StoreSettings, dense_entry, dense_nets
from experiments.harness.filter_cuts import AfterSettings, CutPlan, CutSettings, Member, digest_of
from experiments.harness.problem import Problem, penalty_of
from experiments.harness.seeds import Seed, mask_key
from experiments.harness.session import Session
from experiments.harness.settings import MOST_EPOCHS, MOST_FACTOR, MOST_UNITS, option
from experiments.harness.training_settings import TrainSettings
from jaxtickets import masks, nets, runs
from jaxtickets.compress.graph import Graph, trace
from jaxtickets.compress.report import Report, Size, size
from jaxtickets.criteria import Evidence
from jaxtickets.criteria.units import find_unit
from jaxtickets.io import tickets
from jaxtickets.io.errors import UserError
from jaxtickets.types import Params, Stats, Ticket

CRITERION = "abs_batch_norm"
LEADING = (
    *("strength", "pass", "seed", "sparse_accuracy", "cut_accuracy", "tuned_accuracy"),
    *("parameters", "multiply_adds", "parameters_left", "multiply_adds_left"),
)
"""The first columns of a summary."""
UNSAID = ("method", "after", "dense_accuracy", "untrained_accuracy", "trained_accuracy")
"""Columns of `structured_runs.train_net` that have other names here, or nothing to say."""
SCALES = "scales"
"""The phase of the metrics rows that hold a net's scales, a row a group of channels."""


@dataclasses.dataclass(frozen=True)
class SlimSettings:
    """What is penalised how much, and what is cut; each field is also a flag of the same name."""

    strengths: tuple = option(
        (0.0, 1e-3, 1e-2),
        "of the penalty on batch-norm scales; 0: the control",
        least=0,
        most=MOST_FACTOR,
    )
    passes: int = option(2, "of training, cutting and fine-tuning", least=1, most=1000)
    rates: tuple = option(
        (0.5,),
        "share of the channels that a pass keeps: one, or one a pass",
        above=0,
        most=1,
        repeats=True,
    )
    multiple: int = option(1, "layers keep multiples of so many channels", least=1, most=MOST_UNITS)
    finetune_epochs: int = option(
        2, "passes over the training data of fine-tuning", least=1, most=MOST_EPOCHS
    )
    finetune_rate: float = option(
        0.1,
        "learning rate of fine-tuning, constant, a factor of the first one",
        above=0,
        most=MOST_FACTOR,
    )
    repeats: int = option(100, "calls whose median is a net's latency", least=1, most=10**6)


class Sparse(NamedTuple):
    """A seed's net after training with the penalty.

    Attributes:
      seed: with the weights that the training began with.
      net: the flax module.
      params, stats: at the end of training.
      accuracy: on the test data.
    """

    seed: Seed
    net: nn.Module
    params: Params
    stats: Stats
    accuracy: float


def plan_passes(slim: SlimSettings, train: TrainSettings, problem: Problem) -> CutPlan:
    """Checks all that can be checked before work starts; the shares are of the whole net's units.

    Raises:
      UserError: as `filter_cuts.plan_cuts` does, or strengths or rates that can't be.
    """
    if len(slim.rates) not in (1, slim.passes):
        raise UserError(f"--rates: {len(slim.rates)} for {slim.passes} passes: give one, or each")
    left = tuple(itertools.accumulate(rates(slim), operator.mul))
    cut = CutSettings((CRITERION,), left, ranking="over_layers", multiple=slim.multiple)
    after = AfterSettings(
        ("finetune",), slim.finetune_epochs, slim.finetune_rate, repeats=slim.repeats
    )
    return filter_cuts.plan_cuts(cut, after, train, problem)


def rates(slim: SlimSettings) -> tuple[float, ...]:
    """The share that each pass keeps of the channels that it finds."""
    return slim.rates if len(slim.rates) == slim.passes else slim.rates * slim.passes


def train_passes(
    session: Session, slim: SlimSettings, plan: CutPlan, store: StoreSettings
) -> list[Row]:
    """The summary rows, one a strength, pass and seed; all scales are kept in the metrics.

    Args:
      session: the net and its training, whose penalty is put in for each strength; the seeds.
      slim, plan: what is done.
      store: of the dense nets.
    """
    folder, problem, seeds = session.folder, session.problem, session.seeds
    summary: list[Row] = []
    scales: list[Row] = []
    begun: list[tuple[Seed, nn.Module]] = []
    for strength in slim.strengths:
        home = folder / f"strength-{strength:g}"
        home.mkdir(exist_ok=True)
        train = _with_strength(plan.train, strength)
        first = penalised(problem, problem.net, train)
        dense = dense_nets(session._replace(folder=home, problem=first), train, store)
        trained = _of_dense(problem, seeds, dense)
        for number, rate in enumerate(rates(slim), start=1):
            said = {"strength": strength, "pass": number, "rate": rate}
            part = home / f"pass-{number}"
            if number > 1:
                trained = further(session._replace(folder=part), train, begun)
            groups = choose(session, plan, trained, rate, dense)
            at = f"strength {strength:g}, pass {number} of {slim.passes}"
            print(f"{at}: {len(groups)} small nets")
            made: dict[int, Row] = {}
            for place, members in groups.items():
                trained_rows = structured_runs.train_net(
                    session._replace(folder=part), place, plan, members, dense
                )
                made |= {row["seed"]: row for row in trained_rows}
            for one in trained:
                row = made[one.seed.number]
                summary.append({**said, **_row(row, one.accuracy, members[0].gain.before)})
                graph = _graph(plan, problem, one.net)
                scales += [{**said, **more} for more in _scales(one, graph)]
            begun = [_next(part, one.seed, made[one.seed.number]) for one in trained]
    cached_trainings.keep(folder, SCALES, scales)
    return summary


def penalised(problem: Problem, net: nn.Module, train: TrainSettings) -> Problem:
    """The problem with that net, and the penalty that the settings say in its loss."""
    params = problem.with_net(net, None).param_shapes
    return problem.with_net(net, penalty_of(train, net, params))


def further(
    session: Session, train: TrainSettings, begun: Sequence[tuple[Seed, nn.Module]]
) -> list[Sparse]:
    """Small nets trained on from their seeds' weights, as long as the dense nets; in that order.

    Args:
      session: the dense net's problem, and the pass' folder.
      train: says which penalty.
      begun: seeds with the weights to begin with, and their nets.
    """
    part, problem = session.folder, session.problem
    accuracies: dict[int, float] = {}
    for place, alike in _alike([net for _, net in begun]).items():
        mine, home = penalised(problem, begun[alike[0]][1], train), part / "sparse" / place
        home.mkdir(parents=True, exist_ok=True)
        entries = {
            _whole(one): dense_entry(mine, one)._replace(name={"seed": one.number})
            for one in (begun[i][0] for i in alike)
        }
        smaller = session._replace(folder=home, problem=mine)
        done = cached_trainings.train(smaller, part, "sparse", entries)
        accuracies |= {row["seed"]: row["trained_accuracy"] for row in done.values()}
    ends = [tickets.load_ticket(part / "tickets" / _whole(one))[0] for one, _ in begun]
    return [
        Sparse(one, net, end.params, end.stats, accuracies[one.number])
        for (one, net), end in zip(begun, ends, strict=True)
    ]


def choose(
    session: Session, plan: CutPlan, trained: Sequence[Sparse], rate: float, dense: Dense
) -> dict[str, list[Member]]:
    """The cuts by |γ| over all layers, by a digest of the widths; gains are over the dense net."""
    problem = session.problem
    params, stats = runs.take((dense.params, dense.stats), 0)
    ticket = Ticket(params, stats, masks.ones(params), np.int32(0))
    before = size(ticket, nets.multiply_adds(problem.net, plan.graph.image))
    whole = {group.name: group.size for group in plan.graph.wiring}
    found: dict[str, list[Member]] = {}
    for alike in _alike([one.net for one in trained]).values():
        mine, net = [trained[i] for i in alike], trained[alike[0]].net
        now = plan._replace(graph=_graph(plan, problem, net), shares=(rate,))
        small = problem._replace(net=net)
        ends = runs.stack([(one.params, one.stats) for one in mine])
        smaller = session._replace(problem=small, seeds=[one.seed for one in mine])
        scored = filter_cuts.scored(smaller, now, Dense(ends[0], ends[1], [], {}))
        for place, members in filter_cuts.cut(now, small, scored).items():
            for member in members:
                units = {n: (stay, whole[n]) for n, (stay, _) in member.gain.units.items()}
                gain = Report(units, before, member.gain.after)
                found.setdefault(place, []).append(member._replace(gain=gain))
    return found


def _with_strength(train: TrainSettings, strength: float) -> TrainSettings:
    """Without any penalty where the strength is 0, so that the dense nets are those of others."""
    if strength == 0:
        usual = TrainSettings()
        return dataclasses.replace(
            train, penalty=usual.penalty, penalty_strength=usual.penalty_strength
        )
    return dataclasses.replace(train, penalty_strength=strength)


def _of_dense(problem: Problem, seeds: Sequence[Seed], dense: Dense) -> list[Sparse]:
    accuracies = {row["seed"]: row["trained_accuracy"] for row in dense.summary}
    ends = [runs.take((dense.params, dense.stats), i) for i in range(len(seeds))]
    return [
        Sparse(one, problem.net, end[0], end[1], accuracies[one.number])
        for one, end in zip(seeds, ends, strict=True)
    ]


def _row(row: Row, accuracy: float, before: Size) -> Row:
    """A row of `structured_runs.train_net` in the columns of the summary."""
    accuracies = {"sparse_accuracy": accuracy, "tuned_accuracy": row["trained_accuracy"]}
    left = {
        "parameters_left": round(row["parameters"] / before.parameters, 6),
        "multiply_adds_left": round(row["multiply_adds"] / before.multiply_adds, 6),
    }
    rest = {name: value for name, value in row.items() if name not in UNSAID}
    return {**rest, **accuracies, **left}


def _scales(one: Sparse, graph: Graph) -> list[Row]:
    """|γ| of each group of channels, as a list."""
    seen = Evidence(one.params, one.params, one.stats, None, None, None)
    key = mask_key(one.seed, CRITERION, 1.0)
    found = find_unit(CRITERION).score(key, seen, graph.wiring)
    return [
        {"seed": one.seed.number, "group": name, "scales": np.asarray(values).tolist()}
        for name, values in found.items()
    ]


def _next(part: Path, one: Seed, row: Row) -> tuple[Seed, nn.Module]:
    """The seed with the weights that a pass has left, and keys of its own; and the small net."""
    ticket, said = tickets.load_ticket(part / "tickets" / row["ticket"])
    one = one._replace(params=ticket.params, stats=ticket.stats, stage=one.stage + 1)
    return one, nets.from_json(said["net"])


def _whole(one: Seed) -> str:
    """The ticket of a net that is trained with the penalty in a later pass."""
    return f"sparse-seed{one.number}"


def _alike(many: Sequence[nn.Module]) -> dict[str, list[int]]:
    """Where nets of the same widths are, by their digest."""
    found: dict[str, list[int]] = {}
    for i, net in enumerate(many):
        found.setdefault(digest_of(net), []).append(i)
    return found


def _graph(plan: CutPlan, problem: Problem, net: nn.Module) -> Graph:
    return plan.graph if net == problem.net else trace(net, plan.graph.image)
