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
    whole: float | None = None,
) -> str:
    """One progress line.

    Args:
      label: the name of the work, such as `search`.
      step, total: steps done, and steps in all.
      values: name -> number or word to show, in this order.
      formats: name -> format specification; `.4g` for names that are missing.
      rate: the speed, such as `1850 eval/s`; left out if empty.
      left: the remaining seconds of this work; left out if None.
      whole: the remaining seconds of the whole run; None: unknown.
    """
    done = 100 * step // total if total else 100
    shown = [f"{name} {_format(value, formats.get(name))}" for name, value in values.items()]
    parts = [label, f"{step:>{len(str(total))}}/{total}", f"{done:2d} %", *shown]
    parts += [rate] if rate else []
    parts += [_left(left, whole)] if left is not None else []
    return "  ".join(parts)


def _left(phase: float, whole: float | None) -> str:
    if whole is None:
        return f"left {duration(phase)} of this phase"
    run = f", of the run {duration(whole)}" if whole > phase else ""
    return f"left {duration(phase)}{run}"


def fitted(text: str, width: int) -> str:
    """A line of at most `width` characters. Its last part stays, such as the time that is left.

    Parts are left out from the one before the last on: the rate first, then the values.
    """
    parts = text.split("  ")
    while len("  ".join(parts)) > width and len(parts) > 4:
        del parts[-2]
    return "  ".join(parts)[:width]


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
      later: the units of the work that follows in the run. It is taken to go at the same speed.
        None: unknown, so the line tells the time that is left of this work alone.
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
        later: float | None = None,
    ):
        self.label, self.total, self.formats = label, total, formats or {}
        self.unit, self.per_step, self.later = unit, per_step, later
        self._stream = processes.stderr() if stream is None else stream
        self._live = self._stream.isatty()
        self._every = 0.1 if self._live else every
        self._clock = clock
        self._first: tuple[float, int] | None = None
        self._shown_at = 0.0
        self._hidden = ""  # the newest line if it isn't shown yet
        self._announced = False
        self._programs = _Programs(clock)
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
        self._show(self._text_now, self._clock(), "" if self._live else f"  {COMPILING}")

    def compiling(self, now: bool) -> None:
        """Shows that a program is being compiled now, or no longer.

        It says which program of this work that is, and how long compiling has taken so far. A log
        gets a line for it only if the newest one is a few seconds old.
        """
        clock = self._programs.count(now)
        if not self._text_now:
            return
        if self._live and not self._programs.compiling:
            self._show(self._text_now, clock)
        elif now and (self._live or clock - self._shown_at >= self._every):
            self._show(self._text_now, clock, f"  {self._programs.words()}")

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
        whole = None if self.later is None else left + self.later / (speed * self.per_step)
        return line(self.label, step, self.total, values, self.formats, rate, left, whole)

    def _show(self, text: str, now: float, note: str = "") -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1  # a longer line can't be rewritten
            self._write(f"\r{fitted(f'{text}{note}', width)}\x1b[K")
            self._open = True
        else:
            self._write(f"{text}{note}\n")
        self._shown_at, self._hidden = now, ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class _Programs:
    """The programs that are compiled or read from the cache, and the time that this takes.

    Attributes:
      compiling: how many are being compiled now, by the threads of several devices.
    """

    def __init__(self, clock: Callable[[], float]):
        self.compiling = 0
        self._clock, self._number, self._since, self._seconds = clock, 0, 0.0, 0.0

    def count(self, now: bool) -> float:
        """Counts the start of a program's compilation, or an end; returns the time."""
        clock, before = self._clock(), self.compiling
        self.compiling = before + 1 if now else max(before - 1, 0)
        self._number += now
        if now and not before:
            self._since = clock
        if before and not self.compiling:
            self._seconds += clock - self._since
        return clock

    def words(self) -> str:
        """Such as `compiling program 3, 0:41 so far`: the time is that of those before."""
        spent = f", {duration(self._seconds)} so far" if self._seconds >= 1 else ""
        return f"{COMPILING} program {self._number}{spent}"


def between_phases(
    stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Callable[[bool], None]:
    """Gives the function that shows on a terminal that a program is compiled between two phases.

    It's called with True when a compilation starts, and with False when one ends, which removes the
    line.
    """
    shown_on = processes.stderr() if stream is None else stream
    programs = _Programs(clock)

    def show(now: bool) -> None:
        programs.count(now)
        if shown_on.isatty():
            text = f"between phases  {programs.words()}" if programs.compiling else ""
            shown_on.write(f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K")
            shown_on.flush()

    return show


def _speed(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
