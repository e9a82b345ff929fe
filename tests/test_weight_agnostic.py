"""Weight-agnostic nets as an experiment: resume, records, images, a generation without life."""

import commands
import jax
import numpy as np
import pytest

from experiments.harness.flags import RunSettings
from experiments.weight_agnostic import images, search_run
from experiments.weight_agnostic.settings import EvolutionSettings, ImageSettings
from jaxtickets import data
from jaxtickets.io import trees
from jaxtickets.io.errors import UserError
from jaxtickets.search.graphs import evaluation, genome
from jaxtickets.search.graphs.genome import Capacity, Sizes


def test_a_killed_run_goes_on_to_the_same_numbers(smokes, cache, tmp_path):
    whole, _ = smokes("weight_agnostic")
    folder = tmp_path / "run"
    words = commands.command("weight_agnostic", "--smoke", f"--out={folder}")
    commands.kill_and_resume(words, folder, ("evolution-seed0",), cache)
    without = [
        [{k: v for k, v in row.items() if "second" not in k} for row in records]
        for records in (commands.summary(whole), commands.summary(folder))
    ]
    assert without[0] == without[1]
    rows = [commands.metrics(place) for place in (whole, folder)]
    first, second = ([{**row, "seconds": 0} for row in found] for found in rows)
    assert first == second
    assert [row["phase"] for row in first] == ["evolution-seed0"] * 3 + ["shared_weights"]


def test_the_saved_champion_has_the_accuracy_of_the_records(smokes):
    folder, _ = smokes("weight_agnostic")
    (row,) = commands.summary(folder)
    sizes, room = Sizes(64, 10), Capacity(24, 256)
    template = jax.eval_shape(
        lambda key: jax.tree.map(
            lambda leaf: leaf[0], genome.first_population(key, sizes, room, 2, 0.1)
        ),
        jax.random.key(0),
    )
    graph = trees.read(folder / "graphs" / "seed0", template)
    test = images.load(ImageSettings("digits", 0, False), RunSettings()).test
    weights = np.array([float(row["tuned_weight"])], np.float32)
    _, (found,) = evaluation.score(graph, test.images, test.labels, weights, sizes)
    assert float(found) == pytest.approx(float(row["tuned_accuracy"]), abs=0.003)
    assert int(genome.complexity(graph)) >= int(row["connections"]) > 0


def test_images_are_rows_from_0_to_1_of_the_wanted_side():
    small = images.load(ImageSettings("digits", 4, True), RunSettings())
    assert small.side == 4 and small.train.images.shape == (1097, 16)
    assert float(small.train.images.min()) >= 0 and 0.9 < float(small.test.images.max()) <= 1.001
    plain = images.load(ImageSettings("digits", 0, False), RunSettings())
    expected = data.load("digits").test.images.reshape(400, 64) / 255
    np.testing.assert_allclose(plain.test.images, expected, atol=1e-6)


def test_a_generation_that_nobody_survives_ends_the_run_in_one_line():
    search_run.check_alive(1, 7, 0)
    with pytest.raises(UserError, match="generation 7 of seed 0: no graph survives") as caught:
        search_run.check_alive(0, 7, 0)
    assert "\n" not in str(caught.value)


def test_the_room_grows_by_powers_of_two_up_to_its_limit():
    settings = EvolutionSettings(hidden=100, connections=600)
    population = genome.first_population(jax.random.key(0), Sizes(4, 3), Capacity(8, 40), 2, 0.5)
    wanted = {(31, 254): (32, 256), (32, 255): (64, 512), (90, 550): (100, 600), (0, 0): (32, 256)}
    for (hidden, connections), room in wanted.items():
        sizes = {"hidden": np.array([0, hidden]), "connections": np.array([connections, 1])}
        assert search_run.room_of(population._replace(**sizes), settings) == Capacity(*room)


def test_a_row_of_metrics_holds_the_front_of_small_and_accurate_graphs():
    seen = {
        "mean": np.array([-1.0, -2, -3, -4]),
        "connections": np.array([30, 10, 20, 10]),
        "accuracies": np.array([[0.5, 0.7], [0.2, 0.4], [0.3, 0.3], [0.1, 0.1]]),
        "hidden": np.array([3, 1, 2, 0]),
        "judged": np.array([0.4, 0.8]),
        "size": np.int32(30),
    }
    row = search_run.chunk_row(step=10, seed=2, seen=seen)
    assert row["front"] == [[10, 0.3], [30, 0.6]]  # the graph of 20 is no better than that of 10
    assert (row["validation_mean"], row["validation_best"]) == (pytest.approx(0.6), 0.8)
    assert (row["reward"], row["most_hidden"], row["connections"]) == (-1, 3, 15)
