"""The run axis: many runs of one function, in blocks, over devices and processes.

Write a function for one run; `batch` turns it into a function of many. The only choice between
`vmap` and a loop is made here, by the mode of the axis:

- `map`: the runs of a block one after another, each bit for bit like a run of its own; for CPUs.
- `vmap`: all runs of a block at once; for accelerators. The last bits depend on the width of the
  block.
- `shard`: one program over all devices of a process by `jax.shard_map`, compiled once; each device
  runs its part like `map` on CPUs and like `vmap` elsewhere. Equal to the others up to rounding.
- `data`: each run on all devices of a process, which divide the examples of training and evaluation
  among them; for nets that are too large to batch. Each device holds all of the weights. Searches
  and scores divide nothing and gain nothing. Equal to the others up to rounding, also with batch
  norm: its means and variances are those of the whole batch, on whichever devices its examples are
  ("synchronised"); `training.step` in parts gives those of parts.

Runs are cut into blocks of a fixed width, and the last block is padded. Except in mode `data`,
results therefore do not depend on the number of blocks or devices. Blocks go to the lanes in turn.
A lane is a device with its own host thread, or, in `shard` and `data`, all devices of a process
together. Runs are independent, so there is no collective inside a block, except in `data`, where
the devices sum their gradients.

If JAX was started in several processes (`jax.distributed`), each process runs the same program on
the same rows and computes the blocks of its own lanes. `join` gathers the rows of all, so that
every process has all rows, bit for bit as from a single process; in `data`, as from a process with
as many devices.
"""

import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array, PyTree

VMAP_WIDTH = 32


MODES = MAP, VMAP, SHARD, DATA = ("map", "vmap", "shard", "data")


class Axis(NamedTuple):
    """How a batch of runs is executed.

    Attributes:
      mode: `map`, `vmap`, `shard` or `data`.
      width: the number of runs in a block; in `shard`, on each device.
      devices: the devices that take blocks in turn; in `shard` and `data`, those of each process
        form one lane.
    """

    mode: str
    width: int
    devices: tuple[jax.Device, ...]


class Blocks(NamedTuple):
    """Rows of runs, cut into blocks and placed on lanes.

    Attributes:
      blocks: PyTrees with a leading axis as wide as a block; None for blocks of other processes.
      runs: the number of runs; rows past it are padding.
    """

    blocks: tuple[PyTree | None, ...]
    runs: int


class Shared(NamedTuple):
    """One copy for each lane of the data that all runs read; None for lanes of other processes."""

    copies: tuple[PyTree | None, ...]


def axis(mode: str = "auto", width: int = 0, devices: Sequence[jax.Device] | None = None) -> Axis:
    """The run axis of this machine: `map` with blocks of one on CPUs, `vmap` with 32 elsewhere.

    Args:
      mode: `map`, `vmap`, `shard`, `data`, or `auto` for the above.
      width: the number of runs in a block; 0 for 32 where a device runs several at once, else 1.
      devices: the devices; those of all processes by default.

    Raises:
      ValueError: an unknown mode or a negative width.

    >>> cpu = jax.devices("cpu")[:1]
    >>> axis("map", devices=cpu).width, axis("vmap", devices=cpu).width
    (1, 32)
    """
    devices = _in_turn(jax.devices() if devices is None else devices)
    on_cpu = devices[0].platform == "cpu"
    if mode == "auto":
        mode = MAP if on_cpu else VMAP
    if mode not in MODES:
        raise ValueError(f"unknown run mode '{mode}': auto, map, vmap, shard or data")
    if width < 0:
        raise ValueError(f"block width {width} is negative")
    one = mode in (MAP, DATA) or (mode == SHARD and on_cpu)
    return Axis(mode, width or (1 if one else VMAP_WIDTH), devices)


def split(rows: PyTree, axis: Axis) -> Blocks:
    """Cuts `rows` (leading axis: runs) into blocks on their lanes; pads with the last row.

    Raises:
      ValueError: the leaves disagree on the number of runs or lack that axis, or there are none.

    >>> blocks = split(np.array([10, 20, 30]), axis("vmap", width=2, devices=jax.devices()[:1]))
    >>> blocks.runs, [block.tolist() for block in blocks.blocks]
    (3, [[10, 20], [30, 30]])
    """
    for leaf in jax.tree.leaves(rows):
        check_array("a leaf of the rows", leaf, ("runs", ...))
    sizes = {np.shape(leaf)[0] for leaf in jax.tree.leaves(rows)}
    if len(sizes) != 1 or not min(sizes):
        raise ValueError(f"leaves disagree on the number of runs, or there is none: {sizes}")
    runs = sizes.pop()
    lanes = _lanes(axis)
    some = _take_on_host if axis.devices[0].platform == "cpu" else take
    width = _block(axis)
    count = -(-runs // width)
    count += -count % len({_process(lane) for lane in lanes})  # equally many for each process
    blocks = []
    for i in range(count):
        lane = lanes[i % len(lanes)]
        index = np.minimum(np.arange(i * width, (i + 1) * width), runs - 1)
        blocks.append(jax.device_put(some(rows, index), lane) if _is_here(lane) else None)
    return Blocks(tuple(blocks), runs)


def join(blocks: Blocks) -> PyTree:
    """The rows of `blocks` on the default device, in order and without padding.

    All processes must call it; each gets all rows.

    >>> one = axis("vmap", width=2, devices=jax.devices()[:1])
    >>> join(split(np.array([10, 20, 30]), one)).tolist()
    [10, 20, 30]
    """
    home = jax.local_devices()[0]
    mine = [jax.device_put(block, home) for block in blocks.blocks if block is not None]
    if len(mine) == len(blocks.blocks):
        on_cpu = home.platform == "cpu"
        return (_concatenate_on_host if on_cpu else _concatenate)(mine, blocks.runs)
    return _first_rows(_gather(stack(mine)), blocks.runs)


@jax.jit
def take(rows: PyTree, index: Array) -> PyTree:
    """The rows at `index`, an integer (one row without the axis) or `[n]`; one program a tree.

    >>> take({"w": np.array([[1, 2], [3, 4]])}, 1)["w"].tolist()
    [3, 4]
    """
    return jax.tree.map(lambda leaf: leaf[index], rows)


@jax.jit
def stack(trees: Sequence[PyTree]) -> PyTree:
    """Stacks PyTrees of the same structure along a new leading axis of runs.

    >>> stack([{"w": np.array([1, 2])}, {"w": np.array([3, 4])}])["w"].tolist()
    [[1, 2], [3, 4]]
    """
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def share(tree: PyTree, axis: Axis, examples: int | None = None) -> Shared:
    """Places a copy of `tree` on each lane of the axis.

    Args:
      tree: what all runs read.
      axis: the run axis.
      examples: the axis of examples of all leaves: in mode `data` a device gets its part of them
        alone, if they can be divided equally; None: each device gets all.

    >>> shared = share(np.array([10, 20]), axis("map", devices=jax.devices()[:1]))
    >>> [copy.tolist() for copy in shared.copies]
    [[10, 20]]
    """

    def place(lane: Any) -> Any:
        if examples is None or axis.mode != DATA:
            return jax.device_put(tree, _everywhere(lane))
        parts = NamedSharding(lane.mesh, PartitionSpec(*[None] * examples, EXAMPLES))
        many = len(lane.device_set)
        equal = all(np.shape(leaf)[examples] % many == 0 for leaf in jax.tree.leaves(tree))
        return jax.device_put(tree, parts if equal else _everywhere(lane))

    return Shared(tuple(place(lane) if _is_here(lane) else None for lane in _lanes(axis)))


def own(shared: Shared) -> PyTree:
    """The first copy of this process, moved to the device where `join` puts rows.

    >>> own(share(np.array([10, 20]), axis("map"))).tolist()
    [10, 20]
    """
    mine = next(copy for copy in shared.copies if copy is not None)
    return jax.device_put(mine, jax.local_devices()[0])


def batch(fn: Callable[..., PyTree], axis: Axis) -> Callable[..., Blocks]:
    """Turns `fn(row, *shared)` of one run into a compiled function of `Blocks` and `Shared`.

    Args:
      fn: pure; `row` is a PyTree without the run axis, `shared` are the same for all runs.
      axis: the run axis.

    Returns:
      `(Blocks, *Shared) -> Blocks`, which waits for its results. If JAX has a compilation cache,
      the program is compiled for the first lane, and the other lanes of the same kind of device
      load it from the cache (on CPUs, if JAX is configured to do so).

    >>> one = axis("vmap", width=2, devices=jax.devices()[:1])
    >>> product = batch(lambda row, factor: row * factor, one)
    >>> join(product(split(np.array([1.0, 2.0, 3.0]), one), share(10.0, one))).tolist()
    [10.0, 20.0, 30.0]
    """
    lanes = _lanes(axis)
    jitted = program(fn, axis)
    many = len(lanes)
    compiled: dict[Hashable, Callable[..., PyTree]] = {}

    def of_lane(lane: int, blocks: Blocks, shared: tuple[Shared, ...]) -> Callable[..., PyTree]:
        """The lane's program for arguments of these shapes; compiles it on first use."""
        arguments = (blocks.blocks[lane], *(s.copies[lane] for s in shared))
        leaves, structure = jax.tree.flatten(arguments)
        which = lane, structure, tuple(map(jax.typeof, leaves))
        if which not in compiled:
            compiled[which] = jitted.lower(*arguments).compile()
        return compiled[which]

    def run_lane(lane: int, blocks: Blocks, shared: tuple[Shared, ...]) -> dict[int, PyTree]:
        run = of_lane(lane, blocks, shared)
        arguments = [s.copies[lane] for s in shared]
        return {
            i: jax.block_until_ready(run(blocks.blocks[i], *arguments))
            for i in range(lane, len(blocks.blocks), many)
        }

    def call(blocks: Blocks, *shared: Shared) -> Blocks:
        mine = [i for i in range(min(many, len(blocks.blocks))) if _is_here(lanes[i])]
        if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
            of_lane(mine[0], blocks, shared)  # the other lanes load it from the cache
        if len(mine) == 1:
            done = [run_lane(mine[0], blocks, shared)]
        else:
            with ThreadPoolExecutor(len(mine)) as pool:
                done = list(pool.map(lambda i: run_lane(i, blocks, shared), mine))
        results = {i: result for one in done for i, result in one.items()}
        return Blocks(tuple(map(results.get, range(len(blocks.blocks)))), blocks.runs)

    return call


def program(fn: Callable[..., PyTree], axis: Axis) -> Any:
    """The jitted `(block, *shared) -> block` that `batch` compiles, for inspection.

    >>> product = program(lambda row, factor: row * factor, axis("vmap"))
    >>> product(np.array([1.0, 2.0]), 10.0).tolist()
    [10.0, 20.0]
    """
    at_once = axis.devices[0].platform != "cpu" if axis.mode == SHARD else axis.mode == VMAP

    def block(rows: PyTree, *shared: PyTree) -> PyTree:
        if at_once:
            return jax.vmap(lambda row: fn(row, *shared))(rows)
        if axis.width == 1:
            result = fn(jax.tree.map(lambda leaf: leaf[0], rows), *shared)
            return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], result)
        return jax.lax.map(lambda row: fn(row, *shared), rows)

    block.__name__ = f"block_of_{getattr(fn, '__name__', 'runs')}"  # for logs of compilations

    if axis.mode not in (SHARD, DATA):
        return jax.jit(block)
    (lane,) = [lane for lane in _lanes(axis) if _is_here(lane)]

    def sharded(rows: PyTree, *shared: PyTree) -> PyTree:
        by_run, whole = PartitionSpec(RUNS), PartitionSpec()
        places = (by_run, *[whole] * len(shared))
        return jax.shard_map(
            block, mesh=lane.mesh, in_specs=places, out_specs=by_run, check_vma=False
        )(rows, *shared)

    def divided(rows: PyTree, *shared: PyTree) -> PyTree:
        with jax.sharding.use_abstract_mesh(lane.mesh.abstract_mesh):
            return block(rows, *shared)

    if axis.mode == SHARD:
        return jax.jit(sharded)
    return jax.jit(divided, out_shardings=lane)


def divide(examples: PyTree) -> PyTree:
    """In mode `data`, divides `examples` (leading axis: examples) among the devices of a run.

    In all other modes, and outside of `batch`, it returns `examples` unchanged.

    >>> divide(np.array([1, 2])).tolist()
    [1, 2]
    """
    if not divides():
        return examples
    return jax.lax.with_sharding_constraint(examples, PartitionSpec(EXAMPLES))


def divides() -> bool:
    """Whether the function being traced divides its examples among devices, see `divide`.

    >>> divides()
    False
    """
    return EXAMPLES in jax.sharding.get_abstract_mesh().axis_names


def turn(axis: Axis) -> int:
    """The number of runs in one round of all lanes, with one block on each.

    >>> turn(axis("vmap", width=8, devices=jax.devices()[:1]))
    8
    """
    return _block(axis) * len(_lanes(axis))


def unzip(blocks: Blocks) -> tuple[Blocks, Blocks]:
    """Splits blocks whose rows are pairs into two.

    >>> pairs = split((np.array([1, 2]), np.array([3, 4])), axis("map"))
    >>> [join(blocks).tolist() for blocks in unzip(pairs)]
    [[1, 2], [3, 4]]
    """
    pairs = [(None, None) if block is None else block for block in blocks.blocks]
    left, right = zip(*pairs, strict=True)
    return Blocks(left, blocks.runs), Blocks(right, blocks.runs)


def pick(fn: Callable[..., PyTree], *blocks: Blocks) -> Blocks:
    """`fn(block, ...)` of each block of the same rows; `fn` picks leaves and computes nothing.

    Raises:
      ValueError: the blocks are not of the same rows.

    >>> rows = split({"loss": np.array([1, 2]), "step": np.array([3, 4])}, axis("map"))
    >>> join(pick(lambda block: block["step"], rows)).tolist()
    [3, 4]
    """
    if len({(one.runs, len(one.blocks)) for one in blocks}) != 1:
        raise ValueError("blocks of different rows can't be put together")
    together = zip(*(one.blocks for one in blocks), strict=True)
    made = (None if found[0] is None else fn(*found) for found in together)
    return Blocks(tuple(made), blocks[0].runs)


def zip_(left: Blocks, right: Blocks) -> Blocks:
    """Joins two `Blocks` of the same rows into blocks whose rows are pairs.

    >>> left, right = (split(np.array(rows), axis("map")) for rows in ([1, 2], [3, 4]))
    >>> [leaf.tolist() for leaf in join(zip_(left, right))]
    [[1, 2], [3, 4]]
    """
    if (left.runs, len(left.blocks)) != (right.runs, len(right.blocks)):
        raise ValueError(f"blocks of {left.runs} and of {right.runs} runs can't be paired")
    return pick(lambda *pair: pair, left, right)


def over_runs(fn: Callable[..., PyTree], axis: Axis, rows: PyTree, *shared: PyTree) -> PyTree:
    """`fn(row, *shared)` for every row, stacked: `split`, `batch` and `join` in one call.

    >>> one = axis("map", devices=jax.devices()[:1])
    >>> rates = np.array([0.5, 2.0])
    >>> over_runs(lambda rate, start: rate * start, one, rates, 3.0).tolist()
    [1.5, 6.0]
    """
    placed = (share(tree, axis) for tree in shared)
    return join(batch(fn, axis)(split(rows, axis), *placed))


# --- lanes ---------------------------------------------------------------------------------------

RUNS, EXAMPLES = "runs", "examples"
"""Names of the mesh axis of a lane, after what it divides."""


def _in_turn(devices: Sequence[jax.Device]) -> tuple[jax.Device, ...]:
    """Interleaves the devices of several processes, so that all processes have equal shares."""
    groups = _by_process(devices)
    turns = itertools.zip_longest(*(groups[process] for process in sorted(groups)))
    return tuple(device for turn in turns for device in turn if device is not None)


def _by_process(devices: Sequence[jax.Device]) -> dict[int, list[jax.Device]]:
    groups: dict[int, list[jax.Device]] = {}
    for device in devices:
        groups.setdefault(device.process_index, []).append(device)
    return groups


def _lanes(axis: Axis) -> list[Any]:
    """The lanes that take blocks in turn: single devices, or all devices of a process together."""
    if axis.mode not in (SHARD, DATA):
        return [SingleDeviceSharding(device) for device in axis.devices]
    groups = _by_process(axis.devices).values()
    name, spec = (RUNS, PartitionSpec(RUNS)) if axis.mode == SHARD else (EXAMPLES, PartitionSpec())
    return [NamedSharding(Mesh(np.array(group), (name,)), spec) for group in groups]


def _block(axis: Axis) -> int:
    """The number of runs in a block: in `shard`, the axis' width times the devices of a lane."""
    return axis.width * (len(_lanes(axis)[0].device_set) if axis.mode == SHARD else 1)


def _process(lane: Any) -> int:
    return min(device.process_index for device in lane.device_set)


def _is_here(lane: Sharding) -> bool:
    return lane.is_fully_addressable


def _everywhere(lane: Any) -> Sharding:
    """The sharding that gives each device of the lane a whole copy."""
    if isinstance(lane, NamedSharding):
        return NamedSharding(lane.mesh, PartitionSpec())
    return lane


# --- rows of blocks ------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=1)
def _concatenate(blocks: Sequence[PyTree], runs: int) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:runs], *blocks)


def _take_on_host(rows: PyTree, index: np.ndarray) -> PyTree:
    """The rows at `index` without a program, see `_concatenate_on_host`."""
    return jax.tree.map(
        lambda leaf: leaf[index] if _is_key(leaf) else np.asarray(leaf)[index], rows
    )


def _concatenate_on_host(blocks: Sequence[PyTree], runs: int) -> PyTree:
    """The same without a program, whose compilation takes longer than all copies on a CPU."""
    home = jax.local_devices()[0]

    def rows(*leaves: Array) -> Array:
        bits = map(_bits, leaves)
        return _like(jax.device_put(np.concatenate([*bits])[:runs], home), leaves[0])

    return jax.tree.map(rows, *blocks)


def _gather(mine: PyTree) -> PyTree:
    """The blocks `[count, width, ...]` of each process, as `[count, processes, width, ...]`."""
    found = multihost_utils.process_allgather(jax.tree.map(_bits, mine))

    def restore(leaf: Array, like: Array) -> Array:
        return _like(jnp.asarray(np.moveaxis(leaf, 0, 1)), like)

    return jax.tree.map(restore, found, mine)


@partial(jax.jit, static_argnums=1)
def _first_rows(stacked: PyTree, runs: int) -> PyTree:
    """Reshapes `[count, processes, width, ...]` to `[runs, ...]`, in the order of the blocks."""

    def rows(leaf: Array) -> Array:
        return leaf.reshape((math.prod(leaf.shape[:3]), *leaf.shape[3:]))[:runs]

    return jax.tree.map(rows, stacked)


def _bits(leaf: Array) -> Array:
    """The data of a key array; any other array as it is."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _like(bits: Array, leaf: Array) -> Array:
    """The inverse of `_bits`, for an array of the kind of `leaf`."""
    return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else bits


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
