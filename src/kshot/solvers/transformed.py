"""A head for features that are brought to unit length first, and what heads need for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from kshot.solvers.heads import LinearHead, checked_scores, class_rows
from kshot.solvers.products import SHORTEST, Array, in_stages, lengths

_CHUNK_BYTES = 4 << 20  # of features that are worked on at once: what was just written is still in the cache


@dataclass(frozen=True, eq=False)
class UnitLengthHead:
    """A linear head for features of unit length, and what is done to features (B, T, D) before that."""

    head: LinearHead
    transform: Callable[[Array], Array] | None = None

    def scores(self, features: Tensor) -> Tensor:
        """Scores (B, T, N) of features (B, T, D), as the backbone gives them."""
        weight, bias = self.head.weight, self.head.bias.unsqueeze(2)
        (scores,) = in_stages(self._scores, weight, bias, features, vectors=weight.shape[1])
        return checked_scores(scores.mT.contiguous(), features)

    def _scores(self, weight: Array, bias: Array, features: Array) -> tuple[Array]:
        if self.transform is not None:
            features = self.transform(features)
        # scores are divided by the length, of which there are fewer than values
        return (weight @ features.swapaxes(1, 2) / lengths(features).clip(SHORTEST).swapaxes(1, 2) + bias,)


def unit_length(features: Tensor) -> Tensor:
    """Features (..., D) of unit length; those of zeros stay zero."""
    return normalize(features, dim=-1)


def lengths_of(features: Tensor) -> Tensor:
    """What features (B, M, D) are divided by to be of unit length, (B, M, 1)."""
    return lengths(features).clamp(min=SHORTEST)


def unit_class_means(
    features: Tensor, labels: Tensor, ways: int, *, transform: Callable[[Array], Array] | None = None
) -> Tensor:
    """The mean (B, N, D), of each class, of features (B, S, D) that are transformed and brought to unit length."""

    def means(shares: Array, features: Array) -> tuple[Array]:
        if transform is not None:
            features = transform(features)
        return (shares / lengths(features).clip(SHORTEST).swapaxes(1, 2) @ features,)

    members = class_rows(labels, ways, features.dtype)
    return in_stages(means, members / members.sum(2, keepdim=True), features, vectors=ways)[0]


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
