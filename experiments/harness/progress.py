"""The live line of a run: its progress, current values, speed and remaining time.

A terminal shows one line that is rewritten. A file or a pipe gets a new line every few seconds. The
first and the last line are always shown.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from jaxtickets.io import processes

Value = float | str
COMPILING = "compiling"


def line(
    label: str,
    step: int,
    total: int,
    values: Mapping[str, Value],
    formats: Mapping[str, str],
    rate: str = "",
    left: float | None = None,
) -> str:
    """One progress line.

    Args:
      label: the name of the work, such as `search`.
      step, total: steps done, and steps in all.
      values: name -> number or word to show, in this order.
      formats: name -> format specification; `.4g` for names that are missing.
      rate: the speed, such as `1850 eval/s`; left out if empty.
      left: the remaining seconds; left out if None.
    """
    done = 100 * step // total if total else 100
    shown = [f"{name} {_format(value, formats.get(name))}" for name, value in values.items()]
    parts = [label, f"{step:>{len(str(total))}}/{total}", f"{done:2d} %", *shown]
    parts += [rate] if rate else []
    parts += [f"left {duration(left)}"] if left is not None else []
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as `m:ss` or `h:mm:ss`, rounded."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _format(value: Value, spec: str | None) -> str:
    if isinstance(value, str):
        return value
    return format(float(value), spec or ".4g").replace("%", " %")


class Progress:
    """Shows `line`s on a stream. As a context manager it ends the line before an error is printed.

    The clock of the rate starts at the first update, so the rate excludes the first compilation.

    Attributes:
      label, total, formats: see `line`.
      unit: what the rate counts per second; empty: no rate is shown.
      per_step: how many of these units a step has, such as the chains of a search.
    """

    def __init__(
        self,
        label: str,
        total: int,
        formats: Mapping[str, str] | None = None,
        unit: str = "",
        per_step: float = 1,
        stream: TextIO | None = None,
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.label, self.total, self.formats = label, total, formats or {}
        self.unit, self.per_step = unit, per_step
        self._stream = processes.stderr() if stream is None else stream
        self._live = self._stream.isatty()
        self._every = 0.1 if self._live else every
        self._clock = clock
        self._first: tuple[float, int] | None = None
        self._shown_at = 0.0
        self._hidden = ""  # the newest line if it isn't shown yet
        self._announced = False
        self._text_now = ""  # the newest line, shown or not
        self._open = False  # the terminal's cursor is at the end of an unfinished line

    def announce(self, **values: Value) -> None:
        """Shows, once, that the work begins, and at any call the values that are given.

        The rate's clock isn't started. In a log the line says that compilation comes first.
        """
        if self._announced and not values:
            return
        self._announced = True
        self._text_now = line(self.label, 0, self.total, values, self.formats)
        self._show(
            self._text_now if self._live else f"{self._text_now}  {COMPILING}", self._clock()
        )

    def compiling(self, now: bool) -> None:
        """Shows on a terminal whether a program is being compiled now."""
        if self._live and self._text_now:
            text = f"{self._text_now}  {COMPILING}" if now else self._text_now
            self._show(text, self._clock())

    def update(self, step: int, **values: Value) -> None:
        """Sets the number of steps done and the values to show with it."""
        now = self._clock()
        last = step >= self.total
        due = self._first is None or last or now - self._shown_at >= self._every
        if self._first is None:
            self._first = now, step
        text = self._text_now = self._text(now, step, values)
        if due:
            self._show(text, now)
        else:
            self._hidden = text
        if last:
            self.close()

    def close(self) -> None:
        """Shows the newest line if it isn't shown yet, and ends it."""
        if self._hidden:
            self._show(self._hidden, self._clock())
        if self._open:
            self._write("\n")
            self._open = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _text(self, now: float, step: int, values: Mapping[str, Value]) -> str:
        assert self._first is not None
        seconds, steps = now - self._first[0], step - self._first[1]
        if steps <= 0 or seconds <= 0:
            return line(self.label, step, self.total, values, self.formats)
        speed = steps / seconds
        rate = f"{_speed(speed * self.per_step)} {self.unit}/s" if self.unit else ""
        left = max(self.total - step, 0) / speed
        return line(self.label, step, self.total, values, self.formats, rate, left)

    def _show(self, text: str, now: float) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1  # a longer line can't be rewritten
            self._write(f"\r{text[:width]}\x1b[K")
            self._open = True
        else:
            self._write(text + "\n")
        self._shown_at, self._hidden = now, ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _speed(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
