"""Conv4: the four-block network of Vinyals et al. (2016) and Snell et al. (2017)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from kshot.backbones.conv_block import flat_features, map_side
from kshot.backbones.normalization import BatchNorm2d
from kshot.backbones.registry import Backbone, backbones
from kshot.errors import ConfigError, check_choice, check_positive

HALVINGS = 4


@backbones.register("conv4")
class Conv4(Backbone):
    """Four times 3x3 convolution, BatchNorm, ReLU, 2x2 max pooling; optionally, further blocks without pooling.

    Convolutions are initialised uniformly by Glorot and Bengio (2010), with biases at zero, as MAML's are.

    Parameters
    ----------
    in_channels
        Channels of the images.
    width
        Channels of every block; 64 in ProtoNet, 32 in MAML.
    image_size
        Side of the images in pixels, at least 16; None for 28 with one channel, as glyphs and Omniglot have, and for 32
        otherwise, as CIFAR has.
    pooling
        "flatten" gives width * (image_size // 16)**2 features, 256 at 32 px and width 64; "mean" gives `width`.
    blocks
        At least four, which halve the map; further ones keep its side. Seven of width 40 have 3.06 times the parameters
        of four of width 32, which is MAML-L, the control of capacity of Zhou et al. (UAI 2021): seven layers and about
        three times the parameters.
    """

    threads_at_once = True
    builds_small: ClassVar = {"width": 8}

    def __init__(
        self,
        width: int = 64,
        *,
        in_channels: int = 3,
        image_size: int | None = None,
        pooling: Literal["flatten", "mean"] = "flatten",
        blocks: int = 4,
    ) -> None:
        super().__init__()
        check_choice("pooling", pooling, ("flatten", "mean"))
        check_positive(width=width)
        if blocks < HALVINGS:
            raise ConfigError(f"blocks is {blocks}, but must be at least {HALVINGS}")
        if image_size is None:
            image_size = 28 if in_channels == 1 else 32
        side = map_side(image_size, HALVINGS)
        self.input_shape = (in_channels, image_size, image_size)
        self.average = pooling == "mean"
        self.feature_size = width if self.average else width * side**2
        self.blocks = nn.Sequential(
            *(_block(in_channels if i == 0 else width, width, halve=i < HALVINGS) for i in range(blocks))
        )

    def forward(self, images: Tensor) -> Tensor:
        """Features (M, feature_size) of images (M, C, H, W)."""
        return flat_features(self.blocks(images), average=self.average)


def _block(inputs: int, outputs: int, halve: bool) -> nn.Sequential:
    convolve = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.xavier_uniform_(convolve.weight)
    if convolve.bias is not None:
        nn.init.zeros_(convolve.bias)
    # ReLU and pooling commute, and after the pool there are four times fewer values
    pool = [nn.MaxPool2d(2)] if halve else []
    return nn.Sequential(convolve, BatchNorm2d(outputs), *pool, nn.ReLU(inplace=True))
