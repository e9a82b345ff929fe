"""The files that the benchmark writes, checked before it starts."""

import os
from pathlib import Path

from jaxtickets.io.errors import UserError


def place(flag: str, word: str) -> Path | None:
    """The file that a flag names; None if the flag is empty.

    Args:
      flag: the flag's name.
      word: its value.

    Raises:
      UserError: the file's folder doesn't exist, the file can't be written or is a folder, or
        figures can't be saved in its format.
    """
    if not word:
        return None
    file = Path(word)
    if not file.parent.is_dir():
        raise UserError(f"--{flag}={word}: there is no folder {file.parent}")
    if file.is_dir():
        raise UserError(f"--{flag}={word}: is a folder, name a file in it")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UserError(f"--{flag}={word}: can't be written")
    if flag == "figure" and file.suffix.lower() not in (kinds := _kinds()):
        raise UserError(f"--{flag}={word}: must end in {', '.join(kinds)}")
    return file


def _kinds() -> list[str]:
    """The file name endings in which figures can be saved."""
    from matplotlib.backend_bases import FigureCanvasBase

    return [f".{kind}" for kind in FigureCanvasBase.get_supported_filetypes()]
