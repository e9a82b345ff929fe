"""Tickets of other runs, found by their folders and checked against the net at hand."""

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
"""What a net's description says of its first weights, which a ticket brings along."""
LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class Saved(NamedTuple):
    """A ticket of another run, and what is said of it: method, density, seed."""

    name: dict[str, Any]
    ticket: Ticket


def find_saved(patterns: Sequence[str], problem: Problem) -> tuple[tuple[str, ...], list[Saved]]:
    """The tickets that patterns name: label, folder and digest of each, and themselves.

    Args:
      patterns: `PATTERN` or `LABEL=PATTERN`, of folders.
      problem: the net that they must be of.

    Raises:
      UserError: a pattern names none, a label can't be one, two tickets can't be told apart, or
        a ticket is damaged or of another net; the message names it.
    """
    places: list[str] = []
    found: dict[tuple, Saved] = {}
    for given in patterns:
        label, parted, pattern = given.partition("=")
        if not parted or "/" in label:
            label, pattern = "", given
        elif not LABEL.fullmatch(label) or label in (*criteria.CRITERIA, "dense"):
            raise UserError(f"--tickets={given}: '{label}' can't name tickets: give another label")
        folders = sorted(glob.glob(pattern))
        if not folders:
            raise UserError(f"--tickets={given}: there is no such folder")
        for folder in folders:
            one = _load(Path(folder), label, problem)
            if (key := tuple(one.name.values())) in found:
                raise UserError(
                    f"--tickets={given}: {folder} is {words(one.name)}, and so is another: "
                    "give one run at a time, each with its LABEL="
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
        raise UserError(f"{folder} is a ticket for images of another size, --dataset doesn't fit")
    if tuple(provenance.get("prunable", ())) != problem.prunable:
        raise UserError(f"{folder}: other layers are pruned there, see --prune_output")
    number = provenance.get("seed")
    if not isinstance(number, int):
        raise UserError(f"{folder} doesn't say its seed: it can't be compared")
    density = round(float(masks.density(ticket.mask, problem.prunable)), 6)
    method = label or provenance.get("method", "ticket")
    return Saved({"method": method, "density": density, "seed": number}, ticket)


def words(name: dict[str, Any]) -> str:
    """What a ticket is called in messages."""
    return f"{name['method']} at {name['density']:g}, seed {name['seed']}"
