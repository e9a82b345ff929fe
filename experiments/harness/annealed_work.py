"""The cost of a search over masks, in forward passes."""

from experiments.harness.annealed_settings import AnnealingSettings
from experiments.harness.budgeted_search import price
from experiments.harness.problem import Problem
from jaxtickets.recipes.search_domain import POTENTIALS
from jaxtickets.search import fields
from jaxtickets.search.energies import training_cost
from jaxtickets.search.interacting_chains import replaced


def search_passes(settings: AnnealingSettings, problem: Problem, chains: int) -> int:
    """`forward_passes` of a search over the masks of a problem's net, first points included."""
    return forward_passes(
        settings=settings,
        chains=chains,
        batch=problem.recipe.batch_size,
        images=len(problem.dataset.train.labels),
        validation=len(problem.dataset.validation.labels),
        begin=beginning(settings, problem),
    )


def forward_passes(
    settings: AnnealingSettings,
    chains: int,
    batch: int,
    images: int,
    validation: int,
    begin: int = 0,
) -> int:
    """Forward passes of one example that the chains of a seed take at most; a gradient is two more.

    At most, since informed swaps take a gradient only where one is accepted.

    Args:
      settings: the search.
      chains: of a seed and density.
      batch: examples of a training step.
      images: training images that there are.
      validation: validation images that there are.
      begin: what a chain's first point takes, see `beginning`.
    """
    images = settings.images or images
    training = training_cost(settings.train_steps * batch)

    def energy(seen: int) -> int:
        return {
            "trainability": training + seen,
            "gradient_flow": training_cost(min(seen, images)),
            "orthogonality": 0,
        }.get(settings.energy, seen)

    trained = settings.proposal == "trained"
    informed = settings.proposal.startswith("informed")
    step = training + training_cost(images) if trained else energy(images)
    first = step * (1 + (settings.burn_in if settings.temperature == 0 else 0))
    step *= 2 if settings.energy == "minibatch" else 1  # both masks on the same images
    gradient = training_cost(images) if informed else 0
    looks = settings.steps // settings.chunk
    walked = first + gradient + settings.steps * (step + gradient) + looks * energy(validation)
    new = replaced(settings.replaced, chains) * (looks - 1) * energy(images)
    if settings.interaction not in ("crossover", "restart"):
        new = 0
    return chains * (begin + walked) + new


def beginning(settings: AnnealingSettings, problem: Problem) -> int:
    """Forward passes that a chain's first point and features take, from criteria."""
    names: tuple[str, ...] = (settings.start,)
    if settings.granularity in POTENTIALS:
        names = *settings.features, settings.pooled
    prefix = "initial_"
    return sum(
        price(problem, prefix + name.removeprefix(prefix))
        for name in names
        if name and name != fields.CHANCE
    )
