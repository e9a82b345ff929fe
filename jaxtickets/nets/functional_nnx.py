"""A Flax NNX module as two pure functions.

Its functions import NNX themselves: it takes a sixth of the time of all imports, and most programs
make no NNX module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxtickets.types import Array, Key, Model, Params, Stats

if TYPE_CHECKING:
    from flax import nnx

Create = Callable[["nnx.Rngs"], "nnx.Module"]
"""`create(rngs) -> module`, such as the module's class."""


def functional_nnx(module: nnx.Module | Create) -> Model:
    """`init` and `apply` of any NNX module, which may return arrays in any PyTree.

    The state is split into parameters (`nnx.Param`), batch statistics (`nnx.BatchStat`) and the
    rest. The rest is constant but for random keys: if `apply` is given a key, each stream of the
    module gets a key that is folded from it, which consumes it. Only training mode, which is
    `module.train()`, changes the statistics. If the module takes several inputs, `images` is their
    tuple.

    Args:
      module: a function that makes the module from `nnx.Rngs`, such as its class: `init(key)` then
        draws new parameters, and consumes the key. Or a module: `init` then returns its parameters
        whatever the key, and the module is neither changed nor followed.

    Raises:
      ValueError: in one line: it is no NNX module, or has no parameters; from `init`, the module's
        state has changed since it was given; from `apply`, parameters or statistics are not those
        of the module, or the module changes other state, which a pure function would lose.

    >>> from flax import nnx
    >>> model = functional_nnx(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
    >>> params, stats = model.init(jax.random.key(0))
    >>> outputs, _ = model.apply(params, stats, np.ones((5, 2), np.float32))
    >>> params["kernel"].shape, outputs.shape
    ((2, 3), (5, 3))
    """
    from flax import nnx

    followed = module if isinstance(module, nnx.Module) else None
    create: Any = module
    if followed is None and not callable(module):
        raise ValueError(f"an object of type {type(module).__name__} is no NNX module")
    built = create(nnx.Rngs(0)) if followed is None else followed
    if not isinstance(built, nnx.Module):
        raise ValueError(f"{_name(module)} makes {type(built).__name__}, which is no NNX module")
    name = _name(built)
    whole = _copy(_split(built))  # the module's own variables may change
    modes = {train: _graph(built, train) for train in (False, True)}
    structures: list[Any] = [
        jax.tree.structure(_named(nnx.to_pure_dict(one))) for one in whole[1:3]
    ]
    if not jax.tree.leaves(whole[1]):
        raise ValueError(f"{name} has no parameters (nnx.Param)")

    def init(key: Key) -> tuple[Params, Stats]:
        if followed is None:
            _, params, stats, _ = _split(create(nnx.Rngs(key)))
        else:
            _, params, stats, _ = now = _split(followed)
            if not _is_same(now, whole):
                raise ValueError(f"the state of {name} has changed since the model was made of it")
        return _named(nnx.to_pure_dict(params)), _named(nnx.to_pure_dict(stats))

    def apply(
        params: Params, stats: Stats, images: Array, key: Key | None = None, train: bool = False
    ) -> tuple[Any, Stats]:
        states = []
        for kind, tree, like, own in zip(
            ("parameters", "statistics"), (params, stats), structures, whole[1:3], strict=True
        ):
            if jax.tree.structure(tree) != like:
                raise ValueError(f"these are not the {kind} of {name}: their leaves are others")
            states.append(_copy(own))
            # a module writes into its variables, which must not be a caller's numpy arrays
            mine = _numbered(jax.tree.map(jnp.asarray, tree), nnx.to_pure_dict(own))
            nnx.replace_by_pure_dict(states[-1], mine)
        rest = _with_keys(whole[3], key, name, train)
        merged = nnx.merge(modes[train], *states, rest)
        outputs = merged(*(images if isinstance(images, tuple) else (images,)))
        _, _, moved, after = _split(merged)
        _check_unchanged(whole[3], after, name)
        return outputs, _named(nnx.to_pure_dict(moved)) if train else stats

    return Model(init, apply)


def _split(module: nnx.Module) -> tuple[Any, Any, Any, Any]:
    """The module's graph, parameters, statistics, and the rest of its state."""
    from flax import nnx

    parts: Any = nnx.split(module, nnx.Param, nnx.BatchStat, ...)
    return parts


def _named(tree: Any) -> Any:
    """Nested dicts with strings as keys, also for the numbers of a list's modules."""
    return {str(k): _named(v) for k, v in tree.items()} if isinstance(tree, dict) else tree


def _numbered(tree: Any, like: Any) -> Any:
    """The inverse of `_named`, with the keys of `like`."""
    if not isinstance(like, dict):
        return tree
    return {key: _numbered(tree[str(key)], value) for key, value in like.items()}


def _copy(state: Any) -> Any:
    """A state with its own variables, of the same arrays."""
    return jax.tree.map(lambda leaf: leaf, state)


def _graph(module: nnx.Module, train: bool) -> Any:
    """The graph of the module in a mode; the module stays in its own."""
    from flax import nnx

    copy = nnx.merge(*_split(module))
    copy.train() if train else copy.eval()
    return _split(copy)[0]


def _is_same(now: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
    """Whether a module's state is, array by array, what it was."""
    pairs = zip(jax.tree.leaves(now[1:]), jax.tree.leaves(before[1:]), strict=False)
    structures: list[Any] = [jax.tree.structure(one[1:]) for one in (now, before)]
    same = structures[0] == structures[1]
    return same and all(a is b for a, b in pairs)


def _with_keys(rest: Any, key: Key | None, name: str, train: bool) -> Any:
    """The rest of the state with keys folded from `key`, one for each stream of random numbers."""
    from flax import nnx

    leaves = nnx.to_flat_state(_copy(rest))
    streams = [path for path, leaf in leaves if isinstance(leaf, nnx.RngKey)]
    if not streams or key is None:
        if streams and train:
            raise ValueError(f"{name} draws random numbers in training mode: it needs a key")
        return _copy(rest)
    numbers = {path: number for number, path in enumerate(streams)}
    return nnx.from_flat_state(
        (path, leaf.replace(jax.random.fold_in(key, numbers[path])) if path in numbers else leaf)
        for path, leaf in leaves
    )


def _check_unchanged(rest: Any, after: Any, name: str) -> None:
    """Raises ValueError if a call changed state other than the counters of random numbers."""
    from flax import nnx

    before = {path: leaf for path, leaf in nnx.to_flat_state(rest)}
    for path, leaf in nnx.to_flat_state(after):
        changed = path not in before or leaf.get_value() is not before[path].get_value()
        if changed and not isinstance(leaf, nnx.RngState):
            where = "/".join(map(str, path))
            raise ValueError(
                f"{name} changes {where} ({type(leaf).__name__}), which a pure function would lose"
            )


def _name(module: Any) -> str:
    return getattr(module, "__name__", type(module).__name__)
