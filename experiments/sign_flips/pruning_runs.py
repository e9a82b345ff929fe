"""Prunes nets while they train, by the same plan of cuts and different rules."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import memory, memory_batches
from experiments.harness.problem import Problem
from experiments.harness.seeds import Seed, training_key
from experiments.harness.session import Session
from experiments.harness.settings import MOST_FACTOR, MOST_STEPS, MOST_UNITS, option
from experiments.harness.trained_masks import Entry, ended_rows
from experiments.harness.training_runs import Start, steps_between_moves, train_all
from experiments.sign_flips.dense_flips import PLAIN, marks_of
from jaxtickets import allocation, masks, nets, runs
from jaxtickets.alrao import alrao
from jaxtickets.dynamic import flipout, rules
from jaxtickets.dynamic.base import View
from jaxtickets.dynamic.drop_and_grow import MovePlan, drop_and_grow
from jaxtickets.dynamic.rules import Score
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream
from jaxtickets.training import Moves
from jaxtickets.types import Array, Key, Mask, Params


class Rule(NamedTuple):
    """What is pruned first.

    Attributes:
      power: p of `|w|^p / (flips + 1)`, the lowest first; None: the rule doesn't count flips.
      drop: the score of a rule that doesn't count flips.
      control: whether it is trained without noise and Alrao only.
    """

    power: float | None = None
    drop: Score | None = None
    control: bool = False


class Variant(NamedTuple):
    """How nets are trained while they are pruned: with noise, with Alrao, or with neither."""

    noise: bool = False
    alrao: bool = False


RULES: dict[str, Rule] = {
    "magnitude": Rule(drop=rules.magnitude),
    "flips": Rule(power=0.0),
    "hybrid1": Rule(power=1.0),
    "hybrid2": Rule(power=2.0),
    "random": Rule(drop=rules.at_random, control=True),
}
VARIANTS: dict[str, Variant] = {
    PLAIN: Variant(),
    "noise": Variant(noise=True),
    "alrao": Variant(alrao=True),
}


@dataclasses.dataclass(frozen=True)
class PruningSettings:
    """How nets are pruned while they train."""

    move_every: int = option(
        0,
        "training steps between possible cuts; 0: those between evaluations",
        least=0,
        most=MOST_STEPS,
    )
    cuts: int = option(flipout.CUTS, "cuts by the same factor", least=1, most=MOST_STEPS)
    last_cut: float = option(
        flipout.LAST_CUT, "share of the training until the last cut", above=0, most=1
    )
    noise: float = option(flipout.NOISE, "lambda of the gradient noise", above=0, most=MOST_FACTOR)
    alrao_least: float = option(1e-4, "lowest random rate", above=0, most=MOST_FACTOR)
    alrao_most: float = option(0.1, "highest random rate", above=0, most=MOST_FACTOR)
    floor: int = option(1, "minimum number of weights that a layer keeps", least=0, most=MOST_UNITS)


class FlipHyper(NamedTuple):
    """The hyperparameters that may differ between the runs of a batch.

    Attributes:
      rate, warmup: see `optimizers.Hyper`.
      key: for the rule's random choices and the noise.
      rates_key: for Alrao's learning rates.
      moves: the plan of the cuts.
    """

    rate: Array
    warmup: Array
    key: Key
    rates_key: Key
    moves: MovePlan


def check(
    densities: Sequence[float],
    early: Sequence[float],
    number: int,
    settings: PruningSettings,
    problem: Problem,
) -> None:
    """Raises UserError if a training can't be done, before any work.

    Args:
      densities: to which nets are pruned.
      early: the shares of dense trainings at which flips are noted.
      number: of dense trainings in a batch.
      settings, problem: how nets are trained and pruned.
    """
    size = memory.training(problem.param_shapes)
    memory.check_memory("--rates, --seeds", number, (1 + len(early)) * size, "dense trainings")
    if settings.alrao_least > settings.alrao_most:
        raise UserError(
            f"--alrao_least={settings.alrao_least:g}: must be at most --alrao_most="
            f"{settings.alrao_most:g}"
        )
    try:
        marks_of(early, problem.steps)
    except ValueError as error:
        raise UserError(f"--early={','.join(f'{x:g}' for x in early)}: {error}") from error
    for density in densities:
        try:
            _cuts(density, settings, problem)
        except ValueError as error:
            said = f"--density={density:g} in --cuts={settings.cuts}: {error}"
            raise UserError(said) from error


def variants_of(rule: str, variants: Sequence[str]) -> Sequence[str]:
    """The variants of a rule's trainings; a control has the plain one alone."""
    return (PLAIN,) if RULES[rule].control else variants


def train(
    session: Session,
    rule: str,
    variant: str,
    rates: Sequence[float],
    densities: Sequence[float],
    settings: PruningSettings,
) -> list[dict[str, Any]]:
    """Trains and prunes nets at all rates, to all densities, for all seeds.

    Args:
      session: the net, its training and the seeds.
      rule, variant: of `RULES` and `VARIANTS`.
      rates: the learning rates; with Alrao, those of the output layer.
      densities: the shares of weights that are kept in the end.
      settings: the cuts, the noise, and Alrao's interval.

    Returns:
      A row of each run, with its accuracies and its last mask's counts.
    """
    problem, training = session.problem, VARIANTS[variant]
    every = steps_between_moves(settings.move_every, problem)
    output = nets.output_layer(problem.net)

    def sparsify(
        inner: optax.GradientTransformation, mask: Mask, fill: Params | None, hyper: FlipHyper
    ) -> optax.GradientTransformationExtraArgs:
        del fill
        if training.alrao:
            ends = settings.alrao_least / hyper.rate, settings.alrao_most / hyper.rate
            inner = alrao(inner, hyper.rates_key, low=ends[0], high=ends[1], output=output)
        return pruning(
            RULES[rule],
            settings.noise if training.noise else 0.0,
            inner=inner,
            mask=mask,
            prunable=problem.prunable,
            moves=hyper.moves,
            every=every,
            key=hyper.key,
            floor=settings.floor,
        )

    moves = Moves(every, problem.recipe.batch_size)
    pruned = session._replace(problem=problem.with_recipe(sparsify=sparsify, moves=moves))
    entries = [
        Entry(
            {"rule": rule, "variant": variant, "rate": rate, "density": density}
            | {"seed": seed.number},
            _start(rule, variant, rate, density, settings, problem, seed),
        )
        for rate in rates
        for density in densities
        for seed in session.seeds
    ]
    made, missing = memory_batches.batches_left(
        session.folder, f"{rule}-{variant}", session.axis, entries, session.seeds[0].params
    )
    for phase, mine in missing:
        starts, names = runs.stack([one.start for one in mine]), [one.name for one in mine]
        state = train_all(pruned, phase, starts, names, end=problem.steps).state
        done = ended_rows(session, phase, mine, state)
        memory_batches.finish(session.folder, phase, done)
        made += done
    return made


def pruning(
    rule: Rule,
    noise: float,
    *,
    inner: optax.GradientTransformation,
    mask: Mask,
    prunable: tuple[str, ...],
    moves: MovePlan,
    every: int,
    key: Key,
    floor: int,
) -> optax.GradientTransformationExtraArgs:
    """The sparse optimiser that prunes by a rule.

    Args:
      rule: what goes first.
      noise: λ of the gradient noise, see `flipout`; 0 for none.
      inner, mask, prunable, moves, every, key, floor: see `drop_and_grow`.
    """
    known = {"inner": inner, "mask": mask, "prunable": prunable, "moves": moves}
    known |= {"every": every, "key": key, "floor": floor}
    if rule.power is not None:
        return flipout.flipout(**known, power=rule.power, noise=noise)
    assert rule.drop is not None

    def noisy(view: View) -> Params:
        return flipout.with_noise(view, prunable, noise)

    return drop_and_grow(**known, drop=rule.drop, before=noisy if noise else None)


def _cuts(density: float, settings: PruningSettings, problem: Problem) -> MovePlan:
    """The counts after each possible cut but that at the end of the training.

    Raises:
      ValueError: there are fewer moves than cuts, or the floors need more weights.
    """
    shapes = masks.shapes(problem.param_shapes, problem.prunable)
    moves = flipout.plan(
        moves=problem.steps // steps_between_moves(settings.move_every, problem) - 1,
        begin=masks.size(problem.param_shapes, problem.prunable),
        end=allocation.global_(shapes, density, settings.floor),
        cuts=settings.cuts,
        last_cut=settings.last_cut,
    )
    return jax.tree.map(np.asarray, moves)


def _start(
    rule: str,
    variant: str,
    rate: float,
    density: float,
    settings: PruningSettings,
    problem: Problem,
    seed: Seed,
) -> Start:
    hyper = FlipHyper(
        rate=jnp.float32(rate),
        warmup=problem.hyper.warmup,
        key=stream(seed.number, "moving_mask", f"{rule}-{variant}", density, 0),
        rates_key=stream(seed.number, "learning_rates"),
        moves=_cuts(density, settings, problem),
    )
    mask = masks.ones(seed.params)
    return Start(training_key(seed), hyper, seed.params, seed.stats, mask, seed.step)
