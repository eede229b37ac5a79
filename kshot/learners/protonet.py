"""Prototypical networks (Snell, Swersky and Zemel 2017)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from kshot.backbones.registry import Backbone
from kshot.backbones.task_batch import batch_of_tasks
from kshot.data.episodes import Episodes
from kshot.learners.base import FeatureLearner, learners
from kshot.solvers.adaptation import NearestCentroid


@learners.register("protonet")
class ProtoNet(FeatureLearner):
    """Query images are scored by the negative SQUARED Euclidean distance to the class means (Snell et al. eqs. 1-2).

    backbone: images (M, C, H, W) -> features (M, D).
    statistics: BatchNorm statistics in training: of each "task" alone, or "joint" over the whole meta batch.
    """

    def __init__(self, backbone: Backbone, statistics: Literal["task", "joint"] = "task") -> None:
        super().__init__(backbone, NearestCentroid())
        self.statistics = statistics

    def training_scores(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Scores (B, T, N) of the query images by distance to the support means, and their labels (B, T)."""
        with batch_of_tasks(episodes.tasks, episodes.keys, joint=self.statistics == "joint"):
            scores = self.adaptation.scores(self, episodes)
        return scores, episodes.query_labels
