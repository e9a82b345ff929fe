"""Controls: counts, floors and keys, and what each looks at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets import masks
from jaxtickets.recipes.baseline_masks import BASELINES
from jaxtickets.search import space

KEY = jax.random.key(1)

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


@pytest.fixture(scope="module", params=BASELINES)
def controlled(request, evidence, where):
    """A control's name, and its bits bool`[8, n]` for eight keys."""
    control = BASELINES[request.param]
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
    np.testing.assert_array_equal(bits[1], BASELINES[name](KEYS[1], evidence, *where, FLOOR))


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
        return BASELINES[name](KEY, given, *where, FLOOR)

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
    bits = BASELINES["magnitude"](KEY, evidence._replace(params=params), *where, 0)
    np.testing.assert_array_equal(np.flatnonzero(bits), [1, 3, 8])
