"""The mean feature of the training images, for the adaptations that centre features by it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from kshot.data.dataset import Split
from kshot.errors import ConfigError
from kshot.evaluation.features import evaluating, features_at
from kshot.learners.base import FeatureLearner, Learner
from kshot.solvers.adaptation import Adaptation, HeadAdaptation

_IMAGES_AT_ONCE = 1000


def told_the_mean(
    adaptation: Adaptation | None,
    learner: Learner,
    training: Split | None,
    *,
    precision: Literal["float32", "bf16"] = "float32",
) -> Adaptation | None:
    """The adaptation; if it lacks the mean feature of the training images, one that knows it.

    Parameters
    ----------
    adaptation
        How tasks are learnt.
    learner
        Its features are averaged.
    training
        The training images; None if they are not at hand.
    precision
        What the backbone computes in.

    Raises
    ------
    ConfigError
        If the mean is needed and cannot be computed.
    """
    if not isinstance(adaptation, HeadAdaptation) or not adaptation.lacks_training_mean:
        return adaptation
    if not isinstance(learner, FeatureLearner):
        raise ConfigError(
            f"{adaptation.description} centres features by their mean over the training images, and the images of "
            f"{type(learner).__name__} have no fixed features; choose another adaptation, such as centroid"
        )
    if training is None:
        raise ConfigError(
            f"{adaptation.description} centres features by their mean over the training images: evaluate the whole "
            f"dataset instead of one split, or give {type(adaptation).__name__}().centred_at(features.mean(0)) with "
            f"the features of the training images, as extract_features returns them"
        )
    rows = np.arange(len(training.images))
    with evaluating(learner, precision), torch.no_grad():
        pieces = np.split(rows, range(_IMAGES_AT_ONCE, len(rows), _IMAGES_AT_ONCE))
        total = torch.stack([features_at(learner, training, some).double().sum(0) for some in pieces]).sum(0)
    return adaptation.centred_at((total / len(rows)).float())
