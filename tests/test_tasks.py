"""Tasks: classes, numbers and next tokens, in training, evaluation and criteria."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import losses, masks, nets, training
from jaxtickets.criteria import CRITERIA, Evidence, grasp
from jaxtickets.losses import CLASSIFICATION, NEXT_TOKEN, REGRESSION
from jaxtickets.training import Recipe, Splits
from jaxtickets.types import Split

KEY = jax.random.key(0)
TABLE = jnp.log(jnp.array([[0.25, 0.75], [0.5, 0.5]]))
WORDS = nets.functional_plain(lambda params, tokens: params["w"][tokens], {"w": TABLE})
LINE = nets.functional_plain(lambda params, x: x @ params["w"], {"w": jnp.ones((2, 1))})
TOKENS = Split(jnp.array([[0, 1, 0], [1, 1, 1], [0, 0, 1]]), jnp.zeros(3))
POINTS = Split(jnp.array([[1.0, 2], [3, 4], [0, 1]]), jnp.array([[1.0], [4], [1]]))
PLANE = nets.functional_plain(
    lambda params, x: x @ params["w"], {"w": jnp.array([[0.3, -0.2, 0.1], [0.5, 0.4, -0.6]])}
)
CLASSES = Split(POINTS.images, jnp.array([2, 0, 1]))
NETS = {
    "classes": (CLASSIFICATION, PLANE, CLASSES),
    "numbers": (REGRESSION, LINE, POINTS),
    "tokens": (NEXT_TOKEN, WORDS, TOKENS),
}


def same(inputs):
    return inputs


@pytest.fixture(params=NETS)
def asked(request):
    """The task, the evidence of three examples in three batches, and all examples."""
    task, model, split = NETS[request.param]
    params, stats = model.init(KEY)
    batches = jax.tree.map(lambda a: a[:, None], split)
    loss = losses.of_task(task, model, same)
    ones = masks.ones(params)
    seen = Evidence(params, params, stats, ones, batches, loss, model, same, ("w",), task)
    return task, seen, split


def test_a_task_can_be_the_key_of_a_compiled_program():
    assert len({task for task, *_ in NETS.values()}) == 3


def test_the_loss_of_numbers_by_hand():
    loss = losses.of_task(REGRESSION, LINE, same, lambda params: 10.0)
    batch = jax.tree.map(lambda a: a[:2], POINTS)
    params, stats = LINE.init(KEY)
    # the outputs are 3 and 7: errors 2 and 3, squares 4 and 9
    value, (_, metrics) = loss(params, stats, batch, KEY)
    assert value == 16.5 and metrics["squared_error"] == 6.5
    with pytest.raises(ValueError, match="the targets"):
        loss(params, stats, batch._replace(labels=jnp.ones(2)), KEY)


def test_the_loss_of_next_tokens_by_hand():
    loss = losses.of_task(NEXT_TOKEN, WORDS, same)
    one = jax.tree.map(lambda a: a[:1], TOKENS)
    value, (_, metrics) = loss(*WORDS.init(KEY), one, KEY)
    # after 0 comes 1, with 3/4; after 1 comes 0, with 1/2, and is the first of two equals
    np.testing.assert_allclose(value, -(np.log(0.75) + np.log(0.5)) / 2, rtol=1e-6)
    assert metrics["accuracy"] == 1.0


@pytest.mark.parametrize("batch_size", [2, 1000])
def test_an_evaluation_is_the_mean_over_all_examples(asked, batch_size):
    task, seen, split = asked
    found = training.evaluate(
        seen.model, same, seen.params, seen.stats, split, batch_size, task=task
    )
    value, (_, metrics) = seen.loss(seen.params, seen.stats, split, KEY)
    assert set(found) == {"loss", *dict(task.measures)}
    for name, expected in {**metrics, "loss": value}.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)


def test_a_training_reports_the_tasks_own_measures(asked):
    task, seen, split = asked
    recipe = Recipe(
        seen.model, seen.loss, lambda rate: optax.sgd(rate), same, None, 3, 2, 1, task=task
    )
    data = Splits(split, split, split)
    _, metrics = training.train(
        recipe, KEY, jnp.float32(0.05), seen.params, seen.stats, seen.mask, data, steps=8
    )
    names = {kind + name for name, _ in task.measures for kind in ("", "train_", "test_")}
    assert set(metrics) == {"step", "loss", "train_loss", *names}
    assert metrics["loss"][-1] < metrics["loss"][0]
    ((name, _),) = task.measures
    np.testing.assert_allclose(metrics["test_" + name], metrics[name])


def test_second_derivatives_are_those_of_the_loss_where_outputs_are_linear(asked):
    _, seen, split = asked

    def mean(params):
        return seen.loss(params, seen.stats, split, KEY)[0]

    hessian = jax.hessian(mean)(seen.params)["w"]["w"]
    size = seen.params["w"].size
    diagonal = jnp.diagonal(hessian.reshape(size, size)).reshape(seen.params["w"].shape)
    found = CRITERIA["obd"].score(KEY, seen)["w"]
    np.testing.assert_allclose(found, diagonal * seen.params["w"] ** 2 / 2, rtol=1e-5, atol=1e-7)


def test_fisher_squares_the_gradient_of_each_example(asked):
    _, seen, split = asked
    each = [
        jax.grad(lambda params, i=i: seen.loss(params, {}, split_at(split, i), KEY)[0])(seen.params)
        for i in range(3)
    ]
    squares = np.mean([np.square(one["w"]) for one in each], 0)
    found = CRITERIA["fisher"].score(KEY, seen)["w"]
    np.testing.assert_allclose(found, squares * seen.params["w"] ** 2 / 2, rtol=1e-5, atol=1e-8)


def split_at(split, i):
    return jax.tree.map(lambda a: a[i : i + 1], split)


def test_grasp_is_the_weight_times_the_hessian_times_the_gradient(asked):
    _, seen, split = asked

    def mean(params):
        return seen.loss(params, {}, split, KEY)[0]

    slope = jax.grad(mean)
    product = jax.jvp(slope, (seen.params,), (slope(seen.params),))[1]["w"]
    found = grasp.score(KEY, seen, temperature=1.0)["w"]
    np.testing.assert_allclose(found, seen.params["w"] * product, rtol=1e-4, atol=1e-7)


def test_synflow_has_no_image_of_ones_for_tokens():
    params, stats = WORDS.init(KEY)
    batches = jax.tree.map(lambda a: a[:, None], TOKENS)
    seen = Evidence(params, params, stats, None, batches, None, WORDS, same, None, NEXT_TOKEN)
    with pytest.raises(ValueError, match="reads tokens; take another"):
        CRITERIA["synflow"].score(KEY, seen)
