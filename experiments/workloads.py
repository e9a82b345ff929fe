"""What the benchmark measures: calls that anneal, train and convolve, and their operations."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxtickets import losses, masks, nets, optimizers, runs, schedules, training
from jaxtickets.data import augment
from jaxtickets.search import annealing, difference, energies, swaps
from jaxtickets.search import space as spaces
from jaxtickets.types import Model, Params, Split

SHAPE, CLASSES, DENSITY = (28, 28, 1), 10, 0.2
TRAINING_FLOPS = 1.13e6
"""Of a training step of `lenet300_100`, an image: the first layer has no input gradient."""


def normalise(images: jax.Array) -> jax.Array:
    """MNIST's normalisation."""
    return augment.normalise(images, (0.1307,), (0.3081,))


def examples(n: int, shape: tuple[int, ...] = SHAPE) -> Split:
    """Random images and labels."""
    images, labels = jax.random.split(jax.random.key(0))
    pixels = jax.random.randint(images, (n, *shape), 0, 256).astype(jnp.uint8)
    return Split(pixels, jax.random.randint(labels, (n,), 0, CLASSES))


def net(name: str, shape: tuple[int, ...] = SHAPE, **attributes: Any) -> tuple[Model, Params]:
    """A net as functions, and its parameters."""
    model = nets.functional(nets.make(name, **attributes), shape)
    return model, jax.jit(model.init)(jax.random.key(0))[0]


def anneal(
    chains: int, steps: int = 50, size: int = 2000, by_difference: bool = False
) -> tuple[Callable[[], Any], float]:
    """A call that runs `steps` steps of all chains, and its operations: whole forward passes alone.

    Args:
      chains: how many.
      steps: of each; they are a chunk, after which sums kept by differences are found anew.
      size: of the swaps.
      by_difference: whether energies are.
    """
    model, params = net("lenet300_100", use_bias=False)
    prunable = masks.prunable(params)
    space = spaces.weights(params, prunable)
    moves, axis = swaps.moves(space, most=size), runs.axis()

    def kernel(params: Params, data: Split) -> annealing.Kernel:
        given: Any = (params, {}, *data, losses.cross_entropy)
        whole = space.mask, energies.fixed(model, *given), annealing.Rules()
        if not by_difference:
            return annealing.build(moves, *whole)
        layer = difference.first_layer(model, params, {}, data.images)
        assert layer is not None
        kept = params["fc1"]["kernel"], layer.columns(params, {}, data.images)
        at = difference.fixed(layer, space, *given)
        return annealing.build(difference.moves(moves, space, layer, *kept), *whole, at)

    def begin(key: jax.Array, params: Params, data: Split) -> annealing.State:
        mask = masks.random(key, params, prunable, round(DENSITY * space.size))
        return kernel(params, data).init(key, space.bits(mask))

    def search(row: tuple[Any, Any], params: Params, data: Split) -> Any:
        key, state = row
        constant = schedules.constant(1e-3, steps)
        plan = annealing.plan(steps, constant, schedules.constant(size, steps))
        made = kernel(params, data)
        state, info = annealing.run(made, key, state, plan)
        return made.refresh(state), info

    data = examples(2000)
    shared = [
        runs.share(tree, axis) for tree in (params, Split(normalise(data.images), data.labels))
    ]
    keys = jax.random.split(jax.random.key(1), chains)
    states = runs.join(runs.batch(begin, axis)(runs.split(keys, axis), *shared))
    rows = runs.split((keys, states), axis)
    advance = runs.batch(search, axis)
    return lambda: advance(rows, *shared).blocks, 2.0 * space.size * 2000 * steps * chains


def train(nets_: int) -> tuple[Callable[[], Any], float]:
    """A call that trains all nets for an epoch of 60,000 images, and its operations."""
    model, params = net("lenet300_100", use_bias=False)
    axis, n = runs.axis(), 60_000
    recipe = training.Recipe(
        model=model,
        loss=losses.classification(model, normalise),
        optimizer=lambda rate: optimizers.optimizer("momentum", rate),
        prepare=normalise,
        augment=None,
        batch_size=128,
        every=n // 128,
    )
    rate = jnp.float32(0.1)
    mask = masks.random(jax.random.key(2), params, masks.prunable(params), 53_240)
    begun = training.watch(training.init(params, {}, mask, recipe.optimizer(rate)))

    def epoch(row: tuple, data: training.Splits) -> Any:
        return training.piece(recipe, row[0], rate, row[1], data, looks=1)

    rows = (jax.random.split(jax.random.key(3), nets_), runs.stack([begun] * nets_))
    shared = runs.share(training.Splits(examples(n), examples(128)), axis)
    advance, placed = runs.batch(epoch, axis), runs.split(rows, axis)
    operations = TRAINING_FLOPS * recipe.every * 128 * nets_
    return lambda: advance(placed, shared).blocks, operations


def level(axis: runs.Axis, nets_: int = 25, steps: int = 200) -> tuple[Callable[[], Any], float]:
    """A call that trains the nets of a level for `steps` steps, and its operations.

    As the lottery ticket paper trains `lenet300_100`: Adam, batches of 60, 55,000 images.
    """
    model, params = net("lenet300_100")
    recipe = training.Recipe(
        model=model,
        loss=losses.classification(model, normalise),
        optimizer=lambda rate: optimizers.optimizer("adam", rate),
        prepare=normalise,
        augment=None,
        batch_size=60,
        every=steps,
    )
    rate, prunable = jnp.float32(1.2e-3), masks.prunable(params)
    keys = jax.random.split(jax.random.key(2), nets_)

    def one(key: jax.Array, params: Params, data: training.Splits) -> Any:
        mask = masks.random(key, params, prunable, 53_240)
        return training.train(recipe, key, rate, params, {}, mask, data, steps)[0].state

    data = training.Splits(examples(55_000), examples(60))
    shared = [runs.share(tree, axis) for tree in (params, data)]
    advance, placed = runs.batch(one, axis), runs.split(keys, axis)
    return lambda: advance(placed, *shared).blocks, TRAINING_FLOPS * 60 * steps * nets_


def convolve(name: str, conv: str, mode: str, batch: int, steps: int) -> Callable[[], Any]:
    """A call of `steps` gradients of 8 nets in a scan, with one convolution and one mode."""
    shape = (32, 32, 3) if name == "conv2" else SHAPE
    model, params = net(name, shape, conv=conv)
    loss = losses.classification(model, normalise)
    data = examples(batch, shape)

    def descend(params: Params, data: Split) -> Params:
        def body(params: Params, key: jax.Array) -> tuple[Params, None]:
            gradient, _ = jax.grad(loss, has_aux=True)(params, {}, data, key)
            return jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient), None

        return jax.lax.scan(body, params, jax.random.split(jax.random.key(0), steps))[0]

    axis = runs.axis(mode, 8 if mode == "vmap" else 0)
    rows, shared = runs.split(runs.stack([params] * 8), axis), runs.share(data, axis)
    advance = runs.batch(descend, axis)
    return lambda: advance(rows, shared).blocks
