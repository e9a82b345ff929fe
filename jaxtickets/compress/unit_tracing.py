"""Unit tracing: which unit each element of an activation belongs to, through a net's jaxpr.

A label is an integer. Each unit axis of each leaf has its own labels, and each element of an
activation has the label of its unit. Elementwise operations tie the labels of the elements that
they combine. Products with a kernel tie the labels of the activation to those of the kernel's input
axis. Operations that move elements move their labels. A flatten, a padded shortcut, or a
convolution written as slices and a product thus needs no rule of its own. At the end, tied labels
are joined in one pass.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from jaxtickets.nets.element_moves import MOVES, body_of, compact, module_of, shape_of

FREE, FIXED = -1, 0
"""Labels of what is not a unit: FREE, a constant; FIXED, an input or a logit, which must stay."""

Axes = dict[str, dict[int, np.ndarray]]
"""Leaf path -> axis, counted from the end -> int`[size]`, the labels along that axis."""


class UntraceableError(ValueError):
    """An operation through which units cannot be traced."""


class Value(NamedTuple):
    """An activation, or a leaf with one axis.

    Attributes:
      labels: int array that broadcasts to `shape`; an axis along which all labels are equal has
        length 1.
      shape: the shape of the value.
      path: the path of the leaf; '' for an activation.
    """

    labels: np.ndarray
    shape: tuple[int, ...]
    path: str = ""

    def full(self) -> np.ndarray:
        """The labels of all elements, a view of shape `shape`."""
        return np.broadcast_to(self.labels, self.shape)


class Weights(NamedTuple):
    """A kernel, possibly after operations that move its elements.

    Attributes:
      path: the path of its leaf.
      size: the shape of the leaf.
      places: int, shaped like the value: the position of each element in the flattened leaf.
    """

    path: str
    size: tuple[int, ...]
    places: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value, after the moves."""
        return self.places.shape

    def along(self, axis: int, rows: Sequence[int]) -> np.ndarray:
        """int`[n]`: the positions on the leaf's `axis` as a function of the value's axes `rows`.

        Raises:
          UntraceableError: the positions also depend on the other axes.
        """
        places = np.unravel_index(self.places, self.size)[axis]
        others = [i for i in range(self.places.ndim) if i not in rows]
        table = places.transpose(*rows, *others).reshape(
            int(np.prod([self.shape[i] for i in rows])), -1
        )
        if self.places.min() < 0 or (table != table[:, :1]).any():
            raise UntraceableError(f"does not read {self.path} as [..., inputs, units]")
        return table[:, 0]


class Seen(NamedTuple):
    """The results that a walk over a jaxpr accumulates.

    Attributes:
      axes: the labels of the leaves' axes.
      ties: int arrays `[2, n]`, pairs of labels of the same unit.
      order: leaf path -> the first operation that reads the leaf, in the order of reading.
      depthwise: the paths of kernels that filter each channel separately; the shapes of a net with
        one channel do not show it.
      claims: places, with int arrays `[2, n]` of pairs of labels that must be the same unit there.
      place: the current operation and its module, for messages.
    """

    axes: Axes
    ties: list[np.ndarray]
    order: dict[str, str]
    depthwise: set[str]
    claims: list[tuple[str, np.ndarray]]
    place: str = ""

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        """Ties labels elementwise; constants are not tied."""
        a, b = np.broadcast_arrays(a, b)
        chosen = (a != FREE) & (b != FREE) & (a != b)
        if chosen.any():
            self.ties.append(np.unique(np.stack([a[chosen], b[chosen]]), axis=1))

    def settle(self, labels: np.ndarray, axes: Sequence[int]) -> np.ndarray:
        """Reduces `axes` to length 1, with the claim that all labels along them are one unit.

        Padding is exempt. The claim is checked at the end, since a later tie may join two labels.
        """
        most = labels.max(tuple(axes), keepdims=True)
        differing = (labels != most) & (labels != FREE)
        if differing.any():
            pairs = np.stack([labels[differing], np.broadcast_to(most, labels.shape)[differing]])
            self.claims.append((self.place, np.unique(pairs, axis=1)))
        return most


Known = Value | Weights


def walk(jaxpr: Jaxpr, inputs: Sequence[Known], seen: Seen, where: str = "") -> list[Known]:
    """The outputs of a jaxpr; adds what it ties and reads to `seen`.

    Args:
      jaxpr: the jaxpr for one image.
      inputs: one value for each of its arguments.
      seen: the results so far.
      where: the calling module, for messages.

    Raises:
      UntraceableError: an operation has no rule; the message names it and its module.
    """
    values: dict[Any, Known] = dict(zip(jaxpr.invars, inputs, strict=True))
    values |= {var: _free(shape_of(var)) for var in jaxpr.constvars}
    for eqn in jaxpr.eqns:
        atoms = [_free(()) if isinstance(v, Literal) else values[v] for v in eqn.invars]
        module, body = module_of(eqn, where), body_of(eqn)
        if body is not None:
            outputs: Sequence[Known] = walk(body, atoms, seen, module)
        else:
            for value in atoms:
                if value.path:
                    seen.order.setdefault(value.path, eqn.primitive.name)
            place = f"'{eqn.primitive.name}'" + (f" in {module}" if module else "")
            try:
                outputs = _rule(eqn, atoms, seen._replace(place=place))
            except UntraceableError as error:
                raise UntraceableError(f"{place} {error}") from None
            except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
                message = " ".join(str(error).split())  # an unsupported form of the operation
                raise UntraceableError(f"{place} can't be traced: {message}") from error
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [_free(()) if isinstance(v, Literal) else values[v] for v in jaxpr.outvars]


def _rule(eqn: JaxprEqn, inputs: list[Known], seen: Seen) -> Sequence[Known]:
    """The outputs of an equation."""
    name, shapes = eqn.primitive.name, [shape_of(var) for var in eqn.outvars]
    if name in ("dot_general", "conv_general_dilated") and all(map(_is_fixed, inputs)):
        return [Value(np.full((1,) * len(shape), FIXED), shape) for shape in shapes]
    if name == "dot_general":
        return [_product(eqn.params, inputs, seen)]
    if name == "conv_general_dilated":
        return [_convolution(eqn.params, inputs, shapes[0], seen)]
    if name == "gather" and isinstance(inputs[0], Weights):
        return [_looked_up(eqn.params, inputs[0], inputs[1], shapes[0], seen)]
    if name in MOVES and len(inputs) == 1 and isinstance(inputs[0], Weights):
        moved = MOVES[name](eqn.params, inputs[0].places)
        return [inputs[0]._replace(places=places) for places in moved]
    known = [_filters(value, seen) if isinstance(value, Weights) else value for value in inputs]
    if all((value.labels == FREE).all() for value in known):
        return [_free(shape) for shape in shapes]
    if name in ELEMENTWISE:
        return [_together(known, shapes[0], seen)]
    if name in REDUCTIONS:
        return [_reduced(known[0], eqn.params["axes"], shapes[0], seen)]
    if name.startswith("reduce_window"):
        return [_windowed(known[0], eqn.params, shapes[0], seen)]
    if name in MOVES:
        moved = MOVES[name](eqn.params, *(value.full() for value in known))
        return [_compact(labels) for labels in moved]
    if all((value.labels <= FIXED).all() for value in known):  # of images alone
        return [Value(np.full((1,) * len(shape), FIXED), shape) for shape in shapes]
    if name == "dynamic_slice":
        return [_cut_out(known[0], shapes[0])]
    raise UntraceableError(f"has no rule for channels{_of_layer(known, seen)}")


def _is_fixed(value: Known) -> bool:
    """Whether a value depends only on constants and on the example."""
    return isinstance(value, Value) and bool((value.labels <= FIXED).all())


def _of_layer(values: Sequence[Value], seen: Seen) -> str:
    """The layer whose units these values have, as words for a message."""
    there = max((int(value.labels.max()) for value in values), default=FREE)
    for path, leaf in seen.axes.items():
        if any(there in labels for labels in leaf.values()):
            return f" of {path.split('/', 1)[1].rpartition('/')[0] or path}"
    return ""


def _cut_out(value: Value, shape: Sequence[int]) -> Value:
    """A slice at an unknown position; labels along the sliced axes must be equal."""
    for axis, size in enumerate(shape):
        if size != value.shape[axis] and value.labels.shape[axis] != 1:
            raise UntraceableError("selects units by a place that depends on the data")
    return Value(value.labels, tuple(shape))


def _looked_up(
    params: Mapping[str, Any], table: Weights, index: Known, shape: Sequence[int], seen: Seen
) -> Value:
    """Rows of an embedding `[words, units]`, selected by integers; its words stay.

    Raises:
      UntraceableError: the gather does not read whole rows.
    """
    numbers = params["dimension_numbers"]
    rows = (1, table.size[-1])
    whole = np.array_equal(table.places, np.arange(np.prod(table.size)).reshape(table.size))
    last = tuple(numbers.offset_dims) == (len(shape) - 1,)
    if (
        len(table.size) != 2
        or tuple(params["slice_sizes"]) != rows
        or not (whole and last and isinstance(index, Value))
    ):
        raise UntraceableError(f"doesn't read {table.path} row by row")
    if (index.labels > FIXED).any():
        raise UntraceableError(f"chooses rows of {table.path} by channels")
    axes = seen.axes[table.path]
    seen.tie(axes[-2], np.array(FIXED))
    return Value(axes[-1].reshape([1] * (len(shape) - 1) + [-1]), tuple(shape))


ELEMENTWISE = {
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh",
    "cbrt", "ceil", "clamp", "convert_element_type", "copy", "cos", "cosh", "div", "eq", "erf",
    "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite",
    "le", "log", "log1p", "log2", "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter",
    "not", "one_minus_square", "or", "pow", "reduce_precision", "rem", "round", "rsqrt",
    "select_n", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh",
    "xor",
}  # fmt: skip
REDUCTIONS = {
    "argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod",
    "reduce_sum",
}  # fmt: skip


def _free(shape: Sequence[int]) -> Value:
    """A constant of that shape."""
    return Value(np.full((1,) * len(shape), FREE), tuple(shape))


def _compact(labels: np.ndarray) -> Value:
    """The value with these labels."""
    return Value(compact(labels), labels.shape)


def _filters(kernel: Weights, seen: Seen) -> Value:
    """The kernel of a depthwise convolution, which multiplies activations elementwise.

    Raises:
      UntraceableError: the kernel has several inputs.
    """
    if kernel.size[-2] != 1:
        raise UntraceableError(f"does more with {kernel.path} than move and multiply it")
    seen.depthwise.add(kernel.path)
    return _compact(seen.axes[kernel.path][-1][np.unravel_index(kernel.places, kernel.size)[-1]])


def _together(values: Sequence[Value], shape: Sequence[int], seen: Seen) -> Value:
    """The result of an elementwise operation, which ties the labels of its values."""
    labels = np.full((1,) * len(shape), FREE)
    for value in values:
        seen.tie(labels, value.labels)
        labels = np.where(labels == FREE, value.labels, labels)
    return Value(labels, tuple(shape))


def _reduced(value: Value, axes: Sequence[int], shape: Sequence[int], seen: Seen) -> Value:
    """The result of a reduction over `axes`."""
    return Value(seen.settle(value.labels, axes).squeeze(tuple(axes)), tuple(shape))


def _windowed(value: Value, params: Mapping[str, Any], shape: Sequence[int], seen: Seen) -> Value:
    """The result of a reduction over windows."""
    pooled = [axis for axis, size in enumerate(value.shape) if size != shape[axis]]
    pooled += [axis for axis, size in enumerate(params["window_dimensions"]) if size > 1]
    return Value(seen.settle(value.labels, sorted(set(pooled))), tuple(shape))


def _channels(value: Value, axes: Sequence[int], seen: Seen) -> np.ndarray:
    """The labels along `axes`, flattened; they must be equal along the other axes."""
    rest = [axis for axis in range(len(value.shape)) if axis not in axes]
    labels = seen.settle(value.labels, rest).transpose(*axes, *rest)
    shape = [value.shape[axis] for axis in axes] + [1] * len(rest)
    return np.broadcast_to(labels, shape).reshape(-1)


def _product(params: Mapping[str, Any], inputs: Sequence[Known], seen: Seen) -> Value:
    """The product of an activation and a kernel, in either order."""
    contracted, (batched, _) = params["dimension_numbers"]
    kinds = [isinstance(value, Weights) for value in inputs]
    values = [value for value in inputs if isinstance(value, Value)]
    constant = any((value.labels == FREE).all() for value in values)
    if len(values) == 2 and constant and not batched:
        return _mixed(contracted, values, seen)
    if sum(kinds) != 1 or batched:
        whose = _of_layer(values, seen)
        raise UntraceableError(
            "isn't a product of one activation and one kernel"
            + (f": units{whose}" if whose else "")
        )
    right = kinds[1]
    value, kernel = inputs if right else reversed(inputs)
    over, rows = contracted if right else reversed(contracted)
    assert isinstance(value, Value) and isinstance(kernel, Weights)
    columns = [axis for axis in range(len(kernel.shape)) if axis not in rows]
    units = _read(kernel, _channels(value, over, seen), rows, columns, seen)
    outputs = [kernel.shape[axis] for axis in columns]
    rest = [size for axis, size in enumerate(value.shape) if axis not in over]
    ones, units = [1] * len(rest), units.reshape(outputs)
    if right:
        return Value(units.reshape(ones + outputs), (*rest, *outputs))
    return Value(units.reshape(outputs + ones), (*outputs, *rest))


def _mixed(contracted: Sequence[Sequence[int]], inputs: Sequence[Value], seen: Seen) -> Value:
    """The product of an activation and a constant, such as a resize: a sum over some axes."""
    labels: np.ndarray = np.array(FREE)
    shape: list[int] = []
    for value, over in zip(inputs, contracted, strict=True):
        mine = seen.settle(value.labels, over).squeeze(tuple(over))
        shape += [size for axis, size in enumerate(value.shape) if axis not in over]
        a = labels.reshape(labels.shape + (1,) * mine.ndim)
        labels = np.where(a == FREE, mine, a)
    return Value(labels, tuple(shape))


def _read(
    kernel: Weights, labels: np.ndarray, rows: Sequence[int], columns: Sequence[int], seen: Seen
) -> np.ndarray:
    """Ties a kernel's inputs to `labels[inputs]`; returns the labels of its units `[units]`."""
    axes = seen.axes[kernel.path]
    units = axes[-1][kernel.along(-1, columns)]
    if kernel.path in seen.depthwise:
        seen.tie(units, np.repeat(labels, len(units) // len(labels)))
    else:
        seen.tie(axes[-2][kernel.along(-2, rows)], labels)
    return units


def _convolution(
    params: Mapping[str, Any], inputs: Sequence[Known], shape: Sequence[int], seen: Seen
) -> Value:
    """The convolution of an activation with a kernel, over all channels or depthwise."""
    value, kernel = inputs
    if not isinstance(value, Value) or not isinstance(kernel, Weights):
        raise UntraceableError("isn't a convolution of an activation with a kernel")
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    labels = _channels(value, numbers.lhs_spec[1:2], seen)
    columns, rows = numbers.rhs_spec[:1], numbers.rhs_spec[1:2]
    if params["batch_group_count"] != 1 or groups not in (1, len(labels)):
        raise UntraceableError(
            f"has {groups} groups of channels: must be 1, or one for each channel"
        )
    if groups > 1:
        seen.depthwise.add(kernel.path)
    units = _read(kernel, labels, rows, columns, seen)
    sizes = [1] * len(shape)
    sizes[numbers.out_spec[1]] = len(units)
    return Value(units.reshape(sizes), tuple(shape))
