"""Batches too large for memory: in parts, each done once and for all, whatever the devices."""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax

from experiments.harness import rows
from jaxtickets import runs
from jaxtickets.io import trees
from jaxtickets.runs import Axis
from jaxtickets.types import Params

E = TypeVar("E")

BYTES = 3e9
COPIES = 40
"""What a run's training takes, in copies of its parameters: state, moments, early stop, mask, and
what is in flight while batches are cut, joined and saved; measured."""
EVALUATION_COPIES = 10
"""The same of its evaluation."""


def batches_left(
    folder: Path, phase: str, axis: Axis, entries: Sequence[E], params: Params, most: int = 0
) -> tuple[list[dict[str, Any]], list[tuple[str, Sequence[E]]]]:
    """What was trained before, and what is left to train, in parts that fit into memory.

    A part is a whole number of the axis' blocks, so that the numbers are those of one batch. Each
    is a phase of its own, `PHASE-00` and so on, done once and for all. How large it is depends on
    the number of devices, and so may change from one session of a run to the next: rows are those
    of the first entries, in whatever parts they were trained, and a part that was begun with
    another number of entries begins anew.

    Args:
      folder: the run's.
      phase: what the phases' names begin with.
      axis: the run axis.
      entries: what is to be trained.
      params: of one of them, for its size.
      most: entries of a part; 0: what takes about `BYTES`.

    Returns:
      The rows that `finish` has written, of the first entries; and name and entries of each
      part that is missing.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows.read_metrics(folder):
        if re.fullmatch(rf"{re.escape(phase)}-\d+-rows", row["phase"]):
            found.setdefault(row.pop("phase").removesuffix("-rows"), []).append(row)
    for name in found:
        shutil.rmtree(folder / "checkpoints" / name, ignore_errors=True)
    made = [row for mine in found.values() for row in mine]
    if len(made) == len(entries):
        return made, []
    most = fitting(params, axis, COPIES, most)
    missing = []
    for number, start in enumerate(range(len(made), len(entries), most), start=len(found)):
        name, mine = f"{phase}-{number:02d}", entries[start : start + most]
        _forget_others(folder / "checkpoints" / name, len(mine))
        missing.append((name, mine))
    return made, missing


def finish(folder: Path, name: str, done: Sequence[Mapping[str, Any]]) -> None:
    """Keeps a part's rows, by which it is known to be finished, and drops its state."""
    rows.append_metrics(folder, *({"phase": f"{name}-rows", **row} for row in done))
    shutil.rmtree(folder / "checkpoints" / name, ignore_errors=True)


def _forget_others(place: Path, count: int) -> None:
    """Removes checkpoints that aren't of so many trainings."""
    for path in place.glob(f"*/{trees.MANIFEST}"):
        try:
            leaves = trees.read_manifest(path.parent)["leaves"]
        except trees.DamagedError:
            continue  # `restore` says so
        if leaves[0]["shape"][0] != count:
            shutil.rmtree(place)
            return


def fitting(params: Params, axis: Axis, copies: int, asked: int = 0) -> int:
    """How many runs of so many copies of `params` fit into memory, in whole turns of the axis.

    Args:
      params: of one run.
      axis: the run axis.
      copies: what a run takes.
      asked: in place of what fits; 0: that.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    unit = runs.turn(axis)
    return unit * max(1, (asked or int(BYTES / (copies * size))) // unit)
