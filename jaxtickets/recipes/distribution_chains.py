"""A search over the masks of a net by a distribution that learns; see `search.distribution_search`.

A chain walks over the parameters of its distribution. In a domain of bits these are the logits of
independent bits. A sample becomes a mask of the exact count: weights that it drew come first, in a
random order. In a domain of fields they are the means and standard deviations of normal potentials;
where the potentials of layers are the field's only parts, that is a policy over layers' shares.

    search = distribution_chains.build(domain, update_of, energy, samples=8, ...)
    chain = search.begin(inputs, data)
    chain, infos, end = search.chunk(inputs, chain, 0, data)

`inputs` is a `ChainInputs` whose `start` holds the first parameters, and whose plans only say how
many samples the records show. Chains do not interact.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.recipes.annealed_search import Search
from jaxtickets.recipes.search_domain import ChainInputs, SearchData, SearchDomain, mask_at
from jaxtickets.recipes.search_energies import ChainEnergy
from jaxtickets.search import annealing, distribution_search, distributions
from jaxtickets.search.chains import Chain, ChunkInfo
from jaxtickets.search.distribution_search import Kernel, Update
from jaxtickets.search.distributions import Distribution
from jaxtickets.search.space import choose
from jaxtickets.types import Array, Key, Mask, Prunable, PyTree, Split


def _distribution_of(domain: SearchDomain) -> Distribution:
    """The distribution over the points of a domain: of potentials normal, of bits Bernoulli."""
    return distributions.bernoulli if domain.fields is None else distributions.normal


def build(
    domain: SearchDomain,
    update_of: Callable[[Distribution], Update],
    energy: ChainEnergy,
    prunable: Prunable,
    samples: int,
    prepare: Callable[[Array], Array],
    chunk: int,
    floor: int = 0,
) -> Search:
    """The search of these parts.

    A chunk's steps are followed by the energy of the likeliest mask, and by the validation of the
    best mask so far.

    Args:
      domain: what is sampled; bits of the scope `global`, or fields.
      update_of: `update_of(distribution) -> Update`.
      energy: what is lowered; it also validates, on the validation images.
      prunable: the leaves in which the distance from the first mask is counted.
      samples: the samples of a step.
      prepare: raw validation images -> normalised images.
      chunk: the number of steps between two evaluations on the validation data.
      floor: the least that a mask keeps in each segment.

    Raises:
      ValueError: the update takes more samples.

    >>> from jaxtickets.recipes.search_domain import search_domain
    >>> from jaxtickets.search import cross_entropy, energies
    >>> params, key = {"w": jnp.array([[1.0, 3.0]])}, jax.random.key(0)
    >>> lost = energies.saliency(params, ("w",))  # the share of the scores that the mask loses
    >>> search = build(
    ...     domain=search_domain("weights", "global", params, ("w",), wiring=()),
    ...     update_of=lambda distribution: cross_entropy.update(distribution, elite=4),
    ...     energy=lambda chain, data, images: lost,
    ...     prunable=("w",),
    ...     samples=32,
    ...     prepare=lambda images: images,
    ...     chunk=1,
    ... )
    >>> plans = annealing.step_plans(1, temperature=jnp.ones_like, size=jnp.ones_like)
    >>> chain = ChainInputs(key, key, params, {}, jnp.zeros(2), plans, keep=1)
    >>> unseen = Split(np.zeros((1, 1)), np.zeros(1, int))
    >>> data = SearchData(unseen, unseen, unseen)
    >>> state, infos, _ = search.chunk(chain, search.begin(chain, data), 0, data)
    >>> state.chosen.tolist(), float(state.chosen_score)
    ([False, True], 0.25)
    """
    distribution = _distribution_of(domain)

    def mask_of(chain: ChainInputs, point: PyTree) -> Mask:
        return mask_at(domain, floor, chain, point)

    def kernel_of(chain: ChainInputs, data: SearchData) -> Kernel:
        lowered = energy(chain, data, data.scored)

        def of_count(scores: Array) -> Array:
            return choose(domain.space, scores, chain.keep, floor)

        def drawn_first(key: Key, bits: Array) -> Array:
            return of_count(bits + jax.random.uniform(key, bits.shape))

        def evaluate(key: Key, point: PyTree) -> Array:
            return lowered.evaluate(key, mask_of(chain, point))

        build_kernel = partial(
            distribution_search.build, distribution, update_of(distribution), evaluate, samples
        )
        if domain.fields is None:
            return build_kernel(likeliest=of_count, point=drawn_first)
        return build_kernel(likeliest=lambda at: at.mean)

    def shown(state: distribution_search.State, start: PyTree) -> annealing.State:
        """The search as the state of a chain, which has no temperature."""
        return annealing.State(
            walk=state,
            energy=state.energy,
            best=state.best,
            best_energy=state.best_energy,
            start=start,
            scale=jnp.float32(1),
            log_size=jnp.float32(0),
            memory=(),
        )

    def begin(chain: ChainInputs, data: SearchData) -> Chain:
        state = kernel_of(chain, data).init(chain.start)
        return Chain(shown(state, state.best), state.best, jnp.asarray(jnp.inf, float))

    def advance(
        chain: ChainInputs, at: Chain, start: Array, data: SearchData
    ) -> tuple[Chain, annealing.Info, ChunkInfo]:
        kernel = kernel_of(chain, data)
        step_key, likeliest_key, score_key = jax.random.split(chain.key, 3)
        now = jax.tree.map(
            lambda planned: jax.lax.dynamic_slice_in_dim(planned, start, chunk), chain.ticks
        )

        def one(
            state: distribution_search.State, tick: annealing.StepPlan
        ) -> tuple[distribution_search.State, annealing.Info]:
            state, info = kernel.step(jax.random.fold_in(step_key, tick.step), state)
            return state, annealing.Info(
                energy=info.energy,
                best_energy=info.best_energy,
                accepted=jnp.bool_(True),
                temperature=tick.temperature,
                size=tick.size,
            )

        state, infos = jax.lax.scan(one, at.state.walk, now)
        state = kernel.try_likeliest(jax.random.fold_in(likeliest_key, start), state)
        images = Split(prepare(data.validation.images), data.validation.labels)
        best = mask_of(chain, state.best)
        score = energy(chain, data, images).evaluate(score_key, best).astype(float)
        better = score < at.chosen_score
        chosen = jax.tree.map(lambda new, old: jnp.where(better, new, old), state.best, at.chosen)
        least = jnp.where(better, score, at.chosen_score)  # a NaN is no better
        moved = masks.hamming(best, mask_of(chain, at.state.start), prunable)
        end = Chain(shown(state, at.state.start), chosen, least)
        return end, infos, ChunkInfo(moved, jnp.float32(0), least)

    return Search(begin, advance)
