"""Small nets for real: who stays, what each training begins with and takes, what is reported."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import summary
from flax import linen as nn

from experiments.filter_search import unit_search
from experiments.harness import (
    annealed_settings,
    annealing_runs,
    cached_trainings,
    filter_cuts,
    rows,
    structured_tables,
)
from experiments.harness import structured_runs as driver
from experiments.harness.chain_runs import FoundTicket
from experiments.harness.dense_store import Dense
from experiments.harness.filter_cuts import AfterSettings, Choice, CutSettings
from experiments.harness.problem import build
from experiments.harness.seeds import seed
from experiments.harness.session import Session
from experiments.harness.training_settings import NetSettings, TrainSettings
from jaxtickets import losses, masks, nets, runs, training
from jaxtickets.compress import graph, unit_selection
from jaxtickets.criteria import Evidence
from jaxtickets.criteria.units import find_unit
from jaxtickets.io import tickets
from jaxtickets.io.errors import UserError
from jaxtickets.penalties import group_lasso
from jaxtickets.recipes import structured
from jaxtickets.recipes.search_domain import search_domain
from jaxtickets.recipes.structured import AFTERS, Cut, Lengths
from jaxtickets.types import Ticket

MNIST = (28, 28, 1)

# --- recipes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "before", "after", "steps"),
    [
        (2.0, 1000, 800, 120),  # 100 · 1000 / 800 = 125, whole looks of 10
        (2.0, 1000, 300, 200),  # 333, but no more than twice
        (4.0, 1000, 300, 330),
        (1.25, 1000, 300, 120),
        (float("inf"), 1000, 300, 330),
        (2.0, 1000, 1000, 100),
    ],
)
def test_scratch_b_takes_the_dense_nets_computation_up_to_a_limit(most, before, after, steps):
    lengths = Lengths(dense=100, unit=10, tuning=30, most=most)
    found = {name: how.steps(lengths, before, after) for name, how in AFTERS.items()}
    assert found == {"rewind": 100, "scratch_e": 100, "scratch_b": steps, "finetune": 30}


def test_fpgm_after_a_cut_by_norm_has_a_name_and_an_inverse(mlp, mlp_wiring):
    seen, key = Evidence(mlp, mlp, {}, masks.ones(mlp), None, None), jax.random.key(0)
    scores = structured.find_method("fpgm_norm", 0.5).score(key, seen, mlp_wiring)
    for group in mlp_wiring:
        norms = np.linalg.norm(mlp[group.name]["kernel"], axis=0)
        left = round(0.5 * group.size)
        smallest = np.argsort(norms)[: group.size - left]
        assert set(np.flatnonzero(scores[group.name] < 0)) == set(smallest)
    against = structured.find_method("inverted_fpgm_norm", 0.5).score(key, seen, mlp_wiring)
    plain = find_unit("fpgm").score(key, seen, mlp_wiring)
    for name, values in scores.items():
        np.testing.assert_array_equal(against[name], -values)
        assert not np.allclose(values, plain[name])
        np.testing.assert_allclose(
            structured.find_method("fpgm_norm", 1.0).score(key, seen, mlp_wiring)[name],
            plain[name],
            rtol=1e-6,
        )
    assert structured.find_method("l1", 0.5) is find_unit("l1")


def test_shares_are_of_units_or_of_multiply_adds():
    net = nets.make("lenet5", widths=(10, 4, 2))
    found, costs = graph.trace(net, MNIST), nets.multiply_adds(net, MNIST)
    scores = {group.name: np.arange(group.size, dtype="f") for group in found.wiring}
    of_units = structured.chosen(Cut(unit_selection.by_layer, 1, 1, {}), found, scores, 0.5)
    assert [int(mask.sum()) for mask in of_units.values()] == [5, 2, 1]
    of_costs = structured.chosen(Cut(unit_selection.by_layer, 1, 1, costs), found, scores, 0.3)
    choices = [unit_selection.by_layer(found, scores, keep / 16, 1) for keep in range(1, 17)]
    spent = [unit_selection.multiply_adds(found, costs, units) for units in choices]
    most = max(cost for cost in spent if cost <= 0.3 * sum(costs.values()))
    assert unit_selection.multiply_adds(found, costs, of_costs) == most < max(spent)


def test_random_units_of_two_shares_of_a_seed_are_not_nested():
    problem = small_problem(nets.make("lenet300_100", widths=(300, 100)))
    cut = dataclasses.replace(CUT, methods=("random",), rates=(0.5, 0.2))
    plan = filter_cuts.plan_cuts(cut, AFTER, TRAIN, problem)
    one = seed(problem, 3)
    dense = Dense(runs.stack([one.params]), {}, [], {})
    session = Session(Path(), problem, runs.axis("map"), problem.dataset, [one], 60.0)
    large, small = (
        np.concatenate(list(choice.units.values()))
        for choice in filter_cuts.scored(session, plan, dense)
    )
    assert (large.sum(), small.sum()) == (200, 80)
    assert abs(np.mean(large[small]) - 0.5) < 4 * np.sqrt(0.25 / 80)


# --- from cuts to rows, without training ---------------------------------------------------------

TRAIN = TrainSettings(iterations=40, look_every=10, batch_size=100)
CUT = CutSettings(methods=("random", "l1"), rates=(0.5,))
AFTER = AfterSettings(finetune_epochs=2, finetune_rate=0.25, longest=3.0, repeats=1)
FAKE = [
    {"quantity": f"ms a batch of {batch}", "before": 3.0, "after": 1.5, "ratio": 2.0}
    for batch in driver.BATCHES
]


def small_problem(net):
    problem = build(NetSettings(model="lenet300_100"), TRAIN, "", False)
    model = nets.functional(net, MNIST)
    loss = losses.classification(model, problem.recipe.prepare)
    return problem._replace(net=net, recipe=problem.recipe._replace(model=model, loss=loss))


ONE = runs.axis("map", 1, jax.local_devices()[:1])


class Bench:
    """A net of 8 and 6 units at two seeds, cut to halves; what would be trained is noted."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.begun = folder, {}
        self.problem = small_problem(nets.make("lenet300_100", widths=(8, 6)))
        self.seeds = [seed(self.problem, number) for number in (3, 4)]
        ends = [jax.tree.map(lambda w: w[::-1] + 0.01, one.params) for one in self.seeds]
        learnt = dict.fromkeys(driver.LEARNT, 0.5)
        self.dense = Dense(
            runs.stack(ends),
            {},
            [learnt | {"seed": one.number} for one in self.seeds],
            {one.number: folder / "dense" for one in self.seeds},
        )
        self.plan = filter_cuts.plan_cuts(CUT, AFTER, TRAIN, self.problem)
        self.session = Session(
            folder=folder,
            problem=self.problem,
            axis=ONE,
            data=self.problem.dataset,
            seeds=self.seeds,
            checkpoint_seconds=60.0,
        )
        chosen = filter_cuts.scored(self.session, self.plan, self.dense)
        self.groups = filter_cuts.cut(self.plan, self.problem, chosen)
        whole = Ticket(ends[0], {}, masks.ones(ends[0]), np.int32(40))
        tickets.save_ticket(folder / "dense", whole, {})
        monkeypatch.setattr(cached_trainings, "train_entries", self.train)
        monkeypatch.setattr(driver.latency, "compare", lambda *arguments: FAKE)
        monkeypatch.setattr(driver, "accuracies", lambda *arguments: np.array([0.1, 0.2, 0.3, 0.4]))
        self.made = self.rows()
        self.trained = dict(self.begun)

    def train(self, session, phase, entries):
        self.begun[phase] = session.problem, entries
        params = runs.stack([entry.start.params for entry in entries])
        ends = SimpleNamespace(state=SimpleNamespace(params=params, stats={}))
        return ends, [entry.name | dict.fromkeys(driver.LEARNT, 0.5) for entry in entries]

    def rows(self):
        self.begun.clear()
        ((place, members),) = self.groups.items()
        session = self.session._replace(data=SimpleNamespace(test=None))
        return driver.train_net(session, place, self.plan, members, self.dense)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield Bench(tmp_path_factory.mktemp("bench"), patch)


def test_each_training_begins_with_its_weights_and_takes_its_steps(bench):
    steps = {phase: problem.steps for phase, (problem, _) in bench.trained.items()}
    # 784·8 + 8·6 + 6·10 = 6380 multiply-adds, then 784·4 + 4·3 + 3·10 = 3178: 40 · 2.007 steps
    assert steps == {"rewind-scratch_e-00": 40, "scratch_b-00": 80, "finetune-00": 70}
    looks = {phase: problem.recipe.every for phase, (problem, _) in bench.trained.items()}
    assert looks == {"rewind-scratch_e-00": 10, "scratch_b-00": 10, "finetune-00": 35}
    rates = [float(problem.hyper.rate) for problem, _ in bench.trained.values()]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 0.25e-3], rtol=1e-6)

    starts = {
        (e.name.get("method"), e.name["after"], e.name["seed"]): e.start.params
        for _, entries in bench.trained.values()
        for e in entries
    }
    assert len(starts) == 2 * 2 + 2 + 2 + 2 * 2  # what is new is so once a seed
    for i, one in enumerate(bench.seeds):
        trained = runs.take(bench.dense.params, i)
        left = [
            np.sort(np.argsort(np.abs(trained[layer]["kernel"]).sum(0))[-count:])
            for layer, count in (("fc1", 4), ("fc2", 3))
        ]
        for after, whole in (("rewind", one.params), ("finetune", trained)):
            start = starts["l1", after, one.number]
            np.testing.assert_array_equal(
                start["fc1"]["kernel"], whole["fc1"]["kernel"][:, left[0]]
            )
            between = np.asarray(whole["fc2"]["kernel"])[np.ix_(*left)]
            np.testing.assert_array_equal(start["fc2"]["kernel"], between)
        new, longer = (starts[None, f"scratch_{word}", one.number] for word in "eb")
        jax.tree.map(np.testing.assert_array_equal, new, longer)
        assert not np.isin(new["fc1"]["kernel"], one.params["fc1"]["kernel"]).all()
    assert not np.array_equal(
        starts[None, "scratch_e", 3]["fc1"]["kernel"], starts[None, "scratch_e", 4]["fc1"]["kernel"]
    )
    assert len(bench.made) == 2 * 2 * 4


def test_rows_say_what_the_small_net_is_and_what_it_saves(bench):
    made = bench.made
    ordered = driver.in_order(bench.plan, bench.groups, made[::-1])
    assert [(r["method"], r["after"], r["seed"]) for r in ordered] == [
        (method, after, number) for method in CUT.methods for after in AFTERS for number in (3, 4)
    ]
    for row in made:
        assert row["parameters"] == 3178 + 4 + 3 + 10 and row["multiply_adds"] == 3178
        assert (row["units/fc1"], row["units/fc2"]) == (4, 3)
        assert row["milliseconds_1"] == 1.5 and row["speed_up_128"] == 2.0
        assert row["bytes_on_disk"] > row["bytes"] == 4 * row["parameters"]
        ticket, said = tickets.load_ticket(bench.folder / "tickets" / row["ticket"])
        net = nets.from_json(said["net"])
        assert net.widths == (4, 3) and int(ticket.rewind_step) in (40, 80, 70)
        assert (said["after"], said["seed"]) == (row["after"], row["seed"])
    cuts = {(row["method"], row["seed"]): row["cut_accuracy"] for row in made}
    assert list(cuts.values()) == [0.1, 0.2, 0.3, 0.4]
    places = {
        (row["after"], row["seed"]): {r["ticket"] for r in made if r["after"] == row["after"]
                                      and r["seed"] == row["seed"]}
        for row in made
    }  # fmt: skip
    assert {key[0]: len(found) for key, found in places.items()} == {
        "rewind": 2, "scratch_e": 1, "scratch_b": 1, "finetune": 2,
    }  # fmt: skip
    (dense,) = {
        tuple(row[name] for name in ("parameters", "multiply_adds", "milliseconds_1", "units/fc1"))
        for row in driver.dense_rows(
            bench.folder, list(bench.groups), bench.dense, next(iter(bench.groups.values()))[0].gain
        )
    }
    assert dense == (6380 + 24, 6380, 3.0, 8)


def test_what_is_done_is_not_done_again_and_a_part_of_it_is(bench):
    first = bench.made
    assert bench.rows() == first and not bench.begun
    (place,) = bench.groups
    part = bench.folder / "nets" / place
    lost = [row for row in rows.read_metrics(part) if row["phase"] == "scratch_b-00-rows"][1]
    rows.keep_metrics(part, lambda row: row != lost)  # as if killed while rows were written
    assert bench.rows() == first and list(bench.begun) == ["scratch_b-01"]
    assert [entry.name["seed"] for entry in bench.begun["scratch_b-01"][1]] == [4]
    assert bench.rows() == first and not bench.begun


def test_small_nets_have_the_penalty_of_the_dense_one_but_for_fine_tuning(bench):
    train = dataclasses.replace(TRAIN, penalty="group_lasso", penalty_strength=0.25)
    plan, member = bench.plan._replace(train=train), next(iter(bench.groups.values()))[0]
    params = member.small.trained.params
    batch = jax.tree.map(lambda a: a[:2], bench.problem.dataset.train)
    small = {after: driver._smaller(bench.problem, member, plan, after) for after in AFTERS}
    seen = {
        after: one.recipe.loss(params, {}, batch, jax.random.key(0))[0]
        for after, one in small.items()
    }
    asked = 0.25 * group_lasso(params, "out")
    assert small["finetune"].penalty is None
    for after in ("rewind", "scratch_e", "scratch_b"):
        np.testing.assert_allclose(small[after].penalty(params), asked, rtol=1e-6)
        np.testing.assert_allclose(seen[after] - seen["finetune"], asked, rtol=1e-4)


def test_right_after_the_cut_what_the_mask_switches_off_is_off(bench, monkeypatch):
    member = next(iter(bench.groups.values()))[0]
    whole = member.small.trained
    mask = whole.mask | {"fc1": {**whole.mask["fc1"], "bias": jnp.arange(4) > 0}}
    member = member._replace(small=member.small._replace(trained=whole._replace(mask=mask)))
    seen = []
    monkeypatch.setattr(driver, "accuracies", lambda *given: seen.append(given[1]) or [0.5])
    assert driver._cut_accuracies(bench.session, [member]) == [0.5]
    expected = np.where(np.arange(4) > 0, whole.params["fc1"]["bias"], 0)
    np.testing.assert_array_equal(seen[0]["fc1"]["bias"], expected[None])
    np.testing.assert_array_equal(seen[0]["fc2"]["kernel"][0], whole.params["fc2"]["kernel"])


class Mixing(nn.Module):
    """A net whose units an operation mixes."""

    widths: tuple[int, ...] = (4,)

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.widths[0], name="fc1")(x.reshape(x.shape[0], -1))
        return nn.Dense(10, name="out")(jnp.cumsum(x, -1))


def test_a_net_whose_units_can_not_be_traced_is_refused():
    with pytest.raises(UserError, match=r"the units of Mixing can't be traced: .*cumsum"):
        filter_cuts.plan_cuts(CUT, AFTER, TRAIN, small_problem(Mixing()))


def test_ranking_over_layers_needs_a_floor(bench):
    bad = dataclasses.replace(CUT, ranking="over_layers", floor=0)
    with pytest.raises(UserError, match="--ranking=over_layers --floor=0: a layer may be emptied"):
        filter_cuts.plan_cuts(bad, AFTER, TRAIN, bench.problem)


def test_differences_are_paired_by_seed():
    accuracies = {"rewind": (0.91, 0.95), "scratch_e": (0.90, 0.92)}
    made = [
        {
            **{"method": method, "rate": 0.5, "after": after, "seed": i},
            "trained_accuracy": accuracy - (loss if after == "rewind" else 0),
            "ticket": f"{method if after == 'rewind' else after}-{i}",
        }
        for method, loss in (("random", 0.05), ("l1", 0.0))
        for after, values in accuracies.items()
        for i, accuracy in enumerate(values)
    ]
    lines = [line.split() for line in structured_tables.worth(made).splitlines()]
    assert ["l1:", "rewind", "-", "scratch_e", "0.5", "+2.00", "±", "12.71", "2"] in lines
    assert ["rewind:", "l1", "-", "random", "0.5", "+5.00", "±", "0.00", "2"] in lines
    assert ["random:", "rewind", "-", "scratch_e", "0.5", "-3.00", "±", "12.71", "2"] in lines
    assert len(lines) == 4  # from scratch, both methods have the same nets


# --- a run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluate():
    """Test accuracy of a saved ticket under a mask, by a program of its own for each net."""
    data = build(NetSettings(model="lenet5_29k"), TrainSettings(), "", False)

    def accuracy(net, params, stats):
        model = nets.functional(net.clone(conv="lax"), MNIST)
        given = model, data.recipe.prepare, params, stats, data.dataset.test
        return float(training.evaluate(*given)["accuracy"])

    return accuracy


def test_a_run_has_a_row_for_each_method_share_training_and_seed(smokes):
    made = summary(smokes("structured_pruning")[0])
    keys = [(row["method"], row["after"], row["rate"], row["seed"]) for row in made]
    dense = [("dense", "", "1.0", number) for number in "01"]
    cut = [
        (method, after, "0.5", number)
        for method in ("random", "l1", "soft_fpgm")
        for after in ("scratch_e", "finetune")
        for number in "01"
    ]
    assert keys == dense + cut
    assert {row["units/fc1"] for row in made[2:]} == {"10"} and made[0]["units/fc1"] == "20"


def test_right_after_the_cut_the_small_net_is_the_dense_one_without_its_units(smokes, evaluate):
    folder = smokes("structured_pruning")[0]
    places = json.loads((folder / "dense.json").read_text())
    ticket, said = tickets.load_ticket(places["0"])
    net = nets.from_json(said["net"])
    units = {}
    for layer in ("conv1", "conv2", "fc1"):
        norms = np.abs(ticket.params[layer]["kernel"]).reshape(
            -1, ticket.params[layer]["bias"].size
        )
        norms = norms.sum(0)
        units[layer] = norms >= np.sort(norms)[-len(norms) // 2]
        assert units[layer].sum() == len(norms) // 2
    off = masks.expand(units, nets.wiring(net, MNIST), ticket.params)
    found = evaluate(net, masks.apply(off, ticket.params), ticket.stats)
    (expected,) = {
        float(row["cut_accuracy"])
        for row in summary(folder)
        if (row["method"], row["seed"]) == ("l1", "0")
    }
    assert found == pytest.approx(expected, abs=2e-3)


def test_tickets_of_small_nets_load_and_are_as_accurate_as_their_rows_say(smokes, evaluate):
    folder = smokes("structured_pruning")[0]
    for row in [r for r in summary(folder) if r["seed"] == "1" and r["method"] == "l1"]:
        ticket, said = tickets.load_ticket(folder / "tickets" / row["ticket"])
        net = nets.from_json(said["net"])
        assert net.widths == (2, 3, 10)
        found = evaluate(net, masks.apply(ticket.mask, ticket.params), ticket.stats)
        assert found == pytest.approx(float(row["trained_accuracy"]), abs=2e-3)
    assert (folder / "sizes.csv").read_text().startswith("net,widths,quantity,before,after,ratio")


def test_what_is_trained_from_scratch_is_one_net_for_all_methods(smokes):
    found = {}
    for row in summary(smokes("structured_pruning")[0]):
        found.setdefault((row["after"], row["seed"]), set()).add(row["ticket"])
    for number in "01":
        assert len(found["scratch_e", number]) == 1 and len(found["finetune", number]) == 3


def test_a_softly_pruned_net_loses_nothing_when_its_zeroed_filters_go(smokes, evaluate):
    folder = smokes("structured_pruning")[0]
    for number in "01":
        ticket, said = tickets.load_ticket(
            folder / "tickets" / f"soft_fpgm-rate0.5-whole-seed{number}"
        )
        net, params = nets.from_json(said["net"]), ticket.params
        for layer, keep in (("conv1", 2), ("conv2", 3), ("fc1", 10)):
            kernel = np.asarray(params[layer]["kernel"])
            on = (kernel.reshape(-1, kernel.shape[-1]) != 0).any(0)
            assert on.sum() == keep and not np.asarray(params[layer]["bias"])[~on].any()
        (expected,) = {
            float(row["cut_accuracy"])
            for row in summary(folder)
            if (row["method"], row["seed"]) == ("soft_fpgm", number)
        }
        assert evaluate(net, params, ticket.stats) == pytest.approx(expected, abs=2e-3)


def test_a_filter_search_keeps_its_share_and_rewinds_to_the_first_weights(smokes):
    folder = smokes("filter_search")[0]
    made = [row for row in summary(folder) if row["method"] != "dense"]
    searches = ("annealed",)
    found = {*searches, *(f"{name}_at_1" for name in searches)}
    methods = {"random", *found, *(f"{name}_shuffled" for name in found)}
    assert sorted((row["method"], row["seed"]) for row in made) == sorted(
        (method, "0") for method in methods
    )
    for row in made:
        assert [row[f"units/{name}"] for name in ("conv1", "conv2", "fc1")] == ["2", "3", "10"]
        for name in ("search_loss", "search_validation_loss"):
            assert (float(row[name] or 0) > 0) == (row["method"] in found)


def test_what_a_search_over_later_weights_found_begins_with_the_first_ones(bench):
    one = bench.seeds[1]
    later = one._replace(params=jax.tree.map(lambda w: w + 1, one.params), step=30)
    where = search_domain("units", "global", one.params, (), bench.plan.graph.wiring)
    bits = jnp.arange(14) % 3 > 0
    found = FoundTicket(0.5, later, bits, bits, {})
    checked = annealing_runs.CheckedAnnealing(
        annealed_settings.AnnealingSettings(), where, None, (0.5,)
    )
    choice = unit_search.choice("annealed_at_3", found, checked, bench.seeds, bench.dense)
    assert choice.seed is one and choice.method == "annealed_at_3"
    np.testing.assert_array_equal(choice.units["fc1"], bits[:8])
    np.testing.assert_array_equal(choice.units["fc2"], bits[8:])
    trained = runs.take(bench.dense.params, 1)
    jax.tree.map(np.testing.assert_array_equal, choice.params, trained)
    ((member,),) = filter_cuts.cut(bench.plan, bench.problem, [choice]).values()
    start = member.small.first
    kept = np.asarray(one.params["fc1"]["kernel"])[:, np.asarray(bits[:8])]
    np.testing.assert_array_equal(start.params["fc1"]["kernel"], kept)
    assert int(start.rewind_step) == 0


def test_filters_are_searched_for_where_each_is_a_bit_and_within_the_training(bench):
    unit_search._check_groups(bench.plan.graph, "lenet300_100")
    shared = graph.trace(nets.make("resnet20"), (32, 32, 3))
    with pytest.raises(UserError, match=r"--model=resnet20: layers share units .* another net"):
        unit_search._check_groups(shared, "resnet20")
    assert unit_search._epochs(("init", "5"), 5) == [0, 5]
    with pytest.raises(UserError, match="--weights_from=20: the training has only 5 whole epochs"):
        unit_search._epochs(("init", "20"), 5)


def test_a_search_over_fields_keeps_to_the_budget_and_says_what_it_reached(bench, tmp_path):
    traced = bench.plan.graph
    dense = nets.multiply_adds(bench.problem.net, MNIST)
    question = unit_search.Question(
        granularity="unit_fields",
        energies=("trainability",),
        search_steps=20,
        search_images=20,
        search_train_steps=1,
    )
    shares = (0.6, 0.3)
    problem = bench.problem._replace(wiring=traced.wiring)
    cut = CutSettings(methods=("random",), budget=shares, ranking="over_layers")
    plan = filter_cuts.plan_cuts(cut, AFTER, TRAIN, problem)
    checked = unit_search.check_searches(question, plan, problem, 3, ONE)["trainability"]
    session = bench.session._replace(folder=tmp_path, problem=problem)
    found = annealing_runs.run_annealing(session, "annealed", checked, chains=1)
    assert [(one.density, one.seed) for one in found] == [
        (share, one) for share in shares for one in bench.seeds
    ]
    for one in found:
        made = unit_search.choice("annealed", one, checked, bench.seeds, bench.dense)
        spent = unit_selection.multiply_adds(traced, dense, made.units) / sum(dense.values())
        assert one.density - 0.15 < spent <= one.density  # a unit of eight is 0.12
        assert made.columns == one.columns and one.columns["search_loss"] > 0
    with pytest.raises(UserError, match=r"a budget of 0.01 .* the smallest net takes 0\.12"):
        unit_search.check_searches(question, plan._replace(shares=(0.01,)), problem, 3, ONE)
    bits = dataclasses.replace(question, granularity="units")
    with pytest.raises(UserError, match="granularity=units: a budget of multiply-adds needs unit_"):
        unit_search.check_searches(bits, plan, problem, 3, ONE)


def test_a_search_is_called_by_its_energy_and_its_weights():
    names = [unit_search._name(*given) for given in (("fixed", 0), ("trainability", 3))]
    assert names == ["annealed", "annealed_trainability_at_3"]


def test_a_shuffled_choice_is_random_units_with_the_same_counts(bench):
    traced = bench.plan.graph
    draw = np.random.default_rng(0)
    units = {group.name: draw.random(group.size) < 0.5 for group in traced.wiring}
    found = Choice("annealed", 0.5, bench.seeds[0], {}, {}, units, {})
    first, other = (
        unit_search.shuffled(found._replace(seed=one), traced) for one in bench.seeds[:2]
    )
    assert first.method == "annealed_shuffled" and first.seed is bench.seeds[0]
    for name, mask in units.items():
        assert first.units[name].sum() == other.units[name].sum() == mask.sum()
    assert any((first.units[name] != mask).any() for name, mask in units.items())
    assert any((first.units[name] != other.units[name]).any() for name in units)


def test_searches_over_other_weights_find_other_units(smokes):
    rows_of = {row["method"]: row for row in summary(smokes("filter_search")[0])}
    assert rows_of["annealed"]["cut_accuracy"] != rows_of["annealed_at_1"]["cut_accuracy"]
