"""A sparse product for training: its tables keep their shapes when the mask moves.

The kept inputs of each output are cut into segments of `WIDTH`, of which the last is padded. Any
mask that keeps at most z weights of a kernel `[n, o]` has at most (z + (WIDTH - 1) o) / WIDTH
segments, however unevenly they are spread over the outputs. So the tables of this module are
computed on the device and passed as arguments: a moved mask needs new tables, but no new program.

A product is one pass over the segments, which adds up WIDTH scaled rows of `x[n, b]`, and a sum of
each output's segments. Its gradient uses a second table, of the kept outputs of each input, and one
dot product of two rows for each kept weight. Nothing else is multiplied, and no dense gradient is
computed. Segments are those of Bell and Garland's hybrid of rows and padded tables ("Implementing
sparse matrix-vector multiplication on throughput-oriented processors", 2009) taken to the end: all
of the matrix is in a table, with several rows for an output.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array, PyTree

WIDTH = 8
"""Slots of a segment. On CPUs, 4 and 8 are about as fast as each other, 16 and 32 are slower."""
LANES = 16
"""Examples whose products a vector register adds up side by side, in the gradient of weights."""
CHUNK = 128
"""Examples that the gradient of weights takes at a time."""


class Segments(NamedTuple):
    """The positions of the kept weights of a kernel `[n, o]`, for at most z weights.

    Weights are packed as float`[r, WIDTH]`, with zeros as padding.

    Attributes:
      inputs: int32`[r, WIDTH]`, the input of each slot; 0 for padding.
      kept: bool`[r, WIDTH]`, False for padding.
      output: int32`[r]`, the output of each segment, in ascending order.
      fan_in: int32`[o]`, the number of kept weights of each output.
      outputs: int32`[q, WIDTH]`, of the transposed table: the kept outputs of each input; 0 for
        padding.
      slots: int32`[q, WIDTH]`, the positions of their weights in the flattened `[r, WIDTH]`;
        `r WIDTH` for padding.
      input: int32`[q]`, the input of each segment of the transposed table, in ascending order.
      fan_out: int32`[n]`, the number of kept weights of each input.
      fits: bool scalar, whether the mask keeps at most z weights.
    """

    inputs: Array
    kept: Array
    output: Array
    fan_in: Array
    outputs: Array
    slots: Array
    input: Array
    fan_out: Array
    fits: Array


def segments(mask: Array, capacity: int) -> Segments:
    """The tables of a mask; may be traced, and computed inside a training.

    Args:
      mask: bool`[n, o]`.
      capacity: z, the largest number of kept weights that the tables have room for; static.

    Raises:
      ValueError: the mask keeps more than `capacity` weights. Under tracing, `fits` is False
        and all weights are packed as NaN instead.

    >>> table = segments(np.array([[True, False], [True, True]]), capacity=3)
    >>> table.fan_in.tolist(), table.fan_out.tolist(), table.inputs[table.kept].tolist()
    ([2, 1], [1, 2], [0, 1, 1])
    """
    check_array("the mask of a dense layer", mask, ("inputs", "outputs"), bool)
    n, o = jnp.shape(mask)
    mask = jnp.asarray(mask)
    if not 0 <= capacity <= n * o:
        raise ValueError(f"capacity={capacity}: must be from 0 to {n * o}, the kernel's size")
    fan_in = jnp.sum(mask, 0, dtype=jnp.int32)
    fan_out = jnp.sum(mask, 1, dtype=jnp.int32)
    total = jnp.sum(fan_in)
    if not isinstance(total, jax.core.Tracer) and total > capacity:
        raise ValueError(f"the mask keeps {total} weights, more than the capacity {capacity}")
    # positions in the order of outputs, then inputs; n o past the last
    ranks = jnp.arange(1, capacity + 1, dtype=jnp.int32)
    sums = jnp.cumsum(mask.T.ravel(), dtype=jnp.int32)
    places = jnp.searchsorted(sums, ranks, method="scan_unrolled").astype(jnp.int32)
    outputs, inputs = places // n, places % n
    slots, output = _slots(fan_in, outputs, capacity)
    size = len(output) * WIDTH
    kept = jnp.zeros(size, bool).at[slots].set(True, mode="drop").reshape(-1, WIDTH)
    order = jnp.argsort(jnp.where(outputs < o, inputs, n), stable=True)
    turned, input = _slots(fan_out, jnp.where(outputs < o, inputs, n)[order], capacity)
    return Segments(
        inputs=_table(slots, inputs, len(output), 0),
        kept=kept,
        output=output,
        fan_in=fan_in,
        outputs=_table(turned, outputs[order], len(input), 0),
        slots=_table(turned, slots[order], len(input), size),
        input=input,
        fan_out=fan_out,
        fits=total <= capacity,
    )


def _slots(counts: Array, rows: Array, capacity: int) -> tuple[jax.Array, jax.Array]:
    """The slots of weights that are ordered by row, and the row of each segment.

    Args:
      counts: int32`[rows]`, the weights of each row.
      rows: int32`[z]`, the row of each weight; the number of rows for those that don't exist, whose
        slots are past the end.
      capacity: z.
    """
    number = counts.size
    most = (capacity + (WIDTH - 1) * min(number, capacity)) // WIDTH
    pieces = (counts + WIDTH - 1) // WIDTH
    ends = jnp.cumsum(pieces, dtype=jnp.int32)
    row = jnp.minimum(rows, number - 1)
    rank = (
        jnp.arange(capacity, dtype=jnp.int32) - (jnp.cumsum(counts, dtype=jnp.int32) - counts)[row]
    )
    slots = (ends - pieces)[row] * WIDTH + rank
    of = jnp.searchsorted(ends, jnp.arange(most, dtype=jnp.int32), side="right")
    return jnp.where(rows < number, slots, most * WIDTH), jnp.minimum(of, number - 1).astype(
        jnp.int32
    )


def _table(slots: Array, values: Array, rows: int, padding: int) -> jax.Array:
    full = jnp.full(rows * WIDTH, padding, jnp.int32)
    return full.at[slots].set(values, mode="drop").reshape(rows, WIDTH)


def pack(table: Segments, kernel: Array) -> jax.Array:
    """The kept weights of a kernel `[n, o]`, or of anything with its shape, as `[r, WIDTH]`.

    >>> kernel = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    >>> table = segments(np.array([[True, False], [True, True]]), capacity=3)
    >>> pack(table, kernel)[table.kept].tolist()  # output by output
    [1.0, 3.0, 4.0]
    """
    kernel = jnp.asarray(kernel)
    weights = jnp.where(table.kept, kernel[table.inputs, table.output[:, None]], 0)
    return jnp.where(table.fits, weights, jnp.nan).astype(kernel.dtype)


def unpack(table: Segments, weights: Array) -> jax.Array:
    """The kernel `[n, o]` of packed weights, zero where pruned.

    >>> kernel = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    >>> table = segments(np.array([[True, False], [True, True]]), capacity=3)
    >>> unpack(table, pack(table, kernel)).tolist()
    [[1.0, 0.0], [3.0, 4.0]]
    """
    n, o = table.fan_out.size, table.fan_in.size
    inputs = jnp.where(table.kept, table.inputs, n)
    zero = jnp.zeros((n, o), jnp.result_type(weights))
    return zero.at[inputs, table.output[:, None]].set(weights, mode="drop")


def at(array: Array, index: Array) -> jax.Array:
    """Rows of an array; the indices must be in bounds.

    >>> at(np.array([[1, 2], [3, 4], [5, 6]]), np.array([2, 0])).tolist()
    [[5, 6], [1, 2]]
    """
    return jnp.asarray(array).at[index].get(mode="promise_in_bounds")


def stored(table: Segments, x: Array) -> jax.Array:
    """The inputs `x[n, b]`, NaN if the mask doesn't fit; a `product` of what this returns is fast.

    A product reads each input several times. On CPUs, XLA would fuse what computes x, such as a
    transposition, with each of the reads, and ignores barriers. It does not fuse a branch.

    >>> table = segments(np.array([[True, False], [True, True]]), capacity=3)
    >>> x = jnp.array([[1.0], [10.0]])
    >>> stored(table, x).tolist(), stored(table._replace(fits=jnp.array(False)), x).tolist()
    ([[1.0], [10.0]], [[nan], [nan]])
    """
    return lax.cond(table.fits, lambda x: x, lambda x: jnp.full_like(x, jnp.nan), x)


@jax.custom_vjp
def product(table: Segments, weights: Array, x: Array) -> jax.Array:
    """`kernel.T @ x`: packed weights times `x[n, b]`, as `[o, b]`, to float tolerance.

    Its gradient is that of the dense product at the kept weights, and zero at padding.

    >>> kernel = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    >>> table = segments(np.array([[True, False], [True, True]]), capacity=3)
    >>> product(table, pack(table, kernel), jnp.array([[1.0], [10.0]])).tolist()
    [[31.0], [40.0]]
    """
    return _forward(table, weights, x)[0]


def _forward(table: Segments, weights: Array, x: Array) -> tuple[jax.Array, PyTree]:
    y = _sums(weights, table.inputs, table.output, table.fan_in.size, x)
    return y, (table, weights, x)


def _backward(saved: PyTree, back: Array) -> tuple[None, jax.Array, jax.Array]:
    table, weights, x = saved
    padded = jnp.append(weights.ravel(), jnp.zeros(1, weights.dtype))
    turned = at(padded, table.slots)
    of_x = _sums(turned, table.outputs, table.input, table.fan_out.size, back)
    return None, jnp.where(table.kept, _dots(table, x, back), 0).astype(weights.dtype), of_x


product.defvjp(_forward, _backward)


def _sums(weights: Array, index: Array, row: Array, rows: int, x: Array) -> jax.Array:
    """`y[j, b]`, the sum over all slots of row j of `weights · x[index, b]`."""
    parts = weights[:, :1] * at(x, index[:, 0])
    for i in range(1, WIDTH):
        parts = parts + weights[:, i : i + 1] * at(x, index[:, i])
    return jax.ops.segment_sum(parts, row, rows, indices_are_sorted=True)


def _dots(table: Segments, x: Array, back: Array) -> jax.Array:
    """`[r, WIDTH]`: `sum_b x[input, b] back[output, b]`, the gradient of packed weights.

    Each product of rows is first a sum of `LANES` numbers over the others, which compiles to vector
    operations, then a sum of these.
    """
    batch = x.shape[1]
    step = CHUNK if batch > CHUNK else -(-batch // LANES) * LANES
    x, back = (_chunks(a, step) for a in (x, back))

    def add(total: Array, chunk: tuple[Array, Array]) -> tuple[jax.Array, None]:
        x, back = chunk
        for i in range(step // LANES):
            total = total + at(x[:, i], table.inputs) * at(back[:, i], table.output)[:, None]
        return total, None

    zero = jnp.zeros((*table.inputs.shape, LANES), x.dtype)
    if len(x) == 1:
        total, _ = add(zero, (x[0], back[0]))
    else:
        total, _ = lax.scan(add, zero, (x, back))
    ones = jnp.ones(LANES, x.dtype)
    sums = jnp.dot(total.reshape(-1, LANES), ones, precision=lax.Precision.HIGHEST)
    return sums.reshape(table.inputs.shape)


def _chunks(a: Array, step: int) -> jax.Array:
    """`[n, b]` -> `[chunks, n, step / LANES, LANES]`, with zeros as padding."""
    n, batch = a.shape
    whole = jnp.pad(a, ((0, 0), (0, -batch % step)))
    return whole.reshape(n, -1, step // LANES, LANES).transpose(1, 0, 2, 3)
