"""How many photographs a second are decoded, cropped and put into batches."""

import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from experiments.benchmark.measured import Row, compared, many
from experiments.harness import timing
from jaxtickets.data import crops, stream
from jaxtickets.data.examples import Encoded, Examples
from jaxtickets.keys import stream as key_of

BATCH = 16
CROPS = {
    "random crop to 224": partial(crops.random_crop, size=224),
    "random crop to 64": partial(crops.random_crop, size=64),
    "random crop to 64, draft": partial(crops.random_crop, size=64, draft=True),
    "centre crop to 224": partial(crops.centre_crop, size=224, shorter=256),
}


def rows(number: int = 128, width: int = 500, height: int = 375, threads: int = 2) -> Iterator[Row]:
    """Each of `CROPS` in this thread alone, and in several.

    The photographs are smooth noise in JPEG files of about 80 kB, which are held in memory, so
    that no disk is measured.

    Args:
      number: photographs in an epoch, a multiple of `BATCH`.
      width, height: of a photograph; an average one of ImageNet by default.
      threads: of the second measurement.
    """
    photographs = _photographs(number, width, height)
    for name, transform in CROPS.items():
        made = stream.training(
            photographs,
            order_key=key_of(0, "benchmark", "order"),
            crop_key=key_of(0, "benchmark", "crops"),
            batch_size=BATCH,
            transform=transform,
        )
        alone, together = timing.best_times([_epoch(made, 0), _epoch(made, threads)])
        yield Row(f"photographs, {name}, 1 thread", number / alone, "images/s")
        row = Row(f"photographs, {name}, {many(threads, 'thread')}", number / together, "images/s")
        yield compared(row, alone / together, "times one thread's")


def _epoch(made: stream.Stream, threads: int) -> Callable[[], Any]:
    """A call that reads an epoch; with no thread, none is decoded ahead."""
    return lambda: [
        batch.labels for batch in stream.batches(made, 0, made.steps_per_epoch, threads=threads)
    ]


def _photographs(number: int, width: int, height: int) -> Examples:
    from PIL import Image

    files = []
    for seed in range(8):
        draw = np.random.default_rng(seed)
        coarse = draw.integers(0, 256, (height // 5, width // 5, 3), np.uint8)
        encoded = io.BytesIO()
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        smooth.save(encoded, "JPEG", quality=90)
        files.append(encoded.getvalue())
    return Examples(
        name="noise",
        total=number,
        classes=1,
        read=lambda index: Encoded(files[index % len(files)], 0),
        fingerprint="",
    )
