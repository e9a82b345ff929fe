"""Primitive of a jaxpr -> nodes of an ONNX graph (operator set 18).

A rule is `rule(graph, call, inputs) -> Tensor`: it writes the nodes of one equation and returns its
output. A primitive that is not in the table cannot be exported: adding it is adding a rule.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxtickets.io.onnx_graph import Graph, Shape, Tensor, Windows, constant, tensor

OPSET = 18


class UnsupportedError(ValueError):
    """An operation, or a form of it, that is not exported."""


class Call(NamedTuple):
    """An equation.

    Attributes:
      params: its parameters, as traced with the first of two batch sizes.
      shape: the shape of its output; sizes that grow with the batch are negative.
      dtype: the dtype of its output.
      place: the module that it belongs to, for names.
    """

    params: dict[str, Any]
    shape: Shape
    dtype: np.dtype
    place: str


Rule = Callable[[Graph, Call, Sequence[Tensor]], Tensor]


# --- elementwise ---------------------------------------------------------------------------------


def _combined(graph: Graph, call: Call, inputs: Sequence[Tensor], operation: str) -> Tensor:
    """One ONNX node that combines values of all orders and lengths."""
    rank = len(call.shape)
    lead = max(inputs, key=lambda value: (value.array is None, len(value.shape) == rank))
    order = lead.order if len(lead.shape) == rank else tuple(range(rank))
    names = [graph.write(v, order if len(v.shape) == rank else None) for v in inputs]
    helds = [v.held for v in inputs if len(v.shape) == rank]
    held = tuple(next((n for n in sizes if n != 1), 1) for sizes in zip(*helds, strict=True))
    name = graph.node(operation, names, call.place)
    return Tensor(name, call.dtype, call.shape, held, order)


def _elementwise(*operations: str) -> Rule:
    """ONNX nodes one after the other, of which the first takes all inputs."""

    def rule(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
        value = _combined(graph, call, inputs, operations[0])
        for operation in operations[1:]:
            value = _combined(graph, call, [value], operation)
        return value

    return rule


def _larger(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
    """The larger of two values; 'Relu', which runtimes merge with a convolution, if one is 0."""
    for value, other in (inputs, inputs[::-1]) if call.dtype.kind == "f" else ():
        if other.array is not None and not other.shape and other.array == 0:
            return _combined(graph, call, [value], "Relu")
    return _combined(graph, call, inputs, "Max")


def _square(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
    return _combined(graph, call, [*inputs, *inputs], "Mul")


def _integer_power(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
    exponent = constant("/exponent", np.array(call.params["y"], call.dtype))
    return _combined(graph, call, [*inputs, exponent], "Pow")


def _select(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
    chosen, *cases = inputs
    if chosen.dtype != bool or len(cases) != 2:
        raise UnsupportedError("selects among more than two cases")
    return _combined(graph, call, [chosen, cases[1], cases[0]], "Where")


def _clamp(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
    low, value, high = inputs
    return _combined(graph, call, [_combined(graph, call, [value, low], "Max"), high], "Min")


def _converted(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
    from onnx import helper

    (value,) = inputs
    if value.dtype == call.dtype:
        return value
    if value.array is not None:
        return constant(f"{value.name}.{call.dtype}", value.array.astype(call.dtype))._replace(
            shape=value.shape
        )
    kind = helper.np_dtype_to_tensor_dtype(call.dtype)
    name = graph.node("Cast", [graph.write(value)], call.place, to=kind)
    return value._replace(name=name, dtype=call.dtype, windows=None)


# --- moves ---------------------------------------------------------------------------------------


def _same(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
    return inputs[0]


def _broadcast(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
    """The value with new axes of length 1, to be repeated where that is needed."""
    (value,), lengths = inputs, [1] * len(call.shape)
    for axis, size in zip(call.params["broadcast_dimensions"], value.held, strict=True):
        lengths[axis] = size
    held = tuple(lengths)
    if held == value.held:
        return value._replace(shape=call.shape, windows=None)
    if value.array is not None:
        placed = constant(value.name, value.array.reshape(held))
    else:
        name = graph.write(value, range(len(value.shape)))
        placed = tensor(graph.reshape(name, held, call.place), value.dtype, held)
    return placed._replace(shape=call.shape)


def _reshaped(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
    (value,) = inputs
    if value.array is not None and value.held == value.shape:
        return constant(value.name, value.array.reshape(call.shape))
    name = graph.whole(value, call.place, range(len(value.shape)))
    name = graph.reshape(name, call.shape, call.place)
    return tensor(name, value.dtype, call.shape)._replace(windows=_windows(value, call.shape))


def _windows(value: Tensor, shape: Shape) -> Windows | None:
    """The windows into which a reshape cuts `[n, h, w, c]`, if it does."""
    if len(value.shape) != 4 or len(shape) != 6 or value.held != value.shape:
        return None
    n, high, a, wide, b, c = shape
    return Windows(value, (a, b)) if value.shape == (n, high * a, wide * b, c) else None


def _transposed(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
    (value,), axes = inputs, tuple(call.params["permutation"])
    held = tuple(value.held[axis] for axis in axes)
    if value.array is not None:
        moved = constant(f"{value.name}.transposed", value.array.transpose(axes))
    else:
        moved = value._replace(order=tuple(axes.index(axis) for axis in value.order))
    return moved._replace(shape=call.shape, held=held, windows=None)


def _joined(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
    order = inputs[0].order
    names = [graph.whole(value, call.place, order) for value in inputs]
    axis = order.index(call.params["dimension"])
    return tensor(graph.node("Concat", names, call.place, axis=axis), call.dtype, call.shape, order)


def _padded(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
    value, filler = inputs
    sides = [call.params["padding_config"][axis] for axis in value.order]
    if any(inner for _, _, inner in sides):
        raise UnsupportedError("pads between elements")
    pads = [int(low) for low, _, _ in sides] + [int(high) for _, high, _ in sides]
    names = [graph.whole(value, call.place), graph.integers(pads)]
    name = graph.node("Pad", [*names, graph.write(filler)], call.place)
    return tensor(name, call.dtype, call.shape, value.order)


def _sliced(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
    (value,), params = inputs, call.params
    steps = params["strides"] or (1,) * len(value.shape)
    bounds = list(zip(params["start_indices"], params["limit_indices"], steps, strict=True))
    cut = [axis for axis in range(len(bounds)) if value.shape[axis] != call.shape[axis]]
    if any(value.shape[axis] < 0 for axis in cut):
        raise UnsupportedError("cuts the batch")
    if not cut:
        return value
    starts, ends, by = (graph.integers([bounds[axis][i] for axis in cut]) for i in range(3))
    axes = graph.integers([value.order.index(axis) for axis in cut])
    names = [graph.whole(value, call.place), starts, ends, axes, by]
    return tensor(graph.node("Slice", names, call.place), call.dtype, call.shape, value.order)


# --- reductions and windows ----------------------------------------------------------------------


def _reduction(operation: str) -> Rule:
    def rule(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
        (value,), axes = inputs, tuple(call.params["axes"])
        if operation == "ReduceMax" and value.windows and axes == (2, 4):
            return _largest(graph, call, value.windows)
        order = value.order
        places = graph.integers([order.index(axis) for axis in axes])
        names = [graph.whole(value, call.place), places]
        name = graph.node(operation, names, call.place, keepdims=0)
        left = [axis for axis in range(len(value.shape)) if axis not in axes]
        kept = [left.index(axis) for axis in order if axis not in axes]
        return tensor(name, call.dtype, call.shape, kept)

    return rule


IMAGES = (0, 3, 1, 2)
"""The order of axes in which ONNX has images: `[n, c, h, w]`."""


def _largest(graph: Graph, call: Call, windows: Windows) -> Tensor:
    """The maximum of windows that do not overlap, as a pool of the value that was cut."""
    name = graph.write(windows.value, IMAGES)
    sizes = list(windows.sizes)
    name = graph.node("MaxPool", [name], call.place, kernel_shape=sizes, strides=sizes)
    return tensor(name, call.dtype, call.shape, IMAGES)


def _pool(operation: str) -> Rule:
    """A pool over windows of `[n, ..., c]`; a sum is a mean times the size of the window."""

    def rule(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
        (value,), params = inputs, call.params
        rank = len(value.shape)
        outside = (0, rank - 1)
        inside = range(1, rank - 1)
        sizes, strides, sides = (
            params[name] for name in ("window_dimensions", "window_strides", "padding")
        )
        dilations = params["window_dilation"]
        if (
            rank < 3
            or any(sizes[i] != 1 or strides[i] != 1 or any(sides[i]) for i in outside)
            or any(d != 1 for d in params["base_dilation"])
            or (operation == "AveragePool" and any(d != 1 for d in dilations))
        ):
            raise UnsupportedError("isn't a pool over the pixels of [n, ..., c]")
        order = (0, rank - 1, *inside)
        more: dict[str, Any] = {"count_include_pad": 1} if operation == "AveragePool" else {}
        if any(dilations[i] != 1 for i in inside):
            more["dilations"] = [int(dilations[i]) for i in inside]
        name = graph.node(
            operation,
            [graph.whole(value, call.place, order)],
            call.place,
            kernel_shape=[int(sizes[i]) for i in inside],
            strides=[int(strides[i]) for i in inside],
            pads=[int(sides[i][end]) for end in (0, 1) for i in inside],
            **more,
        )
        pooled = tensor(name, call.dtype, call.shape, order)
        if operation == "MaxPool":
            return pooled
        area = constant("/window_size", np.array(math.prod(sizes), call.dtype))
        return _combined(graph, call, [pooled, area], "Mul")

    return rule


# --- products ------------------------------------------------------------------------------------


def _convolution(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
    (images, kernel), params = inputs, call.params
    numbers = params["dimension_numbers"]
    if params["batch_group_count"] != 1 or any(d != 1 for d in params["lhs_dilation"]):
        raise UnsupportedError("is a transposed convolution, or one of groups of the batch")
    if any(side < 0 for sides in params["padding"] for side in sides):
        raise UnsupportedError("has negative padding")
    name = graph.node(
        "Conv",
        [
            graph.whole(images, call.place, numbers.lhs_spec),
            graph.whole(kernel, call.place, numbers.rhs_spec),
        ],
        call.place,
        kernel_shape=[kernel.shape[axis] for axis in numbers.rhs_spec[2:]],
        strides=[int(n) for n in params["window_strides"]],
        pads=[int(sides[end]) for end in (0, 1) for sides in params["padding"]],
        dilations=[int(n) for n in params["rhs_dilation"]],
        group=int(params["feature_group_count"]),
    )
    return tensor(name, call.dtype, call.shape, numbers.out_spec)


def _product(graph: Graph, call: Call, inputs: Sequence[Tensor]) -> Tensor:
    (over_left, over_right), (batch_left, batch_right) = call.params["dimension_numbers"]
    left, right = (graph.whole(value, call.place, range(len(value.shape))) for value in inputs)
    rank, other = (len(value.shape) for value in inputs)
    plain = other == 2 and tuple(over_left) == (rank - 1,) and tuple(over_right) == (0,)
    if plain and not batch_left:
        name = graph.node("MatMul", [left, right], call.place)
        return tensor(name, call.dtype, call.shape)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    mine = [next(letters) for _ in range(rank)]
    theirs = [next(letters) for _ in range(other)]
    for a, b in zip((*over_left, *batch_left), (*over_right, *batch_right), strict=True):
        theirs[b] = mine[a]
    output = [mine[axis] for axis in batch_left]
    output += [mine[a] for a in range(rank) if a not in (*over_left, *batch_left)]
    output += [theirs[b] for b in range(other) if b not in (*over_right, *batch_right)]
    equation = f"{''.join(mine)},{''.join(theirs)}->{''.join(output)}"
    name = graph.node("Einsum", [left, right], call.place, equation=equation)
    return tensor(name, call.dtype, call.shape)


RULES: dict[str, Rule] = {
    "abs": _elementwise("Abs"),
    "add": _elementwise("Add"),
    "and": _elementwise("And"),
    "broadcast_in_dim": _broadcast,
    "clamp": _clamp,
    "concatenate": _joined,
    "conv_general_dilated": _convolution,
    "convert_element_type": _converted,
    "copy": _same,
    "cos": _elementwise("Cos"),
    "div": _elementwise("Div"),
    "dot_general": _product,
    "eq": _elementwise("Equal"),
    "erf": _elementwise("Erf"),
    "exp": _elementwise("Exp"),
    "ge": _elementwise("GreaterOrEqual"),
    "gt": _elementwise("Greater"),
    "integer_pow": _integer_power,
    "le": _elementwise("LessOrEqual"),
    "log": _elementwise("Log"),
    "logistic": _elementwise("Sigmoid"),
    "lt": _elementwise("Less"),
    "max": _larger,
    "min": _elementwise("Min"),
    "mul": _elementwise("Mul"),
    "ne": _elementwise("Equal", "Not"),
    "neg": _elementwise("Neg"),
    "not": _elementwise("Not"),
    "or": _elementwise("Or"),
    "pad": _padded,
    "pow": _elementwise("Pow"),
    "reduce_max": _reduction("ReduceMax"),
    "reduce_min": _reduction("ReduceMin"),
    "reduce_prod": _reduction("ReduceProd"),
    "reduce_sum": _reduction("ReduceSum"),
    "reduce_window_max": _pool("MaxPool"),
    "reduce_window_sum": _pool("AveragePool"),
    "reshape": _reshaped,
    "rsqrt": _elementwise("Sqrt", "Reciprocal"),
    "select_n": _select,
    "sign": _elementwise("Sign"),
    "sin": _elementwise("Sin"),
    "slice": _sliced,
    "sqrt": _elementwise("Sqrt"),
    "square": _square,
    "squeeze": _reshaped,
    "stop_gradient": _same,
    "sub": _elementwise("Sub"),
    "tanh": _elementwise("Tanh"),
    "transpose": _transposed,
}
"""Primitive -> rule."""
