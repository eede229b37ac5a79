"""Baseline++: a cosine classifier that is trained from random weights on the support images (Chen et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from kshot.errors import check_not_negative, check_positive
from kshot.solvers.adaptation import HeadAdaptation, adaptations
from kshot.solvers.heads import LinearHead, check_support, one_hot
from kshot.solvers.products import inner_products, product
from kshot.solvers.transformed import UnitLengthHead

_BATCH = 4
_MOMENTUM = _DAMPENING = 0.9


@adaptations.register("baseline-plus-plus")
class BaselinePlusPlus(HeadAdaptation):
    """A cosine classifier, trained from random weights by stochastic gradient descent (Chen et al. 2019, section 3.2).

    ::

        v_k = random, g_k = |v_k|
        repeat epochs times, for each mini-batch of 4 support images in random order:
            score of class k for x:  scale * g_k * cos(x, v_k)
            v, g = step of SGD with momentum 0.9, dampening 0.9 and weight decay on the mean cross-entropy

    The factor g_k per class is part of the release, by weight normalisation, and not of the paper. The random weights
    are those of torch's linear layer. They and the order of the images are the same for every task.

    Parameters
    ----------
    scale
        What cosines are multiplied by; the release has 2 for up to 200 classes.
    learning_rate
        The rate of stochastic gradient descent.
    weight_decay
        The weight decay of stochastic gradient descent.
    epochs
        Passes over the support images.
    seed
        Names the random weights and the order of the support images.
    """

    passes_gradients = False
    follows_label_permutations = False  # each class starts from random weights of its own

    def __init__(
        self,
        *,
        scale: float = 2.0,
        learning_rate: float = 0.01,
        weight_decay: float = 0.001,
        epochs: int = 100,
        seed: int = 0,
    ) -> None:
        check_positive(scale=scale, learning_rate=learning_rate)
        check_not_negative(weight_decay=weight_decay, epochs=epochs)
        self.scale, self.learning_rate, self.weight_decay = scale, learning_rate, weight_decay
        self.epochs, self.seed = epochs, seed

    @torch.no_grad()
    def head(self, features: Tensor, labels: Tensor, ways: int) -> UnitLengthHead:
        """The trained classifier of features (B, S, D) with labels (B, S).

        Every step moves the weights of a class along support features, so that they stay a combination of these and of
        the random weights. The coefficients A (B, N, S + N) of the combination are trained, for which the inner
        products (B, S + N, S + N) are enough.
        """
        check_support(features, labels, ways)
        tasks, support, dimension = features.shape
        generator = torch.Generator().manual_seed(self.seed)
        start = torch.rand(ways, dimension, generator=generator, dtype=torch.float64)
        start = ((2 * start - 1) / dimension**0.5).to(features).expand(tasks, -1, -1)
        directions = normalize(features, dim=-1)
        points = torch.cat([directions, start], 1)
        products = inner_products(points)
        coefficients = torch.eye(support + ways, dtype=features.dtype, device=features.device)[support:]
        coefficients = coefficients.repeat(tasks, 1, 1)
        gains = torch.linalg.vector_norm(start, dim=-1)
        targets = one_hot(labels, ways, features.dtype)
        moving: tuple[Tensor, Tensor] | None = None
        for _ in range(self.epochs):
            order = torch.randperm(support, generator=generator).to(features.device)
            for batch in order.split(_BATCH):
                slopes = self._slopes(products, coefficients, gains, targets, batch)
                moving = slopes if moving is None else _averaged(moving, slopes)
                coefficients = coefficients - self.learning_rate * moving[0]
                gains = gains - self.learning_rate * moving[1]
        weight = product(coefficients, points)
        weight = self.scale * gains.unsqueeze(-1) * normalize(weight, dim=-1)
        return UnitLengthHead(LinearHead(weight, gains.new_zeros(gains.shape)))

    def _slopes(
        self, products: Tensor, coefficients: Tensor, gains: Tensor, targets: Tensor, batch: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The gradient, with weight decay, in the coefficients (B, N, S + N) and the gains (B, N)."""
        inner = product(coefficients, products)  # of each class's weights with every point
        lengths = (inner * coefficients).sum(-1).clamp(min=1e-24).sqrt()
        cosines = inner[:, :, batch] / lengths.unsqueeze(-1)  # (B, N, batch)
        errors = (self.scale * gains.unsqueeze(-1) * cosines).softmax(1) - targets[:, batch].mT
        errors = errors * (self.scale / len(batch))
        of_gains = (errors * cosines).sum(-1)
        pull = (gains / lengths).unsqueeze(-1)
        of_coefficients = -pull * (of_gains / lengths).unsqueeze(-1) * coefficients
        of_coefficients[:, :, batch] += pull * errors
        return of_coefficients + self.weight_decay * coefficients, of_gains + self.weight_decay * gains


def _averaged(moving: tuple[Tensor, Tensor], slopes: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The moving average of gradients that torch's SGD keeps."""
    one, other = (_MOMENTUM * old + (1 - _DAMPENING) * new for old, new in zip(moving, slopes))
    return one, other
