"""Nets of every structure, small enough to be traced, cut and run in a second each."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

from jaxtickets import nets
from jaxtickets.nets.functional import Example
from jaxtickets.types import Array, Key, Model, Params


class Structure(NamedTuple):
    """A net of one structure.

    Attributes:
      kind: `Linen`, `NNX` or `function`.
      model: the net as functions.
      example: its input for one example, see `nets.functional`.
      module: the Linen module; None for other kinds.
    """

    kind: str
    model: Model
    example: Example
    module: nn.Module | None = None


class Net(nn.Module):
    """A net whose body is the function `body(*inputs, train)`."""

    body: Callable[..., Any]

    @nn.compact
    def __call__(self, *inputs: Array, train: bool = False) -> Any:
        """The outputs of the body."""
        return self.body(*inputs, train=train)


def _head(x: Array, classes: int = 3) -> Array:
    return nn.Dense(classes, name="out")(x)


def _conv(x: Array, features: int, train: bool, name: str, **options: Any) -> Array:
    x = nn.Conv(features, (3, 3), name=name, **options)(x)
    return nn.relu(nn.BatchNorm(use_running_average=not train, name=f"{name}_bn")(x))


def dense_block(x: Array, train: bool) -> Array:
    """Each layer reads the outputs of all layers before it."""
    for layer in range(3):
        x = jnp.concatenate([x, _conv(x, 4, train, f"conv{layer}")], -1)
    return _head(x.mean((1, 2)))


def inception(x: Array, train: bool) -> Array:
    """Parallel branches whose channels are concatenated, then normalised together."""
    branches = [nn.Conv(3 + size, (size, size), name=f"branch{size}")(x) for size in (1, 3)] + [
        nn.Conv(3, (1, 1), name="pooled")(nn.max_pool(x, (3, 3), (1, 1), "SAME"))
    ]
    x = nn.BatchNorm(use_running_average=not train, name="bn")(jnp.concatenate(branches, -1))
    return _head(_conv(nn.relu(x), 5, train, "last").reshape(len(x), -1))


def wide_and_deep(x: Array, y: Array, train: bool) -> Any:
    """Two inputs, of which one is wide, and two outputs."""
    deep = nn.sigmoid(nn.Dense(6, name="deep2")(nn.tanh(nn.Dense(8, name="deep1")(x))))
    both = jnp.concatenate([y, deep], -1)
    return {"wide": _head(both), "deep": nn.Dense(2, name="deep_out")(deep)}


def grouped_convolution(x: Array, train: bool) -> Array:
    """A convolution in two groups between full ones, as in ResNeXt."""
    x = _conv(x, 8, train, "expand")
    x = _conv(x, 12, train, "grouped", feature_group_count=2)
    return _head(_conv(x, 4, train, "project").mean((1, 2)))


def depthwise_multiplier(x: Array, train: bool) -> Array:
    """Two filters for each channel."""
    x = _conv(x, 5, train, "expand")
    x = _conv(x, 10, train, "deep", feature_group_count=5)
    return _head(x.mean((1, 2)))


def layer_norm(x: Array, train: bool) -> Array:
    """A residual stream with layer norms."""
    x = nn.Dense(8, name="embed")(x)
    y = nn.gelu(nn.Dense(12, name="up")(nn.LayerNorm(name="ln")(x)))
    x = x + nn.Dense(8, name="down")(y)
    return _head(nn.LayerNorm(name="last_ln")(x))


def rms_norm(x: Array, train: bool) -> Array:
    """RMS norms, and a gated hidden layer."""
    x = nn.Dense(8, name="embed")(x)
    y = nn.RMSNorm(name="rms")(x)
    y = nn.silu(nn.Dense(10, name="gate")(y)) * nn.Dense(10, name="up")(y)
    return _head(nn.RMSNorm(name="last_rms")(x + nn.Dense(8, name="down")(y)))


def group_norm(x: Array, train: bool) -> Array:
    """Group norms on a residual stream of channels."""
    x = nn.Conv(8, (3, 3), name="stem")(x)
    y = nn.Conv(6, (3, 3), name="inner")(nn.relu(nn.GroupNorm(4, name="gn")(x)))
    x = x + nn.Conv(8, (3, 3), name="back")(nn.relu(y))
    return _head(nn.relu(nn.GroupNorm(2, name="last_gn")(x)).mean((1, 2)))


def instance_norm(x: Array, train: bool) -> Array:
    """Instance norms, and a transposed convolution back to the image's size."""
    x = nn.Conv(6, (3, 3), (2, 2), name="down")(x)
    x = nn.relu(nn.InstanceNorm(name="norm")(x))
    x = nn.relu(nn.ConvTranspose(5, (3, 3), (2, 2), name="up")(x))
    return nn.Conv(2, (1, 1), name="out")(x)


def u_net(x: Array, train: bool) -> Array:
    """A skip connection that is concatenated after transposed convolutions."""
    first = _conv(x, 4, train, "first")
    low = _conv(nn.max_pool(first, (2, 2), (2, 2)), 6, train, "low")
    up = nn.ConvTranspose(4, (2, 2), (2, 2), name="up")(low)
    both = _conv(jnp.concatenate([first, up], -1), 5, train, "both")
    return nn.Conv(2, (1, 1), name="out")(both)


def convolution_1d(x: Array, train: bool) -> Array:
    """Convolutions over time, dilated and causal."""
    x = nn.relu(nn.Conv(5, (3,), padding="CAUSAL", name="conv1")(x))
    x = nn.relu(nn.Conv(6, (3,), kernel_dilation=2, name="conv2")(x))
    return _head(x.reshape(len(x), -1))


def convolution_3d(x: Array, train: bool) -> Array:
    """Convolutions over three axes."""
    x = nn.relu(nn.Conv(4, (2, 2, 2), name="conv1")(x))
    return _head(nn.relu(nn.Conv(5, (2, 2, 2), 2, name="conv2")(x)).reshape(len(x), -1))


def channels_first(x: Array, train: bool) -> Array:
    """Channels in front of pixels, and a flatten from there."""
    kernel = Kernel((3, 3, 3, 5), name="conv")()
    x = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NCHW", "HWIO", "NCHW")
    )
    x = nn.relu(x).reshape(len(x), -1)
    return _head(nn.relu(nn.Dense(6, name="fc")(x)))


class Kernel(nn.Module):
    """A kernel without bias."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> Array:
        """The kernel."""
        return self.param("kernel", nn.initializers.lecun_normal(), self.shape)


def _block(x: Array, name: str, causal: bool) -> Array:
    """Attention and a hidden layer, with norms before them."""
    mask = nn.make_causal_mask(x[..., 0]) if causal else None
    y = nn.LayerNorm(name=f"{name}_ln1")(x)
    x = x + nn.MultiHeadDotProductAttention(2, qkv_features=8, name=f"{name}_attn")(y, mask=mask)
    y = nn.Dense(10, name=f"{name}_up")(nn.LayerNorm(name=f"{name}_ln2")(x))
    return x + nn.Dense(x.shape[-1], name=f"{name}_down")(nn.gelu(y))


def transformer(tokens: Array, train: bool) -> Array:
    """A causal transformer: embeddings, a table of positions, attention, a tied output."""
    embed = nn.Embed(7, 6, name="embed")
    x = embed(tokens) + Table((1, 5, 6), name="positions")()
    x = _block(x, "block", causal=True)
    return embed.attend(nn.LayerNorm(name="ln")(x))


class Table(nn.Module):
    """A learned table of positions, or a class token."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> Array:
        """The table."""
        return self.param("embedding", nn.initializers.normal(0.1), self.shape)


def vision_transformer(x: Array, train: bool) -> Array:
    """Patches, a class token, positions, and attention."""
    x = nn.Conv(6, (2, 2), (2, 2), name="patches")(x)
    x = x.reshape(len(x), -1, x.shape[-1])
    token = jnp.broadcast_to(Table((1, 1, 6), name="token")(), (len(x), 1, 6))
    x = jnp.concatenate([token, x], 1)
    x = _block(x + Table((1, x.shape[1], 6), name="positions")(), "block", causal=False)
    return _head(nn.LayerNorm(name="ln")(x)[:, 0])


def lstm(tokens: Array, train: bool) -> Array:
    """An embedding and an LSTM over time."""
    x = nn.Embed(7, 4, name="embed")(tokens)
    states: Any = nn.RNN(nn.OptimizedLSTMCell(6, name="cell"), name="rnn")(x)
    return _head(states[:, -1])


def gru(x: Array, train: bool) -> Array:
    """A GRU over time, read at each step."""
    return _head(nn.RNN(nn.GRUCell(5, name="cell"), name="rnn")(nn.Dense(4, name="fc")(x)))


class Step(nn.Module):
    """A residual layer as a step of a scan over layers."""

    @nn.compact
    def __call__(self, x: Array, _: None) -> tuple[Array, None]:
        """The stream after the layer."""
        y = nn.gelu(nn.Dense(7, name="up")(nn.LayerNorm(name="ln")(x)))
        return x + nn.Dense(x.shape[-1], name="down")(y), None


def scanned_layers(x: Array, train: bool) -> Array:
    """Layers whose parameters are stacked, run by `nn.scan` over `nn.remat`."""
    steps = nn.scan(nn.remat(Step), {"params": 0}, split_rngs={"params": True}, length=3)
    return _head(steps(name="steps")(nn.Dense(6, name="embed")(x), None)[0])


def softmax_gate(x: Array, train: bool) -> Array:
    """A softmax over the units of a layer, which weighs others: these units must stay."""
    gate = nn.softmax(nn.Dense(4, name="gate")(x))
    hidden = nn.relu(nn.Dense(6, name="fc")(x))
    return _head(hidden) * nn.Dense(3, name="scale")(gate)


def two_pass_norm(x: Array, train: bool) -> Array:
    """A norm that subtracts the mean before it sums squares: the stream must stay."""
    x = nn.Dense(6, name="embed")(x)
    y = x - x.mean(-1, keepdims=True)
    y = y / jnp.sqrt((y**2).mean(-1, keepdims=True) + 1e-6)
    return _head(nn.relu(nn.Dense(5, name="fc")(y)))


class NNXConvolution(nnx.Module):
    """An NNX convolution with batch norm and dropout."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(3, 6, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.conv2 = nnx.Conv(6, 6, (3, 3), feature_group_count=2, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(6, 5, rngs=rngs), nnx.Linear(5, 3, rngs=rngs)])
        self.dropout = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Logits of images `[n, h, w, 3]`."""
        x = nnx.relu(self.norm(self.conv1(x)))
        x = self.dropout(nnx.relu(self.conv2(x)).mean((1, 2)))
        return self.layers[1](nnx.relu(self.layers[0](x)))


class NNXTransformer(nnx.Module):
    """An NNX block of attention, with a norm, and a recurrent layer after it."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(7, 6, rngs=rngs)
        self.norm = nnx.RMSNorm(6, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 6, qkv_features=8, decode=False, rngs=rngs)
        self.rnn = nnx.RNN(nnx.GRUCell(6, 5, rngs=rngs))
        self.out = nnx.Linear(5, 7, rngs=rngs)

    def __call__(self, tokens: Array) -> Array:
        """Logits `[n, t, 7]` of tokens `[n, t]`."""
        x = self.embed(tokens)
        x = x + self.attention(self.norm(x))
        return self.out(self.rnn(x))


def plain_mlp(params: Params, x: Array) -> Array:
    """Two layers written by hand."""
    for weights, bias in zip(params["w"], params["b"], strict=True):
        x = jnp.tanh(x) @ weights + bias[None]
    return x


def draw_mlp(key: Key) -> Params:
    """The parameters of `plain_mlp`."""
    sizes = (5, 8, 6, 3)
    keys = jax.random.split(key, len(sizes))
    pairs = zip(keys[1:], sizes[:-1], sizes[1:], strict=True)
    w = [jax.random.normal(k, (n, m)) / n**0.5 for k, n, m in pairs]
    return {"w": w, "b": [jnp.full(m, 0.1) for m in sizes[1:]]}


def plain_attention(params: Params, tokens: Array) -> Array:
    """Attention with one product for queries, keys and values, and rotary positions."""
    x = params["embedding"][tokens]
    n, t, _ = x.shape
    y = x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6) * params["scale"][None, None]
    queries, keys, values = jnp.moveaxis((y @ params["w_qkv"]).reshape(n, t, 3, 2, 4), 2, 0)
    angle = jnp.arange(t)[None, :, None, None] / 10.0 ** jnp.arange(2)[None, None, None]

    def rotated(a: Array) -> Array:
        left, right = jnp.split(a, 2, -1)
        return jnp.concatenate(
            [left * jnp.cos(angle) - right * jnp.sin(angle),
             left * jnp.sin(angle) + right * jnp.cos(angle)], -1
        )  # fmt: skip

    scores = jnp.einsum("nthd,nshd->nhts", rotated(queries), rotated(keys)) / 2
    scores = jnp.where(jnp.tril(jnp.ones((1, 1, t, t), bool)), scores, -jnp.inf)
    mixed = jnp.einsum("nhts,nshd->nthd", jax.nn.softmax(scores), values)
    return (x + mixed.reshape(n, t, -1) @ params["w_out"]) @ params["w_vocabulary"]


def draw_attention(key: Key) -> Params:
    """The parameters of `plain_attention`."""
    shapes = {"embedding": (7, 6), "w_qkv": (6, 24), "w_out": (8, 6), "w_vocabulary": (6, 7)}
    keys = jax.random.split(key, len(shapes))
    drawn = {
        name: jax.random.normal(k, shape) / shape[0] ** 0.5
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    return drawn | {"scale": jnp.ones(6)}


def _linen(body: Callable[..., Any], example: Example) -> Callable[[], Structure]:
    module = Net(body)
    return lambda: Structure("Linen", nets.functional(module, example), example, module)


IMAGE, SERIES, ROW = (6, 6, 3), (5, 4), (5,)
TOKENS = jax.ShapeDtypeStruct((5,), "int32")
TWO = (jax.ShapeDtypeStruct((5,), "float32"), jax.ShapeDtypeStruct((4,), "float32"))

STRUCTURES: Mapping[str, Callable[[], Structure]] = {
    "concatenation": _linen(dense_block, IMAGE),
    "inception": _linen(inception, IMAGE),
    "two inputs, two outputs": _linen(wide_and_deep, TWO),
    "grouped convolution": _linen(grouped_convolution, IMAGE),
    "depthwise, two filters": _linen(depthwise_multiplier, IMAGE),
    "layer norm": _linen(layer_norm, ROW),
    "RMS norm": _linen(rms_norm, ROW),
    "group norm": _linen(group_norm, IMAGE),
    "instance norm, transposed": _linen(instance_norm, IMAGE),
    "U-net": _linen(u_net, IMAGE),
    "convolution, one axis": _linen(convolution_1d, SERIES),
    "convolution, three axes": _linen(convolution_3d, (4, 4, 4, 2)),
    "channels first": _linen(channels_first, (3, 5, 5)),
    "transformer": _linen(transformer, TOKENS),
    "vision transformer": _linen(vision_transformer, IMAGE),
    "LSTM": _linen(lstm, TOKENS),
    "GRU": _linen(gru, SERIES),
    "scan and remat": _linen(scanned_layers, ROW),
    "softmax over units": _linen(softmax_gate, ROW),
    "two-pass norm": _linen(two_pass_norm, ROW),
    "NNX convolution": lambda: Structure("NNX", nets.functional_nnx(NNXConvolution), IMAGE),
    "NNX attention, GRU": lambda: Structure("NNX", nets.functional_nnx(NNXTransformer), TOKENS),
    "plain layers": lambda: Structure("function", nets.functional_plain(plain_mlp, draw_mlp), ROW),
    "plain attention": lambda: Structure(
        "function", nets.functional_plain(plain_attention, draw_attention), TOKENS
    ),
}
"""Structure by name, made when it is called."""
