"""The channel graph: hand-written wirings of chains, and of toys with every kind of tie."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxtickets import nets
from jaxtickets.compress import graph
from jaxtickets.nets.convolution import im2col, max_pool2
from jaxtickets.types import Feed, Span, Units

SHAPE = (8, 8, 3)
MNIST, CIFAR = (28, 28, 1), (32, 32, 3)


class Toy(nn.Module):
    """A net whose body is the function `body(x)`."""

    body: object

    @nn.compact
    def __call__(self, x):
        return self.body(x)


def conv(name, x, features, size=3, **options):
    return nn.Conv(features, (size, size), name=name, **options)(x)


def norm(name, x):
    return nn.BatchNorm(use_running_average=True, name=name)(x)


def out(x):
    return nn.Dense(10, name="out")(x)


def wire(body, shape=SHAPE):
    return graph.trace(Toy(body), shape).wiring


# --- chains --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", nets.names())
def test_the_traced_wiring_is_the_one_written_by_hand(name):
    for shape in (MNIST, CIFAR) if name == "lenet5" else (CIFAR,):
        net = nets.make(name, shape=shape)
        if not nets.wiring(net, shape):
            pytest.skip("not a chain: its wiring is only traced")
        net = net.clone(widths=tuple(3 + i for i in range(len(net.widths))))
        written = nets.wiring(net, shape)
        assert [group.size for group in written] == list(net.widths)
        assert graph.trace(net, shape).wiring == written


def test_batch_norms_where_a_net_leaves_them_open_follow_all_its_hidden_layers():
    net = nets.make("lenet5", widths=(3, 4, 5), batch_norm=True)
    groups = graph.trace(net, MNIST).wiring
    assert [group.norms for group in groups] == [("bn1",), ("bn2",), ("fc1_bn",)]
    assert groups == nets.wiring(net, MNIST)
    shapes = [
        jax.eval_shape(nets.functional(one, MNIST).init, jax.random.key(0))[0]
        for one in (net, net.clone(batch_norm=False))
    ]
    counts = [sum(leaf.size for leaf in jax.tree.leaves(params)) for params in shapes]
    assert counts[0] - counts[1] == 2 * (3 + 4 + 5)


def test_large_forms_flatten_before_their_dense_layers():
    net = nets.make("vgg11", form="large", widths=tuple(range(2, 12)))
    groups = graph.trace(net, (64, 64, 3)).wiring
    assert groups == nets.wiring(net, (64, 64, 3))
    assert groups[7].consumers == (Feed("fc1", 4),)  # 64 pixels a side, halved five times


# --- ties ----------------------------------------------------------------------------------------


def residual(x):
    x = nn.relu(norm("bn1", conv("conv1", x, 4)))
    y = nn.relu(norm("bn2", conv("conv2", x, 5)))
    x = nn.relu(norm("bn3", conv("conv3", y, 4)) + x)
    return out(x.reshape(x.shape[0], -1))


def test_a_residual_sum_ties_its_producers():
    assert wire(residual) == (
        Units("conv1", 4, ("conv1", "conv3"), ("bn1", "bn3"), (Feed("conv2", 1), Feed("out", 64))),
        Units("conv2", 5, ("conv2",), ("bn2",), (Feed("conv3", 1),)),
    )


def padded(x):
    x = conv("conv1", x, 2)
    short = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (1, 2)))
    x = conv("conv2", nn.relu(x), 5, strides=2) + short
    return out(nn.relu(x).mean((1, 2)))


def test_groups_share_the_channels_of_a_padded_shortcut():
    found = graph.trace(Toy(padded), SHAPE)
    assert found.wiring == (
        Units("conv1", 2, ("conv1",), (), (Feed("conv2", 1),)),
        Units("conv2", 5, ("conv2",), (), (Feed("out", 1),)),
    )
    assert list(found.units["conv2"][1:3]) == list(found.units["conv1"])
    assert len({*found.units["conv1"], *found.units["conv2"]}) == 5


@pytest.mark.parametrize("form", [jax.lax.conv_general_dilated, im2col])
def test_depthwise_filters_are_tied_to_their_channels(form):
    def body(x):
        x = nn.relu(conv("expand", x, 6, 1, conv_general_dilated=form))
        x = norm("bn", conv("deep", x, 6, feature_group_count=6, conv_general_dilated=form))
        return out(conv("project", x, 4, 1, conv_general_dilated=form).mean((1, 2)))

    assert wire(body) == (
        Units("expand", 6, ("expand", "deep"), ("bn",), (Feed("project", 1),)),
        Units("project", 4, ("project",), (), (Feed("out", 1),)),
    )


def test_both_forms_of_convolution_have_the_same_graph():
    def body(x, form):
        pooled = []
        for layer, (features, stride, padding) in enumerate(((4, 1, "SAME"), (5, 2, "VALID"))):
            x = conv(f"c{layer}", x, features, strides=stride, padding=padding,
                     conv_general_dilated=form)  # fmt: skip
            pooled.append(x.mean((1, 2)))
        return out(max_pool2(x).reshape(1, -1)) + nn.Dense(10, name="side")(pooled[0])

    forms = (im2col, jax.lax.conv_general_dilated)
    first, second = (graph.trace(Toy(functools.partial(body, form=f)), SHAPE) for f in forms)
    assert first.wiring == second.wiring == (
        Units("c0", 4, ("c0",), (), (Feed("c1", 1), Feed("side", 1))),
        Units("c1", 5, ("c1",), (), (Feed("out", 1),)),
    )  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, first.axes, second.axes)


def test_gates_shared_layers_and_inner_modules():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            gate = nn.Dense(2, name="down")(x.mean((1, 2)))
            gate = nn.sigmoid(nn.Dense(x.shape[-1], name="up")(nn.gelu(gate)))
            return x * gate[:, None, None, :]

    def body(x):
        x = nn.remat(Block)(name="gate")(conv("conv", x, 4))
        x = nn.avg_pool(nn.max_pool(x, (3, 3), (1, 1), "SAME"), (2, 2), (2, 2)).transpose(
            0, 3, 1, 2
        )
        twice = nn.Dense(4, name="twice")
        return out(twice(nn.silu(twice(x.mean((2, 3))))))

    assert wire(body) == (
        Units("conv", 4, ("conv", "gate/up", "twice"), (),
              (Feed("gate/down", 1), Feed("twice", 1), Feed("out", 1))),
        Units("gate/down", 2, ("gate/down",), (), (Feed("gate/up", 1),)),
    )  # fmt: skip


def test_units_keep_their_own_number_through_moves():
    def body(x):
        x = conv("conv", x, 3)
        x = jnp.concatenate([x[..., :1], jnp.flip(x[..., 1:], -1)[..., ::-1]], -1)
        a, b = jnp.split(x, [2], -1)
        x = jnp.concatenate([a, b], -1)[:, 0]
        x = jnp.stack([x[..., unit] for unit in range(3)], -1)
        first, *_ = jnp.tile(jax.lax.stop_gradient(x), (1, 2, 1))
        return out(first.reshape(1, -1))

    assert wire(body) == (Units("conv", 3, ("conv",), (), (Feed("out", 16),)),)


def test_a_layer_without_reader_has_no_consumers_and_constants_tie_nothing():
    def body(x):
        conv("idle", x, 3)
        return out(
            nn.relu(conv("conv", x * jnp.ones_like(x), 2) + jnp.ones((1, 8, 8, 2))).max((1, 2))
        )

    assert wire(body) == (
        Units("idle", 3, ("idle",), (), ()),
        Units("conv", 2, ("conv",), (), (Feed("out", 1),)),
    )


def test_units_that_are_added_to_the_images_can_not_go():
    def body(x):
        x = x + conv("conv", nn.relu(conv("inner", x, 4)), 3)
        return out(x.mean((1, 2)))

    assert wire(body) == (Units("inner", 4, ("inner",), (), (Feed("conv", 1),)),)


# --- resnets and mobilenet -----------------------------------------------------------------------


def groups_of(name, shape=(32, 32, 3), **attributes):
    return {g.name: g for g in graph.trace(nets.make(name, **attributes), shape).wiring}


def test_streams_and_inner_widths_of_resnet20():
    groups = groups_of("resnet20")
    inner = [f"stage{s}_block{b}_conv1" for s in (1, 2, 3) for b in (1, 2, 3)]
    assert set(groups) == {"stem_conv", "stage2_block1_conv2", "stage3_block1_conv2", *inner}
    stream = groups["stage2_block1_conv2"]
    assert stream.size == 32
    assert stream.producers == tuple(f"stage2_block{b}_conv2" for b in (1, 2, 3))
    assert stream.norms == tuple(f"stage2_block{b}_bn2" for b in (1, 2, 3))
    assert stream.consumers == tuple(
        Feed(f"stage{s}_block{b}_conv1", 1) for s, b in ((2, 2), (2, 3), (3, 1))
    )
    found = graph.trace(nets.make("resnet20"), (32, 32, 3)).units
    for before, after in (("stem_conv", stream.name), (stream.name, "stage3_block1_conv2")):
        assert set(found[before]) < set(found[after])
        np.testing.assert_array_equal(found[after][: len(found[before])], found[before])


def test_preactivated_norms_belong_to_the_stream_that_they_read():
    groups = groups_of("preresnet", depth=11)
    assert groups["stem_conv"].norms == ("stage1_block1_bn1",)
    stream = groups["stage1_block1_shortcut_conv"]
    assert stream.producers == ("stage1_block1_shortcut_conv", "stage1_block1_conv3")
    assert stream.norms == ("stage2_block1_bn1",)
    assert stream.consumers == (
        Feed("stage2_block1_shortcut_conv", 1),
        Feed("stage2_block1_conv1", 1),
    )


def test_inverted_bottlenecks_of_mobilenet():
    groups = groups_of("mobilenet_v2")
    assert [group.size for group in groups.values()][:4] == [32, 16, 96, 24]
    assert sum(len(group.producers) for group in groups.values()) == 52  # all but the output
    expanded = groups["stage3_block2_expand_conv"]
    assert expanded.producers == ("stage3_block2_expand_conv", "stage3_block2_depthwise_conv")
    stream = groups["stage3_block1_project_conv"]
    assert stream.producers == tuple(f"stage3_block{b}_project_conv" for b in (1, 2, 3))


# --- units at other places than the last axis of one kernel --------------------------------------


def paired(x):
    x = conv("conv", x, 4)
    return x + x[..., ::-1]


def shuffled(x):
    x = conv("conv", x, 4)
    return x + conv("other", x, 4)[..., ::-1]


def joined(x):
    return jnp.concatenate([conv("a", x, 2), conv("b", x, 3)], -1)


def with_images(x):
    return conv("conv", x, 4) + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1)))


def of_group(body, name, shape=SHAPE):
    def whole(x):
        return out(body(x).mean((1, 2)))

    return next(group for group in wire(whole, shape) if group.name == name)


def test_layers_that_are_concatenated_keep_their_own_units():
    first, second = (of_group(joined, name) for name in "ab")
    assert first == Units("a", 2, ("a",), (), (), (Span("out/kernel", -2, (0, 1, -1, -1, -1)),))
    assert second.spans == (Span("out/kernel", -2, (-1, -1, 0, 1, 2)),)


def test_units_in_another_order_and_pairs_of_units_are_spans():
    other = of_group(shuffled, "conv")
    assert other.spans == (
        Span("other/kernel", -1, (3, 2, 1, 0)),
        Span("other/bias", -1, (3, 2, 1, 0)),
    )
    pairs = of_group(paired, "conv")  # the first and the last channel are one unit
    assert pairs.size == 2 and pairs.producers == ()
    assert Span("conv/kernel", -1, (0, 1, 1, 0)) in pairs.spans


def test_units_that_partly_meet_the_images_are_cut_where_they_do_not():
    (span, *_) = of_group(with_images, "conv").spans
    assert span == Span("conv/kernel", -1, (-1, -1, -1, 0))


def grouped(x):
    return conv("second", conv("conv", x, 4), 6, feature_group_count=2)


def multiplied(x):
    return conv("second", conv("conv", x, 4), 8, feature_group_count=4)


def test_a_grouped_convolution_has_whole_groups_and_places_within_them():
    groups, inner, made = (
        of_group(grouped, name) for name in ("conv[-1.0]", "conv[-1.1]", "second[-1.1]")
    )
    assert (groups.size, inner.size, made.size) == (2, 2, 3)
    assert Span("conv/kernel", -1, (0, 0, 1, 1)) in groups.spans
    assert Span("second/kernel", -1, (0, 0, 0, 1, 1, 1)) in groups.spans
    assert Span("conv/kernel", -1, (0, 1, 0, 1)) in inner.spans
    assert inner.consumers == (Feed("second", 1),)
    assert made.consumers == (Feed("out", 2),)
    assert Span("second/kernel", -1, (0, 0, 1, 1, 2, 2, 3, 3)) in of_group(multiplied, "conv").spans


# --- what can't be traced ------------------------------------------------------------------------


def sums(x):
    return jnp.cumsum(conv("conv", x, 4), -1)


def sigmoid_sum(x):
    """A removed unit is 0 before the sigmoid, and 1/2 in the sum."""
    x = nn.sigmoid(conv("conv", x, 4))
    return x / x.sum(-1, keepdims=True)


def sigmoid_products(x):
    x = nn.sigmoid(conv("conv", x, 4))
    return jnp.einsum("nhwc,nvuc->nhwv", x, x)


def fixed_size(x):
    x = conv("conv", x, 6)
    return x.reshape(len(x), 8, -1, 4)


def maxout(x):
    x = conv("conv", x, 4)
    return x.reshape(*x.shape[:-1], 2, 2).max(-1)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (sums, "'cumsum' in Toy has no rule for channels"),
        (maxout, "'reduce_max' in Toy mixes units of conv"),
        (sigmoid_sum, "'reduce_sum' in Toy mixes units of conv"),
        (sigmoid_products, "mixes units of conv"),
        (fixed_size, "'reshape' in Toy"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_line(body, message):
    def whole(x):
        return out(body(x).mean((1, 2)))

    with pytest.raises(ValueError) as error:
        wire(whole)
    assert str(error.value).startswith("the units of Toy can't be traced: ")
    assert message in str(error.value) and "\n" not in str(error.value)


# --- which units stay ----------------------------------------------------------------------------


def test_a_shared_unit_stays_if_one_of_its_groups_keeps_it():
    found = graph.trace(Toy(padded), SHAPE)
    first, second = found.units["conv1"], found.units["conv2"]
    stays = graph.kept(found, {"conv1": [True, False], "conv2": [False, False, True, True, False]})
    np.testing.assert_array_equal(stays[second], [False, True, True, True, False])
    np.testing.assert_array_equal(stays[first], [True, True])
    assert stays[0] and graph.kept(found, {}).all()
    assert not graph.kept(found, {"conv1": [False] * 2, "conv2": [False] * 5})[second].any()


@pytest.mark.parametrize("units", [{"conv9": [True]}, {"conv1": [True]}])
def test_masks_of_other_groups_or_sizes_are_refused(units):
    with pytest.raises(ValueError, match="for units 'conv"):
        graph.kept(graph.trace(Toy(padded), SHAPE), units)
