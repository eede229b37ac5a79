"""The walk of each task of Reptile and Meta-MinibatchProx, by torch's own optimisers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from plain import Weights, loss, part, squared_distance, weights_of
from torch import Tensor

from kshot.data.episodes import Episodes
from kshot.learners import Learner
from kshot.solvers.minibatches import draw_minibatches  # which images a step sees is data, as the tasks are


def over_walks(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test with both optimisers, smaller and larger mini-batches than the support set, in one chunk and two."""
    for mark in (
        pytest.mark.parametrize(("size", "steps"), [(4, 5), (100, 2), (6, 1)]),
        pytest.mark.parametrize("optimizer", ["adam", "sgd"]),
        pytest.mark.parametrize("at_once", [1, 2]),
    ):
        test = mark(test)
    return test


def walks(
    learner: Learner, tasks: Episodes, *, size: int, steps: int, optimizer: str, rate: float, l2: float = 0.0
) -> tuple[Weights, list[Weights], Tensor]:
    """Theta, the weights phi that each task reaches, and the losses (B, steps) of the mini-batches before the steps.

    A step descends L(phi; mini-batch) + l2/2 |phi - theta|^2.
    """
    theta = part(weights_of(learner), "network.")
    plan = draw_minibatches(tasks.keys, images=tasks.support.shape[1], size=size, steps=steps)
    reached, losses = [], []
    for images, labels, batches in zip(tasks.support, tasks.support_labels, plan):
        phi = {name: weight.detach().clone().requires_grad_() for name, weight in theta.items()}
        if optimizer == "adam":
            step: torch.optim.Optimizer = torch.optim.Adam(list(phi.values()), rate, betas=(0.0, 0.999))
        else:
            step = torch.optim.SGD(list(phi.values()), rate)
        for batch in batches:
            step.zero_grad()
            value = loss(phi, images[batch], labels[batch])
            (value + l2 / 2 * squared_distance(phi, theta)).backward()
            losses.append(value.detach())
            step.step()
        reached.append({name: weight.detach() for name, weight in phi.items()})
    return {name: weight.detach() for name, weight in theta.items()}, reached, torch.stack(losses).view(-1, steps)
