"""Weight sharing and quantisation: a leaf's kept weights take few values, which train on.

A shared leaf is `w_i = scale · codebook[assignment_i]`. Gradients reach the codebook as sums over
the members of each cluster,

    ∂L/∂c_k = Σ_i ∂L/∂w_i 1(assignment_i = k),

which is what differentiating that gather gives; Han, Mao and Dally, "Deep Compression", 2016,
section 3.3. So shared weights train as any parameters do:

    sharing = share(params, mask, levels=16, leaves=prunable)
    trained = trainable(sharing, params)          # {path: codebook, scale, or the leaf itself}
    loss = shared_loss(loss, sharing, mask, params)
    ...                                           # any loop and any optax optimiser, on `trained`
    sharing, params = with_trained(sharing, params, trained)
    ticket = Ticket(restore(sharing, mask, params), stats, mask, step)

`QUANTISERS` are the ways to choose values: k-means from one of `clustering.STARTS`, as in the
paper, whose codebook trains; and uniform symmetric quantisation (int8 is `levels=255`, 4 bits are
`levels=15`), with a scale for the leaf or for each of its outputs, which trains in its place.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.compress.clustering import STARTS, Start, cluster
from jaxtickets.types import Array, Key, Loss, Mask, Params, Prunable, Split, Stats


class Shared(NamedTuple):
    """A leaf of shared weights.

    Attributes:
      codebook: float`[k]`, sorted when it is made.
      assignments: int32, like the leaf; the codebook's index of each weight, 0 where pruned.
      scale: float`[1]`, or `[o]`, one for each output (the leaf's last axis), by which the
        codebook's values, here whole numbers, are multiplied; None without.
    """

    codebook: Array
    assignments: Array
    scale: Array | None = None


Sharing = Mapping[str, Shared]
"""Path -> the shared leaf; leaves that are absent have weights of their own."""

Quantiser = Callable[[np.ndarray, np.ndarray, int, int], Shared]
"""`quantiser(leaf, mask, levels, seed) -> Shared`: at most `levels` values for the leaf's weights
where the bool `mask` is True, at least one; `seed` is of random choices."""


def _clustered(leaf: np.ndarray, mask: np.ndarray, levels: int, seed: int, start: Start) -> Shared:
    """K-means with `levels` clusters, see `clustering`; all distinct values if they are so few."""
    distinct, members = np.unique(leaf[mask], return_inverse=True)
    if len(distinct) > levels:
        distinct, members = cluster(leaf[mask], levels, start, seed)
    assignments = np.zeros(leaf.shape, np.int32)
    assignments[mask] = members
    return Shared(distinct.astype(leaf.dtype), assignments)


def _uniform(leaf: np.ndarray, mask: np.ndarray, levels: int, seed: int, by_output: bool) -> Shared:
    """`w ≈ s q`, q a whole number from -m to m, `m = (levels - 1) / 2`, `s = max |w| / m`.

    The codebook has the whole numbers from the least to the greatest in use.

    Raises:
      ValueError: `levels` is not odd, or below 3.
    """
    del seed
    if levels < 3 or levels % 2 == 0:
        raise ValueError(f"{levels} levels of uniform quantisation: must be odd and 3 or more")
    most = levels // 2
    sizes = np.where(mask, np.abs(leaf), 0)
    largest = sizes.reshape(-1, leaf.shape[-1]).max(0) if by_output and leaf.ndim else sizes.max()
    scale = np.atleast_1d(np.where(largest > 0, largest / most, 1)).astype(leaf.dtype)
    numbers = np.where(mask, np.clip(np.rint(leaf / scale), -most, most), 0).astype(np.int32)
    least, greatest = numbers[mask].min(), numbers[mask].max()
    codebook = np.arange(least, greatest + 1).astype(leaf.dtype)
    return Shared(codebook, np.where(mask, numbers - least, 0).astype(np.int32), scale)


QUANTISERS: dict[str, Quantiser] = {
    **{name: partial(_clustered, start=start) for name, start in STARTS.items()},
    "uniform": partial(_uniform, by_output=False),
    "uniform_by_output": partial(_uniform, by_output=True),
}


def share(
    params: Params,
    mask: Mask,
    levels: int | Mapping[str, int],
    leaves: Prunable,
    quantiser: Quantiser = QUANTISERS["linear"],
    seed: int = 0,
) -> dict[str, Shared]:
    """Shares the kept weights of leaves among few values; on the host, deterministic.

    Args:
      params: unbatched.
      mask: bool, like the parameters.
      levels: the most values of each leaf, the same for all or path -> number. A leaf with fewer
        distinct weights keeps them all; one without kept weights has the value 0.
      leaves: the paths of the leaves that share: kernels, and biases too if they are listed.
      quantiser: one of `QUANTISERS`.
      seed: of random starts.

    Raises:
      ValueError: a kept weight is not finite, the mask does not match the parameters, a leaf is
        absent, or the number of levels is below 1 or does not suit the quantiser.

    >>> params = {"w": np.array([1.0, 3.0, 9.0, 99.0])}
    >>> mask = {"w": np.array([True, True, True, False])}
    >>> shared = share(params, mask, levels=2, leaves=("w",))["w"]
    >>> shared.codebook.tolist(), shared.assignments.tolist()
    ([2.0, 9.0], [0, 0, 1, 0])
    """
    masks.check_mask(mask, params)
    sharing = {}
    pairs = zip(masks.pick(params, leaves), masks.pick(mask, leaves), strict=True)
    for path, (leaf, kept) in zip(leaves, pairs, strict=True):
        leaf, kept = np.asarray(leaf), np.asarray(kept)
        count = levels[path] if isinstance(levels, Mapping) else levels
        if count < 1:
            raise ValueError(f"{path}: {count} levels: must be 1 or more")
        if not np.isfinite(leaf[kept]).all():
            raise ValueError(f"{path} holds NaN or infinity: only finite weights can be shared")
        if kept.any():
            one = quantiser(leaf, kept, count, seed)
        else:
            one = Shared(np.zeros(1, leaf.dtype), np.zeros(leaf.shape, np.int32))
        sharing[path] = jax.tree.map(jnp.asarray, one)
    return sharing


def restore(sharing: Sharing, mask: Mask, params: Params) -> Params:
    """The masked parameters, with the shared leaves' values; differentiable, and zero if pruned.

    Args:
      sharing: the shared leaves.
      mask: bool, like the parameters.
      params: the other leaves; those that are shared are only read for their structure.

    >>> params = {"w": np.array([1.0, 3.0, 9.0, 99.0])}
    >>> mask = {"w": np.array([True, True, True, False])}
    >>> sharing = share(params, mask, levels=2, leaves=("w",))
    >>> restore(sharing, mask, params)["w"].tolist()
    [2.0, 2.0, 9.0, 0.0]
    """
    paths = tuple(sharing)
    dense = masks.put(params, paths, [values(sharing[path]) for path in paths])
    return masks.apply(mask, dense)


def values(shared: Shared) -> Array:
    """The leaf's values, in numpy if all of it is; those of pruned weights mean nothing.

    >>> values(Shared(np.array([2.0, 9.0]), np.array([0, 1, 1]))).tolist()
    [2.0, 9.0, 9.0]
    >>> values(Shared(np.array([-1.0, 0.0, 1.0]), np.array([0, 2]), scale=np.array([0.5]))).tolist()
    [-0.5, 0.5]
    """
    found = shared.codebook[shared.assignments]
    if shared.scale is None:
        return found
    return found * shared.scale.reshape((1,) * (found.ndim - 1) + (-1,))


def trainable(sharing: Sharing, params: Params) -> dict[str, jax.Array]:
    """Path -> what trains: a codebook, or its scale if there is one; other leaves themselves.

    >>> sharing = {"w": Shared(jnp.array([2.0, 9.0]), np.array([0, 0, 1]))}
    >>> trained = trainable(sharing, {"w": np.zeros(3), "b": np.array([5.0])})
    >>> {path: leaf.tolist() for path, leaf in trained.items()}
    {'b': [5.0], 'w': [2.0, 9.0]}
    """
    own = {path: one.codebook if one.scale is None else one.scale for path, one in sharing.items()}
    leaves = dict(zip(masks.paths(params), jax.tree.leaves(params), strict=True))
    return {path: jnp.asarray(own.get(path, leaf)) for path, leaf in leaves.items()}


def with_trained(
    sharing: Sharing, params: Params, trained: Mapping[str, Array]
) -> tuple[dict[str, Shared], Params]:
    """The sharing and the parameters with what was trained, see `trainable`, in its places.

    >>> sharing = {"w": Shared(jnp.array([2.0, 9.0]), np.array([0, 0, 1]))}
    >>> trained = {"w": np.array([2.5, 9.5]), "b": np.array([6.0])}
    >>> sharing, params = with_trained(sharing, {"w": np.zeros(3), "b": np.zeros(1)}, trained)
    >>> values(sharing["w"]).tolist(), params["b"].tolist()
    ([2.5, 2.5, 9.5], [6.0])
    """
    new = {
        path: one._replace(codebook=trained[path])
        if one.scale is None
        else one._replace(scale=trained[path])
        for path, one in sharing.items()
    }
    others = tuple(path for path in masks.paths(params) if path not in sharing)
    return new, masks.put(params, others, [trained[path] for path in others])


def shared_loss(loss: Loss, sharing: Sharing, mask: Mask, dense: Params) -> Loss:
    """A loss of what is `trainable` of `dense`, for `training.advance` or any other loop.

    >>> sharing = {"w": Shared(jnp.array([2.0, 9.0]), np.array([0, 0, 1]))}
    >>> params, mask = {"w": np.zeros(3)}, {"w": np.ones(3, bool)}
    >>> sum_of_weights = lambda params, stats, batch, key: (params["w"].sum(), (stats, {}))
    >>> loss = shared_loss(sum_of_weights, sharing, mask, params)
    >>> gradient, _ = jax.grad(loss, has_aux=True)(trainable(sharing, params), {}, None, None)
    >>> gradient["w"].tolist()  # the members of each cluster
    [2.0, 1.0]
    """

    def loss_of_shared(
        params: Params, stats: Stats, batch: Split, key: Key
    ) -> tuple[jax.Array, tuple[Stats, dict[str, jax.Array]]]:
        now, others = with_trained(sharing, dense, params)
        return loss(restore(now, mask, others), stats, batch, key)

    return loss_of_shared


def rounded(sharing: Sharing, dtype: Any = jnp.float16) -> dict[str, Shared]:
    """Codebooks and scales rounded to `dtype`, but kept in their own: a file can store fewer bytes.

    Raises:
      ValueError: a value is outside the range of `dtype`.

    >>> sharing = {"w": Shared(np.array([0.1, 0.5], np.float32), np.array([0, 1]))}
    >>> rounded(sharing)["w"].codebook.tolist()
    [0.0999755859375, 0.5]
    """

    def leaf(path: str, array: Array) -> jax.Array:
        near = jnp.asarray(array).astype(dtype).astype(array.dtype)
        if not np.isfinite(np.asarray(near)).all():
            raise ValueError(f"a shared value of {path} is outside the range of {jnp.dtype(dtype)}")
        return near

    return {
        path: one._replace(
            codebook=leaf(path, one.codebook),
            scale=None if one.scale is None else leaf(path, one.scale),
        )
        for path, one in sharing.items()
    }
