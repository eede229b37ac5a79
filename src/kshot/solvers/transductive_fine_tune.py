"""Transductive fine-tuning of the head (Dhillon, Chaudhari, Ravichandran and Soatto 2020)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kshot.errors import check_not_negative, check_positive
from kshot.solvers.adam import adam
from kshot.solvers.adaptation import adaptations
from kshot.solvers.heads import class_rows
from kshot.solvers.products import product
from kshot.solvers.prototype_descent import logarithm
from kshot.solvers.transductive import TransductiveAdaptation
from kshot.solvers.transformed import joined_at_unit_length, unit_length

_PLACES = 16  # at the end of each feature: a one, by which the bias is a weight, and zeros, for odd sizes are slow


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
        images = joined_at_unit_length(support, query, places=_PLACES)
        images[:, :, support.shape[2]] = 1
        members = class_rows(labels, ways, images.dtype)

        def gradient(weights: Tensor) -> Tensor:
            errors = product(weights, images.mT).mul_(self.temperature).softmax(1)
            of_support, of_query = errors[:, :, :shots], errors[:, :, shots:]
            of_support.sub_(members).mul_(self.temperature / shots)
            certainty = logarithm(of_query)
            certainty.sub_((of_query * certainty).sum(1, keepdim=True))
            of_query.mul_(certainty).mul_(-self.temperature / queries)
            return product(errors, images)

        means = product(members / members.sum(2, keepdim=True), images[:, :shots])
        means[:, :, support.shape[2]] = 0
        tuned = adam(unit_length(means), gradient, rate=self.learning_rate, steps=self.steps)
        return product(images[:, shots:], tuned.mT).mul_(self.temperature)
