"""Training steps that skip zeros, for sparse multilayer perceptrons; see `packed_training`."""

from collections.abc import Callable, Sequence

import optax

from experiments.harness.problem import Problem
from experiments.harness.settings import option
from jaxtickets import masks
from jaxtickets.compress import packed_training
from jaxtickets.compress.packed_training import PackedNet
from jaxtickets.io.errors import UserError
from jaxtickets.training import Fetch, Metrics, Steps
from jaxtickets.types import Key, Mask, PyTree, TrainState

EXECUTIONS = ("dense", "sparse")


def execution(words: str) -> str:
    """The option of how training steps are computed; `words` say of which."""
    return option("dense", f"{words}: of masked dense products, or of sparse ones", EXECUTIONS)


def layers_of(problem: Problem) -> list[str]:
    """The layers of a multilayer perceptron, in forward order."""
    return [group.name for group in problem.wiring] + [problem.wiring[-1].consumers[0].layer]


def check_perceptron(problem: Problem) -> None:
    """Raises UserError unless the net is a multilayer perceptron, trained without extras."""
    params = problem.param_shapes
    flat = all(leaf.ndim == 2 for leaf in masks.pick(params, problem.prunable))
    if not problem.wiring or not flat or sorted(params) != sorted(layers_of(problem)):
        raise UserError("--execution=sparse: the net must be dense layers alone, such as mlp")
    if problem.penalty is not None:
        raise UserError("--execution=sparse: takes no --penalty")
    if problem.recipe.average:
        raise UserError("--execution=sparse: takes no --ema")
    if problem.recipe.parts > 1:
        raise UserError("--execution=sparse: takes no --accumulate")


def nets_of(problem: Problem, mask: Mask, counts_stay: bool = False) -> tuple[PackedNet, ...]:
    """The packed nets of a problem's masks.

    Args:
      problem: see `check_perceptron`.
      mask: like the parameters.
      counts_stay: whether all masks keep as many weights of each layer as `mask`; if not, each is
        trained in the smallest net with room for it.
    """
    model, layers = problem.recipe.model, layers_of(problem)

    if counts_stay:
        return (packed_training.packed_net(model, layers, problem.loss_of, mask),)
    return packed_training.packed_nets(model, layers, problem.loss_of, mask)


def steps_in(
    nets: Sequence[PackedNet], inner_of: Callable[[PyTree], optax.GradientTransformation]
) -> Steps:
    """Training steps in the first of the nets that has room for the state's mask.

    Args:
      nets: see `nets_of`.
      inner_of: hyperparameters -> the optimiser within the sparse one.
    """

    def steps(
        hyper: PyTree, key: Key, state: TrainState, batches: PyTree, fetch: Fetch
    ) -> tuple[TrainState, Metrics]:
        return packed_training.advance_in(nets, inner_of(hyper), key, state, batches, fetch)

    return steps


def executed(problem: Problem, execution: str) -> Problem:
    """The problem with its training steps computed in a way of `EXECUTIONS`.

    Raises:
      UserError: see `check_perceptron`.
    """
    if execution == "dense":
        return problem
    check_perceptron(problem)
    nets = nets_of(problem, problem.param_shapes)
    return problem.with_recipe(steps=steps_in(nets, problem.recipe.optimizer))
