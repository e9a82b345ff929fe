"""What the tests of exports share: every net of the registry, small, and a ticket for it."""

from functools import partial

import jax
import numpy as np

from jaxtickets import masks, nets
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


def case_net(name):
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


def images(shape, n=3):
    return np.random.default_rng(1).normal(size=(n, *shape)).astype("f")


@partial(jax.jit, static_argnums=0)
def _logits(net, ticket, images):
    params = masks.apply(ticket.mask, ticket.params)
    return nets.functional(net, images.shape[1:]).apply(params, ticket.stats, images)[0]


def logits(net, ticket, images):
    """The masked net's logits."""
    return np.asarray(_logits(lax_form(net), ticket, images))
