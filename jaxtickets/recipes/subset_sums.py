"""Which of a weight's random coefficients to keep so that their sum is nearest to the weight.

Each rule maps `targets` float`[weights]` and `coefficients` float`[n, weights]` to the coefficients
kept, bool`[n, weights]`; weights are independent of each other.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxtickets import runs
from jaxtickets.runs import Axis
from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array

Rule = Callable[[Array, Array], jax.Array]
"""`rule(targets, coefficients) -> kept`, see the module."""

MOST = 28
"""The most coefficients of `meet_in_the_middle`. With more, sums are closer to each other than
float32 resolves."""
LANES, TURNS = 64, 16
"""Weights that `search` takes side by side, and one after another, in a row of work."""


def search(rule: Rule, targets: Array, coefficients: Array, axis: Axis) -> jax.Array:
    """Applies a rule to many weights, a thousand at a time, over the devices of an axis.

    Args:
      rule: one of this module's.
      targets: float`[weights]`.
      coefficients: float`[n, weights]`.
      axis: the devices, and how many thousands each searches at once.

    Returns:
      The coefficients kept, bool`[n, weights]`.

    >>> coefficients = jnp.array([[0.25], [0.5], [1.0]])
    >>> search(closest, jnp.array([0.875]), coefficients, runs.axis()).tolist()
    [[False], [False], [True]]
    """
    _check(targets, coefficients)

    def row(work: tuple[Array, Array]) -> jax.Array:
        return lax.map(lambda some: rule(*some), work)

    kept = runs.over_runs(row, axis, _in_rows(targets, coefficients))
    return _unpacked(kept, len(targets))


@jax.jit
def _in_rows(targets: Array, coefficients: Array) -> tuple[jax.Array, jax.Array]:
    """`[rows, TURNS, LANES]` and `[rows, TURNS, n, LANES]`, padded with zeros."""
    n, weights = coefficients.shape
    padding = -weights % (LANES * TURNS)
    wide = jnp.pad(coefficients, ((0, 0), (0, padding))).reshape(n, -1, TURNS, LANES)
    return jnp.pad(targets, (0, padding)).reshape(-1, TURNS, LANES), jnp.moveaxis(wide, 0, 2)


@partial(jax.jit, static_argnums=1)
def _unpacked(kept: Array, weights: int) -> jax.Array:
    """bool`[rows, TURNS, n, LANES]` -> `[n, weights]`."""
    return jnp.moveaxis(kept, 2, 0).reshape(kept.shape[2], -1)[:, :weights]


def closest(targets: Array, coefficients: Array) -> jax.Array:
    """Keeps the one coefficient that is nearest to the target; no sum.

    Malach et al., "Proving the lottery ticket hypothesis: pruning is all you need", 2020.

    >>> closest(jnp.array([0.625]), jnp.array([[0.25], [0.5], [1.0]])).tolist()
    [[False], [True], [False]]
    """
    _check(targets, coefficients)
    found = _first_least(jnp.abs(targets[None] - coefficients))
    return jnp.arange(len(coefficients))[:, None] == found[None]


def greedy(targets: Array, coefficients: Array) -> jax.Array:
    """From large to small, keeps each coefficient of the target's sign that still fits into it.

    With `g = (sqrt 5 - 1) / 2`, what is left of a target in [-1, 1] is at most `g^(m - 1)` if each
    interval `[g^(k + 1), g^k]`, `k = 0 .. m - 1`, holds the size of a coefficient of its sign.
    Orseau et al., "Logarithmic pruning is all you need", 2020. They use one coefficient of each
    interval; here all may serve, which leaves no more.

    >>> greedy(jnp.array([0.75]), jnp.array([[0.5], [0.375], [0.25], [-0.5]])).tolist()
    [[True], [False], [True], [False]]
    """
    _check(targets, coefficients)
    same = jnp.sign(coefficients) == jnp.sign(targets)[None]
    sizes = jnp.where(same, jnp.abs(coefficients), 0)
    order = jnp.argsort(-sizes, axis=0)

    def take(left: jax.Array, size: jax.Array) -> tuple[jax.Array, jax.Array]:
        fits = (size > 0) & (size <= left)
        return left - jnp.where(fits, size, 0), fits

    _, kept = lax.scan(take, jnp.abs(targets), jnp.take_along_axis(sizes, order, axis=0))
    return jnp.take_along_axis(kept, jnp.argsort(order, axis=0), axis=0)


def meet_in_the_middle(targets: Array, coefficients: Array) -> jax.Array:
    """Keeps the subset whose sum is nearest to the target, of all `2^n` subsets.

    The sums of each half of the coefficients are sorted: `S` and `S + c` are, so the sums with one
    more coefficient `c` are their merge (Horowitz and Sahni, 1974). The first half's sums and
    `target - sum` of the second half's are merged in turn, and the nearest pair are neighbours. All
    merges are bitonic networks of minima and maxima over whole rows of weights (Batcher, 1968),
    which take no indices: `O(n 2^(n/2))` operations a weight. Sums are rounded as those of the
    coefficients' dtype. Pensia et al., "Optimal lottery tickets via subset sum", 2020, solve an
    integer program for each weight instead.

    Raises:
      ValueError: there are no coefficients, or more than `MOST`.

    >>> coefficients = jnp.array([[0.5], [0.375], [0.375], [-1.0]])
    >>> jax.jit(meet_in_the_middle)(jnp.array([0.75]), coefficients).tolist()
    [[False], [True], [True], [False]]
    """
    _check(targets, coefficients)
    n = len(coefficients)
    if n > MOST:
        raise ValueError(f"{n} coefficients: all subsets of at most {MOST} can be searched")
    even = jnp.concatenate([coefficients, jnp.zeros_like(coefficients[: n % 2])])
    half = len(even) // 2
    rising = _sorted_sums(jnp.concatenate([even[:half], even[half:]], axis=1))
    first, second = jnp.split(rising, 2, axis=1)
    values = jnp.concatenate([first, targets[None] - second])  # rises, then falls
    from_first = jnp.broadcast_to((jnp.arange(len(values)) < len(first))[:, None], values.shape)
    values, from_first = _merged(values, from_first)

    pairs = from_first[1:] != from_first[:-1]
    at = _first_least(jnp.where(pairs, values[1:] - values[:-1], jnp.inf))[None]
    lower, upper = (jnp.take_along_axis(values, at + i, axis=0) for i in (0, 1))
    is_lower = jnp.take_along_axis(from_first, at, axis=0)
    ours, theirs = jnp.where(is_lower, lower, upper), jnp.where(is_lower, upper, lower)
    index = (
        _first_least(jnp.abs(_sums(even[:half]) - ours)),
        _first_least(jnp.abs(targets[None] - _sums(even[half:]) - theirs)),
    )
    digits = jnp.arange(half)[:, None]
    return jnp.concatenate([(one[None] >> digits) % 2 == 1 for one in index])[:n]


def _check(targets: Array, coefficients: Array) -> None:
    check_array("the targets", targets, ("weights",))
    check_array("the coefficients", coefficients, ("n", len(targets)))
    if not len(coefficients):
        raise ValueError("there are no coefficients to choose from")


def _sums(coefficients: Array) -> jax.Array:
    """The sums of all subsets, `[2^n, weights]`; bit `k` of the index says whether `k` is in."""
    sums = jnp.zeros_like(coefficients[:1])
    for one in coefficients:
        sums = jnp.concatenate([sums, sums + one[None]])
    return sums


def _sorted_sums(coefficients: Array) -> jax.Array:
    """The same sums in rising order for each weight."""
    sums = jnp.zeros_like(coefficients[:1])
    for one in coefficients:
        sums, _ = _merged(jnp.concatenate([sums, (sums + one[None])[::-1]]))
    return sums


def _merged(values: jax.Array, marks: jax.Array | None = None) -> tuple[jax.Array, Array]:
    """Sorts columns `[2^k, weights]` that rise and then fall, and their marks with them."""
    size, weights = values.shape
    stride = size // 2
    while stride:
        shape = size // (2 * stride), 2, stride, weights
        a, b = values.reshape(shape)[:, 0], values.reshape(shape)[:, 1]
        if marks is not None:
            falls, pairs = a > b, marks.reshape(shape)
            one, other = pairs[:, 0], pairs[:, 1]
            swapped = [jnp.where(falls, other, one), jnp.where(falls, one, other)]
            marks = jnp.stack(swapped, 1).reshape(size, weights)
        values = jnp.stack([jnp.minimum(a, b), jnp.maximum(a, b)], 1).reshape(size, weights)
        # fused with the next step, XLA would compute this one again for each of its readers
        values, marks = lax.optimization_barrier((values, marks))
        stride //= 2
    return values, marks


def _first_least(values: jax.Array) -> jax.Array:
    """The index of each column's first minimum; faster than `argmin` on CPUs."""
    places = jnp.arange(len(values))[:, None]
    least = jnp.min(values, axis=0, keepdims=True)
    return jnp.min(jnp.where(values == least, places, len(values)), axis=0)
