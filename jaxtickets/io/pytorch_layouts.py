"""PyTorch's layout of each kernel of a net, read from the net's equations.

A walk through the jaxpr of the net in evaluation mode finds the operations that read each leaf, and
follows flattened images to the dense layer that reads them. Nothing is guessed from a name.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from jaxtickets import masks, nets
from jaxtickets.compress.unit_tracing import ELEMENTWISE
from jaxtickets.nets.convolution import lax_form
from jaxtickets.nets.element_moves import body_of, module_of, shape_of
from jaxtickets.nets.functional import Example
from jaxtickets.types import Params, Stats


class Layout(NamedTuple):
    """Where torch has the elements of a leaf.

    Attributes:
      axes: the leaf's axes in torch's order.
      inputs: int`[inputs]`: the position here of each of torch's inputs, which index axis 1 of the
        torch array; None if they have the same order.
    """

    axes: tuple[int, ...]
    inputs: np.ndarray | None = None

    def to_torch(self, leaf: np.ndarray) -> np.ndarray:
        """The leaf in torch's layout: a new array in C order."""
        array = leaf.transpose(self.axes)
        return np.array(array if self.inputs is None else array[:, self.inputs], order="C")

    def to_flax(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `to_torch`."""
        array = array if self.inputs is None else array[:, np.argsort(self.inputs)]
        return np.array(array.transpose(np.argsort(self.axes)), order="C")


class NetLayout(NamedTuple):
    """The leaves of a net as PyTorch has them.

    Attributes:
      params, stats: the trees of the net, of `jax.ShapeDtypeStruct`.
      layouts: path in the parameters -> layout.
      layers: the layers that have leaves, such as `block/conv`, in the order of the forward pass.
    """

    params: Params
    stats: Stats
    layouts: dict[str, Layout]
    layers: list[str]


def trace(net: nn.Module, shape: Example) -> NetLayout:
    """The layout of each leaf, and the order of the layers.

    Args:
      net: any flax module.
      shape: the input for one example, such as `(h, w, c)`, see `nets.functional`.

    Raises:
      ValueError: in one line that names the leaf and the operation: a leaf with two axes or more is
        not read as the kernel of a torch layer is, or flattened images cannot be followed to it.

    >>> found = trace(nn.Dense(3), shape=(2,))
    >>> found.layouts["kernel"].axes  # torch has [outputs, inputs]
    (1, 0)
    """
    model = nets.functional(lax_form(net), shape)
    params, stats = nets.init_shapes(model)
    given = nets.example_inputs(shape)
    closed = jax.make_jaxpr(lambda *inputs: model.apply(*inputs)[0])(params, stats, given)
    leaves = [_Leaf(path) for tree in (params, stats) for path in masks.paths(tree)]
    seen = _Seen({}, {})
    _walk(closed.jaxpr, [*leaves, *(None for _ in given)], seen)
    for path, leaf in zip(masks.paths(params), jax.tree.leaves(params), strict=True):
        if path not in seen.layouts and leaf.ndim > 1:
            place = seen.readers.get(path, "no operation")
            raise ValueError(f"{path} has no counterpart in PyTorch: it is read by {place}")
        seen.layouts.setdefault(path, Layout(tuple(range(leaf.ndim))))
    layers = list(dict.fromkeys(path.rpartition("/")[0] for path in seen.readers))
    return NetLayout(params, stats, seen.layouts, layers)


class _Leaf(NamedTuple):
    """A leaf, unchanged."""

    path: str


class _Constant(NamedTuple):
    """A value that depends on the leaves only."""


class _Features(NamedTuple):
    """An activation whose last axis holds flattened images.

    Attributes:
      images: their shape `(h, w, c)`; empty if their order is lost.
      place: the operation that flattened them, or that lost the order.
    """

    images: tuple[int, ...]
    place: str


_Value = _Leaf | _Constant | _Features | None
"""What is known of a value; None: another activation."""


class _Seen(NamedTuple):
    """The results of a walk.

    Attributes:
      layouts: path of a leaf -> its layout, where a product, a convolution or a lookup reads it.
      readers: path of a leaf -> the first operation that reads it, in the order of reading.
    """

    layouts: dict[str, Layout]
    readers: dict[str, str]

    def add(self, path: str, layout: Layout, place: str) -> None:
        """Adds a layout; raises ValueError if another operation reads the leaf in another one."""
        first = self.layouts.setdefault(path, layout)
        orders = [() if one.inputs is None else tuple(one.inputs) for one in (first, layout)]
        if first.axes != layout.axes or orders[0] != orders[1]:
            raise ValueError(f"{place} and {self.readers[path]} read {path} in two layouts")


def _walk(jaxpr: Jaxpr, inputs: Sequence[_Value], seen: _Seen, where: str = "") -> list[_Value]:
    """What is known of the outputs of a jaxpr; adds what it reads to `seen`."""
    values: dict[Any, _Value] = dict(zip(jaxpr.invars, inputs, strict=True))
    values |= dict.fromkeys(jaxpr.constvars, _Constant())

    def of(atom: Any) -> _Value:
        return _Constant() if isinstance(atom, Literal) else values[atom]

    for eqn in jaxpr.eqns:
        known, module, body = [of(atom) for atom in eqn.invars], module_of(eqn, where), body_of(eqn)
        if body is not None:
            outputs: Sequence[_Value] = _walk(body, known, seen, module)
        else:
            place = f"'{eqn.primitive.name}'" + (f" in {module}" if module else "")
            for value in known:
                if isinstance(value, _Leaf):
                    seen.readers.setdefault(value.path, place)
            outputs = [_output(eqn, known, seen, place)] * len(eqn.outvars)
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [of(atom) for atom in jaxpr.outvars]


def _output(eqn: JaxprEqn, known: Sequence[_Value], seen: _Seen, place: str) -> _Value:
    """What is known of the outputs of an equation; adds the leaves that it reads as kernels."""
    name = eqn.primitive.name
    if all(isinstance(value, _Leaf | _Constant) for value in known):
        return known[0] if name in ("convert_element_type", "copy") else _Constant()
    if name == "conv_general_dilated":
        return _convolution(eqn.params, known, seen, place)
    if name == "dot_general":
        return _product(eqn, known, seen, place)
    if name == "gather" and isinstance(known[0], _Leaf):
        seen.add(known[0].path, Layout(tuple(range(len(shape_of(eqn.invars[0]))))), place)
        return None
    old, new = (shape_of(atoms[0]) for atoms in (eqn.invars, eqn.outvars))
    if name == "reshape" and known[0] is None:
        if new[-1:] == old[-1:]:
            return None
        whole = len(old) > 3 and new == (old[0], int(np.prod(old[1:])))
        return _Features(old[1:] if whole else (), place)
    features = [value for value in known if isinstance(value, _Features)]
    if not features:
        return None
    alike = name in ELEMENTWISE and all(
        value == features[0] or (isinstance(value, _Constant | _Leaf) and _is_one(atom))
        for value, atom in zip(known, eqn.invars, strict=True)
    )
    return features[0] if alike else _Features((), place)


def _is_one(atom: Any) -> bool:
    """Whether a value is a single number."""
    return int(np.prod(shape_of(atom))) == 1


def _convolution(
    params: Mapping[str, Any], known: Sequence[_Value], seen: _Seen, place: str
) -> _Value:
    _, kernel = known
    if isinstance(kernel, _Leaf):
        if params["batch_group_count"] != 1 or any(d != 1 for d in params["lhs_dilation"]):
            raise ValueError(f"{kernel.path} has no counterpart in PyTorch: {place} is transposed")
        seen.add(kernel.path, Layout(tuple(params["dimension_numbers"].rhs_spec)), place)
    return None


def _product(eqn: JaxprEqn, known: Sequence[_Value], seen: _Seen, place: str) -> _Value:
    contracted, (batched, _) = eqn.params["dimension_numbers"]
    for side in (1, 0):
        mine, other = known[side], known[1 - side]
        if not isinstance(mine, _Leaf):
            continue
        (axis, *more), (over, *_) = contracted[side], contracted[1 - side]
        if more or batched or len(shape_of(eqn.invars[side])) != 2:
            raise ValueError(
                f"{mine.path} has no counterpart in PyTorch: {place} is no product of a matrix"
            )
        inputs = None
        if isinstance(other, _Features):
            if not other.images or over != 1:
                raise ValueError(
                    f"{mine.path} reads images whose order is lost at {other.place}: "
                    "PyTorch's order is unknown"
                )
            inputs = np.moveaxis(np.arange(np.prod(other.images)).reshape(other.images), -1, 0)
        seen.add(
            mine.path, Layout((1 - axis, axis), None if inputs is None else inputs.ravel()), place
        )
    return None
