"""The families' tables with `jax_enable_x64`, on images of 64 bits and weights of 32 or 64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from experiments.harness.named_parts import make_part
from jaxtickets import gates, losses, masks, nets, optimizers, training
from jaxtickets.criteria import CRITERIA
from jaxtickets.dynamic.static import masked
from jaxtickets.search import (
    acceptance,
    annealing,
    chains,
    energies,
    fields,
    incremental_energy,
    independent_draws,
    informed,
    interacting_chains,
    patterns,
    swaps,
    trained_swaps,
)
from jaxtickets.search import space as spaces
from jaxtickets.types import Split

KERNELS = ("fc1/kernel", "fc2/kernel", "out/kernel")
CLASSES = 2


@pytest.fixture(autouse=True)
def sixty_four():
    with jax.enable_x64(True):
        yield


class Net(nn.Module):
    """Dense and batch norm: its statistics would become those of the images' precision."""

    @nn.compact
    def __call__(self, x, train):
        for i, units in enumerate((4, 5), 1):
            x = nn.Dense(units, name=f"fc{i}")(x.reshape(len(x), -1))
            norm = nn.BatchNorm(use_running_average=not train)
            x = jnp.tanh(norm(x))
        return nn.Dense(CLASSES, name="out")(x)


class Setup:
    """A net, its first parameters of float32, and images of float64 with their labels."""

    def __init__(self):
        draw = np.random.default_rng(1)
        self.key = jax.random.key(3)
        self.model = nets.functional(Net(), (3, 1, 1))
        self.params, self.stats = self.model.init(self.key)
        images = jnp.asarray(draw.integers(0, 256, (12, 3, 1, 1)), jnp.uint8)
        self.split = Split(images, jnp.asarray(draw.integers(0, CLASSES, 12)))
        self.batches = jax.tree.map(lambda a: a.reshape(3, 4, *a.shape[1:]), self.split)
        self.loss = losses.classification(self.model, self.prepare)
        self.recipe = training.Recipe(
            self.model, self.loss, self.optimizer, self.prepare, None, batch_size=4, every=2
        )

    def prepare(self, images):
        return images / np.full((1, 1, 1, 1), 64.0) - 2

    def optimizer(self, rate):
        return optimizers.optimizer("adam", rate)


def check_dtypes(tree, kind):
    assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {np.dtype(kind)}


def test_scores_that_32_bits_would_lose_are_ranked():
    scores = jnp.array([1e-300, 2e-300, 1 + 1e-12, 1.0, -1e-300, 0.0, -0.0])
    kept = np.sum([masks.top_k(scores, keep) for keep in range(8)], axis=0)
    np.testing.assert_array_equal(kept, [4, 5, 7, 6, 1, 3, 2])
    tree = {"a": scores[:4], "b": scores[4:].astype("f4")}
    mask = masks.select(tree, ("a", "b"), 3)
    np.testing.assert_array_equal(mask["a"], [False, True, True, True])


def test_criteria(evidence):
    seen = evidence._replace(
        init_params=jax.tree.map(lambda w: jnp.asarray(w, float), evidence.init_params),
        params=jax.tree.map(lambda w: jnp.asarray(w, float), evidence.params),
        prepare=lambda images: images / np.full((1, 1), 64.0) - 2,
    )
    seen = seen._replace(loss=losses.classification(seen.model, seen.prepare))

    @jax.jit
    def table(batches):
        given = jax.random.key(1), seen._replace(batches=batches)
        return {name: criterion.score(*given) for name, criterion in CRITERIA.items()}

    for name, scores in table(seen.batches).items():
        ranked = masks.flatten(scores, KERNELS)
        assert np.isfinite(ranked).all() and len(np.unique(ranked)) == 42, name
        assert masks.count(masks.select(scores, KERNELS, 17), KERNELS) == 17


def test_training_and_gates():
    given = Setup()
    rate, data = jnp.asarray(0.1), training.Splits(given.split, given.split)
    keep = {path: size // 2 for path, size in zip(KERNELS, (12, 20, 10), strict=True)}

    @jax.jit
    def run(params, stats):
        mask = masks.random(given.key, params, KERNELS, keep)
        alone = training.train(given.recipe, given.key, rate, params, stats, mask, data, 4, (2,))
        ends = {"no gate": (alone[0].state.params, alone, mask)}
        for name, gate_of in gates.GATES.items():
            gate = gate_of(KERNELS, keep, steps=4)
            g, begun = gates.start(gate, given.key, params, stats)
            recipe = gates.recipe(gate, given.recipe)
            gated = training.train(recipe, given.key, rate, g, begun, masks.ones(g), data, 4)
            end = gated[0].state.params
            ends[name] = end, gated, gate.harden(end, params)
        for name in optimizers.NAMES:
            chosen = masked(optimizers.optimizer(name, rate, weight_decay=0.1), mask)
            state = training.init(params, stats, chosen)
            rest = training.advance(given.loss, chosen, given.key, state, given.batches)
            ends[name] = rest[0].params, rest, mask
        return ends

    for name, (params, rest, mask) in run(given.params, given.stats).items():
        check_dtypes(params, jnp.float32)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)), name
        assert masks.counts(mask, KERNELS) == keep, name
        if name not in optimizers.NAMES:
            watched, metrics = rest
            assert metrics["loss"].shape == (2,) and watched.loss == metrics["loss"].min()
    seen = training.evaluate(
        given.model, given.prepare, given.params, given.stats, given.split, batch_size=5
    )
    logits, _ = given.model.apply(given.params, given.stats, given.prepare(given.split.images))
    assert seen["loss"].dtype == jnp.float64
    np.testing.assert_allclose(seen["loss"], losses.cross_entropy(logits, given.split.labels))


def test_searches():
    given = Setup()
    params, stats, split, measure = given.params, given.stats, given.split, losses.cross_entropy
    images = given.prepare(split.images)
    scored = given.model, params, stats, images, split.labels, measure
    losses_of_masks = energies.fixed(*scored)
    worth = jnp.linspace(0.1, 0.9, 42, dtype=float)

    def sums(key, mask):
        return jnp.mean(jnp.where(masks.flatten(mask, KERNELS), worth, 0.0))

    cheap = energies.Energy(sums, fresh=False)
    whole, layers = (spaces.weights(params, KERNELS, scope) for scope in spaces.SCOPES[:2])
    slope = informed.fixed(*scored, KERNELS)
    probe = trained_swaps.trained(
        given.model,
        given.loss,
        given.optimizer(0.1),
        params,
        stats,
        lambda key: given.batches,
        images,
        split.labels,
        measure,
        KERNELS,
    )
    walks = {
        "of layers": (layers, swaps.moves(layers, 3, floor=(1, 1, 1), tabu=3)),
        "informed": (whole, informed.moves(whole, 3, slope, 8)),
        "corrected": (layers, informed.moves(layers, 3, slope, 8, corrected=True)),
        "anew": (whole, independent_draws.moves(whole, 3)),
        "rewired": (layers, trained_swaps.moves(layers, 3, probe)),
    }
    pattern = spaces.weights(params, KERNELS, spaces.PATTERN, 2)
    walks["patterns"] = pattern, patterns.moves(pattern, 3)
    assert len(walks) >= len(acceptance.ACCEPTANCES)
    plan = annealing.step_plans(3, lambda t: 0.1 + 0.0 * t, lambda t: 3.0 - t)

    def search(moves, mask_of, point, rules, energy=cheap):
        kernel = annealing.build(moves, mask_of, energy, rules)
        state = kernel.init(given.key, point)
        if energy is not cheap:
            state = annealing.burn_in(kernel, given.key, state, jnp.int32(2), 2, 0.5)

        def validate(mask):
            return energy.evaluate(given.key, mask)

        chain = chains.begin(state)
        return chains.chunk(kernel, energy, mask_of, validate, given.key, chain, plan)[:2]

    def start(where):
        keep = {name: size // 2 for name, size in zip(where.names, where.sizes, strict=True)}
        return spaces.choose(where, jax.random.uniform(given.key, (where.size,)), keep)

    @jax.jit
    def table():
        ends = {}
        moves, adapted = swaps.moves(whole, 3), annealing.Rules(target=0.5)
        ends["loss"] = search(moves, whole.mask, start(whole), adapted, losses_of_masks)
        rules = itertools.cycle(acceptance.ACCEPTANCES.values())
        for (name, (where, moves)), accept in zip(walks.items(), rules, strict=False):
            rule = annealing.Rules(accept)
            ends[name] = search(moves, where.mask, start(where), rule)
        chosen = fields.space(params, KERNELS, ("chance",), ("output",), (3, 1, 1))
        features = (masks.random_scores(given.key, params, KERNELS),)

        def mask_of(field):
            return fields.mask(chosen, features, 21, 0, field)

        ends["fields"] = search(
            fields.moves(chosen), mask_of, fields.flat(chosen, (1.0,)), annealing.Rules()
        )
        return ends

    for name, (chain, info) in table().items():
        assert np.isfinite(info.energy).all(), name
        assert chain.chosen_score == chain.state.best_energy, name
        assert info.energy.dtype == jnp.float64, name
        if name != "fields":
            assert chain.chosen.sum() == chain.state.start.sum(), name
    assert (
        incremental_energy.first_layer(given.model, params, stats, images.astype("f4")) is not None
    )


@pytest.mark.parametrize("name", sorted(set(interacting_chains.INTERACTIONS) - {"none"}))
def test_chains_meet(name, mlp):
    where = spaces.weights(mlp, KERNELS)
    energy = energies.Energy(
        lambda key, mask: jnp.mean(jnp.where(where.bits(mask), 1.0, 0.1)), False
    )
    kernel = annealing.build(swaps.moves(where, 2), where.mask, energy, annealing.Rules())
    known = {"ladder": 4.0, "replaced": 0.3, "space": where, "floor": 1}
    group = make_part(interacting_chains.INTERACTIONS[name], known)

    @jax.jit
    def interactions(key):
        first = jnp.arange(where.size) < 9
        states = jax.vmap(lambda k: kernel.init(k, first))(jax.random.split(key, 3))
        states, memory = group.begin(states)
        between = interacting_chains.Between(jnp.int32(4), jnp.float32(0.1), jnp.float32(0.05))
        for _ in range(2):
            kinds = jax.tree.map(jnp.result_type, (states, memory))
            states, memory = group.interact(key, kernel, states, memory, between)
            assert jax.tree.map(jnp.result_type, (states, memory)) == kinds
        return states

    states = interactions(jax.random.key(2))
    assert np.isfinite(states.energy).all() and (states.walk.bits.sum(1) == 9).all()
