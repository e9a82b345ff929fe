"""Pictures of what a mask reads: how many of its weights read each pixel of the input."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness.canvas import subplots
from jaxtickets import masks
from jaxtickets.types import Mask, Prunable


def reading_leaf(shapes: Mapping[str, Sequence[int]], image: Sequence[int]) -> str | None:
    """The first leaf with an input for each pixel and channel; None if there is none.

    Args:
      shapes: path -> the shape of each prunable leaf.
      image: `(h, w, c)`, the shape of an image.
    """
    inputs = int(np.prod(image))
    return next((path for path, shape in shapes.items() if shape[0] == inputs), None)


def kept(mask: Mask, prunable: Prunable, image: Sequence[int]) -> np.ndarray | None:
    """int`[h, w]`: the kept weights that read each pixel; None if no layer reads pixels one by one.

    Args:
      mask: of the net.
      prunable: the leaves with masks.
      image: `(h, w, c)`, the shape of an image.
    """
    path = reading_leaf(masks.shapes(mask, prunable), image)
    if path is None:
        return None
    leaf = np.asarray(masks.pick(mask, (path,))[0])
    return leaf.sum(axis=1).reshape(*image).sum(axis=-1)


def draw(pictures: Mapping[str, np.ndarray], across: int = 4) -> Any:
    """A figure with a panel for each picture, in one colour scale.

    The brightest colour is the largest of the pictures' 99.5 % quantiles, since one pixel with many
    weights would darken all others.

    Args:
      pictures: title -> number of weights `[h, w]`.
      across: the most panels in a row.
    """
    across = min(across, len(pictures))
    down = -(-len(pictures) // across)
    fig, axes = subplots(down, across, (2.7 * across + 0.8, 3.1 * down))
    top = max(float(np.quantile(picture, 0.995)) for picture in pictures.values())
    for panel in axes.flat:
        panel.axis("off")
    for panel, (title, picture) in zip(axes.flat, pictures.items(), strict=False):
        shown = panel.imshow(picture, cmap="magma", vmin=0, vmax=max(top, 1))
        panel.set_title(title, fontsize="small")
    fig.colorbar(shown, ax=axes, label="weights kept for each pixel", shrink=0.7)
    return fig
