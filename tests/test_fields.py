"""Fields: exact counts, what potentials mean, and moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets import masks
from jaxtickets.search import fields

PARAMS = {
    "a": {"kernel": jnp.zeros((16, 5))},
    "b": {"kernel": jnp.zeros((3, 3, 5, 4)), "bias": jnp.zeros(4)},
}
PRUNABLE = ("a/kernel", "b/kernel")
IMAGE = (4, 4, 1)
KEY = jax.random.key(0)


def space(features=("chance",), sides=("input", "output")):
    return fields.space(PARAMS, PRUNABLE, features, sides, IMAGE)


def noise(key, many=1):
    return tuple(
        jax.tree.map(
            lambda leaf, k=k: jax.random.gumbel(jax.random.fold_in(k, leaf.size), leaf.shape),
            PARAMS,
        )
        for k in jax.random.split(key, many)
    )


def test_sides_have_the_sizes_of_the_axes_and_pixels_a_grid():
    sizes = {side.name: (side.size, side.grid) for side in space().sides}
    assert sizes == {
        "a/kernel input": (16, (4, 4)),
        "a/kernel output": (5, ()),
        "b/kernel input": (5, ()),
        "b/kernel output": (4, ()),
    }


@pytest.mark.parametrize(
    ("features", "sides", "said"),
    [
        ((), ("input",), "needs features"),
        (("chance",), ("left",), "unknown side 'left'"),
        (("nothing",), ("input",), "unknown criterion 'nothing'"),
    ],
)
def test_what_can_not_be_is_refused(features, sides, said):
    with pytest.raises(ValueError, match=said):
        space(features, sides)


def test_the_score_is_the_sum_of_its_potentials():
    where, known = space(("chance", "large_init")), noise(KEY, 2)
    field = fields.Field(
        layers=jnp.array([0.5, -1.0]),
        units={side.name: jnp.arange(side.size) / (1.0 + i) for i, side in enumerate(where.sides)},
        mix=jnp.array([2.0, -3.0]),
    )
    scores = fields.score(where, known, field)
    a = 0.5 + 2 * known[0]["a"]["kernel"][7, 3] - 3 * known[1]["a"]["kernel"][7, 3] + 7 + 3 / 2
    b = -1 + 2 * known[0]["b"]["kernel"][0, 2, 4, 1] - 3 * known[1]["b"]["kernel"][0, 2, 4, 1]
    assert np.isclose(scores["a"]["kernel"][7, 3], a)
    assert np.isclose(scores["b"]["kernel"][0, 2, 4, 1], b + 4 / 3 + 1 / 4)
    assert not scores["b"]["bias"].any()


def test_every_field_keeps_the_count_and_the_floor():
    where, known = space(), noise(KEY)
    moves = fields.moves(where)
    field = fields.flat(where, [1.0])
    for i in range(30):
        proposal = moves.propose(jax.random.key(i), jnp.float32(2), field)
        field = moves.settle(proposal, jnp.bool_(True))
        mask = fields.mask(where, known, 40, 7, field)
        kept = masks.counts(mask, PRUNABLE)
        assert sum(map(int, kept.values())) == 40
        assert min(map(int, kept.values())) >= 7
        assert mask["b"]["bias"].all()


def test_potentials_are_log_densities():
    """With chance alone, a pixel with potential log 3 keeps three times as many weights."""
    params = {"a": {"kernel": jnp.zeros((2, 4000))}}
    where = fields.space(params, ("a/kernel",), ["chance"], ["input"])
    known = (jax.tree.map(lambda leaf: jax.random.gumbel(KEY, leaf.shape), params),)
    field = fields.flat(where, [1.0])
    field.units["a/kernel input"] = jnp.log(jnp.array([1.0, 3.0]))
    kept = fields.mask(where, known, 400, 0, field)["a"]["kernel"].sum(1)
    # 400 of 8,000: nearly independent draws with odds 1 to 3; sd of the share 0.022
    assert abs(float(kept[1]) / 400 - 0.75) < 4 * 0.022


def test_pooled_potentials_are_the_means_of_scores():
    where = space()
    scores = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), PARAMS)
    scores["a"]["kernel"] = scores["a"]["kernel"].at[5].set(9.0)
    scores["b"]["kernel"] = scores["b"]["kernel"].at[..., 2].set(0.0)
    field = fields.pooled(where, scores, [1.0])
    mean_a, mean_b = (15 + 9) / 16, 3 / 4
    assert np.isclose(field.layers[0] - field.layers[1], np.log(mean_a / mean_b))
    assert np.isclose(field.units["a/kernel input"][5], np.log(9 / mean_a))
    assert np.isclose(field.units["b/kernel output"][2], np.log(fields.LOWEST))
    assert np.allclose(field.units["b/kernel input"], 0, atol=1e-6)


def test_a_flat_field_over_a_criterion_is_the_criterion():
    params = jax.tree.map(
        lambda leaf: jax.random.normal(jax.random.fold_in(KEY, leaf.size), leaf.shape), PARAMS
    )
    where = fields.space(params, PRUNABLE, ["large_init"], ["input"], IMAGE)
    magnitude = jax.tree.map(jnp.abs, params)
    known = (jax.tree.map(jnp.log, magnitude),)
    mine = fields.mask(where, known, 50, 0, fields.flat(where, [1.0]))
    assert int(masks.hamming(mine, masks.select(magnitude, PRUNABLE, 50), PRUNABLE)) == 0


def test_moves_are_undone_or_settled_and_of_zero_mean():
    where = space(("chance", "large_init"))
    moves = fields.moves(where)
    field = fields.flat(where, [1.0, 0.5])

    def steps(size):
        def one(key):
            proposal = moves.propose(key, size, field)
            back = moves.settle(proposal, jnp.bool_(False))
            moved = jax.tree.map(jnp.subtract, moves.settle(proposal, jnp.bool_(True)), field)
            return moves.distance(back, field), moves.distance(proposal.walk, field), moved

        return jax.jit(jax.vmap(one))(jax.random.split(KEY, 2000))

    stayed, went, change = steps(jnp.float32(0.5))
    assert not stayed.any()
    assert (went > 0).mean() > 0.99
    for leaf in jax.tree.leaves(change):
        spread = jnp.std(leaf, axis=0) / 2000**0.5
        assert (jnp.abs(leaf.mean(0)) < 5 * spread).all()
        assert (spread > 0).all()  # every potential moves
    _, wider, _ = steps(jnp.float32(1.0))
    assert np.allclose(wider, 2 * went, rtol=1e-3)  # sizes scale moves


def test_bumps_move_neighbours_together():
    where = space(sides=("input",))
    moves = fields.moves(where)
    field = fields.flat(where, [1.0])
    keys = jax.random.split(KEY, 500)
    moved = jax.vmap(lambda key: moves.propose(key, jnp.float32(1), field).walk)(keys)
    change = np.asarray(moved.units["a/kernel input"]).reshape(-1, 4, 4)
    one_sign = (change > 0).all((1, 2)) | (change < 0).all((1, 2))
    # a third of the moves are bumps; independent noise has one sign once in 2^15
    assert abs(one_sign.sum() - 500 / 3) < 4 * (500 * 2 / 9) ** 0.5
    bumps = np.abs(change[one_sign])
    steps = np.abs(np.diff(bumps, axis=1)).max((1, 2)) / bumps.max((1, 2))
    assert (steps < 0.7).all()  # no neighbour is left behind: the least radius is a pixel
