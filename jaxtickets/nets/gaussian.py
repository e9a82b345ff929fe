"""Local reparametrisation for any net: Gaussian weights that are sampled where they are used.

A product y = x W of an activation with independent Gaussian weights, W_ij ~ N(M_ij, V_ij), is
Gaussian given x, and `local` draws y in the place of W:

    y_bj = m_bj + sqrt(v_bj) ε_bj,    m = x M,    v = x² V,    ε ~ N(0, 1).

Each example thus has noise of its own, and the gradient has less variance than with one draw of W
for all examples. Kingma, Salimans and Welling, "Variational dropout and the local
reparameterization trick", 2015, section 2.3. No layer needs a rule: the jaxpr of the net is
interpreted, and the mean and the variance of a weight move together until a product reads them.

What is drawn is exact for each entry of a product's output, whose entries are drawn independently.
True entries are dependent where they read the same weights: those of one output unit at several
positions of a convolution, at several examples, or in several products that share a leaf. The paper
and its successors ignore this too.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from jaxtickets import masks
from jaxtickets.nets.element_moves import MOVES, called_by, opened, scan_counts
from jaxtickets.types import Array, Gaussian, Key, Loss, Model, Params, PyTree, Stats

Result = TypeVar("Result")


def local(model: Model) -> Model:
    """The net, whose parameters may also be a `Gaussian`; plain parameters pass through unchanged.

    With a `Gaussian`, in either mode, `apply` consumes its key, which must not be None.

    - A matrix product or a convolution of a weight with an activation is drawn at its output.
    - Any other use of a leaf, such as a bias that is added, the scale of a norm, a depthwise kernel
      as a sum of scaled slices, a lookup, or a loop that carries a state, reads one draw of the
      leaf; all such uses read the same draw.
    - Between leaf and product, operations may move the elements but not repeat them, since
      repeated elements are not independent: they count as another use.

    Where a variance is zero, a weight is its mean: with all variances zero each operation has, bit
    for bit, the result that it has in the plain net with the key `jax.random.split(key, 3)[0]`.
    There, gradients with respect to the variance are 0 instead of infinite.

    Args:
      model: any net; `model.apply` is traced once in each call.

    Raises:
      ValueError: from `apply`, if there is no key for a `Gaussian`, or if mean and variance are not
        alike.

    >>> from jaxtickets.nets import functional_plain
    >>> kernel = {"w": jnp.ones((2, 1))}
    >>> net = local(functional_plain(lambda params, x: x @ params["w"], kernel))
    >>> same = jnp.ones((2, 2))
    >>> net.apply(kernel, {}, same)[0].tolist()
    [[2.0], [2.0]]
    >>> noisy, _ = net.apply(Gaussian(mean=kernel, variance=kernel), {}, same, jax.random.key(0))
    >>> bool(noisy[0, 0] == noisy[1, 0])
    False
    """

    def apply(
        params: Params | Gaussian,
        stats: Stats,
        images: Array,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, Stats]:
        if not isinstance(params, Gaussian):
            return model.apply(params, stats, images, key, train)
        if key is None:
            raise ValueError("Gaussian weights are sampled: apply needs a key")

        def plain(params: Params, key: Key) -> tuple[jax.Array, Stats]:
            return model.apply(params, stats, images, key, train)

        return _applied(plain, params, key, _Uses(set(), set()))

    return Model(model.init, apply)


def local_loss(loss: Loss) -> Loss:
    """The loss, whose parameters may also be a `Gaussian`, as those of the net in `local`.

    Args:
      loss: any training loss, of a net as it is.

    >>> kernel = {"w": jnp.ones((2, 1))}
    >>> of_batch = lambda params, stats, batch, key: (jnp.var(batch @ params["w"]), (stats, {}))
    >>> loss, same = local_loss(of_batch), jnp.ones((2, 2))
    >>> float(loss(kernel, (), same, jax.random.key(0))[0])
    0.0
    >>> noisy = Gaussian(mean=kernel, variance=kernel)
    >>> float(loss(noisy, (), same, jax.random.key(0))[0]) > 0  # each example has its own noise
    True
    """

    def of_gaussian(
        params: Params | Gaussian, stats: Stats, batch: PyTree, key: Key
    ) -> tuple[jax.Array, tuple[Stats, dict[str, jax.Array]]]:
        if not isinstance(params, Gaussian):
            return loss(params, stats, batch, key)

        def plain(params: Params, key: Key) -> tuple[jax.Array, tuple[Stats, dict[str, jax.Array]]]:
            return loss(params, stats, batch, key)

        return _applied(plain, params, key, _Uses(set(), set()))

    return of_gaussian


PASSES = 3
"""What Gaussian weights add to a training step, in forward passes of its examples: the products of
variances, forward and backward."""


def local_leaves(
    model: Model, params: Params, stats: Stats, images: Array, train: bool = True
) -> tuple[str, ...]:
    """The sorted paths of the leaves that `local` draws at the outputs of products only.

    Nothing is computed.

    Args:
      model: the net.
      params, stats, images: arguments of `model.apply`, or their shapes.
      train: the mode.

    >>> from jaxtickets.nets import functional_plain
    >>> params = {"w": jnp.ones((2, 1)), "b": jnp.zeros((1, 1))}
    >>> net = functional_plain(lambda params, x: x @ params["w"] + params["b"], params)
    >>> local_leaves(net, params, {}, jnp.ones((1, 2)))
    ('w',)
    """
    uses = _Uses(set(), set())

    def trace(params: Params, stats: Stats, images: Array) -> tuple[jax.Array, Stats]:
        def plain(params: Params, key: Key) -> tuple[jax.Array, Stats]:
            return model.apply(params, stats, images, key, train)

        return _applied(plain, Gaussian(params, params), jax.random.key(0), uses)

    jax.eval_shape(trace, params, stats, images)
    return tuple(sorted(uses.products - uses.draws))


class _Weight(NamedTuple):
    """Weights, possibly after operations that move their elements.

    Attributes:
      mean, variance: of each element; the elements are independent.
      draw: one draw of the elements, the same wherever a leaf is read.
      leaves: the paths of the leaves that the elements come from.
    """

    mean: Array
    variance: Array
    draw: Array
    leaves: frozenset[str]


class _Uses(NamedTuple):
    """The results that a walk over a jaxpr accumulates.

    Attributes:
      products: the paths of leaves that a product reads.
      draws: the paths of leaves of which a draw is read.
    """

    products: set[str]
    draws: set[str]

    def drawn(self, value: Any) -> Array:
        """The draw of a weight; other values do not change."""
        if not isinstance(value, _Weight):
            return value
        self.draws.update(value.leaves)
        return value.draw


def _applied(
    function: Callable[[Params, Key], Result], params: Gaussian, key: Key, uses: _Uses
) -> Result:
    """`function(params, key)` with Gaussian weights; the key is consumed."""
    masks.check_like(params.variance, params.mean, "the variances", "the means")
    net_key, draw_key, product_key = jax.random.split(key, 3)
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(params.mean, net_key)
    means, variances = jax.tree.leaves(params.mean), jax.tree.leaves(params.variance)
    keys = jax.random.split(draw_key, max(1, len(means)))
    leaves = zip(masks.paths(params.mean), means, variances, keys, strict=False)
    weights = [
        _Weight(mean, variance, _draw(key, mean, variance), frozenset({path}))
        for path, mean, variance, key in leaves
    ]
    outputs = _walk(closed, [*weights, net_key], product_key, uses)
    drawn = [uses.drawn(x) for x in outputs]
    result: Result = jax.tree.unflatten(jax.tree.structure(shapes), drawn)
    return result


def _draw(key: Key, mean: Array, variance: Array) -> jax.Array:
    """A draw from N(mean, variance); the mean where the variance is 0; the key is consumed."""
    noisy = variance > 0
    std = jnp.sqrt(jnp.where(noisy, variance, 1))  # sqrt has no finite slope at 0
    noise = jax.random.normal(key, jnp.shape(mean), jnp.result_type(mean))
    return jnp.where(noisy, mean + std.astype(noise.dtype) * noise, mean)


def _walk(jaxpr: Jaxpr | ClosedJaxpr, inputs: Sequence[Any], key: Key, uses: _Uses) -> list[Any]:
    """The outputs of a jaxpr: arrays, or weights; equation i folds i into the key."""
    body = opened(jaxpr)
    values: dict[Any, Any] = dict(zip(body.invars, inputs, strict=True))
    if isinstance(jaxpr, ClosedJaxpr):
        values |= dict(zip(body.constvars, jaxpr.consts, strict=True))

    def of(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for number, eqn in enumerate(body.eqns):
        atoms = [of(atom) for atom in eqn.invars]
        if any(isinstance(atom, _Weight) for atom in atoms):
            outputs = _rule(eqn, atoms, jax.random.fold_in(key, number), uses, body)
        else:
            outputs = _evaluated(eqn, atoms, body)
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [of(atom) for atom in body.outvars]


def _evaluated(eqn: JaxprEqn, atoms: Sequence[Array], body: Jaxpr) -> list[Array]:
    """The outputs of an equation of `body` on arrays, as the net itself computes them."""
    read = [(var, x) for var, x in zip(eqn.invars, atoms, strict=True) if type(var) is not Literal]
    alone = body.replace(
        eqns=[eqn], invars=[var for var, _ in read], outvars=eqn.outvars, constvars=[]
    )
    return jaxpr_as_fun(ClosedJaxpr(alone, ()))(*(x for _, x in read))


def _rule(eqn: JaxprEqn, atoms: list[Any], key: Key, uses: _Uses, body: Jaxpr) -> list[Any]:
    """The outputs of an equation that reads weights; the key is consumed."""
    name = eqn.primitive.name
    called = called_by(eqn)
    if called is not None and name in INLINED:
        return _walk(called, atoms, key, uses)
    if called is not None and name in REMATERIALISED:
        return _rematerialised(eqn, called, atoms, key, uses)
    if name == "scan" and scan_counts(eqn)[1] == 0:
        return _mapped(eqn, atoms, key, uses)
    if name in MOVES and _keeps_elements_apart(eqn, atoms):
        return _moved(eqn, atoms, body)
    if name in PRODUCTS and sum(isinstance(atom, _Weight) for atom in atoms) == 1:
        return [_product(eqn, atoms, key, uses, body)]
    return _evaluated(eqn, [uses.drawn(atom) for atom in atoms], body)


PRODUCTS = {"dot_general", "conv_general_dilated"}
"""Bilinear primitives, of two arguments."""

INLINED = {"jit", "pjit", "closed_call", "core_call"}
"""Calls without a rule of their own; those with a custom derivative keep it, and read a draw."""

REMATERIALISED = {"remat", "remat2", "checkpoint"}
"""Calls whose body is computed again in the backward pass, to save memory."""


def _keeps_elements_apart(eqn: JaxprEqn, atoms: Sequence[Any]) -> bool:
    """Whether the elements of a move's output are distinct weights, and numbers of float type."""
    outputs: list[Any] = [var.aval for var in eqn.outvars]
    if not all(jnp.issubdtype(output.dtype, jnp.floating) for output in outputs):
        return False
    if eqn.primitive.name == "pad":
        return not isinstance(atoms[1], _Weight)
    leaves = [atom.leaves for atom in atoms if isinstance(atom, _Weight)]
    if len(frozenset().union(*leaves)) < sum(map(len, leaves)):
        return False  # two parts of one leaf, which may overlap
    return sum(output.size for output in outputs) <= sum(jnp.size(_mean(x)) for x in atoms)


def _moved(eqn: JaxprEqn, atoms: Sequence[Any], body: Jaxpr) -> list[_Weight]:
    """Moves means, variances and draws alike; a value without variance has the variance 0."""
    weights = [atom for atom in atoms if isinstance(atom, _Weight)]
    leaves = frozenset().union(*(w.leaves for w in weights))
    means = _evaluated(eqn, [_mean(atom) for atom in atoms], body)
    variances = _evaluated(
        eqn, [x.variance if isinstance(x, _Weight) else jnp.zeros_like(x) for x in atoms], body
    )
    draws = _evaluated(eqn, [x.draw if isinstance(x, _Weight) else x for x in atoms], body)
    parts = zip(means, variances, draws, strict=True)
    return [_Weight(mean, variance, draw, leaves) for mean, variance, draw in parts]


def _mean(value: Any) -> Array:
    return value.mean if isinstance(value, _Weight) else value


def _product(eqn: JaxprEqn, atoms: Sequence[Any], key: Key, uses: _Uses, body: Jaxpr) -> jax.Array:
    """A draw of the product of weights with an activation; the key is consumed."""
    (mean,) = _evaluated(eqn, [_mean(atom) for atom in atoms], body)
    (variance,) = _evaluated(
        eqn, [x.variance if isinstance(x, _Weight) else x * x for x in atoms], body
    )
    for atom in atoms:
        uses.products.update(atom.leaves if isinstance(atom, _Weight) else ())
    return _draw(key, mean, variance)


def _arrays(values: Sequence[Any]) -> list[Any]:
    """Values as a PyTree of arrays, see `_values`."""
    return [x[:3] if isinstance(x, _Weight) else x for x in values]


def _values(arrays: Sequence[Any], like: Sequence[Any]) -> list[Any]:
    """The inverse of `_arrays`, with the leaves of the values `like`."""
    return [
        _Weight(x[0], x[1], x[2], y.leaves) if isinstance(y, _Weight) else x
        for x, y in zip(arrays, like, strict=True)
    ]


def _rematerialised(
    eqn: JaxprEqn, called: Jaxpr | ClosedJaxpr, atoms: Sequence[Any], key: Key, uses: _Uses
) -> list[Array]:
    """A call that is computed again in the backward pass; the key is consumed."""

    def call(key: Key, arrays: Sequence[Any]) -> list[Array]:
        outputs = _walk(called, _values(arrays, atoms), key, uses)
        return [uses.drawn(x) for x in outputs]

    again = jax.checkpoint(call, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"])
    return again(key, _arrays(atoms))


def _mapped(eqn: JaxprEqn, atoms: Sequence[Any], key: Key, uses: _Uses) -> list[Array]:
    """A scan without a carry, such as `lax.map`; step t folds t into the key, which is consumed."""
    consts, _ = scan_counts(eqn)
    fixed, stacked = atoms[:consts], atoms[consts:]

    def step(_: None, given: tuple[Array, list[Any]]) -> tuple[None, list[Array]]:
        number, rows = given
        inputs = [*fixed, *_values(rows, stacked)]
        outputs = _walk(eqn.params["jaxpr"], inputs, jax.random.fold_in(key, number), uses)
        return None, [uses.drawn(x) for x in outputs]

    length, params = eqn.params["length"], eqn.params
    each = jnp.arange(length), _arrays(stacked)
    _, outputs = lax.scan(
        step, None, each, length, reverse=params["reverse"], unroll=params["unroll"]
    )
    return outputs
