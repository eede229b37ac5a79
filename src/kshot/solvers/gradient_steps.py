"""Gradient descent on a new random head: how W21 adapts to a test task in its analysis (eqs. 6-9)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from kshot.errors import DivergenceError, check_choice, check_not_negative, check_positive
from kshot.solvers.adaptation import HeadAdaptation, adaptations
from kshot.solvers.heads import LinearHead, check_support, one_hot

HeadLoss = Literal["cross-entropy", "squared-error"]


@adaptations.register("gradient-descent")
class GradientDescent(HeadAdaptation):
    """A few steps of full-batch gradient descent on a new random head without bias (W21 eqs. 6-7; 8-9 on ANIL's body).

    ::

        w = random head, the same for every task
        repeat steps times:
            w = w - rate * grad_w L(h(S) w^T, labels)

    The head is drawn as torch's linear layer, uniform within 1/sqrt(D), so that the scores of unit features start near
    zero. With "squared-error" and wide networks the result approaches the kernel predictor
    `kshot.theory.predictors.adapt_head` at time ``rate * steps / S``, S the number of support images.

    Parameters
    ----------
    steps
        tau, the number of steps; 0 leaves the random head.
    rate
        Step size on the MEAN loss of the support images. Steps are stable below 4 / |h|^2 for the cross-entropy of
        features of length |h|, and below 2 / |h|^2 for the squared error.
    loss
        "cross-entropy", or "squared-error", half the squared distance to one-hot labels.
    seed
        Names the random head.
    """

    follows_label_permutations = False  # the rows of the random head differ

    def __init__(self, *, steps: int = 100, rate: float = 1.0, loss: HeadLoss = "cross-entropy", seed: int = 0) -> None:
        check_not_negative(steps=steps)
        check_positive(rate=rate)
        check_choice("loss", loss, ("cross-entropy", "squared-error"))
        self.steps, self.rate, self.loss, self.seed = steps, rate, loss, seed

    def head(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        """The head after the steps on features (B, S, D) with labels (B, S)."""
        check_support(features, labels, ways)
        weight = random_head(ways, features, seed=self.seed)
        return descend_head(features, labels, weight, steps=self.steps, rate=self.rate, loss=self.loss)


def random_head(ways: int, features: Tensor, *, seed: int) -> Tensor:
    """One random head for each task of features (B, S, D), the same for all: (B, N, D), uniform within 1/sqrt(D)."""
    tasks, _, dimension = features.shape
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(ways, dimension, generator=generator, dtype=torch.float64)
    return ((2 * uniform - 1) / math.sqrt(dimension)).to(features).expand(tasks, -1, -1)


def descend_head(
    features: Tensor, labels: Tensor, weight: Tensor, *, steps: int, rate: float, loss: HeadLoss = "cross-entropy"
) -> LinearHead:
    """The head after gradient steps on its weight alone; the bias stays zero. Differentiable in features and weight.

    Parameters
    ----------
    features
        Support features (B, S, D).
    labels
        Their classes, (B, S) int64 in 0..N-1.
    weight
        The head to start from, (B, N, D).
    steps, rate, loss
        As for `GradientDescent`.

    Raises
    ------
    DivergenceError
        The steps lead to weights that are not finite; its `task` is the place in the batch.
    """
    wanted = one_hot(labels, weight.shape[1], features.dtype)
    scaled = features * (rate / features.shape[1])
    for _ in range(steps):
        scores = features @ weight.mT
        outputs = scores.softmax(-1) if loss == "cross-entropy" else scores
        weight = weight - (outputs - wanted).mT @ scaled
    sound = weight.detach().isfinite().all(2).all(1)
    if not sound.all():
        task = int(sound.logical_not().nonzero()[0])
        raise DivergenceError(f"{steps} gradient steps on the head diverged at rate {rate}; lower the rate", task=task)
    return LinearHead(weight, weight.new_zeros(weight.shape[:2]))
