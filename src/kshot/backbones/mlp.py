"""MLP: fully connected layers, for vectors and for small images."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from kshot.backbones.registry import Backbone, backbones
from kshot.errors import ConfigError, check_positive


@backbones.register("mlp")
class MLP(Backbone):
    """Fully connected layers with ReLU; by default the two of 40 units of Finn et al. (2017), section 5.1.

    Images are flattened. Vectors are images of one pixel: `in_channels` is then their length, and `image_size` 1.

    Parameters
    ----------
    widths : units of each layer; the last one is the number of features.
    in_channels, image_size : of the images; the size is their side in pixels. By default 28 with one channel, as glyphs
        and Omniglot have, and 32 otherwise, as CIFAR has.

    Weights and biases are initialised as torch's linear layers are: biases of zero would put the bend of every unit of
    the first layer into the origin.
    """

    threads_at_once = True

    def __init__(self, widths: tuple[int, ...] = (40, 40), in_channels: int = 3, image_size: int | None = None) -> None:
        super().__init__()
        if not widths:
            raise ConfigError("widths is empty; give one number of units for each layer")
        check_positive(widths=widths)
        if image_size is None:
            image_size = 28 if in_channels == 1 else 32
        check_positive(image_size=image_size)
        self.feature_size = widths[-1]
        sizes = pairwise([in_channels * image_size**2, *widths])
        self.layers = nn.Sequential(*(nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in sizes))

    def forward(self, images: Tensor) -> Tensor:
        """(M, C, H, W), or (M, C) where the images are vectors, to (M, feature_size)."""
        return self.layers(images.flatten(1))
