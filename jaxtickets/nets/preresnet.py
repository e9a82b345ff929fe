"""The pre-activation ResNet of bottlenecks that network slimming prunes."""

from typing import ClassVar

import jax
from flax import linen as nn

from jaxtickets.nets.layers import average, batch_norm, conv, output

STREAMS, INNER = (64, 128, 256), (16, 32, 64)


def _published(depth: int) -> tuple[int, ...]:
    """The widths of the paper.

    Raises:
      ValueError: the depth is not 9n + 2.
    """
    blocks, rest = divmod(depth - 2, 9)
    if rest or blocks < 1:
        raise ValueError(f"preresnet takes a depth of 9n + 2, such as 164, not {depth}")
    stages = zip(STREAMS, INNER, strict=True)
    return (16, *(w for stream, inner in stages for w in (stream, *(inner,) * (2 * blocks))))


class PreResNet(nn.Module):
    """Three stages of (depth - 2) / 9 bottlenecks: 1,703,258 parameters at depth 164 on CIFAR-10.

    He et al. 2016, "Identity mappings", as in network slimming (Liu et al. 2017). A block is batch
    norm, ReLU and a convolution, three times: 1x1, 3x3 and 1x1, the last with the residual stream's
    width. The first block of each stage widens the stream; its shortcut is a 1x1 convolution that
    reads the stream itself. `bn1` precedes `conv1`, and has the stream's channels. Network slimming
    also selects which channels of the stream each block reads; here every block reads all.

    Attributes:
      depth: 9n + 2, for n blocks a stage.
      widths: filters of the stem (16); then for each stage the stream's width (64, 128, 256), and
        for each of its blocks those of `conv1` and `conv2`. Empty: the published ones.
      classes: the number of logits.
      use_bias: whether the output has a bias; convolutions have none.
      initializer: a name in `inits.INITIALIZERS`.
      conv: 'auto', 'im2col' or 'lax', see `convolution`.
    """

    depth: int = 164
    image_shape: ClassVar[tuple[int, int, int]] = (32, 32, 3)
    widths: tuple[int, ...] = ()
    classes: int = 10
    use_bias: bool = True
    initializer: str = "kaiming_normal"
    conv: str = "auto"

    def __post_init__(self) -> None:
        """Fills in the published widths."""
        self.widths = self.widths or _published(self.depth)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`."""
        widths = iter(self.widths)
        x = conv(self, "stem_conv", images, next(widths), 3, padding=1, bias=False)
        for stage in range(1, 4):
            stream = next(widths)
            for block in range(1, 1 + (self.depth - 2) // 9):
                name, stride = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
                short = x
                if block == 1:
                    short = conv(
                        self, f"{name}_shortcut_conv", x, stream, 1, stride=stride, bias=False
                    )
                y = nn.relu(batch_norm(f"{name}_bn1", x, train))
                y = conv(self, f"{name}_conv1", y, next(widths), 1, bias=False)
                y = nn.relu(batch_norm(f"{name}_bn2", y, train))
                y = conv(
                    self, f"{name}_conv2", y, next(widths), 3, stride=stride, padding=1, bias=False
                )
                y = nn.relu(batch_norm(f"{name}_bn3", y, train))
                x = short + conv(self, f"{name}_conv3", y, stream, 1, bias=False)
        x = nn.relu(batch_norm("final_bn", x, train))
        return output(self, average(x))
