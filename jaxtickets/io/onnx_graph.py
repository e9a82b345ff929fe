"""An ONNX graph while it is written: its nodes, its constants, and what is known of its values.

A value may differ from the one of the jaxpr in two ways, so that no node is written in vain:

- Its axes may have another order. ONNX convolutions and pools take `[n, c, h, w]`, and elementwise
  operations take any order, so the order is only restored where an operation depends on it.
- Its axes may be shorter: one that is repeated along an axis has length 1 there, as ONNX's
  elementwise operations repeat it themselves.

A size that grows with the batch is a negative number: `-k` stands for `k` times the batch.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int, ...]


class Windows(NamedTuple):
    """The value that a reshape has cut into windows `[n, h, window h, w, window w, c]`."""

    value: "Tensor"
    sizes: tuple[int, int]


class Tensor(NamedTuple):
    """A value of the graph.

    Attributes:
      name: its name in the graph; for a constant, the name that it will have.
      dtype: the dtype of its elements.
      shape: its shape in the jaxpr.
      held: its shape in the graph, with the axes of the jaxpr: that of `shape`, or 1 where all
        elements along an axis are equal.
      order: its axes in the graph: axis `i` there is axis `order[i]` of the jaxpr.
      array: the elements of a constant, in the order of the jaxpr; None for all others.
      windows: what it consists of, if it is cut into windows.
    """

    name: str
    dtype: np.dtype
    shape: Shape
    held: Shape
    order: tuple[int, ...]
    array: np.ndarray | None = None
    windows: Windows | None = None


def tensor(name: str, dtype: Any, shape: Sequence[int], order: Sequence[int] = ()) -> Tensor:
    """A value that is held as it is, up to the order of its axes.

    >>> value = tensor("images", "float32", (-1, 28, 28, 1), order=(0, 3, 1, 2))
    >>> value.shape, value.order
    ((-1, 28, 28, 1), (0, 3, 1, 2))
    """
    axes = tuple(order) or tuple(range(len(shape)))
    return Tensor(name, np.dtype(dtype), tuple(shape), tuple(shape), axes)


def constant(name: str, array: np.ndarray) -> Tensor:
    """A value that is known; it is written when a node reads it.

    The names of numbers that are no leaf begin with `/`, so that no leaf has them.

    >>> value = constant("fc1/kernel", np.ones((2, 3), "float32"))
    >>> value.shape, value.order, value.dtype.name
    ((2, 3), (0, 1), 'float32')
    """
    return tensor(name, array.dtype, array.shape)._replace(array=array)


class Graph(NamedTuple):
    """The parts of an ONNX graph, in the order in which they are written.

    Attributes:
      nodes: `onnx.NodeProto`s.
      constants: name -> array, as it stands in the graph.
      axes: name of a constant -> its axes there, see `Tensor.order`.
      names: each name that is taken -> how often it was asked for.
      batch: the name of the first input, whose first axis is the batch.
    """

    nodes: list[Any]
    constants: dict[str, np.ndarray]
    axes: dict[str, tuple[int, ...]]
    names: dict[str, int]
    batch: str

    def name(self, wanted: str) -> str:
        """A name that no other value has: `wanted`, or `wanted.2` and so on."""
        self.names[wanted] = number = self.names.get(wanted, 0) + 1
        if number == 1:
            return wanted
        return self.name(f"{wanted}.{number}")

    def node(self, operation: str, inputs: Sequence[str], place: str, **attributes: Any) -> str:
        """Writes a node; returns the name of its output."""
        from onnx import helper

        output = self.name(f"{place}/{operation}" if place else operation)
        node = helper.make_node(operation, list(inputs), [output], name=output, **attributes)
        self.nodes.append(node)
        return output

    def integers(self, values: Sequence[int]) -> str:
        """The name of a constant int64 vector."""
        return self.write(constant("/integers", np.array(values, np.int64)))

    def write(self, value: Tensor, order: Sequence[int] | None = None) -> str:
        """The name of the value in the graph with its axes in `order`; by default in its own.

        A constant is written here; numbers that several nodes read are written once.
        """
        order = value.order if order is None else tuple(order)
        if value.array is None:
            if order == value.order:
                return value.name
            places = [value.order.index(axis) for axis in order]
            return self.node("Transpose", [value.name], value.name, perm=places)
        array = np.array(value.array.transpose(order), order="C")
        for number in count(1):
            name = value.name if number == 1 else f"{value.name}.{number}"
            if name not in self.names:
                self.names[name] = 1
                self.constants[name], self.axes[name] = array, order
                return name
            if name in self.constants and _same(self.constants[name], array):
                return name
        raise AssertionError

    def whole(self, value: Tensor, place: str, order: Sequence[int] | None = None) -> str:
        """As `write`, with all axes at their full length."""
        name = self.write(value, order)
        if value.held == value.shape:
            return name
        sizes = [value.shape[axis] for axis in (value.order if order is None else order)]
        return self.node("Expand", [name, self.sizes(sizes, place)], place)

    def reshape(self, name: str, sizes: Sequence[int], place: str) -> str:
        """Writes a reshape of the value of that name; returns the name of its output."""
        several = sum(size < 0 for size in sizes) > 1
        shape = self.sizes(sizes, place) if several else self.integers([max(n, -1) for n in sizes])
        return self.node("Reshape", [name, shape], place)

    def sizes(self, sizes: Sequence[int], place: str) -> str:
        """The name of an int64 vector of sizes, of which some may grow with the batch."""
        if all(size >= 0 for size in sizes):
            return self.integers(sizes)
        shape = self.node("Shape", [self.batch], place, start=0, end=1)
        parts = []
        for size in sizes:
            if size >= 0:
                parts.append(self.integers([size]))
            elif size == -1:
                parts.append(shape)
            else:
                parts.append(self.node("Mul", [shape, self.integers([-size])], place))
        return self.node("Concat", parts, place, axis=0)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have the same bits."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
