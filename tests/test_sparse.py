"""Sparse forms: the dense product and its gradient at kept weights, whatever the pattern."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.sparse_execution import sparse_times
from experiments.sparse_execution.sparse_times import pays_below
from jaxtickets import losses, masks, nets
from jaxtickets.compress import sparse

DRAW = np.random.default_rng(0)
INPUTS, OUTPUTS = 9, 7


def hostile():
    """A mask with a dead input and a dead output; a whole output of the others; one of one."""
    mask = DRAW.random((INPUTS, OUTPUTS)) < 0.4
    mask[:, 2] = True
    mask[:, 5] = np.arange(INPUTS) == 8
    mask[3] = mask[:, 4] = False
    return mask


PATTERNS = {
    "hostile": hostile(),
    "whole": np.ones((INPUTS, OUTPUTS), bool),
    "empty": np.zeros((INPUTS, OUTPUTS), bool),
    "the last alone": np.arange(INPUTS * OUTPUTS).reshape(INPUTS, OUTPUTS) == INPUTS * OUTPUTS - 1,
    "a convolution's": DRAW.random((2, 3, 2, 5)) < 0.3,
}
CASES = [(form, name, 4) for form in sparse.FORMS for name in PATTERNS] + [
    (form, "hostile", batch) for form in sparse.FORMS for batch in (1, 300)
]


def normal(*shape):
    return DRAW.standard_normal(shape).astype("f")


@pytest.mark.parametrize(("form", "name", "batch"), CASES)
def test_a_form_multiplies_and_differentiates_as_the_dense_kernel_does(form, name, batch):
    form, mask = sparse.FORMS[form], PATTERNS[name]
    kernel, flat = normal(*mask.shape), mask.reshape(-1, mask.shape[-1])
    x, back = normal(len(flat), batch), normal(mask.shape[-1], batch)
    where = sparse.pattern(mask)
    masked = np.where(flat, kernel.reshape(flat.shape), 0)

    @jax.jit
    def work(where, kernel, x, back):
        weights = form.pack(where, kernel)
        y, pull = jax.vjp(lambda weights, x: form.product(where, weights, x), weights, x)
        of_weights, of_x = pull(back)
        # what is no kept weight never moves: a step along the gradient stays in the pattern
        outside = form.pack(where, jnp.ones_like(kernel)) == 0
        strays = jnp.sum(jnp.where(outside, of_weights, 0) != 0)
        unpacked = form.unpack(where, weights), form.unpack(where, of_weights)
        return *unpacked, y, of_x, strays

    packed, of_kernel, y, of_x, strays = work(where, kernel, x, back)
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_array_equal(packed, masked)
    np.testing.assert_allclose(y, masked.T @ x, **close)
    np.testing.assert_allclose(of_kernel, flat * (x @ back.T), **close)
    np.testing.assert_allclose(of_x, masked @ back, **close)
    assert not strays


def test_cut_weights_are_not_stored():
    mask = PATTERNS["hostile"]
    where, whole = sparse.pattern(mask), np.ones(mask.shape)
    shapes = {
        name: jax.eval_shape(form.pack, where, whole).shape for name, form in sparse.FORMS.items()
    }
    kept = int(mask.sum())
    assert shapes["bcoo"] == shapes["bcsr"] == (kept,)
    # one output keeps all inputs but the dead one
    assert shapes["gathered"] == shapes["live"] == (OUTPUTS, INPUTS - 1)
    np.testing.assert_array_equal(where.live, [0, 1, 2, 4, 5, 6, 7, 8])
    one = sparse.pattern(PATTERNS["the last alone"])
    gathered = sparse.FORMS["gathered"]
    assert jax.eval_shape(gathered.pack, one, whole).shape == (OUTPUTS, 1)


def test_orders_of_a_pattern_by_hand():
    # inputs 0, 1, 2 of outputs 0, 1: output 0 keeps inputs 1 and 2, output 1 input 1.
    where = sparse.pattern(np.array([[0, 0], [1, 1], [1, 0]], bool))
    golden = {
        "rows": [0, 0, 1],
        "columns": [1, 2, 1],
        "starts": [0, 2, 3],
        "turned": [0, 2, 1],
        "turned_starts": [0, 0, 2, 3],
        "inputs": [[1, 2], [1, 0]],
        "kept": [[True, True], [True, False]],
        "outputs": [[0, 0], [0, 1], [0, 0]],
        "slots": [[4, 4], [0, 2], [1, 4]],
        "live": [1, 2],
    }
    for name, values in golden.items():
        np.testing.assert_array_equal(getattr(where, name), values, err_msg=name)


NETS = {
    "lenet300_100": ({"widths": (6, 5), "use_bias": False}, (4, 4, 1)),
    "lenet5": ({"widths": (3, 4, 6)}, (18, 17, 2)),  # an odd column before the first pool
}


@pytest.mark.parametrize("name", NETS)
def test_a_lenet_in_any_form_is_the_net_and_learns_as_it_does(name):
    attributes, shape = NETS[name]
    module = nets.make(name, **attributes)
    model = nets.functional(module, shape)
    params = jax.tree.map(
        lambda p: 0.5 * normal(*p.shape), jax.eval_shape(model.init, jax.random.key(0))[0]
    )
    prunable = masks.prunable(params)
    kept = round(0.4 * masks.size(params, prunable))
    mask = masks.random(jax.random.key(1), params, prunable, kept)
    images, labels = normal(5, *shape), np.arange(5)

    def loss(params):
        logits = model.apply(params, {}, images)[0]
        return losses.cross_entropy(logits, labels), logits

    (_, golden), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        masks.apply(mask, params)
    )
    gradient = masks.apply(mask, gradient)
    order = sparse.layers(
        params, [path.removesuffix("/kernel") for path in nets.positions(module, shape)]
    )
    for form in sparse.FORMS.values():
        held = sparse.hold(form, mask, params)

        def of_form(weights, form=form, held=held):
            logits = sparse.forward(form, order, held.patterns, weights, images)
            return losses.cross_entropy(logits, labels), logits

        def unpacked(weights, of_form=of_form, form=form, held=held):
            (_, logits), moved = jax.value_and_grad(of_form, has_aux=True)(weights)
            kernels = {k: form.unpack(held.patterns[k], moved[k]["kernel"]) for k in moved}
            return logits, moved, kernels

        logits, moved, kernels = jax.jit(unpacked)(held.weights)
        np.testing.assert_allclose(logits, golden, rtol=1e-4, atol=1e-4)
        for layer in params:
            kernel = kernels[layer]
            wanted = gradient[layer]["kernel"]
            np.testing.assert_allclose(
                kernel.reshape(wanted.shape), wanted, rtol=1e-3, atol=1e-4, err_msg=layer
            )
            if "bias" in gradient[layer]:
                np.testing.assert_allclose(
                    moved[layer]["bias"], gradient[layer]["bias"], rtol=1e-3, atol=1e-4
                )


@pytest.mark.parametrize(
    ("curve", "density"),
    [
        ([(0.5, 0.5), (0.1, 0.9)], 0.0),
        ([(0.5, 1.5), (0.1, 2.0)], np.inf),
        ([(0.01, 10.0), (1.0, 0.1)], 0.1),  # ten times and a tenth: half-way, of logarithms
        ([(1.0, 0.1), (0.01, 10.0)], 0.1),
        ([(1.0, 2.0), (0.1, 0.5), (0.01, 2.0)], 0.1 / np.sqrt(10)),  # that above doesn't count
    ],
)
def test_where_a_form_begins_to_pay(curve, density):
    assert pays_below(curve) == pytest.approx(density)


@pytest.mark.parametrize(
    ("repeats", "seconds", "calls"), [(7, float("inf"), 7), (7, 0.0, 5), (100, 12.0, 6)]
)
def test_calls_are_timed_as_often_as_the_limits_say_and_five_times_at_least(
    repeats, seconds, calls, monkeypatch
):
    monkeypatch.setattr(sparse_times.timing, "median_times", lambda calls, repeats: [0.5, 1.5])
    limits = sparse_times.Limits(repeats, seconds, memory=0)
    assert sparse_times._times([int, int], limits).shape == (calls, 2)
