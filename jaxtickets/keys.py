"""All random keys of a run, each named by its purpose.

    stream(seed, purpose, *indices)

folds the purpose's name into the seed's key, then one index after another. All keys are typed
threefry keys. Folding permutes 64 bits, so different words folded into one key give different keys.
A purpose has a fixed number of indices of fixed kinds, so no key that `stream` returns is an
intermediate key of another: keys that a user folds or splits from it do not coincide with other
streams. Keys of different purposes or indices are independent 64-bit values.

Splitting is folding: `split(key, n)[i]` and `fold_in(key, i)` are the same key. A seed's key must
therefore never be split or folded by hand.
"""

import hashlib
import operator
import struct
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.types import Array, Key

IMPL = "threefry2x32"
"""The generator of all keys, whatever JAX's default is."""


class Purpose(NamedTuple):
    """The purpose of keys.

    Attributes:
      draws: what the keys draw.
      indices: name -> kind of each index: `int`, 32 bits, not negative, on the host or traced;
        `float`; or `str`.
    """

    draws: str
    indices: dict[str, type]


PURPOSES: dict[str, Purpose] = {
    # nets and their training
    "init": Purpose("the first weights of a seed", {}),
    "new_weights": Purpose("first weights of a smaller net", {"stage": int}),
    "training": Purpose(
        "order of the data, augmentation and dropout of a training; order 0 is the seed's own",
        {"stage": int, "order": int},
    ),
    "moving_mask": Purpose(
        "a training whose mask moves", {"search": str, "density": float, "chain": int}
    ),
    "new_head": Purpose("the output layer of a net whose ticket comes from another data set", {}),
    "image_noise": Purpose("the noise on a data set's images", {"part": str}),
    "transfer": Purpose(
        "a ticket of another data set with one thing changed", {"source": str, "treatment": str}
    ),
    "photographs": Purpose(
        "the order of photographs that are read from disk, or their crops, for all runs alike",
        {"draw": str},
    ),
    "learning_rates": Purpose("a random learning rate for each output feature", {}),
    # masks
    "mask": Purpose(
        "a method's mask at a density", {"stage": int, "method": str, "density": float}
    ),
    "check": Purpose(
        "the change of a method's mask that checks the method",
        {"method": str, "density": float, "check": str},
    ),
    "level": Purpose("the mask of a level of iterative pruning", {"criterion": str, "level": int}),
    "treatment": Purpose(
        "a copy of a level's ticket with one thing changed",
        {"level": int, "treatment": str, "copy": int},
    ),
    "grid": Purpose(
        "a copy of a grid's ticket with one thing changed",
        {"threshold": float, "treatment": str, "rewind": int},
    ),
    "early_bird": Purpose("masks that an early-bird training compares", {}),
    "features": Purpose("random features of fields", {"density": float}),
    "field": Purpose("a random field", {"density": float, "number": int}),
    # searches
    "first_mask": Purpose("a chain's first mask", {"search": str, "density": float, "chain": int}),
    "walk": Purpose(
        "moves and acceptance of a chain",
        {"search": str, "density": float, "chain": int, "phase": int},
    ),
    "energy": Purpose(
        "training steps and dropout within an energy, the same for all chains",
        {"search": str, "density": float},
    ),
    "energy_data": Purpose("orders of the data that energies are studied on", {"order": int}),
    "gate": Purpose("a gate's first parameters", {"gate": str, "density": float}),
    "first_graphs": Purpose("a first population of graphs", {}),
    "generation": Purpose("parents and mutations of a generation of graphs", {"number": int}),
    "generation_images": Purpose("the order of the images on which graphs are scored", {}),
    "shared_weights": Purpose("random weights that a graph's connections share", {}),
    "mask_hash": Purpose("the random words of mask hashes", {}),
    # strong tickets
    "random_net": Purpose(
        "the random weights in which a net is rebuilt", {"construction": str, "coefficients": int}
    ),
    "coefficients": Purpose(
        "random coefficients of single weights", {"construction": str, "coefficients": int}
    ),
    # measurements
    "prediction": Purpose(
        "the nets drawn from a posterior, and noise on images", {"method": str, "density": float}
    ),
    "benchmark": Purpose("inputs of timings: images, weights, masks", {"input": str}),
}
"""Purpose -> what its keys draw, and the indices by which they differ."""


def stream(seed: int | Array, purpose: str, *indices: int | float | str | Array) -> Key:
    """The key of a seed for a purpose.

    Args:
      seed: 0 to 2^64 - 1, or a traced integer.
      purpose: one of `PURPOSES`.
      *indices: the indices that the purpose names, in that order. Integers may be traced. Floats
        are distinguished by all their bits, strings by 64 bits of their BLAKE2 digest.

    Raises:
      ValueError: an unknown purpose, or an index that is missing, surplus or of another kind.

    >>> bool(stream(0, "mask", 1, "snip", 0.5) == stream(0, "mask", 1, "snip", 0.5))
    True
    >>> bool(stream(0, "mask", 1, "snip", 0.5) == stream(0, "mask", 1, "snip", 0.2))
    False
    """
    if purpose not in PURPOSES:
        raise ValueError(f"purpose {purpose!r}: choose from {', '.join(PURPOSES)}")
    kinds = PURPOSES[purpose].indices
    if len(indices) != len(kinds):
        said = ", ".join(kinds) or "no index"
        raise ValueError(f"keys for {purpose} take {said}: {len(indices)} indices were given")
    words = [*_words("purpose", str, purpose)]
    for (name, kind), index in zip(kinds.items(), indices, strict=True):
        words += _words(name, kind, index)
    padded = [*words, *[0] * (MOST - len(words))]
    traced = any(isinstance(word, jax.Array) for word in padded)
    way = jnp.stack(list(map(jnp.uint32, padded))) if traced else np.array(padded, np.uint32)
    return _folded(_root(seed), way, len(words))


MOST = 8
"""The most words that a key is folded with; all lists are padded to it, for one program."""


@jax.jit
def _folded(root: Array, words: Array, count: Array) -> Key:
    """Folds the first `count` of `words[MOST]` in turn into the key of the data `root[2]`."""
    key = jax.random.wrap_key_data(root, impl=IMPL)
    return jax.lax.fori_loop(0, count, lambda i, key: jax.random.fold_in(key, words[i]), key)


def _root(seed: int | Array) -> Array:
    """The data of the seed's key, from all 64 bits; `jax.random.key` drops the upper 32."""
    if isinstance(seed, jax.Array):
        return jax.random.key_data(jax.random.key(seed, impl=IMPL))
    number = operator.index(seed)
    if not 0 <= number < 1 << 64:
        raise ValueError(f"seed {number}: must be from 0 to 2^64 - 1")
    return np.array(_halves(number), np.uint32)


def _words(name: str, kind: type, index: int | float | str | Array) -> tuple[Array, ...]:
    """The 32-bit words of an index: one for an integer, two for a float or a string."""
    if kind is int and isinstance(index, jax.Array):
        return (index,)
    try:
        if kind is int:
            number = operator.index(index)  # type: ignore[arg-type]
            if not 0 <= number < 1 << 32:
                raise ValueError(f"{name}={number}: must be from 0 to 2^32 - 1")
            return (np.uint32(number),)
        if kind is float:
            bits = struct.pack(">d", index)
        else:
            bits = hashlib.blake2b(index.encode(), digest_size=8).digest()  # type: ignore[union-attr]
    except (TypeError, AttributeError, struct.error) as error:
        raise ValueError(f"{name}={index!r}: must be a {kind.__name__}") from error
    return tuple(np.uint32(word) for word in _halves(int.from_bytes(bits)))


def _halves(bits: int) -> tuple[int, int]:
    """The upper and the lower 32 bits of a 64-bit integer."""
    return bits >> 32, bits & 0xFFFFFFFF
