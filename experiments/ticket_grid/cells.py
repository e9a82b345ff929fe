"""The trainings of the grid: each cell's ticket and shuffled mask, each threshold's new start."""

from collections.abc import Mapping, Sequence

from experiments.harness.seeds import evidence, mask_key
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import start_of
from jaxtickets import masks, runs
from jaxtickets.criteria import CRITERIA
from jaxtickets.keys import stream
from jaxtickets.recipes import imp
from jaxtickets.recipes.ticket_controls import CONTROLS, ControlInputs, apply_control
from jaxtickets.training import Watched


def grid(
    session: Session, keep: Mapping[float, int], rewinds: Sequence[int], floor: int, ends: Watched
) -> list[Entry]:
    """The entries of all seeds, thresholds and rewind epochs.

    Args:
      session: the run.
      keep: threshold -> number of kept weights.
      rewinds: the rewind epochs.
      floor: minimum number of weights that a layer keeps.
      ends: the ends of the dense trainings, which have kept their weights at the rewind epochs.
    """
    problem, entries = session.problem, []
    for i, one in enumerate(session.seeds):
        trained, stats, kept = runs.take((ends.state.params, ends.state.stats, ends.kept), i)
        seen = evidence(problem, one, trained, session.data)._replace(stats=stats)
        for threshold, count in keep.items():
            key = mask_key(one, "magnitude", 1 - threshold / 100)
            mask = imp.prune(key, CRITERIA["magnitude"], seen, problem.prunable, count, floor)
            first = ControlInputs(
                problem.recipe.model, problem.prunable, one.params, one.stats, mask
            )
            trials: list[tuple[str, int, ControlInputs, dict[str, int]]]
            trials = [("reinit", 0, first, {})]
            for at, rewind in enumerate(rewinds):
                params, stats = runs.take(kept, at)
                later = first._replace(params=params, stats=stats)
                trials += [
                    (method, rewind, later, {"rewind": rewind}) for method in ("ticket", "shuffled")
                ]
            for method, rewind, given, where in trials:
                draw = stream(one.number, "grid", threshold, method, rewind)
                treated = apply_control(CONTROLS[method], draw, given)
                density = round(float(masks.density(treated.mask, problem.prunable)), 6)
                name = {"method": method, "density": density, "seed": one.number}
                start = start_of(problem, one, treated.mask, treated.params)
                start = start._replace(stats=treated.stats, step=rewind * problem.epoch_steps)
                entries.append(Entry(name | {"threshold": threshold, **where}, start))
    return entries
