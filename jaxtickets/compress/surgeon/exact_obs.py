"""ExactOBS: the optimal brain surgeon of each layer's least-squares problem, exact in each row.

Frantar and Alistarh, "Optimal brain compression", 2022, algorithm 1 and section 4. A row of a
layer's weight matrix has the Hessian `H = 2 E x xᵀ` of its squared output error, the same for all
rows. The weights of a row go one after another (`elimination`); the cheapest next weight of all
rows goes first; and the kept weights get the values of the row's least squares, which are the sum
of the surgeon's updates.

Deviations. The bias moves too, unless `biases` is False. With `scale=loss_curvature`, the default,
the error of an output counts by the curvature of the cross-entropy in it, so that the costs of rows
and of layers compare; the paper adds plain errors (`output_error`) and never compares layers by
them. The mask comes from the inputs in the dense net even if the weights are rebuilt sequentially.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from jaxtickets import masks
from jaxtickets.compress.surgeon import layer_inputs, layer_problems, quadratic
from jaxtickets.compress.surgeon.layer_inputs import Layer
from jaxtickets.compress.surgeon.quadratic import Removal, Study
from jaxtickets.criteria.base import Evidence
from jaxtickets.types import Array, Mask, Params, Prunable, Ticket

DAMPING = 1e-2
Scale = Callable[[Evidence, Sequence[Layer]], Mapping[str, np.ndarray]]
"""`scale(evidence, layers) -> {path: float[outputs]}`: what a squared error of an output costs."""


def output_error(evidence: Evidence, layers: Sequence[Layer]) -> dict[str, np.ndarray]:
    """1 for every output: costs are mean squared errors of single output values.

    >>> layer = Layer("kernel", None, window=(), strides=(), padding="VALID", groups=1)
    >>> evidence = Evidence(None, {"kernel": np.zeros((2, 3))}, {}, None, None, None)
    >>> output_error(evidence, [layer])["kernel"].tolist()
    [1.0, 1.0, 1.0]
    """
    sizes = {
        layer.path: masks.pick(evidence.params, (layer.path,))[0].shape[-1] for layer in layers
    }
    return {path: np.ones(size) for path, size in sizes.items()}


def loss_curvature(evidence: Evidence, layers: Sequence[Layer]) -> dict[str, np.ndarray]:
    """Half the mean curvature of the cross-entropy in each output: costs are in nats.

    The curvature is summed over an output's positions, see `layer_inputs.output_curvature`. It
    takes as many backward passes as there are classes.

    >>> from flax import linen as nn
    >>> from jaxtickets import nets
    >>> from jaxtickets.types import Split
    >>> net = nets.functional(nn.Dense(2, use_bias=False), (2,))
    >>> params = {"kernel": jnp.zeros((2, 2))}
    >>> data = Split(np.ones((1, 2, 2), "f"), np.zeros((1, 2), int))
    >>> evidence = Evidence(None, params, {}, masks.ones(params), data, None, net, jnp.asarray)
    >>> layer = Layer("kernel", None, window=(), strides=(), padding="VALID", groups=1)
    >>> loss_curvature(evidence, [layer])["kernel"].tolist()  # half of p (1 - p)
    [0.125, 0.125]
    """
    paths = tuple(layer.path for layer in layers)

    @jax.jit
    def curvature(images: Array) -> dict[str, Array]:
        prepared = evidence.prepare(images)
        return layer_inputs.output_curvature(
            evidence.model, evidence.params, evidence.stats, prepared, paths
        )

    totals = [curvature(images) for images in evidence.batches.images]
    count = np.prod(evidence.batches.labels.shape)
    return {
        path: sum(np.asarray(total[path], np.float64) for total in totals) / (2 * count)
        for path in paths
    }


def study(
    evidence: Evidence,
    prunable: Prunable,
    *,
    damping: float = DAMPING,
    biases: bool = True,
    sequential: bool = False,
    scale: Scale = loss_curvature,
    again: bool = True,
) -> Study:
    """The order of removal of all weights; `quadratic.prune` then takes any density.

    A layer of r outputs and d inputs takes about `8/7 r d³` operations in float64.

    Args:
      evidence: the trained net, its mask, and batches of training examples; weights outside of the
        mask count as removed.
      prunable: kernels of dense layers and convolutions.
      damping: what is added to the diagonal of each Hessian, as a share of its mean.
      biases: whether the biases move with the weights, see `layer_problems.problem`.
      sequential: whether a layer's kept weights are fitted to what the pruned layers before it
        give; else to what the layer reads in the dense net.
      scale: `loss_curvature` or `output_error`.
      again: whether the costs are computed again after each removal. False: by the cost of single
        removals, as in Dong et al., "Learning to prune deep neural networks via layer-wise optimal
        brain surgeon", 2017, equation 7; it takes `d³` operations for the whole layer.

    Raises:
      ValueError: in one line: a leaf is not the kernel of a dense layer or a convolution, or a
        Hessian is singular.

    >>> from flax import linen as nn
    >>> from jaxtickets import nets
    >>> from jaxtickets.types import Split
    >>> net = nets.functional(nn.Dense(1, use_bias=False), (2,))
    >>> params = {"kernel": jnp.array([[3.0], [1]])}
    >>> data = Split(np.array([[[1, 1], [2, 2]]], "f"), np.zeros((1, 2), int))  # equal inputs
    >>> evidence = Evidence(None, params, {}, masks.ones(params), data, None, net, jnp.asarray)
    >>> found = study(evidence, ("kernel",), damping=1e-3, scale=output_error)
    >>> [round(float(w), 2) for (w,) in quadratic.prune(found, keep=1).params["kernel"]]
    [4.0, 0.0]
    """
    masks.check_mask(evidence.mask, evidence.params)
    pruned = evidence._replace(params=masks.apply(evidence.mask, evidence.params))
    layers = layer_problems.find_layers(evidence, prunable)
    known = layer_problems.moments(pruned, layers)
    scales = scale(pruned, layers)
    removals = {}
    for layer in layers:
        path = layer.path
        (kernel,), (mask,) = (masks.pick(tree, (path,)) for tree in (pruned.params, pruned.mask))
        one = layer_problems.problem(layer, kernel, mask, known[path], damping, biases)
        if again:
            found = quadratic.removal(one, quadratic.trace(one, path), scales[path])
        else:
            found = quadratic.single_removal(one, path, scales[path])
        removals[path] = Removal(*(layer_inputs.kernel(a, kernel.shape) for a in found))

    def rebuild(mask: Mask) -> Params:
        inputs = None if sequential else known
        return layer_problems.rebuild(pruned, layers, mask, inputs, damping, biases)

    ticket = Ticket(pruned.params, pruned.stats, pruned.mask, np.int32(0))
    return Study(ticket, prunable, removals, rebuild)


def prune_to_pattern(
    evidence: Evidence,
    prunable: Prunable,
    n: int,
    m: int,
    *,
    damping: float = DAMPING,
    biases: bool = True,
    sequential: bool = False,
) -> Ticket:
    """The ticket in which each output keeps exactly n of every m consecutive inputs.

    The inputs are in the order of the kernel's rows. If m does not divide their number, the R
    inputs that remain keep `ceil(n R / m)`, as in `search.patterns`. A weight goes only while its
    group may lose more: section 4 of the paper.

    Args:
      evidence, prunable, damping, biases, sequential: as in `study`.
      n, m: the pattern, such as 2 and 4.

    Raises:
      ValueError: as in `study`, or n is not from 0 to m, or the net is pruned already.

    >>> from flax import linen as nn
    >>> from jaxtickets import nets
    >>> from jaxtickets.types import Split
    >>> net = nets.functional(nn.Dense(1, use_bias=False), (2,))
    >>> params = {"kernel": jnp.array([[3.0], [1]])}
    >>> data = Split(np.array([[[1, 1], [2, 2]]], "f"), np.zeros((1, 2), int))  # equal inputs
    >>> evidence = Evidence(None, params, {}, masks.ones(params), data, None, net, jnp.asarray)
    >>> prune_to_pattern(evidence, ("kernel",), n=1, m=2).mask["kernel"].tolist()
    [[True], [False]]
    """
    masks.check_mask(evidence.mask, evidence.params)
    if not all(bool(leaf.all()) for leaf in masks.pick(evidence.mask, prunable)):
        raise ValueError("the net is pruned already: an N:M pattern starts from a dense one")
    layers = layer_problems.find_layers(evidence, prunable)
    known = layer_problems.moments(evidence, layers)
    mask = evidence.mask
    for layer in layers:
        (kernel,), (dense,) = (masks.pick(t, (layer.path,)) for t in (evidence.params, mask))
        one = layer_problems.problem(layer, kernel, dense, known[layer.path], damping, biases)
        found = quadratic.removal(one, quadratic.trace(one, layer.path, m, n))
        left = found.step == one.weights.shape[-1]
        mask = masks.put(mask, (layer.path,), [layer_inputs.kernel(left, kernel.shape)])
    inputs = None if sequential else known
    params = layer_problems.rebuild(evidence, layers, mask, inputs, damping, biases)
    return Ticket(params, evidence.stats, mask, np.int32(0))
