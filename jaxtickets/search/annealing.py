"""Simulated annealing: an `init` / `step` kernel over any space, and a scanned driver.

Each step proposes a move, evaluates the energy of where it leads to, accepts it by a rule at a
temperature, and undoes it otherwise. Kirkpatrick, Gelatt and Vecchi, 1983; over the masks of an
untrained net, by swaps that keep the density exactly, an undergraduate thesis of 2020.

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
from jaxtickets.types import Array, Key, Mask, PyTree, Schedule


class Rules(NamedTuple):
    """How a kernel decides; static.

    Attributes:
      accept: the acceptance rule.
      target: acceptance rate that the moves' size adapts to; None to follow the plan.
      gain: change of log size for one acceptance above the target.
    """

    accept: Rule = ACCEPTANCES["metropolis"]
    target: float | None = None
    gain: float = 0.05


class StepPlan(NamedTuple):
    """What the outside decides about a step; `plan` stacks them for the scan.

    Attributes:
      step: int32.
      temperature: in units of the energy, or of the state's `scale`.
      size: of the move: int32, ones to switch off; float32 where sizes aren't whole.
      level: bool, whether a new temperature level begins.
    """

    step: Array
    temperature: Array
    size: Array
    level: Array


class State(NamedTuple):
    """A chain.

    Attributes:
      walk: the current point, and what proposals need beside it.
      energy: the current point's energy.
      best: the point of the lowest energy so far.
      best_energy: its energy.
      start: the first point.
      scale: multiplies the plan's temperatures; 1 unless estimated by `burn_in`.
      log_size: natural log of the adapted size.
      memory: of the acceptance rule.
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
    """What happened in a step.

    Attributes:
      energy: of the point after the step.
      best_energy: the lowest so far.
      accepted: bool.
      temperature: that the rule was given.
      size: of the proposed move, such as the ones to switch off.
    """

    energy: Array
    best_energy: Array
    accepted: Array
    temperature: Array
    size: Array


class Kernel(NamedTuple):
    """`init(key, point) -> State` and `step(key, tick, state) -> (State, Info)`.

    `probe(key, size, state) -> rise`: the energy of a random neighbour of the current point less
    its own, for `burn_in`; NaN where the move there isn't allowed. Keys are consumed.
    `point(state)` is the current point, and `distance(state)` how far it is from the first one.
    `refresh(state) -> (state, drift)`, see `Moves.refresh`; the energies stay.
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
    """The annealing kernel of moves, an energy and rules.

    Args:
      moves: how a walk goes on.
      mask_of: the mask of a point.
      energy: of masks.
      rules: how the kernel decides.
      at: `at(walk) -> scalar`: the energy at a walk of one that knows more than its point, such as
        `incremental_energy.fixed`; by default that of the point's mask.
    """
    limits = jnp.log(jnp.float32(moves.least)), jnp.log(jnp.float32(moves.most))

    def evaluate(key: Key, walk: PyTree) -> Array:
        if at is not None:
            return at(walk).astype(float)
        return energy.evaluate(key, mask_of(moves.point(walk))).astype(float)

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
            log_size=limits[1],
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
            log_size = jnp.clip(log_size, *limits)
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
        # a broken energy must be seen: it is reported in place of the current one
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
    """The ticks of a search, stacked: `[steps]` each.

    Args:
      steps: how many.
      temperature: step -> temperature.
      size: step -> size of the move; if whole, rounded down, at least 1.
      level: step -> whether a new temperature level begins; at every step by default.
      whole: whether sizes are whole numbers, as `Moves.whole`.
    """
    step = jnp.arange(steps, dtype=jnp.int32)
    begins = jnp.ones(steps, bool) if level is None else level(step).astype(bool)
    sizes = size(step).astype(jnp.float32)
    if whole:
        sizes = jnp.maximum(jnp.floor(sizes + 1e-3), 1).astype(jnp.int32)  # 1e-3: float noise
    return StepPlan(step, temperature(step).astype(jnp.float32), sizes, begins)


def run(kernel: Kernel, key: Key, state: State, ticks: StepPlan) -> tuple[State, Info]:
    """Steps through `ticks`, a stack; returns the state and the stacked infos.

    Step t uses `fold_in(key, t)`, so that a search cut into pieces anywhere gives the same numbers.
    """

    def body(state: State, tick: StepPlan) -> tuple[State, Info]:
        return kernel.step(jax.random.fold_in(key, tick.step), tick, state)

    return lax.scan(body, state, ticks)


def burn_in(
    kernel: Kernel, key: Key, state: State, size: Array, samples: int, acceptance: float
) -> State:
    """The state with its `scale` set to a start temperature, estimated from random neighbours.

    T0 = mean(rise | rise > 0) / -ln(χ) accepts the average worsening move with probability χ;
    Johnson et al., "Optimization by simulated annealing", 1989, and Aarts and Korst. Where no
    neighbour is worse, the mean size of all changes stands in. Moves that aren't allowed, and those
    to where the energy isn't finite, don't count; where all are such, the scale is NaN, at which
    nothing is accepted. The key is consumed.

    Args:
      kernel: the kernel.
      key: consumed.
      state: where the neighbours are drawn.
      size: of the moves.
      samples: how many draws.
      acceptance: χ, in (0, 1).
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
    """Stacked `states`, each with the better of its own best point and that of `others`."""
    worse = others.best_energy < states.best_energy

    def better(mine: Array, theirs: Array) -> Array:
        return jnp.where(worse.reshape(-1, *[1] * (mine.ndim - 1)), theirs, mine)

    best = jax.tree.map(better, states.best, others.best)
    least = jnp.where(worse, others.best_energy, states.best_energy)
    return states._replace(best=best, best_energy=least)


def _either(when: Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(when, a, b), new, old)
