"""What the tests of exports share: every net of the registry, small, and a ticket for it."""

from functools import partial

import jax
import numpy as np

from jaxtickets import nets
from jaxtickets.nets.convolution import lax_form
from jaxtickets.types import Ticket

# name: (image shape, attributes); images and widths as small as the net allows
CASES = {
    "lenet300_100": ((4, 5, 3), {}),
    "mlp": ((4, 5, 2), {"widths": (7, 6, 5)}),
    "lenet5": ((16, 20, 2), {"batch_norm": True}),
    "lenet5_lecun": ((14, 15, 1), {}),
    "lenet5_29k": ((11, 12, 1), {}),
    "scnn": ((11, 15, 2), {"use_bias": False}),
    "conv2": ((6, 7, 3), {}),
    "conv4": ((8, 9, 3), {}),
    "conv6": ((8, 16, 3), {}),
    "cnn960": ((19, 24, 3), {}),
    "vgg11": ((33, 64, 3), {"form": "large"}),
    "vgg16": ((16, 17, 3), {}),
    "vgg19": ((16, 16, 3), {}),
    "resnet20": ((7, 8, 3), {}),
    "resnet32": ((4, 5, 3), {"shortcut": "conv"}),
    "resnet56": ((4, 4, 3), {}),
    "resnet110": ((4, 4, 3), {}),
    "resnet18": ((33, 34, 3), {"form": "large"}),
    "resnet34": ((8, 8, 3), {"shortcut": "pad"}),
    "wrn22_2": ((7, 8, 3), {}),
    "preresnet": ((6, 7, 3), {"depth": 20}),
    "mobilenet_v2": ((15, 16, 3), {"form": "large"}),
    "alexnet": ((64, 70, 3), {"form": "large"}),
}
WIDEST = 8


def small_net(name):
    """The net of a case, with widths of at most `WIDEST`, and its image shape.

    Different widths stay different where they are few; a padded shortcut must not narrow.
    """
    shape, attributes = CASES[name]
    net = nets.make(name, classes=4, **attributes)
    if "widths" in attributes:
        return net, shape
    order = sorted(set(net.widths))
    return net.clone(widths=tuple(min(WIDEST, 3 + order.index(w)) for w in net.widths)), shape


def random_ticket(net, shape, seed=0, density=0.7):
    """A ticket in which no number is trivial; variances are positive."""
    draw = np.random.default_rng(seed)

    def leaf(shape):
        if len(shape) == 1:
            return draw.uniform(0.5, 1.5, shape).astype("f")
        return draw.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape).astype("f")

    init = nets.functional(net, shape).init
    params, stats = jax.tree.map(lambda a: leaf(a.shape), jax.eval_shape(init, jax.random.key(0)))
    mask = jax.tree.map(lambda a: (draw.random(a.shape) < density) | (a.ndim == 1), params)
    return Ticket(params, stats, mask, np.int32(7))


def examples(shape, n=3):
    """Random images `[n, h, w, c]`."""
    return np.random.default_rng(1).normal(size=(n, *shape)).astype("f")


OP_BY_OP = 56
"""The fewest layers of a net that is not compiled as a whole, which would take longer."""


def masked(ticket):
    """The ticket with zeros where the mask removes a weight."""
    zeroed = jax.tree.map(lambda w, bits: np.where(bits, w, w.dtype.type(0)), *ticket[:3:2])
    return ticket._replace(params=zeroed)


@partial(jax.jit, static_argnums=0)
def _compiled(net, params, stats, images):
    return nets.functional(net, images.shape[1:]).apply(params, stats, images)[0]


def logits(net, ticket, images):
    """The masked net's logits here."""
    net, params = lax_form(net), masked(ticket).params
    if len(params) < 2 * OP_BY_OP:
        return np.asarray(_compiled(net, params, ticket.stats, images))
    return np.asarray(nets.functional(net, images.shape[1:]).apply(params, ticket.stats, images)[0])


def close(found, expected):
    """Equal but for rounding, by the largest logit."""
    assert found.shape == expected.shape and np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6 * np.abs(expected).max())
