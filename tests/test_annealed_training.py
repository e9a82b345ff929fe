"""Annealing of masks whose weights train: its limit, rejections, counts, chains, and its cost."""

from functools import partial

import commands
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from counted import counted

from experiments.harness import annealed_plan, annealed_trainings
from experiments.harness.annealed_variants import HOT, VARIANTS, Variant
from experiments.harness.budgeted_search import Task, dense_cost
from experiments.harness.problem import build as build_problem
from experiments.harness.problem import on_device
from experiments.harness.seeds import seed
from experiments.harness.session import Session
from experiments.harness.sparse_runs import EvolveSettings
from experiments.harness.training_settings import NetSettings, TrainSettings
from jaxtickets import losses, masks, nets, runs, training
from jaxtickets.data import batches
from jaxtickets.dynamic import granet
from jaxtickets.io.errors import UserError
from jaxtickets.recipes import annealed_training, trained_interactions
from jaxtickets.recipes.annealed_training import Rounds, TrainedChain, TrainedData
from jaxtickets.search import interacting_chains, space
from jaxtickets.search.acceptance import ACCEPTANCES, memoryless
from jaxtickets.search.annealing import State
from jaxtickets.training import Moves, Recipe, Splits
from jaxtickets.types import Split

KEY = jax.random.key(0)
# what is compiled without much optimisation is compiled sooner
QUICK = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
MODEL = nets.functional(nets.make("lenet300_100", widths=(12, 8)), (3, 3, 1))
ROUNDS, EVERY, IMAGES = 8, 3, 16
BEGIN, END = 150, 40
NEVER = memoryless(lambda key, temperature, energy, proposed, log_ratio: jnp.bool_(False))


def prepared(images):
    return jnp.asarray(images, jnp.float32) / 255


def data(n, key=KEY):
    images = jax.random.randint(key, (n, 3, 3, 1), 0, 256).astype(jnp.uint8)
    return Split(images, jnp.sum(images.reshape(n, -1)[:, :3] > 128, axis=1) % 3)


INNER = optax.sgd(0.1, momentum=0.9)
RECIPE = Recipe(
    MODEL, losses.classification(MODEL, prepared), lambda hyper: INNER, prepared, None, 8, EVERY
)
PARAMS, _ = MODEL.init(KEY)
PRUNABLE = masks.prunable(PARAMS)
SPACE = space.weights(PARAMS, PRUNABLE)
MASK = masks.random(KEY, PARAMS, PRUNABLE, BEGIN, 1)
DATA = TrainedData(data(64), data(32, jax.random.key(1)), data(24, jax.random.key(2)))


def chain(heat=0.0, key=KEY, end=END, temperature=0.01):
    plan = granet.plan(ROUNDS, BEGIN, end, floor=3)
    return TrainedChain(
        key=key,
        hyper=(),
        params=PARAMS,
        stats={},
        mask=MASK,
        moves=jax.tree.map(jnp.asarray, plan),
        drop_heat=jnp.float32(heat),
        grow_heat=jnp.float32(heat),
        temperatures=jnp.full(ROUNDS, temperature, jnp.float32),
    )


def search_of(accept=None, interaction=None, rounds=2):
    return annealed_training.build(
        RECIPE, PRUNABLE, Rounds(EVERY, IMAGES, rounds, floor=1, accept=accept), interaction
    )


def walked(search, inputs, rounds=2):
    """The chain after each chunk, and the infos of all rounds."""
    now, seen = QUICK(search.begin)(inputs, DATA), []
    step = QUICK(search.chunk)
    states = []
    for start in range(0, ROUNDS, rounds):
        now, info, _ = step(inputs, now, np.int32(start), DATA)
        states.append(now)
        seen.append(info)
    return states, jax.tree.map(lambda *leaves: np.concatenate(leaves), *seen)


def flat(state):
    return np.asarray(masks.flatten(state.mask, PRUNABLE))


def bits(leaf):
    is_key = jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def assert_same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(bits(x), bits(y)), a, b)


def test_without_heat_and_always_accepted_it_is_granets_training_bit_for_bit():
    plan = chain().moves

    def sparsify(inner, mask, fill, hyper):
        return granet.granet(inner, mask, PRUNABLE, plan, EVERY, 1, "global")

    recipe = RECIPE._replace(
        every=2 * EVERY, sparsify=sparsify, moves=Moves(EVERY, IMAGES), evaluations_per_test=0
    )
    splits = Splits(DATA.train, DATA.validation)
    wanted, seen = QUICK(partial(training.train, recipe, data=splits, steps=ROUNDS * EVERY))(
        key=KEY, hyper=(), params=PARAMS, stats={}, mask=MASK
    )
    states, _ = walked(search_of(), chain())
    end = states[-1].state.walk.state
    assert_same((end.params, end.mask), (wanted.state.params, wanted.state.mask))
    assert_same(end.opt_state.inner, wanted.state.opt_state.inner)
    assert int(end.step) == ROUNDS * EVERY
    np.testing.assert_allclose(states[-1].chosen_score, seen["loss"][-1], rtol=1e-6)
    hot = walked(search_of(), chain(heat=0.5))[0][-1].state.walk.state
    assert np.any(flat(hot) != flat(end))


@pytest.mark.parametrize("accept", [None, ACCEPTANCES["metropolis"], NEVER])
def test_counts_are_exact_after_every_round_and_what_is_pruned_is_zero(accept):
    inputs = chain(heat=0.3)
    states, info = walked(search_of(accept, rounds=1), inputs, rounds=1)
    ones = [BEGIN, *np.asarray(inputs.moves.ones)[:-1]]
    for at, one in enumerate(states):
        state = one.state.walk.state
        assert flat(state).sum() == ones[at]
        assert_same(state.params, masks.apply(state.mask, state.params))
        assert int(state.step) == (at + 1) * EVERY
    assert (info.accepted[0] and np.all(info.accepted[1:] == (accept is not NEVER))) or (
        accept is ACCEPTANCES["metropolis"]
    )
    held = np.asarray(states[-1].state.walk.held)
    last = int(np.argmax(np.asarray(ones) == END))
    assert held.max() == ROUNDS - last and held.sum() == (ROUNDS - last) * END


def test_a_rejection_leaves_mask_weights_and_moments_bit_for_bit_and_the_clock_goes_on():
    states, info = walked(search_of(NEVER, rounds=1), chain(heat=0.3, end=BEGIN), rounds=1)
    first, *others = (one.state.walk.state for one in states)
    for at, state in enumerate(others):
        assert_same(
            (state.params, state.mask, state.opt_state.inner),
            (first.params, first.mask, first.opt_state.inner),
        )
        assert int(state.step) == (at + 2) * EVERY
        assert int(state.opt_state.calls) == (at + 2) * EVERY + at + 1
        assert int(state.opt_state.method.moves) == at + 1
    np.testing.assert_array_equal(info.energy[1:], info.energy[1])  # of the same net and images


def test_metropolis_judges_by_the_temperature():
    _, cold = walked(search_of(ACCEPTANCES["metropolis"]), chain(heat=3.0, temperature=1e-9))
    assert np.all(np.diff(cold.energy[5:]) <= 0) and not np.all(cold.accepted)
    _, hot = walked(search_of(ACCEPTANCES["metropolis"]), chain(heat=3.0, temperature=1e9))
    assert np.all(hot.accepted)


def test_chunks_make_a_whole():
    for accept in (None, ACCEPTANCES["metropolis"]):
        small, one = walked(search_of(accept, rounds=1), chain(heat=0.3), rounds=1)
        large, other = walked(search_of(accept, rounds=4), chain(heat=0.3), rounds=4)
        assert_same(small[-1].state.walk.state.mask, large[-1].state.walk.state.mask)
        np.testing.assert_allclose(one.energy, other.energy, rtol=1e-4)


# --- chains that help each other -----------------------------------------------------------------

CHAINS = 4


def group(interaction):
    """The search, and four stacked chains after a chunk, with energies that differ."""
    search = search_of(None, interaction)
    inputs = runs.stack([chain(heat=0.5, key=key) for key in jax.random.split(KEY, CHAINS)])
    now = QUICK(jax.vmap(search.begin, in_axes=(0, None)))(inputs, DATA)
    now = search.interaction.begin(now)
    step = QUICK(jax.vmap(search.chunk, in_axes=(0, 0, None, None)))
    now, _, _ = step(inputs, now, np.int32(0), DATA)
    energy = jnp.array([0.3, 0.1, 0.4, 0.2], jnp.float32)
    now = now._replace(state=now.state._replace(energy=energy))
    return search, inputs, now, step


def test_the_worse_half_become_copies_of_the_better_with_their_weights():
    search, inputs, now, step = group(trained_interactions.copying(0.5))
    after = search.interaction.interact(runs.take(inputs, 0), now, np.int32(2), DATA)
    parents = [1, 1, 3, 3]  # chain 0 becomes the best, chain 1, and chain 2 becomes chain 3
    for i, parent in enumerate(parents):
        assert_same(runs.take(after.state.walk, i), runs.take(now.state.walk, parent))
    later, _, _ = step(inputs, after, np.int32(2), DATA)
    one, other = (flat(runs.take(later.state.walk.state, i)) for i in (0, 1))
    assert one.sum() == other.sum() and np.any(one != other)  # they go their own ways
    assert len(np.unique(bits(later.state.walk.state.opt_state.key), axis=0)) == CHAINS


def test_children_have_exact_counts_and_the_fitter_parents_weights():
    search, inputs, now, _ = group(trained_interactions.crossing(0.5, SPACE, INNER, 1))
    after = search.interaction.interact(runs.take(inputs, 0), now, np.int32(2), DATA)
    before = [runs.take(now.state.walk.state, i) for i in range(CHAINS)]
    for i in range(CHAINS):
        state = runs.take(after.state.walk.state, i)
        assert flat(state).sum() == flat(before[i]).sum()
        if i in (1, 3):  # the better half stay
            assert_same(state, before[i])
            continue
        moments = state.opt_state.inner[0].trace
        fits = []
        for parent in before:
            both = masks.unflatten(flat(state) & flat(parent), PARAMS, PRUNABLE)
            both = jax.tree.map(np.asarray, both)
            same = jax.tree.map(
                lambda keep, mine, theirs: bool(np.all(mine == np.where(keep, theirs, 0))),
                *(both, state.params, masks.apply(both, parent.params)),
            )
            trace = masks.apply(both, parent.opt_state.inner[0].trace)
            fits.append(
                all(jax.tree.leaves(same))
                and np.array_equal(masks.flatten(moments, PRUNABLE), masks.flatten(trace, PRUNABLE))
            )
        assert any(fits)


def test_exchange_gives_each_chain_the_heat_of_its_rung():
    interaction = trained_interactions.INTERACTIONS["exchange"](ladder=8.0)
    search, inputs, now, step = group(interaction)
    np.testing.assert_allclose(np.sort(now.state.scale), [1, 2, 4, 8], rtol=1e-5)
    after = search.interaction.interact(runs.take(inputs, 0), now, np.int32(2), DATA)
    np.testing.assert_allclose(np.sort(after.state.scale), [1, 2, 4, 8], rtol=1e-5)
    assert after.state.scale[1] <= now.state.scale[1]  # the best chain is not heated
    _, info, _ = step(inputs, after, np.int32(2), DATA)
    np.testing.assert_allclose(info.temperature[:, 0], 0.01 * after.state.scale, rtol=1e-5)


def test_exchange_keeps_two_trainings_in_balance():
    """On two energies and two rungs, the share of each order is what Boltzmann says."""
    interaction = trained_interactions.INTERACTIONS["exchange"](ladder=2.0)
    energy = jnp.array([0.1, 0.15], jnp.float32)

    def state(scale):
        zero = jnp.zeros(2)
        return State((), energy, (), zero, (), scale, zero, ())

    def one(carry, key):
        states, memory = carry
        between = interacting_chains.Between(jnp.int32(1), jnp.float32(0.1), jnp.float32(0.1))
        states, memory = interaction.interact(key, (), states, memory, between)
        return (states, memory), states.scale[0] < states.scale[1]

    begun = interaction.begin(state(jnp.ones(2)))
    _, first_is_cold = jax.lax.scan(one, begun, jax.random.split(KEY, 20_000))
    weights = [
        np.exp(-0.1 / 0.1 - 0.15 / 0.2),  # the first, of lower energy, on the cold rung
        np.exp(-0.15 / 0.1 - 0.1 / 0.2),
    ]
    wanted = weights[0] / sum(weights)
    assert abs(float(first_is_cold.mean()) - wanted) < 0.02


def test_a_consensus_keeps_what_most_rounds_of_most_chains_keep():
    held = np.zeros((2, SPACE.size), np.int32)
    held[0, :30], held[1, 20:50] = 3, 2
    found = annealed_training.consensus(SPACE, jnp.asarray(held), 15)
    assert np.all(found[20:30]) and found.sum() == 15 and np.all(np.asarray(held).sum(0)[found] > 2)


# --- the budget ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def problem():
    return build_problem(NetSettings(model="lenet300_100"), TrainSettings(epochs=15), "", False)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("budget", [1.0, 4.0])
def test_chains_cost_what_the_plan_says_and_no_more_than_the_budget(problem, name, budget):
    variant = VARIANTS[name]
    found = annealed_plan.plan(problem, variant, budget, held_out=500)
    plan, n = found.training, len(problem.dataset.validation.labels)
    steps = 3 * plan.rounds * (plan.every * 128 + plan.images)
    scored = annealed_plan.scored_images(variant, 500)
    energies = scored + plan.rounds * scored * (2 if variant.accept == "metropolis" else 1)
    judging = 3 * found.judged * 128 + n if variant.rewound else 0
    each = steps + energies + 8 * n + judging
    assert (
        found.cost
        == variant.chains * variant.cycles * each + 3 * 1000
        <= budget * dense_cost(problem)
    )
    assert found.cost > 0.8 * budget * dense_cost(problem)
    assert plan.rounds % 8 == 0 and batches.whole(plan.images, 128)


def test_variants_differ_from_granet_in_what_they_say():
    assert VARIANTS["granet"] == Variant()
    assert len(set(VARIANTS.values())) == len(VARIANTS)


def test_budgets_and_images_that_do_not_suffice_are_one_line(problem):
    with pytest.raises(UserError, match="too little"):
        annealed_plan.plan(problem, HOT._replace(chains=8), 0.05, held_out=500)
    with pytest.raises(UserError, match="--held_out=3500: there are 3500 images"):
        annealed_plan.plan(problem, VARIANTS["metropolis"], 1.0, held_out=3500)


COUNTED = {
    "granet": VARIANTS["granet"],
    "heat": HOT,
    "metropolis": VARIANTS["metropolis"],
    "exchange": HOT._replace(chains=2, interaction="exchange"),
    "cycles": VARIANTS["cycles"]._replace(cycles=2),
    "rewound_chains": HOT._replace(chains=2, rewound=True),
}


@pytest.mark.parametrize("name", COUNTED)
def test_a_search_makes_the_calls_that_its_table_charges(name, tmp_path):
    net = NetSettings(model="lenet300_100", widths="6,4", train_images=700)
    train = TrainSettings(optimizer="sgd", learning_rate=0.1, epochs=9, batch_size=50)
    passed = []
    problem = counted(build_problem(net, train, "", False), passed)
    one = runs.axis("map", 1, jax.local_devices()[:1])
    seeds = [seed(problem, 0)]
    session = Session(tmp_path, problem, one, on_device(problem.dataset), seeds, 60.0)
    task = Task(session, name, density=0.1, floor=1)
    (found,) = annealed_trainings.anneal(
        task, COUNTED[name], EvolveSettings(), train, budget=6.0, held_out=100
    )
    jax.effects_barrier()
    assert sum(passed) == found.columns["forward_passes"] <= 6 * dense_cost(problem)


def test_a_killed_run_resumes_on_other_devices_to_the_numbers_that_it_has_beside_others(
    smokes, cache, tmp_path
):
    killed = tmp_path / "killed"
    words = commands.command("annealed_training", "--smoke", "--variants=exchange", "--heat=")
    commands.kill_and_resume(
        [*words, f"--out={killed}"], killed, ("exchange-0.1",), cache, "--devices=2"
    )
    found = commands.summary(smokes("annealed_training")[0])
    beside = [row for row in found if row["method"] == "exchange"]
    assert len(beside) == 2
    assert commands.summary(killed) == beside
