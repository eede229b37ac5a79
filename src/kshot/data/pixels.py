"""The steps of augmentation on whole batches of images, each image with parameters of its own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ORDERS = np.asarray(list(itertools.permutations(range(3))))  # of brightness 0, contrast 1, saturation 2
_PLACES = np.argsort(ORDERS, axis=1)  # of each operation in each order
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


@dataclass(frozen=True)
class ImageParameters:
    """What is done to n images: of the parameters above, those that work on pixels as they are.

    Parameters
    ----------
    top, left, flip
        (n,) as in `AugmentationParameters`.
    factors
        (10, n) float32, what `jitter` reads.
    """

    top: NDArray[np.int64]
    left: NDArray[np.int64]
    flip: NDArray[np.bool_]
    factors: NDArray[np.float32]

    @classmethod
    def of(cls, parameters: AugmentationParameters, pixels: int) -> ImageParameters:
        """The parameters of B*M images of so many pixels each."""
        top, left, flip, order, brightness, contrast, saturation = (
            values.reshape(-1) for values in vars(parameters).values()
        )
        return cls(top, left, flip, _jitter_factors(order, brightness, contrast, saturation, pixels))

    def part(self, start: int, stop: int) -> ImageParameters:
        """Those of the images from number `start` up to, and without, `stop`."""
        return ImageParameters(*(values[..., start:stop] for values in vars(self).values()))


def _jitter_factors(
    order: NDArray[np.int64],
    brightness: NDArray[np.float64],
    contrast: NDArray[np.float64],
    saturation: NDArray[np.float64],
    pixels: int,
) -> NDArray[np.float32]:
    """What `jitter` reads: (10, n), from the order and the factors (n,) of each image."""
    places = _PLACES[order]
    # brightness before the first blend, between the two, and after the second; 1 in two of these places
    brightness_at = np.where(places[:, 0] == np.arange(3)[:, None], brightness, 1.0)
    brighter, darker = np.maximum(brightness_at, 1), np.minimum(brightness_at, 1)
    before, after = np.stack([brightness_at[0], darker[1]]), brighter[1:]
    contrast_first = places[:, 1] < places[:, 2]
    is_contrast = np.stack([contrast_first, ~contrast_first])
    kept = np.where(is_contrast, contrast, saturation)
    added = (1 - kept) * after
    factors = np.empty((10, len(order)), np.float32)
    factors[0] = 255 / brighter[0]
    factors[1:3] = before
    factors[3:5] = kept * before * after
    factors[5:7] = np.where(is_contrast, 0, added * before)
    factors[7:9] = np.where(is_contrast, added / pixels, 0)
    factors[9] = darker[2] / 255
    return factors


def augment(
    images: Tensor,
    parameters: ImageParameters,
    *,
    padded: Tensor,
    out: Tensor,
    scale_and_shift: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Crop, mirror and jitter (n, H, W, C) uint8 -> out (n, H*W, C) float32 in 0..1, and normalise that.

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
    scale_and_shift
        (C, 1, 1) each, what the result is multiplied by, and what is then added; None for neither.
    """
    pixels = crop_and_flip(images, parameters, padded=padded[: len(images)])
    # colour planes, because all that follows runs along contiguous memory
    planes, work = torch.empty((out.shape[-1] + 2, *out.shape[:2]), device=out.device).tensor_split([-2])
    _copy(pixels.movedim(-1, 0), planes)
    jitter(planes, work=work, factors=torch.from_numpy(parameters.factors).to(out.device, non_blocking=True)[..., None])
    if scale_and_shift is not None:
        planes.mul_(scale_and_shift[0]).add_(scale_and_shift[1])
    _copy(planes, out.movedim(-1, 0))


def _copy(source: Tensor, target: Tensor) -> None:
    """Copy colour planes (C, n, H*W), one of the two interleaved; numpy takes half to two thirds of torch's time."""
    if target.is_cuda:
        target.copy_(source)
    else:
        for from_plane, to_plane in zip(source.numpy(), target.numpy()):
            np.copyto(to_plane, from_plane)


def crop_and_flip(images: Tensor, parameters: ImageParameters, *, padded: Tensor) -> Tensor:
    """(n, H, W, C) uint8 -> (n, H*W, C) uint8.

    Images that are mirrored are mirrored before they are cropped, so that a row of the result is a run of bytes of the
    padded images, and one copy.
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
    left = np.where(parameters.flip, 2 * margin - parameters.left, parameters.left)
    first_row = np.argsort(by_flip) * padded_height + parameters.top
    rows = first_row[:, None] + np.arange(height)
    starts = torch.from_numpy(((rows * padded_width + left[:, None]) * channels).reshape(-1))
    row = width * channels
    every_row = padded.view(-1).as_strided((padded.numel() - row + 1, row), (1, 1))
    return every_row.index_select(0, starts.to(images.device, non_blocking=True)).view(count, -1, channels)


def jitter(x: Tensor, *, factors: Tensor, work: Tensor) -> None:
    """Colour jitter of planes x (C, n, H*W) from 0..255 to 0..1, in place: that of torchvision.

    Brightness, contrast and saturation blend an image with black, with the mean of its grayscale image, and with that
    image, and each is clamped. So every image has two blends with something gray, and is multiplied by its brightness b
    before, between or after them. That costs no pass of its own: to clamp, multiply by b and clamp again is to multiply
    and then clamp if b > 1, and to clamp and then multiply if not. So b goes into the factors of the blend before it,
    or of the one after it.

    Parameters
    ----------
    x
        The images.
    factors
        (10, n, 1): the highest level of a pixel that brightness does not clamp; for each of the two blends b before it,
        the factor of the image, that of its grayscale image, and that of the sum of the gray levels; b after them,
        divided by 255.
    work
        (2, n, H*W), overwritten.
    """
    highest, *of_blends, end = factors.unbind(0)
    torch.minimum(x, highest, out=x)
    luminance, levels = work
    for before, image, gray, total in (of_blends[::2], of_blends[1::2]):
        _luminance(x, out=luminance)
        # Whole levels, as in PIL: their sum is exact in any order up to 256x256 pixels, whatever else is in the batch.
        average = torch.mul(luminance, before, out=levels).round_().sum(1, keepdim=True).mul_(total)
        # products and sums one by one: whether the remainder of a vectorised loop rounds like its body when the two are
        # fused is up to the compiler that built torch, and the result must not depend on the other images
        x.mul_(image).add_(luminance.mul_(gray).add_(average)).clamp_(0, 255)
    x.mul_(end)


def _luminance(x: Tensor, *, out: Tensor) -> None:
    """Grayscale image (n, H*W) of colour planes (C, n, H*W)."""
    if len(x) == 1:
        out.copy_(x[0])
    else:
        torch.mm(x.new_tensor([_LUMA]), x.flatten(1), out=out.view(1, -1))
