"""The chains of a search before they run: their names, their keys, and the inputs of each."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from experiments.harness import annealed_start
from experiments.harness.annealed_settings import AnnealingSettings
from experiments.harness.seeds import Seed
from jaxtickets import runs
from jaxtickets.criteria import Evidence
from jaxtickets.keys import stream
from jaxtickets.recipes.search_domain import ChainInputs, SearchDomain
from jaxtickets.search.annealing import StepPlan
from jaxtickets.types import Key, Params, PyTree


class ChainName(NamedTuple):
    """One chain: its density, its seed, and its number within the seed."""

    density: float
    seed: Seed
    chain: int


def first_rows(
    label: str,
    settings: AnnealingSettings,
    where: SearchDomain,
    plans: Sequence[ChainName],
    about: Callable[[Seed], Evidence],
) -> tuple[ChainInputs, int]:
    """The inputs of all chains, stacked, and the largest swap that any of them can make.

    Args:
      label: the search's name, which no other search of the run has; it goes into the keys.
      settings: the search.
      where: the domain of the chains.
      plans: the chains.
      about: gives the evidence for a seed's criteria; it is called only if the search needs a
        criterion.

    Returns:
      The inputs, with a leading axis of chains, and the largest swap: 0 for fields.

    Raises:
      ValueError: a first mask leaves a layer empty.
    """
    if where.fields is not None:
        return runs.stack([_field_row(label, settings, where, about, plan) for plan in plans]), 0
    bits = [
        annealed_start.first_bits(
            settings,
            first_key(label, plan),
            where.space,
            plan.density,
            about(plan.seed) if settings.start else None,
        )
        for plan in plans
    ]
    most = annealed_start.largest_swap(settings, where.space, jnp.stack(bits))
    steps = [annealed_start.step_plans(settings, int(b.sum()), most) for b in bits]
    inputs = [
        chain_inputs(label, plan, plan.seed.params, b, s)
        for plan, b, s in zip(plans, bits, steps, strict=True)
    ]
    return runs.stack(inputs), most


def chain_inputs(
    label: str, plan: ChainName, params: Params, start: PyTree, steps: StepPlan
) -> ChainInputs:
    """The inputs of a chain.

    Args:
      label: see `first_rows`.
      plan: the chain.
      params: the weights that masks select from.
      start: its first bits or field.
      steps: the plan of its steps.
    """
    return ChainInputs(
        key=walk_key(label, plan),
        energy_key=energy_key(label, plan),
        params=params,
        stats=plan.seed.stats,
        start=start,
        ticks=steps,
    )


def first_key(label: str, plan: ChainName) -> Key:
    """The key from which a chain's first point is drawn."""
    return stream(plan.seed.number, "first_mask", label, plan.density, plan.chain)


def walk_key(label: str, plan: ChainName, phase: int = 0) -> Key:
    """The key of a chain's walk in one phase of a search; each phase has its own."""
    return stream(plan.seed.number, "walk", label, plan.density, plan.chain, phase)


def energy_key(label: str, plan: ChainName) -> Key:
    """The key of the energy. The chains of a seed share it, because their energies are compared."""
    return stream(plan.seed.number, "energy", label, plan.density)


def _field_row(
    label: str,
    settings: AnnealingSettings,
    where: SearchDomain,
    about: Callable[[Seed], Evidence],
    plan: ChainName,
) -> ChainInputs:
    features, start = annealed_start.first_field(
        settings, first_key(label, plan), where, about(plan.seed)
    )
    steps = annealed_start.step_plans(settings, 0, 0)
    inputs = chain_inputs(label, plan, plan.seed.params, start, steps)
    keep = annealed_start.field_keep(settings, where, plan.density)
    return inputs._replace(features=features, keep=keep)
