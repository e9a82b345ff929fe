"""Energies on a tiny linear net, against what the numbers should be by hand."""

from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.energy_study import energy_scores
from experiments.harness import rows
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry
from jaxtickets import losses, masks, optimizers, runs
from jaxtickets.io.errors import UserError
from jaxtickets.search import energies
from jaxtickets.types import Model, Split

KEY = jax.random.key(3)
PRUNABLE = ("out/kernel",)
RATE = 0.5


@jax.jit
def prepare(images):
    return images.astype(jnp.float32) / 255


def apply(params, stats, images, key=None, train=False):
    """Softmax regression; in training mode with noise on the inputs, from the key."""
    if train:
        images = images + 0.1 * jax.random.normal(key, images.shape)
    return images @ params["out"]["kernel"] + params["out"]["bias"][None], stats


MODEL = Model(lambda key: (PARAMS, {}), apply)
DRAW = np.random.default_rng(6)
PARAMS = {
    "out": {
        "kernel": jnp.asarray(DRAW.normal(size=(3, 4)).astype("f")),
        "bias": jnp.asarray(DRAW.normal(size=4).astype("f")),
    }
}
MASK = masks.unflatten(jnp.asarray([1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1], bool), PARAMS, PRUNABLE)
RAW = jnp.asarray(DRAW.integers(0, 256, (30, 3)), jnp.uint8)
LABELS = jnp.asarray(DRAW.integers(0, 4, 30), jnp.int32)


def direct(params, mask, images, labels, measure):
    """The measure by numpy, from masked parameters."""
    kernel = np.where(mask["out"]["kernel"], params["out"]["kernel"], 0)
    logits = np.asarray(images, "f") @ kernel + np.asarray(params["out"]["bias"])
    if measure == "error_rate":
        return (logits.argmax(1) != labels).mean()
    chosen = logits[np.arange(len(labels)), labels]
    return np.mean(np.log(np.exp(logits).sum(1)) - chosen)


@pytest.mark.parametrize("measure", energies.MEASURES)
def test_fixed_is_the_measure_of_the_masked_net(measure):
    images = prepare(RAW)
    energy = energies.fixed(MODEL, PARAMS, {}, images, LABELS, energies.MEASURES[measure])
    assert not energy.fresh
    evaluate = jax.jit(energy.evaluate)
    value = evaluate(KEY, MASK)
    np.testing.assert_allclose(value, direct(PARAMS, MASK, images, LABELS, measure), rtol=1e-5)
    assert value == evaluate(jax.random.key(4), MASK)  # whatever the key
    assert value != evaluate(KEY, masks.ones(PARAMS))


def test_minibatch_is_the_measure_of_some_examples_that_the_key_draws():
    # 2 of 30 examples, drawn with replacement: error rates are 0, 1/2 or 1, and their mean over
    # many keys is that of all examples
    energy = energies.minibatch(
        MODEL, PARAMS, {}, RAW, LABELS, energies.MEASURES["error_rate"], prepare, 2
    )
    assert energy.fresh
    evaluate = jax.jit(jax.vmap(energy.evaluate, (0, None)))
    keys = jax.random.split(KEY, 4000)
    values = np.asarray(evaluate(keys, MASK))
    np.testing.assert_array_equal(values, evaluate(keys, MASK))
    assert set(values.tolist()) == {0.0, 0.5, 1.0}
    mean = direct(PARAMS, MASK, prepare(RAW), LABELS, "error_rate")
    error = np.sqrt(mean * (1 - mean) / 8000)  # one standard error
    assert abs(values.mean() - mean) < 4.5 * error
    # so that two masks are compared on the same examples: where only one example is known,
    # every key gives its measure
    alone = energies.minibatch(
        MODEL, PARAMS, {}, RAW[:1], LABELS[:1], losses.cross_entropy, prepare, 5
    )
    expected = direct(PARAMS, MASK, prepare(RAW[:1]), LABELS[:1], "cross_entropy")
    np.testing.assert_allclose(jax.jit(alone.evaluate)(KEY, MASK), expected, rtol=1e-5)


@cache
def after_training(steps, effective=masks.apply):
    """The trainability energy with that many steps of five examples, jitted."""
    batches = Split(RAW[:20].reshape(4, 5, 3)[:steps], LABELS[:20].reshape(4, 5)[:steps])
    loss = losses.classification(MODEL, prepare)
    optimizer = optimizers.optimizer("sgd", RATE)
    held_out = prepare(RAW[20:]), LABELS[20:], losses.cross_entropy
    energy = energies.trainability(
        MODEL, loss, optimizer, PARAMS, {}, batches, *held_out, jax.random.key(9), effective
    )
    assert not energy.fresh
    return jax.jit(energy.evaluate)


def test_trainability_of_no_steps_is_the_fixed_energy():
    expected = direct(PARAMS, MASK, prepare(RAW[20:]), LABELS[20:], "cross_entropy")
    np.testing.assert_allclose(after_training(0)(KEY, MASK), expected, rtol=1e-5)


def test_trainability_is_the_measure_after_masked_steps_by_hand():
    # Gradient descent by numpy: with p the softmax of x W + b and y the one-hot labels,
    # dW = x^T (p - y) / n where the mask is True, db = mean(p - y); x has the noise of step t,
    # whose key is the second of split(fold_in(key, t)).
    mask = np.asarray(MASK["out"]["kernel"])
    kernel = np.where(mask, PARAMS["out"]["kernel"], 0)
    bias = np.asarray(PARAMS["out"]["bias"])
    for t in range(3):
        _, key = jax.random.split(jax.random.fold_in(jax.random.key(9), t))
        part = slice(5 * t, 5 * t + 5)
        x = np.asarray(prepare(RAW[part]) + 0.1 * jax.random.normal(key, (5, 3)))
        logits = x @ kernel + bias
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        error = (p - np.eye(4)[np.asarray(LABELS[part])]) / 5
        kernel = kernel - RATE * np.where(mask, x.T @ error, 0)
        bias = bias - RATE * error.sum(0)
    trained = {"out": {"kernel": kernel, "bias": bias}}
    expected = direct(trained, MASK, prepare(RAW[20:]), LABELS[20:], "cross_entropy")
    np.testing.assert_allclose(after_training(3)(KEY, MASK), expected, rtol=1e-4)
    assert abs(expected - after_training(0)(KEY, MASK)) > 0.01


def test_trainability_starts_from_the_effective_weights():
    def doubled(mask, params):
        return jax.tree.map(lambda p: 2 * p, masks.apply(mask, params))

    twice = jax.tree.map(lambda p: 2 * p, PARAMS)
    expected = direct(twice, MASK, prepare(RAW[20:]), LABELS[20:], "cross_entropy")
    np.testing.assert_allclose(after_training(0, doubled)(KEY, MASK), expected, rtol=1e-5)
    assert abs(expected - after_training(0)(KEY, MASK)) > 0.01


def test_trainability_is_deterministic_whatever_the_key():
    evaluate = after_training(3)
    values = {float(evaluate(jax.random.key(i), MASK)) for i in range(4)}
    assert len(values) == 1
    assert float(evaluate(KEY, masks.ones(PARAMS))) not in values


def test_rescaled_divides_by_the_root_of_each_leafs_density():
    # fc keeps 1 of 4: 1 / sqrt(1/4) = 2; out keeps all 2: 1; gone keeps none: zero, and not nan;
    # dense isn't prunable: as it was, and so are biases
    params = {
        "dense": {"kernel": jnp.array([[7.0]])},
        "fc": {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "bias": jnp.array([5.0, 6.0])},
        "gone": {"kernel": jnp.array([[8.0, 9.0]])},
        "out": {"kernel": jnp.array([[-1.0], [-2.0]])},
    }
    mask = masks.ones(params)
    mask["fc"]["kernel"] = jnp.array([[False, False], [True, False]])
    mask["gone"]["kernel"] = jnp.array([[False, False]])
    prunable = ("fc/kernel", "gone/kernel", "out/kernel")
    got = jax.jit(energies.rescaled, static_argnums=2)(mask, params, prunable)
    expected = {
        "dense": {"kernel": [[7.0]]},
        "fc": {"kernel": [[0.0, 0.0], [6.0, 0.0]], "bias": [5.0, 6.0]},
        "gone": {"kernel": [[0.0, 0.0]]},
        "out": {"kernel": [[-1.0], [-2.0]]},
    }
    assert masks.paths(got) == masks.paths(params)
    for path in masks.paths(params):
        layer, leaf = path.split("/")
        np.testing.assert_allclose(got[layer][leaf], expected[layer][leaf], rtol=1e-6)


def test_energies_take_the_weights_that_effective_makes_of_the_mask():
    # 7 of 12 are kept: the kernel times sqrt(12 / 7), the bias as it is
    def effective(mask, params):
        return energies.rescaled(mask, params, PRUNABLE)

    images = prepare(RAW)
    kernel = np.asarray(PARAMS["out"]["kernel"]) * np.sqrt(12 / 7)
    scaled = {"out": {"kernel": kernel, "bias": PARAMS["out"]["bias"]}}
    expected = direct(scaled, MASK, images, LABELS, "cross_entropy")
    measure = losses.cross_entropy
    fixed = energies.fixed(MODEL, PARAMS, {}, images, LABELS, measure, effective)
    np.testing.assert_allclose(jax.jit(fixed.evaluate)(KEY, MASK), expected, rtol=1e-5)
    assert abs(expected - direct(PARAMS, MASK, images, LABELS, "cross_entropy")) > 0.01
    one = RAW[:1], LABELS[:1]
    few = energies.minibatch(MODEL, PARAMS, {}, *one, measure, prepare, 3, effective)
    expected = direct(scaled, MASK, images[:1], LABELS[:1], "cross_entropy")
    np.testing.assert_allclose(jax.jit(few.evaluate)(KEY, MASK), expected, rtol=1e-5)


def test_gradient_flow_is_minus_the_norm_of_the_kept_gradient():
    """By finite differences of the masked net's loss in every kept weight and bias."""

    def loss(params, stats, batch, key):
        logits, _ = apply(params, stats, prepare(batch.images))
        return losses.cross_entropy(logits, batch.labels), (stats, {})

    energy = energies.gradient_flow(loss, PARAMS, {}, Split(RAW, LABELS), KEY)
    total, step = 0.0, 1e-3
    masked = masks.apply(MASK, PARAMS)
    for path in ("kernel", "bias"):
        for at in np.argwhere(np.asarray(MASK["out"][path])):
            ends = []
            for sign in (1, -1):
                kernel = np.array(masked["out"][path])
                kernel[tuple(at)] += sign * step
                moved = {"out": masked["out"] | {path: kernel}}
                ends.append(direct(moved, masks.ones(PARAMS), prepare(RAW), LABELS, "loss"))
            total += ((ends[0] - ends[1]) / (2 * step)) ** 2
    np.testing.assert_allclose(energy.evaluate(KEY, MASK), -(total**0.5), rtol=2e-3)


def test_saliency_is_the_share_of_the_scores_that_is_lost():
    scores = {"out": {"kernel": jnp.arange(12.0).reshape(3, 4), "bias": jnp.full(4, 9.0)}}
    energy = energies.saliency(scores, PRUNABLE)
    kept = sum(i for i, bit in enumerate(np.ravel(MASK["out"]["kernel"])) if bit)
    np.testing.assert_allclose(energy.evaluate(KEY, MASK), 1 - kept / 66, rtol=1e-6)
    best = masks.select(scores, PRUNABLE, 7)
    others = [masks.random(jax.random.key(i), PARAMS, PRUNABLE, 7) for i in range(50)]
    least = float(energy.evaluate(KEY, best))
    assert all(float(energy.evaluate(KEY, other)) >= least - 1e-6 for other in others)


def test_a_mixture_is_the_sum_of_its_parts_and_of_their_costs():
    images = prepare(RAW)
    parts = [
        energies.fixed(MODEL, PARAMS, {}, images[:n], LABELS[:n], energies.MEASURES["error_rate"])
        for n in (10, 30)
    ]
    mixed = energies.mixture(parts, [0.25, -2.0])
    each = [float(part.evaluate(KEY, MASK)) for part in parts]
    np.testing.assert_allclose(mixed.evaluate(KEY, MASK), 0.25 * each[0] - 2 * each[1], rtol=1e-6)
    assert (mixed.cost, mixed.fresh) == (40, False)
    with pytest.raises(ValueError, match="2 energies and 1 shares"):
        energies.mixture(parts, [1.0])


# --- of many masks ------------------------------------------------------------------------------


def test_a_run_that_goes_on_keeps_the_energies_it_has_and_makes_the_rest(tmp_path, monkeypatch):
    params = {"kernel": jnp.arange(4.0)}
    draw = np.random.default_rng(5)
    drawn = [{"kernel": draw.random(4)} for _ in range(5)]
    starts = [SimpleNamespace(params=params, stats={}, mask=mask) for mask in drawn]
    entries = [
        Entry({"seed": 0, "density": 0.5, "number": i}, start) for i, start in enumerate(starts)
    ]
    axis = runs.axis("map", 1, jax.devices()[:1])
    monkeypatch.setattr(energy_scores, "PART", 2)

    def energies_of(factor):
        def energies_of_mask(problem, train, steps, row, look):
            return {"by": factor * jnp.sum(row.mask["kernel"] * row.snip["kernel"]) + look}

        monkeypatch.setattr(energy_scores, "energies_of_mask", energies_of_mask)
        session = Session(tmp_path, None, axis, None, [], 60.0)
        made = energy_scores.energies_of_masks(
            session, None, (), entries, {0: (params, params)}, jnp.float32(7)
        )
        return [row["by"] for row in made]

    expected = [7 + float(np.sum(start.mask["kernel"] * np.arange(4))) for start in starts]
    first = energies_of(1.0)
    np.testing.assert_allclose(first, expected, rtol=1e-6)
    assert energies_of(2.0) == first  # nothing is left to do
    rows.keep_metrics(tmp_path, lambda row: row["phase"] == "energies-00-rows")
    again = energies_of(2.0)
    assert again[:2] == first[:2]
    np.testing.assert_allclose(again[2:], 2 * np.array(expected[2:]) - 7, rtol=1e-6)
    with pytest.raises(
        UserError,
        match=r'the energy "by" is not finite for the mask of seed 0, density 0.5, number 0',
    ):
        rows.keep_metrics(tmp_path, lambda row: False)
        energies_of(float("nan"))
