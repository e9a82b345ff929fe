"""Writes the nets of all stages into files, reads them back, and measures what was read. Resumable.

What a stage's row says of accuracy and size is of the file: its bytes are counted, and the net that
is evaluated is the one that was read, which must be the one that was written, to the bit.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from experiments.compression import pruning
from experiments.compression.settings import CompressSettings
from experiments.compression.sharing import as_found
from experiments.harness import cached_trainings
from experiments.harness.dense_store import Dense
from experiments.harness.rows import Row
from experiments.harness.session import Session
from jaxtickets import masks, nets
from jaxtickets.compress.graph import trace
from jaxtickets.compress.shrink import shrink
from jaxtickets.compress.used_units import used_units
from jaxtickets.io.compressed import compression_factor, load_compressed, save_compressed, sizes
from jaxtickets.types import Array, Model, Params, Split, Stats, Ticket


class Form(NamedTuple):
    """How a file is coded; see `save_compressed`."""

    positions: str
    symbols: str


class Stage(NamedTuple):
    """The form of a stage's files.

    Attributes:
      small: whether units out of use are removed before.
      shared: whether weights share values.
      form: the codes; None for those of `--positions` and `--symbols`.
    """

    small: bool
    shared: bool
    form: Form | None


FIXED, HUFFMAN = Form("relative", "fixed"), Form("relative", "huffman")
DENSE = "dense"
STAGES: dict[str, Stage] = {
    "cut": Stage(False, False, FIXED),
    "pruned": Stage(False, False, FIXED),
    "units_removed": Stage(True, False, FIXED),
    "shared": Stage(True, True, FIXED),
    "values_trained": Stage(True, True, FIXED),
    "huffman": Stage(True, True, HUFFMAN),
    "coded": Stage(True, True, None),
}
"""After the dense net, in the order of the pipeline. Deep Compression's own codes come before the
last stage: relative positions and values in codes of fixed lengths, then in Huffman's."""
PARTS = ("positions", "values", "codebooks", "header")
"""The parts of a file, in the columns `bytes/PART`; the tables of codes count too."""
EVALUATED = 1000
"""The most images of one call in an evaluation."""
Evaluate = Callable[[Params, Stats], tuple[float, float]]
"""`evaluate(params, stats) -> (test, validation)`, accuracies."""


def dense_rows(session: Session, dense: Dense) -> list[Row]:
    """A row of each dense net. Its bytes are those of its parameters in float32, without a file."""
    problem = session.problem
    count = sum(leaf.size for leaf in jax.tree.leaves(problem.param_shapes))
    size = {
        "parameters": count,
        "kept": masks.size(problem.param_shapes, problem.prunable),
        "bytes": 4 * count,
        "factor": 1.0,
    }
    taken = ("trained_accuracy", "validation_accuracy", "seconds")
    return [
        {"stage": DENSE, "method": DENSE, "density": 1.0, "levels": None, "seed": one.number}
        | {key: learnt[key] for key in taken}
        | size
        for one, learnt in zip(session.seeds, dense.summary, strict=True)
    ]


def measure(
    session: Session,
    rows: Sequence[Row],
    settings: CompressSettings,
    stages: Sequence[str] = (),
) -> list[Row]:
    """The rows of nets with what their files hold: accuracies, parameters, kept weights, bytes.

    Args:
      session: the run.
      rows: of nets, each with its ticket.
      settings: the settings.
      stages: the stages whose files are made of each net; empty for its row's own.

    Returns:
      For each row one for each stage. The first of several has the row's `seconds`, the others
      those that it took to write the file.
    """
    made = []
    for row in rows:
        mine = stages or (row["stage"],)
        phase = f"files-{'-'.join(mine)}-{row['ticket']}"
        found = cached_trainings.known(session.folder, phase)
        if not found:
            found = _measured(session, row, settings, mine)
            cached_trainings.keep(session.folder, phase, found)
        made += found
    return made


def _measured(
    session: Session, row: Row, settings: CompressSettings, stages: Sequence[str]
) -> list[Row]:
    net, ticket = session.problem.net, pruning.load(session, row["ticket"])
    if STAGES[stages[0]].small:
        net, ticket = without_units(session, ticket)
    evaluate = evaluator(session, net)
    sharing = as_found(ticket) if STAGES[stages[0]].shared else None
    provenance = {"dataset": session.problem.dataset.name}
    provenance |= {key: row[key] for key in ("method", "density", "seed")}
    home = session.folder / "files"
    home.mkdir(exist_ok=True)
    dense = sum(leaf.size for leaf in jax.tree.leaves(session.problem.param_shapes))
    made, test, validation = [], math.nan, math.nan
    for number, name in enumerate(stages):
        form = STAGES[name].form or Form(settings.positions, settings.symbols)
        path = home / f"{row['ticket']}-{name}.jxt"
        started = time.monotonic()
        save_compressed(path, net, ticket, provenance, sharing, form.positions, form.symbols)
        taken = time.monotonic() - started
        _, read, _ = load_compressed(path)
        check_same(path, read, ticket)
        if not number:  # the bits of the others are the same
            test, validation = evaluate(read.params, read.stats)
        parts = sizes(path)
        made.append(
            row
            | {
                "stage": name,
                "levels": row.get("levels"),
                "trained_accuracy": test,
                "validation_accuracy": validation,
                "seconds": round(taken, 3) if number else row["seconds"],
                "parameters": sum(leaf.size for leaf in jax.tree.leaves(read.params)),
                "kept": int(masks.count(read.mask, session.problem.prunable)),
                "bytes": parts.total,
                "factor": round(compression_factor(path, dense), 3),
                "bytes/header": parts.header,
                "bytes/positions": parts.position_tables + parts.positions,
                "bytes/values": parts.value_tables + parts.values + parts.unshared,
                "bytes/codebooks": parts.codebooks,
            }
        )
    return made


def without_units(session: Session, ticket: Ticket) -> tuple[nn.Module, Ticket]:
    """The net and the ticket without units out of use; as they are if a layer has none in use."""
    net, wiring = session.problem.net, session.problem.wiring
    if not wiring:
        return net, ticket
    graph = trace(net, session.problem.image_shape)
    units = used_units(ticket.mask, graph)
    if all(used.all() for used in units.values()) or not all(used.any() for used in units.values()):
        return net, ticket
    small, cut, _ = shrink(net, ticket, units, graph)
    return small, cut


def evaluator(session: Session, net: nn.Module) -> Evaluate:
    """The accuracies of a net of any widths, by one compiled program."""
    data = session.data
    model = session.problem.recipe.model
    if net != session.problem.net:
        model = _model(net, session.problem.image_shape)
    size = math.gcd(len(data.test.labels), len(data.validation.labels), EVALUATED)
    hits = partial(_hits, model, session.problem.recipe.prepare)

    def evaluate(params: Params, stats: Stats) -> tuple[float, float]:
        found = []
        for split in (data.test, data.validation):
            count = len(split.labels)
            parts = [
                jax.tree.map(lambda a, at=at: a[at : at + size], split)
                for at in range(0, count, size)
            ]
            found.append(sum(int(hits(params, stats, part)) for part in parts) / count)
        return found[0], found[1]

    return evaluate


@cache
def _model(net: nn.Module, shape: tuple[int, ...]) -> Model:
    """The same functions for each of a small net's stages, so that they are compiled once."""
    return nets.functional(net, shape)


@partial(jax.jit, static_argnums=(0, 1))
def _hits(
    model: Model, prepare: Callable[[Array], Array], params: Params, stats: Stats, split: Split
) -> Array:
    logits, _ = model.apply(params, stats, prepare(split.images))
    return jnp.sum(jnp.argmax(logits, -1) == split.labels)


def check_same(path: Path, read: Ticket, written: Ticket) -> None:
    """Raises RuntimeError unless the ticket that was read from a file is the one written, to a bit.

    Pruned weights are read as zeros.
    """
    kept = masks.apply(written.mask, written.params)
    pairs = (read.params, kept), (read.mask, written.mask), (read.stats, written.stats)
    for found, wanted in pairs:
        leaves = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
        if not all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in leaves):
            raise RuntimeError(f"{path} holds another net than was written")
