"""Operations that only move elements, applied to arrays of labels.

An analysis that follows elements through a net's jaxpr, for example to find the leaf or unit of
each element, moves its labels as the operation moves the elements.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def _broadcast(params: Mapping[str, Any], labels: np.ndarray) -> np.ndarray:
    shape = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], labels.shape, strict=True):
        shape[axis] = size
    return np.broadcast_to(labels.reshape(shape), params["shape"])


def _slice(params: Mapping[str, Any], labels: np.ndarray) -> np.ndarray:
    steps = params["strides"] or (1,) * labels.ndim
    bounds = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    return labels[tuple(slice(*bound) for bound in bounds)]


def _pad(params: Mapping[str, Any], labels: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Pads labels; new elements, beside and between the old ones, have the label of the padding."""
    for axis, (low, high, inner) in enumerate(params["padding_config"]):
        size = labels.shape[axis]
        places = low + (inner + 1) * np.arange(size)
        shape = list(labels.shape)
        shape[axis] = low + high + max(0, size + inner * (size - 1))
        inside = (places >= 0) & (places < shape[axis])
        wider = np.full(shape, value)
        np.moveaxis(wider, axis, 0)[places[inside]] = np.moveaxis(labels, axis, 0)[inside]
        labels = wider
    return labels


MOVES: dict[str, Callable[..., list[np.ndarray]]] = {
    "broadcast_in_dim": lambda params, x: [_broadcast(params, x)],
    "concatenate": lambda params, *xs: [np.concatenate(xs, params["dimension"])],
    "convert_element_type": lambda params, x: [x],
    "copy": lambda params, x: [x],
    "pad": lambda params, x, value: [_pad(params, x, value)],
    "reshape": lambda params, x: [x.reshape(params["new_sizes"])],
    "rev": lambda params, x: [np.flip(x, params["dimensions"])],
    "slice": lambda params, x: [_slice(params, x)],
    "split": lambda params, x: np.split(x, np.cumsum(params["sizes"])[:-1], params["axis"]),
    "stack": lambda params, *xs: [np.stack(xs, params["axis"])],
    "squeeze": lambda params, x: [np.squeeze(x, tuple(params["dimensions"]))],
    "tile": lambda params, x: [np.tile(x, params["reps"])],
    "transpose": lambda params, x: [x.transpose(params["permutation"])],
    "unstack": lambda params, x: list(np.moveaxis(x, params["axis"], 0)),
}
"""Primitive -> `move(params, *arrays) -> arrays`, the same move of label arrays."""


def compact(labels: np.ndarray) -> np.ndarray:
    """Reduces axes along which all labels are equal to length 1.

    >>> compact(np.array([[1, 1, 1], [2, 2, 2]])).tolist()
    [[1], [2]]
    """
    for axis in range(labels.ndim):
        first = labels.take([0], axis) if labels.shape[axis] else labels
        if (labels == first).all():
            labels = first
    return labels


CALLS = {
    "jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call",
    "custom_vjp_call_jaxpr", "remat", "remat2", "checkpoint",
}  # fmt: skip
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def called_by(eqn: JaxprEqn) -> Jaxpr | ClosedJaxpr | None:
    """The jaxpr that a call equation calls, with its constants; None for other equations.

    >>> (call,) = jax.make_jaxpr(jax.jit(lambda x: x + 1))(0.0).eqns
    >>> called_by(call).jaxpr.eqns[0].primitive.name
    'add'
    """
    if eqn.primitive.name not in CALLS:
        return None
    return next((eqn.params[name] for name in _BODIES if name in eqn.params), None)


def body_of(eqn: JaxprEqn) -> Jaxpr | None:
    """The jaxpr that a call equation calls; None for other equations.

    >>> (call,) = jax.make_jaxpr(jax.jit(lambda x: x + 1))(0.0).eqns
    >>> (add,) = body_of(call).eqns
    >>> add.primitive.name, body_of(add)
    ('add', None)
    """
    called = called_by(eqn)
    return None if called is None else opened(called)


def opened(jaxpr: Jaxpr | ClosedJaxpr) -> Jaxpr:
    """The jaxpr without its constants.

    >>> closed = jax.make_jaxpr(lambda x: x + 1)(0.0)
    >>> opened(closed) is closed.jaxpr, opened(closed.jaxpr) is closed.jaxpr
    (True, True)
    """
    return jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr


def shape_of(atom: Any) -> tuple[int, ...]:
    """The shape of a variable or literal.

    >>> (add,) = jax.make_jaxpr(lambda x: x + 1)(np.zeros((2, 3))).eqns
    >>> shape_of(add.invars[0]), shape_of(add.invars[1])
    ((2, 3), ())
    """
    return atom.aval.shape


def scan_counts(eqn: JaxprEqn) -> tuple[int, int]:
    """The number of a scan's constant arguments, and of the carried ones that follow them.

    >>> def weighted(scale, xs):
    ...     return jax.lax.scan(lambda total, x: (total + scale * x, None), 0.0, xs)
    >>> (scan,) = jax.make_jaxpr(weighted)(2.0, np.arange(3.0)).eqns
    >>> scan_counts(scan)
    (1, 1)
    """
    if "ft_in" in eqn.params:  # from jax 0.11 on
        consts, carried, _ = eqn.params["ft_in"].unpack()
        return len(list(consts)), len(list(carried))
    return eqn.params["num_consts"], eqn.params["num_carry"]


def module_of(eqn: JaxprEqn, where: str = "") -> str:
    """The module that an equation belongs to, such as `Net/block/conv`.

    Args:
      eqn: the equation.
      where: the module that calls its jaxpr.

    >>> (add,) = jax.make_jaxpr(jax.named_scope("conv1")(lambda x: x + 1))(0.0).eqns
    >>> module_of(add, "Net")
    'Net/conv1'
    """
    return "/".join(filter(None, (where, str(eqn.source_info.name_stack))))
