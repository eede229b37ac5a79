"""The inner products of a task's features, with a gradient that makes use of their symmetry."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


def gram(features: Tensor) -> Tensor:
    """X X' (B, S, S) of X (B, S, D); any number of times differentiable.

    The gradient of a product of two matrices takes two products, of which the symmetry leaves one.
    """
    return cast(Tensor, _Gram.apply(features))


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return features @ features.mT

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        return (gradient + gradient.mT) @ features
