"""AC/DC: phases of a dense and of a sparse net alternate in one training.

All weights train at first; then the net is cut to the largest |w| over all leaves, trains sparsely,
is made dense again, with the weights that return at zero, and so on; the last phase is sparse.
Peste et al., "AC/DC: alternating compressed/decompressed training of deep neural networks", 2021.
Its ResNet-20 on CIFAR-10 is cut at epochs 10, 50, 90, 130 and 170 of 200, and dense again at 30,
70, 110 and 150.
"""

import numpy as np
import optax

from jaxtickets.dynamic.drop_and_grow import MovePlan, drop_and_grow
from jaxtickets.types import Mask, Prunable

FIRST, PERIOD = 0.05, 0.1
"""The share of training before the first cut, and that of a phase."""


def plan(
    moves: int,
    begin: int,
    end: int,
    floor: int = 0,
    first: float = FIRST,
    period: float = PERIOD,
) -> MovePlan:
    """The counts of each move: `end` in sparse phases, `begin` in dense ones.

    Args:
      moves: the number of moves.
      begin: the number of all weights.
      end: how many of them a sparse phase keeps.
      floor: ignored; floors are `acdc`'s.
      first: the share of training before the first cut, a move at least.
      period: the share of training of a phase, a move at least; the last sparse one lasts until the
        end if less than two phases are left.

    Raises:
      ValueError: an argument is out of range.

    >>> plan(moves=10, begin=100, end=10).ones.tolist()
    [10, 100, 10, 100, 10, 100, 10, 100, 10, 10]
    """
    del floor
    if not 0 < end <= begin:
        raise ValueError(f"begin={begin}, end={end}: must be 0 < end <= begin")
    for name, share in (("first", first), ("period", period)):
        if not 0 < share < 1:
            raise ValueError(f"{name}={share}: must be above 0 and below 1")
    first, period = max(first, 1 / moves), max(period, 1 / moves)
    t = np.arange(1, moves + 1) / moves
    phase = np.floor((t - first) / period + 1e-9).astype(int)  # negative before the first cut
    last = 1 - first - phase * period < 2 * period - 1e-9
    sparse = (phase >= 0) & ((phase % 2 == 0) | last)
    ones = np.where(sparse, end, begin).astype(np.int32)
    return MovePlan(ones, np.zeros_like(ones))


def acdc(
    inner: optax.GradientTransformation,
    mask: Mask,
    prunable: Prunable,
    moves: MovePlan,
    every: int,
    floor: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """AC/DC's sparse optimiser; see `drop_and_grow`. `mask` keeps all weights at first.

    Raises:
      ValueError: see `drop_and_grow`.

    >>> moves = MovePlan(ones=np.array([2, 4]), replaced=np.array([0, 0]))  # of four weights
    >>> params = {"w": jnp.array([1.0, -2.0, 3.0, 4.0])}
    >>> optimizer = acdc(optax.sgd(0.1), {"w": np.ones(4, bool)}, ("w",), moves, every=100)
    >>> _, sparse = optimizer.update(params, optimizer.init(params), params, move=True)
    >>> _, dense = optimizer.update(params, sparse, params, move=True)
    >>> sparse.mask["w"].tolist(), dense.mask["w"].tolist()
    ([False, False, True, True], [True, True, True, True])
    """
    return drop_and_grow(inner, mask, prunable, moves, every, floor=floor)
