"""Mask-1 and mask-0 actions, by hand and on a small net."""

import jax
import numpy as np
import pytest

from jaxtickets import masks
from jaxtickets.recipes.mask_actions import ONES, ZEROS
from jaxtickets.recipes.ticket_controls import ControlInputs
from jaxtickets.types import Model

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def given(mlp):
    prunable = masks.prunable(mlp)
    fresh = jax.tree.map(lambda leaf: np.full_like(leaf, 9.0), mlp)
    model = Model(lambda key: (fresh, {}), lambda *arguments: arguments)
    return ControlInputs(model, prunable, mlp, {}, masks.random(KEY, mlp, prunable, 21))


@pytest.mark.parametrize("name", ONES)
def test_no_action_moves_the_mask(name, given):
    treated = ONES[name](KEY, given)
    jax.tree.map(np.testing.assert_array_equal, treated.mask, given.mask)
    assert jax.tree.map(np.shape, treated.params) == jax.tree.map(np.shape, given.params)


def test_rewinding_keeps_the_weights_and_reinitialising_draws_others(given):
    assert ONES["rewind"](KEY, given).params is given.params
    assert all((leaf == 9).all() for leaf in jax.tree.leaves(ONES["reinit"](KEY, given).params))


def test_reshuffling_permutes_the_survivors_of_each_layer(given):
    moved = [ONES["reshuffle"](key, given).params for key in jax.random.split(KEY)]
    for path in given.prunable:
        before, first, second, kept = (
            masks.pick(tree, (path,))[0] for tree in (given.params, *moved, given.mask)
        )
        kept = np.asarray(kept)
        np.testing.assert_array_equal(np.sort(before[kept]), np.sort(np.asarray(first)[kept]))
        assert (np.asarray(first)[kept] != np.asarray(second)[kept]).any()
    for layer in ("fc1", "fc2", "out"):  # biases stay
        np.testing.assert_array_equal(moved[0][layer]["bias"], given.params[layer]["bias"])


def test_a_signed_constant_has_the_signs_and_one_size_a_layer(given):
    params = ONES["signed_constant"](KEY, given).params
    for layer, leaves in params.items():
        before = given.params[layer]["kernel"]
        np.testing.assert_array_equal(np.sign(leaves["kernel"]), np.sign(before))
        np.testing.assert_allclose(np.abs(leaves["kernel"]), np.std(before), rtol=1e-6)


def test_what_pruned_weights_are_kept_at():
    init = {"w": np.array([1.0, 1.0, -1.0, -2.0], "f")}
    final = {"w": np.array([0.5, 1.5, 1.2, 0.0], "f")}
    expected = {
        "zero": [0, 0, 0, 0],
        "freeze": [1, 1, -1, -2],
        "freeze_unless_toward_zero": [0, 1, -1, 0],
    }
    assert set(expected) == set(ZEROS)
    for name, values in expected.items():
        np.testing.assert_array_equal(ZEROS[name](init, final)["w"], values)
    # weights that didn't move since stay as they were decided
    again = ZEROS["freeze_unless_toward_zero"](init, {"w": np.array([0, 1, -1, 0], "f")})
    np.testing.assert_array_equal(again["w"], [0, 1, -1, 0])
