"""What a move drops and grows: scores of weights, and shares of leaves.

A score is `score(view) -> tree of float`, like the parameters. Of the kept weights, those with the
lowest drop scores are dropped; of the others, those with the highest grow scores are grown. Any
score of this file may serve as either.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks
from jaxtickets.dynamic.base import View
from jaxtickets.types import Array, Params, Prunable, Schedule, Scores

Score = Callable[[View], Scores]


def magnitude(view: View) -> Scores:
    """`|w|`.

    >>> view = View({}, {"w": np.array([1.0, -2.0])}, {}, (), (), 0, None)
    >>> magnitude(view)["w"].tolist()
    [1.0, 2.0]
    """
    return jax.tree.map(jnp.abs, view.params)


def taylor(view: View) -> Scores:
    """`|w · dL/dw|`: how much the loss changes without the weight, to first order.

    >>> view = View({"w": np.array([5.0, 1.0])}, {"w": np.array([1.0, -2.0])}, {}, (), (), 0, None)
    >>> taylor(view)["w"].tolist()
    [5.0, 2.0]
    """
    return jax.tree.map(lambda w, g: jnp.abs(w * g), view.params, view.gradient)


def magnitude_by_sign(view: View) -> Scores:
    """The rank of `|w|` among a leaf's kept weights of the same sign, as a share of their number.

    The lowest share ζ of a leaf is the share ζ of its positive weights nearest to zero, and that of
    its negative ones, up to one weight (Mocanu et al., 2018). Zero counts as positive.

    >>> params = {"w": jnp.array([1.0, 2.0, -3.0, -4.0])}
    >>> view = View({}, params, {"w": np.ones(4, bool)}, (), (), 0, None)
    >>> magnitude_by_sign(view)["w"].tolist()
    [0.5, 1.0, 0.5, 1.0]
    """

    def leaf(w: Array, keep: Array) -> Array:
        flat, kept = jnp.ravel(w), jnp.ravel(keep)
        shares = jnp.zeros(flat.shape, float)
        for group in (kept & (flat >= 0), kept & (flat < 0)):
            order = jnp.argsort(jnp.where(group, jnp.abs(flat), jnp.inf))
            rank = jnp.zeros(flat.shape, float).at[order].set(jnp.arange(1.0, flat.size + 1))
            shares = jnp.where(group, rank / jnp.maximum(group.sum(), 1), shares)
        return shares.reshape(w.shape)

    return jax.tree.map(leaf, view.params, view.mask)


def at_random(view: View) -> Scores:
    """Independent uniform scores.

    >>> view = View({}, {"w": np.ones((2, 3))}, {}, (), (), 0, jax.random.key(0))
    >>> scores = at_random(view)["w"]
    >>> scores.shape, bool(((scores >= 0) & (scores < 1)).all())
    ((2, 3), True)
    """
    return _draw(view, 0, jax.random.uniform)


def gradient(view: View) -> Scores:
    """`|dL/dw|`, also of pruned weights.

    >>> view = View({"w": np.array([5.0, -1.0])}, {}, {}, (), (), 0, None)
    >>> gradient(view)["w"].tolist()
    [5.0, 1.0]
    """
    return jax.tree.map(jnp.abs, view.gradient)


def momentum(view: View) -> Scores:
    """`|m|` of the inner optimiser's momentum m; with Adam's second moment v, `|m| / sqrt(v)`.

    The inner optimiser sees the gradients of kept weights alone, and the moments of a dropped
    weight are reset, so that of the pruned weights only those that the same move dropped have a
    momentum, and the first of the others grow. To grow by momentum, see `sparse_momentum`, which
    averages the dense gradient.

    Raises:
      ValueError: the inner optimiser has no momentum of all parameters.

    >>> inner = optax.TraceState({"w": np.array([-3.0, 2.0])})
    >>> momentum(View({}, {"w": np.ones(2)}, {}, inner, (), 0, None))["w"].tolist()
    [3.0, 2.0]
    """
    known = (optax.TraceState, optax.ScaleByAdamState)
    parts = jax.tree.leaves(view.inner, is_leaf=lambda node: isinstance(node, known))
    like: Any = jax.tree.structure(view.params)
    for part in parts:
        if isinstance(part, optax.TraceState) and jax.tree.structure(part.trace) == like:
            return jax.tree.map(jnp.abs, part.trace)
        if isinstance(part, optax.ScaleByAdamState) and jax.tree.structure(part.mu) == like:
            return jax.tree.map(lambda m, v: jnp.abs(m) / (jnp.sqrt(v) + 1e-8), part.mu, part.nu)
    raise ValueError("this rule needs the inner optimiser's momentum: use SGD with it, or Adam")


def paths(view: View) -> Scores:
    """How many paths of length three join a pruned weight's two ends within their communities.

    A path from input i to output o goes over another output and another input j. For a kernel
    `[n, o]` with mask M, let i and j be neighbours if they have a common output, and let
    `e(i, j)` be the number of outputs of j that i doesn't have. The score is

        `Σ_j M[j, o] / max(e(i, j), 1)`, over the neighbours j of i,

    and the same sum with inputs and outputs exchanged. It needs no gradient. This is the node-based
    index CH3-L3n, from the code of Zhang et al., 2025, see `chts`. Ties, above all the pairs
    without a path, are ordered at random, far below the least path. Leaves with fewer than two axes
    score 0.

    >>> mask = {"w": jnp.array([[True, True], [True, False]])}  # one path joins what is pruned
    >>> view = View({}, {"w": np.zeros((2, 2))}, mask, (), (), 0, jax.random.key(0))
    >>> round(float(paths(view)["w"][1, 1]), 3)  # counted from both ends
    2.0
    """

    def half(m: Array) -> Array:
        common = m @ m.T
        outside = jnp.maximum(m.sum(1)[None] - common, 1)
        return jnp.where(common > 0, 1 / outside, 0) @ m

    def leaf(keep: Array, tie: Array) -> Array:
        if keep.ndim < 2:
            return jnp.zeros(keep.shape, float)
        m = keep.reshape(-1, keep.shape[-1]).astype(float)
        return (half(m) + half(m.T).T).reshape(keep.shape) + 1e-6 * tie

    return jax.tree.map(leaf, view.mask, _draw(view, 1, jax.random.uniform))


def sampled(score: Score, exponent: Schedule) -> Score:
    """Scores whose top k are a sample without replacement, with `p ∝ score^exponent(calls)`.

    The top k of `exponent · log(score) + Gumbel noise` are k draws one after another, each in
    proportion to what is left (Kool et al., "Stochastic beams and where to find them", 2019). A
    score of 0 comes last.

    Args:
      score: of non-negative numbers.
      exponent: calls -> the exponent; 0 for uniform draws, finite.

    >>> view = View({}, {"w": np.array([0.0, 1000.0, 1.0])}, {}, (), (), 0, jax.random.key(0))
    >>> scores = sampled(magnitude, lambda calls: 100.0)(view)["w"]
    >>> scores.argsort().tolist()  # a high exponent leaves the order to the scores
    [0, 2, 1]
    """

    def sample(view: View) -> Scores:
        noise = _draw(view, 2, jax.random.gumbel)
        power = exponent(view.calls)
        return jax.tree.map(
            lambda s, z: jnp.where(s > 0, power * jnp.log(s) + z, -jnp.finfo(s.dtype).max),
            score(view),
            noise,
        )

    return sample


def heated(score: Score, temperature: Callable[[View], Array]) -> Score:
    """`log(score) + τ · Gumbel noise`; the scores themselves where τ is 0.

    Their top k are a sample without replacement with `p ∝ score^(1/τ)`, as in `sampled`, which
    becomes the exact choice as τ falls to 0. A score of 0 comes last.

    Args:
      score: of non-negative numbers.
      temperature: view -> τ, from 0 on.

    >>> view = View({}, {"w": np.array([0.0, 1000.0, 1.0])}, {}, (), (), 0, jax.random.key(0))
    >>> heated(magnitude, lambda view: 0.0)(view)["w"].tolist()
    [0.0, 1000.0, 1.0]
    >>> heated(magnitude, lambda view: 0.01)(view)["w"].argsort().tolist()
    [0, 2, 1]
    """

    def noisy(view: View) -> Scores:
        heat = temperature(view)

        def leaf(s: Array, z: Array) -> Array:
            drawn = jnp.where(s > 0, jnp.log(s) + heat * z, -jnp.finfo(s.dtype).max)
            return jnp.where(heat > 0, drawn, s)

        return jax.tree.map(leaf, score(view), _draw(view, 2, jax.random.gumbel))

    return noisy


def _draw(view: View, purpose: int, draw: Callable[..., Array]) -> Params:
    """Independent numbers for each parameter; other ones for each purpose of a rule."""
    leaves, treedef = jax.tree.flatten(view.params)
    key = jax.random.fold_in(view.random(), purpose)
    drawn = [draw(jax.random.fold_in(key, i), jnp.shape(leaf)) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(treedef, drawn)


# --- shares of leaves ----------------------------------------------------------------------------


def mean_of(score: Score) -> Callable[[View, Prunable], Array]:
    """Shares in proportion to the mean score of each leaf's kept weights: float`[leaves]`.

    >>> params = {"a": np.array([1.0, -3.0]), "b": np.array([5.0, 7.0])}
    >>> mask = {"a": np.array([True, True]), "b": np.array([True, False])}
    >>> mean_of(magnitude)(View({}, params, mask, (), (), 0, None), ("a", "b")).tolist()
    [2.0, 5.0]
    """

    def shares(view: View, prunable: Prunable) -> Array:
        leaves = zip(
            masks.pick(score(view), prunable), masks.pick(view.mask, prunable), strict=True
        )
        return jnp.stack(
            [jnp.sum(jnp.where(keep, s, 0)) / jnp.maximum(jnp.sum(keep), 1) for s, keep in leaves]
        )

    return shares


def divide(total: Array, shares: Array, room: Array) -> Array:
    """int32`[n]`: divides `total` in proportion to shares, none above its room; an exact sum.

    `floor(min(λ · share, room))` with λ such that the numbers before rounding sum to `total`; what
    rounding leaves goes to the largest remainders, one each, and then to the first that have room.

    Args:
      total: int32 scalar, at most the sum of the rooms, which is below 2^31.
      shares: float`[n]`, not negative; if all are zero, the rooms are used in their place.
      room: int32`[n]`.

    >>> divide(10, np.array([1.0, 3.0]), room=np.array([10, 6])).tolist()  # not 2.5 and 7.5
    [4, 6]
    """
    shares = jnp.where(jnp.sum(shares) > 0, shares, room).astype(float)
    shares = shares / jnp.maximum(jnp.sum(shares), jnp.finfo(shares.dtype).tiny)
    tiny = jnp.finfo(shares.dtype).eps
    low, high = jnp.zeros(()), jnp.max(room / jnp.maximum(shares, tiny)).astype(float)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        short = jnp.sum(jnp.minimum(middle * shares, room)) < total
        return jnp.where(short, middle, low), jnp.where(short, high, middle)

    low, _ = jax.lax.fori_loop(0, 60, halve, (low, high))
    exact = jnp.minimum(low * shares, room)
    given = jnp.minimum(jnp.floor(exact).astype(jnp.int32), room)
    over = jnp.maximum(given.sum() - total, 0)  # by rounding errors of large counts alone
    given -= _fill(over, given)
    order = jnp.argsort(given - exact)  # the largest remainder first
    one = jnp.minimum(room - given, 1)[order]
    given = given.at[order].add(_fill(total - given.sum(), one))
    return given + _fill(total - given.sum(), room - given)


def _fill(total: Array, room: Array) -> Array:
    """The first takes what it has room for, then the second, and so on, until `total` is given."""
    before = jnp.cumsum(room) - room
    return jnp.clip(total - before, 0, room)
