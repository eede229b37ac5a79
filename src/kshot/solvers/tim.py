"""Transductive information maximisation: TIM (Boudiaf, Masud, Rony, Dolz, Piantanida and Ben Ayed 2020)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kshot.errors import check_choice, check_not_negative, check_positive
from kshot.solvers.adaptation import adaptations
from kshot.solvers.heads import class_rows
from kshot.solvers.products import product
from kshot.solvers.prototype_descent import descended_scores, logarithm
from kshot.solvers.transductive import TransductiveAdaptation, joint_products

_PUBLISHED_STEPS = {"alternating": 150, "gradient": 1000}


@adaptations.register("tim")
class TIM(TransductiveAdaptation):
    """Class weights under which the query images' predictions carry much information about them (Boudiaf et al. 2020).

    ::

        p_k(x) = softmax over k of  -temperature / 2 |x - w_k|^2,  x of unit length                 (eq. 2)
        minimise over w, from the class means:
            cross_entropy_weight * mean cross-entropy of the support images
            - marginal_weight * entropy of the mean p over the query images
            + conditional_weight * mean entropy of p over the query images                          (eq. 3)

    The marginal entropy is largest if every class has equally many query images: it is a prior that they have.

    Parameters
    ----------
    solver
        "alternating", the closed-form updates of TIM-ADM (section 3.3), or "gradient", Adam (TIM-GD), which takes far
        longer.
    temperature
        tau; the paper has 15.
    cross_entropy_weight
        lambda; the paper has 0.1.
    conditional_weight
        alpha; the paper has 0.1.
    marginal_weight
        1 in the paper. Veilleux et al. (2021) have 1 for all three weights if classes are unbalanced.
    learning_rate
        Of Adam, for "gradient".
    steps
        Rounds or steps; None for those of the paper, 150 and 1000.
    """

    def __init__(
        self,
        *,
        solver: Literal["alternating", "gradient"] = "alternating",
        temperature: float = 15.0,
        cross_entropy_weight: float = 0.1,
        marginal_weight: float = 1.0,
        conditional_weight: float = 0.1,
        learning_rate: float = 1e-4,
        steps: int | None = None,
    ) -> None:
        check_choice("solver", solver, ("alternating", "gradient"))
        check_positive(temperature=temperature, cross_entropy_weight=cross_entropy_weight, learning_rate=learning_rate)
        check_not_negative(marginal_weight=marginal_weight, conditional_weight=conditional_weight)
        if steps is not None:
            check_not_negative(steps=steps)
        self.solver, self.temperature, self.learning_rate = solver, temperature, learning_rate
        self.steps = _PUBLISHED_STEPS[solver] if steps is None else steps
        self.cross_entropy_weight = cross_entropy_weight
        self.marginal_weight, self.conditional_weight = marginal_weight, conditional_weight

    def joint_scores(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """Scores (B, T, N) of the query features (B, T, D) by the weights that the descent reaches."""
        if self.solver == "alternating":
            return self._alternating(support, labels, query, ways)
        return descended_scores(
            support,
            labels,
            query,
            ways,
            query_slopes=self._query_slopes,
            cross_entropy_weight=self.cross_entropy_weight,
            temperature=self.temperature,
            learning_rate=self.learning_rate,
            steps=self.steps,
        )

    def _query_slopes(self, probabilities: Tensor) -> Tensor:
        queries = probabilities.shape[2]
        marginal = (self.marginal_weight / queries) * logarithm(probabilities.mean(2, keepdim=True))
        # constants fall away, for the probabilities of an image sum to one
        return torch.sub(marginal, logarithm(probabilities), alpha=self.conditional_weight / queries)

    def _alternating(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """Proposition 1: closed-form rounds of the query images' soft labels q, and of the weights.

        The weights are combinations of the images, w = A x, and everything is a function of the images' inner
        products: the rounds cost nothing per value of a feature.
        """
        shots, queries = support.shape[1], query.shape[1]
        products = joint_products(support, query)
        members = class_rows(labels, ways, products.dtype)
        combination = products.new_zeros(len(products), ways, shots + queries)  # A
        torch.div(members, members.sum(2, keepdim=True), out=combination[:, :, :shots])
        # of each image's term; both halves of the objective are multiplied by the number of support images
        share = products.new_full((shots + queries,), shots / queries)
        share[:shots] = self.cross_entropy_weight / (1 + self.conditional_weight)
        pull = torch.empty_like(combination)
        scores = self._scores(products, combination)
        for _ in range(self.steps):
            logs = scores.log_softmax(1)
            pull[:, :, :shots] = members
            pull[:, :, shots:] = self._soft_labels(logs[:, :, shots:])
            pull *= share
            total = pull.sum(2, keepdim=True)
            predicted = logs.exp_().mul_(share)
            pull -= predicted
            combination = pull.addcmul(predicted.sum(2, keepdim=True), combination).div_(total)
            scores = self._scores(products, combination)
        return scores[:, :, shots:].mT.contiguous()

    def _soft_labels(self, logs: Tensor) -> Tensor:
        """q (B, N, T) of the query images' log-probabilities: p^(1 + alpha) / (its sum over the images)^(1/2)."""
        sharpened = (1 + self.conditional_weight) * logs
        balance = self.marginal_weight / (self.marginal_weight + 1)
        return sharpened.sub_(sharpened.logsumexp(2, keepdim=True), alpha=balance).softmax(1)

    def _scores(self, products: Tensor, combination: Tensor) -> Tensor:
        """-temperature / 2 |x - w|^2 without |x|^2, (B, N, S + T)."""
        inner = product(combination, products)
        lengths = (inner * combination).sum(2, keepdim=True)
        return inner.sub_(lengths, alpha=0.5).mul_(self.temperature)
