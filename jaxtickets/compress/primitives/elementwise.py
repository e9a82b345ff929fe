"""Elementwise operations: which labels their outputs have, and how they run with fewer units."""

from collections.abc import Sequence

from jax.extend.core import JaxprEqn

from jaxtickets.compress.primitives.base import (
    Body,
    Primitive,
    Walk,
    bind,
    fitted,
)
from jaxtickets.compress.unit_labels import (
    FREE,
    Axis,
    Seen,
    Value,
    free,
    length,
)
from jaxtickets.nets.element_moves import shape_of
from jaxtickets.types import Array

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


def _cut_elementwise(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    return bind(eqn, _fit_all(arrays, inputs, outputs[0].axes, body))


RULES: dict[str, Primitive] = {
    **{name: Primitive(_elementwise, _cut_elementwise) for name in ELEMENTWISE},
}  # fmt: skip
