"""Whether the images of a split fit a network, which is checked before anything is measured."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from kshot.data.tasks import AnySplit
from kshot.errors import ConfigError
from kshot.evaluation.features import device_of, evaluating
from kshot.learners.base import Learner


@torch.no_grad()
def check_images(learner: Learner, split: AnySplit) -> None:
    """Check that the network takes the images of a split, by passing black ones through it.

    A network that averages its last map takes images of any size, and gives as many features of each. Measuring it at
    another size than it was built for is legitimate across datasets, but costs accuracy since everything in the images
    is larger or smaller than in training: this is a warning. Learners without a `backbone` are not checked.

    Parameters
    ----------
    learner
        The learner whose backbone is checked.
    split
        The images.

    Raises
    ------
    ConfigError
        If the network was built for another number of channels or another size.
    """
    backbone = getattr(learner, "backbone", None)
    if not isinstance(backbone, nn.Module):
        return
    channels, height, width = split.image_shape
    name, promised = type(backbone).__name__, getattr(backbone, "feature_size", None)
    images = f"the images of {split.dataset}/{split.name}, {channels} x {height} x {width}"
    advice = f"build it for them, with in_channels={channels} and image_size={width}"
    dtype = next((weight.dtype for weight in backbone.parameters()), torch.float32)
    # two images, since batch normalisation may need more than one value per channel
    black = torch.zeros(2, channels, height, width, dtype=dtype, device=device_of(learner))
    with evaluating(learner, "float32"):
        try:
            features = backbone.forward(black)  # not a compiled form, which would be compiled once more for this shape
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"{name} cannot take {images}: {error}; {advice}") from error
    if promised is not None and features.shape[1] != promised:
        raise ConfigError(
            f"{name} was built for {promised} features per image and gives {features.shape[1]} for {images}; {advice}"
        )
    built_for = getattr(backbone, "options", {}).get("image_size")
    if built_for not in (None, height, width):
        warnings.warn(
            f"{name} was built for images of {built_for} x {built_for} pixels and measures {images}: everything in "
            f"them has another scale, which costs accuracy; prepare the dataset with size {built_for}",
            stacklevel=2,
        )
