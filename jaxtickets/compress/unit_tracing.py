"""Unit tracing: which unit each slice of a value belongs to, through a net's jaxpr.

Elementwise operations tie the labels of the axes that they combine, products those of the axes over
which they sum, and operations that move elements move their labels (see `primitives`, a table with
a row for each primitive). A flatten, a padded shortcut, heads of attention, or a convolution
written as slices and a product thus need no rule of their own. At the end, tied labels are joined.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend.core import Jaxpr, Literal

from jaxtickets.compress.primitives import ELEMENTWISE, NO_RULE, PRIMITIVES
from jaxtickets.compress.unit_labels import (
    FIXED,
    Seen,
    UntraceableError,
    Value,
    fixed,
    free,
    is_free,
)
from jaxtickets.nets.element_moves import body_of, module_of, shape_of

__all__ = ["ELEMENTWISE", "UntraceableError", "constant", "traced_outputs", "walk"]


def walk(jaxpr: Jaxpr, inputs: Sequence[Value], seen: Seen, where: str = "") -> list[Value]:
    """The outputs of a jaxpr; adds what it ties and reads to `seen`.

    Args:
      jaxpr: the jaxpr for one example.
      inputs: one value for each of its arguments.
      seen: the results so far.
      where: the calling module, for messages.

    Raises:
      UntraceableError: an operation cannot be traced; the message names it and its module.

    >>> import itertools
    >>> jaxpr = jax.make_jaxpr(lambda x, kernel: x @ kernel)(np.ones(2), np.ones((2, 3))).jaxpr
    >>> kernel = Value(((np.full(2, FIXED),), (np.array([1, 2, 3]),)), zero=(True, True))
    >>> seen = Seen(itertools.count(4), [], {}, {}, {}, set(), [])
    >>> (output,) = walk(jaxpr, [fixed((2,)), kernel], seen)
    >>> [factor.tolist() for factor in output.axes[0]]
    [[1, 2, 3]]
    """
    values: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
    values |= {var: free(shape_of(var)) for var in jaxpr.constvars}
    for eqn in jaxpr.eqns:
        atoms = [constant(v) if isinstance(v, Literal) else values[v] for v in eqn.invars]
        module, body = module_of(eqn, where), body_of(eqn)
        if body is not None:
            outputs = walk(body, atoms, seen, module)
        else:
            outputs = traced_outputs(eqn, atoms, seen, module)
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [constant(v) if isinstance(v, Literal) else values[v] for v in jaxpr.outvars]


def traced_outputs(eqn: Any, atoms: Sequence[Value], seen: Seen, module: str) -> list[Value]:
    """The outputs of an equation that calls no jaxpr.

    >>> import itertools
    >>> (eqn,) = jax.make_jaxpr(jax.lax.neg)(np.ones(3)).eqns
    >>> value = Value(((np.array([1, 2, 3]),),), zero=(True,))
    >>> seen = Seen(itertools.count(4), [], {}, {}, {}, set(), [])
    >>> (output,) = traced_outputs(eqn, [value], seen, module="")
    >>> [factor.tolist() for factor in output.axes[0]]
    [[1, 2, 3]]
    """
    name, shapes = eqn.primitive.name, [shape_of(var) for var in eqn.outvars]
    loops = name in ("scan", "while", "cond")
    for value in atoms:
        if value.path and not loops:  # the body of a loop says which operation reads it
            seen.order.setdefault(value.path, name)
    place = f"'{name}'" + (f" in {module}" if module else "")
    rule = PRIMITIVES.get(name, NO_RULE)
    if not loops and all(_has_no_units(value) for value in atoms):
        if all(value.whole <= FIXED and all(map(is_free, value.axes)) for value in atoms):
            if name not in ELEMENTWISE and name != "broadcast_in_dim":
                return [free(shape) for shape in shapes]
        elif rule is NO_RULE:
            return [fixed(shape) for shape in shapes]
    try:
        return rule.trace(eqn, atoms, seen._replace(place=place), walk, module)
    except UntraceableError as error:
        raise UntraceableError(f"{place} {error}") from None
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        message = " ".join(str(error).split())  # an unsupported form of the operation
        raise UntraceableError(f"{place} can't be traced: {message}") from error


def constant(literal: Literal) -> Value:
    """A literal of a jaxpr.

    >>> (eqn,) = jax.make_jaxpr(lambda x: x * 2.0)(1.0).eqns
    >>> constant(eqn.invars[1]).const
    2.0
    """
    value = np.asarray(literal.val)
    number = float(value) if value.ndim == 0 and value.dtype.kind in "fiub" else None
    return free(shape_of(literal), number)


def _has_no_units(value: Value) -> bool:
    return value.whole <= FIXED and all(
        (factor <= FIXED).all() for axis in value.axes for factor in axis
    )
