"""WRN-28-10 of Zagoruyko and Komodakis (2016), as used in few-shot learning by Rusu et al. and Mangla et al. (2019)."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from kshot.backbones.conv_block import convolution, flat_features, initialise_as_he, map_side
from kshot.backbones.dropout import Dropout
from kshot.backbones.normalization import BatchNorm2d
from kshot.backbones.registry import Backbone, backbones
from kshot.errors import check_choice, check_rate

DEPTH, WIDENING = 28, 10
Variant = Literal["zagoruyko", "tian"]


@backbones.register("wrn-28-10")
class WideResNet(Backbone):
    """Three stages of four pre-activated blocks, 160-320-640 channels, averaged to 640 features; 36,472,784 parameters.

    The release of W21 has the network of Tian et al. (2020) in place of the original, with 10,096 biases more.

    Parameters
    ----------
    in_channels
        Channels of the images.
    image_size
        Side of the images in pixels, at least 4.
    drop_rate
        Rate of the Dropout between the two convolutions of a block; 0.3 in the releases.
    variant
        "zagoruyko" for the original: the first convolution of a stage strides, and a 1x1 shortcut reads what it reads.
        "tian" for the release's: convolutions have biases, the second one strides, and the shortcut reads the map
        before BatchNorm and ReLU.
    """

    threads_at_once = True

    def __init__(
        self, *, in_channels: int = 3, image_size: int = 32, drop_rate: float = 0.0, variant: Variant = "zagoruyko"
    ) -> None:
        super().__init__()
        check_choice("variant", variant, get_args(Variant))
        check_rate(drop_rate=drop_rate)
        map_side(image_size, halvings=2)
        self.input_shape = (in_channels, image_size, image_size)
        self.stem = convolution(in_channels, 16, bias=variant == "tian")
        blocks: list[nn.Module] = []
        width = 16
        for stage in range(3):
            for position in range((DEPTH - 4) // 6):
                wider = 16 * WIDENING * 2**stage
                stride = 2 if stage and position == 0 else 1
                blocks.append(PreActivatedBlock(width, wider, drop_rate, stride=stride, variant=variant))
                width = wider
        self.blocks = nn.Sequential(*blocks, BatchNorm2d(width), nn.ReLU(inplace=True))
        self.feature_size = width
        initialise_as_he(self)

    def forward(self, images: Tensor) -> Tensor:
        """Features (M, 640) of images (M, C, H, W)."""
        return flat_features(self.blocks(self.stem(images)), average=True)


class PreActivatedBlock(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution, twice, plus a shortcut, a 1x1 convolution if the width changes."""

    def __init__(self, inputs: int, outputs: int, drop_rate: float, *, stride: int, variant: Variant) -> None:
        super().__init__()
        self.released = variant == "tian"
        first, second = (1, stride) if self.released else (stride, 1)
        self.activation = nn.Sequential(BatchNorm2d(inputs), nn.ReLU(inplace=True))
        self.convolutions = nn.Sequential(
            convolution(inputs, outputs, stride=first, bias=self.released),
            BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            Dropout(drop_rate),
            convolution(outputs, outputs, stride=second, bias=self.released),
        )
        self.shortcut = None
        if inputs != outputs:
            self.shortcut = convolution(inputs, outputs, size=1, stride=stride, bias=self.released)

    def forward(self, maps: Tensor) -> Tensor:
        """(M, inputs, H, W) to (M, outputs, H / stride, W / stride)."""
        activated = self.activation(maps)
        shortcut = maps if self.shortcut is None else self.shortcut(maps if self.released else activated)
        return self.convolutions(activated) + shortcut
