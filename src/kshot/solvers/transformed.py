"""A head for features that are brought to unit length first, and what heads need for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from kshot.solvers.heads import LinearHead, checked_scores, class_rows
from kshot.solvers.products import lengths, product

_CHUNK_BYTES = 4 << 20  # of features that are worked on at once: what was just written is still in the cache
_SHORTEST = 1e-12  # features are divided by this at least, so that those of zeros stay zero


@dataclass(frozen=True, eq=False)
class UnitLengthHead:
    """A linear head for features of unit length, and what is done to features (B, T, D) before that."""

    head: LinearHead
    transform: Callable[[Tensor], Tensor] | None = None

    def scores(self, features: Tensor) -> Tensor:
        """Scores (B, T, N) of features (B, T, D), as the backbone gives them."""
        at_once = tasks_at_once(features)
        parts = zip(self.head.weight.split(at_once), self.head.bias.split(at_once), features.split(at_once))
        return checked_scores(torch.cat([self._scores(*part) for part in parts]), features)

    def _scores(self, weight: Tensor, bias: Tensor, features: Tensor) -> Tensor:
        if self.transform is not None:
            features = self.transform(features)
        # scores are divided by the length, of which there are fewer than values
        return product(features, weight.mT) / lengths_of(features) + bias.unsqueeze(1)


def unit_length(features: Tensor) -> Tensor:
    """Features (..., D) of unit length; those of zeros stay zero."""
    return normalize(features, dim=-1)


def lengths_of(features: Tensor) -> Tensor:
    """What features (B, M, D) are divided by to be of unit length, (B, M, 1)."""
    return lengths(features).clamp(min=_SHORTEST)


def unit_class_means(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """The mean (B, N, D), of each class, of features (B, S, D) of unit length, which are not written down."""
    members = class_rows(labels, ways, features.dtype)
    shares = members / members.sum(2, keepdim=True)
    return product(shares / lengths_of(features).mT, features)


def joined_at_unit_length(support: Tensor, query: Tensor, *, places: int = 0) -> Tensor:
    """Support (B, S, D), then query features (B, T, D), of unit length, with further `places` of zeros: (B, S + T, D).

    Gradients are not recorded.
    """
    shots, dimension = support.shape[1:]
    images = support.new_empty(len(support), shots + query.shape[1], dimension + places)
    if places:
        images[:, :, dimension:] = 0
    torch.div(support, lengths_of(support), out=images[:, :shots, :dimension])
    torch.div(query, lengths_of(query), out=images[:, shots:, :dimension])
    return images


def tasks_at_once(features: Tensor) -> int:
    """How many tasks of features (B, M, D) fit into the processor's cache; 1 at least."""
    return max(1, _CHUNK_BYTES // max(1, features.element_size() * features.shape[1] * features.shape[2]))
