"""Sign flips: ranks by hand, counted flips, rules of pruning, and their table."""

from functools import partial

import commands
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.sign_flips import dense_flips, page, pruning_runs
from experiments.sign_flips.ranks import area_under_curve, mid_ranks, spearman
from jaxtickets import masks
from jaxtickets.dynamic import flipout

KEY = jax.random.key(0)


def test_equal_values_share_their_mean_rank():
    assert mid_ranks(np.array([5, 1, 5, 2])).tolist() == [3.5, 1, 3.5, 2]


def test_the_area_under_the_curve_counts_pairs():
    """By hand: of the pairs (3, 1), (3, 2), (2, 1), (2, 2), three are in order and one is a tie."""
    positive = np.array([True, False, True, False])
    assert area_under_curve(mid_ranks(np.array([3, 1, 2, 2])), positive) == 3.5 / 4
    assert area_under_curve(mid_ranks(np.ones(4)), positive) == 0.5
    assert area_under_curve(mid_ranks(np.arange(4)), np.zeros(4, bool)) is None
    assert area_under_curve(mid_ranks(np.arange(4)), np.ones(4, bool)) is None


def test_rank_correlation_is_scipys():
    from scipy import stats

    draw = np.random.default_rng(0)
    a, b = draw.integers(0, 5, 200), draw.normal(size=200)
    found = spearman(mid_ranks(a), mid_ranks(a + b))
    np.testing.assert_allclose(found, stats.spearmanr(a, a + b).statistic, rtol=1e-12)
    assert spearman(mid_ranks(a), mid_ranks(-a)) == pytest.approx(-1)
    assert spearman(mid_ranks(a), np.ones(200)) is None


def test_flips_are_counted_and_noted_at_marks():
    """A weight goes 1, -1, 1, 0, -1: two flips, since zero has no sign; another stays positive."""
    params = {"fc": {"kernel": jnp.array([[1.0, 3.0]]), "bias": jnp.array([1.0, 1.0])}}
    steps = jnp.array([[[-2.0, 1.0]], [[2.0, -1.0]], [[-1.0, 1.0]], [[-1.0, 1.0]]])
    prunable = masks.prunable(params)
    optimizer = dense_flips.counting(optax.sgd(1.0), masks.ones(params), prunable, (1, 3))
    state = optimizer.init(params)
    for step in steps:
        gradient = {"fc": {"kernel": -step, "bias": jnp.zeros(2)}}
        updates, state = jax.jit(optimizer.update)(gradient, state, params)
        params = optax.apply_updates(params, updates)
    assert params["fc"]["kernel"].tolist() == [[-1.0, 5.0]]
    (counts,), (early,), (weights,) = state.method
    assert counts.tolist() == [[2, 0]]
    assert early.tolist() == [[[1, 0]], [[2, 0]]]
    assert weights.tolist() == [[[-1.0, 4.0]], [[0.0, 4.0]]]


@pytest.mark.parametrize(
    ("rule", "noise"), [*((rule, 1.0) for rule in pruning_runs.RULES), ("magnitude", 0.0)]
)
def test_each_rule_prunes_to_the_plans_counts(rule, noise, mlp):
    prunable, every = masks.prunable(mlp), 2
    moves = flipout.plan(moves=4, begin=42, end=6, cuts=2, last_cut=0.5)
    optimizer = pruning_runs.pruning(
        pruning_runs.RULES[rule],
        noise,
        inner=optax.sgd(0.5),
        mask=masks.ones(mlp),
        prunable=prunable,
        moves=moves,
        every=every,
        key=KEY,
        floor=1,
    )
    state, params, kept = optimizer.init(mlp), mlp, []
    update = jax.jit(optimizer.update)
    for i in range(4 * (every + 1)):
        gradient = jax.tree.map(partial(jnp.add, (-1.0) ** i), params)
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        kept.append(int(masks.count(state.mask, prunable)))
    assert kept[every :: every + 1] == moves.ones.tolist() == [16, 6, 6, 6]
    assert min(map(int, masks.counts(state.mask, prunable).values())) >= 1
    for leaf, keep in zip(*map(jax.tree.leaves, (params, state.mask)), strict=True):
        assert not np.any(np.asarray(leaf)[~np.asarray(keep)])


def row(rule, variant, rate, seed, test, validation, density=0.1):
    named = {"rule": rule, "variant": variant, "rate": rate, "density": density, "seed": seed}
    return {**named, "trained_accuracy": test, "validation_accuracy": validation}


def test_rates_are_chosen_on_validation_data_and_differences_are_paired():
    """By hand: differences of 2 and 4 points, mean 3, deviation sqrt(2), t(0.975, 1) = 12.706."""
    summary = [
        *(row("dense", "plain", 0.1, seed, 0.99, 0.98, 1.0) for seed in (0, 1)),
        *(row("magnitude", "plain", 0.1, seed, 0.90 + 0.01 * seed, 0.9) for seed in (0, 1)),
        *(row("magnitude", "plain", 0.2, seed, 0.99, 0.8) for seed in (0, 1)),
        *(row("flips", "plain", 0.2, seed, 0.92 + 0.03 * seed, 0.95) for seed in (0, 1)),
        *(row("flips", "plain", 0.1, seed, 0.99, 0.7) for seed in (0, 1)),
    ]
    assert page.best_rate(summary[:2]) == 0.1
    best = page.at_best_rate(summary)
    assert best[0.1, "magnitude", "plain"][0]["rate"] == 0.1
    assert best[0.1, "flips", "plain"][0]["rate"] == 0.2
    lines = page._best(summary).splitlines()
    assert lines[-1].split()[:5] == ["flips", "plain", "0.1", "2", "0.2"]
    assert lines[-1].count("+3.00 (-9.71 to +15.71)") == 2
    assert "(" not in lines[-2]


def test_a_killed_run_goes_on_to_the_numbers_that_a_rule_has_beside_others(smokes, tmp_path, cache):
    folder, _ = smokes("sign_flips")
    words = commands.command("sign_flips", "--smoke", f"--out={tmp_path / 'run'}")
    words += ["--rules=hybrid2", "--variants=noise"]
    commands.kill_and_resume(words, tmp_path / "run", ("dense",), cache)
    wanted = ("dense", "plain"), ("hybrid2", "noise")
    beside = [row for row in commands.summary(folder) if (row["rule"], row["variant"]) in wanted]
    assert len(beside) == 2 * 2 + 2 * 2 * 2
    assert commands.summary(tmp_path / "run") == beside
    for name in ("flips.csv", "predictors.csv", "bins.csv"):
        assert (tmp_path / "run" / name).read_text() == (folder / name).read_text()
