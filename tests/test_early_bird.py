"""Early-bird tickets: when they are drawn, from which weights, what is cut, and what it costs."""

import csv
import dataclasses
import json
from functools import partial

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.early_bird import draw_plan, drawn_tickets
from experiments.early_bird.draw_plan import DrawSettings
from experiments.early_bird.figure import matrix
from experiments.harness.problem import build
from experiments.harness.seeds import seed, training_key
from experiments.harness.training_settings import NetSettings, TrainSettings
from jaxtickets import losses, masks, nets, optimizers, runs, training
from jaxtickets.compress import graph, unit_selection
from jaxtickets.criteria import Evidence
from jaxtickets.dynamic.static import masked
from jaxtickets.io.errors import UserError
from jaxtickets.io.tickets import load_ticket
from jaxtickets.recipes import drawn_masks, early_bird
from jaxtickets.search import space as spaces
from jaxtickets.types import Split


@partial(jax.jit, static_argnums=(1, 2))
def pushed(bits, length, window, tolerance):
    queue = early_bird.empty(bits.shape[1], length)

    def body(queue, row):
        queue, distances = early_bird.push(queue, row, tolerance, window)
        return queue, (distances, queue.drawn)

    return jax.lax.scan(body, queue, bits)


def by_hand(bits, window, tolerance):
    """The rule as a loop: the first epoch whose mask agrees with the `window - 1` before it."""
    for t in range(window, len(bits) + 1):
        newest = bits[t - 1]
        if all(np.mean(newest != bits[t - 1 - k]) <= tolerance for k in range(1, window)):
            return t
    return 0


# --- the rule ------------------------------------------------------------------------------------


def test_the_rule_is_that_of_a_plain_loop_over_the_masks():
    draw, found = np.random.default_rng(0), []
    for case in range(40):
        flips = 0.5 * 0.75 ** np.arange(12)  # masks that settle
        first = draw.random(50) < 0.4
        bits = np.logical_xor.accumulate(
            [first, *(draw.random(50) < share for share in flips[:-1])]
        )
        for window in (2, 5):
            queue, (_, drawn) = pushed(bits, 12, window, tolerance := (0.02, 0.1, 0.25)[case % 3])
            expected = by_hand(bits, window, tolerance)
            assert int(queue.drawn) == expected
            # and nothing is known before its time, nor forgotten after it
            ever = np.where(np.arange(1, 13) >= expected, expected, 0) if expected else np.zeros(12)
            np.testing.assert_array_equal(drawn, ever)
            found.append(expected)
    assert 0 in found and len(set(found)) > 6


def test_the_newest_mask_is_compared_with_the_four_before_and_these_not_with_each_other():
    bits = np.zeros((5, 20), bool)
    for t in range(4):
        bits[t, 2 * t : 2 * t + 2] = True  # 0.1 from the newest, 0.2 from each other
    assert int(pushed(bits, 5, 5, 0.1)[0].drawn) == 5
    assert int(pushed(bits[::-1], 5, 5, 0.1)[0].drawn) == 0
    assert int(pushed(bits, 5, 5, 0.0999)[0].drawn) == 0  # an equal distance agrees, no larger one


def test_four_masks_alike_are_not_enough():
    assert int(pushed(np.ones((4, 9), bool), 5, 5, 1.0)[0].drawn) == 0
    assert int(pushed(np.ones((5, 9), bool), 5, 5, 0.0)[0].drawn) == 5


@pytest.mark.parametrize("length", [5, 9])
def test_distances_are_exact_and_masks_come_back(length):
    bits = np.random.default_rng(1).random((9, 21)) < 0.3  # no whole number of bytes
    queue, (distances, _) = pushed(bits, length, 5, 0.1)
    for t in range(9):
        known = [
            np.float32(np.sum(bits[t] != bits[t - k])) / np.float32(21) for k in range(1, t + 1)
        ]
        expected = [*known, *[np.nan] * length][: length - 1]
        np.testing.assert_array_equal(distances[t], np.array(expected, "f"))
    for epoch in range(10 - length, 10):
        np.testing.assert_array_equal(early_bird.mask_at(queue, epoch, 21), bits[epoch - 1])


def test_a_window_longer_than_the_queue_is_refused():
    with pytest.raises(ValueError, match="window=6: must be from 2 to the queue's length 5"):
        early_bird.push(early_bird.empty(8), np.ones(8, bool), 0.1, 6)


# --- in a training -------------------------------------------------------------------------------

EPOCHS, STEPS = 8, 4


def test_epochs_in_one_program_draw_what_the_kept_weights_say(mlp, evidence):
    def apply(params, stats, images, key=None, train=False):
        return evidence.model.apply(params, stats, images, key, train)

    model, prunable = evidence.model._replace(apply=apply), masks.prunable(mlp)
    draw = np.random.default_rng(2)
    split = Split(draw.integers(0, 256, (20, 3)).astype("u1"), draw.integers(0, 2, 20).astype("i"))
    data = training.Splits(*[jax.tree.map(jnp.asarray, split)] * 2)
    loss = losses.classification(model, evidence.prepare)
    recipe = training.Recipe(
        model, loss, lambda rate: optimizers.optimizer("sgd", rate), evidence.prepare, None, 5, 2
    )
    space, keep = spaces.weights(mlp, prunable), (21, 6)
    keep_at = tuple(range(0, EPOCHS * STEPS + 1, STEPS))

    def masks_now(state):
        scores = space.pool(jax.tree.map(jnp.abs, state.params))
        return drawn_masks.choose_all(space, scores, jnp.array(keep))

    @jax.jit
    def run(rate):
        bird = early_bird.begin(mlp, {}, space.size, len(keep), EPOCHS)
        sgd = masked(recipe.optimizer(rate), masks.ones(mlp))
        state = training.init(mlp, {}, sgd, method_state=bird)
        begun = training.watch(state, keep_at)
        given = recipe, jax.random.key(3), rate

        def body(watched, _):
            return early_bird.epoch(
                *given, watched, data, STEPS, masks_now, 0.1, window=3, keep_at=keep_at
            )

        return jax.lax.scan(body, begun, None, EPOCHS)

    ends, metrics = run(1.0)
    bird = ends.state.method_state
    drawn = []
    for row, kept in enumerate(keep):
        queue = runs.take(bird.queue, row)
        by_weights = []
        for epoch in range(1, EPOCHS + 1):
            params = runs.take(ends.kept[0], epoch)
            mask = masks.select(jax.tree.map(jnp.abs, params), prunable, kept)
            by_weights.append(np.asarray(masks.flatten(mask, prunable)))
            found = early_bird.mask_at(queue, epoch, space.size)
            np.testing.assert_array_equal(found, by_weights[-1])
        drawn.append(by_hand(by_weights, 3, 0.1))
        assert int(queue.drawn) == drawn[-1]
        expected = runs.take(ends.kept[0], drawn[-1])  # the weights of that epoch, no later ones
        jax.tree.map(np.testing.assert_array_equal, runs.take(bird.params, row), expected)
        far = [np.mean(by_weights[-1] != one) for one in by_weights[-2::-1]]
        np.testing.assert_allclose(metrics["distances"][-1, row], far, rtol=1e-6)
    assert 0 < min(drawn) < EPOCHS and len(set(by_weights[0] != by_weights[-1])) == 2


# --- units ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def residual():
    """A ResNet-20 of few channels, whose groups share some: its graph and its parameters."""
    net = nets.make("resnet20", widths=(4, 3, 3, 3, 6, 4, 4, 4, 8, 5, 5, 5))
    traced = graph.trace(net, (8, 8, 3))
    params = jax.eval_shape(nets.functional(net, (8, 8, 3)).init, jax.random.key(0))[0]
    return traced, params


def test_units_are_chosen_as_compress_chooses_them_shared_ones_too(residual):
    traced, params = residual
    space = early_bird.unit_space(params, traced)
    assert space.size < sum(map(len, traced.units.values()))  # some are shared
    back = jax.jit(lambda bits: space.bits(space.mask(bits)))
    draw = np.random.default_rng(4)
    for floor in (1, 2):
        scores = {name: draw.random(len(p)).astype("f") for name, p in traced.units.items()}
        keep = round(0.6 * space.size)
        bits = drawn_masks.choose_all(space, space.pool(scores), jnp.array([keep]), floor)[0]
        expected = unit_selection.over_layers(traced, scores, 0.6, floor)
        found = early_bird.units_of(traced, bits)
        for name, units in expected.items():
            np.testing.assert_array_equal(found[name], units)
        np.testing.assert_array_equal(back(bits), bits)


def test_annealed_masks_are_exact_better_than_their_start_and_the_weights_alone_decide(
    mlp, evidence
):
    def apply(params, stats, images, key=None, train=False):
        return evidence.model.apply(params, stats, images, key, train)

    space, keep = spaces.weights(mlp, masks.prunable(mlp)), (21, 6)
    seen = evidence._replace(model=evidence.model._replace(apply=apply))

    @partial(jax.jit, static_argnums=0)
    def draw(steps, step, params):
        found = drawn_masks.annealed(space, steps, keep, floor=1)
        return found(jax.random.key(0), step, seen._replace(params=params))

    bits = draw(200, 4, evidence.params)
    assert bits.sum(1).tolist() == list(keep)
    assert all((np.array(spaces.counts(space, row)) >= 1).all() for row in bits)
    np.testing.assert_array_equal(draw(200, 8, evidence.params), bits)
    others = jax.tree.map(lambda w: w[..., ::-1], evidence.params)
    assert (draw(200, 4, others) != bits).any()

    @jax.jit
    def loss(row):
        images, labels = (a.reshape(-1, *a.shape[2:]) for a in evidence.batches)
        params = masks.apply(space.mask(row), evidence.params)
        return losses.cross_entropy(apply(params, {}, evidence.prepare(images))[0], labels)

    begins = draw(1, 4, evidence.params)
    for found, begun in zip(bits, begins, strict=True):
        assert loss(found) < loss(begun)
    assert (begins[1] & ~begins[0]).sum() > 1  # not nested, but for the bit that a step swaps


@pytest.mark.parametrize("own", [False, True])
def test_masks_by_chance_of_several_densities_are_nested_unless_they_have_scores_of_their_own(
    own, mlp, evidence
):
    space = spaces.weights(mlp, masks.prunable(mlp))
    score = lambda key, seen: jax.random.uniform(key, (space.size,))  # noqa: E731
    found = drawn_masks.ranked(space, score, (30, 12), floor=1, own=own)
    large, small = found(jax.random.key(0), jnp.int32(3), evidence)
    assert (large.sum(), small.sum()) == (30, 12)
    assert bool((small & ~large).any()) is own


def test_early_birds_by_chance_have_scores_of_their_own(problem):
    settings = dataclasses.replace(SETTINGS, criterion="random", density=(0.5, 0.1))
    plan = draw_plan.plan_draws(settings, problem)
    params = seed(problem, 0).params
    seen = Evidence(params, params, {}, masks.ones(params), None, None)
    large, small = plan.masks(jax.random.key(0), jnp.int32(3), seen)
    inside = np.mean(large[small])
    assert abs(inside - 0.5) < 4 * np.sqrt(0.25 / small.sum())


# --- tickets -------------------------------------------------------------------------------------

SETTINGS = DrawSettings(density=(0.25,), draw_at=(2,))


def problem_of(**settings):
    train = TrainSettings(batch_size=500, **{"epochs": 8, **settings})
    return build(NetSettings(model="lenet300_100"), train, "", False)


@pytest.fixture(scope="module")
def problem():
    return problem_of()


def flown(plan, problem, drawn):
    """The end of a search without training, drawn at `drawn`; epoch e has e in all biases."""
    one = seed(problem, 0)
    keep, bits = next(iter(plan.keep.values())), []
    for epoch in range(1, plan.epochs + 1):
        alike = drawn - 4 <= epoch <= drawn
        order = np.random.default_rng(0 if alike else epoch).permutation(plan.space.size)
        bits.append(order < keep)
    queue, _ = pushed(np.array(bits), plan.epochs, 5, 0.1)
    assert int(queue.drawn) == drawn

    def weights(epoch):
        return jax.tree.map(lambda w: jnp.full_like(w, epoch) if w.ndim == 1 else w, one.params)

    bird = early_bird.DrawState(queue, weights(drawn), {})
    bird = jax.tree.map(lambda leaf: leaf[None], bird)
    sgd = masked(problem.recipe.optimizer(problem.hyper), masks.ones(one.params))
    state = training.init(weights(plan.epochs), {}, sgd, method_state=bird)
    kept = jax.tree.map(lambda leaf: leaf[None], weights(plan.draw_at[0])), {}
    ends = training.watch(state)._replace(kept=kept)
    return one, jax.tree.map(lambda leaf: leaf[None], ends), bits


def made(settings, problem, drawn=7):
    plan = draw_plan.plan_draws(settings, problem)
    one, ends, bits = flown(plan, problem, drawn)
    groups = drawn_tickets.tickets(plan, problem, [one], ends)
    entries = {e.name["method"]: (g.problem, e) for g in groups for e in g.entries}
    return plan, bits, entries


def test_tickets_go_on_where_they_were_drawn_and_pay_for_what_they_took(problem):
    plan, bits, entries = made(SETTINGS, problem)
    steps = {method: int(entry.start.step) for method, (_, entry) in entries.items()}
    epoch = problem.steps // 8
    assert steps == {
        **dict.fromkeys(("early_bird", "random_layerwise", "late_mask"), 7 * epoch),
        "drawn_at_2": 2 * epoch,
        "late": 0,
    }
    biases = {m: float(e.start.params["fc1"]["bias"][0]) for m, (_, e) in entries.items()}
    assert biases == {
        **dict.fromkeys(("early_bird", "random_layerwise", "late_mask"), 7),
        "drawn_at_2": 2,
        "late": 8,
    }
    cuts = {m: np.asarray(plan.space.bits(e.start.mask)) for m, (_, e) in entries.items()}
    for method, at in (("early_bird", 7), ("late_mask", 8), ("drawn_at_2", 2), ("late", 8)):
        np.testing.assert_array_equal(cuts[method], bits[at - 1])
    chance, mine = cuts["random_layerwise"], cuts["early_bird"]
    assert (chance != mine).mean() > 0.3
    np.testing.assert_array_equal(
        spaces.counts(plan.space, chance), spaces.counts(plan.space, mine)
    )
    share = np.mean(mine)
    costs = {m: e.name["dense_trainings"] for m, (_, e) in entries.items()}
    assert costs["early_bird"] == pytest.approx(7 / 8 + share * 1 / 8, abs=1e-6)
    assert costs["late_mask"] == pytest.approx(1 + share * 1 / 8, abs=1e-6)
    assert costs["late"] == pytest.approx(1 + share, abs=1e-6)


def test_trained_anew_all_begin_at_step_0_in_another_order(problem):
    _, _, entries = made(dataclasses.replace(SETTINGS, after="retrain"), problem)
    assert {int(entry.start.step) for _, entry in entries.values()} == {0}
    keys = [jax.random.key_data(entry.start.key) for _, entry in entries.values()]
    assert all((key == keys[0]).all() for key in keys)
    assert (keys[0] != jax.random.key_data(training_key(seed(problem, 0)))).any()
    share = entries["early_bird"][1].name["multiply_adds"]
    cost = entries["early_bird"][1].name["dense_trainings"]
    assert cost == pytest.approx(7 / 8 + share, abs=1e-5)


def test_units_go_for_real(problem):
    settings = dataclasses.replace(SETTINGS, granularity="units")
    plan, bits, entries = made(settings, problem)
    assert plan.settings.criterion == "mean_abs"  # there is no batch norm
    for method, at in (("early_bird", 7), ("late_mask", 8), ("drawn_at_2", 2)):
        small, entry = entries[method]
        a, b = int(bits[at - 1][:300].sum()), int(bits[at - 1][300:].sum())
        assert a + b == 100
        assert small.net.widths == (a, b)
        assert entry.start.params["fc2"]["kernel"].shape == (a, b)
        adds = (784 * a + a * b + 10 * b) / (784 * 300 + 300 * 100 + 1000)
        assert entry.name["multiply_adds"] == pytest.approx(adds, abs=1e-6)
        images = np.zeros((1, 28, 28, 1), "f")
        assert small.recipe.model.apply(entry.start.params, {}, images)[0].shape == (1, 10)
        rows = np.flatnonzero(bits[at - 1][:300])
        np.testing.assert_array_equal(
            entry.start.params["fc1"]["kernel"], seed(problem, 0).params["fc1"]["kernel"][:, rows]
        )
    assert entries["random_layerwise"][0] is entries["early_bird"][0]  # one net, one batch


def test_the_search_has_the_penalty_on_scales_and_its_tickets_have_none(problem):
    net = NetSettings(model="lenet5", widths="2,3,4", batch_norm=True)
    normed = build(net, TrainSettings(batch_size=500, epochs=8), "", False)
    settings = dataclasses.replace(SETTINGS, granularity="units", scale_l1=0.5, density=(0.5,))
    plan = draw_plan.plan_draws(settings, normed)
    shapes, _ = jax.eval_shape(normed.recipe.model.init, jax.random.key(0))
    ones = jax.tree.map(lambda a: np.ones(a.shape, "f"), shapes)
    assert float(plan.search.penalty(ones)) == 0.5 * (2 + 3 + 4)
    penalised = problem._replace(penalty=plan.search.penalty)
    _, _, entries = made(SETTINGS, penalised)
    assert entries and all(ticket.penalty is None for ticket, _ in entries.values())


def test_what_was_drawn_at_the_last_epoch_is_no_early_bird(problem):
    _, _, entries = made(SETTINGS, problem, drawn=8)
    assert set(entries) == {"drawn_at_2", "late"}


def test_bad_settings_are_refused(problem):
    def refused(words, problem=problem, **settings):
        with pytest.raises(UserError, match=words):
            draw_plan.plan_draws(dataclasses.replace(SETTINGS, **settings), problem)

    refused("fc1 has no batch norm", granularity="units", criterion="abs_batch_norm")
    refused("unknown unit criterion 'magnitude'", granularity="units", criterion="magnitude")
    refused("must be whole epochs of 7", problem=problem_of(iterations=10, look_every=5))
    refused("must be a multiple of 14", problem=problem_of(look_every=14))


# --- records -------------------------------------------------------------------------------------


def test_the_figures_matrix_is_the_mean_of_the_seeds_and_symmetric():
    rows = [
        {"seed": 0, "epoch": 1, "distances": []},
        {"seed": 0, "epoch": 2, "distances": [0.5]},
        {"seed": 0, "epoch": 3, "distances": [0.25, 0.75]},
        {"seed": 4, "epoch": 1, "distances": []},
        {"seed": 4, "epoch": 2, "distances": [0.0]},
        {"seed": 4, "epoch": 3, "distances": [0.25, 0.25]},
    ]
    expected = [[0, 0.25, 0.5], [0.25, 0, 0.25], [0.5, 0.25, 0]]
    np.testing.assert_array_equal(matrix(rows, 3), expected)


def test_a_runs_records_agree_with_its_tickets(smokes):
    folder, done = smokes("early_bird")
    searched = [row for row in commands.metrics(folder) if row["phase"] == "search"]
    seen = {(row["seed"], row["epoch"]): row for row in searched if "distances" in row}
    with (folder / "drawn.csv").open() as file:
        drawn = {int(row["seed"]): int(row["drawn"]) for row in csv.DictReader(file)}
    last = max(epoch for _, epoch in seen)
    assert last == json.loads((folder / "spec.json").read_text())["epochs"]
    early = 0
    for number, epoch in drawn.items():
        near = [e for e in range(5, last + 1) if max(seen[number, e]["distances"][:4]) <= 0.1]
        assert epoch == (near[0] if near else 0)
        assert [seen[number, e]["drawn"] for e in range(1, last + 1)] == [
            epoch if epoch and e >= epoch else 0 for e in range(1, last + 1)
        ]
        if 0 < epoch < last:
            early += 1
            mine, late = (
                load_ticket(folder / "tickets" / f"{method}-density0.3-seed{number}")[0]
                for method in ("early_bird", "late")
            )
            prunable = masks.prunable(mine.params)
            far = masks.hamming(mine.mask, late.mask, prunable) / masks.size(mine.mask, prunable)
            recorded = seen[number, last]["distances"][last - epoch - 1]
            assert float(far) == pytest.approx(recorded, abs=1e-7)
            assert int(mine.rewind_step) == epoch * 27
    assert early
    summary = commands.summary(folder)
    assert sum(row["method"] == "early_bird" for row in summary) == early
    assert all(float(row["saved"]) == 0 for row in summary if row["method"] == "late")
    assert f"drawn by {sum(map(bool, drawn.values()))} of {len(drawn)} seeds" in done.stdout


def test_annealing_is_paid_for(problem):
    costs = []
    for name in ("", "annealed"):
        settings = dataclasses.replace(SETTINGS, criterion=name, anneal_steps=9)
        entries = made(settings, problem)[2]
        costs.append({m: entry.name["dense_trainings"] for m, (_, entry) in entries.items()})
    look = 10 * 1000 / (3 * problem.steps * 500)
    looks = {m: (costs[1][m] - costs[0][m]) / look for m in costs[0]}
    # the rule looked seven times; the last epoch's mask on those weights takes one more
    expected = {"early_bird": 7, "random_layerwise": 7, "late_mask": 8, "drawn_at_2": 1, "late": 1}
    assert looks == pytest.approx(expected, abs=1e-3)


def test_a_run_of_annealed_masks(cache, tmp_path):
    folder = tmp_path / "run"
    extra = ("--criterion=annealed", "--anneal_steps=20", "--seeds=1", "--density=0.5")
    words = commands.command("early_bird", "--smoke", f"--out={folder}", *extra)
    done = commands.run(words, cache)
    assert done.returncode == 0, done.stderr
    rows = {row["method"]: row for row in commands.summary(folder)}
    kept = sum(int(value) for name, value in rows["late"].items() if name.startswith("kept/"))
    assert kept == 133_100


@pytest.mark.parametrize(
    ("said", "epochs", "meant"),
    [
        ((0.05, 0.1, 0.25, 0.5, 0.75), 20, (1, 2, 5, 10, 15)),
        ((0.05, 0.1, 0.25, 0.5, 0.75), 6, (1, 2, 3, 4)),  # 1.5 and 4.5 are rounded to even
        (("7", "0.5"), 8, (4, 7)),
        ((0.9,), 2, ()),
        ((), 5, ()),
    ],
)
def test_draws_are_at_epochs_or_at_shares_of_them(said, epochs, meant):
    assert draw_plan._epochs_of(said, epochs) == meant
