"""The two rules of a primitive, and what several of them share."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn

from jaxtickets.compress.unit_labels import (
    Axis,
    Seen,
    UntraceableError,
    Value,
)
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


def take(array: Array, places: np.ndarray, axis: int) -> Array:
    """The places of an array along an axis; a slice if they are consecutive.

    >>> take(np.array([10, 20, 30]), np.array([0, 2]), 0).tolist()
    [10, 30]
    """
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
        array = take(array, np.flatnonzero(there[here]), axis)
    return array


def bind(eqn: JaxprEqn, arrays: Sequence[Array], **changed: Any) -> list[Array]:
    """The outputs of an equation's primitive for other arrays, and with changed parameters.

    >>> (eqn,) = jax.make_jaxpr(lax.neg)(0.0).eqns
    >>> [array.tolist() for array in bind(eqn, [np.array([1.0, 2.0], np.float32)])]
    [[-1.0, -2.0]]
    """
    params = eqn.primitive.get_bind_params(dict(eqn.params))
    outputs = eqn.primitive.bind(*arrays, **{**params, **changed})
    return list(outputs) if eqn.primitive.multiple_results else [outputs]


def cut_alike(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    """Runs with the parameters of the equation.

    >>> (eqn,) = jax.make_jaxpr(lax.neg)(0.0).eqns
    >>> [a.tolist() for a in cut_alike(eqn, [np.float32([1, 2])], (), (), None)]
    [[-1.0, -2.0]]
    """
    return bind(eqn, arrays)


def _small_shape(value: Value, body: Body) -> tuple[int, ...]:
    """The shape of a value without the units that are removed."""
    return tuple(int(body.keep(axis).sum()) for axis in value.axes)


def cut_shape(parameter: str) -> Cut:
    """The rule of a primitive with a parameter that is the shape of its output.

    >>> (eqn,) = jax.make_jaxpr(lambda x: x.reshape(4))(np.ones((2, 2), np.float32)).eqns
    >>> from jaxtickets.compress.unit_labels import fixed
    >>> body = Body(lambda axis: np.array([True, False, True, False]), None, None, None, "")
    >>> (small,) = cut_shape("new_sizes")(eqn, [np.ones((1, 2), "f")], (), [fixed((4,))], body)
    >>> small.shape
    (2,)
    """

    def cut(
        eqn: JaxprEqn,
        arrays: Sequence[Array],
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        body: Body,
    ) -> list[Array]:
        return bind(eqn, arrays, **{parameter: _small_shape(outputs[0], body)})

    return cut


def tied(values: Sequence[Value], seen: Seen) -> Value:
    """One value for several that an operation selects among.

    >>> from jaxtickets.compress.unit_labels import fixed
    >>> one, other = (fixed((2,))._replace(const=value) for value in (1.0, 0.0))
    >>> print(tied([one, other], Seen(iter(()), [], {}, {}, {}, set(), [])).const)
    None
    """
    first, *others = values
    axes, zero = list(first.axes), [first.is_zero(axis) for axis in range(len(first.axes))]
    for value in others:
        axes = [seen.meet(a, b) for a, b in zip(axes, value.axes, strict=True)]
        zero = [one and value.is_zero(axis) for axis, one in enumerate(zero)]
    consts = {value.const for value in values}
    return Value(
        tuple(axes), tuple(zero), first.whole, "", consts.pop() if len(consts) == 1 else None
    )
