"""Times of a masked net in dense form and in each sparse form."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import timing
from experiments.harness.problem import Problem
from jaxtickets import losses, masks, nets
from jaxtickets.compress import sparse
from jaxtickets.keys import stream
from jaxtickets.types import Mask, Params

MEBIBYTE = 2**20


class Masked(NamedTuple):
    """A masked net that is timed.

    Attributes:
      name: its fields in rows: model, mask, density, seed.
      params: the parameters.
      mask: like `params`, bool.
    """

    name: dict[str, Any]
    params: Params
    mask: Mask


class Limits(NamedTuple):
    """The limits of the measurements.

    Attributes:
      repeats: the maximum number of timed calls of each form; at least five are made.
      seconds: the maximum time of all forms' timed calls; inf: no limit.
      memory: the MiB of temporary memory above which a program isn't timed.
    """

    repeats: int
    seconds: float
    memory: float


def cell(
    problem: Problem, one: Masked, work: str, batch: int, limits: Limits
) -> Iterator[dict[str, Any]]:
    """A row of times for each sparse form of a masked net. All forms are called in turns.

    Args:
      problem: the net.
      one: its weights and mask.
      work: 'inference', or 'training': the loss and its gradient for the kept weights.
      batch: the number of images in a call.
      limits: the limits of the measurements.

    Yields:
      Rows with the fields of the net's name, `work`, `batch` and `form`; `dense_ms` and `ms`, the
      median times in dense form and in the sparse form; `ratio`, the median of dense time / time
      over paired calls, with its quartiles `ratio_low` and `ratio_high`; `repeats`; and
      `temporary_mib`, the program's temporary memory. A form above the memory limit has no times.
    """
    apply = problem.recipe.model.apply
    shape = problem.image_shape
    images = jax.random.normal(stream(one.name["seed"], "benchmark", "images"), (batch, *shape))
    labels = jnp.arange(batch) % problem.dataset.classes
    masked = masks.apply(one.mask, one.params)
    order = sparse.layers(
        one.params,
        [path.removesuffix("/kernel") for path in nets.positions(problem.net, shape)],
    )
    programs: dict[str, tuple[Callable, Any, Any]] = {
        "dense": (lambda _, params, images: apply(params, {}, images)[0], one.mask, masked)
    }
    for name, form in sparse.FORMS.items():
        held = sparse.hold(form, one.mask, one.params)
        programs[name] = partial(sparse.forward, form, order), *held
    calls, sizes = {}, {}
    for name, (logits, where, weights) in programs.items():
        made = _step(logits, name == "dense") if work == "training" else _infer(logits)
        compiled = jax.jit(made).lower(where, weights, images, labels).compile()
        memory: Any = compiled.memory_analysis()
        sizes[name] = memory.temp_size_in_bytes / MEBIBYTE
        if name == "dense" or sizes[name] <= limits.memory:
            calls[name] = partial(compiled, where, weights, images, labels)
    times = _times(list(calls.values()), limits)
    dense = times[:, 0]
    for name in sparse.FORMS:
        said = {"work": work, "batch": batch, "form": name}
        row = {**one.name, **said, "dense_ms": 1000 * float(np.median(dense))}
        if name in calls:
            mine = times[:, list(calls).index(name)]
            low, middle, high = np.quantile(dense / mine, (0.25, 0.5, 0.75))
            row |= {"ms": 1000 * float(np.median(mine)), "ratio": float(middle)}
            row |= {"ratio_low": float(low), "ratio_high": float(high), "repeats": len(mine)}
        yield {**row, "temporary_mib": round(sizes[name], 2)}


def _infer(logits: Callable) -> Callable:
    return lambda where, weights, images, labels: logits(where, weights, images)


def _step(logits: Callable, trim: bool) -> Callable:
    """A function that gives the loss and the gradient for the kept weights.

    With `trim` the gradient is dense, and is masked.
    """

    def step(where: Any, weights: Any, images: jax.Array, labels: jax.Array) -> Any:
        def loss(weights: Any) -> jax.Array:
            return losses.cross_entropy(logits(where, weights, images), labels)

        value, gradient = jax.value_and_grad(loss)(weights)
        return value, masks.apply(where, gradient) if trim else gradient

    return step


def _times(calls: Sequence[Callable], limits: Limits) -> np.ndarray:
    """Seconds `[repeats, calls]`; the calls are made in turns, each after one that isn't timed."""
    rounds = [timing.median_times(calls, 1)]
    repeats = min(limits.repeats, limits.seconds / max(sum(rounds[0]), 1e-9))
    for _ in range(max(5, int(repeats)) - 1):
        rounds.append(timing.median_times(calls, 1))
    return np.array(rounds)


def pays_below(curve: Sequence[tuple[float, float]]) -> float:
    """The density below which the ratio is above 1; 0 if it never is, inf if it always is.

    Args:
      curve: (density, ratio) pairs, between which log ratio is linear in log density.
    """
    (first, best), *others = sorted(curve)
    if best <= 1:
        return 0.0
    for density, ratio in others:
        if ratio <= 1:
            return first * (density / first) ** (math.log(best) / math.log(best / ratio))
        first, best = density, ratio
    return math.inf
