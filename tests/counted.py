"""A problem whose net counts the images that pass through it."""

import jax

from experiments.harness.problem import Problem
from jaxtickets import losses


def counted(problem: Problem, passed: list[int]) -> Problem:
    """The problem with a net that tells `passed` the images of each call.

    What is differentiated counts three times; all such calls are in training mode but SNIP's.
    """
    plain = problem.recipe.model

    def apply(params, stats, images, key=None, train=False):
        worth = images.shape[0] * (3 if train else 1)
        jax.debug.callback(lambda: passed.append(worth))
        return plain.apply(params, stats, images, key, train)

    model = plain._replace(apply=apply)
    return problem.with_recipe(
        model=model, loss=losses.classification(model, problem.recipe.prepare)
    )
