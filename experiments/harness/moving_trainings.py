"""Trainings whose mask moves, by any method of dynamic sparse training and inner optimiser."""

from collections.abc import Callable

import optax

from experiments.harness import packed_runs
from experiments.harness.moving_masks import SparseHyper
from experiments.harness.named_parts import make_part
from experiments.harness.problem import Problem, learning_rate_of
from experiments.harness.training_settings import TrainSettings
from jaxtickets.dynamic.history import with_history
from jaxtickets.dynamic.methods import INNERS, Method
from jaxtickets.training import Fetch, Metrics, Moves, Steps
from jaxtickets.types import Key, Mask, Params, PyTree, TrainState


def skips_zeros(method: Method) -> bool:
    """Whether the method's training steps can be taken by sparse products."""
    return not method.own_steps


def keeps_counts(method: Method) -> bool:
    """Whether each layer keeps as many weights from first to last."""
    return method.begin == "sparse" and method.counts == "leaf"


def moved(
    problem: Problem,
    method: Method,
    inner: str,
    train: TrainSettings,
    every: int,
    floor: int,
    alpha: float,
    packed: Mask | None = None,
) -> Problem:
    """The problem with its mask moved by a method; hyperparameters are those of `SparseHyper`.

    The optimiser's state is a `dynamic.history.History`.

    Args:
      problem: the net and its training.
      method: the facts about the method.
      inner: a name of `dynamic.methods.INNERS`; empty for the plain optimiser.
      train: the settings that the problem was built from.
      every: training steps between two moves.
      floor: the minimum number of weights that a layer keeps.
      alpha: the strength of HAM's hyperbolic step.
      packed: a mask for training steps by sparse products, of nets that keep as many weights as it
        does, or that prune: dense at first, and packed once few weights are left; None for steps by
        dense products.
    """
    rate = learning_rate_of(train, problem.steps)

    def inner_of(hyper: SparseHyper) -> optax.GradientTransformation:
        plain = problem.recipe.optimizer(hyper)
        known = {"inner": plain, "prunable": problem.prunable, "rate": rate(hyper)}
        known |= {"alpha": alpha, "key": hyper.key}
        return make_part(INNERS[inner], known) if inner else plain

    def sparsify(
        inner: optax.GradientTransformation, mask: Mask, fill: Params | None, hyper: SparseHyper
    ) -> optax.GradientTransformationExtraArgs:
        del inner, fill
        known = {**hyper._asdict(), "inner": inner_of(hyper), "mask": mask, "every": every}
        known |= {"prunable": problem.prunable, "floor": floor, "steps": problem.steps}
        return with_history(make_part(method.make, known), problem.prunable)

    return problem.with_recipe(
        sparsify=sparsify,
        moves=Moves(every, problem.recipe.batch_size) if method.plan is not None else None,
        steps=None if packed is None else _sparse_steps(method, problem, inner_of, packed),
    )


def _sparse_steps(
    method: Method,
    problem: Problem,
    inner_of: Callable[[SparseHyper], optax.GradientTransformation],
    mask: Mask,
) -> Steps:
    packed = packed_runs.steps_in(
        packed_runs.nets_of(problem, mask, keeps_counts(method)), inner_of
    )

    def steps(
        hyper: SparseHyper, key: Key, state: TrainState, batches: PyTree, fetch: Fetch
    ) -> tuple[TrainState, Metrics]:
        history = state.opt_state  # which only moves change
        state, metrics = packed(hyper, key, state._replace(opt_state=history.inner), batches, fetch)
        return state._replace(opt_state=history._replace(inner=state.opt_state)), metrics

    return steps
