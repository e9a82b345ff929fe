"""Pruning in rounds: exact counts, nested masks, what each round sees, and SynFlow's promise."""

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets import losses, masks
from jaxtickets.criteria import CRITERIA, Criterion, Evidence
from jaxtickets.recipes import iterative_pruning
from jaxtickets.types import Model, Split

KEY = jax.random.key(5)
PRUNABLE = ("fc1/kernel", "fc2/kernel", "out/kernel")  # of `mlp`: 12 + 20 + 10 weights
SIZES = dict(zip(PRUNABLE, (12, 20, 10), strict=True))


def of(counts):
    return dict(zip(PRUNABLE, counts, strict=True))


def counted(mask, prunable=PRUNABLE):
    return {path: int(count) for path, count in masks.counts(mask, prunable).items()}


def same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


def within(new, old):
    """Whether nothing came back."""
    return all(bool((~n | o).all()) for n, o in zip(*map(jax.tree.leaves, (new, old)), strict=True))


# --- schedule ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "keep", "number", "left"),
    [
        (1000, 1, 3, [100, 10, 1]),
        (64, 4, 4, [32, 16, 8, 4]),
        (42, 10, 1, [10]),
        (100, 20, 2, [45, 20]),  # 44.7
        (7, 7, 2, [7, 7]),
    ],
)
def test_every_round_keeps_the_same_share(size, keep, number, left):
    assert iterative_pruning.schedule(size, keep, number).tolist() == left


def test_a_long_schedule_of_many_weights_ends_exactly():
    left = iterative_pruning.schedule(1_631_936, 12_345, 100)
    assert left[-1] == 12_345 and left.shape == (100,) and left.dtype == np.int32
    share = left[1:] / left[:-1]
    np.testing.assert_allclose(share, (12_345 / 1_631_936) ** 0.01, rtol=1e-4)


def test_counts_are_of_all_leaves_together_or_of_each():
    np.testing.assert_array_equal(
        iterative_pruning.counts(SIZES, 10, 2), iterative_pruning.schedule(42, 10, 2)
    )
    each = iterative_pruning.counts(SIZES, of((3, 5, 10)), 2)
    assert {path: left.tolist() for path, left in each.items()} == {
        "fc1/kernel": [6, 3],
        "fc2/kernel": [10, 5],
        "out/kernel": [10, 10],
    }


@pytest.mark.parametrize("number", [0, -1])
def test_less_than_one_round_is_refused(number, evidence):
    with pytest.raises(ValueError, match=f"rounds={number}: must be 1 or more"):
        iterative_pruning.prune(KEY, CRITERIA["magnitude"], evidence, PRUNABLE, 10, rounds=number)


@pytest.mark.parametrize(
    ("keep", "floor", "said"),
    [
        (5, 3, "keep=5: must be from 9 to 42"),
        (43, 0, "keep=43: must be from 0 to 42"),
        ({"fc1/kernel": 13, "fc2/kernel": 5, "out/kernel": 5}, 0, "keep=13 in fc1/kernel: must be"),
    ],
)
def test_what_cannot_be_kept_is_refused(keep, floor, said, evidence):
    with pytest.raises(ValueError, match=said):
        iterative_pruning.prune(KEY, CRITERIA["magnitude"], evidence, PRUNABLE, keep, floor)


@Criterion
def unknown_scores(key, evidence):
    """NaN where the weights left are largest, from the second round on."""
    scores = CRITERIA["magnitude"].score(key, evidence)
    second = jnp.stack([~m.all() for m in jax.tree.leaves(evidence.mask)]).any()
    return jax.tree.map(lambda s: jnp.where(second & (s > 1), jnp.nan, s), scores)


def test_unknown_scores_are_refused_and_bring_nothing_back(evidence):
    with pytest.raises(ValueError, match="NaN among the scores"):
        iterative_pruning.prune(KEY, unknown_scores, evidence, PRUNABLE, 5, rounds=2)
    wanted = iterative_pruning.counts(SIZES, 5, 2)
    mask, unknown = iterative_pruning.prune_to(KEY, unknown_scores, evidence, PRUNABLE, wanted)
    first = iterative_pruning.prune(KEY, CRITERIA["magnitude"], evidence, PRUNABLE, int(wanted[0]))
    assert bool(unknown) and int(masks.count(mask, PRUNABLE)) == 5
    for kept, before in zip(*(masks.pick(m, PRUNABLE) for m in (mask, first)), strict=True):
        assert not (kept & ~before).any()


# --- rounds --------------------------------------------------------------------------------------


def one_by_one(key, criterion, evidence, prunable, wanted, floor):
    """The mask before the first round and after each."""
    number = len(jax.tree.leaves(wanted)[0])

    @jax.jit
    def one(k, mask, count):
        seen = evidence._replace(params=masks.apply(mask, evidence.params), mask=mask)
        return iterative_pruning.narrow(criterion.score(k, seen), mask, prunable, count, floor)

    left = [evidence.mask]
    for r, k in enumerate(jax.random.split(key, number)):
        left.append(one(k, left[-1], jax.tree.map(lambda counts, r=r: counts[r], wanted)))
    return left


@pytest.mark.parametrize(
    ("name", "keep", "floor"),
    [
        ("random", 9, 3),
        ("random", of((4, 6, 3)), 0),
        ("snip", of((4, 6, 3)), 0),
        ("synflow", 9, 3),
    ],
    ids=["random-all", "random-each", "snip-each", "synflow-all"],
)
def test_rounds_are_exact_nested_and_as_one_by_one(name, keep, floor, evidence):
    wanted = iterative_pruning.counts(SIZES, keep, 3)
    left = one_by_one(KEY, CRITERIA[name], evidence, PRUNABLE, wanted, floor)
    assert all(within(new, old) for old, new in pairwise(left))
    got = iterative_pruning.prune(KEY, CRITERIA[name], evidence, PRUNABLE, keep, floor, rounds=3)
    same(got, left[-1])
    asks = CRITERIA[name]._replace(rounds=3)  # as many as the criterion asks for
    same(iterative_pruning.prune(KEY, asks, evidence, PRUNABLE, keep, floor), got)
    counts = counted(got)
    assert counts == keep if isinstance(keep, dict) else sum(counts.values()) == keep
    assert min(counts.values()) >= floor
    assert all(got[layer]["bias"].all() for layer in got)


@pytest.mark.parametrize("floor", [0, 3])
def test_one_round_is_a_plain_selection(floor, evidence):
    # The first layer would have nothing.
    small = evidence.params | {"fc1": jax.tree.map(lambda w: w / 1000, evidence.params["fc1"])}
    seen = evidence._replace(params=small)
    scores = CRITERIA["magnitude"].score(KEY, seen)
    got = iterative_pruning.prune(KEY, CRITERIA["magnitude"], seen, PRUNABLE, 12, floor)
    same(got, masks.select(scores, PRUNABLE, 12, floor))
    assert counted(got)["fc1/kernel"] == floor


@pytest.mark.parametrize("through", ["params", "mask"])
def test_each_round_sees_what_the_one_before_left(through):
    weights = {"a": np.array([[5, 4.75, 3, 0]], "f")}

    @Criterion
    def crowded(key, evidence):
        """A weight less half its partner's: 2.625, 2.25, 3 and -1.5; alone, 5 and 3."""
        del key
        seen = evidence.params if through == "params" else masks.apply(evidence.mask, weights)
        return {"a": seen["a"] - 0.5 * seen["a"][:, jnp.array([1, 0, 3, 2])]}

    seen = Evidence(weights, weights, {}, masks.ones(weights), None, None)
    for number, kept in ((1, 2), (2, 0)):
        got = iterative_pruning.prune(KEY, crowded, seen, ("a",), 1, rounds=number)["a"]
        assert np.flatnonzero(got).tolist() == [kept]


@pytest.mark.parametrize("keep", [6, of((2, 3, 1))], ids=["all", "each"])
def test_rounds_that_begin_with_a_mask_bring_nothing_back(keep, evidence):
    # 4, 4 and 2 weights: fewer than the schedule has after the first of three rounds
    worst = jax.tree.map(lambda w: -jnp.abs(w), evidence.params)
    mask = masks.select(worst, PRUNABLE, of((4, 4, 2)))
    seen = evidence._replace(mask=mask)
    got = iterative_pruning.prune(KEY, CRITERIA["magnitude"], seen, PRUNABLE, keep, rounds=3)
    assert within(got, mask)
    left = jax.tree.map(lambda m, w: jnp.where(m, jnp.abs(w), -1), mask, evidence.params)
    same(got, masks.select(left, PRUNABLE, keep))


def test_rounds_can_be_batched_over_keys(evidence):
    keys, some = jax.random.split(KEY, 3), ("fc2/kernel",)

    def prune(key):
        return iterative_pruning.prune(key, CRITERIA["random"], evidence, some, 10, rounds=3)

    got = jax.jit(jax.vmap(prune))(keys)
    first, second, third = (jax.tree.map(lambda leaf, i=i: leaf[i], got) for i in range(3))
    same(second, prune(keys[1]))
    assert masks.hamming(first, second, some) and masks.hamming(second, third, some)


@pytest.mark.parametrize("keeps", [(30, 12), (of((6, 9, 9)), of((2, 5, 3)))], ids=["all", "each"])
def test_densities_are_one_program(keeps, evidence):
    wanted = [iterative_pruning.counts(SIZES, keep, 3) for keep in keeps]

    def prune_to(wanted):
        return iterative_pruning.prune_to(
            KEY, CRITERIA["magnitude"], evidence, PRUNABLE, wanted, 2
        )[0]

    got = jax.jit(jax.vmap(prune_to))(jax.tree.map(lambda *leaves: np.stack(leaves), *wanted))
    alone = [jax.jit(prune_to)(each) for each in wanted]
    same(got, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone))


# --- whole layers --------------------------------------------------------------------------------

WIDTHS = (8, 8, 200, 8, 8, 3)  # 64, 1,600, 1,600, 64 and 24 weights


class Narrow(NamedTuple):
    evidence: Evidence
    prunable: tuple[str, ...]


@pytest.fixture(scope="module")
def narrow():
    """A deep ReLU net without biases, two layers of which hold nearly all weights."""
    draw = np.random.default_rng(0)
    params = {
        f"fc{i}": {"kernel": (draw.standard_normal((m, n)) * (2 / m) ** 0.5).astype("f")}
        for i, (m, n) in enumerate(pairwise(WIDTHS), 1)
    }

    def apply(params, stats, images, key, train):
        del key, train
        *hidden, last = params
        for layer in hidden:
            images = jnp.maximum(images @ params[layer]["kernel"], 0)
        return images @ params[last]["kernel"], stats

    def prepare(images):
        return images / 64 - 2

    batches = Split(
        draw.integers(0, 256, (2, 20, 8)).astype("u1"), draw.integers(0, 3, (2, 20)).astype("i")
    )
    model = Model(lambda key: (params, {}), apply)
    loss = losses.classification(model, prepare)
    dense = masks.ones(params)
    seen = Evidence(params, params, {}, dense, batches, loss, model, prepare)
    return Narrow(seen, masks.prunable(params))


def test_synflow_in_a_hundred_rounds_loses_no_layer_where_one_shot_does(narrow):
    for name in ("magnitude", "snip", "synflow"):
        scores = CRITERIA[name].score(KEY, narrow.evidence)
        assert (
            min(counted(masks.select(scores, narrow.prunable, 12), narrow.prunable).values()) == 0
        )

    prune_to = jax.jit(
        lambda wanted: iterative_pruning.prune_to(KEY, CRITERIA["synflow"], *narrow, wanted)[0]
    )
    for keep, least in ((12, 1), (60, 5)):  # a path of five weights, and seven more
        left = counted(prune_to(iterative_pruning.schedule(3352, keep, 100)), narrow.prunable)
        assert sum(left.values()) == keep and min(left.values()) >= least


def test_what_is_pruned_stays_so_in_a_net_that_has_died(narrow):
    # With fewer weights than layers no gradient is left to rank by.
    prune_to = jax.jit(
        lambda wanted: iterative_pruning.prune_to(KEY, CRITERIA["snip"], *narrow, wanted)[0]
    )
    dead, more = (prune_to(np.array([400, 40, *last])) for last in ([4, 4, 4], [4, 3, 2]))
    assert within(more, dead)
    assert [sum(counted(m, narrow.prunable).values()) for m in (dead, more)] == [4, 2]
