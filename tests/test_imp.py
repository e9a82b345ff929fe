"""Iterative pruning: rates and counts by hand, nested masks, rewinding; what treatments change."""

from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness import imp_plan
from experiments.harness.imp_plan import ImpSettings
from experiments.harness.levels import descend
from experiments.harness.lineages import LevelPlan, Lineage, later_steps
from experiments.harness.session import Session
from experiments.harness.settings import check
from jaxtickets import masks
from jaxtickets.criteria import CRITERIA, Criterion, Evidence
from jaxtickets.recipes import imp
from jaxtickets.recipes.imp import LevelTraining
from jaxtickets.recipes.ticket_controls import CONTROLS, ControlInputs
from jaxtickets.types import Model, Split

KEY, OTHER = jax.random.key(3), jax.random.key(4)
LENET = {"fc1/kernel": (784, 300), "fc2/kernel": (300, 100), "out/kernel": (100, 10)}
PAPER = {"prune_rate": 0.2, "output_rate": 0.1}


@contextmanager
def refused(message):
    """A ValueError that says just this: one line, and nothing more."""
    with pytest.raises(ValueError) as error:
        yield
    assert str(error.value) == message


def same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


def kernels(tree, prunable):
    """Path -> prunable leaf, in numpy."""
    leaves = masks.pick(tree, prunable)
    return {path: np.asarray(leaf) for path, leaf in zip(prunable, leaves, strict=True)}


# --- lineages ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "rewinds", "duty"),
    [
        ((90, 60), (0, 0), "end at one step, but have steps 60, 90"),
        (
            (90, 90),
            (30, 0),
            "rewind to one step, unless `rewound` is given, but have steps 0, ",
        ),
    ],
)
def test_lineages_that_one_batch_cannot_train_are_refused(ends, rewinds, duty, tmp_path):
    lines = [Lineage(None, None, {"seed": i}, rewind) for i, rewind in enumerate(rewinds)]
    plan = LevelPlan(
        levels=1,
        prune=None,
        going=lambda line: LevelTraining(True, line.rewind, ends[line.name["seed"]]),
        dense_steps=90,
        copies={},
    )
    session = Session(tmp_path, None, None, None, (), 60.0)
    with pytest.raises(ValueError, match=f"must {duty}"):
        descend(session, plan, lines, after=pytest.fail)
    assert not list(tmp_path.iterdir())


def test_the_steps_of_later_levels_are_those_of_all_their_nets():
    lines = [Lineage(None, None, {"seed": i}) for i in range(2)]
    plan = LevelPlan(
        levels=2,
        prune=None,
        going=lambda line: LevelTraining(True, 30, (90, 130)[line.name["seed"]]),
        dense_steps=90,
        copies={"reinit": 2, "random": 1},
        copies_every=2,
        control_levels=(1,),
        orders=2,
    )
    # level 1: the ticket and one of each of four controls; level 2: ticket, two reinits, random
    assert len(CONTROLS) == 5
    both_lines = 60 + 100
    expected = [(5 + 4) * 2 * both_lines, 4 * 2 * both_lines, 0]
    assert [later_steps(plan, lines, level) for level in range(3)] == expected


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        PAPER,
        {"conv_rate": 0.0, "output_rate": 0.0},
        {"conv_rate": 0.999, "levels": 1, "floor": 0},
    ],
    ids=str,
)
def test_settings_that_can_be_pass(changes):
    check(ImpSettings(**changes))


@pytest.mark.parametrize("name", ["prune_rate", "conv_rate", "output_rate"])
@pytest.mark.parametrize("value", [1.0, 1.5])
def test_a_rate_of_one_or_more_is_refused(name, value):
    least = "above 0 and " if name == "prune_rate" else ""
    with refused(f"{name}={value}: must be {least}below 1"):
        check(ImpSettings(**{name: value}))


@pytest.mark.parametrize("value", [0.0, -0.2, float("nan")])
def test_every_level_must_prune_something(value):
    with refused(f"prune_rate={value}: must be above 0 and below 1"):
        check(ImpSettings(prune_rate=value))


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        ("levels", 0, 1),
        ("floor", -1, 0),
        ("conv_rate", -0.1, 0),
        ("output_rate", float("nan"), 0),
    ],
)
def test_numbers_below_the_least_are_refused(name, value, least):
    with refused(f"{name}={value}: must be {least} or more"):
        check(ImpSettings(**{name: value}))


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("scope", "layer, global"),
        ("rewind", "weights, learning_rate, none"),
        ("criterion", ", ".join(CRITERIA)),
    ],
)
def test_unknown_words_are_refused_with_those_that_are_known(name, known):
    with refused(f"unknown {name} 'lucky': one of {known}"):
        check(ImpSettings(**{name: "lucky"}))


# --- rates and counts ----------------------------------------------------------------------------


def test_rates_are_those_of_the_kind_of_layer():
    shapes = {
        "conv/kernel": (3, 3, 1, 64),
        "fc/kernel": (64, 20),
        "sequence/kernel": (3, 64, 20),
        "outer/kernel": (20, 10),
        "out/kernel": (20, 10),
    }
    rates = imp_plan.rates(ImpSettings(conv_rate=0.15, **PAPER), shapes, "out")
    assert rates == {
        "conv/kernel": 0.15,
        "fc/kernel": 0.2,
        "sequence/kernel": 0.2,
        "outer/kernel": 0.2,
        "out/kernel": 0.1,
    }


def test_a_rate_of_zero_means_that_of_the_other_layers():
    shapes = {"conv/kernel": (3, 3, 1, 64), "out/kernel": (20, 10)}
    settings = ImpSettings(prune_rate=0.3, conv_rate=0, output_rate=0)
    assert imp_plan.rates(settings, shapes, "out") == {"conv/kernel": 0.3, "out/kernel": 0.3}


def test_an_output_layer_that_convolves_is_pruned_as_an_output_layer():
    shapes = {"conv/kernel": (3, 3, 1, 64), "out/kernel": (1, 1, 64, 10)}
    rates = imp_plan.rates(ImpSettings(conv_rate=0.15, **PAPER), shapes, "out")
    assert rates == {"conv/kernel": 0.15, "out/kernel": 0.1}


@pytest.mark.parametrize(
    ("level", "counts"),
    [
        (0, (235_200, 30_000, 1_000)),
        (1, (188_160, 24_000, 900)),
        (2, (150_528, 19_200, 810)),
        (3, (120_422, 15_360, 729)),  # 120,422.4
        (4, (96_338, 12_288, 656)),  # 96,337.92 and 656.1
    ],
)
def test_counts_of_lenet_by_hand(level, counts):
    keep = imp_plan.keep_counts(ImpSettings(**PAPER), LENET, "out", 10, level)
    assert keep == dict(zip(LENET, counts, strict=True))
    assert all(type(count) is int for count in keep.values())


def test_counts_of_a_convolution_by_hand():
    # 576 · 0.9² = 466.56, 1,280 · 0.8² = 819.2, 200 · 0.9² = 162
    shapes = {"conv/kernel": (3, 3, 1, 64), "fc/kernel": (64, 20), "out/kernel": (20, 10)}
    keep = imp_plan.keep_counts(ImpSettings(conv_rate=0.1, **PAPER), shapes, "out", 10, 2)
    assert keep == {"conv/kernel": 467, "fc/kernel": 819, "out/kernel": 162}


def test_ranked_together_there_is_one_count_by_one_rate():
    # 266,200 weights: · 0.8² = 170,368, · 0.8³ = 136,294.4; no layer has a rate of its own.
    settings = ImpSettings(scope="global", conv_rate=0.5, **PAPER)
    assert imp_plan.keep_counts(settings, LENET, "out", 10, 0) == 266_200
    assert imp_plan.keep_counts(settings, LENET, "out", 10, 2) == 170_368
    assert imp_plan.keep_counts(settings, LENET, "out", 10, 3) == 136_294


def test_ranked_together_the_floors_must_fit():
    # 0.5 of 20 weights
    shapes = {"a/kernel": (4, 4), "out/kernel": (2, 2)}
    settings = ImpSettings(scope="global", prune_rate=0.5, floor=6)
    assert imp_plan.keep_counts(settings, shapes, "out", 2, 1) == 10  # the small leaf is kept whole
    with refused("density 0.5 keeps 10 weights, a floor of 7 needs 11"):
        imp_plan.keep_counts(
            ImpSettings(scope="global", prune_rate=0.5, floor=7), shapes, "out", 2, 1
        )


def test_a_layer_that_a_level_empties_is_named():
    # 30,000 · 0.8^49 = 0.54, · 0.8^50 = 0.43
    settings = ImpSettings(prune_rate=0.2, output_rate=0.01)
    assert imp_plan.keep_counts(settings, LENET, "out", 10, 49)["fc2/kernel"] == 1
    with refused(
        "level 50 leaves 0 weights in fc2/kernel, which needs 1: fewer levels or a lower rate"
    ):
        imp_plan.keep_counts(settings, LENET, "out", 10, 50)


def test_an_output_layer_with_fewer_weights_than_classes_is_named():
    # 1,000 · 0.9^44 = 9.7, · 0.9^45 = 8.7; the hidden layer by then holds 2 weights, and may.
    settings = ImpSettings(**PAPER)
    keep = imp_plan.keep_counts(settings, LENET, "out", 10, 44)
    assert keep == {"fc1/kernel": 13, "fc2/kernel": 2, "out/kernel": 10}
    with refused(
        "level 45 leaves 9 weights in out/kernel, which needs 10: fewer levels or a lower rate"
    ):
        imp_plan.keep_counts(settings, LENET, "out", 10, 45)


# --- prune ---------------------------------------------------------------------------------------

PRUNABLE = ("fc1/kernel", "fc2/kernel", "out/kernel")  # of `mlp`: 12 + 20 + 10 weights
MAGNITUDE = CRITERIA["magnitude"]


def square(params, stats, batch, key):
    """A loss that asks for no data."""
    del batch, key
    loss = 0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
    return loss, (stats, {})


def linear(params, stats, images, key, train):
    del key, train
    for layer in params.values():
        images = images @ layer["kernel"]
    return images, stats


def evidence(params, mask):
    batches = Split(jnp.ones((1, 1, 3)), jnp.zeros((1, 1), int))
    model = Model(None, linear)
    return Evidence(params, params, {}, mask, batches, square, model, lambda images: images)


def half(params):
    """Every other weight of each kernel, biases whole."""
    leaves = masks.pick(params, PRUNABLE)
    bits = [(np.arange(leaf.size) % 2 == 0).reshape(leaf.shape) for leaf in leaves]
    return masks.put(masks.ones(params), PRUNABLE, bits)


def of(counts):
    return dict(zip(PRUNABLE, counts, strict=True))


@pytest.mark.parametrize("name", CRITERIA)
def test_pruning_level_by_level_is_exact_and_nested(name, mlp):
    mask = masks.ones(mlp)
    for level, keep in enumerate([of((9, 15, 8)), of((6, 11, 7)), of((3, 7, 5))]):
        # What is pruned grows the largest, so that it would come back if it could.
        grown = jax.tree.map(lambda m, w: jnp.where(m, w, 50.0), mask, mlp)
        key = jax.random.fold_in(KEY, level)
        new = imp.prune(key, CRITERIA[name], evidence(grown, mask), PRUNABLE, keep)
        assert {path: int(leaf.sum()) for path, leaf in kernels(new, PRUNABLE).items()} == keep
        assert all(jax.tree.leaves(jax.tree.map(lambda n, m: bool(jnp.all(m | ~n)), new, mask)))
        assert all(bool(new[layer]["bias"].all()) for layer in new)
        assert all(leaf.dtype == bool for leaf in jax.tree.leaves(new))
        assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, mlp)
        mask = new


def test_the_largest_of_a_layers_survivors_stay(mlp):
    mask, keep = half(mlp), of((4, 7, 2))
    got = kernels(imp.prune(KEY, MAGNITUDE, evidence(mlp, mask), PRUNABLE, keep), PRUNABLE)
    weights, before = kernels(mlp, PRUNABLE), kernels(mask, PRUNABLE)
    for path in PRUNABLE:
        left = np.flatnonzero(before[path])
        largest = left[np.argsort(-np.abs(weights[path].ravel()[left]))][: keep[path]]
        assert set(np.flatnonzero(got[path])) == set(largest)


def test_ranked_together_the_largest_of_all_survivors_stay(mlp):
    mask = half(mlp)  # 6 + 10 + 5 weights
    got = imp.prune(KEY, MAGNITUDE, evidence(mlp, mask), PRUNABLE, 8)
    size = np.abs(np.asarray(masks.flatten(mlp, PRUNABLE)))
    left = np.flatnonzero(masks.flatten(mask, PRUNABLE))
    largest = left[np.argsort(-size[left])][:8]
    assert set(np.flatnonzero(masks.flatten(got, PRUNABLE))) == set(largest)


def test_ranked_together_a_layer_keeps_its_floor(mlp):
    small = {**mlp, "fc1": {**mlp["fc1"], "kernel": mlp["fc1"]["kernel"] / 1000}}
    mask = half(small)
    for floor, there in ((0, 0), (3, 3)):
        new = imp.prune(KEY, MAGNITUDE, evidence(small, mask), PRUNABLE, 9, floor)
        got = kernels(new, PRUNABLE)
        assert sum(leaf.sum() for leaf in got.values()) == 9
        assert got["fc1/kernel"].sum() == there
        assert min(leaf.sum() for leaf in got.values()) >= floor
    left = np.flatnonzero(kernels(mask, PRUNABLE)["fc1/kernel"])
    largest = left[np.argsort(-np.abs(small["fc1"]["kernel"].ravel()[left]))][:3]
    assert set(np.flatnonzero(got["fc1/kernel"])) == set(largest)


@pytest.mark.parametrize("sign", [0.0, -1.0], ids=["zero", "negative"])
def test_a_survivor_outranks_what_is_pruned_whatever_its_score(sign, mlp):
    mask = masks.invert(half(mlp), PRUNABLE)  # the first weights are pruned, and win ties

    @Criterion
    def worthless(key, evidence):
        del key
        return jax.tree.map(lambda w: sign * jnp.abs(w), evidence.params)

    for keep in (of((6, 10, 5)), 21):
        same(imp.prune(KEY, worthless, evidence(mlp, mask), PRUNABLE, keep), mask)


def test_what_is_scored_is_the_end_of_training(mlp):
    ends = jax.tree.map(lambda w: w[::-1] ** 2, mlp)
    seen, keep = evidence(ends, masks.ones(mlp)), of((5, 5, 5))
    expected = imp.prune(KEY, MAGNITUDE, seen, PRUNABLE, keep)
    same(imp.prune(KEY, MAGNITUDE, seen._replace(init_params=mlp), PRUNABLE, keep), expected)
    assert masks.hamming(
        imp.prune(KEY, MAGNITUDE, evidence(mlp, seen.mask), PRUNABLE, keep), expected, PRUNABLE
    )


def test_the_key_reaches_the_criterion(mlp):
    seen, keep = evidence(mlp, masks.ones(mlp)), of((6, 10, 5))
    one, again, other = (
        imp.prune(key, CRITERIA["random"], seen, PRUNABLE, keep) for key in (KEY, KEY, OTHER)
    )
    same(one, again)
    assert masks.hamming(one, other, PRUNABLE)


def test_more_than_is_left_cannot_be_kept(mlp):
    seen = evidence(mlp, half(mlp))
    with refused("keep=11 of the 10 weights left in fc2/kernel"):
        imp.prune(KEY, MAGNITUDE, seen, PRUNABLE, of((6, 11, 5)))
    with refused("keep=22 of the 21 weights left in all leaves"):
        imp.prune(KEY, MAGNITUDE, seen, PRUNABLE, 22)


# --- rewinding -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rewind", "expected"),
    [
        ("weights", LevelTraining(rewound=True, start=50, end=1000)),
        ("learning_rate", LevelTraining(rewound=False, start=50, end=1000)),
        ("none", LevelTraining(rewound=False, start=1000, end=1950)),
    ],
)
def test_a_level_trains_from_the_rewind_step_or_as_long_after_the_end(rewind, expected):
    assert imp.level_training(rewind, 50, 1000) == expected
    assert expected.end - expected.start == 950


def step_of(text, steps=1000, epoch=94, every=20):
    return imp.rewind_step(text, steps, epoch, every)


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("0", 0),
        ("500", 500),
        (" 980 ", 980),
        ("0.0", 0),
        ("0.024", 20),
        ("0.036", 40),
        ("0.5", 500),
        (".98", 980),
        ("0ep", 0),
        ("0.5ep", 40),  # 47
        ("1ep", 100),  # 94
        (" 2ep ", 180),  # 188
    ],
)
def test_rewind_steps_are_steps_or_the_look_nearest_to_fractions_and_epochs(text, step):
    got = step_of(text)
    assert got == step and type(got) is int


def test_where_every_step_is_a_look_fractions_and_epochs_are_exact():
    assert step_of("0.013", every=1) == 13
    assert step_of("3ep", every=1) == 282
    assert step_of("999", every=1) == 999


@pytest.mark.parametrize("text", ["1000", "1010", "1.0", "0.995", "1.5", "11ep", "-20", "-1ep"])
def test_rewind_steps_outside_the_training_are_refused(text):
    with refused(f"rewind_step={text}: must be in the training, which has 1000 steps"):
        step_of(text)


@pytest.mark.parametrize("text", ["510", "1", "999"])
def test_rewind_steps_between_two_looks_are_refused(text):
    with refused(f"rewind_step={text}: must be a multiple of look_every=20"):
        step_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ep",
        "nan",
        "inf",
        "-inf",
        "nanep",
        "infep",
        "1.e400",
        "half",
        "2 epochs",
        "1.2.3",
        "1e3",
    ],
)
def test_what_is_no_step_is_refused(text):
    with refused(f"rewind_step={text}: a step (500), a fraction (0.01) or 2ep"):
        step_of(text)


# --- treatments ----------------------------------------------------------------------------------

SHAPES = {
    "bn": {"scale": (20,)},
    "conv": {"bias": (8,), "kernel": (3, 3, 2, 8)},
    "fc1": {"bias": (20,), "kernel": (20, 20)},
    "fc2": {"bias": (20,), "kernel": (20, 20)},
    "out": {"bias": (5,), "kernel": (20, 5)},
}
TREATED = ("conv/kernel", "fc1/kernel", "fc2/kernel")  # the output layer stays dense
LEFT = dict(zip(TREATED, (40, 120, 90), strict=True))
REINITIALISED, RESHUFFLED = ("reinit", "random"), ("random", "shuffled")


def zeros():
    return jax.tree.map(np.zeros, SHAPES, is_leaf=lambda shape: isinstance(shape, tuple))


def init(key):
    """Weights drawn as masks draw their scores: a key used for both would link the two."""
    stats = {"bn": {"mean": jax.random.uniform(jax.random.fold_in(key, 1), (20,))}}
    return masks.random_scores(key, zeros(), TREATED), stats


@pytest.fixture(scope="module")
def given():
    """A ticket whose weights are all different, so that each can be recognised."""
    draw = np.random.default_rng(0)
    leaves, treedef = jax.tree.flatten(zeros())
    cuts = np.split(draw.permutation(2000) - 1000, np.cumsum([leaf.size for leaf in leaves]))[:-1]
    params = treedef.unflatten(
        [jnp.asarray(cut.reshape(leaf.shape), "f") for cut, leaf in zip(cuts, leaves, strict=True)]
    )
    bits = [
        jnp.asarray(draw.permutation(leaf.size).reshape(leaf.shape) < LEFT[path])
        for path, leaf in kernels(params, TREATED).items()
    ]
    stats = {"bn": {"mean": jnp.arange(20.0)}}
    mask = masks.put(masks.ones(params), TREATED, bits)
    return ControlInputs(Model(init, None), TREATED, params, stats, mask)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_treatment_keeps_the_count_of_each_layer(name, given):
    got = kernels(CONTROLS[name](KEY, given).mask, TREATED)
    assert {path: int(leaf.sum()) for path, leaf in got.items()} == LEFT


@pytest.mark.parametrize("name", CONTROLS)
def test_a_treatment_masks_prunable_leaves_alone(name, given):
    mask = CONTROLS[name](KEY, given).mask
    others = [path for path in masks.paths(mask) if path not in TREATED]
    assert len(others) == 6 and all(leaf.all() for leaf in masks.pick(mask, others))


@pytest.mark.parametrize("name", CONTROLS)
def test_a_treatment_keeps_trees_shapes_and_types(name, given):
    def form(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

    treated = CONTROLS[name](KEY, given)
    for part in ("params", "stats", "mask"):
        assert form(getattr(treated, part)) == form(getattr(given, part))


@pytest.mark.parametrize("name", CONTROLS)
def test_a_treatment_is_a_function_of_its_key(name, given):
    one, again, other = (CONTROLS[name](key, given) for key in (KEY, KEY, OTHER))
    same(one, again)
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    assert any(bool((x != y).any()) for x, y in pairs) == (name != "ticket")


@pytest.mark.parametrize("name", REINITIALISED)
def test_new_initialisations_are_the_models_in_every_leaf(name, given):
    treated = CONTROLS[name](KEY, given)
    key = jax.random.split(KEY)[0] if name == "random" else KEY
    same((treated.params, treated.stats), init(key))


@pytest.mark.parametrize("name", [name for name in CONTROLS if name not in REINITIALISED])
def test_without_a_new_initialisation_all_but_the_prunable_weights_stay(name, given):
    treated = CONTROLS[name](KEY, given)
    same(treated.stats, given.stats)
    others = [path for path in masks.paths(given.params) if path not in TREATED]
    same(masks.pick(treated.params, others), masks.pick(given.params, others))
    if name != "resampled":
        same(treated.params, given.params)


@pytest.mark.parametrize("name", [name for name in CONTROLS if name not in RESHUFFLED])
def test_without_a_new_mask_it_is_the_tickets(name, given):
    same(CONTROLS[name](KEY, given).mask, given.mask)


@pytest.mark.parametrize("name", RESHUFFLED)
def test_a_new_mask_overlaps_with_the_tickets_by_chance_alone(name, given):
    new = kernels(CONTROLS[name](KEY, given).mask, TREATED)
    for path, old in kernels(given.mask, TREATED).items():
        # Hypergeometric: the mean is k²/n, four standard deviations either side.
        k, n = LEFT[path], old.size
        deviation = k * (n - k) / n / np.sqrt(n - 1)
        assert abs((new[path] & old).sum() - k**2 / n) < 4 * deviation


def test_a_random_nets_mask_does_not_follow_its_weights(given):
    treated = CONTROLS["random"](KEY, given)
    seen = evidence(treated.params, masks.ones(treated.mask))
    largest = imp.prune(KEY, MAGNITUDE, seen, TREATED, LEFT)
    assert masks.cosine(treated.mask, largest, TREATED) < 0.5


def test_resampled_weights_are_survivors_of_their_own_layer(given):
    drawn = kernels(CONTROLS["resampled"](KEY, given).params, TREATED)
    weights, kept = kernels(given.params, TREATED), kernels(given.mask, TREATED)
    for path in TREATED:
        assert np.isin(drawn[path], weights[path][kept[path]]).all()


def test_resampled_weights_are_drawn_with_replacement_and_evenly(given):
    keys = [jax.random.fold_in(KEY, i) for i in range(5)]
    draws = [kernels(CONTROLS["resampled"](key, given).params, TREATED) for key in keys]
    weights, kept = kernels(given.params, TREATED), kernels(given.mask, TREATED)
    for path in TREATED:
        k = LEFT[path]
        # A permutation of the survivors would hold each once; drawn anew, 63 % of them turn up.
        distinct = [len(np.unique(draw[path][kept[path]])) for draw in draws]
        assert 0.5 * k < np.mean(distinct) < 0.75 * k
        places = np.stack([draw[path] for draw in draws]).ravel()
        times = np.array([(places == weight).sum() for weight in weights[path][kept[path]]])
        expected = times.sum() / k
        chi2 = ((times - expected) ** 2).sum() / expected
        assert times.min() > 0 and abs(chi2 - (k - 1)) < 4 * np.sqrt(2 * (k - 1))


def test_layers_are_resampled_independently(given):
    twins = [tree | {"fc2": tree["fc1"]} for tree in (given.params, given.mask)]
    params = CONTROLS["resampled"](KEY, given._replace(params=twins[0], mask=twins[1])).params
    assert (params["fc1"]["kernel"] == params["fc2"]["kernel"]).mean() < 0.1


def test_a_floor_above_what_a_layer_has_left_revives_nothing():
    # one weight is left in a: a floor of three keeps that one alone
    mask = {"a": jnp.array([[True, False], [False, False]]), "b": jnp.ones((2, 4), bool)}
    scores = {"a": jnp.full((2, 2), 9.0), "b": jnp.ones((2, 4))}
    evidence = Evidence(scores, scores, {}, mask, None, None)
    pruned = imp.prune(jax.random.key(0), CRITERIA["magnitude"], evidence, ("a", "b"), 6, 3)
    assert pruned["a"].tolist() == [[True, False], [False, False]]
    assert int(pruned["b"].sum()) == 5


@pytest.mark.parametrize("text", ["-0.001", "-0.001ep"])
def test_a_step_before_the_training_is_none_however_near(text):
    with pytest.raises(ValueError, match=r"must be in the training"):
        imp.rewind_step(text, 1000, 100, 50)
