"""What the rules of neuron fusion look at, and what they return.

A net's fusion has two parts. A rule of `which` says which units of a layer stay, and into which of
these the others are fused. A rule of `how` says what becomes of their weights.
"""

from typing import NamedTuple, Protocol

import numpy as np

from jaxtickets.types import Key


class Layer(NamedTuple):
    """What a rule knows of a layer's units, in float64. Batch norm is folded into the weights.

    Unit i computes `relu(weights[i] · x + bias[i])`.

    Attributes:
      weights: float`[units, inputs]`, the incoming weights.
      bias: float`[units]`.
      outgoing: float`[units, weights]`, the weights of all layers that read the unit.
      norm: whether a batch norm is folded in.
      gram: float`[units, units]`, the mean products of the units' outputs over data (`grams`); None
        for rules that need no data.
    """

    weights: np.ndarray
    bias: np.ndarray
    outgoing: np.ndarray
    norm: bool
    gram: np.ndarray | None = None

    @property
    def rows(self) -> np.ndarray:
        """float`[units, inputs + 1]`: the incoming weights and the bias."""
        return np.concatenate([self.weights, self.bias[:, None]], 1)


class Partners(NamedTuple):
    """Which units stay, and where the others go.

    Attributes:
      kept: bool`[units]`.
      share: float`[units, units]`: the share of unit i that is fused into the kept unit k. The row
        of a kept unit is 1 at itself. That of a removed unit sums to 1, or to 0 if no kept unit is
        similar enough.
    """

    kept: np.ndarray
    share: np.ndarray


class Combination(NamedTuple):
    """What becomes of the weights of a layer's units; columns of removed units are zero.

    Attributes:
      incoming: float`[units, units]`: unit k's incoming weights (with folded batch norm) become
        `Σ_i incoming[i, k] · weights[i]`, its bias likewise.
      outgoing: float`[units, units]`: its outgoing weights become
        `Σ_i outgoing[i, k]` times those of unit i.
    """

    incoming: np.ndarray
    outgoing: np.ndarray


class Choose(Protocol):
    """`choose(key, layer, keep, least_cosine) -> partners`."""

    def __call__(self, key: Key, layer: Layer, keep: int, least_cosine: float) -> Partners:
        """Keeps `keep` units; the key is consumed by rules that draw.

        A removed unit whose partner's cosine is below `least_cosine` is fused into none.
        """
        ...


class Combine(Protocol):
    """`combine(layer, partners) -> combination`."""

    def __call__(self, layer: Layer, partners: Partners) -> Combination:
        """The new weights of the kept units."""
        ...


class Which(NamedTuple):
    """A rule that says which units are fused.

    Attributes:
      choose: the rule.
      needs_data: whether it reads `Layer.gram`.
      divides: whether a removed unit may be divided among several, so that a unit equal to a kept
        one is fused into it only nearly.
    """

    choose: Choose
    needs_data: bool = False
    divides: bool = False


class How(NamedTuple):
    """A rule that says how units are fused.

    Attributes:
      combine: the rule.
      needs_data: whether it reads `Layer.gram`.
      needs_partners: whether it depends on the partners, or on the kept units alone.
    """

    combine: Combine
    needs_data: bool = False
    needs_partners: bool = True
