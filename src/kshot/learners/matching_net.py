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
    """A query image takes the labels of the support images, as much of each as it attends to it (eq. 1).

    Where classes have unequal numbers of support images, their weights are divided by the size of their class, which
    eq. 1 does not do: by it, the largest class would nearly always win.

    The attention is the softmax of cosines, without a temperature (section 2.1.1). With full-context embeddings, the
    support images are read one after the other, forwards and backwards, and a query reads from all of them several
    times (section 2.1.2). Scores then depend on the order of the support images, which the paper leaves open: here it
    is that of the episode, and sampled ones hold one class after the other.

    backbone: images (M, C, H, W) -> features (M, D), with attribute ``feature_size`` = D.
    full_context: embed images in the context of the support set, instead of each by itself.
    reading_steps: how often a query reads from the support set in full-context embeddings.
    statistics: BatchNorm statistics in training: of each "task" alone, or "joint" over the whole meta batch.
    """

    def __init__(
        self,
        backbone: Backbone,
        full_context: bool = False,
        reading_steps: int = _READING_STEPS,
        statistics: Literal["task", "joint"] = "task",
    ) -> None:
        check_positive(reading_steps=reading_steps)
        if reading_steps != _READING_STEPS and not full_context:
            raise ConfigError(
                f"reading_steps is {reading_steps}, but queries read from the support set in full-context embeddings "
                f"alone; choose full_context=true, or leave out reading_steps"
            )
        context = FullContext(backbone.feature_size, steps=reading_steps) if full_context else None
        super().__init__(backbone, Attention(context), statistics)
        self.ignores_support_order = not full_context
