"""Tickets on disk: a folder that can be loaded without a template.

    ticket, provenance = load_ticket("runs/.../tickets/seed0")
    net = nets.from_json(provenance["net"])

The manifest's `info` (see `trees`) holds the tree's `structure` and the `provenance`.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.io import trees
from jaxtickets.io.errors import UserError
from jaxtickets.io.files import finite_or_not, remove
from jaxtickets.types import Ticket


def save_ticket(
    folder: str | os.PathLike[str], ticket: Ticket, provenance: Mapping[str, Any]
) -> Path:
    """Saves a ticket; replaces an existing one.

    Args:
      folder: the ticket's own folder.
      ticket: its trees are nested dicts with string keys.
      provenance: what the arrays do not say, in the types of JSON: the net's JSON as `net`, the
        data set, method, density, seed and whatever else the experiment records.

    Returns:
      The folder.

    Raises:
      ValueError: the mask does not match the parameters, or the trees are not nested dicts.
      OSError: it cannot be written; an existing ticket stays.

    >>> import tempfile
    >>> params = {"kernel": np.array([[0.5, 2.0]], "float32")}
    >>> ticket = Ticket(params, {}, {"kernel": np.array([[False, True]])}, rewind_step=np.int32(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_ticket(Path(folder, "seed3"), ticket, {"seed": 3})
    ...     again, provenance = load_ticket(path)
    >>> again.params["kernel"].tolist(), again.mask["kernel"].tolist(), provenance
    ([[0.5, 2.0]], [[False, True]], {'seed': 3})
    """
    folder = Path(folder)
    structure = _structure(ticket)
    mine = f".{folder.name}.{os.getpid()}"  # another process may save the same ticket
    new, old = (folder.with_name(f"{mine}.{word}") for word in ("new", "old"))
    for left in (new, old):
        remove(left)
    trees.write(new, ticket, {"structure": structure, "provenance": provenance})
    if folder.exists():
        with contextlib.suppress(FileNotFoundError):
            os.replace(folder, old)
    os.replace(new, folder)
    remove(old)
    return folder


def load_ticket(folder: str | os.PathLike[str]) -> tuple[Ticket, dict[str, Any]]:
    """A ticket, on the default device, and its provenance.

    Raises:
      UserError: there is no ticket, or it is damaged.

    >>> import tempfile
    >>> params = {"kernel": np.array([[0.5, 2.0]], "float32")}
    >>> ticket = Ticket(params, {}, {"kernel": np.array([[False, True]])}, rewind_step=np.int32(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_ticket(Path(folder, "seed3"), ticket, {"seed": 3})
    ...     again, provenance = load_ticket(path)
    >>> again.params["kernel"].tolist(), again.mask["kernel"].tolist(), provenance
    ([[0.5, 2.0]], [[False, True]], {'seed': 3})
    """
    folder = Path(folder)
    if not trees.is_complete(folder):
        raise UserError(f"no ticket in {folder}")
    try:
        manifest = trees.read_manifest(folder)
        arrays = [jnp.array(array) for array in trees.read_arrays(folder, manifest)]
    except trees.DamagedError as error:
        raise UserError(f"the ticket in {folder} is damaged: {error}") from error
    info = manifest["info"]
    if "structure" not in info:
        raise UserError(f"{folder} holds a checkpoint, not a ticket")
    return Ticket(**_fill(info["structure"], arrays)), finite_or_not(info["provenance"])


def _structure(ticket: Ticket) -> dict[str, Any]:
    """The ticket as nested dicts, with the index of each leaf in its place."""
    masks.check_mask(ticket.mask, ticket.params)
    leaves, treedef = jax.tree.flatten(ticket)
    numbers = jax.tree.unflatten(treedef, range(len(leaves)))
    structure = numbers._asdict()
    if Ticket(**_fill(structure, range(len(leaves)))) != numbers:
        raise ValueError("a ticket's trees must be nested dicts with string keys")
    return structure


def _fill(structure: Any, leaves: Sequence[Any]) -> Any:
    if isinstance(structure, dict):
        return {str(name): _fill(item, leaves) for name, item in structure.items()}
    if not isinstance(structure, int):
        raise ValueError(f"a ticket's trees must be nested dicts, not {type(structure).__name__}")
    return leaves[structure]
