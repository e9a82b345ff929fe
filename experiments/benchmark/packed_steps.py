"""Training steps that skip the zeros of a sparse net, beside the same steps in dense form.

This is a group of the benchmark: `python -m experiments.benchmark --only=sparse_training`.

Every call takes 100 steps from and to dense parameters, as between two moves of a mask. So the time
of a packed step has a hundredth of the time in which the mask's tables are made, and parameters and
moments are packed and unpacked. PyTorch's step is masked and dense, in one process, with one thread
or one a core, whichever is faster.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.benchmark import torch_rival, workloads
from experiments.benchmark.measured import Row, compared, timed
from experiments.benchmark.workloads import SHAPE, Work, examples, normalise
from experiments.harness import setup
from jaxtickets import losses, masks, nets, optimizers, training
from jaxtickets.compress import packed_training
from jaxtickets.dynamic.static import masked
from jaxtickets.keys import stream
from jaxtickets.types import Array, Key, Model, Split

NETS = ("lenet300_100", "mlp")
DENSITIES = (0.05, 0.02, 0.01)
BARS = {("lenet300_100", 0.02): 2.0, ("mlp", 0.02): 2.0, ("mlp", 0.01): 3.0}
"""(net, density) -> how many times as fast as the masked dense step the packed step must be."""
STEPS, BATCH, IMAGES = 100, 128, 12_800
RATE = 0.1


class Calls(NamedTuple):
    """The same training steps in two forms.

    Attributes:
      packed, dense: calls of `STEPS` steps, with momentum.
      work: the work of the packed call.
      layers: the weight shapes, outputs by inputs.
    """

    packed: Callable[[], Any]
    dense: Callable[[], Any]
    work: Work
    layers: tuple[tuple[int, int], ...]


def rows() -> Iterator[Row]:
    """Packed training steps, compared with masked dense ones and with PyTorch's."""
    for name in NETS:
        for density in DENSITIES:
            yield from compare(name, density, repeats=3)


def compare(name: str, density: float, repeats: int) -> Iterator[Row]:
    """A row against our masked dense step, and one against PyTorch's if it is installed."""
    made = calls(name, density)
    with ExitStack() as stack:
        rivals = []
        if torch_rival.installed():
            rival = partial(
                torch_rival.train,
                name="momentum",
                images=IMAGES,
                batch=BATCH,
                steps=STEPS,
                bias=True,
                layers=made.layers,
                density=density,
            )
            for threads in sorted({1, setup.cores()}):
                started = torch_rival.processes(1, threads, rival, 1)
                rivals.append(stack.enter_context(started))
        found = timed([made.packed, made.dense, *rivals], made.work, repeats)
    packed, dense, *others = found.seconds
    label = f"a step of {name}, {100 * (1 - density):g} % sparse, batch {BATCH}"
    row = found.row(label, 1000 * packed / STEPS, "ms")
    against = "times as fast as the masked dense step"
    yield compared(row, dense / packed, against, BARS.get((name, density)))
    if others:
        yield compared(row, min(others) / packed, "times as fast as PyTorch's masked dense step")


def calls(name: str, density: float) -> Calls:
    """The calls of a net with a random mask."""
    model, params = workloads.net(name)
    module = nets.make(name)
    layers = tuple(path.removesuffix("/kernel") for path in nets.positions(module, SHAPE))
    prunable = masks.prunable(params)
    keep = round(density * masks.size(params, prunable))
    mask = masks.random(stream(0, "benchmark", "mask"), params, prunable, keep)
    inner, key = optimizers.optimizer("momentum", RATE), stream(0, "benchmark", "steps")
    optimizer = masked(inner, mask)
    state, data = training.init(params, {}, optimizer), examples(IMAGES)
    drawn = jax.random.permutation(stream(0, "benchmark", "order"), IMAGES)
    index = drawn[: STEPS * BATCH].reshape(STEPS, BATCH)

    def loss(model: Model) -> Any:
        return losses.classification(model, normalise)

    def fetch_from(data: Split) -> training.Fetch:
        def fetch(key: Key, index: Array) -> Split:
            del key
            return Split(data.images[index], data.labels[index])

        return fetch

    net = packed_training.packed_net(model, layers, loss, mask)

    @jax.jit
    def packed(state: Any, index: Array, data: Split) -> Any:
        return packed_training.advance(net, inner, key, state, index, fetch_from(data))[0]

    @jax.jit
    def dense(state: Any, index: Array, data: Split) -> Any:
        return training.advance(loss(model), optimizer, key, state, index, fetch_from(data))[0]

    step = workloads.training_step(name, params, BATCH, moments=1)
    shapes = [jnp.shape(params[layer]["kernel"]) for layer in layers]
    return Calls(
        packed=lambda: packed(state, index, data),
        dense=lambda: dense(state, index, data),
        work=Work(density * step.operations, density * step.traffic).times(STEPS),
        layers=tuple((outputs, inputs) for inputs, outputs in shapes),
    )
