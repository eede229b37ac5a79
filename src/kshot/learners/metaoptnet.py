"""Meta-learning with differentiable convex optimisation: MetaOptNet (Lee, Maji, Ravichandran and Soatto 2019)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from kshot.backbones.registry import Backbone
from kshot.errors import ConfigError, check_choice
from kshot.learners.base import FeatureLearner, learners
from kshot.solvers.ridge import Ridge
from kshot.solvers.scaled import ScaledHead
from kshot.solvers.svm import SupportVectorMachine


@learners.register("metaoptnet")
class MetaOptNet(FeatureLearner):
    """A linear classifier is the exact optimum of a convex problem, through whose conditions gradients pass.

    The problem is that of Crammer and Singer's support vector machine (Lee et al. eq. 4), solved in its dual
    (eqs. 9-10), or of ridge regression (eq. 11). Gradients come from the KKT conditions at the optimum by the implicit
    function theorem (eqs. 7-8), not from the steps of a solver; of ridge regression, from its closed form. With the
    features X (n, D) of a task's support images and their one-hot labels Y (n, N), that is W' = X' (X X' + l2 I)^-1 Y;
    the support vector machine's W is written out in `kshot.solvers.svm`. A query image with features q scores
    scale * q W', with a learnt scale (eq. 12).

    The release sends support and query images through the network apart, and all tasks of a step together; here a
    task's images stay together. The linear term of its quadratic program for ridge regression is -2 Y, so that its
    scores are twice these: a scale of 1 is half of where it starts.

    backbone: images (M, C, H, W) -> features (M, D); the paper's is ResNet-12 without average pooling.
    head: "svm", the multi-class support vector machine, or "ridge", ridge regression onto one-hot labels.
    c: of the svm, the weight of its hinge losses.
    diagonal_shift: of the svm, what is added to the diagonal of its kernel; the release adds 1, the paper nothing.
    l2: of ridge, the weight of |W|^2.
    scale: where the learnt scale of the scores starts.
    label_smoothing: share of the probability that the loss spreads over the other classes, below one half (0.1 on
        mini-ImageNet).
    statistics: BatchNorm statistics in training: of each "task" alone, or "joint" over the whole meta batch.
    """

    meta_batch = 8

    def __init__(
        self,
        backbone: Backbone,
        head: Literal["svm", "ridge"] = "svm",
        c: float = 0.1,
        diagonal_shift: float = 1.0,
        l2: float = 50.0,
        scale: float = 1.0,
        label_smoothing: float = 0.0,
        statistics: Literal["task", "joint"] = "task",
    ) -> None:
        check_choice("head", head, ("svm", "ridge"))
        if not 0 <= label_smoothing < 0.5:
            raise ConfigError(
                f"label_smoothing is {label_smoothing}, but must be at least 0 and below 0.5: of two classes, the "
                f"other one would be the more probable"
            )
        fits = {
            "svm": SupportVectorMachine(c=c, diagonal_shift=diagonal_shift),
            "ridge": Ridge(l2=l2),
        }  # each checks its options
        super().__init__(backbone, ScaledHead(fits[head], scale=scale), statistics)
        self.label_smoothing = label_smoothing

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy against 1 - e for the class itself and e / (N - 1) for each of the others."""
        ways = scores.shape[-1]
        # PyTorch's smoothing spreads its share over all classes, that of the image included.
        return F.cross_entropy(scores.mT, labels, label_smoothing=self.label_smoothing * ways / (ways - 1))
