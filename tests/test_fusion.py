"""Neuron fusion: which units are fused, what becomes of their weights, and what stays the same."""

import itertools

import jax
import numpy as np
import pytest

from jaxtickets import masks, nets
from jaxtickets.compress import fusion
from jaxtickets.compress.fusion import HOW, WHICH, Layer, Partners, combinations, similarity
from jaxtickets.compress.fusion.layers import combine, layer_of
from jaxtickets.compress.fusion.pairs import number_above
from jaxtickets.compress.graph import Graph, trace
from jaxtickets.compress.shrink import shrink, shrink_alike
from jaxtickets.types import Feed, Ticket, Units

KEY = jax.random.key(0)
NETS = {  # the image shape; attributes
    "lenet300_100": ((5, 5, 1), {"widths": (8, 6)}),
    "lenet5": ((16, 16, 1), {"widths": (4, 6, 8), "batch_norm": True}),
}
SCALED = [name for name in HOW if name not in ("prune", "average")]


def twins(name, scale=1.0):
    """A net in which each even unit of each hidden layer has a twin, `scale` times itself."""
    shape, attributes = NETS[name]
    net = nets.make(name, **attributes)
    graph, model = trace(net, shape), nets.functional(net, shape)
    draw = np.random.default_rng(0)
    params, stats = (
        jax.tree.map(lambda a: draw.normal(0, 1, a.shape).astype("f"), tree)
        for tree in jax.eval_shape(model.init, KEY)
    )
    stats = jax.tree.map(np.abs, stats)
    for group in graph.wiring:
        layer = params[group.producers[0]]
        for leaf in ("kernel", "bias"):
            layer[leaf][..., 1::2] = layer[leaf][..., ::2] * scale
        for norm in group.norms:  # twins have the same batch norm of inputs with another scale
            for tree in (params, stats):
                for leaf in tree[norm].values():
                    leaf[1::2] = leaf[::2]
            stats[norm]["mean"][1::2] *= scale
            params[norm]["bias"][1::2] *= scale
    ticket = Ticket(params, stats, masks.ones(params), np.int32(0))
    images = draw.normal(0, 1, (3, 5, *shape)).astype("f")
    return net, ticket, graph, images


@pytest.fixture(scope="module")
def nets_of_twins():
    """Name, scale -> a net of twins, the means of its units' products, and its outputs."""
    found = {}
    for name, scale in itertools.product(NETS, (1.0, 3.0)):
        net, ticket, graph, images = twins(name, scale)
        grams = fusion.grams(net, ticket.params, ticket.stats, graph, images)
        apply = jax.jit(nets.functional(net, graph.image).apply)
        found[name, scale] = net, ticket, graph, grams, images[0], apply
    return found


def same(nets_of_twins, name, scale, which, how):
    _, ticket, graph, grams, images, apply = nets_of_twins[name, scale]
    keep = {group.name: group.size - 1 for group in graph.wiring}
    fused = fusion.fuse(KEY, ticket, graph, keep, WHICH[which], HOW[how], grams=grams)
    assert {name: int(mask.sum()) for name, mask in fused.units.items()} == keep
    before, after = (
        np.asarray(apply(one.params, one.stats, images)[0]) for one in (ticket, fused.ticket)
    )
    assert np.ptp(before) > 1
    return abs(before - after).max() / abs(before).max()


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("name", NETS)
def test_fusing_two_identical_units_changes_no_output(nets_of_twins, name, which):
    for how in HOW:
        off = same(nets_of_twins, name, 1.0, which, how)
        small = 3e-2 if WHICH[which].divides else 1e-4
        assert off > 5e-2 if how == "prune" else off < small, how


@pytest.mark.parametrize("how", SCALED)
@pytest.mark.parametrize("name", NETS)
def test_fusing_proportional_units_changes_no_output(nets_of_twins, name, how):
    assert same(nets_of_twins, name, 3.0, "cosine", how) < 1e-4
    assert same(nets_of_twins, name, 3.0, "cosine", "average") > 1e-2


@pytest.mark.parametrize("name", NETS)
def test_the_net_without_the_removed_units_computes_the_same(nets_of_twins, name):
    net, ticket, graph, _, images, apply = nets_of_twins[name, 1.0]
    fused = fusion.fuse(
        KEY, ticket, graph, fusion.by_share(graph, 0.5), WHICH["l2"], HOW["weighted"]
    )
    small, cut, report = shrink(net, fused.ticket, fused.units, graph)
    assert small.widths == tuple(width // 2 for width in net.widths)
    assert report.after.parameters < report.before.parameters / 2
    whole = np.asarray(apply(fused.ticket.params, fused.ticket.stats, images)[0])
    less = jax.jit(nets.functional(small, graph.image).apply)(cut.params, cut.stats, images)[0]
    np.testing.assert_allclose(less, whole, rtol=1e-4, atol=1e-4 * abs(whole).max())


def test_nets_of_the_same_widths_are_cut_as_each_alone(nets_of_twins):
    net, ticket, graph, *_ = nets_of_twins["lenet300_100", 1.0]
    found = [
        fusion.fuse(KEY, ticket, graph, {"fc1": 3, "fc2": 5}, WHICH[which], HOW["merge"])
        for which in ("l1", "random")
    ]
    small, cut, _ = shrink_alike(
        net, [one.ticket for one in found], [one.units for one in found], graph
    )
    alone = shrink(net, found[1].ticket, found[1].units, graph)
    assert small == alone[0]
    jax.tree.map(np.testing.assert_array_equal, cut[1], alone[1])
    with pytest.raises(ValueError, match="4 units of fc1 stay, of the first 3"):
        more = fusion.fuse(KEY, ticket, graph, {"fc1": 4}, WHICH["l1"], HOW["merge"])
        shrink_alike(net, [found[0].ticket, more.ticket], [found[0].units, more.units], graph)


# --- which units stay, and where the others go ---------------------------------------------------


def layer(rows, outgoing=None, gram=None, norm=False):
    rows = np.asarray(rows, float)
    read = np.ones((len(rows), 1)) if outgoing is None else np.asarray(outgoing, float)
    return Layer(rows[:, :-1], rows[:, -1], read, norm, gram)


ROWS = [[3, 0, 0], [0, 2, 2], [1, 0, 0.1], [0, 1, 0]]  # the last column holds the biases
# L1: 3, 4, 1.1, 1; cosine of 2 with 0: 1/√1.01 = .995; of 3 with 1: 1/√2 = .707


@pytest.mark.parametrize("name", ["l1", "l2", "hungarian", "optimal_transport", "cosine"])
def test_small_units_go_to_the_large_ones_of_their_direction(name):
    found = WHICH[name].choose(KEY, layer(ROWS), 2, 0.45)
    assert found.kept.tolist() == [True, True, False, False]
    expected = [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    np.testing.assert_allclose(found.share, expected, atol=1e-5)
    strict = WHICH[name].choose(KEY, layer(ROWS), 2, 0.9)  # .707 is too little
    np.testing.assert_allclose(strict.share[2:], [[1, 0, 0, 0], [0, 0, 0, 0]], atol=1e-5)


def test_the_geometric_median_goes_first():
    # sums of distances: of 0 on the line 0, 1, 2, 9 they are 12; of 1: 10; of 2: 10; of 9: 24
    found = WHICH["geometric_median"].choose(KEY, layer([[0, 1], [1, 1], [2, 1], [9, 1]]), 3, -1)
    assert found.kept.sum() == 3 and found.kept[0] and found.kept[3]


def test_activations_decide_by_data():
    gram = np.array([[4, 0, 1.9], [0, 1, 0], [1.9, 0, 1]])  # cosine of 0 and 2: .95
    found = WHICH["activations"].choose(KEY, layer(ROWS[:3], gram=gram), 2, 0.45)
    assert found.kept.tolist() == [True, True, False] and found.share[2].tolist() == [1, 0, 0]


def test_k_means_finds_the_directions_and_keeps_the_unit_nearest_to_each():
    draw = np.random.default_rng(0)
    directions = np.eye(4)[:3]
    of = np.repeat(np.arange(3), 5)
    rows = directions[of] * draw.uniform(0.5, 2, (15, 1)) + 0.05 * draw.normal(size=(15, 4))
    rows[[0, 5, 10]] = directions * 0.7
    found = WHICH["kmeans"].choose(KEY, layer(rows), 3, 0.45)
    assert sorted(of[found.kept]) == [0, 1, 2]
    assert (of[np.argmax(found.share, 1)] == of).all()
    centred = WHICH["kmeans"].choose(KEY, layer([[1, -0.4], [1, 0], [1, 0.4], [-1, 0]]), 2, 0.45)
    assert np.flatnonzero(centred.kept).tolist() == [1, 3]


@pytest.mark.parametrize("keep", [1, 3, 5])
def test_k_means_keeps_as_many_units_as_asked_even_if_all_are_equal(keep):
    found = WHICH["kmeans"].choose(KEY, layer(np.ones((6, 3))), keep, 0.45)
    assert found.kept.sum() == keep
    assert (found.share.sum(1) == 1).all() and not found.share[:, ~found.kept].any()


def test_the_matching_is_the_cheapest_with_equal_parts():
    draw = np.random.default_rng(1)
    rows = draw.normal(size=(6, 4)) * np.array([9, 9, 1, 1, 1, 1])[:, None]
    one = layer(rows)
    found = WHICH["hungarian"].choose(KEY, one, 2, -1)
    assert found.share[2:].sum(0)[:2].tolist() == [2, 2]
    cost = 1 - similarity.cosines(rows)
    least = min(
        sum(cost[2 + i, k] for i, k in enumerate(to))
        for to in itertools.product((0, 1), repeat=4)
        if sum(to) == 2
    )
    np.testing.assert_allclose((found.share * cost)[2:].sum(), least)


def test_no_kept_unit_takes_more_than_its_part_in_a_plan_which_is_near_the_cheapest():
    draw = np.random.default_rng(2)
    rows = draw.normal(size=(8, 5)) * np.array([9, 9, 1, 1, 1, 1, 1, 1])[:, None]
    plan, match = (
        WHICH[name].choose(KEY, layer(rows), 2, -1).share[2:, :2]
        for name in ("optimal_transport", "hungarian")
    )
    np.testing.assert_allclose(plan.sum(1), 1)
    np.testing.assert_allclose(plan.sum(0), 3, rtol=1e-2)  # six units between two
    cost = (1 - similarity.cosines(rows))[2:, :2]
    assert (match * cost).sum() <= (plan * cost).sum() + 1e-2 < (match * cost).sum() + 0.3
    assert np.abs(plan - match).max() > 1e-3  # a plan divides


def test_similar_pairs_are_counted_until_none_is_left():
    # as ROWS: .995 between 0 and 2, .707 between 1 and 3; then nothing but zeros
    counts = [number_above(layer(ROWS), least) for least in (0.999, 0.9, 0.6)]
    assert counts == [4, 3, 2]


def test_the_bias_counts_for_a_fifth_with_batch_norm():
    # unit 2 has cosine 1 with 0 and cosine .8 with 1; its bias is that of 1, scaled
    rows = [[2, 0, 5], [1.6, 1.2, 1], [1, 0, 0.5]]
    kept = np.array([True, True, False])
    # |.5 − .5 · 5| = 2 and |.5 − .5 · 1| = 0 scale to 1 and 0: .2 · 1 against .8 · .2 = .16
    found = similarity.distances(layer(rows, norm=True), kept)
    np.testing.assert_allclose(found[2, :2], [0.2, 0.16], atol=1e-12)


# --- what becomes of their weights ---------------------------------------------------------------

ONE = Partners(np.array([True, False]), np.array([[1.0, 0], [1, 0]]))


def test_combinations_by_hand():
    two = layer([[3, 4, 0], [0, 1, 0]], outgoing=[[2], [6]])
    # merge: the ratio of the norms is 1 / 5
    np.testing.assert_allclose(combinations.merge(two, ONE).outgoing, [[1, 0], [0.2, 0]])
    np.testing.assert_allclose(combinations.merge(two, ONE).incoming, [[1, 0], [0, 0]])
    np.testing.assert_allclose(combinations.average(two, ONE).incoming, [[0.5, 0], [0.5, 0]])
    np.testing.assert_allclose(combinations.average(two, ONE).outgoing, [[1, 0], [1, 0]])
    # weighted: 2 (3, 4) + 6 (0, 1) = (6, 14), whose norm √232 becomes 5
    found = combinations.weighted(two, ONE).incoming
    np.testing.assert_allclose(found[:, 0], np.array([2, 6]) * 5 / np.sqrt(232))
    np.testing.assert_allclose(combinations.prune(two, ONE).outgoing, [[1, 0], [0, 0]])


def test_regression_is_least_squares_with_neuron_merging_as_its_prior():
    draw = np.random.default_rng(3)
    outputs = np.maximum(draw.normal(size=(200, 5)) + draw.normal(size=(200, 1)), 0)
    gram = outputs.T @ outputs / 200
    one = layer(draw.normal(size=(5, 4)), gram=gram)
    found = WHICH["l2"].choose(KEY, one, 3, -1)
    made = combinations.regress(one, found).outgoing
    kept, prior = found.kept, combinations.merge(one, found).outgoing
    ridge = np.sqrt(200 * combinations.RIDGE * np.mean(np.diag(gram)[kept]))
    left = np.concatenate([outputs[:, kept], ridge * np.eye(3)])
    right = np.concatenate([outputs[:, ~kept], ridge * prior[np.ix_(~kept, kept)].T])
    expected = np.linalg.lstsq(left, right)[0]
    np.testing.assert_allclose(made[np.ix_(~kept, kept)], expected.T, rtol=1e-6)
    np.testing.assert_allclose(made[kept][:, kept], np.eye(3), atol=1e-12)


def test_with_batch_norm_the_scale_is_that_of_the_paper():
    draw = np.random.default_rng(4)
    group = Units("conv", 2, ("conv",), ("bn",), (Feed("out", 1),))
    kernel = draw.normal(size=(3, 3, 2, 2)).astype("f")
    gamma, var = np.array([0.5, 1.5], "f"), np.array([4.0, 0.25], "f")
    shift, mean = np.array([0.1, -0.2], "f"), np.array([0.3, 0.7], "f")
    params = {
        "conv": {"kernel": kernel},
        "bn": {"scale": gamma, "bias": shift},
        "out": {"kernel": np.ones((2, 3), "f")},
    }
    stats = {"bn": {"mean": mean, "var": var}}
    folded = layer_of(params, stats, group, epsilon=0.0)
    s = np.linalg.norm(kernel[..., 1]) / np.linalg.norm(kernel[..., 0])
    scale = s * (gamma[1] / gamma[0]) * np.sqrt(var[0] / var[1])
    np.testing.assert_allclose(combinations.merge(folded, ONE).outgoing[1, 0], scale, rtol=1e-6)
    # their constant, of a removed unit 1 and a kept unit 0
    constant = shift[1] - scale * shift[0]
    constant += gamma[1] / np.sqrt(var[1]) * (s * mean[0] - mean[1])
    np.testing.assert_allclose(folded.bias[1] - scale * folded.bias[0], constant, rtol=1e-5)


def test_averaged_batch_norms_have_the_average_of_the_folded_weights():
    _, ticket, graph, _ = twins("lenet5")
    draw = np.random.default_rng(5)
    params, stats = jax.tree.map(
        lambda a: draw.uniform(0.5, 2, a.shape).astype("f"), (ticket.params, ticket.stats)
    )
    group = graph.wiring[1]
    mixture = draw.uniform(0, 1, (group.size, group.size))
    made = combine(params, stats, group, fusion.Combination(mixture, np.eye(group.size)))
    before, after = layer_of(params, stats, group), layer_of(*made, group)
    np.testing.assert_allclose(after.weights, mixture.T @ before.weights, rtol=1e-4)
    np.testing.assert_allclose(after.bias, mixture.T @ before.bias, rtol=1e-4)
    np.testing.assert_allclose(after.outgoing, before.outgoing, rtol=1e-6)


# --- data, masks, counts, bad input --------------------------------------------------------------


def test_grams_are_the_mean_products_of_what_readers_get():
    net, ticket, graph, images = twins("lenet300_100")
    found = jax.jit(lambda batches: fusion.grams(net, *ticket[:2], graph, batches))(images)
    x, layers = images.reshape(15, -1), ticket.params
    for name in ("fc1", "fc2"):
        x = np.maximum(x @ layers[name]["kernel"] + layers[name]["bias"], 0)
        np.testing.assert_allclose(found[name], x.T @ x / 15, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="at least one batch"):
        fusion.grams(net, *ticket[:2], graph, images[:0])


def test_a_sum_is_kept_if_one_of_its_parts_was():
    net, ticket, graph, _ = twins("lenet300_100")
    mask = jax.tree.map(lambda leaf: np.array(leaf), ticket.mask)
    mask["fc2"]["kernel"][1, 0] = False  # of the pairs of inputs 0, 1 and 2, 3 of unit 0
    mask["fc2"]["kernel"][2:4, 0] = False
    keep = {"fc1": 4}
    fused = fusion.fuse(KEY, ticket._replace(mask=mask), graph, keep, WHICH["cosine"], HOW["merge"])
    kept = np.flatnonzero(fused.units["fc1"])
    left = np.asarray(fused.ticket.mask["fc2"]["kernel"])
    assert (kept // 2).tolist() == [0, 1, 2, 3]
    assert left[kept, 0].tolist() == [True, False, True, True]
    assert not left[~fused.units["fc1"]].any() and left[kept, 1:].all()
    small = shrink(net, fused.ticket, fused.units, graph)[1]
    assert small.mask["fc2"]["kernel"].shape == (4, 6)


def test_residual_sums_stay_whole():
    graph = trace(nets.make("resnet20"), (8, 8, 3))
    names = [group.name for group in fusion.fusible(graph)]
    assert len(names) == 9 and all(len(g.producers) == 1 for g in fusion.fusible(graph))
    assert len(names) < len(graph.wiring)


def test_bad_input_is_refused_in_one_line():
    _, ticket, graph, _ = twins("lenet300_100")
    for cut, message in {
        0.0: "a share of 0",
        1.0: "a share of 1",
        0.95: "none of the 8 of fc1",
    }.items():
        with pytest.raises(ValueError, match=message):
            fusion.by_share(graph, cut)
    with pytest.raises(ValueError, match="removes no unit of fc1, fc2"):
        fusion.by_share(graph, 0.01)
    with pytest.raises(ValueError, match=r"a cosine of 2 is outside"):
        fusion.by_cosine(graph, ticket.params, ticket.stats, 2.0)
    for keep, message in {"fc3": "no units 'fc3'", "fc1": "0 units of fc1: it has 8"}.items():
        with pytest.raises(ValueError, match=message):
            fusion.fuse(KEY, ticket, graph, {keep: 0}, WHICH["l1"], HOW["merge"])
    with pytest.raises(ValueError, match="give grams"):
        fusion.fuse(KEY, ticket, graph, {"fc1": 4}, WHICH["l1"], HOW["regress"])
    with pytest.raises(ValueError, match="7 clusters of 4 units"):
        WHICH["kmeans"].choose(KEY, layer(ROWS), 7, 0.45)
    with pytest.raises(ValueError, match="no layer's units can be fused"):
        fusion.fusible(Graph((), {}, {}, frozenset(), (3,)))
