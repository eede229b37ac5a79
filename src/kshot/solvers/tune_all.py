"""Tune-all (W21): a task is learnt by a few gradient steps on every layer, from a head of class means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, normalize

from kshot.data.episodes import Episodes
from kshot.errors import ConfigError
from kshot.solvers.adaptation import Adaptation, HasFeatures, adaptations
from kshot.solvers.prototypes import cosine


@adaptations.register("tune-all")
class TuneAll(Adaptation):
    """Adam on ALL layers and the head, on the support set of each task; the learner itself stays as it was.

    Features are L2-normalised, the head starts at their unit-length class means and has no bias. Each task tunes its
    own copy of the parameters. The network is in evaluation mode throughout, during tuning too: BatchNorm uses its
    running statistics and dropout is off, so that the score of a query image does not depend on the others.

    Parameters
    ----------
    learning_rate
        The learning rate of Adam.
    steps
        Full-batch steps of cross-entropy on the support set.
    """

    def __init__(self, *, learning_rate: float = 1e-3, steps: int = 10) -> None:
        if not learning_rate > 0 or steps < 0:
            raise ConfigError(
                f"tune-all needs a positive learning_rate and steps >= 0, but they are {learning_rate} and {steps}"
            )
        self.learning_rate, self.steps = learning_rate, steps

    def scores(self, learner: HasFeatures, episodes: Episodes) -> Tensor:
        """Cosine scores (B, T, N) of the query images, without gradients to the learner."""
        network = _Features(cast(nn.Module, learner))
        # Adam needs gradients, even if the caller evaluates without them.
        with _evaluation_mode(network), torch.inference_mode(False), torch.enable_grad():
            tasks = zip(episodes.support.clone(), episodes.support_labels.clone(), episodes.query.clone())
            return torch.stack([self._task(network, *task, episodes.ways) for task in tasks])

    def _task(self, network: _Features, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """Scores (T, N) of one task's query images (T, C, H, W)."""
        state = {name: buffer.clone() for name, buffer in network.named_buffers()}
        tuned = {name: weights.detach().clone().requires_grad_() for name, weights in network.named_parameters()}
        state |= tuned

        def features(images: Tensor) -> Tensor:
            return normalize(functional_call(network, state, (images,)), dim=-1)

        with torch.no_grad():
            head = cosine(features(support).unsqueeze(0), labels.unsqueeze(0), ways).weight[0]
        head.requires_grad_()
        optimizer = torch.optim.Adam([*tuned.values(), head], lr=self.learning_rate)
        for _ in range(self.steps):
            optimizer.zero_grad()
            cross_entropy(features(support) @ head.T, labels).backward()
            optimizer.step()
        with torch.no_grad():
            return features(query) @ head.T


class _Features(nn.Module):
    """A learner whose forward pass is its features, as functional_call needs it."""

    def __init__(self, learner: nn.Module) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, images: Tensor) -> Tensor:
        return cast(HasFeatures, self.learner).features(images)


@contextmanager
def _evaluation_mode(network: nn.Module) -> Iterator[None]:
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
