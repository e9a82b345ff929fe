"""The settings of the grid."""

import dataclasses

from experiments.harness.settings import MOST_EPOCHS, MOST_RUNS, option
from jaxtickets.nets.image_scale import FORMS

THRESHOLDS = (60, 65, 70, 75, 80, *range(85, 100))


@dataclasses.dataclass(frozen=True)
class Question:
    """The grid. Each field is also a flag of the same name."""

    thresholds: tuple = option(
        THRESHOLDS, "pruned fractions of the prunable weights, in %", above=0, below=100
    )
    rewinds: tuple = option(
        (0, 1, 2, 5), "epochs to which the kept weights are rewound", least=0, most=MOST_EPOCHS
    )
    form: str = option(
        "",
        "form of a net that has one for small and one for large images (empty: as usual)",
        ("", *FORMS),
    )
    floor: int = option(1, "minimum number of weights that a layer keeps", least=0, most=10**9)
    part: int = option(
        0, "trainings at a time; 0: as many as take about 3 GB", least=0, most=MOST_RUNS
    )
    cost_trainings: int = option(
        16,
        "number of trainings that are timed in series and batched; 0: none",
        least=0,
        most=MOST_RUNS,
    )
