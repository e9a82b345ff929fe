"""The registry of nets: creates nets by name, and converts them to and from JSON."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen as nn

from jaxtickets.nets.alexnet import AlexNet
from jaxtickets.nets.cnn960 import CNN960
from jaxtickets.nets.conv246 import Conv2, Conv4, Conv6
from jaxtickets.nets.convolution import convolution
from jaxtickets.nets.image_scale import FORMS, form_of
from jaxtickets.nets.inits import initializer
from jaxtickets.nets.lenet5 import LeNet5
from jaxtickets.nets.lenet5_29k import LeNet529k
from jaxtickets.nets.lenet5_lecun import LeNet5LeCun
from jaxtickets.nets.lenet300_100 import LeNet300100
from jaxtickets.nets.mlp import MLP
from jaxtickets.nets.mobilenet_v2 import MobileNetV2
from jaxtickets.nets.preresnet import PreResNet
from jaxtickets.nets.resnet import (
    SHORTCUTS,
    ResNet18,
    ResNet20,
    ResNet32,
    ResNet34,
    ResNet56,
    ResNet110,
)
from jaxtickets.nets.scnn import SCNN
from jaxtickets.nets.vgg import VGG11, VGG16, VGG19
from jaxtickets.nets.wrn22_2 import WRN222

NETS: dict[str, type[nn.Module]] = {
    "lenet300_100": LeNet300100,
    "lenet5": LeNet5,
    "lenet5_lecun": LeNet5LeCun,
    "lenet5_29k": LeNet529k,
    "mlp": MLP,
    "scnn": SCNN,
    "conv2": Conv2,
    "conv4": Conv4,
    "conv6": Conv6,
    "cnn960": CNN960,
    "vgg11": VGG11,
    "vgg16": VGG16,
    "vgg19": VGG19,
    "resnet20": ResNet20,
    "resnet32": ResNet32,
    "resnet56": ResNet56,
    "resnet110": ResNet110,
    "resnet18": ResNet18,
    "resnet34": ResNet34,
    "wrn22_2": WRN222,
    "preresnet": PreResNet,
    "mobilenet_v2": MobileNetV2,
    "alexnet": AlexNet,
}
"""Name -> class. Beside its attributes, a class has the fact `image_shape`, see `image_shape`."""

CHOICES = {"form": FORMS, "shortcut": SHORTCUTS}
"""The values of string attributes."""


def names() -> tuple[str, ...]:
    """The names of the nets.

    >>> names()[:3]
    ('lenet300_100', 'lenet5', 'lenet5_lecun')
    """
    return tuple(NETS)


def image_shape(name: str) -> tuple[int, int, int]:
    """`(h, w, c)` of the images for which a net is benchmarked; it takes others too.

    >>> image_shape("lenet5")
    (28, 28, 1)
    """
    shape: tuple[int, int, int] = NETS[name].image_shape  # type: ignore[attr-defined]
    return shape


def make(name: str, /, *, shape: Sequence[int] | None = None, **attributes: Any) -> nn.Module:
    """The net of a name; attributes that are not given have their class's defaults.

    Args:
      name: one of `names()`.
      shape: `(h, w, c)` of the images, from which a net with two forms takes its `form` unless that
        is given.
      attributes: the net's attributes.

    Raises:
      ValueError: in one line: an unknown net or attribute, or an invalid value.

    >>> make("vgg11", shape=(224, 224, 3), classes=1000).form
    'large'
    >>> make("lenet300_100", widths=(8, 4)).widths
    (8, 4)
    """
    if name not in NETS:
        raise ValueError(f"unknown net '{name}': one of {', '.join(NETS)}")
    kind = NETS[name]
    known = _attributes(kind)
    if unknown := sorted(set(attributes) - set(known)):
        raise ValueError(f"{name} has no attribute {unknown[0]}: it has {', '.join(known)}")
    if shape is not None and "form" in known:
        attributes = {"form": form_of(shape)} | attributes
    _check(name, known | attributes)
    usual = kind(**{key: value for key, value in attributes.items() if key != "widths"})
    widths = tuple(attributes.get("widths", usual.widths))
    if len(widths) != len(usual.widths) or any(type(w) is not int or w < 1 for w in widths):
        expected = len(usual.widths)
        raise ValueError(f"{name} takes {expected} widths, whole and at least 1, not {widths}")
    return kind(**attributes | {"widths": widths})


def name_of(net: nn.Module) -> str:
    """The name of the net's class in the registry.

    Raises:
      ValueError: the class is not in the registry.

    >>> name_of(make("vgg11"))
    'vgg11'
    """
    for name, kind in NETS.items():
        if type(net) is kind:
            return name
    raise ValueError(f"{type(net).__name__} is none of the nets {', '.join(NETS)}")


def to_json(net: nn.Module) -> dict[str, Any]:
    """`{'name': ..., attribute: value, ...}`, in types that JSON preserves.

    >>> to_json(make("lenet300_100", widths=(8, 4), use_bias=False))
    {'name': 'lenet300_100', 'widths': [8, 4], 'classes': 10, 'use_bias': False,
     'initializer': 'glorot_normal'}
    """
    name = name_of(net)
    values = {attribute: getattr(net, attribute) for attribute in _attributes(type(net))}
    return {"name": name} | values | {"widths": list(values["widths"])}


def from_json(written: Mapping[str, Any]) -> nn.Module:
    """The net that `to_json` described.

    Raises:
      ValueError: as in `make`.

    >>> from_json(to_json(make("lenet300_100", widths=(8, 4)))).widths
    (8, 4)
    """
    return make(written["name"], **{key: value for key, value in written.items() if key != "name"})


def output_layer(net: nn.Module) -> str:
    """The name of the layer that computes the logits.

    Raises:
      ValueError: the net is not in the registry.

    >>> output_layer(make("lenet5"))
    'out'
    """
    name_of(net)
    return "out"


def _attributes(kind: type[nn.Module]) -> dict[str, Any]:
    """A net's own attributes and their defaults, without the two that flax adds."""
    fields = dataclasses.fields(kind)
    return {field.name: field.default for field in fields if field.name not in ("parent", "name")}


def _check(name: str, values: Mapping[str, Any]) -> None:
    """Raises ValueError if an attribute other than the widths has an invalid value."""
    for attribute, choices in CHOICES.items():
        if values.get(attribute, choices[0]) not in choices:
            raise ValueError(
                f"unknown {attribute} '{values[attribute]}' of {name}: one of {', '.join(choices)}"
            )
    if values["classes"] < 1:
        raise ValueError(f"{name} takes at least 1 class, not {values['classes']}")
    if not 0 <= values.get("dropout", 0) < 1:
        raise ValueError(f"{name} takes a dropout in [0, 1), not {values['dropout']}")
    if not values.get("width", 1) > 0:
        raise ValueError(f"{name} takes a width above 0, not {values['width']}")
    initializer(values["initializer"])
    if "conv" in values:
        convolution(values["conv"])
