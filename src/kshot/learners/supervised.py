"""Supervised pretraining, the control that every meta-learner has to beat (Tian et al. 2020)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kshot.backbones.registry import Backbone
from kshot.backbones.task_batch import batch_of_tasks
from kshot.data.dataset import Split
from kshot.data.episodes import Episodes, TaskShape
from kshot.data.image_sampler import ImageSampler
from kshot.data.tasks import AnySplit
from kshot.errors import check_positive
from kshot.learners.base import FeatureLearner, learners
from kshot.solvers.logistic import LogisticRegression


@learners.register("supervised")
class Supervised(FeatureLearner):
    """Cross-entropy over all training classes at once; a new task by logistic regression on features (Tian et al.).

    ::

        for each batch of images X with classes y among all training classes:
            scores = W h(X; theta) + b
            theta, W, b = optimiser's step along the gradient of  mean cross-entropy of the scores   (T20 eq. 3)
        test task: w = argmin over w of  1/2 |w|^2 + C * sum of cross-entropies of h(S; theta) w^T,  C = 1
                                                                             (T20 eq. 4, on unit features)

    Training draws images, not tasks: ``meta_batch`` counts images and an epoch is one pass over the split.

    Parameters
    ----------
    num_classes
        The number of training classes.
    """

    meta_batch = 64
    needs_queries = False
    tells_support_from_query = False

    def __init__(self, backbone: Backbone, *, num_classes: int) -> None:
        check_positive(num_classes=num_classes)
        super().__init__(backbone, adaptation=LogisticRegression(c=1.0), normalize_over="batch")
        self.classifier = nn.Linear(backbone.feature_size, num_classes)

    def training_scores(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Scores (B, 1, num_classes) of B single images, and their classes (B, 1)."""
        images = episodes.images()
        # DropBlock's ramp counts passes of the network in training, one per task in a step of a meta-learner; here all
        # images of a step, in all processes, go through in a single one.
        with batch_of_tasks(episodes.tasks, episodes.keys, joint=True, total=1):
            features = super().features(images.flatten(0, 1))
        return self.classifier(features).unflatten(0, images.shape[:2]), episodes.labels()

    def features(self, images: Tensor) -> Tensor:
        """L2-normalised features (M, D) of images (M, C, H, W), as a task is learnt on."""
        return F.normalize(super().features(images), dim=-1)

    def sampler(
        self, split: AnySplit, shape: TaskShape, *, seed: int, within_domain: bool | None = None
    ) -> ImageSampler:
        """Images of the split in random order; the shape of tasks and the domains play no part."""
        assert isinstance(split, Split), "check_ways refuses tasks of regression"
        return ImageSampler(split, seed)

    def tasks_per_epoch(self, split: AnySplit) -> int:
        """Each image once."""
        assert isinstance(split, Split), "check_ways refuses tasks of regression"
        return len(split.images)
