"""What all figures share: axes without a screen, and where they are saved."""

from pathlib import Path
from typing import Any


def subplots(height: int, width: int, size: tuple[float, float]) -> Any:
    """A figure of `size` inches and its axes `[height, width]`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(
        height, width, figsize=size, squeeze=False, layout="constrained", dpi=120
    )


def save(fig: Any, folder: Path, name: str) -> Path:
    """Writes `figures/NAME.png` in the run's folder, closes the figure, returns the path."""
    from matplotlib import pyplot

    place = folder / "figures"
    place.mkdir(exist_ok=True)
    fig.savefig(place / f"{name}.png")
    pyplot.close(fig)
    return place / f"{name}.png"


def words(name: str) -> str:
    """A name as it reads."""
    return name.replace("_", " ")
