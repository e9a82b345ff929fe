"""The optimal brain surgeon with the whole Hessian, for small nets.

Hassibi and Stork, "Second order derivatives for network pruning: optimal brain surgeon", 1992. The
Hessian is that of the mean cross-entropy in all prunable weights, where the paper takes the outer
products of gradients. A trained net is not quite at a minimum: eigenvalues of the Hessian below the
damping are raised to it. The gradient is taken to be zero.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtickets import masks
from jaxtickets.compress.surgeon import quadratic
from jaxtickets.compress.surgeon.quadratic import Problem, Removal, Study
from jaxtickets.criteria.base import Evidence, check_batches, evaluation_loss
from jaxtickets.types import Array, Mask, Params, Prunable, Ticket

DAMPING = 1e-4
MOST = 5000
"""The most weights: the Hessian takes 200 MB, and its elimination a minute."""
COLUMNS = 64
"""The number of the Hessian's columns that are computed at once."""


def study(evidence: Evidence, prunable: Prunable, *, damping: float = DAMPING) -> Study:
    """The order of removal of all weights; `quadratic.prune` then takes any density.

    Args:
      evidence: the trained net, its mask, and batches of training examples.
      prunable: the leaves that are pruned; the others keep their values.
      damping: the smallest eigenvalue of the Hessian, in nats.

    Raises:
      ValueError: in one line: there are more than `MOST` weights, or `damping` is not positive.

    >>> from jaxtickets.types import Model, Split
    >>> net = Model(None, lambda params, stats, images, *_: (images @ params["w"], stats))
    >>> params = {"w": jnp.array([[3.0, 1.0]])}
    >>> data = Split(np.full((1, 1, 1), 2.0), np.zeros((1, 1), int))
    >>> evidence = Evidence(None, params, {}, masks.ones(params), data, None, net, jnp.asarray)
    >>> found = quadratic.prune(study(evidence, ("w",)), keep=1)
    >>> found.mask["w"].tolist(), [round(float(w), 2) for w in found.params["w"][0]]
    ([[True, False]], [2.0, 0.0])
    """
    if not damping > 0:
        raise ValueError(f"damping {damping}: must be above 0")
    masks.check_mask(evidence.mask, evidence.params)
    weights = masks.size(evidence.params, prunable)
    if weights > MOST:
        raise ValueError(f"{weights} weights: the whole Hessian is for nets of at most {MOST}")
    params = masks.apply(evidence.mask, evidence.params)
    values, vectors = np.linalg.eigh(hessian(evidence._replace(params=params), prunable))
    whole = (vectors * np.maximum(values, damping)) @ vectors.T
    flat = np.asarray(masks.flatten(params, prunable), np.float64)
    removed = ~np.asarray(masks.flatten(evidence.mask, prunable))
    one = Problem(whole[None], (whole @ flat)[None, None], flat[None, None], removed[None, None])
    found = quadratic.removal(one, quadratic.trace(one, "the net"))
    shapes = masks.shapes(params, prunable)

    def leaves(vector: np.ndarray) -> list[np.ndarray]:
        ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes.values()])[:-1]
        parts = np.split(vector, ends)
        return [part.reshape(shape) for part, shape in zip(parts, shapes.values(), strict=True)]

    def rebuild(mask: Mask) -> Params:
        kept = np.asarray(masks.flatten(mask, prunable))[None, None]
        best = leaves(quadratic.solve(one, kept, "the net")[0, 0])
        old = masks.pick(params, prunable)
        new = [jnp.asarray(a, b.dtype) for a, b in zip(best, old, strict=True)]
        return masks.put(masks.apply(mask, params), prunable, new)

    costs, steps = (leaves(a[0, 0]) for a in found)
    removals = {
        path: Removal(cost, step) for path, cost, step in zip(prunable, costs, steps, strict=True)
    }
    ticket = Ticket(params, evidence.stats, evidence.mask, np.int32(0))
    return Study(ticket, prunable, removals, rebuild)


def hessian(evidence: Evidence, prunable: Prunable) -> np.ndarray:
    """float64`[n, n]`: of the mean loss over all batches, in evaluation mode.

    >>> from jaxtickets.types import Model, Split
    >>> net = Model(None, lambda params, stats, images, *_: (images @ params["w"], stats))
    >>> params = {"w": jnp.zeros((1, 2))}
    >>> data = Split(np.full((1, 1, 1), 2.0), np.zeros((1, 1), int))
    >>> evidence = Evidence(None, params, {}, masks.ones(params), data, None, net, jnp.asarray)
    >>> hessian(evidence, ("w",)).round(3).tolist()  # x² p (1 - p) is 4 / 4
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    check_batches(evidence)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), evidence.params)
        leaves = masks.pick(params, prunable)
        flat = masks.flatten(params, prunable)

        @jax.jit
        def of_batch(images: Array, labels: Array) -> Array:
            def loss(vector: Array) -> Array:
                parts, start = [], 0
                for leaf in leaves:
                    parts.append(vector[start : start + leaf.size].reshape(leaf.shape))
                    start += leaf.size
                changed = masks.put(params, prunable, parts)
                return evaluation_loss(evidence, changed, images, labels)

            def column(direction: Array) -> Array:
                return jax.jvp(jax.grad(loss), (flat,), (direction,))[1]

            return lax.map(column, jnp.eye(flat.size), batch_size=COLUMNS)

        total = [np.asarray(of_batch(*batch)) for batch in zip(*evidence.batches, strict=True)]
    mean = np.mean(total, 0)
    return (mean + mean.T) / 2
