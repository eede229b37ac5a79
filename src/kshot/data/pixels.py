"""The steps of augmentation on whole batches of images, each image with parameters of its own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ORDERS = np.asarray(list(itertools.permutations(range(3))))  # of brightness 0, contrast 1, saturation 2
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, the grayscale of PIL and of torchvision

# Jitter works on images sorted by their order of the three operations, so that each operation has few runs of images:
# csb, cbs, bcs, then bsc, sbc, scb. The place of each row of ORDERS in this sequence:
_PLACES = np.asarray([2, 3, 1, 0, 4, 5])


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


@dataclass(frozen=True)
class ImageParameters:
    """What is done to n images: of the parameters above, those that work on pixels as they are.

    Parameters
    ----------
    top, left, flip
        (n,) as in `AugmentationParameters`.
    place
        (n,) in 0..5, place of the image's order of operations among those that `jitter` goes through.
    factors
        (5, n) float32: of brightness; of contrast, and of the sum of grays that it adds; of saturation, and of the gray
        image that it adds. Those of an image's last operation also take 0..255 to 0..1.
    """

    top: NDArray[np.int64]
    left: NDArray[np.int64]
    flip: NDArray[np.bool_]
    place: NDArray[np.int64]
    factors: NDArray[np.float32]

    @classmethod
    def of(cls, parameters: AugmentationParameters, pixels: int) -> ImageParameters:
        """The parameters of B*M images of so many pixels each."""
        top, left, flip, order, brightness, contrast, saturation = (
            values.reshape(-1) for values in vars(parameters).values()
        )
        unit = np.where(ORDERS[order][:, 2] == np.arange(3)[:, None], 255, 1)
        factors = np.stack(
            [
                brightness / unit[0],
                contrast / unit[1],
                (1 - contrast) / pixels / unit[1],
                saturation / unit[2],
                (1 - saturation) / unit[2],
            ]
        )
        return cls(top, left, flip, _PLACES[order], factors.astype(np.float32))

    def part(self, start: int, stop: int) -> ImageParameters:
        """Those of the images from number `start` up to, and without, `stop`."""
        return ImageParameters(*(values[..., start:stop] for values in vars(self).values()))


def augment(images: Tensor, parameters: ImageParameters, *, padded: Tensor, out: Tensor) -> None:
    """Crop, mirror and jitter (n, H, W, C) uint8 -> out (n, H*W, C) float32 in 0..1.

    Parameters
    ----------
    images
        The stored images.
    parameters
        What is done to each of them.
    padded
        (at least n, H + 2*padding, W + 2*padding, C) uint8, whose margins are zero; its inside is overwritten.
    out
        Where the result goes.
    """
    count, device = len(images), images.device
    sequence = np.argsort(parameters.place, kind="stable")
    ends = np.searchsorted(parameters.place[sequence], np.arange(7)).tolist()
    planes = crop_and_flip(images, parameters, padded=padded[:count], sequence=sequence)
    factors = torch.from_numpy(np.ascontiguousarray(parameters.factors[:, sequence]))
    jitter(planes, factors.to(device, non_blocking=True)[..., None], ends)
    in_sequence = torch.empty_like(out)
    for channel, plane in enumerate(planes):
        torch.clamp(plane, 0, 1, out=in_sequence[:, :, channel])
    back = torch.from_numpy(np.argsort(sequence)).to(device, non_blocking=True)
    torch.index_select(in_sequence, 0, back, out=out)


def crop_and_flip(
    images: Tensor, parameters: ImageParameters, *, padded: Tensor, sequence: NDArray[np.int64]
) -> Tensor:
    """(n, H, W, C) uint8 -> (C, n, H*W) float32 in 0..255, the images in another sequence.

    Images that are mirrored are mirrored before they are cropped, so that a row of the result is a run of bytes of the
    padded images, and one copy. Then colour planes, because all that follows runs along contiguous memory.
    """
    count, height, width, channels = images.shape
    padded_height, padded_width = padded.shape[1:3]
    margin = (padded_width - width) // 2
    by_flip = np.argsort(parameters.flip, kind="stable")
    straight = count - int(parameters.flip.sum())
    sorted_images = images.index_select(0, torch.from_numpy(by_flip).to(images.device, non_blocking=True))
    inside = padded[:, margin : margin + height, margin : margin + width]
    inside[:straight].copy_(sorted_images[:straight])
    inside[straight:].copy_(sorted_images[straight:].flip(2))
    left = np.where(parameters.flip, 2 * margin - parameters.left, parameters.left)[sequence]
    first_row = np.argsort(by_flip)[sequence] * padded_height + parameters.top[sequence]
    rows = first_row[:, None] + np.arange(height)
    starts = torch.from_numpy(((rows * padded_width + left[:, None]) * channels).reshape(-1))
    row = width * channels
    every_row = padded.view(-1).as_strided((padded.numel() - row + 1, row), (1, 1))
    pixels = every_row.index_select(0, starts.to(images.device, non_blocking=True)).view(-1, channels)
    planes = torch.empty((channels, len(pixels)), device=images.device)
    return planes.copy_(pixels.mT).view(channels, count, -1)


def jitter(x: Tensor, factors: Tensor, ends: list[int]) -> None:
    """Colour jitter of planes x (C, n, H*W) in 0..255, in place; clamped to 0..1 the result is that of torchvision.

    Brightness, contrast and saturation blend an image with black, with the mean of its grayscale image, and with that
    image. Each operation is clamped, as in torchvision, but for the last one of each image, which the caller clamps.

    Parameters
    ----------
    x
        Images sorted by their place.
    factors
        (5, n, 1), see `ImageParameters`.
    ends
        Seven numbers: where each of the six places begins and, at last, n.
    """
    brightness, contrast, mean, saturation, gray = factors
    _, csb, cbs, bcs, bsc, sbc, _ = ends
    _brighten(x, brightness, slice(cbs, bsc))
    _blend_with_mean(x[:, :bcs], contrast[:bcs], mean[:bcs])
    _blend_with_gray(x[:, bcs:], saturation[bcs:], gray[bcs:])
    x.clamp_(0, 255)
    _brighten(x, brightness, slice(csb, cbs))
    _brighten(x, brightness, slice(bsc, sbc))
    _blend_with_gray(x[:, :bcs], saturation[:bcs], gray[:bcs])
    _blend_with_mean(x[:, bcs:], contrast[bcs:], mean[bcs:])
    for last in (slice(0, csb), slice(sbc, None)):
        x[:, last].clamp_(0, 255).mul_(brightness[last])


def _brighten(x: Tensor, factor: Tensor, images: slice) -> None:
    x[:, images].mul_(factor[images]).clamp_max_(255)


def _blend_with_mean(x: Tensor, factor: Tensor, mean: Tensor) -> None:
    # Whole levels, as in PIL: their sum is exact in any order up to 256x256 pixels, whatever else is in the batch.
    average = _luminance(x).round_().sum(1, keepdim=True).mul_(mean)
    x.mul_(factor).add_(average)


def _blend_with_gray(x: Tensor, factor: Tensor, gray: Tensor) -> None:
    blended = _luminance(x).mul_(gray)
    x.mul_(factor).add_(blended)


def _luminance(x: Tensor) -> Tensor:
    """Grayscale image (n, H*W) of colour planes (C, n, H*W), as a new tensor.

    Products and sums one by one: whether the remainder of a vectorised loop rounds like its body when the two are fused
    (``add(alpha=...)``) is up to the compiler that built torch, and the result must not depend on the other images.
    """
    if len(x) == 1:
        return x[0].clone()
    luminance, product = x[0] * _LUMA[0], x[1] * _LUMA[1]
    luminance.add_(product)
    return luminance.add_(torch.mul(x[2], _LUMA[2], out=product))
