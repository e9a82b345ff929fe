"""GraNet: what is kept when, who goes and who comes, and that chunks make a whole."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.harness import rows, sparse_runs
from experiments.harness.budgeted_search import Task, dense_cost
from experiments.harness.problem import build, on_device
from experiments.harness.seeds import seed
from experiments.harness.session import Session
from experiments.harness.settings import check as check_options
from experiments.harness.sparse_runs import EvolveSettings
from experiments.harness.training_settings import NetSettings, TrainSettings
from jaxtickets import losses, masks, runs, training
from jaxtickets.data import batches
from jaxtickets.dynamic import granet
from jaxtickets.dynamic.drop_and_grow import MovePlan
from jaxtickets.io.errors import UserError
from jaxtickets.training import Moves, Splits
from jaxtickets.types import Model, Split

KEY = jax.random.key(0)
PRUNABLE = ("a/kernel", "b/kernel")
SIZE = 9 * 6 + 6 * 3


def initial(key):
    first, second = jax.random.split(key)
    return {
        "a": {"bias": jnp.ones(6), "kernel": jax.random.normal(first, (9, 6))},
        "b": {"kernel": jax.random.normal(second, (6, 3))},
    }, {}


def apply(params, stats, images, key=None, train=False):
    hidden = images.reshape(len(images), -1) @ params["a"]["kernel"] + params["a"]["bias"][None]
    return jax.nn.relu(hidden) @ params["b"]["kernel"], stats


def prepared(images):
    return jnp.asarray(images, jnp.float32) / 255


MODEL = Model(initial, apply)
LOSS = losses.classification(MODEL, prepared)
ADAM = optax.adam(0.01)
OPTIMIZERS = {
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adam": ADAM,
    "masked": optax.masked(ADAM, lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree)),
    "partition": optax.partition(
        {"w": ADAM, "b": optax.sgd(0.1)}, {"a": {"bias": "b", "kernel": "w"}, "b": {"kernel": "w"}}
    ),
    "injected": optax.inject_hyperparams(optax.adam)(optax.cosine_decay_schedule(0.1, 20)),
    "if finite": optax.apply_if_finite(ADAM, 3),
}
ONE = runs.axis("map", 1, jax.local_devices()[:1])  # each compiles for itself


def begun(inner, rounds, keep=40, every=1, floor=0):
    """The sparse optimiser, and the state of a training that it begins."""
    params, stats = initial(KEY)
    mask = masks.random(KEY, params, PRUNABLE, keep)
    optimizer = granet.granet(inner, mask, PRUNABLE, rounds, every, floor, "global")
    return optimizer, training.init(params, stats, optimizer)


def moved(optimizer, state, gradient):
    """The state after a move by that gradient."""
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params, move=True)
    params = optax.apply_updates(state.params, updates)
    return state._replace(params=params, opt_state=opt_state)


def rounds_of(ones, grown):
    return MovePlan(jnp.array([ones]), jnp.array([grown]))


def flat(tree):
    return np.asarray(masks.flatten(tree, PRUNABLE))


@pytest.mark.parametrize("begin", [20_000, 1_000])
def test_a_plan_falls_to_the_count_asked_for_and_ends_without_new_weights(begin):
    ones, grown = granet.plan(50, begin, 1_000)
    assert ones[-1] == 1_000 and grown[-1] == 0
    assert np.all(np.diff(ones) <= 0) and np.all(ones[29:] == 1_000)
    assert np.all(grown[37:] == 0) and np.all(grown[:36] > 0)
    np.testing.assert_allclose(grown[0] / ones[0], 0.3, rtol=0.01)
    third = 10  # t = 0.2, a third of the way
    assert ones[third - 1] == round(1_000 + (begin - 1_000) * (2 / 3) ** 3)
    assert grown[third - 1] == int(ones[third - 1] * 0.15 * (1 + np.cos(np.pi * 0.2 / 0.75)))


def test_a_plan_never_replaces_what_floors_need():
    ones, grown = granet.plan(10, 12, 6, floor=5)
    assert np.all(ones - grown >= 5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"moves": 0}, "1 or more"),
        ({"begin": 5}, "<= end <= begin"),
        ({"end": 0}, "<= end <= begin"),
        ({"floor": 11}, "<= end <= begin"),
        ({"fraction": 1.0}, "fraction"),
        ({"pruned_by": 0.0}, "pruned_by"),
        ({"settled_by": 1.5}, "settled_by"),
    ],
)
def test_a_plan_refuses_what_cant_be(given, said):
    with pytest.raises(ValueError, match=said):
        granet.plan(**({"moves": 10, "begin": 20, "end": 10} | given))


COUNTS = [(40, 0), (30, 0), (40, 12), (30, 12), (72, 32)]
CASES = [(name, *counts) for name in ("momentum", "adam") for counts in COUNTS]


@pytest.mark.parametrize(
    ("name", "ones", "grown"), CASES + [(name, 30, 12) for name in list(OPTIMIZERS)[2:]]
)
def test_the_smallest_go_and_the_most_wanted_come_from_zero(name, ones, grown):
    optimizer, state = begun(OPTIMIZERS[name], rounds_of(ones, grown))
    ahead = jax.tree.map(lambda m: m + 1 if m.ndim else m, state.opt_state.inner)
    state = state._replace(opt_state=state.opt_state._replace(inner=ahead))
    slope = jax.tree.map(lambda p: jax.random.normal(jax.random.key(7), p.shape), state.params)
    after = jax.jit(partial(moved, optimizer))(state, slope)
    was, now, w, want = (flat(t) for t in (state.mask, after.mask, state.params, slope))
    w, want = np.abs(w), np.abs(want)
    order = np.argsort(np.where(was, -w, np.inf))
    stay = np.zeros(SIZE, bool)
    stay[order[: ones - grown]] = True
    come = np.zeros(SIZE, bool)
    come[np.argsort(np.where(stay, np.inf, -want))[:grown]] = True
    np.testing.assert_array_equal(now, stay | come)
    assert now.sum() == ones
    kept = was & now
    np.testing.assert_array_equal(flat(after.params), np.where(kept, flat(state.params), 0))
    np.testing.assert_array_equal(after.params["a"]["bias"], state.params["a"]["bias"])
    assert np.all(after.mask["a"]["bias"])
    moments = [leaf for leaf in jax.tree.leaves(after.opt_state.inner) if leaf.shape == (9, 6)]
    assert moments
    for leaf in moments:
        np.testing.assert_array_equal(leaf, np.where(kept[:54].reshape(9, 6), 1.0, 0.0))


def test_an_optimiser_that_keeps_no_number_a_weight_is_refused_in_one_line():
    factored = optax.adafactor(0.1, min_dim_size_to_factor=2)
    optimizer, state = begun(factored, rounds_of(30, 12))
    with pytest.raises(ValueError, match=r"one number for each weight, as SGD and Adam keep$"):
        moved(optimizer, state, state.params)


def test_floors_hold():
    optimizer, state = begun(OPTIMIZERS["momentum"], rounds_of(10, 2), floor=3)
    small = state.params | {"b": {"kernel": state.params["b"]["kernel"] * 1e-6}}
    state = state._replace(params=small)
    slope = jax.tree.map(jnp.zeros_like, small)
    kept = masks.counts(moved(optimizer, state, slope).mask, PRUNABLE)
    assert int(kept["b/kernel"]) >= 3


def data(n=64):
    images = jax.random.randint(KEY, (n, 3, 3, 1), 0, 256).astype(jnp.uint8)
    return Split(images, jnp.sum(images.reshape(n, -1)[:, :3] > 128, axis=1) % 3)


def test_chunks_make_a_whole_and_what_is_pruned_stays_zero():
    rounds = granet.plan(6, 40, 12)
    _, state = begun(optax.adam(0.01), rounds, every=3)
    run = jax.jit(
        partial(chunk, LOSS, optax.adam(0.01), rounds, every=3, images=16), static_argnums=2
    )
    begin = training.watch(state)
    whole, seen = run(KEY, begin, 3)
    both, _ = run(KEY, run(KEY, begin, 1)[0], 2)
    jax.tree.map(np.testing.assert_array_equal, whole, both)
    end = whole.state
    assert int(masks.count(end.mask, PRUNABLE)) == 12 and int(end.step) == 18
    assert np.all(flat(end.params)[~flat(end.mask)] == 0)
    assert seen["train_loss"].shape == (3, 6) and seen["kept"][-1] == 12
    again, _ = run(jax.random.key(1), begin, 3)
    assert np.any(flat(again.state.params) != flat(end.params))


def chunk(loss, inner, rounds, key, watched, evaluations, every, images):
    """Looks after every second round."""

    def sparsify(inner, mask, fill, hyper):
        return granet.granet(inner, mask, PRUNABLE, rounds, every, shares="global")

    recipe = training.Recipe(
        MODEL,
        loss,
        lambda hyper: inner,
        prepared,
        None,
        batch_size=8,
        every=2 * every,
        sparsify=sparsify,
        moves=Moves(every, images),
        record=lambda state: {"kept": masks.count(state.mask, PRUNABLE)},
    )
    return training.train_chunk(recipe, key, (), watched, Splits(data(), data(16)), evaluations)


@pytest.mark.parametrize(
    ("images", "batch_size", "expected"),
    [
        (1000, 128, (8, 125)),  # eight hold them all
        (193, 128, (2, 96)),  # a prime number: one image is left out
        (129, 128, (1, 128)),
        (1000, 7, (142, 7)),  # 143 equal batches would be of six
        (3, 2, (1, 2)),
        (5, 8, (1, 5)),
        (1, 8, (1, 1)),
        (5, 1, (5, 1)),
    ],
)
def test_the_gradients_images_make_whole_batches(images, batch_size, expected):
    assert batches.whole(images, batch_size) == expected


def test_no_number_of_images_makes_batches_of_one():
    for images in range(2, 60):
        for batch_size in range(2, 20):
            many, size = batches.whole(images, batch_size)
            assert 2 <= size <= batch_size and 2 * images / 3 <= many * size <= images
            assert batches.whole(many * size, batch_size) == (many, size)


def test_the_gradient_of_a_prime_number_of_images_is_of_batches():
    """A loss that is flat where a batch holds one image, as with batch norm: some weight moves."""

    def centred(params, stats, batch, key):
        del key
        logits, _ = apply(params, stats, prepared(batch.images))
        spread = jnp.mean((logits - jnp.mean(logits, 0, keepdims=True)) ** 2)
        return spread, (stats, {"loss": spread, "accuracy": spread})

    rounds = rounds_of(40, 12)
    _, state = begun(optax.sgd(0.0), rounds)
    begin = training.watch(state)
    after, _ = chunk(centred, optax.sgd(0.0), rounds, KEY, begin, 1, every=1, images=7)
    came = flat(after.state.mask) & ~flat(state.mask)
    missing = np.flatnonzero(~flat(state.mask))
    assert came[missing[12:]].any()  # by a gradient of zeros the first that are missing come


@pytest.mark.parametrize("budget", [0.4, 1.0, 3.0])
def test_a_plan_costs_what_it_says_and_no_more_than_its_budget(budget):
    problem = build(NetSettings(model="lenet300_100"), TrainSettings(epochs=15), "", False)
    found = sparse_runs.plan_sparse_training(problem, budget)
    cost = 3 * (found.steps * 128 + found.rounds * found.images + 1000) + 8 * 500
    assert found.cost == cost <= budget * dense_cost(problem)
    assert math.prod(batches.whole(found.images, 128)) == found.images
    assert found.rounds % sparse_runs.EVALUATIONS == 0
    assert found.cost > 0.85 * budget * dense_cost(problem)
    assert 8 * found.images <= max(8 * 128, found.every * 128 * 1.3)


def test_a_budget_that_is_too_small_is_one_line():
    problem = build(NetSettings(model="lenet300_100"), TrainSettings(epochs=15), "", False)
    with pytest.raises(UserError, match="too little"):
        sparse_runs.check_sparse_training(
            EvolveSettings(), problem, TrainSettings(epochs=15), (0.1,), floor=1, budget=0.01
        )


@pytest.mark.parametrize("start", [0, 1.5])
def test_an_initial_density_is_above_0_and_at_most_1(start):
    with pytest.raises(ValueError, match=f"granet_from={start}: must be above 0 and at most 1"):
        check_options(EvolveSettings(start))


def test_a_seed_gets_the_mask_of_its_chain_with_the_least_validation_loss(tmp_path):
    train = TrainSettings(optimizer="momentum", learning_rate=0.1, epochs=2)
    problem = build(NetSettings(model="lenet300_100", widths="30,20"), train, "", False)
    data, axis = on_device(problem.dataset), ONE
    seeds = [seed(problem, number) for number in range(3)]

    def found(place, chains):
        (tmp_path / place).mkdir()
        (tmp_path / place / rows.METRICS).touch()
        session = Session(tmp_path / place, problem, axis, data, seeds, 1e9)
        task = Task(session, "search", density=0.05, floor=1)
        return sparse_runs.train_sparse(task, EvolveSettings(), train, 1.5, chains)

    one, two = found("one", 1), found("two", 2)
    ends = {}
    for row in rows.read_metrics(tmp_path / "two"):
        if "chain" in row:  # the others are of the schedule, or a process' header
            ends[row["seed"], row["chain"]] = row.get("loss")
    for i, (alone, best) in enumerate(zip(one, two, strict=True)):
        same = np.array_equal(flat_of(alone.mask, problem), flat_of(best.mask, problem))
        assert same == (ends[i, 0] < ends[i, 1])
        least = min(ends[i, 0], ends[i, 1])
        assert best.columns["search_validation_loss"] == pytest.approx(least, abs=2e-6)
        assert 0 < best.columns["search_loss"] < 1
        assert best.columns["forward_passes"] == 2 * alone.columns["forward_passes"] - 3 * 1000
        assert int(masks.count(best.mask, problem.prunable)) == 1216  # of 24,320


def flat_of(mask, problem):
    return np.asarray(masks.flatten(mask, problem.prunable))
