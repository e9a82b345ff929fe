"""The grid: what it plans, what it would cost, and where its time goes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness.training_settings import NetSettings
from experiments.ticket_grid import batching_cost, estimate, figure, step_profile
from experiments.ticket_grid.estimate import Plan, Rate, StepCost
from experiments.ticket_grid.presets import MOBILENET
from experiments.ticket_grid.settings import Question
from jaxtickets import nets
from jaxtickets.data.sources import IMAGENET
from jaxtickets.io.errors import UserError

SHAPE = (112, 112, 3)


def test_the_course_projects_grid_is_planned_as_it_was_written():
    plan = estimate.planned(
        thresholds=len(MOBILENET["thresholds"]),
        rewinds=MOBILENET["rewinds"],
        seeds=MOBILENET["seeds"],
        epochs=MOBILENET["epochs"],
        images=IMAGENET.train,
        batch=MOBILENET["batch_size"],
    )
    # 20 thresholds, 8 rewinds: 160 tickets and 160 shuffled masks, 20 new starts, one dense net
    assert plan.trainings == 341
    # rewound to 5, 10 ... 40 of 150 epochs: 8 · 150 − 180 = 1,020 epochs a threshold
    assert plan.tickets_epochs == 150 + 20 * 1020
    assert plan.epochs == 150 + 2 * 20 * 1020 + 20 * 150
    assert plan.steps == 43_950 * (1_231_167 // 512) and plan.images == 512 * plan.steps


def test_days_follow_from_images_and_rates():
    plan = Plan(trainings=3, epochs=4, steps=100, images=8_640_000, tickets_epochs=2)
    cost = StepCost(operations=6e9, bytes=3e9, images=10)
    # 0.6 GFLOP and 0.3 GB an image: 1e12 operations a second allow 1,667, 3e11 bytes 1,000
    assert estimate.bound("b", cost, 1e12, 3e11).images == pytest.approx(1000)
    assert estimate.bound("b", cost, 3e11, 3e12).images == pytest.approx(500)
    # half of 8.64 million images in half a day
    assert estimate.implied("i", plan, 0.5).images == pytest.approx(100)
    text = estimate.table(plan, cost, [Rate("measured", 100.0)])
    *_, line = text.splitlines()
    assert line.split() == ["measured", "100", "0.06", "1", "0.125", "0.00391"]
    assert "ESTIMATED" in text


def test_a_streamed_sets_net_is_planned_without_its_data():
    settings = NetSettings(model="mobilenet_v2", dataset="imagenet2012", image_size=112)
    net, shape = estimate.planned_net(Question(), settings)
    assert shape == SHAPE and (net.form, net.classes) == ("large", 1000)
    with pytest.raises(UserError, match="takes 25 widths"):
        estimate.planned_net(Question(), dataclasses.replace(settings, widths="8,8"))


def test_the_cost_of_a_step_is_what_its_products_need():
    net = nets.make("lenet300_100")
    cost = estimate.step_cost(net, (28, 28, 1), "adam", 0.0, 50)
    # forward, weight gradients, and input gradients but for the first layer's
    products = 2 * 50 * (2 * 784 * 300 + 3 * (300 * 100 + 100 * 10))
    assert products < cost.operations < 1.25 * products  # the rest is Adam's and the loss'
    assert cost.bytes > 4 * 3 * 266_610  # weights and two moments are read at least


def test_mobilenets_forward_pass_is_the_published_one_at_a_quarter_of_the_pixels():
    net = nets.make("mobilenet_v2", shape=SHAPE, classes=1000)
    whole = sum(nets.multiply_adds(net, SHAPE).values())
    head = 1280 * 1000
    # a little above a quarter: 7 pixels are halved to 4
    assert 1 < (whole - head) / ((0.30e9 - head) / 4) < 1.1


def test_operations_are_input_products_or_the_rest():
    def step(weights, images, index):
        def body(weights, at):
            rows = images[at].astype(jnp.float32).reshape(2, -1) / 255
            return jnp.tanh(weights @ weights) + rows.sum(), None

        return jax.lax.scan(body, weights, index)[0]

    arguments = jnp.eye(200), jnp.ones((50, 8, 8), jnp.uint8), jnp.arange(20).reshape(10, 2)
    compiled = jax.jit(step).lower(*arguments).compile()
    parts = step_profile.classified(compiled.as_text())
    assert set(parts.values()) == {"input", "products", "rest"}
    rows = step_profile.profile(compiled, lambda: compiled(*arguments))
    assert [row["part"] for row in rows] == ["input", "products", "rest", "idle"]
    assert sum(row["share"] for row in rows) == pytest.approx(1, abs=0.01)
    assert all(row["seconds"] > 0 for row in rows[:2])


def test_shares_are_of_the_whole_time():
    events = [("dot.1", 0.5), ("gather.2", 0.2), ("while.3", 0.9), ("add.4", 0.1)]
    parts = {"dot.1": "products", "gather.2": "input", "add.4": "rest"}
    rows = step_profile.shares(events, parts, 1.0)
    found = {row["part"]: (row["seconds"], row["share"]) for row in rows}
    assert found == {
        "input": (0.2, 0.2),
        "products": (0.5, 0.5),
        "rest": (0.1, 0.1),
        "idle": (0.2, 0.2),
    }


def test_more_virtual_devices_than_cores_are_said(cpus, monkeypatch):
    axis = batching_cost.runs.axis("map", 1, cpus)
    monkeypatch.setattr(batching_cost.setup, "cores", lambda: 2)
    assert "devices share 2 cores: no speed-up can be above 2" in batching_cost.shared_cores(axis)
    monkeypatch.setattr(batching_cost.setup, "cores", lambda: 64)
    assert not batching_cost.shared_cores(axis)
    assert [one.devices for one in batching_cost._ways(axis, 8).values()][2:] == [
        cpus[:1],
        cpus[:2],
        cpus,
    ]


def test_a_single_cut_has_lines_over_the_rewind_epoch():
    levels = {"dense": 0.9, "reinit": 0.8}
    summary = [{"method": name, "trained_accuracy": value} for name, value in levels.items()]
    summary += [
        {"method": method, "rewind": rewind, "trained_accuracy": 0.1 * rewind + seed}
        for method in ("ticket", "shuffled")
        for rewind in (0, 2)
        for seed in (0, 0.5)
    ]
    (panel,) = figure._lines(summary).axes
    drawn = {line.get_label(): line.get_ydata() for line in panel.lines}
    assert list(drawn["dense net"]) == [90, 90] and list(drawn["new initialisation"]) == [80, 80]
    found = {box.get_label(): box.lines[0].get_ydata().astype(float) for box in panel.containers}
    np.testing.assert_allclose(found["ticket"], [25, 45])
    np.testing.assert_allclose(found["mask shuffled within layers"], [25, 45])
