"""The benchmark's rival: the same annealing and trainings in plain PyTorch, as fast as we can.

Nothing else needs PyTorch; only the functions that use it import it. Data are normalised once and
kept in memory. Batches are slices of a permutation. Evaluation uses inference mode, and optimisers
are fused. We tried the following, in processor time of one thread on two busy CPU cores (AMD EPYC,
PyTorch 2.13):

- A layer as `weights @ inputs`, with images last, evaluates 2,000 images in 0.8 of the time of
  `F.linear`. Annealing uses it; `out=` buffers don't make it faster. Trainings with batches of 60
  and 128 use `F.linear`, since `images @ weights` takes 1.2 to 1.4 times as long.
- A swap changes only the swapped entries of the masked weights, and restores them if it is
  rejected. So the weights aren't masked again for each evaluation.
- Fused Adam takes half the time of `foreach` and of the loop over parameters. Fused SGD and
  `foreach` SGD take the same time.
- `torch.compile` (offline with gcc) takes 1.1 to 1.2 times as long, and half a minute to start.
- Runs or chains batched by `torch.bmm` take 0.95 to 1.05 times as long, and runs batched by
  `torch.func.vmap` 1.15 times: with all threads on one batch, they can't beat one process per core.

Two ways are left, and the benchmark measures both: one process per core, each with one thread and
its share of the runs; and one process that uses all cores for one run after another.
"""

import importlib.util
import math
import multiprocessing
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from experiments.benchmark.workloads import DENSITY, IMAGES

Tensor = Any
"""A `torch.Tensor`. Its name doesn't exist if PyTorch isn't installed."""
Layers = Sequence[tuple[int, int]]
"""The weight shapes of a net's layers, outputs by inputs."""
LAYERS = ((300, 784), (100, 300), (10, 100))
"""Those of `lenet300_100`."""
PRIMES = (1_000_003, 1_000_033, 1_000_037, 1_000_039, 1_000_081, 1_000_099, 1_000_117, 1_000_121)
"""Primes above the number of weights, so that strides of one visit all positions once."""


def installed() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


# --- annealing -----------------------------------------------------------------------------------


class Chain(NamedTuple):
    """The state of an annealing chain.

    Attributes:
      order: int`[n]`, a permutation of the weights with the kept ones first. Changed in place.
      masked: float`[n]`, the weights, with zero for pruned ones. Changed in place.
      sums: float`[300, images]`, the first layer's outputs, which incremental energies update.
      energy: float, the current energy.
      best_energy: float, the lowest energy so far.
      best: float`[n]`, the masked weights with the lowest energy.
    """

    order: Tensor
    masked: Tensor
    sums: Tensor
    energy: float
    best_energy: float
    best: Tensor


def layers_of(flat: Tensor) -> list[Tensor]:
    """The layers float`[outputs, inputs]` of the weights float`[266200]`, as views."""
    parts = flat.split([units * inputs for units, inputs in LAYERS])
    return [part.view(shape) for part, shape in zip(parts, LAYERS, strict=True)]


def energy(layers: Sequence[Tensor], columns: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the bias-free net on images `columns`, float`[784, n]`."""
    return energy_of_sums(layers, layers[0] @ columns, labels)


def energy_of_sums(layers: Sequence[Tensor], sums: Tensor, labels: Tensor) -> Tensor:
    """`energy` from the first layer's outputs `sums`, float`[300, n]`, which aren't changed."""
    import torch

    hidden = (layers[1] @ torch.relu(sums)).relu_()
    return torch.nn.functional.cross_entropy((layers[2] @ hidden).t(), labels)


def changed(weights: Tensor, sums: Tensor, columns: Tensor, off: Tensor, on: Tensor) -> Tensor:
    """The first layer's sums after the weights `off` are pruned and `on` added, int`[k]` each."""
    import torch

    index, signed = torch.cat([off, on]), torch.cat([-weights[off], weights[on]])
    units, inputs = LAYERS[0]
    inside = index < units * inputs
    index, signed = index[inside], signed[inside]
    rows = columns.index_select(0, index % inputs).mul_(signed[:, None])
    return sums.clone().index_add_(0, index // inputs, rows)


def anneal(
    chains: int, steps: int, size: int, by_difference: bool = False
) -> Callable[[], list[Chain]]:
    """A call that anneals masks like that of `workloads.anneal`, one chain after another.

    Each call continues where the last one ended.
    """
    import torch

    columns, labels = torch.randn(LAYERS[0][1], IMAGES), torch.randint(10, (IMAGES,))
    weights = torch.cat([torch.randn(shape).flatten() / shape[1] ** 0.5 for shape in LAYERS])
    ones, lane = round(DENSITY * len(weights)), torch.arange(size)

    def positions(start: int, count: int) -> Tensor:
        """Distinct random positions. Taking them from a permutation takes ten times as long."""
        return start + (random.randrange(count) + lane * random.choice(PRIMES)) % count

    def begin() -> Chain:
        order, masked = torch.randperm(len(weights)), torch.zeros(len(weights))
        masked[order[:ones]] = weights[order[:ones]]
        layers = layers_of(masked)
        first = energy(layers, columns, labels).item()
        return Chain(order, masked, layers[0] @ columns, first, first, masked.clone())

    def step(chain: Chain) -> Chain:
        order, masked, sums, now, best_energy, best = chain
        here, there = positions(0, ones), positions(ones, len(weights) - ones)
        off, on = order[here], order[there]
        masked[off], masked[on] = 0.0, weights[on]
        layers = layers_of(masked)
        if by_difference:
            sums = changed(weights, sums, columns, off, on)
            proposed = energy_of_sums(layers, sums, labels).item()
        else:
            proposed = energy(layers, columns, labels).item()
        if proposed > now and random.random() >= math.exp((now - proposed) / 1e-3):
            masked[on], masked[off] = 0.0, weights[off]
            return chain
        order[here], order[there] = on, off
        if proposed < best_energy:
            best_energy, best = proposed, masked.clone()
        return Chain(order, masked, sums, proposed, best_energy, best)

    def run(chain: Chain) -> Chain:
        for _ in range(steps):
            chain = step(chain)
        if by_difference:
            chain = chain._replace(sums=layers_of(chain.masked)[0] @ columns)
        return chain

    with torch.inference_mode():
        states = [begin() for _ in range(chains)]

    def call() -> list[Chain]:
        with torch.inference_mode():
            states[:] = [run(chain) for chain in states]
        return states

    return call


# --- training ------------------------------------------------------------------------------------


class Net(NamedTuple):
    """A net that is trained.

    Attributes:
      weights: float`[outputs, inputs]` for each layer; zero where pruned.
      biases: float`[outputs]` or None for each layer.
      masks: float`[outputs, inputs]` for each layer, ones and zeros.
    """

    weights: list[Tensor]
    biases: list[Tensor | None]
    masks: list[Tensor]


def random_net(bias: bool, layers: Layers = LAYERS, density: float = DENSITY) -> Net:
    """A net with random weights and a random mask."""
    import torch

    masks = [(torch.rand(shape) < density).float() for shape in layers]
    weights = [torch.randn(mask.shape) / mask.shape[1] ** 0.5 * mask for mask in masks]
    return Net(weights, [torch.zeros(len(w)) if bias else None for w in weights], masks)


def begin(net: Net) -> tuple[Net, list[Tensor]]:
    """A copy of a net to train, and its parameters."""

    def copy(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.clone().requires_grad_()

    new = Net([copy(w) for w in net.weights], [copy(b) for b in net.biases], net.masks)
    return new, [p for p in (*new.weights, *new.biases) if p is not None]


def optimizer(name: str, parameters: Sequence[Tensor]) -> Any:
    """The optimiser `momentum` or `adam`, with the settings of `workloads`."""
    import torch

    if name == "momentum":
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, fused=True)
    return torch.optim.Adam(parameters, lr=1.2e-3, fused=True)


def step(net: Net, descent: Any, images: Tensor, labels: Tensor) -> None:
    """One masked training step, in place. Pruned weights stay zero, since their gradients are."""
    from torch.nn.functional import cross_entropy, linear, relu

    descent.zero_grad(set_to_none=True)
    hidden = images
    for weight, bias in zip(net.weights[:-1], net.biases[:-1], strict=True):
        hidden = relu(linear(hidden, weight, bias))
    cross_entropy(linear(hidden, net.weights[-1], net.biases[-1]), labels).backward()
    for weight, mask in zip(net.weights, net.masks, strict=True):
        weight.grad.mul_(mask)
    descent.step()


def train(
    runs: int,
    name: str,
    images: int,
    batch: int,
    steps: int,
    bias: bool,
    layers: Layers = LAYERS,
    density: float = DENSITY,
) -> Callable[[], Any]:
    """A call that trains nets for `steps` steps from their start, one after another."""
    import torch

    data, labels = torch.randn(images, layers[0][1]), torch.randint(10, (images,))
    starts = [random_net(bias, layers, density) for _ in range(runs)]

    def call() -> None:
        for start in starts:
            net, parameters = begin(start)
            descent = optimizer(name, parameters)
            for index in torch.randperm(images)[: steps * batch].split(batch):
                step(net, descent, data[index], labels[index])

    return call


# --- processes -----------------------------------------------------------------------------------


@contextmanager
def processes(
    count: int, threads: int, make: Callable[..., Callable[[], Any]], runs: int, *arguments: Any
) -> Iterator[Callable[[], Any]]:
    """A call that does `runs` runs in worker processes, each of which does its share.

    Args:
      count: the number of processes.
      threads: the number of PyTorch threads in each process.
      make: `make(runs, *arguments)` makes a process' call; data and nets stay in the process.
      runs: the number of runs of all processes.
      arguments: the arguments of `make` after the number of runs.
    """
    spawn = multiprocessing.get_context("spawn")  # JAX's threads wouldn't survive a fork
    pipes, workers = [], []
    for i in range(min(count, runs)):
        pipe, end = spawn.Pipe()
        share = len(range(i, runs, count))
        given = (end, threads, make, share, *arguments)
        worker = spawn.Process(target=_serve, args=given, daemon=True)
        worker.start()
        end.close()  # only the worker then holds the end, so its death is noticed
        pipes.append(pipe)
        workers.append(worker)

    def call() -> None:
        for pipe in pipes:
            pipe.send(True)
        for pipe in pipes:
            pipe.recv()

    try:
        yield call
    finally:
        for pipe, worker in zip(pipes, workers, strict=True):
            pipe.close()
            worker.terminate()
            worker.join()


def _serve(pipe: Connection, threads: int, make: Callable, *arguments: Any) -> None:
    """The worker process: makes its call, and calls it for each message until the pipe closes."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    torch.set_num_threads(threads)
    call = make(*arguments)
    with suppress(EOFError, BrokenPipeError):
        while pipe.recv():
            call()
            pipe.send(True)
