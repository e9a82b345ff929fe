"""Settings: frozen dataclasses whose fields say what they mean and which values they may have."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from jaxtickets.io.errors import UserError

MOST_SEED = 2**31 - 1
"""JAX takes a seed modulo 2^32: seeds from here on have room to be counted upwards."""
MOST_RUNS, MOST_EPOCHS, MOST_STEPS = 10**6, 10**6, 10**8
"""More than anybody means, and few enough to be counted in 32 bits."""
MOST_UNITS = 10**6
"""Of one layer."""
MOST_FACTOR = 1e6
"""Of learning rates, penalties and the like, whose squares are float32 numbers still."""


class Bounds(NamedTuple):
    """What a number must be: `least` or more (or above `above`), and `most` or less (or `below`).

    None: no such bound.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def fault(self, value: float) -> str:
        """What `value` must be, in words; empty if it is. NaN never is."""
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
    """A dataclass field with a line of help, and its known words or the bounds of its numbers.

    Bounds of a list are those of each item. A list whose default has something in it may be `empty`
    only if that is said, and holds an item twice only if it may have `repeats`.
    """
    bounds = Bounds(least, above, most, below)
    metadata = {"text": text, "known": known, "bounds": bounds, "empty": empty, "repeats": repeats}
    return dataclasses.field(default=default, metadata=metadata)


def known_of(field: dataclasses.Field) -> Sequence[str]:
    """The words that a field may have; empty: any."""
    known: Sequence[str] = field.metadata.get("known", ())
    return known


def bounds_of(field: dataclasses.Field) -> Bounds | None:
    """The bounds of a field's numbers, None if it has none."""
    bounds: Bounds = field.metadata.get("bounds", Bounds())
    return None if bounds == Bounds() else bounds


def check(settings: Any) -> None:
    """Raises ValueError, in one line, for the first field with a value that can't be."""
    for field in dataclasses.fields(settings):
        value, known, bounds = getattr(settings, field.name), known_of(field), bounds_of(field)
        if known and value not in known:
            raise ValueError(f"unknown {field.name} '{value}': one of {', '.join(known)}")
        for number in value if isinstance(value, tuple) else (value,):
            if bounds and (fault := bounds.fault(number)):
                raise ValueError(f"{field.name}={number}: {fault}")


# --- settings without effect ----------------------------------------------------------------------


class Except(NamedTuple):
    """All values of a setting but these."""

    values: tuple


class Without(NamedTuple):
    """All values of a setting that is a list, but those with this word in it."""

    word: str


Choice = dict[str, tuple | Except | Without]
"""Settings and their values; it is taken where each of them has one of its values."""
Idle = Mapping[str, Sequence[Choice]]
"""Setting -> the choices that leave it without effect, each for itself."""


def idle_under(idle: Idle, name: str, values: Mapping[str, Any]) -> list[str]:
    """The settings whose values leave the named one without effect; empty where it has one."""
    for choice in idle.get(name, ()):
        if all(among(values[other], known) for other, known in choice.items()):
            return list(choice)
    return []


def among(value: Any, known: tuple | Except | Without) -> bool:
    """Whether a value is one of those that are meant."""
    if isinstance(known, Except):
        return value not in known.values
    if isinstance(known, Without):
        return known.word not in value
    return value in known


def choose(kind: str, name: str, known: Collection[str]) -> str:
    """`name` if it is among `known`.

    Raises:
      UserError: it isn't; the message names the closest match and all that is known.
    """
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UserError(f"unknown {kind} {name!r}: {hint}known: {', '.join(known)}")
