"""ResNet-50 as it is built for ImageNet (He et al. 2016), the one that the release of W21 offers."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from kshot.backbones.conv_block import convolution, flat_features, initialise_as_he, map_side
from kshot.backbones.normalization import BatchNorm2d
from kshot.backbones.registry import Backbone, backbones
from kshot.errors import check_positive

_EXPANSION = 4


@backbones.register("bottleneck-resnet50")
class BottleneckResNet50(Backbone):
    """A 7x7 convolution and 3, 4, 6, 3 bottleneck blocks, averaged to 2048 features; 23,508,032 parameters.

    The map is a thirty-second of the image's side, which leaves 3x3 places at 84 px and a single one at 32 px.
    `ResNet50` is the network of that name in few-shot learning, of blocks of three 3x3 convolutions.

    Parameters
    ----------
    width
        Channels of the stem; a bottleneck has 1, 2, 4 and 8 times as many in the four stages, and gives out four times
        that.
    blocks
        Blocks of each stage; (3, 4, 23, 3) is ResNet-101.
    in_channels
        Channels of the images.
    image_size
        Side of the images in pixels, at least 4.
    """

    threads_at_once = True
    builds_small: ClassVar = {"width": 4, "blocks": (1, 1, 1, 1)}

    def __init__(
        self,
        width: int = 64,
        *,
        blocks: tuple[int, int, int, int] = (3, 4, 6, 3),
        in_channels: int = 3,
        image_size: int = 84,
    ) -> None:
        super().__init__()
        check_positive(width=width, blocks=blocks)
        map_side(image_size, halvings=2)
        self.input_shape = (in_channels, image_size, image_size)
        self.stem = nn.Sequential(
            convolution(in_channels, width, size=7, stride=2),
            BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        layers: list[nn.Module] = []
        inputs = width
        for stage, count in enumerate(blocks):
            for position in range(count):
                layers.append(BottleneckBlock(inputs, width * 2**stage, stride=2 if stage and position == 0 else 1))
                inputs = _EXPANSION * width * 2**stage
        self.blocks = nn.Sequential(*layers)
        self.feature_size = inputs
        initialise_as_he(self)

    def forward(self, images: Tensor) -> Tensor:
        """Features (M, feature_size) of images (M, C, H, W)."""
        return flat_features(self.blocks(self.stem(images)), average=True)


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions plus a shortcut, which is a 1x1 convolution if the shape changes."""

    def __init__(self, inputs: int, middle: int, *, stride: int) -> None:
        super().__init__()
        outputs = _EXPANSION * middle
        self.convolutions = nn.Sequential(
            convolution(inputs, middle, size=1),
            BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            convolution(middle, middle, stride=stride),
            BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            convolution(middle, outputs, size=1),
            BatchNorm2d(outputs),
        )
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(convolution(inputs, outputs, size=1, stride=stride), BatchNorm2d(outputs))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        """(M, inputs, H, W) to (M, 4 * middle, H / stride, W / stride)."""
        shortcut = maps if self.shortcut is None else self.shortcut(maps)
        return self.activation(self.convolutions(maps) + shortcut)
