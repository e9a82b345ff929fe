"""The passes of network slimming: training with a penalty on scales, cutting, fine-tuning.

Each strength of the penalty has a folder `strength-S`, and in it each pass a folder `pass-N`, which
holds the files of `structured_runs.train_net`. `pass-N/sparse` holds the trainings with the penalty
from the second pass on. Those of the first pass are dense nets in the store.
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
"""Columns of `structured_runs.train_net` that have other names here or are meaningless here."""
SCALES = "scales"
"""The phase of the metrics rows that hold a net's scales, one for each group of channels."""


@dataclasses.dataclass(frozen=True)
class SlimSettings:
    """The penalty, the cuts and the fine-tuning. Each field is also a flag of the same name."""

    strengths: tuple = option(
        (0.0, 1e-3, 1e-2),
        "strengths of the penalty on batch-norm scales; 0: the control",
        least=0,
        most=MOST_FACTOR,
    )
    passes: int = option(
        2, "number of passes, each of training, cutting and fine-tuning", least=1, most=1000
    )
    rates: tuple = option(
        (0.5,),
        "fraction of its channels that a pass keeps: one number, or one for each pass",
        above=0,
        most=1,
        repeats=True,
    )
    multiple: int = option(
        1, "each layer keeps a multiple of this number of channels", least=1, most=MOST_UNITS
    )
    finetune_epochs: int = option(2, "epochs of fine-tuning", least=1, most=MOST_EPOCHS)
    finetune_rate: float = option(
        0.1,
        "constant learning rate of fine-tuning, as a fraction of --learning_rate",
        above=0,
        most=MOST_FACTOR,
    )
    repeats: int = option(
        100, "number of timed calls; a net's latency is their median", least=1, most=10**6
    )


class Sparse(NamedTuple):
    """A seed's net after training with the penalty.

    Attributes:
      seed: the seed, with the weights at the start of that training.
      net: the Flax module.
      params, stats: the trained parameters and statistics.
      accuracy: the accuracy on the test data, between 0 and 1.
    """

    seed: Seed
    net: nn.Module
    params: Params
    stats: Stats
    accuracy: float


def plan_passes(slim: SlimSettings, train: TrainSettings, problem: Problem) -> CutPlan:
    """Checks the settings and makes the plan. Its shares are fractions of the dense net's units.

    Raises:
      UserError: see `filter_cuts.plan_cuts`; or the number of rates doesn't fit the passes.
    """
    if len(slim.rates) not in (1, slim.passes):
        raise UserError(
            f"--rates: {len(slim.rates)} for {slim.passes} passes: give one, or one for each pass"
        )
    left = tuple(itertools.accumulate(rates(slim), operator.mul))
    cut = CutSettings((CRITERION,), left, ranking="over_layers", multiple=slim.multiple)
    after = AfterSettings(
        ("finetune",), slim.finetune_epochs, slim.finetune_rate, repeats=slim.repeats
    )
    return filter_cuts.plan_cuts(cut, after, train, problem)


def rates(slim: SlimSettings) -> tuple[float, ...]:
    """For each pass: the fraction of its net's channels that it keeps."""
    return slim.rates if len(slim.rates) == slim.passes else slim.rates * slim.passes


def train_passes(
    session: Session, slim: SlimSettings, plan: CutPlan, store: StoreSettings
) -> list[Row]:
    """Executes all passes; returns a summary row for each strength, pass and seed.

    The metrics keep all scales.

    Args:
      session: the net, its training and the seeds. The penalty is added for each strength.
      slim, plan: the settings and the plan of the passes.
      store: the store of dense nets.
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
    """The problem with another net, and with the settings' penalty in its loss."""
    params = problem.with_net(net, None).param_shapes
    return problem.with_net(net, penalty_of(train, net, params))


def further(
    session: Session, train: TrainSettings, begun: Sequence[tuple[Seed, nn.Module]]
) -> list[Sparse]:
    """Trains small nets with the penalty, from their seeds' weights, for as long as dense nets.

    Args:
      session: the dense net's problem, and the pass' folder.
      train: the settings of the training, with the penalty.
      begun: the seeds, with the weights to start from, and their nets.

    Returns:
      The trained nets in the order of `begun`.
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
    """Cuts nets by |γ| over all layers: digest of the widths -> members.

    The members' gains are relative to the dense net.
    """
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
    """The settings with a strength; for 0 without a penalty, so that stored dense nets fit."""
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
    """A row of `structured_runs.train_net` with the columns of this summary."""
    accuracies = {"sparse_accuracy": accuracy, "tuned_accuracy": row["trained_accuracy"]}
    left = {
        "parameters_left": round(row["parameters"] / before.parameters, 6),
        "multiply_adds_left": round(row["multiply_adds"] / before.multiply_adds, 6),
    }
    rest = {name: value for name, value in row.items() if name not in UNSAID}
    return {**rest, **accuracies, **left}


def _scales(one: Sparse, graph: Graph) -> list[Row]:
    """Metrics rows with |γ| of each group of channels."""
    seen = Evidence(one.params, one.params, one.stats, None, None, None)
    key = mask_key(one.seed, CRITERION, 1.0)
    found = find_unit(CRITERION).score(key, seen, graph.wiring)
    return [
        {"seed": one.seed.number, "group": name, "scales": np.asarray(values).tolist()}
        for name, values in found.items()
    ]


def _next(part: Path, one: Seed, row: Row) -> tuple[Seed, nn.Module]:
    """The seed with the weights after a pass and new keys; and the small net."""
    ticket, said = tickets.load_ticket(part / "tickets" / row["ticket"])
    one = one._replace(params=ticket.params, stats=ticket.stats, stage=one.stage + 1)
    return one, nets.from_json(said["net"])


def _whole(one: Seed) -> str:
    """The name of the ticket of a net that is trained with the penalty in a later pass."""
    return f"sparse-seed{one.number}"


def _alike(many: Sequence[nn.Module]) -> dict[str, list[int]]:
    """Digest of the widths -> indices of the nets with these widths."""
    found: dict[str, list[int]] = {}
    for i, net in enumerate(many):
        found.setdefault(digest_of(net), []).append(i)
    return found


def _graph(plan: CutPlan, problem: Problem, net: nn.Module) -> Graph:
    return plan.graph if net == problem.net else trace(net, plan.graph.image)
