"""Attention over the support labels, and embeddings in the context of the support set (Vinyals et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.solvers.adaptation import HeadAdaptation
from kshot.solvers.heads import check_support, checked_scores, one_hot


class Attention(nn.Module, HeadAdaptation):
    """The probability of a class is the attention that a query pays to its support images (Vinyals et al. eq. 1).

    The paper's classes have equally many images. Of unequal ones the largest would nearly always win, since exp(cos)
    lies between 1/e and e: here an image of a class of n has 1/n of its weight, which changes nothing if all n are
    equal.

    Parameters
    ----------
    context
        Embeds features in the context of the support set; None leaves them as they are.
    scale
        The initial value of a factor on the cosines, which is learnt; None, as in the paper, for no factor.
    """

    def __init__(self, context: FullContext | None = None, *, scale: float | None = None) -> None:
        super().__init__()
        self.context = context
        self.scale = None if scale is None else nn.Parameter(torch.tensor(float(scale)))

    @property
    def description(self) -> str:
        """ "attention" or "attention-full-context"."""
        return "attention" if self.context is None else "attention-full-context"

    def head(self, features: Tensor, labels: Tensor, ways: int) -> AttentionHead:
        """The support features (B, S, D), embedded, with their labels (B, S)."""
        check_support(features, labels, ways)
        support = features if self.context is None else self.context.embed_support(features)
        members = one_hot(labels, ways, features.dtype)
        return AttentionHead(support, members / members.sum(1, keepdim=True), self.context, self.scale)


@dataclass(frozen=True)
class AttentionHead:
    """Support features (B, S, D), their shares (B, S, N) in the classes, the context and the scale, if any."""

    support: Tensor
    shares: Tensor
    context: FullContext | None
    scale: Tensor | None = None

    def scores(self, features: Tensor) -> Tensor:
        """Scores (B, T, N) of features (B, T, D), whose softmax is P(y | x, S).

        With a(x, x_i) = exp(cos_i) / sum_j exp(cos_j) (section 2.1.1), P(y | x, S) = sum_{i of class y} a(x, x_i)
        (eq. 1). The score is the logarithm of this without the denominator, which all classes share, and divided by the
        number of images of the class. A scale multiplies the cosines.
        """
        query = features if self.context is None else self.context.embed_query(features, self.support)
        cosines = F.normalize(query, dim=-1) @ F.normalize(self.support, dim=-1).mT
        scaled = cosines if self.scale is None else self.scale * cosines
        # P(y | x, S) does not depend on a common factor: without the largest exponential none of them overflows.
        largest = scaled.amax(-1, keepdim=True).detach()
        of_class = (scaled - largest).exp() @ self.shares
        return checked_scores(of_class.clamp_min(torch.finfo(of_class.dtype).tiny).log() + largest, features)


class FullContext(nn.Module):
    """Full-context embeddings of Vinyals et al. (2016): g of a support image, f of a query image (section 2.1.2).

    Parameters
    ----------
    size
        D, of the features, and of the states of all LSTMs, which are added to them.
    steps
        K, how often a query reads from the support set.

    Notes
    -----
    The paper does not give the initial states of the LSTMs. Here states and cells are zero, so that the first readout
    is the mean of the support set.
    """

    def __init__(self, size: int, *, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.of_support = nn.LSTM(size, size, batch_first=True, bidirectional=True)
        # The paper's state is [h, r] and its cell is as wide as h: the readout acts as a second input.
        self.of_query = nn.LSTMCell(2 * size, size)

    def embed_support(self, features: Tensor) -> Tensor:
        """Embed features (B, S, D) g'(x_i), in their order: g(x_i, S) = h_i forward + h_i backward + g'(x_i)."""
        forward, backward = self.of_support(features)[0].chunk(2, -1)
        return forward + backward + features

    def embed_query(self, features: Tensor, support: Tensor) -> Tensor:
        """Embed features (B, T, D) f'(x), each by itself, given the embedded support (B, S, D)."""
        queries = features.flatten(0, 1)
        state = cell = torch.zeros_like(queries)
        for _ in range(self.steps):
            attention = (state.view_as(features) @ support.mT).softmax(-1)  # eq. 6
            readout = (attention @ support).flatten(0, 1)  # eq. 5
            hidden, cell = self.of_query(torch.cat([queries, readout], -1), (state, cell))  # eq. 3
            state = hidden + queries  # eq. 4
        return state.view_as(features)
