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
from kshot.errors import ConfigError, DivergenceError
from kshot.solvers.adaptation import Adaptation, HasFeatures, adaptations
from kshot.solvers.heads import LinearHead, check_support, class_means
from kshot.solvers.prototypes import cosine


@adaptations.register("tune-all")
class TuneAll(Adaptation):
    """Adam on ALL layers and the head, on the support set of each task; the learner itself stays as it was.

    Features are L2-normalised, and the head starts at their class means, by default of unit length and without a bias;
    ``normalize_means=False, bias=True`` is the release of W21. Each task tunes its own copy of the parameters. The
    network is in evaluation mode throughout, during tuning too: BatchNorm uses its running statistics and dropout is
    off, so that the score of a query image does not depend on the others.

    Parameters
    ----------
    learning_rate
        The learning rate of Adam.
    steps
        Full-batch steps of cross-entropy on the support set.
    normalize_means
        Start from class means of unit length; False for the plain means of the unit features, which favour compact
        classes.
    bias
        Train a bias, from 0.
    """

    def __init__(
        self, *, learning_rate: float = 1e-3, steps: int = 10, normalize_means: bool = True, bias: bool = False
    ) -> None:
        if not learning_rate > 0 or steps < 0:
            raise ConfigError(
                f"tune-all needs a positive learning_rate and steps >= 0, but they are {learning_rate} and {steps}"
            )
        self.learning_rate, self.steps = learning_rate, steps
        self.normalize_means, self.bias = normalize_means, bias

    def scores(self, learner: HasFeatures, episodes: Episodes) -> Tensor:
        """Scores (B, T, N) of the query images, without gradients to the learner."""
        network = _Features(cast(nn.Module, learner))
        # Adam needs gradients, even if the caller evaluates without them.
        with _evaluation_mode(network), torch.inference_mode(False), torch.enable_grad():
            tasks = zip(episodes.support.clone(), episodes.support_labels.clone(), episodes.query.clone())
            scores = []
            for number, task in enumerate(tasks):
                try:
                    scores.append(self._task(network, *task, episodes.ways))
                except DivergenceError as error:
                    error.task = number
                    raise
            return torch.stack(scores)

    def _task(self, network: _Features, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """Scores (T, N) of one task's query images (T, C, H, W)."""
        state = {name: buffer.clone() for name, buffer in network.named_buffers()}
        tuned = {name: weights.detach().clone().requires_grad_() for name, weights in network.named_parameters()}
        state |= tuned

        def features(images: Tensor) -> Tensor:
            return normalize(functional_call(network, state, (images,)), dim=-1)

        head = self._start(features(support).detach(), labels, ways)
        tuned_head = [head.weight, head.bias] if self.bias else [head.weight]
        optimizer = torch.optim.Adam(
            [*tuned.values(), *(part.requires_grad_() for part in tuned_head)], lr=self.learning_rate
        )
        for _ in range(self.steps):
            optimizer.zero_grad()
            cross_entropy(head.scores(features(support)[None])[0], labels).backward()
            optimizer.step()
        with torch.no_grad():
            return head.scores(features(query)[None])[0]

    def _start(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        """The head of one task before the first step, of unit features (S, D); the bias is zero."""
        batch = features[None], labels[None], ways
        if self.normalize_means:
            return cosine(*batch)
        check_support(*batch)
        weight = class_means(*batch)
        return LinearHead(weight, weight.new_zeros(1, ways))


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
