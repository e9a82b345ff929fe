"""Annealing: acceptance rules, and chains on problems small enough to enumerate."""

from functools import cache, partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxtickets import runs
from jaxtickets.search import acceptance, annealing, chains, energies, space, swaps
from jaxtickets.search.acceptance import ACCEPTANCES, Running
from jaxtickets.search.energies import Energy
from jaxtickets.types import Model

KEY = jax.random.key(11)
RULES = annealing.Rules()


def line(*sizes):
    """A space of one segment for each size."""
    params = {f"l{i}": {"kernel": np.zeros((1, n), "f")} for i, n in enumerate(sizes)}
    return space.weights(params, tuple(f"{name}/kernel" for name in params))


def first(size, ones):
    return jnp.arange(size) < ones


def every_mask(size, ones):
    """bool`[masks, size]`: all masks with that many ones."""
    chosen = list(combinations(range(size), ones))
    bits = np.zeros((len(chosen), size), bool)
    bits[np.arange(len(chosen))[:, None], chosen] = True
    return bits


def energy_of(function, where, fresh=False):
    """The energy `function(bits)`, or `function(key, bits)` if fresh."""
    if fresh:
        return Energy(lambda key, mask: function(key, where.bits(mask)), fresh=True)
    return Energy(lambda key, mask: function(where.bits(mask)), fresh=False)


def looked_up(table, where):
    """The energy of a mask read from `table[2^size]` at the number whose bits it is."""
    powers = 1 << np.arange(where.size)
    return energy_of(lambda bits: table[jnp.sum(jnp.where(bits, powers, 0))], where)


def ticks(steps, temperature=1.0, size=1, level=None):
    """A plan of constant temperature and size, or of given arrays."""
    plan = annealing.step_plans(
        steps, lambda t: jnp.zeros(t.shape) + temperature, lambda t: 0.0 * t + 1
    )
    sizes = jnp.broadcast_to(jnp.asarray(size, jnp.int32), (steps,))
    return plan._replace(size=sizes, level=plan.level if level is None else jnp.asarray(level))


def visit(kernel, key, state, plan):
    """As `annealing.run`, but it also returns the bits after each step."""

    def body(state, tick):
        state, info = kernel.step(jax.random.fold_in(key, tick.step), tick, state)
        return state, (info, state.walk.bits)

    return lax.scan(body, state, plan)


def assert_same(got, expected):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


# --- acceptance ----------------------------------------------------------------------------------


def asked(name, key, temperature, energy, proposed, mean=1.0):
    """The rule's word; a rule that keeps the mean of energies has `mean`, of one."""
    rule = ACCEPTANCES[name]
    memory = Running(jnp.float32(mean), jnp.float32(1)) if name == "running_mean" else ()
    return rule.accept(key, temperature, energy, proposed, 0.0, memory)


@pytest.mark.parametrize("name", ACCEPTANCES)
def test_every_rule_takes_the_better_and_the_equal_and_never_nan(name):
    @jax.jit
    def ask(energy, proposed):
        def one(key):
            return asked(name, key, 0.5, energy, proposed)

        return jax.vmap(one)(jax.random.split(KEY, 200))

    for proposed, expected in ((0.3, True), (1.0, True), (jnp.nan, False), (jnp.inf, False)):
        accepted, memory = ask(jnp.float32(1.0), jnp.float32(proposed))
        assert accepted.dtype == bool and accepted.shape == (200,)
        assert (np.asarray(accepted) == expected).all(), proposed
        assert jax.tree.structure(memory) == jax.tree.structure(
            ACCEPTANCES[name].init(jnp.float32(1.0))
        )


@pytest.mark.parametrize("name", ACCEPTANCES)
def test_no_rule_takes_the_worse_at_temperature_zero(name):
    accept = jax.jit(jax.vmap(lambda key: asked(name, key, 0.0, 1.0, jnp.float32(1.001))))
    accepted, _ = accept(jax.random.split(KEY, 200))
    assert not accepted.any()


@pytest.mark.parametrize(
    # T = 0.25; metropolis: exp(-(1.25 - 1) / T) = e^-1; running_mean from m = 1.125: e^-0.5
    ("name", "mean", "chance"),
    [("metropolis", 9.0, np.exp(-1)), ("running_mean", 1.125, np.exp(-0.5))],
)
def test_boltzmann_rules_take_the_worse_with_the_boltzmann_chance(name, mean, chance):
    keys = jax.random.split(KEY, 40_000)
    accept = jax.jit(jax.vmap(lambda key: asked(name, key, 0.25, 1.0, 1.25, mean)))
    accepted, _ = accept(keys)
    error = np.sqrt(chance * (1 - chance) / len(keys))  # one standard error, 0.0025
    assert abs(accepted.mean() - chance) < 4.5 * error


def test_running_mean_by_hand():
    # T is so small that an energy is accepted if and only if it is not above the mean m of n:
    #   begin                    m = 0.95              n = 1
    #   0.85 accepted            m = 0.95 - 0.10 / 2 = 0.90   n = 2
    #   0.92 above 0.90, refused
    #   0.84 accepted            m = 0.90 - 0.06 / 3 = 0.88   n = 3
    #   new temperature: the mean so far counts as one energy, n = 1
    #   0.80 accepted            m = 0.88 - 0.08 / 2 = 0.84   n = 2
    #   0.83 accepted, though 0.80 was better: m = 0.84 - 0.01 / 3 = 0.836667, n = 3
    proposals = [
        (False, 0.85, True, 0.90, 2),
        (False, 0.92, False, 0.90, 2),
        (False, 0.84, True, 0.88, 3),
        (True, 0.80, True, 0.84, 2),
        (False, 0.83, True, 0.836667, 3),
    ]
    rule, energy = acceptance.running_mean(0.95), jnp.float32(0.95)
    running = rule.init(jnp.float32(7))
    for begins, proposed, expected, mean, count in proposals:
        running = rule.new_level(running, jnp.bool_(begins))
        accepted, moved = rule.accept(
            KEY, jnp.float32(1e-9), energy, jnp.float32(proposed), 0.0, running
        )
        running = moved if accepted else running
        energy = jnp.where(accepted, proposed, energy)
        assert bool(accepted) == expected
        assert running.count == count
        np.testing.assert_allclose(running.mean, mean, atol=1e-6)


# --- chains over six bits: 20 masks with three ones, of random energies in [0, 2] ----------------

SIX = line(6)
MASKS = every_mask(6, 3)
TABLE = np.random.default_rng(4).uniform(0, 2, 64).astype("f")
LEVELS = np.sort(TABLE[MASKS @ (1 << np.arange(6))])


def built(where, energy, most, rules=RULES, **moves):
    """The kernel of swaps."""
    return annealing.build(swaps.moves(where, most, **moves), where.mask, energy, rules)


def six(rules=RULES, **moves):
    return built(SIX, looked_up(jnp.asarray(TABLE), SIX), 3, rules, **moves)


def test_metropolis_visits_masks_as_often_as_boltzmann_says():
    # 4 chains, 20,000 steps each, of swaps of 1, 2 and 3: the share of each of the 20 masks
    # against exp(-E / T) / Z at T = 0.7, in total variation; an even share would be 0.19 off
    steps, temperature = 20_000, 0.7
    plan = ticks(steps, temperature, 1 + np.arange(steps) % 3)
    kernel = six()

    @jax.jit
    @jax.vmap
    def chain(key):
        state = kernel.init(key, first(6, 3))
        return annealing.run(kernel, key, state, plan)[1].energy

    seen = np.asarray(chain(jax.random.split(KEY, 4)))
    share = np.bincount(np.searchsorted(LEVELS, seen.ravel()), minlength=20) / seen.size
    boltzmann = np.exp(-LEVELS / temperature) / np.exp(-LEVELS / temperature).sum()
    assert abs(boltzmann - 1 / 20).sum() / 2 > 0.15
    assert abs(share - boltzmann).sum() / 2 < 0.015


def test_greedy_never_goes_up_and_threshold_by_at_most_t():
    def either(key, temperature, energy, proposed, log_ratio):
        # one compilation for both: threshold where the temperature is positive
        rules = [acceptance.greedy, acceptance.threshold]
        args = key, abs(temperature), energy, proposed
        return lax.switch((temperature > 0).astype(int), rules, *args)

    kernel = six(annealing.Rules(acceptance.memoryless(either)))

    @jax.jit
    def rises(temperature):
        def chain(key):
            state = kernel.init(key, jax.random.permutation(key, first(6, 3)))
            energy = annealing.run(kernel, key, state, ticks(300, temperature))[1].energy
            return jnp.diff(jnp.concatenate([state.energy[None], energy]))

        return jax.vmap(chain)(jax.random.split(KEY, 8))

    greedy, threshold = np.asarray(rises(-9.0)), np.asarray(rises(0.3))
    assert greedy.max() == 0 and greedy.min() < 0
    assert 0 < threshold.max() <= 0.3 and threshold.min() < 0


def test_running_mean_holds_the_energies_accepted_at_this_temperature():
    # tabu refuses masks that the rule would have taken: these don't count either
    kernel = six(annealing.Rules(acceptance.running_mean(0.95)), tabu=6, tries=1)
    begins = np.arange(120) % 12 == 0
    plan = ticks(120, 0.2, 1, begins)

    def chain():
        state = kernel.init(KEY, first(6, 3))
        return state.memory, *annealing.run(kernel, KEY, state, plan)

    (mean, count), state, info = jax.tree.map(np.asarray, jax.jit(chain)())
    assert (mean, count) == (np.float32(0.95), 1)
    for new, accepted, energy in zip(begins, info.accepted, info.energy, strict=True):
        count = 1 if new else count
        if accepted:
            count += 1
            mean = mean + (energy - mean) / count
    assert 0.1 < info.accepted.mean() < 0.9
    np.testing.assert_allclose(state.memory.mean, mean, rtol=1e-5)
    assert state.memory.count == count


@cache
def followed():
    """A chain over two segments of 7 and 5 bits with 4 ones, and the bits after each step."""
    where = line(7, 5)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=12).astype("f"))
    energy = energy_of(lambda bits: jnp.sum(jnp.where(bits, weights, 0)), where)
    bits = jnp.zeros(12, bool).at[jnp.array([0, 1, 2, 8])].set(True)
    plan = ticks(400, 1.0, 1 + np.arange(400) % 4)

    @jax.jit
    def chain(floor):
        kernel = built(where, energy, 4, floor=floor)
        state = kernel.init(KEY, bits)
        return state, *visit(kernel, KEY, state, plan)

    begin, state, (info, visited) = jax.tree.map(np.asarray, chain((2, 1)))
    without_floor = np.asarray(chain((0, 0))[2][1])
    exact = np.where(visited, weights, 0).sum(1)
    return begin, state, info, visited, exact, without_floor


def test_every_visited_mask_has_the_density_and_the_energy_that_is_told():
    _, state, info, visited, exact, _ = followed()
    assert (visited.sum(1) == 4).all()
    assert len(np.unique(visited, axis=0)) > 30
    np.testing.assert_allclose(info.energy, exact, atol=1e-5)
    np.testing.assert_array_equal(state.walk.bits, visited[-1])
    assert state.energy == info.energy[-1]


def test_best_energy_is_the_least_visited_and_best_have_it():
    begin, state, info, visited, exact, _ = followed()
    least = np.minimum.accumulate(np.r_[begin.energy, info.energy])[1:]
    np.testing.assert_array_equal(info.best_energy, least)
    assert state.best_energy == least[-1] < least[0]
    np.testing.assert_array_equal(state.best, visited[np.argmin(exact)])
    np.testing.assert_array_equal(begin.best, begin.walk.bits)


def test_hamming_counts_the_bits_that_differ_from_the_first_mask():
    begin, state, _, visited, _, _ = followed()
    kernel = six(annealing.Rules())
    far = int((visited[-1] != begin.walk.bits).sum())
    assert int(kernel.distance(state)) == far > 0
    assert int(kernel.distance(begin)) == 0


def test_accepted_says_whether_the_mask_has_moved():
    begin, _, info, visited, _, _ = followed()
    moved = (visited != np.concatenate([[begin.walk.bits], visited[:-1]])).sum(1)
    np.testing.assert_array_equal(moved, 2 * info.size * info.accepted)
    assert 0.05 < info.accepted.mean() < 0.95


def test_floors_are_honoured_in_every_visited_mask():
    _, _, _, visited, _, without_floor = followed()
    assert (visited[:, :7].sum(1) >= 2).all() and (visited[:, 7:].sum(1) >= 1).all()
    # both floors are reached, and without them the walk goes below
    assert (visited[:, :7].sum(1) == 2).any() and (visited[:, 7:].sum(1) == 1).any()
    assert (without_floor[:, :7].sum(1) < 2).any() and (without_floor[:, 7:].sum(1) < 1).any()


def test_size_adapts_until_the_target_share_is_accepted():
    # 60 bits, half of them on, energy = sum of normal weights over the ones, T = 1: swaps of 15
    # are hardly ever accepted, swaps of 1 often
    where = line(60)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=60).astype("f"))
    energy = energy_of(lambda bits: jnp.sum(jnp.where(bits, weights, 0)), where)

    @jax.jit
    def chain(target):
        kernel = built(where, energy, 15, annealing.Rules(target=target))
        state = kernel.init(KEY, first(60, 30))
        return annealing.run(kernel, KEY, state, ticks(4000))[1]

    sizes = []
    for target in (0.1, 0.3):
        info = jax.tree.map(np.asarray, chain(target))
        assert abs(info.accepted[2000:].mean() - target) < 0.03
        assert info.size[0] == 15 and info.size.min() >= 1
        sizes.append(float(info.size[2000:].mean()))
    assert 1 < sizes[1] < sizes[0] - 1 < 14


def test_burn_in_accepts_the_mean_worsening_with_the_asked_chance():
    # The nine neighbours of a start of energy 0: those without bit 0 are at `up`, the others at
    # `other`. T0 = mean(rise | rise > 0) / -ln(0.2), and mean(|rise|) where nothing rises.
    start = first(6, 3)

    @jax.jit
    def burnt(up, other):
        def value(bits):
            moved = jnp.where(bits[0], other, up)
            return jnp.where(jnp.all(bits == start), 0.0, moved)

        kernel = built(SIX, energy_of(value, SIX), 3)
        state = kernel.init(KEY, start)
        after = annealing.burn_in(kernel, KEY, state, jnp.int32(1), 40, 0.2)
        _, info = kernel.step(KEY, jax.tree.map(lambda t: t[0], ticks(1, 0.5)), after)
        return state, after, info.temperature

    # neighbours without an energy, the last case, are left out
    cases = ((3.0, -1.0, 3.0), (-2.0, -2.0, 2.0), (3.0, 3.0, 3.0), (3.0, np.inf, 3.0))
    for up, other, mean_rise in cases:
        before, after, temperature = burnt(up, other)
        # -ln(0.2) = 1.6094379
        np.testing.assert_allclose(after.scale, mean_rise / 1.6094379, rtol=1e-5)
        np.testing.assert_allclose(np.exp(-mean_rise / after.scale), 0.2, rtol=1e-4)
        np.testing.assert_allclose(temperature, 0.5 * after.scale, rtol=1e-6)
        assert_same(after._replace(scale=1.0), before)  # nothing else has moved


@pytest.mark.parametrize(
    ("up", "other", "allowed", "mean_rise"),
    [
        (-2.0, 5.0, "up", 2.0),  # the worse ones are forbidden
        (3.0, 9.0, "up", 3.0),
        (-2.0, np.inf, "both", 2.0),  # no energy isn't a change of 0
        (3.0, 3.0, "none", np.nan),
    ],
)
def test_burn_in_leaves_forbidden_moves_and_those_without_an_energy_out(
    up, other, allowed, mean_rise
):
    start, moves = first(6, 3), swaps.moves(SIX, 3)

    def propose(key, size, walk):
        proposal = moves.propose(key, size, walk)
        ways = {"up": ~moves.point(proposal.walk)[0], "both": True, "none": False}
        return proposal._replace(allowed=jnp.asarray(ways[allowed]))

    def value(bits):
        return jnp.where(jnp.all(bits == start), 0.0, jnp.where(bits[0], other, up))

    energy = energy_of(value, SIX)
    kernel = annealing.build(moves._replace(propose=propose), SIX.mask, energy, RULES)
    state = kernel.init(KEY, start)
    after = jax.jit(lambda s: annealing.burn_in(kernel, KEY, s, jnp.int32(1), 40, 0.2))(state)
    np.testing.assert_allclose(after.scale, mean_rise / 1.6094379, rtol=1e-5)


def test_fresh_energies_score_both_masks_on_the_same_batch():
    # Each batch adds an offset of up to 1,000, which dwarfs the masks' own energies, in 64ths so
    # that no digit is lost. The offset cancels: the walk is that of the energies without it.
    table = jnp.asarray(np.random.default_rng(4).integers(0, 128, 64) / 64, jnp.float32)
    calm = looked_up(table, SIX)

    @jax.jit
    def chain(loudness):
        def noisy(key, mask):
            return calm.evaluate(key, mask) + loudness * jax.random.randint(key, (), 0, 1000)

        kernel = built(SIX, Energy(noisy, fresh=True), 3)
        state = kernel.init(KEY, first(6, 3))
        return visit(kernel, KEY, state, ticks(300, 0.5))[1]

    (info, visited), (shaken, same) = jax.tree.map(np.asarray, (chain(0), chain(1)))
    np.testing.assert_array_equal(visited, same)
    np.testing.assert_array_equal(info.accepted, shaken.accepted)
    assert 0.1 < info.accepted.mean() < 0.9
    # energies of different steps, each of its own batch, are worlds apart
    assert np.abs(np.diff(shaken.energy)).mean() > 100
    exact = np.asarray(table)[visited @ (1 << np.arange(6))]
    np.testing.assert_array_equal(info.energy, exact)


def test_a_proposed_energy_that_is_not_finite_is_refused_and_told():
    # every mask with the last bit has it
    @jax.jit
    def chain(table):
        kernel = built(SIX, looked_up(table, SIX), 3)
        return visit(kernel, KEY, kernel.init(KEY, first(6, 3)), ticks(100))

    for broken in (np.nan, np.inf, -np.inf):
        table = np.where(np.arange(64) < 32, 0.0, broken).astype("f")
        state, (info, visited) = jax.tree.map(np.asarray, chain(table))
        told = ~np.isfinite(info.energy)
        assert 10 < told.sum() < 90
        np.testing.assert_array_equal(info.energy[told], np.full(told.sum(), broken, "f"))
        assert not visited[:, 5].any()
        np.testing.assert_array_equal(info.accepted, ~told)
        assert state.energy == state.best_energy == 0 and (info.best_energy == 0).all()


def test_plan_rounds_sizes_down_to_no_less_than_one():
    # 4.9, 3.6, 2.3, 1.0, -0.3, nothing: 4, 3, 2, 1 (1.0 and below), 1, 1
    plan = annealing.step_plans(
        6, lambda t: 2.0 / (1 + t), lambda t: jnp.maximum(4.91 - 1.3 * t, -1.0)
    )
    assert plan.size.tolist() == [4, 3, 2, 1, 1, 1] and plan.size.dtype == jnp.int32
    np.testing.assert_allclose(plan.temperature, [2, 1, 2 / 3, 0.5, 0.4, 1 / 3], rtol=1e-6)
    assert plan.step.tolist() == list(range(6)) and plan.level.all()
    plan = annealing.step_plans(4, lambda t: t * 1.0, lambda t: t * 1.0, lambda t: t % 2 == 0)
    assert plan.level.tolist() == [True, False, True, False]


# --- a tiny net ----------------------------------------------------------------------------------


@cache
def net():
    """Two layers, 8 + 4 weights, 40 examples: its space, its energy and a kernel."""
    draw = np.random.default_rng(3)
    images = jnp.asarray(draw.normal(size=(40, 4)).astype("f"))
    labels = (images[:, 0] > images[:, 2]).astype(int)
    params = {
        "fc": {"kernel": jnp.asarray(draw.normal(size=(4, 2)).astype("f"))},
        "out": {"kernel": jnp.asarray(2 * draw.normal(size=(2, 2)).astype("f"))},
    }

    def apply(params, stats, images, key=None, train=False):
        return jnp.tanh(images @ params["fc"]["kernel"]) @ params["out"]["kernel"], stats

    where = space.weights(params, ("fc/kernel", "out/kernel"))
    measure = energies.MEASURES["cross_entropy"]
    energy = energies.fixed(
        Model(lambda key: (params, {}), apply), params, {}, images, labels, measure
    )
    rules = annealing.Rules(acceptance.running_mean(), target=0.3)
    return where, energy, built(where, energy, 4, rules)


def test_annealing_finds_the_best_of_all_masks_of_a_tiny_net():
    # 12 bits, 6 on: 924 masks, all scored; 600 steps of a random search would find the best in
    # less than half of the chains, the annealer does so in all eight
    where, energy, _ = net()
    masks = every_mask(12, 6)
    kernel = built(where, energy, 3)
    plan = annealing.step_plans(600, lambda t: 0.1 * 0.03 ** (t / 599), lambda t: 1.0 + t % 2)

    @jax.jit
    def chain(key):
        state = kernel.init(key, jax.random.permutation(key, first(12, 6)))
        state, _ = annealing.run(kernel, key, state, plan)
        return state.best, state.best_energy

    @jax.jit
    def enumerate_all(masks):
        return lax.map(lambda bits: energy.evaluate(KEY, where.mask(bits)), masks)

    exact = np.asarray(enumerate_all(masks))
    for key in jax.random.split(KEY, 8):
        bits, found = chain(key)
        np.testing.assert_array_equal(bits, masks[exact.argmin()])
        np.testing.assert_allclose(found, exact.min(), rtol=1e-5)


STEPS = 60
PLAN = ticks(STEPS, np.linspace(0.3, 0.03, STEPS))


def begun(key):
    """A chain with adaptive sizes and a running mean, which the steps carry along."""
    kernel = net()[2]
    bits = jnp.zeros(12, bool).at[jnp.array([0, 1, 2, 3, 8])].set(True)
    return kernel.init(jax.random.fold_in(key, STEPS), bits)


def full_chain(key):
    return annealing.run(net()[2], key, begun(key), PLAN)


@cache
def alone():
    """`begun` and `annealing.run`, compiled, for one chain."""
    return jax.jit(begun), jax.jit(partial(annealing.run, net()[2]))


@cache
def solo():
    """Three chains, each run alone, stacked."""
    begin, run = alone()
    made = [run(key, begin(key), PLAN) for key in jax.random.split(KEY, 3)]
    state, info = jax.tree.map(lambda *leaves: np.stack(leaves), *made)
    assert 0.05 < info.accepted.mean() < 0.95 and len(np.unique(info.size)) > 1
    return state, info


def test_mapped_chains_have_the_bits_of_their_solo_runs_on_several_devices():
    axis = runs.axis("map", 1, jax.local_devices()[:2])
    assert_same(runs.over_runs(full_chain, axis, jax.random.split(KEY, 3)), solo())


def test_vmapped_chains_agree_with_their_solo_runs():
    axis = runs.axis("vmap", 3)
    state, info = runs.over_runs(full_chain, axis, jax.random.split(KEY, 3))
    expected_state, expected_info = solo()
    np.testing.assert_array_equal(info.accepted, expected_info.accepted)
    np.testing.assert_array_equal(state.walk.bits, expected_state.walk.bits)
    np.testing.assert_allclose(info.energy, expected_info.energy, rtol=1e-5)


@pytest.mark.parametrize("lengths", [(STEPS - 1, 1), (1,) * STEPS])
def test_a_search_cut_anywhere_gives_the_same_numbers(lengths):
    key = jax.random.split(KEY, 3)[0]
    begin, run = alone()
    state, infos = begin(key), []
    for end, length in zip(np.cumsum(lengths), lengths, strict=True):
        piece = jax.tree.map(lambda t: t[end - length : end], PLAN)  # noqa: B023
        state, info = run(key, state, piece)
        infos.append(info)
    info = jax.tree.map(lambda *parts: np.concatenate(parts), *infos)
    assert_same((state, info), jax.tree.map(lambda leaf: leaf[0], solo()))


@pytest.mark.parametrize("fresh", [False, True])
def test_a_chain_chooses_the_candidate_of_the_lowest_validation_score(fresh):
    # The candidate after a chunk is the best mask by energy so far; where energies are a new
    # batch's each time, the current mask.
    calm = looked_up(jnp.asarray(TABLE), SIX)
    energy = calm._replace(fresh=fresh)
    kernel = built(SIX, energy, 3)
    scores = abs(jnp.asarray(TABLE) - 1.1)
    validate = partial(looked_up(scores, SIX).evaluate, KEY)
    plan, key = ticks(30, 0.3), jax.random.key(6)
    worst = MASKS[TABLE[MASKS @ (1 << np.arange(6))].argmax()]

    @jax.jit
    def search():
        def chunk(chain, tick):
            tick = jax.tree.map(lambda t: t[None], tick)
            chain, _, _ = chains.chunk(kernel, energy, SIX.mask, validate, key, chain, tick)
            return chain, chain

        chain = chains.begin(kernel.init(KEY, jnp.asarray(worst)))
        return chain.chosen_score, lax.scan(chunk, chain, plan)[1]

    begin, seen = search()
    assert begin == np.inf
    scores, candidates = np.asarray(scores), []
    visited = seen.state.walk.bits if fresh else seen.state.best
    for bits, chosen, score in zip(visited, seen.chosen, seen.chosen_score, strict=True):
        candidates.append((scores[bits @ (1 << np.arange(6))], bits.tolist()))
        assert (score, chosen.tolist()) == min(candidates)
    # neither the first nor the last candidate is the one
    assert min(candidates) not in (candidates[0], candidates[-1])
