"""Masked training: the mask holds after every step; cutting and batching change no bit."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxtickets import losses, masks, nets, optimizers, runs, training
from jaxtickets.data.batches import stream
from jaxtickets.types import Model, Split

KEY = jax.random.key(17)
DRAW = np.random.default_rng(5)
N, BATCH, CLASSES = 30, 6, 3


def prepare(images):
    return images.astype(jnp.float32) / 255 - 0.5


class Small(nn.Module):
    """Dense, batch norm, ReLU, dropout, dense: `[n, 2, 2, 1]` -> `[n, 3]`."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(5, use_bias=False, name="fc")(x.reshape(x.shape[0], -1))
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="bn")(x))
        x = nn.Dropout(0.3, deterministic=not train)(x)
        return nn.Dense(CLASSES, name="out")(x)


MODEL = nets.functional(Small(), (2, 2, 1))
LOSS = losses.classification(MODEL, prepare)
PRUNABLE = ("fc/kernel", "out/kernel")  # 20 + 15 weights
TRAIN, VALIDATION = (
    Split(
        jnp.asarray(DRAW.integers(0, 256, (n, 2, 2, 1)), jnp.uint8),
        jnp.asarray(DRAW.integers(0, CLASSES, n), jnp.int32),
    )
    for n in (N, 11)
)


@cache
def start():
    """Parameters, none of them zero, and statistics."""
    params, stats = jax.jit(MODEL.init)(jax.random.key(0))
    noise = np.random.default_rng(1)
    return jax.tree.map(lambda p: p + noise.uniform(0.01, 0.1, p.shape).astype("f"), params), stats


@cache
def mask_of(number):
    """A mask that keeps half of the weights and, to be hard, not all of biases and norms."""
    draw = np.random.default_rng(number)
    return jax.tree.map(lambda p: jnp.asarray(draw.random(p.shape) < 0.5), start()[0])


def indices(steps):
    return stream(jax.random.key(2), 0, steps, N, BATCH)


def shaken(key, images):
    """An augmentation: uint8 images with noise from the key."""
    return images // 2 + jax.random.randint(key, images.shape, 0, 9).astype(jnp.uint8)


def fetch(key, index):
    return Split(shaken(key, TRAIN.images[index]), TRAIN.labels[index])


def same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


def differ(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any(bool(np.any(np.asarray(x) != np.asarray(y))) for x, y in pairs)


@cache
def stepper(name):
    """The optimiser, and `(key, state, index, fill) -> (state, metrics)`: one step, compiled."""
    optimizer = optimizers.optimizer(name, 0.1, weight_decay=0.01)

    def one(key, state, index, fill):
        return training.advance(LOSS, optimizer, key, state, index[None], fetch, fill)

    return optimizer, jax.jit(one)


@cache
def plain_gradient():
    """The gradient of the loss written out: `(params, stats, key, index)`, compiled."""

    def loss(params, stats, key, index):
        fetch_key, loss_key = jax.random.split(key)
        images, labels = fetch(fetch_key, index)
        logits, stats = MODEL.apply(params, stats, prepare(images), loss_key, True)
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
        return jnp.mean(nll), stats

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


# --- the mask ------------------------------------------------------------------------------------


@pytest.mark.parametrize("filled", [False, True], ids=["zero", "fill"])
@pytest.mark.parametrize("name", optimizers.NAMES)
def test_after_every_step_params_are_where_mask_params_fill(name, filled):
    optimizer, step = stepper(name)
    (params, stats), mask = start(), mask_of(0)
    zero = jax.tree.map(jnp.zeros_like, params)
    fill = jax.tree.map(lambda p: p - 0.5, params) if filled else zero
    state = training.init(params, stats, mask, optimizer, fill)
    for index in indices(4):
        same(state.params, jax.tree.map(jnp.where, mask, state.params, fill))
        before, (state, _) = state, step(KEY, state, index, fill)
        moved = jax.tree.map(jnp.not_equal, before.params, state.params)
        # most survivors have moved; those of a dead unit may not have
        assert masks.count(moved, PRUNABLE) > 0.5 * masks.count(mask, PRUNABLE)
    same(state.params, jax.tree.map(jnp.where, mask, state.params, fill))
    assert state.step == 4
    same(state.mask, mask)


def test_fill_is_zero_unless_given():
    begin = fresh_state()
    same(begin.params, masks.apply(mask_of(0), start()[0]))
    after, _ = interval(1)(KEY, 0.1, begin)
    for leaf, keep in zip(jax.tree.leaves(after.params), jax.tree.leaves(mask_of(0)), strict=True):
        assert not np.asarray(leaf)[~np.asarray(keep)].any()
    assert differ(after.params, begin.params)


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_a_masked_weight_has_no_influence_be_it_nan(name):
    # what stands under the mask, nan even, changes no bit of parameters, statistics or metrics
    optimizer, step = stepper(name)
    (params, stats), mask = start(), mask_of(0)
    broken = jax.tree.map(lambda m, p: jnp.where(m, p, jnp.nan), mask, params)
    zero = jax.tree.map(jnp.zeros_like, params)
    ends = []
    for begin in (params, broken):
        state = training.init(begin, stats, mask, optimizer)
        for index in indices(3):
            state, metrics = step(KEY, state, index, zero)
        ends.append((state, metrics))
    same(*ends)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ends[1][0].params))


def test_the_optimiser_sees_the_survivors_gradients_alone():
    # the momentum of masked weights stays zero, though the loss has a gradient there
    optimizer, step = stepper("momentum")
    (params, stats), mask = start(), mask_of(0)
    state = training.init(params, stats, mask, optimizer)
    _, dense = plain_gradient()(state.params, stats, KEY, indices(1)[0])
    at_masked = masks.apply(masks.invert(mask, PRUNABLE), dense)
    assert any(leaf.any() for leaf in masks.pick(at_masked, PRUNABLE))
    for index in indices(2):
        state, _ = step(KEY, state, index, jax.tree.map(jnp.zeros_like, params))
    (trace,) = [s.trace for s in state.opt_state if isinstance(s, optax.TraceState)]
    same(trace, masks.apply(mask, trace))
    assert differ(trace, jax.tree.map(jnp.zeros_like, trace))


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("sgd", optax.sgd(0.1)),
        ("momentum", optax.sgd(0.1, momentum=0.9)),
        ("adam", optax.adam(0.1, eps=1e-8)),
        ("adadelta", optax.adadelta(0.1, rho=0.9, eps=1e-6)),
    ],
)
def test_training_with_the_dense_mask_is_plain_optax(name, by_hand):
    optimizer, step = stepper(name)
    params, stats = start()
    state = training.init(params, stats, masks.ones(params), optimizer)
    zero = jax.tree.map(jnp.zeros_like, params)
    by_hand = optax.chain(optax.add_decayed_weights(0.01), by_hand)
    opt_state = by_hand.init(params)
    update = jax.jit(by_hand.update)
    for t, index in enumerate(indices(3)):
        state, metrics = step(KEY, state, index, zero)
        key = jax.random.fold_in(KEY, t)
        (value, stats), gradient = plain_gradient()(params, stats, key, index)
        updates, opt_state = update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(metrics["loss"][0], value, rtol=1e-4)
    for got, expected in zip(
        jax.tree.leaves((state.params, state.stats)), jax.tree.leaves((params, stats)), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)
    assert differ(state.stats, start()[1])


# --- pieces --------------------------------------------------------------------------------------

RECIPE = training.Recipe(
    model=MODEL,
    loss=LOSS,
    optimizer=lambda rate: optimizers.optimizer("adam", rate),
    prepare=prepare,
    augment=shaken,
    batch_size=BATCH,
    every=10,
)


@cache
def interval(steps):
    """`(key, rate, state) -> (state, metrics)`: an interval of that many steps, compiled."""

    def run(key, rate, state):
        return training.interval(RECIPE, key, rate, state, TRAIN, VALIDATION, steps)

    return jax.jit(run)


def fresh_state():
    return training.init(*start(), mask_of(0), RECIPE.optimizer(0.01))


@cache
def in_pieces(*lengths):
    """The state and the metrics of each piece."""
    state, seen = fresh_state(), []
    for length in lengths:
        state, piece = interval(length)(KEY, 0.01, state)
        seen.append(piece)
    return state, seen


@pytest.mark.parametrize("lengths", [(30, 30), (1,) * 60], ids=["30+30", "60x1"])
def test_training_cut_anywhere_gives_the_same_bits(lengths):
    # against 59+1; 5 steps an epoch, so that pieces begin inside epochs and span several;
    # dropout, augmentation, batch norm and Adam all carry on
    expected, expected_seen = in_pieces(59, 1)
    state, seen = in_pieces(*lengths)
    same(state, expected)
    np.testing.assert_array_equal(
        np.concatenate([piece["train_loss"] for piece in seen]),
        np.concatenate([piece["train_loss"] for piece in expected_seen]),
    )
    assert seen[-1]["step"] == expected_seen[-1]["step"] == 60
    assert seen[-1]["loss"] == expected_seen[-1]["loss"]


def test_interval_tells_the_validation_and_the_mean_training_metrics():
    state, seen = in_pieces(30, 30)
    expected = evaluate(11)(state.params, state.stats, VALIDATION)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(seen[1][name], expected[name], rtol=1e-6)
    assert [piece["step"] for piece in seen] == [30, 60]
    assert seen[0]["train_loss"].shape == (30,) and 0 < seen[0]["train_accuracy"] < 1


# --- whole runs ----------------------------------------------------------------------------------


def whole_run(row, train, validation):
    key, mask, rate = row
    steps, keep_at = 30, (0, 10, 30)
    return training.train(
        RECIPE, key, rate, *start(), mask, train, validation, steps, keep_at=keep_at
    )


@cache
def rows():
    """Three runs: keys, masks and learning rates."""
    made = [mask_of(i) for i in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)
    return jax.random.split(KEY, 3), stacked, jnp.array([0.01, 0.1, 0.001])


def row(i):
    return jax.tree.map(lambda leaf: leaf[i], rows())


@cache
def solo():
    """Each run alone, stacked."""
    run = jax.jit(whole_run)
    made = [run(row(i), TRAIN, VALIDATION) for i in range(3)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)


def test_mapped_runs_over_masks_and_rates_have_the_bits_of_their_solo_runs():
    axis = runs.axis("map", 1, jax.local_devices()[:1])
    same(runs.over_runs(whole_run, axis, rows(), TRAIN, VALIDATION), solo())


def test_keep_at_returns_the_parameters_and_statistics_of_these_steps():
    # at 0 the masked start; at 10 a run of ten steps alone; at 30 the end
    state, _, (kept, kept_stats) = solo()
    params, stats = start()
    for i in range(3):
        at = jax.tree.map(lambda leaf, i=i: leaf[i], (kept, kept_stats))
        steps = [jax.tree.map(lambda leaf, t=t: leaf[t], at) for t in range(3)]
        same(steps[0], (masks.apply(mask_of(i), params), stats))
        same(steps[2], jax.tree.map(lambda leaf, i=i: leaf[i], (state.params, state.stats)))
    key, mask, rate = row(0)
    stopped = training.init(params, stats, mask, RECIPE.optimizer(rate))
    for _ in range(10):
        stopped, _ = interval(1)(key, rate, stopped)
    at_ten = jax.tree.map(lambda leaf: leaf[0, 1], (kept, kept_stats))
    same(at_ten, (stopped.params, stopped.stats))
    assert differ(at_ten[0], jax.tree.map(lambda leaf: leaf[0], state.params))


def test_metrics_of_a_run_are_stacked_looks_at_the_validation_data():
    state, metrics, _ = solo()
    assert metrics["step"].tolist() == [[10, 20, 30]] * 3
    assert metrics["train_loss"].shape == (3, 3, 10)
    assert metrics["loss"].shape == metrics["accuracy"].shape == (3, 3)
    assert state.step.tolist() == [30] * 3


@pytest.mark.parametrize(
    ("steps", "keep_at"), [(25, ()), (30, (5,)), (30, (40,)), (30, (0, 15)), (30, (-10,))]
)
def test_steps_that_are_no_multiple_of_every_or_past_the_end_raise(steps, keep_at):
    params, stats = start()
    bad = steps if steps == 25 else keep_at[-1]
    with pytest.raises(ValueError, match=f"step {bad}") as error:
        training.train(
            RECIPE, KEY, 0.1, params, stats, mask_of(0), TRAIN, VALIDATION, steps, keep_at
        )
    assert "\n" not in str(error.value)


def test_early_stop_is_the_first_step_of_the_lowest_validation_loss():
    # 0.5 stands twice, at the steps 20 and 40
    metrics = {
        "step": jnp.array([10, 20, 30, 40]),
        "loss": jnp.array([0.9, 0.5, 0.7, 0.5]),
        "accuracy": jnp.array([0.9, 0.1, 0.2, 0.3]),
    }
    assert training.early_stop(metrics) == 20


def test_early_stop_is_never_where_the_loss_is_nan():
    metrics = {"step": jnp.array([10, 20, 30]), "loss": jnp.array([0.9, jnp.nan, 0.7])}
    assert training.early_stop(metrics) == 30


# --- loss and evaluation -------------------------------------------------------------------------


@cache
def evaluate(batch_size):
    return jax.jit(partial(training.evaluate, MODEL, prepare, batch_size=batch_size))


@pytest.mark.parametrize("batch_size", [3, 11, 1000])
def test_evaluate_is_the_mean_over_all_examples_with_the_remainder(batch_size):
    # 11 examples: 3 + 3 + 3 + 2, or all at once; by running statistics and without dropout
    params, stats = start()
    stats = jax.tree.map(lambda s: s + 0.3, stats)
    got = evaluate(batch_size)(params, stats, VALIDATION)
    x = np.asarray(prepare(VALIDATION.images)).reshape(11, 4)
    x = x @ params["fc"]["kernel"]
    x = (x - stats["bn"]["mean"][None]) / np.sqrt(stats["bn"]["var"][None] + 1e-5)
    x = np.maximum(x * params["bn"]["scale"][None] + params["bn"]["bias"][None], 0)
    logits = np.asarray(x @ params["out"]["kernel"] + params["out"]["bias"][None])
    labels = np.asarray(VALIDATION.labels)
    nll = np.log(np.exp(logits).sum(1)) - logits[np.arange(11), labels]
    np.testing.assert_allclose(got["loss"], nll.mean(), rtol=1e-5)
    np.testing.assert_allclose(got["accuracy"], (logits.argmax(1) == labels).mean(), rtol=1e-6)
    # the mean of the four batches' means would be another number
    means = [nll[i : i + 3].mean() for i in range(0, 11, 3)]
    assert abs(np.mean(means) - nll.mean()) > 1e-4


def test_each_step_has_dropout_of_its_own_from_the_runs_key():
    # from the same parameters and on the same batch, steps of other numbers and other runs have
    # other losses, and the same step of the same run has the same
    optimizer, step = stepper("sgd")
    (params, stats), index = start(), indices(1)[0]
    state = training.init(params, stats, mask_of(0), optimizer)
    zero = jax.tree.map(jnp.zeros_like, params)

    def loss(key, number):
        return float(step(key, state._replace(step=jnp.int32(number)), index, zero)[1]["loss"][0])

    seen = {loss(key, number) for key in (KEY, jax.random.key(18)) for number in (0, 1, 7, 8)}
    assert len(seen) == 8
    assert loss(KEY, 7) in seen


def test_classification_adds_the_penalty_to_the_loss():
    # softmax of zeros over three classes: log 3, plus 2 * |w|^2 = 2 * (1 + 4)
    model = Model(lambda key: ({}, {}), lambda p, s, x, key, train: (jnp.zeros((2, 3)), {"n": 1}))
    loss = losses.classification(model, prepare, lambda p: 2 * jnp.sum(p["w"] ** 2))
    batch = Split(jnp.zeros((2, 2, 2, 1)), jnp.array([0, 1]))
    value, (stats, metrics) = jax.jit(loss)({"w": jnp.array([1.0, 2.0])}, {}, batch, KEY)
    np.testing.assert_allclose(value, np.log(3) + 10, rtol=1e-6)
    np.testing.assert_allclose(metrics["accuracy"], 0.5)  # the first class is the guess
    assert metrics["loss"] == value and stats == {"n": 1}


# --- optimisers ----------------------------------------------------------------------------------


def test_weight_decay_is_l2_and_goes_through_the_optimiser():
    # w = 2, g = 1, lambda = 0.5: g + lambda w = 2. sgd at rate 0.1: w = 1.8, and then
    # g + lambda w = 1.9: w = 1.61. momentum 0.5: m = 2, w = 1.8; m = 0.5 * 2 + 1.9 = 2.9,
    # w = 1.51. adam: its first step is the rate whatever the gradient's size: w = 1.9, where
    # decoupled decay would take more.
    def after(steps, name, **change):
        optimizer = optimizers.optimizer(name, 0.1, weight_decay=0.5, **change)
        w = jnp.float32(2.0)
        state = optimizer.init(w)
        for _ in range(steps):
            update, state = optimizer.update(jnp.float32(1.0), state, w)
            w = w + update
        return w

    np.testing.assert_allclose([after(1, "sgd"), after(2, "sgd")], [1.8, 1.61], rtol=1e-6)
    np.testing.assert_allclose(after(2, "momentum", momentum=0.5), 1.51, rtol=1e-6)
    np.testing.assert_allclose(after(1, "adam"), 1.9, rtol=1e-5)


def test_learning_rate_shapes_by_hand():
    def at(steps, name, **change):
        shape = optimizers.decay_shape(name, 100, **change)
        return [float(shape(t)) for t in steps]

    assert at((0, 99), "constant") == [1, 1]
    np.testing.assert_allclose(at((0, 49, 51, 74, 76), "steps"), [1, 1, 0.1, 0.1, 0.01], rtol=1e-5)
    # (1 + cos(pi t / 100)) / 2
    np.testing.assert_allclose(at((0, 50, 100), "cosine"), [1, 0.5, 0], atol=1e-6)
    # warm-up of four steps, in front of drops that keep their places
    warm = at((0, 1, 3, 4, 51), "steps", warmup=4)
    np.testing.assert_allclose(warm, [0.25, 0.5, 1, 1, 0.1], rtol=1e-5)


def test_unknown_optimisers_and_shapes_raise_one_line():
    for call in (
        lambda: optimizers.optimizer("lion", 0.1),
        lambda: optimizers.decay_shape("steep", 10),
    ):
        with pytest.raises(ValueError, match=r"unknown .* there are") as error:
            call()
        assert "\n" not in str(error.value)
