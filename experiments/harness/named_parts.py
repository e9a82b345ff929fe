"""Parts that are made by name: each says by its parameters what it takes of all that is known."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Part = TypeVar("Part")


def takes(make: Callable[..., Any] | None) -> tuple[str, ...]:
    """The names of what a part is made from; of none, nothing."""
    return tuple(inspect.signature(make).parameters) if make else ()


def make_part(make: Callable[..., Part], known: Mapping[str, Any]) -> Part:
    """The part, made from what it takes by name of all that is known, and from its defaults.

    Raises:
      TypeError: it takes what isn't known and has no default.
    """
    return make(**{name: known[name] for name in takes(make) if name in known})
