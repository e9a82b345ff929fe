"""The benchmark's workloads: calls that anneal, train and convolve, and the work in each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets import losses, masks, nets, optimizers, runs, schedules, training
from jaxtickets.data import augment
from jaxtickets.dynamic.static import masked
from jaxtickets.keys import stream
from jaxtickets.search import annealing, energies, incremental_energy, swaps
from jaxtickets.search import space as spaces
from jaxtickets.types import Model, Params, Split

SHAPE, CLASSES, DENSITY = (28, 28, 1), 10, 0.2
SHAPES = {"conv2": (32, 32, 3), "conv4": (32, 32, 3)}
"""The image shapes of nets that don't get MNIST's."""
FLOAT = 4
"""The bytes of a float32. An element of a mask and a pixel take one byte."""


class Work(NamedTuple):
    """The least work that a call must do.

    Attributes:
      operations: floating-point operations in matrix products and convolutions.
      traffic: bytes read or written of arrays that outlive a step: weights, masks, moments,
        gradients, images, and kept sums. Activations and repeated transfers aren't counted.
    """

    operations: float
    traffic: float

    def times(self, n: int) -> "Work":
        """The work of n such calls."""
        return Work(n * self.operations, n * self.traffic)


Call = tuple[Callable[[], Any], Work]
"""A call that is timed, and its work."""


def normalise(images: jax.Array) -> jax.Array:
    """MNIST's normalisation."""
    return augment.normalise(images, (0.1307,), (0.3081,))


def examples(n: int, shape: tuple[int, ...] = SHAPE) -> Split:
    """Random images and labels."""
    images, labels = (stream(0, "benchmark", name) for name in ("images", "labels"))
    pixels = jax.random.randint(images, (n, *shape), 0, 256).astype(jnp.uint8)
    return Split(pixels, jax.random.randint(labels, (n,), 0, CLASSES))


def net(name: str, shape: tuple[int, ...] = SHAPE, **attributes: Any) -> tuple[Model, Params]:
    """A net as functions, and its parameters."""
    model = nets.functional(nets.make(name, **attributes), shape)
    return model, jax.jit(model.init)(stream(0, "init"))[0]


def training_step(name: str, params: Params, batch: int, moments: int, masked: bool = True) -> Work:
    """The work of a training step of a net.

    Operations are three times those of the forward pass, without the first layer's input gradient,
    which isn't needed. Weights and moments are read and written, gradients are written and read,
    and the mask and the batch are read.

    Args:
      name: the net's name. The names of its layers sort in their order.
      params: its parameters.
      batch: the number of images in a step.
      moments: how many numbers the optimiser keeps for each weight.
      masked: whether there is a mask.
    """
    shape = SHAPES.get(name, SHAPE)
    first, *others = nets.multiply_adds(nets.make(name), shape).values()
    weights = sum(leaf.size for leaf in jax.tree.leaves(params))
    passes = FLOAT * (2 + 2 * moments + 2) + masked
    pixels = shape[0] * shape[1] * shape[2]
    return Work(2.0 * batch * (2 * first + 3 * sum(others)), passes * weights + batch * pixels)


IMAGES = 2000
"""The number of images on which annealing evaluates nets."""


def evaluation(weights: int) -> Work:
    """The work of evaluating a masked multilayer perceptron: weights, mask and images are read."""
    return Work(
        2.0 * weights * IMAGES, (FLOAT + 1) * weights + FLOAT * IMAGES * SHAPE[0] * SHAPE[1]
    )


def difference_evaluation(
    layer: incremental_energy.Layer, weights: int, size: int, steps: int
) -> Work:
    """The work of an incremental evaluation, whose sums are computed in full every `steps` steps.

    Weights, mask and all sums are read. The sums of units that a swap may change are also written,
    and the inputs of the swapped weights are read.
    """
    others = evaluation(weights).operations - 2.0 * layer.weights * IMAGES
    switched = round(2 * size * layer.weights / weights)
    rows = layer.units + min(switched, layer.units) + min(switched, layer.inputs)
    moved = (FLOAT + 1) * weights + FLOAT * IMAGES * (rows + (layer.inputs + layer.units) / steps)
    return Work(others + 2.0 * layer.weights * IMAGES / steps, moved)


def anneal(chains: int, steps: int = 50, size: int = 2000, by_difference: bool = False) -> Call:
    """A call that runs `steps` steps of all chains of masks of `lenet300_100`.

    Args:
      chains: the number of chains.
      steps: the steps of each chain. They form a chunk, after which incremental sums are computed
        in full.
      size: the size of the swaps.
      by_difference: whether energies are incremental.
    """
    model, params = net("lenet300_100", use_bias=False)
    prunable = masks.prunable(params)
    space = spaces.weights(params, prunable)
    moves, axis = swaps.moves(space, most=size), runs.axis()

    def kernel(params: Params, data: Split) -> annealing.Kernel:
        images, labels = data
        energy = energies.fixed(model, params, {}, images, labels, losses.cross_entropy)
        if not by_difference:
            return annealing.build(moves, space.mask, energy, annealing.Rules())
        layer = incremental_energy.first_layer(model, params, {}, data.images)
        assert layer is not None
        at = incremental_energy.fixed(
            layer, space, params, {}, images, labels, losses.cross_entropy
        )
        columns = layer.columns(params, {}, images)
        walk = incremental_energy.moves(moves, space, layer, params["fc1"]["kernel"], columns)
        return annealing.build(walk, space.mask, energy, annealing.Rules(), at)

    def begin(key: jax.Array, params: Params, data: Split) -> tuple[jax.Array, annealing.State]:
        mask_key, init_key, walk_key = jax.random.split(key, 3)
        mask = masks.random(mask_key, params, prunable, round(DENSITY * space.size))
        return walk_key, kernel(params, data).init(init_key, space.bits(mask))

    def search(row: tuple[Any, Any], params: Params, data: Split) -> Any:
        key, state = row
        constant = schedules.constant(1e-3, steps)
        plan = annealing.step_plans(steps, constant, schedules.constant(size, steps))
        made = kernel(params, data)
        state, info = annealing.run(made, key, state, plan)
        return made.refresh(state), info

    data = examples(IMAGES)
    shared = [
        runs.share(tree, axis) for tree in (params, Split(normalise(data.images), data.labels))
    ]
    keys = jax.random.split(stream(0, "benchmark", "chains"), chains)
    rows = runs.batch(begin, axis)(runs.split(keys, axis), *shared)
    advance = runs.batch(search, axis)
    work = evaluation(space.size)
    if by_difference:
        layer = incremental_energy.first_layer(model, params, {}, normalise(data.images))
        assert layer is not None
        work = difference_evaluation(layer, space.size, size, steps)
    return lambda: advance(rows, *shared).blocks, work.times(steps * chains)


def train(nets_: int) -> Call:
    """A call that trains all nets for an epoch of 60,000 images."""
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
    mask = masks.random(stream(0, "benchmark", "mask"), params, masks.prunable(params), 53_240)
    begun = training.watch(training.init(params, {}, masked(recipe.optimizer(rate), mask)))

    def epoch(row: tuple, data: training.Splits) -> Any:
        return training.train_chunk(recipe, row[0], rate, row[1], data, evaluations=1)

    keys = jax.random.split(stream(0, "benchmark", "trainings"), nets_)
    rows = keys, runs.stack([begun] * nets_)
    shared = runs.share(training.Splits(examples(n), examples(128)), axis)
    advance, placed = runs.batch(epoch, axis), runs.split(rows, axis)
    work = training_step("lenet300_100", params, 128, moments=1)
    return lambda: advance(placed, shared).blocks, work.times(recipe.every * nets_)


def level(
    axis: runs.Axis,
    nets_: int = 25,
    steps: int = 200,
    name: str = "lenet300_100",
    images: int = 55_000,
) -> Call:
    """A call that trains the nets of a level for `steps` steps.

    The training is that of the lottery ticket paper: Adam with batches of 60.
    """
    shape = SHAPES.get(name, SHAPE)
    model, params = net(name, shape)
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
    keys = jax.random.split(stream(0, "benchmark", "nets"), nets_)
    keep = round(DENSITY * sum(leaf.size for leaf in masks.pick(params, prunable)))

    def one(key: jax.Array, params: Params, data: training.Splits) -> Any:
        mask_key, train_key = jax.random.split(key)
        mask = masks.random(mask_key, params, prunable, keep)
        return training.train(recipe, train_key, rate, params, {}, mask, data, steps)[0].state

    data = training.Splits(examples(images, shape), examples(60, shape))
    shared = [runs.share(tree, axis) for tree in (params, data)]
    advance, placed = runs.batch(one, axis), runs.split(keys, axis)
    work = training_step(name, params, 60, moments=2)
    return lambda: advance(placed, *shared).blocks, work.times(steps * nets_)


def convolve(name: str, conv: str, mode: str, batch: int, steps: int) -> Call:
    """A call of `steps` gradient steps of 8 nets in a scan, with the given convolution and mode."""
    shape = SHAPES.get(name, SHAPE)
    model, params = net(name, shape, conv=conv)
    loss = losses.classification(model, normalise)
    data = examples(batch, shape)

    def descend(params: Params, data: Split) -> Params:
        def body(params: Params, key: jax.Array) -> tuple[Params, None]:
            gradient, _ = jax.grad(loss, has_aux=True)(params, {}, data, key)
            return jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient), None

        keys = jax.random.split(stream(0, "benchmark", "steps"), steps)
        return jax.lax.scan(body, params, keys)[0]

    axis = runs.axis(mode, 8 if mode == "vmap" else 0)
    rows, shared = runs.split(runs.stack([params] * 8), axis), runs.share(data, axis)
    advance = runs.batch(descend, axis)
    work = training_step(name, params, batch, moments=0, masked=False)
    return lambda: advance(rows, shared).blocks, work.times(steps * 8)
