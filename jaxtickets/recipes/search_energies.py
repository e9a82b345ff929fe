"""What a search over a net's masks lowers: the energies of `search.energies`, made for a chain.

    net = SearchedNet(recipe, optimizer, prunable)
    energy = trainability(net, losses.cross_entropy, train_steps=20)
    energy(chain, data, data.scored).evaluate(key, mask)

A new energy is a function and a row of `ENERGIES`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from jaxtickets import losses, masks
from jaxtickets.data.batches import stream
from jaxtickets.recipes.search_domain import ChainInputs, SearchData
from jaxtickets.search import energies
from jaxtickets.search.energies import Energy, Measure, training_cost
from jaxtickets.training import Recipe
from jaxtickets.types import Mask, Params, Prunable, Split

ChainEnergy = Callable[[ChainInputs, SearchData, Split], Energy]
"""`energy(chain, data, images) -> Energy`: of the chain's weights, on normalised images."""


class SearchedNet(NamedTuple):
    """The net whose masks are searched; static.

    Attributes:
      recipe: the net, and how training steps of an energy are done.
      optimizer: of these steps.
      prunable: the leaves that are searched.
      rescale: whether the weights that stay are rescaled, see `energies.rescale`.
    """

    recipe: Recipe
    optimizer: optax.GradientTransformation
    prunable: Prunable
    rescale: bool = True

    def ticket_params(self, mask: Mask, params: Params) -> Params:
        """The dense parameters of a ticket with that mask: rescaled if asked for, not masked."""
        return energies.rescale(mask, params, self.prunable) if self.rescale else params

    def effective(self, mask: Mask, params: Params) -> Params:
        """The parameters as the search sees them: of the ticket, and masked."""
        return masks.apply(mask, self.ticket_params(mask, params))


def fixed(net: SearchedNet, measure: Measure) -> ChainEnergy:
    """The untrained net's measure on the images, see `energies.fixed`.

    >>> from jaxtickets.nets import functional_plain
    >>> params, key, same = {"w": jnp.eye(2)}, jax.random.key(0), lambda images: images
    >>> model = functional_plain(lambda params, images: images @ params["w"], params)
    >>> loss, sgd = losses.classification(model, same), optax.sgd(1.0)
    >>> recipe = Recipe(model, loss, lambda hyper: sgd, same, None, batch_size=2, every=1)
    >>> net = SearchedNet(recipe, sgd, ("w",), rescale=False)
    >>> seen = Split(jnp.eye(2), jnp.arange(2))
    >>> chain, data = ChainInputs(key, key, params, {}, (), ()), SearchData(seen, seen, seen)
    >>> energy = fixed(net, losses.error_rate)(chain, data, seen)
    >>> float(energy.evaluate(key, {"w": np.array([[True, False], [True, False]])}))
    0.5
    """

    def energy(chain: ChainInputs, data: SearchData, images: Split) -> Energy:
        return energies.fixed(
            net.recipe.model,
            chain.params,
            chain.stats,
            images.images,
            images.labels,
            measure=measure,
            effective=net.effective,
        )

    return energy


def minibatch(net: SearchedNet, measure: Measure) -> ChainEnergy:
    """The untrained net's measure on as many new training images each time as the images are.

    >>> from jaxtickets.nets import functional_plain
    >>> params, key, same = {"w": jnp.eye(2)}, jax.random.key(0), lambda images: images
    >>> model = functional_plain(lambda params, images: images @ params["w"], params)
    >>> loss, sgd = losses.classification(model, same), optax.sgd(1.0)
    >>> recipe = Recipe(model, loss, lambda hyper: sgd, same, None, batch_size=2, every=1)
    >>> net = SearchedNet(recipe, sgd, ("w",), rescale=False)
    >>> seen = Split(jnp.eye(2), jnp.arange(2))
    >>> chain, data = ChainInputs(key, key, params, {}, (), ()), SearchData(seen, seen, seen)
    >>> energy = minibatch(net, losses.error_rate)(chain, data, seen)
    >>> float(energy.evaluate(key, {"w": np.ones((2, 2), bool)})), energy.fresh
    (0.0, True)
    """

    def energy(chain: ChainInputs, data: SearchData, images: Split) -> Energy:
        return energies.minibatch(
            net.recipe.model,
            chain.params,
            chain.stats,
            data.training.images,
            data.training.labels,
            measure=measure,
            prepare=net.recipe.prepare,
            batch_size=len(images.labels),
            effective=net.effective,
        )

    return energy


def trainability(net: SearchedNet, measure: Measure, train_steps: int) -> ChainEnergy:
    """The measure on the images after training steps on other data, see `energies.trainability`.

    A chain's steps are drawn by its `energy_key`.

    >>> from jaxtickets.nets import functional_plain
    >>> params, key, same = {"w": jnp.zeros((2, 2))}, jax.random.key(0), lambda images: images
    >>> model = functional_plain(lambda params, images: images @ params["w"], params)
    >>> loss, sgd = losses.classification(model, same), optax.sgd(1.0)
    >>> recipe = Recipe(model, loss, lambda hyper: sgd, same, None, batch_size=2, every=1)
    >>> net = SearchedNet(recipe, sgd, ("w",), rescale=False)
    >>> seen = Split(jnp.eye(2), jnp.arange(2))
    >>> chain, data = ChainInputs(key, key, params, {}, (), ()), SearchData(seen, seen, seen)
    >>> energy = trainability(net, losses.error_rate, train_steps=1)(chain, data, seen)
    >>> dense, pruned = {"w": np.ones((2, 2), bool)}, {"w": np.zeros((2, 2), bool)}
    >>> float(energy.evaluate(key, dense)), float(energy.evaluate(key, pruned))
    (0.0, 0.5)
    """

    def energy(chain: ChainInputs, data: SearchData, images: Split) -> Energy:
        order_key, noise_key = jax.random.split(chain.energy_key)
        total = len(data.training.labels)
        index = stream(order_key, 0, train_steps, total, net.recipe.batch_size)
        return energies.trainability(
            net.recipe.model,
            net.recipe.loss,
            net.optimizer,
            chain.params,
            chain.stats,
            batches=Split(*(array[index] for array in data.training)),
            images=images.images,
            labels=images.labels,
            measure=measure,
            noise_key=noise_key,
            effective=net.effective,
        )

    return energy


def gradient_flow(net: SearchedNet) -> ChainEnergy:
    """Minus the gradient's norm, see `energies.gradient_flow`; dropout by a chain's `energy_key`.

    Of the first images alone, no more than masks are scored on: a gradient needs memory.

    >>> from jaxtickets.nets import functional_plain
    >>> params, key, same = {"w": jnp.zeros((2, 2))}, jax.random.key(0), lambda images: images
    >>> model = functional_plain(lambda params, images: images @ params["w"], params)
    >>> loss, sgd = losses.classification(model, same), optax.sgd(1.0)
    >>> recipe = Recipe(model, loss, lambda hyper: sgd, same, None, batch_size=2, every=1)
    >>> net = SearchedNet(recipe, sgd, ("w",), rescale=False)
    >>> seen = Split(jnp.eye(2), jnp.arange(2))
    >>> chain, data = ChainInputs(key, key, params, {}, (), ()), SearchData(seen, seen, seen)
    >>> energy = gradient_flow(net)(chain, data, seen)
    >>> float(energy.evaluate(key, {"w": np.ones((2, 2), bool)}))  # four derivatives of 1/4
    -0.5
    """
    cross_entropy = losses.classification(net.recipe.model, lambda normalised: normalised)

    def energy(chain: ChainInputs, data: SearchData, images: Split) -> Energy:
        _, noise_key = jax.random.split(chain.energy_key)
        return energies.gradient_flow(
            cross_entropy,
            chain.params,
            chain.stats,
            batch=jax.tree.map(lambda leaf: leaf[: len(data.scored.labels)], images),
            key=noise_key,
            effective=net.effective,
        )

    return energy


def orthogonality(net: SearchedNet) -> ChainEnergy:
    """How far the layers are from orthogonal, see `energies.orthogonality`; no image is seen.

    >>> from jaxtickets.nets import functional_plain
    >>> params, key, same = {"w": jnp.eye(2)}, jax.random.key(0), lambda images: images
    >>> model = functional_plain(lambda params, images: images @ params["w"], params)
    >>> loss, sgd = losses.classification(model, same), optax.sgd(1.0)
    >>> recipe = Recipe(model, loss, lambda hyper: sgd, same, None, batch_size=2, every=1)
    >>> net = SearchedNet(recipe, sgd, ("w",), rescale=False)
    >>> seen = Split(jnp.eye(2), jnp.arange(2))
    >>> chain, data = ChainInputs(key, key, params, {}, (), ()), SearchData(seen, seen, seen)
    >>> energy = orthogonality(net)(chain, data, seen)
    >>> float(energy.evaluate(key, {"w": np.ones((2, 2), bool)}))
    0.0
    """

    def energy(chain: ChainInputs, data: SearchData, images: Split) -> Energy:
        return energies.orthogonality(chain.params, net.prunable, net.effective)

    return energy


class SearchEnergy(NamedTuple):
    """An energy by name: how it is made, and what is known of it.

    Attributes:
      make: makes it from what it takes of a `net`, `measure` and settings.
      validation: makes what masks are validated by.
      words: what the search does, in words that take `measure` and `train_steps`.
      label: what is lowered, on an axis.
      passes: `passes(images, scored, training)`: the forward passes of one example of a value on so
        many images, where masks are scored on `scored` and the training steps take `training`.
      fresh: whether each step sees other images, so that it takes two values.
      sees_images: whether it depends on the images.
      trains: whether it trains, on data that it isn't scored on.
      needs: what a search with it needs of other settings: name -> values.
    """

    make: Callable[..., ChainEnergy]
    validation: Callable[..., ChainEnergy]
    words: str
    label: str
    passes: Callable[[int, int, int], int]
    fresh: bool = False
    sees_images: bool = True
    trains: bool = False
    needs: Mapping[str, tuple[Any, ...]] = {}


_UNMEASURED = {"measure": ("cross_entropy",)}
ENERGIES = {
    "fixed": SearchEnergy(
        make=fixed,
        validation=fixed,
        words="lowering {measure}",
        label="{measure}",
        passes=lambda images, scored, training: images,
    ),
    "minibatch": SearchEnergy(
        make=minibatch,
        validation=fixed,
        words="lowering {measure} of a new minibatch a step",
        label="{measure}\nof new images",
        passes=lambda images, scored, training: images,
        fresh=True,
    ),
    "trainability": SearchEnergy(
        make=trainability,
        validation=trainability,
        words="lowering {measure} after {train_steps} training steps",
        label="held-out {measure}\nafter {train_steps} training steps",
        passes=lambda images, scored, training: training + images,
        trains=True,
    ),
    "gradient_flow": SearchEnergy(
        make=gradient_flow,
        validation=gradient_flow,
        words="raising the gradient's norm",
        label="minus the gradient's norm",
        passes=lambda images, scored, training: training_cost(min(images, scored)),
        needs=_UNMEASURED,
    ),
    "orthogonality": SearchEnergy(
        make=orthogonality,
        validation=orthogonality,
        words="bringing layers nearer to orthogonal",
        label="distance from orthogonal",
        passes=lambda images, scored, training: 0,
        sees_images=False,
        needs=_UNMEASURED,
    ),
}
"""What a search can lower."""
