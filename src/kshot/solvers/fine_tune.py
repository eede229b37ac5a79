"""Class means that are fine-tuned on the support images as a cosine classifier, as EasyFSL's ``Finetune`` does it."""

from __future__ import annotations

import torch
from torch import Tensor

from kshot.errors import check_not_negative, check_positive
from kshot.solvers.adam import adam
from kshot.solvers.adaptation import HeadAdaptation, adaptations
from kshot.solvers.heads import LinearHead, check_support, class_means, class_rows
from kshot.solvers.products import product
from kshot.solvers.transformed import UnitLengthHead, lengths_of, unit_length


@adaptations.register("fine-tune")
class FineTune(HeadAdaptation):
    """Class means, moved by Adam on the cross-entropy of the support images' cosines to them.

    That is what EasyFSL 1.5 calls Finetune, with its defaults. It goes back to the fine-tuned classifiers of Chen et
    al. (2019), which start from random weights (see `BaselinePlusPlus`).

    Parameters
    ----------
    temperature
        What cosines are multiplied by.
    learning_rate
        The learning rate of Adam.
    steps
        Full-batch steps.
    """

    passes_gradients = False
    magnifies_rounding = True

    def __init__(self, *, temperature: float = 1.0, learning_rate: float = 1e-4, steps: int = 200) -> None:
        check_positive(temperature=temperature, learning_rate=learning_rate)
        check_not_negative(steps=steps)
        self.temperature, self.learning_rate, self.steps = temperature, learning_rate, steps

    @torch.no_grad()
    def head(self, features: Tensor, labels: Tensor, ways: int) -> UnitLengthHead:
        """The tuned class means of features (B, S, D) with labels (B, S)."""
        check_support(features, labels, ways)
        members = class_rows(labels, ways, features.dtype)
        directions = unit_length(features)

        def gradient(weights: Tensor) -> Tensor:
            lengths = lengths_of(weights)
            unit = weights / lengths
            cosines = product(unit, directions.mT)
            errors = (self.temperature * cosines).softmax(1).sub_(members)
            pulls = product(errors, directions).addcmul_((errors * cosines).sum(2, keepdim=True), unit, value=-1)
            return pulls.mul_((self.temperature / features.shape[1]) / lengths)

        start = class_means(features, labels, ways)
        tuned = adam(start, gradient, rate=self.learning_rate, steps=self.steps)
        weight = self.temperature * unit_length(tuned)
        return UnitLengthHead(LinearHead(weight, weight.new_zeros(weight.shape[:2])))
