"""MTL (Wang, Zhao and Li 2021, eqs. 1-2): all tasks share one matrix of class weights, and no inner problem is left."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from linear import logistic_regression
from plain import CLASSES, WAYS, Weights, build, check_training, close, draw_tasks, features, weights_of
from torch import Tensor

from kshot.learners import MultiTask


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("scale", [None, 10.0])
def test_training_minimises_the_cross_entropy_of_all_images_by_the_rows_of_their_classes(scale: float | None) -> None:
    learner, tasks = build(MultiTask, num_classes=CLASSES, scale=scale), draw_tasks()

    def objective(weights: Weights, task: int) -> Tensor:
        images = torch.cat([tasks.support[task], tasks.query[task]])
        labels = torch.cat([tasks.support_labels[task], tasks.query_labels[task]])
        heads = torch.stack([weights["weight"][number] for number in tasks.classes[task]])
        return F.cross_entropy(weights.get("scale", 1) * unit(features(weights, images)) @ heads.T, labels)

    check_training(learner, tasks, objective)


def test_a_test_task_is_learnt_by_logistic_regression_with_c_3() -> None:
    """W21 section 5: 1/2 |W|^2 + 3 times the SUM of cross-entropies, on features of unit length."""
    learner, tasks = build(MultiTask, num_classes=CLASSES).eval(), draw_tasks()
    weights = weights_of(learner)
    for task, actual in enumerate(learner.scores(tasks)):
        support, query = (unit(features(weights, part[task], running=True)) for part in (tasks.support, tasks.query))
        weight, bias = logistic_regression(support, tasks.support_labels[task], WAYS, c=3.0)
        close(actual.softmax(1), (query @ weight.T + bias).softmax(1), f"task {task}", rtol=1e-5)
