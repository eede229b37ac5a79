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
    """Reptile whose inner problem has an l2 term, phi = argmin L(phi) + l2/2 |phi - theta|^2, solved approximately.

    ::

        for each task i of the batch, with support set S_i:
            phi_i = theta
            repeat inner_steps times, on mini-batches of inner_batch images of S_i:
                phi_i = inner optimiser's step on  L(phi_i; mini-batch) + l2/2 |phi_i - theta|^2
        theta = theta - e l2 (theta - mean over i of phi_i)                  (e: the outer learning rate)

    ``.grad`` is l2 (theta - mean phi), at the exact phi the gradient of the inner problem's least value, so that SGD of
    rate e without momentum is the last line.

    Training looks at support images alone: give it more shots and no queries. The loss and accuracy that it reports are
    those of the mini-batches, each before the step on it and without the l2 term.

    Parameters
    ----------
    l2
        Strength of the pull towards the initialisation, next to the MEAN cross-entropy; also in evaluation.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
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
            ways=ways,
            inner_rate=inner_rate,
            inner_steps=inner_steps,
            inner_batch=inner_batch,
            test_inner_steps=test_inner_steps,
            test_inner_batch=test_inner_batch,
            inner_optimizer=inner_optimizer,
            tasks_at_once=tasks_at_once,
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
