"""The nets of the registry in PyTorch, written from the papers: an oracle for the exports.

Layers have the names that they have here, which is all that the two have in common. A layer is made
when the forward pass first meets it.
"""

from itertools import count, islice

import torch
from torch import nn
from torch.nn import functional as f

from jaxtickets import nets


class Net(nn.Module):
    """A forward pass that makes its layers by name."""

    def __init__(self, forward, net):
        super().__init__()
        self.of, self.net = forward, net
        self.biased = net.use_bias

    def forward(self, images):
        return self.of(self, self.net, images)

    def layer(self, name, make):
        if name not in self._modules:
            self.add_module(name, make())
        return self._modules[name]

    def conv(self, name, x, filters, size, stride=1, padding=0, bias=True, depthwise=False):
        inputs = x.shape[1]
        groups = inputs if depthwise else 1
        bias = bias and self.biased
        return self.layer(
            name,
            lambda: nn.Conv2d(
                inputs, filters, size, stride, padding=padding, groups=groups, bias=bias
            ),
        )(x)

    def dense(self, name, x, units):
        return self.layer(name, lambda: nn.Linear(x.shape[1], units, bias=self.biased))(x)

    def norm(self, name, x):
        kind = nn.BatchNorm2d if x.ndim == 4 else nn.BatchNorm1d
        return self.layer(name, lambda: kind(x.shape[1]))(x)


def mlp(m, net, x):
    x = x.flatten(1)
    for i, units in enumerate(net.widths, 1):
        x = f.relu(m.dense(f"fc{i}", x, units))
    return m.dense("out", x, net.classes)


def lenet(first_padding, sizes=(5, 5), hidden=1):
    def forward(m, net, x):
        normed = getattr(net, "batch_norm", False)
        for i, (size, padding) in enumerate(zip(sizes, (first_padding, 0), strict=True), 1):
            x = m.conv(f"conv{i}", x, net.widths[i - 1], size, padding=padding)
            x = f.max_pool2d(f.relu(m.norm(f"bn{i}", x) if normed else x), 2)
        x = x.flatten(1)
        for i in range(1, 1 + hidden):
            x = m.dense(f"fc{i}", x, net.widths[1 + i])
            x = f.relu(m.norm(f"fc{i}_bn", x) if normed else x)
        return m.dense("out", x, net.classes)

    return forward


def conv246(m, net, x):
    *filters, fc1, fc2 = net.widths
    for i, width in enumerate(filters, 1):
        x = f.relu(m.conv(f"conv{i}", x, width, 3, padding=1))
        x = x if i % 2 else f.max_pool2d(x, 2)
    x = f.relu(m.dense("fc1", x.flatten(1), fc1))
    return m.dense("out", f.relu(m.dense("fc2", x, fc2)), net.classes)


def cnn960(m, net, x):
    for i, (width, stride) in enumerate(zip(net.widths, (2, 1, 2, 1), strict=True), 1):
        x = m.norm(f"bn{i}", f.relu(m.conv(f"conv{i}", x, width, 3, stride)))
    return m.dense("out", x.flatten(1), net.classes)


def vgg(*groups):
    def forward(m, net, x):
        widths, numbers = iter(net.widths), count(1)
        for group, many in enumerate(groups, 1):
            for i in islice(numbers, many):
                x = f.relu(m.norm(f"bn{i}", m.conv(f"conv{i}", x, next(widths), 3, padding=1)))
            if group < 5 or net.form == "large":
                x = f.max_pool2d(x, 2)
        if net.form == "small":
            return m.dense("out", x.mean((2, 3)), net.classes)
        x = f.relu(m.dense("fc1", x.flatten(1), next(widths)))
        return m.dense("out", f.relu(m.dense("fc2", x, next(widths))), net.classes)

    return forward


def alexnet(m, net, x):
    large, widths = net.form == "large", iter(net.widths)
    shapes = ((11, 4, 2 if large else 5), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))
    for i, (size, stride, padding) in enumerate(shapes, 1):
        x = f.relu(m.conv(f"conv{i}", x, next(widths), size, stride, padding))
        if i in (1, 2, 5):
            x = f.max_pool2d(x, 3, 2) if large else f.max_pool2d(x, 2)
    if not large:
        return m.dense("out", x.mean((2, 3)), net.classes)
    x = f.relu(m.dense("fc1", x.flatten(1), next(widths)))
    return m.dense("out", f.relu(m.dense("fc2", x, next(widths))), net.classes)


def resnet(*blocks):
    def forward(m, net, x):
        widths = iter(net.widths)
        stream = next(widths)
        large = getattr(net, "form", "small") == "large"
        size, stride = (7, 2) if large else (3, 1)
        x = m.conv("stem_conv", x, stream, size, stride, size // 2, bias=False)
        x = f.relu(m.norm("stem_bn", x))
        x = f.max_pool2d(x, 3, 2, 1) if large else x
        for stage, many in enumerate(blocks, 1):
            for block in range(1, 1 + many):
                name, stride, short = f"stage{stage}_block{block}", 1, x
                if stage > 1 and block == 1:
                    stream, stride = next(widths), 2
                    if net.shortcut == "conv":
                        short = m.conv(f"{name}_shortcut_conv", x, stream, 1, 2, bias=False)
                        short = m.norm(f"{name}_shortcut_bn", short)
                    else:
                        more = stream - x.shape[1]
                        short = f.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, more))
                y = m.conv(f"{name}_conv1", x, next(widths), 3, stride, 1, bias=False)
                y = f.relu(m.norm(f"{name}_bn1", y))
                y = m.conv(f"{name}_conv2", y, stream, 3, 1, 1, bias=False)
                x = f.relu(short + m.norm(f"{name}_bn2", y))
        return m.dense("out", x.mean((2, 3)), net.classes)

    return forward


def wide(m, net, x):
    widths = iter(net.widths)
    x = m.conv("stem_conv", x, next(widths), 3, padding=1, bias=False)
    for stage in (1, 2, 3):
        stream = next(widths)
        for block in (1, 2, 3):
            name, stride = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
            y = f.relu(m.norm(f"{name}_bn1", x))
            if block == 1:
                x = m.conv(f"{name}_shortcut_conv", y, stream, 1, stride, bias=False)
            y = m.conv(f"{name}_conv1", y, next(widths), 3, stride, 1, bias=False)
            y = f.relu(m.norm(f"{name}_bn2", y))
            x = x + m.conv(f"{name}_conv2", y, stream, 3, padding=1, bias=False)
    return m.dense("out", f.relu(m.norm("final_bn", x)).mean((2, 3)), net.classes)


def preactivation(m, net, x):
    widths = iter(net.widths)
    x = m.conv("stem_conv", x, next(widths), 3, padding=1, bias=False)
    for stage in (1, 2, 3):
        stream = next(widths)
        for block in range(1, 1 + (net.depth - 2) // 9):
            name, stride = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
            short = x
            if block == 1:
                short = m.conv(f"{name}_shortcut_conv", x, stream, 1, stride, bias=False)
            y = f.relu(m.norm(f"{name}_bn1", x))
            y = m.conv(f"{name}_conv1", y, next(widths), 1, bias=False)
            y = f.relu(m.norm(f"{name}_bn2", y))
            y = m.conv(f"{name}_conv2", y, next(widths), 3, stride, 1, bias=False)
            y = f.relu(m.norm(f"{name}_bn3", y))
            x = short + m.conv(f"{name}_conv3", y, stream, 1, bias=False)
    return m.dense("out", f.relu(m.norm("final_bn", x)).mean((2, 3)), net.classes)


def mobilenet(m, net, x):
    def part(name, x, *shape, **more):
        return m.norm(f"{name}_bn", m.conv(f"{name}_conv", x, *shape, bias=False, **more))

    widths, large = iter(net.widths), net.form == "large"
    x = f.relu6(part("stem", x, next(widths), 3, 2 if large else 1, 1))
    stages = ((1, 1, 1), (6, 2, 2), (6, 3, 2), (6, 4, 2), (6, 3, 1), (6, 3, 2), (6, 1, 1))
    for stage, (expansion, blocks, halving) in enumerate(stages, 1):
        for block in range(1, 1 + blocks):
            name, y = f"stage{stage}_block{block}", x
            stride = halving if block == 1 and (large or stage != 2) else 1
            if expansion > 1:
                y = f.relu6(part(f"{name}_expand", y, next(widths), 1))
            y = part(f"{name}_depthwise", y, y.shape[1], 3, stride, 1, depthwise=True)
            stream = next(widths) if block == 1 else x.shape[1]
            y = part(f"{name}_project", f.relu6(y), stream, 1)
            x = y if block == 1 else x + y
    x = f.relu6(part("last", x, next(widths), 1)).mean((2, 3))
    return m.dense("out", x, net.classes)


NETS = {
    "lenet300_100": mlp,
    "mlp": mlp,
    "lenet5": lenet(0),
    "lenet5_lecun": lenet(2, hidden=2),
    "lenet5_29k": lenet(1, (3, 3)),
    "scnn": lenet(0, (3, 3)),
    "conv2": conv246,
    "conv4": conv246,
    "conv6": conv246,
    "cnn960": cnn960,
    "vgg11": vgg(1, 1, 2, 2, 2),
    "vgg16": vgg(2, 2, 3, 3, 3),
    "vgg19": vgg(2, 2, 4, 4, 4),
    "resnet20": resnet(3, 3, 3),
    "resnet32": resnet(5, 5, 5),
    "resnet56": resnet(9, 9, 9),
    "resnet110": resnet(18, 18, 18),
    "resnet18": resnet(2, 2, 2, 2),
    "resnet34": resnet(3, 4, 6, 3),
    "wrn22_2": wide,
    "preresnet": preactivation,
    "mobilenet_v2": mobilenet,
    "alexnet": alexnet,
}
"""Name in the registry -> forward pass."""


def make(net, shape):
    """The torch net of a net of the registry, in evaluation mode; images `[n, c, h, w]`."""
    module = Net(NETS[nets.name_of(net)], net).eval()
    height, width, channels = shape
    with torch.no_grad():
        module(torch.zeros(2, channels, height, width))
    return module.eval()
