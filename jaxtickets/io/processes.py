"""Several processes that run one program, on one machine or on many.

Every process runs the whole experiment on the same numbers. The run axis divides the work among
them, and each process gets all results (see `jaxtickets.runs`). All processes thus make the same
decisions, unless a decision depends on a clock or on a file that not all can see. The first process
makes such decisions and sends them to the others with `told`.

Only the first process's folder, output and figures are kept. The others write into temporary
folders, which are removed when they end, so that nothing is written twice. They read arrays in the
first process's folder (see `trees`), which must be on a file system that all can see.
"""

import atexit
import functools
import io
import os
import pickle
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxtickets.io.errors import UserError

T = TypeVar("T")


def start(coordinator: str = "", count: int = 0, number: int = -1) -> None:
    """Connects this process to the others and waits for all of them. JAX must not be used before.

    Without arguments, JAX finds the others itself: under Slurm, Open MPI, on TPU pods and the like.

    Args:
      coordinator: the address and port of the first process, `host:1234`.
      count: the number of processes.
      number: the index of this process, from 0.

    Raises:
      UserError: only some arguments are given, one is invalid, or the others cannot be found.

    >>> start(coordinator="localhost:1234")
    Traceback (most recent call last):
    jaxtickets.io.errors.UserError: --coordinator, --num_processes and --process_id:
    give all three, or none
    """
    given = (coordinator != "", count > 0, number >= 0)
    if any(given) and not all(given):
        raise UserError("--coordinator, --num_processes and --process_id: give all three, or none")
    if all(given) and number >= count:
        raise UserError(f"--process_id={number}: there are {count} processes, counted from 0")
    try:
        if all(given):
            jax.distributed.initialize(coordinator, count, number)
        else:
            jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"--distributed: {reason}: name the processes by --coordinator=HOST:PORT, "
            "--num_processes and --process_id"
        ) from error
    if not first():
        sys.stdout.flush()
        os.dup2(_nowhere().fileno(), 1)  # also silences what libraries print


def several() -> bool:
    """Whether there are other processes. A single process does not start JAX here.

    >>> several()
    False
    """
    return jax.distributed.is_initialized() and jax.process_count() > 1


def first() -> bool:
    """Whether this process is the one whose files and output are kept.

    >>> first()
    True
    """
    return not several() or jax.process_index() == 0


def told(find: Callable[[], T]) -> T:
    """The result of `find()` in the first process, sent to all; the others do not call it.

    All processes must call this function. Values are pickled: arrays must be numpy arrays.

    Raises:
      UserError: `find` raised it; all processes raise it.

    >>> told(lambda: [1, 2])
    [1, 2]
    """
    if not several():
        return find()
    answer: tuple[bool, T | str] | None = None
    if first():
        try:
            answer = True, find()
        except UserError as error:
            answer = False, str(error)
    message = pickle.dumps(answer) if first() else b""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
    sent = np.frombuffer(message, np.uint8) if first() else np.zeros(length, np.uint8)
    fine, value = pickle.loads(np.asarray(multihost_utils.broadcast_one_to_all(sent)).tobytes())
    if not fine:
        raise UserError(value)
    return value


def of_each(text: str) -> list[str]:
    """The texts of all processes, in their order. All must call this function.

    >>> of_each("text of this process")
    ['text of this process']
    """
    if not several():
        return [text]
    mine = np.frombuffer(text.encode(), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(mine)))).ravel()
    padded = np.pad(mine, (0, int(lengths.max()) - len(mine)))
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(lengths), -1)
    return [row[:n].tobytes().decode() for row, n in zip(rows, lengths, strict=True)]


def own(folder: Path) -> Path:
    """`folder` in the first process; in every other process, its temporary folder instead.

    >>> own(Path("runs/first")).as_posix()
    'runs/first'
    """
    return folder if first() else _home() / os.path.abspath(folder).lstrip(os.sep)


def copied(folder: Path) -> Path:
    """`own(folder)`, with a copy of the first process's files, without hidden ones.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     same = copied(Path(folder)) == Path(folder)
    >>> same  # because this is the first process
    True
    """
    content = told(lambda: _packed(folder))
    mine = own(folder)
    if not first():
        mine.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(content)) as packed:
            packed.extractall(mine, filter="data")
    return mine


def stderr() -> TextIO:
    """The stream for progress messages: only the first process's are shown.

    >>> stderr() is sys.stderr
    True
    """
    return sys.stderr if first() else _nowhere()


@functools.cache
def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


@functools.cache
def _home() -> Path:
    home = tempfile.mkdtemp(prefix="jaxtickets-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return Path(home)


def _packed(folder: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as file:
        for path in sorted(folder.iterdir()):
            if not path.name.startswith("."):
                file.add(path, path.name)
    return packed.getvalue()
