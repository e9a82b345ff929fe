"""A ticket in one safetensors file, which other frameworks and languages read without JAX.

    save_portable("ticket.safetensors", ticket, {"net": nets.to_json(net)})
    ticket, provenance = load_portable("ticket.safetensors")
    net = nets.from_json(provenance["net"])

The arrays are

    params/conv1/kernel    a leaf of the parameters, in the net's own layout
    stats/bn1/mean         a leaf of the batch statistics
    mask/conv1/kernel      uint8, the leaf's mask in bits, in the order of the flattened leaf, the
                           first weight in the highest bit of the first byte; as `numpy.packbits`

and the metadata `format`, `rewind_step`, `provenance` (JSON, with the net as `net`) and `sha256`,
see `safetensor_files`. For PyTorch's names and layouts see `pytorch`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.io import safetensor_files
from jaxtickets.io.errors import UserError
from jaxtickets.io.files import canonical, finite_or_not
from jaxtickets.io.nested_dicts import flat, nested
from jaxtickets.io.trees import pack_bits, unpack_bits
from jaxtickets.types import Ticket

FORMAT = "jaxtickets ticket 1"


def save_portable(
    path: str | os.PathLike[str], ticket: Ticket, provenance: Mapping[str, Any]
) -> Path:
    """Saves a ticket in one file; replaces an existing one.

    Args:
      path: the file, `*.safetensors` by convention.
      ticket: its trees are nested dicts with string keys that are not empty and have no slash.
      provenance: what the arrays do not say, in the types of JSON, as in `tickets.save_ticket`.

    Returns:
      The path.

    Raises:
      ValueError: the mask does not match the parameters, the trees are not such dicts, or a leaf
        has a dtype that the format lacks.
      OSError: it cannot be written; an existing file stays.

    >>> import tempfile
    >>> params = {"kernel": np.array([[0.5, 2.0]], "float32")}
    >>> ticket = Ticket(params, {}, {"kernel": np.array([[False, True]])}, rewind_step=np.int32(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_portable(Path(folder, "ticket.safetensors"), ticket, {"seed": 3})
    ...     again, provenance = load_portable(path)
    >>> again.params["kernel"].tolist(), again.mask["kernel"].tolist(), provenance
    ([[0.5, 2.0]], [[False, True]], {'seed': 3})
    """
    masks.check_mask(ticket.mask, ticket.params)
    bits = {path: pack_bits(leaf) for path, leaf in flat(ticket.mask).items()}
    arrays = {
        f"{kind}/{path}": array
        for kind, leaves in (
            ("params", flat(ticket.params)),
            ("stats", flat(ticket.stats)),
            ("mask", bits),
        )
        for path, array in leaves.items()
    }
    metadata = {
        "format": FORMAT,
        "rewind_step": str(int(ticket.rewind_step)),
        "provenance": canonical(provenance),
    }
    return safetensor_files.write(Path(path), arrays, metadata)


def load_portable(path: str | os.PathLike[str]) -> tuple[Ticket, dict[str, Any]]:
    """The ticket in a file, on the default device, and its provenance.

    Raises:
      UserError: in one line: there is no such file, it is damaged, or it holds no ticket.

    >>> import tempfile
    >>> params = {"kernel": np.array([[0.5, 2.0]], "float32")}
    >>> ticket = Ticket(params, {}, {"kernel": np.array([[False, True]])}, rewind_step=np.int32(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_portable(Path(folder, "ticket.safetensors"), ticket, {"seed": 3})
    ...     again, provenance = load_portable(path)
    >>> again.params["kernel"].tolist(), again.mask["kernel"].tolist(), provenance
    ([[0.5, 2.0]], [[False, True]], {'seed': 3})
    """
    arrays, metadata = safetensor_files.read(path)
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} holds no ticket, but '{metadata.get('format')}'")
    kinds: dict[str, dict[str, np.ndarray]] = {"params": {}, "stats": {}, "mask": {}}
    for name, array in arrays.items():
        kind, _, leaf = name.partition("/")
        kinds[kind][leaf] = array
    params = kinds["params"]
    mask = {leaf: unpack_bits(bits, params[leaf].shape) for leaf, bits in kinds["mask"].items()}
    ticket = Ticket(
        params=nested(params),
        stats=nested(kinds["stats"]),
        mask=nested(mask),
        rewind_step=np.int32(metadata["rewind_step"]),
    )
    return jax.tree.map(jnp.array, ticket), finite_or_not(json.loads(metadata["provenance"]))
