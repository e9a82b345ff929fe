"""Settings: frozen dataclasses whose fields say what they mean and which values they may have.

The library takes functions; settings are for those who choose by name: command lines and files.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any


def option(
    default: Any,
    text: str,
    known: Sequence[str] = (),
    least: float | None = None,
    empty: bool = False,
) -> Any:
    """A dataclass field with a line of help, and its known words or its least number.

    A list whose default has something in it may be `empty` only if that is said.
    """
    metadata = {"text": text, "known": known, "least": least, "empty": empty}
    return dataclasses.field(default=default, metadata=metadata)


def check(settings: Any) -> None:
    """Raises ValueError, in one line, for the first field with a value that can't be."""
    for field in dataclasses.fields(settings):
        value, known, least = getattr(settings, field.name), *_limits(field)
        if known and value not in known:
            raise ValueError(f"unknown {field.name} '{value}': one of {', '.join(known)}")
        if least is not None and not value >= least:
            raise ValueError(f"{field.name}={value}: must be {least:g} or more")


def _limits(field: dataclasses.Field) -> tuple[Sequence[str], float | None]:
    return field.metadata.get("known", ()), field.metadata.get("least")
