"""From stored images to what a network sees: random crop, colour jitter and flip on whole batches, then normalisation.

The training images of Lee et al. 2019 (MetaOptNet) and of Wang et al. 2021 go through RandomCrop, ColorJitter(0.4, 0.4,
0.4), RandomHorizontalFlip, ToTensor and Normalize of torchvision, one image at a time. Here every image of a batch has
its own parameters, drawn from the same distributions, and the batch goes through each step as one tensor.

The parameters are a pure function of the key of a task and of the position of an image in it, and so are the resulting
numbers, to the bit: an image is augmented alike in every process, after every resume, whatever else is in its batch.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot import seeding
from kshot.data.dataset import Normalization
from kshot.data.episodes import Episodes
from kshot.data.pixels import ORDERS, AugmentationParameters, ImageParameters, augment
from kshot.errors import ConfigError

_STREAM = seeding.key("augmentation")
_DRAWS = 7  # of each image: top, left, side, order, and three factors
_COUNTERS_PER_IMAGE = 8
_PIXELS_AT_ONCE = 1 << 18  # on a CPU: enough to make calls cheap, few enough for what lies between two steps
_PIXELS_ON_GPU = 1 << 26
_PUBLISHED_PADDING = {32: 4, 84: 8}


@dataclass(frozen=True)
class PhotoAugmentation:
    """Random crop of the zero-padded image, colour jitter with its three operations in random order, random mirroring.

    Parameters
    ----------
    padding
        Pixels of zeros on each side before an image of the original size is cut out.
    brightness, contrast, saturation
        Strength s; the factor is uniform in [max(0, 1 - s), 1 + s].
    flip
        Mirror an image with probability one half.

    Raises
    ------
    ConfigError
        If a number is negative.
    """

    padding: int
    _: KW_ONLY
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    flip: bool = True

    def __post_init__(self) -> None:
        for name in ("padding", "brightness", "contrast", "saturation"):
            if getattr(self, name) < 0:
                raise ConfigError(f"augmentation: {name} is {getattr(self, name)}, but must not be negative; 0 is off")

    def __call__(
        self, images: Tensor, keys: NDArray[np.uint64], *, normalization: Normalization | None = None
    ) -> Tensor:
        """Augment the images of B tasks.

        Parameters
        ----------
        images
            (B, M, H, W, C) uint8, C = 1 or 3.
        keys
            (B,) uint64, one per task, as in ``Episodes.keys``.
        normalization
            Normalise the result, to the bit as `normalize` does, while it is in the cache; None to leave it in 0..1.

        Returns
        -------
        Tensor
            (B, M, C, H, W) float32 in 0..1, unless normalised, on the device of the images; ``.flatten(0, 1)`` of it is
            channels_last.

        Raises
        ------
        ConfigError
            If the padding exceeds the size of the images, there is not one key per task, or the normalization is for
            other channels.
        """
        tasks, images_per_task, height, width, channels = images.shape
        if self.padding > min(height, width):
            raise ConfigError(
                f"augmentation: padding {self.padding} exceeds the images of {height}x{width} pixels; "
                f"choose at most {min(height, width)}"
            )
        if channels not in (1, 3):
            raise ConfigError(f"augmentation: colour jitter needs images of 1 or 3 channels, not {channels}")
        if np.shape(keys) != (tasks,):
            raise ConfigError(f"augmentation: {tasks} tasks need keys of shape ({tasks},), not {np.shape(keys)}")
        scale_and_shift = None if normalization is None else _scale_and_shift(normalization, channels, images.device)
        parameters = ImageParameters.of(self.parameters(keys, images_per_task), height * width)
        count, pixels = tasks * images_per_task, height * width
        at_once = max(1, (_PIXELS_ON_GPU if images.is_cuda else _PIXELS_AT_ONCE) // pixels)
        at_once = -(-count // -(-count // at_once))  # equal parts
        flat, augmented = images.flatten(0, 1), torch.empty((count, pixels, channels), device=images.device)
        padded = images.new_zeros((at_once, height + 2 * self.padding, width + 2 * self.padding, channels))
        for start in range(0, count, at_once):
            stop = min(start + at_once, count)
            augment(
                flat[start:stop],
                parameters.part(start, stop),
                padded=padded,
                out=augmented[start:stop],
                scale_and_shift=scale_and_shift,
            )
        return augmented.view(tasks, images_per_task, height, width, channels).movedim(-1, -3)

    def parameters(self, keys: NDArray[np.uint64], images_per_task: int) -> AugmentationParameters:
        """The parameters of the M images of each of B tasks: a pure function of keys (B,) and the position 0..M-1."""
        counters = np.arange(images_per_task)[:, None] * _COUNTERS_PER_IMAGE + np.arange(_DRAWS)
        uniforms = seeding.uniform(seeding.bits(keys, _STREAM)[:, None, None], counters)
        offsets = 2 * self.padding + 1
        strengths = np.asarray([self.brightness, self.contrast, self.saturation])
        lowest = np.maximum(0, 1 - strengths)
        top, left, side, order = np.moveaxis(
            (uniforms[..., :4] * (offsets, offsets, 2, len(ORDERS))).astype(int), -1, 0
        )
        factors = np.moveaxis(lowest + uniforms[..., 4:] * (1 + strengths - lowest), -1, 0)
        return AugmentationParameters(top, left, (side == 0) & self.flip, order, *factors)


def augmentation_for(normalization: Normalization | None, image_size: int) -> PhotoAugmentation | None:
    """The augmentation of a dataset's training images, or None if it has none.

    The padding is that of the papers at 32 pixels (4) and 84 pixels (8), and in the proportion of the latter elsewhere.
    """
    if normalization is None or normalization.augment == "none":
        return None
    return PhotoAugmentation(padding=_PUBLISHED_PADDING.get(image_size, round(image_size * 8 / 84)))


def to_float(images: Tensor) -> Tensor:
    """Stored images (..., H, W, C) uint8 as (..., C, H, W) float32 in 0..1, channels_last underneath."""
    return images.to(torch.float32).div_(255).movedim(-1, -3)


def normalize(images: Tensor, normalization: Normalization) -> Tensor:
    """Subtract the mean of each channel and divide by its standard deviation.

    Parameters
    ----------
    images
        As `Split.gather` returns them: (..., H, W, C) uint8, taken on the scale 0..1, or (..., C, H, W) float.
    normalization
        One mean and one standard deviation per channel.
    Returns
    -------
    Tensor
        (..., C, H, W) float, channels_last underneath.

    Raises
    ------
    ConfigError
        If the channels do not match.
    """
    stored = images.dtype == torch.uint8
    if stored:
        images = to_float(images)
    channels, _, width = images.shape[-3:]
    # Whole rows of W*C numbers: broadcasting over the C innermost ones alone costs more than the arithmetic.
    scale, shift = (
        part.flatten().repeat(width)
        for part in _scale_and_shift(normalization, channels, images.device, dtype=images.dtype)
    )
    rows = images.movedim(-3, -1).flatten(-2)
    scaled = rows.mul_(scale) if stored else rows * scale
    return scaled.add_(shift).unflatten(-1, (width, channels)).movedim(-1, -3)


def prepare_images(
    episodes: Episodes, normalization: Normalization | None, *, augmentation: PhotoAugmentation | None = None
) -> Episodes:
    """Stored images become what a learner sees: (B, S, C, H, W) float32, normalised, and augmented before that.

    Support and query images of a task are augmented as one sequence, so that no two share their parameters. Tasks
    without a normalisation, those of regression, are ready as they are.

    Parameters
    ----------
    episodes
        Tasks as sampled.
    normalization
        That of the dataset; None in regression.
    augmentation
        That of training; None for none, as in evaluation.
    """
    if normalization is None:
        return episodes
    images = episodes.images()
    if augmentation is None:
        images = normalize(images, normalization)
    else:
        images = augmentation(images, episodes.keys, normalization=normalization)
    shots = episodes.support.shape[1]
    return episodes.with_images(images[:, :shots], images[:, shots:])


def _scale_and_shift(
    normalization: Normalization, channels: int, device: torch.device, *, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """1/std and -mean/std of each channel, (C, 1, 1); ConfigError if the images have another number of channels."""
    if channels != len(normalization.mean):
        raise ConfigError(
            f"the images have {channels} channels, but the normalization is for {len(normalization.mean)}; "
            "give a mean and a standard deviation for each channel"
        )
    mean, std = np.asarray(normalization.mean), np.asarray(normalization.std)
    scale, shift = (
        torch.from_numpy(part)[:, None, None].to(device, dtype, non_blocking=True) for part in (1 / std, -mean / std)
    )
    return scale, shift
