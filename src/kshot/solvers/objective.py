"""What logistic regression minimises, as a function of the scores of the support images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import softplus

from kshot.solvers.heads import one_hot


@dataclass(frozen=True)
class SupportObjective:
    """B problems: 1/2 |W|^2 + C * the summed cross-entropy of the scores Z (B, N, S) of S support images.

    Attributes
    ----------
    c
        Weight C of the cross-entropy.
    is_target, targets
        (B, N, S) one-hot labels, as booleans and as float64.
    radius
        (B,) distance of the farthest support feature from their mean.
    """

    c: float
    is_target: Tensor
    targets: Tensor
    radius: Tensor

    @classmethod
    def of(cls, centred: Tensor, labels: Tensor, ways: int, c: float) -> SupportObjective:
        """The problems of features (B, S, D) with mean zero, float64, and labels (B, S)."""
        is_target = one_hot(labels, ways, torch.bool).mT.contiguous()
        return cls(c, is_target, is_target.to(centred.dtype), torch.linalg.vector_norm(centred, dim=2).amax(1))

    def select(self, tasks: Tensor) -> SupportObjective:
        """The problems of these tasks only: indices (b,)."""
        return replace(self, is_target=self.is_target[tasks], targets=self.targets[tasks], radius=self.radius[tasks])

    def errors(self, scores: Tensor) -> Tensor:
        """softmax(Z) minus the one-hot labels, (B, N, S): the derivative of the cross-entropy.

        The target's entry is minus the sum of the others, which keeps its relative precision when its probability
        rounds to 1.
        """
        errors = scores.softmax(1).masked_fill_(self.is_target, 0)
        return errors.addcmul_(self.targets, errors.sum(1, keepdim=True), value=-1)

    def cross_entropy(self, scores: Tensor) -> Tensor:
        """C times the summed cross-entropy, (B,), precise even if it is almost zero."""
        rivals = scores.masked_fill(self.is_target, -torch.inf).logsumexp(1)
        return self.c * softplus(rivals - (scores * self.targets).sum(1)).sum(1)

    def residual(self, squared_gradient: Tensor, errors: Tensor) -> Tensor:
        """An upper bound on the distance of the scores of an image from their optimum, (B,).

        The objective is strongly convex in W with modulus 1, so that W is within the gradient's length of its optimum,
        and the scores of an image at most `radius` away from the mean within radius times this length. The bias counts
        by the length of its Newton step.

        Parameters
        ----------
        squared_gradient
            (B,) squared length of the gradient in W.
        errors
            (B, N, S), as `errors` returns them.
        """
        probabilities = errors + self.targets
        curvature = (probabilities * (1 - probabilities)).sum(2).clamp_(min=torch.finfo(errors.dtype).tiny)
        bias_step = (errors.sum(2).abs() / curvature).amax(1)
        return torch.maximum(self.radius * squared_gradient.clamp(min=0).sqrt(), bias_step)
