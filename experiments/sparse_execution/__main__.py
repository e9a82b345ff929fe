"""Below which density is skipping zero weights faster on the CPU, in inference and in training?

Masked nets are timed in dense form, and in forms that neither store nor multiply pruned weights:
BCOO and BCSR of `jax.experimental.sparse`, a table of each output's kept inputs, whole or in
segments, and a dense product over the inputs that still have weights. A training step is the
forward pass, the loss, and the gradient for the kept weights. Masks are random, with one density in
every layer, or those of saved tickets.

    python -m experiments.sparse_execution
    python -m experiments.sparse_execution --models=lenet5 --tickets=runs/sa_search/*/tickets/*

The results are in experiments/sparse_execution/README.md, with device and time.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from experiments.harness import memory, records, rows, saved_tickets, setup
from experiments.harness.flags import RunSettings, define, numbers, read_all, whole_numbers
from experiments.harness.main import run_main
from experiments.harness.problem import Problem, build
from experiments.harness.session import finish_run
from experiments.harness.settings import MOST_SEED, choose, option
from experiments.harness.training_settings import NetSettings, TrainSettings
from experiments.sparse_execution import figure as figures
from experiments.sparse_execution import sparse_times
from experiments.sparse_execution.page import table
from experiments.sparse_execution.sparse_times import Limits, Masked
from jaxtickets import allocation, masks, runs
from jaxtickets.data import shape as image_shape
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream

LENETS = ("lenet300_100", "lenet5")
LEADING = ("model", "mask", "density", "seed", "work", "batch", "form")
SMOKE: dict[str, Any] = {
    "models": ("lenet300_100",),
    "density": (0.2, 0.01),
    "batches": (8,),
    "train_batch": 8,
    "repeats": 5,
}


@dataclasses.dataclass(frozen=True)
class Question:
    """What is timed. Each field is also a flag of the same name."""

    models: tuple = option(LENETS, f"network architectures: {', '.join(LENETS)}")
    density: tuple = option(
        (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005), "densities of random masks", above=0, most=1
    )
    tickets: tuple = option(
        (), "folders of saved tickets, or glob patterns; LABEL=PATTERN names their method"
    )
    batches: tuple = option(
        (1, 128, 2000), "numbers of images in an inference call", least=1, most=10**9
    )
    train_batch: int = option(128, "number of images in a training step", least=1, most=10**9)
    seed: int = option(0, "seed of weights, masks and images", least=0, most=MOST_SEED)
    repeats: int = option(100, "maximum number of timed calls", least=5, most=10**6)
    seconds: float = option(
        5.0,
        "maximum seconds of a cell's timed calls; at least five calls are made",
        least=0,
        most=1e9,
    )
    memory: int = option(
        2048, "MiB of temporary memory above which a program isn't timed", least=1, most=10**9
    )


GROUPS = (RunSettings(), Question())


def main() -> None:
    """Reads and checks the flags, times all cells, draws, and prints which densities pay."""
    place, question = read_all(GROUPS, SMOKE if flags.FLAGS.smoke else {})
    batches = whole_numbers("batches", question.batches)
    setup.start(place)
    image = 4 * math.prod(image_shape(NetSettings().dataset))
    for batch in (*batches, question.train_batch):
        memory.check_memory(f"--batches, --train_batch: {batch}", batch, image, "images")
    problems, of_nets, places = {}, {}, []
    for model in question.models:
        net = NetSettings(model=choose("model", model, LENETS), seed=question.seed)
        problems[model] = build(net, TrainSettings(), place.data_dir, place.prepare)
        found, of_nets[model] = _masked(model, problems[model], question)
        places += found
    spec = dataclasses.replace(question, tickets=tuple(places))
    run = records.open_run_of_flags("sparse_execution", place, [spec], runs.axis())
    done = [{k: v for k, v in row.items() if k != "phase"} for row in rows.read_metrics(run.folder)]
    limits = Limits(question.repeats, question.seconds, question.memory)
    works = [("inference", batch) for batch in batches] + [("training", question.train_batch)]
    for model, masked in of_nets.items():
        for one in masked:
            for work, batch in works:
                cell = {**one.name, "work": work, "batch": batch}
                if not any(cell.items() <= row.items() for row in done):
                    made = list(sparse_times.cell(problems[model], one, work, batch, limits))
                    rows.append_metrics(run.folder, *({"phase": "cells", **row} for row in made))
                    done += made
                    print(_line(cell, made), flush=True)
    rows.write_summary(run.folder, done, *LEADING)
    figures.draw_sparse(run.folder)
    print(table(done))
    finish_run(run.folder)


def _masked(model: str, problem: Problem, question: Question) -> tuple[list[str], list[Masked]]:
    """The saved tickets' folders; and the masked nets: random masks and saved tickets."""
    params, _ = jax.jit(problem.recipe.model.init)(stream(question.seed, "init"))
    shapes = masks.shapes(params, problem.prunable)
    made = []
    for density in numbers("density", question.density):
        try:
            keep = allocation.uniform(shapes, density, 1)
        except ValueError as error:
            raise UserError(str(error)) from error
        key = stream(question.seed, "mask", 0, "random", density)
        mask = masks.random(key, params, problem.prunable, keep)
        said = {"model": model, "mask": "random", "density": density, "seed": question.seed}
        made.append(Masked(said, params, mask))
    places, saved = saved_tickets.find_saved(question.tickets, problem)
    for name, ticket in saved:
        said = {"model": model, "mask": name["method"]}
        said |= {"density": name["density"], "seed": name["seed"]}
        made.append(Masked(said, ticket.params, ticket.mask))
    return list(places), made


def _line(cell: dict[str, Any], made: Sequence[dict[str, Any]]) -> str:
    ratios = [f"{row['form']} {row['ratio']:.2f}" for row in made if "ratio" in row]
    words = f"{cell['model']} {cell['mask']} {cell['density']:g} {cell['work']} {cell['batch']}"
    return f"{words}: dense {made[0]['dense_ms']:.3g} ms, dense time / time: {', '.join(ratios)}"


if __name__ == "__main__":
    flags.DEFINE_bool("smoke", False, "a test that takes seconds")
    define(*GROUPS)
    run_main(main)
