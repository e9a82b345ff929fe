"""Finders: budgets, what a search keeps, and that common random numbers are common."""

import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.harness import (
    annealed,
    annealed_settings,
    annealed_start,
    budgeted_search,
    rows,
    search_presets,
)
from experiments.harness.problem import build, on_device
from experiments.harness.search_presets import SEARCH_PRESETS
from experiments.harness.seeds import seed
from experiments.harness.session import Session
from experiments.harness.training_settings import NetSettings, TrainSettings
from experiments.sa_frontier import gate_runs
from experiments.sa_search import walks
from jaxtickets import losses, masks, runs, training
from jaxtickets.criteria import CRITERIA, Criterion, Evidence
from jaxtickets.recipes.search_domain import ChainInputs, mask_at
from jaxtickets.search import energies
from jaxtickets.types import Model, Split

KEY = jax.random.key(3)
IMAGE = (3, 3, 1)
PRUNABLE = ("a/kernel", "b/kernel")
BATCH, HELD_OUT, VALIDATION = 4, 8, 6
KEEP = 29  # of 72
ONE = runs.axis("map", 1, jax.local_devices()[:1])  # each compiles for itself


def initial(key):
    first, second = jax.random.split(key)
    return {
        "a": {"kernel": jax.random.normal(first, (9, 6))},
        "b": {"kernel": jax.random.normal(second, (6, 3))},
    }, {}


def fixed_scores(key, evidence):
    raise AssertionError("what scores cost is known without them")


def net(passed=None, each=1):
    """Two layers; `passed` is told the examples of every call, three times those of a gradient.

    Gradients are taken in training mode; where `each` is 3, in evaluation mode too.
    """

    def apply(params, stats, images, key=None, train=False):
        if passed is not None:
            worth = images.shape[0] * (3 if train else each)
            jax.debug.callback(lambda: passed.append(worth))
        hidden = jax.nn.relu(images.reshape(len(images), -1) @ params["a"]["kernel"])
        return hidden @ params["b"]["kernel"], stats

    return Model(initial, apply)


def examples(key, *shape):
    images, labels = jax.random.split(key)
    drawn = jax.random.randint(images, (*shape, *IMAGE), 0, 256).astype(jnp.uint8)
    return Split(drawn, jax.random.randint(labels, shape, 0, 3))


def prepared(images):
    return jnp.asarray(images, jnp.float32) / 255


def parts(name, phase, passed=None, seed=0):
    """A phase of a search on the net above: its search, row, data and ground."""
    model = net(passed)
    loss = losses.classification(model, prepared)
    recipe = training.Recipe(model, loss, lambda hyper: optax.sgd(0.1), prepared, None, BATCH, 1)
    params, stats = initial(KEY)
    about = Evidence(
        params,
        params,
        stats,
        masks.ones(params),
        examples(KEY, 2, 10),
        loss,
        net(passed, 3),
        prepared,
    )
    settings = search_presets.settings(name, phase, HELD_OUT, 2)
    annealed_settings.check_search(settings)
    where = annealed.domain_of(settings, params, PRUNABLE, (), IMAGE)
    key = jax.random.key(seed)
    bits = annealed_start.first_bits(settings, key, where.space, 0.4, about)
    most = annealed_start.largest_swap(settings, where.space, bits[None])
    ticks = annealed_start.step_plans(settings, KEEP, most)
    row = ChainInputs(key, KEY, params, stats, bits, ticks)
    if where.fields is not None:
        features, start = annealed_start.first_field(settings, key, where, about)
        row = ChainInputs(key, KEY, params, stats, start, ticks, features, jnp.int32(KEEP))
    split = examples(jax.random.key(1), HELD_OUT + 4 * BATCH), examples(KEY, VALIDATION)
    sight = annealed.search_data(settings, prepared, *split)
    made = annealed.build(settings, recipe, optax.sgd(0.1), where, PRUNABLE, most)
    return made, row, sight, where


def search(name, phase, passed=None, seed=0):
    """A phase of a search on the net above: its end, its row, its ground."""
    made, row, sight, where = parts(name, phase, passed, seed)

    @jax.jit
    def run(row, sight):
        def advance(look, chain):
            return made.chunk(row, chain, look * phase.chunk, sight)[0]

        begin = made.begin(row, sight)
        return jax.lax.fori_loop(0, phase.steps // phase.chunk, advance, begin)

    chain = run(row, sight)
    jax.effects_barrier()
    return chain, row, where


@pytest.mark.parametrize("name", SEARCH_PRESETS)
def test_a_search_costs_what_its_phase_says_and_keeps_the_count(name):
    passed = []
    begin, graded = search_presets.start_cost(name, 20, 3), search_presets.single_chain(name)
    how = begin, graded, search_presets.replaced_share(name)
    phase = search_presets.phases(5000, 1, 1, 2, BATCH, HELD_OUT, VALIDATION, *how)[0]
    chain, row, where = search(name, phase, passed)
    unseen = 2 * HELD_OUT * (phase.steps + 1) if graded else 0  # a gradient in evaluation mode
    assert sum(passed) + unseen == phase.cost <= 5000
    settings = search_presets.settings(name, phase, HELD_OUT, 2)
    counted = walks.forward_passes(settings, 1, BATCH, HELD_OUT, VALIDATION, begin)
    assert counted == phase.cost
    mask = mask_at(where, 2, row, chain.chosen)
    kept = masks.counts(mask, PRUNABLE)
    assert sum(map(int, kept.values())) == KEEP
    assert min(map(int, kept.values())) >= 2
    assert float(chain.state.best_energy) <= float(chain.state.energy)
    assert np.isfinite(chain.chosen_score)


def test_a_population_costs_what_its_phase_says_children_included():
    passed = []
    seen = BATCH, HELD_OUT, VALIDATION, 0, False, search_presets.replaced_share("genetic")
    phase = search_presets.phases(3000, 1, 4, 2, *seen)[0]
    assert (phase.chains, phase.chunk) == (4, 1) and phase.steps > search_presets.EVALUATIONS
    made, row, sight, _ = parts("genetic", phase, passed)
    rows = runs.stack([row._replace(key=key) for key in jax.random.split(KEY, 4)])

    @jax.jit
    def run(rows, sight):
        def advance(step, chains):
            chains = made.interaction.interact(row, chains, step, sight)
            return jax.lax.map(lambda pair: made.chunk(*pair, step, sight)[0], (rows, chains))

        chains = made.interaction.begin(jax.lax.map(lambda row: made.begin(row, sight), rows))
        chains = jax.lax.map(lambda pair: made.chunk(*pair, 0, sight)[0], (rows, chains))
        return jax.lax.fori_loop(1, phase.steps, advance, chains)

    jax.block_until_ready(run(rows, sight))
    jax.effects_barrier()
    assert sum(passed) == phase.cost <= 3000
    more = search_presets.phases(3000 + phase.cost, 1, 4, 2, *seen)[0]
    assert more.steps > phase.steps
    with pytest.raises(ValueError, match="too small for 1 phases of 4 chains"):
        search_presets.phases(1000, 1, 4, 2, *seen)


def test_equal_chains_are_equal_and_others_are_not():
    phase = search_presets.phases(3000, 1, 1, 2, BATCH, HELD_OUT, VALIDATION)[0]
    one, again, other = (search("annealed_fields", phase, seed=s)[0] for s in (0, 0, 1))
    assert float(one.state.best_energy) == float(again.state.best_energy)
    assert float(one.state.best_energy) != float(other.state.best_energy)


@pytest.mark.parametrize("budget", [20_000, 50_000, 200_001])
def test_phases_share_the_budget_and_spend_nearly_all_of_it(budget):
    made = search_presets.phases(budget, 3, 8, 2, BATCH, HELD_OUT, VALIDATION)
    assert [phase.chains for phase in made] == [8, 4, 2]
    assert [phase.train_steps for phase in made] == [2, 4, 8]
    assert all(phase.steps == search_presets.EVALUATIONS * phase.chunk for phase in made)
    spent = sum(phase.cost for phase in made)
    step = [
        phase.chains * search_presets.EVALUATIONS * (3 * phase.train_steps * BATCH + HELD_OUT)
        for phase in made
    ]
    assert budget - sum(step) - 3 * 8 <= spent <= budget


def test_too_small_a_budget_is_refused_with_what_it_takes():
    with pytest.raises(ValueError, match=r"too small for 2 phases .* at least"):
        search_presets.phases(100, 2, 4, 5, BATCH, HELD_OUT, VALIDATION)
    with pytest.raises(ValueError, match="is too small") as refused:
        search_presets.phases(3000, 2, 4, 2, BATCH, HELD_OUT, VALIDATION)
    least = int(str(refused.value).split(": ")[1].split()[0])
    search_presets.phases(least, 2, 4, 2, BATCH, HELD_OUT, VALIDATION)


def test_the_best_of_each_group_survive():
    scores = np.array([3.0, 1.0, 2.0, 0.5, 0.7, 0.6])
    groups = np.array([7, 7, 7, 4, 4, 4])
    assert search_presets.survivors(scores, groups, 2).tolist() == [1, 2, 3, 5]


def test_random_search_draws_every_layer_of_a_mask_anew():
    phase = search_presets.phases(20_000, 1, 1, 2, BATCH, HELD_OUT, VALIDATION)[0]
    chain, row, where = search("random_search", phase)
    parts = [np.split(np.asarray(b), where.space.starts[1:]) for b in (row.start, chain.state.best)]
    for before, after in zip(*parts, strict=True):
        assert before.sum() == after.sum()
        assert (before != after).any()


# --- polishing -----------------------------------------------------------------------------------


def test_polishing_takes_what_is_left_of_the_budget_and_no_more():
    images = 2000
    each = 4 * images // 5
    seen = images, 70
    least = (
        search_presets.EVALUATIONS + search_presets.BURN_IN + 1
    ) * each + search_presets.EVALUATIONS * 70
    for budget in (least, least + 5, least + search_presets.EVALUATIONS * each):
        settings, cost = search_presets.polish(budget, *seen)
        assert settings.images == images // 5  # a gate learns from the others
        assert settings.steps == search_presets.EVALUATIONS * (
            1 + (budget - least) // (search_presets.EVALUATIONS * each)
        )
        assert cost == least + (settings.steps - search_presets.EVALUATIONS) * each <= budget
    assert search_presets.polish(10**9, 10**6, 70).settings.images == search_presets.POLISH_IMAGES
    with pytest.raises(ValueError, match=f"at least {least} forward passes, {least - 1} are left"):
        search_presets.polish(least - 1, *seen)
    with pytest.raises(ValueError, match="needs at least 5 training images"):
        search_presets.polish(10**9, 4, 70)


def test_a_criterion_costs_what_its_record_says(monkeypatch):
    train = TrainSettings(iterations=70, look_every=70, batch_size=10)
    problem = build(NetSettings(model="lenet300_100"), train, "", False)
    own = {
        "first": Criterion(fixed_scores, "initial", cost=2, cost_per_class=3, rounds=4),
        "last": Criterion(fixed_scores, "trained", cost=2),
    }
    for name, criterion in own.items():
        monkeypatch.setitem(CRITERIA, name, criterion)
    dense = 3 * 70 * 10
    expected = {"first": 4 * (2 + 30) * 1000, "last": dense, "inverted_first": 4 * 32 * 1000}
    expected |= {"initial_last": 2000, "random": 0, "inverted_random": 0, "snip": 3000}
    expected |= {"grasp": 6000, "synflow": 0, "obd": dense, "initial_obd": 30_000}
    assert {name: budgeted_search.price(problem, name) for name in expected} == expected


def test_a_gate_goes_on_from_its_checkpoint_to_the_same_masks(tmp_path):
    net = NetSettings(
        model="lenet300_100", widths="60,40", use_bias=False, initializer="kaiming_normal"
    )
    train = TrainSettings(optimizer="momentum", learning_rate=0.1, iterations=54, look_every=27)
    problem = build(net, train, "", False)
    seeds = [seed(problem, number) for number in (0, 1)]
    session = Session(tmp_path, problem, ONE, on_device(problem.dataset), seeds, 0.0)
    task = budgeted_search.Task(session, "gate", density=0.1, floor=1)
    first = gate_runs.gated(task, "gradual_edge_popup")
    *_, before, last = sorted((tmp_path / "checkpoints" / "gate").iterdir())
    assert (before.name, last.name) == ("00000001", "00000002")
    shutil.rmtree(last)
    again = gate_runs.gated(task, "gradual_edge_popup")
    assert last.exists()
    for one, other in zip(first, again, strict=True):
        chex.assert_trees_all_equal((one.mask, one.params), (other.mask, other.params))
    steps = [(row["seed"], row["step"]) for row in rows.read_metrics(tmp_path)]
    assert sorted(steps) == [(0, 27), (0, 54), (1, 27), (1, 54)]


def test_a_polished_mask_keeps_its_counts_and_classifies_better(tmp_path):
    net = NetSettings(
        model="lenet300_100", widths="60,40", use_bias=False, initializer="kaiming_normal"
    )
    train = TrainSettings(optimizer="momentum", learning_rate=0.1, iterations=70, look_every=70)
    problem = build(net, train, "", False)
    seeds = [seed(problem, number) for number in (0, 1)]
    data = on_device(problem.dataset)
    budget = 5.0
    images = gate_runs.polish_plan(problem, budget).settings.images
    seen, unseen = gate_runs.parted(data.train, images)
    assert len(unseen.labels) == images and len(seen.labels) == len(data.train.labels) - images
    session = Session(tmp_path, problem, ONE, data, seeds, 60.0)
    task = budgeted_search.Task(session, "polish", density=0.2, floor=1)
    apart = session._replace(data=data._replace(train=seen))
    alone = task._replace(session=apart, label="gate")
    begun = gate_runs.gated(alone, "edge_popup")
    found = gate_runs.polished(task, "edge_popup", budget)
    for one, before in zip(found, begun, strict=True):
        assert one.columns["forward_passes"] <= budget * budgeted_search.dense_cost(problem)
        counts = (masks.counts(mask, problem.prunable) for mask in (one.mask, before.mask))
        assert len({tuple(map(int, kept.values())) for kept in counts}) == 1
        energy = energies.fixed(
            problem.recipe.model,
            one.params,
            {},
            problem.recipe.prepare(unseen.images),
            unseen.labels,
            energies.MEASURES["cross_entropy"],
        )
        lower, higher = (float(energy.evaluate(KEY, mask)) for mask in (one.mask, before.mask))
        assert one.columns["search_loss"] - 1e-5 <= lower < higher  # chosen by validation
