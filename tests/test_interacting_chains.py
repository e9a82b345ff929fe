"""Chains that help each other: exchanged temperatures, resampled populations, crossover."""

from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets.search import annealing, exchange, genetic, population, space, swaps
from jaxtickets.search.energies import Energy

KEY = jax.random.key(14)
# what is compiled without much optimisation is compiled sooner
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def line(sizes, scope="global"):
    """A space of one segment for each size."""
    params = {f"l{i}": {"kernel": np.zeros((1, n), "f")} for i, n in enumerate(sizes)}
    return space.weights(params, tuple(f"{name}/kernel" for name in params), scope)


# --- 20 masks of six bits with three ones, of random energies in [0, 2] --------------------------

SIX = line((6,))
MASKS = np.array([[i in chosen for i in range(6)] for chosen in combinations(range(6), 3)])
POWERS = 1 << np.arange(6)
LEVELS = np.random.default_rng(6).uniform(0, 2, 20).astype("f")
TABLE = np.zeros(64, "f")
TABLE[MASKS @ POWERS] = LEVELS
ENERGY = Energy(lambda key, mask: jnp.asarray(TABLE)[jnp.sum(SIX.bits(mask) * POWERS)], fresh=False)
KERNEL = annealing.build(swaps.moves(SIX, 3), SIX.mask, ENERGY, annealing.Rules())


def boltzmann(temperature):
    share = np.exp(-LEVELS / temperature)
    return share / share.sum()


def drawn(key, temperature):
    """The state of a chain at a mask that was drawn as Boltzmann says."""
    draw_key, init_key = jax.random.split(key)
    at = jax.random.categorical(draw_key, -jnp.asarray(LEVELS) / temperature)
    return KERNEL.init(init_key, jnp.asarray(MASKS)[at])


def number(states):
    return states.walk.bits @ POWERS


# --- replica exchange ----------------------------------------------------------------------------


def test_exchange_leaves_every_rung_as_boltzmann_says_and_without_its_rule_does_not():
    # independent ladders of four rungs, four rounds, a step of each chain after each
    scales, unit, ladders = np.array([0.4, 0.8, 1.6, 3.2], "f"), 0.5, 10_000
    plan = annealing.step_plans(1, lambda t: 0.0 * t + unit, lambda t: 1.0 + 0.0 * t)

    @partial(jax.jit, compiler_options=QUICK)
    def ends(trust):
        def one(key):
            keys = jax.random.split(key, 4)
            states = jax.vmap(drawn)(keys, unit * scales)
            ladder = exchange.begin(scales)

            def body(carry, key):
                ladder, states = carry
                swap_key, key = jax.random.split(key)
                ladder = exchange.swap(swap_key, ladder, trust * states.energy, unit)
                states = exchange.place(ladder, states)
                run = jax.vmap(lambda k, s: annealing.run(KERNEL, k, s, plan)[0])
                return (ladder, run(jax.random.split(key, 4), states)), None

            rounds = jax.random.split(jax.random.fold_in(key, 1), 4)
            ladder, states = jax.lax.scan(body, (ladder, states), rounds)[0]
            return ladder, number(states), states.scale

        return jax.vmap(one)(jax.random.split(KEY, ladders))

    def chi_squares(trust):
        ladder, numbers, scale = jax.tree.map(np.asarray, ends(trust))
        np.testing.assert_array_equal(scale, scales[ladder.rung])
        np.testing.assert_array_equal(np.sort(ladder.rung, 1), np.tile(range(4), (ladders, 1)))
        found = []
        for rung, T in enumerate(unit * scales):
            seen = np.bincount(numbers[ladder.rung == rung], minlength=64)[MASKS @ POWERS]
            expected = ladders * boltzmann(T)
            found.append(((seen - expected) ** 2 / expected).sum())
        return found, ladder

    exact, ladder = chi_squares(1.0)
    assert max(exact) < 51  # the 99.99 % quantile for 19 degrees of freedom
    assert len(np.unique(ladder.rung[:, 0])) == 4  # the coldest chain has been on all rungs
    assert min(chi_squares(0.0)[0]) > 200  # as if all energies were alike


def test_neighbours_change_places_with_the_chance_by_hand_and_pairs_take_turns():
    # T = 2 * (0.5, 1, 2): 1/T = 1, 1/2, 1/4. Energies on the rungs: 1.0, 0.4, 0.9.
    # rungs 0 and 1: (1 - 1/2) (1.0 - 0.4) > 0: always; then rungs 1 and 2, now with 1.0 and 0.9:
    # (1/2 - 1/4) (1.0 - 0.9) > 0: always; then rungs 0 and 1, with 0.4 and 0.9:
    # exp((1 - 1/2) (0.4 - 0.9)) = exp(-1/4)
    energy = jnp.asarray([1.0, 0.4, 0.9])
    ladder = exchange.begin([0.5, 1.0, 2.0])
    swap = jax.jit(jax.vmap(exchange.swap, (0, None, None, None)))
    first = exchange.swap(KEY, ladder, energy, 2.0)
    assert first.rung.tolist() == [1, 0, 2]
    second = exchange.swap(KEY, first, energy, 2.0)
    assert second.rung.tolist() == [2, 0, 1]
    third = swap(jax.random.split(KEY, 10_000), second, energy, 2.0)
    moved = np.asarray(third.rung == jnp.asarray([[2, 1, 0]])).all(1)
    stayed = np.asarray(third.rung == jnp.asarray([[2, 0, 1]])).all(1)
    assert (moved | stayed).all()
    chance = np.exp(-0.25)
    assert abs(moved.mean() - chance) < 4.5 * np.sqrt(chance * (1 - chance) / 10_000)
    np.testing.assert_allclose(third.accepted[0], [1 + chance, 1], rtol=1e-6)
    np.testing.assert_allclose(third.asked[0], [2, 1])
    rates = exchange.rates(third._replace(asked=third.asked[0], accepted=third.accepted[0]))
    np.testing.assert_allclose(rates, [(1 + chance) / 2, 1], rtol=1e-6)


def test_a_broken_energy_never_changes_places():
    ladder = exchange.begin([1.0, 2.0])
    for broken in (jnp.nan, jnp.inf):
        moved = exchange.swap(KEY, ladder, jnp.asarray([0.0, broken]), 1.0)
        assert moved.rung.tolist() == [0, 1] and jnp.isfinite(moved.accepted).all()


def test_ladders_adapt_until_all_neighbours_refuse_as_often():
    # at 1/T = b the energies are normal, of mean -9 b and variance 9, as in a random energy model
    @jax.jit
    def rounds(key, ladder):
        def body(ladder, key):
            noise_key, swap_key = jax.random.split(key)
            T = ladder.scales[ladder.rung]
            energy = -9 / T + 3 * jax.random.normal(noise_key, T.shape)
            return exchange.swap(swap_key, ladder, energy, 1.0), None

        return jax.lax.scan(body, ladder, jax.random.split(key, 2000))[0]

    ladder = rounds(KEY, exchange.begin([1.0, 1.1, 1.2, 1.3, 4.0]))
    before = exchange.rates(ladder)
    assert before[0] > 0.75 and before[-1] < 0.35
    for i in range(4):
        ladder = exchange.adapt(ladder)
        assert ladder.scales[0] == 1 and ladder.scales[-1] == 4
        assert (jnp.diff(ladder.scales) > 0).all() and not ladder.asked.any()
        ladder = rounds(jax.random.fold_in(KEY, i), ladder)
    after = exchange.rates(ladder)
    assert after.max() - after.min() < 0.06
    # of a flat ladder, on which nobody refuses, nothing is left to divide by
    flat = exchange.adapt(exchange.begin([1.0, 3.0, 4.0]))
    np.testing.assert_allclose(flat.scales, [1, 3, 4], rtol=1e-5)


# --- population annealing ------------------------------------------------------------------------


def test_a_cooled_population_is_as_boltzmann_says_and_without_weights_is_not():
    warm, cold, chains, populations = 1.2, 0.5, 512, 100

    @partial(jax.jit, compiler_options=QUICK)
    def cooled(trust):
        def one(key):
            states = jax.vmap(lambda k: drawn(k, warm))(jax.random.split(key, chains))
            trusted = states._replace(energy=trust * states.energy)
            after, found = population.cool(jax.random.fold_in(key, 1), trusted, warm, cold)
            return number(states), number(after), states, after, found

        return jax.vmap(one)(jax.random.split(KEY, populations))

    def deviations(trust):
        """In standard errors of the mean over populations."""
        before, numbers, states, after, found = jax.tree.map(np.asarray, cooled(trust))
        np.testing.assert_array_equal(numbers, np.take_along_axis(before, found.parents, 1))
        share = np.stack([(numbers == n).mean(1) for n in MASKS @ POWERS], 1)
        error = share.std(0, ddof=1) / np.sqrt(populations)
        return (share.mean(0) - boltzmann(cold)) / error, states, after, found

    exact, states, after, found = deviations(1.0)
    assert abs(exact).max() < 4.5
    assert abs(deviations(0.0)[0]).max() > 30
    # Z(T') / Z(T), up to a bias of one in the number of chains
    ratio = np.exp(-LEVELS / cold).sum() / np.exp(-LEVELS / warm).sum()
    estimates = np.exp(found.log_ratio)
    assert abs(estimates.mean() - ratio) < 4.5 * estimates.std() / np.sqrt(populations)
    # the effective share is that of the weights: E[w]^2 / E[w^2] at the warmer temperature
    weight = np.exp(-(1 / cold - 1 / warm) * LEVELS)
    moments = (boltzmann(warm) * weight).sum() ** 2 / (boltzmann(warm) * weight**2).sum()
    np.testing.assert_allclose(found.share.mean(), moments, rtol=0.02)
    # the energies come along, and no population's best is lost
    np.testing.assert_array_equal(after.energy, np.take_along_axis(states.energy, found.parents, 1))
    np.testing.assert_array_equal(after.best_energy.min(1), states.best_energy.min(1))
    np.testing.assert_array_equal(TABLE[after.best @ POWERS], after.best_energy)


def test_systematic_resampling_rounds_and_keeps_survivors_in_their_places():
    weight = np.array([0.0, 0.9, 2.3, 0.05, 1.75, 0.0, 1.0, 2.0])  # sums to 8
    resample = jax.jit(jax.vmap(population.resample, (0, None)))
    parents = np.asarray(resample(jax.random.split(KEY, 4000), jnp.log(weight)))
    copies = np.stack([(parents == i).sum(1) for i in range(8)], 1)
    assert (copies.sum(1) == 8).all()
    assert (copies >= np.floor(weight - 1e-4)).all() and (copies <= np.ceil(weight + 1e-4)).all()
    part = weight % 1
    error = np.sqrt(part * (1 - part) / 4000)
    assert (abs(copies.mean(0) - weight) < 4.5 * error + 1e-3).all()
    places = np.tile(np.arange(8), (4000, 1))
    np.testing.assert_array_equal(parents[copies > 0], places[copies > 0])


# --- crossover, tournaments, restarts ------------------------------------------------------------


@pytest.mark.parametrize(("scope", "floor"), [("global", 0), ("global", 3), ("layer", 0)])
def test_children_have_what_parents_share_and_exactly_their_counts(scope, floor):
    where = line((8, 12), scope)
    one = np.isin(np.arange(20), [0, 1, 2, 8, 9, 10, 11, 12])
    other = np.isin(np.arange(20), [2, 3, 4, 11, 12, 13, 14, 15])
    cross = jax.jit(jax.vmap(lambda key: genetic.crossover(key, where, one, other, floor)))
    children = np.asarray(cross(jax.random.split(KEY, 4000)))
    assert (children.sum(1) == 8).all()
    held = children[:, :8].sum(1)
    assert children[:, one & other].all() and not children[:, ~(one | other)].any()
    if scope == "layer":
        assert (held == 3).all()
    if floor:
        assert held.min() == floor and children[:, 8:].sum(1).min() == floor
    else:
        share = children[:, one ^ other].mean(0)
        assert abs(share - 0.5).max() < 4.5 * 0.5 / np.sqrt(4000)
    assert len(np.unique(children, axis=0)) > 30


def test_tournaments_are_won_by_the_best_of_those_drawn():
    # of three drawn out of five, the chain of rank r (0 is best) wins if all are of rank r or
    # worse, but not all worse: ((5 - r)^3 - (4 - r)^3) / 5^3; what is broken is worst
    energy = jnp.asarray([0.5, jnp.nan, -1.0, 0.1, 2.0])
    won = genetic.tournament(KEY, energy, 3, 20_000)
    rank = np.array([2, 4, 0, 1, 3])
    chance = ((5.0 - rank) ** 3 - (4.0 - rank) ** 3) / 125
    share = np.bincount(won, minlength=5) / 20_000
    assert (abs(share - chance) < 4.5 * np.sqrt(chance * (1 - chance) / 20_000)).all()


def some_states():
    """Six chains of different energies, that have met a better mask than they are at."""
    keys = jax.random.split(jax.random.key(2), 6)
    states = jax.jit(jax.vmap(KERNEL.init))(keys, jnp.asarray(MASKS[::3][:6]))
    best = jnp.asarray(MASKS[1::3][:6])
    states = states._replace(best=best, best_energy=jnp.asarray(TABLE)[best @ POWERS])
    scale = jnp.arange(1.0, 7.0)
    return states._replace(scale=scale, log_size=scale / 9)


@partial(jax.jit, static_argnums=(2, 3), compiler_options=QUICK)
def breed(key, states, children, size):
    return genetic.breed(key, KERNEL, SIX, states, children, size)


@partial(jax.jit, compiler_options=QUICK)
def restart(key, states):
    return genetic.restart(key, KERNEL, states, 2)


def check_replaced(before, after, worst):
    """The other chains are as they were; those keep their first mask, temperature and size."""
    others = np.setdiff1d(np.arange(6), worst)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(np.asarray(old)[others], np.asarray(new)[others])
    for name in ("start", "scale", "log_size"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    np.testing.assert_array_equal(after.energy, TABLE[np.asarray(after.walk.bits) @ POWERS])
    np.testing.assert_array_equal(after.best_energy, TABLE[np.asarray(after.best) @ POWERS])
    least = np.minimum(before.best_energy, after.energy)[worst]
    np.testing.assert_array_equal(after.best_energy[worst], least)


def test_the_worst_give_way_to_children_or_begin_again_at_the_best():
    before = some_states()
    worst = np.argsort(before.energy)[-2:]
    after = breed(KEY, before, 2, 4)
    check_replaced(before, after, worst)
    after = restart(KEY, before)
    check_replaced(before, after, worst)
    best = before.best[before.best_energy.argmin()]
    np.testing.assert_array_equal(after.walk.bits[worst], jnp.stack([best, best]))


def test_children_come_from_winners():
    # with tournaments of very many, both parents are the best chain, and so are the children
    before = some_states()
    after = breed(KEY, before, 3, 200)
    worst, best = np.argsort(before.energy)[-3:], np.argmin(before.energy)
    for i in worst:
        np.testing.assert_array_equal(after.walk.bits[i], before.walk.bits[best])
