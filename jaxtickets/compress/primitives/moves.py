"""Operations that move elements: their labels move with them."""

from collections.abc import Sequence

import numpy as np
from jax.extend.core import JaxprEqn

from jaxtickets.compress.primitives.base import (
    Body,
    Primitive,
    Walk,
    bind,
    cut_alike,
    cut_shape,
    fitted,
    take,
    tied,
)
from jaxtickets.compress.unit_labels import (
    FIXED,
    FREE,
    Axis,
    Seen,
    UntraceableError,
    Value,
    fixed,
    free,
    has_units,
    length,
    uniform,
)
from jaxtickets.nets.element_moves import MOVES
from jaxtickets.types import Array


def _broadcast(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    (value, *_), shape = inputs, eqn.params["shape"]
    axes, zero = list(free(shape).axes), [value.const == 0] * len(shape)
    for axis, place in enumerate(eqn.params["broadcast_dimensions"]):
        if value.shape[axis] == shape[place]:
            axes[place], zero[place] = value.axes[axis], value.is_zero(axis)
        else:
            seen.fix(value.axes[axis])
    return [Value(tuple(axes), tuple(zero), value.whole, "", value.const)]


def _reshape(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    (value, *_), shape = inputs, eqn.params["new_sizes"]
    if 0 in shape:
        return [fixed(shape)]
    try:
        return [seen.regroup(value, shape)]
    except UntraceableError:
        for axis in value.axes:
            seen.claim(axis, "reshapes to axes that don't divide the")
        return [fixed(shape)]


def _squeeze(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    (value,), gone = inputs, {axis % len(inputs[0].axes) for axis in eqn.params["dimensions"]}
    whole = value.whole
    for axis in gone:
        whole = seen.both(whole, int(value.axes[axis][0][0]))
    left = [axis for axis in range(len(value.axes)) if axis not in gone]
    return [
        Value(
            tuple(value.axes[axis] for axis in left),
            tuple(value.zero[axis] for axis in left),
            whole if whole > FIXED else FREE,
            "",
            value.const,
        )
    ]


def _transpose(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    (value,), order = inputs, eqn.params["permutation"]
    return [
        Value(
            tuple(value.axes[axis] for axis in order),
            tuple(value.zero[axis] for axis in order),
            value.whole,
            "",
            value.const,
        )
    ]


def _slice(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    (value,) = inputs
    axes = list[Axis]()
    for axis, places in zip(value.axes, _sliced(eqn), strict=True):
        inner = length(axis[1:])
        if len(places) == length(axis):
            axes.append(axis)
        elif (
            len(axis) > 1
            and len(places) % inner == 0
            and places[0] % inner == 0
            and (np.diff(places) == 1).all()
        ):  # whole blocks
            axes.append((axis[0][places[::inner] // inner], *axis[1:]))
        else:
            axes.append((seen.flat(axis)[places],))
    return [value._replace(axes=tuple(axes), path="")]


def _sliced(eqn: JaxprEqn) -> list[np.ndarray]:
    """The positions along each axis that a slice selects."""
    start, limit = eqn.params["start_indices"], eqn.params["limit_indices"]
    steps = eqn.params["strides"] or (1,) * len(start)
    return [np.arange(*bounds) for bounds in zip(start, limit, steps, strict=True)]


def _cut_slice(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    (array,) = arrays
    for axis, places in enumerate(_sliced(eqn)):
        here = body.keep(inputs[0].axes[axis])
        wanted = places[body.keep(outputs[0].axes[axis])]
        array = take(array, (np.cumsum(here) - 1)[wanted], axis)
    return [array]


def _concatenate(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    along, wholes = eqn.params["dimension"], {value.whole for value in inputs}
    axes, zero = list[Axis](), list[bool]()
    for axis in range(len(inputs[0].axes)):
        if axis != along:
            joint = inputs[0].axes[axis]
            for value in inputs[1:]:
                joint = seen.meet(joint, value.axes[axis])
            axes.append(joint)
            zero.append(all(value.is_zero(axis) for value in inputs))
            continue
        parts = [seen.flat(value.axes[axis]) for value in inputs]
        if len(wholes) > 1:
            for place, value in enumerate(inputs):
                if value.whole > FIXED and len(parts[place]) == 1:
                    parts[place] = np.full(1, value.whole)
                elif value.whole > FIXED:
                    seen.tie(np.array(value.whole), np.array(FIXED))
        axes.append((np.concatenate(parts),))
        zero.append(all(value.is_zero(axis) or not has_units(value.axes[axis]) for value in inputs))
    return [Value(tuple(axes), tuple(zero), wholes.pop() if len(wholes) == 1 else FREE)]


def _reverse(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    (value,), turned = inputs, eqn.params["dimensions"]
    axes = tuple(
        tuple(factor[::-1] for factor in axis) if place in turned else axis
        for place, axis in enumerate(value.axes)
    )
    return [value._replace(axes=axes, path="")]


def _cut_concatenate(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    along, found = eqn.params["dimension"], []
    ends = np.cumsum([value.shape[along] for value in inputs])
    wants = [body.keep(axis) for axis in outputs[0].axes]
    for array, value, last in zip(arrays, inputs, ends, strict=True):
        mine = list(wants)
        mine[along] = wants[along][last - value.shape[along] : last]
        found.append(fitted(array, [body.keep(axis) for axis in value.axes], mine))
    return bind(eqn, found)


def _pad(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    value, _ = inputs
    axes = list[Axis]()
    for axis, config in zip(value.axes, eqn.params["padding_config"], strict=True):
        if config == (0, 0, 0):
            axes.append(axis)
            continue
        if config[2]:
            seen.claim(axis, "puts zeros between")
        (labels,) = MOVES["pad"]({"padding_config": [config]}, seen.flat(axis), np.array(FREE))
        axes.append((labels,))
    return [Value(tuple(axes), value.zero, value.whole)]


def _cut_pad(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    config = []
    for axis, (low, high, inner) in zip(inputs[0].axes, eqn.params["padding_config"], strict=True):
        here = body.keep(axis)
        low = low if low >= 0 else -int(here[:-low].sum())
        high = high if high >= 0 else -int(here[high:].sum())
        config.append((low, high, inner))
    return bind(eqn, arrays, padding_config=tuple(config))


def _split(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    (value,), along = inputs, eqn.params["axis"]
    labels = seen.flat(value.axes[along])
    found = []
    for part in np.split(labels, np.cumsum(eqn.params["sizes"])[:-1]):
        axes = list(value.axes)
        axes[along] = (part,)
        found.append(value._replace(axes=tuple(axes), path=""))
    return found


def _cut_split(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    along = eqn.params["axis"]
    sizes = tuple(int(body.keep(value.axes[along]).sum()) for value in outputs)
    return bind(eqn, arrays, sizes=sizes)


def _stack(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    joint = tied(inputs, seen)
    wholes = np.array([value.whole for value in inputs])
    axes, zero = list(joint.axes), list(joint.zero)
    axes.insert(eqn.params["axis"], (wholes,))
    zero.insert(eqn.params["axis"], False)
    return [Value(tuple(axes), tuple(zero))]


def _unstack(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    (value,), along = inputs, eqn.params["axis"]
    rest = [axis for axis in range(len(value.axes)) if axis != along]
    return [
        Value(
            tuple(value.axes[axis] for axis in rest),
            tuple(value.zero[axis] for axis in rest),
            int(label) if label > FIXED else value.whole,
        )
        for label in seen.flat(value.axes[along])
    ]


def _tile(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    (value,) = inputs
    axes = tuple(
        axis if times == 1 else (*uniform(times, FREE), *axis)
        for axis, times in zip(value.axes, eqn.params["reps"], strict=True)
    )
    return [value._replace(axes=axes, path="")]


RULES: dict[str, Primitive] = {
    "broadcast_in_dim": Primitive(_broadcast, cut_shape("shape")),
    "concatenate": Primitive(_concatenate, _cut_concatenate),
    "pad": Primitive(_pad, _cut_pad),
    "reshape": Primitive(_reshape, cut_shape("new_sizes")),
    "rev": Primitive(_reverse, cut_alike),
    "slice": Primitive(_slice, _cut_slice),
    "split": Primitive(_split, _cut_split),
    "squeeze": Primitive(_squeeze, cut_alike),
    "stack": Primitive(_stack, cut_alike),
    "tile": Primitive(_tile, cut_alike),
    "transpose": Primitive(_transpose, cut_alike),
    "unstack": Primitive(_unstack, cut_alike),
}  # fmt: skip
