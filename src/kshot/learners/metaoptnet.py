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
    """A linear classifier is the exact optimum of a convex problem; gradients pass through its conditions (Lee et al.).

    ::

        for each task i of the batch, with support features X (n, D) and labels y, one-hot Y (n, N):
            W = the optimum of Crammer and Singer's support vector machine   (eq. 4; in its dual, eqs. 9-10)
                or of ridge regression, W' = X' (X X' + l2 I)^-1 Y           (eq. 11)
            scores = scale * q W'  of a query image with features q          (eq. 12)
            loss_i = mean cross-entropy of the query images
        theta, scale = optimiser's step along the gradient of  mean over i of  loss_i,
                       through the KKT conditions at the optimum             (implicit function theorem, eqs. 7-8)

    Gradients do not come from the steps of a solver; those of ridge regression come from its closed form. The support
    vector machine's W is written out in `kshot.solvers.svm`.

    The release sends support and query images through the network apart, and all tasks of a step together; here a
    task's images stay together. The linear term of its quadratic program for ridge regression is -2 Y, so that its
    scores are twice these: a scale of 1 is half of where it starts.

    Parameters
    ----------
    head
        "svm", the multi-class support vector machine, or "ridge", ridge regression onto one-hot labels.
    c
        Of the svm, the weight of its hinge losses.
    diagonal_shift
        Of the svm, what is added to the diagonal of its kernel; the release adds 1, the paper nothing.
    l2
        Of ridge, the weight of |W|^2.
    scale
        Where the learnt scale of the scores starts.
    label_smoothing
        Share of the probability that the loss spreads over the other classes, below one half (0.1 on mini-ImageNet).
    """

    meta_batch = 8

    def __init__(
        self,
        backbone: Backbone,
        *,
        head: Literal["svm", "ridge"] = "svm",
        c: float = 0.1,
        diagonal_shift: float = 1.0,
        l2: float = 50.0,
        scale: float = 1.0,
        label_smoothing: float = 0.0,
        normalize_over: Literal["task", "batch"] = "task",
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
        super().__init__(backbone, adaptation=ScaledHead(fits[head], scale=scale), normalize_over=normalize_over)
        self.label_smoothing = label_smoothing

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy against 1 - e for the class itself and e / (N - 1) for each of the others."""
        ways = scores.shape[-1]
        # PyTorch's smoothing spreads its share over all classes, that of the image included.
        return F.cross_entropy(scores.mT, labels, label_smoothing=self.label_smoothing * ways / (ways - 1))
