"""Recipes of papers: they come before presets and after flags, and fit nets of ImageNet's size."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness import flags
from experiments.harness.problem import augmentation_of, optimizer_of, recipe_of
from experiments.harness.settings import check
from experiments.harness.training_recipes import RECIPES
from experiments.harness.training_settings import IDLE, TrainSettings
from jaxtickets import masks, nets, training
from jaxtickets.data import augment
from jaxtickets.dynamic.static import masked
from jaxtickets.io.errors import UserError
from jaxtickets.optimizers import Hyper
from jaxtickets.types import Split

KEY = jax.random.key(0)
OF_NETS = [
    ("alexnet", "alexnet", 61_100_840),
    ("vgg16", "vgg16", 138_365_992),
    ("mobilenet_v2", "mobilenet_v2", 3_504_872),
    ("resnet", "resnet18", 11_689_512),
    ("resnet", "resnet34", 21_797_672),
    ("resnet_warmup", "resnet18", 11_689_512),
]
"""Recipe, net, and its published parameters for 1,000 classes of 224 pixels."""


def settings(name, **changes):
    made = TrainSettings(recipe=name, **RECIPES[name], **changes)
    check(made)
    return made


def normalised(images):
    return augment.normalise(images, (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("side", [112, 224])
@pytest.mark.parametrize(("name", "model", "parameters"), OF_NETS)
def test_every_recipe_has_the_shapes_of_a_whole_step(name, model, parameters, side):
    train, shape = settings(name), (side, side, 3)
    net = nets.functional(nets.make(model, shape=shape, classes=1000, conv="lax"), shape)
    colours = augmentation_of(train, shape, crops=False)
    made = recipe_of(train, net, normalised, None, colours, steps=1000, every=100)

    def step(images, labels):
        params, stats = net.init(KEY)
        optimizer = masked(made.optimizer(Hyper(train.learning_rate, 0)), masks.ones(params))
        state = training.init(params, stats, optimizer, average=made.average)
        batch = Split(made.augment(KEY, images), labels)
        return state, *training.step(made.loss, optimizer, KEY, state, batch, made.parts)

    images = jax.ShapeDtypeStruct((train.batch_size, *shape), jnp.uint8)
    labels = jax.ShapeDtypeStruct((train.batch_size,), jnp.int32)
    before, after, metrics = jax.eval_shape(step, images, labels)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, before)
    assert metrics["loss"].shape == () and bool(after.trained) == bool(train.ema)
    assert after.params["out"]["kernel"].shape[-1] == 1000
    if side == 224:
        assert sum(leaf.size for leaf in jax.tree.leaves(after.params)) == parameters


def test_vgg_16_has_the_papers_parameters_without_its_batch_norms():
    net = nets.functional(nets.make("vgg16", form="large", classes=1000), (224, 224, 3))
    layers = jax.eval_shape(net.init, KEY)[0]
    plain = [leaves for layer, leaves in layers.items() if not layer.startswith("bn")]
    assert sum(leaf.size for leaf in jax.tree.leaves(plain)) == 138_357_544


def test_rates_fall_as_the_papers_say():
    # 10 steps an epoch; the rate of a step is minus the update of sgd on a gradient of one
    def rates(name, epochs, warmup=0):
        train = dataclasses.replace(settings(name), optimizer="sgd", weight_decay=0.0)
        steps = 10 * train.epochs
        sgd = optimizer_of(train, steps)(Hyper(jnp.float32(train.learning_rate), warmup))

        def rate(step):
            state = jax.tree.map(lambda count: jnp.full_like(count, step), sgd.init(0.0))
            return -sgd.update(jnp.float32(1), state)[0]

        return jax.vmap(rate)(jnp.asarray(np.asarray(epochs) * 10, jnp.int32))

    close = partial(np.testing.assert_allclose, rtol=2e-5)
    close(rates("resnet", [0, 29, 31, 61, 91]), [0.1, 0.1, 0.01, 1e-3, 1e-4])
    close(rates("alexnet", [22, 24, 46, 89]), [0.01, 1e-3, 1e-4, 1e-5])
    close(rates("mobilenet_v2", [0, 1, 100]), [0.045, 0.045 * 0.98, 0.045 * 0.98**100])
    # five of 120 epochs of warm-up: step 20 of 50 has 21/50 of the cosine's rate
    cosine = 0.1 * (1 + np.cos(np.pi * 20 / 1200)) / 2
    close(rates("resnet_warmup", [2], warmup=50), [cosine * 21 / 50])


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_training_flags_that_have_an_effect(name):
    fields = {field.name for field in dataclasses.fields(TrainSettings)}
    assert set(RECIPES[name]) <= fields
    values = vars(settings(name))
    assert not [key for key in RECIPES[name] if flags.idle_under(IDLE, key, values)]


@pytest.mark.parametrize(
    ("given", "preset", "expected"),
    [
        # flag, recipe's, preset's, default
        ({"recipe": "resnet"}, {"batch_size": 8, "seeds": 1}, (256, 0.1, 100)),
        ({"recipe": "resnet", "epochs": 3}, {"epochs": 4}, (256, 0.1, 3)),
        ({}, {"recipe": "resnet", "batch_size": 8}, (8, 0.1, 100)),
        ({"recipe": ""}, {"recipe": "resnet", "epochs": 4}, (128, 0.001, 4)),
        ({}, {}, (128, 0.001, 5)),
    ],
)
def test_explicit_flags_come_before_a_recipe_and_that_before_a_preset(
    given, preset, expected, monkeypatch
):
    said = {
        name: SimpleNamespace(present=name in given, value=given.get(name))
        for name in vars(TrainSettings())
    }
    monkeypatch.setattr(flags.flags, "FLAGS", said)
    (train,) = flags.read_all([TrainSettings()], preset)
    assert (train.batch_size, train.learning_rate, train.epochs) == expected


def test_colours_are_changed_after_crops_and_only_of_coloured_images():
    train = TrainSettings(augmented=True, colours="lighting")
    images = jax.random.randint(KEY, (2, 5, 5, 3), 0, 256).astype(jnp.uint8)
    crop_key, colour_key = jax.random.split(KEY)
    expected = augment.lighting(colour_key, augment.standard(crop_key, images))
    np.testing.assert_array_equal(augmentation_of(train, images.shape[1:])(KEY, images), expected)
    assert augmentation_of(TrainSettings(), (5, 5, 3)) is None
    assert augmentation_of(TrainSettings(augmented=True), (5, 5, 1)) is augment.standard
    with pytest.raises(UserError, match="--colours=lighting: the images have 1 channel, not 3"):
        augmentation_of(train, (5, 5, 1))
