"""Searches that learn a distribution of masks, under a budget, for all seeds of a density.

The energy is that of the other searches: the held-out loss after a few training steps. Each seed
has one chain, and all of the budget goes into its samples.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import annealed
from experiments.harness.annealed_settings import AnnealingSettings
from experiments.harness.annealed_start import field_keep, first_field
from experiments.harness.budgeted_search import (
    FindSettings,
    FoundMask,
    Task,
    check_held_out,
    dense_cost,
)
from experiments.harness.chain_runs import lowest, run_chains
from experiments.harness.chain_starts import ChainName, chain_inputs, first_key
from experiments.harness.chunked_run import seconds
from experiments.harness.problem import Problem, optimizer_of
from experiments.harness.search_presets import BITS, ENERGY, EVALUATIONS
from experiments.harness.seeds import evidence
from experiments.harness.training_settings import TrainSettings
from jaxtickets import allocation, runs, schedules
from jaxtickets.io.errors import UserError
from jaxtickets.recipes import distribution_chains, search_energies
from jaxtickets.recipes.search_domain import ChainInputs, SearchDomain, mask_at
from jaxtickets.recipes.search_energies import ENERGIES, SearchedNet
from jaxtickets.search import annealing, cross_entropy, policy_gradient
from jaxtickets.search.distribution_search import Update
from jaxtickets.search.distributions import Distribution, Normal
from jaxtickets.search.energies import MEASURES, training_cost
from jaxtickets.types import Array

LAYERS = AnnealingSettings(
    **ENERGY, granularity="fields", features=("chance",), mix="1", pooled="", sides=()
)
"""Potentials of layers alone; which of a layer's weights stay is chance, drawn once."""
WEIGHTS = AnnealingSettings(**BITS, scope="global")
"""A probability of each weight, at first the density that ERK gives its layer."""
FIRST_STD = 0.5
"""The first standard deviation of a layer's potential, in nats."""


class DistributionSearch(NamedTuple):
    """A search that learns a distribution.

    Attributes:
      settings: its domain, and its energy.
      update_of: how the distribution follows the energies.
      samples: the samples of a step.
    """

    settings: AnnealingSettings
    update_of: Callable[[Distribution], Update]
    samples: int


class DistributionPlan(NamedTuple):
    """The length of a search.

    Attributes:
      steps: the number of steps, a multiple of `chunk`.
      chunk: the steps between two evaluations on the validation data.
      cost: the forward passes of one example that it takes.
    """

    steps: int
    chunk: int
    cost: int


def descended(rate: float) -> Callable[[Distribution], Update]:
    """REINFORCE with Adam of a learning rate."""
    return lambda distribution: policy_gradient.update(distribution, optax.adam(rate))


def fitted(elite: int, rate: float) -> Callable[[Distribution], Update]:
    """The cross-entropy method, see `cross_entropy.update`."""
    return lambda distribution: cross_entropy.update(distribution, elite, rate)


DISTRIBUTIONS: dict[str, DistributionSearch] = {
    "policy_gradient_layers": DistributionSearch(LAYERS, descended(0.3), samples=8),
    "policy_gradient_weights": DistributionSearch(WEIGHTS, descended(0.3), samples=8),
    "cross_entropy_layers": DistributionSearch(LAYERS, fitted(elite=3, rate=0.7), samples=8),
    "cross_entropy_weights": DistributionSearch(WEIGHTS, fitted(elite=3, rate=0.3), samples=8),
}
"""Name -> a search over the shares of layers, or over the probabilities of single weights."""


def plan(
    settings: FindSettings, problem: Problem, search: DistributionSearch, budget: float
) -> DistributionPlan:
    """The longest search whose cost is at most `budget` dense trainings for each seed.

    Raises:
      UserError: the budget doesn't pay for a step before each evaluation, or too few training
        images are left to train the nets of the energy.
    """
    check_held_out(settings, problem)
    training = training_cost(settings.train_steps * problem.recipe.batch_size)
    passes = ENERGIES[search.settings.energy].passes
    each = passes(settings.held_out, settings.held_out, training)
    validation = passes(len(problem.dataset.validation.labels), settings.held_out, training)
    between = each + validation  # the likeliest mask's energy, and the best one's validation
    dense = dense_cost(problem)
    chunk = int((budget * dense / EVALUATIONS - between) // (search.samples * each))
    if chunk < 1:
        least = EVALUATIONS * (search.samples * each + between)
        raise UserError(
            f"--budget={budget:g}: too little for {EVALUATIONS} steps of {search.samples} samples "
            f"and {settings.train_steps} training steps, give {1.01 * least / dense:.3g} or more"
        )
    cost = EVALUATIONS * (chunk * search.samples * each + between)
    return DistributionPlan(EVALUATIONS * chunk, chunk, cost)


def found(
    task: Task,
    search: DistributionSearch,
    settings: FindSettings,
    train: TrainSettings,
    budget: float,
) -> list[FoundMask]:
    """The mask of each seed that is best by validation.

    Args:
      task: the density and the seeds. Its label is the phase's name.
      search: the search.
      settings, budget: see `plan`.
      train: how the energy trains nets.
    """
    session, label, density, floor = task
    problem, seeds, prunable = session.problem, session.seeds, session.problem.prunable
    planned = plan(settings, problem, search, budget)
    named = dataclasses.replace(
        search.settings,
        steps=planned.steps,
        chunk=planned.chunk,
        train_steps=settings.train_steps,
        images=settings.held_out,
        floor=floor,
    )
    domain = annealed.domain_of(
        named, seeds[0].params, prunable, problem.wiring, problem.image_shape
    )
    energy_training = dataclasses.replace(train, learning_rates=settings.shape)
    optimizer = optimizer_of(energy_training, settings.train_steps)(problem.hyper)
    made = distribution_chains.build(
        domain,
        search.update_of,
        search_energies.trainability(
            SearchedNet(problem.recipe, optimizer, prunable, named.rescale),
            MEASURES[named.measure],
            settings.train_steps,
        ),
        prunable=prunable,
        samples=search.samples,
        prepare=problem.recipe.prepare,
        chunk=planned.chunk,
        floor=floor,
    )
    data = annealed.search_data(
        named, problem.recipe.prepare, problem.dataset.train, problem.dataset.validation
    )
    rows = runs.stack(
        [_inputs(task, named, domain, ChainName(density, one, 0), search.samples) for one in seeds]
    )
    names = [{"density": density, "seed": one.number, "chain": 0} for one in seeds]
    ends = run_chains(
        session,
        label,
        planned.steps,
        planned.chunk,
        made,
        chains=rows,
        names=names,
        sight=runs.share(data, session.axis),
    )
    spent = round(seconds(session.folder, label) / len(seeds), 3)
    costs = {"forward_passes": planned.cost, "search_seconds": spent}
    masks_found = []
    for i, one in enumerate(seeds):
        row, point = runs.take((rows, ends.chosen), i)
        mask = mask_at(domain, floor, row, point)
        masks_found.append(FoundMask(mask, one.params, costs | lowest(ends, i)))
    return masks_found


def _inputs(
    task: Task, settings: AnnealingSettings, domain: SearchDomain, chain: ChainName, samples: int
) -> ChainInputs:
    """The inputs of a chain, with the first parameters of its distribution."""
    steps = settings.steps
    plans = annealing.step_plans(
        steps, schedules.constant(0, steps), schedules.constant(samples, steps)
    )
    keep = field_keep(settings, domain, chain.density)
    if domain.fields is None:
        start = _logits(settings, domain, chain.density)
        return chain_inputs(task.label, chain, chain.seed.params, start, plans)._replace(keep=keep)
    seen = evidence(task.session.problem, chain.seed, None, task.session.data)
    features, mean = first_field(settings, first_key(task.label, chain), domain, seen)
    wide = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.log(FIRST_STD)), mean)
    inputs = chain_inputs(task.label, chain, chain.seed.params, Normal(mean, wide), plans)
    return inputs._replace(features=features, keep=keep)


def _logits(settings: AnnealingSettings, domain: SearchDomain, density: float) -> Array:
    """float32`[n]`: the logit of each weight's first probability, the density of its layer."""
    space = domain.space
    shapes = dict(zip(space.names, space.shapes, strict=True))
    keep = allocation.ALLOCATIONS[settings.allocation](shapes, density, settings.floor)
    share = np.array([keep[name] for name in space.names]) / np.array(space.sizes)
    share = np.clip(share, 1e-4, 1 - 1e-4)
    return jnp.asarray(np.repeat(np.log(share / (1 - share)), space.sizes), jnp.float32)
