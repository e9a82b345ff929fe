"""Splits a batch that is too large for memory into parts. A finished part is never repeated."""

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
"""The memory of one run's training, in copies of its parameters: the state, the moments, the early
stop, the mask, and temporaries while batches are split, joined and saved. Measured."""
EVALUATION_COPIES = 10
"""The memory of one run's evaluation, in the same unit."""


def batches_left(
    folder: Path, phase: str, axis: Axis, entries: Sequence[E], params: Params, most: int = 0
) -> tuple[list[dict[str, Any]], list[tuple[str, Sequence[E]]]]:
    """The rows of the entries that are already trained, and the parts that are left to train.

    A part is a whole number of the axis' blocks, so its numbers are the same as in one large batch.
    Each part is a phase of its own: `PHASE-00`, `PHASE-01`, ... The size of a part depends on the
    number of devices, which may change when a run is resumed. Finished rows therefore belong to the
    first entries, however these were split, and an unfinished part with another number of entries
    starts again.

    Args:
      folder: the run's folder.
      phase: the prefix of the parts' names.
      axis: the run axis.
      entries: everything that is to be trained.
      params: the parameters of one entry, for their size.
      most: entries in a part; 0: as many as take about `BYTES` of memory.

    Returns:
      The rows that `finish` has written, which belong to the first entries; and the name and the
      entries of each part that is left.
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
    """Writes a finished part's rows, which mark it as finished, and removes its checkpoints."""
    rows.append_metrics(folder, *({"phase": f"{name}-rows", **row} for row in done))
    shutil.rmtree(folder / "checkpoints" / name, ignore_errors=True)


def _forget_others(place: Path, count: int) -> None:
    """Removes the checkpoints of a part unless they hold `count` trainings."""
    for path in place.glob(f"*/{trees.MANIFEST}"):
        try:
            leaves = trees.read_manifest(path.parent)["leaves"]
        except trees.DamagedError:
            continue  # `restore` reports it
        if leaves[0]["shape"][0] != count:
            shutil.rmtree(place)
            return


def fitting(params: Params, axis: Axis, copies: int, asked: int = 0) -> int:
    """How many runs fit into memory at a time, rounded down to whole turns of the axis.

    Args:
      params: the parameters of one run.
      axis: the run axis.
      copies: the memory of one run, in copies of `params`.
      asked: the number of runs to round instead of the number that fits; 0: the latter.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    unit = runs.turn(axis)
    return unit * max(1, (asked or int(BYTES / (copies * size))) // unit)
