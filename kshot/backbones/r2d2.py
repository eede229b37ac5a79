"""The backbone of R2D2 (Bertinetto et al. 2019), in the form in which MetaOptNet (Lee et al. 2019) reproduced it."""

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

    The features are the flattened outputs of blocks 3 and 4 side by side: 51,200 at 84 px, 8,192 at 32 px.

    Parameters
    ----------
    in_channels, image_size : of the images; the size is their side in pixels, at least 16.
    drop_rates : Dropout after blocks 3 and 4. Its own release takes 0.1 for both on mini-ImageNet and 0.4 on CIFAR-FS,
        MetaOptNet's 0.1 and 0.3.
    last_activation : whether block 4 ends in LeakyReLU; MetaOptNet's release leaves it out, and gains a point.
    """

    threads_at_once = True

    def __init__(
        self,
        in_channels: int = 3,
        image_size: int = 84,
        drop_rates: tuple[float, float] = (0.1, 0.1),
        last_activation: bool = True,
    ) -> None:
        super().__init__()
        for rate in drop_rates:
            check_rate("drop_rates", rate)
        side = map_side(image_size, halvings=4)
        self.feature_size = WIDTHS[2] * (image_size >> 3) ** 2 + WIDTHS[3] * side**2
        widths = (in_channels, *WIDTHS)
        early = [_block(widths[i], widths[i + 1]) for i in range(3)]
        self.first_three = nn.Sequential(*early, Dropout(drop_rates[0]))
        self.fourth = nn.Sequential(_block(*WIDTHS[2:], activate=last_activation), Dropout(drop_rates[1]))

    def forward(self, images: Tensor) -> Tensor:
        """(M, C, H, W) to (M, feature_size)."""
        third = self.first_three(images)
        return torch.cat([third.flatten(1), self.fourth(third).flatten(1)], 1)


def _block(inputs: int, outputs: int, *, activate: bool = True) -> nn.Sequential:
    block = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), BatchNorm2d(outputs), nn.MaxPool2d(2))
    return block.append(leaky_relu()) if activate else block
