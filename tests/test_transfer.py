"""Transferred tickets: permuted nets, matched units, new heads, signs, variants of data sets."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxtickets import data, masks, nets
from jaxtickets.analysis import matching
from jaxtickets.compress import graph as graphs
from jaxtickets.compress.unit_outputs import unit_outputs
from jaxtickets.data.variants import VARIANTS, variant_of
from jaxtickets.nets import registry
from jaxtickets.recipes import transfer
from jaxtickets.types import Dataset, Split, Ticket

KEY = jax.random.key(0)


class Residual(nn.Module):
    """Two convolutions with batch norm whose four channels a sum ties together."""

    @nn.compact
    def __call__(self, x):
        def block(x, name):
            return nn.BatchNorm(True, name=f"bn{name}")(nn.Conv(4, (3, 3), name=f"conv{name}")(x))

        x = nn.relu(block(x, 1))
        x = nn.relu(x + block(nn.relu(nn.Conv(5, (1, 1), name="within")(x)), 2))
        return nn.Dense(3, name="out")(x.mean((1, 2)))


SHAPE = (8, 8, 1)
NETS = {
    "mlp": registry.make("lenet300_100", widths=(7, 5)),
    "flattened": registry.make("lenet5_29k", widths=(3, 4, 6)),
    "residual": Residual(),
}


@pytest.fixture(scope="module", params=NETS)
def permuted(request):
    """A net, its channel graph, a ticket with random statistics, permutations, images."""
    net = NETS[request.param]
    shape = (12, 12, 1) if request.param == "flattened" else SHAPE
    graph = graphs.trace(net, shape)
    model = nets.functional(net, shape)
    params, stats = jax.jit(model.init)(KEY)
    draw = np.random.default_rng(0)
    stats = jax.tree.map(lambda s: jnp.asarray(draw.uniform(0.5, 1.5, s.shape), "f"), stats)
    # small weights and large biases: two units that are always off would be alike
    params = jax.tree.map(
        lambda p: 0.2 * p if p.ndim > 1 else jnp.asarray(draw.uniform(0.5, 1.5, p.shape), "f"),
        params,
    )
    mask = masks.random(
        KEY, params, masks.prunable(params), masks.size(params, masks.prunable(params)) // 2
    )
    ticket = Ticket(params, stats, mask, jnp.int32(0))
    orders = {group.name: draw.permutation(group.size) for group in matching.matchable(graph)}
    images = jnp.asarray(draw.normal(size=(40, *shape)), "f")
    return net, graph, ticket, orders, images


def test_permuting_units_changes_no_output_masked_or_not(permuted):
    net, graph, ticket, orders, images = permuted
    assert any((order != np.arange(len(order))).any() for order in orders.values())
    moved = matching.permute(ticket, orders, graph)
    apply = jax.jit(nets.functional(net, graph.image).apply)
    for mine, theirs in (
        (ticket.params, moved.params),
        (masks.apply(ticket.mask, ticket.params), masks.apply(moved.mask, moved.params)),
    ):
        expected, found = (
            apply(mine, ticket.stats, images)[0],
            apply(theirs, moved.stats, images)[0],
        )
        np.testing.assert_allclose(found, expected, atol=1e-4 * float(jnp.abs(expected).max()))
    same = [
        np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (ticket, moved)), strict=True)
    ]
    assert not all(same)


def test_a_matched_permutation_of_a_permuted_copy_is_the_inverse(permuted):
    net, graph, ticket, orders, images = permuted
    moved = matching.permute(ticket, orders, graph)
    groups = matching.matchable(graph)
    outputs = jax.jit(lambda p, s: unit_outputs(net, p, s, groups, graph.image, images))
    first, second = (outputs(one.params, one.stats) for one in (moved, ticket))
    found = matching.match(first, second)
    assert found.keys() == orders.keys()
    back = matching.permute(moved, found, graph)
    for name, order in orders.items():
        np.testing.assert_array_equal(order[found[name]], np.arange(len(order)), err_msg=name)
    jax.tree.map(np.testing.assert_array_equal, back, ticket)


def test_correlations_worked_by_hand():
    # the first units rise, fall and rest; the others rise twice as fast, and zigzag
    first = jnp.asarray([[1.0, 5, 2], [2, 4, 2], [3, 3, 2]])
    second = jnp.asarray([[0.0, 1], [2, 0], [4, 1]])
    found = matching.correlations(first, second)
    np.testing.assert_allclose(found, [[1, 0], [-1, 0], [0, 0]], atol=1e-6)


def test_partners_have_the_largest_sum_of_all_orders():
    similarity = np.random.default_rng(3).normal(size=(5, 5))
    best = max(itertools.permutations(range(5)), key=lambda p: similarity[p, range(5)].sum())
    np.testing.assert_array_equal(matching.assignment(similarity), best)


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        ({"fc3": np.arange(7)}, "units of 'fc3' can't change places"),
        ({"fc1": np.zeros(7, int)}, "no permutation of the 7 units of fc1"),
        ({"fc1": np.arange(5)}, "no permutation of the 7 units of fc1"),
    ],
)
def test_what_is_no_permutation_is_refused(orders, message):
    graph = graphs.trace(NETS["mlp"], SHAPE)
    params, stats = nets.functional(NETS["mlp"], SHAPE).init(KEY)
    ticket = Ticket(params, stats, masks.ones(params), jnp.int32(0))
    with pytest.raises(ValueError, match=message):
        matching.permute(ticket, orders, graph)


# --- heads and signs ------------------------------------------------------------------------------


def test_a_new_head_replaces_the_output_layer_and_keeps_it_whole(mlp):
    mask = jax.tree.map(lambda p: jnp.zeros(p.shape, bool), mlp)
    ticket = Ticket(mlp, {}, mask, jnp.int32(3))
    other = {"out": {"kernel": jnp.ones((5, 7)), "bias": jnp.ones(7)}}
    found = transfer.new_head(ticket, other, "out")
    assert found.params["out"] is other["out"] and found.params["fc1"] is mlp["fc1"]
    assert found.mask["out"]["kernel"].shape == (5, 7) and found.mask["out"]["kernel"].all()
    assert not found.mask["fc2"]["kernel"].any() and int(found.rewind_step) == 3
    with pytest.raises(ValueError, match="no output layer 'head' among fc1, fc2, out"):
        transfer.new_head(ticket, other, "head")


def test_signs_are_those_of_the_trained_kept_weights():
    tree = lambda *values: {"kernel": jnp.asarray(values), "bias": jnp.asarray(values)}  # noqa: E731
    own, trained = tree(0.5, -0.25, 2.0, -1.0), tree(-3.0, -4.0, 0.0, 5.0)
    kept = tree(True, True, True, False)
    found = transfer.signed(own, trained, kept, ("kernel",))
    # turned; has the sign already; trained to 0; pruned
    np.testing.assert_array_equal(found["kernel"], [-0.5, -0.25, 2.0, -1.0])
    np.testing.assert_array_equal(found["bias"], own["bias"])


# --- variants -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """Six images of 2 by 2 pixels in five classes; every split is the same."""
    images = np.arange(24, dtype=np.uint8).reshape(6, 2, 2, 1)
    split = Split(images, np.array([0, 1, 2, 3, 4, 1], "i4"))
    return Dataset("small", split, split, split, (0.1,), (0.3,), 5)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_has_the_classes_that_are_known_before_it_is_loaded(name, small):
    made = variant_of(small, name)
    assert made.name == f"small:{name}" and made.classes == VARIANTS[name].classes(5)
    assert made.train.images.dtype == np.uint8
    for split in (made.train, made.validation, made.test):
        assert set(split.labels) <= set(range(made.classes))
        assert len(split.images) == len(split.labels)
    again = variant_of(small, name)
    jax.tree.map(np.testing.assert_array_equal, made.train, again.train)


def test_variants_worked_by_hand(small):
    first, second = (variant_of(small, f"{which}_classes") for which in ("first", "second"))
    assert (first.classes, second.classes) == (2, 3)
    np.testing.assert_array_equal(first.test.labels, [0, 1, 1])
    np.testing.assert_array_equal(first.test.images[:, 0, 0, 0], [0, 4, 20])
    np.testing.assert_array_equal(second.train.labels, [0, 1, 2])
    halves = [variant_of(small, f"{which}_images").train for which in ("first", "second")]
    np.testing.assert_array_equal(halves[0].labels, [0, 1, 2])
    np.testing.assert_array_equal(halves[1].labels, [3, 4, 1])
    inverted, turned = (variant_of(small, name) for name in ("inverted", "rotated"))
    np.testing.assert_array_equal(inverted.train.images[0, :, :, 0], [[255, 254], [253, 252]])
    # the mean of 0 .. 23 is 11.5, their variance (24² - 1) / 12
    assert inverted.mean == pytest.approx(((255 - 11.5) / 255,))
    assert inverted.std == pytest.approx((np.sqrt(575 / 12) / 255,))
    assert (first.mean, first.std) == (small.mean, small.std)
    np.testing.assert_array_equal(turned.train.images[0, :, :, 0], [[1, 3], [0, 2]])
    noisy = variant_of(small, "noisy")
    assert (noisy.train.images != noisy.test.images).any()  # each split has noise of its own


def test_variants_are_loaded_by_name_and_others_refused():
    made = data.load("mnist5k:first_classes")
    assert made.classes == data.classes("mnist5k:first_classes") == 5
    assert len(made.test.labels) == 500 and data.shape(made.name) == (28, 28, 1)
    with pytest.raises(
        data.DataError, match="unknown variant 'upside' of mnist5k: use one of first"
    ):
        data.shape("mnist5k:upside")
    with pytest.raises(data.DataError, match="unknown data set 'mnst'"):
        data.classes("mnst:noisy")
