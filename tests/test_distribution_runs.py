"""Searches that learn a distribution of masks: their budget, their counts, and what they lower."""

import jax
import numpy as np
import pytest
from counted import counted

from experiments.harness import rows
from experiments.harness.budgeted_search import FindSettings, Task, dense_cost
from experiments.harness.problem import build, on_device
from experiments.harness.seeds import seed
from experiments.harness.session import Session
from experiments.harness.training_settings import NetSettings, TrainSettings
from experiments.sa_frontier import distribution_runs
from experiments.sa_frontier.distribution_runs import DISTRIBUTIONS
from jaxtickets import masks, runs
from jaxtickets.io.errors import UserError

FIND = FindSettings(train_steps=4, held_out=100)


def problem_of(passed):
    net = NetSettings(model="lenet300_100", widths="12,8", train_images=400, use_bias=False)
    train = TrainSettings(optimizer="sgd", learning_rate=0.1, epochs=8, batch_size=50)
    return counted(build(net, train, "", False), passed), train


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_search_costs_what_its_plan_says_and_keeps_the_counts(name, tmp_path):
    passed = []
    problem, train = problem_of(passed)
    one = runs.axis("map", 1, jax.local_devices()[:1])
    data = on_device(problem.dataset)
    session = Session(tmp_path, problem, one, data, [seed(problem, 0)], 60.0)
    task = Task(session, name, density=0.2, floor=30)
    budget = 9.0
    (found,) = distribution_runs.found(task, DISTRIBUTIONS[name], FIND, train, budget)
    jax.effects_barrier()
    assert sum(passed) == found.columns["forward_passes"]
    planned = distribution_runs.plan(FIND, problem, DISTRIBUTIONS[name], budget)
    step = 4 * DISTRIBUTIONS[name].samples * (3 * 4 * 50 + 100)
    assert planned.cost == sum(passed) <= budget * dense_cost(problem) < sum(passed) + step
    kept = masks.counts(found.mask, problem.prunable)
    assert sum(map(int, kept.values())) == round(0.2 * (784 * 12 + 12 * 8 + 80))
    assert min(map(int, kept.values())) >= 30
    seen = [row for row in rows.read_metrics(tmp_path) if row["phase"] == name]
    best = [row["best_energy"] for row in seen]
    assert len(seen) == 4 and best == sorted(best, reverse=True) and best[-1] < seen[0]["energy"]
    # the likeliest mask's energy comes after the last row
    assert found.columns["search_loss"] <= best[-1] + 1e-5
    assert np.isfinite(found.columns["search_validation_loss"])


def test_too_small_a_budget_is_refused_with_what_it_takes():
    problem, _ = problem_of([])
    search = DISTRIBUTIONS["cross_entropy_layers"]
    with pytest.raises(UserError, match="4 steps of 8 samples and 4 training steps") as refused:
        distribution_runs.plan(FIND, problem, search, 0.5)
    least = float(str(refused.value).split("give ")[1].split()[0])
    assert distribution_runs.plan(FIND, problem, search, least).chunk == 1
