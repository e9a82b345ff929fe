"""The variants of a run: those of the table by name, and one for each heat."""

from collections.abc import Sequence

from experiments.harness.annealed_trainings import HOT, VARIANTS, Variant

HEAT = "heat"


def chosen(names: Sequence[str], heats: Sequence[float]) -> dict[str, Variant]:
    """Name -> variant; those of the heats drop and grow with it, and are named `heat_HEAT`."""
    found = {name: VARIANTS[name] for name in names}
    hot = {f"{HEAT}_{h:g}": HOT._replace(drop_heat=h, grow_heat=h) for h in heats}
    return found | hot


def heat_of(name: str) -> float | None:
    """The heat in a variant's name; None if there is none."""
    word, _, number = name.partition("_")
    try:
        return float(number) if word == HEAT else None
    except ValueError:
        return None
