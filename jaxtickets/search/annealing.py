"""Simulated annealing: an `init` / `step` kernel over any space, and a scan over its steps.

Each step proposes a move, evaluates the energy after it, and accepts or undoes the move by a rule
at a temperature. Kirkpatrick, Gelatt and Vecchi, "Optimization by simulated annealing", 1983. An
undergraduate thesis of 2020 searched the masks of an untrained net in this way, by swaps that keep
the density exactly.

    space = weights(params, prunable)
    kernel = annealing.build(swaps.moves(space, most=2000), space.mask, energy, annealing.Rules())
    state = kernel.init(key, space.bits(mask))
    state, trace = annealing.run(kernel, key, state, annealing.step_plans(steps, temperature, size))
    ticket_mask = space.mask(state.best)
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxtickets.search.acceptance import ACCEPTANCES, Rule
from jaxtickets.search.energies import Energy
from jaxtickets.search.moves import Moves
from jaxtickets.shape_checks import check_array, check_leading
from jaxtickets.types import Array, Key, Mask, PyTree, Schedule


class Rules(NamedTuple):
    """How a kernel accepts moves and adapts their size; static.

    Attributes:
      accept: the acceptance rule.
      target: the acceptance rate to which the size of the moves adapts; None to use the sizes of
        the step plans.
      gain: the rate of adaptation: the log size changes by `gain * (accepted - target)` at each
        step.
    """

    accept: Rule = ACCEPTANCES["metropolis"]
    target: float | None = None
    gain: float = 0.05


class StepPlan(NamedTuple):
    """What the schedules prescribe for a step, as scalars; `step_plans` stacks them for the scan.

    Attributes:
      step: int32.
      temperature: float32; the kernel multiplies it by the state's `scale`.
      size: the size of the move, for example the number of ones to switch off: int32, or float32
        where sizes are not whole.
      level: bool, whether a new temperature level begins.
    """

    step: Array
    temperature: Array
    size: Array
    level: Array


class State(NamedTuple):
    """The state of an annealing chain.

    Attributes:
      walk: the current point, and what proposals need beside it.
      energy: float scalar, the energy of the current point.
      best: the point of the lowest energy so far; bool`[n]` where points are bit vectors.
      best_energy: float scalar, its energy.
      start: the first point, shaped like `best`.
      scale: float32 scalar, multiplies the planned temperatures; 1 unless `burn_in` estimates it.
      log_size: float32 scalar, the natural log of the adapted size.
      memory: the memory of the acceptance rule.
    """

    walk: PyTree
    energy: Array
    best: PyTree
    best_energy: Array
    start: PyTree
    scale: Array
    log_size: Array
    memory: PyTree


class Info(NamedTuple):
    """Diagnostics of a step, as scalars.

    Attributes:
      energy: float, the energy after the step; the proposed energy if that is not finite.
      best_energy: float, the lowest energy so far.
      accepted: bool.
      temperature: float32, the temperature that the acceptance rule used.
      size: the size of the proposed move: int32, or float32 where sizes are not whole.
    """

    energy: Array
    best_energy: Array
    accepted: Array
    temperature: Array
    size: Array


class Kernel(NamedTuple):
    """An annealing kernel, as pure functions; keys are consumed.

    Attributes:
      init: `init(key, point) -> State`.
      step: `step(key, tick, state) -> (State, Info)`; `tick` is a `StepPlan`.
      probe: `probe(key, size, state) -> rise`, float scalar: the energy of a random neighbour minus
        that of the current point; NaN if the move is not allowed. `burn_in` uses it.
      point: `point(state) -> point`, the current point.
      distance: `distance(state) -> scalar`, the distance of the current point from the first one.
      refresh: `refresh(state) -> (state, drift)`, see `Moves.refresh`; the energies do not change.
    """

    init: Callable[[Key, PyTree], State]
    step: Callable[[Key, StepPlan, State], tuple[State, Info]]
    probe: Callable[[Key, Array, State], Array]
    point: Callable[[State], PyTree]
    distance: Callable[[State], Array]
    refresh: Callable[[State], tuple[State, Array]]


def build(
    moves: Moves,
    mask_of: Callable[[PyTree], Mask],
    energy: Energy,
    rules: Rules,
    at: Callable[[PyTree], Array] | None = None,
) -> Kernel:
    """Builds the annealing kernel from moves, an energy and rules.

    Args:
      moves: the moves of the space.
      mask_of: `mask_of(point) -> Mask`.
      energy: the energy of a mask.
      rules: acceptance, and adaptation of the size.
      at: `at(walk) -> scalar`: the energy of a walk that holds more than its point, such as
        `incremental_energy.fixed`; None evaluates `energy` at the mask of the point.

    >>> from jaxtickets.search import energies, space, swaps
    >>> scores, key = {"w": jnp.array([[1.0, 3.0]])}, jax.random.key(0)
    >>> bits = space.weights(scores, ("w",))
    >>> lost = energies.saliency(scores, ("w",))  # the share of the scores that the mask loses
    >>> kernel = build(swaps.moves(bits, most=1), bits.mask, lost, Rules())
    >>> state = kernel.init(key, jnp.array([True, False]))
    >>> float(state.energy), float(kernel.probe(key, 1, state))  # the only neighbour keeps 3 of 4
    (0.75, -0.5)
    """
    log_least = jnp.log(jnp.float32(moves.least))
    log_most = jnp.log(jnp.float32(moves.most))

    def evaluate(key: Key, walk: PyTree) -> Array:
        value = at(walk) if at is not None else energy.evaluate(key, mask_of(moves.point(walk)))
        check_array("the energy", value, ())
        return value.astype(float)

    def init(key: Key, point: PyTree) -> State:
        walk_key, energy_key = jax.random.split(key)
        walk = moves.init(walk_key, point)
        first = evaluate(energy_key, walk)
        return State(
            walk=walk,
            energy=first,
            best=point,
            best_energy=first,
            start=point,
            scale=jnp.float32(1),
            log_size=log_most,
            memory=rules.accept.init(first),
        )

    def size_of(tick: StepPlan, state: State) -> Array:
        if rules.target is None:
            return jnp.minimum(tick.size, moves.most)
        size = jnp.exp(state.log_size)
        return jnp.round(size).astype(jnp.int32) if moves.whole else size

    def step(key: Key, tick: StepPlan, state: State) -> tuple[State, Info]:
        move_key, energy_key, accept_key = jax.random.split(key, 3)
        current = evaluate(energy_key, state.walk) if energy.fresh else state.energy
        temperature = tick.temperature * state.scale
        walk = moves.heat(state.walk, temperature)
        proposal = moves.propose(move_key, size_of(tick, state), walk)
        proposed = evaluate(energy_key, proposal.walk)
        memory = rules.accept.new_level(state.memory, tick.level)
        accepted, moved = rules.accept.accept(
            accept_key, temperature, current, proposed, proposal.log_ratio, memory
        )
        accepted &= proposal.allowed & jnp.isfinite(proposed)
        walk = moves.settle(proposal, accepted)
        point = moves.point(walk)
        better = accepted & (proposed < state.best_energy)
        log_size = state.log_size
        if rules.target is not None:
            log_size += rules.gain * (accepted.astype(jnp.float32) - rules.target)
            log_size = jnp.clip(log_size, log_least, log_most)
        new = State(
            walk=walk,
            energy=jnp.where(accepted, proposed, current),
            best=_either(better, point, state.best),
            best_energy=jnp.where(better, proposed, state.best_energy),
            start=state.start,
            scale=state.scale,
            log_size=log_size,
            memory=_either(accepted, moved, memory),
        )
        info = Info(new.energy, new.best_energy, accepted, temperature, proposal.size)
        # a non-finite proposed energy is reported in place of the current one, so that it is seen
        return new, info._replace(energy=jnp.where(jnp.isfinite(proposed), new.energy, proposed))

    def probe(key: Key, size: Array, state: State) -> Array:
        move_key, energy_key = jax.random.split(key)
        current = evaluate(energy_key, state.walk) if energy.fresh else state.energy
        proposal = moves.propose(move_key, size, state.walk)
        rise = evaluate(energy_key, proposal.walk) - current
        return jnp.where(proposal.allowed, rise, jnp.nan)

    def refresh(state: State) -> tuple[State, Array]:
        walk, drift = moves.refresh(state.walk)
        return state._replace(walk=walk), drift

    def point_of(state: State) -> PyTree:
        return moves.point(state.walk)

    def distance(state: State) -> Array:
        return moves.distance(point_of(state), state.start)

    return Kernel(init, step, probe, point_of, distance, refresh)


def step_plans(
    steps: int,
    temperature: Schedule,
    size: Schedule,
    level: Schedule | None = None,
    whole: bool = True,
) -> StepPlan:
    """The plans of a search's steps, stacked: `[steps]` each.

    Args:
      steps: the number of steps.
      temperature: step -> temperature.
      size: step -> size of the move; rounded down and at least 1 if `whole`.
      level: step -> whether a new temperature level begins; None begins one at every step.
      whole: whether sizes are whole numbers, as in `Moves.whole`.

    >>> plans = step_plans(3, temperature=lambda step: 0.5**step, size=lambda step: 4 - step)
    >>> plans.temperature.tolist(), plans.size.tolist()
    ([1.0, 0.5, 0.25], [4, 3, 2])
    """
    step = jnp.arange(steps, dtype=jnp.int32)
    begins = jnp.ones(steps, bool) if level is None else level(step).astype(bool)
    sizes = size(step).astype(jnp.float32)
    if whole:
        sizes = jnp.maximum(jnp.floor(sizes + 1e-3), 1).astype(jnp.int32)  # 1e-3: float noise
    return StepPlan(step, temperature(step).astype(jnp.float32), sizes, begins)


def _check_step_plans(ticks: StepPlan) -> None:
    """Raises ValueError unless all fields of the plans are `[steps]`, as `run` scans them."""
    (steps,) = check_leading("the step plans", ticks, ("steps",))
    for name, field in ticks._asdict().items():
        check_array(f"the step plans, {name}", field, (steps,), bool if name == "level" else None)


def run(kernel: Kernel, key: Key, state: State, ticks: StepPlan) -> tuple[State, Info]:
    """Runs the stacked steps `ticks`; returns the state and the stacked infos.

    Step t uses `fold_in(key, t)`, so that a search gives the same numbers however it is cut into
    chunks.

    Raises:
      ValueError: the plans' fields aren't `[steps]` each.

    >>> from jaxtickets.search import energies, space, swaps
    >>> scores, key = {"w": jnp.array([[1.0, 3.0]])}, jax.random.key(0)
    >>> bits = space.weights(scores, ("w",))
    >>> lost = energies.saliency(scores, ("w",))  # the share of the scores that the mask loses
    >>> kernel = build(swaps.moves(bits, most=1), bits.mask, lost, Rules())
    >>> state = kernel.init(key, jnp.array([True, False]))
    >>> plans = step_plans(1, temperature=jnp.ones_like, size=jnp.ones_like)
    >>> state, info = run(kernel, key, state, plans)
    >>> state.best.tolist(), float(state.best_energy), info.accepted.tolist()
    ([False, True], 0.25, [True])
    """
    _check_step_plans(ticks)

    def body(state: State, tick: StepPlan) -> tuple[State, Info]:
        return kernel.step(jax.random.fold_in(key, tick.step), tick, state)

    return lax.scan(body, state, ticks)


def burn_in(
    kernel: Kernel, key: Key, state: State, size: Array, samples: int, acceptance: float
) -> State:
    """Sets the state's `scale` to a start temperature, estimated from random neighbours.

    `T0 = mean(rise | rise > 0) / -ln(χ)`, the temperature at which the average worsening move is
    accepted with probability χ: Johnson et al., "Optimization by simulated annealing", 1989; Aarts
    and Korst. If no neighbour is worse, the mean absolute change replaces the mean rise. Moves that
    are not allowed, and moves to a non-finite energy, are left out; if that leaves none, the scale
    is NaN, and the chain accepts nothing. The key is consumed.

    Args:
      kernel: the kernel.
      key: consumed.
      state: the state whose neighbours are drawn.
      size: the size of the moves.
      samples: the number of neighbours.
      acceptance: χ, in (0, 1).

    >>> from jaxtickets.search import energies, space, swaps
    >>> scores, key = {"w": jnp.array([[1.0, 3.0]])}, jax.random.key(0)
    >>> bits = space.weights(scores, ("w",))
    >>> lost = energies.saliency(scores, ("w",))  # the share of the scores that the mask loses
    >>> kernel = build(swaps.moves(bits, most=1), bits.mask, lost, Rules())
    >>> state = kernel.init(key, jnp.array([False, True]))
    >>> state = burn_in(kernel, key, state, size=1, samples=2, acceptance=np.exp(-1))
    >>> round(float(state.scale), 4)  # the only neighbour is worse by 0.5
    0.5
    """
    keys = jax.random.split(key, samples)
    rise = lax.map(lambda k: kernel.probe(k, size, state), keys)
    known = jnp.isfinite(rise)
    worse = (rise > 0) & known
    mean = jnp.sum(jnp.where(worse, rise, 0.0)) / jnp.maximum(jnp.sum(worse), 1)
    size_of_all = jnp.sum(jnp.where(known, jnp.abs(rise), 0.0)) / jnp.sum(known)
    mean = jnp.where(jnp.any(worse), mean, size_of_all)
    return state._replace(scale=(mean / -jnp.log(acceptance)).astype(jnp.float32))


def best_of(states: State, others: State) -> State:
    """Replaces the best point of each of the stacked `states` by that of `others` if better.

    >>> def two(best, energies):
    ...     return State((), (), np.array(best), np.array(energies), (), 1.0, 0.0, ())
    >>> states = two([[True, False], [True, False]], [0.5, 0.25])
    >>> states = best_of(states, two([[False, True], [False, True]], [0.375, 0.375]))
    >>> states.best.tolist(), states.best_energy.tolist()
    ([[False, True], [True, False]], [0.375, 0.25])
    """
    worse = others.best_energy < states.best_energy

    def better(mine: Array, theirs: Array) -> Array:
        return jnp.where(worse.reshape(-1, *[1] * (mine.ndim - 1)), theirs, mine)

    best = jax.tree.map(better, states.best, others.best)
    least = jnp.where(worse, others.best_energy, states.best_energy)
    return states._replace(best=best, best_energy=least)


def _either(when: Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(when, a, b), new, old)
