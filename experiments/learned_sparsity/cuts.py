"""Cuts the nets that have lost whole units, and measures what is left."""

from collections.abc import Sequence

import jax
import numpy as np

from experiments.harness import cached_trainings, latency
from experiments.harness.dense_store import Dense
from experiments.harness.rows import Row
from experiments.harness.session import Session
from experiments.learned_sparsity.methods import LEARNED
from experiments.learned_sparsity.retraining import load
from jaxtickets import masks, nets, runs, training
from jaxtickets.compress.graph import Graph, trace
from jaxtickets.compress.shrink import shrink
from jaxtickets.compress.used_units import used_units
from jaxtickets.types import Ticket

BATCHES = (1, 128)
"""The batch sizes at which latency is measured."""


def cut(session: Session, rows: Sequence[Row], dense: Dense, repeats: int) -> list[Row]:
    """The rows with the size and the accuracy of the nets without the units out of use.

    - `cut_accuracy`: of the cut net on the test data.
    - `cut_multiply_adds` and `cut_left`: those of an image, in all and in those of the dense net.
    - `milliseconds_N` and `milliseconds_N_dense`: of a batch of N images, of the cut net and of the
      dense one, called in turns; measured once for each method and strength, on the first seed.

    Only rows of methods by units change. A net without a path through one of its layers can't be
    cut, and its row stays as it is.
    """
    if not session.problem.wiring:
        return list(rows)
    graph = trace(session.problem.net, session.problem.image_shape)
    timed: set[tuple] = set()
    made = []
    for row in rows:
        phase = f"cut-{row['ticket']}"
        level = row["method"], row["strength"], row["asked"]
        by_units = row["method"] in LEARNED and LEARNED[row["method"]].facts.by_units
        if not by_units or any(row[f"left/{group.name}"] == 0 for group in session.problem.wiring):
            made.append(row)
            continue
        found = cached_trainings.known(session.folder, phase)
        if not found:
            found = [_measured(session, row, dense, graph, 0 if level in timed else repeats)]
            cached_trainings.keep(session.folder, phase, found)
        timed.add(level)
        made.append(row | found[0])
    return made


def _measured(session: Session, row: Row, dense: Dense, graph: Graph, repeats: int) -> Row:
    """The columns of a cut net; its latency only if `repeats` isn't 0."""
    problem, data = session.problem, session.data
    place = f"{row['ticket']}-retrained" if "retrained_accuracy" in row else row["ticket"]
    ticket = load(session, place)
    units = used_units(ticket.mask, graph)
    net, small, gain = shrink(problem.net, ticket, units, graph)
    model = nets.functional(net, problem.image_shape)
    left = masks.apply(small.mask, small.params)
    evaluate = jax.jit(training.evaluate, static_argnums=(0, 1))
    seen = evaluate(model, problem.recipe.prepare, left, small.stats, data.test)
    columns = {
        "cut_accuracy": round(float(seen["accuracy"]), 6),
        "cut_multiply_adds": gain.after.multiply_adds,
        "cut_left": round(gain.after.multiply_adds / gain.before.multiply_adds, 6),
    }
    if repeats:
        params, stats = runs.take((dense.params, dense.stats), 0)
        whole = problem.net, Ticket(params, stats, masks.ones(params), np.int32(problem.steps))
        rows = latency.compare(whole, (net, small), problem.image_shape, BATCHES, repeats)
        times = {one["quantity"]: one for one in rows}
        for batch in BATCHES:
            one = times[f"ms a batch of {batch}"]
            columns[f"milliseconds_{batch}"] = round(one["after"], 4)
            columns[f"milliseconds_{batch}_dense"] = round(one["before"], 4)
    return columns
