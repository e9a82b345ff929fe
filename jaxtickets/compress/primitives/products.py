"""Products of matrices, and convolutions."""

from collections.abc import Sequence

import numpy as np
from jax.extend.core import JaxprEqn

from jaxtickets.compress.primitives.base import (
    Body,
    Primitive,
    Walk,
    bind,
    fitted,
)
from jaxtickets.compress.unit_labels import (
    FIXED,
    FREE,
    Axis,
    Seen,
    UntraceableError,
    Value,
    is_free,
    length,
    uniform,
)
from jaxtickets.nets.element_moves import shape_of
from jaxtickets.types import Array


def _product(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    (over, batch), (left, right) = eqn.params["dimension_numbers"], inputs
    for i, j in zip(*over, strict=True):
        _contract(left, i, right, j, seen)
    axes, zero = list[Axis](), list[bool]()
    for i, j in zip(*batch, strict=True):
        axes.append(seen.meet(left.axes[i], right.axes[j]))
        zero.append(left.is_zero(i) or right.is_zero(j))
    for value, mine, shared in zip(inputs, over, batch, strict=True):
        for axis in range(len(value.axes)):
            if axis not in mine and axis not in shared:
                size, loose = length(value.axes[axis]), is_free(value.axes[axis])
                axes.append(uniform(size, FIXED) if loose else value.axes[axis])
                zero.append(value.is_zero(axis))
    return [Value(tuple(axes), tuple(zero), seen.both(left.whole, right.whole))]


def _contract(left: Value, i: int, right: Value, j: int, seen: Seen) -> None:
    """Ties the axes over which a product sums; one of them must be zero for removed units."""
    joint = seen.meet(left.axes[i], right.axes[j])
    if not (left.is_zero(i) or right.is_zero(j)):
        seen.claim(joint, "mixes")


def _cut_product(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    has = [[body.keep(axis) for axis in value.axes] for value in inputs]
    wants = [list(some) for some in has]
    for pairs in eqn.params["dimension_numbers"]:
        for i, j in zip(*pairs, strict=True):
            wants[0][i] = wants[1][j] = has[0][i] & has[1][j]
    return bind(eqn, [fitted(*some) for some in zip(arrays, has, wants, strict=True)])


def _convolution(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    value, kernel = inputs
    params = eqn.params
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    if params["batch_group_count"] != 1:
        raise UntraceableError("has groups of examples")
    (batch, channel, *pixels), (units, row, *window) = numbers.lhs_spec, numbers.rhs_spec
    for some, axes in ((value, pixels), (kernel, window)):
        for axis in axes:
            seen.claim(some.axes[axis], "mixes") if some is value else seen.fix(some.axes[axis])
    if groups > 1 and length(kernel.axes[row]) == 1:
        seen.depthwise.add(kernel.path)
    if groups == 1 and kernel.path not in seen.depthwise:
        _contract(value, channel, kernel, row, seen)
        made = kernel.axes[units]
    else:
        group, inner = _halves(value.axes[channel], groups, seen)
        mine, outer = _halves(kernel.axes[units], groups, seen)
        seen.tie(group, mine)
        if len(inner) > 1:
            split = value._replace(axes=((inner,),), zero=(value.is_zero(channel),))
            _contract(split, 0, kernel, row, seen)
        made = (np.where(mine == FREE, group, mine), outer) if len(outer) > 1 else (mine,)
    shape = shape_of(eqn.outvars[0])
    axes, zero = [uniform(size, FIXED) for size in shape], [False] * len(shape)
    for place, axis, flag in (
        (numbers.out_spec[0], value.axes[batch], value.is_zero(batch)),
        (numbers.out_spec[1], made, kernel.is_zero(units)),
    ):
        axes[place], zero[place] = axis, flag
    return [Value(tuple(axes), tuple(zero), value.whole)]


def _halves(axis: Axis, outer: int, seen: Seen) -> tuple[np.ndarray, np.ndarray]:
    """The labels of an axis of channels as groups, and within each."""
    if outer == length(axis):
        return seen.flat(axis), np.full(1, FREE)
    parts = seen.regroup(Value((axis,), (False,)), (outer, length(axis) // outer))
    first, second = (seen.flat(part) for part in parts.axes)
    return first, second


def _cut_convolution(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    numbers = eqn.params["dimension_numbers"]
    channel, row = numbers.lhs_spec[1], numbers.rhs_spec[1]
    has = [[body.keep(axis) for axis in value.axes] for value in inputs]
    wants = [list(some) for some in has]
    groups = eqn.params["feature_group_count"]
    if groups == 1:
        both = has[0][channel]
        if len(has[1][row]) == len(both):
            both = wants[0][channel] = wants[1][row] = both & has[1][row]
    found = [fitted(*some) for some in zip(arrays, has, wants, strict=True)]
    groups = np.shape(found[0])[channel] // np.shape(found[1])[row]
    return bind(eqn, found, feature_group_count=groups)


RULES: dict[str, Primitive] = {
    "conv_general_dilated": Primitive(_convolution, _cut_convolution),
    "dot_general": Primitive(_product, _cut_product),
}  # fmt: skip
