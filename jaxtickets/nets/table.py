"""The nets by name: made from attributes, written to JSON and read from it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from jaxtickets.nets.cnn960 import CNN960
from jaxtickets.nets.conv246 import Conv2, Conv4, Conv6
from jaxtickets.nets.convolution import convolution
from jaxtickets.nets.inits import initializer
from jaxtickets.nets.lenet5 import LeNet5
from jaxtickets.nets.lenet5_29k import LeNet529k
from jaxtickets.nets.lenet5_lecun import LeNet5LeCun
from jaxtickets.nets.lenet300_100 import LeNet300100
from jaxtickets.nets.scnn import SCNN

NETS: dict[str, type[nn.Module]] = {
    "lenet300_100": LeNet300100,
    "lenet5": LeNet5,
    "lenet5_lecun": LeNet5LeCun,
    "lenet5_29k": LeNet529k,
    "scnn": SCNN,
    "conv2": Conv2,
    "conv4": Conv4,
    "conv6": Conv6,
    "cnn960": CNN960,
}


def names() -> tuple[str, ...]:
    """The names of the nets."""
    return tuple(NETS)


def make(name: str, /, **attributes: Any) -> nn.Module:
    """The net called `name`; attributes that are not given keep the defaults of its class.

    Raises:
      ValueError: there is no such net or attribute, or a value can't be: in one line.
    """
    if name not in NETS:
        raise ValueError(f"unknown net '{name}': one of {', '.join(NETS)}")
    known = _attributes(NETS[name])
    if unknown := sorted(set(attributes) - set(known)):
        raise ValueError(f"{name} has no attribute {unknown[0]}: it has {', '.join(known)}")
    values = known | attributes
    values["widths"] = tuple(values["widths"])
    _check(name, values, len(known["widths"]))
    return NETS[name](**values)


def name_of(net: nn.Module) -> str:
    """The name under which the net's class stands in the table.

    Raises:
      ValueError: it doesn't stand there.
    """
    for name, kind in NETS.items():
        if type(net) is kind:
            return name
    raise ValueError(f"{type(net).__name__} is none of the nets {', '.join(NETS)}")


def to_json(net: nn.Module) -> dict[str, Any]:
    """`{'name': ..., attribute: value, ...}`, all of it as JSON would give it back."""
    name = name_of(net)
    values = {attribute: getattr(net, attribute) for attribute in _attributes(type(net))}
    return {"name": name} | values | {"widths": list(values["widths"])}


def from_json(written: Mapping[str, Any]) -> nn.Module:
    """The net that `to_json` wrote.

    Raises:
      ValueError: as `make` does.
    """
    return make(written["name"], **{key: value for key, value in written.items() if key != "name"})


def output_layer(net: nn.Module) -> str:
    """The name of the layer that gives the logits.

    Raises:
      ValueError: the net is not in the table.
    """
    name_of(net)
    return "out"


def _attributes(kind: type[nn.Module]) -> dict[str, Any]:
    """A net's own attributes and their defaults, without the two that flax adds."""
    fields = dataclasses.fields(kind)
    return {field.name: field.default for field in fields if field.name not in ("parent", "name")}


def _check(name: str, values: Mapping[str, Any], layers: int) -> None:
    """Raise a ValueError if a net can't have these attributes."""
    widths = values["widths"]
    if len(widths) != layers or any(type(width) is not int or width < 1 for width in widths):
        raise ValueError(f"{name} takes {layers} widths, whole and at least 1, not {widths}")
    if values["classes"] < 1:
        raise ValueError(f"{name} takes at least 1 class, not {values['classes']}")
    if not 0 <= values.get("dropout", 0) < 1:
        raise ValueError(f"{name} takes a dropout in [0, 1), not {values['dropout']}")
    initializer(values["initializer"])
    if "conv" in values:
        convolution(values["conv"])
