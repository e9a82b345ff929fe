"""Annealing over masks while their weights train, under a budget. Resumable.

Each variant of the search has a row in `VARIANTS`; `granet` is the one without heat.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import sparse_runs
from experiments.harness.budgeted_search import FoundMask, Task, dense_cost
from experiments.harness.cached_trainings import keep as keep_rows
from experiments.harness.chain_runs import FoundTicket, run_chains
from experiments.harness.chunked_run import check_finite, seconds
from experiments.harness.named_parts import make_part
from experiments.harness.problem import Problem, learning_rate_of, optimizer_of
from experiments.harness.seeds import examples
from experiments.harness.sparse_runs import (
    EVALUATIONS,
    GRANET,
    Counts,
    EvolveSettings,
    SparseTrainingPlan,
)
from experiments.harness.training_runs import start_of, train_all
from experiments.harness.training_settings import TrainSettings
from jaxtickets import allocation, masks, runs
from jaxtickets.dynamic import rules
from jaxtickets.dynamic.drop_and_grow import MovePlan
from jaxtickets.dynamic.langevin import langevin
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream
from jaxtickets.optimizers import Hyper
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
from jaxtickets.types import Array, Dataset, Key, Mask, Split

ALWAYS = "always"
DROPS = {"magnitude": rules.magnitude, "taylor": rules.taylor}
"""Scores of kept weights, of which the least are dropped."""
LEAST_TEMPERATURE = 0.1
"""The last temperature of the acceptance, as a share of the first."""


class Variant(NamedTuple):
    """An annealing; the defaults are GraNet's.

    Attributes:
      drop_heat, grow_heat: see `dynamic.annealed_granet`.
      noise: the temperature of noise on the weights in training, see `dynamic.langevin`.
      drop: the score of what stays, a name of `DROPS`.
      accept: a rule of `acceptance.ACCEPTANCES`.
      temperature: the first temperature of the acceptance and of exchanges, in nats.
      chains: chains of a seed; they share the budget.
      interaction: a name of `annealed_training.INTERACTIONS`.
      ladder: the hottest rung's heat, in that of the coldest, with `exchange`.
      replaced: the share of chains that is replaced, with `copies` and `crossover`.
      consensus: whether the mask is what most rounds of most chains keep, not that of a chain.
      rewound: whether each chain's last mask is judged by a short training from the first weights,
        not by the net that trained under it.
      cycles: trainings one after another, each from the first weights with its learning rate begun
        again. The counts after them fall by equal factors.
    """

    drop_heat: float = 0.0
    grow_heat: float = 0.0
    noise: float = 0.0
    drop: str = "magnitude"
    accept: str = ALWAYS
    temperature: float = 0.01
    chains: int = 1
    interaction: str = "none"
    ladder: float = 4.0
    replaced: float = 0.5
    consensus: bool = False
    rewound: bool = False
    cycles: int = 1


HOT = Variant(drop_heat=0.3, grow_heat=0.3)
VARIANTS: dict[str, Variant] = {
    GRANET: Variant(),
    "drop_heat": Variant(drop_heat=0.3),
    "grow_heat": Variant(grow_heat=0.5),
    "heat": HOT,
    "taylor": HOT._replace(drop="taylor"),
    "noise": Variant(noise=1e-7),
    "cycles": Variant(cycles=3),
    "hot_cycles": HOT._replace(cycles=3),
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
HELD_OUT = 500
"""Images kept from training where a search doesn't say how many."""
JUDGED = 1 / 16
"""The length of a judged chain's training from the first weights, in dense trainings."""


class NoisyHyper(NamedTuple):
    """A chain's hyperparameters: those of `optimizers.Hyper`, and the key of its noise."""

    rate: Array
    warmup: Array
    key: Key


class AnnealedPlan(NamedTuple):
    """The plan of a variant's chains.

    Attributes:
      training: the plan of each chain in each cycle.
      judged: the steps of the training that judges a chain; 0 if there is none.
      cost: the forward passes of one example that all chains of a seed take in all cycles.
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
    dense = dense_cost(problem)
    judged = max(1, round(JUDGED * problem.steps)) if variant.rewound else 0
    judging = training_cost(judged * batch) + len(data.validation.labels) if judged else 0
    energies = (2 if variant.accept != ALWAYS else 1) * scored
    once = training_cost(examples(data))
    many = variant.chains * variant.cycles
    share = ((budget * dense - once) / many + once - judging) / dense
    training = sparse_runs.plan_sparse_training(problem, share)
    left = share - training.rounds * energies / dense
    training = sparse_runs.plan_sparse_training(problem, left)._replace(rounds=training.rounds)
    every = training.every
    while True:  # as many rounds as before, of fewer steps
        each = training_cost(every * batch + training.images) + energies
        own = training.rounds * each + EVALUATIONS * len(data.validation.labels) + judging
        if many * own + once <= budget * dense or every == 1:
            break
        every -= 1
    return AnnealedPlan(training._replace(every=every), judged, many * own + once)


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
    session, label, _, _ = task
    planned = plan(session.problem, variant, budget, held_out)
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


def tickets(
    task: Task,
    densities: Sequence[float],
    variant: Variant,
    train: TrainSettings,
    budget: float,
    held_out: int,
) -> list[FoundTicket]:
    """The masks of `anneal` at each density and seed, as bits over all prunable weights.

    Args:
      task: the seeds and the label. Its density is ignored; phases are named `LABEL-DENSITY`.
      densities: kept fractions.
      variant, train, budget, held_out: see `anneal`.
    """
    session, made = task.session, []
    for density in densities:
        one = task._replace(density=density, label=f"{task.label}-{density:g}")
        found = anneal(one, variant, EvolveSettings(), train, budget, held_out)
        for seed, (mask, _, columns) in zip(session.seeds, found, strict=True):
            bits = masks.flatten(mask, session.problem.prunable)
            made.append(FoundTicket(density, seed, bits, bits, columns))
    return made


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
            # as GraNet's, in the first cycle
            of = f"{GRANET}{label.removeprefix(label.partition('-')[0])}"
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
