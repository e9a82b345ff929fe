"""A store of trained dense nets, so that experiments and criteria share them."""

import dataclasses
import hashlib
import importlib.metadata
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.harness import setup, source
from experiments.harness.flags import StoreSettings
from experiments.harness.problem import Problem
from experiments.harness.seeds import Seed, training_key
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry, save_entry, train_entries, untrained_rows
from experiments.harness.training_runs import Start
from experiments.harness.training_settings import TrainSettings
from jaxtickets import masks, nets, runs
from jaxtickets.io import processes, tickets
from jaxtickets.io.errors import UserError
from jaxtickets.io.files import digest, pretty, write_atomically
from jaxtickets.types import Params, Split, Stats, Ticket

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


class Dense(NamedTuple):
    """Trained dense nets, one for each seed.

    Attributes:
      params, stats: the trained nets, with a leading axis of seeds.
      summary: a row of `train_entries` for each net.
      places: seed number -> the folder of its ticket.
    """

    params: Params
    stats: Stats
    summary: list[dict[str, Any]]
    places: dict[int, Path]


def dense_nets(session: Session, training: TrainSettings, store: StoreSettings) -> Dense:
    """The trained dense net of each seed: loaded from the store, or trained and stored there.

    A stored net is used if everything that decides its numbers is the same: net, data, training,
    seed, the batching of runs, the kind of device, the versions of the packages, and the code in
    `source.TRAINING`. `dense.json` in the run's folder lists the tickets that were used.

    Args:
      session: the net, its recipe, and the seeds.
      training: the settings that the problem was built from.
      store: the folder of tickets, which are named by digest.

    Raises:
      UserError: a net must be trained, and the store can't be written.
    """
    problem, axis, seeds = session.problem, session.axis, session.seeds
    context = {
        "net": nets.to_json(problem.net),
        "dataset": problem.dataset.name,
        "data": _digest(problem),
        "training": dataclasses.asdict(training),
        "axis": [axis.mode, axis.width, *[len(axis.devices)] * (axis.mode == runs.DATA)],
        "precision": [
            str(jax.config.jax_default_matmul_precision),  # type: ignore[attr-defined]
            problem.activations,
        ],
        "device": [axis.devices[0].device_kind, setup.cpu_model()],
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "code": source.training_code(),
    }
    home = processes.own(Path(store.dense_store))
    hashes = [digest({**context, "seed": one.number})[:16] for one in seeds]
    for one_hash in hashes:
        _copy(Path(store.dense_store) / "tickets" / one_hash)
    found = {i: one for i, name in enumerate(hashes) if (one := _load(home, name))}
    if found:
        print(f"{len(found)} of {len(seeds)} dense nets are loaded from {home}")
    missing = [i for i in range(len(seeds)) if i not in found]
    if missing:
        processes.told(lambda: _check_store(store))
        entries = [dense_entry(problem, seeds[i]) for i in missing]
        phase = f"dense-{digest([hashes[i] for i in missing])[:8]}"
        ends, made = train_entries(session, phase, entries)
        for at, (i, row) in enumerate(zip(missing, made, strict=True)):
            params, stats = runs.take((ends.state.params, ends.state.stats), at)
            end = entries[at].start._replace(params=params, stats=stats)
            learnt = {name: value for name, value in row.items() if name in TRAINED}
            name = entries[at].name | {"trained": learnt, "context": context}
            save_entry(home, problem, Entry(name, end), problem.steps, hashes[i])
            found[i] = tickets.load_ticket(home / "tickets" / hashes[i])
    places = {one.number: home / "tickets" / h for one, h in zip(seeds, hashes, strict=True)}
    used = {str(number): str(place) for number, place in places.items()}
    write_atomically(session.folder / "dense.json", pretty(used))
    ordered = [found[i] for i in range(len(seeds))]
    params, stats = runs.stack([(ticket.params, ticket.stats) for ticket, _ in ordered])
    first = untrained_rows(session, [dense_entry(problem, one) for one in seeds])
    rows = [row | facts["trained"] for row, (_, facts) in zip(first, ordered, strict=True)]
    return Dense(params, stats, rows, places)


TRAINED = (
    *("trained_accuracy", "validation_accuracy", "early_stop_accuracy", "early_stop_step"),
    *("seconds", "train_steps"),
)
"""The columns that are stored with a net. The other columns are computed for each run."""


def dense_entry(problem: Problem, one: Seed) -> Entry:
    """The training of the seed's dense net from its initial weights."""
    mask = masks.ones(one.params)
    start = Start(training_key(one), problem.hyper, one.params, one.stats, mask, one.step)
    return Entry({"method": "dense", "density": 1.0, "seed": one.number}, start)


def _check_store(store: StoreSettings) -> None:
    """Makes the store's folder; raises UserError if it can't be written."""
    place = Path(store.dense_store) / "tickets"
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        message = f"--dense_store={store.dense_store}: dense nets can't be stored there"
        raise UserError(f"{message}: {error.strerror}: choose another folder") from error


def _copy(place: Path) -> None:
    """Copies a net from the store of the first process into those of the others."""
    if processes.told(place.exists):
        processes.copied(place)


def _load(home: Path, name: str) -> tuple[Ticket, dict[str, Any]] | None:
    """The stored net; None if it isn't there. A damaged one is removed and trained again."""
    place = home / "tickets" / name
    if not place.exists():
        return None
    try:
        return tickets.load_ticket(place)
    except UserError as error:
        print(f"{error}: the net is trained again")
        shutil.rmtree(place, ignore_errors=True)
        return None


def _digest(problem: Problem) -> str:
    """What decides the training and validation data: of photographs, their files and batches."""
    if problem.photographs is not None:
        return problem.photographs.digest
    return _checksum(problem.dataset.train, problem.dataset.validation)


def _checksum(*splits: Split) -> str:
    """A digest of images and labels."""
    seen = hashlib.sha256()
    for split in splits:
        for array in split:
            seen.update(np.ascontiguousarray(array).data)
    return seen.hexdigest()[:16]
