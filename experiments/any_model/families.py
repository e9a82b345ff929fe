"""A stranger's net of each kind through every family of the library: what works, what says no.

Everything that is traced (scores, training steps, gates, searches) is traced with the net's shapes
and not run, which takes a fraction of the time; what looks at numbers on the host is run.
"""

import inspect
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.any_model.measures import inputs, random_ticket
from experiments.any_model.structures import Structure
from jaxtickets import criteria, gates, losses, masks, training
from jaxtickets.analysis import connectivity, similarity
from jaxtickets.compress import graph
from jaxtickets.compress.shrink import shrink_model
from jaxtickets.compress.used_units import used_units
from jaxtickets.criteria import Evidence
from jaxtickets.criteria.units import UNIT_CRITERIA
from jaxtickets.dynamic.methods import METHODS
from jaxtickets.io import stablehlo, tickets
from jaxtickets.losses import Task
from jaxtickets.search import annealing, energies, space, swaps
from jaxtickets.types import Array, Loss, Prunable, Split, Ticket, Wiring

STRANGERS = ("NNX convolution", "transformer", "plain layers")
"""A net of each kind: NNX, Linen, a plain function."""


class Stranger(NamedTuple):
    """A net with random weights and data.

    Attributes:
      structure: the net.
      ticket: random weights and a random mask that keeps a half.
      prunable: its kernels.
      task: what it is asked: classes, or next tokens.
      loss: its training loss.
      batches: stacked batches of random data.
      graph: its channel graph.
    """

    structure: Structure
    ticket: Ticket
    prunable: Prunable
    task: Task
    loss: Loss
    batches: Split
    graph: graph.Graph


def stranger(structure: Structure) -> Stranger:
    """A net with random weights and data."""
    draw, model = np.random.default_rng(0), structure.model
    whole = random_ticket(model, draw)
    prunable = masks.prunable(whole.params)
    mask = masks.random(
        jax.random.key(0), whole.params, prunable, masks.size(whole.params, prunable) // 2
    )
    given = inputs(structure.example, 8, draw)
    words = jnp.issubdtype(given.dtype, jnp.integer)
    task = losses.NEXT_TOKEN if words else losses.CLASSIFICATION
    if words:  # one more, which is only foretold
        given = jnp.concatenate([given, given[:, :1]], 1)
    labels = draw.integers(0, 3, 8).astype(np.int32)
    batches = jax.tree.map(lambda a: a.reshape(2, 4, *a.shape[1:]), Split(given, labels))
    loss = losses.of_task(task, model, lambda images: images)
    traced = graph.trace(model, structure.example)
    return Stranger(structure, whole._replace(mask=mask), prunable, task, loss, batches, traced)


def check(name: str, structure: Structure) -> list[dict[str, str]]:
    """The rows of a net: `structure`, `family`, `member`, and `result`: 'works', or one line."""
    rows = []
    for family, members in _families(stranger(structure)).items():
        for member, call in members.items():
            try:
                call()
                result = "works"
            except (ValueError, TypeError, NotImplementedError) as error:
                result = " ".join(str(error).split())
            rows.append({"structure": name, "family": family, "member": member, "result": result})
    return rows


def _families(net: Stranger) -> Mapping[str, Mapping[str, Callable[[], Any]]]:
    """Family -> member -> a call that raises an error if it does not work."""
    params, mask, prunable = net.ticket.params, net.ticket.mask, net.prunable
    evidence = Evidence(
        params, params, net.ticket.stats, mask, net.batches, net.loss, net.structure.model,
        lambda images: images, prunable, net.task,
    )  # fmt: skip
    units = {group.name: np.arange(group.size) < group.size / 2 for group in net.graph.wiring}
    return {
        "masks": {"magnitude": lambda: _selected(net), "units": lambda: _expanded(net, units)},
        "criteria": {
            name: partial(_traced, one.score, evidence) for name, one in criteria.CRITERIA.items()
        },
        "unit criteria": {
            name: partial(_traced, partial(_unit_score, one, net.graph.wiring), evidence)
            for name, one in UNIT_CRITERIA.items()
        },
        "search": {"annealing": lambda: _search(net)},
        "dynamic": {name: partial(_dynamic, net, one) for name, one in METHODS.items()},
        "gates": {name: partial(_gate, net, one) for name, one in gates.GATES.items()},
        "analysis": {
            "similarity": lambda: similarity.cosine(
                similarity.overlaps(jax.tree.map(lambda a: jnp.stack([a, ~a]), mask), prunable)
            ),
            "connectivity": lambda: connectivity.of_graph(mask, net.graph, prunable),
        },
        "compress": {
            "used units": lambda: used_units(mask, net.graph),
            "shrink_model": lambda: shrink_model(net.structure.model, net.ticket, units, net.graph),
        },
        "export": {
            "ticket": lambda: _saved(net, _save_ticket),
            "jax.export": lambda: _saved(net, _save_program),
        },
    }


def _traced(call: Callable[..., Any], evidence: Evidence) -> Any:
    """The shapes of a score."""
    arrays = evidence._replace(loss=None, model=None, prepare=None, prunable=None, task=None)

    def score(key: Any, given: Evidence) -> Any:
        return call(
            key,
            given._replace(
                loss=evidence.loss,
                model=evidence.model,
                prepare=evidence.prepare,
                prunable=evidence.prunable,
                task=evidence.task,
            ),
        )

    return jax.eval_shape(score, jax.random.key(0), arrays)


def _unit_score(one: Any, wiring: Wiring, key: Any, given: Evidence) -> Any:
    return one.score(key, given, wiring)


def _selected(net: Stranger) -> Any:
    scores = jax.tree.map(np.abs, net.ticket.params)
    return masks.select(scores, net.prunable, masks.size(net.ticket.params, net.prunable) // 3)


def _expanded(net: Stranger, units: Mapping[str, np.ndarray]) -> Any:
    return masks.expand(units, net.graph.wiring, net.ticket.params)


def _search(net: Stranger) -> Any:
    """A chain of annealing over masks, of which each has an energy from the first batch."""
    where = space.weights(net.ticket.params, net.prunable)
    batch = jax.tree.map(lambda a: a[0], net.batches)

    def energy(key: Any, mask: Any) -> Array:
        params = masks.apply(mask, net.ticket.params)
        return net.loss(params, net.ticket.stats, batch, key)[0]

    kernel = annealing.build(
        swaps.moves(where, 3), where.mask, energies.Energy(energy, False), annealing.Rules()
    )
    bits = masks.flatten(net.ticket.mask, net.prunable)
    return jax.eval_shape(kernel.init, jax.random.key(0), bits)


def _dynamic(net: Stranger, method: Any) -> Any:
    """A training step of a method of dynamic sparse training."""
    params, mask, prunable = net.ticket.params, net.ticket.mask, net.prunable
    counts = {path: int(n) for path, n in masks.counts(mask, prunable).items()}
    total = sum(counts.values())
    whole = masks.size(params, prunable)
    first: Any = counts
    if method.counts != "leaf":
        first = {"sparse": total, "between": (total + whole) // 2, "dense": whole}[method.begin]
    end = first if method.begin == "sparse" else total
    known = {
        "inner": optax.sgd(0.1, momentum=0.9),
        "mask": mask if method.begin == "sparse" else masks.ones(params),
        "prunable": prunable,
        "moves": method.plan and method.plan(moves=8, begin=first, end=end, floor=0),
        "every": 2,
        "floor": 0,
        "key": jax.random.key(0),
        "steps": 18,
        "signs": params,
    }
    taken = inspect.signature(method.make).parameters
    optimizer = method.make(**{name: value for name, value in known.items() if name in taken})
    batch = jax.tree.map(lambda a: a[0], net.batches)

    def step(params: Any, stats: Any, batch: Split, key: Any) -> Any:
        state = training.init(params, stats, optimizer)
        return training.step(net.loss, optimizer, key, state, batch)

    return jax.eval_shape(step, params, net.ticket.stats, batch, jax.random.key(0))


def _gate(net: Stranger, make: Any) -> Any:
    """The gradient of a gate's loss."""
    params, prunable = net.ticket.params, net.prunable
    gate = make(prunable, masks.size(params, prunable) // 2, steps=8)
    batch = jax.tree.map(lambda a: a[0], net.batches)

    outputs = losses.outputs(net.task, net.structure.model, lambda images: images)

    def gradient(key: Any, params: Any, stats: Any, batch: Split) -> Any:
        trained, state = gates.start(gate, key, params, stats)
        loss = gates.loss(gate, net.loss, outputs)
        return jax.grad(loss, has_aux=True)(trained, state, batch, key)

    return jax.eval_shape(gradient, jax.random.key(0), params, net.ticket.stats, batch)


def _saved(net: Stranger, save: Callable[[Path, Stranger], Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder, "file"), net)


def _save_ticket(path: Path, net: Stranger) -> None:
    tickets.save_ticket(path, net.ticket, {})
    tickets.load_ticket(path)


def _save_program(path: Path, net: Stranger) -> None:
    stablehlo.save_program(path, net.structure.model, net.ticket, net.structure.example)
