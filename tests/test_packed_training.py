"""Packed training: the numbers of masked training, one program for all masks."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import losses, masks, nets, runs, training
from jaxtickets.compress import packed_training, segments
from jaxtickets.dynamic import rigl
from jaxtickets.types import Split

KEY, SHAPE, LAYERS = jax.random.key(0), (5, 4, 1), ("fc1", "fc2", "out")
MODEL = nets.functional(nets.make("lenet300_100", widths=(30, 20)), SHAPE)
EVERY, MOVES = 17, 3
OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.1, momentum=0.9)),
    "adamw": optax.adamw(optax.cosine_decay_schedule(1e-2, 60), weight_decay=1e-2),
}


def loss_of(model):
    return losses.classification(model, lambda images: images)


@pytest.fixture(scope="module")
def problem():
    """Parameters, a mask whose output layer is too dense to pack, and batches of 20 images."""
    params, _ = MODEL.init(KEY)
    names = masks.prunable(params)
    keep = {"fc1/kernel": 110, "fc2/kernel": 60, "out/kernel": 90}
    mask = masks.random(jax.random.key(1), params, names, keep)
    draw = np.random.default_rng(0)
    images = draw.standard_normal((MOVES * EVERY, 20, *SHAPE)).astype("f")
    labels = draw.integers(0, 10, (MOVES * EVERY, 20)).astype("i")
    return params, names, mask, Split(images, labels)


def close(a, b):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5), a, b)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_packed_training_with_moves_is_masked_training_and_is_traced_once(problem, name):
    params, names, mask, batches = problem
    inner = OPTIMIZERS[name]
    ones = {path: np.full(MOVES, int(n)) for path, n in masks.counts(mask, names).items()}
    plan = rigl.plan(MOVES, {p: n[0] for p, n in ones.items()}, {p: n[0] for p, n in ones.items()})
    optimizer = rigl.rigl(inner, mask, names, plan, EVERY)
    net = packed_training.packed_net(MODEL, LAYERS, loss_of, mask, 0.2)
    assert net.capacity == {"fc1/kernel": 110, "fc2/kernel": 60}

    def move(state, batch):
        gradient, _ = jax.grad(loss_of(MODEL), has_aux=True)(state.params, {}, batch, KEY)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params, move=True)
        return state._replace(
            params=optax.apply_updates(state.params, updates), opt_state=opt_state
        )

    @jax.jit
    def masked(state, batches):
        args = loss_of(MODEL), optimizer, KEY, state, batches
        state, metrics = training.advance(*args, move=False)
        return state, move(state, jax.tree.map(lambda a: a[-1], batches)), metrics

    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def packed(state, batches):
        state, metrics = packed_training.advance(net, inner, KEY, state, batches)
        return state, move(state, jax.tree.map(lambda a: a[-1], batches)), metrics

    dense = mine = training.init(params, {}, optimizer)
    for i in range(MOVES):
        part = jax.tree.map(lambda a, i=i: a[i * EVERY : (i + 1) * EVERY], batches)
        dense_end, dense, wanted = masked(dense, part)
        end, mine, metrics = packed(mine, part)
        close(end, dense_end)
        close(metrics, wanted)
        chex.assert_trees_all_equal(mine.mask, dense.mask)
        chex.assert_trees_all_equal(end.params, masks.apply(end.mask, end.params))
    assert int(masks.hamming(mine.mask, mask, names)) > 0
    assert int(mine.opt_state.calls) == MOVES * (EVERY + 1)


def test_nets_of_ever_more_room_train_masks_whose_counts_fall(problem):
    params, names, _, batches = problem
    nets = packed_training.packed_nets(MODEL, LAYERS, loss_of, masks.ones(params), (0.1, 0.5))
    assert [net.capacity for net in nets] == [
        {"fc1/kernel": 60, "fc2/kernel": 60, "out/kernel": 20},
        {"fc1/kernel": 300, "fc2/kernel": 300, "out/kernel": 100},
        {},
    ]
    few = jax.tree.map(lambda a: a[:5], batches)
    inner = optax.sgd(0.1, momentum=0.9)
    steps = jax.jit(partial(packed_training.advance_in, nets, inner, KEY))
    for keep in (1400, 700, 250, 60):
        mask = masks.random(jax.random.key(keep), params, names, keep, floor=1)
        optimizer = packed_training.masked(inner, mask)
        state = training.init(params, {}, optimizer)
        wanted = training.advance(loss_of(MODEL), optimizer, KEY, state, few)
        found = steps(state, few)
        close(found, wanted)
        chex.assert_trees_all_equal(found[0].params, masks.apply(mask, found[0].params))


def test_a_batch_of_runs_trains_as_each_run_does(problem):
    params, names, mask, batches = problem
    few = jax.tree.map(lambda a: a[:3], batches)
    other = masks.shuffle(jax.random.key(2), mask, names)
    net = packed_training.packed_net(MODEL, LAYERS, loss_of, mask, 0.2)

    def run(mask):
        state = training.init(params, {}, packed_training.masked(optax.sgd(0.1), mask))
        return packed_training.advance(net, optax.sgd(0.1), KEY, state, few)[0].params

    both = jax.jit(jax.vmap(run))(runs.stack([mask, other]))
    for i, one in enumerate((mask, other)):
        close(jax.tree.map(lambda a, i=i: a[i], both), jax.jit(run)(one))


def test_padding_never_moves_whatever_the_updates(problem):
    params, _, mask, batches = problem
    noisy = optax.chain(optax.add_noise(1.0, 0.5, jax.random.key(3)), optax.sgd(0.1))
    net = packed_training.packed_net(MODEL, LAYERS, loss_of, mask, 0.2)
    tables = packed_training.tables(mask, net.capacity)
    state = training.init(params, {}, packed_training.masked(noisy, mask))
    packed = packed_training.pack_state(tables, state)
    loss = loss_of(packed_training.packed_model(MODEL, LAYERS, tables))
    optimizer = packed_training.masked(noisy, packed.mask)
    take = jax.jit(partial(training.step, loss, optimizer))
    packed, _ = take(KEY, packed, Split(*(a[0] for a in batches)))
    for path, table in tables.items():
        (weights,) = masks.pick(packed.params, (path,))
        assert not np.any(np.where(table.kept, 0, weights))
        assert np.all(np.where(table.kept, weights, 1))
    dense = packed_training.unpack_state(tables, packed, state)
    chex.assert_trees_all_equal(dense.params, masks.apply(mask, dense.params))


def test_the_model_draws_packed_parameters(problem):
    _, _, mask, batches = problem
    tables = packed_training.tables(mask, {"fc1/kernel": 110})
    model = packed_training.packed_model(MODEL, LAYERS, tables)
    params, stats = model.init(KEY)
    dense = packed_training.unpack(tables, params)
    wanted = MODEL.init(KEY)[0]
    wanted["fc1"]["kernel"] = np.where(mask["fc1"]["kernel"], wanted["fc1"]["kernel"], 0)
    chex.assert_trees_all_equal(dense, wanted)
    logits, same = model.apply(params, stats, batches.images[0])
    close(logits, MODEL.apply(dense, stats, batches.images[0])[0])
    assert same == stats == {}


def test_nets_and_optimisers_that_cannot_be_packed_are_refused(problem):
    params, names, mask, batches = problem
    for layers, words in {
        ("fc1", "out"): "the layers are fc1, out, the mask's",
        ("fc2", "fc1", "out"): r"out/kernel has shape \(20, 10\) after 30 units",
    }.items():
        with pytest.raises(ValueError, match=words):
            packed_training.packed_net(MODEL, layers, loss_of, mask)
    normed = {**mask, "out": {**mask["out"], "scale": np.ones(10, bool)}}
    with pytest.raises(ValueError, match=r"out has bias, kernel, scale: not a dense layer"):
        packed_training.packed_net(MODEL, LAYERS, loss_of, normed)
    factored = optax.adafactor(1e-2, min_dim_size_to_factor=2)
    net = packed_training.packed_net(MODEL, LAYERS, loss_of, mask, 0.2)
    state = training.init(params, {}, packed_training.masked(factored, mask))
    with pytest.raises(ValueError, match="a moving mask needs one number for each weight"):
        packed_training.advance(net, factored, KEY, state, batches)
    whole = masks.put(mask, names, [jnp.ones_like(leaf) for leaf in masks.pick(mask, names)])
    with pytest.raises(ValueError, match="keeps 600 weights, more than the capacity 110"):
        packed_training.tables(whole, net.capacity)


def test_too_many_weights_are_nan_under_tracing():
    mask = np.ones((3, 2), bool)
    table = jax.jit(partial(segments.segments, capacity=5))(mask)
    assert not table.fits
    assert np.isnan(segments.pack(table, np.ones((3, 2), "f"))).all()


def test_tables_by_hand():
    # output 0 keeps inputs 0 to 9, in two segments; output 1 none; output 2 inputs 3 and 9
    mask = np.zeros((10, 3), bool)
    mask[:, 0] = True
    mask[[3, 9], 2] = True
    for capacity in (12, 14):  # the second has room for two weights more
        table = jax.jit(partial(segments.segments, capacity=capacity))(mask)
        rows = (capacity + 7 * 3) // 8
        assert table.inputs.shape == (rows, 8)
        np.testing.assert_array_equal(table.inputs[0], range(8))
        np.testing.assert_array_equal(table.inputs[1], [8, 9, 0, 0, 0, 0, 0, 0])
        np.testing.assert_array_equal(table.inputs[2], [3, 9, 0, 0, 0, 0, 0, 0])
        np.testing.assert_array_equal(table.kept.sum(1), [8, 2, 2, 0][:rows])
        np.testing.assert_array_equal(table.output, [0, 0, 2, 2][:rows])
        np.testing.assert_array_equal(table.fan_in, [10, 0, 2])
        np.testing.assert_array_equal(table.fan_out, np.where(np.isin(range(10), [3, 9]), 2, 1))
        # inputs 3 and 9 go to outputs 0 and 2; their weights are slots 3 and 9, 16 and 17
        np.testing.assert_array_equal(table.outputs[3, :2], [0, 2])
        np.testing.assert_array_equal(table.slots[3, :3], [3, 16, 8 * rows])
        np.testing.assert_array_equal(table.slots[9, :3], [9, 17, 8 * rows])
        np.testing.assert_array_equal(table.input[:10], range(10))
        assert table.fits
