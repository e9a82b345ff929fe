"""Smaller nets: they compute what the masked ones do; which units stay; what is saved."""

import json
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from experiments.harness import latency, timing
from jaxtickets import nets
from jaxtickets.compress import graph, output_check, report, unit_selection
from jaxtickets.compress.shrink import shrink, shrink_model
from jaxtickets.io import tickets
from jaxtickets.types import Model, Ticket

MNIST, CIFAR, SMALL = (28, 28, 1), (32, 32, 3), (8, 8, 3)

QUICK = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""Compiled in less time, to slower programs."""

# net: (image shape, attributes); the widths are cut down to what is quick
NETS = {
    "lenet300_100": (MNIST, {}),
    "lenet5": (MNIST, {}),
    "lenet5_lecun": (MNIST, {"use_bias": False}),
    "lenet5_29k": (MNIST, {}),
    "scnn": (MNIST, {}),
    "conv2": (CIFAR, {}),
    "conv4": (CIFAR, {}),
    "conv6": (CIFAR, {}),
    "cnn960": (CIFAR, {}),
    "vgg11": (CIFAR, {"form": "large"}),
    "resnet20": (CIFAR, {}),
    "preresnet": (CIFAR, {"depth": 11}),
    "mobilenet_v2": (CIFAR, {}),
}


def ticket_of(net, shape, seed=0):
    """A ticket with nothing in it that is zero or trivial but a tenth of its mask."""
    draw = np.random.default_rng(seed)
    init = nets.functional(net, shape).init

    def leaf(shape):
        if len(shape) == 1:  # biases, scales, and statistics, of which variances are positive
            return draw.uniform(0.5, 1.5, shape).astype("f")
        return draw.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape).astype("f")

    params, stats = jax.tree.map(lambda a: leaf(a.shape), jax.eval_shape(init, jax.random.key(0)))
    mask = jax.tree.map(lambda a: draw.random(a.shape) < 0.9, params)
    return Ticket(params, stats, mask, np.int32(7))


def random_units(wiring, seed=1, density=0.6):
    """Of each group about 60 %, at least one, and not all where there are several."""
    draw = np.random.default_rng(seed)
    units = {}
    for group in wiring:
        order = draw.permutation(group.size)
        count = min(max(1, draw.binomial(group.size, density)), max(1, group.size - 1))
        units[group.name] = np.isin(np.arange(group.size), order[:count])
    return units


def off_by(net, ticket, units, found, small, cut):
    """The largest difference between the masked and the small net's logits, in largest logits."""
    gap = output_check.output_difference(net, ticket, units, found, small, cut)
    less = {name: np.arange(len(mask)) > 0 for name, mask in units.items() if len(mask) > 1}
    assert (
        output_check.output_difference(net, ticket, less, found, small, cut) > 1e-3
    )  # units matter
    return gap


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_outputs_that_are_no_numbers_differ_from_numbers(wrong):
    linear = Model(None, lambda params, stats, images, *_: (images @ params["w"], stats))
    found = graph.Graph((), {}, {}, frozenset(), image=(2,))
    ones = np.ones((2, 1), "f")
    right = Ticket({"w": ones}, {}, {"w": ones > 0}, np.int32(0))
    broken = right._replace(params={"w": ones * np.float32(wrong)})
    for pair in ((right, broken), (broken, right)):
        gap = output_check.output_difference(linear, pair[0], {}, found, linear, pair[1])
        assert gap == np.inf


def sizes(tree):
    return jax.tree.map(np.shape, tree)


# --- outputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_the_small_net_computes_what_the_masked_one_does(name):
    shape, attributes = NETS[name]
    conv = {} if name == "lenet300_100" else {"conv": "lax"}  # quick to compile
    usual = nets.make(name, **attributes, **conv)
    net = usual.clone(widths=tuple(3 + width // 24 for width in usual.widths))
    found = graph.trace(net, shape)
    ticket, units = ticket_of(net, shape), random_units(found.wiring)
    small, cut, _ = shrink(net, ticket, units, found)
    assert off_by(net, ticket, units, found, small, cut) < 1e-5

    assert sizes(cut.mask) == sizes(cut.params) and cut.rewind_step == 7
    assert len(small.widths) == len(found.units) and sum(small.widths) < sum(net.widths)
    assert nets.from_json(json.loads(json.dumps(nets.to_json(small)))) == small


def test_kept_weights_move_and_none_is_lost():
    # By hand: units 0 and 2 of three stay, and unit 1 of two.
    net = nets.make("lenet300_100", widths=(3, 2), classes=2)
    ticket = ticket_of(net, (1, 2, 1))
    units = {"fc1": [True, False, True], "fc2": [False, True]}
    small, cut, gain = shrink(net, ticket, units, graph.trace(net, (1, 2, 1)))
    assert small.widths == (2, 1)
    for tree, whole in ((cut.params, ticket.params), (cut.mask, ticket.mask)):
        np.testing.assert_array_equal(tree["fc1"]["kernel"], whole["fc1"]["kernel"][:, [0, 2]])
        np.testing.assert_array_equal(tree["fc1"]["bias"], whole["fc1"]["bias"][[0, 2]])
        np.testing.assert_array_equal(tree["fc2"]["kernel"], whole["fc2"]["kernel"][[0, 2]][:, [1]])
        np.testing.assert_array_equal(tree["fc2"]["bias"], whole["fc2"]["bias"][[1]])
        np.testing.assert_array_equal(tree["out"]["kernel"], whole["out"]["kernel"][[1]])
        np.testing.assert_array_equal(tree["out"]["bias"], whole["out"]["bias"])
    assert gain.units == {"fc1": (2, 3), "fc2": (1, 2)}
    # 2·3 + 3·2 + 2·2 = 16 weights, 3 + 2 + 2 biases; then 2·2 + 2·1 + 1·2 = 8, and 2 + 1 + 2
    assert (gain.before.parameters, gain.before.multiply_adds) == (23, 16)
    assert (gain.after.parameters, gain.after.multiply_adds) == (13, 8)
    assert (gain.before.bytes, gain.after.bytes) == (92, 52)
    assert gain.before.kept == sum(leaf.sum() for leaf in jax.tree.leaves(ticket.mask))
    assert gain.after.kept == sum(leaf.sum() for leaf in jax.tree.leaves(cut.mask))
    quantity = report.rows(gain)[2]
    assert quantity == {"quantity": "multiply_adds", "before": 16, "after": 8, "ratio": 2.0}


def test_rows_after_a_flatten_go_pixel_by_pixel():
    # 8x8 pixels pool to 4x4, so the one channel that stays of two has every second row.
    net = nets.make("conv2", widths=(2, 2, 3, 2), conv="lax")
    ticket = ticket_of(net, SMALL)
    small, cut, _ = shrink(net, ticket, {"conv2": [False, True]}, graph.trace(net, SMALL))
    assert small.widths == (2, 1, 3, 2)
    np.testing.assert_array_equal(cut.params["fc1"]["kernel"], ticket.params["fc1"]["kernel"][1::2])
    np.testing.assert_array_equal(cut.mask["fc1"]["kernel"], ticket.mask["fc1"]["kernel"][1::2])


def test_all_units_give_the_same_ticket():
    net = nets.make("preresnet", depth=11, widths=(2, 3, 4, 5, 3, 2, 2, 4, 3, 2))
    ticket = ticket_of(net, SMALL)
    small, cut, gain = shrink(net, ticket, {}, graph.trace(net, SMALL))
    assert small == net and gain.before == gain.after
    jax.tree.map(np.testing.assert_array_equal, cut, ticket)


class Residual(nn.Module):
    """A user's net: a padded shortcut, a tie, a flatten; widths of two streams and an inner layer.

    Zeros stand before and after the old channels, so that these move as the widths change.
    """

    widths: tuple[int, ...] = (4, 9, 5)

    @nn.compact
    def __call__(self, x):
        first, second, inner = self.widths
        more = second - first
        x = nn.Conv(first, (3, 3), name="conv1")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True, name="bn1")(x))
        short = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))
        y = nn.relu(nn.Conv(inner, (3, 3), name="conv2")(x))
        y = nn.Conv(second, (3, 3), 2, name="conv3")(y)
        x = nn.relu(nn.BatchNorm(use_running_average=True, name="bn3")(y) + short)
        x = x + nn.Conv(second, (3, 3), name="conv4")(x)
        return nn.Dense(3, name="out")(x.reshape(x.shape[0], -1))


@pytest.mark.parametrize("seed", range(2))
def test_padded_channels_take_new_places(seed):
    net, found = Residual(), graph.trace(Residual(), SMALL)
    ticket, units = ticket_of(net, SMALL, seed), random_units(found.wiring, seed)
    small, cut, gain = shrink(net, ticket, units, found)
    assert off_by(net, ticket, units, found, small, cut) < 1e-5
    # channels 2 to 5 of the second stream are those of the first: they stay if either keeps them
    both = units["conv1"] | units["conv3"][2:6]
    outer = units["conv3"][[0, 1, 6, 7, 8]].sum()
    assert small.widths == (both.sum(), both.sum() + outer, units["conv2"].sum())
    # but the mask of the stream that would have let a channel go switches it off
    assert np.any(cut.mask["bn1"]["scale"] > 0) and gain.units["conv1"] == (both.sum(), 4)
    assert cut.mask["bn1"]["scale"].sum() == (ticket.mask["bn1"]["scale"] & units["conv1"]).sum()
    assert cut.mask["bn3"]["scale"].sum() == (ticket.mask["bn3"]["scale"] & units["conv3"]).sum()


class Depthwise(nn.Module):
    """A layer that filters each channel alone, and so has other groups when it has one channel."""

    widths: tuple[int, ...] = (3, 4)

    @nn.compact
    def __call__(self, x):
        expanded, projected = self.widths
        x = nn.Conv(expanded, (1, 1), name="expand")(x)
        x = nn.Conv(expanded, (3, 3), feature_group_count=expanded, name="deep")(x)
        x = nn.Conv(projected, (1, 1), name="project")(nn.relu(x))
        return nn.Dense(3, name="out")(x.mean((1, 2)))


def test_a_depthwise_layer_can_be_cut_to_one_channel():
    net, found = Depthwise(), graph.trace(Depthwise(), SMALL)
    ticket, units = ticket_of(net, SMALL), {"expand": [False, True, False]}
    small, cut, _ = shrink(net, ticket, units, found)
    assert small.widths == (1, 4)
    deep = ticket.params["deep"]["kernel"][..., [1]]
    np.testing.assert_array_equal(cut.params["deep"]["kernel"], deep)
    units = {"expand": np.array(units["expand"])}
    assert off_by(net, ticket, units, found, small, cut) < 1e-5


# --- nets of users -------------------------------------------------------------------------------


class Wide(nn.Module):
    """A net whose body is the function `body(widths, *inputs)`."""

    body: object
    widths: tuple[int, ...] = (4, 6)

    @nn.compact
    def __call__(self, *inputs):
        return self.body(self.widths, *inputs)


class Matrix(nn.Module):
    """A layer that keeps its weights in a leaf that isn't called `kernel`."""

    features: int
    names: tuple[str, ...] = ("weight",)

    @nn.compact
    def __call__(self, x):
        draw, shape = nn.initializers.normal(), (x.shape[-1], self.features)
        return sum(x @ self.param(name, draw, shape) for name in self.names)


def dense(x, *widths, last=3, start=0):
    """Layers with a sigmoid between them, which is not 0 where its input is."""
    for at, width in enumerate(widths, start):
        x = nn.sigmoid(nn.Dense(width, name=f"fc{at}")(x))
    return nn.Dense(last, name="out")(x)


def rows(widths, x):
    return dense(x, *widths)


def other_name(widths, x):
    x = nn.sigmoid(Matrix(widths[0], name="first")(x))
    return Matrix(3, name="out")(nn.sigmoid(Matrix(widths[1], name="second")(x)))


def ends_in_log_softmax(widths, x):
    return nn.log_softmax(dense(x, *widths))


def sequence(widths, x):
    x = nn.sigmoid(nn.Conv(widths[0], (3,), name="conv")(x))
    return dense(x[:, -1] + jax.lax.dynamic_slice(x, (0, 1, 0), (len(x), 1, widths[0]))[:, 0],
                 widths[1])  # fmt: skip


def volume(widths, x):
    x = nn.sigmoid(nn.Conv(widths[0], (2, 2, 2), name="conv")(x))
    return dense(nn.max_pool(x, (2, 2, 2), (2, 2, 2)).reshape(len(x), -1), widths[1])


def tokens(widths, x):
    x = nn.Embed(7, widths[0], name="embed")(x)
    return dense(x.reshape(len(x), -1), widths[1])


def two_inputs_and_outputs(widths, x, y):
    x = nn.sigmoid(nn.Dense(widths[0], name="a")(x) + nn.Dense(widths[0], name="b")(y))
    return {"far": dense(x, widths[1]), "near": nn.Dense(2, name="near")(x), "same": y}


def transposed(widths, x):
    x = nn.sigmoid(nn.ConvTranspose(widths[0], (3, 3), (2, 2), name="up")(x))
    return dense(x.mean((1, 2)), widths[1])


def resized(widths, x):
    """A product with a constant, and a shape that only one example has."""
    x = jax.image.resize(
        nn.sigmoid(nn.Dense(widths[0], name="a")(x)), (1, 6, 6, widths[0]), "linear"
    )
    return dense(x.reshape(1, -1), widths[1])


def einsum(widths, x):
    x = nn.sigmoid(nn.Einsum((4, widths[0]), "nhwc,cd->nhwd", name="einsum")(x))
    return dense(x.mean((1, 2)), widths[1])


def gated_recurrent(widths, x):
    cell = nn.GRUCell(widths[0], name="cell")
    return dense(cell(nn.Dense(widths[0], name="fc")(x[:, 0]), x[:, 1])[1])


def tied_sum(widths, x):
    """Layers whose units meet have a width each, in two pairs of the same size."""
    a, b, c, d = widths
    x = nn.sigmoid(nn.Dense(a, name="a")(x) + nn.Dense(b, name="b")(x))
    return dense(nn.sigmoid(nn.Dense(c, name="c")(x) * nn.Dense(d, name="d")(x)), last=2)


def tied_depthwise(widths, x):
    x = nn.Conv(widths[0], (1, 1), name="expand")(x)
    x = nn.Conv(widths[1], (3, 3), feature_group_count=widths[1], name="deep")(x)
    return dense(nn.sigmoid(x).mean((1, 2)), widths[2])


ROWS, IMAGE = (5,), (4, 4, 4)
TOKENS = jax.ShapeDtypeStruct((3,), "int32")
BOTH = tuple(jax.ShapeDtypeStruct((n,), "float32") for n in (5, 2))
# body: what one example is, the widths, and the groups
WORKS = {
    rows: (ROWS, (4, 6), ["fc0", "fc1"]),
    other_name: (ROWS, (4, 6), ["first", "second"]),
    ends_in_log_softmax: (ROWS, (4, 6), ["fc0", "fc1"]),
    sequence: ((6, 4), (4, 6), ["conv", "fc0"]),
    volume: ((4, 4, 4, 2), (4, 6), ["conv", "fc0"]),
    tokens: (TOKENS, (4, 6), ["embed", "fc0"]),
    two_inputs_and_outputs: (BOTH, (4, 6), ["a", "fc0"]),
    transposed: (IMAGE, (4, 6), ["up", "fc0"]),
    resized: (IMAGE, (4, 6), ["a", "fc0"]),
    einsum: (IMAGE, (4, 6), ["einsum", "fc0"]),
    gated_recurrent: ((2, 4), (4,), ["fc"]),
    tied_sum: (ROWS, (4, 4, 4, 4), ["a", "c"]),
    tied_depthwise: (IMAGE, (4, 4, 4), ["expand", "fc0"]),
}


@pytest.mark.parametrize("body", WORKS, ids=lambda body: body.__name__)
def test_nets_of_users_shrink_to_what_the_masked_ones_compute(body):
    shape, widths, groups = WORKS[body]
    net = Wide(body, widths)
    found = graph.trace(net, shape)
    assert list(found.units) == groups
    ticket, units = ticket_of(net, shape), random_units(found.wiring)
    small, cut, gain = shrink(net, ticket, units, found)
    left = {group.producers: int(units[group.name].sum()) for group in found.wiring}
    assert sorted({*small.widths}) == sorted({*left.values()})
    assert gain.after.multiply_adds < gain.before.multiply_adds
    assert off_by(net, ticket, units, found, small, cut) < 1e-5


def heads(widths, x):
    return dense(nn.DenseGeneral((2, 3), name="heads")(nn.Dense(widths[0], name="fc")(x)).mean(2))


def local(widths, x):
    x = nn.ConvLocal(widths[0], (2,), name="local")(x)
    return dense(x)


def two_kernels(widths, x):
    return Matrix(3, ("weight", "more"), name="two")(nn.Dense(widths[0], name="fc")(x))


@pytest.mark.parametrize("body", [heads, local, two_kernels], ids=lambda body: body.__name__)
def test_nets_without_a_width_for_each_group_shrink_as_programs(body):
    net, shape = Wide(body), (6, 4)
    model, found = nets.functional(net, shape), graph.trace(net, shape)
    ticket, units = ticket_of(net, shape), random_units(found.wiring)
    small, cut, gain = shrink_model(model, ticket, units, found)
    assert gain.after.multiply_adds < gain.before.multiply_adds
    assert off_by(model, ticket, units, found, small, cut) < 1e-5


def sorted_units(widths, x):
    return dense(jnp.sort(nn.Dense(widths[0], name="fc")(x), -1))


def spectrum(widths, x):
    return dense(jnp.abs(jnp.fft.fft(nn.Dense(widths[0], name="fc")(x))))


def chosen_units(widths, x):
    fc = nn.Dense(widths[0], name="fc")(x)
    return dense(jnp.take(fc, jnp.argmax(fc, -1)[0], axis=2, mode="clip"))


# body: the layer, or the module at whose top it happens, and the operation
REFUSED = {
    sorted_units: ("fc", "sort"),
    spectrum: ("fc", "fft"),
    chosen_units: ("fc", "gather"),
}


@pytest.mark.parametrize("body", REFUSED, ids=lambda body: body.__name__)
def test_nets_of_users_that_can_not_be_traced_are_refused_in_one_line(body):
    layer, operation = REFUSED[body]
    with pytest.raises(ValueError) as error:
        graph.trace(Wide(body), (6, 4))
    said = str(error.value)
    assert said.startswith("the units of Wide can't be traced: ") and "\n" not in said
    assert layer in said.split(": ", 1)[1] and re.search(f"'({operation})'", said)


# --- refusals ------------------------------------------------------------------------------------


class Plain(nn.Module):
    """A net without widths."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="out")(nn.Dense(4, name="fc")(x.reshape(x.shape[0], -1)))


class Shared(Plain):
    """A width for two layers, and a layer that has none."""

    widths: tuple[int, ...] = (4, 5)

    @nn.compact
    def __call__(self, x):
        for name, width in (("a", self.widths[0]), ("b", self.widths[0]), ("c", 6)):
            x = nn.relu(nn.Dense(width, name=name)(x.reshape(x.shape[0], -1)))
        return nn.Dense(3, name="out")(x)


class Coincident(nn.Module):
    """A net that grows a shortcut where two widths agree."""

    widths: tuple[int, ...] = (4, 3)

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.widths[0], name="a")(x.mean((1, 2)))
        y = nn.Dense(self.widths[1], name="b")(nn.relu(x))
        return nn.Dense(3, name="out")(x + y if x.shape == y.shape else y)


THREE = [True, True, True, False]


def averaged(widths, x):
    """Divides by the number of units, which the masked net still has."""
    x = nn.sigmoid(nn.Dense(widths[0], name="a")(x.mean((1, 2))))
    return dense(x / widths[0], widths[1], start=1)


def hard_wired(widths, x):
    return dense(nn.Dense(widths[0], name="a")(x.mean((1, 2))).reshape(1, 4))


@pytest.mark.parametrize(
    ("net", "units", "message"),
    [
        (Shared(), {"a": [False] * 4}, "no unit is left in a"),
        (Plain(), {"fc": THREE}, "Plain has no `widths`"),
        (Shared(), {"a": THREE}, "widths[0] sets b and others of another size"),
        (Shared(), {"c": [True] * 5 + [False]}, "none of Shared's widths sets the units of c"),
        (Coincident(), {"a": THREE}, "the net with the new widths has its units on other axes"),
        (Shared(), {"z": THREE}, "units 'z'"),
        (
            Wide(averaged),
            {"a": THREE, "fc1": [True] * 3 + [False] * 3},
            "of its largest output without units of a, which are read by fc1",
        ),
        (Wide(hard_wired), {"a": THREE}, "Wide can't have other widths: "),
    ],
)
def test_what_can_not_be_shrunk_is_refused_in_one_line(net, units, message):
    with pytest.raises(ValueError) as error:
        shrink(net, ticket_of(net, SMALL), units, graph.trace(net, SMALL))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_layers_that_share_a_width_shrink_together():
    net = Shared()
    small, cut, _ = shrink(
        net, ticket_of(net, SMALL), {"a": THREE, "b": THREE[::-1]}, graph.trace(net, SMALL)
    )
    assert small.widths == (3, 5) and cut.params["b"]["kernel"].shape == (3, 3)


# --- which units stay ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chain():
    """Ten, four and two units, and their scores: fc1's are the highest."""
    net = nets.make("lenet5", widths=(10, 4, 2))
    scores = {
        "conv1": np.arange(10) + 6.5,
        "conv2": np.array([3, 1, 4, 2]),
        "fc1": np.array([5, 0]),
    }
    return graph.trace(net, MNIST), scores


def counts(units):
    return [int(np.sum(mask)) for mask in units.values()]


def test_by_layer_keeps_the_best_of_each(chain):
    units = unit_selection.by_layer(*chain, 0.5)
    np.testing.assert_array_equal(units["conv1"], np.arange(10) >= 5)
    np.testing.assert_array_equal(units["conv2"], [True, False, True, False])
    np.testing.assert_array_equal(units["fc1"], [True, False])
    densities = {"conv1": 0.3, "conv2": 1.0, "fc1": 0.5}
    assert counts(unit_selection.by_layer(*chain, densities)) == [3, 4, 1]


def test_over_layers_ranks_all_units_together(chain):
    assert counts(unit_selection.over_layers(*chain, 12 / 16)) == [
        10,
        1,
        1,
    ]  # 6.5 to 15.5, then 5 and 4
    units = unit_selection.over_layers(*chain, 10 / 16, floor=2)
    assert counts(units) == [6, 2, 2]
    np.testing.assert_array_equal(units["conv1"], np.arange(10) >= 4)


@pytest.mark.parametrize(
    ("density", "floor", "multiple", "expected"),
    [
        (0.5, 0, 1, [5, 2, 1]),
        (0.5, 3, 1, [5, 3, 2]),  # fc1 has but two
        (0.5, 0, 2, [6, 2, 2]),  # halves up; one of two is half of a multiple
        (0.4, 0, 4, [4, 4, 2]),  # 4, 2 and 1 of 10, 4 and 2
        (0.9, 0, 8, [8, 4, 2]),  # where no multiple fits, the whole group
        (0.2, 5, 4, [8, 4, 2]),  # not below the floor
        (0.1, 1, 1, [1, 1, 1]),
    ],
)
def test_counts_floors_and_multiples(chain, density, floor, multiple, expected):
    assert counts(unit_selection.by_layer(*chain, density, floor, multiple)) == expected


def test_an_emptied_layer_is_named(chain):
    with pytest.raises(ValueError, match=r"no unit is left in fc1: .* set a floor"):
        unit_selection.by_layer(*chain, 0.2)
    with pytest.raises(ValueError, match="no unit is left in conv2"):
        unit_selection.over_layers(*chain, 0.5, multiple=2)
    with pytest.raises(ValueError, match="no unit is left in conv2"):
        unit_selection.by_layer(*chain, {"conv1": 1.0, "conv2": 0.1, "fc1": 1.0})


@pytest.mark.parametrize("rule", [unit_selection.by_layer, unit_selection.over_layers])
def test_rules_refuse_what_is_no_choice(chain, rule):
    found, scores = chain
    for density in (0, -0.1, 1.1):
        with pytest.raises(ValueError, match=r"outside \(0, 1\]"):
            rule(found, scores, density)
    with pytest.raises(ValueError, match="fc1 has 2 units"):
        rule(found, {**scores, "fc1": np.ones(3)}, 0.5)
    with pytest.raises(ValueError, match="conv2 has 4 units"):
        rule(found, {name: scores[name] for name in ("conv1", "fc1")}, 0.5)
    with pytest.raises(ValueError, match="NaN among the scores of conv2"):
        rule(found, {**scores, "conv2": np.array([1, np.nan, 2, 3])}, 0.5)
    with pytest.raises(ValueError, match="a floor of 3 needs 8"):
        unit_selection.over_layers(found, scores, 0.4, floor=3)


@pytest.mark.parametrize("rule", [unit_selection.by_layer, unit_selection.over_layers])
def test_the_budget_takes_the_largest_choice_that_fits(chain, rule):
    found, scores = chain
    dense = nets.multiply_adds(nets.make("lenet5", widths=(10, 4, 2)), MNIST)

    def cost(units):
        return unit_selection.multiply_adds(found, dense, units)

    choices = [rule(found, scores, keep / 16, floor=1) for keep in range(3, 17)]
    for budget in (cost(choices[-1]), cost(choices[6]), cost(choices[6]) + 1, cost(choices[0])):
        units = unit_selection.to_budget(rule, found, scores, cost, budget)
        without = unit_selection.to_budget(rule, found, scores, cost, budget, floor=0)
        for name, mask in units.items():
            np.testing.assert_array_equal(without[name], mask)
        assert cost(units) == max(cost(c) for c in choices if cost(c) <= budget)
    with pytest.raises(ValueError, match="multiply-adds, but the budget allows"):
        unit_selection.to_budget(rule, found, scores, cost, cost(choices[0]) - 1)


def test_multiply_adds_of_a_choice_are_those_of_the_shrunk_net():
    net = nets.make("preresnet", depth=11, widths=tuple(range(3, 13)))
    found, dense = graph.trace(net, CIFAR), nets.multiply_adds(net, CIFAR)
    units = random_units(found.wiring)
    small, _, gain = shrink(net, ticket_of(net, CIFAR), units, found)
    left = sum(nets.multiply_adds(small, CIFAR).values())
    assert unit_selection.multiply_adds(found, dense, units) == left == gain.after.multiply_adds
    assert gain.before.multiply_adds == sum(dense.values()) > left


def test_shared_channels_stay_or_go_in_all_groups():
    found = graph.trace(Residual(), SMALL)
    # conv3's channels 2 to 5 are conv1's: their scores are the means 4, 1, 3, 2.
    scores = {
        "conv1": np.array([8.0, 1, 3, 4]),
        "conv3": np.array([9.0, 8, 0, 1, 3, 0, 7, 6, 5]),
        "conv2": np.arange(5.0),
    }
    units = unit_selection.by_layer(found, scores, 0.5)
    np.testing.assert_array_equal(units["conv1"], [True, False, True, False])
    own = [True, True, False, False, False]  # of five of its own, two
    np.testing.assert_array_equal(units["conv3"], [*own[:2], *units["conv1"], *own[2:]])
    net = Residual()
    small, _, _ = shrink(net, ticket_of(net, SMALL), units, found)
    assert small.widths == (2, 4, 2)
    total = unit_selection.over_layers(
        found, scores, 0.5
    )  # seven of fourteen: 9 to 5, then 4 and 4
    assert sum(counts(total)) - np.sum(total["conv1"]) == 7
    np.testing.assert_array_equal(total["conv3"][2:6], total["conv1"])


# --- saved, and measured -------------------------------------------------------------------------


def test_shuffled_units_have_the_counts_of_the_given_ones_where_groups_share_units():
    net = nets.make("resnet20", widths=tuple(3 + w // 8 for w in nets.make("resnet20").widths))
    traced = graph.trace(net, CIFAR)
    units = random_units(traced.wiring, density=0.4)
    there = graph.kept(traced, units)
    found = unit_selection.shuffled(jax.random.key(0), traced, units)
    again = graph.kept(traced, found)
    assert (again != there).any()
    for name, places in traced.units.items():
        np.testing.assert_array_equal(found[name], again[places])  # alike in all groups
        assert again[places].sum() == there[places].sum() == found[name].sum(), name


def test_a_small_ticket_is_saved_and_loads_without_the_large_one(tmp_path):
    # wide enough for the arrays to outweigh what the files hold besides
    net = nets.make("cnn960", widths=(16, 20, 24, 28), conv="lax")
    ticket, found = ticket_of(net, CIFAR), graph.trace(net, CIFAR)
    units = random_units(found.wiring)
    small, cut, _ = shrink(net, ticket, units, found)
    tickets.save_ticket(tmp_path / "large", ticket, {"net": nets.to_json(net)})
    tickets.save_ticket(tmp_path / "small", cut, {"net": nets.to_json(small)})
    loaded, provenance = tickets.load_ticket(tmp_path / "small")
    jax.tree.map(np.testing.assert_array_equal, loaded, cut)
    again = nets.from_json(provenance["net"])
    assert off_by(net, ticket, units, found, again, loaded) < 1e-5
    row = latency.on_disk(tmp_path / "large", tmp_path / "small")
    assert row["quantity"] == "bytes on disk" and row["ratio"] == row["before"] / row["after"] > 1.3


def test_latency_and_memory_are_measured_side_by_side():
    pairs = [
        (net, ticket_of(net, (4, 4, 1)))
        for net in (nets.make("lenet300_100", widths=widths) for widths in ((400, 300), (4, 3)))
    ]
    rows = latency.compare(*pairs, (4, 4, 1), batches=(1, 3), repeats=3)
    assert [row["quantity"] for row in rows] == [
        "ms a batch of 1",
        "bytes of memory, batch of 1",
        "ms a batch of 3",
        "bytes of memory, batch of 3",
    ]
    assert all(row["ratio"] == row["before"] / row["after"] and row["after"] > 0 for row in rows)
    for row, batch in ((rows[1], 1), (rows[3], 3)):
        weights = 16 * 400 + 400 * 300 + 3000 + 710
        assert row["before"] >= 4 * (weights + batch * (16 + 10)) > 40 * row["after"]


def test_median_times_are_taken_in_turns():
    seen = []
    times = timing.median_times([lambda: seen.append("a"), lambda: seen.append("b")], 3)
    assert seen == ["a", "b"] * 4 and len(times) == 2 and min(times) >= 0
