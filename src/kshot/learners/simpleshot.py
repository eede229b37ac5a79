"""SimpleShot (Wang, Chao, Weinberger and van der Maaten 2019)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kshot.backbones.registry import Backbone
from kshot.data.augmentation import normalize
from kshot.data.dataset import Split
from kshot.learners.base import FeatureLearner, learners
from kshot.learners.supervised import Supervised
from kshot.solvers.prototypes import NearestCentroid

_IMAGES_AT_ONCE = 250


@learners.register("simpleshot")
class SimpleShot(Supervised):
    """Supervised training, then the nearest class mean of features that are centred and of unit length (CL2N).

    ::

        for each batch of images X with classes y among all training classes:
            theta, W, b = optimiser's step along the gradient of  mean cross-entropy of W h(X; theta) + b
        m = mean of h(x; theta) over all training images x
        test task: f(x) = (h(x; theta) - m) / |h(x; theta) - m|              (centring, then the L2 norm)
                   x is of the class whose mean of f over the support images is nearest to f(x)

    The mean m is a statistic over the training split: the buffer ``mean``, NaN until training has computed it.
    """

    mean: Tensor

    def __init__(self, backbone: Backbone, *, num_classes: int) -> None:
        super().__init__(backbone, num_classes=num_classes)
        self.adaptation = NearestCentroid()
        self.register_buffer("mean", torch.full((backbone.feature_size,), torch.nan))

    def observe_training_split(self, split: Split) -> None:
        """Compute the mean feature of all training images, without augmentation."""
        rows = np.arange(len(split.images))
        chunks = np.split(rows, range(_IMAGES_AT_ONCE, len(rows), _IMAGES_AT_ONCE))
        images = (normalize(split.gather(chunk, self.mean.device), split.normalization) for chunk in chunks)
        sums = [FeatureLearner.features(self, some).double().sum(0) for some in images]
        self.mean.copy_(torch.stack(sums).sum(0) / len(rows))

    def features(self, images: Tensor) -> Tensor:
        """Centred features (M, D) of unit length of images (M, C, H, W), as a task is learnt on."""
        return F.normalize(FeatureLearner.features(self, images) - self.mean, dim=-1)
