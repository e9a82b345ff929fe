"""Units under a budget of multiply-adds: costs are those of nets, choices those of the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets import masks, nets
from jaxtickets.compress import budget, graph, unit_selection
from jaxtickets.criteria import Evidence
from jaxtickets.recipes.search_domain import ChainInputs, mask_at, search_domain
from jaxtickets.search import fields
from jaxtickets.search import space as spaces

MNIST, CIFAR = (28, 28, 1), (32, 32, 3)
KEY = jax.random.key(0)
NETS = {"lenet5": MNIST, "lenet300_100": MNIST, "conv4": CIFAR, "mobilenet_v2": CIFAR}


def known(name):
    """A net's graph, its layers' multiply-adds, and the costs made of them."""
    net, image = nets.make(name), NETS[name]
    traced, dense = graph.trace(net, image), nets.multiply_adds(net, image)
    return traced, dense, budget.costs(traced, dense)


def parts(costs, flat):
    return np.split(np.asarray(flat), np.cumsum(costs.sizes)[:-1])


@pytest.mark.parametrize("name", NETS)
def test_costs_are_the_multiply_adds_that_are_left(name):
    traced, dense, costs = known(name)
    draw = np.random.default_rng(0)
    for share in (0.1, 0.5, 1.0):
        flat = draw.random(sum(costs.sizes)) <= share
        units = dict(zip(traced.units, parts(costs, flat), strict=True))
        left = unit_selection.multiply_adds(traced, dense, units) / sum(dense.values())
        counts = jnp.array([part.sum() for part in units.values()])
        # the host rounds down twice a layer
        slack = 2 * len(dense) / sum(dense.values()) + 3e-7
        assert left - 3e-7 <= float(budget.share(costs, counts)) <= left + slack
        np.testing.assert_allclose(costs.axes.sum(-1) * (costs.axes.sum(-1) - 1), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "some"), [("lenet5", [0.03, 0.05, 0.2, 0.9]), ("mobilenet_v2", [0.1, 0.6])]
)
def test_the_choice_is_the_hosts_at_once_for_many_scores_and_budgets(name, some):
    traced, dense, costs = known(name)
    total, shares = sum(dense.values()), jnp.array(some)
    scores = jax.random.normal(KEY, (len(some), sum(costs.sizes)))
    found = jax.jit(jax.vmap(lambda s, b: budget.within(costs, s, b, 3)))(scores, shares)
    for flat, score, share in zip(found, scores, shares, strict=True):
        named = dict(zip(traced.units, parts(costs, score), strict=True))

        def cost(units):
            return unit_selection.multiply_adds(traced, dense, units)

        most = int(float(share) * total)
        expected = unit_selection.to_budget(
            unit_selection.over_layers, traced, named, cost, most, floor=3
        )
        units = dict(zip(traced.units, parts(costs, flat), strict=True))
        for name, mask in expected.items():
            np.testing.assert_array_equal(units[name], mask)
        assert cost(units) <= most < cost(units) + 0.05 * total


def test_a_floor_is_kept_whatever_the_scores_and_is_the_least():
    traced, dense, costs = known("lenet5")
    low = jnp.concatenate([jnp.full(size, -float(at)) for at, size in enumerate(costs.sizes)])
    found = [part.sum() for part in parts(costs, budget.within(costs, low, 0.05, 4))]
    assert found[1:] == [4, 4] and found[0] > 4  # the first layer's filters come before others
    for floor, left in ((4, [4, 4, 4]), (30, [20, 30, 30]), (0, [1, 1, 1])):
        pairs = zip(costs.sizes, left, strict=True)
        units = dict(zip(traced.units, (np.arange(n) < few for n, few in pairs), strict=True))
        least = unit_selection.multiply_adds(traced, dense, units) / sum(dense.values())
        assert budget.least(costs, floor) == pytest.approx(least, abs=4e-6)
        for share in (least / 2, least + 1e-5):  # a budget below the least net leaves it whole
            kept = parts(costs, budget.within(costs, low, share, floor))
            assert [part.sum() for part in kept] == left


def test_costs_of_other_units_are_refused(lenet):
    traced, dense, params, _ = lenet
    costs = budget.costs(traced, dense)
    where = "layer", params, ()
    with pytest.raises(ValueError, match="needs unit_fields"):
        search_domain("units", *where, traced.wiring, costs=costs)
    with pytest.raises(ValueError, match="costs of"):
        search_domain("unit_fields", *where, traced.wiring[::-1], ("chance",), costs=costs)


def test_groups_that_share_units_have_no_costs():
    net = nets.make("resnet20")
    with pytest.raises(ValueError, match="shares units with"):
        budget.costs(graph.trace(net, CIFAR), nets.multiply_adds(net, CIFAR))


@pytest.fixture(scope="module")
def lenet():
    net = nets.make("lenet5_29k")
    traced, dense = graph.trace(net, MNIST), nets.multiply_adds(net, MNIST)
    params, stats = nets.functional(net, MNIST).init(KEY)
    return traced, dense, params, stats


@pytest.mark.parametrize("share", [0.4, 0.12])
def test_fields_of_units_keep_to_the_budget_through_every_move(lenet, share):
    traced, dense, params, stats = lenet
    costs = budget.costs(traced, dense)
    where = search_domain(
        "unit_fields", "layer", params, (), traced.wiring, ("chance",), costs=costs
    )
    about = Evidence(params, params, stats, masks.ones(params), None, None)
    known = fields.features(KEY, where.fields, about, where.pool)
    row = ChainInputs(KEY, KEY, params, stats, None, None, known, jnp.float32(share))
    moves = fields.moves(where.fields)
    point, seen = fields.flat(where.fields, [1.0]), set()
    bits = jax.jit(lambda point: where.space.bits(mask_at(where, 1, row, point)))
    for i in range(30):
        proposal = moves.propose(jax.random.key(i), jnp.float32(2), point)
        point = moves.settle(proposal, jnp.bool_(True))
        units = spaces.named(where.space, bits(point))
        counts = tuple(int(mask.sum()) for mask in units.values())
        assert unit_selection.multiply_adds(traced, dense, units) <= share * sum(dense.values())
        assert min(counts) >= 1
        seen.add(counts)
    assert len(seen) > 10


def test_fields_of_units_without_costs_keep_their_number_and_follow_a_criterion(lenet):
    traced, _, params, stats = lenet
    names = ("large_init", "chance")
    where = search_domain("unit_fields", "layer", params, (), traced.wiring, names)
    about = Evidence(params, params, stats, masks.ones(params), None, None)
    known = fields.features(KEY, where.fields, about, where.pool)
    row = ChainInputs(KEY, KEY, params, stats, None, None, known, jnp.int32(60))
    point = fields.flat(where.fields, [1.0, 0.0])
    mean = where.space.pool(jax.tree.map(jnp.abs, params))
    expected = where.space.mask(spaces.choose(where.space, mean, 60, 1))
    found = mask_at(where, 1, row, point)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert where.space.bits(found).sum() == 60
    raised = point._replace(layers=point.layers.at[0].add(50.0))
    units = spaces.named(where.space, where.space.bits(mask_at(where, 1, row, raised)))
    assert next(iter(units.values())).all()
