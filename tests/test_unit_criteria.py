"""Criteria of units: what each promises, and values by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets.criteria import Evidence
from jaxtickets.criteria.units import UNIT_CRITERIA, find_unit, geometric_median
from jaxtickets.types import Units

KEY, OTHER = jax.random.key(1), jax.random.key(2)
KEYED = {"random", "gradient"}
LOOKS_AT = dict.fromkeys(UNIT_CRITERIA, ("params",)) | {
    "sign_mean": ("init_params", "params"),
    "gradient": ("params", "stats", "batches", "loss"),
    "random": (),
}


@pytest.fixture(scope="module")
def wiring(mlp_wiring):
    """That of `mlp`, each group with a batch norm."""
    return tuple(group._replace(norms=(f"bn_{group.name}",)) for group in mlp_wiring)


@pytest.fixture(scope="module")
def normed(dropping, wiring):
    """The evidence with the batch norms' scales."""
    draw = np.random.default_rng(3)
    scales = {
        group.norms[0]: {"scale": draw.standard_normal(group.size).astype("f")} for group in wiring
    }
    begun, trained = (tree | scales for tree in (dropping.init_params, dropping.params))
    return dropping._replace(init_params=begun, params=trained)


@pytest.fixture(scope="module")
def scored(normed, wiring):
    """All criteria's scores, as one program, at one key, again, and at another key."""

    @jax.jit
    def table(key, params):
        seen = normed._replace(params=params)
        return {name: one.score(key, seen, wiring) for name, one in UNIT_CRITERIA.items()}

    return [table(key, normed.params) for key in (KEY, KEY, OTHER)]


def vector(scores):
    return np.concatenate(list(scores.values()))


# --- promises ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNIT_CRITERIA)
def test_scores_are_finite_one_for_each_unit_of_each_group(name, scored, wiring):
    scores = scored[0][name]
    assert {group: s.shape for group, s in scores.items()} == {g.name: (g.size,) for g in wiring}
    assert all(s.dtype == jnp.float32 for s in scores.values())
    assert np.isfinite(vector(scores)).all()
    assert len(np.unique(vector(scores))) == 9  # they tell the units apart


@pytest.mark.parametrize("name", UNIT_CRITERIA)
def test_the_same_key_gives_the_same_scores_and_another_other_ones_to_some(name, scored):
    first, again, other = (vector(scores[name]) for scores in scored)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() == (name in KEYED)


@pytest.mark.parametrize("name", UNIT_CRITERIA)
def test_scores_are_the_same_compiled_or_not_and_from_what_is_looked_at_alone(
    name, scored, normed, wiring
):
    seen = normed._replace(**dict.fromkeys(set(normed._fields) - set(LOOKS_AT[name])))
    scores = UNIT_CRITERIA[name].score(KEY, seen, wiring)
    assert scores.keys() == scored[0][name].keys()
    np.testing.assert_allclose(vector(scores), vector(scored[0][name]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", UNIT_CRITERIA)
def test_facts_are_what_scores_do(name, normed, wiring):
    bare = {
        layer: {"kernel": leaves["kernel"]}
        for layer, leaves in normed.params.items()
        if "kernel" in leaves
    }
    seen = type(normed)(**dict.fromkeys(normed._fields) | {"params": bare})
    try:
        scores, other = (UNIT_CRITERIA[name].score(key, seen, wiring) for key in (KEY, OTHER))
        alone = (vector(scores) == vector(other)).all()
    except (AttributeError, IndexError, TypeError, ValueError):
        alone = False  # it asked for what isn't there
    assert UNIT_CRITERIA[name].weights_alone == alone
    assert UNIT_CRITERIA[name].draws == (LOOKS_AT[name] == ())


def test_random_scores_are_independent_uniform_draws(scored):
    first, _, other = (vector(scores["random"]) for scores in scored)
    assert (first != other).all() and first.min() >= 0 and first.max() < 1


# --- values --------------------------------------------------------------------------------------

# Four filters of two weights, and a group of two units with two producers and two norms.
WIRING = (
    Units("conv", 4, ("conv",), ("bn",), ()),
    Units("left", 2, ("left", "right"), ("bn_left", "bn_right"), ()),
)
PARAMS = {
    "conv": {
        "kernel": jnp.array([[3.0, 0, -6, 0], [4, 0, 8, -1]]).reshape(2, 1, 1, 4),
        "bias": jnp.full(4, 100.0),
    },
    "bn": {"scale": jnp.array([0.5, -2, 0, 1]), "bias": jnp.full(4, 100.0)},
    "left": {"kernel": jnp.array([[1.0, -2], [2, 4]])},
    "right": {"kernel": jnp.array([[-2.0, 4]])},
    "bn_left": {"scale": jnp.array([1.0, -2])},
    "bn_right": {"scale": jnp.array([0.5, 0.5])},
}
INIT = PARAMS | {
    "conv": {"kernel": -PARAMS["conv"]["kernel"].at[0, 0, 0, 2].set(9)},
    "left": {"kernel": jnp.array([[0.0, 1], [0, 1]])},
    "right": {"kernel": jnp.array([[1.0, -4]])},
}
EVIDENCE = Evidence(INIT, PARAMS, {}, None, None, None)
VALUES = {
    "mean_abs": ([3.5, 0, 7, 0.5], [5 / 3, 10 / 3]),
    "l1": ([7, 0, 14, 1], [5, 10]),
    "l2": ([5, 0, 10, 1], [3, 6]),
    # Means at last: 3.5, 0, 1, -0.5 and 1/3, 2. At first: -3.5, 0, -8.5, 0.5 and 1/3, -2/3.
    "sign_mean": ([-3.5, 0, -1, -0.5], [1 / 3, -2]),
    # Distances: 5, √97, √34; 10, 1; √117; and of the other group, (-3, 2, 6), 7.
    "fpgm": (
        np.array(
            [
                5 + 97**0.5 + 34**0.5,
                5 + 10 + 1,
                97**0.5 + 10 + 117**0.5,
                34**0.5 + 1 + 117**0.5,
            ]
        ),
        [7, 7],
    ),
    "batch_norm": ([0.5, -2, 0, 1], [1.5, -1.5]),
    "abs_batch_norm": ([0.5, 2, 0, 1], [1.5, 2.5]),  # |-2| + |0.5|, not |-2 + 0.5|
}


@pytest.mark.parametrize("name", VALUES)
def test_values_by_hand(name):
    scores = UNIT_CRITERIA[name].score(KEY, EVIDENCE, WIRING)
    for group, expected in zip(("conv", "left"), VALUES[name], strict=True):
        np.testing.assert_allclose(scores[group], expected, rtol=1e-6)


def test_every_criterion_but_the_keyed_has_values_by_hand():
    assert set(VALUES) == set(UNIT_CRITERIA) - KEYED


def test_fpgm_gives_up_small_filters_before_it_measures_distances():
    # Norms 5, 0, 10 and 1: the second and the fourth go, the smaller first.
    scores = geometric_median.score(KEY, EVIDENCE, WIRING[:1], norm_keep=0.5)["conv"]
    np.testing.assert_allclose(scores, [97**0.5, 0 - 11, 97**0.5, 1 - 11], rtol=1e-6)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_filters_that_fpgm_gives_up_rank_by_norm(keep, mlp, mlp_wiring):
    rows = mlp["fc2"]["kernel"].T
    norms = np.linalg.norm(rows, axis=1)
    score = functools.partial(geometric_median.score, norm_keep=keep / 5)
    scores = np.asarray(score(KEY, EVIDENCE._replace(params=mlp), mlp_wiring)["fc2"])
    small = np.argsort(norms)[: 5 - keep]
    np.testing.assert_array_equal(np.argsort(scores)[: 5 - keep], small)
    assert scores[small].max() < 0 <= np.delete(scores, small).min()


# --- names and refusals --------------------------------------------------------------------------


def test_batch_norm_criteria_need_a_batch_norm(mlp_wiring):
    for name in ("batch_norm", "abs_batch_norm"):
        with pytest.raises(ValueError, match="fc1 has no batch norm to be scored by"):
            UNIT_CRITERIA[name].score(KEY, EVIDENCE, mlp_wiring)


@pytest.mark.parametrize("name", UNIT_CRITERIA)
def test_a_name_finds_its_criterion_and_its_inverse(name, scored, normed, wiring):
    assert find_unit(name) is UNIT_CRITERIA[name]
    inverse = jax.jit(lambda key: find_unit(f"inverted_{name}").score(key, normed, wiring))(KEY)
    np.testing.assert_allclose(vector(inverse), -vector(scored[0][name]), rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["lucky", "inverted_lucky", "l1_inverted", "inverted", "inverted_", ""]
)
def test_an_unknown_name_is_refused_with_those_that_are_known(name):
    with pytest.raises(ValueError) as error:
        find_unit(name)
    known, plain = ", ".join(UNIT_CRITERIA), name.removeprefix("inverted_")
    said = f"unknown unit criterion '{plain}': one of {known}, or one of these after inverted_"
    assert str(error.value) == said
