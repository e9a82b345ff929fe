"""Energies by difference: those of plain evaluation, along chains of a tiny net."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from experiments.harness import annealed, annealed_settings, annealed_start
from experiments.harness.annealed_settings import AnnealingSettings
from jaxtickets import losses, masks, nets, optimizers
from jaxtickets.io import checkpoints
from jaxtickets.recipes.search_domain import ChainInputs, SearchDomain
from jaxtickets.search import annealing, energies, incremental_energy, swaps
from jaxtickets.search import space as spaces
from jaxtickets.training import Recipe
from jaxtickets.types import Model, Split

KEY = jax.random.key(5)
SHAPE, EXAMPLES = (7, 7, 1), 24
# 1,960 + 200 + 30 weights and 48 biases; of more than 196 weights of fc1 the product is cheaper
NET = nets.make("lenet300_100", widths=(40, 5), classes=3)
MODEL = nets.functional(NET, SHAPE)
PARAMS, STATS = jax.jit(MODEL.init)(jax.random.key(0))
PARAMS = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(1), p.shape), PARAMS)
PRUNABLE = masks.prunable(PARAMS)
IMAGES = jax.random.normal(jax.random.key(2), (EXAMPLES, *SHAPE))
LABELS = jnp.arange(EXAMPLES) % 3
SPACE = spaces.weights(PARAMS, PRUNABLE)
BITS = jax.random.bernoulli(jax.random.key(3), 0.3, (SPACE.size,))
PLAIN = energies.fixed(
    MODEL,
    PARAMS,
    STATS,
    IMAGES,
    LABELS,
    losses.cross_entropy,
    partial(energies.rescaled, prunable=PRUNABLE),
)
LAYER = incremental_energy.first_layer(MODEL, PARAMS, STATS, IMAGES)
FC1 = "fc1/kernel"
FLOOR = tuple(int(n) - 2 for n in spaces.counts(SPACE, BITS))  # refuses many a swap
# what is compiled without much optimisation is compiled sooner
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = partial(jax.jit, compiler_options=QUICK)


def moves(most, columns=None, **limits):
    columns = LAYER.columns(PARAMS, STATS, IMAGES) if columns is None else columns
    inner = swaps.moves(SPACE, most, **limits)
    return incremental_energy.moves(inner, SPACE, LAYER, PARAMS["fc1"]["kernel"], columns)


def kernel(most, by_difference=True, **limits):
    """The kernel of swaps; rescaled weights."""
    rules = annealing.Rules()
    if not by_difference:
        return annealing.build(swaps.moves(SPACE, most, **limits), SPACE.mask, PLAIN, rules)
    at = incremental_energy.fixed(
        LAYER,
        SPACE,
        PARAMS,
        STATS,
        IMAGES,
        LABELS,
        losses.cross_entropy,
        partial(energies.rescaled, prunable=PRUNABLE),
        lambda mask: energies.scales(mask, (FC1,))[FC1],
    )
    return annealing.build(moves(most, **limits), SPACE.mask, PLAIN, rules, at)


def exact(bits):
    """float64: the sums of masks `bits[..., n]`, by numpy."""
    start = SPACE.starts[SPACE.names.index(FC1)]
    kept = np.asarray(bits)[..., start : start + 1960].reshape(*bits.shape[:-1], 49, 40)
    w = np.where(kept, np.asarray(PARAMS["fc1"]["kernel"], float), 0)
    return np.swapaxes(np.asarray(IMAGES, float).reshape(EXAMPLES, 49) @ w, -1, -2)


def plan(steps, sizes, temperature):
    tick = annealing.step_plans(steps, lambda t: 0.0 * t + temperature, lambda t: 0.0 * t + 1)
    return tick._replace(size=jnp.resize(jnp.asarray(sizes, jnp.int32), (steps,)))


def visit(made, key, ticks):
    """A chain's state before and after, and after each step its info, bits, and sums if any."""

    def body(state, tick):
        state, info = made.step(jax.random.fold_in(key, tick.step), tick, state)
        return state, (info, state.walk.bits, getattr(state.walk, "sums", ()))

    begin = made.init(key, BITS)
    return begin, *lax.scan(body, begin, ticks)


# --- along chains --------------------------------------------------------------------------------


@cache
def followed(most):
    """Two chains of 600 steps: under `vmap` if the larger swaps are whole products."""
    sizes = [1, 3, 10, most]
    run = partial(visit, kernel(most), ticks=plan(600, sizes, 0.003))
    batched = jax.vmap if most > 98 else partial(partial, lax.map)
    return jax.tree.map(np.asarray, jit(batched(run))(jax.random.split(KEY, 2)))


@pytest.mark.parametrize("most", [98, 300])
def test_energies_are_those_of_the_visited_masks_all_along(most):
    # swaps of up to 98 change no more than 196 weights; with those of 300 sums are found anew
    _, _, (info, bits, _) = followed(most)
    expected = jit(partial(lax.map, lambda b: PLAIN.evaluate(KEY, SPACE.mask(b))))
    for energy, chain in zip(info.energy, bits, strict=True):
        np.testing.assert_allclose(energy, expected(chain), rtol=2e-5)
    assert (info.accepted.mean(1) > 0.1).all() and (info.accepted.mean(1) < 0.9).all()
    assert len(np.unique(bits[0], axis=0)) > 60
    assert info.energy.std() > 0.01  # energies differ by more than the tolerance


def test_sums_are_those_of_the_visited_masks_but_for_a_drift():
    begin, _, (_, bits, sums) = followed(98)
    off = abs(sums - exact(bits))
    assert 0 < off[:, -100:].max() < 1e-4
    assert abs(begin.walk.sums - exact(begin.walk.bits)).max() < 1e-5


def test_a_refused_proposal_leaves_the_sums_bit_by_bit():
    begin, _, (info, _, sums) = followed(98)
    before = np.concatenate([begin.walk.sums[:, None], sums[:, :-1]], 1)
    same = (before == sums).all((2, 3))
    np.testing.assert_array_equal(same[~info.accepted], True)
    # swaps of three and more hardly ever spare fc1, nine tenths of the weights
    assert (~same[info.accepted & (info.size >= 3)]).all()


def test_the_chain_is_that_of_plain_evaluation():
    made = partial(kernel, 20, floor=FLOOR, tabu=5)
    runs = [
        jit(partial(visit, made(by_difference=by), ticks=plan(60, [1, 4, 20], 0.003)))(KEY)[2]
        for by in (True, False)
    ]
    (info, bits, _), (expected, same, _) = runs
    assert 0.1 < info.accepted.mean() < 0.9
    np.testing.assert_array_equal(info.accepted, expected.accepted)
    np.testing.assert_array_equal(bits, same)
    np.testing.assert_allclose(info.energy, expected.energy, rtol=1e-5)


def test_swaps_of_other_layers_alone_leave_the_sums():
    where = spaces.weights(PARAMS, PRUNABLE, "layer")
    columns = LAYER.columns(PARAMS, STATS, IMAGES)
    made = incremental_energy.moves(
        swaps.moves(where, 10), where, LAYER, PARAMS["fc1"]["kernel"], columns
    )

    @jit
    def proposed(key):
        walk = made.init(key, BITS)
        proposal = made.propose(key, jnp.int32(10), walk)
        return walk.bits, proposal.walk.bits, walk.sums, proposal.walk.sums

    seen = {True: 0, False: 0}
    start = where.starts[where.names.index(FC1)]
    for i in range(12):
        old, new, sums, after = map(np.asarray, proposed(jax.random.key(i)))
        moved = bool((old != new)[start : start + 1960].any())
        seen[moved] += 1
        assert (sums != after).any() == moved
        np.testing.assert_allclose(after, exact(new), atol=1e-5)
    assert min(seen.values()) > 1


def test_refreshing_finds_the_sums_anew_and_tells_the_drift():
    made = kernel(20)
    state = jit(made.init)(KEY, BITS)
    wrong = state.walk.sums.at[7, 3].add(-0.25)
    after, drift = jit(made.refresh)(state._replace(walk=state.walk._replace(sums=wrong)))
    np.testing.assert_allclose(drift, 0.25, atol=1e-5)
    for got, expected in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        if not jnp.issubdtype(got.dtype, jnp.floating):
            np.testing.assert_array_equal(got, expected)
    np.testing.assert_allclose(after.walk.sums, exact(BITS), atol=1e-5)
    plain = kernel(20, by_difference=False)
    assert plain.refresh(state)[1] == 0


# --- the layer -----------------------------------------------------------------------------------


def test_the_rest_of_the_net_is_the_net_from_its_first_sums_on():
    assert (LAYER.path, LAYER.inputs, LAYER.units) == (FC1, 49, 40)
    columns = LAYER.columns(PARAMS, STATS, IMAGES)
    np.testing.assert_array_equal(columns.T, IMAGES.reshape(EXAMPLES, 49))
    sums = columns.T @ PARAMS["fc1"]["kernel"]
    # the kernel itself no longer counts
    others = masks.put(PARAMS, (FC1,), [jnp.full((49, 40), jnp.nan)])
    logits = LAYER.rest(others, STATS, IMAGES, sums)
    np.testing.assert_allclose(logits, MODEL.apply(PARAMS, STATS, IMAGES)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("conv", ["im2col", "lax"])
def test_a_net_that_begins_with_a_convolution_has_no_such_layer(conv):
    model = nets.functional(nets.make("lenet5_lecun", conv=conv), (28, 28, 1))
    shapes = jax.eval_shape(model.init, KEY)
    assert incremental_energy.first_layer(model, *shapes, jnp.zeros((2, 28, 28, 1))) is None


def scaled(params, x):  # the images meet a parameter first
    return (x * params["scale"][None]) @ params["a"] @ params["b"]


def twice(params, x):  # the kernel is read again
    return x @ params["a"] @ params["a"].T @ params["a"]


def transformed(params, x):  # a function of the kernel is read
    return jnp.tanh(x @ jnp.tanh(params["a"])) @ params["b"]


def shortcut(params, x):  # found: the second layer may read the images as well
    return (x**2 @ params["a"] + x[:, :3]) @ params["b"]


@pytest.mark.parametrize(
    ("net", "path"), [(scaled, None), (twice, None), (transformed, None), (shortcut, "a")]
)
def test_only_a_kernel_that_meets_the_images_themselves_is_cut_out(net, path):
    draw = np.random.default_rng(1)
    params = {"a": draw.normal(size=(4, 3)), "b": draw.normal(size=(3, 3)), "scale": np.ones(4)}
    params = {name: leaf.astype("f") for name, leaf in params.items()}
    images = draw.normal(size=(5, 4)).astype("f")
    model = Model(lambda key: (params, {}), lambda p, stats, x: (net(p, x), stats))
    layer = incremental_energy.first_layer(model, params, {}, images)
    assert (layer and layer.path) == path
    if layer:
        columns = layer.columns(params, {}, images)
        np.testing.assert_allclose(columns, images.T**2, rtol=1e-6)
        got = layer.rest(params, {}, images, columns.T @ params["a"])
        np.testing.assert_allclose(got, net(params, images), rtol=1e-5)


# --- the search ----------------------------------------------------------------------------------

TRAIN, VALIDATION = (
    Split(np.asarray(IMAGES), np.asarray(LABELS)),
    Split(np.asarray(IMAGES[:9]) + 0.1, np.asarray(LABELS[:9])),
)
SGD = optimizers.optimizer("sgd", 0.1)
RECIPE = Recipe(
    model=MODEL,
    loss=losses.classification(MODEL, lambda images: images),
    optimizer=lambda rate: optimizers.optimizer("sgd", rate),
    prepare=lambda images: images,
    augment=None,
    batch_size=4,
    every=1,
)
BASE = AnnealingSettings(
    scope="global",
    steps=30,
    chunk=10,
    size=20,
    size_end=2,
    images=0,
    temperature=0.003,
    evaluation="difference",
)


@cache
def search(evaluation):
    """Of three chunks: functions that begin and go on, and what they take."""
    settings = replace(BASE, evaluation=evaluation)
    annealed_settings.check_search(settings)
    bits = annealed_start.first_bits(settings, KEY, SPACE, 0.3)
    most = annealed_start.largest_swap(settings, SPACE, bits[None])
    made = annealed.build(settings, RECIPE, SGD, SearchDomain(SPACE), PRUNABLE, most)
    ticks = annealed_start.step_plans(settings, int(bits.sum()), most)
    row = ChainInputs(jax.random.key(1), KEY, PARAMS, STATS, bits, ticks)
    sight = annealed.search_data(settings, RECIPE.prepare, TRAIN, VALIDATION)
    advance = jit(made.chunk)
    return jit(made.begin)(row, sight), lambda chain, at: advance(row, chain, at, sight)


def test_a_search_by_difference_is_that_by_plain_evaluation():
    ends = []
    for evaluation in ("difference", "plain"):
        chain, go_on = search(evaluation)
        infos, drifts = [], []
        for start in (0, 10, 20):
            chain, info, end = go_on(chain, start)
            infos.append(info)
            drifts.append(float(end.drift))
            assert int(end.hamming) == int((chain.state.walk.bits != chain.state.start).sum())
        info = jax.tree.map(lambda *parts: np.concatenate(parts), *infos)
        ends.append((chain, info, np.array(drifts)))
    (chain, info, drift), (plain, expected, none) = ends
    assert chain.state.walk.sums.shape == (40, EXAMPLES)
    assert 0.05 < info.accepted.mean() < 0.95
    np.testing.assert_array_equal(info.accepted, expected.accepted)
    np.testing.assert_array_equal(chain.chosen, plain.chosen)
    np.testing.assert_array_equal(chain.state.walk.bits, plain.state.walk.bits)
    np.testing.assert_allclose(info.energy, expected.energy, rtol=1e-5)
    # each chunk tells its drift, and leaves none
    assert (drift > 0).all() and (drift < 1e-4).all() and (none == 0).all()
    np.testing.assert_allclose(chain.state.walk.sums, exact(chain.state.walk.bits), atol=3e-6)


def test_a_search_goes_on_from_a_checkpoint_to_the_same_numbers(tmp_path):
    begin, go_on = search("difference")
    chain, _, _ = go_on(begin, 0)
    checkpoints.save(tmp_path, 1, chain)
    restored = checkpoints.restore(tmp_path, begin)
    assert restored is not None
    ends = [go_on(state, 10) for state in (chain, restored[1])]
    for got, expected in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_array_equal(jax.random.key_data(got) if _is_key(got) else got, expected)


def _is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def chosen(most=20, model=MODEL, params=PARAMS, images=IMAGES, prunable=PRUNABLE, **change):
    settings = replace(BASE, **{"evaluation": "auto", **change})
    annealed_settings.check_search(settings)
    return annealed.first_layer(settings, model, params, STATS, images, prunable, most)


def test_auto_takes_differences_where_they_pay(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    # in multiply-adds an example: the product 1,960; a swap of one and the keeping of 40 sums
    # (2 + 40) * 10 = 420, and the share of a product every ten steps 196
    assert chosen() is not None
    assert chosen(evaluation="plain") is None
    # every two steps 980: less than 1,960 - 420 still; every step not
    assert chosen(chunk=2) is not None
    assert chosen(chunk=1) is None
    # swaps of 67 at every step, (134 + 40) * 10 + 196 = 1,936; of 69, 1,976
    assert chosen(67, sizes="constant") is not None
    assert chosen(69, sizes="constant") is None
    assert chosen(69) is not None  # they shrink
    for change in (
        {"energy": "minibatch"},
        {"energy": "trainability"},
        {"granularity": "units"},
        {"proposal": "informed"},
        {"prunable": PRUNABLE[1:]},
    ):
        assert chosen(**change) is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert chosen() is None
    assert chosen(evaluation="difference") is not None


@pytest.mark.parametrize(
    "change",
    [
        {"energy": "minibatch"},
        {"energy": "trainability"},
        {"granularity": "units"},
        {"granularity": "fields"},
        {"proposal": "informed"},
        {"evaluation": "exact"},
        {"prunable": PRUNABLE[1:]},
        {"model": "lenet5"},
    ],
    ids=str,
)
def test_differences_that_can_not_be_raise_one_line(change):
    change = {"evaluation": "difference", **change}
    if change.get("model"):
        model = nets.functional(nets.make("lenet5"), (28, 28, 1))
        change |= {
            "model": model,
            "params": jax.eval_shape(model.init, KEY)[0],
            "images": jnp.zeros((2, 28, 28, 1)),
        }
    with pytest.raises(ValueError, match="evaluation") as error:
        chosen(**change)
    assert "\n" not in str(error.value)
