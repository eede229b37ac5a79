"""Heads whose few numbers are learnt with the network: the scale and bias of their scores, and a ridge penalty."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kshot.errors import check_above_zero
from kshot.solvers.adaptation import HeadAdaptation
from kshot.solvers.heads import LinearHead
from kshot.solvers.ridge import check_ridge, ridge


class ScaledHead(nn.Module, HeadAdaptation):
    """The heads of another adaptation, with scores multiplied by a learnt scale, and shifted by a learnt bias.

    Parameters
    ----------
    heads : what fits the heads, which must be linear.
    scale : where the learnt scale starts, above 0.
    bias : where the learnt bias starts, one number for all classes; None for no bias.
    """

    def __init__(self, heads: HeadAdaptation, scale: float = 1.0, bias: float | None = None) -> None:
        super().__init__()
        check_above_zero("scale", scale)
        self.heads = heads
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))

    @property
    def description(self) -> str:
        """That of the heads, said to be scaled: what is learnt is no option."""
        return f"scaled-{self.heads.description}"

    def head(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        """The head fitted to features (B, S, D) and labels (B, S), with scale and bias in its weight and bias."""
        fitted = self.heads.head(features, labels, ways)
        assert isinstance(fitted, LinearHead), "scale and bias go into the weights of a linear head"
        bias = self.scale * fitted.bias
        return LinearHead(self.scale * fitted.weight, bias if self.bias is None else bias + self.bias)


class LearntRidge(nn.Module, HeadAdaptation):
    """Ridge regression onto one-hot labels whose penalty is learnt, as its logarithm.

    The penalty stands beside the MEAN squared error of the S support images: it is S * l2 beside their sum, in `ridge`.

    Parameters
    ----------
    l2 : where the penalty starts.
    """

    def __init__(self, l2: float) -> None:
        super().__init__()
        check_ridge(l2)
        self.log_l2 = nn.Parameter(torch.tensor(math.log(l2)))

    @property
    def description(self) -> str:
        """Ridge regression with a penalty that is no option."""
        return "ridge-l2=learnt"

    def head(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        """The solution of the regression, of features (B, S, D) and labels (B, S)."""
        return ridge(features, labels, ways, l2=features.shape[1] * self.log_l2.exp())
