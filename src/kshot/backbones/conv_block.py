"""The parts of the convolutional backbones."""

from __future__ import annotations

from torch import Tensor, nn

from kshot.errors import ConfigError

LEAKY_SLOPE = 0.1


def convolution(inputs: int, outputs: int, *, size: int = 3, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps the map's side (up to `stride`); next to BatchNorm, which shifts, few have a bias."""
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=bias)


def leaky_relu() -> nn.LeakyReLU:
    """The activation of ResNet-12 and R2D2, slope 0.1."""
    return nn.LeakyReLU(LEAKY_SLOPE, inplace=True)


def map_side(image_size: int, halvings: int) -> int:
    """Side of the map after `halvings` pools of 2; ConfigError if nothing is left of the image."""
    side = image_size >> halvings
    if side < 1:
        raise ConfigError(
            f"image_size is {image_size}, but this backbone halves the image {halvings} times and needs at least "
            f"{1 << halvings} pixels; use larger images or a shallower backbone"
        )
    return side


def initialise_as_he(network: nn.Module) -> None:
    """Draw the weights of all convolutions from He et al.'s (2015) normal distribution, by fan-out.

    The gain is that of a slope of 0, sqrt(2), for LeakyReLU too, as in the releases of ResNet-12.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="leaky_relu")


def flat_features(maps: Tensor, *, average: bool) -> Tensor:
    """(M, C, H, W) to (M, C), averaged over the map, or to (M, C*H*W)."""
    return maps.mean((2, 3)) if average else maps.flatten(1)
