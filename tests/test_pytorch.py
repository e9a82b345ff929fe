"""State dicts: layouts worked by hand; what has no counterpart in PyTorch, or isn't of the net."""

import jax
import numpy as np
import pytest
from exported import logits, masked, random_ticket, small_net
from flax import linen as nn

from jaxtickets.io import pytorch

NET, SHAPE = small_net("conv2")
TICKET = random_ticket(NET, SHAPE)


def test_kernels_and_flattened_inputs_are_where_torch_has_them():
    state = pytorch.to_state_dict(NET, SHAPE, TICKET, pruned=False)
    params = masked(TICKET).params
    # images of 6x7 are pooled once: 3x3 pixels with 3 channels
    kernel, weight = params["fc1"]["kernel"], state["fc1.weight"]
    assert kernel.shape == (27, 4) and weight.shape == (4, 27)
    for y, x, c, unit in np.ndindex(3, 3, 3, 4):
        assert weight[unit, c * 9 + y * 3 + x] == kernel[(y * 3 + x) * 3 + c, unit]
    kernel, weight = params["conv2"]["kernel"], state["conv2.weight"]
    for row, column, channel, filter_ in np.ndindex(*kernel.shape):
        assert weight[filter_, channel, row, column] == kernel[row, column, channel, filter_]
    np.testing.assert_array_equal(state["out.weight"], params["out"]["kernel"].T)
    np.testing.assert_array_equal(state["out.bias"], params["out"]["bias"])


def test_without_pruned_leaves_all_is_kept():
    state = pytorch.to_state_dict(NET, SHAPE, TICKET, pruned=False)
    back = pytorch.from_state_dict(NET, SHAPE, dict(reversed(state.items())))
    jax.tree.map(np.testing.assert_array_equal, back.params, masked(TICKET).params)
    assert all(leaf.all() for leaf in jax.tree.leaves(back.mask))


class Grouped(nn.Module):
    """Two groups, unequal strides and kernel, 'SAME' padding, and a layer within a layer."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (3, 2), strides=(2, 1), feature_group_count=2, name="conv")(x)
        return Head(name="head")(nn.relu(x) + 1)


class Head(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="dense")(2 * x.reshape(len(x), -1))


def test_a_net_outside_the_registry_needs_only_its_equations():
    torch = pytest.importorskip("torch")
    f, shape = torch.nn.functional, (6, 5, 4)
    ticket = random_ticket(Grouped(), shape)
    images = np.random.default_rng(2).normal(size=(2, *shape)).astype("f")
    state = pytorch.to_state_dict(Grouped(), shape, ticket, pruned=False)
    named = {name: torch.from_numpy(array) for name, array in state.items()}
    assert list(named) == ["conv.weight", "conv.bias", "head.dense.weight", "head.dense.bias"]
    x = f.pad(torch.from_numpy(images.transpose(0, 3, 1, 2)), (0, 1, 0, 1))  # 'SAME': at the end
    x = f.conv2d(x, named["conv.weight"], named["conv.bias"], (2, 1), groups=2)
    x = 2 * (f.relu(x) + 1).flatten(1)
    found = f.linear(x, named["head.dense.weight"], named["head.dense.bias"]).numpy()
    expected = logits(Grouped(), ticket, images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


class Words(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.Embed(5, 4)(x).mean(1))


def test_an_embedding_keeps_its_layout():
    words = jax.ShapeDtypeStruct((2,), "int32")
    ticket = random_ticket(Words(), words)
    state = pytorch.to_state_dict(Words(), words, ticket)
    table = ticket.params["Embed_0"]["embedding"]
    np.testing.assert_array_equal(state["Embed_0.weight_orig"], table)
    back = pytorch.from_state_dict(Words(), words, state)
    jax.tree.map(np.testing.assert_array_equal, back.mask, ticket.mask)


def changed(**entries):
    """The state of the net with entries replaced, or left out where they are None."""
    state = pytorch.to_state_dict(NET, SHAPE, TICKET)
    state |= {name.replace("__", "."): value for name, value in entries.items()}
    return {name: value for name, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (changed(conv1__bias=None), r"isn't of Conv2: it lacks conv1.bias\Z"),
        (changed(bn1__weight=np.ones(3)), r"isn't of Conv2: it has bn1.weight too many\Z"),
        (
            {"layer1.weight": np.ones(3)},
            r"lacks conv1.weight, conv1.bias, conv2.weight, conv2.bias, fc1.weight, fc1.bias and "
            r"4 more, and has layer1.weight too many\Z",
        ),
        (changed(conv1__weight_orig=None), r"it lacks conv1.weight_orig\Z"),
        (changed(fc2__bias=np.ones(5)), r"fc2.bias has the shape \(5,\), must have \(4,\)\Z"),
        (changed(fc2__bias=np.array(["a"] * 4)), r"fc2.bias holds <U1, must hold numbers\Z"),
        (
            changed(out__weight_mask=np.full((4, 4), 0.5)),
            r"out.weight_mask has other values than 0 and 1: it is no mask\Z",
        ),
    ],
)
def test_a_state_of_another_architecture_says_which_entries(state, reason):
    with pytest.raises(ValueError, match=reason):
        pytorch.from_state_dict(NET, SHAPE, state)


def test_a_tensor_that_numpy_lacks_says_so():
    torch = pytest.importorskip("torch")
    state = changed(fc2__bias=torch.ones(4, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=r"fc2\.bias has a dtype that numpy lacks"):
        pytorch.from_state_dict(NET, SHAPE, state)


def test_a_ticket_of_another_net_says_so():
    other, shape = small_net("conv4")
    with pytest.raises(ValueError, match="the ticket's params aren't those of Conv4"):
        pytorch.to_state_dict(other, shape, TICKET)


class Transposed(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.ConvTranspose(2, (2, 2), strides=(2, 2), name="up")(x)


class Heads(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.DenseGeneral((2, 3), use_bias=False, name="heads")(x)


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="out")(nn.LayerNorm()(x.reshape(len(x), -1)))


class Scaled(nn.Module):
    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.ones, (3, 3))
        return x @ (2 * kernel)


class Alpha(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x * self.param("alpha", nn.initializers.ones, (3,))[None]


class Tied(nn.Module):
    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.ones, (12, 12))
        flat = x.reshape(len(x), -1)
        return (flat @ kernel) @ kernel


@pytest.mark.parametrize(
    ("net", "shape", "reason"),
    [
        (Transposed(), (4, 4, 3), "up/kernel has no counterpart in PyTorch: .* is transposed"),
        (Heads(), (3,), "heads/kernel has no counterpart in PyTorch: .* is no product of a"),
        (
            Normed(),
            (2, 2, 3),
            "out/kernel reads images whose order is lost at .* in Normed/LayerNorm_0",
        ),
        (Scaled(), (3,), "kernel has no counterpart in PyTorch: it is read by 'mul'"),
        (Alpha(), (3,), "alpha has no counterpart in PyTorch"),
        (Tied(), (2, 2, 3), "read kernel in two layouts"),
    ],
)
def test_a_layer_without_a_counterpart_is_named(net, shape, reason):
    ticket = random_ticket(net, shape)
    with pytest.raises(ValueError, match=reason) as error:
        pytorch.to_state_dict(net, shape, ticket)
    assert "\n" not in str(error.value)
