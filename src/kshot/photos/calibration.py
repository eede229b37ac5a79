"""Probabilities that mean what they say: of photographs called with 80 %, eight in ten are right."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from kshot.photos.estimate import LeftOut

_RANGE = 0.01, 100.0  # of temperatures


def fitted_temperature(left_out: LeftOut) -> float:
    """What scores are divided by so that their softmax fits the left-out examples best (Guo et al. 2017).

    Every class counts equally. Targets are a little less than sure, as in Platt (1999), since a few examples that are
    all right do not show that nothing will ever be wrong.

    Parameters
    ----------
    left_out
        Scores of examples by heads that were fitted without them.
    """
    scores, labels = left_out.scores.double(), left_out.labels
    trials, ways = scores.shape
    weights = (1 / labels.bincount(minlength=ways).double())[labels]
    weights /= weights.sum()
    doubt = 1 / (len(left_out.examples.unique()) + 2)
    rest = doubt / (ways - 1)

    def loss(log_temperature: float) -> float:
        logs = (scores / np.exp(log_temperature)).log_softmax(1)
        of_target = logs[torch.arange(trials), labels]
        return float(-(weights * ((1 - doubt - rest) * of_target + rest * logs.sum(1))).sum())

    low, high = np.log(_RANGE)
    # a coarse search first, so that a flat end of the range does not stop the fine one
    grid = np.linspace(low, high, 47)
    best = grid[int(np.argmin([loss(value) for value in grid]))]
    step = grid[1] - grid[0]
    found = minimize_scalar(loss, bounds=(max(low, best - step), min(high, best + step)), method="bounded")
    return float(np.exp(found.x))


def expected_calibration_error(probabilities: NDArray[np.float64], labels: ArrayLike, *, bins: int = 10) -> float:
    """The mean distance, 0..1, of the largest probability from the share that is right (Guo et al. 2017, eq. 3).

    Parameters
    ----------
    probabilities
        (M, N), each row with the sum 1.
    labels
        The true classes, (M,) in 0..N-1.
    bins
        Of equal width, over the largest probabilities.
    """
    largest = probabilities.max(1)
    right = probabilities.argmax(1) == np.asarray(labels)
    places = np.minimum((largest * bins).astype(int), bins - 1)
    gaps = [abs((largest - right)[places == place].sum()) for place in range(bins)]
    return float(np.sum(gaps) / len(largest))
