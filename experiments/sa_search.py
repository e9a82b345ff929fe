"""Can a search over masks find a ticket in a net that isn't trained, and what is it worth?

Chains search the masks of a randomly initialised net for the one with the lowest energy. By default
that is the loss after a few training steps, which also say what to swap, and from which the net is
rewound each time; with --preset=annealing, or where any other flag says how to search, simulated
annealing of the untrained net's loss by random swaps. The best ticket of each seed is then trained,
and beside it, from the same initialisation, masks that cost no search: random, random with the
ticket's count in each layer, SNIP, one-shot magnitude after dense training, and the dense net.

    python -m experiments.sa_search --model=lenet5
    python -m experiments.sa_search --preset=annealing --model=lenet5
    python -m experiments.sa_search --preset=thesis --model=lenet300_100 --density=0.3,0.2,0.1

The README has the numbers to expect, with spread, device and time.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from experiments.sa_presets import BEST, preset
from jaxtickets import runs
from jaxtickets.drivers import annealing, comparison, opening
from jaxtickets.drivers.comparison import Entry
from jaxtickets.drivers.loop import seconds
from jaxtickets.drivers.problem import NetSettings, TrainSettings
from jaxtickets.drivers.search_loop import Found
from jaxtickets.drivers.seeds import WEIGHTS, Seed, evidence, weighted
from jaxtickets.drivers.training_loop import Start
from jaxtickets.figures import methods
from jaxtickets.figures.annealing import draw_search
from jaxtickets.io import records, rows
from jaxtickets.io.errors import UserError, choose, run_main
from jaxtickets.io.flags import BatchSettings, RunSettings, define, numbers, read_all
from jaxtickets.protocols import annealed, annealed_settings
from jaxtickets.protocols.controls import CONTROLS
from jaxtickets.settings import option
from jaxtickets.types import Array

METHODS = ("ticket", "ticket_last", *CONTROLS)
KINDS = {
    "swaps": "random swaps",
    "informed": "swaps that the gradient favours",
    "informed_corrected": "swaps that the gradient favours, corrected",
    "trained": "rewired: swaps that a short training speaks for",
    "anew": "masks drawn anew",
}
"""What a proposal is called in the table."""


@dataclasses.dataclass(frozen=True)
class Question:
    """What is searched for, and what the ticket is compared with."""

    density: tuple = option((0.5,), "kept fraction of weights or units; several with commas")
    chains: int = option(2, "chains of each seed", least=1)
    weights: str = option("init", "the weights that masks select from", WEIGHTS)
    weights_steps: int = option(
        75, "training steps before the search, if trained; later ones count anew", least=1
    )
    compare: tuple = option(("ticket", *CONTROLS), f"what is trained, of {', '.join(METHODS)}")


GROUPS = (
    Question(),
    annealed_settings.Settings(**BEST),
    NetSettings(),
    TrainSettings(),
    BatchSettings(),
)


def main() -> None:
    """Reads the flags, checks them, searches, trains, compares."""
    place, *parts = _read()
    question, settings, net, *_ = parts
    axis, problem = opening.prepare(place, parts)
    densities = numbers("density", question.density)
    checked = annealing.check(settings, problem, net.seed, densities, axis, question.chains)
    space = checked.where.space
    run, data, seeds = opening.begin("sa_search", place, parts, axis, problem)

    # --- search
    how = question.weights, question.weights_steps
    seeds = [weighted(problem, one, *how, data) for one in seeds]
    every = place.checkpoint_seconds
    searched = problem, axis, seeds, question.chains, data, every
    found = annealing.anneal(run.folder, "search", checked, *searched)

    # --- compare
    def entry(method: str, density: float, one: Seed, bits: Array) -> Entry:
        mask = space.mask(bits)
        params = annealed.ticket_params(settings, mask, one.params, problem.prunable)
        name = {"method": method, "density": density, "seed": one.number}
        return Entry(name, Start(one.train, problem.hyper, params, one.stats, mask))

    def compared(one: Found, trained: Any) -> list[Entry]:
        given = evidence(problem, one.seed, trained, data)
        entries = []
        for method in question.compare:
            if method in CONTROLS:
                key = jax.random.fold_in(one.seed.control, METHODS.index(method))
                bits = CONTROLS[method](key, given, space, one.ticket, settings.floor)
            else:
                bits = getattr(one, method)
            entries.append(entry(method, one.density, one.seed, bits))
        return [e for e in entries if e.name["method"] != "dense"]

    saved = [entry("ticket", one.density, one.seed, one.ticket) for one in found]
    for one, ticket in zip(found, saved, strict=True):
        comparison.save_entry(run.folder, problem, ticket, one.seed.step)
    train_entries = comparison.train_entries
    summary: list[dict[str, Any]] = []
    trained: dict[int, Any] = dict.fromkeys(one.number for one in seeds)
    if {"dense", "magnitude"} & set(question.compare):
        dense = [entry("dense", 1.0, one, jnp.ones(space.size, bool)) for one in seeds]
        ends, summary = train_entries(run.folder, "dense", problem, axis, dense, data, every)
        for i, number in enumerate(trained):
            trained[number] = runs.take(ends.state.params, i)
    entries = [e for one in found for e in compared(one, trained[one.seed.number])]
    if entries:
        summary += train_entries(run.folder, "train", problem, axis, entries, data, every)[1]

    # --- report
    share = round(seconds(run.folder, "search") / len(found), 3)
    for row in summary:
        row["search_seconds"] = share if row["method"].startswith("ticket") else 0.0
    rows.write_summary(run.folder, summary, *comparison.LEADING)
    draw_search(run.folder)
    methods.draw_accuracies(run.folder)
    methods.draw_layers(run.folder)
    print(f"ticket: {_said(settings)}\n{comparison.table(summary)}")
    records.finish_run(run)
    print(f"run: {run.folder}")


def _said(settings: annealed_settings.Settings) -> str:
    """What the ticket was searched by."""
    kind = KINDS[settings.proposal]
    trained = settings.energy == "trainability"
    after = f" after {settings.train_steps} training steps" if trained else ""
    lowered = settings.measure.replace("_", "-")
    return f"{settings.granularity}, {kind}, lowering {lowered}{after}"


def _read() -> list[Any]:
    """The settings of all groups; explicit flags before the preset before the defaults."""
    name = "smoke" if flags.FLAGS.smoke else flags.FLAGS.preset
    given = {flag: flags.FLAGS[flag].value for flag in flags.FLAGS if flags.FLAGS[flag].present}
    chosen = preset(name, flags.FLAGS.model, given)
    found = read_all((RunSettings(), *GROUPS), chosen)
    question, settings = found[1:3]
    for method in question.compare:
        choose("method", method, METHODS)
    if settings.interaction == "exchange" and "ticket_last" in question.compare:
        raise UserError(
            "--compare=ticket_last: with --interaction=exchange it may be a hot chain's"
        )
    return found


if __name__ == "__main__":
    flags.DEFINE_string(
        "preset", "", "settings by name: annealing, thesis, smoke; explicit flags come first"
    )
    flags.DEFINE_bool("smoke", False, "seconds long: the preset of that name")
    define(RunSettings(), *GROUPS)
    run_main(main)
