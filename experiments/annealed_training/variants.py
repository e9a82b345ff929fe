"""The variants of a run: those of the table by name, and one for each heat."""

from collections.abc import Sequence

from experiments.harness.annealed_variants import HOT, VARIANTS, Variant

HEAT = "heat"


def chosen(names: Sequence[str], heats: Sequence[float]) -> dict[str, Variant]:
    """Name -> variant: those of the table by name, and those that drop and grow with each heat."""
    found = {name: VARIANTS[name] for name in names}
    return found | {heat_name(h): HOT._replace(drop_heat=h, grow_heat=h) for h in heats}


def heat_name(heat: float) -> str:
    """The name of a heat's variant, such as `heat_0.1`."""
    return f"{HEAT}_{heat:g}"
