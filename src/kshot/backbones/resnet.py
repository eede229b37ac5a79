"""The residual networks of few-shot learning: ResNet-12 (Lee et al. 2019) and its deeper kin (Tian et al. 2020)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from kshot.backbones.conv_block import convolution, flat_features, initialise_as_he, leaky_relu, map_side
from kshot.backbones.dropout import DropBlock, Dropout
from kshot.backbones.normalization import BatchNorm2d
from kshot.backbones.registry import Backbone, backbones
from kshot.errors import check_choice, check_positive, check_rate


class ResNet(Backbone):
    """Four stages of residual blocks of three 3x3 convolutions; the first block of each stage halves the map.

    Parameters
    ----------
    in_channels
        Channels of the images.
    widths
        Channels of the four stages; (64, 128, 256, 512) is the narrow variant.
    image_size
        Side of the images in pixels, at least 16.
    pooling
        "mean" averages the last map to widths[3] features; "none" keeps it, as MetaOptNet does: 16,000 features at
        84 px, 2,560 at 32 px.
    drop_rate
        Rate of Dropout after every block, and of DropBlock in its place after stages 3 and 4.
    drop_block_size
        Side of DropBlock's squares; None for 5 on images of 64 px and more, and for 2 on smaller ones.
    ramp_tasks
        Training tasks over which DropBlock's rate rises from 0. The releases count 40,000 passes, 20 epochs of 1,600
        training and 400 validation tasks; we count training tasks alone, so that 32,000 end the ramp at the same time.
    """

    blocks_per_stage: ClassVar[tuple[int, int, int, int]]
    squeezed: ClassVar[bool] = False  # whether blocks weigh their channels by squeeze and excitation

    threads_at_once = True
    builds_small: ClassVar = {"widths": (4, 6, 8, 10)}

    def __init__(
        self,
        *,
        widths: tuple[int, int, int, int] = (64, 160, 320, 640),
        in_channels: int = 3,
        image_size: int = 84,
        pooling: Literal["mean", "none"] = "mean",
        drop_rate: float = 0.1,
        drop_block_size: int | None = None,
        ramp_tasks: int = 32_000,
    ) -> None:
        super().__init__()
        check_choice("pooling", pooling, ("mean", "none"))
        check_rate(drop_rate=drop_rate)
        side = map_side(image_size, halvings=4)
        self.input_shape = (in_channels, image_size, image_size)
        self.average = pooling == "mean"
        self.feature_size = widths[-1] if self.average else widths[-1] * side**2
        size = (5 if image_size >= 64 else 2) if drop_block_size is None else drop_block_size
        check_positive(widths=widths, drop_block_size=size, ramp_tasks=ramp_tasks)
        blocks: list[nn.Module] = []
        for stage, (width, count) in enumerate(zip(widths, self.blocks_per_stage)):
            for position in range(count):
                in_squares = stage >= 2 and position == count - 1
                drop = DropBlock(drop_rate, size=size, ramp_tasks=ramp_tasks) if in_squares else Dropout(drop_rate)
                blocks.append(ResidualBlock(in_channels, width, drop, halve=position == 0, squeezed=self.squeezed))
                in_channels = width
        self.blocks = nn.Sequential(*blocks)
        initialise_as_he(self)

    def forward(self, images: Tensor) -> Tensor:
        """(M, C, H, W) to (M, feature_size)."""
        return flat_features(self.blocks(images), average=self.average)


class ResidualBlock(nn.Module):
    """Three 3x3 convolutions plus a shortcut, which is a 1x1 convolution if the block halves the map."""

    def __init__(self, inputs: int, outputs: int, drop: nn.Module, *, halve: bool, squeezed: bool = False) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            convolution(inputs, outputs),
            BatchNorm2d(outputs),
            leaky_relu(),
            convolution(outputs, outputs),
            BatchNorm2d(outputs),
            leaky_relu(),
            convolution(outputs, outputs),
            BatchNorm2d(outputs),
            *([SqueezeAndExcitation(outputs)] if squeezed else []),
        )
        self.shortcut = nn.Sequential(convolution(inputs, outputs, size=1), BatchNorm2d(outputs)) if halve else None
        self.activation = leaky_relu()
        self.pool = nn.MaxPool2d(2) if halve else nn.Identity()
        self.drop = drop

    def forward(self, maps: Tensor) -> Tensor:
        """(M, inputs, H, W) to (M, outputs, H, W), or half the side."""
        shortcut = maps if self.shortcut is None else self.shortcut(maps)
        return self.drop(self.pool(self.activation(self.convolutions(maps) + shortcut)))


class SqueezeAndExcitation(nn.Module):
    """Weighs channels by a small network of their means (Hu et al. 2018), a quarter of the channels in the middle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 4)
        self.weights = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, maps: Tensor) -> Tensor:
        """(M, C, H, W) to the same shape."""
        return maps * self.weights(maps.mean((2, 3)))[:, :, None, None]


@backbones.register("resnet12")
class ResNet12(ResNet):
    """One block per stage; 12,424,320 parameters, or 7,996,800 in the narrow variant. Options: see `ResNet`."""

    blocks_per_stage = (1, 1, 1, 1)


@backbones.register("seresnet12")
class SEResNet12(ResNet):
    """ResNet-12 with squeeze and excitation (Tian et al. 2020); 12,696,648 parameters. Options: see `ResNet`."""

    blocks_per_stage = (1, 1, 1, 1)
    squeezed = True


@backbones.register("resnet18")
class ResNet18(ResNet):
    """1, 1, 2, 2 blocks, the ResNet-18 of Tian et al. (2020). Options: see `ResNet`."""

    blocks_per_stage = (1, 1, 2, 2)


@backbones.register("resnet24")
class ResNet24(ResNet):
    """Two blocks per stage, the ResNet-24 of Tian et al. (2020). Options: see `ResNet`."""

    blocks_per_stage = (2, 2, 2, 2)


@backbones.register("resnet50")
class ResNet50(ResNet):
    """3, 4, 6, 3 blocks, the ResNet-50 of Tian et al. (2020). Options: see `ResNet`."""

    blocks_per_stage = (3, 4, 6, 3)
