"""Prototypical networks (Snell, Swersky and Zemel 2017)."""

from __future__ import annotations

from typing import Literal

from kshot.backbones.registry import Backbone
from kshot.learners.base import FeatureLearner, learners
from kshot.solvers.prototypes import NearestCentroid


@learners.register("protonet")
class ProtoNet(FeatureLearner):
    """Query images are scored by the negative SQUARED Euclidean distance to the class means (Snell et al. 2017).

    ::

        for each task i of the batch, with support set S_i and query set Q_i:
            c_k = mean of f(x; theta) over the images x of class k in S_i    (eq. 1)
            p(k | x) = softmax over k of  -|f(x; theta) - c_k|^2             (eq. 2)
            loss_i = mean of  -log p(y | x)  over (x, y) in Q_i
        theta = optimiser's step along the gradient of  mean over i of  loss_i
        test task: the class of highest p(k | x)
    """

    def __init__(self, backbone: Backbone, *, normalize_over: Literal["task", "batch"] = "task") -> None:
        super().__init__(backbone, adaptation=NearestCentroid(), normalize_over=normalize_over)
