"""Compares a smaller net with the dense one: measured latency, memory and size on disk."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments.harness import timing
from jaxtickets import masks, nets
from jaxtickets.types import Array, Model, Params, Stats, Ticket


def compare(
    before: tuple[nn.Module, Ticket],
    after: tuple[nn.Module, Ticket],
    shape: Sequence[int],
    batches: Sequence[int] = (1, 128),
    repeats: int = 100,
) -> list[dict[str, Any]]:
    """The latency and memory of two nets in evaluation mode, compiled, on the default device.

    Latency is the median of many calls, after a first call that isn't timed. The two nets are
    called in turns, so that other load on the machine affects both. The ratio is therefore more
    reliable than the times. Memory is XLA's estimate for the compiled program: arguments, outputs
    and temporaries.

    Args:
      before: a net and its ticket, unbatched. The mask is applied before timing.
      after: the smaller net and its ticket.
      shape: `(h, w, c)` of the images.
      batches: the numbers of images in a call.
      repeats: the number of timed calls.

    Returns:
      Rows like those of `compress.report.rows`: `quantity`, `before`, `after`, and `ratio`, which
      is before / after. Times are in milliseconds, memory is in bytes.
    """
    rows = []
    for batch in batches:
        images = jnp.zeros((batch, *shape))
        calls, memory = [], []
        for net, ticket in (before, after):
            params = masks.apply(ticket.mask, ticket.params)
            apply = jax.jit(_logits, static_argnums=0)
            compiled = apply.lower(
                nets.functional(net, shape), params, ticket.stats, images
            ).compile()
            calls.append(partial(compiled, params, ticket.stats, images))
            memory.append(_memory(compiled))
        times = [1000 * seconds for seconds in timing.median_times(calls, repeats)]
        rows.append(_row(f"ms a batch of {batch}", times[0], times[1]))
        rows.append(_row(f"bytes of memory, batch of {batch}", memory[0], memory[1]))
    return rows


def _logits(model: Model, params: Params, stats: Stats, images: Array) -> Array:
    return model.apply(params, stats, images)[0]


def on_disk(before: Path, after: Path) -> dict[str, Any]:
    """A row with the total file sizes of two tickets' folders, in bytes."""

    def size(folder: Path) -> int:
        return sum(os.path.getsize(path) for path in folder.rglob("*") if path.is_file())

    return _row("bytes on disk", size(before), size(after))


def _memory(compiled: Any) -> int:
    """The bytes of a compiled program's arguments, outputs and temporaries."""
    found = compiled.memory_analysis()
    sizes = found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes
    return sum(sizes) - found.alias_size_in_bytes


def _row(quantity: str, before: float, after: float) -> dict[str, Any]:
    return {"quantity": quantity, "before": before, "after": after, "ratio": before / after}
