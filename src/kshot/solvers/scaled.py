"""Heads with a few numbers that are learnt with the network: the scale and bias of the scores, and a ridge penalty."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kshot.errors import check_positive
from kshot.solvers.adaptation import HeadAdaptation
from kshot.solvers.heads import LinearHead
from kshot.solvers.ridge import check_ridge, ridge


class ScaledHead(nn.Module, HeadAdaptation):
    """The heads of another adaptation, with scores multiplied by a learnt scale, and shifted by a learnt bias.

    Parameters
    ----------
    heads
        The adaptation that fits the heads, which must be linear.
    scale
        The initial scale, above 0.
    bias
        The initial bias, one number for all classes; None for no bias.
    """

    def __init__(self, heads: HeadAdaptation, *, scale: float = 1.0, bias: float | None = None) -> None:
        super().__init__()
        check_positive(scale=scale)
        self.heads = heads
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))

    @property
    def description(self) -> str:
        """ "scaled-" and the description of the heads; the learnt numbers are no options."""
        return f"scaled-{self.heads.description}"

    def head(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        """The head fitted to features (B, S, D) and labels (B, S), with scale and bias in its weight and bias."""
        fitted = self.heads.head(features, labels, ways)
        assert isinstance(fitted, LinearHead), "scale and bias go into the weights of a linear head"
        bias = self.scale * fitted.bias
        return LinearHead(self.scale * fitted.weight, bias if self.bias is None else bias + self.bias)


class LearntRidge(nn.Module, HeadAdaptation):
    """Ridge regression onto one-hot labels whose penalty is learnt, as its logarithm.

    The penalty is relative to the MEAN squared error of the S support images: relative to their sum, as in `ridge`, it
    is S * l2.

    Parameters
    ----------
    l2
        The initial penalty.
    """

    def __init__(self, l2: float) -> None:
        super().__init__()
        check_ridge(l2)
        self.log_l2 = nn.Parameter(torch.tensor(math.log(l2)))

    @property
    def description(self) -> str:
        """ "ridge-l2=learnt": the penalty is no option."""
        return "ridge-l2=learnt"

    def head(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        """The solution of the regression, of features (B, S, D) and labels (B, S)."""
        return ridge(features, labels, ways, l2=features.shape[1] * self.log_l2.exp())
