"""Masks: what is counted, exact selection, random masks, units."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from flax.core import freeze

from jaxtickets import masks, roles, training
from jaxtickets.criteria import CRITERIA, Evidence
from jaxtickets.dynamic.static import masked
from jaxtickets.io.tickets import save_ticket
from jaxtickets.recipes.iterative_pruning import narrow
from jaxtickets.search import energies, space
from jaxtickets.types import Feed, Ticket, Units

KEY = jax.random.key(3)
AB = ("a", "b")


def bits(text):
    """A bool array from rows of 0 and 1, such as `10 01`."""
    return np.array([[c == "1" for c in row] for row in text.split()])


def equal(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)
    assert jax.tree.structure(tree) == jax.tree.structure(other)


# --- leaves by path ------------------------------------------------------------------------------

NET = {
    "conv1": {"kernel": np.ones((3, 3, 1, 2), "f"), "bias": np.ones(2, "f")},
    "bn1": {"scale": np.ones(2, "f"), "bias": np.ones(2, "f")},
    "out": {"kernel": np.ones((8, 2), "f"), "bias": np.ones(2, "f")},
    "out2": {"kernel": np.ones((2, 2), "f")},
}


def test_kernels_are_prunable_and_biases_and_norms_are_not():
    assert masks.prunable(NET) == ("conv1/kernel", "out/kernel", "out2/kernel")


class Block(nn.Module):
    """Attention, a recurrent cell and norms, as they are stacked by `nn.scan`."""

    @nn.compact
    def __call__(self, x, _):
        x = nn.MultiHeadDotProductAttention(2, name="attention")(nn.LayerNorm(name="norm")(x))
        return nn.RNN(nn.LSTMCell(4))(x), None


class Sequences(nn.Module):
    """One leaf of each role in most of Flax' layers, and some that are the user's own."""

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(5, 4, name="embed")(tokens) + self.param("pos_embedding", ones, (1, 3, 4))
        x = (
            x
            + nn.Embed(3, 4, name="positions")(jnp.arange(3))[None]
            + self.param("cls", ones, (1, 1, 4))
        )
        x, _ = nn.scan(Block, {"params": 0}, split_rngs={"params": True}, length=2)(name="blocks")(
            x, None
        )
        x = nn.ConvTranspose(4, (2,), name="up")(nn.ConvLocal(4, (2,), name="local")(x))
        x = nn.DenseGeneral((2, 3), name="split")(nn.Conv(4, (2,), name="conv")(x))
        x = nn.vmap(nn.Dense, in_axes=2, variable_axes={"params": 0}, split_rngs={"params": True})(
            2, name="heads"
        )(x)
        return x @ self.param("weight", ones, (2, 2)) + self.param("bias", ones, (1, 1, 1, 2))


def ones(key, shape):
    del key
    return jnp.ones(shape)


def test_a_leafs_role_decides_and_not_its_axes():
    shapes = jax.eval_shape(Sequences().init, KEY, jnp.zeros((1, 3), int))["params"]
    attention = [f"blocks/attention/{layer}" for layer in ("key", "out", "query", "value")]
    lstm = [f"blocks/LSTMCell_0/{a}{b}" for a in "hi" for b in "fgio"]
    layers = [*attention, *lstm, "conv", "heads", "local", "split", "up"]
    kernels = [*(f"{layer}/kernel" for layer in layers), "weight"]
    biases = [
        path
        for path, leaf in zip(masks.paths(shapes), jax.tree.leaves(shapes), strict=True)
        if leaf.ndim >= 2 and path not in kernels
    ]
    assert "blocks/attention/query/bias" in biases and "blocks/norm/scale" in biases
    assert masks.prunable(shapes) == tuple(sorted(kernels))
    both = masks.prunable(shapes, is_prunable=roles.is_kernel_or_embedding)
    assert both == tuple(sorted([*kernels, "embed/embedding"]))
    assert masks.prunable(shapes, is_prunable=lambda path, leaf: path == "cls") == ("cls",)


def test_nnx_states_and_their_plain_dicts_have_the_same_kernels():
    rngs = nnx.Rngs(0)
    layers = {"attention": nnx.MultiHeadAttention(2, 4, rngs=rngs, decode=False)}
    state = nnx.state(nnx.Dict(layers | {"embed": nnx.Embed(3, 4, rngs=rngs)}), nnx.Param)
    kernels = [f"attention/{layer}/kernel" for layer in ("key", "out", "query", "value")]
    assert masks.prunable(nnx.to_pure_dict(state)) == tuple(kernels)
    assert masks.prunable(state) == tuple(f"{path}/value" for path in kernels)


@pytest.mark.parametrize(
    ("path", "role"),
    {
        "fc/W": "kernel",
        "fc/w1": "kernel",
        "attention/wq": "kernel",
        "cell/weight_hh": "kernel",
        "attention/in_proj_weight": "kernel",
        "layers/0/weight": "kernel",
        "0/0": "kernel",  # neither the leaf nor the list has a name
        "fc/0": "kernel",
        "w/0": "kernel",
        "layernorm_mlp/kernel": "kernel",
        "embedding/kernel": "kernel",
        "embed/weight": "embedding",
        "embed/embeddings": "embedding",
        "wte": "embedding",
        "value": "",
        "fc/b1": "",
        "fc/b": "",
        "conv/bias": "",
        "biases/0": "",
        "norm1/weight": "",
        "LayerNorm_0/0": "",
        "RMSNorm_0/weight": "",
        "norm_weight": "",
        "pos_embed/embedding": "",
        "wpe": "",
        "theta": "",
    }.items(),
)
def test_names_say_roles(path, role):
    leaf = np.ones((2, 2))
    assert roles.is_kernel(path, leaf) == (role == "kernel")
    assert roles.is_embedding(path, leaf) == (role == "embedding")
    assert not roles.is_kernel_or_embedding(path, leaf[0])


def test_a_net_without_kernels_is_refused_in_one_line():
    with pytest.raises(
        ValueError, match=r"^no leaf is a kernel by its name among theta0, .*: pass"
    ):
        masks.prunable({f"theta{i}": np.ones((2, 2)) for i in range(9)})


@pytest.mark.parametrize("name", ["out", "out/kernel"])
def test_excluded_layers_and_leaves_stay_dense(name):
    assert masks.prunable(NET, [name]) == ("conv1/kernel", "out2/kernel")


def test_excluding_what_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="no layer 'fc1' to exclude; there are bn1/bias, bn1/"):
        masks.prunable(NET, ["out", "fc1"])
    with pytest.raises(ValueError, match="no layer 'ou'"):  # the beginning of a name is no name
        masks.prunable(NET, ["ou"])


def test_excluding_everything_is_an_error():
    with pytest.raises(ValueError, match="no leaf is left to prune"):
        masks.prunable(NET, ["conv1", "out", "out2"])


def test_pick_and_put_follow_the_paths_and_name_one_that_is_missing():
    tree = {"a": np.zeros(1), "b": np.ones(2)}
    assert [leaf.size for leaf in masks.pick(tree, ("b", "a"))] == [2, 1]
    with pytest.raises(ValueError, match="no leaf 'c'; there are a, b"):
        masks.pick(tree, ("a", "c"))
    with pytest.raises(ValueError, match="no leaf 'c'; there are a, b"):
        masks.put(tree, ("a", "c"), [np.ones(1), np.ones(1)])


def test_put_replaces_what_pick_gives_and_nothing_else(mlp):
    some = ("fc1/bias", "out/kernel")
    equal(masks.put(mlp, some, masks.pick(mlp, some)), mlp)
    changed = masks.put(mlp, some, [leaf + 1 for leaf in masks.pick(mlp, some)])
    differ = [
        path
        for path, old, new in zip(
            masks.paths(mlp), *map(jax.tree.leaves, (mlp, changed)), strict=True
        )
        if not np.array_equal(old, new)
    ]
    assert differ == list(some)


def test_flatten_and_unflatten_are_inverse(mlp):
    prunable = masks.prunable(mlp)
    vector = np.arange(42) % 3 == 0
    mask = masks.unflatten(vector, mlp, prunable)
    np.testing.assert_array_equal(masks.flatten(mask, prunable), vector)
    # fc1 has the first 12 of the bits, row by row.
    np.testing.assert_array_equal(mask["fc1"]["kernel"], bits("1001 0010 0100"))
    assert all(mask[layer]["bias"].all() for layer in mask)
    equal(masks.unflatten(masks.flatten(mask, prunable), mlp, prunable), mask)


# --- apply and measure ---------------------------------------------------------------------------


def test_apply_selects_so_that_nan_is_gone():
    params = {"a": jnp.array([[jnp.nan, 2.0], [jnp.inf, jnp.nan]])}
    masked = masks.apply({"a": bits("01 01")}, params)
    np.testing.assert_array_equal(masked["a"], [[0, 2], [0, np.nan]])


def test_apply_is_no_product_that_a_compiler_has_made_good():
    # XLA itself turns a compiled product with a bool into a selection.
    with jax.disable_jit():
        masked = masks.apply({"a": bits("01")}, {"a": jnp.array([[jnp.nan, 2.0]])})
    np.testing.assert_array_equal(masked["a"], [[0, 2]])


def test_apply_fills_what_is_cut():
    fill = {"a": jnp.array([[5.0, 6.0]])}
    filled = masks.apply({"a": bits("01")}, {"a": jnp.array([[jnp.nan, 2.0]])}, fill)
    np.testing.assert_array_equal(filled["a"], [[5, 2]])


FAULTS = {
    "container": (freeze, r"holds a FrozenDict where .* a dict: convert one"),
    "missing": (lambda mask: {"b": mask["b"]}, "no leaf 'a/kernel' in the mask"),
    "another": (
        lambda mask: mask | {"c": mask["b"]},
        "leaf 'c/kernel' of the mask isn't in",
    ),
    "broadcast": (
        lambda mask: mask | {"b": {"kernel": mask["b"]["kernel"][:1]}},
        r"the mask has the shape \(1, 2\) in b/kernel, where .* have \(3, 2\)",
    ),
    "floats": (
        lambda mask: mask | {"b": {"kernel": np.ones((3, 2), "f")}},
        "the mask is float32 in b/kernel: it must be bool",
    ),
}
DOOR = {layer: {"kernel": jnp.ones((3, 2))} for layer in "ab"}
AT_DOOR = Evidence(DOOR, DOOR, {}, None, None, None)
DOORS = {
    "apply": lambda mask: masks.apply(mask, DOOR),
    "training": lambda mask: training.init(DOOR, {}, masked(optax.sgd(0.1), mask)),
    "traced": lambda mask: jax.eval_shape(masks.apply, mask, DOOR),
    "search": lambda mask: space.weights(DOOR, ("a/kernel",)).bits(mask),
    "criteria": lambda mask: CRITERIA["magnitude"].score(KEY, AT_DOOR._replace(mask=mask)),
    "narrow": lambda mask: narrow(DOOR, mask, ("a/kernel",), 1),
    "energies": lambda mask: energies.saliency(DOOR, ("a/kernel",)).evaluate(KEY, mask),
    "io": lambda mask: save_ticket("nowhere", Ticket(DOOR, {}, mask, 0), {}),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_mask_is_refused_at_every_door_in_one_line(door, fault):
    make, said = FAULTS[fault]
    with pytest.raises(ValueError, match=said) as error:
        DOORS[door](make(masks.ones(DOOR)))
    assert "\n" not in str(error.value)


def test_a_fill_or_first_weights_of_another_tree_are_refused():
    with pytest.raises(ValueError, match="no leaf 'b/kernel' in the fill"):
        masks.apply(masks.ones(DOOR), DOOR, {"a": DOOR["a"]})
    evidence = AT_DOOR._replace(mask=masks.ones(DOOR), init_params=freeze(DOOR))
    with pytest.raises(ValueError, match="the first parameters holds a FrozenDict"):
        CRITERIA["movement"].score(KEY, evidence)


def test_masks_are_compared_by_their_leaves_whatever_holds_them():
    assert masks.hamming(A, freeze(B), AB) == 4
    for measure in (masks.hamming, masks.cosine, masks.jaccard):
        with pytest.raises(ValueError, match=r"masks of the shapes \(2, 2\) and \(1, 2\) in a"):
            measure(A, B | {"a": B["a"][:1]}, AB)
    floats = B | {"b": np.full((1, 3), 0.5)}
    for measure in (masks.density, masks.counts, masks.invert):
        with pytest.raises(ValueError, match="the mask is float32 in b"):
            measure(floats, AB)


# A and B differ in the bias too, which does not count.
A = {"a": bits("11 00"), "b": bits("110"), "bias": np.array([True, True])}
B = {"a": bits("10 10"), "b": bits("011"), "bias": np.array([False, True])}
# |A| = 2 + 2 = 4, |B| = 2 + 2 = 4 of 4 + 3 = 7 weights. In both: 1 in a, 1 in b.
# They differ in 2 of a and 2 of b. The cosine is 2 / sqrt(4 * 4), Jaccard 2 / (4 + 4 - 2).
MEASURES = {
    "count": (masks.count(A, AB), 4),
    "size": (masks.size(A, AB), 7),
    "density": (masks.density(A, AB), 4 / 7),
    "hamming": (masks.hamming(A, B, AB), 4),
    "cosine": (masks.cosine(A, B, AB), 1 / 2),
    "jaccard": (masks.jaccard(A, B, AB), 1 / 3),
    "to itself": (masks.hamming(A, A, AB), 0),
    "with itself": (masks.cosine(A, A, AB), 1),
    "of one leaf": (masks.jaccard(A, B, ("b",)), 1 / 3),
    "unequal": (masks.cosine(masks.ones(A), B, AB), 4 / np.sqrt(7 * 4)),
}


@pytest.mark.parametrize("name", MEASURES)
def test_measures_count_prunable_leaves_alone(name):
    value, golden = MEASURES[name]
    np.testing.assert_allclose(value, golden, rtol=1e-6)


def test_packed_words_by_hand():
    # ones at 0, 5, 31 of the first word and at 0 and 2 of the second, which has 3 bits
    kept = np.isin(np.arange(35), [0, 5, 31, 32, 34])
    np.testing.assert_array_equal(masks.pack(kept), [1 + 32 + 2**31, 1 + 4])
    np.testing.assert_array_equal(masks.pack(np.stack([kept, ~kept]))[1], [2**31 - 34, 2])


def test_distances_of_packed_masks_are_those_of_bools():
    draw = np.random.default_rng(2)
    kept = draw.random((6, 77)) < np.linspace(0, 1, 6)[:, None]
    golden = (kept[:, None] != kept[None]).sum(-1)
    assert golden.max() == 77
    found = masks.distances(masks.pack(kept))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, golden)


def test_counts_and_densities_are_by_leaf():
    assert masks.counts(A, AB) == {"a": 2, "b": 2}
    by_leaf = {path: float(value) for path, value in masks.densities(A, AB).items()}
    assert by_leaf == pytest.approx({"a": 1 / 2, "b": 2 / 3})


def test_empty_masks_have_no_angle():
    none = masks.invert(masks.ones(A), AB)
    assert np.isnan(masks.cosine(A, none, AB)) and np.isnan(masks.jaccard(none, none, AB))
    assert masks.jaccard(A, none, AB) == 0


# --- top_k ---------------------------------------------------------------------------------------


def reference(scores, keep):
    """numpy's stable sort: highest first, of equal ones the first, NaN last."""
    kept = np.zeros(len(scores), bool)
    kept[np.argsort(-scores, kind="stable")[:keep]] = True
    return kept


def difficult(n, zeros=(0.0,)):
    """float32`[5, n]`: few values and hence ties, infinities and NaN; no ties; all the same."""
    draw = np.random.default_rng(n)
    values = np.array([-np.inf, -2.5, -2.5, *zeros, 1e-30, 1.0, np.inf, np.nan], "f")
    return np.stack(
        [
            draw.choice(values, n),
            draw.choice(values, n),
            draw.integers(-2, 3, n).astype("f") + 0.0,
            draw.standard_normal(n).astype("f"),
            np.full(n, -1.5, "f"),
        ]
    )


KEEPS = (0, 1, 2, 3, 10, 123, 250, 499, 500, 501, 640, 777, 998, 999, 1000)
top_k_table = jax.jit(jax.vmap(jax.vmap(masks.top_k, (None, 0)), (0, None)))


@pytest.mark.parametrize("n", [1, 2, 3, 31, 32, 33, 1000])
def test_top_k_is_a_stable_sort_with_a_traced_keep(n):
    scores, keeps = difficult(n), np.array(KEEPS if n == 1000 else range(n + 1))
    kept = top_k_table(scores, keeps)
    golden = [[reference(row, keep) for keep in keeps] for row in scores]
    np.testing.assert_array_equal(kept, golden)


@cache
def compiled_top_k():
    return jax.jit(masks.top_k)


@pytest.mark.parametrize("keep", range(6))
@pytest.mark.parametrize("form", ["eager", "compiled"])
def test_both_zeros_are_equal(form, keep):
    top_k = masks.top_k if form == "eager" else compiled_top_k()
    scores = np.array([-1.0, -0.0, 0.0, -0.0, 1.0], "f")
    np.testing.assert_array_equal(top_k(jnp.array(scores), keep), reference(scores, keep))


def test_counts_of_every_kind_share_a_program():
    masks._top_k.clear_cache()  # another test may have ranked seven
    scores, before = jnp.arange(7.0), masks._top_k._cache_size()
    for keep in (3, np.int64(3), jnp.int32(3), jnp.sum(jnp.ones(3, bool))):
        assert masks.top_k(scores, keep).tolist() == [False] * 4 + [True] * 3
    assert masks._top_k._cache_size() == before + 1
    # without a floor nothing is ranked within leaves
    masks.select({"a": jnp.arange(3.0), "b": jnp.arange(4.0)}, ("a", "b"), 2)
    assert masks._top_k._cache_size() == before + 1


@pytest.mark.parametrize("form", ["eager", "compiled"])
def test_the_smallest_floats_are_told_apart(form):
    top_k = masks.top_k if form == "eager" else compiled_top_k()
    scores = jnp.array(np.array([1e-40, 2e-40, 0.0, -1e-40, -1e-30], "f"))
    kept = np.sum([top_k(scores, keep) for keep in range(6)], axis=0)
    # 2e-40 is kept whenever any is, -1e-30 only with all five.
    np.testing.assert_array_equal(kept, [4, 5, 3, 2, 1])


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float8_e4m3fn"])
def test_short_floats_are_ranked_as_they_are(kind):
    least = jnp.finfo(kind).smallest_subnormal
    scores = jnp.array([least, 2 * least.astype("f4"), 1, -1, 0, -0.0, jnp.nan], kind)
    kept = np.sum([masks.top_k(scores, keep) for keep in range(8)], axis=0)
    np.testing.assert_array_equal(kept, [5, 6, 7, 2, 4, 3, 1])


# --- select --------------------------------------------------------------------------------------

SCORES = {
    "a": np.array([[5.0, 1], [4, 4]], "f"),
    "b": np.array([[4.0, 9, 0]], "f"),
    "bias": np.array([7.0, 8], "f"),
}


@pytest.mark.parametrize(
    # In order: b's 9, a's 5, a's two 4s, b's 4, a's 1, b's 0. The bias stays and does not count.
    ("keep", "a", "b"),
    [
        (0, "00 00", "000"),
        (1, "00 00", "010"),
        (3, "10 10", "010"),
        (4, "10 11", "010"),
        (5, "10 11", "110"),
        (7, "11 11", "111"),
    ],
)
def test_select_ranks_all_leaves_together_ties_in_order(keep, a, b):
    golden = {"a": bits(a), "b": bits(b), "bias": np.array([True, True])}
    equal(masks.select(SCORES, AB, keep), golden)


def test_ties_are_in_the_order_of_prunable():
    same = {"a": np.zeros((1, 2), "f"), "b": np.zeros((1, 2), "f")}
    equal(masks.select(same, AB, 1), {"a": bits("10"), "b": bits("00")})
    equal(masks.select(same, ("b", "a"), 1), {"a": bits("00"), "b": bits("10")})


def test_select_keeps_counts_of_each_leaf():
    # a's highest is the 5, and the first of its two 4s; b's the 9.
    kept = masks.select(SCORES, AB, {"a": 2, "b": 1})
    equal(kept, {"a": bits("10 10"), "b": bits("010"), "bias": np.array([True, True])})
    assert masks.counts(masks.select(SCORES, AB, {"a": 4, "b": 0}), AB) == {"a": 4, "b": 0}


def test_select_batches_over_densities():
    def one(keep):
        return masks.counts(masks.select(SCORES, AB, keep, floor=1), AB)

    kept = jax.jit(jax.vmap(one))(np.arange(2, 8))
    # The floor takes b's 9 and a's 5; then a's two 4s, b's 4, a's 1, b's 0.
    np.testing.assert_array_equal(kept["a"], [1, 2, 3, 3, 4, 4])
    np.testing.assert_array_equal(kept["b"], [1, 1, 1, 2, 2, 3])


@pytest.mark.parametrize(
    # Without a floor the five highest are all of a.
    ("floor", "a", "b"),
    [
        (0, 5, 0),
        (1, 4, 1),
        (2, 3, 2),
        (9, 5, 2),  # both are smaller than nine and so kept whole: five and two
        ({"a": 1, "b": 2}, 3, 2),
        ({"a": 5, "b": 0}, 5, 0),
    ],
)
def test_every_leaf_keeps_its_floor_and_the_total_stays_exact(floor, a, b):
    scores = {"a": np.arange(5.0, 10)[None], "b": -np.arange(1.0, 3)[:, None]}
    kept = masks.select(scores, AB, a + b, floor)
    assert masks.counts(kept, AB) == {"a": a, "b": b}
    np.testing.assert_array_equal(masks.flatten(kept, ("a",)), np.arange(5) >= 5 - a)
    np.testing.assert_array_equal(masks.flatten(kept, ("b",)), np.arange(2) < b)


def test_floors_hold_among_infinite_scores():
    scores = {"a": np.full((1, 3), np.inf, "f"), "b": np.zeros((1, 2), "f")}
    equal(masks.select(scores, AB, 2, floor=1), {"a": bits("100"), "b": bits("10")})
    lowest = {"a": np.zeros((1, 3), "f"), "b": np.full((1, 2), -np.inf, "f")}
    equal(masks.select(lowest, AB, 2, floor=1), {"a": bits("100"), "b": bits("10")})


@pytest.mark.parametrize(
    ("keep", "floor", "says"),
    [
        (-1, 0, "-1 kept of all leaves: must be from 0 to 7"),
        (8, 0, "8 kept of all leaves: must be from 0 to 7"),
        (3, 2, "3 kept of all leaves: must be from 4 to 7"),
        ({"a": 5, "b": 1}, 0, "5 kept of a: must be from 0 to 4"),
        ({"a": 4, "b": -1}, 0, "-1 kept of b: must be from 0 to 3"),
    ],
)
def test_what_cannot_be_kept_is_refused(keep, floor, says):
    with pytest.raises(ValueError, match=says):
        masks.select(SCORES, AB, keep, floor)


def test_nan_cannot_be_ranked_unless_it_is_not_prunable():
    broken = SCORES | {"b": np.array([[4.0, np.nan, 0]], "f")}
    for keep in (3, {"a": 1, "b": 1}):
        with pytest.raises(ValueError, match="NaN among the scores of b"):
            masks.select(broken, AB, keep)
    assert masks.count(masks.select(broken, ("a",), 3), ("a",)) == 3


# --- random, invert, shuffle ---------------------------------------------------------------------


def drawn(draw, runs):
    """bool`[runs, n]`: the prunable bits of `draw(key)` for many keys."""
    return np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(KEY, runs)))


def test_random_masks_are_exact_for_every_key():
    params = {"a": np.ones((40, 2)), "b": np.ones((4, 5)), "bias": np.ones(5)}
    kept = drawn(
        lambda key: masks.flatten(masks.random(key, params, AB, 30, floor={"a": 1, "b": 6}), AB),
        200,
    )
    assert (kept.sum(axis=1) == 30).all()
    # 30 * 20 / 100 = 6 are expected in b, so the floor holds about half of the masks up.
    assert kept[:, 80:].sum(axis=1).min() == 6 < kept[:, 80:].sum(axis=1).max()
    assert len({tuple(row) for row in kept}) == 200


def test_random_masks_keep_every_weight_equally_often():
    # Of n = 20 weights p = 7/20 are kept in each of N = 2,000 masks. For draws without replacement
    # (n - 1) / n * sum (kept - N p)^2 / (N p (1 - p)) is about chi-squared with 19 degrees
    # of freedom: between 5.4 and 43.8 but for one in 500.
    params, n, p, N = {"a": np.ones((4, 3)), "b": np.ones((4, 2))}, 20, 7 / 20, 2000
    kept = drawn(lambda key: masks.flatten(masks.random(key, params, AB, 7), AB), N).sum(axis=0)
    chi_squared = (n - 1) / n * np.sum((kept - N * p) ** 2) / (N * p * (1 - p))
    assert 5.4 < chi_squared < 43.8


def test_shuffling_keeps_the_counts_of_each_leaf_and_nothing_else():
    mask = {"a": bits("1110 0000"), "b": bits("11 00 00"), "bias": np.array([True])}
    shuffled = jax.jit(jax.vmap(lambda key: masks.shuffle(key, mask, AB)))(
        jax.random.split(KEY, 50)
    )
    assert (shuffled["a"].sum(axis=(1, 2)) == 3).all()
    assert (shuffled["b"].sum(axis=(1, 2)) == 2).all()
    assert shuffled["bias"].all()
    # 50 draws reach each place: a given one is missed with chance (1 - 1/3)^50 < 2e-9.
    assert shuffled["a"].any(axis=0).all() and shuffled["b"].any(axis=0).all()


def test_inverting_flips_prunable_leaves_alone():
    golden = {"a": bits("00 11"), "b": bits("001"), "bias": A["bias"]}
    equal(masks.invert(A, AB), golden)
    equal(masks.invert(masks.invert(B, AB), AB), B)


# --- units ---------------------------------------------------------------------------------------

# Two filters with batch norm, a flatten of 1 x 2 pixels, three neurons, two logits.
CHAIN = {
    "conv1": {"kernel": np.ones((1, 2, 1, 2)), "bias": np.ones(2)},
    "bn1": {"scale": np.ones(2), "bias": np.ones(2)},
    "fc1": {"kernel": np.ones((4, 3)), "bias": np.ones(3)},
    "out": {"kernel": np.ones((3, 2)), "bias": np.ones(2)},
}
CHAIN_WIRING = (
    Units("conv1", 2, ("conv1",), ("bn1",), (Feed("fc1", 2),)),
    Units("fc1", 3, ("fc1",), (), (Feed("out", 1),)),
)


def test_expanding_takes_all_that_belongs_to_a_unit():
    mask = masks.expand({"conv1": bits("10")[0], "fc1": bits("110")[0]}, CHAIN_WIRING, CHAIN)
    # Filter 1 goes: its column, bias, scale and shift, and fc1's rows 1 and 3, which read it at
    # either pixel. Neuron 2 goes: fc1's column, its bias, and out's row.
    golden = {
        "conv1": {"kernel": bits("10 10").reshape(1, 2, 1, 2), "bias": bits("10")[0]},
        "bn1": {"scale": bits("10")[0], "bias": bits("10")[0]},
        "fc1": {"kernel": bits("110 000 110 000"), "bias": bits("110")[0]},
        "out": {"kernel": bits("11 11 00"), "bias": bits("11")[0]},
    }
    equal(mask, golden)


def test_a_group_that_is_absent_stays_whole():
    equal(masks.expand({}, CHAIN_WIRING, CHAIN), masks.ones(CHAIN))
    mask = masks.expand({"fc1": bits("011")[0]}, CHAIN_WIRING, CHAIN)
    assert mask["conv1"]["kernel"].all() and mask["bn1"]["scale"].all()
    np.testing.assert_array_equal(mask["fc1"]["kernel"], bits("011 011 011 011"))


def test_expanding_reaches_a_convolutions_input_channels():
    params = {
        "conv1": {"kernel": np.ones((1, 1, 1, 2))},
        "conv2": {"kernel": np.ones((3, 3, 2, 2))},
    }
    wiring = (Units("conv1", 2, ("conv1",), (), (Feed("conv2", 1),)),)
    mask = masks.expand({"conv1": bits("01")[0]}, wiring, params)
    # Channel 0 is gone from all nine taps and both filters.
    golden = np.ones((3, 3, 2, 2), bool)
    golden[:, :, 0] = False
    np.testing.assert_array_equal(mask["conv2"]["kernel"], golden)


def test_tied_producers_lose_a_unit_together():
    # x -> left, x -> right, read as their sum by out.
    params = {
        "left": {"kernel": np.ones((1, 2)), "bias": np.ones(2)},
        "right": {"kernel": np.ones((3, 2))},
        "out": {"kernel": np.ones((2, 1))},
    }
    wiring = (Units("left", 2, ("left", "right"), (), (Feed("out", 1),)),)
    golden = {
        "left": {"kernel": bits("01"), "bias": bits("01")[0]},
        "right": {"kernel": bits("01 01 01")},
        "out": {"kernel": bits("0 1")},
    }
    equal(masks.expand({"left": bits("01")[0]}, wiring, params), golden)


@pytest.mark.parametrize(
    ("units", "says"),
    [
        ({"out": np.ones(2, bool)}, "no units 'out'; there are conv1, fc1"),
        ({"fc1": np.ones(4, bool)}, r"fc1 has 3 units, the mask has shape \(4,\)"),
        ({"fc1": np.ones((3, 1), bool)}, r"fc1 has 3 units, the mask has shape \(3, 1\)"),
    ],
)
def test_units_that_do_not_fit_are_refused(units, says):
    with pytest.raises(ValueError, match=says):
        masks.expand(units, CHAIN_WIRING, CHAIN)
