"""Photographs for tests: smooth random images as files."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ape", "bee")


def photograph(seed: int, size=(40, 30), mode="RGB", form="JPEG") -> bytes:
    """A smooth random image, as a file."""
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 256, (4, 5, 3), np.uint8))
    encoded = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).convert(mode).save(encoded, form)
    return encoded.getvalue()


def folder_of(path: Path, train: int, test: int) -> Path:
    """A folder of photographs of two classes, so many of each in `train` and in `val`."""
    for part, count in (("train", train), ("val", test)):
        for label, name in enumerate(CLASSES):
            place = path / part / name
            place.mkdir(parents=True)
            for number in range(count):
                encoded = photograph(1000 * (part == "val") + 2 * number + label, (20, 16 + label))
                (place / f"{number:02}.jpg").write_bytes(encoded)
    return path
