"""A net's differences between JAX and elsewhere."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from jaxtickets import masks, nets
from jaxtickets.compress import graph, shrink, unit_selection
from jaxtickets.io import onnx_export, portable, pytorch, stablehlo
from jaxtickets.nets.convolution import lax_form
from jaxtickets.types import Array, Params, Stats, Ticket

Row = dict[str, Any]


def measure(model: str, density: float, units: float, images: int, seed: int, onnx: bool) -> Row:
    """The row of a net.

    Args:
      model: the net's name.
      density: of the random mask.
      units: the share of the units that shrinking keeps in each group.
      images: the number of random images.
      seed: of weights, masks and images.
      onnx: whether onnx and onnxruntime are installed.

    Returns:
      `model`, `parameters`; the largest differences of logits, divided by the largest logit:
      `onnx_dense`, `onnx_masked`, `onnx_shrunk`, `program`; `state_dict`, the number of the
      ticket's numbers and mask bits that differ after the way to a PyTorch state dict and back;
      `portable`, the same of a safetensors file; the sizes `portable_bytes`, `onnx_bytes`,
      `shrunk_bytes`; and `seconds`.
    """
    start = time.perf_counter()
    shape = nets.image_shape(model)
    net = nets.make(model, shape=shape)
    draw = np.random.default_rng(seed)
    whole = _random_ticket(net, shape, density, draw)
    batch = draw.normal(size=(images, *shape)).astype("f")
    dense = whole._replace(mask=masks.ones(whole.params))
    ticket = _scaled(whole, density**-0.5)
    logits = _logits(net, ticket, batch)
    masked = logits(ticket, batch)
    row: Row = {"model": model, "parameters": sum(x.size for x in jax.tree.leaves(ticket.params))}
    about = {"net": nets.to_json(net)}
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "file")
        if onnx:
            small, cut = _shrunk(net, _scaled(ticket, units**-0.5), units, shape)
            row["onnx_dense"], _ = _in_onnx(net, dense, shape, batch, logits(dense, batch), file)
            row["onnx_masked"], row["onnx_bytes"] = _in_onnx(
                net, ticket, shape, batch, masked, file
            )
            fewer = _logits(small, cut, batch)(cut, batch)
            row["onnx_shrunk"], row["shrunk_bytes"] = _in_onnx(
                small, cut, shape, batch, fewer, file
            )
        stablehlo.save_program(file, net, ticket, shape, about)
        program = stablehlo.load_program(file)
        compiled = _compiled(program.apply, program.params, program.stats, batch)
        row["program"] = _difference(compiled(program.params, program.stats, batch), masked)
        portable.save_portable(file, ticket, about)
        row["portable_bytes"] = file.stat().st_size
        row["portable"] = _changed(portable.load_portable(file)[0], ticket)
    state = pytorch.to_state_dict(net, shape, ticket)
    row["state_dict"] = _changed(pytorch.from_state_dict(net, shape, state), ticket)
    return row | {"seconds": time.perf_counter() - start}


def _random_ticket(
    net: nn.Module, shape: tuple[int, ...], density: float, draw: np.random.Generator
) -> Ticket:
    """A ticket whose weights keep the scale of activations; vectors are uniform in [0.5, 1.5]."""

    def leaf(like: jax.ShapeDtypeStruct) -> Array:
        if len(like.shape) == 1:
            return draw.uniform(0.5, 1.5, like.shape).astype(like.dtype)
        scale = (2 / np.prod(like.shape[:-1])) ** 0.5
        return (scale * draw.normal(size=like.shape)).astype(like.dtype)

    init = nets.functional(lax_form(net), shape).init
    params, stats = jax.tree.map(leaf, jax.eval_shape(init, jax.random.key(0)))
    prunable = masks.prunable(params)
    bits = [draw.random(leaf.shape) < density for leaf in masks.pick(params, prunable)]
    return Ticket(params, stats, masks.put(masks.ones(params), prunable, bits), np.int32(0))


def _scaled(ticket: Ticket, factor: float) -> Ticket:
    """The ticket with weights so much larger that activations keep their scale after a cut."""
    prunable = masks.prunable(ticket.params)
    leaves = [factor * leaf for leaf in masks.pick(ticket.params, prunable)]
    return ticket._replace(
        params=masks.put(ticket.params, prunable, [leaf.astype("f") for leaf in leaves])
    )


def _compiled(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """A function of arguments of these shapes, compiled in little time on a CPU."""
    fast: Any = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    return jax.jit(function).lower(*arguments).compile(fast)


def _logits(net: nn.Module, ticket: Ticket, images: Array) -> Callable[..., Array]:
    """`logits(ticket, images)` of the masked net, for tickets and images of these shapes."""
    model = nets.functional(lax_form(net), images.shape[1:])

    def logits(params: Params, stats: Stats, images: Array) -> Array:
        return model.apply(params, stats, images)[0]

    with jax.default_matmul_precision("highest"):
        compiled = _compiled(logits, ticket.params, ticket.stats, images)
    return lambda ticket, images: compiled(
        masks.apply(ticket.mask, ticket.params), ticket.stats, images
    )


def _shrunk(
    net: nn.Module, ticket: Ticket, share: float, shape: tuple[int, ...]
) -> tuple[nn.Module, Ticket]:
    """The net and its ticket without the units of the smallest L1 norms."""
    traced = graph.trace(net, shape)
    norms = {}
    for group in traced.wiring:
        (kernel,) = masks.pick(ticket.params, (graph.kernel_of(traced, group.producers[0]),))
        norms[group.name] = np.abs(kernel).sum(tuple(range(kernel.ndim - 1)))
    units = unit_selection.by_layer(traced, norms, density=share)
    small, cut, _ = shrink.shrink(net, ticket, units, traced)
    return small, cut


def _in_onnx(
    net: nn.Module,
    ticket: Ticket,
    shape: tuple[int, ...],
    images: Array,
    expected: Array,
    file: Path,
) -> tuple[float, int]:
    """The difference in onnxruntime, and the bytes of the ONNX file."""
    import onnxruntime

    onnx_export.save_onnx(file, net, ticket, shape, "NCHW", {"net": nets.to_json(net)})
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"images": images.transpose(0, 3, 1, 2)})
    return _difference(found, expected), file.stat().st_size


def _difference(found: Array, expected: Array) -> float:
    """The largest difference, divided by the largest logit."""
    expected = np.asarray(expected)
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


def _changed(found: Ticket, ticket: Ticket) -> int:
    """How many numbers and mask bits differ."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(ticket), strict=True)
    return sum(int((np.asarray(a) != np.asarray(b)).sum()) for a, b in pairs)
