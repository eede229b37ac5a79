"""Relation networks: a learnt comparison of images (Sung, Yang, Zhang, Xiang, Torr and Hospedales 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from kshot.backbones.normalization import BatchNorm2d
from kshot.backbones.registry import Backbone
from kshot.errors import ConfigError, check_positive
from kshot.learners.base import FeatureLearner, learners
from kshot.solvers.adaptation import HeadAdaptation
from kshot.solvers.heads import check_support, checked_scores, class_means, one_hot

_CHUNK_BYTES = 64 << 20  # of pairs of maps that are compared at once outside of training


@learners.register("relation-net")
class RelationNet(FeatureLearner):
    """A network compares the maps of a query image and of a class, and says how well they go together (Sung et al.).

    ::

        for each task i of the batch, with support set S_i and query set Q_i:
            m_k = mean of the maps f(x; theta) over the images x of class k in S_i         (section 3.2)
            r_k(x) = g(m_k next to f(x; theta); phi),  in 0..1                             (eq. 1)
            loss_i = mean over the query images x and the classes k of
                     (r_k(x) - 1 if x is of class k, otherwise r_k(x))^2                   (eq. 2)
        theta, phi = optimiser's step along the gradient of  mean over i of  loss_i

    g is two blocks of 3x3 convolution, BatchNorm and ReLU, each with 2x2 pooling as long as the map is larger than one
    pixel, and two fully connected layers, the last with a sigmoid. The paper's embedding pools twice only, so that its
    maps are larger, and its convolutions in g have no padding. It sums the maps of a class; the mean differs by the
    number of shots, a factor that g would have to learn again for any other number.

    Parameters
    ----------
    channels
        The features are maps of so many channels, flattened; None for the width of the backbone, if it has one and
        keeps the map, or else for maps of one pixel.
    width
        Channels of both convolutions of g; 64 in the paper.
    hidden
        Width of the first fully connected layer; 8 in the paper.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        channels: int | None = None,
        width: int = 64,
        hidden: int = 8,
        normalize_over: Literal["task", "batch"] = "task",
    ) -> None:
        check_positive(width=width, hidden=hidden)
        super().__init__(
            backbone,
            adaptation=Relation(_map_shape(backbone, channels), width, hidden),
            normalize_over=normalize_over,
        )

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean squared error of the relations (B, T, N) to 1 for the class of an image and 0 for the others."""
        return (scores - one_hot(labels, scores.shape[-1], scores.dtype)).square().mean()


def _map_shape(backbone: Backbone, channels: int | None) -> tuple[int, int]:
    """Channels and side of the maps that the features are; ConfigError if they are none."""
    size = backbone.feature_size
    if channels is None:
        width = getattr(backbone, "options", {}).get("width")
        channels = width if isinstance(width, int) and size % width == 0 else size
    check_positive(channels=channels)
    side = math.isqrt(size // channels)
    if channels * side**2 != size:
        raise ConfigError(
            f"channels is {channels}, but {size} features are no square maps of so many channels; give the channels of "
            f"the backbone's last map, or {size} for features that are no maps"
        )
    return channels, side


class Relation(nn.Module, HeadAdaptation):
    """The relation module g, which compares maps, as a head: it keeps the maps of the classes.

    Parameters
    ----------
    shape
        Channels and side of the maps.
    width
        Channels of both convolutions.
    hidden
        Width of the first fully connected layer.
    """

    def __init__(self, shape: tuple[int, int], width: int, hidden: int) -> None:
        super().__init__()
        channels, side = shape
        self.shape = (channels, side, side)
        layers: list[nn.Module] = []
        for inputs in (2 * channels, width):
            layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), BatchNorm2d(width), nn.ReLU()]
            if side > 1:
                layers.append(nn.MaxPool2d(2))
                side //= 2
        self.compare = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(width * side**2, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Sigmoid()
        )

    @property
    def description(self) -> str:
        """ "relation": what is learnt with the network is no option."""
        return "relation"

    def head(self, features: Tensor, labels: Tensor, ways: int) -> RelationHead:
        """The maps of the classes, of features (B, S, D) with labels (B, S)."""
        check_support(features, labels, ways)
        return RelationHead(self, class_means(features, labels, ways))

    def relations(self, classes: Tensor, queries: Tensor) -> Tensor:
        """Relations (B, T, N) in 0..1 of class maps (B, N, D) and query maps (B, T, D)."""
        tasks, ways, count = len(classes), classes.shape[1], queries.shape[1]
        shape = (tasks, count, ways, *self.shape)
        pairs = torch.cat(
            [
                classes.unsqueeze(1).unflatten(3, self.shape).expand(shape),
                queries.view(tasks, count, 1, *self.shape).expand(shape),
            ],
            3,
        )
        return self.compare(pairs.flatten(0, 2)).view(tasks, count, ways)


@dataclass(frozen=True, eq=False)
class RelationHead:
    """The relation module, and the maps (B, N, D) of the classes."""

    relation: Relation
    classes: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Relations (B, T, N) of features (B, T, D)."""
        if self.relation.training:  # BatchNorm takes the statistics of all pairs of a task
            return self.relation.relations(self.classes, features)
        of_one = 2 * features.element_size() * features[0].numel() * self.classes.shape[1]
        at_once = max(1, _CHUNK_BYTES // max(1, of_one))
        parts = zip(self.classes.split(at_once), features.split(at_once))
        return checked_scores(torch.cat([self.relation.relations(*part) for part in parts]), features)
