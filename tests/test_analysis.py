"""Analyses of masks: values worked by hand, brute force on small nets, chance."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets import losses, masks, nets, runs
from jaxtickets.analysis import connectivity, orthogonality, similarity, trainability
from jaxtickets.compress import graph

KEY = jax.random.key(0)
shape = jax.jit(connectivity.shape, static_argnums=(1, 2))

# --- similarity ----------------------------------------------------------------------------------

LEAVES = ("a", "b")
A = {"a": np.array([1, 1, 0, 0], bool), "b": np.array([[1, 0], [1, 1]], bool)}
B = {"a": np.array([1, 0, 1, 0], bool), "b": np.array([[1, 0], [0, 0]], bool)}


@pytest.fixture(scope="module")
def seen():
    return similarity.overlaps(runs.stack([A, B]), LEAVES)


@pytest.mark.parametrize(
    ("measure", "value"),
    [
        ("cosine", 2 / np.sqrt(5 * 3)),
        ("jaccard", 2 / 6),
        ("hamming", 4 / 8),
        ("chance", (2 * 2 / 4 + 3 * 1 / 4) / np.sqrt(5 * 3)),
    ],
)
def test_similarities_worked_by_hand(seen, measure, value):
    found = similarity.MEASURES[measure](seen)
    np.testing.assert_allclose(found, found.T)
    assert found[0, 1] == pytest.approx(value)


@pytest.mark.parametrize(
    ("measure", "pairwise"),
    [("cosine", masks.cosine), ("jaccard", masks.jaccard), ("hamming", masks.hamming)],
)
def test_all_pairs_are_what_the_mask_algebra_says_of_each(measure, pairwise, mlp):
    prunable = masks.prunable(mlp)
    keys = jax.random.split(KEY, 4)
    drawn = [masks.random(k, mlp, prunable, 10 + 3 * i) for i, k in enumerate(keys)]
    found = similarity.MEASURES[measure](similarity.overlaps(runs.stack(drawn), prunable))
    scale = masks.size(mlp, prunable) if measure == "hamming" else 1
    for i, j in itertools.product(range(4), repeat=2):
        assert found[i, j] == pytest.approx(
            float(pairwise(drawn[i], drawn[j], prunable)) / scale, 1e-5
        )


def test_layers_are_compared_alone(seen):
    assert similarity.cosine(similarity.layer(seen, "b"))[0, 1] == pytest.approx(1 / np.sqrt(3))


def test_an_empty_mask_is_like_nothing(seen):
    nothing = jax.tree.map(np.zeros_like, A)
    found = similarity.overlaps(runs.stack([A, nothing]), LEAVES)
    assert np.isnan(similarity.cosine(found)[0, 1]) and similarity.jaccard(found)[0, 1] == 0


def test_random_masks_are_as_alike_as_chance_says():
    params = {"a": np.zeros((40, 50)), "b": np.zeros((500,))}
    keep = {"a": 200, "b": 400}  # densities 0.1 and 0.8
    drawn = runs.stack([masks.random(k, params, LEAVES, keep) for k in jax.random.split(KEY, 40)])
    found = similarity.overlaps(drawn, LEAVES)
    apart = ~np.eye(40, dtype=bool)
    chance = similarity.chance(found)[apart]
    np.testing.assert_allclose(chance, (200 * 0.1 + 400 * 0.8) / 600)
    assert similarity.cosine(found)[apart].mean() == pytest.approx(chance[0], rel=0.01)


# --- orthogonality -------------------------------------------------------------------------------


def test_the_score_is_the_mean_square_of_the_gram_matrix_less_the_identity():
    kernel = np.array([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]])  # three inputs, two units
    gram = kernel @ kernel.T
    np.testing.assert_allclose(gram, [[5, 2, 3], [2, 1, 0], [3, 0, 9]])
    expected = ((gram - np.eye(3)) ** 2).mean()
    assert expected == (16 + 4 + 9 + 4 + 0 + 9 + 64) / 9
    assert losses.layer_orthogonality(jnp.asarray(kernel)) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (3, 3, 2, 5)])
def test_either_gram_matrix_gives_the_score(shape):
    kernel = np.random.default_rng(0).standard_normal(shape)
    rows = kernel.reshape(-1, shape[-1])
    expected = ((rows @ rows.T - np.eye(len(rows))) ** 2).mean()
    assert losses.layer_orthogonality(jnp.asarray(kernel)) == pytest.approx(expected, rel=1e-5)


def test_an_orthogonal_matrix_scores_zero_and_masked_weights_count_as_zero(mlp):
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))
    assert float(losses.layer_orthogonality(jnp.asarray(turn))) == pytest.approx(0, abs=1e-6)
    prunable = masks.prunable(mlp)
    nothing = jax.tree.map(lambda leaf: np.zeros(leaf.shape, bool), mlp)
    # the identity alone is left: 1/3 + 1/4 + 1/5
    assert float(orthogonality.score(mlp, nothing, prunable)) == pytest.approx(47 / 60)


def test_the_score_of_pytorchs_first_weights_is_the_thesis():
    model = nets.functional(
        nets.make("lenet300_100", use_bias=False, initializer="kaiming_uniform"), (28, 28, 1)
    )
    params, _ = jax.jit(model.init)(KEY)
    prunable = masks.prunable(params)
    dense = orthogonality.score(params, masks.ones(params), prunable)
    assert float(dense) == pytest.approx(0.01324, abs=1e-4)
    random = masks.random(KEY, params, prunable, 79_860)
    assert float(orthogonality.score(params, random, prunable)) == pytest.approx(0.01412, abs=1e-4)


def test_repair_lowers_the_score_and_moves_kept_weights_alone(mlp):
    prunable = masks.prunable(mlp)
    small = jax.tree.map(lambda leaf: leaf / 3, mlp)
    mask = masks.random(KEY, mlp, prunable, 30)
    moved = orthogonality.repair(small, mask, prunable, steps=50)
    scores = [float(orthogonality.score(params, mask, prunable)) for params in (small, moved)]
    assert scores[1] < 0.8 * scores[0]
    for path, before, after, kept in zip(
        masks.paths(mlp), *map(jax.tree.leaves, (small, moved, mask)), strict=True
    ):
        changed = before != after
        assert (after[~kept] == 0).all()
        assert changed[kept].all() == (path in prunable)


# --- connectivity --------------------------------------------------------------------------------


def paths_through(mask):
    """By brute force over all paths of the 3-4-5-2 net: the kernels' weights that lie on one."""
    kernels = [np.asarray(mask[layer]["kernel"]) for layer in ("fc1", "fc2", "out")]
    on = [np.zeros_like(k) for k in kernels]
    for a, b, c, d in itertools.product(range(3), range(4), range(5), range(2)):
        if kernels[0][a, b] and kernels[1][b, c] and kernels[2][c, d]:
            on[0][a, b] = on[1][b, c] = on[2][c, d] = True
    return on


@pytest.mark.parametrize("seed", range(6))
def test_effective_weights_lie_on_a_path_from_input_to_output(seed, mlp, mlp_wiring):
    prunable = masks.prunable(mlp)
    mask = masks.random(jax.random.key(seed), mlp, prunable, 8 + 2 * seed)
    found = shape(mask, mlp_wiring, prunable)
    on = paths_through(mask)
    names = ("fc1/kernel", "fc2/kernel", "out/kernel")
    assert {n: int(found.effective[n]) for n in names} == {
        n: int(k.sum()) for n, k in zip(names, on, strict=True)
    }
    assert int(found.dead_inputs) == 3 - on[0].any(1).sum()
    dead = {"fc1": 4 - on[1].any(1).sum(), "fc2": 5 - on[2].any(1).sum()}
    assert {name: int(n) for name, n in found.dead_units.items()} == dead


def test_a_filter_is_read_at_all_its_pixels():
    net = nets.make("lenet5_lecun")
    params, _ = jax.jit(nets.functional(net, (28, 28, 1)).init)(KEY)
    prunable, wiring = masks.prunable(params), nets.wiring(net, (28, 28, 1))
    whole = shape(masks.ones(params), wiring, prunable)
    assert sum(map(int, whole.effective.values())) == masks.size(params, prunable)
    assert not any(map(int, whole.dead_units.values())) and not int(whole.dead_inputs)

    # filter 3 of the second convolution is read at one pixel of the 25, by one unit
    rows = jnp.arange(400)
    mask = masks.ones(params)
    reader = mask["fc1"]["kernel"] & (rows % 16 != 3)[:, None]
    mask["fc1"]["kernel"] = reader.at[16 * 7 + 3, 5].set(True)
    one = shape(mask, wiring, prunable)
    assert not any(map(int, one.dead_units.values()))
    mask["fc1"]["kernel"] = reader
    none = shape(mask, wiring, prunable)
    assert {name: int(n) for name, n in none.dead_units.items() if n} == {"conv2": 1}
    assert int(none.effective["conv2/kernel"]) == 25 * 6 * 15


@pytest.mark.parametrize("keep", [200, 400])
def test_a_chains_connectivity_by_its_graph_is_the_same(keep):
    net = nets.make("lenet5_lecun")
    params, _ = jax.jit(nets.functional(net, (28, 28, 1)).init)(KEY)
    prunable, traced = masks.prunable(params), graph.trace(net, (28, 28, 1))
    mask = masks.random(KEY, params, prunable, keep, floor=10)
    found = connectivity.of_graph(mask, traced, prunable)
    expected = shape(mask, traced.wiring, prunable)
    assert 0 < sum(map(int, found.effective.values())) < keep
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_paths_through_an_embedding_and_a_skip_connection_by_hand():
    def apply(params, tokens):  # embed -> up -> down, added to what was embedded -> out
        kernel = {name: leaf["kernel"] for name, leaf in params.items() if name != "embed"}
        seen = params["embed"]["embedding"][tokens]
        inner = jax.nn.relu(seen @ kernel["up"]) @ kernel["down"]
        return (seen + inner) @ kernel["out"]

    sizes = {"up": (2, 3), "down": (3, 2), "out": (2, 4)}
    params = {name: {"kernel": jnp.ones(size)} for name, size in sizes.items()}
    params["embed"] = {"embedding": jnp.ones((5, 2))}
    traced = graph.trace(
        nets.functional_plain(apply, params), jax.ShapeDtypeStruct((1,), jnp.int32)
    )
    mask = masks.ones(params)
    mask["up"]["kernel"] = jnp.array([[1, 0, 1], [1, 0, 1]], bool)  # nothing feeds unit 1
    mask["down"]["kernel"] = jnp.array([[1, 1], [1, 1], [0, 0]], bool)  # nothing reads unit 2
    found = connectivity.of_graph(mask, traced, masks.prunable(params))
    effective = {"up/kernel": 2, "down/kernel": 2, "out/kernel": 8}
    assert jax.tree.map(int, found.effective) == effective
    assert sum(map(int, found.dead_units.values())) == 2 and int(found.dead_inputs) == 0


# --- trainability --------------------------------------------------------------------------------


def test_steps_to_a_loss_are_the_first_at_or_below_it():
    losses = np.array([[2.0, 1.0, 1.2, 0.4], [2.0, 1.9, 1.8, 1.7]])
    found = trainability.steps_to_reach([10, 20, 30, 40], losses, (2.0, 1.0, 0.5, 0.1))
    np.testing.assert_array_equal(found, [[10, 20, 40, np.nan], [10, np.nan, np.nan, np.nan]])
