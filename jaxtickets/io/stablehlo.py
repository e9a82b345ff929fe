"""A net and its ticket as a compiled program's source, which JAX runs without the net's code.

    save_program("lenet5.program", net, ticket, (28, 28, 1))
    program = load_program("lenet5.program")
    logits = program.apply(program.params, program.stats, images)

The file is a safetensors file (see `safetensor_files`) with the masked parameters, the statistics,
and as `program` the bytes of `jax.export`: StableHLO for all platforms, in which the first axis of
the inputs is open. The numbers stand beside the program, not in it: a program with millions of
constants takes long to compile. JAX runs programs of earlier versions for six months at least
(docs.jax.dev, "Exporting and serializing").
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import export

from jaxtickets import masks, nets
from jaxtickets.io import safetensor_files
from jaxtickets.io.errors import UserError
from jaxtickets.io.files import canonical, finite_or_not
from jaxtickets.io.nested_dicts import flat, nested
from jaxtickets.nets.convolution import lax_form
from jaxtickets.nets.functional import Example
from jaxtickets.types import Array, Model, Params, Stats, Ticket

FORMAT = "jaxtickets program 1"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def save_program(
    path: str | os.PathLike[str],
    net: nn.Module | Model,
    ticket: Ticket,
    shape: Example,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the masked net in evaluation mode as a program; replaces an existing file.

    Args:
      path: the file.
      net: any flax module, or a model of `nets.functional` and its siblings, that works with a
        batch whose size is a symbol.
      ticket: the net's ticket.
      shape: the input for one example, such as `(h, w, c)`, see `nets.functional`.
      provenance: as in `tickets.save_ticket`.

    Raises:
      ValueError: in one line: the mask does not match the parameters, the trees are not nested
        dicts, or the net needs to know the batch's size.
      OSError: it cannot be written; an existing file stays.

    >>> import tempfile
    >>> params, mask = {"kernel": jnp.ones((2, 2))}, {"kernel": jnp.eye(2, dtype=bool)}
    >>> ticket = Ticket(params, {}, mask, rewind_step=jnp.int32(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "dense.program")
    ...     path = save_program(path, nn.Dense(2, use_bias=False), ticket, shape=(2,))
    ...     program = load_program(path)
    >>> program.apply(program.params, program.stats, jnp.array([[3.0, 4.0]])).tolist()
    [[3.0, 4.0]]
    """
    masks.check_mask(ticket.mask, ticket.params)
    params = masks.apply(ticket.mask, ticket.params)
    model = nets.as_model(lax_form(net), shape)
    (batch,) = export.symbolic_shape("batch")
    given = tuple(
        jax.ShapeDtypeStruct((batch, *one.shape[1:]), one.dtype)
        for one in nets.example_inputs(shape)
    )

    def apply(params: Params, stats: Stats, images: Any) -> Any:
        return model.apply(params, stats, images if len(images) > 1 else images[0])[0]

    try:
        program = export.export(jax.jit(apply), platforms=PLATFORMS)(params, ticket.stats, given)
    except (TypeError, ValueError, NotImplementedError, jax.errors.JAXTypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{type(net).__name__} can't be exported with an open batch: {reason}"
        ) from error
    arrays = {f"params/{path}": leaf for path, leaf in flat(params).items()}
    arrays |= {f"stats/{path}": leaf for path, leaf in flat(ticket.stats).items()}
    arrays["program"] = np.frombuffer(program.serialize(), np.uint8)
    metadata = {"format": FORMAT, "provenance": canonical(provenance or {})}
    return safetensor_files.write(Path(path), arrays, metadata)


class Program(NamedTuple):
    """A net that was exported.

    Attributes:
      apply: `apply(params, stats, *images) -> logits` for `images[n, h, w, c]` of any `n`, also
        under `jax.jit`.
      params: the masked parameters.
      stats: the batch statistics.
      provenance: what the file says of the ticket.
    """

    apply: Callable[..., Array]
    params: Params
    stats: Stats
    provenance: dict[str, Any]


def load_program(path: str | os.PathLike[str]) -> Program:
    """The program in a file, with its numbers on the default device.

    Raises:
      UserError: in one line: there is no such file, it is damaged, it holds no program, or this
        version of JAX cannot read it.

    >>> import tempfile
    >>> params, mask = {"kernel": jnp.ones((2, 2))}, {"kernel": jnp.eye(2, dtype=bool)}
    >>> ticket = Ticket(params, {}, mask, rewind_step=jnp.int32(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "dense.program")
    ...     path = save_program(path, nn.Dense(2, use_bias=False), ticket, shape=(2,))
    ...     program = load_program(path)
    >>> program.apply(program.params, program.stats, jnp.array([[3.0, 4.0]])).tolist()
    [[3.0, 4.0]]
    """
    arrays, metadata = safetensor_files.read(path)
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} holds no program, but '{metadata.get('format')}'")
    try:
        exported = export.deserialize(bytearray(arrays.pop("program").tobytes()))
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: JAX {jax.__version__} can't read it: {reason}") from error
    kinds: dict[str, dict[str, Array]] = {"params": {}, "stats": {}}
    for name, array in arrays.items():
        kind, _, leaf = name.partition("/")
        kinds[kind][leaf] = jnp.array(array)

    def apply(params: Params, stats: Stats, *images: Array) -> Array:
        return exported.call(params, stats, images)

    return Program(
        apply=apply,
        params=nested(kinds["params"]),
        stats=nested(kinds["stats"]),
        provenance=finite_or_not(json.loads(metadata["provenance"])),
    )
