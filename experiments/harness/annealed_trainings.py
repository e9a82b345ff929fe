"""Annealing over masks while their weights train, under a budget. Resumable.

Each variant of the search has a row in `VARIANTS`; `granet` is the one without heat.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import sparse_runs
from experiments.harness.budgeted_search import FoundMask, Task, dense_cost
from experiments.harness.chain_runs import run_chains
from experiments.harness.chunked_run import check_finite, seconds
from experiments.harness.named_parts import make_part
from experiments.harness.problem import Problem, optimizer_of
from experiments.harness.seeds import examples
from experiments.harness.sparse_runs import EVALUATIONS, GRANET, EvolveSettings, SparseTrainingPlan
from experiments.harness.training_runs import start_of, train_all
from experiments.harness.training_settings import TrainSettings
from jaxtickets import allocation, masks, runs
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream
from jaxtickets.recipes import annealed_training
from jaxtickets.recipes.annealed_training import (
    INTERACTIONS,
    Rounds,
    TrainedChain,
    TrainedData,
    consensus,
)
from jaxtickets.search import space as spaces
from jaxtickets.search.acceptance import ACCEPTANCES
from jaxtickets.search.chains import Chain
from jaxtickets.search.energies import training_cost
from jaxtickets.types import Dataset, Mask, Split

ALWAYS = "always"
LEAST_TEMPERATURE = 0.1
"""The last temperature of the acceptance, as a share of the first."""


class Variant(NamedTuple):
    """An annealing; the defaults are GraNet's.

    Attributes:
      drop_heat, grow_heat: see `dynamic.annealed_granet`.
      accept: a rule of `acceptance.ACCEPTANCES`.
      temperature: the first temperature of the acceptance and of exchanges, in nats.
      chains: chains of a seed; they share the budget.
      interaction: a name of `annealed_training.INTERACTIONS`.
      ladder: the hottest rung's heat, in that of the coldest, with `exchange`.
      replaced: the share of chains that is replaced, with `copies` and `crossover`.
      consensus: whether the mask is what most rounds of most chains keep, not that of a chain.
      rewound: whether each chain's last mask is judged by a short training from the first weights,
        not by the net that trained under it.
    """

    drop_heat: float = 0.0
    grow_heat: float = 0.0
    accept: str = ALWAYS
    temperature: float = 0.01
    chains: int = 1
    interaction: str = "none"
    ladder: float = 4.0
    replaced: float = 0.5
    consensus: bool = False
    rewound: bool = False


HOT = Variant(drop_heat=0.3, grow_heat=0.3)
VARIANTS: dict[str, Variant] = {
    GRANET: Variant(),
    "drop_heat": Variant(drop_heat=0.3),
    "grow_heat": Variant(grow_heat=0.5),
    "heat": HOT,
    "metropolis": HOT._replace(accept="metropolis"),
    "averaged": HOT._replace(consensus=True),
    "chains": HOT._replace(chains=4),
    "rewound_chains": HOT._replace(chains=4, rewound=True),
    "consensus": HOT._replace(chains=4, consensus=True),
    "exchange": HOT._replace(chains=4, interaction="exchange"),
    "population": HOT._replace(chains=4, interaction="population"),
    "copies": HOT._replace(chains=4, interaction="copies"),
    "crossover": HOT._replace(chains=4, interaction="crossover"),
}
ANNEALED = {f"{GRANET}_{name}": one for name, one in VARIANTS.items() if name != GRANET}
"""The variants with heat, by the names that they have among other searches."""
JUDGED = 1 / 16
"""The length of a judged chain's training from the first weights, in dense trainings."""


class AnnealedPlan(NamedTuple):
    """The plan of a variant's chains.

    Attributes:
      training: the plan of each chain.
      judged: the steps of the training that judges a chain; 0 if there is none.
      cost: the forward passes of one example that all chains of a seed take.
    """

    training: SparseTrainingPlan
    judged: int
    cost: int


def scored_images(variant: Variant, held_out: int) -> int:
    """The training images that are kept from training for energies."""
    return held_out if variant.accept != ALWAYS or variant.interaction != "none" else 0


def plan(problem: Problem, variant: Variant, budget: float, held_out: int) -> AnnealedPlan:
    """The longest chains that cost no more than `budget` dense trainings together.

    Raises:
      UserError: the budget is too small, or too few training images are left.
    """
    data, batch = problem.dataset, problem.recipe.batch_size
    scored = scored_images(variant, held_out)
    if scored + batch > len(data.train.labels):
        raise UserError(f"--held_out={held_out}: there are {len(data.train.labels)} images")
    dense, chains = dense_cost(problem), variant.chains
    judged = max(1, round(JUDGED * problem.steps)) if variant.rewound else 0
    judging = training_cost(judged * batch) + len(data.validation.labels) if judged else 0
    energies = (2 if variant.accept != ALWAYS else 1) * scored
    once = training_cost(examples(data))
    share = ((budget * dense - once) / chains + once - judging) / dense
    training = sparse_runs.plan_sparse_training(problem, share)
    left = share - training.rounds * energies / dense
    training = sparse_runs.plan_sparse_training(problem, left)._replace(rounds=training.rounds)
    every = training.every
    while True:  # as many rounds as before, of fewer steps
        each = training_cost(every * batch + training.images) + energies
        own = training.rounds * each + EVALUATIONS * len(data.validation.labels) + judging
        if chains * own + once <= budget * dense or every == 1:
            break
        every -= 1
    return AnnealedPlan(training._replace(every=every), judged, chains * own + once)


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
      held_out: see `scored_images`.

    Raises:
      UserError: see `plan`; or a loss isn't finite.
    """
    session, label, density, floor = task
    problem, seeds, prunable = session.problem, session.seeds, session.problem.prunable
    planned = plan(problem, variant, budget, held_out)
    rounds, every = planned.training.rounds, planned.training.every
    counts = sparse_runs.counts_of(task, settings)
    moves = sparse_runs.plan_moves(rounds, counts, settings)
    recipe = problem.recipe._replace(optimizer=optimizer_of(train, rounds * every))
    bits = spaces.weights(seeds[0].params, prunable)
    known = {
        "ladder": variant.ladder,
        "replaced": variant.replaced,
        "space": bits,
        "optimizer": recipe.optimizer(problem.hyper),
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
        ),
        make_part(make_interaction, known) if make_interaction else None,
    )
    begun = sparse_runs.first_masks(task, settings)
    cooling = np.geomspace(1, LEAST_TEMPERATURE, rounds)
    chains, names = [], []
    for i, one in enumerate(seeds):
        for chain in range(variant.chains):
            key = stream(one.number, "moving_mask", f"{GRANET}-{density:g}", density, chain)
            chains.append(
                TrainedChain(
                    key=key,
                    hyper=problem.hyper,
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
    scored = scored_images(variant, held_out)
    data = _data(session.data, scored)
    ends = run_chains(
        session,
        label,
        rounds,
        rounds // EVALUATIONS,
        search,
        chains=runs.stack(chains),
        names=names,
        sight=runs.share(data, session.axis),
        group=variant.chains,
    )
    score = np.asarray(ends.chosen_score)
    labels = [" ".join(f"{k} {v}" for k, v in name.items()) for name in names]
    check_finite(score[:, None], labels, rounds, "validation loss")
    spent = seconds(session.folder, label)
    if planned.judged:
        score = _judged(task, planned, train, ends, names)
        spent += seconds(session.folder, f"{label}-judged")
    said = {
        "forward_passes": planned.cost,
        "search_seconds": round(spent / len(seeds), 3),
    }
    found = []
    for i, one in enumerate(seeds):
        mine = slice(i * variant.chains, (i + 1) * variant.chains)
        best = mine.start + int(np.argmin(score[mine]))
        columns = said | {"search_validation_loss": round(float(score[best]), 6)}
        mask: Mask = runs.take(ends.chosen, best)
        if variant.consensus:
            held = runs.take(ends.state.walk.held, mine)
            mask = bits.mask(consensus(bits, held, counts.end, floor))
        found.append(FoundMask(mask, one.params, columns))
    return found


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
    state = train_all(short, phase, runs.stack(starts), names, end=planned.judged).state
    return sparse_runs.losses_of(short, state)["search_validation_loss"]


def check(
    problem: Problem,
    variants: Mapping[str, Variant],
    budget: float,
    densities: Sequence[float],
    floor: int,
    held_out: int,
) -> None:
    """Raises UserError if a variant can't be done, before any work."""
    for variant in variants.values():
        plan(problem, variant, budget, held_out)
    shapes = masks.shapes(problem.param_shapes, problem.prunable)
    for density in densities:
        try:
            allocation.global_(shapes, density, floor)
        except ValueError as error:
            raise UserError(str(error)) from error
