"""Multiply-adds: what a net's jaxpr multiplies, by the leaf that is read."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from jaxtickets import nets
from jaxtickets.nets.convolution import im2col


class Body(nn.Module):
    """A net whose body is the function `body(*inputs)`."""

    body: object

    @nn.compact
    def __call__(self, *inputs):
        return self.body(*inputs)


class End(nn.Module):
    """Two layers within a module."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="b")(nn.Dense(5, name="a")(x))


class Step(nn.Module):
    """A residual step whose layer is stacked by a scan, with a norm that multiplies nothing."""

    @nn.compact
    def __call__(self, x, _):
        return x + nn.remat(nn.Dense)(4, name="fc")(nn.LayerNorm(name="norm")(x)), None


class Leaf(nn.Module):
    """A layer whose weights are called otherwise, joined with others, or multiplied by hand."""

    columns: int = 3

    @nn.compact
    def __call__(self, x):
        ones = nn.initializers.ones
        weight, more = (self.param(name, ones, (4, n)) for name, n in (("weight", 3), ("more", 2)))
        joined = jnp.concatenate([(weight - weight.mean())[:, : self.columns], more], 1)
        y = jnp.tanh(x @ joined)
        last = self.param("last", ones, (y.shape[-1], 2))
        return (y[:, :, None] * last[None]).sum(1)


def mixed(x):
    """Strided, grouped, depthwise, nested and repeated layers."""
    x = nn.Conv(6, (3, 3), strides=2, name="strided")(x)  # 8 -> 4 pixels a side
    x = nn.Conv(8, (3, 3), feature_group_count=2, padding="VALID", name="grouped")(x)  # 2
    x = nn.Conv(8, (2, 2), feature_group_count=8, name="depthwise")(x)
    again = nn.Dense(8, name="again")
    x = again(again(x))
    return End(name="end")(x.reshape(len(x), -1))


def convolutions(x):
    """Transposed, local and dilated, and a depthwise one as slices."""
    x = nn.ConvTranspose(6, (3, 3), (2, 2), name="up")(x)  # 4 -> 8 pixels a side
    x = nn.ConvTranspose(2, (3, 3), (2, 2), padding="VALID", name="valid")(x)  # 17
    x = nn.ConvLocal(5, (2, 2), 2, padding="VALID", name="local")(x)  # 8
    x = nn.Conv(4, (3, 3), kernel_dilation=2, padding="VALID", name="dilated")(x)  # 4
    return nn.Conv(
        4, (2, 2), feature_group_count=4, conv_general_dilated=im2col, padding="VALID", name="deep"
    )(x)  # 3


def attention(x):
    """Two heads of three over five tokens, then a product over two axes at once."""
    x = nn.SelfAttention(2, qkv_features=6, name="attn")(x)
    return nn.DenseGeneral((2, 7), axis=(1, 2), name="out")(x)


def recurrent(tokens):
    """Three tokens through an LSTM, read by the embedding."""
    embed = nn.Embed(11, 4, name="embed")
    return embed.attend(nn.RNN(nn.OptimizedLSTMCell(4, name="cell"), name="rnn")(embed(tokens)))


def scanned(x):
    stacked = nn.scan(Step, {"params": 0}, split_rngs={"params": True}, length=3)
    return stacked(name="steps")(x, None)[0]


def branches(x, flag):
    """The larger branch counts; a custom gradient and a product with constants don't."""
    big, small = nn.Dense(5, name="big")(x), nn.Dense(2, name="small")(x)
    x = jnp.concatenate([big, small], 1)
    x = jax.lax.cond(flag[0] > 0, lambda x: x @ x.T, lambda x: (x @ x.T) @ (x @ x.T), x)
    return jax.nn.relu(x) @ jnp.ones((1, 9))


ADDS = {
    mixed: ((8, 8, 3), {
        "strided/kernel": 16 * 9 * 3 * 6,
        "grouped/kernel": 4 * 9 * 3 * 8,  # each filter reads 6 / 2 channels
        "depthwise/kernel": 4 * 4 * 8,
        "again/kernel": 2 * 4 * 8 * 8,
        "end/a/kernel": 4 * 8 * 5,
        "end/b/kernel": 5 * 3,
    }),
    convolutions: ((4, 4, 3), {
        "up/kernel": 16 * 9 * 3 * 6,  # each pixel meets each weight once
        "valid/kernel": 64 * 9 * 6 * 2,
        "local/kernel": 64 * 4 * 2 * 5,  # each weight is used once
        "dilated/kernel": 16 * 9 * 5 * 4,
        "deep/kernel": 9 * 4 * 4,
    }),
    attention: ((5, 4), {
        **{f"attn/{name}/kernel": 5 * 4 * 6 for name in ("query", "key", "value")},
        "attn/out/kernel": 5 * 6 * 4,
        "out/kernel": 5 * 4 * 2 * 7,
        "Body/attn/attn/...qhd,...khd->...hqk": 2 * 5 * 5 * 3,
        "Body/attn/attn/...hqk,...khd->...qhd": 2 * 5 * 5 * 3,
    }),
    recurrent: (jax.ShapeDtypeStruct((3,), "int32"), {
        # eight kernels, joined to two products a token
        **{f"cell/{side}{gate}/kernel": 3 * 4 * 4 for side in "hi" for gate in "fgio"},
        "embed/embedding": 3 * 4 * 11,
    }),
    scanned: ((4,), {"steps/fc/kernel": 3 * 4 * 4}),
    Leaf(): ((4,), {
        "body/weight": 4 * 3, "body/more": 4 * 2, "body/last": 5 * 2,
    }),
    branches: ((jax.ShapeDtypeStruct((4,), "float32"), jax.ShapeDtypeStruct((), "float32")), {
        "big/kernel": 20, "small/kernel": 8, "Body": 7 + 7 + 1,
    }),
}  # fmt: skip


@pytest.mark.parametrize("body", ADDS, ids=lambda body: getattr(body, "__name__", "leaf"))
def test_multiply_adds_by_hand(body):
    shape, expected = ADDS[body]
    assert nets.multiply_adds(Body(body), shape) == expected


def test_positions_by_hand():
    uses = {"strided": 16, "grouped": 4, "depthwise": 4, "again": 8, "end/a": 1, "end/b": 1}
    expected = {f"{layer}/kernel": count for layer, count in uses.items()}
    assert nets.positions(Body(mixed), (8, 8, 3)) == expected
    with pytest.raises(ValueError, match="Body uses only some of the weights of body/weight"):
        nets.positions(Body(Leaf(columns=2)), (4,))


def endless(x):
    x = nn.Dense(4, name="fc")(x)
    return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x)


def ragged(x):
    return jax.lax.ragged_dot(x, jnp.ones((1, 4, 2)), jnp.array([4]))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (endless, "'while' in Body multiplies an unknown number"),
        (ragged, "'ragged_dot_general' in Body"),
    ],
)
def test_what_can_not_be_counted_is_refused_in_one_line(body, message):
    with pytest.raises(ValueError) as error:
        nets.multiply_adds(Body(lambda x: body(x[0])), (4, 4))
    said = str(error.value)
    assert said.startswith("Body's multiply-adds: ") and message in said and "\n" not in said
