"""The dense trainings during which early-bird tickets are drawn."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.harness import rows, trained_masks
from experiments.harness.chunked_run import check_finite, run_in_chunks, seconds
from experiments.harness.filter_cuts import check_scores
from experiments.harness.flags import numbers, whole_numbers
from experiments.harness.problem import Problem
from experiments.harness.progress import Progress
from experiments.harness.seeds import Seed, evidence, training_key
from experiments.harness.session import Session
from experiments.harness.settings import MOST_EPOCHS, MOST_FACTOR, MOST_STEPS, option
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import Start, accuracies, chunk_plan, splits_of
from jaxtickets import allocation, criteria, masks, nets, penalties, runs, training
from jaxtickets.compress import graph as graphs
from jaxtickets.compress.graph import Graph
from jaxtickets.criteria import Evidence
from jaxtickets.criteria.units import find_unit
from jaxtickets.dynamic.static import masked
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream
from jaxtickets.recipes import drawn_masks, early_bird
from jaxtickets.recipes.drawn_masks import Masks
from jaxtickets.runs import Blocks
from jaxtickets.search import space as spaces
from jaxtickets.search.space import Space
from jaxtickets.training import Splits, Watched
from jaxtickets.types import Array, Key, Params, PyTree, Split, Stats

SEARCH = "search"
"""The phase of the dense training."""
ANNEALED = "annealed"
"""The name of the criterion whose masks are found by annealing."""


@dataclass(frozen=True)
class DrawSettings:
    """What is pruned, when a ticket is drawn, and how it is trained afterwards."""

    granularity: str = option("weights", "what is pruned", ("weights", "units"))
    criterion: str = option(
        "",
        "pruning criterion, or annealed; empty: |w| for weights, batch-norm scales or mean |w| for "
        "units",
    )
    anneal_steps: int = option(
        300,
        "proposed swaps at the end of each epoch, with --criterion=annealed",
        least=1,
        most=MOST_STEPS,
    )
    density: tuple = option(
        (0.3, 0.1), "kept fractions of the weights, or of the units", above=0, most=1
    )
    floor: int = option(1, "minimum number that a layer keeps", least=0, most=10**9)
    tolerance: float = option(
        0.1, "largest Hamming distance at which two masks agree", least=0, most=1
    )
    window: int = option(
        early_bird.WINDOW, "consecutive masks that must agree", least=2, most=MOST_EPOCHS
    )
    after: str = option(
        "continue",
        "continue training at the epoch of the draw, or restart at epoch 0",
        ("continue", "retrain"),
    )
    draw_at: tuple = option(
        (0.05, 0.1, 0.25, 0.5, 0.75),
        "further epochs at which tickets are drawn; below 1: fractions of the training",
        least=0,
        most=MOST_EPOCHS,
    )
    scale_l1: float = option(
        1e-4,
        "strength of the L1 penalty on batch-norm scales, with --granularity=units",
        least=0,
        most=MOST_FACTOR,
    )


class DrawPlan(NamedTuple):
    """The plan of a run.

    Attributes:
      settings: the checked settings, with the criterion's name filled in.
      keep: density -> number of kept bits.
      draw_at: the epochs at which tickets are drawn besides the rule's.
      space: maps bits to masks.
      masks: makes the masks of all densities at a training step.
      graph: the net's traced graph; None if weights are pruned.
      search: the problem of the dense training, with the penalty in its loss.
      epoch: training steps in an epoch.
      epochs: the number of epochs of the dense training.
    """

    settings: DrawSettings
    keep: dict[float, int]
    draw_at: tuple[int, ...]
    space: Space
    masks: Masks
    graph: Graph | None
    search: Problem
    epoch: int
    epochs: int


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


def plan_draws(settings: DrawSettings, problem: Problem) -> DrawPlan:
    """Checks the settings and makes the plan.

    Raises:
      UserError: a number or a criterion is invalid, or the net can't be pruned that way.
    """
    params = problem.param_shapes
    image = problem.image_shape
    epoch = problem.epoch_steps
    epochs = problem.steps // epoch
    draw_at = _epochs_of(settings.draw_at, epochs)
    densities = sorted(set(numbers("density", settings.density)), reverse=True)
    try:
        if problem.steps % epoch:
            raise ValueError(
                f"{problem.steps} training steps: must be whole epochs of {epoch} steps"
            )
        chunk_plan(problem, range(0, problem.steps, epoch), problem.steps)
        if settings.window > epochs:
            raise ValueError(
                f"window={settings.window}: must be {epochs} or less, one mask for each epoch"
            )
        if not all(1 <= at < epochs for at in draw_at):
            words = ",".join(map(str, draw_at))
            raise ValueError(f"draw_at={words}: must be from 1 to {epochs - 1}, before the end")
        graph, penalty = None, problem.penalty
        if settings.granularity == "units":
            graph = graphs.trace(problem.net, image)
            space = early_bird.unit_space(params, graph)
            if penalty is not None:
                raise ValueError("--penalty: with --granularity=units give --scale_l1 instead")
            if any(group.norms for group in graph.wiring):
                penalty = _on_scales(settings.scale_l1, nets.output_layer(problem.net))
        else:
            space = spaces.weights(params, problem.prunable)
        settings = dataclasses.replace(settings, criterion=_criterion(settings, graph))
        shapes = dict(zip(space.names, space.shapes, strict=True))
        keep = {d: allocation.global_(shapes, d, settings.floor) for d in densities}
        counts = tuple(keep.values())
        if settings.criterion == ANNEALED:
            drawn = drawn_masks.annealed(space, settings.anneal_steps, counts, settings.floor)
        else:
            score, draws = _scorer(settings, problem, space, graph)
            drawn = drawn_masks.ranked(space, score, counts, settings.floor, own=draws)
    except ValueError as error:
        raise UserError(str(error)) from error
    search = problem.with_net(problem.net, penalty, problem.wiring).with_recipe(test_looks=0)
    return DrawPlan(settings, keep, draw_at, space, drawn, graph, search, epoch, epochs)


def _epochs_of(draw_at: Sequence[str], epochs: int) -> tuple[int, ...]:
    """The epochs in rising order. Numbers below 1 are fractions of `epochs`."""
    named = numbers("draw_at", draw_at) if draw_at else ()
    shares = {max(1, round(at * epochs)) for at in named if 0 < at < 1}
    whole = whole_numbers("draw_at", [at for at in draw_at if not 0 < float(at) < 1])
    return tuple(sorted({at for at in shares if at < epochs} | set(whole)))


def _on_scales(strength: float, output: str) -> Callable[[Params], Array]:
    return lambda params: strength * penalties.scales(params, output)


def _criterion(settings: DrawSettings, graph: Graph | None) -> str:
    """The criterion's name; by default that of the paper, if the net has batch-norm scales.

    Without scales units are ranked by the mean of |w|. Sums (L1) favour layers with many inputs: in
    a ranking over all layers, the second layer of `lenet300_100` would keep only its floor.
    """
    if settings.criterion:
        return settings.criterion
    if graph is None:
        return "magnitude"
    return "abs_batch_norm" if all(group.norms for group in graph.wiring) else "mean_abs"


def _scorer(
    settings: DrawSettings, problem: Problem, space: Space, graph: Graph | None
) -> tuple[Callable[[Key, Evidence], Array], bool]:
    """The function that scores the space's bits, and whether its scores are random."""
    if graph is None:
        weigh = criteria.find(settings.criterion)
        return lambda key, seen: space.pool(weigh.score(key, seen)), weigh.draws
    wiring, judge = graph.wiring, find_unit(settings.criterion)
    check_scores(judge, problem, wiring)
    return lambda key, seen: space.pool(judge.score(key, seen, wiring)), judge.draws


# --- dense training ------------------------------------------------------------------------------


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
    shared = runs.share((splits_of(problem, data), batches), axis)

    def begin_one(case: DrawInputs) -> Watched:
        bird = early_bird.begin(
            case.params, case.stats, plan.space.size, len(plan.keep), plan.epochs
        )
        optimizer = masked(recipe.optimizer(case.hyper), masks.ones(case.params))
        state = training.init(case.params, case.stats, optimizer, method_state=bird)
        return training.watch(state, keep_at)

    def one(row: tuple[DrawInputs, Watched], shared: tuple[Splits, Split]) -> PyTree:
        (case, watched), (splits, batches) = row, shared

        def draw(state: training.TrainState) -> Array:
            seen = problem.evidence(case.params, state.params, state.stats, state.mask, batches)
            return plan.masks(case.draw_key, state.step, seen)

        watched, metrics = early_bird.epoch(
            recipe,
            case.key,
            case.hyper,
            watched,
            splits,
            plan.epoch,
            draw,
            settings.tolerance,
            settings.window,
            keep_at,
        )
        return (case, watched), metrics

    advance = runs.batch(one, axis)

    def report(i: int, info: dict[str, np.ndarray]) -> tuple[list[dict[str, Any]], dict]:
        distances, drawn = info.pop("distances"), info.pop("drawn")
        names = [f"seed {one.number}" for one in seeds]
        flat = info["train_loss"].reshape(len(seeds), -1)
        check_finite(flat, names, i * plan.epoch, "training loss")
        made: list[dict[str, Any]] = []
        for at, one in enumerate(seeds):
            last = {name: values[at, -1] for name, values in info.items()}
            last["train_loss"] = last["train_loss"].mean()
            made.append({"seed": one.number, "epoch": i + 1, **last})
            for row, density in enumerate(plan.keep):
                far = [round(float(d), 8) for d in distances[at, row, :i]]
                said = {"seed": one.number, "density": density, "epoch": i + 1}
                made.append({**said, "drawn": drawn[at, row], "distances": far})
        shown = {"validation": info["accuracy"][:, -1].mean()}
        return made, shown | ({"distance": distances[:, :, 0].mean()} if i else {})

    def step(blocks: Blocks, i: int) -> tuple[Blocks, Blocks]:
        del i
        return runs.unzip(advance(blocks, shared))

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
    problem, axis, data, seeds = plan.search, session.axis, session.data, session.seeds
    entries = [
        Entry(
            {"method": "dense", "density": 1.0, "seed": one.number},
            Start(training_key(one), problem.hyper, one.params, one.stats, masks.ones(one.params)),
        )
        for one in seeds
    ]
    made = trained_masks.untrained_rows(problem, axis, entries, data)
    test, validation = (
        accuracies(problem, axis, ends.state.params, ends.state.stats, split)
        for split in (data.test, data.validation)
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
