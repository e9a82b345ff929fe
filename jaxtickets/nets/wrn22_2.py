"""WRN-22-2, the wide residual net of the papers on dynamic sparse training."""

from typing import ClassVar

import jax
from flax import linen as nn

from jaxtickets.nets.layers import average, batch_norm, conv, output

STAGES, BLOCKS = 3, 3


class WRN222(nn.Module):
    """Three stages of three pre-activation blocks, twice as wide: 1,079,642 parameters on CIFAR-10.

    Zagoruyko and Komodakis 2016 (depth 6n + 4), as in RigL's code. A block is batch norm, ReLU and
    a 3x3 convolution, twice, with dropout 0.3 in between. The first block of each stage widens the
    stream; its shortcut is a 1x1 convolution that reads the stream after the block's first batch
    norm and ReLU. `bn1` precedes `conv1`, and has the stream's channels.

    Attributes:
      widths: filters of the stem (16); then for each stage the stream's width (32, 64, 128) and the
        inner width of each block.
      classes: the number of logits.
      use_bias: whether the output has a bias; convolutions have none.
      initializer: a name in `inits.INITIALIZERS`.
      conv: 'auto', 'im2col' or 'lax', see `convolution`.
      dropout: the probability that an activation within a block is dropped in training.
    """

    image_shape: ClassVar[tuple[int, int, int]] = (32, 32, 3)
    widths: tuple[int, ...] = (16, *(32,) * 4, *(64,) * 4, *(128,) * 4)
    classes: int = 10
    use_bias: bool = True
    initializer: str = "kaiming_normal"
    conv: str = "auto"
    dropout: float = 0.3

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`; training needs a key for 'dropout'."""
        widths = iter(self.widths)
        x = conv(self, "stem_conv", images, next(widths), 3, padding=1, bias=False)
        for stage in range(1, 1 + STAGES):
            stream = next(widths)
            for block in range(1, 1 + BLOCKS):
                name, stride = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
                short = x
                y = nn.relu(batch_norm(f"{name}_bn1", x, train))
                if block == 1:
                    short = conv(
                        self, f"{name}_shortcut_conv", y, stream, 1, stride=stride, bias=False
                    )
                y = conv(
                    self, f"{name}_conv1", y, next(widths), 3, stride=stride, padding=1, bias=False
                )
                y = nn.relu(batch_norm(f"{name}_bn2", y, train))
                y = nn.Dropout(self.dropout)(y, deterministic=not train)
                x = short + conv(self, f"{name}_conv2", y, stream, 3, padding=1, bias=False)
        x = nn.relu(batch_norm("final_bn", x, train))
        return output(self, average(x))
