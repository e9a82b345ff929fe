"""Nets: their counts, their two modes, their JSON, their convolutions and their wiring."""

import json
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from jaxtickets import nets, runs
from jaxtickets.nets import convolution as convolution_forms
from jaxtickets.nets.convolution import LAYOUT, PATCHES, convolution, im2col, max_pool2

MNIST, CIFAR = (28, 28, 1), (32, 32, 3)
KEY = jax.random.key(0)

# name: (image shape, kernel weights, parameters with biases and batch norms)
COUNTS = {
    "lenet300_100": (MNIST, 266_200, 266_610),
    # 784 * 1568 + 2 * 1568^2 + 15,680
    "mlp": (MNIST, 6_162_240, 6_162_240 + 3 * 1568 + 10),
    "lenet5": (MNIST, 430_500, 430_500 + 20 + 50 + 500 + 10),
    "lenet5_lecun": (MNIST, 61_470, 61_706),
    "lenet5_29k": (MNIST, 29_456 - 6 - 6 - 128 - 10, 29_456),
    # 9 * 6 + 9 * 6 * 16 + 400 * 120 + 120 * 10 = 54 + 864 + 48,000 + 1,200
    "scnn": (MNIST, 50_118, 50_118 + 6 + 16 + 120 + 10),
    # convolutions 27 * 64 + 576 * 64 = 38,592; then 16,384 * 256 + 256 * 256 + 2,560
    "conv2": (CIFAR, 38_592 + 4_262_400, 4_300_992 + 2 * 64 + 2 * 256 + 10),
    # 38,592 + 576 * 128 + 1,152 * 128 = 259,776; then 8,192 * 256 + 65,536 + 2,560
    "conv4": (CIFAR, 259_776 + 2_165_248, 2_425_024 + 2 * (64 + 128) + 2 * 256 + 10),
    # 259,776 + 1,152 * 256 + 2,304 * 256 = 1,144,512; then 4,096 * 256 + 65,536 + 2,560
    "conv6": (CIFAR, 2_261_184, 2_261_184 + 2 * (64 + 128 + 256) + 2 * 256 + 10),
    # 27 * 64 + 576 * 128 + 1,152 * 256 + 2,304 * 512 = 1,550,016; then 8,192 * 10
    "cnn960": (CIFAR, 1_550_016 + 81_920, 1_631_936 + 3 * 960 + 10),
}
SMALL = {name: tuple(3 + i for i in range(len(nets.make(name).widths))) for name in COUNTS}


def kernels(params):
    return [leaf for path, leaf in jax.tree.leaves_with_path(params) if path[-1].key == "kernel"]


def count(leaves):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(leaves))


@cache
def small(name, conv="im2col"):
    """A net of few units, its shape, its apply, variables none of which is zero, and images."""
    shape = COUNTS[name][0]
    net = nets.make(name, widths=SMALL[name])
    net = net.clone(conv=conv) if hasattr(net, "conv") else net
    model = nets.functional(net, shape)
    draw = np.random.default_rng(0)
    # Drawn here, since to compile `init` takes seconds; mostly positive, so that units are alive.
    params, stats = jax.tree.map(
        lambda leaf: draw.uniform(0.1 if leaf.ndim == 1 else -0.2, 0.5, leaf.shape).astype("f"),
        jax.eval_shape(model.init, KEY),
    )
    images = draw.uniform(-0.5, 1, (4, *shape)).astype("f")
    return net, shape, jax.jit(model.apply, static_argnames="train"), params, stats, images


@pytest.mark.parametrize("name", COUNTS)
def test_published_counts(name):
    shape, in_kernels, in_all = COUNTS[name]
    model = nets.functional(nets.make(name), shape)
    params, _ = jax.eval_shape(model.init, KEY)
    assert (count(kernels(params)), count(params)) == (in_kernels, in_all)
    bare, _ = jax.eval_shape(nets.functional(nets.make(name, use_bias=False), shape).init, KEY)
    assert count(kernels(bare)) == in_kernels
    assert all("bias" not in leaves for layer, leaves in bare.items() if "kernel" in leaves)


@pytest.mark.parametrize("name", COUNTS)
def test_json_gives_the_same_net_back(name):
    net = nets.make(name, widths=SMALL[name], classes=7, use_bias=False)
    written = nets.to_json(net)
    assert json.loads(json.dumps(written)) == written
    assert nets.from_json(written) == net and isinstance(net, nets.NETS[name])
    params, _ = jax.eval_shape(nets.functional(net, COUNTS[name][0]).init, KEY)
    assert count(params) < COUNTS[name][2]
    assert params[nets.output_layer(net)]["kernel"].shape[-1] == 7


@pytest.mark.parametrize("name", COUNTS)
def test_modes(name):
    net, _, apply, params, stats, images = small(name)
    logits, same = apply(params, stats, images)
    assert logits.shape == (4, 10)
    jax.tree.map(np.testing.assert_array_equal, same, stats)
    trained, moved = apply(params, stats, images, KEY, train=True)
    other, _ = apply(params, stats, images, jax.random.key(9), train=True)
    assert np.array_equal(trained, other) == (not getattr(net, "dropout", 0))
    assert jax.tree.structure(moved) == jax.tree.structure(stats)
    assert set(stats) == {layer for layer, leaves in params.items() if "scale" in leaves}
    assert all((a != b).all() for a, b in zip(*map(jax.tree.leaves, (stats, moved)), strict=True))


@pytest.mark.parametrize("name", COUNTS)
def test_wiring_masks_units(name):
    net, shape, apply, params, stats, images = small(name)
    wiring = nets.wiring(net, shape)
    assert [units.size for units in wiring] == list(net.widths)
    dense, _ = apply(params, stats, images)
    for units in wiring:
        (feed,) = units.consumers
        assert params[feed.layer]["kernel"].shape[-2] == units.size * feed.repeat
        layer, unit = jax.tree.map(jnp.array, params), units.size - 2
        for owner in (*units.producers, *units.norms):
            layer[owner] = {k: v.at[..., unit].set(0) for k, v in layer[owner].items()}
        masked, _ = apply(layer, stats, images)
        rows = np.tile(np.arange(units.size) == unit, feed.repeat)
        kernel = layer[feed.layer]["kernel"]
        layer[feed.layer] = layer[feed.layer] | {"kernel": kernel.at[..., rows, :].set(0)}
        np.testing.assert_array_equal(masked, apply(layer, stats, images)[0])
        assert not np.array_equal(masked, dense)


@pytest.mark.parametrize(
    ("size", "kernel", "channels", "stride", "padding"),
    [
        (28, 5, 1, 1, "VALID"),
        (12, 5, 6, 1, "VALID"),
        (28, 5, 1, 1, "SAME"),
        (14, 3, 3, 1, "SAME"),
        (13, 3, 3, 2, "VALID"),
        (32, 3, 3, 2, "VALID"),
        (9, 3, 2, 2, "SAME"),
        (8, 3, 2, 2, "SAME"),
        (7, 3, 2, 1, ((1, 0), (2, 1))),
        (2, 3, 2, 2, "VALID"),
    ],
)
def test_im2col_is_the_convolution(size, kernel, channels, stride, padding):
    draw = np.random.default_rng(0)
    images = draw.standard_normal((2, size, size + 3, channels), "f")
    weights = draw.standard_normal((kernel, kernel, channels, 5), "f")

    @partial(jax.jit, static_argnums=0)
    def value_and_gradients(convolve):
        form = partial(
            convolve, window_strides=(stride,) * 2, padding=padding, dimension_numbers=LAYOUT
        )
        out, pull = jax.vjp(form, images, weights)
        return out, pull(jnp.cos(out))

    ours, theirs = value_and_gradients(im2col), value_and_gradients(lax.conv_general_dilated)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), ours, theirs)


@pytest.mark.parametrize(
    # slices of columns, then of rows; of all offsets at once
    ("few", "slices"),
    [(3, 5 + 5), (2, 5 * 5)],
)
def test_patches_of_few_channels_are_made_of_fewer_slices(few, slices, monkeypatch):
    monkeypatch.setattr(convolution_forms, "FEW_CHANNELS", few)
    images = np.random.default_rng(0).standard_normal((2, 9, 8, 3), "f")
    made = partial(convolution_forms.patches, kernel=(5, 5), strides=(1, 1), padding="VALID")
    assert str(jax.make_jaxpr(made)(images)).count(" = slice[") == slices
    golden = np.lib.stride_tricks.sliding_window_view(images, (5, 5), (1, 2))  # [n, y, x, c, i, j]
    golden = np.moveaxis(golden, 3, 5).reshape(2, 5, 4, 5 * 5 * 3)
    np.testing.assert_array_equal(jax.jit(made)(images), golden)


@pytest.mark.parametrize("images_at_once", [1, 2, 3, 5, 6])
def test_im2col_is_the_same_however_many_images_it_takes_at_a_time(images_at_once, monkeypatch):
    draw = np.random.default_rng(0)
    images = draw.standard_normal((5, 6, 5, 3), "f")
    weights = draw.standard_normal((3, 3, 3, 4), "f")
    one_image = 4 * (3 * 3) * (3 * 3 * 3)  # bytes of its patches, at stride 2
    assert 5 * one_image < PATCHES  # all at once

    @partial(jax.jit, static_argnums=0)
    def value_and_gradients(_):
        form = partial(im2col, window_strides=(2, 2), padding="SAME", dimension_numbers=LAYOUT)
        out, pull = jax.vjp(form, images, weights)
        _, turned = jax.jvp(
            lambda w: jax.grad(lambda w: jnp.sin(form(images, w)).sum())(w), (weights,), (weights,)
        )
        return out, pull(jnp.cos(out)), turned

    golden = value_and_gradients(0)
    monkeypatch.setattr("jaxtickets.nets.convolution.PATCHES", images_at_once * one_image)
    text = str(jax.make_jaxpr(value_and_gradients, static_argnums=0)(images_at_once))
    assert ("scan" in text) == (images_at_once < 5)
    found = value_and_gradients(images_at_once)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, golden)


def test_patches_are_made_again_rather_than_kept(monkeypatch):
    images, weights = jnp.ones((64, 16, 16, 8)), jnp.ones((3, 3, 8, 8))

    def loss(images, weights):
        return jnp.sum(
            jnp.square(im2col(images, weights, (1, 1), "SAME", dimension_numbers=LAYOUT))
        )

    def peak(at_once):
        monkeypatch.setattr("jaxtickets.nets.convolution.PATCHES", at_once)
        jax.clear_caches()
        slope = jax.jit(jax.grad(loss, (0, 1))).lower(images, weights).compile()
        return slope.memory_analysis().temp_size_in_bytes

    whole = images.nbytes * 9
    assert peak(whole // 16) < whole / 2 < whole < peak(whole)


def test_devices_that_share_a_run_convolve_their_own_images(cpus, monkeypatch):
    monkeypatch.setattr("jaxtickets.nets.convolution.PATCHES", 1)
    axis = runs.axis("data", devices=cpus[:2])
    images = np.ones((8, 6, 6, 3), "f")

    def one(weights, images):
        out = im2col(runs.divide(images), weights, (1, 1), "SAME", dimension_numbers=LAYOUT)
        return jnp.sum(jnp.square(out))

    slope = runs.program(jax.grad(one), axis)
    placed = runs.split(np.ones((1, 3, 3, 3, 4), "f"), axis).blocks[0]
    text = slope.lower(placed, runs.share(images, axis).copies[0]).compile().as_text()
    assert "all-reduce" in text and "all-gather" not in text


def test_im2col_refuses_what_it_lacks():
    images, weight = jnp.zeros((1, 4, 4, 2)), jnp.zeros((3, 3, 2, 2))
    for options in ({"feature_group_count": 2}, {"rhs_dilation": (2, 2)}, {"lhs_dilation": (1, 2)}):
        with pytest.raises(NotImplementedError, match="lax"):
            im2col(images, weight, (1, 1), "SAME", dimension_numbers=LAYOUT, **options)
    with pytest.raises(NotImplementedError, match="NHWC"):
        im2col(images, weight, (1, 1), "SAME")


@pytest.mark.parametrize("name", ["lenet5_lecun", "conv2", "cnn960"])
def test_nets_agree_on_both_convolutions(name):
    forms = [small(name, conv) for conv in ("im2col", "lax")]
    first, second = [apply(*arguments)[0] for _, _, apply, *arguments in forms]
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)


def test_auto_is_im2col_on_a_cpu_only():
    on_cpu = jax.default_backend() == "cpu"
    assert convolution("auto") is convolution("im2col" if on_cpu else "lax")


def reduce_window(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


@pytest.mark.parametrize("shape", [(2, 8, 6, 3), (2, 7, 5, 3), (1, 1, 4, 2)])
def test_max_pool_is_reduce_window(shape):
    # A permutation has no ties; half of it is negative, so that the ReLU makes ties of zeros.
    images = jax.random.permutation(KEY, jnp.arange(np.prod(shape)) - np.prod(shape) / 2)
    images = images.reshape(shape)
    for before in (lambda x: x, nn.relu):
        (a, pull_a), (b, pull_b) = [
            jax.vjp(lambda x, p=pool, f=before: p(f(x)), images)
            for pool in (max_pool2, reduce_window)
        ]
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(pull_a(a + 1)[0], pull_b(a + 1)[0])


@pytest.mark.parametrize("window", [[[1, 1], [0, 1]], [[0, 1], [1, 1]], [[0, 0], [1, 1]]])
def test_max_pool_gives_the_gradient_to_the_first_maximum(window):
    x = jnp.array(window, float)[None, :, :, None]
    gradient = jax.grad(lambda x: 2 * max_pool2(x).sum())(x)[0, :, :, 0].ravel()
    assert gradient.tolist() == [2.0 * (i == np.argmax(window)) for i in range(4)]


@pytest.mark.parametrize(
    ("name", "deviation", "largest", "bias"),
    [
        # fan-in 784, fan-out 300; a cut normal reaches 2 / 0.8796 of its deviation
        ("glorot_normal", np.sqrt(2 / 1084), 2.2738 * np.sqrt(2 / 1084), 0),
        # 235,200 draws of a normal reach about 4.6 deviations
        ("kaiming_normal", np.sqrt(2 / 784), 4.6 * np.sqrt(2 / 784), 0),
        ("kaiming_uniform", 1 / np.sqrt(3 * 784), 1 / 28, 1 / 28),
    ],
)
def test_initializers(name, deviation, largest, bias):
    net = nets.make("lenet300_100", initializer=name)
    layer = nets.functional(net, MNIST).init(KEY)[0]["fc1"]
    assert np.std(layer["kernel"]) == pytest.approx(deviation, rel=0.01)
    assert np.abs(layer["kernel"]).max() == pytest.approx(largest, rel=0.1)
    assert np.abs(layer["bias"]).max() == pytest.approx(bias, rel=0.05)


def test_uniform_biases_count_a_kernels_window():
    net = nets.make("lenet5", initializer="kaiming_uniform")
    params, _ = nets.functional(net, MNIST).init(KEY)
    for layer, fan_in in {"conv1": 25, "conv2": 500, "fc1": 800, "out": 500}.items():
        assert 0.7 < np.abs(params[layer]["bias"]).max() * np.sqrt(fan_in) <= 1


def test_signed_constant():
    # std of (3, -1, 1, 1) about its mean 1: sqrt((4 + 4 + 0 + 0) / 4) = sqrt 2
    params = {"fc1": {"kernel": jnp.array([[3.0, -1], [1, 1]]), "bias": jnp.array([5.0, 6])}}
    signed = nets.signed_constant(params)["fc1"]
    np.testing.assert_allclose(signed["kernel"], np.sqrt(2) * np.array([[1, -1], [1, 1]]))
    np.testing.assert_array_equal(signed["bias"], [5, 6])
    own = nets.signed_constant({"weight": params["fc1"]["kernel"], "bias": jnp.full((1, 2), 5.0)})
    np.testing.assert_array_equal(own["weight"], signed["kernel"])
    np.testing.assert_array_equal(own["bias"], [[5, 5]])


class Own(nn.Module):
    """A user's net: it has no `train`."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


class Memory(nn.Module):
    """A net with a kind of variables that a `Model` has no place for."""

    @nn.compact
    def __call__(self, x):
        return x + self.variable("cache", "seen", jnp.zeros, ()).value


def test_own_modules_are_nets():
    model = nets.functional(Own(), MNIST)
    params, stats = model.init(KEY)
    for train in (False, True):
        logits, after = model.apply(params, stats, jnp.ones((2, *MNIST)), KEY, train=train)
        assert logits.shape == (2, 10) and after == stats == {}
    nets.check_fits(Own(), MNIST, 10)
    with pytest.raises(ValueError, match="cache"):
        nets.functional(Memory(), MNIST).init(KEY)
    for function in (nets.to_json, nets.output_layer, lambda net: nets.wiring(net, MNIST)):
        with pytest.raises(ValueError, match="Own is none of the nets"):
            function(Own())


@pytest.mark.parametrize("name", COUNTS)
def test_nets_take_other_images(name):
    for shape in (MNIST, CIFAR):
        nets.check_fits(nets.make(name, classes=100), shape, 100)


@pytest.mark.parametrize(
    # cnn960: 1 <- 3 <- 7 (stride 2) <- 9 <- 19 (stride 2)
    ("name", "least"),
    [("cnn960", 19), ("lenet5", 16), ("lenet5_lecun", 12), ("scnn", 10), ("conv6", 8)],
)
def test_small_images_are_refused(name, least):
    net = nets.make(name)
    nets.check_fits(net, (least, least, 1), 10)
    with pytest.raises(
        ValueError, match=f"{name} needs .* {least}x{least} pixels, not 32x{least - 1}"
    ):
        nets.check_fits(net, (32, least - 1, 1), 10)
    with pytest.raises(ValueError, match="data has 100 classes"):
        nets.check_fits(net, (least, least, 1), 100)


@pytest.mark.parametrize(
    ("name", "attributes", "message"),
    [
        ("lenet", {}, "unknown net 'lenet': one of lenet300_100, lenet5"),
        ("lenet5", {"width": 3}, "lenet5 has no attribute width: it has widths"),
        ("lenet300_100", {"conv": "lax"}, "lenet300_100 has no attribute conv"),
        ("lenet5", {"widths": (3, 4)}, "lenet5 takes 3 widths"),
        ("lenet5", {"widths": (3, 0, 4)}, "at least 1"),
        ("lenet5", {"classes": 0}, "at least 1 class"),
        ("lenet5", {"initializer": "zeros"}, "unknown initializer 'zeros'"),
        ("lenet5", {"conv": "fft"}, "unknown convolution 'fft'"),
        ("cnn960", {"dropout": 1.0}, "dropout"),
    ],
)
def test_make_refuses_in_one_line(name, attributes, message):
    with pytest.raises(ValueError, match=message) as error:
        nets.make(name, **attributes)
    assert "\n" not in str(error.value)
