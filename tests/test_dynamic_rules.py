"""The rules and plans of dynamic methods, worked by hand on ten weights, and how rules sample."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import masks
from jaxtickets.dynamic import deep_rewiring, flipout, langevin, rules
from jaxtickets.dynamic.base import View
from jaxtickets.dynamic.drop_and_grow import MovePlan, drop_and_grow
from jaxtickets.dynamic.gsm import gsm
from jaxtickets.dynamic.ham import ham
from jaxtickets.dynamic.methods import METHODS
from jaxtickets.dynamic.powerpropagation import powerpropagation
from jaxtickets.dynamic.rigl import rigl
from jaxtickets.dynamic.sparse_momentum import sparse_momentum

KEY = jax.random.key(0)
PRUNABLE = ("a/kernel", "b/kernel")


def net(a, b):
    return {"a": {"kernel": jnp.asarray(a)}, "b": {"kernel": jnp.asarray(b)}}


MASK = net([[True, True, False], [True, False, True]], [[True, False], [True, True]])
PARAMS = net([[0.5, -0.2, 0.0], [0.1, 0.0, -0.4]], [[0.3, 0.0], [-0.6, 0.05]])
GRADIENT = net([[0.1, -0.5, 0.9], [0.2, 0.3, -0.1]], [[1.0, -0.7], [0.05, -0.8]])
COUNTS = net([[0, 1, 0], [0, 0, 3]], [[2, 0], [0, 4]])  # flips


def view(**given):
    known = {"inner": (), "method": (), "calls": jnp.int32(0), "key": KEY}
    known |= {"gradient": GRADIENT, "params": PARAMS, "mask": MASK}
    return View(**(known | given))


def close(found, expected, **given):
    jax.tree.map(partial(np.testing.assert_allclose, **({"rtol": 1e-6} | given)), found, expected)


def momentum_of(state):
    return rules.momentum(view(inner=(optax.EmptyState(), state)))


TRACE = optax.TraceState(GRADIENT)
SQUARES = jax.tree.map(lambda g: jnp.full(g.shape, 0.25), GRADIENT)  # sqrt: 0.5
ADAM = optax.ScaleByAdamState(jnp.int32(1), GRADIENT, SQUARES)
SIZES = net([[0.1, 0.5, 0.9], [0.2, 0.3, 0.1]], [[1.0, 0.7], [0.05, 0.8]])
GOLDEN = {
    "magnitude": (
        lambda: rules.magnitude(view()),
        net([[0.5, 0.2, 0], [0.1, 0, 0.4]], [[0.3, 0], [0.6, 0.05]]),
    ),
    "taylor": (  # |w g|
        lambda: rules.taylor(view()),
        net([[0.05, 0.1, 0], [0.02, 0, 0.04]], [[0.3, 0], [0.03, 0.04]]),
    ),
    # a: of 0.1 < 0.5 and of 0.2 < 0.4 each the first and second half; b: 0.05 < 0.3, and 0.6 alone
    "magnitude_by_sign": (
        lambda: rules.magnitude_by_sign(view()),
        net([[1, 0.5, 0], [0.5, 0, 1]], [[1, 0], [1, 0.5]]),
    ),
    "gradient": (lambda: rules.gradient(view()), SIZES),
    "momentum": (lambda: momentum_of(TRACE), SIZES),
    "momentum of Adam": (lambda: momentum_of(ADAM), jax.tree.map(lambda m: m / 0.5, SIZES)),
    "saliency": (  # |w|² / (flips + 1)
        lambda: flipout.saliency(PARAMS, COUNTS),
        net([[0.25, 0.02, 0], [0.01, 0, 0.04]], [[0.03, 0], [0.36, 0.0005]]),
    ),
    "saliency of flips": (  # |w| / (1 + |w|) - flips
        lambda: flipout.saliency(PARAMS, COUNTS, 0),
        net(
            [[1 / 3, 1 / 6 - 1, 0], [1 / 11, 0, 2 / 7 - 3]], [[3 / 13 - 2, 0], [3 / 8, 1 / 21 - 4]]
        ),
    ),
}


@pytest.mark.parametrize("rule", GOLDEN)
def test_scores_worked_by_hand(rule):
    score, expected = GOLDEN[rule]
    close(score(), expected)


def test_paths_of_length_three_are_weighed_by_links_out_of_their_community():
    # From input 0 to output 2 only by output 0 and input 1, each with one other link; in b from
    # input 0 to output 1 only by output 0 and input 1, too.
    found = rules.paths(view())
    close([found["a"]["kernel"][0, 2], found["b"]["kernel"][0, 1]], [2.0, 2.0], atol=2e-6)
    # From input 2 to output 0 by output 1 (with 1 other link) and inputs 0 (2) or 1 (1), and to
    # output 2 by output 1 (2) and input 0 (2).
    mask = jnp.array([[True, True, True], [True, True, False], [False, True, False]])
    found = rules.paths(view(mask={"w": mask}, params={"w": mask * 1.0}))["w"]
    close(found[2, 0], 1 + 1 / 2 + 1, atol=2e-6)
    close(found[2, 2], 1 / 2 + 1 / 2, atol=2e-6)
    empty = rules.paths(view(mask={"w": mask & False}, params={"w": mask * 0.0}))["w"]
    assert 0 <= empty.min() < empty.max() <= 1e-6
    assert not np.any(rules.paths(view(mask={"b": mask[0]}, params={"b": mask[0]}))["b"])


def moved(optimizer, params, gradient=GRADIENT, steps=()):
    """The parameters and the state after training steps and a move."""
    state = optimizer.init(params)
    for step in steps:
        updates, state = optimizer.update(step, state, params, move=False)
        params = optax.apply_updates(params, updates)
    updates, state = optimizer.update(gradient, state, params, move=True)
    return optax.apply_updates(params, updates), state


def one_move(ones, replaced):
    return MovePlan(*jax.tree.map(lambda count: np.array([count]), (ones, replaced)))


def test_a_move_of_rigl_worked_by_hand():
    # a drops 0.1, and of the gradients 0.9, 0.2 (the dropped) and 0.3, the first is the largest;
    # b drops 0.05, which has the largest gradient of 0.7 and 0.8, and so returns with its value.
    each = {"a/kernel": 1, "b/kernel": 1}
    moves = one_move({"a/kernel": 4, "b/kernel": 3}, each)
    params, state = moved(rigl(optax.sgd(0.1), MASK, PRUNABLE, moves, 1), PARAMS)
    close(state.mask, net([[1, 1, 1], [0, 0, 1]], [[1, 0], [1, 1]]))
    close(params, net([[0.5, -0.2, 0], [0, 0, -0.4]], [[0.3, 0], [-0.6, 0.05]]))


def test_a_global_move_worked_by_hand():
    # Of seven, six stay in all: 0.05 goes. Then one more goes: 0.1. Of the pruned gradients 0.9,
    # 0.2, 0.3, 0.7 and 0.8, the first grows.
    optimizer = drop_and_grow(
        optax.sgd(0.1), MASK, PRUNABLE, one_move(6, 1), 1, shares="global", grow=rules.gradient
    )
    _, state = moved(optimizer, PARAMS)
    close(state.mask, net([[1, 1, 1], [0, 0, 1]], [[1, 0], [1, 0]]))


def test_grow_scores_see_what_is_left_after_the_drop():
    # By the mask before the drop, what was just dropped would return.
    def grow(view):
        return jax.tree.map(lambda keep, w: 1.0 * keep + jnp.abs(w), view.mask, view.params)

    moves = one_move({"a/kernel": 4, "b/kernel": 3}, {"a/kernel": 1, "b/kernel": 1})
    optimizer = drop_and_grow(optax.sgd(0.1), MASK, PRUNABLE, moves, 1, grow=grow)
    _, state = moved(optimizer, PARAMS)  # the first of equal ones grow
    close(state.mask, net([[1, 1, 1], [0, 0, 1]], [[1, 1], [1, 0]]))


def test_a_move_of_sparse_momentum_worked_by_hand():
    # Two of seven go: 2 · 4 / 7 = 1.14 of a and 0.86 of b, so one each: 0.1 and 0.05. The mean
    # momentum of a is 0.0225, that of b 1.85 / 3, so that of two, a gets 0.07 and b 1.93: both
    # places of b are filled. The gradient of the move itself doesn't count.
    small = net(GRADIENT["a"]["kernel"] / 10, GRADIENT["b"]["kernel"])
    optimizer = sparse_momentum(optax.sgd(0.0), MASK, PRUNABLE, one_move(7, 2), 1)
    params, state = moved(optimizer, PARAMS, jax.tree.map(lambda g: -9 * g, GRADIENT), [small])
    close(state.mask, net([[1, 1, 0], [0, 0, 1]], [[1, 1], [1, 1]]))
    close(params["b"]["kernel"], [[0.3, 0], [-0.6, 0.05]])
    close(state.method.memory.momentum, small)


def test_sparse_momentums_average_worked_by_hand():
    optimizer = sparse_momentum(optax.sgd(0.0), MASK, PRUNABLE, one_move(7, 0), 1, adaptive=True)
    twice = jax.tree.map(lambda g: 2 * g, GRADIENT)
    _, state = moved(optimizer, PARAMS, steps=[GRADIENT, twice])
    averages = state.method.memory
    close(averages.momentum, jax.tree.map(lambda g: 2.9 * g, GRADIENT))  # 0.9 g + 2 g
    # 0.999 · 0.001 g² + 0.001 · 4 g²
    close(averages.squares, jax.tree.map(lambda g: 0.004999 * g * g, GRADIENT), rtol=1e-5)


def test_flips_are_counted_where_a_sign_changes():
    flips = {"w": jnp.array([0, 1, 2, 0, 0])}
    before = {"w": jnp.array([1.0, -1.0, 0.5, 0.0, 1e-30])}
    after = {"w": jnp.array([-0.1, -2.0, 0.0, 1.0, -1e-30])}
    assert flipout.count_flips(flips, before, after)["w"].tolist() == [1, 1, 2, 0, 1]


def test_flipouts_noise_has_the_spread_of_its_leafs_kept_gradient():
    # b: sqrt((1 + 0.05² + 0.8²) / 3) = 0.74
    quiet = flipout.with_noise(view(), ("b/kernel",), 0.0)
    close(quiet, GRADIENT)

    def noise(key):
        return flipout.with_noise(view(key=key), ("b/kernel",), 2.0)

    drawn = jax.vmap(noise)(jax.random.split(KEY, 10_000))
    np.testing.assert_array_equal(drawn["a"]["kernel"][0], GRADIENT["a"]["kernel"])
    spread = np.sqrt((1 + 0.0025 + 0.64) / 3)
    np.testing.assert_allclose(np.std(drawn["b"]["kernel"], 0), 2 * spread, rtol=0.03)


def test_gsm_moves_the_largest_products_by_their_gradient_and_others_by_decay():
    # |w g| is largest at 0.3, 0.1 and 0.05. With decay 0.5 and rate 0.1: w - 0.1 (g + 0.5 w).
    inner = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1))
    optimizer = gsm(inner, MASK, PRUNABLE, one_move(3, 0), 1)
    updates, _ = optimizer.update(GRADIENT, optimizer.init(PARAMS), PARAMS, move=False)
    found = optax.apply_updates(PARAMS, updates)
    a = [[0.475 - 0.01, -0.19 + 0.05, 0], [0.095, 0, -0.38]]
    close(found, net(a, [[0.285 - 0.1, 0], [-0.57, 0.0475]]))


def step_of(optimizer, w, g):
    params = {"w": jnp.array(w)}
    updates, state = optimizer.update({"w": jnp.array(g)}, optimizer.init(params), params)
    return optax.apply_updates(params, updates)["w"], state


def test_hams_step_worked_by_hand():
    # SGD reaches 0.49 and -0.15; the exponents are 0.1 (-2 · 0.1 - 0.5) and 0.1 (-2 · 0.5 - 0.5).
    found, _ = step_of(ham(optax.sgd(0.1), 0.1, alpha=2, beta=0.5), [0.5, -0.2, 0], [0.1, -0.5, 0])
    close(found, [0.49 * np.exp(-0.07), -0.15 * np.exp(-0.15), 0.0])
    # the exponent 0.1 · 200 · 10 is clipped to 5, that of the opposite sign to -5
    found, _ = step_of(ham(optax.sgd(0.1), 0.1), [1.0, 3.0], [-10.0, 10.0])
    close(found, [2 * np.exp(5), 2 * np.exp(-5)])
    scheduled = ham(optax.sgd(0.0), lambda step: 0.1 * (step + 1), alpha=0, beta=1.0)
    found, state = step_of(scheduled, [1.0], [0.0])
    updates, _ = scheduled.update({"w": jnp.zeros(1)}, state, {"w": found})
    close(found + updates["w"], np.exp([-0.3]))


def test_powerpropagations_step_worked_by_hand():
    # α = 2: θ = 0.5 and -0.5, dL/dθ = 2 · 0.5 · 1, θ becomes 0.4 and -0.6; zero stays
    found, _ = step_of(powerpropagation(optax.sgd(0.1)), [0.25, -0.25, 0.0], [1.0, 1.0, 1.0])
    close(found, [0.16, -0.36, 0.0])
    # α = 3: θ = 0.5, dL/dθ = 3 · 0.25 · 1, θ becomes 0.425
    found, _ = step_of(powerpropagation(optax.sgd(0.1), 3.0), [0.125], [1.0])
    close(found, [0.425**3])
    only = powerpropagation(optax.sgd(0.1), prunable=("a/kernel",))
    updates, _ = only.update(GRADIENT, only.init(PARAMS), PARAMS)
    close(updates["b"]["kernel"], -0.1 * GRADIENT["b"]["kernel"])


SIGNS = {"w": jnp.array([1.0, 1.0, -1.0, -1.0, 1.0])}
START = {"w": jnp.array([0.5, 0.05, -0.3, 0.0, 0.0])}
KEPT = {"w": jnp.array([True, True, True, False, False])}


def test_a_crossing_of_deep_rewiring_worked_by_hand():
    # θ = 0.5, 0.05 and 0.3 less 0.1 of decay: the second falls dormant, and one of the second,
    # fourth and fifth wakes up at 1e-12 times its sign.
    zero, woken = {"w": jnp.zeros(5)}, []
    for i in range(12):
        key = jax.random.fold_in(KEY, i)
        optimizer = deep_rewiring.deep_rewiring(
            optax.sgd(1.0), KEPT, ("w",), SIGNS, key, noise=0.0, decay=0.1
        )
        updates, state = optimizer.update(zero, optimizer.init(START), START)
        params, mask = optax.apply_updates(START, updates)["w"], np.asarray(state.mask["w"])
        close(params[np.array([0, 2])], [0.4, -0.2])
        assert mask.sum() == 3 and mask[0] and mask[2]
        (awake,) = np.flatnonzero(mask & ~np.isin(np.arange(5), [0, 2]))
        if awake > 2:
            close(params[awake], SIGNS["w"][awake] * 1e-12)
            assert params[1] == 0
        woken.append(awake)
    assert set(woken) == {1, 3, 4}


def test_soft_deep_rewiring_worked_by_hand():
    # θ of the second is -0.05 and no less than -0.04; the dormant ones stay without noise.
    optimizer = deep_rewiring.soft_deep_rewiring(
        optax.sgd(1.0), KEPT, ("w",), SIGNS, KEY, noise=0.0, decay=0.1, lowest=-0.04
    )
    state = optimizer.init(START)
    walk = state.method["w"]
    assert np.all(walk[:3] == 0) and np.all((walk[3:] >= -0.04) & (walk[3:] <= 0))
    updates, state = optimizer.update({"w": jnp.zeros(5)}, state, START)
    close(optax.apply_updates(START, updates)["w"], [0.4, 0, -0.2, 0, 0])
    assert state.mask["w"].tolist() == [True, False, True, False, False]
    close(state.method["w"], [0, -0.04, 0, walk[3], walk[4]])
    # with noise, dormant weights wake up
    loud = deep_rewiring.soft_deep_rewiring(
        optax.sgd(1.0), KEPT, ("w",), SIGNS, KEY, noise=1.0, decay=0.0, lowest=-0.04
    )
    state, params, seen = loud.init(START), START, []
    for _ in range(8):
        updates, state = loud.update({"w": jnp.zeros(5)}, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(np.asarray(state.mask["w"]))
        np.testing.assert_array_equal(np.asarray(params["w"]) != 0, seen[-1])
        assert np.all(params["w"] * SIGNS["w"] >= 0)
    assert np.any(seen, 0).all() and not np.all(seen, 0).any()


def test_drops_and_growths_at_random_are_independent():
    mask = {"w": jnp.arange(20) < 10}
    moves = MovePlan(np.array([10]), np.array([5]))

    def returned(key):
        optimizer = drop_and_grow(
            optax.sgd(0.1),
            mask,
            ("w",),
            moves,
            1,
            drop=rules.at_random,
            grow=rules.at_random,
            key=key,
        )
        params = {"w": jnp.ones(20)}
        _, state = optimizer.update(params, optimizer.init(params), params, move=True)
        return masks.count({"w": state.mask["w"] & mask["w"]}, ("w",))

    kept = jax.jit(jax.vmap(returned))(jax.random.split(KEY, 2000))
    # five stay; of the fifteen places, a third are of those just dropped
    np.testing.assert_allclose(np.mean(kept), 5 + 5 / 3, atol=0.1)


# --- plans ---------------------------------------------------------------------------------------


def test_acdcs_phases_are_those_of_the_paper():
    ones, replaced = METHODS["acdc"].plan(200, 1000, 100)
    changes = np.flatnonzero(np.diff(np.concatenate([[1000], ones]))) + 1
    assert changes.tolist() == [10, 30, 50, 70, 90, 110, 130, 150, 170]
    assert ones[9] == ones[-1] == 100 and ones[8] == ones[29] == 1000
    assert not replaced.any()
    # a phase lasts a move at least: dense again after the second of four, and sparse at the end
    assert METHODS["acdc"].plan(4, 1000, 100).ones.tolist() == [100, 1000, 100, 100]
    assert METHODS["acdc"].plan(1, 1000, 100).ones.tolist() == [100]


PLANS = {
    # half of the weights at each cut, of which there are five in the first half
    "flipout": ({"moves": 10, "begin": 1024, "end": 32, "last_cut": 0.5},
                [512, 256, 128, 64, 32, 32, 32, 32, 32, 32], [0] * 10),
    # four cuts in eight of ten moves
    "flipout, defaults": ({"moves": 10, "begin": 1600, "end": 100, "cuts": 4},
                          [1600, 800, 800, 400, 400, 200, 200, 100, 100, 100], [0] * 10),
    # 200 + 800 (1 - 1/3)³, 200 + 800 (1/3)³
    "gradual": ({"moves": 4, "begin": 1000, "end": 200}, [437, 230, 200, 200], [0] * 4),
    "gsm": ({"moves": 20, "begin": 50, "end": 5}, [50] * 18 + [5] * 2, [0] * 20),
    "set": ({"moves": 3, "begin": 10, "end": 10}, [10] * 3, [3] * 3),
    "chts": ({"moves": 2, "begin": 100, "end": 100, "fraction": 0.29}, [100] * 2, [29] * 2),
    # 30 (1 + cos 60°) / 2, 30 (1 + cos 120°) / 2
    "rigl": ({"moves": 4, "begin": 100, "end": 100}, [100] * 4, [22, 7, 0, 0]),
    # 0.005 + 0.495 / 2
    "sparse_momentum": ({"moves": 2, "begin": 1000, "end": 1000}, [1000] * 2, [252, 5]),
    "set, floor": ({"moves": 1, "begin": 10, "end": 10, "floor": 8}, [10], [2]),
    "set, small leaf": ({"moves": 1, "begin": {"a": 3, "b": 10}, "end": {"a": 3, "b": 10},
                         "floor": 8}, {"a": [3], "b": [10]}, {"a": [0], "b": [2]}),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_plans_worked_by_hand(name):
    given, ones, replaced = PLANS[name]
    found = METHODS[name.partition(",")[0]].plan(**given)
    jax.tree.map(
        np.testing.assert_array_equal,
        tuple(found),
        jax.tree.map(np.array, (ones, replaced), is_leaf=lambda x: isinstance(x, list)),
    )


# --- sampling and shares -------------------------------------------------------------------------

SCORES = np.array([1.0, 2.0, 3.0, 4.0])
DRAWS = 20_000


def drawn(scores, exponent, k, heated=False):
    """bool`[DRAWS, n]`: the k that a rule samples."""
    scores = jnp.asarray(scores, jnp.float32)

    def one(key):
        sample = rules.sampled(lambda view: view.params, lambda calls: exponent + 0.0 * calls)
        if heated:
            sample = rules.heated(lambda view: view.params, lambda view: jnp.float32(1 / exponent))
        found = sample(view(params={"w": scores}, key=key))["w"]
        return masks.top_k(found, k)

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(KEY, DRAWS)))


def near(frequency, p):
    """Within four and a half standard deviations of a mean of draws."""
    np.testing.assert_array_less(np.abs(frequency - p), 4.5 * np.sqrt(p * (1 - p) / DRAWS) + 1e-9)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 3.0])
def test_a_sample_of_one_is_in_proportion_to_the_scores_power(exponent):
    p = SCORES**exponent / np.sum(SCORES**exponent)
    near(drawn(SCORES, exponent, 1).mean(0), p)
    if exponent:
        near(drawn(SCORES, exponent, 1, heated=True).mean(0), p)


def test_a_sample_of_two_is_one_without_replacement():
    p = SCORES / SCORES.sum()
    found = drawn(SCORES, 1.0, 2)
    for i, j in itertools.combinations(range(4), 2):  # i and then j, or j and then i
        near(np.mean(found[:, i] & found[:, j]), p[i] * p[j] * (1 / (1 - p[i]) + 1 / (1 - p[j])))


def test_without_heat_scores_are_what_they_are():
    seen = view(params={"w": jnp.asarray(SCORES, jnp.float32)}, key=KEY)
    cold = rules.heated(lambda view: view.params, lambda view: jnp.float32(0))
    np.testing.assert_array_equal(cold(seen)["w"], SCORES)
    hot = rules.heated(lambda view: view.params, lambda view: jnp.float32(1))
    assert np.all(np.isfinite(hot(seen)["w"])) and not np.array_equal(hot(seen)["w"], SCORES)


def test_a_score_of_zero_comes_last():
    found = drawn([0.0, 1e-30, 0.0, 1.0], 3.0, 2)
    assert np.all(found == np.array([False, True, False, True]))
    assert drawn([0.0, 0.0, 1.0, 1.0], 0.0, 3).sum(1).tolist() == [3] * DRAWS


def test_the_exponent_of_chts_rises_from_1_to_3():
    seen = []

    def watch(view):
        seen.append(view)
        return rules.magnitude(view)

    # the drop scores at the first and at the last call differ by two times log |w|
    method = METHODS["chts"]
    mask = {"w": jnp.ones(4, bool)}
    optimizer = method.make(
        optax.sgd(0.1), mask, ("w",), one_move(2, 0), every=1, key=KEY, steps=10, drop=watch
    )
    params = {"w": jnp.asarray(SCORES, jnp.float32)}

    def keeps(key, calls):
        state = optimizer.init(params)._replace(key=key, calls=calls)
        _, state = optimizer.update(params, state, params, move=True)
        return state.mask["w"]

    run = jax.jit(jax.vmap(keeps, (0, None)))
    for calls, exponent in ((0, 1), (20, 3), (40, 3)):
        p = SCORES**exponent / np.sum(SCORES**exponent)
        found = np.asarray(run(jax.random.split(KEY, DRAWS), jnp.int32(calls)))
        for i, j in itertools.combinations(range(4), 2):
            q = p[i] * p[j] * (1 / (1 - p[i]) + 1 / (1 - p[j]))
            near(np.mean(found[:, i] & found[:, j]), q)
    assert seen


@pytest.mark.parametrize(
    ("total", "shares", "room", "expected"),
    [
        (10, [1, 1], [9, 9], [5, 5]),
        (5, [0, 1], [9, 9], [0, 5]),
        (5, [0, 1], [9, 2], [3, 2]),  # what the second has no room for
        (10, [3, 1], [4, 9], [4, 6]),
        (3, [0, 0, 0], [2, 4, 0], [1, 2, 0]),  # by the rooms
        (2, [4, 3], [4, 3], [1, 1]),  # 1.14 and 0.86
        (0, [1, 2], [3, 4], [0, 0]),
        (7, [1, 2], [3, 4], [3, 4]),
        (0, [0, 0], [0, 0], [0, 0]),
    ],
)
def test_shares_worked_by_hand(total, shares, room, expected):
    found = rules.divide(jnp.int32(total), jnp.array(shares, float), jnp.array(room))
    assert found.tolist() == expected


def test_any_shares_sum_exactly_and_never_pass_their_room():
    draw = np.random.default_rng(0)
    cases, leaves = 4000, 6
    largest = 10 ** draw.integers(0, 9, (cases, 1))  # up to 1e8
    room = draw.integers(0, largest + 1, (cases, leaves)).astype(np.int32)
    room[draw.random(room.shape) < 0.2] = 0
    shares = draw.random(room.shape) * 10.0 ** draw.integers(-30, 20, room.shape)
    shares[draw.random(shares.shape) < 0.3] = 0
    most = room.sum(1)
    total = np.floor(draw.random(cases) * (most + 1)).astype(np.int32)
    total[::7], total[1::7] = 0, most[1::7]
    found = np.asarray(
        jax.jit(jax.vmap(rules.divide))(total, jnp.asarray(shares, jnp.float32), room)
    )
    assert np.all((found >= 0) & (found <= room))
    np.testing.assert_array_equal(found.sum(1), total)


def test_shares_are_in_proportion_where_there_is_room():
    draw = np.random.default_rng(1)
    shares = draw.random((500, 5)).astype(np.float32) + 0.01
    total = draw.integers(0, 100_000, 500).astype(np.int32)
    room = np.full((500, 5), 100_000, np.int32)
    found = np.asarray(jax.jit(jax.vmap(rules.divide))(total, shares, room))
    exact = total[:, None] * shares / shares.sum(1, keepdims=True)
    assert np.abs(found - exact).max() < 1.1


def test_langevin_noise_has_its_spread_and_spares_what_is_not_pruned():
    params = {"w": jnp.zeros((100, 100)), "b": jnp.zeros(1000)}
    noisy = langevin.langevin(optax.sgd(0.5), lambda step: 0.1 / (step + 1), ("w",), KEY, 0.02)
    zero = jax.tree.map(jnp.zeros_like, params)
    state = noisy.init(params)
    first, state = noisy.update(zero, state, params)
    second, _ = noisy.update(zero, state, params)
    for updates, rate in ((first, 0.1), (second, 0.05)):
        spread = float(jnp.std(updates["w"]))
        assert spread == pytest.approx(np.sqrt(2 * rate * 0.02), rel=0.03)
        assert not np.any(updates["b"])
    assert abs(np.corrcoef(np.ravel(first["w"]), np.ravel(second["w"]))[0, 1]) < 0.05
    with pytest.raises(ValueError, match="temperature=-1: must be 0 or more"):
        langevin.langevin(optax.sgd(0.5), 0.1, ("w",), KEY, -1)
