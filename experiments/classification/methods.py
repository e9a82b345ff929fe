"""The Bayesian methods that are compared, and their settings."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

from experiments.harness.named_parts import make_part
from experiments.harness.settings import MOST_FACTOR, option
from jaxtickets.gates import Gate, Setting, bayes_by_backprop, mean_field, moped, priors
from jaxtickets.gates.mean_field import Score
from jaxtickets.gates.priors import Prior
from jaxtickets.types import Prunable

DENSE = "dense"
"""The deterministic net."""


class Method(NamedTuple):
    """A Bayesian method.

    Attributes:
      gate: the gate's constructor.
      warm: whether it starts from a trained dense net.
      score: what ranks the weights of its posterior, a name in `mean_field.SCORES`.
    """

    gate: Callable[..., Gate]
    warm: bool
    score: str


METHODS = {
    "bayes_by_backprop": Method(bayes_by_backprop.gate, False, "signal_to_noise"),
    "moped": Method(moped.gate, True, "magnitude"),
}


@dataclasses.dataclass(frozen=True)
class BayesSettings:
    """How Bayesian nets are trained. Each field is also a flag of the same name."""

    methods: tuple = option(tuple(METHODS), "Bayesian methods beside the dense net", tuple(METHODS))
    prior: str = option("gaussian", "prior of bayes_by_backprop", ("gaussian", "scale_mixture"))
    prior_width: float = option(
        1.0, "standard deviation of the Gaussian prior", above=0, most=MOST_FACTOR
    )
    prior_pi: float = option(
        0.5, "weight of the first component of the mixture prior", above=0, below=1
    )
    prior_widths: tuple = option(
        (priors.SIGMA1[0], round(priors.SIGMA2[0], 6)),
        "standard deviations of the two components of the mixture prior",
        above=0,
        most=MOST_FACTOR,
    )
    kl_weight: float = option(
        1.0,
        "weight of the divergence from the prior; 1: Bayes' rule, less: a tempered posterior",
        least=0,
        most=MOST_FACTOR,
    )
    deviation: float = option(
        0.01, "first standard deviation of bayes_by_backprop", above=0, most=MOST_FACTOR
    )
    delta: float = option(
        0.1, "first standard deviation of moped, in sizes of the weight", above=0, most=MOST_FACTOR
    )
    deviation_rate: float = option(
        10.0,
        "learning rate of standard deviations, as a multiple of --learning_rate",
        least=0,
        most=MOST_FACTOR,
    )
    sampling: str = option(
        mean_field.WEIGHTS,
        "what a training step draws: weights, once for a batch, or local, the products of each "
        "image",
        mean_field.SAMPLING,
    )


def prior_of(settings: BayesSettings) -> Prior:
    """The prior of each weight.

    Raises:
      ValueError: there aren't two widths of the mixture's components.
    """
    return PRIORS[settings.prior](settings)


def _mixture(settings: BayesSettings) -> Prior:
    if len(settings.prior_widths) != 2:
        raise ValueError(f"prior_widths: {len(settings.prior_widths)} given, must be two")
    first, second = settings.prior_widths
    return priors.scale_mixture(settings.prior_pi, first, second)


PRIORS: Mapping[str, Callable[[BayesSettings], Prior]] = {
    "gaussian": lambda settings: priors.gaussian(settings.prior_width),
    "scale_mixture": _mixture,
}


def gate_of(method: Method, settings: BayesSettings, prunable: Prunable, setting: Setting) -> Gate:
    """The gate of a method. Its own hard mask keeps all weights.

    Args:
      method: the method.
      settings: prior, first deviations and sampling.
      prunable: the leaves that are pruned.
      setting: see `gates.Setting`.
    """
    known = {
        "prunable": prunable,
        "keep": None,
        "floor": 0,
        "setting": setting,
        "prior": prior_of(settings),
        "width": settings.prior_width,
        "deviation": settings.deviation,
        "delta": settings.delta,
        "sampling": settings.sampling,
    }
    return make_part(method.gate, known)


def score_of(method: Method | None) -> Score:
    """What ranks the weights of a method's posterior; of the dense net (None), their size."""
    return mean_field.SCORES[method.score if method else "magnitude"]
