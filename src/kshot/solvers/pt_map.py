"""PT-MAP: power transform, and class centres by optimal transport (Hu, Gripon and Pateux 2021)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from kshot.errors import check_not_negative, check_positive, check_rate
from kshot.solvers.adaptation import adaptations
from kshot.solvers.heads import checked_scores, class_rows
from kshot.solvers.power import power_transform
from kshot.solvers.products import product
from kshot.solvers.prototype_descent import logarithm
from kshot.solvers.sinkhorn import transported
from kshot.solvers.transductive import TransductiveAdaptation, joint_products
from kshot.solvers.transformed import joined_at_unit_length, unit_length


@adaptations.register("pt-map")
class PTMAP(TransductiveAdaptation):
    """Class centres that share the query images out equally, after a power transform (Hu et al. 2021, Algorithm 1).

    ::

        x = power transform, centred and of unit length; support and query images are centred apart
        c_k = mean of the support images of class k
        repeat:  P = optimal transport of the query images to the classes, at costs |x - c_k|^2
                 c_k = c_k + rate * (mean of all images, weighted by their labels or by P, - c_k)
        score of class k = log P, once more transported

    Every class takes equally many query images: that is not learnt, but given. If it is wrong, so are many answers.

    Parameters
    ----------
    power
        beta of the power transform.
    sharpness
        lambda of the transport; the paper has 10.
    rate
        alpha of the moves; the paper has 0.2 at five shots and 0.4 at one.
    steps
        Of the centres; the paper has 20.
    """

    least_queries: ClassVar[int] = 2  # centring leaves nothing of a single one
    chunks: ClassVar[int] = 8

    def __init__(self, *, power: float = 0.5, sharpness: float = 10.0, rate: float = 0.2, steps: int = 20) -> None:
        check_positive(power=power, sharpness=sharpness, rate=rate)
        check_rate(rate=rate)
        check_not_negative(steps=steps)
        self.power, self.sharpness, self.rate, self.steps = power, sharpness, rate, steps

    def joint_scores(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """The logarithm of the transport plan (B, T, N) of the query features (B, T, D).

        Centres are combinations c = A x of the images, and everything is a function of their inner products.
        """
        shots, queries = support.shape[1], query.shape[1]
        products = joint_products(support, query, transform=self._transformed)
        checked_scores(products, query)  # before anything is repeated until it settles
        members = class_rows(labels, ways, products.dtype)
        combination = products.new_zeros(len(products), ways, shots + queries)  # A
        torch.div(members, members.sum(2, keepdim=True), out=combination[:, :, :shots])
        shares = torch.empty_like(combination)
        shares[:, :, :shots] = members
        factors: Tensor | None = None
        for _ in range(self.steps):
            costs = self._costs(products, combination, shots)
            # the centres move little, so that the transport is almost there
            plan, factors = transported(costs, sharpness=self.sharpness, start=factors)
            shares[:, :, shots:] = plan
            combination = torch.lerp(combination, shares / shares.sum(2, keepdim=True), self.rate)
        costs = self._costs(products, combination, shots)
        return logarithm(transported(costs, sharpness=self.sharpness, start=factors)[0]).mT.contiguous()

    def _transformed(self, support: Tensor, query: Tensor) -> Tensor:
        """Support and query images (B, S + T, D), centred apart."""
        parts = (unit_length(power_transform(features, self.power)) for features in (support, query))
        return joined_at_unit_length(*(part.sub_(part.mean(1, keepdim=True)) for part in parts))

    def _costs(self, products: Tensor, combination: Tensor, shots: int) -> Tensor:
        """|x - c|^2 (B, N, T) of the query images."""
        inner = product(combination, products)
        lengths = (inner * combination).sum(2, keepdim=True)
        own = products.diagonal(dim1=1, dim2=2)[:, shots:].unsqueeze(1)
        return (own - 2 * inner[:, :, shots:]).add_(lengths).clamp_(min=0)
