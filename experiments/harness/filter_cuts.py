"""Structured pruning up to the cut: checks settings, chooses units, and makes the small nets."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from experiments.harness.dense_store import Dense
from experiments.harness.flags import numbers
from experiments.harness.problem import Problem
from experiments.harness.seeds import Seed, evidence, mask_key
from experiments.harness.session import Session
from experiments.harness.settings import MOST_EPOCHS, MOST_FACTOR, MOST_UNITS, choose, option
from experiments.harness.training_settings import TrainSettings
from jaxtickets import masks, nets, runs
from jaxtickets.compress.graph import Graph, trace
from jaxtickets.compress.report import Report
from jaxtickets.compress.shrink import shrink
from jaxtickets.criteria import UnitCriterion
from jaxtickets.io.errors import UserError
from jaxtickets.io.files import digest
from jaxtickets.recipes import soft_filter_pruning, structured
from jaxtickets.recipes.structured import AFTERS, Cut, Lengths, Small
from jaxtickets.types import Array, Key, Params, Split, Stats, Ticket, Wiring


@dataclasses.dataclass(frozen=True)
class CutSettings:
    """Which units are kept. Each field is also a flag of the same name."""

    methods: tuple = option(
        ("random", "l1", "fpgm"),
        f"methods that score units: {', '.join(structured.METHODS)} (the prefix inverted_ reverses "
        "the scores); methods that zero filters after each epoch of training: "
        f"{', '.join(soft_filter_pruning.METHODS)}",
    )
    rates: tuple = option((0.5, 0.3), "kept fractions of the units", above=0, most=1)
    budget: tuple = option(
        (), "kept fractions of the multiply-adds, instead of --rates", above=0, most=1
    )
    ranking: str = option(
        "by_layer", "whether units are ranked within or across layers", tuple(structured.RANKINGS)
    )
    floor: int = option(1, "minimum number of units that a layer keeps", least=0, most=MOST_UNITS)
    multiple: int = option(
        1, "each layer keeps a multiple of this number of units", least=1, most=MOST_UNITS
    )
    norm_keep: float = option(
        0.9, "fraction of filters that fpgm_norm keeps by norm before it ranks", above=0, most=1
    )


@dataclasses.dataclass(frozen=True)
class AfterSettings:
    """How the small nets are trained. Each field is also a flag of the same name."""

    after: tuple = option(tuple(AFTERS), "trainings after the cut", tuple(AFTERS))
    finetune_epochs: int = option(
        2,
        "epochs of fine-tuning, which has no --penalty",
        least=1,
        most=MOST_EPOCHS,
    )
    finetune_rate: float = option(
        0.1,
        "constant learning rate of fine-tuning, as a fraction of --learning_rate",
        above=0,
        most=MOST_FACTOR,
    )
    longest: float = option(
        2.0, "maximum length of scratch_b, in dense trainings; inf: none", least=1, most=math.inf
    )
    repeats: int = option(
        100, "number of timed calls; a net's latency is their median", least=1, most=10**6
    )


class CutPlan(NamedTuple):
    """The plan of a run of structured pruning.

    Attributes:
      cut, after, train: the settings.
      criteria: method -> its criterion, for methods that score trained nets.
      shares: the kept fractions of the units or of the multiply-adds, in falling order.
      selection: the rule by which scores select units.
      graph: the net's traced graph.
      lengths: the lengths of the trainings.
      epoch: training steps in an epoch.
      soft: method -> its criterion, for methods that zero filters during training.
    """

    cut: CutSettings
    after: AfterSettings
    train: TrainSettings
    criteria: dict[str, UnitCriterion]
    shares: tuple[float, ...]
    selection: Cut
    graph: Graph
    lengths: Lengths
    epoch: int
    soft: dict[str, UnitCriterion]


def plan_cuts(
    cut: CutSettings, after: AfterSettings, train: TrainSettings, problem: Problem
) -> CutPlan:
    """Checks the settings and makes the plan.

    Raises:
      UserError: a method, a share or a training is invalid, a share empties a layer, a budget can't
        be met, or the net's units can't be traced. The message names it.
    """
    for name in cut.methods:
        plain = structured.plain(name)
        choose(
            "method",
            plain,
            structured.METHODS + (soft_filter_pruning.METHODS if plain == name else ()),
        )
    asked = "budget" if cut.budget else "rates"
    shares = sorted(numbers(asked, cut.budget or cut.rates), reverse=True)
    if cut.ranking == "over_layers" and cut.floor == 0:
        raise UserError("--ranking=over_layers --floor=0: a layer may be emptied, raise --floor")
    shape = problem.image_shape
    costs = nets.multiply_adds(problem.net, shape) if cut.budget else {}
    selection = Cut(structured.RANKINGS[cut.ranking], cut.floor, cut.multiple, costs)
    found = {
        name: structured.find_method(name.removeprefix(soft_filter_pruning.SOFT), cut.norm_keep)
        for name in cut.methods
    }
    softly = {name: one for name, one in found.items() if name in soft_filter_pruning.METHODS}
    epoch = problem.epoch_steps
    if softly:
        _check_soft(next(iter(softly)), cut, problem.steps, epoch)
    unit = problem.recipe.every * max(problem.recipe.evaluations_per_test, 1)
    lengths = Lengths(problem.steps, unit, epoch * after.finetune_epochs, after.longest)
    flag = ""
    try:
        graph = trace(problem.net, shape)
        for name, criterion in found.items():
            flag = f"--methods={name}: "
            check_scores(criterion, problem, graph.wiring)
        for share in shares:  # equal scores show whether the share can be met at all
            flag = f"--{asked}={share:g}: "
            equal = {group.name: np.zeros(group.size, "f") for group in graph.wiring}
            structured.chosen(selection, graph, equal, share)
    except ValueError as error:
        raise UserError(f"{flag}{error}") from error
    hard = {name: one for name, one in found.items() if name not in softly}
    return CutPlan(cut, after, train, hard, tuple(shares), selection, graph, lengths, epoch, softly)


def _check_soft(method: str, cut: CutSettings, steps: int, epoch: int) -> None:
    """Raises UserError unless filters can be zeroed in each layer at the end of each epoch."""
    if cut.budget or cut.ranking != "by_layer":
        other = "--budget" if cut.budget else f"--ranking={cut.ranking}"
        raise UserError(f"--methods={method} zeroes a share of each layer: leave out {other}")
    if steps % epoch:
        message = (
            f"--methods={method}: {steps} training steps: must be whole epochs of {epoch} steps"
        )
        raise UserError(message)


def check_scores(criterion: UnitCriterion, problem: Problem, wiring: Wiring) -> None:
    """Raises ValueError if the criterion can't score the net. Only shapes are evaluated."""
    params, stats = nets.init_shapes(problem.recipe.model)
    size = len(problem.dataset.train.labels) // 10
    batches = jax.eval_shape(
        lambda split: jax.tree.map(lambda a: a[: 10 * size].reshape(10, size, *a.shape[1:]), split),
        problem.dataset.train,
    )
    score = partial(_scores, criterion, problem, wiring)
    jax.eval_shape(score, jax.random.key(0), params, params, stats, batches)


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
    seen = problem.evidence(first, params, stats, masks.ones(first), batches)
    return criterion.score(key, seen, wiring)


# --- the cut -------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """The units of one seed's net that are kept.

    Attributes:
      method: the method that chose them.
      share: the kept fraction of the units or of the multiply-adds that was asked for.
      seed: the seed, with the weights to which the small net is rewound.
      params, stats: the trained weights, from which the small net may be fine-tuned.
      units: `{group: bool[units]}`, True for units that are kept.
      columns: `search_loss` and `search_validation_loss` of a search; else empty.
    """

    method: str
    share: float
    seed: Seed
    params: Params
    stats: Stats
    units: dict[str, np.ndarray]
    columns: Mapping[str, float]


class Member(NamedTuple):
    """A small net, cut from one seed's net.

    Attributes:
      name: its fields in rows: method, rate (the share that was asked for) and seed.
      seed: the seed, with the dense net's weights.
      net: the small Flax module.
      small: the small net's functions, and its tickets with rewound and with trained weights.
      gain: the report of what the cut saves.
      columns: see `Choice`.
    """

    name: dict[str, Any]
    seed: Seed
    net: nn.Module
    small: Small
    gain: Report
    columns: Mapping[str, float]


def scored(session: Session, plan: CutPlan, dense: Dense) -> list[Choice]:
    """The units that each criterion keeps at each share, for each seed.

    A net is scored once for all shares. A criterion that draws at random scores again for each.

    Raises:
      UserError: the scores contain NaN.
    """
    problem, seeds = session.problem, session.seeds
    batches = evidence(problem, seeds[0], None, session.data).batches
    made = []
    for method, criterion in plan.criteria.items():
        score = jax.jit(partial(_scores, criterion, problem, plan.graph.wiring))
        for i, one in enumerate(seeds):
            params, stats = runs.take((dense.params, dense.stats), i)
            scores = score(mask_key(one, method, 1.0), one.params, params, stats, batches)
            for share in plan.shares:
                if criterion.draws:
                    key = mask_key(one, method, share)
                    scores = score(key, one.params, params, stats, batches)
                try:
                    units = structured.chosen(plan.selection, plan.graph, scores, share)
                except ValueError as error:
                    raise UserError(f"{method} at {share:g}, seed {one.number}: {error}") from error
                made.append(Choice(method, share, one, params, stats, units, {}))
    return made


def cut(plan: CutPlan, problem: Problem, choices: Sequence[Choice]) -> dict[str, list[Member]]:
    """Makes the small nets: digest of the widths -> members.

    Raises:
      UserError: a net can't be shrunk.
    """
    groups: dict[str, list[Member]] = {}
    for choice in choices:
        one, whole = choice.seed, masks.ones(choice.params)
        first = Ticket(one.params, one.stats, whole, np.int32(one.step))
        trained = Ticket(choice.params, choice.stats, whole, np.int32(problem.steps))
        name = {"method": choice.method, "rate": choice.share, "seed": one.number}
        try:
            net, ends, gain = shrink(problem.net, trained, choice.units, plan.graph)
            begins = shrink(problem.net, first, choice.units, plan.graph)[1]
        except ValueError as error:
            message = f"{choice.method} at {choice.share:g}, seed {one.number}: {error}"
            raise UserError(message) from error
        small = Small(nets.functional(net, plan.graph.image), begins, ends)
        groups.setdefault(digest_of(net), []).append(
            Member(name, one, net, small, gain, choice.columns)
        )
    return groups


def digest_of(net: nn.Module) -> str:
    """A digest of a net's widths, which names the small net."""
    return digest(nets.to_json(net)["widths"])[:12]
