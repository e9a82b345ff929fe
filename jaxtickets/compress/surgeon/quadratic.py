"""Quadratic problems of many rows: the order in which weights go, and the best values of the rest.

In a row, the loss of the weights `v[d]` is `½ vᵀ H v − gᵀ v`, up to a constant. Its minimum among
all v that are zero outside of a set K is `v_K = H_KK⁻¹ g_K`. With `g = H w`, as in the optimal
brain surgeon, this is `w_K + H_KK⁻¹ H_KP w_P` for the removed set P: the sum of the surgeon's
updates in any order of removal.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.compress.surgeon import elimination
from jaxtickets.compress.surgeon.elimination import Trace
from jaxtickets.types import Keep, Mask, Params, Prunable, Ticket

SMALL = 128
"""Rows of at most as many weights are solved many at a time, at full size."""

AT_ONCE = 256
"""The number of small rows that are solved at once."""


class Problem(NamedTuple):
    """Rows that share Hessians; float64 and on the host.

    Attributes:
      hessians: `[problems, d, d]`, symmetric and positive definite.
      linear: `[problems, rows, d]`, the vectors g.
      weights: `[problems, rows, d]`, the weights before the removal; zero where `removed`.
      removed: bool`[problems, rows, d]`: weights that are already removed, or that nothing depends
        on; they go first.
    """

    hessians: np.ndarray
    linear: np.ndarray
    weights: np.ndarray
    removed: np.ndarray


def _inverses(problem: Problem, where: str) -> np.ndarray:
    """float64`[problems, d, d]`: the inverse Hessians.

    Raises:
      ValueError: a Hessian is not positive definite; the message names `where`.
    """
    try:
        np.linalg.cholesky(problem.hessians)  # an error if one is not positive definite
        found = np.linalg.inv(problem.hessians)
    except np.linalg.LinAlgError:
        raise ValueError(_singular(where)) from None
    return (found + found.transpose(0, 2, 1)) / 2


def _singular(where: str) -> str:
    return f"the Hessian of {where} is singular: raise the damping or take more examples"


def trace(problem: Problem, where: str, group: int | None = None, keep: int = 0) -> Trace:
    """The order of removal of all rows, `[problems * rows, steps]`; see `elimination.eliminate`.

    >>> weights, removed = np.array([[[3.0, 1.0, 2.0]]]), np.zeros((1, 1, 3), bool)
    >>> order, losses = trace(Problem(np.eye(3)[None], weights, weights, removed), "a layer")
    >>> order.tolist(), losses.tolist()  # w² / 2
    ([[1, 2, 0]], [[0.5, 2.0, 4.5]])
    """
    problems, rows, d = problem.weights.shape
    return elimination.eliminate(
        _inverses(problem, where),
        np.repeat(np.arange(problems), rows),
        problem.weights.reshape(-1, d),
        problem.removed.reshape(-1, d),
        group,
        keep,
    )


def solve(problem: Problem, kept: np.ndarray, where: str) -> np.ndarray:
    """float64`[problems, rows, d]`: the best values of the weights in `kept`, zero elsewhere.

    Args:
      problem: the problem.
      kept: bool`[problems, rows, d]`.
      where: what the problem belongs to, for the message.

    Raises:
      ValueError: a Hessian is not positive definite.

    >>> hessians, weights = np.array([[[2.0, 1.0], [1.0, 2.0]]]), np.array([[[1.0, 3.0]]])
    >>> problem = Problem(hessians, weights @ hessians, weights, np.zeros((1, 1, 2), bool))
    >>> solve(problem, np.array([[[False, True]]]), "a layer").tolist()  # 3 + 1 / 2
    [[[0.0, 3.5]]]
    """
    problems, rows, d = problem.weights.shape
    which = np.repeat(np.arange(problems), rows)
    linear, chosen = problem.linear.reshape(-1, d), kept.reshape(-1, d)
    best = np.zeros_like(linear)
    try:
        if d <= SMALL:
            for start in range(0, len(which), AT_ONCE):
                part = slice(start, start + AT_ONCE)
                best[part] = _of_small(problem.hessians[which[part]], linear[part], chosen[part])
        else:
            for row, p in enumerate(which):
                (there,) = np.nonzero(chosen[row])
                hessian = problem.hessians[p][np.ix_(there, there)]
                best[row, there] = np.linalg.solve(hessian, linear[row, there])
    except np.linalg.LinAlgError:
        raise ValueError(_singular(where)) from None
    return best.reshape(problem.weights.shape)


def _of_small(hessians: np.ndarray, linear: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """One solution for each row, by matrices of full size with ones for the other weights."""
    both = kept[:, :, None] & kept[:, None, :]
    matrices = np.where(both, hessians, np.eye(kept.shape[1])[None])
    return np.linalg.solve(matrices, np.where(kept, linear, 0)[..., None])[..., 0]


class Removal(NamedTuple):
    """When the weights of a leaf are removed; arrays like a `Problem`'s weights.

    Attributes:
      cost: float64, the increase of the loss at which a weight goes: the largest increase in its
        row up to its removal, so that a row's weights go in the row's own order; -inf for a weight
        that was removed before, inf for one that never goes.
      step: int, the number of weights of its row that go before it; it orders equal costs.
    """

    cost: np.ndarray
    step: np.ndarray


def removal(problem: Problem, traced: Trace, scale: np.ndarray | float = 1.0) -> Removal:
    """When each weight goes, if the cheapest next weight of all rows goes first.

    Args:
      problem: the problem.
      traced: the trace of its rows.
      scale: float`[problems * rows]` or a number: factors that make the rows' losses comparable.

    >>> weights, removed = np.array([[[3.0, 1.0, 2.0]]]), np.zeros((1, 1, 3), bool)
    >>> problem = Problem(np.eye(3)[None], weights, weights, removed)
    >>> cost, step = removal(problem, Trace(np.array([[1, 2, 0]]), np.array([[0.5, 2.0, 4.5]])))
    >>> cost.tolist(), step.tolist()
    ([[[4.5, 0.5, 2.0]]], [[[2, 0, 1]]])
    """
    flat = problem.weights.reshape(-1, problem.weights.shape[-1])
    cost, step = np.full(flat.shape, np.inf), np.full(flat.shape, flat.shape[1])
    rows, steps = traced.order.shape
    losses = traced.losses * np.broadcast_to(scale, (rows,))[:, None]
    np.put_along_axis(cost, traced.order, np.maximum.accumulate(losses, axis=1), 1)
    np.put_along_axis(step, traced.order, np.broadcast_to(np.arange(steps), (rows, steps)), 1)
    cost = np.where(problem.removed.reshape(flat.shape), -np.inf, cost)
    return Removal(cost.reshape(problem.weights.shape), step.reshape(problem.weights.shape))


def single_removal(problem: Problem, where: str, scale: np.ndarray | float = 1.0) -> Removal:
    """When each weight goes by the cost of its removal alone, `w² / (2 [H⁻¹]_qq)`.

    >>> weights, removed = np.array([[[1.0, 3.0]]]), np.zeros((1, 1, 2), bool)
    >>> problem = Problem(2 * np.eye(2)[None], 2 * weights, weights, removed)
    >>> single_removal(problem, "a layer").cost.tolist()
    [[[1.0, 9.0]]]
    """
    problems, rows, _ = problem.weights.shape
    diagonal = np.diagonal(_inverses(problem, where), axis1=1, axis2=2)[:, None]
    each = np.broadcast_to(scale, (problems * rows,)).reshape(problems, rows, 1)
    cost = np.where(problem.removed, -np.inf, each * problem.weights**2 / (2 * diagonal))
    return Removal(cost, np.zeros(cost.shape, int))


class Study(NamedTuple):
    """What a surgeon learned about a net: everything that does not depend on the density.

    Attributes:
      ticket: the net and its mask, as they were given.
      prunable: the leaves that are ranked.
      removals: path -> when the leaf's weights go; arrays with the shape of the leaf.
      rebuild: `rebuild(mask) -> params`: the parameters under a mask, with the best values of the
        kept weights; zero where the mask is False.
    """

    ticket: Ticket
    prunable: Prunable
    removals: Mapping[str, Removal]
    rebuild: Callable[[Mask], Params]


def select(study: Study, keep: Keep, floor: Keep = 0) -> Mask:
    """The mask of the weights that go last, with exact counts; pruned weights stay pruned.

    Args:
      study: a surgeon's study.
      keep: an integer over all leaves, which are ranked together by cost, or path -> integer, such
        as from `allocation`.
      floor: see `masks.select`.

    Raises:
      ValueError: in one line: as in `masks.select`, or `keep` asks for weights that were pruned.

    >>> ticket = Ticket({"w": np.ones(3)}, {}, {"w": np.ones(3, bool)}, 0)
    >>> removals = {"w": Removal(cost=np.array([1.0, 3.0, 2.0]), step=np.zeros(3, int))}
    >>> select(Study(ticket, ("w",), removals, rebuild=None), keep=2)["w"].tolist()
    [False, True, True]
    """
    leaves = [study.removals[path] for path in study.prunable]
    cost, step = (
        np.concatenate([np.ravel(part) for part in parts]) for parts in zip(*leaves, strict=True)
    )
    rank = np.empty(cost.size)
    rank[np.lexsort((step, cost))] = np.arange(cost.size)
    parts = np.split(rank, np.cumsum([leaf.cost.size for leaf in leaves])[:-1])
    ranks = [part.reshape(leaf.cost.shape) for part, leaf in zip(parts, leaves, strict=True)]
    with jax.enable_x64(True):  # float32 would not tell more than 2²⁴ ranks apart
        scores = masks.put(study.ticket.mask, study.prunable, [jnp.asarray(r) for r in ranks])
        mask = masks.select(scores, study.prunable, keep, floor)
    mask = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), mask)
    for path, new, old in zip(
        study.prunable,
        masks.pick(mask, study.prunable),
        masks.pick(study.ticket.mask, study.prunable),
        strict=True,
    ):
        if bool(jnp.any(new & ~old)):
            raise ValueError(f"{path} would keep weights that are pruned: lower what is kept")
    return mask


def prune(study: Study, keep: Keep, floor: Keep = 0) -> Ticket:
    """The ticket with exactly `keep` weights, at the values that the surgeon gives them.

    Args:
      study, keep, floor: as in `select`.

    Returns:
      A ticket whose parameters are zero where its mask is False. Batch statistics are those of the
      study: estimate them again if there are any.

    Raises:
      ValueError: as in `select`, or a Hessian is singular.

    >>> ticket = Ticket({"w": np.ones(3)}, {}, {"w": np.ones(3, bool)}, 0)
    >>> removals = {"w": Removal(cost=np.array([1.0, 3.0, 2.0]), step=np.zeros(3, int))}
    >>> study = Study(ticket, ("w",), removals, lambda mask: {"w": np.where(mask["w"], 1.5, 0)})
    >>> pruned = prune(study, keep=2)
    >>> pruned.mask["w"].tolist(), pruned.params["w"].tolist()
    ([False, True, True], [0.0, 1.5, 1.5])
    """
    return rebuilt(study, select(study, keep, floor))


def rebuilt(study: Study, mask: Mask) -> Ticket:
    """The ticket of any mask, with the surgeon's values.

    Raises:
      ValueError: the mask does not match the parameters, or a Hessian is singular.

    >>> ticket = Ticket({"w": np.ones(3)}, {}, {"w": np.ones(3, bool)}, 0)
    >>> study = Study(ticket, ("w",), {}, lambda mask: {"w": np.where(mask["w"], 1.5, 0)})
    >>> rebuilt(study, {"w": np.array([True, False, True])}).params["w"].tolist()
    [1.5, 0.0, 1.5]
    """
    masks.check_mask(mask, study.ticket.params)
    return study.ticket._replace(params=study.rebuild(mask), mask=mask)
