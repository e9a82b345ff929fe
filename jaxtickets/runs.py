"""The run axis: many runs of one function, in blocks, over devices.

Write a function for one run; `batch` makes it a function of many. The one choice between `vmap`
and one-after-another is made here, by `axis`.

- `map`: the runs of a block one after another, each with the bits of its solo run: for the CPU.
- `vmap`: the runs of a block at once: for accelerators. The last bits depend on the width.

Runs are cut into blocks of a fixed width and the last block is padded, so results do not depend on
how many blocks or devices there were. Blocks go to the devices in turn, one host thread a device.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.types import Array, PyTree

VMAP_WIDTH = 32


class Axis(NamedTuple):
    """How a batch of runs is executed.

    Attributes:
      mode: `map` or `vmap`.
      width: runs in a block.
      devices: where blocks go, in turn.
    """

    mode: str
    width: int
    devices: tuple[jax.Device, ...]


class Blocks(NamedTuple):
    """Rows of runs, cut and placed.

    Attributes:
      blocks: PyTrees with a leading axis of the axis' width.
      runs: the number of runs; the last block's rows past it are padding.
    """

    blocks: tuple[PyTree, ...]
    runs: int


class Shared(NamedTuple):
    """One copy for each device of what all runs read."""

    copies: tuple[PyTree, ...]


def axis(mode: str = "auto", width: int = 0, devices: Sequence[jax.Device] | None = None) -> Axis:
    """The run axis for this machine: `map` with blocks of one on CPUs, else `vmap` with 32.

    Args:
      mode: `map`, `vmap`, or `auto` for the above.
      width: runs in a block; 0 for the above.
      devices: all local ones by default.

    Raises:
      ValueError: unknown mode or negative width.
    """
    devices = tuple(jax.local_devices() if devices is None else devices)
    if mode == "auto":
        mode = "map" if devices[0].platform == "cpu" else "vmap"
    if mode not in ("map", "vmap"):
        raise ValueError(f"unknown run mode '{mode}': auto, map or vmap")
    if width < 0:
        raise ValueError(f"block width {width} is negative")
    return Axis(mode, width or (1 if mode == "map" else VMAP_WIDTH), devices)


def split(rows: PyTree, axis: Axis) -> Blocks:
    """Cuts `rows` (leading axis: runs) into blocks on their devices; pads with the last row.

    Raises:
      ValueError: leaves disagree on the number of runs, or there is none.
    """
    sizes = {np.shape(leaf)[0] for leaf in jax.tree.leaves(rows)}
    if len(sizes) != 1 or not min(sizes):
        raise ValueError(f"leaves disagree on the number of runs, or there is none: {sizes}")
    runs = sizes.pop()
    blocks = []
    for i, start in enumerate(range(0, runs, axis.width)):
        index = np.minimum(np.arange(start, start + axis.width), runs - 1)
        blocks.append(jax.device_put(take(rows, index), _device(axis, i)))
    return Blocks(tuple(blocks), runs)


def join(blocks: Blocks) -> PyTree:
    """The rows of `blocks` on the default device, in order and without padding."""
    home = jax.local_devices()[0]
    return _concatenate([jax.device_put(block, home) for block in blocks.blocks], blocks.runs)


@jax.jit
def take(rows: PyTree, index: Array) -> PyTree:
    """The rows at `index`, an integer (one run without the axis) or `[n]`; one program a tree."""
    return jax.tree.map(lambda leaf: leaf[index], rows)


@jax.jit
def stack(trees: Sequence[PyTree]) -> PyTree:
    """One PyTree with a leading axis of runs from several alike."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@partial(jax.jit, static_argnums=1)
def _concatenate(blocks: Sequence[PyTree], runs: int) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:runs], *blocks)


def share(tree: PyTree, axis: Axis) -> Shared:
    """A copy of `tree` on each device of the axis."""
    return Shared(tuple(jax.device_put(tree, device) for device in axis.devices))


def batch(fn: Callable[..., PyTree], axis: Axis) -> Callable[..., Blocks]:
    """From `fn(row, *shared)` of one run to a compiled function of `Blocks` and `Shared`.

    Args:
      fn: pure; `row` is a PyTree without the run axis, `shared` are the same for all runs.
      axis: the run axis.

    Returns:
      `(Blocks, *Shared) -> Blocks`. It waits for its results.
    """

    def block(rows: PyTree, *shared: PyTree) -> PyTree:
        if axis.mode == "vmap":
            return jax.vmap(lambda row: fn(row, *shared))(rows)
        if axis.width == 1:
            result = fn(jax.tree.map(lambda leaf: leaf[0], rows), *shared)
            return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], result)
        return jax.lax.map(lambda row: fn(row, *shared), rows)

    compiled = jax.jit(block)
    many = len(axis.devices)

    def lane(device: int, blocks: Blocks, shared: tuple[Shared, ...]) -> list[Any]:
        arguments = [s.copies[device] for s in shared]
        return [
            jax.block_until_ready(compiled(rows, *arguments))
            for rows in blocks.blocks[device::many]
        ]

    def call(blocks: Blocks, *shared: Shared) -> Blocks:
        lanes = min(many, len(blocks.blocks))
        if lanes == 1:
            done = [lane(0, blocks, shared)]
        else:
            with ThreadPoolExecutor(lanes) as pool:
                done = list(pool.map(lambda d: lane(d, blocks, shared), range(lanes)))
        ordered = [done[i % many][i // many] for i in range(len(blocks.blocks))]
        return Blocks(tuple(ordered), blocks.runs)

    return call


def unzip(blocks: Blocks) -> tuple[Blocks, Blocks]:
    """The two halves of blocks whose rows are pairs."""
    left, right = zip(*blocks.blocks, strict=True)
    return Blocks(left, blocks.runs), Blocks(right, blocks.runs)


def over_runs(fn: Callable[..., PyTree], axis: Axis, rows: PyTree, *shared: PyTree) -> PyTree:
    """`fn(row, *shared)` for every row, stacked: `join` of `batch` of `split`, in one call."""
    placed = (share(tree, axis) for tree in shared)
    return join(batch(fn, axis)(split(rows, axis), *placed))


def _device(axis: Axis, block: int) -> jax.Device:
    return axis.devices[block % len(axis.devices)]
