"""Multiply-adds of a net, and how often it uses each weight, counted in its jaxpr."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from jaxtickets.nets.convolution import lax_form
from jaxtickets.nets.element_moves import (
    MOVES,
    body_of,
    compact,
    module_of,
    opened,
    scan_counts,
    shape_of,
)
from jaxtickets.nets.functional import Example, as_model, example_inputs, init_shapes
from jaxtickets.types import Model


def positions(net: nn.Module | Model, shape: Example) -> dict[str, int]:
    """Leaf -> how many times one example uses each of its weights: `h · w`, or 1.

    The uses of a weight by several calls are added.

    Args:
      net, shape: as in `multiply_adds`.

    Raises:
      ValueError: in one line: as in `multiply_adds`, or a leaf uses some of its weights more often
        than others.

    >>> positions(nn.Conv(4, (3, 3)), (8, 8, 1))
    {'kernel': 64}
    """
    sizes, adds = _counted(net, shape)
    uses = {}
    for path, size in sizes.items():
        if path in adds:
            uses[path], rest = divmod(adds[path], size)
            if rest:
                raise ValueError(f"{type(net).__name__} uses only some of the weights of {path}")
    return uses


def multiply_adds(net: nn.Module | Model, shape: Example) -> dict[str, int]:
    """Leaf -> the multiply-adds of one example with its weights, in the order of the leaves.

    The count is of the multiplications in the net's jaxpr, in evaluation mode. It includes matrix
    products and convolutions of values that depend on the example with values computed from a leaf,
    elementwise products with a leaf of several axes, such as a depthwise kernel, and the body of a
    scan times its length. Zeros around the images count, as in published numbers. Zeros between the
    entries of a transposed convolution do not count, nor do biases, norms, activations, pools, and
    products of weights with each other. Products of two activations, such as attention's, come
    last, under the name of their module. The forward pass has twice the sum as floating-point
    operations.

    Args:
      net: any flax module, or a model of `functional` and its siblings.
      shape: the input for one example, see `functional`.

    Raises:
      ValueError: in one line: a loop of unknown length multiplies, or an operation cannot be
        counted.

    >>> multiply_adds(nn.Conv(4, (3, 3)), (8, 8, 1)), 8 * 8 * (3 * 3 * 4)
    ({'kernel': 2304}, 2304)
    """
    sizes, adds = _counted(net, shape)
    return {path: adds[path] for path in sizes if path in adds} | adds


EXAMPLE, CONSTANT = -2, -1
"""The labels of values that depend on the example, and of constants."""

UNCOUNTED = {"pallas_call", "ragged_dot", "ragged_dot_general", "scaled_matmul", "custom_call"}
"""Primitives that multiply but have no rule here."""


class Leaf(NamedTuple):
    """A leaf as an equation reads it.

    Attributes:
      path: its path in the parameters; a slice of a leaf in a scan has the leaf's path.
      shape: its shape in the equation.
    """

    path: str
    shape: tuple[int, ...]


class Count(NamedTuple):
    """The results that a walk over a jaxpr accumulates.

    Attributes:
      leaves: the leaves; the index of a leaf is the label of values computed from it.
      adds: path of a leaf, or module of a product of activations -> multiply-adds.
    """

    leaves: list[Leaf]
    adds: Counter[str]


def _counted(net: nn.Module | Model, shape: Example) -> tuple[dict[str, int], Counter[str]]:
    """Leaf -> size; and leaf or module -> multiply-adds."""
    model, inputs = as_model(lax_form(net), shape), example_inputs(shape)
    given = inputs if len(inputs) > 1 else inputs[0]
    params, stats = init_shapes(model)
    closed = jax.make_jaxpr(lambda *given: model.apply(*given)[0])(params, stats, given)
    with_paths = jax.tree.leaves_with_path(params)
    leaves = [
        Leaf(jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape)
        for path, leaf in with_paths
    ]
    labels = [
        *(_all(number, leaf.shape) for number, leaf in enumerate(leaves)),
        *(_all(CONSTANT, leaf.shape) for leaf in jax.tree.leaves(stats)),
        *(_all(EXAMPLE, leaf.shape) for leaf in inputs),
    ]
    count = Count(list(leaves), Counter())
    try:
        _walk(closed.jaxpr, labels, count, "")
    except _UncountableError as error:
        raise ValueError(f"{type(net).__name__}'s multiply-adds: {error}") from None
    return {leaf.path: math.prod(leaf.shape) for leaf in leaves}, count.adds


class _UncountableError(ValueError):
    """An operation that multiplies but has no rule."""


def _all(label: int, shape: Sequence[int]) -> np.ndarray:
    """One label for all elements; an axis along which all labels are equal has length 1."""
    return np.full((1,) * len(shape), label)


def _walk(jaxpr: Jaxpr, inputs: Sequence[np.ndarray], count: Count, where: str) -> list[np.ndarray]:
    """The labels of a jaxpr's outputs, from those of its inputs; counts its multiplications."""
    labels: dict[Any, np.ndarray] = dict(zip(jaxpr.invars, inputs, strict=True))
    labels |= {var: _all(CONSTANT, shape_of(var)) for var in jaxpr.constvars}

    def of(atom: Any) -> np.ndarray:
        return _all(CONSTANT, shape_of(atom)) if isinstance(atom, Literal) else labels[atom]

    for eqn in jaxpr.eqns:
        atoms, module = [of(atom) for atom in eqn.invars], module_of(eqn, where)
        name, body = eqn.primitive.name, body_of(eqn)
        if body is not None:
            outputs = _walk(body, atoms, count, module)
        elif name in LOOPS:
            outputs = LOOPS[name](eqn, atoms, count, module)
        else:
            if name in UNCOUNTED:
                raise _UncountableError(f"'{name}' in {module} has no rule")
            _add_products(eqn, atoms, count, module)
            outputs = _outputs(eqn, atoms, count)
        labels.update(zip(eqn.outvars, outputs, strict=True))
    return [of(atom) for atom in jaxpr.outvars]


def _outputs(eqn: JaxprEqn, atoms: Sequence[np.ndarray], count: Count) -> list[np.ndarray]:
    """The labels of an equation's outputs."""
    shapes = [shape_of(var) for var in eqn.outvars]
    most = _most(atoms, count)
    moved = eqn.primitive.name in MOVES and most >= 0
    if not moved or all((atom == most).all() for atom in atoms):
        return [_all(most, shape) for shape in shapes]
    full = [
        np.broadcast_to(atom, shape_of(var)) for atom, var in zip(atoms, eqn.invars, strict=True)
    ]
    return [compact(labels) for labels in MOVES[eqn.primitive.name](eqn.params, *full)]


def _most(atoms: Sequence[np.ndarray], count: Count) -> int:
    """The label of a value computed from all these: the example's, or that of the largest leaf."""
    there = {int(label) for atom in atoms for label in np.unique(atom)}
    if EXAMPLE in there:
        return EXAMPLE
    return max(
        sorted(there),
        key=lambda label: math.prod(count.leaves[label].shape) if label >= 0 else -1,
        default=CONSTANT,
    )


def _add_products(eqn: JaxprEqn, atoms: Sequence[np.ndarray], count: Count, module: str) -> None:
    """Counts the multiplications of an equation."""
    adds = PRODUCTS.get(eqn.primitive.name)
    read = [atom for atom in atoms if not (atom == EXAMPLE).any()]
    if adds is None or len(atoms) - len(read) == 0:
        return
    if not read:
        if eqn.primitive.name != "mul":
            count.adds[module] += adds(eqn)
        return
    for label, times in zip(*np.unique(read[0], return_counts=True), strict=True):
        if label < 0:
            continue
        leaf = count.leaves[label]
        if eqn.primitive.name != "mul" or sum(size > 1 for size in leaf.shape) > 1:
            count.adds[leaf.path] += adds(eqn) * int(times) // read[0].size


def _dot(eqn: JaxprEqn) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    first, *_ = (shape_of(var) for var in eqn.invars)
    return math.prod(shape_of(eqn.outvars[0])) * math.prod(first[axis] for axis in contracted)


def _convolution(eqn: JaxprEqn) -> int:
    """Counts each weight once for each position, or, with a dilated input, once for each entry."""
    numbers = eqn.params["dimension_numbers"]
    (left, right), out = (shape_of(var) for var in eqn.invars), shape_of(eqn.outvars[0])
    pixels = 1
    for into, made, dilation in zip(
        numbers.lhs_spec[2:], numbers.out_spec[2:], eqn.params["lhs_dilation"], strict=True
    ):
        pixels *= out[made] if dilation == 1 else min(left[into], out[made])
    return out[numbers.out_spec[0]] * pixels * math.prod(right)


PRODUCTS: dict[str, Callable[[JaxprEqn], int]] = {
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "mul": lambda eqn: math.prod(shape_of(eqn.outvars[0])),
}


def _scan(
    eqn: JaxprEqn, atoms: Sequence[np.ndarray], count: Count, module: str
) -> list[np.ndarray]:
    """A scan: the labels of its carry are iterated until no step changes them."""
    body, length = opened(eqn.params["jaxpr"]), eqn.params["length"]
    consts, carried = scan_counts(eqn)
    fixed, carry = atoms[:consts], list(atoms[consts : consts + carried])
    steps = _steps(atoms[consts + carried :], count)
    while True:
        adds: Counter[str] = Counter()
        before, made = carry, []
        for rows in steps:
            made.append(_walk(body, [*fixed, *carry, *rows], count._replace(adds=adds), module))
            carry = [
                a if (a == b).all() else _all(_most((a, b), count), a.shape)
                for a, b in zip(carry, made[-1], strict=False)
            ]
        if all((a == b).all() for a, b in zip(carry, before, strict=True)):
            break
    for name, of_steps in adds.items():
        count.adds[name] += of_steps * length // len(steps)
    stacked = (_all(_most(rows, count), (1, *rows[0].shape)) for rows in zip(*made, strict=True))
    return [*carry, *list(stacked)[carried:]]


def _steps(arrays: Sequence[np.ndarray], count: Count) -> list[list[np.ndarray]]:
    """The inputs that the steps of a scan read from arrays; one step if all read the same leaves.

    A step reads a stacked leaf as a leaf with one axis less.
    """
    length = max((len(labels) for labels in arrays), default=1)
    steps: list[list[np.ndarray]] = [[] for _ in range(length)]
    for labels in arrays:
        if len(labels) == 1:
            for label in np.unique(labels[labels >= 0]):
                leaf = count.leaves[label]
                labels = np.where(labels == label, len(count.leaves), labels)
                count.leaves.append(leaf._replace(shape=leaf.shape[1:]))
        for step, row in zip(
            steps, np.broadcast_to(labels, (length, *labels.shape[1:])), strict=True
        ):
            step.append(row)
    return steps


def _while(
    eqn: JaxprEqn, atoms: Sequence[np.ndarray], count: Count, module: str
) -> list[np.ndarray]:
    """A loop of unknown length, which must not multiply."""
    most = _most(atoms, count)
    for name in ("cond_jaxpr", "body_jaxpr"):
        step, body = count._replace(adds=Counter()), opened(eqn.params[name])
        _walk(body, [_all(most, shape_of(var)) for var in body.invars], step, module)
        if step.adds:
            raise _UncountableError(f"'while' in {module} multiplies an unknown number of times")
    return [_all(most, shape_of(var)) for var in eqn.outvars]


def _cond(
    eqn: JaxprEqn, atoms: Sequence[np.ndarray], count: Count, module: str
) -> list[np.ndarray]:
    """A conditional: the branch with the most multiply-adds counts."""
    costs = [Counter[str]() for _ in eqn.params["branches"]]
    for branch, adds in zip(eqn.params["branches"], costs, strict=True):
        _walk(opened(branch), atoms[1:], count._replace(adds=adds), module)
    count.adds.update(max(costs, key=lambda adds: sum(adds.values())))
    return [_all(_most(atoms, count), shape_of(var)) for var in eqn.outvars]


LOOPS: dict[str, Callable[..., list[np.ndarray]]] = {"scan": _scan, "while": _while, "cond": _cond}
"""Primitive -> the function that labels its outputs and counts its bodies' multiplications."""
