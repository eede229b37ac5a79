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
_DRAWS = ("top", "left", "flip", "order", "brightness", "contrast", "saturation")
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

    def __call__(self, images: Tensor, keys: NDArray[np.uint64]) -> Tensor:
        """Augment the images of B tasks.

        Parameters
        ----------
        images
            (B, M, H, W, C) uint8, C = 1 or 3.
        keys
            (B,) uint64, one per task, as in ``Episodes.keys``.

        Returns
        -------
        Tensor
            (B, M, C, H, W) float32 in 0..1 on the device of the images; ``.flatten(0, 1)`` of it is channels_last.

        Raises
        ------
        ConfigError
            If the padding exceeds the size of the images, or there is not one key per task.
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
        parameters = ImageParameters.of(self.parameters(keys, images_per_task), height * width)
        count, pixels = tasks * images_per_task, height * width
        at_once = max(1, (_PIXELS_ON_GPU if images.is_cuda else _PIXELS_AT_ONCE) // pixels)
        at_once = -(-count // -(-count // at_once))  # equal parts
        flat, augmented = images.flatten(0, 1), torch.empty((count, pixels, channels), device=images.device)
        padded = images.new_zeros((at_once, height + 2 * self.padding, width + 2 * self.padding, channels))
        for start in range(0, count, at_once):
            stop = min(start + at_once, count)
            augment(flat[start:stop], parameters.part(start, stop), padded=padded, out=augmented[start:stop])
        return augmented.view(tasks, images_per_task, height, width, channels).movedim(-1, -3)

    def parameters(self, keys: NDArray[np.uint64], images_per_task: int) -> AugmentationParameters:
        """The parameters of the M images of each of B tasks: a pure function of keys (B,) and the position 0..M-1."""
        counters = np.arange(images_per_task)[:, None] * _COUNTERS_PER_IMAGE + np.arange(len(_DRAWS))
        uniforms = seeding.uniform(seeding.bits(keys, _STREAM)[:, None, None], counters)
        draw = {name: uniforms[..., i] for i, name in enumerate(_DRAWS)}
        offsets = 2 * self.padding + 1
        return AugmentationParameters(
            top=(draw["top"] * offsets).astype(np.int64),
            left=(draw["left"] * offsets).astype(np.int64),
            flip=(draw["flip"] < 0.5) & self.flip,
            order=(draw["order"] * len(ORDERS)).astype(np.int64),
            brightness=_factor(draw["brightness"], self.brightness),
            contrast=_factor(draw["contrast"], self.contrast),
            saturation=_factor(draw["saturation"], self.saturation),
        )


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


def normalize(images: Tensor, normalization: Normalization, *, overwrite: bool = False) -> Tensor:
    """Subtract the mean of each channel and divide by its standard deviation.

    Parameters
    ----------
    images
        As `Split.gather` returns them: (..., H, W, C) uint8, taken on the scale 0..1, or (..., C, H, W) float.
    normalization
        One mean and one standard deviation per channel.
    overwrite
        The caller needs float images no more, so that their memory can hold the result.

    Returns
    -------
    Tensor
        (..., C, H, W) float, channels_last underneath.

    Raises
    ------
    ConfigError
        If the channels do not match.
    """
    if images.dtype == torch.uint8:
        images, overwrite = to_float(images), True
    channels, _, width = images.shape[-3:]
    if channels != len(normalization.mean):
        raise ConfigError(
            f"the images have {channels} channels, but the normalization is for {len(normalization.mean)}; "
            "give a mean and a standard deviation for each channel"
        )
    mean, std = np.asarray(normalization.mean), np.asarray(normalization.std)
    # Whole rows of W*C numbers: broadcasting over the C innermost ones alone costs more than the arithmetic.
    scale, shift = (
        torch.from_numpy(np.tile(channel, width)).to(images.device, images.dtype, non_blocking=True)
        for channel in (1 / std, -mean / std)
    )
    rows = images.movedim(-3, -1).flatten(-2)
    scaled = rows.mul_(scale) if overwrite else rows * scale
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
    if augmentation is not None:
        images = augmentation(images, episodes.keys)
    images = normalize(images, normalization, overwrite=augmentation is not None)
    shots = episodes.support.shape[1]
    return episodes.with_images(images[:, :shots], images[:, shots:])


def _factor(uniforms: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
    lowest = max(0.0, 1 - strength)
    return lowest + uniforms * (1 + strength - lowest)
