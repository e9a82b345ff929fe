"""Checkpoints of a run: each in a new folder; the newest undamaged one is restored.

    FOLDER/00001200/     step 1200, or 00001200.1 if that was there already
      arrays/, manifest.json   see `trees`

A folder without a manifest was incomplete when the process ended, and is ignored.
"""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jaxtickets.io import trees
from jaxtickets.io.errors import UserError
from jaxtickets.io.files import remove
from jaxtickets.types import PyTree

_NAME = re.compile(r"(\d+)(?:\.(\d+))?")


class _Saved(NamedTuple):
    """The folder of a checkpoint; the tuples sort by age.

    Attributes:
      step: the number of steps done.
      attempt: 0, or the number of earlier checkpoints of the same step.
      path: the folder.
    """

    step: int
    attempt: int
    path: Path


def save(folder: str | os.PathLike[str], step: int, state: PyTree, keep: int = 2) -> Path:
    """Saves `state` after `step` steps, then removes older checkpoints.

    Nothing is overwritten, and nothing is removed before the new checkpoint is complete.
    Checkpoints of later steps, which exist if a resumed run went back before them, are removed too.

    Args:
      folder: the folder of the run's checkpoints; created if it does not exist.
      step: the number of steps done, not negative.
      state: PyTree of arrays, typed keys and Python numbers; copied to the host.
      keep: how many of the newest checkpoints to keep, at least one.

    Returns:
      The folder of the new checkpoint.

    Raises:
      OSError: it cannot be written; earlier checkpoints stay.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save(folder, 10, {"w": np.array([1.0, 2.0])})
    ...     step, state = restore(folder, template={"w": np.zeros(2)})
    >>> path.name, step, state["w"].tolist()
    ('00000010', 10, [1.0, 2.0])
    """
    folder = Path(folder)
    attempts = [saved.attempt for saved in _all(folder) if saved.step == step]
    attempt = max(attempts) + 1 if attempts else 0
    path = folder / (f"{step:08d}.{attempt}" if attempt else f"{step:08d}")
    trees.write(path, state, {"step": step})
    _remove_all_but(_newest(folder, step, keep), folder)
    return path


def restore(
    folder: str | os.PathLike[str],
    template: PyTree,
    warn: Callable[[str], object] | None = None,
) -> tuple[int, PyTree] | None:
    """The newest checkpoint that is undamaged and fits `template`; None without checkpoints.

    Args:
      folder: the folder of the run's checkpoints.
      template: the state's PyTree of arrays or `jax.ShapeDtypeStruct`s.
      warn: receives one line for each checkpoint that cannot be restored; None prints it on stderr.

    Returns:
      `(step, state)`; each leaf has the type of the template's: a numpy array, a Python number, or
      else a JAX array or key on the default device.

    Raises:
      UserError: there are checkpoints, but none can be restored.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save(folder, 10, {"w": np.array([1.0, 2.0])})
    ...     step, state = restore(folder, template={"w": np.zeros(2)})
    >>> step, state["w"].tolist()
    (10, [1.0, 2.0])
    """
    saved = _complete(Path(folder))
    for step, _, path in reversed(saved):
        try:
            return step, trees.read(path, template)
        except trees.DamagedError as error:
            (warn or _print)(f"warning: checkpoint {path} is passed over: {error}")
    if saved:
        raise UserError(f"none of the {len(saved)} checkpoints in {folder} can be restored")
    return None


def _print(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _all(folder: Path) -> list[_Saved]:
    """Every checkpoint, complete or not, oldest first."""
    matches = [(_NAME.fullmatch(path.name), path) for path in folder.glob("*")]
    return sorted(_Saved(int(m[1]), int(m[2] or 0), path) for m, path in matches if m)


def _complete(folder: Path) -> list[_Saved]:
    return [saved for saved in _all(folder) if trees.is_complete(saved.path)]


def _newest(folder: Path, step: int, keep: int) -> list[Path]:
    by_step = {saved.step: saved.path for saved in _complete(folder) if saved.step <= step}
    return list(by_step.values())[-max(keep, 1) :]


def _remove_all_but(kept: list[Path], folder: Path) -> None:
    for saved in _all(folder):
        if saved.path not in kept:
            trees.invalidate(saved.path)  # first, so that a kill leaves no damaged checkpoint
            remove(saved.path)
