"""Few-shot embedding adaptation with a transformer: FEAT (Ye, Hu, Zhan and Sha 2020)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from kshot.backbones.dropout import Dropout
from kshot.backbones.registry import Backbone
from kshot.data.episodes import Episodes
from kshot.errors import check_not_negative, check_positive, check_rate
from kshot.learners.base import FeatureLearner, accuracy, learners
from kshot.solvers.adaptation import HeadAdaptation
from kshot.solvers.heads import LinearHead, check_support, class_means

_ATTENTION_DROPOUT = 0.1


@learners.register("feat")
class FEAT(FeatureLearner):
    """Class means look at each other by self-attention before query images are compared with them (Ye et al. 2020).

    ::

        for each task i of the batch, with support set S_i and query set Q_i:
            c_k = mean of f(x; theta) over the images x of class k in S_i
            T(c) = LayerNorm(c + W softmax(c_q c_k^T / sqrt(D)) c_v)  for all classes together  (eqs. 5-7)
            score of class k for x:  -|f(x; theta) - T(c)_k|^2 / temperature                     (eq. 4)
            d_k = mean of T over all images of class k in S_i and Q_i, which attend to each other
            loss_i = mean cross-entropy of Q_i + weight * that of S_i and Q_i by -|f(x) - d_k|^2     (eq. 9)
        theta, W, ... = optimiser's step along the gradient of  mean over i of  loss_i

    The paper starts from a network that was trained as a classifier, and learns the attention ten times as fast as the
    network; both are left to the training here.

    Parameters
    ----------
    temperature
        What squared distances are divided by; the release has 64 and 32 for Conv4 at one and five shots.
    regularizer_weight
        Weight of the loss of all images by the means of their own classes; the release has 1 and 0.1.
    regularizer_temperature
        What its squared distances are divided by; the release has 16 and 64.
    dropout
        Of what the attention adds, in training; the release has 0.5, and 0.1 of the attention itself.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        temperature: float = 64.0,
        regularizer_weight: float = 1.0,
        regularizer_temperature: float = 16.0,
        dropout: float = 0.5,
        normalize_over: Literal["task", "batch"] = "task",
    ) -> None:
        check_positive(temperature=temperature, regularizer_temperature=regularizer_temperature)
        check_not_negative(regularizer_weight=regularizer_weight)
        check_rate(dropout=dropout)
        adaptation = AdaptedPrototypes(SetAttention(backbone.feature_size, dropout), temperature)
        super().__init__(backbone, adaptation=adaptation, normalize_over=normalize_over)
        self.prototypes = adaptation
        self.regularizer_weight, self.regularizer_temperature = regularizer_weight, regularizer_temperature

    def objective(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Mean over tasks of the cross-entropy of the query images, plus that of all images by their own classes."""
        images, labels, shots = episodes.images(), episodes.labels(), episodes.support.shape[1]
        with self.training_pass(episodes):
            features = self.features(images.flatten(0, 1)).unflatten(0, images.shape[:2])
            head = self.prototypes.head(features[:, :shots], episodes.support_labels, episodes.ways)
            scores = head.scores(features[:, shots:])
            loss = self.loss(scores, episodes.query_labels)
            if self.regularizer_weight:
                loss = loss + self.regularizer_weight * self.loss(self._by_own(features, labels, episodes.ways), labels)
        return loss, accuracy(scores.detach(), episodes.query_labels)

    def _by_own(self, features: Tensor, labels: Tensor, ways: int) -> Tensor:
        """Scores (B, M, N) of all images (B, M, D) by the means of their own classes, adapted within each class."""
        alike = labels.unsqueeze(2) == labels.unsqueeze(1)
        centres = class_means(self.prototypes.attention(features, alike), labels, ways)
        return _negative_distances(centres, self.regularizer_temperature).scores(features)


class AdaptedPrototypes(nn.Module, HeadAdaptation):
    """Squared distance to class means that attend to each other.

    Parameters
    ----------
    attention
        Adapts the class means of a task to each other.
    temperature
        What squared distances are divided by.
    """

    def __init__(self, attention: SetAttention, temperature: float) -> None:
        super().__init__()
        self.attention, self.temperature = attention, temperature

    @property
    def description(self) -> str:
        """ "adapted-centroid": what is learnt with the network is no option."""
        return "adapted-centroid"

    def head(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        """The adapted class means of features (B, S, D) with labels (B, S), as a linear head."""
        check_support(features, labels, ways)
        return _negative_distances(self.attention(class_means(features, labels, ways)), self.temperature)


class SetAttention(nn.Module):
    """Self-attention with one head over the members of a set, with a shortcut and layer normalisation (eqs. 5-7).

    Parameters
    ----------
    size
        D, of each member.
    dropout
        Of what attention adds, in training.
    """

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size, size, bias=False) for _ in range(3))
        self.output, self.norm = nn.Linear(size, size), nn.LayerNorm(size)
        for layer in (self.query, self.key, self.value):
            nn.init.normal_(layer.weight, std=1 / math.sqrt(size))
        nn.init.xavier_normal_(self.output.weight)
        self.dropout, self.attention_dropout = Dropout(dropout), Dropout(_ATTENTION_DROPOUT)

    def forward(self, members: Tensor, alike: Tensor | None = None) -> Tensor:
        """Members (B, M, D) to (B, M, D); each attends to those that are `alike`, (B, M, M), or to all."""
        attention = self.query(members) @ self.key(members).mT / math.sqrt(members.shape[-1])
        if alike is not None:
            attention = attention.masked_fill(~alike, -torch.inf)
        weights = _dropped(attention.softmax(-1), self.attention_dropout)
        return self.norm(members + _dropped(self.output(weights @ self.value(members)), self.dropout))


def _dropped(values: Tensor, dropout: Dropout) -> Tensor:
    """Dropout of (B, M, D), whose layer takes the maps of B*M images."""
    return dropout(values.flatten(0, 1)[..., None, None])[..., 0, 0].view(values.shape)


def _negative_distances(centres: Tensor, temperature: float) -> LinearHead:
    """-|x - c|^2 / temperature, up to what is the same for all classes, of centres (B, N, D)."""
    return LinearHead(2 / temperature * centres, -centres.square().sum(-1) / temperature)
