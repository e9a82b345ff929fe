"""Loads saved tickets of other runs and checks that they fit the net."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.harness.problem import Problem
from jaxtickets import criteria, masks, nets
from jaxtickets.io import tickets, trees
from jaxtickets.io.errors import UserError
from jaxtickets.io.files import digest
from jaxtickets.types import Ticket

FIRST_WEIGHTS = {"initializer": None}
"""The fields of a net's description that don't matter, since a ticket has its own weights."""
LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class Saved(NamedTuple):
    """A saved ticket of another run.

    Attributes:
      name: its fields in rows: method, density, seed.
      ticket: the ticket, unbatched.
    """

    name: dict[str, Any]
    ticket: Ticket


def find_saved(
    patterns: Sequence[str], problem: Problem, flag: str = "tickets"
) -> tuple[tuple[str, ...], list[Saved]]:
    """Loads the tickets that match patterns.

    Args:
      patterns: glob patterns of folders, `PATTERN` or `LABEL=PATTERN`.
      problem: the net that the tickets must be of.
      flag: the name of the patterns' flag.

    Returns:
      `LABEL=FOLDER DIGEST` of each ticket, for the spec; and the tickets.

    Raises:
      UserError: a pattern matches no folder, a label isn't allowed, two tickets have the same name,
        or a ticket is damaged or of another net. The message names it.
    """
    places: list[str] = []
    found: dict[tuple, Saved] = {}
    for given in patterns:
        label, parted, pattern = given.partition("=")
        if not parted or "/" in label:
            label, pattern = "", given
        elif not LABEL.fullmatch(label) or label in (*criteria.CRITERIA, "dense"):
            raise UserError(f"--{flag}={given}: '{label}' can't be a label: choose another")
        folders = sorted(glob.glob(pattern))
        if not folders:
            raise UserError(f"--{flag}={given}: there is no such folder")
        for folder in folders:
            one = _load(Path(folder), label, problem)
            if (key := tuple(one.name.values())) in found:
                raise UserError(
                    f"--{flag}={given}: {folder} is {words(one.name)}, as is another ticket: "
                    "give each run its own LABEL="
                )
            found[key] = one
            places.append(f"{label}={folder} {digest(trees.read_manifest(Path(folder)))[:12]}")
    return tuple(places), list(found.values())


def _load(folder: Path, label: str, problem: Problem) -> Saved:
    ticket, provenance = tickets.load_ticket(folder)
    net = nets.to_json(problem.net)
    theirs = provenance.get("net") or {}
    if {**theirs, **FIRST_WEIGHTS} != {**net, **FIRST_WEIGHTS}:
        raise UserError(f"{folder} is a ticket of {provenance.get('net')}, not of {net}")
    params = problem.param_shapes
    if jax.tree.map(np.shape, ticket.params) != jax.tree.map(np.shape, params):
        raise UserError(f"{folder} is a ticket for images of another size: change --dataset")
    if tuple(provenance.get("prunable", ())) != problem.prunable:
        raise UserError(f"{folder} prunes other layers: see --prune_output")
    number = provenance.get("seed")
    if not isinstance(number, int):
        raise UserError(f"{folder} has no seed in its provenance, so it can't be compared")
    density = round(float(masks.density(ticket.mask, problem.prunable)), 6)
    method = label or provenance.get("method", "ticket")
    return Saved({"method": method, "density": density, "seed": number}, ticket)


def words(name: dict[str, Any]) -> str:
    """The name of a ticket in messages."""
    return f"{name['method']} at {name['density']:g}, seed {name['seed']}"
