"""How a batch of a method's runs is trained and ended: one way for gates, one for controls."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.harness import moving_masks
from experiments.harness.moving_masks import SparseHyper
from experiments.harness.named_parts import make_part, takes
from experiments.harness.problem import Problem, optimizer_of
from experiments.harness.seeds import Seed, mask_key, training_key
from experiments.harness.training_runs import Start, steps_between_moves
from experiments.harness.training_settings import TrainSettings
from experiments.learned_sparsity.methods import Control, Learned
from jaxtickets import allocation, gates, masks, nets, runs
from jaxtickets.compress import graph
from jaxtickets.gates import Gate, Setting
from jaxtickets.keys import stream
from jaxtickets.optimizers import Hyper
from jaxtickets.runs import Axis
from jaxtickets.training import Moves
from jaxtickets.types import (
    Array,
    Keep,
    Key,
    Mask,
    Params,
    PyTree,
    Stats,
    TrainState,
    Wiring,
)

STEP = 3
"""The cost of a training step, in forward passes of its examples: one, and two backward."""


class Job(NamedTuple):
    """A run that is to be done.

    Attributes:
      strength: of a learned method; None for a control.
      asked: the density of a control; None for a learned method, whose training doesn't depend on
        how many weights its hard mask keeps.
      seed: the seed, with the weights to start from.
    """

    strength: float | None
    asked: float | None
    seed: Seed


End = tuple[Mask, Params, Stats]
"""A result: the mask, the weights that it selects from, and the net's batch statistics."""


class Way(NamedTuple):
    """How the runs of a method are trained and ended, in one batch.

    Attributes:
      problem: the net and its training.
      start: the starts of jobs, stacked.
      ends: density -> `end(last state of one run) -> End`, traced; None for the job's own density,
        or for what the method's own threshold keeps.
      cost: of one run, in dense trainings.
      most: the largest strength that means something.
    """

    problem: Problem
    start: Callable[[Sequence[Job]], Start]
    ends: Mapping[float | None, Callable[[TrainState], End]]
    cost: float
    most: float = math.inf


def order(warm: bool) -> int:
    """The number of the training's order of the data: a second training has another order."""
    return int(warm)


def learned(
    name: str,
    one: Learned,
    densities: Sequence[float | None],
    problem: Problem,
    axis: Axis,
    train: TrainSettings,
    floor: int,
    gate_rate: float,
) -> Way:
    """The way of a gate or a penalty.

    Args:
      name, one: the method and its facts.
      densities: what is kept exactly, after one and the same training; None: what the method's own
        threshold keeps.
      problem: the net and its training.
      axis: how runs are batched.
      train: the settings of the training.
      floor: the minimum number of weights that a layer keeps at a density.
      gate_rate: in place of the fact; 0 for that.

    Raises:
      ValueError: the net lacks what the method needs, or a density is out of reach.
    """
    gates_of = {asked: gate_of(one, asked, problem, floor) for asked in densities}
    gate = gates_of[densities[0]]
    weights = optimizer_of(train, problem.steps)
    plain = optimizer_of(dataclasses.replace(train, weight_decay=0.0), problem.steps)

    def gate_optimizer(hyper: Hyper) -> optax.GradientTransformation:
        return plain(hyper._replace(rate=hyper.rate * (gate_rate or one.facts.gate_rate)))

    def weights_optimizer(hyper: Hyper) -> optax.GradientTransformation:
        return weights(hyper._replace(rate=hyper.rate * one.facts.rate))

    own = one.facts.gate_optimizer
    if one.facts.gradient_steps:
        steps = dataclasses.replace(train, optimizer="sgd", weight_decay=0.0)
        own = optimizer_of(steps, problem.steps)
    recipe = problem.recipe._replace(optimizer=weights_optimizer)
    gated = gates.recipe(gate, recipe, own or gate_optimizer)

    def begin(row: tuple[Key, Key, Params, Stats, jax.Array]) -> Start:
        gate_key, key, params, stats, strength = row
        trained, gated_stats = gates.start(gate, gate_key, params, stats, strength=strength)
        return Start(key, problem.hyper, trained, gated_stats, masks.ones(trained))

    def start(jobs: Sequence[Job]) -> Start:
        rows = [
            (
                stream(job.seed.number, "gate", name, 1.0),
                training_key(job.seed, order(one.facts.warm)),
                job.seed.params,
                job.seed.stats,
                jnp.float32(job.strength),
            )
            for job in jobs
        ]
        begun: Start = runs.over_runs(begin, axis, runs.stack(rows))
        return begun

    def end_of(gate: Gate) -> Callable[[TrainState], End]:
        def end(state: TrainState) -> End:
            mask, params = gates.ticket(gate, state.params, state.stats)
            if one.facts.by_units:
                mask = without_constants(mask, problem.wiring)
            return mask, params, state.stats.net

        return end

    ends = {asked: end_of(hard) for asked, hard in gates_of.items()}
    cost = 1 + gate.extra_passes / STEP + one.facts.warm
    return Way(problem._replace(recipe=gated), start, ends, cost, gate.most)


def gate_of(one: Learned, asked: float | None, problem: Problem, floor: int) -> Gate:
    """The gate of a method for a net.

    Raises:
      ValueError: the net lacks what it needs, or the density is out of reach.
    """
    shapes, output = problem.param_shapes, nets.output_layer(problem.net)
    sizes = masks.shapes(shapes, problem.prunable)
    kernel = f"{output}/kernel"
    spared = {kernel} & {*sizes} if one.facts.spares_output else set()
    keep: Keep | None = None
    if asked is not None:
        keep = allocation.global_(sizes, asked, floor)
        keep -= sum(math.prod(sizes[path]) for path in spared)
        if keep < 1:
            raise ValueError(f"density {asked} keeps no weight besides those of {kernel}")
    known: dict[str, Any] = {
        "prunable": tuple(path for path in problem.prunable if path not in spared),
        "keep": keep,
        "floor": floor,
        "setting": Setting(problem.steps, len(problem.dataset.train.labels)),
        "output": output,
        "shapes": shapes,
    }
    first = f"{problem.wiring[0].producers[0]}/kernel" if problem.wiring else ""
    known["inputs"] = (first,) if len(sizes.get(first, ())) == 2 else ()
    if "graph" in takes(one.make):
        known["graph"] = graph.trace(problem.net, problem.image_shape)
    gate = make_part(one.make, known)

    jax.eval_shape(partial(_used, gate), shapes)  # all that the net may lack is missed here
    return gate


def _used(gate: Gate, params: Params) -> tuple[Any, Array, PyTree]:
    """The weights of a first training step, its penalty, and the ticket of untrained gates."""
    trained, stats = gates.start(gate, jax.random.key(0), params, {})
    g, weights = gates.parts(gate, trained, stats)
    effective, penalty = gate.apply(jax.random.key(0), stats.step, g, weights, stats.strength)
    return effective, penalty, gates.ticket(gate, trained, stats)


def without_constants(mask: Mask, wiring: Wiring) -> Mask:
    """The mask without the units that have lost all inputs, which could only pass a constant on.

    Their biases and the weights that read them are removed, too.
    """
    units = {}
    for group in wiring:
        kernels = masks.kernels(mask, group.producers)
        read = [jnp.any(kernel, axis=tuple(range(kernel.ndim - 1))) for kernel in kernels]
        units[group.name] = jnp.stack(read).any(0)
    return jax.tree.map(jnp.logical_and, mask, masks.expand(units, wiring, mask))


def control(
    name: str, one: Control, densities: Sequence[float], problem: Problem, floor: int
) -> Way:
    """The way of a method that is told its densities.

    Args:
      name, one: the method and its facts.
      densities: of all jobs.
      problem: the net and its training.
      floor: the minimum number of weights that a layer keeps.

    Raises:
      ValueError: a density is out of reach of the floors, or the moves can't be planned.
    """
    method, prunable = one.dynamic, problem.prunable
    every = steps_between_moves(0, problem)
    planned = {
        asked: moving_masks.planned(method, asked, problem, every, floor=floor)
        for asked in densities
    }
    shapes = masks.shapes(problem.param_shapes, prunable)
    keep = {asked: allocation.global_(shapes, asked, floor) for asked in densities}

    def sparsify(
        inner: optax.GradientTransformation, mask: Mask, fill: Params | None, hyper: SparseHyper
    ) -> optax.GradientTransformationExtraArgs:
        del fill
        known = {**hyper._asdict(), "inner": inner, "mask": mask, "every": every}
        known |= {"prunable": prunable, "floor": floor, "steps": problem.steps}
        return make_part(method.make, known)

    def mask_of(seed: Seed, asked: float) -> Mask:
        first = planned[asked].first
        if one.warm:
            sizes = jax.tree.map(jnp.abs, seed.params)
            return masks.select(sizes, prunable, keep[asked], floor)
        if first is None:
            return masks.ones(seed.params)
        return masks.random(mask_key(seed, name, asked), seed.params, prunable, first)

    def begin(seed: Seed, asked: float) -> Start:
        hyper = SparseHyper(
            rate=problem.hyper.rate,
            warmup=problem.hyper.warmup,
            key=stream(seed.number, "moving_mask", name, asked, 0),
            moves=planned[asked].moves,
        )
        key, mask = training_key(seed, order(one.warm)), mask_of(seed, asked)
        return Start(key, hyper, seed.params, seed.stats, mask)

    def start(jobs: Sequence[Job]) -> Start:
        begun: Start = runs.stack([begin(job.seed, job.asked or 1.0) for job in jobs])
        return begun

    def end(state: TrainState) -> End:
        return state.mask, state.params, state.stats

    moved = method.plan is not None
    changed = problem.with_recipe(
        sparsify=sparsify, moves=Moves(every, problem.recipe.batch_size) if moved else None
    )
    gradients = 1 / every if method.dense_gradient == "moves" else 0.0
    return Way(changed, start, {None: end}, 1 + one.warm + gradients)
