"""Soft filter pruning: which filters are zeroed, what is left alone, and that they grow again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness.problem import build, on_device
from experiments.harness.seeds import seed, training_key
from experiments.harness.training_settings import NetSettings, TrainSettings
from jaxtickets import masks, nets, training
from jaxtickets.compress import graph, unit_selection
from jaxtickets.criteria import Evidence
from jaxtickets.criteria.units import find_unit
from jaxtickets.dynamic.static import masked
from jaxtickets.recipes import soft_filter_pruning, structured

MNIST = (28, 28, 1)


def drawn(net):
    """Parameters without zeros, without a program."""
    shapes, _ = jax.eval_shape(nets.functional(net, MNIST).init, jax.random.key(0))
    draw = np.random.default_rng(2)
    return jax.tree.map(lambda a: jnp.asarray(draw.standard_normal(a.shape), jnp.float32), shapes)


def test_the_smallest_filters_of_each_layer_are_zeroed_with_their_biases_and_nothing_else():
    net = nets.make("lenet5_29k", widths=(4, 3, 6))
    params, found = drawn(net), graph.trace(net, MNIST)
    zeroed = soft_filter_pruning.zeroing(find_unit("l2"), found, 0.5, 1, 1)(params)
    for layer, keep in (("conv1", 2), ("conv2", 2), ("fc1", 3)):  # round(1.5) is 2
        kernel = np.asarray(params[layer]["kernel"])
        norms = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0)
        stays = np.argsort(norms)[-keep:]
        on = np.isin(np.arange(len(norms)), stays)
        np.testing.assert_array_equal(zeroed[layer]["kernel"], np.where(on, kernel, 0))
        bias = np.asarray(params[layer]["bias"])
        np.testing.assert_array_equal(zeroed[layer]["bias"], np.where(on, bias, 0))
        np.testing.assert_array_equal(soft_filter_pruning.standing(zeroed, found.wiring)[layer], on)
    jax.tree.map(np.testing.assert_array_equal, zeroed["out"], params["out"])


@pytest.mark.parametrize("method", soft_filter_pruning.METHODS)
def test_under_tracing_too_the_choice_is_the_criterions_by_layer(method):
    net = nets.make("lenet300_100", widths=(9, 7))
    params, found = drawn(net), graph.trace(net, MNIST)
    criterion = structured.find_method(method.removeprefix(soft_filter_pruning.SOFT), 0.8)
    zeroed = jax.jit(soft_filter_pruning.zeroing(criterion, found, 0.4, 3, 2))(params)
    seen = Evidence(params, params, {}, None, None, None)
    scores = criterion.score(jax.random.key(1), seen, found.wiring)
    expected = unit_selection.by_layer(found, scores, 0.4, 3, 2)
    assert [int(mask.sum()) for mask in expected.values()] == [4, 4]
    units = soft_filter_pruning.standing(zeroed, found.wiring)
    for name, mask in expected.items():
        np.testing.assert_array_equal(units[name], mask)


def test_channels_that_stages_share_are_zeroed_together_and_batch_norms_stay():
    net = nets.make("resnet20", widths=(4, 4, 4, 4, 6, 4, 4, 4, 8, 4, 4, 4))
    params, found = drawn(net), graph.trace(net, MNIST)
    zeroed = soft_filter_pruning.zeroing(find_unit("l2"), found, 0.5, 1, 1)(params)
    stays = {}
    for group in found.wiring:
        for layer in group.producers:
            on = np.asarray(zeroed[layer]["kernel"] != 0).any((0, 1, 2))
            for unit, there in zip(found.units[group.name], on, strict=True):
                assert stays.setdefault(int(unit), bool(there)) == there
    assert sum(stays.values()) == 2 + 1 + 1 + 9 * 2  # of 4, 2 and 2 channels of the stream
    for path, before, after in zip(
        masks.paths(params), jax.tree.leaves(params), jax.tree.leaves(zeroed), strict=True
    ):
        if "/kernel" not in path or path.startswith("out"):
            np.testing.assert_array_equal(before, after)


def test_zeroed_filters_grow_again_until_they_are_chosen_again():
    train = TrainSettings(batch_size=500, epochs=1, learning_rate=0.02)
    problem = build(NetSettings(model="lenet300_100", widths="12,10"), train, "", False)
    found, one = graph.trace(problem.net, MNIST), seed(problem, 0)
    zero = soft_filter_pruning.zeroing(find_unit("l2"), found, 0.5, 1, 1)
    recipe, data = (
        problem.recipe._replace(every=3, before_evaluation=zero),
        on_device(problem.dataset),
    )
    splits = training.Splits(data.train, data.validation)
    begun = training.init(
        one.params, one.stats, masked(recipe.optimizer(problem.hyper), masks.ones(one.params))
    )

    @jax.jit
    def run(watched):
        return training.train_chunk(recipe, training_key(one), problem.hyper, watched, splits, 1)[0]

    first = run(training.watch(begun))
    free = training.train_chunk(
        recipe._replace(every=1, before_evaluation=None),
        training_key(one),
        problem.hyper,
        first,
        splits,
        1,
    )[0]
    off = [
        ~mask for mask in soft_filter_pruning.standing(first.state.params, found.wiring).values()
    ]
    assert [int(mask.sum()) for mask in off] == [6, 5]
    grown = soft_filter_pruning.standing(free.state.params, found.wiring).values()
    assert all(after[before].all() for before, after in zip(off, grown, strict=True))
    last = soft_filter_pruning.standing(run(first).state.params, found.wiring)
    assert [int(mask.sum()) for mask in last.values()] == [6, 5]
