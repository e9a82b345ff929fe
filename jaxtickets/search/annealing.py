"""Simulated annealing over masks: an `init` / `step` kernel and a scanned driver.

Each step proposes a swap that keeps the density exactly, evaluates the energy of the mask it leads
to, accepts it by a rule at a temperature, and undoes it otherwise. Kirkpatrick, Gelatt and Vecchi,
1983; over the masks of an untrained net, an undergraduate thesis of 2020.

    space = weights(params, prunable)
    kernel = annealing.build(space, energy, annealing.Rules(most=2000))
    state = kernel.init(key, mask)
    state, trace = annealing.run(kernel, key, state, annealing.plan(steps, temperature, size))
    ticket_mask = space.mask(state.best_bits)
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxtickets.search import acceptance, swaps, tabu
from jaxtickets.search.acceptance import Accept, Running
from jaxtickets.search.energies import Energy
from jaxtickets.search.space import Space, counts
from jaxtickets.types import Array, Key, Mask, Schedule


class Rules(NamedTuple):
    """How a kernel moves; static.

    Attributes:
      most: the largest swap that will be asked for.
      accept: the acceptance rule.
      running_start: what the `running_mean` rule's mean starts at; the first energy if None.
      floor: the least number of ones in each segment; a swap that goes below is drawn again.
      tabu: how many recent masks, the current one among them, are not to be met again.
      tries: how often a swap is drawn for `floor` and `tabu` before the step is given up.
      target: acceptance rate that the swap size adapts to; None to follow the plan.
      gain: change of log swap size for one acceptance above the target.
    """

    most: int
    accept: Accept = acceptance.metropolis
    running_start: float | None = None
    floor: tuple[int, ...] | None = None
    tabu: int = 0
    tries: int = 20
    target: float | None = None
    gain: float = 0.05


class Tick(NamedTuple):
    """What the outside decides about a step; `plan` stacks them for the scan.

    Attributes:
      step: int32.
      temperature: in units of the energy, or of the state's `scale`.
      size: int32, ones to switch off.
      level: bool, whether a new temperature level begins.
    """

    step: Array
    temperature: Array
    size: Array
    level: Array


class State(NamedTuple):
    """A chain.

    Attributes:
      walk: the current mask's bits, and what proposals need beside them.
      energy: the current mask's energy.
      best_bits: bool`[n]`, the mask of the lowest energy so far.
      best_energy: its energy.
      start_bits: bool`[n]`, the first mask.
      scale: multiplies the plan's temperatures; 1 unless estimated by `burn_in`.
      log_size: natural log of the adapted swap size.
      running: memory of the acceptance rule.
      memory: the tabu memory.
    """

    walk: swaps.Walk
    energy: Array
    best_bits: Array
    best_energy: Array
    start_bits: Array
    scale: Array
    log_size: Array
    running: Running
    memory: tabu.Memory


class Info(NamedTuple):
    """What happened in a step.

    Attributes:
      energy: of the mask after the step.
      best_energy: the lowest so far.
      accepted: bool.
      temperature: that the rule was given.
      size: ones that the step proposed to switch off.
      hamming: bits in which the mask differs from the first one.
    """

    energy: Array
    best_energy: Array
    accepted: Array
    temperature: Array
    size: Array
    hamming: Array


class Kernel(NamedTuple):
    """`init(key, mask) -> State` and `step(key, tick, state) -> (State, Info)`.

    `probe(key, size, state) -> rise`: the energy of a random neighbour of the current mask less its
    own, for `burn_in`. Keys are consumed.
    """

    init: Callable[[Key, Mask], State]
    step: Callable[[Key, Tick, State], tuple[State, Info]]
    probe: Callable[[Key, Array, State], Array]


def build(space: Space, energy: Energy, rules: Rules) -> Kernel:
    """The annealing kernel of a space, an energy and rules."""
    most = max(rules.most, 1)
    word = tabu.words(space) if rules.tabu else jnp.zeros((space.size, 2), jnp.uint32)

    def evaluate(key: Key, bits: Array) -> Array:
        return energy.evaluate(key, space.mask(bits)).astype(jnp.float32)

    def init(key: Key, mask: Mask) -> State:
        walk_key, energy_key = jax.random.split(key)
        bits = space.bits(mask)
        first = evaluate(energy_key, bits)
        start = first if rules.running_start is None else jnp.float32(rules.running_start)
        return State(
            walk=swaps.init(walk_key, space, bits),
            energy=first,
            best_bits=bits,
            best_energy=first,
            start_bits=bits,
            scale=jnp.float32(1),
            log_size=jnp.log(jnp.float32(most)),
            running=Running(start, jnp.float32(1)),
            memory=tabu.init(word, bits, rules.tabu),
        )

    def propose(key: Key, size: Array, state: State) -> tuple[swaps.Draw, Array, Array]:
        """A draw, whether it is allowed, and the hash it leads to."""
        nothing = jnp.zeros(2, jnp.uint32)
        if not rules.tabu and rules.floor is None:
            return swaps.draw(key, space, state.walk, size), jnp.bool_(True), nothing
        before = counts(space, state.walk.bits)

        def attempt(i: Array) -> tuple[swaps.Draw, Array, Array]:
            drawn = swaps.draw(jax.random.fold_in(key, i), space, state.walk, size)
            allowed, hash_ = jnp.bool_(True), nothing
            if rules.floor is not None:
                after = before + swaps.layer_change(space, state.walk, drawn, most)
                allowed &= jnp.all(after >= jnp.asarray(rules.floor))
            if rules.tabu:
                hash_ = tabu.hash_after(space, word, state.memory, state.walk, drawn, most)
                allowed &= ~tabu.known(state.memory, hash_)
            return drawn, allowed, hash_

        def again(carry: tuple) -> tuple:
            i, _ = carry
            return i + 1, attempt(i)

        def failed(carry: tuple) -> Array:
            i, (_, allowed, _) = carry
            return ~allowed & (i < rules.tries)

        return lax.while_loop(failed, again, (jnp.int32(1), attempt(jnp.int32(0))))[1]

    def size_of(tick: Tick, state: State) -> Array:
        if rules.target is None:
            return jnp.minimum(tick.size, most)
        return jnp.round(jnp.exp(state.log_size)).astype(jnp.int32)

    def step(key: Key, tick: Tick, state: State) -> tuple[State, Info]:
        draw_key, energy_key, accept_key = jax.random.split(key, 3)
        current = evaluate(energy_key, state.walk.bits) if energy.fresh else state.energy
        temperature = tick.temperature * state.scale
        drawn, allowed, hash_ = propose(draw_key, size_of(tick, state), state)
        walk = swaps.toggle(space, state.walk, drawn, most)
        proposed = evaluate(energy_key, walk.bits)
        running = acceptance.new_level(state.running, tick.level)
        accepted, moved = rules.accept(accept_key, temperature, current, proposed, running)
        accepted &= allowed & jnp.isfinite(proposed)
        walk = swaps.toggle(space, walk, drawn, most, when=~accepted)
        better = accepted & (proposed < state.best_energy)
        log_size = state.log_size
        if rules.target is not None:
            log_size += rules.gain * (accepted.astype(jnp.float32) - rules.target)
            log_size = jnp.clip(log_size, 0.0, jnp.log(jnp.float32(most)))
        memory = state.memory
        if rules.tabu:
            memory = tabu.remember(memory, hash_, accepted)
        new = State(
            walk=walk,
            energy=jnp.where(accepted, proposed, current),
            best_bits=jnp.where(better, walk.bits, state.best_bits),
            best_energy=jnp.where(better, proposed, state.best_energy),
            start_bits=state.start_bits,
            scale=state.scale,
            log_size=log_size,
            running=jax.tree.map(lambda a, b: jnp.where(accepted, a, b), moved, running),
            memory=memory,
        )
        distance = jnp.sum(walk.bits != state.start_bits, dtype=jnp.int32)
        info = Info(new.energy, new.best_energy, accepted, temperature, drawn.size, distance)
        # a broken energy must be seen: it is reported in place of the current one
        return new, info._replace(energy=jnp.where(jnp.isfinite(proposed), new.energy, proposed))

    def probe(key: Key, size: Array, state: State) -> Array:
        draw_key, energy_key = jax.random.split(key)
        current = evaluate(energy_key, state.walk.bits) if energy.fresh else state.energy
        drawn = swaps.draw(draw_key, space, state.walk, size)
        walk = swaps.toggle(space, state.walk, drawn, most)
        return evaluate(energy_key, walk.bits) - current

    return Kernel(init, step, probe)


def plan(steps: int, temperature: Schedule, size: Schedule, level: Schedule | None = None) -> Tick:
    """The ticks of a search, stacked: `[steps]` each.

    Args:
      steps: how many.
      temperature: step -> temperature.
      size: step -> ones to switch off; rounded down, at least 1.
      level: step -> whether a new temperature level begins; at every step by default.
    """
    step = jnp.arange(steps, dtype=jnp.int32)
    begins = jnp.ones(steps, bool) if level is None else level(step).astype(bool)
    sizes = jnp.maximum(jnp.floor(size(step) + 1e-3), 1).astype(jnp.int32)  # 1e-3: float noise
    return Tick(step, temperature(step).astype(jnp.float32), sizes, begins)


def run(kernel: Kernel, key: Key, state: State, ticks: Tick) -> tuple[State, Info]:
    """Steps through `ticks`, a stack; returns the state and the stacked infos.

    Step t uses `fold_in(key, t)`, so that a search cut into pieces anywhere gives the same numbers.
    """

    def body(state: State, tick: Tick) -> tuple[State, Info]:
        return kernel.step(jax.random.fold_in(key, tick.step), tick, state)

    return lax.scan(body, state, ticks)


def burn_in(
    kernel: Kernel, key: Key, state: State, size: Array, samples: int, acceptance: float
) -> State:
    """The state with its `scale` set to a start temperature, estimated from random neighbours.

    T0 = mean(rise | rise > 0) / -ln(χ) accepts the average worsening swap with probability χ;
    Johnson et al., "Optimization by simulated annealing", 1989, and Aarts and Korst. Where no
    neighbour is worse, the mean size of all changes stands in. The key is consumed.

    Args:
      kernel: the kernel.
      key: consumed.
      state: where the neighbours are drawn.
      size: swap size of the draws.
      samples: how many draws.
      acceptance: χ, in (0, 1).
    """
    keys = jax.random.split(key, samples)
    rise = lax.map(lambda k: kernel.probe(k, size, state), keys)
    worse = (rise > 0) & jnp.isfinite(rise)
    mean = jnp.sum(jnp.where(worse, rise, 0.0)) / jnp.maximum(jnp.sum(worse), 1)
    size_of_all = jnp.mean(jnp.where(jnp.isfinite(rise), jnp.abs(rise), 0.0))
    mean = jnp.where(jnp.any(worse), mean, size_of_all)
    return state._replace(scale=(mean / -jnp.log(acceptance)).astype(jnp.float32))
