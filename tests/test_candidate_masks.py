"""Experiments on a gallery of masks: what they compare, reuse, and take from other runs."""

from types import SimpleNamespace

import commands
import jax
import numpy as np
import pytest
from commands import metrics, summary

from experiments.harness import candidate_masks
from experiments.harness.candidate_masks import GallerySettings
from experiments.harness.problem import Problem
from experiments.harness.seeds import Seed
from jaxtickets import masks
from jaxtickets.criteria import CRITERIA, Criterion, random
from jaxtickets.io.tickets import load_ticket
from jaxtickets.types import Split


def grouped(rows, *fields):
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[field] for field in fields), []).append(row)
    return groups


# --- criteria of the table ---------------------------------------------------------------------


def test_a_criterion_is_made_masks_of_by_its_record_alone(evidence, monkeypatch):
    own = {
        "first": Criterion(lambda key, seen: seen.params, "initial"),
        "last": Criterion(lambda key, seen: seen.params, "trained"),
        "one": Criterion(random.score, "initial"),
        "many": Criterion(random.score, "initial", draws=True),
    }
    for name, criterion in own.items():
        monkeypatch.setitem(CRITERIA, name, criterion)
    first, last = evidence.init_params, evidence.params
    prunable, start = masks.prunable(first), Seed(0, first, {}, 0)
    recipe = SimpleNamespace(loss=None, model=None, prepare=None)
    problem = Problem(None, None, recipe, {}, prunable, (), steps=0)
    data = SimpleNamespace(train=Split(np.zeros((20, 3), "u1"), np.zeros(20, "i")))
    settings = GallerySettings(criteria=("first", "last", "initial_last", "one", "many"))
    keep = {0.5: 21, 0.25: 10}
    dense = SimpleNamespace(params=jax.tree.map(lambda w: w[None], last), stats={})
    plan = candidate_masks.MaskPlan(settings, keep, [])
    session = SimpleNamespace(problem=problem, data=data, seeds=[start])
    made = {
        (entry.name["method"], entry.name["density"]): entry.start.mask
        for entry in candidate_masks.entries_of(session, plan, dense)
    }
    for density, count in keep.items():
        for name, params in {"first": first, "last": last, "initial_last": first}.items():
            expected = masks.select(params, prunable, count)
            jax.tree.map(np.testing.assert_array_equal, made[name, density], expected)
    nested = {
        name: all(
            (wide | ~narrow).all()
            for wide, narrow in zip(*(jax.tree.leaves(made[name, d]) for d in keep), strict=True)
        )
        for name in settings.criteria
    }
    assert nested == dict.fromkeys(settings.criteria, True) | {"many": False}
    alone = GallerySettings(criteria=("first", "initial_last", "inverted_many"))
    assert not candidate_masks.looks_at_trained(alone)
    assert candidate_masks.looks_at_trained(settings)


# --- criterion_comparison ------------------------------------------------------------------------


def test_every_criterion_is_trained_beside_its_checks(smokes):
    rows = summary(smokes("criterion_comparison")[0])
    plain = {"random", "magnitude", "snip", "synflow"}
    checks = {(name, check) for name in plain for check in ("", "shuffled", "reinit", "inverted")}
    kinds = checks - {("random", "inverted")}
    expected = {(*kind, density) for kind in kinds for density in ("0.2", "0.05")}
    found = grouped(rows, "method", "check", "density")
    assert set(found) == {("dense", "", "1.0"), *expected}
    assert all(len(members) == 2 for members in found.values())


def test_masks_keep_the_density_and_checks_the_layers_counts(smokes):
    rows = summary(smokes("criterion_comparison")[0])
    counts = {
        (r["method"], r["check"], r["density"], r["seed"]): [
            int(r[f"kept/{layer}/kernel"]) for layer in ("fc1", "fc2", "out")
        ]
        for r in rows
    }
    for (method, check, density, number), kept in counts.items():
        assert sum(kept) == round(float(density) * 83_900)
        if check in ("shuffled", "reinit"):
            assert kept == counts[method, "", density, number]


def test_effective_weights_are_no_more_than_kept_ones(smokes):
    for row in summary(smokes("criterion_comparison")[0]):
        assert 0 <= float(row["effective_density"]) <= float(row["density"])
        lost = any(row[f"kept/{layer}/kernel"] == "0" for layer in ("fc1", "fc2", "out"))
        assert (float(row["effective_density"]) == 0) == lost
        if row["method"] == "dense":
            assert int(row["dead_inputs"]) == int(row["dead_units/fc1"]) == 0
    inverted = [
        row
        for row in summary(smokes("criterion_comparison")[0])
        if (row["method"], row["check"], row["density"]) == ("synflow", "inverted", "0.05")
    ]
    assert len(inverted) == 2
    assert all(float(row["effective_density"]) < 0.049 for row in inverted)


def test_a_lost_layer_is_named_below_the_table(smokes):
    said = smokes("criterion_comparison")[1].stdout.splitlines()
    lost = [line for line in said if line.startswith("a layer is lost: ")]
    where = "keeps nothing in fc2/kernel, out/kernel"
    assert f"a layer is lost: synflow (inverted) at 0.2 {where}" in lost
    assert all("inverted" in line for line in lost)


def test_dense_nets_are_trained_once_for_all_experiments(smokes):
    folders = [smokes(name)[0] for name in commands.GALLERIES]
    trained = [
        (f / "metrics.jsonl").exists()
        and any(row["phase"].startswith("dense") for row in metrics(f))
        for f in folders
    ]
    assert sum(trained) == 1
    said = [smokes(name)[1].stdout for name in commands.GALLERIES]
    assert sum("2 of 2 dense nets are loaded from" in text for text in said) == 3
    dense = {
        row["trained_accuracy"]
        for name in ("criterion_comparison", "orthogonality")
        for row in summary(smokes(name)[0])
        if row["method"] == "dense"
    }
    assert len(dense) == 2  # the two seeds'


def test_a_killed_comparison_resumes_to_the_numbers_that_its_masks_have_beside_others(
    smokes, cache, tmp_path
):
    words = commands.command("criterion_comparison", "--smoke", f"--out={tmp_path / 'run'}")
    words += ["--criteria=synflow", "--checks=shuffled", "--density=0.2"]
    words.append(f"--dense_store={tmp_path / 'dense'}")
    commands.kill_and_resume(words, tmp_path / "run", ("train-00",), cache)
    kinds = ("dense", "", "1.0"), ("synflow", "", "0.2"), ("synflow", "shuffled", "0.2")
    beside = grouped(summary(smokes("criterion_comparison")[0]), "method", "check", "density")
    assert summary(tmp_path / "run") == [row for kind in kinds for row in beside[kind]]


def test_masks_can_be_counted_without_looking_at_an_image(cache, tmp_path):
    words = commands.command("criterion_comparison", "--smoke", "--notrain", "--noevaluate")
    words += ["--criteria=random,synflow", f"--out={tmp_path / 'run'}"]
    done = commands.run([*words, f"--dense_store={tmp_path / 'dense'}"], cache)
    assert done.returncode == 0, done.stderr
    for row in summary(tmp_path / "run"):
        assert row["untrained_accuracy"] == "" and int(row["kept/fc1/kernel"]) > 0
    assert {f.stem for f in (tmp_path / "run" / "figures").iterdir()} == {"layers", "lost"}


# --- the others ----------------------------------------------------------------------------------


BY_CHANCE = {"random", "annealed_at_0", "annealed_at_5"}
"""So short a search has hardly left its random first mask, and each has one of its own."""


def test_annealed_masks_are_compared_with_the_others(smokes):
    rows = [r for r in summary(smokes("mask_similarity")[0]) if r["layer"] == "all"]
    seen = {(r["method_a"], r["seed_a"]) for r in rows}
    assert {(name, seed) for name in BY_CHANCE for seed in ("0", "1")} <= seen


def test_random_masks_are_as_alike_as_chance_and_a_mask_is_like_itself(smokes):
    for row in summary(smokes("mask_similarity")[0]):
        same = (row["method_a"], row["seed_a"]) == (row["method_b"], row["seed_b"])
        cosine, chance = float(row["cosine"]), float(row["chance"])
        if same:
            assert cosine == float(row["jaccard"]) == 1 and float(row["hamming"]) == 0
        elif row["layer"] == "all" and {row["method_a"], row["method_b"]} <= BY_CHANCE:
            assert cosine == pytest.approx(chance, abs=0.01)
        elif row["layer"] == "fc1" and {row["method_a"], row["method_b"]} == {"magnitude", "snip"}:
            assert row["seed_a"] != row["seed_b"] or cosine > chance


def test_repair_lowers_the_score_of_every_mask(smokes):
    rows = summary(smokes("orthogonality")[0])
    scores = {(r["method"], r["check"], r["seed"]): float(r["orthogonality"]) for r in rows}
    repaired = [key for key in scores if key[1] == "repaired"]
    assert len(repaired) == 6
    for method, check, number in repaired:
        assert scores[method, check, number] < scores[method, "", number]
    assert "between 3 methods" in smokes("orthogonality")[1].stdout


def test_steps_to_a_loss_are_read_off_the_training_curve(smokes):
    folder, _ = smokes("trainability")
    curves = grouped([r for r in metrics(folder) if r["phase"] == "first"], "method", "seed")
    for row in summary(folder):
        mine = curves[row["method"], int(row["seed"])]
        assert [r["step"] for r in mine] == [10, 20, 30, 40]
        below = [r["step"] for r in mine if r["train_loss"] <= 1.0]
        found = float(row["steps_to/1"])
        assert found == below[0] if below else np.isnan(found)


def test_tickets_of_other_runs_are_taken_as_they_are(smokes, cache, tmp_path):
    pattern = smokes("imp_rewind")[0] / "tickets" / "level02-*"
    words = commands.command("trainability", "--smoke", f"--out={tmp_path / 'run'}")
    words += ["--widths=30,20", "--seeds=1", "--criteria=random", f"--tickets=imp={pattern}"]
    done = commands.run([*words, f"--dense_store={tmp_path / 'dense'}"], cache)
    assert done.returncode == 0, done.stderr
    rows = {(r["method"], r["seed"]): r for r in summary(tmp_path / "run")}
    assert set(rows) == {("random", "0"), ("dense", "0"), ("imp", "0"), ("imp", "1")}
    ticket, _ = load_ticket(next(pattern.parent.glob("level02-*0")))
    assert int(rows["imp", "0"]["kept/fc1/kernel"]) == ticket.mask["fc1"]["kernel"].sum()


def test_a_ticket_of_another_net_is_refused(smokes, cache):
    pattern = smokes("imp_rewind")[0] / "tickets" / "*"
    wrong = (
        ["--model=lenet5", "--widths=", f"--tickets={pattern}"],
        ["--anneal_at=early"],
        ["--anneal_at=-5"],
        ["--anneal_steps=30"],
    )
    found = commands.answers([["mask_similarity", "--smoke", *words] for words in wrong], cache)
    assert all(status == 1 and len(said.splitlines()) == 1 for status, said in found)
    assert "is a ticket of" in found[0][1] and "lenet300_100" in found[0][1]
    assert "anneal_at" in found[1][1] and "anneal_at" in found[2][1]
    assert "multiple of" in found[3][1]


# --- prune_retrain -------------------------------------------------------------------------------


def test_rounds_cut_further_and_count_what_is_left(smokes):
    rows = [r for r in summary(smokes("prune_retrain")[0]) if r["method"] == "quantile"]
    found = grouped(rows, "model", "threshold", "seed")
    assert len(found) == 2 * 2 and all(len(members) == 2 for members in found.values())
    for (model, threshold, _), (first, second) in found.items():
        density = float(first["density"])
        assert density == pytest.approx(1 - float(threshold), abs=1e-4)
        assert float(second["density"]) < density
        if model == "lenet300_100":
            kept = sum(int(second[f"kept/{layer}/kernel"]) for layer in ("fc1", "fc2", "out"))
            assert int(second["parameters"]) == kept + 410
            assert int(second["multiply_adds"]) == kept
            assert float(second["compression"]) == pytest.approx(266_610 / (kept + 410), abs=1e-4)


# --- supermask -----------------------------------------------------------------------------------


def test_every_combination_descends_from_the_seeds_dense_nets(smokes):
    rows = summary(smokes("supermask")[0])
    found = grouped(rows, "method", "ones", "zeros", "level")
    criteria, ones = ("magnitude", "magnitude_same_sign"), ("rewind", "signed_constant")
    zeros = ("zero", "freeze_unless_toward_zero")
    expected = {
        (c, o, z, level) for c in criteria for o in ones for z in zeros for level in ("1", "2")
    }
    assert set(found) == {("dense", "", "", ""), *expected}
    assert all(len(members) == 2 for members in found.values())


def test_actions_change_what_a_mask_is_worth_untrained_but_not_the_first_mask(smokes):
    rows = grouped(summary(smokes("supermask")[0]), "method", "seed", "level", "ones", "zeros")
    plain = rows["magnitude", "0", "1", "rewind", "zero"][0]
    for ones, zeros in (
        ("signed_constant", "zero"),
        ("rewind", "freeze_unless_toward_zero"),
    ):
        other = rows["magnitude", "0", "1", ones, zeros][0]
        assert other["kept/fc1/kernel"] == plain["kept/fc1/kernel"]
        assert other["untrained_accuracy"] != plain["untrained_accuracy"]
    # signs tell: Zhou et al.'s finding, over seeds and levels
    signed, unsigned = (
        [
            float(rows[name, number, level, "signed_constant", "zero"][0]["untrained_accuracy"])
            for number in "01"
            for level in "12"
        ]
        for name in ("magnitude_same_sign", "magnitude")
    )
    assert np.mean(signed) > np.mean(unsigned)
