"""Learners on tasks of regression, through the same training, evaluation and commands as on images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import kshot
from kshot.backbones import MLP
from kshot.data.episodes import Episodes, TaskShape
from kshot.data.regression import task_sampler
from kshot.errors import ConfigError
from kshot.evaluation import evaluate
from kshot.learners import InitializationLearner, learners
from kshot.measures import SQUARED_ERROR
from kshot.results import compare
from kshot.training import train

DATA = kshot.load("sinusoids")
ADAPTS = sorted(name for name, cls in learners.items() if issubclass(cls, InitializationLearner))
SHORT = {"shots": 10, "meta_batch": 25, "optimizer": "adam", "patience": 0, "schedule": "constant", "progress": False}
SHORT |= {"tasks_per_epoch": 250, "max_epochs": 2, "validation_tasks": 20, "queries": 10}


def build(name: str, **options: object) -> InitializationLearner:
    torch.manual_seed(0)
    learner = learners[name](MLP((8, 8), in_channels=1, image_size=1), ways=1, **options)
    assert isinstance(learner, InitializationLearner)
    return learner


def tasks(count: int) -> Episodes:
    """Tasks of five support and six query points in float64."""
    found = task_sampler(DATA.train, TaskShape(1, 5, 6), 0).episodes(np.arange(count))
    labels = {"support_labels": found.support_labels.double(), "query_labels": found.query_labels.double()}
    return replace(found.with_images(found.support.double(), found.query.double()), **labels)


def plain_query_losses(learner: InitializationLearner, episodes: Episodes, steps: int, head_alone: bool) -> list:
    """The query loss of each task by autograd on one task after the other, written out layer by layer."""
    own = dict(learner.network.named_parameters())
    names = [name for name in own if not head_alone or name.startswith("head.")]

    def squared_error(weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        for layer in (0, 1):
            place = f"backbone.layers.{layer}.0"
            x = (x @ weights[f"{place}.weight"].T + weights[f"{place}.bias"]).relu()
        return ((x @ weights["head.weight"].T + weights["head.bias"] - y) ** 2).mean()

    losses = []
    for task in range(episodes.tasks):
        weights = dict(own)
        for _ in range(steps):
            loss = squared_error(weights, episodes.support[task], episodes.support_labels[task])
            gradients = torch.autograd.grad(loss, [weights[name] for name in names], create_graph=True)
            weights |= {name: weights[name] - 0.02 * gradient for name, gradient in zip(names, gradients)}
        losses.append(squared_error(weights, episodes.query[task], episodes.query_labels[task]))
    return losses


@pytest.mark.parametrize("tasks_at_once", [1, 4])
@pytest.mark.parametrize(("name", "head_alone"), [("maml", False), ("anil", True)])
def test_meta_gradients_equal_those_of_a_plain_loop_over_tasks(name, head_alone, tasks_at_once):
    learner = build(name, inner_rate=0.02, inner_steps=3, tasks_at_once=tasks_at_once).double()
    measured = learner.accumulate_gradients(tasks(4))
    expected = torch.stack(plain_query_losses(learner, tasks(4), 3, head_alone)).mean()
    gradients = torch.autograd.grad(expected, list(learner.network.parameters()))
    torch.testing.assert_close(measured["loss"], expected.detach())
    for parameter, gradient in zip(learner.network.parameters(), gradients):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("steps", [0, 5])
def test_evaluation_measures_the_squared_error_of_each_task(steps):
    learner = build("maml", inner_rate=0.02, test_inner_steps=steps)
    result = evaluate(learner, DATA.train, shots=5, queries=6, tasks=4)
    expected = plain_query_losses(learner.double(), tasks(4), steps, head_alone=False)
    np.testing.assert_allclose(result.values, torch.stack(expected).detach(), rtol=1e-4)
    assert result.measure is SQUARED_ERROR
    assert str(result).startswith(f"maml: {result.mean:.4f} ± {result.ci95:.4f} (5-shot, 6 query points, 4 tasks of")
    with pytest.raises(ConfigError, match="no accuracies but errors"):
        result.accuracies  # noqa: B018


@pytest.mark.parametrize("name", ADAPTS)
def test_every_learner_that_adapts_weights_learns_sinusoids(name):
    learner = build(name, **({"inner_rate": 0.01} if name == "imaml" else {}))
    before = evaluate(learner, DATA.test, shots=10, tasks=200)
    train(learner, DATA, **SHORT | {"tasks_per_epoch": 1000, "max_epochs": 1}, learning_rate=0.01)
    gain = compare(before, evaluate(learner, DATA.test, shots=10, tasks=200))
    assert gain.mean > 2 * gain.ci95
