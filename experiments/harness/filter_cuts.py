"""Which units go: criteria and shares checked, units chosen for every seed, nets made small."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from experiments.harness.dense_store import Dense
from experiments.harness.flags import numbers
from experiments.harness.problem import Problem, TrainSettings
from experiments.harness.seeds import Seed, evidence, mask_key
from experiments.harness.session import Session
from experiments.harness.settings import MOST_EPOCHS, MOST_FACTOR, MOST_UNITS, choose, option
from jaxtickets import masks, nets, runs
from jaxtickets.compress.graph import Graph, trace
from jaxtickets.compress.report import Report
from jaxtickets.compress.shrink import shrink
from jaxtickets.criteria import Evidence, UnitCriterion
from jaxtickets.io.errors import UserError
from jaxtickets.io.files import digest
from jaxtickets.recipes import soft_filter_pruning, structured
from jaxtickets.recipes.structured import AFTERS, Cut, Lengths, Small
from jaxtickets.types import Array, Key, Params, Split, Stats, Ticket, Wiring


@dataclasses.dataclass(frozen=True)
class CutSettings:
    """Which units stay; each field is also a flag of the same name."""

    methods: tuple = option(
        ("random", "l1", "fpgm"),
        f"what scores units: {', '.join(structured.METHODS)}; inverted_ before a name turns it; "
        f"or zeroes them epoch by epoch in training: {', '.join(soft_filter_pruning.METHODS)}",
    )
    rates: tuple = option((0.5, 0.3), "shares of the units kept", above=0, most=1)
    budget: tuple = option(
        (), "shares of the multiply-adds kept, in place of --rates", above=0, most=1
    )
    ranking: str = option(
        "by_layer", "where units are held against each other", tuple(structured.RANKINGS)
    )
    floor: int = option(1, "the least units that a layer keeps", least=0, most=MOST_UNITS)
    multiple: int = option(1, "layers keep multiples of so many units", least=1, most=MOST_UNITS)
    norm_keep: float = option(
        0.9, "of fpgm_norm: the share of filters that a cut by norm leaves", above=0, most=1
    )


@dataclasses.dataclass(frozen=True)
class AfterSettings:
    """What becomes of the small nets; each field is also a flag of the same name."""

    after: tuple = option(tuple(AFTERS), f"how they are trained: {', '.join(AFTERS)}")
    finetune_epochs: int = option(
        2,
        "passes over the training data of fine-tuning, which is without --penalty",
        least=1,
        most=MOST_EPOCHS,
    )
    finetune_rate: float = option(
        0.1,
        "learning rate of fine-tuning, constant, a factor of the first one",
        above=0,
        most=MOST_FACTOR,
    )
    longest: float = option(
        2.0, "the most dense trainings that scratch_b takes; inf: no limit", least=1, most=math.inf
    )
    repeats: int = option(100, "calls whose median is a net's latency", least=1, most=10**6)


class CutPlan(NamedTuple):
    """A run's pipeline, before any net is trained.

    Attributes:
      cut, after, train: the settings.
      criteria: method -> its criterion.
      shares: of the units or of the multiply-adds, falling.
      how: how units are chosen.
      graph: the net's.
      lengths: of trainings.
      epoch: steps of an epoch.
      soft: method -> the criterion by which filters are zeroed while the net trains.
    """

    cut: CutSettings
    after: AfterSettings
    train: TrainSettings
    criteria: dict[str, UnitCriterion]
    shares: tuple[float, ...]
    how: Cut
    graph: Graph
    lengths: Lengths
    epoch: int
    soft: dict[str, UnitCriterion]


def plan_cuts(
    cut: CutSettings, after: AfterSettings, train: TrainSettings, problem: Problem
) -> CutPlan:
    """Checks all that can be checked before work starts.

    Raises:
      UserError: a method, a share or a training that can't be, a share that empties a layer or a
        budget that can't be kept, or a net whose units can't be traced; the message names it.
    """
    for name in cut.methods:
        plain = structured.plain(name)
        choose(
            "method",
            plain,
            structured.METHODS + (soft_filter_pruning.METHODS if plain == name else ()),
        )
    for name in after.after:
        choose("training after the cut", name, tuple(AFTERS))
    asked = "budget" if cut.budget else "rates"
    shares = sorted(numbers(asked, cut.budget or cut.rates), reverse=True)
    if cut.ranking == "over_layers" and cut.floor == 0:
        raise UserError("--ranking=over_layers --floor=0: a layer may be emptied, give a floor")
    shape = problem.image_shape
    costs = nets.multiply_adds(problem.net, shape) if cut.budget else {}
    how = Cut(structured.RANKINGS[cut.ranking], cut.floor, cut.multiple, costs)
    found = {
        name: structured.find_method(name.removeprefix(soft_filter_pruning.SOFT), cut.norm_keep)
        for name in cut.methods
    }
    softly = {name: one for name, one in found.items() if name in soft_filter_pruning.METHODS}
    epoch = problem.epoch_steps
    if softly:
        _check_soft(next(iter(softly)), cut, problem.steps, epoch)
    unit = problem.recipe.every * max(problem.recipe.test_looks, 1)
    lengths = Lengths(problem.steps, unit, epoch * after.finetune_epochs, after.longest)
    flag = ""
    try:
        graph = trace(problem.net, shape)
        for name, criterion in found.items():
            flag = f"--methods={name}: "
            check_scores(criterion, problem, graph.wiring)
        for share in shares:  # what is kept of each layer by any scores, or at the least
            flag = f"--{asked}={share:g}: "
            equal = {group.name: np.zeros(group.size, "f") for group in graph.wiring}
            structured.chosen(how, graph, equal, share)
    except ValueError as error:
        raise UserError(f"{flag}{error}") from error
    hard = {name: one for name, one in found.items() if name not in softly}
    return CutPlan(cut, after, train, hard, tuple(shares), how, graph, lengths, epoch, softly)


def _check_soft(method: str, cut: CutSettings, steps: int, epoch: int) -> None:
    """Raises UserError if filters can't be zeroed layer by layer at the end of each epoch."""
    if cut.budget or cut.ranking != "by_layer":
        other = "--budget" if cut.budget else f"--ranking={cut.ranking}"
        raise UserError(f"--methods={method} zeroes a share of each layer: give no {other}")
    if steps % epoch:
        said = f"--methods={method}: {steps} training steps: must be whole epochs of {epoch}"
        raise UserError(said)


def check_scores(criterion: UnitCriterion, problem: Problem, wiring: Wiring) -> None:
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
    return criterion.score(key, seen, wiring)


# --- the cut -------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """Which units of one seed's net stay.

    Attributes:
      method: what chose them.
      share: what was asked for, of the units or of the multiply-adds.
      seed: with the weights that the small net is rewound to.
      params, stats: the trained weights that the small net may go on with.
      units: `{group: bool[units]}`.
      said: of a search, `search_loss` and `search_validation_loss`; else empty.
    """

    method: str
    share: float
    seed: Seed
    params: Params
    stats: Stats
    units: dict[str, np.ndarray]
    said: Mapping[str, float]


class Member(NamedTuple):
    """A cut of one seed's net.

    Attributes:
      name: method, rate (the share that was asked for) and seed.
      seed: its seed.
      net: the small net.
      small: its tickets, and its functions.
      gain: what was saved.
      said: see `Choice`.
    """

    name: dict[str, Any]
    seed: Seed
    net: nn.Module
    small: Small
    gain: Report
    said: Mapping[str, float]


def scored(session: Session, plan: CutPlan, dense: Dense) -> list[Choice]:
    """Every criterion's choice of every share: a net is scored once for all, by chance for each.

    Raises:
      UserError: NaN among the scores.
    """
    problem, seeds = session.problem, session.seeds
    batches = evidence(problem, seeds[0], None, session.data).batches
    made = []
    for method, criterion in plan.criteria.items():

        @jax.jit
        def score(*seen: Any, criterion: UnitCriterion = criterion) -> dict[str, Array]:
            return _scores(criterion, problem, plan.graph.wiring, *seen)

        for i, one in enumerate(seeds):
            params, stats = runs.take((dense.params, dense.stats), i)
            seen = one.params, params, stats, batches
            scores = score(mask_key(one, method, 1.0), *seen)
            for share in plan.shares:
                if criterion.draws:
                    scores = score(mask_key(one, method, share), *seen)
                try:
                    units = structured.chosen(plan.how, plan.graph, scores, share)
                except ValueError as error:
                    raise UserError(f"{method} at {share:g}, seed {one.number}: {error}") from error
                made.append(Choice(method, share, one, params, stats, units, {}))
    return made


def cut(plan: CutPlan, problem: Problem, choices: Sequence[Choice]) -> dict[str, list[Member]]:
    """The small nets, by a digest of their widths.

    Raises:
      UserError: a net that can't be shrunk.
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
            said = f"{choice.method} at {choice.share:g}, seed {one.number}: {error}"
            raise UserError(said) from error
        small = Small(nets.functional(net, plan.graph.image), begins, ends)
        groups.setdefault(digest_of(net), []).append(
            Member(name, one, net, small, gain, choice.said)
        )
    return groups


def digest_of(net: nn.Module) -> str:
    """A digest of a net's widths: what small nets are known by."""
    return digest(nets.to_json(net)["widths"])[:12]
