"""Annealed tickets: every setting runs on a tiny net and keeps its counts; bad ones are refused."""

from dataclasses import fields, replace
from functools import cache, partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness import annealed, annealed_settings, annealed_start, chain_runs
from experiments.harness.annealed_settings import AnnealingSettings
from experiments.harness.named_parts import takes
from experiments.harness.settings import Except, among, idle_under
from experiments.sa_search import idle
from jaxtickets import losses, masks, optimizers, runs
from jaxtickets.allocation import ALLOCATIONS
from jaxtickets.criteria import CRITERIA
from jaxtickets.recipes import annealed_search, search_energies, search_proposals
from jaxtickets.recipes.search_domain import GRANULARITIES, POTENTIALS, ChainInputs, SearchDomain
from jaxtickets.recipes.search_energies import ENERGIES, SearchedNet
from jaxtickets.recipes.search_proposals import PROPOSALS
from jaxtickets.search import annealing, energies
from jaxtickets.search import space as spaces
from jaxtickets.search.acceptance import ACCEPTANCES
from jaxtickets.search.interacting_chains import INTERACTIONS
from jaxtickets.training import Recipe
from jaxtickets.types import Feed, Model, Split, Units

KEY = jax.random.key(21)
DRAW = np.random.default_rng(7)
SIZES = {"fc1": (4, 8), "fc2": (8, 6), "out": (6, 3)}  # 32 + 48 + 18 = 98 weights, 8 + 6 units
PARAMS = {
    name: {
        "kernel": jnp.asarray(DRAW.normal(size=shape).astype("f")),
        "bias": jnp.asarray(DRAW.normal(size=shape[1]).astype("f")),
    }
    for name, shape in SIZES.items()
}
PRUNABLE = tuple(f"{name}/kernel" for name in SIZES)
WIRING = (
    Units("fc1", 8, ("fc1",), (), (Feed("fc2", 1),)),
    Units("fc2", 6, ("fc2",), (), (Feed("out", 1),)),
)
TRAIN, VALIDATION = (
    Split(DRAW.integers(0, 256, (n, 2, 2, 1)).astype("uint8"), DRAW.integers(0, 3, n).astype("i"))
    for n in (20, 9)
)


def prepare(images):
    return images.astype(jnp.float32) / 255 - 0.5


def apply(params, stats, images, key=None, train=False):
    x = images.reshape(images.shape[0], -1)
    for name in SIZES:
        x = x @ params[name]["kernel"] + params[name]["bias"][None]
        x = x if name == "out" else jnp.maximum(x, 0)
    return x, stats


MODEL = Model(lambda key: (PARAMS, {}), apply)
RECIPE = Recipe(
    model=MODEL,
    loss=losses.classification(MODEL, prepare),
    optimizer=lambda rate: optimizers.optimizer("sgd", rate),
    prepare=prepare,
    augment=None,
    batch_size=5,
    every=1,
)
SGD = optimizers.optimizer("sgd", 0.1)
BASE = AnnealingSettings(
    granularity="weights",
    scope="global",
    floor=0,
    steps=6,
    chunk=1,
    size=6,
    size_end=1,
    images=10,
    rescale=False,
    temperature=0.5,
)
# What changes nothing but what a chain is given, so that the base's compiled search does for all.
GIVEN = [
    {},
    {"allocation": "global"},
    {"allocation": "erk"},
    {"sizes": "constant"},
    {"sizes": "sawtooth"},
    {"size": 0},
    {"size": 0.5, "size_end": 0.1},
    {"temperatures": "constant"},
    {"temperatures": "linear"},
    {"temperatures": "cosine"},
    {"temperatures": "levels"},
    {"reheat": 3},
]
# What changes the search, in as few compilations as tell each value from the base's.
UNITS = {"granularity": "units", "rescale": True, "accept": "threshold", "temperature": 30.0}
CHANGES = [
    UNITS,
    {"scope": "layer", "accept": "greedy", "temperature": 0.0},
    {
        "granularity": "units",
        "scope": "layer",
        "accept": "running_mean",
        "temperatures": "levels",
        "measure": "error_rate",
    },
    {"granularity": "units", "floor": 2, "tabu": 3},
    {"energy": "minibatch", "floor": 10, "sizes": "adaptive"},
    {"energy": "trainability", "train_steps": 2},
    {"energy": "gradient_flow", "rescale": True},
    {"energy": "orthogonality"},
    {
        **{"energy": "trainability", "train_steps": 2, "proposal": "trained"},
        **{"accept": "always", "start": "large_init", "floor": 10},
    },
    {"proposal": "informed", "candidates": 20, "rescale": True, "floor": 10},
    {"proposal": "informed_corrected", "scope": "layer", "temperature": 0.0},
    {"scope": "pattern", "group": 4, "temperature": 0.0},
    {"proposal": "anew", "floor": 10, "temperature": 30.0},
]


def test_every_choice_is_tried():
    tried = [BASE, *(replace(BASE, **change) for change in GIVEN + CHANGES)]
    assert {s.granularity for s in tried} == set(GRANULARITIES) - set(POTENTIALS)
    assert {s.scope for s in tried} == set(spaces.SCOPES)
    assert {s.allocation for s in tried} == set(ALLOCATIONS)
    assert {s.proposal for s in tried} == set(annealed_settings.PROPOSALS)
    assert {s.sizes for s in tried} == set(annealed_settings.SIZES)
    assert {s.energy for s in tried} == set(annealed_settings.ENERGIES)
    assert {s.measure for s in tried} == set(energies.MEASURES)
    assert {s.accept for s in tried} == set(ACCEPTANCES)
    assert {s.temperatures for s in tried} == set(annealed_settings.TEMPERATURES)


@cache
def space_of(granularity, scope, group=4):
    settings = replace(BASE, granularity=granularity, scope=scope, group=group)
    return annealed.domain_of(settings, PARAMS, PRUNABLE, WIRING).space


@cache
def sight_of(energy):
    return annealed.search_data(replace(BASE, energy=energy), prepare, TRAIN, VALIDATION)


@cache
def searcher(settings, most):
    """`(row, sight) -> (chains, infos)`, stacked: a chain from its begin, a chunk at a time."""
    space = space_of(settings.granularity, settings.scope, settings.group)
    search = annealed.build(settings, RECIPE, SGD, SearchDomain(space), PRUNABLE, most)

    def whole(row, sight):
        def body(chain, start):
            chain, info, _ = search.chunk(row, chain, start, sight)
            return chain, (chain, info)

        starts = jnp.arange(0, settings.steps, settings.chunk)
        begin = search.begin(row, sight)
        return begin, *jax.lax.scan(body, begin, starts)[1]

    # what is compiled without much optimisation is compiled sooner
    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(whole, compiler_options=quick)


def searched(change, density):
    """The space, the first bits, the beginning, and the chain and info after each step."""
    settings = replace(BASE, **change)
    annealed_settings.check_search(settings)
    space = space_of(settings.granularity, settings.scope, settings.group)
    bits = annealed_start.first_bits(settings, KEY, space, density)
    most = annealed_start.largest_swap(settings, space, bits[None])
    row = ChainInputs(
        key=jax.random.key(1),
        energy_key=KEY,
        params=PARAMS,
        stats={},
        start=bits,
        ticks=annealed_start.step_plans(settings, int(bits.sum()), most),
    )
    sight = sight_of(settings.energy)
    run = searcher(BASE if change in GIVEN else settings, 49 if change in GIVEN else most)
    return settings, space, bits, row, jax.tree.map(np.asarray, run(row, sight))


@pytest.mark.parametrize("change", GIVEN + CHANGES, ids=str)
def test_every_setting_runs_with_exact_counts_at_each_step(change):
    density = 0.5
    settings, space, first, row, (begin, chains, info) = searched(change, density)
    visited = chains.state.walk.bits
    assert visited.shape == (6, space.size) and first.sum() == round(density * space.size)
    np.testing.assert_array_equal(begin.state.walk.bits, first)
    for bits in (visited, chains.state.best, chains.chosen):
        assert (bits.sum(1) == first.sum()).all()
        held = np.stack([part.sum(1) for part in np.split(bits, space.starts[1:], 1)], 1)
        if settings.scope == "layer":
            np.testing.assert_array_equal(held, np.tile(spaces.counts(space, first), (6, 1)))
        assert (held >= np.minimum(settings.floor, space.sizes)).all()
        if settings.scope == "pattern":  # of 4, 8 and 6 inputs; two of four stay, one of two
            for part, shape in zip(np.split(bits, space.starts[1:], 1), space.shapes, strict=True):
                inputs = part.reshape(6, *shape)
                for at in range(0, shape[0], 4):
                    some = inputs[:, at : at + 4]
                    assert (some.sum(1) == some.shape[1] // 2).all()
    assert np.isfinite(info.energy).all() and (info.temperature > 0).all()
    assert info.accepted.any() and (info.size >= 1).all()
    assert (np.diff(chains.chosen_score) <= 0).all()
    if settings.temperature:
        np.testing.assert_allclose(info.temperature[:, 0], row.ticks.temperature, rtol=1e-6)
    planned = settings.sizes != "adaptive" and settings.proposal != "anew"
    if planned and settings.scope == "global":
        np.testing.assert_array_equal(info.size[:, 0], row.ticks.size)


def test_parts_are_made_from_settings_and_what_is_known_of_the_net():
    known = {field.name for field in fields(AnnealingSettings)}
    known |= {"net", "space", "most", "measure"}
    records = [*ENERGIES.values(), *PROPOSALS.values()]
    assert all(set(takes(record.make)) <= known for record in records)
    assert all(set(takes(energy.validation)) <= known for energy in ENERGIES.values())
    assert all(set(takes(make)) <= known for make in INTERACTIONS.values())
    for needs in (record.needs for record in records):
        assert set(needs) <= known


def test_a_search_composed_of_parts_is_that_of_the_settings():
    _, space, _, row, (_, chains, info) = searched({}, 0.5)
    sgd = SearchedNet(RECIPE, SGD, PRUNABLE, rescale=False)
    search = annealed_search.build(
        SearchDomain(space),
        proposal=search_proposals.swaps(space, most=49),
        energy=search_energies.fixed(sgd, losses.cross_entropy),
        rules=annealing.Rules(),
        prepare=prepare,
        chunk=6,
    )
    sight = sight_of("fixed")
    chain, got, _ = jax.jit(search.chunk)(row, search.begin(row, sight), 0, sight)
    np.testing.assert_array_equal(chain.state.walk.bits, chains.state.walk.bits[-1])
    np.testing.assert_allclose(got.energy, info.energy[:, 0], rtol=1e-5)


@pytest.mark.parametrize("change", [{}, UNITS], ids=str)
def test_energies_and_scores_are_those_of_the_net_on_the_right_examples(change):
    # energies on the first ten training examples, scores on the validation examples
    settings, space, _, _, (_, chains, info) = searched(change, 0.5)

    @jax.jit
    def measured(bits, split):
        mask = space.mask(bits)
        params = masks.apply(mask, PARAMS)
        for layer in SIZES if settings.rescale else ():
            params[layer]["kernel"] /= jnp.sqrt(mask[layer]["kernel"].mean())
        return losses.cross_entropy(apply(params, {}, prepare(split.images))[0], split.labels)

    scored = Split(TRAIN.images[:10], TRAIN.labels[:10])
    last = jax.tree.map(lambda leaf: leaf[-1], chains)
    for bits, energy in (
        (last.state.walk.bits, info.energy[-1, 0]),
        (last.state.best, info.best_energy[-1, 0]),
    ):
        np.testing.assert_allclose(energy, measured(bits, scored), rtol=1e-5)
    np.testing.assert_allclose(last.chosen_score, measured(last.chosen, VALIDATION), rtol=1e-5)
    scores = [measured(bits, VALIDATION) for bits in chains.state.best]
    np.testing.assert_allclose(last.chosen_score, min(scores), rtol=1e-5)


@pytest.mark.parametrize(
    "change", [{"energy": "gradient_flow", "rescale": True}, {"energy": "orthogonality"}], ids=str
)
def test_energies_without_a_measure_are_those_of_the_masked_kernels(change):
    # the norm of the gradient in what is kept, up to sign, and how far Gram matrices are from one
    _, space, _, _, (_, chains, info) = searched(change, 0.5)

    def by_hand(bits, split):
        mask = space.mask(bits)
        params = masks.apply(mask, PARAMS)
        if change["energy"] == "orthogonality":
            kernels = [np.asarray(params[layer]["kernel"]) for layer in SIZES]
            return sum(((k @ k.T - np.eye(len(k))) ** 2).mean() for k in kernels)
        for layer in SIZES:
            params[layer]["kernel"] /= jnp.sqrt(mask[layer]["kernel"].mean())

        def loss(params):
            return losses.cross_entropy(apply(params, {}, prepare(split.images))[0], split.labels)

        slope = masks.apply(mask, jax.grad(loss)(params))
        return -np.sqrt(sum((np.asarray(leaf) ** 2).sum() for leaf in jax.tree.leaves(slope)))

    last = jax.tree.map(lambda leaf: leaf[-1], chains)
    scored = Split(TRAIN.images[:10], TRAIN.labels[:10])
    expected = by_hand(last.state.walk.bits, scored)
    np.testing.assert_allclose(info.energy[-1, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(last.chosen_score, by_hand(last.chosen, VALIDATION), rtol=1e-5)


# --- plans ---------------------------------------------------------------------------------------


def plan(ones=40, most=40, **change):
    return annealed_start.step_plans(replace(BASE, **{"steps": 12, **change}), ones, most)


def test_temperatures_run_from_the_start_to_the_ratio_of_it():
    start, ratio = 0.5, 0.01
    geometric = plan(temperatures="geometric").temperature
    np.testing.assert_allclose(geometric, start * ratio ** (np.arange(12) / 11), rtol=1e-5)
    linear = plan(temperatures="linear").temperature
    np.testing.assert_allclose(linear, np.linspace(start, start * ratio, 12), rtol=1e-5)
    np.testing.assert_allclose(plan(temperatures="constant").temperature, [start] * 12)
    cosine = plan(temperatures="cosine").temperature
    np.testing.assert_allclose([cosine[0], cosine[-1]], [start, start * ratio], rtol=1e-5)
    # where the start is estimated, the plan is in units of it
    np.testing.assert_allclose(plan(temperature=0.0).temperature, geometric / start, rtol=1e-5)


def test_levels_grow_and_cool_by_their_factors():
    # levels of 1, 2, 4, 4 (never more than 4) and the one step that is left of the twelve
    change = {"level_first": 1, "level_growth": 2, "level_most": 4, "cooling": 0.9}
    got = plan(temperatures="levels", **change)
    level = np.array([0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4])
    np.testing.assert_allclose(got.temperature, 0.5 * 0.9**level, rtol=1e-5)
    assert got.level.tolist() == (np.diff(level, prepend=-1) == 1).tolist()


@pytest.mark.parametrize("temperatures", ["geometric", "levels"])
def test_reheating_begins_the_temperatures_again(temperatures):
    change = {"level_growth": 2, "cooling": 0.9, "temperatures": temperatures}
    short = plan(steps=4, **change)
    got = plan(reheat=4, **change)
    np.testing.assert_allclose(got.temperature, np.tile(short.temperature, 3), rtol=1e-5)
    # a new temperature begins where the temperature is another one
    changes = np.diff(got.temperature, prepend=np.nan) != 0
    if temperatures == "levels":
        assert got.level.tolist() == changes.tolist()


def test_sizes_are_numbers_or_shares_of_the_ones():
    assert [annealed_start.swap_size(s, 40) for s in (0, 0.1, 0.001, 1, 7)] == [40, 4, 1, 1, 7]
    assert plan(sizes="constant", size=0.25).size.tolist() == [10] * 12
    assert plan(sizes="constant", size=0, most=30).size.tolist() == [30] * 12
    # 16 to 1 in 12 steps: 16 * 16^(-t / 11), rounded down: 16, 12.4, 9.7, 7.5, 5.8, 4.5, 3.5, ...
    got = plan(sizes="geometric", size=16, size_end=1).size
    assert got.tolist() == [16, 12, 9, 7, 5, 4, 3, 2, 2, 1, 1, 1]


def test_sawtooth_sizes_follow_the_levels():
    # levels of one step. h: 6, then floor(0.99 h): 5, 4, 3 (not below 6 / 2), 2 is: then
    # floor(0.75 * 6) = 4 = h_ref, 3, 2 (not below 2), 1 is: floor(0.75 * 4) = 3 = h_ref, 2, ...
    got = plan(sizes="sawtooth", size=6, level_growth=1.0)
    assert got.size.tolist()[:9] == [6, 5, 4, 3, 4, 3, 2, 3, 2]


# --- what can't be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 10, "chunk": 4},
        {"steps": 0},
        {"chunk": 0},
        {"target": 0.0},
        {"target": 1.5},
        {"target": float("nan")},
        {"cooling": 0.0},
        {"temperature": -1.0},
        {"temperature_ratio": 0.0},
        {"temperature_ratio": 2.0},
        {"burn_in_accept": 0.0},
        {"size": -1},
        {"tabu": -1},
        {"train_steps": 0},
        {"granularity": "layers"},
        {"scope": "all"},
        {"allocation": "even"},
        {"sizes": "none"},
        {"energy": "loss"},
        {"energy": "gradient_flow", "measure": "error_rate"},
        {"measure": "accuracy"},
        {"accept": "sometimes"},
        {"start": "lucky"},
        {"scope": "pattern", "granularity": "units"},
        {"scope": "pattern", "proposal": "informed"},
        {"scope": "pattern", "allocation": "erk"},
        {"evaluation": "difference", "scope": "pattern"},
        {"group": 1},
        {"start": "snip", "granularity": "units"},
        {"proposal": "trained"},
        {"proposal": "anew", "tabu": 2},
        {"proposal": "anew", "granularity": "fields"},
        {"proposal": "informed", "granularity": "unit_fields"},
        {"granularity": "unit_fields", "tabu": 5, "floor": 1},
        {"granularity": "unit_fields", "floor": 0, "size": 0.5, "size_end": 0.1},
        {"interaction": "exchange", "granularity": "unit_fields", "floor": 1},
        {"running_start": -1.0},
        {"temperatures": "none"},
        {"proposal": "gradient"},
        {"candidates": 0},
        {"proposal": "informed", "granularity": "units"},
        {"proposal": "informed", "energy": "minibatch"},
        {"proposal": "informed_corrected", "measure": "error_rate"},
        {"proposal": "informed_corrected", "tabu": 5},
        {"proposal": "informed", "granularity": "fields"},
        {"granularity": "fields", "tabu": 5},
        {"granularity": "fields", "sizes": "sawtooth"},
        {"size": 0, "granularity": "fields"},
        {"mix": "1", "granularity": "fields"},
        {"mix": "1,one", "granularity": "fields"},
        {"interaction": "talk"},
        {"interaction": "exchange", "energy": "minibatch"},
        {"interaction": "crossover", "granularity": "fields"},
        {"ladder": 1.0, "interaction": "exchange"},
        {"replaced": 1.0, "interaction": "restart"},
        {"replaced": 0.0, "interaction": "crossover"},
        {"interaction": "population", "temperatures": "constant"},
        {"interaction": "exchange", "accept": "greedy"},
        {"interaction": "restart", "chunk": 6},
    ],
    ids=str,
)
def test_bad_settings_raise_one_line_that_names_the_setting(change):
    annealed_settings.check_search(BASE)
    with pytest.raises(ValueError, match=next(iter(change))) as error:
        annealed_settings.check_search(replace(BASE, **change))
    assert "\n" not in str(error.value)


def test_a_search_says_where_how_and_for_what():
    assert annealed_settings.in_words(BASE) == "weights, random swaps, lowering cross-entropy"
    told = replace(BASE, granularity="unit_fields", energy="trainability", train_steps=9)
    found = annealed_settings.in_words(told)
    assert found == (
        "unit fields, random steps of potentials, lowering cross-entropy after 9 training steps"
    )


def test_a_start_temperature_that_accepts_everything_is_refused():
    # T0 = mean / -ln(1) is no temperature
    with pytest.raises(ValueError, match="burn_in_accept"):
        annealed_settings.check_search(replace(BASE, burn_in_accept=1.0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": 21}, "images=21.* 20"),
        ({"images": 20, "energy": "trainability"}, "images=20.* 20"),
        ({"images": 0, "energy": "trainability"}, "images=20.* 20"),
    ],
    ids=str,
)
def test_more_images_than_there_are_raise_one_line(change, words):
    with pytest.raises(ValueError, match=words) as error:
        annealed.search_data(replace(BASE, **change), prepare, TRAIN, VALIDATION)
    assert "\n" not in str(error.value)


def test_sight_scores_on_the_first_images_and_trains_on_others():
    sight = annealed.search_data(replace(BASE, images=0), prepare, TRAIN, VALIDATION)
    assert len(sight.scored.labels) == len(sight.training.labels) == 20
    np.testing.assert_allclose(sight.scored.images, prepare(TRAIN.images), atol=1e-6)
    sight = annealed.search_data(replace(BASE, energy="trainability"), prepare, TRAIN, VALIDATION)
    np.testing.assert_array_equal(sight.scored.labels, TRAIN.labels[:10])
    np.testing.assert_array_equal(sight.training.images, TRAIN.images[10:])
    np.testing.assert_array_equal(sight.validation.images, VALIDATION.images)


@pytest.mark.parametrize(
    ("change", "density"),
    [
        ({}, 0.001),  # keeps nothing
        ({"allocation": "global", "scope": "layer"}, 0.03),  # 3 of 98, random: none in a layer
        ({"floor": 10}, 0.2),  # 3 * 10 of 20
        ({}, 1.5),
    ],
    ids=str,
)
def test_densities_that_can_not_be_raise_one_line(change, density):
    settings = replace(BASE, **change)
    space = space_of(settings.granularity, settings.scope, settings.group)
    with pytest.raises(ValueError, match=r"density|no weight") as error:
        annealed_start.first_bits(settings, jax.random.key(0), space, density)
    assert "\n" not in str(error.value)


def test_a_density_of_one_leaves_nothing_to_search_and_raises_one_line():
    space = space_of("weights", "global")
    with pytest.raises(ValueError, match="density") as error:
        bits = annealed_start.first_bits(BASE, KEY, space, 1.0)
        most = annealed_start.largest_swap(BASE, space, bits[None])
        annealed_start.step_plans(BASE, int(bits.sum()), most)
    assert "\n" not in str(error.value)


def test_first_masks_of_all_seeds_are_scored_by_one_program(evidence):
    settings = replace(BASE, start="snip", floor=1, scope="global", allocation="global")
    prunable = masks.prunable(evidence.init_params)
    space = spaces.weights(evidence.init_params, prunable)
    before = annealed_start._scores._cache_size()
    for scale in (1.0, -0.5, 2.0):
        params = jax.tree.map(lambda w, scale=scale: w * jnp.float32(scale), evidence.init_params)
        seen = evidence._replace(init_params=params)
        bits = annealed_start.first_bits(settings, KEY, space, 0.25, seen)
        scores = CRITERIA["snip"].score(KEY, seen._replace(params=params))
        golden = masks.select(scores, prunable, int(bits.sum()), 1)
        assert masks.hamming(space.mask(bits), golden, prunable) == 0
    assert annealed_start._scores._cache_size() == before + 1


def test_first_masks_are_random_and_allocated_as_asked():
    settings = replace(BASE, allocation="uniform", scope="layer")
    space = space_of("weights", "layer")
    # 0.25 of 32, 48 and 18 weights: 8, 12 and 4.5; 24.5 is rounded to 24, and so 4
    made = [annealed_start.first_bits(settings, jax.random.key(i), space, 0.25) for i in range(4)]
    for bits in made:
        assert spaces.counts(space, bits).tolist() == [8, 12, 4]
    assert len({tuple(bits.tolist()) for bits in made}) == 4
    mask = space.mask(made[0])
    assert masks.count(mask, PRUNABLE) == 24 and mask["fc1"]["bias"].all()
    # erk, in proportion to the sums of the axes, 12 : 14 : 9, of 24: 8.2, 9.6 and 6.2
    bits = annealed_start.first_bits(replace(settings, allocation="erk"), KEY, space, 0.25)
    assert spaces.counts(space, bits).tolist() == [8, 10, 6]


def test_informed_swaps_go_down_faster_than_random_ones():
    # at a temperature of almost nothing, from the same masks: six steps of two swaps each
    change = {"temperature": 1e-3, "sizes": "constant", "size": 2}
    steps = [
        searched({**change, "proposal": proposal}, 0.5)[-1][2].energy[-1, 0]
        for proposal in ("swaps", "informed")
    ]
    assert steps[1] < steps[0]


def test_informed_swaps_are_no_more_than_their_candidates():
    space = space_of("weights", "global")
    bits = jnp.arange(space.size) < 49
    settings = replace(BASE, size=0, proposal="informed", candidates=30)
    assert annealed_start.largest_swap(settings, space, bits[None]) == 30
    assert annealed_start.largest_swap(replace(settings, candidates=90), space, bits[None]) == 49


def test_adaptive_sizes_stop_at_half_of_what_can_be_swapped():
    # 98 weights, 49 ones: the room is 49 in all; half of it is 24
    space = space_of("weights", "global")
    bits = jnp.arange(space.size) < 49
    settings = replace(BASE, size=0)
    assert annealed_start.largest_swap(replace(settings, sizes="constant"), space, bits[None]) == 49
    assert annealed_start.largest_swap(replace(settings, sizes="adaptive"), space, bits[None]) == 24


# --- chains that interact -----------------------------------------------------------------------


class Interacted(NamedTuple):
    rows: Any
    first: Any
    before: Any
    interact: Any
    after: Any
    sight: Any


@cache
def interacted(interaction):
    """Two groups of four chains: as they begin, after a chunk, and after they have interacted."""
    change = {"interaction": interaction, "steps": 8, "chunk": 2, "floor": 10, "temperature": 0.0}
    settings = replace(BASE, **change)
    annealed_settings.check_search(settings)
    space = space_of("weights", "global")
    chances = jax.random.split(KEY, 8)
    bits = [annealed_start.first_bits(settings, key, space, 0.5) for key in chances]
    most = annealed_start.largest_swap(settings, space, jnp.stack(bits))
    ticks = annealed_start.step_plans(settings, int(bits[0].sum()), most)
    rows = runs.stack(
        [ChainInputs(k, KEY, PARAMS, {}, b, ticks) for k, b in zip(chances, bits, strict=True)]
    )
    search = annealed.build(settings, RECIPE, SGD, SearchDomain(space), PRUNABLE, most)
    begin, interact = chain_runs._of_groups(search.interaction, 4)
    sight = sight_of("fixed")

    @jax.jit
    def advance(rows, chains, start):
        return jax.vmap(lambda row, chain: search.chunk(row, chain, start, sight)[0])(rows, chains)

    first = begin(jax.vmap(lambda row: search.begin(row, sight))(rows))
    before = advance(rows, first, 0)
    interact = partial(interact, runs.take(rows, np.array([0, 4])), start=np.int32(2), sight=sight)
    return Interacted(rows, first, before, interact, interact(before), sight)


TOGETHER = tuple(name for name in INTERACTIONS if name != "none")


@pytest.mark.parametrize("interaction", TOGETHER)
def test_interactions_keep_counts_and_the_best_and_energies_are_those_of_the_masks(interaction):
    _, _, before, _, after, sight = interacted(interaction)
    assert (after.state.walk.bits.sum(1) == 49).all()
    layers = np.split(np.asarray(after.state.walk.bits), [32, 80], 1)
    assert all((part.sum(1) >= 10).all() for part in layers)  # the floor
    old, new = (chains.state.best_energy.reshape(2, 4).min(1) for chains in (before, after))
    assert (new <= old).all() and (interaction == "crossover" or (new == old).all())
    space = space_of("weights", "global")
    for i in range(8):
        x, _ = apply(masks.apply(space.mask(after.state.walk.bits[i]), PARAMS), {}, sight.scored[0])
        loss = losses.cross_entropy(x, sight.scored[1]).mean()
        np.testing.assert_allclose(after.state.energy[i], loss, rtol=1e-5)


@pytest.mark.parametrize("interaction", TOGETHER)
def test_a_group_interacts_with_no_other_group(interaction):
    _, _, before, interact, after, _ = interacted(interaction)
    other = before._replace(
        state=before.state._replace(energy=before.state.energy.at[4:].add(jnp.arange(4.0)))
    )
    again = interact(other)
    first, same = (jax.tree.map(lambda leaf: leaf[:4], chains) for chains in (after, again))
    chex.assert_trees_all_equal(first, same)


def test_exchange_puts_chains_on_a_ladder_and_the_others_at_one_temperature():
    _, first, _, _, after, _ = interacted("exchange")
    for chains in (first, after):
        for scale in np.sort(np.asarray(chains.state.scale).reshape(2, 4), axis=1):
            np.testing.assert_allclose(scale / scale[0], 10 ** (np.arange(4) / 3), rtol=1e-5)
    assert (np.asarray(first.state.scale) != np.asarray(after.state.scale)).any()
    for name in TOGETHER[1:]:
        scale = np.asarray(interacted(name)[4].state.scale).reshape(2, 4)
        np.testing.assert_array_equal(scale, scale[:, :1].repeat(4, 1))
        assert scale[0, 0] != scale[1, 0]


@pytest.mark.parametrize("interaction", ["population", "crossover", "restart"])
def test_what_gives_way_is_the_worst(interaction):
    _, _, before, _, after, _ = interacted(interaction)
    old, new = (np.asarray(c.state.energy).reshape(2, 4) for c in (before, after))
    changed = old != new
    assert changed.any()
    if interaction != "population":
        np.testing.assert_array_equal(changed, old == old.max(1, keepdims=True))


def test_chains_on_neighbouring_rungs_change_places_with_the_chance_at_their_temperatures():
    rows, _, before, _, after, _ = interacted("exchange")
    # the first round asks rungs 0 and 1, and 2 and 3, at the temperature of the chunk's end
    plan = float(rows.ticks.temperature[0, 1])
    for at in range(0, 8, 2):
        energy = np.asarray(before.state.energy)[at : at + 2]
        scale = np.asarray(before.state.scale)[at : at + 2]
        assert scale[0] < scale[1]
        chance = np.exp(min(0.0, (1 / scale[0] - 1 / scale[1]) / plan * (energy[0] - energy[1])))
        told = after.memory.accepted[at, at % 4] - before.memory.accepted[at, at % 4]
        np.testing.assert_allclose(told, chance, rtol=1e-4)
        moved = float(after.state.scale[at]) != float(scale[0])
        assert moved or chance < 1


def test_a_population_cools_between_chunks_alone_and_weighs_all_of_it():
    made = made_ticks(interaction="population").temperature.reshape(-1, 2)
    np.testing.assert_array_equal(made[:, 0], made[:, 1])
    free = made_ticks().temperature.reshape(-1, 2)
    np.testing.assert_allclose(made[:, 0], free[:, 0])
    rows, _, before, _, after, _ = interacted("population")
    state, plan = before.state, rows.ticks.temperature[0]
    for group in (slice(0, 4), slice(4, 8)):
        energy, T = np.asarray(state.energy)[group], np.asarray(state.scale)[group][0]
        weight = np.exp(-(1 / (T * plan[2]) - 1 / (T * plan[1])) * (energy - energy.min()))
        copies = 4 * weight / weight.sum()
        left = np.asarray(after.state.energy)[group]
        seen = np.array([(left == e).sum() for e in energy])
        assert (np.floor(copies) <= seen).all() and (seen <= np.ceil(copies)).all()


def made_ticks(**change):
    settings = replace(BASE, steps=8, chunk=2, **change)
    return annealed_start.step_plans(settings, 49, 49)


@pytest.mark.parametrize(
    ("group", "density", "words"),
    [(4, 0.3, "N of 4"), (3, 0.5, "such as 0.333 or 0.667"), (5, 0.2, "4 inputs of fc1")],
)
def test_a_pattern_that_can_not_be_is_refused(group, density, words):
    settings = replace(BASE, scope="pattern", group=group)
    with pytest.raises(ValueError, match=words):
        space = annealed.domain_of(settings, PARAMS, PRUNABLE, WIRING).space
        annealed_start.first_bits(settings, KEY, space, density)


def test_a_pattern_takes_thirds_and_has_a_floor():
    settings = replace(BASE, scope="pattern", group=3)
    space = annealed.domain_of(settings, PARAMS, PRUNABLE, WIRING).space
    # of 4, 8 and 6 inputs: groups of 3 keep one, and what is left over keeps one too
    assert annealed_start.first_bits(settings, KEY, space, 0.333).sum() == 8 * 2 + 6 * 3 + 3 * 2
    with pytest.raises(ValueError, match="floor=7: the pattern leaves 6 in out"):
        annealed_start.first_bits(replace(settings, floor=7), KEY, space, 0.333)


# --- settings without effect ----------------------------------------------------------------------

CHANGED = {
    "size": 3.0,
    "size_end": 2.0,
    "temperature_ratio": 0.5,
    "cooling": 0.5,
    "level_first": 3.0,
    "level_growth": 2.0,
    "level_most": 2.0,
    "reheat": 7,
}
"""Settings of a plan, and other values of theirs."""
PLANNED = [
    (name, choice)
    for name in CHANGED
    for choice in idle.IDLE[name]
    if not {"accept", "proposal"} & set(choice)
]


def chosen(choice):
    """Settings under which the choice is taken."""
    known = {field.name: field.metadata["known"] for field in fields(AnnealingSettings)}
    taken = {
        name: next(v for v in known[name] if among(v, values)) for name, values in choice.items()
    }
    return AnnealingSettings(size=20.0, temperature=2.0, steps=60, **taken)


@pytest.mark.parametrize(("name", "choice"), PLANNED)
def test_what_is_said_to_be_without_effect_changes_no_plan(name, choice):
    settings = chosen(choice)
    changed = replace(settings, **{name: CHANGED[name]})
    assert getattr(settings, name) != CHANGED[name]
    plans = [annealed_start.step_plans(made, ones=40, most=30) for made in (settings, changed)]
    chex.assert_trees_all_equal(*plans)


def test_what_has_no_use_for_a_temperature_accepts_the_same_at_any():
    energies_there = jax.random.normal(KEY, (2, 50))
    for name in idle.COLD["accept"]:
        accepted = [
            jax.vmap(
                lambda here, there, rule=ACCEPTANCES[name], heat=heat: rule.accept(
                    KEY, heat, here, there, jnp.float32(0), rule.init(here)
                )[0]
            )(*energies_there)
            for heat in (jnp.float32(0.01), jnp.float32(10))
        ]
        np.testing.assert_array_equal(*accepted)


def test_what_is_said_to_be_without_effect_names_settings_and_values_that_there_are():
    known = {field.name: field.metadata["known"] for field in fields(AnnealingSettings)}
    for name, choices in idle.IDLE.items():
        for choice in ({name: ()}, *choices):
            for other, values in choice.items():
                assert other in known
                there = values.values if isinstance(values, Except) else values
                assert not known[other] or set(there) <= set(known[other])
    assert idle_under(idle.IDLE, "size_end", vars(AnnealingSettings())) == []
    held = vars(AnnealingSettings(sizes="constant"))
    assert idle_under(idle.IDLE, "size_end", held) == ["sizes"]
