"""Schedules: endpoints, the way between them, the thesis's levels and saw teeth."""

import jax
import numpy as np
import pytest

from jaxtickets import schedules
from jaxtickets.schedules import SCHEDULES

STEPS = 11
MIDDLE = {  # of the way from 8 to 2
    "constant": 8.0,
    "geometric": 4.0,  # sqrt(8 * 2)
    "linear": 5.0,
    "cosine": 5.0,
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_begin_and_end_where_they_are_told(name):
    values = jax.jit(SCHEDULES[name](8.0, STEPS, 2.0))(np.arange(STEPS))
    assert values.shape == (STEPS,)
    last = 8.0 if name == "constant" else 2.0
    np.testing.assert_allclose(values[::5], [8.0, MIDDLE[name], last], rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("start", "end"), [(8.0, 2.0), (0.5, 3.0)])
def test_schedules_are_monotone(name, start, end):
    moves = np.diff(SCHEDULES[name](start, STEPS, end)(np.arange(STEPS)))
    assert (moves == 0).all() if name == "constant" else (moves * (end - start) > 0).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_single_step_is_at_the_start(name):
    assert SCHEDULES[name](8.0, 1, 2.0)(0) == 8.0


def test_a_quarter_of_the_way():
    # 4 of 16 steps, from 16 to 1: 16^(3/4) = 8; 16 - 15/4; 1 + 15 (1 + cos(π/4)) / 2
    golden = {"geometric": 8.0, "linear": 12.25, "cosine": 1 + 7.5 * (1 + np.sqrt(0.5))}
    for name, value in golden.items():
        assert SCHEDULES[name](16.0, 17, 1.0)(4) == pytest.approx(value, rel=1e-6)


def test_of_a_gradual_fall_an_eighth_is_left_half_way():
    # by 0.6: all at 0, (1/2)^3 at 0.3, nothing from 0.6 on
    for t in (np.array([0, 0.3, 0.6, 1]), jax.numpy.array([0, 0.3, 0.6, 1])):
        left = schedules.gradual(t, 0.6)
        assert isinstance(left, type(t))
        np.testing.assert_allclose(left, [1, 0.125, 0, 0], atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_reheating_begins_again_every_period(name):
    once = SCHEDULES[name](8.0, 4, 2.0)
    values = jax.jit(schedules.reheat(once, 4))(np.arange(11))
    np.testing.assert_allclose(values, once(np.arange(11) % 4), rtol=1e-6)
    assert values[0] == values[4] == values[8] == 8.0


def test_a_table_is_read_and_never_clipped():
    last = np.array([5.0, 6.0, 7.0], "f")
    read = schedules.table(last)
    np.testing.assert_array_equal(jax.jit(read)(np.arange(3)), last)
    assert np.isnan(read(3)) and np.isnan(read(1000))
    # Whole numbers have no NaN: what is read past the end must not pass for the last value.
    assert schedules.table(last.astype(np.int32))(3) not in last


def test_growing_levels_by_hand():
    # Lengths 1, 1.5, 2.25, then 3.375 capped to 3: one, one, two, three, three.
    levels = schedules.growing_levels(10, 1, 1.5, 3)
    np.testing.assert_array_equal(levels, [0, 1, 2, 2, 3, 3, 3, 4, 4, 4])
    assert levels.dtype == np.int32
    # A cut in the middle of a level
    np.testing.assert_array_equal(schedules.growing_levels(3, 1, 1.5, 3), [0, 1, 2])


@pytest.mark.parametrize(
    # The annealing thesis (2020): iterations, and the temperatures that they make.
    ("steps", "first", "most", "least_levels", "most_levels"),
    [(42_700, 1, 50, 1_440, 1_450), (8_200, 2, 10, 990, 1_010)],
)
def test_the_thesiss_levels(steps, first, most, least_levels, most_levels):
    levels = schedules.growing_levels(steps, first, 1.005, most)
    lengths = np.bincount(levels)
    assert len(levels) == steps and least_levels <= len(lengths) <= most_levels
    assert lengths[0] == first and lengths.max() == most
    assert (np.diff(lengths[:-1]) >= 0).all()


def test_saw_teeth_by_hand():
    # h_ref = 10: 10 9 8 7 6 5 and then floor(4.95) = 4 < 5, so h = h_ref = floor(7.5) = 7.
    # 7 6 5 4 and then 3 < 3.5: floor(5.25) = 5. 5 4 3 and then 2 < 2.5: floor(3.75) = 3.
    # 3 2 and then 1 < 1.5: floor(2.25) = 2. 2 1 and then 1, as floor(0.99) = 0 is too few.
    golden = [10, 9, 8, 7, 6, 5, 7, 6, 5, 4, 5, 4, 3, 3, 2, 2, 1, 1, 1, 1]
    np.testing.assert_array_equal(schedules.sawtooth(len(golden), 10), golden)


@pytest.mark.parametrize("start", [1, 2, 3, 100, 133_100])
def test_saw_teeth_keep_one_at_least(start):
    teeth = schedules.sawtooth(1_450, start)
    assert teeth[0] == teeth.max() == start and teeth.min() >= 1
    assert teeth.shape == (1_450,) and teeth.dtype == np.int32
