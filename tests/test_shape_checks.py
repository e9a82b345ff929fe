"""Shapes and types at the library's public doors: what doesn't fit is one line, before any work."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import losses, masks, runs, training
from jaxtickets.analysis import connectivity, interpolation, similarity, trainability
from jaxtickets.compress.graph import kept
from jaxtickets.criteria import CRITERIA
from jaxtickets.dynamic.drop_and_grow import MovePlan
from jaxtickets.dynamic.granet import granet
from jaxtickets.dynamic.static import masked
from jaxtickets.gates.base import straight_through
from jaxtickets.search import annealing, chains, exchange, population, space, swaps, tabu
from jaxtickets.search.acceptance import ACCEPTANCES
from jaxtickets.search.energies import Energy, saliency
from jaxtickets.shape_checks import check_array, check_leading
from jaxtickets.types import Feed, Split, Units

KEY = jax.random.key(0)
PARAMS = {"a": {"kernel": jnp.ones((3, 2))}, "b": {"kernel": jnp.ones((2, 2))}}
OTHERS = PARAMS | {"b": {"kernel": jnp.ones((2, 1))}}
PRUNABLE = masks.prunable(PARAMS)
MASK = masks.ones(PARAMS)
WIRING = (Units("a", 2, ("a",), (), (Feed("b", 1),)),)
WEIGHTS, UNITS = space.weights(PARAMS, PRUNABLE), space.units(PARAMS, WIRING)
BITS, LOGITS = jnp.ones(10, bool), jnp.zeros((4, 3))
LABELS = jnp.zeros(4, int)
SPLIT = Split(jnp.zeros((4, 5)), LABELS)
PLANS = annealing.step_plans(3, lambda step: step / 9, lambda step: step)
LADDER = exchange.begin(jnp.array([1.0, 2.0]))


def annealed(plans=PLANS, energy=None, validated=None):
    """The states of a chunk of a chain."""
    energy = energy or saliency(PARAMS, PRUNABLE)
    moves = swaps.moves(WEIGHTS, 2)
    kernel = annealing.build(moves, WEIGHTS.mask, energy, annealing.Rules())
    validate = (lambda mask: validated) if validated is not None else partial(energy.evaluate, KEY)

    def run(key):
        state = kernel.init(key, jnp.arange(10) < 5)
        return chains.chunk(kernel, energy, WEIGHTS.mask, validate, key, chains.begin(state), plans)

    return jax.eval_shape(run, KEY)


def accepted(rule, energy=1.0, proposed=1.0):
    rule = ACCEPTANCES[rule]
    return rule.accept(KEY, 1.0, energy, proposed, 0.0, rule.init(jnp.float32(1)))


def trained(evidence, change):
    """A step for each of the batches that `change` makes of three."""
    optimizer = masked(optax.sgd(0.1), evidence.mask)
    state = training.init(evidence.params, {}, optimizer)
    batches = change(evidence.batches)
    advance = partial(training.advance, evidence.loss, optimizer)
    return jax.eval_shape(lambda key: advance(key, state, batches), KEY)


def seen(evidence, **changed):
    split = Split(*jax.tree.map(lambda a: a[0], evidence.batches))._replace(**changed)
    return training.evaluate(evidence.model, evidence.prepare, evidence.params, {}, split)


def scored(name, evidence, change):
    changed = evidence._replace(batches=change(evidence.batches))
    return jax.eval_shape(lambda key: CRITERIA[name].score(key, changed), KEY)


def updated(optimizer, gradient):
    return optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)


def cooled(temperature, colder):
    states = jax.vmap(lambda energy: SOLO._replace(energy=energy))(jnp.ones(3))
    return population.cool(KEY, states, temperature, colder)


SOLO = annealing.State((), jnp.float32(1), BITS, jnp.float32(1), BITS, jnp.float32(1), (), ())


def without_labels(batches):
    return batches._replace(labels=batches.labels[:, 0])


def short(batches):
    return batches._replace(labels=batches.labels[:2])


def unequal(batches):
    return batches._replace(labels=batches.labels[:, :4])


DOORS = {
    "logits, rank": (lambda: losses.cross_entropy(LOGITS[0], LABELS), "(3,) and must be [n, class"),
    "logits, type": (
        lambda: losses.accuracy(LOGITS.astype(int), LABELS),
        "logits: the type is int",
    ),
    "labels, rank": (
        lambda: losses.cross_entropy(LOGITS, LABELS[:, None]),
        "(4, 1) and must be [4]",
    ),
    "labels, length": (
        lambda: losses.accuracy(LOGITS, LABELS[:1]),
        "labels: the shape is (1,) and",
    ),
    "labels, type": (
        lambda: losses.cross_entropy(LOGITS, jnp.zeros(4)),
        "the labels: the type is float32 and must be an integer type",
    ),
    "kernel": (lambda: losses.orthogonality([jnp.ones(3)]), "must be [inputs, units]"),
    "scores, rank": (lambda: masks.top_k(LOGITS, 2), "the scores: the shape is (4, 3) and must be"),
    "keep, type": (lambda: masks.select(PARAMS, PRUNABLE, 2.5), "of all leaves: the type is float"),
    "keep, rank": (
        lambda: masks.select(PARAMS, PRUNABLE, jnp.ones(2, int)),
        "must be () of a scal",
    ),
    "keep, leaf": (
        lambda: masks.select(PARAMS, PRUNABLE, {"a/kernel": 1}),
        "no count of what is kept of b/kernel; there are a/kernel",
    ),
    "bits, length": (
        lambda: WEIGHTS.mask(BITS[1:]),
        "the bits: the shape is (9,) and must be [10]",
    ),
    "bits, type": (lambda: WEIGHTS.mask(BITS + 0), "the bits: the type is int32 and must be bool"),
    "bits of units": (lambda: UNITS.mask(BITS), "the bits: the shape is (10,) and must be [2]"),
    "pool": (lambda: WEIGHTS.pool(OTHERS), "the scores has the shape (2, 1) in b/kernel"),
    "pool of units": (lambda: UNITS.pool({"a": PARAMS["a"]}), "no leaf 'b/kernel' in the scores"),
    "scores of bits": (lambda: space.choose(WEIGHTS, jnp.ones(9), 2), "(9,) and must be [10]"),
    "counts": (lambda: space.counts(WEIGHTS, BITS[None]), "(1, 10) and must be [10]"),
    "packed": (lambda: masks.pack(jnp.ones(3)), "the type is float32 and must be bool"),
    "distances": (lambda: masks.distances(jnp.ones(3, "u4")), "(3,) and must be [m, w]"),
    "tabu": (lambda: tabu.recall(tabu.words(WEIGHTS), BITS[1:], 3), "(9,) and must be [10]"),
    "plans, length": (
        lambda: annealed(PLANS._replace(size=PLANS.size[:2])),
        "the step plans, size: the shape is (2,) and must be [3, ...]",
    ),
    "plans, rank": (
        lambda: annealed(jax.tree.map(lambda a: a[0], PLANS)),
        "the step plans, step: the shape is () and must be [steps, ...]",
    ),
    "plans, level": (
        lambda: annealed(PLANS._replace(level=PLANS.step)),
        "level: the type is int32",
    ),
    "plans, stacked": (
        lambda: annealed(jax.tree.map(lambda a: a[:, None], PLANS)),
        "the step plans, step: the shape is (3, 1) and must be [3]",
    ),
    "energy": (
        lambda: annealed(energy=Energy(lambda key, mask: jnp.ones(2), False)),
        "the energy: the shape is (2,) and must be () of a scalar",
    ),
    "validation": (
        lambda: annealed(validated=jnp.ones(2)),
        "the validation score: the shape is (2,)",
    ),
    "metropolis": (
        lambda: accepted("metropolis", jnp.ones(2)),
        "the energy: the shape is (2,) and",
    ),
    "mean": (lambda: accepted("running_mean", 1.0, jnp.ones(2)), "the proposed energy: the shape"),
    "ladder, rank": (lambda: exchange.begin(jnp.float32(1)), "the shape is () and must be [rungs]"),
    "ladder, rungs": (lambda: exchange.begin(jnp.ones(1)), "a ladder needs 2 rungs or more, not 1"),
    "swap": (lambda: exchange.swap(KEY, LADDER, jnp.ones(3), 1.0), "(3,) and must be [2]"),
    "population": (lambda: cooled(jnp.ones(2), 1.0), "the temperature: the shape is (2,) and must"),
    "resample": (
        lambda: population.resample(KEY, jnp.ones((2, 2))),
        "the log weights: the shape is",
    ),
    "runs, scalar": (
        lambda: runs.split({"x": 1.0}, runs.axis("map")),
        "() and must be [runs, ...]",
    ),
    "units, type": (
        lambda: masks.expand({"a": jnp.array([0.1, 0.9])}, WIRING, PARAMS),
        "the mask of a: the type is float32 and must be bool",
    ),
    "stacked masks": (
        lambda: similarity.overlaps(
            jax.tree.map(
                lambda a, n: jnp.stack([a] * n), MASK, {"a": {"kernel": 2}, "b": {"kernel": 3}}
            ),
            PRUNABLE,
        ),
        "the stacked masks, b/kernel: the shape is (3, 2, 2) and must be [2, ...]",
    ),
    "stacked floats": (
        lambda: similarity.overlaps(PARAMS, PRUNABLE[:1]),
        "float32 and must be bool",
    ),
    "connectivity": (
        lambda: connectivity.shape(PARAMS, WIRING, PRUNABLE),
        "float32 and must be bool",
    ),
    "line": (lambda: interpolation.line(PARAMS, OTHERS, 0.5), "has the shape (2, 1) in b/kernel"),
    "alpha": (lambda: interpolation.line(PARAMS, PARAMS, jnp.ones(2)), "alpha: the shape is (2,)"),
    "barrier": (lambda: interpolation.barrier(jnp.ones(1)), "the shape is (1,), two points are"),
    "steps": (
        lambda: trainability.steps_to_reach(np.arange(3), np.ones((5, 4)), [0.1]),
        "the losses: the shape is (5, 4) and must be [5, 3]",
    ),
    "gradient, static": (
        lambda: updated(masked(optax.sgd(0.1), MASK), OTHERS),
        "the gradient has the shape (2, 1) in b/kernel",
    ),
    "gradient, moving": (
        lambda: updated(
            granet(optax.sgd(0.1), MASK, PRUNABLE, MovePlan(np.array([5]), np.array([0])), 2),
            OTHERS,
        ),
        "the gradient has the shape (2, 1) in b/kernel",
    ),
    "rounds": (
        lambda: granet(
            optax.sgd(0.1), MASK, PRUNABLE, MovePlan(np.ones(3, int), np.ones(2, int)), 2
        ),
        "the plan of moves, replaced: the shape is (2,) and must be [3, ...]",
    ),
    "gate": (
        lambda: straight_through(MASK, OTHERS, PARAMS, PRUNABLE),
        "the soft mask has the shape (2, 1) in b/kernel",
    ),
}
OF_EVIDENCE = {
    "steps": (
        lambda e: trained(e, short),
        "the batches, labels: the shape is (2, 5) and must be [3",
    ),
    "examples": (
        lambda e: trained(e, unequal),
        "the batch, labels: the shape is (4,) and must be [5",
    ),
    "none": (lambda e: trained(e, lambda _: ()), "the batches: there is no array"),
    "labels": (
        lambda e: seen(e, labels=jnp.zeros(3, int)),
        "the examples, labels: the shape is (3,)",
    ),
    "columns": (lambda e: seen(e, labels=jnp.zeros((5, 1), int)), "(5, 1) and must be [5]"),
    "kinds": (
        lambda e: seen(e, labels=jnp.zeros(5)),
        "the labels: the type is float32 and must be",
    ),
    "no examples": (
        lambda e: seen(e, images=jnp.zeros((0, 3)), labels=jnp.zeros(0, int)),
        "the examples: there is none",
    ),
    **{
        f"{name}, {fault.__name__}": (partial(scored, name, change=fault), said)
        for name in ("snip", "grasp", "synflow", "taylor", "fisher", "obd")
        for fault, said in (
            (without_labels, "the batches, labels: the shape is (3,) and must be [3, 5, ...]"),
            (unequal, "the batches, labels: the shape is (3, 4) and must be [3, 5, ...]"),
        )
    },
}


@pytest.mark.parametrize("door", DOORS)
def test_what_does_not_fit_is_refused_in_one_line(door):
    call, said = DOORS[door]
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("door", OF_EVIDENCE)
def test_examples_that_do_not_go_together_are_refused_in_one_line(door, evidence):
    call, said = OF_EVIDENCE[door]
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        call(evidence)
    assert "\n" not in str(error.value)


def test_a_masks_units_are_bool_where_a_net_shrinks():
    class Chained:
        axes, units = {"a": {0: np.arange(2)}}, {"a": np.arange(2)}

    np.testing.assert_array_equal(kept(Chained, {"a": [True, False]}), [True, False])
    with pytest.raises(ValueError, match="the mask of units 'a': the type is float32 and must be"):
        kept(Chained, {"a": [0.2, 0.7]})


@pytest.mark.parametrize("value", [3, np.int64(3), jnp.int8(3), jax.ShapeDtypeStruct((), "u4")])
def test_numbers_and_what_has_a_shape_and_a_type_pass(value):
    check_array("a count", value, (), int)
    with pytest.raises(ValueError, match="must be a float type"):
        check_array("a count", value, (), float)


def test_keys_are_arrays_like_others():
    rows = {"key": jax.random.split(KEY, 3), "x": np.zeros((3, 2))}
    assert check_leading("the rows", rows, ("runs",)) == (3,)
