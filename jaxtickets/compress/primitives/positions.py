"""Positions that depend on the data, and the few operations that pass all on."""

from collections.abc import Sequence

from jax.extend.core import JaxprEqn

from jaxtickets.compress.primitives.base import (
    Body,
    Primitive,
    Walk,
    bind,
    cut_alike,
    cut_shape,
    fitted,
)
from jaxtickets.compress.unit_labels import (
    FIXED,
    FREE,
    Axis,
    Seen,
    Value,
    is_free,
    length,
    uniform,
)
from jaxtickets.nets.element_moves import shape_of
from jaxtickets.types import Array


def _gather(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    table, index = inputs
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    shape = shape_of(eqn.outvars[0])
    rest = list(index.axes[:-1])
    for mine, theirs in zip(
        numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True
    ):
        rest[theirs] = seen.meet(table.axes[mine], rest[theirs])
    whole_axes = list[tuple[Axis, bool]]()
    for axis, size in enumerate(sizes):
        if axis in numbers.operand_batching_dims:
            continue
        cut = size != length(table.axes[axis]) or axis in numbers.collapsed_slice_dims
        if cut and length(table.axes[axis]) > 1:
            seen.claim(table.axes[axis], "", rule=False)
        if axis not in numbers.collapsed_slice_dims:
            flag = not cut and table.is_zero(axis)
            whole_axes.append((uniform(size, FIXED) if cut else table.axes[axis], flag))
    axes, zero = list[Axis](), list[bool]()
    for place in range(len(shape)):
        offset = place in numbers.offset_dims
        mine, flag = whole_axes.pop(0) if offset else (rest.pop(0), False)
        axes.append(mine)
        zero.append(flag)
    return [Value(tuple(axes), tuple(zero), table.whole)]


def _cut_gather(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    sizes = tuple(
        int(body.keep(axis).sum()) if size == length(axis) else size
        for size, axis in zip(eqn.params["slice_sizes"], inputs[0].axes, strict=True)
    )
    return bind(eqn, arrays, slice_sizes=sizes)


def _dynamic_slice(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    value, shape = inputs[0], shape_of(eqn.outvars[0])
    axes = list[Axis]()
    for axis, size in zip(value.axes, shape, strict=True):
        if size != length(axis):
            seen.claim(axis, "", rule=False)
            axis = uniform(size, FREE if is_free(axis) else FIXED)
        axes.append(axis)
    return [Value(tuple(axes), value.zero, value.whole)]


def _dynamic_update(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    value, update = inputs[:2]
    axes, zero = list[Axis](), list[bool]()
    for i, (a, b) in enumerate(zip(value.axes, update.axes, strict=True)):
        if length(a) == length(b):
            axes.append(seen.meet(a, b))
            zero.append(value.is_zero(i) and update.is_zero(i))
        else:
            seen.claim(a, "", rule=False)
            seen.claim(b, "", rule=False)
            axes.append(uniform(length(a), FIXED))
            zero.append(False)
    return [Value(tuple(axes), tuple(zero), value.whole)]


def _cut_dynamic_update(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    wants = [body.keep(axis) for axis in outputs[0].axes]
    found = list(arrays)
    for i in range(2):
        has = [body.keep(axis) for axis in inputs[i].axes]
        mine = [b if len(a) == len(b) else a for a, b in zip(has, wants, strict=True)]
        found[i] = fitted(arrays[i], has, mine)
    return bind(eqn, found)


def _barrier(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    return list(inputs)


def _transform(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    """A Fourier transform mixes its last axes."""
    (value,), shape = inputs, shape_of(eqn.outvars[0])
    first = len(shape) - len(eqn.params["fft_lengths"])
    for axis in value.axes[first:]:
        seen.claim(axis, "", rule=False)
    rest = tuple(uniform(size, FIXED) for size in shape[first:])
    return [Value((*value.axes[:first], *rest), value.zero, value.whole)]


RULES: dict[str, Primitive] = {
    "dynamic_slice": Primitive(_dynamic_slice, cut_shape("slice_sizes")),
    "dynamic_update_slice": Primitive(_dynamic_update, _cut_dynamic_update),
    "fft": Primitive(_transform, cut_alike),
    "gather": Primitive(_gather, _cut_gather),
    "optimization_barrier": Primitive(_barrier, cut_alike),
}  # fmt: skip
