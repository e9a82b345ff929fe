"""Linear interpolation between two nets: the error along the line, and the barrier.

Frankle et al., "Linear mode connectivity and the lottery ticket hypothesis", 2020.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxtickets import masks, training
from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array, Model, Params, PyTree, Split, Stats


def line(a: PyTree, b: PyTree, alpha: Array) -> PyTree:
    """`(1 − α) a + α b`, leaf by leaf; exactly `a` at 0 and `b` at 1.

    Raises:
      ValueError: `b` is not like `a`, or α is not a scalar.

    >>> line({"w": np.array([0.0, 4.0])}, {"w": np.array([4.0, 4.0])}, 0.25)["w"].tolist()
    [1.0, 4.0]
    """
    masks.check_like(b, a, "the line's end", "its begin")
    check_array("alpha", alpha, ())

    def between(x: Array, y: Array) -> Array:
        middle = (1 - alpha) * x + alpha * y
        return jnp.where(alpha == 0, x, jnp.where(alpha == 1, y, middle))

    return jax.tree.map(between, a, b)


def errors(
    model: Model,
    prepare: Callable[[Array], Array],
    a: tuple[Params, Stats],
    b: tuple[Params, Stats],
    split: Split,
    alphas: Array,
) -> jax.Array:
    """float`[points]`: the error rates on `split` of the nets along the line, in evaluation mode.

    Batch statistics are interpolated like parameters, not recomputed at each point.

    Args:
      model, prepare: the net, and the normalisation of its images.
      a, b: the parameters and statistics of the two ends.
      split: images and labels.
      alphas: float`[points]`, 0 at `a` and 1 at `b`.

    >>> net = Model(None, lambda params, stats, images: (images * params["w"], stats))
    >>> split = Split(jnp.eye(2), jnp.array([0, 1]))
    >>> a, b = ({"w": jnp.float32(1)}, {}), ({"w": jnp.float32(-1)}, {})
    >>> errors(net, lambda images: images, a, b, split, jnp.array([0.0, 1.0])).tolist()
    [0.0, 1.0]
    """

    check_array("the alphas", alphas, ("points",), float)

    def error(alpha: Array) -> Array:
        params, stats = line(a, b, alpha)
        return 1 - training.evaluate(model, prepare, params, stats, split)["accuracy"]

    return lax.map(error, alphas)


def barrier(errors: Array) -> jax.Array:
    """The highest error on the line minus the mean error of its ends: the instability, section 2.

    Nets are considered linearly connected if it is below 0.02.

    Args:
      errors: float`[..., points]`, with the ends first and last.

    Returns:
      float`[...]`.

    Raises:
      ValueError: there are fewer than two points.

    >>> round(float(barrier(np.array([0.02, 0.50, 0.04]))), 3)
    0.47
    """
    if jnp.ndim(errors) == 0 or jnp.shape(errors)[-1] < 2:
        raise ValueError(f"the errors: the shape is {jnp.shape(errors)}, two points are needed")
    return jnp.max(errors, axis=-1) - (errors[..., 0] + errors[..., -1]) / 2
