"""Counts the flips of all signs in dense trainings, and what they say of later pruning."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness.problem import Problem
from experiments.harness.seeds import training_key
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry, ended_rows
from experiments.harness.training_runs import Start, train_all
from experiments.sign_flips.ranks import area_under_curve, mid_ranks, spearman
from jaxtickets import allocation, masks, runs
from jaxtickets.dynamic import flipout
from jaxtickets.dynamic.base import View, sparse
from jaxtickets.optimizers import Hyper
from jaxtickets.types import Array, Mask, Params, PyTree, TrainState

DENSE, PLAIN = "dense", "plain"
"""The rule and the variant of these trainings in rows."""
ALL = "all"
"""In place of a layer's name: all prunable weights together."""
BINS = 20
"""Groups of weights of equal size, by |w|."""
GROUPS = ((0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 10**9))
"""The least and the most flips of weights whose survival is counted together."""

Row = dict[str, Any]


class Flips(NamedTuple):
    """What the sparse optimiser of these trainings carries.

    Attributes:
      counts: int32, a tuple of the prunable leaves: the flips of each weight so far.
      early_counts: like `counts` with a leading axis of marks: the flips until each mark.
      early_params: float, like `early_counts`: the weights at each mark.
    """

    counts: PyTree
    early_counts: PyTree
    early_params: PyTree


class Tables(NamedTuple):
    """The rows of the dense trainings.

    Attributes:
      summary: a row for each rate and seed, with accuracies.
      flips: for each rate, seed, layer and density: how often weights flip, and which survive.
      predictors: for each rate, seed, layer, density and mark: the areas under the curves of what
        is known at the mark, as predictors of the weights that are pruned in the end.
      bins: for figures: mean flips in bins of |w|, and survival in groups of flips.
    """

    summary: list[Row]
    flips: list[Row]
    predictors: list[Row]
    bins: list[Row]


def train(
    session: Session, rates: Sequence[float], densities: Sequence[float], early: Sequence[float]
) -> Tables:
    """Trains dense nets at all rates, counts their flips, and prunes copies of them in the end.

    The metrics rows of the phase `dense` hold `flips/LEAF`, the flips of a weight so far, on
    average over the leaf.

    Args:
      session: the net, its training and the seeds.
      rates: the learning rates.
      densities: the shares of weights that magnitude pruning keeps at the end.
      early: the shares of the training at which flips and weights are noted.
    """
    problem = session.problem
    marks = marks_of(early, problem.steps)

    def sparsify(
        inner: optax.GradientTransformation, mask: Mask, fill: Params | None, hyper: Hyper
    ) -> optax.GradientTransformationExtraArgs:
        del fill, hyper
        return counting(inner, mask, problem.prunable, marks)

    def record(state: TrainState) -> dict[str, Array]:
        leaves = zip(problem.prunable, state.opt_state.method.counts, strict=True)
        return {f"flips/{path}": jnp.mean(count.astype(float)) for path, count in leaves}

    counted = session._replace(problem=problem.with_recipe(sparsify=sparsify, record=record))
    entries = [
        Entry(
            {"rule": DENSE, "variant": PLAIN, "rate": rate, "density": 1.0, "seed": seed.number},
            Start(
                key=training_key(seed),
                hyper=problem.hyper._replace(rate=jnp.float32(rate)),
                params=seed.params,
                stats=seed.stats,
                mask=masks.ones(seed.params),
                step=seed.step,
            ),
        )
        for rate in rates
        for seed in session.seeds
    ]
    starts = runs.stack([entry.start for entry in entries])
    names = [entry.name for entry in entries]
    state = train_all(counted, DENSE, starts, names, end=problem.steps).state
    tables = Tables(ended_rows(session, DENSE, entries, state), [], [], [])
    for i, name in enumerate(names):
        who = {field: name[field] for field in ("rate", "seed")}
        params, flips = runs.take(state.params, i), runs.take(state.opt_state.method, i)
        kept = {density: _by_magnitude(problem, params, density) for density in densities}
        last = masks.pick(params, problem.prunable)
        tables.flips.extend(_survival(problem, who, last, flips, kept))
        tables.predictors.extend(_predictions(problem, who, early, flips, kept))
        tables.bins.extend(_groups(who, flips, kept))
        tables.bins.extend(_bins(problem, who, last, flips))
    return tables


def marks_of(early: Sequence[float], steps: int) -> tuple[int, ...]:
    """The steps at the shares `early` of a training of `steps` steps.

    Raises:
      ValueError: two are the same, or one is the first or the last.
    """
    marks = tuple(round(share * steps) for share in early)
    if len(set(marks)) < len(marks) or not all(0 < mark < steps for mark in marks):
        raise ValueError(f"must be different steps within the training, which has {steps} steps")
    return marks


def counting(
    inner: optax.GradientTransformation, mask: Mask, prunable: Sequence[str], marks: Sequence[int]
) -> optax.GradientTransformationExtraArgs:
    """A sparse optimiser whose mask stays, that counts flips; its `method` is a `Flips`.

    Args:
      inner: the optimiser.
      mask: bool, like the parameters.
      prunable: the leaves whose flips are counted.
      marks: the updates after which counts and weights are noted.
    """
    leaves = tuple(masks.pick(mask, tuple(prunable)))
    when = jnp.asarray(marks, jnp.int32)

    def after(view: View, params: Params) -> tuple[Params, Mask, Flips]:
        old, new = (tuple(masks.pick(p, tuple(prunable))) for p in (view.params, params))
        counts = flipout.count_flips(view.method.counts, old, new)

        def note(noted: Array, now: Array) -> Array:
            hit = (when == view.calls + 1).reshape(-1, *[1] * jnp.ndim(now))
            return jnp.where(hit, now[None], noted)

        early_counts = jax.tree.map(note, view.method.early_counts, counts)
        early_params = jax.tree.map(note, view.method.early_params, new)
        return params, view.mask, Flips(counts, early_counts, early_params)

    def empty(dtype: Any) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.zeros((len(marks), *leaf.shape), dtype), leaves)

    none = Flips(flipout.no_flips(leaves), empty(jnp.int32), empty(jnp.float32))
    return sparse(inner, mask, after=after, method=none)


# --- what the counts say, on the host ------------------------------------------------------------


Kept = Mapping[float, Sequence[Array]]
"""Density -> bool, the prunable leaves: the weights that magnitude pruning keeps in the end."""


def _by_magnitude(problem: Problem, params: Params, density: float) -> list[Array]:
    count = allocation.total(masks.shapes(params, problem.prunable), density)
    keep = masks.select(jax.tree.map(jnp.abs, params), problem.prunable, count)
    return masks.pick(keep, problem.prunable)


def _by_layer(problem: Problem, *trees: Sequence[Array]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """All prunable weights together, then each layer: its name and `[n]` of each tree."""
    flat = [[np.ravel(leaf) for leaf in tree] for tree in trees]
    yield ALL, [np.concatenate(leaves) for leaves in flat]
    for i, path in enumerate(problem.prunable):
        yield path.removesuffix("/kernel"), [leaves[i] for leaves in flat]


def _survival(
    problem: Problem, who: Row, last: Sequence[Array], flips: Flips, kept: Kept
) -> Iterator[Row]:
    for layer, (weights, counts, *keeps) in _by_layer(problem, last, flips.counts, *kept.values()):
        known = {
            "layer": layer,
            "flips": _rounded(counts.mean()),
            "never": _rounded(np.mean(counts == 0)),
            "spearman": _rounded(spearman(mid_ranks(counts), mid_ranks(np.abs(weights)))),
        }
        for density, keep in zip(kept, keeps, strict=True):
            yield {
                **who,
                "density": density,
                **known,
                "survive": _rounded(keep.mean()),
                "kept_flips": _rounded(counts[keep].mean() if keep.any() else None),
                "pruned_flips": _rounded(counts[~keep].mean() if not keep.all() else None),
            }


def _predictions(
    problem: Problem, who: Row, early: Sequence[float], flips: Flips, kept: Kept
) -> Iterator[Row]:
    for at, share in enumerate(early):
        counts, weights = (
            [leaf[at] for leaf in tree] for tree in (flips.early_counts, flips.early_params)
        )
        for layer, (count, w, *keeps) in _by_layer(problem, counts, weights, *kept.values()):
            size = np.abs(w).astype(float)
            worth = {"flips": -count, "magnitude": size, "hybrid1": size / (count + 1)}
            ranks = {name: mid_ranks(-value) for name, value in worth.items()}
            for density, keep in zip(kept, keeps, strict=True):
                areas = {name: area_under_curve(r, ~keep) for name, r in ranks.items()}
                areas = {name: _rounded(area) for name, area in areas.items()}
                yield {**who, "density": density, "early": share, "layer": layer, **areas}


def _groups(who: Row, flips: Flips, kept: Kept) -> Iterator[Row]:
    counts = np.concatenate([np.ravel(leaf) for leaf in flips.counts])
    for density, leaves in kept.items():
        keep = np.concatenate([np.ravel(leaf) for leaf in leaves])
        for low, high in GROUPS:
            mine = (counts >= low) & (counts <= high)
            if mine.any():
                found = {"weights": _rounded(mine.mean()), "survive": _rounded(keep[mine].mean())}
                yield {**who, "density": density, "layer": ALL, "group": low, **found}


def _bins(problem: Problem, who: Row, last: Sequence[Array], flips: Flips) -> Iterator[Row]:
    for layer, (weights, counts) in _by_layer(problem, last, flips.counts):
        order = np.argsort(np.abs(weights), kind="stable")
        for i, part in enumerate(np.array_split(counts[order], min(BINS, len(counts)))):
            yield {**who, "layer": layer, "bin": i, "flips": _rounded(part.mean())}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)
