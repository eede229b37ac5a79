"""Transductive fine-tuning of the head (Dhillon, Chaudhari, Ravichandran and Soatto 2020)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from kshot.errors import check_not_negative, check_positive
from kshot.solvers.adam import adam
from kshot.solvers.adaptation import adaptations
from kshot.solvers.heads import class_means, one_hot
from kshot.solvers.prototype_descent import logarithm
from kshot.solvers.transductive import TransductiveAdaptation
from kshot.solvers.transformed import unit_length


@adaptations.register("transductive-fine-tune")
class TransductiveFineTune(TransductiveAdaptation):
    """A linear classifier from unit-length class means, tuned until it is sure of the query images (Dhillon et al.).

    ::

        w_k = unit-length mean of the support features of class k, b_k = 0                        (section 3.1)
        w, b = Adam on  mean cross-entropy of the support images
                        + mean entropy of the predictions for the query images                    (section 3.2)

    The paper tunes the whole network in this way; here it is the head alone, and the network stays as it is. The
    features are of unit length, and scores are multiplied by a temperature, without which all predictions would be
    near 1/N.

    Parameters
    ----------
    temperature
        Scale of the scores.
    learning_rate
        The learning rate of Adam; 5e-5 in the paper. From 1e-3 on, all query images end in a few classes.
    steps
        Full-batch steps; the paper has 25.
    """

    magnifies_rounding: ClassVar[bool] = True

    def __init__(self, *, temperature: float = 15.0, learning_rate: float = 5e-5, steps: int = 25) -> None:
        check_positive(temperature=temperature, learning_rate=learning_rate)
        check_not_negative(steps=steps)
        self.temperature, self.learning_rate, self.steps = temperature, learning_rate, steps

    def joint_scores(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """Scores (B, T, N) of the query features (B, T, D) by the tuned classifier."""
        shots, queries = support.shape[1], query.shape[1]
        images = torch.cat([unit_length(support), unit_length(query)], 1)
        # a constant value at the end of each feature is the bias
        images = torch.cat([images, images.new_ones(*images.shape[:2], 1)], 2)
        targets = one_hot(labels, ways, images.dtype)

        def gradient(weights: Tensor) -> Tensor:
            probabilities = (self.temperature * (images @ weights.mT)).softmax(-1)
            of_support, of_query = probabilities[:, :shots], probabilities[:, shots:]
            information = -logarithm(of_query)
            entropy = (of_query * information).sum(-1, keepdim=True)
            errors = torch.cat([(of_support - targets) / shots, of_query * (information - entropy) / queries], 1)
            return self.temperature * (errors.mT @ images)

        means = unit_length(class_means(images[:, :shots, :-1], labels, ways))
        start = torch.cat([means, means.new_zeros(*means.shape[:2], 1)], 2)
        tuned = adam(start, gradient, rate=self.learning_rate, steps=self.steps)
        return self.temperature * (images[:, shots:] @ tuned.mT)
