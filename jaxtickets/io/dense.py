"""Dense nets, trained once: several criteria and several experiments look at the same ones."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxtickets import data as data_module
from jaxtickets import losses, masks, nets, optimizers, runs
from jaxtickets import training as training_module
from jaxtickets.io import tickets
from jaxtickets.io.comparison import Entry, save_entry, train_entries
from jaxtickets.io.files import digest
from jaxtickets.io.problem import Problem, TrainSettings
from jaxtickets.io.seeds import Seed
from jaxtickets.io.training_loop import Start
from jaxtickets.runs import Axis
from jaxtickets.settings import option
from jaxtickets.types import Dataset, Params, Stats


@dataclasses.dataclass(frozen=True)
class StoreSettings:
    """Where dense nets are kept; it doesn't decide any number."""

    dense_store: str = option("runs/dense", "folder of dense nets, trained once for all runs")


class Dense(NamedTuple):
    """Trained dense nets.

    Attributes:
      params, stats: at the end of training, stacked over seeds.
      summary: a row of `train_entries` for each.
    """

    params: Params
    stats: Stats
    summary: list[dict[str, Any]]


def dense_nets(
    folder: Path,
    problem: Problem,
    axis: Axis,
    seeds: Sequence[Seed],
    training: TrainSettings,
    data: Dataset,
    every: float,
    store: StoreSettings,
) -> Dense:
    """The dense net of each seed at the end of its training: from the store, or trained into it.

    A stored net is used if all that decides its numbers is the same: net, data set, training,
    seed, the way runs are batched, the device's kind, JAX's version, and the code that trains.

    Args:
      folder, axis, data, every: see `train_all`.
      problem: the net and its recipe.
      seeds: which.
      training: the settings that `problem` was built from.
      store: a folder of tickets, named by digest.
    """
    context = {
        "net": nets.to_json(problem.net),
        "dataset": problem.dataset.name,
        "training": dataclasses.asdict(training),
        "axis": [axis.mode, axis.width, axis.devices[0].device_kind],
        "jax": jax.__version__,
        "code": _code(),
    }
    hashes = [digest({**context, "seed": one.number})[:16] for one in seeds]
    home = Path(store.dense_store)
    places = [home / "tickets" / name for name in hashes]
    missing = [i for i, place in enumerate(places) if not place.exists()]
    if missing:
        entries = [dense_entry(problem, seeds[i]) for i in missing]
        ends, made = train_entries(folder, "dense", problem, axis, entries, data, every)
        for at, (i, row) in enumerate(zip(missing, made, strict=True)):
            params, stats = runs.take((ends.state.params, ends.state.stats), at)
            end = entries[at].start._replace(params=params, stats=stats)
            name = entries[at].name | {"summary": row, "context": context}
            save_entry(home, problem, Entry(name, end), problem.steps, hashes[i])
    if kept := len(seeds) - len(missing):
        print(f"{kept} of {len(seeds)} dense nets were trained before: {home}")
    found = [tickets.load_ticket(place) for place in places]
    params, stats = runs.stack([(ticket.params, ticket.stats) for ticket, _ in found])
    return Dense(params, stats, [provenance["summary"] for _, provenance in found])


def dense_entry(problem: Problem, one: Seed) -> Entry:
    """The seed's net with nothing pruned, at its first weights."""
    mask = masks.ones(one.params)
    start = Start(one.train, problem.hyper, one.params, one.stats, mask, one.step)
    return Entry({"method": "dense", "density": 1.0, "seed": one.number}, start)


def _code() -> str:
    """A digest of the modules that decide what a training ends with."""
    modules = (data_module, nets, losses, masks, optimizers, training_module)
    files: list[Path] = []
    for module in modules:
        place = Path(str(module.__file__))
        files += sorted(place.parent.glob("*.py")) if place.name == "__init__.py" else [place]
    return digest({f"{path.parent.name}/{path.name}": path.read_text("utf-8") for path in files})
