"""The comparison of dense and Bayesian classifiers: counts, measures, figures' curves, resume."""

import csv

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.classification import figure, given_nets, measures, trainers
from experiments.classification.measures import Classifier
from experiments.classification.methods import METHODS, BayesSettings, gate_of
from experiments.classification.page import table
from experiments.harness.problem import build
from experiments.harness.training_settings import NetSettings, TrainSettings
from jaxtickets import gates, losses, masks
from jaxtickets.gates import Setting
from jaxtickets.io.errors import UserError
from jaxtickets.io.tickets import load_ticket, save_ticket
from jaxtickets.training import Recipe
from jaxtickets.types import Gaussian, Model, Split

METHOD = "moped"


@pytest.fixture(scope="module")
def rows(smokes):
    """The summary of a finished smoke run."""
    return commands.summary(smokes("classification")[0])


@pytest.fixture(scope="module")
def curves(smokes):
    """(method, net, seed, curve) -> [(x, y)]."""
    found = {}
    with (smokes("classification")[0] / "curves.csv").open() as file:
        for row in csv.DictReader(file):
            key = row["method"], row["net"], row["seed"], row["curve"]
            found.setdefault(key, []).append((float(row["x"]), float(row["y"])))
    return found


def test_every_net_is_measured_for_every_seed(rows):
    kinds = ["whole", "pruned", "retrained"]
    expected = {("dense", kind, seed) for kind in kinds for seed in "01"}
    expected |= {(METHOD, kind, seed) for kind in [*kinds, "transplanted"] for seed in "01"}
    assert {(row["method"], row["net"], row["seed"]) for row in rows} == expected
    assert len(rows) == len(expected)
    assert all(float(row["density"]) == (1 if row["net"] == "whole" else 0.2) for row in rows)


def test_only_random_nets_disagree(rows):
    for row in rows:
        information = float(row["mutual_information"])
        assert (
            information == pytest.approx(0, abs=1e-5)
            if row["method"] == "dense"
            else (0 < information < float(row["entropy"]))
        )


def test_curves_agree_with_the_summary(rows, curves):
    for row in rows:
        name = row["method"], row["net"], row["seed"]
        accuracy = float(row["trained_accuracy"])
        assert curves[*name, "rejection"][0] == (0, pytest.approx(accuracy, abs=1e-5))
        counts, correct, confident = (
            np.array([y for _, y in curves[*name, curve]])
            for curve in ("bin", "accuracy", "confidence")
        )
        assert sum(counts) == 1000
        assert counts @ correct / 1000 == pytest.approx(accuracy, abs=1e-4)
        gap = counts @ abs(correct - confident) / 1000
        assert gap == pytest.approx(float(row["ece"]), abs=1e-4)
        for curve in ("inside", "outside"):
            assert sum(y for _, y in curves[*name, curve]) == pytest.approx(1, abs=1e-4)


def test_a_killed_run_resumes_to_the_same_numbers(smokes, cache, tmp_path):
    folder, _ = smokes("classification")
    killed = tmp_path / "killed"
    store = f"--dense_store={folder.parent / 'dense'}"
    words = commands.command("classification", "--smoke", f"--out={killed}", store)
    home = killed / "lenet300_100-mnist5k"
    commands.kill_and_resume(words, home, (f"train-{METHOD}",), cache)
    assert commands.summary(killed) == commands.summary(folder)


def test_given_dense_nets_are_the_seeds_own(smokes, tmp_path):
    folder, _ = smokes("classification")
    home = folder.parent / "dense" / "tickets"
    net = NetSettings(model="lenet300_100", dataset="mnist5k", widths="20,10", use_bias=False)
    problem = build(net, TrainSettings(), "", False)
    places, found = given_nets.find([f"{home}/*"], problem, seeds=(1, 0))
    assert len(places) == 2 and set(found.places.values()) == set(home.iterdir())
    for i, seed in enumerate((1, 0)):
        ticket, provenance = load_ticket(found.places[seed])
        assert provenance["seed"] == found.summary[i]["seed"] == seed
        np.testing.assert_array_equal(
            found.params["fc1"]["kernel"][i], ticket.params["fc1"]["kernel"]
        )
    with pytest.raises(UserError, match="nets of seeds 0,1, must be 0,1,2"):
        given_nets.find([f"{home}/*"], problem, seeds=(0, 1, 2))
    ticket, provenance = load_ticket(found.places[0])
    cut = ticket._replace(mask=jax.tree.map(jnp.zeros_like, ticket.mask))
    save_ticket(tmp_path / "cut", cut, provenance)
    with pytest.raises(UserError, match="seed 0 has 0 % of the weights, must be dense"):
        given_nets.find([f"{tmp_path}/cut"], problem, seeds=(0,))


# --- by hand -------------------------------------------------------------------------------------


def recipe():
    """A net of two logits, `w · mean pixel` and 0, on pixels scaled to [0, 1]."""

    def apply(params, stats, images, key=None, train=False):
        del key, train
        light = jnp.mean(images, (1, 2, 3))
        return jnp.stack([params["w"] * light, 0 * light], -1), stats

    model = Model(lambda key: ({"w": jnp.float32(0)}, {}), apply)
    prepare = lambda images: images.astype(jnp.float32) / 255  # noqa: E731
    loss = losses.classification(model, prepare)
    return Recipe(model, loss, optimizer=None, prepare=prepare, augment=None, batch_size=2, every=1)


RECIPE = recipe()
TESTED = jax.jit(measures.tested, static_argnums=(0, 1))
SHIFTED = jax.jit(measures.shifted, static_argnums=(0, 1))


def classifier(weight, variance):
    posterior = Gaussian({"w": jnp.float32(weight)}, {"w": jnp.float32(variance)})
    return Classifier(posterior, {}, jax.random.key(0))


def test_measures_of_a_net_worked_by_hand():
    # white and black images: logits (4, 0) and (0, 0), so p = 1 / (1 + exp -4) and 1/2
    images = jnp.asarray([255, 0], jnp.uint8)[:, None, None, None] * jnp.ones((2, 4, 4, 1), "u1")
    test = Split(images, jnp.asarray([0, 0]))
    p = 1 / (1 + np.exp(-4))
    found = TESTED(RECIPE, 1, classifier(4, 0), test, images[1:])
    assert float(found.accuracy) == 1  # argmax of equals is the first
    assert float(found.nll) == pytest.approx(-(np.log(p) + np.log(0.5)) / 2, rel=1e-5)
    assert float(found.brier) == pytest.approx((2 * (1 - p) ** 2 + 0.5) / 2, rel=1e-5)
    assert float(found.ece) == pytest.approx(((1 - p) + 0.5) / 2, rel=1e-5)
    assert float(found.other_entropy) == pytest.approx(np.log(2), rel=1e-5)
    assert float(found.auroc) == pytest.approx(0.75)  # above the white one, equal to the black one
    np.testing.assert_allclose(found.outside, np.eye(measures.BINS)[-1])


def test_all_images_are_seen_by_the_same_sampled_nets(monkeypatch):
    monkeypatch.setattr(measures, "BATCH", 2)
    images = jnp.full((6, 2, 2, 1), 255, jnp.uint8)
    drawn = measures.probabilities(RECIPE, 5, classifier(0, 1), images)
    assert drawn.shape == (5, 6, 2)
    np.testing.assert_array_equal(drawn, jnp.broadcast_to(drawn[:, :1], drawn.shape))
    assert len(np.unique(np.asarray(drawn[:, 0, 0]))) == 5


def test_shifts_begin_with_the_test_images_themselves():
    images = jax.random.randint(jax.random.key(2), (8, 4, 4, 1), 0, 256).astype(jnp.uint8)
    test = Split(images, jnp.asarray([0, 1] * 4))
    nothing, much = jnp.asarray([0.0, 45.0]), jnp.asarray([0.0, 1.0])
    moved = SHIFTED(RECIPE, 1, classifier(4, 0), test, nothing, much)
    found = TESTED(RECIPE, 1, classifier(4, 0), test, images)
    for entropy in (moved.rotated_entropy, moved.noisy_entropy):
        assert float(entropy[0]) == pytest.approx(float(found.entropy), rel=1e-5)
    assert float(moved.rotated_entropy[1]) > float(found.entropy)  # the corners are black


@pytest.mark.parametrize("prior", ["gaussian", "scale_mixture"])
@pytest.mark.parametrize("name", METHODS)
def test_a_methods_gate_takes_prior_and_first_deviation_from_the_settings(name, prior):
    settings = BayesSettings(prior=prior, deviation=0.3, delta=0.3)
    gate = gate_of(METHODS[name], settings, ("w",), Setting(1, 10))
    params = {"w": jnp.ones(3)}
    trained, stats = gates.start(gate, jax.random.key(0), params, {})
    np.testing.assert_allclose(jax.nn.softplus(trained.gate.rho["w"]), 0.3, rtol=1e-5)
    assert all(map(bool, gates.ticket(gate, trained, stats)[0]["w"]))


def test_a_step_of_local_sampling_takes_gaussian_weights():
    settings = BayesSettings(sampling="local")
    gate = gate_of(METHODS["moped"], settings, ("w",), Setting(1, 10))
    params = {"w": jnp.ones(3)}
    g = gate.init(jax.random.key(0), params)
    weights, _ = gate.apply(jax.random.key(1), 0, g, params, 1.0)
    assert isinstance(weights, Gaussian)
    np.testing.assert_allclose(weights.variance["w"], 0.01, rtol=1e-5)


def test_a_pruned_weight_of_a_bayesian_start_has_mean_and_deviation_zero():
    gate = gate_of(METHODS["moped"], BayesSettings(), ("w",), Setting(1, 10))
    params = {"w": jnp.asarray([1.0, 2.0])}
    net = trainers.Net(*gates.start(gate, jax.random.key(0), params, {}))
    start = trainers.masked_start(jax.random.key(0), None, net, {"w": jnp.asarray([True, False])})
    kept = masks.apply(start.mask, start.params, start.fill)
    np.testing.assert_array_equal(kept.weights["w"], [1, 0])
    np.testing.assert_allclose(jax.nn.softplus(kept.gate.rho["w"]), [0.1, 0], rtol=1e-5)


def test_the_table_has_a_part_for_each_net_and_the_spread_of_its_seeds():
    def row(model, seed, accuracy):
        fields = {"model": model, "dataset": "mnist", "method": "dense", "net": "whole"}
        scalars = dict.fromkeys(
            ("nll", "ece", "brier", "entropy", "mutual_information", "other_entropy", "auroc"), 0.5
        )
        return {
            **fields,
            "density": 1.0,
            "seed": seed,
            "trained_accuracy": accuracy,
            **scalars,
            "seconds": 1.0,
        }

    first, second = table(
        [row("a", 0, 0.5), row("a", 1, 0.7), row("b", 0, 0.9), row("b", 1, 0.9)]
    ).split("\n\n")
    assert first.splitlines()[0] == "a on mnist" and second.splitlines()[0] == "b on mnist"
    assert first.splitlines()[2].split()[:7] == ["dense", "whole", "1", "2", "60.00", "±", "14.14"]
    assert first.splitlines()[2].split()[-2:] == ["0.000", "1.0"]  # seconds have no spread


def test_a_bin_is_drawn_if_each_seed_has_ten_images_in_it():
    counts = {0.2: (3,), 0.4: (100, 9), 0.6: (10, 12), 0.8: (50,)}
    rows = [
        {"seed": seed, "curve": curve, "x": x, "y": count}
        for x, mine in counts.items()
        for seed, count in enumerate(mine)
        for curve in ("bin", "accuracy")
    ]
    assert figure.full_bins(rows).tolist() == [False, False, True, False]
    one = [row for row in rows if row["seed"] == 0]
    assert figure.full_bins(one).tolist() == [False, True, True, True]
