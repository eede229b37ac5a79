"""MAML from kshot's parts: the algorithm of Finn et al. (2017) on one screen, with the gradients of `kshot.MAML`.

    python examples/maml_by_hand.py        # trains for a few seconds on characters drawn from fonts, and tests

`kshot.MAML` is this, and besides: several tasks at once, first order, learnt rates, evaluation, checkpoints.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import kshot
from kshot.backbones.task_weights import forward_per_task, shared_weights
from kshot.data.augmentation import prepare_images
from kshot.learners.initialization import Classifier
from kshot.solvers.descent import Weights, gradient_descent

WAYS, SHOTS, QUERIES = 5, 1, 10
INNER_RATE, INNER_STEPS = 0.1, 3


def adapt(network: Classifier, tasks: kshot.Episodes, exact: bool) -> Weights:
    """phi_i = theta after gradient steps on the support set of task i, (B, ...) for each name."""

    def support_losses(phi: Weights, step: int) -> Tensor:
        return losses(forward_per_task(network, phi, tasks.support), tasks.support_labels)

    theta = shared_weights(network, tasks.tasks)
    return gradient_descent(support_losses, theta, rates=INNER_RATE, steps=INNER_STEPS, exact=exact)


def losses(scores: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy (B,) of each task's images."""
    return F.cross_entropy(scores.mT, labels, reduction="none").mean(1)


def meta_gradient(network: Classifier, tasks: kshot.Episodes) -> Tensor:
    """Add d mean_i L(phi_i; Q_i) / d theta, through the inner steps, to ``.grad``; returns the loss."""
    phi = adapt(network, tasks, exact=True)
    loss = losses(forward_per_task(network, phi, tasks.query), tasks.query_labels).mean()
    loss.backward()
    return loss.detach()


def accuracy(network: Classifier, tasks: kshot.Episodes) -> float:
    """The share of query images that are recognised after the inner steps."""
    scores = forward_per_task(network, adapt(network, tasks, exact=False), tasks.query)
    return (scores.argmax(-1) == tasks.query_labels).float().mean().item()


def main(steps: int = 60, meta_batch: int = 4) -> tuple[float, float]:
    """Train, and return the accuracy on unseen scripts before and after."""
    data = kshot.load("glyphs")
    torch.manual_seed(0)
    network = Classifier(kshot.Conv4(16, in_channels=1), WAYS)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    shape = kshot.TaskShape(WAYS, SHOTS, QUERIES)
    training, test = (kshot.EpisodeSampler(split, shape, seed=0) for split in (data.train, data.test))
    unseen = prepare_images(test.episodes(np.arange(40)), data.test.normalization)
    before = accuracy(network, unseen)
    for step in range(steps):
        numbers = np.arange(step * meta_batch, (step + 1) * meta_batch)  # task number i is the same everywhere
        optimizer.zero_grad()
        meta_gradient(network, prepare_images(training.episodes(numbers), data.train.normalization))
        optimizer.step()
    return before, accuracy(network, unseen)


if __name__ == "__main__":
    print("accuracy on unseen scripts: {:.1%} before, {:.1%} after".format(*main()))
