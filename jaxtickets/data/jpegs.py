"""JPEG files to RGB pixels, with Pillow: in colour, grey or in four inks."""

import io
import math
from typing import Any

from jaxtickets.data.errors import ImageError, reason

FORMATS = ("JPEG", "PNG")
"""The formats that are read; one of ImageNet's JPEG files is a PNG file."""
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
"""Pillow's names of the colour models that are read: those of 8 bits a channel, or fewer."""


def header(encoded: bytes) -> Any:
    """Pillow's image of a file, whose `size` is known and whose pixels are not decoded yet.

    The orientation that a camera may have stored in the file is ignored, as TFDS ignores it.

    Raises:
      ImageError: the file is neither JPEG nor PNG, or has more than 8 bits a channel.

    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("L", (40, 30)).save(file, "JPEG")
    >>> header(file.getvalue()).size
    (40, 30)
    >>> header(b"no image")
    Traceback (most recent call last):
    jaxtickets.data.errors.ImageError: it is neither a JPEG nor a PNG file
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins share no error type
        raise ImageError("it is neither a JPEG nor a PNG file") from error
    if image.mode not in MODES:
        raise ImageError(f"its pixels are of the kind {image.mode}")
    return image


def rgb(image: Any, least: tuple[float, float] | None = None) -> tuple[Any, float]:
    """Decodes the pixels; grey is repeated in three channels, and inks are converted to RGB.

    A file that ends too early is detected. A changed byte within the compressed pixels often is
    not: JPEG has no checksum.

    Args:
      image: that of `header`; it is used up.
      least: `(width, height)`, or None for the stored size. A JPEG file is decoded at the smallest
        of 1/8, 1/4, 1/2 and 1 of its size that has at least this width and height, which takes
        less time; the pixels are averages, not those of the full size.

    Returns:
      Pillow's RGB image, and 1/8, 1/4, 1/2 or 1: how many of its pixels there are to a stored one,
      along each side. The last row and column may reach over the stored image's edge.

    Raises:
      ImageError: the file is damaged.

    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("L", (40, 32)).save(file, "JPEG")
    >>> image, scale = rgb(header(file.getvalue()), least=(18, 15))
    >>> image.mode, image.size, scale
    ('RGB', (20, 16), 0.5)
    """
    try:
        width, scale = image.width, 1.0
        if least is not None:
            drafted = image.draft(None, (math.ceil(least[0]), math.ceil(least[1])))
            if drafted:  # None for a PNG file
                scale = drafted[1][2] / width
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB"), scale
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError(reason(error)) from error
