"""The run axis: the same bits however runs are cut and placed. Optimisers by their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import optimizers, runs
from jaxtickets.optimizers import decay_shape, optimizer

# --- the run axis --------------------------------------------------------------------------------


def test_on_cpus_runs_are_mapped_one_by_one(cpus):
    assert runs.axis(devices=cpus) == runs.Axis("map", 1, cpus)
    assert runs.axis("vmap", devices=cpus).width == runs.VMAP_WIDTH == 32
    assert runs.axis("map", 3, cpus[:2]) == runs.Axis("map", 3, cpus[:2])


def test_all_local_devices_are_used_by_default():
    assert runs.axis("map").devices == tuple(jax.local_devices())


def test_an_unknown_mode_or_a_negative_width_is_an_error():
    with pytest.raises(ValueError, match="unknown run mode 'pmap': auto, map, vmap, shard or data"):
        runs.axis("pmap")
    with pytest.raises(ValueError, match="block width -1 is negative"):
        runs.axis("map", -1)


def test_splitting_pads_with_the_last_row_and_joining_takes_it_off(cpus):
    axis = runs.axis("map", 2, cpus[:2])
    rows = {"x": np.arange(5), "key": jax.random.split(jax.random.key(0), 5)}
    blocks = runs.split(rows, axis)
    assert blocks.runs == 5
    # Three blocks, on devices 0, 1, 0; the last holds row 4 twice.
    golden = [[0, 1], [2, 3], [4, 4]]
    np.testing.assert_array_equal([block["x"] for block in blocks.blocks], golden)
    assert [block["x"].device for block in blocks.blocks] == [cpus[0], cpus[1], cpus[0]]
    joined = runs.join(blocks)
    np.testing.assert_array_equal(joined["x"], rows["x"])
    assert (joined["key"] == rows["key"]).all()
    assert joined["x"].device == jax.local_devices()[0]


@pytest.mark.parametrize(
    "rows",
    [
        {"a": np.zeros(3), "b": np.zeros((4, 3))},
        {"a": np.zeros((0, 2))},
        {},
    ],
    ids=["disagree", "none", "no leaf"],
)
def test_rows_that_disagree_or_are_none_are_refused(rows):
    with pytest.raises(ValueError, match="disagree on the number of runs, or there is none"):
        runs.split(rows, runs.axis("map"))


def test_what_is_shared_is_on_every_device(cpus):
    copies = runs.share({"data": np.arange(3)}, runs.axis("map", devices=cpus)).copies
    assert [copy["data"].device for copy in copies] == list(cpus)


def test_pairs_are_unzipped(cpus):
    axis = runs.axis("map", 2, cpus[:2])
    call = runs.batch(lambda x: (x + 1, {"twice": 2 * x}), axis)
    left, right = runs.unzip(call(runs.split(np.arange(3), axis)))
    np.testing.assert_array_equal(runs.join(left), [1, 2, 3])
    np.testing.assert_array_equal(runs.join(right)["twice"], [0, 2, 4])


def test_devices_that_divide_examples_hold_their_parts_if_these_are_equal(cpus):
    batches = {"images": np.arange(24).reshape(2, 6, 2), "valid": np.ones((2, 6), bool)}
    axes = [runs.axis(mode, devices=cpus[:n]) for mode, n in (("data", 2), ("map", 2), ("data", 4))]
    held = [
        [shard.data.shape for shard in copy["images"].addressable_shards]
        for axis in axes
        for copy in runs.share(batches, axis, examples=1).copies
    ]
    # by examples; whole ones; whole ones, as 6 examples are no multiple of 4
    assert held == [[(2, 3, 2)] * 2, [(2, 6, 2)], [(2, 6, 2)], [(2, 6, 2)] * 4]


def test_parts_of_blocks_of_the_same_rows_are_put_together(cpus):
    axis = runs.axis("map", 2, cpus[:2])
    left, right = (runs.split({"x": np.arange(3) + k, "y": np.arange(3)}, axis) for k in (0, 5))
    found = runs.join(runs.pick(lambda a, b: [b["x"], a["x"]], left, right))
    np.testing.assert_array_equal(found, [[5, 6, 7], [0, 1, 2]])
    with pytest.raises(ValueError, match="blocks of different rows"):
        runs.pick(lambda a, b: a, left, runs.split(np.arange(2), axis))


DATA = np.random.default_rng(0).standard_normal((19, 13)).astype("f")
ROWS = {
    "start": np.random.default_rng(1).standard_normal((5, 13 * 17 + 17 * 3)).astype("f"),
    "rate": np.array([0.1, 0.03, 0.5, 0.2, 0.07], "f"),
}


def one_run(row, data):
    """A few steps of descent: sums whose last bits depend on their order."""
    data = runs.divide(data)

    def loss(w):
        return jnp.mean((jnp.tanh(data @ w[0]) @ w[1] - 1) ** 2)

    def step(w, _):
        value, slope = jax.value_and_grad(loss)(w)
        return jax.tree.map(lambda a, g: a - row["rate"] * g, w, slope), value

    first, second = jnp.split(row["start"], [13 * 17])
    start = (first.reshape(13, 17), second.reshape(17, 3))
    weights, values = jax.lax.scan(step, start, None, length=4)
    return {"weights": weights, "values": values}


def row_of(rows, i):
    return jax.tree.map(lambda leaf: leaf[i], rows)


@pytest.fixture(scope="module")
def solo():
    """The five runs, each on its own."""
    with jax.default_device(jax.devices("cpu")[0]):
        run = jax.jit(one_run)
        results = [jax.device_get(run(row_of(ROWS, i), DATA)) for i in range(5)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *results)


@pytest.mark.parametrize("width", [1, 2])
def test_a_program_is_compiled_once_for_all_devices_of_a_cpu(width, cpus, compiled, solo):
    axis = runs.axis("map", width, cpus)
    rows, data, shorter = runs.split(ROWS, axis), *(runs.share(d, axis) for d in (DATA, DATA[:11]))

    def new_run(row, data):  # no other test has compiled it
        return one_run(row, data) | {"width": jnp.int32(width)}

    call = runs.batch(new_run, axis)
    compiled.update(cache_misses=0, cache_hits=0)
    lanes = min(4, len(rows.blocks))
    done = [call(rows, data), call(rows, data)]
    assert compiled == {"cache_misses": 1, "cache_hits": lanes - 1}
    call(rows, shorter)  # other shapes are another program
    assert compiled == {"cache_misses": 2, "cache_hits": 2 * (lanes - 1)}
    for blocks in done:
        assert [block["values"].device for block in blocks.blocks[:lanes]] == [*cpus[:lanes]]
        found = runs.join(blocks)
        del found["width"]
        jax.tree.map(np.testing.assert_array_equal, found, solo)


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_mapped_runs_have_the_bits_of_their_solo_runs(width, devices, cpus, solo):
    axis = runs.axis("map", width, cpus[:devices])
    jax.tree.map(np.testing.assert_array_equal, runs.over_runs(one_run, axis, ROWS, DATA), solo)


def test_runs_at_once_agree_with_solo_runs(cpus, solo):
    together = runs.over_runs(one_run, runs.axis("vmap", 3, cpus[:2]), ROWS, DATA)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), together, solo
    )


@pytest.mark.parametrize("mode", ["shard", "data"])
@pytest.mark.parametrize(("devices", "width"), [(1, 1), (4, 1), (3, 2)])
def test_runs_in_one_program_over_devices_agree_with_solo_runs(mode, devices, width, cpus, solo):
    axis = runs.axis(mode, width, cpus[:devices])
    together = runs.over_runs(one_run, axis, ROWS, DATA)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), together, solo
    )


def test_one_program_over_devices_has_rows_on_each(cpus):
    axis = runs.axis("shard", 2, cpus[:3])
    blocks = runs.split(np.arange(8), axis)  # one block of six, then two and padding
    assert [len(block) for block in blocks.blocks] == [6, 6]
    placed = runs.batch(lambda x, y: x + y, axis)(blocks, runs.share(np.int32(10), axis))
    assert [s.data.shape for s in placed.blocks[0].addressable_shards] == [(2,)] * 3
    np.testing.assert_array_equal(runs.join(placed), np.arange(10, 18))


COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("map", set()), ("vmap", set()), ("shard", set()), ("data", {"all-reduce"})],
)
def test_devices_talk_only_where_they_share_a_run(mode, expected, cpus):
    axis = runs.axis(mode, 2, cpus[:4])
    arguments = runs.split(ROWS, axis).blocks[0], runs.share(DATA, axis).copies[0]
    text = runs.program(one_run, axis).lower(*arguments).compile().as_text()
    assert {
        name for name in COLLECTIVES if f"{name}(" in text or f"{name}-start(" in text
    } == expected


def test_a_run_that_is_divided_over_devices_is_whole_on_each(cpus):
    axis = runs.axis("data", devices=cpus[:3])
    done = runs.batch(one_run, axis)(runs.split(ROWS, axis), runs.share(DATA, axis))
    assert len(done.blocks) == 5
    shards = done.blocks[0]["weights"][0].addressable_shards
    assert [shard.device for shard in shards] == list(cpus[:3])
    assert [shard.data.shape for shard in shards] == [(1, 13, 17)] * 3


def test_a_turn_takes_a_block_of_each_lane(cpus):
    turns = {mode: runs.turn(runs.axis(mode, 2, cpus[:3])) for mode in runs.MODES}
    assert turns == {"map": 6, "vmap": 6, "shard": 6, "data": 2}


def test_results_stay_on_the_devices_of_their_blocks(cpus):
    axis = runs.axis("map", 2, cpus[:3])
    rows, ten = runs.split(np.arange(8), axis), runs.share(np.int32(10), axis)
    placed = runs.batch(lambda x, y: x + y, axis)(rows, ten)
    assert [block.device for block in placed.blocks] == [*cpus[:3], cpus[0]]
    np.testing.assert_array_equal(runs.join(placed), np.arange(10, 18))


@pytest.mark.parametrize(
    ("mode", "width"), [("map", 1), ("map", 2), ("vmap", 2), ("shard", 1), ("data", 1)]
)
def test_keys_are_rows_like_any_other(mode, width, cpus):
    keys = jax.random.split(jax.random.key(7), 3)
    seen = runs.over_runs(jax.random.key_data, runs.axis(mode, width, cpus[:2]), keys)
    np.testing.assert_array_equal(seen, jax.random.key_data(keys))


# --- optimisers ----------------------------------------------------------------------------------

# One weight, 1 at first; the gradients of two steps; learning rate 0.1 unless given.
GRADIENTS = (0.5, 1.0)


def walk(transformation, gradients=GRADIENTS, start=1.0):
    """The weight after each step."""
    params = {"w": jnp.float32(start)}
    state, seen = transformation.init(params), []
    for gradient in gradients:
        updates, state = transformation.update({"w": jnp.float32(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(params["w"])
    return np.array(seen)


WALKS = {
    # 1 - 0.1 * 0.5, then - 0.1 * 1
    "sgd": (0.1, (0.95, 0.85)),
    # velocity 0.5, then 0.9 * 0.5 + 1 = 1.45
    "momentum": (0.1, (0.95, 0.805)),
    # m / (1 - 0.9) = 0.5 and v / (1 - 0.999) = 0.25: one rate down. Then m = 0.9 * 0.05 + 0.1
    # = 0.145, / 0.19 = 0.763158; v = 0.999 * 0.00025 + 0.001 = 0.00124975, / 0.001999 = 0.625188;
    # 0.763158 / sqrt(0.625188) = 0.965181
    "adam": (0.1, (0.9, 0.9 - 0.0965181)),
    # E[g2] = 0.1 * 0.25 = 0.025; sqrt(1e-6 / 0.025001) * 0.5 = 0.00316222. Then E[g2] = 0.9 * 0.025
    # + 0.1 = 0.1225, E[d2] = 0.1 * 0.00316222^2 = 0.999960e-6;
    # sqrt((0.999960e-6 + 1e-6) / 0.122501) * 1 = 0.00404053
    "adadelta": (1.0, (1 - 0.00316222, 1 - 0.00316222 - 0.00404053)),
    # v = 0.9 + 0.1 * 0.25 = 0.925, b = 0.1 * 0.5 / sqrt(1.925) = 0.0360375. Then v = 0.8325 + 0.1
    # = 0.9325, b = 0.9 * 0.0360375 + 0.1 / sqrt(1.9325) = 0.0324338 + 0.0719350
    "rmsprop": (0.1, (1 - 0.0360375, 1 - 0.0360375 - 0.1043688)),
}


def test_every_optimiser_has_a_walk_by_hand():
    assert set(WALKS) == set(optimizers.NAMES)


@pytest.mark.parametrize("name", WALKS)
def test_optimisers_move_as_their_formulas_say(name):
    rate, golden = WALKS[name]
    np.testing.assert_allclose(walk(optimizer(name, rate)), golden, rtol=0, atol=2e-6)


def test_momentums_factor_can_be_chosen():
    # velocity 0.5, then 0.2 * 0.5 + 1 = 1.1
    seen = walk(optimizer("momentum", 0.1, momentum=0.2))
    np.testing.assert_allclose(seen, (0.95, 0.84), rtol=1e-6)


@pytest.mark.parametrize(
    # From 2 with λ = 0.25: 0.25 * 2 = 0.5 is added to each gradient before anything else.
    ("name", "gradient", "golden"),
    [
        ("sgd", 1.0, 2 - 0.1 * 1.5),
        ("sgd", -0.5, 2.0),
        ("momentum", 1.0, 2 - 0.1 * 1.5),
        ("adam", -0.4, 2 - 0.1),  # the sign of the sum; decoupled decay would go up
        ("adam", 0.0, 2 - 0.1),
    ],
)
def test_weight_decay_is_added_to_the_gradient(name, gradient, golden):
    seen = walk(optimizer(name, 0.1, weight_decay=0.25), (gradient,), start=2.0)
    np.testing.assert_allclose(seen, [golden], rtol=1e-5)


def test_weight_decay_may_leave_biases_and_norms_alone():
    # a zero gradient at rate 1 moves what decays by 0.1 of itself
    params = {
        "fc": {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)},
        "bn": {"scale": jnp.ones(1), "bias": jnp.ones(1)},
    }
    zero = jax.tree.map(jnp.zeros_like, params)
    for decay_all, others in ((True, 0.9), (False, 1.0)):
        sgd = optimizer("sgd", 1.0, weight_decay=0.1, decay_all=decay_all)
        updates, _ = sgd.update(zero, sgd.init(params), params)
        moved = optax.apply_updates(params, updates)
        np.testing.assert_allclose(moved["fc"]["kernel"], 0.9)
        for leaf in (moved["fc"]["bias"], moved["bn"]["scale"], moved["bn"]["bias"]):
            np.testing.assert_allclose(leaf, others)


def test_weight_decay_feeds_the_momentum():
    # velocity 0.5 + 0.1 * 1 = 0.6, w = 0.94; then 0.54 + 1 + 0.094 = 1.634
    seen = walk(optimizer("momentum", 0.1, weight_decay=0.1))
    np.testing.assert_allclose(seen, (0.94, 0.94 - 0.1634), rtol=1e-6)


def test_rates_are_a_batch_axis_and_shapes_scale_them():
    def shape(step):
        return jnp.where(step == 0, 1.0, 0.5)

    @jax.vmap
    def two_steps(rate):
        transformation, params = optimizer("sgd", rate, shape), jnp.float32(1.0)
        state = transformation.init(params)
        for gradient in GRADIENTS:
            updates, state = transformation.update(jnp.float32(gradient), state, params)
            params = optax.apply_updates(params, updates)
        return params

    # 1 - rate * (1 * 0.5 + 0.5 * 1)
    np.testing.assert_allclose(two_steps(jnp.array([0.1, 0.4])), [0.9, 0.6], rtol=1e-6)


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match="unknown optimiser 'lion'; there are sgd, momentum"):
        optimizer("lion", 0.1)
    with pytest.raises(ValueError, match="unknown learning-rate schedule 'quadratic'; there are"):
        decay_shape("quadratic", 10)


SHAPES = {
    "constant": [1, 1, 1, 1, 1, 1, 1, 1, 1],
    # drops at 0.5 * 8 = 4 and 0.75 * 8 = 6
    "steps": [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01],
    # (1 + cos(π step / 8)) / 2
    "cosine": [(1 + np.cos(np.pi * step / 8)) / 2 for step in range(9)],
    "linear": [1 - 0.99 * step / 8 for step in range(9)],
    "exponential": [0.01 ** (step / 8) for step in range(9)],
}


def test_every_shape_has_values_by_hand():
    assert set(SHAPES) == set(optimizers.SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_begin_at_one_and_fall_as_told(name):
    shape = jax.jit(jax.vmap(decay_shape(name, 8)))
    np.testing.assert_allclose(shape(np.arange(9)), SHAPES[name], rtol=1e-5, atol=1e-7)


def test_an_exponential_decay_of_so_much_an_epoch():
    # 0.98 an epoch, three epochs of four steps
    shape = decay_shape("exponential", 12, last=0.98**3)
    np.testing.assert_allclose(shape(jnp.int32(4)), 0.98, rtol=1e-6)
    np.testing.assert_allclose(shape(jnp.int32(12)), 0.98**3, rtol=1e-6)


def test_drops_and_their_factor_can_be_chosen():
    shape = jax.vmap(decay_shape("steps", 10, drops=(0.2, 0.3, 0.9), factor=0.5))
    golden = [1, 1, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.125]
    np.testing.assert_allclose(shape(np.arange(10)), golden, rtol=1e-6)
