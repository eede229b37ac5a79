"""Supervised pretraining, the control that every meta-learner has to beat (Tian et al. 2020)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kshot.backbones.registry import Backbone
from kshot.backbones.task_batch import batch_of_tasks
from kshot.data.dataset import Split
from kshot.data.episodes import Episodes, ImageSampler, TaskShape
from kshot.data.tasks import AnySplit
from kshot.errors import check_positive
from kshot.learners.base import FeatureLearner, learners
from kshot.solvers.logistic import LogisticRegression


@learners.register("supervised")
class Supervised(FeatureLearner):
    """Cross-entropy over all training classes at once; a new task by logistic regression on features (T20 eqs. 3-4).

    Training draws images, not tasks: ``meta_batch`` counts images and an epoch is one pass over the split.

    backbone: images (M, C, H, W) -> features (M, D), with attribute ``feature_size`` = D.
    num_classes: the number of training classes.
    """

    meta_batch = 64
    needs_queries = False

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        check_positive(num_classes=num_classes)
        super().__init__(backbone, LogisticRegression(c=1.0), statistics="joint")
        self.classifier = nn.Linear(backbone.feature_size, num_classes)

    def training_scores(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Scores (B, 1, num_classes) of B single images, and their classes (B, 1)."""
        images = episodes.images()
        # DropBlock's ramp counts passes of the network in training, of which a step of a meta-learner makes one a task;
        # here all images of a step, in all processes, go through in a single one.
        with batch_of_tasks(episodes.tasks, episodes.keys, joint=True, total=1):
            features = super().features(images.flatten(0, 1))
        return self.classifier(features).unflatten(0, images.shape[:2]), episodes.labels()

    def features(self, images: Tensor) -> Tensor:
        """L2-normalised features (M, D) of images (M, C, H, W), as a task is learnt on."""
        return F.normalize(super().features(images), dim=-1)

    def sampler(self, split: AnySplit, shape: TaskShape, seed: int, within_domain: bool | None = None) -> ImageSampler:
        """Images of the split in random order; the shape of tasks and the groups play no part."""
        assert isinstance(split, Split), "check_ways refuses tasks of regression"
        return ImageSampler(split, seed)

    def tasks_per_epoch(self, split: AnySplit) -> int:
        """Each image once."""
        assert isinstance(split, Split), "check_ways refuses tasks of regression"
        return len(split.images)
