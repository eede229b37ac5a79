"""alpha-TIM: information maximisation without the prior of balanced classes (Veilleux, Boudiaf et al. 2021)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from kshot.errors import ConfigError, check_not_negative, check_positive
from kshot.solvers.adaptation import adaptations
from kshot.solvers.prototype_descent import descended_scores
from kshot.solvers.transductive import TransductiveAdaptation


@adaptations.register("alpha-tim")
class AlphaTIM(TransductiveAdaptation):
    """TIM with Tsallis' alpha-entropies, which pull less hard towards equally many images per class.

    ::

        H_alpha(p) = (1 - SUM_k p_k^alpha) / (alpha - 1)
        minimise over the class weights, from the class means:
            mean cross-entropy of the support images
            - H_alpha of the mean p over the query images + mean H_alpha of p over the query images
                                                              (Veilleux et al. 2021, section 4; p as in `TIM`)

    The cross-entropy of the support images is Shannon's, as the release has it.

    Parameters
    ----------
    alpha
        Above 1; at 1, H_alpha would be Shannon's entropy. The release has 2 for one shot and 7 from five shots on.
    temperature
        Scale of the scores; 15 in the release.
    marginal_weight
        Of the entropy of the mean answer, relative to the cross-entropy.
    conditional_weight
        Of the mean entropy of the answers, relative to the cross-entropy.
    learning_rate
        The rate of Adam.
    steps
        The steps of Adam.
    """

    magnifies_rounding: ClassVar[bool] = True

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        temperature: float = 15.0,
        marginal_weight: float = 1.0,
        conditional_weight: float = 1.0,
        learning_rate: float = 1e-4,
        steps: int = 1000,
    ) -> None:
        if not alpha > 1:
            raise ConfigError(f"alpha is {alpha}, but must be above 1; for Shannon's entropy, there is the head tim")
        check_positive(temperature=temperature, learning_rate=learning_rate)
        check_not_negative(marginal_weight=marginal_weight, conditional_weight=conditional_weight, steps=steps)
        self.alpha, self.temperature = alpha, temperature
        self.marginal_weight, self.conditional_weight = marginal_weight, conditional_weight
        self.learning_rate, self.steps = learning_rate, steps

    def joint_scores(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """Scores (B, T, N) of the query features (B, T, D) by the weights that the descent reaches."""
        return descended_scores(
            support,
            labels,
            query,
            ways,
            query_slopes=self._query_slopes,
            cross_entropy_weight=1.0,
            temperature=self.temperature,
            learning_rate=self.learning_rate,
            steps=self.steps,
        )

    def _query_slopes(self, probabilities: Tensor) -> Tensor:
        power, factor = self.alpha - 1, self.alpha / (self.alpha - 1)
        factor /= probabilities.shape[2]
        marginal = (factor * self.marginal_weight) * probabilities.mean(2, keepdim=True).pow(power)
        return torch.sub(marginal, probabilities.pow(power), alpha=factor * self.conditional_weight)
