"""Fields: a search over how many weights each layer and unit keeps, not over which.

How many weights a mask keeps in each layer, of each input and of each unit decides most of its
accuracy after training; which weights these are decides little. A point of this space is a field of
a few hundred numbers: potentials of layers, of units on the input or output side of layers, and
coefficients of features of the weights. Weight i -> o of layer l has the score

    s = Σ_k mix_k · feature_k[l, i, o] + layer_l + input_l[i] + output_l[o]

and the mask keeps the highest scores, exactly as many as asked for. Every move therefore keeps the
total: raising one unit's potential takes weights from all others. With the feature `chance`,
independent Gumbel noise, the kept weights are a random draw without replacement with probabilities
proportional to exp(potential): the potentials are log densities. With the logarithm of a
criterion's scores as a feature, the potentials correct that criterion; the flat field is the
criterion itself.

A field may also rank units: unit o of group l has the score `Σ_k mix_k · feature_k[l, o] + layer_l
+ output_l[o]`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.criteria import Evidence, at_initialisation, find
from jaxtickets.search.moves import Moves, Proposal, settle
from jaxtickets.types import Array, Keep, Key, Mask, Params, Prunable, Scores

CHANCE = "chance"
SIDES = ("input", "output")
LOWEST = 1e-4
"""The smallest value of a feature before the logarithm, as a share of its layer's mean."""
Pool = Callable[[Scores], Scores]
"""`pool(scores) -> {group: float[units]}` from scores of weights, or the identity."""


class Side(NamedTuple):
    """The units on one side of a layer.

    Attributes:
      leaf: the path of the layer's kernel.
      side: `input` or `output`: the kernel's last axis but one, or its last.
      size: the number of units.
      grid: `(height, width)` if the units are pixels, so that neighbours can move together;
        channels vary fastest. `()` if units have no neighbours.
    """

    leaf: str
    side: str
    size: int
    grid: tuple[int, ...]

    @property
    def name(self) -> str:
        """The side's name in a field."""
        return f"{self.leaf} {self.side}"


class Space(NamedTuple):
    """The parts of a field.

    Attributes:
      prunable: the leaves that masks prune.
      shapes: their shapes.
      sides: the sides that have potentials.
      features: the names of the features.
    """

    prunable: Prunable
    shapes: tuple[tuple[int, ...], ...]
    sides: tuple[Side, ...]
    features: tuple[str, ...]


class Field(NamedTuple):
    """A point of the space.

    Attributes:
      layers: float32`[leaves]`, the potentials of layers.
      units: side name -> float32`[units]`, the potentials of units.
      mix: float32`[features]`, the coefficients of the features.
    """

    layers: Array
    units: dict[str, Array]
    mix: Array


def space(
    params: Params,
    prunable: Prunable,
    features: Sequence[str],
    sides: Sequence[str] = ("input",),
    image: tuple[int, ...] = (),
) -> Space:
    """The space of fields over a net's kernels.

    Args:
      params: parameters, for their shapes; the prunable leaves are kernels `[..., in, out]`.
      prunable: the leaves that masks prune.
      features: the features of each weight: `chance`, and names of criteria.
      sides: the sides of each layer that have potentials: `input`, `output`, both, or none.
      image: `(h, w, c)` of the images; a dense kernel with h · w · c inputs reads them as pixels.

    Raises:
      ValueError: an unknown side or criterion, or no feature.

    >>> params = {"w": np.zeros((2, 3))}
    >>> [(side.name, side.size) for side in space(params, ("w",), ["chance"], SIDES).sides]
    [('w input', 2), ('w output', 3)]
    """
    for side in sides:
        if side not in SIDES:
            raise ValueError(f"unknown side '{side}': one of {', '.join(SIDES)}")
    _check(features)
    shapes = masks.shapes(params, prunable)
    made = []
    for leaf, shape in shapes.items():
        for side in (name for name in SIDES if name in sides):
            size = shape[-2] if side == "input" else shape[-1]
            pixels = side == "input" and len(shape) == 2 and size == int(np.prod(image or (0,)))
            made.append(Side(leaf, side, size, tuple(image[:2]) if pixels else ()))
    return Space(prunable, tuple(shapes.values()), tuple(made), tuple(features))


def of_units(names: Sequence[str], sizes: Sequence[int], features: Sequence[str]) -> Space:
    """The space of fields over a net's units: a potential for each group and for each unit.

    Groups take the place of leaves, and a mask is `{group: bool[units]}`.

    Args:
      names, sizes: the groups' names and numbers of units.
      features: the features of each unit: `chance`, and names of criteria of weights, whose scores
        are averaged over each unit.

    Raises:
      ValueError: an unknown criterion, or no feature.

    >>> groups = of_units(names=["conv1", "fc1"], sizes=[6, 4], features=["chance"])
    >>> groups.shapes, [side.name for side in groups.sides]
    (((6,), (4,)), ['conv1 output', 'fc1 output'])
    """
    _check(features)
    sides = (Side(name, "output", size, ()) for name, size in zip(names, sizes, strict=True))
    return Space(tuple(names), tuple((size,) for size in sizes), tuple(sides), tuple(features))


def flat(space: Space, mix: Sequence[float]) -> Field:
    """The field whose potentials are all 0, with the coefficients `mix[features]`.

    >>> field = flat(space({"w": np.zeros((2, 3))}, ("w",), ["chance"]), mix=[1.0])
    >>> field.layers.tolist(), field.units["w input"].tolist(), field.mix.tolist()
    ([0.0], [0.0, 0.0], [1.0])
    """
    units = {side.name: jnp.zeros(side.size) for side in space.sides}
    return Field(jnp.zeros(len(space.prunable)), units, jnp.asarray(mix, jnp.float32))


def pooled(space: Space, scores: Scores, mix: Sequence[float]) -> Field:
    """The field whose potentials are the logarithms of mean scores, of layers and of units.

    A layer's potential is the log of its mean score; a unit's is the log of its mean score over
    that of the layer. With `chance` alone, the random masks then have densities in proportion to
    these means.

    Args:
      space: the space of the field.
      scores: a criterion's scores, not negative.
      mix: the coefficients of the features.

    >>> scores = {"w": jnp.array([[1.0, 1.0], [3.0, 3.0]])}
    >>> field = pooled(space(scores, ("w",), ["chance"]), scores, mix=[1.0])
    >>> [round(share, 3) for share in jnp.exp(field.units["w input"]).tolist()]
    [0.5, 1.5]
    """
    leaves = dict(zip(space.prunable, masks.pick(scores, space.prunable), strict=True))
    means = {leaf: jnp.maximum(jnp.mean(values), 1e-30) for leaf, values in leaves.items()}
    units = {}
    for side in space.sides:
        values = leaves[side.leaf]
        axis = values.ndim - (2 if side.side == "input" else 1)
        mean = jnp.mean(values, axis=tuple(a for a in range(values.ndim) if a != axis))
        units[side.name] = jnp.log(jnp.maximum(mean / means[side.leaf], LOWEST))
    layers = jnp.log(jnp.stack([means[leaf] for leaf in space.prunable]))
    return Field(layers - jnp.mean(layers), units, jnp.asarray(mix, jnp.float32))


def features(
    key: Key, space: Space, evidence: Evidence, pool: Pool = lambda scores: scores
) -> tuple[Scores, ...]:
    """The features of each weight at initialisation: Gumbel noise, and the logs of scores.

    Args:
      key: consumed; each feature has its own.
      space: the space of the fields.
      evidence: criteria score `evidence.init_params`.
      pool: for fields of units, turns scores of weights into scores of units.

    >>> params, dense = {"w": jnp.array([[1.0, -2.0]])}, {"w": np.ones((1, 2), bool)}
    >>> kernels = space(params, ("w",), ["magnitude"])
    >>> evidence = Evidence(params, params, {}, dense, batches=None, loss=None)
    >>> (logs,) = features(jax.random.key(0), kernels, evidence)
    >>> [round(size, 3) for size in jnp.exp(logs["w"])[0].tolist()]
    [1.0, 2.0]
    """
    feature_scores = []
    for name, k in zip(space.features, jax.random.split(key, len(space.features)), strict=True):
        if name == CHANCE:
            scores = masks.random_scores(k, pool(evidence.init_params), space.prunable)
            feature_scores.append(jax.tree.map(_gumbel, scores))
            continue
        scores = pool(at_initialisation(find(name)).score(k, evidence))
        feature_scores.append(jax.tree.map(_log, scores))
    return tuple(feature_scores)


def score(space: Space, features: Sequence[Scores], field: Field) -> Scores:
    """The scores of a field over the prunable leaves; 0 elsewhere.

    >>> zeros = {"w": jnp.zeros((2, 2))}
    >>> kernels = space(zeros, ("w",), ["chance"])
    >>> field = flat(kernels, mix=[1.0])._replace(units={"w input": jnp.array([1.0, 2.0])})
    >>> score(kernels, [zeros], field)["w"].tolist()
    [[1.0, 1.0], [2.0, 2.0]]
    """
    sides: Mapping[tuple[str, str], Array] = {
        (side.leaf, side.side): field.units[side.name] for side in space.sides
    }
    known = [masks.pick(one, space.prunable) for one in features]
    leaves = []
    for i, (leaf, shape) in enumerate(zip(space.prunable, space.shapes, strict=True)):
        total = jnp.broadcast_to(field.layers[i], shape)
        for k, one in enumerate(known):
            total += field.mix[k] * one[i]
        if (leaf, "input") in sides:
            total += sides[leaf, "input"].reshape(*[1] * (len(shape) - 2), -1, 1)
        if (leaf, "output") in sides:
            total += sides[leaf, "output"].reshape(*[1] * (len(shape) - 1), -1)
        leaves.append(total)
    zero = jax.tree.map(jnp.zeros_like, features[0])
    return masks.put(zero, space.prunable, leaves)


def mask(space: Space, features: Sequence[Scores], keep: Keep, floor: Keep, field: Field) -> Mask:
    """The mask of a field: keeps exactly `keep` weights, and at least `floor` in each leaf.

    >>> chance = {"w": jnp.array([[0.0, 9.0], [0.0, 0.0]])}
    >>> kernels = space(chance, ("w",), ["chance"])
    >>> field = flat(kernels, mix=[1.0])._replace(units={"w input": jnp.array([1.0, 2.0])})
    >>> mask(kernels, [chance], keep=3, floor=0, field=field)["w"].tolist()
    [[False, True], [True, True]]
    """
    return masks.select(score(space, features, field), space.prunable, keep, floor)


def moves(space: Space, most: float = 3.0, least: float = 0.01) -> Moves:
    """Random walks over fields; every move is symmetric and has zero mean.

    A move adds normal noise of standard deviation `size` to one part of the field. The kinds of
    part are equally likely: the potential of one layer; the coefficient of one feature, with a
    fifth of the noise; units of one side, at least one, each with a probability drawn log-uniformly
    from 1/64 to 1; or, where units are pixels, a Gaussian bump around a random pixel, with a radius
    drawn log-uniformly from one pixel to half the image.

    Args:
      space: the space of the fields.
      most, least: the largest and smallest size, in nats.

    >>> kernels = space({"w": np.zeros((2, 3))}, ("w",), ["chance"])
    >>> walk, step = flat(kernels, mix=[1.0]), moves(kernels)
    >>> proposal = step.propose(jax.random.key(0), 1.0, walk)
    >>> back = step.settle(proposal, False)
    >>> bool(step.distance(walk, proposal.walk) > 0), float(step.distance(walk, back))
    (True, 0.0)
    """
    grids = tuple(side for side in space.sides if side.grid)
    kinds = ["layer"] * (len(space.prunable) > 1) + ["mix"] * (len(space.features) > 1)
    kinds += ["units"] * bool(space.sides) + ["bump"] * bool(grids)

    def layer(key: Key, size: Array, field: Field) -> Field:
        which, noise = jax.random.split(key)
        at = jax.random.randint(which, (), 0, len(space.prunable))
        return field._replace(layers=field.layers.at[at].add(size * jax.random.normal(noise)))

    def mix(key: Key, size: Array, field: Field) -> Field:
        which, noise = jax.random.split(key)
        at = jax.random.randint(which, (), 0, len(space.features))
        return field._replace(mix=field.mix.at[at].add(0.2 * size * jax.random.normal(noise)))

    def units(key: Key, size: Array, field: Field) -> Field:
        which, share, chosen, noise = jax.random.split(key, 4)
        at = jax.random.randint(which, (), 0, len(space.sides))
        part = jnp.exp(jax.random.uniform(share) * jnp.log(1 / 64))
        moved = dict(field.units)
        for i, side in enumerate(space.sides):
            keys = jax.random.fold_in(chosen, i), jax.random.fold_in(noise, i)
            drawn = jax.random.uniform(keys[0], (side.size,))
            takes = (drawn < part) | (drawn == jnp.min(drawn))
            step = jnp.where(takes, size * jax.random.normal(keys[1], (side.size,)), 0.0)
            moved[side.name] += jnp.where(at == i, step, 0.0)
        return field._replace(units=moved)

    def bump(key: Key, size: Array, field: Field) -> Field:
        which, place, radius, noise = jax.random.split(key, 4)
        at = jax.random.randint(which, (), 0, len(grids))
        height = size * jax.random.normal(noise)
        moved = dict(field.units)
        for i, side in enumerate(grids):
            rows, columns = side.grid
            centre = jax.random.uniform(place, (2,)) * jnp.array([rows, columns])
            wide = jnp.exp(jax.random.uniform(radius) * jnp.log(max(rows, columns) / 2))
            row = jnp.arange(rows)[:, None] + 0.5 - centre[0]
            column = jnp.arange(columns)[None] + 0.5 - centre[1]
            shape = jnp.exp(-(row**2 + column**2) / (2 * wide**2))
            channels = side.size // (rows * columns)
            step = jnp.repeat(shape.ravel(), channels) * height
            moved[side.name] += jnp.where(at == i, step, 0.0)
        return field._replace(units=moved)

    steps = [{"layer": layer, "mix": mix, "units": units, "bump": bump}[name] for name in kinds]

    def propose(key: Key, size: Array, field: Field) -> Proposal:
        kind, change = jax.random.split(key)
        at = jax.random.randint(kind, (), 0, len(steps))
        moved = jax.lax.switch(at, steps, change, size, field)
        return Proposal(moved, jnp.bool_(True), jnp.float32(0), jnp.float32(size), field)

    return Moves(
        init=lambda key, point: point,
        propose=propose,
        settle=settle,
        point=lambda walk: walk,
        distance=_distance,
        most=most,
        least=least,
        whole=False,
    )


def _distance(a: Field, b: Field) -> Array:
    """float32 scalar: the Euclidean distance of two fields, in nats."""
    squares = jax.tree.map(lambda x, y: jnp.sum(jnp.square(x - y)), a, b)
    return jnp.sqrt(sum(jax.tree.leaves(squares), jnp.float32(0)))


def _check(features: Sequence[str]) -> None:
    if not features:
        raise ValueError(f"a field needs features: {CHANCE}, or criteria")
    for name in features:
        if name != CHANCE:
            find(name)


def _gumbel(uniform: Array) -> Array:
    return -jnp.log(-jnp.log(jnp.clip(uniform, 1e-12, 1 - 1e-7)))


def _log(scores: Array) -> Array:
    return jnp.log(jnp.maximum(scores, LOWEST * jnp.mean(scores) + 1e-30))
