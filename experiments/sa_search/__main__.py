"""Can a search over masks find a ticket in a net that isn't trained, and what is it worth?

By default a mask evolves in one training that is sparse from its start: weights go and come until
as few are left as asked for, and the net is rewound. Or chains walk over the masks of the net: with
--preset=rewired by swaps that a few training steps speak for, down the loss after these steps; with
--preset=annealing, or where any other flag says how to walk, simulated annealing of the untrained
net's loss by random swaps. The best ticket of each seed is then trained, and beside it, from the
same initialisation, masks that cost no search: random, random with the ticket's count in each
layer, SNIP, one-shot magnitude after dense training, and the dense net.

    python -m experiments.sa_search --model=lenet5
    python -m experiments.sa_search --preset=annealing --model=lenet5
    python -m experiments.sa_search --preset=thesis --model=lenet300_100 --density=0.3,0.2,0.1

The README has the numbers to expect, with spread, device and time.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from absl import flags

from experiments.harness import (
    annealed,
    annealed_settings,
    annealing_runs,
    method_figures,
    rows,
    sparse_runs,
    tables,
    trained_masks,
)
from experiments.harness.budgeted_search import Task
from experiments.harness.chain_runs import Found
from experiments.harness.chunked_run import seconds
from experiments.harness.evolution_figure import draw_evolution
from experiments.harness.flags import BatchSettings, RunSettings, define, numbers, read_all
from experiments.harness.problem import NetSettings, TrainSettings
from experiments.harness.sa_presets import REWIRED, SEARCHES, preset
from experiments.harness.seeds import WEIGHTS, Seed, evidence, mask_key, training_key, weighted
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.sparse_runs import GRANET, EvolveSettings
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import Start
from experiments.sa_search.figure import draw_search
from jaxtickets import runs
from jaxtickets.io.errors import UserError, choose, run_main
from jaxtickets.recipes.baseline_masks import CONTROLS
from jaxtickets.search import space as spaces
from jaxtickets.settings import MOST_RUNS, MOST_STEPS, option
from jaxtickets.types import Array

METHODS = ("ticket", "ticket_last", *CONTROLS)


@dataclasses.dataclass(frozen=True)
class Question:
    """What is searched for, and what the ticket is compared with."""

    search: str = option(GRANET, "how masks are found", SEARCHES)
    budget: float = option(
        4.0, "dense trainings that a chain of granet may cost", above=0, most=1e9
    )
    density: tuple = option(
        (0.1,),
        "kept fraction of weights or units; several with commas; 0.5 for walks",
        above=0,
        below=1,
    )
    chains: int = option(
        1, "chains of each seed; walks have 2, annealing 4", least=1, most=MOST_RUNS
    )
    weights: str = option("init", "the weights that masks select from", WEIGHTS)
    weights_steps: int = option(
        75,
        "training steps before the search, if trained; later ones count anew",
        least=1,
        most=MOST_STEPS,
    )
    compare: tuple = option(("ticket", *CONTROLS), f"what is trained, of {', '.join(METHODS)}")


GROUPS = (
    Question(),
    EvolveSettings(),
    annealed_settings.Settings(**REWIRED),
    NetSettings(),
    TrainSettings(),
    BatchSettings(),
)


def main() -> None:
    """Reads the flags, checks them, searches, trains, compares."""
    place, *parts = _read()
    question, evolution, settings, net, train, _ = parts
    axis, problem = set_up(place, parts)
    densities = numbers("density", question.density)
    evolves = question.search == GRANET
    if evolves:
        how = evolution, problem, train, densities, settings.floor
        sparse_runs.check(*how, question.budget)
        params = problem.param_shapes
        space = spaces.weights(params, problem.prunable)
    else:
        checked = annealing_runs.check(
            settings, problem, net.seed, densities, axis, question.chains
        )
        space = checked.where.space
    session = start_run("sa_search", place, parts, axis, problem)

    # --- search
    data = session.data
    seeds = [
        weighted(problem, one, question.weights, question.weights_steps, data)
        for one in session.seeds
    ]
    session = session._replace(seeds=seeds)
    found: list[Found] = []
    if evolves:
        for density in densities:
            label = f"search-{density:g}"
            task = Task(session, label, density, settings.floor)
            masks_of = sparse_runs.search(task, evolution, train, question.budget, question.chains)
            for of, made in zip(seeds, masks_of, strict=True):
                bits = space.bits(made.mask)
                losses = {k: v for k, v in made.said.items() if k.endswith("_loss")}
                found.append(Found(density, of, bits, bits, losses))
    else:
        found = annealing_runs.anneal(session, "search", checked, question.chains)

    # --- compare
    def entry(method: str, density: float, one: Seed, bits: Array) -> Entry:
        mask, params = space.mask(bits), one.params
        if not evolves:
            params = annealed.ticket_params(settings, mask, params, problem.prunable)
        name = {"method": method, "density": density, "seed": one.number}
        return Entry(name, Start(training_key(one), problem.hyper, params, one.stats, mask))

    def compared(one: Found, trained: Any) -> list[Entry]:
        given = evidence(problem, one.seed, trained, data)
        entries = []
        for method in question.compare:
            if method in CONTROLS:
                key = mask_key(one.seed, method, one.density)
                bits = CONTROLS[method](key, given, space, one.ticket, settings.floor)
            else:
                bits = getattr(one, method)
            entries.append(entry(method, one.density, one.seed, bits))
        return [e for e in entries if e.name["method"] != "dense"]

    saved = [entry("ticket", one.density, one.seed, one.ticket) for one in found]
    for one, ticket in zip(found, saved, strict=True):
        trained_masks.save_entry(session.folder, problem, ticket, one.seed.step)
    train_entries = trained_masks.train_entries
    summary: list[dict[str, Any]] = []
    trained: dict[int, Any] = dict.fromkeys(one.number for one in seeds)
    if {"dense", "magnitude"} & set(question.compare):
        dense = [entry("dense", 1.0, one, jnp.ones(space.size, bool)) for one in seeds]
        ends, summary = train_entries(session, "dense", dense)
        for i, number in enumerate(trained):
            trained[number] = runs.take(ends.state.params, i)
    entries = [e for one in found for e in compared(one, trained[one.seed.number])]
    if entries:
        summary += train_entries(session, "train", entries)[1]

    # --- report
    phases = [f"search-{density:g}" for density in densities] if evolves else ["search"]
    share = round(sum(seconds(session.folder, phase) for phase in phases) / len(found), 3)
    said_of = {(one.density, one.seed.number): one.said for one in found}
    for row in summary:
        row["search_seconds"] = share if row["method"].startswith("ticket") else 0.0
        if row["method"] == "ticket":
            row |= said_of[row["density"], row["seed"]]
    rows.write_summary(session.folder, summary, *trained_masks.LEADING)
    if evolves:
        draw_evolution(session.folder, "search-")
    else:
        draw_search(session.folder)
    method_figures.draw_accuracies(session.folder)
    method_figures.draw_layers(session.folder)
    said = _evolved(question, evolution) if evolves else annealed_settings.said(settings)
    print(f"ticket: {said}\n{tables.methods(summary)}")
    finish_run(session.folder)


def _evolved(question: Question, settings: EvolveSettings) -> str:
    """What the ticket was searched by."""
    return (
        f"granet, initial density {settings.granet_from:g}, "
        f"for {question.budget:g} dense trainings' work a chain"
    )


def _read() -> list[Any]:
    """The settings of all groups; explicit flags before the preset before the defaults."""
    name = "smoke" if flags.FLAGS.smoke else flags.FLAGS.preset
    given = {flag: flags.FLAGS[flag].value for flag in flags.FLAGS if flags.FLAGS[flag].present}
    chosen = preset(name, flags.FLAGS.model, given)
    found = read_all((RunSettings(), *GROUPS), chosen)
    question, _, settings = found[1:4]
    for method in question.compare:
        choose("method", method, METHODS)
    if question.search == GRANET and "ticket_last" in question.compare:
        raise UserError("--compare=ticket_last: is of --search=walk, a chain's last mask")
    if settings.interaction == "exchange" and "ticket_last" in question.compare:
        raise UserError(
            "--compare=ticket_last: with --interaction=exchange it may be a hot chain's"
        )
    return found


if __name__ == "__main__":
    flags.DEFINE_string(
        "preset",
        "",
        "settings by name: rewired, annealing, thesis, smoke; explicit flags come first",
    )
    flags.DEFINE_bool("smoke", False, "seconds long: the preset of that name")
    define(RunSettings(), *GROUPS)
    run_main(main)
