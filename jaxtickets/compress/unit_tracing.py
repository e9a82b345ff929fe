"""Which unit stands where: labels of units, carried through a jaxpr's equations.

A label is an integer. Each unit axis of each leaf has labels of its own; an activation's element
has the label of the unit that it is a value of. Operations that combine elements one by one tie
their labels, products with a kernel tie the activation's labels to the kernel's input axis, and
whatever moves elements moves labels. So a flatten, a padding shortcut and a convolution written as
slices and a product need no rule of their own. What is tied is joined at the end, in one pass.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from jaxtickets.nets.element_moves import MOVES, body_of, compact, module_of, shape_of

FREE, FIXED = -1, 0
"""Labels of what is no unit: a constant; an entry of the images or a logit, which stays."""

Axes = dict[str, dict[int, np.ndarray]]
"""Leaf path -> axis, counted from the end -> a label for each of its places."""


class UntraceableError(ValueError):
    """An operation through which units can't be followed."""


class Value(NamedTuple):
    """An activation, or a leaf with one axis.

    Attributes:
      labels: int array that broadcasts to `shape`: an axis along which nothing differs has length
        1.
      shape: the value's own.
      path: its leaf, '' for an activation.
    """

    labels: np.ndarray
    shape: tuple[int, ...]
    path: str = ""

    def full(self) -> np.ndarray:
        """The labels, one an element; a view."""
        return np.broadcast_to(self.labels, self.shape)


class Weights(NamedTuple):
    """A kernel, perhaps with its elements moved.

    Attributes:
      path: its leaf.
      size: the leaf's shape.
      places: for each element its place in the flattened leaf.
    """

    path: str
    size: tuple[int, ...]
    places: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the value, after moves."""
        return self.places.shape

    def along(self, axis: int, rows: Sequence[int]) -> np.ndarray:
        """Places on the leaf's `axis` as a function of the value's axes `rows`, `[n]`.

        Raises:
          UntraceableError: they depend on the other axes too.
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
    """What a walk over a jaxpr collects.

    Attributes:
      axes: labels of the leaves' axes.
      ties: arrays `[2, n]` of labels that belong together.
      order: paths of leaves as they are read, and the operation that reads each first.
      depthwise: paths of kernels that filter each channel alone, which a net of one channel doesn't
        show.
      claims: places and arrays `[2, n]` of labels that must be the same unit there.
      place: the operation at hand and its module, for messages.
    """

    axes: Axes
    ties: list[np.ndarray]
    order: dict[str, str]
    depthwise: set[str]
    claims: list[tuple[str, np.ndarray]]
    place: str = ""

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        """Ties labels one by one; constants are tied to nothing."""
        a, b = np.broadcast_arrays(a, b)
        chosen = (a != FREE) & (b != FREE) & (a != b)
        if chosen.any():
            self.ties.append(np.unique(np.stack([a[chosen], b[chosen]]), axis=1))

    def settle(self, labels: np.ndarray, axes: Sequence[int]) -> np.ndarray:
        """The labels with length 1 along `axes`, and the claim that but one unit lies along them.

        Padding aside; ties that are found later may make two labels the same unit.
        """
        most = labels.max(tuple(axes), keepdims=True)
        differing = (labels != most) & (labels != FREE)
        if differing.any():
            pairs = np.stack([labels[differing], np.broadcast_to(most, labels.shape)[differing]])
            self.claims.append((self.place, np.unique(pairs, axis=1)))
        return most


Known = Value | Weights


def walk(jaxpr: Jaxpr, inputs: Sequence[Known], seen: Seen, where: str = "") -> list[Known]:
    """The values that a jaxpr gives; what it ties and reads is added to `seen`.

    Args:
      jaxpr: of one image.
      inputs: one for each of its arguments.
      seen: what was collected so far.
      where: the module that calls it, for messages.

    Raises:
      UntraceableError: it has an operation without a rule, which is named with its module.
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
                said = " ".join(str(error).split())  # a form of the operation that isn't known here
                raise UntraceableError(f"{place} can't be followed: {said}") from error
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [_free(()) if isinstance(v, Literal) else values[v] for v in jaxpr.outvars]


def _rule(eqn: JaxprEqn, inputs: list[Known], seen: Seen) -> Sequence[Known]:
    """An equation's outputs."""
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
    """Whether it is made of constants and of the example alone."""
    return isinstance(value, Value) and bool((value.labels <= FIXED).all())


def _of_layer(values: Sequence[Value], seen: Seen) -> str:
    """Whose units these values have, in words."""
    there = max((int(value.labels.max()) for value in values), default=FREE)
    for path, leaf in seen.axes.items():
        if any(there in labels for labels in leaf.values()):
            return f" of {path.split('/', 1)[1].rpartition('/')[0] or path}"
    return ""


def _cut_out(value: Value, shape: Sequence[int]) -> Value:
    """A slice whose place isn't known: all places along the axes that are cut are the same unit."""
    for axis, size in enumerate(shape):
        if size != value.shape[axis] and value.labels.shape[axis] != 1:
            raise UntraceableError("takes units that aren't known before")
    return Value(value.labels, tuple(shape))


def _looked_up(
    params: Mapping[str, Any], table: Weights, index: Known, shape: Sequence[int], seen: Seen
) -> Value:
    """Rows of an embedding `[words, units]`, chosen by integers: its words stay.

    Raises:
      UntraceableError: what is read isn't rows.
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
        raise UntraceableError(f"reads {table.path} otherwise than row by row")
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
    """Constants."""
    return Value(np.full((1,) * len(shape), FREE), tuple(shape))


def _compact(labels: np.ndarray) -> Value:
    """The value with these labels."""
    return Value(compact(labels), labels.shape)


def _filters(kernel: Weights, seen: Seen) -> Value:
    """A kernel that is combined with activations one by one: a depthwise convolution's.

    Raises:
      UntraceableError: it has several inputs.
    """
    if kernel.size[-2] != 1:
        raise UntraceableError(f"does more with {kernel.path} than move and multiply it")
    seen.depthwise.add(kernel.path)
    return _compact(seen.axes[kernel.path][-1][np.unravel_index(kernel.places, kernel.size)[-1]])


def _together(values: Sequence[Value], shape: Sequence[int], seen: Seen) -> Value:
    """What combines values one by one: it ties them."""
    labels = np.full((1,) * len(shape), FREE)
    for value in values:
        seen.tie(labels, value.labels)
        labels = np.where(labels == FREE, value.labels, labels)
    return Value(labels, tuple(shape))


def _reduced(value: Value, axes: Sequence[int], shape: Sequence[int], seen: Seen) -> Value:
    """What is made of all elements along `axes`."""
    return Value(seen.settle(value.labels, axes).squeeze(tuple(axes)), tuple(shape))


def _windowed(value: Value, params: Mapping[str, Any], shape: Sequence[int], seen: Seen) -> Value:
    """What is made of the elements in each window."""
    pooled = [axis for axis, size in enumerate(value.shape) if size != shape[axis]]
    pooled += [axis for axis, size in enumerate(params["window_dimensions"]) if size > 1]
    return Value(seen.settle(value.labels, sorted(set(pooled))), tuple(shape))


def _channels(value: Value, axes: Sequence[int], seen: Seen) -> np.ndarray:
    """Labels along `axes`, flattened, which are the same at all places of the other axes."""
    rest = [axis for axis in range(len(value.shape)) if axis not in axes]
    labels = seen.settle(value.labels, rest).transpose(*axes, *rest)
    shape = [value.shape[axis] for axis in axes] + [1] * len(rest)
    return np.broadcast_to(labels, shape).reshape(-1)


def _product(params: Mapping[str, Any], inputs: Sequence[Known], seen: Seen) -> Value:
    """An activation times a kernel, on either side."""
    contracted, (batched, _) = params["dimension_numbers"]
    kinds = [isinstance(value, Weights) for value in inputs]
    values = [value for value in inputs if isinstance(value, Value)]
    constant = any((value.labels == FREE).all() for value in values)
    if len(values) == 2 and constant and not batched:
        return _mixed(contracted, values, seen)
    if sum(kinds) != 1 or batched:
        whose = _of_layer(values, seen)
        raise UntraceableError(
            "multiplies no activation with one kernel" + (f", but units{whose}" if whose else "")
        )
    right = kinds[1]
    value, kernel = inputs if right else reversed(inputs)
    over, rows = contracted if right else reversed(contracted)
    assert isinstance(value, Value) and isinstance(kernel, Weights)
    columns = [axis for axis in range(len(kernel.shape)) if axis not in rows]
    units = _read(kernel, _channels(value, over, seen), rows, columns, seen)
    made = [kernel.shape[axis] for axis in columns]
    rest = [size for axis, size in enumerate(value.shape) if axis not in over]
    ones, units = [1] * len(rest), units.reshape(made)
    if right:
        return Value(units.reshape(ones + made), (*rest, *made))
    return Value(units.reshape(made + ones), (*made, *rest))


def _mixed(contracted: Sequence[Sequence[int]], inputs: Sequence[Value], seen: Seen) -> Value:
    """An activation times a constant, such as one that resizes an image: a sum over some axes."""
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
    """Ties a kernel's inputs to labels `[inputs]`; the labels of its units `[units]`."""
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
    """A convolution with a kernel, of all channels or of each one alone."""
    value, kernel = inputs
    if not isinstance(value, Value) or not isinstance(kernel, Weights):
        raise UntraceableError("convolves no activation with a kernel")
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    labels = _channels(value, numbers.lhs_spec[1:2], seen)
    columns, rows = numbers.rhs_spec[:1], numbers.rhs_spec[1:2]
    if params["batch_group_count"] != 1 or groups not in (1, len(labels)):
        raise UntraceableError(f"has {groups} groups of channels: only 1 or one a channel")
    if groups > 1:
        seen.depthwise.add(kernel.path)
    units = _read(kernel, labels, rows, columns, seen)
    made = [1] * len(shape)
    made[numbers.out_spec[1]] = len(units)
    return Value(units.reshape(made), tuple(shape))
