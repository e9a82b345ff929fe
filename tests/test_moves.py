"""Moves over spaces that aren't bits: corrected proposals, sizes that are real numbers, trees."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.search import annealing
from jaxtickets.search.energies import Energy
from jaxtickets.search.moves import Moves, Proposal

KEY = jax.random.key(3)
LEVELS = jnp.asarray([0.0, 1.1, 0.3, 0.9, 1.7])
FORTH = 0.8  # chance of a step to the right, round a ring of five places


def ring(corrected):
    def propose(key, size, place):
        right = jax.random.bernoulli(key, FORTH)
        there = (place + jnp.where(right, size, -size)) % 5
        ratio = jnp.where(right, 1, -1) * jnp.log((1 - FORTH) / FORTH) * corrected
        return Proposal(there, jnp.bool_(True), ratio, size, place)

    def settle(proposal, accepted):
        return jnp.where(accepted, proposal.walk, proposal.undo)

    def distance(a, b):
        return abs(a - b)

    return Moves(lambda key, point: point, propose, settle, lambda walk: walk, distance, most=2)


def test_a_correction_makes_a_lopsided_proposal_visit_places_as_boltzmann_says():
    # independent walks that start where Boltzmann says and are there still after three steps
    chains, temperature = 40_000, 0.6
    energy = Energy(lambda key, place: LEVELS[place], fresh=False)
    plan = annealing.step_plans(3, lambda t: 0.0 * t + temperature, lambda t: 1.0 + t % 2)
    share = np.exp(-np.asarray(LEVELS) / temperature)
    expected = chains * share / share.sum()

    @partial(jax.jit, static_argnums=0)
    def ends(corrected):
        kernel = annealing.build(ring(corrected), lambda place: place, energy, annealing.Rules())

        def chain(key):
            start_key, key = jax.random.split(key)
            start = jax.random.categorical(start_key, -LEVELS / temperature)
            return annealing.run(kernel, key, kernel.init(key, start), plan)[0].walk

        return jax.vmap(chain)(jax.random.split(KEY, chains))

    def chi_square(corrected):
        seen = np.bincount(ends(corrected), minlength=5)
        return ((seen - expected) ** 2 / expected).sum()

    assert chi_square(True) < 23.5  # the 99.99 % quantile for four degrees of freedom
    assert chi_square(False) > 200


def test_real_sizes_follow_the_plan_or_adapt_to_the_target():
    # a walk over a tree of numbers with energy x^2 / 2 + y^2 / 2 at T = 1, by normal steps
    def propose(key, size, walk):
        noise = size * jax.random.normal(key, (2,))
        there = {"x": walk["x"] + noise[0], "y": walk["y"] + noise[1]}
        return Proposal(there, jnp.bool_(True), jnp.float32(0), size, walk)

    def settle(proposal, accepted):
        def either(new, old):
            return jnp.where(accepted, new, old)

        return jax.tree.map(either, proposal.walk, proposal.undo)

    def distance(a, b):
        return jnp.hypot(a["x"] - b["x"], a["y"] - b["y"])

    moves = Moves(
        lambda key, point: point, propose, settle, lambda walk: walk, distance, 40.0, 0.01, False
    )
    energy = Energy(lambda key, point: (point["x"] ** 2 + point["y"] ** 2) / 2, fresh=False)
    origin = {"x": jnp.float32(0), "y": jnp.float32(0)}
    plan = annealing.step_plans(3000, lambda t: 0.0 * t + 1, lambda t: 0.3 + 0.0 * t, whole=False)

    @partial(jax.jit, static_argnums=0)
    def search(target):
        kernel = annealing.build(moves, lambda p: p, energy, annealing.Rules(target=target))
        state = kernel.init(KEY, origin)
        end, info = annealing.run(kernel, KEY, state, plan)
        return kernel.point(state), (end, info), kernel.distance(end)

    begin, (state, info), far = search(None)
    assert plan.size.dtype == jnp.float32
    np.testing.assert_allclose(info.size, 0.3, rtol=1e-6)
    assert begin == origin
    np.testing.assert_allclose(far, distance(state.walk, origin), rtol=1e-6)
    np.testing.assert_allclose(
        state.best_energy, (state.best["x"] ** 2 + state.best["y"] ** 2) / 2, rtol=1e-6
    )
    for target in (0.2, 0.7):
        info = jax.tree.map(np.asarray, search(target)[1][1])
        assert abs(info.accepted[1000:].mean() - target) < 0.04
        assert info.size[0] == np.float32(40) and info.size.min() >= 0.01
        assert (info.size[1000:] % 1 != 0).all()
    assert info.size[1000:].mean() < 1  # 0.7 accepted takes steps well below the unit
