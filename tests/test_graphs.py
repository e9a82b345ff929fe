"""Weight-agnostic nets: graphs against plain Python, mutations without cycles, ranks by hand."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets.search.graphs import evaluation, evolution, genome, layered, mutations, ranking
from jaxtickets.search.graphs.activations import ACTIVATIONS
from jaxtickets.search.graphs.evolution import Settings
from jaxtickets.search.graphs.genome import Capacity, Genome, Sizes
from jaxtickets.search.graphs.mutations import Probabilities

SIZES = Sizes(inputs=4, outputs=3)
ROOM = Capacity(hidden=12, connections=48)
WEIGHTS = np.array([-2, -0.5, 1], np.float32)
PLAIN = {
    "linear": lambda x: x,
    "step": lambda x: float(x > 0),
    "sine": lambda x: math.sin(math.pi * x),
    "gaussian": lambda x: math.exp(-(x**2) / 2),
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "inverse": lambda x: -x,
    "absolute": abs,
    "relu": lambda x: max(x, 0.0),
    "cosine": lambda x: math.cos(math.pi * x),
}


def empty(**changes):
    """A graph without connections."""
    rows = SIZES.outputs + ROOM.hidden
    made = Genome(
        source=np.zeros(ROOM.connections, np.int32),
        target=np.zeros(ROOM.connections, np.int32),
        enabled=np.zeros(ROOM.connections, bool),
        activation=np.zeros(rows, np.int32),
        rank=np.arange(ROOM.hidden, ROOM.hidden + rows, dtype=np.int32),
        connections=np.int32(0),
        hidden=np.int32(0),
    )
    return made._replace(**changes)


def graph(activations, pairs, ranks=None):
    """A graph of hidden nodes with these activations.

    Args:
      activations: names, of each hidden node.
      pairs: (source, target, enabled): `x0` an input, `b` the bias, `h0` hidden, `y0` an output.
      ranks: of each hidden node; by default in order.
    """
    first = SIZES.inputs + 1

    def row(name):
        return int(name[1:]) + (SIZES.outputs if name[0] == "h" else 0)

    def number(name):
        if name == "b":
            return SIZES.inputs
        return int(name[1:]) if name[0] == "x" else first + row(name)

    made = empty(hidden=np.int32(len(activations)), connections=np.int32(len(pairs)))
    names = [activation.name for activation in ACTIVATIONS]
    for k, name in enumerate(activations):
        made.activation[SIZES.outputs + k] = names.index(name)
        made.rank[SIZES.outputs + k] = k if ranks is None else ranks[k]
    pairs = sorted(pairs, key=lambda pair: made.rank[row(pair[1])])
    for i, (source, target, enabled) in enumerate(pairs):
        made.source[i], made.target[i], made.enabled[i] = number(source), row(target), enabled
    return made


def listed(one):
    """The connections of a graph: (source, target row, enabled)."""
    n = int(one.connections)
    columns = (np.asarray(column)[:n].tolist() for column in one[:3])
    return list(zip(*columns, strict=True))


def plain(one, image, weight, near=None):
    """The outputs of a graph by recursion over its nodes.

    `near` collects how close the sums of steps come to 0, where rounding decides.
    """
    pairs = [(source, target) for source, target, enabled in listed(one) if enabled]

    def value(row):
        terms = [read(source) for source, target in pairs if target == row]
        name = ACTIVATIONS[int(one.activation[row])].name
        if name == "step" and near is not None and terms:
            near.append(abs(sum(terms)))
        return PLAIN[name](weight * sum(terms))

    def read(source):
        if source < SIZES.inputs:
            return float(image[source])
        return 1.0 if source == SIZES.inputs else value(source - SIZES.inputs - 1)

    return [value(row) for row in range(SIZES.outputs)]


evaluate = jax.jit(evaluation.outputs, static_argnames="sizes")


# --- evaluation ----------------------------------------------------------------------------------


def test_activations_are_what_their_names_say():
    x = np.linspace(-7, 7, 281).astype(np.float32)
    for activation in ACTIVATIONS:
        expected = [PLAIN[activation.name](float(v)) for v in x]
        np.testing.assert_allclose(activation.apply(jnp.asarray(x)), expected, atol=1e-5)


def test_a_small_graph_by_hand():
    # h0 = relu(w (x0 + x1 + bias)), y0 = w (h0 + x2), y1 = w h0; y2 reads nothing in use
    one = graph(
        ["relu"],
        [
            ("x0", "h0", True),
            ("x1", "h0", True),
            ("b", "h0", True),
            ("x2", "y0", True),
            ("h0", "y0", True),
            ("h0", "y1", True),
            ("x3", "y2", False),
        ],
    )
    image = np.array([[0.5, 0.25, 0.5, 1]], np.float32)
    found = evaluate(one, image, np.array([2.0, -1.0], np.float32), SIZES)
    np.testing.assert_allclose(found[:, 0], [[2 * (3.5 + 0.5), 7, 0], [-0.5, 0, 0]])


def test_random_graphs_are_evaluated_as_plain_python_does():
    hypothesis = pytest.importorskip("hypothesis")
    from hypothesis import strategies as st

    images = np.random.default_rng(0).random((3, SIZES.inputs), np.float32)

    @st.composite
    def graphs(draw):
        count = draw(st.integers(0, ROOM.hidden))
        names = st.sampled_from([activation.name for activation in ACTIVATIONS])
        ranks = draw(st.permutations(range(count)))
        sources = [*(f"x{i}" for i in range(SIZES.inputs)), "b"]
        pairs = []
        for k in range(count):
            below = [*sources, *(f"h{j}" for j in range(count) if ranks[j] < ranks[k])]
            read = st.lists(st.sampled_from(below), unique=True, min_size=1, max_size=5)
            pairs += [(source, f"h{k}", draw(st.booleans())) for source in draw(read)[: 1 + k % 5]]
        for k in range(SIZES.outputs):
            every = [*sources, *(f"h{j}" for j in range(count))]
            read = st.lists(st.sampled_from(every), unique=True, max_size=9)
            pairs += [(source, f"y{k}", draw(st.booleans())) for source in draw(read)]
        pairs = pairs[: ROOM.connections]
        hypothesis.assume({f"h{k}" for k in range(count)} <= {pair[1] for pair in pairs})
        return graph([draw(names) for _ in range(count)], pairs, ranks)

    @hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
    @hypothesis.given(graphs())
    def check(one):
        found = evaluate(one, images, WEIGHTS, SIZES)
        near = [1.0]
        expected = [[plain(one, image, float(w), near) for image in images] for w in WEIGHTS]
        hypothesis.assume(min(near) > 1e-4)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-3)

    check()


def test_trained_weights_start_from_the_shared_one():
    # y0 = w' sine(w (x0 + gaussian(w x1))) ..., with all w the same
    pairs = [("x1", "h0", True), ("x0", "h1", True), ("h0", "h1", True), ("h1", "y0", True)]
    one = graph(["gaussian", "sine"], [*pairs, ("x2", "y2", True), ("h0", "y2", True)])
    images = np.random.default_rng(1).random((6, SIZES.inputs), np.float32)
    structure = layered.structure(one, SIZES)
    net = jax.jit(layered.apply(structure))
    shared = evaluate(one, images, np.array([0.5], np.float32), SIZES)[0]
    weights = np.full(structure.source.size, 0.5, np.float32)
    np.testing.assert_allclose(net(weights, images), shared, atol=1e-5)
    slopes = jax.jit(jax.grad(lambda weights: net(weights, images).sum()))(weights)
    for k in range(len(weights)):
        step = np.zeros_like(weights)
        step[k] = 1e-2
        change = net(weights + step, images).sum() - net(weights - step, images).sum()
        np.testing.assert_allclose(slopes[k], change / 2e-2, rtol=0.01, atol=1e-3)


def test_what_reaches_no_output_is_left_out_of_the_trained_net():
    pairs = [("x0", "h0", True), ("h0", "h1", True), ("x1", "y0", True), ("b", "h2", True)]
    one = graph(["tanh", "tanh", "cosine"], [*pairs, ("h2", "y1", True)])
    structure = layered.structure(one, SIZES)
    assert structure.layer[SIZES.outputs :][:3].tolist() == [-1, -1, 1]
    assert structure.layer[: SIZES.outputs].tolist() == [2, 2, 2]
    assert structure.source.size == 3


def test_rewards_are_mean_log_likelihoods():
    one = graph([], [("x0", "y0", True), ("x1", "y1", True)])
    images = np.array([[1, 0, 0, 0], [0, 1, 0, 0]], np.float32)
    labels = np.array([0, 2], np.int32)
    score = jax.jit(evaluation.score, static_argnames="sizes")
    rewards, accuracies = score(one, images, labels, np.array([2.0], np.float32), SIZES)
    total = math.exp(2) + 2
    expected = (math.log(math.exp(2) / total) + math.log(1 / total)) / 2
    np.testing.assert_allclose(rewards, [expected], rtol=1e-6)
    np.testing.assert_allclose(accuracies, [0.5])


def test_images_of_another_size_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"images of a graph: the shape is \(2, 5\)") as caught:
        evaluation.outputs(empty(), np.zeros((2, 5), np.float32), WEIGHTS, SIZES)
    assert "\n" not in str(caught.value)


# --- mutations -----------------------------------------------------------------------------------


@partial(jax.jit, static_argnames="steps")
def grown(key, steps):
    """A graph after some mutations."""
    often = Probabilities(0.4, 0.3, 0.1, 0.2)
    first_key, key = jax.random.split(key)
    first = jax.tree.map(lambda x: x[0], genome.first_population(first_key, SIZES, ROOM, 2, 0.4))

    def step(one, key):
        return mutations.mutate(key, one, SIZES, often), None

    return jax.lax.scan(step, first, jax.random.split(key, steps))[0]


@pytest.mark.parametrize("seed", range(8))
def test_mutations_keep_graphs_acyclic_and_in_order(seed):
    one = grown(jax.random.key(seed), steps=60)  # until there is no more room
    n, hidden = int(one.connections), int(one.hidden)
    assert hidden >= 5 and n > 20
    assert sorted(one.rank[SIZES.outputs :][:hidden].tolist()) == list(range(hidden))
    read = np.asarray(one.source[:n]) - SIZES.inputs - 1  # the rows that are read
    target = np.asarray(one.target[:n])
    rank = np.asarray(one.rank)
    inner = read >= 0
    assert np.all(read[inner] >= SIZES.outputs)  # no output is read
    assert np.all(read < SIZES.outputs + hidden) and np.all(target < SIZES.outputs + hidden)
    assert np.all(rank[read[inner]] < rank[target[inner]])  # so there is no cycle
    assert np.all(np.diff(rank[target]) >= 0)
    pairs = list(zip(read.tolist(), target.tolist(), strict=True))
    assert len(set(zip(one.source[:n].tolist(), target.tolist(), strict=True))) == len(pairs)
    assert set(range(SIZES.outputs, SIZES.outputs + hidden)) <= set(target.tolist())


def test_a_node_splits_a_connection_and_has_its_place_between_its_ends():
    one = graph(["relu"], [("x0", "h0", True), ("h0", "y1", False)])
    new = jax.jit(mutations.add_node, static_argnames="sizes")(jax.random.key(3), one, SIZES)
    assert int(new.hidden) == 2
    ranks = new.rank[SIZES.outputs :][:2].tolist()
    assert ranks == [1, 0]  # before h0, which it leads to
    made = SIZES.outputs + 1
    assert listed(new) == [
        (0, made, True),
        (0, SIZES.outputs, False),
        (SIZES.inputs + 1 + made, SIZES.outputs, True),
        (SIZES.inputs + 1 + SIZES.outputs, 1, False),
    ]


def test_a_connection_joins_a_pair_that_was_not_connected_and_keeps_the_order():
    pairs = [(f"x{i}", f"y{k}", True) for i in range(4) for k in range(3)]
    pairs += [("x0", "h0", True), ("x1", "h1", False)]
    one = graph(["relu", "tanh"], pairs, ranks=[1, 0])
    add = jax.jit(jax.vmap(partial(mutations.add_connection, sizes=SIZES), (0, None)))
    new = add(jax.random.split(jax.random.key(0), 400), one)
    added = set()
    for i in range(400):
        more = set(listed(jax.tree.map(lambda x, i=i: x[i], new))) - set(listed(one))
        added |= {pair[:2] for pair in more}
    h0, h1 = SIZES.outputs, SIZES.outputs + 1
    first = SIZES.inputs + 1
    inputs = {(i, h0) for i in (1, 2, 3, 4)} | {(i, h1) for i in (0, 2, 3, 4)}
    outputs = {(source, k) for source in (4, first + h0, first + h1) for k in range(3)}
    assert added == inputs | outputs | {(first + h1, h0)}  # h1 comes first: not the other way


def test_toggling_turns_a_connection_on_or_off_and_activations_change():
    one = graph(["relu"], [("x0", "h0", True), ("h0", "y1", False)])
    toggle = jax.jit(jax.vmap(partial(mutations.toggle_connection, sizes=SIZES), (0, None)))
    found = np.asarray(toggle(jax.random.split(jax.random.key(0), 30), one).enabled[:, :2])
    assert {tuple(row) for row in found.tolist()} == {(False, False), (True, True)}
    change = jax.jit(jax.vmap(partial(mutations.change_activation, sizes=SIZES), (0, None)))
    found = change(jax.random.split(jax.random.key(0), 200), one).activation[:, SIZES.outputs]
    assert set(found.tolist()) == set(range(10)) - {int(one.activation[SIZES.outputs])}


def test_the_padding_changes_no_mutation():
    small = Capacity(hidden=6, connections=24)
    one = graph(["relu", "sine"], [("x0", "h0", True), ("h0", "h1", True), ("h1", "y1", True)])
    mutate = jax.jit(
        partial(mutations.mutate, sizes=SIZES, probabilities=Probabilities()),
    )
    for seed in range(6):
        key = jax.random.key(seed)
        new = mutate(key, genome.resized(one, SIZES, small))
        again = genome.resized(mutate(key, one), SIZES, small)
        jax.tree.map(np.testing.assert_array_equal, new, again)


# --- ranks ---------------------------------------------------------------------------------------

TEN = np.array(
    [
        [1, 9],  # a
        [4, 7],  # b
        [8, 5],  # c
        [9, 1],  # d: a to d are beaten by none
        [1, 8],  # e, beaten by a
        [3, 6],  # f, by b
        [7, 4],  # g, by c
        [2, 5],  # h, by f
        [6, 3],  # i, by g
        [1, 1],  # j, by all but d, which is no lower: d is 9 > 1 and 1 = 1, so by d, too
    ],
    np.float32,
)


@jax.jit
def ranked(values, alive):
    front = ranking.fronts(values)
    return front, ranking.crowding(values, front), ranking.best_first(values, alive)


def test_ten_points_are_ranked_by_hand():
    front, distance, order = ranked(TEN, np.ones(10, bool))
    assert front.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 3]
    # front 0 spans 8 and 8: b (8 - 1) / 8 + (9 - 5) / 8, c (9 - 4) / 8 + (7 - 1) / 8
    # front 1 spans 6 and 4: f (7 - 1) / 6 + (8 - 4) / 4 = 2
    expected = [np.inf, 11 / 8, 11 / 8, np.inf, np.inf, 2, np.inf, np.inf, np.inf, np.inf]
    np.testing.assert_allclose(distance, expected)
    assert order.tolist() == [0, 3, 1, 2, 4, 6, 5, 7, 8, 9]


def test_the_dead_come_last_and_change_nothing_for_others():
    values = TEN.copy()
    values[0], values[4] = (100, -np.inf), (np.nan, 3)
    _, _, order = ranked(values, ~np.isin(np.arange(10), (0, 4)))
    # b is now an end of front 0; front 1 is f and g, front 2 h and i
    assert order.tolist() == [1, 3, 2, 5, 6, 7, 8, 9, 0, 4]


# --- generations ---------------------------------------------------------------------------------


def members(population):
    """The connections of each graph of a population."""
    host = jax.tree.map(np.asarray, population)
    n = len(host.hidden)
    return [listed(jax.tree.map(lambda x, i=i: x[i], host)) for i in range(n)]


STILL = Settings(Probabilities(0, 0, 0, 1), elite=0.2, cull=0.5, tournament=2, simplicity=0)
generation = jax.jit(evolution.generation, static_argnames=("sizes", "settings"))


def test_elites_stay_as_they_are_and_only_those_that_may_have_children():
    population = genome.first_population(jax.random.key(1), SIZES, ROOM, 10, 0.5)
    rewards = -np.arange(10.0, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    rewards[4] = np.nan
    new, info = generation(jax.random.key(0), population, rewards, SIZES, STILL)
    # no hidden node has an activation to change: children are copies
    assert info.order.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 4]
    assert int(info.alive) == 9 and np.isneginf(info.mean[4])
    old, made = members(population), members(new)
    assert made[:2] == old[:2]
    assert all(child in [old[i] for i in (0, 1, 2, 3, 5)] for child in made[2:])


def test_a_generation_that_nobody_survives_says_so():
    population = genome.first_population(jax.random.key(1), SIZES, ROOM, 10, 0.5)
    rewards = np.full((10, 3), np.nan, np.float32)
    _, info = generation(jax.random.key(0), population, rewards, SIZES, STILL)
    assert int(info.alive) == 0


def test_evolution_learns_a_rule_that_a_single_weight_can_express():
    # the class is the input that is 1
    labels = np.arange(30, dtype=np.int32) % 3
    images = np.eye(4, dtype=np.float32)[labels]
    population = genome.first_population(jax.random.key(0), SIZES, ROOM, 60, 0.3)
    weights = np.array([0.5, 1, 2], np.float32)

    @jax.jit
    def step(population, key):
        score = partial(evaluation.score, sizes=SIZES)
        rewards, accuracies = jax.lax.map(
            lambda one: score(one, images, labels, weights), population
        )
        population, _ = evolution.generation(key, population, rewards, SIZES, Settings())
        return population, accuracies.mean(1).max()

    for key in jax.random.split(jax.random.key(1), 25):
        population, best = step(population, key)
    assert float(best) == 1


WRONG = {
    "population=1: must be 2 or more": lambda: genome.check(SIZES, ROOM, 1, 0.1),
    "share=0: must be above 0": lambda: genome.check(SIZES, ROOM, 4, 0),
    "connections=2: too few, the first graphs have up to 15": lambda: genome.check(
        SIZES, Capacity(12, 2), 4, 1
    ),
    "hidden=0: must be 1 or more": lambda: genome.check(SIZES, Capacity(0, 40), 4, 0.1),
    "0 inputs and 3 outputs": lambda: genome.check(Sizes(0, 3), ROOM, 4, 1),
    "population=3: with elite=0.2 and cull=1 there are": lambda: evolution.check(
        3, Settings(cull=1)
    ),
    "elite=1.5: must be from 0 to 1": lambda: evolution.check(3, Settings(elite=1.5)),
    "tournament=0: must be 1 or more": lambda: evolution.check(3, Settings(tournament=0)),
    "mutations=1,1,0,0: must be probabilities that sum to 1": lambda: evolution.check(
        3, Settings(Probabilities(1, 1, 0, 0))
    ),
    "the rewards: the shape is": lambda: evolution.generation(
        jax.random.key(0), empty(hidden=np.zeros(4)), np.ones((3, 6)), SIZES, Settings()
    ),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_cannot_be_evolved_is_refused_in_one_line(said):
    with pytest.raises(ValueError, match=said) as caught:
        WRONG[said]()
    assert "\n" not in str(caught.value)
