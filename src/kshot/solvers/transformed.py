"""A head for features that are transformed first, such as to unit length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import normalize

from kshot.solvers.heads import Head


@dataclass(frozen=True, eq=False)
class TransformedHead:
    """A head, and what is done to features (B, T, D) before it is asked."""

    head: Head
    transform: Callable[[Tensor], Tensor]

    def scores(self, features: Tensor) -> Tensor:
        """Scores (B, T, N) of features (B, T, D), as the backbone gives them."""
        return self.head.scores(self.transform(features))


def unit_length(features: Tensor) -> Tensor:
    """Features (..., D) of unit length; those of zeros stay zero."""
    return normalize(features, dim=-1)
