"""The mask algebra: create, apply, measure, compare and expand masks.

A mask is a PyTree of bool like the parameters. `prunable` names the leaves that are ranked and
counted. Every function keeps the other leaves True, so that they do not affect densities or
distances. Only `expand` masks other leaves.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtickets import roles
from jaxtickets.shape_checks import check_array
from jaxtickets.types import (
    Array,
    Keep,
    Key,
    Mask,
    Params,
    Prunable,
    PyTree,
    Scores,
    UnitMask,
    Wiring,
)

# --- leaves by path ------------------------------------------------------------------------------


def paths(tree: PyTree) -> tuple[str, ...]:
    """The path of each leaf, such as `conv1/kernel`, in the order of `jax.tree.leaves`.

    >>> paths({"fc1": {"kernel": 0, "bias": 0}, "out": {"kernel": 0}})
    ('fc1/bias', 'fc1/kernel', 'out/kernel')
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return tuple(jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in flat)


def prunable(
    params: Params,
    exclude: Sequence[str] = (),
    is_prunable: Callable[[str, Array], bool] = roles.is_kernel,
) -> Prunable:
    """The paths of the leaves to prune: kernels, but not biases, norms, embeddings and positions.

    Args:
      params: parameters.
      exclude: layers or leaves that stay dense, such as `("out",)` for the output layer.
      is_prunable: `(path, leaf) -> bool`: whether a leaf is pruned, for example
        `roles.is_kernel_or_embedding`; by default, whether its name is that of a kernel, see
        `roles`.

    Raises:
      ValueError: `exclude` names no layer or leaf, or no leaf is left to prune.

    >>> fc1 = {"bias": np.ones(3), "kernel": np.ones((2, 3))}
    >>> params = {"fc1": fc1, "out": {"kernel": np.ones((3, 1))}}
    >>> prunable(params)
    ('fc1/kernel', 'out/kernel')
    >>> prunable(params, exclude=("out",))
    ('fc1/kernel',)
    """
    by_path = dict(zip(paths(params), jax.tree.leaves(params), strict=True))
    for name in exclude:
        if not any(path == name or path.startswith(name + "/") for path in by_path):
            raise ValueError(f"no layer '{name}' to exclude; there are {', '.join(by_path)}")
    chosen = [path for path, leaf in by_path.items() if is_prunable(path, leaf)]
    if not chosen:
        raise ValueError(
            f"no leaf is a kernel by its name among {_some(tuple(by_path))}: pass prunable's "
            "is_prunable=lambda path, leaf: ... to say what to prune"
        )
    left = tuple(
        sorted(
            path
            for path in chosen
            if not any(path == name or path.startswith(name + "/") for name in exclude)
        )
    )
    if not left:
        raise ValueError(f"no leaf is left to prune: {_some(chosen)} are all excluded")
    return left


def _some(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def pick(tree: PyTree, prunable: Prunable) -> list[Array]:
    """The leaves at the paths `prunable`, in that order.

    Raises:
      ValueError: a path is not in the tree.

    >>> pick({"a": 1, "b": 2, "c": 3}, ("a", "c"))
    [1, 3]
    """
    by_path = dict(zip(paths(tree), jax.tree.leaves(tree), strict=True))
    _check_paths(prunable, tuple(by_path))
    return [by_path[path] for path in prunable]


def _check_paths(asked: Sequence[str], there: Sequence[str]) -> None:
    missing = [path for path in asked if path not in there]
    if missing:
        raise ValueError(f"no leaf '{missing[0]}'; there are {', '.join(there)}")


def kernel_path(tree: PyTree, layer: str) -> str:
    """The path of a layer's kernel: `layer/kernel`, or the layer's only leaf with two axes or more.

    Raises:
      ValueError: the layer has no such leaf, or several.

    >>> kernel_path({"fc1": {"bias": np.ones(3), "w": np.ones((2, 3))}}, "fc1")
    'fc1/w'
    """
    prefix = f"{layer}/" if layer else ""
    own = {
        path: leaf
        for path, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True)
        if path.startswith(prefix) and "/" not in path.removeprefix(prefix)
    }
    if f"{prefix}kernel" in own:
        return f"{prefix}kernel"
    found = [path for path, leaf in own.items() if jnp.ndim(leaf) >= 2]
    if len(found) != 1:
        raise ValueError(f"{layer or 'the net'} has {len(found)} kernels among {_some([*own])}")
    return found[0]


def kernels(tree: PyTree, layers: Sequence[str]) -> list[Array]:
    """The kernels of the layers, see `kernel_path`.

    >>> params = {"fc1": {"bias": np.ones(2), "kernel": np.array([[1.0, 2.0]])}}
    >>> [kernel.tolist() for kernel in kernels(params, ["fc1"])]
    [[[1.0, 2.0]]]
    """
    return pick(tree, tuple(kernel_path(tree, layer) for layer in layers))


def put(tree: PyTree, prunable: Prunable, leaves: Sequence[Array]) -> PyTree:
    """Replaces the leaves of `tree` at the paths `prunable` by `leaves`.

    Raises:
      ValueError: a path is not in the tree.

    >>> put({"a": 1, "b": 2, "c": 3}, ("a", "c"), [10, 30])
    {'a': 10, 'b': 2, 'c': 30}
    """
    new = dict(zip(prunable, leaves, strict=True))
    there = paths(tree)
    _check_paths(prunable, there)
    return jax.tree.unflatten(
        jax.tree.structure(tree),
        [new.get(path, leaf) for path, leaf in zip(there, jax.tree.leaves(tree), strict=True)],
    )


def shapes(params: Params, prunable: Prunable) -> dict[str, tuple[int, ...]]:
    """Path -> shape of each prunable leaf.

    >>> shapes({"bias": np.ones(3), "kernel": np.ones((2, 3))}, ("kernel",))
    {'kernel': (2, 3)}
    """
    return {
        path: jnp.shape(leaf) for path, leaf in zip(prunable, pick(params, prunable), strict=True)
    }


def flatten(tree: PyTree, prunable: Prunable) -> jax.Array:
    """The prunable leaves as one vector `[n]`, in the order of `prunable`.

    >>> tree = {"a": np.array([[1, 2], [3, 4]]), "b": np.array([5]), "c": np.array([6])}
    >>> flatten(tree, ("a", "c")).tolist()
    [1, 2, 3, 4, 6]
    """
    return jnp.concatenate([jnp.ravel(leaf) for leaf in pick(tree, prunable)])


def unflatten(bits: Array, params: Params, prunable: Prunable) -> Mask:
    """The mask whose prunable leaves hold `bits[n]`; its other leaves are True.

    The inverse of `flatten` for masks.

    Raises:
      ValueError: `bits` is not bool`[n]`.

    >>> params = {"a": np.ones(2), "b": np.ones(1), "c": np.ones(2)}
    >>> mask = unflatten(np.array([True, False, False]), params, ("a", "b"))
    >>> {path: leaf.tolist() for path, leaf in mask.items()}
    {'a': [True, False], 'b': [False], 'c': [True, True]}
    """
    check_array("the bits", bits, (size(params, prunable),), bool)
    leaves, start = [], 0
    for shape in shapes(params, prunable).values():
        end = start + _size(shape)
        leaves.append(lax.slice(bits, (start,), (end,)).reshape(shape))
        start = end
    return put(ones(params), prunable, leaves)


def _size(shape: Sequence[int]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


# --- checks of arguments -------------------------------------------------------------------------


def check_mask(
    mask: Mask, params: Params, name: str = "the mask", of: str = "the parameters"
) -> None:
    """Raises ValueError, in one line, unless `mask` is bool and has the structure of `params`.

    It reads only structures, shapes and dtypes, so it costs compiled code nothing. See
    `check_like`.

    >>> check_mask({"w": np.zeros(2, "float32")}, {"w": np.ones(2)})
    Traceback (most recent call last):
    ValueError: the mask is float32 in w: it must be bool
    """
    check_like(mask, params, name, of)
    for path, leaf in zip(paths(mask), jax.tree.leaves(mask), strict=True):
        _check_bool(path, leaf, name)


def check_like(tree: PyTree, like: PyTree, name: str, of: str) -> None:
    """Raises ValueError unless `tree` has the containers, the leaves and the shapes of `like`.

    The message is one line and names the first leaf that differs. `name` and `of` name the two
    trees.

    >>> check_like({"w": np.ones(2)}, {"w": np.ones(3)}, "the gradient", "the parameters")
    Traceback (most recent call last):
    ValueError: the gradient has the shape (2,) in w, where the parameters have (3,)
    """
    structures: tuple[Any, Any] = jax.tree.structure(tree), jax.tree.structure(like)
    leaves = [jax.tree.leaves(tree), jax.tree.leaves(like)]
    same = structures[0] == structures[1]
    if same and all(jnp.shape(a) == jnp.shape(b) for a, b in zip(*leaves, strict=True)):
        return
    mine, theirs = (
        dict(zip(paths(one), some, strict=True))
        for one, some in zip((tree, like), leaves, strict=True)
    )
    for path in theirs:
        if path not in mine:
            raise ValueError(f"no leaf '{path}' in {name}: it must be like {of}, leaf by leaf")
    for path, leaf in mine.items():
        if path not in theirs:
            raise ValueError(f"leaf '{path}' of {name} isn't in {of}")
        if jnp.shape(leaf) != jnp.shape(theirs[path]):
            raise ValueError(
                f"{name} has the shape {jnp.shape(leaf)} in {path}, where {of} have "
                f"{jnp.shape(theirs[path])}"
            )
    kinds = _containers(*structures)
    raise ValueError(
        f"{name} holds {kinds[0]} where {of} hold {kinds[1]}: convert one to the other's containers"
    )


def _containers(one: Any, other: Any) -> tuple[str, str]:
    """The types of the first containers at which two structures differ."""
    data = one.node_data(), other.node_data()
    kinds = tuple("a leaf" if node is None else f"a {node[0].__name__}" for node in data)
    if kinds[0] == kinds[1]:
        for children in zip(one.children(), other.children(), strict=False):
            if children[0] != children[1]:
                return _containers(*children)
    return kinds[0], kinds[1]


def _check_bool(path: str, leaf: Array, name: str) -> None:
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.bool_):
        raise ValueError(f"{name} is {jnp.result_type(leaf)} in {path}: it must be bool")


def _bits(mask: Mask, prunable: Prunable) -> list[Array]:
    """Like `pick`; raises ValueError if a leaf is not bool."""
    leaves = pick(mask, prunable)
    for path, leaf in zip(prunable, leaves, strict=True):
        _check_bool(path, leaf, "the mask")
    return leaves


def _pairs(a: Mask, b: Mask, prunable: Prunable) -> list[tuple[Array, Array]]:
    """The pairs of leaves of two masks; raises ValueError unless bool and equal in shape."""
    pairs = list(zip(_bits(a, prunable), _bits(b, prunable), strict=True))
    for path, (x, y) in zip(prunable, pairs, strict=True):
        if jnp.shape(x) != jnp.shape(y):
            raise ValueError(f"masks of the shapes {jnp.shape(x)} and {jnp.shape(y)} in {path}")
    return pairs


# --- apply and measure ---------------------------------------------------------------------------


def ones(params: Params) -> Mask:
    """The dense mask.

    >>> ones({"w": np.array([0.5, 0.0])})["w"].tolist()
    [True, True]
    """
    return jax.tree.map(lambda p: jnp.ones(jnp.shape(p), bool), params)


def zeros(params: Params) -> Scores:
    """Scores of zero, like `params`: float32, or float64 where the parameters are.

    >>> zero = zeros({"w": np.ones(2, "float16")})["w"]
    >>> zero.tolist(), zero.dtype.name
    ([0.0, 0.0], 'float32')
    """

    def leaf(p: Array) -> jax.Array:
        return jnp.zeros(jnp.shape(p), jnp.promote_types(jnp.result_type(p), jnp.float32))

    return jax.tree.map(leaf, params)


def apply(mask: Mask, params: Params, fill: Params | None = None) -> Params:
    """`where(mask, params, fill)`, leaf by leaf; None fills with zeros.

    It selects and does not multiply, because 0 * nan is nan.

    Raises:
      ValueError: the mask or the fill does not match the parameters (`check_mask`, `check_like`).

    >>> apply({"w": np.array([True, False])}, {"w": np.array([3.0, 4.0])})["w"].tolist()
    [3.0, 0.0]
    """
    check_mask(mask, params)
    if fill is not None:
        check_like(fill, params, "the fill", "the parameters")
    if fill is None:
        return jax.tree.map(lambda m, p: jnp.where(m, p, jnp.zeros_like(p)), mask, params)
    return jax.tree.map(jnp.where, mask, params, fill)


def counts(mask: Mask, prunable: Prunable) -> dict[str, jax.Array]:
    """Path -> the number of kept weights, an int32 scalar.

    >>> mask = {"a": np.array([True, False, True]), "b": np.array([True])}
    >>> {path: int(kept) for path, kept in counts(mask, ("a", "b")).items()}
    {'a': 2, 'b': 1}
    """
    return {
        path: jnp.sum(leaf, dtype=jnp.int32)
        for path, leaf in zip(prunable, _bits(mask, prunable), strict=True)
    }


def count(mask: Mask, prunable: Prunable) -> jax.Array:
    """The number of kept weights over all prunable leaves, an int32 scalar.

    >>> mask = {"a": np.array([True, False, True]), "b": np.array([True])}
    >>> int(count(mask, ("a", "b")))
    3
    """
    return sum(counts(mask, prunable).values(), jnp.int32(0))


def size(params: Params, prunable: Prunable) -> int:
    """The number of prunable weights.

    >>> size({"bias": np.ones(3), "kernel": np.ones((2, 3))}, ("kernel",))
    6
    """
    return sum(_size(shape) for shape in shapes(params, prunable).values())


def density(mask: Mask, prunable: Prunable) -> jax.Array:
    """The number of kept weights over that of prunable weights: float scalar in [0, 1].

    >>> mask = {"a": np.array([True, False, False, False]), "b": np.array([True])}
    >>> float(density(mask, ("a",)))
    0.25
    """
    return count(mask, prunable) / size(mask, prunable)


def densities(mask: Mask, prunable: Prunable) -> dict[str, jax.Array]:
    """Path -> the density of that leaf, a float scalar in [0, 1].

    >>> mask = {"a": np.array([True, False, False, False]), "b": np.array([True])}
    >>> {path: float(kept) for path, kept in densities(mask, ("a", "b")).items()}
    {'a': 0.25, 'b': 1.0}
    """
    sizes = {path: _size(shape) for path, shape in shapes(mask, prunable).items()}
    return {path: kept / sizes[path] for path, kept in counts(mask, prunable).items()}


def hamming(a: Mask, b: Mask, prunable: Prunable) -> jax.Array:
    """The number of prunable weights at which two masks differ, an int32 scalar.

    >>> a, b = {"w": np.array([True, True, False])}, {"w": np.array([False, True, True])}
    >>> int(hamming(a, b, ("w",)))
    2
    """
    pairs = _pairs(a, b, prunable)
    return sum((jnp.sum(x != y, dtype=jnp.int32) for x, y in pairs), jnp.int32(0))


def pack(bits: Array) -> jax.Array:
    """uint32`[..., ceil(n / 32)]`: packs bool`[..., n]`, lowest bit first, padded with zeros.

    >>> pack(np.array([True, False, True])).tolist()
    [5]
    """
    check_array("the bits", bits, (*jnp.shape(bits)[:-1], "n"), bool)
    short = -bits.shape[-1] % 32
    padded = jnp.pad(bits, ((0, 0),) * (bits.ndim - 1) + ((0, short),))
    words = padded.reshape(*bits.shape[:-1], -1, 32).astype(jnp.uint32)
    places = jnp.arange(32, dtype=jnp.uint32).reshape((1,) * bits.ndim + (32,))
    return jnp.sum(words << places, -1, dtype=jnp.uint32)


@jax.jit
def distances(words: Array) -> jax.Array:
    """int32`[m, m]`: the Hamming distances of all pairs of packed masks, uint32`[m, w]`.

    Computed by the population count of exclusive ors. On a CPU, for masks of 266,200 weights, this
    is five to eight times as fast as float products, packing included, and forty times as fast as
    bools.

    >>> words = np.array([[0b000], [0b001], [0b111]], "uint32")
    >>> distances(words).tolist()
    [[0, 1, 3], [1, 0, 2], [3, 2, 0]]
    """

    check_array("the packed masks", words, ("m", "w"), int)

    def to_all(row: Array) -> jax.Array:
        return jnp.sum(lax.population_count(row[None] ^ words), 1, dtype=jnp.int32)

    return lax.map(to_all, words)


def _both(a: Mask, b: Mask, prunable: Prunable) -> jax.Array:
    pairs = _pairs(a, b, prunable)
    return sum((jnp.sum(x & y, dtype=jnp.int32) for x, y in pairs), jnp.int32(0))


def cosine(a: Mask, b: Mask, prunable: Prunable) -> jax.Array:
    """`|a & b| / sqrt(|a| |b|)`: the cosine of the flattened masks, in [0, 1]; NaN if one is empty.

    Two random masks of density d have an expected cosine of d.

    >>> a, b = {"w": np.array([True, True, False])}, {"w": np.array([False, True, True])}
    >>> round(float(cosine(a, b, ("w",))), 3)
    0.5
    """
    norm = jnp.sqrt(count(a, prunable).astype(float)) * jnp.sqrt(count(b, prunable).astype(float))
    return _both(a, b, prunable) / norm


def jaccard(a: Mask, b: Mask, prunable: Prunable) -> jax.Array:
    """`|a & b| / |a | b|`, in [0, 1]; NaN if both are empty.

    >>> a, b = {"w": np.array([True, True, False])}, {"w": np.array([False, True, True])}
    >>> round(float(jaccard(a, b, ("w",))), 3)
    0.333
    """
    both = _both(a, b, prunable)
    return both / (count(a, prunable) + count(b, prunable) - both)


# --- select --------------------------------------------------------------------------------------


def top_k(scores: Array, keep: Array) -> jax.Array:
    """bool`[n]`: selects exactly the `keep` highest of `scores[n]`; of equal scores, the first.

    The bits of a threshold are found by bisection until the threshold keeps `keep` scores: about
    twenty-five passes over distinct float32 scores, and no sort. If no threshold keeps exactly that
    many, a second bisection, over indices, selects among the scores equal to the threshold. Scores
    of every float dtype are ranked at their own precision; JAX holds float64 only if
    `jax_enable_x64` is set. `keep` may be traced. NaN ranks below -inf.

    >>> top_k(np.array([0.3, 0.1, 0.3, 0.9]), 2).tolist()
    [True, False, False, True]
    """
    check_array("the scores", scores, ("n",))
    check_array("what is kept", keep, (), int)
    return _top_k(scores, jnp.asarray(keep, jnp.int32))  # one program for all types of `keep`


@jax.jit
def _top_k(scores: Array, keep: Array) -> jax.Array:
    n = scores.shape[0]
    if not jnp.issubdtype(scores.dtype, jnp.floating):
        scores = scores.astype(float)
    width = 8 * scores.dtype.itemsize
    word = jnp.dtype(f"uint{width}")
    none, top = np.zeros((), word), np.array(1 << (width - 1), word)
    bits = lax.bitcast_convert_type(scores, word)
    bits = jnp.where(bits == top, none, bits)  # -0.0 and 0.0 are equal
    rank = jnp.where(bits >= top, ~bits, bits | top)  # ordered like the scores
    rank = jnp.where(jnp.isnan(scores), none, rank)

    def lift(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        bit, threshold, kept = state
        candidate = threshold | bit
        count = jnp.sum(rank >= candidate, dtype=jnp.int32)
        enough = count >= keep
        return (
            bit >> 1,
            jnp.where(enough, candidate, threshold),
            jnp.where(enough, count, kept),
        )

    def unsettled(state: tuple[Array, Array, Array]) -> Array:
        bit, _, kept = state
        return (bit > 0) & (kept != keep)

    begin = jnp.asarray(top), jnp.asarray(none), jnp.int32(n)
    _, threshold, kept = lax.while_loop(unsettled, lift, begin)
    above, tied = rank > threshold, rank == threshold
    missing = keep - jnp.sum(above, dtype=jnp.int32)
    index = jnp.arange(n, dtype=jnp.int32)

    def extend(state: tuple[Array, Array]) -> tuple[Array, Array]:
        step, end = state
        fits = jnp.sum(tied & (index < end + step), dtype=jnp.int32) <= missing
        return step >> 1, jnp.where(fits, end + step, end)

    exact = kept == keep  # then all tied scores are kept
    first = jnp.where(exact, 0, 1 << n.bit_length()), jnp.where(exact, n, 0)
    _, end = lax.while_loop(lambda state: state[0] > 0, extend, first)
    return above | (tied & (index < end))


def select(scores: Scores, prunable: Prunable, keep: Keep, floor: Keep = 0) -> Mask:
    """The mask of the highest scores, with an exact count over all prunable leaves or in each leaf.

    Args:
      scores: PyTree of float like the parameters; higher is kept first. Equal scores are kept in
        the order of `prunable`, and within a leaf in that of its elements.
      prunable: the leaves that are ranked.
      keep: an integer, the total count over all leaves, which are ranked together; or path ->
        integer. Both may be traced.
      floor: the fewest weights in each leaf when all are ranked together: an integer (smaller
        leaves are kept whole), or path -> integer.

    Raises:
      ValueError: `keep` is not an integer or lacks a leaf, a score is NaN, or `keep` is below the
        sum of the floors or above the number of weights. Under tracing the last two are not
        detected, and NaN ranks last.

    >>> scores = {"a": np.array([0.9, 0.8]), "b": np.array([0.7, 0.1])}
    >>> mask = select(scores, ("a", "b"), 2)
    >>> mask["a"].tolist(), mask["b"].tolist()
    ([True, True], [False, False])
    >>> mask = select(scores, ("a", "b"), {"a": 1, "b": 1})
    >>> mask["a"].tolist(), mask["b"].tolist()
    ([True, False], [True, False])
    """
    for path, leaf in zip(prunable, pick(scores, prunable), strict=True):
        check_scores(path, leaf)
    leaves = [jnp.ravel(leaf) for leaf in pick(scores, prunable)]
    if isinstance(keep, Mapping):
        for path, leaf in zip(prunable, leaves, strict=True):
            if path not in keep:
                raise ValueError(f"no count of what is kept of {path}; there are {', '.join(keep)}")
            _check_keep(keep[path], 0, leaf.size, path)
        kept = [top_k(leaf, keep[path]) for path, leaf in zip(prunable, leaves, strict=True)]
    else:
        floors = floor_of(
            floor, {path: leaf.shape for path, leaf in zip(prunable, leaves, strict=True)}
        )
        _check_keep(keep, sum(floors.values()), sum(leaf.size for leaf in leaves), "all leaves")
        rest = jnp.concatenate(leaves)
        if any(floors.values()):
            sure = jnp.concatenate(
                [top_k(leaf, floors[path]) for path, leaf in zip(prunable, leaves, strict=True)]
            )
            rest = jnp.where(sure, jnp.nan, rest)  # NaN ranks last
            flat = sure | top_k(rest, keep - sum(floors.values()))
        else:
            flat = top_k(rest, keep)
        kept, start = [], 0
        for leaf in leaves:
            kept.append(flat[start : start + leaf.size])
            start += leaf.size
    shaped = [k.reshape(jnp.shape(s)) for k, s in zip(kept, pick(scores, prunable), strict=True)]
    return put(ones(scores), prunable, shaped)


def check_scores(path: str, scores: Array) -> None:
    """Raises ValueError if a score of the leaf at `path` is NaN; does nothing under tracing.

    >>> check_scores("fc1/kernel", np.array([0.5, np.nan]))
    Traceback (most recent call last):
    ValueError: NaN among the scores of fc1/kernel: only numbers can be ranked
    """
    there = np if isinstance(scores, np.ndarray) else jnp  # where the scores are
    found = there.isnan(scores).any()
    if not isinstance(found, jax.core.Tracer) and bool(found):
        raise ValueError(f"NaN among the scores of {path}: only numbers can be ranked")


def floor_of(floor: Keep, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Path -> the fewest weights kept there: `floor`, or the leaf's size if that is smaller.

    >>> floor_of(2, {"a": (4,), "b": (1,)})
    {'a': 2, 'b': 1}
    """
    return {
        path: min(int(floor[path] if isinstance(floor, Mapping) else floor), _size(shape))
        for path, shape in shapes.items()
    }


def _check_keep(keep: Array, least: int, most: int, where: str) -> None:
    check_array(f"what is kept of {where}", keep, (), int)
    if not isinstance(keep, jax.core.Tracer) and not least <= int(keep) <= most:
        raise ValueError(f"{int(keep)} kept of {where}: must be from {least} to {most}")


# --- random, invert, shuffle ---------------------------------------------------------------------


def random_scores(key: Key, params: Params, prunable: Prunable) -> Scores:
    """Independent uniform scores on the prunable leaves, zero elsewhere; the key is consumed.

    >>> params = {"bias": np.ones(3), "kernel": np.ones((2, 3))}
    >>> scores = random_scores(jax.random.key(0), params, ("kernel",))
    >>> scores["bias"].tolist(), scores["kernel"].shape
    ([0.0, 0.0, 0.0], (2, 3))
    """
    zero = zeros(params)
    leaves = pick(zero, prunable)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.uniform(k, z.shape, z.dtype) for k, z in zip(keys, leaves, strict=True)]
    return put(zero, prunable, drawn)


def random(key: Key, params: Params, prunable: Prunable, keep: Keep, floor: Keep = 0) -> Mask:
    """A uniformly random mask that keeps exactly `keep`, see `select`; the key is consumed.

    >>> mask = random(jax.random.key(0), {"w": np.ones(4)}, ("w",), keep=3)
    >>> int(count(mask, ("w",)))
    3
    """
    return select(random_scores(key, params, prunable), prunable, keep, floor)


def shuffle(key: Key, mask: Mask, prunable: Prunable) -> Mask:
    """A random mask with the count of `mask` in each leaf; the key is consumed.

    >>> mask = shuffle(jax.random.key(0), {"w": np.array([True, True, True, False])}, ("w",))
    >>> int(count(mask, ("w",)))
    3
    """
    return select(random_scores(key, mask, prunable), prunable, counts(mask, prunable))


def invert(mask: Mask, prunable: Prunable) -> Mask:
    """The complement on the prunable leaves.

    >>> invert({"w": np.array([True, False])}, ("w",))["w"].tolist()
    [False, True]
    """
    return put(mask, prunable, [~leaf for leaf in _bits(mask, prunable)])


# --- units ---------------------------------------------------------------------------------------


def expand(units: UnitMask, wiring: Wiring, params: Params) -> Mask:
    """The mask over parameters that removes units (filters or neurons).

    A removed unit takes with it its columns of the producers' kernels, its bias, its batch-norm
    scale and shift, and its input rows in the layers that read it, also through a flatten.

    Args:
      units: `{group: bool[units]}`; a group that is absent stays whole.
      wiring: the net's groups.
      params: parameters, nested dicts of kernels (see `kernel_path`), `bias`, `scale`.

    Raises:
      ValueError: a name is not that of a group, the number of units differs, or a mask is not bool.

    >>> from jaxtickets.types import Feed, Units
    >>> wiring = (Units("fc1", 2, producers=("fc1",), norms=(), consumers=(Feed("out", 1),)),)
    >>> params = {"fc1": {"kernel": np.ones((1, 2))}, "out": {"kernel": np.ones((2, 1))}}
    >>> mask = expand({"fc1": np.array([True, False])}, wiring, params)
    >>> mask["fc1"]["kernel"].tolist(), mask["out"]["kernel"].tolist()
    ([[True, False]], [[True], [False]])
    """
    groups = {group.name: group for group in wiring}
    mask = dict(zip(paths(params), jax.tree.leaves(ones(params)), strict=True))
    for name, keep in units.items():
        if name not in groups:
            raise ValueError(f"no units '{name}'; there are {', '.join(groups)}")
        group = groups[name]
        keep = jnp.asarray(keep)
        if keep.shape != (group.size,):
            raise ValueError(f"{name} has {group.size} units, the mask has shape {keep.shape}")
        check_array(f"the mask of {name}", keep, (group.size,), bool)
        unit_leaves = [kernel_path(params, layer) for layer in group.producers]
        for layer in group.producers + group.norms:
            unit_leaves += [f"{layer}/{leaf}" if layer else leaf for leaf in ("bias", "scale")]
        for path in unit_leaves:
            if path in mask:
                mask[path] = mask[path] & jnp.broadcast_to(keep, mask[path].shape)
        for layer, repeat in group.consumers:
            path = kernel_path(params, layer)
            rows = jnp.broadcast_to(jnp.tile(keep, repeat)[:, None], mask[path].shape)
            mask[path] = mask[path] & rows
        for path, axis, places in group.spans:
            indices = np.array(places)
            along = jnp.where(indices < 0, True, keep[np.maximum(indices, 0)])
            shape = [1] * jnp.ndim(mask[path])
            shape[axis] = len(places)
            mask[path] = mask[path] & along.reshape(shape)
    return put(params, tuple(mask), list(mask.values()))
