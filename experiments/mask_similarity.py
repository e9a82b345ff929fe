"""Do methods find the same weights? How alike masks are, within methods and between them.

All pairs of masks of a density, made by criteria over several seeds or taken from saved tickets:
cosine, Jaccard and Hamming, over the whole net and layer by layer, beside the cosine that masks
with the same count in each layer have by chance.

    python -m experiments.mask_similarity
    python -m experiments.mask_similarity --tickets=annealed=runs/sa_search/*/tickets/*

The README has the numbers to expect, with spread, device and time.
"""

from typing import Any

from absl import flags

from jaxtickets import runs
from jaxtickets.analysis import similarity
from jaxtickets.drivers import comparison, gallery, opening
from jaxtickets.drivers.comparison import Entry
from jaxtickets.drivers.dense import StoreSettings
from jaxtickets.drivers.problem import Problem
from jaxtickets.figures import heat_maps
from jaxtickets.io import records, rows
from jaxtickets.io.errors import run_main
from jaxtickets.io.flags import RunSettings, define, read_all

SMOKE: dict[str, Any] = {
    "seeds": 2,
    "density": (0.2, 0.1),
    "criteria": ("random", "magnitude", "snip"),
    "epochs": 1,
}
GROUPS = (RunSettings(), StoreSettings(), *gallery.GROUPS)
LEADING = ("density", "layer", "method_a", "seed_a", "method_b", "seed_b", *similarity.MEASURES)


def main() -> None:
    """Reads the flags, checks them, makes the masks, compares all pairs of a density, draws."""
    place, store, *parts = read_all(GROUPS, SMOKE if flags.FLAGS.smoke else {})
    axis, problem = opening.prepare(place, parts)
    made = gallery.begin("mask_similarity", place, store, parts, axis, problem, trained=False)
    groups: dict[float, list[Entry]] = {}
    for entry in made.entries:
        groups.setdefault(entry.name["density"], []).append(entry)
    pairs = [row for density in groups for row in _pairs(problem, density, groups[density])]

    rows.write_summary(made.run.folder, pairs, *LEADING)
    heat_maps.draw_similarity(made.run.folder)
    print(_table(pairs))
    records.finish_run(made.run)
    print(f"run: {made.run.folder}")


def _pairs(problem: Problem, density: float, entries: list[Entry]) -> list[dict[str, Any]]:
    """A row for each unordered pair of masks, a mask with itself included: all, then by layer."""
    stacked = runs.stack([entry.start.mask for entry in entries])
    seen = similarity.overlaps(stacked, problem.prunable)
    parts = {"all": seen, **{path: similarity.layer(seen, path) for path in problem.prunable}}
    made = []
    for layer, part in parts.items():
        values = {name: measure(part) for name, measure in similarity.MEASURES.items()}
        for a, one in enumerate(entries):
            for b in range(a, len(entries)):
                other = entries[b]
                made.append(
                    {
                        "density": density,
                        "layer": layer.removesuffix("/kernel"),
                        "method_a": one.name["method"],
                        "seed_a": one.name["seed"],
                        "method_b": other.name["method"],
                        "seed_b": other.name["seed"],
                        **{name: round(float(v[a, b]), 6) for name, v in values.items()},
                    }
                )
    return made


def _table(pairs: list[dict[str, Any]]) -> str:
    """Mean ± sample standard deviation of the cosine over pairs of different masks, all layers.

    Masks of one seed lie over the same first weights, and so are apart from the others.
    """
    groups: dict[tuple[float, str, str, str], list[dict[str, Any]]] = {}
    for row in pairs:
        alike = row["seed_a"] == row["seed_b"]
        if row["layer"] == "all" and not (alike and row["method_a"] == row["method_b"]):
            names = sorted((row["method_a"], row["method_b"]))
            key = row["density"], *names, "same" if alike else "other"
            groups.setdefault(key, []).append(row)
    lines = [["masks", "density", "seed", "pairs", "cosine %", "by chance %"]]
    for (density, a, b, kind), members in sorted(groups.items(), key=lambda item: -item[0][0]):
        values = [comparison.spread([row[m] for row in members]) for m in ("cosine", "chance")]
        lines.append([f"{a}, {b}", f"{density:g}", kind, str(len(members)), *values])
    return comparison.aligned(lines)


if __name__ == "__main__":
    flags.DEFINE_bool("smoke", False, "seconds long")
    define(*GROUPS)
    run_main(main)
