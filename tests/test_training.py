"""Masked training: the mask holds after every step; cutting and batching change no bit."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.core import freeze

from jaxtickets import losses, masks, nets, optimizers, runs, training
from jaxtickets.data.batches import stream
from jaxtickets.dynamic.static import masked
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
        sparse = masked(optimizer, state.mask, fill)
        return training.advance(LOSS, sparse, key, state, index[None], fetch)

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
    state = training.init(params, stats, masked(optimizer, mask, fill), fill)
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
    after = chunk(1)(KEY, 0.1, training.watch(begin))[0].state
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
        state = training.init(begin, stats, masked(optimizer, mask))
        for index in indices(3):
            state, metrics = step(KEY, state, index, zero)
        ends.append((state, metrics))
    same(*ends)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ends[1][0].params))


def test_the_optimiser_sees_the_survivors_gradients_alone():
    # the momentum of masked weights stays zero, though the loss has a gradient there
    optimizer, step = stepper("momentum")
    (params, stats), mask = start(), mask_of(0)
    state = training.init(params, stats, masked(optimizer, mask))
    _, dense = plain_gradient()(state.params, stats, KEY, indices(1)[0])
    at_masked = masks.apply(masks.invert(mask, PRUNABLE), dense)
    assert any(leaf.any() for leaf in masks.pick(at_masked, PRUNABLE))
    for index in indices(2):
        state, _ = step(KEY, state, index, jax.tree.map(jnp.zeros_like, params))
    (trace,) = [s.trace for s in state.opt_state.inner if isinstance(s, optax.TraceState)]
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
    state = training.init(params, stats, masked(optimizer, masks.ones(params)))
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


# --- chunks --------------------------------------------------------------------------------------

RECIPE = training.Recipe(
    model=MODEL,
    loss=LOSS,
    optimizer=lambda rate: optimizers.optimizer("adam", rate),
    prepare=prepare,
    augment=shaken,
    batch_size=BATCH,
    every=10,
)


DATA = training.Splits(TRAIN, VALIDATION)


@cache
def chunk(steps, evaluations=1, keep_at=()):
    """`(key, rate, watched) -> (watched, metrics)`: evaluations after that many steps, compiled."""
    recipe = RECIPE._replace(every=steps)

    def run(key, rate, watched):
        return training.train_chunk(recipe, key, rate, watched, DATA, evaluations, keep_at)

    return jax.jit(run)


def fresh_state(step=0):
    return training.init(*start(), masked(RECIPE.optimizer(0.01), mask_of(0)), step=step)


@cache
def in_chunks(*lengths):
    """The training after its chunks, and the metrics of each."""
    watched, seen = training.watch(fresh_state()), []
    for length in lengths:
        watched, metrics = chunk(length)(KEY, 0.01, watched)
        seen.append(metrics)
    return watched.state, seen


@pytest.mark.parametrize("lengths", [(30, 30), (1,) * 60], ids=["30+30", "60x1"])
def test_training_cut_anywhere_gives_the_same_bits(lengths):
    # against 59+1; 5 steps an epoch, so that chunks begin inside epochs and span several;
    # dropout, augmentation, batch norm and Adam all carry on
    expected, expected_seen = in_chunks(59, 1)
    state, seen = in_chunks(*lengths)
    same(state, expected)
    np.testing.assert_array_equal(
        np.concatenate([metrics["train_loss"][0] for metrics in seen]),
        np.concatenate([metrics["train_loss"][0] for metrics in expected_seen]),
    )
    assert seen[-1]["step"] == expected_seen[-1]["step"] == 60
    assert seen[-1]["loss"] == expected_seen[-1]["loss"]


def test_a_look_tells_the_validation_and_the_mean_training_metrics():
    state, seen = in_chunks(30, 30)
    expected = evaluate(11)(state.params, state.stats, VALIDATION)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(seen[1][name][0], expected[name], rtol=1e-6)
    assert [int(metrics["step"][0]) for metrics in seen] == [30, 60]
    assert seen[0]["train_loss"].shape == (1, 30) and 0 < seen[0]["train_accuracy"][0] < 1


def test_data_on_the_host_are_fetched_as_those_on_the_device():
    index = jnp.arange(BATCH)[::-1]
    found = jax.jit(training.fetcher(RECIPE, Split(*map(np.asarray, TRAIN))))(KEY, index)
    same(found, training.fetcher(RECIPE, TRAIN)(KEY, index))


def test_several_evaluations_are_the_chunks_of_one():
    watched, seen = chunk(30, 2)(KEY, 0.01, training.watch(fresh_state()))
    state, expected = in_chunks(30, 30)
    same(watched.state, state)
    assert seen["step"].tolist() == [30, 60]
    np.testing.assert_array_equal(seen["loss"], [metrics["loss"][0] for metrics in expected])


def test_what_is_done_before_an_evaluation_is_seen_by_it_and_leaves_the_mask_alone():
    def turned(params):
        return jax.tree.map(lambda w: jnp.where(w == 0, 1.0, -w), params)

    recipe = RECIPE._replace(every=30, before_evaluation=turned)
    begin = training.watch(fresh_state())
    run = jax.jit(lambda watched: training.train_chunk(recipe, KEY, 0.01, watched, DATA, 2))
    watched, seen = run(begin)
    expected = begin
    for at in range(2):
        expected = chunk(30)(KEY, 0.01, expected)[0]
        params = masks.apply(mask_of(0), turned(expected.state.params))
        expected = expected._replace(state=expected.state._replace(params=params))
        loss = evaluate(11)(params, expected.state.stats, VALIDATION)["loss"]
        np.testing.assert_allclose(seen["loss"][at], loss, rtol=1e-6)
    same(watched.state, expected.state)
    first = int(np.argmin(seen["loss"]))
    assert watched.loss == seen["loss"][first]
    assert first == 0 or not differ(watched.params, watched.state.params)


def test_the_early_stop_is_the_look_with_the_lowest_validation_loss():
    # of the evaluations after 1, 2, ..., 60 steps; its parameters are those of the training
    # stopped there
    watched = training.watch(fresh_state())
    assert watched.loss == np.inf
    watched, seen = chunk(1, 60)(KEY, 0.1, watched)
    lowest = int(np.argmin(seen["loss"]))
    assert 0 < lowest < 59, "the case is meant to have its lowest loss on the way"
    assert watched.step == seen["step"][lowest] and watched.loss == seen["loss"][lowest]
    stopped, _ = chunk(1, lowest + 1)(KEY, 0.1, training.watch(fresh_state()))
    same((watched.params, watched.stats), (stopped.state.params, stopped.state.stats))
    assert differ(watched.params, watched.state.params)


def test_a_loss_that_is_nan_never_stops_early():
    watched = training.watch(fresh_state())
    broken = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), start()[0])
    broken = watched._replace(state=watched.state._replace(params=broken))
    after, seen = chunk(1)(KEY, 0.1, broken)
    assert np.isnan(seen["loss"][0])
    assert after.step == 0 and after.loss == np.inf
    same(after.params, watched.params)


def test_the_first_of_equal_losses_is_the_early_stop():
    # a rate of zero: all evaluations see the same parameters; statistics still move, so the state
    # has none
    recipe = RECIPE._replace(model=FIXED, loss=losses.classification(FIXED, prepare), every=2)
    params = {"w": jnp.ones(CLASSES)}
    state = training.init(params, {}, masked(recipe.optimizer(0.0), masks.ones(params)))
    watched, seen = training.train_chunk(
        recipe, KEY, 0.0, training.watch(state), DATA, evaluations=3
    )
    assert len(set(seen["loss"].tolist())) == 1
    assert watched.step == 2


FIXED = Model(
    lambda key: ({}, {}),
    lambda p, s, x, key=None, train=False: (jnp.broadcast_to(p["w"], (len(x), CLASSES)), s),
)


def test_test_data_are_looked_at_after_each_group_of_looks():
    recipe = RECIPE._replace(every=5, evaluations_per_test=2)
    watched = training.watch(fresh_state())
    run = partial(training.train_chunk, recipe, KEY, 0.01, watched)
    seen = run(DATA._replace(test=TRAIN), 4)[1]
    same({k: v for k, v in seen.items() if k != "test_accuracy"}, run(DATA, 4)[1])
    middle, end = (run(DATA, evaluations)[0].state for evaluations in (2, 4))
    expected = [evaluate(1000)(s.params, s.stats, TRAIN)["accuracy"] for s in (middle, end)]
    np.testing.assert_allclose(seen["test_accuracy"], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="multiple of evaluations_per_test=2"):
        run(DATA._replace(test=TRAIN), 3)


# --- rewinding -----------------------------------------------------------------------------------


def test_a_rewound_training_sees_the_data_and_the_rate_of_the_steps_that_it_goes_on_from():
    # plain sgd has no moments: begun at step 7 with the parameters of step 7, it is the same
    # training, dropout, order and falling learning rate included
    shape = optimizers.decay_shape("cosine", 20)
    recipe = RECIPE._replace(
        optimizer=lambda rate: optimizers.optimizer("sgd", rate, shape), every=1
    )
    begin = recipe, KEY, 0.1, *start(), mask_of(0), DATA
    whole, _ = training.train(*begin, 20, keep_at=(7,))
    params, stats = jax.tree.map(lambda leaf: leaf[0], whole.kept)
    rewound, _ = training.train(recipe, KEY, 0.1, params, stats, mask_of(0), DATA, 13, start=7)
    same(rewound.state, whole.state)


def test_a_rewound_optimiser_begins_anew():
    state = fresh_state(step=9)
    (adam,) = [part for part in state.opt_state.inner if isinstance(part, optax.ScaleByAdamState)]
    (rate,) = [
        part for part in state.opt_state.inner if isinstance(part, optax.ScaleByScheduleState)
    ]
    assert adam.count == 0 and rate.count == 9 and state.step == 9


RATE = optax.cosine_decay_schedule(1.0, 20)
HALF = {"fc": "one", "bn": "other", "out": "one"}
WRAPPED = {
    "chain": lambda: optax.chain(optax.identity(), optax.sgd(RATE)),
    "injected": lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=RATE),
    "masked": lambda: optax.masked(
        optax.sgd(RATE), lambda tree: jax.tree.map(lambda _: True, tree)
    ),
    "partition": lambda: optax.partition(
        {"one": optax.sgd(RATE), "other": optax.inject_hyperparams(optax.sgd)(RATE)}, HALF
    ),
    "if finite": lambda: optax.apply_if_finite(optax.sgd(RATE), 3),
    "conditionally": lambda: optax.conditionally_transform(
        optax.sgd(RATE), lambda step: step >= 7, forward_extra_args=False
    ),
    "schedule free": lambda: optax.contrib.schedule_free(optax.sgd(RATE), RATE),
}


def test_an_evaluation_in_parts_is_the_mean_over_the_valid_examples():
    params, stats = start()
    split = Split(VALIDATION.images[:7], VALIDATION.labels[:7])
    whole = training.evaluate(MODEL, prepare, params, stats, split)
    # the seven examples, and two rows of another label and of one that is no class
    images = np.concatenate([split.images, split.images[:2]]).reshape(3, 3, *split.images.shape[1:])
    labels = np.concatenate([split.labels, [split.labels[0] + 1, -9]]).reshape(3, 3)
    valid = (np.arange(9) < 7).reshape(3, 3)
    total = training.no_totals()
    for first, last in ((0, 1), (1, 3)):
        parts = Split(images[first:last], jnp.asarray(labels[first:last], jnp.int32))
        total = training.evaluate_parts(
            MODEL, prepare, params, stats, parts, valid[first:last], total
        )
    assert int(total.examples) == 7
    found = training.mean_of(total)
    assert found["accuracy"] == whole["accuracy"]
    np.testing.assert_allclose(found["loss"], whole["loss"], rtol=1e-6)
    assert np.isnan(training.mean_of(training.no_totals())["loss"])


@pytest.mark.parametrize("name", WRAPPED)
def test_a_rewound_training_has_the_rates_of_its_step_whatever_wraps_them(name):
    optimizer, (params, stats) = WRAPPED[name](), start()
    state = training.init(params, stats, masked(optimizer, masks.ones(params)), step=7)
    gradient = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(gradient, state.opt_state.inner, params)
    for leaf in jax.tree.leaves(updates):
        np.testing.assert_allclose(leaf, -RATE(7), rtol=1e-5)


def test_injected_rates_are_told_as_they_are_at_the_step():
    optimizer = optax.chain(optax.inject_hyperparams(optax.adam)(RATE, b1=0.8))
    params, stats = start()

    def begun(step):
        sparse = masked(optimizer, masks.ones(params))
        return training.init(params, stats, sparse, step=step).opt_state.inner[0]

    for state in (begun(7), jax.jit(begun)(7)):
        np.testing.assert_allclose(state.hyperparams["learning_rate"], RATE(7), rtol=1e-6)
        np.testing.assert_allclose(state.hyperparams["b1"], 0.8, rtol=1e-6)
        assert state.count == 7 and state.inner_state[0].count == 0


def counting():
    return optax.GradientTransformation(
        lambda params: (jnp.int32(0),), lambda updates, state, params: (updates, (state[0] + 1,))
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: optax.MultiSteps(optax.sgd(RATE), 3).gradient_transformation(), "MultiSteps"),
        (lambda: optax.chain(counting(), optax.sgd(0.1)), "counts steps"),
    ],
)
def test_a_rewinding_whose_steps_cannot_be_told_is_refused_in_one_line(make, said):
    params, stats = start()
    training.init(params, stats, masked(make(), masks.ones(params)))
    with pytest.raises(ValueError, match=said) as error:
        training.init(params, stats, masked(make(), masks.ones(params)), step=7)
    assert "\n" not in str(error.value)


# --- whole runs ----------------------------------------------------------------------------------


def whole_run(row, data):
    key, mask, rate = row
    return training.train(RECIPE, key, rate, *start(), mask, data, 30, keep_at=(0, 10, 30))


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
    made = [run(row(i), DATA) for i in range(3)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)


def test_mapped_runs_over_masks_and_rates_have_the_bits_of_their_solo_runs():
    axis = runs.axis("map", 1, jax.local_devices()[:1])
    same(runs.over_runs(whole_run, axis, rows(), DATA), solo())


def test_runs_whose_batches_are_divided_over_devices_agree_with_their_solo_runs():
    # batches of 6, and 11 validation images, on four devices: batch norm sees whole batches
    axis = runs.axis("data", devices=jax.local_devices())
    divided, alone = runs.over_runs(whole_run, axis, rows(), DATA), solo()

    def close(rtol, atol, *pair):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), *pair)

    ten_steps = [jax.tree.map(lambda leaf: leaf[:, 1], pair[0].kept) for pair in (divided, alone)]
    close(1e-4, 1e-6, *ten_steps)
    close(2e-2, 1e-2, divided, alone)  # thirty steps: a ReLU at zero goes either way by rounding


@pytest.mark.parametrize("part", ["training", "evaluation"])
def test_devices_that_share_a_run_share_its_training_and_its_evaluation(part):
    axis = runs.axis("data", devices=jax.local_devices())

    def evaluated(row, data):
        return training.evaluate(MODEL, prepare, *start(), data.validation)

    one = whole_run if part == "training" else evaluated
    placed = runs.split(rows(), axis).blocks[0], runs.share(DATA, axis).copies[0]
    assert "all-reduce" in runs.program(one, axis).lower(*placed).compile().as_text()


def test_keep_at_returns_the_parameters_and_statistics_of_these_steps():
    # at 0 the masked start; at 10 a run of ten steps alone; at 30 the end
    watched, _ = solo()
    state, (kept, kept_stats) = watched.state, watched.kept
    params, stats = start()
    for i in range(3):
        at = jax.tree.map(lambda leaf, i=i: leaf[i], (kept, kept_stats))
        steps = [jax.tree.map(lambda leaf, t=t: leaf[t], at) for t in range(3)]
        same(steps[0], (masks.apply(mask_of(i), params), stats))
        same(steps[2], jax.tree.map(lambda leaf, i=i: leaf[i], (state.params, state.stats)))
    key, mask, rate = row(0)
    begun = training.watch(training.init(params, stats, masked(RECIPE.optimizer(rate), mask)))
    stopped = chunk(1, 10)(key, rate, begun)[0].state
    at_ten = jax.tree.map(lambda leaf: leaf[0, 1], (kept, kept_stats))
    same(at_ten, (stopped.params, stopped.stats))
    assert differ(at_ten[0], jax.tree.map(lambda leaf: leaf[0], state.params))


def test_metrics_of_a_run_are_stacked_looks_at_the_validation_data():
    watched, metrics = solo()
    assert metrics["step"].tolist() == [[10, 20, 30]] * 3
    assert metrics["train_loss"].shape == (3, 3, 10)
    assert metrics["loss"].shape == metrics["accuracy"].shape == (3, 3)
    assert watched.state.step.tolist() == [30] * 3


@pytest.mark.parametrize(
    ("steps", "keep_at"), [(25, ()), (30, (5,)), (30, (40,)), (30, (0, 15)), (30, (-10,))]
)
def test_steps_that_are_no_multiple_of_every_or_past_the_end_raise(steps, keep_at):
    params, stats = start()
    bad = steps if steps == 25 else keep_at[-1]
    with pytest.raises(ValueError, match=f"step {bad}") as error:
        training.train(RECIPE, KEY, 0.1, params, stats, mask_of(0), DATA, steps, keep_at)
    assert "\n" not in str(error.value)


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
    state = training.init(params, stats, masked(optimizer, mask_of(0)))
    zero = jax.tree.map(jnp.zeros_like, params)

    def loss(key, number):
        return float(step(key, state._replace(step=jnp.int32(number)), index, zero)[1]["loss"][0])

    seen = {loss(key, number) for key in (KEY, jax.random.key(18)) for number in (0, 1, 7, 8)}
    assert len(seen) == 8
    assert loss(KEY, 7) in seen


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_labels_outside_the_classes_are_refused_in_one_line_or_make_all_nan(label):
    images, labels = TRAIN
    bad = Split(images, labels.at[4].set(label))
    said = rf"a label is {label}: labels must be whole numbers from 0 to {CLASSES - 1}, .*$"
    logits = jax.random.normal(KEY, (N, CLASSES))
    for measure in (losses.cross_entropy, losses.accuracy, losses.error_rate):
        with pytest.raises(ValueError, match=said):
            measure(logits, np.asarray(bad.labels))
        assert np.isnan(jax.jit(measure)(logits, bad.labels))
        assert np.isfinite(jax.jit(measure)(logits, labels))
    slope = jax.jit(jax.grad(losses.cross_entropy))(logits, bad.labels)
    assert np.isnan(slope[4]).all()
    with pytest.raises(ValueError, match=said):
        training.evaluate(MODEL, prepare, *start(), bad)
    for data in (training.Splits(bad, VALIDATION), training.Splits(TRAIN, bad)):
        with pytest.raises(ValueError, match=said):
            training.train(RECIPE, KEY, 0.1, *start(), mask_of(0), data, 10)


def test_the_loss_of_half_precision_logits_is_found_in_single():
    logits, labels = jnp.linspace(-4, 4, 3 * N).reshape(N, 3), TRAIN.labels
    half = logits.astype(jnp.float16)
    got = losses.cross_entropy(half, labels)
    assert got.dtype == jnp.float32
    assert got == losses.cross_entropy(half.astype(jnp.float32), labels)


def test_smoothed_labels_spread_their_share_over_all_classes():
    # log-probabilities -1, -2 and the rest: log(1 - e^-1 - e^-2) = -0.699598. With smoothing 0.3
    # the target of label 1 is (0.1, 0.8, 0.1): 0.1 * 1 + 0.8 * 2 + 0.1 * 0.699598
    logits = jnp.array([[-1.0, -2.0, -0.699598]]) + 5
    got = losses.cross_entropy(logits, jnp.array([1]), smoothing=0.3)
    np.testing.assert_allclose(got, 1.7699598, rtol=1e-6)
    assert losses.cross_entropy(logits, jnp.array([1])) == pytest.approx(2)
    assert np.isnan(jax.jit(partial(losses.cross_entropy, smoothing=0.3))(logits, jnp.array([3])))
    # in training alone
    model = Model(lambda key: ({}, {}), lambda p, s, x, key=None, train=False: (logits, s))
    loss = losses.classification(model, prepare, smoothing=0.3)
    one = Split(jnp.zeros((1, 2, 2, 1)), jnp.array([1]))
    np.testing.assert_allclose(loss({}, {}, one, KEY)[0], got)
    assert training.evaluate(model, prepare, {}, {}, one)["loss"] == pytest.approx(2)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_label_smoothing_outside_its_range_is_refused_in_one_line(smoothing):
    with pytest.raises(ValueError, match=r"^label smoothing .*: must be 0 or more and below 1$"):
        losses.cross_entropy(jnp.zeros((1, 3)), jnp.array([1]), smoothing=smoothing)


def test_classification_adds_the_penalty_to_the_loss():
    # softmax of zeros over three classes: log 3, plus 2 * |w|^2 = 2 * (1 + 4)
    model = Model(lambda key: ({}, {}), lambda p, s, x, key, train: (jnp.zeros((2, 3)), {"n": 1}))
    loss = losses.classification(model, prepare, lambda p: 2 * jnp.sum(p["w"] ** 2))
    batch = Split(jnp.zeros((2, 2, 2, 1)), jnp.array([0, 1]))
    value, (stats, metrics) = jax.jit(loss)({"w": jnp.array([1.0, 2.0])}, {}, batch, KEY)
    np.testing.assert_allclose(value, np.log(3) + 10, rtol=1e-6)
    np.testing.assert_allclose(metrics["accuracy"], 0.5)  # the first class is the guess
    assert metrics["loss"] == value and stats == {"n": 1}


def test_a_batch_in_parts_has_the_whole_batchs_gradient():
    model = nets.functional(nets.make("lenet300_100", widths=(4, 3), classes=3), (2, 2, 1))
    loss = losses.classification(model, prepare)
    params, _ = jax.jit(model.init)(KEY)
    optimizer = masked(optimizers.optimizer("sgd", 1.0), masks.ones(params))
    state = training.init(params, {}, optimizer)
    batch = jax.tree.map(lambda a: a[:6], TRAIN)
    run = jax.jit(partial(training.step, loss, optimizer), static_argnames="parts")
    (whole, seen), (cut, own) = (run(KEY, state, batch, parts=n) for n in (1, 3))
    for x, y in zip(*map(jax.tree.leaves, (cut.params, whole.params)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(own["loss"], seen["loss"], rtol=1e-5)
    np.testing.assert_allclose(own["accuracy"], seen["accuracy"], rtol=1e-5)


def test_batch_norm_sees_each_part_of_a_batch_on_its_own():
    # statistics 0.9 m + 0.1 x for each half's mean x, one half after the other
    (params, stats), batch = start(), jax.tree.map(lambda a: a[:6], TRAIN)
    optimizer = masked(optimizers.optimizer("sgd", 0.0), masks.ones(params))
    state = training.init(params, stats, optimizer)
    loss = losses.classification(MODEL, prepare)
    got, _ = jax.jit(partial(training.step, loss, optimizer, parts=2))(KEY, state, batch)
    mean = stats["bn"]["mean"]
    for half in (slice(0, 3), slice(3, 6)):
        inputs = prepare(batch.images[half]).reshape(3, -1) @ params["fc"]["kernel"]
        mean = 0.99 * mean + 0.01 * inputs.mean(0)
    np.testing.assert_allclose(got.stats["bn"]["mean"], mean, rtol=1e-4, atol=1e-6)


def test_parts_that_do_not_divide_the_batch_are_refused_in_one_line():
    state = fresh_state()
    optimizer = masked(RECIPE.optimizer(0.01), mask_of(0))
    with pytest.raises(ValueError, match=r"^a batch of 30 can't be computed in 4 equal parts$"):
        training.step(LOSS, optimizer, KEY, state, TRAIN, 4)


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


@pytest.mark.parametrize(
    ("warmup", "expected"), [(0, [1, 1, 1, 1, 0.1]), (4, [0.25, 0.5, 0.75, 1, 0.1])]
)
def test_warm_up_stands_in_front_of_drops_that_keep_their_places(warmup, expected):
    # sgd on a gradient of one moves by the rate, 1 times the shape; the drop comes after 4 of 8
    shape = optimizers.decay_shape("steps", 8, drops=(0.5,))
    optimizer = optimizers.optimizer("sgd", 1.0, shape, warmup=jnp.int32(warmup))
    state, moves = optimizer.init(jnp.float32(0)), []
    for _ in range(5):
        move, state = optimizer.update(jnp.float32(1), state)
        moves.append(-float(move))
    np.testing.assert_allclose(moves, expected, rtol=1e-5)


def test_unknown_optimisers_and_shapes_raise_one_line():
    for call in (
        lambda: optimizers.optimizer("lion", 0.1),
        lambda: optimizers.decay_shape("steep", 10),
    ):
        with pytest.raises(ValueError, match=r"unknown .* there are") as error:
            call()
        assert "\n" not in str(error.value)


def test_statistics_of_another_tree_are_refused_in_one_line():
    params, stats = start()
    optimizer, batch = optimizers.optimizer("sgd", 0.1), Split(TRAIN.images[:3], TRAIN.labels[:3])
    batches = jax.tree.map(lambda a: a[None], batch)
    for given, said in (
        (freeze(stats), "the new statistics holds a dict where the state's hold a FrozenDict"),
        ({"bn": {"mean": stats["bn"]["mean"]}}, "of the new statistics isn't in the state's"),
    ):
        state = training.init(params, given, masked(optimizer, masks.ones(params)))
        with pytest.raises(ValueError, match=said) as error:
            training.advance(LOSS, optimizer, KEY, state, batches)
        assert "\n" not in str(error.value)
