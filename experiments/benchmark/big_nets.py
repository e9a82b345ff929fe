"""A training step of nets for photographs: images a second, and the memory that it takes.

This is a group of the benchmark: `python -m experiments.benchmark --only=big_nets`. A step is that
of a paper's recipe, with masks, momentum or RMSProp, averaged weights where the recipe has them,
and 1,000 classes. Memory is what the compiler says that the step holds at once: its arguments,
results and temporary arrays.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.benchmark import workloads
from experiments.benchmark.measured import Row, compared
from experiments.harness import timing
from experiments.harness.flags import whole_numbers
from experiments.harness.problem import recipe_of
from experiments.harness.settings import Bounds, choose
from experiments.harness.training_recipes import RECIPES
from experiments.harness.training_settings import TrainSettings
from jaxtickets import masks, nets, training
from jaxtickets.data import augment
from jaxtickets.dynamic.static import masked
from jaxtickets.keys import stream
from jaxtickets.optimizers import Hyper
from jaxtickets.types import Split

NETS = {
    "alexnet": "alexnet",
    "vgg16": "vgg16",
    "mobilenet_v2": "mobilenet_v2",
    "resnet18": "resnet",
    "resnet34": "resnet",
}
"""Net -> the recipe of its training."""
PIXELS = (64, 112, 224)
DENSITY = 0.2


class Variant(NamedTuple):
    """How a step is computed.

    Attributes:
      dtype: of products and activations.
      remat: whether activations are computed again in the backward pass.
      parts: the number of parts of the batch.
    """

    dtype: Any = jnp.float32
    remat: bool = False
    parts: int = 1


VARIANTS = {
    "float32": Variant(),
    "float32, computed again": Variant(remat=True),
    "float32, 4 parts": Variant(parts=4),
    "bfloat16": Variant(jnp.bfloat16),
    "bfloat16, computed again": Variant(jnp.bfloat16, remat=True),
}
"""The first is what the others are compared with."""


def cases(models: Sequence[str], pixels: Sequence[str]) -> tuple[list[str], list[int]]:
    """The nets and the image sizes that two flags ask for.

    Raises:
      UserError: there is no such net, or a size isn't a whole number from 32 to 1,024.
    """
    sides = whole_numbers("pixels", pixels, Bounds(least=32, most=1024))
    return [choose("net", model, NETS) for model in models], list(sides)


class Step(NamedTuple):
    """A compiled training step.

    Attributes:
      call: takes the step.
      memory: the bytes that it holds at once.
    """

    call: Callable[[], Any]
    memory: int


def rows(
    models: Sequence[str] = ("mobilenet_v2", "resnet18"),
    pixels: Sequence[int] = PIXELS[:1],
    batch: int = 16,
    repeats: int = 2,
) -> Iterator[Row]:
    """Speed and memory of each net at each image size, in each of `VARIANTS`.

    Args:
      models: of `NETS`.
      pixels: the sides of the images.
      batch: images in a step; a multiple of four.
      repeats: the number of steps of which the quickest counts.
    """
    for model in models:
        for side in pixels:
            whole = None
            for name, variant in VARIANTS.items():
                made = step_of(model, side, batch, variant)
                seconds, memory = timing.best_time(made.call, repeats), made.memory
                speed = batch / seconds
                whole = whole or (speed, memory)
                label = f"{model}, {side} pixels, batch {batch}, {name}"
                row = Row(label, speed, "images/s")
                yield compared(row, speed / whole[0], "times float32's speed")
                row = Row(f"{label}, memory", memory / 2**20, "MiB")
                yield compared(row, memory / whole[1], "times float32's memory")


def step_of(model: str, side: int, batch: int, variant: Variant = VARIANTS["float32"]) -> Step:
    """A masked training step of a net on random images, compiled for the first device."""
    recipe, shape = NETS[model], (side, side, 3)
    attributes = {"remat": True} if variant.remat else {}
    net = nets.make(model, shape=shape, classes=1000, **attributes)
    train = TrainSettings(**RECIPES[recipe] | {"batch_size": batch, "accumulate": variant.parts})
    prepare = partial(
        augment.normalise,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        dtype=variant.dtype,
    )
    functions = nets.functional(net, shape)
    made = recipe_of(train, functions, prepare, None, None, steps=1000, every=1000)

    def begin() -> training.TrainState:
        params, stats = functions.init(stream(0, "init"))
        prunable = masks.prunable(params)
        keep = round(DENSITY * masks.size(params, prunable))
        mask = masks.random(stream(0, "benchmark", "mask"), params, prunable, keep)
        optimizer = masked(made.optimizer(hyper), mask)
        return training.init(params, stats, optimizer, average=made.average)

    def step(state: training.TrainState, batch: Split) -> training.TrainState:
        optimizer = masked(made.optimizer(hyper), state.mask)
        key = stream(0, "benchmark", "steps")
        return training.step(made.loss, optimizer, key, state, batch, made.parts)[0]

    hyper = Hyper(train.learning_rate, 0)
    held, images = [jax.jit(begin)()], workloads.examples(batch, shape)
    compiled = jax.jit(step, donate_argnums=0).lower(held[0], images).compile()

    def call() -> training.TrainState:
        held[0] = compiled(held[0], images)
        return held[0]

    found = compiled.memory_analysis()
    assert found is not None
    return Step(
        call=call,
        memory=found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
        + found.temp_size_in_bytes,
    )
