"""Strong tickets: a trained net rebuilt out of random weights alone, by a mask that is computed.

A net of twice the depth and random weights has a subnet that computes what a trained net does,
weight by weight. Between two layers of the target the random net has a layer more, whose units are
dealt out among the target's inputs. Unit `k` of input `i` keeps one wire from below, the random
`v_k`, so it computes `relu(v_k x_i)`. The target's weight from `i` to `j` becomes the sum of the
random products that are kept on the way up:

    w_ij x_i  ~  sum over kept k of u_kj relu(v_k x_i)

For `x_i > 0` only units with `v_k > 0` answer, and `w_ij` is a subset sum of their `v_k u_kj`. For
`x_i < 0` it is one of the `v_k u_kj` with `v_k < 0`. The outputs of a layer share its units, and
each chooses for itself which to read. Malach et al., "Proving the lottery ticket hypothesis:
pruning is all you need", 2020; Orseau et al., "Logarithmic pruning is all you need", 2020; Pensia
et al., "Optimal lottery tickets via subset sum: logarithmic over-parameterization is sufficient",
2020.

Deviations. The papers fix a unit's input beforehand and waste the units whose `v_k` has the wrong
sign. Here a dense random layer gives each unit a wire from every input, and the units are matched
with inputs for which the sign is right, so that none is wasted. Inputs of a hidden layer are never
negative, so they need no units with `v_k < 0`. As in the papers' nets, layers have no biases.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxtickets import nets
from jaxtickets.nets.mlp import MLP
from jaxtickets.recipes import subset_sums
from jaxtickets.runs import Axis
from jaxtickets.types import Array, Key, Params, Ticket

GOLDEN = (5**0.5 - 1) / 2
"""The golden ratio's inverse."""
FINEST = 1e-8
"""The smallest weight of `hyperbolic`; float32 adds nothing less to a sum of about 0.1."""


class Construction(NamedTuple):
    """A way to make a weight out of random coefficients.

    Attributes:
      rule: which coefficients are kept.
      draw_wires: `draw(key, shape, n)`: the random weights of a layer that feeds units, for `n`
        coefficients a weight.
      draw_reads: the same for a layer that reads units.
      most: the largest `n`; 0: any.
    """

    rule: subset_sums.Rule
    draw_wires: Callable[[Key, Sequence[int], int], jax.Array]
    draw_reads: Callable[[Key, Sequence[int], int], jax.Array]
    most: int = 0


def uniform(key: Key, shape: Sequence[int], n: int) -> jax.Array:
    """Uniform in [-1, 1], whatever `n` is.

    >>> weights = uniform(jax.random.key(0), (2, 50), n=8)
    >>> weights.shape, bool((abs(weights) <= 1).all())
    ((2, 50), True)
    """
    del n
    return jax.random.uniform(key, shape, minval=-1, maxval=1)


def hyperbolic(
    key: Key, shape: Sequence[int], n: int, least: float | None = None, most: float = 1 / GOLDEN
) -> jax.Array:
    """Random signs, and sizes with density `1 / w` from `least` to `most`: their log is uniform.

    With the wires' sizes in `[g, 1]` the products `v u` cover all scales from 1 down to `least`,
    by default `g^intervals(n)`, or `FINEST`.

    >>> sizes = abs(hyperbolic(jax.random.key(0), (2, 50), n=8, least=0.01, most=1.0))
    >>> sizes.shape, bool(((sizes > 0.0099) & (sizes < 1.0001)).all())
    ((2, 50), True)
    """
    least = max(GOLDEN ** intervals(n), FINEST) if least is None else least
    place = jax.random.uniform(key, shape, minval=-1, maxval=1)
    return jnp.sign(place) * most * (least / most) ** jnp.abs(place)


def intervals(n: int) -> float:
    """The number `m` of golden intervals that `n` coefficients fill: `n = 2 m log(m + 1)`.

    Half of the coefficients have the target's sign, and `m log m` draws fill `m` intervals, as
    collectors of coupons know.

    >>> m = intervals(100)
    >>> round(2 * m * float(np.log(m + 1)), 6)
    100.0
    """
    low, high = 0.0, float(n)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if 2 * middle * np.log(middle + 1) > n else (middle, high)
    return low


CONSTRUCTIONS = {
    "malach": Construction(subset_sums.closest, uniform, uniform),
    "orseau": Construction(
        subset_sums.greedy, partial(hyperbolic, least=GOLDEN, most=1.0), hyperbolic
    ),
    "pensia": Construction(subset_sums.meet_in_the_middle, uniform, uniform, subset_sums.MOST),
}
"""Name -> construction: the closest product, a greedy sum, and the best of all sums."""


class Units(NamedTuple):
    """Which units serve a layer of the target.

    Attributes:
      unit: int`[inputs, signs, n]`, the unit, -1 where there is none.
      signs: float`[signs]`: 1 for what answers to positive inputs, and -1 for negative ones.
    """

    unit: Array
    signs: Array


class Layer(NamedTuple):
    """The two random layers that stand for one of the target's.

    Attributes:
      wires: float`[inputs, units]`, from the inputs to the units.
      reads: float`[units, outputs]`, from the units to the outputs.
      units: which units serve which inputs.
    """

    wires: Array
    reads: Array
    units: Units


def layers(net: nn.Module, shape: Sequence[int]) -> tuple[str, ...]:
    """The names of the target's layers in forward order.

    Raises:
      ValueError: the net isn't a chain of dense layers without biases.

    >>> layers(nets.make("lenet300_100", widths=(3, 2), use_bias=False), (2, 2, 1))
    ('fc1', 'fc2', 'out')
    """
    params = nets.init_shapes(nets.functional(net, shape))[0]
    groups = nets.wiring(net, shape)
    names = (
        *(group.name for group in groups),
        *(f.layer for g in groups[-1:] for f in g.consumers),
    )
    leaves = [name for layer in params.values() for name in layer]
    if set(names) != set(params) or any(params[name]["kernel"].ndim != 2 for name in names):
        raise ValueError(f"{nets.name_of(net)} isn't made of dense layers alone")
    if set(leaves) != {"kernel"}:
        raise ValueError(f"{nets.name_of(net)} has biases: strong tickets are made of sums alone")
    return names


def random_net(net: nn.Module, shape: Sequence[int], n: int) -> MLP:
    """The net of twice the depth in which `net` is rebuilt with `n` coefficients a weight and sign.

    Its widths are `2 n inputs, fc1, n fc1, fc2, n fc2, ...`: only the first layer's inputs may be
    negative.

    Args:
      net: the target.
      shape: `(h, w, c)` of the images.
      n: the coefficients of a weight.

    Raises:
      ValueError: see `layers`; or `n` isn't positive.

    >>> target = nets.make("lenet300_100", widths=(3, 2), use_bias=False)
    >>> random_net(target, (2, 2, 1), n=5).widths  # 2 n inputs, 3, 3 n, 2, 2 n
    (40, 3, 15, 2, 10)
    """
    if n < 1:
        raise ValueError(f"{n} coefficients a weight: must be 1 or more")
    params = nets.init_shapes(nets.functional(net, shape))[0]
    widths, classes = [], 0
    for i, name in enumerate(layers(net, shape)):
        inputs, classes = params[name]["kernel"].shape
        widths += [(2 if i == 0 else 1) * n * inputs, classes]
    return MLP(widths=tuple(widths[:-1]), classes=classes, use_bias=False)


def rebuild(
    key: Key, target: Sequence[Array], n: int, construction: Construction, axis: Axis
) -> Ticket:
    """The ticket of `random_net` that computes what the target does, nearly.

    Host code around compiled searches, which are spread over the axis' devices.

    Args:
      key: of the random weights; consumed.
      target: the kernels `[inputs, outputs]` of the trained net, in forward order.
      n: the coefficients of a weight, for each sign of its input.
      construction: one of `CONSTRUCTIONS`.
      axis: the devices, and how many rows of weights are searched at once.

    Returns:
      The random weights, none of them changed, and the mask over them.

    Raises:
      ValueError: the construction can't use as many coefficients.

    >>> from jaxtickets import runs
    >>> ways, target = CONSTRUCTIONS["malach"], [jnp.array([[0.5]])]
    >>> ticket = rebuild(jax.random.key(0), target, n=64, construction=ways, axis=runs.axis())
    >>> ticket.params["fc1"]["kernel"].shape, int(ticket.mask["out"]["kernel"].sum())
    ((1, 128), 2)
    """
    if construction.most and n > construction.most:
        raise ValueError(f"{n} coefficients a weight: must be {construction.most} or fewer")
    drawn = []
    for i, weights in enumerate(target):
        wires_key, reads_key = jax.random.split(jax.random.fold_in(key, i))
        (inputs, outputs), signs = weights.shape, (1, -1) if i == 0 else (1,)
        count = len(signs) * n * inputs
        wires = construction.draw_wires(wires_key, (inputs, count), n)
        reads = construction.draw_reads(reads_key, (count, outputs), n)
        drawn.append(Layer(wires, reads, deal_units(wires, n, signs)))
    work = [_coefficients(weights, layer) for weights, layer in zip(target, drawn, strict=True)]
    targets, coefficients = (jnp.concatenate(parts, axis=-1) for parts in zip(*work, strict=True))
    kept = subset_sums.search(construction.rule, targets, coefficients, axis)
    ends = np.cumsum([len(part) for part, _ in work])
    kernels, masks = [], []
    for layer, mine in zip(drawn, jnp.split(kept, ends[:-1], axis=1), strict=True):
        kernels += [layer.wires, layer.reads]
        masks += _masks(layer, mine)
    names = [f"fc{i + 1}" for i in range(len(kernels) - 1)] + ["out"]
    params, mask = (
        {name: {"kernel": leaf} for name, leaf in zip(names, leaves, strict=True)}
        for leaves in (kernels, masks)
    )
    return Ticket(params, {}, mask, jnp.int32(0))


def deal_units(wires: Array, n: int, signs: Sequence[int]) -> Units:
    """Deals the units out: each input gets `n` for each sign, to which it has wires of that sign.

    Units are taken in groups of as many as there are inputs, and each group is matched with the
    inputs as fully as signs allow (Hopcroft and Karp, 1973). With 30 inputs or more some input goes
    without in less than one case in ten million.

    Args:
      wires: float`[inputs, units]`, the random weights, `len(signs) n inputs` units.
      n: units for each input and sign.
      signs: 1 for positive inputs, -1 for negative ones.

    >>> deal_units(np.array([[0.5, -0.25]]), n=1, signs=(1, -1)).unit.tolist()
    [[[0], [1]]]
    """
    from scipy import sparse
    from scipy.sparse.csgraph import maximum_bipartite_matching

    inputs = len(wires)
    groups = np.asarray(wires).reshape(inputs, len(signs), n, inputs)
    unit = np.empty((inputs, len(signs), n), np.int32)
    for s, sign in enumerate(signs):
        for k in range(n):
            fits = sparse.csr_array(groups[:, s, k] * sign > 0)
            found = maximum_bipartite_matching(fits, perm_type="column")
            unit[:, s, k] = np.where(found < 0, -1, (s * n + k) * inputs + found)
    return Units(unit, np.asarray(signs, np.float32))


@jax.jit
def _coefficients(weights: Array, layer: Layer) -> tuple[jax.Array, jax.Array]:
    """For each input, sign and output the target, `[all]`, and its coefficients, `[n, all]`."""
    inputs, _, n = layer.units.unit.shape
    own = layer.wires[jnp.arange(inputs)[:, None, None], layer.units.unit]
    sizes = jnp.where(layer.units.unit < 0, 0, jnp.abs(own))
    products = sizes[..., None] * layer.reads[layer.units.unit]  # [inputs, signs, n, outputs]
    targets = layer.units.signs[None, :, None] * weights[:, None]  # [inputs, signs, outputs]
    return targets.reshape(-1), jnp.moveaxis(products, 2, 0).reshape(n, -1)


@jax.jit
def _masks(layer: Layer, kept: Array) -> list[jax.Array]:
    """The masks of the wires, and of the weights that read the units, from bool`[n, all]`.

    A wire is kept if any output reads its unit.
    """
    unit = layer.units.unit
    inputs, signs, n = unit.shape
    reads = jnp.moveaxis(kept.reshape(n, inputs, signs, -1), 0, 2) & (unit >= 0)[..., None]
    places = jnp.where(unit < 0, len(layer.reads), unit)
    rows = jnp.broadcast_to(jnp.arange(inputs)[:, None, None], unit.shape)
    used = jnp.any(reads, axis=-1)
    return [
        jnp.zeros(layer.wires.shape, bool).at[rows, places].set(used, mode="drop"),
        jnp.zeros(layer.reads.shape, bool).at[places].set(reads, mode="drop"),
    ]


def effective_weights(params: Params, mask: Params) -> list[tuple[np.ndarray, np.ndarray]]:
    """The weights that a strong ticket amounts to, layer by layer of its target, in float64.

    Read off the masked net alone: the slope from each input to each output where the input is
    positive, and where it is negative. The latter is 0 in all layers but the first.

    Args:
      params, mask: of a ticket of `rebuild`.

    >>> wires, reads = np.array([[1.0, 4.0]]), np.array([[0.5], [3.0]])
    >>> params = {"fc1": {"kernel": wires}, "out": {"kernel": reads}}
    >>> mask = {"fc1": {"kernel": np.array([[True, False]])}, "out": {"kernel": reads > 0}}
    >>> ((rising, falling),) = effective_weights(params, mask)
    >>> rising.tolist(), falling.tolist()
    ([[0.5]], [[0.0]])
    """
    names = [*(f"fc{i + 1}" for i in range(len(params) - 1)), "out"]
    kernels = [
        np.where(mask[name]["kernel"], params[name]["kernel"], 0).astype(np.float64)
        for name in names
    ]
    return [
        (np.maximum(wires, 0) @ reads, np.minimum(wires, 0) @ reads)
        for wires, reads in zip(kernels[::2], kernels[1::2], strict=True)
    ]
