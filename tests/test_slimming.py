"""Network slimming: what each pass trains, which channels it keeps, and what its rows say."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import summary

from experiments.harness import rows
from experiments.harness.dense_store import Dense
from experiments.harness.problem import build
from experiments.harness.seeds import mask_key, seed, training_key
from experiments.harness.session import Session
from experiments.harness.training_settings import NetSettings, TrainSettings
from experiments.slimming import slimming_runs
from experiments.slimming.slimming_runs import SlimSettings, Sparse
from jaxtickets import masks, nets, runs
from jaxtickets.compress.report import size
from jaxtickets.io import tickets
from jaxtickets.types import Ticket

MNIST = (28, 28, 1)
NORMS = {"conv1": "bn1", "conv2": "bn2", "fc1": "fc1_bn"}
TRAIN = TrainSettings(batch_size=500, epochs=1, penalty="scales")


def filled(shapes, number):
    """Arrays of these shapes, without a program."""
    draw = np.random.default_rng(number)
    return jax.tree.map(lambda a: jnp.asarray(draw.uniform(0.5, 1.5, a.shape), a.dtype), shapes)


class Bench:
    """A small LeNet-5 at two seeds, as if it had been trained with the penalty."""

    def __init__(self):
        net = NetSettings(widths="4,6,20", batch_norm=True)
        self.problem = build(net, TRAIN, "", False)
        self.slim = SlimSettings(rates=(0.5,), passes=2)
        self.plan = slimming_runs.plan_passes(self.slim, TRAIN, self.problem)
        init = self.problem.recipe.model.init
        shapes = jax.eval_shape(init, jax.random.key(0))
        with pytest.MonkeyPatch.context() as patch:  # initialisation would be compiled
            patch.setattr(jax, "jit", lambda fn: lambda key: filled(shapes, 9))
            self.seeds = [seed(self.problem, number) for number in (3, 4)]
        ends = [filled(shapes, number) for number in (0, 1)]
        self.dense = Dense(*runs.stack(ends), [], {})
        self.sparse = [
            Sparse(one, self.problem.net, *end, 0.5)
            for one, end in zip(self.seeds, ends, strict=True)
        ]

    def cut(self, sparse):
        session = Session(None, self.problem, None, self.problem.dataset, self.seeds, 60.0)
        chosen = slimming_runs.choose(session, self.plan, sparse, 0.5, self.dense)
        return [member for members in chosen.values() for member in members]


@pytest.fixture(scope="module")
def bench():
    return Bench()


def gammas(params):
    return {name: np.abs(np.asarray(params[norm]["scale"])) for name, norm in NORMS.items()}


def largest(scales, keep):
    """How many of each layer are among the largest of all; layers keep their best at least."""
    sure = np.concatenate([values == values.max() for values in scales.values()])
    every = np.concatenate(list(scales.values()))
    chosen = np.argsort(np.where(sure, np.inf, every))[-keep:]
    ends = np.cumsum([len(values) for values in scales.values()])
    layer = np.searchsorted(ends, chosen, side="right")
    return {name: int((layer == i).sum()) for i, name in enumerate(scales)}


def test_a_pass_keeps_its_share_of_the_channels_it_finds_and_gains_over_the_dense_net(bench):
    first = bench.cut(bench.sparse)
    again = []
    for m in first:
        begin, end = m.small.first, m.small.trained
        one = m.seed._replace(params=begin.params, stats=begin.stats)
        again.append(Sparse(one, m.net, end.params, end.stats, 0.5))
    dense = bench.sparse[0]
    whole = size(
        Ticket(dense.params, dense.stats, masks.ones(dense.params), np.int32(0)),
        nets.multiply_adds(bench.problem.net, MNIST),
    )
    sizes = dict(zip(NORMS, bench.problem.net.widths, strict=True))
    for found, before, keep in ((first, bench.sparse, 15), (bench.cut(again), again, 8)):
        ends = {one.seed.number: one for one in before}
        assert sorted(m.seed.number for m in found) == [3, 4]
        for member in found:
            expected = largest(gammas(ends[member.seed.number].params), keep)
            units = member.gain.units
            assert {name: stay for name, (stay, _) in units.items()} == expected
            assert {name: before for name, (_, before) in units.items()} == sizes
            assert member.net.widths == tuple(expected.values())
            assert member.gain.before == whole
            params = member.small.trained.params
            assert member.gain.after.parameters == sum(a.size for a in jax.tree.leaves(params))


def test_control_trains_without_a_penalty_and_others_with_theirs_at_any_width(bench):
    assert slimming_runs._with_strength(TRAIN, 0.0) == dataclasses.replace(TRAIN, penalty="")
    small = bench.problem.net.clone(widths=(2, 3, 9))
    model = nets.functional(small, MNIST)
    params, stats = filled(jax.eval_shape(model.init, jax.random.key(0)), 5)
    batch = jax.tree.map(lambda a: a[:2], bench.problem.dataset.train)
    seen = []
    for strength in (0.0, 0.25):
        train = slimming_runs._with_strength(TRAIN, strength)
        problem = slimming_runs.penalised(bench.problem, small, train)
        assert problem.net.widths == small.widths
        seen.append(jax.jit(problem.recipe.loss)(params, stats, batch, jax.random.key(0))[0])
    total = sum(values.sum() for values in gammas(params).values())
    np.testing.assert_allclose(seen[1] - seen[0], 0.25 * total, rtol=1e-4)


def test_passes_have_a_rate_each_or_one_for_all():
    assert slimming_runs.rates(SlimSettings(rates=(0.5,), passes=3)) == (0.5,) * 3
    assert slimming_runs.rates(SlimSettings(rates=(0.7, 0.5), passes=2)) == (0.7, 0.5)


def test_the_next_pass_begins_where_the_last_has_ended_with_keys_of_its_own(bench, tmp_path):
    one = bench.seeds[0]
    end = jax.tree.map(lambda a: a + 1, one.params)
    ticket = Ticket(end, one.stats, masks.ones(end), np.int32(7))
    about = {"net": nets.to_json(bench.problem.net)}
    tickets.save_ticket(tmp_path / "tickets" / "tuned", ticket, about)
    second, net = slimming_runs._next(tmp_path, one, {"ticket": "tuned"})
    third, _ = slimming_runs._next(tmp_path, second, {"ticket": "tuned"})
    assert net == bench.problem.net and (second.number, second.step) == (one.number, 0)
    jax.tree.map(np.testing.assert_array_equal, second.params, end)
    keys = [jax.random.key_data(k).tolist() for s in (one, second, third)
            for k in (training_key(s), training_key(s, 1), mask_key(s, "random", 0.5))]  # fmt: skip
    assert len({tuple(key) for key in keys}) == 9


# --- a run ---------------------------------------------------------------------------------------


def test_a_run_has_a_row_for_each_strength_pass_and_seed(smokes):
    made = summary(smokes("slimming")[0])
    assert [(row["strength"], row["pass"], row["seed"]) for row in made] == [
        ("0.001", number, "0") for number in "12"
    ]
    for row, total in zip(made, (15, 8), strict=True):
        assert sum(int(row[f"units/{name}"]) for name in NORMS) == total
        assert all(int(row[f"units/{name}"]) >= 1 for name in NORMS)
        assert 0 < float(row["multiply_adds_left"]) < 1 and float(row["speed_up_128"]) > 0
    assert all(int(made[1][f"units/{n}"]) <= int(made[0][f"units/{n}"]) for n in NORMS)


def test_each_pass_cuts_what_was_trained_last_by_its_scales(smokes):
    folder = smokes("slimming")[0]
    kept = [row for row in rows.read_metrics(folder) if row["phase"] == "scales"]
    for row in summary(folder):
        home, number = folder / f"strength-{float(row['strength']):g}", int(row["pass"])
        mine = {
            r["group"]: np.array(r["scales"])
            for r in kept
            if (r["strength"], r["pass"]) == (float(row["strength"]), number)
        }
        if number == 1:
            trained = json.loads((home / "dense.json").read_text())["0"]
        else:
            trained = home / "pass-2" / "tickets" / "sparse-seed0"
        ticket, said = tickets.load_ticket(trained)
        for name, values in gammas(ticket.params).items():
            np.testing.assert_array_equal(np.float32(mine[name]), values)
        total = sum(map(len, mine.values()))
        expected = largest(mine, round(total / 2))
        assert {name: int(row[f"units/{name}"]) for name in NORMS} == expected

        tuned, about = tickets.load_ticket(home / f"pass-{number}" / "tickets" / row["ticket"])
        net = nets.from_json(about["net"])
        assert net.widths == tuple(expected.values())
        assert int(row["parameters"]) == sum(a.size for a in jax.tree.leaves(tuned.params))
        if number == 1:
            before = net
        else:
            assert nets.from_json(said["net"]) == before
