"""The steps of augmentation on whole batches of images, each image with parameters of its own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

ORDERS = np.asarray(list(itertools.permutations(range(3))))  # of brightness 0, contrast 1, saturation 2
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, the grayscale of PIL and of torchvision


@dataclass(frozen=True)
class AugmentationParameters:
    """What is drawn for each image of B tasks of M images; every array has shape (B, M).

    Parameters
    ----------
    top, left
        int64 in 0..2*padding, the corner of the crop in the padded image.
    flip
        bool, mirror left and right.
    order
        int64 in 0..5, row of the permutations of (brightness, contrast, saturation) in lexicographic order.
    brightness, contrast, saturation
        float64, the factors; 1 changes nothing.
    """

    top: NDArray[np.int64]
    left: NDArray[np.int64]
    flip: NDArray[np.bool_]
    order: NDArray[np.int64]
    brightness: NDArray[np.float64]
    contrast: NDArray[np.float64]
    saturation: NDArray[np.float64]


def lookups(
    parameters: AugmentationParameters, padding: int, *, height: int, width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Row (n, H) and column (n, W) of the padded image behind each row and column of the result, int32."""
    rows = parameters.top.reshape(-1, 1) + np.arange(height)
    columns = np.arange(width)
    mirrored = np.where(parameters.flip.reshape(-1, 1), columns[::-1], columns)
    both = np.concatenate([rows, parameters.left.reshape(-1, 1) + mirrored], 1).astype(np.int32)
    on_device = torch.from_numpy(both).to(device, non_blocking=True)
    return on_device[:, :height], on_device[:, height:]


def crop_and_flip(images: Tensor, *, padding: int, rows: Tensor, columns: Tensor) -> Tensor:
    """(n, H, W, C) -> (C, n, H*W) uint8: each number of the result is looked up once, in the list of all numbers.

    Colour planes rather than interleaved colours, because all that follows then runs along contiguous memory; looking
    up single bytes costs less than looking up pixels of three bytes and separating their colours afterwards.
    """
    padded = F.pad(images, (0, 0, padding, padding, padding, padding))
    count, padded_height, padded_width, channels = padded.shape
    image = torch.arange(count, device=images.device, dtype=torch.int32)[:, None]
    pixels = ((image * padded_height + rows) * padded_width)[:, :, None] + columns[:, None, :]
    first, numbers = pixels.mul_(channels).view(-1), padded.view(-1)
    planes = [numbers[channel:].index_select(0, first) for channel in range(channels)]
    return torch.stack(planes).view(channels, count, -1)


def jitter(x: Tensor, rounds: Tensor, out: Tensor) -> None:
    """(C, n, H*W) float32 in 0..255 -> out (n, H*W, C) in 0..1, each operation clamped as in torchvision; x is used up.

    Brightness, contrast and saturation blend an image x with black, with the mean of its grayscale image g, and with g:
    all are scale * x + gray * g + mean * sum(g), so that three rounds serve every order of the three, image by image.
    """
    for number, (scale, gray, mean) in enumerate(rounds):
        if number > 0:
            x.clamp_(0, 255)
        luminance = _luminance(x)
        # Whole levels, as in PIL: their sum is exact in any order up to 256x256 pixels, whatever else is in the batch.
        average = luminance.round().sum(1, keepdim=True).mul_(mean)
        x.mul_(scale).add_(luminance.mul_(gray).add_(average))
    for channel, plane in enumerate(x):
        torch.clamp(plane, 0, 1, out=out[:, :, channel])


def _luminance(x: Tensor) -> Tensor:
    """Grayscale image (n, H*W) of colour planes (C, n, H*W), as a new tensor.

    Products and sums one by one: whether the remainder of a vectorised loop rounds like its body when the two are fused
    (``add(alpha=...)``) is up to the compiler that built torch, and the result must not depend on the other images.
    """
    if len(x) == 1:
        return x[0].clone()
    red, green, blue = (plane * weight for plane, weight in zip(x, _LUMA))
    return red.add_(green).add_(blue)


def blend_coefficients(parameters: AugmentationParameters, pixels: int) -> NDArray[np.float32]:
    """(3 rounds, 3 coefficients scale, gray and mean, n, 1) for sums over this many pixels.

    The last round also takes 0..255 to 0..1.
    """
    brightness, contrast, saturation = (
        factors.reshape(-1) for factors in (parameters.brightness, parameters.contrast, parameters.saturation)
    )
    zero = np.zeros_like(brightness)
    operations = np.asarray(
        [[brightness, zero, zero], [contrast, zero, (1 - contrast) / pixels], [saturation, 1 - saturation, zero]]
    )
    order = ORDERS[parameters.order.reshape(-1)].T
    rounds = np.take_along_axis(operations, order[:, None, :], 0)
    rounds[-1] /= 255
    return rounds.astype(np.float32)[..., None]
