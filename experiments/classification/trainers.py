"""How the runs of a method are trained, with one interface for deterministic and Bayesian nets."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.classification.methods import METHODS, BayesSettings, gate_of
from experiments.harness.problem import Problem, optimizer_of
from experiments.harness.training_runs import Start
from experiments.harness.training_settings import TrainSettings
from jaxtickets import gates
from jaxtickets.gates import Setting
from jaxtickets.optimizers import Hyper
from jaxtickets.recipes import bayesian
from jaxtickets.types import Gaussian, Key, Mask, Params, PyTree, Stats


class Net(NamedTuple):
    """What trains, and its statistics, as `training` sees them: one net, or several stacked.

    Attributes:
      trained: the parameters, or a gate's `Joint`.
      stats: the statistics, or a gate's `GatedStats`.
    """

    trained: PyTree
    stats: PyTree


class Trainer(NamedTuple):
    """How a method's runs are trained. All functions are of one run, traced.

    Attributes:
      problem: the net and its training.
      begin: `begin(gate_key, params, stats) -> Net`: from the weights of a net; key consumed.
      start: `start(key, hyper, net, mask) -> Start`: the training of a net under a mask over the
        weights.
      posterior: `posterior(net) -> (Gaussian, stats)`; the variances of a deterministic net are 0.
      samples: the number of nets that a prediction draws.
    """

    problem: Problem
    begin: Callable[[Key, Params, Stats], Net]
    start: Callable[[Key, Hyper, Net, Mask], Start]
    posterior: Callable[[Net], tuple[Gaussian, Stats]]
    samples: int


def deterministic(problem: Problem) -> Trainer:
    """The trainer of the net itself."""

    def begin(gate_key: Key, params: Params, stats: Stats) -> Net:
        del gate_key
        return Net(params, stats)

    def start(key: Key, hyper: Hyper, net: Net, mask: Mask) -> Start:
        return Start(key, hyper, net.trained, net.stats, mask)

    def posterior(net: Net) -> tuple[Gaussian, Stats]:
        return Gaussian(net.trained, jax.tree.map(jnp.zeros_like, net.trained)), net.stats

    return Trainer(problem, begin, start, posterior, samples=1)


def of_method(
    name: str, problem: Problem, train: TrainSettings, settings: BayesSettings, samples: int
) -> Trainer:
    """The trainer of a Bayesian method. Its prior takes the place of weight decay.

    Args:
      name: of the method.
      problem: the net and its training.
      train: the settings that the problem was built from.
      settings: prior, first deviations and sampling.
      samples: the number of nets that a prediction draws.
    """
    setting = Setting(problem.steps, len(problem.dataset.train.labels))
    gate = gate_of(METHODS[name], settings, problem.prunable, setting)
    plain = optimizer_of(dataclasses.replace(train, weight_decay=0.0), problem.steps)

    def deviations(hyper: Hyper) -> optax.GradientTransformation:
        return plain(hyper._replace(rate=hyper.rate * settings.deviation_rate))

    recipe = problem.recipe._replace(optimizer=plain)
    gated = problem._replace(recipe=gates.recipe(gate, recipe, deviations))

    def begin(gate_key: Key, params: Params, stats: Stats) -> Net:
        return Net(*gates.start(gate, gate_key, params, stats, strength=settings.kl_weight))

    def posterior(net: Net) -> tuple[Gaussian, Stats]:
        return bayesian.posterior(net.trained), net.stats.net

    return Trainer(gated, begin, masked_start, posterior, samples)


def masked_start(key: Key, hyper: Hyper, net: Net, mask: Mask) -> Start:
    """The training of a Bayesian net under a mask over the weights, see `bayesian.transplant`."""
    over, fill = bayesian.transplant(mask, net.trained)
    return Start(key, hyper, net.trained, net.stats, over, fill=fill)
