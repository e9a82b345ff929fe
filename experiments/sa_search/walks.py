"""A walk over masks with its cost, in forward passes."""

from experiments.harness.annealed_settings import AnnealingSettings
from experiments.harness.annealing_runs import CheckedAnnealing, run_annealing
from experiments.harness.budgeted_search import price
from experiments.harness.chain_runs import FoundTicket
from experiments.harness.chunked_run import seconds
from experiments.harness.named_parts import takes
from experiments.harness.problem import Problem
from experiments.harness.session import Session
from jaxtickets.recipes.search_domain import POTENTIALS
from jaxtickets.recipes.search_energies import ENERGIES
from jaxtickets.recipes.search_proposals import PROPOSALS
from jaxtickets.search import fields
from jaxtickets.search.energies import training_cost
from jaxtickets.search.interacting_chains import INTERACTIONS, replaced_count


def run_walk(session: Session, checked: CheckedAnnealing, chains: int) -> list[FoundTicket]:
    """The results of a search over masks, which say what it cost. Its phase is `search`."""
    found = run_annealing(session, "search", checked, chains)
    cost = {
        "forward_passes": search_passes(checked.settings, session.problem, chains),
        "search_seconds": round(seconds(session.folder, "search") / len(found), 3),
    }
    return [ticket._replace(columns=cost | ticket.columns) for ticket in found]


def search_passes(settings: AnnealingSettings, problem: Problem, chains: int) -> int:
    """The `forward_passes` of a search over the masks of a problem's net, with its first points."""
    return forward_passes(
        settings=settings,
        chains=chains,
        batch=problem.recipe.batch_size,
        images=len(problem.dataset.train.labels),
        validation=len(problem.dataset.validation.labels),
        begin=start_cost(settings, problem),
    )


def forward_passes(
    settings: AnnealingSettings,
    chains: int,
    batch: int,
    images: int,
    validation: int,
    begin: int = 0,
) -> int:
    """The most forward passes of one example that the chains of a seed take.

    A gradient counts as two more passes. The number is an upper bound: informed swaps compute a
    gradient only after an accepted swap.

    Args:
      settings: the search.
      chains: the number of chains of a seed and density.
      batch: the number of examples in a training step.
      images: the number of training images.
      validation: the number of validation images.
      begin: the forward passes of a chain's first point, see `start_cost`.
    """
    images = settings.images or images
    training = training_cost(settings.train_steps * batch)
    scored, proposal = ENERGIES[settings.energy], PROPOSALS[settings.proposal]
    energy = scored.passes(images, images, training) + proposal.energy_passes * images
    more = proposal.step_passes * images
    first = energy * (1 + (settings.burn_in if settings.temperature == 0 else 0)) + more
    step = energy * (2 if scored.fresh else 1) + more  # both masks on the same images
    chunks = settings.steps // settings.chunk
    evaluation = scored.passes(validation, images, training)
    walked = first + settings.steps * step + chunks * evaluation
    children = 0
    if "replaced" in takes(INTERACTIONS[settings.interaction]):
        children = replaced_count(settings.replaced, chains) * (chunks - 1)
    return chains * (begin + walked) + children * energy


def start_cost(settings: AnnealingSettings, problem: Problem) -> int:
    """The forward passes of one example that the criteria of a chain's first point take."""
    names: tuple[str, ...] = (settings.start,)
    if settings.granularity in POTENTIALS:
        names = *settings.features, settings.pooled
    prefix = "initial_"
    return sum(
        price(problem, prefix + name.removeprefix(prefix))
        for name in names
        if name and name != fields.CHANCE
    )
