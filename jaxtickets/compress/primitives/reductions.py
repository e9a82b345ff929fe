"""Reductions, windows, and operations along an axis."""

from collections.abc import Sequence

from jax.extend.core import JaxprEqn

from jaxtickets.compress.primitives.base import (
    Primitive,
    Trace,
    Walk,
    cut_alike,
    tied,
)
from jaxtickets.compress.unit_labels import (
    FIXED,
    FREE,
    Axis,
    Seen,
    Value,
    length,
    uniform,
)
from jaxtickets.nets.element_moves import shape_of


def _without(value: Value, gone: Sequence[int], whole: int) -> Value:
    left = [axis for axis in range(len(value.axes)) if axis not in gone]
    return Value(
        tuple(value.axes[axis] for axis in left), tuple(value.zero[axis] for axis in left), whole
    )


def _reduce(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    (value, *_), gone = inputs, eqn.params["axes"]
    whole = value.whole
    for axis in gone:
        if length(value.axes[axis]) == 1:
            whole = seen.both(whole, int(value.axes[axis][0][0]))
        elif not (eqn.primitive.name == "reduce_sum" and value.is_zero(axis)):
            seen.claim(value.axes[axis], "mixes")
    return [_without(value, gone, whole if whole > FIXED else FREE)]


def _window(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    value, shape = inputs[0], shape_of(eqn.outvars[0])
    axes = list[Axis]()
    for axis, size, window in zip(value.axes, shape, eqn.params["window_dimensions"], strict=True):
        if window > 1 or size != length(axis):
            seen.claim(axis, "mixes")
            axes.append(uniform(size, FIXED))
        else:
            axes.append(axis)
    return [Value(tuple(axes), value.zero, value.whole)]


def _along(parameter: str) -> Trace:
    """The rule of an operation along one axis, whose units it mixes; other axes are tied."""

    def trace(
        eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
    ) -> list[Value]:
        joint = tied(inputs, seen)
        place = eqn.params[parameter]
        seen.claim(joint.axes[place], "", rule=False)
        zero = tuple(
            flag and eqn.primitive.name in ("cumsum", "cumprod", "sort") for flag in joint.zero
        )
        return [joint._replace(zero=zero, const=None) for _ in eqn.outvars]

    return trace


RULES: dict[str, Primitive] = {
    **{
        name: Primitive(_reduce, cut_alike)
        for name in (
            "argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or",
            "reduce_prod", "reduce_sum", "reduce_xor",
        )
    },
    **{
        name: Primitive(_window, cut_alike)
        for name in (
            "reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum",
        )
    },
    **{
        name: Primitive(_along("axis"), cut_alike)
        for name in ("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum")
    },
    "sort": Primitive(_along("dimension"), cut_alike),
}  # fmt: skip
