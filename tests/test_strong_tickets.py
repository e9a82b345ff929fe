"""Strong tickets: subset sums against all subsets, and rebuilt nets against their targets."""

import csv
import itertools

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.strong_tickets import theory
from jaxtickets import masks, nets, runs
from jaxtickets.nets.mlp import MLP
from jaxtickets.recipes import strong_tickets, subset_sums
from jaxtickets.recipes.strong_tickets import CONSTRUCTIONS, GOLDEN

ONE = runs.axis("map", 1, jax.local_devices()[:1])
KEY = jax.random.key(0)
RULES = {name: jax.jit(construction.rule) for name, construction in CONSTRUCTIONS.items()}


def sums_of(kept, coefficients):
    return np.where(kept, np.asarray(coefficients, np.float64), 0).sum(0)


def products(n, weights, key=KEY):
    a, b = jax.random.split(key)
    first, second = (jax.random.uniform(k, (n, weights), minval=-1, maxval=1) for k in (a, b))
    return jnp.abs(first) * second


# --- sums ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 7, 10])
def test_meeting_in_the_middle_is_as_near_as_the_nearest_of_all_subsets(n):
    draw = np.random.default_rng(n)
    # multiples of 2^-12 of up to 10 terms have exact sums in float32
    coefficients = draw.integers(-4096, 4097, (n, 60)).astype("f") / 4096
    targets = draw.integers(-6000, 6001, 60).astype("f") / 4096
    kept = RULES["pensia"](targets, coefficients)
    subsets = np.array(list(itertools.product([0, 1], repeat=n)), float)
    least = np.abs(subsets @ coefficients.astype(float) - targets).min(0)
    np.testing.assert_array_equal(np.abs(sums_of(kept, coefficients) - targets), least)
    assert kept.shape == (n, 60) and kept.dtype == bool


def test_a_weight_near_zero_keeps_nothing():
    coefficients = jnp.array([[0.5, 0.5], [-0.25, -0.25], [0.0, 0.0]])
    kept = RULES["pensia"](jnp.array([0.01, 0.26]), coefficients)
    np.testing.assert_array_equal(kept[:2].T, [[False, False], [True, True]])  # 0.5 - 0.25


def test_the_greedy_sum_by_hand():
    # 0.7: 0.5 fits, 0.2 is left; 0.25 doesn't, 0.125 does; of -0.7 only -0.7 has the sign
    coefficients = jnp.tile(jnp.array([0.25, 0.5, 0.125, -0.7])[:, None], 3)
    kept = RULES["orseau"](jnp.array([0.7, -0.7, -0.6]), coefficients)
    expected = [[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    np.testing.assert_array_equal(kept.T, np.array(expected, bool))


def test_what_is_left_falls_by_the_golden_ratio_with_each_interval_that_is_filled():
    m = 12
    draw = np.random.default_rng(0)
    ends = GOLDEN ** np.arange(m + 1)
    coefficients = draw.uniform(ends[1:, None], ends[:-1, None], (m, 500)).astype("f")
    targets = draw.uniform(0, 1, 500).astype("f")
    kept = RULES["orseau"](targets, coefficients)
    left = targets - sums_of(kept, coefficients)
    assert left.min() > -1e-6 and left.max() <= GOLDEN ** (m - 1) + 1e-6


def test_the_closest_coefficient_is_one():
    kept = subset_sums.closest(jnp.array([0.3, -2.0]), jnp.array([[0.1, 1.0], [0.4, 0.5]]))
    np.testing.assert_array_equal(kept, [[False, False], [True, True]])


def test_a_search_over_devices_is_the_rule_itself(cpus):
    coefficients, targets = products(3, 1500), jnp.linspace(-1, 1, 1500)
    axis = runs.axis("map", 1, cpus[:2])
    found = subset_sums.search(subset_sums.greedy, targets, coefficients, axis)
    np.testing.assert_array_equal(found, RULES["orseau"](targets, coefficients))


@pytest.mark.parametrize(
    ("targets", "coefficients", "message"),
    [
        (np.zeros(3), np.zeros((2, 4)), "the coefficients: the shape is .* must be .n, 3."),
        (np.zeros(3), np.zeros((0, 3)), "there are no coefficients"),
        (np.zeros(3), np.zeros((29, 3)), "29 coefficients: all subsets of at most 28"),
    ],
)
def test_sums_that_cannot_be_searched_are_refused(targets, coefficients, message):
    with pytest.raises(ValueError, match=message):
        subset_sums.meet_in_the_middle(targets, coefficients)


# --- theory --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n"), [("pensia", 8), ("malach", 300)])
def test_median_errors_are_those_of_theory(name, n):
    targets = 0.1 * jax.random.normal(jax.random.key(1), (3000,))
    coefficients = products(n, 3000)
    kept = RULES[name](targets, coefficients)
    errors = np.abs(sums_of(kept, coefficients) - targets)
    expected = np.median(theory.THEORIES[name].error(n, np.asarray(targets)))
    assert np.median(errors) == pytest.approx(expected, rel=0.1)


def test_hyperbolic_weights_have_as_many_at_every_scale():
    draws = np.asarray(strong_tickets.hyperbolic(KEY, (40_000,), 21, least=1e-3, most=1.0))
    sizes = np.abs(draws)
    assert sizes.min() >= 1e-3 and sizes.max() <= 1
    for low in (1e-3, 1e-2, 1e-1):  # a third in each of three decades
        assert np.mean((sizes >= low) & (sizes < 10 * low)) == pytest.approx(1 / 3, abs=0.01)
    assert np.mean(draws > 0) == pytest.approx(0.5, abs=0.01)


def test_the_coefficients_needed_grow_as_theory_says():
    def needed(name):
        return [theory.THEORIES[name].needed(e, 397_000) for e in (1e-2, 1e-4)]

    assert needed("pensia") == [21, 42]  # the published 21 for 0.01
    malach, orseau = needed("malach"), needed("orseau")
    assert malach[1] == pytest.approx(100 * malach[0], rel=0.001)
    assert orseau[1] / orseau[0] == pytest.approx(2, abs=0.2)


# --- nets ----------------------------------------------------------------------------------------

NET = MLP(widths=(30, 32), classes=5, use_bias=False)
SHAPE = (4, 8, 1)


@pytest.fixture(scope="module")
def target():
    params, _ = nets.functional(NET, SHAPE).init(jax.random.key(3))
    return [0.5 * params[name]["kernel"] for name in ("fc1", "fc2", "out")]


@pytest.fixture(scope="module", params=CONSTRUCTIONS)
def rebuilt(request, target):
    construction = CONSTRUCTIONS[request.param]
    return construction, strong_tickets.rebuild(KEY, target, 10, construction, ONE)


def coefficients_of(ticket, layer, sign, i, j):
    """The products of an input's units of a sign with an output: kept ones, and their weights."""
    wires, reads = (f"fc{2 * layer + 1}", "out" if layer == 2 else f"fc{2 * layer + 2}")
    v, u = (np.asarray(ticket.params[name]["kernel"], np.float64) for name in (wires, reads))
    m, r = (np.asarray(ticket.mask[name]["kernel"]) for name in (wires, reads))
    mine = m[i] & (sign * v[i] > 0)
    return (v[i] * u[:, j])[mine & r[:, j]]


def test_every_weight_of_a_rebuilt_net_is_the_sum_of_what_is_kept(rebuilt, target):
    _, ticket = rebuilt
    effective = strong_tickets.effective_weights(ticket.params, ticket.mask)
    for layer, (positive, negative) in enumerate(effective):
        assert positive.shape == target[layer].shape
        for i, j in [(0, 0), (3, 2), (29, 4)]:
            terms = coefficients_of(ticket, layer, 1, i, j)
            assert positive[i, j] == pytest.approx(terms.sum(), abs=1e-12)
            terms = coefficients_of(ticket, layer, -1, i, j)
            assert negative[i, j] == pytest.approx(terms.sum(), abs=1e-12)
        assert layer == 0 or not negative.any()


def test_every_weight_is_as_near_as_its_construction_gets(rebuilt, target):
    construction, ticket = rebuilt
    rule = jax.jit(construction.rule)
    wires, reads = (np.asarray(ticket.params[name]["kernel"]) for name in ("fc1", "fc2"))
    units = strong_tickets.deal_units(wires, 10, (1, -1))
    effective = strong_tickets.effective_weights(ticket.params, ticket.mask)[0]
    weights = np.asarray(target[0])
    for s, sign in enumerate((1, -1)):
        unit = units.unit[:, s]  # [inputs, n]
        own = np.take_along_axis(wires, unit, axis=1)
        coefficients = own[..., None] * reads[unit]  # [inputs, n, outputs]
        flat = jnp.asarray(np.moveaxis(coefficients, 1, 0).reshape(10, -1))
        # for negative inputs w x = -w |x|, and a product of v u with v < 0 counts as v u too
        kept = rule(jnp.asarray(sign * weights.ravel()), sign * flat)
        expected = sums_of(kept, flat).reshape(weights.shape)
        np.testing.assert_allclose(effective[s], expected, atol=1e-6)
        assert np.all(sign * own > 0)


def test_all_weights_are_within_the_error_that_all_subsets_allow(target):
    """By brute force over the 64 subsets of each weight of a layer without negative inputs."""
    ticket = strong_tickets.rebuild(KEY, target, 6, CONSTRUCTIONS["pensia"], ONE)
    wires, reads = (np.asarray(ticket.params[n]["kernel"], float) for n in ("fc5", "out"))
    unit = strong_tickets.deal_units(wires, 6, (1,)).unit[:, 0]
    coefficients = np.take_along_axis(wires, unit, axis=1)[..., None] * reads[unit]
    subsets = np.array(list(itertools.product([0, 1], repeat=6)), float)
    sums = np.einsum("sk,iko->sio", subsets, coefficients)
    weights = np.asarray(target[2], float)
    least = np.abs(sums - weights).min(0)
    positive, _ = strong_tickets.effective_weights(ticket.params, ticket.mask)[2]
    np.testing.assert_allclose(np.abs(positive - weights), least, atol=1e-6)


def test_counts_are_exact(rebuilt):
    construction, ticket = rebuilt
    inputs, outputs = (32, 30, 32), (30, 32, 5)
    for layer, signs in enumerate((2, 1, 1)):
        wires = np.asarray(ticket.mask[f"fc{2 * layer + 1}"]["kernel"])
        reads = np.asarray(ticket.mask["out" if layer == 2 else f"fc{2 * layer + 2}"]["kernel"])
        assert wires.shape == (inputs[layer], signs * 10 * inputs[layer])
        # a wire leads to each unit that is read, and no unit has two
        np.testing.assert_array_equal(wires.sum(0), reads.any(1))
        if construction.rule is subset_sums.closest:  # one a weight and sign
            assert reads.sum() == signs * inputs[layer] * outputs[layer]


def test_the_mask_alone_makes_the_net(rebuilt, target):
    construction, ticket = rebuilt
    other = strong_tickets.rebuild(KEY, [-w for w in target], 10, construction, ONE)
    jax.tree.map(np.testing.assert_array_equal, ticket.params, other.params)
    assert not np.array_equal(ticket.mask["fc2"]["kernel"], other.mask["fc2"]["kernel"])


def test_the_random_net_computes_what_its_effective_weights_say(rebuilt):
    _, ticket = rebuilt
    net = strong_tickets.random_net(NET, SHAPE, 10)
    assert net.widths == (640, 30, 300, 32, 320)
    images = jax.random.normal(jax.random.key(5), (20, *SHAPE))  # of both signs
    masked = masks.apply(ticket.mask, ticket.params)
    logits, _ = nets.functional(net, SHAPE).apply(masked, {}, images)
    x = np.asarray(images, np.float64).reshape(20, -1)
    for positive, negative in strong_tickets.effective_weights(ticket.params, ticket.mask):
        sums = np.maximum(x, 0) @ positive + np.minimum(x, 0) @ negative
        x = np.maximum(sums, 0)
    np.testing.assert_allclose(logits, sums, rtol=1e-4, atol=1e-5)


def test_every_unit_is_dealt_to_one_input_to_which_its_wire_has_the_sign():
    wires = np.random.default_rng(0).uniform(-1, 1, (40, 40 * 2 * 3))
    units = strong_tickets.deal_units(wires, 3, (1, -1))
    assert sorted(units.unit.ravel()) == list(range(240))
    for s, sign in enumerate((1, -1)):
        own = np.take_along_axis(wires, units.unit[:, s], axis=1)
        assert np.all(sign * own > 0)


def test_an_input_without_a_unit_has_fewer_coefficients():
    wires = np.ones((3, 6))
    wires[1] = -1  # no unit answers to it where it is positive
    units = strong_tickets.deal_units(wires, 2, (1,))
    np.testing.assert_array_equal(units.unit[1, 0], [-1, -1])
    assert np.all(units.unit[[0, 2]] >= 0)


def test_a_net_with_biases_or_convolutions_is_refused():
    with pytest.raises(ValueError, match="mlp has biases"):
        strong_tickets.layers(MLP(widths=(3, 3)), SHAPE)
    with pytest.raises(ValueError, match="lenet5 isn't made of dense layers alone"):
        strong_tickets.layers(nets.make("lenet5", use_bias=False), (28, 28, 1))
    with pytest.raises(ValueError, match="30 coefficients a weight: must be 28 or fewer"):
        strong_tickets.rebuild(KEY, [], 30, CONSTRUCTIONS["pensia"], ONE)


# --- the experiment ------------------------------------------------------------------------------


def test_an_experiment_counts_measures_and_compares(smokes):
    folder, _ = smokes("strong_tickets")
    rows = commands.summary(folder)
    assert len(rows) == 2 + 3 * 2 * 2
    for row in rows:
        if row["method"] == "target":
            assert int(row["kept_weights"]) == 784 * 20 + 20 * 10 + 10 * 10
            continue
        n = int(row["coefficients"])
        widths = (784, 1568 * n, 20, 20 * n, 10, 10 * n, 10)
        assert row["widths"] == "-".join(map(str, widths[1:-1]))
        assert int(row["random_weights"]) == sum(a * b for a, b in itertools.pairwise(widths))
        assert float(row["density"]) == int(row["kept_weights"]) / int(row["random_weights"])
        assert float(row["mean_error"]) <= float(row["largest_error"])
    errors = list(csv.DictReader((folder / "errors.csv").open()))
    mean = {(r["method"], r["seed"], r["coefficients"]): float(r["mean_error"]) for r in errors}
    for method, seed in itertools.product(("pensia", "malach"), "01"):
        assert mean[method, seed, "5"] < mean[method, seed, "2"]
