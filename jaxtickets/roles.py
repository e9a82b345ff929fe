"""The role of a parameter leaf, from its name: a kernel, an embedding, or neither.

The number of axes does not identify a kernel. Attention biases have two axes (heads, features),
`nn.scan` and `vmap` stack biases and norm scales, and position tables and class tokens have two
axes or more. Names identify kernels where shapes cannot:

- The name of a leaf is the last part of its path, or the part before it if the last is `value`
  (Flax NNX). Both `fc1/kernel` and `fc1/kernel/value` have the name `kernel`.
- A kernel is named `kernel` or `weight`, or `w` followed by up to three letters, if the name
  contains no word of another role: `kernel` in Flax, `weight` and `weight_hh` in Equinox and
  PyTorch, `w`, `W`, `w1`, `wq` in Haiku. A `weight` or `w` in a layer whose own name is that of an
  embedding (`Embed_0`, `wte`) is an embedding, and in a norm or position layer it is neither.
- An embedding has one of the names in `EMBEDDINGS`.
- A leaf without a name, in a list or tuple, has the role of the list's name; if that is unknown, a
  leaf with two axes or more is a kernel.

Any other leaf is neither, so that leaves with unknown names are not pruned by default.
"""

import re

import jax.numpy as jnp

from jaxtickets.types import Array

KERNELS = frozenset({"kernel", "kernels", "weight", "weights"})
EMBEDDINGS = frozenset({"embedding", "embeddings", "embed", "embedder", "emb", "wte"})
BIASES = frozenset({"bias", "biases", "b", "scale", "scales", "shift", "offset", "gamma", "beta"})
NORMS = frozenset({"norm", "layernorm", "batchnorm", "groupnorm", "rmsnorm", "ln", "bn", "gn"})
POSITIONS = frozenset({"pos", "position", "positions", "positional", "posemb", "posembed", "wpe"})
NEITHER = BIASES | NORMS | POSITIONS


def is_kernel(path: str, leaf: Array) -> bool:
    """Whether the leaf at `path` is a kernel: it has the name of one, and two axes or more.

    >>> is_kernel("fc1/kernel", np.ones((2, 3))), is_kernel("fc1/bias", np.ones(3))
    (True, False)
    """
    return _role(path) == "kernel" and jnp.ndim(leaf) >= 2


def is_embedding(path: str, leaf: Array) -> bool:
    """Whether the leaf at `path` is an embedding table: by its name, with two axes or more.

    >>> is_embedding("wte/embedding", np.ones((5, 2)))
    True
    >>> is_embedding("wpe/embedding", np.ones((5, 2)))  # a position table
    False
    """
    return _role(path) == "embedding" and jnp.ndim(leaf) >= 2


def is_kernel_or_embedding(path: str, leaf: Array) -> bool:
    """Whether the leaf at `path` is a kernel or an embedding table.

    >>> names = ["wte/embedding", "fc1/kernel", "norm/scale"]
    >>> [is_kernel_or_embedding(name, np.ones((2, 3))) for name in names]
    [True, True, False]
    """
    return is_kernel(path, leaf) or is_embedding(path, leaf)


def _role(path: str) -> str:
    parts = path.split("/")
    if len(parts) > 1 and parts[-1] in ("value", "raw_value"):
        parts.pop()
    named = [part for part in parts if not part.isdigit()]
    if parts[-1].isdigit():
        return (_of_name(named) if named else "") or "kernel"
    return _of_name(named)


def _of_name(parts: list[str]) -> str:
    """The role of the last of a path's parts: a role, `neither`, or the empty string if unknown."""
    name, layer = _words(parts[-1]), _words(parts[-2]) if len(parts) > 1 else set()
    if name & NEITHER:
        return "neither"
    if name & EMBEDDINGS:
        return "neither" if layer & NEITHER else "embedding"
    if name & {"kernel", "kernels"}:
        return "kernel"
    if name & KERNELS or any(re.fullmatch("w[a-z]{0,3}", word) for word in name):
        if layer & NEITHER:
            return "neither"
        return "embedding" if layer & EMBEDDINGS else "kernel"
    return ""


def _words(part: str) -> set[str]:
    """Splits a name into lower-case words: `LayerNorm_0` -> {layer, norm}."""
    return {word.lower() for word in re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", part)}
