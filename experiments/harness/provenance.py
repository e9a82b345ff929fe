"""The provenance of a run's numbers: commit, versions, machine and times."""

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jaxtickets
from experiments.harness import compilation, setup
from jaxtickets.io.errors import UserError
from jaxtickets.io.files import pretty, write_atomically

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_FILE = "provenance.json"


def start(folder: Path) -> None:
    """Adds this process to the sessions in `provenance.json`. A resumed run has several."""
    _write(folder, [*read(folder), session()])


def finish(folder: Path) -> None:
    """Writes the end time and the compilation seconds of each phase into this process's session.

    It is the last one of its name: in a shared run, other processes have started since.
    """
    sessions = read(folder)
    mine = [i for i, one in enumerate(sessions) if one.get("process") == _process()]
    end = {"ended": _now(), "compile_seconds": compilation.seconds()}
    sessions[mine[-1] if mine else -1] |= end
    _write(folder, sessions)


def read(folder: Path) -> list[dict[str, Any]]:
    """The sessions, oldest first; empty if there is no file.

    Raises:
      UserError: the file is damaged.
    """
    path = folder / _FILE
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    sessions = found.get("sessions") if isinstance(found, dict) else None
    if not isinstance(sessions, list) or not all(isinstance(one, dict) for one in sessions):
        raise UserError(f"{path} is damaged: it has no list of sessions")
    return sessions


def session() -> dict[str, Any]:
    """This process, its command line, commit, versions, devices and start; `ended` is None."""
    import jax

    devices = jax.devices()
    return {
        "process": _process(),
        "command": shlex.join(sys.orig_argv),
        "commit": commit(),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in _PACKAGES},
        "devices": {"kind": devices[0].device_kind, "count": len(devices)},
        "cpu": setup.cpu_model(),
        "started": _now(),
        "ended": None,
    }


def commit() -> str | None:
    """The commit of jaxtickets' source, with `-dirty` if Python files differ from it or are new.

    None if git doesn't track the source: an installed copy may lie inside another project's
    checkout.
    """
    folder = str(Path(jaxtickets.__file__).parent)
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    head = _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", ":/*.py")
    return f"{head}-dirty" if head and changed else head


def _process() -> str:
    return f"{platform.node()}:{os.getpid()}"


def _git(folder: str, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", folder, *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write(folder: Path, sessions: list[dict[str, Any]]) -> None:
    write_atomically(folder / _FILE, pretty({"sessions": sessions}))
