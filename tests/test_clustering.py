"""K-means of numbers: cases by hand, brute force, scikit-learn's, and what every start keeps."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtickets.compress.clustering import BINS, STARTS, cluster, nearest

quick = settings(max_examples=30, deadline=None, database=None)
numbers = st.lists(st.integers(-900, 900), min_size=1, max_size=40)


def cost(values, centroids):
    return ((values[:, None] - centroids) ** 2).min(1).sum()


def test_the_starts_stand_where_the_paper_says():
    draws, ordered = np.random.default_rng(0), np.array([0.0, 1, 2, 3, 4, 5, 6, 20])
    np.testing.assert_array_equal(STARTS["linear"](draws, ordered, 3), [0, 10, 20])
    np.testing.assert_array_equal(STARTS["linear"](draws, ordered, 1), [10])
    # eight values: the quantile q is at place 7q, the quarters of two clusters at 1.75 and 5.25
    np.testing.assert_array_equal(STARTS["density"](draws, ordered, 2), [1.75, 5.25])
    drawn = STARTS["random"](draws, ordered, 4)
    assert set(drawn) <= set(ordered) and len(set(drawn)) == 4 and (np.diff(drawn) > 0).all()


def test_a_case_worked_by_hand():
    # linear: centroids 0 and 10, so that 0 1 2 | 9 10 split at 5; the means are 1 and 9.5
    centroids, members = cluster(np.array([9.0, 0, 2, 10, 1]), 2)
    np.testing.assert_array_equal(centroids, [1, 9.5])
    np.testing.assert_array_equal(members, [1, 0, 0, 1, 0])


def test_an_empty_cluster_is_dropped():
    # linear: 0, 5, 10; no value is nearest to 5, nor to what it could become
    centroids, members = cluster(np.array([0.0, 1, 9, 10]), 3)
    np.testing.assert_array_equal(centroids, [0.5, 9.5])
    np.testing.assert_array_equal(members, [0, 0, 1, 1])


@pytest.mark.parametrize("start", ["linear", "density", "random"])
def test_it_ends_where_scikit_learn_ends_from_the_same_start(start):
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    values = np.random.default_rng(1).standard_normal(400)
    first = STARTS[start](np.random.default_rng(7), np.sort(values), 8)
    with threadpool_limits(1):
        theirs = KMeans(8, init=first[:, None], n_init=1, tol=0).fit(values[:, None])
    centroids, members = cluster(values, 8, STARTS[start], seed=7)
    np.testing.assert_allclose(centroids, np.sort(theirs.cluster_centers_[:, 0]), rtol=1e-9)
    found = theirs.cluster_centers_[theirs.labels_, 0]
    np.testing.assert_allclose(centroids[members], found, rtol=1e-9)


@quick
@given(st.lists(st.integers(-20, 20), min_size=1, max_size=9), st.integers(1, 4))
def test_the_optimal_start_costs_what_the_best_of_all_partitions_costs(values, clusters):
    ordered = np.sort(np.array(values, float))
    clusters = min(clusters, len(set(values)))
    cuts = itertools.combinations(range(1, len(ordered)), clusters - 1)
    parts = [np.split(ordered, cut) for cut in cuts]
    best = min(sum(((part - part.mean()) ** 2).sum() for part in some) for some in parts)
    centroids, _ = cluster(ordered, clusters, STARTS["optimal"])
    np.testing.assert_allclose(cost(ordered, centroids), best, atol=1e-9)


def test_with_more_values_than_bins_the_optimal_start_is_still_the_best():
    values = np.random.default_rng(3).standard_normal(4 * BINS) ** 3
    costs = {name: cost(values, cluster(values, 6, start)[0]) for name, start in STARTS.items()}
    assert min(costs, key=costs.__getitem__) == "optimal"


@quick
@pytest.mark.parametrize("start", STARTS)
@given(values=numbers, clusters=st.integers(1, 8))
def test_every_start_ends_at_a_fixed_point_that_is_the_same_again(start, values, clusters):
    values = np.array(values, np.float32) / 64
    clusters = min(clusters, len(np.unique(values)))
    centroids, members = cluster(values, clusters, STARTS[start])
    assert 1 <= len(centroids) <= clusters and (np.diff(centroids) > 0).all()
    assert members.dtype == np.int32 and set(members) == set(range(len(centroids)))
    np.testing.assert_array_equal(members, nearest(values, centroids))
    means = [values[members == k].mean(dtype=float) for k in range(len(centroids))]
    np.testing.assert_allclose(centroids, means, rtol=1e-6, atol=1e-6)
    again, _ = cluster(values, clusters, STARTS[start])
    np.testing.assert_array_equal(centroids, again)


@pytest.mark.parametrize(
    ("values", "clusters", "says"),
    [
        ([1.0, 2.0, 2.0], 3, "3 clusters of 2 distinct values: 1 to 2"),
        ([1.0], 0, "0 clusters of 1 distinct values"),
        ([], 1, "1 clusters of 0 distinct values"),
        ([1.0, np.nan], 1, "NaN or infinity"),
        ([1.0, np.inf], 1, "NaN or infinity"),
    ],
)
def test_what_cannot_be_clustered_is_refused_in_one_line(values, clusters, says):
    with pytest.raises(ValueError, match=says) as error:
        cluster(np.array(values), clusters)
    assert "\n" not in str(error.value)
