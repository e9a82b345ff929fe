"""FlipOut: the weights that often change their sign are pruned first.

After each training step, the flips of each weight's sign are counted. A move keeps, over all
leaves together, the weights with the largest `|w|^p / (flips + 1)`, p = 2. Noise in the gradient,
scaled to that of its leaf, makes weights near zero flip:

    g <- g + λ · ||g||₂ / sqrt(n) · ε,  ε ~ N(0, 1),

with n the number of kept weights of the leaf. Apostol et al., "FlipOut: uncovering redundant
weights via sign flipping", 2020: λ = 1, half of the kept weights go at each move. Counters are
never reset. With `power=0`, flips alone rank the weights; ties go by |w| then, in place of their
order.

Deviation: noise is added to prunable leaves alone; the paper's code adds it to biases and norms,
too, unless they are excluded.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtickets import masks
from jaxtickets.dynamic.base import View
from jaxtickets.dynamic.drop_and_grow import MovePlan, drop_and_grow
from jaxtickets.types import Array, Key, Mask, Params, Prunable, PyTree, Scores

POWER, NOISE, CUTS, LAST_CUT = 2.0, 1.0, 5, 0.8


def plan(
    moves: int, begin: int, end: int, floor: int = 0, cuts: int = CUTS, last_cut: float = LAST_CUT
) -> MovePlan:
    """The counts of each move: cuts by the same factor, at equal distances.

    Args:
      moves: the number of moves, at least that of cuts.
      begin, end: the number of kept weights before the first cut and after the last.
      floor: ignored; floors are `flipout`'s.
      cuts: how many cuts.
      last_cut: the share of the moves until the last cut.

    Raises:
      ValueError: an argument is out of range.

    >>> plan(moves=10, begin=320, end=10).ones.tolist()
    [320, 160, 160, 80, 40, 40, 20, 10, 10, 10]
    """
    del floor
    if not 0 < end <= begin or not 0 < last_cut <= 1:
        raise ValueError(
            f"begin={begin}, end={end}, last_cut={last_cut}: must be 0 < end <= begin, "
            "0 < last_cut <= 1"
        )
    if not 1 <= cuts <= last_cut * moves:
        raise ValueError(f"cuts={cuts}: must be from 1 to {int(last_cut * moves)}, the moves")
    t = np.arange(1, moves + 1) / moves
    made = np.minimum(np.floor(t / last_cut * cuts + 1e-9), cuts)
    ones = np.round(begin * (end / begin) ** (made / cuts)).astype(np.int32)
    return MovePlan(ones, np.zeros_like(ones))


def flipout(
    inner: optax.GradientTransformation,
    mask: Mask,
    prunable: Prunable,
    moves: MovePlan,
    every: int,
    key: Key,
    floor: int = 0,
    power: float = POWER,
    noise: float = NOISE,
) -> optax.GradientTransformationExtraArgs:
    """FlipOut's sparse optimiser; see `drop_and_grow`.

    The number of flips of each weight is `state.method.memory`, int32, like the parameters.

    Args:
      inner, mask, prunable, moves, every, key, floor: see `drop_and_grow`.
      power: p, the exponent of |w|, 0 or more.
      noise: λ, 0 for none.

    Raises:
      ValueError: see `drop_and_grow`, or `power` or `noise` is negative.

    >>> params, gradient = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([0.0, 8.0])}
    >>> mask, moves = {"w": np.ones(2, bool)}, MovePlan(ones=np.array([1]), replaced=np.array([0]))
    >>> key = jax.random.key(0)
    >>> optimizer = flipout(optax.sgd(1.0), mask, ("w",), moves, every=100, key=key, noise=0.0)
    >>> updates, state = optimizer.update(gradient, optimizer.init(params), params, move=False)
    >>> params = optax.apply_updates(params, updates)  # 3 and -4, which flipped
    >>> _, state = optimizer.update(gradient, state, params, move=True)
    >>> state.mask["w"].tolist()  # 3² > 4² / 2
    [True, False]
    """
    for name, value in (("power", power), ("noise", noise)):
        if not value >= 0:
            raise ValueError(f"{name}={value}: must be 0 or more")

    def before(view: View) -> Params:
        return with_noise(view, prunable, noise) if noise else view.gradient

    def after(view: View, params: Params) -> tuple[Params, Mask, PyTree]:
        flips = count_flips(view.method.memory, view.params, params)
        return params, view.mask, view.method._replace(memory=flips)

    def drop(view: View) -> Scores:
        return saliency(view.params, view.method.memory, power)

    return drop_and_grow(
        inner,
        mask,
        prunable,
        moves,
        every,
        drop=drop,
        floor=floor,
        key=key,
        before=before,
        after=after,
        memory=no_flips(mask),
    )


def no_flips(params: PyTree) -> PyTree:
    """Counters at zero: int32, like the parameters.

    >>> no_flips({"w": np.ones(3)})["w"].tolist()
    [0, 0, 0]
    """
    return jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), jnp.int32), params)


def count_flips(flips: PyTree, before: Params, after: Params) -> PyTree:
    """The counters after a step: one more where the sign changed; zero has no sign.

    Args:
      flips: int32, like the parameters; the counters so far.
      before, after: the parameters before and after the step.

    >>> before, after = {"w": np.array([1.0, 1.0, 0.0])}, {"w": np.array([-1.0, 2.0, 1.0])}
    >>> count_flips({"w": np.array([5, 5, 5])}, before, after)["w"].tolist()
    [6, 5, 5]
    """
    return jax.tree.map(
        lambda count, old, new: count + (jnp.sign(old) * jnp.sign(new) < 0), flips, before, after
    )


def saliency(params: Params, flips: PyTree, power: float = POWER) -> Scores:
    """`|w|^power / (flips + 1)`; with `power` 0, `1 / (flips + 1)`, and ties are ordered by |w|.

    Args:
      params: float.
      flips: int32, like the parameters.
      power: 0 or more.

    >>> saliency({"w": np.array([3.0, -4.0])}, {"w": np.array([0, 1])})["w"].tolist()
    [9.0, 8.0]
    """

    def leaf(w: Array, count: Array) -> Array:
        if power:
            return jnp.abs(w) ** power / (count + 1)
        size = jnp.abs(w)
        return size / (1 + size) - count  # from -count to below 1 - count

    return jax.tree.map(leaf, params, flips)


def with_noise(view: View, prunable: Prunable, scale: float) -> Params:
    """The gradient with noise in the kept weights of the prunable leaves; see above.

    >>> gradient, key = {"w": jnp.full(10_000, 2.0)}, jax.random.key(0)
    >>> view = View(gradient, gradient, {"w": np.ones(10_000, bool)}, (), (), 0, key)
    >>> round(float(with_noise(view, ("w",), scale=0.5)["w"].std()), 1)  # 0.5 of 2
    1.0
    """
    key, noisy = view.random(), []
    leaves = zip(masks.pick(view.gradient, prunable), masks.pick(view.mask, prunable), strict=True)
    for i, (g, keep) in enumerate(leaves):
        kept = jnp.where(keep, g, 0)
        spread = jnp.sqrt(jnp.sum(kept * kept) / jnp.maximum(jnp.sum(keep), 1))
        drawn = jax.random.normal(jax.random.fold_in(key, i), g.shape, g.dtype)
        noisy.append(g + scale * spread * drawn)
    return masks.put(view.gradient, prunable, noisy)
