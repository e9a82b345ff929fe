"""The outputs of a net's units over images, as the layers that read them get them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import linen as nn

from jaxtickets import nets
from jaxtickets.nets.functional import Example
from jaxtickets.types import Array, Params, Stats, Units


def unit_outputs(
    net: nn.Module,
    params: Params,
    stats: Stats,
    groups: Sequence[Units],
    shape: Example,
    images: Array,
    prepare: Callable[[Array], Array] | None = None,
) -> dict[str, jax.Array]:
    """`{group: float[examples, units]}`: what the first layer that reads a group gets.

    This is after activation and pool; each pixel counts as an example. The net is in evaluation
    mode.

    Args:
      net: the flax module, whose layers that read units are submodules.
      params, stats: its parameters and statistics.
      groups: groups of its wiring.
      shape: the net's input for one example, see `nets.functional`.
      images: `[n, ...]`.
      prepare: the normalisation of images; None: they are float and normalised.

    Raises:
      ValueError: a layer that reads units is not a submodule.

    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graph.trace(net, (2, 2, 1))
    >>> params, _ = nets.functional(net, (2, 2, 1)).init(jax.random.key(0))
    >>> params = jax.tree.map(jax.numpy.ones_like, params)
    >>> found = unit_outputs(net, params, {}, traced.wiring, (2, 2, 1), np.ones((1, 2, 2, 1)))
    >>> found["fc1"].tolist(), found["fc2"].tolist()
    ([[5.0, 5.0, 5.0, 5.0]], [[21.0, 21.0, 21.0]])
    """
    model = nets.functional(net, shape)
    seen = dict[str, jax.Array]()

    def listen(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if context.method_name == "__call__" and len(args) == 1:
            seen["/".join(context.module.path)] = args[0]
        return call(*args, **kwargs)

    with nn.intercept_methods(listen):
        model.apply(params, stats, images if prepare is None else prepare(images))
    found = dict[str, jax.Array]()
    for group in groups:
        reader = group.consumers[0].layer if group.consumers else ""
        if reader not in seen:
            raise ValueError(f"the outputs of {group.name} can't be seen: no submodule '{reader}'")
        found[group.name] = seen[reader].astype(float).reshape(-1, group.size)
    return found
