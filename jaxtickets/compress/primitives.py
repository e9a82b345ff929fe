"""One table of primitives: how each carries the labels of units, and how it runs with fewer units.

`PRIMITIVES[name].trace` gives the labels of an equation's outputs, and ties those of its inputs;
`PRIMITIVES[name].cut` computes the outputs from arrays that have lost units. Most primitives run
with the parameters of their equation; those with a shape in their parameters say how it changes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn

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
    is_free,
    length,
    uniform,
)
from jaxtickets.nets.element_moves import MOVES, opened, scan_counts, shape_of
from jaxtickets.types import Array

Walk = Callable[..., list[Value]]
"""`walk(jaxpr, values, seen, module)`: the labels of a body's outputs."""


class Body(NamedTuple):
    """What a rule with a body, such as a scan, needs to run it.

    Attributes:
      keep: axis -> bool`[n]`, the positions that are kept.
      run: `run(closed jaxpr, values, arrays) -> (values, arrays)`, a body with fewer units.
      walk: the labels of a body's outputs.
      seen: the results of the walk.
      module: the module that the equation belongs to.
    """

    keep: Callable[[Axis], np.ndarray]
    run: Callable[..., tuple[list[Value], list[Array]]]
    walk: Walk
    seen: Seen
    module: str


Trace = Callable[[JaxprEqn, Sequence[Value], Seen, Walk, str], list[Value]]
"""`trace(eqn, inputs, seen, walk, module) -> outputs`."""

Cut = Callable[[JaxprEqn, Sequence[Array], Sequence[Value], Sequence[Value], Body], list[Array]]
"""`cut(eqn, arrays, inputs, outputs, body) -> arrays`, given the labels of inputs and outputs."""


class Primitive(NamedTuple):
    """The two rules of a primitive."""

    trace: Trace
    cut: Cut


# --- elementwise operations ----------------------------------------------------------------------

ZERO_AT_ZERO = {
    "abs", "asin", "asinh", "atan", "atanh", "cbrt", "ceil", "conj", "convert_element_type", "copy",
    "copy_p", "erf", "erf_inv", "expm1", "floor", "imag", "integer_pow", "log1p", "name", "neg",
    "real", "reduce_precision", "round", "sharding_constraint", "sign", "sin", "sinh", "sqrt",
    "square", "stop_gradient", "tan", "tanh",
}  # fmt: skip
"""Functions of one value that are zero at zero."""

ELEMENTWISE = ZERO_AT_ZERO | {
    "acos", "acosh", "add", "add_any", "and", "atan2", "clamp", "complex", "cos", "cosh", "digamma",
    "div", "eq", "erfc", "exp", "exp2", "ge", "gt", "is_finite", "le", "lgamma", "log", "log2",
    "logistic", "lt", "max", "min", "mul", "ne", "nextafter", "not", "one_minus_square", "or",
    "pow", "rem", "rsqrt", "select_n", "sub", "xor",
}  # fmt: skip


def _stays_zero(name: str, values: Sequence[Value], axis: int) -> bool:
    """Whether an elementwise operation gives zero where its values are slices of removed units."""
    zeros = [value.is_zero(axis) for value in values]
    if name in ZERO_AT_ZERO:
        return zeros[0]
    if name in ("mul", "and"):
        return any(zeros)
    if name in ("div", "rem"):
        return zeros[0]
    if name in ("add", "add_any", "sub", "or", "xor"):
        return all(zeros)
    if name == "select_n":
        return all(zeros[1:])
    sign = {"max": 1, "min": -1}.get(name, 0)
    if sign:
        return all(
            zero or (value.const is not None and sign * value.const <= 0)
            for zero, value in zip(zeros, values, strict=True)
        )
    if name == "clamp":
        low, high = values[0].const, values[2].const
        return zeros[1] and low is not None and high is not None and low <= 0 <= high
    return False


def _elementwise(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    shape, name = shape_of(eqn.outvars[0]), eqn.primitive.name
    axes = list(free(shape).axes)
    whole = FREE
    for value in inputs:
        for axis, mine in enumerate(value.axes):
            if length(mine) == shape[axis]:
                axes[axis] = seen.meet(axes[axis], mine)
            else:  # one position, which broadcasts
                seen.fix(mine)
        whole = seen.both(whole, value.whole)
    zero = tuple(_stays_zero(name, inputs, axis) for axis in range(len(shape)))
    same = name in ("convert_element_type", "copy", "stop_gradient", "reduce_precision")
    const = inputs[0].const if same else None
    path = inputs[0].path if same else ""
    return [Value(tuple(axes), zero, whole, path, const)]


def _take(array: Array, places: np.ndarray, axis: int) -> Array:
    """The places of an array along an axis; a slice if they are consecutive."""
    if len(places) == np.shape(array)[axis] and (places == np.arange(len(places))).all():
        return array
    if len(places) and (np.diff(places) == 1).all():
        return lax.slice_in_dim(jnp.asarray(array), int(places[0]), int(places[-1]) + 1, axis=axis)
    return jnp.take(jnp.asarray(array), places, axis, mode="clip")


def fitted(array: Array, has: Sequence[np.ndarray], wants: Sequence[np.ndarray]) -> Array:
    """An array that has the positions `has` along its axes, with the positions `wants` of these.

    >>> has, wants = np.array([True, True, False, True]), np.array([False, True, False, True])
    >>> fitted(np.array([10, 20, 40]), [has], [wants]).tolist()
    [20, 40]
    """
    for axis, (here, there) in enumerate(zip(has, wants, strict=True)):
        if (there & ~here).any():
            raise UntraceableError("needs units that are gone")
        array = _take(array, np.flatnonzero(there[here]), axis)
    return array


def _fit_all(
    arrays: Sequence[Array], inputs: Sequence[Value], axes: Sequence[Axis], body: Body
) -> list[Array]:
    """The arrays with the positions that are kept along these axes; numbers and ones stay."""
    wants, found = [body.keep(axis) for axis in axes], []
    for array, value in zip(arrays, inputs, strict=True):
        has = [body.keep(axis) for axis in value.axes]
        mine = [b if len(a) == len(b) else a for a, b in zip(has, wants, strict=False)]
        found.append(fitted(array, has, mine))
    return found


def bind(eqn: JaxprEqn, arrays: Sequence[Array], **changed: Any) -> list[Array]:
    """The outputs of an equation's primitive for other arrays, and with changed parameters.

    >>> (eqn,) = jax.make_jaxpr(lax.neg)(0.0).eqns
    >>> [array.tolist() for array in bind(eqn, [np.array([1.0, 2.0], np.float32)])]
    [[-1.0, -2.0]]
    """
    params = eqn.primitive.get_bind_params(dict(eqn.params))
    outputs = eqn.primitive.bind(*arrays, **{**params, **changed})
    return list(outputs) if eqn.primitive.multiple_results else [outputs]


def _cut_elementwise(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    return bind(eqn, _fit_all(arrays, inputs, outputs[0].axes, body))


def _cut_alike(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    """Runs with the parameters of the equation."""
    return bind(eqn, arrays)


def _small_shape(value: Value, body: Body) -> tuple[int, ...]:
    return tuple(int(body.keep(axis).sum()) for axis in value.axes)


def _cut_shape(parameter: str) -> Cut:
    """The rule of a primitive with a parameter that is the shape of its output."""

    def cut(
        eqn: JaxprEqn,
        arrays: Sequence[Array],
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        body: Body,
    ) -> list[Array]:
        return bind(eqn, arrays, **{parameter: _small_shape(outputs[0], body)})

    return cut


# --- moves ---------------------------------------------------------------------------------------


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
        array = _take(array, (np.cumsum(here) - 1)[wanted], axis)
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
    joint = _tied(inputs, seen)
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


def _tied(values: Sequence[Value], seen: Seen) -> Value:
    """One value for several that an operation selects among."""
    first, *others = values
    axes, zero = list(first.axes), [first.is_zero(axis) for axis in range(len(first.axes))]
    for value in others:
        axes = [seen.meet(a, b) for a, b in zip(axes, value.axes, strict=True)]
        zero = [one and value.is_zero(axis) for axis, one in enumerate(zero)]
    consts = {value.const for value in values}
    return Value(
        tuple(axes), tuple(zero), first.whole, "", consts.pop() if len(consts) == 1 else None
    )


# --- reductions ----------------------------------------------------------------------------------


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
        joint = _tied(inputs, seen)
        place = eqn.params[parameter]
        seen.claim(joint.axes[place], "", rule=False)
        zero = tuple(
            flag and eqn.primitive.name in ("cumsum", "cumprod", "sort") for flag in joint.zero
        )
        return [joint._replace(zero=zero, const=None) for _ in eqn.outvars]

    return trace


# --- products ------------------------------------------------------------------------------------


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


# --- positions that depend on the data -----------------------------------------------------------


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


# --- loops and branches --------------------------------------------------------------------------


def _first_row(value: Value, seen: Seen) -> Value:
    """What a step of a scan reads of an array."""
    seen.fix(value.axes[0])
    return value._replace(axes=value.axes[1:], zero=value.zero[1:])


def _carried(
    step: Callable[[list[Value]], list[Value]], carry: list[Value], seen: Seen
) -> tuple[list[Value], list[Value]]:
    """The carry that no step changes, but for ties; and the outputs of a step from it."""
    while True:
        outputs = step(carry)
        after = [_tied((a, b), seen) for a, b in zip(carry, outputs[: len(carry)], strict=True)]
        if [*map(_pattern, after)] == [*map(_pattern, carry)]:
            return carry, outputs
        carry = after


def _pattern(value: Value) -> tuple[Any, ...]:
    """What changes from step to step: where a value has labels, and what is zero."""
    where = tuple(tuple((factor != FREE).tobytes() for factor in axis) for axis in value.axes)
    return where, value.zero, value.const


def _scan_carry(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> tuple[list[Value], list[Value], list[Value]]:
    """The values of a scan's carry and rows, and of the outputs of a step."""
    consts, carried = scan_counts(eqn)
    fixed_inputs, start = list(inputs[:consts]), list(inputs[consts : consts + carried])
    rows = [_first_row(value, seen) for value in inputs[consts + carried :]]
    inner = opened(eqn.params["jaxpr"])

    def step(carry: list[Value]) -> list[Value]:
        plain = [value._replace(path="") for value in carry]
        return walk(inner, [*fixed_inputs, *plain, *rows], seen, module)

    carry, outputs = _carried(step, start, seen)
    return [value._replace(path="") for value in carry], rows, outputs


def _scan(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    carry, _, outputs = _scan_carry(eqn, inputs, seen, walk, module)
    stacked = [
        Value((uniform(eqn.params["length"], FIXED), *value.axes), (False, *value.zero))
        for value in outputs[len(carry) :]
    ]
    return [*carry, *stacked]


def _refit(
    arrays: Sequence[Array], values: Sequence[Value], wants: Sequence[Value], body: Body
) -> list[Array]:
    """Each array with the positions of another value that is tied to its own."""
    return [
        fitted(array, [body.keep(a) for a in value.axes], [body.keep(a) for a in want.axes])
        for array, value, want in zip(arrays, values, wants, strict=True)
    ]


def _cut_scan(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    consts, carried = scan_counts(eqn)
    carry, rows, _ = _scan_carry(eqn, inputs, body.seen, body.walk, body.module)
    start = _refit(
        arrays[consts : consts + carried], inputs[consts : consts + carried], carry, body
    )

    def step(carried_arrays: list[Array], row_arrays: list[Array]) -> tuple[list[Array], Any]:
        values, found = body.run(
            eqn.params["jaxpr"],
            [*inputs[:consts], *carry, *rows],
            [*arrays[:consts], *carried_arrays, *row_arrays],
        )
        after = _refit(found[:carried], values[:carried], carry, body)
        return after, found[carried:]

    last, stacked = lax.scan(
        step,
        start,
        list(arrays[consts + carried :]),
        length=eqn.params["length"],
        reverse=eqn.params["reverse"],
        unroll=eqn.params["unroll"],
    )
    return [*last, *stacked]


def _while_parts(
    eqn: JaxprEqn, inputs: Sequence[Value]
) -> tuple[list[Value], list[Value], list[Value]]:
    first, second = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    return (
        list(inputs[:first]),
        list(inputs[first : first + second]),
        list(inputs[first + second :]),
    )


def _while(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    condition_consts, consts, start = _while_parts(eqn, inputs)

    def step(carry: list[Value]) -> list[Value]:
        return walk(opened(eqn.params["body_jaxpr"]), [*consts, *carry], seen, module)

    carry, _ = _carried(step, start, seen)
    walk(opened(eqn.params["cond_jaxpr"]), [*condition_consts, *carry], seen, module)
    return carry


def _cut_while(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    first, second = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    condition_consts, consts, start = _while_parts(eqn, inputs)
    carry = list(outputs)

    def going(state: list[Array]) -> Array:
        _, (found,) = body.run(
            eqn.params["cond_jaxpr"], [*condition_consts, *carry], [*arrays[:first], *state]
        )
        return found

    def step(state: list[Array]) -> list[Array]:
        values, found = body.run(
            eqn.params["body_jaxpr"],
            [*consts, *carry],
            [*arrays[first : first + second], *state],
        )
        return _refit(found, values, carry, body)

    begin = _refit(arrays[first + second :], start, carry, body)
    return lax.while_loop(going, step, begin)


def _cond(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    ends = [walk(opened(one), inputs[1:], seen, module) for one in eqn.params["branches"]]
    return [_tied(values, seen) for values in zip(*ends, strict=True)]


def _cut_cond(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    def branch(closed: Any) -> Callable[..., list[Array]]:
        def run(*some: Array) -> list[Array]:
            values, found = body.run(closed, inputs[1:], some)
            return _refit(found, values, outputs, body)

        return run

    return lax.switch(arrays[0], [branch(one) for one in eqn.params["branches"]], *arrays[1:])


def _no_rule(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    """Any other primitive: all units of its inputs must stay."""
    for value in inputs:
        for axis in value.axes:
            seen.claim(axis, "", rule=False)
            seen.fix(axis) if not has_units(axis) else None
    return [fixed(shape_of(var)) for var in eqn.outvars]


NO_RULE = Primitive(_no_rule, _cut_alike)

PRIMITIVES: dict[str, Primitive] = {
    **{name: Primitive(_elementwise, _cut_elementwise) for name in ELEMENTWISE},
    **{
        name: Primitive(_reduce, _cut_alike)
        for name in (
            "argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or",
            "reduce_prod", "reduce_sum", "reduce_xor",
        )
    },
    **{
        name: Primitive(_window, _cut_alike)
        for name in (
            "reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum",
        )
    },
    **{
        name: Primitive(_along("axis"), _cut_alike)
        for name in ("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum")
    },
    "broadcast_in_dim": Primitive(_broadcast, _cut_shape("shape")),
    "concatenate": Primitive(_concatenate, _cut_concatenate),
    "cond": Primitive(_cond, _cut_cond),
    "conv_general_dilated": Primitive(_convolution, _cut_convolution),
    "dot_general": Primitive(_product, _cut_product),
    "dynamic_slice": Primitive(_dynamic_slice, _cut_shape("slice_sizes")),
    "dynamic_update_slice": Primitive(_dynamic_update, _cut_dynamic_update),
    "fft": Primitive(_transform, _cut_alike),
    "gather": Primitive(_gather, _cut_gather),
    "optimization_barrier": Primitive(_barrier, _cut_alike),
    "pad": Primitive(_pad, _cut_pad),
    "reshape": Primitive(_reshape, _cut_shape("new_sizes")),
    "rev": Primitive(_reverse, _cut_alike),
    "scan": Primitive(_scan, _cut_scan),
    "slice": Primitive(_slice, _cut_slice),
    "sort": Primitive(_along("dimension"), _cut_alike),
    "split": Primitive(_split, _cut_split),
    "squeeze": Primitive(_squeeze, _cut_alike),
    "stack": Primitive(_stack, _cut_alike),
    "tile": Primitive(_tile, _cut_alike),
    "transpose": Primitive(_transpose, _cut_alike),
    "unstack": Primitive(_unstack, _cut_alike),
    "while": Primitive(_while, _cut_while),
}  # fmt: skip
"""Primitive -> its rules; all others must read no units (`NO_RULE`)."""
