"""What a leaf of a net's parameters is for, told by its name: a kernel, an embedding, or neither.

Two axes don't make a kernel: attention's biases have two (heads, features), `nn.scan` and `vmap`
stack biases and norm scales, and tables of positions and class tokens have two or more. Shapes
can't tell these from weights, names can:

- A leaf is called what the last part of its path says, or the one before where that is `value`
  (Flax NNX). `fc1/kernel` and `fc1/kernel/value` are both called `kernel`.
- A kernel is called `kernel` or `weight`, or `w` with at most three letters after it, among words
  of no other role: Flax' `kernel`, Equinox' and PyTorch's `weight` and `weight_hh`, Haiku's `w`,
  `W`, `w1`, `wq`. In a layer called so a `weight` or `w` is an embedding (`Embed_0`, `wte`), or a
  norm's or position's own.
- An embedding is called so.
- A leaf without a name, in a list or a tuple, has the role that the list's name has; where it has
  none, two axes make it a kernel.

Anything else is neither, so that a name that isn't known here is never pruned unasked.
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
    """Whether the leaf at `path` is a kernel: called so, with two axes or more."""
    return _role(path) == "kernel" and jnp.ndim(leaf) >= 2


def is_embedding(path: str, leaf: Array) -> bool:
    """Whether the leaf at `path` is a table of embeddings: called so, with two axes or more."""
    return _role(path) == "embedding" and jnp.ndim(leaf) >= 2


def is_kernel_or_embedding(path: str, leaf: Array) -> bool:
    """Whether the leaf at `path` is either."""
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
    """The role that the last of a path's parts has, `neither`, or nothing where it is unknown."""
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
    """`LayerNorm_0` -> layer, norm."""
    return {word.lower() for word in re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", part)}
