"""Multi-task learning with one shared class-weight matrix (Wang, Zhao and Li 2021)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.backbones.registry import Backbone
from kshot.data.episodes import Episodes
from kshot.errors import check_positive
from kshot.learners.base import FeatureLearner, learners
from kshot.solvers.logistic import LogisticRegression


@learners.register("mtl")
class MultiTask(FeatureLearner):
    """Multi-task learning (W21 eqs. 1-2 and section 5): the heads of all tasks are rows of one matrix, trained jointly.

    ::

        for each task i of the batch, with classes c_1..c_N and images X_i, support and query alike:
            scores = h(X_i; theta) W[c_1..c_N]^T                             (multi-head network, eq. 1)
            loss_i = mean cross-entropy of the scores
        theta, W = optimiser's step along the gradient of  mean over i of  loss_i      (eqs. 2, 12)
        test task: w = argmin over w of  1/2 |w|^2 + C * sum of cross-entropies of h(S; theta) w^T,  C = 3
                                                                             (fine-tuning, eqs. 6-7)

    There is no bias in training, in the paper's form no temperature either, and training does not tell support from
    query. A test task is learnt by logistic regression on L2-normalised features.

    The paper's form starts slowly: on features of unit length the first scores are all noise or nearly equal, as the
    numbers of classes and features have it. `initial_scale` and `scale` mend that; they change training alone.

    Parameters
    ----------
    num_classes
        Rows of the matrix W, the number of training classes.
    ways
        N, for the size of the initial matrix: sqrt(num_classes / N) times Kaiming-uniform.
    normalize_features
        L2-normalise features in training, too (W21: all datasets but FC100).
    initial_scale
        What the initial matrix is multiplied by; 1 in the paper.
    scale
        The initial value of a factor on the scores, which is learnt; None, as in the paper, for no factor.
    """

    tells_support_from_query = False
    needs_queries = False

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int,
        ways: int = 5,
        normalize_features: bool = True,
        initial_scale: float = 1.0,
        scale: float | None = None,
        normalize_over: Literal["task", "batch"] = "task",
    ) -> None:
        check_positive(num_classes=num_classes, ways=ways, initial_scale=initial_scale)
        if scale is not None:
            check_positive(scale=scale)
        super().__init__(backbone, adaptation=LogisticRegression(c=3.0), normalize_over=normalize_over)
        self.weight = _class_weights(num_classes, backbone.feature_size, initial_scale * math.sqrt(num_classes / ways))
        self.scale = None if scale is None else nn.Parameter(torch.tensor(float(scale)))
        self.normalize_features = normalize_features

    def training_scores(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Scores (B, S+T, N) of all images of each task against its own rows of the matrix, and labels (B, S+T)."""
        images = episodes.images()
        with self.training_pass(episodes):
            features = super().features(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        if self.normalize_features:
            features = F.normalize(features, dim=-1)
        scores = features @ self.weight[episodes.classes].mT
        return (scores if self.scale is None else self.scale * scores), episodes.labels()

    def features(self, images: Tensor) -> Tensor:
        """L2-normalised features (M, D) of images (M, C, H, W), as a task is learnt on."""
        return F.normalize(super().features(images), dim=-1)


def _class_weights(num_classes: int, feature_size: int, factor: float) -> nn.Parameter:
    """A matrix (num_classes, feature_size): `factor` times Kaiming-uniform with a=sqrt(5)."""
    weight = torch.empty(num_classes, feature_size)
    nn.init.kaiming_uniform_(weight, a=5**0.5)
    return nn.Parameter(weight * factor)
