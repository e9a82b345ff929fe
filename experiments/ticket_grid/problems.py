"""The problem of a grid: its net's form, its rewind epochs, and how many weights each cut keeps."""

from experiments.harness.flags import numbers
from experiments.harness.problem import Problem
from experiments.harness.training_runs import chunk_plan
from experiments.ticket_grid.settings import Question
from jaxtickets import allocation, masks, nets
from jaxtickets.io.errors import UserError


def check(question: Question, problem: Problem) -> tuple[list[int], dict[float, int]]:
    """The rewind epochs, and threshold -> number of kept weights.

    Raises:
      ValueError: a setting is invalid.
    """
    shapes, epoch = masks.shapes(problem.param_shapes, problem.prunable), problem.epoch_steps
    keep = {
        threshold: allocation.global_(shapes, 1 - threshold / 100, question.floor)
        for threshold in sorted(set(numbers("thresholds", question.thresholds)))
    }
    rewinds = sorted(set(numbers("rewinds", question.rewinds)))
    for rewind in rewinds:
        if rewind != int(rewind) or not 0 <= rewind * epoch < problem.steps:
            raise ValueError(
                f"rewinds={rewind:g}: must be whole epochs of the training, which has "
                f"{problem.steps / epoch:g}"
            )
    chunk_plan(problem, [0, *(int(rewind) * epoch for rewind in rewinds)], problem.steps)
    return [int(rewind) for rewind in rewinds], keep


def in_form(problem: Problem, form: str) -> Problem:
    """The problem with its net in another form; in its own if `form` is empty.

    Raises:
      UserError: the net has no forms.
    """
    if not form:
        return problem
    try:
        net = nets.from_json(nets.to_json(problem.net) | {"form": form})
    except ValueError as error:
        raise UserError(f"--form={form}: {error}") from error
    return problem.with_net(net, problem.penalty, nets.wiring(net, problem.image_shape))
