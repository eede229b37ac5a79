"""Conv4: the four-block network of Vinyals et al. (2016) and Snell et al. (2017)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from kshot.backbones.conv_block import check_choice, check_positive, flat_features, map_side
from kshot.backbones.normalization import BatchNorm2d
from kshot.backbones.registry import Backbone, backbones


@backbones.register("conv4")
class Conv4(Backbone):
    """Four times 3x3 convolution, BatchNorm, ReLU, 2x2 max pooling.

    Parameters
    ----------
    width : channels of every block; 64 in ProtoNet, 32 in MAML.
    in_channels, image_size : of the images; the size is their side in pixels, at least 16. By default 28 with one
        channel, as glyphs and Omniglot have, and 32 otherwise, as CIFAR has.
    pooling : "flatten" gives width * (image_size // 16)**2 features, 256 at 32 px and width 64; "mean" gives `width`.

    Convolutions are initialised uniformly by Glorot and Bengio (2010), with biases at zero, as MAML's are.
    """

    def __init__(
        self,
        width: int = 64,
        in_channels: int = 3,
        image_size: int | None = None,
        pooling: Literal["flatten", "mean"] = "flatten",
    ) -> None:
        super().__init__()
        check_choice("pooling", pooling, ("flatten", "mean"))
        check_positive("width", width)
        if image_size is None:
            image_size = 28 if in_channels == 1 else 32
        side = map_side(image_size, halvings=4)
        self.average = pooling == "mean"
        self.feature_size = width if self.average else width * side**2
        self.blocks = nn.Sequential(*(_block(in_channels if i == 0 else width, width) for i in range(4)))

    def forward(self, images: Tensor) -> Tensor:
        """(M, C, H, W) to (M, feature_size)."""
        return flat_features(self.blocks(images), average=self.average)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    convolve = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.xavier_uniform_(convolve.weight)
    if convolve.bias is not None:
        nn.init.zeros_(convolve.bias)
    # ReLU and pooling commute, and after the pool there are four times fewer values
    return nn.Sequential(convolve, BatchNorm2d(outputs), nn.MaxPool2d(2), nn.ReLU(inplace=True))
