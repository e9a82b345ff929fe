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
from jaxtickets.gates import groups, hard_concrete, l0
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
      ValueError: see `l0.gate`; or, at the start, a leaf has no groups.

    >>> made = gate(("kernel",), None, 0, Setting(steps=10, examples=100))
    >>> params, log_alpha = {"kernel": jnp.ones((2, 3))}, {"kernel": jnp.array([-3.0, 100.0])}
    >>> made.harden(log_alpha, params)["kernel"].tolist()
    [[False, False, False], [True, True, True]]
    """
    l0.check(prunable, setting, weight_decay, inputs)

    def init(key: Key, params: Params) -> Groups:
        leaves = groups.kernels(masks.zeros(params), prunable)
        zeros = [jnp.zeros(leaf.shape[groups.axis(leaf)], leaf.dtype) for leaf in leaves]
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
            square = groups.sums(kernel.astype(log_alpha[path].dtype) ** 2)
            size = kernel.size // len(square)
            for bias in masks.pick(params, groups.bias(params, path)):
                square, size = square + bias.astype(square.dtype) ** 2, size + 1
            costs.append(strength * size + weight_decay / 2 * square)
        return _gated(params, z), l0.expected_cost(alphas, costs) / setting.examples

    def _gated(params: Params, z: list[Array]) -> Params:
        spread = masks.pick(
            groups.spread(params, prunable, z, jnp.float32(1)), leaves := _leaves(params)
        )
        pairs = zip(masks.pick(params, leaves), spread, strict=True)
        return masks.put(params, leaves, [(w * open_).astype(w.dtype) for w, open_ in pairs])

    def _leaves(params: Params) -> Prunable:
        return (*prunable, *(bias for path in prunable for bias in groups.bias(params, path)))

    def weights(log_alpha: Groups, params: Params) -> Params:
        return _gated(params, [hard_concrete.at_test_time(log_alpha[path]) for path in prunable])

    def harden(log_alpha: Groups, params: Params) -> Mask:
        alphas = [log_alpha[path] for path in prunable]
        if keep is None:
            open_ = [hard_concrete.at_test_time(a) > 0 for a in alphas]
            return groups.spread(params, prunable, open_, jnp.bool_(True))
        return groups.select(params, prunable, alphas, keep, floor)

    return Gate(init, apply, harden, weights=weights, trains_weights=True, optimizer=l0.clamped)


def architecture(mask: Mask, kernels: Sequence[str]) -> str:
    """The numbers of groups of which a weight is kept, such as `219-214-100`.

    The first number of a net of dense layers is that of pixels that are read.

    Args:
      mask: the mask over the parameters.
      kernels: the paths of the kernels, in forward order.

    >>> mask = {"a": np.array([[1, 1], [0, 0], [0, 1]], bool), "b": np.array([[1], [0]], bool)}
    >>> architecture(mask, ("a", "b"))
    '2-1'
    """
    leaves = masks.pick(mask, tuple(kernels))
    return "-".join(str(int(np.count_nonzero(groups.sums(leaf)))) for leaf in leaves)
