"""The lottery ticket's experiments: what they train, and that a killed run goes on."""

import commands
import numpy as np
import pytest
from commands import metrics, summary

from jaxtickets import masks, nets
from jaxtickets.io.tickets import load_ticket

# --- imp_rewind ----------------------------------------------------------------------------------


def test_every_level_trains_the_ticket_beside_its_treatments(smokes):
    rows = summary(smokes("imp_rewind")[0])
    found = {}
    for row in rows:
        key = int(row["level"]), row["method"]
        found[key] = found.get(key, 0) + 1
    expected = {(0, "dense"): 2, (1, "ticket"): 2}
    # --control_levels=1: one of each
    expected |= {(1, method): 2 for method in ("reinit", "random", "shuffled", "resampled")}
    # --controls_every=2 --reinits=2
    expected |= {(2, "ticket"): 2, (2, "reinit"): 4, (2, "random"): 2}
    assert found == expected


def test_the_live_line_knows_the_levels_that_follow(smokes):
    last = {}
    for line in smokes("imp_rewind")[1].stderr.splitlines():
        last[line.partition(",")[0]] = line.partition("left ")[2]
    assert [level for level in last if last[level].startswith("0:00, of the run ")] == [
        "level-00",
        "level-01",
    ]
    assert last["level-02"] == "0:00"


def test_treatments_keep_the_tickets_counts_and_levels_are_nested(smokes):
    folder, _ = smokes("imp_rewind")
    rows = summary(folder)
    # 23,520 · 0.6^l, 600 · 0.6^l and 200 · 0.8^l
    counts = {0: (23_520, 600, 200), 1: (14_112, 360, 160), 2: (8_467, 216, 128)}
    for row in rows:
        kept = tuple(int(row[f"kept/{layer}/kernel"]) for layer in ("fc1", "fc2", "out"))
        assert kept == counts[int(row["level"])]
    first, second = (
        load_ticket(folder / "tickets" / f"level0{level}-seed0")[0].mask for level in (1, 2)
    )
    prunable = ("fc1/kernel", "fc2/kernel", "out/kernel")
    pairs = zip(masks.pick(first, prunable), masks.pick(second, prunable), strict=True)
    assert all(bool((a | ~b).all()) for a, b in pairs)


def test_tickets_are_rewound_to_the_step_asked_for(smokes):
    # both levels go back to the same weights, which the initialisation isn't
    folder, _ = smokes("imp_rewind")
    (one, provenance), (two, _) = (
        load_ticket(folder / "tickets" / f"level0{level}-seed0") for level in (1, 2)
    )
    assert int(one.rewind_step) == int(two.rewind_step) == 60
    np.testing.assert_array_equal(one.params["fc1"]["kernel"], two.params["fc1"]["kernel"])
    net = nets.from_json(provenance["net"])
    assert nets.name_of(net) == "lenet300_100"
    assert one.params["fc1"]["bias"].any()  # biases begin at zero
    steps = {row["train_steps"] for row in summary(folder) if row["level"] != "0"}
    assert steps == {"120"}  # from 60 to 180


def test_curves_and_early_stops_agree(smokes):
    folder, _ = smokes("imp_rewind")
    seen = [row for row in metrics(folder) if row["phase"].startswith("level-")]
    name = ("method", "seed", "level", "copy")
    runs = {}
    for row in seen:
        runs.setdefault(tuple(str(row[field]) for field in name), []).append(row)
    for row in summary(folder):
        curve = runs[tuple(row[field] for field in name)]
        lowest = min(curve, key=lambda look: look["loss"])
        assert int(row["early_stop_step"]) == lowest["step"]
        assert float(row["early_stop_accuracy"]) == pytest.approx(lowest["test_accuracy"], 1e-5)
        assert float(row["trained_accuracy"]) == pytest.approx(curve[-1]["test_accuracy"], 1e-5)


def test_a_killed_descent_resumes_on_other_devices_to_the_same_numbers(smokes, cache, tmp_path):
    folder = tmp_path / "run"
    words = commands.command("imp_rewind", "--smoke", f"--out={folder}")
    commands.kill_and_resume(words, folder, ("level-02",), cache, "--devices=3")
    assert summary(folder) == summary(smokes("imp_rewind")[0])
    seen = [
        tuple(str(row.get(k)) for k in ("phase", "step", "method", "seed", "level", "copy"))
        for row in metrics(folder)
    ]
    assert len(set(seen)) == len(seen) == len(metrics(smokes("imp_rewind")[0]))


def test_learning_rates_are_lineages_of_one_batch(cache, tmp_path):
    folder = tmp_path / "run"
    extra = ("--seeds=1", "--levels=1", "--reinits=1", "--randoms=0", "--control_levels=")
    extra += ("--rates=0.001,0.01", "--warmups=0,90")
    words = commands.command("imp_rewind", "--smoke", f"--out={folder}", *extra)
    done = commands.run(words, cache)
    assert done.returncode == 0, done.stderr
    tickets = [row for row in summary(folder) if row["method"] == "ticket"]
    tried = {(row["rate"], row["warmup"]) for row in tickets}
    assert len(tickets) == len(tried) == 4
    assert len({row["validation_accuracy"] for row in tickets}) > 1
    assert (folder / "figures" / "learning_rates.png").stat().st_size > 10_000


@pytest.mark.parametrize("rewind", ["learning_rate", "none"])
def test_fine_tuning_and_rewinding_the_rate_go_on_from_trained_weights(rewind, cache, tmp_path):
    folder = tmp_path / "run"
    extra = (f"--rewind={rewind}", "--seeds=1", "--levels=1", "--reinits=0", "--randoms=0")
    words = commands.command("imp_rewind", "--smoke", f"--out={folder}", *extra)
    done = commands.run([*words, "--control_levels="], cache)
    assert done.returncode == 0, done.stderr
    dense, ticket = summary(folder)
    assert ticket["train_steps"] == "120"
    # trained weights with a mask are far from untrained
    assert float(ticket["untrained_accuracy"]) > 0.7 > float(dense["untrained_accuracy"])
    looks = [row["step"] for row in metrics(folder) if row.get("level") == 1 and "step" in row]
    assert looks == ([120, 180] if rewind == "learning_rate" else [240, 300])


# --- ticket_grid ---------------------------------------------------------------------------------


def test_every_cell_has_a_ticket_and_a_random_mask_and_every_threshold_a_reinit(smokes):
    rows = summary(smokes("ticket_grid")[0])
    cells = {(row["method"], row["threshold"], row["rewind"], row["seed"]) for row in rows}
    expected = {("dense", "", "", seed) for seed in "01"}
    for threshold in ("60.0", "90.0"):
        expected |= {("reinit", threshold, "", seed) for seed in "01"}
        for rewind in "01":
            for method in ("ticket", "shuffled"):
                expected |= {(method, threshold, rewind, seed) for seed in "01"}
    assert cells == expected and len(rows) == len(expected)


def test_a_cell_keeps_its_share_and_trains_on_from_its_rewind_epoch(smokes):
    for row in summary(smokes("ticket_grid")[0]):
        if row["method"] == "dense":
            continue
        kept = sum(int(value) for field, value in row.items() if field.startswith("kept/"))
        assert kept == {"60.0": 9_728, "90.0": 2_432}[row["threshold"]]
        assert int(row["train_steps"]) == 25 * (2 - int(row["rewind"] or 0))


def test_the_cost_is_measured_in_series_batched_and_on_one_and_on_two_devices(smokes):
    folder, done = smokes("ticket_grid")
    header, *ways = (folder / "cost.csv").read_text().splitlines()
    assert header == "way,devices,trainings,steps,seconds,speed_up,efficiency"
    assert [way.split('",')[1].split(",")[0] for way in ways] == ["1", "1", "1", "2"]
    assert "in series" in ways[0] and "speed-up" in done.stdout


def test_the_time_of_a_training_is_divided(smokes):
    folder, done = smokes("ticket_grid")
    header, *parts = (folder / "profile.csv").read_text().splitlines()
    assert header == "part,seconds,share"
    shares = {part.split(",")[0]: float(part.split(",")[2]) for part in parts}
    assert list(shares) == ["input", "products", "rest", "idle"]
    assert abs(sum(shares.values()) - 1) < 0.01 and shares["products"] > 0
    assert "where the time goes" in done.stdout


# --- linear_connectivity -------------------------------------------------------------------------


def test_pairs_share_their_net_and_part_in_the_order_of_the_data(smokes):
    folder, _ = smokes("linear_connectivity")
    rows = summary(folder)
    # two orders of: dense at two rewind points, then ticket and random mask at two
    assert len(rows) == 2 * (2 + 4)
    name = ("method", "level", "rewind", "seed", "copy")
    pairs = {}
    for row in rows:
        pairs.setdefault(tuple(row[field] for field in name), []).append(row)
    for one, two in pairs.values():
        assert {one["order"], two["order"]} == {"0", "1"}
        for field in ("density", "untrained_accuracy", "test_barrier", "train_barrier"):
            assert one[field] == two[field]
        assert one["validation_accuracy"] != two["validation_accuracy"] or (
            one["trained_accuracy"] != two["trained_accuracy"]
        )


def test_the_lines_ends_are_the_trainings_and_the_barrier_stands_on_them(smokes):
    folder, _ = smokes("linear_connectivity")
    points = {}
    for row in metrics(folder):
        if row["phase"] == "line":
            key = tuple(str(row[f]) for f in ("method", "level", "rewind", "seed"))
            points.setdefault(key, []).append((row["alpha"], row["test_error"]))
    for row in summary(folder):
        key = tuple(row[f] for f in ("method", "level", "rewind", "seed"))
        (first, start), *_, (last, end) = sorted(points[key])
        assert (first, last) == (0, 1) and len(points[key]) == 3
        mine = start if row["order"] == "0" else end
        assert 1 - float(row["trained_accuracy"]) == pytest.approx(mine, abs=1e-5)
        highest = max(error for _, error in points[key])
        assert float(row["test_barrier"]) == pytest.approx(highest - (start + end) / 2, abs=1e-5)


def test_killed_lines_resume_to_the_same_numbers(smokes, cache, tmp_path):
    folder = tmp_path / "run"
    words = commands.command("linear_connectivity", "--smoke", f"--out={folder}")
    commands.kill_and_resume(words, folder, ("level-01",), cache)
    assert summary(folder) == summary(smokes("linear_connectivity")[0])
