"""The nets of filter pruning: published counts, forward passes against NumPy, shrinking, JSON."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_nets
from flax.errors import InvalidRngError
from jax import lax

from jaxtickets import nets
from jaxtickets.nets.convolution import LAYOUT, im2col, max_pool

CIFAR, IMAGENET = (32, 32, 3), (224, 224, 3)
KEY = jax.random.key(0)

# name, attributes, images, classes, parameters. At 1000 classes all are torchvision's. Where a head
# alone differs, k classes have (features + 1)(1000 - k) parameters fewer. The CIFAR ResNets print
# as He et al.'s table 6 does: 0.27M, 0.46M, 0.85M, 1.7M; with option B, 0.86M would be ResNet-56's.
COUNTS = [
    ("vgg11", {}, IMAGENET, 1000, 132_868_840),
    ("vgg16", {}, IMAGENET, 1000, 138_365_992),
    ("vgg19", {}, IMAGENET, 1000, 143_678_248),
    # 3x3 kernels 9 (3·64 + 64·128 + 128·256 + 256² + 256·512 + 3·512²) = 9,217,728, biases and
    # norms 3 · 2,752, output 5,130
    ("vgg11", {}, CIFAR, 10, 9_217_728 + 8_256 + 5_130),
    # 138,365,992 less the dense layers: 25,088 · 4,096 + 4,096 · 4,096 + 4,096 · 1,000 + biases
    ("vgg16", {}, CIFAR, 10, 138_365_992 - 123_642_856 + 5_130),
    ("vgg19", {}, CIFAR, 10, 20_040_522),  # 20.04M: network slimming, table 1
    ("resnet18", {}, IMAGENET, 1000, 11_689_512),
    ("resnet34", {}, IMAGENET, 1000, 21_797_672),
    ("resnet18", {}, IMAGENET, 10, 11_689_512 - 513 * 990),
    ("resnet18", {}, CIFAR, 10, 11_689_512 - 513 * 990 - (49 - 9) * 3 * 64),
    ("resnet34", {}, CIFAR, 10, 21_797_672 - 513 * 990 - (49 - 9) * 3 * 64),
    ("resnet20", {}, CIFAR, 10, 269_722),
    ("resnet20", {}, IMAGENET, 1000, 269_722 + 65 * 990),
    # the two shortcuts: 16 · 32 + 2 · 32 and 32 · 64 + 2 · 64
    ("resnet20", {"shortcut": "conv"}, CIFAR, 10, 269_722 + 576 + 2_176),
    ("resnet32", {}, CIFAR, 10, 464_154),
    ("resnet56", {}, CIFAR, 10, 853_018),
    ("resnet110", {}, CIFAR, 10, 1_727_962),
    # stem 9·3·16; stages 9 (16·32 + 5·32²), 9 (32·64 + 5·64²), 9 (64·128 + 5·128²); shortcuts
    # 16·32 + 32·64 + 64·128; norms 2 (16 + 5·32 + 32 + 5·64 + 64 + 5·128 + 128); output 1,290
    ("wrn22_2", {}, CIFAR, 10, 432 + 50_688 + 202_752 + 811_008 + 10_752 + 2_720 + 1_290),
    ("preresnet", {}, CIFAR, 10, 1_703_258),  # 1.70M: network slimming, table 1
    ("mobilenet_v2", {}, IMAGENET, 1000, 3_504_872),
    ("mobilenet_v2", {}, CIFAR, 10, 3_504_872 - 1281 * 990),
    ("mobilenet_v2", {"width": 1.4}, IMAGENET, 1000, 6_108_776),  # 6.11M: timm
    ("alexnet", {}, IMAGENET, 1000, 61_100_840),
    ("alexnet", {}, CIFAR, 10, 2_472_266),  # 2.47M: github.com/bearpaw/pytorch-classification
]

# name, images, classes, multiply-adds: torchvision's documentation, but for those in comments
ADDS = [
    ("resnet18", IMAGENET, 1000, 1.82e9),
    ("resnet34", IMAGENET, 1000, 3.67e9),
    ("vgg16", IMAGENET, 1000, 15.5e9),
    ("mobilenet_v2", IMAGENET, 1000, 0.30e9),
    ("alexnet", IMAGENET, 1000, 0.71e9),
    ("resnet20", CIFAR, 10, 40.6e6),  # FPGM, table 1; printed as 41M elsewhere
    ("resnet56", CIFAR, 10, 125e6),  # FPGM, table 1
    ("vgg19", CIFAR, 10, 7.97e8 / 2),  # network slimming counts both; table 1
    ("preresnet", CIFAR, 10, 4.99e8 / 2),  # the same
]


def count(leaves):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(leaves))


def test_every_net_has_a_count():
    big = {name for name, *_ in COUNTS}
    assert big | set(test_nets.COUNTS) == set(nets.names())


@pytest.mark.parametrize(("name", "attributes", "shape", "classes", "expected"), COUNTS)
def test_published_counts(name, attributes, shape, classes, expected):
    net = nets.make(name, shape=shape, classes=classes, conv="lax", **attributes)
    params, stats = jax.eval_shape(nets.functional(net, shape).init, KEY)
    assert count(params) == expected
    assert params[nets.output_layer(net)]["kernel"].shape[-1] == classes
    if name == "mobilenet_v2" and not attributes:  # Keras' 3,538,984 are all variables
        assert count(stats) == 34_112 == 3_538_984 - 3_504_872


@pytest.mark.parametrize(("name", "shape", "classes", "expected"), ADDS)
def test_published_multiply_adds(name, shape, classes, expected):
    net = nets.make(name, shape=shape, classes=classes, conv="lax")
    assert sum(nets.multiply_adds(net, shape).values()) == pytest.approx(expected, rel=0.01)


# --- forward passes in NumPy, written from the papers --------------------------------------------


class Forward:
    """The layers of a net in NumPy, by name."""

    def __init__(self, params, stats):
        self.params, self.stats = params, stats

    def conv(self, name, x, stride=1, padding=None):
        kernel = self.params[name]["kernel"]
        size, depthwise = kernel.shape[0], kernel.shape[2] != x.shape[-1]
        pad = size // 2 if padding is None else padding
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        high, wide = ((side - size) // stride + 1 for side in x.shape[1:3])
        out = 0
        for i in range(size):
            for j in range(size):
                seen = x[:, i : i + stride * high : stride, j : j + stride * wide : stride]
                seen = seen[:, :high, :wide]
                out = out + (seen * kernel[i, j, 0] if depthwise else seen @ kernel[i, j])
        return out + self.params[name].get("bias", 0)

    def norm(self, name, x):
        own, seen = self.params[name], self.stats[name]
        x = (x - seen["mean"]) / np.sqrt(seen["var"] + 1e-5)
        return x * own["scale"] + own["bias"]

    def hidden(self, x):
        x = x.reshape(len(x), -1)
        for name in ("fc1", "fc2"):
            x = relu(x @ self.params[name]["kernel"] + self.params[name]["bias"])
        return x

    def out(self, x):
        return x @ self.params["out"]["kernel"] + self.params["out"]["bias"]


def relu(x):
    return np.maximum(x, 0)


def relu6(x):
    return np.clip(x, 0, 6)


def pool2(x):
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def pool3(x, padding=0):
    sides = ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0))
    x = np.pad(x, sides, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    return windows[:, ::2, ::2].max((-1, -2))


def resnet(f, x, blocks, large=False):
    x = relu(f.norm("stem_bn", f.conv("stem_conv", x, 2 if large else 1)))
    x = pool3(x, 1) if large else x
    for stage, many in enumerate(blocks, 1):
        for block in range(1, many + 1):
            name = f"stage{stage}_block{block}"
            down = 2 if stage > 1 and block == 1 else 1
            y = relu(f.norm(f"{name}_bn1", f.conv(f"{name}_conv1", x, down)))
            y = f.norm(f"{name}_bn2", f.conv(f"{name}_conv2", y))
            if f"{name}_shortcut_conv" in f.params:
                x = f.norm(f"{name}_shortcut_bn", f.conv(f"{name}_shortcut_conv", x, down))
            elif down == 2:
                zeros = np.zeros((*y.shape[:3], y.shape[3] - x.shape[3]))
                x = np.concatenate([x[:, ::2, ::2], zeros], -1)
            x = relu(x + y)
    return f.out(x.mean((1, 2)))


def wrn(f, x):
    x = f.conv("stem_conv", x)
    for stage in (1, 2, 3):
        for block in (1, 2, 3):
            name, down = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
            y = relu(f.norm(f"{name}_bn1", x))
            short = f.conv(f"{name}_shortcut_conv", y, down) if block == 1 else x
            y = relu(f.norm(f"{name}_bn2", f.conv(f"{name}_conv1", y, down)))
            x = short + f.conv(f"{name}_conv2", y)
    return f.out(relu(f.norm("final_bn", x)).mean((1, 2)))


def preresnet(f, x, blocks):
    x = f.conv("stem_conv", x)
    for stage in (1, 2, 3):
        for block in range(1, blocks + 1):
            name, down = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
            short = f.conv(f"{name}_shortcut_conv", x, down) if block == 1 else x
            y = f.conv(f"{name}_conv1", relu(f.norm(f"{name}_bn1", x)))
            y = f.conv(f"{name}_conv2", relu(f.norm(f"{name}_bn2", y)), down)
            x = short + f.conv(f"{name}_conv3", relu(f.norm(f"{name}_bn3", y)))
    return f.out(relu(f.norm("final_bn", x)).mean((1, 2)))


def mobilenet(f, x):
    def layer(name, x, stride=1):
        return f.norm(f"{name}_bn", f.conv(f"{name}_conv", x, stride))

    x = relu6(layer("stem", x))
    for stage, (blocks, down) in enumerate(
        [(1, 1), (2, 1), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)]
    ):
        for block in range(1, blocks + 1):
            name = f"stage{stage + 1}_block{block}"
            y = relu6(layer(f"{name}_expand", x)) if stage else x
            y = relu6(layer(f"{name}_depthwise", y, down if block == 1 else 1))
            y = layer(f"{name}_project", y)
            x = x + y if block > 1 else y
    return f.out(relu6(layer("last", x)).mean((1, 2)))


def vgg11(f, x, large=False):
    for layer in range(1, 9):
        x = relu(f.norm(f"bn{layer}", f.conv(f"conv{layer}", x)))
        x = pool2(x) if layer in ((1, 2, 4, 6, 8) if large else (1, 2, 4, 6)) else x
    return f.out(f.hidden(x) if large else x.mean((1, 2)))


def alexnet(f, x, large=False):
    for layer in range(1, 6):
        x = relu(f.conv(f"conv{layer}", x, *((4, 2 if large else 5) if layer == 1 else ())))
        if layer in (1, 2, 5):
            x = pool3(x) if large else pool2(x)
    return f.out(f.hidden(x) if large else x.mean((1, 2)))


# name, attributes, pixels a side, the same in NumPy, whether training is compiled too
FORWARD = [
    ("resnet20", {}, 8, lambda f, x: resnet(f, x, (3, 3, 3)), True),
    ("resnet18", {}, 8, lambda f, x: resnet(f, x, (2, 2, 2, 2)), False),
    ("resnet18", {"form": "large"}, 32, lambda f, x: resnet(f, x, (2, 2, 2, 2), True), False),
    ("wrn22_2", {}, 8, wrn, False),
    ("preresnet", {"depth": 20}, 8, lambda f, x: preresnet(f, x, 2), False),
    ("mobilenet_v2", {}, 16, mobilenet, True),
    ("vgg11", {}, 16, vgg11, True),
    ("vgg11", {"form": "large"}, 64, lambda f, x: vgg11(f, x, True), False),
    ("alexnet", {}, 32, alexnet, False),
    ("alexnet", {"form": "large"}, 95, lambda f, x: alexnet(f, x, True), False),
]


def tiny(name, classes=4, **attributes):
    """The net with 3 to 7 channels a group, not all the same, and streams that may be padded."""
    attributes = {"conv": "lax"} | attributes  # which compiles several times as fast
    net = nets.make(name, classes=classes, **attributes)
    few = [3 + i * 5 // len(net.widths) for i in range(len(net.widths))]
    return nets.make(name, classes=classes, widths=few, **attributes)


def variables(net, shape):
    """Parameters and statistics of which none is zero, drawn here: to compile `init` is slow."""
    draw = np.random.default_rng(0)

    def leaf(path, like):
        if path[-1].key == "kernel":
            return draw.normal(0, (2 / np.prod(like.shape[:-1])) ** 0.5, like.shape).astype("f")
        low = 0.5 if path[-1].key in ("scale", "var") else -0.1
        return draw.uniform(low, low + 0.6, like.shape).astype("f")

    return jax.tree.map_with_path(leaf, jax.eval_shape(nets.functional(net, shape).init, KEY))


def run(net, params, stats, images, key=None, train=False):
    """Logits and statistics; compiled in haste, since it runs once."""
    given = params, stats, images, key
    apply = jax.jit(nets.functional(net, images.shape[1:]).apply, static_argnames="train")
    compiled = apply.lower(*given, train=train).compile({"xla_backend_optimization_level": 0})
    return compiled(*given)


@pytest.mark.parametrize(("name", "attributes", "side", "forward", "with_training"), FORWARD)
def test_the_forward_pass_is_the_papers(name, attributes, side, forward, with_training):
    net, shape = tiny(name, **attributes), (side, side, 3)
    params, stats = variables(net, shape)
    images = np.random.default_rng(1).normal(size=(4, *shape)).astype("f")
    images *= np.array([1, 3, 6, 9], "f").reshape(4, 1, 1, 1)
    logits, same = run(net, params, stats, images)
    assert logits.shape == (4, 4) and np.std(logits, 0).min() > 0.01
    np.testing.assert_allclose(
        logits, forward(Forward(params, stats), images), rtol=2e-4, atol=2e-4
    )
    jax.tree.map(np.testing.assert_array_equal, same, stats)
    if not with_training:
        return
    logits, moved = run(net, params, stats, images, KEY, train=True)
    assert np.isfinite(logits).all() and jax.tree.structure(moved) == jax.tree.structure(stats)
    assert all((a != b).any() for a, b in zip(*map(jax.tree.leaves, (stats, moved)), strict=True))


@pytest.mark.parametrize("name", ["vgg11", "alexnet", "wrn22_2", "mobilenet_v2"])
def test_dropout_is_of_training_alone(name):
    form = {} if name == "wrn22_2" else {"form": "large"}
    model = nets.functional(tiny(name, **form), shape := (64, 64, 3))

    def logits(train):
        given = (*jax.eval_shape(model.init, KEY), jax.ShapeDtypeStruct((1, *shape), "float32"))
        return jax.eval_shape(lambda *args: model.apply(*args, train=train)[0], *given)

    assert logits(False).shape == (1, 4)
    with pytest.raises(InvalidRngError, match="dropout"):
        logits(True)


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (2, 0)])
def test_depthwise_slices_are_the_convolution(stride, padding):
    draw = np.random.default_rng(0)
    images = draw.standard_normal((2, 7, 6, 5), "f")
    kernel = draw.standard_normal((3, 3, 1, 5), "f")

    sides = ((padding,) * 2,) * 2
    ours, theirs = [
        form(images, kernel, (stride,) * 2, sides, None, None, LAYOUT, feature_group_count=5)
        for form in (im2col, lax.conv_general_dilated)
    ]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_max_pool_with_padding_by_hand():
    row = jnp.array([-1.0, -5, -3, -4, -2])
    images = jnp.broadcast_to(row[None, None, :, None], (1, 5, 5, 1))
    # windows of 3 at -1, 1, 3 where the padding is never a maximum; without it at 0 and 2
    np.testing.assert_array_equal(max_pool(images, 3, 2, 1)[0, 0, :, 0], [-1, -3, -2])
    np.testing.assert_array_equal(max_pool(images, 3, 2)[0, 0, :, 0], [-1, -2])


# --- attributes ----------------------------------------------------------------------------------

SHRUNK = [
    ("vgg11", {"form": "large"}, (32, 32, 3)),
    ("alexnet", {}, CIFAR),
    ("resnet20", {}, CIFAR),
    ("resnet20", {"shortcut": "conv"}, CIFAR),
    ("resnet18", {"form": "large"}, CIFAR),
    ("wrn22_2", {}, CIFAR),
    ("preresnet", {"depth": 20}, CIFAR),
    ("mobilenet_v2", {}, CIFAR),
]


def places(net, shape):
    """Layer -> which entry of `widths` is its number of units, seen where all of them differ."""
    widths = range(1000, 1000 + len(net.widths))
    params, _ = jax.eval_shape(nets.functional(net.clone(widths=tuple(widths)), shape).init, KEY)
    units = {name: leaf["kernel"].shape[-1] for name, leaf in params.items() if "kernel" in leaf}
    assert units.pop("out") == net.classes
    return {layer: size - 1000 for layer, size in units.items()}


@pytest.mark.parametrize(("name", "attributes", "shape"), SHRUNK)
def test_every_group_of_channels_shrinks_alone(name, attributes, shape):
    net = nets.make(name, conv="lax", **attributes)
    assert set(places(net, shape).values()) == set(range(len(net.widths)))


def test_what_a_width_sets_by_hand():
    found = places(nets.make("resnet20"), CIFAR)
    assert [found[f"stage{s}_block1_conv1"] for s in (1, 2, 3)] == [1, 5, 9]
    assert [found[f"stage{s}_block3_conv2"] for s in (1, 2, 3)] == [0, 4, 8]
    found = places(nets.make("mobilenet_v2"), CIFAR)
    first = ["stem_conv", "stage1_block1_depthwise_conv", "stage1_block1_project_conv"]
    assert [found[layer] for layer in first] == [0, 0, 1]
    second = ["expand", "depthwise", "project"]
    assert [found[f"stage2_block1_{kind}_conv"] for kind in second] == [2, 2, 3]
    assert [found[f"stage2_block2_{kind}_conv"] for kind in second] == [4, 4, 3]


@pytest.mark.parametrize("name", sorted({name for name, *_ in COUNTS}))
def test_json_gives_the_same_net_back(name):
    for net in (nets.make(name), tiny(name, use_bias=False), nets.make(name, shape=IMAGENET)):
        written = nets.to_json(net)
        assert json.loads(json.dumps(written)) == written
        assert nets.from_json(written) == net and type(net) is nets.NETS[name]
        assert len(net.widths) == len(written["widths"]) > 0
    assert nets.make(name).widths == nets.NETS[name]().widths


def test_no_biases():
    for name, attributes in (("vgg11", {"form": "large"}), ("resnet18", {}), ("mobilenet_v2", {})):
        net = tiny(name, use_bias=False, **attributes)
        params, _ = jax.eval_shape(nets.functional(net, (32, 32, 3)).init, KEY)
        assert not any("bias" in leaves for leaves in params.values() if "kernel" in leaves)


def test_the_form_follows_the_images():
    assert nets.make("vgg16").form == nets.make("vgg16", shape=(95, 300, 3)).form == "small"
    assert nets.make("vgg16", shape=(96, 96, 3)).form == "large"
    assert nets.make("vgg16", shape=IMAGENET, form="small").form == "small"
    assert nets.make("lenet5", shape=IMAGENET) == nets.make("lenet5")


@pytest.mark.parametrize("name", ["vgg11", "alexnet"])
def test_chains_are_wired(name):
    net = tiny(name)
    wiring = nets.wiring(net, CIFAR)
    assert [units.size for units in wiring] == list(net.widths)
    assert [units.norms for units in wiring] == [
        (f"bn{i}",) if name == "vgg11" else () for i in range(1, 1 + len(net.widths))
    ]
    assert [units.consumers[0] for units in wiring][-1] == ("out", 1)
    large = nets.wiring(tiny(name, form="large"), (64, 64, 3))
    # 64 / 2^5 = 2 pixels a side; 64 -> 15 -> 7 -> 3 -> 1
    assert [units.consumers[0] for units in large][-3:] == [
        ("fc1", {"vgg11": 4, "alexnet": 1}[name]),
        ("fc2", 1),
        ("out", 1),
    ]


@pytest.mark.parametrize("name", ["resnet20", "wrn22_2", "mobilenet_v2"])
def test_nets_with_shortcuts_have_no_wiring_by_hand(name):
    assert nets.wiring(tiny(name), CIFAR) == ()


@pytest.mark.parametrize(
    ("name", "attributes", "least"),
    [
        ("vgg11", {}, 16),  # four pools
        ("vgg11", {"form": "large"}, 32),
        # a pool of 2 leaves one of 2 pixels: 2 · 2 · 2 = 8 = (29 - 1) // 4 + 1
        ("alexnet", {}, 29),
        # a pool of 3 with stride 2 leaves one of 3: 3 <- 7 <- 15 = (63 + 4 - 11) // 4 + 1
        ("alexnet", {"form": "large"}, 63),
    ],
)
def test_small_images_are_refused(name, attributes, least):
    net = tiny(name, classes=10, **attributes)
    nets.check_fits(net, (least, least, 3), 10)
    message = f"{name} needs .* {least}x{least} pixels, not 70x{least - 1}$"
    with pytest.raises(ValueError, match=message):
        nets.check_fits(net, (70, least - 1, 3), 10)


def test_residual_nets_take_any_size():
    net = tiny("resnet18", form="large")
    nets.check_fits(net, (1, 3, 1), 4)
    with pytest.raises(ValueError, match=r"resnet18 maps one image to \(1, 4\), the data has 100"):
        nets.check_fits(net, CIFAR, 100)
    nets.check_fits(tiny("mobilenet_v2", conv="im2col"), (1, 3, 1), 4)


def test_a_padded_shortcut_cannot_narrow():
    net = nets.make("resnet20")
    narrow = dataclasses.replace(net, widths=(17, *net.widths[1:4], 16, *net.widths[5:]))
    with pytest.raises(ValueError, match="can't narrow 17 channels to 16: see stage2_block1"):
        nets.check_fits(narrow, CIFAR, 10)
    nets.check_fits(dataclasses.replace(narrow, shortcut="conv"), CIFAR, 10)


@pytest.mark.parametrize(
    ("name", "attributes", "message"),
    [
        ("vgg16", {"form": "huge"}, "unknown form 'huge' of vgg16: one of small, large"),
        ("resnet20", {"shortcut": "A"}, "unknown shortcut 'A' of resnet20: one of pad, conv"),
        ("preresnet", {"depth": 30}, "depth of 9n \\+ 2, such as 164, not 30"),
        ("preresnet", {"depth": 2}, "depth of 9n"),
        ("mobilenet_v2", {"width": 0}, "width above 0, not 0"),
        ("vgg11", {"widths": (3,) * 9}, "vgg11 takes 8 widths"),
        ("vgg11", {"widths": ()}, "vgg11 takes 8 widths"),
        ("vgg11", {"form": "large", "widths": (3,) * 8}, "vgg11 takes 10 widths"),
        ("preresnet", {"depth": 11, "widths": (3,) * 9}, "preresnet takes 10 widths"),
        ("resnet20", {"form": "large"}, "resnet20 has no attribute form"),
    ],
)
def test_make_refuses_in_one_line(name, attributes, message):
    with pytest.raises(ValueError, match=message) as error:
        nets.make(name, **attributes)
    assert "\n" not in str(error.value)
