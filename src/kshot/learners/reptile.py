"""Reptile (Nichol, Achiam and Schulman 2018)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kshot.backbones.registry import Backbone
from kshot.data.episodes import Episodes
from kshot.errors import check_choice, check_positive
from kshot.learners.base import accuracy, learners, task_losses
from kshot.learners.initialization import Gradients, InitializationLearner
from kshot.solvers.descent import TaskLosses, Weights, adam_descent, gradient_descent
from kshot.solvers.minibatches import draw_minibatches


@learners.register("reptile")
class Reptile(InitializationLearner):
    """An initialisation that moves towards the mean of the weights that tasks reach from it (Algorithm 2).

    ::

        for each task i of the batch, with support set S_i:
            phi_i = theta
            repeat inner_steps times, on mini-batches of inner_batch images of S_i:
                phi_i = inner optimiser's step on L(phi_i; mini-batch)
        theta = theta + e (mean over i of phi_i - theta)                     (e: the outer learning rate)

    ``.grad`` is theta - mean phi, so that SGD of rate e without momentum is the last line.

    Training looks at support images alone: give it more shots and no queries. The loss and accuracy that it reports are
    those of the mini-batches, each before the step on it.

    Parameters
    ----------
    inner_rate
        Of the inner optimiser, for the MEAN cross-entropy.
    inner_batch
        Images per step in training, drawn without replacement, epoch after epoch; at most the whole support set.
    test_inner_batch
        The same in evaluation.
    inner_optimizer
        "adam" without momentum (beta1 = 0), its moments from zero in every task, as in the paper's experiments; or
        "sgd".
    """

    meta_batch = 5
    needs_queries = False
    ignores_support_order = False

    def __init__(
        self,
        backbone: Backbone,
        *,
        ways: int = 5,
        inner_rate: float = 1e-3,
        inner_steps: int = 8,
        inner_batch: int = 10,
        test_inner_steps: int = 50,
        test_inner_batch: int = 15,
        inner_optimizer: Literal["adam", "sgd"] = "adam",
        tasks_at_once: int | None = None,
    ) -> None:
        super().__init__(
            backbone, ways=ways, inner_steps=inner_steps, test_inner_steps=test_inner_steps, tasks_at_once=tasks_at_once
        )
        check_positive(inner_steps=inner_steps)
        check_positive(inner_batch=inner_batch)
        check_positive(test_inner_batch=test_inner_batch)
        check_positive(inner_rate=inner_rate)
        check_choice("inner_optimizer", inner_optimizer, ("adam", "sgd"))
        self.inner_rate, self.inner_optimizer = inner_rate, inner_optimizer
        self.magnifies_rounding = inner_optimizer == "adam"
        self.inner_batch, self.test_inner_batch = inner_batch, test_inner_batch

    def inner_objective(self, losses: TaskLosses, start: Weights) -> TaskLosses:
        """What the inner steps descend, given the losses of the mini-batches.

        Parameters
        ----------
        losses
            Weights (B, ...) by name and the number of a step -> the losses (B,) of the tasks' mini-batches.
        start
            The initialisation of each task, (B, ...) for each name.
        """
        return losses

    def outer_gradient(self, start: Tensor, reached: Tensor) -> Tensor:
        """The gradient (B, ...) of a parameter for each task that has come from `start` (...) to `reached` (B, ...)."""
        return start - reached

    def adapted(self, episodes: Episodes, steps: int) -> Weights:
        """All weights of the network after `steps` on mini-batches of each task's support set, (B, ...) each."""
        return self._descend(episodes, steps)[0]

    def task_objective(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Mean loss and accuracy of the images of all mini-batches, each before the step on it."""
        _, scores, labels = self._descend(episodes, self.inner_steps)
        return self.loss(scores, labels), accuracy(scores, labels)

    def gradients(self, episodes: Episodes) -> tuple[Tensor, Gradients]:
        """Mean loss and accuracy of these tasks, (2,), and their mean outer gradient."""
        weights, scores, labels = self._descend(episodes, self.inner_steps)
        parameters = dict(self.network.named_parameters())
        with torch.no_grad():
            gradients = {name: self.outer_gradient(parameters[name], weight) for name, weight in weights.items()}
        return torch.stack([self.loss(scores, labels), accuracy(scores, labels)]), self.mean_gradients(gradients)

    def _descend(self, episodes: Episodes, steps: int) -> tuple[Weights, Tensor, Tensor]:
        """The weights after `steps`, with the scores (B, T, N) and labels (B, T) of the mini-batches on the way."""
        start = self.initial(episodes.tasks)
        support, size = episodes.support, self.inner_batch if self.training else self.test_inner_batch
        keys = episodes.keys if len(episodes.keys) else np.zeros(episodes.tasks, np.uint64)
        positions = draw_minibatches(keys, images=support.shape[1], size=size, steps=steps, device=support.device)
        task = torch.arange(episodes.tasks, device=support.device).unsqueeze(1)
        labels = episodes.support_labels[task, positions.flatten(1)]
        seen = []

        def losses(weights: Weights, step: int) -> Tensor:
            batch = positions[:, step]
            scores = self.outputs(weights, support[task, batch])
            seen.append(scores.detach())
            return task_losses(scores, episodes.support_labels[task, batch])

        objective = self.inner_objective(losses, start)
        if self.inner_optimizer == "adam":
            weights = adam_descent(objective, start, rate=self.inner_rate, steps=steps)
        else:
            weights = gradient_descent(objective, start, rates=self.inner_rate, steps=steps, exact=False)
        scores = torch.cat(seen, 1) if seen else support.new_empty(episodes.tasks, 0, self.ways)
        return {name: weight.detach() for name, weight in weights.items()}, scores, labels
