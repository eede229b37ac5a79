"""Prototypical networks (Snell, Swersky and Zemel 2017)."""

from __future__ import annotations

from typing import Literal

from kshot.backbones.registry import Backbone
from kshot.learners.base import FeatureLearner, learners
from kshot.solvers.prototypes import NearestCentroid


@learners.register("protonet")
class ProtoNet(FeatureLearner):
    """Query images are scored by the negative SQUARED Euclidean distance to the class means (Snell et al. eqs. 1-2).

    backbone: images (M, C, H, W) -> features (M, D).
    statistics: BatchNorm statistics in training: of each "task" alone, or "joint" over the whole meta batch.
    """

    def __init__(self, backbone: Backbone, statistics: Literal["task", "joint"] = "task") -> None:
        super().__init__(backbone, NearestCentroid(), statistics)
