"""Informed swaps: the gradient, the greedy limit, exact counts, and an exact correction."""

from functools import cache, partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxtickets.search import annealing, energies, informed, space, swaps
from jaxtickets.search.energies import Energy
from jaxtickets.types import Model

KEY = jax.random.key(8)
DRAW = np.random.default_rng(5)
# what is compiled without much optimisation is compiled sooner
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
SMALL = {"global": (6,), "layer": (4, 5)}
ONES = {"global": (3,), "layer": (2, 2)}


def line(sizes, scope="global"):
    """A space of one segment for each size."""
    params = {f"l{i}": {"kernel": np.zeros((1, n), "f")} for i, n in enumerate(sizes)}
    return space.weights(params, tuple(f"{name}/kernel" for name in params), scope)


def every(scope):
    """bool`[masks, n]`: all masks of a small space with its counts in each pool."""
    parts = [
        list(combinations(range(n), k)) for n, k in zip(SMALL[scope], ONES[scope], strict=True)
    ]
    rows = [()]
    starts = np.cumsum([0, *SMALL[scope]])
    for start, part in zip(starts, parts, strict=False):
        rows = [(*row, *(start + i for i in chosen)) for row in rows for chosen in part]
    bits = np.zeros((len(rows), starts[-1]), bool)
    bits[np.arange(len(rows))[:, None], rows] = True
    return bits


@cache
def quadratic(n):
    """A gradient that depends on the mask: that of `b x + x A x / 2`, A symmetric."""
    draw = np.random.default_rng(2)
    a, b = draw.normal(size=(n, n)), draw.normal(size=n)
    return (a + a.T).astype("f") * 0.7, b.astype("f") * 0.7


def gradient_over(where):
    a, b = quadratic(where.size)
    return lambda mask: b + a @ where.bits(mask)


# --- the correction ------------------------------------------------------------------------------

CHAINS, TEMPERATURE = 40_000, 0.7


@partial(jax.jit, static_argnums=(0, 1, 2, 3), compiler_options=QUICK)
def ends(scope, candidates, corrected, size):
    """Where independent chains are after three steps, having begun where Boltzmann says.

    The energies are random, and know nothing of the gradient. Returns the masks' numbers.
    """
    where, masks = line(SMALL[scope], scope), every(scope)
    powers = 1 << np.arange(where.size)
    numbers = masks @ powers
    table = np.zeros(numbers.max() + 1, "f")
    table[numbers] = levels(scope)
    energy = Energy(
        lambda key, mask: jnp.asarray(table)[jnp.sum(where.bits(mask) * powers)], fresh=False
    )
    moves = informed.moves(where, 3, gradient_over(where), candidates, corrected)
    kernel = annealing.build(moves, where.mask, energy, annealing.Rules())
    plan = annealing.step_plans(3, lambda t: 0.0 * t + TEMPERATURE, lambda t: 0.0 * t + size)

    def chain(key):
        start_key, init_key, key = jax.random.split(key, 3)
        start = jax.random.categorical(start_key, -levels(scope) / TEMPERATURE)
        state = kernel.init(init_key, jnp.asarray(masks)[start])
        state, info = annealing.run(kernel, key, state, plan)
        return jnp.sum(state.walk.bits * powers), info.accepted

    return jax.vmap(chain)(jax.random.split(KEY, CHAINS))


def levels(scope):
    return np.random.default_rng(1).uniform(0, 1.5, len(every(scope))).astype("f")


def chi_square(scope, *how):
    """Of the masks' frequencies against Boltzmann's; and the share of accepted steps."""
    number, accepted = ends(scope, *how)
    numbers = every(scope) @ (1 << np.arange(sum(SMALL[scope])))
    seen = np.bincount(number, minlength=numbers.max() + 1)[numbers]
    assert seen.sum() == CHAINS
    share = np.exp(-levels(scope) / TEMPERATURE)
    expected = CHAINS * share / share.sum()
    return ((seen - expected) ** 2 / expected).sum(), accepted.mean()


@pytest.mark.parametrize(
    # 20 and 60 masks; the chi square's 99.99 % quantiles for 19 and 59 degrees of freedom
    ("scope", "candidates", "size", "quantile"),
    [("global", 2, 1, 51.0), ("global", 3, 2, 51.0), ("layer", 2, 2, 107.0)],
)
def test_corrected_proposals_leave_boltzmann_unchanged_and_others_do_not(
    scope, candidates, size, quantile
):
    exact, accepted = chi_square(scope, candidates, True, size)
    assert exact < quantile and 0.3 < accepted < 0.95
    biased, _ = chi_square(scope, candidates, False, size)
    assert biased > 4 * quantile


# --- limits, counts, undoing ---------------------------------------------------------------------


@cache
def proposals(temperature):
    """`(gradient, size) -> bits before, bits[1000, 12] proposed`: 5 ones of 12, all candidates."""
    where = line((12,))
    before = np.arange(12) < 5

    @partial(jax.jit, compiler_options=QUICK)
    def propose(gradient, size):
        moves = informed.moves(where, 5, lambda mask: gradient)

        def one(key):
            walk = moves.heat(moves.init(key, jnp.asarray(before)), temperature)
            return moves.propose(jax.random.fold_in(key, 1), size, walk).walk.bits

        return jax.vmap(one)(jax.random.split(KEY, 1000))

    return lambda gradient, size: (before, np.asarray(propose(gradient, size)))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_at_temperature_zero_the_best_pairs_are_proposed(size):
    # All ones are candidates. Where zeros are alike, a pair is as good as its one: those of the
    # steepest gradients go, whatever zeros they are paired with. Gradients rise from bit to bit.
    gradient = jnp.where(jnp.arange(12) < 5, jnp.arange(12) * 0.1, 0.3)
    before, after = proposals(1e-9)(gradient, size)
    gone = before & ~after
    np.testing.assert_array_equal(
        gone, np.tile((np.arange(12) < 5) & (np.arange(12) >= 5 - size), (1000, 1))
    )
    # each of the seven zeros comes as often
    come = (after & ~before)[:, 5:].mean(0)
    assert abs(come - size / 7).max() < 4.5 * np.sqrt(size / 7 * (1 - size / 7) / 1000) + 1e-9


def test_at_temperature_zero_the_best_zeros_come_where_the_ones_are_alike():
    # 7 ones and 5 zeros: all zeros are candidates
    where, before = line((12,)), np.arange(12) < 7
    gradient = jnp.where(jnp.arange(12) < 7, 0.3, jnp.arange(12) * 0.1)
    moves = informed.moves(where, 5, lambda mask: gradient)

    @partial(jax.jit, compiler_options=QUICK)
    def propose(key):
        walk = moves.heat(moves.init(key, jnp.asarray(before)), 0.0)
        return moves.propose(jax.random.fold_in(key, 1), 2, walk).walk.bits

    for key in jax.random.split(KEY, 5):
        come = np.asarray(propose(key)) & ~before
        assert np.flatnonzero(come).tolist() == [7, 8]


def test_a_walk_that_was_told_no_temperature_proposes_any_swap_alike():
    gradient = jnp.arange(12) * 10.0
    before, after = proposals(np.inf)(gradient, 1)
    for part, n in ((before & ~after, 5), (after & ~before, 7)):
        share = part.mean(0)[part.any(0)]
        assert len(share) == n
        assert abs(share - 1 / n).max() < 4.5 * np.sqrt(1 / n * (1 - 1 / n) / 1000)


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_counts_are_exact_orders_whole_and_slopes_those_of_the_mask_all_along(scope, corrected):
    sizes, ones = (7, 30), (5, 12)
    where = line(sizes, scope)
    bits = np.concatenate([np.arange(n) < k for n, k in zip(sizes, ones, strict=True)])
    floor = (4, 2) if scope == "global" else None
    gradient = gradient_over(where)
    moves = informed.moves(where, 6, gradient, 9, corrected, floor)
    energy = Energy(lambda key, mask: jnp.sum(where.bits(mask) * gradient(mask)), fresh=False)
    kernel = annealing.build(moves, where.mask, energy, annealing.Rules())
    plan = annealing.step_plans(300, lambda t: 8.0 + 0.0 * t, lambda t: 1.0 + t % 6)

    def body(state, tick):
        key = jax.random.fold_in(KEY, tick.step)
        before = moves.heat(state.walk, tick.temperature)
        proposal = moves.propose(key, tick.size, before)
        back = moves.settle(proposal, jnp.bool_(False))
        state, info = kernel.step(key, tick, state)
        return state, (
            info,
            state.walk,
            gradient(where.mask(state.walk.bits)),
            before,
            proposal,
            back,
        )

    @partial(jax.jit, compiler_options=QUICK)
    def search():
        return lax.scan(body, kernel.init(KEY, jnp.asarray(bits)), plan)[1]

    info, walk, there, before, proposal, back = jax.tree.map(np.asarray, search())
    held = np.stack([walk.bits[:, :7].sum(1), walk.bits[:, 7:].sum(1)], 1)
    assert (held.sum(1) == sum(ones)).all()
    if scope == "layer":
        assert (held == ones).all()
        most = np.array([1, 1, 1, 1, 1, 1]), np.array([1, 2, 3, 3, 4, 5])  # shares 2/14 and 12/14
        assert ((info.size == np.tile(most[0], 50)) | (info.size == np.tile(most[1], 50))).all()
    else:
        assert (held[:, 0] == 4).any() and (held >= floor).all()
        assert not proposal.allowed.all()
        np.testing.assert_array_equal(info.size, plan.size)
    moved = (before.bits & ~proposal.walk.bits).sum(1)
    np.testing.assert_array_equal(moved, proposal.size)
    assert 0.1 < info.accepted.mean() < 0.9
    np.testing.assert_array_equal(np.sort(walk.order, 1), np.tile(np.arange(37), (300, 1)))
    starts, widths = swaps.pools(where)
    for start, width, n in zip(starts, widths, walk.ones.T, strict=True):
        part = walk.order[:, start : start + width]
        on = np.take_along_axis(walk.bits, part, 1)
        assert (on == (np.arange(width) < n[:, None])).all()
    np.testing.assert_allclose(walk.memory.gradient, there, rtol=1e-5, atol=1e-5)
    for got, expected in zip(jax.tree.leaves(back), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_with_nothing_to_swap_nothing_is_swapped():
    where = line((12,))
    moves = informed.moves(where, 3, gradient_over(where), 5, True)

    @partial(jax.jit, compiler_options=QUICK)
    def propose(bits):
        return moves.propose(KEY, 3, moves.heat(moves.init(KEY, bits), 0.1))

    for bits in (jnp.ones(12, bool), jnp.zeros(12, bool)):
        proposal = propose(bits)
        assert proposal.size == 0 and proposal.log_ratio == 0
        np.testing.assert_array_equal(proposal.walk.bits, bits)


# --- the gradient --------------------------------------------------------------------------------


def forward(numbers, params, images):
    x = numbers.tanh(images @ params["fc"]["kernel"] + params["fc"]["bias"][None])
    return x @ params["out"]["kernel"] + params["out"]["bias"][None]


def net():
    """A net of two layers, 12 + 9 weights and biases, and examples."""
    params = {
        "fc": {"kernel": DRAW.normal(size=(4, 3)), "bias": DRAW.normal(size=3)},
        "out": {"kernel": DRAW.normal(size=(3, 3)), "bias": DRAW.normal(size=3)},
    }
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)

    def apply(params, stats, images, key=None, train=False):
        return forward(jnp, params, images), stats

    images = jnp.asarray(DRAW.normal(size=(20, 4)), jnp.float32)
    return Model(lambda key: (params, {}), apply), params, images, jnp.arange(20) % 3


@pytest.mark.parametrize("rescaled", [False, True])
def test_slopes_are_the_derivatives_by_a_factor_on_each_weight(rescaled):
    model, params, images, labels = net()
    prunable = ("fc/kernel", "out/kernel")
    where = space.weights(params, prunable)
    bits = np.arange(21) % 3 != 0
    measure = energies.MEASURES["cross_entropy"]
    values = partial(energies.rescale, prunable=prunable) if rescaled else lambda m, p: p
    args = (model, params, {}, images, labels, measure)
    gradient = informed.fixed(*args, prunable, values)(where.mask(jnp.asarray(bits)))
    scale = {"fc": 1.0, "out": 1.0}
    if rescaled:
        scale = {"fc": bits[:12].mean() ** -0.5, "out": bits[12:].mean() ** -0.5}

    def energy(factors):
        moved = {}
        for name, part in (("fc", factors[:12]), ("out", factors[12:])):
            layer = {leaf: np.asarray(values, float) for leaf, values in params[name].items()}
            kernel = layer["kernel"] * part.reshape(layer["kernel"].shape) * scale[name]
            moved[name] = {"kernel": kernel, "bias": layer["bias"]}
        logits = forward(np, moved, np.asarray(images, float))
        chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return -np.log(chance[np.arange(20), labels]).mean()

    step = 1e-4
    for i in range(21):
        up, down = bits.astype(float), bits.astype(float)
        up[i] += step
        down[i] -= step
        np.testing.assert_allclose(
            gradient[i], (energy(up) - energy(down)) / (2 * step), rtol=2e-4, atol=2e-6
        )
    assert abs(np.asarray(gradient)).min() > 0  # bits that are off have gradients too
