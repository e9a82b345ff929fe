"""Any model: NNX modules, Linen modules and plain functions, traced and cut without their units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from experiments.any_model.structures import (
    STRUCTURES,
    NNXConvolution,
    draw_mlp,
    plain_mlp,
)
from jaxtickets import masks, nets
from jaxtickets.compress import graph
from jaxtickets.compress.shrink import shrink_model
from jaxtickets.compress.small_program import cut_tree, small_model
from jaxtickets.types import Ticket

QUICK = {"xla_backend_optimization_level": 0}
WHOLE = {  # what must stay -> why
    "softmax over units": {"gate": "'reduce_max' in Net mixes units of gate"},
    "two-pass norm": {"embed": "'reduce_sum' in Net mixes units of embed"},
}


def drawn(shapes, seed=0):
    """Random leaves, none of which is zero or trivial."""
    draw = np.random.default_rng(seed)

    def leaf(like):
        if len(like.shape) < 2:
            return draw.uniform(0.5, 1.5, like.shape).astype("f")
        return draw.normal(0, (2 / np.prod(like.shape[:-1])) ** 0.5, like.shape).astype("f")

    return jax.tree.map(leaf, shapes)


def some_units(wiring, seed=1):
    """Of each group about 60 %, at least one, and not all."""
    draw = np.random.default_rng(seed)
    return {g.name: draw.permutation(g.size) < max(1, int(0.6 * g.size)) for g in wiring}


def inputs_of(example, draw, batch):
    given = []
    for one in nets.example_inputs(example):
        shape = (batch, *one.shape[1:])
        whole = jnp.issubdtype(one.dtype, jnp.integer)
        values = draw.integers(0, 7, shape) if whole else draw.normal(size=shape)
        given.append(np.asarray(values, one.dtype))
    return tuple(given) if len(given) > 1 else given[0]


def both(model, found, units, params, stats, inputs, **mode):
    """The outputs of the masked model and of the small one."""
    stays = graph.kept(found, units)
    small = small_model(model, found, units)

    def apply(params, stats, inputs):
        masked = masks.apply(masks.expand(units, found.wiring, params), params)
        cut = [
            cut_tree("params", params, found, stays),
            cut_tree("batch_stats", stats, found, stays),
        ]
        return model.apply(masked, stats, inputs, **mode), small.apply(*cut, inputs, **mode)

    with jax.default_matmul_precision("highest"):
        return jax.jit(apply, compiler_options=QUICK)(params, stats, inputs)


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_small_model_computes_what_the_masked_one_does(name):
    _, model, example, _ = STRUCTURES[name]()
    found = graph.trace(model, example, refuse=False)
    assert found.reasons == WHOLE.get(name, {})
    if found.reasons:
        with pytest.raises(ValueError, match="mixes units of"):
            graph.trace(model, example)
    params, stats = drawn(jax.eval_shape(model.init, jax.random.key(0)))
    units = some_units(found.wiring)
    inputs = inputs_of(example, np.random.default_rng(2), batch=2)
    (masked, _), (small, _) = both(model, found, units, params, stats, inputs)
    for one, other in zip(jax.tree.leaves(masked), jax.tree.leaves(small), strict=True):
        assert np.abs(one).max() > 0.01 and one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(one).max(), rtol=0)


def test_groups_of_a_transformer():
    """By hand: width 6, two heads of four places, queries and keys together, a hidden layer."""
    _, model, example, _ = STRUCTURES["transformer"]()
    found = graph.trace(model, example)
    groups = {group.name: group for group in found.wiring}
    assert {name: group.size for name, group in groups.items()} == {
        "embed": 6,
        "block_attn/query": 4,
        "block_attn/value": 4,
        "block_up": 10,
        "block_attn/query[-2]": 2,
    }
    stream = groups["embed"]
    assert stream.producers == ("embed", "positions", "block_attn/out", "block_down")
    assert stream.norms == ("block_ln1", "block_ln2", "ln")
    assert groups["block_attn/query"].producers == ("block_attn/query", "block_attn/key")
    heads = {(span.path, span.axis) for span in groups["block_attn/query[-2]"].spans}
    assert ("block_attn/out/kernel", -3) in heads and ("block_attn/value/bias", -2) in heads


def test_rotary_positions_pair_the_places_of_queries_and_keys():
    """By hand: places 0 and 2 of a head are rotated together, also 1 and 3; values share them."""
    _, model, example, _ = STRUCTURES["plain attention"]()
    spans = {
        group.name: {(s.path, s.axis): s.units for s in group.spans}
        for group in graph.trace(model, example).wiring
    }
    whole = np.array(spans["w_qkv[-1.0]"]["w_qkv", -1]).reshape(3, 2, 4)
    np.testing.assert_array_equal(whole, np.broadcast_to([[[0], [1]]], (3, 2, 4)))  # heads
    pairs = np.array(spans["w_qkv[-1.1]"]["w_qkv", -1]).reshape(3, 2, 4)
    np.testing.assert_array_equal(pairs, np.broadcast_to([0, 1, 0, 1], (3, 2, 4)))
    assert spans["w_qkv[-1.1]"]["w_out", -2] == (0, 1, 0, 1) * 2


def test_a_small_model_trains_as_the_masked_one_does():
    """Statistics move, and dropout draws the same numbers."""
    _, model, example, _ = STRUCTURES["NNX convolution"]()
    found = graph.trace(model, example)
    params, stats = drawn(jax.eval_shape(model.init, jax.random.key(0)))
    units = some_units(found.wiring)
    inputs = inputs_of(example, np.random.default_rng(2), batch=3)
    mode = {"key": jax.random.key(5), "train": True}
    (masked, moved), (small, after) = both(model, found, units, params, stats, inputs, **mode)
    np.testing.assert_allclose(masked, small, atol=1e-5, rtol=0)
    stays = graph.kept(found, units)
    for one, other in zip(
        jax.tree.leaves(cut_tree("batch_stats", moved, found, stays)),
        jax.tree.leaves(after),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert not np.allclose(jax.tree.leaves(moved)[0], jax.tree.leaves(stats)[0])


def test_shrinking_a_plain_function_by_hand():
    """Of widths 8 and 6, units 0 to 2 and unit 5 stay."""
    model = nets.functional_plain(plain_mlp, draw_mlp)
    params, _ = model.init(jax.random.key(0))
    ticket = Ticket(params, {}, masks.ones(params), np.int32(3))
    units = {"w/0": np.arange(8) < 3, "w/1": np.arange(6) == 5}
    small, cut, report = shrink_model(model, ticket, units, graph.trace(model, (5,)))
    np.testing.assert_array_equal(cut.params["w"][1], params["w"][1][:3, 5:])
    np.testing.assert_array_equal(cut.params["b"][0], params["b"][0][:3])
    # 5·8 + 8·6 + 6·3 = 106 products, then 5·3 + 3·1 + 1·3
    assert (report.before.multiply_adds, report.after.multiply_adds) == (106, 21)
    assert cut.rewind_step == 3 and small.apply(cut.params, {}, np.ones((4, 5)))[0].shape == (4, 3)
    again = graph.trace(small, (5,))  # the small model is a model like others
    assert {group.name: group.size for group in again.wiring} == {"w/0": 3, "w/1": 1}
    with pytest.raises(ValueError, match="no unit is left in w/1"):
        none = {"w/1": np.zeros(6, bool)}
        shrink_model(model, ticket, none, graph.trace(model, (5,)))


# --- nets as functions ---------------------------------------------------------------------------


def test_an_nnx_module_is_the_functions_that_it_computes():
    module = NNXConvolution(nnx.Rngs(3))
    model = nets.functional_nnx(module)
    params, stats = model.init(jax.random.key(0))
    assert params["layers"]["1"]["bias"].shape == (3,) and set(stats) == {"norm"}
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("f")
    outputs, same = model.apply(params, stats, images)
    module.eval()
    np.testing.assert_allclose(outputs, module(images), rtol=1e-6)
    assert same is stats
    key = jax.random.key(1)
    one, moved = model.apply(params, stats, images, key, True)
    again, _ = model.apply(params, stats, images, key, True)
    other, _ = model.apply(params, stats, images, jax.random.key(2), True)
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)  # dropout
    assert not np.array_equal(moved["norm"]["mean"], stats["norm"]["mean"])
    module.train()
    np.testing.assert_array_equal(module.norm.mean[...], stats["norm"]["mean"])  # is not changed
    with pytest.raises(ValueError, match="NNXConvolution draws random numbers in training mode"):
        model.apply(params, stats, images, None, True)
    with pytest.raises(ValueError, match="these are not the parameters of NNXConvolution"):
        model.apply({**params, "more": params["conv1"]}, stats, images)
    module.conv1.kernel[...] = module.conv1.kernel[...] * 2
    with pytest.raises(ValueError, match="the state of NNXConvolution has changed"):
        model.init(jax.random.key(0))


def test_an_nnx_class_draws_new_parameters():
    model = nets.functional_nnx(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
    first, second = (model.init(jax.random.key(seed))[0]["kernel"] for seed in (0, 1))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, model.init(jax.random.key(0))[0]["kernel"])


class Counter(nnx.Module):
    """A module that counts its calls."""

    def __init__(self, rngs):
        self.fc = nnx.Linear(2, 2, rngs=rngs)
        self.calls = nnx.Cache(jnp.zeros(()))

    def __call__(self, x):
        self.calls[...] = self.calls[...] + 1
        return self.fc(x)


class Empty(nnx.Module):
    """A module without parameters."""

    def __init__(self, rngs):
        pass


class Heads(nn.Module):
    """A Linen module with another name for its mode, which sows and returns a dict."""

    @nn.compact
    def __call__(self, x, deterministic):
        x = nn.Dropout(0.5, deterministic=deterministic)(nn.Dense(4)(x))
        self.sow("intermediates", "hidden", x)
        return {"a": nn.Dense(2)(x), "b": nn.Dense(3)(x)}


def test_a_linen_module_returns_what_it_likes():
    model = nets.functional(Heads(), (5,))
    params, stats = model.init(jax.random.key(0))
    outputs, _ = model.apply(params, stats, jnp.ones((2, 5)))
    assert (outputs["a"].shape, outputs["b"].shape, stats) == ((2, 2), (2, 3), {})
    dropped, _ = model.apply(params, stats, jnp.ones((2, 5)), jax.random.key(0), True)
    assert not np.array_equal(outputs["a"], dropped["a"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: nets.functional(nn.Dense, (3,)), "the class Dense is no Linen module"),
        (lambda: nets.functional(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), (3,)), "type Linear is no"),
        (lambda: graph.trace(len, (3,)), "builtin_function_or_method is no Linen module"),
        (lambda: nets.functional_nnx(3), "an object of type int is no NNX module"),
        (lambda: nets.functional_nnx(lambda rngs: 3), "makes int, which is no NNX module"),
        (lambda: nets.functional_nnx(Empty), "Empty has no parameters"),
        (
            lambda: nets.functional_nnx(m := Counter(nnx.Rngs(0))).apply(
                *nets.functional_nnx(m).init(jax.random.key(0)), jnp.ones((1, 2))
            ),
            "Counter changes calls (Cache), which a pure function would lose",
        ),
        (lambda: nets.functional_plain(3, {}), "an object of type int is no function"),
        (
            lambda: nets.functional_plain(plain_mlp, {"b": jnp.ones(3)}).init(jax.random.key(0)),
            "the parameters have no kernel: no leaf has two axes",
        ),
        (
            lambda: nets.functional_plain(plain_mlp, {"w": [3.0]}).init(jax.random.key(0)),
            "the parameter w/0 is no array, but float",
        ),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(wrong, message):
    with pytest.raises(ValueError) as error:
        wrong()
    assert message in str(error.value) and "\n" not in str(error.value)
