"""WoodFisher: the optimal brain surgeon with blocks of the empirical Fisher information.

Singh and Alistarh, "WoodFisher: efficient second-order approximation for neural network
compression", 2020, sections 3 and 4. A block holds consecutive weights of a leaf, output by output;
with g_n the gradient of example n's cross-entropy in its weights, its Hessian is
`F = λ I + 1/N Σ_n g_n g_nᵀ`. Removing weight q costs `w_q² / (2 [F⁻¹]_qq)`, in nats, comparable
over all blocks and leaves.

Deviations. The paper's λ is 1e-5 in all nets. Here it is a share of the information's mean
diagonal, because gradients of a net that fits its examples are so small that a fixed λ leaves
magnitude pruning. The paper computes F⁻¹ without F, by the Woodbury recursion
`F⁻¹ ← F⁻¹ − (F⁻¹ g)(F⁻¹ g)ᵀ / (N + gᵀ F⁻¹ g)` from `I / λ`, one example after another. The blocks
are small enough to sum F and invert it, which is the same matrix by products of matrices. The paper
adds the updates of single removals; here the kept weights move to the joint minimum of each block.
With `again`, costs are computed again after each removal of a block, as in Kurtic et al., "The
optimal BERT surgeon", 2022, section 3.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.compress.surgeon import quadratic
from jaxtickets.compress.surgeon.quadratic import Problem, Removal, Study
from jaxtickets.criteria.base import Evidence, check_batches, evaluation_loss, loss_gradient
from jaxtickets.types import Array, Mask, Params, Prunable, Ticket

DAMPING = 0.1
BLOCK = 64
"""The default size of blocks; a net of n weights takes `8 n` bytes times this."""


def study(
    evidence: Evidence,
    prunable: Prunable,
    *,
    damping: float = DAMPING,
    block: int = BLOCK,
    again: bool = False,
) -> Study:
    """The order of removal of all weights; `quadratic.prune` then takes any density.

    Args:
      evidence: the trained net, its mask, and batches of training examples.
      prunable: the leaves that are pruned; any.
      damping: λ, as a share of the mean diagonal of F over all prunable weights.
      block: the number of weights of a block.
      again: whether the costs are computed again after each removal in a block.

    Raises:
      ValueError: in one line: `damping` is not positive, `block` is below 1, or no gradient differs
        from zero.

    >>> from jaxtickets.types import Model, Split
    >>> net = Model(None, lambda params, stats, images, *_: (images @ params["w"], stats))
    >>> params = {"w": jnp.array([[3.0, 1.0]])}
    >>> data = Split(np.full((1, 1, 1), 2.0, "f"), np.zeros((1, 1), int))
    >>> evidence = Evidence(None, params, {}, masks.ones(params), data, None, net, jnp.asarray)
    >>> found = quadratic.prune(study(evidence, ("w",), damping=1e-3), keep=1)
    >>> found.mask["w"].tolist(), [round(float(w), 2) for w in found.params["w"][0]]
    ([[True, False]], [2.0, 0.0])
    """
    if not damping > 0:
        raise ValueError(f"damping {damping}: must be above 0")
    if block < 1:
        raise ValueError(f"blocks of {block} weights: must be 1 or more")
    masks.check_mask(evidence.mask, evidence.params)
    params = masks.apply(evidence.mask, evidence.params)
    problems = {}
    blocks = information(evidence._replace(params=params), prunable, block)
    trace = sum(np.trace(fisher, axis1=1, axis2=2).sum() for fisher in blocks.values())
    if not trace > 0:
        raise ValueError("the Fisher information is zero: every gradient of the batches is")
    ridge = damping * trace / masks.size(params, prunable)
    for path, fisher in blocks.items():
        (leaf,), (mask,) = (masks.pick(tree, (path,)) for tree in (params, evidence.mask))
        size = fisher.shape[-1]
        hessians = fisher + ridge * np.eye(size)[None]
        weights = np.asarray(to_blocks(leaf, size), np.float64)[:, None]
        removed = ~np.asarray(to_blocks(mask, size))[:, None]
        linear = np.einsum("gij,grj->gri", hessians, weights)
        problems[path] = Problem(hessians, linear, weights, removed)
    removals = {}
    for path, one in problems.items():
        (leaf,) = masks.pick(params, (path,))
        if again:
            found = quadratic.removal(one, quadratic.trace(one, path))
        else:
            found = quadratic.single_removal(one, path)
        removals[path] = Removal(*(from_blocks(a[:, 0], leaf.shape) for a in found))

    def rebuild(mask: Mask) -> Params:
        new = masks.apply(mask, params)
        for path, one in problems.items():
            (leaf,), (kept,) = (masks.pick(tree, (path,)) for tree in (params, mask))
            chosen = np.asarray(to_blocks(kept, one.weights.shape[-1]))[:, None]
            best = from_blocks(quadratic.solve(one, chosen, path)[:, 0], leaf.shape)
            new = masks.put(new, (path,), [jnp.asarray(best, leaf.dtype)])
        return new

    ticket = Ticket(params, evidence.stats, evidence.mask, np.int32(0))
    return Study(ticket, prunable, removals, rebuild)


def information(evidence: Evidence, prunable: Prunable, block: int) -> dict[str, np.ndarray]:
    """Path -> float64`[blocks, b, b]`: the empirical Fisher information of each block.

    b is `block`, or the leaf's size if that is smaller; what the last block lacks is zero.

    >>> from jaxtickets.types import Model, Split
    >>> net = Model(None, lambda params, stats, images, *_: (images @ params["w"], stats))
    >>> params = {"w": jnp.zeros((1, 2))}
    >>> data = Split(np.full((1, 1, 1), 2.0, "f"), np.zeros((1, 1), int))
    >>> evidence = Evidence(None, params, {}, masks.ones(params), data, None, net, jnp.asarray)
    >>> information(evidence, ("w",), block=2)["w"].tolist()  # the gradient is -1 and 1
    [[[1.0, -1.0], [-1.0, 1.0]]]
    """
    check_batches(evidence)

    @jax.jit
    def gradients(images: Array, labels: Array) -> list[Array]:
        def loss(params: Params, image: Array, label: Array) -> Array:
            return evaluation_loss(evidence, params, image[None], label[None])

        def one(image: Array, label: Array) -> list[Array]:
            found = loss_gradient(lambda params: loss(params, image, label), evidence.params)
            return masks.pick(found, prunable)

        return jax.vmap(one)(images, labels)

    total: dict[str, Array] = {}
    for images, labels in zip(*evidence.batches, strict=True):
        found = gradients(images, labels)
        with jax.enable_x64(True):
            for path, leaf in zip(prunable, found, strict=True):
                size = min(block, leaf[0].size)
                some = _products(leaf, size)
                total[path] = total[path] + some if path in total else some
    count = np.prod(evidence.batches.labels.shape)
    return {path: np.asarray(some) / count for path, some in total.items()}


@partial(jax.jit, static_argnums=1)
def _products(gradients: Array, size: int) -> Array:
    blocks = jax.vmap(lambda leaf: to_blocks(leaf, size))(gradients.astype(jnp.float64))
    return jnp.einsum("nki,nkj->kij", blocks, blocks)


def to_blocks(leaf: Array, size: int) -> jax.Array:
    """`[blocks, size]`: the leaf's elements, output by output; the last block ends in zeros.

    >>> to_blocks(np.array([[1, 2], [3, 4]]), 3).tolist()
    [[1, 3, 2], [4, 0, 0]]
    """
    flat = jnp.moveaxis(jnp.asarray(leaf), -1, 0).ravel()
    return jnp.pad(flat, (0, -flat.size % size)).reshape(-1, size)


def from_blocks(blocks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The leaf of `shape` whose `to_blocks` are `blocks`.

    >>> from_blocks(np.array([[1, 3, 2], [4, 0, 0]]), (2, 2)).tolist()
    [[1, 2], [3, 4]]
    """
    outputs_first = (shape[-1], *shape[:-1])
    return np.moveaxis(blocks.ravel()[: np.prod(shape)].reshape(outputs_first), 0, -1)
