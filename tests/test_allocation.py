"""Allocations: exact totals, floors, and the Erdős–Rényi-kernel worked by hand."""

import numpy as np
import pytest

from jaxtickets import allocation
from jaxtickets.allocation import ALLOCATIONS

NETS = {
    "mlp": {"fc1/kernel": (784, 300), "fc2/kernel": (300, 100), "out/kernel": (100, 10)},
    "conv": {
        "conv1/kernel": (5, 5, 1, 20),
        "conv2/kernel": (5, 5, 20, 50),
        "fc1/kernel": (800, 500),
        "out/kernel": (500, 10),
    },
    "units": {"conv1": (20,), "conv2": (50,), "fc1": (500,)},
    "odd": {"a": (3, 7), "b": (1, 1), "c": (11, 13), "d": (2, 3)},
}
DENSITIES = (1.0, 0.999, 0.8, 0.5, 1 / 3, 0.21, 0.1, 0.0731)


def counts_of(shapes, keep):
    """The counts of each leaf, or for the global allocation the total alone."""
    return list(keep.values()) if isinstance(keep, dict) else [keep]


@pytest.mark.parametrize("name", ALLOCATIONS)
@pytest.mark.parametrize("net", NETS)
def test_totals_are_exact_and_floors_hold(name, net):
    shapes = NETS[net]
    sizes = {path: int(np.prod(shape)) for path, shape in shapes.items()}
    for floor in (1, 2, 10):
        least = {path: min(floor, size) for path, size in sizes.items()}
        for density in DENSITIES:
            kept = round(density * sum(sizes.values()))
            if kept < sum(least.values()):
                continue
            keep = ALLOCATIONS[name](shapes, density, floor)
            assert sum(counts_of(shapes, keep)) == kept == allocation.total(shapes, density)
            if name != "global":
                assert list(keep) == list(shapes)
                assert all(least[path] <= keep[path] <= sizes[path] for path in shapes)
                assert all(type(count) is int for count in keep.values())


@pytest.mark.parametrize("name", ALLOCATIONS)
@pytest.mark.parametrize("density", [0.0, -0.1, 1.001, 2, float("nan")])
def test_densities_outside_are_refused(name, density):
    with pytest.raises(ValueError, match="is outside"):
        ALLOCATIONS[name](NETS["mlp"], density)


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_a_density_that_keeps_nothing_is_refused(name):
    # 0.01 of 15 weights
    with pytest.raises(ValueError, match="keeps no weight at all"):
        ALLOCATIONS[name]({"a": (3, 5)}, 0.01)


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_floors_that_need_too_much_are_refused(name):
    # 20 weights, of which 0.4 are 8; floors of 5 need 5 + 4: b is kept whole.
    shapes = {"a": (4, 4), "b": (2, 2)}
    assert sum(counts_of(shapes, ALLOCATIONS[name](shapes, 0.45, 5))) == 9
    with pytest.raises(ValueError, match="keeps 8 weights, a floor of 5 needs 9"):
        ALLOCATIONS[name](shapes, 0.4, 5)


def test_a_layer_that_uniform_leaves_with_nothing_is_named():
    # 0.02 of 1,004 weights are 20, of which b's share is 20 * 4 / 1,004 = 0.08.
    shapes = {"a": (10, 100), "b": (2, 2)}
    with pytest.raises(
        ValueError, match="no weight is left in b: raise the density or set a floor"
    ):
        allocation.uniform(shapes, 0.02)
    assert allocation.uniform(shapes, 0.02, floor=1) == {"a": 19, "b": 1}


def test_a_layer_that_erk_leaves_with_nothing_is_named():
    # 0.01 of 1,008 are 10: ε = 10 / 118, a 9.32, b and c 0.34 each: the one left goes to b.
    shapes = {"a": (10, 100), "b": (2, 2), "c": (2, 2)}
    with pytest.raises(
        ValueError, match="no weight is left in c: raise the density or set a floor"
    ):
        allocation.erk(shapes, 0.01)
    assert allocation.erk(shapes, 0.01, floor=1) == {"a": 8, "b": 1, "c": 1}


def test_totals_round_half_to_even():
    # 0.5 of 5 are 2.5, of 7 are 3.5.
    assert allocation.total({"a": (5, 1)}, 0.5) == 2
    assert allocation.total({"a": (7, 1)}, 0.5) == 4


def test_uniform_gives_fractions_to_the_largest_remainders():
    # 0.5 of 10 weights: 1.5, 1.5 and 2; the one that is missing goes to the first of equals.
    assert allocation.uniform({"a": (3, 1), "b": (1, 3), "c": (2, 2)}, 0.5) == {
        "a": 2,
        "b": 1,
        "c": 2,
    }
    # 0.4 of 25: 0.4 * 16 = 6.4 and 0.4 * 9 = 3.6
    assert allocation.uniform({"a": (4, 4), "b": (3, 3)}, 0.4) == {"a": 6, "b": 4}


def test_what_a_floor_takes_is_missing_elsewhere():
    # round(0.1 * 1,004) = 100; b needs 3 where 0.4 were its share, so a has 97.
    assert allocation.uniform({"a": (100, 10), "b": (2, 2)}, 0.1, 3) == {"a": 97, "b": 3}


def test_global_is_one_count_for_all():
    assert allocation.global_(NETS["mlp"], 0.1) == 26_620


def test_erk_by_hand_with_a_layer_at_full_density():
    # Sizes 12, 6, 2; sums of axes 7, 5, 3; 0.6 of 20 are 12. ε = 12 / 15 = 0.8 would give out 2.4
    # of its 2, so out is whole, and ε = 10 / 12: fc1 5.83, fc2 4.17; the fraction goes to fc1.
    shapes = {"fc1": (4, 3), "fc2": (3, 2), "out": (2, 1)}
    assert allocation.erk(shapes, 0.6) == {"fc1": 6, "fc2": 4, "out": 2}


def test_erk_sums_all_four_axes_of_a_convolution():
    # Sizes 72 and 80; sums 3 + 3 + 2 + 4 = 12 and 18; a quarter of 152 is 38, ε = 38 / 30:
    # 15.2 and 22.8. By channels alone (6 and 18) it would be 9.5 and 28.5.
    assert allocation.erk({"conv": (3, 3, 2, 4), "fc": (8, 10)}, 0.25) == {"conv": 15, "fc": 23}


def test_apportioned_counts_follow_the_weights_given():
    # 12 of 24 in the proportion 1 to 3: 3 and 9.
    assert allocation.apportion({"a": (3, 4), "b": (3, 4)}, {"a": 1, "b": 3}, 0.5) == {
        "a": 3,
        "b": 9,
    }
