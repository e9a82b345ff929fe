"""A net and its ticket as an ONNX graph, and back.

    save_onnx("lenet5.onnx", net, ticket, (28, 28, 1), provenance={"net": nets.to_json(net)})

The graph is written from the jaxpr of the net in evaluation mode, so that nets outside the registry
can be exported too. Weights that the mask removes are zeros. The first axis of the inputs is open:
two jaxprs, of batches of two sizes, tell which sizes grow with it. Parameters and statistics are
the graph's initialisers by their paths, such as `conv1/kernel`, in the layout that their operation
wants: a convolution's is `[outputs, inputs, h, w]`.

The metadata holds `provenance` (JSON), what `load_onnx` needs (`leaves`), and `sha256`, of the
whole model without it; without a checksum, a flipped byte would be loaded without an error.
"""

import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxtickets import masks, nets
from jaxtickets.io.errors import UserError
from jaxtickets.io.files import canonical, finite_or_not, write_atomically
from jaxtickets.io.nested_dicts import flat, nested
from jaxtickets.io.onnx_graph import Graph, Tensor, constant, tensor
from jaxtickets.io.onnx_operations import IMAGES, OPSET, RULES, Call, UnsupportedError
from jaxtickets.nets.convolution import lax_form
from jaxtickets.nets.element_moves import called_by, module_of, opened, shape_of
from jaxtickets.nets.functional import Example
from jaxtickets.types import Ticket

FORMAT = "jaxtickets net 1"
IR_VERSION = 8
"""ONNX's file version of operator set 18; a newer one would shut out older runtimes."""

LAYOUTS = ("NHWC", "NCHW")
BATCHES = 2, 3
"""The batch sizes of the two traces."""

MOST_BYTES = 2**31 - 2**20
"""Of constants; a file of protocol buffers ends at 2 GiB."""


def save_onnx(
    path: str | os.PathLike[str],
    net: nn.Module,
    ticket: Ticket,
    shape: Example,
    layout: str = "NHWC",
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the masked net as an ONNX file; replaces an existing one. See `to_onnx`.

    Raises:
      ValueError, UserError: as `to_onnx` does, before anything is written.
      OSError: it cannot be written; an existing file stays.

    >>> import tempfile
    >>> params = {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
    >>> mask = {"kernel": jnp.eye(2, dtype=bool)}
    >>> net, ticket = nn.Dense(2, use_bias=False), Ticket(params, {}, mask, jnp.int32(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_onnx(Path(folder, "net.onnx"), net, ticket, shape=(2,))
    ...     again, _ = load_onnx(path)
    >>> again.params["kernel"].tolist(), again.mask["kernel"].tolist()
    ([[1.0, 0.0], [0.0, 4.0]], [[True, False], [False, True]])
    """
    model = to_onnx(net, ticket, shape, layout, provenance)
    write_atomically(Path(path), model.SerializeToString())
    return Path(path)


def to_onnx(
    net: nn.Module,
    ticket: Ticket,
    shape: Example,
    layout: str = "NHWC",
    provenance: Mapping[str, Any] | None = None,
) -> Any:
    """The masked net in evaluation mode as an `onnx.ModelProto`, checked by `onnx.checker`.

    Its input is `images`, `[batch, h, w, c]` or `[batch, c, h, w]`, its output `logits`. Several
    inputs or outputs are numbered from the second on: `images.2`.

    Args:
      net: any flax module of operations that `onnx_operations.RULES` has.
      ticket: the net's ticket.
      shape: the input for one example, such as `(h, w, c)`, see `nets.functional`.
      layout: 'NHWC', the net's own, or 'NCHW'; of inputs that have four axes with the batch.
      provenance: what the file should say of the ticket, in the types of JSON, as in
        `tickets.save_ticket`.

    Raises:
      ValueError: in one line that names it: an operation or a form of one that has no counterpart,
        a number that depends on the batch's size, an unknown layout, a mask that does not match the
        parameters, or more numbers than a file holds.
      UserError: the package onnx is not installed.

    >>> params = {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
    >>> mask = {"kernel": jnp.eye(2, dtype=bool)}
    >>> net, ticket = nn.Dense(2, use_bias=False), Ticket(params, {}, mask, jnp.int32(0))
    >>> model = to_onnx(net, ticket, shape=(2,))
    >>> [[one.name for one in part] for part in (model.graph.input, model.graph.output)]
    [['images'], ['logits']]
    >>> [one.name for one in model.graph.initializer]
    ['kernel']
    """
    _need_onnx()
    import onnx
    from onnx import helper

    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout '{layout}': one of {', '.join(LAYOUTS)}")
    masks.check_mask(ticket.mask, ticket.params)
    leaves = _masked_leaves(ticket)
    graph = Graph([], {}, {}, {}, "images")
    given = [
        tensor(
            graph.name("images"),
            one.dtype,
            (-1, *one.shape[1:]),
            IMAGES if layout == "NCHW" and len(one.shape) == 4 else (),
        )
        for one in nets.example_inputs(shape)
    ]
    known = [constant(path, leaf) for path, leaf in leaves.items()]
    first, second = (_trace(net, ticket, shape, batch) for batch in BATCHES)
    outputs = _walk(first, second, [*known, *given], graph)
    if (size := sum(array.nbytes for array in graph.constants.values())) > MOST_BYTES:
        raise ValueError(f"{type(net).__name__} has {size} bytes: an ONNX file holds 2 GiB at most")
    finals = [_final(graph, value) for value in outputs]
    nodes = _live(graph.nodes, finals)
    read = {name for node in nodes for name in node.input}
    onnx_graph = helper.make_graph(
        nodes,
        type(net).__name__,
        [_declared(value, value.name, value.order) for value in given],
        [_declared(v, name, range(len(v.shape))) for v, name in zip(outputs, finals, strict=True)],
        [
            onnx.numpy_helper.from_array(array, name)
            for name, array in graph.constants.items()
            if name in read
        ],
    )
    model = helper.make_model(
        onnx_graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="jaxtickets",
    )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"{type(net).__name__} makes no valid ONNX: {_one_line(error)}") from error
    metadata = {
        "format": FORMAT,
        "layout": layout,
        "leaves": canonical(_description(ticket, graph)),
        "provenance": canonical(provenance or {}),
    }
    helper.set_model_props(model, metadata)
    helper.set_model_props(model, {**metadata, "sha256": _checksum(model)})
    return model


def load_onnx(path: str | os.PathLike[str]) -> tuple[Ticket, dict[str, Any]]:
    """The ticket in a file of `save_onnx`, on the default device, and its provenance.

    The weights that the mask removed are gone: they are zero. In a leaf that had a pruned weight
    the mask keeps what is not zero; other leaves are kept whole. The rewind step is kept.

    Raises:
      UserError: in one line: there is no such file, it is no ONNX file, another program wrote it,
        it has changed since it was written, it lacks a leaf that the graph only has in another
        form, or the package onnx is not installed.

    >>> import tempfile
    >>> params = {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
    >>> mask = {"kernel": jnp.eye(2, dtype=bool)}
    >>> net, ticket = nn.Dense(2, use_bias=False), Ticket(params, {}, mask, jnp.int32(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_onnx(Path(folder, "net.onnx"), net, ticket, shape=(2,))
    ...     again, _ = load_onnx(path)
    >>> again.params["kernel"].tolist(), again.mask["kernel"].tolist()
    ([[1.0, 0.0], [0.0, 4.0]], [[True, False], [False, True]])
    """
    _need_onnx()
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import helper

    try:
        model = onnx.load_model_from_string(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error
    except (DecodeError, ValueError) as error:
        raise UserError(f"{path} is no ONNX file, or is damaged: {_one_line(error)}") from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if "sha256" not in metadata or metadata.get("format") != FORMAT:
        raise UserError(f"{path} has no checksum: it is no ONNX file that jaxtickets wrote")
    checksum = metadata.pop("sha256")
    helper.set_model_props(model, metadata)
    if _checksum(model) != checksum:
        raise UserError(f"{path} is damaged: it has changed since it was written")
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    trees: dict[str, dict[str, Any]] = {"params": {}, "stats": {}, "mask": {}}
    described = json.loads(metadata["leaves"])
    for leaf, how in described["leaves"].items():
        if how["axes"] is None:
            raise UserError(f"{path} has {leaf} only in another form")
        array = arrays[leaf].transpose(np.argsort(how["axes"])).reshape(how["shape"])
        trees[how["kind"]][leaf] = jnp.array(array)
        if how["kind"] == "params":
            bits = array != 0 if how["pruned"] else np.ones(array.shape, bool)
            trees["mask"][leaf] = jnp.array(bits)
    ticket = Ticket(
        params=nested(trees["params"]),
        stats=nested(trees["stats"]),
        mask=nested(trees["mask"]),
        rewind_step=jnp.int32(described["rewind_step"]),
    )
    return ticket, finite_or_not(json.loads(metadata["provenance"]))


def _need_onnx() -> None:
    if importlib.util.find_spec("onnx") is None:
        raise UserError("ONNX needs the package onnx: pip install 'jaxtickets[export]'")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _masked_leaves(ticket: Ticket) -> dict[str, np.ndarray]:
    """Path -> leaf, in the order of the jaxpr's arguments: the masked parameters, the statistics.

    Raises:
      ValueError: a parameter and a statistic have the same path.
    """
    params, bits, stats = flat(ticket.params), flat(ticket.mask), flat(ticket.stats)
    if both := sorted(set(params) & set(stats)):
        raise ValueError(f"{both[0]} is a parameter and a statistic: ONNX needs two names")
    masked = {path: np.where(bits[path], leaf, leaf.dtype.type(0)) for path, leaf in params.items()}
    return masked | stats


def _description(ticket: Ticket, graph: Graph) -> dict[str, Any]:
    """What `load_onnx` needs, for JSON; `axes` is None for a leaf that the graph lacks."""
    bits = flat(ticket.mask)
    leaves = {
        path: {
            "kind": kind,
            "shape": leaf.shape,
            "axes": graph.axes.get(path),
            "pruned": kind == "params" and not bool(bits[path].all()),
        }
        for kind, tree in (("params", ticket.params), ("stats", ticket.stats))
        for path, leaf in flat(tree).items()
    }
    return {"leaves": leaves, "rewind_step": int(ticket.rewind_step)}


def _checksum(model: Any) -> str:
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def _trace(net: nn.Module, ticket: Ticket, shape: Example, batch: int) -> ClosedJaxpr:
    """The net in evaluation mode on a batch of that size."""
    model = nets.functional(lax_form(net), shape)
    given = tuple(
        jax.ShapeDtypeStruct((batch, *one.shape[1:]), one.dtype)
        for one in nets.example_inputs(shape)
    )
    return jax.make_jaxpr(lambda params, stats, images: model.apply(params, stats, images)[0])(
        ticket.params, ticket.stats, given
    )


def _walk(
    first: Jaxpr | ClosedJaxpr,
    second: Jaxpr | ClosedJaxpr,
    inputs: Sequence[Tensor],
    graph: Graph,
    where: str = "",
) -> list[Tensor]:
    """The outputs of a jaxpr, traced with batches of the two sizes; writes its nodes.

    Raises:
      ValueError: as in `to_onnx`.
    """
    body, other = opened(first), opened(second)
    values: dict[Any, Tensor] = dict(zip(body.invars, inputs, strict=True))
    if isinstance(first, ClosedJaxpr) and isinstance(second, ClosedJaxpr):
        for var, one, two in zip(body.constvars, first.consts, second.consts, strict=True):
            values[var] = _number("/constant", one, two, var.aval, where or "the net")

    def of(atom: Any, twin: Any, place: str) -> Tensor:
        if isinstance(atom, Literal):
            return _number("/number", atom.val, twin.val, atom.aval, place)
        return values[atom]

    if len(body.eqns) != len(other.eqns):
        raise ValueError(f"{where or 'the net'} does other work for another batch size")
    for eqn, twin in zip(body.eqns, other.eqns, strict=True):
        module, name = module_of(eqn, where), eqn.primitive.name
        place = f"'{name}'" + (f" in {module}" if module else "")
        if name != twin.primitive.name:
            raise ValueError(f"{place} is other work for another batch size")
        atoms = [of(a, b, place) for a, b in zip(eqn.invars, twin.invars, strict=True)]
        called, called_too = called_by(eqn), called_by(twin)
        if called is not None and called_too is not None:
            outputs: Sequence[Tensor] = _walk(called, called_too, atoms, graph, module)
        elif name not in RULES:
            raise ValueError(f"{place} has no counterpart in ONNX here: see onnx_operations.RULES")
        else:
            (made,), (made_too,) = eqn.outvars, twin.outvars
            aval: Any = made.aval
            sizes = _open(shape_of(made), shape_of(made_too), place)
            call = Call(dict(eqn.params), sizes, np.dtype(aval.dtype), module)
            try:
                outputs = [RULES[name](graph, call, atoms)]
            except UnsupportedError as error:
                raise ValueError(f"{place} has no counterpart in ONNX here: it {error}") from None
        values.update(zip(eqn.outvars, outputs, strict=True))
    finals = zip(body.outvars, other.outvars, strict=True)
    return [of(a, b, where or "the net") for a, b in finals]


def _number(name: str, one: Any, two: Any, like: Any, place: str) -> Tensor:
    """A constant of the jaxpr, with the dtype of `like`; `two` is that of the other batch.

    Raises:
      ValueError: it depends on the batch's size.
    """
    array, twin = np.asarray(one, like.dtype), np.asarray(two, like.dtype)
    if array.tobytes() != twin.tobytes():
        raise ValueError(f"a number of {place} depends on the batch's size")
    return constant(name, array)


def _open(one: Sequence[int], two: Sequence[int], place: str) -> tuple[int, ...]:
    """The shape, with `-k` for sizes that are `k` times the batch.

    Raises:
      ValueError: a size grows otherwise.
    """
    sizes = []
    for a, b in zip(one, two, strict=True):
        times = b - a
        if times and a != BATCHES[0] * times:
            raise ValueError(f"{place} has a size that grows with the batch by more than a factor")
        sizes.append(-times if times else a)
    return tuple(sizes)


def _final(graph: Graph, value: Tensor) -> str:
    """Writes an output of the graph; returns its name."""
    from onnx import helper

    name = graph.name("logits")
    whole = graph.whole(value, "", range(len(value.shape)))
    graph.nodes.append(helper.make_node("Identity", [whole], [name], name=name))
    return name


def _live(nodes: Sequence[Any], finals: Sequence[str]) -> list[Any]:
    """The nodes on which the outputs depend."""
    needed, live = set(finals), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            live.append(node)
            needed.update(node.input)
    return live[::-1]


def _declared(value: Tensor, name: str, order: Sequence[int]) -> Any:
    """The name, type and shape of an input or output; sizes that grow have names."""
    from onnx import helper

    sizes = [value.shape[axis] for axis in order]
    named = [size if size >= 0 else "batch" if size == -1 else f"{-size} batch" for size in sizes]
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(name, kind, named)
