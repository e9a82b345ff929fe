"""What is traced once: for all rows, chunks, densities, rates and seeds of equal shapes."""

from functools import partial
from operator import itemgetter

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import masks, runs, training
from jaxtickets.dynamic import granet, static
from jaxtickets.dynamic.drop_and_grow import MovePlan
from jaxtickets.search import annealing, chains, space, swaps
from jaxtickets.search.energies import saliency

KEY = jax.random.key(0)


def traced_once(function):
    """The jitted function; it raises when it is traced for the second time.

    Its `eval_shape` traces as a call does, and compiles nothing.
    """
    chex.clear_trace_counter()  # which counts by a function's text
    return jax.jit(chex.assert_max_traces(function, n=1))


def test_a_second_trace_is_an_error():
    double = traced_once(lambda x: 2 * x)
    assert double(jnp.ones(3)).shape == double.eval_shape(jnp.zeros(3)).shape == (3,)
    with pytest.raises(AssertionError, match="is traced > 1 times"):
        double.eval_shape(jnp.ones(4))


@pytest.mark.parametrize("target", [None, 0.3], ids=["planned", "adapted"])
def test_an_annealing_step_is_traced_once_for_all_chunks_densities_and_seeds(mlp, target):
    where = space.weights(mlp, masks.prunable(mlp))
    energy = saliency(mlp, where.names)
    kernel = annealing.build(
        swaps.moves(where, 4), where.mask, energy, annealing.Rules(target=target)
    )

    @traced_once
    def chunk(key, chain, plans):
        validate = partial(energy.evaluate, key)
        return chains.chunk(kernel, energy, where.mask, validate, key, chain, plans)[0]

    for seed, ones, temperature in ((0, 5, 1.0), (1, 30, 0.1)):
        key = jax.random.key(seed)
        bits = jnp.arange(where.size) < ones
        chain = jax.eval_shape(lambda: chains.begin(kernel.init(key, bits)))  # noqa: B023
        plans = annealing.step_plans(6, lambda t: temperature / (t + 1), lambda t: 4 - t)  # noqa: B023
        for begin in (0, 3):
            piece = jax.tree.map(itemgetter(slice(begin, begin + 3)), plans)
            chain = chunk.eval_shape(key, chain, piece)
        assert chain.state.best.shape == (where.size,)


def granet_of(inner, mask, fill, hyper):
    del fill, hyper
    rounds = MovePlan(np.array([9, 8]), np.array([2, 0]))
    return granet.granet(inner, mask, masks.prunable(mask), rounds, 2)


@pytest.mark.parametrize("sparsify", [static.sparsify, granet_of], ids=["masked", "granet"])
def test_a_sparse_training_is_traced_once_for_all_chunks_densities_rates_and_seeds(
    sparsify, evidence
):
    @traced_once
    def advance(key, rate, state, batches):
        optimizer = sparsify(optax.adam(rate), state.mask, None, ())
        return training.advance(evidence.loss, optimizer, key, state, batches)[0]

    prunable = masks.prunable(evidence.params)
    for seed, keep, rate in ((0, 12, 0.1), (1, 40, 0.01)):
        key = jax.random.key(seed)

        def begin(key):
            mask = masks.random(key, evidence.params, prunable, keep)  # noqa: B023
            optimizer = sparsify(optax.adam(rate), mask, None, ())  # noqa: B023
            return training.init(evidence.params, {}, optimizer)

        state = jax.eval_shape(begin, key)
        for _ in range(2):
            state = advance.eval_shape(key, rate, state, evidence.batches)
        assert state.step.dtype == jnp.int32


def test_selection_is_traced_once_for_all_counts_of_any_kind(mlp, monkeypatch):
    monkeypatch.setattr(masks, "_top_k", traced_once(masks._top_k.__wrapped__))
    prunable = masks.prunable(mlp)
    for keep in (3, np.int64(20), jnp.int32(7), jnp.uint8(9)):
        assert masks.count(masks.select(mlp, prunable, keep), prunable) == keep


@pytest.mark.parametrize(("mode", "width"), [("map", 1), ("map", 2), ("vmap", 2)])
def test_a_batch_over_runs_is_traced_once_for_all_rows_blocks_and_devices(mode, width, cpus):
    chex.clear_trace_counter()

    def one(row, data):
        return jnp.sum(row["rate"] * data)

    axis = runs.axis(mode, width, cpus[:2])
    call, data = runs.batch(chex.assert_max_traces(one, n=1), axis), runs.share(np.ones(3), axis)
    for many in (4, 7):
        rows = {"rate": np.arange(many, dtype="f")}
        np.testing.assert_array_equal(
            runs.join(call(runs.split(rows, axis), data)), 3 * rows["rate"]
        )
