"""Criteria: what each promises, SNIP against finite differences; the controls made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets import losses, masks
from jaxtickets.criteria import CRITERIA, Evidence
from jaxtickets.protocols.controls import CONTROLS
from jaxtickets.search import space
from jaxtickets.types import Model, Split

KEY, OTHER = jax.random.key(1), jax.random.key(2)


def forward(params, images, xp):
    """The logits of a tanh net, in jax.numpy or in numpy."""
    x = images
    for layer in ("fc1", "fc2"):
        x = xp.tanh(x @ params[layer]["kernel"] + params[layer]["bias"][None])
    return x @ params["out"]["kernel"] + params["out"]["bias"][None]


def apply(params, stats, images, key, train):
    del key, train
    return forward(params, images, jnp), stats


@pytest.fixture(scope="module")
def evidence(mlp):
    """Three batches of five points in two classes; trained weights that are not the initial."""
    draw = np.random.default_rng(1)
    batches = Split(
        draw.standard_normal((3, 5, 3)).astype("f"), draw.integers(0, 2, (3, 5)).astype("i")
    )
    loss = losses.classification(Model(lambda key: (mlp, {}), apply), lambda images: images)
    trained = jax.tree.map(lambda w: (w[::-1] + 0.5).astype("f"), mlp)
    return Evidence(mlp, trained, {}, masks.ones(mlp), batches, loss)


def vector(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


# --- criteria ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CRITERIA)
def test_scores_are_finite_and_shaped_like_the_parameters(name, evidence):
    scores = CRITERIA[name](KEY, evidence)
    assert jax.tree.structure(scores) == jax.tree.structure(evidence.params)
    for score, weight in zip(*map(jax.tree.leaves, (scores, evidence.params)), strict=True):
        assert score.shape == weight.shape and score.dtype == jnp.float32
        assert jnp.isfinite(score).all()
    assert len(np.unique(vector(scores))) > 42  # and tell the weights apart


@pytest.mark.parametrize("name", CRITERIA)
def test_the_same_key_gives_the_same_scores(name, evidence):
    first, second = (vector(CRITERIA[name](KEY, evidence)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", CRITERIA)
def test_scores_can_be_compiled(name, evidence):
    @jax.jit
    def compiled(key, params, batches):
        return CRITERIA[name](key, evidence._replace(params=params, batches=batches))

    scores = compiled(KEY, evidence.params, evidence.batches)
    np.testing.assert_allclose(
        vector(scores), vector(CRITERIA[name](KEY, evidence)), rtol=1e-5, atol=1e-8
    )


def test_random_scores_depend_on_the_key_alone(evidence):
    first, other = (vector(CRITERIA["random"](key, evidence)) for key in (KEY, OTHER))
    assert (first != other).all() and len(np.unique(first)) == len(first)
    assert first.min() >= 0 and first.max() < 1
    moved = evidence._replace(params=evidence.init_params, batches=None, loss=None)
    np.testing.assert_array_equal(first, vector(CRITERIA["random"](KEY, moved)))


def test_magnitude_is_the_absolute_value_of_the_trained_weights(evidence):
    trained = {"fc1": {"kernel": jnp.array([[-3.0, 0.0], [2.0, -0.5]])}}
    scores = CRITERIA["magnitude"](KEY, evidence._replace(params=trained))
    np.testing.assert_array_equal(scores["fc1"]["kernel"], [[3, 0], [2, 0.5]])


def connection_sensitivity(params, batches):
    """|dL/dc| at c = 1 by central differences in float64, L(c) the mean loss of c times w."""
    leaves, treedef = jax.tree.flatten(params)
    weights = [np.asarray(leaf, np.float64) for leaf in leaves]

    def loss(scaled):
        values = []
        for images, labels in zip(*batches, strict=True):
            logits = forward(treedef.unflatten(scaled), images.astype(np.float64), np)
            chosen = np.take_along_axis(logits, labels[:, None], 1)[:, 0]
            values.append(np.mean(np.log(np.exp(logits).sum(axis=1)) - chosen))
        return np.mean(values)

    step, slopes = 1e-5, []
    for i, weight in enumerate(weights):
        for place in np.ndindex(weight.shape):
            sides = []
            for c in (1 + step, 1 - step):
                scaled = [w.copy() for w in weights]
                scaled[i][place] *= c
                sides.append(loss(scaled))
            slopes.append(abs(sides[0] - sides[1]) / (2 * step))
    return np.array(slopes)


def test_snip_is_the_slope_of_the_mean_loss_in_a_multiplicative_mask(evidence):
    scores = vector(CRITERIA["snip"](KEY, evidence))
    slopes = connection_sensitivity(evidence.params, evidence.batches)
    np.testing.assert_allclose(scores, slopes / slopes.sum(), rtol=1e-3, atol=1e-6)
    # It is the slope of the mean, not the mean of the slopes' sizes.
    parts = [Split(*(array[i : i + 1] for array in evidence.batches)) for i in range(3)]
    of_sizes = np.mean([connection_sensitivity(evidence.params, part) for part in parts], axis=0)
    assert np.abs(scores - of_sizes / of_sizes.sum()).max() > 1e-3


def test_snip_scores_are_shares_of_one(evidence):
    scores = vector(CRITERIA["snip"](KEY, evidence))
    assert scores.sum() == pytest.approx(1, rel=1e-5) and scores.min() >= 0


# --- controls ------------------------------------------------------------------------------------

# weights: 2 + 5 + 2 of 12, 20 and 10; units: 3 + 2 of 4 and 5. A floor of 2 binds: without it,
# three in ten of the random masks of weights and two in ten of units would have a segment below.
COUNTS = {"weights": (2, 5, 2), "units": (3, 2)}
FLOOR = 2
KEYS = jax.random.split(KEY, 8)


@pytest.fixture(scope="module", params=COUNTS)
def where(request, mlp, mlp_wiring):
    """A space, and a ticket's bits in it."""
    if request.param == "weights":
        chosen = space.weights(mlp, masks.prunable(mlp))
    else:
        chosen = space.units(mlp, mlp_wiring)
    parts = [
        np.arange(size) < kept
        for size, kept in zip(chosen.sizes, COUNTS[request.param], strict=True)
    ]
    return chosen, jnp.asarray(np.concatenate(parts))


@pytest.fixture(scope="module", params=CONTROLS)
def controlled(request, evidence, where):
    """A control's name, and its bits bool`[8, n]` for eight keys."""
    control = CONTROLS[request.param]
    draw = jax.jit(jax.vmap(lambda key: control(key, evidence, *where, FLOOR)))
    return request.param, draw(KEYS)


def test_controls_have_the_tickets_density_but_for_the_dense_net(controlled, where):
    (name, bits), (chosen, ticket) = controlled, where
    assert bits.shape == (len(KEYS), chosen.size) and bits.dtype == bool
    assert (bits.sum(axis=1) == (chosen.size if name == "dense" else ticket.sum())).all()


def test_controls_keep_the_floor_of_each_segment(controlled, where):
    assert all((space.counts(where[0], bits) >= FLOOR).all() for bits in controlled[1])


def test_a_controls_bits_are_the_same_compiled_or_not(controlled, evidence, where):
    name, bits = controlled
    np.testing.assert_array_equal(bits[1], CONTROLS[name](KEYS[1], evidence, *where, FLOOR))


def test_a_controls_bits_are_a_mask_of_the_space(controlled, where):
    back = jax.jit(jax.vmap(lambda bits: where[0].bits(where[0].mask(bits))))(controlled[1])
    np.testing.assert_array_equal(back, controlled[1])


def test_only_random_controls_depend_on_the_key(controlled):
    name, bits = controlled
    assert (bits != bits[:1]).any() == name.startswith("random")


@pytest.mark.parametrize("controlled", ["random", "random_layerwise"], indirect=True)
def test_only_layerwise_random_bits_keep_the_tickets_counts(controlled, where):
    (name, bits), (chosen, ticket) = controlled, where
    same = [(space.counts(chosen, b) == space.counts(chosen, ticket)).all() for b in bits]
    assert all(same) == (name == "random_layerwise")


@pytest.mark.parametrize(
    ("name", "looks_at"), [("magnitude", [False, True]), ("snip", [True, False])]
)
def test_controls_look_at_initial_or_at_trained_weights(name, looks_at, evidence, where):
    @jax.jit
    @jax.vmap
    def bits(initial, trained):
        given = evidence._replace(init_params=initial, params=trained)
        return CONTROLS[name](KEY, given, *where, FLOOR)

    # The weights as they are, other initial weights, other trained weights
    draw = np.random.default_rng(2)
    old = evidence.params
    new = jax.tree.map(lambda w: draw.standard_normal(w.shape).astype("f"), old)
    stack = [
        jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
        for trees in ((old, new, old), (old, old, new))
    ]
    first, *others = bits(*stack)
    assert [bool((first != other).any()) for other in others] == looks_at


def test_units_are_kept_by_the_mean_magnitude_of_their_weights(mlp, mlp_wiring, evidence):
    # Column means of |w|: fc1 1, 4, 2, 3, biases not counted; fc2 0.5 but for its last, 2.5.
    params = {
        "fc1": {
            "kernel": jnp.array([[0.0, -4, 2, 9], [3, 4, -2, 0], [0, 4, 2, 0]]),
            "bias": jnp.array([100.0, 0, 0, 0]),
        },
        "fc2": {"kernel": jnp.full((4, 5), -0.5).at[:, 4].set(2.5), "bias": jnp.zeros(5)},
        "out": mlp["out"],
    }
    where = space.units(mlp, mlp_wiring), jnp.arange(9) < 3
    bits = CONTROLS["magnitude"](KEY, evidence._replace(params=params), *where, 0)
    np.testing.assert_array_equal(np.flatnonzero(bits), [1, 3, 8])
