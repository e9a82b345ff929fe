"""L0 regularisation of neurons and filters: one hard concrete gate for a group of weights.

The groups of a dense kernel `[in, out]` are its inputs, the rows: the pixels that it reads, or the
units of the layer before it. Those of a convolution kernel `[..., in, out]` are its filters, the
last axis, each with its bias if the layer has one. So a net is described as in the paper: 219-214-
100 are the inputs that are left of the three layers of LeNet-300-100, and 20-25-45-462 the filters
and inputs of LeNet-5's (see `architecture`). With |g| the number of weights in a group, and P, N
and λ as in `l0`, the penalty is

    (1 / N) Σ_g P_g (λ |g| + wd / 2 · Σ w²).

Louizos et al., "Learning sparse neural networks through L0 regularization", 2018, section 2.4 and
appendix A. `compress.used_units` says which units the hard mask leaves without use, so that
`compress.shrink` can remove them. Pixels can't be removed from a net's input.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.gates import hard_concrete, l0
from jaxtickets.gates.base import Gate, Setting
from jaxtickets.types import Array, Keep, Key, Mask, Params, Prunable

Groups = dict[str, jax.Array]
"""Leaf path -> float`[groups]`, such as the logits of its groups."""


def gate(
    prunable: Prunable,
    keep: Keep | None,
    floor: Keep,
    setting: Setting,
    weight_decay: float = l0.WEIGHT_DECAY,
    inputs: Prunable = (),
) -> Gate:
    """Trains the log α of each group with the weights, which are used as `w · z`.

    The hard mask keeps whole groups. Asked for a number of weights, it keeps the groups with the
    highest log α, up to the first that does not fit any more: the count is below `keep` by less
    than the size of that group. Of two filters with exactly the same log α, of which only one fits,
    neither stays. A floor is rounded up to whole groups. Biases of filters are gated with these,
    and are not counted.

    Deviations: see `l0`. The authors' code leaves the biases of convolutions out of training passes
    unless it draws gates for each example, and subtracts λ for each of them where the paper adds
    it. Here they are used in training, and belong to |g|. It can also draw gates for each example;
    here all examples of a batch share them, as by default there.

    Args:
      prunable, setting, weight_decay, inputs: see `l0.gate`.
      keep, floor: how many weights the hard mask keeps, as above; `keep` None: the groups whose
        gate is open at test time, log α > -log 11.

    The strength is λ, the penalty of one weight that is surely kept, in nats over all N examples.

    Raises:
      ValueError: see `l0.gate`.
    """
    l0.check(prunable, setting, weight_decay, inputs)

    def init(key: Key, params: Params) -> Groups:
        leaves = masks.pick(masks.zeros(params), prunable)
        zeros = [jnp.zeros(leaf.shape[_axis(leaf)], leaf.dtype) for leaf in leaves]
        return dict(zip(prunable, l0.first(key, prunable, zeros, inputs), strict=True))

    def apply(
        key: Key, step: Array, log_alpha: Groups, params: Params, strength: Array
    ) -> tuple[Params, Array]:
        del step
        alphas = [log_alpha[path] for path in prunable]
        keys = jax.random.split(key, len(alphas))
        z = [hard_concrete.sample(k, a) for k, a in zip(keys, alphas, strict=True)]
        costs = []
        for path, kernel in zip(prunable, masks.pick(params, prunable), strict=True):
            square = _group_sums(kernel.astype(log_alpha[path].dtype) ** 2)
            size = kernel.size // len(square)
            for bias in masks.pick(params, _bias(params, path, kernel)):
                square, size = square + bias.astype(square.dtype) ** 2, size + 1
            costs.append(strength * size + weight_decay / 2 * square)
        return _gated(params, z), l0.expected_cost(alphas, costs) / setting.examples

    def _gated(params: Params, z: list[Array]) -> Params:
        spread = masks.pick(_spread(params, z, jnp.float32(1)), leaves := _leaves(params))
        pairs = zip(masks.pick(params, leaves), spread, strict=True)
        return masks.put(params, leaves, [(w * open_).astype(w.dtype) for w, open_ in pairs])

    def _leaves(params: Params) -> Prunable:
        kernels = zip(prunable, masks.pick(params, prunable), strict=True)
        return (*prunable, *(bias for kernel in kernels for bias in _bias(params, *kernel)))

    def _spread(params: Params, groups: list[Array], rest: Array) -> Params:
        """Like `params`: each group's value at its weights and bias, and `rest` elsewhere."""
        tree = jax.tree.map(lambda leaf: jnp.broadcast_to(rest, jnp.shape(leaf)), params)
        for path, kernel, value in zip(prunable, masks.pick(params, prunable), groups, strict=True):
            sizes = [1] * jnp.ndim(kernel)
            sizes[_axis(kernel)] = len(value)
            full = jnp.broadcast_to(value.reshape(sizes), jnp.shape(kernel))
            biases = _bias(params, path, kernel)
            tree = masks.put(tree, (path, *biases), [full, *([value] * len(biases))])
        return tree

    def weights(log_alpha: Groups, params: Params) -> Params:
        return _gated(params, [hard_concrete.at_test_time(log_alpha[path]) for path in prunable])

    def harden(log_alpha: Groups, params: Params) -> Mask:
        alphas = [log_alpha[path] for path in prunable]
        if keep is None:
            open_ = [hard_concrete.at_test_time(a) > 0 for a in alphas]
            return _spread(params, open_, jnp.bool_(True))
        scores = _spread(params, alphas, jnp.float32(0))
        mask = masks.select(scores, prunable, keep, _whole_floors(floor, params, prunable))
        whole = [~_group_sums(~leaf).astype(bool) for leaf in masks.pick(mask, prunable)]
        return _spread(params, whole, jnp.bool_(True))

    return Gate(init, apply, harden, weights=weights, trains_weights=True, adapt=l0.clamped)


def architecture(mask: Mask, kernels: Sequence[str]) -> str:
    """The numbers of groups of which a weight is kept, such as `219-214-100`.

    The first number of a net of dense layers is that of pixels that are read.

    Args:
      mask: the mask over the parameters.
      kernels: the paths of the kernels, in forward order.
    """
    leaves = masks.pick(mask, tuple(kernels))
    return "-".join(str(int(np.count_nonzero(_group_sums(leaf)))) for leaf in leaves)


def _axis(kernel: Array) -> int:
    """The axis of a kernel along which its groups are."""
    return 0 if jnp.ndim(kernel) == 2 else jnp.ndim(kernel) - 1


def _group_sums(kernel: Array) -> jax.Array:
    axis = _axis(kernel)
    return jnp.sum(kernel, axis=tuple(i for i in range(jnp.ndim(kernel)) if i != axis))


def _bias(params: Params, path: str, kernel: Array) -> Prunable:
    """The path of the bias that is gated with the groups of a kernel, or nothing."""
    bias = f"{path.rpartition('/')[0]}/bias"
    return (bias,) if _axis(kernel) and bias in masks.paths(params) else ()


def _whole_floors(floor: Keep, params: Params, prunable: Prunable) -> dict[str, int]:
    """The floors of the leaves, rounded up to whole groups."""
    shapes = masks.shapes(params, prunable)
    floors = masks.floor_of(floor, shapes)
    sizes = {
        path: leaf.size // leaf.shape[_axis(leaf)]
        for path, leaf in zip(prunable, masks.pick(params, prunable), strict=True)
    }
    return {path: -(-floors[path] // size) * size for path, size in sizes.items()}
