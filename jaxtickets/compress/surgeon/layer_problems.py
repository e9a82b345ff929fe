"""The least-squares problem of each layer: outputs like those of the dense layer.

With x the dense net's inputs of a layer, and x̂ those that it now reads, the weights v of an output
minimise `E (vᵀ x̂ − wᵀ x)² + λ |v − w|²`, so that `H = 2 (E x̂ x̂ᵀ + λ)` and
`g = 2 (E x̂ xᵀ + λ) w`. If x̂ is x, `g = H w`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.compress.surgeon import layer_inputs, quadratic
from jaxtickets.compress.surgeon.layer_inputs import Layer
from jaxtickets.compress.surgeon.quadratic import Problem
from jaxtickets.criteria.base import Evidence, check_batches
from jaxtickets.types import Array, Mask, Params, Prunable

DEAD = 1e-10
"""An input is constant if its variance is below this share of its mean square."""


class Moments(NamedTuple):
    """Means over all vectors that a layer reads; float64 and on the host.

    Attributes:
      now: `[groups, d]`, the mean of x̂, what the layer reads now.
      dense: `[groups, d]`, the mean of x, what it reads in the dense net.
      square: `[groups, d, d]`, of x̂ x̂ᵀ.
      cross: `[groups, d, d]`, of x̂ xᵀ.
    """

    now: np.ndarray
    dense: np.ndarray
    square: np.ndarray
    cross: np.ndarray


def find_layers(evidence: Evidence, prunable: Prunable) -> tuple[Layer, ...]:
    """The layers of the prunable kernels, in forward order; see `layer_inputs.layers`.

    >>> from flax import linen as nn
    >>> from jaxtickets import nets
    >>> from jaxtickets.types import Split
    >>> net = nets.functional(nn.Dense(1, use_bias=False), (2,))
    >>> params = {"kernel": jnp.ones((2, 1))}
    >>> data = Split(np.array([[[1, 0], [1, 2]]], "f"), np.zeros((1, 2), int))
    >>> evidence = Evidence(None, params, {}, masks.ones(params), data, None, net, jnp.asarray)
    >>> [layer.path for layer in find_layers(evidence, ("kernel",))]
    ['kernel']
    """
    check_batches(evidence)
    first = jax.eval_shape(evidence.prepare, evidence.batches.images[0])
    return layer_inputs.layers(evidence.model, evidence.params, evidence.stats, first, prunable)


def moments(
    evidence: Evidence,
    layers: Sequence[Layer],
    now: Params | None = None,
) -> dict[str, Moments]:
    """Path -> the moments of the layer's inputs over the evidence's batches, in evaluation mode.

    Args:
      evidence: the dense net, in `params` and `stats`, and the batches.
      layers: the layers.
      now: the parameters as they are now, to compare with the dense ones; None if they are the
        same.

    >>> from flax import linen as nn
    >>> from jaxtickets import nets
    >>> from jaxtickets.types import Split
    >>> net = nets.functional(nn.Dense(1, use_bias=False), (2,))
    >>> params = {"kernel": jnp.ones((2, 1))}
    >>> data = Split(np.array([[[1, 0], [1, 2]]], "f"), np.zeros((1, 2), int))
    >>> evidence = Evidence(None, params, {}, masks.ones(params), data, None, net, jnp.asarray)
    >>> found = moments(evidence, find_layers(evidence, ("kernel",)))["kernel"]
    >>> found.now.tolist(), found.square.tolist()
    ([[1.0, 1.0]], [[[1.0, 1.0], [1.0, 2.0]]])
    """
    read = _reader(evidence, layers)
    return _measured(evidence, layers, read, now)


def _reader(evidence: Evidence, layers: Sequence[Layer]) -> jax.stages.Wrapped:
    """`read(params, images) -> {path: inputs}`, compiled once for all parameters."""
    paths = tuple(layer.path for layer in layers)

    @jax.jit
    def read(params: Params, images: Array) -> dict[str, tuple[Array, ...]]:
        prepared = evidence.prepare(images)
        return layer_inputs.inputs(evidence.model, params, evidence.stats, prepared, paths)

    return read


def _measured(
    evidence: Evidence,
    layers: Sequence[Layer],
    read: jax.stages.Wrapped,
    now: Params | None,
) -> dict[str, Moments]:
    """As `moments`, with a `_reader` that knows these layers, and others perhaps."""
    sums: dict[str, tuple[np.ndarray, ...]] = {}
    count = dict.fromkeys([layer.path for layer in layers], 0)
    for images in evidence.batches.images:
        dense = read(evidence.params, images)
        pruned = dense if now is None else read(now, images)
        for layer in layers:
            for one, other in zip(pruned[layer.path], dense[layer.path], strict=True):
                with jax.enable_x64(True):
                    if now is None:
                        some = _square(layer, one)
                        some = (some[0], some[0], some[1], some[1])
                    else:
                        some = _cross(layer, one, other)
                    number = jax.eval_shape(partial(layer_inputs.vectors, layer), one).shape[1]
                count[layer.path] += number
                before = sums.get(layer.path, (0, 0, 0, 0))
                sums[layer.path] = tuple(
                    a + np.asarray(b) for a, b in zip(before, some, strict=True)
                )
    return {
        path: Moments(*(np.asarray(total / count[path]) for total in some))
        for path, some in sums.items()
    }


@partial(jax.jit, static_argnums=0)
def _square(layer: Layer, now: Array) -> tuple[Array, Array]:
    x = layer_inputs.vectors(layer, now).astype(jnp.float64)
    return x.sum(1), jnp.einsum("gni,gnj->gij", x, x)


@partial(jax.jit, static_argnums=0)
def _cross(layer: Layer, now: Array, dense: Array) -> tuple[Array, ...]:
    x, y = (layer_inputs.vectors(layer, a).astype(jnp.float64) for a in (now, dense))
    square, cross = (jnp.einsum("gni,gnj->gij", x, z) for z in (x, y))
    return x.sum(1), y.sum(1), square, cross


def problem(
    layer: Layer, kernel: Array, mask: Array, found: Moments, damping: float, biases: bool
) -> Problem:
    """The layer's least-squares problem.

    An input that is constant, or zero if the layer has no bias, has the diagonal 1 and the weight
    0, and nothing else depends on it.

    Args:
      layer: the layer.
      kernel, mask: its kernel, masked, and the mask.
      found: the moments of its inputs.
      damping: λ as a share of the mean of the diagonal of `E x̂ x̂ᵀ` over the inputs that vary.
      biases: whether the bias moves with the weights. It then takes part exactly like the weight of
        an input that is always 1 and is never removed, which turns the moments into covariances.

    Raises:
      ValueError: `damping` is negative.

    >>> layer = Layer("kernel", None, window=(), strides=(), padding="VALID", groups=1)
    >>> mean, square = np.ones((1, 2)), np.array([[[1.0, 1.0], [1.0, 2.0]]])
    >>> kernel, mask = np.array([[3.0], [4.0]]), np.ones((2, 1), bool)
    >>> found = Moments(now=mean, dense=mean, square=square, cross=square)
    >>> problem(layer, kernel, mask, found, damping=0.0, biases=False).hessians.tolist()
    [[[2.0, 2.0], [2.0, 4.0]]]
    """
    if not damping >= 0:
        raise ValueError(f"damping {damping}: must be 0 or more")
    square, cross = found.square, found.cross
    if biases and layer.bias is not None:
        square = square - found.now[:, :, None] * found.now[:, None, :]
        cross = cross - found.now[:, :, None] * found.dense[:, None, :]
    varies = _diagonal(square) > DEAD * _diagonal(found.square)  # [groups, d]
    share = np.maximum(varies.sum(1), 1)
    extra = damping * np.where(varies, _diagonal(square), 0).sum(1) / share
    rows = np.asarray(layer_inputs.matrices(layer, np.asarray(kernel, np.float64)))
    kept = np.asarray(layer_inputs.matrices(layer, np.asarray(mask)))
    eye = np.eye(square.shape[1])[None]
    both = varies[:, :, None] & varies[:, None, :]
    hessians = np.where(both, 2 * (square + extra[:, None, None] * eye), eye)
    linear = 2 * (np.einsum("gij,grj->gri", cross, rows) + extra[:, None, None] * rows)
    varies = np.broadcast_to(varies[:, None], rows.shape)
    removed = ~kept | ~varies
    linear, weights = np.where(varies, linear, 0), np.where(removed, 0, rows)
    return Problem(hessians, linear, weights, removed)


def _diagonal(matrices: np.ndarray) -> np.ndarray:
    return np.diagonal(matrices, axis1=1, axis2=2)


def rebuild(
    evidence: Evidence,
    layers: Sequence[Layer],
    mask: Mask,
    known: Mapping[str, Moments] | None,
    damping: float,
    biases: bool,
) -> Params:
    """The parameters under a mask: each layer's outputs as near to the dense net's as they can be.

    Args:
      evidence: the dense net and the batches.
      layers: the layers that are rebuilt, in forward order.
      mask: any mask.
      known: the moments of the inputs in the dense net (`moments`). None: each layer is fitted to
        what the rebuilt layers before it give, measured layer after layer.
      damping, biases: see `problem`.

    Raises:
      ValueError: a Hessian is singular.

    >>> from flax import linen as nn
    >>> from jaxtickets import nets
    >>> from jaxtickets.types import Split
    >>> net = nets.functional(nn.Dense(1, use_bias=False), (2,))
    >>> params = {"kernel": jnp.ones((2, 1))}
    >>> data = Split(np.array([[[1, 1], [2, 2]]], "f"), np.zeros((1, 2), int))  # equal inputs
    >>> evidence = Evidence(None, params, {}, masks.ones(params), data, None, net, jnp.asarray)
    >>> layers, mask = find_layers(evidence, ("kernel",)), {"kernel": np.array([[True], [False]])}
    >>> new = rebuild(evidence, layers, mask, known=None, damping=0.0, biases=False)
    >>> new["kernel"].tolist()
    [[2.0], [0.0]]
    """
    params = masks.apply(mask, evidence.params)
    read = _reader(evidence, layers)
    for layer in layers:
        path = layer.path
        found = (known or _measured(evidence, [layer], read, params))[path]
        (old,), (kept,) = masks.pick(evidence.params, (path,)), masks.pick(mask, (path,))
        whole = jnp.ones_like(kept)
        one = problem(layer, old, whole, found, damping, biases)
        chosen = np.asarray(layer_inputs.matrices(layer, np.asarray(kept)))
        rows = quadratic.solve(one, chosen, path)
        new = layer_inputs.kernel(rows, old.shape)
        params = masks.put(params, (path,), [jnp.asarray(new, old.dtype)])
        if biases and layer.bias is not None:
            dense = np.asarray(layer_inputs.matrices(layer, np.asarray(old, np.float64)))
            (bias,) = masks.pick(evidence.params, (layer.bias,))
            moved = np.einsum("grd,gd->gr", dense, found.dense)
            moved = moved - np.einsum("grd,gd->gr", rows, found.now)
            shifted = jnp.asarray(np.asarray(bias) + moved.ravel(), bias.dtype)
            (stays,) = masks.pick(mask, (layer.bias,))
            params = masks.put(params, (layer.bias,), [jnp.where(stays, shifted, 0)])
    return params
