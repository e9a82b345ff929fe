"""Trained dense nets of other runs, in place of those of the store."""

from collections.abc import Sequence
from pathlib import Path

from experiments.harness.dense_store import Dense
from experiments.harness.problem import Problem
from experiments.harness.saved_tickets import find_saved
from jaxtickets import runs
from jaxtickets.io.errors import UserError


def find(
    patterns: Sequence[str], problem: Problem, seeds: Sequence[int]
) -> tuple[tuple[str, ...], Dense]:
    """Loads a dense net for each seed. The time of its training isn't known here: 0 seconds.

    Args:
      patterns: glob patterns of folders of tickets, whose weights are the trained ones.
      problem: the net that they must be of; they may have been trained on other data.
      seeds: the numbers of the run's seeds.

    Returns:
      `=FOLDER DIGEST` of each net, for the spec; and the nets in the order of `seeds`.

    Raises:
      UserError: a ticket is damaged, pruned or of another net, or the seeds are others.
    """
    places, saved = find_saved(patterns, problem, "dense_nets")
    given = f"--dense_nets={','.join(patterns)}"
    for one in saved:
        if one.name["density"] < 1:
            left = f"{100 * one.name['density']:g} % of the weights"
            raise UserError(f"{given}: seed {one.name['seed']} has {left}, must be dense")
    numbers = [one.name["seed"] for one in saved]
    if sorted(numbers) != sorted(seeds):
        theirs, ours = (",".join(map(str, sorted(some))) for some in (numbers, seeds))
        raise UserError(f"{given}: nets of seeds {theirs}, must be {ours}, see --seed and --seeds")
    ordered = [saved[numbers.index(number)] for number in seeds]
    params, stats = runs.stack([(one.ticket.params, one.ticket.stats) for one in ordered])
    rows = [{**one.name, "seconds": 0.0} for one in ordered]
    folders = [Path(place.partition("=")[2].rpartition(" ")[0]) for place in places]
    return places, Dense(params, stats, rows, dict(zip(numbers, folders, strict=True)))
