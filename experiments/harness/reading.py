"""Reads photographs from disk while devices compute, and places them where runs are."""

import json
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments.harness import setup
from experiments.harness.flags import RunSettings
from experiments.harness.photographs import Photographs
from jaxtickets import runs
from jaxtickets.data import examples, stream
from jaxtickets.data.stream import PADDING, Stream
from jaxtickets.io import processes
from jaxtickets.io.files import pretty, write_atomically
from jaxtickets.runs import Axis, Shared
from jaxtickets.types import Split

PARTS = TRAIN, VALIDATION, TEST = ("train", "validation", "test")
STREAM, SKIPPED = "stream.json", "skipped.json"
"""Files of a run's folder: what its batches are; and part -> the numbers of corrupt examples."""


class Reader(NamedTuple):
    """How photographs are read, and those that are read once only.

    Attributes:
      threads, workers: see `stream.batches`.
      bytes: the most bytes of images that are placed at a time.
      kept: part -> its examples on the lanes, for evaluations on so few that they are kept there.
    """

    threads: int
    workers: int
    bytes: int
    kept: dict[str, Shared]


class Piece(NamedTuple):
    """Batches on the lanes of an axis.

    Attributes:
      split: `[batches, b, ...]`.
      valid: bool`[batches, b]`; see `stream.Batch`.
    """

    split: Split
    valid: np.ndarray


def reader(folder: Path, place: RunSettings, axis: Axis, photographs: Photographs) -> Reader:
    """Checks that the run's batches are the same as ever, and reads small evaluation sets.

    Args:
      folder: the run's folder, where `stream.json` is written, or compared if the run is resumed.
      place: the threads, processes and bytes.
      axis: the axis of the runs.
      photographs: the batches.

    Raises:
      DataError: the run's earlier batches were others, or another process's are; or an image is
        corrupt, and corrupt ones are not to be skipped.
    """
    examples.check_same(photographs.training.examples.name, processes.of_each(photographs.digest))
    path, streams = folder / STREAM, dict(zip(PARTS, photographs, strict=True))
    if path.exists():
        saved = json.loads(path.read_text("utf-8"))
        for name, one in streams.items():
            stream.resumed(one, saved[name])
    else:
        states = {name: stream.state(one, 0) for name, one in streams.items()}
        write_atomically(path, pretty(states))
    made = Reader(
        threads=place.threads or setup.cores(),
        workers=place.data_workers,
        bytes=10**6 * place.input_megabytes,
        kept={},
    )
    few = {
        name: pieces[0]
        for name, one in streams.items()
        if name != TRAIN and len(pieces := evaluation_pieces(made, one)) == 1
    }
    return made._replace(
        kept={
            name: next(read(folder, made, name, photographs, [piece], axis))
            for name, piece in few.items()
        }
    )


def most_steps(reader: Reader, one: Stream) -> int:
    """How many batches are placed at a time, at most."""
    return max(1, reader.bytes // (one.batch_size * 3 * one.size**2))


def evaluation_pieces(reader: Reader, one: Stream) -> list[tuple[int, int]]:
    """The first batch of each piece of an evaluation, and the one after the last: equal pieces.

    The last piece may reach past the end of the examples; `read` fills it up.
    """
    total = one.steps_per_epoch
    length = -(-total // -(-total // most_steps(reader, one)))
    return [(first, first + length) for first in range(0, total, length)]


def read(
    folder: Path,
    reader: Reader,
    part: str,
    photographs: Photographs,
    pieces: Sequence[tuple[int, int]],
    axis: Axis,
) -> Generator[Shared, None, None]:
    """The pieces, each a `Piece` on the lanes; the next is read while one is used.

    Args:
      folder: the run's folder, where the numbers of skipped examples are noted.
      reader: how they are read.
      part: one of `PARTS`.
      photographs: the batches.
      pieces: the first batch of each piece, and the one after its last; each continues the one
        before. Batches past an evaluation's end hold no example.
      axis: the axis of the runs.
    """
    one = dict(zip(PARTS, photographs, strict=True))[part]
    start, stop = pieces[0][0], pieces[-1][1]
    last = stop if part == TRAIN else min(stop, one.steps_per_epoch)
    batches = stream.batches(
        one, start, last, reader.threads, reader.workers, ahead=2 * reader.threads
    )

    def piece(steps: int) -> tuple[Shared, list[int]]:
        stacked = next(stream.chunks(batches, steps))
        missing = steps - len(stacked.labels)
        bad = stacked.indices[~stacked.valid & (stacked.indices != PADDING)]
        placed = Piece(Split(stacked.images, stacked.labels), stacked.valid)
        if missing:
            placed = jax.tree.map(lambda leaf: np.pad(leaf, _after(leaf, missing)), placed)
        shared = runs.share(placed, axis, examples=1)
        return shared, sorted({int(index) for index in bad})

    lengths = [after - before for before, after in pieces]
    with ThreadPoolExecutor(1) as pool:
        try:
            coming = pool.submit(piece, lengths[0])
            for length in [*lengths[1:], 0]:
                shared, skipped = coming.result()
                if length:
                    coming = pool.submit(piece, length)
                if skipped:
                    note_skipped(folder, part, skipped)
                yield shared
        finally:
            coming.cancel()
            pool.shutdown()
            batches.close()  # type: ignore[attr-defined]


def _after(leaf: np.ndarray, rows: int) -> list[tuple[int, int]]:
    """Widths for `np.pad`: so many rows after the last."""
    return [(0, rows), *[(0, 0)] * (leaf.ndim - 1)]


def note_skipped(folder: Path, part: str, numbers: Sequence[int]) -> None:
    """Adds examples of a part to those that were skipped so far."""
    found = skipped(folder)
    found[part] = sorted({*found.get(part, ()), *numbers})
    write_atomically(folder / SKIPPED, pretty(found))


def all_skipped(folder: Path) -> dict[str, int]:
    """Part -> how many of its examples were skipped, in a run's folder and those in it."""
    found: dict[str, set[int]] = {}
    for path in folder.rglob(SKIPPED):
        for part, numbers in skipped(path.parent).items():
            found.setdefault(part, set()).update(numbers)
    return {part: len(numbers) for part, numbers in found.items()}


def skipped(folder: Path) -> dict[str, list[int]]:
    """Part -> the numbers of the corrupt examples that were skipped in the run so far."""
    path = folder / SKIPPED
    found: dict[str, list[int]] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found
