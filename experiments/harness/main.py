"""The entry point of experiments: parses flags, runs, and turns user errors into one line.

An error that the user can correct is printed as one line on stderr, without a traceback. The exit
status is 1 for errors in files, data or names, 2 for the command line, and 130 after Ctrl-C. A
programming error keeps its traceback. This module doesn't import JAX, so that the answer to a
mistyped flag is immediate.
"""

import errno
import gc
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags

from jaxtickets.io.errors import UserError

HELP = frozenset({"--help", "-help", "-h", "--helpshort", "-helpshort"})


COLLECT_AFTER = 20_000, 10, 10
"""Garbage collection's thresholds. JAX's traces are many small objects that stay: at Python's own
thresholds a twelfth of a short run's time goes into collections that find next to nothing."""


def run_main(run: Callable[[], object], argv: Sequence[str] | None = None) -> NoReturn:
    """Parses the flags, calls `run` and exits. An experiment calls it under `__main__`.

    Args:
      run: the experiment, which reads its flags from `absl.flags.FLAGS`.
      argv: the program's name and its arguments; None: those of the process.
    """
    gc.freeze()  # what is imported stays
    gc.set_threshold(*COLLECT_AFTER)
    sys.exit(_status(run, list(sys.argv if argv is None else argv)))


def _status(run: Callable[[], object], argv: list[str]) -> int:
    try:
        if HELP.intersection(argv[1:]):
            print(help_text())
            return 0
        _parse(argv)
        run()
    except _CommandLineError as error:
        return _say(str(error), 2)
    except KeyboardInterrupt:
        return _say(_stopped(), 130)
    except Exception as error:
        if not _is_for_the_user(error):
            raise
        return _say(f"error: {_full_disk(error) if isinstance(error, OSError) else error}", 1)
    return 0


class _CommandLineError(Exception):
    """The command line can't be understood."""


def _parse(argv: list[str]) -> None:
    app.define_help_flags()
    try:
        _, *words = flags.FLAGS(argv)
    except flags.Error as error:
        raise _CommandLineError(f"error: {error} (--help lists the flags)") from error
    if words:
        raise _CommandLineError(f"error: unexpected argument {words[0]!r}: flags start with --")


DISK = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES),
        *(errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
    }
)
"""Operating system errors that come from the disk, or from a file in the place of a folder."""


def _is_for_the_user(error: Exception) -> bool:
    if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in DISK):
        return True
    data = _if_imported("jaxtickets.data.errors")
    return data is not None and isinstance(error, data.DataError)


def _stopped() -> str:
    folder = _folder()
    return f"stopped; {_goes_on(folder)}" if folder else "stopped"


def _full_disk(error: OSError) -> str:
    """Says which file can't be written, why, and how to resume a run that has started."""
    folder = _folder()
    message = f"can't use {error.filename or folder or 'the disk'}: {error.strerror}"
    return f"{message}; when this is corrected, {_goes_on(folder)}" if folder else message


def _goes_on(folder: Any) -> str:
    return f"the same command with --resume --out={folder} continues the run"


def _folder() -> Any:
    """The folder of the run that this process has started; None if there is none."""
    records = _if_imported("experiments.harness.records")
    return records.current() if records else None


def _if_imported(module: str) -> Any:
    """The module if it is already imported, else None. This module must import quickly."""
    return sys.modules.get(module)


def _say(message: str, status: int) -> int:
    print(" ".join(message.split()), file=sys.stderr, flush=True)
    return status


def help_text() -> str:
    """The text of `--help`: the experiment's docstring, then its flags."""
    by_module = flags.FLAGS.flags_by_module_dict()
    own = list(by_module.get(sys.argv[0], []))
    for module, defined in by_module.items():
        if module.partition(".")[0] in ("jaxtickets", "experiments"):
            own += [flag for flag in defined if flag not in own]
    doc = (sys.modules["__main__"].__doc__ or "").strip()
    lines = [_help_line(flag) for flag in own]
    return "\n".join([doc, "", "Flags:", *lines, "", "--helpfull lists the libraries' flags too."])


def _help_line(flag: flags.Flag) -> str:
    name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
    default = (flag.default_as_str or "").strip("'")
    notes = "; ".join(
        note for note in (flag.parser.syntactic_help, default and f"default {default}") if note
    )
    return f"  {name}\n      {flag.help or ''}" + (f" ({notes})" if notes else "")
