"""The parts that all figures share: figures without a display, saving, axes and legends."""

import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtickets.io.files import naming


def subplots(height: int, width: int, size: tuple[float, float]) -> Any:
    """A figure of `size` inches and its axes `[height, width]`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(
        height, width, figsize=size, squeeze=False, layout="constrained", dpi=120
    )


def save(fig: Any, folder: Path, name: str) -> Path:
    """Writes `figures/NAME.png` in the run's folder, closes the figure, and returns the path.

    Lines of a title that are wider than the figure are broken.
    """
    from matplotlib import pyplot

    for title in fig.texts:
        share = title.get_window_extent().width / fig.bbox.width
        if share > 1:
            lines = title.get_text().splitlines()
            most = int(0.95 * max(map(len, lines)) / share)
            title.set_text("\n".join(textwrap.fill(line, most) for line in lines))
    place = folder / "figures"
    place.mkdir(exist_ok=True)
    path = place / f"{name}.png"
    try:
        with naming(path):
            fig.savefig(path)
    except OSError:
        path.unlink(missing_ok=True)  # it may be incomplete
        raise
    pyplot.close(fig)
    return place / f"{name}.png"


def few_colours(picture: Any) -> Any:
    """An RGB image of PIL with 256 colours of its own, which makes its file a third as large.

    The palette covers the colours, then moves to the means of what is near them. By median cut most
    of it goes to the greys of text, and the colours of bars and small marks change.
    """
    from PIL import Image

    cover, plain = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    return picture.quantize(256, method=cover, kmeans=1, dither=plain)


def now_and_then(draw: Callable[[Path], object], seconds: float = 60) -> Callable[[Path], None]:
    """`draw(folder)` for a run that isn't over: it draws only if `seconds` have passed.

    They count from this call and from the end of the last drawing. Figures take a second or two,
    which is more than a level of a small run. What is final is drawn by `draw` itself.
    """
    ended = time.monotonic()

    def draw_if_due(folder: Path) -> None:
        nonlocal ended
        if time.monotonic() - ended >= seconds:
            draw(folder)
            ended = time.monotonic()

    return draw_if_due


def reach(values: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray | None]:
    """The mean of each group, and error bars to its minimum and maximum: float`[n]`, `[2, n]`.

    There are no bars, None, if each group has a single value.
    """
    mean = np.array([np.mean(v) for v in values])
    if max(map(len, values), default=0) < 2:
        return mean, None
    ends = [mean - [min(v) for v in values], [max(v) for v in values] - mean]
    return mean, np.maximum(ends, 0)  # a mean of equal values may be off by a rounding


def words(name: str) -> str:
    """A name with spaces in place of underscores."""
    return name.replace("_", " ")


def densities(summary: Sequence[dict[str, Any]]) -> list[float]:
    """The densities of the pruned nets, in falling order."""
    return sorted({row["density"] for row in summary if row["method"] != "dense"}, reverse=True)


def deviation(values: Sequence[float]) -> float:
    """The sample standard deviation; 0 for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def deviations(groups: Sequence[Sequence[float]]) -> list[float] | None:
    """The `deviation` of each group; None, for no error bars, if each has a single value."""
    return [deviation(group) for group in groups] if max(map(len, groups), default=0) > 1 else None


def over_seeds(seeds: int, shown: str = "mean ± standard deviation") -> str:
    """`n = 3 seeds, mean ± standard deviation`, or `1 seed`, which has neither."""
    return f"n = {seeds} seeds, {shown}" if seeds > 1 else "1 seed"


def legend_beside(panel: Any, *named: Any) -> None:
    """A legend to the right of the panel, of its own lines or of the `named` ones, if any."""
    if not named and not panel.get_legend_handles_labels()[0]:
        return
    where = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
    panel.legend(*named, frameon=False, fontsize="small", **where)


def logarithmic(panel: Any) -> None:
    """Sets a logarithmic y axis with ticks at 1, 2 and 5 times powers of ten, as plain numbers."""
    from matplotlib.ticker import LogLocator, NullLocator

    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter("{x:g}")


def weights_left(panel: Any, members: Sequence[dict[str, Any]]) -> None:
    """Sets a logarithmic, falling x axis of the weights left in per cent, with ticks at levels."""
    left = sorted({round(100 * row["density"], 1) for row in members}, reverse=True)
    panel.set_xscale("log")
    ticks = left[:: max(1, len(left) // 6)]
    panel.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    panel.minorticks_off()
    panel.set_xlim(1.15 * left[0], left[-1] / 1.15)
    panel.set_xlabel("weights left (%)")
    panel.grid(alpha=0.3)
