"""Meta-MinibatchProx (Zhou, Yuan, Xu, Yan and Feng 2019)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from kshot.backbones.registry import Backbone
from kshot.errors import ConfigError
from kshot.learners.base import learners
from kshot.learners.reptile import Reptile
from kshot.solvers.descent import TaskLosses, Weights
from kshot.solvers.proximal import proximal


@learners.register("minibatch-prox")
class MinibatchProx(Reptile):
    """Reptile whose inner problem is phi = argmin L(phi) + l2/2 |phi - theta|^2, solved by a few mini-batch steps.

    ``.grad`` is l2 (theta - mean phi), at the exact phi the gradient of the inner problem's least value, so
    that SGD of rate e without momentum is the paper's theta -= e l2 (theta - mean phi).

    Training looks at support images alone: give it more shots and no queries. The loss and accuracy that it reports are
    those of the mini-batches, each before the step on it and without the l2 term.

    backbone: images (M, C, H, W) -> features (M, D), with attribute ``feature_size`` = D.
    ways: N, the rows of the head.
    l2: strength of the pull towards the initialisation, beside the MEAN cross-entropy; also in evaluation.
    inner_rate: of the inner optimiser, for the MEAN cross-entropy.
    inner_steps, test_inner_steps: steps a task in training and in evaluation.
    inner_batch, test_inner_batch: images a step in training and in evaluation, drawn without replacement, epoch after
        epoch; at most the whole support set.
    inner_optimizer: "adam" without momentum (beta1 = 0), its moments from zero in every task; or "sgd".
    """

    def __init__(
        self,
        backbone: Backbone,
        ways: int = 5,
        l2: float = 0.1,
        inner_rate: float = 1e-3,
        inner_steps: int = 8,
        inner_batch: int = 10,
        test_inner_steps: int = 50,
        test_inner_batch: int = 15,
        inner_optimizer: Literal["adam", "sgd"] = "adam",
        tasks_at_once: int | None = None,
    ) -> None:
        super().__init__(
            backbone,
            ways,
            inner_rate,
            inner_steps,
            inner_batch,
            test_inner_steps,
            test_inner_batch,
            inner_optimizer,
            tasks_at_once,
        )
        if not l2 > 0:
            raise ConfigError(f"l2 is {l2}, but must be above 0; without it, this is the learner reptile")
        self.l2 = l2

    def inner_objective(self, losses: TaskLosses, start: Weights) -> TaskLosses:
        """What the inner steps descend: the losses of the mini-batches, and the pull towards the initialisation."""
        return proximal(losses, {name: weight.detach() for name, weight in start.items()}, l2=self.l2)

    def outer_gradient(self, start: Tensor, reached: Tensor) -> Tensor:
        """The gradient (B, ...) of a parameter for each task that has come from `start` (...) to `reached` (B, ...)."""
        return self.l2 * (start - reached)
