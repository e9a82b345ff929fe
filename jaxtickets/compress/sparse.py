"""Products that skip the zeros of a masked kernel, and LeNets that use them.

A mask saves no time in a dense product. The forms below of `kernel.T @ x` neither store nor
multiply pruned weights, and each has its own gradient, for kept weights only. Activations are
transposed to `x[n, b]`, with the batch last, so that one input of all examples is a contiguous row
and a product is a sum of scaled rows.

`bcoo` and `bcsr` are those of `jax.experimental.sparse`. `gathered` uses a table of the kept inputs
of each output, padded to the largest number of any output (the ELLPACK layout of Grimes, Kincaid
and Young, "ITPACK 2.0 user's guide", 1979). `live` is a dense product over the inputs that have a
kept weight. `segments` is the form for training with a mask that moves, see its module.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import sparse

from jaxtickets.compress import segments
from jaxtickets.compress.segments import Segments, at
from jaxtickets.nets.convolution import max_pool2
from jaxtickets.types import Array, Mask, Params, PyTree

UNROLL = 8
"""Rows that the gathered form adds in one pass, so that its sums stay in the cache."""


class Pattern(NamedTuple):
    """The positions of the z kept weights of a kernel `[n, o]`, ordered by output, then input.

    Attributes:
      mask: bool`[n, o]`.
      rows: int32`[z]`, the output of each kept weight.
      columns: int32`[z]`, the input of each kept weight.
      starts: int32`[o + 1]`, the index of the first weight of each output, then z.
      turned: int32`[z]`, the indices of the weights, ordered by input, then output.
      turned_starts: int32`[n + 1]`, the index in `turned` of the first weight of each input, then
        z.
      inputs: int32`[o, k]`, the kept inputs of each output, padded with 0; k is the largest number
        of any output.
      kept: bool`[o, k]`, False where `inputs` is padding.
      outputs: int32`[n, m]`, the kept outputs of each input, padded with 0.
      slots: int32`[n, m]`, the positions of their weights in the flattened `[o, k]`; `o k` for
        padding.
      live: int32`[l]`, the inputs that have a kept weight.
      segments: see `segments.Segments`; for exactly z weights.
    """

    mask: Array
    rows: Array
    columns: Array
    starts: Array
    turned: Array
    turned_starts: Array
    inputs: Array
    kept: Array
    outputs: Array
    slots: Array
    live: Array
    segments: Segments


def pattern(mask: Array) -> Pattern:
    """The pattern of a mask over a kernel, computed on the host.

    Args:
      mask: bool`[..., o]`, the mask of a dense layer or a convolution; the axes before the last are
        the inputs, flattened.

    >>> found = pattern(np.array([[True, False], [True, True]]))
    >>> found.rows.tolist(), found.columns.tolist(), found.starts.tolist()
    ([0, 0, 1], [0, 1, 1], [0, 2, 3])
    """
    flat = np.asarray(mask, bool).reshape(-1, np.shape(mask)[-1])
    inputs, kept, starts = _table(flat.T)
    outputs, used, turned_starts = _table(flat)
    rows, columns = np.nonzero(flat.T)
    slots = np.full(used.shape, kept.size)
    turned = np.lexsort((rows, columns))
    slots[used] = np.flatnonzero(kept)[turned]
    whole = partial(jnp.asarray, dtype=jnp.int32)
    return Pattern(
        mask=jnp.asarray(flat),
        rows=whole(rows),
        columns=whole(columns),
        starts=whole(starts),
        turned=whole(turned),
        turned_starts=whole(turned_starts),
        inputs=whole(inputs),
        kept=jnp.asarray(kept),
        outputs=whole(outputs),
        slots=whole(slots),
        live=whole(np.flatnonzero(flat.any(1))),
        segments=_tables(flat, int(flat.sum())),
    )


_tables = jax.jit(segments.segments, static_argnums=1)


def _table(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The positions of the ones in each row, padded; where they are not padding; the row starts."""
    counts = flat.sum(1)
    filled = np.arange(max(1, counts.max(initial=0))) < counts[:, None]
    places = np.zeros(filled.shape, int)
    places[filled] = np.nonzero(flat)[1]
    return places, filled, np.concatenate([[0], np.cumsum(counts)])


# --- forms ---------------------------------------------------------------------------------------


class Form(NamedTuple):
    """A way to store the kept weights of a kernel and to multiply by them.

    Attributes:
      pack: `pack(pattern, kernel) -> weights`, from a kernel `[..., o]`.
      unpack: `unpack(pattern, weights) -> kernel[n, o]`, zero where pruned; also for gradients.
      product: `product(pattern, weights, x[n, b]) -> y[o, b]`: `kernel.T @ x` to float tolerance.
        Its gradient is that of the dense product at the kept weights, and zero at padding.
    """

    pack: Callable[[Pattern, Array], jax.Array]
    unpack: Callable[[Pattern, Array], jax.Array]
    product: Callable[[Pattern, Array, Array], jax.Array]


def _flat(kernel: Array) -> jax.Array:
    return jnp.reshape(kernel, (-1, jnp.shape(kernel)[-1]))


# dense, transposed: measures the effect of the layout alone


def _pack_dense(pattern: Pattern, kernel: Array) -> jax.Array:
    return jnp.where(pattern.mask, _flat(kernel), 0).T


@jax.custom_vjp
def _masked(kept: Array, weights: Array, x: Array) -> jax.Array:
    """`weights[o, n] @ x[n, b]`; the gradient is zero where `kept[o, n]` is False."""
    del kept
    return weights @ x


def _masked_forward(kept: Array, weights: Array, x: Array) -> tuple[jax.Array, PyTree]:
    return weights @ x, (kept, weights, x)


def _masked_backward(saved: PyTree, back: Array) -> tuple[None, jax.Array, jax.Array]:
    kept, weights, x = saved
    return None, jnp.where(kept, back @ x.T, 0), weights.T @ back


_masked.defvjp(_masked_forward, _masked_backward)


def _dense(pattern: Pattern, weights: Array, x: Array) -> jax.Array:
    return _masked(pattern.mask.T, weights, x)


# dense over the live inputs


def _pack_live(pattern: Pattern, kernel: Array) -> jax.Array:
    return _pack_dense(pattern, kernel)[:, pattern.live]


def _unpack_live(pattern: Pattern, weights: Array) -> jax.Array:
    return jnp.zeros(pattern.mask.shape).at[pattern.live].set(weights.T)


def _live(pattern: Pattern, weights: Array, x: Array) -> jax.Array:
    return _masked(at(pattern.mask, pattern.live).T, weights, at(x, pattern.live))


# a list of kept weights, and JAX's own sparse products


def _pack_list(pattern: Pattern, kernel: Array) -> jax.Array:
    return _flat(kernel)[pattern.columns, pattern.rows]


def _unpack_list(pattern: Pattern, weights: Array) -> jax.Array:
    return jnp.zeros(pattern.mask.shape).at[pattern.columns, pattern.rows].set(weights)


def _bcoo(pattern: Pattern, weights: Array, x: Array) -> jax.Array:
    indices = jnp.stack([pattern.rows, pattern.columns], 1)
    shape = pattern.mask.shape[::-1]
    return (
        sparse.BCOO((weights, indices), shape=shape, indices_sorted=True, unique_indices=True) @ x
    )


@jax.custom_vjp
def _bcsr(pattern: Pattern, weights: Array, x: Array) -> jax.Array:
    held = weights, pattern.columns, pattern.starts
    return sparse.BCSR(held, shape=pattern.mask.shape[::-1]) @ x


def _bcsr_forward(pattern: Pattern, weights: Array, x: Array) -> tuple[jax.Array, PyTree]:
    return _bcsr(pattern, weights, x), (pattern, weights, x)


def _bcsr_backward(saved: PyTree, back: Array) -> tuple[None, jax.Array, jax.Array]:
    """The gradient that BCSR lacks: the transposed product, and the sums of the gathered form."""
    pattern, weights, x = saved
    turned = at(weights, pattern.turned), at(pattern.rows, pattern.turned), pattern.turned_starts
    width = pattern.inputs.shape[1]
    rank = jnp.arange(weights.size, dtype=jnp.int32) - at(pattern.starts, pattern.rows)
    of_table = _products(pattern.inputs, x, back).ravel()
    of_x = sparse.BCSR(turned, shape=pattern.mask.shape) @ back
    return None, at(of_table, pattern.rows * width + rank), of_x


_bcsr.defvjp(_bcsr_forward, _bcsr_backward)

# a table of each output's inputs


def _pack_table(pattern: Pattern, kernel: Array) -> jax.Array:
    outputs = jnp.arange(pattern.inputs.shape[0])[:, None]
    return jnp.where(pattern.kept, _flat(kernel)[pattern.inputs, outputs], 0)


def _unpack_table(pattern: Pattern, weights: Array) -> jax.Array:
    outputs = jnp.arange(pattern.inputs.shape[0])[:, None]
    kept = jnp.where(pattern.kept, weights, 0)
    return jnp.zeros(pattern.mask.shape).at[pattern.inputs, outputs].add(kept)


def _sums(index: Array, weights: Array, x: Array) -> jax.Array:
    """`y[o, b] = sum_k weights[o, k] x[index[o, k], b]`."""
    if x.shape[1] == 1:
        return jnp.sum(weights * at(x[:, 0], index), 1)[:, None]

    def add(y: Array, column: tuple[Array, Array]) -> tuple[jax.Array, None]:
        where, scale = column
        return y + scale[:, None] * at(x, where), None

    first = jnp.zeros((index.shape[0], x.shape[1]), x.dtype)
    return lax.scan(add, first, (index.T, weights.T), unroll=UNROLL)[0]


def _products(index: Array, x: Array, back: Array) -> jax.Array:
    """`[o, k]`: `sum_b back[o, b] x[index[o, k], b]`, the gradient of a table's weights."""
    return lax.map(lambda row: at(x, row[0]) @ row[1], (index, back))


@jax.custom_vjp
def _gathered(pattern: Pattern, weights: Array, x: Array) -> jax.Array:
    return _sums(pattern.inputs, weights, x)


def _gathered_forward(pattern: Pattern, weights: Array, x: Array) -> tuple[jax.Array, PyTree]:
    return _gathered(pattern, weights, x), (pattern, weights, x)


def _gathered_backward(saved: PyTree, back: Array) -> tuple[None, jax.Array, jax.Array]:
    """The gradient from the transposed table: gathers only, no scatter."""
    pattern, weights, x = saved
    padded = jnp.append(weights.ravel(), jnp.zeros(1, weights.dtype))
    of_x = _sums(pattern.outputs, at(padded, pattern.slots), back)
    return None, jnp.where(pattern.kept, _products(pattern.inputs, x, back), 0), of_x


_gathered.defvjp(_gathered_forward, _gathered_backward)

# segments of each output's inputs


def _pack_segments(pattern: Pattern, kernel: Array) -> jax.Array:
    return segments.pack(pattern.segments, _flat(kernel))


def _unpack_segments(pattern: Pattern, weights: Array) -> jax.Array:
    return segments.unpack(pattern.segments, weights)


def _segments(pattern: Pattern, weights: Array, x: Array) -> jax.Array:
    where = pattern.segments
    return segments.product(where, weights, segments.stored(where, x))


FORMS: dict[str, Form] = {
    "dense_transposed": Form(_pack_dense, lambda pattern, weights: weights.T, _dense),
    "live": Form(_pack_live, _unpack_live, _live),
    "gathered": Form(_pack_table, _unpack_table, _gathered),
    "segments": Form(_pack_segments, _unpack_segments, _segments),
    "bcsr": Form(_pack_list, _unpack_list, _bcsr),
    "bcoo": Form(_pack_list, _unpack_list, _bcoo),
}

# --- LeNets --------------------------------------------------------------------------------------


class Layer(NamedTuple):
    """A layer of a LeNet.

    Attributes:
      name: its name in the parameters.
      window: `(h, w)` of a convolution, `()` of a dense layer.
    """

    name: str
    window: tuple[int, ...]


class Held(NamedTuple):
    """A masked net stored in a form.

    Attributes:
      patterns: layer -> its pattern.
      weights: layer -> `kernel` as packed by the form, and float`bias[o]` if there is one.
    """

    patterns: dict[str, Pattern]
    weights: dict[str, dict[str, jax.Array]]


def layers(params: Params, order: Sequence[str]) -> tuple[Layer, ...]:
    """The layers named in `order`, as arguments of `forward`.

    >>> params = {"conv": {"kernel": np.zeros((5, 5, 1, 2))}, "out": {"kernel": np.zeros((8, 3))}}
    >>> [tuple(layer) for layer in layers(params, ("conv", "out"))]
    [('conv', (5, 5)), ('out', ())]
    """
    return tuple(Layer(name, tuple(jnp.shape(params[name]["kernel"])[:-2])) for name in order)


def hold(form: Form, mask: Mask, params: Params) -> Held:
    """Stores a net's parameters in a form, with the kernels masked; on the host.

    >>> kernel, mask = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[True, False], [True, True]])
    >>> params = {"out": {"kernel": jnp.array(kernel)}}
    >>> held = hold(FORMS["bcsr"], {"out": {"kernel": mask}}, params)
    >>> held.weights["out"]["kernel"].tolist()  # output by output
    [1.0, 3.0, 4.0]
    """
    patterns = {name: pattern(leaves["kernel"]) for name, leaves in mask.items()}
    weights = {
        name: {**leaves, "kernel": form.pack(patterns[name], leaves["kernel"])}
        for name, leaves in params.items()
    }
    return Held(patterns, weights)


def forward(
    form: Form,
    layers: Sequence[Layer],
    patterns: Mapping[str, Pattern],
    weights: Mapping[str, Mapping[str, Array]],
    images: Array,
) -> jax.Array:
    """Logits `[n, classes]` of a LeNet, equal to its own to float tolerance.

    Convolutions (no padding, stride 1), each followed by a ReLU and a 2x2 pool, then dense layers
    with ReLUs between them, as in `lenet300_100` and `lenet5`.

    Args:
      form: how the kernels are stored.
      layers: the layers in forward order.
      patterns, weights: see `Held`.
      images: float`[n, h, w, c]`, normalised.

    >>> kernel, mask = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[True, False], [True, True]])
    >>> params = {"out": {"kernel": jnp.array(kernel)}}
    >>> held = hold(FORMS["bcsr"], {"out": {"kernel": mask}}, params)
    >>> images = jnp.array([1.0, 10.0]).reshape(1, 2, 1, 1)
    >>> forward(FORMS["bcsr"], layers(params, ("out",)), *held, images).tolist()
    [[31.0, 40.0]]
    """
    x = jnp.transpose(images, (3, 1, 2, 0))
    for i, layer in enumerate(layers):
        held = weights[layer.name]
        if layer.window:
            x, sides = _patches(x, layer.window)
        elif x.ndim == 4:
            x = jnp.transpose(x, (1, 2, 0, 3)).reshape(-1, x.shape[-1])
        x = form.product(patterns[layer.name], held["kernel"], x)
        if "bias" in held:
            x = x + held["bias"][:, None]
        if i + 1 < len(layers):
            x = jax.nn.relu(x)
        if layer.window:
            x = max_pool2(x.reshape(x.shape[0], *sides))
    return x.T


def _patches(x: Array, window: Sequence[int]) -> tuple[jax.Array, tuple[int, int, int]]:
    """`[c, h, w, n]` -> patches `[kh kw c, out_h out_w n]` and `(out_h, out_w, n)`."""
    rows, columns = (size - side + 1 for size, side in zip(x.shape[1:3], window, strict=True))
    slices = [
        x[:, i : i + rows, j : j + columns] for i in range(window[0]) for j in range(window[1])
    ]
    sides = rows, columns, x.shape[3]
    return jnp.concatenate(slices).reshape(-1, rows * columns * x.shape[3]), sides
