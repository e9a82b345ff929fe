"""The experiment of neuron fusion: its amounts, its table, and its figures' parts."""

import numpy as np
import pytest

from experiments.neuron_fusion import figure, page
from experiments.neuron_fusion.settings import FuseSettings, amounts_of
from jaxtickets import nets
from jaxtickets.compress.fusion import Partners
from jaxtickets.compress.graph import trace
from jaxtickets.io.errors import UserError


def test_amounts_are_shares_or_counts():
    graph = trace(nets.make("lenet300_100", widths=(16, 8)), (4, 4, 1))
    some = amounts_of(FuseSettings(cuts=(0.25, 0.5)), graph)
    assert [one.word for one in some] == ["0.25", "0.5"]
    assert some[0].keep(params=None, stats=None) == {"fc1": 12, "fc2": 6}
    (counted,) = amounts_of(FuseSettings(counts=("5-8",)), graph)
    assert counted.keep(params=None, stats=None) == {"fc1": 5, "fc2": 8}
    with pytest.raises(UserError, match="fc1 has 16 units"):
        amounts_of(FuseSettings(counts=("17-8",)), graph)[0].keep(params=None, stats=None)


def row(which, how, asked, retrain, seed, accuracy):
    sizes = {"units_left": 0.5, "parameters_left": 0.4, "multiply_adds_left": 0.3, "units/fc1": 8}
    names = {"which": which, "how": how, "asked": asked, "retrain": retrain, "seed": seed}
    return {**names, "before_density": 1.0, "trained_accuracy": accuracy, **sizes}


def test_a_table_has_a_column_for_each_amount():
    summary = [row("dense", None, None, None, seed, 0.9) for seed in (0, 1)]
    summary += [row("l1", "merge", "0.5", "none", seed, 0.7 + 0.1 * seed) for seed in (0, 1)]
    summary += [row("l1", "merge", "0.8", "none", seed, 0.5) for seed in (0, 1)]
    # .7 and .8 have the deviation .1 / √2
    lines = [line.split() for line in page.table(summary).splitlines()]
    assert lines[0] == ["retrained", "how", "which", "n", "0.5", "0.8"]
    assert lines[1] == ["dense", "2", "90.00", "±", "0.00", "90.00", "±", "0.00"]
    assert lines[2] == [
        "none",
        "merge",
        "l1",
        "2",
        "75.00",
        "±",
        "7.07",
        "50.00",
        "±",
        "0.00",
    ]  # .1 / √2
    assert lines[5] == ["dense", "50.0", "40.0", "30.0", "8"]


def test_the_kept_units_with_the_most_partners_are_drawn_the_most_similar_first():
    share = np.zeros((5, 5))
    share[[0, 1, 2, 3, 4], [0, 1, 1, 1, 0]] = 1
    share[4] = 0  # fused into none
    cosines = np.zeros((5, 5))
    cosines[1, 2], cosines[1, 3] = 0.5, 0.9
    partners = Partners(np.array([True, True, False, False, False]), share)
    assert figure.clusters_of(partners, cosines) == [(1, [3, 2])]


def test_weights_are_drawn_as_pixels():
    draw = np.random.default_rng(0)
    filters = draw.normal(size=(3, 2, 4, 7))  # 3 x 2 pixels of 4 channels, 7 units
    np.testing.assert_allclose(
        figure.pixels_of(filters, (9, 9, 4))[6, 2, 1], filters[2, 1, :, 6].mean()
    )
    dense = draw.normal(size=(12, 7))  # of images of 2 x 3 pixels and 2 channels
    found = figure.pixels_of(dense, (2, 3, 2))
    np.testing.assert_allclose(found[5, 1, 0], dense[6:8, 5].mean())
    square = figure.pixels_of(dense[:10], (2, 3, 2))  # of another layer
    assert square.shape == (7, 4, 4) and square[5, 1, 2] == dense[6, 5]
    assert np.isnan(square[:, 2, 2:]).all()
