"""The cache model of Tip-Adapter, its part on images: each support image votes for its class (Zhang et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from kshot.errors import check_positive
from kshot.solvers.adaptation import HeadAdaptation, adaptations
from kshot.solvers.heads import check_support, checked_scores, one_hot
from kshot.solvers.products import product
from kshot.solvers.transformed import lengths_of

PUBLISHED_SHARPNESS = 5.5
_CANDIDATES = (1.0, 2.0, 4.0, 5.5, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
_SCALES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # of the logarithms of votes: inverse temperatures
_AS_GOOD = 1e-3  # of the mean log-probability


@adaptations.register("cache")
class Cache(HeadAdaptation):
    """Support images vote for their classes, the more the closer they are: exp(-sharpness (1 - cosine)).

    This is the cache model of Tip-Adapter (Zhang et al. 2022, section 3.1, without the text classifier, which a network
    of images alone does not have). An image of a class of n has 1/n of its vote, which changes nothing if all classes
    are equally large.

    Parameters
    ----------
    sharpness
        beta; 5.5 in the paper. None to learn it for each task: of a few candidates the one under which the support
        images, each left out in turn, are the most probable, at the temperature that suits it best. A task of single
        images leaves that open, and takes 5.5.
    """

    def __init__(self, *, sharpness: float | None = PUBLISHED_SHARPNESS) -> None:
        if sharpness is not None:
            check_positive(sharpness=sharpness)
        self.sharpness = sharpness

    def head(self, features: Tensor, labels: Tensor, ways: int) -> CacheHead:
        """The cache of features (B, S, D) with labels (B, S)."""
        check_support(features, labels, ways)
        members = one_hot(labels, ways, features.dtype)
        keys = normalize(features, dim=-1)
        if self.sharpness is None:
            sharpness = _learnt_sharpness(keys.detach(), members)
        else:
            sharpness = features.new_full((len(features),), self.sharpness)
        return CacheHead(keys, members / members.sum(1, keepdim=True), sharpness)


@dataclass(frozen=True, eq=False)
class CacheHead:
    """Unit-length support features (B, S, D), their shares (B, S, N) in the classes, and the sharpness (B,)."""

    keys: Tensor
    shares: Tensor
    sharpness: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Scores (B, T, N) of features (B, T, D): the logarithm of the votes for each class."""
        cosines = product(features, self.keys.mT) / lengths_of(features)
        return checked_scores(_log_votes(cosines, self.shares, self.sharpness), features)


def _log_votes(cosines: Tensor, shares: Tensor, sharpness: Tensor) -> Tensor:
    """log SUM_i exp(sharpness (cosine_i - 1)) share_ik (B, T, N), of cosines (B, T, S) and shares (B, S, N)."""
    exponents = sharpness.view(-1, 1, 1) * (cosines - 1)
    # relative to the largest vote for an image, so that it is not rounded to nothing; others count 1e-12 at least
    largest = exponents.amax(2, keepdim=True)
    votes = product((exponents - largest).exp(), shares)
    return votes.clamp(min=1e-12).log() + largest


def _learnt_sharpness(keys: Tensor, members: Tensor) -> Tensor:
    """The candidate (B,) with the highest mean log-probability of support images that are left out in turn.

    Images that are the only one of their class are not left out.
    """
    # how many images of each class are left, (B, S, N), if image i is left out
    left = members.sum(1, keepdim=True) - members
    counted = (left * members).sum(2) > 0
    cosines = keys @ keys.mT
    itself = torch.eye(keys.shape[1], dtype=torch.bool, device=keys.device)
    likelihoods = []
    for candidate in _CANDIDATES:
        weights = (candidate * (cosines - 1)).exp().masked_fill(itself, 0)
        votes = (weights @ members / left.clamp(min=1)).clamp(min=1e-30).log()
        of_own = [((scale * votes).log_softmax(2) * members).sum(2) for scale in _SCALES]
        likelihoods.append((torch.stack(of_own) * counted).sum(2).amax(0))
    # the least sharp one of those that are as good, so that rounding decides nothing
    likelihood = torch.stack(likelihoods, 1)
    as_good = likelihood >= likelihood.amax(1, keepdim=True) - _AS_GOOD * counted.sum(1, keepdim=True)
    best = as_good.to(torch.int64).argmax(1)
    candidates = keys.new_tensor(_CANDIDATES)
    return candidates[best].where(counted.any(1), keys.new_tensor(PUBLISHED_SHARPNESS))
