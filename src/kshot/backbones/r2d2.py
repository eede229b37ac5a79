"""The backbone of R2D2 (Bertinetto et al. 2019), also in the form in which MetaOptNet (Lee et al. 2019) has it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kshot.backbones.conv_block import leaky_relu, map_side
from kshot.backbones.dropout import Dropout
from kshot.backbones.normalization import BatchNorm2d
from kshot.backbones.registry import Backbone, backbones
from kshot.errors import check_rate

WIDTHS = (96, 192, 384, 512)


@backbones.register("r2d2")
class R2D2Network(Backbone):
    """Four blocks, 96-192-384-512: 3x3 convolution, BatchNorm, 2x2 max pooling, LeakyReLU 0.1; no pooling at the end.

    The features are the flattened outputs of blocks 3 and 4 side by side. In R2-D2's release both are the larger of
    overlapping 2x2 windows, one step apart: 72,576 features at 84 px, 8,064 at 32 px. In MetaOptNet's, block 4 halves
    the map like the others, and the output of block 3 is as it is: 51,200 and 8,192.

    Parameters
    ----------
    in_channels
        Channels of the images.
    image_size
        Side of the images in pixels, at least 16.
    drop_rates
        Rates of Dropout after blocks 3 and 4. R2-D2's release takes 0.1 for both on mini-ImageNet and 0.4 on CIFAR-FS,
        MetaOptNet's 0.1 and 0.3.
    overlapping
        Whether the windows of block 4 and of the copy of block 3's output overlap, as in R2-D2's release.
    last_activation
        Whether block 4 ends in LeakyReLU; MetaOptNet's release leaves it out, and gains a point.
    """

    threads_at_once = True

    def __init__(
        self,
        *,
        in_channels: int = 3,
        image_size: int = 84,
        drop_rates: tuple[float, float] = (0.1, 0.1),
        overlapping: bool = True,
        last_activation: bool = True,
    ) -> None:
        super().__init__()
        check_rate(drop_rates=drop_rates)
        self.input_shape = (in_channels, image_size, image_size)
        third, halved = image_size >> 3, map_side(image_size, halvings=4)
        sides = (third - 1, third - 1) if overlapping else (third, halved)
        self.feature_size = sum(width * side**2 for width, side in zip(WIDTHS[2:], sides))
        self.copied = nn.MaxPool2d(2, stride=1) if overlapping else nn.Identity()
        widths = (in_channels, *WIDTHS)
        early = [_block(widths[i], widths[i + 1]) for i in range(3)]
        self.first_three = nn.Sequential(*early, Dropout(drop_rates[0]))
        last = _block(*WIDTHS[2:], stride=1 if overlapping else 2, activate=last_activation)
        self.fourth = nn.Sequential(last, Dropout(drop_rates[1]))

    def forward(self, images: Tensor) -> Tensor:
        """Features (M, feature_size) of images (M, C, H, W)."""
        third = self.first_three(images)
        return torch.cat([self.copied(third).flatten(1), self.fourth(third).flatten(1)], 1)


def _block(inputs: int, outputs: int, *, stride: int = 2, activate: bool = True) -> nn.Sequential:
    pool = nn.MaxPool2d(2, stride=stride)
    block = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), BatchNorm2d(outputs), pool)
    return block.append(leaky_relu()) if activate else block
