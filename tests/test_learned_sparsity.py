"""Learned sparsity: facts of all gates, penalties as gates, counts, tickets, cuts, resume."""

import dataclasses
import json

import commands
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.harness import rows as harness_rows
from experiments.learned_sparsity import figure, iterative, penalty_gates, ways
from experiments.learned_sparsity.methods import FACTS, LEARNED, NAMES
from experiments.learned_sparsity.page import table
from experiments.learned_sparsity.settings import LearnSettings, gate_rate_of, levels_of
from jaxtickets import gates, masks, penalties
from jaxtickets.compress.graph import Graph
from jaxtickets.dynamic import proximal
from jaxtickets.gates import JOINT_GATES
from jaxtickets.io.tickets import load_ticket

SIZES = {"fc1/kernel": 784 * 30, "fc2/kernel": 30 * 20, "out/kernel": 200}
TOTAL = sum(SIZES.values())
PRUNABLE = ("fc1/kernel", "fc2/kernel", "out/kernel")  # of the net of `mlp`: 42 weights
KEY = jax.random.key(0)


def test_every_gate_that_trains_with_weights_is_compared_and_has_its_facts():
    assert set(JOINT_GATES) <= set(LEARNED)
    assert set(JOINT_GATES) <= set(FACTS)
    for name, one in LEARNED.items():
        setting = gates.Setting(steps=40, examples=100)
        most = JOINT_GATES[name](PRUNABLE, None, 0, setting).most if name in JOINT_GATES else np.inf
        for strengths in (one.facts.strengths, one.facts.published):
            assert strengths and min(strengths) >= 0 and max(strengths) <= most


def test_published_strengths_come_with_gates_at_the_rate_of_the_weights():
    long = LearnSettings(published=True)
    assert levels_of("targeted_dropout", long) == [(0.95, None), (0.98, None)]
    assert gate_rate_of(long) == 1
    assert levels_of("l0", dataclasses.replace(long, strengths=(0.3,))) == [(0.3, None)]
    assert gate_rate_of(dataclasses.replace(long, gate_rate=5.0)) == 5
    assert gate_rate_of(LearnSettings()) == 0  # each method's own
    assert len(levels_of("l0", LearnSettings())) == 4


@pytest.mark.parametrize("name", JOINT_GATES)
def test_training_does_not_depend_on_what_the_hard_mask_keeps(name, mlp):
    # so that one training serves all densities
    setting = gates.Setting(steps=40, examples=100)
    made = [JOINT_GATES[name](PRUNABLE, keep, 0, setting) for keep in (None, 5, 20)]
    g = [gate.init(KEY, mlp) for gate in made]
    used = [
        gate.apply(KEY, jnp.int32(9), one, mlp, jnp.float32(0.5))
        for gate, one in zip(made, g, strict=True)
    ]
    for other in (1, 2):
        jax.tree.map(np.testing.assert_array_equal, (g[0], used[0]), (g[other], used[other]))


# --- penalties as gates --------------------------------------------------------------------------


@pytest.fixture
def graph(mlp_wiring):
    units = {"fc1": np.arange(4), "fc2": 4 + np.arange(5)}
    axes = {
        "params/fc1/kernel": {-1: units["fc1"]},
        "params/fc2/kernel": {-2: units["fc1"], -1: units["fc2"]},
        "params/out/kernel": {-2: units["fc2"]},
    }
    return Graph(mlp_wiring, units, axes, frozenset(), (3,))


def lasso(mlp, graph, keep=None):
    return penalty_gates.group_lasso(PRUNABLE, keep, graph, "out", mlp)


def test_a_penalty_is_added_with_its_strength_and_leaves_the_weights(mlp, graph):
    effective, penalty = lasso(mlp, graph).apply(KEY, jnp.int32(3), (), mlp, jnp.float32(0.25))
    np.testing.assert_allclose(penalty, 0.25 * penalties.group_lasso(mlp, "out"), rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, effective, mlp)


def test_units_far_below_the_largest_of_their_layer_are_removed(mlp, graph):
    small = jax.tree.map(jnp.asarray, mlp)
    small["fc1"]["kernel"] = small["fc1"]["kernel"].at[:, 2].multiply(1e-3)
    mask = lasso(mlp, graph).harden((), small)
    assert np.flatnonzero(~np.asarray(mask["fc1"]["kernel"]).any(0)).tolist() == [2]
    assert not np.asarray(mask["fc2"]["kernel"])[2].any() and not mask["fc1"]["bias"][2]
    assert int(masks.count(mask, PRUNABLE)) == 42 - 3 - 5  # its three inputs and five readers


def test_the_proximal_group_lasso_takes_the_librarys_step_and_removes_exact_zeros(mlp, graph):
    gate = penalty_gates.group_lasso_proximal(PRUNABLE, None, graph, "out", mlp)
    kernels, strength, rate = ("fc1/kernel", "fc2/kernel"), 6.5, 0.1
    expected = proximal.group_lasso(optax.sgd(rate), rate, strength, kernels)
    gradient = jax.tree.map(jnp.ones_like, mlp)
    updates, _ = expected.update(gradient, expected.init(mlp), mlp)

    trained, stats = gates.start(gate, KEY, mlp, {}, strength=strength)

    def loss(params, stats, batch, key):
        del batch, key
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params)), (stats, {})

    slope, _ = jax.grad(gates.loss(gate, loss), has_aux=True)(trained, stats, (), KEY)
    optimizer = gates.optimizer(gate, optax.sgd(rate))
    got, _ = optimizer.update(slope, optimizer.init(trained), trained)
    for x, y in zip(jax.tree.leaves(got.weights), jax.tree.leaves(updates), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)
    assert got.gate == 0
    after = optax.apply_updates(mlp, got.weights)
    left = [np.asarray(after[name]["kernel"]).any(0) for name in ("fc1", "fc2")]
    assert 0 < sum(units.sum() for units in left) < 9
    mask = gate.harden(jnp.zeros(()), after)
    for name, units in zip(("fc1", "fc2"), left, strict=True):
        np.testing.assert_array_equal(mask[name]["bias"], units)


def test_hoyer_square_cuts_weights_far_below_the_largest_of_their_layer(mlp):
    def gate(keep):
        return penalty_gates.hoyer_square(PRUNABLE, keep, 0, "out", mlp)

    _, penalty = gate(None).apply(KEY, jnp.int32(3), (), mlp, jnp.float32(0.25))
    np.testing.assert_allclose(penalty, 0.25 * penalties.hoyer_square(mlp, "out"), rtol=1e-6)
    mask = gate(None).harden((), mlp)
    for layer in mlp:
        sizes = np.abs(mlp[layer]["kernel"])
        np.testing.assert_array_equal(mask[layer]["kernel"], sizes > 0.05 * sizes.max())
    assert int(masks.count(gate(7).harden((), mlp), PRUNABLE)) == 7


@pytest.mark.parametrize("keep", [6, 17, 30, 42])
def test_at_a_density_as_many_whole_units_stay_as_fit(mlp, graph, keep):
    mask = lasso(mlp, graph, keep).harden((), mlp)
    kept = int(masks.count(mask, PRUNABLE))
    units = [int(np.asarray(mask[f"fc{i}"]["bias"]).sum()) for i in (1, 2)]
    assert kept == 3 * units[0] + units[0] * units[1] + 2 * units[1] <= keep
    if kept < 42:  # one more unit, whichever layer it is in, would be too many
        norms = [np.linalg.norm(mlp[f"fc{i}"]["kernel"], axis=0) for i in (1, 2)]
        ratios = np.concatenate([norm / norm.max() for norm in norms])
        at = np.sort(ratios)[::-1][sum(units)]
        more = [int((norm / norm.max() >= at).sum()) for norm in norms]
        assert 3 * more[0] + more[0] * more[1] + 2 * more[1] > keep


def test_fewer_weights_than_one_unit_a_layer_takes_are_refused(mlp, graph):
    with pytest.raises(ValueError, match="one unit in each layer takes 6 weights, of 5"):
        lasso(mlp, graph, 5)


def test_a_unit_without_inputs_loses_its_bias_and_its_readers(mlp, mlp_wiring):
    mask = jax.tree.map(np.ones_like, mlp)
    mask = jax.tree.map(lambda leaf: leaf.astype(bool), mask)
    mask["fc1"]["kernel"][:, 1] = False
    left = ways.without_constants(mask, mlp_wiring)
    assert np.asarray(left["fc1"]["bias"]).tolist() == [True, False, True, True]
    assert not np.asarray(left["fc2"]["kernel"])[1].any()
    assert int(masks.count(left, PRUNABLE)) == 42 - 3 - 5


# --- a run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(smokes):
    """The summary of a finished smoke run."""
    return commands.summary(smokes("learned_sparsity")[0])


def of(rows, **fields):
    return [row for row in rows if all(row[name] == value for name, value in fields.items())]


def test_every_strength_density_and_seed_has_a_row_that_counts_its_mask(rows):
    assert len(rows) == 2 * (1 + 2 + 2 + 2 + 2 + 2)
    for row in rows:
        kept = {path: int(row[f"kept/{path}"]) for path in SIZES}
        assert float(row["density"]) == pytest.approx(sum(kept.values()) / TOTAL, abs=1e-7)
        # each weight of this net is used once for an image
        assert int(row["multiply_adds"]) == sum(kept.values())
        if row["asked"]:
            assert sum(kept.values()) == round(float(row["asked"]) * TOTAL)
            assert float(row["factor"]) == pytest.approx(1 / float(row["asked"]), abs=1e-3)


def test_a_stronger_penalty_leaves_fewer_weights(rows):
    weak, strong = (
        float(of(rows, method="continuous_sparsification", strength=s, seed="0")[0]["density"])
        for s in ("1e-05", "0.01")
    )
    assert strong < weak < 1


def test_costs_count_the_dense_net_and_what_is_retrained(rows):
    (dense,) = of(rows, method="dense", seed="0")
    assert float(dense["cost"]) == 1 and dense["retrained_accuracy"] == ""
    for method, cost in (("group_lasso", 1.5), ("magnitude", 2.5), ("granet", 1.5 + 1 / 14)):
        assert float(of(rows, method=method)[0]["cost"]) == pytest.approx(cost, abs=1e-4)


def test_iterative_pruning_counts_all_levels_and_keeps_a_part_of_the_level_before(rows, smokes):
    folder, _ = smokes("learned_sparsity")
    # to 0.2 in three levels, to 0.1 in one more, and one of two epochs of retraining
    costs = {row["asked"]: float(row["cost"]) for row in of(rows, method="imp")}
    assert costs == {"0.2": 1 + 3 + 0.5, "0.1": 1 + 4 + 0.5}
    more, less = (
        load_ticket(folder / "tickets" / f"imp-density{density}-seed1")[0].mask
        for density in (0.2, 0.1)
    )
    assert int(masks.count(jax.tree.map(jnp.logical_and, more, less), tuple(SIZES))) == 2_432


def test_levels_keep_half_or_more_and_equal_shares_between_densities():
    assert iterative.levels_to((0.25, 0.5)) == (0.5, 0.25)
    assert iterative.levels_to((0.6,)) == (0.6,)
    found = iterative.levels_to((0.02, 0.1))
    assert found[3] == 0.1 and found[-1] == 0.02 and len(found) == 7  # 2 ** 4 > 10, 2 ** 3 > 5
    np.testing.assert_allclose(found[:4], 0.1 ** (np.arange(1, 5) / 4))


def test_a_cut_net_has_the_accuracy_and_the_units_of_the_masked_one(rows):
    for row in of(rows, method="group_lasso"):
        assert float(row["cut_accuracy"]) == pytest.approx(float(row["retrained_accuracy"]))
        widths = [int(row[f"left/{name}"]) for name in ("inputs", "fc1", "fc2")]
        cut = 784 * widths[1] + widths[1] * widths[2] + 10 * widths[2]
        assert int(row["cut_multiply_adds"]) == cut
    assert of(rows, method="granet")[0]["cut_accuracy"] == ""


def test_each_result_is_a_ticket_with_its_trained_weights(rows, smokes):
    folder, _ = smokes("learned_sparsity")
    for row in rows[2:]:
        ticket, provenance = load_ticket(folder / "tickets" / row["ticket"])
        assert provenance["density"] == float(row["density"])
        kept = masks.counts(ticket.mask, tuple(SIZES))
        assert {path: int(n) for path, n in kept.items()} == {
            path: int(row[f"kept/{path}"]) for path in SIZES
        }
        again, _ = load_ticket(folder / "tickets" / f"{row['ticket']}-retrained")
        jax.tree.map(np.testing.assert_array_equal, again.mask, ticket.mask)


def test_a_killed_run_resumes_to_the_numbers_that_the_method_has_beside_others(
    rows, smokes, cache, tmp_path
):
    folder, _ = smokes("learned_sparsity")
    killed = tmp_path / "killed"
    words = commands.command("learned_sparsity", "--smoke", "--methods=granet", f"--out={killed}")
    words.append(f"--dense_store={folder.parent / 'dense'}")
    commands.kill_and_resume(words, killed, ("train-granet-00",), cache)
    beside, alone = (
        [{k: v for k, v in row.items() if v and "milli" not in k} for row in found]
        for found in (rows, commands.summary(killed))
    )
    assert alone == [*of(beside, method="dense"), *of(beside, method="granet")]


# --- the page ------------------------------------------------------------------------------------


def test_the_table_has_a_row_a_method_and_strength_and_names_what_lost_a_layer():
    def row(method, strength, seed, density, accuracy, left=3):
        own = {"method": method, "strength": strength, "asked": None, "seed": seed}
        measured = {"density": density, "trained_accuracy": accuracy, "multiply_adds_left": density}
        return {**own, **measured, "kept/a": left, "left/a": left, "cost": 1.0, "seconds": 2.0}

    both = [
        row("dense", None, 0, 1.0, 0.9),
        row("l0", 0.1, 0, 0.3, 0.8),
        row("l0", 0.1, 1, 0.1, 0.6, left=0),
    ]
    head, dense, learned, lost = table(both).splitlines()
    assert head.split()[:6] == ["method", "strength", "n", "factor", "density", "%"]
    assert dense.split()[:4] == ["dense", "1", "1.0", "100.00"]
    expected = ["l0", "0.1", "2", "5.0", "20.00", "±", "14.14", "70.00", "±", "14.14"]
    assert learned.split()[:10] == expected
    assert lost == "a layer is lost: l0 at strength 0.1 keeps nothing in a (1 of 2 runs)"


# --- figures --------------------------------------------------------------------------------------


def test_axes_end_where_points_do():
    one = figure.Line(left=[[50.0], [4.0]], accuracy=[[97.0], [60.0]])
    bottom, top = figure._heights({"l0": one}, [98.0, 98.0])  # 60 is more than 12 points lower
    assert (bottom, top) == pytest.approx((96.9, 98.1))
    far = figure.Line(left=[[4.0, 4.0]], accuracy=[[59.0, 61.0]])  # deviation 2 ** 0.5
    bottom, top = figure._heights({"l0": far}, [98.0])
    margin = 0.05 * (98 - (60 - 2**0.5))
    assert (bottom, top) == pytest.approx((60 - 2**0.5 - margin, 98 + margin))
    assert figure._least({"l0": one}) == 2.0
    assert figure._least({"l0": figure.Line(left=[[5.0]], accuracy=[[97.0]])}) == 5.0
    assert figure._ticks(0.2, 100) == [0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]


def test_every_method_stands_in_one_panel():
    methods = [method for some in figure.PANELS.values() for method in some]
    assert sorted(methods) == sorted(NAMES)


def test_only_cut_nets_have_a_figure_of_their_multiply_adds(tmp_path):
    def row(method, cut_left):
        same = {"strength": 0.1, "asked": None, "density": 0.5, "trained_accuracy": 0.9}
        return {"method": method, **same, "cut_left": cut_left, "cut_accuracy": 0.8}

    spec = {"model": "a", "dataset": "b", "retrain_epochs": 0, "seeds": 1}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    harness_rows.write_csv(tmp_path / "summary.csv", [row("dense", None), row("l0", None)])
    assert figure.draw_multiply_adds(tmp_path) is None
    summary = [row("dense", None), row("l0_groups", 0.4)]
    harness_rows.write_csv(tmp_path / "summary.csv", summary)
    assert figure.draw_multiply_adds(tmp_path).exists()
