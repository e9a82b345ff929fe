"""Which nets are measured and on what; checked before work starts."""

import dataclasses

import jax

from experiments.classification import measures
from experiments.classification.methods import BayesSettings, prior_of
from experiments.harness import memory
from experiments.harness.problem import Problem
from experiments.harness.settings import MOST_EPOCHS, MOST_FACTOR, MOST_RUNS, MOST_UNITS, option
from jaxtickets import allocation, data, masks
from jaxtickets.data import shape as image_shape
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream


@dataclasses.dataclass(frozen=True)
class ClassifySettings:
    """Which nets are measured, and on what. Each field is also a flag of the same name."""

    models: tuple = option((), "several nets in place of --model; empty: --model only")
    datasets: tuple = option((), "several data sets in place of --dataset; empty: --dataset only")
    dense_nets: tuple = option(
        (),
        "folders of trained dense nets of other runs, tickets or glob patterns, one for each seed, "
        "from which MOPED and masks start; empty: those of --dense_store",
    )
    density: tuple = option(
        (0.05, 0.02),
        "kept fractions of the weights of pruned nets; empty: no net is pruned",
        above=0,
        below=1,
        empty=True,
    )
    floor: int = option(1, "minimum number of weights that a layer keeps", least=0, most=MOST_UNITS)
    retrain_epochs: int = option(
        5, "epochs in which pruned nets are trained again; 0: not", least=0, most=MOST_EPOCHS
    )
    retrain_rate: float = option(
        1.0,
        "learning rate of this training, as a fraction of --learning_rate",
        above=0,
        most=MOST_FACTOR,
    )
    transplant: bool = option(True, "train Bayesian nets under the masks of dense nets too")
    samples: int = option(
        10, "number of nets that a prediction of a Bayesian net draws", least=1, most=MOST_RUNS
    )
    other_dataset: str = option(
        measures.INVERTED, "images unlike those that the nets are trained on", measures.OTHERS
    )
    angles: tuple = option(
        (0.0, 15.0, 30.0, 45.0, 60.0, 75.0, 90.0),
        "degrees by which test images are rotated",
        least=-360,
        most=360,
    )
    noises: tuple = option(
        (0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
        "standard deviations of the noise on test images, in units of white",
        least=0,
        most=100,
    )
    shift_images: int = option(
        1000, "only the first N test images are rotated and disturbed", least=1, most=10**9
    )


def kept(settings: ClassifySettings, problem: Problem) -> dict[float, int]:
    """Density -> the number of weights that are kept, for 1 and all that are asked for.

    Raises:
      UserError: a density is out of reach.
    """
    shapes = masks.shapes(problem.param_shapes, problem.prunable)
    found = {1.0: masks.size(problem.param_shapes, problem.prunable)}
    for density in settings.density:
        try:
            found[density] = allocation.global_(shapes, density, settings.floor)
        except ValueError as error:
            raise UserError(f"--density={density:g}: {error}") from error
    return found


def check(
    settings: ClassifySettings, bayes: BayesSettings, problem: Problem, seeds: int, data_dir: str
) -> jax.Array:
    """The other images, uint8`[n, h, w, c]`.

    Raises:
      UserError, DataError: something can't be done.
    """
    try:
        prior_of(bayes)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    number = seeds * len(kept(settings, problem))
    size = 3 * memory.training(problem.param_shapes)  # means, deviations, the prior's centres
    memory.check_memory(f"--seeds={seeds}", number, size, "Bayesian trainings")
    examples = len(problem.dataset.test.labels)
    memory.check_memory(
        f"--samples={settings.samples}",
        settings.samples,
        4 * problem.dataset.classes * examples,
        "predictions of the test data",
    )
    other = settings.other_dataset
    if other in data.NAMES and image_shape(other) != problem.image_shape:
        raise UserError(
            f"--other_dataset={other}: its images are {image_shape(other)}, those of "
            f"{problem.dataset.name} are {problem.image_shape}"
        )
    if other == problem.dataset.name:
        raise UserError(f"--other_dataset={other}: the nets are trained on it, choose another")
    key = stream(0, "prediction", other, 1.0)
    return measures.other_images(other, problem.dataset, key, data_dir)
