"""Annealing over masks while their weights train, under a budget. Resumable.

The variants of the search are those of `annealed_variants`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import annealed_plan, sparse_runs
from experiments.harness.annealed_plan import AnnealedPlan, scored_images
from experiments.harness.annealed_variants import ALWAYS, DROPS, Variant
from experiments.harness.budgeted_search import FoundMask, Task
from experiments.harness.cached_trainings import keep as keep_rows
from experiments.harness.chain_runs import run_chains
from experiments.harness.chunked_run import check_finite, seconds
from experiments.harness.named_parts import make_part
from experiments.harness.problem import Problem, learning_rate_of, optimizer_of
from experiments.harness.sparse_runs import (
    EVALUATIONS,
    GRANET,
    Counts,
    EvolveSettings,
)
from experiments.harness.training_runs import start_of, train_all
from experiments.harness.training_settings import TrainSettings
from jaxtickets import masks, runs
from jaxtickets.dynamic.drop_and_grow import MovePlan
from jaxtickets.dynamic.langevin import langevin
from jaxtickets.keys import stream
from jaxtickets.optimizers import Hyper
from jaxtickets.recipes import annealed_training
from jaxtickets.recipes.annealed_training import Rounds, TrainedChain, TrainedData, consensus
from jaxtickets.recipes.trained_interactions import INTERACTIONS
from jaxtickets.search import space as spaces
from jaxtickets.search.acceptance import ACCEPTANCES
from jaxtickets.search.chains import Chain
from jaxtickets.types import Array, Dataset, Key, Mask, Split

LEAST_TEMPERATURE = 0.1
"""The last temperature of the acceptance, as a share of the first."""


class NoisyHyper(NamedTuple):
    """A chain's hyperparameters: those of `optimizers.Hyper`, and the key of its noise."""

    rate: Array
    warmup: Array
    key: Key


def anneal(
    task: Task,
    variant: Variant,
    settings: EvolveSettings,
    train: TrainSettings,
    budget: float,
    held_out: int,
) -> list[FoundMask]:
    """The mask that a variant finds for each seed; see `recipes.annealed_training`.

    The first mask is SNIP's, as in `sparse_runs.train_sparse`, with which the variant without heat
    agrees.

    Args:
      task: the density and the seeds. Its label is the phase's name.
      variant: the annealing.
      settings: how masks evolve.
      train: how nets are trained.
      budget: the cost of all chains of a seed, in dense trainings.
      held_out: see `annealed_plan.scored_images`.

    Raises:
      UserError: see `annealed_plan.plan`; or a loss isn't finite.
    """
    session, label, _, _ = task
    planned = annealed_plan.plan(session.problem, variant, budget, held_out)
    begin, end, least = sparse_runs.counts_of(task, settings)
    levels = np.round(np.geomspace(begin, end, variant.cycles + 1)).astype(int)
    mask, spent, score = sparse_runs.first_masks(task, settings), 0.0, np.zeros(0)
    for i in range(variant.cycles):
        counts = Counts(int(levels[i]), int(levels[i + 1]), least)
        part = task._replace(label=f"{label}-{i + 1}") if variant.cycles > 1 else task
        moves = sparse_runs.plan_moves(planned.training.rounds, counts, settings)
        mask, score = _cycle(part, variant, planned, train, held_out, mask, moves)
        spent += seconds(session.folder, part.label)
        spent += seconds(session.folder, f"{part.label}-judged") if planned.judged else 0
    said = {
        "forward_passes": planned.cost,
        "search_seconds": round(spent / len(session.seeds), 3),
    }
    return [
        FoundMask(
            runs.take(mask, i),
            one.params,
            said | {"search_validation_loss": round(float(score[i]), 6)},
        )
        for i, one in enumerate(session.seeds)
    ]


def _cycle(
    task: Task,
    variant: Variant,
    planned: AnnealedPlan,
    train: TrainSettings,
    held_out: int,
    begun: Mask,
    moves: MovePlan,
) -> tuple[Mask, np.ndarray]:
    """The masks that chains find in a training, stacked over seeds, and the chains' scores.

    Args:
      task, variant, planned, train, held_out: see `anneal`.
      begun: the first masks, stacked over seeds.
      moves: the counts.
    """
    session, label, density, floor = task
    problem, seeds, prunable = session.problem, session.seeds, session.problem.prunable
    rounds, every = planned.training.rounds, planned.training.every
    recipe = problem.recipe._replace(optimizer=_optimizer(variant, train, problem, rounds * every))
    bits = spaces.weights(seeds[0].params, prunable)
    known = {
        "ladder": variant.ladder,
        "replaced": variant.replaced,
        "space": bits,
        "optimizer": recipe.optimizer(_hyper(problem, stream(0, "moving_mask", label, density, 0))),
        "floor": floor,
    }
    make_interaction = INTERACTIONS[variant.interaction]
    search = annealed_training.build(
        recipe,
        prunable,
        Rounds(
            every=every,
            images=planned.training.images,
            chunk=rounds // EVALUATIONS,
            floor=floor,
            accept=None if variant.accept == ALWAYS else ACCEPTANCES[variant.accept],
            drop=DROPS[variant.drop],
        ),
        make_part(make_interaction, known) if make_interaction else None,
    )
    cooling = np.geomspace(1, LEAST_TEMPERATURE, rounds)
    chains, names = [], []
    for i, one in enumerate(seeds):
        for chain in range(variant.chains):
            # GraNet's own, whose label has another first word alone
            of = f"{GRANET}-{label.partition('-')[2]}"
            key = stream(one.number, "moving_mask", of, density, chain)
            chains.append(
                TrainedChain(
                    key=key,
                    hyper=_hyper(problem, key),
                    params=one.params,
                    stats=one.stats,
                    mask=runs.take(begun, i),
                    moves=jax.tree.map(np.asarray, moves),
                    drop_heat=np.float32(variant.drop_heat),
                    grow_heat=np.float32(variant.grow_heat),
                    temperatures=np.float32(variant.temperature * cooling),
                )
            )
            names.append({"density": density, "seed": one.number, "chain": chain})
    ends = run_chains(
        session,
        label,
        rounds,
        rounds // EVALUATIONS,
        search,
        chains=runs.stack(chains),
        names=names,
        sight=runs.share(_data(session.data, scored_images(variant, held_out)), session.axis),
        group=variant.chains,
    )
    score = np.asarray(ends.chosen_score)
    labels = [" ".join(f"{k} {v}" for k, v in name.items()) for name in names]
    check_finite(score[:, None], labels, rounds, "validation loss")
    if planned.judged:
        score = _judged(task, planned, train, ends, names)
    if variant.chains > 1:
        keep_rows(session.folder, f"{label}-agreement", _agreement(task, ends, variant.chains))
    found, scores = [], []
    for i in range(len(seeds)):
        mine = slice(i * variant.chains, (i + 1) * variant.chains)
        best = mine.start + int(np.argmin(score[mine]))
        mask: Mask = runs.take(ends.chosen, best)
        if variant.consensus:
            held = ends.state.walk.held[mine]
            mask = bits.mask(consensus(bits, held, int(moves.ones[-1]), floor))
        found.append(mask)
        scores.append(score[best])
    return runs.stack(found), np.array(scores)


def _optimizer(
    variant: Variant, train: TrainSettings, problem: Problem, steps: int
) -> Callable[[NoisyHyper], optax.GradientTransformation]:
    """The optimiser of a variant's trainings of some steps."""
    plain, rate = optimizer_of(train, steps), learning_rate_of(train, steps)

    def optimizer(hyper: NoisyHyper) -> optax.GradientTransformation:
        inner = plain(Hyper(hyper.rate, hyper.warmup))
        if not variant.noise:
            return inner
        return langevin(inner, rate(hyper), problem.prunable, hyper.key, variant.noise)

    return optimizer


def _hyper(problem: Problem, key: Key) -> NoisyHyper:
    return NoisyHyper(problem.hyper.rate, problem.hyper.warmup, key)


def _agreement(task: Task, ends: Chain, chains: int) -> list[dict[str, Any]]:
    """How many chains keep the same weights: a row a seed and number k of chains.

    `weights` is how many weights exactly k of the seed's chains keep, and `pixels` how many of
    these read each input; empty if no prunable leaf reads the image.
    """
    problem = task.session.problem
    pixels = int(np.prod(problem.image_shape))
    shapes = masks.shapes(problem.param_shapes, problem.prunable)
    reads = [path for path, shape in shapes.items() if shape[0] == pixels]
    made = []
    for i, one in enumerate(task.session.seeds):
        mine = runs.take(ends.chosen, np.arange(i * chains, (i + 1) * chains))
        leaves = {path: np.sum(masks.pick(mine, (path,))[0], 0) for path in problem.prunable}
        for k in range(1, chains + 1):
            weights = sum(int(np.sum(votes == k)) for votes in leaves.values())
            seen = np.sum(leaves[reads[0]] == k, 1).tolist() if reads else []
            row = {"density": task.density, "seed": one.number, "kept_by": k, "weights": weights}
            made.append({**row, "pixels": seen})
    return made


def _data(data: Dataset, scored: int) -> TrainedData:
    head, rest = (
        jax.tree.map(lambda a, part=part: jnp.asarray(a[part]), data.train)
        for part in (slice(scored), slice(scored, None))
    )
    validation = jax.tree.map(jnp.asarray, data.validation)
    return TrainedData(Split(*rest), Split(*head), Split(*validation))


def _judged(
    task: Task,
    planned: AnnealedPlan,
    train: TrainSettings,
    ends: Chain,
    names: list[dict[str, Any]],
) -> np.ndarray:
    """float`[chains]`: the validation losses of the last masks, trained from the first weights."""
    session, problem = task.session, task.session.problem
    short = session._replace(
        problem=problem.with_recipe(
            optimizer=optimizer_of(train, planned.judged),
            every=planned.judged,
            evaluations_per_test=0,
        )
    )
    seeds = {one.number: one for one in session.seeds}
    starts = [
        start_of(problem, seeds[name["seed"]]._replace(step=0), runs.take(ends.chosen, i))
        for i, name in enumerate(names)
    ]
    phase = f"{task.label}-judged"
    return np.asarray(train_all(short, phase, runs.stack(starts), names, end=planned.judged).loss)
