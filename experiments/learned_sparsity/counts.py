"""How results are named, and what a mask leaves of the weights, the multiply-adds and the units."""

import math

from experiments.harness import trained_masks
from experiments.harness.problem import Problem
from experiments.harness.rows import Row
from experiments.harness.trained_masks import Entry
from jaxtickets import masks, nets


def fields(method: str, strength: float | None, asked: float | None, seed: int) -> Row:
    """The fields that name a result in rows."""
    return {"method": method, "strength": strength, "asked": asked, "seed": seed}


def place_of(named: Row) -> str:
    """The folder of a result's ticket, under `tickets/`."""
    level = "" if named["strength"] is None else f"-strength{named['strength']:g}"
    level += "" if named["asked"] is None else f"-density{named['asked']:g}"
    return f"{named['method']}{level}-seed{named['seed']}"


def counted(problem: Problem, entry: Entry) -> Row:
    """The fields of an entry's name, and what its mask leaves.

    `density` is the share of the prunable weights that is kept, `factor` its inverse (infinite if
    nothing is kept), `multiply_adds` those of an image with zeros skipped, and `left/GROUP` the
    units on a path of kept weights, where the net's wiring is known.
    """
    (row,) = trained_masks.counted_rows(problem, [entry])
    sizes = masks.shapes(problem.param_shapes, problem.prunable)
    total = masks.size(problem.param_shapes, problem.prunable)
    kept = {path: row[f"kept/{path}"] for path in problem.prunable}
    adds = nets.multiply_adds(problem.net, problem.image_shape)
    skipped = sum(
        count * (1 - kept[path] / math.prod(sizes[path])) if path in kept else 0
        for path, count in adds.items()
    )
    units = {
        f"left/{group.name}": group.size - row[f"dead_units/{group.name}"]
        for group in problem.wiring
    }
    if problem.wiring:
        first = sizes.get(f"{problem.wiring[0].producers[0]}/kernel", ())
        if len(first) == 2:  # the pixels of a dense layer, not the channels of a convolution
            units = {"left/inputs": first[0] - row["dead_inputs"]} | units
    ones = sum(kept.values())
    return row | {
        "density": round(ones / total, 8),
        "factor": round(total / ones, 3) if ones else math.inf,
        "multiply_adds": round(sum(adds.values()) - skipped),
        "multiply_adds_left": round(1 - skipped / sum(adds.values()), 8),
        **units,
    }
