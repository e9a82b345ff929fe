"""Criteria of weights: what each promises; the variants made of them, and names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets import criteria, losses, masks
from jaxtickets.criteria import (
    CRITERIA,
    VARIANTS,
    Criterion,
    at_initialisation,
    inverted,
    normalised,
)
from jaxtickets.criteria.initial_final import FUNCTIONS, SAME_SIGN
from jaxtickets.types import Split

KEY, OTHER = jax.random.key(1), jax.random.key(2)
PLANE = {name + suffix for name in FUNCTIONS for suffix in ("", SAME_SIGN)}
KEYED = {"random", "snip", "grasp", "taylor"}
OF_IMAGES = {"snip", "grasp", "taylor", "fisher", "obd"}
# What each looks at beside the parameters that it scores; a criterion of the plane, at where the
# weights began and which are left.
OF_LOSS = ("stats", "batches", "loss")
OF_MODEL = ("stats", "batches", "model", "prepare")
LOOKS_AT = {name: ("init_params", "mask") for name in PLANE} | {
    "random": (),
    "snip": OF_LOSS,
    "grasp": OF_MODEL,
    "taylor": OF_LOSS,
    "synflow": ("stats", "batches", "model", "mask"),
    "fisher": OF_MODEL,
    "obd": OF_MODEL,
}


def vector(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.fixture(scope="module")
def table(dropping):
    """All criteria as one program: `table(key, params, batches) -> {name: scores}`."""

    @jax.jit
    def scores(key, params, batches, first):
        seen = dropping._replace(params=params, batches=batches, init_params=first)
        return {name: criterion.score(key, seen) for name, criterion in CRITERIA.items()}

    def of(key, params, batches, first=dropping.init_params):
        return scores(key, params, batches, first)

    return of


@pytest.fixture(scope="module")
def scored(table, dropping):
    """The table's scores at one key, again, and at another key."""
    return [table(key, dropping.params, dropping.batches) for key in (KEY, KEY, OTHER)]


# --- promises ------------------------------------------------------------------------------------


def test_the_table_is_whole():
    assert set(CRITERIA) == set(LOOKS_AT)


@pytest.mark.parametrize("name", CRITERIA)
def test_scores_are_finite_and_shaped_like_the_parameters(name, scored, evidence):
    scores = scored[0][name]
    assert jax.tree.structure(scores) == jax.tree.structure(evidence.params)
    for score, weight in zip(*map(jax.tree.leaves, (scores, evidence.params)), strict=True):
        assert score.shape == weight.shape and score.dtype == jnp.float32
        assert jnp.isfinite(score).all()
    kernels = masks.pick(scores, masks.prunable(evidence.params))
    assert len(np.unique(vector(kernels))) == 42  # they tell the weights apart


@pytest.mark.parametrize("name", CRITERIA)
def test_the_same_key_gives_the_same_scores_and_another_other_ones_to_some(name, scored):
    first, again, other = (vector(scores[name]) for scores in scored)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() == (name in KEYED)


@pytest.mark.parametrize("name", CRITERIA)
def test_scores_are_the_same_compiled_or_not_and_from_what_is_looked_at_alone(
    name, scored, dropping
):
    compiled = vector(scored[0][name])
    unseen = set(dropping._fields) - {"params", *LOOKS_AT[name]}
    seen = dropping._replace(**dict.fromkeys(unseen))
    np.testing.assert_allclose(
        vector(CRITERIA[name].score(KEY, seen)),
        compiled,
        rtol=1e-4,
        atol=1e-6 * np.abs(compiled).max(),
    )


def test_scores_of_a_dead_net_are_finite(table, dropping):
    dead = jax.tree.map(np.zeros_like, dropping.params)
    for name, scores in table(KEY, dead, dropping.batches).items():
        assert np.isfinite(vector(scores)).all(), name


def test_scores_of_half_precision_weights_are_those_of_the_same_weights_in_single(evidence):
    """Small weights: their squares are below what float16 holds."""
    half = jax.tree.map(lambda w: jnp.float16(w / 1024), (evidence.init_params, evidence.params))
    wide = jax.tree.map(jnp.float32, half)

    @jax.jit
    def table(init_params, params):
        seen = evidence._replace(init_params=init_params, params=params)
        names = "snip", "grasp", "taylor", "fisher", "obd", "large_init_large_final"
        return {name: CRITERIA[name].score(KEY, seen) for name in names}

    with_half, with_wide = table(*half), table(*wide)
    for name, scores in with_half.items():
        assert {leaf.dtype for leaf in jax.tree.leaves(scores)} == {jnp.dtype("float32")}, name
        np.testing.assert_allclose(vector(scores), vector(with_wide[name]), rtol=1e-4, atol=1e-30)


@pytest.mark.parametrize("name", ["snip", "grasp", "taylor", "fisher", "obd", "synflow"])
def test_a_net_that_computes_in_half_precision_has_the_scores_of_one_that_does_not(name, evidence):
    def apply(params, stats, images, key, train):
        half = jax.tree.map(jnp.float16, (params, stats, jnp.asarray(images)))
        return evidence.model.apply(*half, key, train)

    model = evidence.model._replace(apply=apply)
    loss = losses.classification(model, evidence.prepare)
    seen = evidence._replace(model=model, loss=loss)
    got, expected = (vector(CRITERIA[name].score(KEY, e)) for e in (seen, evidence))
    np.testing.assert_allclose(got, expected, rtol=0.02, atol=0.02 * np.abs(expected).max())
    kept = np.abs(expected) > 1e-3 * np.abs(expected).max()
    assert (np.sign(got) == np.sign(expected))[kept].all()


def test_only_criteria_of_data_depend_on_them(table, scored, dropping):
    images, labels = dropping.batches
    changed = {
        "images": table(KEY, dropping.params, Split(images[:, ::-1], labels)),
        "labels": table(KEY, dropping.params, Split(images, 1 - labels)),
    }
    moved = {
        what: {name for name in CRITERIA if (vector(s[name]) != vector(scored[0][name])).any()}
        for what, s in changed.items()
    }
    assert moved["images"] == OF_IMAGES
    assert moved["labels"] == OF_IMAGES - {"obd"}


def test_facts_are_what_scores_do(table, scored, dropping):
    # A gradient costs; chance reads no weights; and one that needs no training doesn't compare
    # first weights with trained ones.
    def changed(**weights):
        seen = {"init_params": dropping.init_params, "params": dropping.params} | weights
        scores = table(KEY, seen["params"], dropping.batches, seen["init_params"])
        return {
            name for name in CRITERIA if (vector(scores[name]) != vector(scored[0][name])).any()
        }

    other = jax.tree.map(lambda w: 0.5 - w[::-1], dropping.params)
    of_first, of_params = changed(init_params=other), changed(params=other)
    for name, criterion in CRITERIA.items():
        if criterion.looks_at == "initial":
            assert not (name in of_first and name in of_params), name
        else:
            assert criterion.looks_at == "trained" and name in of_params, name
        assert criterion.draws == (name not in of_first | of_params), name
        assert (criterion.cost + criterion.cost_per_class > 0) == (name in OF_IMAGES), name
        assert criterion.rounds >= 1


def test_random_scores_are_independent_uniform_draws(scored):
    first, _, other = (vector(scores["random"]) for scores in scored)
    assert (first != other).all() and len(np.unique(first)) == len(first)
    assert 0 <= first.min() < 0.2 and 0.8 < first.max() < 1


# --- variants and names --------------------------------------------------------------------------


@Criterion
def fixed(key, evidence):
    del key, evidence
    return {"a": jnp.array([[3.0, 0.0], [0.0, -4.0]]), "b": jnp.array([0.0, 0.0]), "c": jnp.ones(4)}


def test_initial_scores_are_those_of_the_first_weights(evidence):
    weights = Criterion(lambda key, evidence: evidence.params, cost=3, rounds=2)
    given = evidence._replace(params=jax.tree.map(lambda w: w + 1, evidence.init_params))
    first = at_initialisation(weights)
    jax.tree.map(np.testing.assert_array_equal, first.score(KEY, given), given.init_params)
    assert first[1:] == weights._replace(looks_at="initial")[1:]


def test_inverted_scores_are_the_negatives():
    scores = inverted(fixed).score(KEY, None)
    np.testing.assert_array_equal(scores["a"], [[-3, 0], [0, 4]])
    np.testing.assert_array_equal(scores["c"], [-1] * 4)


def test_normalised_scores_of_a_leaf_have_the_norm_one_or_are_all_zero():
    scores = normalised(fixed).score(KEY, None)
    np.testing.assert_allclose(scores["a"], [[0.6, 0], [0, -0.8]], rtol=1e-6)
    np.testing.assert_array_equal(scores["b"], [0, 0])
    np.testing.assert_allclose(scores["c"], [0.5] * 4, rtol=1e-6)


@pytest.mark.parametrize("variant", [inverted, normalised])
@pytest.mark.parametrize("name", CRITERIA)
def test_scores_turned_or_scaled_have_the_facts_of_those_that_they_are_made_of(variant, name):
    assert variant(CRITERIA[name])[1:] == CRITERIA[name][1:]


@pytest.mark.parametrize("name", ["magnitude", "large_init_large_final_same_sign"])
def test_a_name_finds_its_criterion(name):
    assert criteria.find(name) is CRITERIA[name]


@pytest.mark.parametrize(
    ("name", "sign", "scaled"),
    [
        ("inverted_magnitude", -1, False),
        ("normalised_magnitude", 1, True),
        ("inverted_normalised_magnitude", -1, True),
        ("normalised_inverted_magnitude", -1, True),
        ("inverted_inverted_magnitude", 1, False),
    ],
)
def test_names_may_begin_with_variants(name, sign, scaled, evidence):
    def leaf(w):
        return sign * np.abs(w) / (np.linalg.norm(w) if scaled else 1)

    np.testing.assert_allclose(
        vector(criteria.find(name).score(KEY, evidence)),
        vector(jax.tree.map(leaf, evidence.params)),
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", ["lucky", "inverted_lucky", "magnitude_inverted", "inverted", ""])
def test_an_unknown_name_is_refused_with_those_that_are_known(name):
    with pytest.raises(ValueError, match="unknown criterion") as error:
        criteria.find(name)
    assert f"one of {', '.join(CRITERIA)}, " in str(error.value)
    assert all(f"{word}_" in str(error.value) for word in VARIANTS)
