"""A ticket as a PyTorch `state_dict`, and back; in numpy arrays, so that torch need not be there.

    state = pytorch.to_state_dict(net, (28, 28, 1), ticket)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    ticket = pytorch.from_state_dict(net, (28, 28, 1), module.state_dict())

A layer keeps its name, with `.` for `/`, and its leaves get torch's names:

    kernel, embedding, scale -> weight      mean, var -> running_mean, running_var
    bias                     -> bias        beside these: num_batches_tracked

Layouts are read from the equations of the net (see `pytorch_layouts`), not from names. A dense
kernel `[inputs, outputs]` becomes `[outputs, inputs]`, a convolution's `[h, w, inputs, outputs]`
becomes `[outputs, inputs, h, w]`, and the inputs of a dense layer that reads flattened images are
put into the order `[c, h, w]`, in which a torch net flattens them. A pruned leaf is written in the
form of `torch.nn.utils.prune`: `weight_orig`, all weights, and `weight_mask`, ones and zeros.

The torch net must pad as this one does: with padding 'SAME' and a stride of 2 that is, for even
sizes, one pixel more at the end than at the beginning (`torch.nn.functional.pad`).
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxtickets import masks
from jaxtickets.io import pytorch_layouts
from jaxtickets.io.nested_dicts import flat, nested
from jaxtickets.io.pytorch_layouts import Layout
from jaxtickets.nets.functional import Example
from jaxtickets.types import Array, Ticket

PARAMS = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}
STATS = {"mean": "running_mean", "var": "running_var"}
ORDER = (*dict.fromkeys(PARAMS.values()), *STATS.values())
TRACKED = "num_batches_tracked"
"""Torch's count of training steps, which the statistics here do not have: written as 0."""


class _Entry(NamedTuple):
    """A leaf of a net as an entry of a state_dict.

    Attributes:
      name: the entry's name, such as `stage1_block1_bn1.running_mean`.
      kind: 'params' or 'stats'.
      path: the leaf's path in that tree.
      layout: how the entry's elements are placed.
      like: the leaf's shape and dtype.
    """

    name: str
    kind: str
    path: str
    layout: Layout
    like: jax.ShapeDtypeStruct

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the entry."""
        return tuple(self.like.shape[axis] for axis in self.layout.axes)


def to_state_dict(
    net: nn.Module, shape: Example, ticket: Ticket, pruned: bool = True
) -> dict[str, np.ndarray]:
    """The ticket's arrays by torch's names, in torch's layouts, in the order of the forward pass.

    Args:
      net: a flax module of dense, convolutional, norm and embedding layers.
      shape: the input for one example, such as `(h, w, c)`, see `nets.functional`.
      ticket: the net's ticket.
      pruned: True writes a leaf that has pruned weights as `weight_orig` and `weight_mask`, which
        `load_state_dict` takes once the module's layers are pruned, for example by
        `torch.nn.utils.prune.identity(layer, "weight")`. False writes all leaves masked, by their
        plain names.

    Raises:
      ValueError: in one line: the mask or the trees do not fit the net, or a layer has no
        counterpart in torch.

    >>> params = {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
    >>> mask = {"kernel": jnp.eye(2, dtype=bool)}
    >>> net, ticket = nn.Dense(2, use_bias=False), Ticket(params, {}, mask, jnp.int32(0))
    >>> state = to_state_dict(net, (2,), ticket)
    >>> {name: array.tolist() for name, array in state.items()}
    {'weight_orig': [[1.0, 3.0], [2.0, 4.0]], 'weight_mask': [[1.0, 0.0], [0.0, 1.0]]}
    """
    masks.check_mask(ticket.mask, ticket.params)
    entries = _entries(net, shape)
    trees = {"params": flat(ticket.params), "stats": flat(ticket.stats)}
    bits = flat(ticket.mask)
    for kind, leaves in trees.items():
        wanted = {entry.path: entry.like.shape for entry in entries if entry.kind == kind}
        if {path: leaf.shape for path, leaf in leaves.items()} != wanted:
            raise ValueError(f"the ticket's {kind} aren't those of {type(net).__name__}")
    state = {}
    for entry in entries:
        array = trees[entry.kind][entry.path]
        if entry.kind == "stats" or bits[entry.path].all():
            state[entry.name] = entry.layout.to_torch(array)
        elif pruned:
            mask = bits[entry.path].astype(array.dtype)
            state[f"{entry.name}_orig"] = entry.layout.to_torch(array)
            state[f"{entry.name}_mask"] = entry.layout.to_torch(mask)
        else:
            masked = np.where(bits[entry.path], array, np.zeros_like(array))
            state[entry.name] = entry.layout.to_torch(masked)
        if entry.name.endswith(STATS["var"]):
            state[f"{_layer(entry.name)}.{TRACKED}"] = np.zeros((), np.int64)
    return state


def from_state_dict(net: nn.Module, shape: Example, state: Mapping[str, Any]) -> Ticket:
    """The ticket in a state_dict: the inverse of `to_state_dict`, bit for bit.

    Entries `weight_orig` and `weight_mask` give weights and mask; all else is kept. Numbers are
    converted to the net's dtypes. The rewind step is 0.

    Args:
      net: a flax module whose layers have the names of the torch module's.
      shape: the input for one example, such as `(h, w, c)`, see `nets.functional`.
      state: name -> torch tensor or array; any order.

    Raises:
      ValueError: in one line: entries are missing, unknown or of another shape, a mask has other
        values than 0 and 1, or a layer has no counterpart in torch.

    >>> net = nn.Dense(3, use_bias=False)
    >>> state = {"weight": np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])}  # [outputs, inputs]
    >>> ticket = from_state_dict(net, (2,), state)
    >>> ticket.params["kernel"].tolist()
    [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]
    """
    entries = _entries(net, shape)
    masked = {e.name for e in entries if e.kind == "params" and f"{e.name}_mask" in state}
    wanted = [
        name
        for entry in entries
        for name in (
            (f"{entry.name}_orig", f"{entry.name}_mask") if entry.name in masked else (entry.name,)
        )
    ]
    optional = {f"{_layer(e.name)}.{TRACKED}" for e in entries if e.kind == "stats"}
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in {*wanted, *optional}]
    if missing or extra:
        parts = [f"lacks {_some(missing)}"] if missing else []
        parts += [f"has {_some(extra)} too many"] if extra else []
        raise ValueError(f"the state_dict isn't of {type(net).__name__}: it {', and '.join(parts)}")
    trees: dict[str, dict[str, Array]] = {"params": {}, "stats": {}, "mask": {}}
    for entry in entries:
        name = f"{entry.name}_orig" if entry.name in masked else entry.name
        leaf = entry.layout.to_flax(_array(name, state[name], entry.shape))
        trees[entry.kind][entry.path] = jnp.asarray(leaf.astype(entry.like.dtype))
        if entry.kind == "params":
            bits = np.ones(entry.like.shape, bool)
            if entry.name in masked:
                name = f"{entry.name}_mask"
                values = _array(name, state[name], entry.shape)
                if not np.isin(values, (0, 1)).all():
                    raise ValueError(f"{name} has other values than 0 and 1: it is no mask")
                bits = entry.layout.to_flax(values.astype(bool))
            trees["mask"][entry.path] = jnp.asarray(bits)
    return Ticket(
        params=nested(trees["params"]),
        stats=nested(trees["stats"]),
        mask=nested(trees["mask"]),
        rewind_step=jnp.int32(0),
    )


def _entries(net: nn.Module, shape: Example) -> list[_Entry]:
    """The entries of the net's state_dict, in the order of the forward pass.

    Raises:
      ValueError: two leaves would have one name, or a leaf has no counterpart in torch.
    """
    traced = pytorch_layouts.trace(net, shape)
    likes = {("params", path): leaf for path, leaf in _leaves(traced.params)}
    likes |= {("stats", path): leaf for path, leaf in _leaves(traced.stats)}
    entries = []
    for (kind, path), like in likes.items():
        layer, _, leaf = path.rpartition("/")
        known = PARAMS if kind == "params" else STATS
        if leaf not in known:
            raise ValueError(
                f"{path} has no counterpart in PyTorch: {kind} may be {', '.join(known)}"
            )
        name = f"{layer}.{known[leaf]}" if layer else known[leaf]
        layout = traced.layouts[path] if kind == "params" else Layout(tuple(range(like.ndim)))
        entries.append(_Entry(name.replace("/", "."), kind, path, layout, like))
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two leaves would be {twice[0]} in PyTorch")
    place = {layer.replace("/", "."): number for number, layer in enumerate(traced.layers)}
    return sorted(
        entries,
        key=lambda e: (place.get(_layer(e.name), len(place)), ORDER.index(e.name.split(".")[-1])),
    )


def _leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    return zip(masks.paths(tree), jax.tree.leaves(tree), strict=True)


def _layer(name: str) -> str:
    """The layer of an entry: `block.conv.weight` -> `block.conv`."""
    return name.rpartition(".")[0]


def _array(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor or array on the host.

    Raises:
      ValueError: it has another shape, or a dtype that numpy lacks.
    """
    try:
        array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
    except TypeError as error:
        raise ValueError(f"{name} has a dtype that numpy lacks: convert it first") from error
    if array.shape != shape:
        raise ValueError(f"{name} has the shape {array.shape}, must have {shape}")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} holds {array.dtype}, must hold numbers")
    return array


def _some(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
