"""MLP: fully connected layers, for vectors and for small images."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from kshot.backbones.registry import Backbone, backbones
from kshot.errors import check_positive


@backbones.register("mlp")
class MLP(Backbone):
    """Fully connected layers with ReLU; by default the two of 40 units of Finn et al. (2017), section 5.1.

    Images are flattened. Vectors are images of one pixel: `in_channels` is then their length, and `image_size` 1.
    Weights and biases are initialised as torch's linear layers are: biases of zero would put the bend of every unit of
    the first layer into the origin.

    Parameters
    ----------
    widths
        Units of each layer; the last one is the number of features.
    in_channels
        Channels of the images, or the length of vectors.
    image_size
        Side of the images in pixels; None for 28 with one channel, as glyphs and Omniglot have, and for 32 otherwise,
        as CIFAR has.
    """

    threads_at_once = True
    builds_small: ClassVar = {"widths": (6, 5)}

    def __init__(
        self, widths: tuple[int, ...] = (40, 40), *, in_channels: int = 3, image_size: int | None = None
    ) -> None:
        super().__init__()
        check_positive(widths=widths)
        if image_size is None:
            image_size = 28 if in_channels == 1 else 32
        check_positive(image_size=image_size)
        self.input_shape = (in_channels, image_size, image_size)
        self.feature_size = widths[-1]
        sizes = pairwise([in_channels * image_size**2, *widths])
        self.layers = nn.Sequential(*(nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in sizes))

    def forward(self, images: Tensor) -> Tensor:
        """Features (M, feature_size) of images (M, C, H, W), or of vectors (M, C)."""
        return self.layers(images.flatten(1))
