"""The contract of sparse optimisers: what every one of them promises, in any loop."""

import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import masks, training
from jaxtickets.dynamic import history, rules
from jaxtickets.dynamic.deep_rewiring import soft_deep_rewiring
from jaxtickets.dynamic.drop_and_grow import MovePlan, drop_and_grow
from jaxtickets.dynamic.drop_and_grow import plan as plan_moves
from jaxtickets.dynamic.flipout import flipout
from jaxtickets.dynamic.ham import ham
from jaxtickets.dynamic.langevin import langevin
from jaxtickets.dynamic.methods import METHODS
from jaxtickets.dynamic.powerpropagation import powerpropagation
from jaxtickets.dynamic.proximal import group_lasso
from jaxtickets.dynamic.static import masked
from jaxtickets.io import checkpoints
from jaxtickets.types import Split

QUICK = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
KEY = jax.random.key(0)
PRUNABLE = ("a/kernel", "b/kernel")
SIZES = {"a/kernel": 30, "b/kernel": 15}
MOVES, EVERY, CALLS = 4, 3, 20  # moves are calls 3, 7, 11 and 15; call 19 is past the plan
SPARSE, BETWEEN, END = {"a/kernel": 14, "b/kernel": 10}, 36, 20


class Row(NamedTuple):
    """A method in the table.

    Attributes:
      method: its name in `METHODS`.
      make: what makes it in place of `Method.make`.
      extra: further arguments of `make`.
      plan: further arguments of its plan.
      wrap: makes the inner optimiser of an optax one.
      exact: whether it keeps an exact number of weights.
    """

    method: str
    make: Callable[..., Any] | None = None
    extra: Mapping[str, Any] = {}
    plan: Mapping[str, Any] = {}
    wrap: Callable[[Any], Any] = lambda inner: inner
    exact: bool = True


LOUD = {"noise": 0.1, "decay": 0.01}  # so that weights cross zero in a few steps
HAM = partial(ham, rate=0.01, alpha=1.0)
NOISY = partial(langevin, rate=0.01, prunable=PRUNABLE, key=jax.random.key(9), temperature=1e-3)
LASSO = partial(group_lasso, rate=0.01, strength=0.1, prunable=PRUNABLE)
POWERS = partial(powerpropagation, prunable=PRUNABLE)
ROWS = {
    "static": Row("static"),
    "set": Row("set"),
    "rigl": Row("rigl"),
    "sparse_momentum": Row("sparse_momentum"),
    "sparse_momentum, adaptive": Row("sparse_momentum", extra={"adaptive": True}),
    "chts": Row("chts"),
    "deep_rewiring": Row("deep_rewiring", extra=LOUD),
    "deep_rewiring, soft": Row("deep_rewiring", soft_deep_rewiring, LOUD, exact=False),
    "granet": Row("granet"),
    "granet, global": Row("granet", extra={"shares": "global"}),
    "annealed_granet": Row("annealed_granet"),
    "gradual": Row("gradual"),
    "flipout": Row("flipout", plan={"cuts": 3}),
    "gsm": Row("gsm", plan={"cut_at": 0.5}),
    "acdc": Row("acdc", plan={"first": 0.25, "period": 0.25}),
    "rigl in ham": Row("rigl", wrap=HAM),
    "rigl in noise": Row("rigl", wrap=NOISY),
    "gradual in powers": Row("gradual", wrap=POWERS),
}
WRAPPED = {
    **{
        f"{name} in ham": ROWS[name]._replace(wrap=HAM)
        for name in ROWS
        if name not in ("rigl", "gradual in powers", "rigl in ham", "rigl in noise")
    },
    **{f"{name} in powers": ROWS[name]._replace(wrap=POWERS) for name in ("static", "flipout")},
    "gsm in powers": ROWS["gsm"]._replace(wrap=POWERS),
    **{f"{name} in lasso": ROWS[name]._replace(wrap=LASSO) for name in ("static", "rigl")},
}
"""The same in other inner optimisers; weights that train as powers are only pruned."""
ALL = ROWS | WRAPPED
MOVING = [name for name, row in ROWS.items() if METHODS[row.method].plan]
INNERS = {
    "clipped sgd": optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1)),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(0.01),
    "adamw": optax.adamw(0.01, weight_decay=0.1),
}
CASES = [("clipped sgd", 0), ("momentum", 1), ("adam", 0), ("adamw", 9)]
"""Inner optimisers and floors."""


def test_every_method_has_a_row():
    assert {row.method for row in ROWS.values()} == set(METHODS)


def start():
    first, second = jax.random.split(KEY)
    return {
        "a": {"bias": jnp.ones(5), "kernel": jax.random.normal(first, (6, 5))},
        "b": {"kernel": jax.random.normal(second, (5, 3))},
    }


def loss(params, stats, batch, key):
    """Linear with coefficients from the batch, and a bowl."""
    del key
    slopes, place, total = jnp.mean(batch.images, 0), 0, 0.0
    for leaf in jax.tree.leaves(params):
        total += jnp.sum(leaf * slopes[place : place + leaf.size].reshape(leaf.shape) + leaf**2 / 9)
        place += leaf.size
    return total, (stats, {"loss": total})


BATCHES = Split(jax.random.normal(KEY, (CALLS, 4, 50)), jnp.zeros((CALLS, 4), int))


def first_count(row):
    begin, counts = METHODS[row.method].begin, METHODS[row.method].counts
    total = {"sparse": sum(SPARSE.values()), "between": BETWEEN, "dense": sum(SIZES.values())}
    return SPARSE if counts == "leaf" else total[begin]


def plan_of(row, floor=0):
    method, begin = METHODS[row.method], first_count(row)
    if method.plan is None:
        return None
    end = begin if method.begin == "sparse" else END
    return method.plan(moves=MOVES, begin=begin, end=end, floor=floor, **row.plan)


def first_mask(row, floor=0, key=KEY):
    return masks.random(key, start(), PRUNABLE, first_count(row), floor)


def build(name, inner, mask, key=KEY, floor=0, moves=None, **extra):
    """The row's sparse optimiser."""
    row = ALL[name]
    make = row.make or METHODS[row.method].make
    known = {
        "inner": row.wrap(INNERS[inner]),
        "mask": mask,
        "prunable": PRUNABLE,
        "moves": plan_of(row, floor) if moves is None else moves,
        "every": EVERY,
        "floor": floor,
        "key": key,
        "steps": CALLS,
        "signs": start(),
    }
    taken = inspect.signature(make).parameters
    return make(**{n: v for n, v in known.items() if n in taken}, **row.extra, **extra)


def own_loop(optimizer, params, batches):
    """A plain optax loop over the batches: all parameters and states on its way."""

    def body(carry, batch):
        params, state = carry
        gradient = jax.grad(lambda p: loss(p, {}, batch, KEY)[0])(params)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state)

    return jax.lax.scan(body, (params, optimizer.init(params)), batches)[1]


@cache
def program(name, inner, floor):
    """`run(mask, key) -> parameters and states`, `[CALLS, ...]`."""

    def run(mask, key):
        begin = masks.apply(mask, start())
        return own_loop(build(name, inner, mask, key, floor), begin, BATCHES)

    return QUICK(run)


@cache
def trajectory(name, inner, floor):
    return program(name, inner, floor)(first_mask(ALL[name], floor), KEY)


def at(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def bits(tree):
    """The tree with keys as the numbers that they are."""

    def leaf(x):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    return jax.tree.map(leaf, tree)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, bits(a), bits(b))


every_row = pytest.mark.parametrize("name", ROWS)
every_moving_row = pytest.mark.parametrize("name", MOVING)
every_case = pytest.mark.parametrize(
    ("name", "inner", "floor"),
    [(name, *case) for name in ROWS for case in CASES]
    + [(name, "momentum", 1) for name in WRAPPED],
)


@every_case
def test_after_every_update_pruned_parameters_are_zero(name, inner, floor):
    params, state = trajectory(name, inner, floor)
    assert_same(params, masks.apply(state.mask, params))
    assert np.all(state.mask["a"]["bias"]) and np.all(params["a"]["bias"])
    counted = range(1, CALLS + 1) if ALL[name].method != "static" else [0] * CALLS
    assert state.calls.tolist() == list(counted)
    moved = [np.any(a[1:] != a[:-1]) for a in jax.tree.leaves(state.mask)]
    assert any(moved) == (ALL[name].method != "static")


@every_case
def test_counts_are_exact_after_every_update(name, inner, floor):
    row = ALL[name]
    _, state = trajectory(name, inner, floor)
    kept = jax.vmap(lambda mask: masks.counts(mask, PRUNABLE))(state.mask)
    if not row.exact:
        assert all(np.all(kept[path] >= 0) for path in PRUNABLE)
        return
    begin, planned = first_count(row), plan_of(row, floor)
    done = (np.arange(CALLS) + 1) // (EVERY + 1)  # moves

    def expected(begin, ones):
        return np.array([begin, *ones, ones[-1]])[done]

    if METHODS[row.method].counts == "leaf":
        for path in PRUNABLE:
            ones = planned.ones[path] if planned else [begin[path]] * MOVES
            np.testing.assert_array_equal(kept[path], expected(begin[path], ones))
    else:
        total = sum(kept[path] for path in PRUNABLE)
        np.testing.assert_array_equal(total, expected(begin, planned.ones))
    for path in PRUNABLE:
        assert np.all(kept[path] >= min(floor, SIZES[path]))


def moments(state):
    """(layer, array[calls, ...]) for all of the inner state that has one number for each weight."""
    shapes = {(6, 5): "a", (5, 3): "b"}
    for leaf in jax.tree.leaves(state.inner):
        if leaf.shape[1:] in shapes:
            yield shapes[leaf.shape[1:]], leaf


@pytest.mark.parametrize(
    ("name", "inner"),
    [(name, inner) for name in ROWS for inner in ("momentum", "adamw")]
    + [(name, "momentum") for name in WRAPPED],
)
def test_moments_of_what_is_grown_are_fresh_and_those_of_what_is_kept_stay(name, inner):
    params, state = trajectory(name, inner, dict(CASES)[inner])
    seen = [*moments(state), *((layer, params[layer]["kernel"]) for layer in "ab")]
    assert len(seen) == {"momentum": 1, "adamw": 2}[inner] * 2 + 2
    for layer, values in seen:
        mask, values = np.asarray(state.mask[layer]["kernel"]), np.asarray(values)
        assert np.any(values)
        for i in range(1, CALLS):
            if (
                METHODS[ALL[name].method].plan and i % (EVERY + 1) == EVERY
            ):  # of what moves back, too
                both = mask[i - 1] & mask[i]
                np.testing.assert_array_equal(values[i], np.where(both, values[i - 1], 0))
    for layer, values in moments(state):
        mask, values = np.asarray(state.mask[layer]["kernel"]), np.asarray(values)
        for i in range(1, CALLS):
            assert not np.any(values[i][mask[i] & ~mask[i - 1]])
            assert not np.any(values[i][~mask[i]])


@every_row
def test_our_loop_has_the_masks_of_a_plain_one_and_its_chunks_and_checkpoints_make_a_whole(
    name, tmp_path
):
    optimizer = build(name, "adam", first_mask(ROWS[name]))
    ours = QUICK(partial(training.advance, loss, optimizer, KEY))
    state = training.init(start(), {}, optimizer)
    whole, _ = ours(state, BATCHES)
    half = CALLS // 2  # between two moves
    state, _ = ours(state, jax.tree.map(lambda leaf: leaf[:half], BATCHES))
    params, states = trajectory(name, "adam", 0)
    assert_same(state.mask, at(states.mask, half - 1))
    checkpoints.save(tmp_path, half, state)
    template = jax.eval_shape(lambda: training.init(start(), {}, optimizer))
    step, state = checkpoints.restore(tmp_path, template)
    assert step == half
    state, _ = ours(state, jax.tree.map(lambda leaf: leaf[half:], BATCHES))
    assert_same(state, whole)
    assert_same(state.mask, at(states.mask, -1))
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, state.params, at(params, -1))  # as two programs round


@every_row
def test_runs_of_a_batch_have_the_masks_that_they_have_alone(name):
    keys = jax.random.split(KEY, 3)
    many = [first_mask(ROWS[name], key=key) for key in keys]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
    run = program(name, "adam", 0)
    together = QUICK(jax.vmap(lambda mask, key: run.__wrapped__(mask, key)[1].mask))(stacked, keys)
    for i, mask in enumerate(many):
        assert_same(at(together, i), run(mask, keys[i])[1].mask)


@every_moving_row
def test_moves_that_the_loop_asks_for_are_those_that_calls_are_counted_for(name):
    optimizer = build(name, "adam", first_mask(ROWS[name]))
    step = QUICK(partial(training.step, loss, optimizer, KEY), static_argnames="move")
    state = training.init(start(), {}, optimizer)
    params, states = trajectory(name, "adam", 0)
    for i in range(CALLS):
        state, _ = step(state, at(BATCHES, i), move=i % (EVERY + 1) == EVERY)
        assert_same(state.mask, at(states.mask, i))
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, state.params, at(params, -1))


@cache
def gradient_of(i):
    return QUICK(jax.grad(lambda p: loss(p, {}, at(BATCHES, i), KEY)[0]))(start())


def op_by_op(optimizer, asked):
    """The parameters, the mask and the inner state at the end, of no fused operations.

    Moves are asked for by `asked` and have a gradient of their own.
    """
    params = start()
    state = optimizer.init(params)
    for i in range(EVERY + 1):
        move = {"move": i == EVERY} if asked else {}
        if asked or i < EVERY:
            updates, state = optimizer.update(gradient_of(i), state, params, **move)
            params = optax.apply_updates(params, updates)
    return params, state.mask, state.inner


@cache
def static_end(wrap):
    return op_by_op(masked(wrap(INNERS["adam"]), first_mask(ROWS["static"])), asked=False)


@every_moving_row
def test_moves_that_change_nothing_are_static_masking_bit_for_bit(name):
    row = ROWS[name]
    leafwise = METHODS[row.method].counts == "leaf"
    moves = plan_moves(MOVES, *[SPARSE if leafwise else sum(SPARSE.values())] * 2)
    quiet = {"noise": 0.0} if row.method == "flipout" else {}
    optimizer = build(name, "adam", first_mask(ROWS["static"]), moves=moves, **quiet)
    assert_same(op_by_op(optimizer, asked=True), static_end(row.wrap))


@pytest.mark.parametrize("shares", ["leaf", "global"])
def test_without_heat_annealed_granet_is_granet_bit_for_bit(shares):
    name = {"leaf": "granet", "global": "granet, global"}[shares]
    cold = build(
        *("annealed_granet", "adam", first_mask(ROWS["granet"])),
        shares=shares,
        drop_heat=jnp.float32(0),
        grow_heat=jnp.float32(0),
    )
    params, state = QUICK(lambda: own_loop(cold, start(), BATCHES))()
    greedy = build(name, "adam", first_mask(ROWS["granet"]))
    wanted, its = QUICK(lambda: own_loop(greedy, start(), BATCHES))()
    assert_same((params, state.mask, state.inner), (wanted, its.mask, its.inner))
    hot = build("annealed_granet", "adam", first_mask(ROWS["granet"]), shares=shares)
    other = QUICK(lambda: own_loop(hot, start(), BATCHES))()[1].mask
    assert int(masks.hamming(at(other, -1), at(state.mask, -1), PRUNABLE)) > 0


@pytest.mark.parametrize("move", [True, False])
@pytest.mark.parametrize("name", ["rigl", "granet", "sparse_momentum"])
def test_parameters_that_do_not_obey_the_mask_do_after_an_update(name, move):
    optimizer = build(name, "momentum", first_mask(ROWS[name]))
    state, params = optimizer.init(start()), start()
    for _ in range(2):
        updates, state = optimizer.update(params, state, start(), move=move)
        after = optax.apply_updates(params, updates)
        assert_same(after, masks.apply(state.mask, after))


def test_a_gradient_of_nan_leaves_counts_exact():
    for name in ("rigl", "granet", "granet, global"):
        optimizer = build(name, "momentum", first_mask(ROWS[name]))
        wrong = jax.tree.map(lambda leaf: leaf * jnp.nan, start())
        _, state = QUICK(partial(optimizer.update, move=True))(
            wrong, optimizer.init(start()), start()
        )
        ones = plan_of(ROWS[name]).ones
        count = sum(int(o[0]) for o in ones.values()) if name == "rigl" else int(ones[0])
        assert int(masks.count(state.mask, PRUNABLE)) == count


def test_a_plan_may_be_traced():
    plans = jax.tree.map(
        lambda *leaves: jnp.stack(leaves),
        plan_moves(4, 30, 20, floor=0),
        plan_moves(4, 30, 10, floor=0),
    )
    mask = masks.random(KEY, start(), PRUNABLE, 30)

    def run(moves):
        return own_loop(build("gradual", "adam", mask, moves=moves), start(), BATCHES)[1].mask

    ends = at(QUICK(jax.vmap(run))(plans), (slice(None), -1))
    assert jax.vmap(lambda mask: masks.count(mask, PRUNABLE))(ends).tolist() == [20, 10]


def test_a_history_holds_what_was_ever_kept_and_how_many_were_grown():
    optimizer = build("rigl", "adam", first_mask(ROWS["rigl"]))
    watched = history.with_history(optimizer, PRUNABLE)
    _, seen = QUICK(partial(own_loop, watched))(start(), BATCHES)
    _, state = trajectory("rigl", "adam", 0)
    flat = np.concatenate(
        [np.asarray(state.mask[layer]["kernel"]).reshape(CALLS, -1) for layer in "ab"], 1
    )
    ever = np.asarray(masks.flatten(at(seen.ever, -1), PRUNABLE))
    np.testing.assert_array_equal(ever, flat.any(0))
    assert seen.grown[-1] == np.sum(flat[1:] & ~flat[:-1]) > 0


# --- what is refused -----------------------------------------------------------------------------


def updated(optimizer, **given):
    params = start()
    return optimizer.update(params, optimizer.init(params), params, **given)


MASK = masks.random(KEY, start(), PRUNABLE, SPARSE)
INNER = INNERS["momentum"]
FLAT = plan_moves(MOVES, 24, 24, fraction=0.3)
LEAFY = plan_moves(MOVES, SPARSE, SPARSE, fraction=0.3)
move_by = partial(drop_and_grow, INNER, MASK, PRUNABLE)
OTHER_LEAVES = {"a/kernel": 14, "c/kernel": 10}
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "static moves": (lambda: updated(masked(INNER, MASK), move=True), "changes in no move"),
    "other tree": (
        lambda: drop_and_grow(INNER, {"a": MASK["a"]}, PRUNABLE, FLAT, EVERY),
        "no leaf 'b/kernel'",
    ),
    "other shape": (
        lambda: masked(INNER, {**MASK, "b": {"kernel": jnp.ones((3, 5), bool)}}).init(start()),
        "the mask has the shape (3, 5) in b/kernel",
    ),
    "not bool": (
        lambda: masked(INNER, jax.tree.map(lambda m: m.astype(int), MASK)).init(start()),
        "it must be bool",
    ),
    "other leaves": (
        lambda: move_by(plan_moves(4, OTHER_LEAVES, OTHER_LEAVES), EVERY),
        "the plan of moves, ones: has counts of a/kernel, c/kernel; the prunable leaves are a/k",
    ),
    "one field by leaf": (
        lambda: move_by(MovePlan(LEAFY.ones, FLAT.replaced), EVERY),
        "only one of its fields has counts of each leaf",
    ),
    "not whole numbers": (
        lambda: move_by(MovePlan(FLAT.ones.astype(np.float32), FLAT.replaced), EVERY),
        "the plan of moves, ones: the type is float32 and must be an integer type",
    ),
    "below the floors": (
        lambda: move_by(FLAT, EVERY, floor=13),
        "keeps 24 to 24 of all leaves: must be from 26, what floors need, to 45",
    ),
    "below a leaf's floor": (
        lambda: move_by(LEAFY, EVERY, floor=11),
        "keeps 10 to 10 of b/kernel: must be from 11, what floors need, to 15",
    ),
    "flipout below the floors": (
        lambda: build("flipout", "adam", MASK, floor=11),
        "keeps 20 to 45 of all leaves: must be from 22, what floors need, to 45",
    ),
    "more than there is": (
        lambda: move_by(plan_moves(4, 60, 50), EVERY),
        "keeps 50 to 54 of all leaves: must be from 0, what floors need, to 45",
    ),
    "replaces too many": (
        lambda: move_by(MovePlan(FLAT.ones, FLAT.ones + 1), EVERY),
        "replaces more weights of all leaves than it keeps",
    ),
    "a floor below 0": (lambda: move_by(FLAT, EVERY, floor=-1), "floor=-1: must be"),
    "no training step": (lambda: move_by(FLAT, 0), "every=0, floor=0: must be 1 or more"),
    "global by leaf": (
        lambda: move_by(LEAFY, EVERY, shares="global"),
        "the plan has counts of each leaf, which must be one count for all",
    ),
    "momentum by leaf": (
        lambda: build("sparse_momentum", "adam", MASK, moves=LEAFY),
        "the plan has counts of each leaf, which must be one count for all",
    ),
    "a random rule without key": (
        lambda: updated(move_by(FLAT, EVERY, grow=rules.at_random)),
        "needs a key: give key=",
    ),
    "noise without key": (
        lambda: updated(build("flipout", "adam", masks.ones(start()), key=None)),
        "needs a key: give key=",
    ),
    "momentum without momentum": (
        lambda: updated(
            drop_and_grow(optax.sgd(0.1), MASK, PRUNABLE, FLAT, EVERY, drop=rules.momentum)
        ),
        "needs the inner optimiser's momentum: use SGD with it, or Adam",
    ),
    "no number a weight": (
        lambda: updated(
            drop_and_grow(
                optax.adafactor(0.1, min_dim_size_to_factor=2), MASK, PRUNABLE, FLAT, EVERY
            )
        ),
        "one number for each weight, as SGD and Adam keep",
    ),
    "gradual": (lambda: plan_moves(4, 10, 20), "begin=10, end=20, floor=0: must be"),
    "gradual by leaf": (lambda: plan_moves(4, {"a": 1}, {"a": 2}), "a: begin=1, end=2"),
    "begin and end differ": (lambda: plan_moves(4, {"a": 2}, {"b": 2}), "of the same leaves"),
    "begin without leaves": (lambda: plan_moves(4, 5, {"b": 2}), "of the same leaves"),
    "a floor above the end": (lambda: plan_moves(4, {"a": 9}, {"a": 3}, floor=4), "floor=4"),
    "no moves": (lambda: plan_moves(0, 9, 9), "moves=0: must be 1 or more"),
    "flipout": (lambda: METHODS["flipout"].plan(9, 10, 20), "must be 0 < end <= begin"),
    "flipout's cuts": (lambda: METHODS["flipout"].plan(5, 20, 10), "cuts=5: must be from 1 to 4"),
    "flipout's power": (
        lambda: flipout(INNER, MASK, PRUNABLE, FLAT, EVERY, KEY, power=-1.0),
        "power=-1.0: must be 0 or more",
    ),
    "gsm": (lambda: METHODS["gsm"].plan(9, 10, 20), "must be 0 < end <= begin"),
    "acdc": (lambda: METHODS["acdc"].plan(20, 10, 20), "must be 0 < end <= begin"),
    "acdc's phase": (lambda: METHODS["acdc"].plan(9, 20, 10, first=1.0), "first=1.0: must be"),
    "chts": (lambda: build("chts", "adam", MASK, hard=1.0), "hard=1.0: must be from 0 to below 1"),
    "sparse momentum": (
        lambda: build("sparse_momentum", "adam", MASK, decay=1.0),
        "decay=1.0: must be from 0 to below 1",
    ),
    "deep rewiring": (
        lambda: METHODS["deep_rewiring"].make(INNER, MASK, PRUNABLE, start(), KEY, noise=-1),
        "noise=-1: must be 0 or more",
    ),
    "soft deep rewiring": (
        lambda: soft_deep_rewiring(INNER, MASK, PRUNABLE, start(), KEY, lowest=0.0),
        "lowest=0.0: must be below 0",
    ),
    "ham": (lambda: ham(INNER, 0.1, alpha=-1), "alpha=-1: must be 0 or more"),
    "powers": (lambda: powerpropagation(INNER, 0.5), "power=0.5: must be 1 or more"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(case):
    attempt, message = REFUSED[case]
    with pytest.raises(ValueError) as caught:
        attempt()
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "optimizer",
    [HAM(INNER), POWERS(INNER), *(partial(build, name, "adam") for name in ROWS)],
    ids=["ham", "powers", *ROWS],
)
def test_an_update_without_parameters_is_refused(optimizer):
    if isinstance(optimizer, partial):
        optimizer = optimizer(first_mask(ROWS[optimizer.args[0]]))
    params = start()
    with pytest.raises(ValueError, match=r"needs the parameters$"):
        optimizer.update(params, optimizer.init(params))
