"""Units that a mask leaves in use: the small net without the others computes the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxtickets import gates, masks, nets
from jaxtickets.compress import graph
from jaxtickets.compress.shrink import shrink
from jaxtickets.compress.used_units import used_units
from jaxtickets.gates import JOINT_GATES, l0_groups
from jaxtickets.types import Ticket

NETS = {  # the image shape; attributes; the kernels in forward order
    "lenet300_100": ((6, 6, 1), {"widths": (9, 7)}, ("fc1", "fc2", "out")),
    "lenet5": ((20, 20, 1), {"widths": (5, 7, 9), "conv": "lax"}, ("conv1", "conv2", "fc1", "out")),
}


def ticket_of(net, shape, seed=0):
    """A ticket whose weights and biases are all random."""
    params, stats = jax.eval_shape(nets.functional(net, shape).init, jax.random.key(0))
    draw = np.random.default_rng(seed)
    params, stats = jax.tree.map(
        lambda a: draw.uniform(0.2, 1, a.shape).astype("f") - 0.5 * (len(a.shape) > 1),
        (params, stats),
    )
    return Ticket(params, stats, masks.ones(params), np.int32(0))


def same_outputs(net, ticket, small, cut, shape):
    images = np.random.default_rng(3).normal(size=(4, *shape)).astype("f")
    whole, less = (
        jax.jit(nets.functional(one, shape).apply)(masks.apply(t.mask, t.params), t.stats, images)[
            0
        ]
        for one, t in ((net, ticket), (small, cut))
    )
    assert np.ptp(whole) > 0.1
    np.testing.assert_allclose(less, whole, rtol=1e-4, atol=1e-4 * np.abs(whole).max())


@pytest.mark.parametrize("name", NETS)
def test_the_net_cut_by_gates_of_groups_is_the_masked_one(name):
    shape, attributes, layers = NETS[name]
    net = nets.make(name, **attributes)
    ticket, found = ticket_of(net, shape), graph.trace(net, shape)
    prunable = masks.prunable(ticket.params)
    gate = JOINT_GATES["l0_groups"](prunable, None, 0, gates.Setting(1, 1))
    draw = np.random.default_rng(4)
    g = gate.init(jax.random.key(0), ticket.params)
    g = {path: jnp.asarray(draw.uniform(-4, 3, a.shape), "f") for path, a in g.items()}
    mask = gate.harden(g, ticket.params)
    ticket = ticket._replace(mask=mask, params=gate.weights(g, ticket.params))
    units = used_units(mask, found)
    small, cut, _ = shrink(net, ticket, units, found)
    same_outputs(net, ticket, small, cut, shape)
    assert (np.array(small.widths) < net.widths).all()
    # by hand: the groups whose log α is above -log 11
    kernels = [f"{layer}/kernel" for layer in layers]
    left = [int((g[path] > -np.log(11)).sum()) for path in kernels]
    assert l0_groups.architecture(mask, kernels) == "-".join(map(str, left))


def test_units_out_of_use_by_hand():
    # 2-3-3-2 without pixels: unit 0 of fc1 isn't read; unit 1 of fc2 is neither made nor biased;
    # unit 2 of fc1 is only read by that; unit 1 of fc1 has nothing but its bias, and stays.
    net = nets.make("lenet300_100", widths=(3, 3), classes=2)
    ticket, found = ticket_of(net, (1, 2, 1)), graph.trace(net, (1, 2, 1))
    mask = jax.tree.map(np.array, ticket.mask)
    mask["fc2"]["kernel"][0] = False
    mask["fc2"]["kernel"][2] = [False, True, False]
    mask["fc1"]["kernel"][:, 1] = False
    mask["out"]["kernel"][1] = False
    units = used_units(mask, found)
    np.testing.assert_array_equal(units["fc1"], [False, True, False])
    np.testing.assert_array_equal(units["fc2"], [True, False, True])
    mask["fc1"]["bias"][1] = False  # now fc1 makes nothing at all; fc2 has its biases
    units = used_units(mask, found)
    assert not units["fc1"].any() and units["fc2"].sum() == 2
    mask["fc2"]["bias"][2] = False
    assert used_units(mask, found)["fc2"].sum() == 1


def test_a_filter_with_a_batch_norm_stays_for_its_shift():
    net = nets.make("lenet5", widths=(3, 3, 4), batch_norm=True, conv="lax")
    ticket, found = ticket_of(net, (20, 20, 1)), graph.trace(net, (20, 20, 1))
    mask = jax.tree.map(np.array, ticket.mask)
    for leaf in mask["conv1"].values():
        leaf[..., 1] = False
    assert used_units(mask, found)["conv1"].all()
    for leaf in mask["bn1"].values():
        leaf[1] = False
    units = used_units(mask, found)
    np.testing.assert_array_equal(units["conv1"], [True, False, True])


class Padded(nn.Module):
    """A shortcut that pads the channels of one layer to those of the next."""

    widths: tuple[int, ...] = (2, 4)

    @nn.compact
    def __call__(self, x):
        first, second = self.widths
        x = nn.relu(nn.Conv(first, (3, 3), name="conv1")(x))
        short = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, second - first)))
        x = short + nn.Conv(second, (3, 3), name="conv2")(x)
        return nn.Dense(3, name="out")(x.mean((1, 2)))


def test_a_unit_that_groups_share_stays_if_one_reads_it():
    shape, net = (5, 5, 1), Padded()
    ticket, found = ticket_of(net, shape), graph.trace(net, shape)
    mask = jax.tree.map(np.array, ticket.mask)
    mask["conv2"]["kernel"][:, :, 0] = False
    assert all(bits.all() for bits in used_units(mask, found).values())  # `out` reads it
    mask["out"]["kernel"][0] = False
    units = used_units(mask, found)
    np.testing.assert_array_equal(units["conv1"], [False, True])
    np.testing.assert_array_equal(units["conv2"], [False, True, True, True])
    ticket = ticket._replace(mask=mask)
    small, cut, _ = shrink(net, ticket, units, found)
    assert small.widths == (1, 3)
    same_outputs(net, ticket, small, cut, shape)
