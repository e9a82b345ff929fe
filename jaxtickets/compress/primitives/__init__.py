"""One table of primitives: how each carries the labels of units, and how it runs with fewer units.

`PRIMITIVES[name].trace` gives the labels of an equation's outputs, and ties those of its inputs;
`PRIMITIVES[name].cut` computes the outputs from arrays that have lost units. Most primitives run
with the parameters of their equation; those with a shape in their parameters say how it changes.
"""

from collections.abc import Sequence

from jax.extend.core import JaxprEqn

from jaxtickets.compress.primitives import (
    elementwise,
    loops,
    moves,
    positions,
    products,
    reductions,
)
from jaxtickets.compress.primitives.base import Primitive, Walk, cut_alike
from jaxtickets.compress.primitives.elementwise import ELEMENTWISE
from jaxtickets.compress.unit_labels import Seen, Value, fixed, has_units
from jaxtickets.nets.element_moves import shape_of


def _no_rule(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    """Any other primitive: all units of its inputs must stay."""
    for value in inputs:
        for axis in value.axes:
            seen.claim(axis, "", rule=False)
            seen.fix(axis) if not has_units(axis) else None
    return [fixed(shape_of(var)) for var in eqn.outvars]


NO_RULE = Primitive(_no_rule, cut_alike)

PRIMITIVES: dict[str, Primitive] = {
    **elementwise.RULES,
    **reductions.RULES,
    **moves.RULES,
    **products.RULES,
    **positions.RULES,
    **loops.RULES,
}

__all__ = ["ELEMENTWISE", "NO_RULE", "PRIMITIVES"]
