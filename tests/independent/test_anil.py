"""ANIL (Raghu et al. 2020; W21 eqs. 3-5, 8-9): gradient steps on the head alone, the body learnt by the outer loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from linear import logistic_regression
from plain import NETWORK, Weights, build, check_scores, check_training, close, draw_tasks, features, weights_of
from torch import Tensor

from kshot.data.episodes import Episodes
from kshot.learners import ANIL
from kshot.solvers import LogisticRegression

RATE = 0.5


def inner_loop(weights: Weights, support: Tensor, labels: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """InnerLoop of W21 eq. 4: weight and bias of the head after gradient steps on features (S, D)."""
    # which autograd knows as variables even if the outer loop does not
    weight, bias = (weights[f"network.head.{name}"].requires_grad_() for name in ("weight", "bias"))
    for _ in range(steps):
        value = F.cross_entropy(support @ weight.T + bias, labels)
        to_weight, to_bias = torch.autograd.grad(value, [weight, bias], create_graph=True)
        weight, bias = weight - RATE * to_weight, bias - RATE * to_bias
    return weight, bias


def after_inner_loop(learner: ANIL, tasks: Episodes, steps: int) -> Callable[[int, Tensor], Tensor]:
    """The scores of a task's images after steps on its support set."""
    weights = weights_of(learner)

    def outputs(task: int, images: Tensor) -> Tensor:
        support = features(weights, tasks.support[task], NETWORK)
        weight, bias = inner_loop(weights, support, tasks.support_labels[task], steps)
        return features(weights, images, NETWORK) @ weight.T + bias

    return outputs


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize(("steps", "frozen"), [(0, False), (1, False), (5, False), (5, True)])
def test_training_minimises_the_query_loss_over_body_and_first_head(steps: int, frozen: bool, at_once: int) -> None:
    """With a frozen head (W21 eq. 5) over the body alone."""
    options = {"inner_rate": RATE, "inner_steps": steps, "frozen_head": frozen, "tasks_at_once": at_once}
    learner, tasks = build(ANIL, ways=3, **options), draw_tasks()

    def objective(weights: Weights, task: int) -> Tensor:
        support, query = (features(weights, images[task], NETWORK) for images in (tasks.support, tasks.query))
        weight, bias = inner_loop(weights, support, tasks.support_labels[task], steps)
        return F.cross_entropy(query @ weight.T + bias, tasks.query_labels[task])

    check_training(learner, tasks, objective)
    assert all((parameter.grad is None) == frozen for parameter in learner.network.head.parameters())


@pytest.mark.parametrize("at_once", [1, 2])
def test_without_a_split_all_images_are_both_support_and_query(at_once: int) -> None:
    """W21 section 3.3: the inner loop and the outer loss see the same images; a test task keeps its support set."""
    options = {"inner_rate": RATE, "inner_steps": 3, "split": False, "tasks_at_once": at_once}
    learner, tasks = build(ANIL, ways=3, test_inner_steps=3, **options), draw_tasks()

    def objective(weights: Weights, task: int) -> Tensor:
        images = torch.cat([tasks.support[task], tasks.query[task]])
        labels = torch.cat([tasks.support_labels[task], tasks.query_labels[task]])
        vectors = features(weights, images, NETWORK)
        weight, bias = inner_loop(weights, vectors, labels, 3)
        return F.cross_entropy(vectors @ weight.T + bias, labels)

    check_training(learner, tasks, objective)
    check_scores(learner, tasks, after_inner_loop(learner, tasks, 3))


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_test_task_is_learnt_by_the_same_inner_loop(at_once: int) -> None:
    options = {"inner_rate": RATE, "inner_steps": 1, "test_inner_steps": 4, "tasks_at_once": at_once}
    learner, tasks = build(ANIL, ways=3, **options), draw_tasks()
    check_scores(learner, tasks, after_inner_loop(learner, tasks, 4))


@pytest.mark.parametrize("statistics", ["transductive", "inductive"])
def test_any_head_may_be_fitted_to_the_body_in_the_place_of_the_inner_loop(statistics: str) -> None:
    """W21's test protocol on ANIL's body: logistic regression on unit features, normalised as by the inner loop."""
    learner, tasks = build(ANIL, ways=3).eval(), draw_tasks()
    learner.statistics_at_test = statistics
    weights = weights_of(learner)

    def unit(images: Tensor) -> Tensor:
        vectors = features(weights, images, NETWORK)
        return vectors / vectors.norm(dim=1, keepdim=True)

    for task, actual in enumerate(learner.scores_of_head(LogisticRegression(c=2.0), tasks)):
        support, labels = tasks.support[task], tasks.support_labels[task]
        weight, bias = logistic_regression(unit(support), labels, 3, c=2.0)
        query = unit(tasks.query[task])
        if statistics == "inductive":
            query = torch.stack([unit(torch.cat([support, image[None]]))[-1] for image in tasks.query[task]])
        close(actual.softmax(1), (query @ weight.T + bias).softmax(1), f"task {task}", rtol=1e-5)
