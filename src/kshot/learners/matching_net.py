"""Matching networks (Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra 2016)."""

from __future__ import annotations

from typing import Literal

from kshot.backbones.registry import Backbone
from kshot.errors import ConfigError, check_positive
from kshot.learners.base import FeatureLearner, learners
from kshot.solvers.attention import Attention, FullContext

_READING_STEPS = 3


@learners.register("matching-net")
class MatchingNet(FeatureLearner):
    """A query image takes the labels of the support images, of each as much as it attends to it (Vinyals et al.).

    ::

        for each task i of the batch, with support set S_i and query set Q_i:
            a(x, x_j) = softmax over j of  cos(f(x), g(x_j))                 (section 2.1.1)
            p(k | x) = sum of a(x, x_j) over the images x_j of class k in S_i          (eq. 1)
            loss_i = mean of  -log p(y | x)  over (x, y) in Q_i
        theta = optimiser's step along the gradient of  mean over i of  loss_i
        f = g = the backbone's features; with full context, LSTMs on them    (section 2.1.2)

    If classes have unequal numbers of support images, their weights are divided by the size of their class, which eq. 1
    does not do: by it, the largest class would nearly always win.

    The paper's softmax has no temperature, so that a class of a 5-way task has at most e / (e + 4) = 0.4 of the
    attention if features are not negative, and there is little to learn from; `scale` mends that. With full-context
    embeddings, the support images are read one after the other, forwards and backwards, and a query reads from all
    of them several times. Scores then depend on the order of the support images, which the paper leaves open: here
    it is that of the episode, and sampled ones hold one class after the other.

    Parameters
    ----------
    full_context
        Embed images in the context of the support set, instead of each by itself.
    reading_steps
        How often a query reads from the support set in full-context embeddings.
    scale
        The initial value of a factor on the cosines, which is learnt; None, as in the paper, for no factor.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        full_context: bool = False,
        reading_steps: int = _READING_STEPS,
        scale: float | None = None,
        normalize_over: Literal["task", "batch"] = "task",
    ) -> None:
        check_positive(reading_steps=reading_steps)
        if reading_steps != _READING_STEPS and not full_context:
            raise ConfigError(
                f"reading_steps is {reading_steps}, but queries read from the support set in full-context embeddings "
                f"alone; choose full_context=true, or leave out reading_steps"
            )
        if scale is not None:
            check_positive(scale=scale)
        context = FullContext(backbone.feature_size, steps=reading_steps) if full_context else None
        super().__init__(backbone, adaptation=Attention(context, scale=scale), normalize_over=normalize_over)
        self.ignores_support_order = not full_context
