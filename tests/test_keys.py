"""Keys: named, apart from each other, and made in one place."""

import ast
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness import chain_starts
from experiments.harness.annealed_settings import AnnealingSettings
from experiments.harness.chain_starts import ChainName
from experiments.harness.seeds import Seed, mask_key
from jaxtickets import keys, masks
from jaxtickets.allocation import total
from jaxtickets.criteria import Evidence
from jaxtickets.keys import PURPOSES, stream
from jaxtickets.recipes.baseline_masks import BASELINES
from jaxtickets.recipes.search_domain import SearchDomain
from jaxtickets.search import space as spaces

ROOT = Path(__file__).parents[1]
REALISTIC = {
    int: [0, 1, 2, 7, 1 << 20],
    float: [1.0, 0.5, 0.2, 0.2 + 1e-9, 0.01],
    str: ["random", "magnitude", "search-0.2"],
}
"""Indices as runs have them, of each kind."""


def words(key):
    return tuple(jax.random.key_data(key).tolist())


def test_no_two_keys_of_runs_meet_and_none_is_on_the_way_to_another():
    """Nor does one meet a seed's own key, or what is split or folded from any of them."""
    made = {}
    for seed, (name, purpose) in itertools.product((0, 1, 1 << 32), PURPOSES.items()):
        values = [REALISTIC[kind] for kind in purpose.indices.values()]
        few = [v[: 3 if len(values) > 2 else None] for v in values]
        for indices in itertools.product(*few):
            made[seed, name, *indices] = stream(seed, name, *indices)
    given = np.array([words(key) for key in made.values()], np.uint32)
    seeds = np.array([(0, 0), (0, 1), (1, 0)], np.uint32)
    below = jax.vmap(lambda key: jax.random.split(key, 8))(jax.random.wrap_key_data(given))
    data = np.concatenate([given, seeds, np.asarray(jax.random.key_data(below)).reshape(-1, 2)])
    assert len(made) > 500 and len(np.unique(data, axis=0)) == len(data)


def test_a_stream_is_folded_from_the_seeds_key_whatever_the_default_generator():
    with jax.default_prng_impl("rbg"):
        key = stream(3, "training", 0, 2)
    expected = jax.random.key(3, impl="threefry2x32")
    for word in (*keys._words("purpose", str, "training"), 0, 2):
        expected = jax.random.fold_in(expected, word)
    assert key.dtype == expected.dtype and words(key) == words(expected)
    traced = jax.jit(lambda seed, order: stream(seed, "training", 0, order))(3, 2)
    assert words(traced) == words(key)
    assert words(stream(np.int64(3), "training", np.int32(0), 2)) == words(key)


WRONG = {
    "purpose 'walks': choose from": (0, "walks"),
    "keys for mask take stage, method, density: 2 indices": (0, "mask", 0, "random"),
    "keys for init take no index: 1 ": (0, "init", 1),
    "density='0.2': must be a float": (0, "mask", 0, "random", "0.2"),
    "method=3: must be a str": (0, "mask", 0, 3, 0.2),
    "order=1.5: must be a int": (0, "training", 0, 1.5),
    "order=-1: must be from 0": (0, "training", 0, -1),
    "seed -1: must be from 0": (-1, "init"),
    "seed 18446744073709551616: must be": (1 << 64, "init"),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_names_no_key_is_refused(said):
    with pytest.raises(ValueError, match=said.replace("^", r"\^")):
        stream(*WRONG[said])


# --- in one place --------------------------------------------------------------------------------

MAKERS = {"key", "PRNGKey", "wrap_key_data"}
BY_HAND = {
    "experiments/any_model/families.py": 2,  # methods that are traced, and a mask that is random
    "experiments/compression/pruning.py": 1,  # a state's key, which a ticket has not
    "experiments/learned_sparsity/penalty_gates.py": 1,  # a criterion that draws nothing
    "experiments/learned_sparsity/ways.py": 2,  # a gate's shapes
    "experiments/supermask/figure.py": 1,  # a criterion that draws nothing
    "jaxtickets/data/stream.py": 1,  # a key that decoding processes exchange
    "jaxtickets/io/trees.py": 1,  # keys that were written
    "jaxtickets/nets/gaussian.py": 1,  # a net's shapes
    "jaxtickets/keys.py": 2,  # a seed's key, of a host's number and of a traced one
    "jaxtickets/recipes/soft_filter_pruning.py": 1,  # a criterion that draws nothing
    "jaxtickets/runs.py": 1,  # keys that processes exchange
}
"""Calls that make or fold keys, file by file, but for those of which only shapes are used."""


def calls(node, shapes=False):
    """The names of `jax.random`'s functions that are called outside `jax.eval_shape`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        shapes |= node.func.attr == "eval_shape"
        if ast.unparse(node.func).startswith("jax.random.") and not shapes:
            yield node.func.attr
    for child in ast.iter_child_nodes(node):
        yield from calls(child, shapes)


def test_keys_are_made_in_one_place_and_the_host_folds_none_by_hand():
    made = {}
    for path in sorted([*ROOT.glob("jaxtickets/**/*.py"), *ROOT.glob("experiments/**/*.py")]):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(NOTEBOOKS):
            continue
        called = list(calls(ast.parse(path.read_text("utf-8"))))
        by_hand = MAKERS | {"fold_in"} if name.startswith(HOST) else MAKERS
        if count := sum(call in by_hand for call in called):
            made[name] = count
    assert made == BY_HAND


HOST = "experiments/"
NOTEBOOKS = "experiments/notebooks/"
"""Programs as users write them, with keys of their own and no runs."""


# --- masks of several densities ------------------------------------------------------------------


def by_chance(small, large):
    """Whether a mask lies in a larger one, of bits, only as far as chance has it."""
    inside, share = np.mean(large[small]), np.mean(large)
    return abs(inside - share) < 4 * np.sqrt(share * (1 - share) / small.sum())


@pytest.fixture(scope="module")
def one():
    """A seed over a net of 4,000 weights, and their space."""
    params = {"fc1": {"kernel": jnp.ones((50, 40))}, "out": {"kernel": jnp.ones((40, 50))}}
    return Seed(5, params, {}, 0), spaces.weights(params, masks.prunable(params))


@pytest.mark.parametrize("method", ["random", "random_layerwise"])
def test_random_masks_of_two_densities_of_a_seed_are_not_nested(method, one):
    seed, space = one
    draws = []
    for density in (0.5, 0.2):
        ticket = jnp.arange(space.size) < total({"all": (space.size,)}, density)
        key = mask_key(seed, method, density)
        draws.append(np.asarray(BASELINES[method](key, None, space, ticket, 1)))
    large, small = draws
    if method == "random_layerwise":  # the ticket's counts: all of these lie in the first layer
        large, small = (bits[: space.sizes[0]] for bits in draws)
        assert large.all()
        return
    assert by_chance(small, large)


def test_first_masks_and_walks_of_two_densities_or_searches_of_a_seed_differ(one):
    seed, space = one
    settings = AnnealingSettings(steps=20, images=0)
    plans = [ChainName(density, seed, 0) for density in (0.5, 0.2)]

    def rows(label):
        return chain_starts.first_rows(label, settings, SearchDomain(space), plans, about)[0]

    def about(seed) -> Evidence:
        raise AssertionError("no criterion draws the first masks")

    first, second = rows("search"), rows("again")
    large, small = np.asarray(first.start)
    assert by_chance(small, large)
    assert by_chance(small, np.asarray(second.start[0]))
    assert by_chance(np.asarray(second.start[1]), large)
    walks = np.asarray(jax.random.key_data(jnp.concatenate([first.key, second.key])))
    assert len(np.unique(walks, axis=0)) == 4


def test_chains_of_a_seed_share_their_energy(one):
    seed, _ = one
    plans = [ChainName(0.5, seed, chain) for chain in (0, 1)]
    same, other = (words(chain_starts.energy_key("search", plan)) for plan in plans)
    assert same == other != words(chain_starts.energy_key("search", ChainName(0.2, seed, 0)))
