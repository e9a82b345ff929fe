"""What a grid would cost: its trainings and steps, the operations of a step, and estimated days.

Nothing is trained and no data are needed. A step is that of the planned net and batch, compiled for
shapes alone; its operations and bytes are those of XLA's cost analysis (see `StepCost`), with
convolutions as accelerators get them (`lax`). The rate of this machine is measured on random
images.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments.harness import setup, timing
from experiments.harness.flags import whole_numbers
from experiments.harness.training_settings import NetSettings, TrainSettings
from experiments.ticket_grid.settings import Question
from jaxtickets import losses, masks, nets, optimizers, training
from jaxtickets.data import augment
from jaxtickets.data.sources import IMAGENET, SOURCES, STREAMED, Source
from jaxtickets.dynamic.static import masked
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream
from jaxtickets.types import Key, Split, TrainState

DAY = 86_400.0
COUNTS = (1, 8, 256)
"""Devices: one, a machine, a pod."""
CPU_BATCH = 16
"""Images in a measured step on a CPU, where the rate hardly depends on it."""
PEAKS = {
    "H200, 67 float32 TFLOP/s (data sheet), a bound": (67e12, math.inf),
    "H200, 4.8 TB/s (data sheet) for these bytes": (math.inf, 4.8e12),
}
"""Device -> operations and bytes per second: what the manufacturer states, and nobody has measured
here. A program takes longer, often several times as long. The bytes are those of the program that
is compiled for this machine, and an accelerator's compiler may need fewer."""
COURSE = {
    "the course project's estimate: CPU, 8,000 days": 8000.0,
    "the course project's estimate: one GPU, 75 days": 75.0,
    "the course project's estimate: its array, 15 days": 15.0,
}
"""What the course project estimated for its grid, which had no controls."""


class Plan(NamedTuple):
    """The trainings of a grid.

    Attributes:
      trainings: how many, with the dense nets and the controls.
      epochs: of all trainings together.
      steps: of all trainings together.
      images: the training images of all steps together.
      tickets_epochs: the epochs of the tickets and the dense nets alone, without controls.
    """

    trainings: int
    epochs: int
    steps: int
    images: int
    tickets_epochs: int


class StepCost(NamedTuple):
    """The cost of a training step, by XLA's analysis of its program.

    Attributes:
      operations: floating-point operations of the program before it is compiled: a CPU makes dense
        convolutions of the gradients of depthwise ones, which would count five times as many.
      bytes: read and written by the operations after they are fused.
      images: in a batch.
    """

    operations: float
    bytes: float
    images: int


class Rate(NamedTuple):
    """A sustained rate of one device.

    Attributes:
      name: whose, and where it comes from.
      images: training images per second.
    """

    name: str
    images: float


def planned(
    thresholds: int, rewinds: Sequence[int], seeds: int, epochs: int, images: int, batch: int
) -> Plan:
    """The trainings of a grid: `tickets = thresholds * rewinds`, as many shuffled masks, a new
    initialisation for each threshold, and the dense net; each times the seeds.

    A rewound training has the epochs that are left.

    Args:
      thresholds: how many.
      rewinds: the epochs to which tickets are rewound.
      seeds: how many.
      epochs: of a whole training.
      images: training images.
      batch: images in a step; the incomplete last batch is dropped.
    """
    cells = thresholds * len(rewinds)
    left = thresholds * sum(epochs - rewind for rewind in rewinds)
    whole = seeds * (epochs + 2 * left + thresholds * epochs)
    steps = whole * (images // batch)
    return Plan(
        trainings=seeds * (1 + 2 * cells + thresholds),
        epochs=whole,
        steps=steps,
        images=steps * batch,
        tickets_epochs=seeds * (epochs + left),
    )


def training_step(
    net: nn.Module, shape: Sequence[int], optimizer: str, weight_decay: float
) -> tuple[Callable[[Key], TrainState], Callable[[TrainState, Split], TrainState]]:
    """`begin(key) -> state` and `step(state, batch) -> state` of a masked training.

    Args:
      net: the net.
      shape: `(h, w, c)` of the images.
      optimizer, weight_decay: see `optimizers.optimizer`.
    """
    model = nets.functional(net, shape)
    half = (0.5,) * shape[-1]
    loss = losses.classification(model, partial(augment.normalise, mean=half, std=half))
    inner = optimizers.optimizer(optimizer, 1e-3, weight_decay=weight_decay)

    def begin(key: Key) -> TrainState:
        params, stats = model.init(key)
        return training.init(params, stats, masked(inner, masks.ones(params)))

    def step(state: TrainState, batch: Split) -> TrainState:
        optimizer = masked(inner, state.mask)
        return training.step(loss, optimizer, stream(0, "benchmark", "step"), state, batch)[0]

    return begin, step


def batch_shapes(shape: Sequence[int], batch: int) -> Split:
    """The shapes and types of a batch."""
    return Split(
        jax.ShapeDtypeStruct((batch, *shape), jnp.uint8), jax.ShapeDtypeStruct((batch,), jnp.int32)
    )


def step_cost(
    net: nn.Module, shape: Sequence[int], optimizer: str, weight_decay: float, batch: int
) -> StepCost:
    """The cost of a step, compiled for shapes alone with the convolutions of accelerators."""
    if "conv" in nets.to_json(net):
        net = nets.from_json(nets.to_json(net) | {"conv": "lax"})
    begin, step = training_step(net, shape, optimizer, weight_decay)
    state = jax.eval_shape(begin, stream(0, "benchmark", "step"))
    lowered = jax.jit(step).lower(state, batch_shapes(shape, batch))
    asked: Any = lowered.cost_analysis()
    compiled: Any = lowered.compile().cost_analysis()
    return StepCost(asked["flops"], compiled["bytes accessed"], batch)


def measured(
    net: nn.Module, shape: Sequence[int], optimizer: str, weight_decay: float, batch: int
) -> Rate:
    """The rate of training steps on the first device, on random images; the fastest of three."""
    begin, step = training_step(net, shape, optimizer, weight_decay)
    keys = [stream(0, "benchmark", name) for name in ("images", "labels")]
    like = batch_shapes(shape, batch)
    images = jax.random.randint(keys[0], like.images.shape, 0, 256).astype(jnp.uint8)
    data = Split(images, jax.random.randint(keys[1], like.labels.shape, 0, net.classes))
    state = jax.jit(begin)(stream(0, "benchmark", "step"))
    seconds = timing.best_time(partial(jax.jit(step), state, data))
    device = jax.devices()[0]
    kind = setup.cpu_model() if device.platform == "cpu" else device.device_kind
    return Rate(f"measured here: {kind}, batches of {batch}", batch / seconds)


def bound(name: str, cost: StepCost, operations: float, memory: float) -> Rate:
    """The rate of a device that does its operations and moves its bytes at their peak rates.

    Args:
      name: the device.
      cost: of a step.
      operations: floating-point operations per second.
      memory: bytes per second.
    """
    return Rate(name, cost.images / max(cost.operations / operations, cost.bytes / memory))


def implied(name: str, plan: Plan, days: float) -> Rate:
    """The rate at which the tickets and dense nets of a plan take `days`."""
    share = plan.tickets_epochs / plan.epochs
    return Rate(name, plan.images * share / (days * DAY))


def table(plan: Plan, cost: StepCost, rates: Sequence[Rate]) -> str:
    """The plan, the cost of its step, and the estimated days at each rate."""
    per_image = cost.operations / cost.images
    share = plan.tickets_epochs / plan.epochs
    lines = [
        f"{plan.trainings} trainings, {plan.epochs} epochs, {plan.steps} steps of {cost.images} "
        f"images: {plan.images:.3g} images",
        f"without the controls {plan.tickets_epochs} epochs, {100 * share:.1f} %",
        f"a step: {cost.operations:.4g} operations, {cost.bytes:.4g} bytes (XLA's cost analysis)",
        f"an image: {per_image:.4g} operations, {cost.bytes / cost.images:.4g} bytes",
        f"all steps: {plan.images * per_image:.3g} operations",
        "",
        "ESTIMATED days, if cells on other devices cost nothing more",
        f"{'rate of one device':56}{'images/s':>10}{'TFLOP/s':>9}"
        + "".join(f"{count:>5} device{'s' * (count > 1):1}" for count in COUNTS),
    ]
    for rate in rates:
        days = plan.images / rate.images / DAY
        lines.append(
            f"{rate.name:56}{rate.images:>10.3g}{rate.images * per_image / 1e12:>9.3g}"
            + "".join(f"{days / count:>13.3g}" for count in COUNTS)
        )
    return "\n".join(lines)


def planned_net(question: Question, net: NetSettings) -> tuple[nn.Module, tuple[int, ...]]:
    """The net of the settings, and the shape of its images; loads no data.

    Raises:
      UserError: the net and its settings don't fit each other.
    """
    source = _source(net)
    height, width, channels = source.shape
    shape = net.image_size or height, net.image_size or width, channels
    given: dict[str, Any] = {"classes": source.classes, "use_bias": net.use_bias}
    if net.widths:
        given["widths"] = whole_numbers("widths", net.widths.split(","))
    if question.form:
        given["form"] = question.form
    try:
        module = nets.make(net.model, shape=shape, **given)
        nets.check_fits(module, shape, source.classes)
    except ValueError as error:
        raise UserError(str(error)) from error
    return module, shape


def report(
    module: nn.Module,
    shape: Sequence[int],
    question: Question,
    net: NetSettings,
    train: TrainSettings,
) -> str:
    """The estimate of the grid that the settings describe.

    Args:
      module, shape: see `planned_net`.
      question, net, train: the settings.
    """
    plan = planned(
        thresholds=len(question.thresholds),
        rewinds=whole_numbers("rewinds", question.rewinds),
        seeds=net.seeds,
        epochs=train.epochs,
        images=net.train_images or _source(net).train,
        batch=train.batch_size,
    )
    cost = step_cost(module, shape, train.optimizer, train.weight_decay, train.batch_size)
    on_cpu = jax.devices()[0].platform == "cpu"
    batch = min(train.batch_size, CPU_BATCH) if on_cpu else train.batch_size
    rates = [measured(module, shape, train.optimizer, train.weight_decay, batch)]
    rates += [bound(name, cost, peak, memory) for name, (peak, memory) in PEAKS.items()]
    if net.dataset == IMAGENET.name:
        rates += [implied(name, plan, days) for name, days in COURSE.items()]
    return table(plan, cost, rates)


def _source(net: NetSettings) -> Source:
    known = {**SOURCES, **STREAMED}
    name = net.dataset.partition(":")[0]
    if name not in known:
        raise UserError(f"--estimate: needs the number of images, which {name} doesn't tell")
    return known[name]
