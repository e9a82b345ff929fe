"""Photographs of any size to square images of one size: a random crop, or the centre.

Both are pure functions of a file's bytes and of numbers that the caller draws.
"""

import math

import numpy as np

from jaxtickets.data import jpegs

ATTEMPTS = 10
DRAWS = 2 * ATTEMPTS + 3
"""How many uniform numbers a random crop uses: two an attempt, two for the place, one to flip."""

Box = tuple[int, int, int, int]
"""`(left, top, right, bottom)` in pixels; right and bottom are outside."""


def random_box(
    width: int,
    height: int,
    uniforms: np.ndarray,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A random part of an image.

    The part's share of the area is uniform, and the logarithm of width over height is uniform. An
    attempt that does not fit into the image is repeated; after ten, the largest centred part whose
    ratio is allowed is taken.

    Args:
      width, height: those of the image.
      uniforms: float`[DRAWS]` in [0, 1); the last one is not used.
      area: the least and the greatest share of the image's area.
      ratio: the least and the greatest ratio of width to height.

    Source: Szegedy et al. 2015, arXiv:1409.4842, section 6; the ten attempts, the fallback and the
    uniform logarithm are those of torchvision's `RandomResizedCrop`.

    >>> random_box(40, 30, np.full(DRAWS, 0.5))  # 54 % of the area, as a square
    (8, 3, 33, 28)
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for share, shape in uniforms[: 2 * ATTEMPTS].reshape(ATTEMPTS, 2):
        pixels = width * height * (area[0] + (area[1] - area[0]) * share)
        aspect = math.exp(low + (high - low) * shape)
        w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < w <= width and 0 < h <= height:
            left = int(uniforms[2 * ATTEMPTS] * (width - w + 1))
            top = int(uniforms[2 * ATTEMPTS + 1] * (height - h + 1))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def random_crop(
    encoded: bytes,
    uniforms: np.ndarray,
    size: int,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    draft: bool = False,
) -> np.ndarray:
    """`random_box` of a photograph, resized to a square, and mirrored with probability 1/2.

    Pillow's bilinear filter is used, which averages over all pixels where it makes an image
    smaller.

    Args:
      encoded: a JPEG file.
      uniforms: float`[DRAWS]` in [0, 1).
      size: of the result.
      area, ratio: see `random_box`.
      draft: whether to decode at a lower resolution where the part has twice the size or more,
        which is faster and changes the pixels a little.

    Returns:
      uint8`[size, size, 3]`.

    Raises:
      ImageError: the file is damaged.

    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (40, 30), "red").save(file, "PNG")
    >>> crop = random_crop(file.getvalue(), np.full(DRAWS, 0.5), size=8)
    >>> crop.shape, crop[0, 0].tolist()
    ((8, 8, 3), [255, 0, 0])
    """
    from PIL import Image

    image = jpegs.header(encoded)
    width, height = image.size
    box = random_box(width, height, uniforms, area, ratio)
    left, top, right, bottom = box
    least = size * width / (right - left), size * height / (bottom - top)
    decoded, scale = jpegs.rgb(image, least if draft else None)
    part = [scale * edge for edge in box]
    resized = np.asarray(decoded.resize((size, size), Image.Resampling.BILINEAR, box=part))
    return resized[:, ::-1] if uniforms[DRAWS - 1] < 0.5 else resized


def centre_crop(
    encoded: bytes, uniforms: np.ndarray, size: int, shorter: int, draft: bool = False
) -> np.ndarray:
    """The middle of a photograph whose shorter side is first resized.

    Args:
      encoded: a JPEG file.
      uniforms: not used.
      size: of the result.
      shorter: the pixels of the shorter side before the middle is cut out, at least `size`; for
        ImageNet usually 256 for a size of 224.
      draft: whether to decode at a lower resolution where that is enough.

    Returns:
      uint8`[size, size, 3]`.

    Raises:
      ImageError: the file is damaged.

    Source: Krizhevsky et al. 2012, section 2, who resize the shorter side to 256; the size of the
    longer side and the middle are rounded as in torchvision.

    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (40, 30), "red").save(file, "PNG")
    >>> crop = centre_crop(file.getvalue(), np.full(DRAWS, 0.5), size=8, shorter=9)
    >>> crop.shape, crop[0, 0].tolist()
    ((8, 8, 3), [255, 0, 0])
    """
    from PIL import Image

    del uniforms
    image = jpegs.header(encoded)
    width, height = image.size
    least = min(width, height)
    target = shorter * width // least, shorter * height // least
    decoded, scale = jpegs.rgb(image, target if draft else None)
    whole = (0, 0, scale * width, scale * height)
    resized = decoded.resize(target, Image.Resampling.BILINEAR, box=whole)
    left, top = (round((side - size) / 2) for side in target)
    return np.asarray(resized.crop((left, top, left + size, top + size)))
