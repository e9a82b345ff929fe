"""K-means of numbers: a layer's weights become few shared values.

    min over c_1 < ... < c_k  of  Σ_w min_j (w - c_j)²

In one dimension the clusters are intervals of the sorted values, so that Lloyd's step, "assign to
the nearest centroid, then move each centroid to its members' mean", is a search in the sorted
values and differences of prefix sums: O(k log n). It stops at a fixed point, which it reaches since
no step raises the sum and there are finitely many partitions. All is computed on the host in
float64: float32 prefix sums of a million weights would have lost the digits that count.

A start's centroids, of Han, Mao and Dally, "Deep Compression", 2016, section 3.1:

- `linear`: evenly from the least to the greatest value, the paper's best: it alone gives the few
  large weights, which matter more, centroids of their own;
- `density`: at evenly spaced quantiles, so that most centroids stand where most values are;
- `random`: distinct values, drawn without replacement (Forgy).

and, not of the paper,

- `optimal`: the global minimum, by dynamic programming (Wang and Song, "Ckmeans.1d.dp", 2011). It
  is exact for at most `BINS` distinct values. More are divided first into `BINS` bins of equal
  counts, which move together; Lloyd's steps from there remove the bins' edges.
"""

from collections.abc import Callable

import numpy as np

from jaxtickets.types import Array

BINS = 512
"""The most points of the dynamic program, whose cost is k BINS²."""
STEPS = 1000
"""A bound on Lloyd's steps; layers of a million weights converge in a few hundred."""

Start = Callable[[np.random.Generator, np.ndarray, int], np.ndarray]
"""`start(draws, ordered, clusters) -> centroids`: float64`[k]`, sorted, `k <= clusters`, from the
sorted float64 values; `draws` is used by random starts alone."""


def linear(draws: np.random.Generator, ordered: np.ndarray, clusters: int) -> np.ndarray:
    """`min + (max - min) j / (k - 1)`, j = 0 ... k - 1; one cluster: the middle of the range.

    >>> linear(np.random.default_rng(0), np.array([0.0, 1.0, 10.0]), 3).tolist()
    [0.0, 5.0, 10.0]
    """
    del draws
    if clusters == 1:
        return (ordered[:1] + ordered[-1:]) / 2
    return np.linspace(ordered[0], ordered[-1], clusters)


def density(draws: np.random.Generator, ordered: np.ndarray, clusters: int) -> np.ndarray:
    """The quantiles `(j + 1/2) / k`: evenly spaced on the values' cumulative distribution.

    >>> density(np.random.default_rng(0), np.array([0.0, 1.0, 2.0, 3.0, 100.0]), 2).tolist()
    [1.0, 3.0]
    """
    del draws
    return np.unique(np.quantile(ordered, (np.arange(clusters) + 0.5) / clusters))


def random(draws: np.random.Generator, ordered: np.ndarray, clusters: int) -> np.ndarray:
    """Distinct values, drawn without replacement.

    >>> random(np.random.default_rng(0), np.array([1.0, 2.0, 2.0, 3.0]), 3).tolist()
    [1.0, 2.0, 3.0]
    """
    return np.sort(draws.choice(np.unique(ordered), clusters, replace=False))


def optimal(draws: np.random.Generator, ordered: np.ndarray, clusters: int) -> np.ndarray:
    """The centroids of least cost, see above.

    `D[j, n] = min_i D[j - 1, i] + cost(i, n)` with `cost(i, n)` the squared deviations of points i
    to n - 1 from their mean.

    >>> optimal(np.random.default_rng(0), np.array([0.0, 1.0, 10.0, 11.0]), 2).tolist()
    [0.5, 10.5]
    """
    del draws
    points, counts = np.unique(ordered, return_counts=True)
    edges = np.arange(len(points))
    if len(points) > BINS:
        edges = np.unique(np.searchsorted(np.cumsum(counts), len(ordered) * np.arange(BINS) / BINS))
    # about their mean, so that the differences of squares below keep their digits
    middle = ordered.mean()
    moments = (counts, counts * (points - middle), counts * (points - middle) ** 2)
    n, first, second = (_prefix(np.add.reduceat(moment, edges)) for moment in moments)
    size = n[None, :] - n[:, None]
    spread = (first[None, :] - first[:, None]) ** 2 / np.where(size > 0, size, 1)
    cost = np.where(size > 0, second[None, :] - second[:, None] - spread, np.inf)
    best, cuts = cost[0], []
    for _ in range(min(clusters, len(edges)) - 1):
        total = best[:, None] + cost
        cuts.append(total.argmin(0))
        best = total.min(0)
    ends = [len(edges)]
    for cut in reversed(cuts):
        ends.append(int(cut[ends[-1]]))
    bounds = np.array([0, *reversed(ends)])
    return middle + np.diff(first[bounds]) / np.diff(n[bounds])


STARTS: dict[str, Start] = {
    "linear": linear,
    "density": density,
    "random": random,
    "optimal": optimal,
}


def cluster(
    values: Array, clusters: int, start: Start = linear, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """K-means of values, to Lloyd's fixed point: deterministic.

    A value half-way between two centroids goes to the greater one. A cluster that has no members
    keeps its centroid, since others may come to it, and is dropped in the end.

    Args:
      values: finite numbers of any shape.
      clusters: k, from 1 to the number of distinct values.
      start: one of `STARTS`.
      seed: of the draws of a random start.

    Returns:
      `(centroids, assignments)`: float64`[m]`, sorted, `m <= clusters`, and int32 like `values`.

    Raises:
      ValueError: a value is not finite, or there are fewer distinct values than clusters, or no
        cluster.

    >>> centroids, assignments = cluster(np.array([[0.0, 10.0], [11.0, 1.0]]), 2)
    >>> centroids.tolist(), assignments.tolist()
    ([0.5, 10.5], [[0, 1], [1, 0]])
    """
    values = np.asarray(values)
    ordered = np.sort(values, axis=None).astype(np.float64)
    if not np.isfinite(ordered).all():
        raise ValueError("the values to cluster must be finite: they hold NaN or infinity")
    distinct = len(np.unique(ordered))
    if not 1 <= clusters <= distinct:
        raise ValueError(f"{clusters} clusters of {distinct} distinct values: 1 to {distinct}")
    centroids, sums = start(np.random.default_rng(seed), ordered, clusters), _prefix(ordered)
    bounds = _bounds(ordered, centroids)
    for _ in range(STEPS):
        sizes = np.diff(bounds)
        means = np.diff(sums[bounds]) / np.maximum(sizes, 1)
        centroids = np.where(sizes > 0, means, centroids)
        before, bounds = bounds, _bounds(ordered, centroids)
        if np.array_equal(before, bounds):
            break
    centroids = centroids[np.diff(bounds) > 0]
    return centroids, nearest(values, centroids)


def nearest(values: Array, centroids: np.ndarray) -> np.ndarray:
    """int32 like `values`: the index of the nearest of the sorted centroids, of two the greater.

    >>> nearest(np.array([0.0, 4.0, 6.0]), centroids=np.array([1.0, 7.0])).tolist()
    [0, 1, 1]
    """
    return np.searchsorted(_middles(centroids), np.asarray(values), "right").astype(np.int32)


def _prefix(values: np.ndarray) -> np.ndarray:
    """`[n + 1]`: the sums of the first 0, 1, ... n values."""
    return np.concatenate([np.zeros(1), np.cumsum(values, dtype=np.float64)])


def _middles(centroids: np.ndarray) -> np.ndarray:
    return (centroids[1:] + centroids[:-1]) / 2


def _bounds(ordered: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """`[k + 1]`: where each cluster starts in the sorted values, then n."""
    inner = np.searchsorted(ordered, _middles(centroids), "left")
    return np.concatenate([[0], inner, [len(ordered)]])
