"""Which photographs show none of the classes, and which ones they may show, by what left-out examples got."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torch.nn.functional import normalize

from kshot.solvers.heads import class_means


def familiarity(features: Tensor, support: Tensor, labels: Tensor) -> Tensor:
    """How much features resemble the class they resemble most, (B, T): the cosine with the mean of its unit features.

    Parameters
    ----------
    features
        (B, T, D).
    support, labels
        The examples, (B, S, D) and (B, S); every class has some.
    """
    ways = int(labels.max()) + 1
    means = normalize(class_means(normalize(support, dim=2), labels, ways), dim=2)
    return (normalize(features, dim=2) @ means.mT).amax(2)


def lowest_familiarity(familiar: Tensor, weights: Tensor, reject: float) -> float:
    """Below which familiarity a share `reject` of true photographs lies, by those of left-out examples.

    The limit of a normal distribution's prediction interval, since the 5 % of a few examples are less than one.

    Parameters
    ----------
    familiar, weights
        Familiarity and weight of each trial, (T,).
    reject
        The share, above 0 and below 1.
    """
    values = familiar.double()
    count = len(values)
    mean = float((weights * values).sum())
    deviation = math.sqrt(float((weights * (values - mean) ** 2).sum()) * count / max(count - 1, 1))
    return mean + float(stats.t.ppf(reject, max(count - 1, 1))) * deviation * math.sqrt(1 + 1 / count)


def largest_rank(probabilities: Tensor, labels: Tensor, weights: Tensor, coverage: float) -> float:
    """How improbable a class of a set may be: 1 less the probability that a share `coverage` of true classes reaches.

    The quantile of split conformal prediction (Vovk et al. 2005), with (T + 1) / T for the photograph to come.

    Parameters
    ----------
    probabilities, labels, weights
        Of each trial, (T, N), (T,) and (T,).
    coverage
        The share, above 0 and below 1.
    """
    ranks = 1 - probabilities[torch.arange(len(labels)), labels]
    order = ranks.argsort()
    reached = weights[order].cumsum(0)
    place = int(torch.searchsorted(reached, coverage * (1 + 1 / len(labels)) - 1e-12))
    return float(ranks[order[place]]) if place < len(order) else 1.0


def sets_of(probabilities: NDArray[np.float64], largest: float) -> NDArray[np.bool_]:
    """Whether each class is in the set of each photograph, (M, N): the most probable one always is."""
    inside = 1 - probabilities <= largest
    inside[np.arange(len(inside)), probabilities.argmax(1)] = True
    return inside
