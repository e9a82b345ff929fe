"""The dense trainings during which early-bird tickets are drawn."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.early_bird.draw_plan import ANNEALED, DrawPlan
from experiments.harness import rows, streamed_runs, trained_masks
from experiments.harness.chunked_run import Advance, check_finite, run_in_chunks, seconds
from experiments.harness.dense_store import dense_entry
from experiments.harness.progress import Progress
from experiments.harness.seeds import Seed, evidence, training_key
from experiments.harness.session import Session
from experiments.harness.streamed_runs import Own
from experiments.harness.training_runs import accuracies, splits_of
from jaxtickets import masks, runs, training
from jaxtickets.dynamic.static import masked
from jaxtickets.keys import stream
from jaxtickets.recipes import early_bird
from jaxtickets.runs import Blocks
from jaxtickets.training import Splits, Watched
from jaxtickets.types import Array, Key, Params, PyTree, Split, Stats

SEARCH = "search"
"""The phase of the dense training."""


class DrawInputs(NamedTuple):
    """The inputs of one seed's dense training; stacked, they have a leading axis of seeds.

    Attributes:
      key: scalar key array of the training.
      draw_key: scalar key array of the masks, for random, dropout-using and annealed criteria.
      hyper: learning rate and warm-up steps, scalars.
      params, stats: the initial weights and statistics.
    """

    key: Key
    draw_key: Key
    hyper: PyTree
    params: Params
    stats: Stats


def train_and_draw(session: Session, plan: DrawPlan) -> Watched:
    """Trains the dense nets and draws tickets; returns the final states, stacked over seeds.

    The method state is a `DrawState`, and `kept` holds the weights at the epochs `plan.draw_at`.
    There is a metrics row for each seed and epoch with the training's metrics; and one for each
    seed, density and epoch with the `distances` of the mask to those of the epochs before (the
    latest first) and the epoch `drawn`, which is 0 before the draw.

    Args:
      session: the run axis, the data, the seeds, and the run's folder.
      plan: the plan of the run.
    """
    problem, settings = plan.search, plan.settings
    axis, seeds, data = session.axis, session.seeds, session.data
    recipe, keep_at = problem.recipe, tuple(at * plan.epoch for at in plan.draw_at)
    batches = evidence(problem, seeds[0], None, data).batches

    def begin_one(case: DrawInputs) -> Watched:
        bird = early_bird.begin(
            case.params, case.stats, plan.space.size, len(plan.keep), plan.epochs
        )
        optimizer = masked(recipe.optimizer(case.hyper), masks.ones(case.params))
        state = training.init(
            case.params, case.stats, optimizer, method_state=bird, average=recipe.average
        )
        return training.watch(state, keep_at)

    def draw(case: DrawInputs, batches: Split, state: training.TrainState) -> Array:
        seen = problem.evidence(case.params, state.params, state.stats, state.mask, batches)
        return plan.masks(case.draw_key, state.step, seen)

    def one(row: tuple[DrawInputs, Watched], shared: tuple[Splits, Split]) -> PyTree:
        (case, watched), (splits, batches) = row, shared
        watched, metrics = early_bird.epoch(
            recipe,
            case.key,
            case.hyper,
            watched,
            splits,
            plan.epoch,
            partial(draw, case, batches),
            settings.tolerance,
            settings.window,
            keep_at,
        )
        return (case, watched), metrics

    def observe(row: tuple[DrawInputs, Watched], batches: Split) -> PyTree:
        case, watched = row
        state, seen = early_bird.observe(
            watched.state, partial(draw, case, batches), settings.tolerance, settings.window
        )
        return (case, watched._replace(state=state)), seen

    def report(i: int, info: dict[str, np.ndarray]) -> tuple[list[dict[str, Any]], dict]:
        distances, drawn = info.pop("distances"), info.pop("drawn")
        names = [f"seed {one.number}" for one in seeds]
        flat = info.pop("losses", info["train_loss"]).reshape(len(seeds), -1)
        check_finite(flat, names, i * plan.epoch, "training loss")
        made: list[dict[str, Any]] = []
        for at, one in enumerate(seeds):
            last = {name: values[at, -1] for name, values in info.items()}
            last["train_loss"] = last["train_loss"].mean()
            made.append({"seed": one.number, "step": last["step"], "epoch": i + 1, **last})
            for row, density in enumerate(plan.keep):
                far = [round(float(d), 8) for d in distances[at, row, :i]]
                said = {"seed": one.number, "density": density, "epoch": i + 1}
                made.append({**said, "drawn": drawn[at, row], "distances": far})
        shown = {"validation": info["accuracy"][:, -1].mean()}
        return made, shown | ({"distance": distances[:, :, 0].mean()} if i else {})

    @contextlib.contextmanager
    def in_memory() -> Iterator[Advance]:
        advance, shared = runs.batch(one, axis), (splits_of(problem, data), batches)
        placed = runs.share(shared, axis)
        yield lambda blocks, i: runs.unzip(advance(blocks, placed))

    @contextlib.contextmanager
    def streamed() -> Iterator[Advance]:
        draws, placed = runs.batch(observe, axis), runs.share(batches, axis)
        mine = session._replace(problem=problem)
        with streamed_runs.epochs(mine, plan.epoch, plan.epochs, keep_at) as train:

            def step(blocks: Blocks, i: int) -> tuple[Blocks, Blocks]:
                cases, nets = runs.unzip(blocks)
                owns = runs.pick(lambda case: Own(case.key, case.hyper, None), cases)
                nets, metrics = train(owns, nets, i)
                blocks, drawn = runs.unzip(draws(runs.zip_(cases, nets), placed))
                return blocks, runs.pick(lambda one, other: {**one, **other}, metrics, drawn)

            yield step

    def begin() -> PyTree:
        cases = runs.stack(
            [
                DrawInputs(
                    key=training_key(one),
                    draw_key=stream(one.number, "early_bird"),
                    hyper=problem.hyper,
                    params=one.params,
                    stats=one.stats,
                )
                for one in seeds
            ]
        )
        return cases, runs.over_runs(begin_one, axis, cases)

    images = recipe.batch_size * plan.epoch * len(seeds)
    kinds = {"validation": ".2%", "distance": ".3f"}
    label = f"{SEARCH}, {len(seeds)} runs"
    progress = Progress(label, plan.epochs, kinds, "images", per_step=images)
    ends = range(1, plan.epochs + 1)
    with in_memory() if problem.photographs is None else streamed() as step:
        return run_in_chunks(session, SEARCH, begin, ends, step, report, progress)[1]


def write_drawn(
    folder: Path, plan: DrawPlan, seeds: Sequence[Seed], ends: Watched
) -> list[dict[str, Any]]:
    """Writes `drawn.csv`, with a row for each density and seed, and returns the rows.

    `drawn` is the epoch of the draw, 0 if there was none. `distance` is the largest of the
    distances that decide, at that epoch or else at the last. `chance` is the distance of random
    masks, `2 d (1 − d)`; it is empty for annealed masks, which all start from the same mask.
    """
    seen = [r for r in rows.read_metrics(folder) if r["phase"] == SEARCH and "distances" in r]
    at = {(r["density"], r["seed"], r["epoch"]): r["distances"] for r in seen}
    made = []
    for place, density in enumerate(plan.keep):
        for i, one in enumerate(seeds):
            drawn = int(ends.state.method_state.queue.drawn[i, place])
            far = at[density, one.number, drawn or plan.epochs][: plan.settings.window - 1]
            row = {"density": density, "seed": one.number, "drawn": drawn, "epochs": plan.epochs}
            searched = plan.settings.criterion == ANNEALED
            chance = None if searched else round(2 * density * (1 - density), 6)
            made.append({**row, "distance": max(far), "chance": chance})
    rows.write_csv(folder / "drawn.csv", made)
    return made


def dense_rows(session: Session, plan: DrawPlan, ends: Watched) -> list[dict[str, Any]]:
    """A summary row of each trained dense net, see `train_entries`."""
    problem, seeds, state = plan.search, session.seeds, ends.state
    searched = session._replace(problem=problem)
    entries = [dense_entry(problem, one) for one in seeds]
    made = trained_masks.untrained_rows(searched, entries)
    test, validation = (
        accuracies(searched, state.params, state.stats, part) for part in ("test", "validation")
    )
    share = round(seconds(session.folder, SEARCH) / len(seeds), 3)
    for i, row in enumerate(made):
        row |= {
            "trained_accuracy": round(float(test[i]), 6),
            "validation_accuracy": round(float(validation[i]), 6),
            "seconds": share,
            "train_steps": problem.steps,
            "multiply_adds": 1.0,
            "dense_trainings": 1.0,
        }
    return made
