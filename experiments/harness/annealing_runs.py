"""Checks an annealing search before a run starts, and runs it for every seed and density."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.harness import annealed, annealed_settings, annealed_start, memory
from experiments.harness.annealed_settings import AnnealingSettings
from experiments.harness.chain_runs import FoundTicket, best, progress_of, run_chains
from experiments.harness.chain_starts import ChainName, first_key, first_rows
from experiments.harness.problem import Problem
from experiments.harness.seeds import evidence, seed
from experiments.harness.session import Session
from jaxtickets import runs
from jaxtickets.compress.budget import Costs
from jaxtickets.io.errors import UserError
from jaxtickets.recipes.search_domain import SearchDomain
from jaxtickets.recipes.search_energies import ENERGIES
from jaxtickets.runs import Axis, Shared


class CheckedAnnealing(NamedTuple):
    """A search whose settings fit the net and the data.

    Attributes:
      settings: the search.
      where: the domain of the chains.
      sight: the data that the search sees, on each device.
      densities: the kept fractions.
    """

    settings: AnnealingSettings
    where: SearchDomain
    sight: Shared
    densities: tuple[float, ...]


def check_annealing(
    settings: AnnealingSettings,
    problem: Problem,
    first: int,
    densities: Sequence[float],
    axis: Axis,
    chains: int = 1,
    costs: Costs | None = None,
) -> CheckedAnnealing:
    """Checks a search against a net and its data.

    Args:
      settings: the search.
      problem: the net and its data.
      first: the number of a seed; its initial weights serve for the checks.
      densities: the kept fractions of weights, of units, or, with `costs`, of multiply-adds.
      axis: the run axis.
      chains: the number of chains of each density and seed.
      costs: the multiply-adds of units, for fields of units; see `SearchDomain`.

    Raises:
      UserError: a setting is invalid, there are too few chains for an interaction or too many for
        the memory, a density leaves nothing to search, there are too few images, or the first layer
        can't be evaluated by differences.
    """
    first_seed = seed(problem, first)
    image = problem.image_shape
    try:
        annealed_settings.check_search(settings)
        if settings.interaction != "none" and chains < 2:
            raise ValueError(f"interaction={settings.interaction}: takes --chains=2 or more")
        where = annealed.domain_of(
            settings, first_seed.params, problem.prunable, problem.wiring, image, costs
        )
        memory.check_memory(
            f"--chains={chains}" + (f" --tabu={settings.tabu}" if settings.tabu else ""),
            chains * len(densities),
            memory.MASKS * where.space.size + memory.WORD * settings.tabu,
            "chains",
        )
        for density in densities:
            if where.fields is None:
                key = first_key("check", ChainName(density, first_seed, 0))
                annealed_start.first_bits(settings, key, where.space, density)
            else:
                annealed_start.field_keep(settings, where, density)
        sight = annealed.search_data(
            settings, problem.recipe.prepare, problem.dataset.train, problem.dataset.validation
        )
        left, size = len(sight.training.labels), problem.recipe.batch_size
        if ENERGIES[settings.energy].trains and left < size:
            raise ValueError(
                f"images={settings.images}: leaves {left} for training, and batch_size={size}"
            )
        annealed.first_layer(
            settings,
            problem.recipe.model,
            first_seed.params,
            first_seed.stats,
            sight.scored.images,
            problem.prunable,
            most=1,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    return CheckedAnnealing(settings, where, runs.share(sight, axis), tuple(densities))


def run_annealing(
    session: Session, phase: str, checked: CheckedAnnealing, chains: int
) -> list[FoundTicket]:
    """Runs several chains for each density and seed, and returns the best ticket of each.

    Args:
      session: its problem and run axis are those of `check_annealing`; the masks select from the
        weights of its seeds.
      phase: the search's name, see `run_in_chunks`.
      checked: the search.
      chains: the number of chains of each density and seed.

    Raises:
      UserError: a first mask leaves a layer empty, or an energy is not finite.
    """
    settings, where, problem = checked.settings, checked.where, session.problem
    plans = [
        ChainName(density, one, chain)
        for density in checked.densities
        for one in session.seeds
        for chain in range(chains)
    ]
    progress = progress_of(phase, len(plans), settings.steps)
    if not (session.folder / "checkpoints" / phase).exists():
        progress.announce()  # first masks by a criterion take a while
    try:
        first, most = first_rows(
            phase, settings, where, plans, lambda one: evidence(problem, one, None, session.data)
        )
    except ValueError as error:  # a layer that a chain's first mask leaves empty
        raise UserError(str(error)) from error
    optimizer = problem.recipe.optimizer(problem.hyper)
    search = annealed.build(settings, problem.recipe, optimizer, where, problem.prunable, most)
    names = [{"density": p.density, "seed": p.seed.number, "chain": p.chain} for p in plans]
    ends = run_chains(
        session,
        phase,
        settings.steps,
        settings.chunk,
        search,
        chains=first,
        names=names,
        sight=checked.sight,
        group=chains,
        progress=progress,
    )
    return best(settings, where, plans, first, ends)
