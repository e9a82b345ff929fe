"""Settings: frozen dataclasses whose fields carry a help text and the values they may have."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from jaxtickets.io.errors import UserError

MOST_SEED = 2**31 - 1
"""JAX takes seeds modulo 2^32. Half of that leaves room to count upwards from the first seed."""
MOST_RUNS, MOST_EPOCHS, MOST_STEPS = 10**6, 10**6, 10**8
"""More than anybody needs, and small enough to be counted in 32 bits."""
MOST_UNITS = 10**6
"""The most units of one layer."""
MOST_FACTOR = 1e6
"""The largest learning rate or penalty strength; its square still fits into float32."""


class Bounds(NamedTuple):
    """The bounds of a number; None means that there is no such bound.

    Attributes:
      least, above: the lower bound, inclusive and exclusive.
      most, below: the upper bound, inclusive and exclusive.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def fault(self, value: float) -> str:
        """Says which bound `value` violates; empty if none. NaN is always out of bounds."""
        low = self.above is None or value > self.above
        low = low and (self.least is None or value >= self.least)
        high = self.below is None or value < self.below
        high = high and (self.most is None or value <= self.most)
        if low and high:
            return ""
        lower = f"{_number(self.least)} or more" if self.least is not None else ""
        upper = f"{_number(self.most)} or less" if self.most is not None else ""
        if self.below is not None:
            upper = f"below {_number(self.below)}"
        if self.above is not None:
            end = f"at most {_number(self.most)}" if self.below is None else upper
            return f"must be above {_number(self.above)} and {end}"
        return f"must be {upper if low else lower}"


def _number(value: float | None) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def option(
    default: Any,
    text: str,
    known: Sequence[str] = (),
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    empty: bool = False,
    repeats: bool = False,
) -> Any:
    """A dataclass field with its default, help text, and known words or numeric bounds.

    Args:
      default: the default value; its type is the flag's type. A tuple makes a list flag.
      text: the line of help.
      known: the words that are valid; empty: any.
      least, most, above, below: see `Bounds`. Words and bounds hold for each item of a list.
      empty: whether a list with a default that isn't empty may be empty.
      repeats: whether a list may hold an item twice.
    """
    bounds = Bounds(least, above, most, below)
    metadata = {"text": text, "known": known, "bounds": bounds, "empty": empty, "repeats": repeats}
    return dataclasses.field(default=default, metadata=metadata)


def known_of(field: dataclasses.Field) -> Sequence[str]:
    """The words that are valid for a field; empty: any."""
    known: Sequence[str] = field.metadata.get("known", ())
    return known


def bounds_of(field: dataclasses.Field) -> Bounds | None:
    """The numeric bounds of a field; None if it has none."""
    bounds: Bounds = field.metadata.get("bounds", Bounds())
    return None if bounds == Bounds() else bounds


def check(settings: Any) -> None:
    """Raises ValueError, in one line, for the first field whose value is invalid."""
    for field in dataclasses.fields(settings):
        value, known, bounds = getattr(settings, field.name), known_of(field), bounds_of(field)
        for item in value if isinstance(value, tuple) else (value,):
            if known and item not in known:
                raise ValueError(f"unknown {field.name} '{item}': one of {', '.join(known)}")
            if bounds and (fault := bounds.fault(item)):
                raise ValueError(f"{field.name}={item}: {fault}")


# --- settings without effect ----------------------------------------------------------------------


class Except(NamedTuple):
    """All values of a setting except these."""

    values: tuple


class Without(NamedTuple):
    """All values of a list setting that contain none of these words."""

    words: tuple[str, ...]


Choice = dict[str, tuple | Except | Without]
"""Setting -> values. The choice is made if each of its settings has one of its values."""
Idle = Mapping[str, Sequence[Choice]]
"""Setting -> choices. Each of them alone leaves the setting without effect."""


def idle_under(idle: Idle, name: str, values: Mapping[str, Any]) -> list[str]:
    """The settings that leave `name` without effect; empty if it has an effect."""
    for choice in idle.get(name, ()):
        if all(among(values[other], known) for other, known in choice.items()):
            return list(choice)
    return []


def among(value: Any, known: tuple | Except | Without) -> bool:
    """Whether a value is one of `known`."""
    if isinstance(known, Except):
        return value not in known.values
    if isinstance(known, Without):
        return not set(known.words) & set(value)
    return value in known


def choose(kind: str, name: str, known: Collection[str]) -> str:
    """Returns `name` if it is one of `known`.

    Raises:
      UserError: the name is unknown. The message gives the closest match and all known names.
    """
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UserError(f"unknown {kind} {name!r}: {hint}known: {', '.join(filter(None, known))}")
