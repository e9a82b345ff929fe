"""Batches of photographs from disk: what does not fit on a device, or into memory.

    dataset = photographs.load("folder", "/data/birds")
    stream = training(dataset.train, order_key, crop_key, batch_size=256, transform=...)
    for batch in batches(stream, start=step, stop=steps): ...

A batch is a pure function of the stream and of the training step, `batch_at(stream, step)`. So its
examples and their pixels depend neither on the number of threads and processes that decode, nor on
where a run was stopped: a run resumes from its step alone, and `state` records with it what the
stream was. Runs that are trained together share one stream, whose keys belong to none of them.

Any loop can read it. This one is optax's, of two steps a call, on images of one pixel:

>>> from flax import linen as nn
>>> from jaxtickets.data.examples import Encoded
>>> def grey(encoded, uniforms, size):
...     return np.full((size, size, 3), int(encoded), "uint8")
>>> eight = Examples("eight", 8, 2, lambda i: Encoded(str(i).encode(), i // 4), fingerprint="")
>>> keys = jax.random.split(jax.random.key(0))
>>> stream = training(eight, keys[0], keys[1], batch_size=2, transform=partial(grey, size=1))
>>> net, adam = nn.Dense(2), optax.adam(0.1)
>>> def loss(weights, batch):
...     logits = net.apply(weights, batch.images.reshape(len(batch.images), -1) / 8)
...     nats = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
...     return jnp.mean(nats, where=batch.valid)
>>> @jax.jit
... def advance(state, two):
...     def step(state, batch):
...         value, gradient = jax.value_and_grad(loss)(state[0], batch)
...         updates, moments = adam.update(gradient, state[1])
...         return (optax.apply_updates(state[0], updates), moments), value
...     return jax.lax.scan(step, state, two)
>>> weights = net.init(jax.random.key(1), jnp.zeros((1, 3)))
>>> state, seen = (weights, adam.init(weights)), []
>>> for two in chunks(batches(stream, start=0, stop=100, threads=0), steps=2):
...     state, values = advance(state, two)
...     seen += values.tolist()
>>> len(seen), bool(np.mean(seen[-4:]) < 0.4)
(100, True)
"""

import functools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.data import batches as data_batches
from jaxtickets.data.crops import DRAWS
from jaxtickets.data.errors import DataError, ImageError
from jaxtickets.data.examples import Examples, digest
from jaxtickets.keys import IMPL
from jaxtickets.types import Key

PADDING = -1
"""In the place of an example's number: none, because the last batch of a set is not full."""

Transform = Callable[[bytes, np.ndarray], np.ndarray]
"""`transform(encoded, uniforms[DRAWS]) -> uint8[size, size, 3]`: a function of `crops` with its
settings, as a `functools.partial` by name."""


class Batch(NamedTuple):
    """Some examples; `b` is the process's share of the batch.

    Attributes:
      images: uint8`[b, size, size, 3]`.
      labels: int32`[b]`.
      indices: int32`[b]`, the examples' numbers; `PADDING` where there is none.
      valid: bool`[b]`; where False, the example is corrupt or padding, and the image and the label
        are those of another row of this batch. An evaluation gives these rows no weight.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    valid: np.ndarray


class Stream(NamedTuple):
    """All batches of a training, or of an evaluation.

    Attributes:
      examples: the examples.
      transform: from bytes and random numbers to pixels.
      size: of an image.
      order: `order(epoch)`, int32`[steps_per_epoch, batch_size]`, the numbers of the examples.
      crop_words: two words of 32 bits; the random numbers of example `i` in an epoch are a function
        of these words, the epoch and `i`.
      steps_per_epoch: batches in an epoch.
      batch_size: examples in a batch of all processes.
      skip_corrupt: whether a corrupt image is left out and counted, or raises.
      process, processes: which of how many equal shares of each batch this is.
      identity: name -> what decides the batches, for `state`.
    """

    examples: Examples
    transform: Transform
    size: int
    order: Callable[[int], np.ndarray]
    crop_words: tuple[int, int]
    steps_per_epoch: int
    batch_size: int
    skip_corrupt: bool
    process: int
    processes: int
    identity: dict[str, str]


def training(
    examples: Examples,
    order_key: Key,
    crop_key: Key,
    batch_size: int,
    transform: Transform,
    skip_corrupt: bool = False,
    process: int = 0,
    processes: int = 1,
) -> Stream:
    """The batches of a training, in the order of `data.batches.stream` for the same key.

    Each epoch has an order of its own, from which the last `total % batch_size` examples are
    dropped.

    Args:
      examples: the training examples.
      order_key: of the order of the examples; it is only folded.
      crop_key: of the transform's random numbers; it is not used in any other way.
      batch_size: examples in a batch of all processes.
      transform: see `Transform`; it must have a keyword `size`.
      skip_corrupt: whether a corrupt image is replaced by another row of its batch, with `valid`
        False; if not, it raises.
      process, processes: which of how many processes this is; each decodes its share of a batch.

    Raises:
      DataError: there are fewer examples than a batch, or the processes can't share it equally.

    >>> from jaxtickets.data.examples import Encoded
    >>> def grey(encoded, uniforms, size):
    ...     return np.full((size, size, 3), int(encoded), "uint8")
    >>> five = Examples("five", 5, 2, lambda i: Encoded(str(i).encode(), i % 2), fingerprint="")
    >>> keys = jax.random.split(jax.random.key(0))
    >>> stream = training(five, keys[0], keys[1], batch_size=2, transform=partial(grey, size=1))
    >>> seen = [batch_at(stream, step).indices.tolist() for step in range(2)]
    >>> stream.steps_per_epoch, len({*seen[0], *seen[1]})
    (2, 4)
    """
    _check_shares(batch_size, process, processes)
    if not 1 <= batch_size <= examples.total:
        raise DataError(
            f"batch_size={batch_size}: must be from 1 to the {examples.total} examples of"
            f" {examples.name}"
        )
    order, crop = _words(order_key), _words(crop_key)
    return Stream(
        examples=examples,
        transform=transform,
        size=_size(transform),
        order=partial(_shuffled, order, examples.total, batch_size),
        crop_words=crop,
        steps_per_epoch=examples.total // batch_size,
        batch_size=batch_size,
        skip_corrupt=skip_corrupt,
        process=process,
        processes=processes,
        identity={
            "the examples": examples.fingerprint,
            "the batch size": str(batch_size),
            "the keys": digest([order, crop]),
            "the transform": _described(transform),
        },
    )


def evaluation(
    examples: Examples,
    batch_size: int,
    transform: Transform,
    skip_corrupt: bool = False,
    process: int = 0,
    processes: int = 1,
) -> Stream:
    """Every example once, in the order of the files; the last batch is padded.

    An epoch is one evaluation. Arguments and errors are those of `training`, but for the keys; the
    transform gets the same random numbers at any time.

    >>> from jaxtickets.data.examples import Encoded
    >>> def grey(encoded, uniforms, size):
    ...     return np.full((size, size, 3), int(encoded), "uint8")
    >>> five = Examples("five", 5, 2, lambda i: Encoded(str(i).encode(), i % 2), fingerprint="")
    >>> stream = evaluation(five, batch_size=2, transform=partial(grey, size=1))
    >>> [batch_at(stream, step).indices.tolist() for step in range(3)]
    [[0, 1], [2, 3], [4, -1]]
    """
    _check_shares(batch_size, process, processes)
    if batch_size < 1:
        raise DataError(f"batch_size={batch_size}: must be 1 or more")
    return Stream(
        examples=examples,
        transform=transform,
        size=_size(transform),
        order=partial(_in_turn, examples.total, batch_size),
        crop_words=(0, 0),
        steps_per_epoch=-(-examples.total // batch_size),
        batch_size=batch_size,
        skip_corrupt=skip_corrupt,
        process=process,
        processes=processes,
        identity={
            "the examples": examples.fingerprint,
            "the batch size": str(batch_size),
            "the transform": _described(transform),
        },
    )


def batch_at(stream: Stream, step: int) -> Batch:
    """The process's share of the batch of a step, counted from the start of the training.

    Raises:
      DataError: a label is not one of the classes; no image of the share can be decoded; or one
        image can't, and corrupt ones are not to be skipped.

    >>> from jaxtickets.data.examples import Encoded
    >>> def grey(encoded, uniforms, size):
    ...     return np.full((size, size, 3), int(encoded), "uint8")
    >>> five = Examples("five", 5, 2, lambda i: Encoded(str(i).encode(), i % 2), fingerprint="")
    >>> batch = batch_at(evaluation(five, batch_size=2, transform=partial(grey, size=1)), step=2)
    >>> batch.labels.tolist(), batch.valid.tolist(), batch.images.ravel().tolist()
    ([0, 0], [True, False], [4, 4, 4, 4, 4, 4])
    """
    epoch, row = divmod(int(step), stream.steps_per_epoch)
    share = stream.batch_size // stream.processes
    start = stream.process * share
    indices = stream.order(epoch)[row, start : start + share]
    images = np.zeros((share, stream.size, stream.size, 3), np.uint8)
    labels, valid = np.zeros(share, np.int32), np.zeros(share, bool)
    for place, index in enumerate(indices):
        if index == PADDING:
            continue
        where = f"example {index}"
        try:
            example = stream.examples.read(int(index))
            where = example.name or where
            if not 0 <= example.label < stream.examples.classes:
                raise DataError(
                    f"{stream.examples.name}: example {index} has the label {example.label}, which"
                    f" is not from 0 to {stream.examples.classes - 1}"
                )
            draws = uniforms(stream.crop_words, epoch, int(index))
            images[place] = stream.transform(example.image, draws)
        except ImageError as error:
            if not stream.skip_corrupt:
                raise DataError(
                    f"{stream.examples.name}: {where} can't be decoded ({error}): replace"
                    " it, or have corrupt images skipped"
                ) from error
            continue
        labels[place], valid[place] = example.label, True
    if not valid.any() and np.any(indices != PADDING):
        raise DataError(f"{stream.examples.name}: no image of step {step} can be decoded")
    if valid.any():
        # row by row, the next one that is valid, from the first again after the last
        good = np.flatnonzero(valid)
        source = good[np.searchsorted(good, np.arange(share)) % len(good)]
        images, labels = images[source], labels[source]
    return Batch(images, labels, np.array(indices, np.int32), valid)


def corrupt(batch: Batch) -> int:
    """How many images of a batch could not be decoded.

    >>> images, labels = np.zeros((3, 1, 1, 3), "uint8"), np.zeros(3, "int32")
    >>> valid = np.array([True, False, False])
    >>> corrupt(Batch(images, labels, indices=np.array([7, 8, PADDING]), valid=valid))
    1
    """
    return int(np.sum(~batch.valid & (batch.indices != PADDING)))


def uniforms(words: tuple[int, int], epoch: int, index: int) -> np.ndarray:
    """float64`[DRAWS]` in [0, 1): the random numbers of one example in one epoch.

    Those of different epochs and examples are disjoint parts of one Philox generator's sequences.

    >>> draws = uniforms((1, 2), epoch=0, index=7)
    >>> draws.shape == (DRAWS,), bool((draws >= 0).all() and (draws < 1).all())
    (True, True)
    >>> np.array_equal(draws, uniforms((1, 2), 0, 7)), np.array_equal(draws, uniforms((1, 2), 1, 7))
    (True, False)
    """
    word = words[0] << 32 | words[1]
    bits = np.random.Philox(
        key=np.array([word, epoch], np.uint64), counter=np.array([0, index, 0, 0], np.uint64)
    )
    return (bits.random_raw(DRAWS) >> np.uint64(11)) * 2.0**-53


def batches(
    stream: Stream, start: int, stop: int, threads: int = 2, workers: int = 0, ahead: int = 4
) -> Iterator[Batch]:
    """The batches of the steps `start .. stop - 1`, decoded ahead of their use by grain.

    Args:
      stream: what the batches are.
      start, stop: the first step, and the one after the last.
      threads: how many batches are decoded at a time; 0: none ahead. Pillow decodes and resizes
        outside of Python's lock, so that threads run on several cores.
      workers: how many processes decode, each with `threads` threads; 0: this one. They import the
        caller's main module, so that a script needs `if __name__ == "__main__":`.
      ahead: how many batches are kept ready, in each worker.

    Raises:
      DataError: as `batch_at`, when the batch's turn comes.

    >>> from jaxtickets.data.examples import Encoded
    >>> def grey(encoded, uniforms, size):
    ...     return np.full((size, size, 3), int(encoded), "uint8")
    >>> five = Examples("five", 5, 2, lambda i: Encoded(str(i).encode(), i % 2), fingerprint="")
    >>> stream = evaluation(five, batch_size=2, transform=partial(grey, size=1))
    >>> [batch.indices.tolist() for batch in batches(stream, start=1, stop=3, threads=0)]
    [[2, 3], [4, -1]]
    """
    import grain
    from absl import flags

    if start >= stop:
        return
    if workers and not flags.FLAGS.is_parsed():  # grain asks its flags, also where none are parsed
        flags.FLAGS.mark_as_parsed()
    steps = grain.MapDataset.range(start, stop).map(partial(batch_at, stream))
    read = steps.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(ahead, threads))
    )
    processes = grain.MultiprocessingOptions(
        num_workers=min(workers, stop - start), per_worker_buffer_size=max(ahead, 1)
    )
    iterator = iter(read.mp_prefetch(processes, worker_init_fn=_stay_on_the_cpu))
    try:
        for batch in iterator:  # arrays of other processes lie in shared memory, which is scarce
            yield Batch(*map(np.array, batch)) if workers else batch
    finally:
        iterator.close()


def chunks(read: Iterator[Batch], steps: int) -> Iterator[Batch]:
    """Batches stacked for a scan: leaves `[steps, b, ...]`, and fewer at the end.

    >>> read = (Batch(*np.full((4, 2), step)) for step in range(3))
    >>> [batch.labels.tolist() for batch in chunks(read, 2)]
    [[[0, 0], [1, 1]], [[2, 2]]]
    """
    while taken := [batch for _, batch in zip(range(steps), read, strict=False)]:
        yield Batch(*map(np.stack, zip(*taken, strict=True)))


def state(stream: Stream, step: int) -> dict[str, Any]:
    """What a checkpoint records, as JSON: the next step, and what the stream is.

    The number of processes is not part of it: together they see the same batches.

    >>> from jaxtickets.data.examples import Encoded
    >>> def grey(encoded, uniforms, size):
    ...     return np.full((size, size, 3), int(encoded), "uint8")
    >>> five = Examples("five", 5, 2, lambda i: Encoded(str(i).encode(), i % 2), fingerprint="")
    >>> state(evaluation(five, batch_size=2, transform=partial(grey, size=1)), step=7)["step"]
    7
    """
    return {"step": int(step), "identity": dict(stream.identity)}


def resumed(stream: Stream, saved: dict[str, Any]) -> int:
    """The step at which a stream continues.

    Raises:
      DataError: `saved` is no `state`, or that of a stream of other batches.

    >>> from jaxtickets.data.examples import Encoded
    >>> def grey(encoded, uniforms, size):
    ...     return np.full((size, size, 3), int(encoded), "uint8")
    >>> five = Examples("five", 5, 2, lambda i: Encoded(str(i).encode(), i % 2), fingerprint="")
    >>> stream = evaluation(five, batch_size=2, transform=partial(grey, size=1))
    >>> resumed(stream, state(stream, step=7))
    7
    >>> resumed(evaluation(five, batch_size=3, transform=partial(grey, size=1)), state(stream, 7))
    Traceback (most recent call last):
    jaxtickets.data.errors.DataError: five: the batch size changed since the checkpoint:
    continue with what it was, or start a new run
    """
    try:
        step, identity = int(saved["step"]), dict(saved["identity"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError("the checkpoint holds no state of a stream") from error
    for name, value in stream.identity.items():
        if identity.get(name) != value:
            raise DataError(
                f"{stream.examples.name}: {name} changed since the checkpoint: continue with what"
                " it was, or start a new run"
            )
    return step


def _check_shares(batch_size: int, process: int, processes: int) -> None:
    if not 0 <= process < processes:
        raise DataError(f"process={process}: must be from 0 to {processes - 1}")
    if batch_size % processes:
        raise DataError(f"batch_size={batch_size}: must be a multiple of the {processes} processes")


def _words(key: Key) -> tuple[int, int]:
    first, second = np.asarray(jax.random.key_data(key)).tolist()
    return first, second


def _size(transform: Transform) -> int:
    return transform.keywords["size"]  # type: ignore[attr-defined]


def _described(transform: Transform) -> str:
    settings = transform.keywords  # type: ignore[attr-defined]
    name = transform.func.__name__  # type: ignore[attr-defined]
    return f"{name} {sorted(settings.items())}"


@functools.lru_cache(maxsize=8)
def _shuffled(words: tuple[int, int], count: int, batch_size: int, epoch: int) -> np.ndarray:
    """The order of an epoch, which is kept while its batches are read."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        key = jax.random.wrap_key_data(jnp.array(words, jnp.uint32), impl=IMPL)
        return np.asarray(data_batches.epoch(jax.random.fold_in(key, epoch), count, batch_size))


def _in_turn(count: int, batch_size: int, epoch: int) -> np.ndarray:
    del epoch
    rows = np.full((-(-count // batch_size), batch_size), PADDING, np.int32)
    rows.ravel()[:count] = np.arange(count)
    return rows


def _stay_on_the_cpu(worker: int, workers: int) -> None:
    """Keeps a process that decodes off the accelerator."""
    del worker, workers
    jax.config.update("jax_platforms", "cpu")
